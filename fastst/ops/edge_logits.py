"""A logit for every edge from the embeddings of its two ends."""

from typing import Any

import torch
from torch import Tensor

from fastst.graph import Graph
from fastst.graph_index import GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import current_backend, products
from fastst.ops.checks import check_device, check_float, check_lengths, check_nodes, lower
from fastst.ops.lifting import Lifted, lift
from fastst.ops.registration import operation


def edge_logits(q: Tensor, k: Tensor, graph: Graph, bias: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """logits[p, t] = q[t, dst[p]] · k[t + offset[p], src[p]] + bias[p], the unnormalised edge priors γ of the paper (section III).

    No 1/√D: scale q for it.

    Args:
        q, k: `[B, T, J, D]`, or `[B, N, D]` for an `EdgeList`; the embeddings of the nodes as receivers and as senders. In a bipartite graph these
            are different nodes.
        bias: `[P]`, or `[E]`.
        lengths: `[B]` frames of every walk.

    Returns:
        `[B, P, T]`, or `[B, E]`; 0 where no edge exists. In q's dtype, but float32 for half precision: what is sampled should not hang on rounding.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> q, k = torch.randn(2, 2, 12, 17, 8)
        >>> ops.edge_logits(q, k, graph).shape  # [B, P, T]
        torch.Size([2, 72, 12])
    """
    receivers, senders, lifted = check_embeddings(q, k, graph, bias, lengths)
    backend = current_backend(q.device.type)
    if backend == "reference":
        logits = reference(receivers, senders, graph, bias, lifted.lengths)
    else:
        logits = _forward(receivers, senders, bias, lifted.lengths, *graph.index(q.device), graph.hops, backend)
    return lower(graph, lifted.edges(logits), -1)


def check_embeddings(q: Tensor, k: Tensor, graph: Graph, bias: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, Lifted]:
    """q and k, lifted, and how."""
    receivers = check_nodes("q", q, graph, receive=True)
    senders = check_nodes("k", k, graph, like=("q", q))
    if bias is not None:
        check_float("bias", bias)
        if list(bias.shape) != [graph.num_slots]:
            raise ValueError(f"bias must be [{graph.num_slots}], one value for every slot of {graph}, got {list(bias.shape)}")
        check_device("bias", bias, "q", q)
    lifted = lift(graph, senders.shape[1], check_lengths(lengths, graph, q.shape[0], ("q", q)), q.device)
    return lifted.receivers(receivers), lifted.senders(senders), lifted


def reference(q: Tensor, k: Tensor, graph: Graph, bias: Tensor | None, lengths: Tensor | None) -> Tensor:
    """The edges' entries of the dense q kᵀ."""
    B, T, J, _ = q.shape
    index, dtype = graph.index(q.device), logits_dtype(q)
    q, k = (sparse.mask_frames(x, lengths).to(dtype).flatten(1, 2) for x in (q, k))
    scores = (q @ k.transpose(1, 2)).view(B, T, J, T, J)
    frame = torch.arange(T, device=q.device)
    source = (frame + index.offset[:, None].long()).clamp(0, T - 1)  # [P, T]
    logits = scores[:, frame, index.dst.long()[:, None], source, index.src.long()[:, None]]
    if bias is not None:
        logits = logits + bias.to(dtype)[:, None]
    return sparse.mask_edges(logits, index.offset, lengths)


def logits_dtype(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def make_logits(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    graph: GraphIndex,
    hops: int,
    backend: str,
) -> Tensor:
    logits = products(backend).edge_dot(q, k, graph, hops, lengths)
    if bias is None:
        return logits
    return sparse.mask_edges(logits + bias.to(logits.dtype)[:, None], graph.offset, lengths)


@operation("edge_logits")
def _forward(q: Tensor, k: Tensor, bias: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, hops: int, backend: str) -> Tensor:
    return make_logits(q, k, bias, lengths, GraphIndex(slots, bounds), hops, backend)


@_forward.register_fake
def _(q: Tensor, k: Tensor, bias: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, *_: object) -> Tensor:
    return q.new_empty(q.shape[0], GraphIndex(slots, bounds).num_slots, q.shape[1], dtype=logits_dtype(q))


@operation("edge_logits_backward")
def _backward(
    dlogits: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, hops: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    graph, product = GraphIndex(slots, bounds), products(backend)
    dq = product.gather_sum(k, dlogits, graph, hops, lengths)
    dk = product.scatter_sum(q, dlogits, graph, hops, lengths)
    if bias is None:
        return dq, dk, q.new_empty(0)
    return dq, dk, sparse.mask_edges(dlogits, graph.offset, lengths).sum((0, 2)).to(bias.dtype)


@_backward.register_fake
def _(dlogits: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), q.new_empty(0) if bias is None else bias.new_empty(bias.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    q, k, bias, lengths, slots, bounds, ctx.hops, ctx.backend = inputs
    ctx.save_for_backward(q, k, bias, lengths, slots, bounds)


def _autograd(ctx: Any, dlogits: Tensor) -> tuple[Tensor | None, ...]:
    q, k, bias, lengths, slots, bounds = ctx.saved_tensors
    dq, dk, dbias = _backward(dlogits, q, k, bias, lengths, slots, bounds, ctx.hops, ctx.backend)
    return dq, dk, None if bias is None else dbias, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
