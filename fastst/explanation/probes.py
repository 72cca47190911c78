"""What a straight line can tell: logistic regression on a few numbers of every walk, as a measure of what the numbers carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastst.data.load import Task
from fastst.runs.metrics import classification_metrics

_RIDGE = 1e-2


def pose_features(task: Task, walks: list[int]) -> np.ndarray:
    """Mean and standard deviation of every joint's coordinates over a walk.  # [walks, 2 * J * D]"""
    poses = (task.walks.poses[i] for i in walks)
    return np.array([np.concatenate((walk.mean(0).ravel(), walk.std(0).ravel())) for walk in poses])


def probe(train: np.ndarray, train_classes: np.ndarray, test: np.ndarray, test_classes: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Balanced accuracy and macro F1 of a logistic regression, trained on some people's features `[n, F]` and tested on others'.

    Features are standardised, classes weigh the same, and weights are kept small (ridge).
    """
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-9, scale, 1)
    x, unseen = (torch.from_numpy((features - mean) / scale).double() for features in (train, test))
    weight = _fit(x, torch.from_numpy(train_classes).long(), num_classes)
    scores = classification_metrics((unseen @ weight[:-1] + weight[-1]).softmax(1), torch.from_numpy(test_classes).long())
    return {name: scores[name] for name in ("balanced_accuracy", "macro_f1")}


def _fit(x: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Weights, and in the last row biases.  # [F + 1, classes]"""
    weight = torch.zeros(x.shape[1] + 1, num_classes, dtype=x.dtype, requires_grad=True)
    balance = len(classes) / torch.bincount(classes, minlength=num_classes).clamp(min=1).double()
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x @ weight[:-1] + weight[-1], classes, weight=balance) + _RIDGE * weight[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach()
