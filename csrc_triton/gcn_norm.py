"""The symmetric normalisation on the GPU: the forward a pass over the nodes and one over the edges, the backward one more over the nodes.

What a pass over the nodes leaves for the next is `[B, J, T]`: like this a slot's values of neighbouring frames are neighbours in memory.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import bound_rows, row_strides, slot_rows, walk_length
from csrc_triton.launch import Settled, launch, launch_options
from fastst.graph_index import GraphIndex


def gcn_norm(kept: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, num_joints: int, hops: int) -> tuple[Tensor, Tensor, Tensor]:
    """weight[p, t] = kept[p, t] / √(D[to] D[from]), loop / D of every node that brings no loop, and D^-½, with D = loop + Σ kept over the edges in.

    # [B, P, T], [B, T, J], [B, J, T]
    """
    kept = kept.contiguous()
    B, _, T = kept.shape
    weight, self_weight, root = torch.empty_like(kept), kept.new_empty(B, T, num_joints), _per_node(kept, num_joints)
    slots, key = (index.slots, index.bounds), (kept.shape, num_joints, hops, row_strides(index))
    launch(_degrees, (kept, root, self_weight, lengths, *slots), (key, loop), lambda: _over_nodes(kept, num_joints, hops, index, {"LOOP": loop}))
    launch(_weights, (kept, root, weight, lengths, index.slots), key, lambda: _over_edges(kept, num_joints, index))
    return weight, self_weight, root


def gcn_norm_backward(
    dweight: Tensor, dself: Tensor, kept: Tensor, root: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, hops: int
) -> Tensor:
    """dkept[p, t] = dweight[p, t] r[to] r[from] + dD[to], with r = D^-½ and dD = -½ r³ dr.  # [B, P, T]"""
    dweight, dself, kept = dweight.contiguous(), dself.contiguous(), kept.contiguous()
    J = root.shape[1]
    dkept, ddegree = torch.empty_like(kept), torch.empty_like(root)
    pointers = (kept, dweight, dself, root, ddegree, lengths, index.slots, index.bounds)
    key = (kept.shape, J, hops, row_strides(index))
    launch(_degrees_backward, pointers, (key, loop), lambda: _over_nodes(kept, J, hops, index, {"LOOP": loop}))
    launch(_weights_backward, (dweight, root, ddegree, dkept, lengths, index.slots), key, lambda: _over_edges(kept, J, index))
    return dkept


def _per_node(kept: Tensor, num_joints: int) -> Tensor:
    return torch.empty(len(kept), num_joints, kept.shape[2], dtype=torch.promote_types(kept.dtype, torch.float32), device=kept.device)


def _over_nodes(kept: Tensor, J: int, hops: int, index: GraphIndex, constants: dict[str, Any]) -> Settled:
    """One joint: BS of its slots at a time over BT frames, four values a thread. An edge list has one frame, and a warp for every node."""
    B, P, T = kept.shape
    BS, BT = (32, 1) if hops == 0 else (8, max(min(triton.next_power_of_2(T), 64), 1))
    slots_row, bounds_row = row_strides(index)
    numbers = {"T": T, "J": J, "P": P, "slots_row": slots_row, "bounds_row": bounds_row, **constants, "BS": BS, "BT": BT}
    return Settled(B * J * triton.cdiv(T, BT), numbers, launch_options(num_warps=max(BT // 16, 1)))


def _over_edges(kept: Tensor, J: int, index: GraphIndex) -> Settled:
    """Up to 512 edges, four a thread."""
    B, P, T = kept.shape
    BT = max(min(triton.next_power_of_2(T), 256), 1)
    BP = max(min(triton.next_power_of_2(P), 512 // BT), 1)
    numbers = {"T": T, "J": J, "P": P, "slots_row": row_strides(index)[0], "BP": BP, "BT": BT}
    num_warps = min(max(BP * BT // 128, 1), 4)
    return Settled(B * triton.cdiv(P, BP) * triton.cdiv(T, BT), numbers, launch_options(num_warps=num_warps))


@triton.jit
def _nodes(lengths_ptr, T, J, BT: tl.constexpr):
    """Of this program: the walk, the joint, its frames [1, BT] and how many the walk has. The joints of a frame tile are neighbours."""
    program = tl.program_id(0)
    tiles = tl.cdiv(T, BT)
    b = (program // J // tiles).to(tl.int64)
    t = (program // J % tiles * BT + tl.arange(0, BT))[None, :]
    return b, program % J, t, walk_length(lengths_ptr, b, T)


@triton.jit
def _degrees(
    kept_ptr, root_ptr, self_ptr, lengths_ptr, slots_ptr, bounds_ptr, T, J, P, slots_row, bounds_row,
    LOOP: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """root = D^-½, 0 for a node without edges, and the added loop's weight."""
    b, j, t, length = _nodes(lengths_ptr, T, J, BT)
    _, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, no_loop_ptr, _, _ = bound_rows(bounds_ptr, bounds_row)
    total = tl.zeros((BS, BT), root_ptr.dtype.element_ty)
    last = tl.load(ptr_ptr + j + 1)
    for s in range(tl.load(ptr_ptr + j), last, BS):
        slot = s + tl.arange(0, BS)[:, None]
        p = tl.load(order_ptr + slot, slot < last, 0)
        source = t + tl.load(offset_ptr + p)
        exists = (slot < last) & (source >= 0) & (source < length) & (t < length)
        total += tl.load(kept_ptr + (b * P + p) * T + t, exists, 0.0).to(total.dtype)
    added = tl.load(no_loop_ptr + j).to(total.dtype) * LOOP
    degree = added + tl.sum(total, 0, keep_dims=True)
    nothing = degree == 0
    degree = tl.where(nothing, 1.0, degree)
    tl.store(root_ptr + (b * J + j) * T + t, tl.where(nothing, 0.0, 1 / tl.sqrt(degree)), t < T)
    tl.store(self_ptr + (b * T + t) * J + j, tl.where(t < length, added / degree, 0.0), t < T)


@triton.jit
def _degrees_backward(
    kept_ptr, dweight_ptr, dself_ptr, root_ptr, ddegree_ptr, lengths_ptr, slots_ptr, bounds_ptr, T, J, P, slots_row, bounds_row,
    LOOP: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """dD = -½ r³ dr, dr = Σ dweight kept r[other end] over the edges into the node and out of it, and 2 r dself of the loop that was added."""
    b, j, t, length = _nodes(lengths_ptr, T, J, BT)
    compute: tl.constexpr = root_ptr.dtype.element_ty
    src_ptr, dst_ptr, offset_ptr, dst_order_ptr, src_order_ptr = slot_rows(slots_ptr, slots_row)
    dst_ptr_ptr, src_ptr_ptr, no_loop_ptr, _, _ = bound_rows(bounds_ptr, bounds_row)
    total = tl.zeros((BS, BT), compute)
    last = tl.load(dst_ptr_ptr + j + 1)
    for s in range(tl.load(dst_ptr_ptr + j), last, BS):
        slot = s + tl.arange(0, BS)[:, None]
        p = tl.load(dst_order_ptr + slot, slot < last, 0)
        source = t + tl.load(offset_ptr + p)
        exists = (slot < last) & (source >= 0) & (source < length) & (t < length)
        at = (b * P + p) * T + t
        through = tl.load(dweight_ptr + at, exists, 0.0).to(compute) * tl.load(kept_ptr + at, exists, 0.0).to(compute)
        total += through * tl.load(root_ptr + (b * J + tl.load(src_ptr + p)) * T + source, exists, 0.0)
    last = tl.load(src_ptr_ptr + j + 1)
    for s in range(tl.load(src_ptr_ptr + j), last, BS):
        slot = s + tl.arange(0, BS)[:, None]
        p = tl.load(src_order_ptr + slot, slot < last, 0)
        target = t - tl.load(offset_ptr + p)
        exists = (slot < last) & (target >= 0) & (target < length) & (t < length)
        at = (b * P + p) * T + target
        through = tl.load(dweight_ptr + at, exists, 0.0).to(compute) * tl.load(kept_ptr + at, exists, 0.0).to(compute)
        total += through * tl.load(root_ptr + (b * J + tl.load(dst_ptr + p)) * T + target, exists, 0.0)
    node = (b * J + j) * T + t
    root = tl.load(root_ptr + node, t < length, 0.0)
    dself = tl.load(dself_ptr + (b * T + t) * J + j, t < length, 0.0).to(compute) * (tl.load(no_loop_ptr + j).to(compute) * LOOP)
    droot = tl.sum(total, 0, keep_dims=True) + 2 * root * dself
    tl.store(ddegree_ptr + node, -0.5 * root * root * root * droot, t < T)


@triton.jit
def _edges(lengths_ptr, slots_ptr, slots_row, T, J, P, BP: tl.constexpr, BT: tl.constexpr):
    """Of this program: addresses of the edges and of their two ends, which edges are inside and which exist.  # [BP, BT]"""
    program = tl.program_id(0)
    tiles = tl.cdiv(T, BT)
    b = (program // tiles // tl.cdiv(P, BP)).to(tl.int64)
    p = (program // tiles % tl.cdiv(P, BP) * BP + tl.arange(0, BP))[:, None]
    t = (program % tiles * BT + tl.arange(0, BT))[None, :]
    length = walk_length(lengths_ptr, b, T)
    src_ptr, dst_ptr, offset_ptr, _, _ = slot_rows(slots_ptr, slots_row)
    source = t + tl.load(offset_ptr + p, p < P, 0)
    inside = (p < P) & (t < T)
    exists = inside & (source >= 0) & (source < length) & (t < length)
    receiver = (b * J + tl.load(dst_ptr + p, p < P, 0)) * T + t
    sender = (b * J + tl.load(src_ptr + p, p < P, 0)) * T + source
    return (b * P + p) * T + t, receiver, sender, inside, exists


@triton.jit
def _weights(
    kept_ptr, root_ptr, weight_ptr, lengths_ptr, slots_ptr, T, J, P, slots_row, BP: tl.constexpr, BT: tl.constexpr
):  # fmt: skip
    at, receiver, sender, inside, exists = _edges(lengths_ptr, slots_ptr, slots_row, T, J, P, BP, BT)
    kept = tl.load(kept_ptr + at, exists, 0.0).to(root_ptr.dtype.element_ty)
    tl.store(weight_ptr + at, kept * tl.load(root_ptr + receiver, exists, 0.0) * tl.load(root_ptr + sender, exists, 0.0), inside)


@triton.jit
def _weights_backward(
    dweight_ptr, root_ptr, ddegree_ptr, dkept_ptr, lengths_ptr, slots_ptr, T, J, P, slots_row, BP: tl.constexpr, BT: tl.constexpr
):  # fmt: skip
    at, receiver, sender, inside, exists = _edges(lengths_ptr, slots_ptr, slots_row, T, J, P, BP, BT)
    dweight = tl.load(dweight_ptr + at, exists, 0.0).to(root_ptr.dtype.element_ty)
    roots = tl.load(root_ptr + receiver, exists, 0.0) * tl.load(root_ptr + sender, exists, 0.0)
    tl.store(dkept_ptr + at, dweight * roots + tl.load(ddegree_ptr + receiver, exists, 0.0), inside)


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched at B = 8, T = 60 on coco18 with k = 3 (P = 494)."""
    B, T, kind = 8, 60, DTYPES[dtype]
    J, P = graph.num_joints, graph.num_slots
    kept = torch.empty(B, P, T, dtype=kind, device="meta")
    nodes, edges = _over_nodes(kept, J, graph.hops, graph.index, {"LOOP": 1.0}), _over_edges(kept, J, graph.index)
    known: dict[str, Any] = {"root_ptr": torch.float32, "ddegree_ptr": torch.float32, "lengths_ptr": torch.int64}
    known |= {"slots_ptr": torch.int32, "bounds_ptr": torch.int32}

    def one(name: str, kernel: Any, settled: Settled, edge_values: int, node_values: int, roots: int) -> Compilation:
        """The counts: tensors `[B, P, T]` and `[B, T, J]` in kept's dtype, and `[B, J, T]` in float32, that it reads or writes."""
        arguments = {name: {**known, **settled.numbers}.get(name, kind) for name in kernel.arg_names}
        moved = (edge_values * P + node_values * J) * B * T * kind.itemsize + roots * B * T * J * 4
        return Compilation(name, kernel, arguments, settled.options["num_warps"], f"B={B} T={T} k=3", settled.programs, moved, moved)

    return [
        one("gcn_norm degrees", _degrees, nodes, 1, 1, 1),
        one("gcn_norm weights", _weights, edges, 2, 0, 1),
        one("gcn_norm backward (degrees)", _degrees_backward, nodes, 2, 1, 2),
        one("gcn_norm backward (edges)", _weights_backward, edges, 2, 0, 2),
    ]
