"""Which skeleton so many joints are of, and names for the joints of one that is not known."""

from __future__ import annotations

from dataclasses import replace

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
_UNNAMED = "unnamed"


def unnamed(count: int) -> Layout:
    """The layout of joints that nothing is known of but their number."""
    return Layout(f"{_UNNAMED}{count}", tuple(f"joint_{j}" for j in range(count)), (), (), tuple(range(count)))


def name_joints(recordings: list[Recording], joints: str) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings with the skeleton `joints` (a name or a file; "": none) where it has as many joints; others with unnamed joints are left out.

    Raises:
        DataError: there is no such skeleton, or it fits no recording.
    """
    try:
        layout = get_layout(joints) if joints else None
    except ValueError as error:
        raise DataError(f"--joints {joints}: {error}") from None
    named = recordings
    if layout is not None:
        counts = {recording.layout.num_joints for recording in recordings}
        if layout.num_joints not in counts:
            found = ", ".join(map(str, sorted(counts)))
            raise DataError(f"--joints {joints} has {layout.num_joints} joints, the data {found}; give the skeleton of the data")
        named = [replace(r, layout=layout) if r.layout.num_joints == layout.num_joints else r for r in recordings]
    left_out = [LeftOut(recording.name, _unknown(recording)) for recording in named if _is_unnamed(recording)]
    return [recording for recording in named if not _is_unnamed(recording)], left_out


def _is_unnamed(recording: Recording) -> bool:
    return recording.layout.name.startswith(_UNNAMED) and not recording.layout.bones


def _unknown(recording: Recording) -> str:
    known = ", ".join(f"{count} ({layout.name})" for count, layout in SKELETONS.items())
    return (
        f"{recording.source}: no skeleton of {recording.layout.num_joints} joints is known; known are {known}. Give --joints with the name of a "
        "skeleton, or a .json file with its joints and bones"
    )
