"""Pickles of pyskl, MMAction2 and OpenGait: what is read, what is left out, and that what is written reads back."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.formats.pickles import write_clips
from fastst.data.options import ReadOptions
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError, WalkSet
from fastst.layouts import LAYOUTS, Layout


def clip(name: str = "001-nm-01-000", people: int = 1, frames: int = 4, joints: int = 17, dimensions: int = 2, **changes: Any) -> dict[str, Any]:
    """A clip as pyskl writes it; `changes` replace its fields, None removes one."""
    rng = np.random.default_rng(frames)
    fields = {
        "frame_dir": name,
        "label": 3,
        "total_frames": frames,
        "img_shape": (240, 320),
        "original_shape": (240, 320),
        "keypoint": rng.uniform(10, 200, (people, frames, joints, dimensions)).astype(np.float16),
        "keypoint_score": rng.uniform(0.2, 1, (people, frames, joints)).astype(np.float16),
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def save(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def read(path: Path) -> list[Recording]:
    return read_recordings(path, progress=False)[0]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("is_bare", [False, True])
def test_pyskl(tmp_path: Path, protocol: int, is_bare: bool) -> None:
    clips = [clip("one"), clip("two", frames=3, label="fall", view="090", fps=25)]
    split = {"xsub_train": ["one"], "xsub_val": ["two"], "xview_train": ["one", "two"]}
    path = save(tmp_path / "ntu.pkl", clips if is_bare else {"split": split, "annotations": clips}, protocol)
    one, two = read(path)
    assert (one.places, two.places) == ((tmp_path.name, "ntu", "one"), (tmp_path.name, "ntu", "two"))
    splits = [{}, {}] if is_bare else [{"split": "xsub_train, xview_train"}, {"split": "xsub_val, xview_train"}]
    assert one.attributes == {"name": "one", "label": "3", **splits[0]}
    assert two.attributes == {"name": "two", "label": "fall", "view": "090", **splits[1]}
    assert (one.image_size, one.fps, two.fps, one.layout.name) == ((320, 240), None, 25.0, "coco17")
    np.testing.assert_array_equal(one.detections.joints, clips[0]["keypoint"][0].astype(np.float32))
    np.testing.assert_array_equal(one.detections.confidences, clips[0]["keypoint_score"][0].astype(np.float32))
    assert one.detections.frames.tolist() == [0, 1, 2, 3]
    assert one.detections.ids is None


@pytest.mark.parametrize(
    ("joints", "dimensions", "layout"),
    [
        (17, 2, "coco17"),
        (18, 2, "openpose18"),
        (25, 2, "openpose25"),
        (133, 2, "wholebody23"),
        (17, 3, "h36m17"),
        (20, 3, "kinect20"),
        (25, 3, "ntu25"),
    ],
)
def test_skeletons_by_their_size(tmp_path: Path, joints: int, dimensions: int, layout: str) -> None:
    shape = (240, 320) if dimensions == 2 else None
    made = clip(joints=joints, dimensions=dimensions, img_shape=shape, keypoint_score=None)
    [recording] = read(save(tmp_path / "a.pkl", [made]))
    assert recording.layout is LAYOUTS[layout]
    assert recording.detections.confidences is None
    np.testing.assert_array_equal(recording.detections.joints, made["keypoint"][0, :, : LAYOUTS[layout].num_joints].astype(np.float32))


def test_unknown_skeletons_are_named_by_an_option(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pkl", [clip(joints=5)])
    with pytest.raises(DataError, match=r"a\.pkl: no skeleton of 5 joints is known; known are coco17 \(17\).* Give --joints"):
        read_walks(path, progress=False)
    layout = tmp_path / "mine.json"
    layout.write_text('{"joints": ["hips", "left_knee", "right_knee", "left_foot", "right_foot"], "bones": [[0, 1], [0, 2], [1, 3], [2, 4]]}')
    walks = read_walks(path, ReadOptions(joints=str(layout)), progress=False)
    assert walks.layout.name == "mine"
    assert walks.poses[0].shape == (4, 5, 2)
    with pytest.raises(DataError, match="--joints coco17 has 17 joints, the data 5; give the skeleton of the data"):
        read_walks(path, ReadOptions(joints="coco17"), progress=False)
    with pytest.raises(DataError, match="--joints nothing: unknown layout 'nothing'"):
        read_walks(path, ReadOptions(joints="nothing"), progress=False)


def test_lists_in_place_of_arrays(tmp_path: Path) -> None:
    made = clip(people=2, frames=3)
    made["keypoint"][1, 2, 5] = np.nan
    lists = {**made, "keypoint": made["keypoint"].tolist(), "keypoint_score": made["keypoint_score"].tolist()}
    of_arrays = {**made, "keypoint": list(made["keypoint"]), "keypoint_score": list(made["keypoint_score"])}
    [expected] = read(save(tmp_path / "arrays.pkl", {"split": {}, "annotations": [made]}))
    for changed in (lists, of_arrays):
        for content in ({"split": {}, "annotations": [changed]}, [changed]):
            [found] = read(save(tmp_path / "lists.pkl", content))
            np.testing.assert_array_equal(found.detections.joints, expected.detections.joints)
            np.testing.assert_array_equal(found.detections.confidences, expected.detections.confidences)
    frames = clip(frames=3, dimensions=3)["keypoint"][0]
    [found] = read(save(tmp_path / "sequence.pkl", frames.tolist()))
    [expected] = read(save(tmp_path / "sequence.pkl", frames))
    np.testing.assert_array_equal(found.detections.joints, expected.detections.joints)


def test_a_list_that_is_named_over_and_over(tmp_path: Path) -> None:
    """A hundred bytes would be a list of 10^10 numbers."""
    inside: list[Any] = [1.0] * 100
    for _ in range(4):
        inside = [inside] * 100
    for content in ([clip(keypoint=inside)], inside):
        with pytest.raises(DataError, match="names the same lists over and over"):
            read(save(tmp_path / "a.pkl", content))
    flat = [[1.0] * 34] * 4000  # of fewer bytes than numbers, though of more than lists
    with pytest.raises(DataError, match="names the same lists over and over, 136000 numbers or more"):
        read(save(tmp_path / "a.pkl", flat))


def test_people_that_clips_are_filled_up_with_are_nobody(tmp_path: Path) -> None:
    made = clip(people=3, frames=5, keypoint_score=None)
    made["keypoint"][0, :2] = 0  # the first person comes later
    made["keypoint"][1] = 0  # nobody
    made["keypoint"][2, 3:] = np.nan
    [recording] = read(save(tmp_path / "a.pkl", [made]))
    detections = recording.detections
    assert detections.ids is not None
    assert list(zip(detections.ids.tolist(), detections.frames.tolist(), strict=True)) == [(0, 2), (0, 3), (0, 4), (2, 0), (2, 1), (2, 2)]
    np.testing.assert_array_equal(detections.joints[4], made["keypoint"][2, 1])


def test_the_only_person_is_missing_in_some_frames(tmp_path: Path) -> None:
    """They are frames of the walk, at its ends too."""
    made = clip(people=2, frames=5)
    made["keypoint"][1] = made["keypoint_score"][1] = 0
    made["keypoint_score"][0, 0] = made["keypoint_score"][0, 2, 4] = 0
    [recording] = read(save(tmp_path / "a.pkl", [made]))
    detections = recording.detections
    assert detections.frames.tolist() == [0, 1, 2, 3, 4]
    assert detections.ids is None
    np.testing.assert_array_equal(np.isnan(detections.joints).all(2), made["keypoint_score"][0] == 0)


def test_nobody(tmp_path: Path) -> None:
    made = clip()
    made["keypoint"][:] = made["keypoint_score"][:] = 0
    with pytest.raises(DataError, match=r"has no usable walk: .*no joint"):
        read_walks(save(tmp_path / "a.pkl", [made]), progress=False)


def test_the_third_number_is_a_score_in_a_picture_alone(tmp_path: Path) -> None:
    made = clip(dimensions=3, keypoint_score=None)
    made["keypoint"][..., 2] = 0.5
    made["keypoint"][0, 1, 2, 2] = 0
    [flat] = read(save(tmp_path / "a.pkl", [made]))
    assert (flat.layout.name, flat.detections.joints.shape) == ("coco17", (4, 17, 2))
    assert flat.detections.confidences is not None
    assert flat.detections.confidences[0, 0] == 0.5
    assert np.argwhere(np.isnan(flat.detections.joints).any(2)).tolist() == [[1, 2]]
    [solid] = read(save(tmp_path / "a.pkl", [clip(dimensions=3, keypoint_score=None, img_shape=None, keypoint=made["keypoint"])]))
    assert (solid.layout.name, solid.detections.joints.shape) == ("h36m17", (4, 17, 3))


DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_dir": 12}, "annotation 0: frame_dir is 12, expected the clip's name"),
        ({"frame_dir": " "}, "frame_dir is ' '"),
        ({"frame_dir": None}, "frame_dir is None"),
        ({"keypoint": [[1, 2], [3]]}, r"annotation 0 \(bad\): keypoint is a list, expected an array \[people, frames, joints, 2 or 3\]"),
        ({"keypoint": [[1, 2]]}, r"annotation 0 \(bad\): keypoint is an array \[1, 2\], expected \[people, frames, joints, 2 or 3\]"),
        ({"keypoint": [["x", "y"]]}, "keypoint is a list, expected an array"),
        ({"keypoint": DEEP}, "keypoint is a list"),
        ({"keypoint": None}, "keypoint is None"),
        ({"keypoint": None, "raw_file": "a/b.pkl"}, "has no keypoint, but says that it is in another file"),
        ({"keypoint": np.zeros((4, 17, 2))}, r"keypoint is an array \[4, 17, 2\]"),
        ({"keypoint": np.zeros((1, 4, 17, 4))}, r"keypoint is an array \[1, 4, 17, 4\]"),
        ({"keypoint": np.zeros((0, 4, 17, 2))}, r"keypoint is an array \[0, 4, 17, 2\]"),
        ({"keypoint": np.zeros((1, 0, 10**12, 2))}, "keypoint is an array"),
        ({"keypoint": np.full((1, 4, 17, 2), "x")}, "keypoint is an array of <U1, expected numbers"),
        ({"total_frames": 9}, "total_frames is 9, but keypoint has 4 frames"),
        ({"total_frames": "4"}, "total_frames is '4'"),
        pytest.param({"total_frames": 10**5000}, "total_frames is a number of more digits than", id="digits of frames"),
        ({"keypoint_score": np.zeros((1, 4, 16))}, r"keypoint_score is an array \[1, 4, 16\], expected \[1, 4, 17\]"),
        ({"keypoint_score": 1.0}, "keypoint_score is 1.0, expected an array"),
        ({"img_shape": "240x320"}, "img_shape is '240x320', expected height and width in pixels"),
        ({"img_shape": (0, 320)}, "img_shape is a tuple"),
        ({"label": [1, 2]}, "label is a list, expected a class's number or name"),
        pytest.param({"label": 10**5000}, "label is a number of more digits than", id="digits of a label"),
        ({"label": 0.5}, "label is 0.5"),
        ({"fps": 0}, "fps is 0, expected frames a second"),
        ({"fps": "25"}, "fps is '25'"),
    ],
)
def test_a_bad_clip_is_left_out(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "a.pkl", {"annotations": [clip("bad", **changes), clip("good")]})
    walks = read_walks(path, progress=False)
    assert walks.names == ["good"]
    [left] = walks.left_out
    assert left.reason.startswith(f"{path}, annotation 0")
    save(path, {"annotations": [clip("bad", **changes)]})
    with pytest.raises(DataError, match=message):
        read_walks(path, progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "annotations is a list, expected a list of one dict or more"),
        ({"annotations": {"a": clip()}}, "annotations is a dict with a"),
        ({"annotations": [1, clip()], "split": ["train"]}, "split is a list, expected a dict of lists of clips"),
        ({"annotations": [clip()], "split": np.zeros((2, 3))}, r"split is an array float64 \[2, 3\], expected a dict"),
        ({"annotations": [clip()], "split": {"train": "abc"}}, "split is a dict with train"),
        ({"annotations": [clip()], "layout": {"joints": ["a"]}}, "layout is a dict with joints, expected a dict with joints and bones: .*bones"),
        ({"annotations": [clip()], "layout": 3}, "layout is 3"),
        ({"annotations": [clip()], "layout": {"joints": ["a"], "bones": []}}, "keypoint has 17 joints, the file's layout 1"),
        ({"annotations": [clip()], "classes": "ab"}, "classes is 'ab', expected a list of names"),
        ({"annotations": [clip()], "classes": ["a"]}, "label is 3, but the file has 1 classes"),
        ({"annotations": [5]}, "annotation 0 is 5, expected a dict"),
        ({"a": 1}, "holds a dict with a; expected pyskl's dict with annotations"),
        ([], "holds a list; expected pyskl's dict"),
        (5, "holds 5"),
        pytest.param(10**5000, "holds a number of more digits than", id="digits"),
        ([np.zeros((2, 17, 3)), 4], "holds a list"),
        (np.zeros((10, 64, 44), np.uint8), r"array uint8 \[10, 64, 44\], which is pictures, such as silhouettes; give the poses"),
        (np.zeros((10, 51)), r"array float64 \[10, 51\], which is no poses"),
        (np.zeros((0, 17, 3)), "which is no poses"),
        (np.zeros((1, 10**4, 2)), "which is no poses"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: Any, message: str) -> None:
    path = save(tmp_path / "a.pkl", content)
    with pytest.raises(DataError, match=message) as caught:
        read_walks(path, progress=False)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("is_clip", [False, True])
def test_one_array_named_over_and_over(tmp_path: Path, is_clip: bool) -> None:
    array = np.ones((1, 60, 17, 2) if is_clip else (60, 17, 3))
    clips = [clip(f"{number}", keypoint=array, total_frames=60, keypoint_score=None) for number in range(2000)]
    content = clips if is_clip else [array] * 2000
    with pytest.raises(DataError, match="names the same arrays over and over"):
        read_walks(save(tmp_path / "a.pkl", content), progress=False)


def test_one_bad_file_never_loses_the_others(tmp_path: Path) -> None:
    save(tmp_path / "good.pkl", [clip("good")])
    whole = (tmp_path / "good.pkl").read_bytes()
    for name, content in {"cut": whole[:-500], "empty": b"", "mixed": b'{"a": 1}', "system": b"cos\nsystem\n(S'x'\ntR."}.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    walks = read_walks(tmp_path, progress=False)
    assert walks.names == ["good"]
    assert sorted(left.name for left in walks.left_out) == ["cut", "empty", "mixed", "system"]
    assert any("names 'os.system'" in left.reason for left in walks.left_out)


def test_opengait(tmp_path: Path) -> None:
    """A tree of <subject>/<type>-<sequence>/<view>/<view>.pkl with x, y and a score of every joint."""
    rng = np.random.default_rng(0)
    sequence = np.concatenate([rng.uniform(10, 200, (6, 17, 2)), rng.uniform(0.1, 1, (6, 17, 1))], axis=2)
    sequence[2, 5, 2] = 0
    for subject in ("001", "002"):
        folder = tmp_path / subject / "nm-01" / "090"
        folder.mkdir(parents=True)
        save(folder / "090.pkl", sequence)
    recordings = read(tmp_path)
    assert [recording.places for recording in recordings] == [(subject, "nm-01", "090", "090") for subject in ("001", "002")]
    detections = recordings[0].detections
    np.testing.assert_array_equal(detections.joints[:2], sequence[:2, :, :2].astype(np.float32))
    np.testing.assert_array_equal(detections.confidences, sequence[..., 2].astype(np.float32))
    assert np.argwhere(np.isnan(detections.joints).any(2)).tolist() == [[2, 5]]


@pytest.mark.parametrize(("third", "layout"), [((0, 1), "coco17"), ((-0.5, 0.5), "h36m17"), ((0, 1.5), "h36m17"), ((0, 0), "h36m17")])
def test_the_third_number_of_an_array(tmp_path: Path, third: tuple[float, float], layout: str) -> None:
    """A score if it can be one, also beside shares of the image; a coordinate otherwise."""
    sequence = np.random.default_rng(0).uniform(0, 1, (6, 17, 3))
    sequence[..., 2] = np.linspace(*third, 6 * 17).reshape(6, 17)
    [recording] = read(save(tmp_path / "a.pkl", sequence))
    assert recording.layout.name == layout
    assert recording.detections.joints.shape[2] == (2 if layout == "coco17" else 3)


def test_opengait_lists(tmp_path: Path) -> None:
    sequence = np.random.default_rng(0).uniform(5, 9, (6, 17, 3))
    [frames] = read(save(tmp_path / "a.pkl", list(sequence)))
    assert frames.places == (tmp_path.name, "a")
    np.testing.assert_array_equal(frames.detections.joints, sequence.astype(np.float32))
    first, second = read(save(tmp_path / "a.pkl", [sequence[:2], sequence[2:]]))
    assert (first.places[-1], second.places[-1]) == ("1", "2")
    np.testing.assert_array_equal(second.detections.joints, sequence[2:].astype(np.float32))


ANY_LAYOUT = st.sampled_from([*LAYOUTS.values(), Layout.custom(["a", "b"], [], "own"), Layout("own", ("x", "y"), ((1, 0),), (), (1,))])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=ANY_LAYOUT,
    dimensions=st.sampled_from([2, 3]),
    labels=st.sampled_from([["ä b", "c"], ["1", "0"], ["01", "1"], [None, "x"], [None, None]]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_reads_back(tmp_path: Path, lengths: list[int], layout: Layout, dimensions: int, labels: list[str | None], seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = [rng.uniform(-300, 300, (length, layout.num_joints, dimensions)).astype(np.float32) for length in lengths]
    for pose in poses:
        pose[rng.random(pose.shape[:2]) < 0.3] = np.nan
        pose[0, 0] = 150
    number = [str(i) for i in range(len(lengths))]
    column = {"label": (labels * 2)[: len(lengths)], "view": number, "split": ["train", "train, val", None, "test"][: len(lengths)]}
    written = WalkSet(
        layout, [f"walk/{i} 健康" for i in number], number, poses, column, fps=[None if i % 2 else 12.5 + i for i in range(len(lengths))]
    )
    write_clips(tmp_path / "walks.pkl", written, image_size=(320, 240))
    again = read_walks(tmp_path / "walks.pkl", ReadOptions(up="y") if dimensions == 3 else None, progress=False)
    known = {name: values for name, values in column.items() if any(values)}
    assert again.layout == layout
    assert (again.names, again.subjects, again.left_out, again.fps) == (written.names, written.subjects, [], written.fps)
    assert {name: values for name, values in again.attributes.items() if any(values)} == known
    for after, before in zip(again.poses, poses, strict=True):
        np.testing.assert_array_equal(after, before)


def test_others_read_what_is_written(tmp_path: Path) -> None:
    """pyskl's fields, in an ordinary pickle that calls NumPy 1's names."""
    poses = [np.full((3, 17, 2), 7.0, np.float32), np.full((2, 17, 2), np.nan, np.float32)]
    walks = WalkSet(LAYOUTS["coco17"], ["a", "b"], ["1", "2"], poses, {"label": ["ill", "well"]})
    write_clips(tmp_path / "walks.pkl", walks, image_size=(320, 240))
    content = (tmp_path / "walks.pkl").read_bytes()
    data = pickle.loads(content)
    first, second = data["annotations"]
    assert (data["split"], data["classes"]) == ({"all": ["a", "b"]}, ["ill", "well"])
    assert (first["frame_dir"], first["label"], first["total_frames"], first["img_shape"]) == ("a", 0, 3, (240, 320))
    assert (first["keypoint"].shape, first["keypoint_score"].shape, first["keypoint"].dtype) == ((1, 3, 17, 2), (1, 3, 17), np.float32)
    assert not second["keypoint"].any()
    assert not second["keypoint_score"].any()
    named = {argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert named == {"numpy.core.multiarray _reconstruct"}


def test_what_cannot_be_written(tmp_path: Path) -> None:
    walks = WalkSet(LAYOUTS["coco17"], ["a"], ["1"], [np.ones((3, 17, 2), np.float32)], {"label": ["x"]})
    with pytest.raises(DataError, match=r"a\.npy must end in \.pkl or \.pickle"):
        write_clips(tmp_path / "a.npy", walks)
    with pytest.raises(DataError, match="there are no walks"):
        write_clips(tmp_path / "a.pkl", walks.take([]))
    for column in ("keypoint", "subject", "fps"):
        with pytest.raises(DataError, match=f"an attribute can't be called '{column}'"):
            write_clips(tmp_path / "a.pkl", WalkSet(walks.layout, walks.names, walks.subjects, walks.poses, {column: ["x"]}))
    assert list(tmp_path.iterdir()) == []
