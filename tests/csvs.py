"""Walks as the pose CSV that the docs speak of."""

from __future__ import annotations

from pathlib import Path

from fastst.data.walks import WalkSet


def write_pose_csv(path: Path, walks: WalkSet) -> None:
    """A row a frame: a file name with walk and frame, and x, y and confidence of every joint, 0 where it is missing."""
    rows = [",".join(["image_name", *(f"{joint}_{what}" for joint in walks.layout.joints for what in ("x", "y", "conf"))])]
    for name, poses in zip(walks.names, walks.poses, strict=True):
        for t, frame in enumerate(poses):
            numbers = [f"{x:.2f},{y:.2f},{0 if x != x else 1}" for x, y in frame]
            rows.append(f"casia/{name}/{t:06d}.jpg,{','.join(numbers)}")
    path.write_text("\n".join(rows) + "\n")
