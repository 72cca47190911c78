"""`python -m fastst.predict`: what a trained model says of one file of walks, and which edges it kept to say so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fastst.cpu.memory import keep_freed_memory
from fastst.data.read import read_walks
from fastst.errors import UserError, run_command
from fastst.runs.edges import check_edges_file, write_edges
from fastst.runs.folder import write_json
from fastst.runs.predictions import Asked, open_run, predicted_rows, unlabelled_task

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
    if config.data == "synthetic":
        raise UserError("--data synthetic has no file; fastst.evaluate tests on made-up walkers")
    task = unlabelled_task(read_walks(config.data), model, training, class_names)
    for item in task.walks.left_out:
        print(f"left out: {item.name}: {item.reason}", file=sys.stderr)
    rows = []
    for row in predicted_rows(model, task, class_names, Asked.by(training, training.seed)):
        rows.append(row)
        print(f"{row['sequence']}: {row['label']} (probability {row['probability']:.3f}), {row['kept_share']:.1%} of the edges kept")
        for edge in row["edges"][:_EDGES_PRINTED]:
            print(f"    {edge['kept_share']:6.1%}  {edge['from']} at {_frame(edge['offset'])} -> {edge['to']}")
    if config.out is not None:
        write_json(config.out, rows)
        print(f"everything is in {config.out}")
    if config.edges is not None:
        write_edges(config.edges, model, task, Asked.by(training, training.seed))
        print(f"every edge is in {config.edges}")


def _frame(offset: int) -> str:
    return f"t{offset:+d}" if offset else "t"


if __name__ == "__main__":
    run_command(main)
