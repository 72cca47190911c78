"""What the launchers of all kernels share."""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_GPU = "hip" if torch.version.hip else "cuda"


def on_device_of(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current GPU, which need not be the tensors'."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def enough_programs(device: torch.device) -> int:
    """Eight programs of two warps for every multiprocessor of the GPU; without one, for the 36 of a GPU with 8 GB."""
    return 8 * (_multiprocessors(device) if device.type == "cuda" else 36)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def number_or_pointer(value: Tensor) -> tuple[Any, Tensor | None]:
    """A 0-d tensor as two arguments of a kernel: a number where it lies on the CPU; on a GPU a pointer,
    which the kernel reads through, for to read it here is to wait, and a CUDA graph would keep it.
    """
    return (0, value) if value.is_cuda else (value.item(), None)


def rows_of_features(x: Tensor) -> Tensor:
    """x with the features of a frame in one piece of memory, copied only where they aren't. Frames and walks may have any strides.  # [B, T, J, C]"""
    _, _, J, C = x.shape
    together = (C == 1 or x.stride(3) == 1) and (J == 1 or x.stride(2) == C)
    return x if together else x.contiguous()


def launch_options(backend: str = _GPU, num_warps: int = 4, max_registers: int | None = None) -> dict[str, Any]:
    """The keywords of a launch that are no arguments of its kernel.

    With a bound on the registers of a thread, ptxas uses them all to bring loads forward; by itself it saves them for more warps, and a load
    waits for the one before. ROCm's compiler has no such option.
    """
    options = {"num_warps": num_warps, "enable_fp_fusion": True}  # Triton's default will change
    return options if max_registers is None or backend == "hip" else {**options, "maxnreg": max_registers}


def parts_of_a_row(row: int, tile: int, num_warps: int) -> int:
    """2 where a thread has two 16-byte loads of a tile and half a row is 32 bytes, which is what memory gives at once; else 1. Sizes are in bytes.

    Two parts of one row, and not two rows, leave a thread one address, one edge and one mask to work out for twice the channels.
    """
    return 2 if row >= 64 and tile >= 2 * 16 * 32 * num_warps else 1
