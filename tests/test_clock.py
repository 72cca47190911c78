"""Frame rates that only the times of frames tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fastst.data.formats.clock import rate_of
from fastst.data.options import ReadOptions
from fastst.data.prepare import prepare
from fastst.data.read import read_recordings, read_walks
from fastst.layouts import LAYOUTS

JOINTS = LAYOUTS["coco17"].joints
START = datetime(2024, 5, 1, 23, 59, 59)


def iso(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(" ", "milliseconds")


def save(path: Path, column: str, times: list[str], frame_step: int = 0, seed: int = 0) -> Path:
    """A table of one walk; with the numbers of the frames where they step."""
    poses = np.random.default_rng(seed).uniform(100, 500, (len(times), 34)).round(2)
    header = [*(["frame"] if frame_step else []), column, *(f"{joint}_{axis}" for joint in JOINTS for axis in "xy")]
    rows = [[*([t * frame_step] if frame_step else []), time, *pose] for t, (time, pose) in enumerate(zip(times, poses.tolist(), strict=True))]
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]))
    return path


@pytest.mark.parametrize(
    ("column", "said", "unit"),
    [
        ("time", lambda t: f"{t:.4f}", "s"),
        ("timestamp", lambda t: f"{1000 * t:.0f}", "ms"),
        ("timestamp_ms", lambda t: f"{1000 * t:.3f}", "ms"),
        ("ms", lambda t: f"{1000 * t:.3f}", "ms"),
        ("time_us", lambda t: f"{1e6 * t:.0f}", "µs"),
        ("timestamp", iso, "dates"),
    ],
)
@pytest.mark.parametrize("fps", [25, 30, 60])
def test_a_column_of_times(column: str, said: Callable[[float], str], unit: str, fps: int, tmp_path: Path) -> None:
    walks = read_walks(save(tmp_path / "P1_1.csv", column, [said(t / fps) for t in range(40)]), progress=False)
    assert walks.fps == [fps]
    [note] = [note for note in walks.notes if "times tell the frame rate" in note]
    assert f"{fps} a second" in note
    assert note.endswith(f"by {column!r}, in {unit}")


def test_the_numbers_of_the_frames_count(tmp_path: Path) -> None:
    """Every other frame was saved."""
    walks = read_walks(save(tmp_path / "P1_1.csv", "timestamp", [f"{t / 15:.4f}" for t in range(40)], frame_step=2), progress=False)
    assert walks.fps == [15]


@pytest.mark.parametrize(
    "times",
    [
        [str(t) for t in range(40)],  # in seconds or in frames
        [str(t * t / 100) for t in range(40)],  # uneven
        [str(-t / 25) for t in range(40)],
        ["now"] * 40,
        ["0.04"] * 40,
        [str(t / 25) for t in range(4)],  # few
        ["nan", *(str(t / 25) for t in range(39))],
        [iso(t / 25) + ("Z" if t % 2 else "") for t in range(40)],
    ],
)
def test_times_that_tell_no_rate(times: list[str]) -> None:
    assert rate_of(np.arange(len(times)), times) is None


def test_a_rate_that_is_no_whole_number() -> None:
    assert rate_of(np.arange(20), [t / 12.5 for t in range(20)]) == (12.5, "s")


@pytest.mark.parametrize(("column", "said"), [("time", lambda t: f"{t:.4f}"), ("timestamp", iso), ("timestamp_ms", lambda t: f"{1000 * t:.0f}")])
def test_times_that_jump_where_no_frame_has_a_number_are_a_gap(column: str, said: Callable[[float], str], tmp_path: Path) -> None:
    """At 29.97 frames a second, whose times are never whole."""
    seen = [*range(50), *range(53, 120), *range(320, 400)]
    [recording] = read_recordings(save(tmp_path / "P1_1.csv", column, [said(t / 29.97) for t in seen]), progress=False)[0]
    assert recording.detections.frames.tolist() == seen
    walks = read_walks(tmp_path / "P1_1.csv", progress=False)
    assert [len(poses) for poses in walks.poses] == [120]
    assert "nobody is seen in frames 120 to 319: a gap of more than 30 frames" in walks.left_out[0].reason


def test_times_of_several_people_are_frames_of_all(tmp_path: Path) -> None:
    table = save(tmp_path / "a.csv", "time", [f"{t / 25:.2f}" for t in range(60)]).read_text().splitlines()
    late = [f"{row},2" for row in table[31:]]
    (tmp_path / "a.csv").write_text("\n".join([f"{table[0]},person", *(f"{row},1" for row in table[1:41]), *late]))
    [recording] = read_recordings(tmp_path / "a.csv", progress=False)[0]
    for person, frames in ((1, range(40)), (2, range(30, 60))):
        assert recording.detections.frames[recording.detections.ids == person].tolist() == [*frames]


def test_times_that_step_unevenly_or_stand_still_tell_no_frames(tmp_path: Path) -> None:
    for times in (["0.00", "0.04", "0.04", "0.08", "0.12", "0.16", "0.20", "0.24"], [str(t * t) for t in range(30)], ["1"] * 30, ["?"] * 30):
        [recording] = read_recordings(save(tmp_path / "a.csv", "time", times), progress=False)[0]
        assert recording.detections.frames.tolist() == [*range(len(times))]


def test_rates_that_differ_are_reported(tmp_path: Path) -> None:
    for seed, (name, fps) in enumerate({"P1_1": 25, "P2_1": 60}.items()):
        save(tmp_path / f"{name}.csv", "time", [f"{t / fps:.4f}" for t in range(30)], seed=seed)
    walks = read_walks(tmp_path, progress=False)
    assert any("frame rates differ: 25" in note for note in prepare(walks, walks.layout, 2)[0].notes)


def test_the_times_of_mediapipe(tmp_path: Path) -> None:
    points = [{"x": 0.3 + 0.01 * j, "y": 0.2 + 0.01 * j, "z": 0.0, "visibility": 0.9} for j in range(33)]
    lines = [json.dumps({"timestamp": 40 * t, "pose_landmarks": [points]}) for t in range(20)]
    (tmp_path / "P1_1.jsonl").write_text("\n".join(lines))
    walks = read_walks(tmp_path / "P1_1.jsonl", ReadOptions(image_size=(1920, 1080)), progress=False)
    assert walks.fps == [25]
    assert any("25 a second" in note and "the frames' times, in ms" in note for note in walks.notes)
