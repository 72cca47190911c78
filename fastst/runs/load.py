"""From the options of a command to walks that a model can be trained or tested on."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from fastst.config import TrainConfig
from fastst.data.copies import without_copies
from fastst.data.labels import Labels, apply_labels, map_labels, mapped_values, read_labels
from fastst.data.planted import Planted, planted_truth
from fastst.data.prepare import Filled, choose_layout, drop_joints, layout_for, prepare
from fastst.data.read import read_walks
from fastst.data.synthetic import synthetic_walks
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.errors import UserError, visible
from fastst.layouts import Layout

# Classes that are numbers: so many different ones are a measure if most have a single person, and so many if they have fewer than so many people.
_FEW, _MANY, _PEOPLE_OF_A_CLASS = 5, 10, 10


@dataclass(frozen=True)
class Task:
    """Prepared walks with a class for each.

    Args:
        walks: what could be used; `walks.left_out` says what could not.
        classes: the number of every walk's class.  # [walks]
        class_names: names of the classes, in alphabetical order.
        filled: how many joint positions had to be filled in.
        splits: train or test for every subject, where the labels say so.
        truth: what tells the classes apart in the prepared walks, where it was planted.
    """

    walks: WalkSet
    classes: np.ndarray
    class_names: list[str]
    filled: Filled
    splits: dict[str, str] | None = None
    truth: Planted | None = None

    @property
    def lengths(self) -> list[int]:
        return [len(poses) for poses in self.walks.poses]

    def walk_called(self, name: str) -> int:
        """The number of the walk of that name.

        Raises:
            UserError: there is none.
        """
        names, name = self.walks.names, visible(name)
        if name not in names:
            near = difflib.get_close_matches(name, names, n=5, cutoff=0.3) or names[:5]
            raise UserError(f"--walk {name}: none of the {len(names)} walks is called so; there are {', '.join(near)}, for instance")
        return names.index(name)

    def description(self) -> str:
        pairs = set(zip(self.walks.subjects, self.classes.tolist(), strict=True))
        people = Counter(number for _, number in pairs)
        classes = ", ".join(f"{name} ({people[number]} people)" for number, name in enumerate(self.class_names))
        several = sum(count > 1 for count in Counter(subject for subject, _ in pairs).values())
        if several:
            classes += f"; {several} of the people walk in several classes, and count once in each"
        return (
            f"{len(self.walks)} walks of {len(set(self.walks.subjects))} people, {self.walks.layout.num_joints} joints "
            f"({self.walks.layout.name}), {sum(self.lengths)} frames; classes: {classes}; "
            f"{self.filled.share:.1%} of the joint positions were missing and filled in"
        )


def load_task(config: TrainConfig, progress: bool = True, layout: Layout | None = None, min_classes: int = 2, walks: WalkSet | None = None) -> Task:
    """Reads the data, or takes walks that were read, gives every walk its class, and prepares the poses: for `layout`, a model's, or as the options
    say. No walk is there twice, as it would be on both sides of a split.

    Raises:
        DataError: nothing can be used, or there are fewer than `min_classes` classes.
    """
    labels = None if config.labels is None else read_labels(config.labels)
    walks = drop_joints(_read(config, labels, progress) if walks is None else walks, config.drop_joints)
    wanted = choose_layout(config.layout, walks.layout) if layout is None else layout_for(layout, walks.layout)
    truth = None if walks.planted is None else planted_truth(walks, wanted)
    splits = None
    if labels is not None:
        walks, splits = apply_labels(walks, labels), labels.splits
    if min_classes > 1:
        _check_mapped(walks, config)
    walks, values = _with_classes(walks, config)
    if min_classes > 1:
        _check_no_measure(config, walks.subjects, values)
    prepared, filled = prepare(walks, wanted, config.hops + 1, config)
    value_of = dict(zip(walks.names, values, strict=True))
    prepared = without_copies(prepared, [value_of[name] for name in prepared.names])
    names = sorted({value_of[name] for name in prepared.names})
    if len(names) < min_classes:
        raise DataError(f"all walks are of one class, {names[0]!r}; to tell classes apart it takes two: see --target and --label-map")
    classes = np.array([names.index(value_of[name]) for name in prepared.names])
    return Task(prepared, classes, names, filled, splits, truth)


def _read(config: TrainConfig, labels: Labels | None, progress: bool) -> WalkSet:
    if config.data != "synthetic":
        return read_walks(config.data, config, progress, labels)
    try:
        return synthetic_walks(config.people, config.walks_per_person, config.seed, list(config.planted) or None, planted_kind=config.planted_kind)
    except ValueError as error:
        raise DataError(f"--data synthetic: {error}") from None


def _check_no_measure(config: TrainConfig, subjects: list[str], values: list[str]) -> None:
    """An error where the classes are numbers with few people each, such as an age: these are no classes, but a measure of people."""
    number_of = _numbers(subjects, values)
    if number_of is None:
        return
    different, people = len(set(number_of.values())), len(number_of)
    if (different >= _FEW and people < 2 * different) or (different >= _MANY and people < _PEOPLE_OF_A_CLASS * different):
        low, high = min(values, key=float), max(values, key=float)
        raise DataError(
            f"--target {config.target}: its values are numbers, {different} different ones from {low} to {high} for {people} people, and each would "
            "be a class. Make groups of them: in a column of the --labels file that --target names, or by --label-map, which takes value by value, "
            f"such as '{low}=low,*=high'"
        )


def _numbers(subjects: list[str], values: list[str]) -> dict[str, float] | None:
    """The number of every person; None where some value is no number, or a person has several."""
    number_of: dict[str, float] = {}
    for subject, value in zip(subjects, values, strict=True):
        try:
            number = float(value)
        except ValueError:
            return None
        if number_of.setdefault(subject, number) != number:
            return None
    return number_of


def _check_mapped(walks: WalkSet, config: TrainConfig) -> None:
    """An error where the map names a value that no walk has, such as a misspelled one, whose walks `*` would take."""
    values = {value for value in walks.attributes.get(config.target, ()) if value is not None}
    named = [value for value in mapped_values(config.label_map) if value != "*"]
    strangers = [value for value in named if value not in values]
    if strangers and values and len(strangers) < len(named) + ("*" in mapped_values(config.label_map)):
        raise DataError(f"--label-map {config.label_map!r}: no walk has the {config.target} {strangers[0]!r}; there are {sorted(values)}")


def _with_classes(walks: WalkSet, config: TrainConfig) -> tuple[WalkSet, list[str]]:
    """The walks that have a class, and its name for each."""
    if config.target not in walks.attributes:
        known = ", ".join(sorted(walks.attributes)) or "nothing"
        raise DataError(
            f"--target {config.target}: the data says {known} of a walk; name one of these, or give a file with "
            f"--labels (columns subject,{config.target})"
        )
    values = walks.attributes[config.target]
    mapped = map_labels(values, config.label_map)
    kept = [i for i, value in enumerate(mapped) if value is not None]
    without = Counter(value for value, label in zip(values, mapped, strict=True) if label is None)
    if not kept:
        raise DataError(
            f"--label-map {config.label_map!r} has no class for any walk; the values of {config.target!r} are {sorted(map(str, without))}"
        )
    left_out = [
        LeftOut(f"{config.target} {value!r}", f"{count} walk(s): the label map has no class for it" if value is not None else f"{count} walk(s)")
        for value, count in without.items()
    ]
    labelled = replace(walks.take(kept), left_out=[*walks.left_out, *left_out])
    return labelled, [label for label in mapped if label is not None]
