"""Attention along joints or frames on the CPU: of a block of queries and one of keys the scores stay in the cache, and no transpose is ever stored.

Scores lie with the queries side by side, so that a softmax is one of whole vectors, and rows of weights are what products read number by number.
The backward makes the scores again, from log Σ exp.
"""

from __future__ import annotations

import math
from typing import Any

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


@compile_loops
def _forward(first, last, of_q, of_k, of_v, strides, y, log_sum, lengths, heads, along_frames, window, scale, width):
    _, T, J, C = y.shape
    kind, size, channels = y.dtype.type, y.itemsize, C // heads
    scale, one = kind(scale), kind(1)
    lanes: int = lanes_of(width, y)
    queries, pitch = 4 * lanes, (channels + lanes - 1) // lanes * lanes
    outer, inner, row = (J, T, J * C) if along_frames else (T, J, C)
    along, across = (1, 2) if along_frames else (2, 1)  # of the strides of a tensor
    across_q, across_k, along_v = room_for(pitch * queries, kind), room_for(pitch * _KEYS, kind), room_for(pitch * _KEYS, kind)
    score, out = room_for(_KEYS * queries, kind), room_for(queries * pitch, kind)
    largest, total, factor = room_for(queries, kind), room_for(queries, kind), room_for(queries, kind)
    log_sums = log_sum.reshape(-1)
    for piece in range(first, last):
        b, o = piece // outer, piece % outer
        length = lengths[b]
        if not along_frames and o >= length:
            continue
        S = length if along_frames else J
        reach = window if window >= 0 else S
        place = (b * T * J + (o if along_frames else o * J)) * C
        for h in range(heads):
            q = address(of_q, b * strides[0] + o * strides[across] + h * channels)
            k = address(of_k, b * strides[3] + o * strides[3 + across] + h * channels)
            v = address(of_v, b * strides[6] + o * strides[6 + across] + h * channels)
            q_row, k_row, v_row = strides[along], strides[3 + along], strides[6 + along]
            for i0 in range(0, S, queries):
                n = min(queries, S - i0)
                columns = (n + lanes - 1) // lanes * lanes
                pack_rows(width, y, q + i0 * q_row * size, q_row, n, channels, address(across_q, 0), queries, 0, 0)
                for x in range(queries):
                    largest[x], total[x] = -np.inf, 0
                begin, end = max(0, i0 - reach), min(S, i0 + n + reach)
                for j0 in range(begin, end, _KEYS):
                    keys, again = min(_KEYS, end - j0), 1 if j0 > begin else 0
                    pack_rows(width, y, k + j0 * k_row * size, k_row, keys, channels, address(across_k, 0), _KEYS, 0, 0)
                    pack_rows(width, y, v + j0 * v_row * size, v_row, keys, channels, 0, 0, address(along_v, 0), pitch)
                    for c in range(0, columns, VECTORS * lanes):
                        tile_products(
                            width, y, address(across_k, 0), 1, _KEYS, address(across_q, c), queries, channels, address(score, c), queries,
                            keys, min(VECTORS * lanes, columns - c), 0,
                        )  # fmt: skip
                    if window >= 0:
                        _hide(score, j0 - i0, keys, window, queries, columns)
                    weigh_columns(
                        width, y, address(score, 0), keys, queries, columns, scale,
                        address(largest, 0), address(total, 0), address(factor, 0),
                    )  # fmt: skip
                    if again:
                        scale_rows(width, y, address(out, 0), pitch, address(factor, 0), address(out, 0), pitch, n, pitch)
                    for c in range(0, channels, VECTORS * lanes):
                        tile_products(
                            width, y, address(score, 0), 1, queries, address(along_v, c), pitch, keys, address(out, c), pitch,
                            n, min(VECTORS * lanes, pitch - c), again,
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
    _, T, J, C = dq.shape
    kind, size, channels = dq.dtype.type, dq.itemsize, C // heads
    scale = kind(scale)
    lanes: int = lanes_of(width, dq)
    queries, pitch = 4 * lanes, (channels + lanes - 1) // lanes * lanes
    outer, inner, row = (J, T, J * C) if along_frames else (T, J, C)
    along, across = (1, 2) if along_frames else (2, 1)  # of the strides of a tensor
    across_q, along_q = room_for(pitch * queries, kind), room_for(pitch * queries, kind)
    across_dy, along_dy, across_y = room_for(pitch * queries, kind), room_for(pitch * queries, kind), room_for(pitch * queries, kind)
    across_k, along_k, across_v = room_for(pitch * _KEYS, kind), room_for(pitch * _KEYS, kind), room_for(pitch * _KEYS, kind)
    score, through = room_for(_KEYS * queries, kind), room_for(_KEYS * queries, kind)
    shift, less = room_for(queries, kind), room_for(queries, kind)
    log_sums = log_sum.reshape(-1)
    for piece in range(first, last):
        b, o = piece // outer, piece % outer
        length = lengths[b]
        if not along_frames and o >= length:
            continue
        S = length if along_frames else J
        reach = window if window >= 0 else S
        place = (b * T * J + (o if along_frames else o * J)) * C
        for h in range(heads):
            q = address(of_q, b * strides[0] + o * strides[across] + h * channels)
            k = address(of_k, b * strides[3] + o * strides[3 + across] + h * channels)
            v = address(of_v, b * strides[6] + o * strides[6 + across] + h * channels)
            dy = address(of_dy, b * strides[9] + o * strides[9 + across] + h * channels)
            y = address(of_y, b * strides[12] + o * strides[12 + across] + h * channels)
            q_row, k_row, v_row, dy_row, y_row = strides[along], strides[3 + along], strides[6 + along], strides[9 + along], strides[12 + along]
            for j0 in range(0, S, _KEYS):
                keys = min(_KEYS, S - j0)
                pack_rows(width, dq, k + j0 * k_row * size, k_row, keys, channels, address(across_k, 0), _KEYS, address(along_k, 0), pitch)
                pack_rows(width, dq, v + j0 * v_row * size, v_row, keys, channels, address(across_v, 0), _KEYS, 0, 0)
                begin, end = max(0, j0 - reach), min(S, j0 + keys + reach)
                for i0 in range(begin, end, queries):
                    n = min(queries, end - i0)
                    columns = (n + lanes - 1) // lanes * lanes
                    pack_rows(width, dq, q + i0 * q_row * size, q_row, n, channels, address(across_q, 0), queries, address(along_q, 0), pitch)
                    pack_rows(width, dq, dy + i0 * dy_row * size, dy_row, n, channels, address(across_dy, 0), queries, address(along_dy, 0), pitch)
                    pack_rows(width, dq, y + i0 * y_row * size, y_row, n, channels, address(across_y, 0), queries, 0, 0)
                    column_dots(width, dq, address(across_y, 0), address(across_dy, 0), channels, queries, columns, address(less, 0))
                    at = ((b * heads + h) * outer + o) * inner + i0
                    for x in range(n):
                        shift[x] = log_sums[at + x]
                    for x in range(n, columns):  # of queries that don't exist
                        shift[x] = 0
                    j1, j2 = max(0, i0 - reach - j0), min(keys, i0 + n + reach - j0)  # the keys of the block that these queries see
                    for c in range(0, columns, VECTORS * lanes):
                        count = min(VECTORS * lanes, columns - c)
                        tile_products(
                            width, dq, address(across_k, j1), 1, _KEYS, address(across_q, c), queries, channels,
                            address(score, j1 * queries + c), queries, j2 - j1, count, 0,
                        )  # fmt: skip
                        tile_products(
                            width, dq, address(across_v, j1), 1, _KEYS, address(across_dy, c), queries, channels,
                            address(through, j1 * queries + c), queries, j2 - j1, count, 0,
                        )  # fmt: skip
                    pull_columns(
                        width, dq, address(score, j1 * queries), address(through, j1 * queries), j2 - j1, queries, columns, scale,
                        address(shift, 0), address(less, 0), j0 + j1 - i0, reach,
                    )  # fmt: skip
                    again = 1 if window >= 0 or i0 > begin else 0
                    for c in range(0, channels, VECTORS * lanes):
                        count, at = min(VECTORS * lanes, channels - c), place + (j0 + j1) * row + h * channels + c
                        tile_products(
                            width, dq, address(score, j1 * queries), queries, 1, address(along_dy, c), pitch, n,
                            address(dv, at), row, j2 - j1, count, again,
                        )  # fmt: skip
                        tile_products(
                            width, dq, address(through, j1 * queries), queries, 1, address(along_q, c), pitch, n,
                            address(dk, at), row, j2 - j1, count, again,
                        )  # fmt: skip
                        tile_products(
                            width, dq, address(through, j1 * queries), 1, queries, address(along_k, j1 * pitch + c), pitch, j2 - j1,
                            address(dq, place + i0 * row + h * channels + c), row, n, count, 1 if S > _KEYS else 0,
                        )  # fmt: skip
