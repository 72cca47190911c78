"""A run tested on walks with classes: people who had a part in the model apart from those who had none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastst.errors import UserError
from fastst.runs.load import Task
from fastst.runs.metrics import KeptEdges
from fastst.runs.opened import TrainedModel, seen_people
from fastst.runs.outcomes import Outcomes, together
from fastst.runs.predictions import Predictions, measure, outcomes_of, predict_walks
from fastst.runs.probes import Regression, baselines, pose_features
from fastst.runs.uncertainty import intervals, uncertainty

UNSEEN, SEEN = "people it was not trained on", "people it was trained on"
_NOT_KNOWN = "(not known)"


def evaluate_models(models: Sequence[TrainedModel], task: Task, by: Sequence[str] = (), other_people: bool = False) -> dict[str, Any]:
    """The score of a run on walks, made ready by `for_model`.

    Every walk is judged by the mean of the models in which its person had no part: with folds, by the fold that tested on that person, and by all
    folds where the person is new. The score is of these people; those who had a part in every model are reported apart. Where all people had, the
    score is theirs, and `on` says so.

    Args:
        by: attributes of the walks; the score is also given for every value of each.
        other_people: these are other people than the run's, though they may have the same names.

    Raises:
        UserError: an attribute that the data don't have; it isn't known whom the model was trained on.

    Returns:
        The scores, those of people trained on under `trained_on`; tables under `by`, a `prediction` for every walk under `predictions`, and a row for
        everybody under `persons`.
    """
    _check_by(task, by)
    judges = judges_of(models, task, other_people)
    seen = [not mine for mine in judges]
    had_part = dict(zip(task.walks.subjects, seen, strict=True))
    judges = [mine or list(range(len(models))) for mine in judges]
    walks_of = {on: [walk for walk, was in enumerate(seen) if was == had] for on, had in ((UNSEEN, False), (SEEN, True))}
    tested = {on: _test(models, task, walks, judges) for on, walks in walks_of.items() if walks}
    on = UNSEEN if UNSEEN in tested else SEEN
    scored, scores = tested[on]
    outcomes = together([of for of, _ in tested.values()]).chosen(np.argsort([*walks_of[UNSEEN], *walks_of[SEEN]]))
    return {
        "on": on,
        **scores,
        "by": {column: _table(task, scored, walks_of[on], column) for column in by},
        "trained_on": tested[SEEN][1] if len(tested) > 1 else None,
        "predictions": [row | {"trained_on": was} for row, was in zip(outcomes.rows(), seen, strict=True)],
        "persons": [row | {"trained_on": had_part[row["subject"]]} for row in outcomes.person_rows()],
    }


def judges_of(models: Sequence[TrainedModel], task: Task, other_people: bool) -> list[list[int]]:
    """For every walk the numbers of the models in which its person had no part."""
    judges: list[list[int]] = [[] for _ in task.walks.subjects]
    for number, trained in enumerate(models):
        known = seen_people(trained, task, other_people)
        for mine, subject in zip(judges, task.walks.subjects, strict=True):
            if subject not in known:
                mine.append(number)
    return judges


def _test(models: Sequence[TrainedModel], task: Task, walks: list[int], judges: list[list[int]]) -> tuple[Outcomes, dict[str, Any]]:
    predictions = _predict(models, task, walks, judges)
    folds = ["+".join(models[number].fold for number in judges[walk]) for walk in walks]
    outcomes = outcomes_of(task, predictions, folds)
    beside = baselines(_regression(models, task, walks, judges), torch.from_numpy(outcomes.classes))
    return outcomes, {**measure(task, predictions), **uncertainty(outcomes), "baselines": beside}


def _regression(models: Sequence[TrainedModel], task: Task, walks: list[int], judges: list[list[int]]) -> torch.Tensor:
    """What logistic regression says, trained on the people of every walk's judges; the mean over these.  # [walks, classes]"""
    features, of = pose_features(task, walks), [Regression.load(trained.folder) for trained in models]
    said = [torch.stack([of[number].probabilities(row) for number in judges[walk]]).mean(0) for walk, row in zip(walks, features, strict=True)]
    return torch.stack(said)


def _predict(models: Sequence[TrainedModel], task: Task, walks: list[int], judges: list[list[int]]) -> Predictions:
    """The mean of what every walk's judges say; MAD and kept edges are means over all that they looked at."""
    total = torch.zeros(len(walks), len(task.class_names), dtype=torch.float64)
    kept, mad = KeptEdges(models[0].model.graph, task.class_names), 0.0
    for number, trained in enumerate(models):
        rows = [row for row, walk in enumerate(walks) if number in judges[walk]]
        if rows:
            said = predict_walks(trained.model, task, [walks[row] for row in rows], trained.asked)
            total[rows] += said.probabilities
            kept.include(said.kept)
            mad += said.mad * len(rows)
    count = torch.tensor([len(judges[walk]) for walk in walks])
    return Predictions(walks, total / count[:, None], mad / int(count.sum()), kept)


def _check_by(task: Task, by: Sequence[str]) -> None:
    for column in by:
        if column not in task.walks.attributes:
            known = ", ".join(sorted(task.walks.attributes)) or "nothing"
            raise UserError(f"--by {column}: of a walk the data tells {known}; name one of these, or give a file with --labels that has the column")


def _table(task: Task, outcomes: Outcomes, walks: list[int], column: str) -> list[dict[str, Any]]:
    """Of every value of an attribute, walks, people, and the score. Row i of the outcomes is of walk walks[i]."""
    values = [task.walks.attributes[column][walk] for walk in walks]
    table = []
    for value in sorted(set(values), key=_in_order):
        part = outcomes.chosen([row for row, has in enumerate(values) if has == value])
        metrics, inside = part.metrics(), intervals(part)
        row: dict[str, Any] = {name: metrics[name] for name in ("walks", "people")}
        row |= {"classes": [outcomes.class_names[number] for number in np.unique(part.classes)], "balanced_accuracy": metrics["balanced_accuracy"]}
        table.append({column: _NOT_KNOWN if value is None else value, **row, "interval": inside and inside["balanced_accuracy"]})
    return table


def _in_order(value: str | None) -> tuple[int, float, str]:
    """Numbers by their size, then words, then what is not known."""
    if value is None:
        return 2, 0.0, ""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
