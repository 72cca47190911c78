"""A synthetic walker: CASIA-B's people, sequences and cameras without CASIA-B's pictures.

A 3-D body walks with joint angles that are Fourier series of the gait cycle, a pinhole camera looks at it, and a pose estimator's faults
are added. Men and women differ in the means of a dozen measures (`MALE`, `FEMALE`), whose spread between people makes them overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from typing import overload

import numpy as np

from fastst.data import planted as plant
from fastst.data.noise import bursts, smooth_noise, stream
from fastst.data.walks import WalkSet
from fastst.layouts import LAYOUTS

PEOPLE, MALES = 124, 92  # CASIA-B
VIEWS = tuple(range(0, 181, 18))  # degrees; 0 walks towards the camera, 90 is the side view, 180 walks away
SEQUENCES = tuple([("nm", n) for n in range(1, 7)] + [(condition, n) for condition in ("bg", "cl") for n in (1, 2)])
WALKS_PER_PERSON = len(SEQUENCES) * len(VIEWS)
FRAMES_PER_SECOND = 25.0

WIDTH, HEIGHT, FOCAL_LENGTH = 320, 240, 420.0  # pixels
CAMERA_HEIGHT, CAMERA_DISTANCE, LOOKED_AT_HEIGHT = 1.5, 6.0, 0.85  # metres

MISSING_BELOW = 0.3  # confidence under which an estimated joint counts as not seen


@dataclass(frozen=True)
class SexParameters:
    """Measures of body and gait that differ between the sexes: for each the mean and the standard deviation between people.

    Lengths in metres, angles in degrees; "range" is from the smallest to the largest value of a gait cycle. Where the numbers are called
    assumed, the source gives the direction of the difference, and a plausible size was chosen.
    """

    # Metres. Hong Kong adults, 1680 (58) and 1555 (60) mm: City University of Hong Kong, Online Anthropometry.
    stature: tuple[float, float]
    # Biacromial breadth / stature. Same tables, 365 (19) and 350 (22) mm.
    shoulder_breadth: tuple[float, float]
    # Biacromial / hip breadth. Same tables, British: 400 (20) / 360 (29) and 355 (18) / 370 (38) mm; correlation of 0.4 assumed.
    shoulder_hip_ratio: tuple[float, float]
    # Crotch height / stature. AIST body size database 1991-92, Japanese adults: 0.457 and 0.449; SD assumed.
    leg_length: tuple[float, float]
    # Range. 7.4 (3.4) and 9.4 (3.5): Smith, Lelas and Kerrigan 2002, J Womens Health Gend Based Med 11(5):453-458.
    pelvic_obliquity: tuple[float, float]
    # Range. Larger in women: Bruening et al. 2015, Gait Posture 41(2):540-545; numbers assumed.
    pelvic_rotation: tuple[float, float]
    # Range from side to side, metres. Women sway more at the hips than at the shoulders: Mather and Murdoch 1994, Proc R Soc B
    # 258(1353):273-279; numbers assumed.
    pelvic_sway: tuple[float, float]
    # Range in the frontal plane. Women's torso is more stable: Bruening et al. 2015, Mather and Murdoch 1994; numbers assumed.
    trunk_sway: tuple[float, float]
    # Mean forward lean. Women 5 degrees more upright: Chung et al. 2010, J Neuroeng Rehabil 7:9 (11 men, 9 women); SD assumed.
    trunk_lean: tuple[float, float]
    # Step / stature. Shorter in women: Cho, Park and Kwon 2004, Clin Biomech 19(2):145-152; equal: Yu et al. 2023, World J Clin Cases
    # 11(29):7061-7074; numbers assumed, with a small difference.
    step_length: tuple[float, float]
    # Metres. Narrower in women: Cho, Park and Kwon 2004; numbers assumed.
    step_width: tuple[float, float]
    # Steps per minute. Higher in women: Yu et al. 2023; numbers of the order reported by Oberg, Karsznia and Oberg 1993, J Rehabil Res Dev
    # 30(2):210-223.
    cadence: tuple[float, float]
    # Range at the shoulder. Greater in women: Bruening et al. 2015; numbers assumed.
    arm_swing: tuple[float, float]


# fmt: off
MALE = SexParameters(
    stature=(1.680, 0.058), shoulder_breadth=(0.217, 0.011), shoulder_hip_ratio=(1.11, 0.085), leg_length=(0.457, 0.011),
    pelvic_obliquity=(7.4, 3.4), pelvic_rotation=(8.0, 2.5), pelvic_sway=(0.034, 0.009), trunk_sway=(5.0, 1.4), trunk_lean=(4.0, 3.0),
    step_length=(0.420, 0.030), step_width=(0.105, 0.020), cadence=(111.0, 7.0), arm_swing=(27.0, 7.0),
)
FEMALE = SexParameters(
    stature=(1.555, 0.060), shoulder_breadth=(0.225, 0.014), shoulder_hip_ratio=(0.96, 0.085), leg_length=(0.449, 0.011),
    pelvic_obliquity=(9.4, 3.5), pelvic_rotation=(12.0, 3.0), pelvic_sway=(0.044, 0.009), trunk_sway=(3.0, 1.2), trunk_lean=(-1.0, 3.0),
    step_length=(0.410, 0.030), step_width=(0.080, 0.020), cadence=(119.0, 7.0), arm_swing=(37.0, 8.0),
)
# fmt: on

# Angles over the gait cycle of the same side, which starts at heel contact: mean, then cosine and sine of harmonics 1 to 5. Hip (thigh to
# the vertical), knee and ankle, in degrees, have the shape of the textbook curves (Perry and Burnfield, Gait Analysis, 2010), but are
# not digitised from them. Curves named like a measure have range 1 and are scaled by it; hip and knee are scaled by the step length.
_CURVES: dict[str, tuple[float, list[float], list[float]]] = {
    "hip": (6.3, [19.8, -4.7, -0.7, -0.5, -0.2], [-3.2, -1.7, 0.8, 0.2, -0.3]),
    "knee": (21.0, [-2.6, -13.4, 0.0, -0.6, -1.0], [-18.2, 8.3, 4.8, -0.6, 0.1]),
    "ankle": (-1.1, [-2.0, 2.4, -2.5, 2.4, -0.5], [5.0, -6.9, 1.0, -0.2, -0.7]),
    "arm_swing": (0.0, [-0.5, 0.03, 0.0, 0.0, 0.0], [0.05, 0.02, 0.0, 0.0, 0.0]),  # backwards while the leg is in front
    "elbow": (22.0, [-8.0, 0.0, 0.0, 0.0, 0.0], [-4.0, 1.0, 0.0, 0.0, 0.0]),
    "pelvic_obliquity": (0.0, [0.29, 0.0, 0.03, 0.0, 0.0], [0.40, 0.0, -0.04, 0.0, 0.0]),  # the swinging side drops
    "pelvic_rotation": (0.0, [0.5, 0.0, 0.0, 0.0, 0.0], [0.05, 0.0, 0.0, 0.0, 0.0]),  # forwards with the leg
    "pelvic_sway": (0.0, [-0.15, 0.0, 0.0, 0.0, 0.0], [0.48, 0.0, 0.0, 0.0, 0.0]),  # over the standing leg
    "trunk_sway": (0.0, [0.15, 0.0, 0.0, 0.0, 0.0], [0.48, 0.0, 0.0, 0.0, 0.0]),
    "trunk_rotation": (0.0, [-3.5, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]),  # against the pelvis
}
_SIGNALS = tuple(_CURVES)
_MEANS = np.array([mean for mean, _, _ in _CURVES.values()])  # [S]
_COEFFICIENTS = np.array([np.array(cos) - 1j * np.array(sin) for _, cos, sin in _CURVES.values()]).T  # [H, S]
_CURVE_STEP_LENGTH = 0.41  # step / stature that the hip and knee curves make with the segments below

# Segment lengths / stature: Winter, Biomechanics and Motor Control of Human Movement, after Drillis and Contini (1966).
_THIGH, _SHANK, _TRUNK, _UPPER_ARM, _FOREARM = 0.245, 0.246, 0.288, 0.186, 0.146
_HEEL, _BALL, _SOLE = -0.040, 0.078, -0.039  # from the ankle: backwards, forwards to the ball of the foot, down
_HEAD = np.array(  # nose, eyes, ears from the middle of the shoulders: forwards, left, up, / stature
    [[0.075, 0, 0.092], [0.062, 0.018, 0.113], [0.062, -0.018, 0.113], [0.012, 0.043, 0.105], [0.012, -0.043, 0.105]]
)
_SHOULDER_JOINT, _HIP_JOINT = 0.90, 0.62  # distance of the keypoints / breadth of the body there (assumed)
_SIDE = np.array([1.0, -1.0])  # left, right

# Pixel noise of every joint relative to the others (assumed: small joints at the ends of limbs are found worst).
_JOINT_NOISE = np.array([0.7, 0.7, 0.7, 0.8, 0.8, 1.0, 1.0, 1.2, 1.2, 1.7, 1.7, 1.4, 1.4, 1.1, 1.1, 1.5, 1.5])
_FACE, _SHOULDERS_HIPS, _WRISTS_ANKLES = slice(0, 5), [5, 6, 11, 12], [9, 10, 15, 16]


@dataclass(frozen=True)
class _Person:
    measures: dict[str, float]  # of SexParameters
    segments: np.ndarray  # lengths of thigh, shank, trunk, upper arm, forearm in metres  # [5]
    offsets: np.ndarray  # means of the curves, left and right  # [2, S]
    coefficients: np.ndarray  # complex  # [H, S]


def _pooled() -> np.ndarray:
    """Means and standard deviations of the even mixture of `MALE` and `FEMALE`.  # [measures, 2]"""
    male, female = np.array(astuple(MALE)), np.array(astuple(FEMALE))
    variance = (male[:, 1] ** 2 + female[:, 1] ** 2) / 2 + ((male[:, 0] - female[:, 0]) / 2) ** 2
    return np.stack([(male[:, 0] + female[:, 0]) / 2, np.sqrt(variance)], axis=1)


def _draw_person(distribution: np.ndarray, spread: float, rng: np.random.Generator) -> _Person:
    """Measures mean + spread · SD · z, with |z| at most 2, and a style: small changes of every curve's offset, timing and harmonics."""
    score = np.clip(rng.standard_normal(len(distribution)), -2, 2)
    values = distribution[:, 0] + spread * distribution[:, 1] * score
    measures = {field.name: float(value) for field, value in zip(fields(SexParameters), values, strict=True)}
    longer = measures["leg_length"] - 0.453  # longer legs leave less for the trunk
    lengths = np.array([_THIGH + longer / 2, _SHANK + longer / 2, _TRUNK - longer, _UPPER_ARM, _FOREARM]) * measures["stature"]
    scale = np.array([measures.get(name, 1.0) for name in _SIGNALS])  # [S]
    scale[:2] = measures["step_length"] / _CURVE_STEP_LENGTH
    harmonics = np.arange(1, len(_COEFFICIENTS) + 1)[:, None]  # [H, 1]
    style = 1 + 0.04 * (rng.standard_normal(_COEFFICIENTS.shape) + 1j * rng.standard_normal(_COEFFICIENTS.shape))
    late = 0.012 * rng.standard_normal(len(_SIGNALS))  # of a cycle
    habit = np.array([1.0, 1.0, 1.0, 2.0, 3.0, 0.3, 0.4, 0.0, 0.3, 0.4])  # degrees; the pelvic sway has none
    return _Person(
        measures=measures,
        segments=lengths * (1 + 0.01 * rng.standard_normal(5)),
        offsets=_MEANS + habit * (rng.standard_normal(len(_SIGNALS)) + 0.3 * rng.standard_normal((2, len(_SIGNALS)))),
        coefficients=_COEFFICIENTS * scale * style * np.exp(-2j * np.pi * harmonics * late),
    )


def _curves(person: _Person, phase: np.ndarray, strength: np.ndarray) -> dict[str, np.ndarray]:
    """offset + strength · Re Σ_h c_h exp(2πi h phase): every curve of both sides, in radians, but the pelvic sway in metres.  # [T, 2] each

    `phase` counts gait cycles since a left heel contact `[T]`; `strength` is the size of this step's movements, about 1 `[T]`.
    """
    turn = np.exp(2j * np.pi * (phase[:, None] + np.array([0.0, 0.5])))  # [T, 2]
    powers = np.cumprod(np.repeat(turn[..., None], len(person.coefficients), axis=-1), axis=-1)  # [T, 2, H]
    curves = strength[:, None, None] * (powers @ person.coefficients).real + person.offsets  # [T, 2, S]
    return {name: curves[..., i] if name == "pelvic_sway" else np.deg2rad(curves[..., i]) for i, name in enumerate(_SIGNALS)}


def _carry(curves: dict[str, np.ndarray], condition: str, rng: np.random.Generator) -> float:
    """Change the curves to those with a bag (bg) or a coat (cl). Returns how much further forward the trunk leans, in radians."""
    lean, swing, weight, side = rng.normal(0, 0.017), rng.normal(1, 0.1), rng.uniform(0.5, 1.5), rng.integers(2)
    curves["arm_swing"] *= swing * (0.85 if condition == "cl" else 1.0)
    if condition == "bg":  # the bag keeps one arm still, and the trunk leans against its weight
        curves["arm_swing"][:, side] *= 0.35
        curves["elbow"][:, side] += 0.35 * weight
        curves["trunk_sway"][:, 0] -= 0.035 * weight * _SIDE[side]
        lean += 0.035 * weight
    return lean


def _hang(angle: np.ndarray) -> np.ndarray:
    """The direction of a limb that hangs down, raised forwards by `angle` radians.  # [..., 3] forwards, left, up"""
    return np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=-1)


def _legs(person: _Person, curves: dict[str, np.ndarray], placing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hips, knees, ankles `[T, 2, 3]` relative to the walking line at hip height, and how high the lowest point of the feet is `[T]`.

    `placing` is how much further out than usual this step's feet stand, metres.  # [T]
    """
    measures, stature = person.measures, person.measures["stature"]
    thigh, shank = person.segments[:2]
    width = _HIP_JOINT * measures["shoulder_breadth"] / measures["shoulder_hip_ratio"] * stature
    tilt, rotation = curves["pelvic_obliquity"][:, :1], curves["pelvic_rotation"][:, :1]
    hips = 0.5 * width * np.stack([np.sin(rotation) * _SIDE, np.cos(rotation) * _SIDE, np.sin(tilt) * _SIDE], axis=-1)  # [T, 2, 3]
    hips[..., 1] += curves["pelvic_sway"][:, :1]
    shank_angle = curves["hip"] - np.maximum(curves["knee"], 0.0)  # a knee doesn't bend forwards
    knees = hips + thigh * _hang(curves["hip"])
    ankles = knees + shank * _hang(shank_angle)
    outwards = _SIDE * (0.5 * measures["step_width"] + placing[:, None]) - hips[..., 1]  # each foot keeps to its line  # [T, 2]
    knees[..., 1] += outwards * thigh / (thigh + shank)
    ankles[..., 1] += outwards
    foot = shank_angle + curves["ankle"]
    soles = [ankles[..., 2] + stature * (forwards * np.sin(foot) + _SOLE * np.cos(foot)) for forwards in (_HEEL, _BALL)]
    lowest = -0.01 * np.log(np.exp(-np.concatenate(soles, axis=1) / 0.01).sum(axis=1))  # smooth minimum  # [T]
    return hips, knees, ankles, lowest


def _walk_in_space(person: _Person, curves: dict[str, np.ndarray], lean: float, placing: np.ndarray) -> np.ndarray:
    """Joints relative to a point on the ground that moves with the walker: metres forwards, left, up.  # [T, 17, 3]"""
    stature = person.measures["stature"]
    _, _, trunk, upper_arm, forearm = person.segments
    hips, knees, ankles, lowest = _legs(person, curves, placing)
    sway, twist = curves["trunk_sway"][:, :1], curves["trunk_rotation"][:, :1]  # [T, 1]
    upwards = np.stack([np.full_like(sway, np.sin(lean)), np.sin(sway), np.cos(sway) * np.cos(lean)], axis=-1)  # [T, 1, 3]
    neck = hips.mean(axis=1, keepdims=True) + trunk * upwards
    width = _SHOULDER_JOINT * person.measures["shoulder_breadth"] * stature
    sideways = np.stack([np.sin(twist) * _SIDE, np.cos(twist) * _SIDE, -0.5 * np.sin(sway) * _SIDE], axis=-1)  # [T, 2, 3]
    shoulders = neck + 0.5 * width * sideways
    from_body = np.stack([np.zeros(2), 0.1 * upper_arm * _SIDE, np.zeros(2)], axis=-1)  # arms hang clear of the hips  # [2, 3]
    elbows = shoulders + upper_arm * _hang(curves["arm_swing"]) + from_body
    wrists = elbows + forearm * _hang(curves["arm_swing"] + curves["elbow"])
    joints = np.concatenate([neck + stature * _HEAD, shoulders, elbows, wrists, hips, knees, ankles], axis=1)
    joints[..., 2] -= lowest[:, None]
    return joints


@cache
def _path(view: int) -> tuple[float, float]:
    """Where on the walking line (metres from its middle) a walker comes into the picture and leaves it."""
    across, towards = np.sin(np.deg2rad(view)), np.cos(np.deg2rad(view))
    margin = 0.78 * WIDTH / 2

    def reach(towards: float) -> float:
        nearest = 2.0 if towards > 0.05 else 3.0  # closer than 4 m the feet leave the picture
        slope = FOCAL_LENGTH * across + margin * towards
        return min(nearest, margin * CAMERA_DISTANCE / slope) if slope > 0 else nearest

    return -reach(-towards), reach(towards)


def _project(points: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole camera at `view` degrees from the walking direction: u = f x / z.

    Points in metres forwards, left, up from the middle of the walking line `[T, J, 3]` become pixels right and down `[T, J, 2]` and
    metres from the camera along its axis `[T, J]`.
    """
    angle = np.deg2rad(view)
    camera = np.array([CAMERA_DISTANCE * np.cos(angle), CAMERA_DISTANCE * np.sin(angle), CAMERA_HEIGHT])
    axis = np.array([0.0, 0.0, LOOKED_AT_HEIGHT]) - camera
    axis /= np.linalg.norm(axis)
    right = np.array([axis[1], -axis[0], 0.0]) / np.hypot(axis[0], axis[1])
    seen = (points - camera) @ np.stack([right, np.cross(axis, right), axis], axis=1)  # [T, J, 3] right, down, away
    return FOCAL_LENGTH * seen[..., :2] / seen[..., 2:] + np.array([WIDTH / 2, HEIGHT / 2]), seen[..., 2]


def _estimate(
    pixels: np.ndarray, depth: np.ndarray, height: np.ndarray, view: int, condition: str, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What a pose estimator makes of the true joints: positions `[T, J, 2]`, and confidences in 0..1 `[T, J]`, 0 where nothing was found.

    From true `pixels` `[T, J, 2]`, their `depth` in metres `[T, J]` and the `height` of the body in pixels `[T]`.
    """
    frames, joints = depth.shape
    behind = depth - depth.mean(axis=1, keepdims=True)
    hidden = 1 / (1 + np.exp(-(behind - 0.10) / 0.03))  # the body hides its far side  # [T, J]
    hidden[:, _FACE] = np.maximum(hidden[:, _FACE], 1 / (1 + np.exp(-(view - 125) / 8)))  # seen from behind there is no face
    size = noise * _JOINT_NOISE * (1 + 1.2 * hidden) * height[:, None]  # [T, J]
    estimate = pixels.copy()
    if condition == "cl":  # a coat hides where shoulders and hips are, the same way for the whole walk
        size *= 1.4
        size[:, _SHOULDERS_HIPS] *= 1.4
        estimate[:, _SHOULDERS_HIPS] += 0.012 * rng.standard_normal((4, 2)) * height[:, None, None]
    for limb, rate in (([5, 7, 9], 0.006), ([11, 13, 15], 0.012)):  # left arms and legs that are taken for right ones
        both = np.array([limb, [joint + 1 for joint in limb]])
        swapped = np.flatnonzero(bursts(rng, frames, 1, rate, 3))[:, None, None]
        estimate[swapped, both] = estimate[swapped, both[::-1]]
    estimate += 0.007 * size[..., None] * rng.standard_normal(pixels.shape)
    estimate += 0.008 * size[..., None] * smooth_noise(rng, frames, (joints, 2), every=12)  # slow drift
    outlier = rng.random((frames, joints)) < 0.003
    estimate += (0.12 * height[:, None] * outlier)[..., None] * rng.standard_normal(pixels.shape)

    confidence = 0.93 - 0.04 * _JOINT_NOISE - 0.25 * hidden - 0.3 * outlier
    confidence = confidence + 0.05 * smooth_noise(rng, frames, (joints,), every=6) + 0.02 * rng.standard_normal((frames, joints))
    lost = rng.random((frames, joints)) < 0.004 * (1 + 2 * hidden)
    lost[:, _WRISTS_ANKLES] |= bursts(rng, frames, 4, 0.04, 5)
    confidence = np.where(lost, 0.0, np.clip(confidence, 0.0, 1.0))
    return estimate, np.where(confidence < MISSING_BELOW, 0.0, confidence)


@dataclass(frozen=True)
class _Pace:
    first_phase: float  # gait cycles since a left heel contact
    longer: float  # this walk's steps, relative to the person's others
    aside: float  # of the walking line, metres
    step: float  # metres
    steps_per_frame: float
    frames: int


class SyntheticPoses(Sequence[np.ndarray]):
    """Walks that are made when they are asked for; `poses[i]` doesn't depend on what was asked for before.

    Args:
        walks: (person, sequence, view) of every walk, numbers from 0.
        male: for every person.  # [people]
        people: their bodies and gaits.
        seed, planted, frames, noise, planted_kind: as in `synthetic_walks`.

    Attributes:
        planted: the joints that carry the class signal, or None where the whole body does.
    """

    def __init__(
        self,
        walks: list[tuple[int, int, int]],
        male: np.ndarray,
        people: list[_Person],
        seed: int = 0,
        planted: tuple[str, ...] | None = None,
        frames: int | None = None,
        noise: float = 1.0,
        planted_kind: str = "position",
    ) -> None:
        self.planted = planted
        self._planting = plant.named_planting(planted_kind, planted or ())
        self._walks, self._male, self._people = walks, male, people
        self._seed, self._frames, self._noise = seed, frames, noise

    def __len__(self) -> int:
        return len(self._walks)

    @overload
    def __getitem__(self, i: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, i: slice) -> list[np.ndarray]: ...
    def __getitem__(self, i: int | slice) -> np.ndarray | list[np.ndarray]:
        """Joint positions in pixels, float32, NaN where a joint was not seen.  # [T, 17, 2]"""
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self._make(i)[0]

    def confidences(self, i: int) -> np.ndarray:
        """Confidence of the pose estimator in 0..1, float32; 0 where a joint was not seen.  # [T, 17]"""
        return self._make(i)[1]

    def twin(self, i: int, turned: Sequence[str]) -> np.ndarray:
        """Walk i, with the class signal of the joints `turned` as in the other class.  # [T, 17, 2]"""
        return self._make(i, turned)[0]

    def episode(self, i: int) -> tuple[int, int]:
        """First frame, and the one after the last, of the episode that walk i has if it has one."""
        number, sequence, view = self._walks[i]
        rng = stream(self._seed, 7, number, sequence * len(VIEWS) + view)
        return plant.draw_episode(self._pace(i)[0].frames, rng)

    def _pace(self, i: int) -> tuple[_Pace, np.random.Generator]:
        """How walk i goes, and the stream of what all cameras see alike."""
        number, sequence, view = self._walks[i]
        measures = self._people[number].measures
        shared = stream(self._seed, 2, number, sequence)
        first_phase, faster, longer, aside = shared.uniform(), *(shared.standard_normal(3) * [0.025, 0.02, 0.08] + [1, 1, 0])
        step = longer * measures["step_length"] * measures["stature"]
        steps_per_frame = faster * measures["cadence"] / 60 / FRAMES_PER_SECOND
        begin, end = _path(VIEWS[view])
        frames = self._frames or int((end - begin) / step / steps_per_frame)
        return _Pace(first_phase, longer, aside, step, steps_per_frame, frames), shared

    def _make(self, i: int, turned: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """What `__getitem__` or `twin` and `confidences` say."""
        number, sequence, view = self._walks[i]
        person, condition = self._people[number], SEQUENCES[sequence][0]
        pace, shared = self._pace(i)
        frames, rng = pace.frames, stream(self._seed, 3, number, sequence)
        steps, strength, placing = _steps(frames, pace.steps_per_frame, rng)
        phase = pace.first_phase + steps / 2

        def walker(later: float) -> np.ndarray:
            curves = _curves(person, phase + later, pace.longer * strength)
            further = _carry(curves, condition, deepcopy(shared))
            lean = np.deg2rad(person.measures["trunk_lean"]) + further
            return _walk_in_space(person, curves, lean, placing)

        camera = stream(self._seed, 4, number, sequence * len(VIEWS) + view)
        forwards = _path(VIEWS[view])[0] + pace.step * steps
        if self._frames is not None:  # on a treadmill
            forwards = 0.03 * smooth_noise(camera, frames, (), every=50)
        place = np.stack([forwards, np.full(frames, pace.aside), np.zeros(frames)], axis=-1)
        joints = walker(0.0) + place[:, None]
        pixels, depth = _project(joints, VIEWS[view])
        height = FOCAL_LENGTH * person.measures["stature"] / depth.mean(axis=1)  # [T]
        poses, confidence = _estimate(pixels, depth, height, VIEWS[view], condition, self._noise, camera)
        if self.planted:
            planting = self._planting
            person_rng = stream(self._seed, 5, number)
            size = plant.strengths(planting, bool(self._male[number]), turned, person_rng)
            if planting.kind == "timing":
                moved, _ = _project(joints + plant.delays(planting, size, walker), VIEWS[view])
                poses += moved - pixels
            else:
                rng = stream(self._seed, 6, number, sequence)
                poses[..., 1] += plant.shifts(planting, size, height, phase, self.episode(i), rng)
        poses[confidence == 0] = np.nan
        return poses.astype(np.float32), confidence.astype(np.float32)


def _steps(frames: int, steps_per_frame: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that differ a little: steps made so far, size of the movements (about 1), and metres the feet stand further out.  # [T] each"""
    per_step = rng.standard_normal((int(1.2 * frames * steps_per_frame) + 4, 3)) * [0.02, 0.04, 0.008]  # [steps, 3]
    ends = np.concatenate([[0.0], np.cumsum(1 + per_step[:, 0])])
    steps = np.interp(np.arange(frames) * steps_per_frame, ends, np.arange(len(ends)))
    numbers = np.arange(len(per_step))
    return steps, np.interp(steps, numbers, 1 + per_step[:, 1]), np.interp(steps, numbers, per_step[:, 2])


def _check(name: str, value: float, low: int, high: float = np.inf) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; expected {low} " + ("or more" if high == np.inf else f"to {high}"))


def _chosen_walks(person: int, count: int) -> list[int]:
    """`count` of a person's 110 walks. Steps of 69 visit all of them before one returns, and spread any number over sequences and views."""
    return sorted((37 * person + 69 * k) % WALKS_PER_PERSON for k in range(count))


def synthetic_walks(
    people: int = PEOPLE,
    walks_per_person: int | None = None,
    seed: int = 0,
    planted: Sequence[str] | None = None,
    frames: int | None = None,
    noise: float = 1.0,
    spread: float = 0.4,
    planted_kind: str = "position",
) -> WalkSet:
    """Walks of synthetic people in the manner of CASIA-B: 124 people, 11 views, 6 normal walks, 2 with a bag and 2 in a coat each.

    Every walk is drawn from (seed, person, sequence, view) and the person's sex alone, when it is asked for. The views of a sequence show
    the same steps. Sexes are dealt out anew for every number of people.

    Args:
        people: how many people; 92 of 124 are men, and smaller sets keep that proportion.
        walks_per_person: how many of a person's 110 walks, spread over conditions and views; all of them if None.
        seed: another seed gives other people; not negative.
        planted: joints, by name, that alone tell the sexes apart. Body and gait are then drawn from
            one distribution for all; with an empty list nothing tells them apart. No hips, whose
            signal all others would carry, since poses are centred there.
        frames: None for walks across the scene, about 50 to 130 frames at 25 per second; a number for that many frames on a treadmill.
        noise: size of the pose estimator's errors; 1 is about one pixel for most joints, twice that for hidden ones, wrists and ankles.
        spread: standard deviation between people of one sex, as a share of that in `MALE` and `FEMALE`. A smaller one sets the sexes
            further apart: a logistic regression on joint means and deviations, all views together, reaches a macro F1 of about 0.78 at
            1, 0.81 at 0.8 and 0.87 at 0.5. The default was chosen so that a small graph network, which sees less, has something to find.
        planted_kind: how the planted joints tell: "position", they are shifted by a few pixels once
            per step, upwards in men, downwards in women; "timing", they move late in women;
            "relation", pairs of them (first with second, third with fourth) are shifted once per
            step, both the same way in women and opposite ways in men; "episode", they are shifted
            in 12 to 20 frames of a walk only.

    Returns:
        A WalkSet of layout `coco17` with poses `[T, 17, 2]` in pixels of a 320 x 240 image, NaN where a joint was not seen, the
        attributes `label` (male, female), `condition` (nm, bg, cl) and `view` (000 to 180), and as `poses` a `SyntheticPoses`, which
        has `confidences(i)` and `planted` besides. `planted` is what was, see `fastst.data.planted`.

    Raises:
        ValueError: people not in 2..124, walks_per_person not in 1..110, frames below 1, seed, noise
            or spread below 0, or what `named_planting` refuses to plant.
    """
    count = WALKS_PER_PERSON if walks_per_person is None else walks_per_person
    _check("people", people, 2, PEOPLE)
    _check("walks_per_person", count, 1, WALKS_PER_PERSON)
    _check("frames", 1 if frames is None else frames, 1)
    for name, value in (("seed", seed), ("noise", noise), ("spread", spread)):
        _check(name, value, 0)
    planting = plant.named_planting(planted_kind, planted or (), frames)

    males = min(max(round(people * MALES / PEOPLE), 1), people - 1)
    male = stream(seed, 0, people).permutation(people) < males  # [people]
    sexes = [np.array(astuple(FEMALE)), np.array(astuple(MALE))] if planted is None else [_pooled()] * 2
    bodies = [_draw_person(sexes[int(is_male)], spread, stream(seed, 1, person)) for person, is_male in enumerate(male)]
    walks = [(person, *divmod(walk, len(VIEWS))) for person in range(people) for walk in _chosen_walks(person, count)]
    names = [f"{p + 1:03d}-{SEQUENCES[s][0]}-{SEQUENCES[s][1]:02d}-{VIEWS[v]:03d}" for p, s, v in walks]
    named = None if planted is None else tuple(planted)
    poses = SyntheticPoses(walks, male, bodies, seed, named, frames, noise, planted_kind)
    if planting.kind == "episode":
        planting = replace(planting, episodes={name: poses.episode(i) for i, name in enumerate(names)})
    return WalkSet(
        layout=LAYOUTS["coco17"],
        names=names,
        subjects=[f"{p + 1:03d}" for p, _, _ in walks],
        poses=poses,
        attributes={
            "label": ["male" if male[p] else "female" for p, _, _ in walks],
            "condition": [SEQUENCES[s][0] for _, s, _ in walks],
            "view": [f"{VIEWS[v]:03d}" for _, _, v in walks],
        },
        planted=None if planted is None else planting,
    )
