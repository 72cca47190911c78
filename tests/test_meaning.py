"""What numbers in files mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastst.data.meaning import Understood, understand
from fastst.data.options import ReadOptions
from fastst.data.recording import Detections, Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS, Layout

COCO, NTU = LAYOUTS["coco17"], LAYOUTS["ntu25"]


def recording(joints: np.ndarray, layout=COCO, **more) -> Recording:
    detections = Detections(np.arange(len(joints)), joints.astype(np.float32), more.pop("confidences", None), more.pop("boxes", None))
    return Recording("file", ("w",), layout, detections, **more)


def body(n: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 500, (n, 17, 2)).astype(np.float32)


def in_image(layout: Layout = LAYOUTS["coco17"]) -> np.ndarray:
    """A body whose head is at y 50 and whose feet are at 450, which moves to the right.  # [20, J, 2]"""
    height = {"nose": 50, "eye": 45, "ear": 50, "neck": 90, "shoulder": 100, "elbow": 170, "wrist": 230, "hip": 240, "knee": 350}
    y = np.array([next((height[part] for part in height if part in joint), 450) for joint in layout.joints], float)
    x = 100 + 5.0 * np.arange(20)[:, None] + np.arange(layout.num_joints) % 7
    return np.stack([x, np.broadcast_to(y, x.shape)], axis=2)


def standing(n: int = 20, seed: int = 0) -> np.ndarray:
    """NTU's joints in metres around the spine's base, y up."""
    rng = np.random.default_rng(seed)
    heights = {"head": 0.8, "neck": 0.6, "foot": -0.9, "ankle": -0.8}
    y = [next((height for name, height in heights.items() if name in joint), 0.1) for joint in NTU.joints]
    poses = rng.normal(0, 0.05, (n, 25, 3))
    poses[..., 1] += y
    return poses.astype(np.float32)


def understood(*recordings: Recording, **options) -> Understood:
    return understand(list(recordings), ReadOptions(**options))


@pytest.mark.parametrize("mark", [0.0, -1.0])
def test_marks_of_joints_that_were_not_found(mark: float) -> None:
    """Whatever the confidence."""
    joints = body()
    marked = np.random.default_rng(1).random((20, 17)) < 0.15
    joints[marked] = mark
    result = understood(recording(joints, confidences=np.full((20, 17), 0.4, np.float32)))
    np.testing.assert_array_equal(np.isnan(result.recordings[0].detections.joints).all(2), marked)
    np.testing.assert_array_equal(result.recordings[0].detections.joints[~marked], joints[~marked])
    [note] = result.notes
    assert note == f"{marked.mean():.1%} of the joint positions are exactly ({mark:g}, {mark:g}): taken as not seen"


@pytest.mark.parametrize(("value", "D"), [(-9999, 2), (99999, 2), (-1000, 2), (-100, 2), (-100, 3)])
def test_one_number_in_all_coordinates_far_outside_is_no_place(value: float, D: int) -> None:
    """Whoever has it once, too, where others have it often; and where nobody was found."""
    joints = in_image() + 200 if D == 2 else standing()
    layout = COCO if D == 2 else NTU
    marked = np.random.default_rng(1).random(joints.shape[:2]) < 0.15
    marked[3] = True
    once = np.zeros_like(marked)
    once[2, 5] = True
    poses = [np.where(where[..., None], value, joints) for where in (marked, once)]
    result = understood(*(recording(each, layout) for each in poses))
    for found, where in zip(result.recordings, (marked, once), strict=True):
        np.testing.assert_array_equal(np.isnan(found.detections.joints).all(2), where)
        np.testing.assert_array_equal(found.detections.joints[~where], joints[~where].astype(np.float32))
    assert result.notes == [f"{marked.sum() + 1} joint positions are {value} in all coordinates, far outside of the bodies: taken as not seen"]


@pytest.mark.parametrize("value", [300, -100, "rare"])
def test_one_number_in_all_coordinates_may_be_a_place(value: float | str) -> None:
    """In an image, or in millimetres around the hips; and what is only there twice is for who looks for glitches."""
    joints = in_image() if value == 300 else (in_image() - in_image()[:, 11:12]) * 3 + 1
    joints[4 : 6 if value == "rare" else 9, 2] = 9999 if value == "rare" else value
    result = understood(recording(joints))
    np.testing.assert_array_equal(result.recordings[0].detections.joints, joints.astype(np.float32))
    assert result.notes == []


@pytest.mark.parametrize(("frames", "joints"), [(2, 17), (40, 2)])
def test_where_no_body_is_known_a_number_is_a_place(frames: int, joints: int) -> None:
    """In two frames, or of two joints."""
    poses = np.full((frames, joints, 2), 150.0)
    poses[:, 1:] = in_image()[:1, 1:joints] + 300
    layout = Layout.custom(COCO.joints[:joints], [], "few")
    result = understood(*[recording(poses, layout)] * 3)
    np.testing.assert_array_equal(result.recordings[0].detections.joints, poses.astype(np.float32))
    assert result.notes == []


def test_one_coordinate_of_zero_is_a_place() -> None:
    joints = body()
    joints[3, 4, 0], joints[5, 6, 1] = 0, -1
    result = understood(recording(joints))
    np.testing.assert_array_equal(result.recordings[0].detections.joints, joints)
    assert result.notes == []


def test_what_is_not_finite_is_not_seen() -> None:
    joints = body()
    joints[3, 4, 0], joints[5, 6, 1] = np.inf, np.nan
    result = understood(recording(joints))
    assert np.isnan(result.recordings[0].detections.joints).any(2).sum() == 2
    assert result.notes == ["0.3% of the joint positions are not finite: taken as not seen"]


def test_a_joint_that_is_never_found_in_an_image_is_no_root() -> None:
    joints = body()
    joints[:, 3] = 0
    result = understood(recording(joints))
    assert np.isnan(result.recordings[0].detections.joints[:, 3]).all()


def test_a_root_at_the_origin_is_kept_and_said_to_be_one() -> None:
    joints = standing()
    joints -= joints[:, :1]
    joints[:10] = 0  # nobody was found
    result = understood(recording(joints, NTU), recording(standing(seed=1) - standing(seed=1)[:, :1], NTU))
    found = result.recordings[0].detections.joints
    assert np.isnan(found[:10]).all()
    np.testing.assert_array_equal(found[10:], joints[10:])
    assert any(note.startswith("spine_base is at the origin in nearly all frames") for note in result.notes)


def test_min_confidence() -> None:
    confidences = np.tile(np.linspace(0, 1, 17, dtype=np.float32), (20, 1))
    result = understood(recording(body(), confidences=confidences), min_confidence=0.5)
    np.testing.assert_array_equal(np.isnan(result.recordings[0].detections.joints).all(2), confidences < 0.5)
    assert "of a confidence below 0.5" in result.notes[0]


@pytest.mark.parametrize("told", [True, False])
def test_shares_of_the_image(told: bool) -> None:
    pixels = body() * (3, 1)
    shares = pixels / (1920, 1080)
    shares[0, 0] = -0.02  # a little outside
    boxes = np.tile(np.float32([0.1, 0.1, 0.9, 0.9]), (20, 1))
    one = recording(shares, boxes=boxes, image_size=None if told else (1920, 1080))
    result = understood(one, **{"image_size": (1920, 1080)} if told else {})
    found = result.recordings[0].detections
    np.testing.assert_allclose(found.joints[1:], pixels[1:], rtol=1e-4)
    np.testing.assert_allclose(found.boxes[0], [192, 108, 1728, 972], rtol=1e-6)
    assert result.notes == ["1 walk(s) have positions that are shares of the image: of 1920 x 1080 pixels, which they were multiplied by"]


def test_shares_of_an_image_of_unknown_size_are_left_out() -> None:
    result = understood(recording(body() / 1000), replace(recording(body()), source="other"))
    assert len(result.recordings) == 1
    [left] = result.left_out
    assert "--image-size 1920 1080" in left.reason


def test_metres_are_no_shares() -> None:
    assert understood(recording(np.abs(standing()) + 0.01, NTU)).left_out == []
    assert understood(recording(body() / 400 - 0.7)).left_out == []  # in 2D, around an origin of its own
    assert understood(recording((in_image() - in_image()[:, 11:12]) / 250)).left_out == []  # around the hips, y down


@pytest.mark.parametrize("upwards", [True, False])
def test_legs_below_the_image_are_shares_too(upwards: bool) -> None:
    """Of one walk alone; the head is above the feet, as in an image, and so they are no metres."""
    below = in_image() / (1000, 350)
    assert (below[..., 1] > 1.1).mean() > 0.1
    if upwards:
        below[..., 1] = below[..., 1].max() - below[..., 1]
    result = understood(recording(below), image_size=(1920, 1080))
    np.testing.assert_allclose(result.recordings[0].detections.joints, below * ((1, 1) if upwards else (1920, 1080)), rtol=1e-5)
    assert len(understood(recording(below)).left_out) == (not upwards)


@pytest.mark.parametrize("size", [(1000, 160), (130, 1000), (110, 1000)])
def test_a_body_mostly_outside_of_the_image_is_not_in_pixels(size: tuple[int, int]) -> None:
    """Its middle is below the image or beside it."""
    outside = in_image() / size
    assert (np.median(outside, axis=(0, 1)) > 1).any()
    [left] = understood(recording(outside)).left_out
    low, high = np.quantile(outside, (0.01, 0.99))
    assert f"the positions go from {low:.2g} to {high:.2g}, " in left.reason
    assert "--image-size" in left.reason
    np.testing.assert_allclose(
        understood(recording(outside), image_size=(1920, 1080)).recordings[0].detections.joints, outside * (1920, 1080), rtol=1e-5
    )


def test_a_form_in_shares_needs_no_look_at_the_numbers() -> None:
    below = body() / (1000, 100)  # nearly all outside of the image
    assert understood(recording(below), image_size=(1920, 1080)).notes == []
    result = understood(recording(below, in_shares=True), image_size=(1920, 1080))
    np.testing.assert_allclose(result.recordings[0].detections.joints, below * (1920, 1080), rtol=1e-5)


def test_who_is_partly_outside_is_in_shares_as_the_others_are() -> None:
    below = body() / (1000, 350)
    pixels = body()
    result = understood(*(recording(body() / 1000) for _ in range(3)), recording(below), recording(pixels), image_size=(1920, 1080))
    np.testing.assert_allclose(result.recordings[3].detections.joints, below * (1920, 1080), rtol=1e-5)
    np.testing.assert_array_equal(result.recordings[4].detections.joints, pixels)


def test_openpose_s_keypoint_scale_4_is_shares_from_the_middle() -> None:
    layout = LAYOUTS["openpose25"]
    pixels = in_image(layout) + np.array([400, 300])
    shares = pixels / (640, 540) - 1  # of an image of 1280 x 1080
    corner = (in_image(layout) + np.array([900, 600])) / (640, 540) - 1  # without a number below 0
    assert (shares < 0).any()
    assert (corner > 0).all()
    result = understood(recording(shares, layout), recording(corner, layout), image_size=(1280, 1080))
    np.testing.assert_allclose(result.recordings[0].detections.joints, pixels, rtol=1e-4)
    np.testing.assert_allclose(result.recordings[1].detections.joints, in_image(layout) + np.array([900, 600]), rtol=1e-4)
    [left] = understood(recording(shares, layout)).left_out
    assert "between -1 and 1, as OpenPose writes them with --keypoint_scale 4" in left.reason
    assert "--image-size" in left.reason
    for other in (shares - shares[:, 8:9], shares * (1, -1)):  # around the hips; y up
        np.testing.assert_array_equal(understood(recording(other, layout)).recordings[0].detections.joints, other.astype(np.float32))


def test_some_walks_are_measured_from_the_root() -> None:
    elsewhere = standing()
    centred = elsewhere - elsewhere[:, :1]
    result = understood(recording(centred, NTU), recording(centred, NTU), recording(elsewhere, NTU))
    for one, joints in zip(result.recordings, (centred, centred, elsewhere), strict=True):
        np.testing.assert_array_equal(one.detections.joints, joints)
    assert any("spine_base is at the origin in nearly all frames of 2 of 3 walks, and not of the others" in note for note in result.notes)


def test_walks_that_are_not_upright_as_the_others_are_named() -> None:
    upright = standing()
    lying = upright[..., [0, 2, 1]]
    walks = [replace(recording(lying, NTU), places=(f"w{i}",)) for i in range(5)]
    nobody = [replace(recording(lying[:0], NTU), places=("nobody",)) for _ in range(9)]
    result = understood(*walks, replace(recording(upright, NTU), places=("other",)), *nobody)
    assert result.notes[0] == "z points up in most walks, but not in other (y), which are now not upright: turn them, or leave them out"
    assert result.notes[1].startswith("z points up: turned")


UP = [
    ("head nose neck left_eye left_ear thorax", "left_ankle right_foot left_heel left_big_toe"),
    ("LFHD RFHD LBHD RBHD", "LANK RANK LHEE RHEE LTOE RTOE"),
]


@pytest.mark.parametrize(("top", "bottom"), [(a, b) for tops, bottoms in UP for a in tops.split() for b in bottoms.split()])
def test_any_joint_or_marker_of_heads_and_feet_tells_what_is_up(top: str, bottom: str) -> None:
    heights = np.array([1.7, 1, 0.1])
    joints = np.stack([0 * heights, 0.1 * np.sin(heights), heights], axis=1)[None].repeat(9, 0)
    layout = Layout.custom([top, "LASI", bottom], [], "three")
    assert understood(recording(joints, layout)).notes == ["z points up: turned so that y does (--up y leaves them as they are)"]


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
@pytest.mark.parametrize("told", [True, False])
def test_up_is_found_or_told(up: str, told: bool) -> None:
    upright = standing()
    axis, sign = "xyz".index(up[-1]), -1 if up[0] == "-" else 1
    side, rest = (axis + 1) % 3, (axis + 2) % 3
    turn = np.zeros((3, 3), np.float32)
    turn[axis, 1], turn[side, 0], turn[rest, 2] = sign, 1, 1
    turn[rest, 2] = np.linalg.det(turn)  # a turn, and no mirror image
    lying = upright @ turn.T
    result = understood(recording(lying, NTU), recording(lying, NTU), up=up if told else "auto")
    found = result.recordings[1].detections.joints
    np.testing.assert_allclose(found[..., 1], upright[..., 1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(upright, axis=-1), rtol=1e-5)  # a turn keeps lengths
    # No mirror image: the turn keeps handedness.
    a, b = lying[0, :3].astype(float), found[0, :3].astype(float)
    assert np.sign(np.linalg.det(a)) == np.sign(np.linalg.det(b))
    assert (result.notes == []) == (up == "y")


def test_up_is_not_guessed_of_somebody_who_lies() -> None:
    slanted = standing() @ np.array([[1, 0, 0], [0, 0.7, 0.7], [0, -0.7, 0.7]])
    result = understood(recording(slanted, NTU))
    np.testing.assert_array_equal(result.recordings[0].detections.joints, slanted.astype(np.float32))
    assert "--up" in result.notes[0]


def test_up_is_for_3d() -> None:
    with pytest.raises(DataError, match=r"--up z: the data are in 2D"):
        understood(recording(body()), up="z")


def test_nothing_is_changed_where_there_is_nothing_to_mend() -> None:
    joints = body()
    before = joints.copy()
    result = understood(recording(joints), recording(np.zeros((0, 17, 2))))
    np.testing.assert_array_equal(joints, before)
    assert (result.notes, result.left_out) == ([], [])
