"""What a trained model says of walks, and how good it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.config import TrainConfig
from fastst.data.batches import Batch, Windows, even_windows, in_order, make_batch
from fastst.errors import UserError
from fastst.nn import GraphClassifier
from fastst.ops import mean_average_distance
from fastst.runs.load import Task
from fastst.runs.metrics import KeptEdges, mean_over_groups
from fastst.runs.outcomes import Outcomes


@dataclass(frozen=True)
class Predictions:
    """What a model says of some walks: class probabilities `[walks, classes]`, mean MAD of their windows, and the kept edges."""

    walks: list[int]
    probabilities: Tensor
    mad: float
    kept: KeptEdges


@dataclass(frozen=True)
class Asked:
    """How a run looks at walks: the size of its windows, and which graphs it takes."""

    frames: int
    seed: int
    evaluation: str = "sample"
    samples: int = 1
    batch_size: int = 32

    @staticmethod
    def by(config: TrainConfig, seed: int) -> Asked:
        """In the test of a training with this seed."""
        return Asked(config.frames, seed * 1_000_003 - 1, config.evaluation, config.samples, config.batch_size)


def batches(task: Task, windows: Windows, frames: int, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """The windows in their order, not mirrored, on the device."""
    for chosen in in_order(windows, batch_size):
        batch = make_batch(task.walks.poses, task.classes, windows, chosen, frames, np.zeros(len(chosen), bool), task.walks.layout)
        yield dataclasses.replace(
            batch,
            poses=batch.poses.to(device),
            lengths=None if batch.lengths is None else batch.lengths.to(device),
            sample_ids=batch.sample_ids.to(device),
        )


@torch.no_grad()
def predict_walks(model: GraphClassifier, task: Task, walks: Sequence[int], asked: Asked) -> Predictions:
    """The mean prediction of windows that cover each of the walks numbered `walks`, over the sampled graphs."""
    windows = even_windows(task.lengths, walks, asked.frames)
    probabilities, distances, kept = [], [], KeptEdges(model.graph, task.class_names)
    with evaluating(model) as device:
        for batch in batches(task, windows, asked.frames, asked.batch_size, device):
            of_samples = []
            for sample in range(asked.samples):
                options = {"seed": asked.seed + sample, "sample_ids": batch.sample_ids, "evaluation": asked.evaluation}
                output = model(batch.poses, batch.lengths, **options)
                kept.add(output.kept, batch.classes, batch.lengths)
                of_samples.append(output.logits.float().softmax(1).cpu())
                distances.append(mean_average_distance(output.embedding, batch.lengths).cpu())
            probabilities.append(torch.stack(of_samples).double().mean(0))
    mean = mean_over_groups(torch.cat(probabilities), row_of_walk(windows, walks), len(walks))
    if not torch.isfinite(mean).all():
        raise UserError("the model's predictions are not numbers: its training has diverged. Train again with a lower --learning-rate, or --amp none")
    return Predictions(list(walks), mean, torch.cat(distances).mean().item(), kept)


@contextmanager
def evaluating(model: GraphClassifier) -> Iterator[torch.device]:
    """The model in evaluation mode for a while; gives the device that it is on."""
    training, _ = model.training, model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        model.train(training)


def row_of_walk(windows: Windows, walks: Sequence[int]) -> np.ndarray:
    """For every window the place of its walk among `walks`."""
    order = {walk: row for row, walk in enumerate(walks)}
    return np.array([order[walk] for walk in windows.walk.tolist()])


def outcomes_of(task: Task, predictions: Predictions, folds: Sequence[str] | None = None) -> Outcomes:
    """What was said of the walks, beside their classes; `folds` says of every walk whose model said it."""
    walks = predictions.walks
    texts = (
        ["0"] * len(walks) if folds is None else list(folds),
        [task.walks.names[walk] for walk in walks],
        [task.walks.subjects[walk] for walk in walks],
    )
    return Outcomes(task.class_names, *texts, task.classes[walks], predictions.probabilities.numpy())


def measure(task: Task, predictions: Predictions) -> dict[str, Any]:
    """Metrics per walk, and per person by the mean of the probabilities of a person's walks; MAD, and which share of the edges was kept."""
    return {**outcomes_of(task, predictions).metrics(), "mad": predictions.mad, **predictions.kept.summary()}
