"""What a number in a file means: a place in pixels or metres, a share of the image, or that a joint was not found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastst.data.options import ReadOptions
from fastst.data.recording import Detections, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

# A joint that is at the origin in so many of its frames is the origin, if the body is around it.
_ROOT_SHARE = 0.9
# So many of the positions have to be shares of the image. Estimators place joints a little outside of it.
_SHARES, _OUTSIDE = 0.99, 0.1
# The line from feet to head leans at most so much from the axis that points up, and does so in so many of the recordings.
_UPRIGHT, _AGREE = 0.8, 0.8

_TOP = ("head", "nose", "neck", "eye", "ear", "thorax")
_BOTTOM = ("ankle", "foot", "heel", "toe")
# From an axis that points up to the turn that brings it to y: rows are what x, y and z become.
_TURNS = {
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


@dataclass
class Understood:
    """Recordings with NaN where a joint was not seen, in pixels, or in metres with y up; what had to be left out; and what the user should know."""

    recordings: list[Recording]
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def understand(recordings: Sequence[Recording], options: ReadOptions) -> Understood:
    """The numbers of all recordings, looked at together.

    Exactly (0, 0), (-1, -1) and what is not finite are joints that were not found, but for a joint that is the origin of all others; so is what has
    a confidence below `min_confidence`. Positions that all lie within 0 and 1 are multiplied by the image's size. 3D poses are turned so that y
    points up.

    Raises:
        DataError: `up` for data in 2D.
    """
    found = _without_unseen(recordings, options)
    found = _in_pixels(found, options)
    return _upright(found, options)


def _without_unseen(recordings: Sequence[Recording], options: ReadOptions) -> Understood:
    roots = _roots(recordings)
    counts: Counter[str] = Counter()
    cleaned = [_seen(recording, roots, options.min_confidence, counts) for recording in recordings]
    total = sum(recording.detections.joints.shape[0] * recording.layout.num_joints for recording in recordings)
    notes = [f"{count / total:.1%} of the joint positions are {what}: taken as not seen" for what, count in counts.items()]
    if roots:
        joints = ", ".join(sorted({layout.joints[j] for layout, j in roots}))
        notes.append(f"{joints} is at the origin in nearly all frames: the root that the other joints are measured from")
    return Understood(cleaned, [], notes)


def _roots(recordings: Sequence[Recording]) -> set[tuple[Layout, int]]:
    """Joints that are at the origin in nearly all frames, with the body around it. In an image the origin is a corner, and they were not found."""
    by_layout: dict[Layout, list[Recording]] = {}
    for recording in recordings:
        by_layout.setdefault(recording.layout, []).append(recording)
    roots = set()
    for layout, members in by_layout.items():
        at_origin, around, frames = np.zeros(layout.num_joints), 0, 0
        for recording in members:
            joints = recording.detections.joints
            zero = (joints == 0).all(2)  # [n, J]
            there = ~zero.all(1)
            at_origin += zero[there].sum(0)
            frames += int(there.sum())
            low, high = np.fmin.reduce(joints, axis=1), np.fmax.reduce(joints, axis=1)  # [n, D]
            around += int(((low < 0) & (high > 0)).all(1)[there].sum())
        if frames and around > 0.5 * frames:
            roots |= {(layout, int(j)) for j in np.flatnonzero(at_origin >= _ROOT_SHARE * frames)}
    return roots


def _seen(recording: Recording, roots: set[tuple[Layout, int]], min_confidence: float, counts: Counter[str]) -> Recording:
    detections = recording.detections
    joints = detections.joints
    is_root = np.array([(recording.layout, j) in roots for j in range(recording.layout.num_joints)])
    zero = (joints == 0).all(2)
    zero &= ~is_root | zero.all(1, keepdims=True)  # where all are 0 nobody was found
    reasons = {
        "not finite": np.isinf(joints).any(2),
        "exactly (0, 0)" if joints.shape[2] == 2 else "exactly (0, 0, 0)": zero,
        "exactly (-1, -1)" if joints.shape[2] == 2 else "exactly (-1, -1, -1)": (joints == -1).all(2),
    }
    if detections.confidences is not None and min_confidence:
        reasons[f"of a confidence below {min_confidence:g}"] = ~(detections.confidences >= min_confidence) & ~np.isnan(joints).any(2)
    unseen = np.isnan(joints).any(2)
    for what, where in reasons.items():
        if new := int((where & ~unseen).sum()):
            counts[what] += new
            unseen = unseen | where
    if not unseen.any():
        return recording
    return recording.with_detections(replace(detections, joints=np.where(unseen[..., None], np.float32(np.nan), joints)))


def _in_pixels(found: Understood, options: ReadOptions) -> Understood:
    recordings, left_out, sizes = [], list(found.left_out), Counter[tuple[int, int]]()
    for recording in found.recordings:
        if not _are_shares(recording):
            recordings.append(recording)
            continue
        size = options.image_size or recording.image_size
        if size is None:
            reason = (
                f"{recording.source}: all positions are between 0 and 1, so they are shares of the image's width and height, which are not known; "
                "give them in pixels with --image-size, such as --image-size 1920 1080"
            )
            left_out.append(LeftOut(recording.name, reason))
            continue
        sizes[size] += 1
        recordings.append(recording.with_detections(_times(recording.detections, size)))
    notes = [
        f"{count} walk(s) have positions between 0 and 1: shares of an image of {width} x {height} pixels, which they were multiplied by"
        for (width, height), count in sizes.items()
    ]
    return Understood(recordings, left_out, [*found.notes, *notes])


def _are_shares(recording: Recording) -> bool:
    """In 2D, or as MediaPipe's landmarks, whose z is in shares of the width."""
    joints = recording.detections.joints
    if joints.shape[2] == 3 and not recording.layout.name.startswith("mediapipe"):
        return False
    places = joints[:, :, :2][~np.isnan(joints).any(2)]
    if not len(places):
        return False
    inside = (places >= -_OUTSIDE) & (places <= 1 + _OUTSIDE)
    return bool(inside.mean() >= _SHARES and (places >= 0).mean() >= 1 - _OUTSIDE)


def _times(detections: Detections, size: tuple[int, int]) -> Detections:
    width, height = size
    joints = detections.joints * np.array((width, height, width)[: detections.joints.shape[2]], np.float32)
    boxes = detections.boxes
    if boxes is not None and len(boxes) and np.nanmax(np.abs(boxes)) <= 1 + _OUTSIDE:
        boxes = boxes * np.array((width, height, width, height), np.float32)
    return replace(detections, joints=joints, boxes=boxes)


def _upright(found: Understood, options: ReadOptions) -> Understood:
    solid = [recording for recording in found.recordings if recording.detections.joints.shape[2] == 3]
    if not solid:
        if options.up != "auto" and found.recordings:
            raise DataError(f"--up {options.up}: the data are in 2D, as the image has them; leave --up out")
        return found
    up = options.up if options.up != "auto" else _up(solid)
    if up is None:
        note = "which axis points up can't be told from heads and feet; y is taken for it. Say it with --up, such as --up z"
        return replace(found, notes=[*found.notes, note])
    if up == "y":
        return found
    turn = np.array(_TURNS[up], np.float32)
    turned = [_turned(r, turn) if r.detections.joints.shape[2] == 3 else r for r in found.recordings]
    return replace(found, recordings=turned, notes=[*found.notes, f"{up} points up: turned so that y does (--up y leaves them as they are)"])


def _turned(recording: Recording, turn: np.ndarray) -> Recording:
    return recording.with_detections(replace(recording.detections, joints=recording.detections.joints @ turn.T))


def _up(recordings: Sequence[Recording]) -> str | None:
    """The axis along which heads are above feet in nearly all recordings; None where there is none, or no head or feet."""
    votes: Counter[str] = Counter()
    for recording in recordings:
        top, bottom = (_named(recording.layout, words) for words in (_TOP, _BOTTOM))
        if not (top and bottom):
            continue
        joints = recording.detections.joints
        lines = _mean(joints, top) - _mean(joints, bottom)
        lines = lines[~np.isnan(lines).any(1)]
        if not len(lines):
            continue
        line = lines.mean(0)
        axis = int(np.abs(line).argmax())
        if np.abs(line[axis]) >= _UPRIGHT * np.linalg.norm(line) > 0:
            votes[("" if line[axis] > 0 else "-") + "xyz"[axis]] += 1
    if not votes:
        return None
    axis_name, count = votes.most_common(1)[0]
    return axis_name if count >= _AGREE * len(recordings) else None


def _mean(joints: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The mean place of some joints, of those that are seen.  # [n, D]"""
    some = joints[:, chosen]
    seen = ~np.isnan(some)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(seen, some, 0).sum(1) / seen.sum(1)


def _named(layout: Layout, words: Sequence[str]) -> list[int]:
    return [j for j, name in enumerate(layout.joints) if any(word in name.lower() for word in words)]
