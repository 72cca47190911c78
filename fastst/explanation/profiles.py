"""Which slots and joints an explanation points at, over many walks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastst.graph import SkeletonGraph

_FLAT_BITS = 0.005  # information per edge under which keep probabilities are as good as equal


class SlotSums:
    """Sums of keep probabilities, kept edges and information over windows, slot by slot.

    Args:
        prior: the keep probability that the information is measured from; None: the mean one of every batch.
    """

    def __init__(self, graph: SkeletonGraph, prior: float | None) -> None:
        self.prior = prior
        self.probability, self.kept, self.existing = (torch.zeros(graph.num_slots, dtype=torch.float64) for _ in range(3))
        self.bits, self.windows = 0.0, 0

    def add(self, probability: Tensor, kept: Tensor, existing: Tensor) -> None:
        """All `[B, P, T]`, 0 where no edge exists."""
        for total, values in ((self.probability, probability), (self.kept, kept), (self.existing, existing)):
            total += values.double().sum((0, 2)).cpu()
        prior = self.prior if self.prior is not None else (probability.sum() / existing.sum().clamp(min=1)).item()
        self.bits += (_divergence(probability.double(), prior) * existing).sum().item()
        self.windows += len(kept)

    def profile(self) -> Tensor:
        """Every slot's mean keep probability.  # [P]"""
        return self.probability / self.existing.clamp(min=1)

    def kept_share(self) -> float:
        return (self.kept.sum() / self.existing.sum().clamp(min=1)).item()

    def information(self, prior: float | None) -> dict[str, Any]:
        """Divergence of the keep probabilities from the prior, in bits: an edge's mean, a window's sum, and whether that is next to nothing."""
        per_edge = self.bits / max(self.existing.sum().item(), 1)
        return {
            "bits_per_edge": per_edge,
            "bits_per_window": self.bits / max(self.windows, 1),
            "prior": prior,
            "flat": per_edge < _FLAT_BITS,
            "in_words": "flat: every edge is about as likely to be kept" if per_edge < _FLAT_BITS else "not flat: edges differ",
        }


def joint_profile(graph: SkeletonGraph, profile: Tensor, prior: float) -> dict[str, dict[str, float]]:
    """Joint -> what it sends and receives: mean keep probability, less the prior, of the slots from it to other joints, and from others to it."""
    src, dst = graph.src.long(), graph.dst.long()
    between = (src != dst).double()
    result = {}
    for j, joint in enumerate(graph.layout.joints):
        sides = {"sends": (src == j) * between, "receives": (dst == j) * between}
        result[joint] = {name: ((profile * side).sum() / side.sum().clamp(min=1)).item() - prior for name, side in sides.items()}
    return result


def _divergence(p: Tensor, prior: float) -> Tensor:
    """KL(Bernoulli(p) ‖ Bernoulli(prior)) in bits."""
    prior = min(max(prior, 1e-6), 1 - 1e-6)
    kept, removed = torch.special.xlogy(p, p / prior), torch.special.xlogy(1 - p, (1 - p) / (1 - prior))
    return (kept + removed) / math.log(2)
