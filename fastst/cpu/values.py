"""The words in which kernels are written: numbers, vectors and places in memory of the code that
is being made, with Python's operators.

A kernel runs once for every kind of arguments that it is given, when its code is made. What Python
computes then (loops over `range`, `if`, lists) is gone afterwards; what is a `Value` is in the code:

    total = [x.kind.zero()]
    for i in span(0, count, carry=total):
        total[0] = fma(weight[i], x.load(rows[i]), total[0])
    y.store(total[0], 0)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from llvmlite import ir
from numba.core import types

from fastst.cpu import vectors
from fastst.cpu.vectors import BYTE, I1, I32, I64, Elements

_WHOLE = (types.int32, types.int64)


class Value:
    """A number or a bit, or a vector of them; `llvm` is what llvmlite has for it.

    Numbers of Python stand for constants, and a number beside a vector for a vector of it.
    Comparisons are signed and ordered: with NaN on a side none is true.
    """

    __hash__ = None  # type: ignore[assignment]  # == makes code

    def __init__(self, builder: Any, llvm: Any) -> None:
        self.builder, self.llvm = builder, llvm

    def __add__(self, other: Any) -> Value:
        return self._arithmetic("add", other)

    def __sub__(self, other: Any) -> Value:
        return self._arithmetic("sub", other)

    def __mul__(self, other: Any) -> Value:
        return self._arithmetic("mul", other)

    def __mod__(self, other: Any) -> Value:
        return Value(self.builder, self.builder.srem(*_alike(self, other)))

    def __neg__(self) -> Value:
        return Value(self.builder, self.builder.fneg(self.llvm))

    def __rtruediv__(self, other: Any) -> Value:
        return Value(self.builder, self.builder.fdiv(*_alike(other, self)))

    def __rsub__(self, other: Any) -> Value:
        return Value(self.builder, self.builder.fsub(*_alike(other, self)))

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Value:
        return self._comparison("<", other)

    def __le__(self, other: Any) -> Value:
        return self._comparison("<=", other)

    def __gt__(self, other: Any) -> Value:
        return self._comparison(">", other)

    def __ge__(self, other: Any) -> Value:
        return self._comparison(">=", other)

    def __eq__(self, other: Any) -> Value:  # type: ignore[override]
        return self._comparison("==", other)

    def __ne__(self, other: Any) -> Value:  # type: ignore[override]
        return self._comparison("!=", other)

    def __and__(self, other: Value) -> Value:
        return Value(self.builder, self.builder.and_(self.llvm, other.llvm))

    def __bool__(self) -> bool:
        raise TypeError("it is not known while the code is made; `cases`, `when` and `where` make code for it")

    def __invert__(self) -> Value:
        return Value(self.builder, self.builder.not_(self.llvm))

    def shuffled(self, lanes: Sequence[int], other: Value | None = None) -> Value:
        """These lanes of a vector; those of `other` are counted on."""
        pick = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return Value(self.builder, self.builder.shuffle_vector(self.llvm, (self if other is None else other).llvm, pick))

    def fold(self, combine: Any, least: int = 1) -> Value:
        """All lanes combined in pairs, in every lane; with `least` those of lanes that far apart."""
        folded, count = self, self.llvm.type.count
        half = count // 2
        while half >= least:
            folded = combine(folded, folded.shuffled([lane ^ half for lane in range(count)]))
            half //= 2
        return folded

    def lane(self, number: int) -> Value:
        return Value(self.builder, self.builder.extract_element(self.llvm, I32(number)))

    def bitcast(self, kind: Any) -> Value:
        """The number of another of LLVM's types that has the same bits."""
        return Value(self.builder, self.builder.bitcast(self.llvm, kind))

    def opaque(self) -> Value:
        """The same number, of which the compiler knows nothing."""
        return Value(self.builder, vectors.opaque(self.builder, self.llvm))

    def _arithmetic(self, name: str, other: Any) -> Value:
        if isinstance(other, Vectors):
            return NotImplemented
        pair = _alike(self, other)
        return Value(self.builder, getattr(self.builder, name if _is_whole(pair[0].type) else f"f{name}")(*pair))

    def _comparison(self, sign: str, other: Any) -> Value:
        pair = _alike(self, other)
        compare = self.builder.icmp_signed if _is_whole(pair[0].type) else self.builder.fcmp_ordered
        return Value(self.builder, compare(sign, *pair))


class Vectors:
    """Several vectors or numbers, with which one computes as with one; one of them beside several
    stands for as many."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Iterable[Value]) -> None:
        self.values = list(values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, other: Any) -> Vectors:
        return _each(Value.__add__, self, other)

    def __sub__(self, other: Any) -> Vectors:
        return _each(Value.__sub__, self, other)

    def __mul__(self, other: Any) -> Vectors:
        return _each(Value.__mul__, self, other)

    def __le__(self, other: Any) -> Vectors:
        return _each(Value.__le__, self, other)

    def __gt__(self, other: Any) -> Vectors:
        return _each(Value.__gt__, self, other)

    __rmul__ = __mul__

    def __invert__(self) -> Vectors:
        return _each(Value.__invert__, self)


def _each(function: Callable[..., Value], *given: Any) -> Vectors:
    """A function of single values of several, one after the other."""
    count = next(len(value) for value in given if isinstance(value, Vectors))
    lists = (value if isinstance(value, Vectors) else [value] * count for value in given)
    return Vectors(function(*values) for values in zip(*lists, strict=True))


def _of_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of several values too."""

    @functools.wraps(function)
    def of_each(*given: Any) -> Any:
        several = any(isinstance(value, Vectors) for value in given)
        return _each(function, *given) if several else function(*given)

    return of_each


@_of_each
def where(bits: Value, one: Any, other: Any) -> Value:
    """`one` where a bit is set, else `other`."""
    return Value(bits.builder, bits.builder.select(bits.llvm, *_alike(one, other)))


@_of_each
def fma(a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once; some of them vectors."""
    like = next(value for value in (a, b, c) if isinstance(value, Value) and _lanes(value.llvm.type))
    builder, kind = like.builder, like.llvm.type
    name = f"llvm.fma.v{kind.count}{'f64' if kind.element == ir.DoubleType() else 'f32'}"
    function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(kind, [kind] * 3))
    return Value(builder, builder.call(function, [_as(value, kind, builder) for value in (a, b, c)]))


@_of_each
def leaky(value: Value, slope: Value) -> Value:
    """LeakyReLU."""
    return where(value > 0, value, value * slope)


@_of_each
def larger(one: Value, other: Value) -> Value:
    """The larger of two; `other` where `one` is no number."""
    return where(one > other, one, other)


def joined(values: Sequence[Value]) -> Value:
    """One vector of some, whose number is a power of two."""
    while len(values) > 1:
        lanes = range(2 * values[0].llvm.type.count)
        values = [one.shuffled(lanes, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def settled(values: list[Value]) -> list[Value]:
    """The same vectors, to be in registers here, and before all that the code does to memory from
    here on; no instruction."""
    builder = values[0].builder
    return [Value(builder, llvm) for llvm in vectors.settle(builder, [value.llvm for value in values])]


def span(lo: Any, hi: Value, step: int = 1, carry: list[Any] | None = None) -> Iterator[Value]:
    """For `for`: a loop of the code over lo, lo + step, … below hi. It can't be left by `break`.

    What the list `carry` holds at its end, the loop has there the next time, and whoever comes
    after the loop.
    """
    builder, carry = hi.builder, [] if carry is None else carry
    counter, inside, close = vectors.loop(builder, _llvm(lo), hi.llvm, step, _flat(carry))
    _fill(carry, builder, inside)
    yield Value(builder, counter)
    _fill(carry, builder, close(_flat(carry)))


def _flat(values: list[Any]) -> list[Any]:
    return [each.llvm for value in values for each in (value if isinstance(value, Vectors) else [value])]


def _fill(values: list[Any], builder: Any, flat: list[Any]) -> None:
    """Puts other ones in the places of some values."""
    others = (Value(builder, llvm) for llvm in flat)
    for i, value in enumerate(values):
        several = isinstance(value, Vectors)
        values[i] = Vectors(itertools.islice(others, len(value))) if several else next(others)


def cases(bit: Value) -> Iterator[bool]:
    """For `for`: what follows is made twice, for where the bit is set and for where it is not."""
    with bit.builder.if_else(bit.llvm) as (one, other):
        with one:
            yield True
        with other:
            yield False


def when(bit: Value) -> AbstractContextManager:
    """For `with`: what follows is done where the bit is set."""
    return bit.builder.if_then(bit.llvm)


class Kind:
    """Numbers of one type of numba's, and their vectors; of whole numbers there are none."""

    def __init__(self, builder: Any, dtype: Any, width: int) -> None:
        self.builder, self.dtype, self.itemsize = builder, dtype, dtype.bitwidth // 8
        if dtype not in _WHOLE:
            self.elements = Elements(builder, dtype, width)
            self.lanes = self.elements.lanes

    def row(self, address: Value) -> Row:
        """The numbers from an address on."""
        return Row(self, self.builder.inttoptr(address.llvm, self.elements.stored.as_pointer()))

    def row_of(self, array: Any) -> Row:
        """The numbers of an array, whose place is a pointer of LLVM's."""
        if self.dtype in _WHOLE:
            return Row(self, array)
        return Row(self, self.builder.bitcast(array, self.elements.stored.as_pointer()))

    def zero(self) -> Value:
        return Value(self.builder, self.elements.zero())

    def constant(self, number: int) -> Value:
        """An int64."""
        return Value(self.builder, I64(number))

    def splat(self, number: Any) -> Value:
        """A vector of one number."""
        number = number.llvm if isinstance(number, Value) else self.elements.compute(number)
        return Value(self.builder, self.elements.splat(number))

    def mask(self, count: Any) -> Value:
        """The first `count` lanes of a vector."""
        return Value(self.builder, self.elements.mask(_llvm(count)))

    def within(self, ahead: Value, window: Value) -> Value:
        """The lanes c where |ahead - c| <= window."""
        return Value(self.builder, self.elements.within(ahead.llvm, window.llvm))

    def exp(self, value: Value) -> Value:
        """e^x: see `Elements.exp`."""
        return Value(self.builder, self.elements.exp(value.llvm))

    def narrow(self, value: Value) -> Value:
        """A vector of computed numbers as it is in memory: see `Elements.narrow`."""
        return Value(self.builder, self.elements.narrow(value.llvm))

    def sum_lanes(self, values: list[Value]) -> Value:
        """Lane i is the sum of the lanes of vector i; as many vectors as lanes."""
        summed = vectors.sum_lanes(self.builder, self.elements, [value.llvm for value in values])
        return Value(self.builder, summed)


class Row:
    """Numbers that follow one another in memory, counted from one of them on."""

    __iter__ = None

    def __init__(self, kind: Kind, pointer: Any) -> None:
        self.kind, self.builder, self.pointer = kind, kind.builder, pointer

    def at(self, place: Any) -> Row:
        """The same, counted from there on."""
        return Row(self.kind, self._pointer(place))

    def of_width(self, width: int) -> Row:
        """The same by vectors of another width."""
        return Row(Kind(self.builder, self.kind.dtype, width), self.pointer)

    def address(self) -> Value:
        return Value(self.builder, self.builder.ptrtoint(self.pointer, I64))

    def __getitem__(self, place: Any) -> Value:
        """One number; a whole one as int64."""
        value = self.builder.load(self._pointer(place))
        return Value(self.builder, self.builder.sext(value, I64) if value.type == I32 else value)

    def __setitem__(self, place: Any, number: Value) -> None:
        self.builder.store(number.llvm, self._pointer(place))

    def load(self, place: Any = 0, mask: Value | None = None) -> Value:
        """A vector; lanes outside the mask are 0 and not read."""
        loaded = self.kind.elements.load(self._pointer(place), _bits(mask))
        return Value(self.builder, loaded)

    def store(self, value: Value, place: Any = 0, mask: Value | None = None) -> None:
        """A vector, or those of its lanes that the mask has."""
        self.kind.elements.store(value.llvm, self._pointer(place), _bits(mask))

    def load_few(self, place: Any, lanes: int) -> Value:
        """A vector of so many numbers, whatever the width."""
        kind = ir.VectorType(self.kind.elements.compute, lanes)
        value = self.builder.load(self.builder.bitcast(self._pointer(place), kind.as_pointer()))
        value.align = self.kind.itemsize
        return Value(self.builder, value)

    def store_few(self, value: Value, place: Any) -> None:
        """A vector of any number of lanes, of the type in memory."""
        self.kind.elements.store_stored(value.llvm, self._pointer(place), None)

    def load_half(self, place: Any, half: int) -> Value:
        """Every second number of bfloat16: see `Elements.load_half`."""
        return Value(self.builder, self.kind.elements.load_half(self._pointer(place), half))

    def load_channels(self, vectors: int) -> list[Value]:
        """So many vectors, those of bfloat16 as halves: see `Elements.load_channels`."""
        return [Value(self.builder, llvm) for llvm in self.kind.elements.load_channels(self.pointer, vectors)]

    def store_channels(self, values: list[Value], count: Value, stream: Value, halves: bool) -> None:
        """The first `count` channels of some vectors: see `Elements.store_channels`."""
        self.kind.elements.store_channels([value.llvm for value in values], self.pointer, count.llvm, stream.llvm, halves)

    def copy(self, source: Row, place: Any, mask: Value | None = None) -> None:
        """Writes a vector of another row here, 0 outside the mask; bit by bit if they are alike."""
        stored = source.kind.elements.load_stored(source._pointer(place), _bits(mask))
        if self.kind.dtype != source.kind.dtype:
            stored = self.kind.elements.narrow(source.kind.elements.widen(stored))
        self.kind.elements.store_stored(stored, self._pointer(place), None)

    def clear(self, count: Value) -> None:
        """0 in the first `count` numbers."""
        bytes_ = self.builder.bitcast(self.pointer, BYTE.as_pointer())
        function = self.builder.module.declare_intrinsic("llvm.memset", [BYTE.as_pointer(), I64])
        size = (count * self.kind.itemsize).llvm
        self.builder.call(function, [bytes_, BYTE(0), size, I1(0)])

    def prefetch(self, place: Any, to_write: bool) -> None:
        """See `fastst.cpu.vectors.prefetch`."""
        vectors.prefetch(self.builder, self._pointer(place), to_write)

    def _pointer(self, place: Any) -> Any:
        return self.builder.gep(self.pointer, [_llvm(place)])


def _llvm(number: Any) -> Any:
    """A number of the code, or a constant int64."""
    return number.llvm if isinstance(number, Value) else I64(number)


def _bits(mask: Value | None) -> Any:
    return None if mask is None else mask.llvm


def _lanes(kind: Any) -> int:
    """Of one of LLVM's types; 0 of a single number's."""
    return kind.count if isinstance(kind, ir.VectorType) else 0


def _is_whole(kind: Any) -> bool:
    return isinstance(kind.element if _lanes(kind) else kind, ir.IntType)


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Both of one type: a constant becomes what the other is, and a number beside a vector one."""
    given = [value for value in (one, other) if isinstance(value, Value)]
    like = max(given, key=lambda value: _lanes(value.llvm.type))
    return _as(one, like.llvm.type, like.builder), _as(other, like.llvm.type, like.builder)


def _as(value: Any, kind: Any, builder: Any) -> Any:
    lanes = _lanes(kind)
    if not isinstance(value, Value):
        number = value if _is_whole(kind) else float(value)
        return ir.Constant(kind, [number] * lanes if lanes else number)
    return vectors.splat(builder, value.llvm, lanes) if lanes and not _lanes(value.llvm.type) else value.llvm
