"""Whose walk it is, from names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastst.data.identity import check_people, identify
from fastst.data.labels import Labels, read_labels
from fastst.data.options import ReadOptions
from fastst.data.people import one_spelling, walk_path
from fastst.data.tracks import Walk
from fastst.data.walks import DataError, WalkSet
from fastst.layouts import LAYOUTS


def walk(path: str, track: int | None = None, **attributes: str) -> Walk:
    return Walk(f"{path}.json", tuple(path.split("/")), LAYOUTS["coco17"], np.zeros((3, 17, 2), np.float32), None, attributes, track)


def identified(*paths: str, pattern: str = "", labels: Labels | None = None) -> WalkSet:
    return identify([walk(path) for path in paths], ReadOptions(name_pattern=pattern), labels=labels)


def test_casia_b() -> None:
    walks = identified("001-nm-01-090", "data/1_bg_02_054", "002-cl-01-000/alphapose-results", "003-nm-05-018_keypoints")
    assert walks.names == ["001-nm-01-090", "1-bg-02-054", "002-cl-01-000", "003-nm-05-018"]
    assert walks.subjects == ["001", "001", "002", "003"]
    assert walks.attributes == {"condition": ["nm", "bg", "cl", "nm"], "sequence": ["01", "02", "01", "05"], "view": ["090", "054", "000", "018"]}
    assert walks.notes == ["'001' and '1' are the same person"]
    [line] = walks.whose.lines
    assert line.startswith("<subject>-<nm|bg|cl>-<sequence>-<view>, as in CASIA-B: 4 walk(s), such as '001-nm-01-090' is subject 001, condition nm")


def test_the_tree_of_opengait() -> None:
    """The subject is the outermost folder, not the view."""
    walks = identified("001/nm-01/000/alphapose-results", "001/bg-02/000/000", "set/012/cl-01/144")
    assert walks.names == ["001-nm-01-000", "001-bg-02-000", "012-cl-01-144"]
    assert walks.subjects == ["001", "001", "012"]
    assert walks.attributes["view"] == ["000", "000", "144"]


def test_ntu_rgbd() -> None:
    walks = identified("S001C002P003R004A059.skeleton")
    assert walks.subjects == ["003"]
    assert {column: values[0] for column, values in walks.attributes.items()} == {"setup": "001", "view": "002", "sequence": "004", "action": "059"}


@pytest.mark.parametrize(
    ("paths", "subjects"),
    [
        (["P01_1", "P01_2", "P02_1"], ["P01", "P01", "P02"]),
        (["s1-walk-1", "s1-walk-2", "s2-walk-1"], ["s1", "s1", "s2"]),
        (["x/17 (1)", "y/17 (2)", "z/18 (1)"], ["17", "17", "18"]),
        (["P01/left", "P01/right", "P02/left"], ["P01", "P01", "P02"]),
    ],
)
def test_a_persons_and_a_walks_number(paths: list[str], subjects: list[str]) -> None:
    walks = identified(*paths)
    assert walks.subjects == subjects
    check_people(walks)


@pytest.mark.parametrize(
    "paths",
    [
        ["healthy_1", "healthy_2", "patient_1"],  # a class
        ["cam1_001", "cam1_002", "cam2_001"],  # a camera
        ["video1", "video2", "video3"],
        ["video_1", "video_2", "video_3"],
        ["000/a", "000/b", "018/a"],  # views of CASIA-B
        ["nm/a1", "nm/a2", "bg/a1"],
        ["P01_1", "P02_1", "P03_1"],  # every file its own person
        ["P01_1", "P01_2", "else"],
    ],
)
def test_what_nobody_understands_is_not_split_by_person(paths: list[str]) -> None:
    walks = identified(*paths)
    assert walks.subjects == paths
    assert len(walks.whose.not_understood) == len(paths)
    with pytest.raises(DataError, match=r"nothing says who walks in 3 of 3 walks, such as .*--name-pattern"):
        check_people(walks)


def test_a_pattern() -> None:
    walks = identified("ann/slow_1", "ann/fast_1", "bob/slow_1", "readme", pattern=r"^(?P<subject>[a-z]+)/(?P<pace>[a-z]+)_(?P<sequence>\d)")
    assert walks.names == ["ann/slow_1", "fast_1", "bob/slow_1"]
    assert walks.subjects == ["ann", "ann", "bob"]
    assert walks.attributes == {"pace": ["slow", "fast", "slow"], "sequence": ["1", "1", "1"]}
    [left] = walks.left_out
    assert left.name == "readme"
    assert "is not in 'readme'" in left.reason
    check_people(walks)


def test_everybody_is_somebody_else_if_told() -> None:
    walks = identified("video1", "video2", pattern="(?P<subject>.+)")
    assert walks.subjects == ["video1", "video2"]
    check_people(walks)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is no regular expression"), ("(?P<who>.)", "has no group"), ("(?P<subject>q)", r"is in none of the 1 names, such as 'ann_1'")],
)
def test_patterns_that_cannot_be_used(pattern: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        identified("ann_1", pattern=pattern)


def test_what_a_file_says_counts_more_than_its_name() -> None:
    walks = identify([walk("001-nm-01-090", subject="ann", label="ill"), walk("002-nm-01-090")], ReadOptions())
    assert walks.subjects == ["ann", "002"]
    assert walks.attributes["label"] == ["ill", None]


def test_a_table_says_which_part_of_a_name_is_the_person(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\nann,x\nbob,y\n")
    for paths in (["ann_1", "bob_x"], ["ann/1", "bob/2"], ["slow/ann", "fast/bob"]):
        walks = identified(*paths, labels=read_labels(table))
        assert walks.subjects == ["ann", "bob"]
        assert "labels.csv" in walks.whose.lines[0]
    walks = identified("ann_1", "bob_1", "eve_1", labels=read_labels(table))
    assert walks.whose.not_understood == ("eve_1",)


def test_a_table_by_walk(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("walk,subject\n001-nm-01-090,ann\nclip7,bob\n")
    walks = identified("001-nm-01-090", "clip7", "clip8", labels=read_labels(table))
    assert walks.subjects == ["ann", "bob", "clip8"]
    assert walks.attributes["view"] == ["090", None, None]
    assert walks.whose.not_understood == ("clip8",)


def test_names_are_unique() -> None:
    walks = identify([walk("a/w"), walk("b/w"), walk("b/w"), walk("c/v"), walk("c/v", track=2)], ReadOptions())
    assert walks.names == ["a/w", "b/w", "v", "v#2"]
    [left] = walks.left_out
    assert left.reason == "b/w.json: another walk is called 'b/w' too; rename one of them"


def test_one_spelling() -> None:
    assert one_spelling(["1", "001", "001", "a", "x1"]) == (["001", "001", "001", "a", "x1"], [["001", "1"]])
    assert one_spelling([]) == ([], [])


@pytest.mark.parametrize(
    ("places", "path"),
    [
        (("a", "b.json"), "a/b"),
        ((r"C:\data\walks", "001.csv"), "C:/walks/001"),
        (("001", "001", "alphapose-results.json"), "001"),
        (("results",), "results"),
        (("a.b", "c.d"), "a.b/c.d"),
    ],
)
def test_walk_path(places: tuple[str, ...], path: str) -> None:
    assert walk_path(*places) == path
