"""Reader of the CSV form in which the poses of CASIA-B circulate: one row a frame, 17 COCO keypoints a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from fastst.data.formats.form import Form
from fastst.data.people import WALK_NAME
from fastst.data.progress import open_with_progress
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import LAYOUTS

_LAYOUT = LAYOUTS["coco17"]
_COLUMNS = ["image_name", *(f"{joint}_{what}" for joint in _LAYOUT.joints for what in ("x", "y", "conf"))]
_IMAGE_NAME = re.compile(rf"^(?:.*/)?(?P<walk>{WALK_NAME.pattern})/(?P<frame>\d{{1,18}})\.\w+$", re.ASCII)
_IMAGE_NAME_FORM = "<folder>/<subject>-<nm|bg|cl>-<sequence>-<view>/<frame>.jpg"
_NUMBER_OR_MISSING = r"(?i)^[ \t]*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?nan|)[ \t]*$"
_MAX_HEADER_CHARACTERS = 1 << 16
_BLOCK_BYTES = 4 << 20


def _read(head: str, file: File, progress: bool) -> list[Recording]:
    path = file.path
    _check_header(path)
    bad_rows = _BadRows()
    try:
        rows = _read_well_formed(path, progress)
    except (pa.ArrowInvalid, _MalformedRow):
        rows = _read_row_by_row(path, progress, bad_rows)
    return _recordings(file, rows, bad_rows)


class _MalformedRow(Exception):
    """The file has a row that must be looked at one by one."""


@dataclass
class _BadRows:
    """What is wrong with which lines. Of every walk and of the unnamed rows, the first problem and the number of lines are kept."""

    walks: dict[str, tuple[str, int]] = field(default_factory=dict)
    unnamed: tuple[str, int] | None = None

    def add(self, image_name: str, line: int, problem: str) -> None:
        named = _IMAGE_NAME.match(image_name)
        if named is None:
            problem = f"line {line}: image_name is {image_name[:80]!r}, expected {_IMAGE_NAME_FORM}"
            first, count = self.unnamed or (problem, 0)
            self.unnamed = (first, count + 1)
        else:
            first, count = self.walks.get(named["walk"], (f"line {line}: {problem}", 0))
            self.walks[named["walk"]] = (first, count + 1)

    def left_out(self, path: Path) -> list[LeftOut]:
        found = [LeftOut(walk, f"{path}, {first}{_and_more(count)}") for walk, (first, count) in self.walks.items()]
        if self.unnamed:
            first, count = self.unnamed
            found.append(LeftOut(f"{count} row(s) of {path.name}", f"{path}, {first}{_and_more(count)}"))
        return found


def _and_more(count: int) -> str:
    return f" (and {count - 1} more such line(s))" if count > 1 else ""


class _Rows:
    """The rows read so far."""

    def __init__(self) -> None:
        self.walk_numbers: dict[str, int] = {}
        self._walks: list[np.ndarray] = []
        self._frames: list[np.ndarray] = []
        self._confidences: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []

    def add(self, walks: pa.Array, frames: pa.Array, values: np.ndarray) -> None:
        """Append n rows: walk names and frame numbers [n], and the numbers of the file [n, 51]."""
        encoded = walks.dictionary_encode()
        numbers = [self.walk_numbers.setdefault(name.decode(errors="replace"), len(self.walk_numbers)) for name in encoded.dictionary.to_pylist()]
        joints = values.reshape(len(values), _LAYOUT.num_joints, 3)  # [n, 17, 3]
        confidences = np.nan_to_num(joints[:, :, 2])
        positions = joints[:, :, :2].copy()
        positions[(confidences <= 0) | np.isnan(positions).any(axis=2)] = np.nan
        self._walks.append(np.array(numbers, dtype=np.int32)[encoded.indices.to_numpy()])
        self._frames.append(frames.to_numpy())
        self._confidences.append(confidences)
        self._poses.append(positions)

    def walks(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """Every walk: its name, its frame numbers [n] in order, and their poses [n, 17, 2], best first where a frame appears twice."""
        if not self.walk_numbers:
            return
        walk, frame, poses = np.concatenate(self._walks), np.concatenate(self._frames), np.concatenate(self._poses)
        confidences = np.concatenate(self._confidences)
        order = np.lexsort((-confidences.mean(axis=1), frame, walk))
        self._poses.clear()
        ends = np.cumsum(np.bincount(walk, minlength=len(self.walk_numbers)))
        for name, rows in zip(self.walk_numbers, np.split(order, ends[:-1]), strict=True):
            yield name, frame[rows], poses[rows], confidences[rows]


def _check_header(path: Path) -> None:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(_MAX_HEADER_CHARACTERS)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}; give a pose CSV file") from None
    if not header:
        raise DataError(f"{path} is empty; expected a pose CSV with the header {','.join(_COLUMNS[:4])},...")
    found = [name.strip() for name in header.rstrip("\n").split(",")]
    advice = f"the header must be {','.join(_COLUMNS[:4])},... with x, y and conf of the {_LAYOUT.num_joints} COCO keypoints"
    for number, (name, expected) in enumerate(zip(found, _COLUMNS, strict=False), start=1):
        if name != expected:
            raise DataError(f"{path}, line 1: column {number} is {name[:80]!r}, expected {expected!r}; {advice}")
    if len(found) < len(_COLUMNS):
        missing = _COLUMNS[len(found)]
        raise DataError(f"{path}, line 1: {len(found)} columns, expected {len(_COLUMNS)}; column {len(found) + 1}, {missing!r}, is missing; {advice}")
    if len(found) > len(_COLUMNS):
        extra = found[len(_COLUMNS)]
        raise DataError(f"{path}, line 1: {len(found)} columns, expected {len(_COLUMNS)}; {extra!r} is one too many; {advice}")


def _read_well_formed(path: Path, progress: bool) -> _Rows:
    """All rows, fast. Raises `pa.ArrowInvalid` or `_MalformedRow` at the first row that can't be used."""
    rows = _Rows()
    number_columns = dict.fromkeys(_COLUMNS[1:], pa.float32())
    with (
        open_with_progress(path, path.name, progress) as file,
        _open_csv(file, number_columns, csv.ParseOptions(quote_char=False), use_threads=True) as reader,
    ):
        for batch in reader:
            values = np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns[1:]], axis=1)  # [n, 51]
            walks, frames = _split_image_names(batch.column(0))
            if walks.null_count or np.isinf(values).any():
                raise _MalformedRow
            rows.add(walks, frames, values)
    return rows


def _read_row_by_row(path: Path, progress: bool, bad_rows: _BadRows) -> _Rows:
    """All rows that can be used, slower; the others are noted in `bad_rows`."""
    rows = _Rows()
    skipped: list[int] = []

    def skip_row(row: csv.InvalidRow) -> str:
        skipped.append(row.number)
        bad_rows.add(row.text.split(",", 1)[0], row.number, f"{row.actual_columns} columns, expected {len(_COLUMNS)}")
        return "skip"

    # An empty line is kept as a row, and there is one thread: only so the number of a row tells the number of its line.
    parse_options = csv.ParseOptions(quote_char=False, ignore_empty_lines=False, invalid_row_handler=skip_row)
    text_columns = dict.fromkeys(_COLUMNS[1:], pa.binary())
    next_line = 2
    try:
        with (
            open_with_progress(path, path.name, progress) as file,
            _open_csv(file, text_columns, parse_options, use_threads=False) as reader,
        ):
            for batch in reader:
                lines = _line_numbers(next_line, batch.num_rows, skipped)
                next_line = int(lines[-1]) + 1 if len(lines) else next_line
                skipped[:] = [line for line in skipped if line >= next_line]
                _add_usable(rows, batch, lines, bad_rows)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a readable CSV file: {error}; expected one line of {len(_COLUMNS)} columns a frame") from None
    return rows


def _open_csv(file: BinaryIO, columns: dict[str, pa.DataType], parse_options: csv.ParseOptions, use_threads: bool) -> csv.CSVStreamingReader:
    """A reader of record batches: `image_name` as bytes, the others of the types `columns`; empty cells are null."""
    return csv.open_csv(
        file,
        csv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES, skip_rows=1, column_names=_COLUMNS),
        parse_options,
        csv.ConvertOptions(column_types={"image_name": pa.binary(), **columns}, null_values=[""]),
    )


def _line_numbers(first: int, count: int, skipped: Sequence[int]) -> np.ndarray:
    """The lines of `count` rows from line `first` on, where the lines `skipped` are no rows.  # [count]"""
    lines = np.arange(first, first + count + len(skipped))
    return lines[~np.isin(lines, skipped)][:count]


def _add_usable(rows: _Rows, batch: pa.RecordBatch, lines: np.ndarray, bad_rows: _BadRows) -> None:
    image_names = batch.column(0)
    walks, frames = _split_image_names(image_names)
    columns = [_numbers(cells) for cells in batch.columns[1:]]
    values = np.stack([numbers for numbers, _ in columns], axis=1)  # [n, 51]
    is_bad = np.stack([bad for _, bad in columns], axis=1)  # [n, 51]
    is_unnamed = walks.is_null().to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(is_unnamed | is_bad.any(axis=1)):
        if not any(cell.as_py() for cell in (batch.column(i)[row] for i in range(len(_COLUMNS)))):
            continue  # an empty line
        column = 1 + int(is_bad[row].argmax())
        value = (batch.column(column)[row].as_py() or b"").decode(errors="replace")
        name = image_names[row].as_py().decode(errors="replace")
        bad_rows.add(name, int(lines[row]), f"{_COLUMNS[column]} is {value[:80]!r}, expected a finite number")
    usable = pa.array(~is_unnamed)
    rows.add(walks.filter(usable), frames.filter(usable), values[~is_unnamed])


def _numbers(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Cells of text as float32 [n], NaN where missing, and whether they are neither missing nor a finite number [n]."""
    try:  # much faster than the search for what is no number, and most columns have none
        numbers = cells.cast(pa.string()).cast(pa.float32()).to_numpy(zero_copy_only=False)
        return numbers, np.isinf(numbers)
    except pa.ArrowInvalid:
        pass
    is_number = pc.fill_null(pc.match_substring_regex(cells, _NUMBER_OR_MISSING), True)
    text = pc.ascii_trim_whitespace(pc.if_else(is_number, cells, None).cast(pa.string()))
    numbers = pc.if_else(pc.equal(text, ""), None, text).cast(pa.float32()).to_numpy(zero_copy_only=False)
    return numbers, ~is_number.to_numpy(zero_copy_only=False) | np.isinf(numbers)


def _split_image_names(image_names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Walk names and frame numbers (int64); null where the image name has another form."""
    parts = pc.extract_regex(image_names, _IMAGE_NAME.pattern)
    walks, frames = (pc.if_else(parts.is_valid(), pc.struct_field(parts, name), None) for name in ("walk", "frame"))
    return walks, frames.cast(pa.string()).cast(pa.int64())


def _recordings(file: File, rows: _Rows, bad_rows: _BadRows) -> list[Recording]:
    left_out = bad_rows.left_out(file.path)
    recordings = []
    for name, frames, poses, confidences in rows.walks():
        if name in bad_rows.walks:
            continue
        is_new = np.diff(frames, prepend=frames[0] - 1) > 0
        if repeated := np.count_nonzero(~is_new):
            first = frames[~is_new][0]
            reason = f"{file.path}: {repeated} row(s) repeat a frame (first: frame {first}); the row with the highest mean confidence is used"
            left_out.append(LeftOut(f"{repeated} row(s) of {name}", reason))
        detections = Detections(frames[is_new], poses[is_new], confidences[is_new])
        recordings.append(Recording(str(file.path), (*file.places, name), _LAYOUT, detections))
    if not recordings:
        reasons = "; ".join(left.reason for left in left_out[:3]) or "it has no rows below the header"
        raise DataError(f"{file.path} has no usable walk: {reasons}")
    recordings[0] = replace(recordings[0], left_out=left_out)
    return recordings


def _recognises(head: str) -> bool:
    return head.startswith("image_name,")


FORM = Form(
    name="pose CSV",
    recognises=_recognises,
    read=_read,
    sample="image_name,nose_x,nose_y,nose_conf,left_eye_x,...\npreprocessed/001-nm-01-090/000001.jpg,165.8,78.0,0.93,...",
)
