"""Reader of ultralytics' JSON of YOLO-pose (`Results.to_json()`): a file a frame, or a list of frames, or of detections with the number of theirs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastst.data.formats.content import Document, parse_text
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.formats.video import frame_number
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
    return first is None or is_text or (isinstance(first, dict) and {"box", "class"} <= set(first))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file)
    first_frame = 0
    are_detections = all(isinstance(entry, dict) for entry in content.first)
    one_frame = are_detections and all(frame_number(entry) is None for entry in content.first)
    for piece in content:
        numbered = [(0 if one_frame else frame_number(entry), entry) for entry in piece] if are_detections else _detections(table, piece, first_frame)
        add_detections(table, numbered, file)
        first_frame += len(piece)
    return table.frame() if one_frame else table.recordings()


def _detections(table: Table, frames: list[Any], first_frame: int) -> list[tuple[Any, Any]]:
    found = []
    for number, frame in enumerate(frames, start=first_frame):
        detections = _parsed(frame) if isinstance(frame, str) else frame
        if isinstance(detections, list):
            found += [(number, detection) for detection in detections]
        else:
            table.leave_out(f"frame {number} is {shortened(frame)}, expected a list of detections")
    return found


def add_detections(table: Table, found: list[tuple[Any, Any]], file: File) -> None:
    """Add detections with the number of their frame."""
    detections = [detection if isinstance(detection, dict) else {"keypoints": detection} for _, detection in found]
    if found and not any("keypoints" in detection for detection in detections):
        raise DataError(f"{file.path} has boxes of YOLO but no keypoints; give what a -pose model writes, such as yolo11n-pose.pt")
    shapes = [detection.get("keypoints") for detection in detections]
    x, y, visible = ([shape.get(key) if isinstance(shape, dict) else shape for shape in shapes] for key in ("x", "y", "visible"))
    confident = any(map(is_array, visible))
    table.add(
        [number for number, _ in found],
        (x, y),
        confidences=visible if confident else None,
        confident=confident,
        boxes=_corners([detection.get("box") for detection in detections]),
        scores=[detection.get("confidence") for detection in detections],
        ids=[detection.get("track_id") for detection in detections],
    )


def _parsed(text: str) -> Any:
    """The frame in a string, which is what a list of what `to_json` returned holds."""
    try:
        return parse_text(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return text


def _corners(boxes: list[Any]) -> list[Any]:
    """Arrays in place of the boxes that say their corners."""
    try:
        return list(np.array([[box["x1"], box["y1"], box["x2"], box["y2"]] for box in boxes], float))
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):  # one of them doesn't
        return boxes if len(boxes) == 1 else [corners for box in boxes for corners in _corners([box])]


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
