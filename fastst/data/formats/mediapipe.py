"""Reader of JSON with the 33 landmarks of MediaPipe's pose, which everybody writes in another way: a list of frames, frames below a key, frames by
their number, or a file a frame; a frame is a list of points with x, y, z and visibility, or has one below a key.

World landmarks are read in 3D (metres), those of the image without their depth, which is a guess in other units than x and y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastst.data.formats.clock import frames_at, rate_of
from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array
from fastst.data.formats.video import About, frame_number, numbered_frames
from fastst.data.recording import File, Recording
from fastst.layouts import LAYOUTS

_LAYOUT = LAYOUTS["mediapipe33"]
_HIPS = list(_LAYOUT.root)
_WORLD = ("pose_world_landmarks", "poseWorldLandmarks", "world_landmarks", "worldLandmarks")
_LANDMARKS = (*_WORLD, "pose_landmarks", "poseLandmarks", "landmarks", "landmark")
_FRAMES = ("frames", "data", "results", "poses")
_COLUMNS = ("x", "y", "z", "visibility")
_TIMES = ("timestamp", "timestamp_ms", "time")  # of which the last that is there counts
_NEAR = 0.05  # metres: the hips' middle is the origin of world landmarks


def _recognises(content: Any) -> bool:
    if _is_frame(content):
        return True
    frames = _frames(content)
    entries = frames.values() if isinstance(frames, dict) else frames if isinstance(frames, list) else ()
    first = next((entry for entry in entries if isinstance(entry, list | dict | np.ndarray) and len(entry)), None)
    return first is not None and _is_frame_of_several(first)


def _is_frame(entry: Any) -> bool:
    """Whether it is points, in a list or by their names, or has landmarks below a key."""
    if isinstance(entry, dict):
        if {str(key).lower() for key in entry} == set(_LAYOUT.joints):
            return True
        return _are_columns(entry) or any(key in entry for key in _LANDMARKS)
    return isinstance(entry, list) and bool(entry) and _is_point(entry[0])


def _is_frame_of_several(entry: Any) -> bool:
    """Also a list of people, or an array for one: what on the outside is a list of frames."""
    if is_array(entry):
        return entry.ndim == 2 and len(entry) == _LAYOUT.num_joints
    return _is_frame(entry) or (isinstance(entry, list) and bool(entry) and isinstance(entry[0], dict) and _are_columns(entry[0]))


def _are_columns(entry: Mapping[str, Any]) -> bool:
    return is_array(entry.get("x")) and is_array(entry.get("y"))


def _is_point(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), int | float) for key in ("x", "y"))


def _frames(content: Any) -> Any:
    if isinstance(content, dict):
        return next((content[key] for key in _FRAMES if isinstance(content.get(key), list | dict)), content)
    return content


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file, {_LAYOUT.num_joints: _LAYOUT}, min_confidence=-np.inf)
    one_frame = _is_frame(content.first)
    about = About()
    key, in_world, num_frames, is_counted = "", None, 0, False
    times: dict[int, Any] = {}
    for piece in content:
        about.add(piece)
        frames = [(0, piece)] if one_frame else numbered_frames(_frames(piece), num_frames)
        num_frames += len(frames)
        is_counted = is_counted or any(isinstance(frame, dict) and frame_number(frame) is not None for _, frame in frames)
        times |= _times(frames)
        key = key or next((key for key in _LANDMARKS for _, frame in frames if isinstance(frame, dict) and _people(frame.get(key), "")), "")
        people = [(number, person) for number, frame in frames for person in _people(frame, key)]
        if in_world is None and people:
            in_world = key in _WORLD or _has_origin_at_hips(people[0][1])
        _add(table, people, bool(in_world))
    numbers = np.array(sorted(times))
    fields: dict[str, Any] = {"fps": about.fps, "image_size": None if in_world else about.image_size}
    if about.fps is None and (found := rate_of(numbers, [times[number] for number in sorted(times)])):
        fields |= {"fps": found[0], "clock": f"the frames' times, in {found[1]}"}
    if one_frame:
        return table.frame(**fields)
    return [recording if is_counted else _by_time(recording, times) for recording in table.recordings(**fields)]


def _by_time(recording: Recording, times: dict[int, Any]) -> Recording:
    """The recording with gaps where the times of its frames, which have no numbers, jump."""
    places, detections = np.array(sorted(times)), recording.detections
    at = frames_at([times[place] for place in places.tolist()])
    if at is None or not np.isin(detections.frames, places).all():
        return recording
    return recording.with_detections(replace(detections, frames=at[np.searchsorted(places, detections.frames)]))


def _times(frames: list[tuple[Any, Any]]) -> dict[int, Any]:
    """Number of the frame -> its time, of those that have both."""
    given = [(number, frame) for number, frame in frames if isinstance(number, int) and isinstance(frame, dict)]
    return {number: frame[key] for number, frame in given for key in _TIMES if isinstance(frame.get(key), int | float | str)}


def _people(frame: Any, key: str) -> list[Any]:
    """The columns x, y, z and visibility of everybody in a frame; anything that is none as it is."""
    if frame is None or (isinstance(frame, list | dict) and not frame):
        return []
    if isinstance(frame, dict) and not _are_columns(frame):
        if any(map(_is_point, frame.values())):
            return [_columns(_in_order(list(frame.values()), list(frame)))]
        inner = key if key in frame else next((name for name in ("landmarks", "landmark") if name in frame), None)
        return [] if inner is None else _people(frame[inner], "")
    if is_array(frame) and frame.size % _LAYOUT.num_joints == 0:
        return [dict(zip(_COLUMNS, frame.reshape(_LAYOUT.num_joints, -1).T, strict=False))]
    if isinstance(frame, list):
        names = [point.get("name", point.get("id")) if isinstance(point, dict) else None for point in frame]
        return [_columns(_in_order(frame, names))] if any(map(_is_point, frame)) else [person for entry in frame for person in _people(entry, "")]
    if isinstance(frame, dict) and (names := _names(frame)):
        order = _in_order([*range(len(names))], names)
        return [{key: value[order] if is_array(value) and value.shape == (len(order),) else value for key, value in frame.items()}]
    return [frame]


def _names(columns: dict[str, Any]) -> list[Any]:
    """Names or numbers of points in columns, where they have some."""
    names = columns.get("name", columns.get("id"))
    if is_array(names) and names.ndim == 1:
        names = [int(number) if number.is_integer() else number for number in names.tolist()]
    return names if isinstance(names, list) and len(names) == len(columns["x"]) else []


def _in_order(points: list[Any], names: list[Any]) -> list[Any]:
    """All the landmarks in MediaPipe's order, where they have its names or numbers; others as they are."""
    known = [*_LAYOUT.joints]
    places = {str(name).lower(): point for name, point in zip(names, points, strict=True)}
    for expected in (known, [str(number) for number in range(len(known))]):
        if len(points) == len(places) and set(places) == set(expected):
            return [places[name] for name in expected]
    return points


def _columns(points: list[Any]) -> Any:
    try:
        return {key: np.array([point[key] for point in points], float) for key in _COLUMNS if key in points[0]}
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        return points


def _has_origin_at_hips(person: Any) -> bool:
    if not isinstance(person, dict) or not {"x", "y", "z"} <= set(person) or len(person["x"]) != _LAYOUT.num_joints:
        return False
    return all(abs(person[axis][_HIPS].mean()) < _NEAR for axis in ("x", "y"))


def _add(table: Table, people: list[tuple[Any, Any]], in_world: bool) -> None:
    axes = ("x", "y", "z") if in_world else ("x", "y")
    get = [person if isinstance(person, dict) else {"x": person} for _, person in people]
    visible = [person.get("visibility") for person in get]
    confident = any(map(is_array, visible))
    positions = tuple([person.get(axis) for person in get] for axis in axes)
    table.add([number for number, _ in people], positions, len(axes), confidences=visible if confident else None, confident=confident)


FORM = Form(
    name="MediaPipe's landmarks as JSON",
    recognises=_recognises,
    read=_read,
    sample="""{
  "fps": 30, "width": 1920, "height": 1080,
  "frames": [
    {"frame": 0, "pose_landmarks": [{"x": 0.512, "y": 0.183, "z": -0.41, "visibility": 0.998}, ...]}, ...
  ]
}""",
)
