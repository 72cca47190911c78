"""From recorded poses to what a model is given: one layout, no gaps, the body at the origin and of size one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastst.data.options import ReadOptions
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.layouts import LAYOUTS, Layout, get_layout

_AS_RECORDED = ReadOptions()
# Joints that are made, where they are wanted and not recorded, in the middle of two others.
_BETWEEN = {
    "mid_shoulder": ("left_shoulder", "right_shoulder"),
    "neck": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
}
_FRAMES_AT_ONCE = 4096
# A glitch is so many times as far from the body's middle as its joints are in the median, and more than the reach of its farthest joint.
_FAR, _BEYOND_REACH = 8.0, 1.5
# And it is away from where it is in the frames around, or farther than its joint is in frames without suspicion, or than any body.
_JUMP, _AROUND, _THAN_EVER, _THAN_ANY = 4.0, 3, 3.0, 2.5
# The reach is that of so many of a joint's nearest frames; no skeleton has a joint that is then so many median distances away.
_NEAREST, _NO_SKELETON = 0.1, 50.0
_FRAMES_FOR_SIZE = 500  # that sizes are taken from, at least


@dataclass(frozen=True)
class Filled:
    """How many joint positions were missing and filled in from the frames around them, out of how many."""

    positions: int
    of: int

    @property
    def share(self) -> float:
        return self.positions / max(self.of, 1)


def choose_layout(name: str, recorded: Layout) -> Layout:
    """The layout to train on: `auto` is coco18 (the paper's) for coco17 data and the data's own otherwise; the data must have any other's joints.

    Raises:
        DataError: an unknown layout, or one that does not fit the data.
    """
    if name == "auto":
        return LAYOUTS["coco18"] if recorded.joints == LAYOUTS["coco17"].joints else recorded
    try:
        wanted = get_layout(name)
    except ValueError as error:
        raise DataError(f"--layout {name}: {error}") from None
    if missing := _missing(wanted, recorded):
        raise DataError(
            f"the layout {wanted.name!r} has {', '.join(missing)}, which the data does not: its {recorded.num_joints} joints are "
            f"{', '.join(recorded.joints)}; use --layout auto, or one with joints of these"
        )
    return wanted


def layout_for(model: Layout, recorded: Layout) -> Layout:
    """The model's layout; DataError if the data don't have its joints (the mid-shoulder can be made)."""
    if missing := _missing(model, recorded):
        raise DataError(
            f"the model was trained on {model.num_joints} joints, of which {', '.join(missing)} are not in the data, which has "
            f"{recorded.num_joints}: {', '.join(recorded.joints)}; give data with the same joints, or train on such data"
        )
    return model


def _missing(wanted: Layout, recorded: Layout) -> list[str]:
    """Joints that are neither in the data nor between two that are."""
    return [joint for joint in wanted.joints if joint not in recorded.joints and not set(_BETWEEN.get(joint, ("",))) <= set(recorded.joints)]


def prepare(walks: WalkSet, layout: Layout, min_frames: int, options: ReadOptions = _AS_RECORDED) -> tuple[WalkSet, Filled]:
    """Takes out glitches, fills gaps, takes the joints of `layout`, brings walks to `options.fps`, centres and, unless `scale` is none, scales them.

    Walks with fewer than `min_frames` frames, with infinite numbers, with a joint that is never seen, of unknown frame rate where one is wanted, or
    without extent are left out and listed.

    Returns:
        The walks that can be used, poses `[T, J, D]` without NaN, and how much was filled in.

    Raises:
        DataError: no walk can be used.
    """
    names = [joint for joint in walks.layout.joints if joint in _needed(layout)]
    chosen = [walks.layout.index(joint) for joint in names]
    poses, kept, left_out, glitches = [], [], list(walks.left_out), []
    filled = total = 0
    for i in range(len(walks)):
        recorded = walks.poses[i] if chosen == [*range(walks.layout.num_joints)] else walks.poses[i][:, chosen]
        try:
            prepared = _prepared(recorded, walks.fps[i] if walks.fps else None, names, layout, min_frames, options)
        except DataError as error:
            left_out.append(LeftOut(walks.names[i], str(error)))
            continue
        filled, total = filled + prepared.filled, total + recorded.shape[0] * recorded.shape[1]
        glitches += [_in_words(walks.names[i], names, prepared.glitches)] if len(prepared.glitches) else []
        poses.append(prepared.poses)
        kept.append(i)
    if not kept:
        never = _never_seen(walks, chosen)
        hint = f"{', '.join(never)} is never seen in any of them: leave it out with --drop-joints {' '.join(never)}"
        first = f"the first: {left_out[0].name} {left_out[0].reason}" if left_out else ""
        raise DataError(f"none of the {len(walks)} walks can be used; {hint if never else first}")
    notes = [*walks.notes, *_some(glitches), *_rates(walks, kept, options)]
    usable = replace(walks.take(kept, poses), layout=layout, left_out=left_out, notes=notes)
    return replace(usable, fps=[options.fps] * len(kept)) if options.fps else usable, Filled(filled, total)


@dataclass(frozen=True)
class _Prepared:
    poses: np.ndarray  # [T, J, D]
    filled: int
    glitches: np.ndarray  # [n, 3]: frame, joint, distance in bodies


def _prepared(recorded: np.ndarray, fps: float | None, joints: Sequence[str], layout: Layout, min_frames: int, options: ReadOptions) -> _Prepared:
    _check(recorded, joints, min_frames)
    cleaned, glitches = without_glitches(recorded)
    if far := [joints[j] for j in np.flatnonzero(np.isnan(cleaned).any(2).all(0)).tolist()]:
        raise DataError(f"shows {', '.join(far)} only far from the body; --drop-joints {' '.join(far)} does without")
    complete, filled = fill_gaps(cleaned)
    if options.fps:
        if fps is None:
            raise DataError(f"is not brought to --fps {options.fps:g}: the frame rate that it was recorded with is not known")
        complete = resample(complete, fps, options.fps)
        _check(complete, joints, min_frames)
    poses = centre_and_scale(_joints_of(layout, joints, complete), layout, options.scale == "body")
    if poses is None:
        raise DataError("has no extent: all joints are at one place in every frame")
    return _Prepared(poses, filled, glitches)


def drop_joints(walks: WalkSet, joints: Sequence[str]) -> WalkSet:
    """The walks without some joints; what hung from one hangs from its neighbour nearest to the root.

    Raises:
        DataError: there is no such joint, or too few are left.
    """
    if not joints:
        return walks
    try:
        layout = walks.layout.without(joints)
    except ValueError as error:
        raise DataError(f"--drop-joints {' '.join(joints)}: {error}") from None
    kept = [walks.layout.index(joint) for joint in layout.joints]
    return replace(walks, layout=layout, poses=[poses[:, kept] for poses in walks.poses])


def without_glitches(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses with NaN where a joint is far beyond the body, and away from where it is in the frames around or than it ever is; and where that was.

    Far is `_FAR` times the median distance from the body's middle, of the walk and of the frame, away more than `_JUMP` times it.

    Returns:
        Poses  # [T, J, D]
        and frame, joint and distance, in median distances, of every glitch.  # [n, 3]
    """
    diagonal = np.linalg.norm(np.fmax.reduce(poses, axis=1).astype(np.float64) - np.fmin.reduce(poses, axis=1), axis=1)  # [T]
    chosen = slice(None, None, max(len(poses) // _FRAMES_FOR_SIZE, 1))
    seen = ~np.isnan(diagonal[chosen])
    some = _from_middle(poses[chosen][seen])
    size = np.nanmedian(some) if len(some) else 0.0
    if not size > 0:
        return poses, np.zeros((0, 3))
    far = max(_FAR * size, _BEYOND_REACH * _reach(some, size))
    suspects = np.flatnonzero(diagonal > far)  # no joint is farther from the middle
    if not len(suspects):
        return poses, np.zeros((0, 3))
    ever = np.fmax.reduce(some[diagonal[chosen][seen] <= far], axis=0, initial=np.nan)  # [J]
    distance = _from_middle(poses[suspects])
    is_far = distance > np.maximum(far, _FAR * np.nanmedian(distance, axis=1, keepdims=True))
    is_glitch = is_far & (distance > np.fmin(_THAN_ANY * far, _THAN_EVER * ever))
    for row, joint in np.argwhere(is_far & ~is_glitch).tolist():
        is_glitch[row, joint] = _jumps(poses, int(suspects[row]), joint, _JUMP * size)
    rows, joints = np.nonzero(is_glitch)
    found = np.stack((suspects[rows], joints, distance[rows, joints] / size), axis=1)
    if not len(found):
        return poses, found
    cleaned = poses.copy()
    cleaned[suspects[rows], joints] = np.nan
    return cleaned, found


def glitches_in_words(walks: WalkSet) -> list[str]:
    """What `without_glitches` finds in the walks: a line, or none."""
    found = [(name, without_glitches(poses)[1]) for name, poses in zip(walks.names, walks.poses, strict=True)]
    return _some([_in_words(name, walks.layout.joints, glitches) for name, glitches in found if len(glitches)])


def _reach(distance: np.ndarray, size: float) -> float:
    """How far the farthest joint is from the middle in frames in which it is near, which glitches in most frames don't change."""
    ordered = np.sort(distance, axis=0)  # NaN are last
    counts = (~np.isnan(distance)).sum(0)
    near = ordered[(_NEAREST * counts).astype(int), np.arange(distance.shape[1])]  # [J]
    return float(np.max(near, where=near <= _NO_SKELETON * size, initial=0.0))


def _jumps(poses: np.ndarray, frame: int, joint: int, limit: float) -> bool:
    """Whether a joint is farther than `limit` from where it is in the frames around, or not seen in them."""
    around = np.delete(poses[max(frame - _AROUND, 0) : frame + _AROUND + 1, joint], min(frame, _AROUND), axis=0)
    around = around[~np.isnan(around).any(1)]
    return not len(around) or bool(np.linalg.norm(poses[frame, joint] - np.median(around, axis=0)) > limit)


def _from_middle(poses: np.ndarray) -> np.ndarray:
    """Distances of the joints from the median place of all.  # [T, J]"""
    poses = poses.astype(np.float64)
    return np.linalg.norm(poses - np.nanmedian(poses, axis=1, keepdims=True), axis=2)


def resample(poses: np.ndarray, fps: float, wanted: float) -> np.ndarray:
    """Complete poses `[T, J, D]` at `fps` frames a second, at `wanted`, by linear interpolation in time."""
    T = len(poses)
    at = np.arange(int((T - 1) * wanted / fps + 1e-6) + 1) * (fps / wanted)  # places among the recorded frames
    before = np.minimum(at.astype(int), max(T - 2, 0))
    weight = np.minimum(at - before, 1)[:, None, None].astype(poses.dtype)
    return (1 - weight) * poses[before] + weight * poses[np.minimum(before + 1, T - 1)]


def fill_gaps(poses: np.ndarray) -> tuple[np.ndarray, int]:
    """Missing positions (NaN in any coordinate) by linear interpolation in time, by the nearest seen one at the ends; every joint must be seen once.

    Returns the complete poses `[T, J, D]` and the number of positions filled.
    """
    missing = np.isnan(poses).any(2)  # [T, J]
    count = int(missing.sum())
    if count == 0:
        return poses, 0
    T = len(poses)
    frame = np.arange(T)[:, None]
    # The nearest seen frame at or before, and at or after, every frame: running maxima of the frame numbers that were seen.
    before = np.maximum.accumulate(np.where(missing, -1, frame), axis=0)
    after = np.minimum.accumulate(np.where(missing, T, frame)[::-1], axis=0)[::-1]
    before, after = np.where(before < 0, after, before), np.where(after >= T, before, after)
    between = (frame - before) / np.maximum(after - before, 1)
    joint = np.arange(poses.shape[1])
    weight = between[..., None].astype(poses.dtype)
    return (1 - weight) * poses[before, joint] + weight * poses[after, joint], count


def centre_and_scale(poses: np.ndarray, layout: Layout, scale: bool = True) -> np.ndarray | None:
    """The root (the hips' middle, say) at the origin of every frame, and if wanted the walk's mean joint distance from it 1; None for a walk without
    extent."""
    blocks = [slice(t, t + _FRAMES_AT_ONCE) for t in range(0, len(poses), _FRAMES_AT_ONCE)]  # of a long walk a second one in float64 is too much
    distances = np.empty(poses.shape[:2])
    for block in blocks:
        distances[block] = np.linalg.norm(_centred(poses[block], layout), axis=2)
    size = distances.mean()
    del distances
    if not size > 0:
        return None
    done = np.empty(poses.shape, np.float32)
    for block in blocks:
        done[block] = _centred(poses[block], layout) / (size if scale else 1)
    return done


def _centred(poses: np.ndarray, layout: Layout) -> np.ndarray:
    poses = poses.astype(np.float64)  # squares of large numbers are beyond float32
    return poses - poses[:, list(layout.root)].mean(1, keepdims=True)


def mirror(poses: np.ndarray, layout: Layout) -> np.ndarray:
    """Left and right exchanged: the first coordinate changes its sign and mirrored joints their places.  # [T, J, D]"""
    mirrored = poses[:, layout.mirror_order()].copy()
    mirrored[..., 0] *= -1
    return mirrored


def _check(poses: np.ndarray, joints: Sequence[str], min_frames: int) -> None:
    if len(poses) < min_frames:
        raise DataError(f"has {len(poses)} frame(s), at least {min_frames} (hops + 1) are needed")
    if np.isinf(poses).any():
        raise DataError("holds infinite positions")
    never = [joints[j] for j in np.flatnonzero(np.isnan(poses).any(2).all(0)).tolist()]
    if never:
        raise DataError(f"never shows {', '.join(never)}; --drop-joints {' '.join(never)} does without")


def _needed(layout: Layout) -> set[str]:
    return {joint for name in layout.joints for joint in (name, *_BETWEEN.get(name, ()))}


def _joints_of(layout: Layout, names: Sequence[str], poses: np.ndarray) -> np.ndarray:
    """The joints of a layout, in its order, from those called `names`; what is not there is in the middle of two.  # [T, J, D]"""
    if tuple(names) == layout.joints:
        return poses
    columns = []
    for joint in layout.joints:
        sources = [joint] if joint in names else _BETWEEN[joint]
        columns.append(poses[:, [names.index(source) for source in sources]].mean(1))
    return np.stack(columns, axis=1)


def _never_seen(walks: WalkSet, chosen: Sequence[int]) -> list[str]:
    unseen = np.all([np.isnan(poses[:, chosen]).any(2).all(0) for poses in walks.poses], axis=0)
    return [walks.layout.joints[chosen[j]] for j in np.flatnonzero(unseen).tolist()]


def _in_words(name: str, joints: Sequence[str], glitches: np.ndarray) -> str:
    frame, joint, distance = glitches[int(glitches[:, 2].argmax())]
    return f"{len(glitches)} in {name!r} (frame {int(frame)}, {joints[int(joint)]}, {distance:.0f} times as far as the body's joints)"


def _some(glitches: Sequence[str]) -> list[str]:
    if not glitches:
        return []
    more = f" and {len(glitches) - 3} more walk(s)" if len(glitches) > 3 else ""
    return [f"positions far from the body are taken as not seen: {'; '.join(glitches[:3])}{more}"]


def _rates(walks: WalkSet, kept: Sequence[int], options: ReadOptions) -> list[str]:
    """What is to be said of walks that were recorded with different frame rates."""
    rates = Counter(f"{fps:g}" for i in kept if walks.fps and (fps := walks.fps[i]) is not None).most_common()
    if options.fps or len(rates) < 2:
        return []
    listed = ", ".join(f"{rate} ({count} walks)" for rate, count in rates)
    return [f"frame rates differ: {listed}; --fps {rates[0][0]} makes them one"]
