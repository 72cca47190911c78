"""The one form in which every reader hands over recorded walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fastst.errors import DataError as DataError
from fastst.errors import visible
from fastst.layouts import Layout

if TYPE_CHECKING:
    from fastst.data.planted import Planted


@dataclass(frozen=True)
class LeftOut:
    """A walk, a person or a part of a file that is not used, and why; both `visible`, since files of any name and content are told of."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", visible(self.name))
        object.__setattr__(self, "reason", visible(self.reason))


@dataclass(frozen=True)
class Whose:
    """How it was found out whose walks they are.

    Args:
        lines: the ways, each with examples, to be shown to the user.
        not_understood: names of the walks of which nothing says who walks. Each counts as a person of its own.
    """

    lines: tuple[str, ...] = ()
    not_understood: tuple[str, ...] = ()


@dataclass
class WalkSet:
    """Recorded walks of one layout.

    Args:
        layout: the skeleton of every pose.
        names: a name for every walk, unique, for example `012-nm-01-090`.
        subjects: who walks, for every walk. Splits are by subject.
        poses: for every walk its joint positions `[T, J, D]`, float32, D = 2 (pixels) or 3 (metres); NaN where a joint was not seen.
            A list, or any sequence that makes the poses when asked.
        attributes: what can be predicted: column name -> one value for every walk, or None where it is not known.
            `label` is the default target.
        left_out: what the reader left out, to be shown to the user.
        planted: what tells the classes apart, where that was planted; it knows walks by their names.
        paths: folders and names under which every walk was found, joined by `/`; none for walks that were not read.
        fps: frames a second of every walk, None where that is not known; none for walks that were not read.
        whose: how it was found out whose walks they are.
        notes: what the user should know of the data besides.
    """

    layout: Layout
    names: list[str]
    subjects: list[str]
    poses: Sequence[np.ndarray]
    attributes: dict[str, list[str | None]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    planted: Planted | None = None
    paths: list[str] = field(default_factory=list)
    fps: list[float | None] = field(default_factory=list)
    whose: Whose = Whose()
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int], poses: Sequence[np.ndarray] | None = None) -> WalkSet:
        """The walks of these numbers, if wanted with other poses."""
        if poses is None:
            poses = self.poses if len(rows) == len(self) else [self.poses[i] for i in rows]
        return replace(
            self,
            names=[self.names[i] for i in rows],
            subjects=[self.subjects[i] for i in rows],
            poses=poses,
            attributes={column: [values[i] for i in rows] for column, values in self.attributes.items()},
            paths=[self.paths[i] for i in rows] if self.paths else [],
            fps=[self.fps[i] for i in rows] if self.fps else [],
        )
