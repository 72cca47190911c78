"""Runs a kernel over ranges of its work on a few threads.

numba's own layers don't suit a library: OpenMP kills a child forked after its first use, the work queue is not safe to call from two threads,
and the TBB wheel is not found by itself. Kernels that release the GIL, on a small pool of Python threads made anew after a fork, avoid all three.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def run_ranges(kernel: Callable[..., None], count: int, *args: Any) -> None:
    """Calls `kernel(first, last, *args)` for ranges that cover 0 … count - 1, as many at a time as `torch.get_num_threads()` says."""
    threads = min(torch.get_num_threads(), count)
    if count == 0:
        return
    if threads <= 1:
        kernel(0, count, *args)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    pool = _threads(threads - 1)
    others: list[Future[None]] = []
    try:
        for i in range(1, threads):
            others.append(pool.submit(kernel, bounds[i], bounds[i + 1], *args))  # noqa: PERF401 (those before a failure must be kept)
    except RuntimeError:  # Python is ending and starts no more threads
        kernel(bounds[len(others) + 1], count, *args)
    kernel(0, bounds[1], *args)
    for other in others:
        other.result()


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < count:
        # The old pool is let go, not shut down: another thread may be using it.
        _pool, _pool_size = ThreadPoolExecutor(count, "fastst"), count
    return _pool


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


os.register_at_fork(after_in_child=_forget_pool)
