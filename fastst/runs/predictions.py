"""What a trained model says of walks: its predictions, how good they are, and which edges it kept for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.config import TrainConfig
from fastst.data.batches import Batch, Windows, even_windows, in_order, make_batch
from fastst.data.load import Task
from fastst.data.prepare import drop_joints, layout_for, prepare
from fastst.data.walks import DataError, WalkSet
from fastst.errors import UserError
from fastst.graph import SkeletonGraph
from fastst.nn import GraphClassifier
from fastst.ops import mean_average_distance
from fastst.runs.folder import load_model, read_run_config
from fastst.runs.metrics import KeptEdges, classification_metrics, mean_over_groups


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
        return Asked(config.frames, seed, config.evaluation, config.samples, config.batch_size)


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


def unlabelled_task(walks: WalkSet, model: GraphClassifier, training: TrainConfig, class_names: list[str]) -> Task:
    """Walks prepared as in training. Their classes are not known: every one is given the number 0, which nothing looks at.

    Raises:
        DataError: another skeleton.
    """
    walks = drop_joints(walks, training.drop_joints)
    prepared, filled = prepare(walks, layout_for(model.graph.layout, walks.layout), training.hops + 1, training)
    return for_model(Task(prepared, np.zeros(len(prepared), int), class_names, filled), model, class_names)


def predicted_rows(model: GraphClassifier, task: Task, class_names: list[str], asked: Asked) -> Iterator[dict[str, Any]]:
    """Of every walk: sequence, label, probability, probabilities, kept_share, and edges, the slots of which something was kept, most first."""
    for walk, name in enumerate(task.walks.names):
        predictions = predict_walks(model, task, [walk], asked)
        probabilities = dict(zip(class_names, predictions.probabilities[0].tolist(), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        row = {"sequence": name, "label": label, "probability": probabilities[label], "probabilities": probabilities}
        edges = _kept_edges(model.graph, predictions.kept.kept.sum(0), predictions.kept.existing.sum(0))
        yield row | {"kept_share": predictions.kept.share(), "edges": edges}


def _kept_edges(graph: SkeletonGraph, kept: Tensor, existing: Tensor) -> list[dict[str, Any]]:
    """Joints, frame offset, and in which share of the frames. Counts `[P]` twice."""
    joints = graph.layout.joints
    rows = [
        {"from": joints[src], "to": joints[dst], "offset": offset, "kept_share": n / max(of, 1)}
        for src, dst, offset, n, of in zip(
            graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), kept.tolist(), existing.tolist(), strict=True
        )
        if n > 0
    ]
    return sorted(rows, key=lambda row: -row["kept_share"])


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


def open_run(run: Path) -> tuple[GraphClassifier, TrainConfig, list[str]]:
    """The model of a finished run, the options that it was trained with, and the names of its classes.

    Raises:
        UserError: it is no run, or a control; it has folds of which one has to be named, is not finished, or can't be read.
    """
    if run.name == "permuted" and not (run / "config.json").is_file():
        raise UserError(f"{run} is a control with classes dealt out anew: it says nothing of the walks' own; name the run beside it")
    top = run if (run / "config.json").is_file() else run.parent
    if not (top / "config.json").is_file():
        raise UserError(f"--run {run} holds no run of fastst.train (no config.json)")
    if not (run / "model.safetensors").is_file():
        folds = sorted(path.name for path in run.glob("fold-*") if (path / "model.safetensors").is_file())
        hint = f"it has folds: name one of them, such as {run / folds[0]}" if folds else "finish it with fastst.train --resume"
        raise UserError(f"--run {run} holds no model.safetensors; {hint}")
    model, _, class_names = load_model(run / "model.safetensors")
    return model, read_run_config(top), class_names


def for_model(task: Task, model: GraphClassifier, class_names: list[str]) -> Task:
    """The task with the model's numbering of classes.

    Raises:
        DataError: another skeleton, or a class that the model does not know.
    """
    if task.walks.layout.joints != model.graph.layout.joints or task.walks.poses[0].shape[2] != len(model.pose_mean[0]):
        raise DataError(
            f"the model was trained on {model.graph.num_joints} joints in {model.pose_mean.shape[1]}D ({model.graph.layout.name}), the data has "
            f"{task.walks.layout.num_joints} in {task.walks.poses[0].shape[2]}D ({task.walks.layout.name})"
        )
    unknown = [name for name in task.class_names if name not in class_names]
    if unknown:
        raise DataError(f"the data has the classes {unknown}, which the model does not know: it tells {class_names} apart; see --label-map")
    numbers = np.array([class_names.index(name) for name in task.class_names])
    return dataclasses.replace(task, classes=numbers[task.classes], class_names=class_names)


def walk_rows(task: Task, predictions: Predictions) -> list[dict[str, Any]]:
    """Name, person, true class, predicted class and probabilities of every walk."""
    rows = []
    for walk, probability in zip(predictions.walks, predictions.probabilities.tolist(), strict=True):
        probabilities = dict(zip(task.class_names, probability, strict=True))
        rows.append(
            {
                "sequence": task.walks.names[walk],
                "subject": task.walks.subjects[walk],
                "class": task.class_names[task.classes[walk]],
                "predicted": max(probabilities, key=probabilities.__getitem__),
                "probabilities": probabilities,
            }
        )
    return rows


def person_rows(rows: list[dict[str, Any]], class_names: list[str]) -> list[dict[str, Any]]:
    """The mean of the probabilities of every person's walks of a class."""
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for row in rows:
        groups.setdefault((row["subject"], row["class"]), []).append(row["probabilities"])
    persons = []
    for (subject, label), walks in sorted(groups.items()):
        probabilities = {name: sum(walk[name] for walk in walks) / len(walks) for name in class_names}
        predicted = max(probabilities, key=probabilities.__getitem__)
        persons.append({"subject": subject, "class": label, "predicted": predicted, "probabilities": probabilities, "walks": len(walks)})
    return persons
