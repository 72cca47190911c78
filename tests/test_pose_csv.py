"""The pose CSV: what is read, what is left out and where, and that the size of CASIA-B is no problem."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.options import ReadOptions
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

REAL_FILE = Path(__file__).parents[2] / "shared" / "data" / "cmu_coco17.csv"
COLUMNS = ["image_name", *(f"{joint}_{what}" for joint in LAYOUTS["coco17"].joints for what in ("x", "y", "conf"))]
HEADER = ",".join(COLUMNS)


def row(walk: str, frame: int, first: float | str = 1.0, confidence: float | str = 0.9, **cells: str) -> str:
    """A line: joint j is at (first + j, 2); `cells` replace single columns."""
    values = {"image_name": f"casia/{walk}/{frame:06d}.jpg"}
    for j, joint in enumerate(LAYOUTS["coco17"].joints):
        x = first if isinstance(first, str) else f"{first + j}"
        values |= {f"{joint}_x": x, f"{joint}_y": "2", f"{joint}_conf": str(confidence)}
    return ",".join({**values, **cells}.values())


def write(folder: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    path = folder / "poses.csv"
    path.write_text(end.join([header, *lines]) + end, encoding="utf-8", newline="")
    return path


@dataclass(frozen=True)
class Read:
    """What the reader says of a file: recordings by the last part of their name, and what it left out."""

    walks: dict[str, Recording]
    left_out: dict[str, str]

    @property
    def joints(self) -> list[np.ndarray]:
        return [recording.detections.joints for recording in self.walks.values()]


def read(path: Path, progress: bool = False) -> Read:
    recordings, left_out = read_recordings(path, progress)
    assert left_out == []
    return Read({r.places[-1]: r for r in recordings}, {left.name: left.reason for r in recordings for left in r.left_out})


A, B = "001-nm-01-090", "002-bg-02-018"


def test_reads_names_frames_and_poses(tmp_path: Path) -> None:
    walks = read(write(tmp_path, row(A, 1, 10), row(A, 2, 20), row(B, 7, 30)))
    first, second = walks.walks.values()
    assert first.layout is LAYOUTS["coco17"]
    assert (first.places[-3:], second.places[-3:]) == (("poses", "casia", A), ("poses", "casia", B))
    assert first.attributes == {}
    assert walks.left_out == {}
    assert [joints.shape for joints in walks.joints] == [(2, 17, 2), (1, 17, 2)]
    assert first.detections.joints.dtype == first.detections.confidences.dtype == np.float32
    np.testing.assert_array_equal(first.detections.joints[:, 3], [[13, 2], [23, 2]])
    np.testing.assert_array_equal(first.detections.confidences, np.full((2, 17), 0.9, np.float32))
    assert (first.detections.frames.tolist(), second.detections.frames.tolist()) == ([1, 2], [7])


def test_rows_may_lie_in_any_order(tmp_path: Path) -> None:
    walks = read(write(tmp_path, row(A, 3, 30), row(B, 1, 5), row(A, 1, 10), row(A, 2, 20)))
    np.testing.assert_array_equal(walks.joints[0][:, 0, 0], [10, 20, 30])
    assert walks.left_out == {}


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "-nan", " ", "NA", " NA ", "null", "None", '"NA"', '""'])
def test_missing_cells_and_zero_confidence_are_nan(tmp_path: Path, cell: str) -> None:
    line = row(A, 1, nose_x=cell, left_eye_conf="0.000", right_eye_conf=cell, left_ear_y=cell)
    # A second walk with a bad cell makes the slower way of reading run, too; both must agree.
    for extra in ([], [row(B, 1, nose_x="abc")]):
        walks = read(write(tmp_path, line, *extra))
        missing = np.isnan(walks.joints[0][0]).all(axis=1)
        assert np.flatnonzero(missing).tolist() == [0, 1, 2, 3]
        assert np.isfinite(walks.joints[0][0, 4:]).all()


@pytest.mark.parametrize("people", [False, True])
def test_of_repeated_frames_the_most_confident_is_used(tmp_path: Path, people: bool) -> None:
    """Where the file says who it is, of all rows of a person and frame; else of those of one pose."""
    firsts = [10, 20, 30] if people else [20, 20, 20]
    lines = [row(A, 1, first, confidence) for first, confidence in zip(firsts, (0.5, 0.8, 0.6), strict=True)] + [row(A, 2, 40)]
    lines, header = ([line + ",7" for line in lines], HEADER + ",person") if people else (lines, HEADER)
    walks = read(write(tmp_path, *lines, header=header))
    np.testing.assert_array_equal(walks.joints[0][:, 0, 0], [20, 40])
    assert walks.walks[A].detections.confidences[0, 0] == np.float32(0.8)
    [(name, reason)] = walks.left_out.items()
    assert name == f"2 row(s) of {A}"
    assert "first: frame 1" in reason
    assert "poses.csv" in reason


def two_people(frames: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two who walk towards each other, the second far to the right.  # [frames, 17, 2]"""
    body = np.random.default_rng(0).uniform(0, 60, (17, 2))
    steps = np.arange(frames)[:, None, None] * np.array([3.0, 0.0])
    return body + steps, body + np.array([900, 5]) - steps


def lines_of(poses: np.ndarray, confidences: np.ndarray) -> list[str]:
    return [f"{t}," + ",".join(f"{x:.3f},{y:.3f},{c:.3f}" for x, y in pose) for t, (pose, c) in enumerate(zip(poses, confidences, strict=True))]


FRAMES_HEADER = HEADER.replace("image_name", "frame")


def test_several_people_in_a_frame_of_whom_nobody_says_who_it_is_are_followed(tmp_path: Path) -> None:
    poses, rng = two_people(), np.random.default_rng(1)
    both = zip(*(lines_of(person, rng.uniform(0.5, 0.9, 30)) for person in poses), strict=True)
    path = write(tmp_path, *(line for lines in both for line in lines), header=FRAMES_HEADER)
    assert len(read(path).joints[0]) == 60
    walks = read_walks(path, ReadOptions(tracks="all"), progress=False)
    found = sorted(walks.poses, key=lambda pose: pose[0, 0, 0])
    for pose, expected in zip(found, poses, strict=True):
        np.testing.assert_allclose(pose[:, :, :2], expected, atol=1e-3)


@pytest.mark.parametrize("person", ["", ",3"])
def test_frame_numbers_that_start_again_are_two_walks(tmp_path: Path, person: str) -> None:
    first, second = (lines_of(pose, np.full(30, 0.9)) for pose in two_people())
    lines, header = [line + person for line in first + second[:20]], FRAMES_HEADER + (",person" if person else "")
    with pytest.raises(DataError, match=r"line 32: the frame numbers start again, so several walks or people.*give each row a column `walk`"):
        read(write(tmp_path, *lines, header=header))
    told = [f"{line},{number // 30}" for number, line in enumerate(lines)]
    assert [len(joints) for joints in read(write(tmp_path, *told, header=header + ",walk")).joints] == [30, 20]
    # The same rows twice are one walk.
    assert len(read(write(tmp_path, *(line + person for line in first + first), header=header)).joints[0]) == 30


def test_a_few_rows_that_stand_in_another_order_are_people_of_one_video(tmp_path: Path) -> None:
    first, second = (lines_of(pose, np.full(3, 0.9)) for pose in two_people(3))
    assert [len(joints) for joints in read(write(tmp_path, *first, *second, header=FRAMES_HEADER)).joints] == [6]


@pytest.mark.parametrize("name", ["pid", "sid", "case", "user", "proband", "subject_no", "participant", "Participant ID"])
def test_a_column_of_people_by_other_names(tmp_path: Path, name: str) -> None:
    first, second = (lines_of(pose, np.full(30, 0.9)) for pose in two_people())
    lines = [f"{line},p{number // 30}" for number, line in enumerate(first + second)]
    recordings = read(write(tmp_path, *lines, header=f"{FRAMES_HEADER},{name}")).walks
    assert [(r.places[-1], r.attributes, len(r.detections)) for r in recordings.values()] == [(p, {"subject": p}, 30) for p in ("p0", "p1")]


@pytest.mark.parametrize("value", ["abc", "1.2.3", "0x1", "inf", "-Infinity", "1e400", "1_0", "NAN1", "\u0663", "--1", "1e"])
def test_a_bad_number_is_a_missing_joint(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, row(A, 1), row(B, 1), "", row(A, 2, left_hip_y=value), row(A, 3, nose_x="worse"), row(B, 2))
    walks = read(path)
    assert list(walks.walks) == [A, B]
    missing = np.isnan(walks.joints[0]).all(axis=2)
    assert np.argwhere(missing).tolist() == [[1, LAYOUTS["coco17"].joints.index("left_hip")], [2, 0]]
    assert np.isfinite(walks.joints[1]).all()
    words = f"{path}, line 5: left_hip_y is {value!r}, expected a finite number (and 1 more such line(s)); such a joint is missing in that frame"
    assert walks.left_out == {f"joints in 2 row(s) of {A}": words}


@pytest.mark.parametrize("value", ["-", ".", "#DIV/0!", "inf", "1e300", '"1,5"'])
def test_what_spreadsheets_write_for_no_number_is_a_missing_joint(tmp_path: Path, value: str) -> None:
    walks = read(write(tmp_path, *(row(A, t, nose_y=value if t == 3 else "5") for t in range(9))))
    assert np.argwhere(np.isnan(walks.joints[0]).all(axis=2)).tolist() == [[3, 0]]
    [reason] = walks.left_out.values()
    assert f"line 5: nose_y is {value.strip(chr(34))!r}" in reason


def test_a_walk_of_which_half_cant_be_read_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, row(A, 1), row(A, 2) + ",1", row(B, 1), row(A, 3, first="x", confidence="x"))
    walks = read(path)
    assert list(walks.walks) == [B]
    words = "line 3: 53 columns, expected 52 (and 1 more such line(s)); half of the walk or more can't be read: write the file again, or mend it"
    assert walks.left_out == {A: f"{path}, {words}"}


@pytest.mark.parametrize("value", ['"1.5"', "+1.5", "1.5e0", " 1.5", "\t1.5 ", "01.50"])
def test_ways_to_write_a_number(tmp_path: Path, value: str) -> None:
    for extra in ([], [row(B, 1, nose_x="abc")]):  # a bad cell makes the slower way of reading run, too
        walks = read(write(tmp_path, row(A, 1, nose_x=value), *extra))
        np.testing.assert_array_equal(walks.walks[A].detections.joints[0, 0], [1.5, 2])


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e400"])
def test_an_infinite_number_is_noticed_in_an_otherwise_good_file(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, row(A, 1), row(B, 1, nose_conf=value))
    walks = read(path)
    assert np.isnan(walks.walks[B].detections.joints[0, 0]).all()
    words = f"{path}, line 3: nose_conf is {value!r}, expected a finite number; such a joint is missing in that frame"
    assert walks.left_out == {f"joints in 1 row(s) of {B}": words}


@pytest.mark.parametrize(("line", "count"), [(row(A, 2) + ",1", 53), (row(A, 2).rsplit(",", 3)[0], 49), (f"casia/{A}/000002.jpg", 1)])
def test_a_wrong_number_of_columns_leaves_only_its_row_out(tmp_path: Path, line: str, count: int) -> None:
    path = write(tmp_path, row(A, 1), row(B, 1), "", line, row(B, 2), row(A, 3), row(A, 4))
    walks = read(path)
    assert [recording.detections.frames.tolist() for recording in walks.walks.values()] == [[1, 3, 4], [1, 2]]
    words = f"{path}, line 5: {count} columns, expected 52; the rest of the walk is used; if the file was cut off, copy or write it again"
    assert walks.left_out == {f"1 row(s) of {A}": words}


def test_a_file_that_was_cut_off_loses_its_last_row(tmp_path: Path) -> None:
    path = write(tmp_path, row(A, 1), row(A, 2), row(A, 3))
    path.write_bytes(path.read_bytes()[:-30])
    walks = read(path)
    assert walks.walks[A].detections.frames.tolist() == [1, 2]
    assert "line 4" in walks.left_out[f"1 row(s) of {A}"]


@pytest.mark.parametrize("image_name", ["", "first.jpg", f"casia/{A}/first.jpg", f"casia/{A}/\u0663.jpg", f"casia/{A}/{'1' * 19}.jpg", "/"])
def test_an_image_name_without_a_frame_is_reported_with_its_line(tmp_path: Path, image_name: str) -> None:
    path = write(tmp_path, row(A, 1), row(A, 2, image_name=image_name), row(A, 3), row(A, 4, image_name="other"))
    walks = read(path)
    assert walks.walks[A].detections.frames.tolist() == [1, 3]
    wanted = "expected a name with the frame's number, such as 001-nm-01-090/000012.jpg (and 1 more such line(s))"
    assert walks.left_out == {"2 row(s) of poses.csv": f"{path}, line 3: image_name is {image_name!r}, {wanted}"}


def test_bytes_that_are_no_text_are_reported_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, row(A, 1), row(B, 1, nose_x="@"))
    path.write_bytes(path.read_bytes().replace(b"@", b"\xff\xfe"))
    walks = read(path)
    assert list(walks.walks) == [A, B]
    assert "line 3: nose_x" in walks.left_out[f"joints in 1 row(s) of {B}"]


def test_line_numbers_hold_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastst.data.formats.table._BLOCK_BYTES", 2000)
    lines = [row(A, frame) for frame in range(1, 60)]
    lines[20] += ",7"
    lines[30:30] = ["", ""]
    lines.append(row(B, 1, nose_y="here"))
    path = write(tmp_path, *lines)
    walks = read(path)
    assert "line 22: 53 columns" in walks.left_out[f"1 row(s) of {A}"]
    assert f"line {len(lines) + 1}: nose_y is 'here'" in walks.left_out[f"joints in 1 row(s) of {B}"]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, end: str) -> None:
    assert read(write(tmp_path, row(A, 1), row(A, 2), header="\ufeff" + HEADER, end=end)).joints[0].shape == (2, 17, 2)
    bad = read(write(tmp_path, row(A, 1), row(B, 2, nose_x="x"), header="\ufeff" + HEADER, end=end))
    assert "line 3: nose_x is 'x'" in bad.left_out[f"joints in 1 row(s) of {B}"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace("nose_y", "nose_z"), "line 1: 'nose' has a column for x and none for y; expected columns such as nose_x,nose_y,nose_conf,"),
        (HEADER.replace(",nose_x", ",nose"), "line 1: 'nose' has a column for y and none for x; expected"),
        (HEADER.rsplit(",", 1)[0], "line 1: 'right_ankle' has no column for its conf, other joints have one; give all of them one, or none"),
        ("image_name,age", "line 1: no column is the x of a joint; expected columns such as nose_x,nose_y,nose_conf,left_eye_x,"),
        ("image_name,age", "the columns are image_name, age"),
        ("", "line 2: no column is the x of a joint"),
    ],
)
def test_a_header_without_joints_is_an_error(tmp_path: Path, header: str, message: str) -> None:
    path = write(tmp_path, row(A, 1), header=header)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line ")


def test_a_file_without_a_usable_walk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "poses.csv"
    path.write_text("")
    with pytest.raises(DataError, match=r"poses\.csv is empty"):
        read(path)
    for lines in ([], ["", ""]):
        with pytest.raises(DataError, match=r"poses\.csv has no usable walk: it has no rows"):
            read(write(tmp_path, *lines))
    with pytest.raises(DataError, match=r"poses\.csv, line 2: nose_x is 'abc'"):
        read(write(tmp_path, row(A, 1, first="abc", confidence="x")))
    with pytest.raises(DataError, match=r"poses\.csv, line 2: 53 columns"):
        read(write(tmp_path, row(A, 1) + ",1", row(A, 2) + ",1"))
    with pytest.raises(DataError, match=r"poses\.csv, line 2: image_name is 'one'"):
        read(write(tmp_path, row(A, 1, image_name="one")))


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    read(write(tmp_path, row(A, 1)), progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal
    read(write(tmp_path, row(A, 1)), progress=False)
    assert capfd.readouterr() == ("", "")
    read(write(tmp_path, row(A, 1)), progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "poses.csv" in shown.err


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_any_walks_reads_back(tmp_path: Path, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 2**32 - 1))
    poses = {f"{number:03d}-cl-01-036": walk for number, walk in enumerate(random_walks(lengths, seed))}
    lines = [
        f"a/b/{name}/{frame}.jpg," + ",".join("nan,nan,0" if np.isnan(x) else f"{x:.9g},{y:.9g},0.5" for x, y in joints)
        for name, walk in poses.items()
        for frame, joints in enumerate(walk)
    ]
    walks = read(write(tmp_path, *data.draw(st.permutations(lines))))
    assert sorted(walks.walks) == sorted(poses)
    for name, walk in walks.walks.items():
        np.testing.assert_array_equal(walk.detections.joints, poses[name])
        assert walk.detections.frames.tolist() == list(range(len(poses[name])))


def random_walks(lengths: list[int], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    walks = [rng.normal(0, 100, (length, 17, 2)).astype(np.float32) for length in lengths]
    for walk in walks:
        walk[rng.random(walk.shape[:2]) < 0.2] = np.nan
        walk[:, 0] = 1
    return walks


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the recorded walks in shared/data are not there")
def test_real_walks() -> None:
    walks = read_walks(REAL_FILE, progress=False)
    assert len(walks) == 33
    assert set(walks.subjects) == {"002", "008", "012"}
    assert set(walks.attributes["view"]) == {"000", "054", "090"}
    assert walks.left_out == []
    assert sum(len(pose) for pose in walks.poses) == 2958
    first = walks.poses[walks.names.index("012-nm-01-000")][0, 0]
    np.testing.assert_allclose(first, [160.084, 40.031], rtol=1e-6)


# The seconds are the process's own, beside those in which Python's csv module and `float` read a tenth of the rows: a slow machine slows both.
SCALE = """
import csv, itertools, sys, time
from pathlib import Path

from fastst.cpu.memory import peak_memory
from fastst.data.read import read_recordings

small, large = Path(sys.argv[1]).with_suffix(".small.csv"), Path(sys.argv[1])
with open(large) as file:
    small.write_text("".join(itertools.islice(file, 1000)))
read_recordings(small, progress=False)  # loads what takes 70 MB whatever is read: numba, LLVM and Arrow's pool of threads
before = peak_memory()
start = time.process_time()
walks, _ = read_recordings(large, progress=False)
seconds = time.process_time() - start
memory = peak_memory() - before
with open(large) as file:
    start = time.process_time()
    for row in itertools.islice(csv.reader(file), 1, 130_001):
        list(map(float, row[1:]))
plain_seconds = 10 * (time.process_time() - start)
tables = [walk.detections for walk in walks]
arrays = sum(table.joints.nbytes + table.confidences.nbytes + table.frames.nbytes for table in tables)
print(len(walks), sum(map(len, tables)), len(walks[0].left_out), plain_seconds / seconds, memory / arrays)
"""


@pytest.mark.parametrize("bad", [pytest.param(False, marks=pytest.mark.slow), True])
def test_all_of_casia_b_with_little_time_and_memory(tmp_path: Path, bad: bool) -> None:
    path = tmp_path / "large.csv"
    rng = np.random.default_rng(0)
    frames = "".join(f"casia/WALK/{t:06d}.jpg," + ",".join(f"{x:.3f}" for x in rng.uniform(1, 320, 51)) + "\n" for t in range(100))
    with path.open("w") as file:
        file.write(HEADER + "\n")
        for number in range(13_000):
            file.write(frames.replace("WALK", f"{number // 100:03d}-nm-{number % 100:02d}-090"))
        if bad:
            file.write(row("999-nm-01-090", 1, nose_x="abc") + "\n")
    done = subprocess.run([sys.executable, "-c", SCALE, path], capture_output=True, text=True, check=True)
    path.unlink()  # half a gigabyte that pytest would keep
    walks, rows, left_out, times_faster, memory = map(float, done.stdout.split())
    assert (walks, rows, left_out) == (13_000 + bad, 1_300_000 + bad, int(bad))
    assert times_faster > 1, done.stdout
    assert memory < 1.5, done.stdout
