"""`python -m fastst.evaluate`: how well a trained model does on a file of walks, per sequence and per person."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from fastst.cpu.memory import keep_freed_memory
from fastst.data.options import OtherFiles
from fastst.errors import run_command, visible
from fastst.runs.evaluation import SEEN, evaluate_models
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out
from fastst.runs.lock import owned_around
from fastst.runs.opened import labelled_task, open_models
from fastst.runs.scores import both_in_words, in_lines
from fastst.runs.tables import check_table_file, write_table


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(OtherFiles):
    """Test a trained model on a file of walks and say how well it does, per sequence and per person.

    The score is that of people who had no part in the model; those whom it was trained on are reported apart.
    """

    run: Path
    """Folder of a run of fastst.train. Of a run with folds every walk is judged by the fold that was not trained on its person."""
    data: str
    """Walks to test on, in any form that fastst.train reads."""
    labels: str | None = None
    """CSV file with the columns subject,label for data that brings no labels."""
    label_map: str | None = None
    """Which labels make a class; left out, as in training."""
    by: str = ""
    """Also give the score for every value of these attributes of the walks, such as view,condition."""
    other_people: bool = False
    """These are other people than those of the run, though some have the same names."""
    out: Path | None = None
    """Also write every prediction into this .csv file, or the metrics and every prediction into this .json file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(EvaluateConfig, prog="python -m fastst.evaluate", args=arguments)
    if config.out is not None:
        check_table_file(config.out, config.data, config.labels)
        check_left_out_file(config.out, config.data, config.labels)
    with owned_around(config.out):
        _evaluate(config)


def _evaluate(config: EvaluateConfig) -> None:
    models = open_models(config.run)
    task = labelled_task(config.data, models[0], config.labels, config.label_map, files=config)
    print(task.description())
    for line in report_left_out(task.walks.left_out, left_out_file(config.out)):
        print(line, file=sys.stderr)
    by = [column for part in config.by.split(",") if (column := part.strip())]
    result = evaluate_models(models, task, by, config.other_people)
    _print_tables(result, task.class_names)
    _print_scores(result, len(models))
    if config.out is not None:
        write_table(config.out, result, result["predictions"])
        print(f"everything is in {visible(str(config.out))}")


def _print_tables(result: dict[str, Any], class_names: list[str]) -> None:
    console = Console(soft_wrap=True, markup=False, emoji=False)
    for title, key, listed in (("Walks", "walk", result["predictions"]), ("People", "subject", result["persons"])):
        table = Table(key, "class", "predicted", *(f"P({name})" for name in class_names), "trained on", title=title)
        for row in listed:
            style = None if row["class"] == row["predicted"] else "red"
            probabilities, seen = (f"{p:.3f}" for p in row["probabilities"].values()), "yes" if row["trained_on"] else "no"
            table.add_row(row[key], row["class"], row["predicted"], *probabilities, seen, style=style)
        console.print(table)
    for column, rows in result["by"].items():
        table = Table(column, "walks", "people", "classes", "balanced accuracy", "95 % interval")
        for row in rows:
            inside = "too few people" if row["interval"] is None else "{:.2f} to {:.2f}".format(*row["interval"])
            classes = ", ".join(row["classes"]) if len(row["classes"]) > 1 else f"{row['classes'][0]} alone: guessing it has 1"
            table.add_row(row[column], str(row["walks"]), str(row["people"]), classes, f"{row['balanced_accuracy']:.3f}", inside)
        console.print(table)


def _print_scores(result: dict[str, Any], models: int) -> None:
    if models > 1:
        print(f"the run has {models} folds: every walk was judged by the folds that were not trained on its person")
    if result["on"] == SEEN:
        print(f"all {result['people']} people had a part in the training: these are numbers on {SEEN}, and say nothing about others")
    print(f"{_of(result)} {result['on']}:")
    for line in in_lines(result):
        print(line)
    if (apart := result["trained_on"]) is not None:
        print(f"apart from that, {_of(apart)} {SEEN}: {both_in_words(apart)}, which says nothing about others")


def _of(scores: dict[str, Any]) -> str:
    return f"{scores['walks']} walks of {scores['people']}"


if __name__ == "__main__":
    run_command(main)
