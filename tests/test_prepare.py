import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from fastst import LAYOUTS
from fastst.data.prepare import centre_and_scale, choose_layout, fill_gaps, mirror, prepare
from fastst.data.walks import DataError, WalkSet

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


def test_mid_shoulder_is_the_middle_of_the_shoulders():
    prepared, _ = prepare(walk_set(walk()), LAYOUTS["coco18"], 2)
    poses = prepared.poses[0]
    assert poses.shape == (6, 18, 2)
    np.testing.assert_allclose(poses[:, 17], (poses[:, 5] + poses[:, 6]) / 2, atol=1e-5)


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
    assert reasons["w1"] == "never shows left_wrist"
    assert reasons["w3"] == "holds infinite positions"
    assert reasons["w4"].startswith("has no extent")


def test_nothing_usable_is_an_error_that_says_why():
    with pytest.raises(DataError, match="none of the 1 walks can be used; the first: w0 has 1 frame"):
        prepare(walk_set(walk(1)), COCO, 2)


def test_layouts():
    assert choose_layout("auto", COCO) is LAYOUTS["coco18"]
    assert choose_layout("auto", LAYOUTS["ntu25"]) is LAYOUTS["ntu25"]
    assert choose_layout("coco17", COCO) is COCO
    with pytest.raises(DataError, match=r"the layout 'ntu25' the 25 joints .*use --layout auto"):
        choose_layout("ntu25", COCO)
    with pytest.raises(ValueError, match="unknown layout 'coco19'"):
        choose_layout("coco19", COCO)
