"""Reader of OpenPose's JSON, a file a frame, or a list of such frames: BODY_25 and COCO-18. AlphaPose writes the same, in its folder sep-json."""

from __future__ import annotations

from typing import Any

from fastst.data.formats.alphapose import MIN_KEYPOINT_SCORE, keypoints_of, people_of
from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.formats.video import numbered_frames
from fastst.data.recording import File, Recording

_IDS = ("person_id", "track_id", "id")


def _recognises(content: Any) -> bool:
    return _is_frame(content[0] if isinstance(content, list) and content else content)


def _is_frame(entry: Any) -> bool:
    return isinstance(entry, dict) and any(key in entry and not isinstance(entry[key], dict) for key in ("people", "bodies"))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    one_frame = isinstance(content.first, dict)
    first = content.first if one_frame else content.first[0]
    by_alphapose = "AlphaPose" in str(first.get("version", ""))
    table = Table(file, min_confidence=MIN_KEYPOINT_SCORE) if by_alphapose else Table(file)
    num_frames = 0
    for piece in content:
        frames = [(0, piece)] if one_frame else numbered_frames(piece, num_frames)
        num_frames += len(frames)
        for number, frame in frames:
            if not _is_frame(frame):
                table.leave_out(f"frame {number} is {shortened(frame)}, expected an object with a list 'people'")
        people = [(number, person) for number, frame in frames if _is_frame(frame) for person in people_of(frame)]
        numbers = [number for number, _ in people]
        ids = [next((person[key] for key in _IDS if key in person), None) if isinstance(person, dict) else None for _, person in people]
        in_3d = [person.get("pose_keypoints_3d") if isinstance(person, dict) else None for _, person in people]
        in_2d = [keypoints_of(person) for _, person in people]
        if not any(map(is_array, in_2d)) and any(map(is_array, in_3d)):
            table.add(numbers, in_3d, dims=3, ids=ids)
        else:
            table.add(numbers, in_2d, ids=ids)
    return table.frame() if one_frame else table.recordings()


FORM = Form(
    name="OpenPose's JSON",
    recognises=_recognises,
    read=_read,
    sample="""{
  "version": 1.3,
  "people": [
    {"person_id": [-1], "pose_keypoints_2d": [282.2, 79.3, 0.93, ...], "face_keypoints_2d": [], "pose_keypoints_3d": []}
  ]
}""",
)
