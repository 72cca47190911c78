"""YOLO's label files: what their numbers are, and what is left out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastst.data.read import read_recordings
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS


def read(path: Path) -> list[Recording]:
    recordings, left_out = read_recordings(path, progress=False)
    assert left_out == []
    return recordings


def walk(frames: int, joints: int = 17) -> np.ndarray:
    """Random places.  # [frames, joints, 2] float32"""
    return np.random.default_rng(0).uniform(1, 300, (frames, joints, 2)).round(3).astype(np.float32)


def label(joints: np.ndarray, *after: object, flags: float | None = 0.9) -> str:
    """A line: a box, the joints [J, 2] in thousandths, and what comes after them."""
    cells = [cell for place in joints / 1000 for cell in (*place, *([] if flags is None else [flags]))]
    return " ".join(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in [0, 0.5, 0.5, 0.25, 0.5, *map(float, cells), *after])


@pytest.mark.parametrize("flags", [None, 0.9])
@pytest.mark.parametrize(("after", "score", "who"), [([], None, -1), ([0.875], 0.875, -1), ([4], None, 4), ([0.875, 4], 0.875, 4)])
def test_yolo_labels(tmp_path: Path, flags: float | None, after: list[float], score: float | None, who: int) -> None:
    joints = walk(3)
    for t, frame in enumerate(joints):
        (tmp_path / f"clip_{9 + t}.txt").write_text(label(frame, *after, flags=flags) + "\n")
    [recording] = read(tmp_path)
    assert recording.layout is LAYOUTS["coco17"]
    assert recording.places[-1] == "clip"
    assert sorted(recording.detections.frames) == [9, 10, 11]
    np.testing.assert_allclose(recording.detections.joints, joints[recording.detections.frames - 9] / 1000, rtol=1e-5)
    assert (recording.detections.confidences is None) == (flags is None)
    assert recording.detections.ids.tolist() == [who] * 3
    assert recording.detections.scores is None if score is None else recording.detections.scores.tolist() == [score] * 3


@pytest.mark.parametrize("count", [*range(39, 42), 50, 55])
def test_a_line_of_yolo_labels_that_was_cut_off_is_left_out(tmp_path: Path, count: int) -> None:
    for t, frame in enumerate(walk(9)):
        line = label(frame, *([4] if t % 3 else []))  # a track has a number where it was followed
        (tmp_path / f"clip_{t}.txt").write_text(" ".join(line.split()[: count if t == 5 else None]) + "\n")
    recordings, left_out = read_recordings(tmp_path, progress=False)
    assert [r.detections.frames.tolist() for r in recordings] == [[0, 1, 2, 3, 4, 6, 7, 8]]
    reported = [left.reason for left in [*left_out, *recordings[0].left_out]]
    assert len(reported) == 1
    assert f"clip_5.txt, line 1: {count} numbers, 17 joints of 3 numbers are usual" in reported[0]


def test_yolo_labels_of_several_people_and_of_nobody(tmp_path: Path) -> None:
    joints = walk(2)
    for t, lines in {1: [0, 1], 2: [], 3: [1]}.items():
        (tmp_path / f"clip_{t}.txt").write_text("".join(label(joints[i]) + "\n" for i in lines))
    [recording] = read(tmp_path)  # which asserts that no file is left out
    assert recording.detections.frames.tolist() == [1, 1, 3]


def test_an_empty_file_elsewhere_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.csv").write_text("frame,nose_x,nose_y\n0,1,2\n")
    recordings, left_out = read_recordings(tmp_path, progress=False)
    assert len(recordings) == 1
    assert [(left.name, left.reason) for left in left_out] == [("a", f"{tmp_path / 'a.txt'} is empty; was it written to the end?")]


@pytest.mark.parametrize("flag", [0.0, 2.0, 0.5])
def test_yolo_labels_of_other_skeletons_and_of_boxes(tmp_path: Path, flag: float) -> None:
    (tmp_path / "clip_1.txt").write_text(label(walk(1, 12)[0], flags=flag) + "\n")
    [recording] = read(tmp_path)
    assert recording.layout.name == "unnamed12"
    assert np.isnan(recording.detections.joints).all() == (flag == 0)
    (tmp_path / "clip_1.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(DataError, match=r"clip_1\.txt has boxes and no keypoints: 5 numbers a line"):
        read(tmp_path)


def test_a_bad_line_of_yolo_labels_leaves_one_person_out(tmp_path: Path) -> None:
    good = label(walk(1)[0])
    (path := tmp_path / "clip_1.txt").write_text(f"{good}\n{good[:-20]}\n\n{good}\n0 abc\n0 nan {good}\n")
    (tmp_path / "clip_2.txt").write_text("0 0.5 0.5 0.25 0.5 0.5 0.5 half\n")
    (tmp_path / "last.txt").write_text(good)
    recordings, left_out = read_recordings(tmp_path, progress=False)
    assert [len(r.detections) for r in recordings] == [2]
    found = [left.reason for left in recordings[0].left_out]
    assert [reason.split(";")[0] for reason in found] == [
        f"{path}, line 2: {len(good[:-20].split())} numbers, the line before has 56",
        f"{path}, line 5: '0 abc'",
        f"{path}, line 6: {'0 nan ' + good[:74]!r}",
    ]
    assert {left.name: left.reason.split(". Poses of")[0].split(";")[0] for left in left_out} == {
        "clip_2": f"{tmp_path / 'clip_2.txt'} is of no form that can be read: it is text that begins with '0 0.5 0.5 0.25 0.5 0.5 0.5 half'",
        "last": f"{tmp_path / 'last.txt'} holds one frame, and its name has no number that says which",
    }
