import json

import numpy as np
import pytest

from fastst.layouts import LAYOUTS, Layout, get_layout

SIZES = {
    "coco17": (17, 19),
    "coco18": (18, 18),
    "openpose18": (18, 17),
    "openpose25": (25, 24),
    "ntu25": (25, 24),
    "h36m17": (17, 16),
    "kinect20": (20, 19),
    "stgcn18": (18, 17),
    "ntu24": (24, 23),
    "halpe26": (26, 27),
    "wholebody23": (23, 25),
    "mediapipe33": (33, 39),
}


def test_all_with_their_joints_and_bones():
    assert {name: (layout.num_joints, len(layout.bones)) for name, layout in LAYOUTS.items()} == SIZES


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_skeleton_is_one_piece_and_symmetric(layout: Layout):
    assert layout.joint_distance().max() < layout.num_joints
    order = layout.mirror_order()
    assert np.array_equal(order[order], np.arange(layout.num_joints))
    bones = {frozenset(bone) for bone in layout.bones}
    assert {frozenset(int(order[j]) for j in bone) for bone in bones} == bones
    sided = [name for name in layout.joints if name.startswith(("left_", "right_"))]
    assert len(sided) == 2 * len(layout.mirrored)
    for left, right in layout.mirrored:
        assert {layout.joints[left].split("_", 1)[1]} == {layout.joints[right].split("_", 1)[1]}


def test_custom_by_name_finds_pairs_and_root():
    layout = Layout.custom(
        ["Hips", "LKnee", "RKnee", "leftarm1", "rightarm"], [("Hips", "LKnee"), ("Hips", "RKnee"), (0, "leftarm1"), (0, 4)], "mine"
    )
    assert layout.bones == ((0, 1), (0, 2), (0, 3), (0, 4))
    assert {frozenset(pair) for pair in layout.mirrored} == {frozenset((1, 2)), frozenset((3, 4))}
    assert layout.root == (0,)


def test_dictionary_and_file_round_trip(tmp_path):
    layout = LAYOUTS["kinect20"]
    assert get_layout(layout.to_dict()) == layout
    file = tmp_path / "body.json"
    file.write_text(json.dumps(layout.to_dict()))
    assert get_layout(str(file)) == layout


def test_distance_between_parts_that_are_not_joined_is_never_within_reach():
    layout = Layout.custom(["a", "b"], [])
    assert layout.joint_distance()[0, 1] > 10**6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": [], "bones": []}, "has no joints"),
        ({"joints": ["a", "a"], "bones": []}, r"joint names \['a'\] appear more than once"),
        ({"joints": ["a", "b"], "bones": [(0, 2)]}, r"bone \(0, 2\) names joint 2, but its joints are 0 to 1"),
        ({"joints": ["a", "b"], "bones": [(0, 0)]}, "must join two different joints"),
        ({"joints": ["a", "b"], "bones": [("a", "c")]}, "has no joint 'c'; it has a, b"),
        ({"joints": ["a", "b"], "bones": [(0, 1, 1)]}, "must be a pair of joints"),
        ({"joints": ["a", "b"]}, r"a layout needs \['bones'\]"),
        ({"joints": ["a"], "bones": [], "edges": []}, r"\['edges'\] are unknown"),
        ({"joints": ["a"], "bones": [], "root": []}, "has no root joints"),
    ],
)
def test_bad_layouts(fields, message):
    with pytest.raises(ValueError, match=message):
        get_layout(fields)


def test_bad_layout_files(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.json can't be read"):
        get_layout(str(tmp_path / "nothing.json"))
    file = tmp_path / "body.json"
    for text, message in (("{", "is not JSON"), ("[]", "must hold an object"), ('{"joints": ["a"], "bones": [[0, 1]]}', "names joint 1")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            get_layout(str(file))


# The bones of ST-GCN's own graphs, as printed there, and its centres.
ST_GCN = {
    "stgcn18": ("4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14", 0, 1),
    "ntu25": ("1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 22-23 23-8 24-25 25-12", 1, 20),
    "ntu24": ("1-2 3-2 4-3 5-2 6-5 7-6 8-7 9-2 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 21-22 22-8 23-24 24-12", 1, 2),
}


@pytest.mark.parametrize("name", ST_GCN)
def test_bones_are_those_of_st_gcn(name: str):
    printed, first, centre = ST_GCN[name]
    wanted = {frozenset(int(joint) - first for joint in bone.split("-")) for bone in printed.split()}
    assert {frozenset(bone) for bone in LAYOUTS[name].bones} == wanted
    assert LAYOUTS[name]._centre(None) == centre


# Bones as MMPose and MediaPipe print them, the latter joint by joint.
COCO_LIMBS = "left_ankle-left_knee left_knee-left_hip right_ankle-right_knee right_knee-right_hip left_shoulder-left_elbow right_shoulder-right_elbow"
COCO_FACE = "left_eye-right_eye nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear left_ear-left_shoulder right_ear-right_shoulder"
FEET = " ".join(f"{side}_ankle-{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
WRISTS = "left_elbow-left_wrist right_elbow-right_wrist"
PRINTED = {
    "halpe26": f"{COCO_LIMBS} {COCO_FACE} {FEET} {WRISTS} left_hip-hip right_hip-hip head-neck neck-hip neck-left_shoulder neck-right_shoulder",
    "wholebody23": f"{COCO_LIMBS} {COCO_FACE} {FEET} {WRISTS} left_hip-right_hip left_shoulder-left_hip right_shoulder-right_hip "
    "left_shoulder-right_shoulder",
    "mediapipe33": "0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 14-16 16-18 16-20 16-22 18-20 11-23 12-24 "
    "23-24 23-25 24-26 25-27 26-28 27-29 28-30 29-31 30-32 27-31 28-32",
}
ADDED = {"mediapipe33": {("nose", "left_mouth"), ("nose", "right_mouth"), ("left_mouth", "left_shoulder"), ("right_mouth", "right_shoulder")}}


@pytest.mark.parametrize("name", PRINTED)
def test_bones_are_those_that_their_makers_draw(name: str):
    layout = LAYOUTS[name]
    pairs = [bone.split("-") for bone in PRINTED[name].split()]
    printed = {frozenset(layout.joints[int(end)] if end.isdigit() else end for end in pair) for pair in pairs}
    assert {frozenset(layout.joints[j] for j in bone) for bone in layout.bones} == printed | {frozenset(pair) for pair in ADDED.get(name, ())}


def test_joints_are_in_the_order_of_their_makers():
    assert LAYOUTS["halpe26"].joints[:17] == LAYOUTS["wholebody23"].joints[:17] == LAYOUTS["coco17"].joints
    assert LAYOUTS["halpe26"].joints[17:22] == ("head", "neck", "hip", "left_big_toe", "right_big_toe")
    assert LAYOUTS["wholebody23"].joints[17:21] == ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe")
    numbers = {"left_eye_outer": 3, "right_eye_inner": 4, "left_ear": 7, "right_mouth": 10, "left_pinky": 17, "right_foot_index": 32}
    assert {joint: LAYOUTS["mediapipe33"].index(joint) for joint in numbers} == numbers


def partitions_one_by_one(layout: Layout, strategy: str, max_hop: int, centre: int) -> np.ndarray:
    """Pair by pair, with the distances as the steps in which powers of the matrix first reach."""
    J = layout.num_joints
    step = np.eye(J)
    for a, b in layout.bones:
        step[a, b] = step[b, a] = 1
    distance = np.full((J, J), np.inf)
    for hop in range(max_hop, -1, -1):
        distance[np.linalg.matrix_power(step, hop) > 0] = hop
    K = {"uniform": 1, "distance": max_hop + 1, "spatial": 2 * max_hop + 1}[strategy]
    A = np.zeros((K, J, J))
    for src in range(J):
        for dst in range(J):
            hop = distance[src, dst]
            if hop > max_hop:
                continue
            k = 0 if strategy == "uniform" or hop == 0 else int(hop)
            if strategy == "spatial" and hop > 0:
                k = 2 * int(hop) - 1 + int(distance[src, centre] < distance[dst, centre])
            A[k, src, dst] = 1 / np.isfinite(distance[:, dst]).sum()
    return A


@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial"])
@pytest.mark.parametrize("max_hop", [1, 2, 3])
@pytest.mark.parametrize("name", ST_GCN)
def test_partitions_of_st_gcn(name: str, strategy: str, max_hop: int):
    layout = LAYOUTS[name]
    A = layout.partitions(strategy, max_hop)
    np.testing.assert_allclose(A, partitions_one_by_one(layout, strategy, max_hop, ST_GCN[name][2]), atol=1e-15)
    np.testing.assert_allclose(A.sum((0, 1)), 1)


def test_partitions_of_any_layout_and_what_is_refused():
    for layout in LAYOUTS.values():
        assert layout.partitions("spatial", centre=0).shape == (3, layout.num_joints, layout.num_joints)
    apart = Layout.custom(["a", "b"], [])
    np.testing.assert_array_equal(apart.partitions("spatial", centre="b"), [np.eye(2), np.zeros((2, 2)), np.zeros((2, 2))])
    for arguments, message in (
        (("radial",), "strategy must be one of uniform, distance, spatial, got 'radial'"),
        (("spatial", 0), "max_hop must be a whole number of at least 1, got 0"),
        (("spatial", 1, "neck"), "layout 'coco17' has no joint 'neck'"),
        (("spatial", 1, 17), "centre 17 is no joint; they are 0 to 16"),
        (("spatial",), "layout 'coco17' has none of the joints spine_shoulder, .*; say which joint is the centre"),
    ):
        with pytest.raises(ValueError, match=message):
            LAYOUTS["coco17"].partitions(*arguments)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": ["a"], "bones": [], "colour": "red"}, r"a layout has the keys \['bones', .*\]; \['colour'\] are unknown"),
        ({"name": "mine"}, r"a layout needs \['(bones|joints)', '(bones|joints)'\]"),
        ({"joints": "ab", "bones": []}, "its joints are a list of names"),
    ],
)
def test_a_mapping_that_is_no_layout(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Layout.from_dict(fields)
