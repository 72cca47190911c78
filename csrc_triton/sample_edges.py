"""Sampling of edges on the GPU: Philox noise, threshold and existence in one kernel.

Edges lie in rows: on a skeleton a row is a slot, its columns are the frames; an edge list is one row. The four words of a Philox call belong to
four neighbours in a row, so the noise of a tile is made on a tile of a quarter of the width and interleaved.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import row_strides, slot_rows, walk_length
from csrc_triton.launch import Settled, launch, launch_options, number_or_pointer
from fastst.graph_index import GraphIndex
from fastst.sampling import Sampling

_BELOW_ONE = tl.constexpr(1 - 2**-24)  # the largest uniform number
_LIMIT = tl.constexpr(750.0)  # e^-750 is 0, in float64 too, and numbers up to here have products with 0
_TINY = tl.constexpr(1e-37)  # of a smaller probability the logarithm is multiplied by nothing
_NEARLY_LINEAR = tl.constexpr(1 / 64)  # up to here 1 - e^-x has a short series


def sample_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """kept = 1 where γ - log(-β log(u + ε) + ε) > 0; with logistic noise where
    γ + log(u + ε) - log(1 - u + ε) > 0.  # [B, P, T], γ's dtype"""
    logits = logits.contiguous()
    kept = torch.empty_like(logits)
    seed_number, seed_pointer = number_or_pointer(seed)
    pointers = (logits, kept, sample_ids.contiguous(), lengths, index.slots, seed_pointer)
    key = (logits.shape, hops, sampling, row_strides(index))
    launch(_sample, pointers, key, lambda: _over_edges(logits, index, hops, sampling), (seed_number,))
    return kept


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
    """dγ = dkept / τ, for which no noise is made; with the sigmoid estimator dkept σ'(z) / τ; 0 at a
    logit of ±∞.  # [B, P, T], γ's dtype"""
    dlogits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    write_slope(dkept, logits.contiguous(), dlogits, None, sample_ids, lengths, index, seed, None, None, hops, sampling)
    return dlogits


def write_slope(
    dkept: Tensor,
    logits: Tensor,
    dlogits: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    weight: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> None:
    """Writes `dlogits`, which may be `logits`."""
    ids = sample_ids.contiguous() if sampling.estimator == "sigmoid" else None
    bias = None if bias is None else bias.contiguous()
    weight = None if weight is None else weight.contiguous()
    (seed_number, seed_pointer), (prior_number, prior_pointer) = number_or_pointer(seed), prior_arguments(prior)
    pointers = (dkept.contiguous(), dlogits, logits, bias, weight, ids, lengths, index.slots, seed_pointer, prior_pointer)
    key = (dkept.shape, hops, sampling, row_strides(index))
    launch(_sample_backward, pointers, key, lambda: _over_edges(dkept, index, hops, sampling, backward=True), (seed_number, prior_number))


def prior_arguments(prior: Tensor | None) -> tuple[float, Tensor | None]:
    return (0.5, None) if prior is None else number_or_pointer(prior)


def edge_rows(edges: Tensor, hops: int) -> tuple[tuple[int, int], tuple[int], dict[str, Any], int]:
    """Rows and columns of a walk's edges, the grid, what is constant in the kernel, and warps. A thread makes four neighbours or a few times that."""
    B, rows, columns = edges.shape
    if hops == 0:
        rows, columns = 1, rows
    BC = min(max(triton.next_power_of_2(columns), 16), 256)
    # A tile of 512 edges is one Philox call a thread; small problems keep to it, so that every multiprocessor has some.
    BR = min((512 if edges.numel() < 1 << 19 else 1024) // BC, max(triton.next_power_of_2(rows), 1))
    programs = B * triton.cdiv(rows, BR) * triton.cdiv(columns, BC)
    tile = {"LIST": hops == 0, "QUADS": columns % 4 == 0, "BR": BR, "BC": BC}
    return (rows, columns), (programs,), tile, min(max(BR * BC // 128, 1), 4)


def _over_edges(edges: Tensor, index: GraphIndex, hops: int, sampling: Sampling, backward: bool = False) -> Settled:
    (rows, columns), (programs,), tile, num_warps = edge_rows(edges, hops)
    slope = {"slope": 1 / sampling.tau} if backward else {}
    numbers = {
        "beta": sampling.beta, **slope, "eps": sampling.eps, "rows": rows, "columns": columns, "slots_row": row_strides(index)[0],
        "LOGISTIC": sampling.noise == "logistic", **tile,
    }  # fmt: skip
    return Settled(programs, numbers, launch_options(num_warps=num_warps))


@triton.jit
def uniform(quad, row, sample, kind, seed):
    """u of four neighbours for every call; the counter is (quad, row, sample, kind).  # [1, Q], [R, 1] -> [R, 4 Q]"""
    first, second, third, fourth = tl.philox(seed, quad, row, sample, kind)
    words = tl.join(tl.join(first, third), tl.join(second, fourth))  # [R, Q, 2, 2], in order
    u = tl.random.uint_to_uniform_float(words.reshape(first.shape[0], 4 * first.shape[1]))
    # u never is above this. Without it u + ε and 1 - u would be fused with the multiplication that makes u, which is then not rounded.
    return tl.minimum(u, _BELOW_ONE)


@triton.jit
def threshold(u, beta, eps, LOGISTIC: tl.constexpr):
    """What γ has to exceed for the edge to stay: γ - threshold = τ z."""
    eps = tl.full([], eps, u.dtype)
    if LOGISTIC:
        return tl.log(1 - u + eps) - tl.log(u + eps)
    return tl.log(eps - tl.full([], beta, u.dtype) * tl.log(u + eps))


@triton.jit
def divergence_of(gamma, log_r, log_s, beta, LOGISTIC: tl.constexpr):
    """KL(Bernoulli(p) ‖ Bernoulli(r)), s = 1 - r."""
    if LOGISTIC:
        size, odds, likely = _odds(gamma)
        unlikely = odds * likely
        expected = tl.where(gamma > 0, likely * log_r + unlikely * log_s, unlikely * log_r + likely * log_s)
        return -tl.log(1 + odds) - unlikely * size - expected
    rate, p, log_p = _rate(gamma, beta)
    return p * (log_p - log_r) - tl.exp(-rate) * (rate + log_s)


@triton.jit
def _divergence_slope(gamma, log_r, log_s, beta, LOGISTIC: tl.constexpr):
    """(logit p - logit r) dp/dγ"""
    if LOGISTIC:
        size, odds, likely = _odds(gamma)
        return (tl.where(gamma > 0, size, -size) - log_r + log_s) * (odds * likely * likely)
    rate, _, log_p = _rate(gamma, beta)
    return (log_p + rate - log_r + log_s) * (tl.exp(-rate) * rate)


@triton.jit
def _odds(gamma):
    """|γ|, e^-|γ|, and the larger one of p and 1 - p, σ(|γ|)"""
    size = tl.abs(gamma)
    size = tl.where(size > _LIMIT, _LIMIT, size)
    odds = tl.exp(-size)
    return size, odds, 1 / (1 + odds)


@triton.jit
def _rate(gamma, beta):
    """rate = e^γ / β, p = 1 - e^-rate, log p"""
    rate = tl.exp(gamma - tl.log(tl.full([], beta, gamma.dtype)))
    rate = tl.where(rate > _LIMIT, _LIMIT, rate)
    series = rate * (1 - rate * (1 / 2 - rate * (1 / 6 - rate * (1 / 24 - rate / 120))))
    p = tl.where(rate < _NEARLY_LINEAR, series, 1 - tl.exp(-rate))
    return rate, p, tl.log(tl.where(p < _TINY, _TINY, p))


@triton.jit
def logarithms(prior, prior_ptr, compute: tl.constexpr):
    """log r and log(1 - r)"""
    r = tl.full([], prior, compute)
    if prior_ptr is not None:
        r = tl.load(prior_ptr).to(compute)
    return tl.log(r), tl.log(1 - r)


@triton.jit
def seed_of(seed, seed_ptr):
    if seed_ptr is not None:
        seed = tl.load(seed_ptr)
    return seed


@triton.jit
def keep(gamma, u, beta, eps, LOGISTIC: tl.constexpr):
    """1 where τ z = γ - threshold is above 0, else 0, but NaN where γ is NaN: that must not look like a removed edge.

    As e^γ / β > ε / β - log(u + ε), or e^γ (u + ε) > 1 - u + ε: an exponential costs a tenth of a logarithm.
    """
    eps = tl.full([], eps, u.dtype)
    if LOGISTIC:
        odds = tl.exp(-tl.abs(gamma))  # and no power above 1, of which the product with 0 may be none
        left, right = u + eps, 1 - u + eps
        left, right = tl.where(gamma > 0, left, odds * left), tl.where(gamma > 0, odds * right, right)
    else:
        beta = tl.full([], beta, u.dtype)
        left, right = tl.exp(gamma - tl.log(beta)), eps / beta - tl.log(u + eps)
    return tl.where(gamma != gamma, gamma, (left > right).to(gamma.dtype))


@triton.jit
def edge_tile(lengths_ptr, offset_ptr, rows, columns, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr):
    """Of this program: the walk, its first column, its rows [BR, 1], the addresses, which are inside and which edges exist.  # [BR, BC]"""
    if QUADS:
        columns = columns // 4 * 4  # the same, but now the compiler knows that rows begin at multiples of 16 bytes
    program = tl.program_id(0)
    tiles = tl.cdiv(columns, BC)
    first_column = program % tiles * BC
    row = (program // tiles % tl.cdiv(rows, BR) * BR + tl.arange(0, BR))[:, None]
    column = (first_column + tl.arange(0, BC))[None, :]
    b = program // tiles // tl.cdiv(rows, BR)
    at = (b.to(tl.int64) * rows + row) * columns + column
    inside = (row < rows) & (column < columns)
    exists = inside
    if not LIST:
        length = walk_length(lengths_ptr, b, columns)
        source = column + tl.load(offset_ptr + row, row < rows, 0)
        exists = inside & (source >= 0) & (source < length) & (column < length)
    return b, first_column, row, at, inside, exists


@triton.jit(do_not_specialize=["seed"])
def _sample(
    logits_ptr, kept_ptr, ids_ptr, lengths_ptr, slots_ptr, seed_ptr, seed: tl.int64, beta: tl.float64, eps: tl.float64,
    rows, columns, slots_row,
    LOGISTIC: tl.constexpr, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    b, first_column, row, at, inside, exists = edge_tile(lengths_ptr, slot_rows(slots_ptr, slots_row)[2], rows, columns, LIST, QUADS, BR, BC)
    compute: tl.constexpr = tl.float64 if logits_ptr.dtype.element_ty == tl.float64 else tl.float32
    gamma = tl.load(logits_ptr + at, inside, 0.0).to(compute)
    quad = (first_column // 4 + tl.arange(0, BC // 4))[None, :]
    u = uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1 if LIST else 0, seed_of(seed, seed_ptr))
    kept = keep(gamma, u.to(compute), beta, eps, LOGISTIC)
    tl.store(kept_ptr + at, tl.where(exists, kept, 0.0), inside)


@triton.jit(do_not_specialize=["seed"])
def _sample_backward(
    dkept_ptr, dlogits_ptr, logits_ptr, bias_ptr, weight_ptr, ids_ptr, lengths_ptr, slots_ptr, seed_ptr, prior_ptr,
    seed: tl.int64, prior: tl.float64, beta: tl.float64, slope: tl.float64, eps: tl.float64, rows, columns, slots_row,
    LOGISTIC: tl.constexpr, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """slope = 1 / τ. The identity estimator where ids_ptr is None, the information term where weight_ptr is not."""
    b, first_column, row, at, inside, exists = edge_tile(lengths_ptr, slot_rows(slots_ptr, slots_row)[2], rows, columns, LIST, QUADS, BR, BC)
    compute: tl.constexpr = tl.float64 if dkept_ptr.dtype.element_ty == tl.float64 else tl.float32
    slope = tl.full([], slope, compute)
    gradient = tl.load(dkept_ptr + at, inside, 0.0).to(compute) * slope
    gamma = tl.load(logits_ptr + at, inside, 0.0).to(compute)
    if bias_ptr is not None:
        if LIST:
            column = (first_column + tl.arange(0, BC))[None, :]
            gamma += tl.load(bias_ptr + column, column < columns, 0.0).to(compute)
        else:
            gamma += tl.load(bias_ptr + row, row < rows, 0.0).to(compute)
    if ids_ptr is not None:
        quad = (first_column // 4 + tl.arange(0, BC // 4))[None, :]
        u = uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1 if LIST else 0, seed_of(seed, seed_ptr))
        soft = tl.sigmoid((gamma - threshold(u.to(compute), beta, eps, LOGISTIC)) * slope)
        gradient *= soft * (1 - soft)
    gradient = tl.where(tl.abs(gamma) == float("inf"), 0.0, gradient)
    if weight_ptr is not None:
        log_r, log_s = logarithms(prior, prior_ptr, compute)
        gradient += tl.load(weight_ptr + b).to(compute) * _divergence_slope(gamma, log_r, log_s, beta, LOGISTIC)
    tl.store(dlogits_ptr + at, tl.where(exists, gradient, 0.0), inside)


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3; with the information term they read the seed and the
    prior on the GPU."""
    B, T = 8, 60
    P, kind, sampling = graph.num_slots, DTYPES[dtype], Sampling()
    known: dict[str, Any] = {"seed": -(2**40) - 1, "prior": 0.5, "slots_ptr": torch.int32}
    known |= dict.fromkeys(("ids_ptr", "lengths_ptr"), torch.int64)
    known |= dict.fromkeys(("logits_ptr", "dkept_ptr", "dlogits_ptr", "kept_ptr"), kind)
    known |= dict.fromkeys(("bias_ptr", "weight_ptr", "seed_ptr", "prior_ptr"))
    float32 = dict.fromkeys(("bias_ptr", "logits_ptr", "dkept_ptr", "dlogits_ptr", "kept_ptr"), torch.float32)
    informed = dict.fromkeys(("weight_ptr", "prior_ptr"), torch.float32) | {"seed_ptr": torch.int64}

    def one(
        name: str, kernel: Any, changes: dict[str, Any], settled: Settled, work: str, moved: int, least: int, window: tuple[int, int] | None = None
    ) -> Compilation:
        arguments = {parameter.name: (known | changes | settled.numbers)[parameter.name] for parameter in kernel.params}
        num_warps, bound = settled.options["num_warps"], settled.options.get("maxnreg")
        return Compilation(name, kernel, arguments, num_warps, work, settled.programs, moved, least, window, bound)

    values = torch.empty(B, P, T, device="meta")
    work, edges = f"B={B} T={T} k={graph.hops}", B * P * T * kind.itemsize
    found = [one("sample_edges", _sample, {}, _over_edges(values, graph.index, graph.hops, sampling), work, 2 * edges, 2 * edges)]
    no_noise = {"ids_ptr": None}
    for name, changes, itemsize in (
        ("sigmoid", {}, kind.itemsize),
        ("identity", no_noise, kind.itemsize),
        ("sigmoid, information", float32 | informed, 4),
        ("identity, information", float32 | informed | no_noise, 4),
    ):
        moved, settled = 3 * B * P * T * itemsize, _over_edges(values, graph.index, graph.hops, sampling, backward=True)
        found.append(one(f"sample_edges backward ({name})", _sample_backward, changes, settled, work, moved, moved))
    return found
