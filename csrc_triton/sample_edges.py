"""Sampling of edges on the GPU: Philox noise, threshold and existence in one kernel, which can also make the logits from the embeddings of the ends.

Edges lie in rows: on a skeleton a row is a slot, its columns are the frames; an edge list is one row. The four words of a Philox call belong to
four neighbours in a row, so the noise of a tile is made on a tile of a quarter of the width and interleaved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.index import bound_rows, row_strides, slot_rows, walk_length
from csrc_triton.launch import Settled, launch, launch_options, number_or_pointer
from csrc_triton.products import edge_dot, feature_bytes, frames_read
from fastst.graph import EdgeList, GraphIndex, SkeletonGraph

if TYPE_CHECKING:
    from fastst.ops.sampling import Sampling

_BELOW_ONE = tl.constexpr(1 - 2**-24)  # the largest uniform number
_LIMIT = tl.constexpr(750.0)  # e^-750 is 0, in float64 too, and numbers up to here have products with 0
_TINY = tl.constexpr(1e-37)  # of a smaller probability the logarithm is multiplied by nothing
_EDGES_A_PROGRAM = 256  # of an edge list
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
    _slope(dkept, logits.contiguous(), dlogits, None, sample_ids, lengths, index, seed, None, None, hops, sampling)
    return dlogits


def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> tuple[Tensor, Tensor | None]:
    """`sample_edges` of γ[p, t] = q[t, dst] · k[t + offset, src] + bias[p], of which nothing is stored;
    and, with a prior, the divergences of every walk's edges, summed.

    q, k `[B, T, J, D]`, bias `[P]` -> `[B, P, T]` and `[B]` in float32, or float64 for float64.
    """
    q, k, sample_ids = q.contiguous(), k.contiguous(), sample_ids.contiguous()
    bias = None if bias is None else bias.contiguous()
    B, T = q.shape[:2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    kept = torch.empty(B, index.num_slots, T, dtype=dtype, device=q.device)
    parts = None if prior is None else torch.empty(B, _programs_a_walk(q, index.num_slots, hops), dtype=dtype, device=q.device)
    (seed_number, seed_pointer), (prior_number, prior_pointer) = number_or_pointer(seed), _prior(prior)
    pointers = (q, k, bias, kept, parts, sample_ids, lengths, index.slots, index.bounds, seed_pointer, prior_pointer)
    key = (q.shape, index.num_slots, hops, row_strides(index), sampling)
    kernel = _sample_list if hops == 0 else _sample_slots
    launch(kernel, pointers, key, lambda: _over_slots(q, index, hops, sampling), (seed_number, prior_number))
    return kept, None if parts is None else parts.sum(1, dtype=torch.float64).to(dtype)


def logits_gradient(
    dkept: Tensor,
    weight: Tensor | None,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """`sample_edges_backward` at the logits q · k + bias, over which it is written; and, with a prior,
    `weight[b]` times the derivative of every divergence added."""
    logits = edge_dot(q, k, index, hops, lengths)
    _slope(dkept, logits, logits, bias, sample_ids, lengths, index, seed, prior, weight, hops, sampling)
    return logits


def _slope(
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
    (seed_number, seed_pointer), (prior_number, prior_pointer) = number_or_pointer(seed), _prior(prior)
    pointers = (dkept.contiguous(), dlogits, logits, bias, weight, ids, lengths, index.slots, seed_pointer, prior_pointer)
    key = (dkept.shape, hops, sampling, row_strides(index))
    launch(_sample_backward, pointers, key, lambda: _over_edges(dkept, index, hops, sampling, backward=True), (seed_number, prior_number))


def _prior(prior: Tensor | None) -> tuple[float, Tensor | None]:
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


def _over_slots(q: Tensor, index: GraphIndex, hops: int, sampling: Sampling) -> Settled:
    """Four slots of BT frames and BD channels at a time: 16 products a thread from four loads of 16 bytes of k in float32. Of an edge list, where
    the ends' rows are anywhere, so that 32 bytes of one are as good as more, few channels of many edges."""
    B, T, J, D = q.shape
    P, (slots_row, bounds_row) = index.num_slots, row_strides(index)
    numbers: dict[str, Any] = {"beta": sampling.beta, "eps": sampling.eps}
    if hops == 0:
        numbers |= {"N": J, "E": P, "slots_row": slots_row}
        tile, num_warps = {"BE": _EDGES_A_PROGRAM}, 4
    else:
        numbers |= {"T": T, "J": J, "P": P, "slots_row": slots_row, "bounds_row": bounds_row}
        tile, num_warps = {"QUADS": T % 4 == 0, "BT": _frames_a_program(T)}, _frames_a_program(T) // 16
    numbers |= {"D": D, "LOGISTIC": sampling.noise == "logistic", "BD": _channels(q), **tile}
    bound = 216 if hops and q.dtype in (torch.bfloat16, torch.float16) else None  # with it ptxas has twice the loads in flight, and spills nothing
    return Settled(B * _programs_a_walk(q, P, hops), numbers, launch_options(num_warps=num_warps, max_registers=bound))


def _programs_a_walk(q: Tensor, num_slots: int, hops: int) -> int:
    _, T, J, _ = q.shape
    return triton.cdiv(num_slots, _EDGES_A_PROGRAM) if hops == 0 else J * triton.cdiv(T, _frames_a_program(T))


def _frames_a_program(T: int) -> int:
    return min(max(triton.next_power_of_2(T), 16), 32)


def _channels(q: Tensor) -> int:
    """Channels at a time: 32 bytes of a row, what memory gives at once, are two lanes' loads, between which there is one step of adding up."""
    return min(max(triton.next_power_of_2(q.shape[-1]), 4), 32 // q.element_size())


@triton.jit
def uniform(quad, row, sample, kind, seed):
    """u of four neighbours for every call; the counter is (quad, row, sample, kind).  # [1, Q], [R, 1] -> [R, 4 Q]"""
    first, second, third, fourth = tl.philox(seed, quad, row, sample, kind)
    words = tl.join(tl.join(first, third), tl.join(second, fourth))  # [R, Q, 2, 2], in order
    u = tl.random.uint_to_uniform_float(words.reshape(row.shape[0], 4 * quad.shape[1]))
    # u never is above this. Without it u + ε and 1 - u would be fused with the multiplication that makes u, which is then not rounded.
    return tl.minimum(u, _BELOW_ONE)


@triton.jit
def _threshold(u, beta, eps, LOGISTIC: tl.constexpr):
    """What γ has to exceed for the edge to stay: γ - threshold = τ z."""
    eps = tl.full([], eps, u.dtype)
    if LOGISTIC:
        return tl.log(1 - u + eps) - tl.log(u + eps)
    return tl.log(eps - tl.full([], beta, u.dtype) * tl.log(u + eps))


@triton.jit
def _divergence(gamma, log_r, log_s, beta, LOGISTIC: tl.constexpr):
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
def _logarithms(prior, prior_ptr, compute: tl.constexpr):
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
def _keep(score):
    """1 where the score is above 0, else 0, but NaN where it is NaN: that must not look like a removed edge."""
    return tl.where(score != score, score, (score > 0).to(score.dtype))


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
    kept = _keep(gamma - _threshold(u.to(compute), beta, eps, LOGISTIC))
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
        soft = tl.sigmoid((gamma - _threshold(u.to(compute), beta, eps, LOGISTIC)) * slope)
        gradient *= soft * (1 - soft)
    gradient = tl.where(tl.abs(gamma) == float("inf"), 0.0, gradient)
    if weight_ptr is not None:
        log_r, log_s = _logarithms(prior, prior_ptr, compute)
        gradient += tl.load(weight_ptr + b).to(compute) * _divergence_slope(gamma, log_r, log_s, beta, LOGISTIC)
    tl.store(dlogits_ptr + at, tl.where(exists, gradient, 0.0), inside)


@triton.jit
def _dots(
    q_at, k_ptr, position, last, order_ptr, src_ptr, offset_ptr, frame, T, J, compute: tl.constexpr, D: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """q[t, dst] · k[t + offset, src] of four slots, in two parts; anything where no edge exists, for which some row is read.  # [4, BT, 2]

    Reading a row that nobody asks for is cheaper than a mask, for which every register that is loaded has to be set to 0 before.
    """
    p = tl.load(order_ptr + tl.minimum(position, last - 1))
    source = tl.minimum((frame + tl.load(offset_ptr + p)[:, None]).to(tl.uint32), tl.full([], T - 1, tl.uint32))  # negative frames are large ones
    k_at = k_ptr + ((source * J + tl.load(src_ptr + p)[:, None]).to(tl.int64) * D)[:, :, None] + tl.arange(0, BD)[None, None, :]
    total = tl.zeros((4, frame.shape[1], BD), compute)
    for first in range(0, D, BD):
        if D % BD == 0:
            total += tl.load(q_at + first).to(compute) * tl.load(k_at + first).to(compute)
        else:
            more = (first + tl.arange(0, BD) < D)[None, None, :]
            total += tl.load(q_at + first, more, 0.0).to(compute) * tl.load(k_at + first, more, 0.0).to(compute)
    return tl.sum(total.reshape(4, frame.shape[1], 2, BD // 2), 3)


@triton.jit(do_not_specialize=["seed"])
def _sample_slots(
    q_ptr, k_ptr, bias_ptr, kept_ptr, parts_ptr, ids_ptr, lengths_ptr, slots_ptr, bounds_ptr, seed_ptr, prior_ptr,
    seed: tl.int64, prior: tl.float64, beta: tl.float64, eps: tl.float64, T, J, P, slots_row, bounds_row,
    D: tl.constexpr, LOGISTIC: tl.constexpr, BD: tl.constexpr, QUADS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """One joint as receiver over BT frames. The joints of a frame tile are neighbours in the grid and share k's window of BT + 2k frames.

    A tile of dots is four slots (four independent loads and more), but noise is made for sixteen: of four, most threads would repeat the others'.
    """
    if QUADS:
        T = T // 4 * 4  # the same, but now the compiler knows that four frames of a slot are 16 bytes
    src_ptr, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, _, _ = bound_rows(bounds_ptr, bounds_row)
    program = tl.program_id(0)
    j = program % J
    first_frame = program // J % tl.cdiv(T, BT) * BT
    b = program // J // tl.cdiv(T, BT)
    compute: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    length = walk_length(lengths_ptr, b, T)
    sample = tl.load(ids_ptr + b).to(tl.uint32)
    t = (first_frame + tl.arange(0, BT))[None, :]
    walk = b.to(tl.int64) * T * J * D
    q_at = q_ptr + walk + ((tl.minimum(t, T - 1) * J + j).to(tl.int64) * D)[:, :, None] + tl.arange(0, BD)[None, None, :]
    quad = (first_frame // 4 + tl.arange(0, BT // 4))[None, :]
    last = tl.load(ptr_ptr + j + 1)
    seed = seed_of(seed, seed_ptr)
    if parts_ptr is not None:
        log_r, log_s = _logarithms(prior, prior_ptr, compute)
        divergence = tl.zeros((1, BT), compute)
    for s in range(tl.load(ptr_ptr + j), last, 16):
        fours = s + 4 * tl.arange(0, 4)
        dots0 = _dots(q_at, k_ptr + walk, fours, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots1 = _dots(q_at, k_ptr + walk, fours + 1, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots2 = _dots(q_at, k_ptr + walk, fours + 2, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots3 = _dots(q_at, k_ptr + walk, fours + 3, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots = tl.join(tl.join(dots0, dots2), tl.join(dots1, dots3)).permute(0, 3, 4, 1, 2).reshape(16, BT, 2)
        low, high = tl.split(dots)
        gamma = low + high  # a sum across the two lanes of a row would be in both, and both would make the same noise
        position = s + tl.arange(0, 16)[:, None]
        p = tl.load(order_ptr + tl.minimum(position, last - 1))
        if bias_ptr is not None:
            gamma += tl.load(bias_ptr + p).to(compute)
        source = tl.where(t < length, t, 1 << 30) + tl.load(offset_ptr + p)
        exists = source.to(tl.uint32) < length.to(tl.uint32)
        kept = _keep(gamma - _threshold(uniform(quad, p, sample, 0, seed).to(compute), beta, eps, LOGISTIC))
        tl.store(kept_ptr + (b.to(tl.int64) * P + p) * T + t, tl.where(exists, kept, 0.0), (position < last) & (t < T))
        if parts_ptr is not None:
            more = tl.where(exists & (position < last), _divergence(gamma, log_r, log_s, beta, LOGISTIC), 0.0)
            divergence += tl.sum(more, 0, keep_dims=True)  # of every slot it would take so many registers that some are spilled
    if parts_ptr is not None:
        tl.store(parts_ptr + program, tl.sum(divergence))


@triton.jit(do_not_specialize=["seed"])
def _sample_list(
    q_ptr, k_ptr, bias_ptr, kept_ptr, parts_ptr, ids_ptr, lengths_ptr, slots_ptr, bounds_ptr, seed_ptr, prior_ptr,
    seed: tl.int64, prior: tl.float64, beta: tl.float64, eps: tl.float64, N, E, slots_row,
    D: tl.constexpr, LOGISTIC: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """BE edges of an edge list, one row of which a walk has. It has no lengths, and needs no bounds."""
    src_ptr, dst_ptr, _, _, _ = slot_rows(slots_ptr, slots_row)
    program = tl.program_id(0)
    first_edge = program % tl.cdiv(E, BE) * BE
    b = (program // tl.cdiv(E, BE)).to(tl.int64)
    compute: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    e = first_edge + tl.arange(0, BE)
    inside = e < E
    some = tl.minimum(e, E - 1)  # an edge there is: reading its rows again is cheaper than masks
    q_at = q_ptr + ((b * N + tl.load(dst_ptr + some)) * D)[:, None]
    k_at = k_ptr + ((b * N + tl.load(src_ptr + some)) * D)[:, None]
    total = tl.zeros((BE, BD), compute)
    if parts_ptr is not None:
        log_r, log_s = _logarithms(prior, prior_ptr, compute)
    for first in range(0, D, BD):
        d = (first + tl.arange(0, BD))[None, :]
        if D % BD == 0:
            total += tl.load(q_at + d).to(compute) * tl.load(k_at + d).to(compute)
        else:
            total += tl.load(q_at + d, d < D, 0.0).to(compute) * tl.load(k_at + d, d < D, 0.0).to(compute)
    low, high = tl.split(tl.sum(total.reshape(BE, 2, BD // 2), 2))
    gamma = low + high
    if bias_ptr is not None:
        gamma += tl.load(bias_ptr + e, inside, 0.0).to(compute)
    quad = (first_edge // 4 + tl.arange(0, BE // 4))[None, :]
    row = tl.zeros((1, 1), tl.int32)
    u = uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1, seed_of(seed, seed_ptr)).reshape(BE)
    tl.store(kept_ptr + b * E + e, _keep(gamma - _threshold(u.to(compute), beta, eps, LOGISTIC)), inside)
    if parts_ptr is not None:
        divergence = tl.where(inside, _divergence(gamma, log_r, log_s, beta, LOGISTIC), 0.0)
        tl.store(parts_ptr + program, tl.sum(divergence))


def compilations(dtype: str) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, and on an edge list of 4096 edges; those with the information term
    read the seed and the prior on the GPU."""
    B, T, D, E, graph = 8, 60, 32, 4096, SkeletonGraph("coco18", 3)
    J, P, kind, sampling = graph.num_joints, graph.num_slots, DTYPES[dtype], _default_sampling()
    known: dict[str, Any] = {"seed": -(2**40) - 1, "prior": 0.5, "slots_ptr": torch.int32, "bounds_ptr": torch.int32}
    known |= dict.fromkeys(("ids_ptr", "lengths_ptr"), torch.int64)
    known |= dict.fromkeys(("logits_ptr", "dkept_ptr", "dlogits_ptr", "q_ptr", "k_ptr", "kept_ptr"), kind)
    known |= dict.fromkeys(("bias_ptr", "weight_ptr", "parts_ptr", "seed_ptr", "prior_ptr"))
    float32 = dict.fromkeys(("bias_ptr", "logits_ptr", "dkept_ptr", "dlogits_ptr", "kept_ptr"), torch.float32)
    informed = dict.fromkeys(("weight_ptr", "parts_ptr", "prior_ptr"), torch.float32) | {"seed_ptr": torch.int64}

    def one(
        name: str, kernel: Any, changes: dict[str, Any], settled: Settled, work: str, moved: int, least: int, window: tuple[int, int] | None = None
    ) -> Compilation:
        arguments = {parameter.name: (known | changes | settled.numbers)[parameter.name] for parameter in kernel.params}
        num_warps, bound = settled.options["num_warps"], settled.options.get("maxnreg")
        return Compilation(name, kernel, arguments, num_warps, work, settled.programs, moved, least, window, bound)

    values = torch.empty(B, P, T, device="meta")
    work, edges = f"B={B} T={T} k={graph.hops}", B * P * T * kind.itemsize
    found = [one("sample_edges", _sample, {}, _over_edges(values, graph.index(), graph.hops, sampling), work, 2 * edges, 2 * edges)]
    no_noise = {"ids_ptr": None}
    for name, changes, itemsize in (
        ("sigmoid", {}, kind.itemsize),
        ("identity", no_noise, kind.itemsize),
        ("sigmoid, information", float32 | informed, 4),
        ("identity, information", float32 | informed | no_noise, 4),
    ):
        moved, settled = 3 * B * P * T * itemsize, _over_edges(values, graph.index(), graph.hops, sampling, backward=True)
        found.append(one(f"sample_edges backward ({name})", _sample_backward, changes, settled, work, moved, moved))

    q = torch.empty(B, T, J, D, dtype=kind, device="meta")
    features, BT = q.nbytes, _frames_a_program(T)
    skeleton = _over_slots(q, graph.index(), graph.hops, sampling)
    edge_list = EdgeList(torch.arange(2 * E).view(2, E) % (T * J), T * J, parallel=True)
    listed = _over_slots(q.view(B, 1, T * J, D), edge_list.index(), 0, sampling)
    for note, changes in (("", float32), ("information", float32 | informed)):
        least = 4 * B * P * T + 2 * features + (4 * skeleton.programs if note else 0)
        moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
        window = feature_bytes(graph, BT, D * kind.itemsize)
        name = "sample_edges from embeddings" + (f" ({note})" if note else "")
        found.append(one(name, _sample_slots, changes, skeleton, f"{work} D={D}", moved, least, window))

        least = 4 * B * E + 2 * features + (4 * listed.programs if note else 0)
        moved = least - 2 * features + 2 * B * E * D * kind.itemsize  # every edge reads both its ends
        window = (2 * _EDGES_A_PROGRAM * D * kind.itemsize,) * 2
        name = f"sample_edges from embeddings (edge list{', ' * bool(note)}{note})"
        found.append(one(name, _sample_list, changes, listed, f"B={B} N={T * J} E={E} D={D}", moved, least, window))
    return found


def _default_sampling() -> Sampling:
    from fastst.ops.sampling import Sampling  # the kernels are not to import the operations

    return Sampling()
