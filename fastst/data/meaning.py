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
# One number in all coordinates, so often and so many of a body's extents outside of where the bodies are (but for the tails) marks joints that were
# not found. A hand above the head is 0.3 extents outside.
_REPEATED, _APART, _TAILS = 3, 0.5, (0.01, 0.99)
_TO_KNOW_A_BODY = 50  # other positions, at least
# So many of the positions have to be shares of the image. Estimators place joints a little outside of it.
_LOOKED_AT = 50_000  # detections, to tell what their numbers mean
_SHARES, _OUTSIDE = 0.99, 0.1
# Of a data set in shares, nobody who is partly outside of the image is so many widths or heights outside.
_FAR_OUTSIDE = 2.0
_INSIDE = 0.1  # of them so many are inside
# The line from feet to head leans at most so much from the axis that points up, and does so in so many of the recordings.
_UPRIGHT, _AGREE = 0.8, 0.8
_SOME = 3  # walks are named

_TOP = ("head", "nose", "neck", "eye", "ear", "thorax")
_BOTTOM = ("ankle", "foot", "heel", "toe")
_TOP_MARKERS, _BOTTOM_MARKERS = ("lfhd", "rfhd", "lbhd", "rbhd"), ("lank", "rank", "lhee", "rhee", "ltoe", "rtoe")  # Plug-in Gait's
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
    a confidence below `min_confidence`, and what is one number in all coordinates, again and again, far outside of the bodies (-9999, say).
    Positions that are shares of the image, by their form or their numbers, are multiplied by its size: from 0 to 1, or, of OpenPose's joints, from
    -1 to 1. 3D poses are turned so that y points up.

    Raises:
        DataError: `up` for data in 2D.
    """
    found = _without_markers(_without_unseen(recordings, options))
    found = _in_pixels(found, options)
    return _upright(found, options)


def _without_unseen(recordings: Sequence[Recording], options: ReadOptions) -> Understood:
    roots = [_roots(recording) for recording in recordings]
    counts: Counter[str] = Counter()
    cleaned = [_seen(recording, root, options.min_confidence, counts) for recording, root in zip(recordings, roots, strict=True)]
    total = sum(recording.detections.joints.shape[0] * recording.layout.num_joints for recording in recordings)
    notes = [f"{count / total:.1%} of the joint positions are {what}: taken as not seen" for what, count in counts.items()]
    centred = [recording.layout.joints[j] for recording, root in zip(recordings, roots, strict=True) for j in np.flatnonzero(root)]
    if centred:
        count, all_of_them = sum(root.any() for root in roots), sum(len(recording.detections) > 0 for recording in recordings)
        some = f" of {count} of {all_of_them} walks, and not of the others" if count < all_of_them else ""
        notes.append(
            f"{', '.join(sorted(set(centred)))} is at the origin in nearly all frames{some}: the root that the other joints are measured from"
        )
    return Understood(cleaned, [], notes)


def _roots(recording: Recording) -> np.ndarray:
    """Joints that are at the origin in nearly all frames, with the body around it; in an image the origin is a corner.  # [J] bool"""
    joints = recording.detections.joints
    zero = (joints == 0).all(2)  # [n, J]
    there = ~zero.all(1)
    low, high = np.fmin.reduce(joints, axis=1), np.fmax.reduce(joints, axis=1)  # [n, D]
    around = ((low < 0) & (high > 0)).all(1)[there]
    if not there.any() or around.mean() <= 0.5:
        return np.zeros(zero.shape[1], bool)
    return zero[there].mean(0) >= _ROOT_SHARE


def _seen(recording: Recording, is_root: np.ndarray, min_confidence: float, counts: Counter[str]) -> Recording:
    detections = recording.detections
    joints = detections.joints
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


def _without_markers(found: Understood) -> Understood:
    outside = [_same_and_outside(recording) for recording in found.recordings]
    counts: Counter[float] = Counter()
    for recording, where in zip(found.recordings, outside, strict=True):
        counts.update(recording.detections.joints[where][:, 0].tolist())
    markers = {value: count for value, count in counts.items() if count >= _REPEATED}
    if not markers:
        return found
    recordings = []
    for recording, where in zip(found.recordings, outside, strict=True):
        joints = recording.detections.joints
        marked = where & np.isin(joints[..., 0], [*markers])
        unmarked = np.where(marked[..., None], np.float32(np.nan), joints)
        recordings.append(recording.with_detections(replace(recording.detections, joints=unmarked)) if marked.any() else recording)
    notes = [
        f"{count} joint positions are {value:g} in all coordinates, far outside of the bodies: taken as not seen" for value, count in markers.items()
    ]
    return replace(found, recordings=recordings, notes=[*found.notes, *notes])


def _same_and_outside(recording: Recording) -> np.ndarray:
    """Positions with one number in all coordinates, which is half a body's extent or more outside of where the others are.  # [n, J] bool"""
    joints = recording.detections.joints
    same = (joints == joints[..., :1]).all(2)
    if not same.any():
        return same
    step = max(len(joints) // _LOOKED_AT, 1)
    others = np.where(same[::step, :, None], np.float32(np.nan), joints[::step])
    places = others[~np.isnan(others).any(2)]  # [m, D]
    if len(places) < _TO_KNOW_A_BODY:
        return np.zeros_like(same)
    low, high = np.quantile(places, _TAILS, axis=0)  # [D]
    extents = (np.fmax.reduce(others, axis=1).astype(np.float64) - np.fmin.reduce(others, axis=1)).max(1)
    margin = _APART * np.median(extents[~np.isnan(extents)])
    return same & (margin > 0) & ((joints < low - margin) | (joints > high + margin)).any(2)


def _in_pixels(found: Understood, options: ReadOptions) -> Understood:
    recordings, left_out, sizes = [], list(found.left_out), Counter[tuple[int, int]]()
    halves = _in_halves(found.recordings)
    for recording, in_shares, in_halves in zip(found.recordings, _in_shares(found.recordings), halves, strict=True):
        if not in_shares and not in_halves:
            recordings.append(recording)
            continue
        size = options.image_size or recording.image_size
        if size is None:
            reason = (
                f"{recording.source}: {_range_in_words(recording, in_halves)}, so they are shares of the image's width and height, which are "
                "not known; give them in pixels with --image-size, such as --image-size 1920 1080"
            )
            left_out.append(LeftOut(recording.name, reason))
            continue
        sizes[size] += 1
        detections = recording.detections
        if in_halves:
            detections = replace(detections, joints=(detections.joints + 1) / 2)
        recordings.append(recording.with_detections(_times(detections, size)))
    notes = [
        f"{count} walk(s) have positions that are shares of the image: of {width} x {height} pixels, which they were multiplied by"
        for (width, height), count in sizes.items()
    ]
    return Understood(recordings, left_out, [*found.notes, *notes])


def _range_in_words(recording: Recording, in_halves: bool) -> str:
    if in_halves:
        return "all positions are between -1 and 1, as OpenPose writes them with --keypoint_scale 4"
    places = _places(recording)
    if recording.in_shares or _are_shares(places):
        return "all positions are between 0 and 1, or a little outside"
    low, high = np.quantile(places, _TAILS)
    return f"the positions go from {low:.2g} to {high:.2g}, as those of somebody who is partly outside of the image, and too small for pixels"


def _in_shares(recordings: Sequence[Recording]) -> list[bool]:
    """Whether each is in shares of the image: its form says so, or its numbers, or those of most others where it is partly outside of the image."""
    told, asked, are_shares, near = [], [], [], []
    for recording in recordings:
        places = _places(recording)
        is_asked = len(places) > 0 and not recording.in_shares
        asked.append(is_asked)
        told.append(len(places) > 0 and recording.in_shares)
        are_shares.append(is_asked and (_are_shares(places) or _are_shares_below(places, recording)))
        near.append(is_asked and bool((np.abs(places) <= 1 + _FAR_OUTSIDE).mean() >= _SHARES))
    most = 2 * sum(are_shares) > sum(asked)
    return [by_form or by_numbers or (is_near and most) for by_form, by_numbers, is_near in zip(told, are_shares, near, strict=True)]


def _places(recording: Recording) -> np.ndarray:
    """Positions in 2D that are seen, or of MediaPipe's landmarks, whose z is in shares of the width; of other forms in 3D none. Of very many
    detections every few.  # [n, 2]"""
    joints = recording.detections.joints
    joints = joints[:: max(len(joints) // _LOOKED_AT, 1)]
    if joints.shape[2] == 3 and not recording.layout.name.startswith("mediapipe"):
        return np.zeros((0, 2), np.float32)
    return joints[:, :, :2][~np.isnan(joints).any(2)]


def _in_halves(recordings: Sequence[Recording]) -> list[bool]:
    """Whether each is of OpenPose's joints from -1 to 1, as shares go from the middle of the image: all that may be so where one of them has to."""
    may_be = []
    for recording in recordings:
        places = _places(recording)
        is_asked = recording.layout.name.startswith("openpose") and len(places) > 0 and not recording.in_shares
        may_be.append(is_asked and bool((np.abs(places) <= 1).mean() >= _SHARES) and not _roots(recording).any() and _is_head_first(recording))
    are = any(is_so and bool((_places(recording) < 0).mean() > _OUTSIDE) for recording, is_so in zip(recordings, may_be, strict=True))
    return [are and is_so for is_so in may_be]


def _are_shares_below(places: np.ndarray, recording: Recording) -> bool:
    """Whether they are of somebody whose legs, say, are below the image, where an estimator guesses them: nobody is two pixels high.

    Some are inside, few below 0, and the head has a smaller y than the feet: metres have y up.
    """
    near = (np.abs(places) <= 1 + _FAR_OUTSIDE).mean() >= _SHARES and (places >= 0).mean() >= 1 - _OUTSIDE
    inside = ((places >= 0) & (places <= 1)).all(1).mean()
    return bool(near and inside >= _INSIDE) and _is_head_first(recording)


def _is_head_first(recording: Recording) -> bool:
    """Whether the head is above the feet in an image, whose y points down."""
    top, bottom = _named(recording.layout, _TOP, _TOP_MARKERS), _named(recording.layout, _BOTTOM, _BOTTOM_MARKERS)
    if not (top and bottom):
        return False
    joints = recording.detections.joints[:, :, :2]
    down = (_mean(joints, bottom) - _mean(joints, top))[:, 1]
    return bool(np.nanmedian(down) > 0) if np.isfinite(down).any() else False


def _are_shares(places: np.ndarray) -> bool:
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
    axes = [_axis(recording) for recording in solid]
    up = options.up if options.up != "auto" else _common(axes)
    if up is None:
        note = "which axis points up can't be told from heads and feet; y is taken for it. Say it with --up, such as --up z"
        return replace(found, notes=[*found.notes, note])
    notes = list(found.notes)
    others = [f"{recording.name} ({axis})" for recording, axis in zip(solid, axes, strict=True) if axis not in (up, "", None)]
    if others and options.up == "auto":
        some = ", ".join(others[:_SOME]) + (f" and {len(others) - _SOME} more" if len(others) > _SOME else "")
        notes.append(f"{up} points up in most walks, but not in {some}, which are now not upright: turn them, or leave them out")
    if up == "y":
        return replace(found, notes=notes)
    turn = np.array(_TURNS[up], np.float32)
    turned = [_turned(r, turn) if r.detections.joints.shape[2] == 3 else r for r in found.recordings]
    return replace(found, recordings=turned, notes=[*notes, f"{up} points up: turned so that y does (--up y leaves them as they are)"])


def _turned(recording: Recording, turn: np.ndarray) -> Recording:
    return recording.with_detections(replace(recording.detections, joints=recording.detections.joints @ turn.T))


def _axis(recording: Recording) -> str | None:
    """The axis along which the head is above the feet; "" if it is none; None without heads, feet or anybody."""
    top, bottom = _named(recording.layout, _TOP, _TOP_MARKERS), _named(recording.layout, _BOTTOM, _BOTTOM_MARKERS)
    if not (top and bottom):
        return None
    joints = recording.detections.joints
    lines = _mean(joints, top) - _mean(joints, bottom)
    lines = lines[~np.isnan(lines).any(1)]
    if not len(lines):
        return None
    line = lines.mean(0)
    axis = int(np.abs(line).argmax())
    if not np.abs(line[axis]) >= _UPRIGHT * np.linalg.norm(line) > 0:
        return ""
    return ("" if line[axis] > 0 else "-") + "xyz"[axis]


def _common(axes: Sequence[str | None]) -> str | None:
    """The axis of nearly all of those that can tell; None where there is none."""
    votes = Counter(axis for axis in axes if axis is not None)
    if not votes:
        return None
    axis, count = votes.most_common(1)[0]
    return axis if axis and count >= _AGREE * votes.total() else None


def _mean(joints: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The mean place of some joints, of those that are seen.  # [n, D]"""
    some = joints[:, chosen]
    seen = ~np.isnan(some)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(seen, some, 0).sum(1) / seen.sum(1)


def _named(layout: Layout, words: Sequence[str], markers: Sequence[str]) -> list[int]:
    return [j for j, name in enumerate(layout.joints) if name.lower() in markers or any(word in name.lower() for word in words)]
