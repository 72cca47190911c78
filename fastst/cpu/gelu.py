"""GELU as LLVM code. (`fastst.cpu.feed_forward` is what uses it.)

With t = |x| the tail of the normal distribution is Φ(-t) = e^(-t²/2) R(t), where R is smooth: a polynomial in 1 / (t + c), interpolated here at
Chebyshev's nodes. The same exponential is the derivative's.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.polynomial import chebyshev

from fastst.cpu.vectors import I64, Elements, loop

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


@intrinsic
def gelu_rows(typingctx, width, like, values, slopes, count):
    """values[i] = x becomes x Φ(x) for i < count, a multiple of the vectors' lanes, and slopes[i] its derivative, unless that address is 0."""
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        values_, slopes_ = (b.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 3))

        def go(with_slopes: bool) -> None:
            i, _, close = loop(b, I64(0), args[4], e.lanes, [])
            place = b.gep(values_, [i])
            x = e.load(place, None)
            phi, power = _normal(b, e, x)
            e.store(b.fmul(x, phi), place, None)
            if with_slopes:
                e.store(e.fma(b.fmul(x, power), _all(e, 1 / math.sqrt(2 * math.pi)), phi), b.gep(slopes_, [i]), None)
            close([])

        with b.if_else(b.icmp_signed("!=", args[3], I64(0))) as (both, one):
            with both:
                go(True)
            with one:
                go(False)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i), codegen


def _normal(b: Any, e: Elements, x: Any) -> tuple[Any, Any]:
    """Φ(x) and e^(-x²/2)."""
    shift, degree, largest = _DOUBLE if e.bytes == 8 else _SINGLE
    a, slope, coefficients = _ratio(shift, degree, largest)
    negative = b.fcmp_ordered("<", x, e.zero())
    t = b.select(negative, b.fneg(x), x)
    power = e.exp(b.fmul(b.fmul(x, x), _all(e, -0.5)))
    u = b.fadd(b.fdiv(_all(e, slope), b.fadd(t, _all(e, shift))), _all(e, a))
    ratio = _all(e, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        ratio = e.fma(ratio, u, _all(e, coefficient))
    tail = b.fmul(power, ratio)
    return b.select(negative, tail, b.fsub(_all(e, 1.0), tail)), power


def _all(e: Elements, number: float) -> ir.Constant:
    return ir.Constant(e.vector, [number] * e.lanes)
