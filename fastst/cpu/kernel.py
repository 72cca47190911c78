"""The decorator of kernels: code that LLVM gets as it is written, for what numba's own loops don't
reach, such as accumulators that stay in registers.

    @kernel
    def column_dots(width: Width, like: Kind, a: Address, b: Address, rows: Int, …, out: Address):
        for c in span(0, columns, like.lanes):
            …

A function compiled by numba calls it with the same arguments, which may be named. What they are
there, and what the kernel gets for them, the annotations say:

| | numba's function gives | the kernel gets |
| --- | --- | --- |
| `Width` | a tuple, whose length is the width of vectors in units of 16 bytes | that length |
| `Length` | a tuple | its length |
| `Kind` | an array or a number of the type that is meant | that type |
| `Row` | an array | its numbers from the first on, in the order of memory |
| `Row | None` | an array or () | the same or None |
| `Address` | the address of numbers of the first type among the kinds and arrays | those |
| `Int` | an integer | an int64 |
| `Number` | a number of the type in which the first one's are computed with | it |
| `Annotated[Value, type]` | a number of that type of numba's | it |

For other types and lengths of tuples the code is made anew. Numbers are float32, float64, and half
precision as the bits of bfloat16 (int16) and float16 (uint16).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args

from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from fastst.cpu.values import Kind, Row, Value

Width = Annotated[int, "width"]
Length = Annotated[int, "length"]
Int = Annotated[Value, types.int64]
Number = Annotated[Value, "number"]
Address = Annotated[Row, "address"]

_GIVEN: dict[Any, tuple[tuple[Any, ...], str]] = {
    Width: ((types.BaseTuple,), "a tuple"),
    Length: ((types.BaseTuple,), "a tuple"),
    Kind: ((types.Array, types.Number), "an array or a number"),
    Row: ((types.Array,), "an array"),
    Row | None: ((types.Array, types.BaseTuple), "an array or ()"),
}


def kernel(function: Callable[..., Any]) -> Any:
    """A function that compiled functions call, whose code the function here makes."""
    signature = inspect.signature(function, eval_str=True)
    meant = [parameter.annotation for parameter in signature.parameters.values()]
    gives = _told(signature.return_annotation) or types.void

    def define(typingctx, *given, **named):
        bound = signature.bind(*given, **named).args
        for name, kind, as_ in zip(signature.parameters, bound, meant, strict=True):
            _check(f"{name} of {function.__name__}", kind, as_)
        width = next((len(kind) for kind, as_ in zip(bound, meant, strict=True) if as_ is Width), 1)
        first = next((_element(kind) for kind, as_ in zip(bound, meant, strict=True) if _is_row(kind, as_)), None)
        takes = [_taken(kind, as_, first) for kind, as_ in zip(bound, meant, strict=True)]

        def codegen(context, builder, signature_, args):
            views = (_view(context, builder, *each, width, first) for each in zip(args, takes, meant, strict=True))
            made = function(*views)
            return context.get_dummy_value() if made is None else made.llvm

        return gives(*takes), codegen

    define.__name__, define.__doc__, define.__module__ = function.__name__, function.__doc__, function.__module__
    parameters = [inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD), *signature.parameters.values()]
    define.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(define)


def _check(what: str, kind: Any, as_: Any) -> None:
    takes, expected = _GIVEN.get(as_, ((types.Number,), "a number"))
    if not isinstance(kind, takes):
        raise TypingError(f"{what} has to be {expected}, and is {kind}")


def _is_row(kind: Any, as_: Any) -> bool:
    return as_ is Kind or as_ is Row


def _element(kind: Any) -> Any:
    return kind.dtype if isinstance(kind, types.Array) else kind


def _taken(kind: Any, as_: Any, first: Any) -> Any:
    """The type that an argument is handed over as."""
    if as_ is Address:
        return types.int64
    if as_ is Number:
        return types.float64 if first == types.float64 else types.float32
    return _told(as_) or kind


def _told(as_: Any) -> Any:
    """The type of numba's that an annotation names."""
    return next((each for each in get_args(as_)[1:] if isinstance(each, types.Type)), None)


def _view(context: Any, builder: Any, given: Any, kind: Any, as_: Any, width: int, first: Any) -> Any:
    """What a kernel gets for an argument."""
    if as_ in (Width, Length):
        return len(kind)
    if as_ is Kind:
        return Kind(builder, _element(kind), width)
    if as_ is Address:
        return Kind(builder, first, width).row(Value(builder, given))
    if not isinstance(kind, types.Array):
        return None if isinstance(kind, types.BaseTuple) else Value(builder, given)
    data = context.make_array(kind)(context, builder, given).data
    return Kind(builder, kind.dtype, width).row_of(data)
