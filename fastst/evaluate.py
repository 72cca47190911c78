"""`python -m fastst.evaluate`: how well a trained model does on a file of walks, per sequence and per person."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from fastst.config import TrainConfig
from fastst.cpu.memory import keep_freed_memory
from fastst.data.batches import even_windows, in_order, make_batch
from fastst.data.load import Task, load_task
from fastst.data.walks import DataError
from fastst.errors import UserError, run_command
from fastst.metrics import KeptEdges, classification_metrics, mean_over_groups
from fastst.nn import GraphClassifier
from fastst.ops import mean_average_distance
from fastst.run_folder import load_model, read_run_config, write_json


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
            output = model(batch.poses.to(device), lengths, seed=seed + sample, sample_ids=batch.sample_ids.to(device), evaluation=evaluation)
            kept.add(output.kept, batch.classes, lengths)
            probabilities.append(output.logits.float().softmax(1).cpu())
            distances.append(mean_average_distance(output.embedding, lengths).cpu())
    model.train(training)
    order = {walk: row for row, walk in enumerate(walks)}
    rows = np.concatenate([np.tile([order[w] for w in windows.walk[chosen]], samples) for chosen in in_order(windows, batch_size)])
    mean = mean_over_groups(torch.cat(probabilities).double(), rows, len(walks))
    if not torch.isfinite(mean).all():
        raise UserError("the model's predictions are not numbers: its training has diverged. Train again with a lower --learning-rate, or --amp none")
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


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained model on a file of walks and say how well it does, per sequence and per person."""

    run: Path
    """Folder of a run of fastst.train; of a run with folds one of its folds, such as runs/mine/fold-1."""
    data: str
    """Walks to test on, in any form that fastst.train reads."""
    labels: str | None = None
    """CSV file with the columns subject,label for data that brings no labels."""
    label_map: str | None = None
    """Which labels make a class; left out, as in training."""
    out: Path | None = None
    """Also write the metrics and every prediction into this .json file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(EvaluateConfig, prog="python -m fastst.evaluate", args=arguments)
    model, training, class_names = open_run(config.run)
    label_map = training.label_map if config.label_map is None else config.label_map
    options = dataclasses.replace(
        training,
        data=config.data,
        labels=config.labels,
        label_map=label_map,
    )
    task = for_model(load_task(options, layout=model.graph.layout, min_classes=1), model, class_names)
    print(task.description())
    for item in task.walks.left_out:
        print(f"left out: {item.name}: {item.reason}", file=sys.stderr)
    predictions = predict_walks(
        model,
        task,
        range(len(task.walks)),
        frames=training.frames,
        seed=training.seed,
        evaluation=training.evaluation,
        samples=training.samples,
    )
    metrics = measure(task, predictions)
    rows = walk_rows(task, predictions)
    _print_tables(rows, metrics, class_names)
    if config.out is not None:
        write_json(config.out, {**metrics, "sequences": rows, "persons": person_rows(rows, class_names)})
        print(f"everything is in {config.out}")


def open_run(run: Path) -> tuple[GraphClassifier, TrainConfig, list[str]]:
    """The model of a finished run, the options that it was trained with, and the names of its classes.

    Raises:
        UserError: it is no run, has folds of which one has to be named, is not finished, or can't be read.
    """
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


def _print_tables(rows: list[dict[str, Any]], metrics: dict[str, Any], class_names: list[str]) -> None:
    console = Console(soft_wrap=True, markup=False)
    for title, key, listed in (("Sequences", "sequence", rows), ("People", "subject", person_rows(rows, class_names))):
        table = Table(key, "class", "predicted", *(f"P({escape(name)})" for name in class_names), title=title)
        for row in listed:
            style = None if row["class"] == row["predicted"] else "red"
            table.add_row(*map(escape, (row[key], row["class"], row["predicted"])), *(f"{p:.3f}" for p in row["probabilities"].values()), style=style)
        console.print(table)
    for what, values in ((f"{metrics['walks']} sequences", metrics), (f"{metrics['people']} people", metrics["per_person"])):
        console.print(f"{what}: macro F1 {values['macro_f1']:.3f}, balanced accuracy {values['balanced_accuracy']:.3f}", highlight=False)
    console.print(f"MAD {metrics['mad']:.3f}, {metrics['kept_share']:.1%} of the edges kept", highlight=False)


if __name__ == "__main__":
    run_command(main)
