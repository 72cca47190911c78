"""Which skeleton so many joints are of, and names for the joints of one that is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from fastst.data.markers import plug_in_gait
from fastst.data.recording import Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import LAYOUTS, Layout, get_layout

# Of Halpe-136 and COCO-WholeBody-133, whose face and hands come last, the body and the feet are read.
SKELETONS = {
    17: LAYOUTS["coco17"],
    18: LAYOUTS["openpose18"],
    25: LAYOUTS["openpose25"],
    26: LAYOUTS["halpe26"],
    33: LAYOUTS["mediapipe33"],
    133: LAYOUTS["wholebody23"],
    136: LAYOUTS["halpe26"],
}
SKELETONS_3D = {17: LAYOUTS["h36m17"], 20: LAYOUTS["kinect20"], 24: LAYOUTS["ntu24"], 25: LAYOUTS["ntu25"]}
MARKERS = "markers"  # the layout of markers with names that nobody knows the bones of
_UNNAMED = "unnamed"


def unnamed(count: int) -> Layout:
    """The layout of joints that nothing is known of but their number."""
    return Layout(f"{_UNNAMED}{count}", tuple(f"joint_{j}" for j in range(count)), (), (), tuple(range(count)))


def skeleton_of(positions: np.ndarray) -> tuple[Layout, np.ndarray]:
    """The skeleton of positions without names, and those of them that are its joints.  # [..., J, 2 or 3]"""
    count = positions.shape[-2]
    layout = (SKELETONS if positions.shape[-1] == 2 else SKELETONS_3D).get(count) or unnamed(count)
    return layout, positions[..., : layout.num_joints, :]


def skeleton_of_names(joints: Sequence[str], bones: Iterable[Sequence[int]], name: str) -> Layout:
    """The skeleton of joints that a file names: the built-in one that has them, or of so many; else one called `name` with the file's bones.

    Raises:
        ValueError: joints and bones make no skeleton.
    """
    names = tuple(joints)
    of_so_many = SKELETONS.get(len(names))
    known = next((layout for layout in LAYOUTS.values() if layout.joints == names), None)
    if known is None and of_so_many is not None and names[: of_so_many.num_joints] == of_so_many.joints:
        known = of_so_many
    return known or Layout.custom(names, bones, name)


def name_joints(recordings: list[Recording], joints: str) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings with the skeleton `joints` (a name or a file; "": none) where it has as many joints, or is made of their markers.

    Others with unnamed joints, or with markers that no bones are known of, are left out.

    Raises:
        DataError: there is no such skeleton, or it fits no recording.
    """
    try:
        layout = get_layout(joints) if joints else None
    except ValueError as error:
        raise DataError(f"--joints {joints}: {error}") from None
    named = [_with(recording, layout) for recording in recordings]
    if layout is not None and all(recording.layout != layout for recording in named):
        found = ", ".join(map(str, sorted({recording.layout.num_joints for recording in recordings})))
        raise DataError(f"--joints {joints} has {layout.num_joints} joints, the data {found}; give the skeleton of the data")
    left_out = [LeftOut(recording.name, _unknown(recording)) for recording in named if _is_unknown(recording)]
    return [recording for recording in named if not _is_unknown(recording)], left_out


def _with(recording: Recording, layout: Layout | None) -> Recording:
    """The recording with that skeleton, if it fits; without one with the skeleton of its markers, if that is known."""
    if recording.layout.name == MARKERS:
        layout = layout or plug_in_gait(recording.layout.joints)
        fits = layout is not None and set(layout.joints) <= set(recording.layout.joints)
        return _with_markers(recording, layout) if layout is not None and fits else recording
    fits = layout is not None and recording.layout.num_joints == layout.num_joints
    return replace(recording, layout=layout) if layout is not None and fits else recording


def _with_markers(recording: Recording, layout: Layout) -> Recording:
    """The recording with those of its markers that are joints of the layout."""
    detections = recording.detections
    columns = np.array([recording.layout.index(marker) for marker in layout.joints])
    confidences = None if detections.confidences is None else detections.confidences[:, columns]
    return replace(recording, layout=layout, detections=replace(detections, joints=detections.joints[:, columns], confidences=confidences))


def _is_unknown(recording: Recording) -> bool:
    layout = recording.layout
    return not layout.bones and (layout.name == MARKERS or layout.name.startswith(_UNNAMED))


def _unknown(recording: Recording) -> str:
    if recording.layout.name == MARKERS:
        names = ", ".join(recording.layout.joints)
        return (
            f"{recording.source} has the markers {names if len(names) < 400 else names[:400] + ', …'}, and doesn't say which bones join them; give "
            '--joints with a .json file such as {"joints": ["LASI", "LKNE", …], "bones": [["LASI", "LKNE"], …]}, whose joints are markers'
        )
    count = recording.layout.num_joints
    of_so_many = [layout for layout in LAYOUTS.values() if layout.num_joints == count]
    own = 'a .json file such as {"joints": ["hips", "left_knee", …], "bones": [[0, 1], …]}, with the joints in the order of the data'
    if not of_so_many:
        known = ", ".join(f"{layout.name} ({layout.num_joints})" for layout in LAYOUTS.values())
        return f"{recording.source}: no skeleton of {count} joints is known; known are {known}. Give --joints with {own}"
    found = "; or ".join(f"--joints {layout.name} ({', '.join(layout.joints)})" for layout in of_so_many)
    return (
        f"{recording.source} doesn't name its {count} joints. Say in which order they are (--layout, which chooses a model's skeleton, doesn't): "
        f"{found}; or --joints with {own}"
    )
