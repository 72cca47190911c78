"""AlphaPose results: which person is followed, what the walk is called, which files are left out and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastst.data.formats.alphapose import MIN_KEYPOINT_SCORE
from fastst.data.read import read_recordings, read_walks
from fastst.data.walks import DataError, WalkSet
from fastst.layouts import LAYOUTS


def detection(frame: int | str, left: float = 0.0, size: float = 100.0, joints: int = 17, **changes: Any) -> dict[str, Any]:
    """Somebody in the box from (left, 50); joint j is at (left + j, 50 + size * j / 16). Changes replace keys, None removes one."""
    keypoints = [number for j in range(joints) for number in (left + j, 50 + size * j / 16, 0.9)]
    fields = {"image_id": frame, "category_id": 1, "keypoints": keypoints, "score": 2.0, "box": [left, 50, size / 2, size], **changes}
    return {key: value for key, value in fields.items() if value is not None}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def reasons(walks: WalkSet) -> dict[str, str]:
    return {left.name: left.reason for left in walks.left_out}


@pytest.mark.parametrize(("joints", "layout"), [(17, "coco17"), (26, "halpe26"), (136, "halpe26"), (133, "wholebody23")])
def test_reads_coco_halpe_and_wholebody(tmp_path: Path, joints: int, layout: str) -> None:
    write(tmp_path, "012-nm-01-090.json", [detection(f"{frame}.jpg", 5.0 * frame, joints=joints) for frame in (2, 0, 1)])
    walks = read_walks(tmp_path, progress=False)
    assert walks.layout is LAYOUTS[layout]
    assert (walks.names, walks.subjects, walks.left_out) == (["012-nm-01-090"], ["012"], [])
    assert walks.attributes == {"condition": ["nm"], "sequence": ["01"], "view": ["090"]}
    [pose] = walks.poses
    assert (pose.shape, pose.dtype) == ((3, walks.layout.num_joints, 2), np.float32)
    np.testing.assert_array_equal(pose[:, 4], [[4, 75], [9, 75], [14, 75]])


@pytest.mark.parametrize("group", ["bodies", "people"])
def test_reads_frames_that_are_grouped_in_openpose_order(tmp_path: Path, group: str) -> None:
    key = {"bodies": "joints", "people": "pose_keypoints_2d"}[group]
    image = [number for j in range(18) for number in (float(j), float(2 * j), 0.9)]
    path = write(tmp_path, "a.json", {"0.jpg": {group: [{key: image}]}, "1.jpg": {group: []}, "2.jpg": {group: [{key: image}]}, "3.jpg": [1]})
    [recording], _ = read_recordings(path, progress=False)
    assert recording.layout is LAYOUTS["openpose18"]
    assert recording.detections.frames.tolist() == [0, 2]
    np.testing.assert_array_equal(recording.detections.joints, [[[j, 2 * j] for j in range(18)]] * 2)
    [left] = recording.left_out
    assert left.reason == f"{path}, image '3.jpg' is [1.0], expected an object with a list 'bodies' or 'people'"


@pytest.mark.parametrize("image_ids", [(7, 8, 10), ("7.jpg", "8.jpg", "10.jpg"), ("f2_000007.png", "f2_000008.png", "f2_000010.png")])
def test_frame_numbers_and_frames_without_a_detection(tmp_path: Path, image_ids: tuple[int | str, ...]) -> None:
    write(tmp_path, "a.json", [detection(image) for image in image_ids])
    [pose] = read_walks(tmp_path, progress=False).poses
    assert np.isnan(pose).any(axis=(1, 2)).tolist() == [False, False, True, False]


def test_joints_with_a_low_score_are_nan(tmp_path: Path) -> None:
    person = detection(0)
    person["keypoints"][2] = 0
    person["keypoints"][5] = MIN_KEYPOINT_SCORE * 0.99
    person["keypoints"][8] = MIN_KEYPOINT_SCORE
    person["keypoints"][9] = None
    write(tmp_path, "a.json", [person])
    [pose] = read_walks(tmp_path, progress=False).poses
    assert np.isnan(pose[0]).all(axis=1).nonzero()[0].tolist() == [0, 1, 3]
    assert not np.isnan(pose[0, [2, *range(4, 17)]]).any()


@pytest.mark.parametrize("with_boxes", [True, False])
def test_follows_one_of_two_people_who_pass_each_other(tmp_path: Path, with_boxes: bool) -> None:
    remove = {} if with_boxes else {"box": None, "score": None}
    entries = []
    for frame in range(30):
        walker = detection(frame, left=4.0 * frame, size=200, **remove)
        bystander = detection(frame, left=60, size=80, **remove)
        entries += [walker, bystander] if frame % 2 else [bystander, walker]
    write(tmp_path, "a.json", entries)
    walks = read_walks(tmp_path, progress=False)
    np.testing.assert_array_equal(walks.poses[0][:, 0, 0], 4.0 * np.arange(30))
    assert list(reasons(walks)) == ["30 detection(s) in a"]


def test_the_longer_track_wins_at_the_same_size_and_score(tmp_path: Path) -> None:
    entries = [detection(frame, 500.0) for frame in range(5)] + [detection(frame, 0.0) for frame in range(8)]
    write(tmp_path, "a.json", entries)
    walks = read_walks(tmp_path, progress=False)
    np.testing.assert_array_equal(walks.poses[0][:, 0, 0], np.zeros(8))
    assert list(reasons(walks)) == ["5 detection(s) in a"]


def test_score_and_size_make_somebody_prominent(tmp_path: Path) -> None:
    write(tmp_path, "a.json", [e for t in range(4) for e in (detection(t, 0.0), detection(t, 500.0, score=2.5))])
    write(tmp_path, "b.json", [e for t in range(4) for e in (detection(t, 0.0), detection(t, 500.0, size=120))])
    for pose in read_walks(tmp_path, progress=False).poses:
        assert pose[0, 0, 0] == 500


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(12)), people=st.integers(1, 3))
def test_the_order_of_detections_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[int], people: int) -> None:
    folder = tmp_path_factory.mktemp("videos")
    entries = [detection(f"{t}.jpg", 300.0 * (t % people) + t, size=100 + 20 * (t % people)) for t in range(12)]
    write(folder, "a.json", entries)
    write(folder, "b.json", [entries[i] for i in order])
    first, second = read_walks(folder, progress=False).poses
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[\n{\n,", "bad.json, line 3: the file is cut off after 0 complete element(s)"),
        ("", "bad.json is empty"),
        ("[" * 100_000, "bad.json is no file of walks: its lists are nested more than 200 deep"),
        ([], "bad.json has no detection"),
        ({}, "bad.json is of no form that can be read"),
        (3, "bad.json is of no form that can be read"),
        ([detection(0, keypoints=["x"] * 51)], "bad.json, detection 0: keypoints is ['x', 'x'"),
        ([detection(0, keypoints=[10**400] * 51)], "bad.json, detection 0: keypoints has an infinite number"),
        ([detection(0, keypoints=7)], "bad.json, detection 0: keypoints is 7"),
        ([detection(0, keypoints=[])], "bad.json, detection 0: keypoints is []"),
        ([detection(0, box=[1, 2, 3])], "bad.json, detection 0: box has 3 numbers, expected 4"),
        ([detection(0, score="high")], "bad.json, detection 0: score is 'high'"),
        ([detection("first.jpg")], "bad.json, detection 0: image_id is 'first.jpg', expected a frame number"),
        ([detection(0, joints=21)], "bad.json: no skeleton of 21 joints is known"),
    ],
)
def test_a_bad_file_is_left_out(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, "bad.json", content)
    write(tmp_path, "good.json", [detection(0)])
    walks = read_walks(tmp_path, progress=False)
    assert walks.names == ["good"]
    assert list(reasons(walks)) == ["bad"]
    assert f"{path.parent}/{message}" in reasons(walks)["bad"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (5, "image_id is None, expected a frame number"),
        (detection(1, keypoints=None), "keypoints is None, expected 51 numbers"),
        (detection(1, joints=18), "keypoints has 54 numbers, expected 51"),
        (detection(1, joints=26), "keypoints has 78 numbers, expected 51"),
        (detection(10**30), "image_id is 1000000000000000000000000000000, expected a frame number"),
        (detection(-1), "image_id is -1, expected a frame number"),
    ],
)
def test_a_bad_detection_is_left_out(tmp_path: Path, bad: Any, message: str) -> None:
    path = write(tmp_path, "a.json", [detection(0), bad, detection(2)])
    [recording], _ = read_recordings(path, progress=False)
    assert recording.detections.frames.tolist() == [0, 2]
    [left] = recording.left_out
    assert left.reason.startswith(f"{path}, detection 1: {message}")


def test_score_and_box_of_some_only(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", [detection(0), detection(1, box=None, score=None)])
    [recording], _ = read_recordings(path, progress=False)
    assert (recording.detections.boxes, recording.detections.scores, recording.detections.ids) == (None, None, None)
    path = write(tmp_path, "b.json", [detection(0, keypoints=np.reshape(detection(0)["keypoints"], (17, 3)).tolist(), box=[[1, 2, 3, 4]])])
    [nested], _ = read_recordings(path, progress=False)
    np.testing.assert_array_equal(nested.detections.joints[0], recording.detections.joints[0])
    np.testing.assert_array_equal(nested.detections.boxes, [[1, 2, 4, 6]])


def test_a_folder_without_a_usable_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.json", [])
    (tmp_path / "b.json").write_bytes(b"[\xff\xff\xff")
    with pytest.raises(DataError, match=r"no usable walk in 2 file\(s\): .*b\.json, line 1: the file is cut off"):
        read_walks(tmp_path, progress=False)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "videos/a.json", [detection(0)])
    folder = write(tmp_path, "videos/b.json", [detection(0)]).parent
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    read_walks(folder, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal
    read_walks(folder, progress=False)
    assert capfd.readouterr() == ("", "")
    read_walks(folder, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "videos" in shown.err
