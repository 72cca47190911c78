"""What the page shows of every walk: its poses, the edges that were kept, and what the model says with other graphs in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fastst.explanation.agreement import agreement_of_seeds
from fastst.explanation.audit import ARMS, probabilities_of_arms
from fastst.explanation.page.gait import gait_cycle
from fastst.explanation.views import body_axes
from fastst.layouts import Layout
from fastst.nn import GraphClassifier, LearnedGraph
from fastst.runs.edges import edges_of_windows
from fastst.runs.evaluation import judges_of
from fastst.runs.folder import load_model
from fastst.runs.load import Task
from fastst.runs.opened import TrainedModel
from fastst.runs.predictions import Asked
from fastst.runs.probes import pose_features


class Edges(NamedTuple):
    """Of one walk, `[P, T]`; the probability is NaN where no edge exists, or none that a window showed."""

    probability: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class Entry:
    """One walk.

    Attributes:
        walk: its number in the task.
        of_class: its class; None where that is not known.
        attributes: what else is known of it, such as its view.
        fps: None where that is not known.
        said: arm of the audit -> class probabilities; arms for which nobody else is there are missing.
        edges: None where the graph was not learned.
        agreement: correlation of its keep probabilities between the trainings of several seeds, where there are several.
        model: the fold that judges it; None in a run without folds.
        trained_on: whether its person had a part in that model.
        cycle: frames of a gait cycle, where there is one.
        nearest: the number of the entry of another class that moves most like it.
    """

    walk: int
    name: str
    subject: str
    of_class: int | None
    attributes: dict[str, str]
    fps: float | None
    poses: np.ndarray
    said: dict[str, list[float]]
    edges: Edges | None
    agreement: float | None
    model: str | None
    trained_on: bool
    cycle: int | None
    nearest: int | None = None

    @property
    def predicted(self) -> int:
        return int(np.argmax(self.said["kept"]))

    @property
    def shown_class(self) -> int:
        """The class that it is compared with: its own, or what the model says."""
        return self.predicted if self.of_class is None else self.of_class

    @property
    def kept_share(self) -> float | None:
        return None if self.edges is None else float(self.edges.kept.sum() / max(np.isfinite(self.edges.probability).sum(), 1))


def entries_of(models: Sequence[TrainedModel], task: Task, walks: Sequence[int], labelled: bool, other_people: bool = False) -> list[Entry]:
    """One for each of the walks of these numbers.

    Args:
        models: of one run; a walk is judged by the first in which its person had no part, or by the first of all.
        labelled: whether the classes of the task are those of the walks.
        other_people: these are other people than the run's, though they may have the same names.
    """
    judges = judges_of(models, task, other_people)
    judge = {walk: judges[walk][0] if judges[walk] else 0 for walk in walks}
    nearest = _nearest_of_another_class(task, walks) if labelled else [None] * len(walks)
    found: dict[int, Entry] = {}
    for number, trained in enumerate(models):
        mine = [walk for walk in walks if judge[walk] == number]
        said = probabilities_of_arms(trained.model, task, mine, trained.asked) if mine else {}
        seeds = _models_of_other_seeds(trained) if mine else []
        for row, walk in enumerate(mine):
            arms = {arm: said[arm][row].tolist() for arm in ARMS if arm in said}
            found[walk] = _entry(trained, task, walk, arms, seeds, labelled, bool(judges[walk]), len(models) > 1)
    return [replace(found[walk], nearest=place) for walk, place in zip(walks, nearest, strict=True)]


def _entry(
    trained: TrainedModel, task: Task, walk: int, said: dict[str, list[float]], seeds: list[GraphClassifier], labelled: bool, new: bool, folds: bool
) -> Entry:
    walks, model = task.walks, trained.model
    learned = isinstance(model.source, LearnedGraph)
    agreement = agreement_of_seeds([model, *seeds], task, [walk], trained.asked)["edges"] if seeds and learned else None
    return Entry(
        walk=walk,
        name=walks.names[walk],
        subject=walks.subjects[walk],
        of_class=int(task.classes[walk]) if labelled else None,
        attributes={name: value for name, values in walks.attributes.items() if (value := values[walk]) is not None},
        fps=walks.fps[walk] if walks.fps else None,
        poses=upright(walks.poses[walk], walks.layout),
        said=said,
        edges=_edges(model, task, walk, trained.asked) if learned else None,
        agreement=agreement,
        model=trained.folder.name if folds else None,
        trained_on=not new,
        cycle=gait_cycle(walks.poses[walk]),
    )


def upright(poses: np.ndarray, layout: Layout) -> np.ndarray:
    """As the page draws them: 2D x to the right and y up, 3D forwards, left and up.  # [T, J, D]"""
    if poses.shape[2] == 2:
        return poses * (1, -1)  # an image's y axis points down
    return poses @ body_axes(poses, layout).T


def _edges(model: GraphClassifier, task: Task, walk: int, asked: Asked) -> Edges:
    shape = model.graph.num_slots, task.lengths[walk]
    probability, kept = np.full(shape, np.nan, np.float32), np.zeros(shape, bool)
    for window in edges_of_windows(model, task, walk, asked):
        slot, frame = window.new.nonzero()
        probability[slot, frame + window.start] = window.probability[slot, frame]
        kept[slot, frame + window.start] = window.kept[slot, frame]
    return Edges(probability, kept)


def _models_of_other_seeds(trained: TrainedModel) -> list[GraphClassifier]:
    return [load_model(path)[0] for path in sorted(trained.folder.glob("seed-*/model.safetensors"))]


def _nearest_of_another_class(task: Task, walks: Sequence[int]) -> list[int | None]:
    """For every walk the place in `walks` of the one of another class and person that is most like it in the joints' means and deviations."""
    features = pose_features(task, list(walks))
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    classes, subjects = task.classes[list(walks)], np.array(task.walks.subjects)[list(walks)]
    found: list[int | None] = []
    for row, mine in enumerate(features):
        others = np.flatnonzero((classes != classes[row]) & (subjects != subjects[row]))
        found.append(int(others[np.square(features[others] - mine).sum(1).argmin()]) if len(others) else None)
    return found


class ClassMeans(NamedTuple):
    """Means over the walks of a class, each counted alike: of the keep probability and of the share that is kept of every slot, both `[P]`."""

    walks: int
    people: int
    probability: np.ndarray
    kept: np.ndarray


def class_means(entries: Iterable[Entry], num_classes: int) -> list[ClassMeans | None]:
    """Of every class; None of one without walks."""
    of: list[list[Entry]] = [[] for _ in range(num_classes)]
    for entry in entries:
        if entry.edges is not None:
            of[entry.shown_class].append(entry)
    return [_means(mine) if mine else None for mine in of]


def _means(entries: list[Entry]) -> ClassMeans:
    probability, kept = [], []
    for entry in entries:
        assert entry.edges is not None
        there = np.isfinite(entry.edges.probability)
        count = np.maximum(there.sum(1), 1)
        probability.append(np.where(there, entry.edges.probability, 0).sum(1) / count)
        kept.append(entry.edges.kept.sum(1) / count)
    return ClassMeans(len(entries), len({entry.subject for entry in entries}), np.mean(probability, axis=0), np.mean(kept, axis=0))
