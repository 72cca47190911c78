"""Layers that take the place of PyTorch Geometric's: the same constructors, the same arguments of `forward`, the same names in `state_dict`."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from fastst.graph import EdgeList, Graph
from fastst.ops import attend, gcn_norm, propagate

_KNOWN_MOST = 8  # edge lists that are remembered: a model's layers mostly share one
_SAME_AS_OURS = {"aggr": ("add", "sum"), "flow": ("source_to_target",), "node_dim": (-2, 0), "decomposed_layers": (1,)}

_known: list[tuple[weakref.ref, int, int, EdgeList]] = []


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
        graph, weight, self_weight = self._cache or self._weights(x, edge_index, edge_weight)
        if self.cached and self._cache is None:
            self._cache = graph, weight, self_weight
        h = self.lin(x)
        frames = () if isinstance(graph, EdgeList) else h.shape[-3:-2]
        whole = h if h.ndim == 3 + len(frames) else h[None]
        own = None if self_weight is None else self_weight.expand(len(whole), *frames, -1)
        y = propagate(whole, weight, graph, own).view(h.shape)
        return y if self.bias is None else y + self.bias

    def _weights(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> tuple[Graph, Tensor, Tensor | None]:
        """The graph with the weights of its edges and of its nodes' self-loops."""
        graph, values = graph_of(edge_index, x.shape[-2])
        weight = values if edge_weight is None else edge_weight
        frames = () if isinstance(graph, EdgeList) else x.shape[-3:-2]
        without = weight is None and isinstance(edge_index, Tensor)
        if weight is None:
            weight = x.new_ones(1, graph.num_slots, *frames)
        elif isinstance(graph, EdgeList):
            weight = weight.reshape(-1, graph.num_slots)
        elif weight.ndim < 3:
            weight = weight.reshape(1, -1, 1).expand(1, -1, *frames)
        if not self.normalize:
            return graph, weight, None
        return graph, *gcn_norm(weight, graph, add_self_loops=self.add_self_loops, improved=self.improved and not without)

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
            return self.original[0](x, edge_index, edge_attr, return_attention_weights)
        if not isinstance(x, Tensor):
            raise ValueError("GATv2Conv: two sets of nodes (a pair of features) are not supported")
        if not known:
            raise ValueError(f"GATv2Conv: {'return_attention_weights' if edge_attr is None else 'edge_attr'} is not supported, only None")
        graph, _ = graph_of(edge_index, x.shape[-2])
        senders = self.lin_l(x)
        receivers = senders if self.share_weights else self.lin_r(x)
        alone = senders.ndim == (2 if isinstance(graph, EdgeList) else 3)
        sides = (senders[None], receivers[None]) if alone else (senders, receivers)
        y = attend(*sides, self.att[0], graph, self.heads, self.negative_slope, add_self_loops=self.add_self_loops).view(senders.shape)
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
    if isinstance(edges, Tensor) and edges.is_inference():  # nobody counts how often it was changed
        return EdgeList(edge_index.as_subclass(Tensor), num_nodes, parallel=True)
    version = edges._version if isinstance(edges, Tensor) else 0
    _known[:] = [entry for entry in _known if entry[0]() is not None]
    for made_of, of_version, of_nodes, graph in _known:
        if made_of() is edges and (of_version, of_nodes) == (version, num_nodes):
            return graph
    graph = EdgeList(edge_index.as_subclass(Tensor), num_nodes, parallel=True)
    _known.append((weakref.ref(edges), version, num_nodes, graph))
    del _known[:-_KNOWN_MOST]
    return graph


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
