"""How tables of poses are written: encodings, separators, quotes, decimal commas, titles and comments above the names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from fastst.data.formats.content import encoding_of
from fastst.data.read import read_recordings
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

COCO = LAYOUTS["coco17"].joints


def read(path: Path) -> list[Recording]:
    recordings, left_out = read_recordings(path, progress=False)
    assert left_out == []
    return recordings


def walk(frames: int, joints: int = 17, axes: int = 2, seed: int = 0) -> np.ndarray:
    """Random places.  # [frames, joints, axes] float32"""
    return np.random.default_rng(seed).uniform(1, 300, (frames, joints, axes)).round(3).astype(np.float32)


def names(joints: Iterable[str] = COCO, kinds: str = "xy", style: str = "{joint}_{kind}") -> list[str]:
    return [style.format(joint=joint, kind=kind) for joint in joints for kind in kinds]


def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], separator: str = ",", encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(separator.join(map(str, row)) + "\n" for row in (header, *rows)).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (b"\xef\xbb\xbfa,b", "utf-8-sig"),
        ("a,b".encode("utf-16"), "utf-16"),
        ("a,b".encode("utf-16-le"), "utf-16-le"),
        ("a,b".encode("utf-16-be"), "utf-16-be"),
        ("é".encode(), "utf-8"),
        ("é".encode("latin-1"), "latin-1"),
        (b"a", "utf-8"),
    ],
)
def test_the_encoding_is_found_from_the_content(text: bytes, encoding: str) -> None:
    assert encoding_of(text) == encoding


@pytest.mark.parametrize("rows_before", [0, 3000])  # the first bytes of the longer file say nothing
def test_names_in_latin_1(tmp_path: Path, rows_before: int) -> None:
    joints = walk(rows_before + 2)
    who = ["a"] * rows_before + ["Müller"] * 2
    path = write(
        tmp_path / "f.csv",
        ["image_name", *names()],
        ([f"{w}/{t}.jpg", *f.ravel()] for t, (w, f) in enumerate(zip(who, joints, strict=True))),
        encoding="latin-1",
    )
    last = read(path)[-1]
    assert last.places[-1] == "Müller"
    np.testing.assert_array_equal(last.detections.joints, joints[-2:])


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_utf_16_that_was_cut_off(tmp_path: Path, end: bytes) -> None:
    path = write(tmp_path / "f.csv", ["frame", *names()], ([t, *f.ravel()] for t, f in enumerate(walk(3))), encoding="utf-16")
    path.write_bytes(path.read_bytes()[:-2] + end)
    assert read(path)[0].detections.frames.tolist() == [0, 1, 2]


def test_a_lonely_quote_takes_nothing_with_it(tmp_path: Path) -> None:
    images = ["a/1.jpg", '"b/1.jpg', "a/2.jpg", "c/1.jpg"]
    recordings = read(write(tmp_path / "f.csv", ["image_name", *names()], ([image, *f.ravel()] for image, f in zip(images, walk(4), strict=True))))
    assert {r.places[-1]: len(r.detections) for r in recordings} == {"a": 2, '"b': 1, "c": 1}


def test_excel_says_its_separator_and_ends_lines_with_one(tmp_path: Path) -> None:
    joints = walk(3)
    path = write(tmp_path / "f.csv", ["frame", *names()], ([t, *f.ravel(), ""] for t, f in enumerate(joints)), separator=";")
    path.write_text("sep=;\n" + path.read_text())
    np.testing.assert_array_equal(read(path)[0].detections.joints, joints)


def test_a_running_number_without_a_name(tmp_path: Path) -> None:
    """As R writes it: the header has a column less than the rows. Other cells that are too many are no running number."""
    joints = walk(3)
    [recording] = read(write(tmp_path / "f.csv", ["frame", *names()], ([t + 1, t, *f.ravel()] for t, f in enumerate(joints))))
    np.testing.assert_array_equal(recording.detections.joints, joints)
    with pytest.raises(DataError, match="line 2: 36 columns, expected 35"):
        read(write(tmp_path / "f.csv", ["frame", *names()], ([t + 5, t, *f.ravel()] for t, f in enumerate(joints))))


def test_decimal_commas_that_begin_late(tmp_path: Path) -> None:
    joints = walk(40).round()
    joints[30:] += 0.5
    path = write(
        tmp_path / "f.csv", ["frame", *names()], ([t, *(f"{x:g}".replace(".", ",") for x in f.ravel())] for t, f in enumerate(joints)), separator=";"
    )
    np.testing.assert_array_equal(read(path)[0].detections.joints, joints)


@pytest.mark.parametrize("separator", [",", ";"])
def test_quoted_decimal_commas_and_a_strange_cell(tmp_path: Path, separator: str) -> None:
    joints = walk(5)
    rows = [[t, *(f'"{x:.3f}"'.replace(".", ",") for x in f.ravel())] for t, f in enumerate(joints)]
    rows[1][3], joints[1, 1] = "here", np.nan
    [recording] = read(write(tmp_path / "f.csv", ["frame", *names()], rows, separator))
    np.testing.assert_array_equal(recording.detections.joints, joints)


def test_points_of_thousands_beside_decimal_commas(tmp_path: Path) -> None:
    joints = walk(5) + 900
    cells = [[f"{x:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".") for x in f.ravel()] for f in joints]
    cells[2][:2], joints[2, 0] = ("1.234", "0.5"), (1234, 0.5)
    [recording] = read(write(tmp_path / "f.csv", ["frame", *names()], ([t, *row] for t, row in enumerate(cells)), separator=";"))
    np.testing.assert_allclose(recording.detections.joints, joints, atol=0.006)


def test_points_of_thousands_without_decimals_are_refused(tmp_path: Path) -> None:
    joints = np.tile(np.arange(960, 1040, 3.0)[:, None, None], (1, 17, 2))
    rows = [[t, *(f"{x:,.0f}".replace(",", ".") for x in f.ravel())] for t, f in enumerate(joints)]
    with pytest.raises(DataError, match=r"f\.csv: nose_x jumps between 960 and 1\.002, as if points stood for thousands; write the numbers without"):
        read(write(tmp_path / "f.csv", ["frame", *names()], rows, separator=";"))
    rows = [[t, *(f"{x:g}" for x in f.ravel())] for t, f in enumerate(joints)]
    np.testing.assert_array_equal(read(write(tmp_path / "f.csv", ["frame", *names()], rows, separator=";"))[0].detections.joints, joints)


def test_a_frame_rate_with_a_decimal_comma(tmp_path: Path) -> None:
    [recording] = read(
        write(tmp_path / "f.csv", ["frame", "fps", *names()], ([t, "29,97", *f.ravel()] for t, f in enumerate(walk(3))), separator=";")
    )
    assert recording.fps == 29.97


@pytest.mark.parametrize("above", ["# made by a tool\n", "# a, b\n#\n\n", "Walks of May\n\n", "# one\nWalks of May\nTwo\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_comments_and_titles_above_the_names(tmp_path: Path, above: str, separator: str) -> None:
    joints = walk(3)
    path = write(tmp_path / "f.csv", ["frame", *names()], ([t, *f.ravel()] for t, f in enumerate(joints)), separator)
    path.write_text(above + path.read_text())
    np.testing.assert_array_equal(read(path)[0].detections.joints, joints)


@pytest.mark.parametrize("above", ["", "# of numpy\n", "Walks of May\n"])
def test_names_in_a_comment(tmp_path: Path, above: str) -> None:
    joints = walk(3)
    path = write(tmp_path / "f.csv", ["# frame", *names()], ([t, *f.ravel()] for t, f in enumerate(joints)))
    path.write_text(above + path.read_text())
    [recording] = read(path)
    assert recording.detections.frames.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(recording.detections.joints, joints)


@pytest.mark.parametrize("numbered", [False, True])
def test_a_table_with_blanks_between(tmp_path: Path, numbered: bool) -> None:
    joints = walk(3)
    header = [f'"{name}"' for name in ["frame", *names()]]
    rows = ([*([f'"{t + 1}"'] if numbered else []), 2 * t, *f.ravel()] for t, f in enumerate(joints))
    [recording] = read(write(tmp_path / "f.txt", header, rows, separator=" "))
    assert recording.detections.frames.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(recording.detections.joints, joints)
