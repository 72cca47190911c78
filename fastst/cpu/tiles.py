"""Products of small matrices as LLVM code: a tile of the result stays in registers while the sum runs.

Matrices are addresses (see `fastst.cpu.microkernel.address`) of rows at a pitch, counted in elements of the type of `like`, an array.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastst.cpu.vectors import I32, I64, Elements, loop, opaque

VECTORS = 2  # of columns, beside one another, that a tile has
_ROWS = {4: (12, 6, 4, 2, 1), 2: (6, 3, 1), 1: (6, 3, 1)}  # of a tile, by the vectors' width: 24 or 12 sums of two vectors, beside what is multiplied
_BASES = 3  # rows that are addressed from one register


@intrinsic
def tile_products(typingctx, width, like, a, a_row, a_step, b, b_step, steps, out, out_row, rows, count, adds):
    """out[r, c] = Σ over s < steps of a[r · a_row + s · a_step] · b[s · b_step + c] for r < rows and c < count, at most VECTORS vectors of columns;
    with `adds` 1 more of what is there. Whole vectors of b are read.

    Every sum is made in the order of s, whatever stands beside it.
    """
    W = width.count

    def codegen(context, builder, signature, args):
        e = Elements(builder, like.dtype, W)
        element = e.stored.as_pointer()
        a_, b_, out_ = (builder.inttoptr(args[i], element) for i in (2, 5, 8))
        a_row_, a_step_, b_step_, steps_, out_row_, rows_, count_ = args[3], args[4], args[6], args[7], args[9], args[10], args[11]
        adds_ = builder.icmp_signed("==", args[12], I64(1))

        def tile(first: Any, R: int, V: int, whole: bool) -> None:
            """Rows first … first + R - 1, columns of V vectors."""
            row = builder.mul(first, a_row_)
            bases = []  # few registers hold the places of many rows
            for _ in range(0, R, _BASES):
                bases.append(builder.gep(a_, [row]))
                row = opaque(builder, builder.add(row, builder.mul(a_row_, I64(_BASES))))
            places = [
                builder.gep(out_, [builder.add(builder.mul(builder.add(first, I64(r)), out_row_), I64(v * e.lanes))])
                for r in range(R)
                for v in range(V)
            ]
            masks = [None if whole else e.mask(builder.sub(count_, I64(v * e.lanes))) for v in range(V)] * R
            before = [builder.select(adds_, e.mask(builder.sub(count_, I64(v * e.lanes))), e.mask(I64(0))) for v in range(V)] * R
            s, acc, close = loop(builder, I64(0), steps_, 1, [e.load(*pair) for pair in zip(places, before, strict=True)])
            along, across = builder.mul(s, a_step_), builder.mul(s, b_step_)
            columns = [e.load(builder.gep(b_, [builder.add(across, I64(v * e.lanes))]), None) for v in range(V)]
            following = []
            for r in range(R):
                place = builder.add(along, builder.mul(a_row_, I64(r % _BASES))) if r % _BASES else along
                factor = e.splat(builder.load(builder.gep(bases[r // _BASES], [place])))
                following += [e.fma(factor, columns[v], acc[r * V + v]) for v in range(V)]
            for value, place, mask in zip(close(following), places, masks, strict=True):
                e.store(value, place, mask)

        def all_rows(V: int) -> None:
            first = I64(0)
            for R in _ROWS[W]:
                last = builder.sub(rows_, builder.srem(builder.sub(rows_, first), I64(R)))
                here, _, close = loop(builder, first, last, R, [])
                with builder.if_else(e.full(count_, V)) as (full, part):
                    with full:
                        tile(here, R, V, True)
                    with part:
                        tile(here, R, V, False)
                close([])
                first = last

        with builder.if_else(builder.icmp_signed("<=", count_, I64(e.lanes))) as (one, more):
            with one:
                all_rows(1)
            with more:
                all_rows(VECTORS)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, i, i, i, i, i, i, i), codegen


@intrinsic
def weigh_columns(typingctx, width, like, score, rows, pitch, columns, scale, largest, total, factor):
    """score[r, c] becomes exp(scale · (score[r, c] - m[c])) with m the largest of largest[c] and a column's scores, which `largest` becomes.

    factor[c] = exp(scale · (largest[c] - m[c])) is what sums up to here have to be taken times, and total[c] becomes factor[c] · total[c] + Σ over r.
    A column without scores above -inf gets 0. Whole vectors, side by side.
    """
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        score_, largest_, total_, factor_ = (b.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 7, 8, 9))
        rows_, pitch_, scale_ = args[3], args[4], e.splat(args[6])
        c, _, close_columns = loop(b, I64(0), args[5], e.lanes, [])
        before = e.load(b.gep(largest_, [c]), None)
        r, (most,), close = loop(b, I64(0), rows_, 1, [before])
        (most,) = close([e.larger(e.load(b.gep(score_, [b.add(b.mul(r, pitch_), c)]), None), most)])
        nothing = b.fcmp_ordered("==", most, e.splat(e.compute(float("-inf"))))
        shift = b.fmul(scale_, b.select(nothing, e.zero(), most))  # -inf less -inf would be no number
        taken = e.exp(b.fsub(b.fmul(scale_, before), shift))
        r, (sums,), close = loop(b, I64(0), rows_, 1, [b.fmul(taken, e.load(b.gep(total_, [c]), None))])
        place = b.gep(score_, [b.add(b.mul(r, pitch_), c)])
        weight = e.exp(b.fsub(b.fmul(scale_, e.load(place, None)), shift))
        e.store(weight, place, None)
        close([b.fadd(sums, weight)])
        for value, to in ((most, largest_), (sums, total_), (taken, factor_)):
            e.store(value, b.gep(to, [c]), None)
        close_columns([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, like.dtype, i, i, i), codegen


@intrinsic
def pull_columns(typingctx, width, like, score, through, rows, pitch, columns, scale, shift, less, ahead, window):
    """score[r, c] becomes w = exp(scale · score[r, c] - shift[c]), 0 where |ahead + r - c| > window, and through[r, c] becomes
    scale · w · (through[r, c] - less[c]). Whole vectors, side by side."""
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        score_, through_, shift_, less_ = (b.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 3, 8, 9))
        rows_, pitch_, scale_ = args[4], args[5], e.splat(args[7])
        c, _, close_columns = loop(b, I64(0), args[6], e.lanes, [])
        shifts, lesses = (e.load(b.gep(from_, [c]), None) for from_ in (shift_, less_))
        r, _, close = loop(b, I64(0), rows_, 1, [])
        places = [b.gep(from_, [b.add(b.mul(r, pitch_), c)]) for from_ in (score_, through_)]
        weight = e.exp(b.fsub(b.fmul(scale_, e.load(places[0], None)), shifts))
        weight = b.select(e.within(b.sub(b.add(args[10], r), c), args[11]), weight, e.zero())
        e.store(weight, places[0], None)
        e.store(b.fmul(b.fmul(scale_, weight), b.fsub(e.load(places[1], None), lesses)), places[1], None)
        close([])
        close_columns([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, i, like.dtype, i, i, i, i), codegen


@intrinsic
def column_dots(typingctx, width, like, a, b, rows, pitch, columns, out):
    """out[c] = Σ over r of a[r, c] · b[r, c]. Whole vectors, side by side."""
    W = width.count

    def codegen(context, builder, signature, args):
        e = Elements(builder, like.dtype, W)
        a_, b_, out_ = (builder.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 3, 7))
        c, _, close_columns = loop(builder, I64(0), args[6], e.lanes, [])
        r, (sums,), close = loop(builder, I64(0), args[4], 1, [e.zero()])
        at = builder.add(builder.mul(r, args[5]), c)
        (sums,) = close([e.fma(e.load(builder.gep(a_, [at]), None), e.load(builder.gep(b_, [at]), None), sums)])
        e.store(sums, builder.gep(out_, [c]), None)
        close_columns([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, i, i), codegen


@intrinsic
def scale_rows(typingctx, width, like, source, pitch, factor, target, row, rows, count):
    """target[r · row + c] = factor[r] · source[r · pitch + c] for r < rows and c < count."""
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        source_, factor_, target_ = (b.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 4, 5))
        r, _, close_rows = loop(b, I64(0), args[7], 1, [])
        times = e.splat(b.load(b.gep(factor_, [r])))
        c, _, close = loop(b, I64(0), args[8], e.lanes, [])
        value = b.fmul(times, e.load(b.gep(source_, [b.add(b.mul(r, args[3]), c)]), None))
        e.store(value, b.gep(target_, [b.add(b.mul(r, args[6]), c)]), e.mask(b.sub(args[8], c)))
        close([])
        close_rows([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, i, i, i), codegen


@intrinsic
def finish_rows(typingctx, width, like, source, pitch, added, added_row, share, least, target, row, rows, count):
    """target[r · row + c] = max(source[r · pitch + c] + share · added[r · added_row + c], least) for r < rows and c < count; an address of 0 adds
    nothing."""
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        source_, added_, target_ = (b.inttoptr(args[i], e.stored.as_pointer()) for i in (2, 4, 8))
        rows_, count_, share_, least_ = args[10], args[11], e.splat(args[6]), e.splat(args[7])

        def go(adds: bool) -> None:
            r, _, close_rows = loop(b, I64(0), rows_, 1, [])
            c, _, close = loop(b, I64(0), count_, e.lanes, [])
            mask = e.mask(b.sub(count_, c))
            value = e.load(b.gep(source_, [b.add(b.mul(r, args[3]), c)]), mask)
            if adds:
                value = e.fma(share_, e.load(b.gep(added_, [b.add(b.mul(r, args[5]), c)]), mask), value)
            e.store(e.larger(least_, value), b.gep(target_, [b.add(b.mul(r, args[9]), c)]), mask)
            close([])
            close_rows([])

        with b.if_else(b.icmp_signed("!=", args[4], I64(0))) as (some, none):
            with some:
                go(True)
            with none:
                go(False)
        return context.get_dummy_value()

    i, f = types.int64, like.dtype
    return types.void(width, like, i, i, i, i, f, f, i, i, i, i), codegen


@intrinsic
def pack_rows(typingctx, width, like, source, row, rows, channels, across, pitch, along, along_pitch):
    """across[c · pitch + r] = source[r · row + c] and along[r · along_pitch + c] = the same for r < rows and c < channels, 0 for the others of whole
    vectors of both; an address of 0 is not written to."""
    W = width.count

    def codegen(context, b, signature, args):
        e = Elements(b, like.dtype, W)
        element = e.stored.as_pointer()
        row_, rows_, channels_, pitch_, along_pitch_ = args[3], args[4], args[5], args[7], args[9]
        from_, across_, along_ = (b.inttoptr(args[i], element) for i in (2, 6, 8))
        wanted = [b.icmp_signed("!=", args[i], I64(0)) for i in (6, 8)]
        r, _, close_rows = loop(b, I64(0), rows_, e.lanes, [])
        c, _, close_channels = loop(b, I64(0), channels_, e.lanes, [])
        inside, vectors = e.mask(b.sub(channels_, c)), []
        for i in range(e.lanes):
            at = b.add(r, I64(i))
            mask = b.select(b.icmp_signed("<", at, rows_), inside, e.mask(I64(0)))
            vectors.append(e.load(b.gep(from_, [b.add(b.mul(at, row_), c)]), mask))
        with b.if_then(wanted[1]):
            for i, vector in enumerate(vectors):
                e.store(vector, b.gep(along_, [b.add(b.mul(b.add(r, I64(i)), along_pitch_), c)]), None)
        with b.if_then(wanted[0]):
            for i, vector in enumerate(_transposed(b, e, vectors)):
                e.store(vector, b.gep(across_, [b.add(b.mul(b.add(c, I64(i)), pitch_), r)]), None)
        close_channels([])
        close_rows([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, like, i, i, i, i, i, i, i, i), codegen


def _transposed(b: Any, e: Elements, vectors: list[Any]) -> list[Any]:
    """Lane i of vector j is lane j of vector i."""
    pick, half = ir.VectorType(I32, e.lanes), e.lanes // 2
    while half:
        # Blocks of half × half lanes change places across the diagonal.
        low = [lane + (e.lanes - half if lane & half else 0) for lane in range(e.lanes)]
        high = [lane + (e.lanes if lane & half else half) for lane in range(e.lanes)]
        following = list(vectors)
        for i in range(e.lanes):
            if not i & half:
                pair = vectors[i], vectors[i + half]
                following[i] = b.shuffle_vector(*pair, ir.Constant(pick, low))
                following[i + half] = b.shuffle_vector(*pair, ir.Constant(pick, high))
        vectors, half = following, half // 2
    return vectors
