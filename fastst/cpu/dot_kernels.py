"""The kernels of q kᵀ at the edges: products of rows of features, and the packing of the results."""

from __future__ import annotations

from numba.core import types

from fastst.cpu.kernel import Address, Int, Width, kernel
from fastst.cpu.microkernel import FRAMES
from fastst.cpu.sum_kernels import by_frames
from fastst.cpu.values import Kind, Row, Value, cases, fma, settled, span


@kernel
def dot_products(
    width: Width,
    kind: Kind,
    out_kind: Kind,
    q: Address,
    k: Address,
    out: Row,
    shift: Int,
    rows: Row,
    slots: Row,
    bounds: Row,
    joint: Int,
    frame: Int,
    channels: Int,
) -> None:
    """out[slots[g, i]][shift + f] = Σ over c of q[f · frame + c] · k[rows[g, i] + f · frame + c] for
    the groups g of a joint and FRAMES frames f.

    q and k are addresses (see `address`) of numbers of type `kind`, the elements of out such of
    `out_kind`; the channels are whole vectors. A group is `dots_at_once` slots, whose results are one
    vector. In the groups from `bounds[joint · size + size - n]` up to the next bound the first n
    slots are a run: the offset rises by 1 from each to the next, and a row of k is loaded once for
    all of them.

    Every sum is made in the same order, whatever stands beside it: lane by lane over the channels,
    then over the lanes in pairs.
    """
    size = dots_at_once(kind.lanes)
    bounds = bounds.at(joint * size)

    lo = bounds[0]
    for run in range(size, 0, -1):
        hi = bounds[size - run + 1]
        for g in span(lo, hi):
            members = [g * size + i for i in range(size)]
            theirs = [k.at(rows[members[i]]) for i in (0, *range(run, size))]
            targets = [out_kind.row(out[slots[member]]).at(shift) for member in members]
            total = _dots(run, q, theirs, frame, channels)
            _store_dots(kind, total, targets)
        lo = hi


def _dots(run: int, q: Row, k: list[Row], frame: Value, channels: Value) -> list[Value]:
    """The products of the frames of q with those of a run, which begins with the first row of k, and
    with those of single slots, the other rows; lane by lane."""
    kind, halves = q.kind, (0, 1) if q.kind.dtype == types.int16 else ()
    slots = run + len(k) - 1
    total = [kind.zero()] * (slots * FRAMES)
    for c in span(0, channels, kind.lanes * max(1, len(halves)), carry=total):
        # Opaque, for otherwise LLVM makes an address of every row and frame, and has no registers for
        # that many.
        places = [c]
        for _ in range(run + FRAMES - 2):
            places.append((places[-1] + frame).opaque())
        for half in halves or (None,):
            # Of bfloat16 every row is loaded twice: there are no registers for all, and LLVM would keep
            # them in memory of its own.
            if half:
                total[:] = settled(total)
            mine = [_load(q, place, half) for place in places[:FRAMES]]
            for row, place in enumerate(places):
                theirs = _load(k[0], place, half)
                for f in range(max(0, row - run + 1), min(FRAMES, row + 1)):
                    at = (row - f) * FRAMES + f
                    total[at] = fma(mine[f], theirs, total[at])
            for i, start in enumerate(k[1:], run):
                for f in range(FRAMES):
                    at = i * FRAMES + f
                    total[at] = fma(mine[f], _load(start, places[f], half), total[at])
    return total


def _load(row: Row, place: Value, half: int | None) -> Value:
    return row.load(place) if half is None else row.load_half(place, half)


def _store_dots(kind: Kind, total: list[Value], targets: list[Row]) -> None:
    """The sums of the lanes, those of FRAMES frames to every target."""
    together = min(FRAMES, kind.lanes)  # frames of one slot, which stand side by side
    for first in range(0, len(total), kind.lanes):
        sums = targets[0].kind.narrow(kind.sum_lanes(total[first : first + kind.lanes]))
        for lane in range(0, kind.lanes, together):
            i, f = divmod(first + lane, FRAMES)
            targets[i].store_few(sums.shuffled(range(lane, lane + together)), f)


def dots_at_once(lanes: int) -> int:
    """The slots of which `dot_products` makes FRAMES products each at once, for vectors of so many
    numbers."""
    return max(1, lanes // FRAMES)


@kernel
def pack_frames(
    source: Row,
    source_at: Int,
    target: Row,
    target_at: Int,
    lo: Int,
    hi: Int,
    count: Int,
) -> None:
    """target[f] = source[f] for lo <= f < hi, 0 for the others of `count`, at most FRAMES, frames, in
    the target's element type; nothing else of the source is read."""
    from_, to = by_frames(source.at(source_at)), by_frames(target.at(target_at))
    mask = from_.kind.mask(hi) & ~from_.kind.mask(lo)
    for whole in cases((lo <= 0) & (hi >= FRAMES)):
        if whole:
            to.store(from_.load())
        else:
            to.store(from_.load(mask=mask), mask=to.kind.mask(count))
