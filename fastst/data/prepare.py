"""From recorded poses to what a model is given: one layout, no gaps, the body at the origin and of size one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.layouts import LAYOUTS, Layout, get_layout


@dataclass(frozen=True)
class Filled:
    """How many joint positions were missing and filled in from the frames around them, out of how many."""

    positions: int
    of: int

    @property
    def share(self) -> float:
        return self.positions / max(self.of, 1)


def choose_layout(name: str, recorded: Layout) -> Layout:
    """The layout to train on: `auto` is coco18 (the paper's) for coco17 data and the data's own otherwise; any other must have the data's joints.

    Raises:
        ValueError: an unknown layout.
        DataError: one that does not fit the data.
    """
    if name == "auto":
        return LAYOUTS["coco18"] if recorded.joints == LAYOUTS["coco17"].joints else recorded
    try:
        wanted = get_layout(name)
    except ValueError as error:
        raise DataError(f"--layout {name}: {error}") from None
    if _fits(wanted, recorded):
        return wanted
    raise DataError(
        f"the data has the {recorded.num_joints} joints {', '.join(recorded.joints)}, the layout {wanted.name!r} the {wanted.num_joints} joints "
        f"{', '.join(wanted.joints)}; use --layout auto, or one with the same joints (coco18 also for coco17 data)"
    )


def layout_for(model: Layout, recorded: Layout) -> Layout:
    """The model's layout; DataError if the data don't have its joints (coco17 data may lack the mid-shoulder)."""
    if _fits(model, recorded):
        return model
    raise DataError(
        f"the model was trained on the {model.num_joints} joints {', '.join(model.joints)}, the data has {recorded.num_joints}: "
        f"{', '.join(recorded.joints)}; give data with the same joints, or train on such data"
    )


def _fits(wanted: Layout, recorded: Layout) -> bool:
    """The same joints, or coco18 for coco17 data, whose mid-shoulder can be added."""
    added = (LAYOUTS["coco17"].joints, LAYOUTS["coco18"].joints)
    return wanted.joints == recorded.joints or (recorded.joints, wanted.joints) == added


def prepare(walks: WalkSet, layout: Layout, min_frames: int) -> tuple[WalkSet, Filled]:
    """Fills gaps, adds the mid-shoulder where `layout` has it and the data does not, centres and scales every walk.

    Walks with fewer than `min_frames` frames, with infinite numbers, with a joint that is never seen, or without extent are left out and listed.

    Returns:
        The walks that can be used, poses `[T, J, D]` without NaN, and how much was filled in.

    Raises:
        DataError: no walk can be used.
    """
    poses, kept, left_out = [], [], list(walks.left_out)
    filled = total = 0
    for i in range(len(walks)):
        recorded = walks.poses[i]
        reason = _unusable(recorded, walks.layout, min_frames)
        if reason is None:
            complete, missing = fill_gaps(recorded)
            if layout.num_joints == walks.layout.num_joints + 1:
                complete = _add_mid_shoulder(complete, walks.layout)
            prepared = centre_and_scale(complete, layout)
            reason = "has no extent: all joints are at one place in every frame" if prepared is None else None
        if reason is not None or prepared is None:
            left_out.append(LeftOut(walks.names[i], reason or ""))
            continue
        filled, total = filled + missing, total + recorded.shape[0] * recorded.shape[1]
        poses.append(prepared)
        kept.append(i)
    if not kept:
        first = f"; the first: {left_out[0].name} {left_out[0].reason}" if left_out else ""
        raise DataError(f"none of the {len(walks)} walks can be used{first}")
    usable = replace(walks.take(kept), layout=layout, poses=poses, left_out=left_out)
    return usable, Filled(filled, total)


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


def centre_and_scale(poses: np.ndarray, layout: Layout) -> np.ndarray | None:
    """The root (the hips' middle, say) at the origin of every frame, and the walk's mean joint distance from it 1; None for a walk without extent."""
    poses = poses.astype(np.float64)  # squares of large numbers are beyond float32
    centred = poses - poses[:, list(layout.root)].mean(1, keepdims=True)
    size = np.linalg.norm(centred, axis=2).mean()
    return (centred / size).astype(np.float32) if size > 0 else None


def mirror(poses: np.ndarray, layout: Layout) -> np.ndarray:
    """Left and right exchanged: the first coordinate changes its sign and mirrored joints their places.  # [T, J, D]"""
    mirrored = poses[:, layout.mirror_order()].copy()
    mirrored[..., 0] *= -1
    return mirrored


def _unusable(poses: np.ndarray, layout: Layout, min_frames: int) -> str | None:
    if len(poses) < min_frames:
        return f"has {len(poses)} frame(s), at least {min_frames} (hops + 1) are needed"
    if np.isinf(poses).any():
        return "holds infinite positions"
    never = np.flatnonzero(np.isnan(poses).any(2).all(0))
    if len(never):
        return f"never shows {', '.join(layout.joints[j] for j in never)}"
    return None


def _add_mid_shoulder(poses: np.ndarray, layout: Layout) -> np.ndarray:
    shoulders = [layout.index("left_shoulder"), layout.index("right_shoulder")]
    return np.concatenate((poses, poses[:, shoulders].mean(1, keepdims=True)), axis=1)
