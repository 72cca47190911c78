"""What a file says of a video before anybody decides who is who: the form in which the readers of `formats` hand over what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fastst.data.walks import LeftOut
from fastst.layouts import Layout


@dataclass(frozen=True)
class File:
    """A file of the data and the folder, or the file itself, that the user named."""

    path: Path
    root: Path

    @property
    def places(self) -> tuple[str, ...]:
        """The folders below the one named and the file's name without its ending: outermost first. Of a single file its folder's name counts too."""
        inside = self.path.relative_to(self.root).with_suffix("").parts if self.path != self.root else ()
        return inside or (self.path.resolve().parent.name, self.path.stem)


@dataclass(frozen=True)
class Detections:
    """n detections of people, in any order.

    Args:
        frames: number of the frame of each.  # [n] int64
        joints: positions, pixels or metres; NaN where the file says that a joint was not found.  # [n, J, 2 or 3] float32
        confidences: of every joint.  # [n, J] float32
        boxes: left, top, right, bottom.  # [n, 4] float32
        scores: of every detection.  # [n] float32
        ids: who it is, as the file says; -1 where it does not.  # [n] int64
    """

    frames: np.ndarray
    joints: np.ndarray
    confidences: np.ndarray | None = None
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray | slice) -> Detections:
        """Those of the row numbers, of the mask or of the slice `rows`; all of them in their order, or a slice, without a copy."""
        if (
            isinstance(rows, np.ndarray)
            and len(rows) == len(self)
            and np.array_equal(rows.nonzero()[0] if rows.dtype == bool else rows, np.arange(len(self)))
        ):
            return self

        def of(column: np.ndarray | None) -> np.ndarray | None:
            return None if column is None else column[rows]

        return Detections(self.frames[rows], self.joints[rows], of(self.confidences), of(self.boxes), of(self.scores), of(self.ids))


@dataclass(frozen=True)
class Recording:
    """One video, or one walk of a file that holds several.

    Args:
        source: the file that it is in, for messages.
        places: the names that may say whose walk it is: folders, the file, and what the file itself calls it; outermost first.
        layout: the skeleton of the joints.
        detections: who was seen.
        fps: frames a second, where the file says so.
        clock: the times that `fps` was taken from, in words, where no number of the file says it.
        image_size: width and height in pixels, where the file says so.
        attributes: what the file says of the walk: `name`, `subject`, `label`, `condition`, `view`, `split` and others.
        left_out: what the reader left out of it.
        in_shares: the form always gives positions as shares of the image's width and height; of others their numbers tell.
        frame_name: of a file that holds a single frame, its name: the frames of a video are put together by it, and `detections.frames` are 0.
    """

    source: str
    places: tuple[str, ...]
    layout: Layout
    detections: Detections
    fps: float | None = None
    image_size: tuple[int, int] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    in_shares: bool = False
    frame_name: str | None = None
    clock: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.places)

    def with_detections(self, detections: Detections) -> Recording:
        return replace(self, detections=detections)
