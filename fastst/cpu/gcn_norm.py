"""The normalisation of a graph convolution on the CPU: passes over the nodes, each along the frames of one joint's slots.

D^-½ is kept as `[B, J, T]`, frames contiguous like the edge values. A thread writes only what belongs to the joints that it goes over. Of an edge
list, whose slots have one frame, the degrees are passes over the nodes, and the values of the edges are made in their own order.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import clear
from fastst.cpu.products import frame_counts, row_of
from fastst.cpu.threads import run_ranges
from fastst.graph_index import GraphIndex

_EDGES = 1024  # of a list that a thread goes over at once


def gcn_norm(kept: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, num_joints: int, hops: int) -> tuple[Tensor, Tensor, Tensor]:
    """kept / √(D[to] D[from]) on the edges, loop / D on the nodes that bring none, and D^-½."""
    edges = kept.to(torch.promote_types(kept.dtype, torch.float32))
    B, P, T = kept.shape
    weight, root = empty(B, P, T, dtype=edges.dtype), torch.empty(B, num_joints, T, dtype=edges.dtype)
    given, nodes = (edges, root, frame_counts(lengths, B, T), *_slots(index)), B * num_joints * min(T, 1)
    added = _added(loop, index, edges)
    if hops == 0:
        run_ranges(_edge_list_roots, B * num_joints, added, edges, root, index.dst_ptr, index.dst_order)
        run_ranges(_edge_list_weights, _pieces(B * P), weight, edges, root, index.src, index.dst)
    else:
        run_ranges(_roots, nodes, added, *given)
        run_ranges(_weights, nodes, weight, *given)
    return weight.to(kept.dtype), root.square().mul_(added[:, None]).transpose(1, 2).to(kept.dtype), root


def gcn_norm_backward(
    dweight: Tensor, dself: Tensor, kept: Tensor, root: Tensor, lengths: Tensor | None, index: GraphIndex, loop: float, hops: int
) -> Tensor:
    """The gradient of kept, through the degrees too: with r = D^-½, weight = kept r[to] r[from] and self = loop r², so dD = -½ r³ dr."""
    dtype = torch.promote_types(kept.dtype, torch.float32)
    edges, dweight = kept.to(dtype), dweight.to(dtype)
    (B, P, T), J = kept.shape, root.shape[1]
    dkept = empty(B, P, T, dtype=dtype)
    # a copy: it becomes the gradient of the degree in place  # [B, J, T]
    ddegree = dself.to(dtype).transpose(1, 2).clone(memory_format=torch.contiguous_format).mul_(_added(loop, index, edges)[:, None])
    given, nodes = (edges, root, frame_counts(lengths, B, T), *_slots(index)), B * J * min(T, 1)
    if hops == 0:
        into, out_of = (index.dst_ptr, index.dst_order, index.sender_nodes), (index.src_ptr, index.src_order, index.receiver_nodes)
        through = torch.mul(dweight, edges, out=dkept)  # dkept itself is made last
        run_ranges(_edge_list_degree_gradients, B * J, through, ddegree, root, *into, *out_of)
        run_ranges(_edge_list_gradients, _pieces(B * P), dweight, ddegree, dkept, root, index.src, index.dst)
    else:
        run_ranges(_degree_gradients, nodes, dweight, ddegree, index.src_ptr, index.src_order, *given)
        run_ranges(_kept_gradients, nodes, dweight, ddegree, dkept, *given)
    return dkept.to(kept.dtype)


def _pieces(edges: int) -> int:
    return -(-edges // _EDGES)


def _added(loop: float, index: GraphIndex, like: Tensor) -> Tensor:
    """The weight of the self-loop that every joint is given.  # [J]"""
    return (loop * index.no_loop).to(like.dtype)


def _slots(index: GraphIndex) -> tuple[Tensor, ...]:
    return index.dst_ptr, index.dst_order, index.src, index.dst, index.offset


@numba.njit(nogil=True, inline="always")
def _span(offset, length):
    """The frames from which and up to which a slot's edges exist; of a slot that reaches beyond the walk two equal ones within it."""
    first = min(max(0, -offset), length)
    return first, max(first, min(length, length - offset))


@compile_loops
def _roots(first_node, last_node, added, kept, root, lengths, ptr, order, src, dst, offset):
    J, T = root.shape[1:]
    for node in range(first_node, last_node):
        b, j = node // J, node % J
        mine, length = root[b, j], lengths[b]
        for t in range(length):
            mine[t] = added[j]
        clear(root, node * T + length, (node + 1) * T)
        for i in range(ptr[j], ptr[j + 1]):
            s = order[i]
            first, last = _span(offset[s], length)
            degree, edges = mine[first:last], kept[b, s, first:last]
            for t in range(len(degree)):
                degree[t] += edges[t]
        for t in range(length):
            mine[t] = 1 / np.sqrt(mine[t]) if mine[t] != 0 else mine[t]


@compile_loops
def _weights(first_node, last_node, weight, kept, root, lengths, ptr, order, src, dst, offset):
    (_, P, T), J = weight.shape, root.shape[1]
    for node in range(first_node, last_node):
        b, j = node // J, node % J
        for i in range(ptr[j], ptr[j + 1]):
            s = order[i]
            first, last = _span(offset[s], lengths[b])
            clear(weight, (b * P + s) * T, (b * P + s) * T + first)
            clear(weight, (b * P + s) * T + last, (b * P + s + 1) * T)
            out, edges = weight[b, s, first:last], kept[b, s, first:last]
            to, from_ = root[b, j, first:last], root[b, src[s], first + offset[s] : last + offset[s]]
            for t in range(len(out)):
                out[t] = edges[t] * to[t] * from_[t]


@compile_loops
def _degree_gradients(
    first_node, last_node, dweight, gradient, src_ptr, src_order, kept, root, lengths, ptr, order, src, dst, offset
):  # fmt: skip
    J = root.shape[1]
    for node in range(first_node, last_node):
        b, j = node // J, node % J
        mine, own = gradient[b, j], root[b, j]
        for t in range(lengths[b]):
            mine[t] = 2 * own[t] * mine[t]
        for i in range(ptr[j], ptr[j + 1]):
            s = order[i]
            first, last = _span(offset[s], lengths[b])
            out, edges, given = mine[first:last], kept[b, s, first:last], dweight[b, s, first:last]
            other = root[b, src[s], first + offset[s] : last + offset[s]]
            for t in range(len(out)):
                out[t] += given[t] * edges[t] * other[t]
        for i in range(src_ptr[j], src_ptr[j + 1]):
            s = src_order[i]
            first, last = _span(offset[s], lengths[b])
            out, edges, given = mine[first + offset[s] : last + offset[s]], kept[b, s, first:last], dweight[b, s, first:last]
            other = root[b, dst[s], first:last]
            for t in range(len(out)):
                out[t] += given[t] * edges[t] * other[t]
        for t in range(lengths[b]):
            mine[t] *= own.dtype.type(-0.5) * own[t] * own[t] * own[t]


@compile_loops
def _kept_gradients(first_node, last_node, dweight, ddegree, dkept, kept, root, lengths, ptr, order, src, dst, offset):
    (_, P, T), J = dkept.shape, root.shape[1]
    for node in range(first_node, last_node):
        b, j = node // J, node % J
        for i in range(ptr[j], ptr[j + 1]):
            s = order[i]
            first, last = _span(offset[s], lengths[b])
            clear(dkept, (b * P + s) * T, (b * P + s) * T + first)
            clear(dkept, (b * P + s) * T + last, (b * P + s + 1) * T)
            out, given, through = dkept[b, s, first:last], dweight[b, s, first:last], ddegree[b, j, first:last]
            to, from_ = root[b, j, first:last], root[b, src[s], first + offset[s] : last + offset[s]]
            for t in range(len(out)):
                out[t] = given[t] * to[t] * from_[t] + through[t]


@compile_loops
def _edge_list_roots(first, last, added, kept, root, ptr, order):
    N = root.shape[1]
    for node in range(first, last):
        b, j = node // N, node % N
        edges, degree = kept[b, :, 0], added[j]
        for e in order[ptr[j] : ptr[j + 1]]:
            degree += edges[e]
        root[b, j, 0] = 1 / np.sqrt(degree) if degree != 0 else degree


@compile_loops
def _edge_list_weights(first, last, weight, kept, root, src, dst):
    P = len(src)
    for e in range(first * _EDGES, min(last * _EDGES, weight.size)):
        b, p = e // P, e % P
        weight[b, p, 0] = kept[b, p, 0] * root[b, dst[p], 0] * root[b, src[p], 0]


@compile_loops
def _edge_list_degree_gradients(
    first, last, through, gradient, root, dst_ptr, dst_order, sender_nodes, src_ptr, src_order, receiver_nodes
):  # fmt: skip
    N = root.shape[1]
    for node in range(first, last):
        b, j = node // N, node % N
        own = root[b, j, 0]
        total = root.dtype.type(2) * own * gradient[b, j, 0]
        for ptr, order, nodes in ((dst_ptr, dst_order, sender_nodes), (src_ptr, src_order, receiver_nodes)):
            begin = row_of(ptr, j)
            for i in range(ptr[j + 1] - ptr[j]):
                e = order[ptr[j] + i]
                total += through[b, e, 0] * root[b, nodes[begin + i], 0]
        gradient[b, j, 0] = total * root.dtype.type(-0.5) * own * own * own


@compile_loops
def _edge_list_gradients(first, last, dweight, ddegree, dkept, root, src, dst):
    P = len(src)
    for e in range(first * _EDGES, min(last * _EDGES, dkept.size)):
        b, p = e // P, e % P
        dkept[b, p, 0] = dweight[b, p, 0] * root[b, dst[p], 0] * root[b, src[p], 0] + ddegree[b, dst[p], 0]
