"""A body as somebody sees it: which way is up and forwards in recorded poses, and their picture from any side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastst.layouts import Layout

_UPPER = ("head", "nose", "neck", "shoulder", "thorax")
_LOWER = ("ankle", "foot", "toe", "heel", "knee")


@dataclass(frozen=True)
class View:
    """Where somebody stands who looks at a walker, in degrees.

    Attributes:
        azimuth: 0 in front of the walker, 90 at the right-hand side, 180 behind, 270 at the left-hand side.
        elevation: 0 level with the walker, 90 above.
    """

    azimuth: float = 90.0
    elevation: float = 0.0

    def in_words(self) -> str:
        known = {0.0: "from the front", 90.0: "from the right-hand side", 180.0: "from behind", 270.0: "from the left-hand side"}
        said = known.get(self.azimuth % 360, f"{self.azimuth % 360:g}° from the front")
        return said if self.elevation == 0 else f"{said}, {abs(self.elevation):g}° from {'above' if self.elevation > 0 else 'below'}"


def seen_from(poses: np.ndarray, layout: Layout, view: View) -> np.ndarray:
    """Poses `[T, J, D]` as they are drawn, x to the right and y up.  # [T, J, 2]

    2D poses are as in the image, whatever the view. 3D poses are looked at without perspective.
    """
    if poses.shape[2] == 2:
        return poses * (1, -1)  # an image's y axis points down
    forwards, left, up = body_axes(poses, layout)
    azimuth, elevation = np.radians((view.azimuth, view.elevation))
    to_viewer = np.cos(azimuth) * forwards - np.sin(azimuth) * left
    across = np.cos(azimuth) * left + np.sin(azimuth) * forwards
    upwards = np.cos(elevation) * up - np.sin(elevation) * to_viewer
    return poses @ np.stack([across, upwards], axis=1)


def body_axes(poses: np.ndarray, layout: Layout) -> np.ndarray:
    """Forwards, left and up of 3D poses `[T, J, 3]` in their (right-handed) coordinates: three unit vectors.  # [3, 3]

    Up is the coordinate axis along which the mean pose is longest, towards the head. Left is the way from the right hip to the left one, and from
    shoulder to shoulder, on the mean over frames; forwards is at right angles to both. No distance covered is needed, so it works on a treadmill
    too, and for poses that were moved to the origin. A skeleton without left and right walks in the direction in which its joints move most.
    """
    up = _up(poses, layout)
    flat = poses - (poses @ up)[..., None] * up
    left_joints, right_joints = _trunk(layout)
    left = (flat[:, left_joints] - flat[:, right_joints]).mean((0, 1)) if left_joints else np.zeros(3)
    if np.linalg.norm(left) <= 1e-6 * np.ptp(poses):
        left = np.cross(up, _most_motion(flat, up))
    left = left / np.linalg.norm(left)
    return np.stack([np.cross(left, up), left, up])


def sides(layout: Layout) -> tuple[list[int], list[int]]:
    """The left joints and, in the same order, their right partners."""
    pairs = [(b, a) if _says_right(layout.joints[a]) else (a, b) for a, b in layout.mirrored]
    return [left for left, _ in pairs], [right for _, right in pairs]


def standing_body(walks: list[np.ndarray], layout: Layout) -> np.ndarray:
    """One body, seen from the front, x to the right and y up: the mean pose of that of the walks which is seen most from the front.  # [J, 2]

    The walker's left is at the right, as in a mirror image. Where no walk tells left from right they are drawn apart.
    """
    left, right = sides(layout)
    means = [seen_from(poses, layout, View(0.0)).mean(0) for poses in walks]
    if not left:
        return means[0]
    apart = [(mean[left, 0] - mean[right, 0]).mean() / max(np.ptp(mean[:, 1]), 1e-9) for mean in means]
    best = int(np.argmax(np.abs(apart)))
    body = means[best] * (1 if apart[best] >= 0 else -1, 1)
    missing = max(0.1 - abs(apart[best]), 0) * np.ptp(body[:, 1])
    body[left, 0] += missing / 2
    body[right, 0] -= missing / 2
    return body


def _trunk(layout: Layout) -> tuple[list[int], list[int]]:
    """Of the `sides` the hips, shoulders and others that a bone joins to each other or to the middle of the body: they swing least."""
    left, right = sides(layout)
    paired = {*left, *right}
    inner = [
        (a, b) for a, b in zip(left, right, strict=True) if any(set(bone) & {a, b} and not (set(bone) - {a, b}) & paired for bone in layout.bones)
    ]
    return ([a for a, _ in inner], [b for _, b in inner]) if inner else (left, right)


def _up(poses: np.ndarray, layout: Layout) -> np.ndarray:
    mean = poses.mean(0)
    axis = int(np.ptp(mean, axis=0).argmax())
    height = mean[:, axis]
    upper, lower = ([j for j, name in enumerate(layout.joints) if any(word in name.lower() for word in words)] for words in (_UPPER, _LOWER))
    named = len(upper) > 0 and len(lower) > 0
    rises = height[upper].mean() - height[lower].mean() if named else _toward_less_motion(height, poses)
    return np.eye(3)[axis] * (1 if rises >= 0 else -1)


def _toward_less_motion(height: np.ndarray, poses: np.ndarray) -> float:
    """Positive where low joints move more than high ones, as feet do and a head does not."""
    return -float(np.dot(height - height.mean(), poses.std(0).sum(1)))


def _most_motion(flat: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The horizontal direction in which joints move most."""
    moved = (flat - flat.mean(0)).reshape(-1, 3)
    spread = moved.T @ moved - np.outer(up, up)  # never up, even where nothing moves
    return np.linalg.eigh(spread)[1][:, -1]


def _says_right(name: str) -> bool:
    return "right" in name.lower() or name[:2] in ("r_", "R_") or (name[:1] == "R" and name[1:2].isupper())
