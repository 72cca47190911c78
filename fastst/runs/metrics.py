"""What is measured on a set of walks: classification from `torchmetrics`, and what the sampled graphs look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_f1_score, multiclass_recall

from fastst.graph import SkeletonGraph


def classification_metrics(probabilities: Tensor, classes: Tensor) -> dict[str, Any]:
    """Macro F1, balanced accuracy (mean recall of the classes that occur), accuracy and the confusion matrix (rows true, columns predicted).

    Probabilities `[n, classes]`, true classes `[n]`.
    """
    K, predicted = probabilities.shape[1], probabilities.argmax(1)
    recall = multiclass_recall(predicted, classes, K, average="none")
    occurs = torch.bincount(classes, minlength=K) > 0
    return {
        "macro_f1": multiclass_f1_score(predicted, classes, K, average="macro").item(),
        "balanced_accuracy": recall[occurs].mean().item(),
        "accuracy": (predicted == classes).double().mean().item(),
        "confusion": multiclass_confusion_matrix(predicted, classes, K).tolist(),
    }


def mean_over_groups(values: Tensor, group: np.ndarray, count: int) -> Tensor:
    """The mean of the rows of every group 0 … count - 1: of a walk's windows, or of a person's walks.  # [n, K] -> [count, K]"""
    index = torch.from_numpy(group)
    total = values.new_zeros(count, values.shape[1]).index_add_(0, index, values)
    return total / torch.bincount(index, minlength=count).clamp(min=1)[:, None]


class KeptEdges:
    """Counts of kept and of existing edges, for every class and slot, over batches of sampled graphs."""

    def __init__(self, graph: SkeletonGraph, class_names: Sequence[str]) -> None:
        self.graph, self.class_names = graph, list(class_names)
        self.kept = torch.zeros(len(class_names), graph.num_slots, dtype=torch.float64)
        self.existing = torch.zeros_like(self.kept)

    def add(self, kept: Tensor, classes: Tensor, lengths: Tensor | None) -> None:
        """One batch: kept `[B, P, T]`, classes `[B]`, lengths `[B]`."""
        existing = self.graph.edge_mask(kept.shape[2], lengths).expand(kept.shape)
        classes = classes.cpu()
        self.kept.index_add_(0, classes, kept.sum(2).cpu().double())
        self.existing.index_add_(0, classes, existing.sum(2).cpu().double())

    def include(self, other: KeptEdges) -> None:
        """The counts of another one, of the same graph and classes, beside these."""
        self.kept += other.kept
        self.existing += other.existing

    def share(self) -> float:
        return _share(self.kept.sum(), self.existing.sum())

    def share_per_class(self) -> dict[str, float]:
        return {name: _share(self.kept[c].sum(), self.existing[c].sum()) for c, name in enumerate(self.class_names)}

    def summary(self) -> dict[str, Any]:
        return {
            "kept_share": self.share(),
            "kept_share_per_class": self.share_per_class(),
        }


def _share(part: Tensor, whole: Tensor) -> float:
    return (part / whole.clamp(min=1)).item()
