"""Graphs as lists of edges: slots that repeat every frame (`SlotGraph`; `SkeletonGraph` makes them of bones), or any COO graph (`EdgeList`).

Edge values (logits, kept edges, weights) are `[B, P, T]` on slots and `[B, E]` on an `EdgeList`. The two are one thing to every operation: an
`EdgeList` is a graph of one frame whose slots are its edges and whose joints are its nodes.

Kernels know square graphs only, of which every node sends and receives. Where those that send are others than those that receive, the graph is one
of as many nodes as the larger of the two sides has, and those that one side lacks have no edges there. With a stride of s, frame t of that graph has
the frames s t … s t + s - 1 of the senders, side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.utils._python_dispatch import _disable_current_modes

from fastst.edge_order import find_repeat, merge_equals, rows_of, sorted_by, sorted_slots
from fastst.graph_index import GraphIndex, edge_exists
from fastst.layouts import Layout, get_layout


class Graph:
    """What all graphs share: index tensors on the device where they are wanted.

    A slot from a joint to itself in the same frame is a loop. It is the node's self-loop, with its own weight, wherever an operation would else
    add one; and it is never sampled away.

    Attributes:
        bipartite: the nodes that send are others than those that receive: nothing is a loop.
        num_src, num_dst: the nodes in a frame that send, and those that receive.
        stride: of how many frames of the senders one has receivers.
        hops: how many frames an edge reaches, at least 1; 0 for an `EdgeList`, which has no frames. Of the square graph if there is a stride.
        num_joints: nodes in a frame (J, or N); of the square graph if the graph is bipartite.
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
    num_src: int
    num_dst: int
    bipartite = False
    stride = 1
    parallel = False
    _for_repeats = "give every slot once"

    def __init__(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray, num_joints: int, hops: int) -> None:
        self.hops, self.num_joints, self.num_slots = hops, num_joints, len(src)
        if not self.bipartite:
            self.num_src = self.num_dst = num_joints
        self.slots_of_offset = tuple(np.bincount(offset + hops, minlength=2 * hops + 1).tolist()) if hops else (len(src),)
        slots, dst_ptr, src_ptr = sorted_slots(src, dst, offset, num_joints, hops)
        if not self.parallel:
            self._refuse_repeats(src, dst, offset, slots, dst_ptr)
        self.most_into = int(np.diff(dst_ptr).max())
        self.loops = np.flatnonzero((src == dst) & (offset == 0) & (not self.bipartite))
        no_loop = np.ones(num_joints, np.int32)
        no_loop[src[self.loops]] = 0
        self.nodes_with_loops = num_joints - int(no_loop.sum())
        # Arrays, for a tensor would be what the modes at hand make of it: on the meta device, fake, or unfit for a backward.
        # Kernels take several joints at a time, and wait for the one with most slots.
        by_slots = [sorted_by(np.diff(ptr).max() - np.diff(ptr)) for ptr in (dst_ptr, src_ptr)]
        bounds = rows_of(num_joints + 1, dst_ptr, src_ptr, no_loop, *by_slots)
        self._tables = slots, bounds
        self._index: dict[torch.device, GraphIndex] = {}
        with _disable_current_modes():
            self.index()

    def _refuse_repeats(self, src: np.ndarray, dst: np.ndarray, offset: np.ndarray, slots: np.ndarray, dst_ptr: np.ndarray) -> None:
        e = find_repeat(src, dst, offset, slots, dst_ptr)
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
        src = self.index().src
        return src if self.stride == 1 else src % self.num_src

    @property
    def dst(self) -> Tensor:
        return self.index().dst

    @property
    def offset(self) -> Tensor:
        return self.offset_on("cpu")

    def offset_on(self, device: torch.device | str) -> Tensor:
        """`offset` on a device."""
        index = self.index(device)
        return index.offset if self.stride == 1 else index.offset * self.stride + index.src // self.num_src

    @functools.cached_property
    @torch.compiler.disable
    def with_loops(self) -> Graph:
        """The same graph with a loop at every node: the slots as they are, and behind them the loops that were missing.

        Raises:
            ValueError: a bipartite graph.
        """
        if self.bipartite:
            raise ValueError(f"{self} has no loops, for its senders are other nodes than its receivers; give it the edges that are wanted")
        src, dst, offset = self._slots()
        missing = np.setdiff1d(np.arange(self.num_joints), src[self.loops])
        if not len(missing):
            return self
        slots = [np.concatenate(pair) for pair in ((src, missing), (dst, missing), (offset, np.zeros_like(missing)))]
        return self._with_slots(slots, self.num_joints)

    @functools.cached_property
    @torch.compiler.disable
    def without_loops(self) -> Graph:
        """The same graph without its loops, the other slots in their order."""
        return self._with_slots([np.delete(numbers, self.loops) for numbers in self._slots()], self.num_joints) if len(self.loops) else self

    @functools.cached_property
    @torch.compiler.disable
    def apart(self) -> Graph:
        """The same slots in the same order, of which none is a loop or looks like one: a bipartite graph's receivers have numbers of their own."""
        if not self.bipartite:
            return self
        src, dst, offset = self._slots()
        return self._with_slots([src, dst + self.num_joints, offset], 2 * self.num_joints)

    @functools.cached_property
    def has_repeats(self) -> bool:
        """Whether an edge comes several times, which only an `EdgeList` with `parallel=True` can have."""
        return self.parallel and find_repeat(*self._slots(), self._tables[0], self._tables[1][0]) >= 0  # type: ignore[call-arg]

    def square_matrices(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Edge values `[B, P, T]` as matrices of the graph that kernels see, rows to, columns from.  # [B, T * num_joints, T * num_joints]"""
        if self.has_repeats:
            raise ValueError("a matrix has one entry for two nodes, and this EdgeList has parallel edges; merge them first")
        index, T, J = self.index(values.device), values.shape[2], self.num_joints
        frame = torch.arange(T, device=values.device)
        from_, to = (frame + index.offset[:, None]) * J + index.src[:, None], frame * J + index.dst[:, None]
        return _matrices(edge_exists(index.offset, T, lengths), values, from_, to, (T * J, T * J))

    def _slots(self) -> np.ndarray:
        return self._tables[0][:3, : self.num_slots].astype(np.int64)  # src, dst, offset

    def _with_slots(self, slots: Sequence[np.ndarray], num_joints: int) -> Graph:
        raise NotImplementedError

    def _named(self, src: int, dst: int, offset: int) -> str:
        raise NotImplementedError


class SlotGraph(Graph):
    """Any slots: pairs of joints that are joined in every frame, at some distance in time. Edge values are in the order of the slots given here.

    Edge (p, t) goes from joint src[p] in frame stride · t + offset[p] to joint dst[p] in frame t; it exists where both frames are the walk's. A walk
    of T frames that send has T / stride, rounded up, that receive: features `[B, T, num_src, C]` become `[B, T', num_dst, C]`, edge values are
    `[B, P, T']`, and `lengths` counts frames that send. Operations on edge values alone (sampling) don't know T, and take it to be stride · T';
    where it is less, give `lengths`.

    A slot may be a loop, all may lie within a frame. With num_dst, or with a stride, senders and receivers are different nodes, and nothing is a
    loop: `gcn_norm`, `self_weight` and `add_self_loops` refuse such a graph.

    A stride saves memory, not time: with half of the edges, a stride of 2 takes 0.9 to 1.4 times what the same slots in every frame take (`propagate`
    and `attend`, forward and backward, k = 2, B = 8, T = 120, C = 64, on a CPU that others used too), and `attend` 2.5 to 3.7 times where `lengths`
    are given or the stride doesn't divide T. The edge list of a fixed T (`edge_index`) takes 0.7 to 2.6 times what the stride takes.

    Args:
        src, dst: joints, `[P]` whole numbers each: a tensor, an array or a list.
        offset: frames, likewise.
        num_src: J, the joints of a frame that send.
        num_dst: those that receive, if these are others; None for the same.
        stride: at least 1.

    Raises:
        ValueError: a wrong shape or dtype, a joint outside 0 … J - 1, a slot twice, a count or stride below 1.

    Examples:
        >>> from fastst import SlotGraph
        >>> graph = SlotGraph(src=[0, 0], dst=[1, 0], offset=[0, -1], num_src=2)  # 0 to 1, 0 to itself
        >>> graph
        SlotGraph(2 slots, 2 joints, 1 hops)
        >>> graph.edge_index(T=3).tolist()
        [[0, 2, 4, 0, 2], [1, 3, 5, 2, 4]]
    """

    def __init__(
        self,
        src: ArrayLike | Tensor,
        dst: ArrayLike | Tensor,
        offset: ArrayLike | Tensor,
        num_src: int,
        num_dst: int | None = None,
        stride: int = 1,
    ) -> None:
        from_, to, away = (_whole_numbers(name, given) for name, given in (("src", src), ("dst", dst), ("offset", offset)))
        if not len(from_) == len(to) == len(away):
            raise ValueError(f"src, dst and offset must have one length, got {len(from_)}, {len(to)}, {len(away)}")
        for name, count in (("num_src", num_src), ("num_dst", num_dst), ("stride", stride)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.bipartite = num_dst is not None or stride != 1
        self.num_src, self.num_dst, self.stride = num_src, num_src if num_dst is None else num_dst, stride
        _refuse_outsiders("slot", "joint", "num_src" if num_dst is None else "num_src, num_dst", from_, to, self.num_src, self.num_dst)
        frames = away // stride
        phases = away - stride * frames  # which of the frames that stand side by side sends
        super().__init__(phases * num_src + from_, to, frames, max(stride * num_src, self.num_dst), max(1, int(np.abs(frames).max(initial=0))))
        _ = self.apart if self.bipartite else self.with_loops  # made now: a compiler that asks for it first can't

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
        if not self.bipartite:
            return f"SlotGraph({self.num_slots} slots, {self.num_joints} joints, {self.hops} hops)"
        return f"SlotGraph({self.num_slots} slots, {self.num_src} to {self.num_dst} joints, stride {self.stride})"

    def _with_slots(self, slots: Sequence[np.ndarray], num_joints: int) -> SlotGraph:
        src, dst, offset = slots
        return SlotGraph(src, dst, offset, num_joints)

    def _named(self, src: int, dst: int, offset: int) -> str:
        phase, joint = divmod(int(src), self.num_src)
        return f"the slot from joint {joint} to joint {dst} at offset {offset * self.stride + phase}"

    def edge_mask(self, T: int, lengths: Tensor | None = None) -> Tensor:
        """Which edges (p, t) exist: `[P, T]`, or `[B, P, T]` with `lengths [B]`; bool. With a stride T' in place of T."""
        mask = self._existing(T, lengths)
        return mask if lengths is not None else mask[0]

    def edge_index(self, T: int, lengths: Tensor | None = None) -> Tensor:
        """The existing edges as `[2, E]` int64, row 0 from, row 1 to, ordered by slot, then frame. Node (t, j) is `t * J + j`.

        With `lengths [B]` the graphs of a batch follow one another as in PyTorch Geometric: node (b, t, j) is `(b * T + t) * J + j`.
        Where senders and receivers are different nodes, each are numbered in their own frames.
        `values[graph.edge_mask(T, lengths)]` brings edge values into the same order.
        """
        mask = self._existing(T, lengths)
        batch, slot, frame = mask.nonzero(as_tuple=True)
        from_, to = (numbers[slot, frame] for numbers in self._ends(T, mask.device))
        return torch.stack((batch * (T * self.num_src) + from_, batch * (mask.shape[2] * self.num_dst) + to))

    def dense(self, T: int, values: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """The adjacency matrix, rows to, columns from: `[T*J, T*J]`, or `[B, T*J, T*J]` with `values [B, P, T]` or `lengths [B]`.

        For looking at and for checking small graphs: it has (T*J)² entries. (Rows are T' * num_dst, columns T * num_src.)
        """
        mask = self._existing(T, lengths, _device(values, lengths))
        dense = _matrices(mask, values, *self._ends(T, mask.device), (mask.shape[2] * self.num_dst, T * self.num_src))
        return dense if values is not None or lengths is not None else dense[0]

    def _existing(self, T: int, lengths: Tensor | None, device: torch.device | None = None) -> Tensor:
        return edge_exists(self.offset_on(device or _device(lengths)), T, lengths, self.stride)  # [B or 1, P, T']

    def _ends(self, T: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The numbers of the nodes from which and to which every edge goes.  # [P, T'] int64, twice"""
        src, dst, offset = (numbers.to(device).long()[:, None] for numbers in (self.src, self.dst, self.offset))
        frame = torch.arange(-(-T // self.stride), device=device)
        return (frame * self.stride + offset) * self.num_src + src, frame * self.num_dst + dst


class SkeletonGraph(SlotGraph):
    """The slots of a skeleton: all pairs of nodes whose joint distance plus frame distance is at most `hops`, themselves excluded.

    That is the non-zero pattern of (A + I)^hops - I, with A the bones within a frame and every joint joined to itself in the frames beside it
    (the paper's k-adjacency, Fig. 2). Slots are sorted by dst, then offset, then src.

    Args:
        layout: a `Layout`, the name of a built-in one, or a mapping with `joints` and `bones`.
        hops: k, at least 1.

    Raises:
        ValueError: an unknown layout, or hops below 1.

    Examples:
        >>> from fastst import SkeletonGraph
        >>> graph = SkeletonGraph("coco18", hops=2)
        >>> graph
        SkeletonGraph('coco18', hops=2: 228 slots)
        >>> graph.src.shape, graph.edge_index(T=10).shape
        (torch.Size([228]), torch.Size([2, 2100]))
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

    With two numbers of nodes, (n, m), it is bipartite: n senders `[B, n, C]` and m receivers `[B, m, C]`, numbered each for themselves. Then nothing
    is a loop, and `gcn_norm`, `self_weight` and `add_self_loops` refuse the graph. Memory is taken for max(n, m) nodes on both sides.

    Args:
        edge_index: `[2, E]` whole numbers, row 0 from, row 1 to (as in PyTorch Geometric).
        num_nodes: N, or (n, m).
        parallel: an edge may come several times, and is then several edges, each with its own value. No matrix can say that: `dense` and the
            `reference` backend refuse a graph where one does.
        coalesce: an edge that comes several times is one edge, in the place of the first; see `inverse`.
        add_self_loops: every node without a loop is given one; these stand behind the other edges, by node.

    Raises:
        ValueError: a wrong shape or dtype, a node outside 0 … N - 1, an edge twice that may not; `coalesce` and `parallel` at once; `add_self_loops`
            to a bipartite graph.

    Examples:
        >>> import torch
        >>> from fastst import EdgeList
        >>> graph = EdgeList([[0, 1, 1], [1, 0, 2]], num_nodes=3)
        >>> graph
        EdgeList(3 edges, 3 nodes)
        >>> graph.dense()
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 1., 0.]])
    """

    _for_repeats = "merge repeated ones with coalesce=True, or keep them with parallel=True"

    def __init__(
        self,
        edge_index: ArrayLike | Tensor,
        num_nodes: int | tuple[int, int],
        *,
        parallel: bool = False,
        coalesce: bool = False,
        add_self_loops: bool = False,
    ) -> None:
        edge_index = edge_index.cpu().numpy() if isinstance(edge_index, Tensor) else np.asarray(edge_index)
        if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype.kind not in "iu":
            raise ValueError(f"edge_index must be [2, E] whole numbers, got {list(edge_index.shape)} {edge_index.dtype}")
        self.bipartite = isinstance(num_nodes, (tuple, list))
        counts = tuple(num_nodes) if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
        if len(counts) != 2:
            raise ValueError(f"num_nodes must be N, or two numbers (n, m), got {num_nodes}")
        if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in counts):
            raise ValueError(f"num_nodes must be a whole number of at least 1{', or two' * self.bipartite}, got {num_nodes!r}")
        self.num_src, self.num_dst = counts
        if self.bipartite and add_self_loops:
            raise ValueError("add_self_loops is for nodes that send and receive; give the edges of a bipartite graph that are wanted in edge_index")
        if coalesce and parallel:
            raise ValueError("coalesce makes one edge of parallel ones; give coalesce or parallel, not both")
        src, dst = edge_index.astype(np.int64, order="C", copy=False)
        _refuse_outsiders("edge", "node", "num_nodes", src, dst, *counts)
        self.parallel, self._inverse = parallel, None
        if coalesce:
            first, self._inverse = merge_equals(src, dst, max(counts))
            src, dst = src[first], dst[first]
        if add_self_loops:
            missing = np.setdiff1d(np.arange(self.num_src), src[src == dst])
            src, dst = np.concatenate((src, missing)), np.concatenate((dst, missing))
        super().__init__(src, dst, np.zeros(len(src), np.int64), max(counts), hops=0)

    def _with_slots(self, slots: Sequence[np.ndarray], num_joints: int) -> EdgeList:
        return EdgeList(np.stack(slots[:2]), num_joints, parallel=self.parallel)

    def _named(self, src: int, dst: int, offset: int) -> str:
        return f"the edge from node {src} to node {dst}"

    def __repr__(self) -> str:
        nodes = f"{self.num_src} to {self.num_dst} nodes" if self.bipartite else f"{self.num_joints} nodes"
        return f"EdgeList({self.num_slots} edges, {nodes})"

    @property
    def inverse(self) -> Tensor | None:
        """Of a coalesced list, for every edge that was given the number of that which it is now: `[E given]` int64. Else None.

        `values.new_zeros(B, graph.num_slots).index_add(1, graph.inverse, values)` adds up the values of the given edges.
        """
        return None if self._inverse is None else torch.from_numpy(self._inverse)

    def edge_index(self) -> Tensor:
        """The edges as given, or what became of them: `[2, E]` int64, row 0 from, row 1 to."""
        return torch.stack((self.src, self.dst)).long()

    def dense(self, values: Tensor | None = None) -> Tensor:
        """The adjacency matrix, rows to, columns from: `[N, N]`, or `[B, N, N]` with `values [B, E]`; of a bipartite graph `[m, n]`."""
        entries = torch.ones(1, self.num_slots) if values is None else values
        matrices = self.square_matrices(entries.unsqueeze(-1), None)[:, : self.num_dst, : self.num_src]
        return matrices if values is not None else matrices[0]


def _matrices(mask: Tensor, values: Tensor | None, from_: Tensor, to: Tensor, shape: tuple[int, int]) -> Tensor:
    """Edge values, or 1, at the rows and columns of their ends.  # mask [B or 1, P, T], values [B, P, T], from_ and to [P, T] -> [B, *shape]"""
    if values is not None:
        mask = mask.expand(values.shape)
    batch, slot, frame = mask.nonzero(as_tuple=True)
    entries = torch.ones(len(slot), device=mask.device) if values is None else values[mask]
    return entries.new_zeros(mask.shape[0], *shape).index_put((batch, to[slot, frame], from_[slot, frame]), entries)


def _whole_numbers(name: str, given: ArrayLike | Tensor) -> np.ndarray:
    numbers = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be [P] whole numbers, got {list(numbers.shape)} {numbers.dtype}")
    return numbers.astype(np.int64)


def _refuse_outsiders(edge: str, node: str, count_name: str, src: np.ndarray, dst: np.ndarray, num_src: int, num_dst: int) -> None:
    outside = np.flatnonzero((src < 0) | (src >= num_src) | (dst < 0) | (dst >= num_dst))
    if len(outside):
        e, there = outside[0], f"the {node}s are 0 to {num_src - 1}"
        if num_src != num_dst:
            there = f"the {node}s that send are 0 to {num_src - 1}, those that receive 0 to {num_dst - 1}"
        raise ValueError(f"{edge} {e} goes from {node} {src[e]} to {node} {dst[e]}, but {there} ({count_name})")


def _device(*tensors: Tensor | None) -> torch.device:
    return next((tensor.device for tensor in tensors if tensor is not None), torch.device("cpu"))
