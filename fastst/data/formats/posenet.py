"""Reader of the JSON of TensorFlow.js' pose models, MoveNet, PoseNet and BlazePose, and of ml5.js: a pose is a list of points with names and scores.

Their users save them as they like: a list of frames, each a list of poses; frames with `poses` and a number; one pose a frame; a file a frame.
"""

from __future__ import annotations

from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.named_points import (
    SCORES,
    are_below_names,
    are_columns,
    as_list,
    columns_of_points,
    layout_of_names,
    names_of,
    place_of,
    points_among,
)
from fastst.data.formats.records import Table, is_array
from fastst.data.formats.video import About, frame_number, numbered_frames
from fastst.data.recording import File, Recording

_FRAMES = ("frames", "data", "results", "keyframes", "predictions", "poses")
_POSES = ("poses", "pose", "predictions", "people", "persons")
_MOST_PEOPLE = 6  # whom MoveNet sees in a frame


def _recognises(content: Any) -> bool:
    return any(_is_pose(pose) for _, frame in _numbered(content, 0) for pose in _poses(frame)[:1])


def _is_pose(entry: Any) -> bool:
    points = entry.get("keypoints") if isinstance(entry, dict) else None
    if are_columns(points):
        return "class" not in entry  # those are of ultralytics
    if are_below_names(points):
        return "image_id" not in entry  # those are of COCO or AlphaPose
    return isinstance(points, list) and bool(points) and place_of(points[0]) is not None


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    about = About()
    table, layout = Table(file), None
    num_frames, is_counted, are_poses = 0, False, True
    for piece in content:
        about.add(piece)
        frames = _numbered(piece, num_frames)
        num_frames += len(frames)
        is_counted = is_counted or any(frame_number(frame) is not None for _, frame in frames)
        are_poses = are_poses and all(isinstance(frame, dict) and "keypoints" in frame for _, frame in frames)
        people = [(number, pose) for number, frame in frames for pose in _poses(frame)]
        points = [as_list(pose.get("keypoints")) if isinstance(pose, dict) else pose for _, pose in people]
        if layout is None and any(names_of(one) for one in points):
            layout = layout_of_names(name for one in points for name in names_of(one))
            table.layouts = {layout.num_joints: layout}
        _add(table, people, [columns_of_points(one, layout) for one in points])
    one_frame = not is_counted and (num_frames == 1 or (are_poses and num_frames <= _MOST_PEOPLE))
    fields = {"fps": about.fps, "image_size": about.image_size}
    return table.frame(**fields) if one_frame else table.recordings(**fields)


def _numbered(content: Any, first: int) -> list[tuple[Any, Any]]:
    """Frames and their numbers; a frame or a pose alone is one."""
    if isinstance(content, dict):
        inner = None if "keypoints" in content else next((content[key] for key in _FRAMES if isinstance(content.get(key), list | dict)), None)
        if inner is None and not any(map(_recognises_frame, content.values())):
            return [(first, content)]
        content = content if inner is None else inner
    return numbered_frames(content, first) if isinstance(content, list | dict) else []


def _recognises_frame(value: Any) -> bool:
    return isinstance(value, list | dict) and any(map(_is_pose, _poses(value)[:1]))


def _poses(frame: Any) -> list[Any]:
    """Those whom a frame has; anything that is none as it is."""
    if isinstance(frame, list):
        return [pose for entry in frame for pose in _poses(entry)]
    if isinstance(frame, dict) and "keypoints" not in frame:
        inner = next((key for key in _POSES if key in frame), None)
        points = points_among(frame) if inner is None else None
        return _poses(frame[inner]) if inner is not None else [] if points is None else [{"keypoints": points}]
    return [] if frame is None else [frame]


def _add(table: Table, people: list[tuple[Any, Any]], columns: list[Any]) -> None:
    get = [one if isinstance(one, dict) else {"x": one, "y": one} for one in columns]
    about = [pose if isinstance(pose, dict) else {} for _, pose in people]
    scores = [one.get("score") for one in get]
    confident = any(map(is_array, scores))
    table.add(
        [number for number, _ in people],
        ([one.get("x") for one in get], [one.get("y") for one in get]),
        confidences=scores if confident else None,
        confident=confident,
        scores=[next((pose[key] for key in SCORES if isinstance(pose.get(key), int | float)), None) for pose in about],
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
