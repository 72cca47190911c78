"""Runs a compiled kernel over ranges of its work on a few threads: torch's own.

numba's layers don't suit a library: OpenMP kills a child forked after its first use, the work queue is not safe to call from two threads, and the TBB
wheel is not found by itself. And threads of one's own compete with torch's, which spin for a while after every parallel operation of torch. So the
kernels join torch's OpenMP team, by way of the function to which compilers translate `omp parallel`; every calling thread has a team of its own.
Where there is none (a forked child, whose team stayed behind; a torch without GNU's OpenMP) they run on a small pool of Python threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_CHUNKS = 4  # pieces of work a thread: who is done first, takes the next

_addresses: dict[tuple, int] = {}
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _omp_parallel() -> int:
    """The address of `GOMP_parallel(function, data, threads, flags)` in the OpenMP library that torch runs on; 0 if it runs on none."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return 0
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value or 0
    except (AttributeError, OSError, TypeError):  # other libraries have other functions; Windows has no CDLL(None)
        return 0


_team = _omp_parallel()


def run_ranges(kernel: Callable[..., None], count: int, *args: Any) -> None:
    """Calls `kernel(first, last, *args)`, a numba function, for ranges that cover 0 … count - 1, on `torch.get_num_threads()` threads."""
    if count == 0:
        return
    threads = torch.get_num_threads() if count > 1 else 1  # never fewer of torch's: the team would be made anew
    chunks = min(_CHUNKS * threads, count) if threads > 1 else 1
    work = np.array([0, 0, count, chunks])
    share = _address(kernel, args), work, args
    if threads > 1 and not _team:
        _share_with_python_threads(threads, *share)
    else:
        _share(_team if threads > 1 else 0, threads, *share)
    if work[1]:
        raise MemoryError(f"{kernel.__name__} of fastst found no memory for its buffers")


def _address(kernel: Any, args: tuple) -> int:
    """Of a kernel's machine code for arguments of these types, compiled or from numba's cache on disk when it is first asked for."""
    key = (kernel, *map(_kind, args))
    if key not in _addresses:
        signature = (types.int64, types.int64, *(numba.typeof(a) for a in args))
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        _addresses[key] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return _addresses[key]


def _kind(argument: Any) -> Any:
    """What numba tells arguments apart by, found faster."""
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.ndim, argument.flags.c_contiguous
    return len(argument) if isinstance(argument, tuple) else type(argument)


@numba.njit(nogil=True, cache=True)
def _share(team, threads, kernel, work, args):
    _run_chunks(team, threads, kernel, work, args)


@intrinsic
def _run_chunks(typingctx, team, threads, kernel, work, args):
    """Has every thread of a team (team 0: this one alone) take chunks of work until none is left.

    work: the next chunk, whether a call failed, how much work there is, and in how many chunks.
    """

    def codegen(context, b, signature, values):
        number, address = ir.IntType(64), ir.IntType(8).as_pointer()
        counters = context.make_array(signature.args[3])(context, b, values[3]).data
        given = cgutils.alloca_once_value(b, cgutils.pack_struct(b, [values[2], counters, values[4]]))
        name = f"{b.function.name}.chunks"
        chunks = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [address]), name)
        chunks.linkage = "internal"
        _take_chunks(context, chunks, given.type, signature.args[4].types)
        data = b.bitcast(given, address)
        with b.if_else(b.icmp_signed("==", values[0], number(0))) as (alone, together):
            with alone:
                b.call(chunks, [data])
            with together:
                small = ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [chunks.type, address, small, small])
                b.call(b.inttoptr(values[0], kind.as_pointer()), [chunks, data, b.trunc(values[1], small), small(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, work, args), codegen


def _take_chunks(context: Any, function: ir.Function, given: Any, argument_types: Any) -> None:
    """The body of what every thread runs."""
    b, number = ir.IRBuilder(function.append_basic_block("entry")), ir.IntType(64)
    kernel, counters, args = cgutils.unpack_tuple(b, b.load(b.bitcast(function.args[0], given)), 3)
    count, chunks = (b.load(b.gep(counters, [number(i)])) for i in (2, 3))
    again, more, done = (b.append_basic_block(name) for name in ("again", "more", "done"))
    b.branch(again)
    b.position_at_end(again)
    chunk = b.atomic_rmw("add", counters, number(1), "seq_cst")
    b.cbranch(b.icmp_signed("<", chunk, chunks), more, done)
    b.position_at_end(more)
    bounds = [b.sdiv(b.mul(count, at), chunks) for at in (chunk, b.add(chunk, number(1)))]
    kinds = (types.int64, types.int64, *argument_types)
    code = b.inttoptr(kernel, context.call_conv.get_function_type(types.none, kinds).as_pointer())
    status, _ = context.call_conv.call_function(b, code, types.none, kinds, [*bounds, *cgutils.unpack_tuple(b, args, len(argument_types))])
    with b.if_then(status.is_error):
        b.store(number(1), b.gep(counters, [number(1)]))
    b.branch(again)
    b.position_at_end(done)
    b.ret_void()


def _share_with_python_threads(threads: int, *share: Any) -> None:
    others: list[Future[None]] = []
    try:
        for _ in range(threads - 1):
            others.append(_threads(threads - 1).submit(_share, 0, 1, *share))  # noqa: PERF401 (those before a failure must be kept)
    except RuntimeError:  # Python is ending and starts no more threads
        pass
    _share(0, 1, *share)
    for other in others:
        other.result()


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < count:
        # The old pool is let go, not shut down: another thread may be using it.
        _pool, _pool_size = ThreadPoolExecutor(count, "fastst"), count
    return _pool


def _after_fork() -> None:
    global _team, _pool, _pool_size
    _team, _pool, _pool_size = 0, None, 0


os.register_at_fork(after_in_child=_after_fork)
