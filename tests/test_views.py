"""Which way is up and forwards in 3D poses, and what is seen of them from a side."""

import numpy as np
import pytest

from fastst.explanation.views import View, body_axes, seen_from, standing_body
from fastst.layouts import LAYOUTS, Layout

BONES = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]
LEGS = Layout.custom(["head", "hips", "left_hip", "right_hip", "left_knee", "right_knee", "left_foot", "right_foot"], BONES)
BARE = Layout.custom(list("abcdefgh"), BONES)  # names that tell nothing
AXES = {"x forwards, z up": (0, 1, 2, 1), "z forwards, y up": (2, 0, 1, 1), "y down, as a camera has it": (2, 0, 1, -1)}


def walker(frames: int = 40) -> np.ndarray:
    """Walks along x, left is y, up is z; at the origin, as on a treadmill.  # [T, 8, 3]"""
    swing = 0.3 * np.sin(np.arange(frames) / 4)
    nothing, one = np.zeros(frames), np.ones(frames)
    joints = [
        (nothing, nothing, 0.8 * one),
        (nothing, nothing, nothing),
        (nothing, 0.1 * one, nothing),
        (nothing, -0.1 * one, nothing),
        (swing / 2, 0.1 * one, -0.4 * one),
        (-swing / 2, -0.1 * one, -0.4 * one),
        (swing, 0.1 * one, -0.8 * one),
        (-swing, -0.1 * one, -0.8 * one),
    ]
    return np.array(joints).transpose(2, 0, 1)


def recorded(axes: str, degrees: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The walker in other coordinates, turned around the vertical, and forwards, left and up there.  # [T, J, 3], [3, 3]"""
    forwards, left, up, sign = AXES[axes]
    turn = np.radians(degrees)
    turned = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])  # rows: where forwards, left and up go
    moved = np.zeros((3, 3))
    moved[0, forwards], moved[1, left], moved[2, up] = 1, sign, sign  # right-handed, whatever the sign
    found = turned @ moved
    assert np.linalg.det(found) == pytest.approx(1)
    return walker() @ found, found


@pytest.mark.parametrize("degrees", [0, 33, 180, 250])
@pytest.mark.parametrize("axes", AXES)
def test_forwards_left_and_up_are_found(axes: str, degrees: float):
    poses, wanted = recorded(axes, degrees)
    assert body_axes(poses, LEGS) == pytest.approx(wanted, abs=1e-9)
    assert body_axes(poses[:1] + 5, LEGS) == pytest.approx(wanted, abs=1e-9)  # one frame is enough, anywhere


def test_distance_covered_changes_nothing():
    poses, wanted = recorded("z forwards, y up", 20)
    covered = poses + np.arange(len(poses))[:, None, None] * 0.05 * wanted[0]
    assert body_axes(covered, LEGS) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("axes", AXES)
def test_a_skeleton_whose_names_tell_nothing_walks_where_its_joints_swing(axes: str):
    poses, wanted = recorded(axes, 33)
    forwards, left, up = body_axes(poses, BARE)
    assert up == pytest.approx(wanted[2], abs=1e-9)  # feet move more than a head
    assert abs(forwards @ wanted[0]) == pytest.approx(1)
    assert np.cross(up, forwards) == pytest.approx(left)


def test_nothing_to_tell_from_is_no_error():
    for poses in (np.zeros((1, 8, 3)), np.zeros((5, 8, 3)), np.ones((3, 8, 3)) * (1, 0, 0)):
        axes = body_axes(poses, BARE)
        assert axes @ axes.T == pytest.approx(np.eye(3))
        assert np.isfinite(seen_from(poses, LEGS, View())).all()


def test_pairs_that_name_the_right_joint_first_are_understood():
    poses, wanted = recorded("x forwards, z up")
    swapped = Layout.custom(LEGS.joints, LEGS.bones, mirrored=[("right_hip", "left_hip"), ("left_knee", "right_knee"), ("right_foot", "left_foot")])
    assert body_axes(poses, swapped) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "of_forwards", "of_left", "of_up"),
    [
        (0, 0, (0, 0), (1, 0), (0, 1)),  # face to face: the walker's left is at the right
        (90, 0, (1, 0), (0, 0), (0, 1)),  # from the right-hand side they walk to the right
        (180, 0, (0, 0), (-1, 0), (0, 1)),
        (270, 0, (-1, 0), (0, 0), (0, 1)),
        (450, 0, (1, 0), (0, 0), (0, 1)),
        (90, 90, (1, 0), (0, 1), (0, 0)),  # from above
        (180, 90, (0, 1), (-1, 0), (0, 0)),
        (0, 30, (0, -0.5), (1, 0), (0, np.sqrt(0.75))),  # what is nearer stands lower
    ],
)
def test_what_is_seen_from_a_side(azimuth: float, elevation: float, of_forwards: tuple, of_left: tuple, of_up: tuple):
    poses, axes = recorded("z forwards, y up", 20)
    seen = seen_from(poses, LEGS, View(azimuth, elevation))
    along = poses @ axes.T  # forwards, left, up of every joint
    assert seen == pytest.approx(along @ np.array([of_forwards, of_left, of_up]), abs=1e-9)


def test_images_are_drawn_as_they_are():
    poses = np.random.default_rng(0).normal(size=(4, 8, 2))
    assert (seen_from(poses, LEGS, View(17, 40)) == poses * (1, -1)).all()


def test_a_side_in_words():
    assert View().in_words() == "from the right-hand side"
    assert View(360).in_words() == "from the front"
    assert View(-90, 20).in_words() == "from the left-hand side, 20° from above"
    assert View(30, -5).in_words() == "30° from the front, 5° from below"


@pytest.mark.parametrize("axes", AXES)
def test_a_body_stands_upright_and_faces_whoever_looks(axes: str):
    body = standing_body([recorded(axes, 70)[0]], LEGS)
    head, left, right = (body[LEGS.index(joint)] for joint in ("head", "left_foot", "right_foot"))
    assert head[1] > left[1]
    assert left[0] > right[0]


def test_of_images_the_one_from_the_front_is_taken_and_one_from_behind_turned():
    front = walker()[..., 1:] * (1, -1)  # left at the right, y down
    side, behind = walker()[..., [0, 2]] * (1, -1), front * (-1, 1)
    for walks in ([side, front], [behind, side]):
        assert standing_body(walks, LEGS) == pytest.approx(front.mean(0) * (1, -1))
    from_the_side_alone = standing_body([side], LEGS)
    assert from_the_side_alone[LEGS.index("left_foot"), 0] > from_the_side_alone[LEGS.index("right_foot"), 0] + 0.1
    assert standing_body([side], BARE) == pytest.approx(side.mean(0) * (1, -1))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_skeleton_has_a_body(name: str):
    poses = np.random.default_rng(0).normal(size=(5, LAYOUTS[name].num_joints, 3))
    assert standing_body([poses], LAYOUTS[name]).shape == (LAYOUTS[name].num_joints, 2)
