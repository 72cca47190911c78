"""Memory for results, and what becomes of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LINE = 64  # bytes: a cache line, the widest vector, and where torch lets a tensor begin
_HUGE_PAGES = 4 << 20  # bytes from which on they are asked for
_MADV_HUGEPAGE = 14  # of Linux's mman.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_MOST_KEPT = 32 << 20  # bytes: the largest threshold that glibc takes
_STATUS = Path("/proc/self/status")
_MAPPINGS = 65536  # of single tensors at most, as glibc has it by itself


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor that begins on a cache line.

    For a large one Linux is asked for huge pages: results are written once, into fresh memory, and the first touch of a page can cost more than what
    is computed for it. Huge pages are 2 to 6 times faster to fill.
    """
    tensor = torch.empty(shape, dtype=dtype)
    if tensor.nbytes >= _HUGE_PAGES and _advise is not None:
        skipped = -tensor.data_ptr() % mmap.PAGESIZE
        _advise(tensor.data_ptr() + skipped, tensor.nbytes - skipped, _MADV_HUGEPAGE)
    return tensor


def keep_freed_memory(of_any_size: bool = False) -> bool:
    """From now on the process keeps the memory of freed tensors of up to 32 MiB, or of all, instead of giving it back to the system.

    For commands and benchmarks: it is the whole process's matter, so no operation does it. A training step frees and asks for the same hundreds of
    megabytes again and again, and the page faults of fresh memory are a third of the time of a message passing and an eighth of a training step.
    Keeping the largest tensors' too saves another twentieth, but then smaller ones are put into their places, and training on long windows takes 1.4
    times the memory. Where the C library is not glibc nothing happens, and the answer is False.
    """
    libc = _glibc()
    settings = {_M_TRIM_THRESHOLD: -1, _M_MMAP_THRESHOLD: _MOST_KEPT, _M_MMAP_MAX: 0 if of_any_size else _MAPPINGS}
    return libc is not None and all(libc.mallopt(*setting) for setting in settings.items())


def give_back_freed_memory() -> None:
    """Gives the kept memory back once, where the C library is glibc."""
    if libc := _glibc():
        libc.malloc_trim(0)


def peak_memory() -> int:
    """Bytes of memory that this process took at most.

    What Linux's getrusage says is no less than what the process took that started this one, so it is asked only where /proc says nothing.
    """
    if sys.platform == "win32":
        import psutil  # comes with Dask

        return int(psutil.Process().memory_info().peak_wset)
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For work that makes very many objects without cycles, among which it would look for them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _linux_advise() -> Any:
    """`madvise(address, bytes, advice)`; None where there is none."""
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function


_advise = _linux_advise()
