"""Layers that take the place of PyTorch Geometric's: the same constructors, the same arguments of `forward`, the same names in `state_dict`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastst.graph import EdgeList, Graph
from fastst.ops import attend, gcn_norm, propagate

_KNOWN_MOST = 32  # edge lists that are remembered: a model's layers mostly share one
_SAME_AS_OURS = {"aggr": ("add", "sum"), "flow": ("source_to_target",), "node_dim": (-2, 0), "decomposed_layers": (1,)}

_PARTS = ("lin", "lin_l", "lin_r", "att", "res", "bias")


@dataclass(frozen=True, eq=False)
class _Known:
    """Edges that were made a graph, and what they were like then."""

    edges: weakref.ref
    version: tuple[Any, ...]
    graph: EdgeList
    copy: Tensor | None  # on the CPU: memory that numpy or another process shares changes without a new version


_known: list[_Known] = []


def original_of(layer: GCNConv | GATv2Conv) -> nn.Module:
    """The layer in whose place this one was put, with the parameters as they are now."""
    (original,) = layer.original
    for name in _PARTS:
        if hasattr(layer, name):
            setattr(original, name, getattr(layer, name))
    return original.train(layer.training)


class GCNConv(nn.Module):
    """h' = D^-½ (A + I) D^-½ h W + b (Kipf & Welling 2017), in place of `torch_geometric.nn.GCNConv`.

    Args:
        in_channels, out_channels: sizes of the features.
        improved: with 2 I in place of I; as in PyTorch Geometric 2.8 without effect on an `edge_index` without weights.
        cached: normalise the first graph that comes, and use it for all others.
        add_self_loops: left out, as `normalize` says. A loop that the edges bring is the node's own, with its weight.
        normalize: False for A h W + b with the weights as they come.
        bias: add b.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.
    """

    original: tuple[nn.Module, ...] = ()  # the layer whose place this one was put in

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_options("GCNConv", options, in_channels=in_channels)
        self.in_channels, self.out_channels, self.improved, self.cached, self.normalize = in_channels, out_channels, improved, cached, normalize
        self.add_self_loops = normalize if add_self_loops is None else add_self_loops
        if self.add_self_loops and not normalize:
            raise ValueError("add_self_loops needs normalize: without it the graph is taken as it comes")
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self._cache: tuple[Graph, Tensor, Tensor | None] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _glorot(self.lin.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._cache = None

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """`[N, F]` or `[B, N, F]` -> the same with F'; on a `SlotGraph` `[B, T, J, F]`.

        Args:
            x: features of the nodes.
            edge_index: `[2, E]`, from and to; or A as a `torch_sparse.SparseTensor` or a torch.sparse matrix, rows to, columns from; or a fastst
                graph.
            edge_weight: `[E]`, or `[B, E]`; on a `SlotGraph` `[P]` or `[B, P, T]`. Left out, those of A, or 1.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, named.
        """
        if not isinstance(x, Tensor):
            if self.original:
                return original_of(self)(x, edge_index, edge_weight)
            raise TypeError(f"x must be a tensor, got {type(x).__name__}")
        h = self.lin(x)
        if h.numel():
            graph, weight, self_weight = self._cache or self._weights(x, edge_index, edge_weight)
            if self.cached and self.normalize and self._cache is None:
                self._cache = graph, weight, self_weight
            h = h.to(weight.dtype) if weight.dtype == torch.float64 else h  # whose sums are wanted in it
            nodes = 2 if isinstance(graph, EdgeList) else 3  # dimensions of one walk's features
            whole = h.reshape(-1, *h.shape[-nodes:])
            own = None if self_weight is None else self_weight.expand(len(whole), *self_weight.shape[1:])
            y = propagate(whole, weight, graph, own).view(h.shape).to(torch.promote_types(h.dtype, weight.dtype))
        else:
            y = h
        return y if self.bias is None else y + self.bias

    def _weights(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> tuple[Graph, Tensor, Tensor | None]:
        """The graph with the weights of its edges and of its nodes' self-loops."""
        graph, values = graph_of(edge_index, x.shape[-2])
        frames = () if isinstance(graph, EdgeList) else x.shape[-3:-2]
        is_list = isinstance(edge_index, Tensor) and edge_index.layout == torch.strided
        improved = self.improved and not (is_list and edge_weight is None)
        if is_list or isinstance(edge_index, Graph):
            weight = x.new_ones(1, graph.num_slots, *frames) if edge_weight is None else _shaped(edge_weight, graph, frames)
        else:  # a matrix brings its weights; PyTorch Geometric doesn't look at others beside it
            weight = x.new_ones(1, graph.num_slots) if values is None else values[None]
            if self.add_self_loops:
                weight = _with_its_loops(weight, graph, 2.0 if improved else 1.0, on_top=isinstance(edge_index, Tensor))
        weight = weight if weight.is_floating_point() else weight.to(x.dtype)
        if not self.normalize:
            return graph, weight, None
        return graph, *gcn_norm(weight, graph, add_self_loops=self.add_self_loops, improved=improved)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


class GATv2Conv(nn.Module):
    """y = Σ α lin_l(h) + b, α the softmax over a node's edges of att · LeakyReLU(lin_l(h[from]) + lin_r(h[to])) (Brody et al. 2022), in place of
    `torch_geometric.nn.GATv2Conv`.

    Args:
        in_channels, out_channels: sizes of the features, the latter of a head.
        heads, concat: heads side by side, or their mean.
        negative_slope: of LeakyReLU.
        dropout: of the attention weights: only 0 is supported.
        add_self_loops: every node is among its own neighbours, once.
        edge_dim: edge features are not supported.
        fill_value: of edge features, so without effect.
        bias, share_weights, residual: as there.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.
    """

    original: tuple[nn.Module, ...] = ()  # the layer whose place this one was put in

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: Any = "mean",
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_options("GATv2Conv", options, in_channels=in_channels)
        if dropout:
            raise ValueError(f"GATv2Conv: dropout={dropout} is not supported, only 0")
        if edge_dim is not None:
            raise ValueError(f"GATv2Conv: edge_dim={edge_dim} is not supported, only None")
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.negative_slope, self.add_self_loops, self.share_weights = negative_slope, add_self_loops, share_weights
        self.lin_l = nn.Linear(in_channels, heads * out_channels, bias=bias)
        self.lin_r = self.lin_l if share_weights else nn.Linear(in_channels, heads * out_channels, bias=bias)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        width = out_channels * (heads if concat else 1)
        self.res = nn.Linear(in_channels, width, bias=False) if residual else None
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.lin_l, self.lin_r, *([] if self.res is None else [self.res])):
            _glorot(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        _glorot(self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, edge_index: Any, edge_attr: None = None, return_attention_weights: None = None) -> Tensor:
        """`[N, F]` or `[B, N, F]` -> the same with heads · F', or F'; on a `SlotGraph` `[B, T, J, F]`. `edge_index` as in `GCNConv`.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, or one that is not supported, named.
        """
        known = isinstance(x, Tensor) and edge_attr is None and return_attention_weights is None
        if not known and self.original:
            return original_of(self)(x, edge_index, edge_attr, return_attention_weights)
        if not isinstance(x, Tensor):
            raise ValueError("GATv2Conv: two sets of nodes (a pair of features) are not supported")
        if not known:
            raise ValueError(f"GATv2Conv: {'return_attention_weights' if edge_attr is None else 'edge_attr'} is not supported, only None")
        senders = self.lin_l(x)
        receivers = senders if self.share_weights else self.lin_r(x)
        y = senders
        if senders.numel():
            graph, _ = graph_of(edge_index, x.shape[-2])
            nodes = 2 if isinstance(graph, EdgeList) else 3
            left, right = (side.reshape(-1, *side.shape[-nodes:]) for side in (senders, receivers))
            y = attend(left, right, self.att[0], graph, self.heads, self.negative_slope, add_self_loops=self.add_self_loops).view(senders.shape)
        y = y if self.concat else y.unflatten(-1, (self.heads, -1)).mean(-2)
        y = y if self.res is None else y + self.res(x)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}"


def graph_of(edges: Any, num_nodes: int) -> tuple[Graph, Tensor | None]:
    """The graph of whatever PyTorch Geometric calls `edge_index`, and the values of its edges if it brings some. Edges that come again, in the
    same tensor and unchanged, give the same graph.

    Args:
        edges: `[2, E]`, from and to; or a matrix, rows to, columns from: a `torch_sparse.SparseTensor` or a torch.sparse tensor; or a graph.
        num_nodes: N.

    Raises:
        TypeError: something else.
        ValueError: a node outside 0 … N - 1; see `EdgeList`.
    """
    return (edges, None) if isinstance(edges, Graph) else _graph_of_edges(edges, num_nodes)


@torch.compiler.disable  # how edges are sorted is nothing to compile
def _graph_of_edges(edges: Any, num_nodes: int) -> tuple[Graph, Tensor | None]:
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


def _remembered(edges: Any, edge_index: Tensor, num_nodes: int) -> EdgeList:
    edge_index = edge_index.as_subclass(Tensor)
    if isinstance(edges, Tensor) and edges.is_inference():  # nobody counts how often it was changed
        return EdgeList(edge_index, num_nodes, parallel=True)
    version = (num_nodes, *((edges._version, edges.data_ptr()) if isinstance(edges, Tensor) and edges.layout == torch.strided else ()))
    for known in _known:
        if known.edges() is edges and known.version == version and (known.copy is None or torch.equal(known.copy, edge_index)):
            _known.remove(known)
            _known.append(known)  # the one that was used last
            return known.graph
    graph = EdgeList(edge_index, num_nodes, parallel=True)
    # On a GPU a comparison would be waited for: there the version has to do.
    _known.append(_Known(weakref.ref(edges, _forget), version, graph, edge_index.clone() if edge_index.is_cpu else None))
    del _known[:-_KNOWN_MOST]
    return graph


def _forget(edges: weakref.ref) -> None:
    _known[:] = [known for known in _known if known.edges is not edges]


def _shaped(weight: Tensor, graph: Graph, frames: Sequence[int]) -> Tensor:
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


def _with_its_loops(weight: Tensor, graph: Graph, loop: float, on_top: bool) -> Tensor:
    """What PyTorch Geometric makes of the loops that a matrix brings: a torch.sparse one gets `loop` on top, in a `SparseTensor` it replaces them."""
    index = graph.index(weight.device)
    return torch.where(index.src == index.dst, weight * on_top + loop, weight)


def _check_options(layer: str, options: dict[str, Any], in_channels: Any) -> None:
    if not isinstance(in_channels, int) or in_channels < 1:
        raise ValueError(f"{layer}: in_channels={in_channels!r} is not supported, only a whole number of at least 1")
    for name, value in options.items():
        if name not in _SAME_AS_OURS or value not in _SAME_AS_OURS[name]:
            only = f", only {_SAME_AS_OURS[name][0]!r}" if name in _SAME_AS_OURS else ""
            raise ValueError(f"{layer}: {name}={value!r} is not supported{only}")


def _glorot(weight: Tensor) -> None:
    """PyTorch Geometric's: of the last two dimensions."""
    limit = math.sqrt(6 / (weight.shape[-2] + weight.shape[-1]))
    nn.init.uniform_(weight, -limit, limit)
