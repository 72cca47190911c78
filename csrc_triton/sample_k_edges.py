"""Exactly k edges of every group on the GPU: the chain of counts of `fastst.cpu.sample_k_edges`, a step for every candidate of a group.

A program works on BT groups at a time: neighbouring frames of the same slots, or one walk. The counts 0 … k of a group lie in a row of BK lanes, and
what a count has from the one before comes from the lane before. What a group needs while it is worked on, its logits and its table of chances, lies
in memory of the program's own: there is as much of it as there are programs, and they are few and take one group after the other.
Candidates that are none have a logit of -∞, and those of a group in which one is NaN are NaN: neither changes anything.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import walk_length
from csrc_triton.launch import enough_programs, launch_options, number_or_pointer, on_device_of
from csrc_triton.sample_edges import edge_rows, edge_tile, seed_of, uniform
from fastst.graph_index import GraphIndex

_EPS = tl.constexpr(1e-10)  # of `fastst.ops.k_subsets`


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
    theta, taken = _related(logits, lengths, index, k, per, widest)
    launch, kept = _Launch.of(theta, index, per, widest, k), _uniforms(theta, sample_ids, seed, hops, samples)
    marginals, parts = torch.empty_like(theta), theta.new_zeros(*taken.shape, samples)  # without frames no kernel writes
    sizes, options = (logits.numel(), samples), {"BS": min(triton.next_power_of_2(samples), 8), **launch.options("BK")}
    with on_device_of(logits.device):
        _sample[launch.grid](theta, taken, kept, marginals, parts, launch.scratch(theta, "BK"), *sizes, *launch.groups, **options)
    return kept.to(logits.dtype), marginals, parts.sum(1).T


def covariance_product(logits: Tensor, toward: Tensor, lengths: Tensor | None, index: GraphIndex, hops: int, k: int, per: str, widest: int) -> Tensor:
    """The covariance matrix of a group's edges times `toward`.  # [B, P, T]"""
    theta, taken = _related(logits, lengths, index, k, per, widest)
    launch, product = _Launch.of(theta, index, per, widest, k), torch.empty_like(theta)
    tables = launch.scratch(theta, "BK"), launch.scratch(theta, "BK")
    with on_device_of(logits.device):
        _multiply[launch.grid](theta, taken, toward.contiguous(), product, *tables, *launch.groups, **launch.options("BC", "BK"))
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
    """1 at the k largest logit + Gumbel noise + nudge of every group, of equal ones at the first.  # [S, B, P, T]"""
    theta, taken = _related(logits, lengths, index, k, per, widest)
    launch, kept = _Launch.of(theta, index, per, widest), _uniforms(theta, sample_ids, seed, hops, samples)
    nudge, sizes = None if nudge is None else nudge.contiguous(), (logits.numel(), samples)
    with on_device_of(logits.device):
        _perturb[launch.grid](theta, taken, nudge, kept, launch.scratch(theta), *sizes, *launch.groups, **launch.options("BC"))
    return kept.to(logits.dtype)


def _uniforms(theta: Tensor, sample_ids: Tensor, seed: Tensor, hops: int, samples: int) -> Tensor:
    """The random numbers of all edges and samples, over which it is then written who is kept.  # [S, B, P, T]"""
    u = theta.new_empty(samples, *theta.shape)
    shape, grid, tile, num_warps = edge_rows(u.flatten(0, 1), hops)
    with on_device_of(theta.device):
        _draw[grid](u, sample_ids.contiguous(), *number_or_pointer(seed), len(theta), *shape, **tile, **launch_options(num_warps=num_warps))
    return u


def _related(logits: Tensor, lengths: Tensor | None, index: GraphIndex, k: int, per: str, widest: int) -> tuple[Tensor, Tensor]:
    """Logits less the k-th largest of their group, and how many edges every group keeps.  # [B, P, T], [B, groups]"""
    B, _, T = logits.shape
    theta = torch.empty(logits.shape, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    launch = _Launch.of(theta, index, per, widest)
    taken = torch.empty(B, launch.tile["R"] * (1 if per == "graph" else T), dtype=torch.int32, device=logits.device)
    edges = index.offset, index.src, index.dst, lengths
    with on_device_of(logits.device):
        _relate[launch.grid](logits.contiguous(), theta, taken, launch.scratch(theta), k, *edges, *launch.groups, **launch.options("BC"))
    return theta, taken


class _Launch(NamedTuple):
    """Of a kernel over groups.

    Attributes:
        grid: programs; each takes one group, or BT, after the other.
        groups: what every kernel has to know of them.
        tile: what is constant in the kernels.
        num_warps: of a program.
    """

    grid: tuple[int]
    groups: tuple[Any, ...]
    tile: dict[str, Any]
    num_warps: int

    @classmethod
    def of(cls, theta: Tensor, index: GraphIndex, per: str, widest: int, k: int = 0) -> _Launch:
        """k: of a kernel with a lane for every count, else 0."""
        (B, P, T), whole, by_node = theta.shape, per == "graph", per == "dst"
        widest *= T if whole else 1
        R = index.bounds.shape[1] - 1 if by_node else 1
        BK = triton.next_power_of_2(min(k, widest) + 1)
        BT = 1 if whole else max(1, min(triton.next_power_of_2(max(T, 1)), 64 // BK, 16))
        items = B * R * (1 if whole else triton.cdiv(T, BT))
        num_warps = min(max(BT * BK // 128, 1), 16)
        order, bounds = (index.dst_order, index.dst_ptr) if by_node else (None, None)
        tile = {"R": R, "WHOLE": whole, "BT": BT, "BC": 256 * num_warps // BT, "BK": BK}
        return cls((min(items, enough_programs(theta.device)),), (items, widest, T, P, order, bounds), tile, num_warps)

    def options(self, *more: str) -> dict[str, Any]:
        tile = {name: self.tile[name] for name in ("R", "WHOLE", "BT", *more)}
        return {**tile, **launch_options(num_warps=self.num_warps)}

    def scratch(self, like: Tensor, *more: str) -> Tensor:
        """A number for every candidate of the groups that are worked on at one time, or one for each of its counts."""
        return like.new_empty(self.grid[0] * self.groups[1] * math.prod(self.tile[name] for name in ("BT", *more)))


@triton.jit
def _group(item, T, P, order_ptr, bounds_ptr, R: tl.constexpr, WHOLE: tl.constexpr, BT: tl.constexpr):
    """The walk, the row of slots, the frames [BT, 1], the row's first place in the order, how many candidates it has."""
    tiles = 1
    if not WHOLE:
        tiles = tl.cdiv(T, BT)
    item = tl.full([], item, tl.int32)  # in the interpreter a loop counts with Python's numbers
    b = item // tiles // R
    row = item // tiles % R
    t = (item % tiles * BT + tl.arange(0, BT))[:, None]
    begin, n = 0, tl.full([], P, tl.int32)
    if order_ptr is not None:
        begin = tl.load(bounds_ptr + row)
        n = tl.load(bounds_ptr + row + 1) - begin
    if WHOLE:
        n = n * T
    return b.to(tl.int64), row, t, begin, n


@triton.jit
def _of_group(b, row, t, T, R: tl.constexpr, WHOLE: tl.constexpr):
    """Where what a group has one of stands."""
    return b * R + row + 0 * t if WHOLE else (b * R + row) * T + t


@triton.jit
def _edge(c, t, begin, n, T, P, order_ptr, WHOLE: tl.constexpr):
    """Candidate c of the groups: its slot, its frame, and whether there is one."""
    c += tl.zeros([1, 1], tl.int32)  # the interpreter takes no mask that began as a single number
    there = (c < n) & (t < T)
    if WHOLE:
        p, frame = c // T + 0 * t, c % T + 0 * t
    else:
        p, frame = c + 0 * t, t + 0 * c
    if order_ptr is not None:
        p = tl.load(order_ptr + begin + p, (c < n) & (t >= 0), 0)
    return p, frame, there


@triton.jit
def _place(c, t, b, begin, n, T, P, order_ptr, WHOLE: tl.constexpr):
    """Where candidate c of the groups stands, and whether there is one."""
    p, frame, there = _edge(c, t, begin, n, T, P, order_ptr, WHOLE)
    return (b * P + p) * T + frame, there


@triton.jit
def _row(number, size):
    """Where it begins."""
    return tl.full([], number, tl.int64) * size


@triton.jit
def _key(x):
    """A whole number for every float, in the same order."""
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _kth_largest(x_ptr, n, k, BT: tl.constexpr, BC: tl.constexpr):
    """Of the first n numbers of every group, bit by bit.  # k [BT, 1]"""
    kind: tl.constexpr = x_ptr.dtype.element_ty
    whole: tl.constexpr = tl.int64 if kind == tl.float64 else tl.int32
    top: tl.constexpr = 63 if kind == tl.float64 else 31
    lane = tl.arange(0, BT)[:, None]
    one = tl.full([BT, 1], 1, whole)
    found = one << top
    for i in range(top + 1):
        tried = found ^ (one << (top - i))  # the first bit is the sign: it is taken away, the others are set
        above = tl.zeros([BT, 1], tl.int32)
        for first in range(0, n, BC):
            c = first + tl.arange(0, BC)[None, :]
            x = tl.load(x_ptr + c.to(tl.int64) * BT + lane, c < n, 0.0)
            above += tl.sum(((_key(x) >= tried) & (c < n)).to(tl.int32), 1, keep_dims=True)
        found = tl.where(above >= k, tried, found)
    if kind == tl.float64:
        return (found ^ ((found >> 63) & 0x7FFFFFFFFFFFFFFF)).to(kind, bitcast=True)
    return (found ^ ((found >> 31) & 0x7FFFFFFF)).to(kind, bitcast=True)


@triton.jit
def _relate(
    logits_ptr, theta_ptr, taken_ptr, x_ptr, k, offset_ptr, src_ptr, dst_ptr, lengths_ptr,
    items, widest, T, P, order_ptr, bounds_ptr,
    R: tl.constexpr, WHOLE: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Logits less the k-th largest of their group, -∞ at edges that can't be kept, NaN at those of a group with a NaN; and how many
    edges a group keeps, -1 for one with a NaN."""
    x_ptr += tl.program_id(0).to(tl.int64) * widest * BT
    kind: tl.constexpr = x_ptr.dtype.element_ty
    lane = tl.arange(0, BT)[:, None]
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        b, row, t, begin, n = _group(item, T, P, order_ptr, bounds_ptr, R, WHOLE, BT)
        length = walk_length(lengths_ptr, b, T)
        count = tl.zeros([BT, 1], tl.int32)
        wrong = tl.zeros([BT, 1], tl.int32)
        for first in range(0, n, BC):
            c = first + tl.arange(0, BC)[None, :]
            p, frame, there = _edge(c, t, begin, n, T, P, order_ptr, WHOLE)
            offset = tl.load(offset_ptr + p, there, 0)
            source = frame + offset
            is_loop = (offset == 0) & (tl.load(src_ptr + p, there, 0) == tl.load(dst_ptr + p, there, 0))
            exists = there & (source >= 0) & (source < length) & (frame < length) & (is_loop == 0)
            x = tl.load(logits_ptr + (b * P + p) * T + frame, exists, -float("inf")).to(kind)
            tl.store(x_ptr + c.to(tl.int64) * BT + lane, x, c < n)
            count += tl.sum((x > -float("inf")).to(tl.int32), 1, keep_dims=True)
            wrong += tl.sum((x != x).to(tl.int32), 1, keep_dims=True)
        tl.debug_barrier()
        taken = tl.where(wrong > 0, -1, tl.minimum(count, k))
        middle = tl.where(taken > 0, _kth_largest(x_ptr, n, taken, BT, BC), 0.0)
        for first in range(0, n, BC):
            c = first + tl.arange(0, BC)[None, :]
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            x = tl.load(x_ptr + c.to(tl.int64) * BT + lane, c < n, 0.0)
            x = tl.where((taken < 0) & (x != -float("inf")), float("nan"), tl.where(x == middle, 0.0, x - middle))
            tl.store(theta_ptr + at, x, there)
        tl.store(taken_ptr + _of_group(b, row, t, T, R, WHOLE), taken, t < T)
        tl.debug_barrier()


@triton.jit
def _bounded(theta):
    """No further from 0 than where a candidate is certain to be in or out."""
    furthest: tl.constexpr = 300.0 if theta.dtype == tl.float64 else 60.0
    return tl.minimum(tl.maximum(theta, -furthest), furthest)


@triton.jit
def _from_lower(x, first, BT: tl.constexpr, BK: tl.constexpr):
    """Every count's value of the count below, `first` for count 0.  # [BT, BK]"""
    j = tl.arange(0, BK)[None, :]
    below = tl.maximum(j - 1, 0) + tl.zeros([BT, BK], tl.int32)
    return tl.where(j > 0, tl.gather(x, below, 1), first)


@triton.jit
def _from_higher(x, BT: tl.constexpr, BK: tl.constexpr):
    j = tl.arange(0, BK)[None, :]
    above = tl.minimum(j + 1, BK - 1) + tl.zeros([BT, BK], tl.int32)
    return tl.where(j < BK - 1, tl.gather(x, above, 1), 0.0)


@triton.jit
def _chances(theta, ratio, BT: tl.constexpr, BK: tl.constexpr):
    """q_j = w / (ρ_j + w), and ρ_j after the candidate.  # theta [BT, 1], ratio [BT, BK]"""
    j = tl.arange(0, BK)[None, :]
    w = tl.where(theta > -float("inf"), tl.exp(_bounded(theta)), 0.0)  # 0 for NaN too
    both = ratio + w
    inverse = 1 / tl.where(w > 0, both, 1.0)
    stay = tl.where(w > 0, ratio * inverse, 1.0)
    return tl.where(j > 0, w * inverse, 0.0), tl.where(j > 0, both * _from_lower(tl.where(j > 0, stay, 1.0), 1.0, BT, BK), 0.0)


@triton.jit
def _step_back(reach, q, BT: tl.constexpr, BK: tl.constexpr):
    """The probabilities of the counts before a candidate, from those after it."""
    return reach * (1 - q) + _from_higher(reach * q, BT, BK)


@triton.jit
def _draw(
    u_ptr, ids_ptr, seed: tl.int64, seed_ptr, walks, rows, columns,
    LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """u of every edge in every draw, as `fastst.ops.random.edge_uniforms` has it."""
    of_walk, first_column, row, at, inside, _ = edge_tile(None, None, rows, columns, True, QUADS, BR, BC)
    quad = (first_column // 4 + tl.arange(0, BC // 4))[None, :]
    walk, kind = tl.load(ids_ptr + of_walk % walks).to(tl.uint32), of_walk // walks * 2 + LIST
    tl.store(u_ptr + at, uniform(quad, row, walk, kind, seed_of(seed, seed_ptr)), inside)


@triton.jit
def _sample(
    theta_ptr, taken_ptr, kept_ptr, marginals_ptr, parts_ptr, q_ptr, edges: tl.int64, S,
    items, widest, T, P, order_ptr, bounds_ptr,
    R: tl.constexpr, WHOLE: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    q_ptr += program * widest * (BT * BK)
    kind: tl.constexpr = theta_ptr.dtype.element_ty
    lane, j = tl.arange(0, BT)[:, None], tl.arange(0, BK)[None, :]
    cell = lane * BK + j
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        b, row, t, begin, n = _group(item, T, P, order_ptr, bounds_ptr, R, WHOLE, BT)
        taken = tl.load(taken_ptr + _of_group(b, row, t, T, R, WHOLE), t < T, 0)
        ratio = tl.zeros([BT, BK], kind)
        for c in range(n):
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            q, ratio = _chances(tl.load(theta_ptr + at, there, -float("inf")), ratio, BT, BK)
            tl.store(q_ptr + _row(c, BT * BK) + cell, q)
        tl.debug_barrier()

        reach = tl.where(j == taken, 1.0, tl.zeros([BT, BK], kind))
        for i in range(n):
            c = n - 1 - i
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            theta = tl.load(theta_ptr + at, there, -float("inf"))
            q = tl.load(q_ptr + _row(c, BT * BK) + cell)
            share = tl.minimum(tl.sum(reach * q, 1, keep_dims=True), 1.0)
            tl.store(marginals_ptr + at, tl.where(theta != theta, theta, share), there)
            reach = _step_back(reach, q, BT, BK)

        for first in range(0, S, BS):
            s = first + tl.arange(0, BS)[None, :]
            count = tl.maximum(taken, 0) + tl.zeros([BT, BS], tl.int32)
            total = tl.zeros([BT, BS], kind)
            for i in range(n):
                c = n - 1 - i
                at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
                theta = tl.load(theta_ptr + at, there, -float("inf"))
                q = tl.load(q_ptr + _row(c, BT * BK) + cell)
                kept_at = kept_ptr + s.to(tl.int64) * edges + at
                chance = tl.gather(q, count, 1)
                chosen = tl.load(kept_at, there & (s < S), 1.0) < chance
                total += tl.log(tl.where(chosen, chance, 1 - chance))  # terms of one sign, where γ - log e_k would cancel
                count -= chosen.to(tl.int32)
                value = tl.where(theta != theta, theta, chosen.to(kind))
                tl.store(kept_at, value, there & (s < S))
            tl.store(parts_ptr + _of_group(b, row, t, T, R, WHOLE) * S + s, tl.where(taken < 0, float("nan"), total), (s < S) & (t < T))
        tl.debug_barrier()


@triton.jit
def _multiply(
    theta_ptr, taken_ptr, toward_ptr, product_ptr, q_ptr, values_ptr,
    items, widest, T, P, order_ptr, bounds_ptr,
    R: tl.constexpr, WHOLE: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """E[z_i G] - E[z_i] E[G], G = Σ toward z. The mean of `toward` is taken away before, which changes nothing but the rounding: Σ z is constant."""
    program = tl.program_id(0).to(tl.int64)
    q_ptr += program * widest * (BT * BK)
    values_ptr += program * widest * (BT * BK)
    kind: tl.constexpr = theta_ptr.dtype.element_ty
    lane, j = tl.arange(0, BT)[:, None], tl.arange(0, BK)[None, :]
    cell = lane * BK + j
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        b, row, t, begin, n = _group(item, T, P, order_ptr, bounds_ptr, R, WHOLE, BT)
        taken = tl.load(taken_ptr + _of_group(b, row, t, T, R, WHOLE), t < T, 0)
        mean = tl.zeros([BT, 1], kind)
        count = tl.zeros([BT, 1], kind)
        for first in range(0, n, BC):
            c = first + tl.arange(0, BC)[None, :]
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            free = tl.load(theta_ptr + at, there, -float("inf")) > -float("inf")
            mean += tl.sum(tl.load(toward_ptr + at, free, 0.0).to(kind), 1, keep_dims=True)
            count += tl.sum(free.to(kind), 1, keep_dims=True)
        mean = mean / tl.maximum(count, 1.0)

        ratio = tl.zeros([BT, BK], kind)
        value = tl.zeros([BT, BK], kind)  # what the candidates so far are expected to bring, for every count of them that are kept
        for c in range(n):
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            theta = tl.load(theta_ptr + at, there, -float("inf"))
            q, ratio = _chances(theta, ratio, BT, BK)
            gain = tl.load(toward_ptr + at, there & (theta > -float("inf")), 0.0).to(kind) - mean
            tl.store(q_ptr + _row(c, BT * BK) + cell, q)
            with_it = _from_lower(value, 0.0, BT, BK) + gain
            tl.store(values_ptr + _row(c, BT * BK) + cell, with_it)
            value = q * with_it + (1 - q) * value
        expected = tl.sum(tl.where(j == taken, value, 0.0), 1, keep_dims=True)
        tl.debug_barrier()

        reach = tl.where(j == taken, 1.0, tl.zeros([BT, BK], kind))
        later = tl.zeros([BT, BK], kind)  # of what comes after a candidate, the share in E[G] that goes through each count
        for i in range(n):
            c = n - 1 - i
            at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
            theta = tl.load(theta_ptr + at, there, -float("inf"))
            q = tl.load(q_ptr + _row(c, BT * BK) + cell)
            with_it = tl.load(values_ptr + _row(c, BT * BK) + cell)
            gain = tl.load(toward_ptr + at, there & (theta > -float("inf")), 0.0).to(kind) - mean
            found = tl.sum(q * (reach * (with_it - expected) + later), 1, keep_dims=True)
            tl.store(product_ptr + at, tl.where(theta != theta, theta, found), there)
            later = later * (1 - q) + _from_higher((later + reach * gain) * q, BT, BK)
            reach = _step_back(reach, q, BT, BK)
        tl.debug_barrier()


@triton.jit
def _perturb(
    theta_ptr, taken_ptr, nudge_ptr, kept_ptr, x_ptr, edges: tl.int64, S,
    items, widest, T, P, order_ptr, bounds_ptr,
    R: tl.constexpr, WHOLE: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    x_ptr += program * widest * BT
    kind: tl.constexpr = theta_ptr.dtype.element_ty
    eps = tl.full([], _EPS, kind)
    lane = tl.arange(0, BT)[:, None]
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        b, row, t, begin, n = _group(item, T, P, order_ptr, bounds_ptr, R, WHOLE, BT)
        taken = tl.load(taken_ptr + _of_group(b, row, t, T, R, WHOLE), t < T, 0)
        for s in range(S):
            sample_at = _row(s, edges)
            unknown = tl.zeros([BT, 1], tl.int32)
            for first in range(0, n, BC):
                c = first + tl.arange(0, BC)[None, :]
                at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
                x = tl.load(theta_ptr + at, there, -float("inf"))
                x -= tl.log(eps - tl.log(tl.load(kept_ptr + sample_at + at, there, 0.5) + eps))
                if nudge_ptr is not None:
                    x += tl.load(nudge_ptr + sample_at + at, there & (x > -float("inf")), 0.0).to(kind)
                unknown += tl.sum((x != x).to(tl.int32), 1, keep_dims=True)
                tl.store(x_ptr + c.to(tl.int64) * BT + lane, x, c < n)
            tl.debug_barrier()
            least = _kth_largest(x_ptr, n, taken, BT, BC)
            larger = tl.zeros([BT, 1], tl.int32)
            for first in range(0, n, BC):
                c = first + tl.arange(0, BC)[None, :]
                x = tl.load(x_ptr + c.to(tl.int64) * BT + lane, c < n, -float("inf"))
                larger += tl.sum((x > least).to(tl.int32), 1, keep_dims=True)
            left = tl.where(taken > 0, taken - larger, 0)  # for those that are as large as the least
            for first in range(0, n, BC):
                c = first + tl.arange(0, BC)[None, :]
                at, there = _place(c, t, b, begin, n, T, P, order_ptr, WHOLE)
                x = tl.load(x_ptr + c.to(tl.int64) * BT + lane, c < n, -float("inf"))
                equal = (x == least).to(tl.int32)
                chosen = (taken > 0) & ((x > least) | ((equal > 0) & (tl.cumsum(equal, 1) <= left)))
                value = tl.where((unknown > 0) & (x != -float("inf")), float("nan"), chosen.to(kind))
                tl.store(kept_ptr + sample_at + at, value, there)
                left -= tl.sum(equal, 1, keep_dims=True)
            tl.debug_barrier()


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, for 20 edges of a frame, and for 20 of 4096 edges of a list."""
    B, T, k, samples, kind = 8, 60, 20, 4, DTYPES[dtype]
    known: dict[str, Any] = {"k": k, "seed": -(2**40) - 1, "seed_ptr": None, "S": samples, "edges": 1 << 32, "walks": B}
    known |= {"ids_ptr": torch.int64, "taken_ptr": torch.int32} | dict.fromkeys(("offset_ptr", "src_ptr", "dst_ptr"), torch.int32)
    known |= dict.fromkeys(("logits_ptr", "nudge_ptr"), kind)
    single = ("theta_ptr", "toward_ptr", "marginals_ptr", "product_ptr", "parts_ptr", "kept_ptr", "u_ptr", "x_ptr", "q_ptr", "values_ptr")
    known |= dict.fromkeys(single, torch.float32)
    found = []
    for note, shape, per, lengths, listed in (
        (f"B={B} T={T} k={graph.hops}", (B, graph.num_slots, T), "frame", torch.int64, False),
        (f"B={B} E=4096", (B, 4096, 1), "graph", None, True),
    ):
        theta = torch.empty(shape, device="meta")
        (rows, columns), (programs,), tile, num_warps = edge_rows(theta.expand(samples, *shape).flatten(0, 1), 0 if listed else 1)
        edges, known = theta.numel(), known | {"lengths_ptr": lengths, "BS": samples, "rows": rows, "columns": columns, **tile}
        drawn = "sample_k_edges, random numbers" + " (edge list)" * listed, _draw, {p.name: known[p.name] for p in _draw.params}
        found.append(Compilation(*drawn, num_warps, note, programs, 4 * samples * edges, 4 * samples * edges))
        for name, kernel, counts, least, tables in (
            ("sample_k_edges, differences", _relate, 0, kind.itemsize + 4, 0),
            ("sample_k_edges", _sample, k, 8 + 8 * samples, 3),
            ("sample_k_edges backward", _multiply, k, 12, 4),
            ("perturbed_top_k", _perturb, 0, 4 + samples * (8 + kind.itemsize), 0),
        ):
            launch = _Launch.of(theta, graph.index, per, shape[1], counts)
            known |= dict(zip(("items", "widest", "T", "P", "order_ptr", "bounds_ptr"), launch.groups, strict=True)) | launch.tile
            arguments = {parameter.name: known[parameter.name] for parameter in kernel.params}
            title, work = name + " (edge list)" * listed, f"{note}, {k} of a {per}"
            moved = edges * (least + 4 * tables * launch.tile["BK"])  # a cache has the tables, if it has room for the programs that run at one time
            found.append(Compilation(title, kernel, arguments, launch.num_warps, work, launch.grid[0], moved, edges * least))
    return found
