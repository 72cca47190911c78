"""Attention along joints or frames on the CPU: of a block of queries and one of keys the scores stay in the cache, and no transpose is ever stored.

Scores lie with the queries side by side, so that a softmax is one of whole vectors, and rows of weights are what products read number by number.
The backward makes the scores again, from log Σ exp.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend import room_for
from fastst.cpu.functions import compile_loops, log
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import address, lanes_of
from fastst.cpu.products import WIDTH, frame_counts
from fastst.cpu.threads import run_ranges
from fastst.cpu.tiles import VECTORS, column_dots, pack_rows, pull_columns, scale_rows, tile_products, weigh_columns

_INLINE = numba.njit(nogil=True, inline="always")
_KEYS = 256  # in a block; of queries as many as four vectors hold


def attend_axis(q: Tensor, k: Tensor, v: Tensor, heads: int, axis: str, window: int | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and log Σ exp of the scores of every node, in at least float32.  # [B, T, J, C], [B, heads, T, J] or along frames [B, heads, J, T]"""
    B, T, J, C = q.shape
    dtype, kind = torch.promote_types(q.dtype, torch.float32), q.dtype
    q, k, v = (_with_channels_side_by_side(x.to(dtype)) for x in (q, k, v))
    outer, inner = (J, T) if axis == "frames" else (T, J)
    y, log_sum = _fresh(lengths is not None, B, T, J, C, dtype=dtype), _fresh(lengths is not None, B, heads, outer, inner, dtype=dtype)
    run_ranges(_forward, B * outer, *_places(q, k, v), y, log_sum, frame_counts(lengths, B, T), *_sizes(C, heads, axis, window), WIDTH)
    return y.to(kind), log_sum


def attend_axis_backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    axis: str,
    window: int | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    B, T, J, C = q.shape
    kind = q.dtype
    q, k, v, dy, y = (_with_channels_side_by_side(x.to(log_sum.dtype)) for x in (q, k, v, dy, y))
    outer, inner = (J, T) if axis == "frames" else (T, J)
    dq = _fresh(lengths is not None or inner > _KEYS, B, T, J, C, dtype=q.dtype)
    dk, dv = (_fresh(lengths is not None or window is not None, B, T, J, C, dtype=q.dtype) for _ in range(2))
    places = _places(q, k, v, dy, y)
    run_ranges(_backward, B * outer, *places, log_sum, dq, dk, dv, frame_counts(lengths, B, T), *_sizes(C, heads, axis, window), WIDTH)
    return dq.to(kind), dk.to(kind), dv.to(kind)


def _with_channels_side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _places(*tensors: Tensor) -> tuple[Any, ...]:
    """Their memory, each in one row, and the strides of walks, frames and joints: queries, keys and values may lie side by side in one tensor."""
    rows = (x.as_strided((sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1,), (1,)) for x in tensors)
    return *rows, tuple(stride for x in tensors for stride in x.stride()[:3])


def _sizes(channels: int, heads: int, axis: str, window: int | None) -> tuple[int, int, int, float]:
    return heads, int(axis == "frames"), -1 if window is None else window, 1 / math.sqrt(channels // heads)


def _fresh(cleared: bool, *shape: int, dtype: torch.dtype) -> Tensor:
    memory = empty(*shape, dtype=dtype)
    return memory.zero_() if cleared else memory


@_INLINE
def _extents(like, heads, along_frames, width):
    """Queries of a block and the pitch of packed rows of channels; how many rows of nodes a walk has,
    of how many nodes, and how far apart these are; the strides of a tensor along and across a row."""
    _, T, J, C = like.shape
    lanes: int = lanes_of(width, like)
    outer, inner, row = (J, T, J * C) if along_frames else (T, J, C)
    along, across = (1, 2) if along_frames else (2, 1)
    return 4 * lanes, _whole(C // heads, lanes), outer, inner, row, along, across


@_INLINE
def _row_of(piece, like, outer, lengths, along_frames, window):
    """Walk and number of a row, how many of its nodes exist, how far they see, and where it begins."""
    _, T, J, C = like.shape
    b, o = piece // outer, piece % outer
    nodes = lengths[b] if along_frames else (J if o < lengths[b] else 0)
    return b, o, nodes, window if window >= 0 else nodes, (b * T * J + (o if along_frames else o * J)) * C


@_INLINE
def _head(memory, strides, tensor, b, o, across, channel):
    """Where a head of a row begins in one of the tensors."""
    return address(memory, b * strides[3 * tensor] + o * strides[3 * tensor + across] + channel)


@_INLINE
def _whole(count, lanes):
    """So many, and as many more as fill a vector."""
    return (count + lanes - 1) // lanes * lanes


@compile_loops
def _multiply(width, like, a, a_row, a_step, b, b_step, steps, out, out_row, rows, columns, adds):
    """`tile_products` for any number of columns."""
    together: int = VECTORS * lanes_of(width, like)
    for c in range(0, columns, together):
        to, count = c * like.itemsize, min(together, columns - c)
        tile_products(width, like, a, a_row, a_step, b + to, b_step, steps, out + to, out_row, rows, count, adds)


@_INLINE
def _in_vectors(width, like, rows, row, count, channels, room, pitch):
    """Rows of which whole vectors can be read, and how far apart they are: as they lie where the channels fill vectors, else packed."""
    if channels == pitch:
        return rows, row
    pack_rows(width, like, rows, row, count, channels, 0, 0, address(room, 0), pitch)
    return address(room, 0), pitch


@compile_loops
def _forward(first, last, of_q, of_k, of_v, strides, y, log_sum, lengths, heads, along_frames, window, scale, width):
    queries, pitch, outer, inner, row, along, across = _extents(y, heads, along_frames, width)
    kind, size, channels = y.dtype.type, y.itemsize, y.shape[3] // heads
    lanes: int = lanes_of(width, y)
    scale, one, log_sums = kind(scale), kind(1), log_sum.reshape(-1)
    across_q, along_v = room_for(pitch * queries, kind), room_for(pitch * _KEYS, kind)
    score, out = room_for(_KEYS * queries, kind), room_for(queries * pitch, kind)
    largest, total, factor = room_for(queries, kind), room_for(queries, kind), room_for(queries, kind)
    q_row, k_row, v_row = strides[along], strides[3 + along], strides[6 + along]
    for piece in range(first, last):
        b, o, S, reach, place = _row_of(piece, y, outer, lengths, along_frames, window)
        for h in range(heads):
            q = _head(of_q, strides, 0, b, o, across, h * channels)
            k = _head(of_k, strides, 1, b, o, across, h * channels)
            v = _head(of_v, strides, 2, b, o, across, h * channels)
            for i0 in range(0, S, queries):
                n = min(queries, S - i0)
                columns = _whole(n, lanes)
                pack_rows(width, y, q + i0 * q_row * size, q_row, n, channels, address(across_q, 0), queries, 0, 0)
                for x in range(queries):
                    largest[x], total[x] = -np.inf, 0
                begin, end = max(0, i0 - reach), min(S, i0 + n + reach)
                for j0 in range(begin, end, _KEYS):
                    keys, again = min(_KEYS, end - j0), 1 if j0 > begin else 0
                    v_, v_step = _in_vectors(width, y, v + j0 * v_row * size, v_row, keys, channels, along_v, pitch)
                    _multiply(
                        width, y, k + j0 * k_row * size, k_row, 1, address(across_q, 0), queries, channels,
                        address(score, 0), queries, keys, columns, 0,
                    )  # fmt: skip
                    if window >= 0:
                        _hide(score, j0 - i0, keys, window, queries, columns)
                    weigh_columns(
                        width, y, address(score, 0), keys, queries, columns, scale,
                        address(largest, 0), address(total, 0), address(factor, 0),
                    )  # fmt: skip
                    if again:
                        scale_rows(width, y, address(out, 0), pitch, address(factor, 0), address(out, 0), pitch, n, pitch)
                    _multiply(
                        width, y, address(score, 0), 1, queries, v_, v_step, keys, address(out, 0), pitch,
                        n, pitch, again,
                    )  # fmt: skip
                for x in range(queries):
                    factor[x] = one / total[x]
                target = address(y, place + i0 * row + h * channels)
                scale_rows(width, y, address(out, 0), pitch, address(factor, 0), target, row, n, channels)
                at = ((b * heads + h) * outer + o) * inner + i0
                sums = log_sums[at : at + n]
                for x in range(len(sums)):
                    sums[x] = largest[x] * scale + log(total[x])


@compile_loops
def _hide(score, ahead, keys, window, pitch, columns):
    """-inf for the keys that a query does not see; the first key is so many frames ahead of the first query."""
    for j in range(keys):
        row = score[j * pitch : j * pitch + columns]
        for x in range(len(row)):
            row[x] = -np.inf if abs(ahead + j - x) > window else row[x]


@compile_loops
def _backward(first, last, of_q, of_k, of_v, of_dy, of_y, strides, log_sum, dq, dk, dv, lengths, heads, along_frames, window, scale, width):
    queries, pitch, outer, inner, row, along, across = _extents(dq, heads, along_frames, width)
    kind, size, channels = dq.dtype.type, dq.itemsize, dq.shape[3] // heads
    lanes: int = lanes_of(width, dq)
    scale, log_sums = kind(scale), log_sum.reshape(-1)
    across_q, across_dy, across_y = room_for(pitch * queries, kind), room_for(pitch * queries, kind), room_for(pitch * queries, kind)
    along_q, along_dy, along_k = room_for(pitch * queries, kind), room_for(pitch * queries, kind), room_for(pitch * _KEYS, kind)
    score, through = room_for(_KEYS * queries, kind), room_for(_KEYS * queries, kind)
    shift, less = room_for(queries, kind), room_for(queries, kind)
    q_row, k_row, v_row, dy_row, y_row = strides[along], strides[3 + along], strides[6 + along], strides[9 + along], strides[12 + along]
    for piece in range(first, last):
        b, o, S, reach, place = _row_of(piece, dq, outer, lengths, along_frames, window)
        for h in range(heads):
            q = _head(of_q, strides, 0, b, o, across, h * channels)
            k = _head(of_k, strides, 1, b, o, across, h * channels)
            v = _head(of_v, strides, 2, b, o, across, h * channels)
            dy = _head(of_dy, strides, 3, b, o, across, h * channels)
            y = _head(of_y, strides, 4, b, o, across, h * channels)
            for j0 in range(0, S, _KEYS):
                keys = min(_KEYS, S - j0)
                k_, v_ = k + j0 * k_row * size, v + j0 * v_row * size
                packed_k, k_step = _in_vectors(width, dq, k_, k_row, keys, channels, along_k, pitch)
                begin, end = max(0, j0 - reach), min(S, j0 + keys + reach)
                for i0 in range(begin, end, queries):
                    n = min(queries, end - i0)
                    columns = _whole(n, lanes)
                    q_, dy_, y_ = q + i0 * q_row * size, dy + i0 * dy_row * size, y + i0 * y_row * size
                    pack_rows(width, dq, q_, q_row, n, channels, address(across_q, 0), queries, 0, 0)
                    pack_rows(width, dq, dy_, dy_row, n, channels, address(across_dy, 0), queries, 0, 0)
                    pack_rows(width, dq, y_, y_row, n, channels, address(across_y, 0), queries, 0, 0)
                    packed_q, q_step = _in_vectors(width, dq, q_, q_row, n, channels, along_q, pitch)
                    packed_dy, dy_step = _in_vectors(width, dq, dy_, dy_row, n, channels, along_dy, pitch)
                    column_dots(width, dq, address(across_y, 0), address(across_dy, 0), channels, queries, columns, address(less, 0))
                    at = ((b * heads + h) * outer + o) * inner + i0
                    for x in range(columns):
                        shift[x] = log_sums[at + x] if x < n else 0  # of queries that don't exist
                    j1, j2 = max(0, i0 - reach - j0), min(keys, i0 + n + reach - j0)  # the keys of the block that these queries see
                    score_, through_ = address(score, j1 * queries), address(through, j1 * queries)
                    _multiply(
                        width, dq, k_ + j1 * k_row * size, k_row, 1, address(across_q, 0), queries, channels, score_, queries, j2 - j1, columns, 0
                    )  # fmt: skip
                    _multiply(
                        width, dq, v_ + j1 * v_row * size, v_row, 1, address(across_dy, 0), queries, channels, through_, queries, j2 - j1, columns, 0
                    )  # fmt: skip
                    pull_columns(
                        width, dq, score_, through_, j2 - j1, queries, columns, scale, address(shift, 0), address(less, 0), j0 + j1 - i0, reach
                    )  # fmt: skip
                    again, at = 1 if window >= 0 or i0 > begin else 0, place + (j0 + j1) * row + h * channels
                    _multiply(width, dq, score_, queries, 1, packed_dy, dy_step, n, address(dv, at), row, j2 - j1, channels, again)
                    _multiply(width, dq, through_, queries, 1, packed_q, q_step, n, address(dk, at), row, j2 - j1, channels, again)
                    _multiply(
                        width, dq, through_, 1, queries, packed_k + j1 * k_step * size, k_step, j2 - j1,
                        address(dq, place + i0 * row + h * channels), row, n, channels, 1 if S > _KEYS else 0,
                    )  # fmt: skip
