"""Reader of OpenPose's JSON, a file a frame: BODY_25 and COCO-18. AlphaPose writes the same, in its folder sep-json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastst.data.formats.alphapose import MIN_KEYPOINT_SCORE, keypoints_of, people_of
from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array
from fastst.data.recording import File, Recording


def _recognises(content: Any) -> bool:
    return isinstance(content, Mapping) and any(key in content and not isinstance(content[key], Mapping) for key in ("people", "bodies"))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    by_alphapose = "AlphaPose" in str(content.first.get("version", ""))
    table = Table(file, min_confidence=MIN_KEYPOINT_SCORE) if by_alphapose else Table(file)
    for piece in content:
        people = people_of(piece)
        ids = [person.get("person_id") if isinstance(person, Mapping) else None for person in people]
        in_3d = [person.get("pose_keypoints_3d") if isinstance(person, Mapping) else None for person in people]
        in_2d = [keypoints_of(person) for person in people]
        if not any(map(is_array, in_2d)) and any(map(is_array, in_3d)):
            table.add([0] * len(people), in_3d, dims=3, ids=ids)
        else:
            table.add([0] * len(people), in_2d, ids=ids)
    return table.frame()


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
