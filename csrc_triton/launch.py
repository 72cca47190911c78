"""What the launchers of all kernels share.

A kernel's parameters are pointers, then numbers that change from call to call, then numbers that follow from shapes, strides and dtypes. The last
are settled once, and so is all that Triton makes of them: the next call of the same kind takes the compiled kernel and gives it bare addresses.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

_GPU = "hip" if torch.version.hip else "cuda"
_HERE = nullcontext()
_ALIGNED = 16  # bytes: what the compiled kernels take for granted, as Triton sees it of the first call
_MOST_KNOWN = 4096


class Settled(NamedTuple):
    """Of a launch: how many programs, the numbers that follow its pointers, and options of the compiler."""

    programs: int
    numbers: dict[str, Any]
    options: dict[str, Any]


_known: dict[Hashable, Callable[..., None]] = {}


def launch(kernel: Any, pointers: Sequence[Tensor | None], key: Hashable, settle: Callable[[], Settled], changing: Sequence[Any] = ()) -> None:
    """kernel[programs](*pointers, *changing, *numbers)

    Args:
        kernel: whose parameters come in this order; it must not be specialised for the values of `changing`.
        pointers: the first is never None.
        key: all that `settle` looks at but for the dtypes of the pointers.
        settle: called where no compiled kernel for the key is at hand.
    """
    device = pointers[0].device  # type: ignore[union-attr]
    addresses: list[int | None] = []
    known_as, together = [kernel.fn, device, key], 0
    for pointer in pointers:
        if pointer is None:
            addresses.append(None)
            known_as.append(None)
        else:
            address = pointer.data_ptr()
            together |= address
            addresses.append(address)
            known_as.append(pointer.dtype)
    kind, aligned = tuple(known_as), together % _ALIGNED == 0
    run = _known.get(kind) if aligned else None
    with on_device_of(device):
        if run is not None:
            run(addresses, changing)
            return
        programs, numbers, options = settle()
        compiled = kernel[programs,](*pointers, *changing, *numbers.values(), **options)
    if compiled is not None and aligned:  # an interpreter compiles nothing
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known_grid, rest = compiled[(programs, 1, 1)], tuple(numbers.values())
        _known[kind] = lambda addresses, changing: known_grid(*addresses, *changing, *rest)


def on_device_of(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current GPU, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" and device.index != torch.cuda.current_device() else _HERE


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
