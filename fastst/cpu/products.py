"""The sparse products on the CPU: A x, Aᵀ y, q kᵀ at the edges, and a · b at the nodes. Same contract as `fastst.ops.sparse`.

The sums of a skeleton go over tiles of 32 frames of one walk. What a tile needs is packed first, with zeros where no edge or frame exists, and the
micro-kernel then runs over it without a condition: the edge values of all slots, in the order in which they are summed, and for a few vectors of
channels at a time the features of the tile's frames and of those within reach. Where these vectors are all of the channels, frames lie in x as they
would be packed, and inside a walk they are read there.

Slots of one pair of joints whose offsets follow one another are a run: its rows of features are loaded once for all its slots and for four frames.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, compile_sums
from fastst.cpu.memory import LINE, empty
from fastst.cpu.microkernel import (
    FRAMES,
    MOST_VECTORS,
    RUNS,
    TILE,
    VECTORS,
    address,
    clear,
    dot_products,
    native_width,
    pack_channels,
    pack_frames,
    prefetch,
    run_sums,
    weighted_sum,
)
from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

WIDTH = native_width()
_AHEAD = 8  # slots whose values are fetched while others are packed
_BLOCK = 256  # bytes of channels: with the frames of a tile a piece of memory for the second-level cache
_BITS = {torch.bfloat16: (torch.int16, np.int16), torch.float16: (torch.int16, np.uint16)}


def gather_sum(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """y[t, dst] = Σ values[p, t] x[t + offset, src] (+ diagonal[t, dst] x[t, dst])."""
    if hops == 0:
        return _sum_edges(x, values, index.dst_ptr, index.dst_order, index.src, diagonal)
    return _sum_slots(x, values, index.dst_ptr, index.dst_order, index.src, index.offset, 1, hops, lengths, diagonal)


def scatter_sum(y: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """x[s, src] = Σ values[p, s - offset] y[s - offset, dst] (+ diagonal[s, src] y[s, src])."""
    if hops == 0:
        return _sum_edges(y, values, index.src_ptr, index.src_order, index.dst, diagonal)
    return _sum_slots(y, values, index.src_ptr, index.src_order, index.dst, index.offset, -1, hops, lengths, diagonal)


def edge_dot(q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None) -> Tensor:
    """values[p, t] = q[t, dst] · k[t + offset, src]; 0 where no edge exists, at least float32."""
    B, T, J, C = q.shape
    values = empty(B, len(index.src), T, dtype=torch.promote_types(q.dtype, torch.float32))
    order = index.dst_order.long()
    shift = index.offset.long()[order]
    k_offset = (shift * J + index.src[order]) * C
    arrays = [array(v) for v in (q, k, values, index.dst_ptr, shift, k_offset, order * T, frame_counts(lengths, B, T))]
    run_ranges(_dot_tiles, B * -(-T // FRAMES), *arrays, hops, WIDTH)
    return values


def node_dot(a: Tensor, b: Tensor, heads: int, lengths: Tensor | None) -> Tensor:
    """a · b of every node, head by head; 0 beyond the lengths.  # [B, T, J, C] twice -> [B, T, J, heads], at least float32"""
    B, T, J, C = a.shape
    compute = torch.promote_types(a.dtype, torch.float32)
    dots = empty(B, T, J, heads, dtype=compute)
    rows = (array(v.to(compute)).reshape(-1) for v in (a, b))
    run_ranges(_dot_rows, B * T, *rows, dots.numpy().reshape(B * T, J * heads), C // heads, frame_counts(lengths, B, T).numpy())
    return dots


def _sum_slots(
    x: Tensor,
    values: Tensor,
    ptr: Tensor,
    order: Tensor,
    neighbour: Tensor,
    offset: Tensor,
    sign: int,
    hops: int,
    lengths: Tensor | None,
    diagonal: Tensor | None,
) -> Tensor:
    """y[t, j] = Σ over the slots s of j of values[s, t] x[t + offset[s], neighbour[s]]; for sign -1 values[s, u] x[u, …] with u = t - offset[s]."""
    B, T, J, C = x.shape
    y = empty(B, T, J, C, dtype=x.dtype)
    compute = torch.promote_types(x.dtype, torch.float32)
    own = torch.empty(0, 0, 0, dtype=compute) if diagonal is None else diagonal.to(compute)
    plan = _plan(*(array(v) for v in (ptr, order, neighbour, offset)), sign, diagonal is not None)
    arrays = [array(v) for v in (x, values.to(compute), own, y, frame_counts(lengths, B, T), offset)]
    run_ranges(_sum_tiles, B * -(-T // TILE), *arrays, *plan, sign, hops, WIDTH)
    return y


def _sum_edges(x: Tensor, values: Tensor, ptr: Tensor, order: Tensor, neighbour: Tensor, diagonal: Tensor | None) -> Tensor:
    """y[j] = Σ over the edges e of j of values[e] x[neighbour[e]], for an edge list.  # x [B, 1, N, C], values [B, E, 1]"""
    B, _, N, C = x.shape
    y = empty(B, 1, N, C, dtype=x.dtype)
    compute = torch.promote_types(x.dtype, torch.float32)
    own = torch.empty(0, 0, 0, dtype=compute) if diagonal is None else diagonal.to(compute)
    arrays = [array(v) for v in (x, values.to(compute), own, y, ptr, order.long(), neighbour.long()[order.long()] * C)]
    run_ranges(_sum_nodes, B * N, *arrays, WIDTH, () if diagonal is None else (0,))
    return y


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory, contiguous; half precision as the bits that the micro-kernels know."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype in _BITS:
        bits, kind = _BITS[tensor.dtype]
        return tensor.view(bits).numpy().view(kind)
    return tensor.numpy()


def frame_counts(lengths: Tensor | None, B: int, T: int) -> Tensor:
    return torch.full((B,), T) if lengths is None else lengths.long().clamp(0, T)


@numba.njit(nogil=True, cache=True)
def _plan(ptr, order, neighbour, offset, sign, with_diagonal):
    """The order in which `run_sums` goes over the slots of every joint, the diagonal among them, and the runs in it.

    Returns the place of every slot and of every joint's diagonal in that order; for every run its first shift, its neighbour and its first place;
    and the bounds of the runs of every joint and length.
    """
    J, most = len(ptr) - 1, len(order) + len(ptr)
    slot_place, own_place = np.empty(len(order), np.int64), np.empty(J if with_diagonal else 0, np.int64)
    runs, lengths = np.empty((3, most), np.int64), np.empty(most, np.int64)
    pieces, bounds = np.empty((3, most), np.int64), np.zeros(J * len(RUNS) + 1, np.int64)
    place, count = 0, 0
    for j in range(J):
        i, missing, last = ptr[j], with_diagonal, -1
        while i < ptr[j + 1] or missing:
            shift, joint, s = 0, j, -1
            if i < ptr[j + 1]:
                # A joint's slots are sorted by neighbour, then offset; backwards the shifts rise for sign -1 too.
                s = order[i] if sign > 0 else order[ptr[j] + ptr[j + 1] - 1 - i]
                shift, joint = sign * offset[s], neighbour[s]
            if missing and (s < 0 or (joint == j and shift > 0)):
                shift, joint, missing = 0, j, False
                own_place[j] = place
            else:
                slot_place[s] = place
                i += 1
            if last >= 0 and runs[1, last] == joint and runs[0, last] + lengths[last] == shift:
                lengths[last] += 1
            else:
                last += 1
                runs[0, last], runs[1, last], runs[2, last], lengths[last] = shift, joint, place, 1
            place += 1
        for group, length in enumerate(RUNS):
            for r in range(last + 1):
                while lengths[r] >= length:
                    for part in range(3):  # numba compiles the assignment of one array to another for seconds
                        pieces[part, count] = runs[part, r]
                    count += 1
                    runs[0, r], runs[2, r], lengths[r] = runs[0, r] + length, runs[2, r] + length, lengths[r] - length
            bounds[j * len(RUNS) + group + 1] = count
    return slot_place, own_place, pieces[:, :count], bounds


@compile_loops
def _sum_tiles(first, last, x, values, own, y, lengths, offset, slot_place, own_place, pieces, bounds, sign, reach, width):
    _, T, J, C = x.shape
    channels = VECTORS * (len(width) * 16 // values.itemsize)  # that are summed at once
    if len(width) == 4 and channels < C:
        channels = MOST_VECTORS * (64 // values.itemsize)
    block = min(_BLOCK // values.itemsize, (C + channels - 1) // channels * channels)  # and those that are packed at once
    # Where a frame as it lies in x is what would be packed, only the frames around a walk's ends are.
    in_place = channels == C and x.itemsize == values.itemsize
    step = FRAMES if in_place else TILE
    frame, tiles = J * channels, (T + TILE - 1) // TILE
    piece, group = (step + 2 * reach) * frame, (len(slot_place) + len(own_place)) * FRAMES
    rows, places = (pieces[0] + reach) * frame + pieces[1] * channels, pieces[2] * FRAMES
    packed_x = np.empty(block // channels * piece + LINE // values.itemsize, values.dtype)
    start = -address(packed_x, 0) % LINE // values.itemsize  # vectors that lie across two lines cost a fourth of the time
    packed_values = np.empty(TILE // FRAMES * group, values.dtype)
    for tile in range(first, last):
        b, t0 = tile // tiles, tile % tiles * TILE
        length = lengths[b]
        frames = min(TILE, length - t0)
        clear(y, (b * T + t0 + max(0, frames)) * J * C, (b * T + min(t0 + TILE, T)) * J * C)
        if frames <= 0:
            continue
        _pack_values(packed_values, values, own, b, t0, length, offset, slot_place, own_place, sign, width)
        for c0 in range(0, C, block):
            count = min(block, C - c0)
            for f0 in range(0, frames, step):
                inside = in_place and t0 + f0 >= reach and t0 + f0 + FRAMES + reach <= length
                if not inside:
                    _pack_features(packed_x, start, x, b, t0 + f0 - reach, step + 2 * reach, length, c0, count, channels, width)
                for f in range(f0, min(f0 + step, frames), FRAMES):
                    for c in range(0, count, channels):
                        if inside:
                            source = address(x, (b * T + t0 + f - reach) * frame)
                        else:
                            source = address(packed_x, start + c // channels * piece + (f - f0) * frame)
                        for j in range(J):
                            if inside:
                                for row in range(FRAMES):
                                    for line in range(0, channels, LINE // values.itemsize):
                                        prefetch(x, ((b * T + t0 + f + FRAMES + reach + row) * J + j) * C + line)
                            run_sums(
                                width, source, packed_values, f // FRAMES * group, rows, places, bounds, j, frame,
                                y, ((b * T + t0 + f) * J + j) * C + c0 + c, J * C, frames - f, count - c,
                            )  # fmt: skip


@compile_loops
def _pack_features(packed, start, x, b, t0, frames, length, c0, count, channels, width):
    """The features of some frames from t0 on, block of channels by block; 0 where no frame exists."""
    _, T, J, C = x.shape
    pair = VECTORS * (len(width) * 16 // packed.itemsize)
    for f in range(frames):
        t = t0 + f
        for c in range(0, count, channels):
            at = start + (c // channels * frames + f) * J * channels
            if not 0 <= t < length:
                clear(packed, at, at + J * channels)
                continue
            for i in range(J):
                for v in range(c, min(c + channels, count), pair):
                    pack_channels(width, x, ((b * T + t) * J + i) * C + c0 + v, packed, at + i * channels + v - c, count - v)


@compile_loops
def _pack_values(packed, values, own, b, t0, length, offset, slot_place, own_place, sign, width):
    """The edge values of a tile in the order of the sums; 0 where no edge exists. Read in the order of memory, which is fetched ahead."""
    _, P, T = values.shape
    group = (len(slot_place) + len(own_place)) * FRAMES
    for s in range(P):
        shift = sign * offset[s]
        lo, hi = max(0, -shift - t0), min(TILE, length - t0, length - shift - t0)
        # Of an edge into frame t the value stands at t; of one out of it (sign -1) where it ends, at t + shift.
        at = (b * P + s) * T + t0 + (shift if sign < 0 else 0)
        for ahead in range(0, TILE, 16):
            prefetch(values, at + _AHEAD * T + ahead)
        for f in range(0, TILE, FRAMES):
            pack_frames(values, at + f, packed, f // FRAMES * group + slot_place[s] * FRAMES, lo - f, hi - f)
    for j in range(len(own_place)):
        for f in range(TILE):
            packed[f // FRAMES * group + own_place[j] * FRAMES + f % FRAMES] = own[b, t0 + f, j] if t0 + f < length else 0


@compile_loops
def _sum_nodes(first, last, x, values, own, y, ptr, order, x_offset, width, with_self):
    N, C = x.shape[2:]
    channels = VECTORS * (len(width) * 16 // values.itemsize)
    for n in range(first, last):
        b, j = n // N, n % N
        mine = own[b, 0, j] if len(with_self) == 1 else values.dtype.type(0)
        for c in range(0, C, channels):
            weighted_sum(
                width, with_self, x, b * N * C + c, y, n * C + c, values, b * len(order), x_offset, order, ptr[j], ptr[j + 1], mine, C - c
            )  # fmt: skip


@compile_loops
def _dot_tiles(first, last, q, k, values, ptr, shift, k_offset, values_offset, lengths, reach, width):
    _, T, J, C = q.shape
    tiles, frame_size = (T + 3) // 4, J * C
    lanes = len(width) * 16 // values.itemsize
    near_k, near_values = np.empty(len(shift), np.int64), np.empty(len(shift), np.int64)
    for tile in range(first, last):
        b = tile // tiles
        t0, length = (tile - b * tiles) * 4, lengths[b]
        at, values_at = (b * T + t0) * frame_size, b * values.shape[1] * T + t0
        if t0 >= reach and t0 + 3 + reach < length:
            at_once = max(1, lanes // 4)
            for j in range(J):
                for s in range(ptr[j], ptr[j + 1], at_once):
                    dot_products(width, (0, 0, 0, 0), q, at + j * C, k, at, values, values_at, k_offset, values_offset, s, ptr[j + 1], frame_size, C)
            continue
        for t in range(t0, min(t0 + 4, T)):
            here, values_here = at + (t - t0) * frame_size, values_at + t - t0
            for j in range(J):
                near = 0
                for s in range(ptr[j], ptr[j + 1]):
                    if t < length and 0 <= t + shift[s] < length:
                        near_k[near], near_values[near] = k_offset[s], values_offset[s]
                        near += 1
                    else:
                        clear(values, values_here + values_offset[s], values_here + values_offset[s] + 1)
                for s in range(0, near, lanes):
                    dot_products(width, (0,), q, here + j * C, k, here, values, values_here, near_k, near_values, s, near, frame_size, C)


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
