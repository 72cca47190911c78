"""Which slots and joints an explanation points at, over many walks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.graph import SkeletonGraph

_FLAT_BITS = 0.005  # bits per edge beyond the mean under which keep probabilities are as good as equal
_RESAMPLES, _INSIDE = 2000, 95  # percent
SIDES = ("sends", "receives")


class SlotSums:
    """Sums of keep probabilities, of kept edges and of what the probabilities say, over windows, slot by slot."""

    def __init__(self, graph: SkeletonGraph) -> None:
        self.probability, self.kept, self.existing = (torch.zeros(graph.num_slots, dtype=torch.float64) for _ in range(3))
        self.negative_entropy, self.windows = 0.0, 0  # Σ p log p + (1 − p) log (1 − p), in bits

    def add(self, probability: Tensor, kept: Tensor, existing: Tensor) -> None:
        """All `[B, P, T]`, 0 where no edge exists."""
        probability, kept, existing = (values.cpu().double() for values in (probability, kept, existing))  # not every device has float64
        for total, values in ((self.probability, probability), (self.kept, kept), (self.existing, existing)):
            total += values.sum((0, 2))
        p = probability
        said = torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)
        self.negative_entropy += (said * existing).sum().item() / math.log(2)
        self.windows += len(kept)

    def profile(self) -> Tensor:
        """Every slot's mean keep probability.  # [P]"""
        return self.probability / self.existing.clamp(min=1)

    def kept_share(self) -> float:
        return (self.kept.sum() / self.existing.sum().clamp(min=1)).item()

    def information(self, prior: float | None) -> dict[str, Any]:
        """Mean KL(Bernoulli(p) ‖ Bernoulli(r)) of an edge and its sum over a window, in bits; r the prior, or without one the mean of all p.

        Edges differ by what they say beyond that mean, which tells whether they are all alike (flat).
        """
        edges = max(self.existing.sum().item(), 1)
        mean = self.probability.sum().item() / edges
        per_edge = self._from(mean if prior is None else prior) / edges
        differ = self._from(mean) / edges
        return {
            "bits_per_edge": per_edge,
            "bits_per_window": per_edge * edges / max(self.windows, 1),
            "bits_of_difference": differ,
            "prior": prior,
            **flatness(differ),
        }

    def _from(self, reference: float) -> float:
        """The divergences from one probability, added up."""
        r = min(max(reference, 1e-9), 1 - 1e-9)
        kept, edges = self.probability.sum().item(), self.existing.sum().item()
        return max(self.negative_entropy - kept * math.log2(r) - (edges - kept) * math.log2(1 - r), 0.0)


def flatness(bits_of_difference: float) -> dict[str, Any]:
    """Whether all edges are about as likely to be kept, as a flag and in words."""
    flat = bits_of_difference < _FLAT_BITS
    return {"flat": flat, "in_words": "flat: every edge is about as likely to be kept" if flat else "not flat: edges differ"}


def joint_profile(graph: SkeletonGraph, profile: Tensor, prior: float) -> dict[str, dict[str, float]]:
    """Joint -> what it sends and receives: mean keep probability, less the prior, of the slots from it to other joints, and from others to it."""
    src, dst = graph.src.long(), graph.dst.long()
    between = (src != dst).double()
    result = {}
    for j, joint in enumerate(graph.layout.joints):
        sides = {"sends": (src == j) * between, "receives": (dst == j) * between}
        result[joint] = {name: ((profile * side).sum() / side.sum().clamp(min=1)).item() - prior for name, side in sides.items()}
    return result


class JointShares:
    """How many of its edges every joint keeps, person by person: of those that it sends to other joints, and of those that it receives from them."""

    def __init__(self, graph: SkeletonGraph, people: int) -> None:
        self.joints = graph.layout.joints
        src, dst = graph.src.long(), graph.dst.long()
        between = src != dst
        joints = torch.arange(len(self.joints))[:, None]
        self.of = torch.stack([(src == joints) & between, (dst == joints) & between]).double()  # [2, J, P]
        self.between = between.double()
        self.kept, self.existing = (torch.zeros(people, graph.num_slots, dtype=torch.float64) for _ in range(2))

    def add(self, kept: Tensor, existing: Tensor, person: Tensor) -> None:
        """Kept and existing edges `[B, P, T]` of the people numbered `person [B]`."""
        for total, values in ((self.kept, kept), (self.existing, existing)):
            total.index_add_(0, person, values.double().sum(2).cpu())

    def summary(self) -> dict[str, Any]:
        """Means over people with the 95 % interval of a bootstrap over people, and the share that is kept of all these edges: what every joint would
        have if none stood out.

        Returns:
            {"people", "expected", "joints": joint -> {"sends": [mean, low, high], "receives": [mean, low, high]}}
        """
        kept, existing = (torch.einsum("sjp,np->nsj", self.of, counts).numpy() for counts in (self.kept, self.existing))
        shares = kept / np.maximum(existing, 1)  # [people, 2, J]
        people = len(shares)
        drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), _RESAMPLES) / people
        outside = (100 - _INSIDE) / 2
        low, high = np.percentile(np.tensordot(drawn, shares, 1), [outside, 100 - outside], axis=0)
        rows = np.stack([shares.mean(0), low, high], axis=2)  # [2, J, 3]
        overall = (self.kept @ self.between) / (self.existing @ self.between).clamp(min=1)
        return {
            "people": people,
            "expected": overall.mean().item(),
            "joints": {joint: {side: rows[s, j].tolist() for s, side in enumerate(SIDES)} for j, joint in enumerate(self.joints)},
        }
