"""Reader of MMPose's and RTMPose's JSON: what the inferencer writes of a video or of an image, and what the demos save with --save-predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.recording import File, Recording
from fastst.data.skeletons import SKELETONS
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS, Layout

_IN_3D = {17: LAYOUTS["h36m17"]}  # of which MMPose's lifters are


def _recognises(content: Any) -> bool:
    if isinstance(content, Mapping):
        return bool({"instance_info", "meta_info"} & set(content))
    return isinstance(content, list) and bool(content) and (_is_frame(content[0]) or _is_instance(content[0]))


def _is_frame(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "instances" in entry


def _is_instance(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "keypoint_scores" in entry


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = None
    named: dict[int, Layout] = {}
    first_frame = 0
    is_image = False
    for piece in content:
        if isinstance(piece, Mapping):
            named = named or _layout_of(piece.get("meta_info"), file.path)
            piece = piece.get("instance_info", [])
        if not isinstance(piece, list):
            raise DataError(f"{file.path}: instance_info is {shortened(piece)}, expected a list of frames")
        is_image = is_image or any(map(_is_instance, piece[:1]))
        frames = [{"frame_id": 0, "instances": piece}] if is_image else piece
        dims = _dims(frames)
        if table is None and dims:
            table = Table(file, named or (_IN_3D if dims == 3 else SKELETONS))
        if table is not None:
            _add_frames(table, frames, first_frame, dims)
        first_frame += len(frames)
    table = table or Table(file)
    return table.frame() if is_image else table.recordings()


def _dims(frames: list[Any]) -> int:
    """Coordinates of a joint, of the first person seen; 0 if there is none."""
    found = (instance.get("keypoints") for frame in frames for instance in _instances(frame) if isinstance(instance, Mapping))
    return next((keypoints.shape[1] for keypoints in found if is_array(keypoints) and keypoints.ndim == 2 and keypoints.shape[1] in (2, 3)), 0)


def _instances(frame: Any) -> list[Any]:
    instances = frame.get("instances") if isinstance(frame, Mapping) else None
    return instances if isinstance(instances, list) else []


def _add_frames(table: Table, frames: list[Any], first_frame: int, dims: int) -> None:
    for number, frame in enumerate(frames, start=first_frame):
        if not _is_frame(frame):
            table.leave_out(f"frame {number} is {shortened(frame)}, expected an object with frame_id and instances")
    people = [(frame.get("frame_id", number), one) for number, frame in enumerate(frames, start=first_frame) for one in _instances(frame)]
    get = [one if isinstance(one, Mapping) else {"keypoints": one} for _, one in people]
    table.add(
        [number for number, _ in people],
        [one.get("keypoints") for one in get],
        dims=dims or 2,
        confidences=[one.get("keypoint_scores") for one in get],
        boxes=[one.get("bbox") for one in get],
        scores=[one.get("bbox_score") for one in get],
        ids=[one.get("track_id") if "track_id" in one else one.get("instance_id") for one in get],
    )


def _layout_of(meta: Any, path: Path) -> dict[int, Layout]:
    """The skeleton that meta_info names the joints of, by their number."""
    names = meta.get("keypoint_id2name") if isinstance(meta, Mapping) else None
    if not isinstance(names, Mapping):
        return {}
    joints = tuple(str(names.get(str(j))) for j in range(len(names)))
    known = next((layout for layout in LAYOUTS.values() if layout.joints == joints), None) or SKELETONS.get(len(joints))
    if known is not None and joints[: known.num_joints] == known.joints:
        return {len(joints): known}
    links = meta.get("skeleton_links")
    bones = links.astype(int).tolist() if is_array(links) and links.ndim == 2 else []
    try:
        return {len(joints): Layout.custom(joints, bones, str(meta.get("dataset_name", "MMPose")))}
    except ValueError as error:
        raise DataError(f"{path}: meta_info describes no skeleton ({error}); write the file again") from None


FORM = Form(
    name="MMPose's JSON",
    recognises=_recognises,
    read=_read,
    sample="""[
  {"frame_id": 0, "instances": [
    {"keypoints": [[165.8, 78.0], ...], "keypoint_scores": [0.93, ...], "bbox": [[140.1, 60.2, 191.1, 193.9]], "bbox_score": 0.97}]},
  ...
]""",
)
