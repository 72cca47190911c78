"""The scores of a run, with what they have to be seen beside: intervals, chance, and baselines."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch

from fastst.runs.load import Task
from fastst.runs.lock import check_owned
from fastst.runs.outcomes import PREDICTIONS, read_outcomes, together, write_outcomes
from fastst.runs.probes import Regression, baselines, pose_features
from fastst.runs.trainer import MEANS, Fold, walks_of
from fastst.runs.uncertainty import in_words, uncertainty


def scores_of_folds(out: Path, task: Task, folds: Sequence[Fold], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores of everybody, each said by the model that was not trained on that person, as of a run without folds; the folds' predictions.csv become
    one in `out`.

    Args:
        results: the folds' summaries. Means of their scores, which are others than those of everybody, are under `mean_of_folds` with their standard
            deviations (`std`). MAD and the share of kept edges are such means too.
    """
    outcomes = together([read_outcomes(fold.folder / PREDICTIONS) for fold in folds])
    check_owned(out)
    checksum = write_outcomes(out / PREDICTIONS, outcomes)
    said = [Regression.load(fold.folder).probabilities(pose_features(task, walks_of(task, fold.split)[2])) for fold in folds]
    means = {name: mean(result[name] for result in results) for name in MEANS}
    return {
        **outcomes.metrics(),
        **{name: means[name] for name in ("mad", "kept_share")},
        **uncertainty(outcomes),
        "predictions_sha256": checksum,
        "baselines": baselines(torch.cat(said), torch.from_numpy(outcomes.classes)),
        "known_to_init": sum(len(fold.split.known) for fold in folds),
        "mean_of_folds": means | {"std": {name: pstdev([result[name] for result in results]) for name in MEANS}},
    }


def in_lines(scores: dict[str, Any]) -> list[str]:
    """A score with its interval and with what a guess and the baselines reach, per walk and per person; MAD, and the share of kept edges."""
    of_people = {"intervals": scores["intervals"] and scores["intervals"]["per_person"], **scores["per_person"]}
    known = scores.get("known_to_init", 0)
    said = [f"{both_in_words(scores)}{_beside(scores)}", f"per person: {both_in_words(of_people)}", _of_graph(scores)]
    return [*said, *([known_in_words(known, scores["people"])] if known else [])]


def both_in_words(scores: dict[str, Any]) -> str:
    """Macro F1 and balanced accuracy, with their intervals."""
    return f"macro F1 {in_words(scores, 'macro_f1')}, balanced accuracy {in_words(scores)}"


def mean_in_words(scores: dict[str, Any]) -> str:
    """The means over the folds, which must not be taken for the scores of everybody."""
    means = scores["mean_of_folds"]
    said = (
        f"{words} {means[name]:.2f} ± {means['std'][name]:.2f}"
        for name, words in (("macro_f1", "macro F1"), ("balanced_accuracy", "balanced accuracy"))
    )
    return f"{', '.join(said)} (± standard deviation over the folds); to be quoted is the score of everybody, above"


def known_in_words(known: int, people: int) -> str:
    """That some of those tested on are not new to a model that started from another."""
    return f"{known} of these {people} people had a part in the model of --init, so it is no score of people whom the model never saw"


def seen_in_words(seen: Set[str], people: int) -> str:
    """That the model is asked about people who had a part in it."""
    return f"{len(seen)} of these {people} people had a part in the model, by name or by one of their walks, such as {min(seen)!r}"


def _beside(scores: dict[str, Any]) -> str:
    said = ""
    if scores["p_value"] is not None:
        said += f", p {scores['p_value']:.4f} against classes dealt anew among the people"
    names = {"logistic_regression": "logistic regression on joint means and deviations", "constant": "always the same guess"}
    said += "; balanced accuracy of " + " and of ".join(
        f"{words} {scores['baselines'][name]['balanced_accuracy']:.2f}" for name, words in names.items()
    )
    if scores["intervals"] is None:
        said += f"; {scores['intervals_reason']}"
    return said


def _of_graph(scores: dict[str, Any]) -> str:
    return f"MAD {scores['mad']:.3f} (0: all joints alike to the model), {scores['kept_share']:.1%} of the edges kept"
