"""Results as people save them themselves: JSON lines, the inferencer's results of MMPose, poses of TensorFlow.js and ml5.js, tables of ultralytics
and DeepLabCut; and files that hold no poses, which are called by their names."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_json_forms import CASES, T, body, flat, instance, mmpose, only, openpose, pose, write, yolo

from fastst.data.formats import content
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

COCO = LAYOUTS["coco17"].joints


def assert_is_the_walk(recording: Recording, confidence: float | None = 0.9) -> None:
    """That all T frames of `body` were read."""
    assert recording.layout is LAYOUTS["coco17"]
    assert recording.detections.frames.tolist() == list(range(T))
    np.testing.assert_array_equal(recording.detections.joints, np.stack([body(t) for t in range(T)]).astype(np.float32))
    if confidence is not None:
        assert recording.detections.confidences is not None
        np.testing.assert_allclose(recording.detections.confidences, confidence, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ keypoints below the names of joints

SYNONYMS = ["Nose", "LEye", "REye", "l_ear", "r_ear", *(joint.title().replace("_", "") for joint in COCO[5:])]
BELOW_NAMES = {
    "x, y, confidence": lambda t, names: {name: [*map(float, point), 0.9] for name, point in zip(names, body(t), strict=True)},
    "score": lambda t, names: {name: {"x": float(x), "y": float(y), "score": 0.9} for name, (x, y) in zip(names, body(t), strict=True)},
    "confidence of no form": lambda t, names: {name: {"x": float(x), "y": float(y), "c": 0.9} for name, (x, y) in zip(names, body(t), strict=True)},
    "position": lambda t, names: {n: {"position": {"x": float(x), "y": float(y)}, "score": 0.9} for n, (x, y) in zip(names, body(t), strict=True)},
}
AROUND = {
    "frames": lambda poses: [{"frame": t, "keypoints": one} for t, one in enumerate(poses)],
    "people of frames": lambda poses: {"frames": [{"frame": t, "people": [{"keypoints": one}]} for t, one in enumerate(poses)]},
    "AlphaPose": lambda poses: [{"image_id": f"{t}.jpg", "keypoints": one, "score": 2.0, "idx": 1} for t, one in enumerate(poses)],
    "COCO": lambda poses: [{"image_id": t, "category_id": 1, "keypoints": one, "score": 0.9} for t, one in enumerate(poses)],
    "person, frame": lambda poses: {"1": {f"{t:04d}": {"keypoints": one, "scores": None} for t, one in enumerate(poses)}},
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("names", "is_backwards"), [(COCO, False), (SYNONYMS, True)], ids=["names", "synonyms backwards"])
@pytest.mark.parametrize("points", BELOW_NAMES)
def test_keypoints_below_the_names_of_joints(tmp_path: Path, points: str, names: Sequence[str], is_backwards: bool, around: str) -> None:
    poses = [BELOW_NAMES[points](t, names) for t in range(T)]
    if is_backwards:
        poses = [dict(reversed(list(one.items()))) for one in poses]
    assert_is_the_walk(only(write(tmp_path, "a.json", AROUND[around](poses))))


def test_keypoints_below_names_of_which_some_are_missing(tmp_path: Path) -> None:
    poses = [{"nose": [1.0, 2.0], "left_eye": None, "right_knee": [3.0, 4.0]}, {"left_eye": [5.0, 6.0]}]
    for name, make in AROUND.items():
        recording = only(write(tmp_path, f"{name}.json", make(poses)))
        assert recording.layout is LAYOUTS["coco17"]
        seen = np.isfinite(recording.detections.joints).all(axis=2)
        assert [[COCO[j] for j in np.flatnonzero(row)] for row in seen] == [["nose", "right_knee"], ["left_eye"]]


@pytest.mark.parametrize("around", ["list", "frames", "lines"])
@pytest.mark.parametrize("points", ["mapping", "array"])
def test_names_of_joints_beside_the_number_of_a_frame(tmp_path: Path, points: str, around: str) -> None:
    def frame(t: int) -> dict[str, Any]:
        place = (lambda x, y: {"x": x, "y": y, "confidence": 0.9}) if points == "mapping" else (lambda x, y: [x, y, 0.9])
        return {"frame": t, "timestamp": t / 25, **{joint: place(*xy) for joint, xy in zip(COCO, body(t).tolist(), strict=True)}}

    frames = [frame(t) for t in range(T)]
    text = "\n".join(map(json.dumps, frames))
    assert_is_the_walk(only(write(tmp_path, "a.json", text if around == "lines" else {"frames": frames} if around == "frames" else frames)))


def test_points_without_joints_beside_the_number_of_a_frame_are_no_pose(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is of no form that can be read"):
        only(write(tmp_path, "a.json", [{"frame": t, "ball": {"x": t, "y": 2}, "nose": {"x": 5, "y": t}} for t in range(T)]))


def test_keypoints_below_words_that_are_no_joints(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of no form that can be read|no detection of the 6 in it can be used"):
        only(write(tmp_path, "a.json", [{"frame": t, "keypoints": {"apple": [1, 2, 3], "pear": [4, 5, 6]}} for t in range(T)]))


# ---------------------------------------------------------------------------------------------------------------- JSON lines

LISTS = [name for name, (make, _, _, count) in CASES.items() if count == T and isinstance(make(), list) and name != "yolo strings"]


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\n  "])
@pytest.mark.parametrize("piece_bytes", [700, 1 << 20])
def test_a_record_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, between: str, piece_bytes: int) -> None:
    records = CASES[case][0]()
    whole = only(write(tmp_path, "a.json", records))
    monkeypatch.setattr(content, "_PIECE_BYTES", piece_bytes)
    for name, end in (("a.jsonl", between), ("a.json", "")):  # it is not the name that tells
        lines = only(write(tmp_path, name, between.join(map(json.dumps, records)) + end))
        for column in ("frames", "joints", "confidences", "boxes", "scores", "ids"):
            np.testing.assert_array_equal(getattr(lines.detections, column), getattr(whole.detections, column), err_msg=column)
        assert lines.layout == whole.layout


@pytest.mark.parametrize("blank", ["\n\n", " \n\t\n  ", "\r\n"])
@pytest.mark.parametrize("piece_bytes", [700, 1 << 20])
def test_lines_below_empty_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: str, piece_bytes: int) -> None:
    monkeypatch.setattr(content, "_PIECE_BYTES", piece_bytes)
    lines = [json.dumps({"image_id": f"{t}.jpg", "keypoints": flat(t)}) for t in range(T)]
    assert_is_the_walk(only(write(tmp_path, "a.jsonl", blank + "\n".join(lines))))
    with pytest.raises(DataError, match=rf"a\.jsonl, line {blank.count(chr(10)) + 4}: not JSON"):
        only(write(tmp_path, "a.jsonl", blank + "\n".join([*lines[:3], "{bad", *lines[3:]])))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_what_is_read_at_once_may_end_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, more: int) -> None:
    lines = [json.dumps({"image_id": f"{t}.jpg", "keypoints": flat(t)}) for t in range(T)]
    monkeypatch.setattr(content, "_LINE_BYTES", len(lines[0] + end) + more)
    assert_is_the_walk(only(write(tmp_path, "a.jsonl", end.join(lines))))


def test_frames_of_openpose_a_line(tmp_path: Path) -> None:
    frames = [openpose() if t != 2 else {"version": 1.3, "people": []} for t in range(T)]
    detections = only(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, frames)))).detections
    assert detections.frames.tolist() == [0, 1, 3, 4, 5]
    numbered = [{"frame": 10 + t, **frame} for t, frame in enumerate(frames)]
    assert only(write(tmp_path, "b.json", numbered)).detections.frames.tolist() == [10, 11, 13, 14, 15]


def test_frames_with_people_of_other_programs(tmp_path: Path) -> None:
    frames = [{"frame": t, "people": [{"id": 3, "keypoints": flat(t)}]} for t in range(T)]
    recording = only(write(tmp_path, "a.json", frames))
    assert_is_the_walk(recording)
    assert recording.detections.ids is not None
    assert recording.detections.ids.tolist() == [3] * T
    assert_is_the_walk(only(write(tmp_path, "b.json", {"frames": [{"frame": t, "people": [pose(t)]} for t in range(T)]})))


def test_json_as_python_prints_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: not JSON .*; it is as Python prints it: write it with json.dump"):
        only(write(tmp_path, "a.json", str([{"image_id": "0.jpg", "keypoints": flat(0)}])))


def test_json_lines_of_one_line_and_in_other_encodings(tmp_path: Path) -> None:
    record = {"image_id": "größe/7.jpg", "keypoints": flat(0), "score": 1}
    assert only(write(tmp_path, "a.jsonl", json.dumps(record))).detections.frames.tolist() == [7]
    lines = "\n".join(json.dumps({**record, "image_id": f"größe/{t}.jpg"}, ensure_ascii=False) for t in range(T))
    for encoding in ("latin-1", "utf-16", "utf-16-le", "utf-8-sig"):
        (tmp_path / "b.ndjson").write_bytes(lines.encode(encoding))
        assert only(tmp_path / "b.ndjson").detections.frames.tolist() == list(range(T))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(map(json.dumps, mmpose()))[:-30], "line 6: the file is cut off after 5 complete element"),
        ("\n".join([*map(json.dumps, mmpose()[:3]), "oops", json.dumps(mmpose()[3])]), "line 4: not JSON"),
        ('{"a": 1}\n{"a": 2}', "it is a list of JSON, whose first entry is an object with a"),
        ('{\n"people": []}\n{\n"people": []}', r"line 3: not JSON \(Extra data"),
        ("", "is empty"),
        ("\n \n", "is empty"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        only(write(tmp_path, "bad.jsonl", text))


# --------------------------------------------------------------------------------------------------- what MMPose's users save


def people(frame: int) -> list[dict[str, Any]]:
    return [instance(frame)]


def old(frame: int) -> dict[str, Any]:
    """MMPose 0: the score is the third number of a joint, and the fifth of a box."""
    return {"keypoints": np.column_stack([body(frame), np.full(17, 0.9)]).tolist(), "bbox": [90, 190, 140, 270, 0.8], "track_id": 3, "area": 4000}


RESULTS: dict[str, Any] = {
    "result": {"visualization": [], "predictions": [people(t) for t in range(T)]},
    "results": [{"visualization": [], "predictions": [people(t)]} for t in range(T)],
    "predictions of results": [[people(t)] for t in range(T)],
    "below predictions": {"predictions": [[people(t)] for t in range(T)]},
    "batches of two": [{"predictions": [people(t), people(t + 1)]} for t in range(0, T, 2)],
    "lists": [people(t) for t in range(T)],
    "frames": {"predictions": [{"frame_id": t, "instances": people(t)} for t in range(T)]},
    "old": [[old(t)] for t in range(T)],
    "flat": {"predictions": [[{"keypoints": flat(t), "score": 0.8, "bbox": [90, 190, 140, 270], "track_id": 3}] for t in range(T)]},
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_of_mmpose(tmp_path: Path, case: str) -> None:
    recording = only(write(tmp_path, "a.json", RESULTS[case]))
    assert_is_the_walk(recording)
    np.testing.assert_array_equal(recording.detections.boxes, [[90, 190, 140, 270]] * T)
    assert recording.detections.ids is not None
    assert recording.detections.ids.tolist() == [3] * T


def test_results_of_mmpose_without_anybody_at_first_and_with_two(tmp_path: Path) -> None:
    frames = [[], [], people(2), [instance(3), instance(30)], [], people(5)]
    for value in ({"predictions": frames}, frames, [[frame] for frame in frames]):
        assert only(write(tmp_path, "a.json", value)).detections.frames.tolist() == [2, 3, 3, 5]


def test_an_image_a_result_of_mmpose(tmp_path: Path) -> None:
    for t in range(T):
        write(tmp_path, f"frame_{t:03}.json", {"visualization": [], "predictions": [people(t) if t != 2 else []]})
    assert only(tmp_path).detections.frames.tolist() == [0, 1, 3, 4, 5]


# --------------------------------------------------------------------------------------------------- TensorFlow.js and ml5.js


def posenet(frame: int) -> dict[str, Any]:
    camel = [joint.replace("left_", "left ").replace("right_", "right ").title().replace(" ", "") for joint in COCO]
    named = zip(body(frame).tolist(), camel, strict=True)
    return {"score": 0.8, "keypoints": [{"score": 0.9, "part": name[0].lower() + name[1:], "position": {"x": x, "y": y}} for (x, y), name in named]}


def ml5(frame: int) -> dict[str, Any]:
    points = [{"x": x, "y": y, "confidence": 0.9, "name": joint} for (x, y), joint in zip(body(frame).tolist(), COCO, strict=True)]
    box = {"xMin": 1, "yMin": 2, "xMax": 3, "yMax": 4, "width": 2, "height": 2}
    return {"keypoints": points, **{point["name"]: point for point in points}, "box": box, "id": 1, "confidence": 0.8}


def reordered(frame: int) -> dict[str, Any]:
    return {"keypoints": pose(frame)["keypoints"][::-1]}


POSES: dict[str, Any] = {
    "a list of poses a frame": [[pose(t)] for t in range(T)],
    "frames with poses": {"fps": 25, "frames": [{"frame": t, "timestamp": t / 25, "poses": [pose(t)]} for t in range(T)]},
    "frames with a pose": [{"frame": t, **pose(t)} for t in range(T)],
    "frames by their names": {f"frame_{t}": [pose(t)] for t in range(T)},
    "posenet": [[posenet(t)] for t in range(T)],
    "posenet of ml5": [[{"pose": posenet(t), "skeleton": []}] for t in range(T)],
    "ml5": [[ml5(t)] for t in range(T)],
    "another order": [[reordered(t)] for t in range(T)],
    "without names": [[{"keypoints": [{"x": x, "y": y, "score": 0.9} for x, y in body(t).tolist()]}] for t in range(T)],
}


@pytest.mark.parametrize("case", POSES)
@pytest.mark.parametrize("piece_bytes", [700, 1 << 20])
def test_poses_of_javascript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, piece_bytes: int) -> None:
    monkeypatch.setattr(content, "_PIECE_BYTES", piece_bytes)
    assert_is_the_walk(only(write(tmp_path, "a.json", POSES[case])))


def test_a_pose_a_frame_and_the_poses_of_one_frame(tmp_path: Path) -> None:
    assert_is_the_walk(only(write(tmp_path, "a.jsonl", "\n".join(json.dumps({"frame": t, **pose(t)}) for t in range(T)))))
    detections = only(write(tmp_path, "many.json", [pose(t) for t in range(7)])).detections  # so many people MoveNet doesn't see at once
    assert detections.frames.tolist() == list(range(7))
    for t in range(T):
        write(tmp_path, f"frames/{t}.json", [pose(t + 90 * person) for person in range(6)])
    assert only(tmp_path / "frames").detections.frames.tolist() == [t for t in range(T) for _ in range(6)]


def test_points_that_are_missing_have_no_place(tmp_path: Path) -> None:
    frames = [[{"keypoints": [point for point in pose(t)["keypoints"] if point["name"] not in ("nose", "left_knee")]}] for t in range(T)]
    joints = only(write(tmp_path, "a.json", frames)).detections.joints
    assert np.isnan(joints).any(axis=(0, 2)).nonzero()[0].tolist() == [0, COCO.index("left_knee")]
    np.testing.assert_array_equal(joints[:, 5], np.stack([body(t)[5] for t in range(T)]).astype(np.float32))


def test_the_landmarks_of_blazepose(tmp_path: Path) -> None:
    names = LAYOUTS["mediapipe33"].joints
    frames = [
        [{"keypoints": [{"x": x, "y": y, "z": z, "score": 0.9, "name": name} for (x, y, z), name in zip(body(t, 33, 3), names, strict=True)]}]
        for t in range(T)
    ]
    recording = only(write(tmp_path, "a.json", frames))
    assert recording.layout is LAYOUTS["mediapipe33"]
    np.testing.assert_array_equal(recording.detections.joints, np.stack([body(t, 33) for t in range(T)]).astype(np.float32))


# ------------------------------------------------------------------------------------------------- tables of other programs


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


HEADER = ["name", "class", "confidence", "box", "track_id", "keypoints"]


def row(frame: int, person: int = 0) -> list[Any]:
    [detection] = yolo(frame)
    keypoints = {**detection["keypoints"], "x": [x + 300 * person for x in detection["keypoints"]["x"]]}
    return [detection["name"], 0, 0.8, detection["box"], 3 + person, keypoints]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (["", *HEADER], [[0, *row(t)] for t in range(T)]),  # tables of pandas, one below the other
        ([*HEADER, "frame"], [[*row(t), t] for t in range(T)]),
        (["", *HEADER, "image"], [[t, *row(t), f"walk/{t:05}.jpg"] for t in range(T)]),
    ],
)
def test_a_table_of_ultralytics(tmp_path: Path, header: list[str], rows: list[list[Any]]) -> None:
    recording = only(write(tmp_path, "a.csv", table(header, rows)))
    assert_is_the_walk(recording)
    np.testing.assert_array_equal(recording.detections.boxes, [[90, 190, 140, 270]] * T)
    assert recording.detections.ids is not None
    assert recording.detections.ids.tolist() == [3] * T


def test_two_people_in_a_table_of_ultralytics(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", table(["", *HEADER], [[person, *row(t, person)] for t in range(T) for person in range(2)]))
    detections = only(path).detections
    assert detections.frames.tolist() == [t for t in range(T) for _ in range(2)]
    for t in range(T):
        write(tmp_path, f"frames/{t}.csv", table(["", *HEADER], [[person, *row(t, person)] for person in range(2)]))
    assert only(tmp_path / "frames").detections.frames.tolist() == detections.frames.tolist()


def test_a_table_of_ultralytics_that_does_not_say_the_frames(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", table(HEADER, [row(t) for t in range(T)]))
    with pytest.raises(DataError, match=r"a\.csv: the same person stands in it several times, .*which `frame` it is of"):
        only(path)
    path = write(tmp_path, "b.csv", table(HEADER[:4], [row(t)[:4] for t in range(T)]))
    with pytest.raises(DataError, match="has boxes of YOLO but no keypoints"):
        only(path)


def test_a_bad_row_of_a_table_of_ultralytics(tmp_path: Path) -> None:
    text = table(["", *HEADER], [[0, *row(t)] for t in range(T)])
    cut = only(write(tmp_path, "cut.csv", text[:-40]))
    assert cut.detections.frames.tolist() == list(range(T - 1))
    assert cut.left_out[0].name == "1 detection(s) of cut.csv"
    two = text.replace("{'x': [", "{'x': []},{'x': [", 1)  # a cell that is two to JSON
    assert two != text
    whole = only(write(tmp_path, "two.csv", two))
    assert whole.detections.frames.tolist() == list(range(1, T))
    assert whole.left_out[0].name == "1 detection(s) of two.csv"
    none = only(write(tmp_path, "none.csv", text.replace("100.0", "nan", 1).replace("200.0", "None", 1)))
    assert np.isnan(none.detections.joints[0]).all(axis=1).tolist() == [True] + [False] * 16


def deeplabcut(individuals: Sequence[str], frames: int = T) -> str:
    columns = [(individual, joint, what) for individual in individuals for joint in COCO for what in ("x", "y", "likelihood")]
    header = [["scorer", *["DLC_resnet50"] * len(columns)]]
    if len(individuals) > 1:
        header.append(["individuals", *(individual for individual, _, _ in columns)])
    header += [["bodyparts", *(joint for _, joint, _ in columns)], ["coords", *(what for _, _, what in columns)]]
    rows = [[t, *(n for i in range(len(individuals)) for x, y in body(t) for n in (x + 300 * i, y, 0.9))] for t in range(frames)]
    return "".join(",".join(map(str, row)) + "\n" for row in [*header, *rows])


def test_deeplabcut(tmp_path: Path) -> None:
    assert_is_the_walk(only(write(tmp_path, "one.csv", deeplabcut(["ann"]))))
    detections = only(write(tmp_path, "two.csv", deeplabcut(["ann", "bob"]))).detections
    assert detections.ids is not None
    assert list(zip(detections.frames.tolist(), detections.ids.tolist(), strict=True)) == [(t, i) for t in range(T) for i in range(2)]
    np.testing.assert_array_equal(detections.joints[1::2] - detections.joints[::2], np.full((T, 17, 2), (300, 0)))


def test_individuals_of_deeplabcut_who_are_not_there_or_no_people(tmp_path: Path) -> None:
    lines = deeplabcut(["ann", "bob"]).splitlines()
    for t in (1, 2):
        cells = lines[4 + t].split(",")
        lines[4 + t] = ",".join([*cells[:52], *[""] * 51])  # bob is away
    ball = ["scorer,scorer,scorer", "single,single,single", "ball,ball,ball", "x,y,likelihood", *["1,2,0.5"] * T]
    lines = [f"{line},{more}" for line, more in zip(lines, ball, strict=True)]
    recordings, _ = read_recordings(write(tmp_path, "a.csv", "\n".join(lines)), progress=False)
    [recording] = recordings
    assert recording.left_out[0].reason.endswith("ball_x, ball_y are not used; the joints are those of coco17")
    is_seen = ~np.isnan(recording.detections.joints).all(axis=(1, 2))
    assert is_seen.tolist() == [True, True, True, False, True, False, *[True] * 6]


def test_deeplabcut_cut_off_and_labelled_by_hand(tmp_path: Path) -> None:
    recordings, _ = read_recordings(write(tmp_path, "cut.csv", deeplabcut(["ann", "bob"])[:-200]), progress=False)
    assert recordings[0].detections.frames.tolist() == [t for t in range(T - 1) for _ in range(2)]
    assert "line 10: " in recordings[0].left_out[0].reason
    columns = [(joint, what) for joint in COCO for what in "xy"]
    header = [["scorer", "", "", *["ann"] * 34], ["bodyparts", "", "", *(j for j, _ in columns)], ["coords", "", "", *(what for _, what in columns)]]
    rows = [["labeled-data", "walk1", f"img{t:03}.png", *body(t).ravel()] for t in range(T)]
    path = write(tmp_path, "CollectedData_ann.csv", "".join(",".join(map(str, row)) + "\n" for row in [*header, *rows]))
    recording = only(path)
    assert_is_the_walk(recording, confidence=None)
    assert "walk1" in recording.places


# ------------------------------------------------------------------------------------------------------- what holds no poses


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return made.getvalue()


def saved_by_torch() -> bytes:
    made = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, made)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("walkDLC_resnet50.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), ["HDF5", "DeepLabCut", "save_as_csv=True"]),
        ("walks.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), ["Excel", "CSV"]),
        ("walks.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), ["MATLAB", "scipy.io.loadmat"]),
        ("walks.zip", zipped("walks/001.json"), ["zip archive", "unpack it"]),
        ("walks.json.gz", gzip.compress(b"[]", mtime=0), ["gzip", "unpack"]),
        ("walks.pt", saved_by_torch(), ["PyTorch", "numpy.savez"]),
        ("walk.mp4", b"\0\0\0\x20ftypisom" + bytes(90), ["a video", "pose estimator"]),
        ("walk.csv", b"\xff\xd8\xff\xe0" + bytes(90), ["a picture", "pose estimator"]),
        ("walk.trc", b"PathFileType\t4\t(X/Y/Z)\twalk.trc\nDataRate\tCameraRate\n", ["OpenSim's .trc", "C3D"]),
        ("walk.bvh", b"HIERARCHY\nROOT Hips\n{\n", ["BVH", "C3D or CSV"]),
        ("walk.parquet", b"PAR1" + bytes(90), ["Parquet", "to_csv"]),
    ],
)
def test_files_of_other_kinds_are_called_by_their_names(tmp_path: Path, name: str, data: bytes, words: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / name
    path.write_bytes(data)
    for asked in (path, tmp_path / "folder"):
        with pytest.raises(DataError) as error:
            read_walks(asked, progress=False)
        for word in (str(path), *words):
            assert word in str(error.value)
