"""Whose walk it is, from names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastst.data.identity import check_people, identify
from fastst.data.labels import Labels, apply_labels, read_labels
from fastst.data.options import ReadOptions
from fastst.data.people import near_spellings, one_spelling, walk_path
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


def test_examples_are_few_and_a_name_is_no_attribute() -> None:
    walks = identify([walk(f"{person}-nm-01-090", name=f"walk {person}", pace="slow") for person in ("001", "002", "003")], ReadOptions())
    assert (walks.names, sorted(walks.attributes)) == (["walk 001", "walk 002", "walk 003"], ["condition", "pace", "sequence", "view"])
    [line] = walks.whose.lines
    assert "3 walk(s), such as '001-nm-01-090' is subject 001" in line
    assert "'002-nm-01-090'" in line
    assert "'003-nm-01-090'" not in line


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
        (["x/17 (1)", "x/17 (2)", "z/18 (1)"], ["17", "17", "18"]),
        (["P01/left", "P01/right", "P02/left"], ["P01", "P01", "P02"]),
        (["patients/P01/1", "patients/P01/2", "controls/C01/1", "controls/C01/2"], ["P01", "P01", "C01", "C01"]),
        (["P01_T1_C1", "P01_T1_C2", "P02_T1_C1"], ["P01", "P01", "P02"]),
        (["P01_trial1_cam1", "P01_trial2_cam1", "P02_trial1_cam1"], ["P01", "P01", "P02"]),
        (["cam1_P01_1", "cam2_P01_1", "cam1_P02_1"], ["P01", "P01", "P02"]),
        (["P01/T1_1", "P01/T2_1", "P02/T1_1"], ["P01", "P01", "P02"]),
        (["P01/20230105_111233", "P01/20230106_111233", "P02/20230105_121233"], ["P01", "P01", "P02"]),
        (["20230105_P01", "20230106_P01", "20230105_P02"], ["P01", "P01", "P02"]),
        (["VID_2023-01-05_111233_P01", "VID_2023-01-06_111234_P01", "VID_2023-01-06_111235_P02"], ["P01", "P01", "P02"]),
        (["P01/walk1/1", "P01/walk2/1", "P02/walk1/1"], ["P01", "P01", "P02"]),
        (["subject_01_walk_2", "subject_01_walk_3", "subject_02_walk_2"], ["subject_01", "subject_01", "subject_02"]),
        (["P01/a", "P01/b", "P02"], ["P01", "P01", "P02"]),
        (["01/01", "01/02", "01/3", "02/01"], ["01", "01", "01", "02"]),
        (["01_L_1", "01_R_1", "02_L_1"], ["01", "01", "02"]),
        (["00001/00/000", "00001/00/015", "00002/00/000"], ["00001", "00001", "00002"]),
        (["P01/fast-1/090", "P01/fast-1/018", "P02/fast-1/090"], ["P01", "P01", "P02"]),
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
        ["001_01_1", "001_01_2", "002_02_1"],  # two numbers that may be a person's
        ["G01_S01", "G01_S02", "G02_S03"],  # a group of people
        ["VID_20230105_111233", "VID_20230105_111234", "VID_20230106_111233"],  # days
        ["2024-01-15_1", "2024-01-15_2", "2024-01-16_1"],
        ["15.01.2024_1", "15.01.2024_2", "16.01.2024_1"],
        ["2023/a", "2023/b", "2024/a"],
        ["1_P01", "2_P01", "1_P02"],  # perhaps the first one of two places
        ["group1/P01/1", "group2/P01/1", "group2/P02/1"],
        ["cam_01_a", "cam_01_b", "cam_02_a"],
        ["test/01_1", "train/01_1", "train/02_1"],
        ["H1_P03", "H2_P03", "H1_P04"],
        ["PD_01_1", "HC_01_1", "HC_02_1"],
        ["siteA/subj1/1", "siteB/subj1/1", "siteB/subj2/1"],
        ["0/IMG_0001", "0/IMG_0002", "1/IMG_0003"],  # classes
        ["0/001", "1/001", "1/002"],
        ["00/IMG_0001", "00/IMG_0002", "01/IMG_0003"],
        ["a/00/x", "a/00/y", "a/01/z"],
        ["KL0/IMG_0001", "KL0/IMG_0002", "KL1/IMG_0003"],
        ["stage1/a", "stage1/b", "stage2/a"],
        ["a/P01/fast-1/090", "a/P01/fast-1/018", "b/P01/fast-1/090"],
        ["PD/fast1/01", "PD/fast1/02", "HC/fast1/01"],
    ],
)
def test_what_nobody_understands_is_not_split_by_person(paths: list[str]) -> None:
    walks = identified(*paths)
    assert walks.subjects == paths
    assert len(walks.whose.not_understood) == len(paths)
    with pytest.raises(DataError, match=r"nothing says who walks in 3 of 3 walks, such as .*--name-pattern"):
        check_people(walks)


def test_few_numbered_folders_with_many_walks_each_may_be_classes() -> None:
    paths = [f"{folder:02}/IMG_{folder}{i:03}" for folder in (1, 2, 3) for i in range(20)]
    assert len(identified(*paths).whose.not_understood) == 60
    people = [f"{folder:02}/{i}" for folder in range(1, 9) for i in range(20)]
    assert identified(*people).subjects == [f"{folder:02}" for folder in range(1, 9) for _ in range(20)]


def test_the_last_number_of_a_name_is_the_sequence() -> None:
    assert identified("P07_2", "P07_walk_3", "P08_1").attributes == {}
    assert identified("P07_2", "P07_3", "P08_1").attributes == {"sequence": ["2", "3", "1"]}
    assert identified("P07/fast_02", "P07/fast_03", "P08/slow_02").attributes == {"sequence": ["02", "03", "02"]}
    assert identified("P07_018", "P07_036", "P08_018").attributes == {}  # CASIA-B's views


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
    assert walks.subjects == ["ann", "bob", "eve"]
    assert walks.whose.lines[1].startswith(f"the name before the last _, - or space, which is a subject of {table} in the other names: 1 walk(s)")
    walks = identified("ann_1", "bob_1", "eve", labels=read_labels(table))
    assert walks.whose.not_understood == ()


def test_the_people_of_a_table_count_more_than_a_tree(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\nnm1,x\nnm2,y\n")
    walks = identified("ill/nm1/01", "ill/nm1/02", "well/nm2/01", labels=read_labels(table))
    assert walks.subjects == ["nm1", "nm1", "nm2"]
    table.write_text("subject,label\n1,x\n90,y\n")
    walks = identified("001-nm-01-090", "001-nm-02-090", "007-nm-01-090", labels=read_labels(table))
    assert walks.subjects == ["001", "001", "007"]  # not 090, a view


def test_the_sequence_is_known_beside_a_table(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\nann,x\nbob,y\n")
    assert identified("ann_1", "ann_2", "bob_1", labels=read_labels(table)).attributes == {"sequence": ["1", "2", "1"]}
    assert identified("1/ann", "2/ann", "1/bob", labels=read_labels(table)).attributes == {}


def test_a_number_of_a_trial_is_no_person(tmp_path: Path) -> None:
    """Every trial's number is a subject of the table, but not every person has a line."""
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\n" + "".join(f"{i},x\n" for i in range(1, 5)))
    for form in ("{0}/{1}", "{1}_{0:02d}", "day{1}/{0}_{1}"):
        walks = identified(*(form.format(person, trial) for person in (1, 2, 3, 4, 11) for trial in (1, 2)), labels=read_labels(table))
        assert [int(subject) for subject in walks.subjects] == [1, 1, 2, 2, 3, 3, 4, 4, 11, 11]


def test_who_is_not_in_a_table_is_left_out_by_name(tmp_path: Path) -> None:
    """And not taken for somebody of the table, or for a person that the other parts of the names tell."""
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\nann,x\nbob,y\n")
    walks = identified("ann/P01_1", "ann/P02_1", "bob/P01_1", "bob/P02_2", "eve/P03_1", "eve/P03_2", labels=read_labels(table))
    labelled = apply_labels(walks, read_labels(table))
    assert labelled.subjects == ["ann", "ann", "bob", "bob"]
    assert [(left.name, left.reason) for left in labelled.left_out] == [("eve", f"has 2 walk(s) but no label in {table}")]
    table.write_text("walk,subject,label\nclip_1,ann,x\nclip_2,bob,y\nclip_3,bob,y\n")
    walks = identified("clip_1", "clip_2", "clip_3", "P07_1", "P07_2", labels=read_labels(table))
    assert walks.whose.not_understood == ("P07_1", "P07_2")
    labelled = apply_labels(walks, read_labels(table))
    assert labelled.subjects == ["ann", "bob", "bob"]
    assert [left.name for left in labelled.left_out] == ["P07_1", "P07_2"]


def test_two_parts_of_a_name_that_are_people_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("subject,label\n1,x\n2,y\n")
    message = r"in '1/2' folder 1 \('1'\) and the name \('2'\) are subjects of .*labels\.csv; say whose walks they are with --name-pattern"
    with pytest.raises(DataError, match=message):
        identified("1/1", "1/2", "1/3", "2/1", "2/2", "2/3", labels=read_labels(table))


def test_a_line_of_a_table_that_fits_several_walks(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("walk,subject\nwalk1,ann\n")
    with pytest.raises(DataError, match="the line of the walk 'walk1' fits several, such as 'P01/walk1' and 'P02/walk1'"):
        identified("P01/walk1", "P02/walk1", labels=read_labels(table))


def test_names_that_may_be_one_persons() -> None:
    walks = identified("P1_1", "p1_2", "P01_3", "P2_1", "P2_2", "P10_1")
    assert walks.notes == ["'P01' and 'P1' and 'p1' may be the same person; if so, spell them alike"]
    assert near_spellings(["1", "1.0", "10", "a", "b", "100.00", "100"]) == [["1", "1.0"], ["100", "100.00"]]


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
    assert any("'v#2', are of people in one video" in note and "walk,subject,label" in note for note in walks.notes)
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
