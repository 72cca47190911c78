"""Memory for results, and what becomes of it."""

from __future__ import annotations

import ctypes
import math
import platform

import numpy as np
import torch
from torch import Tensor

LINE = 64  # bytes: a cache line, and the widest vector
_HUGE_PAGES = 4 << 20  # bytes from which on numpy asks for them
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST_KEPT = 32 << 20  # bytes: what glibc allows at most


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor that begins on a cache line. It is no view: torch lets nobody change one in place that an operation returned.

    A large one by way of numpy, which on Linux asks for huge pages. Results are written once, into fresh memory, and the first touch of a page can
    cost more than what is computed for it: here, huge pages are 2 to 6 times faster to fill.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE_PAGES:
        return torch.empty(shape, dtype=dtype)
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    storage = torch.from_numpy(memory[first : first + size]).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]


def keep_freed_memory() -> bool:
    """From now on the process keeps the memory of freed tensors of up to 32 MiB, for its next ones, instead of giving it back to the system.

    For commands and benchmarks: it is the whole process's matter, so no operation does it. A training step frees and asks for the same hundreds of
    megabytes again and again, and the page faults of fresh memory are a third of the time of a message passing and an eighth of a training step.
    Where the C library is not glibc nothing happens, and the answer is False.
    """
    libc = _glibc()
    return bool(libc and libc.mallopt(_M_TRIM_THRESHOLD, -1) and libc.mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT))


def give_back_freed_memory() -> None:
    """Gives the kept memory back once, where the C library is glibc."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
