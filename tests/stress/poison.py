"""Memory in which every number that nobody wrote is NaN: of tensors that torch makes, and of arrays that numba's kernels make inside."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ALLOCATE = "MemInfo_alloc_aligned"  # what np.empty becomes


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Also makes torch refuse what is not deterministic."""
    poison_kernels()
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


@functools.cache
def poison_kernels() -> None:
    """From now on the process's kernels find all bits set, NaN in every dtype and -1 in whole numbers, where they have written nothing.

    Kernels that are linked already keep the allocator that they know.
    """
    try:
        import llvmlite.binding
        import numba
        from numba.core import types
        from numba.core.runtime import _nrt_python, rtsys
    except ImportError:
        return
    rtsys.initialize(numba.core.registry.cpu_target.target_context)  # else its symbols replace ours when the first kernel is made
    word, place = ctypes.c_size_t, ctypes.c_void_p
    allocate = ctypes.CFUNCTYPE(word, word, ctypes.c_uint32)(_nrt_python.c_helpers[_ALLOCATE])
    data = ctypes.CFUNCTYPE(place, word)(_nrt_python.c_helpers["MemInfo_data"])
    fill = ctypes.CFUNCTYPE(place, place, ctypes.c_int, word)(("memset", ctypes.CDLL(None)))

    @numba.cfunc(types.uintp(types.uintp, types.uint32))
    def poisoned(size, alignment):
        info = allocate(size, alignment)
        if info:  # else there was no memory, which the kernel says
            fill(data(info), 255, size)
        return info

    _kept.append(poisoned)
    llvmlite.binding.add_symbol(f"NRT_{_ALLOCATE}", poisoned.address)


_kept: list = []  # the function, for as long as kernels call it
