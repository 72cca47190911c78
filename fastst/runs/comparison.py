"""Runs side by side: their scores, what differs in their options, and whether one is better on the same people than chance would make it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastst.config import TrainConfig, differing, option
from fastst.data.splits import person
from fastst.errors import UserError, visible
from fastst.files import is_there
from fastst.runs.folder import as_written, read_run_config, read_summary
from fastst.runs.outcomes import PREDICTIONS, Outcomes, read_outcomes
from fastst.runs.uncertainty import sign_flip_p_value, uncertainty


@dataclass(frozen=True, eq=False)
class _Run:
    folder: Path
    config: TrainConfig
    outcomes: Outcomes
    kept_share: float
    known_to_init: int


def compare(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A row for every run: run, walks, people, balanced_accuracy and macro_f1 with intervals, kept_share, known_to_init (how many of the people had a
    part in the model that it started from), options that differ between the runs, and under against_first what `paired` says of it and the first run.

    Scores are of all walks tested on, with folds of everybody out of fold.

    Raises:
        UserError: fewer than two runs, or something that is none; runs of other classes, or without people tested on in both.
    """
    if len(folders) < 2:
        raise UserError(f"a comparison takes two runs or more, got {len(folders)}")
    runs = [_read(folder) for folder in folders]
    names = differing([run.config for run in runs])
    rows = []
    for run in runs:
        metrics, found = run.outcomes.metrics(), uncertainty(run.outcomes)
        row: dict[str, Any] = {"run": visible(str(run.folder))} | {name: metrics[name] for name in ("walks", "people")}
        for name in ("balanced_accuracy", "macro_f1"):
            row |= {name: metrics[name], f"{name}_interval": found["intervals"] and found["intervals"][name]}
        row |= {
            "kept_share": run.kept_share,
            "known_to_init": run.known_to_init,
            "options": {option(name): getattr(run.config, name) for name in names},
        }
        rows.append(row | {"against_first": None if run is runs[0] else paired(runs[0], run)})
    return rows


def paired(first: _Run, other: _Run) -> dict[str, Any]:
    """people, difference and p_value: of the people tested on in both runs, how much larger the share of right answers is in the other: the mean of a
    class's people, then of the classes, so that a guess of the largest class gains nothing by its size.

    The p-value is that of `sign_flip_p_value`; it is not corrected for how many runs are compared.

    Raises:
        UserError: other classes, another class of the same walk, or nobody tested on in both.
    """
    _check_same_task(first, other)
    differences = person_differences(first.outcomes, other.outcomes)
    if not differences:
        counts = (len(_right_shares(run.outcomes)) for run in (first, other))
        raise UserError(
            f"{first.folder} and {other.folder} were tested on different people, {' and '.join(map(str, counts))}, of whom none is in both: "
            "train one with --split-file and the other's split.json, or both with the same --folds and --seed"
        )
    values = class_weighed(differences)
    return {"people": len({subject for subject, _ in differences}), "difference": float(values.mean()), "p_value": sign_flip_p_value(values)}


def person_differences(first: Outcomes, other: Outcomes) -> dict[tuple[str, int], float]:
    """(person, class) -> how much larger the share of right answers is in the other, for everybody tested on in both."""
    shares = [_right_shares(outcomes) for outcomes in (first, other)]
    return {who: shares[1][who] - shares[0][who] for who in sorted(shares[0].keys() & shares[1].keys())}


def class_weighed(differences: Mapping[tuple[Any, int], float]) -> np.ndarray:
    """The values, weighed so that their mean is the mean of the classes' means.  # [people]"""
    of_class = Counter(label for _, label in differences)
    return np.array([len(differences) / (len(of_class) * of_class[label]) * value for (_, label), value in differences.items()])


def _read(folder: Path) -> _Run:
    top = folder if is_there(folder / "config.json") else folder.parent
    config = read_run_config(top if is_there(top / "config.json") else folder)
    summary = read_summary(folder)
    if summary is None:
        raise UserError(f"{folder} holds no finished run of fastst.train (no summary.json); finish it with fastst.train --resume")
    with as_written(folder):
        kept_share, known, checksum = float(summary["kept_share"]), int(summary["known_to_init"]), str(summary["predictions_sha256"])
    return _Run(folder, config, read_outcomes(folder / PREDICTIONS, checksum), kept_share, known)


def _check_same_task(first: _Run, other: _Run) -> None:
    names, theirs = first.outcomes.class_names, other.outcomes.class_names
    if names != theirs:
        raise UserError(f"{first.folder} tells {', '.join(names)} apart, {other.folder} {', '.join(theirs)}: they can't be compared")
    class_of = dict(zip(first.outcomes.walks, first.outcomes.classes.tolist(), strict=True))
    for walk, true in zip(other.outcomes.walks, other.outcomes.classes.tolist(), strict=True):
        if class_of.get(walk, true) != true:
            classes = f"{names[class_of[walk]]} in {first.folder}, but of {names[true]} in {other.folder}"
            raise UserError(f"the walk {walk} is of class {classes}: they can't be compared")


def _right_shares(outcomes: Outcomes) -> dict[tuple[str, int], float]:
    """The share of every person's walks of a class that were told rightly."""
    right: dict[tuple[str, int], list[bool]] = {}
    for subject, label, said in zip(outcomes.subjects, outcomes.classes.tolist(), outcomes.predicted.tolist(), strict=True):
        right.setdefault((person(subject), label), []).append(said == label)
    return {who: sum(walks) / len(walks) for who, walks in right.items()}
