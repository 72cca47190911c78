"""The operations as anybody would write them in torch: gather, compute, scatter, in the dtype at hand, with torch's own gradients.

Their error in low precision is the measure of fastst's, and in float64 they check the loops' hand-made derivatives. Inputs are as in `loops`;
`at` holds the existing edges as columns of numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from .topology import Edge


class Places(NamedTuple):
    """The numbers of all existing edges.  # [edges] each"""

    b: Tensor
    p: Tensor
    t: Tensor
    s: Tensor
    src: Tensor
    dst: Tensor

    @staticmethod
    def of(edges: list[Edge]) -> Places:
        return Places(*torch.tensor(edges, dtype=torch.int64).view(-1, 6).unbind(1))

    @property
    def edge(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.b, self.p, self.t

    @property
    def sender(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.b, self.s, self.src

    @property
    def receiver(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.b, self.t, self.dst


def _scatter(shape: tuple[int, ...], places: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    return rows.new_zeros(shape).index_put(places, rows, accumulate=True)


def propagate(at: Places, exists: Tensor, shape: tuple[int, ...], x: Tensor, weight: Tensor, own: Tensor | None) -> Tensor:
    """exists: `[B, T, 1]`, which frames do."""
    factor = weight[at.edge].repeat_interleave(x.shape[-1] // weight.shape[-1], -1)
    y = _scatter(shape, at.receiver, factor * x[at.sender])
    return y if own is None else y + torch.where(exists[..., None], own[..., None] * x, 0)


def message(at: Places, shape: tuple[int, ...], x: Tensor, attr: Tensor, weight: Tensor, slope: float) -> Tensor:
    return _scatter(shape, at.receiver, weight[at.edge][:, None] * leaky_relu(x[at.sender] + attr[at.edge], slope))


def edge_logits(at: Places, shape: tuple[int, ...], q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    return _scatter(shape, at.edge, (q[at.receiver] * k[at.sender]).sum(-1) + bias[at.p])


def gcn_norm(at: Places, exists: Tensor, kept: Tensor, looped: Tensor, loop: float) -> tuple[Tensor, Tensor]:
    own = torch.where(exists, loop * looped, 0).to(kept.dtype)  # [B, T, J]
    degree = own + _scatter(own.shape, at.receiver, kept[at.edge])
    root = torch.where(degree > 0, torch.where(degree > 0, degree, 1).rsqrt(), 0)
    return _scatter(kept.shape, at.edge, root[at.receiver] * kept[at.edge] * root[at.sender]), own * root * root


def attend(
    at: Places, shape: tuple[int, ...], x_src: Tensor, x_dst: Tensor, att: Tensor, attr: Tensor | None, weight: Tensor, factor: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    hidden = x_src[at.sender] + x_dst[at.receiver] + (0 if attr is None else attr[at.edge])
    score, weight = (leaky_relu(hidden, slope).unflatten(-1, att.shape) * att).sum(-1), weight[at.edge][:, None]
    nodes = (*shape[:3], len(att))
    node = (at.b * shape[1] + at.t) * shape[2] + at.dst
    weighing = torch.where(weight > 0, score, -torch.inf).detach()
    lowest = score.new_full((nodes[0] * nodes[1] * nodes[2], len(att)), -torch.inf)
    largest = lowest.scatter_reduce(0, node[:, None].expand(score.shape), weighing, "amax").view(nodes)
    power = (score - torch.where(largest.isinf(), 0, largest)[at.receiver]).exp()
    total = _scatter(nodes, at.receiver, weight * power)[at.receiver]
    alpha = torch.where(total > 0, weight * power / torch.where(total > 0, total, 1), 0) * factor[at.edge]
    y = _scatter(shape, at.receiver, alpha.repeat_interleave(shape[-1] // len(att), -1) * x_src[at.sender])
    return y, _scatter(factor.shape, at.edge, alpha)


def mean_average_distance(nodes: Tensor, inside: Tensor) -> Tensor:
    """nodes `[B, N, C]`; inside `[B, N]`."""
    length = torch.where(inside[..., None], nodes, 0).square().sum(-1, keepdim=True)
    zero = length == 0
    unit = torch.where(zero, 0, torch.where(inside[..., None], nodes, 0) / torch.where(zero, 1, length).sqrt())
    count = inside.sum(1)
    cosines = (unit @ unit.transpose(1, 2)).sum((1, 2)) / count.clamp(min=1).square()
    return torch.where(count > 0, 1 - cosines, 0 * cosines)


def keep_probability(logits: Tensor, beta: float, logistic: bool) -> Tensor:
    gamma = logits.clamp(-80, 80)
    return torch.sigmoid(gamma) if logistic else 1 - torch.exp(-torch.exp(gamma) / beta)


def sample_edges(
    at: Places, uniform: Tensor, logits: Tensor, free: Tensor, beta: float, tau: float, eps: float, logistic: bool, sigmoid: bool
) -> Tensor:
    """free: `[P]`, 0 for loops. The forward is what loops say; here are the gradients."""
    gamma, u = logits[at.edge], uniform[at.edge].to(torch.promote_types(logits.dtype, torch.float32))
    noise = torch.log(u + eps) - torch.log(1 - u + eps) if logistic else -torch.log(-beta * torch.log(u + eps) + eps)
    z = (gamma + noise.to(gamma.dtype)) / tau
    soft = torch.where(gamma.isinf() | ~free[at.p], 0, torch.sigmoid(z) if sigmoid else z)
    kept = torch.where(free[at.p], z > 0, True).to(z.dtype)
    return _scatter(logits.shape, at.edge, kept + (soft - soft.detach()))


def information(at: Places, logits: Tensor, free: Tensor, prior: float, beta: float, logistic: bool) -> Tensor:
    gamma = logits[at.edge]
    certain = gamma.isinf()
    p = keep_probability(gamma, beta, logistic)
    p, q = (
        torch.where(certain, 0.5, p).clamp(min=torch.finfo(p.dtype).tiny),
        torch.where(certain, 0.5, torch.sigmoid(-gamma) if logistic else torch.exp(-torch.exp(gamma) / beta)),
    )
    q = q.clamp(min=torch.finfo(q.dtype).tiny)
    divergence = p * torch.log(p / prior) + q * torch.log(q / (1 - prior))
    limit = torch.where(gamma > 0, 1 / prior, 1 / (1 - prior)).log().to(gamma.dtype)
    divergence = torch.where(free[at.p], torch.where(certain, limit, divergence), 0)
    walks = (len(logits),)
    return _scatter(walks, (at.b,), divergence) / _scatter(walks, (at.b,), free[at.p].to(gamma.dtype)).clamp(min=1)
