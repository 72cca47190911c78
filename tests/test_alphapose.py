"""AlphaPose results: which person is followed, what the walk is called, which files are left out and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastst.data.alphapose import MIN_KEYPOINT_SCORE, read_alphapose
from fastst.data.pose_csv import MAX_MISSING_FRAMES
from hypothesis import given, settings
from hypothesis import strategies as st

from fastst.data.read import read_walks
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


@pytest.mark.parametrize("joints", [17, 26])
def test_reads_coco17_and_halpe26(tmp_path: Path, joints: int) -> None:
    write(tmp_path, "012-nm-01-090.json", [detection(f"{frame}.jpg", 5.0 * frame, joints=joints) for frame in (2, 0, 1)])
    walks = read_walks(tmp_path)
    assert walks.layout is LAYOUTS["coco17"]
    assert (walks.names, walks.subjects) == (["012-nm-01-090"], ["012"])
    assert walks.attributes == {"condition": ["nm"], "view": ["090"]}
    assert walks.left_out == []
    [pose] = walks.poses
    assert (pose.shape, pose.dtype) == ((3, 17, 2), np.float32)
    np.testing.assert_array_equal(pose[:, 4], [[4, 75], [9, 75], [14, 75]])


@pytest.mark.parametrize("group", ["bodies", "people"])
def test_reads_frames_that_are_grouped_in_openpose_order(tmp_path: Path, group: str) -> None:
    key = {"bodies": "joints", "people": "pose_keypoints_2d"}[group]
    order = [LAYOUTS["coco17"].joints.index(joint) if joint != "neck" else 5 for joint in LAYOUTS["openpose18"].joints]
    image = [number for j in order for number in (float(j), float(2 * j), 0.9)]
    write(tmp_path, "a.json", {"0.jpg": {group: [{key: image}]}, "1.jpg": {group: []}, "2.jpg": {group: [{key: image}]}})
    [pose] = read_alphapose(tmp_path).poses
    np.testing.assert_array_equal(pose[0], [[j, 2 * j] for j in range(17)])
    assert np.isnan(pose[1]).all()
    write(tmp_path, "b.json", {"0.jpg": {group: [{key: image[3:]}]}})
    write(tmp_path, "c.json", {"0.jpg": [1]})
    write(tmp_path, "d.json", {"0.jpg": {group: [[1]]}})
    left_out = reasons(read_alphapose(tmp_path))
    assert "b.json, image '0.jpg': joints has 51 numbers, expected 54" in left_out["b"]
    assert "c.json: '0.jpg' is not an image" in left_out["c"]
    assert "d.json, image '0.jpg': joints" in left_out["d"]


@pytest.mark.parametrize("image_ids", [(7, 8, 10), ("7.jpg", "8.jpg", "10.jpg"), ("f2_000007.png", "f2_000008.png", "f2_000010.png")])
def test_frame_numbers_and_frames_without_a_detection(tmp_path: Path, image_ids: tuple[int | str, ...]) -> None:
    write(tmp_path, "a.json", [detection(image) for image in image_ids])
    [pose] = read_alphapose(tmp_path).poses
    assert np.isnan(pose).any(axis=(1, 2)).tolist() == [False, False, True, False]


def test_joints_with_a_low_score_are_nan(tmp_path: Path) -> None:
    person = detection(0)
    person["keypoints"][2] = 0
    person["keypoints"][5] = MIN_KEYPOINT_SCORE * 0.99
    person["keypoints"][8] = MIN_KEYPOINT_SCORE
    person["keypoints"][9] = None
    write(tmp_path, "a.json", [person])
    [pose] = read_alphapose(tmp_path).poses
    assert np.isnan(pose[0]).all(axis=1).nonzero()[0].tolist() == [0, 1, 3]
    assert not np.isnan(pose[0, [2, *range(4, 17)]]).any()


@pytest.mark.parametrize(
    ("file", "name", "subject", "view"),
    [
        ("012-cl-01-018.json", "012-cl-01-018", "012", "018"),
        ("ann_slow.json", "ann_slow", "ann", None),
        ("bob-2.json", "bob-2", "bob", None),
        ("carl.json", "carl", "carl", None),
        ("_x.json", "_x", "_x", None),
        ("videos/dora_1/alphapose-results.json", "dora_1", "dora", None),
        ("003-bg-02-036/alphapose-results.json", "003-bg-02-036", "003", "036"),
        ("003-bg-02-036/results/person.json", "003-bg-02-036", "003", "036"),
    ],
)
def test_names_of_walks(tmp_path: Path, file: str, name: str, subject: str, view: str | None) -> None:
    write(tmp_path, file, [detection(0)])
    walks = read_alphapose(tmp_path)
    assert (walks.names, walks.subjects, walks.attributes["view"]) == ([name], [subject], [view])


def test_a_name_that_is_taken_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "1/a.json", [detection(0)])
    second = write(tmp_path, "2/a.json", [detection(0)])
    walks = read_alphapose(tmp_path)
    assert walks.names == ["a"]
    assert reasons(walks) == {"a": f"{second}: another file holds a walk called 'a' too; rename one of them"}


@pytest.mark.parametrize("with_boxes", [True, False])
def test_follows_one_of_two_people_who_pass_each_other(tmp_path: Path, with_boxes: bool) -> None:
    remove = {} if with_boxes else {"box": None, "score": None}
    entries = []
    for frame in range(30):
        walker = detection(frame, left=4.0 * frame, size=200, **remove)
        bystander = detection(frame, left=60, size=80, **remove)
        entries += [walker, bystander] if frame % 2 else [bystander, walker]
    path = write(tmp_path, "a.json", entries)
    walks = read_alphapose(tmp_path)
    np.testing.assert_array_equal(walks.poses[0][:, 0, 0], 4.0 * np.arange(30))
    assert reasons(walks) == {"30 detection(s) in a": f"{path}: their boxes don't join up with those of the person followed"}


def test_the_longer_track_wins_at_the_same_size_and_score(tmp_path: Path) -> None:
    entries = [detection(frame, 500.0) for frame in range(5)] + [detection(frame, 0.0) for frame in range(8)]
    write(tmp_path, "a.json", entries)
    walks = read_alphapose(tmp_path)
    np.testing.assert_array_equal(walks.poses[0][:, 0, 0], np.zeros(8))
    assert list(reasons(walks)) == ["5 detection(s) in a"]


def test_score_and_size_make_somebody_prominent(tmp_path: Path) -> None:
    write(tmp_path, "a.json", [e for t in range(4) for e in (detection(t, 0.0), detection(t, 500.0, score=2.5))])
    write(tmp_path, "b.json", [e for t in range(4) for e in (detection(t, 0.0), detection(t, 500.0, size=120))])
    for pose in read_alphapose(tmp_path).poses:
        assert pose[0, 0, 0] == 500


def test_who_is_gone_too_long_is_somebody_new(tmp_path: Path) -> None:
    back = 4 + MAX_MISSING_FRAMES
    write(tmp_path, "short.json", [detection(t) for t in (0, 1, 2, 3, back)])
    write(tmp_path, "long.json", [detection(t) for t in (0, 1, 2, 3, back + 1)])
    walks = read_alphapose(tmp_path)
    assert {name: len(pose) for name, pose in zip(walks.names, walks.poses, strict=True)} == {"short": back + 1, "long": 4}
    assert list(reasons(walks)) == ["1 detection(s) in long"]


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(12)), people=st.integers(1, 3))
def test_the_order_of_detections_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[int], people: int) -> None:
    folder = tmp_path_factory.mktemp("videos")
    entries = [detection(f"{t}.jpg", 300.0 * (t % people) + t, size=100 + 20 * (t % people)) for t in range(12)]
    write(folder, "a.json", entries)
    write(folder, "b.json", [entries[i] for i in order])
    first, second = read_alphapose(folder).poses
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[\n{\n,", "bad.json, line 3: not JSON"),
        ("", "bad.json, line 1: not JSON"),
        ("[" * 100_000, "bad.json is not JSON"),
        ([], "bad.json has no detection"),
        ({}, "bad.json has no detection"),
        (3, "bad.json holds 3; expected AlphaPose's list"),
        ([detection(0), 5], "bad.json, detection 1: expected an object with image_id and keypoints, found 5"),
        ([detection(0, keypoints=None)], "bad.json, detection 0: expected an object with image_id and keypoints"),
        ([detection(0), detection(1, joints=18)], "bad.json, detection 1: keypoints has 54 numbers, expected 51 or 78"),
        ([detection(0), detection(1, joints=26)], "bad.json has detections with 17 and with 26 keypoints"),
        ([detection(0, keypoints=["x"] * 51)], "bad.json, detection 0: keypoints is ['x', 'x'"),
        ([detection(0, keypoints=[1e999] * 51)], "bad.json, detection 0: keypoints has an infinite number"),
        ([detection(0, keypoints=[10**400] * 51)], "bad.json, detection 0: keypoints is [1000"),
        ([detection(0, keypoints=7)], "bad.json, detection 0: keypoints has 1 numbers"),
        ([detection(0, box=[1, 2, 3])], "bad.json, detection 0: box has 3 numbers, expected 4"),
        ([detection(0, score="high")], "bad.json, detection 0: score is ['high']"),
        ([detection("first.jpg")], "bad.json, detection 0: image_id is 'first.jpg', expected a frame number"),
        ([detection(0, keypoints=[1, 1, 0.01] * 17)], "bad.json: the person followed has no joint with a score of at least 0.05"),
    ],
)
def test_a_bad_file_is_left_out(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, "bad.json", content)
    write(tmp_path, "good.json", [detection(0)])
    walks = read_alphapose(tmp_path)
    assert walks.names == ["good"]
    assert list(reasons(walks)) == ["bad"]
    assert f"{path.parent}/{message}" in reasons(walks)["bad"]


def test_a_folder_without_a_usable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        read_alphapose(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no \.json file"):
        read_alphapose(tmp_path)
    write(tmp_path, "a.json", [])
    (tmp_path / "b.json").write_bytes(b"\xff\xff\xff")
    with pytest.raises(DataError, match=r"no usable AlphaPose result in 2 \.json file\(s\): .*a\.json has no detection.*b\.json is not JSON"):
        read_alphapose(tmp_path)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, "videos/a.json", [detection(0)]).parent
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    read_alphapose(folder, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal
    read_alphapose(folder, progress=False)
    assert capfd.readouterr() == ("", "")
    read_alphapose(folder, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "videos" in shown.err
