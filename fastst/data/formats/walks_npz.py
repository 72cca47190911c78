"""Reader and writer of walks as NumPy arrays in one `.npz` file: for any skeleton, in 2D or 3D."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastst.data.formats.form import Form
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.layouts import LAYOUTS, Layout

_REQUIRED = ("poses", "lengths", "subject", "joints", "bones")
_KNOWN = {*_REQUIRED, "name", "mirrored", "root", "fps"}
_RESERVED = {*_KNOWN, "file", "allow_pickle"}  # the last two are arguments of numpy.savez


def _read(head: bytes, file: File, progress: bool) -> list[Recording]:
    """Read walks from the arrays of an `.npz` file.

    ========== ================================ ==========================================================
    array      shape                            holds
    ========== ================================ ==========================================================
    `poses`    [sum of lengths, J, 2 or 3]      all walks one after the other, in pixels (2) or metres (3);
                                                NaN where a joint was not seen
    `lengths`  [N]                              frames of every walk
    `subject`  [N]                              who walks
    `joints`   [J]                              joint names
    `bones`    [n, 2]                           joint numbers
    `name`     [N], optional                    walk names; otherwise `<subject>-<number>`, such as `A11-01`
    `mirrored` [n, 2], optional                 see `Layout`
    `root`     [n], optional                    see `Layout`
    `fps`      any, optional                    not used
    ========== ================================ ==========================================================

    Every other array of N strings, such as `label`, becomes an attribute; an empty string is a value that is not known. The layout is
    called like the file, unless it is a built-in one.

    Left out are walks with an infinite position or without any position, and arrays that are none of these.

    Raises:
        DataError: the file can't be read or is no `.npz` file, an array is missing or doesn't fit, or no walk can be used.
    """
    path = file.path
    arrays = _read_arrays(path)
    layout = _layout(path, arrays)
    lengths = _lengths(path, arrays, layout)
    subjects = _texts(path, arrays, "subject", len(lengths))
    names = _texts(path, arrays, "name", len(lengths)) if "name" in arrays else _numbered(subjects)
    for what, texts in (("subject", subjects), ("name", names)):
        if "" in texts:
            raise DataError(f"{path}: array {what!r} is empty for walk {texts.index('')}; expected a text for every walk")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path}: array 'name' has {twice[0]!r} more than once; every walk needs a name of its own")

    with np.errstate(over="ignore"):  # what is too large becomes infinite and is left out
        poses = arrays["poses"].astype(np.float32)
    walks = WalkSet(layout, names, subjects, np.split(poses, np.cumsum(lengths)[:-1]))
    for column in sorted(set(arrays) - _KNOWN):
        if arrays[column].shape == (len(lengths),) and arrays[column].dtype.kind in "US":
            walks.attributes[column] = [text or None for text in _texts(path, arrays, column, len(lengths))]
        else:
            found = f"{arrays[column].dtype} {list(arrays[column].shape)}"
            walks.left_out.append(LeftOut(f"array {column}", f"{path}: it is {found}, not one string for each of the {len(lengths)} walks"))
    return _recordings(file, walks)


def write_walks_npz(path: str | Path, walks: WalkSet) -> None:
    """Write walks so that `read_walks_npz` reads the same ones back: names, subjects, poses, attributes and layout.

    The file appears complete or not at all, and replaces one that is there.

    Raises:
        DataError: the file can't be written, there are no walks, or an attribute's name is taken by the format.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise DataError(f"{path} must end in .npz to be read again; choose another name")
    if not len(walks):
        raise DataError(f"{path} is not written: there are no walks")
    if reserved := _RESERVED & set(walks.attributes):
        raise DataError(f"{path} is not written: an attribute can't be called {min(reserved)!r} in this format; rename it")
    layout = walks.layout
    poses = [np.asarray(pose, dtype=np.float32) for pose in walks.poses]
    arrays: dict[str, Any] = {
        "poses": np.concatenate(poses),
        "lengths": np.array([len(pose) for pose in poses]),
        "subject": np.array(walks.subjects),
        "name": np.array(walks.names),
        "joints": np.array(layout.joints),
        "bones": np.array(layout.bones, dtype=np.int64).reshape(-1, 2),
        "mirrored": np.array(layout.mirrored, dtype=np.int64).reshape(-1, 2),
        "root": np.array(layout.root),
        **{column: np.array([value or "" for value in values]) for column, values in walks.attributes.items()},
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(unfinished, path)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a .npz file with the arrays {', '.join(_REQUIRED)}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a complete .npz file; write one with numpy.savez, or copy it again if it was cut off")
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        advice = "expected plain numbers and strings, no Python objects, in a complete file"
        raise DataError(f"{path}: array {name!r} can't be read: {error}; {advice}") from None
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise DataError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays) or 'none'} and needs {', '.join(_REQUIRED)}")
    return arrays


def _layout(path: Path, arrays: dict[str, np.ndarray]) -> Layout:
    joints = _texts(path, arrays, "joints", None)
    bones = _pairs(path, arrays, "bones")
    mirrored = _pairs(path, arrays, "mirrored") if "mirrored" in arrays else None
    root = arrays["root"].tolist() if "root" in arrays else None
    if root is not None and (arrays["root"].ndim != 1 or arrays["root"].dtype.kind not in "iu"):
        raise _wrong(path, arrays, "root", "a list of joint numbers")
    try:
        layout = Layout.custom(joints, bones, path.stem, mirrored, root)
    except ValueError as error:
        raise DataError(f"{path}: the arrays joints, bones, mirrored and root make no skeleton: {error}") from None
    same = [known for known in LAYOUTS.values() if {**known.to_dict(), "name": layout.name} == layout.to_dict()]
    return same[0] if same else layout


def _lengths(path: Path, arrays: dict[str, np.ndarray], layout: Layout) -> np.ndarray:
    """The array `lengths`, checked together with `poses`.  # [N]"""
    poses, lengths = arrays["poses"], arrays["lengths"]
    if poses.ndim != 3 or poses.shape[2] not in (2, 3) or poses.dtype.kind not in "fiu":
        raise _wrong(path, arrays, "poses", "numbers [sum of lengths, joints, 2 or 3]")
    if poses.shape[1] != layout.num_joints:
        raise _wrong(path, arrays, "poses", f"[sum of lengths, {layout.num_joints}, 2 or 3], because 'joints' has {layout.num_joints} names")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not lengths.size or lengths.min() < 1:
        raise _wrong(path, arrays, "lengths", "one whole number of frames, 1 or more, a walk")
    if lengths.sum() != len(poses):
        raise DataError(f"{path}: array 'lengths' adds up to {lengths.sum()} frames, but 'poses' has {len(poses)}; the two must agree")
    return lengths


def _texts(path: Path, arrays: dict[str, np.ndarray], name: str, count: int | None) -> list[str]:
    """The strings or whole numbers of a one-dimensional array, of length `count` if that is given."""
    array = arrays[name]
    if array.ndim != 1 or array.dtype.kind not in "USiu" or count not in (None, len(array)):
        raise _wrong(path, arrays, name, "a list of strings" + (f", one for each of the {count} walks" if count is not None else ""))
    return [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.tolist()]


def _pairs(path: Path, arrays: dict[str, np.ndarray], name: str) -> list[list[int]]:
    if arrays[name].ndim != 2 or arrays[name].shape[1] != 2 or arrays[name].dtype.kind not in "iu":
        raise _wrong(path, arrays, name, "pairs of joint numbers [n, 2]")
    return arrays[name].tolist()


def _wrong(path: Path, arrays: dict[str, np.ndarray], name: str, expected: str) -> DataError:
    return DataError(f"{path}: array {name!r} is {arrays[name].dtype} {list(arrays[name].shape)}, expected {expected}")


def _numbered(subjects: list[str]) -> list[str]:
    """`<subject>-<number>` with the walks of a subject numbered from 01."""
    seen: Counter[str] = Counter()
    names = []
    for subject in subjects:
        seen[subject] += 1
        names.append(f"{subject}-{seen[subject]:02d}")
    return names


def _recordings(file: File, walks: WalkSet) -> list[Recording]:
    recordings = []
    for number, (name, subject, poses) in enumerate(zip(walks.names, walks.subjects, walks.poses, strict=True)):
        attributes = {column: value for column, values in walks.attributes.items() if (value := values[number]) is not None}
        detections = Detections(np.arange(len(poses)), poses)
        recordings.append(Recording(str(file.path), (*file.places, name), walks.layout, detections, None, None, {**attributes, "subject": subject}))
    recordings[0] = replace(recordings[0], left_out=walks.left_out)
    return recordings


FORM = Form(
    name="walks in NumPy arrays (.npz)",
    recognises=lambda head: head.startswith(b"PK"),
    read=_read,
    sample="poses [sum of lengths, J, 2 or 3], lengths [N], subject [N], joints [J], bones [n, 2]",
)
