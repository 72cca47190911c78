"""How far the graphs of several models of the same data agree."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.data.batches import even_windows
from fastst.explanation.profiles import joint_profile
from fastst.nn import GraphClassifier
from fastst.runs.load import Task
from fastst.runs.predictions import Asked, batches, evaluating


def agreement_of_seeds(models: list[GraphClassifier], task: Task, walks: list[int], asked: Asked) -> dict[str, Any]:
    """Correlation of the keep probabilities of every two models of the same walks: edge by edge, slot by slot, joint by joint; the mean of pairs."""
    graph, count = models[0].graph, len(models)
    windows = even_windows(task.lengths, walks, asked.frames)
    moments = torch.zeros(count + 1, count + 1, dtype=torch.float64)  # of (1, p of the first model, p of the second, ...) over edges
    slots, existing = torch.zeros(count, graph.num_slots, dtype=torch.float64), torch.zeros(graph.num_slots, dtype=torch.float64)
    for batch in batches(task, windows, asked.frames, asked.batch_size, next(models[0].parameters()).device):
        mask = models[0].source.existing(batch.poses, batch.lengths).bool()
        rows = [torch.ones(int(mask.sum()), dtype=torch.float64)]
        for number, model in enumerate(models):
            with evaluating(model), torch.no_grad():
                probability = model.probability(batch.poses, batch.lengths).cpu().double()
            slots[number] += probability.sum((0, 2))
            rows.append(probability[mask.cpu()])
        existing += mask.sum((0, 2)).cpu().double()
        table = torch.stack(rows)
        moments += table @ table.T
    profiles = slots / existing.clamp(min=1)
    return {"models": count, "of": "seeds", **_agreement(profiles, [_sent(graph, profile) for profile in profiles]), "edges": _of_moments(moments)}


def agreement_of_folds(audits: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The same of the folds' models, which see different walks: slot by slot and joint by joint."""
    if len(audits) < 2:
        return None
    profiles = torch.tensor([[slot["probability"] for slot in audit["slots"]] for audit in audits], dtype=torch.float64)
    joints = [np.array([[joint["sends"], joint["receives"]] for joint in audit["joints"].values()]).ravel() for audit in audits]
    return {"models": len(audits), "of": "folds", **_agreement(profiles, joints)}


def _sent(graph: Any, profile: Tensor) -> np.ndarray:
    return np.array([list(sides.values()) for sides in joint_profile(graph, profile, 0.0).values()]).ravel()


def _agreement(profiles: Tensor, joints: list[np.ndarray]) -> dict[str, float | None]:
    return {"slots": _mean_correlation(list(profiles.numpy())), "joints": _mean_correlation(joints)}


def _mean_correlation(rows: list[np.ndarray]) -> float | None:
    """None where a row does not vary."""
    if any(row.std() < 1e-12 for row in rows):
        return None
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(rows, 2)]))


def _of_moments(moments: Tensor) -> float | None:
    mean = moments[0, 1:] / moments[0, 0]
    covariance = moments[1:, 1:] / moments[0, 0] - mean[:, None] * mean
    if (covariance.diagonal() < 1e-12).any():
        return None
    scale = covariance.diagonal().sqrt()
    correlation = covariance / (scale[:, None] * scale)
    pairs = torch.ones_like(correlation).triu(1).bool()
    return correlation[pairs].mean().item()
