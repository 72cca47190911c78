"""What may be said of the kept edges, in a sentence, and what it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.runs.load import Task
from fastst.runs.uncertainty import FEWEST_OF_A_CLASS, FEWEST_PEOPLE, draw_people, interval

# The name of a graph here, and in an audit; a quarter of the kept edges is taken away, the likeliest or any.
ARMS = {
    "kept": "kept",
    "all_edges": "all_edges",
    "no_edges": "no_edges",
    "random": "random",
    "without_likeliest": "deletion by_probability 0.25",
    "without_any": "deletion random 0.25",
    "mask_alone": "mask_alone",
    "other_class": "other_class",
}
_AS_GOOD_AS_NONE = 0.05  # of balanced accuracy
_NOT_A_PLACE = "The class was told where the edges were chosen; they must not be read as the place where the walks differ."


def people_scores(task: Task, walks: list[int], probabilities: dict[str, Tensor]) -> list[dict[str, Any]]:
    """For every person tested on, and every class that one walks in, the share of right answers with each graph that there is.
    Probabilities `[walks, classes]`."""
    classes = torch.from_numpy(task.classes[walks])
    right = {arm: (probabilities[name].argmax(1) == classes).double().numpy() for arm, name in ARMS.items() if name in probabilities}
    of_person: dict[tuple[str, int], list[int]] = {}
    for row, walk in enumerate(walks):
        of_person.setdefault((task.walks.subjects[walk], int(task.classes[walk])), []).append(row)
    return [
        {"subject": subject, "class": task.class_names[c], "walks": len(rows), **{arm: float(of[rows].mean()) for arm, of in right.items()}}
        for (subject, c), rows in sorted(of_person.items())
    ]


def verdict(people: list[dict[str, Any]], information: dict[str, Any], learned: bool) -> dict[str, Any]:
    """{"code", "sentence", and the intervals that it rests on}.

    People are drawn again and again with replacement, class by class (bootstrap): what holds in 95 % of the draws is said.
    """
    classes = sorted({person["class"] for person in people})
    smallest = min(sum(person["class"] == name for person in people) for name in classes)
    if not learned:
        return _say("not_learned", "No edges were chosen: the graph was not learned, so it explains nothing.")
    tested_people = len({person["subject"] for person in people})
    if tested_people < FEWEST_PEOPLE or smallest < FEWEST_OF_A_CLASS or len(classes) < 2:
        tested = f"({tested_people}, {smallest} in the smallest class)"
        return _say("too_few_people", f"Too few people were tested on {tested} to say what the edges are worth.")
    drawn = _draws(people, classes)
    score = {arm: float(np.mean([_mean(people, name, arm) for name in classes])) for arm in drawn}
    evidence: dict[str, Any] = {
        "balanced_accuracy": score,
        "kept": interval(drawn["kept"]),
        "kept_minus_random": interval(drawn["kept"] - drawn["random"]),
        "kept_minus_no_edges": interval(drawn["kept"] - drawn["no_edges"]),
        "any_removed_minus_likeliest_removed": interval(drawn["without_any"] - drawn["without_likeliest"]),
        **{arm: interval(drawn[arm]) for arm in ("mask_alone", "other_class") if arm in drawn},
    }
    return _judge(score, evidence, 1 / len(classes), information["flat"])


def _judge(score: dict[str, float], evidence: dict[str, Any], chance: float, flat: bool) -> dict[str, Any]:
    kept, none, random = (f"{score[arm]:.2f}" for arm in ("kept", "no_edges", "random"))
    if evidence["kept"][0] <= chance:
        low, high = evidence["kept"]
        return _say(
            "no_edge_stands_out",
            f"No edge stands out: for people it was not trained on the model is not shown to do better than guessing (balanced accuracy {kept}, "
            f"95 % interval {low:.2f} to {high:.2f}), so the edges that it keeps explain nothing.",
            evidence,
        )
    if evidence["kept_minus_no_edges"][0] <= 0:
        return _say(
            "graph_does_not_matter",
            f"{_no_difference('the graph', evidence['kept_minus_no_edges'])}: balanced accuracy is {kept} with the kept edges and {none} without any "
            "edge. The edges shown must not be taken for the reason.",
            evidence,
        )
    half = chance + (score["kept"] - chance) / 2
    if evidence.get("mask_alone", [0.0])[0] > half:
        return _say(
            "edges_spell_the_class",
            f"The choice of edges gives the class away: balanced accuracy is {kept} with the kept edges, and {score['mask_alone']:.2f} with them and "
            f"no poses at all. {_NOT_A_PLACE}",
            evidence,
        )
    if chance == 1 / 2 and evidence.get("other_class", [0.0, 1.0])[1] < chance:  # of two classes, the wrong one is that of the edges
        return _say(
            "edges_spell_the_class",
            f"The choice of edges gives the class away: with the edges of somebody of the other class the decision goes with the edges (balanced "
            f"accuracy {score['other_class']:.2f}, with its own {kept}). {_NOT_A_PLACE}",
            evidence,
        )
    if flat:
        return _say(
            "no_edge_stands_out",
            f"No edge stands out: every edge is about as likely to be kept. The decision uses edges (balanced accuracy {kept}, without any {none}), "
            "but none more than others.",
            evidence,
        )
    if evidence["kept_minus_random"][0] <= 0 < evidence["any_removed_minus_likeliest_removed"][0]:
        likeliest, anything = (f"{score[arm]:.2f}" for arm in ("without_likeliest", "without_any"))
        return _say(
            "edges_decide",
            f"The decision rests on the likeliest of these edges: balanced accuracy is {kept} with the kept edges, {likeliest} without the likeliest "
            f"quarter of them, and {anything} without a random quarter. As many random edges in place of the kept ones give {random}.",
            evidence,
        )
    if evidence["kept_minus_random"][0] <= 0:
        return _say(
            "any_edges_do",
            f"{_no_difference('which edges are kept', evidence['kept_minus_random'])}: balanced accuracy is {kept} with the kept ones and {random} "
            "with as many random ones. The edges shown must not be taken for the reason.",
            evidence,
        )
    return _say(
        "edges_decide",
        f"The decision rests on these edges: balanced accuracy is {kept} with them, {none} without them, and {random} with as many random ones.",
        evidence,
    )


def _no_difference(of: str, inside: list[float]) -> str:
    """That there is none if the interval is narrow; else that none is shown."""
    low, high = inside
    if max(abs(low), abs(high)) <= _AS_GOOD_AS_NONE:
        return f"The decision does not depend on {of}"
    return f"It is not shown that the decision depends on {of} (95 % interval of the difference {low:+.2f} to {high:+.2f})"


def _say(code: str, sentence: str, evidence: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"code": code, "sentence": sentence, "evidence": evidence}


def _mean(people: list[dict[str, Any]], name: str, arm: str) -> float:
    return float(np.mean([person[arm] for person in people if person["class"] == name]))


def _draws(people: list[dict[str, Any]], classes: list[str]) -> dict[str, np.ndarray]:
    """Balanced accuracy over people in every resample, with the same people for all graphs.  # [resamples] each

    Somebody with walks of several classes is drawn with all of them.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for person in people:
        rows.setdefault(person["subject"], {})[person["class"]] = person
    times = draw_people([tuple(sorted(of_classes)) for of_classes in rows.values()])
    arms = [arm for arm in ARMS if all(arm in person for person in people)]
    return {arm: np.mean([_drawn_mean(times, list(rows.values()), name, arm) for name in classes], axis=0) for arm in arms}


def _drawn_mean(times: np.ndarray, rows: list[dict[str, dict[str, Any]]], name: str, arm: str) -> np.ndarray:
    """The mean over the people of a class, in every resample.  # [resamples]"""
    values = np.array([of_classes[name][arm] if name in of_classes else 0.0 for of_classes in rows])
    return times @ values / sum(name in of_classes for of_classes in rows)
