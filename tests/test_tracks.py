"""Who is who: nobody is lost, two who cross stay themselves, gaps, steps and doubles are said to be what they are."""

import itertools
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import IDS, LAYOUT, Scene, crossing, is_kept, leaving, lone_walks

from fastst.data.assign import assign
from fastst.data.follow import _sizes, people_of, stand_for_doubles
from fastst.data.recording import Detections, Recording
from fastst.data.tracks import MAX_MISSING_FRAMES, Walk, walks_of
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

POSE = np.stack([np.linspace(0, 40, 17), np.linspace(0, 100, 17) % 61], axis=1)  # a body of 40 x 60 pixels


def people(*ways: tuple[np.ndarray, np.ndarray], **columns: np.ndarray) -> Detections:
    """Stiff bodies: for every person the frames [n] and the left end [n]; one after the other."""
    frames = np.concatenate([np.asarray(of) for of, _ in ways]).astype(np.int64)
    left = np.concatenate([np.broadcast_to(at, len(of)) for of, at in ways])
    joints = POSE + np.stack([left, np.full(len(left), 50)], axis=1)[:, None]
    return Detections(frames, joints.astype(np.float32), **columns)


def read(detections: Detections, tracks: str = "main", fps: float | None = None) -> tuple[list[Walk], list[LeftOut]]:
    return walks_of(Recording("video.json", ("folder", "video"), LAYOUT, detections, fps, attributes={"label": "x"}), tracks)


def lefts(walk: Walk) -> list[float]:
    return np.round(walk.poses[:, 0, 0].astype(float), 3).tolist()


def reason(left_out: list[LeftOut]) -> str:
    [left] = left_out
    assert left.reason.startswith("video.json: ")
    return f"{left.name}: {left.reason}"


def tracks_in(scene: Scene) -> np.ndarray:
    """The number of the person whom every detection is given to; doubles are of the person they repeat.  # [n]"""
    order = np.argsort(scene.detections.frames, kind="stable")
    detections = scene.detections.take(order)
    used = stand_for_doubles(detections)
    rows = np.flatnonzero(used == np.arange(len(used)))
    person = np.full(len(used), -1)
    person[rows] = people_of(detections.take(rows), MAX_MISSING_FRAMES)
    return person[used][np.argsort(order)]


@pytest.mark.parametrize("fps", [25.0, 12.5, 25 / 3])
def test_nothing_of_a_lone_walker_is_lost(fps: float) -> None:
    for poses in lone_walks(120, fps):
        [walk], left_out = read(Detections(np.arange(len(poses)), poses.astype(np.float32)))
        np.testing.assert_array_equal(walk.poses, poses.astype(np.float32))
        assert left_out == []
        assert (walk.track, walk.places, walk.attributes) == (None, ("folder", "video"), {"label": "x"})


def test_a_lone_walker_may_jump_and_have_wrong_boxes() -> None:
    rng = np.random.default_rng(0)
    left = rng.uniform(0, 10_000, 50)
    boxes = rng.uniform(0, 100, (50, 4)).astype(np.float32)
    [walk], left_out = read(people((np.arange(50), left), boxes=boxes, ids=np.arange(50), scores=np.zeros(50)))
    np.testing.assert_allclose(walk.poses[:, 0, 0], left, rtol=1e-6)
    assert left_out == []


def test_one_after_the_other_with_an_id_each_are_two() -> None:
    frames = np.arange(120)
    left = np.where(frames < 60, 4.0 * frames, 1500 - 4.0 * frames)
    ids = np.repeat([1, 2], 60)
    walks, left_out = read(people((frames, left), ids=ids), "all")
    assert ([lefts(walk)[0] for walk in walks], [len(walk.poses) for walk in walks], left_out) == ([0.0, 1260.0], [60, 60], [])
    [walk], left_out = read(people((frames, left), ids=ids))
    assert len(walk.poses) == 60
    assert "60 detection(s)" in reason(left_out)
    for same in (people((frames, 4.0 * frames), ids=ids), people((frames, left), ids=np.repeat([1, 2, 1, 2], 30)), people((frames, left))):
        assert len(read(same)[0][0].poses) == 120


@pytest.mark.parametrize("first", [0, 1699999999000])
def test_times_are_counted(first: int) -> None:
    times = first + np.round(np.delete(np.arange(90), [7, 30, 31]) * 1000 / 30).astype(np.int64)
    [walk], left_out = read(people((times, 1.0)), fps=30.0)
    assert (len(walk.poses), walk.fps) == (90, 30.0)
    assert np.flatnonzero(np.isnan(walk.poses).all(axis=(1, 2))).tolist() == [7, 30, 31]
    assert "the frame numbers step by about 33.3, as times do; they are taken for consecutive frames" in reason(left_out)


def test_two_who_cross_stay_themselves() -> None:
    kept = [is_kept(scene, tracks_in(scene)) for scene in (crossing(k, IDS[k % 3], (25.0, 12.5)[k // 3 % 2], seed=11) for k in range(48))]
    assert sum(kept) >= 45


def test_in_200_scenes_95_percent_stay_themselves() -> None:
    kept = [is_kept(scene, tracks_in(scene)) for scene in (crossing(k, IDS[k % 3], (25.0, 12.5)[k // 3 % 2], seed=12) for k in range(200))]
    assert sum(kept) >= 190


def test_who_comes_after_somebody_left_is_somebody_else() -> None:
    apart = 0
    for number in range(20):
        scene = leaving(number)
        track = tracks_in(scene)
        apart += len({np.bincount(track[scene.person == who] + 1).argmax() for who in (0, 1, 2)}) == 3
    assert apart >= 17


@pytest.mark.parametrize("hidden", [0, 5, 15, 25])
def test_two_who_cross_with_the_same_stiff_pose(hidden: int) -> None:
    frames = np.arange(80)
    seen = frames[(frames < 40 - hidden // 2) | (frames >= 40 - hidden // 2 + hidden)]
    walks, left_out = read(people((frames, 3.0 * frames), (seen, 240.5 - 3.0 * seen)), "all")
    assert left_out == []
    assert [walk.track for walk in walks] == [1, 2]
    first = next(walk for walk in walks if lefts(walk)[0] == 0)
    second = next(walk for walk in walks if lefts(walk)[0] != 0)
    np.testing.assert_allclose(first.poses[:, 0, 0], 3.0 * frames, atol=0.51)
    np.testing.assert_allclose(second.poses[seen, 0, 0], 240.5 - 3.0 * seen, atol=0.51)
    assert np.isnan(second.poses[np.setdiff1d(frames, seen)]).all()


@pytest.mark.parametrize("speed", [4.0, 4.5, 5.0])
def test_who_appears_where_a_walker_just_was_does_not_take_his_place(speed: float) -> None:
    frames, standing = np.arange(60), 29 * speed + 1
    walks, left_out = read(people((frames, speed * frames), (frames[30:], standing)), "all")
    assert left_out == []
    assert sorted(map(lefts, walks)) == [list(speed * frames), [standing] * 30]


def test_ids_tell_who_is_back_where_motion_does_not() -> None:
    before, after = np.arange(30), np.arange(40, 70)
    ways = [(before, 100.0), (before, 150.0), (after, 123.0), (after, 127.0)]
    for ids in ([1, 2, 1, 2], [1, 2, 2, 1]):
        walks, left_out = read(people(*ways, ids=np.repeat(ids, 30)), "all")
        assert left_out == []
        ends = {lefts(walk)[0]: lefts(walk)[-1] for walk in walks}
        assert ends == {100.0: 123.0 if ids[2] == 1 else 127.0, 150.0: 127.0 if ids[2] == 1 else 123.0}


@pytest.mark.parametrize("kind", ["constant", "by place in the frame", "new every time", "exchanged when they meet"])
def test_ids_that_say_nothing_do_no_harm(kind: str) -> None:
    frames = np.arange(60)
    ids = {
        "constant": np.zeros(120, dtype=int),
        "by place in the frame": np.random.default_rng(0).permuted(np.tile([[0], [1]], 60), axis=0).ravel(),
        "new every time": np.arange(120),
        "exchanged when they meet": np.where(np.tile(frames < 30, 2), np.repeat([1, 2], 60), np.repeat([2, 1], 60)),
    }[kind]
    walks, left_out = read(people((frames, 4.0 * frames), (frames, 237.0 - 4.0 * frames), ids=ids), "all")
    assert left_out == []
    first, second = sorted(lefts(walk) for walk in walks)
    np.testing.assert_allclose(first, 4.0 * frames, atol=3)  # where they meet they are 3 pixels apart
    np.testing.assert_allclose(second, 237.0 - 4.0 * frames, atol=3)


def test_ids_that_say_nothing_change_nothing() -> None:
    for number in range(10):
        scene = crossing(number, "none", (25.0, 12.5)[number % 2])
        count = len(scene.person)
        for ids in (np.zeros(count, dtype=int), np.full(count, -1), np.arange(count), np.random.default_rng(number).integers(0, 3, count)):
            with_ids = replace(scene, detections=replace(scene.detections, ids=ids))
            np.testing.assert_array_equal(tracks_in(with_ids), tracks_in(scene))


def test_the_most_prominent_is_followed_and_the_others_are_counted() -> None:
    frames, short = np.arange(30), np.arange(5, 20)
    detections = people((frames, 0.0), (short, 300.0))
    [walk], left_out = read(detections)
    assert lefts(walk) == [0.0] * 30
    assert re.search(
        r"^15 detection\(s\) in folder/video: .*1 track\(s\) beside the most prominent one, which is the walk; --tracks all.*25 frames",
        reason(left_out),
    )
    [walk], _ = read(people((frames, 0.0), (short, 300.0), scores=np.repeat([1.0, 2.5], [30, 15])))
    assert lefts(walk) == [300.0] * 15
    boxes = np.tile(np.float32([0, 0, 10, 10]), (45, 1))
    boxes[30:] = [300, 0, 322, 22]
    [walk], _ = read(people((frames, 0.0), (short, 300.0), boxes=boxes))
    assert lefts(walk) == [300.0] * 15
    detections.joints[35, 0, 0] = 1e9  # one wild joint makes nobody prominent
    [walk], _ = read(detections)
    assert lefts(walk) == [0.0] * 30


def test_all_makes_a_walk_of_whoever_is_seen_for_a_second() -> None:
    frames = np.arange(40)
    detections = people((frames, 0.0), (frames[:25], 300.0), (frames[:24], 600.0))
    walks, left_out = read(detections, "all")
    assert [(walk.track, len(walk.poses), lefts(walk)[0]) for walk in walks] == [(1, 40, 0.0), (2, 25, 300.0)]
    assert "24 detection(s) in folder/video" in reason(left_out)
    assert "1 track(s) of fewer than 25 frames" in reason(left_out)
    walks, left_out = read(detections, "all", fps=10.0)
    assert ([len(walk.poses) for walk in walks], left_out) == ([40, 25, 24], [])
    [walk], left_out = read(people((frames[:3], 0.0)), "all")
    assert (walk.track, left_out) == (None, [])


@pytest.mark.parametrize(("fps", "most"), [(None, MAX_MISSING_FRAMES), (25.0, 25), (12.5, 12), (50.0, 50), (0.2, 1)])
def test_a_gap_is_called_a_gap(fps: float | None, most: int) -> None:
    frames = np.concatenate([np.arange(100, 120), np.arange(120 + most, 130 + most)])
    [walk], left_out = read(people((frames, 1.0)), fps=fps)
    assert (len(walk.poses), left_out) == (30 + most, [])
    assert np.isnan(walk.poses[20 : 20 + most]).all()
    frames[20:] += 1
    [walk], left_out = read(people((frames, 1.0)), fps=fps)
    assert len(walk.poses) == 20
    assert [left.name for left in left_out] == ["frames of folder/video", "10 detection(s) in folder/video"]
    assert f"nobody is seen in frames 120 to {120 + most}: a gap of more than {most} frames" in left_out[0].reason
    assert "1 track(s) beside the most prominent one, which is the walk, of which 1 come before or after it" in left_out[1].reason
    assert "--tracks all" in left_out[1].reason


def test_all_makes_walks_of_both_sides_of_a_gap() -> None:
    walks, left_out = read(people((np.r_[0:30, 60:100], np.r_[0:30, 60:100])), "all")
    assert [(walk.track, lefts(walk)[0], len(walk.poses)) for walk in walks] == [(1, 60.0, 40), (2, 0.0, 30)]
    assert "nobody is seen in frames 30 to 59" in reason(left_out)


def test_many_gaps_are_counted() -> None:
    _, left_out = read(people((np.arange(6) * 1000 + [0, 1, 0, 1, 0, 0], 0.0)))
    assert "1 to 1000, 1002 to 1999, 2001 to 3000 (and 2 more such gap(s))" in left_out[0].reason
    assert left_out[1].name == "5 detection(s) in folder/video"


def test_frames_that_step_are_consecutive() -> None:
    frames = np.delete(np.arange(7, 107, 5), 4)
    [walk], left_out = read(people((frames, frames)), fps=30.0)
    assert (len(walk.poses), walk.fps) == (20, 6.0)
    assert np.flatnonzero(np.isnan(walk.poses).all(axis=(1, 2))).tolist() == [4]
    assert reason(left_out) == (
        "frames between those of folder/video: video.json: the frame numbers step by 5; they are taken for consecutive frames, 6 a second"
    )
    [walk], _ = read(people((frames, frames)))
    assert walk.fps is None
    [walk], left_out = read(people((np.append(frames, 40), 0.0)))
    assert (len(walk.poses), left_out) == (96, [])
    [walk], left_out = read(people((np.array([0, 26]), 0.0)))
    assert (len(walk.poses), left_out) == (27, [])


def test_a_size_is_within_a_fifth_and_five_times_of_what_is_usual() -> None:
    assert _sizes(np.array([1, 60, 60, 60, 1000])[:, None, None] * np.array([[0.0, 0.0], [0.5, 1.0]])).tolist() == [12, 60, 60, 60, 300]


def test_of_doubles_the_better_score_is_used() -> None:
    frames = np.arange(30)
    scores = np.concatenate([np.full(30, 2.0), np.full(10, 3.0), np.full(10, 1.0), [2.5]])
    twice = people((frames, 2.0 * frames), (frames[:10], 2.0 * frames[:10] + 1), (frames[10:20], 2.0 * frames[10:20] + 1), ([5], 11.5), scores=scores)
    [walk], left_out = read(twice)
    assert lefts(walk) == [2.0 * t + (t < 10) for t in range(30)]
    assert "21 double detection(s) in folder/video" in reason(left_out)
    assert "repeat a person of the same frame (first: frame 0)" in reason(left_out)


def test_frames_in_which_no_joint_is_seen() -> None:
    detections = people((np.arange(40), 0.0))
    detections.joints[[0, 1, 2, 20, 38, 39]] = np.nan
    detections.joints[5, 3:, 1] = np.nan
    [walk], left_out = read(detections)
    assert (len(walk.poses), left_out) == (40, [])
    detections = people((np.arange(100), 0.0))
    detections.joints[:30] = np.nan
    [walk], left_out = read(detections)
    assert len(walk.poses) == 70
    assert "nobody is seen in frames 0 to 29" in reason(left_out)
    detections.joints[:] = np.nan
    with pytest.raises(DataError, match=r"video\.json: no joint of anybody is seen in any frame"):
        read(detections)
    with pytest.raises(DataError, match=r"video\.json has no detection"):
        read(detections.take(np.zeros(0, dtype=int)))


def test_three_dimensions_and_one_joint() -> None:
    frames = np.arange(40)
    joints = np.concatenate([POSE / 50, POSE[:, :1] / 90], axis=1)
    way = np.stack([0.05 * frames, 0 * frames, 0 * frames], axis=1)[:, None]
    two = Detections(np.tile(frames, 2), np.concatenate([joints + way, joints + np.array([2.0, 0, 0.3]) - way]).astype(np.float32))
    walks, left_out = read(two, "all")
    assert ([walk.poses.shape for walk in walks], left_out) == ([(40, 17, 3)] * 2, [])
    steps = sorted(float(np.diff(walk.poses[:, 0, 0]).mean()) for walk in walks)
    np.testing.assert_allclose(steps, [-0.05, 0.05], atol=1e-6)
    alone = Recording("v", ("v",), Layout.custom(["hip"], []), Detections(frames, two.joints[:40, :1]))
    assert len(walks_of(alone, "all")[0][0].poses) == 40


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_wild_numbers() -> None:
    frames = np.arange(60)
    wild = people((frames, 2.0 * frames), (frames, 300.0 - 2.0 * frames), scores=np.where(np.arange(120) % 7 == 0, np.nan, 1.0))
    wild.joints[10, 3] = 1e5
    wild.joints[70, 4] = 1e30
    wild.joints[20, 5] = np.inf
    wild.joints[21, 5] = -np.inf
    walks, left_out = read(wild, "all")
    assert ([len(walk.poses) for walk in walks], left_out) == ([60, 60], [])
    far = people((np.array([-(10**17), 0, 1, 2, 10**17]), 0.0))
    [walk], left_out = read(far)
    assert lefts(walk) == [0.0] * 3
    assert "nobody is seen in frames -99999999999999999 to -1, 3 to 99999999999999999" in left_out[0].reason


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4))
def test_the_order_of_detections_does_not_matter(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    ways = [(np.flatnonzero(rng.random(40) < 0.9), 100.0 * k) for k in range(count)]
    ways = [(frames, left + rng.uniform(-3, 3) * frames) for frames, left in ways]
    detections = people(*ways, scores=rng.random(sum(len(frames) for frames, _ in ways)))
    walks, left_out = read(detections, "all")
    others, left_out_too = read(detections.take(rng.permutation(len(detections))), "all")
    assert left_out == left_out_too
    for walk, other in zip(walks, others, strict=True):
        np.testing.assert_array_equal(walk.poses, other.poses)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 10_000), st.booleans())
def test_assignment_is_the_cheapest(rows: int, columns: int, seed: int, is_whole: bool) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.normal(-0.5, 1, (rows, columns))
    cost[rng.random(cost.shape) < 0.1] = np.inf
    cost = np.round(cost) if is_whole else cost
    pairs = assign(cost)
    assert all(cost[i, j] < 0 for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    gain = np.minimum(cost if rows <= columns else cost.T, 0)
    cheapest = min(sum(gain[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(gain.shape[1]), len(gain)))
    assert sum(cost[i, j] for i, j in pairs) == pytest.approx(cheapest)


def test_long_videos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    joints = np.float32(POSE + rng.normal(0, 1, (200_000, 17, 2)))
    seconds = []
    for count in (20_000, 200_000):
        start = time.process_time()
        [walk], _ = read(Detections(np.arange(count), joints[:count]))
        seconds.append(time.process_time() - start)
        assert len(walk.poses) == count
    assert seconds[1] < min(30, 30 * seconds[0])  # linear in the frames, and on a machine ten times slower too
    frames = np.arange(20_000)
    five = people(*[(frames, 150.0 * k + 100 * np.sin(frames / (50 + k))) for k in range(5)])
    five = five.take(rng.random(100_000) > 0.05)
    start = time.process_time()
    walks, _ = read(five, "all")
    assert time.process_time() - start < 30
    assert len(walks) >= 5
