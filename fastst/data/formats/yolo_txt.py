"""Reader of the label files of YOLO pose models (Ultralytics, darknet): a file a frame, a line a person."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from fastst.data.formats.columns import layout_of
from fastst.data.formats.content import encoding_of, head_of
from fastst.data.formats.form import Form
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.files import open_file
from fastst.layouts import LAYOUTS, Layout

_FILES_LOOKED_AT = 50  # of a folder, to see how long its lines are
_BOX = 5  # numbers of a class and a box
_LINE = "class cx cy w h (x y [v]) ... [confidence] [track id]"


def _recognises(text: str) -> bool:
    line = next((line for line in text.splitlines() if line.strip()), "")
    numbers = _numbers(line)
    return numbers is not None and len(numbers) >= _BOX and numbers[0] == int(numbers[0]) >= 0 and all(-1 <= share <= 2 for share in numbers[1:_BOX])


def _read(text: str, file: File, progress: bool) -> list[Recording]:
    path = file.path
    with open_file(path) as opened:
        lines = opened.read().decode(encoding_of(head_of(path)), errors="replace").splitlines()
    people: list[list[float]] = []
    left_out = []
    usual = _usual(path.parent, path.parent.stat().st_mtime_ns)
    for number, line in enumerate(lines, start=1):
        numbers = _numbers(line)
        if not line.strip():
            continue
        if numbers is not None and usual is not None and len(numbers) > _BOX and _kind_of(path, numbers)[:2] != usual:
            reason = (
                f"{len(numbers)} numbers, {usual[0]} joints of {usual[1]} numbers are usual in {path.parent}; was the file cut off? write it again"
            )
            left_out.append(LeftOut(f"a person in {path.name}", f"{path}, line {number}: {reason}"))
            continue
        if numbers is None or (people and len(numbers) != len(people[0])):
            found = f"{line[:80]!r}" if numbers is None else f"{len(numbers)} numbers, the line before has {len(people[0])}"
            left_out.append(LeftOut(f"a person in {path.name}", f"{path}, line {number}: {found}; expected {_LINE}"))
            continue
        people.append(numbers)
    if not people:
        raise DataError(left_out[0].reason)
    return [_recording(file, np.array(people), left_out)]


def _recording(file: File, people: np.ndarray, left_out: list[LeftOut]) -> Recording:
    joints, size, more = _kind(file.path, people)
    keypoints = people[:, _BOX : _BOX + joints * size].reshape(len(people), joints, size).astype(np.float32)
    after = people[:, people.shape[1] - more :]  # confidence, track id, or both
    is_id = np.array([(column == np.round(column)).all() for column in after.T], bool)
    scores = next((column.astype(np.float32) for column in after[:, ~is_id].T), None)
    ids = next((column.astype(np.int64) for column in after[:, is_id].T[-1:]), np.full(len(people), -1))
    confidences = keypoints[:, :, 2] if size == 3 else None
    positions = keypoints[:, :, :2].copy()
    if confidences is not None:
        positions[confidences <= 0] = np.nan
    detections = Detections(np.zeros(len(people), np.int64), positions, confidences, None, scores, ids)
    return Recording(str(file.path), file.places, _layout(joints), detections, left_out=left_out, in_shares=True, frame_name=file.path.stem)


@lru_cache(maxsize=4)  # every file of a folder asks
def _usual(folder: Path, changed: int) -> tuple[int, int] | None:
    """Joints and numbers a joint of most lines in the first label files of a folder, last changed at `changed`; None if there is a single file."""
    kinds: Counter[tuple[int, int]] = Counter()
    files = 0
    for path in sorted(folder.glob("*.txt"))[:_FILES_LOOKED_AT]:
        lines = [numbers for line in _lines_of(path) if (numbers := _numbers(line)) is not None and len(numbers) >= _BOX + 4]
        kinds.update(_kind_of(path, numbers)[:2] for numbers in lines)
        files += bool(lines)
    return kinds.most_common(1)[0][0] if files > 2 else None


def _lines_of(path: Path) -> list[str]:
    try:
        with open_file(path) as opened:
            return opened.read().decode(errors="replace").splitlines()
    except (DataError, OSError):  # who reads that file says so
        return []


def _kind_of(path: Path, numbers: list[float]) -> tuple[int, int, int]:
    return _kind(path, np.array([numbers]))


def _kind(path: Path, people: np.ndarray) -> tuple[int, int, int]:
    """Joints, numbers a joint, and numbers that follow them."""
    count = people.shape[1] - _BOX
    if count < 4:
        raise DataError(f"{path} has boxes and no keypoints: {people.shape[1]} numbers a line; expected {_LINE}, as a YOLO pose model writes it")
    is_whole = (people == np.round(people)).all(axis=0)
    has_id_and_confidence = is_whole[-1] and not is_whole[-2] and not is_whole[_BOX + 2 :: 3].all()  # else 36 numbers are 12 joints with flags
    for size in (3, 2):
        more = count - 17 * size
        if more in (0, 1) or (more == 2 and has_id_and_confidence):
            return 17, size, more
    return count // 3, 3, count % 3


def _layout(joints: int) -> Layout:
    return LAYOUTS["coco17"] if joints == 17 else layout_of([str(joint) for joint in range(joints)])[0]


def _numbers(line: str) -> list[float] | None:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


FORM = Form(
    name="label files of YOLO pose models",
    recognises=_recognises,
    read=_read,
    sample="0 0.512 0.488 0.121 0.633 0.520 0.210 0.98 0.526 0.201 0.97 ...",
)
