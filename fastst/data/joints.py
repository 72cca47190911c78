"""Which joints the numbers of a file are, where the file doesn't say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastst.data.recording import Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import LAYOUTS, Layout, get_layout

# The skeletons that a file without names has by its number of joints and of dimensions.
_BY_COUNT = {
    (17, 2): "coco17",
    (18, 2): "openpose18",
    (25, 2): "openpose25",
    (26, 2): "halpe26",
    (17, 3): "h36m17",
    (20, 3): "kinect20",
    (25, 3): "ntu25",
}
UNNAMED, MARKERS = "joints without names", "markers"  # layouts without bones that --joints must complete


def layout_of(joints: int, dimensions: int) -> Layout:
    """The skeleton with so many joints; one of unnamed joints, which `--joints` can name, if none is known."""
    known = LAYOUTS.get(_BY_COUNT.get((joints, dimensions), ""))
    return known or Layout.custom([f"joint_{number}" for number in range(joints)], [], UNNAMED)


def name_joints(recordings: list[Recording], joints: str) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings with a skeleton each; those whose joints have no names, or no bones, take `joints`: a layout's name or `.json` file.

    Raises:
        DataError: that is no layout.
    """
    try:
        wanted = get_layout(joints) if joints else None
    except ValueError as error:
        raise DataError(f"--joints {joints}: {error}") from None
    named, left_out = [], []
    for recording in recordings:
        try:
            named.append(_named(recording, wanted) if recording.layout.name in (UNNAMED, MARKERS) else recording)
        except DataError as error:
            left_out.append(LeftOut(recording.name, str(error)))
    return named, left_out


def _named(recording: Recording, wanted: Layout | None) -> Recording:
    found = recording.layout
    if wanted is None and found.name == MARKERS:
        names = f"{', '.join(found.joints[:40])}{', …' if found.num_joints > 40 else ''}"
        raise DataError(
            f"{recording.source} has the markers {names}, and doesn't say which bones join them; give --joints FILE.json with "
            '{"joints": ["LASI", …], "bones": [["LASI", "LKNE"], …]}, whose joints are the markers that you want'
        )
    if wanted is None:
        known = ", ".join(sorted({str(count) for count, _ in _BY_COUNT}, key=int))
        raise DataError(
            f"{recording.source} has {found.num_joints} joints without names, expected {known}; name them with --joints, the name of a layout "
            f"or a .json file with joints and bones"
        )
    if found.name == MARKERS:
        if missing := [joint for joint in wanted.joints if joint not in found.joints]:
            raise DataError(f"{recording.source} has no marker {missing[0]!r}, which --joints names; it has {', '.join(found.joints[:40])}")
        columns = np.array([found.joints.index(joint) for joint in wanted.joints])
    elif found.num_joints == wanted.num_joints:
        columns = np.arange(wanted.num_joints)
    else:
        raise DataError(f"{recording.source} has {found.num_joints} joints, --joints names {wanted.num_joints}; the two must agree")
    detections = recording.detections
    confidences = None if detections.confidences is None else detections.confidences[:, columns]
    return replace(recording, layout=wanted, detections=replace(detections, joints=detections.joints[:, columns], confidences=confidences))
