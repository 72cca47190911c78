"""Texts that people have instead of the pose CSV: other dialects, names and columns; tables that are no poses."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.formats.columns import layout_of, plain
from fastst.data.read import read_recordings
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

COCO = LAYOUTS["coco17"].joints


def read(path: Path) -> list[Recording]:
    recordings, left_out = read_recordings(path, progress=False)
    assert left_out == []
    return recordings


def reasons(recordings: list[Recording]) -> dict[str, str]:
    return {left.name: left.reason for recording in recordings for left in recording.left_out}


def walk(frames: int, joints: int = 17, axes: int = 2, seed: int = 0) -> np.ndarray:
    """Random places.  # [frames, joints, axes] float32"""
    return np.random.default_rng(seed).uniform(1, 300, (frames, joints, axes)).round(3).astype(np.float32)


def names(joints: Iterable[str] = COCO, kinds: str = "xy", style: str = "{joint}_{kind}") -> list[str]:
    return [style.format(joint=joint, kind=kind) for joint in joints for kind in kinds]


def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], separator: str = ",", encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(separator.join(map(str, row)) + "\n" for row in (header, *rows)).encode(encoding))
    return path


STYLES = [
    "{joint}_{kind}",
    "{joint}.{kind}",
    "{kind}_{joint}",
    "{joint} {kind}",
    "{camel}{KIND}",
    "{camel}_{kind}",
    "{short}_{kind}",
    "{tight}_{kind}",
    "{UPPER}_{KIND}",
]
CONFIDENCES = ["conf", "score", "confidence", "visibility", "likelihood", "c", "p"]


def styled(style: str, joint: str, kind: str) -> str:
    side, _, part = joint.partition("_")
    has_side = side in ("left", "right")
    short = side[0] + part.title() if has_side else joint.title()
    tight = side[0] + part if has_side else joint
    return style.format(
        joint=joint,
        kind=kind,
        KIND=kind.upper(),
        UPPER=joint.upper(),
        camel=joint.title().replace("_", ""),
        short=short.replace("_", ""),
        tight=tight.replace("_", ""),
    )


def test_spellings_of_joints_with_a_side_and_several_words() -> None:
    for spellings in (("left_eye_inner", "LeftEyeInner", "EyeInnerLeft", "eye_inner_l", "l_eye_inner"), ("right_hip", "RHip", "HipRight", "rhip")):
        assert len(set(map(plain, spellings))) == 1
    assert plain("left_eye_inner") != plain("left_eye_outer")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_walks_in_a_random_dialect_read_back(tmp_path: Path, data: st.DataObject) -> None:
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    layout = LAYOUTS[pick("coco17", "openpose25", "ntu25")]
    separator = pick(",", ";", "\t")
    decimal = "." if separator == "," else pick(".", ",")
    axes = pick(("x", "y"), ("x", "y", "z"))
    confidence = pick(None, *CONFIDENCES)
    style, missing = pick(*STYLES), pick("", "NA", "NaN", "nan", "null", "None")
    lengths = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    walks = {
        f"{number + 1:03d}-nm-01-090": rng.normal(0, 100, (length, layout.num_joints, len(axes))).astype(np.float32)
        for number, length in enumerate(lengths)
    }
    for joints in walks.values():
        joints[rng.random(joints.shape[:2]) < 0.2] = np.nan

    told = pick("folder", "name", "windows", "camera", "frame and walk", "subject and walk")
    columns: dict[str, Callable[[str, int, np.ndarray], str]] = {
        "folder": {"image_name": lambda name, t, _: f"a/b/{name}/{t:06d}.jpg"},
        "name": {"image_name": lambda name, t, _: f"{name}_{t:04d}.png"},
        "windows": {"img_path": lambda name, t, _: f"C:\\data\\{name}\\{t}.jpg"},
        "camera": {"file": lambda name, t, _: f"{name}/frame{t:05d}_cam2.jpg"},
        "frame and walk": {"Frame": lambda name, t, _: str(t), "video": lambda name, t, _: name},
        "subject and walk": {"walk": lambda name, t, _: "w" + name[:3], "frame_id": lambda name, t, _: f"{t}.0", "subject": lambda name, t, _: name},
    }[told]  # type: ignore[assignment]

    def number(value: float) -> str:
        return missing if np.isnan(value) else f"{value:.9g}".replace(".", decimal)

    for joint in range(layout.num_joints):
        for axis, kind in enumerate(axes):
            columns[styled(style, layout.joints[joint], kind)] = lambda _, t, joints, joint=joint, axis=axis: number(joints[t, joint, axis])
        if confidence:
            columns[styled(style, layout.joints[joint], confidence)] = lambda _, t, joints: number(0.5)
    for further in data.draw(st.sets(st.sampled_from(["", "Unnamed: 0", "note", "timestamp", "bbox_x1"]))):
        columns[further] = lambda _, t, joints: number(t + 0.25)
    order = data.draw(st.permutations(list(columns)))
    rows = [[columns[column](name, t, joints) for column in order] for name, joints in walks.items() for t in range(len(joints))]
    text = io.StringIO(newline="")
    ends = pick("\n", "\r\n")
    writer = csv.writer(text, delimiter=separator, quoting=pick(csv.QUOTE_MINIMAL, csv.QUOTE_ALL), lineterminator=ends)
    writer.writerows([order, *data.draw(st.permutations(rows))])
    path = tmp_path / "walks.csv"
    path.write_bytes(text.getvalue().encode(pick("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")))

    found = {next(part for part in (*r.places, r.attributes.get("subject", "")) if part in walks): r for r in read(path)}
    assert sorted(found) == sorted(walks)
    for name, joints in walks.items():
        detections = found[name].detections
        assert found[name].layout is layout
        assert detections.frames.tolist() == list(range(len(joints)))
        np.testing.assert_array_equal(detections.joints, joints)
        assert (detections.confidences is None) == (confidence is None)


@pytest.mark.parametrize(
    ("style", "joints", "kinds", "layout"),
    [
        ("{kind}{joint}", [str(j) for j in range(12)], "xyzv", "unnamed12"),
        ("landmark_{joint}_{kind}", [str(j) for j in range(1, 13)], "xy", "unnamed12"),
        ("{joint}.{kind}", ["nose", "tail"], "xy", "markers"),
        ("{joint}_{kind}", [*COCO, "hat"], "xy", "coco17"),
        ("{joint}_{kind}", [*COCO, "neck", "mid_hip", "bbox", "image"], "xy", "openpose18"),
        ("{joint}_{kind}", [*COCO, "1", "2"], "xy", "coco17"),
    ],
)
def test_the_skeleton_follows_from_the_names(tmp_path: Path, style: str, joints: list[str], kinds: str, layout: str) -> None:
    made = walk(3, len(joints), len(kinds))
    [recording] = read(write(tmp_path / "f.csv", ["frame", *names(joints, kinds, style)], ([t, *f.ravel()] for t, f in enumerate(made))))
    assert recording.layout.name == layout
    expected = {joint: made[:, j, : 3 if "z" in kinds else 2] for j, joint in enumerate(joints)}
    for j, joint in enumerate(recording.layout.joints):
        column = joints[j] if joint not in expected else joint
        np.testing.assert_array_equal(recording.detections.joints[:, j], expected[column])


@pytest.mark.parametrize("style", ["kp{joint}_{kind}", "keypoint_{joint}_{kind}", "{kind}_joint{joint}"])
def test_a_box_beside_numbered_joints_is_none_of_them(tmp_path: Path, style: str) -> None:
    joints = walk(3)
    header = ["frame", "x1", "y1", "x2", "y2", "conf", *names(map(str, range(17)), "xy", style)]
    [recording] = read(path := write(tmp_path / "f.csv", header, ([t, 700, 700, 800, 800, 0.9, *f.ravel()] for t, f in enumerate(joints))))
    np.testing.assert_array_equal(recording.detections.joints, joints)
    words = f"{path}: x1, y1, x2, y2 are not used; the joints are those of {recording.layout.name}"
    assert reasons([recording]) == {"4 column(s) of f.csv": words}


def test_a_box_beside_named_joints_is_none_of_them(tmp_path: Path) -> None:
    joints = walk(3, 3)
    header = ["frame", "x1", "y1", "x2", "y2", *names(["snout", "back", "tail"])]
    [recording] = read(write(tmp_path / "f.csv", header, ([t, 700, 700, 800, 800, *f.ravel()] for t, f in enumerate(joints))))
    np.testing.assert_array_equal(recording.detections.joints, joints)
    assert "x1, y1, x2, y2 are not used" in reasons([recording])["4 column(s) of f.csv"]


def test_confidences_spelled_otherwise_than_the_joints(tmp_path: Path) -> None:
    header = ["frame", *names("123", "xy", "kp{joint}_{kind}"), "conf1", "conf2", "conf3"]
    [recording] = read(write(tmp_path / "f.csv", header, [[0, *walk(1, 3).ravel(), 0.5, 0.6, 0.7]]))
    np.testing.assert_allclose(recording.detections.confidences, [[0.5, 0.6, 0.7]])


def test_joints_that_are_not_used_are_named(tmp_path: Path) -> None:
    joints = walk(2, 19)
    [recording] = read(
        write(tmp_path / "f.csv", ["frame", *names([*COCO, "left_heel", "right_heel"])], ([t, *f.ravel()] for t, f in enumerate(joints)))
    )
    assert recording.layout is LAYOUTS["coco17"]
    assert "left_heel_x, left_heel_y, right_heel_x, right_heel_y are not used" in reasons([recording])["4 column(s) of f.csv"]


def test_two_columns_for_one_number_are_refused(tmp_path: Path) -> None:
    header = ["frame", *names(), "Nose.X"]
    with pytest.raises(DataError, match=r"line 1: nose_x and Nose\.X are both the x of 'nose'; expected one column, remove or rename the other"):
        read(write(tmp_path / "f.csv", header, [[0, *walk(1).ravel(), 3]]))


def test_numbered_joints_are_in_the_order_of_their_numbers() -> None:
    layout, order = layout_of(["2", "0", "1"])
    assert (layout.num_joints, order) == (3, [1, 2, 0])


@pytest.mark.parametrize("told", ["frame", "order"])
def test_several_people_in_a_frame(tmp_path: Path, told: str) -> None:
    joints = walk(6)
    header = [*(["frame"] if told == "frame" else []), "person_id", *names()]
    rows = [[*([i // 2] if told == "frame" else []), 7 if i % 2 else "", *f.ravel()] for i, f in enumerate(joints)]
    [recording] = read(write(tmp_path / "f.csv", header, rows))
    detections = recording.detections
    assert detections.frames.tolist() == [0, 0, 1, 1, 2, 2]
    assert detections.ids.tolist() == [-1, 7] * 3
    np.testing.assert_array_equal(detections.joints, joints)
    assert reasons([recording]) == {}


def test_people_with_names(tmp_path: Path) -> None:
    rows = [[t, who, *f.ravel()] for t in range(2) for who, f in zip(("anna", "ben", "NA"), walk(3), strict=True)]
    [recording] = read(write(tmp_path / "f.csv", ["frame", "track", *names()], rows))
    ids = recording.detections.ids.reshape(2, 3)
    assert (ids[0] == ids[1]).all()
    assert len(set(ids[0])) == 3
    np.testing.assert_array_equal(recording.detections.joints[ids.ravel() == -1], walk(3)[[2, 2]])


def test_columns_say_whose_walk_it_is(tmp_path: Path) -> None:
    header = ["frame", "video", "subject", "label", "fps", "image_width", "image_height", "view", "age", *names()]
    rows = [[t, f"v{i}.mp4", f"s{i % 2}", "mf"[i % 2], 12.5, 640, 480, "", 40 + i, *f.ravel()] for i in range(3) for t, f in enumerate(walk(2))]
    recordings = read(write(tmp_path / "f.csv", header, rows))
    assert [r.places[-1] for r in recordings] == ["v0", "v1", "v2"]
    assert [r.attributes for r in recordings] == [{"subject": f"s{i % 2}", "label": "mf"[i % 2], "age": str(40 + i)} for i in range(3)]
    assert {(r.fps, r.image_size) for r in recordings} == {(12.5, (640, 480))}


def test_walks_of_several_people_may_have_the_same_name(tmp_path: Path) -> None:
    rows = [[t, who, "first", *f.ravel()] for who in ("anna", "ben") for t, f in enumerate(walk(2))]
    recordings = read(write(tmp_path / "f.csv", ["frame", "subject", "walk", *names()], rows))
    assert [r.places[-2:] for r in recordings] == [("anna", "first"), ("ben", "first")]


def test_a_label_that_changes_within_a_walk_is_none(tmp_path: Path) -> None:
    rows = [[t, who, label, t, *walk(1).ravel()] for who, labels in (("a", "mm"), ("b", "fm"), ("c", ["m", "NA"])) for t, label in enumerate(labels)]
    recordings = read(path := write(tmp_path / "f.csv", ["frame", "walk", "label", "height", *names()], rows))
    assert {r.places[-1]: r.attributes for r in recordings} == {"a": {"label": "m"}, "b": {}, "c": {"label": "m"}}
    assert reasons(recordings) == {
        "label of 1 walk(s)": f"{path}: label is 'f' and 'm' in b; expected one for all rows of a walk",
        "height of 3 walk(s)": f"{path}: height is '0' and '1' in a; expected one for all rows of a walk",
    }


def test_frames_are_told_by_a_column_by_names_or_by_the_order(tmp_path: Path) -> None:
    joints = walk(25)

    def frames(header: list[str], before: Callable[[int], list[object]]) -> tuple[str, list[int]]:
        [recording] = read(write(tmp_path / "f.csv", [*header, *names()], ([*before(t), *f.ravel()] for t, f in enumerate(joints))))
        return recording.places[-1], recording.detections.frames.tolist()

    numbers = list(range(25))
    assert frames([], lambda t: []) == ("f", numbers)
    assert frames(["frame"], lambda t: [t - 3]) == ("f", [t - 3 for t in numbers])
    assert frames(["frame"], lambda t: [f"b/img_{t:03d}.png"]) == ("img", numbers)
    assert frames(["image_id", "frame"], lambda t: [f"w/{t + 9}.jpg", 2 * t]) == ("w", [2 * t for t in numbers])
    assert frames(["filename", "frame"], lambda t: ["d/001-nm-01-054.avi", t]) == ("001-nm-01-054", numbers)
    assert frames(["filename"], lambda t: ["001-nm-01-054.avi"]) == ("001-nm-01-054", numbers)


def test_more_walks_than_frames(tmp_path: Path) -> None:
    rows = [[f"{w:03d}-nm-01-090_{t:03d}.jpg", *f.ravel()] for w in range(60) for t, f in enumerate(walk(20))]
    recordings = read(write(tmp_path / "f.csv", ["image_name", *names()], rows))
    assert [r.places[-1] for r in recordings] == [f"{w:03d}-nm-01-090" for w in range(60)]
    assert all(r.detections.frames.tolist() == list(range(20)) for r in recordings)


def test_a_frame_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", ["frame", *names()], ([t if t != 2 else "two", *f.ravel()] for t, f in enumerate(walk(5))))
    recordings = read(path)
    assert recordings[0].detections.frames.tolist() == [0, 1, 3, 4]
    assert reasons(recordings)["1 row(s) of f.csv"].startswith(f"{path}, line 4: frame is 'two', expected a whole number or a name")


@pytest.mark.parametrize("landmark", ["landmark", "Keypoint_Name", "joint"])
def test_a_row_a_joint(tmp_path: Path, landmark: str) -> None:
    joints = walk(6, axes=3)
    rows = [[i // 2, i % 2, joint, *place, 0.5] for i, frame in enumerate(joints) for joint, place in zip(COCO, frame, strict=True)]
    del rows[20]  # a joint that was not found
    joints[1, 3] = np.nan
    order = np.random.default_rng(0).permutation(len(rows))
    [recording] = read(write(tmp_path / "f.csv", ["frame", "person", landmark, "x", "y", "z", "visibility"], [rows[i] for i in order]))
    detections = recording.detections
    assert recording.layout is LAYOUTS["coco17"]
    assert detections.frames.tolist() == [0, 0, 1, 1, 2, 2]
    assert detections.ids.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(detections.joints, joints)
    assert detections.confidences[1, 3] == 0


def test_a_row_a_joint_with_bad_cells_or_a_joint_twice(tmp_path: Path) -> None:
    header = ["frame", "video", "joint", "x", "y"]
    rows = [[t, video, joint, *place] for video in "ab" for t, frame in enumerate(walk(2)) for joint, place in zip(COCO, frame, strict=True)]
    rows[40][3] = "here"
    recordings = read(path := write(tmp_path / "f.csv", header, rows))
    assert [r.places[-1] for r in recordings] == ["a", "b"]
    assert np.argwhere(np.isnan(recordings[1].detections.joints).all(axis=2)).tolist() == [[0, 6]]
    words = f"{path}, line 42: x is 'here', expected a finite number; such a joint is missing in that frame"
    assert reasons(recordings) == {"joints in 1 row(s) of b": words}
    rows[40] = ["9"]  # a line that was cut off: its frame may be any
    assert [r.layout.name for r in read(write(tmp_path / "f.csv", header, rows))] == ["coco17"] * 2
    rows[40] = [1, "b", "nose", 1, "here"]
    with pytest.raises(DataError, match="nose stands twice in one frame; expected a column that says which frame it is"):
        read(write(tmp_path / "f.csv", header[1:], (row[1:] for row in rows if row[4] != "here")))


def test_deeplabcut(tmp_path: Path) -> None:
    joints = walk(4)
    above = [["scorer", *["net"] * 51], ["bodyparts", *(joint for joint in COCO for _ in range(3))], ["coords", *["x", "y", "likelihood"] * 17]]
    rows = [[t, *(cell for place in frame for cell in (*place, 0.75))] for t, frame in enumerate(joints)]
    [recording] = read(write(tmp_path / "f.csv", above[0], [*above[1:], *rows]))
    assert recording.layout is LAYOUTS["coco17"]
    np.testing.assert_array_equal(recording.detections.joints, joints)
    np.testing.assert_array_equal(recording.detections.confidences, np.full((4, 17), 0.75))
    rows[2][5] = "bad"
    recordings = read(path := write(tmp_path / "f.csv", above[0], [*above[1:], *rows]))
    assert reasons(recordings)["joints in 1 row(s) of f"].startswith(f"{path}, line 6: left_eye_y is 'bad'")


def test_sleap(tmp_path: Path) -> None:
    joints = walk(4)
    rows = [["", t, 0.9, *(cell for place in frame for cell in (*place, 0.75))] for t, frame in enumerate(joints)]
    header = ["track", "frame_idx", "instance.score", *(f"{joint}.{what}" for joint in COCO for what in ("x", "y", "score"))]
    [recording] = read(write(tmp_path / "f.csv", header, rows))
    np.testing.assert_array_equal(recording.detections.joints, joints)
    assert recording.detections.ids.tolist() == [-1] * 4


# Tables that are no poses.


def test_labels_among_the_data_are_called_by_their_name(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", ["subject", "label"], [["001", "m"]])
    with pytest.raises(DataError, match=re.escape(f"{path} holds labels (subject, label) and no poses; give it with --labels {path}")):
        read(path)
    write(tmp_path / "walks.csv", ["frame", *names()], [[0, *walk(1).ravel()]])
    recordings, left_out = read_recordings(tmp_path, progress=False)
    assert [r.places for r in recordings] == [("walks",)]
    assert [left.name for left in left_out] == ["labels"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "image_name,age\n1.jpg,3\n",
            "line 1: no column is the x of a joint; expected columns such as nose_x,nose_y,nose_conf,left_eye_x,... for every joint",
        ),
        ("1.5,2.5,3.5\n1,2,3\n", "line 1: no column is the x of a joint"),
        ("frame;nose_x\n1;2\n", "line 1: 'nose' has a column for x and none for y"),
        ("frame,nose_x,nose_y,nose_p,tail_x,tail_y\n1,2,3,1,4,5", "line 1: 'tail' has no column for its p, other joints have one"),
        ("Read me first.\n", "is of no form that can be read"),
        ("{}\n", "is of no form that can be read"),
        ("\0\0\0,\0\n\x01\n", "no column is the x of a joint"),
    ],
)
def test_other_texts_are_refused_with_what_is_missing(tmp_path: Path, text: str, reason: str) -> None:
    (path := tmp_path / "f.txt").write_text(text)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, f"{'8' * 200_000},7", "\0", "\x1b[31m", "Infinity", "1,2"])
def test_a_strange_cell_loses_no_more_than_its_row(tmp_path: Path, value: str) -> None:
    rows = [[f"{name}/{t}.jpg", *f.ravel()] for name in "ab" for t, f in enumerate(walk(3))]
    rows[1][4] = value
    recordings = read(path := write(tmp_path / "f.csv", ["image_name", *names()], rows))
    assert [r.places[-1] for r in recordings] == ["a", "b"]
    np.testing.assert_array_equal(recordings[1].detections.joints, walk(3))
    np.testing.assert_array_equal(recordings[0].detections.joints[[0, -1]], walk(3)[[0, 2]])
    [reason] = reasons(recordings).values()
    assert reason.startswith(f"{path}, line 3: ")
    assert len(reason) < 400


def test_a_strange_cell_in_a_table_of_numbers_alone(tmp_path: Path) -> None:
    joints = walk(3)
    rows = [[*f.ravel()] for f in joints]
    rows[1][4], joints[1, 2] = "here", np.nan
    [recording] = read(write(tmp_path / "f.csv", names(), rows))
    np.testing.assert_array_equal(recording.detections.joints, joints)


def test_two_hundred_thousand_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).permutation(200_000)
    (path := tmp_path / "f.csv").write_text("frame,a_x,a_y\n" + "".join(f"{t},{t}.5,1\n" for t in frames))
    [recording] = read(path)
    np.testing.assert_array_equal(recording.detections.frames, np.arange(200_000))
    np.testing.assert_array_equal(recording.detections.joints[:, 0, 0], np.arange(200_000, dtype=np.float32) + 0.5)
