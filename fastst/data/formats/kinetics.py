"""Reader of Kinetics-skeleton (ST-GCN), a JSON a video: OpenPose's 18 joints of up to two people a frame, positions as shares of the image.

The videos had 340 by 256 pixels and 30 frames a second, as its authors say; the files don't.
"""

from __future__ import annotations

from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, shortened
from fastst.data.recording import File, Recording
from fastst.data.walks import DataError

_IMAGE_SIZE = (340, 256)
_FPS = 30.0


def _recognises(content: Any) -> bool:
    return isinstance(content, dict) and "data" in content and bool({"label", "label_index"} & set(content) or _has_skeletons(content["data"]))


def _has_skeletons(frames: Any) -> bool:
    return isinstance(frames, list) and bool(frames) and isinstance(frames[0], dict) and "skeleton" in frames[0]


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file)
    labels: dict[str, str] = {}
    for piece in content:
        labels |= {key: str(piece[key]) for key in ("label", "label_index") if isinstance(piece.get(key), str | int)}
        frames = piece.get("data", [])
        if not isinstance(frames, list):
            raise DataError(f"{file.path}: data is {shortened(frames)}, expected a list of frames with frame_index and skeleton")
        people = []
        for number, frame in enumerate(frames):
            skeletons = frame.get("skeleton") if isinstance(frame, dict) else None
            if isinstance(skeletons, list):
                people += [(frame.get("frame_index"), one if isinstance(one, dict) else {"pose": one}) for one in skeletons]
            else:
                table.leave_out(f"frame {number} is {shortened(frame)}, expected an object with frame_index and skeleton")
        poses, scores = [one.get("pose") for _, one in people], [one.get("score") for _, one in people]
        table.add([number for number, _ in people], poses, confidences=scores)
    return table.recordings(image_size=_IMAGE_SIZE, fps=_FPS, attributes=labels, in_shares=True)


FORM = Form(
    name="Kinetics-skeleton",
    recognises=_recognises,
    read=_read,
    sample="""{
  "data": [
    {"frame_index": 1, "skeleton": [{"pose": [0.518, 0.139, ...], "score": [0.877, ...]}]}, ...
  ],
  "label": "jogging", "label_index": 169
}""",
)
