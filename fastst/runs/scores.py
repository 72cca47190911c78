"""The scores of a run, with what they have to be seen beside: intervals, chance, and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastst.data.load import Task
from fastst.runs.outcomes import PREDICTIONS, read_outcomes, together, write_outcomes
from fastst.runs.probes import baselines, pose_probabilities
from fastst.runs.trainer import Fold, walks_of
from fastst.runs.uncertainty import in_words, uncertainty


def out_of_fold(out: Path, task: Task, folds: Sequence[Fold]) -> dict[str, Any]:
    """Scores of everybody, each said by the model that was not trained on that person; the folds' predictions.csv become one in `out`."""
    outcomes = together([read_outcomes(fold.folder / PREDICTIONS) for fold in folds])
    write_outcomes(out / PREDICTIONS, outcomes)
    sides = (walks_of(task, fold.split) for fold in folds)
    logistic_regression = torch.cat([pose_probabilities(task, train, test) for train, _, test in sides])
    classes = torch.from_numpy(outcomes.classes)
    found = {**outcomes.metrics(), **uncertainty(outcomes), "baselines": baselines(logistic_regression, classes)}
    known = sum(len(fold.split.known) for fold in folds)
    return found | ({"known_to_init": known} if known else {})


def score_in_words(scores: dict[str, Any]) -> str:
    """Balanced accuracy with its interval, and what a guess and the baselines reach, in one line."""
    said = f"balanced accuracy {in_words(scores)}"
    if scores["p_value"] is not None:
        said += f", p {scores['p_value']:.4f} against classes dealt anew among the people"
    names = {"logistic_regression": "logistic regression on joint means and deviations", "constant": "always the same guess"}
    said += "".join(f"; {words} {scores['baselines'][name]['balanced_accuracy']:.2f}" for name, words in names.items() if name in scores["baselines"])
    if scores.get("known_to_init"):
        said += f"; {scores['known_to_init']} of these {scores['people']} people had a part in the model of --init"
    return said if scores["intervals"] is not None else f"{said}; {scores['intervals_reason']}"
