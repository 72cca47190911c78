"""How much a walk's graph is allowed to say: the information term of GSAT (Miao et al., ICML 2022),
which `sample_from_embeddings` gives beside the sample."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastst.graph import Graph
from fastst.graph_index import edge_exists
from fastst.sampling import Sampling

_LIMIT = 750.0  # e^-750 is 0, in float64 too, and numbers up to here have products with 0
_TINY = 1e-37  # of a smaller probability the logarithm is multiplied by nothing


def reference(logits: Tensor, graph: Graph, lengths: Tensor | None, prior: Tensor, sampling: Sampling) -> Tensor:
    """The mean of KL(Bernoulli(p) ‖ Bernoulli(r)) = p log(p / r) + (1 − p) log((1 − p) / (1 − r))
    over a walk's edges, p = 1 − exp(−e^γ / β) or sigmoid(γ); 0 for a walk without edges.  # [B]
    """
    exists = edge_exists(graph.index(logits.device).offset, logits.shape[2], lengths)  # [B, P, T]
    r = prior.to(logits.dtype)
    # A shifted logit of ±80 stands for ±∞: there p is 0 or 1, and its gradient is 0.
    if sampling.noise == "gumbel":
        rate = torch.exp((logits - math.log(sampling.beta)).clamp(-80, 80))
        p, q = -torch.expm1(-rate), torch.exp(-rate)
        log_p, log_q = torch.log(p), -rate
    else:
        gamma = logits.clamp(-80, 80)
        p, q = torch.sigmoid(gamma), torch.sigmoid(-gamma)
        log_p, log_q = logsigmoid(gamma), logsigmoid(-gamma)
    divergence = p * (log_p - torch.log(r)) + q * (log_q - torch.log1p(-r))
    edges = exists.sum((1, 2)).clamp(min=1)
    return torch.where(exists, divergence, 0).sum((1, 2)) / edges


def count_edges(offset: Tensor, T: int, lengths: Tensor | None) -> Tensor:
    """The edges of a walk, and 1 for a walk without any: slot p has length − |offset[p]| of them.

    # [B], or [] without lengths
    """
    frames = T if lengths is None else lengths.clamp(max=T)[:, None]
    return (frames - offset.abs()).clamp(min=0).sum(-1).clamp(min=1)


def divergence(logits: Tensor, prior: Tensor, sampling: Sampling) -> Tensor:
    """KL(Bernoulli(p) ‖ Bernoulli(r)) of every edge.  # [B, P, T]"""
    p, q, log_p, log_q = _probabilities(logits, sampling)
    log_r, log_s = _logarithms(prior, logits)
    return p * (log_p - log_r) + q * (log_q - log_s)


def divergence_slope(logits: Tensor, prior: Tensor, sampling: Sampling) -> Tensor:
    """Its derivative (logit p − logit r) · dp/dγ.  # [B, P, T]"""
    p, q, log_p, log_q = _probabilities(logits, sampling)
    log_r, log_s = _logarithms(prior, logits)
    slope = q * (-log_q if sampling.noise == "gumbel" else p)
    return (log_p - log_q - log_r + log_s) * slope


def _probabilities(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, 1 − p and their logarithms, which are finite where p is 0 or 1."""
    if sampling.noise == "logistic":
        gamma = logits.clamp(-_LIMIT, _LIMIT)
        return gamma.sigmoid(), (-gamma).sigmoid(), logsigmoid(gamma), logsigmoid(-gamma)
    rate = torch.exp((logits - math.log(sampling.beta)).clamp(max=math.log(_LIMIT)))  # clamped first: the gradient at ∞ is 0, not 0 · ∞
    p = -torch.expm1(-rate)
    return p, torch.exp(-rate), p.clamp(min=_TINY).log(), -rate


def _logarithms(prior: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """log r and log(1 − r)."""
    r = prior.to(like.dtype)
    return r.log(), torch.log1p(-r)
