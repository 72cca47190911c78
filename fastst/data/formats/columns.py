"""What the columns of a table of poses mean, by their names: joints, confidences, frames, and whose walk it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fastst.data.formats.clock import TIMES
from fastst.data.skeletons import MARKERS, unnamed
from fastst.layouts import LAYOUTS, Layout

_AXES = ("x", "y", "z")
# The first of these that all joints have is their confidence.
_CONFIDENCES = ("confidence", "conf", "score", "likelihood", "visibility", "prob", "c", "p", "v", "s", "presence")
_WORDS_OF_A_NUMBERED_JOINT = frozenset(("", "landmark", "keypoint", "kp", "kpt", "joint", "point", "marker", "lm", "j", "p"))
_NO_JOINTS = frozenset(("bbox", "box", "bb", "rect", "image", "img", "min", "max"))
_LAYOUT_OF_NUMBERED = {33: "mediapipe33"}  # other numbers of joints have several skeletons
_JOINTS_WANTED = "expected columns such as nose_x,nose_y,nose_conf,left_eye_x,... for every joint"

# What else a column may say; of several columns for one thing the first in this order counts.
_ROLES = {
    "image": "imagename image imageid img imgname imgid imagepath imgpath imagefile filename file filepath framename framepath fname path",
    "frame": "frame frameid frameidx frameindex frameno framenumber framenum frames",
    "person": "track trackid person personid personidx personindex instance instanceid individual id idx",
}
_KEYS = {
    "subject": "subject subjectid subjectname subjectno subjectnumber subj sid participant participantid participantno patient patientid proband "
    "probandid pid case caseid user userid",
    "condition": "condition cond",
    "sequence": "sequence sequenceid seq seqid",
    "view": "view viewid viewangle angle camera cameraid cam camid",
    "walk": "walk walkid walkname name video videoid videoname videofile clip clipid trial trialid session recording",
}
_ATTRIBUTES = "label class split fps age sex gender group diagnosis action height weight imagewidth imageheight"
_LANDMARK = " ".join(
    [
        "bodypart",
        "marker",
        *(f"{what}{which}" for what in ("landmark", "joint", "keypoint") for which in ("", "id", "name", "index", "idx", "number")),
    ]
)


@dataclass(frozen=True)
class Columns:
    """Numbers of the columns of a table.

    Args:
        layout: the skeleton of the joints; without bones where it is none of those that are built in.
        coordinates: of every joint its columns of x, y and, in 3D, z.
        confidences: of every joint, or empty.
        image, frame, person: the columns with the image's name, the frame's number and who it is in a frame.
        time: the column with the time of the frame.
        is_track: whether the column of the person is called so, and not just ID.
        keys: what tells walks apart -> its columns; `subject`, `condition`, `sequence` and `view` among them are attributes, too.
        attributes: what else is said of a walk -> its column.
        landmark: where each row is one joint, the column that says which.
        unused: the coordinates of joints that the skeleton hasn't, or that are spelled otherwise than most.
    """

    layout: Layout
    coordinates: list[list[int]]
    confidences: list[int]
    image: int | None = None
    frame: int | None = None
    person: int | None = None
    time: int | None = None
    is_track: bool = True
    keys: dict[str, list[int]] = field(default_factory=dict)
    attributes: dict[str, int] = field(default_factory=dict)
    landmark: int | None = None
    unused: list[int] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        return [column for joint in self.coordinates for column in joint] + self.confidences

    @property
    def texts(self) -> list[int]:
        single = [self.image, self.frame, self.person, self.time, self.landmark, *self.attributes.values()]
        return sorted({column for column in single if column is not None}.union(*self.keys.values()))


def has_positions(names: Iterable[str]) -> bool:
    """Whether some column is an x of something."""
    return any(found is not None and found[1] == "x" for found in map(_joint_and_what, names))


def is_long(names: Sequence[str]) -> bool:
    """Whether each row is one joint: columns x and y of no joint, and one that says which it is."""
    plain = {"".join(_tokens(name)) for name in names}
    return {"x", "y"} <= plain and bool(plain & set(_LANDMARK.split()))


@lru_cache(maxsize=2)  # the files of a folder are mostly alike
def columns_of(names: tuple[str, ...]) -> Columns:
    """The meaning of the columns, by their names, of a table with a row a person and frame.

    Raises:
        ValueError: there are no joints, or one of them lacks a column or has two for one number.
    """
    joints, others = _joints(names)
    if not any("x" in columns for columns in joints.values()):
        raise ValueError(f"no column is the x of a joint; {_JOINTS_WANTED}; the columns are {_some(names)}")
    layout, order = layout_of(list(joints))
    chosen = [list(joints)[i] for i in order]
    axes = _AXES if all("z" in joints[joint] for joint in chosen) else _AXES[:2]
    for joint in chosen:
        if lacking := [axis for axis in axes if axis not in joints[joint]]:
            has = next(axis for axis in axes if axis in joints[joint])
            raise ValueError(f"{joint!r} has a column for {has} and none for {lacking[0]}; {_JOINTS_WANTED}")
    kinds = [kind for kind in _CONFIDENCES if any(kind in joints[joint] for joint in chosen)]
    confidences: list[int] = []
    if kinds:
        complete = next((kind for kind in kinds if all(kind in joints[joint] for joint in chosen)), None)
        if complete is None:
            joint = next(joint for joint in chosen if kinds[0] not in joints[joint])
            raise ValueError(f"{joint!r} has no column for its {kinds[0]}, other joints have one; give all of them one, or none")
        confidences = [joints[joint][complete] for joint in chosen]
    used = {column for joint in joints.values() for column in joint.values()}
    coordinates = [[joints[joint][axis] for axis in axes] for joint in chosen]
    unused = [joints[joint][axis] for joint in joints if joint not in chosen for axis in _AXES if axis in joints[joint]]
    return Columns(layout, coordinates, confidences, time=_time(names, used), unused=sorted(unused + others), **roles_of(names, used))


def long_columns_of(names: Sequence[str]) -> Columns:
    """The meaning of the columns of a table with a row a joint; the layout is that of a single joint."""
    plain = _first_of_each(["".join(_tokens(name)) for name in names])
    axes = [plain[axis] for axis in _AXES if axis in plain]
    confidence = next(([plain[kind]] for kind in _CONFIDENCES if kind in plain), [])
    landmark = next(plain[name] for name in _LANDMARK.split() if name in plain)
    layout = Layout.custom(["joint"], [], "joint")
    return Columns(layout, [axes], confidence, landmark=landmark, **roles_of(names, {*axes, *confidence, landmark}))


def layout_of(joints: Sequence[str]) -> tuple[Layout, list[int]]:
    """The largest built-in layout whose joints are all among `joints`, else one of these alone, without bones; and which of `joints` are its own."""
    if all(joint.isdecimal() for joint in joints):
        order = sorted(range(len(joints)), key=lambda i: int(joints[i]))
        return LAYOUTS.get(_LAYOUT_OF_NUMBERED.get(len(joints), "")) or unnamed(len(joints)), order
    place = _first_of_each([plain(joint) for joint in joints])
    fitting = [layout for layout in LAYOUTS.values() if all(plain(joint) in place for joint in layout.joints)]
    if fitting:
        layout = max(fitting, key=lambda layout: layout.num_joints)
        return layout, [place[plain(joint)] for joint in layout.joints]
    kept = sorted(place.values())
    return Layout.custom([joints[i] for i in kept], [], MARKERS), kept


def _joints(names: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[int]]:
    """Joint -> `x`, `y`, `z` or a word for confidence -> column; and the other columns of coordinates.

    Of joints with names, of `kp1_x` and of `x1` those are the joints of which there are most: beside named joints, x1 and y1 are a corner of a box.

    Raises:
        ValueError: two columns are one number of a joint.
    """
    found = {column: found for column, name in enumerate(names) if (found := _joint_and_what(name)) is not None}
    count = Counter(_word_of(joint) for joint, what in found.values() if what == "x")
    most = max(count, key=lambda word: (count[word], word is None), default=None)
    is_place = {_word_of(joint) for joint, what in found.values() if what in _AXES}
    joints: dict[str, dict[str, int]] = {}
    spelled: dict[str, str] = {}
    others = []
    for column, (joint, what) in found.items():
        word = _word_of(joint)
        if word != most and word in is_place:
            others += [column] if what in _AXES else []
            continue
        if word is not None:
            joint = joint.removeprefix(word)
        columns = joints.setdefault(spelled.setdefault(plain(joint), joint), {})
        if columns.setdefault(what, column) != column and what in _AXES:
            raise ValueError(
                f"{names[columns[what]]} and {names[column]} are both the {what} of {joint!r}; expected one column, remove or rename the other"
            )
    return {joint: columns for joint, columns in joints.items() if any(axis in columns for axis in _AXES)}, others


def _word_of(joint: str) -> str | None:
    """What stands before the number of a joint that has no name, or None: `kp3` -> kp, `3` -> "", `nose` -> None."""
    word = joint.rstrip("0123456789")
    return word if word != joint and word in _WORDS_OF_A_NUMBERED_JOINT else None


def _joint_and_what(name: str) -> tuple[str, str] | None:
    """`left_eye_x`, `x_left_eye`, `LeftEye.x`, `x3`, `landmark_3_x` -> left_eye, 3 or landmark3, and which of its numbers."""
    tokens = _tokens(name)
    known = {*_AXES, *_CONFIDENCES}
    for joint, what in ((tokens[:-1], tokens[-1:]), (tokens[1:], tokens[:1])):
        if joint and what[0] in known and not _NO_JOINTS & set(joint):
            if joint[-1].isdecimal() and "".join(joint[:-1]) in _WORDS_OF_A_NUMBERED_JOINT:
                return "".join(joint), what[0]
            return "_".join(joint), what[0]
    return None


@lru_cache(maxsize=4096)
def _tokens(name: str) -> list[str]:
    """`LEye.x`, `left eye (x)` -> l, eye, x; left, eye, x."""
    return [token.lower() for token in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+", name)]


@lru_cache(maxsize=4096)
def plain(joint: str) -> str:
    """One spelling for `left_eye`, `LEye`, `l_eye`, `leye` and `EyeLeft`."""
    tokens = _tokens(joint)
    for side in ("left", "right"):
        for i in (0, -1):
            if len(tokens) > 1 and tokens[i] in (side, side[0]):
                return f"{side} {''.join(tokens[1:] if i == 0 else tokens[:-1])}"
    word = "".join(tokens)
    for side in ("left", "right"):
        if word.startswith(side) and word != side:
            return f"{side} {word.removeprefix(side)}"
        if word[:1] == side[0] and word[1:] in _SIDED:
            return f"{side} {word[1:]}"
    return word


_SIDED = frozenset(joint.split("_", 1)[1].replace("_", "") for layout in LAYOUTS.values() for joint in layout.joints if joint.startswith("left_"))


def roles_of(names: Sequence[str], used: Collection[int] = ()) -> dict[str, Any]:
    """What the columns are that are no numbers of joints, as arguments of `Columns`; those in `used` are nothing else."""
    columns = _first_of_each(["" if i in used else "".join(_tokens(name)) for i, name in enumerate(names)])

    def named(words: str) -> list[int]:
        return [columns[word] for word in words.split() if word in columns]

    return {
        "is_track": not named("id") or named(_ROLES["person"])[0] != named("id")[0],
        **{role: found[0] for role, words in _ROLES.items() if (found := named(words))},
        "keys": {key: found if key == "walk" else found[:1] for key, words in _KEYS.items() if (found := named(words))},
        "attributes": {word: columns[word] for word in _ATTRIBUTES.split() if word in columns},
    }


def _time(names: Sequence[str], used: Collection[int]) -> int | None:
    return next((i for i, name in enumerate(names) if i not in used and "".join(_tokens(name)) in TIMES), None)


def unit_of_time(name: str) -> str | None:
    """The unit that the name of a column of times tells."""
    return TIMES["".join(_tokens(name))]


def _first_of_each(words: Sequence[str]) -> dict[str, int]:
    """Word -> the first place where it stands."""
    return {word: i for i, word in reversed(list(enumerate(words)))}


def _some(names: Sequence[str]) -> str:
    named = [name for name in names if name]
    return ", ".join(name[:40] for name in named[:8]) + (", ..." if len(named) > 8 else "")
