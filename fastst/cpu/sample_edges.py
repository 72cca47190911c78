"""Sampling of edges on the CPU: noise, threshold, validity and the information term in one pass over the logits, in place where they are made here.

Four frames of a slot (or four edges of an edge list) share one Philox call. Loops are written so that the compiler makes vectors of them.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, compile_sums, exp, log, log1p
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import clear
from fastst.cpu.products import frame_counts
from fastst.cpu.threads import run_ranges
from fastst.graph_index import GraphIndex
from fastst.sampling import Sampling

_INLINE = numba.njit(nogil=True, error_model="numpy", forceinline=True, fastmath={"contract"})
_CHUNK = 1024  # values that a thread makes at once
_LANES = 16  # of the widest vector: loops over a multiple of them leave nothing for one at a time
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_SCALE = np.float32(4.6566127342e-10)  # of `fastst.ops.random`
_LIMIT = 750  # e^-750 is 0, in float64 too, and numbers up to here have products with 0
_TINY = 1e-37  # of a smaller probability the logarithm is multiplied by nothing
_NEARLY_LINEAR = 1 / 64  # up to here 1 - e^-x has a short series


def sample_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """1 where an edge exists and its score is above 0, else 0; NaN for a logit that is NaN."""
    gamma = logits.to(torch.promote_types(logits.dtype, torch.float32))
    kept = empty(*logits.shape, dtype=gamma.dtype)
    work = work_of(logits.shape, sample_ids, lengths, index.offset, seed, hops)
    keep(gamma, kept, None, None, work, sampling)
    return kept.to(logits.dtype)


def sample_edges_backward(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """dkept / τ at the edges that exist, but 0 at a logit of ±∞; for the sigmoid estimator times σ'(z),
    with the noise made again."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    gamma, gradient = logits.to(dtype), empty(*dkept.shape, dtype=dtype)
    work = work_of(logits.shape, sample_ids, lengths, index.offset, seed, hops)
    write_slope(dkept, gamma, gradient, None, None, None, work, sampling)
    return gradient.to(logits.dtype)


def keep(
    gamma: Tensor,
    kept: Tensor,
    bias: Tensor | None,
    prior: Tensor | None,
    work: tuple,
    sampling: Sampling,
) -> Tensor | None:
    """Writes `kept`; with a prior the divergences of every walk's edges, summed.  # [B]"""
    B, chunks = len(gamma), work[0]
    parts = empty(B, chunks // max(B, 1) if prior is not None else 0, dtype=torch.float64)
    flat = gamma.reshape(-1), _of_slots(bias, gamma), kept.view(-1), parts.view(-1)
    options = sampling.beta, sampling.eps, _flag(sampling.noise == "gumbel"), *_informed(prior, sampling)
    run_ranges(_keep_chunks, *work, *flat, *options)
    if prior is None:
        return None
    total = empty(B, dtype=gamma.dtype)
    run_ranges(_sum_parts, 1, parts, total)  # so little that other threads would come too late
    return total


def write_slope(
    dkept: Tensor,
    gamma: Tensor,
    gradient: Tensor,
    bias: Tensor | None,
    prior: Tensor | None,
    weight: Tensor | None,
    work: tuple,
    sampling: Sampling,
) -> None:
    """Writes `gradient`, which may be `gamma`."""
    weights = gamma.new_empty(0) if weight is None else weight.to(gamma.dtype)
    edges = dkept.to(gamma.dtype), gamma, gradient
    flat = *(values.reshape(-1) for values in edges), _of_slots(bias, gamma), weights
    flags = _flag(sampling.noise == "gumbel"), _flag(sampling.estimator == "sigmoid")
    options = sampling.beta, sampling.tau, sampling.eps, *flags
    run_ranges(_slope_chunks, *work, *flat, *options, *_informed(prior, sampling))


def _of_slots(bias: Tensor | None, like: Tensor) -> Tensor:
    return like.new_zeros(like.shape[1]) if bias is None else bias.to(like.dtype)


def _flag(value: bool) -> tuple[int, ...]:
    """A tuple of length 0 or 1, by which kernels are compiled apart."""
    return (0,) * value


def _informed(prior: Tensor | None, sampling: Sampling) -> tuple[tuple, float, float, float]:
    """Whether there is a prior r; log β, log r and log(1 - r)."""
    r = 0.5 if prior is None else prior.item()
    return _flag(prior is not None), math.log(sampling.beta), math.log(r), math.log1p(-r)


def work_of(
    shape: torch.Size,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: Tensor,
    hops: int,
) -> tuple:
    """How many chunks there are, and what every kernel has to know of the edges: rows of values that follow one another in the random numbers.

    A row is a slot's frames, or all edges of an edge list.
    """
    B, P, T = shape
    rows, count = (1, P) if hops == 0 else (P, T)
    chunks = B * rows * -(-count // _CHUNK)
    bits = int(seed) % (1 << 64)
    key = np.uint64(bits & 0xFFFFFFFF), np.uint64(bits >> 32)
    return chunks, rows, count, *key, sample_ids.long(), frame_counts(lengths, B, T), offset, hops == 0


@compile_loops
def uniforms(out, first, count, row, n, kind, k0, k1):
    """u of the values first … first + count - 1 of a row; `first` is a multiple of 4."""
    group = np.uint64(first // 4)
    for g in range((count + 3) // 4):
        c0, c1, c2, c3 = group + np.uint64(g), row, n, kind
        key0, key1 = k0, k1
        for _ in range(10):
            left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
            c0, c1 = (right >> _HALF) ^ c1 ^ key0, right & _WORD
            c2, c3 = (left >> _HALF) ^ c3 ^ key1, left & _WORD
            key0, key1 = (key0 + _KEY_STEPS[0]) & _WORD, (key1 + _KEY_STEPS[1]) & _WORD
        out[4 * g] = _uniform(c0)
        out[4 * g + 1] = _uniform(c1)
        out[4 * g + 2] = _uniform(c2)
        out[4 * g + 3] = _uniform(c3)


@numba.njit(nogil=True, inline="always")
def _uniform(word):
    signed = np.int32(np.uint32(word))
    return np.float32(~signed if signed < 0 else signed) * _SCALE


@numba.njit(nogil=True, inline="always")
def _threshold(u, beta, eps, gumbel):
    """What a logit has to exceed for its edge to stay."""
    if len(gumbel):
        return log(eps - beta * log(u + eps))
    return log((np.float32(1) - u + eps) / (u + eps))


@_INLINE
def _keep_or_remove(gamma, u, eps, eps_per_beta, log_beta, gumbel):
    """1 where z > 0, else 0: where e^γ / β > ε / β - log(u + ε), or e^γ (u + ε) > 1 - u + ε. With an
    exponential, which the divergence needs too, instead of a logarithm or two."""
    kind = type(gamma)
    if len(gumbel):
        left, right = _power(gamma - log_beta), eps_per_beta - log(u + eps)
    else:
        _, odds, _ = _odds(gamma)
        left, right = u + eps, kind(1) - u + eps
        left, right = (left, odds * right) if gamma > kind(0) else (odds * left, right)
    # neither above nor not above: NaN, which must not look like a removed edge
    return kind(1) if left > right else (kind(0) if left <= right else gamma)


@_INLINE
def _divergence(gamma, log_beta, log_r, log_s, gumbel):
    """KL(Bernoulli(p) ‖ Bernoulli(r)), s = 1 - r."""
    kind = type(gamma)
    if len(gumbel):
        rate, p, q = _rate(gamma, log_beta)
        log_p = log(kind(_TINY) if p < kind(_TINY) else p)
        return p * (log_p - log_r) - q * (rate + log_s)
    size, odds, likely = _odds(gamma)
    unlikely = odds * likely
    p = likely if gamma > kind(0) else unlikely
    entropy = log1p(odds) + unlikely * size
    return -entropy - p * (log_r - log_s) - log_s


@_INLINE
def _divergence_slope(gamma, log_beta, log_r, log_s, gumbel):
    """(logit p - logit r) dp/dγ"""
    kind = type(gamma)
    if len(gumbel):
        rate, p, q = _rate(gamma, log_beta)
        log_p = log(kind(_TINY) if p < kind(_TINY) else p)
        return (log_p + rate - log_r + log_s) * (q * rate)
    size, odds, likely = _odds(gamma)
    logit = size if gamma > kind(0) else -size
    return (logit - log_r + log_s) * (odds * likely * likely)


@_INLINE
def _rate(gamma, log_beta):
    """rate = e^γ / β, p = 1 - e^-rate, 1 - p"""
    kind = type(gamma)
    rate = _power(gamma - log_beta)
    rate = kind(_LIMIT) if rate > kind(_LIMIT) else rate
    q = _power(-rate)
    series = kind(1 / 6) - rate * (kind(1 / 24) - rate * kind(1 / 120))
    series = rate * (kind(1) - rate * (kind(0.5) - rate * series))
    return rate, series if rate < kind(_NEARLY_LINEAR) else kind(1) - q, q


@_INLINE
def _power(x):
    """e^x, to be called where numba does not see through two `exp` that it puts into one function."""
    return exp(x)


@_INLINE
def _odds(gamma):
    """|γ|, e^-|γ|, and the larger one of p and 1 - p, σ(|γ|)"""
    kind = type(gamma)
    size = abs(gamma)
    size = kind(_LIMIT) if size > kind(_LIMIT) else size
    odds = exp(-size)
    return size, odds, kind(1) / (kind(1) + odds)


@numba.njit(nogil=True, inline="always")
def _chunk(item, rows, count, lengths, offset, of_edge_list):
    """Walk, row, first value and number of values of a chunk, and the values of the row, from lo up to hi, at which an edge exists."""
    chunks = (count + _CHUNK - 1) // _CHUNK
    b, row, first = item // (chunks * rows), item // chunks % rows, item % chunks * _CHUNK
    lo, hi = 0, count
    if not of_edge_list:
        lo, hi = max(0, -offset[row]), min(lengths[b], lengths[b] - offset[row])
    return b, row, first, min(_CHUNK, count - first), lo, hi


@compile_loops
def _keep_chunks(
    first_item, last_item, rows, count, k0, k1, sample_ids, lengths, offset, of_edge_list,
    logits, bias, kept, parts, beta, eps, gumbel, informed, log_beta, log_r, log_s,
):  # fmt: skip
    kind = logits.dtype.type
    eps_, eps_per_beta = kind(eps), kind(eps / beta)
    log_beta_, log_r_, log_s_ = kind(log_beta), kind(log_r), kind(log_s)
    u, gamma = np.zeros(_CHUNK + 4 + _LANES, np.float32), np.zeros(_CHUNK, logits.dtype)
    result, divergence = np.empty(_CHUNK, logits.dtype), np.empty(_CHUNK, logits.dtype)
    for item in range(first_item, last_item):
        b, row, first, number, lo, hi = _chunk(item, rows, count, lengths, offset, of_edge_list)
        at = (b * rows + row) * count + first
        begin, end = max(0, min(lo - first, number)), max(0, min(hi - first, number))
        clear(kept, at, at + begin)
        clear(kept, at + max(begin, end), at + number)
        if len(informed):
            parts[item] = 0
        if begin >= end:
            continue
        n = np.uint64(sample_ids[b]) & _WORD
        uniforms(u, first, number, np.uint64(row), n, np.uint64(of_edge_list), k0, k1)
        # The result may be written over the logits, which are taken out first: loops that read and
        # write one array don't become vectors.
        whole = _take_logits(gamma, logits, bias, at, first, row, begin, end, of_edge_list)
        mine, out = u[begin : begin + whole], kept[at + begin : at + end]
        for i in range(whole):
            logit = gamma[i]
            result[i] = _keep_or_remove(logit, kind(mine[i]), eps_, eps_per_beta, log_beta_, gumbel)
            if len(informed):
                divergence[i] = _divergence(logit, log_beta_, log_r_, log_s_, gumbel)
        for i in range(len(out)):
            out[i] = result[i]
        if len(informed):
            clear(divergence, len(out), whole)
            parts[item] = _sum(divergence, whole)


@numba.njit(nogil=True, inline="always")
def _take_logits(gamma, logits, bias, at, first, row, begin, end, of_edge_list):
    """Those of a chunk's edges, with what is added to each; how many there are, in whole vectors."""
    mine, stride = (bias[first + begin :], 1) if of_edge_list else (bias[row:], 0)
    here = logits[at + begin : at + end]
    for i in range(end - begin):
        gamma[i] = here[i] + mine[i * stride]
    return (end - begin + _LANES - 1) // _LANES * _LANES


@compile_sums
def _sum(values, count):
    total = values.dtype.type(0)
    for i in range(count):
        total += values[i]
    return total


@compile_loops
def _sum_parts(first, last, parts, total):
    """In the order of the slots and frames, so that chunks of a longer padding, which are 0, change no bit."""
    for b in range(len(parts)):
        of_walk = 0.0
        for i in range(parts.shape[1]):
            of_walk += parts[b, i]
        total[b] = of_walk


@compile_loops
def _slope_chunks(
    first_item, last_item, rows, count, k0, k1, sample_ids, lengths, offset, of_edge_list,
    dkept, logits, gradient, bias, weight, beta, tau, eps, gumbel, smooth, informed, log_beta, log_r, log_s,
):  # fmt: skip
    kind = gradient.dtype.type
    beta_, eps_, slope = kind(beta), kind(eps), kind(1 / tau)
    log_beta_, log_r_, log_s_ = kind(log_beta), kind(log_r), kind(log_s)
    u, gamma = np.zeros(_CHUNK + 4 + _LANES, np.float32), np.zeros(_CHUNK, gradient.dtype)
    given, result = np.zeros(_CHUNK, gradient.dtype), np.empty(_CHUNK, gradient.dtype)
    for item in range(first_item, last_item):
        b, row, first, number, lo, hi = _chunk(item, rows, count, lengths, offset, of_edge_list)
        at = (b * rows + row) * count + first
        begin, end = max(0, min(lo - first, number)), max(0, min(hi - first, number))
        clear(gradient, at + max(begin, end), at + number)
        clear(gradient, at, at + begin)
        if begin >= end:
            continue
        here, out = dkept[at + begin : at + end], gradient[at + begin : at + end]
        if len(smooth):
            n = np.uint64(sample_ids[b]) & _WORD
            uniforms(u, first, number, np.uint64(row), n, np.uint64(of_edge_list), k0, k1)
        whole = _take_logits(gamma, logits, bias, at, first, row, begin, end, of_edge_list)
        for i in range(len(out)):
            given[i] = here[i]
        mine, factor = u[begin : begin + whole], weight[b] if len(informed) else kind(0)
        for i in range(whole):
            logit, straight = gamma[i], given[i] * slope
            if len(smooth):
                z = (logit - _threshold(kind(mine[i]), beta_, eps_, gumbel)) * slope
                soft = kind(1) / (kind(1) + exp(-z))
                straight = straight * soft * (kind(1) - soft)
            straight = kind(0) if abs(logit) == kind(np.inf) else straight
            if len(informed):
                straight += factor * _divergence_slope(logit, log_beta_, log_r_, log_s_, gumbel)
            result[i] = straight
        for i in range(len(out)):
            out[i] = result[i]
