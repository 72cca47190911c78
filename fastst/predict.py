"""`python -m fastst.predict`: what a trained model says of one file of walks, and which edges it kept to say so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from fastst.config import TrainConfig
from fastst.cpu.memory import keep_freed_memory
from fastst.data.load import Task
from fastst.data.prepare import layout_for, prepare
from fastst.data.read import read_walks
from fastst.errors import UserError, run_command
from fastst.graph import SkeletonGraph
from fastst.nn import GraphClassifier
from fastst.runs.edges import check_edges_file, write_edges
from fastst.runs.folder import write_json
from fastst.runs.predictions import Asked, for_model, open_run, predict_walks

_EDGES_PRINTED = 5


@dataclass(frozen=True)
class PredictConfig:
    """Say of every walk in a file which class it is, how sure the model is, and which edges of the graph it kept."""

    run: Path
    """Folder of a run of fastst.train; of a run with folds one of its folds, such as runs/mine/fold-1."""
    data: str
    """Walks in any form that fastst.train reads; labels are not needed."""
    out: Path | None = None
    """Also write label, probabilities and the kept edges of every walk into this .json file."""
    edges: Path | None = None
    """Also write every edge that the model looked at, with its keep probability and whether it was kept, into this .csv or .parquet file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(PredictConfig, prog="python -m fastst.predict", args=arguments)
    if config.edges is not None:
        check_edges_file(config.edges)
    model, training, class_names = open_run(config.run)
    task = _unlabelled_task(config.data, model, training, class_names)
    for item in task.walks.left_out:
        print(f"left out: {item.name}: {item.reason}", file=sys.stderr)
    rows = []
    for walk, name in enumerate(task.walks.names):
        predictions = predict_walks(model, task, [walk], Asked.by(training, training.seed))
        probabilities = dict(zip(class_names, predictions.probabilities[0].tolist(), strict=True))
        edges = kept_edges(model.graph, predictions.kept.kept.sum(0), predictions.kept.existing.sum(0))
        label = max(probabilities, key=probabilities.__getitem__)
        rows.append({"sequence": name, "label": label, "probability": probabilities[label], "probabilities": probabilities})
        rows[-1] |= {"kept_share": predictions.kept.share(), "edges": edges}
        print(f"{name}: {label} (probability {probabilities[label]:.3f}), {predictions.kept.share():.1%} of the edges kept")
        for edge in edges[:_EDGES_PRINTED]:
            print(f"    {edge['kept_share']:6.1%}  {edge['from']} at {_frame(edge['offset'])} -> {edge['to']}")
    if config.out is not None:
        write_json(config.out, rows)
        print(f"everything is in {config.out}")
    if config.edges is not None:
        write_edges(config.edges, model, task, Asked.by(training, training.seed))
        print(f"every edge is in {config.edges}")


def kept_edges(graph: SkeletonGraph, kept: torch.Tensor, existing: torch.Tensor) -> list[dict[str, Any]]:
    """The slots of which something was kept, the most kept first: joints, frame offset, and in which share of the frames. Counts `[P]` twice."""
    joints = graph.layout.joints
    rows = [
        {"from": joints[src], "to": joints[dst], "offset": offset, "kept_share": n / max(of, 1)}
        for src, dst, offset, n, of in zip(
            graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), kept.tolist(), existing.tolist(), strict=True
        )
        if n > 0
    ]
    return sorted(rows, key=lambda row: -row["kept_share"])


def _unlabelled_task(data: str, model: GraphClassifier, training: TrainConfig, class_names: list[str]) -> Task:
    """The file's walks, prepared as in training. Their classes are not known: every one is given the number 0, which nothing looks at."""
    if data == "synthetic":
        raise UserError("--data synthetic has no file; fastst.evaluate tests on made-up walkers")
    walks = read_walks(data)
    prepared, filled = prepare(walks, layout_for(model.graph.layout, walks.layout), training.hops + 1)
    return for_model(Task(prepared, np.zeros(len(prepared), int), class_names, filled), model, class_names)


def _frame(offset: int) -> str:
    return f"t{offset:+d}" if offset else "t"


if __name__ == "__main__":
    run_command(main)
