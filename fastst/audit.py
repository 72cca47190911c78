"""`python -m fastst.audit`: whether the edges that a run shows are the edges that decide."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fastst.config import option
from fastst.cpu.memory import keep_freed_memory
from fastst.data.read import read_walks
from fastst.errors import UserError, run_command, visible
from fastst.explanation.baselines import score_baselines
from fastst.explanation.report import draw_walk, examine, in_words
from fastst.explanation.views import View
from fastst.runs.folder import read_lines, read_summary, write_json
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out
from fastst.runs.load import Task
from fastst.runs.lock import owned_around
from fastst.runs.opened import TrainedModel, labelled_task, open_run, seen_people, unlabelled_task
from fastst.runs.own import own_task
from fastst.runs.scores import known_in_words, seen_in_words
from fastst.runs.tables import check_not_needed
from fastst.runs.trainer import Finished, Fold, walks_of


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
    walk: str | None = None
    """Name of a walk: draw it with its kept edges, in place of the audit."""
    frames: str | None = None
    """With --walk: which frames, the first and the one after the last, such as 10:70; left out, all."""
    azimuth: float | None = None
    """With --walk, in 3D: where to look from, in degrees: 0 in front of the walker, 90 (if left out) at the right-hand side, 180 behind."""
    elevation: float | None = None
    """With --walk, in 3D: from how far above, in degrees: 0 (if left out) level with the walker, 90 right above."""
    out: Path | None = None
    """Also write all numbers into this .json file; with --walk, the .png file that is drawn (if left out, one in the folder of the run)."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(AuditConfig, prog="python -m fastst.audit", args=arguments)
    _check_options(config)
    if config.walk is not None and config.out is None:
        called = re.sub(r"[^\w.-]+", "_", visible(config.walk))[:50]  # as a file may be called
        config = dataclasses.replace(config, out=config.run / f"walk_{called}.png")
    with owned_around(config.out):
        _audit(config)


def _audit(config: AuditConfig) -> None:
    trained = open_run(config.run)
    if config.out is not None:
        check_not_needed(config.out, config.data, config.labels, option="--out")
        if config.data is not None:
            check_left_out_file(config.out, config.data, config.labels)
    finished = _finished(config, trained)
    if config.walk is not None and config.out is not None:
        _draw(config, finished, config.out)
        print(f"the picture is in {visible(str(config.out))}")
        return
    people = len({finished.task.walks.subjects[i] for i in finished.test_walks})
    print(f"{len(finished.test_walks)} walks of {people} people")
    if config.data is None and (known := len(finished.fold.split.known)):
        print(known_in_words(known, people))
    found = examine(finished)
    for line in in_words(found):
        print(line)
    if config.baselines:
        found["baselines"] = score_baselines(finished)
        for name, score in found["baselines"].items():
            print(f"{name}: ROC-AUC {score['roc_auc']:.3f}, R-precision {score['r_precision']:.2f}, precision at 5 % {score['precision_5']:.2f}")
    if config.out is not None:
        write_json(config.out, found)
        print(f"everything is in {visible(str(config.out))}")


def _check_options(config: AuditConfig) -> None:
    """That they go together; nothing has been read yet."""
    if config.walk is None:
        for name in ("frames", "azimuth", "elevation"):
            if getattr(config, name) is not None:
                raise UserError(f"--{name} is for a picture of a walk; name the walk with --walk")
        if config.out is not None and config.out.suffix.lower() != ".json":
            raise UserError(f"--out {config.out} is of no kind that numbers can be written as; name a file that ends in .json")
        return
    for name in ("labels", "label_map"):
        if getattr(config, name) is not None:
            raise UserError(f"--walk draws a picture, which needs no classes; leave {option(name)} out")
    if config.baselines:
        raise UserError("--walk draws a picture and scores nothing; leave --baselines out")
    if config.out is not None and config.out.suffix.lower() != ".png":
        raise UserError(f"--out {config.out} is of no kind that a picture can be written as; name a file that ends in .png")
    for name in ("azimuth", "elevation"):
        if not math.isfinite(getattr(config, name) or 0):
            raise UserError(f"--{name} must be a number of degrees, got {getattr(config, name)}")


def _draw(config: AuditConfig, finished: Finished, path: Path) -> None:
    """Draws the walk that the options name."""
    walk = finished.task.walk_called(config.walk or "")
    poses = finished.task.walks.poses[walk]
    if poses.shape[2] == 2 and (config.azimuth is not None or config.elevation is not None):
        raise UserError("these walks are in 2D, which are drawn as in the image; leave --azimuth and --elevation out")
    view = View(90.0 if config.azimuth is None else config.azimuth, config.elevation or 0.0)
    frames = _frames(config.frames or ":", len(poses))
    draw_walk(finished, walk, path, frames, view, labelled=config.data in (None, "synthetic"))


def _frames(text: str, length: int) -> tuple[int, int]:
    """10:70 as two numbers; what is left out is the beginning or the end of the walk."""
    match = re.fullmatch(r"(\d{0,9}):(\d{0,9})", text)
    if match is None:
        raise UserError(f"--frames {text} must be the first frame and the one after the last, such as 10:70")
    first, end = int(match[1] or 0), int(match[2] or length)
    if not 0 <= first < end <= length:
        raise UserError(f"--frames {text} are not frames of this walk: it has the frames 0:{length}, and the second number must be above the first")
    return first, end


def _finished(config: AuditConfig, trained: TrainedModel) -> Finished:
    """The run as it was when it had just been trained, or with other walks where the command names some."""
    model, training, split = trained.model, trained.config, trained.split
    if split is None:
        raise UserError(f"{config.run} has no split.json, which says whom it was trained on: bring it back, or train it again")
    summary = read_summary(config.run) or {}
    fold = Fold(config.run, "audit", split, trained.seed)
    parts = (read_lines(config.run / "metrics.jsonl"), summary)
    if config.data is None:
        own = own_task(trained, summary.get("data"))
        train_walks, _, test_walks = walks_of(own, split)
        return Finished(training, own, fold, model, train_walks, test_walks, *parts)
    task = _other_task(config, config.data, trained)
    for line in report_left_out(task.walks.left_out, left_out_file(config.out)):
        print(line, file=sys.stderr)
    if seen := seen_people(trained, task):
        print(f"warning: {seen_in_words(seen, len(set(task.walks.subjects)))}", file=sys.stderr)
    return Finished(training, task, fold, model, [], list(range(len(task.walks))), *parts)


def _other_task(config: AuditConfig, data: str, trained: TrainedModel) -> Task:
    """Other walks than the run's, with their classes; for a picture these don't matter."""
    if config.walk is not None and data != "synthetic":
        return unlabelled_task(read_walks(data, trained.config), trained)
    return labelled_task(data, trained, config.labels, config.label_map)


if __name__ == "__main__":
    run_command(main)
