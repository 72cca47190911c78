"""The kernels of A x: sums of rows of features over a node's edges, and the packing of what they read."""

from __future__ import annotations

from collections.abc import Iterator

from numba.core import types

from fastst.cpu.kernel import Address, Int, Length, Number, Width, kernel
from fastst.cpu.memory import LINE
from fastst.cpu.microkernel import FRAMES, MOST_VECTORS, TILE, VECTORS, Block
from fastst.cpu.values import Kind, Row, Value, cases, fma, settled, span, when

# How many slots in a row, of one pair of joints and of offsets that follow one another, `run_sums`
# has code for.
RUNS = (7, 5, 3, 1)


@kernel
def run_sums(
    width: Width,
    kind: Kind,
    x: Address,
    values: Row,
    values_at: Int,
    rows: Row,
    slots: Row,
    bounds: Row,
    joint: Int,
    frame: Int,
    y: Row,
    y_at: Int,
    y_frame: Int,
    frames: Int,
    count: Int,
    stream: Int,
) -> None:
    """y[f, c] = Σ over the runs r of a joint, Σ over the slots i of r, of
    values[slots[r] + i · FRAMES + f] · x[rows[r] + (i + f) · frame + c].

    x is an address (see `address`) of elements of type `kind`; values are packed (see `pack_tile`):
    nothing is masked. The runs of n = RUNS[g] slots are `bounds[joint · G + g]` up to the next bound.
    A row of x is loaded once for all frames and slots of a run that need it. Writes the first
    `frames` of four frames, and the first `count` channels of MOST_VECTORS vectors of 64 bytes or of
    VECTORS narrower ones; past the caches if `stream` is 1.
    """
    values, bounds = values.at(values_at), bounds.at(joint * len(RUNS))
    out = [y.at(y_at + y_frame * f) for f in range(FRAMES)]
    past_caches, halves = stream == 1, kind.dtype == types.int16
    for vectors in _vectors(width, count, kind):
        with when(~past_caches):  # without, the stores at the end wait for memory one after the other
            for row in out:
                for place in range(0, vectors * kind.lanes, LINE // y.kind.itemsize):
                    row.prefetch(place, to_write=True)
        total, lo = [kind.zero()] * (FRAMES * vectors), bounds[0]
        for group, length in enumerate(RUNS):
            hi = bounds[group + 1]
            for r in span(lo, hi, carry=total):
                _add_run(length, vectors, x.at(rows[r]), frame, values.at(slots[r]), total)
            lo = hi
        for f, row in enumerate(out):
            with when(frames > f):
                row.store_channels(total[f * vectors : (f + 1) * vectors], count, past_caches, halves)


def _vectors(width: int, count: Value, kind: Kind) -> Iterator[int]:
    """How many vectors of channels `run_sums` makes at once."""
    if width < 4:
        yield VECTORS
        return
    for few in cases(count <= VECTORS * kind.lanes):
        yield VECTORS if few else MOST_VECTORS


def _add_run(length: int, vectors: int, x: Row, frame: Value, values: Row, total: list[Value]) -> None:
    """total[f] += Σ over i < length of values[i · FRAMES + f] · x[(i + f) · frame + …]"""
    for row in range(length + FRAMES - 1):
        # Row by row: left alone, LLVM loads many rows first and then has no registers for them.
        total[:] = settled(total)
        features = x.at(frame * row).load_channels(vectors)
        for f in range(max(0, row - length + 1), min(FRAMES, row + 1)):
            weight = x.kind.splat(values[(row - f) * FRAMES + f])
            for v, feature in enumerate(features, f * vectors):
                total[v] = fma(weight, feature, total[v])


@kernel
def pack_channels(width: Width, source: Row, source_at: Int, target: Row, target_at: Int, count: Int) -> None:
    """target[c] = source[c] for c < count, 0 for the others of VECTORS vectors; in the target's
    element type."""
    from_, to = source.at(source_at), target.at(target_at)
    for full in cases(count >= VECTORS * source.kind.lanes):
        for c in range(0, VECTORS * source.kind.lanes, source.kind.lanes):
            to.copy(from_, c, None if full else source.kind.mask(count - c))


@kernel
def pack_tile(
    width: Width,
    source: Row,
    source_at: Int,
    target: Row,
    target_at: Int,
    step: Int,
    lo: Int,
    hi: Int,
) -> None:
    """target[f // FRAMES · step + f % FRAMES] = source[f] for lo <= f < hi, 0 for the others of TILE
    frames, in the target's element type; nothing else of the source is read."""
    from_, to = source.at(source_at).of_width(max(width, 2)), by_frames(target.at(target_at))
    kind = from_.kind
    for whole in cases((lo <= 0) & (hi >= TILE)):
        for f in range(0, TILE, kind.lanes):
            mask = None if whole else kind.mask(hi - f) & ~kind.mask(lo - f)
            values = from_.load(f, mask)
            for lane in range(0, kind.lanes, FRAMES):
                place = step * ((f + lane) // FRAMES) + (f + lane) % FRAMES
                to.store(values.shuffled(range(lane, lane + FRAMES)), place)


def by_frames(row: Row) -> Row:
    """The same by vectors of FRAMES numbers."""
    return row.of_width(2 if row.kind.dtype == types.float64 else 1)


@kernel
def weighted_sum(
    width: Width,
    vectors: Length,
    with_self: Length,
    x: Row,
    x_at: Int,
    y: Row,
    y_at: Int,
    values: Row,
    values_at: Int,
    order: Row,
    nodes: Row,
    nodes_at: Int,
    row: Int,
    lo: Int,
    hi: Int,
    own: Number,
    count: Int,
) -> None:
    """y[c] = Σ over s in [lo, hi) of values[values_at + order[s]] · x[x_at + nodes[nodes_at + s] · row + c]
    (+ own · x at y's place), for the first `count` channels of as many vectors as `vectors` is long.
    order and nodes are int32."""
    kind, values, nodes = x.kind, values.at(values_at), nodes.at(nodes_at)
    for full in cases(count >= vectors * kind.lanes):
        places = range(0, vectors * kind.lanes, kind.lanes)
        channels = Block(places, [None if full else kind.mask(count - c) for c in places])
        total = [channels.load(x, y_at) * own if with_self else channels.zero(kind)]
        for s in span(lo, hi, carry=total):
            weight = kind.splat(values[order[s]])
            total[0] = fma(weight, channels.load(x, x_at + nodes[s] * row), total[0])
        channels.store(total[0], y, y_at)
