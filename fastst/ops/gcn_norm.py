"""The symmetric normalisation of a graph convolution, on the edges that were kept."""

from types import ModuleType

import torch
from torch import Tensor

from fastst.graph import Graph, GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend, products
from fastst.ops.checks import check_edges, check_lengths, lower
from fastst.ops.registration import operation


def gcn_norm(kept: Tensor, graph: Graph, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The entries of D^-½ (A + I) D^-½ (Kipf & Welling 2017): kept[p, t] / √(D[to] D[from]) on the edges, 1 / D on the nodes themselves.

    D is the in-degree of a node after sampling, its self-loop included: D[t, j] = 1 + Σ of kept over the edges into (t, j). Together with
    `propagate` it equals `torch_geometric.nn.GCNConv`.

    Args:
        kept: `[B, P, T]`, or `[B, E]` for an `EdgeList`; 0 or 1, or any weight of at least 0.
        lengths: `[B]` frames of every walk.

    Returns:
        Edge weights in the shape of kept and self weights `[B, T, J]`, or `[B, N]`; 0 where no edge or frame exists. Gradients flow to every
        existing edge, through the degrees too.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.
    """
    edges = check_edges("kept", kept, graph)
    lengths = check_lengths(lengths, graph, len(edges), ("kept", kept))
    backend = current_backend(kept.device.type)
    if backend == "reference":
        weight, self_weight = reference(edges, graph, lengths)
    else:
        index = graph.index(kept.device)
        weight, self_weight = _forward(edges, lengths, *index, graph.num_joints, graph.hops, backend)
    return lower(graph, weight, -1), lower(graph, self_weight, 1)


def reference(kept: Tensor, graph: Graph, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """D^-½ A D^-½ and D^-1 with the dense A, read off at the edges."""
    from fastst.ops.propagate import dense_adjacency

    B, _, T = kept.shape
    J, index = graph.num_joints, graph.index(kept.device)
    A = dense_adjacency(kept, graph, lengths)
    degree = 1 + A.sum(2)  # [B, T*J]
    normalised = (degree.rsqrt()[:, :, None] * A * degree.rsqrt()[:, None, :]).view(B, T, J, T, J)
    frame = torch.arange(T, device=kept.device)
    source = (frame + index.offset[:, None].long()).clamp(0, T - 1)  # [P, T]
    weight = normalised[:, frame, index.dst.long()[:, None], source, index.src.long()[:, None]]
    return sparse.mask_edges(weight, index.offset, lengths), sparse.mask_frames((1 / degree).view(B, T, J), lengths)


def _inverse_roots(kept: Tensor, index: GraphIndex, num_joints: int, hops: int, lengths: Tensor | None, product: ModuleType) -> tuple[Tensor, Tensor]:
    """A column of ones and D^-½, 0 beyond the lengths.  # [B, T, J, 1] twice"""
    B, _, T = kept.shape
    ones = sparse.mask_frames(kept.new_ones(B, T, num_joints, 1), lengths)
    return ones, sparse.mask_frames((1 + product.gather_sum(ones, kept, index, hops, lengths)).rsqrt(), lengths)


def _masked(values: Tensor, index: GraphIndex, lengths: Tensor | None) -> Tensor:
    """In float32 at least: in half precision a degree would be rounded."""
    return sparse.mask_edges(values, index.offset, lengths).to(torch.promote_types(values.dtype, torch.float32))


@operation("gcn_norm")
def _forward(kept: Tensor, lengths: Tensor | None, slots: Tensor, bounds: Tensor, num_joints: int, hops: int, backend: str) -> tuple[Tensor, Tensor]:
    kernels = compiled("gcn_norm", backend)
    if kernels is not None:
        return kernels.gcn_norm(kept, lengths, GraphIndex(slots, bounds), num_joints, hops)
    graph, product = GraphIndex(slots, bounds), products(backend)
    edges = _masked(kept, graph, lengths)
    _, root = _inverse_roots(edges, graph, num_joints, hops, lengths, product)
    weight = edges * product.edge_dot(root, root, graph, hops, lengths)
    return weight.to(kept.dtype), root.square().squeeze(-1).to(kept.dtype)


@_forward.register_fake
def _(kept, lengths, slots, bounds, num_joints, hops, backend):
    B, _, T = kept.shape
    return kept.new_empty(kept.shape), kept.new_empty(B, T, num_joints)


@operation("gcn_norm_backward")
def _backward(
    dweight: Tensor, dself: Tensor, kept: Tensor, lengths: Tensor | None, slots: Tensor, bounds: Tensor, num_joints: int, hops: int, backend: str
) -> Tensor:
    kernels = compiled("gcn_norm", backend)
    if kernels is not None:
        return kernels.gcn_norm_backward(dweight, dself, kept, lengths, GraphIndex(slots, bounds), num_joints, hops)
    graph, product = GraphIndex(slots, bounds), products(backend)
    edges, dweight = _masked(kept, graph, lengths), _masked(dweight, graph, lengths)
    ones, root = _inverse_roots(edges, graph, num_joints, hops, lengths, product)
    # weight = kept r[to] r[from] and self = r² with r = D^-½, so dD = -½ r³ dr
    through = dweight * edges
    droot = product.gather_sum(root, through, graph, hops, lengths) + product.scatter_sum(root, through, graph, hops, lengths)
    droot = droot + 2 * root * dself.unsqueeze(-1)
    ddegree = -0.5 * root**3 * droot
    dkept = dweight * product.edge_dot(root, root, graph, hops, lengths) + product.edge_dot(ddegree, ones, graph, hops, lengths)
    return sparse.mask_edges(dkept, graph.offset, lengths).to(kept.dtype)


@_backward.register_fake
def _(dweight, dself, kept, lengths, slots, bounds, num_joints, hops, backend):
    return kept.new_empty(kept.shape)


def _setup_context(ctx, inputs, output):
    kept, lengths, slots, bounds, ctx.num_joints, ctx.hops, ctx.backend = inputs
    ctx.save_for_backward(kept, lengths, slots, bounds)


def _autograd(ctx, dweight, dself):
    kept, lengths, slots, bounds = ctx.saved_tensors
    dkept = _backward(dweight, dself, kept, lengths, slots, bounds, ctx.num_joints, ctx.hops, ctx.backend)
    return dkept, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
