"""Records of JSON files as arrays: what the readers of JSON have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastst.data.digits import has_number
from fastst.data.formats.named_points import are_below_names, in_order, layout_of_names
from fastst.data.frames import split_frames
from fastst.data.recording import Detections, File, Recording
from fastst.data.skeletons import SKELETONS, unnamed
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

_ABOVE_ZERO = float(np.nextafter(np.float32(0), np.float32(1)))
_RESERVED_BYTES = 64 << 20  # of a column that grows: memory of that size is moved, not copied, when it must be larger
_LARGE = 1e30  # so many pixels there are nowhere
_NOT_A_FRAME = "expected a frame number or a name with one, such as '12.jpg'"


def shortened(value: Any) -> str:
    """A value for a message."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_array(value: Any) -> TypeGuard[np.ndarray]:
    return isinstance(value, np.ndarray)


class Table:
    """The detections of a file, of which more and more are added. One that can't be used is left out, and named by its number in the file.

    Args:
        file: the file.
        layouts: the skeleton of so many joints, or of the first of them.
        min_confidence: a joint with less was not found, as the form says; left out, that is one with 0.
        box_has_size: a box is left, top, width, height; not left, top, right, bottom.
    """

    def __init__(self, file: File, layouts: Mapping[int, Layout] = SKELETONS, min_confidence: float = _ABOVE_ZERO, box_has_size: bool = False):
        self._file, self.layouts, self._min_confidence, self._box_has_size = file, layouts, min_confidence, box_has_size
        self._num_joints = 0  # of a detection, as most of the first ones have it; 0: none is known yet
        self._num_seen = self._num_bad = 0
        self._first_bad = ""
        self._frames: list[np.ndarray | pa.Array] = []  # numbers or names
        self._columns = {name: _Rows() for name in ("joints", "confidences", "boxes", "scores", "ids")}

    def __len__(self) -> int:
        return self._columns["joints"].count

    def add(
        self,
        frames: Sequence[Any],
        keypoints: Sequence[Any] | tuple[Sequence[Any], ...],
        dims: int = 2,
        confidences: Sequence[Any] | None = None,
        confident: bool = True,
        boxes: Sequence[Any] | None = None,
        scores: Sequence[Any] | None = None,
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Append n detections.

        Args:
            frames: numbers of frames or names of images.
            keypoints: arrays of `dims` numbers a joint, and one more, its confidence, if that does not stand apart; or a tuple of such a sequence for
                every axis, with a number a joint. Points below the names of joints are put in order. What is something else makes a detection bad,
                and so does anything below that is not so.
            confidences: arrays of a number a joint, where they stand apart.
            confident: whether there are confidences at all.
            boxes, scores, ids: None where there is none. Of several ids of one detection the first counts.
        """
        n = len(frames)
        if not isinstance(keypoints, tuple) and dims == 2 and any(map(are_below_names, keypoints)):
            keypoints = self._in_order(keypoints)
        wrong: dict[int, str] = {}  # why the detection of that number is bad
        frame_ids = _frame_ids(frames, wrong)
        axes = keypoints if isinstance(keypoints, tuple) else (keypoints,)
        width = 1 if isinstance(keypoints, tuple) else dims + (confident and confidences is None)
        for axis in axes:
            self._check_keypoints(axis, width, wrong)
        if confidences is not None:
            _check_sizes(confidences, self._num_joints, "confidences", wrong)
        corners = self._corners(boxes, n, wrong)
        columns: dict[str, Any] = {"boxes": corners, "scores": _scalars(scores, n, wrong), "ids": _ids(ids, n)}
        good = np.array([i for i in range(n) if i not in wrong], dtype=np.int64)
        if len(good):
            given = None if confidences is None else _stacked(confidences, good)
            values = np.concatenate([_stacked(axis, good).reshape(len(good), -1, width) for axis in axes], axis=2)
            joints, shares, finite = self._joints(values, given, dims)
            for i in good[~finite].tolist():
                wrong[i] = "keypoints has an infinite number, expected finite ones"
            good, columns["joints"] = good[finite], joints[finite]
            columns["confidences"] = None if shares is None else shares[finite]
            columns |= {name: columns[name][good] for name in ("boxes", "scores", "ids")}
            for name, column in columns.items():
                if column is not None:
                    self._columns[name].extend(column)
            self._frames.append(frame_ids[good] if is_array(frame_ids) else frame_ids.take(pa.array(good)))
        for i in sorted(wrong):
            self.leave_out(f"detection {self._num_seen + i}: {wrong[i]}")
        self._num_seen += n

    def name_frames(self, names: Mapping[Any, str]) -> None:
        """Give the images that are numbered their names, where all of these have a number."""
        numbers = np.concatenate(self._frames) if self._frames and all(map(is_array, self._frames)) else np.zeros(0)
        wrong: dict[int, str] = {}
        named = _frame_ids([names.get(number, str(number)) for number in numbers.tolist()], wrong)
        if len(numbers) and not wrong:
            self._frames = [named]

    def leave_out(self, reason: str) -> None:
        """Note that something of the file is not used; the first reason is kept."""
        self._first_bad = self._first_bad or reason
        self._num_bad += 1

    def recordings(self, **fields: Any) -> list[Recording]:
        """One for every video that the names of the images tell; `fields` are those of `Recording` that the file says.

        Raises:
            DataError: there is no usable detection.
        """
        self._check()
        detections, kinds = self._detections()
        whole = self._recording(detections, **fields)
        if kinds is None:
            return [whole]
        found = []
        kind_of = kinds.indices.to_numpy()
        if (np.diff(kind_of) < 0).any():
            order = np.argsort(kind_of, kind="stable")
            detections, kind_of = detections.take(order), kind_of[order]
        ends = np.searchsorted(kind_of, np.arange(len(kinds.dictionary)), side="right").tolist()
        for kind, (name, start, end) in enumerate(zip(_places(kinds.dictionary.to_pylist()), [0, *ends], ends, strict=False)):
            part = detections.take(slice(start, end))
            found.append(Recording(whole.source, (*whole.places, *name), whole.layout, part, left_out=whole.left_out if kind == 0 else (), **fields))
        return found

    def frame(self, **fields: Any) -> list[Recording]:
        """The recording of a file that holds one frame, and maybe nobody.

        Raises:
            DataError: there is no usable detection; or somebody is there several times.
        """
        if self._num_bad:
            self._check()
        detections = self._detections()[0] if len(self) else Detections(np.zeros(0, np.int64), np.zeros((0, 1, 2), np.float32))
        known = np.zeros(0) if detections.ids is None else detections.ids[detections.ids >= 0]
        if len(np.unique(known)) < len(known):
            reason = "the same person stands in it several times, and nothing says in which frames"
            raise DataError(
                f"{self._file.path}: {reason}; write a list of detections for every frame, or say of each detection which `frame` it is of"
            )
        return [self._recording(detections, frame_name=self._file.path.stem, **fields)]

    def _check(self) -> None:
        if not len(self):
            if self._num_bad:
                raise DataError(f"{self._file.path}, {self._first_bad}; no detection of the {self._num_bad} in it can be used")
            raise DataError(f"{self._file.path} has no detection; nobody was found in this video")

    def _recording(self, detections: Detections, **fields: Any) -> Recording:
        path = self._file.path
        left_out = []
        if self._num_bad:
            more = f" (and {self._num_bad - 1} more such detection(s))" if self._num_bad > 1 else ""
            left_out = [LeftOut(f"{self._num_bad} detection(s) of {path.name}", f"{path}, {self._first_bad}{more}")]
        return Recording(str(path), self._file.places, self._layout, detections, left_out=left_out, **fields)

    @property
    def _layout(self) -> Layout:
        return self.layouts.get(self._num_joints) or unnamed(max(self._num_joints, 1))

    def _detections(self) -> tuple[Detections, pa.DictionaryArray | None]:
        """All of them, and which video each is of; None where it is one."""
        columns = {name: rows.array() for name, rows in self._columns.items()}
        kinds = None
        if all(map(is_array, self._frames)):
            columns["frames"] = np.concatenate(self._frames)
        else:
            names = pa.chunked_array([pa.array(part).cast(pa.string()) if is_array(part) else part for part in self._frames])
            split = split_frames(names)
            assert split is not None  # every name has a number
            kinds, columns["frames"] = split
            self._frames.clear()
        for name in ("boxes", "scores"):
            if np.isnan(columns[name]).any():
                columns[name] = None
        if (columns["ids"] < 0).all():
            columns["ids"] = None
        return Detections(**columns), kinds if kinds is not None and len(kinds.dictionary) > 1 else None

    def _in_order(self, keypoints: Sequence[Any]) -> list[Any]:
        if not self._num_joints:
            layout = layout_of_names(name for points in keypoints if are_below_names(points) for name in points)
            self.layouts, self._num_joints = {layout.num_joints: layout}, layout.num_joints
        return [in_order(points, self._layout) for points in keypoints]

    def _check_keypoints(self, keypoints: Sequence[Any], width: int, wrong: dict[int, str]) -> None:
        if not self._num_joints:
            counts = Counter(value.size // width for value in keypoints if is_array(value) and value.size % width == 0)
            known = [count for count in counts if count in self.layouts]
            self._num_joints = max(known or counts, key=lambda count: counts[count], default=0)
        _check_sizes(keypoints, self._num_joints * width, "keypoints", wrong)

    def _joints(self, values: np.ndarray, given: np.ndarray | None, dims: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Positions [n, J, D] and confidences [n, J] or None, float32, and whether the numbers of each detection are finite [n].

        Args:
            values: # [n, joints in the file, dims or dims + 1]
            given: confidences, if they stand apart.  # [n * joints in the file]
        """
        kept = self._layout.num_joints
        if given is None and values.shape[2] > dims:
            given = values[:, :, dims]
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinite
            joints = values[:, :kept, :dims].astype(np.float32)
            given = None if given is None else given.reshape(values.shape[:2])[:, :kept].astype(np.float32)
        finite = np.logical_not(np.isinf(joints).any(axis=(1, 2)))
        missing = np.isnan(joints).any(axis=2)
        if given is not None:
            finite &= ~np.isinf(given).any(axis=1)
            missing |= ~(given >= self._min_confidence)
            given = np.nan_to_num(given)
        joints[missing] = np.nan
        return joints, given, finite

    def _corners(self, boxes: Sequence[Any] | None, n: int, wrong: dict[int, str]) -> np.ndarray:
        """Left, top, right, bottom; NaN where there is no box.  # [n, 4] float32"""
        corners = np.full((n, 4), np.nan, np.float32)
        if boxes is None:
            return corners
        there = np.array([box is not None for box in boxes])
        _check_sizes(boxes, 4, "box", wrong, there)
        rows = [i for i in np.flatnonzero(there).tolist() if i not in wrong or (is_array(boxes[i]) and boxes[i].size == 4)]
        if rows:
            given = np.concatenate([boxes[i] for i in rows], axis=None).reshape(-1, 4)
            if self._box_has_size:
                given = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
            for row in np.flatnonzero(~(np.abs(given) < _LARGE).all(axis=1)).tolist():
                wrong.setdefault(rows[row], f"box is {shortened(boxes[rows[row]])}, expected finite numbers")
            corners[rows] = np.where(np.abs(given) < _LARGE, given, np.nan)
        return corners


class _Rows:
    """Rows that are appended to.

    They grow where they are, since a copy would take as much memory again; what is reserved takes none until it is used.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: np.ndarray | None = None

    def extend(self, rows: np.ndarray) -> None:
        end = self.count + len(rows)
        if self._rows is None:
            self._rows = rows.copy()
        elif end > len(self._rows) and self._rows.nbytes < _RESERVED_BYTES:
            reserved = np.empty((max(end, _RESERVED_BYTES // max(rows[0].nbytes, 1) + 1), *rows.shape[1:]), rows.dtype)
            reserved[: self.count] = self._rows[: self.count]
            self._rows = reserved
        elif end > len(self._rows):
            self._rows.resize((end + len(self._rows) // 32, *rows.shape[1:]), refcheck=False)
        self._rows[self.count : end] = rows
        self.count = end

    def array(self) -> Any:
        if self._rows is not None:
            self._rows.resize((self.count, *self._rows.shape[1:]), refcheck=False)
        return self._rows


def _stacked(values: Sequence[Any], rows: np.ndarray) -> np.ndarray:
    return np.concatenate([values[i] for i in rows.tolist()], axis=None)


def _check_sizes(values: Sequence[Any], size: int, what: str, wrong: dict[int, str], which: np.ndarray | None = None) -> None:
    """Note the values that are no array of `size` numbers."""
    sizes = np.array([value.size if type(value) is np.ndarray else -1 for value in values])
    for i in np.flatnonzero(sizes != size).tolist():
        if which is None or which[i]:
            found = f"has {sizes[i]} numbers" if sizes[i] >= 0 else f"is {shortened(values[i])}"
            expected = f"{size} numbers" if size else "a list of numbers, those of one joint after those of another"
            wrong.setdefault(i, f"{what} {found}, expected {expected}")


def _frame_ids(frames: Sequence[Any], wrong: dict[int, str]) -> np.ndarray | pa.Array:
    """Frame numbers [n] int64, or names with a number."""
    if set(map(type, frames)) <= {int} and all(0 <= frame < 1 << 62 for frame in frames):
        return np.array(frames, dtype=np.int64)
    array = _names(frames)
    for i in np.flatnonzero(~has_number(array)).tolist():
        wrong.setdefault(i, f"image_id is {shortened(frames[i])}, {_NOT_A_FRAME}")
    return array


def _names(frames: Sequence[Any]) -> pa.Array:
    """Names that can be printed: one may have half a character (a lone surrogate), or more than one line."""
    try:
        array = pa.array(frames, pa.string())
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
        array = None
    if array is not None and not array.null_count and not pc.any(pc.match_substring(array, "\n")).as_py():
        return array
    return pa.array([_name(frame).encode(errors="replace").decode().replace("\n", " ") for frame in frames], pa.string())


def _name(frame: Any) -> str:
    """A frame as the name of an image; none for what is neither a name nor a number of a frame."""
    if isinstance(frame, str):
        return frame
    if type(frame) in (int, float) and 0 <= frame < 1e18 and frame == int(frame):
        return str(int(frame))
    return ""


def _scalars(values: Sequence[Any] | None, n: int, wrong: dict[int, str]) -> np.ndarray:
    """Scores, NaN where there is none.  # [n] float32"""
    if values is None:
        return np.full(n, np.nan, np.float32)
    try:
        scores = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        scores = np.full(n, np.nan)
        for i, value in enumerate(values):
            if is_array(value) and value.size == 1:
                scores[i] = value.flat[0]
            elif isinstance(value, int | float):
                scores[i] = min(value, _LARGE)
            elif value is not None:
                wrong.setdefault(i, f"score is {shortened(value)}, expected a number")
    return np.where(np.abs(scores) < _LARGE, scores, np.nan).astype(np.float32)


def _ids(values: Sequence[Any] | None, n: int) -> np.ndarray:
    """Who it is, -1 where nothing tells.  # [n] int64"""
    if values is None:
        return np.full(n, -1)
    if set(map(type, values)) <= {int} and all(abs(value) < 1 << 62 for value in values):
        return np.array(values, dtype=np.int64)
    return np.array([-1 if value is None else _id(value) for value in values], dtype=np.int64)


def _id(value: Any) -> int:
    while isinstance(value, list) and value:
        value = value[0]
    if is_array(value) and value.size:
        value = value.flat[0]
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = float(value[:18])
    return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 62 else -1


def _places(kinds: list[str]) -> list[tuple[str, ...]]:
    """What the names of images, without their frame numbers, say of the video: folders that differ, and the rest of the name."""
    paths = [PurePosixPath(kind.replace("\\", "/")) for kind in kinds]
    parts = [[*path.parts[:-1], path.stem] for path in paths]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    cleaned = [tuple(filter(None, (piece.replace("\0", "").strip("_-. /") for piece in part))) for part in parts]
    return [clean if clean and cleaned.count(clean) == 1 else (*clean, str(number + 1)) for number, clean in enumerate(cleaned)]
