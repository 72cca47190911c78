"""Graphs as lists of edges: the slots of a skeleton that repeat every frame (`SkeletonGraph`), or any COO graph (`EdgeList`).

Edge values (logits, kept edges, weights) are `[B, P, T]` on a `SkeletonGraph` and `[B, E]` on an `EdgeList`. The two are one thing to every
operation: an `EdgeList` is a graph of one frame whose slots are its edges and whose joints are its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from fastst.layouts import Layout, get_layout


class GraphIndex(NamedTuple):
    """What a kernel reads of a graph; all int32. The slots into joint j are `dst_order[dst_ptr[j]:dst_ptr[j + 1]]`, those out of it likewise.

    Their other ends stand row by row: joint j's first at `(dst_ptr[j] + 3 * j) // 4 * 4`, so that four can be read with one instruction.
    Two tensors, for every further one that an operation takes costs time in every call.
    """

    slots: Tensor  # [9, P + 3 * J]
    bounds: Tensor  # [2, J + 1]

    @property
    def num_slots(self) -> int:
        return self.slots.shape[1] - 3 * (self.bounds.shape[1] - 1)

    @property
    def src(self) -> Tensor:
        return self.slots[0, : self.num_slots]  # [P]

    @property
    def dst(self) -> Tensor:
        return self.slots[1, : self.num_slots]  # [P]

    @property
    def offset(self) -> Tensor:
        return self.slots[2, : self.num_slots]  # [P]

    @property
    def dst_order(self) -> Tensor:
        return self.slots[3, : self.num_slots]  # [P], by dst, then src

    @property
    def src_order(self) -> Tensor:
        return self.slots[4, : self.num_slots]  # [P], by src, then dst

    @property
    def sender_frames(self) -> Tensor:
        """In how many frames the slots' other ends follow, row by row."""
        return self.slots[5]  # [P + 3 * J]

    @property
    def sender_nodes(self) -> Tensor:
        """In how many nodes they follow the first node of the frame, row by row."""
        return self.slots[6]  # [P + 3 * J]

    @property
    def receiver_frames(self) -> Tensor:
        return self.slots[7]  # [P + 3 * J], like `sender_frames`, of the slots out of the joints

    @property
    def receiver_nodes(self) -> Tensor:
        return self.slots[8]  # [P + 3 * J]

    @property
    def dst_ptr(self) -> Tensor:
        return self.bounds[0]  # [J + 1]

    @property
    def src_ptr(self) -> Tensor:
        return self.bounds[1]  # [J + 1]


def _table(width: int, *rows: np.ndarray) -> np.ndarray:
    """int32, with rows that begin on 16 bytes, as GPU kernels like them: `width` rounded up, with zeros behind what is given."""
    table = np.zeros((len(rows), -(-width // 4) * 4), np.int32)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = numbers
    return table


def _row_by_row(numbers: np.ndarray, joint: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """The numbers of the slots of every joint at the places where `GraphIndex` says that they are."""
    begin = (ptr + 3 * np.arange(len(ptr))) // 4 * 4
    apart = np.zeros(len(numbers) + 3 * (len(ptr) - 1), numbers.dtype)
    apart[np.arange(len(numbers)) + (begin - ptr)[joint]] = numbers
    return apart


class Graph:
    """What `SkeletonGraph` and `EdgeList` share: index tensors on the device where they are wanted.

    Attributes:
        hops: the largest frame offset; 0 for an `EdgeList`.
        num_joints: nodes in a frame (J, or N).
        num_slots: edges that end in a frame (P, or E).
        slots_of_offset: how many slots have the frame offset -hops, …, hops.
    """

    hops: int
    num_joints: int
    num_slots: int
    slots_of_offset: tuple[int, ...]

    def __init__(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray, num_joints: int, hops: int) -> None:
        self.hops, self.num_joints, self.num_slots = hops, num_joints, len(src)
        self.slots_of_offset = tuple(np.bincount(offset + hops, minlength=2 * hops + 1).tolist())
        dst_order, src_order = np.lexsort((offset, src, dst)), np.lexsort((offset, dst, src))
        joints = np.arange(num_joints + 1)
        dst_ptr, src_ptr = np.searchsorted(dst[dst_order], joints), np.searchsorted(src[src_order], joints)
        senders = (_row_by_row(numbers[dst_order], dst[dst_order], dst_ptr) for numbers in (offset, offset * num_joints + src))
        receivers = (_row_by_row(numbers[src_order], src[src_order], src_ptr) for numbers in (-offset, dst - offset * num_joints))
        slots = _table(len(src) + 3 * num_joints, src, dst, offset, dst_order, src_order, *senders, *receivers)
        # Arrays, for a tensor would be what the modes at hand make of it: on the meta device, fake, or unfit for a backward.
        self._tables = slots, _table(num_joints + 1, dst_ptr, src_ptr)
        self._index: dict[torch.device, GraphIndex] = {}
        self.index()

    def index(self, device: torch.device | str = "cpu") -> GraphIndex:
        """The index tensors on `device`, copied there the first time they are asked for."""
        device = torch.device(device)
        # The compiler makes its own fake tensors of real ones; anybody else's fake mode is given fake ones, which nobody may find later.
        if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() and (mode := detect_fake_mode()) is not None:
            return self._copied_to(device, mode.from_tensor)
        if device not in self._index:
            self._index[device] = self._copied_to(device)
        return self._index[device]

    def _copied_to(self, device: torch.device, made: Callable[[Tensor], Tensor] = lambda table: table) -> GraphIndex:
        with torch.inference_mode(False):  # a tensor that is made in it can't be saved for a backward after it
            slots, bounds = (made(torch.from_numpy(table)).to(device) for table in self._tables)
            return GraphIndex(slots[:, : self.num_slots + 3 * self.num_joints], bounds[:, : self.num_joints + 1])

    @property
    def src(self) -> Tensor:
        return self.index().src

    @property
    def dst(self) -> Tensor:
        return self.index().dst

    @property
    def offset(self) -> Tensor:
        return self.index().offset


class SkeletonGraph(Graph):
    """The slots of a skeleton: all pairs of nodes whose joint distance plus frame distance is at most `hops`, themselves excluded.

    That is the non-zero pattern of (A + I)^hops - I, with A the bones within a frame and every joint joined to itself in the frames beside it
    (the paper's k-adjacency, Fig. 2). Slots are sorted by dst, then offset, then src.

    Args:
        layout: a `Layout`, the name of a built-in one, or a mapping with `joints` and `bones`.
        hops: k, at least 1.

    Raises:
        ValueError: an unknown layout, or hops below 1.
    """

    def __init__(self, layout: Layout | str | Mapping[str, Any], hops: int) -> None:
        if not isinstance(hops, int) or hops < 1:
            raise ValueError(f"hops must be a whole number of at least 1, got {hops!r}")
        self.layout = get_layout(layout)
        away = self.layout.joint_distance()[:, None, :] + np.abs(np.arange(-hops, hops + 1))[None, :, None]  # [dst, offset, src]
        dst, offset, src = np.nonzero((away > 0) & (away <= hops))
        super().__init__(src, dst, offset - hops, self.layout.num_joints, hops)

    def __repr__(self) -> str:
        return f"SkeletonGraph({self.layout.name!r}, hops={self.hops}: {self.num_slots} slots)"

    def edge_mask(self, T: int, lengths: Tensor | None = None) -> Tensor:
        """Which edges (p, t) exist: `[P, T]`, or `[B, P, T]` with `lengths [B]`; bool."""
        mask = edge_exists(self.index(lengths.device if lengths is not None else "cpu").offset, T, lengths)
        return mask if lengths is not None else mask[0]

    def edge_index(self, T: int, lengths: Tensor | None = None) -> Tensor:
        """The existing edges as `[2, E]` int64, row 0 from, row 1 to, ordered by slot, then frame. Node (t, j) is `t * J + j`.

        With `lengths [B]` the graphs of a batch follow one another as in PyTorch Geometric: node (b, t, j) is `(b * T + t) * J + j`.
        `values[graph.edge_mask(T, lengths)]` brings edge values into the same order.
        """
        mask = edge_exists(self.index(lengths.device if lengths is not None else "cpu").offset, T, lengths)
        batch, slot, frame = mask.nonzero(as_tuple=True)
        src, dst, offset = (tensor.to(mask.device).long()[slot] for tensor in (self.src, self.dst, self.offset))
        first = batch * (T * self.num_joints)
        return torch.stack((first + (frame + offset) * self.num_joints + src, first + frame * self.num_joints + dst))

    def dense(self, T: int, values: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """The adjacency matrix, rows to, columns from: `[T*J, T*J]`, or `[B, T*J, T*J]` with `values [B, P, T]` or `lengths [B]`.

        For looking at and for checking small graphs: it has (T*J)² entries.
        """
        mask = edge_exists(self.index(_device(values, lengths)).offset, T, lengths)
        if values is not None:
            mask = mask.expand(values.shape)
        batch, slot, frame = mask.nonzero(as_tuple=True)
        src, dst, offset = (tensor.to(mask.device).long()[slot] for tensor in (self.src, self.dst, self.offset))
        nodes = T * self.num_joints
        entries = torch.ones(len(slot), device=mask.device) if values is None else values[mask]
        dense = entries.new_zeros(mask.shape[0], nodes, nodes)
        dense = dense.index_put((batch, frame * self.num_joints + dst, (frame + offset) * self.num_joints + src), entries)
        return dense if values is not None or lengths is not None else dense[0]


class EdgeList(Graph):
    """Any directed graph as an edge list; features are `[B, N, C]`, edge values `[B, E]` in the order of the edges given here.

    Args:
        edge_index: `[2, E]` whole numbers, row 0 from, row 1 to (as in PyTorch Geometric).
        num_nodes: N.

    Raises:
        ValueError: a wrong shape or dtype, a node outside 0 … N - 1, an edge twice.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        edge_index = torch.as_tensor(edge_index)
        if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.is_floating_point() or edge_index.dtype == torch.bool:
            raise ValueError(f"edge_index must be [2, E] whole numbers, got {list(edge_index.shape)} {edge_index.dtype}")
        if num_nodes < 1:
            raise ValueError(f"num_nodes must be at least 1, got {num_nodes}")
        src, dst = edge_index.cpu().numpy().astype(np.int64)
        outside = np.flatnonzero((src < 0) | (src >= num_nodes) | (dst < 0) | (dst >= num_nodes))
        if len(outside):
            e = outside[0]
            raise ValueError(f"edge {e} goes from node {src[e]} to node {dst[e]}, but the nodes are 0 to {num_nodes - 1} (num_nodes)")
        pairs, first, count = np.unique(dst * num_nodes + src, return_index=True, return_counts=True)
        if len(pairs) != len(src):
            e = first[count > 1][0]
            raise ValueError(f"the edge from node {src[e]} to node {dst[e]} appears more than once; merge repeated edges first")
        super().__init__(src, dst, np.zeros(len(src), np.int64), num_nodes, hops=0)

    def __repr__(self) -> str:
        return f"EdgeList({self.num_slots} edges, {self.num_joints} nodes)"

    def edge_index(self) -> Tensor:
        """The edges as given: `[2, E]` int64, row 0 from, row 1 to."""
        return torch.stack((self.src, self.dst)).long()

    def dense(self, values: Tensor | None = None) -> Tensor:
        """The adjacency matrix, rows to, columns from: `[N, N]`, or `[B, N, N]` with `values [B, E]`."""
        index = self.index(_device(values))
        entries = torch.ones(1, self.num_slots) if values is None else values
        dense = entries.new_zeros(len(entries), self.num_joints, self.num_joints)
        batch = torch.arange(len(entries), device=entries.device)[:, None]
        dense = dense.index_put((batch, index.dst.long()[None], index.src.long()[None]), entries)
        return dense if values is not None else dense[0]


def edge_exists(offset: Tensor, T: int, lengths: Tensor | None) -> Tensor:
    """Where edge (p, t) exists: 0 <= t + offset[p] < length and t < length.  # [B, P, T], or [1, P, T] without lengths; bool"""
    frame = torch.arange(T, device=offset.device)
    source = frame + offset[:, None]  # [P, T]
    if lengths is None:
        return ((source >= 0) & (source < T))[None]
    length = lengths.clamp(max=T)[:, None, None]
    return (source >= 0) & (source < length) & (frame < length)


def _device(*tensors: Tensor | None) -> torch.device:
    return next((tensor.device for tensor in tensors if tensor is not None), torch.device("cpu"))
