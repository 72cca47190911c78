"""Skeletons of marker sets: which markers of motion capture are joined by bones."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from fastst.layouts import Layout

# Plug-in Gait, Vicon's full-body set and its lower body. Markers that may be missing are passed over: without LTHI the bone goes from LASI to LKNE.
# Bones follow the segments of the model: pelvis, thighs, shanks, feet, trunk, arms and head.
_NEEDED = frozenset({"LASI", "RASI", "LKNE", "RKNE", "LANK", "RANK"})
_PELVIS = ("LASI", "RASI", "LPSI", "RPSI", "SACR")
_CENTRAL = ("LASI-RASI-RPSI-LPSI-LASI", "LASI-SACR-RASI", "C7-T10-STRN-CLAV-C7", "RBAK-T10", "T10-SACR", "LFHD-RFHD-RBHD-LBHD-LFHD")
_OF_A_SIDE = ("ASI-THI-KNE-TIB-ANK-HEE-TOE-ANK", "T10-PSI", "CLAV-SHO-C7", "SHO-UPA-ELB-FRM-WRA-FIN-WRB-FRM", "WRA-WRB", "C7-BHD")
_MIDDLE = frozenset({"C7", "T10", "CLAV"})
_CHAINS = [
    *(chain.split("-") for chain in _CENTRAL),
    *([marker if marker in _MIDDLE else side + marker for marker in chain.split("-")] for side in "LR" for chain in _OF_A_SIDE),
]
_MARKERS = tuple(dict.fromkeys(itertools.chain.from_iterable(_CHAINS)))


def plug_in_gait(markers: Collection[str]) -> Layout | None:
    """The skeleton of the markers of Plug-in Gait that are among `markers`; None without the pelvis, the knees and the ankles."""
    if not set(markers) >= _NEEDED:
        return None
    joints = [marker for marker in _MARKERS if marker in markers]
    bones = []
    for chain in _CHAINS:
        there = [marker for marker in chain if marker in joints]
        bones += [bone for bone in itertools.pairwise(there) if bone[0] != bone[1]]
    once = list({frozenset(bone): bone for bone in bones}.values())
    return Layout.custom(joints, once, "plug_in_gait", root=[marker for marker in _PELVIS if marker in joints])
