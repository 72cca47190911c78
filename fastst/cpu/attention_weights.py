"""The attention weights of GATv2 on the CPU, edge by edge: see `fastst.ops.attention_weights`.

A thread goes over some nodes and all their edges: of a joint, up to 32 frames that follow one another, for the numbers of a slot in neighbouring
frames lie side by side. The backward goes over the nodes as receivers, then as senders, and for the gradient of features over the slots; each time a
thread writes only to what is its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, compile_sums, exp
from fastst.cpu.memory import empty
from fastst.cpu.products import frame_counts
from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

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
    """α and log Σ w exp of the scores into every node (-inf where all w are 0).  # [B, heads, P, T], [B, T, J, heads] in at least float32"""
    (B, T, J, _), (heads, _) = x_src.shape, att.shape
    dtype = torch.promote_types(x_src.dtype, torch.float32)
    x_src, x_dst, att = (v.to(dtype) for v in (x_src, x_dst, att))
    weight = x_src.new_zeros(0) if edge_weight is None else edge_weight.to(dtype)
    alpha, log_sum = x_src.new_zeros(B, heads, index.num_slots, T), empty(B, T, J, heads, dtype=dtype)
    units, frames = _units(B, T, J)
    edges, graph = _strided(edge_attr, x_src), (frame_counts(lengths, B, T), frames, index.dst_ptr, index.dst_order, index.src, index.offset)
    run_ranges(_forward, units, x_src, x_dst, att, *edges, weight.reshape(-1), alpha, log_sum, negative_slope, *graph)
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
    units, frames = _units(B, T, J)
    datt = x_src.new_zeros(units, C)
    edges, counts = _strided(edge_attr, x_src), frame_counts(lengths, B, T)
    into, out_of = (index.dst_ptr, index.dst_order, index.src), (index.src_ptr, index.src_order, index.dst)
    results = dscores, dweight, ddst, datt
    given = dalpha, alpha, log_sum, x_src, x_dst, att
    run_ranges(_backward_receivers, units, *given, *edges, *results, negative_slope, most or 0.0, counts, frames, *into, index.offset)
    run_ranges(_backward_senders, units, dscores, x_src, x_dst, att, *edges, dsrc, negative_slope, counts, frames, *out_of, index.offset)
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


# Rows are handed over as slices: LLVM makes vectors of loops only over places that can't be negative, which numba counts from the end.


@compile_sums
def _score(x, y, z, att, slope):
    """att · LeakyReLU of the sum of three rows."""
    total = att.dtype.type(0)
    for c in range(len(att)):
        hidden = x[c] + y[c] + z[c]
        total += att[c] * (hidden if hidden > 0 else hidden * slope)
    return total


@compile_loops
def _add_slopes(factor, x, y, z, att, slope, target):
    """target += factor · att · LeakyReLU' of the sum of three rows."""
    weak = factor * slope
    for c in range(len(att)):
        target[c] += att[c] * (factor if x[c] + y[c] + z[c] > 0 else weak)


@compile_loops
def _add_gradients(factor, x, y, z, att, slope, target, partial):
    """The same, and partial += factor · LeakyReLU of the sum."""
    weak = factor * slope
    for c in range(len(att)):
        hidden = x[c] + y[c] + z[c]
        strength = factor if hidden > 0 else weak
        target[c] += att[c] * strength
        partial[c] += hidden * strength


@compile_loops
def _forward(
    first, last, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, weight, alpha, log_sum, slope,
    lengths, frames, ptr, order, neighbour, offset,
):  # fmt: skip
    B, T, J, C = x_src.shape
    (heads, W), P = att.shape, len(offset)
    senders, receivers, slope, nothing = x_src.ravel(), x_dst.ravel(), att.dtype.type(slope), att.dtype.type(-math.inf)
    alphas, sums = alpha.ravel(), log_sum.ravel()
    for n in range(first * _NODES, last * _NODES):
        b, t, j = _node(n, T, J, frames)
        if b >= B or t >= T:
            continue
        length, row = lengths[b], (b * T + t) * J + j
        for h in range(heads):
            y, largest = receivers[row * C + h * W : row * C + h * W + W], nothing
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                s = t + offset[p]
                if t < length and 0 <= s < length:
                    x_at, e_at = ((b * T + s) * J + neighbour[p]) * C + h * W, b * edges_b + p * edges_p + t * edges_t + h * W
                    score = _score(senders[x_at : x_at + W], y, edges[e_at : e_at + W], att[h], slope)
                    if len(weight) > 0:
                        w = weight[(b * P + p) * T + t]
                        score = nothing if w == 0 else score + att.dtype.type(math.log(w))
                    alphas[((b * heads + h) * P + p) * T + t] = score
                    largest = score if score > largest else largest
            shift = largest if largest > nothing else att.dtype.type(0)  # all weights may be 0
            total = att.dtype.type(0)
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                if t < length and 0 <= t + offset[p] < length:
                    at = ((b * heads + h) * P + p) * T + t
                    alphas[at] = exp(alphas[at] - shift)
                    total += alphas[at]
            some = total != 0
            sums[row * heads + h] = shift + att.dtype.type(math.log(total)) if some else nothing
            scale = att.dtype.type(1) / total if some else att.dtype.type(0)
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                if t < length and 0 <= t + offset[p] < length:
                    alphas[((b * heads + h) * P + p) * T + t] *= scale


@compile_loops
def _backward_receivers(
    first, last, dalpha, alpha, log_sum, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dscores, dweight, ddst, datt, slope, most,
    lengths, frames, ptr, order, neighbour, offset,
):  # fmt: skip
    """dscore = α (dα - Σ α dα), ddst = att Σ dscore LeakyReLU', datt = Σ dscore LeakyReLU, and of the weights Σ exp(score - log sum) (dα - Σ α dα)
    over the heads."""
    B, T, J, C = x_src.shape
    (heads, W), P = att.shape, len(offset)
    senders, receivers, slope, most = x_src.ravel(), x_dst.ravel(), att.dtype.type(slope), att.dtype.type(most)
    alphas, dalphas, sums, results = alpha.ravel(), dalpha.ravel(), log_sum.ravel(), ddst.ravel()
    dscore, dweights, partials, with_weights = dscores.ravel(), dweight.ravel(), datt.ravel(), dweight.size > 0
    for n in range(first * _NODES, last * _NODES):
        b, t, j = _node(n, T, J, frames)
        if b >= B or t >= T:
            continue
        length, row = lengths[b], (b * T + t) * J + j
        results[row * C : row * C + C] = 0
        if t >= length:
            continue
        for h in range(heads):
            y, dy = receivers[row * C + h * W : row * C + h * W + W], results[row * C + h * W : row * C + h * W + W]
            partial = partials[n // _NODES * C + h * W : n // _NODES * C + h * W + W]
            log_total, mean = sums[row * heads + h], att.dtype.type(0)
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                if 0 <= t + offset[p] < length:
                    at = ((b * heads + h) * P + p) * T + t
                    mean += alphas[at] * dalphas[at]
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                s = t + offset[p]
                if 0 <= s < length:
                    at, x_at = ((b * heads + h) * P + p) * T + t, ((b * T + s) * J + neighbour[p]) * C + h * W
                    e_at = b * edges_b + p * edges_p + t * edges_t + h * W
                    x, z, differs = senders[x_at : x_at + W], edges[e_at : e_at + W], dalphas[at] - mean
                    dscore[at] = alphas[at] * differs
                    _add_gradients(dscore[at], x, y, z, att[h], slope, dy, partial)
                    if with_weights and log_total > -math.inf:
                        power = _score(x, y, z, att[h], slope) - log_total
                        dweights[(b * P + p) * T + t] += exp(most if power > most else power) * differs


@compile_loops
def _backward_senders(
    first, last, dscores, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dsrc, slope,
    lengths, frames, ptr, order, neighbour, offset,
):  # fmt: skip
    """dsrc = att Σ dscore LeakyReLU' over the edges out of the nodes."""
    B, T, J, C = x_src.shape
    (heads, W), P = att.shape, len(offset)
    senders, receivers, slope = x_src.ravel(), x_dst.ravel(), att.dtype.type(slope)
    results, dscore = dsrc.ravel(), dscores.ravel()
    for n in range(first * _NODES, last * _NODES):
        b, s, j = _node(n, T, J, frames)
        if b >= B or s >= T:
            continue
        length, row = lengths[b], (b * T + s) * J + j
        results[row * C : row * C + C] = 0
        if s >= length:
            continue
        for h in range(heads):
            x, dx = senders[row * C + h * W : row * C + h * W + W], results[row * C + h * W : row * C + h * W + W]
            for i in range(ptr[j], ptr[j + 1]):
                p = order[i]
                t = s - offset[p]
                if 0 <= t < length:
                    y_at, e_at = ((b * T + t) * J + neighbour[p]) * C + h * W, b * edges_b + p * edges_p + t * edges_t + h * W
                    factor = dscore[((b * heads + h) * P + p) * T + t]
                    _add_slopes(factor, x, receivers[y_at : y_at + W], edges[e_at : e_at + W], att[h], slope, dx)


@compile_loops
def _backward_edges(
    first, last, dscores, x_src, x_dst, att, edges, edges_b, edges_p, edges_t, dattr, slope, lengths, src, dst, offset,
):  # fmt: skip
    """dattr = att Σ dscore LeakyReLU' of the slots from first to last, over the walks and frames that share their features."""
    B, T, J, C = x_src.shape
    (heads, W), P = att.shape, len(offset)
    senders, receivers, slope, dscore = x_src.ravel(), x_dst.ravel(), att.dtype.type(slope), dscores.ravel()
    for p in range(first, last):
        for b in range(B):
            for t in range(max(0, -offset[p]), min(lengths[b], lengths[b] - offset[p])):
                for h in range(heads):
                    x_at, y_at = (((b * T + t + offset[p]) * J + src[p]) * C + h * W, ((b * T + t) * J + dst[p]) * C + h * W)
                    e_at, factor = b * edges_b + p * edges_p + t * edges_t + h * W, dscore[((b * heads + h) * P + p) * T + t]
                    x, y, z, dz = senders[x_at : x_at + W], receivers[y_at : y_at + W], edges[e_at : e_at + W], dattr[e_at : e_at + W]
                    _add_slopes(factor, x, y, z, att[h], slope, dz)
