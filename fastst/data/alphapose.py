"""Reader of AlphaPose's results: a folder of JSON files, one video a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fastst.data.pose_csv import MAX_MISSING_FRAMES, WALK_NAME, insert_missing_frames
from fastst.data.progress import track
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.layouts import LAYOUTS

# AlphaPose writes a position for every joint, even where it sees none; below this score it is a guess.
MIN_KEYPOINT_SCORE = 0.05

# Boxes of one person in consecutive detections overlap at least this much (intersection over union).
MIN_BOX_OVERLAP = 0.3

_LAYOUT = LAYOUTS["coco17"]
_KEYPOINT_COUNTS = (17, 26)  # COCO-17, and Halpe-26, whose first 17 are COCO-17
_GROUPED_LAYOUT = LAYOUTS["openpose18"]
_FROM_GROUPED = [_GROUPED_LAYOUT.index(joint) for joint in _LAYOUT.joints]
_DEFAULT_STEM = "alphapose-results"


def read_alphapose(folder: str | Path, progress: bool = True) -> WalkSet:
    """Read one walk from every AlphaPose result file, `*.json`, in a folder and the folders below it.

    A file is a list of detections `{image_id, keypoints, score, box}` with COCO-17 or Halpe-26 keypoints (x, y, score each; of Halpe-26 the
    first 17 are used), or an object in AlphaPose's `cmu` or `open` form. `score` and `box` (x, y, width, height) may be missing.

    Where several people are seen, boxes that overlap from frame to frame are followed; who is gone for more than `MAX_MISSING_FRAMES` comes
    back as somebody new. The person is used whose detections have the largest sum of score times square root of box area; all other
    detections are left out. Poses are `[T, 17, 2]` in pixels, from the first to the last frame in which the person is detected; a joint is
    NaN where its score is below `MIN_KEYPOINT_SCORE`, and all are where the person was not detected.

    A walk is called like its file, or like the folder where the file is called `alphapose-results.json`. Where that name, or a folder's
    above it, has the form `<subject>-<nm|bg|cl>-<sequence>-<view>`, the walk is called by it and gives subject and the attributes
    `condition` and `view`; otherwise they are None and the subject is what comes before the first `_` or `-` of the name.

    Left out are files that are not such results and files in which nobody is seen.

    Args:
        folder: where the files are.
        progress: show the files read on stderr if it is a terminal.

    Raises:
        DataError: the folder can't be read, has no `.json` file, or none of them can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder with AlphaPose's result files (*.json)")
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise DataError(f"{folder} has no .json file; expected AlphaPose's result files, one a video")
    poses: list[np.ndarray] = []
    walks = WalkSet(_LAYOUT, [], [], poses, {"condition": [], "view": []})
    for path in track(paths, folder.name, progress):
        name = _walk_name(path, folder)
        try:
            if name in walks.names:
                raise DataError(f"{path}: another file holds a walk called {name!r} too; rename one of them")
            pose, others = _read_person(path)
        except DataError as error:
            walks.left_out.append(LeftOut(name, str(error)))
            continue
        if others:
            walks.left_out.append(LeftOut(f"{others} detection(s) in {name}", f"{path}: their boxes don't join up with those of the person followed"))
        parts = WALK_NAME.fullmatch(name)
        walks.names.append(name)
        walks.subjects.append(parts["subject"] if parts else re.split("[_-]", name)[0] or name)
        walks.attributes["condition"].append(parts["condition"] if parts else None)
        walks.attributes["view"].append(parts["view"] if parts else None)
        poses.append(pose)
    if not walks.names:
        reasons = "; ".join(left.reason for left in walks.left_out[:3])
        raise DataError(f"{folder} has no usable AlphaPose result in {len(paths)} .json file(s): {reasons}")
    return walks


@dataclass(frozen=True)
class _Detections:
    """The n detections of a video, sorted by frame number.

    Args:
        frames: [n] int64.
        joints: x, y, score of every keypoint [n, 17, 3].
        boxes: left, top, right, bottom [n, 4].
        scores: [n].
    """

    frames: np.ndarray
    joints: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


def _walk_name(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder).with_suffix("")
    for part in reversed(inside.parts):
        if WALK_NAME.fullmatch(part):
            return part
    return inside.name if inside.name != _DEFAULT_STEM else path.resolve().parent.name


def _read_person(path: Path) -> tuple[np.ndarray, int]:
    """Poses [T, 17, 2] of the most prominent person, and how many detections are of others."""
    detections = _read_detections(path)
    is_person = _most_prominent(detections)
    if np.isnan(detections.joints[is_person]).all():
        raise DataError(f"{path}: the person followed has no joint with a score of at least {MIN_KEYPOINT_SCORE} in any frame")
    poses = insert_missing_frames(detections.frames[is_person], detections.joints[is_person, :, :2])
    return poses, int(np.count_nonzero(~is_person))


def _read_detections(path: Path) -> _Detections:
    entries = _listed(path, _read_json(path))
    if not entries:
        raise DataError(f"{path} has no detection; nobody was found in this video")
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
    return _sorted_detections(np.array(frames), np.stack(joints)[:, : _LAYOUT.num_joints], np.array(boxes), np.array(scores))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); is the file complete?") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None


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


def _sorted_detections(frames: np.ndarray, joints: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> _Detections:
    """Boxes come as left, top, width, height. Where box or score are NaN they are made from the joints."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    positions = joints[:, :, :2]
    from_joints = np.concatenate([np.fmin.reduce(positions, axis=1), np.fmax.reduce(positions, axis=1)], axis=1)
    corners = np.nan_to_num(np.where(np.isnan(boxes).any(axis=1, keepdims=True), from_joints, corners))
    scores = np.where(np.isnan(scores), np.nan_to_num(joints[:, :, 2]).mean(axis=1), scores)
    order = np.argsort(frames, kind="stable")
    return _Detections(frames[order], joints[order], corners[order], scores[order])


def _most_prominent(detections: _Detections) -> np.ndarray:
    """Which detections are of the person with the largest sum of score times square root of box area.  # [n] bool"""
    person = _people(detections)
    prominence = np.bincount(person, weights=detections.scores * np.sqrt(_area(detections.boxes)))
    return person == prominence.argmax()


def _people(detections: _Detections) -> np.ndarray:
    """A number for the person of every detection: boxes are joined from frame to frame, those that overlap most first.  # [n]"""
    frames, boxes = detections.frames, detections.boxes
    person = np.full(len(frames), -1)
    latest: list[int] = []  # the last detection of everybody who may come again
    for now in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames)) + 1):
        latest = [before for before in latest if frames[now[0]] - frames[before] <= MAX_MISSING_FRAMES + 1]
        overlap = _overlap(boxes[latest], boxes[now])  # [people, detections of this frame]
        while overlap.max(initial=0.0) >= MIN_BOX_OVERLAP:
            before, after = np.unravel_index(overlap.argmax(), overlap.shape)
            person[now[after]] = person[latest[before]]
            overlap[before] = overlap[:, after] = 0
        new = now[person[now] < 0]
        person[new] = person.max() + 1 + np.arange(len(new))
        latest = [before for before in latest if person[before] not in person[now]] + list(now)
    return person


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [m, 4] with others [k, 4].  # [m, k]"""
    first, second = boxes[:, None], others[None]
    top_left, bottom_right = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    intersection = _area(np.concatenate([top_left, bottom_right], axis=-1))
    union = _area(first) + _area(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
