"""The symmetric normalisation on the GPU: the forward a pass over the nodes and one over the edges, the backward one more over the nodes.

What a pass over the nodes leaves for the next is `[B, J, T]`: like this a slot's values of neighbouring frames are neighbours in memory.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.launch import launch_options, on_device_of
from fastst.graph import GraphIndex


def gcn_norm(kept: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, num_joints: int, hops: int) -> tuple[Tensor, Tensor]:
    """weight[p, t] = kept[p, t] / √(D[to] D[from]) and loop / D of every node that brings no loop, D = loop + Σ of kept over the edges into it.

    # [B, P, T], [B, T, J]
    """
    kept = kept.contiguous()
    B, P, T = kept.shape
    weight, self_weight = torch.empty_like(kept), kept.new_empty(B, T, num_joints)
    root = _per_node(kept, num_joints)
    nodes, edges = _node_tile(T, hops), _edge_tile(P, T)
    with on_device_of(kept):
        _degrees[_node_grid(B, T, num_joints, nodes)](
            kept, root, self_weight, lengths, index.dst_ptr, index.dst_order, index.offset, index.no_loop, T, num_joints, P, LOOP=loop, **nodes
        )
        _weights[_edge_grid(B, P, T, edges)](kept, root, weight, lengths, index.src, index.dst, index.offset, T, num_joints, P, **edges)
    return weight, self_weight


def gcn_norm_backward(
    dweight: Tensor, dself: Tensor, kept: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, num_joints: int, hops: int
) -> Tensor:
    """dkept[p, t] = dweight[p, t] r[to] r[from] + dD[to], with r = D^-½ and dD = -½ r³ dr.  # [B, P, T]"""
    dweight, dself, kept = dweight.contiguous(), dself.contiguous(), kept.contiguous()
    B, P, T = kept.shape
    dkept = torch.empty_like(kept)
    root, ddegree = _per_node(kept, num_joints), _per_node(kept, num_joints)
    nodes, edges = _node_tile(T, hops), _edge_tile(P, T)
    grid = _node_grid(B, T, num_joints, nodes)
    with on_device_of(kept):
        slots_in = (index.dst_ptr, index.dst_order, index.offset, index.no_loop)
        _degrees[grid](kept, root, None, lengths, *slots_in, T, num_joints, P, LOOP=loop, **nodes)
        ends = (index.src, index.dst, index.offset, index.dst_ptr, index.dst_order, index.src_ptr, index.src_order, index.no_loop)
        _degrees_backward[grid](kept, dweight, dself, root, ddegree, lengths, *ends, T, num_joints, P, LOOP=loop, **nodes)
        _weights_backward[_edge_grid(B, P, T, edges)](
            dweight, root, ddegree, dkept, lengths, index.src, index.dst, index.offset, T, num_joints, P, **edges
        )
    return dkept


def _per_node(kept: Tensor, num_joints: int) -> Tensor:
    return torch.empty(len(kept), num_joints, kept.shape[2], dtype=torch.promote_types(kept.dtype, torch.float32), device=kept.device)


def _node_tile(T: int, hops: int) -> dict[str, Any]:
    """One joint: BS of its slots at a time over BT frames, four values a thread. An edge list has one frame, and a warp for every node."""
    BT = max(min(triton.next_power_of_2(T), 64), 1)
    if hops == 0:
        return {"BS": 32, "BT": 1, **launch_options(num_warps=1)}
    return {"BS": 8, "BT": BT, **launch_options(num_warps=max(BT // 16, 1))}


def _node_grid(B: int, T: int, num_joints: int, tile: dict[str, Any]) -> tuple[int]:
    return (B * num_joints * triton.cdiv(T, tile["BT"]),)


def _edge_tile(P: int, T: int) -> dict[str, Any]:
    """Up to 512 edges, four a thread."""
    BT = max(min(triton.next_power_of_2(T), 256), 1)
    BP = max(min(triton.next_power_of_2(P), 512 // BT), 1)
    return {"BP": BP, "BT": BT, **launch_options(num_warps=min(max(BP * BT // 128, 1), 4))}


def _edge_grid(B: int, P: int, T: int, tile: dict[str, Any]) -> tuple[int]:
    return (B * triton.cdiv(P, tile["BP"]) * triton.cdiv(T, tile["BT"]),)


@triton.jit
def _length(lengths_ptr, b, T):
    """Frames of a walk."""
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
    return length


@triton.jit
def _nodes(lengths_ptr, T, J, BT: tl.constexpr):
    """Of this program: the walk, the joint, its frames [1, BT] and how many the walk has. The joints of a frame tile are neighbours."""
    program = tl.program_id(0)
    tiles = tl.cdiv(T, BT)
    b = (program // J // tiles).to(tl.int64)
    t = (program // J % tiles * BT + tl.arange(0, BT))[None, :]
    return b, program % J, t, _length(lengths_ptr, b, T)


@triton.jit
def _degrees(
    kept_ptr, root_ptr, self_ptr, lengths_ptr, ptr_ptr, order_ptr, offset_ptr, no_loop_ptr, T, J, P,
    LOOP: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """root = D^-½, 0 for a node without edges, and the added loop's weight where there is a self_ptr."""
    b, j, t, length = _nodes(lengths_ptr, T, J, BT)
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
    if self_ptr is not None:
        tl.store(self_ptr + (b * T + t) * J + j, tl.where(t < length, added / degree, 0.0), t < T)


@triton.jit
def _degrees_backward(
    kept_ptr, dweight_ptr, dself_ptr, root_ptr, ddegree_ptr, lengths_ptr,
    src_ptr, dst_ptr, offset_ptr, dst_ptr_ptr, dst_order_ptr, src_ptr_ptr, src_order_ptr, no_loop_ptr, T, J, P,
    LOOP: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """dD = -½ r³ dr, dr = Σ dweight kept r[other end] over the edges into the node and out of it, and 2 r dself of the loop that was added."""
    b, j, t, length = _nodes(lengths_ptr, T, J, BT)
    compute: tl.constexpr = root_ptr.dtype.element_ty
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
def _edges(lengths_ptr, src_ptr, dst_ptr, offset_ptr, T, J, P, BP: tl.constexpr, BT: tl.constexpr):
    """Of this program: addresses of the edges and of their two ends, which edges are inside and which exist.  # [BP, BT]"""
    program = tl.program_id(0)
    tiles = tl.cdiv(T, BT)
    b = (program // tiles // tl.cdiv(P, BP)).to(tl.int64)
    p = (program // tiles % tl.cdiv(P, BP) * BP + tl.arange(0, BP))[:, None]
    t = (program % tiles * BT + tl.arange(0, BT))[None, :]
    length = _length(lengths_ptr, b, T)
    source = t + tl.load(offset_ptr + p, p < P, 0)
    inside = (p < P) & (t < T)
    exists = inside & (source >= 0) & (source < length) & (t < length)
    receiver = (b * J + tl.load(dst_ptr + p, p < P, 0)) * T + t
    sender = (b * J + tl.load(src_ptr + p, p < P, 0)) * T + source
    return (b * P + p) * T + t, receiver, sender, inside, exists


@triton.jit
def _weights(
    kept_ptr, root_ptr, weight_ptr, lengths_ptr, src_ptr, dst_ptr, offset_ptr, T, J, P,
    BP: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    at, receiver, sender, inside, exists = _edges(lengths_ptr, src_ptr, dst_ptr, offset_ptr, T, J, P, BP, BT)
    kept = tl.load(kept_ptr + at, exists, 0.0).to(root_ptr.dtype.element_ty)
    tl.store(weight_ptr + at, kept * tl.load(root_ptr + receiver, exists, 0.0) * tl.load(root_ptr + sender, exists, 0.0), inside)


@triton.jit
def _weights_backward(
    dweight_ptr, root_ptr, ddegree_ptr, dkept_ptr, lengths_ptr, src_ptr, dst_ptr, offset_ptr, T, J, P,
    BP: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    at, receiver, sender, inside, exists = _edges(lengths_ptr, src_ptr, dst_ptr, offset_ptr, T, J, P, BP, BT)
    dweight = tl.load(dweight_ptr + at, exists, 0.0).to(root_ptr.dtype.element_ty)
    roots = tl.load(root_ptr + receiver, exists, 0.0) * tl.load(root_ptr + sender, exists, 0.0)
    tl.store(dkept_ptr + at, dweight * roots + tl.load(ddegree_ptr + receiver, exists, 0.0), inside)


def compilations(dtype: str) -> list[Compilation]:
    """The kernels of this file as launched at B = 8, T = 60 on coco18 with k = 3 (P = 494)."""
    B, T, J, P = 8, 60, 18, 494
    kind = DTYPES[dtype]
    nodes, edges = _node_tile(T, hops=3), _edge_tile(P, T)
    (node_programs,), (edge_programs,) = _node_grid(B, T, J, nodes), _edge_grid(B, P, T, edges)
    known: dict[str, Any] = {"T": T, "J": J, "P": P, "LOOP": 1.0, "root_ptr": torch.float32, "ddegree_ptr": torch.float32, "lengths_ptr": torch.int64}
    known |= dict.fromkeys(("kept_ptr", "weight_ptr", "self_ptr", "dweight_ptr", "dself_ptr", "dkept_ptr"), kind)

    def one(name: str, kernel: Any, programs: int, tile: dict[str, Any], edge_values: int, node_values: int, roots: int) -> Compilation:
        """The counts: tensors `[B, P, T]` and `[B, T, J]` in kept's dtype, and `[B, J, T]` in float32, that it reads or writes."""
        arguments = {parameter.name: {**known, **tile}.get(parameter.name, torch.int32) for parameter in kernel.params}
        moved = (edge_values * P + node_values * J) * B * T * kind.itemsize + roots * B * T * J * 4
        return Compilation(name, kernel, arguments, tile["num_warps"], f"B={B} T={T} k=3", programs, moved, moved)

    return [
        one("gcn_norm degrees", _degrees, node_programs, nodes, 1, 1, 1),
        one("gcn_norm weights", _weights, edge_programs, edges, 2, 0, 1),
        one("gcn_norm backward (degrees)", _degrees_backward, node_programs, nodes, 2, 1, 2),
        one("gcn_norm backward (edges)", _weights_backward, edge_programs, edges, 2, 0, 2),
    ]
