"""Logarithm and exponential that loops can be made vectors of. In float64 they are the C library's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import overload

from fastst.cpu.cache import keep
from fastst.cpu.kernel import kernel
from fastst.cpu.values import Value

_Float32 = Annotated[Value, types.float32]
_Int32 = Annotated[Value, types.int32]

# With Python's error model every division looks for a zero, and nothing becomes a vector. Python itself calls none of the loops, and what it would
# need for that takes as long to compile as many a loop.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_LOG_2 = np.float32(math.log(2))
_LOG_2_HIGH = np.float32(355 / 512)  # of so few digits that its products with whole numbers are exact
_LOG_2_LOW = np.float32(math.log(2) - 355 / 512)
_PER_LOG_2 = np.float32(1 / math.log(2))
_LEAST, _MOST = np.float32(-87), np.float32(88)  # their exponentials are about the smallest and the largest normal float32


def compile_loops(function: Callable[..., Any]) -> Any:
    """A kernel of `run_ranges`, compiled when it is needed."""
    return keep(numba.njit(function, **_OPTIONS))


def compile_sums(function: Callable[..., Any]) -> Any:
    """A kernel whose terms may be added in another order."""
    return keep(numba.njit(function, **_OPTIONS, fastmath={"reassoc", "contract"}))


@kernel
def bits_of(number: _Float32) -> _Int32:
    """The bits of a float32, as int32."""
    return number.bitcast(ir.IntType(32))


@kernel
def float_of(bits: _Int32) -> _Float32:
    """The float32 of these bits."""
    return bits.bitcast(ir.FloatType())


def log(x: float) -> float:
    """The natural logarithm; of a normal float32 above 0 within two units in the last place."""
    return math.log(x)


@overload(log, inline="always")
def _log_of(x):
    if x != types.float32:
        return lambda x: math.log(x)

    def log32(x):
        # x = 2^e m with √½ <= m < √2, and log m = 2 atanh s with s = (m - 1) / (m + 1), |s| < 0.172, by its series
        bits: np.int32 = bits_of(x)
        e = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
        m = float_of(np.int32(bits - (e << np.int32(23))))
        s = (m - np.float32(1)) / (m + np.float32(1))
        square = s * s
        series = np.float32(1 / 3) + square * (np.float32(1 / 5) + square * (np.float32(1 / 7) + square * np.float32(1 / 9)))
        return np.float32(e) * _LOG_2 + np.float32(2) * (s + s * square * series)

    return log32


def log1p(x: float) -> float:
    """log(1 + x) for 0 <= x <= 1; of a float32 within four units in the last place."""
    return math.log1p(x)


@overload(log1p, inline="always")
def _log1p_of(x):
    if x != types.float32:
        return lambda x: math.log1p(x)

    def log1p32(x):
        # x times the polynomial that is log(1 + x) / x at the nine Chebyshev nodes of [0, 1]
        series = np.float32(-0.02907406) + x * np.float32(0.0051261021)
        series = np.float32(-0.13602248) + x * (np.float32(0.077516087) + x * series)
        series = np.float32(-0.24835399) + x * (np.float32(0.19076881) + x * series)
        series = np.float32(-0.49999445) + x * (np.float32(0.33318122) + x * series)
        return x * (np.float32(0.99999997) + x * series)

    return log1p32


def exp(x: float) -> float:
    """e^x; of a float32 within two units in the last place, 0 below -87 and no more than e^88."""
    return math.exp(x)


@overload(exp, inline="always")
def _exp_of(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        # x = e log 2 + r with |r| <= ½ log 2, and e^r by its series
        y = _LEAST if x < _LEAST else (_MOST if x > _MOST else x)
        e = np.floor(y * _PER_LOG_2 + np.float32(0.5))
        r = y - e * _LOG_2_HIGH - e * _LOG_2_LOW
        series = np.float32(1 / 24) + r * (np.float32(1 / 120) + r * (np.float32(1 / 720) + r * np.float32(1 / 5040)))
        power = np.float32(1) + r + r * r * (np.float32(0.5) + r * (np.float32(1 / 6) + r * series))
        scaled = power * float_of(np.int32((np.int32(e) + np.int32(127)) << np.int32(23)))
        return np.float32(0) if x < _LEAST else scaled

    return exp32
