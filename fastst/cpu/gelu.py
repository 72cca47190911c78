"""GELU as a kernel. (`fastst.cpu.feed_forward` is what uses it.)

With t = |x| the tail of the normal distribution is Φ(-t) = e^(-t²/2) R(t), where R is smooth: a polynomial in 1 / (t + c), interpolated here at
Chebyshev's nodes. The same exponential is the derivative's.
"""

from __future__ import annotations

import functools
import math

from numpy.polynomial import chebyshev

from fastst.cpu.kernel import Address, Int, Width, kernel
from fastst.cpu.values import Kind, Value, cases, fma, span, where

# Of float32 and float64: c, the polynomial's degree, and the t up to which it is interpolated; e^(-t²/2) is nearly 0 there.
_SINGLE, _DOUBLE = (3.0, 10, 14.0), (4.0, 20, 37.0)


@functools.cache
def _ratio(shift: float, degree: int, largest: float) -> tuple[float, float, tuple[float, ...]]:
    """a, b and the coefficients of a polynomial p with R(t) = p(a + b / (t + shift))."""
    first, last = 1 / (largest + shift), 1 / shift
    b = 2 / (last - first)
    a = 1 - b * last

    nodes = chebyshev.chebpts1(degree + 1)
    values = [0.5 * math.erfc(t / math.sqrt(2)) * math.exp(t * t / 2) for t in (b / (nodes - a) - shift).tolist()]
    return a, b, tuple(chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, degree)).tolist())


@kernel
def gelu_rows(width: Width, like: Kind, values: Address, slopes: Int, count: Int) -> None:
    """values[i] = x becomes x Φ(x) for i < count, a multiple of the vectors' lanes, and slopes[i] its
    derivative, unless that address is 0."""
    for with_slopes in cases(slopes != 0):
        for i in span(0, count, like.lanes):
            x = values.load(i)
            phi, power = _normal(like, x)
            values.store(x * phi, i)
            if with_slopes:
                like.row(slopes).store(fma(x * power, 1 / math.sqrt(2 * math.pi), phi), i)


def _normal(kind: Kind, x: Value) -> tuple[Value, Value]:
    """Φ(x) and e^(-x²/2)."""
    shift, degree, largest = _DOUBLE if kind.itemsize == 8 else _SINGLE
    a, slope, coefficients = _ratio(shift, degree, largest)
    t = where(x < 0, -x, x)
    power = kind.exp(x * x * -0.5)
    u = slope / (t + shift) + a
    ratio = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        ratio = fma(ratio, u, coefficient)
    tail = power * ratio
    return where(x < 0, tail, 1 - tail), power
