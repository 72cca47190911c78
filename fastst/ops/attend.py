"""GATv2 attention along the edges."""

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

from fastst.graph import Graph
from fastst.graph_index import GraphIndex
from fastst.ops import sparse
from fastst.ops.attention_weights import attention_weights, most_exponent
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import (
    check_device,
    check_edge_features,
    check_float,
    check_lengths,
    check_nodes,
    check_seed,
    check_shared_weights,
    lower,
    refuse_bipartite,
)
from fastst.ops.heads import fold_heads, fold_lengths, unfold_heads
from fastst.ops.lifting import lift, spread
from fastst.ops.propagate import propagate
from fastst.ops.registration import operation
from fastst.ops.scores import compute_dtype, edge_scores, edge_scores_backward, log_sum_exp, softmax
from fastst.sampling import Sampling

# Dropout of attention draws from numbers of its own where the edges are sampled with the same seed.
_SEED_OF_DROPOUT = 0x5851F42D4C957F2D


@overload
def attend(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    heads: int,
    negative_slope: float = 0.2,
    lengths: Tensor | None = None,
    *,
    add_self_loops: bool = False,
    edge_attr: Tensor | None = None,
    edge_weight: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    return_attention_weights: Literal[False] = False,
) -> Tensor: ...


@overload
def attend(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    heads: int,
    negative_slope: float = 0.2,
    lengths: Tensor | None = None,
    *,
    add_self_loops: bool = False,
    edge_attr: Tensor | None = None,
    edge_weight: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    return_attention_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attend(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    heads: int,
    negative_slope: float = 0.2,
    lengths: Tensor | None = None,
    *,
    add_self_loops: bool = False,
    edge_attr: Tensor | None = None,
    edge_weight: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    return_attention_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """y[t, dst] = Σ α[p, t] x_src[t + offset, src] with α = w eˢ / Σ w eˢ over the edges into (t, dst), w = edge_weight and
    s = att · LeakyReLU(x_src[from] + x_dst[to] + edge_attr).

    GATv2 of Brody et al. (2022) without its linear layers, head by head. On the projected features it equals `torch_geometric.nn.GATv2Conv`
    with the same `add_self_loops`, which is True there by default. A node without edges gets 0; so does one all of whose scores are -∞, and the
    gradients through these are 0 (but that of att, which is 0 · ∞).

    With edge_weight = kept edges, 0 or 1, attention runs on the kept graph alone, and a removed edge has the gradient eˢ / Σ w eˢ · (dα − Σ α dα), by
    which it can return. It grows with the score: eˢ / Σ w eˢ is taken to be no larger than what has a square in the weights' dtype. A node whose
    weights are all 0 gets 0, like one without edges, and its weights get the gradient 0.

    Args:
        x_src: `[B, T, J, C]`, or `[B, N, C]` for an `EdgeList`; the projected features of senders. Channels are `heads` groups of C / heads.
        x_dst: the same shape, but for the nodes and frames where the receivers are other nodes; the projected features of receivers.
        att: `[heads, C // heads]`.
        lengths: `[B]` frames of every walk.
        add_self_loops: every node is among its own neighbours, whether the graph brings a loop for it or not; one that is added weighs 1. Not with
            edge_attr, which has no features for it, nor for a bipartite graph.
        edge_attr: the projected features of edges, `[B, P, T, C]`, or shared by all walks, all frames or both, `[B, P, 1, C]`, `[P, C]`;
            `[B, E, C]` or `[E, C]` for an `EdgeList`. Values at edges that don't exist are ignored.
        edge_weight: 0 or more, `[B, P, T]`, or shared as in `propagate`. One that is negative, ∞ or NaN gives NaN, in the gradients of its node's
            weights too.
        dropout: with this probability α of an edge and head is left out of the sum; the others count 1 / (1 − dropout) times.
        seed: of dropout, which needs one; as in `sample_edges`. Dropping is a pure function of it, the same on every backend.
        return_attention_weights: also return α.

    Returns:
        The shape of x_dst and the dtype of x_src. With `return_attention_weights` a pair: and α as it is in the sum, after dropout,
        `[B, P, T, heads]` or `[B, E, heads]` in at least float32, differentiable; with `add_self_loops` of the slots of `graph.with_loops` (of a
        graph with parallel edges, `graph.without_loops.with_loops`).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> x, att = torch.randn(2, 12, 17, 8), torch.randn(4, 2)
        >>> ops.attend(x, x, att, graph, heads=4).shape
        torch.Size([2, 12, 17, 8])
    """
    senders = check_nodes("x_src", x_src, graph)
    receivers = check_nodes("x_dst", x_dst, graph, like=("x_src", x_src), receive=True)
    (B, T, _, C), like = receivers.shape, ("x_src", x_src)
    _check_attention(att, heads, x_src)
    lifted = lift(graph, senders.shape[1], check_lengths(lengths, graph, B, like), x_src.device)
    senders, receivers = lifted.senders(senders), lifted.receivers(receivers)
    most = math.inf
    if edge_weight is not None:
        most = most_exponent(edge_weight)
        edge_weight = spread(check_shared_weights("edge_weight", edge_weight, graph, B, T), B, -1, T)
        check_device("edge_weight", edge_weight, *like)
    if lifted.exists is not None:
        edge_weight = lifted.edges(x_src.new_ones(()) if edge_weight is None else edge_weight).expand(B, -1, T)
    if edge_attr is not None:
        edge_attr = lifted.edge_features(check_edge_features("edge_attr", edge_attr, graph, B, T, C))
        check_device("edge_attr", edge_attr, *like)
    noise = _check_dropout(dropout, seed, x_src)
    if add_self_loops:
        refuse_bipartite("add_self_loops", graph, "none is among its own neighbours; give the edges that are wanted")
        graph, edge_weight = _with_loops(graph, edge_weight, edge_attr)
    backend = current_backend(x_src.device.type)
    if edge_attr is None and edge_weight is None and noise is None and not return_attention_weights:
        if backend == "reference":
            return lifted.lower(reference(senders, receivers, att, graph, negative_slope, lifted.lengths))
        index = graph.index(x_src.device)
        y, _ = _forward(senders, receivers, att, lifted.lengths, *index, graph.slots_of_offset, float(negative_slope), backend)
        return lifted.lower(y)
    alpha = attention_weights(senders, receivers, att, graph, negative_slope, lifted.lengths, edge_attr, edge_weight, most, backend)
    if lifted.exists is not None:  # that the gradients of α at other edges are not looked at
        alpha = torch.where(lifted.exists.unsqueeze(1), alpha, 0)
    if noise is not None:
        alpha = alpha * _kept_of_dropout(alpha, dropout, noise, graph, lifted.lengths, backend)
    alpha = lower(graph, alpha.permute(0, 2, 3, 1), 2)
    y = propagate(x_src, alpha, graph, lengths=lengths)
    return (y, alpha) if return_attention_weights else y


def _check_attention(att: Tensor, heads: int, x_src: Tensor) -> None:
    C = x_src.shape[-1]
    if heads < 1 or C % heads:
        raise ValueError(f"heads must divide the channels C = {C}, got {heads}")
    check_float("att", att)
    if list(att.shape) != [heads, C // heads]:
        raise ValueError(f"att must be [heads, C // heads] = {[heads, C // heads]}, got {list(att.shape)}")
    check_device("att", att, "x_src", x_src)


def _check_dropout(dropout: float, seed: int | Tensor | None, x_src: Tensor) -> Tensor | None:
    """The seed as a tensor; None without dropout."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be from 0 to 1, got {dropout}")
    if not dropout:
        return None
    if seed is None:
        raise ValueError(f"dropout = {dropout} needs a seed: a whole number, another one for every call")
    return check_seed(seed, ("x_src", x_src)) ^ _SEED_OF_DROPOUT


def _with_loops(graph: Graph, edge_weight: Tensor | None, edge_attr: Tensor | None) -> tuple[Graph, Tensor | None]:
    """One loop for every node, and weights with 1 for those that are added."""
    if edge_attr is not None:
        raise ValueError("edge_attr says nothing of the loops that add_self_loops adds; give graph.with_loops and features of all its slots")
    others = graph.without_loops if graph.parallel else graph
    looped = others.with_loops
    if edge_weight is not None:
        if others is not graph:
            index = graph.index(edge_weight.device)
            edge_weight = edge_weight[:, index.src != index.dst]
        edge_weight = pad(edge_weight, (0, 0, 0, looped.num_slots - others.num_slots), value=1.0)
    return looped, edge_weight


def _kept_of_dropout(alpha: Tensor, dropout: float, seed: Tensor, graph: Graph, lengths: Tensor | None, backend: str) -> Tensor:
    """0 for what is dropped, else 1 / (1 - dropout). Every head of a walk is a sample of its own.  # [B, heads, P, T]"""
    if dropout == 1:
        return torch.zeros_like(alpha)
    B, heads, P, T = alpha.shape
    # With logistic noise an edge stays with the probability that is the sigmoid of its logit.
    logits = alpha.new_full((B * heads, P, T), math.log((1 - dropout) / dropout), dtype=torch.float32)
    samples = torch.arange(B * heads, device=alpha.device)
    backend = "torch" if backend == "reference" else backend
    numbers = Sampling(noise="logistic").numbers()
    index, lengths = graph.index(alpha.device), fold_lengths(lengths, heads)
    # The operation itself: the function `sample_edges` would keep every loop.
    kept = torch.ops.fastst.sample_edges(logits, samples, lengths, *index, seed, graph.hops, numbers, backend)
    return kept.view(alpha.shape).to(alpha.dtype) / (1 - dropout)


def reference(x_src: Tensor, x_dst: Tensor, att: Tensor, graph: Graph, negative_slope: float, lengths: Tensor | None) -> Tensor:
    """All pairs of nodes, those without an edge masked out of the softmax."""
    B, T, J, C = x_src.shape
    heads = len(att)
    edges = x_src.new_ones(B, graph.num_slots, T)
    adjacent = graph.square_matrices(edges, lengths).bool().unsqueeze(-1)  # [B, to, from, 1]
    senders, receivers = (sparse.mask_frames(x, lengths).reshape(B, T * J, heads, C // heads) for x in (x_src, x_dst))
    hidden = torch.where(adjacent.unsqueeze(-1), senders[:, None] + receivers[:, :, None], 0)  # [B, to, from, heads, C / heads]
    scores = (leaky_relu(hidden, negative_slope) * att.to(x_src.dtype)).sum(-1).masked_fill(~adjacent, float("-inf"))
    none = scores.isneginf().all(2, keepdim=True)
    alpha = torch.softmax(scores.masked_fill(none, 0), 2).masked_fill(none, 0)
    return sparse.mask_frames(torch.einsum("bijh,bjhc->bihc", alpha, senders).reshape(x_src.shape), lengths)


@operation("attend")
def _forward(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Also returns log Σ exp of the scores into every node, from which the backward finds α again; ∞ where the sum is 0.  # [B, T, J, heads]"""
    graph, dtype, hops = GraphIndex(slots, bounds), compute_dtype(x_src), len(slots_of_offset) // 2
    kernels = compiled("attend", backend)
    if kernels is not None:
        return kernels.attend(x_src, x_dst, att, graph, hops, lengths, negative_slope)
    senders, receivers, att = (x.to(dtype) for x in (sparse.mask_frames(x_src, lengths), sparse.mask_frames(x_dst, lengths), att))
    scores = edge_scores(senders, receivers, att, lengths, graph, slots_of_offset, negative_slope)
    log_sum = log_sum_exp(scores, graph, x_src.shape[2])
    alpha = softmax(scores, log_sum, graph)
    y = sparse.gather_sum(fold_heads(senders, len(att)), _fold_edges(alpha), graph, hops, fold_lengths(lengths, len(att)))
    log_sum = torch.where(log_sum.isneginf(), torch.inf, log_sum)
    return unfold_heads(y, len(att)).to(x_src.dtype), log_sum.permute(1, 2, 0, 3)


@_forward.register_fake
def _(x_src: Tensor, x_dst: Tensor, att: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x_src.new_empty(x_src.shape), x_src.new_empty(*x_src.shape[:3], att.shape[0], dtype=compute_dtype(x_src))


@operation("attend_backward")
def _backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    graph, dtype, heads, hops = GraphIndex(slots, bounds), compute_dtype(x_src), len(att), len(slots_of_offset) // 2
    kernels = compiled("attend", backend)
    if kernels is not None:
        return kernels.attend_backward(dy, y, log_sum, x_src, x_dst, att, graph, hops, lengths, negative_slope)
    senders, receivers = (sparse.mask_frames(x, lengths).to(dtype) for x in (x_src, x_dst))
    dy = sparse.mask_frames(dy, lengths).to(dtype)
    scores = edge_scores(senders, receivers, att.to(dtype), lengths, graph, slots_of_offset, negative_slope)
    alpha = softmax(scores, log_sum.permute(2, 0, 1, 3), graph)  # [P, B, T, heads]
    folded_dy, folded_lengths = fold_heads(dy, heads), fold_lengths(lengths, heads)
    dsenders = unfold_heads(sparse.scatter_sum(folded_dy, _fold_edges(alpha), graph, hops, folded_lengths), heads)
    dalpha = _unfold_edges(sparse.edge_dot(folded_dy, fold_heads(senders, heads), graph, hops, folded_lengths), heads)
    # dα of the softmax: α (dα - Σ α dα), and the sum over a node's edges is y · dy.
    mean = sparse.node_dot(y, dy, heads, lengths).permute(2, 0, 1, 3)  # [J, B, T, heads]
    dscores = alpha * (dalpha - mean[graph.dst.long()])
    rest = lengths, graph, slots_of_offset, negative_slope
    through_src, dreceivers, datt, _ = edge_scores_backward(dscores, senders, receivers, att.to(dtype), *rest)
    return (dsenders + through_src).to(x_src.dtype), dreceivers.to(x_dst.dtype), datt.to(att.dtype)


@_backward.register_fake
def _(dy: Tensor, y: Tensor, log_sum: Tensor, x_src: Tensor, x_dst: Tensor, att: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return x_src.new_empty(x_src.shape), x_dst.new_empty(x_dst.shape), att.new_empty(att.shape)


def _fold_edges(values: Tensor) -> Tensor:
    """[P, B, T, heads] -> [B * heads, P, T]"""
    return values.permute(1, 3, 0, 2).flatten(0, 1)


def _unfold_edges(values: Tensor, heads: int) -> Tensor:
    return values.unflatten(0, (-1, heads)).permute(2, 0, 3, 1)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x_src, x_dst, att, lengths, slots, bounds, ctx.slots_of_offset, ctx.negative_slope, ctx.backend = inputs
    y, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(y, log_sum, x_src, x_dst, att, lengths, slots, bounds)


def _autograd(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    y, log_sum, x_src, x_dst, att, lengths, slots, bounds = ctx.saved_tensors
    rest = ctx.slots_of_offset, ctx.negative_slope, ctx.backend
    dsrc, ddst, datt = _backward(dy, y, log_sum, x_src, x_dst, att, lengths, slots, bounds, *rest)
    return dsrc, ddst, datt, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
