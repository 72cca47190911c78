"""GATv2 attention on the CPU: scores, softmax and sum of a node in one go, so that nothing of edge size is stored.

The backward goes over the nodes twice, once as receivers and once as senders; each time a thread writes only to the nodes that it goes over.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

# Sums may be reordered to fill vectors; NaN and infinity are kept.
_compile = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


def attend(x_src: Tensor, x_dst: Tensor, att: Tensor, index: GraphIndex, lengths: Tensor | None, negative_slope: float) -> tuple[Tensor, Tensor]:
    """y and log Σ exp of the scores into every node (-inf without edges).  # [B, T, J, C], [B, T, J, heads]; float32 or float64"""
    B, T, J, C = x_src.shape
    y, log_sum = x_src.new_empty(B, T, J, C), x_src.new_empty(B, T, J, len(att))
    inputs = _arrays(x_src, x_dst, att)
    run_ranges(_forward, B * T, *inputs, _heads(y, att), log_sum.numpy(), *_edges(index, lengths, B, T), negative_slope)
    return y, log_sum


def attend_backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    index: GraphIndex,
    lengths: Tensor | None,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x_src, x_dst and att."""
    B, T, J, C = x_src.shape
    dsrc, ddst = x_src.new_empty(B, T, J, C), x_src.new_empty(B, T, J, C)
    datt = x_src.new_zeros(B, T, *att.shape)  # one for every frame, summed in order: the sum does not depend on the threads
    mean = (y * dy).unflatten(-1, (len(att), -1)).sum(-1)  # Σ α dα over the edges into a node, which is y · dy
    inputs = (*_arrays(x_src, x_dst, att), _heads(dy.contiguous(), att), log_sum.contiguous().numpy(), mean.numpy())
    edges = _edges(index, lengths, B, T)
    run_ranges(_backward_receivers, B * T, *inputs, _heads(ddst, att), datt.numpy(), *edges, negative_slope)
    transposed = (index.src_ptr.numpy(), index.src_order.numpy(), index.dst.numpy(), index.offset.numpy(), edges[-1])
    run_ranges(_backward_senders, B * T, *inputs, _heads(dsrc, att), *transposed, negative_slope)
    return dsrc, ddst, datt.sum((0, 1))


def _arrays(x_src: Tensor, x_dst: Tensor, att: Tensor) -> tuple[np.ndarray, ...]:
    return _heads(x_src.contiguous(), att), _heads(x_dst.contiguous(), att), att.detach().contiguous().numpy()


def _heads(x: Tensor, att: Tensor) -> np.ndarray:
    """[B, T, J, heads, C / heads]"""
    return x.detach().view(*x.shape[:3], *att.shape).numpy()


def _edges(index: GraphIndex, lengths: Tensor | None, B: int, T: int) -> tuple[np.ndarray, ...]:
    counts = torch.full((B,), T) if lengths is None else lengths.long().clamp(0, T)
    return index.dst_ptr.numpy(), index.dst_order.numpy(), index.src.numpy(), index.offset.numpy(), counts.numpy()


@_compile
def _score(source, target, att, negative_slope):
    """att · LeakyReLU(source + target) of one head.  # [C / heads] each"""
    total = att.dtype.type(0)
    for c in range(len(att)):
        hidden = source[c] + target[c]
        total += att[c] * (hidden if hidden > 0 else hidden * att.dtype.type(negative_slope))
    return total


@_compile
def _dot(a, b):
    total = a.dtype.type(0)
    for c in range(len(a)):
        total += a[c] * b[c]
    return total


@_compile
def _forward(first, last, x_src, x_dst, att, y, log_sum, ptr, order, src, offset, lengths, negative_slope):
    _, T, J, H, width = x_src.shape
    scores, near = np.empty((len(order), H), att.dtype), np.empty((len(order), 2), np.int64)
    for n in range(first, last):
        b, t = n // T, n % T
        length = lengths[b]
        for j in range(J):
            y[b, t, j] = 0
            log_sum[b, t, j] = -math.inf
            if t >= length:
                continue
            count = 0
            for e in range(ptr[j], ptr[j + 1]):
                s = order[e]
                frame = t + offset[s]
                if 0 <= frame < length:
                    near[count, 0], near[count, 1] = frame, src[s]
                    for h in range(H):
                        scores[count, h] = _score(x_src[b, frame, src[s], h], x_dst[b, t, j, h], att[h], negative_slope)
                    count += 1
            if count == 0:
                continue
            for h in range(H):
                largest = scores[0, h]
                for i in range(1, count):
                    largest = max(largest, scores[i, h])
                total = att.dtype.type(0)
                for i in range(count):
                    scores[i, h] = math.exp(scores[i, h] - largest)
                    total += scores[i, h]
                log_sum[b, t, j, h] = largest + math.log(total)
                for i in range(count):
                    alpha = scores[i, h] / total
                    for c in range(width):
                        y[b, t, j, h, c] += alpha * x_src[b, near[i, 0], near[i, 1], h, c]


@_compile
def _backward_receivers(first, last, x_src, x_dst, att, dy, log_sum, mean, ddst, datt, ptr, order, src, offset, lengths, negative_slope):
    _, T, J, H, width = x_src.shape
    slope = att.dtype.type(negative_slope)
    for n in range(first, last):
        b, t = n // T, n % T
        for j in range(J):
            ddst[b, t, j] = 0
            if t >= lengths[b]:
                continue
            for e in range(ptr[j], ptr[j + 1]):
                s = order[e]
                frame = t + offset[s]
                if not 0 <= frame < lengths[b]:
                    continue
                for h in range(H):
                    source, target = x_src[b, frame, src[s], h], x_dst[b, t, j, h]
                    alpha = math.exp(_score(source, target, att[h], negative_slope) - log_sum[b, t, j, h])
                    dscore = alpha * (_dot(dy[b, t, j, h], source) - mean[b, t, j, h])
                    for c in range(width):
                        hidden = source[c] + target[c]
                        factor = att.dtype.type(1) if hidden > 0 else slope
                        ddst[b, t, j, h, c] += dscore * att[h, c] * factor
                        datt[b, t, h, c] += dscore * hidden * factor


@_compile
def _backward_senders(first, last, x_src, x_dst, att, dy, log_sum, mean, dsrc, ptr, order, dst, offset, lengths, negative_slope):
    _, T, J, H, width = x_src.shape
    slope = att.dtype.type(negative_slope)
    for n in range(first, last):
        b, t = n // T, n % T
        for j in range(J):
            dsrc[b, t, j] = 0
            if t >= lengths[b]:
                continue
            for e in range(ptr[j], ptr[j + 1]):
                s = order[e]
                frame = t - offset[s]
                if not 0 <= frame < lengths[b]:
                    continue
                i = dst[s]
                for h in range(H):
                    source, target, gradient = x_src[b, t, j, h], x_dst[b, frame, i, h], dy[b, frame, i, h]
                    alpha = math.exp(_score(source, target, att[h], negative_slope) - log_sum[b, frame, i, h])
                    dscore = alpha * (_dot(gradient, source) - mean[b, frame, i, h])
                    for c in range(width):
                        factor = att.dtype.type(1) if source[c] + target[c] > 0 else slope
                        dsrc[b, t, j, h, c] += alpha * gradient[c] + dscore * att[h, c] * factor
