"""The sparse products on the CPU: A x, Aᵀ y, q kᵀ at the edges, and a · b at the nodes. Same contract as `fastst.ops.sparse`.

The sums of a skeleton go over tiles of 32 frames of one walk. What a tile needs is packed first, with zeros where no edge or frame exists, and the
micro-kernel then runs over it without a condition: the edge values of all slots, in the order in which they are summed, and for a few vectors of
channels at a time the features of the tile's frames and of those within reach. Where the channels fill whole such vectors, frames lie in x as they
would be packed, and inside a walk they are read there.

Slots of one pair of joints whose offsets follow one another are a run: its rows of features are loaded once for all its slots and for four frames
(see `fastst.cpu.plans`). The products at the edges go over the same tiles; at a walk's ends they are made of all slots, and those of edges that don't
exist are left out when they are copied to their places.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend_kernels import row_products
from fastst.cpu.dot_kernels import dot_products, dots_at_once, pack_frames
from fastst.cpu.functions import compile_loops, compile_sums
from fastst.cpu.memory import LINE, empty
from fastst.cpu.microkernel import FRAMES, MOST_VECTORS, TILE, VECTORS, address, clear, fetch_rows, lanes_of
from fastst.cpu.plans import dot_plan, plan_of, sum_plan
from fastst.cpu.sum_kernels import pack_channels, pack_tile, run_sums, weighted_sum
from fastst.cpu.threads import run_ranges
from fastst.cpu.vectors import native_width
from fastst.graph_index import GraphIndex

WIDTH = native_width()
_HALF = (torch.bfloat16, torch.float16)
_STREAMED = 4 << 20  # bytes: results from this size on are written past the caches
_BLOCK = 256  # bytes of channels: with the frames of a tile a piece of memory for the second-level cache


def gather_sum(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """y[t, dst] = Σ values[p, t] x[t + offset, src] (+ diagonal[t, dst] x[t, dst])."""
    if hops == 0:
        return _sum_edges(x, values, index.dst_ptr, index.dst_order, index.sender_nodes, diagonal)
    return _sum_slots(x, values, index, 1, hops, lengths, diagonal)


def scatter_sum(y: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """x[s, src] = Σ values[p, s - offset] y[s - offset, dst] (+ diagonal[s, src] y[s, src])."""
    if hops == 0:
        return _sum_edges(y, values, index.src_ptr, index.src_order, index.receiver_nodes, diagonal)
    return _sum_slots(y, values, index, -1, hops, lengths, diagonal)


def edge_dot(q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """values[p, t] = q[t, dst] · k[t + offset, src]; 0 where no edge exists; in `dtype` or at least float32."""
    return _dot_edges(q, k, index, dtype) if hops == 0 else _dot_slots(q, k, index, hops, lengths, dtype, False)[0]


def edge_and_node_dot(
    q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """`edge_dot` and, at every node, q · k, both in `dtype`.  # [B, P, T], [B, T, J]"""
    if hops == 0:
        edges = _dot_edges(q, k, index, dtype)
        return edges, node_dot(q, k, 1, lengths).squeeze(-1).to(edges.dtype)
    return _dot_slots(q, k, index, hops, lengths, dtype, True)


def node_dot(a: Tensor, b: Tensor, heads: int, lengths: Tensor | None) -> Tensor:
    """a · b of every node, head by head; 0 beyond the lengths.  # [B, T, J, C] twice -> [B, T, J, heads], at least float32"""
    B, T, J, C = a.shape
    compute = torch.promote_types(a.dtype, torch.float32)
    dots = empty(B, T, J, heads, dtype=compute)
    rows = (v.to(compute).reshape(-1) for v in (a, b))
    # The one frame of an edge list is shared among the threads node by node.
    frames, nodes = (J, 1) if T == 1 and lengths is None else (T, J)
    run_ranges(_dot_rows, B * frames, *rows, dots.view(B * frames, nodes * heads), C // heads, frame_counts(lengths, B, frames))
    return dots


def _sum_slots(x: Tensor, values: Tensor, index: GraphIndex, sign: int, hops: int, lengths: Tensor | None, diagonal: Tensor | None) -> Tensor:
    """y[t, j] = Σ over the slots s to j of values[s, t] x[t + offset[s], src[s]]; for sign -1, from j, of values[s, u] x[u, dst[s]] at
    u = t - offset[s]."""
    B, T, J, C = x.shape
    y = empty(B, T, J, C, dtype=x.dtype)
    compute = torch.promote_types(x.dtype, torch.float32)
    own = _nothing(3, compute) if diagonal is None else diagonal.to(compute)
    plan = plan_of(index, sum_plan, sign, J, diagonal is not None)
    values = _unrepeated(values)
    if values.dtype not in _HALF or compute != torch.float32:
        values = values.to(compute)
    # A large result has left the caches before anybody reads it, and need not be read into them before it is written.
    stream = int(y.nbytes >= _STREAMED and C * y.itemsize % LINE == 0)
    run_ranges(_sum_tiles, B * -(-T // TILE), x, values, own, y, _packed(x), frame_counts(lengths, B, T), *plan, sign, hops, stream, WIDTH)
    return y


def _sum_edges(x: Tensor, values: Tensor, ptr: Tensor, order: Tensor, nodes: Tensor, diagonal: Tensor | None) -> Tensor:
    """y[j] = Σ over the edges e of j of values[e] x[the node at its other end], for an edge list.  # x [B, 1, N, C], values [B, E, 1]"""
    B, _, N, C = x.shape
    y = empty(B, 1, N, C, dtype=x.dtype)
    compute = torch.promote_types(x.dtype, torch.float32)
    own = _nothing(3, compute) if diagonal is None else diagonal.to(compute)
    with_self = () if diagonal is None else (0,)
    vectors = (0,) * (MOST_VECTORS if len(WIDTH) == 4 and VECTORS * 64 // compute.itemsize < C else VECTORS)
    run_ranges(_sum_nodes, B * N, x, _unrepeated(values).to(compute), own, y, ptr, order, nodes, WIDTH, vectors, with_self)
    return y


def _unrepeated(values: Tensor) -> Tensor:
    """Edge values of one walk if all walks share them, and of the frames of a tile if all frames do.  # [B, P, T] -> [1 or B, P, T or TILE]"""
    values = values[:1] if values.stride(0) == 0 else values
    return values[..., :TILE] if values.stride(2) == 0 else values


def _dot_slots(
    q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None, with_nodes: bool
) -> tuple[Tensor, Tensor]:
    """The products at the edges; and at the nodes where asked for, which are slots like others here: from each joint to itself, after the edges'."""
    B, T, J, C = q.shape
    compute = torch.promote_types(q.dtype, torch.float32)
    made = dtype if dtype in _HALF and compute == torch.float32 else compute
    edges, own = empty(B, index.num_slots, T, dtype=made), empty(B, T, J if with_nodes else 0, dtype=made)
    lanes = len(WIDTH) * 16 // compute.itemsize
    channels = -(-C // (VECTORS * lanes)) * VECTORS * lanes  # of a packed row
    plan = plan_of(index, dot_plan, 1, J, with_nodes, dots_at_once(lanes), hops, channels)
    run_ranges(_dot_tiles, B * -(-T // TILE), q, k, edges, own, _packed(q), frame_counts(lengths, B, T), *plan, channels, hops, WIDTH)
    return edges.to(dtype or made), own.to(dtype or made)


def _dot_edges(q: Tensor, k: Tensor, index: GraphIndex, dtype: torch.dtype | None) -> Tensor:
    """The products at the edges of an edge list.  # [B, 1, N, C] twice -> [B, E, 1]"""
    B, _, N, _ = q.shape
    values = empty(B, len(index.src), 1, dtype=torch.promote_types(q.dtype, torch.float32))
    run_ranges(_dot_nodes, B * N, q.to(values.dtype), k.to(values.dtype), values, index.dst_ptr, index.dst_order, index.sender_nodes, WIDTH)
    return values.to(dtype or values.dtype)


def _packed(x: Tensor) -> Tensor:
    """Nothing, in the type in which features are packed: of bfloat16, which takes the kernels no instruction more to read, that itself."""
    return _nothing(1, x.dtype if x.dtype == torch.bfloat16 else torch.promote_types(x.dtype, torch.float32))


def frame_counts(lengths: Tensor | None, B: int, T: int) -> Tensor:
    return _all_frames(B, T) if lengths is None else lengths.long().clamp(0, T)


@functools.lru_cache(64)
def _all_frames(B: int, T: int) -> Tensor:
    return torch.from_numpy(np.full(B, T, np.int64))


@functools.cache
def _nothing(dimensions: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((0,) * dimensions, dtype=dtype)


@compile_loops
def _sum_tiles(first, last, x, values, own, y, packed, lengths, offset, slot_place, own_place, pieces, bounds, sign, reach, stream, width):
    _, T, J, C = x.shape
    P = values.shape[1]
    channels = VECTORS * (len(width) * 16 // own.itemsize)  # that are summed at once
    if len(width) == 4 and channels < C:
        channels = MOST_VECTORS * (64 // own.itemsize)
    # Where a frame as it lies in x is what would be packed, only the frames around a walk's ends are.
    in_place = C % channels == 0 and x.itemsize == packed.itemsize
    step, block = (FRAMES, C) if in_place else (TILE, min(_BLOCK // own.itemsize, (C + channels - 1) // channels * channels))
    row = C if in_place else channels  # of a frame as it is packed
    frame, tiles = J * row, (T + TILE - 1) // TILE
    piece = (step + 2 * reach) * frame
    # An odd number of cache lines: a multiple of 4 KiB, as 512 slots make, puts every group into the same few places of the first-level cache.
    line = LINE // own.itemsize
    group = (((len(slot_place) + len(own_place)) * FRAMES + line - 1) // line | 1) * line
    rows, places = (pieces[0] + reach) * frame + pieces[1] * row, pieces[2] * FRAMES
    packed_x = np.empty((block + row - 1) // row * piece + LINE // packed.itemsize, packed.dtype)
    start = -address(packed_x, 0) % LINE // packed.itemsize  # vectors that lie across two lines cost a fourth of the time
    packed_values = np.empty(TILE // FRAMES * group, own.dtype)
    # With every joint a little is fetched of what comes next, the next tile's values and features of later frames: waiting for it takes up to a fifth
    # of the time. Of the values so many slots that a whole tile's joints and frames suffice for all, and of each a frame more: 32 frames mostly begin
    # amid a line.
    share = (P + J * TILE - 1) // (J * TILE) * FRAMES
    for tile in range(first, last):
        b, t0 = tile // tiles, tile % tiles * TILE
        length = lengths[b]
        frames = min(TILE, length - t0)
        clear(y, (b * T + t0 + max(0, frames)) * J * C, (b * T + min(t0 + TILE, T)) * J * C)
        if frames <= 0:
            continue
        _pack_values(packed_values, group, values, own, b, t0, T, length, offset, slot_place, own_place, sign, width)
        following, fetched = _values_at(values, (tile + 1) // tiles, (tile + 1) % tiles * TILE, T), 0
        for c0 in range(0, C, block):
            count = min(block, C - c0)
            for f0 in range(0, frames, step):
                inside = in_place and t0 + f0 >= reach and t0 + f0 + FRAMES + reach <= length
                if not inside:
                    _pack_features(packed_x, start, x, b, t0 + f0 - reach, step + 2 * reach, length, c0, count, row, width)
                for f in range(f0, min(f0 + step, frames), FRAMES):
                    for c in range(0, count, channels):
                        if inside:
                            source = address(x, (b * T + t0 + f - reach) * frame + c)
                        else:
                            source = address(packed_x, start + c // row * piece + (f - f0) * frame + c % row)
                        for j in range(J):
                            for s in range(fetched, min(fetched + share, P), FRAMES):
                                fetch_rows(values, following + s * values.shape[2], values.shape[2], TILE + 1)
                            fetched += share
                            fetch_rows(x, ((b * T + t0 + f + step + reach) * J + j) * C + c0 + c, J * C, min(channels, count - c))
                            run_sums(
                                width, packed.dtype.type(0), source, packed_values, f // FRAMES * group, rows, places, bounds,
                                j, frame,
                                y, ((b * T + t0 + f) * J + j) * C + c0 + c, J * C, frames - f, count - c, stream,
                            )  # fmt: skip


@compile_loops
def _pack_features(packed, start, x, b, t0, frames, length, c0, count, channels, width):
    """The features of some frames from t0 on, block of channels by block; 0 where no frame exists."""
    _, T, J, C = x.shape
    pair = VECTORS * (len(width) * 16 // max(packed.itemsize, 4))
    for f in range(frames):
        t = t0 + f
        for c in range(0, count, channels):
            at = start + (c // channels * frames + f) * J * channels
            if not 0 <= t < length:
                clear(packed, at, at + J * channels)
                continue
            if channels == C:  # the joints lie side by side in x too
                for v in range(0, J * C, pair):
                    pack_channels(width, x, (b * T + t) * J * C + v, packed, at + v, pair)
                continue
            for i in range(J):
                for v in range(c, min(c + channels, count), pair):
                    pack_channels(width, x, ((b * T + t) * J + i) * C + c0 + v, packed, at + i * channels + v - c, count - v)


@compile_loops
def _pack_values(packed, group, values, own, b, t0, T, length, offset, slot_place, own_place, sign, width):
    """The edge values of a tile in the order of the sums; 0 where no edge exists. Read in the order of memory."""
    P, row = values.shape[1:]
    start = _values_at(values, b, t0, T)
    for s in range(P):
        shift = sign * offset[s]
        lo, hi = max(0, -shift - t0), min(TILE, length - t0, length - shift - t0)
        # Of an edge into frame t the value stands at t; of one out of it (sign -1) where it ends, at t + shift.
        at = start + s * row + (shift if sign < 0 and row == T else 0)
        pack_tile(width, values, at, packed, slot_place[s] * FRAMES, group, lo, hi)
    for f in range(TILE if len(own_place) > 0 else 0):
        at = f // FRAMES * group + f % FRAMES
        for j in range(len(own_place)):
            packed[at + own_place[j] * FRAMES] = own[b, t0 + f, j] if t0 + f < length else 0


@compile_loops
def _values_at(values, b, t0, T):
    """Where the values of a walk's tile begin, be they its own or shared (see `_unrepeated`)."""
    P, row = values.shape[1:]
    return (b * P * row if len(values) > 1 else 0) + (t0 if row == T else 0)


@compile_loops
def _sum_nodes(first, last, x, values, own, y, ptr, order, nodes, width, vectors, with_self):
    (N, C), E = x.shape[2:], values.shape[1]
    channels = len(vectors) * lanes_of(width, values)
    for n in range(first, last):
        b, j = n // N, n % N
        mine = own[b, 0, j] if len(with_self) == 1 else values.dtype.type(0)
        for c in range(0, C, channels):
            weighted_sum(
                width, vectors, with_self, x, b * N * C + c, y, n * C + c, values, b * E if len(values) > 1 else 0,
                order, nodes, row_of(ptr, j) - ptr[j], C, ptr[j], ptr[j + 1], mine, C - c,
            )  # fmt: skip


@compile_loops
def _dot_tiles(first, last, q, k, edges, own, packed, lengths, offset, rows, slots, bounds, channels, reach, width):
    _, T, J, C = q.shape
    P, nodes, size = edges.shape[1], own.shape[2], packed.itemsize
    frame, tiles = J * channels, (T + TILE - 1) // TILE
    share = (P + J * TILE - 1) // (J * TILE) * FRAMES  # see `_sum_tiles`
    # Where a frame as it lies in q and k is what would be packed, only the frames around a walk's ends are.
    in_place = channels == C and q.itemsize == size
    step = FRAMES if in_place else TILE
    packed_q, packed_k = np.empty(step * frame + LINE // size, packed.dtype), np.empty((step + 2 * reach) * frame + LINE // size, packed.dtype)
    q_start, k_start = -address(packed_q, 0) % LINE // size, -address(packed_k, 0) % LINE // size
    at_ends, at_nodes = np.empty(P * FRAMES, edges.dtype), np.empty(nodes * TILE, edges.dtype)
    inside_places, end_places = np.empty(P + nodes, np.int64), np.empty(P + nodes, np.int64)
    for s in range(P):
        end_places[s] = address(at_ends, s * FRAMES)
    for j in range(nodes):
        inside_places[P + j] = address(at_nodes, j * TILE)
    for tile in range(first, last):
        b, t0 = tile // tiles, tile % tiles * TILE
        length = lengths[b]
        frames = min(TILE, length - t0)
        end, tile_end = t0 + max(0, frames), min(t0 + TILE, T)
        for s in range(P):
            inside_places[s] = address(edges, (b * P + s) * T + t0)
            if end < tile_end:
                clear(edges, (b * P + s) * T + end, (b * P + s) * T + tile_end)
        following, fetched = (tile + 1) // tiles * P * T + (tile + 1) % tiles * TILE, 0
        for f0 in range(0, frames, step):
            t = t0 + f0
            # What is read beyond the ends of a walk, another walk's frames, goes into products that are left out.
            read_in_place = in_place and b * T + t >= reach and b * T + t + FRAMES + reach <= len(q) * T
            if not read_in_place:
                _pack_features(packed_q, q_start, q, b, t, step, length, 0, C, channels, width)
                _pack_features(packed_k, k_start, k, b, t - reach, step + 2 * reach, length, 0, C, channels, width)
            for f in range(f0, min(f0 + step, frames), FRAMES):
                t = t0 + f
                q_from, k_from = address(packed_q, q_start + (f - f0) * frame), address(packed_k, k_start + (f - f0) * frame)
                if read_in_place:
                    q_from, k_from = address(q, (b * T + t) * frame), address(k, (b * T + t - reach) * frame)
                inside = t >= reach and t + FRAMES + reach <= length
                places, shift = (inside_places, f) if inside else (end_places, 0)
                for j in range(0 if inside else nodes):
                    end_places[P + j] = address(at_nodes, j * TILE + f)
                for j in range(J):
                    # Read before they are written, the results' lines too are there when the next tile writes them.
                    for s in range(fetched, min(fetched + share, P), FRAMES):
                        fetch_rows(edges, following + s * T, T, TILE + 1)
                    fetched += share
                    fetch_rows(q, ((b * T + t + step) * J + j) * C, J * C, C)
                    fetch_rows(k, ((b * T + t + step + reach) * J + j) * C, J * C, C)
                    dot_products(
                        width, packed.dtype.type(0), edges.dtype.type(0), q_from + j * channels * size, k_from, places, shift,
                        rows, slots, bounds, j, frame, channels,
                    )  # fmt: skip
                if not inside:
                    _copy_existing(at_ends, edges, b, t, length, offset)
        for f in range(min(TILE, T - t0) if nodes > 0 else 0):
            for j in range(nodes):
                own[b, t0 + f, j] = at_nodes[j * TILE + f] if f < frames else 0


@compile_loops
def _copy_existing(at_ends, edges, b, t, length, offset):
    """The products of FRAMES frames at a walk's end to their places; 0 where no edge exists."""
    P, T = edges.shape[1:]
    for s in range(P):
        lo, hi = max(0, -offset[s] - t), min(length - t, length - offset[s] - t)
        pack_frames(at_ends, s * FRAMES, edges, (b * P + s) * T + t, lo, hi, min(FRAMES, T - t))


@compile_loops
def row_of(ptr, joint):
    """Where the other ends of a joint's slots stand: see `GraphIndex`."""
    return (ptr[joint] + 3 * joint) // 4 * 4


@compile_loops
def most_edges(ptr):
    """The most slots that a joint has."""
    most = 0
    for j in range(len(ptr) - 1):
        most = max(most, ptr[j + 1] - ptr[j])
    return most


@compile_loops
def _dot_nodes(first, last, q, k, values, ptr, order, nodes, width):
    """The products of an edge list: of one node with all that it has edges from."""
    N, C = q.shape[2:]
    room = most_edges(ptr) + lanes_of(width, values)  # read and written by whole vectors
    dots, rows, none = np.empty(room, values.dtype), np.zeros(room, np.int64), values.dtype.type(0)
    for node in range(first, last):
        b, j = node // N, node % N
        begin, count = row_of(ptr, j), ptr[j + 1] - ptr[j]
        for i in range(count):
            rows[i] = nodes[begin + i] * C
        row_products(width, (0,), (), k, b * N * C, rows, count, q, node * C, q, 0, none, (), 0, (), 1, C, dots)
        for i in range(count):
            values[b, order[ptr[j] + i], 0] = dots[i]


@compile_sums
def _dot_rows(first, last, a, b, dots, channels, lengths):
    T, rows = len(dots) // len(lengths), dots.shape[1]
    for frame in range(first, last):
        if frame % T >= lengths[frame // T]:
            clear(dots, frame * rows, (frame + 1) * rows)
            continue
        for row in range(rows):
            at = (frame * rows + row) * channels
            left, right = a[at : at + channels], b[at : at + channels]
            total = dots.dtype.type(0)
            for c in range(channels):
                total += left[c] * right[c]
            dots[frame, row] = total
