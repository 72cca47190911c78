"""How well an explanation finds what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from fastst.data.planted import Planted, planted_edges
from fastst.graph import SkeletonGraph
from fastst.nn.rankings import first_of, ranking, share_of

MEASURES = ("roc_auc", "average_precision", "precision_5", "r_precision")
_TOP = 0.05


class TruthScores:
    """Scores of edges against the truth, window by window; the mean is taken over windows.

    Args:
        graph: the initial graph.
        truth: the planted joints and pairs.
    """

    def __init__(self, graph: SkeletonGraph, truth: Planted) -> None:
        self.truth = truth
        self.edges = planted_edges(graph, truth.joints, truth.pairs)
        self.rows: dict[str, list[dict[str, float]]] = {name: [] for name in self.edges}
        self.frames: dict[str, list[float]] = {"roc_auc": [], "roc_auc_of_probability": []}

    def add(self, scores: Tensor, existing: Tensor, dice: Tensor) -> None:
        """Scores, existing and dice (random numbers, for edges with equal scores), all `[B, P, T]`."""
        order, count = ranking(scores, existing, dice), existing.sum((1, 2))
        top = first_of(order, share_of(count, _TOP), existing).bool()
        for name, slots in self.edges.items():
            planted = slots.to(scores.device)[:, None] & existing.bool()  # [B, P, T]
            total = planted.sum((1, 2))
            as_many = first_of(order, total, existing).bool()
            for b in range(len(scores)):
                if 0 < total[b] < count[b]:
                    self.rows[name].append(_measures(scores[b], planted[b], existing[b].bool(), top[b], as_many[b]))

    def add_frames(self, evidence: Tensor, probability: Tensor, planted: np.ndarray) -> None:
        """One window's frames: what they say for the predicted class, how likely their edges are kept, and whether they were planted, all `[T]`."""
        if 0 < planted.sum() < len(planted):
            wanted = torch.from_numpy(planted).to(evidence.device).long()
            for name, scores in zip(self.frames, (evidence, probability), strict=True):
                self.frames[name].append(binary_auroc(scores, wanted).item())

    def summary(self) -> dict[str, Any]:
        return {
            "kind": self.truth.kind,
            "joints": list(self.truth.joints),
            "pairs": [list(pair) for pair in self.truth.pairs],
            "edges": {name: _mean(rows) for name, rows in self.rows.items()},
            "frames": {name: float(np.mean(values)) for name, values in self.frames.items()} if self.frames["roc_auc"] else None,
        }


def _measures(scores: Tensor, planted: Tensor, existing: Tensor, top: Tensor, as_many: Tensor) -> dict[str, float]:
    """Of one window, all `[P, T]`."""
    found, wanted = scores[existing], planted[existing].long()
    return {
        "roc_auc": binary_auroc(found, wanted).item(),
        "average_precision": binary_average_precision(found, wanted).item(),
        "precision_5": planted[top].double().mean().item(),
        "r_precision": planted[as_many].double().mean().item(),
        "share": wanted.double().mean().item(),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float] | None:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else None
