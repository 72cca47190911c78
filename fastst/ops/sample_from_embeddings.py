"""Which edges stay, straight from the embeddings of the nodes: `edge_logits` and `sample_edges` as
one operation; and how far the graph that is sampled may be from what is expected of it."""

from collections.abc import Sequence
from typing import Any, Unpack, overload

import torch
from torch import Tensor

from fastst.graph import Graph
from fastst.graph_index import GraphIndex, edge_exists
from fastst.ops import information, sparse
from fastst.ops.backends import compiled, current_backend, products
from fastst.ops.checks import check_prior, check_prior_value, check_sample_ids, check_seed, lower
from fastst.ops.edge_logits import check_embeddings, logits_dtype, make_logits
from fastst.ops.edge_logits import reference as reference_logits
from fastst.ops.loops import information_without_loops, keep_loops
from fastst.ops.registration import operation
from fastst.ops.sample_edges import keep_edges, straight_through
from fastst.ops.sample_edges import reference as reference_sample
from fastst.sampling import Sampling, SamplingOptions, sampling_of


@overload
def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    graph: Graph,
    bias: Tensor | None = None,
    *,
    seed: int | Tensor,
    sampling: Sampling | None = None,
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
    prior: None = None,
    **options: Unpack[SamplingOptions],
) -> Tensor: ...
@overload
def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    graph: Graph,
    bias: Tensor | None = None,
    *,
    seed: int | Tensor,
    sampling: Sampling | None = None,
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
    prior: float | Tensor,
    **options: Unpack[SamplingOptions],
) -> tuple[Tensor, Tensor]: ...
def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    graph: Graph,
    bias: Tensor | None = None,
    *,
    seed: int | Tensor,
    sampling: Sampling | None = None,
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
    prior: float | Tensor | None = None,
    **options: Unpack[SamplingOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    """sample_edges(edge_logits(q, k, graph, bias, lengths), graph, …), without the logits: they are
    made, used and forgotten edge by edge. With a prior r also, for every walk, the mean over its
    edges of KL(Bernoulli(p) ‖ Bernoulli(r)) = p log(p / r) + (1 − p) log((1 − p) / (1 − r)), where
    p is the `keep_probability` of the edge's logit: the information term of Miao et al.,
    "Interpretable and generalizable graph learning via stochastic attention mechanism" (ICML 2022).

    Use it where only the sample is wanted. The forward writes the kept edges and nothing else of
    their size. The backward of the `identity` estimator needs no more either; that of `sigmoid`,
    and that of the information term, make the logits again.

    Args:
        q, k, bias: as in `edge_logits`. An edge with a bias of ±∞ is certain and has no gradient.
        seed, sampling, sample_ids, options: as in `sample_edges`.
        lengths: `[B]` frames of every walk.
        prior: r, above 0 and below 1: a number, or a 0-d tensor on the CPU or q's device, another
            value of which needs no new compilation and no new CUDA graph (and which is not checked
            on a GPU). It gets no gradient.

    Returns:
        0 or 1 for every edge, `[B, P, T]`, or `[B, E]` for an `EdgeList`; in q's dtype, but float32
        for half precision. 0 where no edge exists. With a prior a pair of that and of the
        information term, `[B]` in the same dtype; 0 for a walk without edges. Loops always stay,
        and are not among the edges of the term.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> q, k = torch.randn(2, 2, 12, 17, 8)
        >>> kept, information = ops.sample_from_embeddings(q, k, graph, seed=1, prior=0.5)
        >>> kept.shape, information.shape
        (torch.Size([2, 72, 12]), torch.Size([2]))
    """
    sampling, like = sampling_of(sampling, options), ("q", q)
    receivers, senders, lifted = check_embeddings(q, k, graph, bias, lengths)
    lengths = lifted.lengths
    if prior is not None and graph.stride > 1:
        raise ValueError(f"prior is not for {graph}, whose edges it can't count; take edge_logits, then sample_edges")
    seed, sample_ids = check_seed(seed, like), check_sample_ids(sample_ids, q.shape[0], like)
    r = None if prior is None else check_prior(prior, like)
    backend = current_backend(q.device.type)
    if backend == "reference":
        kept, term = reference(receivers, senders, graph, bias, seed, r, sample_ids, lengths, sampling)
    else:
        index, rest = graph.index(q.device), (graph.hops, sampling.numbers(), backend)
        kept, term = _forward(receivers, senders, bias, sample_ids, lengths, *index, seed, r, *rest)
    kept = lower(graph, lifted.edges(keep_loops(kept, graph, lengths)), -1)
    if r is None:
        return kept
    return kept, information_without_loops(term, receivers, senders, bias, graph, lengths, r, sampling)


def reference(
    q: Tensor,
    k: Tensor,
    graph: Graph,
    bias: Tensor | None,
    seed: Tensor,
    prior: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    sampling: Sampling,
) -> tuple[Tensor, Tensor]:
    """One after the other; without a prior the information term is of no walk."""
    logits = reference_logits(q, k, graph, bias, lengths)
    kept = reference_sample(logits, graph, seed, sample_ids, lengths, sampling)
    if prior is None:
        return kept, logits.new_empty(0)
    check_prior_value(prior)
    return kept, information.reference(logits, graph, lengths, prior, sampling)


@operation("sample_from_embeddings")
def _forward(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    options: Sequence[float],
    backend: str,
) -> tuple[Tensor, Tensor]:
    if prior is not None:
        check_prior_value(prior)
    graph, sampling = GraphIndex(slots, bounds), Sampling.of(options)
    kernels = compiled("sample_from_embeddings", backend)
    sample = _sample if kernels is None else kernels.sample_from_embeddings
    kept, total = sample(q, k, bias, sample_ids, lengths, graph, seed, prior, hops, sampling)
    if total is None:
        return kept, kept.new_empty(0)
    return kept, total / information.count_edges(graph.offset, q.shape[1], lengths)


@_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    prior: Tensor | None,
    *_: object,
) -> tuple[Tensor, Tensor]:
    (B, T), P, dtype = q.shape[:2], GraphIndex(slots, bounds).num_slots, logits_dtype(q)
    walks = 0 if prior is None else B
    return q.new_empty(B, P, T, dtype=dtype), q.new_empty(walks, dtype=dtype)


def _sample(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    graph: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> tuple[Tensor, Tensor | None]:
    """Kept edges and, with a prior, the divergences of every walk's edges, summed.  # [B, P, T], [B]"""
    logits = make_logits(q, k, bias, lengths, graph, hops, "torch")
    kept = keep_edges(logits, sample_ids, lengths, graph, seed, hops, sampling)
    if prior is None:
        return kept, None
    divergence = information.divergence(logits, prior, sampling)
    return kept, sparse.mask_edges(divergence, graph.offset, lengths).sum((1, 2))


@operation("sample_from_embeddings_backward")
def _backward(
    dkept: Tensor,
    dinformation: Tensor,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    options: Sequence[float],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    graph, sampling = GraphIndex(slots, bounds), Sampling.of(options)
    product, kernels = products(backend), compiled("sample_from_embeddings", backend)
    dlogits, slope = dkept, 1 / sampling.tau
    if prior is not None or sampling.estimator == "sigmoid":
        weight = None
        if prior is not None:
            weight = dinformation / information.count_edges(graph.offset, q.shape[1], lengths)
        gradient = _logits_gradient if kernels is None else kernels.logits_gradient
        dlogits = gradient(dkept, weight, q, k, bias, sample_ids, lengths, graph, seed, prior, hops, sampling)
        slope = 1.0
    elif bias is not None:
        uncertain = edge_exists(graph.offset, q.shape[1], lengths) & ~bias.isinf()[:, None]
        dlogits = torch.where(uncertain, dkept, 0)
    dq = product.gather_sum(k, dlogits, graph, hops, lengths)
    dk = product.scatter_sum(q, dlogits, graph, hops, lengths)
    if slope != 1:
        dq, dk = dq.mul_(slope), dk.mul_(slope)
    if bias is None:
        return dq, dk, q.new_empty(0)
    return dq, dk, (dlogits.sum((0, 2)) * slope).to(bias.dtype)


@_backward.register_fake
def _(dkept: Tensor, dinformation: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    dbias = q.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), dbias


def _logits_gradient(
    dkept: Tensor,
    weight: Tensor | None,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    graph: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """dγ of the sample and, with a prior, of `weight` `[B]` times the divergence of every edge."""
    logits = make_logits(q, k, bias, lengths, graph, hops, "torch")
    dlogits = straight_through(dkept, logits, sample_ids, seed, hops, sampling)
    if prior is not None and weight is not None:
        slope = information.divergence_slope(logits, prior, sampling)
        dlogits = dlogits + weight[:, None, None] * slope
    return sparse.mask_edges(dlogits, graph.offset, lengths)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.hops, ctx.options, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _autograd(ctx: Any, dkept: Tensor, dinformation: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    rest = ctx.hops, ctx.options, ctx.backend
    dq, dk, dbias = _backward(dkept, dinformation, *tensors, *rest)
    return dq, dk, None if tensors[2] is None else dbias, *[None] * 9


_forward.register_autograd(_autograd, setup_context=_setup_context)
