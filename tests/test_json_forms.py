"""Forms of JSON: what is read of each, that each is told from the others, and what is said of damaged files."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastst.data.formats import JSON_FORMS, content
from fastst.data.formats.content import parse_json
from fastst.data.options import ReadOptions
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.errors import UserError
from fastst.layouts import LAYOUTS

T = 6


def body(frame: int, joints: int = 17, dims: int = 2) -> np.ndarray:
    """Where joint j is: x is 100 + 3 frame + j, y is 200 + 2 j, z is j.  # [joints, dims]"""
    j = np.arange(joints)
    return np.stack([100 + 3 * frame + j, 200 + 2 * j, j][:dims], axis=1).astype(float)


def flat(frame: int, joints: int = 17, confidence: float = 0.9) -> list[float]:
    return np.column_stack([body(frame, joints), np.full(joints, confidence)]).ravel().tolist()


def alphapose(joints: int = 17) -> Any:
    return [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": flat(t, joints), "score": 2.5, "box": [90, 190, 50, 80], "idx": 4} for t in range(T)
    ]


def alphapose_images(group: str, key: str) -> Any:
    return {f"{t}.jpg": {"version": "AlphaPose v0.3", group: [{key: flat(t, 18)}]} for t in range(T)}


def openpose(joints: int = 25) -> Any:
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat(0, joints), "pose_keypoints_3d": []}]}


def instance(frame: int, dims: int = 2) -> dict[str, Any]:
    scores = {"keypoint_scores": [0.9] * 17, "bbox": [[90, 190, 140, 270]], "bbox_score": 0.8, "track_id": 3}
    return {"keypoints": body(frame, dims=dims).tolist(), **scores}


def mmpose(dims: int = 2) -> Any:
    return [{"frame_id": t, "instances": [instance(t, dims)]} for t in range(T)]


def coco_results() -> Any:
    return [{"image_id": t, "category_id": 1, "keypoints": flat(t), "score": 0.8} for t in range(T)]


def coco_annotations() -> Any:
    return {
        "images": [{"id": 70 + t, "file_name": f"walk/{t:06}.jpg", "width": 640, "height": 480} for t in range(T)],
        "annotations": [{"image_id": 70 + t, "keypoints": flat(t, 17, 2), "bbox": [90, 190, 50, 80], "track_id": 3} for t in range(T)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(LAYOUTS["coco17"].joints)}],
    }


def person_frames() -> Any:
    return {"7": {f"{t:04}": {"keypoints": flat(t), "scores": None} for t in range(T)}}


def yolo(frame: int) -> list[dict[str, Any]]:
    x, y = body(frame).T.tolist()
    box = {"x1": 90, "y1": 190, "x2": 140, "y2": 270}
    return [{"name": "person", "class": 0, "confidence": 0.8, "box": box, "track_id": 3, "keypoints": {"x": x, "y": y, "visible": [0.9] * 17}}]


def points(frame: int, shift: float = 0.0) -> list[dict[str, float]]:
    names = ("x", "y", "z", "visibility")
    return [dict(zip(names, [*row, 0.9], strict=True)) for row in (body(frame, 33, 3) - shift).tolist()]


def mediapipe() -> Any:
    return {"fps": 25, "width": 640, "height": 480, "frames": [{"frame": t, "pose_landmarks": points(t)} for t in range(T)]}


def pose(frame: int) -> dict[str, Any]:
    """As MoveNet gives it in JavaScript."""
    named = zip(body(frame).tolist(), LAYOUTS["coco17"].joints, strict=True)
    return {"score": 0.8, "keypoints": [{"y": y, "x": x, "score": 0.9, "name": joint} for (x, y), joint in named]}


def kinetics() -> Any:
    def skeleton(t: int) -> dict[str, Any]:
        return {"pose": body(t, 18).ravel().tolist(), "score": [0.9] * 18}

    return {"data": [{"frame_index": t, "skeleton": [skeleton(t)]} for t in range(T)], "label": "jogging", "label_index": 169}


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def only(path: Path) -> Recording:
    [recording], left_out = read_recordings(path, progress=False)
    assert left_out == []
    return recording


# One of every form, with its skeleton and how many of the T frames it holds.
FORMS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "AlphaPose's JSON": (alphapose, "coco17", T),
    "OpenPose's JSON": (openpose, "openpose25", 1),
    "MMPose's JSON": (mmpose, "coco17", T),
    "COCO results": (coco_results, "coco17", T),
    "COCO annotations": (coco_annotations, "coco17", T),
    "person → frame → keypoints": (person_frames, "coco17", T),
    "MoveNet's and PoseNet's JSON": (lambda: [[pose(t)] for t in range(T)], "coco17", T),
    "ultralytics' JSON": (lambda: [yolo(t) for t in range(T)], "coco17", T),
    "MediaPipe's landmarks as JSON": (mediapipe, "mediapipe33", T),
    "Kinetics-skeleton": (kinetics, "openpose18", T),
}

VARIANTS: dict[str, tuple[Callable[[], Any], str, str, int]] = {
    "halpe26": (lambda: alphapose(26), "AlphaPose's JSON", "halpe26", T),
    "halpe136": (lambda: alphapose(136), "AlphaPose's JSON", "halpe26", T),
    "wholebody133": (lambda: alphapose(133), "AlphaPose's JSON", "wholebody23", T),
    "cmu": (lambda: alphapose_images("bodies", "joints"), "AlphaPose's JSON", "openpose18", T),
    "open": (lambda: alphapose_images("people", "pose_keypoints_2d"), "AlphaPose's JSON", "openpose18", T),
    "sep-json": (lambda: alphapose_images("people", "pose_keypoints_2d")["0.jpg"], "OpenPose's JSON", "openpose18", 1),
    "openpose18": (lambda: openpose(18), "OpenPose's JSON", "openpose18", 1),
    "save_predictions": (lambda: {"meta_info": {"num_keypoints": 17}, "instance_info": mmpose()}, "MMPose's JSON", "coco17", T),
    "without numbers": (lambda: [{"instances": [instance(t)]} for t in range(T)], "MMPose's JSON", "coco17", T),
    "3d": (lambda: mmpose(3), "MMPose's JSON", "h36m17", T),
    "image": (lambda: [instance(0)], "MMPose's JSON", "coco17", 1),
    "saved image": (lambda: {"meta_info": {}, "instance_info": [instance(0)]}, "MMPose's JSON", "coco17", 1),
    "frame → person": (lambda: {f"{t:04}": {"7": flat(t)} for t in range(T)}, "person → frame → keypoints", "coco17", T),
    "yolo frame": (lambda: yolo(0), "ultralytics' JSON", "coco17", 1),
    "yolo strings": (lambda: [json.dumps(yolo(t)) for t in range(T)], "ultralytics' JSON", "coco17", T),
    "list of points": (lambda: [points(t) for t in range(T)], "MediaPipe's landmarks as JSON", "mediapipe33", T),
    "several people": (lambda: [{"poseLandmarks": [points(t)]} for t in range(T)], "MediaPipe's landmarks as JSON", "mediapipe33", T),
    "protobuf": (lambda: [{"pose_landmarks": {"landmark": points(t)}} for t in range(T)], "MediaPipe's landmarks as JSON", "mediapipe33", T),
    "by frame": (lambda: {"fps": 30, **{f"frame_{t}": points(t) for t in range(T)}}, "MediaPipe's landmarks as JSON", "mediapipe33", T),
    "arrays": (lambda: [{"landmarks": body(t, 33, 2).tolist()} for t in range(T)], "MediaPipe's landmarks as JSON", "mediapipe33", T),
    "points frame": (lambda: points(0), "MediaPipe's landmarks as JSON", "mediapipe33", 1),
    "named points": (lambda: [[{"name": "p", **p} for p in points(t)] for t in range(T)], "MediaPipe's landmarks as JSON", "mediapipe33", T),
}
CASES = {name: (make, name, layout, count) for name, (make, layout, count) in FORMS.items()} | VARIANTS


def test_every_form_has_a_case() -> None:
    assert set(FORMS) == {form.name for form in JSON_FORMS}


@pytest.mark.parametrize("case", CASES)
def test_just_one_form_recognises_it(tmp_path: Path, case: str) -> None:
    make, form, _, _ = CASES[case]
    parsed = parse_json(write(tmp_path, "a.json", make())).first
    assert [one.name for one in JSON_FORMS if one.recognises(parsed)] == [form]


@pytest.mark.parametrize("form", JSON_FORMS, ids=lambda form: form.name)
def test_the_sample_is_of_the_form(tmp_path: Path, form: Any) -> None:
    text = form.sample.split("\nor", 1)[0]
    assert len(text.splitlines()) <= 6
    text = text.replace(", ...", "").replace(",\n  ...", "")
    parsed = parse_json(write(tmp_path, "a.json", text)).first
    assert [one.name for one in JSON_FORMS if one.recognises(parsed)] == [form.name]


@pytest.mark.parametrize("case", CASES)
def test_reads_every_joint_of_every_frame(tmp_path: Path, case: str) -> None:
    make, _, layout, count = CASES[case]
    recording = only(write(tmp_path, "7.json" if count == 1 else "a.json", make()))
    detections = recording.detections
    assert recording.layout is LAYOUTS[layout]
    dims = detections.joints.shape[2]
    frames = range(count)
    np.testing.assert_array_equal(detections.joints, np.stack([body(t, recording.layout.num_joints, dims) for t in frames]).astype(np.float32))
    assert detections.frames.tolist() == ([7] if count == 1 else list(frames))
    if case != "arrays":
        assert detections.confidences is not None
        np.testing.assert_allclose(detections.confidences, 2 if case == "COCO annotations" else 0.9, rtol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case != "points frame"])  # which is one frame
@pytest.mark.parametrize("piece_bytes", [900, 3000])
def test_a_large_file_in_pieces_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, piece_bytes: int) -> None:
    path = write(tmp_path, "7.json", CASES[case][0]())
    whole = only(path)
    monkeypatch.setattr(content, "_PIECE_BYTES", piece_bytes)
    pieces = only(path)
    for column in ("frames", "joints", "confidences", "boxes", "scores", "ids"):
        np.testing.assert_array_equal(getattr(pieces.detections, column), getattr(whole.detections, column), err_msg=column)
    assert (pieces.places, pieces.layout, pieces.fps, pieces.attributes) == (whole.places, whole.layout, whole.fps, whole.attributes)


@pytest.mark.parametrize("case", ["AlphaPose's JSON", "MMPose's JSON", "COCO annotations", "ultralytics' JSON"])
def test_boxes_and_ids(tmp_path: Path, case: str) -> None:
    detections = only(write(tmp_path, "a.json", CASES[case][0]())).detections
    np.testing.assert_array_equal(detections.boxes, [[90, 190, 140, 270]] * T)
    np.testing.assert_array_equal(detections.ids, [4 if case == "AlphaPose's JSON" else 3] * T)


def test_a_score_in_a_list(tmp_path: Path) -> None:
    frames = mmpose()
    frames[0]["instances"][0]["bbox_score"] = [0.7]
    detections = only(write(tmp_path, "a.json", frames)).detections
    np.testing.assert_allclose(detections.scores, [0.7, *[0.8] * (T - 1)], rtol=1e-6)


def test_images_with_names_for_numbers(tmp_path: Path) -> None:
    annotated = coco_annotations()
    for t in range(T):
        annotated["images"][t]["id"] = annotated["annotations"][t]["image_id"] = f"image {t + 5}"
    assert only(write(tmp_path, "a.json", annotated)).detections.frames.tolist() == list(range(5, 5 + T))


@pytest.mark.parametrize(("idx", "expected"), [([4, 9], 4), ([[4.0], [9.0]], 4), (4.0, 4), ("4", 4), ([], None), (None, None), ({}, None)])
def test_any_idx_of_alphapose(tmp_path: Path, idx: Any, expected: int | None) -> None:
    ids = only(write(tmp_path, "a.json", [{**entry, "idx": idx} for entry in alphapose()])).detections.ids
    assert (None if ids is None else ids.tolist()) == (None if expected is None else [expected] * T)


def test_what_the_file_says_of_its_video(tmp_path: Path) -> None:
    annotated = only(write(tmp_path, "coco.json", coco_annotations()))
    assert annotated.image_size == (640, 480)
    landmarks = only(write(tmp_path, "mediapipe.json", mediapipe()))
    assert (landmarks.fps, landmarks.image_size) == (25, (640, 480))
    nested = {"video_info": {"fps": 25, "frame_width": 640, "frame_height": 480}, "frames": mediapipe()["frames"]}
    landmarks = only(write(tmp_path, "nested.json", nested))
    assert (landmarks.fps, landmarks.image_size) == (25, (640, 480))
    half = only(write(tmp_path, "half.json", {"width": 640, "frames": mediapipe()["frames"]}))
    assert half.image_size is None
    labelled = only(write(tmp_path, "kinetics.json", kinetics()))
    assert (labelled.attributes, labelled.image_size, labelled.fps) == ({"label": "jogging", "label_index": "169"}, (340, 256), 30)


@pytest.mark.parametrize("key", ["pose_world_landmarks", "poseWorldLandmarks", "landmarks"])
def test_world_landmarks_are_read_in_3d(tmp_path: Path, key: str) -> None:
    shift = np.concatenate([body(0, 33, 3)[[23, 24]].mean(0)[:2], [0]])
    world = [[dict(zip("xyz", row, strict=True)) for row in (body(0, 33, 3) - shift).tolist()] for _ in range(T)]
    frames = [{key: people} if key == "landmarks" else {"pose_landmarks": points(0), key: people} for people in world]
    recording = only(write(tmp_path, "a.json", {"width": 640, "height": 480, "frames": frames}))
    np.testing.assert_allclose(recording.detections.joints, [body(0, 33, 3) - shift] * T, rtol=1e-5)
    assert recording.image_size is None
    assert recording.detections.confidences is None


def test_names_in_the_file_make_the_skeleton(tmp_path: Path) -> None:
    joints = ["root", "left_hip", "right_hip", "head"]
    meta = {
        "dataset_name": "mine",
        "keypoint_id2name": {str(j): name for j, name in enumerate(joints)},
        "skeleton_links": [[0, 1], [0, 2], [0, 3]],
    }
    people = [{"keypoints": body(t, 4).tolist(), "keypoint_scores": [0.9] * 4} for t in range(T)]
    saved = {"meta_info": meta, "instance_info": [{"frame_id": t, "instances": [one]} for t, one in enumerate(people)]}
    layout = only(write(tmp_path, "mmpose.json", saved)).layout
    assert (layout.name, layout.joints, layout.bones, layout.mirrored) == ("mine", tuple(joints), ((0, 1), (0, 2), (0, 3)), ((1, 2),))
    annotations = [{"image_id": t, "keypoints": flat(t, 4)} for t in range(T)]
    categories = [{"name": "mine", "keypoints": joints, "skeleton": [[1, 2], [1, 3], [1, 4]]}]
    assert only(write(tmp_path, "coco.json", {"annotations": annotations, "categories": categories})).layout == layout
    named = {"keypoint_id2name": {str(j): name for j, name in enumerate(LAYOUTS["coco17"].joints)}}
    assert only(write(tmp_path, "coco17.json", {"meta_info": named, "instance_info": mmpose()})).layout is LAYOUTS["coco17"]
    broken = {"meta_info": {**meta, "skeleton_links": [[0, 9]]}, "instance_info": saved["instance_info"]}
    with pytest.raises(DataError, match="meta_info describes no skeleton"):
        only(write(tmp_path, "broken.json", broken))


def test_an_unknown_number_of_joints_needs_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", alphapose(21))
    with pytest.raises(DataError, match=r"a.json: no skeleton of 21 joints is known; known are coco17 \(17\), .*--joints"):
        read_walks(path, progress=False)
    hand = {"joints": [f"p{j}" for j in range(21)], "bones": [[j, j + 1] for j in range(20)]}
    walks = read_walks(path, ReadOptions(joints=str(write(tmp_path, "hand.json.d/hand.json", hand))), progress=False)
    assert (walks.layout.name, walks.poses[0].shape) == ("hand", (T, 21, 2))
    for joints, message in (("coco17", "--joints coco17 has 17 joints, the data 21"), ("body", "--joints body: unknown layout 'body'")):
        with pytest.raises(DataError, match=message):
            read_walks(path, ReadOptions(joints=joints), progress=False)
    known = write(tmp_path, "known.json", alphapose(17))
    assert read_walks(known, ReadOptions(joints="h36m17"), progress=False).layout is LAYOUTS["h36m17"]


def test_a_file_a_frame_is_a_video_a_folder(tmp_path: Path) -> None:
    for t in range(T):
        nobody = {"version": 1.3, "people": []}
        write(tmp_path, f"001-nm-01-000/walk_{t:012}_keypoints.json", nobody if t == 3 else {**openpose(), "people": openpose(25)["people"]})
        write(tmp_path, f"video/sep-json/{t}.json", CASES["sep-json"][0]())
        write(tmp_path, f"yolo/frame_{t:04}.json", [] if t == 3 else yolo(t))
        write(tmp_path, f"two/a_{t}.json", points(t))
        write(tmp_path, f"two/b_{t}.json", points(t))
    recordings, left_out = read_recordings(tmp_path, progress=False)
    assert left_out == []
    found = {recording.places: (recording.layout.name, sorted(recording.detections.frames.tolist())) for recording in recordings}
    seen = [0, 1, 2, 4, 5]
    assert found == {
        ("001-nm-01-000", "walk"): ("openpose25", seen),
        ("video",): ("openpose18", list(range(T))),
        ("yolo", "frame"): ("coco17", seen),
        ("two", "a"): ("mediapipe33", list(range(T))),
        ("two", "b"): ("mediapipe33", list(range(T))),
    }
    [alone], _ = read_recordings(tmp_path / "video" / "sep-json", progress=False)
    assert alone.places == ("video",)


def test_the_videos_of_one_file_are_told_apart_by_the_names_of_images(tmp_path: Path) -> None:
    names = [f"data/{walk}/{t:04}.jpg" for walk in ("001-nm-01-000", "002-nm-01-090") for t in range(T)]
    path = write(tmp_path, "all.json", [{"image_id": name, "keypoints": flat(i % T), "score": 1} for i, name in enumerate(names)])
    recordings, _ = read_recordings(path, progress=False)
    assert [recording.places[-1] for recording in recordings] == ["001-nm-01-000", "002-nm-01-090"]
    for recording in recordings:
        np.testing.assert_array_equal(recording.detections.joints[:, 0, 0], 100 + 3 * np.arange(T))


def test_null_confidence_zero_and_openpose_without_a_joint_are_missing(tmp_path: Path) -> None:
    people = openpose()
    keypoints = people["people"][0]["pose_keypoints_2d"]
    keypoints[:3], keypoints[3], keypoints[7] = [0, 0, 0], None, 0
    joints = only(write(tmp_path, "0.json", people)).detections.joints[0]
    assert np.isnan(joints).all(axis=1).nonzero()[0].tolist() == [0, 1]
    assert joints[2, 1] == 0  # a place, as far as the form says
    annotated = coco_annotations()
    annotated["annotations"][0]["keypoints"][:3] = [0, 0, 0]
    joints = only(write(tmp_path, "1.json", annotated)).detections.joints
    assert np.isnan(joints).any(axis=2).sum() == 1


@pytest.mark.parametrize("numbered", [False, True])
def test_times_of_landmarks_that_jump_are_gaps(tmp_path: Path, numbered: bool) -> None:
    seen = [*range(8), *range(12, 20)]
    frames = [{"timestamp": 40 * t, "pose_landmarks": points(t), **({"frame": i} if numbered else {})} for i, t in enumerate(seen)]
    recording = only(write(tmp_path, "a.json", frames))
    assert recording.fps == 25
    assert recording.detections.frames.tolist() == (list(range(16)) if numbered else seen)
    np.testing.assert_array_equal(recording.detections.joints[:, 0, 0], [body(t, 33)[0, 0] for t in seen])


@pytest.mark.parametrize("key", ["name", "id"])
def test_landmarks_in_another_order_with_their_names_or_numbers(tmp_path: Path, key: str) -> None:
    called = LAYOUTS["mediapipe33"].joints if key == "name" else range(33)
    frames = [{"pose_landmarks": [{key: name, **point} for name, point in zip(called, points(t), strict=True)][::-1]} for t in range(T)]
    np.testing.assert_array_equal(only(write(tmp_path, "a.json", frames)).detections.joints, [body(t, 33) for t in range(T)])


def damaged(name: str) -> Any:
    """The case with one detection of no use."""
    value = CASES[name][0]()
    if name == "AlphaPose's JSON":
        value[2]["keypoints"] = value[2]["keypoints"][:-1]
    elif name == "MMPose's JSON":
        value[2]["instances"][0]["keypoint_scores"] = "none"
    elif name == "COCO results":
        value[2]["keypoints"][5] = 10**400
    elif name == "COCO annotations":
        value["annotations"][2]["bbox"] = [1, 2]
    elif name == "person → frame → keypoints":
        value["7"]["0002"] = 5
    elif name == "MoveNet's and PoseNet's JSON":
        value[2][0]["keypoints"] = value[2][0]["keypoints"][0]
    elif name == "ultralytics' JSON":
        value[2][0]["keypoints"]["x"] = value[2][0]["keypoints"]["x"][1:]
    elif name == "MediaPipe's landmarks as JSON":
        value["frames"][2]["pose_landmarks"] = value["frames"][2]["pose_landmarks"][:20]
    else:
        value["data"][2]["skeleton"][0]["pose"][0] = "left"
    return value


@pytest.mark.parametrize("case", [name for name in FORMS if name != "OpenPose's JSON"])
def test_one_bad_detection_is_left_out_by_its_number(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, "a.json", damaged(case))
    recording = only(path)
    assert sorted(recording.detections.frames.tolist()) == [0, 1, 3, 4, 5]
    [left] = recording.left_out
    assert left.name == "1 detection(s) of a.json"
    assert left.reason.startswith(f"{path}, detection 2: ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 5000, "nested more than 200 deep"),
        ('[{"image_id": ' + "9" * 5000 + ', "keypoints": [1]}]', "line 1: an integer of more than 4300 digits"),
        ('[\n{"image_id": "a\x01", "keypoints": [1]}]', r"line 2: not JSON \(Invalid control character"),
        (json.dumps(alphapose())[:-300], "line 1: the file is cut off after 5 complete element"),
        (json.dumps(mmpose(), indent=1)[:-9], "line 635: the file is cut off after 5 complete element"),
        ('{"version": 1.3, "name', "line 1: the file is cut off after 0 complete element"),
        ('{"version": 1.3, "people": [', "line 1: the file is cut off after 0 complete element"),
        (f'{json.dumps(alphapose()[0])}\n{{"image_id": oops\n{json.dumps(alphapose()[1])}\n', r"line 2: not JSON \(Expecting value"),
        ("{}", "of no form that can be read: it is an object of JSON with nothing"),
        ("[1, 2, 3]", "of no form that can be read"),
        (
            [{"image_id": "0.jpg", "keypoints": [1, 2]}],
            "keypoints has 2 numbers, expected a list of numbers, those of one joint after those of another; no detection of the 1 in it can be used",
        ),
        ([{"image_id": True, "keypoints": flat(0), "box": None}], "image_id is True, expected a frame number"),
        ([{"image_id": "first.jpg", "keypoints": flat(0)}], "image_id is 'first.jpg', expected a frame number"),
        ({"annolist": []}, "annolist, the form of PoseTrack 2017; give it in the form of 2018"),
        ([[{"name": "person", "class": 0, "box": {"x1": 1}}]], "boxes of YOLO but no keypoints; give what a -pose model writes"),
        ({"data": 5, "label": "a"}, "data is 5, expected a list of frames"),
        ({"meta_info": {}, "instance_info": 5}, "instance_info is 5, expected a list of frames"),
        ({"data": [], "label": "a"}, "has no detection; nobody was found"),
        ({"images": [], "categories": []}, "has no detection; nobody was found"),
    ],
)
def test_what_is_said_of_a_bad_file(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path, "bad.json", value)
    with pytest.raises(DataError, match=message) as error:
        read_recordings(path, progress=False)
    assert str(path) in str(error.value)


def test_names_in_other_encodings(tmp_path: Path) -> None:
    value = [{**entry, "image_id": f"größe/{t}.jpg"} for t, entry in enumerate(alphapose())]
    text = json.dumps(value, ensure_ascii=False)
    for encoding in ("latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"):
        path = tmp_path / f"{encoding}.json"
        path.write_bytes(text.encode(encoding))
        assert only(path).detections.frames.tolist() == list(range(T))
    half = text.replace("ö", "\\ud800")
    assert only(write(tmp_path, "half.json", half)).detections.frames.tolist() == list(range(T))


def test_numbers_that_only_python_writes(tmp_path: Path) -> None:
    value = alphapose()
    value[0]["keypoints"][0] = value[1]["score"] = float("nan")
    recording = only(write(tmp_path, "a.json", value))
    assert np.isnan(recording.detections.joints[:, 0]).all(axis=1).tolist() == [True] + [False] * (T - 1)
    value[2]["keypoints"][1] = float("-inf")
    recording = only(write(tmp_path, "a.json", value))
    assert "detection 2: keypoints has an infinite number" in recording.left_out[0].reason


def test_names_of_several_lines_and_numbers_too_large_for_float32(tmp_path: Path) -> None:
    value = [{**entry, "image_id": f"a\n{t}.jpg"} for t, entry in enumerate(alphapose())]
    value[1]["box"], value[2]["keypoints"][0], value[3]["score"] = [1e300, 0, 1, 1], 1e39, 1e300
    recording = only(write(tmp_path, "a.json", value))
    assert recording.detections.frames.tolist() == [0, 3, 4, 5]
    assert recording.detections.scores is None
    assert re.search(r"detection 1: box is \[.*, 0.0, 1.0, 1.0\], expected finite numbers \(and 1 more", recording.left_out[0].reason)
    for t in range(2):
        write(tmp_path, f"frames/a\n{t}.json", openpose())
    assert only(tmp_path / "frames").detections.frames.tolist() == [0, 1]


def assert_read_or_refused(path: Path) -> None:
    """Every error is one for the user, which names the file."""
    with contextlib.suppress(UserError):
        recordings, _ = read_recordings(path, progress=False)
        assert recordings
        for recording in recordings:
            detections = recording.detections
            assert detections.joints.shape[:2] == (len(detections.frames), recording.layout.num_joints)
            assert not np.isinf(detections.joints).any()
        return
    with pytest.raises(UserError, match=re.escape(path.name)):
        read_recordings(path, progress=False)


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from(sorted(CASES)), at=st.floats(0, 1), junk=st.sampled_from(["", "}", "[", '"', "null", "-", "\\", "\x00", "1e999", "{}", ","])
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, case: str, at: float, junk: str) -> None:
    text = json.dumps(CASES[case][0]())
    place = int(at * len(text))
    path = write(tmp_path_factory.mktemp("json"), "1.json", text[:place] + junk + (text[place + 1 :] if junk else ""))
    assert_read_or_refused(path)


JUNK = st.recursive(
    st.sampled_from([None, True, 5, -1e300, "a", "12.jpg", [], {}, [1, 2], [[1], [2]]]), lambda v: st.lists(v, max_size=2), max_leaves=4
)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), case=st.sampled_from(sorted(CASES)))
def test_wrong_types_at_every_level(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, case: str) -> None:
    value = CASES[case][0]()
    inside = value
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(min(len(inside), 3)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], list | dict) or not inside[key] or data.draw(st.booleans()):
            inside[key] = data.draw(JUNK)
            break
        inside = inside[key]
    path = write(tmp_path_factory.mktemp("json"), "1.json", value)
    assert_read_or_refused(path)
