"""Reader and writer of walks as NumPy arrays in one `.npz` file: for any skeleton, in 2D or 3D."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from fastst.data.formats.form import Form
from fastst.data.formats.whole import check_writable, write_whole
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.files import open_file
from fastst.layouts import LAYOUTS, Layout

_REQUIRED = ("poses", "lengths", "subject", "joints", "bones")
_KNOWN = {*_REQUIRED, "name", "mirrored", "root", "fps", "image_size"}
_RESERVED = {*_KNOWN, "file", "allow_pickle"}  # the last two are arguments of numpy.savez
_NPY = b"\x93NUMPY"
_EXAMPLE = 'numpy.savez("walks.npz", poses=…, lengths=…, subject=…, joints=…, bones=…)'
# Poses hardly ever become smaller than a tenth by compression. An archive that unpacks to more than this much, and to so many times its size, is made
# to fill the memory.
_MAX_UNPACKED_BYTES, _MAX_UNPACKED_RATIO = 1 << 28, 100


def _read(head: bytes, file: File, progress: bool) -> list[Recording]:
    """Read walks from the arrays of an `.npz` file.

    ============ ================================ ==========================================================
    array        shape                            holds
    ============ ================================ ==========================================================
    `poses`      [sum of lengths, J, 2 or 3]      all walks one after the other, in pixels (2) or metres (3);
                                                  NaN where a joint was not seen
    `lengths`    [N]                              frames of every walk
    `subject`    [N]                              who walks
    `joints`     [J]                              joint names
    `bones`      [n, 2]                           joint numbers
    `name`       [N], optional                    walk names; otherwise `<subject>-<number>`, such as `A11-01`
    `mirrored`   [n, 2], optional                 see `Layout`
    `root`       [n], optional                    see `Layout`
    `fps`        number or [N], optional          frames a second, of all walks or of each; NaN: not known
    `image_size` [2] or [N, 2], optional          width and height of the video in pixels; 0: not known
    ============ ================================ ==========================================================

    Every other array of N strings, such as `label`, becomes an attribute; an empty string is a value that is not known. The layout is
    called like the file, unless it is a built-in one.

    Left out are arrays and other members of the archive that are none of these.

    Raises:
        DataError: the file can't be read or is no `.npz` file, an array is missing or doesn't fit, or no walk can be used.
    """
    path = file.path
    if head.startswith(_NPY):
        with open_file(path) as array:
            raise _only_positions(path, _header(path, path.name, array)[0])
    with open_file(path) as opened:
        arrays, left_out = _read_arrays(path, opened)
    layout = _layout(path, arrays)
    lengths = _lengths(path, arrays, layout)
    subjects = _texts(path, arrays, "subject", len(lengths))
    names = _texts(path, arrays, "name", len(lengths)) if "name" in arrays else _numbered(subjects)
    for what, texts in (("subject", subjects), ("name", names)):
        if "" in texts:
            raise DataError(f"{path}: array {what!r} is empty for walk {texts.index('')}; expected a text for every walk")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path}: array 'name' has {twice[0]!r} more than once; every walk needs a name of its own")

    attributes: dict[str, list[str]] = {"subject": subjects, "name": names}
    for column in sorted(set(arrays) - _KNOWN):
        if arrays[column].shape == lengths.shape and arrays[column].dtype.kind in "US":
            attributes[column] = _texts(path, arrays, column, len(lengths))
        else:
            found = f"{arrays[column].dtype} {list(arrays[column].shape)}"
            left_out.append(LeftOut(f"array {column}", f"{path}: it is {found}, not one string for each of the {len(lengths)} walks"))
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is no position either
        poses = np.split(arrays["poses"].astype(np.float32, copy=False), np.cumsum(lengths)[:-1])
    fps, sizes = _fps(path, arrays, len(lengths)), _image_sizes(path, arrays, len(lengths))
    recordings = [
        Recording(
            str(path),
            (*file.places, name),
            layout,
            Detections(np.arange(len(poses[i])), poses[i]),
            fps[i],
            sizes[i],
            {column: texts[i] for column, texts in attributes.items() if texts[i]},
        )
        for i, name in enumerate(names)
    ]
    recordings[0] = replace(recordings[0], left_out=left_out)
    return recordings


def write_walks_npz(path: str | Path, walks: WalkSet) -> None:
    """Write walks so that `read_walks` reads the same ones back: names, subjects, poses, attributes, frame rates and layout.

    The file appears complete or not at all, and replaces one that is there.

    Raises:
        DataError: the file can't be written, there are no walks, or an attribute's name is taken by the format.
    """
    path = Path(path)
    check_writable(path, walks, (".npz",), _RESERVED)
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
    if any(walks.fps):
        arrays["fps"] = np.array([fps or np.nan for fps in walks.fps])
    write_whole(path, lambda file: np.savez(file, **arrays))


def _read_arrays(path: Path, opened: IO[bytes]) -> tuple[dict[str, np.ndarray], list[LeftOut]]:
    """The arrays by their names, and the members of the archive that are none."""
    if not zipfile.is_zipfile(opened):
        raise DataError(f"{path} is not a complete .npz file; write one with {_EXAMPLE}, or copy it again if it was cut off")
    arrays: dict[str, np.ndarray] = {}
    left_out: list[LeftOut] = []
    try:
        with zipfile.ZipFile(opened) as archive:
            members = [member for member in archive.infolist() if not _is_aside(member)]
            _check_size(path, members)
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise DataError(f"{path} has two arrays {name!r}; every array needs a name of its own")
                if name == member.filename:
                    left_out.append(LeftOut(name, f"{path}: it is a file in the archive, and no array (.npy)"))
                else:
                    arrays[name] = _read_array(path, name, archive, member)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # of a damaged list of members zipfile raises anything
        raise DataError(f"{path} can't be read: {error}; is the archive complete?") from None
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing and len(arrays) == 1:
        raise _only_positions(path, next(iter(arrays.values())).shape)
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays) or 'none'} and needs {', '.join(_REQUIRED)}")
    return arrays, left_out


def _is_aside(member: zipfile.ZipInfo) -> bool:
    """A folder, or what macOS puts beside every file."""
    return member.filename.endswith("/") or any(part == "__MACOSX" or part.startswith("._") for part in member.filename.split("/"))


def _check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_MAX_UNPACKED_BYTES, _MAX_UNPACKED_RATIO * path.stat().st_size):
        raise DataError(f"{path} says that it unpacks to {unpacked / 2**30:.3g} GiB, too much for its size; write it anew with numpy.savez")


def _read_array(path: Path, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    advice = "expected plain numbers and strings, no Python objects, in a complete file"
    try:
        with archive.open(member) as data:
            shape, dtype = _header(path, name, data)
            announced, found = math.prod(shape) * dtype.itemsize, member.file_size - data.tell()
        if (announced != found or not dtype.itemsize) and not dtype.hasobject:
            raise DataError(f"{path}: array {name!r} says that it is {dtype} {list(shape)}, {announced} bytes, but has {found}; {advice}")
        with archive.open(member) as data:
            return npy.read_array(data, allow_pickle=False)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged or encrypted member makes zipfile, its decompressors and NumPy raise anything
        raise DataError(f"{path}: array {name!r} can't be read: {error}; {advice}") from None


def _header(path: Path, name: str, data: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array in NumPy's format, without its numbers."""
    try:
        version = npy.read_magic(data)
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(data)
    except Exception as error:  # NumPy hands the header to Python's parser and tokenizer, which raise what they will
        raise DataError(f"{path}: array {name!r} can't be read: {error}; write it anew with {_EXAMPLE}") from None
    return shape, dtype


def _only_positions(path: Path, shape: Sequence[int]) -> DataError:
    remedy = 'numpy.savez("walks.npz", poses=array.reshape(N * T, J, C), lengths=[T] * N, subject=…, joints=…, bones=…)'
    return DataError(
        f"{path} holds one array {list(shape)} and doesn't say who walks and what the joints are; of an array [N, T, J, C], or [T, J, C] with N = 1, "
        f"write a file of walks with {remedy}"
    )


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
    if (frames := sum(lengths.tolist())) != len(poses):
        raise DataError(f"{path}: array 'lengths' adds up to {frames} frames, but 'poses' has {len(poses)}; the two must agree")
    return lengths


def _fps(path: Path, arrays: dict[str, np.ndarray], count: int) -> list[float | None]:
    fps = arrays.get("fps", np.array(np.nan))
    if fps.shape not in ((), (1,), (count,)) or fps.dtype.kind not in "fiu" or (fps <= 0).any() or np.isinf(fps).any():
        raise _wrong(path, arrays, "fps", f"frames a second: one number above 0, or one for each of the {count} walks")
    return [None if np.isnan(rate) else float(rate) for rate in np.broadcast_to(fps, count)]


def _image_sizes(path: Path, arrays: dict[str, np.ndarray], count: int) -> list[tuple[int, int] | None]:
    sizes = arrays.get("image_size", np.zeros(2, int))
    if sizes.shape not in ((2,), (count, 2)) or sizes.dtype.kind not in "iu" or (sizes < 0).any():
        raise _wrong(path, arrays, "image_size", f"width and height in pixels: two whole numbers, or two for each of the {count} walks")
    return [(int(width), int(height)) if width and height else None for width, height in np.broadcast_to(sizes, (count, 2))]


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


FORM = Form(
    name="walks in NumPy arrays (.npz)",
    recognises=lambda head: head.startswith((b"PK", _NPY)),
    read=_read,
    sample='numpy.savez("walks.npz",\n'
    "    poses=array,  # [sum of lengths, joints, 2 or 3], all walks one after the other\n"
    '    lengths=[95, 86], subject=["001", "002"], label=["ill", "well"],\n'
    '    joints=["hips", "left_knee", "right_knee"], bones=[[0, 1], [0, 2]],\n'
    "    fps=25)",
)
