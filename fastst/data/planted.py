"""Signals planted into made-up walks, whose truth is known: what an explanation is scored against.

Four kinds tell two classes apart: where joints are ("position"), when they move ("timing"), how two
joints move together ("relation"), or where joints are for a few frames only ("episode").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fastst.data.prepare import prepare
from fastst.data.walks import WalkSet
from fastst.graph import SkeletonGraph
from fastst.layouts import LAYOUTS, Layout

Kind = Literal["position", "timing", "relation", "episode"]
KINDS: tuple[str, ...] = get_args(Kind)

# Mean over people, as a share of the body's height in the image (0.03 is 3 to 5 pixels), and the
# standard deviation between people, as a share of the mean.
PLANTED_SHIFT = {"position": (0.03, 0.4), "relation": (0.08, 0.2), "episode": (0.10, 0.2)}
# Of a gait cycle: planted joints are in time in one class, and twice this late in the other. Early
# and late by the same lag would be much the same to graph convolutions, which add up the frames
# before and after and so can't see which way time runs.
PLANTED_LAG = 0.25
EPISODE_FRAMES = (12, 20)  # shortest and longest
SHORTEST_EPISODE = 4  # in short walks
_FADING_FRAMES = 3  # at either end of an episode

# Between what a joint's signal does to others and what it does to the joint itself: 0.47 to 0.52 at
# the mid-shoulder when a shoulder is planted; at most 0.15 anywhere else (0.10 unless it is a
# shoulder), where it comes through the scaling by the walk's mean joint distance. Centring spreads
# only a hip's signal, half of it to every joint. Measured for all joints and kinds; where n joints
# are planted, n such traces add up.
_CLEAR_SHARE = 0.3

_RECORDED, _PREPARED = LAYOUTS["coco17"], LAYOUTS["coco18"]


@dataclass(frozen=True)
class Planted:
    """What was planted into walks. Walks are known by their names, so that a selection keeps it.

    Args:
        kind: how the joints tell the classes apart.
        joints: the joints that do.
        pairs: of a relation, the joints that do together and not alone; empty for other kinds.
        episodes: of an episode, its first frame and the one after its last in every walk.
    """

    kind: Kind
    joints: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    episodes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def frames(self, name: str, length: int) -> np.ndarray:
        """Which of the `length` frames of the walk called `name` tell its class.  # [T] bool"""
        begin, end = self.episodes[name] if self.kind == "episode" else (0, length)
        frame = np.arange(length)
        return (begin <= frame) & (frame < end)

    def symmetric(self, layout: Layout) -> bool:
        """Whether mirrored walks carry the same signal: joints and pairs have mirror images."""
        order = layout.mirror_order()
        groups = [*((joint,) for joint in self.joints), *self.pairs]
        planted = {frozenset(layout.index(joint) for joint in group) for group in groups}
        return planted == {frozenset(int(order[j]) for j in group) for group in planted}


def named_planting(kind: str, joints: Sequence[str], frames: int | None = None) -> Planted:
    """What a user asks to be planted in walks of so many frames if given, without episodes.

    Raises:
        ValueError: an unknown kind or joint, a hip, a joint twice, no joints for another kind than
            position, a relation whose joints aren't pairs that a bone of coco18 joins, an episode
            in walks that are too short.
    """
    if kind not in KINDS:
        known = ", ".join(KINDS[:-1])
        raise ValueError(f"planted_kind is {kind!r}; expected {known} or {KINDS[-1]}")
    if kind != "position" and not joints:
        raise ValueError(f"planted_kind {kind!r} needs joints; name some in planted")
    if kind == "episode" and frames is not None and frames < SHORTEST_EPISODE:
        raise ValueError(f"frames is {frames}; an episode takes {SHORTEST_EPISODE} or more")
    for joint in joints:
        _check_joint(joint, joints)
    pairs = _joined_pairs(joints) if kind == "relation" else ()
    return Planted(cast(Kind, kind), tuple(joints), pairs)


def _check_joint(joint: str, joints: Sequence[str]) -> None:
    if _RECORDED.index(joint) in _RECORDED.root:
        raise ValueError(
            f"{joint} can't be planted: walks are centred at the middle of the hips, so that all "
            "other joints would carry its signal; plant others, the knees or shoulders for example"
        )
    if list(joints).count(joint) > 1:
        raise ValueError(f"planted names {joint} more than once; name every joint once")


def _joined_pairs(joints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """First with second, third with fourth, and so on."""
    if len(joints) % 2:
        raise ValueError(
            "a relation is planted in pairs, first joint with second, third with fourth, but "
            f"planted names {len(joints)}: {', '.join(joints)}; name an even number"
        )
    bones = {frozenset(_PREPARED.joints[j] for j in bone) for bone in _PREPARED.bones}
    pairs = tuple(zip(joints[::2], joints[1::2], strict=True))
    for first, second in pairs:
        if frozenset((first, second)) not in bones:
            raise ValueError(
                f"a relation is planted in joints that a bone of {_PREPARED.name} joins; none "
                f"joins {first} and {second} (left_elbow and left_wrist, say, are joined)"
            )
    return pairs


def strengths(
    planted: Planted,
    male: bool,
    turned: Sequence[str],
    person: np.random.Generator,
) -> np.ndarray:
    """How large the signal of every planted joint is: the other class' for the joints `turned`.

    Above 0 in women and below in men, as a share of the body's height that differs by `person`; in
    a relation that is so of the second joint of a pair only. In timing a share of the gait cycle.
    """
    signs = np.full(len(planted.joints), -1.0 if male else 1.0)
    if planted.kind == "relation":
        signs[::2] = 1.0
    signs[np.isin(planted.joints, turned)] *= -1
    if planted.kind == "timing":
        return PLANTED_LAG * (1 + signs)
    mean, deviation = PLANTED_SHIFT[planted.kind]
    return signs * (mean * (1 + deviation * person.standard_normal()))  # [n]


def shifts(
    planted: Planted,
    strength: np.ndarray,
    height: np.ndarray,
    phase: np.ndarray,
    episode: tuple[int, int],
    steps: np.random.Generator,
) -> np.ndarray:
    """How many pixels down joints are moved: strength · height · bump.

    The bump is (1 + cos 4π phase) / 2, once per step and 0 between steps. In a relation it goes up
    or down, anew for every step and pair. In an episode it lasts as long as that, with soft ends.

    Args:
        planted: of another kind than timing.
        strength: of the planted joints.  # [n]
        height: of the body, pixels.  # [T]
        phase: gait cycles since a left heel contact.  # [T]
        episode: first frame and the one after the last, of an episode.
        steps: ups and downs are drawn from here.

    Returns:
        Pixels, 0 for joints that aren't planted.  # [T, 17]
    """
    bump = ((1 + np.cos(4 * np.pi * phase)) / 2)[:, None]
    if planted.kind == "episode":
        bump = _faded(len(phase), *episode)[:, None]
    if planted.kind == "relation":
        step = np.floor(2 * phase + 0.5).astype(np.int64)
        step -= step[0]
        up_or_down = 2 * steps.integers(2, size=(step[-1] + 1, len(planted.pairs))) - 1
        bump = bump * np.repeat(up_or_down[step], 2, axis=1)
    moved = np.zeros((len(phase), _RECORDED.num_joints))
    moved[:, _numbers(planted)] = strength * height[:, None] * bump
    return moved


def _faded(frames: int, begin: int, end: int) -> np.ndarray:
    """Above 0 from `begin` to `end`: sin² up to 1, and down again.  # [T]"""
    frame = np.arange(frames)
    depth = np.minimum(frame - begin + 1, end - frame).clip(0, _FADING_FRAMES + 1)
    return np.sin(np.pi / 2 * depth / (_FADING_FRAMES + 1)) ** 2


def draw_episode(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """First frame, and the one after the last, of an episode in a walk of so many frames.

    It lies in the walk wholly, and takes at most half of it where `SHORTEST_EPISODE` allows that.
    """
    shortest, longest = EPISODE_FRAMES
    wanted = int(rng.integers(shortest, longest + 1))
    length = min(wanted, max(frames // 2, SHORTEST_EPISODE))
    begin = int(rng.integers(frames - length + 1))
    return begin, begin + length


def delays(
    planted: Planted,
    strength: np.ndarray,
    walker: Callable[[float], np.ndarray],
) -> np.ndarray:
    """How far joints are from where they would be, if planted ones moved `strength` later.

    Only motion relative to the middle of the hips is late: walks are centred there, so that a joint
    does the same in both classes, at another time.

    Args:
        planted: a timing.
        strength: of the planted joints, in gait cycles.  # [n]
        walker: the body in space, that many gait cycles later.  # [T, 17, 3]

    Returns:
        The same unit, 0 for joints that aren't planted.  # [T, 17, 3]
    """
    in_time = _from_hips(walker(0.0))
    moved = np.zeros_like(in_time)
    for joint, late in zip(_numbers(planted), strength.tolist(), strict=True):
        moved[:, joint] = (_from_hips(walker(-late)) - in_time)[:, joint]
    return moved


def _numbers(planted: Planted) -> list[int]:
    return [_RECORDED.index(joint) for joint in planted.joints]


def _from_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, list(_RECORDED.root)].mean(axis=1, keepdims=True)


@runtime_checkable
class Twins(Protocol):
    """Walks that can be made with another class."""

    def twin(self, i: int, turned: Sequence[str]) -> np.ndarray:
        """Walk i, with what tells the class of the joints `turned` as in the other class."""


def planted_truth(walks: WalkSet, layout: Layout = _PREPARED, some: int = 32) -> Planted:
    """The joints and pairs that tell the classes apart once walks are prepared.

    Walks are made twice, as they are and with the signal of one planted joint turned into that of
    the other class, and prepared. What clearly differs then carries the signal: the joint itself,
    and the mid-shoulder if it is a shoulder. (To turn one joint of a relation's pair changes the
    class, too.)

    Args:
        walks: as `synthetic_walks` gives them, with joints planted.
        layout: what they are prepared for.
        some: how many walks are looked at, spread over all.

    Returns:
        `walks.planted` with those joints, in the order of the layout, and those pairs, in both
        directions.

    Raises:
        ValueError: walks that nothing was planted into, or that can't be made again.
    """
    planted, poses = walks.planted, walks.poses
    if planted is None or not isinstance(poses, Twins):
        raise ValueError("the truth is read off walks of synthetic_walks(planted=...), all of them")
    chosen = np.linspace(0, len(walks) - 1, min(some, len(walks))).astype(int).tolist()
    as_they_are = _prepared([poses[i] for i in chosen], walks.layout, layout)
    reached = {}
    for joint in planted.joints:
        twins = _prepared([poses.twin(i, [joint]) for i in chosen], walks.layout, layout)
        difference = mean_difference(as_they_are, twins)
        clear = difference > _CLEAR_SHARE * difference.max()
        reached[joint] = [layout.joints[j] for j in np.flatnonzero(clear)]
    joints = set(itertools.chain.from_iterable(reached.values()))
    ends: set[tuple[str, str]] = set()
    for first, second in planted.pairs:
        ends |= {*itertools.product(reached[first], reached[second])}
        ends |= {*itertools.product(reached[second], reached[first])}
    return replace(
        planted,
        joints=tuple(joint for joint in layout.joints if joint in joints),
        pairs=tuple(pair for pair in itertools.product(layout.joints, repeat=2) if pair in ends),
    )


def _prepared(poses: list[np.ndarray], recorded: Layout, layout: Layout) -> Sequence[np.ndarray]:
    numbers = [str(i) for i in range(len(poses))]
    return prepare(WalkSet(recorded, numbers, numbers, poses), layout, 1)[0].poses


def mean_difference(walks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """How far joints are apart in two versions of the same walks, on average.  # [J]"""
    pairs = zip(walks, others, strict=True)
    return np.mean([np.linalg.norm(a - b, axis=2).mean(axis=0) for a, b in pairs], axis=0)


def planted_edges(
    graph: SkeletonGraph,
    joints: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Tensor]:
    """Which slots of a graph have to do with planted joints, or with pairs of them.

    Returns:
        `out` of a planted joint into one that isn't, `in` the other way, `touch` with a planted
        joint at either end, `within` with one at both; if there are pairs, `within` has the slots
        between the two joints of a pair alone.  # [P] bool each
    """
    names = graph.layout.joints
    planted = torch.tensor([name in joints for name in names])
    both = planted[:, None] & planted
    if pairs:
        both = torch.tensor([[(a, b) in pairs or (b, a) in pairs for b in names] for a in names])
    src, dst = graph.src.long(), graph.dst.long()
    return {
        "out": planted[src] & ~planted[dst],
        "in": ~planted[src] & planted[dst],
        "touch": planted[src] | planted[dst],
        "within": both[src, dst],
    }
