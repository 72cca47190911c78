"""Reader of AlphaPose's results: a folder of JSON files, one video a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fastst.data.formats.form import Form
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

# AlphaPose writes a position for every joint, even where it sees none; below this score it is a guess.
MIN_KEYPOINT_SCORE = 0.05

_LAYOUT = LAYOUTS["coco17"]
_KEYPOINT_COUNTS = (17, 26)  # COCO-17, and Halpe-26, whose first 17 are COCO-17
_GROUPED_LAYOUT = LAYOUTS["openpose18"]
_FROM_GROUPED = [_GROUPED_LAYOUT.index(joint) for joint in _LAYOUT.joints]


def _recognises(content: Any) -> bool:
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], Mapping) and {"image_id", "keypoints"} <= set(content[0])
    return isinstance(content, Mapping) and any(isinstance(image, Mapping) and {"bodies", "people"} & set(image) for image in content.values())


def _read(content: Any, file: File, progress: bool) -> list[Recording]:
    entries = _listed(file.path, content)
    if not entries:
        raise DataError(f"{file.path} has no detection; nobody was found in this video")
    return [Recording(str(file.path), file.places, _LAYOUT, _detections(file.path, entries))]


def _detections(path: Path, entries: list[Any]) -> Detections:
    frames, joints, boxes, scores = [], [], [], []
    for number, entry in enumerate(entries):
        where = f"{path}, detection {number}"
        if not isinstance(entry, Mapping) or not {"image_id", "keypoints"} <= set(entry):
            raise DataError(f"{where}: expected an object with image_id and keypoints, found {_shortened(entry)}")
        frames.append(_frame_number(entry["image_id"], where))
        joints.append(_joints(entry["keypoints"], where))
        boxes.append(_numbers(entry.get("box", [np.nan] * 4), where, "box", counts=(4,)))
        scores.append(_numbers([entry.get("score", np.nan)], where, "score", counts=(1,))[0])
    if len({len(keypoints) for keypoints in joints}) > 1:
        raise DataError(f"{path} has detections with {_KEYPOINT_COUNTS[0]} and with {_KEYPOINT_COUNTS[1]} keypoints; expected one kind a file")
    keypoints = np.stack(joints)[:, : _LAYOUT.num_joints].astype(np.float32)
    corners = np.array(boxes)
    corners[:, 2:] += corners[:, :2]

    def known(column: list[Any]) -> np.ndarray | None:
        return None if np.isnan(column).any() else np.array(column, dtype=np.float32)

    return Detections(np.array(frames), keypoints[:, :, :2], keypoints[:, :, 2], known(list(corners)), known(scores))


def _listed(path: Path, results: Any) -> list[Any]:
    """The detections as a list, also where AlphaPose has grouped them by image."""
    if isinstance(results, list):
        return results
    if not isinstance(results, Mapping):
        raise DataError(f"{path} holds {_shortened(results)}; expected AlphaPose's list of detections")
    entries = []
    for image_id, image in results.items():
        bodies = (image.get("bodies") or image.get("people") or []) if isinstance(image, Mapping) else None
        if not isinstance(bodies, list):
            raise DataError(f"{path}: {image_id!r} is not an image of AlphaPose's 'cmu' or 'open' form, which has a list 'bodies' or 'people'")
        for body in bodies:
            joints = (body.get("joints") or body.get("pose_keypoints_2d")) if isinstance(body, Mapping) else None
            numbers = _numbers(joints, f"{path}, image {image_id!r}", "joints", counts=(3 * _GROUPED_LAYOUT.num_joints,))
            entries.append({"image_id": image_id, "keypoints": numbers.reshape(-1, 3)[_FROM_GROUPED].ravel()})
    return entries


def _numbers(values: Any, where: str, what: str, counts: tuple[int, ...]) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: {what} is {_shortened(values)}, expected numbers only") from None
    if numbers.ndim != 1 or len(numbers) not in counts:
        expected = " or ".join(str(count) for count in counts)
        raise DataError(f"{where}: {what} has {numbers.size} numbers, expected {expected}")
    if np.isinf(numbers).any():
        raise DataError(f"{where}: {what} has an infinite number, expected finite ones")
    return numbers


def _joints(keypoints: Any, where: str) -> np.ndarray:
    """x, y and score; all three NaN where the score is too low or one is missing.  # [17 or 26, 3]"""
    joints = _numbers(keypoints, where, "keypoints", counts=tuple(3 * count for count in _KEYPOINT_COUNTS)).reshape(-1, 3)
    joints = joints.copy()
    joints[~(joints[:, 2] >= MIN_KEYPOINT_SCORE) | np.isnan(joints).any(axis=1)] = np.nan
    return joints


def _frame_number(image_id: Any, where: str) -> int:
    """The last number in an image's name: 12 for 12, "12.jpg" and "frame_000012.jpg"."""
    number = re.search(r"(?<!\d)\d{1,18}(?=\D*$)", PurePath(str(image_id)).stem, re.ASCII)
    if number is None:
        raise DataError(f"{where}: image_id is {_shortened(image_id)}, expected a frame number or a name that ends in one, such as '12.jpg'")
    return int(number[0])


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


FORM = Form(
    name="AlphaPose's JSON",
    recognises=_recognises,
    read=_read,
    sample='[{"image_id": "12.jpg", "keypoints": [165.8, 78.0, 0.93, ...], "score": 2.9, "box": [140.1, 60.2, 51.0, 133.7], "idx": 1}, ...]',
)
