"""Labels of people: reading, joining with walks, mapping to classes."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from fastst.data.labels import apply_labels, map_labels, read_labels
from fastst.data.splits import Split, split_from_labels
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.errors import visible
from fastst.layouts import LAYOUTS


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def three_walks() -> WalkSet:
    poses = [np.full((4, 17, 2), i, np.float32) for i in range(3)]
    left_out = [LeftOut("earlier", "why")]
    return WalkSet(LAYOUTS["coco17"], ["a-1", "a-2", "b-1"], ["a", "a", "b"], poses, {"view": ["0", "9", "9"]}, left_out)


def test_reads_attributes_and_splits(tmp_path: Path) -> None:
    text = "\ufeffsubject, label ,split,age\n001, Healthy ,train,30\n\n002,Joint Problem,test,\n001,Healthy,train,30\n"
    labels = read_labels(write(tmp_path, text))
    assert labels.source == str(tmp_path / "labels.csv")
    assert labels.subjects == ("001", "002")
    assert labels.attributes == {"label": {"001": "Healthy", "002": "Joint Problem"}, "age": {"001": "30"}}
    assert labels.splits == {"001": "train", "002": "test"}


def test_splits_are_none_without_the_column(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "subject,label\na,x\n")).splits is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.csv is empty"),
        ("\n \n", r"labels\.csv is empty"),
        ("walk\na\n", r"line 1: no column with labels"),
        ("walk,label\na,x\n,y\n", r"line 3: the walk is empty"),
        ("walk,label\nb/a.json,x\nb\\a,y\n", r"line 3: walk .* has the label 'y', but 'x' in line 2"),
        ("walk,subject,split\na,p,train\nb,p,test\n", r"line 3: subject 'p' has the split 'test', but 'train' in line 2"),
        ("subject,label\n001,x\n1,y\n", r"line 3: subject '1' has the label 'y', but 'x' in line 2"),
        ("subject,label\n", r"labels\.csv has no line below the header"),
        ("person,label\na,x\n", r"line 1: no column 'subject'; its columns are person, label"),
        ("subject,split\na,x\n", r"line 1: no column with labels"),
        ("subject\na\n", r"line 1: no column with labels"),
        ("subject,label,label\na,x,y\n", r"line 1: the column 'label' appears more than once"),
        ("subject,label,split\na,x,train\nb,y,\n", r"line 3: the split of subject 'b' is empty; name one in every line or leave the column out"),
        ("subject,,label\na,x,y\n", r"line 1: column 2 has no name"),
        ("subject,label\na,x\n ,y\n", r"line 3: the subject is empty"),
        ("subject,label\n\na,x,y\n", r"line 3: 3 fields, expected 2 \(subject,label\)"),
        ("subject,label\na\n", r"line 2: 1 fields, expected 2"),
        ("subject,label,split\na,x,\n", r"line 2: the split of subject 'a' is empty"),
        ("subject,label\na,x\nb,x\na,y\n", r"line 4: subject 'a' has the label 'y', but 'x' in line 2"),
        ("subject,label,split\na,x,train\na,x,test\n", r"line 3: subject 'a' has the split 'test', but 'train' in line 2"),
    ],
)
def test_errors_tell_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_labels(write(tmp_path, text))
    assert str(tmp_path / "labels.csv") in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv can't be read: No such file"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "cut.csv").write_bytes("subject,label\na,x\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"cut\.csv is not UTF-8 text: .*; save it as UTF-8"):
        read_labels(tmp_path / "cut.csv")
    with pytest.raises(DataError, match=r"labels\.csv, line 2: field larger"):
        read_labels(write(tmp_path, "subject,label\na," + "x" * 200_000 + "\n"))


def test_apply_adds_columns(tmp_path: Path) -> None:
    walks = three_walks()
    labelled = apply_labels(walks, read_labels(write(tmp_path, "subject,label,age\na,x,\nb,y,7\n")))
    assert labelled.attributes == {"view": ["0", "9", "9"], "label": ["x", "x", "y"], "age": [None, None, "7"]}
    assert labelled.names == walks.names
    assert labelled.poses is walks.poses
    assert labelled.left_out == walks.left_out
    assert set(walks.attributes) == {"view"}


def test_apply_replaces_a_column(tmp_path: Path) -> None:
    assert apply_labels(three_walks(), read_labels(write(tmp_path, "subject,view\na,x\nb,y\n"))).attributes == {"view": ["x", "x", "y"]}


def test_apply_leaves_out_people_without_labels_and_labels_without_walks(tmp_path: Path) -> None:
    path = write(tmp_path, "subject,label\na,y\nc,z\n")
    labelled = apply_labels(three_walks(), read_labels(path))
    assert (labelled.names, labelled.subjects) == (["a-1", "a-2"], ["a", "a"])
    assert labelled.attributes == {"view": ["0", "9"], "label": ["y", "y"]}
    assert [pose[0, 0, 0] for pose in labelled.poses] == [0, 1]
    assert labelled.left_out == [
        LeftOut("earlier", "why"),
        LeftOut("b", f"has 1 walk(s) but no label in {path}"),
        LeftOut("c", f"has a label in {path} but no walk in the data"),
    ]


def test_apply_names_a_walk_whose_line_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its 1 walks are all in the data, and lines are missing for others, such as 'a-2', 'b-1'; add a line"):
        apply_labels(three_walks(), read_labels(write(tmp_path, "walk,label\na-1,x\n")))


@pytest.mark.parametrize("text", ["file,subject,label\na-1,a,x\na-2,a,x\n", "file,label\na-1,x\n"])
def test_a_column_that_names_walks_otherwise(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="call the column 'file' `walk`"):
        read_labels(write(tmp_path, text))


@pytest.mark.parametrize("people", ["".join(f"{i},x\n" for i in range(9)), "b,y\nc,y\n"])
def test_apply_stops_where_most_walks_have_no_line(tmp_path: Path, people: str) -> None:
    with pytest.raises(
        DataError, match=r"of 3 walks have no line in .*labels\.csv: its subjects are .*, those of the data without a line are 'a'.*; they must"
    ):
        apply_labels(three_walks(), read_labels(write(tmp_path, "subject,label\n" + people)))


def test_a_line_without_a_label_is_no_reason_to_stop(tmp_path: Path) -> None:
    labelled = apply_labels(three_walks(), read_labels(write(tmp_path, "subject,label\na,\nb,y\n")))
    assert labelled.attributes["label"] == [None, None, "y"]


def test_001_and_1_are_the_same_person(tmp_path: Path) -> None:
    walks = dataclasses.replace(three_walks(), subjects=["001", "001", "02"])
    labels = read_labels(write(tmp_path, "subject,label,split\n1,x,train\n2,y,test\n"))
    labelled = apply_labels(walks, labels)
    assert labelled.attributes["label"] == ["x", "x", "y"]
    assert labelled.left_out == walks.left_out
    assert split_from_labels({"001": "x", "02": "y"}, labels.splits) == Split(frozenset({"001"}), frozenset({"02"}))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_dialects(tmp_path: Path, separator: str, encoding: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f'subject{separator}label\n"Zoë"{separator}"a{separator}b"\n', encoding=encoding)
    assert read_labels(path).attributes == {"label": {"Zoë": visible(f"a{separator}b")}}


def test_a_table_by_walk(tmp_path: Path) -> None:
    """A walk is found by its name, its file or as many folders as are given."""
    walks = dataclasses.replace(three_walks(), names=["w1", "q/w2", "r/w2"], paths=["p/w1", "q/w2", "r/w2"])
    labels = read_labels(write(tmp_path, "walk,subject,label\nw1.json,ann,x\nq/w2/keypoints.json,ann,y\n.\\r\\w2,bob,\nw9,eve,x\n"))
    assert labels.lines_of([*walks.paths, "z/w3"]) == ["w1", "q/w2", "r/w2", None]
    assert labels.walks == {"w1": "ann", "q/w2": "ann", "r/w2": "bob", "w9": "eve"}
    labelled = apply_labels(walks, labels)
    assert labelled.attributes["label"] == ["x", "y", None]
    assert [left.name for left in labelled.left_out] == ["earlier", "w9"]


def test_a_line_that_fits_several_walks_is_refused(tmp_path: Path) -> None:
    walks = dataclasses.replace(three_walks(), names=["p/w1", "q/w1", "r/w1"], paths=["p/w1", "q/w1", "r/w1"])
    labels = read_labels(write(tmp_path, "walk,subject,label\nw1,ann,x\np/w1,bob,y\n"))
    for use in (lambda: labels.lines_of(walks.paths), lambda: apply_labels(walks, labels)):
        with pytest.raises(DataError, match=r"labels\.csv: the line of the walk 'w1' fits several, such as 'q/w1' and 'r/w1'; name the folders too"):
            use()
    assert labels.lines_of(["p/w1", "q/w1", "q/w1"]) == ["p/w1", "w1", "w1"]  # two tracks of one video


def test_labels_of_many_people_take_linear_time(tmp_path: Path) -> None:
    """10,000 people took 20 s when everybody was compared with everybody."""
    people = [f"p{i}" for i in range(10_000)]
    labels = read_labels(write(tmp_path, "subject,label\n" + "".join(f"{person},x\n" for person in people)))
    pose = np.zeros((1, 17, 2), np.float32)
    walks = WalkSet(LAYOUTS["coco17"], people[1:], people[1:], [pose] * 9_999)
    started = time.process_time()
    assert len(apply_labels(walks, labels)) == 9_999
    assert time.process_time() - started < 2


def test_map_labels() -> None:
    values = ["Healthy", "Joint Problem", None, "Weak"]
    assert map_labels(values, "") == values
    assert map_labels(values, "Healthy=healthy,*=patient") == ["healthy", "patient", None, "patient"]
    assert map_labels(values, " * = patient , Healthy = healthy ") == ["healthy", "patient", None, "patient"]
    assert map_labels(values, "Healthy=1,Joint Problem=2") == ["1", "2", None, None]
    assert map_labels(["*", "a"], "*=rest") == ["rest", "rest"]


@pytest.mark.parametrize("label_map", ["Healthy", "=x", "a=", "a=b,", ",", "a=b=c", "a=1,a=2", "*=x,*=y"])
def test_a_malformed_map_shows_the_expected_form(label_map: str) -> None:
    with pytest.raises(DataError, match=r"'Healthy=healthy,\*=patient'") as caught:
        map_labels(["a"], label_map)
    assert repr(label_map) in str(caught.value)
