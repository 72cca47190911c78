"""Who is who where several people are seen: detections become tracks by their motion, the distances of joints and what ids say.

First every detection is linked to one of the frames just before where that is clear, all frames at once. The pieces that come of it are joined in the
order in which they begin: those that begin in a frame, and the tracks that end before it, are matched where the sum of their costs is lowest.
Numbers below were chosen on made-up videos of `tests/scenes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastst.data.assign import assign
from fastst.data.recording import Detections

# Distances are means over the joints seen in both, as a share of the body's size: the longest side of the box around its joints.
_DOUBLE = 0.05  # two detections of a frame that are nearer to each other are of one person,
_MEETING = 0.5  # unless two are as near as this before and after

# A link over up to so many frames is clear if the distance is below the second, anybody else is so many times as far away, and the motion
# changes by less than the last from one frame to the next.
_CLEAR_FRAMES, _CLEAR_STEP, _CLEAR_MARGIN, _CLEAR_TURN = 3, 0.25, 2.0, 0.06

# A piece of one detection joins a track at a cost below the first; pieces of `_SURE_LENGTH` detections join tracks of as many below the second.
_MAX_COST, _MAX_COST_OF_SURE, _SURE_LENGTH = 0.3, 0.75, 5

# The cost of joining: the distance between where both are expected, less after a long absence; differences of velocity, over so many frames, and
# of the logarithm of the size; every frame of absence, so that those who were just seen come before those long gone; another id.
_ABSENCE_FADES, _VELOCITY_FRAMES, _SIZE_COST, _ABSENCE_COST, _ID_COST = 0.02, 8.0, 0.5, 0.005, 0.1

_WINDOW = 12  # detections that tell the motion
_RECENT = 2.0  # frames after which a detection counts 1/e in the expected pose
_AWAITED = 4  # for every detection of it a track is awaited so many frames
_AHEAD = 3  # frames in which somebody else may begin who fits a track better
_INFORMATIVE = 0.8  # share of the clear links along which ids stay, and of the people seen together whom they tell apart
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class _Motion:
    """How n bodies stand and move at one end of what is known of them.

    Args:
        pose: joints, NaN where not seen.  # [n, J, D]
        velocity: a frame.  # [n, D]
        growth: of the size, a frame.  # [n]
        weight: how much is known of the motion: 0 for one detection, 1 for a whole window.  # [n]
    """

    pose: np.ndarray
    velocity: np.ndarray
    growth: np.ndarray
    weight: np.ndarray

    def take(self, rows: np.ndarray) -> _Motion:
        return _Motion(self.pose[rows], self.velocity[rows], self.growth[rows], self.weight[rows])

    def expected(self, frames: np.ndarray) -> np.ndarray:
        """pose + frames · (velocity + growth · (pose − its middle)), for every body in m frames [n, m].  # [n, m, J, D]"""
        change = self.velocity[:, None] + self.growth[:, None, None] * _from_middle(self.pose)
        return self.pose[:, None] + frames[:, :, None, None] * change[:, None]


def stand_for_doubles(detections: Detections) -> np.ndarray:
    """For every detection the row that is used: its own, or where several of a frame are of one person, that of the best score.  # [n]

    `detections` are in the order of the frames and have scores.
    """
    frames, scores = detections.frames, detections.scores
    assert scores is not None
    points = _points(detections)
    sizes = _sizes(points)
    first, second = _pairs(frames, frames)
    near = first < second
    first, second = first[near], second[near]
    near = _distances(points, sizes, first, second) < _DOUBLE
    first, second = first[near], second[near]
    are_two = _are_two_who_meet(frames, points, sizes, first)
    first, second = first[~are_two], second[~are_two]
    is_better = scores[first] >= scores[second]
    better, worse = np.where(is_better, first, second), np.where(is_better, second, first)
    used = np.arange(len(detections))
    order = np.argsort(scores[better], kind="stable")
    used[worse[order]] = better[order]
    return _roots(used)


def _are_two_who_meet(frames: np.ndarray, points: np.ndarray, sizes: np.ndarray, doubles: np.ndarray) -> np.ndarray:
    """Whether at least as many are near each of the rows `doubles` in the last frame without doubles, and in the next one, as in its own.  # [d]"""

    def count_near(targets: np.ndarray) -> np.ndarray:
        first, second = _pairs(targets, frames)
        near = _distances(points, sizes, doubles[first], second) < _MEETING
        return np.bincount(first[near], minlength=len(doubles))

    clean = np.setdiff1d(frames, frames[doubles])
    place = np.searchsorted(clean, frames[doubles])
    nobody = frames[0] - 1
    before = np.append(clean, nobody)[place - 1]
    after = np.append(clean, nobody)[place]
    return count_near(frames[doubles]) <= np.minimum(count_near(before), count_near(after))


def people_of(detections: Detections, max_missing: int) -> np.ndarray:
    """A number from 0 for the person of every detection; who is not seen for more than `max_missing` frames is somebody new.  # [n]

    `detections` are in the order of the frames; each has a joint that is seen.
    """
    frames, points = detections.frames, _points(detections)
    sizes = _sizes(points)
    before = _clear_links(frames, points, sizes)
    ids = _informative_ids(detections, before)
    before[(before >= 0) & _differ(ids, ids[before])] = -1
    return _join_pieces(frames, points, sizes, ids, before, max_missing)


def sides_of(points: np.ndarray) -> np.ndarray:
    """Of the box around the points [n, J, D] that are seen; every body has one.  # [n, D]"""
    points = np.ascontiguousarray(points.swapaxes(0, 1))  # much faster to reduce
    return np.fmax.reduce(points, axis=0) - np.fmin.reduce(points, axis=0)


def _points(detections: Detections) -> np.ndarray:
    """Joints and, where the file has boxes, their corners, which say something of a body of which few joints are seen.  # [n, J or J + 2, D]"""
    if detections.boxes is None or detections.joints.shape[2] != 2:
        return detections.joints
    corners = detections.boxes.reshape(-1, 2, 2).astype(detections.joints.dtype)
    return np.concatenate([detections.joints, corners], axis=1)


def _sizes(points: np.ndarray) -> np.ndarray:
    """The longest side of the box around each body; within a fifth and five times of what is usual, for few joints and wild ones.  # [n]"""
    sizes = sides_of(points).max(axis=1)
    usual = max(np.median(sizes), np.finfo(np.float32).tiny)
    return np.clip(sizes, usual / 5, 5 * usual)


def _from_middle(pose: np.ndarray) -> np.ndarray:
    """# [..., J, D]"""
    seen = np.isfinite(pose)
    middle = np.where(seen, pose, 0).sum(-2, keepdims=True) / np.maximum(seen.sum(-2, keepdims=True), 1)
    return pose - middle


def _distance(first: np.ndarray, second: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Mean over the joints seen in both of distance / size, at most 1 each; infinite without any.  # [..., J, D] twice and [...] to [...]"""
    difference = first - second
    apart = np.minimum(np.sqrt(np.einsum("...d,...d->...", difference, difference)) / size[..., None], 1)
    in_both = np.isfinite(apart)
    count = in_both.sum(axis=-1)
    return np.where(count > 0, np.where(in_both, apart, 0).sum(axis=-1) / np.maximum(count, 1), np.inf)


def _distances(points: np.ndarray, sizes: np.ndarray, first: np.ndarray, second: np.ndarray, moved: np.ndarray | None = None) -> np.ndarray:
    """Of the bodies of the rows `first`, `moved` [p, D], from those of the rows `second`.  # [p]"""
    distances = np.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        a, b = first[some], second[some]
        body = points[a] if moved is None else points[a] + moved[some, None]
        distances[some] = _distance(body, points[b], np.minimum(sizes[a], sizes[b]))
    return distances


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """The median, the lower one of two, of what is not NaN along an axis; NaN where nothing is. Much faster than numpy's."""
    ordered = np.sort(values, axis=axis)  # NaN come last
    count = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    return np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=axis).squeeze(axis)


def _roots(parents: np.ndarray) -> np.ndarray:
    """The row without a parent but itself that each row comes from.  # [n]"""
    while not np.array_equal(further := parents[parents], parents):
        parents = further
    return parents


def _pairs(targets: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a row of `targets` [m] and a row of `frames` that is of that frame.  # [p] twice"""
    start, end = np.searchsorted(frames, targets), np.searchsorted(frames, targets, side="right")
    count = end - start
    first = np.repeat(np.arange(len(targets)), count)
    return first, np.arange(len(first)) - np.repeat(np.cumsum(count) - count - start, count)


def _clear_links(frames: np.ndarray, points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The row one to three frames before that is clearly the same person, or -1.  # [n]"""
    count = len(frames)
    before, after = np.full((2, count), -1)
    is_open, is_open_before = np.ones((2, count), dtype=bool)
    for later in range(1, _CLEAR_FRAMES + 1):
        first, second = _pairs(frames + later, frames)
        wanted = is_open[first] | is_open_before[second]
        first, second = first[wanted], second[wanted]
        distance = _distances(points, sizes, first, second)
        clear = _is_clear(distance, first, second, count) & is_open[first] & is_open_before[second]
        before[second[clear]], after[first[clear]] = first[clear], second[clear]
        near = distance < _CLEAR_STEP  # linked, or not clear who it is
        is_open[first[near]] = is_open_before[second[near]] = False
    # Two who meet may step onto each other's places, so a link must be clear also where both go on as they came.
    came, goes = _velocities(frames, points, before), _velocities(frames, points, after)
    came, goes = (np.where(np.isfinite(one), one, np.nan_to_num(other)) for one, other in ((came, goes), (goes, came)))
    is_clear = (before >= 0) & ~_turns(frames, points, sizes, before)
    for later in range(1, _CLEAR_FRAMES + 1):
        first, second = _pairs(frames + later, frames)
        has_rival = (np.bincount(first, minlength=count)[first] > 1) | (np.bincount(second, minlength=count)[second] > 1)
        is_of_link = (frames[after[first]] - frames[first] == later) | (frames[second] - frames[before[second]] == later)
        first, second = first[has_rival & is_of_link], second[has_rival & is_of_link]
        forwards = _distances(points, sizes, first, second, later * came[first])
        backwards = _distances(points, sizes, second, first, -later * goes[second])
        unclear = ~_is_clear((forwards + backwards) / 2, first, second, count) & (before[second] == first)
        is_clear[second[unclear]] = False
    return np.where(is_clear, before, -1)


def _turns(frames: np.ndarray, points: np.ndarray, sizes: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Whether each row moved from the one before in another way than that did, so much as nobody does.  # [n]"""
    linked = np.flatnonzero(before >= 0)
    step = np.full((len(frames), points.shape[2]), np.nan)
    apart = frames[linked] - frames[before[linked]]
    step[linked] = _median(points[linked] - points[before[linked]], axis=1) / apart[:, None]
    is_second = (before >= 0) & (before[before] >= 0)
    return is_second & (np.linalg.norm(step - step[before], axis=1) > _CLEAR_TURN * sizes)


def _is_clear(distance: np.ndarray, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Which of the pairs of rows are near, with all others of either row much further apart.  # [p]"""
    clear = distance < _CLEAR_STEP
    for rows in (first, second):
        nearest, next_nearest = _two_least(rows, distance, count)
        clear &= (distance == nearest[rows]) & (_CLEAR_MARGIN * distance < next_nearest[rows])
    return clear


def _velocities(frames: np.ndarray, points: np.ndarray, link: np.ndarray) -> np.ndarray:
    """A frame, from each row to the one some links on; NaN where there is no link.  # [n, D]"""
    other = np.arange(len(frames))
    for _ in range(_CLEAR_FRAMES):
        other = np.where(link[other] >= 0, link[other], other)
    apart = np.where(other == np.arange(len(frames)), np.nan, frames - frames[other])
    return _median(points - points[other], axis=1) / apart[:, None]


def _two_least(rows: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` rows the least and the second least of its values; infinite where there is none.  # [count] twice"""
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among the values of a row
    least, second = np.full((2, count), np.inf)
    least[rows[place == 0]], second[rows[place == 1]] = values[place == 0], values[place == 1]
    return least, second


def _informative_ids(detections: Detections, before: np.ndarray) -> np.ndarray:
    """The file's ids, or -1 for all where they don't stay with a person whom it is clear how to follow, or don't tell those apart seen together."""
    frames, ids = detections.frames, detections.ids
    if ids is None:
        return np.full(len(frames), -1)
    rows = np.flatnonzero((before >= 0) & (ids >= 0))
    stay = ~_differ(ids[rows], ids[before[rows]])
    tells = _differ(ids[1:], ids[:-1])[frames[1:] == frames[:-1]]
    informative = len(rows) and len(tells) and min(stay.mean(), tells.mean()) > _INFORMATIVE
    return ids if informative else np.full_like(ids, -1)


def _differ(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (ids != others) & (ids >= 0) & (others >= 0)


def _join_pieces(frames: np.ndarray, points: np.ndarray, sizes: np.ndarray, ids: np.ndarray, before: np.ndarray, max_missing: int) -> np.ndarray:
    """The number of the track of every detection: pieces, whose rows are linked by `before`, are joined in the order in which they begin.  # [n]"""
    piece = _roots(np.where(before < 0, np.arange(len(frames)), before))
    by_piece = np.argsort(piece, kind="stable")
    rows = np.split(by_piece, np.flatnonzero(np.diff(piece[by_piece])) + 1)  # of every piece; in the order of their first rows
    first, last = np.array([[of[0], of[-1]] for of in rows]).T
    begin, end = frames[first], frames[last]
    length = np.array([len(of) for of in rows])
    at_begin = _motion(*_window(frames, points, [of[:_WINDOW] for of in rows], first))

    def cost(tracks: list[np.ndarray], pieces: np.ndarray) -> np.ndarray:
        """Of joining pieces to tracks; below 0 where they may be joined.  # [tracks, pieces]"""
        latest = np.array([track[-1] for track in tracks])
        at_end = _motion(*_window(frames, points, tracks, latest))
        size = np.sqrt(sizes[latest][:, None] * sizes[first[pieces]])
        total = _cost(at_end, at_begin.take(pieces), begin[pieces] - frames[latest][:, None], size)
        total += _ID_COST * _differ(ids[latest][:, None], ids[first[pieces]])
        sure = np.minimum(np.minimum.outer([len(track) for track in tracks], length[pieces]) / _SURE_LENGTH, 1)
        return total - _MAX_COST - (_MAX_COST_OF_SURE - _MAX_COST) * sure

    person = np.full(len(frames), -1)
    tracks: list[np.ndarray] = []  # the latest rows of every person
    alive: list[int] = []
    for now in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(begin)) + 1):
        frame = begin[now[0]]
        alive = [track for track in alive if frame - frames[tracks[track][-1]] <= min(max_missing, _AWAITED * len(tracks[track])) + 1]
        free = [track for track in alive if frames[tracks[track][-1]] < frame]
        joined = {}
        if free:
            soon = np.arange(now[-1] + 1, np.searchsorted(begin, frame + _AHEAD, side="right"))
            rivals = soon[begin[soon] <= end[now].min()]
            pairs = assign(cost([tracks[track] for track in free], np.concatenate([now, rivals])))
            joined = {int(now[j]): free[i] for i, j in pairs if j < len(now)}
        for this in now.tolist():
            track = joined.get(this, len(tracks))
            if track == len(tracks):
                tracks.append(np.zeros(0, dtype=int))
                alive.append(track)
            tracks[track] = np.concatenate([tracks[track], rows[this][-_WINDOW:]])[-_WINDOW:]
            person[rows[this]] = track
    return person


def _window(frames: np.ndarray, points: np.ndarray, rows: list[np.ndarray], end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of n times up to W rows, NaN where there are fewer [n, W, J, D], and their frames from that of the row `end` [n, W]."""
    table = np.full((len(rows), _WINDOW), -1)
    for i, of in enumerate(rows):
        table[i, : len(of)] = of
    is_row = table >= 0
    return np.where(is_row[:, :, None, None], points[table], np.nan), np.where(is_row, frames[table] - frames[end][:, None], 0)


def _motion(points: np.ndarray, frames: np.ndarray) -> _Motion:
    """The motion of n bodies at frame 0, from points [n, W, J, D] at `frames` [n, W].

    Every joint has a slope by least squares, with a ridge for those seen a few times. The median of them is the velocity, so that swinging limbs
    and outliers don't count; how they differ from it along with their places is the growth.
    """
    seen = np.isfinite(points[..., 0])  # [n, W, J]
    x, t = np.where(seen[..., None], points, 0), np.where(seen, frames[..., None], 0)
    count = np.maximum(seen.sum(axis=1), 1)
    spread = np.where(seen, t - (t.sum(axis=1) / count)[:, None], 0)
    squares = np.square(spread).sum(axis=1)  # [n, J]
    slope = (spread[..., None] * x).sum(axis=1) / (squares + 1)[..., None]  # [n, J, D]
    slope[squares == 0] = np.nan
    velocity = _median(slope, axis=1)
    velocity[np.isnan(velocity)] = 0

    recent = seen * np.exp(-np.abs(frames) / _RECENT)[..., None]  # [n, W, J]
    total = recent.sum(axis=1)[..., None]
    moved = x - frames[..., None, None] * velocity[:, None, None]
    pose = np.where(total > 0, (recent[..., None] * moved).sum(axis=1) / np.where(total > 0, total, 1), np.nan)

    outwards, faster = _from_middle(pose), slope - velocity[:, None]
    known = np.isfinite(outwards + faster)
    along = np.where(known, outwards * faster, 0).sum(axis=(1, 2))
    extent = np.where(known, np.square(outwards), 0).sum(axis=(1, 2))
    growth = along / np.where(extent > 0, extent, 1)
    weight = np.minimum(squares.max(axis=1) / (_WINDOW * (_WINDOW**2 - 1) / 12), 1)
    return _Motion(pose, velocity, growth, weight)


def _cost(end: _Motion, begin: _Motion, frames: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How badly n ends and m beginnings, which are so many `frames` [n, m] apart, fit together, for bodies of `size` [n, m].  # [n, m]"""
    forwards = _distance(end.expected(frames), begin.pose, size)
    backwards = _distance(begin.expected(-frames.T).swapaxes(0, 1), end.pose[:, None], size)
    known, known_too = end.weight[:, None] + 0.01, begin.weight + 0.01
    distance = (known * forwards + known_too * backwards) / (known + known_too)
    faster = np.linalg.norm(end.velocity[:, None] - begin.velocity, axis=-1) / size
    growth = (known * end.growth[:, None] + known_too * begin.growth) / (known + known_too)
    larger = np.abs(_larger(end.pose[:, None], begin.pose) - np.clip(growth * frames, -0.3, 0.3))
    moves = (distance + _VELOCITY_FRAMES * faster * np.minimum(known, known_too) + _SIZE_COST * larger) / (1 + _ABSENCE_FADES * (frames - 1))
    return moves + _ABSENCE_COST * (frames - 1)


def _larger(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The logarithm of how many times larger the second pose is, by the joints seen in both; 0 where that can't be said.  # [...]"""
    in_both = np.isfinite(first + second)
    count = np.maximum(in_both.sum(axis=-2, keepdims=True), 1)
    extents = []
    for pose in (np.where(in_both, first, 0), np.where(in_both, second, 0)):
        outwards = np.where(in_both, pose - pose.sum(axis=-2, keepdims=True) / count, 0)
        extents.append(np.einsum("...jd,...jd->...", outwards, outwards))
    known = (extents[0] > 0) & (extents[1] > 0)
    return np.log(np.where(known, extents[1], 1) / np.where(known, extents[0], 1)) / 2
