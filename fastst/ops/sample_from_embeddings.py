"""Which edges stay, straight from the embeddings of the nodes: `edge_logits` and `sample_edges` as one operation."""

import torch
from torch import Tensor

from fastst.graph import Graph, GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend, products
from fastst.ops.checks import lower
from fastst.ops.edge_logits import check_embeddings, logits_dtype
from fastst.ops.edge_logits import reference as reference_logits
from fastst.ops.registration import operation
from fastst.ops.sample_edges import check_sampling, signed
from fastst.ops.sample_edges import reference as reference_sample


def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    graph: Graph,
    bias: Tensor | None = None,
    *,
    seed: int,
    beta: float = 2.0,
    tau: float = 2.0,
    eps: float = 1e-10,
    noise: str = "gumbel",
    estimator: str = "identity",
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """sample_edges(edge_logits(q, k, graph, bias, lengths), graph, …), without the logits: they are made, used and forgotten edge by edge.

    Use it where only the sample is wanted. It writes the kept edges and nothing else of their size; the backward of the `identity` estimator needs
    no more either, that of `sigmoid` makes logits and noise again.

    Args:
        q, k, bias: as in `edge_logits`.
        seed, beta, tau, eps, noise, estimator, sample_ids: as in `sample_edges`.
        lengths: `[B]` frames of every walk.

    Returns:
        0 or 1 for every edge, `[B, P, T]`, or `[B, E]` for an `EdgeList`; in q's dtype, but float32 for half precision. 0 where no edge exists.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.
    """
    receivers, senders, lengths = check_embeddings(q, k, graph, bias, lengths)
    seed, sample_ids = check_sampling(len(q), ("q", q), seed, beta, tau, eps, noise, estimator, sample_ids)
    options = (float(beta), float(tau), float(eps), noise, estimator)
    backend = current_backend(q.device.type)
    if backend == "reference":
        logits = reference_logits(receivers, senders, graph, bias, lengths)
        return lower(graph, reference_sample(logits, graph, seed, sample_ids, lengths, *options), -1)
    index = graph.index(q.device)
    arguments = (receivers, senders, bias, sample_ids, lengths, *index, signed(seed), graph.hops, *options, backend)
    kept = _forward(*arguments)
    return lower(graph, kept, -1)


def _logits(q: Tensor, k: Tensor, bias: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, hops: int, backend: str) -> Tensor:
    return torch.ops.fastst.edge_logits(q, k, bias, lengths, slots, bounds, hops, backend)


@operation("sample_from_embeddings")
def _forward(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
    backend: str,
) -> Tensor:
    graph, kernels = GraphIndex(slots, bounds), compiled("sample_edges", backend)
    if kernels is not None:
        return kernels.sample_from_embeddings(q, k, bias, sample_ids, lengths, graph, seed, hops, beta, eps, noise)
    logits = _logits(q, k, bias, lengths, slots, bounds, hops, backend)
    return torch.ops.fastst.sample_edges(logits, sample_ids, lengths, graph.offset, seed, hops, beta, tau, eps, noise, estimator, backend)


@_forward.register_fake
def _(q, k, bias, sample_ids, lengths, slots, bounds, *_):
    return q.new_empty(q.shape[0], GraphIndex(slots, bounds).num_slots, q.shape[1], dtype=logits_dtype(q))


@operation("sample_from_embeddings_backward")
def _backward(
    dkept: Tensor,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    graph, product = GraphIndex(slots, bounds), products(backend)
    dlogits, slope = dkept, 1 / tau
    if estimator == "sigmoid":
        logits = _logits(q, k, bias, lengths, slots, bounds, hops, backend)
        options = (seed, hops, beta, tau, eps, noise, estimator, backend)
        dlogits, slope = torch.ops.fastst.sample_edges_backward(dkept, logits, sample_ids, lengths, graph.offset, *options), 1.0
    dq = product.gather_sum(k, dlogits, graph, hops, lengths).mul_(slope)
    dk = product.scatter_sum(q, dlogits, graph, hops, lengths).mul_(slope)
    if bias is None:
        return dq, dk, q.new_empty(0)
    return dq, dk, (sparse.mask_edges(dlogits, graph.offset, lengths).sum((0, 2)) * slope).to(bias.dtype)


@_backward.register_fake
def _(dkept, q, k, bias, *_):
    return q.new_empty(q.shape), k.new_empty(k.shape), q.new_empty(0) if bias is None else bias.new_empty(bias.shape)


def _setup_context(ctx, inputs, output):
    q, k, bias, sample_ids, lengths, slots, bounds, *ctx.options = inputs
    ctx.save_for_backward(q, k, bias, sample_ids, lengths, slots, bounds)


def _autograd(ctx, dkept):
    q, k, bias, sample_ids, lengths, slots, bounds = ctx.saved_tensors
    dq, dk, dbias = _backward(dkept, q, k, bias, sample_ids, lengths, slots, bounds, *ctx.options)
    return dq, dk, None if bias is None else dbias, None, None, None, None, *[None] * len(ctx.options)


_forward.register_autograd(_autograd, setup_context=_setup_context)
