"""Reader of ultralytics' JSON of YOLO-pose (`Results.to_json()`): a file a frame, or a list of frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.recording import File, Recording
from fastst.data.walks import DataError


def _recognises(content: Any) -> bool:
    """Also an empty list: a frame in which nobody was seen."""
    if not isinstance(content, list):
        return False
    first = next((entry for entry in content if not isinstance(entry, list) or entry), None)
    if isinstance(first, list):
        first = first[0]
    is_text = isinstance(first, str) and first.lstrip().startswith("[")
    return first is None or is_text or (isinstance(first, Mapping) and {"box", "class"} <= set(first))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file)
    first_frame = 0
    one_frame = all(isinstance(entry, Mapping) for entry in content.first)
    for piece in content:
        frames = [piece] if one_frame else piece
        _add_frames(table, frames, first_frame, file)
        first_frame += len(frames)
    return table.frame() if one_frame else table.recordings()


def _add_frames(table: Table, frames: list[Any], first_frame: int, file: File) -> None:
    found = []
    for number, frame in enumerate(frames, start=first_frame):
        detections = _parsed(frame) if isinstance(frame, str) else frame
        if isinstance(detections, list):
            found += [(number, detection if isinstance(detection, Mapping) else {"keypoints": detection}) for detection in detections]
        else:
            table.leave_out(f"frame {number} is {shortened(frame)}, expected a list of detections")
    if found and not any("keypoints" in detection for _, detection in found):
        raise DataError(f"{file.path} has boxes of YOLO but no keypoints; give what a -pose model writes, such as yolo11n-pose.pt")
    shapes = [detection.get("keypoints") for _, detection in found]
    x, y, visible = ([shape.get(key) if isinstance(shape, Mapping) else shape for shape in shapes] for key in ("x", "y", "visible"))
    confident = any(map(is_array, visible))
    table.add(
        [number for number, _ in found],
        (x, y),
        confidences=visible if confident else None,
        confident=confident,
        boxes=[_corners(detection.get("box")) for _, detection in found],
        scores=[detection.get("confidence") for _, detection in found],
        ids=[detection.get("track_id") for _, detection in found],
    )


def _parsed(text: str) -> Any:
    """The frame in a string, which is what a list of what `to_json` returned holds."""
    try:
        return _with_arrays(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _with_arrays(frame: Any) -> Any:
    if isinstance(frame, Mapping):
        return {key: _with_arrays(value) for key, value in frame.items()}
    if isinstance(frame, list):
        return np.array(frame, float) if frame and all(isinstance(value, int | float) for value in frame) else list(map(_with_arrays, frame))
    return frame


def _corners(box: Any) -> Any:
    corners = [box.get(key) for key in ("x1", "y1", "x2", "y2")] if isinstance(box, Mapping) else [None]
    return np.array(corners, float) if all(isinstance(corner, int | float) for corner in corners) else box


FORM = Form(
    name="ultralytics' JSON",
    recognises=_recognises,
    read=_read,
    sample="""[
  {"name": "person", "class": 0, "confidence": 0.92, "box": {"x1": 140.1, "y1": 60.2, "x2": 191.1, "y2": 193.9}, "track_id": 1,
   "keypoints": {"x": [165.8, ...], "y": [78.0, ...], "visible": [0.93, ...]}},
  ...
]""",
)
