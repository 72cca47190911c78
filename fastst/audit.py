"""`python -m fastst.audit`: whether the edges that a run shows are the edges that decide."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fastst.config import TrainConfig
from fastst.cpu.memory import keep_freed_memory
from fastst.data.load import Task, load_task
from fastst.errors import UserError, run_command
from fastst.explanation.baselines import score_baselines
from fastst.explanation.report import examine, in_words
from fastst.runs.folder import read_json, read_lines, write_json
from fastst.runs.opened import TrainedModel, for_model, open_run
from fastst.runs.tables import check_not_needed
from fastst.runs.trainer import Finished, Fold, fingerprint, walks_of


@dataclass(frozen=True)
class AuditConfig:
    """Say what the kept edges of a trained model are worth: beside none, all, others' and as many random ones."""

    run: Path
    """Folder of a run of fastst.train; of a run with folds one of its folds, such as runs/mine/fold-1."""
    data: str | None = None
    """Walks to look at, in any form that fastst.train reads; left out, the run's own test people."""
    labels: str | None = None
    """CSV file with the columns subject,label for --data that brings no labels."""
    label_map: str | None = None
    """Which labels make a class; left out, as in training."""
    baselines: bool = False
    """Planted walks: also score explanations that are made after training, of a model with the whole graph, which is trained for it."""
    out: Path | None = None
    """Also write all numbers into this .json file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(AuditConfig, prog="python -m fastst.audit", args=arguments)
    if config.out is not None:
        check_not_needed(config.out, config.data, config.labels, option="--out")
    finished = _finished(config, open_run(config.run))
    print(f"{len(finished.test_walks)} walks of {len({finished.task.walks.subjects[i] for i in finished.test_walks})} people")
    found = examine(finished)
    for line in in_words(found):
        print(line)
    if config.baselines:
        found["baselines"] = score_baselines(finished)
        for name, score in found["baselines"].items():
            print(f"{name}: ROC-AUC {score['roc_auc']:.3f}, R-precision {score['r_precision']:.2f}, precision at 5 % {score['precision_5']:.2f}")
    if config.out is not None:
        write_json(config.out, found)
        print(f"everything is in {config.out}")


def _finished(config: AuditConfig, trained: TrainedModel) -> Finished:
    """The run as it was when it had just been trained, with other walks to test on where the command names some."""
    model, training, split = trained.model, trained.config, trained.split
    if split is None:
        raise UserError(f"{config.run} has no split.json, which says whom it was trained on: bring it back, or train it again")
    summary = read_json(config.run / "summary.json") or {}
    own = _task(training, trained, summary.get("data"))
    train_walks, _, test_walks = walks_of(own, split)
    fold = Fold(config.run, "audit", split, trained.seed)
    parts = (read_lines(config.run / "metrics.jsonl"), summary)
    if config.data is None:
        return Finished(training, own, fold, model, train_walks, test_walks, *parts)
    label_map = training.label_map if config.label_map is None else config.label_map
    options = dataclasses.replace(training, data=config.data, labels=config.labels, label_map=label_map, planted=())
    task = _task(options, trained)
    trained_on = {subject for subject in task.walks.subjects if trained.has_seen(subject)}
    if trained_on:
        print(f"warning: {len(trained_on)} of these people have the names of people whom the model was trained on", file=sys.stderr)
    return Finished(training, task, fold, model, [], list(range(len(task.walks))), *parts)


def _task(options: TrainConfig, trained: TrainedModel, known_as: int | None = None) -> Task:
    """The walks, for the model; those that the run was trained on and knows by a fingerprint must not have changed since."""
    loaded = load_task(options, layout=trained.model.graph.layout, min_classes=1)
    if known_as is not None and fingerprint(loaded) != known_as:
        where = f" in {options.data}" if options.data is not None else ""
        raise UserError(f"the walks{where} have changed since the model was trained on them: bring them back, or train again")
    task = for_model(loaded, trained)
    for item in task.walks.left_out:
        print(f"left out: {item.name}: {item.reason}", file=sys.stderr)
    return task


if __name__ == "__main__":
    run_command(main)
