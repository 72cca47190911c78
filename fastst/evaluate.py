"""`python -m fastst.evaluate`: how well a trained model does on a file of walks, per sequence and per person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from fastst.config import TrainConfig
from fastst.data.batches import even_windows, in_order, make_batch
from fastst.data.load import Task, load_task
from fastst.data.walks import DataError
from fastst.errors import run_command
from fastst.metrics import KeptEdges, classification_metrics, mean_over_groups
from fastst.nn import GraphClassifier
from fastst.ops import mean_average_distance


@dataclass(frozen=True)
class Predictions:
    """What a model says of some walks: class probabilities `[walks, classes]`, mean MAD of their windows, and the kept edges."""

    walks: list[int]
    probabilities: Tensor
    mad: float
    kept: KeptEdges


@torch.no_grad()
def predict_walks(
    model: GraphClassifier,
    task: Task,
    walks: Sequence[int],
    *,
    frames: int,
    seed: int,
    evaluation: str = "sample",
    samples: int = 1,
    batch_size: int = 32,
) -> Predictions:
    """The mean prediction of windows that cover each of the walks numbered `walks`, over `samples` sampled graphs."""
    device = next(model.parameters()).device
    training, _ = model.training, model.eval()
    windows = even_windows(task.lengths, walks, frames)
    probabilities, distances, kept = [], [], KeptEdges(model.graph, task.class_names)
    for chosen in in_order(windows, batch_size):
        batch = make_batch(task.walks.poses, task.classes, windows, chosen, frames, np.zeros(len(chosen), bool), task.walks.layout)
        lengths = None if batch.lengths is None else batch.lengths.to(device)
        for sample in range(samples):
            output = model(
                batch.poses.to(device), lengths, seed=seed + sample, sample_ids=batch.sample_ids.to(device), evaluation=evaluation
            )
            kept.add(output.kept, batch.classes, lengths)
            probabilities.append(output.logits.float().softmax(1).cpu())
            distances.append(mean_average_distance(output.embedding, lengths).cpu())
    model.train(training)
    order = {walk: row for row, walk in enumerate(walks)}
    rows = np.concatenate([np.tile([order[w] for w in windows.walk[chosen]], samples) for chosen in in_order(windows, batch_size)])
    mean = mean_over_groups(torch.cat(probabilities).double(), rows, len(walks))
    return Predictions(list(walks), mean, torch.cat(distances).mean().item(), kept)


def measure(task: Task, predictions: Predictions) -> dict[str, Any]:
    """Metrics per walk, and per person by the mean of the probabilities of a person's walks."""
    classes = torch.from_numpy(task.classes[predictions.walks])
    # Somebody whose walks are of several classes (conditions, say) counts once in each.
    keys = [(task.walks.subjects[walk], int(task.classes[walk])) for walk in predictions.walks]
    persons = sorted(set(keys))
    group = np.array([persons.index(key) for key in keys])
    per_person = mean_over_groups(predictions.probabilities, group, len(persons))
    return {
        **classification_metrics(predictions.probabilities, classes),
        "per_person": classification_metrics(per_person, torch.tensor([label for _, label in persons])),
        "mad": predictions.mad,
        **predictions.kept.summary(),
        "walks": len(keys),
        "people": len({subject for subject, _ in keys}),
    }
