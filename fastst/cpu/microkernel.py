"""Inner loops as LLVM code: vectors of accumulators that stay in registers, which numba's own loops don't reach.

Every builder is driven by the types of its arguments, so that one numba function serves all element types and vector widths (see
`fastst.cpu.vectors`; the width is the length of a tuple) and its machine code can be cached on disk.

numba's cache looks at the file of the function that it compiled, not at these: after a change here, remove `fastst/cpu/__pycache__`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastst.cpu.memory import LINE
from fastst.cpu.vectors import BYTE, I1, I32, I64, Elements, data_of, loop, opaque, prefetch, settle, sum_lanes

FRAMES, TILE = 4, 32  # frames that `run_sums` makes at once, and those that share one packed piece of memory
RUNS = (7, 5, 3, 1)  # how many slots in a row, of one pair of joints and of offsets that follow one another, `run_sums` has code for
VECTORS = 2  # of channels, beside one another: four frames' sums of two vectors each, two vectors of x and a weight fit 16 registers
MOST_VECTORS = 4  # the same for the 32 registers that come with vectors of 64 bytes


@intrinsic
def run_sums(typingctx, width, kind, x, values, values_at, rows, slots, bounds, joint, frame, y, y_at, y_frame, frames, count, stream):
    """y[f, c] = Σ over the runs r of a joint, Σ over the slots i of r, of values[slots[r] + i · FRAMES + f] · x[rows[r] + (i + f) · frame + c].

    x is an address (see `address`) of elements of type `kind`; values are packed (see `pack_tile`): nothing is masked. The runs of
    n = RUNS[g] slots are `bounds[joint · G + g]` up to the next bound. A row of x is loaded once for all frames and slots of a run that need it.
    Writes the first `frames` of four frames, and the first `count` channels of MOST_VECTORS vectors of 64 bytes or of VECTORS narrower ones; past
    the caches if `stream` is 1.
    """
    W = width.count

    def codegen(context, b, signature, args):
        e, o, halves = Elements(b, kind, W), Elements(b, y.dtype, W), kind == types.int16
        data = {n: data_of(context, b, signature, args, i) for i, n in ((3, "values"), (5, "rows"), (6, "slots"), (7, "bounds"), (10, "y"))}
        x0, v0, frame_ = b.inttoptr(args[2], e.stored.as_pointer()), b.gep(data["values"], [args[4]]), args[9]
        bound = b.gep(data["bounds"], [b.mul(args[8], I64(len(RUNS)))])
        y_at, y_frame, frames_, count_ = args[11:15]
        y_rows = [b.gep(b.bitcast(data["y"], o.stored.as_pointer()), [b.add(y_at, b.mul(y_frame, I64(f)))]) for f in range(FRAMES)]
        stream_ = b.icmp_signed("==", args[15], I64(1))

        def sums(vectors):
            with b.if_then(b.not_(stream_)):  # without, the stores at the end wait for memory one after the other
                for row in y_rows:
                    for line in range(0, vectors * e.lanes * o.bytes, LINE):
                        prefetch(b, b.gep(row, [I64(line // o.bytes)]), to_write=True)
            acc, lo = [e.zero()] * (FRAMES * vectors), b.load(bound)
            for group, length in enumerate(RUNS):
                hi = b.load(b.gep(bound, [I64(group + 1)]))
                r, acc, close = loop(b, lo, hi, 1, acc)
                first_row = b.gep(x0, [b.load(b.gep(data["rows"], [r]))])
                weights = b.gep(v0, [b.load(b.gep(data["slots"], [r]))])
                for row in range(length + FRAMES - 1):
                    # Row by row: left alone, LLVM loads many rows first and then has no registers for them.
                    acc = settle(b, acc)
                    here = b.gep(first_row, [b.mul(frame_, I64(row))])
                    loaded = e.load_channels(here, vectors)
                    for f in range(max(0, row - length + 1), min(FRAMES, row + 1)):
                        weight = e.splat(b.load(b.gep(weights, [I64((row - f) * FRAMES + f)])))
                        for v in range(vectors):
                            acc[f * vectors + v] = e.fma(weight, loaded[v], acc[f * vectors + v])
                acc, lo = close(acc), hi
            for f in range(FRAMES):
                with b.if_then(b.icmp_signed("<", I64(f), frames_)):
                    o.store_channels(acc[f * vectors : (f + 1) * vectors], y_rows[f], count_, stream_, halves)

        if W < 4:
            sums(VECTORS)
            return context.get_dummy_value()
        with b.if_else(b.icmp_signed("<=", count_, I64(VECTORS * e.lanes))) as (few, many):
            with few:
                sums(VECTORS)
            with many:
                sums(MOST_VECTORS)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, kind, i, values, i, rows, slots, bounds, i, i, y, i, i, i, i, i), codegen


@intrinsic
def address(typingctx, target, at):
    """The address of an element of an array."""

    def codegen(context, b, signature, args):
        return b.ptrtoint(b.gep(data_of(context, b, signature, args, 0), [args[1]]), I64)

    return types.int64(target, types.int64), codegen


@intrinsic
def lanes_of(typingctx, width, array):
    """How many elements of an array a vector holds; a constant of the code, which an array's item size is not."""
    lanes = width.count * (2 if array.dtype == types.float64 else 4)

    def codegen(context, b, signature, args):
        return I64(lanes)

    return types.int64(width, array), codegen


@intrinsic
def pack_channels(typingctx, width, source, source_at, target, target_at, count):
    """target[c] = source[c] for c < count, 0 for the others of VECTORS vectors; in the target's element type."""
    W = width.count

    def codegen(context, b, signature, args):
        e, o = Elements(b, source.dtype, W), Elements(b, target.dtype, W)
        from_ = b.gep(b.bitcast(data_of(context, b, signature, args, 1), e.stored.as_pointer()), [args[2]])
        to = b.gep(data_of(context, b, signature, args, 3), [args[4]])
        with b.if_else(e.full(args[5], VECTORS)) as (full, part):
            for branch, masked in ((full, False), (part, True)):
                with branch:
                    for v in range(VECTORS):
                        at = [I64(v * e.lanes)]
                        value = e.load_stored(b.gep(from_, at), e.mask(b.sub(args[5], at[0])) if masked else None)
                        o.store_stored(value if source.dtype == target.dtype else o.narrow(e.widen(value)), b.gep(to, at), None)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, source, i, target, i, i), codegen


@intrinsic
def fetch_rows(typingctx, source, at, stride, count):
    """Has the first `count` elements of FRAMES rows of an array's memory fetched for later. (Places beyond the array do no harm.)"""

    def codegen(context, b, signature, args):
        size = context.get_abi_sizeof(context.get_data_type(source.dtype))
        first = b.gep(data_of(context, b, signature, args, 0), [args[1]])
        c, _, close = loop(b, I64(0), args[3], LINE // size, [])
        for f in range(FRAMES):
            prefetch(b, b.gep(first, [b.add(c, b.mul(args[2], I64(f)))]), to_write=False)
        close([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(source, i, i, i), codegen


@intrinsic
def clear(typingctx, target, first, last):
    """Zeros from one place of an array's memory up to another. (An assignment to a slice takes numba long to compile.)"""

    def codegen(context, b, signature, args):
        place = b.bitcast(b.gep(data_of(context, b, signature, args, 0), [args[1]]), BYTE.as_pointer())
        size = context.get_abi_sizeof(context.get_data_type(target.dtype))
        count = b.sub(args[2], args[1])
        count = b.select(b.icmp_signed(">", count, I64(0)), count, I64(0))
        function = b.module.declare_intrinsic("llvm.memset", [BYTE.as_pointer(), I64])
        b.call(function, [place, BYTE(0), b.mul(count, I64(size)), I1(0)])
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64), codegen


@intrinsic
def pack_frames(typingctx, source, source_at, target, target_at, lo, hi, count):
    """target[f] = source[f] for lo <= f < hi, 0 for the others of `count`, at most FRAMES, frames, in the target's element type; nothing else of the
    source is read."""

    def codegen(context, b, signature, args):
        e, o = _four_frames(b, source), _four_frames(b, target)
        from_ = b.gep(b.bitcast(data_of(context, b, signature, args, 0), e.stored.as_pointer()), [args[1]])
        to = b.gep(data_of(context, b, signature, args, 2), [args[3]])
        mask = b.and_(e.mask(args[5]), b.not_(e.mask(args[4])))
        with b.if_else(b.and_(b.icmp_signed("<=", args[4], I64(0)), b.icmp_signed(">=", args[5], I64(FRAMES)))) as (whole, part):
            with whole:
                o.store(e.load(from_, None), to, None)
            with part:
                o.store(e.load(from_, mask), to, o.mask(args[6]))
        return context.get_dummy_value()

    i = types.int64
    return types.void(source, i, target, i, i, i, i), codegen


@intrinsic
def pack_tile(typingctx, width, source, source_at, target, target_at, step, lo, hi):
    """target[f // FRAMES · step + f % FRAMES] = source[f] for lo <= f < hi, 0 for the others of TILE frames, in the target's element type; nothing
    else of the source is read."""
    W = width.count

    def codegen(context, b, signature, args):
        e, o = Elements(b, source.dtype, max(W, 2)), _four_frames(b, target)
        from_ = b.gep(b.bitcast(data_of(context, b, signature, args, 1), e.stored.as_pointer()), [args[2]])
        to, step_, lo_, hi_ = b.gep(data_of(context, b, signature, args, 3), [args[4]]), args[5], args[6], args[7]

        def pack(masked: bool) -> None:
            for f in range(0, TILE, e.lanes):
                mask = b.and_(e.mask(b.sub(hi_, I64(f))), b.not_(e.mask(b.sub(lo_, I64(f))))) if masked else None
                values = e.load(b.gep(from_, [I64(f)]), mask)
                for lane in range(0, e.lanes, o.lanes):
                    four = b.shuffle_vector(values, values, ir.Constant(ir.VectorType(I32, o.lanes), list(range(lane, lane + o.lanes))))
                    place = b.gep(to, [b.add(b.mul(step_, I64((f + lane) // FRAMES)), I64((f + lane) % FRAMES))])
                    o.store(four, place, None)

        with b.if_else(b.and_(b.icmp_signed("<=", lo_, I64(0)), b.icmp_signed(">=", hi_, I64(TILE)))) as (whole, part):
            with whole:
                pack(False)
            with part:
                pack(True)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, source, i, target, i, i, i, i), codegen


def _four_frames(b: Any, array: types.Array) -> Elements:
    """Vectors of FRAMES elements of an array."""
    e = Elements(b, array.dtype, 2 if array.dtype == types.float64 else 1)
    assert e.lanes == FRAMES
    return e


@intrinsic
def weighted_sum(typingctx, width, vectors, with_self, x, x_at, y, y_at, values, values_at, order, nodes, nodes_at, row, lo, hi, own, count):
    """y[c] = Σ over s in [lo, hi) of values[values_at + order[s]] · x[x_at + nodes[nodes_at + s] · row + c] (+ own · x at y's place), for the first
    `count` channels of as many vectors as `vectors` is long. order and nodes are int32."""
    W, V, use_self = width.count, vectors.count, with_self.count == 1

    def codegen(context, b, signature, args):
        e = Elements(b, x.dtype, W)
        data = {n: data_of(context, b, signature, args, i) for i, n in ((3, "x"), (5, "y"), (7, "values"), (9, "order"), (10, "nodes"))}
        x0, y0 = (b.bitcast(data[n], e.stored.as_pointer()) for n in "xy")
        values0, nodes0, count_ = b.gep(data["values"], [args[8]]), b.gep(data["nodes"], [args[11]]), args[16]

        def number(array: Any, s: Any) -> Any:
            return b.sext(b.load(b.gep(array, [s])), I64)

        def compute(masked: bool) -> None:
            masks = [e.mask(b.sub(count_, I64(v * e.lanes))) if masked else None for v in range(V)]

            def channels(at: Any) -> list[Any]:
                return [e.load(b.gep(x0, [b.add(at, I64(v * e.lanes))]), masks[v]) for v in range(V)]

            acc = [e.zero()] * V
            if use_self:
                acc = [b.fmul(e.splat(args[15]), mine) for mine in channels(args[6])]
            s, acc, close = loop(b, args[13], args[14], 1, acc)
            weight = e.splat(b.load(b.gep(values0, [number(data["order"], s)])))
            at = b.add(args[4], b.mul(number(nodes0, s), args[12]))
            acc = close([e.fma(weight, *pair) for pair in zip(channels(at), acc, strict=True)])
            for v in range(V):
                e.store(acc[v], b.gep(y0, [b.add(args[6], I64(v * e.lanes))]), masks[v])

        with b.if_else(e.full(count_, V)) as (full, part):
            with full:
                compute(False)
            with part:
                compute(True)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, vectors, with_self, x, i, y, i, values, i, order, nodes, i, i, i, i, own, i), codegen


@intrinsic
def dot_products(typingctx, width, kind, out_kind, q, k, out, shift, rows, slots, bounds, joint, frame, channels):
    """out[slots[g, i]][shift + f] = Σ over c of q[f · frame + c] · k[rows[g, i] + f · frame + c] for the groups g of a joint and FRAMES frames f.

    q and k are addresses (see `address`) of numbers of type `kind`, the elements of out such of `out_kind`; the channels are whole vectors. A group
    is `dots_at_once` slots, whose results are one vector. In the groups from `bounds[joint · size + size - n]` up to the next bound the first n slots
    are a run: the offset rises by 1 from each to the next, and a row of k is loaded once for all of them.

    Every sum is made in the same order, whatever stands beside it: lane by lane over the channels, then over the lanes in pairs.
    """
    W = width.count

    def codegen(context, b, signature, args):
        e, o = Elements(b, kind, W), Elements(b, out_kind, W)
        size, element, halves = dots_at_once(e.lanes), e.stored.as_pointer(), (0, 1) if kind == types.int16 else (0,)
        out0, rows0, slots0, bounds0 = (data_of(context, b, signature, args, i) for i in (5, 7, 8, 9))
        q0, k0 = (b.inttoptr(args[i], element) for i in (3, 4))
        bound, frame_ = b.gep(bounds0, [b.mul(args[10], I64(size))]), args[11]

        def group(number: Any, run: int) -> None:
            slot = [b.add(b.mul(number, I64(size)), I64(i)) for i in range(size)]
            starts = [b.gep(k0, [b.load(b.gep(rows0, [slot[i]]))]) for i in (0, *range(run, size))]
            outs = [b.gep(b.inttoptr(b.load(b.gep(out0, [b.load(b.gep(slots0, [at]))])), o.stored.as_pointer()), [args[6]]) for at in slot]
            c, acc, close = loop(b, I64(0), args[12], e.lanes * len(halves), [e.zero()] * (size * FRAMES))
            # Opaque, for otherwise LLVM makes an address of every row and frame, and has no registers for that many.
            places = [c]
            for _ in range(run + FRAMES - 2):
                places.append(opaque(b, b.add(places[-1], frame_)))
            for half in halves:
                # Of bfloat16 every row is loaded twice: there are no registers for all, and LLVM would keep them in memory of its own.
                acc = settle(b, acc) if half else acc

                def load(row: Any, place: Any, half: int = half) -> Any:
                    return e.load_half(b.gep(row, [place]), half) if len(halves) > 1 else e.load(b.gep(row, [place]), None)

                mine = [load(q0, place) for place in places[:FRAMES]]
                for row, place in enumerate(places):
                    theirs = load(starts[0], place)
                    for f in range(max(0, row - run + 1), min(FRAMES, row + 1)):
                        at = (row - f) * FRAMES + f
                        acc[at] = e.fma(mine[f], theirs, acc[at])
                for i, start in enumerate(starts[1:], run):
                    for f in range(FRAMES):
                        acc[i * FRAMES + f] = e.fma(mine[f], load(start, places[f]), acc[i * FRAMES + f])
            acc = close(acc)
            for first in range(0, size * FRAMES, e.lanes):
                sums = o.narrow(sum_lanes(b, e, acc[first : first + e.lanes]))
                together = min(FRAMES, e.lanes)  # frames of one slot, which stand side by side
                for lane in range(0, e.lanes, together):
                    i, f = divmod(first + lane, FRAMES)
                    piece = b.shuffle_vector(sums, sums, ir.Constant(ir.VectorType(I32, together), list(range(lane, lane + together))))
                    b.store(piece, b.bitcast(b.gep(outs[i], [I64(f)]), piece.type.as_pointer())).align = o.bytes

        lo = b.load(bound)
        for run in range(size, 0, -1):
            hi = b.load(b.gep(bound, [I64(size - run + 1)]))
            number, _, close = loop(b, lo, hi, 1, [])
            group(number, run)
            close([])
            lo = hi
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, kind, out_kind, i, i, out, i, rows, slots, bounds, i, i, i), codegen


def dots_at_once(lanes: int) -> int:
    """The slots of which `dot_products` makes FRAMES products each at once, for vectors of so many numbers."""
    return max(1, lanes // FRAMES)


@intrinsic
def bits_of(typingctx, number):
    """The bits of a float32, as int32."""

    def codegen(context, b, signature, args):
        return b.bitcast(args[0], I32)

    return types.int32(types.float32), codegen


@intrinsic
def float_of(typingctx, bits):
    """The float32 of these bits."""

    def codegen(context, b, signature, args):
        return b.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def row_products(
    typingctx, width, group, leaky, x, x_at, rows, count, fixed, fixed_at, att, att_at, slope, less, less_at, less_rows, heads, channels, out
):
    """out[i · G + h] = Σ over c < channels of x[x_at + rows[i] + h · channels + c] · fixed[fixed_at + h · channels + c] for i < count and the
    first `heads` of G heads, G the length of `group`; with `leaky` of length 1 Σ of att[att_at + h · channels + c] · LeakyReLU of the sum of both.

    Less less[less_at + less_rows[i] + h], or where `less_rows` is () less[less_at + h]; nothing where `less` is (). Of `less` whole groups of heads
    are read, of `rows` whole vectors; whole vectors are written.
    """
    W, G, with_leaky = width.count, group.count, leaky.count == 1

    def codegen(context, b, signature, args):
        e = Elements(b, x.dtype, W)
        data = {n: data_of(context, b, signature, args, i) for i, n in ((3, "x"), (5, "rows"), (7, "fixed"), (9, "att"), (17, "out"))}
        bases = {n: b.gep(data[n], [args[i]]) for n, i in (("x", 4), ("fixed", 8), ("att", 10))}
        slope_, last, channels_ = e.splat(args[11]), b.sub(args[15], I64(1)), args[16]
        heads = [b.mul(b.select(b.icmp_signed("<", I64(h), last), I64(h), last), channels_) for h in range(G)]
        together = e.lanes // G  # rows whose products are one vector

        def subtracted(i: Any) -> Any:
            first = b.gep(data_of(context, b, signature, args, 12), [args[13]])
            kind, numbers = ir.VectorType(e.compute, G), []
            for r in range(together):
                from_ = first
                if not isinstance(less_rows, types.BaseTuple):
                    from_ = b.gep(first, [b.load(b.gep(data_of(context, b, signature, args, 14), [b.add(i, I64(r))]))])
                numbers.append(b.load(b.bitcast(from_, kind.as_pointer())))
                numbers[-1].align = e.bytes
            while len(numbers) > 1:
                pick = ir.Constant(ir.VectorType(I32, 2 * numbers[0].type.count), list(range(2 * numbers[0].type.count)))
                numbers = [b.shuffle_vector(*pair, pick) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
            return numbers[0]

        def step(c: Any, acc: list[Any], starts: list[Any], mask: Any) -> list[Any]:
            mine = [e.load(b.gep(bases["fixed"], [b.add(head, c)]), mask) for head in heads]
            factors = [e.load(b.gep(bases["att"], [b.add(head, c)]), mask) for head in heads] if with_leaky else mine
            following = []
            for place, total in enumerate(acc):
                r, h = divmod(place, G)
                value = e.load(b.gep(starts[r], [b.add(heads[h], c)]), mask)
                following.append(e.fma(factors[h], e.leaky(b.fadd(value, mine[h]), slope_) if with_leaky else value, total))
            return following

        i, _, close_rows = loop(b, I64(0), args[6], together, [])
        starts = [b.gep(bases["x"], [b.load(b.gep(data["rows"], [b.add(i, I64(r))]))]) for r in range(together)]
        whole = b.sub(channels_, b.srem(channels_, I64(e.lanes)))
        c, acc, close = loop(b, I64(0), whole, e.lanes, [e.zero()] * e.lanes)
        acc = close(step(c, acc, starts, None))
        c, acc, close = loop(b, whole, channels_, e.lanes, acc)  # at most once: the channels that don't fill a vector
        acc = close(step(c, acc, starts, e.mask(b.sub(channels_, c))))
        sums = sum_lanes(b, e, acc)
        sums = sums if isinstance(less, types.BaseTuple) else b.fsub(sums, subtracted(i))
        e.store(sums, b.gep(data["out"], [b.mul(i, I64(G))]), None)
        close_rows([])
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, group, leaky, x, i, rows, i, fixed, i, att, i, x.dtype, less, i, less_rows, i, i, out), codegen


def _fold_heads(b: Any, e: Elements, G: int, values: Any, total: Any, nothing: Any, combine: Any) -> Any:
    """Of values[0 … total), which belong to G heads in turn, those of every head combined, in all of its lanes."""
    i, (acc,), close = loop(b, I64(0), total, e.lanes, [nothing])
    mask = e.mask(b.sub(total, i))
    (acc,) = close([combine(b.select(mask, e.load(b.gep(values, [i]), mask), nothing), acc)])
    half = e.lanes // 2
    while half >= G:
        across = ir.Constant(ir.VectorType(I32, e.lanes), [lane ^ half for lane in range(e.lanes)])
        acc, half = combine(acc, b.shuffle_vector(acc, acc, across)), half // 2
    return acc


@intrinsic
def subtract_largest(typingctx, width, group, values, count, largest):
    """values[i · G + h] -= largest[h] = the largest over i < count of values[i · G + h], for G heads, the length of `group`. Numbers that are not are
    passed over; the largest of none is -inf, and so is what it is subtracted from. Vector by vector, of `largest` too."""
    W, G = width.count, group.count

    def codegen(context, b, signature, args):
        e = Elements(b, values.dtype, W)
        values_, total = data_of(context, b, signature, args, 2), b.mul(args[3], I64(G))

        def combine(one: Any, other: Any) -> Any:
            return b.select(b.fcmp_ordered(">", one, other), one, other)

        most = _fold_heads(b, e, G, values_, total, e.splat(e.compute(float("-inf"))), combine)
        e.store(most, data_of(context, b, signature, args, 4), None)
        nothing = b.fcmp_ordered("==", most, e.splat(e.compute(float("-inf"))))
        shift = b.select(nothing, e.zero(), most)  # -inf less -inf would be no number
        i, _, close = loop(b, I64(0), total, e.lanes, [])
        place = b.gep(values_, [i])
        e.store(b.fsub(e.load(place, None), shift), place, None)
        close([])
        return context.get_dummy_value()

    return types.void(width, group, values, types.int64, largest), codegen


@intrinsic
def sum_heads(typingctx, width, group, values, count, sums):
    """sums[h] = Σ over i < count of values[i · G + h], for G heads, the length of `group`. A whole vector is written."""
    W, G = width.count, group.count

    def codegen(context, b, signature, args):
        e = Elements(b, values.dtype, W)
        total = b.mul(args[3], I64(G))
        e.store(_fold_heads(b, e, G, data_of(context, b, signature, args, 2), total, e.zero(), b.fadd), data_of(context, b, signature, args, 4), None)
        return context.get_dummy_value()

    return types.void(width, group, values, types.int64, sums), codegen


def vectors_at_once(width: tuple[int, ...]) -> int:
    """How many vectors of channels `head_sums` and `leaky_sums` go over at once."""
    return MOST_VECTORS if len(width) == 4 else VECTORS


def _over_channels(b: Any, e: Elements, width: int, c: Any, size: Any, compute: Any) -> None:
    """Code for the channels from c on: `compute(places, masks)`, of several vectors that are full, or of the first `size` channels of one."""
    vectors = vectors_at_once((0,) * width)
    with b.if_else(e.full(size, vectors)) as (full, part):
        with full:
            compute([b.add(c, I64(v * e.lanes)) for v in range(vectors)], [None] * vectors)
        with part:
            compute([c], [e.mask(size)])


@intrinsic
def head_sums(typingctx, width, group, x, rows, count, weight, scale, heads, block, c, size, y, y_at):
    """y[y_at + c'] = scale[h] · Σ over i < count of weight[i · G + h] · x[rows[i] + c'], for `size` channels c' from c on: those of
    `vectors_at_once`, of heads h = heads[block], heads[block + 1], …, or at most one vector. G is the length of `group`."""
    W, G = width.count, group.count

    def codegen(context, b, signature, args):
        e = Elements(b, x.dtype, W)
        numbers = {"x": 2, "rows": 3, "weight": 5, "scale": 6, "heads": 7, "y": 11}
        data = {n: data_of(context, b, signature, args, i) for n, i in numbers.items()}

        def compute(places: list[Any], masks: list[Any]) -> None:
            heads_ = [b.load(b.gep(data["heads"], [b.add(args[8], I64(v))])) for v in range(len(places))]
            weights = [b.gep(data["weight"], [h]) for h in heads_]
            i, acc, close = loop(b, I64(0), args[4], 1, [e.zero()] * len(places))
            row = b.gep(data["x"], [b.load(b.gep(data["rows"], [i]))])
            loaded = [e.load(b.gep(row, [place]), mask) for place, mask in zip(places, masks, strict=True)]
            at = b.mul(i, I64(G))
            acc = close([e.fma(e.splat(b.load(b.gep(weight, [at]))), *pair) for weight, *pair in zip(weights, loaded, acc, strict=True)])
            for place, mask, total, h in zip(places, masks, acc, heads_, strict=True):
                e.store(b.fmul(total, e.splat(b.load(b.gep(data["scale"], [h])))), b.gep(data["y"], [b.add(args[12], place)]), mask)

        _over_channels(b, e, W, args[9], args[10], compute)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, group, x, rows, i, weight, scale, heads, i, i, i, y, i), codegen


@intrinsic
def leaky_sums(typingctx, width, group, to_att, x, rows, count, fixed, weight, slope, att, alpha, other, other_at, heads, block, c, size, out, at):
    """The gradients through LeakyReLU(g), g = x[rows[i] + c'] + fixed[at + c'], of the sums with weight[i · G + h] · att[c'], i < count, for channels
    and heads as in `head_sums`.

    With `to_att` of length 1 out[at + c'] = att[c'] · Σ weight LeakyReLU'(g) and other[other_at + c'] += Σ weight LeakyReLU(g); without,
    out[at + c'] = att[c'] · Σ weight LeakyReLU'(g) + Σ alpha[i · G + h] · other[rows[i] + c'].
    """
    W, G, with_att = width.count, group.count, to_att.count == 1

    def codegen(context, b, signature, args):
        e = Elements(b, x.dtype, W)
        numbers = {"x": 3, "rows": 4, "fixed": 6, "weight": 7, "att": 9, "alpha": 10, "other": 11, "heads": 13, "out": 17}
        data = {n: data_of(context, b, signature, args, i) for n, i in numbers.items()}
        slope_, one = e.splat(args[8]), e.splat(e.compute(1.0))

        def compute(places: list[Any], masks: list[Any]) -> None:
            vectors = len(places)
            heads_ = [b.load(b.gep(data["heads"], [b.add(args[14], I64(v))])) for v in range(vectors)]
            firsts = {n: [b.gep(data[n], [h]) for h in heads_] for n in ("weight", "alpha")}

            def load(name: str, at: Any) -> list[Any]:
                return [e.load(b.gep(data[name], [b.add(at, place)]), mask) for place, mask in zip(places, masks, strict=True)]

            def weights(name: str) -> list[Any]:
                return [e.splat(b.load(b.gep(first, [b.mul(i, I64(G))]))) for first in firsts[name]]

            def store(name: str, at: Any, values: list[Any]) -> None:
                for place, mask, value in zip(places, masks, values, strict=True):
                    e.store(value, b.gep(data[name], [b.add(at, place)]), mask)

            mine = load("fixed", args[18])
            i, acc, close = loop(b, I64(0), args[5], 1, [e.zero()] * (2 * vectors))
            row = b.load(b.gep(data["rows"], [i]))
            hidden = [b.fadd(*pair) for pair in zip(load("x", row), mine, strict=True)]
            slopes = [b.select(b.fcmp_ordered(">", g, e.zero()), one, slope_) for g in hidden]
            direct = [e.fma(*each) for each in zip(weights("weight"), slopes, acc[:vectors], strict=True)]
            if with_att:
                pairs = zip(weights("weight"), [b.fmul(*pair) for pair in zip(hidden, slopes, strict=True)], strict=True)
            else:
                pairs = zip(weights("alpha"), load("other", row), strict=True)
            acc = close(direct + [e.fma(*pair, total) for pair, total in zip(pairs, acc[vectors:], strict=True)])
            pairs = zip(load("att", I64(0)), acc[:vectors], strict=True)
            if with_att:
                store("out", args[18], [b.fmul(*pair) for pair in pairs])
                store("other", args[12], [b.fadd(*pair) for pair in zip(load("other", args[12]), acc[vectors:], strict=True)])
            else:
                store("out", args[18], [e.fma(*pair, total) for pair, total in zip(pairs, acc[vectors:], strict=True)])

        _over_channels(b, e, W, args[15], args[16], compute)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, group, to_att, x, rows, i, fixed, weight, x.dtype, att, alpha, other, i, heads, i, i, i, out, i), codegen
