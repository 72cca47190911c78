"""Walks as arrays: what comes back, and that nothing which doesn't fit gets through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.formats.walks_npz import read_walks_npz, write_walks_npz
from fastst.data.read import read_walks
from fastst.data.walks import DataError, WalkSet
from fastst.layouts import LAYOUTS, Layout

REAL_FILE = Path(__file__).parents[2] / "shared" / "data" / "clinical_walks.npz"


def arrays(**changes: Any) -> dict[str, Any]:
    """Two walks of 3 and 2 frames with 4 joints; `changes` replace arrays, None removes one."""
    poses = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    fields = {
        "poses": poses,
        "lengths": np.array([3, 2]),
        "subject": np.array(["ann", "bob"]),
        "joints": np.array(["hips", "left_knee", "right_knee", "head"]),
        "bones": np.array([[0, 1], [0, 2], [0, 3]]),
        **changes,
    }
    return {name: array for name, array in fields.items() if array is not None}


def save(folder: Path, **changes: Any) -> Path:
    path = folder / "walks.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_reads_poses_names_and_layout(tmp_path: Path) -> None:
    walks = read_walks_npz(save(tmp_path))
    assert (walks.names, walks.subjects) == (["ann-01", "bob-01"], ["ann", "bob"])
    np.testing.assert_array_equal(np.concatenate(list(walks.poses)), arrays()["poses"])
    assert [pose.shape for pose in walks.poses] == [(3, 4, 3), (2, 4, 3)]
    assert walks.poses[0].dtype == np.float32
    assert walks.attributes == {}
    assert walks.left_out == []
    joints = arrays()["joints"].tolist()
    assert walks.layout == Layout("walks", tuple(joints), ((0, 1), (0, 2), (0, 3)), ((1, 2),), (0,))


def test_optional_arrays(tmp_path: Path) -> None:
    more = {
        "label": np.array(["ill", ""]),
        "age": np.array([b"40", b"50"]),
        "name": np.array(["first", "second"]),
        "mirrored": np.zeros((0, 2), int),
        "root": np.array([1, 2]),
        "fps": np.array(60.0),
    }
    walks = read_walks_npz(save(tmp_path, **more))
    assert walks.names == ["first", "second"]
    assert walks.attributes == {"label": ["ill", None], "age": ["40", "50"]}
    assert (walks.layout.mirrored, walks.layout.root) == ((), (1, 2))
    assert walks.left_out == []


def test_walks_are_numbered_by_subject(tmp_path: Path) -> None:
    walks = read_walks_npz(save(tmp_path, lengths=np.array([2, 1, 2]), subject=np.array([7, 12, 7])))
    assert walks.names == ["7-01", "12-01", "7-02"]


def test_arrays_that_are_not_used_are_reported(tmp_path: Path) -> None:
    path = save(tmp_path, speed=np.array([1.0, 2.0]))
    [left] = read_walks_npz(path).left_out
    assert left.name == "array speed"
    assert left.reason == f"{path}: it is float64 [2], not one string for each of the 2 walks"


def test_infinite_and_empty_walks_are_left_out(tmp_path: Path) -> None:
    poses = arrays()["poses"].astype(np.float64)
    poses[1, 2, 0] = 1e300  # not infinite until it becomes float32
    walks = read_walks_npz(save(tmp_path, poses=poses, label=np.array(["ill", "well"])))
    assert (walks.names, walks.subjects, walks.attributes) == (["bob-01"], ["bob"], {"label": ["well"]})
    np.testing.assert_array_equal(walks.poses[0], arrays()["poses"][3:])
    [left] = walks.left_out
    assert left.name == "ann-01"
    assert "walks.npz: array 'poses' has an infinite position in frame 1" in left.reason
    poses[3:] = np.nan
    with pytest.raises(DataError, match=r"walks\.npz has no usable walk: .*no joint is seen"):
        read_walks_npz(save(tmp_path, poses=poses))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "no array 'poses'; it has lengths, subject, joints, bones and needs poses"),
        ({"bones": None}, "no array 'bones'"),
        ({"poses": np.zeros((5, 12))}, r"array 'poses' is float64 \[5, 12\], expected numbers \[sum of lengths, joints, 2 or 3\]"),
        ({"poses": np.zeros((5, 4, 4))}, r"array 'poses' is float64 \[5, 4, 4\]"),
        ({"poses": np.zeros((5, 4, 3), complex)}, r"array 'poses' is complex128"),
        ({"poses": np.zeros((5, 3, 3))}, r"array 'poses' is float64 \[5, 3, 3\], expected .* because 'joints' has 4 names"),
        ({"poses": np.array([[[{}]]])}, "array 'poses' can't be read: Object arrays cannot be loaded"),
        ({"joints": np.array(["a", "b", "c", None])}, "array 'joints' can't be read: Object arrays"),
        ({"lengths": np.array([3, 3])}, "array 'lengths' adds up to 6 frames, but 'poses' has 5"),
        ({"lengths": np.array([5, 0])}, "array 'lengths' is int64"),
        ({"lengths": np.array([6, -1])}, "expected one whole number of frames, 1 or more"),
        ({"lengths": np.array([3.0, 2.0])}, "array 'lengths' is float64"),
        ({"lengths": np.zeros(0, int)}, "array 'lengths' is int64"),
        ({"subject": np.array(["ann"])}, r"array 'subject' is <U3 \[1\], expected a list of strings, one for each of the 2 walks"),
        ({"subject": np.array([1.5, 2.5])}, "array 'subject' is float64"),
        ({"subject": np.array(["ann", ""])}, "array 'subject' is empty for walk 1"),
        ({"name": np.array(["", "x"])}, "array 'name' is empty for walk 0"),
        ({"name": np.array(["x", "x"])}, "array 'name' has 'x' more than once"),
        ({"joints": np.array("hips")}, "array 'joints' is <U4"),
        ({"joints": np.array(["a", "a", "b", "c"])}, r"make no skeleton: .*\['a'\] appear more than once"),
        ({"joints": np.zeros(0, "U1")}, "has no joints"),
        ({"bones": np.array([[0, 4]])}, "make no skeleton: .*names joint 4"),
        ({"bones": np.array([[0, -1]])}, "make no skeleton: .*names joint -1"),
        ({"bones": np.array([0, 1])}, r"array 'bones' is int64 \[2\], expected pairs of joint numbers"),
        ({"bones": np.array([[0.0, 1.0]])}, "array 'bones' is float64"),
        ({"mirrored": np.array([[1, 1]])}, "mirrored pair"),
        ({"root": np.array(["hips"])}, "array 'root' is <U4"),
        ({"root": np.array([9])}, "root"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_walks_npz(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz is not a file"):
        read_walks_npz(tmp_path / "none.npz")
    path = save(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:200], whole[: len(whole) - 30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"walks\.npz is not a complete \.npz file"):
            read_walks_npz(path)
    changed = bytearray(whole)
    changed[250] ^= 255
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"walks\.npz: array 'poses' can't be read: Bad CRC"):
        read_walks_npz(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=st.sampled_from([*LAYOUTS.values(), Layout.custom(["a", "b"], [], "walks"), Layout("walks", ("x", "y"), ((1, 0),), (), (1,))]),
    dimensions=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_reads_back(tmp_path: Path, lengths: list[int], layout: Layout, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = [rng.normal(size=(length, layout.num_joints, dimensions)).astype(np.float32) for length in lengths]
    for pose in poses:
        pose[rng.random(pose.shape[:2]) < 0.3] = np.nan
        pose[0, 0] = 0
    number = [str(i) for i in range(len(lengths))]
    written = WalkSet(layout, [f"walk {i}" for i in number], number, poses, {"label": ["ä", *[None] * (len(lengths) - 1)], "view": number})
    write_walks_npz(tmp_path / "walks.npz", written)
    read = read_walks_npz(tmp_path / "walks.npz")
    assert read.layout == layout
    assert (read.names, read.subjects, read.attributes, read.left_out) == (written.names, written.subjects, written.attributes, [])
    for after, before in zip(read.poses, poses, strict=True):
        np.testing.assert_array_equal(after, before)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path)
    before = path.read_bytes()
    walks = read_walks_npz(path)

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match=r"walks\.npz can't be written: No space left"):
        write_walks_npz(path, walks)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    walks = read_walks_npz(save(tmp_path))
    with pytest.raises(DataError, match=r"copy\.csv must end in \.npz"):
        write_walks_npz(tmp_path / "copy.csv", walks)
    with pytest.raises(DataError, match=r"copy\.npz can't be written: No such file or directory"):
        write_walks_npz(tmp_path / "nowhere" / "copy.npz", walks)
    with pytest.raises(DataError, match="there are no walks"):
        write_walks_npz(tmp_path / "copy.npz", WalkSet(walks.layout, [], [], []))
    for column in ("subject", "file"):
        with pytest.raises(DataError, match=f"an attribute can't be called '{column}'"):
            write_walks_npz(tmp_path / "copy.npz", WalkSet(walks.layout, walks.names, walks.subjects, walks.poses, {column: ["a", "b"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["walks.npz"]


def test_read_walks_says_what_it_accepts(tmp_path: Path) -> None:
    assert read_walks(save(tmp_path)).names == ["ann-01", "bob-01"]
    with pytest.raises(DataError, match=r"none\.csv doesn't exist; give a pose CSV \(\.csv\)"):
        read_walks(tmp_path / "none.csv")
    (tmp_path / "walks.txt").write_text("")
    with pytest.raises(DataError, match=r"walks\.txt is of no kind that can be read; give a pose CSV"):
        read_walks(str(tmp_path / "walks.txt"))


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the recorded walks in shared/data are not there")
def test_real_walks(tmp_path: Path) -> None:
    walks = read_walks(REAL_FILE)
    assert len(walks) == 80
    assert len(set(walks.subjects)) == 45
    assert walks.names[:3] == ["A11-01", "A11-02", "A13-01"]
    assert walks.layout.name == "clinical_walks"
    assert walks.left_out == []
    labels = walks.attributes["label"]
    assert [labels.count(label) for label in ("Healthy", "Joint Problem", "Muscle Weakness", "Neurological Defect")] == [10, 8, 36, 26]
    assert {len(pose) for pose in walks.poses} <= set(range(181, 382))
    write_walks_npz(tmp_path / "clinical_walks.npz", walks)
    again = read_walks(tmp_path / "clinical_walks.npz")
    assert (again.layout, again.names, again.attributes) == (walks.layout, walks.names, walks.attributes)
