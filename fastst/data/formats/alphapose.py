"""Reader of AlphaPose's results, one video a file: a list of detections, or mappings of images (its forms `cmu` and `open`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, shortened
from fastst.data.recording import File, Recording

# AlphaPose writes a position for every joint, even where it sees none; one with a lower score it does not draw: it is a guess.
MIN_KEYPOINT_SCORE = 0.05


def _recognises(content: Any) -> bool:
    if isinstance(content, list):
        first = content[0] if content else None
        return isinstance(first, dict) and {"image_id", "keypoints"} <= set(first) and (isinstance(first["image_id"], str) or "box" in first)
    return isinstance(content, dict) and any(_is_image(image) for image in content.values())


def _is_image(image: Any) -> bool:
    return isinstance(image, dict) and bool({"bodies", "people"} & set(image))


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file, min_confidence=MIN_KEYPOINT_SCORE, box_has_size=True)
    for piece in content:
        if isinstance(piece, dict):
            _add_images(table, piece)
        else:
            add_results(table, piece)
    return table.recordings()


def add_results(table: Table, entries: list[Any]) -> None:
    """Add objects with image_id, keypoints and, where known, score, box and idx."""
    get = [entry if isinstance(entry, dict) else {"keypoints": entry} for entry in entries]
    table.add(
        [entry.get("image_id") for entry in get],
        [entry.get("keypoints") for entry in get],
        boxes=[entry.get("box") if "box" in entry else entry.get("bbox") for entry in get],
        scores=[entry.get("score") for entry in get],
        ids=[entry.get("idx") if "idx" in entry else entry.get("track_id") for entry in get],
    )


def _add_images(table: Table, images: Mapping[str, Any]) -> None:
    for image_id, image in images.items():
        if not _is_image(image):
            table.leave_out(f"image {image_id!r} is {shortened(image)}, expected an object with a list 'bodies' or 'people'")
    found = [(image_id, people_of(image)) for image_id, image in images.items() if _is_image(image)]
    bodies = [(image_id, body) for image_id, people in found for body in people]
    table.add([image_id for image_id, _ in bodies], [keypoints_of(body) for _, body in bodies])


def people_of(image: Mapping[str, Any]) -> list[Any]:
    """Those whom OpenPose or AlphaPose saw in an image."""
    people = image["bodies"] if "bodies" in image else image.get("people")
    return people if isinstance(people, list) else [] if people is None else [people]


def keypoints_of(body: Any) -> Any:
    """Of one of `people_of`; anything that is there, if not what it should be."""
    if not isinstance(body, dict):
        return body
    return next((body[key] for key in ("pose_keypoints_2d", "joints", "pose_keypoints", "keypoints") if key in body), None)


FORM = Form(
    name="AlphaPose's JSON",
    recognises=_recognises,
    read=_read,
    sample="""[
  {"image_id": "12.jpg", "category_id": 1, "keypoints": [165.8, 78.0, 0.93, ...], "score": 2.9, "box": [140.1, 60.2, 51.0, 133.7], "idx": 1},
  {"image_id": "13.jpg", "category_id": 1, "keypoints": [166.2, 78.4, 0.91, ...], "score": 2.8, "box": [140.3, 60.0, 51.2, 134.0], "idx": 1},
  ...
]""",
)
