"""Runs a compiled kernel over ranges of its work on a few threads: torch's own.

numba's layers don't suit a library: OpenMP kills a child forked after its first use, the work queue is not safe to call from two threads, and the TBB
wheel is not found by itself. And threads of one's own compete with torch's, which spin for a while after every parallel operation of torch. So the
kernels join torch's OpenMP team, by way of the function to which compilers translate `omp parallel`; every calling thread has a team of its own.
Where there is none (a forked child, whose team stayed behind; a torch without GNU's OpenMP) they run on a small pool of Python threads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numba
import torch
from llvmlite import ir
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from torch import Tensor

from fastst.cpu.memory import without_garbage_collection

_CHUNKS = 8  # pieces of work a thread: who is done first, takes the next

_FAILED = 1  # the place of that number in the work
_I64 = ir.IntType(64)
_NAME = "fastst_take_chunks"
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_ELEMENTS: dict[torch.dtype, Any] = {  # half precision as the bits that the micro-kernels know
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: types.int16,
    torch.float16: types.uint16,
    torch.int32: types.int32,
    torch.int64: types.int64,
}

_entries: dict[tuple, tuple[Any, Any]] = {}
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _omp_parallel() -> Any:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP library that torch runs on; None if it runs on none."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # other libraries have other functions; Windows has no CDLL(None)
        return None
    function.argtypes, function.restype = [_ENTRY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return function


_team = _omp_parallel()


def run_ranges(kernel: Callable[..., None], count: int, *args: Any) -> None:
    """Calls `kernel(first, last, *args)`, a numba function, for ranges that cover 0 … count - 1, on `torch.get_num_threads()` threads.

    A tensor becomes an array, of the numbers in `_ELEMENTS`; one that is not contiguous is copied before, so what is written to has to be.
    """
    if count == 0:
        return
    args = tuple(argument.contiguous() if isinstance(argument, Tensor) else argument for argument in args)
    threads = torch.get_num_threads() if count > 1 else 1  # never fewer of torch's: the team would be made anew
    chunks = min(_CHUNKS * threads, count) if threads > 1 else 1
    work = array("q", (0, 0, count, chunks, *itertools.chain.from_iterable(map(_numbers, args))))
    take_chunks, (data, _) = _entry(kernel, args), work.buffer_info()
    if threads > 1 and _team is not None:
        _team(take_chunks, data, threads, 0)
    else:
        others = _start_python_threads(threads - 1, take_chunks, data)
        take_chunks(data)
        for other in others:
            other.result()
    if work[_FAILED]:
        raise MemoryError(f"{kernel.__name__} of fastst found no memory for its buffers")


def _kind(argument: Any) -> Any:
    """What tells arguments apart for whom different code is compiled."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.ndim
    return len(argument) if isinstance(argument, tuple) else type(argument)


def _numba_type(argument: Any) -> types.Type:
    if isinstance(argument, Tensor):
        return types.Array(_ELEMENTS[argument.dtype], argument.ndim, "C")
    return numba.typeof(argument)


def _numbers(argument: Any) -> tuple[int, ...]:
    """An argument as 64-bit numbers: an array's place and shape; the elements of a tuple; the bits of a float64."""
    if isinstance(argument, Tensor):
        return (argument.data_ptr(), *argument.shape)
    if isinstance(argument, tuple):
        return argument
    return struct.unpack("q", struct.pack("d", argument)) if isinstance(argument, float) else (int(argument),)


def _entry(kernel: Any, args: tuple) -> Any:
    """A function of C that takes chunks of work for a kernel, compiled when arguments of these types are first given."""
    key = (kernel, *map(_kind, args))
    if key not in _entries:
        kinds = (types.int64, types.int64, *map(_numba_type, args))
        with global_compiler_lock, without_garbage_collection():  # which would be a sixth of its time
            kernel.compile(kinds)
            library = _take_chunks(kernel.targetctx, kernel.overloads[kinds], kinds)
            _entries[key] = _ENTRY(library.get_pointer_to_function(_NAME)), library
    return _entries[key][0]


def _take_chunks(context: Any, kernel: Any, kinds: tuple) -> Any:
    """Machine code of the function that every thread runs."""
    library = context.codegen().create_library(_NAME)
    module = library.create_ir_module(_NAME)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64.as_pointer()]), _NAME)
    _write_take_chunks(context, function, kernel.library.get_pointer_to_function(kernel.fndesc.llvm_func_name), kinds)
    library.add_ir_module(module)
    library.finalize()
    return library


def _write_take_chunks(context: Any, function: ir.Function, code: int, kinds: tuple) -> None:
    """What every thread runs: takes chunks of work, calls the kernel at `code` with their bounds and the arguments, until none is left.

    The numbers of the work: the next chunk, whether a call failed, how much work there is, in how many chunks; and the arguments'.
    """
    b, work = ir.IRBuilder(function.append_basic_block("entry")), function.args[0]
    count, chunks = (b.load(b.gep(work, [_I64(i)])) for i in (2, 3))
    packer = context.get_arg_packer(kinds)
    numbers = (b.load(b.gep(work, [_I64(i)])) for i in itertools.count(4))
    expanded = [number for kind in kinds[2:] for number in _expanded(context, b, numbers, kind)]
    given = [_argument(b, number, kind) for number, kind in zip(expanded, packer.argument_types[2:], strict=True)]
    again, more, done = (b.append_basic_block(name) for name in ("again", "more", "done"))
    b.branch(again)
    b.position_at_end(again)
    chunk = b.atomic_rmw("add", work, _I64(1), "seq_cst")
    b.cbranch(b.icmp_signed("<", chunk, chunks), more, done)
    b.position_at_end(more)
    bounds = [b.sdiv(b.mul(count, at), chunks) for at in (chunk, b.add(chunk, _I64(1)))]
    address = b.inttoptr(_I64(code), context.call_conv.get_function_type(types.none, kinds).as_pointer())
    status, _ = context.call_conv.call_function(b, address, types.none, kinds, packer.from_arguments(b, [*bounds, *given]))
    with b.if_then(status.is_error):
        b.store(_I64(1), b.gep(work, [_I64(_FAILED)]))
    b.branch(again)
    b.position_at_end(done)
    b.ret_void()


def _expanded(context: Any, b: Any, numbers: Iterator[Any], kind: Any) -> list[Any]:
    """What numba hands to a function for one argument: of an array its owners (none), size, itemsize, place, shape and strides."""
    if not isinstance(kind, types.Array):
        return [next(numbers) for _ in range(len(kind) if isinstance(kind, types.BaseTuple) else 1)]
    place, *shape = (next(numbers) for _ in range(1 + kind.ndim))
    itemsize = _I64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    sizes = [_I64(1)]  # of what lies between the elements of an axis, the last one first
    for length in reversed(shape):
        sizes.append(b.mul(sizes[-1], length))
    return [_I64(0), _I64(0), sizes[-1], itemsize, place, *shape, *(b.mul(size, itemsize) for size in sizes[-2::-1])]


def _argument(b: Any, value: Any, kind: Any) -> Any:
    """One of the numbers, as the type that the kernel takes."""
    if isinstance(kind, (ir.FloatType, ir.DoubleType)):
        value = b.bitcast(value, ir.DoubleType())
        return value if isinstance(kind, ir.DoubleType) else b.fptrunc(value, kind)
    if isinstance(kind, ir.PointerType):
        return b.inttoptr(value, kind)
    return value if kind == _I64 else b.trunc(value, kind)


def _start_python_threads(count: int, take_chunks: Any, data: int) -> list[Future[None]]:
    started: list[Future[None]] = []
    try:
        for _ in range(count):
            started.append(_threads(count).submit(take_chunks, data))  # noqa: PERF401 (those before a failure must be kept)
    except RuntimeError:  # Python is ending and starts no more threads
        pass
    return started


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < count:
        # The old pool is let go, not shut down: another thread may be using it.
        _pool, _pool_size = ThreadPoolExecutor(count, "fastst"), count
    return _pool


def _after_fork() -> None:
    global _team, _pool, _pool_size
    _team, _pool, _pool_size = None, None, 0


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork)
