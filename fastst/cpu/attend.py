"""GATv2 attention on the CPU: scores, softmax and sum of a node in one go, so that nothing of edge size is stored.

The backward goes over the nodes twice, once as receivers and once as senders; each time a thread writes only to the nodes that it goes over.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend_kernels import head_sums, leaky_sums, row_products, subtract_largest, sum_heads
from fastst.cpu.functions import compile_loops, exp
from fastst.cpu.memory import LINE, empty
from fastst.cpu.microkernel import address, lanes_of, vectors_at_once
from fastst.cpu.plans import channel_blocks
from fastst.cpu.products import WIDTH, frame_counts, most_edges, node_dot
from fastst.cpu.threads import run_ranges
from fastst.graph_index import GraphIndex

_NODES = 32  # that a thread goes over at once, and that share one piece of att's gradient: its sum does not depend on the threads


def attend(
    x_src: Tensor, x_dst: Tensor, att: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """y and log Σ exp of the scores into every node (inf where the sum is 0).  # [B, T, J, C], [B, T, J, heads] in at least float32"""
    B, T, J, C = x_src.shape
    dtype, kind = torch.promote_types(x_src.dtype, torch.float32), x_src.dtype
    x_src, x_dst, att = (v.to(dtype) for v in (x_src, x_dst, att))
    y, log_sum = empty(B, T, J, C, dtype=dtype), empty(B, T, J, len(att), dtype=dtype)
    graph = frame_counts(lengths, B, T), hops, index.dst_ptr, index.sender_frames, index.sender_nodes
    run_ranges(_forward, _pieces(B * T * J), x_src, x_dst, att, y, log_sum.view(-1), negative_slope, *graph, *head_blocks(att), WIDTH)
    return y.to(kind), log_sum


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
    kinds = x_src.dtype, x_dst.dtype, att.dtype
    dy, y, x_src, x_dst, att = (v.to(log_sum.dtype) for v in (dy, y, x_src, x_dst, att))
    dsrc, ddst = empty(B, T, J, C, dtype=x_src.dtype), empty(B, T, J, C, dtype=x_src.dtype)
    pieces, blocks = _pieces(B * T * J), head_blocks(att)
    datt = x_src.new_zeros(pieces, *att.shape)
    mean = node_dot(y, dy, len(att), lengths)  # Σ α dα over the edges into a node, which is y · dy
    given = [v.contiguous() for v in (x_src, x_dst, att, dy, *(readable_rows(v, blocks[-1]) for v in (log_sum, mean)))]
    frames = frame_counts(lengths, B, T)
    graph = frames, hops, index.dst_ptr, index.sender_frames, index.sender_nodes
    run_ranges(_backward_receivers, pieces, *given, ddst, datt, negative_slope, *graph, *blocks, WIDTH)
    graph = frames, hops, index.src_ptr, index.receiver_frames, index.receiver_nodes
    run_ranges(_backward_senders, pieces, *given, dsrc, negative_slope, *graph, *blocks, WIDTH)
    return dsrc.to(kinds[0]), ddst.to(kinds[1]), datt.sum(0).to(kinds[2])


def _pieces(nodes: int) -> int:
    return -(-nodes // _NODES)


def head_blocks(att: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """The pieces of the channels, and a tuple as long as there are heads that are taken together: a power of two, of which a vector is a multiple."""
    lanes = len(WIDTH) * 16 // att.itemsize
    group = min(lanes, 1 << (len(att) - 1).bit_length())
    blocks, bounds = channel_blocks(*att.shape, group, lanes, vectors_at_once(WIDTH))
    return blocks, bounds, (0,) * group


def readable_rows(numbers: Tensor, group: tuple[int, ...]) -> Tensor:
    """In one row, which can be read by whole groups of heads.  # [B, T, J, heads]"""
    farther = -numbers.shape[-1] % len(group)
    return torch.nn.functional.pad(numbers.reshape(-1), (0, farther)) if farther else numbers.reshape(-1)


@compile_loops
def room_for(count, kind):
    """Room for so many numbers that begins with a cache line, for vectors that lie across two cost time."""
    room = np.empty(count + LINE // 4, kind)
    return room[-address(room, 0) % LINE // room.itemsize :]


@compile_loops
def _edges_of(node, T, J, hops, lengths, ptr, frames, nodes, ends):
    """The nodes at the other ends of a node's edges; returns how many."""
    b, t, j = node // (T * J), node // J % T, node % J
    length, count, frame = lengths[b], 0, node - j
    if t >= length:
        return 0
    # Slices, as LLVM makes vectors of loops only over places that can't be negative, which numba counts from the end.
    begin, edges = (ptr[j] + 3 * j) // 4 * 4, ptr[j + 1] - ptr[j]
    frames, nodes = frames[begin : begin + edges], nodes[begin : begin + edges]
    if hops <= t < length - hops:
        for i in range(len(nodes)):
            ends[i] = frame + nodes[i]
        return len(nodes)
    for i in range(len(nodes)):
        ends[count] = frame + nodes[i]
        count += 1 if 0 <= t + frames[i] < length else 0
    return count


@compile_loops
def _forward(
    first, last, x_src, x_dst, att, y, log_sum, slope,
    lengths, hops, ptr, frames, nodes, blocks, bounds, group, width,
):  # fmt: skip
    _, T, J, C = x_src.shape
    (H, channels), G = att.shape, len(group)
    slope, one = att.dtype.type(slope), att.dtype.type(1)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    # By whole vectors: what stands behind the edges is computed with and never used, but has to be a place.
    ends, rows = np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64)
    score, scale = room_for(most * G + lanes, att.dtype), np.empty(G, att.dtype)
    largest, total = np.empty(lanes, att.dtype), np.empty(lanes, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        count = _edges_of(node, T, J, hops, lengths, ptr, frames, nodes, ends)
        for i in range(count):
            rows[i] = ends[i] * C
        for g in range(0, H, G):
            here, part = min(G, H - g), g * channels
            row_products(
                width, group, (0,), x_src, part, rows, count, x_dst, node * C + part, att, part, slope, (), 0, (), here, channels, score
            )  # fmt: skip
            subtract_largest(width, group, score, count, largest)
            for i in range((G * count + lanes - 1) // lanes * lanes):
                score[i] = exp(score[i])
            sum_heads(width, group, score, count, total)
            for h in range(here):
                log_sum[node * H + g + h] = largest[h] + math.log(total[h]) if total[h] != 0 else -largest[h]
                scale[h] = one / total[h] if total[h] != 0 else total[h]
            for n in range(bounds[g // G], bounds[g // G + 1]):
                head_sums(
                    width, group, x_src, rows, count, score, scale, blocks, n * blocks.shape[1] + 2, blocks[n, 0], blocks[n, 1], y, node * C
                )  # fmt: skip


@compile_loops
def _backward_receivers(
    first, last, x_src, x_dst, att, dy, log_sum, mean, ddst, datt, slope,
    lengths, hops, ptr, frames, nodes, blocks, bounds, group, width,
):  # fmt: skip
    _, T, J, C = x_src.shape
    (H, channels), G = att.shape, len(group)
    slope = att.dtype.type(slope)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    ends, rows = np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64)
    score, through = room_for(most * G + lanes, att.dtype), room_for(most * G + lanes, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        count = _edges_of(node, T, J, hops, lengths, ptr, frames, nodes, ends)
        for i in range(count):
            rows[i] = ends[i] * C
        for g in range(0, H, G):
            here, part, number = min(G, H - g), g * channels, node * H + g
            row_products(
                width, group, (0,), x_src, part, rows, count, x_dst, node * C + part, att, part, slope,
                log_sum, number, (), here, channels, score,
            )  # fmt: skip
            row_products(
                width, group, (), x_src, part, rows, count, dy, node * C + part, att, 0, slope, mean, number, (), here, channels, through
            )  # fmt: skip
            for i in range((G * count + lanes - 1) // lanes * lanes):
                through[i] *= exp(score[i])
            for n in range(bounds[g // G], bounds[g // G + 1]):
                leaky_sums(
                    width, group, (0,), x_src, rows, count, x_dst, through, slope, att, through, datt, node // _NODES * C,
                    blocks, n * blocks.shape[1] + 2, blocks[n, 0], blocks[n, 1], ddst, node * C,
                )  # fmt: skip


@compile_loops
def _backward_senders(
    first, last, x_src, x_dst, att, dy, log_sum, mean, dsrc, slope,
    lengths, hops, ptr, frames, nodes, blocks, bounds, group, width,
):  # fmt: skip
    _, T, J, C = x_src.shape
    (H, channels), G = att.shape, len(group)
    slope = att.dtype.type(slope)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    ends, rows, numbers = np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64), np.zeros(most + lanes, np.int64)
    alpha, through = room_for(most * G + lanes, att.dtype), room_for(most * G + lanes, att.dtype)
    for node in range(first * _NODES, min(last * _NODES, lengths.size * T * J)):
        count = _edges_of(node, T, J, hops, lengths, ptr, frames, nodes, ends)
        for i in range(count):
            rows[i] = ends[i] * C
            numbers[i] = ends[i] * H
        for g in range(0, H, G):
            here, part = min(G, H - g), g * channels
            row_products(
                width, group, (0,), x_dst, part, rows, count, x_src, node * C + part, att, part, slope,
                log_sum, g, numbers, here, channels, alpha,
            )  # fmt: skip
            row_products(
                width, group, (), dy, part, rows, count, x_src, node * C + part, att, 0, slope, mean, g, numbers, here, channels, through
            )  # fmt: skip
            for i in range((G * count + lanes - 1) // lanes * lanes):
                alpha[i] = exp(alpha[i])
                through[i] *= alpha[i]
            for n in range(bounds[g // G], bounds[g // G + 1]):
                leaky_sums(
                    width, group, (), x_dst, rows, count, x_src, through, slope, att, alpha, dy, 0,
                    blocks, n * blocks.shape[1] + 2, blocks[n, 0], blocks[n, 1], dsrc, node * C,
                )  # fmt: skip
