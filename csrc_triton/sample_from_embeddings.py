"""Sampling of edges straight from the embeddings of their ends on the GPU: dot products, Philox noise, threshold and existence in one kernel.

A program has a few joints with about equally many slots over a tile of frames, which share their window of k as those of the sums do (see
`products`), and takes eight slots of every joint at a time. Two threads have a row, which is a joint in a frame: so its indices and addresses are
made once for 32 products. The noise is made on quads, four frames of a slot, which are one Philox call: each thread has one of them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import bound_rows, row_strides, rows_of_group, sender_nodes, slot_rows, walk_length
from csrc_triton.launch import Settled, enough_programs, launch, launch_options, number_or_pointer
from csrc_triton.parts import dot_parts, load_parts
from csrc_triton.products import edge_dot, feature_bytes, frames_read
from csrc_triton.sample_edges import (
    divergence_of,
    keep,
    logarithms,
    prior_arguments,
    seed_of,
    uniform,
    write_slope,
)
from fastst.graph_index import GraphIndex
from fastst.sampling import Sampling

_EDGES_A_PROGRAM = 256  # of an edge list
_ROWS = 128  # of a program on a skeleton
_MOST_JOINTS = 8
_CHANNELS = 256  # bytes of a row at a time
_PART = 32  # bytes that two threads have of a row with one load


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
    (seed_number, seed_pointer), (prior_number, prior_pointer) = number_or_pointer(seed), prior_arguments(prior)
    pointers = (q, k, bias, kept, parts, sample_ids, lengths, index.slots, index.bounds, seed_pointer, prior_pointer)
    key = (q.shape, index.num_slots, hops, row_strides(index), sampling)
    kernel, settle = (_sample_list, _settle_list) if hops == 0 else (_sample_slots, _settle_slots)
    launch(kernel, pointers, key, lambda: settle(q, index, sampling), (seed_number, prior_number))
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
    write_slope(dkept, logits, logits, bias, sample_ids, lengths, index, seed, prior, weight, hops, sampling)
    return logits


def _settle_slots(q: Tensor, index: GraphIndex, sampling: Sampling) -> Settled:
    B, T, J, D = q.shape
    slots_row, bounds_row = row_strides(index)
    GROUP, BT, N = _tile(B, T, J, enough_programs(q.device))
    BC = min(triton.next_power_of_2(D), _CHANNELS // q.element_size())
    numbers = {
        "beta": sampling.beta, "eps": sampling.eps, "T": T, "J": J, "P": index.num_slots, "slots_row": slots_row, "bounds_row": bounds_row,
        "D": D, "LOGISTIC": sampling.noise == "logistic", "QUADS": T % 4 == 0, "GROUP": GROUP, "BT": BT, "ROWS": N, "BC": BC,
        "PARTS": max(1, BC * q.element_size() // _PART),
    }  # fmt: skip
    return Settled(B * _programs_a_walk(q, index.num_slots, 1), numbers, launch_options(num_warps=N // 16))


@functools.lru_cache
def _tile(B: int, T: int, J: int, enough: int) -> tuple[int, int, int]:
    """Joints and frames of a program, whole quads, and its rows: a power of two that has room for them.

    Of all that fit, those with the least to do: rows that are calculated, and beside them what comes from the second-level cache, of which joints
    that share their window ask for the less, the more they are. Fewer rows where there would be less than two programs for a multiprocessor.
    """
    N, most = _ROWS, range(1, min(_MOST_JOINTS, J) + 1)
    while True:
        tiles = [(joints, min(N // joints // 4 * 4, max(triton.cdiv(T, 4), 1) * 4)) for joints in most if 4 * joints <= N]
        GROUP, BT = min(tiles, key=lambda tile: triton.cdiv(J, tile[0]) * triton.cdiv(T, tile[1]) * (1 + 1 / tile[0]))
        if N == 16 or 4 * B * triton.cdiv(J, GROUP) * triton.cdiv(T, BT) >= enough:
            return GROUP, BT, max(triton.next_power_of_2(GROUP * BT), 16)
        N //= 2


def _settle_list(q: Tensor, index: GraphIndex, sampling: Sampling) -> Settled:
    """Few channels of many edges at a time: the ends' rows are anywhere, so that 32 bytes of one are as good as more."""
    B, _, N, D = q.shape
    E, (slots_row, _) = index.num_slots, row_strides(index)
    BD = min(max(triton.next_power_of_2(D), 4), 32 // q.element_size())  # two lanes' loads, between which there is one step of adding up
    numbers = {
        "beta": sampling.beta, "eps": sampling.eps, "N": N, "E": E, "slots_row": slots_row,
        "D": D, "LOGISTIC": sampling.noise == "logistic", "BD": BD, "BE": _EDGES_A_PROGRAM,
    }  # fmt: skip
    bound = 128 if q.dtype in (torch.bfloat16, torch.float16) else None  # with it ptxas has twice the loads in flight, and spills nothing
    return Settled(B * _programs_a_walk(q, E, 0), numbers, launch_options(num_warps=4, max_registers=bound))


def _programs_a_walk(q: Tensor, num_slots: int, hops: int) -> int:
    B, T, J, _ = q.shape
    if hops == 0:
        return triton.cdiv(num_slots, _EDGES_A_PROGRAM)
    GROUP, BT, _ = _tile(B, T, J, enough_programs(q.device))
    return triton.cdiv(J, GROUP) * triton.cdiv(T, BT)


@triton.jit
def _eight_nodes(nodes_ptr, s, last):
    """How many nodes the other ends of eight slots follow the frame's first, from slot s on. Beyond the joint's last slot the last four again: to
    read a row that nobody asks for is cheaper than a mask, for which every register that is loaded has to be set to 0 before.  # eight times [N]"""
    nodes: tl.tuple = ()
    for u in tl.static_range(8):
        nodes += (tl.load(nodes_ptr + (tl.minimum(s + u // 4 * 4, last) + u % 4)),)
    return nodes


@triton.jit
def _eight_dots(q_rows, k_rows, nodes, before, last_node, channels, compute: tl.constexpr, D: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr):
    """q · k of eight slots; anything where no edge exists, for which some row of the walk is read.  # eight times [N]"""
    dots: tl.tuple = ()
    for _ in tl.static_range(8):
        dots += (tl.zeros(before.shape, compute),)
    for first in range(0, D, BC):
        q = load_parts(q_rows + first, None, D, first + channels, compute, False, D % BC == 0, PARTS)
        sums: tl.tuple = ()
        for u in tl.static_range(8):
            node = tl.minimum((before + nodes[u]).to(tl.uint32), last_node)  # one before the walk is a large number
            k_at = k_rows + first + (node.to(tl.int64) * D)[:, None]
            k = load_parts(k_at, None, D, first + channels, compute, False, D % BC == 0, PARTS)
            sums += (dots[u] + dot_parts(q, k),)
        dots = sums
    return dots


@triton.jit
def _by_slot(x):
    """Eight times [N] -> [N / 4, 8, 4]: quads, slots, frames"""
    fours: tl.tuple = ()
    for u in tl.static_range(2):
        fours += (tl.join(tl.join(x[u], x[u + 4]), tl.join(x[u + 2], x[u + 6])),)
    return tl.join(fours[0], fours[1]).reshape(x[0].shape[0] // 4, 4, 8).permute(0, 2, 1)


@triton.jit(do_not_specialize=["seed"])
def _sample_slots(
    q_ptr, k_ptr, bias_ptr, kept_ptr, parts_ptr, ids_ptr, lengths_ptr, slots_ptr, bounds_ptr, seed_ptr, prior_ptr,
    seed: tl.int64, prior: tl.float64, beta: tl.float64, eps: tl.float64, T, J, P, slots_row, bounds_row,
    D: tl.constexpr, LOGISTIC: tl.constexpr, QUADS: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """GROUP joints as receivers over BT frames. Groups run fastest in the grid, so those of a frame tile share k's window through the caches."""
    if QUADS:
        T = T // 4 * 4  # the same, but now the compiler knows that four frames of a slot are 16 bytes
    _, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, joints_ptr, _ = bound_rows(bounds_ptr, bounds_row)
    program, groups = tl.program_id(0), tl.cdiv(J, GROUP)
    group, first_frame = program % groups, program // groups % tl.cdiv(T, BT) * BT
    b = (program // groups // tl.cdiv(T, BT)).to(tl.int64)
    compute: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    length = walk_length(lengths_ptr, b, T)
    sample, seed = tl.load(ids_ptr + b).to(tl.uint32), seed_of(seed, seed_ptr)

    j, frame, _ = rows_of_group(joints_ptr, group, J, GROUP, BT, ROWS)  # [ROWS], as all that is a row's
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    nodes_ptr, last_four = sender_nodes(slots_ptr, slots_row) + (first + 3 * j) // 4 * 4, (last - first - 1) // 4 * 4
    frame = tl.minimum(first_frame + frame, T - 1)
    channels, walk = tl.arange(0, BC // PARTS)[None, :], b * T * J * D
    q_rows = q_ptr + walk + (((frame * J + j).to(tl.int64) * D)[:, None] + channels)
    k_rows, before, last_node = k_ptr + walk + channels, frame * J, tl.full([], T * J - 1, tl.uint32)

    j, quad, there = rows_of_group(joints_ptr, group, J, GROUP, BT // 4, ROWS // 4)  # [ROWS / 4], as all that is a quad's
    first = tl.load(ptr_ptr + j)
    slots = tl.where(there, tl.load(ptr_ptr + j + 1) - first, 0)
    t = (first_frame + 4 * quad)[:, None, None] + tl.arange(0, 4)[None, None, :]  # [ROWS / 4, 1, 4]
    reach = tl.where(t < length, t, 1 << 30)
    if parts_ptr is not None:
        log_r, log_s = logarithms(prior, prior_ptr, compute)
        divergence = tl.zeros((ROWS // 4, 8, 4), compute)
    for s in range(0, tl.max(slots), 8):
        nodes = _eight_nodes(nodes_ptr, s, last_four)
        gamma = _by_slot(_eight_dots(q_rows, k_rows, nodes, before, last_node, channels, compute, D, BC, PARTS))  # [ROWS / 4, 8, 4]
        position = s + tl.arange(0, 8)[None, :]
        has = position < slots[:, None]
        p = tl.load(order_ptr + first[:, None] + position, has, 0)  # [ROWS / 4, 8]
        if bias_ptr is not None:  # read for every frame: read once, it would have to be handed to those threads that have the products
            gamma += tl.load((bias_ptr + p)[:, :, None].broadcast_to(ROWS // 4, 8, 4)).to(compute)
        exists = (reach + tl.load(offset_ptr + p)[:, :, None]).to(tl.uint32) < length.to(tl.uint32)
        u = uniform((first_frame // 4 + quad)[:, None], p, sample, 0, seed).reshape(ROWS // 4, 8, 4)
        kept = keep(gamma, u.to(compute), beta, eps, LOGISTIC)
        has = has[:, :, None] & (t < T)
        tl.store(kept_ptr + ((b * P + p)[:, :, None] * T + t), tl.where(exists, kept, 0.0), has)
        if parts_ptr is not None:
            divergence += tl.where(exists & has, divergence_of(gamma, log_r, log_s, beta, LOGISTIC), 0.0)
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
        log_r, log_s = logarithms(prior, prior_ptr, compute)
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
    tl.store(kept_ptr + b * E + e, keep(gamma, u.to(compute), beta, eps, LOGISTIC), inside)
    if parts_ptr is not None:
        divergence = tl.where(inside, divergence_of(gamma, log_r, log_s, beta, LOGISTIC), 0.0)
        tl.store(parts_ptr + program, tl.sum(divergence))


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, and on an edge list of 4096 edges; those with the information term
    read the seed and the prior on the GPU."""
    B, T, D, E, kind, sampling = 8, 60, 64, graph.edges.num_slots, DTYPES[dtype], Sampling()
    J, P = graph.num_joints, graph.num_slots
    known: dict[str, Any] = {"seed": -(2**40) - 1, "prior": 0.5, "slots_ptr": torch.int32, "bounds_ptr": torch.int32, "kept_ptr": torch.float32}
    known |= dict.fromkeys(("ids_ptr", "lengths_ptr"), torch.int64) | dict.fromkeys(("q_ptr", "k_ptr"), kind) | {"bias_ptr": torch.float32}
    known |= dict.fromkeys(("parts_ptr", "seed_ptr", "prior_ptr"))
    informed = dict.fromkeys(("parts_ptr", "prior_ptr"), torch.float32) | {"seed_ptr": torch.int64}
    q = torch.empty(B, T, J, D, dtype=kind, device="meta")
    skeleton = _settle_slots(q, graph.index, sampling)
    listed = _settle_list(q.view(B, 1, T * J, D), graph.edges, sampling)
    BT, GROUP = skeleton.numbers["BT"], skeleton.numbers["GROUP"]

    def one(note: str, kernel: Any, settled: Settled, work: str, edges: int, features: int, window: tuple[int, int]) -> list[Compilation]:
        """Without the information term and with it. `features`: bytes that are read of q and k."""
        found = []
        for term, changes in (("", {}), ("information", informed)):
            arguments = {name: (known | changes | settled.numbers)[name] for name in kernel.arg_names}
            notes = ", ".join(filter(None, (note, term)))
            written = 4 * B * edges + (4 * settled.programs if term else 0)
            found.append(
                Compilation(
                    "sample_edges from embeddings" + (f" ({notes})" if notes else ""), kernel, arguments, settled.options["num_warps"], work,
                    settled.programs, written + features, written + 2 * q.nbytes, window, settled.options.get("maxnreg"),
                )
            )  # fmt: skip
        return found

    read = q.nbytes + frames_read(T, BT, graph.hops) * q.nbytes // T
    row = D * kind.itemsize
    return [
        *one("", _sample_slots, skeleton, f"B={B} T={T} k={graph.hops} D={D}", P * T, read, feature_bytes(graph, BT, row, joints=GROUP)),
        *one("edge list", _sample_list, listed, f"B={B} N={T * J} E={E} D={D}", E, 2 * B * E * row, (2 * _EDGES_A_PROGRAM * row,) * 2),
    ]
