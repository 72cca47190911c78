"""A recording becomes walks: frames are counted, people are followed, and gaps are called so."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fastst.data.follow import people_of, sides_of, stand_for_doubles
from fastst.data.recording import Detections, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

# A gap is more missing frames in a row than these, or than a second where the frame rate is known: what is on both sides is no longer one walk.
# With `tracks="all"` a walk is somebody who is seen in as many frames.
MAX_MISSING_FRAMES = 25

# So many frames at least must step by the same number before the frames between them are taken for not saved rather than missing.
_MIN_STEPPING_FRAMES = 6
# So many frame numbers that step by about so much or more, of which so many steps differ by no more from the median, are times.
_MIN_TIMES, _LEAST_TIME_STEP, _TIME_STEPS, _TIME_STEPS_DIFFER = 12, 8, 0.8, 0.1
_OWN_DETECTIONS = 5  # so many in a row have an id, and no others, if it tells who it is


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
        track: which person of the video, where every one is a walk and there are several: 1 for the most prominent.
    """

    source: str
    places: tuple[str, ...]
    layout: Layout
    poses: np.ndarray
    fps: float | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    track: int | None = None


def walks_of(recording: Recording, tracks: Literal["main", "all"]) -> tuple[list[Walk], list[LeftOut]]:
    """The walk of the most prominent person in a recording, or of everybody; and what is left out of it.

    Where every frame has one detection at most, all are of one person, whatever the motion, unless another id goes on elsewhere. Otherwise people are
    followed by `fastst.data.follow`. Frame numbers that step like times are counted.
    Nobody is followed across a gap of more than a second (`MAX_MISSING_FRAMES` where the frame rate isn't known), so the most prominent track of
    one person is the longer side of the gap. Prominent is who has the largest sum over the frames of score times the root of the box's area.

    Raises:
        DataError: nobody was found, or no joint of anybody is seen.
    """
    found = _in_order(recording.detections)
    if not len(found):
        raise DataError(f"{recording.source} has no detection; nobody was found in this video")
    is_seen = np.isfinite(np.einsum("njd->nj", found.joints)).any(axis=1)  # a sum over coordinates is NaN where one is
    if not is_seen.any():
        raise DataError(f"{recording.source}: no joint of anybody is seen in any frame; is --min-confidence too high, or nobody in the video?")
    found, time_step = _counted(found)
    step = _step(found.frames)
    fps = recording.fps / step if recording.fps else None
    max_missing = max(round(fps), 1) if fps else MAX_MISSING_FRAMES
    seen, doubles = _without_doubles(found.take(is_seen))
    frames = seen.frames // step
    is_lone = bool((np.diff(frames) > 0).all())
    is_next = _is_somebody_else(seen) if is_lone else np.zeros(len(seen), bool)
    is_gap = np.diff(frames, prepend=frames[0]) > max_missing + 1
    person = np.cumsum(is_gap | is_next) if is_lone else people_of(replace(seen, frames=frames), max_missing)
    chosen = _chosen(seen, person, tracks, max_missing)
    walks = []
    for number, track in enumerate(chosen, start=1):
        rows = np.flatnonzero(person == track)
        poses = insert_missing_frames(frames[rows], seen.take(rows).joints)
        if is_lone and not is_next.any():
            poses = _with_unseen_ends(poses, frames[rows], found.frames // step, max_missing)
        numbered = number if len(chosen) > 1 else None
        walks.append(Walk(recording.source, recording.places, recording.layout, poses, fps, recording.attributes, numbered))
    notes = {
        f"frames between those of {recording.name}": _of_times(time_step) or _of_step(step, fps),
        f"{len(doubles)} double detection(s) in {recording.name}": _of_doubles(doubles),
        f"frames of {recording.name}": _of_gaps(found, seen, step, max_missing),
        f"{np.count_nonzero(~np.isin(person, chosen))} detection(s) in {recording.name}": _of_others(frames, person, chosen, tracks, max_missing),
    }
    return walks, [LeftOut(name, f"{recording.source}: {reason}") for name, reason in notes.items() if reason]


def insert_missing_frames(frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Poses [n, J, D] of the frame numbers [n], with NaN at the numbers between them that are missing.  # [T, J, D]"""
    if len(frames) == frames[-1] - frames[0] + 1:
        return poses.astype(np.float32, copy=False)
    filled = np.full((frames[-1] - frames[0] + 1, *poses.shape[1:]), np.nan, dtype=np.float32)
    filled[frames - frames[0]] = poses
    return filled


def _in_order(detections: Detections) -> Detections:
    """In the order of the frames, with scores: where the file has none, the mean confidences of the joints."""
    scores = detections.scores
    if scores is None:
        scores = np.ones(len(detections)) if detections.confidences is None else np.nan_to_num(detections.confidences).mean(axis=1)
    order = np.argsort(detections.frames, kind="stable")
    return replace(detections, scores=np.nan_to_num(scores)).take(order)


def _step(frames: np.ndarray) -> int:
    """By how much the frame numbers step where not every frame was saved; 1 where they were."""
    steps = np.diff(frames)
    steps = steps[steps > 0]
    if len(steps) + 1 < _MIN_STEPPING_FRAMES:
        return 1
    step = int(np.gcd.reduce(steps))
    return step if np.median(steps) == step else 1


def _counted(detections: Detections) -> tuple[Detections, float]:
    """Detections whose frames are counted where their numbers step by nearly the same, as times do; and that step, or 0 where they don't."""
    numbers, row = np.unique_inverse(detections.frames)
    steps = np.diff(numbers)
    if len(numbers) < _MIN_TIMES or np.median(steps) < _LEAST_TIME_STEP or _step(detections.frames) > 1:
        return detections, 0.0
    is_usual = np.abs(steps - np.median(steps)) <= np.maximum(1, _TIME_STEPS_DIFFER * np.median(steps))
    if is_usual.mean() < _TIME_STEPS:
        return detections, 0.0
    step = float(steps[is_usual].mean())
    frames = np.cumsum(np.maximum(np.round(np.append(0, steps) / step), 1).astype(np.int64)) - 1
    return replace(detections, frames=frames[row]), step


def _is_somebody_else(detections: Detections) -> np.ndarray:
    """Where a lone detection is of another person than the one before: a new id, in a place more than a body's height away, that stays.  # [n]

    Ids that come back, or are new in every other frame, tell nothing.
    """
    ids = detections.ids
    nowhere = np.zeros(len(detections), bool)
    if ids is None or (ids < 0).any():
        return nowhere
    is_new = np.append(False, np.diff(ids) != 0)
    if not is_new.any() or is_new.sum() + 1 > len(np.unique(ids)) or np.unique_counts(ids).counts.min() < _OWN_DETECTIONS:
        return nowhere
    height = np.median(sides_of(detections.joints).max(axis=1))
    rows = np.flatnonzero(is_new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of joints that are not seen in both there may be none
        steps = np.nanmedian(detections.joints[rows] - detections.joints[rows - 1], axis=1)
    nowhere[rows] = np.linalg.norm(steps, axis=1) > height
    return nowhere


def _without_doubles(detections: Detections) -> tuple[Detections, Detections]:
    """The detections that are used, and those that repeat a person of their frame."""
    if (np.diff(detections.frames) > 0).all():
        return detections, detections.take(np.zeros(0, dtype=int))
    is_used = stand_for_doubles(detections) == np.arange(len(detections))
    return detections.take(is_used), detections.take(~is_used)


def _chosen(detections: Detections, person: np.ndarray, tracks: Literal["main", "all"], min_frames: int) -> list[int]:
    """The numbers of the people who are walks, the most prominent first."""
    assert detections.scores is not None
    scores = detections.scores if (detections.scores > 0).any() else np.ones(len(detections))
    if not person.any():
        return [0]
    prominence = np.bincount(person, weights=scores * _extents(detections))
    order = np.argsort(-prominence, kind="stable")
    if tracks == "main":
        return order[:1].tolist()
    is_long = np.bincount(person)[order] >= min_frames
    is_long[0] = True
    return order[is_long].tolist()


def _extents(detections: Detections) -> np.ndarray:
    """The root of the area of the box; in 3D of the two longest sides. No side counts more than five medians, so wild joints don't.  # [n]"""
    if detections.boxes is not None:
        sides = np.nan_to_num(detections.boxes[:, 2:] - detections.boxes[:, :2])
    else:
        sides = np.sort(sides_of(detections.joints), axis=1)[:, -2:]
    return np.sqrt(np.clip(sides, 0, 5 * np.median(sides, axis=0)).prod(axis=1))


def _with_unseen_ends(poses: np.ndarray, frames: np.ndarray, found: np.ndarray, max_missing: int) -> np.ndarray:
    """With the frames before and after in which the file has a person of whom no joint is seen, unless they are a gap.  # [T, J, D]"""
    before, after = frames[0] - found[0], found[-1] - frames[-1]
    lengths = [int(length) if length <= max_missing else 0 for length in (before, after)]
    return np.pad(poses, (lengths, (0, 0), (0, 0)), constant_values=np.nan) if any(lengths) else poses


def _of_times(step: float) -> str:
    return f"the frame numbers step by about {step:.1f}, as times do; they are taken for consecutive frames" if step else ""


def _of_step(step: int, fps: float | None) -> str:
    if step == 1:
        return ""
    return f"the frame numbers step by {step}; they are taken for consecutive frames" + (f", {fps:g} a second" if fps else "")


def _of_doubles(doubles: Detections) -> str:
    if not len(doubles):
        return ""
    return f"they repeat a person of the same frame (first: frame {doubles.frames[0]}); the one with the better score is used"


def _of_gaps(found: Detections, seen: Detections, step: int, max_missing: int) -> str:
    """What is to be said of frames in which nobody is seen for long; nothing where there are none."""
    numbers = np.concatenate([[found.frames[0] - step], seen.frames, [found.frames[-1] + step]])
    gaps = np.flatnonzero(np.diff(numbers) // step > max_missing + 1)
    if not len(gaps):
        return ""
    words = [f"{numbers[gap] + step} to {numbers[gap + 1] - step}" for gap in gaps[:3]]
    more = f" (and {len(gaps) - 3} more such gap(s))" if len(gaps) > 3 else ""
    return f"nobody is seen in frames {', '.join(words)}{more}: a gap of more than {max_missing} frames, across which nobody is followed"


def _of_others(frames: np.ndarray, person: np.ndarray, chosen: list[int], tracks: Literal["main", "all"], max_missing: int) -> str:
    others = np.setdiff1d(person, chosen)
    if not len(others):
        return ""
    if tracks == "all":
        return f"they are of {len(others)} track(s) of fewer than {max_missing} frames"
    walk = frames[person == chosen[0]]
    first = frames[np.unique(person, return_index=True)[1]]  # of every track
    last = frames[::-1][np.unique(person[::-1], return_index=True)[1]]
    apart = np.count_nonzero((last < walk[0]) | (first > walk[-1]))
    beyond = f", of which {apart} come before or after it, beyond a gap perhaps" if apart else ""
    remedy = f"--tracks all makes a walk of every track of {max_missing} frames or more"
    return f"they are of {len(others)} track(s) beside the most prominent one, which is the walk{beyond}; {remedy}"
