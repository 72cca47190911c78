"""The words in which the kernels of the `cpu` backend are written, each in a kernel of two lines."""

from __future__ import annotations

from typing import Annotated, Any

import numba
import numpy as np
import pytest
from numba.core import types
from numba.core.errors import TypingError

from fastst.cpu.kernel import Address, Int, Length, Number, Width, kernel
from fastst.cpu.microkernel import Block, address, clear
from fastst.cpu.values import Kind, Row, Value, cases, fma, joined, larger, leaky, span, when, where

WIDTHS = [(0,), (0, 0), (0, 0, 0, 0)]
ROOM = 40  # more than two vectors of any width


def compiled(function: Any) -> Any:
    return numba.njit(function)


def numbers(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(ROOM).astype(dtype)


@kernel
def weighted(width: Width, x: Row, rows: Row, weight: Row, count: Int, scale: Number, y: Row) -> None:
    total = [x.kind.zero()]
    for i in span(0, count, carry=total):
        total[0] = fma(weight[i], x.load(rows[i]), total[0])
    y.store(total[0] * scale)


@compiled
def call_weighted(width, x, rows, weight, count, scale, y):
    weighted(width, x, rows, weight, count, scale, y)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_loop_carries_what_its_list_holds(width: tuple[int, ...], dtype: type, count: int) -> None:
    x, y, rows = numbers(dtype), np.zeros(ROOM, dtype), np.array([3, 0, 20], np.int32)
    weight, lanes = np.array([0.5, -2, 3], dtype), len(width) * 16 // x.itemsize
    call_weighted(width, x, rows, weight, count, 2.0, y)  # numba makes the scale the features' type
    expected = 2 * sum((weight[i].astype(float) * x[rows[i] : rows[i] + lanes] for i in range(count)), np.zeros(lanes))
    np.testing.assert_allclose(y[:lanes], expected, rtol=1e-6, atol=1e-6)
    assert not y[lanes:].any()


@kernel
def several(width: Width, which: Length, given: Row | None, x: Row, count: Int, y: Row) -> None:
    lanes = x.kind.lanes
    for full in cases(count >= 2 * lanes):
        places = range(0, 2 * lanes, lanes)
        both = Block(places, [None if full else x.kind.mask(count - c) for c in places])
        values = both.load(x)
        if given is not None:
            values = values + given[1]
        if which == 1:
            values = where(values > 0, values, 0.5)
        both.store(values, y)


@compiled
def call_several(width, which, given, x, count, y):
    several(width, which, given, x, count, y)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 5, ROOM])
@pytest.mark.parametrize("which", [(), (0,)])
@pytest.mark.parametrize("given", [(), np.array([7, 0.25], np.float32)])
def test_several_vectors_are_computed_with_as_one(width: Any, count: int, which: Any, given: Any) -> None:
    x, y = numbers(), np.full(ROOM, 9, np.float32)
    call_several(width, which, given, x, count, y)
    expected = x + (given[1] if len(given) else 0)
    expected = np.where(expected > 0, expected, np.float32(0.5)) if which else expected
    written = min(count, 2 * 4 * len(width))
    np.testing.assert_array_equal(y[:written], expected[:written])
    assert (y[written:] == 9).all()


@kernel
def signs(width: Width, kind: Kind, x: Address, slope: Number, out: Row) -> None:
    values, lanes = x.load(), kind.lanes
    out.store(leaky(values, slope))
    out.store(larger(values, kind.zero()), lanes)
    out.store(where(values == 0, 1, where(values != 0, values, 2)), 2 * lanes)
    out.store(joined([values.shuffled([lane]) for lane in reversed(range(lanes))]), 3 * lanes)
    out.store(values.fold(Value.__add__), 4 * lanes)
    with when(~(slope < 0)):
        out[5 * lanes] = values.lane(1)


@compiled
def call_signs(width, x, slope, out):
    signs(width, x, address(x, 0), slope, out)


@pytest.mark.parametrize("slope", [0.5, -0.5])
def test_comparisons_with_what_is_no_number(slope: float) -> None:
    x, out = np.array([-1, 0, np.nan, 2], np.float32), np.zeros(24, np.float32)
    call_signs((0,), x, slope, out)
    expected = [[-slope, 0, np.nan, 2], [0, 0, 0, 2], [-1, 1, 2, 2], [2, np.nan, 0, -1], [np.nan] * 4, [0] * 4]
    np.testing.assert_array_equal(out.reshape(6, 4), expected)


@kernel
def doubled(number: Annotated[Value, types.int32]) -> Annotated[Value, types.int32]:
    return number + number


@compiled
def call_doubled(number):
    return doubled(number=number)


@compiled
def call_clear(x, first, last):
    clear(last=last, first=first, target=x)


def test_arguments_can_be_named_and_a_number_is_returned() -> None:
    assert call_doubled(21) == 42
    x = np.ones(10)
    call_clear(x, 3, 5)
    call_clear(x, 7, 2)  # nothing
    assert x.tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, (), (), np.zeros(8, np.float32), 1, np.zeros(8, np.float32)), "width of several has to be a tuple, and is int64"),
        (((0,), (), 1.0, np.zeros(8, np.float32), 1, np.zeros(8, np.float32)), "given of several has to be an array or (), and is float64"),
        (((0,), (), (), 2.0, 1, np.zeros(8, np.float32)), "x of several has to be an array, and is float64"),
        (((0,), (), (), np.zeros(8, np.float32), (1,), np.zeros(8, np.float32)), "count of several has to be a number, and is UniTuple"),
    ],
)
def test_arguments_of_another_kind_are_named(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TypingError, match=said.replace("(", r"\(").replace(")", r"\)")):
        call_several(*arguments)


@kernel
def undecided(count: Int) -> None:
    if count > 3:
        pass


@compiled
def call_undecided(count):
    undecided(count)


def test_pythons_if_does_not_take_what_is_known_later() -> None:
    with pytest.raises(TypeError, match="not known while the code is made"):
        call_undecided(1)
