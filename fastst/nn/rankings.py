"""Graphs made of a ranking of edges: so many of the highest, of the lowest, or of any."""

from __future__ import annotations

import torch
from torch import Tensor


def ranking(scores: Tensor, existing: Tensor, dice: Tensor | None = None) -> Tensor:
    """The edges of every walk from the highest score to the lowest, those that don't exist last.

    Scores, existing and dice `[B, P, T]` -> numbers of edges `[B, P * T]`, an edge (p, t) being `p * T + t`. Dice are random numbers that say in
    which order equal scores come; without them slots come in their order.
    """
    ranked = torch.where(existing.bool(), scores, float("-inf")).flatten(1)
    if dice is None:
        return ranked.argsort(dim=1, descending=True, stable=True)
    thrown = dice.flatten(1).argsort(dim=1)
    return thrown.gather(1, ranked.gather(1, thrown).argsort(dim=1, descending=True, stable=True))


def first_of(order: Tensor, count: Tensor, like: Tensor) -> Tensor:
    """1 for the first `count [B]` edges of an order `[B, P * T]`, else 0, in the shape of `like`.  # [B, P, T]"""
    chosen = torch.arange(order.shape[1], device=order.device) < count[:, None]
    return torch.zeros_like(like).flatten(1).scatter(1, order, chosen.to(like.dtype)).view_as(like)


def share_of(count: Tensor, share: float | Tensor) -> Tensor:
    """That share of a number of edges `[B]`, rounded, and one at least where there are any."""
    return (count * share).round().clamp(min=1).minimum(count)
