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
}


def test_all_seven_with_their_joints_and_bones():
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
