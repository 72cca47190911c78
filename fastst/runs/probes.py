"""What a straight line can tell: logistic regression on a few numbers of every walk. A measure of what the numbers carry, and what a model has to
be better than."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fastst.data.load import Task
from fastst.runs.metrics import classification_metrics

_RIDGE = 1e-2
_MEASURES = ("balanced_accuracy", "macro_f1", "accuracy")


def pose_features(task: Task, walks: list[int]) -> np.ndarray:
    """Mean and standard deviation of every joint's coordinates over a walk.  # [walks, 2 * J * D]"""
    poses = (task.walks.poses[i] for i in walks)
    return np.array([np.concatenate((walk.mean(0).ravel(), walk.std(0).ravel())) for walk in poses])


def pose_probabilities(task: Task, train: list[int], test: list[int]) -> Tensor:
    """What a logistic regression on `pose_features` says of the walks to test on.  # [test walks, classes]"""
    return regression(pose_features(task, train), pose_features(task, test), task.classes[train], len(task.class_names))


def baselines(logistic_regression: Tensor, classes: Tensor) -> dict[str, dict[str, float]]:
    """Scores that a model has to be better than: of what `pose_probabilities` says, and of the best guess that is always the same.

    Probabilities `[n, classes]`, true classes `[n]`.
    """
    guess = constant_guess(classes, logistic_regression.shape[1])
    return {"constant": guess, "logistic_regression": _scores(logistic_regression, classes)}


def constant_guess(classes: Tensor, num_classes: int) -> dict[str, float]:
    """Scores of guessing the most frequent of these classes `[n]` every time."""
    guess = torch.bincount(classes, minlength=num_classes).argmax()
    return _scores(one_hot(guess, num_classes).double().expand(len(classes), -1), classes)


def probe(train: np.ndarray, train_classes: np.ndarray, test: np.ndarray, test_classes: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Balanced accuracy and macro F1 of a logistic regression, trained on some people's features `[n, F]` and tested on others'."""
    scores = _scores(regression(train, test, train_classes, num_classes), torch.from_numpy(test_classes).long())
    return {name: scores[name] for name in ("balanced_accuracy", "macro_f1")}


def regression(train: np.ndarray, test: np.ndarray, train_classes: np.ndarray, num_classes: int) -> Tensor:
    """What a logistic regression says of the walks to test on, trained on features `[n, F]` of others.  # [test walks, classes]

    Features are standardised, classes weigh the same, and weights are kept small (ridge).
    """
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-9, scale, 1)
    x, unseen = (torch.from_numpy((features - mean) / scale).double() for features in (train, test))
    weight = _fit(x, torch.from_numpy(train_classes).long(), num_classes)
    return (unseen @ weight[:-1] + weight[-1]).softmax(1)


def _scores(probabilities: Tensor, classes: Tensor) -> dict[str, float]:
    scores = classification_metrics(probabilities, classes)
    return {name: scores[name] for name in _MEASURES}


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
