"""Reader of MMPose's and RTMPose's JSON: what the inferencer writes of a video or of an image, what the demos save with --save-predictions, and the
results that the inferencer returns, saved by its users: a list of people an image, in as many lists or below `predictions`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastst.data.formats.content import Document
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table, is_array, shortened
from fastst.data.recording import File, Recording
from fastst.data.skeletons import SKELETONS, skeleton_of_names
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS, Layout

_IN_3D = {17: LAYOUTS["h36m17"]}  # of which MMPose's lifters are
_PEOPLE = ("instances", "predictions")


def _recognises(content: Any) -> bool:
    if isinstance(content, dict):
        return bool({"instance_info", "meta_info"} & set(content)) or ("predictions" in content and _are_people(content["predictions"]))
    if not isinstance(content, list) or not content:
        return False
    first = content[0]
    is_person = isinstance(first, dict) and "keypoint_scores" in first
    return is_person or _is_frame(first) or (isinstance(first, list) and _has_people(content))


def _is_frame(entry: Any) -> bool:
    return isinstance(entry, dict) and ("instances" in entry or ("predictions" in entry and _are_people(entry["predictions"])))


def _are_people(value: Any) -> bool:
    """Whether it is a list of people, a list of such lists, or one of nobody."""
    return isinstance(value, list) and (_first_in(value) is None or _has_people(value))


def _has_people(value: list[Any]) -> bool:
    first = _first_in(value)
    return _is_frame(first) or (isinstance(first, dict) and is_array(first.get("keypoints")))


def _first_in(value: list[Any]) -> Any:
    """The first thing in it, or in a list in it, that is no list."""
    found = (_first_in(entry) if isinstance(entry, list) else entry for entry in value)
    return next((entry for entry in found if entry is not None), None)


def _read(content: Document, file: File, progress: bool) -> list[Recording]:
    table = None
    named: dict[int, Layout] = {}
    dims = num_frames = 0
    is_numbered = False
    for piece in content:
        if isinstance(piece, dict):
            named = named or _layout_of(piece.get("meta_info"), file.path)
            what = "instance_info" if "instance_info" in piece or "predictions" not in piece else "predictions"
            piece = piece.get(what, [])
            if not isinstance(piece, list):
                raise DataError(f"{file.path}: {what} is {shortened(piece)}, expected a list of frames")
        frames = _frames(piece)
        is_numbered = is_numbered or any(isinstance(frame, dict) and "frame_id" in frame for frame in frames)
        dims = dims or _dims(frames)
        if table is None and dims:
            table = Table(file, named or (_IN_3D if dims == 3 else SKELETONS))
        if table is not None:
            _add_frames(table, frames, num_frames, dims)
        num_frames += len(frames)
    table = table or Table(file)
    return table.frame() if num_frames == 1 and not is_numbered else table.recordings()


def _frames(entries: list[Any]) -> list[Any]:
    """Lists of people and frames with such a list, in the order of the video: people are in the innermost lists."""
    if not any(isinstance(entry, list) or _is_frame(entry) for entry in entries):
        return [entries]
    frames: list[Any] = []
    for entry in entries:
        inner = entry.get("predictions") if isinstance(entry, dict) and "instances" not in entry else entry
        if isinstance(inner, list):
            found = _frames(inner)
            frames += [{"frame_id": entry["frame_id"], "instances": found[0]}] if isinstance(entry, dict) and "frame_id" in entry else found
        else:
            frames.append(entry)
    return frames


def _dims(frames: list[Any]) -> int:
    """Coordinates of a joint, of the first person seen; 0 if there is none. Without scores beside them the third number is one."""
    for frame in frames:
        for person in _people(frame):
            keypoints = person.get("keypoints") if isinstance(person, dict) else None
            if is_array(keypoints) and keypoints.ndim == 1:
                return 2
            if is_array(keypoints) and keypoints.ndim == 2 and keypoints.shape[1] in (2, 3):
                return keypoints.shape[1] if "keypoint_scores" in person else 2
    return 0


def _people(frame: Any) -> list[Any]:
    people = frame.get("instances") if isinstance(frame, dict) else frame
    return people if isinstance(people, list) else []


def _add_frames(table: Table, frames: list[Any], first_frame: int, dims: int) -> None:
    for number, frame in enumerate(frames, start=first_frame):
        if not isinstance(frame, list) and not _is_frame(frame):
            table.leave_out(f"frame {number} is {shortened(frame)}, expected an object with frame_id and instances")
    people = [
        (frame.get("frame_id", number) if isinstance(frame, dict) else number, one)
        for number, frame in enumerate(frames, start=first_frame)
        for one in _people(frame)
    ]
    get = [one if isinstance(one, dict) else {"keypoints": one} for _, one in people]
    have_scores = any("keypoint_scores" in one for one in get)
    sizes = [one["keypoints"].shape[-1] for one in get if is_array(one.get("keypoints")) and one["keypoints"].ndim == 2]
    boxes = [one.get("bbox") for one in get]
    table.add(
        [number for number, _ in people],
        [one.get("keypoints") for one in get],
        dims=dims or 2,
        confidences=[one.get("keypoint_scores") for one in get] if have_scores else None,
        confident=have_scores or not sizes or sizes[0] > 2,
        boxes=[box[:4] if is_array(box) and box.shape == (5,) else box for box in boxes],  # MMPose 0 puts the score behind the corners
        scores=[one.get("bbox_score", one.get("score")) for one in get],
        ids=[one.get("track_id") if "track_id" in one else one.get("instance_id") for one in get],
    )


def _layout_of(meta: Any, path: Path) -> dict[int, Layout]:
    """The skeleton that meta_info names the joints of, by their number."""
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict):
        return {}
    joints = [str(names.get(str(j))) for j in range(len(names))]
    links = meta.get("skeleton_links")
    bones = links.astype(int).tolist() if is_array(links) and links.ndim == 2 else []
    try:
        return {len(joints): skeleton_of_names(joints, bones, str(meta.get("dataset_name", "MMPose")))}
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
