"""Reader of the JSON of TensorFlow.js' pose models, MoveNet, PoseNet and BlazePose, and of ml5.js: a pose is a list of points with names and scores.

Their users save them as they like: a list of frames, each a list of poses; frames with `poses` and a number; one pose a frame; a file a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastst.data.formats.columns import layout_of, plain
from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array
from fastst.data.formats.video import About, frame_number, numbered_frames
from fastst.data.recording import File, Recording
from fastst.layouts import LAYOUTS, Layout

_FRAMES = ("frames", "data", "results", "keyframes", "predictions", "poses")
_POSES = ("poses", "pose", "predictions")
_NAMES = ("name", "part", "class")
_SCORES = ("score", "confidence", "visibility")
_PLACES = ("position", "point")
_LAYOUTS = (LAYOUTS["coco17"], LAYOUTS["mediapipe33"])  # of MoveNet and PoseNet, and of BlazePose
_MOST_PEOPLE = 6  # whom MoveNet sees in a frame


def _recognises(content: Any) -> bool:
    return any(_is_pose(pose) for _, frame in _numbered(content, 0) for pose in _poses(frame)[:1])


def _is_pose(entry: Any) -> bool:
    points = entry.get("keypoints") if isinstance(entry, Mapping) else None
    if isinstance(points, Mapping):  # columns
        return "box" not in entry and is_array(points.get("x")) and is_array(points.get("y"))
    return isinstance(points, list) and bool(points) and _place(points[0]) is not None


def _place(point: Any) -> Mapping[str, Any] | None:
    """What has the x and y of a point."""
    if not isinstance(point, Mapping):
        return None
    place = next((point[key] for key in _PLACES if key in point), point)
    return place if isinstance(place, Mapping) and all(isinstance(place.get(axis), int | float) for axis in "xy") else None


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    about = About()
    table, layout = Table(file), None
    num_frames, is_counted, are_poses = 0, False, True
    for piece in content:
        about.add(piece)
        frames = _numbered(piece, num_frames)
        num_frames += len(frames)
        is_counted = is_counted or any(frame_number(frame) is not None for _, frame in frames)
        are_poses = are_poses and all(isinstance(frame, Mapping) and "keypoints" in frame for _, frame in frames)
        people = [(number, pose) for number, frame in frames for pose in _poses(frame)]
        points = [pose.get("keypoints") if isinstance(pose, Mapping) else pose for _, pose in people]
        if layout is None and any(_names(one) for one in points):
            layout = _layout_of({name for one in points for name in _names(one)})
            table.layouts = {layout.num_joints: layout}
        _add(table, people, [_columns(one, layout) for one in points])
    one_frame = not is_counted and (num_frames == 1 or (are_poses and num_frames <= _MOST_PEOPLE))
    fields = {"fps": about.fps, "image_size": about.image_size}
    return table.frame(**fields) if one_frame else table.recordings(**fields)


def _numbered(content: Any, first: int) -> list[tuple[Any, Any]]:
    """Frames and their numbers; a frame or a pose alone is one."""
    if isinstance(content, Mapping):
        inner = None if "keypoints" in content else next((content[key] for key in _FRAMES if isinstance(content.get(key), list | Mapping)), None)
        if inner is None and not any(map(_recognises_frame, content.values())):
            return [(first, content)]
        content = content if inner is None else inner
    return numbered_frames(content, first) if isinstance(content, list | Mapping) else []


def _recognises_frame(value: Any) -> bool:
    return isinstance(value, list | Mapping) and any(map(_is_pose, _poses(value)[:1]))


def _poses(frame: Any) -> list[Any]:
    """Those whom a frame has; anything that is none as it is."""
    if isinstance(frame, list):
        return [pose for entry in frame for pose in _poses(entry)]
    if isinstance(frame, Mapping) and "keypoints" not in frame:
        return next((_poses(frame[key]) for key in _POSES if key in frame), [])
    return [] if frame is None else [frame]


def _names(points: Any) -> list[str]:
    """Names of the points in a list, where they have some."""
    key = next((key for key in _NAMES if isinstance(points, list) and points and isinstance(points[0], Mapping) and key in points[0]), None)
    return [] if key is None else [str(point.get(key)) for point in points if isinstance(point, Mapping)]


def _layout_of(names: set[str]) -> Layout:
    """The skeleton of the models that has all of the names, of which those that were seen badly may be left out; else the one that the names make."""
    known = {plain(name) for name in names}
    fitting = next((layout for layout in _LAYOUTS if known <= set(map(plain, layout.joints))), None)
    return fitting or layout_of(sorted(names))[0]


def _columns(points: Any, layout: Layout | None) -> Any:
    """x, y and, where there are scores, these, of all joints of the skeleton; NaN where a joint is not among the points. Others as they are."""
    if isinstance(points, Mapping):
        return points
    if not isinstance(points, list) or not points:
        return points
    places = [place for point in points if (place := _place(point)) is not None]
    if len(places) < len(points):
        return points
    score = next((key for key in _SCORES if key in points[0]), None)
    rows = [(place["x"], place["y"], point.get(score, np.nan) if score else np.nan) for place, point in zip(places, points, strict=True)]
    try:
        values = np.array(rows, float).T  # [3, points]
    except (TypeError, ValueError, OverflowError):
        return points
    names = _names(points)
    if layout is not None and len(names) == len(points):
        joint_of = {plain(joint): j for j, joint in enumerate(layout.joints)}
        joints = np.array([joint_of.get(plain(name), -1) for name in names])
        placed = np.full((3, layout.num_joints), np.nan)
        placed[:, joints[joints >= 0]] = values[:, joints >= 0]
        values = placed
    return {"x": values[0], "y": values[1], **({"score": values[2]} if score else {})}


def _add(table: Table, people: list[tuple[Any, Any]], columns: list[Any]) -> None:
    get = [one if isinstance(one, Mapping) else {"x": one, "y": one} for one in columns]
    about = [pose if isinstance(pose, Mapping) else {} for _, pose in people]
    scores = [next((one[key] for key in _SCORES if key in one), None) for one in get]
    confident = any(map(is_array, scores))
    table.add(
        [number for number, _ in people],
        ([one.get("x") for one in get], [one.get("y") for one in get]),
        confidences=scores if confident else None,
        confident=confident,
        scores=[next((pose[key] for key in _SCORES if isinstance(pose.get(key), int | float)), None) for pose in about],
        ids=[pose.get("id") for pose in about],
    )


FORM = Form(
    name="MoveNet's and PoseNet's JSON",
    recognises=_recognises,
    read=_read,
    sample="""[
  [{"score": 0.71, "keypoints": [{"x": 165.8, "y": 78.0, "score": 0.93, "name": "nose"}, ...]}],
  [{"score": 0.72, "keypoints": [{"x": 166.2, "y": 78.4, "score": 0.91, "name": "nose"}, ...]}],
  ...
]
or, of PoseNet: {"score": 0.71, "keypoints": [{"score": 0.93, "part": "nose", "position": {"x": 165.8, "y": 78.0}}, ...]}""",
)
