import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from fastst import LAYOUTS, Layout
from fastst.data.options import ReadOptions
from fastst.data.prepare import (
    Filled,
    centre_and_scale,
    choose_layout,
    drop_joints,
    fill_gaps,
    layout_for,
    mirror,
    prepare,
    resample,
    without_glitches,
)
from fastst.data.synthetic import synthetic_walks
from fastst.data.walks import DataError, LeftOut, WalkSet

COCO = LAYOUTS["coco17"]


def walk(T: int = 6, D: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, (T, 17, D)).astype(np.float32)


def walk_set(*poses: np.ndarray) -> WalkSet:
    return WalkSet(COCO, [f"w{i}" for i in range(len(poses))], [f"p{i}" for i in range(len(poses))], list(poses), {"label": ["x"] * len(poses)})


def numpy_interpolation(poses: np.ndarray) -> np.ndarray:
    filled, frames = poses.copy(), np.arange(len(poses))
    for joint in range(poses.shape[1]):
        seen = ~np.isnan(poses[:, joint]).any(1)
        for axis in range(poses.shape[2]):
            filled[:, joint, axis] = np.interp(frames, frames[seen], poses[seen, joint, axis])
    return filled


@given(arrays(np.bool_, (7, 17)))
@settings(max_examples=50, deadline=None)
def test_gaps_are_interpolated_in_time(missing: np.ndarray):
    poses = walk(7)
    missing[np.arange(17) % 7, np.arange(17)] = False  # every joint is seen once
    poses[missing] = np.nan
    filled, count = fill_gaps(poses)
    assert count == missing.sum()
    np.testing.assert_allclose(filled, numpy_interpolation(poses), rtol=1e-4)
    assert np.array_equal(filled[~missing], poses[~missing])


def test_a_joint_with_one_missing_coordinate_is_missing():
    poses = walk(3)
    poses[1, 4, 0] = np.nan
    filled, count = fill_gaps(poses)
    assert count == 1
    np.testing.assert_allclose(filled[1, 4], (poses[0, 4] + poses[2, 4]) / 2)


def test_centred_and_of_size_one_wherever_and_however_large():
    poses = walk()
    prepared = centre_and_scale(poses, COCO)
    assert prepared is not None
    np.testing.assert_allclose(prepared[:, [11, 12]].mean(1), 0, atol=1e-6)
    assert np.linalg.norm(prepared, axis=2).mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(centre_and_scale(3 * poses + 50, COCO), prepared, atol=1e-4)


@pytest.mark.parametrize(("joint", "left", "right"), [("mid_shoulder", 5, 6), ("neck", 5, 6), ("mid_hip", 11, 12)])
def test_a_joint_in_the_middle_of_two_is_made(joint: str, left: int, right: int):
    layout = Layout.custom([*COCO.joints, joint], [*COCO.bones, (joint, "nose")], "with a middle")
    assert layout_for(layout, COCO) is layout
    prepared, _ = prepare(walk_set(walk()), layout, 2)
    poses = prepared.poses[0]
    assert poses.shape == (6, 18, 2)
    np.testing.assert_allclose(poses[:, 17], (poses[:, left] + poses[:, right]) / 2, atol=1e-5)


def test_mirroring_swaps_sides_and_twice_is_nothing():
    poses = walk()
    mirrored = mirror(poses, COCO)
    np.testing.assert_array_equal(mirrored[:, 15], poses[:, 16] * (-1, 1))
    np.testing.assert_array_equal(mirrored[:, 0], poses[:, 0] * (-1, 1))
    np.testing.assert_array_equal(mirror(mirrored, COCO), poses)


def test_unusable_walks_are_listed_and_the_rest_is_kept():
    short, hidden, infinite, gone = walk(2), walk(), walk(), walk()
    hidden[:, 9] = np.nan
    infinite[0, 0, 0] = np.inf
    gone[:] = 5.0
    gappy = walk()
    gappy[2, 3] = np.nan
    prepared, filled = prepare(walk_set(short, hidden, gappy, infinite, gone), COCO, 3)
    assert prepared.names == ["w2"]
    assert prepared.subjects == ["p2"]
    assert (filled.positions, filled.of) == (1, 6 * 17)
    reasons = {item.name: item.reason for item in prepared.left_out}
    assert reasons["w0"] == "has 2 frame(s), at least 3 (hops + 1) are needed"
    assert reasons["w1"] == "never shows left_wrist; --drop-joints left_wrist does without"
    assert reasons["w3"] == "holds infinite positions"
    assert reasons["w4"].startswith("has no extent")


def test_nothing_usable_is_an_error_that_says_why():
    with pytest.raises(DataError, match="none of the 1 walks can be used; the first: w0 has 1 frame"):
        prepare(walk_set(walk(1)), COCO, 2)


def test_layouts():
    assert choose_layout("auto", COCO) is LAYOUTS["coco18"]
    assert choose_layout("auto", LAYOUTS["ntu25"]) is LAYOUTS["ntu25"]
    assert choose_layout("coco17", COCO) is COCO
    with pytest.raises(DataError, match=r"the layout 'ntu25' has spine_base, .* which the data does not: .*use --layout auto"):
        choose_layout("ntu25", COCO)
    with pytest.raises(ValueError, match="unknown layout 'coco19'"):
        choose_layout("coco19", COCO)


def test_a_glitch_does_not_shrink_the_walk():
    poses = synthetic_walks(2, 1, seed=3).poses[0]
    glitchy = poses.copy()
    glitchy[7, 3], glitchy[0, 5], glitchy[-1, 6] = 1e5, -4e4, 1e9
    glitchy[4, 3] = np.nan
    expected = glitchy.copy()
    expected[[7, 0, -1], [3, 5, 6]] = np.nan
    cleaned, glitches = without_glitches(glitchy)
    np.testing.assert_array_equal(cleaned, expected)
    assert {(int(t), int(j)) for t, j, _ in glitches} == {(7, 3), (0, 5), (len(poses) - 1, 6)}
    prepared, filled = prepare(walk_set(glitchy), COCO, 2)
    np.testing.assert_allclose(prepared.poses[0], prepare(walk_set(expected), COCO, 2)[0].poses[0])
    assert filled.positions == np.isnan(expected).any(2).sum()
    [note] = prepared.notes
    assert note.startswith(f"positions far from the body are taken as not seen: 3 in 'w0' (frame {len(poses) - 1}, right_shoulder, ")


@pytest.mark.parametrize("metres", [1e-5, 1, 50])
def test_glitches_are_the_same_in_any_unit(metres: float):
    poses = walk(30, seed=1)
    poses[7, 3] += 100 * np.ptp(poses)
    cleaned, glitches = without_glitches((poses * metres).astype(np.float32))
    assert [(int(t), int(j)) for t, j, _ in glitches] == [(7, 3)]
    assert np.isnan(cleaned).sum() == 2


def test_the_share_of_what_was_filled_in():
    assert Filled(1, 4).share == 0.25
    assert Filled(0, 0).share == 0


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_glitches_in_most_frames(share: float):
    poses = synthetic_walks(2, 1, seed=3).poses[0]
    planted = np.random.default_rng(0).random(poses.shape[:2]) < share
    assert planted.any(1).mean() > 0.5
    cleaned, glitches = without_glitches(np.where(planted[..., None], np.float32(1e5), poses))
    np.testing.assert_array_equal(cleaned, np.where(planted[..., None], np.nan, poses))
    assert len(glitches) == planted.sum()


@pytest.mark.parametrize(("joint", "frames"), [(9, slice(31)), (9, slice(52)), (15, slice(20, 30)), (11, slice(20, 30)), (15, slice(0, 60, 2))])
@pytest.mark.parametrize("away", [12, 1e5])
def test_a_glitch_that_lasts(joint: int, frames: slice, away: float):
    poses, _ = fill_gaps(synthetic_walks(2, 1, seed=3).poses[0][:60])
    expected = poses.copy()
    expected[frames, joint] = np.nan
    middle = np.median(poses, axis=1)
    poses = poses.copy()
    poses[frames, joint] = (middle + away * np.median(np.linalg.norm(poses - middle[:, None], axis=2)))[frames]
    cleaned, _ = without_glitches(poses)
    np.testing.assert_array_equal(cleaned, expected)


def test_a_joint_that_is_always_far_from_the_body_is_refused():
    poses = synthetic_walks(2, 1, seed=3).poses[0].copy()
    poses[:, 9] = 1e5
    with pytest.raises(DataError, match="shows left_wrist only far from the body; --drop-joints left_wrist does without"):
        prepare(walk_set(poses), COCO, 2)


def test_bodies_of_other_proportions_have_no_glitches():
    """Most landmarks are in the face, a stick's tip is always far, somebody comes from far away; nobody moves."""
    face = np.random.default_rng(0).normal(0, 1, (40, 70, 2))
    limbs = np.stack((np.sin(np.linspace(0, 6, 40)[:, None] + np.arange(9)), np.broadcast_to(np.linspace(3, 24, 9), (40, 9))), axis=2)
    assert len(without_glitches(np.concatenate((face, limbs), axis=1))[1]) == 0
    walk, _ = fill_gaps(synthetic_walks(2, 1, seed=3).poses[0])
    nearer = walk * np.geomspace(0.1, 2, len(walk), dtype=np.float32)[:, None, None]
    assert len(without_glitches(nearer)[1]) == 0
    size = np.median(np.linalg.norm(walk - np.median(walk, axis=1, keepdims=True), axis=2))
    stick = np.median(walk, axis=1) + np.array([9, 1]) * size * (1 + 0.2 * np.sin(np.arange(len(walk))[:, None] / 5))
    assert np.isfinite(stick).all()
    assert len(without_glitches(np.concatenate((walk, stick[:, None]), axis=1))[1]) == 0
    assert len(without_glitches(np.full((5, 17, 2), 3.0))[1]) == 0


def test_what_people_do_is_no_glitch():
    walks = synthetic_walks(6, 3, seed=1)
    assert not any(len(without_glitches(poses)[1]) for poses in walks.poses)
    lost = walks.poses[0].copy()
    lost[5:9, [7, 9]] = np.nan  # and comes back
    assert len(without_glitches(lost)[1]) == 0


@pytest.mark.parametrize(("fps", "wanted", "frames"), [(50, 25, 50), (25, 50, 197), (30, 25, 82), (25, 25, 99)])
def test_resampled_in_true_time(fps: float, wanted: float, frames: int):
    time = np.arange(99)[:, None, None] / fps
    poses = np.broadcast_to(np.stack((time, 3 - 2 * time), 3)[:, 0], (99, 1, 2)).astype(np.float32)
    found = resample(poses, fps, wanted)
    assert len(found) == frames
    at = np.arange(frames) / wanted
    np.testing.assert_allclose(found[:, 0], np.stack((at, 3 - 2 * at), 1), atol=1e-5)
    assert len(resample(poses[:1], fps, wanted)) == 1


def test_frame_rates():
    walks = dataclasses.replace(walk_set(walk(50), walk(50), walk(25)), fps=[50.0, None, 25.0])
    prepared, _ = prepare(walks, COCO, 2)
    assert prepared.notes == ["frame rates differ: 50 (1 walks), 25 (1 walks); --fps 50 makes them one"]
    prepared, _ = prepare(walks, COCO, 2, ReadOptions(fps=25))
    assert (prepared.names, [len(poses) for poses in prepared.poses], prepared.fps) == (["w0", "w2"], [25, 25], [25, 25])
    assert prepared.left_out == [LeftOut("w1", "is not brought to --fps 25: the frame rate that it was recorded with is not known")]
    assert prepared.notes == []


def test_scale_none_keeps_body_size():
    """The classes differ in height alone."""
    tall = [walk(8, seed=i) * (1.4 if i % 2 else 1) for i in range(40)]
    sizes = {
        scale: [np.linalg.norm(p, axis=2).mean() for p in prepare(walk_set(*tall), COCO, 2, ReadOptions(scale=scale))[0].poses]
        for scale in ("body", "none")
    }
    np.testing.assert_allclose(sizes["body"], 1, atol=1e-5)
    assert min(sizes["none"][1::2]) > max(sizes["none"][::2])


def test_joints_that_are_dropped():
    poses = walk()
    poses[:, [1, 3]] = np.nan
    with pytest.raises(DataError, match=r"left_eye, left_ear is never seen in any of them: leave it out with --drop-joints left_eye left_ear"):
        prepare(walk_set(poses, poses), COCO, 2)
    dropped = drop_joints(walk_set(poses), ["left_eye", "left_ear"])
    assert dropped.layout.joints == tuple(joint for joint in COCO.joints if joint not in ("left_eye", "left_ear"))
    names = [{dropped.layout.joints[a], dropped.layout.joints[b]} for a, b in dropped.layout.bones]
    assert {"nose", "left_shoulder"} in names  # over the eye and the ear
    assert (dropped.layout.joint_distance() < 20).all()
    prepared, _ = prepare(dropped, choose_layout("auto", dropped.layout), 2)
    assert prepared.poses[0].shape == (6, 15, 2)
    with pytest.raises(DataError, match=r"--drop-joints tail: layout 'coco17' has no joint 'tail'"):
        drop_joints(walk_set(poses), ["tail"])
    with pytest.raises(DataError, match=r"would have 1 joint"):
        drop_joints(walk_set(poses), COCO.joints[1:])


def test_a_layout_with_some_of_the_joints():
    openpose = LAYOUTS["openpose25"]
    poses = np.random.default_rng(0).normal(100, 20, (6, 25, 2)).astype(np.float32)
    poses[:, openpose.index("left_heel")] = np.nan  # which nobody needs
    walks = WalkSet(openpose, ["w"], ["p"], [poses], {})
    wanted = choose_layout("coco18", openpose)
    prepared, _ = prepare(walks, wanted, 2)
    chosen = [openpose.index(joint) for joint in COCO.joints]
    expected = np.concatenate(
        (poses[:, chosen], poses[:, [openpose.index("left_shoulder"), openpose.index("right_shoulder")]].mean(1, keepdims=True)), 1
    )
    np.testing.assert_allclose(prepared.poses[0], centre_and_scale(expected, wanted), atol=1e-5)
    assert layout_for(LAYOUTS["coco17"], openpose) is LAYOUTS["coco17"]
    with pytest.raises(DataError, match=r"of which pelvis, spine, thorax, head are not in the data"):
        layout_for(LAYOUTS["h36m17"], openpose)
