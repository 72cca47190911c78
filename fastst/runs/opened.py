"""Finished runs, opened: their models, what these are asked, and walks made ready for them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from fastst.config import TrainConfig
from fastst.data.copies import mark
from fastst.data.options import OtherFiles
from fastst.data.prepare import drop_joints, layout_for, prepare
from fastst.data.splits import Split, person
from fastst.data.walks import DataError, WalkSet
from fastst.errors import UserError
from fastst.files import is_there
from fastst.nn import GraphClassifier
from fastst.runs.folder import WRITE_AGAIN, as_written, load_model, read_json, read_run_config, read_summary
from fastst.runs.load import Task, load_task
from fastst.runs.predictions import Asked

_SIDES = ("train", "test", "validation", "initial")


_AS_IN_TRAINING = OtherFiles()


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The model of one training.

    Attributes:
        folder: where it lies; its name is that of the fold, in a run with folds.
        config: the options of the run.
        arguments: of `GraphClassifier`.
        class_names: in the order of their numbers.
        seed: which the training's random choices followed from.
        split: whom it was trained and tested on; None where the folder has no split.json.
        walks_seen: a `mark` of the prepared poses of each of the walks that had a part in the model, by which they are known under other names too.
    """

    folder: Path
    model: GraphClassifier
    config: TrainConfig
    arguments: dict[str, Any]
    class_names: list[str]
    seed: int
    split: Split | None
    walks_seen: frozenset[int] = frozenset()

    @property
    def fold(self) -> str:
        """The number of the fold, 0 in a run without."""
        return self.folder.name.removeprefix("fold-") if self.config.folds else "0"

    @property
    def asked(self) -> Asked:
        """As in the training's own test."""
        return Asked.by(self.config, self.seed)

    def has_seen(self, subject: str) -> bool:
        """Whether the person had a part in the model: was trained on, chose its epoch, or was trained on by the model that it started from.

        Raises:
            UserError: nobody knows.
        """
        if self.split is None:
            raise UserError(
                f"{self.folder} has no split.json, which says whom it was trained on; bring it back, or, if it was none of these people, say "
                "--other-people"
            )
        return person(subject) in self.split.seen


def seen_people(trained: TrainedModel, task: Task, other_people: bool = False) -> set[str]:
    """Whose walks are of people who had a part in the model, under this name, or under another with the same walk.

    Args:
        other_people: a name alone tells nothing: these are other people, though they may have the same names.

    Raises:
        UserError: it isn't known whom the model was trained on.
    """
    subjects = task.walks.subjects
    found = {subjects[walk] for walk in seen_walks(trained, task)}
    return found | {subject for subject in set(subjects) if not other_people and trained.has_seen(subject)}


def seen_walks(trained: TrainedModel, task: Task) -> set[int]:
    """The numbers of the walks that had a part in the model, be it under other names."""
    return {walk for walk, poses in enumerate(task.walks.poses) if mark(poses) in trained.walks_seen}


def open_run(run: Path, option: str = "--run") -> TrainedModel:
    """The model of a finished run without folds, or of one fold. `option` is what an error calls it.

    Raises:
        UserError: it is no run, or a control; it has folds of which one has to be named, is not finished, or can't be read.
    """
    models = open_models(run, option)
    if len(models) > 1:
        raise UserError(f"{option} {run} holds several models, since it has folds: name one of them, such as {models[0].folder}")
    return models[0]


def open_models(run: Path, option: str = "--run") -> list[TrainedModel]:
    """The models of a finished run: one for every fold.

    Raises:
        UserError: it is no run, or a control; it is not finished, or can't be read.
    """
    if run.name == "permuted" and not is_there(run / "config.json"):
        raise UserError(f"{run} is a control with classes dealt out anew: it says nothing of the walks' own; name the run beside it")
    top = run if is_there(run / "config.json") else run.parent
    if not is_there(top / "config.json"):
        raise UserError(f"{option} {run} holds no run of fastst.train (no config.json)")
    config = read_run_config(top)
    folders = [run / f"fold-{i}" for i in range(1, config.folds + 1)] if top == run and config.folds else [run]
    for folder in folders:
        if not is_there(folder / "model.safetensors"):
            raise UserError(f"{option} {folder} holds no model.safetensors; finish it with fastst.train --resume")
    return [_open(folder, config) for folder in folders]


def _open(folder: Path, config: TrainConfig) -> TrainedModel:
    model, arguments, class_names = load_model(folder / "model.safetensors")
    with as_written(folder):
        seed = index((read_summary(folder) or {}).get("seed", config.seed))
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"its seed is {seed}")
    return TrainedModel(folder, model, config, arguments, class_names, seed, _split(folder / "split.json"), _seen(folder))


def _seen(folder: Path) -> frozenset[int]:
    path = folder / "walks_seen.json"
    seen = read_json(path)
    if seen is None:
        return frozenset()
    if not isinstance(seen, list) or not all(isinstance(one, int) for one in seen):
        raise UserError(f"{path} is damaged: expected a list of numbers; {WRITE_AGAIN}")
    return frozenset(seen)


def _split(path: Path) -> Split | None:
    sides = read_json(path)
    if sides is None:
        return None
    if not isinstance(sides, dict) or not all(isinstance(sides.get(side, []), list) for side in _SIDES):
        raise UserError(f"{path} is not the split of a run: expected lists of people under train, validation and test; {WRITE_AGAIN}")
    return Split(**{side: frozenset(map(str, sides.get(side, ()))) for side in _SIDES})


def for_model(task: Task, trained: TrainedModel) -> Task:
    """The task with the model's numbering of classes.

    Raises:
        DataError: another skeleton, or a class that the model does not know.
    """
    model, class_names = trained.model, trained.class_names
    if task.walks.layout.joints != model.graph.layout.joints or task.walks.poses[0].shape[2] != len(model.pose_mean[0]):
        raise DataError(
            f"the model was trained on {model.graph.num_joints} joints in {model.pose_mean.shape[1]}D ({model.graph.layout.name}), the data has "
            f"{task.walks.layout.num_joints} in {task.walks.poses[0].shape[2]}D ({task.walks.layout.name})"
        )
    unknown = [name for name in task.class_names if name not in class_names]
    if unknown:
        raise DataError(f"the data has the classes {unknown}, which the model does not know: it tells {class_names} apart; see --label-map")
    numbers = np.array([class_names.index(name) for name in task.class_names])
    return dataclasses.replace(task, classes=numbers[task.classes], class_names=class_names)


def labelled_task(
    data: str | WalkSet,
    trained: TrainedModel,
    labels: str | None = None,
    label_map: str | None = None,
    progress: bool = True,
    files: OtherFiles = _AS_IN_TRAINING,
) -> Task:
    """Walks, prepared as in training, with the classes that the model tells apart; options that are left out are those of the run.

    Raises:
        DataError: they can't be used, have no classes or others than the model knows, or another skeleton.
    """
    config, walks = files.over(trained.config), data if isinstance(data, WalkSet) else None
    options = dataclasses.replace(
        config,
        data=data if isinstance(data, str) else config.data,
        planted=config.planted if data == "synthetic" else (),
        labels=labels,
        label_map=config.label_map if label_map is None else label_map,
    )
    return for_model(load_task(options, progress, trained.model.graph.layout, min_classes=1, walks=walks), trained)


def unlabelled_task(walks: WalkSet, trained: TrainedModel) -> Task:
    """Walks prepared as in training. Their classes are not known: every one is given the number 0, which nothing looks at.

    Raises:
        DataError: another skeleton.
    """
    walks = drop_joints(walks, trained.config.drop_joints)
    prepared, filled = prepare(walks, layout_for(trained.model.graph.layout, walks.layout), trained.config.hops + 1, trained.config)
    return for_model(Task(prepared, np.zeros(len(prepared), int), trained.class_names, filled), trained)
