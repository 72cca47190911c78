"""Exactly k edges of a walk, of a frame or into a node stay: samples, their exact probabilities, and four gradients of samples."""

import operator
from typing import Any

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph
from fastst.graph_index import GraphIndex, edge_exists
from fastst.ops import k_subsets
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_edges, check_lengths, check_sample_ids, check_seed, lower
from fastst.ops.lifting import lift
from fastst.ops.loops import keep_loops
from fastst.ops.random import edge_uniforms
from fastst.ops.registration import operation
from fastst.sampling import check_choice

GROUPS = ("graph", "frame", "dst")
_MOST_ON_GPU = 511
ESTIMATORS = ("simple", "straight_through", "imle", "reinforce")


def sample_k_edges(
    logits: Tensor,
    graph: Graph,
    k: int,
    *,
    seed: int | Tensor,
    per: str = "graph",
    estimator: str = "simple",
    samples: int = 1,
    lam: float = 1.0,
    sample_ids: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """P(z) = Π_i e^(γ_i z_i) / e_k(e^γ) over the z in {0, 1}ⁿ with Σ z_i = k: independent edges, each kept with
    probability sigmoid(γ_i), given that exactly k of a group's n are kept.

    A group with fewer than k edges keeps them all. Loops always stay, and don't count. A logit of +∞ is an edge
    that is kept for certain (where a group has more than k, k of them, all equally likely), one of -∞ an edge that
    never is, as if it did not exist; both have no gradient. A logit that is no number makes its group's results NaN.

    The gradient of the samples z is, with μ = E[z] the marginals:

    * `simple`: that of the marginals, Σ_i dz_i ∂μ_i/∂γ_m = Σ_i dz_i Cov(z_i, z_m) (Ahmed et al., "SIMPLE: A Gradient
      Estimator for k-Subset Sampling", ICLR 2023);
    * `straight_through`: of these the diagonal alone, dz_m μ_m (1 - μ_m), as for a Bernoulli unit of probability μ_m
      (Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013);
    * `imle`: z is the k largest γ + Gumbel noise; its gradient is (z(γ) - z(γ - λ dz)) / λ with the same noise
      (Niepert et al., "Implicit MLE", NeurIPS 2021). These z have no simple probabilities: see what is returned;
    * `reinforce`: none. Use the log-probabilities: (loss.detach() * log_probability).mean() has the gradient of the
      expected loss.

    The marginals and the log-probabilities have their own, exact gradients with every estimator that has them.

    Sample s uses the random numbers of `sample_edges` with 2 s more in the last counter word, one for each edge: the
    first sample's are the same. Time and memory of a group are O(n k), for the groups that are worked on at one time
    (for all on the `torch` backend, which on a GPU also takes over where k is above 511).

    Args:
        logits: γ, `[B, P, T]`, or `[B, E]` for an `EdgeList`.
        k: at least 0.
        seed: any whole number, used modulo 2⁶⁴, or a 0-d tensor of int64 on the CPU or the logits' device.
        per: what a group is: `graph`, all edges of a walk; `frame`, those that end in a frame; `dst`, those that end
            in one node. The time of the last two is linear in the frames.
        estimator: the gradient of the samples.
        samples: S, at least 1.
        lam: λ of `imle`; how far the second state looks, above 0.
        sample_ids: `[B]` whole numbers that stand for the walks in the random numbers, a dataset index say; without
            them the position in the batch. With them a walk's graph does not depend on the batch or on padding.
        lengths: `[B]` frames of every walk.

    Returns:
        Kept edges `[S, B, P, T]` (`[S, B, E]`), 0 or 1 in the logits' dtype, 0 where no edge exists; marginals
        `[B, P, T]` (`[B, E]`) and log-probabilities of a walk's kept edges `[S, B]`, of float32 at least. The last two
        are None for `imle`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> logits = torch.randn(2, graph.num_slots, 12)
        >>> kept, marginals, log_probability = ops.sample_k_edges(logits, graph, 20, seed=1, per="frame")
        >>> kept.shape, kept.sum(2).unique()
        (torch.Size([1, 2, 72, 12]), tensor([20.]))
    """
    edges, like = check_edges("logits", logits, graph), ("logits", logits)
    k, samples, lam = _check_count("k", k, 0), _check_count("samples", samples, 1), float(lam)
    check_choice("per", per, GROUPS)
    check_choice("estimator", estimator, ESTIMATORS)
    if not lam > 0:
        raise ValueError(f"lam must be above 0, got {lam}")
    lifted = lift(graph, edges.shape[2] * graph.stride, check_lengths(lengths, graph, len(edges), like), logits.device)
    edges, lengths, graph = lifted.edges(edges, -torch.inf), lifted.lengths, graph.apart
    seed, sample_ids = check_seed(seed, like), check_sample_ids(sample_ids, len(edges), like)
    backend = current_backend(logits.device.type)
    if backend == "reference":
        drawn = reference(edges, graph, k, seed, sample_ids, lengths, per, estimator, samples, lam)
    else:
        index, widest = graph.index(logits.device), graph.most_into if per == "dst" else graph.num_slots
        draw = graph.hops, k, per, widest, samples
        if estimator == "imle":
            drawn = _perturb(edges, sample_ids, lengths, *index, seed, *draw, lam, backend), None, None
        else:
            drawn = _sample(edges, sample_ids, lengths, *index, seed, *draw, estimator, backend)
    kept, marginals, log_probability = drawn
    kept = lower(graph, keep_loops(kept.detach() if estimator == "reinforce" else kept, graph, lengths), -1)
    return kept, None if marginals is None else lower(graph, keep_loops(marginals, graph, lengths), -1), log_probability


def _check_count(name: str, value: Any, least: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def reference(
    logits: Tensor,
    graph: Graph,
    k: int,
    seed: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    per: str,
    estimator: str,
    samples: int,
    lam: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """By the elementary symmetric polynomials e_0 … e_k of e^γ: μ = ∂ log e_k / ∂γ, and the last of n candidates of which j
    are kept is one of them with probability e^γ e_{j-1}(n - 1) / e_j(n). In float64, all derivatives by autograd, for logits of
    a group that are no more than about 100 apart: beyond, the squares of their exponentials have no room."""
    B, P, T = logits.shape
    S, dtype = samples, torch.promote_types(logits.dtype, torch.float32)
    walk, members = _reference_groups(graph, T, B, lengths, per, logits.device)
    exists = members >= 0
    place = members[exists]  # in the flat edges
    gamma = logits.new_full(members.shape, -torch.inf, dtype=torch.float64).masked_scatter(exists, logits.double().flatten()[place])
    u = edge_uniforms(seed, sample_ids, S, P, T, isinstance(graph, EdgeList)).flatten(1)[:, members.clamp(min=0)]

    def as_edges(values: Tensor, *lead: int) -> Tensor:
        return values.new_zeros(*lead, B * P * T).index_copy(-1, place, values[..., exists]).view(*lead, B, P, T)

    poisoned = gamma.isnan().any(1, keepdim=True) & (gamma != -torch.inf)
    gamma = torch.where(gamma.isnan(), 0, gamma)
    gamma = torch.where(((gamma == torch.inf).sum(1, keepdim=True) > k) & (gamma < torch.inf), -torch.inf, gamma)
    certain, is_open = gamma == torch.inf, gamma.isfinite()
    crowded = certain.sum(1, keepdim=True) > k
    certain, is_open = certain & ~crowded, is_open | (certain & crowded)
    gamma = torch.where(gamma.isfinite(), gamma, 0)
    left = torch.minimum(k - certain.sum(1), is_open.sum(1))[:, None]  # of the open ones [G, 1]

    if estimator == "imle":
        kept = _Perturbed.apply(gamma, k_subsets.gumbel(u), certain, is_open, left, lam)  # type: ignore[no-untyped-call]
        return as_edges(torch.where(poisoned, torch.nan, kept), S).to(logits.dtype), None, None

    def log_sum(gamma: Tensor) -> Tensor:
        return _polynomials(gamma, is_open, k)[-1].gather(1, left).log()  # of the weights that `_polynomials` takes

    marginals = torch.func.grad(lambda gamma: log_sum(gamma).sum())(gamma)
    marginals = torch.where(certain, 1, torch.where(is_open, marginals, 0))
    with torch.no_grad():
        kept = _reference_draw(_polynomials(gamma, is_open, k), u, certain, is_open, left)
    of_groups = (kept * torch.where(is_open, gamma - _shift(gamma, is_open), 0)).sum(-1) - log_sum(gamma)[:, 0]
    of_groups = torch.where(poisoned.any(1), torch.nan, of_groups)
    log_probability = of_groups.new_zeros(S, B).index_add(1, walk, of_groups)
    if estimator == "simple":
        kept = kept + (marginals - marginals.detach())
    elif estimator == "straight_through":
        kept = kept + (marginals * (1 - marginals)).detach() * (gamma - gamma.detach())
    kept, marginals = (torch.where(poisoned, torch.nan, values) for values in (kept, marginals))
    return as_edges(kept, S).to(logits.dtype), as_edges(marginals).to(dtype), log_probability.to(dtype)


def _reference_groups(graph: Graph, T: int, B: int, lengths: Tensor | None, per: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The walk of every group, and its edges' places among the flat edges in the order in which they are drawn, -1 behind them.  # [G], [G, n]"""
    index, P, J = graph.index(device), graph.num_slots, graph.num_joints
    exists = edge_exists(index.offset, T, lengths).expand(B, P, T)
    b, p, t = (exists & ~((index.src == index.dst) & (index.offset == 0))[:, None]).nonzero(as_tuple=True)
    rank = index.dst_order.argsort()[p] if per == "dst" else p
    order = (rank * T + t).argsort(stable=True)
    place = ((b * P + p) * T + t)[order]
    group = {"graph": b, "frame": b * T + t, "dst": (b * T + t) * J + index.dst.long()[p]}[per][order]
    count = B * {"graph": 1, "frame": T, "dst": T * J}[per]
    members = [place[group == number] for number in range(count)]
    walk = torch.arange(B, device=device).repeat_interleave(count // max(B, 1))
    if not members:
        return walk, place.new_zeros(0, 0)
    return walk, torch.nn.utils.rnn.pad_sequence(members, batch_first=True, padding_value=-1)


def _shift(gamma: Tensor, is_open: Tensor) -> Tensor:
    """What is taken from a group's logits, that their exponentials stay in range.  # [G, 1]"""
    return (torch.where(is_open, gamma, 0).sum(1, keepdim=True) / is_open.sum(1, keepdim=True).clamp(min=1)).detach()


def _polynomials(gamma: Tensor, is_open: Tensor, k: int) -> list[Tensor]:
    """e_0 … e_k of the weights of the first i candidates of every group, for i from 0 to n.  # n + 1 times [G, k + 1]"""
    weights = torch.where(is_open, torch.exp(gamma - _shift(gamma, is_open)), 0)
    found = [torch.nn.functional.pad(1 + 0 * gamma.sum(1, keepdim=True), (0, k))]  # that without candidates there is a gradient too
    for w in weights.unbind(1):
        found.append(found[-1] + w[:, None] * torch.nn.functional.pad(found[-1][:, :-1], (1, 0)))
    return found


def _reference_draw(polynomials: list[Tensor], u: Tensor, certain: Tensor, is_open: Tensor, left: Tensor) -> Tensor:
    kept = certain.double().expand(u.shape).clone()  # [S, G, n]
    count = left[:, 0].expand(u.shape[:2])
    for i in range(u.shape[2] - 1, -1, -1):
        without, among = (e.expand(len(u), *e.shape) for e in (polynomials[i], polynomials[i + 1]))
        not_last = without.gather(2, count[..., None])[..., 0] / among.gather(2, count[..., None])[..., 0]
        chosen = (u[..., i] < 1 - not_last) & is_open[:, i] & (count > 0)
        kept[..., i] += chosen
        count = count - chosen.long()
    return kept


class _Perturbed(torch.autograd.Function):
    """The k largest of γ + noise, and the difference of two such states for a gradient."""

    @staticmethod
    def forward(ctx: Any, gamma: Tensor, noise: Tensor, certain: Tensor, is_open: Tensor, left: Tensor, lam: float) -> Tensor:
        ctx.save_for_backward(gamma, noise, certain, is_open, left)
        ctx.lam = lam
        return _Perturbed.state(gamma + noise, certain, is_open, left)

    @staticmethod
    def backward(ctx: Any, dkept: Tensor) -> Any:
        gamma, noise, certain, is_open, left = ctx.saved_tensors
        here, there = (_Perturbed.state(gamma + noise - step * dkept, certain, is_open, left) for step in (0, ctx.lam))
        return (here - there).sum(0) / ctx.lam, None, None, None, None, None

    @staticmethod
    def state(value: Tensor, certain: Tensor, is_open: Tensor, left: Tensor) -> Tensor:
        """1 where fewer than `left` values are larger, or as large and earlier."""
        value = torch.where(is_open, value, -torch.inf)
        n = value.shape[-1]
        earlier = torch.ones(n, n, dtype=torch.bool, device=value.device).tril(-1)
        here, others = value[..., :, None], value[..., None, :]
        before = ((others > here) | ((others == here) & earlier)).sum(-1)
        return (((before < left) & is_open) | certain).double()


def _kernels(backend: str, logits: Tensor, k: int, per: str, widest: int) -> Any:
    """Those of the backend; torch operations where a group has more counts than a program on a GPU has room for in registers."""
    most = min(k, widest * (logits.shape[2] if per == "graph" else 1))
    return k_subsets if backend == "triton" and most > _MOST_ON_GPU else compiled("sample_k_edges", backend) or k_subsets


@operation("sample_k_edges")
def _sample(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
    estimator: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _kernels(backend, logits, k, per, widest)
    return kernels.sample_k_edges(logits, sample_ids, lengths, GraphIndex(slots, bounds), seed, hops, k, per, widest, samples)


@_sample.register_fake
def _(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    kept, marginals = logits.new_empty(samples, *logits.shape), logits.new_empty(logits.shape, dtype=dtype)
    return kept, marginals, logits.new_empty(samples, len(logits), dtype=dtype)


@operation("sample_k_edges_backward")
def _sample_backward(
    logits: Tensor,
    kept: Tensor,
    marginals: Tensor,
    dkept: Tensor | None,
    dmarginals: Tensor | None,
    dlog_probability: Tensor | None,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    estimator: str,
    backend: str,
) -> Tensor:
    dlogits, toward = torch.zeros_like(marginals), dmarginals
    if dkept is not None and estimator != "reinforce":
        of_samples = dkept.sum(0, dtype=marginals.dtype)
        if estimator == "straight_through":
            dlogits = of_samples * marginals * (1 - marginals)
        else:
            toward = of_samples if toward is None else toward + of_samples
    if toward is not None:
        kernels = _kernels(backend, logits, k, per, widest)
        dlogits = dlogits + kernels.covariance_product(logits, toward, lengths, GraphIndex(slots, bounds), hops, k, per, widest)
    if dlog_probability is not None:
        scores = torch.einsum("sb,sbpt->bpt", dlog_probability, kept.to(marginals.dtype))
        dlogits = dlogits + scores - dlog_probability.sum(0)[:, None, None] * marginals
    exists = edge_exists(GraphIndex(slots, bounds).offset, logits.shape[2], lengths)
    return torch.where(exists & ~logits.isinf(), dlogits, 0).to(logits.dtype)


@_sample_backward.register_fake
def _(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_sample(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logits, _, *tensors, _, ctx.hops, ctx.k, ctx.per, ctx.widest, _, ctx.estimator, ctx.backend = inputs
    kept, marginals, _ = output
    ctx.set_materialize_grads(False)  # a result that nobody uses costs no gradient
    ctx.save_for_backward(logits, kept, marginals, *tensors)


def _sample_autograd(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    *saved, lengths, slots, bounds = ctx.saved_tensors
    dlogits = _sample_backward(*saved, *gradients, lengths, slots, bounds, ctx.hops, ctx.k, ctx.per, ctx.widest, ctx.estimator, ctx.backend)
    return dlogits, *[None] * 12


_sample.register_autograd(_sample_autograd, setup_context=_setup_sample)


@operation("perturbed_top_k")
def _perturb(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
    lam: float,
    backend: str,
) -> Tensor:
    kernels = compiled("sample_k_edges", backend) or k_subsets
    return kernels.perturbed_top_k(logits, None, sample_ids, lengths, GraphIndex(slots, bounds), seed, hops, k, per, widest, samples)


@_perturb.register_fake
def _(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
    *_: object,
) -> Tensor:
    return logits.new_empty(samples, *logits.shape)


@operation("perturbed_top_k_backward")
def _perturb_backward(
    dkept: Tensor,
    kept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    lam: float,
    backend: str,
) -> Tensor:
    kernels, nudge = compiled("sample_k_edges", backend) or k_subsets, -lam * dkept
    target = kernels.perturbed_top_k(logits, nudge, sample_ids, lengths, GraphIndex(slots, bounds), seed, hops, k, per, widest, len(kept))
    dlogits = (kept - target).sum(0, dtype=torch.promote_types(logits.dtype, torch.float32)) / lam
    return torch.where(logits.isinf(), 0, dlogits).to(logits.dtype)


@_perturb_backward.register_fake
def _(dkept: Tensor, kept: Tensor, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_perturb(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logits, *tensors, ctx.hops, ctx.k, ctx.per, ctx.widest, _, ctx.lam, ctx.backend = inputs
    ctx.save_for_backward(output, logits, *tensors)


def _perturb_autograd(ctx: Any, dkept: Tensor) -> tuple[Tensor | None, ...]:
    dlogits = _perturb_backward(dkept, *ctx.saved_tensors, ctx.hops, ctx.k, ctx.per, ctx.widest, ctx.lam, ctx.backend)
    return dlogits, *[None] * 12


_perturb.register_autograd(_perturb_autograd, setup_context=_setup_perturb)
