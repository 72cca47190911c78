"""GATv2 attention on the CPU: scores, softmax and sum of a node in one go, so that nothing of edge size is stored.

The backward goes over the nodes twice, once as receivers and once as senders; each time a thread writes only to the nodes that it goes over.
(`hops` is for the GPU's kernels.)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, exp
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import VECTORS, clear, leaky_sums, row_products, weighted_sum
from fastst.cpu.products import WIDTH, frame_counts, node_dot
from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

_NODES = 32  # that a thread goes over at once, and that share one piece of att's gradient: its sum does not depend on the threads


def attend(
    x_src: Tensor, x_dst: Tensor, att: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """y and log Σ exp of the scores into every node (-inf without edges).  # [B, T, J, C], [B, T, J, heads]; float32 or float64"""
    B, T, J, C = x_src.shape
    y, log_sum = empty(B, T, J, C, dtype=x_src.dtype), empty(B, T, J, len(att), dtype=x_src.dtype)
    receivers = _receivers(index, lengths, B, T)
    run_ranges(_forward, _pieces(B * T * J), x_src, x_dst, att, y, log_sum.view(-1), *receivers, negative_slope, WIDTH)
    return y, log_sum


def attend_backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x_src, x_dst and att."""
    B, T, J, C = x_src.shape
    dsrc, ddst = empty(B, T, J, C, dtype=x_src.dtype), empty(B, T, J, C, dtype=x_src.dtype)
    pieces = _pieces(B * T * J)
    datt = x_src.new_zeros(pieces, *att.shape)
    mean = node_dot(y, dy, len(att), lengths)  # Σ α dα over the edges into a node, which is y · dy
    given = [v.contiguous() for v in (x_src, x_dst, att, dy, log_sum.reshape(-1), mean.view(-1))]
    receivers = _receivers(index, lengths, B, T)
    run_ranges(_backward_receivers, pieces, *given, ddst, datt, *receivers, negative_slope, WIDTH)
    senders = index.src_ptr, index.src_order, index.dst, -index.offset, receivers[-2], _places(index.src_ptr)
    run_ranges(_backward_senders, pieces, *given, dsrc, *senders, negative_slope, WIDTH)
    return dsrc, ddst, datt.sum(0)


def _pieces(nodes: int) -> int:
    return -(-nodes // _NODES)


def _receivers(index: GraphIndex, lengths: Tensor | None, B: int, T: int) -> tuple[Tensor, ...]:
    return index.dst_ptr, index.dst_order, index.src, index.offset, frame_counts(lengths, B, T), _places(index.dst_ptr)


def _places(ptr: Tensor) -> Tensor:
    """0, 1, … for the edges of a node, by more than a vector too many."""
    return torch.arange(int((ptr[1:] - ptr[:-1]).max()) + 16)


@compile_loops
def _neighbours(node, T, J, ptr, order, neighbour, shift, lengths, found):
    """The nodes at the other ends of a node's edges; returns how many."""
    b, t, j = node // (T * J), node // J % T, node % J
    count = 0
    if t < lengths[b]:
        for i in range(ptr[j], ptr[j + 1]):
            s = order[i]
            if 0 <= t + shift[s] < lengths[b]:
                found[count] = (b * T + t + shift[s]) * J + neighbour[s]
                count += 1
    return count


@compile_loops
def _products(leaky, x, offsets, count, fixed, fixed_at, att, att_at, slope, channels, out, width):
    lanes = len(width) * 16 // x.itemsize
    for first in range(0, count, lanes):
        row_products(width, leaky, x, offsets, first, count, fixed, fixed_at, att, att_at, slope, channels, out)


@compile_loops
def _weighted_rows(values, x, offsets, places, count, y, y_at, channels, width):
    """y = Σ values[i] · the row at offsets[i]."""
    step = VECTORS * (len(width) * 16 // x.itemsize)
    for c in range(0, channels, step):
        weighted_sum(width, (), x, c, y, y_at + c, values, 0, offsets, places, 0, count, x.dtype.type(0), channels - c)


@compile_loops
def _buffers(places, kind):
    """For the edges of a node: their other ends, the offsets of those's features, and two values; as long as `places`."""
    most = len(places)
    return np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, kind), np.empty(most, kind)


@compile_loops
def _forward(first, last, x_src, x_dst, att, y, log_sum, ptr, order, src, offset, lengths, places, negative_slope, width):
    _, T, J, C = x_src.shape
    H, channels = att.shape
    slope = att.dtype.type(negative_slope)
    ends, offsets, score, _ = _buffers(places, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        count = _neighbours(node, T, J, ptr, order, src, offset, lengths, ends)
        for h in range(H):
            at = node * C + h * channels
            for i in range(count):
                offsets[i] = ends[i] * C + h * channels
            _products((0,), x_src, offsets, count, x_dst, at, att, h * channels, slope, channels, score, width)
            largest = att.dtype.type(-math.inf)
            for i in range(count):
                largest = score[i] if score[i] > largest or score[i] != score[i] else largest
            total = att.dtype.type(0)
            for i in range(count):
                score[i] = exp(score[i] - largest)
            for i in range(count):
                total += score[i]
            log_sum[node * H + h] = largest + math.log(total) if count > 0 else largest
            inverse = 1 / total
            for i in range(count):
                score[i] *= inverse
            _weighted_rows(score, x_src, offsets, places, count, y, at, channels, width)


@compile_loops
def _backward_receivers(
    first, last, x_src, x_dst, att, dy, log_sum, mean, ddst, datt, ptr, order, src, offset, lengths, places, negative_slope, width
):
    _, T, J, C = x_src.shape
    H, channels = att.shape
    slope, step = att.dtype.type(negative_slope), VECTORS * (len(width) * 16 // att.itemsize)
    ends, offsets, score, through = _buffers(places, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        clear(ddst, node * C, (node + 1) * C)
        count = _neighbours(node, T, J, ptr, order, src, offset, lengths, ends)
        for h in range(H):
            at, head = node * C + h * channels, h * channels
            for i in range(count):
                offsets[i] = ends[i] * C + head
            _products((0,), x_src, offsets, count, x_dst, at, att, head, slope, channels, score, width)
            _products((), x_src, offsets, count, dy, at, att, head, slope, channels, through, width)
            total, average = log_sum[node * H + h], mean[node * H + h]
            for i in range(count):
                through[i] = exp(score[i] - total) * (through[i] - average)
            for c in range(0, channels, step):
                leaky_sums(
                    width, (0,), x_src, c, offsets, count, x_dst, at + c, through, slope, att, head + c,
                    ddst, at + c, datt, node // _NODES * C + head + c, channels - c,
                )  # fmt: skip


@compile_loops
def _backward_senders(first, last, x_src, x_dst, att, dy, log_sum, mean, dsrc, ptr, order, dst, shift, lengths, places, negative_slope, width):
    _, T, J, C = x_src.shape
    H, channels = att.shape
    slope, step = att.dtype.type(negative_slope), VECTORS * (len(width) * 16 // att.itemsize)
    ends, offsets, alpha, through = _buffers(places, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        count = _neighbours(node, T, J, ptr, order, dst, shift, lengths, ends)
        for h in range(H):
            at, head = node * C + h * channels, h * channels
            for i in range(count):
                offsets[i] = ends[i] * C + head
            _products((0,), x_dst, offsets, count, x_src, at, att, head, slope, channels, alpha, width)
            _products((), dy, offsets, count, x_src, at, att, head, slope, channels, through, width)
            for i in range(count):
                alpha[i] = alpha[i] - log_sum[ends[i] * H + h]
                through[i] = through[i] - mean[ends[i] * H + h]
            for i in range(count):
                alpha[i] = exp(alpha[i])
                through[i] *= alpha[i]
            _weighted_rows(alpha, dy, offsets, places, count, dsrc, at, channels, width)
            for c in range(0, channels, step):
                leaky_sums(
                    width, (), x_dst, c, offsets, count, x_src, at + c, through, slope, att, head + c,
                    dsrc, at + c, dsrc, 0, channels - c,
                )  # fmt: skip
