"""Sampling of edges on the CPU: noise, threshold and validity in one pass over the logits, in place where they are made here.

Four frames of a slot (or four edges of an edge list) share one Philox call. Loops are written so that the compiler makes vectors of them.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops, exp, log
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import clear
from fastst.cpu.products import edge_dot, frame_counts
from fastst.cpu.threads import run_ranges
from fastst.graph import GraphIndex

_CHUNK = 1024  # values that a thread makes at once
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_SCALE = np.float32(4.6566127342e-10)  # of `fastst.ops.random`


def sample_edges(
    logits: Tensor, sample_ids: Tensor, lengths: Tensor | None, offset: Tensor, seed: int, hops: int, beta: float, eps: float, noise: str
) -> Tensor:
    """1 where an edge exists and its score is above 0, else 0; NaN for a logit that is NaN."""
    gamma = logits.to(torch.promote_types(logits.dtype, torch.float32))
    kept = empty(*logits.shape, dtype=gamma.dtype)
    _sample(gamma, kept, None, sample_ids, lengths, offset, seed, hops, beta, eps, noise)
    return kept.to(logits.dtype)


def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: int,
    hops: int,
    beta: float,
    eps: float,
    noise: str,
) -> Tensor:
    """`sample_edges` of the logits q · k + bias, which are overwritten where they are made."""
    kept = edge_dot(q, k, index, hops, lengths)
    _sample(kept, kept, bias, sample_ids, lengths, index.offset, seed, hops, beta, eps, noise)
    return kept


def sample_edges_backward(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
) -> Tensor:
    """dkept / τ at the edges that exist; for `estimator="sigmoid"` times σ'(z), with the noise made again."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    gradient = empty(*dkept.shape, dtype=dtype)
    work = _work(dkept.shape, sample_ids, lengths, offset, seed, hops)
    gamma, smooth = (logits.to(dtype), (0,)) if estimator == "sigmoid" else (gradient, ())
    flat = (v.reshape(-1) for v in (dkept.to(dtype), gamma, gradient))
    run_ranges(_slope_chunks, *work, *flat, beta, tau, eps, noise == "gumbel", smooth)
    return gradient.to(logits.dtype)


def _sample(
    gamma: Tensor,
    kept: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    eps: float,
    noise: str,
) -> None:
    P = gamma.shape[1]
    slot_bias = torch.zeros(P, dtype=gamma.dtype) if bias is None else bias.to(gamma.dtype)
    work = _work(gamma.shape, sample_ids, lengths, offset, seed, hops)
    run_ranges(_keep_chunks, *work, gamma.reshape(-1), slot_bias, kept.view(-1), beta, eps, noise == "gumbel")


def _work(shape: torch.Size, sample_ids: Tensor, lengths: Tensor | None, offset: Tensor, seed: int, hops: int) -> tuple:
    """How many chunks there are, and what every kernel has to know of the edges: rows of values that follow one another in the random numbers.

    A row is a slot's frames, or all edges of an edge list.
    """
    B, P, T = shape
    rows, count = (1, P) if hops == 0 else (P, T)
    chunks = B * rows * -(-count // _CHUNK)
    bits = seed % (1 << 64)
    key = np.uint64(bits & 0xFFFFFFFF), np.uint64(bits >> 32)
    return chunks, rows, count, *key, sample_ids.long(), frame_counts(lengths, B, T), offset, hops == 0


@compile_loops
def _uniforms(out, first, count, row, n, kind, k0, k1):
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
    if gumbel:
        return log(eps - beta * log(u + eps))
    return log(np.float32(1) - u + eps) - log(u + eps)


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
    first_item, last_item, rows, count, k0, k1, sample_ids, lengths, offset, of_edge_list, logits, bias, kept, beta, eps, gumbel
):  # fmt: skip
    kind = logits.dtype.type
    beta_, eps_ = kind(beta), kind(eps)
    u, gamma = np.empty(_CHUNK + 4, np.float32), np.empty(_CHUNK, logits.dtype)
    for item in range(first_item, last_item):
        b, row, first, number, lo, hi = _chunk(item, rows, count, lengths, offset, of_edge_list)
        n = np.uint64(sample_ids[b]) & _WORD
        _uniforms(u, first, number, np.uint64(row), n, np.uint64(of_edge_list), k0, k1)
        at = (b * rows + row) * count + first
        begin, end = max(0, min(lo - first, number)), max(0, min(hi - first, number))
        clear(kept, at, at + begin)
        clear(kept, at + max(begin, end), at + number)
        if begin >= end:
            continue
        mine, here, out = u[begin:end], logits[at + begin : at + end], kept[at + begin : at + end]
        # The result may be written over the logits, which are taken out first: loops that read and write one array don't become vectors.
        mine_bias, stride = bias[first + begin if of_edge_list else row :], 1 if of_edge_list else 0
        for i in range(len(out)):
            gamma[i] = here[i] + mine_bias[i * stride]
        for i in range(len(out)):
            threshold = _threshold(kind(mine[i]), beta_, eps_, gumbel)
            # neither above nor not above: NaN, which must not look like a removed edge
            out[i] = kind(1) if gamma[i] > threshold else (kind(0) if gamma[i] <= threshold else gamma[i])


@compile_loops
def _slope_chunks(
    first_item, last_item, rows, count, k0, k1, sample_ids, lengths, offset, of_edge_list, dkept, logits, gradient, beta, tau, eps, gumbel, smooth
):  # fmt: skip
    kind = gradient.dtype.type
    beta_, eps_, slope = kind(beta), kind(eps), kind(1 / tau)
    u = np.empty(_CHUNK + 4, np.float32)
    for item in range(first_item, last_item):
        b, row, first, number, lo, hi = _chunk(item, rows, count, lengths, offset, of_edge_list)
        at = (b * rows + row) * count + first
        begin, end = max(0, min(lo - first, number)), max(0, min(hi - first, number))
        clear(gradient, at, at + begin)
        clear(gradient, at + max(begin, end), at + number)
        if begin >= end:
            continue
        given, out = dkept[at + begin : at + end], gradient[at + begin : at + end]
        if len(smooth) == 0:
            for i in range(len(out)):
                out[i] = given[i] * slope
            continue
        n = np.uint64(sample_ids[b]) & _WORD
        _uniforms(u, first, number, np.uint64(row), n, np.uint64(of_edge_list), k0, k1)
        mine, here = u[begin:end], logits[at + begin : at + end]
        for i in range(len(out)):
            z = (here[i] - _threshold(kind(mine[i]), beta_, eps_, gumbel)) * slope
            soft = kind(1) / (kind(1) + exp(-z))
            out[i] = given[i] * slope * soft * (kind(1) - soft)
