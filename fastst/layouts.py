"""Skeletons: what the joints of a pose are called, which bones join them, which of them mirror each other.

A layout is everything that `fastst` knows about a body. Common ones are built in (`LAYOUTS`); any other is made from joint names and
bones with `Layout.custom` or `Layout.from_dict`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastst.errors import visible
from fastst.files import read_json

UNREACHABLE = 1 << 30  # more than any number of hops
_STRATEGIES = ("uniform", "distance", "spatial")
_CENTRES = ("spine_shoulder", "mid_shoulder", "shoulder_center", "thorax", "neck")


@dataclass(frozen=True)
class Layout:
    """One skeleton.

    Args:
        name: how the layout is called in messages and in saved files.
        joints: a name for every joint; their order is the order of the joints in the data.
        bones: pairs of joint numbers. They make the graph; their direction carries no meaning.
        mirrored: pairs of joint numbers that change places when a walk is mirrored left to right.
        root: joint numbers whose mean is the centre of the body (usually the hips).

    Raises:
        ValueError: a name twice, a bone, pair or root that names no joint, a bone from a joint to itself.

    Examples:
        >>> from fastst import Layout
        >>> stick = Layout.custom(["hip", "knee", "ankle"], [("hip", "knee"), ("knee", "ankle")])
        >>> stick.joints, stick.bones
        (('hip', 'knee', 'ankle'), ((0, 1), (1, 2)))
        >>> stick.joint_distance().tolist()
        [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirrored: tuple[tuple[int, int], ...]
    root: tuple[int, ...]

    def __post_init__(self) -> None:
        where = f"layout {self.name!r}"
        if not self.joints:
            raise ValueError(f"{where} has no joints; a layout needs at least one joint name")
        twice = [name for name, count in Counter(self.joints).items() if count > 1]
        if twice:
            raise ValueError(f"{where}: the joint names {twice} appear more than once; every joint needs a name of its own")
        if not self.root:
            raise ValueError(f"{where} has no root joints; name at least one")
        for what, numbers in (("bone", self.bones), ("mirrored pair", self.mirrored), ("root", (self.root,))):
            for group in numbers:
                outside = [j for j in group if not 0 <= j < len(self.joints)]
                if outside:
                    raise ValueError(f"{where}: {what} {group} names joint {outside[0]}, but its joints are 0 to {len(self.joints) - 1}")
                if what != "root" and (len(group) != 2 or group[0] == group[1]):
                    raise ValueError(f"{where}: {what} {group} must join two different joints")

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """The number of the joint called `joint`; ValueError lists the names that exist."""
        if joint not in self.joints:
            raise ValueError(f"layout {self.name!r} has no joint {joint!r}; it has {', '.join(self.joints)}")
        return self.joints.index(joint)

    def without(self, joints: Sequence[str]) -> Layout:
        """The layout without some joints. What hung from one of them hangs from its neighbour that is nearest to the root.

        Raises:
            ValueError: there is no such joint, or fewer than two are left.
        """
        dropped = {self.index(joint) for joint in joints}
        kept = [j for j in range(self.num_joints) if j not in dropped]
        if len(kept) < 2:
            raise ValueError(f"layout {self.name!r} would have {len(kept)} joint(s) left, at least 2 are needed")
        to_root = self.joint_distance()[:, list(self.root)].min(1)
        bones = {tuple(sorted(bone)) for bone in self.bones}
        for joint in sorted(dropped, key=lambda j: -to_root[j]):
            neighbours = sorted((a if b == joint else b for a, b in bones if joint in (a, b)), key=lambda j: (to_root[j], j))
            bones = {bone for bone in bones if joint not in bone} | {tuple(sorted((neighbours[0], other))) for other in neighbours[1:]}
        place = {joint: number for number, joint in enumerate(kept)}
        return Layout(
            f"{self.name} without {', '.join(self.joints[j] for j in sorted(dropped))}",
            tuple(self.joints[j] for j in kept),
            tuple((place[a], place[b]) for a, b in sorted(bones)),
            tuple((place[a], place[b]) for a, b in self.mirrored if a in place and b in place),
            tuple(place[j] for j in self.root if j in place) or tuple(range(len(kept))),
        )

    def mirror_order(self) -> np.ndarray:
        """`order` with `poses[:, order]` the same poses with left and right joints exchanged.  # [J]"""
        order = np.arange(self.num_joints)
        for left, right in self.mirrored:
            order[left], order[right] = right, left
        return order

    def joint_distance(self) -> np.ndarray:
        """Number of bones on the shortest path between any two joints; `UNREACHABLE` where no path exists.  # [J, J] int64"""
        distance = np.full((self.num_joints, self.num_joints), UNREACHABLE, dtype=np.int64)
        np.fill_diagonal(distance, 0)
        for a, b in self.bones:
            distance[a, b] = distance[b, a] = 1
        for via in range(self.num_joints):  # Floyd-Warshall
            distance = np.minimum(distance, distance[:, via, None] + distance[None, via])
        return np.minimum(distance, UNREACHABLE)

    def partitions(self, strategy: str, max_hop: int = 1, centre: int | str | None = None) -> np.ndarray:
        """A of ST-GCN (Yan et al. 2018): the pairs of joints at most `max_hop` bones apart, 1 / the number of those that end at the same joint, dealt
        out to K matrices.

        As in the authors' code no distance beyond `max_hop` is known: two joints that are both further from the centre are equally far.

        Args:
            strategy: `uniform` for all pairs in one matrix; `distance` for one matrix a distance, K = max_hop + 1; `spatial` for the joints
                themselves, then for every distance the pairs that don't lead away from the centre and those that do, K = 2 max_hop + 1.
            max_hop: at least 1.
            centre: the joint, for `spatial`. Left out, the one between the shoulders or the neck, as the layout has them.

        Returns:
            # [K, J, J], rows from, columns to; float64

        Raises:
            ValueError: a strategy that does not exist, max_hop below 1, no such joint, or none that could be the centre.
        """
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(_STRATEGIES)}, got {strategy!r}")
        if not isinstance(max_hop, int) or max_hop < 1:
            raise ValueError(f"max_hop must be a whole number of at least 1, got {max_hop!r}")
        distance = self.joint_distance()
        distance[distance > max_hop] = UNREACHABLE
        near = distance <= max_hop
        share = near / near.sum(0)
        if strategy == "uniform":
            return share[None]
        at = [share * (distance == hop) for hop in range(max_hop + 1)]
        if strategy == "distance":
            return np.stack(at)
        away = distance[self._centre(centre)]
        outward = away[:, None] < away[None]
        return np.stack([at[0], *(part for pairs in at[1:] for part in (pairs * ~outward, pairs * outward))])

    def _centre(self, joint: int | str | None) -> int:
        if joint is None:
            joint = next((name for name in _CENTRES if name in self.joints), None)
        if joint is None:
            raise ValueError(f"layout {self.name!r} has none of the joints {', '.join(_CENTRES)}; say which joint is the centre")
        number = self.index(joint) if isinstance(joint, str) else joint
        if not 0 <= number < self.num_joints:
            raise ValueError(f"layout {self.name!r}: centre {joint} is no joint; they are 0 to {self.num_joints - 1}")
        return number

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON; `Layout.from_dict` reads them back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "bones": [list(bone) for bone in self.bones],
            "mirrored": [list(pair) for pair in self.mirrored],
            "root": list(self.root),
        }

    @staticmethod
    def custom(
        joints: Sequence[str],
        bones: Iterable[Sequence[int | str]],
        name: str = "custom",
        mirrored: Iterable[Sequence[int | str]] | None = None,
        root: Iterable[int | str] | None = None,
    ) -> Layout:
        """A layout from joint names and bones. Joints may be named or numbered in `bones`, `mirrored` and `root`.

        Left out, `mirrored` pairs the names that differ only in left/right (`left_knee` and `right_knee`, `LKnee` and `RKnee`), and `root`
        is the joint or joints called hip(s) or pelvis, or else all joints.
        """
        names = tuple(str(joint) for joint in joints)

        def number(joint: int | str) -> int:
            if isinstance(joint, str):
                if joint not in names:
                    raise ValueError(f"layout {name!r} has no joint {joint!r}; it has {', '.join(names)}")
                return names.index(joint)
            return int(joint)

        def pairs(groups: Iterable[Sequence[int | str]], what: str) -> tuple[tuple[int, int], ...]:
            found = []
            for group in groups:
                if len(group) != 2:
                    raise ValueError(f"layout {name!r}: {what} {group!r} must be a pair of joints")
                found.append((number(group[0]), number(group[1])))
            return tuple(found)

        return Layout(
            name=name,
            joints=names,
            bones=pairs(bones, "bone"),
            mirrored=_mirrored_names(names) if mirrored is None else pairs(mirrored, "mirrored pair"),
            root=_root_names(names) if root is None else tuple(number(joint) for joint in root),
        )

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Layout:
        """`Layout.custom` with the keys of a mapping: `joints` and `bones`, and if wanted `name`, `mirrored`, `root`."""
        known = {"name", "joints", "bones", "mirrored", "root"}
        if unknown := set(fields) - known:
            raise ValueError(f"a layout has the keys {sorted(known)}; {sorted(unknown)} are unknown")
        if missing := {"joints", "bones"} - set(fields):
            raise ValueError(f"a layout needs {sorted(missing)}")
        if not isinstance(fields.get("name", ""), str) or not isinstance(fields["joints"], list | tuple):
            raise ValueError("the name of a layout is a text, and its joints are a list of names")
        return Layout.custom(**fields)


def _mirrored_names(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of names that become one another when left is exchanged for right; a number at the end does not matter (leftarm1, rightarm)."""
    stems = [name.rstrip("0123456789") for name in names]
    swaps = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
    pairs = []
    for i, name in enumerate(names):
        twins = [name.replace(left, right) for left, right in swaps if left in name]
        if (name[:1] == "L" and name[1:2].isupper()) or name[:2] in ("l_", "L_"):
            twins.append({"L": "R", "l": "r"}[name[0]] + name[1:])
        for twin in twins:
            found = names.index(twin) if twin in names else _only(stems, twin.rstrip("0123456789"))
            if found is not None:
                pairs.append((i, found))
                break
    return tuple(pairs)


def _only(names: list[str], name: str) -> int | None:
    return names.index(name) if names.count(name) == 1 else None


def _root_names(names: tuple[str, ...]) -> tuple[int, ...]:
    plain = [name.lower().replace("_", "").replace(" ", "") for name in names]
    for wanted in (
        {"pelvis", "hips", "hip", "midhip", "hipcenter", "root"},
        {"lefthip", "righthip", "lhip", "rhip", "hipleft", "hipright"},
    ):
        found = tuple(i for i, name in enumerate(plain) if name in wanted)
        if found:
            return found
    return tuple(range(len(names)))


def _sides(text: str) -> list[str]:
    """'nose eye*' -> nose, left_eye, right_eye."""
    return [side + word.rstrip("*") for word in text.split() for side in (("left_", "right_") if word.endswith("*") else ("",))]


def _chains(text: str) -> list[tuple[int, int]]:
    """'0-1-2 0-3' -> (0, 1), (1, 2), (0, 3)."""
    chains = [[int(joint) for joint in chain.split("-")] for chain in text.split()]
    return [bone for chain in chains for bone in itertools.pairwise(chain)]


_COCO17 = _sides("nose eye* ear* shoulder* elbow* wrist* hip* knee* ankle*")
_COCO_LIMBS = "5-7-9 6-8-10 5-11-13-15 6-12-14-16 11-12"
_COCO_FEET = "big_toe small_toe heel"
_MEDIAPIPE_FACE = "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer ear* mouth*"
_OPENPOSE_ARMS = "right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist"
_OPENPOSE_LEGS = "right_hip right_knee right_ankle left_hip left_knee left_ankle"
_OPENPOSE_FEET = "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
_NTU_ARMS = "left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow right_wrist right_hand"
_NTU_LEGS = "left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot"
_H36M_LEGS = "right_hip right_knee right_ankle left_hip left_knee left_ankle"
_H36M_ARMS = "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"

# Bones as their makers draw them: COCO's annotation format (coco17), OpenPose's COCO and BODY_25 models, the NTU RGB+D bones of ST-GCN,
# Human3.6M's 17 joints as in VideoPose3D, the Kinect v1 SDK. coco18 is the paper's skeleton: COCO-17 plus mid-shoulder. Two more are ST-GCN's own:
# OpenPose's joints with hips that hang from the shoulders, and NTU RGB+D without the joint between the shoulders. halpe26 and wholebody23 (the body
# and the feet of COCO-WholeBody's 133 points) are drawn as in MMPose; mediapipe33 as MediaPipe's POSE_CONNECTIONS, which leave the head and the mouth
# apart: here the nose, the mouth and the shoulders are joined, so that the body is one piece.
_BUILT_IN = (
    ("coco17", _COCO17, f"0-1 0-2 1-2 1-3-5 2-4-6 5-6 {_COCO_LIMBS}", ["left_hip", "right_hip"]),
    ("coco18", [*_COCO17, "mid_shoulder"], f"0-1-3 0-2-4 0-17-5 17-6 {_COCO_LIMBS}", ["left_hip", "right_hip"]),
    (
        "openpose18",
        f"nose neck {_OPENPOSE_ARMS} {_OPENPOSE_LEGS} right_eye left_eye right_ear left_ear".split(),
        "1-0 1-2-3-4 1-5-6-7 1-8-9-10 1-11-12-13 0-14-16 0-15-17",
        ["left_hip", "right_hip"],
    ),
    (
        "openpose25",
        f"nose neck {_OPENPOSE_ARMS} mid_hip {_OPENPOSE_LEGS} right_eye left_eye right_ear left_ear {_OPENPOSE_FEET}".split(),
        "1-0 1-8 1-2-3-4 1-5-6-7 8-9-10-11-22-23 8-12-13-14-19-20 0-15-17 0-16-18 14-21 11-24",
        ["mid_hip"],
    ),
    (
        "ntu25",
        f"spine_base spine_mid neck head {_NTU_ARMS} {_NTU_LEGS} spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb".split(),
        "0-1-20-2-3 20-4-5-6-7-22-21 20-8-9-10-11-24-23 0-12-13-14-15 0-16-17-18-19",
        ["spine_base"],
    ),
    (
        "h36m17",
        f"pelvis {_H36M_LEGS} spine thorax neck head {_H36M_ARMS}".split(),
        "0-1-2-3 0-4-5-6 0-7-8-9-10 8-11-12-13 8-14-15-16",
        ["pelvis"],
    ),
    (
        "kinect20",
        f"hip_center spine shoulder_center head {_NTU_ARMS} {_NTU_LEGS}".split(),
        "0-1-2-3 2-4-5-6-7 2-8-9-10-11 0-12-13-14-15 0-16-17-18-19",
        ["hip_center"],
    ),
    (
        "stgcn18",
        f"nose neck {_OPENPOSE_ARMS} {_OPENPOSE_LEGS} right_eye left_eye right_ear left_ear".split(),
        "1-0 1-2-3-4 1-5-6-7 2-8-9-10 5-11-12-13 0-14-16 0-15-17",
        ["left_hip", "right_hip"],
    ),
    (
        "ntu24",
        f"spine_base spine_mid neck head {_NTU_ARMS} {_NTU_LEGS} left_hand_tip left_thumb right_hand_tip right_thumb".split(),
        "0-1-2-3 1-4-5-6-7-21-20 1-8-9-10-11-23-22 0-12-13-14-15 0-16-17-18-19",
        ["spine_base"],
    ),
    (
        "halpe26",
        [*_COCO17, "head", "neck", "hip", *_sides("big_toe* small_toe* heel*")],
        "0-1-2 0-2 1-3-5 2-4-6 17-18-19 18-5-7-9 18-6-8-10 19-11-13-15 19-12-14-16 15-20 15-22 15-24 16-21 16-23 16-25",
        ["hip"],
    ),
    (
        "wholebody23",
        [*_COCO17, *(f"{side}_{part}" for side in ("left", "right") for part in _COCO_FEET.split())],
        f"0-1 0-2 1-2 1-3-5 2-4-6 5-6 {_COCO_LIMBS} 15-17 15-18 15-19 16-20 16-21 16-22",
        ["left_hip", "right_hip"],
    ),
    (
        "mediapipe33",
        _sides(f"{_MEDIAPIPE_FACE} shoulder* elbow* wrist* pinky* index* thumb* hip* knee* ankle* heel* foot_index*"),
        "0-1-2-3-7 0-4-5-6-8 9-10 11-12 11-13-15-17-19-15-21 12-14-16-18-20-16-22 11-23-25-27-29-31-27 12-24-26-28-30-32-28 23-24 0-9-11 0-10-12",
        ["left_hip", "right_hip"],
    ),
)
LAYOUTS: dict[str, Layout] = {name: Layout.custom(joints, _chains(bones), name, root=root) for name, joints, bones, root in _BUILT_IN}


def get_layout(layout: str | Layout | Mapping[str, Any]) -> Layout:
    """The layout called `layout`, made from that mapping, read from that `.json` file, or the layout itself.

    Raises:
        ValueError: a name that is not built in, or a file or mapping that is not a layout.
    """
    if isinstance(layout, Layout):
        return layout
    if isinstance(layout, Mapping):
        return Layout.from_dict(layout)
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    if str(layout).endswith(".json"):
        fields = read_json(Path(layout), "expected a layout: an object with the keys joints and bones")
        if not isinstance(fields, dict):
            raise ValueError(f"layout file {layout} must hold an object with the keys joints and bones")
        try:
            return Layout.from_dict({"name": visible(Path(layout).stem), **fields})
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"layout file {layout} is no layout: {error}; expected joints, a list of names, and bones, pairs of them") from None
    raise ValueError(f"unknown layout {layout!r}; the built-in ones are {', '.join(LAYOUTS)}, or give a .json file with joints and bones")
