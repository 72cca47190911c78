"""What the launchers of all kernels share."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current GPU, which need not be the tensors'."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def rows_of_features(x: Tensor) -> Tensor:
    """x with the features of a frame in one piece of memory, copied only where they aren't. Frames and walks may have any strides.  # [B, T, J, C]"""
    _, _, J, C = x.shape
    together = (C == 1 or x.stride(3) == 1) and (J == 1 or x.stride(2) == C)
    return x if together else x.contiguous()
