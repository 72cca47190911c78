"""Subsets of k of a group's edges in torch operations: the dynamic programme that `fastst.cpu.sample_k_edges` explains, for all groups at once.

A group's edges lie in the last dimension, those that are none with a logit of -∞. A loop goes over that dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastst.graph_index import GraphIndex, edge_exists
from fastst.ops.random import edge_uniforms

_FURTHEST = 300.0  # e^-300 from the k-th largest weight a candidate is certain to be in or out
_EPS = 1e-10


class _Groups(NamedTuple):
    """Which edges are in a group.

    Attributes:
        table: `[R, D]` slots of every row of groups; P where there is none.
        P: how many slots there are.
        whole: a group has all frames of its slots, not one.
    """

    table: Tensor
    P: int
    whole: bool

    def take(self, values: Tensor, missing: float) -> Tensor:
        """Edge values `[..., B, P, T]` as `[..., B, G, n]`."""
        rows = torch.cat((values, values.new_full((*values.shape[:-2], 1, values.shape[-1]), missing)), -2)[..., self.table, :]
        return rows.flatten(-2) if self.whole else rows.movedim(-1, -3).flatten(-3, -2)

    def put_back(self, values: Tensor, T: int) -> Tensor:
        """`[..., B, G, n]` as edge values `[..., B, P, T]`, 0 where there are none."""
        R, D = self.table.shape
        rows = values.unflatten(-1, (D, T)) if self.whole else values.unflatten(-2, (T, R)).movedim(-3, -1)
        edges = values.new_zeros(*values.shape[:-2], self.P + 1, T)
        edges[..., self.table.flatten(), :] = rows.flatten(-3, -2)
        return edges[..., : self.P, :]


def _groups(index: GraphIndex, per: str, widest: int) -> _Groups:
    P, device = index.num_slots, index.slots.device
    if per == "dst":
        ptr, order = index.dst_ptr.long(), index.dst_order.long()
        dst = index.dst.long()[order]
        table = torch.full((len(ptr) - 1, widest), P, device=device)
        table[dst, torch.arange(P, device=device) - ptr[dst]] = order
    else:
        table = torch.arange(P, device=device)[None]
    is_loop = torch.cat(((index.src == index.dst) & (index.offset == 0), torch.zeros(1, dtype=torch.bool, device=device)))
    return _Groups(torch.where(is_loop[table], P, table), P, per == "graph")


class _Candidates(NamedTuple):
    theta: Tensor  # [B, G, n], less the k-th largest of the group; -∞ for an edge that can't be kept
    taken: Tensor  # [B, G], how many are kept
    no_number: Tensor  # [B, G, n], the edges of groups in which a logit is NaN


def _candidates(logits: Tensor, lengths: Tensor | None, index: GraphIndex, k: int, groups: _Groups) -> _Candidates:
    exists = edge_exists(index.offset, logits.shape[2], lengths)
    theta = groups.take(torch.where(exists, logits.double(), -torch.inf), -torch.inf)
    is_nan = theta.isnan().any(-1, keepdim=True)
    no_number = is_nan & (theta != -torch.inf)
    theta = torch.where(is_nan, -torch.inf, theta)
    taken = (theta > -torch.inf).sum(-1).clamp(max=k)
    if not theta.shape[-1]:
        return _Candidates(theta, taken, no_number)
    middle = theta.sort(-1, descending=True).values.gather(-1, (taken - 1).clamp(min=0)[..., None])
    relative = torch.where(theta == middle, 0, theta - middle)
    return _Candidates(torch.where(theta == -torch.inf, theta, relative), taken, no_number)


def _chances(theta: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """q[i, ..., j]: the chance that candidate i is kept where j of candidates 0 … i are; and e_j / e_{j-1} of all.  # j from 0 to `most`"""
    q = theta.new_zeros(theta.shape[-1], *theta.shape[:-1], most + 1)
    ratio = theta.new_zeros(*theta.shape[:-1], most)  # j from 1
    weights = torch.where(theta == -torch.inf, 0, theta.clamp(-_FURTHEST, _FURTHEST).exp())
    for i, w in enumerate(weights[..., None].unbind(-2)):
        both = torch.where(w > 0, ratio + w, 1)
        q[i, ..., 1:] = w / both
        stay = torch.where(w > 0, ratio / both, 1)
        ratio = (ratio + w) * torch.cat((torch.ones_like(w), stay[..., :-1]), -1)[..., :most]
    return q, ratio


def _step_back(reach: Tensor, chance: Tensor) -> Tensor:
    """What flows to the counts before a candidate from those after it."""
    stays, comes = reach * (1 - chance), reach * chance
    return stays + torch.cat((comes[..., 1:], torch.zeros_like(comes[..., :1])), -1)


def _end_of_chain(taken: Tensor, most: int) -> Tensor:
    return torch.nn.functional.one_hot(taken, most + 1).double()


def sample_k_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Kept edges, marginals and log-probabilities.  # [S, B, P, T], [B, P, T], [S, B]"""
    groups, (_, P, T) = _groups(index, per, widest), logits.shape
    theta, taken, no_number = _candidates(logits, lengths, index, k, groups)
    n = theta.shape[-1]
    most = min(k, n)
    q, ratio = _chances(theta, most)
    u = groups.take(edge_uniforms(seed, sample_ids, samples, P, T, hops == 0), 1.0)
    reach, count = _end_of_chain(taken, most), taken.expand(samples, *taken.shape)
    kept, marginals = theta.new_zeros(samples, *theta.shape), torch.zeros_like(theta)
    for i in range(n - 1, -1, -1):
        marginals[..., i] = (reach * q[i]).sum(-1)
        reach = _step_back(reach, q[i])
        chosen = u[..., i] < q[i].expand(samples, *q[i].shape).gather(-1, count[..., None])[..., 0]
        kept[..., i], count = chosen, count - chosen.long()
    used = torch.arange(1, most + 1, device=logits.device) <= taken[..., None]
    whole = torch.where(used, ratio, 1).log().sum(-1)
    drawn = torch.where(kept > 0, theta.clamp(-_FURTHEST, _FURTHEST), 0).sum(-1)
    log_probability = torch.where(no_number.any(-1), torch.nan, drawn - whole).sum(-1)
    kept, marginals = (torch.where(no_number, torch.nan, values) for values in (kept, marginals.clamp(max=1)))
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return groups.put_back(kept, T).to(logits.dtype), groups.put_back(marginals, T).to(dtype), log_probability.to(dtype)


def covariance_product(logits: Tensor, toward: Tensor, lengths: Tensor | None, index: GraphIndex, hops: int, k: int, per: str, widest: int) -> Tensor:
    """The covariance matrix of a group's edges times `toward`: E[z G] - E[z] E[G], G = Σ toward z.  # [B, P, T]"""
    groups, T = _groups(index, per, widest), logits.shape[2]
    theta, taken, no_number = _candidates(logits, lengths, index, k, groups)
    most, gains = min(k, theta.shape[-1]), torch.where(theta == -torch.inf, 0, groups.take(toward.double(), 0.0))
    q, _ = _chances(theta, most)
    values = torch.zeros_like(q)  # [i, ..., j]: what candidates 0 … i - 1 are expected to bring, where j of them are kept
    value = q.new_zeros(*taken.shape, most + 1)
    for i, gain in enumerate(gains[..., None].unbind(-2)):
        values[i] = value
        value = q[i] * (torch.cat((torch.zeros_like(gain), value[..., :-1]), -1) + gain) + (1 - q[i]) * value
    expected = value.gather(-1, taken[..., None])
    reach = _end_of_chain(taken, most)
    later = torch.zeros_like(reach)  # of what comes after candidate i, the share in E[G] that goes through each count
    product = torch.zeros_like(theta)
    for i in range(theta.shape[-1] - 1, -1, -1):
        gain, before = gains[..., i, None], torch.cat((torch.zeros_like(expected), values[i, ..., :-1]), -1)
        product[..., i] = (q[i] * (reach * (before + gain - expected) + later)).sum(-1)
        comes = (reach * gain + later) * q[i]
        later = later * (1 - q[i]) + torch.cat((comes[..., 1:], torch.zeros_like(expected)), -1)
        reach = _step_back(reach, q[i])
    product = groups.put_back(torch.where(no_number, torch.nan, product), T)
    return product.to(torch.promote_types(logits.dtype, torch.float32))


def perturbed_top_k(
    logits: Tensor,
    nudge: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    hops: int,
    k: int,
    per: str,
    widest: int,
    samples: int,
) -> Tensor:
    """1 at the k largest logit + Gumbel noise + nudge of every group, of equal ones at the first.  # [S, B, P, T]"""
    groups, (_, P, T) = _groups(index, per, widest), logits.shape
    theta, taken, no_number = _candidates(logits, lengths, index, k, groups)
    value = theta + gumbel(groups.take(edge_uniforms(seed, sample_ids, samples, P, T, hops == 0), 0.0))
    if nudge is not None:
        value = value + torch.where(theta > -torch.inf, groups.take(nudge.double(), 0.0), 0)
    no_number = no_number | (value.isnan().any(-1, keepdim=True) & (theta > -torch.inf))
    order = torch.where(theta > -torch.inf, value, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    first = (torch.arange(value.shape[-1], device=value.device) < taken[..., None]).expand(value.shape)
    kept = torch.zeros_like(value).scatter(-1, order, first.to(value.dtype))
    return groups.put_back(torch.where(no_number, torch.nan, kept), T).to(logits.dtype)


def gumbel(u: Tensor) -> Tensor:
    """-log(-log(u + ε) + ε) in float64, of uniform numbers."""
    return -torch.log(_EPS - torch.log(u.double() + _EPS))
