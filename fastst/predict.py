"""`python -m fastst.predict`: what a trained model says of one file of walks, and which edges it kept to say so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fastst.cpu.memory import keep_freed_memory
from fastst.data.options import OtherFiles
from fastst.data.read import read_walks
from fastst.errors import UserError, run_command, visible
from fastst.runs.edges import check_edges_file, write_edges
from fastst.runs.folder import as_written, read_summary
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out
from fastst.runs.lock import owned_around
from fastst.runs.opened import open_models, seen_people, seen_walks, unlabelled_task
from fastst.runs.scores import seen_in_words
from fastst.runs.tables import check_not_needed, check_table_file, write_table
from fastst.runs.unlabelled import predicted_rows

_EDGES_PRINTED = 5


@dataclass(frozen=True, kw_only=True)
class PredictConfig(OtherFiles):
    """Say of every walk in a file which class it is, how sure the model is, and which edges of the graph it kept."""

    run: Path
    """Folder of a run of fastst.train; of a run with folds the mean of the folds' probabilities is said, or that of one, such as runs/mine/fold-1."""
    data: str
    """Walks in any form that fastst.train reads; labels are not needed."""
    out: Path | None = None
    """Also write what is said of every walk into this .csv or .json file, in the columns of a run's predictions.csv (no class is known); a .json file
    has the kept edges as well."""
    edges: Path | None = None
    """Also write every edge that the model looked at, with its keep probability and whether it was kept, into this .csv or .parquet file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(PredictConfig, prog="python -m fastst.predict", args=arguments)
    if config.out is not None:
        check_table_file(config.out, config.data)
        check_left_out_file(config.out, config.data)
    if config.edges is not None:
        check_edges_file(config.edges)
        check_not_needed(config.edges, config.data, option="--edges")
        if config.out is not None and config.edges.resolve() == config.out.resolve():
            raise UserError(f"--out and --edges are both {config.out}; give them names of their own")
    with owned_around(config.out, config.edges):
        _predict(config)


def _predict(config: PredictConfig) -> None:
    models = open_models(config.run)
    if config.edges is not None and len(models) > 1:
        raise UserError(f"--edges are those of one model, but --run {config.run} has several: it has folds; name one, such as {models[0].folder}")
    if config.data == "synthetic":
        raise UserError("--data synthetic has no file; fastst.evaluate tests on made-up walkers")
    task = unlabelled_task(read_walks(config.data, config.over(models[0].config)), models[0])
    for line in report_left_out(task.walks.left_out, left_out_file(config.out)):
        print(line, file=sys.stderr)
    if known := set().union(*(seen_people(trained, task) for trained in models if trained.split is not None)):
        walks = set().union(*(seen_walks(trained, task) for trained in models))
        said = f"{len(walks)} of these {len(task.walks)} walks the model was trained on or chosen by"
        print(f"warning: {seen_in_words(known, len(set(task.walks.subjects)))}; {said}", file=sys.stderr)
    if len(models) > 1:
        print(f"{visible(str(config.run))} has {len(models)} folds: what follows is the mean of their models' probabilities")
    rows = []
    for row in predicted_rows(models, task):
        rows.append(row)
        said, kept = row["predicted"], row["kept_share"]
        print(f"{row['walk']}: {said} (probability {row['probabilities'][said]:.3f}), {kept:.1%} of the edges kept")
        for edge in row["edges"][:_EDGES_PRINTED]:
            print(f"    {edge['kept_share']:6.1%} of its frames keep {edge['from']} at {_frame(edge['offset'])} -> {edge['to']} at t")
    audit = (read_summary(config.run) or {}).get("audit", {})
    if "verdict" in audit:
        with as_written(config.run):
            print(f"what the edges of this run are worth, by its audit: {audit['verdict']['sentence']}")
    if config.out is not None:
        write_table(config.out, rows, [{name: value for name, value in row.items() if name != "edges"} for row in rows])
        print(f"everything is in {visible(str(config.out))}")
    if config.edges is not None:
        write_edges(config.edges, models[0].model, task, models[0].asked)
        print(f"every edge is in {visible(str(config.edges))}")


def _frame(offset: int) -> str:
    return f"t{offset:+d}" if offset else "t"


if __name__ == "__main__":
    run_command(main)
