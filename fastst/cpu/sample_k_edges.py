"""Exactly k edges of every group on the CPU: groups are shared out to threads, and a group's loops run over its counts, which the compiler makes
vectors of.

A group's candidates are gone through in order. With the ratio ρ_j = e_j / e_{j-1} of neighbouring elementary symmetric polynomials of the weights so
far, the next candidate of weight w is in, where j of all up to it are, with the chance q_j = w / (ρ_j + w); and then
ρ_j becomes (ρ_j + w) ρ_{j-1} / (ρ_{j-1} + w). All terms are positive, so nothing cancels, and no logarithm is needed. Backwards, from k at the end,
the chances are those of a Markov chain of counts: it draws samples, and the probabilities of its states give the marginals.
Everything is float64.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, compile_sums
from fastst.cpu.products import frame_counts
from fastst.cpu.sample_edges import uniforms
from fastst.cpu.threads import run_ranges
from fastst.graph_index import GraphIndex

_INLINE = numba.njit(nogil=True, inline="always")
_WORD = np.uint64(0xFFFFFFFF)
_FURTHEST = 300.0  # e^-300 from the k-th largest weight a candidate is certain to be in or out
_EPS = 1e-10  # of `fastst.ops.k_subsets`


def sample_k_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Kept edges, marginals and log-probabilities.  # [S, B, P, T], [B, P, T], [S, B]"""
    given, work, noise = _prepared(logits, sample_ids, lengths, index, seed, hops, k, per, widest)
    B, count = len(logits), work[0]
    kept, marginals = given.new_zeros(samples, *given.shape), torch.zeros_like(given)
    parts = given.new_empty(B, count // max(B, 1), samples, dtype=torch.float64)
    run_ranges(_sample_groups, *work, *noise, given.view(-1), kept.view(samples, -1), marginals.view(-1), parts.view(count, samples))
    return kept.to(logits.dtype), marginals, parts.sum(1).T.to(given.dtype)


def covariance_product(logits: Tensor, toward: Tensor, lengths: Tensor | None, index: GraphIndex, hops: int, k: int, per: str, widest: int) -> Tensor:
    """The covariance matrix of a group's edges times `toward`, which is the gradient of Σ toward · marginals.  # [B, P, T]"""
    given, work, _ = _prepared(logits, None, lengths, index, None, hops, k, per, widest)
    product = torch.zeros_like(given)
    run_ranges(_multiply_groups, *work, given.view(-1), toward.to(given.dtype).reshape(-1), product.view(-1))
    return product


def perturbed_top_k(
    logits: Tensor,
    nudge: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
) -> Tensor:
    """1 at the k largest logit + Gumbel noise + nudge of every group.  # [S, B, P, T]"""
    given, work, noise = _prepared(logits, sample_ids, lengths, index, seed, hops, k, per, widest)
    kept = given.new_zeros(samples, *given.shape)
    nudges = given.new_empty(0) if nudge is None else nudge.to(given.dtype).reshape(-1)
    run_ranges(_perturb_groups, *work, *noise, given.view(-1), nudges, kept.view(samples, -1))
    return kept.to(logits.dtype)


def _prepared(
    logits: Tensor,
    sample_ids: Tensor | None,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor | None,
    hops: int,
    k: int,
    per: str,
    widest: int,
) -> tuple[Tensor, tuple[Any, ...], tuple[Any, ...]]:
    """Logits of at least float32; how many groups there are and what every kernel has to know of them; what the random numbers depend on."""
    B, P, T = logits.shape
    given = logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
    by_node = per == "dst"
    order = index.dst_order if by_node else torch.arange(P, dtype=torch.int32)
    bounds = index.dst_ptr if by_node else torch.tensor([0, P], dtype=torch.int32)
    frames = 1 if per == "graph" else T  # groups that a row of slots has, one behind the other in time
    count = B * (len(bounds) - 1) * frames
    ends = index.src, index.dst, index.offset
    work = count, P, T, k, frames, widest * (T if per == "graph" else 1), order, bounds, *ends, frame_counts(lengths, B, T)
    if sample_ids is None or seed is None:
        return given, work, ()
    bits = int(seed) % (1 << 64)
    key = np.uint64(bits & 0xFFFFFFFF), np.uint64(bits >> 32)
    return given, work, (*key, sample_ids.long(), hops == 0)


@_INLINE
def _candidates(item, P, T, k, frames, order, bounds, src, dst, offset, lengths, logits, theta, place):
    """The edges that a group can keep, in the order of its slots and frames: their logits less the k-th largest and their places; the walk, how many
    there are and how many stay. A number below 0 for a group with a logit that is no number: how many edges it has, less one.

    Where more than k logits are +∞, only they are candidates, all alike. One of -∞ never is.
    """
    rows = len(bounds) - 1
    b, row, frame = item // (rows * frames), item // frames % rows, item % frames
    begin, end = (0, T) if frames == 1 else (frame, frame + 1)
    n, is_number = 0, True
    for o in range(bounds[row], bounds[row + 1]):
        p = order[o]
        if src[p] == dst[p] and offset[p] == 0:
            continue
        at = (b * P + p) * T
        for t in range(max(begin, -offset[p]), min(end, lengths[b], lengths[b] - offset[p])):
            logit = float(logits[at + t])
            if logit != -np.inf:
                theta[n], place[n] = logit, at + t
                n += 1
                is_number = is_number and logit == logit
    if not is_number:
        return b, -1 - n, 0
    taken = min(k, n)
    if 0 < taken < n:
        n = _relative(theta, place, n, taken)
    return b, n, taken


@compile_loops
def _relative(theta, place, n, k):
    """Takes the k-th largest logit from all, and drops those that are infinitely below it."""
    middle = _kth_largest(theta[:n].copy(), k)
    left = 0
    for i in range(n):
        if theta[i] != middle and math.isinf(middle):
            continue
        theta[left] = 0.0 if theta[i] == middle else theta[i] - middle
        place[left] = place[i]
        left += 1
    return left


@compile_loops
def _kth_largest(values, k):
    """Hoare's selection; `values` are put into another order."""
    first, last = 0, len(values) - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            last = j
        elif k - 1 >= i:
            first = i
        else:
            break
    return values[k - 1]


@compile_loops
def _chances(theta, n, k, q, ratio, total, stay):
    """q[i, j] for every candidate i and count j; the ratios at the end, whose product is e_k."""
    for j in range(k + 1):
        ratio[j] = 0.0
    stay[0] = 1.0
    for i in range(n):
        w = math.exp(max(-_FURTHEST, min(_FURTHEST, theta[i])))
        top, row = min(i + 1, k), q[i * (k + 1) : (i + 1) * (k + 1)]
        row[0] = 0.0
        for j in range(1, top + 1):
            both = ratio[j] + w
            inverse = 1.0 / both
            row[j] = w * inverse
            stay[j] = ratio[j] * inverse
            total[j] = both
        for j in range(1, top + 1):
            ratio[j] = total[j] * stay[j - 1]


@compile_sums
def _dot(left, right, first, last):
    total = 0.0
    for j in range(first, last):
        total += left[j] * right[j]
    return total


@_INLINE
def _step_back(reach, row, top):
    """The probabilities of the counts up to candidate i - 1, from those up to i."""
    for j in range(top):
        reach[j] = reach[j] * (1.0 - row[j]) + reach[j + 1] * row[j + 1]
    reach[top] *= 1.0 - row[top]


@_INLINE
def _start_of_chain(reach, k):
    for j in range(k):
        reach[j] = 0.0
    reach[k] = 1.0


@compile_loops
def _write_marginals(q, n, k, reach, place, marginals):
    _start_of_chain(reach, k)
    for i in range(n - 1, -1, -1):
        top, row = min(i + 1, k), q[i * (k + 1) : (i + 1) * (k + 1)]
        marginals[place[i]] = min(1.0, _dot(reach, row, 1, top + 1))
        _step_back(reach, row, top)


@_INLINE
def _counter(place, P, T, of_edge_list):
    """Row and column of an edge in the random numbers."""
    p, t = place // T % P, place % T
    return (0, p) if of_edge_list else (p, t)


@compile_loops
def _write_sample(q, theta, n, k, u, counter, P, T, k0, k1, walk, kind, of_edge_list, place, kept):
    """Draws one sample; the sum of its logits."""
    j, total, current = k, 0.0, -1
    for i in range(n - 1, -1, -1):
        if j == 0:
            break
        row, column = _counter(place[i], P, T, of_edge_list)
        if current != row * counter + column // 4:
            current = row * counter + column // 4
            uniforms(u, column // 4 * 4, 4, np.uint64(row), walk, kind, k0, k1)
        if u[column % 4] < q[i * (k + 1) + j]:
            kept[place[i]] = 1
            total += max(-_FURTHEST, min(_FURTHEST, theta[i]))
            j -= 1
    return total


@compile_loops
def _sample_groups(
    first, last, P, T, k, frames, widest, order, bounds, src, dst, offset, lengths,
    k0, k1, sample_ids, of_edge_list, logits, kept, marginals, parts,
):  # fmt: skip
    theta, place, u = np.empty(widest, np.float64), np.empty(widest, np.int64), np.empty(4, np.float32)
    counts, q = np.empty((3, min(k, widest) + 1), np.float64), np.empty(0, np.float64)
    for item in range(first, last):
        b, n, taken = _candidates(item, P, T, k, frames, order, bounds, src, dst, offset, lengths, logits, theta, place)
        if n < 0 or taken == n or taken == 0:
            value = np.nan if n < 0 else (1.0 if taken else 0.0)
            _fill(kept, marginals, place, -1 - n if n < 0 else n, value)
            for s in range(len(kept)):
                parts[item, s] = np.nan if n < 0 else 0.0
            continue
        if len(q) < n * (taken + 1):
            q = np.empty(n * (taken + 1), np.float64)
        _chances(theta, n, taken, q, counts[0], counts[1], counts[2])
        whole = 0.0
        for j in range(1, taken + 1):
            whole += math.log(counts[0, j])
        _write_marginals(q, n, taken, counts[1], place, marginals)
        walk = np.uint64(sample_ids[b]) & _WORD
        for s in range(len(kept)):
            kind = np.uint64(2 * s + of_edge_list)
            of_sample = _write_sample(q, theta, n, taken, u, P + T, P, T, k0, k1, walk, kind, of_edge_list, place, kept[s])
            parts[item, s] = of_sample - whole


@_INLINE
def _fill(kept, marginals, place, n, value):
    for i in range(n):
        marginals[place[i]] = value
        for s in range(len(kept)):
            kept[s, place[i]] = value


@compile_loops
def _values(q, toward, place, n, k, value, values):
    """values[i, j]: what Σ toward over candidates 0 … i - 1 is expected to be, where j of them are kept; and the same of all n, of which k are."""
    for j in range(k + 1):
        value[j] = 0.0
    for i in range(n):
        top, row, before = min(i + 1, k), q[i * (k + 1) : (i + 1) * (k + 1)], values[i * (k + 1) : (i + 1) * (k + 1)]
        for j in range(top + 1):
            before[j] = value[j]
        gain = float(toward[place[i]])
        for j in range(1, top + 1):
            value[j] = row[j] * (before[j - 1] + gain) + (1.0 - row[j]) * before[j]
    return value[k]


@compile_loops
def _write_product(q, values, expected, toward, n, k, reach, later, place, product):
    """E[z_i G] - E[z_i] E[G], G = Σ toward z. later[j]: of what comes after candidate i, its share in E[G] that goes through count j."""
    _start_of_chain(reach, k)
    for j in range(k + 1):
        later[j] = 0.0
    for i in range(n - 1, -1, -1):
        top, row, before = min(i + 1, k), q[i * (k + 1) : (i + 1) * (k + 1)], values[i * (k + 1) : (i + 1) * (k + 1)]
        gain = float(toward[place[i]])
        product[place[i]] = _with_candidate(reach, later, row, before, gain - expected, top)
        for j in range(top):
            later[j] = later[j] * (1.0 - row[j]) + (later[j + 1] + reach[j + 1] * gain) * row[j + 1]
        later[top] *= 1.0 - row[top]
        _step_back(reach, row, top)


@compile_sums
def _with_candidate(reach, later, row, before, gain, top):
    total = 0.0
    for j in range(1, top + 1):
        total += row[j] * (reach[j] * (before[j - 1] + gain) + later[j])
    return total


@compile_loops
def _multiply_groups(first, last, P, T, k, frames, widest, order, bounds, src, dst, offset, lengths, logits, toward, product):
    theta, place = np.empty(widest, np.float64), np.empty(widest, np.int64)
    counts, q, values = np.empty((3, min(k, widest) + 1), np.float64), np.empty(0, np.float64), np.empty(0, np.float64)
    for item in range(first, last):
        _, n, taken = _candidates(item, P, T, k, frames, order, bounds, src, dst, offset, lengths, logits, theta, place)
        for i in range(-1 - n):
            product[place[i]] = np.nan
        if n < 0 or taken == n or taken == 0:
            continue
        if len(q) < n * (taken + 1):
            q, values = np.empty(n * (taken + 1), np.float64), np.empty(n * (taken + 1), np.float64)
        _chances(theta, n, taken, q, counts[0], counts[1], counts[2])
        expected = _values(q, toward, place, n, taken, counts[0], values)
        _write_product(q, values, expected, toward, n, taken, counts[0], counts[1], place, product)


@compile_loops
def _perturb_groups(
    first, last, P, T, k, frames, widest, order, bounds, src, dst, offset, lengths,
    k0, k1, sample_ids, of_edge_list, logits, nudge, kept,
):  # fmt: skip
    theta, place, value = np.empty(widest, np.float64), np.empty(widest, np.int64), np.empty(widest, np.float64)
    u = np.empty(4, np.float32)
    for item in range(first, last):
        b, n, taken = _candidates(item, P, T, k, frames, order, bounds, src, dst, offset, lengths, logits, theta, place)
        walk = np.uint64(sample_ids[b]) & _WORD
        for s in range(len(kept)):
            if n < 0 or taken == n or taken == 0:
                for i in range(-1 - n if n < 0 else n):
                    kept[s, place[i]] = np.nan if n < 0 else (1.0 if taken else 0.0)
                continue
            kind = np.uint64(2 * s + of_edge_list)
            _perturb(theta, n, u, P + T, P, T, k0, k1, walk, kind, of_edge_list, place, value)
            if len(nudge):
                for i in range(n):
                    value[i] += float(nudge[s * logits.size + place[i]])
            _write_largest(value, n, taken, place, kept[s])


@compile_loops
def _perturb(theta, n, u, counter, P, T, k0, k1, walk, kind, of_edge_list, place, value):
    current = -1
    for i in range(n):
        row, column = _counter(place[i], P, T, of_edge_list)
        if current != row * counter + column // 4:
            current = row * counter + column // 4
            uniforms(u, column // 4 * 4, 4, np.uint64(row), walk, kind, k0, k1)
        value[i] = theta[i] - math.log(_EPS - math.log(float(u[column % 4]) + _EPS))


@compile_loops
def _write_largest(value, n, k, place, kept):
    """1 at the k largest values, of equal ones at the first; NaN where one is no number."""
    for i in range(n):
        if value[i] != value[i]:
            for other in range(n):
                kept[place[other]] = np.nan
            return
    least = _kth_largest(value[:n].copy(), k)
    left = k
    for i in range(n):
        left -= value[i] > least
    for i in range(n):
        if value[i] > least:
            kept[place[i]] = 1
        elif value[i] == least and left > 0:
            kept[place[i]] = 1
            left -= 1
