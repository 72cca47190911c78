"""What a straight line can tell: logistic regression on a few numbers of every walk. A measure of what the numbers carry, and what a model has to
be better than."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fastst.errors import UserError
from fastst.runs.folder import read_json, write_json
from fastst.runs.load import Task
from fastst.runs.metrics import classification_metrics

_FILE = "logistic_regression.json"  # in the folder of a run
_RIDGE = 1e-2
_MEASURES = ("balanced_accuracy", "macro_f1", "accuracy")


@dataclass(frozen=True, eq=False)
class Regression:
    """A logistic regression on features that are standardised first: of every class the probability softmax((x - mean) / scale · weight + bias).

    Attributes:
        mean, scale: of the features that it was trained on.  # [F]
        weight: and in the last row the biases.  # [F + 1, classes]
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    def probabilities(self, features: np.ndarray) -> Tensor:
        """What it says of features `[..., F]`.  # [..., classes]"""
        x, weight = torch.from_numpy((features - self.mean) / self.scale).double(), torch.from_numpy(self.weight)
        return (x @ weight[:-1] + weight[-1]).softmax(-1)

    def save(self, folder: Path) -> None:
        """Into the folder of a run."""
        write_json(folder / _FILE, {name: value.tolist() for name, value in dataclasses.asdict(self).items()})

    @staticmethod
    def load(folder: Path) -> Regression:
        """What `save` wrote.

        Raises:
            UserError: it is not there, or damaged.
        """
        saved, path = read_json(folder / _FILE), folder / _FILE
        try:
            return Regression(**{name: np.array(saved[name], np.float64) for name in ("mean", "scale", "weight")})
        except (TypeError, KeyError, ValueError):
            raise UserError(
                f"{path} is missing or damaged: what logistic regression made of the people trained on; bring it back, or train again"
            ) from None


def pose_features(task: Task, walks: list[int]) -> np.ndarray:
    """Mean and standard deviation of every joint's coordinates over a walk.  # [walks, 2 * J * D]"""
    poses = (task.walks.poses[i] for i in walks)
    return np.array([np.concatenate((walk.mean(0).ravel(), walk.std(0).ravel())) for walk in poses], np.float64)


def baselines(logistic_regression: Tensor, classes: Tensor) -> dict[str, dict[str, float]]:
    """Scores that a model has to be better than: of what a `Regression` on `pose_features` says, and of the best guess that is always the same.

    Probabilities `[n, classes]`, true classes `[n]`.
    """
    K = logistic_regression.shape[1]
    guess = one_hot(torch.bincount(classes, minlength=K).argmax(), K).double().expand(len(classes), -1)
    return {"constant": _scores(guess, classes), "logistic_regression": _scores(logistic_regression, classes)}


def probe(train: np.ndarray, train_classes: np.ndarray, test: np.ndarray, test_classes: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Balanced accuracy and macro F1 of a logistic regression, trained on some people's features `[n, F]` and tested on others'."""
    said = fit_regression(train, train_classes, num_classes).probabilities(test)
    scores = _scores(said, torch.from_numpy(test_classes).long())
    return {name: scores[name] for name in ("balanced_accuracy", "macro_f1")}


def fit_regression(features: np.ndarray, classes: np.ndarray, num_classes: int) -> Regression:
    """Of features `[n, F]` and the numbers of their classes `[n]`. Classes weigh the same, and weights are kept small (ridge)."""
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-9, scale, 1)
    x = torch.from_numpy((features - mean) / scale).double()
    return Regression(mean, scale, _fit(x, torch.from_numpy(classes).long(), num_classes).numpy())


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
