"""Reader of C3D files: markers of motion capture, with the package c3d."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import numpy as np

from fastst.data.formats.form import Form
from fastst.data.recording import Detections, File, Recording
from fastst.data.skeletons import MARKERS
from fastst.data.walks import DataError
from fastst.files import open_file
from fastst.layouts import Layout

_INSTALL = "pip install -c constraints.txt -e '.[c3d]'"
_METRES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "": 1e-3}
_NO_MARKERS = ("ANGLES", "FORCES", "MOMENTS", "POWERS", "SCALARS")  # what Vicon's models compute stands among the points
_PROCESSORS = (84, 85, 86)  # Intel, DEC, MIPS
_BLOCK_BYTES = 512
_PARAMETER_BLOCKS = range(1, 32)  # no letter: a text could begin with it


def _recognises(head: bytes) -> bool:
    """The second byte is the form's, the first the block of the parameters, hardly ever another than 2; their fourth byte is the processor's."""
    if len(head) < 2 or head[1] != 0x50 or head[0] not in _PARAMETER_BLOCKS:
        return False
    processor = (head[0] - 1) * _BLOCK_BYTES + 3
    return processor < len(head) and head[processor] in _PROCESSORS


def _read(head: bytes, file: File, progress: bool) -> list[Recording]:
    """The named markers of a file, in metres: a recording for everybody whose name stands before a marker's, as in `ann:LASI`.

    Raises:
        DataError: the package c3d is missing, the file is damaged, or no marker has a name.
    """
    try:
        import c3d
    except ImportError:
        raise DataError(f"{file.path} is a C3D file, and these are read with the package c3d, which is not installed: {_INSTALL}") from None
    try:
        with open_file(file.path) as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is told below
            reader = c3d.Reader(opened)
            labels, unit, fps = _labels(reader), _unit(reader), float(reader.point_rate)
            announced = reader.last_frame - reader.first_frame + 1
            points = [points[:, :4] for _, points, _ in reader.read_frames(camera_sum=False)]
    except (DataError, OSError):
        raise
    except Exception as error:  # of a damaged file the package raises anything, AttributeError among it
        raise DataError(f"{file.path} is not a complete C3D file ({type(error).__name__}: {str(error)[:200]}); export it again") from None
    if not points or len(points) < announced:
        raise DataError(f"{file.path} ends after frame {len(points)} of {announced}; was it copied to the end?")
    if unit not in _METRES:
        raise DataError(f"{file.path}: its positions are in {unit[:20]!r}, expected mm, cm or m; export it again")
    return _recordings(file, labels, np.stack(points), _METRES[unit], fps if 0 < fps < 1e6 else None)


def _labels(reader: Any) -> list[str]:
    """A name for every point; "" where it has none or is no marker. After the 255th they go on in LABELS2, LABELS3, …"""
    labels = [label for number in ("", *range(2, 256)) for label in _texts(reader, f"LABELS{number}")]
    computed = {label for kind in _NO_MARKERS for label in _texts(reader, kind)}
    return ["" if label.startswith("*") or label in computed else label for label in labels]


def _texts(reader: Any, parameter: str) -> list[str]:
    found = reader.get(f"POINT:{parameter}")
    return [] if found is None else [text.strip() for text in np.ravel(found.string_array).tolist()]


def _unit(reader: Any) -> str:
    found = reader.get("POINT:UNITS")
    return "" if found is None else found.string_value.strip().lower()


def _recordings(file: File, labels: list[str], points: np.ndarray, metres: float, fps: float | None) -> list[Recording]:
    """The points [T, n, 4] of each person: x, y, z and a residual, which is negative where the marker was not found."""
    people: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for number, label in enumerate(labels[: points.shape[1]]):
        person, _, marker = label.rpartition(":")
        if marker:
            people[person].setdefault(marker, number)
    if not people:
        raise DataError(f"{file.path} has no marker with a name among its {points.shape[1]} points; label them first")
    recordings = []
    for person, markers in people.items():
        seen = points[:, list(markers.values())]
        joints = (seen[..., :3] * metres).astype(np.float32)
        joints[(seen[..., 3] < 0) | (seen[..., :3] == 0).all(2)] = np.nan
        places = (*file.places, person) if len(people) > 1 else file.places
        layout = Layout.custom(list(markers), [], MARKERS)
        recordings.append(Recording(str(file.path), places, layout, Detections(np.arange(len(joints)), joints), fps))
    return recordings


FORM = Form(
    name="C3D",
    recognises=_recognises,
    read=_read,
    sample="binary: markers with names, such as LASI, RASI, LKNE, RKNE, LANK, RANK (Plug-in Gait); others with --joints",
)
