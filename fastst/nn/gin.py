"""Graph isomorphism layers that take the place of PyTorch Geometric's: a network on sums over the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastst.graph import EdgeList, Graph
from fastst.nn.edges import Sides, frames_of, of_all_dimensions, one_batch, propagated, shaped, sides
from fastst.nn.stand_in import StandIn, check_options, is_theirs
from fastst.ops import message


class _Isomorphism(StandIn):
    """h' = network((1 + ε) h[to] + a sum), with the parameters, buffers and names of PyTorch Geometric's."""

    weighs_edges = True
    few = 1 << 19
    eps: Tensor

    def __init__(self, network: Callable[[Tensor], Tensor], eps: float, train_eps: bool, options: dict[str, Any]) -> None:
        super().__init__()
        check_options(type(self).__name__, options)
        self.nn, self.initial_eps = network, eps
        if train_eps:
            self.eps = nn.Parameter(torch.empty(1))
        else:
            self.register_buffer("eps", torch.empty(1))

    def reset_parameters(self) -> None:
        _reset(self.nn)
        self.eps.data.fill_(self.initial_eps)

    def _network(self, total: Tensor, x: Tensor | None) -> Tensor:
        return self.nn(total if x is None else total + (1 + self.eps) * x)


class GINConv(_Isomorphism):
    """h' = nn((1 + ε) h[to] + Σ h[from] over a node's edges) (Xu et al. 2019), in place of `torch_geometric.nn.GINConv`.

    Args:
        nn: what is applied to the sums; its parameters are set anew.
        eps: ε.
        train_eps: whether ε is learned.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named.

    Examples:
        >>> import torch
        >>> from fastst.nn import GINConv
        >>> conv = GINConv(torch.nn.Linear(16, 32))
        >>> conv(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([3, 32])
    """

    def __init__(self, nn: Callable[[Tensor], Tensor], eps: float = 0.0, train_eps: bool = False, **options: Any) -> None:
        super().__init__(nn, eps, train_eps, options)
        self.reset_parameters()

    def forward(self, x: Tensor | tuple[Tensor, Tensor | None], edge_index: Any, size: tuple[int, int] | None = None) -> Tensor:
        """`[N, F]` or `[B, N, F]` -> what nn makes of it; on a `SlotGraph` of `[B, T, J, F]`. `edge_index` as in `GCNConv`; the values of a
        torch.sparse matrix weigh the sum, those of a `SparseTensor` don't count. Both as in PyTorch Geometric.

        Args:
            x: features of the nodes; or a pair, `[n, F]` of those that send and `[m, F]` of those that receive, or None without these.
            size: None, or the numbers of both kinds of nodes.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, or one that is not supported, named.
        """
        nodes = sides("GINConv", x, size)
        if is_theirs(self, nodes.src, edge_index, nodes.larger):
            return self.original_layer()(x, edge_index, size)
        if nodes.none:
            return self._network(nodes.no_sums(nodes.src), nodes.dst)
        return self._network(self._sum(nodes, edge_index), nodes.dst)

    def _sum(self, nodes: Sides, edge_index: Any) -> Tensor:
        (graph, values), x = nodes.graph("GINConv", edge_index), nodes.src
        if values is None or not isinstance(edge_index, Tensor):
            values = x.new_ones(1).expand(graph.num_slots)
        kept = self.kept_on(graph)
        if kept is not None:
            frames = frames_of(graph, x)
            values = shaped(kept, graph, frames) * (values[:, None] if frames else values)
        return propagated(x, values, graph)


class GINEConv(_Isomorphism):
    """h' = nn((1 + ε) h[to] + Σ ReLU(h[from] + e) over a node's edges) (Hu et al. 2020), in place of `torch_geometric.nn.GINEConv`.

    Args:
        nn: what is applied to the sums; its parameters are set anew.
        eps: ε.
        train_eps: whether ε is learned.
        edge_dim: size of the features of edges, which a linear layer `lin` brings to that of the nodes'; None where they have it already.
        options: of `MessagePassing`, as far as they ask for what this layer does.

    Raises:
        ValueError: an argument that is not supported, named; an nn that does not say how many channels `lin` has to make.

    Examples:
        >>> import torch
        >>> from fastst.nn import GINEConv
        >>> conv = GINEConv(torch.nn.Linear(16, 32), edge_dim=4)
        >>> conv(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.randn(4, 4)).shape
        torch.Size([3, 32])
    """

    def __init__(self, nn: nn.Module, eps: float = 0.0, train_eps: bool = False, edge_dim: int | None = None, **options: Any) -> None:
        super().__init__(nn, eps, train_eps, options)
        self.lin = None if edge_dim is None else torch.nn.Linear(edge_dim, _channels_into(nn))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.lin is not None:
            self.lin.reset_parameters()

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor | None], edge_index: Any, edge_attr: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """`[N, F]` or `[B, N, F]` -> what nn makes of it; on a `SlotGraph` of `[B, T, J, F]`.

        Args:
            x: features of the nodes; or a pair, `[n, F]` of those that send and `[m, F]` of those that receive, or None without these.
            edge_index: as in `GCNConv`. A matrix, its rows one after the other, may bring features of edges as its values, `[E, D]`; those of one
                number don't count. Both as in PyTorch Geometric.
            edge_attr: features of edges, `[E, D]` or `[B, E, D]`; on a `SlotGraph` `[P, D]`, `[B, P, 1, D]` or `[B, P, T, D]`. D is edge_dim, or F.
            size: None, or the numbers of both kinds of nodes.

        Raises:
            ValueError, TypeError: an argument of the wrong shape or kind, or one that is not supported, named.
        """
        nodes = sides("GINEConv", x, size)
        only_theirs = self.original and not self.is_weighed and _only_theirs(nodes.src, edge_index, edge_attr)
        if only_theirs or is_theirs(self, nodes.src, edge_index, nodes.larger):
            return self.original_layer()(x, edge_index, edge_attr, size)
        return self._network(nodes.no_sums(nodes.src) if nodes.none else self._sum(nodes, edge_index, edge_attr), nodes.dst)

    def _sum(self, nodes: Sides, edge_index: Any, edge_attr: Tensor | None) -> Tensor:
        (graph, values), x = nodes.graph("GINEConv", edge_index), nodes.src
        brought = values if values is not None and values.ndim > 1 else None
        edges = brought if edge_attr is None else edge_attr
        if edges is None:
            raise ValueError("GINEConv: edge_attr is missing, the features of edges; without any it is a GINConv")
        edges = edges if self.lin is None else self.lin(edges)
        if edges.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"GINEConv: edge_attr must have the channels of x, {x.shape[-1]}, got {list(edges.shape)}; set edge_dim where it has others"
            )
        dtype = torch.promote_types(x.dtype, edges.dtype)
        in_front = -3 if isinstance(graph, EdgeList) else -4  # of one set of edges
        edges = edges if edges.ndim == 2 else edges[None] if edges.ndim < -in_front else edges.flatten(0, in_front)
        senders = one_batch(x, graph).to(dtype)
        kept = self.kept_on(graph)
        weight = None if kept is None else _of_every(kept, graph, senders)
        return of_all_dimensions(message(senders, edges.to(dtype), weight, graph), x)


def _of_every(kept: Tensor, graph: Graph, nodes: Tensor) -> Tensor:
    """# [B, E] or [B, P, T]"""
    weight = shaped(kept, graph, frames_of(graph, nodes))
    return weight.expand(len(nodes), *weight.shape[1:])


def _only_theirs(x: Tensor, edge_index: Any, edge_attr: Any) -> bool:
    """Whether the original takes what this layer doesn't: features that several edges share."""
    return edge_attr is not None and not isinstance(edge_index, Graph) and (edge_attr.ndim not in (2, x.ndim) or edge_attr.shape[-2] == 1)


def _channels_into(network: nn.Module) -> int:
    first = network[0] if isinstance(network, nn.Sequential) else network
    channels = getattr(first, "in_features", getattr(first, "in_channels", None))
    if not isinstance(channels, int):
        raise ValueError(
            f"GINEConv: edge_dim needs an nn with in_features or in_channels, or a Sequential that begins with one; got {type(first).__name__}"
        )
    return channels


def _reset(network: Any) -> None:
    """As PyTorch Geometric does: of the outermost modules that can."""
    if hasattr(network, "reset_parameters"):
        network.reset_parameters()
    else:
        for child in network.children() if isinstance(network, nn.Module) else ():
            _reset(child)
