"""The attention weights of GATv2 themselves, where more is wanted than their sum: features and weights of edges, dropout, a look at them.

One number an edge and head is stored, and never a message of an edge.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst.graph import Graph
from fastst.graph_index import GraphIndex, edge_exists
from fastst.ops import sparse
from fastst.ops.backends import compiled
from fastst.ops.heads import fold_lengths
from fastst.ops.registration import operation
from fastst.ops.scores import compute_dtype, edge_scores, edge_scores_backward, log_sum_exp, softmax, sum_into_nodes


def attention_weights(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    negative_slope: float,
    lengths: Tensor | None,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    most: float,
    backend: str,
) -> Tensor:
    """α[p, t] = w eˢ / Σ w eˢ over the edges into (t, dst), s = att · LeakyReLU(x_src[from] + x_dst[to] + edge_attr), w = edge_weight, head by head.

    With ∂L/∂w = eˢ / Σ w eˢ · (dα − Σ α dα) an edge of weight 0 has a gradient too. It grows with its score, and the exponent of eˢ / Σ w eˢ is taken
    to be no larger than `most`. A node whose weights are all 0 has α = 0, and no gradient.

    Args:
        x_src, x_dst: `[B, T, J, C]`.
        att: `[heads, C // heads]`.
        edge_attr: `[B or 1, P, T or 1, C]`.
        edge_weight: `[B, P, T]`, 0 or more.
        most: see `most_exponent`.

    Returns:
        `[B, heads, P, T]` in at least float32; 0 where no edge exists.
    """
    if backend == "reference":
        return reference(x_src, x_dst, att, graph, negative_slope, lengths, edge_attr, edge_weight, most)
    index = graph.index(x_src.device)
    given = x_src, x_dst, att, edge_attr, edge_weight, lengths, *index, graph.slots_of_offset, float(negative_slope), most, backend
    return _forward(*given)[0]


def reference(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    negative_slope: float,
    lengths: Tensor | None,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    most: float,
) -> Tensor:
    """All pairs of nodes, of which those without an edge weigh 0; then the pairs that are edges."""
    (B, T, J, C), heads = x_src.shape, len(att)
    dtype, index = compute_dtype(x_src), graph.index(x_src.device)
    edges = x_src.new_ones(B, graph.num_slots, T, dtype=dtype)
    adjacent = graph.square_matrices(edges, lengths).bool().unsqueeze(-1)  # [B, to, from, 1]
    senders, receivers = (sparse.mask_frames(x, lengths).to(dtype).reshape(B, T * J, C) for x in (x_src, x_dst))
    hidden = torch.where(adjacent, senders[:, None] + receivers[:, :, None], 0)  # [B, to, from, C]
    if edge_attr is not None:
        folded = edge_attr.to(dtype).expand(B, -1, T, -1).permute(0, 3, 1, 2).flatten(0, 1)  # [B * C, P, T]
        hidden = hidden + graph.square_matrices(folded, fold_lengths(lengths, C)).unflatten(0, (B, C)).movedim(1, -1)
    scores = (leaky_relu(hidden, negative_slope).unflatten(-1, (heads, -1)) * att.to(dtype)).sum(-1)  # [B, to, from, heads]
    scores = scores.masked_fill(~adjacent, float("-inf"))
    weight = graph.square_matrices(edges if edge_weight is None else edge_weight.to(dtype), lengths).unsqueeze(-1)
    weight = weight.masked_fill(weight < 0, torch.nan)
    largest = torch.where(weight != 0, scores, float("-inf")).amax(2, keepdim=True).detach() if T * J else scores
    terms = weight * torch.exp((scores - torch.where(largest.isinf(), 0, largest)).clamp(max=most))
    total = terms.sum(2, keepdim=True)
    alpha = torch.where(total != 0, terms / torch.where(total != 0, total, 1), 0)
    frame = torch.arange(T, device=x_src.device)
    to, from_ = frame * J + index.dst.long()[:, None], (frame + index.offset[:, None]).clamp(0, max(T - 1, 0)) * J + index.src.long()[:, None]
    exists = edge_exists(index.offset, T, lengths).unsqueeze(1)  # [B or 1, 1, P, T]
    return torch.where(exists, alpha[:, to, from_].permute(0, 3, 1, 2), 0)


def most_exponent(edge_weight: Tensor) -> float:
    """Of eˢ / Σ w eˢ: the largest whose square is a number of the weights' dtype, for optimizers square gradients."""
    return math.log(torch.finfo(edge_weight.dtype).max) / 2


@operation("attention_weights")
def _forward(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    most: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Also returns log Σ w exp of the scores into every node.  # [B, heads, P, T], [B, T, J, heads]"""
    graph, kernels = GraphIndex(slots, bounds), compiled("attention_weights", backend)
    if kernels is not None:
        hops = len(slots_of_offset) // 2
        return kernels.attention_weights(x_src, x_dst, att, edge_attr, edge_weight, graph, hops, lengths, negative_slope)
    senders, receivers, att = _prepared(x_src, x_dst, att, lengths)
    scores = edge_scores(senders, receivers, att, lengths, graph, slots_of_offset, negative_slope, edge_attr)
    if edge_weight is not None:
        weight = sparse.mask_edges(edge_weight, graph.offset, lengths).to(scores.dtype).transpose(0, 1).unsqueeze(-1)  # [P, B, T, 1]
        scores = torch.where(weight == 0, float("-inf"), scores + weight.log())
    log_sum = log_sum_exp(scores, graph, x_src.shape[2])
    return softmax(scores, log_sum, graph).permute(1, 3, 0, 2), log_sum.permute(1, 2, 0, 3)


@_forward.register_fake
def _(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    *others: object,
) -> tuple[Tensor, Tensor]:
    (B, T, J, _), heads, P = x_src.shape, att.shape[0], GraphIndex(slots, bounds).num_slots
    return x_src.new_empty(B, heads, P, T, dtype=compute_dtype(x_src)), x_src.new_empty(B, T, J, heads, dtype=compute_dtype(x_src))


@operation("attention_weights_backward")
def _backward(
    dalpha: Tensor,
    alpha: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    most: float,
    wants_attr: bool,
    wants_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x_src, x_dst, att, and of edge_attr and edge_weight where they are wanted."""
    graph, kernels = GraphIndex(slots, bounds), compiled("attention_weights", backend)
    limit = most if edge_weight is not None and wants_weight else None
    if kernels is not None:
        hops = len(slots_of_offset) // 2
        given = dalpha, alpha, log_sum, x_src, x_dst, att, edge_attr, graph, hops, lengths, negative_slope
        gradients = kernels.attention_weights_backward(*given, wants_attr, limit)
    else:
        rest = lengths, graph, slots_of_offset, negative_slope
        gradients = _backward_in_torch(dalpha, alpha, log_sum, x_src, x_dst, att, edge_attr, *rest, limit)
    dsrc, ddst, datt, dattr, dweight = gradients
    dattr = x_src.new_empty(0) if edge_attr is None or not wants_attr else dattr.to(edge_attr.dtype)
    dweight = x_src.new_empty(0) if limit is None or edge_weight is None else dweight.to(edge_weight.dtype)
    return dsrc.to(x_src.dtype), ddst.to(x_dst.dtype), datt.to(att.dtype), dattr, dweight


@_backward.register_fake
def _(
    dalpha: Tensor,
    alpha: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    most: float,
    wants_attr: bool,
    wants_weight: bool,
    *others: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_attr, of_weight = (
        value.new_empty(value.shape) if value is not None and wants else x_src.new_empty(0)
        for value, wants in ((edge_attr, wants_attr), (edge_weight, wants_weight))
    )
    return x_src.new_empty(x_src.shape), x_dst.new_empty(x_dst.shape), att.new_empty(att.shape), of_attr, of_weight


def _backward_in_torch(
    dalpha: Tensor,
    alpha: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    lengths: Tensor | None,
    graph: GraphIndex,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    most: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """most: the largest exponent in the gradient of edge_weight; None where it isn't wanted."""
    exists = edge_exists(graph.offset, alpha.shape[-1], lengths).unsqueeze(1)
    alpha, dalpha = (v.permute(2, 0, 3, 1) for v in (alpha, torch.where(exists, dalpha.to(alpha.dtype), 0)))  # [P, B, T, heads]
    # dα of the softmax: α (dα - Σ α dα)
    differs = dalpha - sum_into_nodes(alpha * dalpha, graph, x_src.shape[2])[graph.dst.long()]
    rest = lengths, graph, slots_of_offset, negative_slope, edge_attr
    senders, receivers, att = _prepared(x_src, x_dst, att, lengths)
    gradients = edge_scores_backward(alpha * differs, senders, receivers, att, *rest)
    if most is None:
        return *gradients, None
    # -inf where no edge exists; and nothing for nodes whose weights or powers of the scores are all 0.
    exponent = edge_scores(senders, receivers, att, *rest) - torch.where(log_sum.isneginf(), torch.inf, log_sum).permute(2, 0, 1, 3)[graph.dst.long()]
    return *gradients, (exponent.clamp_(max=most).exp_() * differs).sum(-1).transpose(0, 1)


def _prepared(x_src: Tensor, x_dst: Tensor, att: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x_src)
    return sparse.mask_frames(x_src, lengths).to(dtype), sparse.mask_frames(x_dst, lengths).to(dtype), att.to(dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x_src, x_dst, att, edge_attr, edge_weight, lengths, slots, bounds, ctx.slots_of_offset, ctx.negative_slope, ctx.most, ctx.backend = inputs
    alpha, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(alpha, log_sum, x_src, x_dst, att, edge_attr, edge_weight, lengths, slots, bounds)


def _autograd(ctx: Any, dalpha: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    wants = ctx.needs_input_grad[3:5]
    rest = ctx.slots_of_offset, ctx.negative_slope, ctx.most, *wants, ctx.backend
    dsrc, ddst, datt, dattr, dweight = _backward(dalpha, *ctx.saved_tensors, *rest)
    return dsrc, ddst, datt, dattr if wants[0] else None, dweight if wants[1] else None, *[None] * 7


_forward.register_autograd(_autograd, setup_context=_setup_context)
