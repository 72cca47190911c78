"""A run: its folds, their seeds and its control, one training after another, and what is said of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fastst.config import TrainConfig
from fastst.data.identity import check_people
from fastst.data.splits import (
    Split,
    balanced_split,
    casia_b_split,
    class_of_people,
    deal_anew,
    folds,
    read_split,
    set_aside,
    split_from_labels,
)
from fastst.errors import UserError, visible
from fastst.files import is_there, remove_parts
from fastst.interrupts import advise
from fastst.ops.backends import current_backend
from fastst.runs.arguments import model_arguments
from fastst.runs.folder import as_written, read_summary, write_summary, write_text
from fastst.runs.initial import check_fits, people_of
from fastst.runs.left_out import LEFT_OUT, report_left_out
from fastst.runs.load import Task, load_task
from fastst.runs.lock import LOCK, check_owned, owned
from fastst.runs.opened import open_run, seen_people
from fastst.runs.scores import in_lines, known_in_words, mean_in_words, scores_of_folds
from fastst.runs.trainer import MEANS, Fold, OnEpoch, OnFinished, Processes, device_of, train_fold, walks_of

_ALONE = Processes(0, 1)
_ATTEMPTS = 100


@dataclass(frozen=True)
class Examination:
    """What a run says of its models beside their scores, where somebody wants to know.

    Attributes:
        of_fold: looks at a finished training; what it returns goes into its summary.
        of_all: what goes into the summary of all folds, from theirs.
        in_words: what a console says of a summary with either.
    """

    of_fold: OnFinished
    of_all: Callable[[list[dict[str, Any]]], dict[str, Any]]
    in_words: Callable[[dict[str, Any]], list[str]]


def train(
    config: TrainConfig,
    examination: Examination | None = None,
    processes: Processes = _ALONE,
    on_epoch: OnEpoch | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains, tests and examines; everything lands in `config.out`, which nobody else may write in meanwhile. Returns the summary."""
    config = config.settled()
    if not processes.leads:
        return _train(config, examination, processes, on_epoch, quiet=True)
    _check_folder(config)
    with owned(config.out):
        _check_folder(config)  # again: another run may have been here since
        remove_parts(config.out)
        return _train(config, examination, processes, on_epoch, quiet)


def _train(config: TrainConfig, examination: Examination | None, processes: Processes, on_epoch: OnEpoch | None, quiet: bool) -> dict[str, Any]:
    console = Console(stderr=True, quiet=quiet, soft_wrap=True, markup=False, emoji=False)
    device_of(config)
    _check_backend()
    task = load_task(config, progress=not quiet)
    console.print(task.description(), highlight=False)
    for line in task.walks.whose.lines:
        console.print(f"whose walk it is: {line}", highlight=False)
    for note in task.walks.notes:
        console.print(f"note: {note}", highlight=False)
    if config.split == "paper":
        check_people(task.walks)
    every_fold = _folds(config, task)
    if config.init is not None:
        every_fold = _from_initial(config.init, config, task, every_fold)
    control, every_control = _control(config, task) if config.permuted else (None, [])
    for fold in every_fold:
        _check_sides(task, fold)
    if processes.leads and not config.resume:
        write_text(config.out / "config.json", config.to_json())  # not before everything was looked at: a failed start leaves nothing behind
    advise("go on with --resume")
    for line in report_left_out(task.walks.left_out, config.out / LEFT_OUT if processes.leads else None):
        console.print(line, highlight=False)
    _report_sides(config, task, every_fold, console)
    results = []
    for number, fold in enumerate(every_fold):
        # What the fold's audit compares it with is trained first.
        if control is not None:
            of_control = _beside(every_control[number], fold.folder / "permuted", "classes dealt out anew", 0)
            _train_once(config, control, of_control, processes, console, examination)
        for seed in range(2, config.seeds + 1):
            other = _beside(fold, fold.folder / f"seed-{seed}", f"seed {seed}", seed)
            _train_once(config, task, other, processes, console, None)
        results.append(_train_once(config, task, fold, processes, console, examination, on_epoch))
    summary = results[0]
    if processes.leads and config.folds:
        summary = _of_all_folds(results, scores_of_folds(config.out, task, every_fold, results), examination)
        check_owned(config.out)
        write_summary(config.out, summary)
        console.print(f"\n{_of_whom(summary)}, each judged by the fold that was not trained on that person:", highlight=False)
        examined = [] if examination is None else examination.in_words(summary)
        for line in (*in_lines(summary), *examined[:1]):
            console.print(f"all {config.folds} folds: {line}", highlight=False)
        for line in (mean_in_words(summary), *examined[1:]):
            console.print(f"mean of the {config.folds} folds: {line}", highlight=False)
    console.print(f"everything is in {visible(str(config.out))}", highlight=False)
    return summary


def _train_once(
    config: TrainConfig,
    task: Task,
    fold: Fold,
    processes: Processes,
    console: Console,
    examination: Examination | None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """A fold's summary: that which is there, or of a training to its end."""
    result = read_summary(fold.folder)
    if result is not None:
        with as_written(fold.folder):  # all that is asked of it later
            _of_all_folds([result], {name: float(result[name]) for name in MEANS}, None)
            _said(result, examination)
    else:
        result = train_fold(config, task, fold, processes, console, None if examination is None else examination.of_fold, on_epoch)
    if processes.leads:
        console.print(f"\n{fold.name}, tested on {_of_whom(result)} ({result['seconds']:.0f} s of training):", highlight=False)
        for line in _said(result, examination):
            console.print(f"{fold.name}: {line}", highlight=False)
    return result


def _said(result: dict[str, Any], examination: Examination | None) -> list[str]:
    return [*in_lines(result), *([] if examination is None else examination.in_words(result))]


def _beside(fold: Fold, folder: Path, what: str, seed: int) -> Fold:
    """Another training with a fold's people."""
    return dataclasses.replace(fold, folder=folder, name=f"{fold.name}, {what}", seed=fold.seed + 500_009 * seed)


def _control(config: TrainConfig, task: Task) -> tuple[Task, list[Fold]]:
    """The same walks with classes dealt out anew, and its folds.

    Raises:
        UserError: they can't be dealt so that every class has people to train on.
    """
    for attempt in range(_ATTEMPTS):
        control = dataclasses.replace(task, classes=_dealt_anew(task, config.seed + attempt))
        every_fold = _folds(config, control)
        try:
            for fold in every_fold:
                _check_sides(control, fold)
        except UserError:
            continue
        return control, every_fold
    raise UserError("--permuted can't deal the classes out anew so that every class has people to train on; leave it out")


def _dealt_anew(task: Task, seed: int) -> np.ndarray:
    """A class for every walk: people have each other's classes; somebody with walks of several classes has them in another order."""
    names = [task.class_names[c] for c in task.classes]
    of_person: dict[str, list[int]] = {}
    for walk, subject in enumerate(task.walks.subjects):
        of_person.setdefault(subject, []).append(walk)
    if all(len({names[walk] for walk in walks}) == 1 for walks in of_person.values()):
        dealt = deal_anew(class_of_people(task.walks.subjects, names), seed)
        return np.array([task.class_names.index(dealt[subject]) for subject in task.walks.subjects])
    rng, classes = np.random.default_rng(seed), task.classes.copy()
    for _, walks in sorted(of_person.items()):
        classes[walks] = classes[rng.permutation(walks)]
    return classes


def _check_folder(config: TrainConfig) -> None:
    """That nothing is in the folder of a new run."""
    if config.resume:
        return
    try:
        taken = config.out.exists() and (not config.out.is_dir() or any(path.name != LOCK for path in config.out.iterdir()))
    except OSError as error:
        raise UserError(f"--out {config.out} can't be used: {error.strerror}; name another folder") from None
    if taken:
        what = "holds another run; --resume goes on with it" if is_there(config.out / "config.json") else "exists and is not empty"
        raise UserError(f"--out {config.out} {what}; name a new folder with --out, or delete it")


def _folds(config: TrainConfig, task: Task) -> list[Fold]:
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    if config.folds:
        splits = folds(people, config.folds, config.seed)
        every = [(config.out / f"fold-{i}", f"fold {i}/{config.folds}", split, i) for i, split in enumerate(splits, 1)]
    else:
        every = [(config.out, "training", _split(config, task, people), 0)]
    if config.validation:
        every = [(folder, name, set_aside(split, people, config.validation, config.seed), i) for folder, name, split, i in every]
    return [Fold(folder, name, split, config.seed * 1009 + i, i) for folder, name, split, i in every]


def _from_initial(init: str, config: TrainConfig, task: Task, every_fold: list[Fold]) -> list[Fold]:
    """The folds, which know the people of the model that they start from; an error where it doesn't fit."""
    initial = open_run(Path(init), "--init")
    check_fits(model_arguments(config, task), initial)
    before = initial.walks_seen
    people = people_of(initial) | seen_people(initial, task)
    return [dataclasses.replace(fold, split=dataclasses.replace(fold.split, initial=people), walks_before=before) for fold in every_fold]


def _split(config: TrainConfig, task: Task, people: dict[str, str]) -> Split:
    if config.split_file is None:
        if config.split == "paper":
            return balanced_split(people, config.seed)
        return casia_b_split(people) if config.split == "casia-b" else split_from_labels(people, task.splits)
    split = read_split(config.split_file, people)
    if split.validation and config.validation:
        raise UserError(f"--validation {config.validation} sets people aside, but --split-file {config.split_file} names such people: leave it out")
    if config.patience and not (split.validation or config.validation):
        raise UserError(f"--patience needs people to be patient with: name some under validation in {config.split_file}, or give --validation 0.2")
    return split


def _check_sides(task: Task, fold: Fold) -> None:
    train_walks, _, test_walks = walks_of(task, fold.split)
    for side, walks in (("train", train_walks), ("test", test_walks)):
        if not walks:
            raise UserError(f"{fold.name}: nobody is left to {side} on")
    for number, name in enumerate(task.class_names):
        if number not in task.classes[train_walks]:
            raise UserError(f"{fold.name}: class {name!r} has nobody to train on; it needs people on both sides of the split")


def _of_all_folds(results: list[dict[str, Any]], scores: dict[str, Any], examination: Examination | None) -> dict[str, Any]:
    """The scores of everybody, sums of what is counted, what was examined in one, and the folds themselves."""
    return {
        **scores,
        "seconds": sum(result["seconds"] for result in results),
        **{name: results[0][name] for name in ("parameters", "classes", "left_out", "filled_share", "versions", "threads", "device")},
        **({} if examination is None else examination.of_all(results)),
        "folds": results,
    }


def _report_sides(config: TrainConfig, task: Task, every_fold: list[Fold], console: Console) -> None:
    """Says whom a model to start from knows already, and who of the data is on no side of a split that came from a file."""
    for fold in every_fold:
        if known := len(fold.split.known):
            console.print(f"{fold.name}: {known_in_words(known, len(fold.split.test))}", highlight=False)
    for fold in every_fold if config.split_file else ():
        nobody = set(task.walks.subjects) - fold.split.train - fold.split.validation - fold.split.test
        if nobody:
            who = f"{len(nobody)} people, such as {min(nobody)!r}, are" if len(nobody) > 1 else f"{min(nobody)!r} is"
            console.print(f"{who} not in {visible(config.split_file or '')}: neither trained nor tested on", highlight=False)


def _of_whom(summary: dict[str, Any]) -> str:
    return f"{summary['walks']} walks of {summary['people']} people"


def _check_backend() -> None:
    try:
        current_backend()
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
