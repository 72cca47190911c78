"""The kernels of attention: products of the rows that a node has edges to, the softmax over them,
head by head, and sums of rows.

Heads are taken in groups, G at once, a power of two of which a vector is a multiple; `group` is a
tuple of that length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastst.cpu.kernel import Int, Length, Number, Width, kernel
from fastst.cpu.microkernel import blocks
from fastst.cpu.values import Row, Value, Vectors, fma, joined, larger, leaky, span, where


@kernel
def row_products(
    width: Width,
    group: Length,
    leaky_: Length,
    x: Row,
    x_at: Int,
    rows: Row,
    count: Int,
    fixed: Row,
    fixed_at: Int,
    att: Row,
    att_at: Int,
    slope: Number,
    less: Row | None,
    less_at: Int,
    less_rows: Row | None,
    heads: Int,
    channels: Int,
    out: Row,
) -> None:
    """out[i · G + h] = Σ over c < channels of x[x_at + rows[i] + h · channels + c]
    · fixed[fixed_at + h · channels + c] for i < count and the first `heads` of G heads; with
    `leaky_` of length 1 Σ of att[att_at + h · channels + c] · LeakyReLU of the sum of both.

    Less less[less_at + less_rows[i] + h], or where `less_rows` is () less[less_at + h]; nothing
    where `less` is (). Of `less` whole groups of heads are read, of `rows` whole vectors; whole
    vectors are written.
    """
    kind, x, fixed, att = x.kind, x.at(x_at), fixed.at(fixed_at), att.at(att_at)
    slope_, last = kind.splat(slope), heads - 1
    begins = [where(last > h, h, last) * channels for h in range(group)]
    together = kind.lanes // group  # rows whose products are one vector
    whole = channels - channels % kind.lanes

    def add_products(c: Value, mask: Value | None) -> None:
        mine = [fixed.load(begin + c, mask) for begin in begins]
        factors = [att.load(begin + c, mask) for begin in begins] if leaky_ else mine
        for place in range(kind.lanes):
            r, h = divmod(place, group)
            theirs = starts[r].load(begins[h] + c, mask)
            value = leaky(theirs + mine[h], slope_) if leaky_ else theirs
            total[place] = fma(factors[h], value, total[place])

    for i in span(0, count, together):
        starts = [x.at(rows[i + r]) for r in range(together)]
        total = [kind.zero()] * kind.lanes
        for c in span(0, whole, kind.lanes, carry=total):
            add_products(c, None)
        for c in span(whole, channels, kind.lanes, carry=total):  # at most once
            add_products(c, kind.mask(channels - c))
        sums = kind.sum_lanes(total)
        if less is not None:
            first = less.at(less_at)
            subtracted = [first if less_rows is None else first.at(less_rows[i + r]) for r in range(together)]
            sums = sums - joined([numbers.load_few(0, group) for numbers in subtracted])
        out.store(sums, i * group)


@kernel
def subtract_largest(width: Width, group: Length, values: Row, count: Int, largest: Row) -> None:
    """values[i · G + h] -= largest[h] = the largest over i < count of values[i · G + h], for G heads.

    Numbers that are not are passed over; the largest of none is -inf, and so is what it is
    subtracted from. Vector by vector, of `largest` too.
    """
    kind, total = values.kind, count * group
    most = _fold_heads(group, values, total, kind.splat(-math.inf), larger)
    largest.store(most)
    shift = where(most == -math.inf, 0, most)  # -inf less -inf would be no number
    for i in span(0, total, kind.lanes):
        values.store(values.load(i) - shift, i)


@kernel
def sum_heads(width: Width, group: Length, values: Row, count: Int, sums: Row) -> None:
    """sums[h] = Σ over i < count of values[i · G + h], for G heads. A whole vector is written."""
    sums.store(_fold_heads(group, values, count * group, values.kind.zero(), Value.__add__))


def _fold_heads(group: int, values: Row, total: Value, nothing: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """Of values[0 … total), which belong to G heads in turn, those of every head combined, in all of
    its lanes."""
    kind, folded = values.kind, [nothing]
    for i in span(0, total, kind.lanes, carry=folded):
        mask = kind.mask(total - i)
        folded[0] = combine(where(mask, values.load(i, mask), nothing), folded[0])
    return folded[0].fold(combine, group)


@kernel
def head_sums(
    width: Width,
    group: Length,
    x: Row,
    rows: Row,
    count: Int,
    weight: Row,
    scale: Row,
    heads: Row,
    block: Int,
    c: Int,
    size: Int,
    y: Row,
    y_at: Int,
) -> None:
    """y[y_at + c'] = scale[h] · Σ over i < count of weight[i · G + h] · x[rows[i] + c'], for the
    channels c' from c on: those of `vectors_at_once`, of heads h = heads[block], heads[block + 1], …,
    or the first `size` of one vector."""
    for channels in blocks(width, x.kind, c, size):
        its_heads = [heads[block + v] for v in range(len(channels.places))]
        weights = [weight.at(h) for h in its_heads]
        total = [channels.zero(x.kind)]
        for i in span(0, count, carry=total):
            features = channels.load(x.at(rows[i]))
            total[0] = fma(Vectors(of_head[i * group] for of_head in weights), features, total[0])
        channels.store((sum_ * scale[h] for sum_, h in zip(total[0], its_heads, strict=True)), y, y_at)


@kernel
def leaky_sums(
    width: Width,
    group: Length,
    to_att: Length,
    x: Row,
    rows: Row,
    count: Int,
    fixed: Row,
    weight: Row,
    slope: Number,
    att: Row,
    alpha: Row,
    other: Row,
    other_at: Int,
    heads: Row,
    block: Int,
    c: Int,
    size: Int,
    out: Row,
    at: Int,
) -> None:
    """The gradients through LeakyReLU(g), g = x[rows[i] + c'] + fixed[at + c'], of the sums with
    weight[i · G + h] · att[c'], i < count, for channels and heads as in `head_sums`.

    With `to_att` of length 1 out[at + c'] = att[c'] · Σ weight LeakyReLU'(g) and
    other[other_at + c'] += Σ weight LeakyReLU(g); without,
    out[at + c'] = att[c'] · Σ weight LeakyReLU'(g) + Σ alpha[i · G + h] · other[rows[i] + c'].
    """
    slope_ = x.kind.splat(slope)
    for channels in blocks(width, x.kind, c, size):
        its_heads = [heads[block + v] for v in range(len(channels.places))]
        weights, alphas = ([numbers.at(h) for h in its_heads] for numbers in (weight, alpha))
        mine = channels.load(fixed, at)
        sums = [channels.zero(x.kind), channels.zero(x.kind)]
        for i in span(0, count, carry=sums):
            row = rows[i]
            g = channels.load(x, row) + mine
            slopes = where(g > 0, 1, slope_)
            of_edge = Vectors(of_head[i * group] for of_head in weights)
            sums[0] = fma(of_edge, slopes, sums[0])
            if to_att:
                sums[1] = fma(of_edge, g * slopes, sums[1])
            else:
                of_edge = Vectors(of_head[i * group] for of_head in alphas)
                sums[1] = fma(of_edge, channels.load(other, row), sums[1])
        through, rest = sums
        factors = channels.load(att)
        if to_att:
            channels.store(factors * through, out, at)
            channels.store(channels.load(other, other_at) + rest, other, other_at)
        else:
            channels.store(fma(factors, through, rest), out, at)
