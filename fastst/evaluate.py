"""`python -m fastst.evaluate`: how well a trained model does on a file of walks, per sequence and per person."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastst.cpu.memory import keep_freed_memory
from fastst.data.load import load_task
from fastst.errors import run_command
from fastst.runs.folder import write_json
from fastst.runs.predictions import Asked, for_model, measure, open_run, person_rows, predict_walks, walk_rows


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
    predictions = predict_walks(model, task, range(len(task.walks)), Asked.by(training, training.seed))
    metrics = measure(task, predictions)
    rows = walk_rows(task, predictions)
    _print_tables(rows, metrics, class_names)
    if config.out is not None:
        write_json(config.out, {**metrics, "sequences": rows, "persons": person_rows(rows, class_names)})
        print(f"everything is in {config.out}")


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
