"""Reader of NTU RGB+D's `.skeleton` files: what a Kinect v2 saw, as text."""

from __future__ import annotations

import io
import os
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv

from fastst.data.formats.form import Form
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError
from fastst.files import open_file
from fastst.layouts import LAYOUTS

_LAYOUT = LAYOUTS["ntu25"]
_JOINTS = _LAYOUT.num_joints
_BODY_FIELDS = 10  # body id, whether edges are clipped (1), states of the hands (4), whether it is restricted, lean in x and y, how it was tracked
# x, y, z in metres, then pixels in the depth and the colour image and the rotation, which are not used, and how the joint was tracked.
_JOINT_COLUMNS = ("x", "y", "z", *(f"unused {number}" for number in range(8)), "state")
_USED_COLUMNS = ("x", "y", "z", "state")
_NOT_TRACKED, _TRACKED = 0, 2  # 1 is inferred from other joints
_KINECT_FPS = 30.0
_BLOCK_BYTES, _BLOCK_BODIES = 1 << 22, 1 << 11  # parsed at a time
# The number of frames, perhaps frames without anybody, a number of bodies, a body id and numbers; or nobody at all.
_BLANK = r"[ \t\r]*"
_BEGINNING = re.compile(
    rf"\s*\d{{1,7}}{_BLANK}\n(?:{_BLANK}0{_BLANK}\n)*(?:{_BLANK}[1-9]\d?{_BLANK}\n{_BLANK}\d{{1,20}}(?:[ \t]+[-+.\deE]+){{6,9}}|{_BLANK}0\s*$)",
    re.ASCII,
)


def _read(head: str, file: File, progress: bool) -> list[Recording]:
    """The bodies of a file: its frames, in each the bodies, of each the 25 joints, a line a joint.

    Raises:
        DataError: a line is not what it should be, or the file was cut off; with the line.
    """
    path = file.path
    with open_file(path) as content:
        lines = _Lines(content)
        frames, people, first_lines = _bodies(path, lines)
        joints, confidences = _joints(path, lines, first_lines)
    detections = Detections(frames, joints, confidences, ids=people)
    return [Recording(str(path), file.places, _LAYOUT, detections, _KINECT_FPS)]


class _Lines:
    """The lines of a file that isn't in memory."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, size, block = content, 0, b"\n"
        number = np.uint32 if os.fstat(content.fileno()).st_size < 1 << 31 else np.uint64
        starts = [np.zeros(1, number)]
        while more := content.read(_BLOCK_BYTES):
            block = more
            starts.append((np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + (size + 1)).astype(number))
            size += len(block)
        if not block.endswith(b"\n"):
            starts.append(np.array([size], number))
        self._starts = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> bytes:
        return self.block(at, 1).strip()

    def block(self, at: int, count: int) -> bytes:
        """Lines `at` to `at + count`, with their ends."""
        start, end = int(self._starts[at]), int(self._starts[at + count])
        self._content.seek(start)
        block = self._content.read(end - start)
        if len(block) < end - start:
            raise DataError(f"{self._content.name} was cut off while it was read; try again when it is written to its end")
        return block


def _bodies(path: Path, lines: _Lines) -> tuple[np.ndarray, np.ndarray, array[int]]:
    """Of every body in every frame the number of the frame and of the person, both [n], and at which of the lines its joints begin."""
    ids: dict[bytes, int] = {}
    frames, people, first_lines = array("q"), array("q"), array("q")
    at = 1
    for frame in range(_count(path, lines, 0, "the number of frames")):
        bodies = _count(path, lines, at, f"the number of bodies in frame {frame}")
        at += 1
        for _ in range(bodies):
            body = lines[at].split() if at < len(lines) else []
            if len(body) != _BODY_FIELDS:
                raise _wrong(path, lines, at, f"the {_BODY_FIELDS} numbers of a body in frame {frame}")
            if _count(path, lines, at + 1, "the number of joints") != _JOINTS:
                raise _wrong(path, lines, at + 1, f"the {_JOINTS} joints of NTU RGB+D")
            frames.append(frame)
            people.append(ids.setdefault(body[0], len(ids)))
            first_lines.append(at + 2)
            at += 2 + _JOINTS
            if at > len(lines):
                raise _wrong(path, lines, len(lines), f"{_JOINTS} joints of a body in frame {frame}")
    rest = next((number for number in range(at, len(lines)) if lines[number]), None)
    if rest is not None:
        raise _wrong(path, lines, rest, f"the end of the file, whose first line says that it has {int(lines[0])} frames")
    return (
        np.frombuffer(frames, np.int64) if frames else np.zeros(0, np.int64),
        np.frombuffer(people, np.int64) if people else np.zeros(0, np.int64),
        first_lines,
    )


def _count(path: Path, lines: _Lines, at: int, what: str) -> int:
    text = lines[at] if at < len(lines) else b""
    if not text.isdigit() or len(text) > 7:
        raise _wrong(path, lines, at, what)
    return int(text)


def _joints(path: Path, lines: _Lines, first_lines: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the joints of every body, NaN where one is not tracked [n, J, 3], and how well they are [n, J], both float32."""
    joints, confidences = np.empty((len(first_lines), _JOINTS, 3), np.float32), np.empty((len(first_lines), _JOINTS), np.float32)
    for start in range(0, len(first_lines), _BLOCK_BODIES):
        some = first_lines[start : start + _BLOCK_BODIES]
        try:
            found = _parsed(b"".join(lines.block(at, _JOINTS) for at in some))
        except pa.ArrowInvalid:  # spaces of another kind, or a line that is none of a joint
            found = _parsed_by_line(path, lines, some)
        numbers = found.reshape(-1, _JOINTS, len(_USED_COLUMNS))
        numbers[numbers[..., 3] == _NOT_TRACKED, :3] = np.nan
        joints[start : start + len(some)], confidences[start : start + len(some)] = numbers[..., :3], numbers[..., 3] / _TRACKED
    return joints, confidences


def _parsed(text: bytes) -> np.ndarray:
    table = csv.read_csv(
        io.BytesIO(text),
        csv.ReadOptions(column_names=_JOINT_COLUMNS),
        csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=dict.fromkeys(_JOINT_COLUMNS, pa.float32()), include_columns=_USED_COLUMNS, null_values=[]),
    )
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def _parsed_by_line(path: Path, lines: _Lines, first_lines: Sequence[int]) -> np.ndarray:
    numbers = np.empty((len(first_lines) * _JOINTS, len(_USED_COLUMNS)), np.float32)
    for row, at in enumerate(first + joint for first in first_lines for joint in range(_JOINTS)):
        fields = lines[at].split()
        try:
            if len(fields) != len(_JOINT_COLUMNS):
                raise ValueError
            numbers[row] = [float(fields[column]) for column in (0, 1, 2, -1)]
        except ValueError:
            raise _wrong(path, lines, at, f"the {len(_JOINT_COLUMNS)} numbers of the joint {_LAYOUT.joints[row % _JOINTS]}") from None
    return numbers


def _wrong(path: Path, lines: _Lines, at: int, expected: str) -> DataError:
    if not any(lines[number] for number in range(at, len(lines))):
        return DataError(f"{path}, line {at + 1}: the file ends here, expected {expected}; was it copied to the end?")
    return DataError(f"{path}, line {at + 1} is {lines[at].decode(errors='replace')[:80]!r}, expected {expected}")


FORM = Form(
    name="NTU RGB+D's .skeleton",
    recognises=lambda head: _BEGINNING.match(head) is not None,
    read=_read,
    sample="103\n1\n72057594037931101 0 1 1 0 0 0 -0.23 -0.17 2\n25\n0.218 0.173 3.786 277.4 191.8 1036.2 519.2 -0.206 0.053 0.969 -0.124 2\n...",
)
