"""Reader of the pickles of pyskl and MMAction2 (annotated clips) and of OpenGait (an array a sequence), and writer of the former."""

from __future__ import annotations

import itertools
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from fastst.data.formats.form import Form
from fastst.data.formats.unpickler import Array, unpickle
from fastst.data.formats.whole import check_writable, write_whole
from fastst.data.recording import Detections, File, Recording
from fastst.data.skeletons import skeleton_of
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.layouts import Layout

_OF_THE_FORM = {"frame_dir", "label", "total_frames", "img_shape", "original_shape", "keypoint", "keypoint_score", "fps"}
# Nobody writes an array many times into a file, but a small file can name one a million times, and would fill the memory with it.
_MAX_TIMES_THE_FILE = 8
_MAX_JOINTS = 1000
_MOST_AXES = 5
_LARGE = 1e300
_NO_SPLIT = "all"

# The first byte of a pickle is the mark of its protocol. Protocols 0 and 1 have none: they begin with an empty list or dict, or with the name of
# something that is to be called.
_BEGINNING = re.compile(
    rb"\x80[\x02-\x05]"
    rb"|[\]}](?:q.|r....|[(.])"
    rb"|\([dl](?:p\d+\n|[(SVILFNc])"
    rb"|\(?c[a-zA-Z_][\w.]*\n[\w.]+\n[(pqr.)SVUXNIKM\]}]",
    re.DOTALL,
)


def _read(head: bytes, file: File, progress: bool) -> list[Recording]:
    content = _with_arrays(file.path, unpickle(file.path))
    if isinstance(content, dict) and "annotations" in content:
        return _clips(file, content)
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return _clips(file, {"annotations": content})
    arrays = _sequences(file.path, content)
    _check_repeats(file.path, arrays)
    names = [(str(number),) for number in range(1, len(arrays) + 1)] if len(arrays) > 1 else [()]
    return [_sequence(file, name, array) for name, array in zip(names, arrays, strict=True)]


def _clips(file: File, content: dict[Any, Any]) -> list[Recording]:
    """The annotations of pyskl and MMAction2: a dict a clip. One that can't be used is left out."""
    annotations, layout = content["annotations"], content.get("layout")
    if not isinstance(annotations, list) or not annotations:
        raise DataError(f"{file.path}: annotations is {_found(annotations)}, expected a list of one dict or more")
    splits, classes = _splits(file.path, content.get("split")), _classes(file.path, content.get("classes"))
    drawn = None if layout is None else _layout(file.path, layout)
    _check_repeats(file.path, [clip[key] for clip in annotations if isinstance(clip, dict) for key in ("keypoint", "keypoint_score") if key in clip])
    recordings, left_out = [], []
    for number, clip in enumerate(annotations):
        name = clip.get("frame_dir") if isinstance(clip, dict) else None
        try:
            recording = _clip(file, f"{file.path}, annotation {number}", clip, drawn, classes)
            attributes = recording.attributes | ({"split": splits[name]} if name in splits else {})
            recordings.append(replace(recording, attributes=attributes))
        except DataError as error:
            left_out.append(LeftOut(name[:80] if isinstance(name, str) else f"annotation {number}", str(error)))
        annotations[number] = None  # makes room for the next
    if not recordings:
        raise DataError(f"{file.path} has no usable annotation: {'; '.join(left.reason for left in left_out[:3])}")
    recordings[0] = replace(recordings[0], left_out=left_out)
    return recordings


def _clip(file: File, where: str, clip: Any, layout: Layout | None, classes: list[str] | None) -> Recording:
    if not isinstance(clip, dict):
        raise DataError(f"{where} is {_found(clip)}, expected a dict with frame_dir, label, total_frames and keypoint")
    name = clip.get("frame_dir")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: frame_dir is {_found(name)}, expected the clip's name")
    where = f"{where} ({name[:80]})"
    if "keypoint" not in clip and "raw_file" in clip:
        raise DataError(f"{where} has no keypoint, but says that it is in another file (raw_file); write the positions into the annotation")
    positions = _numbers(where, "keypoint", clip.get("keypoint"), "[people, frames, joints, 2 or 3]")  # [M, T, V, C]
    if positions.ndim != 4 or positions.shape[3] not in (2, 3) or not 0 < positions.shape[2] <= _MAX_JOINTS or not positions.size:
        raise DataError(f"{where}: keypoint is an array {list(positions.shape)}, expected [people, frames, joints, 2 or 3]")
    M, T, V, _ = positions.shape
    total = clip.get("total_frames", T)
    if total != T:
        raise DataError(f"{where}: total_frames is {_found(total)}, but keypoint has {T} frames; the two must agree")
    image_size = _image_size(where, clip.get("img_shape"))
    scores = None
    if clip.get("keypoint_score") is not None:
        scores = _numbers(where, "keypoint_score", clip["keypoint_score"], "[people, frames, joints]")
        if scores.shape not in ((M, T, V), (M, T, V, 1)):
            raise DataError(f"{where}: keypoint_score is an array {list(scores.shape)}, expected {[M, T, V]} for keypoint {list(positions.shape)}")
        scores = scores.reshape(M, T, V)
    elif image_size is not None and _ends_in_scores(positions):
        positions, scores = positions[..., :2], positions[..., 2]
    if layout is None:
        layout, positions = skeleton_of(positions)
        scores = None if scores is None else scores[..., : layout.num_joints]
    elif layout.num_joints != V:
        raise DataError(f"{where}: keypoint has {V} joints, the file's layout {layout.num_joints}")
    detections = _people(positions, scores)
    fps, attributes = _fps(where, clip.get("fps")), {**_attributes(where, clip, classes), "name": name}
    return Recording(str(file.path), (*file.places, name), layout, detections, fps, image_size, attributes)


def _people(positions: np.ndarray, scores: np.ndarray | None) -> Detections:
    """Detections of people [M, T, V, C] with their scores [M, T, V]. What clips are filled up with, people and frames of zeros, is nobody."""
    T = positions.shape[1]
    with np.errstate(over="ignore"):
        joints = positions.astype(np.float32)
    is_seen = ((joints != 0) & ~np.isnan(joints)).any((2, 3))  # [M, T]
    if scores is not None:
        joints[scores == 0] = np.nan
        is_seen &= (scores != 0).any(2)
    people = np.flatnonzero(is_seen.any(1))
    if len(people) <= 1:  # the frames in which the only person is not seen are part of the walk
        people = people if len(people) else np.zeros(1, np.int64)
        is_seen = np.ones_like(is_seen)
    person, frames = (column.ravel() for column in np.broadcast_arrays(people[:, None], np.arange(T)))
    rows = is_seen[person, frames]
    person, frames = person[rows], frames[rows]
    confidences = None if scores is None else scores[person, frames].astype(np.float32)
    return Detections(frames, joints[person, frames], confidences, ids=person if len(people) > 1 else None)


def _attributes(where: str, clip: Mapping[Any, Any], classes: list[str] | None) -> dict[str, str]:
    """The label, and every other text of the annotation."""
    label = clip.get("label")
    if isinstance(label, Array) and label.value.size == 1:
        label = label.value.item()
    if label is not None and not isinstance(label, str) and not _is_whole(label):
        raise DataError(f"{where}: label is {_found(label)}, expected a class's number or name")
    if classes is not None and _is_whole(label):
        if not 0 <= label < len(classes):
            raise DataError(f"{where}: label is {label}, but the file has {len(classes)} classes")
        label = classes[label]
    texts = {key: value for key, value in clip.items() if isinstance(key, str) and key not in _OF_THE_FORM and isinstance(value, str) and value}
    return texts if label is None or label == "" else {"label": str(label), **texts}


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and abs(value) < 1 << 64


def _classes(path: Path, classes: Any) -> list[str] | None:
    if classes is None or (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        return classes
    raise DataError(f"{path}: classes is {_found(classes)}, expected a list of names")


def _splits(path: Path, split: Any) -> dict[str, str]:
    """The splits that a clip is in, as in `xsub_train, xview_val`."""
    if split is None:
        return {}
    if not isinstance(split, dict) or not all(isinstance(name, str) and isinstance(members, list | tuple | set) for name, members in split.items()):
        raise DataError(f"{path}: split is {_found(split)}, expected a dict of lists of clips")
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, members in split.items():
        for member in members:
            if isinstance(member, str):
                found[member].append(name)
    return {member: ", ".join(dict.fromkeys(names)) for member, names in found.items() if names != [_NO_SPLIT]}


def _layout(path: Path, fields: Any) -> Layout:
    try:
        return Layout.from_dict(fields)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: layout is {_found(fields)}, expected a dict with joints and bones: {str(error)[:200]}") from None


def _image_size(where: str, shape: Any) -> tuple[int, int] | None:
    if isinstance(shape, Array):
        shape = shape.value.tolist()
    if shape is None:
        return None
    if not isinstance(shape, tuple | list) or len(shape) < 2 or not all(isinstance(side, int) and 0 < side < 1 << 24 for side in shape[:2]):
        raise DataError(f"{where}: img_shape is {_found(shape)}, expected height and width in pixels")
    return shape[1], shape[0]


def _fps(where: str, fps: Any) -> float | None:
    if fps is None:
        return None
    if not isinstance(fps, int | float) or not 0 < fps < 1e6:
        raise DataError(f"{where}: fps is {_found(fps)}, expected frames a second")
    return float(fps)


def _sequences(path: Path, content: Any) -> list[np.ndarray]:
    """The sequences [T, J, C] of a file without annotations: an array, a list of them, or a list of frames [J, C]."""
    arrays = content if isinstance(content, list | tuple) else [content]
    if not arrays or not all(isinstance(array, Array) for array in arrays):
        raise DataError(
            f"{path} holds {_found(content)}; expected pyskl's dict with annotations, a list of annotations, or OpenGait's array [frames, joints, 3]"
        )
    values = [array.value for array in arrays]
    _check_repeats(path, arrays)
    if arrays is content and all(value.ndim == 2 and value.shape == values[0].shape for value in values):
        values = [np.stack(values)]
    for value in values:
        if (
            value.ndim != 3
            or value.shape[2] not in (2, 3)
            or not 0 < value.shape[1] <= _MAX_JOINTS
            or not len(value)
            or value.dtype.kind not in "fiu"
        ):
            kind = "pictures, such as silhouettes; give the poses" if value.ndim == 3 and value.dtype == np.uint8 else "no poses"
            raise DataError(f"{path} holds an array {value.dtype} {list(value.shape)}, which is {kind}: expected [frames, joints, 2 or 3]")
    return values


def _sequence(file: File, name: tuple[str, ...], positions: np.ndarray) -> Recording:
    scores = None
    if _ends_in_scores(positions):
        positions, scores = positions[..., :2], positions[..., 2]
    layout, positions = skeleton_of(positions)
    detections = _people(positions[None], None if scores is None else scores[None, ..., : layout.num_joints])
    return Recording(str(file.path), (*file.places, *name), layout, detections)


def _ends_in_scores(positions: np.ndarray) -> bool:
    """Whether the third number of every joint is a confidence and no coordinate: all are from 0 to 1, but not all 0."""
    if positions.shape[-1] != 3:
        return False
    third = positions[..., 2]
    return bool(((third >= 0) & (third <= 1) | np.isnan(third)).all() and (third > 0).any())


def _numbers(where: str, key: str, value: Any, expected: str) -> np.ndarray:
    if not isinstance(value, Array):
        raise DataError(f"{where}: {key} is {_found(value)}, expected an array {expected}")
    if value.value.dtype.kind not in "fiu":
        raise DataError(f"{where}: {key} is an array of {value.value.dtype}, expected numbers {expected}")
    return value.value


def _with_arrays(path: Path, content: Any) -> Any:
    """What an unpickled file holds, with arrays in place of the lists of numbers that some write for them."""
    if isinstance(content, dict):
        made = {key: _array(path, content[key]) for key in ("keypoint", "keypoint_score") if key in content}
        return {**content, **made, **({"annotations": _with_arrays(path, content["annotations"])} if "annotations" in content else {})}
    if isinstance(content, list) and content and all(isinstance(clip, dict) for clip in content):
        return [_with_arrays(path, clip) for clip in content]
    return content if isinstance(content, list | tuple) and any(isinstance(array, Array) for array in content) else _array(path, content)


def _array(path: Path, value: Any) -> Any:
    """The array that a list of arrays, or lists in lists of numbers, are; what is none as it is.

    Raises:
        DataError: the same lists come over and over.
    """
    array, most = Array(), path.stat().st_size
    if isinstance(value, list | tuple) and value and all(isinstance(part, Array) and part.value.shape == value[0].value.shape for part in value):
        _check_repeats(path, value)
        array.value = np.stack([part.value for part in value])
        return array
    level: list[Any] = [value]
    depth = 0
    while depth < _MOST_AXES and all(isinstance(part, list | tuple) for part in level):
        if len(set(map(len, level))) > 1 or not level[0]:
            return value
        if len(level) * len(level[0]) > most:  # each number takes two bytes or more
            raise DataError(f"{path} names the same lists over and over, {len(level) * len(level[0])} numbers or more; give every walk its own")
        level, depth = list(itertools.chain.from_iterable(level)), depth + 1
    if depth < 2 or not all(number is None or (isinstance(number, int | float) and not abs(number) > _LARGE) for number in level):
        return value
    array.value = np.array(value, np.float64)
    return array


def _check_repeats(path: Path, arrays: Sequence[Any]) -> None:
    named = sum(array.value.nbytes for array in arrays if isinstance(array, Array))
    if named > _MAX_TIMES_THE_FILE * path.stat().st_size:
        raise DataError(f"{path} names the same arrays over and over, {named / 2**30:.3g} GiB in all; give every walk its own")


def _found(value: Any) -> str:
    """A value in a few words, whatever it is: it may be nested without end, or a number of a million digits."""
    if isinstance(value, Array):
        return f"an array {value.value.dtype} {list(value.value.shape)}"
    if isinstance(value, dict):
        return f"a dict with {', '.join(str(key)[:20] for key in list(value)[:6] if isinstance(key, str)) or 'nothing'}"
    if value is None or isinstance(value, bool | float | str) or _is_whole(value):
        return repr(value[:60] if isinstance(value, str) else value)
    return "a number of more digits than can be meant" if isinstance(value, int) else f"a {type(value).__name__}"


def write_clips(path: str | Path, walks: WalkSet, image_size: tuple[int, int] | None = None) -> None:
    """Write walks as pyskl and MMAction2 read them, and so that `read_walks` reads the same ones back.

    Labels are numbers there: of other labels the names are in `classes`, in the order of their numbers. A joint that was not seen is 0 with
    score 0. A clip without a split is in the split `all`. `layout`, `classes`, `fps` and attributes are additions of ours, which other programs
    leave alone; pyskl's recipes for 2D need `img_shape` besides, which is there where `image_size` (width, height) is told.

    Raises:
        DataError: the file can't be written, there are no walks, or an attribute's name is taken by the form.
    """
    path = Path(path)
    check_writable(path, walks, (".pkl", ".pickle"), _OF_THE_FORM - {"label"} | {"subject", "name"})
    classes = _class_names(walks)
    split: defaultdict[str, list[str]] = defaultdict(list)
    annotations = []
    for i, name in enumerate(walks.names):
        clip: dict[str, Any] = {column: value for column, values in walks.attributes.items() if (value := values[i]) is not None}
        for part in clip.pop("split", _NO_SPLIT).split(", "):
            split[part].append(name)
        if "label" in clip:
            clip["label"] = int(clip["label"]) if classes is None else classes.index(clip["label"])
        if walks.fps and walks.fps[i] is not None:
            clip["fps"] = walks.fps[i]
        if image_size is not None:
            clip["img_shape"] = clip["original_shape"] = image_size[::-1]
        poses = np.asarray(walks.poses[i], dtype=np.float32)
        is_missing: np.ndarray = np.any(np.isnan(poses), axis=2, keepdims=True)  # [T, J, 1]
        clip["keypoint"] = np.where(is_missing, np.float32(0), poses)[np.newaxis]
        clip["keypoint_score"] = 1 - is_missing[np.newaxis, ..., 0].astype(np.float32)
        annotations.append(clip | {"frame_dir": name, "subject": walks.subjects[i], "total_frames": len(poses)})
    content: dict[str, Any] = {"split": dict(split), "annotations": annotations, "layout": walks.layout.to_dict()}
    if classes is not None:
        content["classes"] = classes
    write_whole(path, lambda file: _Pickler(file, protocol=4).dump(content))


def _class_names(walks: WalkSet) -> list[str] | None:
    """The names of the classes in the order of their numbers, where labels are no numbers."""
    labels = {label for label in walks.attributes.get("label", []) if label is not None}
    return None if all(re.fullmatch("0|[1-9][0-9]{0,8}", label) for label in labels) else sorted(labels)


class _Pickler(pickle._Pickler):
    """Calls NumPy's core by the name that NumPy 1 knows too, with which pyskl and MMAction2 run."""

    write: Callable[[bytes], None]
    memoize: Callable[[Any], None]

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is _RECONSTRUCT:
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)  # type: ignore[misc]


_RECONSTRUCT = np.zeros(0).__reduce__()[0]

FORM = Form(
    name="pickles of pyskl, MMAction2 and OpenGait",
    recognises=lambda head: _BEGINNING.match(head) is not None,
    read=_read,
    sample="{'split': {'train': ['001-nm-01-000', ...]}, 'annotations': [\n"
    "    {'frame_dir': '001-nm-01-000', 'label': 0, 'total_frames': 95, 'img_shape': (240, 320),\n"
    "     'keypoint': array [people, frames, joints, 2 or 3], 'keypoint_score': array [people, frames, joints]}, ...]}\n"
    "or, a file a sequence (OpenGait): array [frames, 17, 3]",
)
