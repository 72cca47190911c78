"""Message passing along the edges: the sparse matrix product at the heart of a graph convolution."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph
from fastst.graph_index import GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend, products
from fastst.ops.checks import check_device, check_lengths, check_nodes, check_per_node, check_shared_weights, check_weights, lower
from fastst.ops.heads import fold_heads, fold_lengths, unfold_heads
from fastst.ops.lifting import lift, receiver_frames, spread
from fastst.ops.registration import operation

_AT_ONCE = 1 << 20  # edges whose gradients are made before they are summed: 4 MiB in float32


def propagate(x: Tensor, weight: Tensor, graph: Graph, self_weight: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """y[t, dst] = self_weight[t, dst] x[t, dst] + Σ over edges (p, t) into dst of weight[p, t] x[t + offset[p], src[p]].

    With the weights of `gcn_norm` this is D^-½ (A + I) D^-½ x, the graph convolution of Kipf & Welling (2017) without its linear layer; for a
    fixed graph it equals `torch_geometric.nn.GCNConv`. Sums are accumulated in float32 or better.

    Args:
        x: `[B, T, J, C]`, or `[B, N, C]` for an `EdgeList`; the features of the senders.
        weight: `[B, P, T]`, or `[B, E]`. Values at edges that don't exist are ignored. Weights that all walks or all frames share may be given
            once: `[P]`, `[B, P, 1]`, `[1, P, T]`, `[E]`; neither they nor their gradient are made larger than that for the kernels, but for the
            gradient on a GPU. With heads, which are groups of C / heads channels, `[B, P, T, heads]` or `[B, E, heads]`; the sizes B and T may be 1
            there too.
        self_weight: `[B, T, J]`, or `[B, N]`; None for no self-loops. Not for a bipartite graph.
        lengths: `[B]` frames of every walk. Frames beyond are neither read nor written (their result is 0).

    Returns:
        The dtype and shape of x, but for the frames and nodes where the receivers are other nodes. Gradients flow to x, weight (every existing edge,
        of weight 0 too) and self_weight.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.

    Examples:
        >>> import torch
        >>> from fastst import EdgeList, ops
        >>> graph = EdgeList([[0, 1], [2, 2]], num_nodes=3)
        >>> x, weight = torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([[1.0, 10.0]])
        >>> ops.propagate(x, weight, graph)
        tensor([[[ 0.],
                 [ 0.],
                 [21.]]])
    """
    nodes = check_nodes("x", x, graph)
    if isinstance(weight, Tensor) and weight.ndim == x.ndim:
        return _by_head(nodes, weight, graph, self_weight, lengths)
    B, T = nodes.shape[0], receiver_frames(graph, nodes.shape[1])
    edges = check_shared_weights("weight", weight, graph, B, T)
    check_device("weight", weight, "x", x)
    if self_weight is not None:
        self_weight = check_per_node("self_weight", self_weight, graph, B, T)
        check_device("self_weight", self_weight, "x", x)
    lifted = lift(graph, nodes.shape[1], check_lengths(lengths, graph, B, ("x", x)), x.device)
    nodes, edges = lifted.senders(nodes), lifted.edges(edges)
    backend = current_backend(x.device.type)
    if backend == "reference":
        return lifted.lower(reference(nodes, spread(edges, nodes.shape[0], -1, nodes.shape[1]), graph, self_weight, lifted.lengths))
    return lifted.lower(_forward(nodes, edges, self_weight, lifted.lengths, *graph.index(x.device), graph.hops, backend))


def _by_head(x: Tensor, weight: Tensor, graph: Graph, self_weight: Tensor | None, lengths: Tensor | None) -> Tensor:
    (B, frames, _, C), heads = x.shape, weight.shape[-1]
    T = receiver_frames(graph, frames)
    if heads < 1 or C % heads:
        raise ValueError(f"the heads of weight must divide the channels C = {C}, got {list(weight.shape)}")
    check_weights("weight, without its heads,", weight[..., 0], graph, B, T)
    check_device("weight", weight, "x", x)
    edges = weight.unsqueeze(2) if isinstance(graph, EdgeList) else weight
    edges = spread(edges, B, -1, T, -1).permute(0, 3, 1, 2).flatten(0, 1)  # [B * heads, P, T]
    lengths = fold_lengths(check_lengths(lengths, graph, B, ("x", x)), heads)
    if self_weight is not None:
        own = check_per_node("self_weight", self_weight, graph, B, T)
        self_weight = lower(graph, spread(own.unsqueeze(1), -1, heads, -1, -1).flatten(0, 1), 1)
    y = propagate(lower(graph, fold_heads(x, heads), 1), lower(graph, edges, -1), graph, self_weight, lengths)
    return lower(graph, unfold_heads(y.unsqueeze(1) if isinstance(graph, EdgeList) else y, heads), 1)


def reference(x: Tensor, weight: Tensor, graph: Graph, self_weight: Tensor | None, lengths: Tensor | None) -> Tensor:
    """(A + diag(self_weight)) x with the dense A."""
    (B, T, J, C), dtype = x.shape, torch.promote_types(x.dtype, torch.float32)
    A = graph.square_matrices(weight.to(dtype), lengths)
    if self_weight is not None:
        A = A + torch.diag_embed(sparse.mask_frames(self_weight, lengths).to(dtype).flatten(1))
    y = A @ sparse.mask_frames(x, lengths).to(dtype).reshape(B, T * J, C)
    return sparse.mask_frames(y.view(x.shape), lengths).to(x.dtype)


@operation("propagate")
def _forward(
    x: Tensor, weight: Tensor, self_weight: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, hops: int, backend: str
) -> Tensor:
    return products(backend).gather_sum(x, _of_all(weight, x), GraphIndex(slots, bounds), hops, lengths, self_weight)


def _of_all(weight: Tensor, x: Tensor) -> Tensor:
    """Weights of every walk and frame, with strides of 0 where these share them.  # [1 or B, P, 1 or T] -> [B, P, T]"""
    return weight.expand(x.shape[0], -1, x.shape[1])


@_forward.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


@operation("propagate_backward")
def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    self_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    wants_x: bool,
    wants_weights: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and self_weight, those that are wanted."""
    graph, product, fused = GraphIndex(slots, bounds), products(backend), compiled("propagate", backend)
    dx, dweight, dself = x.new_empty(0), weight.new_empty(0), None
    whole = _of_all(weight, x)
    if wants_x and wants_weights and fused is not None and fused.can_run_backward(x):
        dx, dweight, dself = fused.propagate_backward(dy, x, spread(weight, *whole.shape), self_weight, graph, hops, lengths)
        dweight = dweight.sum_to_size(weight.shape).to(weight.dtype)
        return dx, dweight, x.new_empty(0) if dself is None else dself
    if wants_x:
        dx = product.scatter_sum(dy, whole, graph, hops, lengths, self_weight)
    if wants_weights and weight.shape != whole.shape:
        dweight = _shared_gradient(dy, x, weight, graph, hops, lengths, product)
        dself = None if self_weight is None else product.node_dot(dy, x, 1, lengths).squeeze(-1).to(self_weight.dtype)
    elif wants_weights and self_weight is None:
        dweight = product.edge_dot(dy, x, graph, hops, lengths, weight.dtype)
    elif wants_weights and self_weight is not None:
        dtype = torch.promote_types(weight.dtype, self_weight.dtype)
        dweight, dself = product.edge_and_node_dot(dy, x, graph, hops, lengths, dtype)
        dweight, dself = dweight.to(weight.dtype), dself.to(self_weight.dtype)
    return dx, dweight, x.new_empty(0) if dself is None else dself


def _shared_gradient(dy: Tensor, x: Tensor, weight: Tensor, graph: GraphIndex, hops: int, lengths: Tensor | None, product: ModuleType) -> Tensor:
    """The gradient of weights that walks or frames share: of a few walks at a time, which are summed before the next ones are made."""
    B, T = x.shape[:2]
    total, walks = weight.new_zeros(weight.shape, dtype=torch.promote_types(x.dtype, torch.float32)), max(1, _AT_ONCE // max(1, graph.num_slots * T))
    for first in range(0, B, walks):
        part = slice(first, first + walks)
        dots = product.edge_dot(dy[part], x[part], graph, hops, None if lengths is None else lengths[part])
        mine = total if weight.shape[0] == 1 else total[part]
        mine += dots.sum_to_size(mine.shape)
    return total.to(weight.dtype)


@_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    self_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    wants_x: bool,
    wants_weights: bool,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    dself = x.new_empty(0) if self_weight is None or not wants_weights else self_weight.new_empty(self_weight.shape)
    return x.new_empty(x.shape if wants_x else 0), weight.new_empty(weight.shape if wants_weights else 0), dself


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, self_weight, lengths, slots, bounds, ctx.hops, ctx.backend = inputs
    ctx.save_for_backward(x, weight, self_weight, lengths, slots, bounds)


def _autograd(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, self_weight, lengths, slots, bounds = ctx.saved_tensors
    of_x, of_weight, of_self, *_ = ctx.needs_input_grad
    wants = of_x, of_weight or of_self
    dx, dweight, dself = _backward(dy, x, weight, self_weight, lengths, slots, bounds, ctx.hops, *wants, ctx.backend)
    return dx if of_x else None, dweight if of_weight else None, dself if of_self else None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
