"""Made-up videos of two people who cross, of whom one is hidden for a while, and whether a tracker kept them apart."""

from dataclasses import dataclass

import numpy as np

from fastst.data.recording import Detections
from fastst.data.synthetic import FRAMES_PER_SECOND, HEIGHT, WIDTH, synthetic_walks
from fastst.data.walks import WalkSet
from fastst.layouts import LAYOUTS

LAYOUT = LAYOUTS["coco17"]
IDS = ("right", "swapped", "none")
FALSE = -1  # whose a false detection is
LOSSES = 0.06  # share of the detections that are not there
FALSE_RATE, DUPLICATE_RATE = 0.08, 0.03  # false and double detections, of frames and of detections


@dataclass(frozen=True)
class Scene:
    """Two people, 0 and 1.

    Args:
        detections: in any order.
        person: who each is.  # [n]
        meeting: the first frame in which they are near each other or one is hidden, and the one after the last.
    """

    detections: Detections
    person: np.ndarray
    meeting: tuple[int, int]


def crossing(number: int, ids: str, fps: float = 25.0, seed: int = 0) -> Scene:
    """Two walkers in opposite directions, up to 36 degrees askew and at different distances from the camera, who pass each other in the middle.

    One is hidden for 5 to 25 frames about then. Detections are lost, false and double at random, and jitter by 0 to 2 pixels beside what
    `synthetic_walks` adds. `ids` are right, exchanged for good when they meet, or none; a false detection has an id of its own.
    """
    rng = np.random.default_rng([seed, number, IDS.index(ids)])
    people = _two_walks(rng, fps)
    near = _near(*people)
    meeting = _hide(people, near, rng)
    frames, joints, person = [], [], []
    jitter = rng.uniform(0, 2)
    for who, poses in enumerate(people):
        seen = np.flatnonzero(np.isfinite(poses).any((1, 2)) & (rng.random(len(poses)) > LOSSES))
        again = seen[rng.random(len(seen)) < DUPLICATE_RATE]
        noise = rng.normal(0, jitter, (len(seen), 17, 2))
        twice = poses[again] + noise[np.isin(seen, again)] + rng.normal(0, 0.7, (len(again), 17, 2))
        frames += [seen, again]
        joints += [poses[seen] + noise, twice]
        person += [np.full(len(seen) + len(again), who)]
    made_up = np.flatnonzero(rng.random(len(people[0])) < FALSE_RATE)
    frames.append(made_up)
    joints.append(_false(people, len(made_up), rng))
    person.append(np.full(len(made_up), FALSE))
    truth, all_frames = np.concatenate(person), np.concatenate(frames)
    scores = np.where(truth == FALSE, rng.uniform(0.5, 2.5, len(truth)), rng.uniform(2, 3, len(truth)))
    known = None if ids == "none" else _ids(truth, all_frames, meeting if ids == "swapped" else None)
    detections = Detections(all_frames, np.concatenate(joints).astype(np.float32), scores=scores, ids=known)
    order = rng.permutation(len(truth))
    return Scene(detections.take(order), truth[order], meeting)


def leaving(number: int, seed: int = 0) -> Scene:
    """Somebody walks through the picture, and up to 20 frames later somebody else; a third person stands there all the time."""
    rng = np.random.default_rng([seed, number])
    walkers = [_two_walks(rng, (25.0, 12.5)[number % 2])[int(rng.integers(2))] for _ in range(2)]
    first, second = (poses[np.isfinite(poses).any((1, 2))] for poses in walkers)
    later = len(first) + int(rng.integers(1, 21))
    standing = first[len(first) // 2] * 0.7 + [rng.uniform(-100, 200), 60] + rng.normal(0, 1, (later + len(second), 17, 2))
    frames = np.concatenate([np.arange(len(first)), later + np.arange(len(second)), np.arange(len(standing))])
    person = np.repeat([0, 1, 2], [len(first), len(second), len(standing)])
    detections = Detections(frames, np.concatenate([first, second, standing]).astype(np.float32), scores=np.ones(len(frames)))
    is_there = rng.random(len(frames)) > LOSSES
    return Scene(detections.take(is_there), person[is_there], (0, 0))


def is_kept(scene: Scene, track: np.ndarray) -> bool:
    """Each of the two has one track before and after they meet, with at least 95 % of the detections and none of the other person's."""
    first, last = scene.meeting
    outside = (scene.detections.frames < first) | (scene.detections.frames >= last)
    own = [np.bincount(track[outside & (scene.person == who)] + 1) for who in (0, 1)]
    tracks = [int(counts[1:].argmax()) for counts in own]
    if tracks[0] == tracks[1]:
        return False
    for who, counts in enumerate(own):
        foreign = np.count_nonzero(outside & (scene.person == 1 - who) & (track == tracks[who]))
        if foreign or counts[tracks[who] + 1] < 0.95 * counts.sum():
            return False
        sides = [side & (scene.person == who) for side in (scene.detections.frames < first, scene.detections.frames >= last)]
        if any(side.any() and not (track[side] == tracks[who]).any() for side in sides):
            return False
    return True


def lone_walks(count: int, fps: float, seed: int = 0) -> list[np.ndarray]:
    """The poses of single people.  # [T, 17, 2] each"""
    walks = synthetic_walks(people=max(count // 4, 2), walks_per_person=5, seed=seed)
    return [_at_rate(walks.poses[i], FRAMES_PER_SECOND / fps) for i in range(count)]


def _two_walks(rng: np.random.Generator, fps: float) -> list[np.ndarray]:
    """Poses in the same frames, NaN where somebody is not in the picture.  # [T, 17, 2] twice"""
    walks = synthetic_walks(people=12, seed=int(rng.integers(1 << 30)))
    people = rng.choice(12, 2, replace=False)
    view = int(rng.integers(11))
    other = int(np.clip(10 - view + rng.integers(-2, 3), 0, 10))
    nearer = rng.uniform(0.8, 1.25)
    poses = []
    for person, seen_from in zip(people, (view, other), strict=True):
        sequence = int(rng.integers(10))
        faster = rng.uniform(0.75, 1.3)
        poses.append(_at_rate(_pose(walks, int(person), sequence, seen_from), faster * FRAMES_PER_SECOND / fps))
    aside = rng.uniform(-25, 25) * abs(np.cos(np.deg2rad(18 * view)))  # nobody walks through somebody else
    poses[1] = poses[1][:, LAYOUT.mirror_order()] * [-1, 1] + [WIDTH, 0]
    poses[1] = (poses[1] - [WIDTH / 2, HEIGHT / 2]) * nearer + [WIDTH / 2 + aside, HEIGHT / 2]
    length = max(map(len, poses))
    late = rng.integers(-3, 4)
    result = []
    for pose, shift in zip(poses, (0, late), strict=True):
        start = np.clip((length - len(pose)) // 2 + shift, 0, length - len(pose))
        result.append(np.full((length, 17, 2), np.nan))
        result[-1][start : start + len(pose)] = pose
    return result


def _pose(walks: WalkSet, person: int, sequence: int, view: int) -> np.ndarray:
    return walks.poses[110 * person + 11 * sequence + view]


def _at_rate(pose: np.ndarray, step: float) -> np.ndarray:
    """Poses at every `step` frames, between frames where that is no whole number.  # [T, 17, 2]"""
    at = np.arange(0, len(pose) - 1, step)
    before = at.astype(int)
    share = (at - before)[:, None, None]
    between = pose[before] * (1 - share) + pose[before + 1] * share
    return np.where(share > 0, between, pose[before])


def _near(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where the joints of two people lie less than a quarter of a body apart.  # [T] bool"""
    height = np.nanmedian(np.nanmax(first[..., 1], 1, initial=-np.inf) - np.nanmin(first[..., 1], 1, initial=np.inf))
    distance = np.linalg.norm(first - second, axis=2)
    distance[np.isnan(distance)] = np.inf
    return np.median(distance, axis=1) < 0.25 * height


def _hide(people: list[np.ndarray], near: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """One of the two is not seen for a while about where they are near each other; at least 8 frames stay on both sides."""
    both = np.flatnonzero(np.isfinite(people[0]).any((1, 2)) & np.isfinite(people[1]).any((1, 2)))
    distance = np.nanmean(np.linalg.norm(people[0][both] - people[1][both], axis=2), axis=1)
    middle = int(both[distance.argmin()])
    who = int(rng.integers(2))
    seen = np.flatnonzero(np.isfinite(people[who]).any((1, 2)))
    first, last = seen[0] + 8, seen[-1] - 7
    length = min(int(rng.integers(5, 26)), last - first)
    start = int(np.clip(middle - length // 2 + rng.integers(-2, 3), first, last - length))
    people[who][start : start + length] = np.nan
    around = np.flatnonzero(near)
    return min(start, *around) if len(around) else start, max(start + length, *(around + 1)) if len(around) else start + length


def _false(people: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Poses of other frames in other places and of other sizes.  # [n, 17, 2]"""
    seen = np.concatenate(people)
    seen = seen[np.isfinite(seen).all((1, 2))]
    poses = seen[rng.integers(len(seen), size=count)]
    middle = poses.mean(axis=1, keepdims=True)
    size = rng.uniform(0.3, 1.2, (count, 1, 1))
    return (poses - middle) * size + rng.uniform([0, 40], [WIDTH, HEIGHT - 40], (count, 1, 2))


def _ids(person: np.ndarray, frames: np.ndarray, swapped: tuple[int, int] | None) -> np.ndarray:
    ids = np.where(person == FALSE, 100 + np.arange(len(person)), person + 1)
    if swapped is not None:
        ids = np.where((person != FALSE) & (frames >= sum(swapped) / 2), 2 - person, ids)
    return ids
