"""Readers of COCO's JSON: results of a keypoint detector, and annotation files (PoseTrack 2018's too)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastst.data.formats.alphapose import add_results
from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array
from fastst.data.recording import File, Recording
from fastst.data.skeletons import SKELETONS, skeleton_of_names
from fastst.data.walks import DataError
from fastst.layouts import Layout


def _are_results(content: Any) -> bool:
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"image_id", "keypoints"} <= set(first) and not isinstance(first["image_id"], str) and "box" not in first


def _read_results(content: Document, file: File, progress: bool) -> list[Recording]:
    table = Table(file, box_has_size=True)
    for piece in content:
        add_results(table, piece)
    return table.recordings()


def _are_annotations(content: Any) -> bool:
    return isinstance(content, dict) and bool({"annotations", "annolist", "images"} & set(content))


def _read_annotations(content: Document, file: File, progress: bool) -> list[Recording]:
    if "annolist" in content.first:
        raise DataError(f"{file.path} is an annolist, the form of PoseTrack 2017; give it in the form of 2018, as COCO's annotations")
    table = Table(file, layouts={}, box_has_size=True)
    images: dict[Any, Mapping[str, Any]] = {}
    categories: list[Any] = []
    for piece in content:
        images |= {image["id"]: image for image in _objects(piece, "images") if isinstance(image.get("id"), int | str)}
        categories += _objects(piece, "categories")
        seen = [one for one in _objects(piece, "annotations") if "keypoints" in one and one.get("num_keypoints") != 0]
        add_results(table, seen)
    table.layouts = _layouts(categories, file.path)
    table.name_frames({number: image["file_name"] for number, image in images.items() if isinstance(image.get("file_name"), str)})
    return table.recordings(image_size=_common_size(images))


def _common_size(images: Mapping[Any, Mapping[str, Any]]) -> tuple[int, int] | None:
    """Width and height, if all images have the same."""
    lengths = [(image.get("width"), image.get("height")) for image in images.values()]
    sizes = {(width, height) if isinstance(width, int) and isinstance(height, int) else None for width, height in lengths}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if size is not None and min(size) > 0 else None


def _objects(piece: Mapping[str, Any], key: str) -> list[Any]:
    entries = piece.get(key)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _layouts(categories: list[Any], path: Path) -> dict[int, Layout]:
    """The skeleton that the categories name the joints of; COCO's where none does."""
    named = next((category for category in categories if isinstance(category.get("keypoints"), list) and category["keypoints"]), None)
    if named is None:
        return SKELETONS
    joints = [str(joint) for joint in named["keypoints"]]
    skeleton = named.get("skeleton")
    bones = (skeleton.astype(int) - 1).tolist() if is_array(skeleton) and skeleton.ndim == 2 else []
    try:
        return {len(joints): skeleton_of_names(joints, bones, str(named.get("name", "COCO")))}
    except ValueError as error:
        raise DataError(f"{path}: its category describes no skeleton ({error}); mend keypoints and skeleton there") from None


RESULTS = Form(
    name="COCO results",
    recognises=_are_results,
    read=_read_results,
    sample="""[
  {"image_id": 12, "category_id": 1, "keypoints": [165.8, 78.0, 0.93, ...], "score": 0.97},
  {"image_id": 13, "category_id": 1, "keypoints": [166.2, 78.4, 0.91, ...], "score": 0.96},
  ...
]""",
)

ANNOTATIONS = Form(
    name="COCO annotations",
    recognises=_are_annotations,
    read=_read_annotations,
    sample="""{
  "images": [{"id": 1, "file_name": "walk/000001.jpg", "width": 1920, "height": 1080}, ...],
  "annotations": [{"image_id": 1, "category_id": 1, "keypoints": [165, 78, 2, ...], "bbox": [140, 60, 51, 134], "track_id": 0}, ...],
  "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", ...], "skeleton": [[16, 14], ...]}]
}""",
)
