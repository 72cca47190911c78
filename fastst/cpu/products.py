"""The three sparse products on the CPU: A x, Aᵀ y, and q kᵀ at the edges. Same contract as `fastst.ops.sparse`.

A tile is four frames of one walk. Away from a walk's ends all its edges exist, and a micro-kernel runs over the slots of each joint with the
sums in registers; at the ends, and for an edge list, it runs frame by frame over the edges that do exist. Both add in the same order.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.microkernel import accumulators, dot_products, native_width, weighted_sum
from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

WIDTH = native_width()
_FRAMES = 4
_BITS = {torch.bfloat16: (torch.int16, np.int16), torch.float16: (torch.int16, np.uint16)}


def gather_sum(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """y[t, dst] = Σ values[p, t] x[t + offset, src] (+ diagonal[t, dst] x[t, dst])."""
    offset = index.offset.long()
    return _product(x, values, index.dst_ptr, index.dst_order.long(), index.src, offset, torch.zeros_like(offset), lengths, diagonal)


def scatter_sum(y: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """x[s, src] = Σ values[p, s - offset] y[s - offset, dst] (+ diagonal[s, src] y[s, src])."""
    offset = index.offset.long()
    return _product(y, values, index.src_ptr, index.src_order.long(), index.dst, -offset, -offset, lengths, diagonal)


def edge_dot(q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None) -> Tensor:
    """values[p, t] = q[t, dst] · k[t + offset, src]; 0 where no edge exists, at least float32."""
    B, T, J, C = q.shape
    values = torch.empty(B, len(index.src), T, dtype=torch.promote_types(q.dtype, torch.float32))
    order = index.dst_order.long()
    shift = index.offset.long()[order]
    k_offset = (shift * J + index.src[order]) * C
    arrays = [_array(v) for v in (q, k, values, index.dst_ptr, shift, k_offset, order * T, _frame_counts(lengths, B, T))]
    run_ranges(_dot_tiles, B * _tiles(T), *arrays, hops, WIDTH)
    return values


def _product(
    x: Tensor,
    values: Tensor,
    ptr: Tensor,
    order: Tensor,
    neighbour: Tensor,
    shift: Tensor,
    values_shift: Tensor,
    lengths: Tensor | None,
    diagonal: Tensor | None,
) -> Tensor:
    """y[t, j] = Σ over the slots s of j of values[s, t + values_shift[s]] x[t + shift[s], neighbour[s]]."""
    B, T, J, C = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    compute = torch.promote_types(x.dtype, torch.float32)
    own = torch.zeros(0, 0, 0, dtype=compute) if diagonal is None else diagonal.to(compute)
    shift = shift[order]
    x_offset = (shift * J + neighbour[order]) * C
    values_offset = order * T + values_shift[order]
    reach = int(shift.abs().max()) if len(shift) else 0
    arrays = [_array(v) for v in (x, values.to(compute), y, own, ptr, shift, x_offset, values_offset, _frame_counts(lengths, B, T))]
    run_ranges(_sum_tiles, B * _tiles(T), *arrays, reach, WIDTH, (0,) * accumulators(len(WIDTH)), () if diagonal is None else (0,))
    return y


def _array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory, contiguous; half precision as the bits that the micro-kernels know."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype in _BITS:
        bits, kind = _BITS[tensor.dtype]
        return tensor.view(bits).numpy().view(kind)
    return tensor.numpy()


def _frame_counts(lengths: Tensor | None, B: int, T: int) -> Tensor:
    return torch.full((B,), T) if lengths is None else lengths.long().clamp(0, T)


def _tiles(T: int) -> int:
    return -(-T // _FRAMES)


@numba.njit(nogil=True, cache=True)
def _sum_tiles(first, last, x, values, y, own, ptr, shift, x_offset, values_offset, lengths, reach, width, vectors, with_self):
    _, T, J, C = x.shape
    tiles, frame_size = (T + 3) // 4, J * C
    near_x, near_values = np.empty(len(shift), np.int64), np.empty(len(shift), np.int64)
    mine = np.zeros(4, values.dtype)
    for tile in range(first, last):
        b = tile // tiles
        t0, length = (tile - b * tiles) * 4, lengths[b]
        at, values_at = (b * T + t0) * frame_size, b * values.shape[1] * T + t0
        if t0 >= reach and t0 + 3 + reach < length:
            for j in range(J):
                if len(with_self) == 1:
                    for f in range(4):
                        mine[f] = own[b, t0 + f, j]
                _sum_channels(
                    width, (0, 0, 0, 0), vectors, with_self, x, at, y, at + j * C, values, values_at,
                    x_offset, values_offset, ptr[j], ptr[j + 1], mine, frame_size, C,
                )  # fmt: skip
            continue
        for t in range(t0, min(t0 + 4, T)):
            if t >= length:
                y[b, t] = 0
                continue
            for j in range(J):
                near = 0
                for s in range(ptr[j], ptr[j + 1]):
                    if 0 <= t + shift[s] < length:
                        near_x[near], near_values[near] = x_offset[s], values_offset[s]
                        near += 1
                if len(with_self) == 1:
                    mine[0] = own[b, t, j]
                here = at + (t - t0) * frame_size
                _sum_channels(
                    width, (0,), vectors, with_self, x, here, y, here + j * C, values, values_at + t - t0,
                    near_x, near_values, 0, near, mine, frame_size, C,
                )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _sum_channels(width, frames, vectors, with_self, x, x_at, y, y_at, values, values_at, x_offset, values_offset, lo, hi, own, frame_size, C):
    """All channels of one joint: many vectors at a time, then single ones, then the channels that don't fill a vector."""
    lanes = len(width) * 16 // values.itemsize
    c = 0
    while c + len(vectors) * lanes <= C:
        weighted_sum(
            width, frames, vectors, (), with_self, x, x_at + c, y, y_at + c, values, values_at,
            x_offset, values_offset, lo, hi, own, frame_size, 0,
        )  # fmt: skip
        c += len(vectors) * lanes
    while c + lanes <= C:
        weighted_sum(
            width, frames, (0,), (), with_self, x, x_at + c, y, y_at + c, values, values_at,
            x_offset, values_offset, lo, hi, own, frame_size, 0,
        )  # fmt: skip
        c += lanes
    if c < C:
        weighted_sum(
            width, frames, (0,), (0,), with_self, x, x_at + c, y, y_at + c, values, values_at,
            x_offset, values_offset, lo, hi, own, frame_size, C - c,
        )  # fmt: skip


@numba.njit(nogil=True, cache=True)
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
                        values[b, values_offset[s] // T, t] = 0
                for s in range(0, near, lanes):
                    dot_products(width, (0,), q, here + j * C, k, here, values, values_here, near_k, near_values, s, near, frame_size, C)
