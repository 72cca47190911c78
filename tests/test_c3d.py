"""C3D marker files: names, units, what was not found, and bones between markers."""

from __future__ import annotations

import json
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastst.data.formats.c3d import FORM
from fastst.data.markers import plug_in_gait
from fastst.data.options import ReadOptions
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError

LEGS = ["LASI", "RASI", "LPSI", "RPSI", "LTHI", "RTHI", "LKNE", "RKNE", "LANK", "RANK", "LHEE", "RHEE", "LTOE", "RTOE"]


@pytest.fixture
def c3d() -> Any:
    return pytest.importorskip("c3d", reason="the package c3d is not installed: pip install -c constraints.txt -e '.[c3d]'")


def positions(labels: list[str], frames: int = 6) -> np.ndarray:
    """x, y, z in millimetres, residual and cameras.  # [T, n, 5]"""
    points = np.zeros((frames, len(labels), 5), np.float32)
    points[..., :3] = np.random.default_rng(0).normal(size=(frames, len(labels), 3)) * 1000
    return points


def save(c3d: Any, path: Path, labels: list[str], points: np.ndarray, unit: str = "mm", rate: float = 100.0, angles: tuple[str, ...] = ()) -> Path:
    writer = c3d.Writer(point_rate=rate, point_units="    ")
    writer.set_point_labels(labels)
    if unit:
        writer.point_group.set_str("UNITS", "Units.", unit, len(unit))
    if angles:
        width = max(map(len, angles))
        writer.point_group.add_str("ANGLES", "Angles.", "".join(name.ljust(width) for name in angles), width, len(angles))
    writer.add_frames([(frame, np.zeros((0, 0))) for frame in points])
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.write(file)
    return path


def read(path: Path) -> list[Recording]:
    return read_recordings(path, progress=False)[0]


@pytest.mark.parametrize(("unit", "metres"), [("mm", 1e-3), ("cm", 1e-2), ("m", 1), ("", 1e-3)])
def test_markers_units_and_rate(c3d: Any, tmp_path: Path, unit: str, metres: float) -> None:
    points = positions(LEGS)
    points[2, 3, 3] = -1
    points[4, 5, :3] = 0
    [recording] = read(save(c3d, tmp_path / "trial.c3d", LEGS, points, unit))
    assert (recording.layout.joints, recording.fps, recording.places) == (tuple(LEGS), 100.0, (tmp_path.name, "trial"))
    expected = points[..., :3] * metres
    expected[2, 3] = expected[4, 5] = np.nan
    np.testing.assert_allclose(recording.detections.joints, expected, rtol=1e-6)
    assert recording.detections.frames.tolist() == list(range(6))


def test_plug_in_gait(c3d: Any, tmp_path: Path) -> None:
    points = positions(["extra", *LEGS, "*12"])
    walks = read_walks(save(c3d, tmp_path / "trial.c3d", ["extra", *LEGS, "*12"], points), progress=False)
    assert walks.layout.name == "plug_in_gait"
    assert set(walks.layout.joints) == set(LEGS)
    for marker in LEGS:
        joint = walks.layout.index(marker)
        np.testing.assert_allclose(walks.poses[0][:, joint], points[:, 1 + LEGS.index(marker), :3] / 1000, rtol=1e-6)


def test_bones_pass_over_markers_that_are_missing() -> None:
    whole, less = plug_in_gait(LEGS), plug_in_gait([marker for marker in LEGS if marker not in ("LTHI", "RHEE", "LPSI", "RPSI")])
    assert whole is not None
    assert less is not None

    def bones(layout: Any) -> set[frozenset[str]]:
        return {frozenset((layout.joints[a], layout.joints[b])) for a, b in layout.bones}

    def named(text: str) -> set[frozenset[str]]:
        return {frozenset(bone.split("-")) for bone in text.split()}

    sides = " ".join(f"{s}ASI-{s}THI {s}THI-{s}KNE {s}KNE-{s}ANK {s}ANK-{s}HEE {s}HEE-{s}TOE {s}TOE-{s}ANK" for s in "LR")
    assert bones(whole) == named(f"LASI-RASI RASI-RPSI RPSI-LPSI LPSI-LASI {sides}")
    assert bones(less) == named("LASI-RASI LASI-LKNE LKNE-LANK LANK-LHEE LHEE-LTOE LTOE-LANK RASI-RTHI RTHI-RKNE RKNE-RANK RANK-RTOE")
    assert {whole.joints[joint] for joint in whole.root} == {"LASI", "RASI", "LPSI", "RPSI"}
    assert {tuple(sorted((whole.joints[a], whole.joints[b]))) for a, b in whole.mirrored} == {("L" + m[1:], "R" + m[1:]) for m in LEGS}
    assert plug_in_gait(["LASI", "RASI"]) is None


def test_full_body_is_one_piece() -> None:
    """Every marker is joined to every other by some way."""
    trunk = [
        "C7",
        "T10",
        "CLAV",
        "STRN",
        "RBAK",
        *(s + m for s in "LR" for m in ("FHD", "BHD", "SHO", "UPA", "ELB", "FRM", "WRA", "WRB", "FIN", "TIB")),
    ]
    for markers in ([*LEGS, *trunk], [m for m in [*LEGS, *trunk, "SACR"] if m not in ("LPSI", "RPSI")]):
        layout = plug_in_gait(markers)
        assert layout is not None
        assert set(layout.joints) == set(markers)
        assert layout.joint_distance().max() < len(markers)


def test_other_markers_need_bones(c3d: Any, tmp_path: Path) -> None:
    labels = ["hip", "knee", "foot", "lamp"]
    points = positions(labels)
    path = save(c3d, tmp_path / "trial.c3d", labels, points)
    with pytest.raises(DataError, match=r"trial\.c3d has the markers hip, knee, foot, lamp, and doesn't say which bones join them; give --joints"):
        read_walks(path, progress=False)
    layout = tmp_path / "mine.json"
    layout.write_text(json.dumps({"joints": ["foot", "knee", "hip"], "bones": [["foot", "knee"], ["knee", "hip"]]}))
    walks = read_walks(path, ReadOptions(joints=str(layout)), progress=False)
    assert walks.layout.joints == ("foot", "knee", "hip")
    np.testing.assert_allclose(walks.poses[0], points[:, [2, 1, 0], :3] / 1000, rtol=1e-6)
    layout.write_text(json.dumps({"joints": ["foot", "toe"], "bones": [["foot", "toe"]]}))
    with pytest.raises(DataError, match=r"--joints .*mine\.json has 2 joints, the data 4"):
        read_walks(path, ReadOptions(joints=str(layout)), progress=False)


def test_people_before_the_colon_and_what_models_compute(c3d: Any, tmp_path: Path) -> None:
    labels = ["ann:LASI", "bob:LASI", "ann:RASI", "ann:angle", ""]
    [ann, bob] = read(save(c3d, tmp_path / "trial.c3d", labels, positions(labels), angles=("ann:angle",)))
    assert (ann.places[-1], ann.layout.joints) == ("ann", ("LASI", "RASI"))
    assert (bob.places[-1], bob.layout.joints) == ("bob", ("LASI",))
    with pytest.raises(DataError, match="has no marker with a name among its 2 points"):
        read(save(c3d, tmp_path / "trial.c3d", ["*1", "*2"], positions(["*1", "*2"])))
    with pytest.raises(DataError, match="its positions are in 'feet', expected mm, cm or m"):
        read(save(c3d, tmp_path / "trial.c3d", LEGS, positions(LEGS), "feet"))


def test_files_cut_off(c3d: Any, tmp_path: Path) -> None:
    path = save(c3d, tmp_path / "trial.c3d", LEGS, positions(LEGS, 40))
    whole = path.read_bytes()
    save(c3d, tmp_path / "whole.c3d", LEGS, positions(LEGS, 40))
    for end in (2, 300, 600, 1500, len(whole) - 2000):
        path.write_bytes(whole[:end])
        walks = read_walks(tmp_path, progress=False)
        assert walks.names == ["whole"]
        [left] = walks.left_out
        assert left.name == "trial"
    assert "ends after frame" in left.reason


def test_damaged_files(c3d: Any, tmp_path: Path) -> None:
    """Whatever is changed of a file, it is read or refused."""
    path = save(c3d, tmp_path / "trial.c3d", LEGS, positions(LEGS))
    whole, refused = path.read_bytes(), 0
    for seed in range(150):
        chance, content = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice([1, 3, 10])):
            content[chance.randrange(2, 1500)] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        path.write_bytes(content)
        try:
            read(path)
        except DataError:
            refused += 1
    assert 10 < refused < 150


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c3d", None)
    path = tmp_path / "trial.c3d"
    path.write_bytes(b"\2\x50" + bytes(513) + b"\x54" + bytes(600))
    with pytest.raises(DataError, match=r"trial\.c3d is a C3D file, .* not installed: pip install -c constraints\.txt -e '\.\[c3d\]'"):
        read_walks(path, progress=False)


def test_other_files_are_not_taken_for_it() -> None:
    assert not FORM.recognises(b"aP" + b"x" * 60_000)
    for head in (b"", b"P", b"PK\3\4", b"\0P", b"LPSI,RPSI\n" * 500, b"\x02P" + bytes(2000)):
        assert not FORM.recognises(head)
