"""The symmetric normalisation of a graph convolution, on the edges that were kept."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastst.graph import Graph
from fastst.graph_index import GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend, products
from fastst.ops.checks import check_edges, check_graph, check_lengths, lower, refuse_bipartite
from fastst.ops.registration import operation


def gcn_norm(
    kept: Tensor, graph: Graph, lengths: Tensor | None = None, *, add_self_loops: bool = True, improved: bool = False
) -> tuple[Tensor, Tensor]:
    """The entries of D^-½ (A + I) D^-½ (Kipf & Welling 2017): kept[p, t] / √(D[to] D[from]) on the edges, 1 / D on the nodes themselves.

    D is the in-degree of a node after sampling, its self-loop included: D[t, j] = 1 + Σ of kept over the edges into (t, j). Together with
    `propagate` it equals `torch_geometric.nn.GCNConv`. A loop that the graph brings is the node's self-loop, with the weight that kept gives it;
    nothing is added there, and its self weight is 0.

    Args:
        kept: `[B, P, T]`, or `[B, E]` for an `EdgeList`; 0 or 1, or any weight of at least 0.
        lengths: `[B]` frames of every walk.
        add_self_loops: False for D^-½ A D^-½; a node without edges then has no weight at all.
        improved: with 2 I in place of I.

    Returns:
        Edge weights in the shape of kept and self weights `[B, T, J]`, or `[B, N]`; 0 where no edge or frame exists. Gradients flow to every
        existing edge, through the degrees too.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named; a bipartite graph.

    Examples:
        >>> import torch
        >>> from fastst import EdgeList, ops
        >>> graph = EdgeList([[0, 1], [1, 0]], num_nodes=2)
        >>> ops.gcn_norm(torch.ones(1, 2), graph)  # both nodes have an edge and their loop
        (tensor([[0.5000, 0.5000]]), tensor([[0.5000, 0.5000]]))
    """
    check_graph(graph)
    refuse_bipartite("gcn_norm", graph, "a node has no self-loop; divide the weights by the receivers' sums, for a mean")
    edges = check_edges("kept", kept, graph)
    lengths = check_lengths(lengths, graph, edges.shape[0], ("kept", kept))
    backend = current_backend(kept.device.type)
    loop = (2.0 if improved else 1.0) if add_self_loops else 0.0
    if backend == "reference":
        weight, self_weight = reference(edges, graph, lengths, loop)
    else:
        index = graph.index(kept.device)
        weight, self_weight, _ = _forward(edges, lengths, *index, loop, graph.num_joints, graph.hops, backend)
    return lower(graph, weight, -1), lower(graph, self_weight, 1)


def reference(kept: Tensor, graph: Graph, lengths: Tensor | None, loop: float) -> tuple[Tensor, Tensor]:
    """D^-½ A D^-½ and loop · D^-1 with the dense A, read off at the edges."""
    B, _, T = kept.shape
    J, index = graph.num_joints, graph.index(kept.device)
    A = graph.square_matrices(kept, lengths)
    added = loop * index.no_loop.to(kept.dtype).repeat(T)  # [T*J]
    degree = added + A.sum(2)  # [B, T*J]
    root = torch.where(degree == 0, 0, degree.masked_fill(degree == 0, 1).rsqrt())
    normalised = (root[:, :, None] * A * root[:, None, :]).view(B, T, J, T, J)
    frame = torch.arange(T, device=kept.device)
    source = (frame + index.offset[:, None].long()).clamp(0, T - 1)  # [P, T]
    weight = normalised[:, frame, index.dst.long()[:, None], source, index.src.long()[:, None]]
    return sparse.mask_edges(weight, index.offset, lengths), sparse.mask_frames((added * root.square()).view(B, T, J), lengths)


def _inverse_roots(kept: Tensor, index: GraphIndex, loop: float, num_joints: int, hops: int, lengths: Tensor | None, product: ModuleType) -> Tensor:
    """D^-½, 0 for a node without edges and beyond the lengths.  # [B, T, J, 1]"""
    B, _, T = kept.shape
    ones = kept.new_ones(B, T, num_joints, 1)
    degree = (loop * index.no_loop)[:, None] + product.gather_sum(ones, kept, index, hops, lengths)
    return sparse.mask_frames(torch.where(degree == 0, 0, degree.rsqrt()), lengths)


def _masked(values: Tensor, index: GraphIndex, lengths: Tensor | None) -> Tensor:
    """In float32 at least: in half precision a degree would be rounded."""
    return sparse.mask_edges(values, index.offset, lengths).to(torch.promote_types(values.dtype, torch.float32))


@operation("gcn_norm")
def _forward(
    kept: Tensor, lengths: Tensor | None, slots: Tensor, bounds: Tensor, loop: float, num_joints: int, hops: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Edge weights, self weights, and D^-½ for the backward, in float32 at least.  # [B, P, T], [B, T, J], [B, J, T]"""
    kernels = compiled("gcn_norm", backend)
    if kernels is not None:
        return kernels.gcn_norm(kept, lengths, GraphIndex(slots, bounds), loop, num_joints, hops)
    graph, product = GraphIndex(slots, bounds), products(backend)
    edges = _masked(kept, graph, lengths)
    root = _inverse_roots(edges, graph, loop, num_joints, hops, lengths, product)
    weight, (B, _, T) = edges * product.edge_dot(root, root, graph, hops, lengths), kept.shape
    self_weight = (loop * graph.no_loop * root.square().squeeze(-1)).to(kept.dtype)
    return weight.to(kept.dtype), self_weight, root.transpose(1, 2).reshape(B, num_joints, T)


@_forward.register_fake
def _(
    kept: Tensor, lengths: Tensor | None, slots: Tensor, bounds: Tensor, loop: float, num_joints: int, *others: object
) -> tuple[Tensor, Tensor, Tensor]:
    B, _, T = kept.shape
    root = kept.new_empty(B, num_joints, T, dtype=torch.promote_types(kept.dtype, torch.float32))
    return kept.new_empty(kept.shape), kept.new_empty(B, T, num_joints), root


@operation("gcn_norm_backward")
def _backward(
    dweight: Tensor,
    dself: Tensor,
    kept: Tensor,
    root: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    loop: float,
    hops: int,
    backend: str,
) -> Tensor:
    kernels = compiled("gcn_norm", backend)
    if kernels is not None:
        return kernels.gcn_norm_backward(dweight, dself, kept, root, lengths, GraphIndex(slots, bounds), loop, hops)
    graph, product = GraphIndex(slots, bounds), products(backend)
    edges, dweight = _masked(kept, graph, lengths), _masked(dweight, graph, lengths)
    root = root.transpose(1, 2).unsqueeze(-1)  # [B, T, J, 1]
    # weight = kept r[to] r[from] and self = loop r² with r = D^-½, so dD = -½ r³ dr
    through = dweight * edges
    droot = product.gather_sum(root, through, graph, hops, lengths) + product.scatter_sum(root, through, graph, hops, lengths)
    droot = droot + 2 * root * (loop * graph.no_loop * dself).unsqueeze(-1)
    ddegree = -0.5 * root**3 * droot
    dkept = dweight * product.edge_dot(root, root, graph, hops, lengths)
    dkept += product.edge_dot(ddegree, torch.ones_like(ddegree), graph, hops, lengths)
    return sparse.mask_edges(dkept, graph.offset, lengths).to(kept.dtype)


@_backward.register_fake
def _(dweight: Tensor, dself: Tensor, kept: Tensor, *others: object) -> Tensor:
    return kept.new_empty(kept.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    kept, lengths, slots, bounds, ctx.loop, _, ctx.hops, ctx.backend = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(kept, output[2], lengths, slots, bounds)


def _autograd(ctx: Any, dweight: Tensor, dself: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(dweight, dself, *ctx.saved_tensors, ctx.loop, ctx.hops, ctx.backend), *[None] * 7


_forward.register_autograd(_autograd, setup_context=_setup_context)
