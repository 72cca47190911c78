"""Reader of mappings person → frame → keypoints, in which tracked poses of AlphaPose circulate."""

from __future__ import annotations

from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.recording import File, Recording


def _recognises(content: Any) -> bool:
    outer = next(iter(content.values()), None) if isinstance(content, dict) else None
    name, pose = next(iter(outer.items()), ("", None)) if isinstance(outer, dict) else ("", None)
    return any(letter.isdigit() for letter in name) and (is_array(pose) or (isinstance(pose, dict) and "keypoints" in pose))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file)
    people: dict[str, int] = {}
    frames_first = None
    for piece in content:
        poses = []
        for outer, inner in piece.items():
            if isinstance(inner, dict):
                poses += [(outer, name, pose) for name, pose in inner.items()]
            else:
                table.leave_out(f"person {outer!r} is {shortened(inner)}, expected an object with the keypoints of every frame")
        if frames_first is None:  # of frames there are more than of people
            frames_first = len({outer for outer, _, _ in poses}) > len({name for _, name, _ in poses})
        who = [name if frames_first else outer for outer, name, _ in poses]
        get = [pose if isinstance(pose, dict) else {"keypoints": pose} for _, _, pose in poses]
        table.add(
            [outer if frames_first else name for outer, name, _ in poses],
            [pose.get("keypoints") for pose in get],
            scores=[pose.get("scores") if isinstance(pose.get("scores"), float | int) else None for pose in get],
            ids=[people.setdefault(name, len(people)) for name in who],
        )
    return table.recordings()


FORM = Form(
    name="person → frame → keypoints",
    recognises=_recognises,
    read=_read,
    sample="""{
  "1": {
    "0000": {"keypoints": [165.8, 78.0, 0.93, ...], "scores": null},
    "0001": {"keypoints": [166.2, 78.4, 0.91, ...], "scores": null}, ...
  }, ...
}""",
)
