"""Walks as arrays: what comes back, and that nothing which doesn't fit gets through."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.formats import walks_npz
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.options import ReadOptions
from fastst.data.read import read_recordings, read_walks
from fastst.data.walks import DataError, WalkSet
from fastst.files import WriteError
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


def known(walks: WalkSet) -> dict[str, list[str | None]]:
    """The attributes that some walk has."""
    return {column: values for column, values in walks.attributes.items() if any(values)}


def save(folder: Path, **changes: Any) -> Path:
    path = folder / "walks.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_reads_poses_names_and_layout(tmp_path: Path) -> None:
    walks = read_walks(save(tmp_path))
    assert (walks.names, walks.subjects) == (["ann-01", "bob-01"], ["ann", "bob"])
    np.testing.assert_array_equal(np.concatenate(list(walks.poses)), arrays()["poses"])
    assert [pose.shape for pose in walks.poses] == [(3, 4, 3), (2, 4, 3)]
    assert walks.poses[0].dtype == np.float32
    assert {column for column, values in walks.attributes.items() if any(values)} == set()
    assert walks.fps == [None, None]
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
        "fps": np.array([60.0, np.nan]),
    }
    walks = read_walks(save(tmp_path, **more))
    assert walks.names == ["first", "second"]
    assert known(walks) == {"label": ["ill", None], "age": ["40", "50"]}
    assert walks.fps == [60.0, None]
    assert (walks.layout.mirrored, walks.layout.root) == ((), (1, 2))
    assert walks.left_out == []


def test_walks_are_numbered_by_subject(tmp_path: Path) -> None:
    walks = read_walks(save(tmp_path, lengths=np.array([2, 1, 2]), subject=np.array([7, 12, 7])))
    assert walks.names == ["7-01", "12-01", "7-02"]


def test_arrays_that_are_not_used_are_reported(tmp_path: Path) -> None:
    path = save(tmp_path, speed=np.array([1.0, 2.0]))
    [left] = read_walks(path).left_out
    assert left.name == "array speed"
    assert left.reason == f"{path}: it is float64 [2], not one string for each of the 2 walks"


def test_positions_are_handed_over_as_they_are(tmp_path: Path) -> None:
    """What a number means is decided elsewhere, also what one beyond float32 does."""
    poses = arrays()["poses"].astype(np.float64)
    poses[1, 2, 0], poses[2, 0] = 1e300, np.nan
    recordings, _ = read_recordings(save(tmp_path, poses=poses, image_size=np.array([[320, 240], [0, 0]]), fps=25))
    assert [recording.image_size for recording in recordings] == [(320, 240), None]
    assert [recording.fps for recording in recordings] == [25.0, 25.0]
    np.testing.assert_array_equal(np.isinf(recordings[0].detections.joints), poses[:3] == 1e300)
    np.testing.assert_array_equal(np.isnan(recordings[0].detections.joints), np.isnan(poses[:3]))


def test_a_walk_without_any_position_is_left_out(tmp_path: Path) -> None:
    poses = arrays()["poses"].astype(np.float64)
    poses[:3] = np.nan
    walks = read_walks(save(tmp_path, poses=poses, label=np.array(["ill", "well"]), speed=np.zeros(2)))
    assert (walks.names, walks.subjects, known(walks)) == (["bob-01"], ["bob"], {"label": ["well"]})
    np.testing.assert_array_equal(walks.poses[0], arrays()["poses"][3:])
    assert ["speed" in left.name or "ann-01" in left.name for left in walks.left_out] == [True, True]
    poses[3:] = np.nan
    with pytest.raises(DataError, match=r"walks\.npz has no usable walk: .*no joint"):
        read_walks(save(tmp_path, poses=poses))


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
        ({"lengths": np.array([2**63 - 1, 2**63 - 1, 7])}, "array 'lengths' adds up to 18446744073709551621 frames"),
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
        ({"fps": np.array("25")}, "array 'fps' is <U2"),
        ({"fps": np.array([25.0, 0])}, "expected frames a second: one number above 0, or one for each of the 2 walks"),
        ({"fps": np.array([25.0, np.inf])}, "array 'fps' is float64"),
        ({"fps": np.ones(3)}, r"array 'fps' is float64 \[3\]"),
        ({"image_size": np.array([320, -240])}, r"array 'image_size' is int64 \[2\], expected width and height in pixels"),
        ({"image_size": np.array([320.0, 240])}, "array 'image_size' is float64"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_walks(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = save(tmp_path)
    whole = path.read_bytes()
    for content in (whole[:200], whole[: len(whole) - 30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"walks\.npz is not a complete \.npz file"):
            read_walks(path)
    changed = bytearray(whole)
    changed[250] ^= 255
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"walks\.npz: array 'poses' can't be read: Bad CRC"):
        read_walks(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6), is_compressed=st.booleans())
def test_damaged_files(tmp_path: Path, at: list[tuple[int, int]], is_compressed: bool) -> None:
    """Whatever is changed of a file but its first letters, it is read or refused."""
    path = tmp_path / "walks.npz"
    (np.savez_compressed if is_compressed else np.savez)(path, **arrays())
    content = bytearray(path.read_bytes())
    for place, byte in at:
        content[2 + place % (len(content) - 2)] = byte
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        read_walks(path)


def zipped(path: Path, members: dict[str, bytes], **kind: Any) -> Path:
    with zipfile.ZipFile(path, "w", **kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_what_lies_beside_the_arrays_in_the_archive(tmp_path: Path) -> None:
    path = save(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/._poses.npy", "._label.npy", "folder/", "notes.txt"):
            archive.writestr(name, b"\0\5\x16\7")
    walks = read_walks(path)
    assert walks.names == ["ann-01", "bob-01"]
    assert [left.name for left in walks.left_out] == ["notes.txt"]
    zipped(path, {"a.xml": b"<a/>"})
    with pytest.raises(DataError, match=r"has no array 'poses'; it has none and needs poses"):
        read_walks(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(save(tmp_path), "a") as archive:
        archive.writestr("poses.npy", b"")
    with pytest.raises(DataError, match="has two arrays 'poses'"):
        read_walks(path)


def npy_bytes(header: str) -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 17, 2)}", "says that it is float32 .* 136000000000 bytes, but has 16"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 17, 2)}", "says that it is float32"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "Object arrays cannot be loaded"),
        ("(" * 110, "can't be read"),
        ("{'descr': '<f4'}", "can't be read"),
    ],
)
def test_arrays_that_lie(tmp_path: Path, header: str, message: str) -> None:
    path = zipped(tmp_path / "walks.npz", {"poses.npy": npy_bytes(header) + bytes(16)})
    with pytest.raises(DataError, match=message) as caught:
        read_walks(path)
    assert "array 'poses'" in str(caught.value)


def test_an_archive_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks_npz, "_MAX_UNPACKED_BYTES", 1 << 20)
    path = zipped(tmp_path / "walks.npz", {"poses.npy": bytes(1 << 21)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"walks\.npz says that it unpacks to 0\.00195 GiB, too much for its size"):
        read_walks(path)


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = save(tmp_path)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"array 'poses' can't be read: .*encrypted"):
        read_walks(path)


@pytest.mark.parametrize("shape", [(4, 60, 17, 2), (60, 17, 2)])
@pytest.mark.parametrize("save_as", [np.save, np.savez])
def test_one_array_alone_is_refused_with_the_way_out(tmp_path: Path, shape: tuple[int, ...], save_as: Any) -> None:
    path = tmp_path / ("poses.npy" if save_as is np.save else "poses.npz")
    save_as(path, np.zeros(shape))
    with pytest.raises(DataError, match=re.escape(f"{path} holds one array {list(shape)}") + r".*numpy\.savez\(\"walks\.npz\", poses=array\.reshape"):
        read_walks(path)


def test_files_of_one_skeleton_are_read_together(tmp_path: Path) -> None:
    """Their layouts are called by the files, and are the same all the same."""
    for name in ("first", "second"):
        save(tmp_path, subject=np.array([name, "bob"]), name=np.array([name, f"{name} of bob"])).rename(tmp_path / f"{name}.npz")
    walks = read_walks(tmp_path, progress=False)
    assert walks.names == ["first", "first of bob", "second", "second of bob"]
    assert walks.left_out == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=st.sampled_from([*LAYOUTS.values(), Layout.custom(["a", "b"], [], "walks"), Layout("walks", ("x", "y"), ((1, 0),), (), (1,))]),
    dimensions=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_reads_back(tmp_path: Path, lengths: list[int], layout: Layout, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = [rng.uniform(-300, 300, (length, layout.num_joints, dimensions)).astype(np.float32) for length in lengths]
    for pose in poses:
        pose[rng.random(pose.shape[:2]) < 0.3] = np.nan
        pose[0, 0] = 150
    number = [str(i) for i in range(len(lengths))]
    written = WalkSet(
        layout, [f"walk/{i % 2}/{i} 健康" for i in range(len(number))], number, poses, {"label": ["ä", *[None] * (len(lengths) - 1)], "view": number}
    )
    written.fps = [None if i % 2 else 12.5 + i for i in range(len(lengths))]
    write_walks_npz(tmp_path / "walks.npz", written)
    read = read_walks(tmp_path / "walks.npz", ReadOptions(up="y") if dimensions == 3 else None)
    assert read.layout == layout
    assert (read.names, read.subjects, known(read), read.left_out) == (written.names, written.subjects, written.attributes, [])
    assert read.fps == written.fps
    for after, before in zip(read.poses, poses, strict=True):
        np.testing.assert_array_equal(after, before)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path)
    before = path.read_bytes()
    walks = read_walks(path)

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WriteError, match=r"walks\.npz can't be written: No space left"):
        write_walks_npz(path, walks)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    walks = read_walks(save(tmp_path))
    with pytest.raises(DataError, match=r"copy\.csv must end in \.npz"):
        write_walks_npz(tmp_path / "copy.csv", walks)
    with pytest.raises(WriteError, match=r"copy\.npz can't be written: No such file or directory"):
        write_walks_npz(tmp_path / "nowhere" / "copy.npz", walks)
    with pytest.raises(DataError, match="there are no walks"):
        write_walks_npz(tmp_path / "copy.npz", WalkSet(walks.layout, [], [], []))
    for column in ("subject", "file", "fps"):
        with pytest.raises(DataError, match=f"an attribute can't be called '{column}'"):
            write_walks_npz(tmp_path / "copy.npz", WalkSet(walks.layout, walks.names, walks.subjects, walks.poses, {column: ["a", "b"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["walks.npz"]


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
