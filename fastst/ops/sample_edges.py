"""Which edges stay: the straight-through Gumbel sampling of the paper (Eq. 2 and 3)."""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph
from fastst.graph_index import GraphIndex
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_edges, check_lengths, check_sample_ids, check_seed, lower
from fastst.ops.lifting import lift
from fastst.ops.loops import keep_loops
from fastst.ops.random import edge_uniform
from fastst.ops.registration import operation
from fastst.sampling import Sampling, SamplingOptions, sampling_of


def sample_edges(
    logits: Tensor,
    graph: Graph,
    *,
    seed: int | Tensor,
    sampling: Sampling | None = None,
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
    **options: Unpack[SamplingOptions],
) -> Tensor:
    """kept = round(sigmoid(z)), z = (γ − log(−β log(u + ε) + ε)) / τ, u ~ Uniform(0, 1): Eq. 2 and 3
    of the paper, or another z and another gradient as `Sampling` says.

    The gradient is straight-through. Removed edges have it too: that is how an edge returns. A logit
    of ±∞ has none: that edge is certain.

    Args:
        logits: γ, `[B, P, T]`, or `[B, E]` for an `EdgeList`.
        seed: any whole number, used modulo 2⁶⁴, or a 0-d tensor of int64 on the CPU or the logits'
            device, another value of which needs no new compilation and no new CUDA graph. The same
            seed keeps the same edges, on every backend and device.
        sampling: β, τ, ε, the noise and the estimator.
        sample_ids: `[B]` whole numbers that stand for the walks in the random numbers, a dataset
            index say; without them the position in the batch. With them a walk's graph does not
            depend on the batch or on padding.
        lengths: `[B]` frames of every walk.
        options: fields of `Sampling` one by one, instead of `sampling`.

    Returns:
        0 or 1 for every edge in the shape and dtype of the logits; 0 where no edge exists. Loops
        always stay: their logits don't matter.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> logits = torch.zeros(2, graph.num_slots, 12)
        >>> kept, again = (ops.sample_edges(logits, graph, seed=1, noise="logistic") for _ in range(2))
        >>> kept.unique(), torch.equal(kept, again)
        (tensor([0., 1.]), True)
    """
    sampling = sampling_of(sampling, options)
    edges, like = check_edges("logits", logits, graph), ("logits", logits)
    lifted = lift(graph, edges.shape[2] * graph.stride, check_lengths(lengths, graph, edges.shape[0], like), logits.device)
    edges, lengths = lifted.edges(edges, -torch.inf), lifted.lengths
    seed, sample_ids = check_seed(seed, like), check_sample_ids(sample_ids, edges.shape[0], like)
    backend = current_backend(logits.device.type)
    if backend == "reference":
        kept = reference(edges, graph, seed, sample_ids, lengths, sampling)
    else:
        index = graph.index(logits.device)
        kept = _forward(edges, sample_ids, lengths, *index, seed, graph.hops, sampling.numbers(), backend)
    return lower(graph, keep_loops(kept, graph, lengths), -1)


def reference(
    logits: Tensor,
    graph: Graph,
    seed: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    sampling: Sampling,
) -> Tensor:
    """Eq. 2 and 3 as printed; the straight-through gradient by adding what is 0 in value."""
    _, P, T = logits.shape
    beta, tau, eps = sampling.beta, sampling.tau, sampling.eps
    offset = graph.index(logits.device).offset
    gamma = sparse.mask_edges(logits, offset, lengths)
    gamma = gamma.to(torch.promote_types(logits.dtype, torch.float32))
    u = edge_uniform(seed, sample_ids, P, T, isinstance(graph, EdgeList)).to(gamma.dtype)
    if sampling.noise == "gumbel":
        z = (gamma - torch.log(-beta * torch.log(u + eps) + eps)) / tau
    else:
        z = (gamma + torch.log(u + eps) - torch.log(1 - u + eps)) / tau
    soft = z if sampling.estimator == "identity" else torch.sigmoid(z)
    soft = torch.where(soft.isinf(), 0, soft)  # whose difference with itself is no number
    kept = torch.round(torch.sigmoid(z)).detach() + (soft - soft.detach())
    return sparse.mask_edges(kept, offset, lengths).to(logits.dtype)


def keep_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    graph: GraphIndex,
    seed: Tensor,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """1 where an edge exists and its score is above 0, else 0, in torch operations."""
    score = _scores(logits, sample_ids, seed, hops, sampling)
    # NaN must not look like a removed edge
    kept = torch.where(score.isnan(), score, score > 0)
    return sparse.mask_edges(kept, graph.offset, lengths).to(logits.dtype)


def straight_through(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    seed: Tensor,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """The estimator's gradient, in torch operations; 0 at a logit of ±∞, anything where no edge exists."""
    slope: Tensor | float = 1 / sampling.tau
    if sampling.estimator == "sigmoid":
        soft = torch.sigmoid(_scores(logits, sample_ids, seed, hops, sampling) / sampling.tau)
        slope = soft * (1 - soft) / sampling.tau
    return torch.where(logits.isinf(), 0, dkept * slope)


def _scores(logits: Tensor, sample_ids: Tensor, seed: Tensor, hops: int, sampling: Sampling) -> Tensor:
    """τ z, at least in float32.  # [B, P, T]"""
    _, P, T = logits.shape
    eps = sampling.eps
    u = edge_uniform(seed, sample_ids, P, T, hops == 0)
    if logits.dtype == torch.float64:
        u = u.double()
    if sampling.noise == "gumbel":
        return logits - u.add_(eps).log_().mul_(-sampling.beta).add_(eps).log_()
    return logits + torch.log(u + eps) - torch.log(1 - u + eps)


@operation("sample_edges")
def _forward(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    options: Sequence[float],
    backend: str,
) -> Tensor:
    kernels = compiled("sample_edges", backend)
    sample = keep_edges if kernels is None else kernels.sample_edges
    return sample(logits, sample_ids, lengths, GraphIndex(slots, bounds), seed, hops, Sampling.of(options))


@_forward.register_fake
def _(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


@operation("sample_edges_backward")
def _backward(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    options: Sequence[float],
    backend: str,
) -> Tensor:
    graph, sampling, kernels = GraphIndex(slots, bounds), Sampling.of(options), compiled("sample_edges", backend)
    if kernels is not None:
        return kernels.sample_edges_backward(dkept, logits, sample_ids, lengths, graph, seed, hops, sampling)
    dlogits = straight_through(dkept, logits, sample_ids, seed, hops, sampling)
    return sparse.mask_edges(dlogits, graph.offset, lengths).to(logits.dtype)


@_backward.register_fake
def _(dkept: Tensor, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.hops, ctx.options, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _autograd(ctx: Any, dkept: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(dkept, *ctx.saved_tensors, ctx.hops, ctx.options, ctx.backend), *[None] * 8


_forward.register_autograd(_autograd, setup_context=_setup_context)
