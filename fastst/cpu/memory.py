"""Memory for results, and what becomes of it."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import torch
from torch import Tensor

_LINE = 64  # bytes: a cache line, and the widest vector
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor that begins on a cache line.

    By way of numpy, which on Linux asks for huge pages where an array has 4 MiB or more. Results are written once, into fresh memory, and the first
    touch of a page can cost more than what is computed for it: here, huge pages are 2 to 6 times faster to fill.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return torch.from_numpy(memory[first : first + size]).view(dtype).view(shape)


def keep_freed_memory() -> bool:
    """From now on the process keeps the memory that it frees, for what it allocates next, instead of giving it back to the system.

    For commands and benchmarks: it is the whole process's matter, so no operation does it. A training step frees and asks for the same hundreds of
    megabytes again and again, and the page faults of fresh memory are a third of the time of a message passing and an eighth of a training step.
    The most that the process holds at a time stays the same. Where the C library is not glibc nothing happens, and the answer is False.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; Windows has no CDLL(None)
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, -1) and mallopt(_M_MMAP_MAX, 0))
