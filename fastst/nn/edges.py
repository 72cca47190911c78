"""Edges as PyTorch Geometric's users have them, as graphs; the graphs of the last ones are remembered."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from fastst.graph import EdgeList, Graph, SlotGraph
from fastst.graph_index import edge_exists
from fastst.ops import propagate
from fastst.ops.lifting import receiver_frames

_REDUCTIONS = {"mean": "mean", "add": "sum", "sum": "sum", "mul": "prod", "min": "amin", "max": "amax"}  # by PyTorch Geometric's names
_KNOWN_MOST = 32  # edge lists that are remembered: a model's layers mostly share one


@dataclass(frozen=True, eq=False)
class _Known:
    """Edges that were made a graph, and what they were like then."""

    edges: weakref.ref[Tensor]
    version: tuple[Any, ...]
    graph: EdgeList
    copy: Tensor | None  # on the CPU: memory that numpy or another process shares changes without a new version


_known: list[_Known] = []
_looped: weakref.WeakKeyDictionary[Graph, tuple[Graph | None, Graph]] = weakref.WeakKeyDictionary()


def graph_of(edges: Any, num_nodes: int | tuple[int, int]) -> tuple[Graph, Tensor | None]:
    """The graph of whatever PyTorch Geometric calls `edge_index`, and the values of its edges if it brings some. Edges that come again, in the
    same tensor and unchanged, give the same graph.

    Args:
        edges: `[2, E]`, from and to; or a matrix, rows to, columns from: a `torch_sparse.SparseTensor` or a torch.sparse tensor; or a graph.
        num_nodes: N, or (n, m) of a bipartite graph.

    Raises:
        TypeError: something else.
        ValueError: a node outside 0 … N - 1; see `EdgeList`.
        RuntimeError: edges that are no numbers yet, as `torch.export` has them; an edge list in `torch.jit.trace`.
    """
    if torch.jit.is_tracing() and not isinstance(edges, SlotGraph):
        raise RuntimeError("torch.jit.trace can't follow how edges are sorted; keep a fastst.EdgeList in the model, and use torch.export")
    return (edges, None) if isinstance(edges, Graph) else _graph_of_edges(edges, num_nodes)


@torch.compiler.disable  # how edges are sorted is nothing to compile
def _graph_of_edges(edges: Any, num_nodes: int | tuple[int, int]) -> tuple[Graph, Tensor | None]:
    if isinstance(edges, Tensor) and detect_fake_mode([edges]) is not None:
        raise RuntimeError(
            "edge_index has no numbers here, as an input of torch.export or a fake tensor; keep fastst.EdgeList(edge_index, num_nodes) in the model, "
            "and give it to the layers"
        )
    if isinstance(edges, Tensor) and edges.layout == torch.strided:
        return _remembered(edges, edges, num_nodes), None
    if isinstance(edges, Tensor):
        matrix = edges.to_sparse_coo().coalesce()
        (to, from_), values = matrix.indices(), matrix.values()
    elif hasattr(edges, "coo"):  # a SparseTensor
        to, from_, values = edges.coo()
    else:
        raise TypeError(f"edge_index must be a tensor, a SparseTensor or a graph of fastst, got {type(edges).__name__}")
    return _remembered(edges, torch.stack((from_, to)), num_nodes), values


def _remembered(edges: Any, edge_index: Tensor, num_nodes: int | tuple[int, int]) -> EdgeList:
    edge_index = edge_index.as_subclass(Tensor)
    if isinstance(edges, Tensor) and edges.is_inference():  # nobody counts how often it was changed
        return EdgeList(edge_index, num_nodes, parallel=True)
    version = (num_nodes, *((edges._version, edges.data_ptr()) if isinstance(edges, Tensor) and edges.layout == torch.strided else ()))
    for known in _known:
        if known.edges() is edges and known.version == version and (known.copy is None or torch.equal(known.copy, edge_index)):
            with contextlib.suppress(ValueError):  # another thread was faster
                _known.remove(known)
            _known.append(known)  # the one that was used last
            return known.graph
    graph = EdgeList(edge_index, num_nodes, parallel=True)
    # On a GPU a comparison would be waited for: there the version has to do.
    _known.append(_Known(weakref.ref(edges, _forget), version, graph, edge_index.clone() if edge_index.is_cpu else None))
    del _known[:-_KNOWN_MOST]
    return graph


def _forget(edges: weakref.ref[Tensor]) -> None:
    _known[:] = [known for known in _known if known.edges is not edges]


class Sides(NamedTuple):
    """Features of the nodes that send and of those that receive, `[..., N, F]` each, as PyTorch Geometric's `x`.

    Attributes:
        dst: None where none are given; the same tensor as src where these are the same nodes.
        num_nodes: N, or (n, m) where they are different nodes; m None where nothing says it.
    """

    src: Tensor
    dst: Tensor | None
    num_nodes: int | tuple[int, int | None]

    @property
    def larger(self) -> int:
        """How many nodes the larger of two kinds has; 0 where there is one kind."""
        return 0 if isinstance(self.num_nodes, int) else max(self.num_nodes[0], self.num_nodes[1] or 0)

    @property
    def none(self) -> bool:
        """Nothing is sent, or there is nobody to receive it."""
        return not self.src.numel() or (not isinstance(self.num_nodes, int) and self.num_nodes[1] == 0)

    def no_sums(self, h: Tensor) -> Tensor:
        """The receivers' sums then.  # h [..., n, F] -> [..., m, F]"""
        return h if isinstance(self.num_nodes, int) else h.new_zeros(*h.shape[:-2], self.num_nodes[1] or 0, h.shape[-1])

    def graph(self, layer: str, edges: Any) -> tuple[Graph, Tensor | None]:
        """`graph_of` edges between these nodes.

        Raises:
            ValueError: a graph of other nodes.
        """
        if isinstance(self.num_nodes, int):
            graph, values = graph_of(edges, self.num_nodes)
            if graph.bipartite:
                raise ValueError(f"{layer}: x must be a pair of features, those of the nodes that send and those of the others of {graph}")
            return graph, values
        n, m = self.num_nodes
        graph, values = graph_of(edges, (n, n if m is None else m))
        frames = self.dst.shape[-3] if self.dst is not None and isinstance(graph, SlotGraph) else None
        if (n, m) not in ((graph.num_src, graph.num_dst), (graph.num_src, None)):
            raise ValueError(f"{layer}: x is of {n} and {m} nodes, but {graph} goes from {graph.num_src} to {graph.num_dst}")
        if frames is not None and frames != receiver_frames(graph, self.src.shape[-3]):
            raise ValueError(f"{layer}: x has {self.src.shape[-3]} and {frames} frames, but of {graph.stride} frames that send one receives")
        return graph, values


def sides(layer: str, x: Any, size: Any = None) -> Sides:
    """x as PyTorch Geometric takes it: features of all nodes, a pair, or a pair of features and None. size: None, or the numbers of both.

    Raises:
        TypeError: something else.
        ValueError: a size that isn't that of x.
    """
    src, dst = x if isinstance(x, (tuple, list)) and len(x) == 2 else (x, x)
    if not isinstance(src, Tensor) or not (dst is None or isinstance(dst, Tensor)):
        raise TypeError(f"{layer}: x must be a tensor or a pair of tensors, got {type(x).__name__}")
    wanted = (None, None) if size is None else tuple(size)
    have = (src.shape[-2], wanted[1] if dst is None else dst.shape[-2])
    if len(wanted) != 2 or any(want not in (None, found) for want, found in zip(wanted, have, strict=True)):
        raise ValueError(f"{layer}: size={size} is not that of x, {have}")
    return Sides(src, dst, src.shape[-2] if src is dst else have)


def with_own_loops(
    graph: Graph, edge_attr: Tensor | None, fill_value: float | Tensor | str | None, frames: int, weight: Tensor | None = None
) -> tuple[Graph, Tensor | None]:
    """The graph with one loop for every node, behind its other edges, and their features: PyTorch Geometric's `remove_self_loops`, then
    `add_self_loops`. Loops that the edges bring are forgotten with their features. In a bipartite edge list sender i and receiver i are one node.

    Args:
        edge_attr: `[B or 1, P, T or 1, D]`.
        fill_value: what the loops' features are: a number, a tensor `[D]`, or the "mean", "add", "mul", "min" or "max" of those of the other edges
            into the node, in every frame those that exist there; None for 1.
        frames: T; 1 for an `EdgeList`.
        weight: `[B, P, T or 1, 1]`, 0 for edges that are left out: "mean" is Σ w e / Σ w then, and "add" Σ w e.

    Raises:
        ValueError: another fill_value; with weight one that has no meaning for them; slots between different nodes.
    """
    others, looped = _loops_apart(graph)
    if edge_attr is None:
        return looped, None
    if others is not graph:
        index = graph.index(edge_attr.device)
        others_of_all = (index.src != index.dst) | (index.offset != 0)
        edge_attr, weight = edge_attr[:, others_of_all], None if weight is None else weight[:, others_of_all]
    if weight is not None and isinstance(fill_value, str):
        return looped, _cat(edge_attr, _weighted_features_of_loops(edge_attr, others, fill_value, weight))
    if isinstance(fill_value, str) and others.slots_of_offset[others.hops] < others.num_slots:  # in every frame of what exists in it
        edge_attr = edge_attr.expand(-1, -1, frames, -1)
    return looped, _cat(edge_attr, _features_of_loops(edge_attr, others, fill_value))


def _loops_apart(graph: Graph) -> tuple[Graph, Graph]:
    """The graph without loops, and with one for every node behind the other edges."""
    if not graph.bipartite:
        others = graph.without_loops if len(graph.loops) else graph
        return others, others.with_loops
    if not isinstance(graph, EdgeList):
        raise ValueError(f"add_self_loops=True is not supported for {graph}, whose senders and receivers are different nodes")
    if graph not in _looped:
        edges, counts = graph.edge_index(), (graph.num_src, graph.num_dst)
        is_loop = edges[0] == edges[1]
        others = EdgeList(edges[:, ~is_loop], counts, parallel=True) if is_loop.any() else graph
        loops = torch.arange(min(counts)).expand(2, -1)
        # Of a graph that were its own value the entry would never go.
        _looped[graph] = None if others is graph else others, EdgeList(torch.cat((edges[:, ~is_loop], loops), 1), counts, parallel=True)
    others_or_none, looped = _looped[graph]
    return others_or_none or graph, looped


def _cat(edge_attr: Tensor, of_loops: Tensor) -> Tensor:
    """# [B or 1, P, T or 1, D], [B or 1, J, T or 1, D] -> [B or 1, P + J, T or 1, D]"""
    B, T = (max(edge_attr.shape[dim], of_loops.shape[dim]) for dim in (0, 2))
    return torch.cat([features.expand(B, -1, T, -1) for features in (edge_attr, of_loops)], 1)


def _weighted_features_of_loops(edge_attr: Tensor, graph: Graph, fill_value: str, weight: Tensor) -> Tensor:
    """# [B or 1, P, T or 1, D], [B, P, T or 1, 1] -> [B, J, T or 1, D]"""
    if fill_value not in ("mean", "add", "sum"):
        raise ValueError(f"fill_value={fill_value!r} has no meaning for kept edges, which have weights; only a number, a tensor, 'mean' or 'add'")
    sums = _features_of_loops(edge_attr * weight, graph, "add")
    total = _features_of_loops(weight, graph, "add")
    return sums if fill_value != "mean" else sums / torch.where(total > 0, total, 1)


def _features_of_loops(edge_attr: Tensor, graph: Graph, fill_value: float | Tensor | str | None) -> Tensor:
    """# [B or 1, P, T or 1, D] -> [B or 1, J, T or 1, D], J the nodes that have loops"""
    B, P, T, D = edge_attr.shape
    J, loops = graph.num_joints, min(graph.num_src, graph.num_dst)
    if isinstance(fill_value, Tensor):
        if fill_value.shape not in ((D,), (1, D)):
            raise ValueError(f"fill_value must be [D] with D = {D} features of an edge, got {list(fill_value.shape)}")
        return fill_value.to(edge_attr).view(D).expand(B, loops, T, D)
    if not isinstance(fill_value, str):
        return edge_attr.new_full((B, loops, T, D), 1.0 if fill_value is None else fill_value)
    if fill_value not in _REDUCTIONS:
        raise ValueError(f"fill_value must be a number, a tensor or one of {', '.join(_REDUCTIONS)}, got {fill_value!r}")
    index = graph.index(edge_attr.device)
    into = torch.where(edge_exists(index.offset, T, None)[0], index.dst.long()[:, None], J)  # what doesn't exist goes to one node more
    start = edge_attr.new_full((B, J + 1, T, D), float(fill_value == "mul"))
    into = into[None, :, :, None].expand(B, P, T, D)
    return start.scatter_reduce(1, into, edge_attr, _REDUCTIONS[fill_value], include_self=fill_value == "mul")[:, :loops]


def propagated(h: Tensor, weight: Tensor, graph: Graph, self_weight: Tensor | None = None) -> Tensor:
    """`propagate` of features with any dimensions in front, on weights that all of these share."""
    whole = one_batch(h, graph)
    if weight.ndim > 1 and weight.shape[0] not in (1, len(whole)):
        raise ValueError(f"edge_weight has a batch of {weight.shape[0]}, but x one of {len(whole)}, of all dimensions in front of the nodes")
    own = None if self_weight is None else self_weight.expand(whole.shape[0], *self_weight.shape[1:])
    return of_all_dimensions(propagate(whole, weight, graph, own), h)


def of_all_dimensions(y: Tensor, h: Tensor) -> Tensor:
    """A batch's result with the dimensions that h has in front."""
    return y.reshape(*h.shape[: h.ndim - y.ndim + 1], *y.shape[1:])


def frames_of(graph: Graph, h: Tensor) -> tuple[int, ...]:
    """The frames of edge values where features h are sent; an `EdgeList` has none.  # h [..., T, J, F]"""
    return () if isinstance(graph, EdgeList) else (receiver_frames(graph, h.shape[-3]),)


def one_batch(h: Tensor, graph: Graph) -> Tensor:
    return h.reshape(-1, *h.shape[-2 if isinstance(graph, EdgeList) else -3 :])  # [B, N, F] or [B, T, J, F]


def shaped(weight: Tensor, graph: Graph, frames: Sequence[int]) -> Tensor:
    """Weights as they come, with a dimension for the batch and one for the frames.

    # [E], [E, 1] or [B, E] -> [1 or B, E]; [P] or [B, P, T] -> [1 or B, P, T]
    """
    E, given = graph.num_slots, weight
    weight = weight.squeeze(1) if weight.ndim == 2 and weight.shape == (E, 1) else weight
    weight = weight[None] if weight.ndim == 1 else weight
    weight = weight[..., None].expand(*weight.shape, *frames) if frames and weight.ndim == 2 else weight
    if weight.shape[1:] != (E, *frames):
        expected = "[P] or [B, P, T]" if frames else "[E] or [B, E]"
        raise ValueError(f"edge_weight must be {expected} with {'P' if frames else 'E'} = {E} as in {graph}, got {list(given.shape)}")
    return weight
