"""Files of a folder: which are looked at, and walks of nearly the same joints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_c3d import LEGS, positions
from test_c3d import save as save_c3d

from fastst.data.read import read_walks
from fastst.data.walks import DataError
from fastst.explanation.preview import picture
from fastst.layouts import LAYOUTS

COCO = LAYOUTS["coco17"].joints

JOINTS = list(LAYOUTS["coco17"].joints)


def save(path: Path, frames: int = 30) -> Path:
    poses = np.random.default_rng(0).uniform(100, 500, (frames, 17, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [{"image_id": f"{t}.jpg", "category_id": 1, "keypoints": np.c_[pose, np.ones(17)].ravel().tolist()} for t, pose in enumerate(poses)]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("files", "counted", "not_counted"), [(1, "P1.json", "walks"), (2, "walks", "P1.json")])
def test_a_bar_for_the_files_or_for_the_bytes_of_a_single_one(
    files: int, counted: str, not_counted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for number in range(files):
        save(tmp_path / "walks" / f"P{number + 1}.json")
    read_walks(tmp_path / "walks", progress=False)  # numba, which is imported then, would keep the stdout that a bar puts in the place of this one
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # to rich a terminal
    read_walks(tmp_path / "walks")
    said = capsys.readouterr().err
    assert counted in said
    assert not_counted not in said


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "data" / "P01" / "P01_1.json")
    save(tmp_path / "elsewhere" / "P02_1.json")
    (tmp_path / "data" / "P02").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "P01" / "loop").symlink_to(tmp_path / "data")
    assert read_walks(tmp_path / "data", progress=False).names == ["P01_1", "P02_1"]


def test_files_of_other_endings_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "P01_1.json")
    for name in ("a.xml", "b.xml", "c.json.gz"):
        (tmp_path / name).write_text("x")
    [left] = read_walks(tmp_path, progress=False).left_out
    assert left.name.startswith("3 file(s)")
    assert ".xml (2), .gz (1)" in left.reason


def test_a_folder_of_which_no_file_can_be_read(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("[")
    with pytest.raises(DataError, match=r"has no usable walk in 2 file\(s\): .*a\.json, line 1: the file is cut off"):
        read_walks(tmp_path, progress=False)


def test_joints_that_are_only_numbered_may_be_of_several_skeletons(tmp_path: Path) -> None:
    for count, said in ((17, r"doesn't name its 17 joints\. .*--joints coco17 .*--joints h36m17"), (16, "no skeleton of 16 joints is known")):
        rows = [["frame", *(f"{axis}{j}" for j in range(count) for axis in "xy")], *([t, *range(100, 100 + 2 * count)] for t in range(9))]
        (tmp_path / "P1.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
        with pytest.raises(DataError, match=said):
            read_walks(tmp_path / "P1.csv", progress=False)


@pytest.mark.parametrize(("nobody", "said"), [(range(60, 100), "60 to 99"), (range(40), "0 to 39")])
def test_nobody_is_seen_for_long_at_an_end(tmp_path: Path, nobody: range, said: str) -> None:
    rows = [["frame", *(f"{joint}_{axis}" for joint in COCO for axis in "xy")]]
    rows += [[t, *("" if t in nobody else 100 + 3 * k + t for k in range(34))] for t in range(100)]
    (tmp_path / "P1.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    walks = read_walks(tmp_path / "P1.csv", progress=False)
    assert f"nobody is seen in frames {said}: a gap of more than" in " ".join(left.reason for left in walks.left_out)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, since whoever runs the tests may be allowed to read everything."""
    save(tmp_path / "P01_1.json")
    save(tmp_path / "locked" / "P02_1.json")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    [left] = read_walks(tmp_path, progress=False).left_out
    assert (left.name, left.reason) == (
        "locked",
        f"{tmp_path / 'locked'} can't be read: Permission denied; get the right to read it (chmod u+rX), or let its owner do this",
    )
    with pytest.raises(DataError, match="locked can't be read: Permission denied"):
        read_walks(tmp_path / "locked", progress=False)


def test_a_walk_without_a_joint_of_the_others(tmp_path: Path) -> None:
    c3d = pytest.importorskip("c3d", reason="the package c3d is not installed: pip install -c constraints.txt -e '.[c3d]'")
    for name, markers in (("P01_1", LEGS), ("P01_2", LEGS), ("P02_1", LEGS[:-1])):
        save_c3d(c3d, tmp_path / f"{name}.c3d", markers, positions(markers))
    walks = read_walks(tmp_path, progress=False)
    assert walks.names == ["P01_1", "P01_2", "P02_1"]
    unseen = np.isnan(walks.poses[2]).all((0, 2))
    assert [walks.layout.joints[j] for j in np.flatnonzero(unseen)] == ["RTOE"]
    [left] = walks.left_out
    assert "it has no RTOE, taken as never seen" in left.reason
    save_c3d(c3d, tmp_path / "P02_2.c3d", LEGS[:-4], positions(LEGS[:-4]))
    [left] = [left for left in read_walks(tmp_path, progress=False).left_out if "P02_2" in left.name]
    assert "LHEE, LTOE, RHEE, RTOE are in one of them only: --drop-joints" in left.reason.replace("LHEE, RHEE, LTOE", "LHEE, LTOE, RHEE")


@pytest.mark.parametrize("kind", ["named list", "named mapping", "id", "id beside text"])
def test_landmarks_of_mediapipe_in_another_order(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    poses, order = rng.uniform(100, 500, (20, 33, 2)), rng.permutation(33)
    names = [name.upper() for name in LAYOUTS["mediapipe33"].joints]

    def frame(pose: np.ndarray) -> object:
        points = [{"x": pose[j, 0], "y": pose[j, 1]} for j in order]
        if kind == "named mapping":
            return {names[j]: point for j, point in zip(order, points, strict=True)}
        more = {"named list": lambda j: {"name": names[j]}, "id": lambda j: {"id": int(j)}, "id beside text": lambda j: {"id": int(j), "a": "b"}}[
            kind
        ]
        return [point | more(j) for j, point in zip(order, points, strict=True)]

    (tmp_path / "a.json").write_text(json.dumps([frame(pose) for pose in poses]))
    np.testing.assert_allclose(read_walks(tmp_path, progress=False).poses[0], poses, rtol=1e-6)


def test_a_picture_of_walks_whose_names_are_no_letters(tmp_path: Path) -> None:
    data = tmp_path / "data"
    save(data / os.fsdecode(b"J\xf6rg_1.json"))
    picture(read_walks(data, progress=False), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size


def test_where_no_compiled_code_can_be_kept(tmp_path: Path) -> None:
    """numba looks for a folder beside the source and for one of the user; both are taken away."""
    path = save(tmp_path / "P01_1.json")
    code = (
        "from numba.core.caching import CacheImpl\nCacheImpl._locator_classes = []\n"
        f"from fastst.data.read import read_walks\nprint(len(read_walks({str(path)!r}, progress=False)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
