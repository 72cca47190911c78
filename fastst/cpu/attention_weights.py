"""The attention weights of GATv2 on the CPU, edge by edge: see `fastst.ops.attention_weights`.

A thread goes over some nodes and all their edges: of a joint, up to 32 frames that follow one another, for the numbers of a slot in neighbouring
frames lie side by side. The features of a node's neighbours with those of the edges are put together in the first-level cache, and the micro-kernels
of `attend` run over them. The backward goes over the nodes as receivers, then as senders, and for the gradient of features over the slots; each time
a thread writes only to what is its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend import head_blocks, readable_rows, room_for
from fastst.cpu.attend_kernels import leaky_sums, row_products, subtract_largest, sum_heads
from fastst.cpu.functions import compile_loops, exp
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import lanes_of
from fastst.cpu.products import WIDTH, frame_counts, most_edges
from fastst.cpu.threads import run_ranges
from fastst.graph_index import GraphIndex

_FRAMES = 32  # of a joint, that a thread goes over at once
_NODES = 32  # that share one piece of att's gradient: its sum does not depend on the threads


def attention_weights(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
) -> tuple[Tensor, Tensor]:
    """α and log Σ w exp of the scores into every node (-inf where the sum is 0).  # [B, heads, P, T], [B, T, J, heads] in at least float32"""
    (B, T, J, _), (heads, _) = x_src.shape, att.shape
    dtype = torch.promote_types(x_src.dtype, torch.float32)
    x_src, x_dst, att = (v.to(dtype) for v in (x_src, x_dst, att))
    weight = x_src.new_zeros(0) if edge_weight is None else edge_weight.to(dtype).reshape(-1)
    alpha, log_sum = x_src.new_zeros(B, heads, index.num_slots, T), empty(B, T, J, heads, dtype=dtype)
    units, frames = _units(B, T, J)
    graph = frame_counts(lengths, B, T), frames, index.dst_ptr, index.dst_order, index.src, index.offset
    group = head_blocks(att)[-1]
    run_ranges(_forward, units, x_src, x_dst, att, *_strided(edge_attr, x_src), weight, alpha, log_sum, negative_slope, *graph, group, WIDTH)
    return alpha, log_sum


def attention_weights_backward(
    dalpha: Tensor,
    alpha: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
    wants_attr: bool,
    most: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of x_src, x_dst, att, edge_attr and the weights, the last two where wanted. most: the largest exponent in that of the weights."""
    B, T, J, C = x_src.shape
    x_src, x_dst, att, dalpha = (v.to(log_sum.dtype) for v in (x_src, x_dst, att, dalpha))
    dsrc, ddst = empty(B, T, J, C, dtype=x_src.dtype), empty(B, T, J, C, dtype=x_src.dtype)
    dscores, dweight = x_src.new_zeros(alpha.shape), x_src.new_zeros(0 if most is None else B, index.num_slots, T)
    (units, frames), blocks = _units(B, T, J), head_blocks(att)
    datt = x_src.new_zeros(units, C)
    edges, counts = _strided(edge_attr, x_src), frame_counts(lengths, B, T)
    into, out_of = (index.dst_ptr, index.dst_order, index.src), (index.src_ptr, index.src_order, index.dst)
    given = dalpha, alpha, readable_rows(log_sum, blocks[-1]), x_src, x_dst, att, *edges
    rest = negative_slope, counts, frames
    run_ranges(_backward_receivers, units, *given, dscores, dweight, ddst, datt, most or 0.0, *rest, *into, index.offset, *blocks, WIDTH)
    run_ranges(_backward_senders, units, dscores, x_src, x_dst, att, *edges, dsrc, *rest, *out_of, index.offset, *blocks, WIDTH)
    dattr = None
    if edge_attr is not None and wants_attr:
        dattr = x_src.new_zeros(edge_attr.shape)
        ends = index.src, index.dst, index.offset
        run_ranges(_backward_edges, index.num_slots, dscores, x_src, x_dst, att, *edges, dattr.view(-1), negative_slope, counts, *ends)
    return dsrc, ddst, datt.sum(0).view(att.shape), dattr, None if most is None else dweight


def _units(B: int, T: int, J: int) -> tuple[int, int]:
    """In how many pieces the nodes are gone over, and in how many frames of a joint after one another."""
    frames = max(1, min(T, _FRAMES))
    return -(-B * -(-T // frames) * J * frames // _NODES), frames


def _strided(edge_attr: Tensor | None, like: Tensor) -> tuple[Tensor, int, int, int]:
    """Features of edges in one row, and how far apart those of walks, slots and frames are: 0 where they share them. Without any, zeros for all."""
    if edge_attr is None:
        return like.new_zeros(like.shape[-1]), 0, 0, 0
    edge_attr = edge_attr.to(like.dtype).contiguous()
    B, _, T, _ = edge_attr.shape
    walk, slot, frame, _ = edge_attr.stride()
    return edge_attr.view(-1), walk if B > 1 else 0, slot, frame if T > 1 else 0


@compile_loops
def _node(n, T, J, frames):
    """Walk, frame and joint of the n-th node; the frame may be beyond T."""
    tiles = (T + frames - 1) // frames
    tile = n // frames // J
    return tile // tiles, tile % tiles * frames + n % frames, n // frames % J


@compile_loops
def _edges_of(t, j, length, sign, ptr, order, offset, slots, others):
    """The slots of a node's edges and the frames of their other ends; returns how many."""
    count = 0
    for i in range(ptr[j], ptr[j + 1] if t < length else ptr[j]):
        other = t + sign * offset[order[i]]
        if 0 <= other < length:
            slots[count], others[count] = order[i], other
            count += 1
    return count


@compile_loops
def _add_rows(x, y, target):
    for c in range(len(target)):
        target[c] = x[c] + y[c]


@compile_loops
def _forward(
    first, last, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, weight, alpha, log_sum, slope,
    lengths, frames, ptr, order, neighbour, offset, group, width,
):  # fmt: skip
    B, T, J, C = x_src.shape
    (H, channels), P, G = att.shape, len(offset), len(group)
    senders, alphas, sums = x_src.ravel(), alpha.ravel(), log_sum.ravel()
    slope, nothing = att.dtype.type(slope), att.dtype.type(-math.inf)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    # By whole vectors: what stands behind the edges is computed with and never used, but has to be a place.
    slots, others, rows = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64)
    near, score = room_for(most * C + lanes, att.dtype), room_for(most * G + lanes, att.dtype)
    logs, largest, total = np.zeros(most + 1, att.dtype), np.empty(lanes, att.dtype), np.empty(lanes, att.dtype)
    for n in range(first * _NODES, last * _NODES):
        b, t, j = _node(n, T, J, frames)
        if b >= B or t >= T:
            continue
        row, some = (b * T + t) * J + j, False  # some weight is not 0
        count = _edges_of(t, j, lengths[b], 1, ptr, order, offset, slots, others)
        for i in range(count):
            p = slots[i]
            x_at, e_at = ((b * T + others[i]) * J + neighbour[p]) * C, b * edges_b + p * edges_p + t * edges_t
            _add_rows(senders[x_at : x_at + C], edges[e_at : e_at + C], near[i * C : i * C + C])
            rows[i] = i * C
            w = weight[(b * P + p) * T + t] if len(weight) > 0 else att.dtype.type(1)
            logs[i] = nothing if w == 0 else math.log(w)
            some = some or w != 0
        for g in range(0, H, G):
            here, part = min(G, H - g), g * channels
            row_products(
                width, group, (0,), near, part, rows, count if some else 0, x_dst, row * C + part, att, part, slope, (), 0, (), here, channels, score
            )  # fmt: skip
            if not some:
                sums[row * H + g : row * H + g + here] = nothing
                continue
            if len(weight) > 0:
                for i in range(count):
                    for h in range(G):
                        score[i * G + h] = nothing if logs[i] == nothing else score[i * G + h] + logs[i]
            subtract_largest(width, group, score, count, largest)
            for i in range((G * count + lanes - 1) // lanes * lanes):
                score[i] = exp(score[i])
            sum_heads(width, group, score, count, total)
            for h in range(here):
                sums[row * H + g + h] = largest[h] + math.log(total[h]) if total[h] != 0 else nothing
                for i in range(count if total[h] != 0 else 0):
                    alphas[((b * H + g + h) * P + slots[i]) * T + t] = score[i * G + h] / total[h]


@compile_loops
def _backward_receivers(
    first, last, dalpha, alpha, log_sum, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dscores, dweight, ddst, datt, largest, slope,
    lengths, frames, ptr, order, neighbour, offset, blocks, bounds, group, width,
):  # fmt: skip
    """dscore = α (dα - Σ α dα), ddst = att Σ dscore LeakyReLU', datt = Σ dscore LeakyReLU, and of the weights Σ exp(score - log sum) (dα - Σ α dα)
    over the heads."""
    B, T, J, C = x_src.shape
    (H, channels), P, G = att.shape, len(offset), len(group)
    senders, alphas, dalphas, dscore, dweights = x_src.ravel(), alpha.ravel(), dalpha.ravel(), dscores.ravel(), dweight.ravel()
    slope, largest = att.dtype.type(slope), att.dtype.type(largest)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    slots, others, rows = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64)
    near, power, through = room_for(most * C + lanes, att.dtype), room_for(most * G + lanes, att.dtype), room_for(most * G + lanes, att.dtype)
    for n in range(first * _NODES, last * _NODES):
        b, t, j = _node(n, T, J, frames)
        if b >= B or t >= T:
            continue
        row = (b * T + t) * J + j
        count = _edges_of(t, j, lengths[b], 1, ptr, order, offset, slots, others)
        for i in range(count):
            x_at, e_at = ((b * T + others[i]) * J + neighbour[slots[i]]) * C, b * edges_b + slots[i] * edges_p + t * edges_t
            _add_rows(senders[x_at : x_at + C], edges[e_at : e_at + C], near[i * C : i * C + C])
            rows[i] = i * C
        for g in range(0, H, G):
            here, part = min(G, H - g), g * channels
            if dweight.size > 0:
                row_products(
                    width, group, (0,), near, part, rows, count, x_dst, row * C + part, att, part, slope,
                    log_sum, row * H + g, (), here, channels, power,
                )  # fmt: skip
            for h in range(here):
                mean, some = att.dtype.type(0), log_sum[row * H + g + h] != -math.inf
                for i in range(count):
                    at = ((b * H + g + h) * P + slots[i]) * T + t
                    mean += alphas[at] * dalphas[at]
                for i in range(count):
                    at = ((b * H + g + h) * P + slots[i]) * T + t
                    differs = dalphas[at] - mean
                    through[i * G + h] = dscore[at] = alphas[at] * differs
                    if dweight.size > 0 and some:
                        exponent = power[i * G + h]
                        dweights[(b * P + slots[i]) * T + t] += exp(largest if exponent > largest else exponent) * differs
            for k in range(bounds[g // G], bounds[g // G + 1]):
                leaky_sums(
                    width, group, (0,), near, rows, count, x_dst, through, slope, att, through, datt, n // _NODES * C,
                    blocks, k * blocks.shape[1] + 2, blocks[k, 0], blocks[k, 1], ddst, row * C,
                )  # fmt: skip


@compile_loops
def _backward_senders(
    first, last, dscores, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dsrc, slope,
    lengths, frames, ptr, order, neighbour, offset, blocks, bounds, group, width,
):  # fmt: skip
    """dsrc = att Σ dscore LeakyReLU' over the edges out of the nodes."""
    B, T, J, C = x_src.shape
    H, P, G = len(att), len(offset), len(group)
    receivers, dscore, slope = x_dst.ravel(), dscores.ravel(), att.dtype.type(slope)
    lanes: int = lanes_of(width, att)
    most = most_edges(ptr)
    slots, others, rows = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64), np.zeros(most + lanes, np.int64)
    near, through, unused = room_for(most * C + lanes, att.dtype), room_for(most * G + lanes, att.dtype), np.zeros(C, att.dtype)
    for n in range(first * _NODES, last * _NODES):
        b, s, j = _node(n, T, J, frames)
        if b >= B or s >= T:
            continue
        row = (b * T + s) * J + j
        count = _edges_of(s, j, lengths[b], -1, ptr, order, offset, slots, others)
        for i in range(count):
            x_at, e_at = ((b * T + others[i]) * J + neighbour[slots[i]]) * C, b * edges_b + slots[i] * edges_p + others[i] * edges_t
            _add_rows(receivers[x_at : x_at + C], edges[e_at : e_at + C], near[i * C : i * C + C])
            rows[i] = i * C
        for g in range(0, H, G):
            for h in range(min(G, H - g)):
                for i in range(count):
                    through[i * G + h] = dscore[((b * H + g + h) * P + slots[i]) * T + others[i]]
            for k in range(bounds[g // G], bounds[g // G + 1]):
                leaky_sums(
                    width, group, (0,), near, rows, count, x_src, through, slope, att, through, unused, 0,
                    blocks, k * blocks.shape[1] + 2, blocks[k, 0], blocks[k, 1], dsrc, row * C,
                )  # fmt: skip


@compile_loops
def _add_slopes(strength, x, y, z, att, slope, target):
    """target += strength · att · LeakyReLU' of the sum of three rows, which come as slices: LLVM makes vectors of loops only over places that can't
    be negative, which numba counts from the end."""
    for c in range(len(target)):
        hidden = x[c] + y[c] + z[c]
        target[c] += strength[c] * att[c] * (att.dtype.type(1) if hidden > 0 else slope)


@compile_loops
def _backward_edges(
    first, last, dscores, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dattr, slope, lengths, src, dst, offset,
):  # fmt: skip
    """dattr = att Σ dscore LeakyReLU' of the slots from first to last, over the walks and frames that share their features."""
    B, T, J, C = x_src.shape
    (H, channels), P = att.shape, len(offset)
    senders, receivers, att, dscore, slope = x_src.ravel(), x_dst.ravel(), att.ravel(), dscores.ravel(), att.dtype.type(slope)
    strength = np.empty(C, att.dtype)
    for p in range(first, last):
        for b in range(B):
            for t in range(max(0, -offset[p]), min(lengths[b], lengths[b] - offset[p])):
                for h in range(H):
                    strength[h * channels : (h + 1) * channels] = dscore[((b * H + h) * P + p) * T + t]
                x_at, y_at = ((b * T + t + offset[p]) * J + src[p]) * C, ((b * T + t) * J + dst[p]) * C
                e_at = b * edges_b + p * edges_p + t * edges_t
                x, y = senders[x_at : x_at + C], receivers[y_at : y_at + C]
                _add_slopes(strength, x, y, edges[e_at : e_at + C], att, slope, dattr[e_at : e_at + C])
