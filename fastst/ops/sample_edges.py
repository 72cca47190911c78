"""Which edges stay: the straight-through Gumbel sampling of the paper (Eq. 2 and 3)."""

import operator

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_edges, check_lengths, check_per_walk, lower
from fastst.ops.random import edge_uniform
from fastst.ops.registration import operation

NOISES = ("gumbel", "logistic")
ESTIMATORS = ("identity", "sigmoid")
_MOST_EPS = 2.0**-24  # what the largest u lacks to 1


def sample_edges(
    logits: Tensor,
    graph: Graph,
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
    """kept = round(sigmoid(z)), z = (γ − log(−β log(u + ε) + ε)) / τ, u ~ Uniform(0, 1): Eq. 2 and 3 of the paper.

    kept is 1 exactly where z > 0, so τ only scales gradients. With `noise="gumbel"`, the formula as printed, an edge stays with probability
    1 − exp(−e^γ / β), and not sigmoid(γ) as the paper's Eq. 1 says; `noise="logistic"`, z = (γ + log(u + ε) − log(1 − u + ε)) / τ, gives
    sigmoid(γ) (β is not used). `keep_probability` knows both.

    The gradient is straight-through: `estimator="identity"` is the paper's ∂kept/∂γ = ∂z/∂γ = 1/τ, `"sigmoid"` is σ'(z)/τ, with the noise made
    again instead of stored. Removed edges have it too: that is how an edge returns.

    Args:
        logits: γ, `[B, P, T]`, or `[B, E]` for an `EdgeList`.
        eps: ε; at most 2⁻²⁴ for `noise="gumbel"`, beyond which Eq. 2 would take the logarithm of a negative number.
        seed: any whole number, used modulo 2⁶⁴. The same seed keeps the same edges, on every backend and device.
        sample_ids: `[B]` whole numbers that stand for the walks in the random numbers, a dataset index say; without them the position in the
            batch. With them a walk's graph does not depend on the batch or on padding.
        lengths: `[B]` frames of every walk.

    Returns:
        0 or 1 for every edge in the shape and dtype of the logits; 0 where no edge exists.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.
    """
    edges = check_edges("logits", logits, graph)
    B = len(edges)
    lengths = check_lengths(lengths, graph, B, ("logits", logits))
    seed, sample_ids = check_sampling(B, ("logits", logits), seed, beta, tau, eps, noise, estimator, sample_ids)
    options = (float(beta), float(tau), float(eps), noise, estimator)
    backend = current_backend(logits.device.type)
    if backend == "reference":
        return lower(graph, reference(edges, graph, seed, sample_ids, lengths, *options), -1)
    index = graph.index(logits.device)
    kept = _forward(edges, sample_ids, lengths, index.offset, signed(seed), graph.hops, *options, backend)
    return lower(graph, kept, -1)


def reference(
    logits: Tensor,
    graph: Graph,
    seed: int,
    sample_ids: Tensor,
    lengths: Tensor | None,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
) -> Tensor:
    """Eq. 2 and 3 as printed; the straight-through gradient by adding what is 0 in value."""
    _, P, T = logits.shape
    offset = graph.index(logits.device).offset
    gamma = sparse.mask_edges(logits, offset, lengths).to(torch.promote_types(logits.dtype, torch.float32))
    u = edge_uniform(seed, sample_ids, P, T, isinstance(graph, EdgeList)).to(gamma.dtype)
    if noise == "gumbel":
        z = (gamma - torch.log(-beta * torch.log(u + eps) + eps)) / tau
    else:
        z = (gamma + torch.log(u + eps) - torch.log(1 - u + eps)) / tau
    soft = z if estimator == "identity" else torch.sigmoid(z)
    soft = torch.where(soft.isinf(), 0, soft)  # whose difference with itself is no number
    kept = torch.round(torch.sigmoid(z)).detach() + (soft - soft.detach())
    return sparse.mask_edges(kept, offset, lengths).to(logits.dtype)


def signed(seed: int) -> int:
    """What an int64 of the same 64 bits says."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def check_sampling(
    B: int, like: tuple[str, Tensor], seed: int, beta: float, tau: float, eps: float, noise: str, estimator: str, sample_ids: Tensor | None
) -> tuple[int, Tensor]:
    """The options; the seed and the numbers that stand for the walks."""
    if not isinstance(seed, int):
        try:
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(f"seed must be a whole number, got {seed!r}") from None
    for name, value in (("beta", beta), ("tau", tau), ("eps", eps)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    check_choice("noise", noise, NOISES)
    check_choice("estimator", estimator, ESTIMATORS)
    if noise == "gumbel" and eps > _MOST_EPS:
        raise ValueError(f"eps must be at most 2⁻²⁴ = {_MOST_EPS:.3g}, so that Eq. 2 takes no logarithm of a negative number; got {eps}")
    if sample_ids is None:
        return seed, torch.arange(B, device=like[1].device)
    return seed, check_per_walk("sample_ids", sample_ids, B, like)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _scores(logits: Tensor, sample_ids: Tensor, seed: int, hops: int, beta: float, eps: float, noise: str) -> Tensor:
    """τ z, at least in float32.  # [B, P, T]"""
    _, P, T = logits.shape
    u = edge_uniform(seed, sample_ids, P, T, hops == 0)
    if logits.dtype == torch.float64:
        u = u.double()
    if noise == "gumbel":
        return logits - u.add_(eps).log_().mul_(-beta).add_(eps).log_()
    return logits + torch.log(u + eps) - torch.log(1 - u + eps)


@operation("sample_edges")
def _forward(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
    backend: str,
) -> Tensor:
    kernels = compiled("sample_edges", backend)
    if kernels is not None:
        return kernels.sample_edges(logits, sample_ids, lengths, offset, seed, hops, beta, eps, noise)
    score = _scores(logits, sample_ids, seed, hops, beta, eps, noise)
    kept = torch.where(score.isnan(), score, score > 0)  # NaN must not look like a removed edge
    return sparse.mask_edges(kept, offset, lengths).to(logits.dtype)


@_forward.register_fake
def _(logits, *_):
    return logits.new_empty(logits.shape)


@operation("sample_edges_backward")
def _backward(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
    backend: str,
) -> Tensor:
    kernels = compiled("sample_edges", backend)
    if kernels is not None:
        return kernels.sample_edges_backward(dkept, logits, sample_ids, lengths, offset, seed, hops, beta, tau, eps, noise, estimator)
    slope = 1 / tau
    if estimator == "sigmoid":
        soft = torch.sigmoid(_scores(logits, sample_ids, seed, hops, beta, eps, noise) / tau)
        dkept = dkept * (soft * (1 - soft))
    return sparse.mask_edges(dkept * slope, offset, lengths).to(logits.dtype)


@_backward.register_fake
def _(dkept, logits, *_):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, sample_ids, lengths, offset, *ctx.options = inputs
    ctx.save_for_backward(logits if ctx.options[-2] == "sigmoid" else None, sample_ids, lengths, offset)


def _autograd(ctx, dkept):
    logits, sample_ids, lengths, offset = ctx.saved_tensors
    if logits is None:  # the identity's gradient reads no more of the logits than their shape and dtype
        logits = dkept
    dlogits = _backward(dkept, logits, sample_ids, lengths, offset, *ctx.options)
    return dlogits, *[None] * (3 + len(ctx.options))


_forward.register_autograd(_autograd, setup_context=_setup_context)
