"""Graphs as lists of edges: slots that repeat every frame (`SlotGraph`; `SkeletonGraph` makes them of bones), or any COO graph (`EdgeList`).

Edge values (logits, kept edges, weights) are `[B, P, T]` on slots and `[B, E]` on an `EdgeList`. The two are one thing to every operation: an
`EdgeList` is a graph of one frame whose slots are its edges and whose joints are its nodes.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.utils._python_dispatch import _disable_current_modes

from fastst.layouts import Layout, get_layout

_MANY = 1 << 14  # edges from which on it pays to import numba
_HAS_NUMBA = importlib.util.find_spec("numba") is not None


class GraphIndex(NamedTuple):
    """What a kernel reads of a graph; all int32. The slots into joint j are `dst_order[dst_ptr[j]:dst_ptr[j + 1]]`, those out of it likewise.

    Their other ends stand row by row: joint j's first at `(dst_ptr[j] + 3 * j) // 4 * 4`, so that four can be read with one instruction.
    Two tensors, for every further one that an operation takes costs time in every call.
    """

    slots: Tensor  # [9, P + 3 * J]
    bounds: Tensor  # [5, J + 1]

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

    @property
    def no_loop(self) -> Tensor:
        """1 for joints that no slot joins to themselves in the same frame, else 0."""
        return self.bounds[2, :-1]  # [J]

    @property
    def receivers(self) -> Tensor:
        """The joints, those that most slots lead into first."""
        return self.bounds[3, :-1]  # [J]

    @property
    def senders(self) -> Tensor:
        """The joints, those that most slots lead out of first."""
        return self.bounds[4, :-1]  # [J]


def _rows(width: int, *rows: np.ndarray) -> np.ndarray:
    """int32, with rows that begin on 64 bytes, as GPU kernels like them: `width` rounded up, with zeros behind what is given."""
    table = np.zeros((len(rows), -(-width // 16) * 16), np.int32)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = numbers
    return table


def _slot_table(
    src: np.ndarray, dst: np.ndarray, offset: np.ndarray, into: tuple[np.ndarray, np.ndarray], out_of: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The rows of `GraphIndex.slots`. into, out_of: order and pointers of the slots into every joint, and out of it."""
    J, nothing = len(into[1]) - 1, np.zeros(0)
    table = _rows(len(src) + 3 * J, src, dst, offset, into[0], out_of[0], *[nothing] * 4)
    for row, joint, other, step, (order, ptr) in ((5, dst, src, offset, into), (7, src, dst, -offset, out_of)):
        begin = (ptr + 3 * np.arange(J + 1)) // 4 * 4
        place = np.arange(len(order)) + (begin - ptr)[joint[order]]
        table[row, place], table[row + 1, place] = step[order], (step * J + other)[order]
    return table


def _sorted_slots(src: np.ndarray, dst: np.ndarray, offset: np.ndarray, num_joints: int, hops: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of `GraphIndex.slots`, `dst_ptr` and `src_ptr`."""
    if hops == 0 and _sorted_by_kernels(src):
        from fastst.cpu.sort_edges import fill_slots

        table = _rows(len(src) + 3 * num_joints, *[np.zeros(0)] * 9)
        return table, *fill_slots(table, src, dst, num_joints)
    dst_order = _sorted_by(dst, _sorted_by(src, _sorted_by(offset + hops) if hops else None))
    src_order = _sorted_by(src, _sorted_by(dst, _sorted_by(offset + hops)) if hops else dst_order)
    dst_ptr, src_ptr = (np.concatenate(([0], np.bincount(ends, minlength=num_joints).cumsum())) for ends in (dst, src))
    return _slot_table(src, dst, offset, (dst_order, dst_ptr), (src_order, src_ptr)), dst_ptr, src_ptr


def _find_repeat(src: np.ndarray, dst: np.ndarray, offset: np.ndarray, slots: np.ndarray, dst_ptr: np.ndarray) -> int:
    """The number of a slot that comes again, or -1."""
    if not offset.any() and _sorted_by_kernels(src):
        from fastst.cpu.sort_edges import find_repeat

        return find_repeat(slots, dst_ptr)
    order = slots[3, : len(src)]
    same = np.ones(max(0, len(order) - 1), bool)
    for numbers in (src, dst, offset):
        same &= np.diff(numbers[order]) == 0
    return order[same.argmax()] if same.any() else -1


def _sorted_by_kernels(edges: np.ndarray) -> bool:
    """The compiled ones, which sort a large edge list four times as fast; numba takes a while to import."""
    return _HAS_NUMBA and len(edges) >= _MANY


class Graph:
    """What all graphs share: index tensors on the device where they are wanted.

    A slot from a joint to itself in the same frame is a loop. It is the node's self-loop, with its own weight, wherever an operation would else
    add one; and it is never sampled away.

    Attributes:
        hops: how many frames an edge reaches, at least 1; 0 for an `EdgeList`, which has no frames.
        num_joints: nodes in a frame (J, or N).
        num_slots: edges that end in a frame (P, or E).
        slots_of_offset: how many slots have the frame offset -hops, …, hops.
        loops: numbers of the slots that are loops.
        nodes_with_loops: how many nodes of a frame have any.
        most_into: of all nodes of a frame, how many slots end in the one with most.
        parallel: whether an edge may come several times; only in an `EdgeList`.
    """

    hops: int
    num_joints: int
    num_slots: int
    slots_of_offset: tuple[int, ...]
    loops: np.ndarray
    nodes_with_loops: int
    most_into: int
    parallel = False
    _for_repeats = "give every slot once"

    def __init__(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray, num_joints: int, hops: int) -> None:
        self.hops, self.num_joints, self.num_slots = hops, num_joints, len(src)
        self.slots_of_offset = tuple(np.bincount(offset + hops, minlength=2 * hops + 1).tolist()) if hops else (len(src),)
        slots, dst_ptr, src_ptr = _sorted_slots(src, dst, offset, num_joints, hops)
        if not self.parallel:
            self._refuse_repeats(src, dst, offset, slots, dst_ptr)
        self.most_into = int(np.diff(dst_ptr).max())
        self.loops = np.flatnonzero((src == dst) & (offset == 0))
        no_loop = np.ones(num_joints, np.int32)
        no_loop[src[self.loops]] = 0
        self.nodes_with_loops = num_joints - int(no_loop.sum())
        # Arrays, for a tensor would be what the modes at hand make of it: on the meta device, fake, or unfit for a backward.
        # Kernels take several joints at a time, and wait for the one with most slots.
        by_slots = [_sorted_by(np.diff(ptr).max() - np.diff(ptr)) for ptr in (dst_ptr, src_ptr)]
        bounds = _rows(num_joints + 1, dst_ptr, src_ptr, no_loop, *by_slots)
        self._tables = slots, bounds
        self._index: dict[torch.device, GraphIndex] = {}
        with _disable_current_modes():
            self.index()

    def _refuse_repeats(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray, slots: np.ndarray, dst_ptr: np.ndarray) -> None:
        e = _find_repeat(src, dst, offset, slots, dst_ptr)
        if e >= 0:
            raise ValueError(f"{self._named(src[e], dst[e], offset[e])} appears more than once; {self._for_repeats}")

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

    @functools.cached_property
    @torch.compiler.disable
    def with_loops(self) -> Graph:
        """The same graph with a loop at every node: the slots as they are, and behind them the loops that were missing."""
        src, dst, offset = self._slots()
        missing = np.setdiff1d(np.arange(self.num_joints), src[self.loops])
        if not len(missing):
            return self
        slots = (np.concatenate(pair) for pair in ((src, missing), (dst, missing), (offset, np.zeros_like(missing))))
        return self._with_slots(*slots)

    @functools.cached_property
    @torch.compiler.disable
    def without_loops(self) -> Graph:
        """The same graph without its loops, the other slots in their order."""
        return self._with_slots(*(np.delete(numbers, self.loops) for numbers in self._slots())) if len(self.loops) else self

    def _slots(self) -> np.ndarray:
        return self._tables[0][:3, : self.num_slots].astype(np.int64)  # src, dst, offset

    def _with_slots(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray) -> Graph:
        raise NotImplementedError

    @staticmethod
    def _named(src: int, dst: int, offset: int) -> str:
        return f"the slot from joint {src} to joint {dst} at offset {offset}"


class SlotGraph(Graph):
    """Any slots: pairs of joints that are joined in every frame, at some distance in time. Edge values are in the order of the slots given here.

    Edge (p, t) goes from joint src[p] in frame t + offset[p] to joint dst[p] in frame t; it exists where both frames are the walk's.
    A slot may be a loop, all may lie within a frame.

    Args:
        src, dst: joints, `[P]` whole numbers each: a tensor, an array or a list.
        offset: frames, likewise.
        num_src: J, the joints of a frame.

    Raises:
        ValueError: a wrong shape or dtype, a joint outside 0 … J - 1, a slot twice.
    """

    def __init__(self, src: ArrayLike | Tensor, dst: ArrayLike | Tensor, offset: ArrayLike | Tensor, num_src: int) -> None:
        from_, to, away = (_whole_numbers(name, given) for name, given in (("src", src), ("dst", dst), ("offset", offset)))
        if not len(from_) == len(to) == len(away):
            raise ValueError(f"src, dst and offset must have one length, got {len(from_)}, {len(to)}, {len(away)}")
        if num_src < 1:
            raise ValueError(f"num_src must be at least 1, got {num_src}")
        _refuse_outsiders("slot", "joint", "num_src", from_, to, num_src)
        super().__init__(from_, to, away, num_src, max(1, int(np.abs(away).max(initial=0))))
        _ = self.with_loops  # made now: a compiler that asks for it first can't

    @classmethod
    def from_adjacency(cls, adjacency: ArrayLike | Tensor) -> tuple[SlotGraph, Tensor]:
        """The graph of a matrix's non-zero entries within a frame, and these as its weights.

        Args:
            adjacency: `[V, V]`, rows to, columns from, as in `dense`; or `[K, V, V]`, K matrices on one graph (the partitions of ST-GCN, which
                has rows from and columns to: give `A.transpose(-1, -2)`). The nodes of a window of W frames are V = W · joints.

        Returns:
            The graph of all entries that are not 0 in one of the matrices at least, sorted by dst, then src; and weights `[P]`, or `[K, P]`.

        Raises:
            ValueError: a wrong shape.
        """
        matrix = torch.as_tensor(adjacency)
        if matrix.ndim not in (2, 3) or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
            raise ValueError(f"adjacency must be [V, V] or [K, V, V], got {list(matrix.shape)}")
        joined = matrix.detach().cpu() != 0
        dst, src = (joined if matrix.ndim == 2 else joined.any(0)).nonzero(as_tuple=True)
        return cls(src, dst, torch.zeros_like(src), matrix.shape[-1]), matrix[..., dst, src]

    def __repr__(self) -> str:
        return f"SlotGraph({self.num_slots} slots, {self.num_joints} joints, {self.hops} hops)"

    def _with_slots(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray) -> SlotGraph:
        return SlotGraph(src, dst, offset, self.num_joints)

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


class SkeletonGraph(SlotGraph):
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
        Graph.__init__(self, src, dst, offset - hops, self.layout.num_joints, hops)
        _ = self.with_loops

    def __repr__(self) -> str:
        return f"SkeletonGraph({self.layout.name!r}, hops={self.hops}: {self.num_slots} slots)"


class EdgeList(Graph):
    """Any directed graph as an edge list; features are `[B, N, C]`, edge values `[B, E]` in the order of the edges given here.

    Args:
        edge_index: `[2, E]` whole numbers, row 0 from, row 1 to (as in PyTorch Geometric).
        num_nodes: N.
        parallel: an edge may come several times, and is then several edges, each with its own value. No matrix can say that: `dense` and the
            `reference` backend refuse a graph where one does.
        coalesce: an edge that comes several times is one edge, in the place of the first; see `inverse`.
        add_self_loops: every node without a loop is given one; these stand behind the other edges, by node.

    Raises:
        ValueError: a wrong shape or dtype, a node outside 0 … N - 1, an edge twice that may not; `coalesce` and `parallel` at once.
    """

    _for_repeats = "merge repeated ones with coalesce=True, or keep them with parallel=True"

    def __init__(
        self, edge_index: ArrayLike | Tensor, num_nodes: int, *, parallel: bool = False, coalesce: bool = False, add_self_loops: bool = False
    ) -> None:
        edge_index = edge_index.cpu().numpy() if isinstance(edge_index, Tensor) else np.asarray(edge_index)
        if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype.kind not in "iu":
            raise ValueError(f"edge_index must be [2, E] whole numbers, got {list(edge_index.shape)} {edge_index.dtype}")
        if not isinstance(num_nodes, (int, np.integer)) or isinstance(num_nodes, bool) or num_nodes < 1:
            raise ValueError(f"num_nodes must be a whole number of at least 1, got {num_nodes!r}")
        if coalesce and parallel:
            raise ValueError("coalesce makes one edge of parallel ones; give coalesce or parallel, not both")
        src, dst = edge_index.astype(np.int64, order="C", copy=False)
        _refuse_outsiders("edge", "node", "num_nodes", src, dst, num_nodes)
        self.parallel, self._inverse = parallel, None
        if coalesce:
            first, self._inverse = _merge_equals(src, dst, num_nodes)
            src, dst = src[first], dst[first]
        if add_self_loops:
            missing = np.setdiff1d(np.arange(num_nodes), src[src == dst])
            src, dst = np.concatenate((src, missing)), np.concatenate((dst, missing))
        super().__init__(src, dst, np.zeros(len(src), np.int64), num_nodes, hops=0)

    def _with_slots(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray) -> EdgeList:
        return EdgeList(np.stack((src, dst)), self.num_joints, parallel=self.parallel)

    @staticmethod
    def _named(src: int, dst: int, offset: int) -> str:
        return f"the edge from node {src} to node {dst}"

    def __repr__(self) -> str:
        return f"EdgeList({self.num_slots} edges, {self.num_joints} nodes)"

    @property
    def inverse(self) -> Tensor | None:
        """Of a coalesced list, for every edge that was given the number of that which it is now: `[E given]` int64. Else None.

        `values.new_zeros(B, graph.num_slots).index_add(1, graph.inverse, values)` adds up the values of the given edges.
        """
        return None if self._inverse is None else torch.from_numpy(self._inverse)

    @functools.cached_property
    def has_repeats(self) -> bool:
        """Whether an edge comes several times."""
        return self.parallel and _find_repeat(*self._slots(), self._tables[0], self._tables[1][0]) >= 0  # type: ignore[call-arg]

    def edge_index(self) -> Tensor:
        """The edges as given, or what became of them: `[2, E]` int64, row 0 from, row 1 to."""
        return torch.stack((self.src, self.dst)).long()

    def dense(self, values: Tensor | None = None) -> Tensor:
        """The adjacency matrix, rows to, columns from: `[N, N]`, or `[B, N, N]` with `values [B, E]`."""
        if self.has_repeats:
            raise ValueError("a matrix has one entry for two nodes, and this EdgeList has parallel edges; merge them first")
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


def _sorted_by(numbers: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """The order of numbers from 0 on, after that of `order` where they are equal: 16 bits at a time, which numpy sorts in linear time."""
    for shift in range(0, max(1, int(numbers.max(initial=0)).bit_length()), 16):
        digits = (numbers >> shift).astype(np.uint16)
        order = digits.argsort(kind="stable") if order is None else order[digits[order].argsort(kind="stable")]
    return order if order is not None else np.arange(len(numbers))


def _merge_equals(src: np.ndarray, dst: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the edges that come for the first time; and for every edge the place among them of the one with its ends.  # [E'], [E]"""
    if _sorted_by_kernels(src):
        from fastst.cpu.sort_edges import merge_equals

        return merge_equals(src, dst, num_nodes)
    order = _sorted_by(dst, _sorted_by(src))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(src[order]) != 0) | (np.diff(dst[order]) != 0)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))]
    is_first = first == np.arange(len(first))
    return np.flatnonzero(is_first), (is_first.cumsum() - 1)[first]


def _whole_numbers(name: str, given: ArrayLike | Tensor) -> np.ndarray:
    numbers = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be [P] whole numbers, got {list(numbers.shape)} {numbers.dtype}")
    return numbers.astype(np.int64)


def _refuse_outsiders(edge: str, node: str, count_name: str, src: np.ndarray, dst: np.ndarray, count: int) -> None:
    outside = np.flatnonzero((src < 0) | (src >= count) | (dst < 0) | (dst >= count))
    if len(outside):
        e = outside[0]
        raise ValueError(f"{edge} {e} goes from {node} {src[e]} to {node} {dst[e]}, but the {node}s are 0 to {count - 1} ({count_name})")


def _device(*tensors: Tensor | None) -> torch.device:
    return next((tensor.device for tensor in tensors if tensor is not None), torch.device("cpu"))
