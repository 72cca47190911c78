"""Who is who: detections of several people become tracks, and tracks walks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastst.data.recording import Detections, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

# Boxes of one person in consecutive detections overlap at least this much (intersection over union).
MIN_BOX_OVERLAP = 0.3

# More missing frames in a row than this, one second of CASIA-B, and what is on both sides is no longer one walk.
MAX_MISSING_FRAMES = 25


@dataclass(frozen=True)
class Walk:
    """One person's walk.

    Args:
        source: the file that it is in, for messages.
        places: the names that may say whose walk it is; outermost first.
        layout: the skeleton.
        poses: joint positions, NaN where a joint was not seen.  # [T, J, D] float32
        fps: frames a second, where known.
        attributes: what the file says of it.
        track: which person of the video, where every one is a walk: 1 for the most prominent.
    """

    source: str
    places: tuple[str, ...]
    layout: Layout
    poses: np.ndarray
    fps: float | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    track: int | None = None


def walks_of(recording: Recording, tracks: Literal["main", "all"]) -> tuple[list[Walk], list[LeftOut]]:
    """The walk of the most prominent person in a recording, or of everybody; and the detections that are left out.

    Raises:
        DataError: nobody can be followed.
    """
    detections = _complete(recording.detections)
    if not len(detections):
        raise DataError(f"{recording.source} has no detection; nobody was found in this video")
    is_person = _most_prominent(detections)
    joints = detections.joints[is_person]
    if np.isnan(joints).all():
        raise DataError(f"{recording.source}: no joint of the person followed is seen in any frame")
    poses = insert_missing_frames(detections.frames[is_person], joints)
    others = int(np.count_nonzero(~is_person))
    left_out = []
    if others:
        reason = f"{recording.source}: their boxes don't join up with those of the person followed"
        left_out.append(LeftOut(f"{others} detection(s) in {recording.name}", reason))
    return [Walk(recording.source, recording.places, recording.layout, poses, recording.fps, recording.attributes)], left_out


def insert_missing_frames(frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Poses [n, J, D] of the frame numbers [n], with NaN at the numbers between them that are missing.  # [T, J, D]"""
    filled = np.full((frames[-1] - frames[0] + 1, *poses.shape[1:]), np.nan, dtype=np.float32)
    filled[frames - frames[0]] = poses
    return filled


def _complete(detections: Detections) -> Detections:
    """In the order of the frames; boxes and scores are made from the joints where they are missing."""
    positions = detections.joints[:, :, :2]
    boxes = detections.boxes
    if boxes is None:
        boxes = np.concatenate([np.fmin.reduce(positions, axis=1), np.fmax.reduce(positions, axis=1)], axis=1)
    scores = detections.scores
    if scores is None:
        scores = np.ones(len(detections)) if detections.confidences is None else np.nan_to_num(detections.confidences).mean(axis=1)
    order = np.argsort(detections.frames, kind="stable")
    complete = Detections(detections.frames, detections.joints, detections.confidences, np.nan_to_num(boxes), scores, detections.ids)
    return complete.take(order)


def _most_prominent(detections: Detections) -> np.ndarray:
    """Which detections are of the person with the largest sum of score times square root of box area.  # [n] bool"""
    person = _people(detections)
    assert detections.scores is not None
    assert detections.boxes is not None
    prominence = np.bincount(person, weights=detections.scores * np.sqrt(_area(detections.boxes)))
    return person == prominence.argmax()


def _people(detections: Detections) -> np.ndarray:
    """A number for the person of every detection: boxes are joined from frame to frame, those that overlap most first.  # [n]"""
    frames, boxes = detections.frames, detections.boxes
    assert boxes is not None
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
