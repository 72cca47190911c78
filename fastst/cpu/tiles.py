"""Products of small matrices as LLVM code: a tile of the result stays in registers while the sum runs.

Matrices are addresses (see `fastst.cpu.microkernel.address`) of rows at a pitch, counted in elements
of the type of `like`, an array.
"""

from __future__ import annotations

import math

from fastst.cpu.kernel import Address, Int, Number, Width, kernel
from fastst.cpu.values import Kind, Value, cases, fma, larger, span, when, where

VECTORS = 2  # of columns, beside one another, that a tile has
# Rows of a tile, by the vectors' width: 24 or 12 sums of two vectors, beside what is multiplied.
_ROWS = {4: (12, 6, 4, 2, 1), 2: (6, 3, 1), 1: (6, 3, 1)}
_BASES = 3  # rows that are addressed from one register


@kernel
def tile_products(
    width: Width,
    like: Kind,
    a: Address,
    a_row: Int,
    a_step: Int,
    b: Address,
    b_step: Int,
    steps: Int,
    out: Address,
    out_row: Int,
    rows: Int,
    count: Int,
    adds: Int,
) -> None:
    """out[r, c] = Σ over s < steps of a[r · a_row + s · a_step] · b[s · b_step + c] for r < rows and
    c < count, at most VECTORS vectors of columns; with `adds` 1 more of what is there. Whole vectors
    of b are read.

    Every sum is made in the order of s, whatever stands beside it.
    """
    add = adds == 1

    def tile(first: Value, R: int, columns: list[int], whole: bool) -> None:
        """Rows first … first + R - 1."""
        row, bases = first * a_row, []  # few registers hold the places of many rows
        for _ in range(0, R, _BASES):
            bases.append(a.at(row))
            row = (row + a_row * _BASES).opaque()
        places = [out.at((first + r) * out_row + c) for r in range(R) for c in columns]
        inside = [None if whole else like.mask(count - c) for c in columns] * R
        before = [where(add, like.mask(count - c), like.mask(0)) for c in columns] * R
        total = [place.load(mask=mask) for place, mask in zip(places, before, strict=True)]
        for s in span(0, steps, carry=total):
            along, across = s * a_step, s * b_step
            multiplied = [b.load(across + c) for c in columns]
            for r in range(R):
                factor = like.splat(bases[r // _BASES][along + a_row * (r % _BASES) if r % _BASES else along])
                for v, column in enumerate(multiplied, r * len(columns)):
                    total[v] = fma(factor, column, total[v])
        for value, place, mask in zip(total, places, inside, strict=True):
            place.store(value, mask=mask)

    for narrow in cases(count <= like.lanes):
        columns = [v * like.lanes for v in range(1 if narrow else VECTORS)]
        first: Value | int = 0
        for R in _ROWS[width]:
            last = rows - (rows - first) % R
            for here in span(first, last, R):
                for whole in cases(count >= len(columns) * like.lanes):
                    tile(here, R, columns, whole)
            first = last


@kernel
def weigh_columns(
    width: Width,
    like: Kind,
    score: Address,
    rows: Int,
    pitch: Int,
    columns: Int,
    scale: Number,
    largest: Address,
    total: Address,
    factor: Address,
) -> None:
    """score[r, c] becomes exp(scale · (score[r, c] - m[c])) with m the largest of largest[c] and a
    column's scores, which `largest` becomes.

    factor[c] = exp(scale · (largest[c] - m[c])) is what sums up to here have to be taken times, and
    total[c] becomes factor[c] · total[c] + Σ over r. A column without scores above -inf gets 0.
    Whole vectors, side by side.
    """
    scale_ = like.splat(scale)
    for c in span(0, columns, like.lanes):
        before = largest.load(c)
        most = [before]
        for r in span(0, rows, carry=most):
            most[0] = larger(score.load(r * pitch + c), most[0])
        # -inf less -inf would be no number
        shift = scale_ * where(most[0] == -math.inf, 0, most[0])
        taken = like.exp(scale_ * before - shift)
        sums = [taken * total.load(c)]
        for r in span(0, rows, carry=sums):
            at = r * pitch + c
            weight = like.exp(scale_ * score.load(at) - shift)
            score.store(weight, at)
            sums[0] = sums[0] + weight
        largest.store(most[0], c)
        total.store(sums[0], c)
        factor.store(taken, c)


@kernel
def pull_columns(
    width: Width,
    like: Kind,
    score: Address,
    through: Address,
    rows: Int,
    pitch: Int,
    columns: Int,
    scale: Number,
    shift: Address,
    less: Address,
    ahead: Int,
    window: Int,
) -> None:
    """score[r, c] becomes w = exp(scale · score[r, c] - shift[c]), 0 where |ahead + r - c| > window,
    and through[r, c] becomes scale · w · (through[r, c] - less[c]). Whole vectors, side by side."""
    scale_ = like.splat(scale)
    for c in span(0, columns, like.lanes):
        shifts, lesses = shift.load(c), less.load(c)
        for r in span(0, rows):
            at = r * pitch + c
            weight = like.exp(scale_ * score.load(at) - shifts)
            weight = where(like.within(ahead + r - c, window), weight, 0)
            score.store(weight, at)
            through.store(scale_ * weight * (through.load(at) - lesses), at)


@kernel
def column_dots(width: Width, like: Kind, a: Address, b: Address, rows: Int, pitch: Int, columns: Int, out: Address) -> None:
    """out[c] = Σ over r of a[r, c] · b[r, c]. Whole vectors, side by side."""
    for c in span(0, columns, like.lanes):
        total = [like.zero()]
        for r in span(0, rows, carry=total):
            at = r * pitch + c
            total[0] = fma(a.load(at), b.load(at), total[0])
        out.store(total[0], c)


@kernel
def scale_rows(
    width: Width,
    like: Kind,
    source: Address,
    pitch: Int,
    factor: Address,
    target: Address,
    row: Int,
    rows: Int,
    count: Int,
) -> None:
    """target[r · row + c] = factor[r] · source[r · pitch + c] for r < rows and c < count."""
    for r in span(0, rows):
        times = like.splat(factor[r])
        for c in span(0, count, like.lanes):
            value = times * source.load(r * pitch + c)
            target.store(value, r * row + c, like.mask(count - c))


@kernel
def finish_rows(
    width: Width,
    like: Kind,
    source: Address,
    pitch: Int,
    added: Int,
    added_row: Int,
    share: Number,
    least: Number,
    target: Address,
    row: Int,
    rows: Int,
    count: Int,
) -> None:
    """target[r · row + c] = max(source[r · pitch + c] + share · added[r · added_row + c], least) for
    r < rows and c < count; an address of 0 adds nothing."""
    more, share_, least_ = like.row(added), like.splat(share), like.splat(least)
    for adds in cases(added != 0):
        for r in span(0, rows):
            for c in span(0, count, like.lanes):
                mask = like.mask(count - c)
                value = source.load(r * pitch + c, mask)
                if adds:
                    value = fma(share_, more.load(r * added_row + c, mask), value)
                target.store(larger(least_, value), r * row + c, mask)


@kernel
def pack_rows(
    width: Width,
    like: Kind,
    source: Address,
    row: Int,
    rows: Int,
    channels: Int,
    across: Int,
    pitch: Int,
    along: Int,
    along_pitch: Int,
) -> None:
    """across[c · pitch + r] = source[r · row + c] and along[r · along_pitch + c] = the same for
    r < rows and c < channels, 0 for the others of whole vectors of both; an address of 0 is not
    written to."""
    lanes = range(like.lanes)
    for r in span(0, rows, like.lanes):
        for c in span(0, channels, like.lanes):
            inside, vectors = like.mask(channels - c), []
            for i in lanes:
                mask = where(r + i < rows, inside, like.mask(0))
                vectors.append(source.load((r + i) * row + c, mask))
            with when(along != 0):
                for i in lanes:
                    like.row(along).store(vectors[i], (r + i) * along_pitch + c)
            with when(across != 0):
                transposed = _transposed(vectors)
                for i in lanes:
                    like.row(across).store(transposed[i], (c + i) * pitch + r)


def _transposed(vectors: list[Value]) -> list[Value]:
    """Lane i of vector j is lane j of vector i."""
    lanes = len(vectors)
    half = lanes // 2
    while half:
        # Blocks of half × half lanes change places across the diagonal.
        low = [lane + (lanes - half if lane & half else 0) for lane in range(lanes)]
        high = [lane + (lanes if lane & half else half) for lane in range(lanes)]
        following = list(vectors)
        for i in range(lanes):
            if not i & half:
                following[i] = vectors[i].shuffled(low, vectors[i + half])
                following[i + half] = vectors[i].shuffled(high, vectors[i + half])
        vectors, half = following, half // 2
    return vectors
