"""Layers that take the place of PyTorch Geometric's: the same constructors, the same arguments of `forward`, the same names in `state_dict`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit_length

from fastst.graph import EdgeList, Graph
from fastst.graph_index import edge_exists
from fastst.nn.edges import Sides, frames_of, graph_of, one_batch, propagated, shaped, sides, with_own_loops
from fastst.nn.stand_in import StandIn, channels_of_sides, check_options, is_theirs
from fastst.ops import attend, gcn_norm
from fastst.ops.backends import current_backend

_made: weakref.WeakKeyDictionary[Graph, Any] = weakref.WeakKeyDictionary()


class GCNConv(StandIn):
    """h' = D^-½ (A + I) D^-½ h W + b (Kipf & Welling 2017), in place of `torch_geometric.nn.GCNConv`.

    Args:
        in_channels, out_channels: sizes of the features.
        improved: with 2 I in place of I; as in PyTorch Geometric 2.8 without effect on an `edge_index` without weights.
        cached: normalise the first graph that comes, and use it for all others.
        add_self_loops: left out, as `normalize` says. A loop that the edges bring is the node's own, with its weight; of several, the last.
        normalize: False for A h W + b with the weights as they come.
        bias: add b.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.

    Examples:
        >>> import torch
        >>> from fastst.nn import GCNConv
        >>> conv = GCNConv(16, 32)
        >>> conv(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([3, 32])
    """

    weighs_edges = True
    few = 1 << 13

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
        check_options("GCNConv", options, in_channels=in_channels)
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
            if self.original and not self.is_weighed:
                return self.original_layer()(x, edge_index, edge_weight)
            raise TypeError(f"x must be a tensor, got {type(x).__name__}")
        if not self.cached and (edge_weight is None or edge_weight.ndim == 1) and is_theirs(self, x, edge_index):
            return self.original_layer()(x, edge_index, edge_weight)
        h = self.lin(x)
        if h.numel():
            graph, weight, self_weight = self._cache or self._weights(x, edge_index, edge_weight)
            if self.cached and self.normalize:
                self._cache = graph, weight, self_weight
            h = h.to(weight.dtype) if weight.dtype == torch.float64 else h  # whose sums are wanted in it
            y = propagated(h, weight, graph, self_weight).to(torch.promote_types(h.dtype, weight.dtype))
        else:
            y = h
        return y if self.bias is None else y + self.bias

    def _weights(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> tuple[Graph, Tensor, Tensor | None]:
        """The graph with the weights of its edges and of its nodes' self-loops."""
        graph, values = graph_of(edge_index, x.shape[-2])
        kept, frames = self.kept_on(graph), frames_of(graph, x)
        is_list = isinstance(edge_index, Tensor) and edge_index.layout == torch.strided
        improved = self.improved and not (is_list and edge_weight is None)
        if self.normalize and edge_weight is None and kept is None and (is_list or isinstance(edge_index, Graph)):
            return graph, *_norm_of_ones(graph, (1, graph.num_slots, *frames), x, self.add_self_loops, improved)
        if is_list or isinstance(edge_index, Graph):
            weight = x.new_ones(1, graph.num_slots, *frames) if edge_weight is None else shaped(edge_weight, graph, frames)
        else:  # a matrix brings its weights; PyTorch Geometric doesn't look at others beside it
            weight = x.new_ones(1, graph.num_slots) if values is None else values[None]
            if self.add_self_loops:
                weight = _with_its_loops(weight, graph, 2.0 if improved else 1.0, on_top=isinstance(edge_index, Tensor))
        weight = weight if weight.is_floating_point() else weight.to(x.dtype)
        if kept is not None:
            weight = weight * shaped(kept, graph, frames)
        if not self.normalize:
            return graph, weight, None
        if self.add_self_loops:
            weight = _last_loops(weight, graph)
        return graph, *gcn_norm(weight, graph, add_self_loops=self.add_self_loops, improved=improved)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


class GATv2Conv(StandIn):
    """y = Σ α lin_l(h) + b, α the softmax over a node's edges of att · LeakyReLU(lin_l(h[from]) + lin_r(h[to]) + lin_edge(edge_attr)) (Brody et al.
    2022), in place of `torch_geometric.nn.GATv2Conv`.

    Args:
        in_channels, out_channels: sizes of the features, the latter of a head. Two of them, `(src, dst)`, for nodes of two kinds.
        heads, concat: heads side by side, or their mean.
        negative_slope: of LeakyReLU.
        dropout: in training, with this probability α of an edge and head is left out, the others count 1 / (1 - dropout) times. Not draw for draw
            what PyTorch Geometric drops: the seed of a call comes from torch's generator, the draws are fastst's own.
        add_self_loops: every node is among its own neighbours, once. With edge features a loop that the edges bring is forgotten, with its features.
        edge_dim: size of the features of edges; None for none.
        fill_value: the features of loops that are added: a number, a tensor `[edge_dim]`, or the "mean", "add", "mul", "min" or "max" of those of
            the other edges into the node.
        bias, share_weights, residual: as there.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.

    Examples:
        >>> import torch
        >>> from fastst.nn import GATv2Conv
        >>> conv = GATv2Conv(16, 8, heads=4)
        >>> conv(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([3, 32])
    """

    weighs_edges = True

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        from_channels, to_channels = channels_of_sides("GATv2Conv", in_channels)
        check_options("GATv2Conv", options)
        if not 0 <= dropout <= 1:
            raise ValueError(f"GATv2Conv: dropout must be from 0 to 1, got {dropout}")
        if edge_dim is not None and (not isinstance(edge_dim, int) or edge_dim < 1):
            raise ValueError(f"GATv2Conv: edge_dim={edge_dim!r} is not supported, only None or a whole number of at least 1")
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.negative_slope, self.add_self_loops, self.share_weights = negative_slope, add_self_loops, share_weights
        self.dropout, self.edge_dim, self.fill_value = dropout, edge_dim, fill_value
        self.lin_l = nn.Linear(from_channels, heads * out_channels, bias=bias)
        self.lin_r = self.lin_l if share_weights else nn.Linear(to_channels, heads * out_channels, bias=bias)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge = None if edge_dim is None else nn.Linear(edge_dim, heads * out_channels, bias=False)
        width = out_channels * (heads if concat else 1)
        self.res = nn.Linear(to_channels, width, bias=False) if residual else None
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.lin_l, self.lin_r, self.lin_edge, self.res):
            if linear is not None:
                _glorot(linear.weight)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
        _glorot(self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Any, edge_attr: Tensor | None = None, return_attention_weights: bool | None = None
    ) -> Any:
        """`[N, F]` or `[B, N, F]` -> the same with heads · F', or F'; on a `SlotGraph` `[B, T, J, F]`. `edge_index` as in `GCNConv`.

        Args:
            x: features of the nodes; or a pair, `[n, F]` of those that send and `[m, F]` of those that receive. Then `add_self_loops` takes sender i
                and receiver i for one node, as PyTorch Geometric does.
            edge_attr: `[E, edge_dim]`, `[E]` where edge_dim is 1, or `[B, E, edge_dim]`; on a `SlotGraph` `[P, edge_dim]`, `[B, P, T, edge_dim]` or
                `[B, P, 1, edge_dim]`. Not beside a matrix.
            return_attention_weights: also return the edges with the loops that were added, `[2, E']` or a graph, and α, `[E', heads]` with what is in
                front of it in x, as a pair. Not beside a matrix.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, or one that is not supported, named.
        """
        edges_alone = isinstance(edge_index, Graph) or (isinstance(edge_index, Tensor) and edge_index.layout == torch.strided)
        if not edges_alone and (self.edge_dim or edge_attr is not None or return_attention_weights):
            if self.original and not self.is_weighed:
                return self.original_layer()(x, edge_index, edge_attr, return_attention_weights)
            raise ValueError("GATv2Conv: edge features and return_attention_weights are not supported for edges in a matrix; give them as [2, E]")
        nodes = sides("GATv2Conv", x)
        if nodes.dst is None:
            raise ValueError("GATv2Conv: x needs the features of both kinds of nodes, got None for those that receive")
        if nodes.src.ndim == 2 and is_theirs(self, nodes.src, edge_index, nodes.larger):
            return self.original_layer()(x, edge_index, edge_attr, return_attention_weights)
        senders = self.lin_l(nodes.src)
        receivers = senders if self.share_weights and nodes.src is nodes.dst else self.lin_r(nodes.dst)
        y = senders if senders.shape == receivers.shape else torch.zeros_like(receivers)  # where there are no nodes
        edges, alpha = edge_index, senders.new_zeros(*senders.shape[:-2], 0, self.heads)
        if senders.numel() and receivers.numel():
            graph, _ = nodes.graph("GATv2Conv", edge_index)
            y, graph, alpha = self._attended(senders, receivers, graph, edge_attr, bool(return_attention_weights))
            if return_attention_weights:
                edges = graph if isinstance(edge_index, Graph) else graph.edge_index().to(edge_index)  # type: ignore[attr-defined]
        y = y if self.concat else y.unflatten(-1, (self.heads, -1)).mean(-2)
        y = y if self.res is None else y + self.res(nodes.dst)
        y = y if self.bias is None else y + self.bias
        return (y, (edges, alpha)) if return_attention_weights else y

    def _attended(
        self, senders: Tensor, receivers: Tensor, graph: Graph, edge_attr: Tensor | None, with_alpha: bool
    ) -> tuple[Tensor, Graph, Tensor | None]:
        """Sums of senders, the graph with loops where they are added, and α if it is wanted."""
        left, right = (one_batch(side, graph) for side in (senders, receivers))
        frames = 1 if isinstance(graph, EdgeList) else right.shape[1]
        features, add_self_loops = _features_shaped(edge_attr, self.edge_dim, graph, frames), self.add_self_loops
        kept = self.kept_on(graph)
        kept = None if kept is None else shaped(kept, graph, () if isinstance(graph, EdgeList) else (frames,))
        if add_self_loops and (features is not None or with_alpha or graph.bipartite):
            weight, whole = None if kept is None else kept.view(*kept.shape[:2], -1, 1), graph
            (graph, features), add_self_loops = with_own_loops(whole, features, self.fill_value, frames, weight), False
            if kept is not None:
                _, weight = with_own_loops(whole, weight, 1.0, frames)
                kept = None if weight is None else weight.view(kept.shape[0], -1, *kept.shape[2:])
        if features is not None and self.lin_edge is not None:
            features = self.lin_edge(features)
            features = features.squeeze(2) if isinstance(graph, EdgeList) else features
        options: dict[str, Any] = {"add_self_loops": add_self_loops, "edge_attr": features, "return_attention_weights": with_alpha}
        options["edge_weight"] = kept
        if self.dropout and self.training:
            options |= {"dropout": self.dropout, "seed": torch.randint(1 << 62, (), device=senders.device)}
        found: Any = attend(left, right, self.att[0], graph, self.heads, self.negative_slope, **options)
        y, alpha = found if with_alpha else (found, None)
        return y.view(receivers.shape), graph, None if alpha is None else alpha.view(*senders.shape[: senders.ndim - left.ndim + 1], *alpha.shape[1:])

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}"


class SAGEConv(StandIn):
    """h' = W_l mean of h[from] over a node's edges + b + W_r h[to] (GraphSAGE, Hamilton et al. 2017), in place of `torch_geometric.nn.SAGEConv`.

    The mean of no edges is 0. A loop is an edge like any other. In a `GraphSimplifier` the mean is that of the kept edges, Σ w h[from] / Σ w.

    Args:
        in_channels, out_channels: sizes of the features. Two of the former, `(src, dst)`, for nodes of two kinds.
        aggr: only "mean" is supported.
        normalize: divide every node's h' by its length.
        root_weight: False to leave W_r h[to] out.
        project: take relu(W h + b) of the senders first, with a W and b of their own.
        bias: add b.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.

    Examples:
        >>> import torch
        >>> from fastst.nn import SAGEConv
        >>> conv = SAGEConv(16, 32)
        >>> conv(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([3, 32])
    """

    weighs_edges = True
    few = 1 << 18

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: str = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        from_channels, to_channels = channels_of_sides("SAGEConv", in_channels)
        check_options("SAGEConv", options)
        if aggr != "mean":
            raise ValueError(f"SAGEConv: aggr={aggr!r} is not supported, only 'mean'")
        self.in_channels, self.out_channels, self.normalize = in_channels, out_channels, normalize
        self.lin = nn.Linear(from_channels, from_channels) if project else None
        self.lin_l = nn.Linear(from_channels, out_channels, bias=bias)
        self.lin_r = nn.Linear(to_channels, out_channels, bias=False) if root_weight else None

    def reset_parameters(self) -> None:
        for linear in (self.lin, self.lin_l, self.lin_r):
            if linear is not None:
                linear.reset_parameters()

    def forward(self, x: Tensor | tuple[Tensor, Tensor | None], edge_index: Any, size: tuple[int, int] | None = None) -> Tensor:
        """`[N, F]` or `[B, N, F]` -> the same with F'; on a `SlotGraph` `[B, T, J, F]`. `edge_index` as in `GCNConv`: of a torch.sparse matrix the
        values weigh the sum, but not what it is divided by; those of a `SparseTensor` don't count. Both as in PyTorch Geometric.

        Args:
            x: features of the nodes; or a pair, `[n, F]` of those that send and `[m, F]` of those that receive, or None without these.
            size: None, or the numbers of both kinds of nodes.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, or one that is not supported, named.
        """
        nodes = sides("SAGEConv", x, size)
        if is_theirs(self, nodes.src, edge_index, nodes.larger):
            return self.original_layer()(x, edge_index, size)
        h = nodes.src if self.lin is None else self.lin(nodes.src).relu()
        y = self.lin_l(nodes.no_sums(h) if nodes.none else self._mean(h, nodes, edge_index))
        y = y if self.lin_r is None or nodes.dst is None else y + self.lin_r(nodes.dst)
        return unit_length(y, dim=-1) if self.normalize else y

    def _mean(self, h: Tensor, nodes: Sides, edge_index: Any) -> Tensor:
        graph, values = nodes.graph("SAGEConv", edge_index)
        frames = frames_of(graph, h)
        kept = self.kept_on(graph)
        if kept is None:
            weight = _shares(graph, h.shape[-3] if frames else 1, h)
            weight = weight.squeeze(2) if isinstance(graph, EdgeList) else weight
        else:
            weight = _shares_of_kept(shaped(kept, graph, frames), graph)
        if values is not None and isinstance(edge_index, Tensor):
            weight = weight * values
        return propagated(h, weight, graph)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, aggr=mean"


def _norm_of_ones(graph: Graph, shape: tuple[int, ...], like: Tensor, add_self_loops: bool, improved: bool) -> tuple[Tensor, Tensor]:
    """`gcn_norm` of weights of 1."""

    def make() -> tuple[Tensor, Tensor]:
        ones = torch.ones(shape, dtype=like.dtype, device=like.device)
        return gcn_norm(_last_loops(ones, graph) if add_self_loops else ones, graph, add_self_loops=add_self_loops, improved=improved)

    return _made_once(graph, ("norm", shape, like.dtype, add_self_loops, improved), like.device, make)


def _made_once(graph: Graph, what: tuple[Any, ...], device: torch.device, make: Callable[[], Any]) -> Any:
    """What `make` makes of a graph alone. The last of a graph is remembered, where tensors are real and can be used by whoever comes later."""
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or capturing:
        return make()
    key = (*what, device, current_backend(device.type))
    known, made = _made.get(graph, (None, None))  # both at once: another thread may put its own there
    if known != key:
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        _made[graph] = key, made
    return made


def _shares(graph: Graph, T: int, like: Tensor) -> Tensor:
    """1 / how many edges end where this one does, of T frames that send.  # [1, P, T']"""
    dtype, device = torch.promote_types(like.dtype, torch.float32), like.device

    def make() -> Tensor:
        index = graph.index(device)
        exists = edge_exists(graph.offset_on(device), T, None, graph.stride)[0].to(dtype)
        arriving = exists.new_zeros(graph.num_dst, exists.shape[1]).index_add(0, index.dst.long(), exists)
        return (exists / arriving[index.dst.long()].clamp(min=1))[None]

    return _made_once(graph, ("shares", T, dtype), device, make)


def _shares_of_kept(kept: Tensor, graph: Graph) -> Tensor:
    """w / Σ w of the edges that end where this one does; 0 where all are 0.  # [B, P, T] or [B, E] -> the same"""
    dst = graph.index(kept.device).dst.long()
    nodes = (*kept.shape[:1], graph.num_dst, *kept.shape[2:])
    arriving = kept.new_zeros(nodes).index_add(1, dst, kept)[:, dst]
    return kept / torch.where(arriving > 0, arriving, 1)


def _features_shaped(edge_attr: Tensor | None, edge_dim: int | None, graph: Graph, frames: int) -> Tensor | None:
    """Features of edges as they come, with dimensions for the batch and the frames.  # [B or 1, P, T or 1, D]"""
    if edge_attr is None:
        return None
    if edge_dim is None:
        raise ValueError("edge_attr needs a layer with edge_dim, the size of the features of an edge")
    P, on_list, whole = graph.num_slots, isinstance(graph, EdgeList), edge_attr
    whole = whole[:, None] if whole.ndim == 1 else whole
    if whole.ndim == 2 or on_list:
        whole = whole.unsqueeze(-2)
    whole = whole[None] if whole.ndim == 3 else whole.flatten(0, -4)
    if whole.shape[1:] != (P, whole.shape[2], edge_dim) or whole.shape[2] not in (1, frames):
        expected = "[E, edge_dim] or [B, E, edge_dim]" if on_list else "[P, edge_dim], [B, P, 1, edge_dim] or [B, P, T, edge_dim]"
        raise ValueError(
            f"edge_attr must be {expected} with {'E' if on_list else 'P'} = {P} as in {graph}, edge_dim = {edge_dim}, got {list(edge_attr.shape)}"
        )
    return whole


def _last_loops(weight: Tensor, graph: Graph) -> Tensor:
    """0 for every loop of a node but the last, as PyTorch Geometric forgets the others.  # [B or 1, P] or [B or 1, P, T]"""
    if len(graph.loops) == graph.nodes_with_loops:
        return weight
    index, number = graph.index(weight.device), torch.arange(graph.num_slots, device=weight.device)
    is_loop, nodes = index.src == index.dst, index.dst.long()  # only an edge list has several loops of a node
    last = number.new_zeros(graph.num_joints).scatter_reduce(0, nodes, torch.where(is_loop, number, 0), "amax")
    return weight.masked_fill(is_loop & (last[nodes] != number), 0)


def _with_its_loops(weight: Tensor, graph: Graph, loop: float, on_top: bool) -> Tensor:
    """What PyTorch Geometric makes of the loops that a matrix brings: a torch.sparse one gets `loop` on top, in a `SparseTensor` it replaces them."""
    index = graph.index(weight.device)
    return torch.where(index.src == index.dst, weight * on_top + loop, weight)


def _glorot(weight: Tensor) -> None:
    """PyTorch Geometric's: of the last two dimensions."""
    limit = math.sqrt(6 / (weight.shape[-2] + weight.shape[-1]))
    nn.init.uniform_(weight, -limit, limit)
