"""Labels of people: reading, joining with walks, mapping to classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastst.data.labels import apply_labels, map_labels, read_labels
from fastst.data.walks import DataError, LeftOut, WalkSet
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
        ("subject,label\n", r"labels\.csv has no line below the header"),
        ("person,label\na,x\n", r"line 1: no column 'subject'; its columns are person, label"),
        ("subject,split\na,x\n", r"line 1: no column with labels"),
        ("subject\na\n", r"line 1: no column with labels"),
        ("subject,label,label\na,x,y\n", r"line 1: the column 'label' appears more than once"),
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
    (tmp_path / "labels.csv").write_bytes(b"subject,label\n\xff\xff,x\n")
    with pytest.raises(DataError, match=r"labels\.csv is not UTF-8 text"):
        read_labels(tmp_path / "labels.csv")
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
    path = write(tmp_path, "subject,label\nb,y\nc,z\n")
    labelled = apply_labels(three_walks(), read_labels(path))
    assert (labelled.names, labelled.subjects) == (["b-1"], ["b"])
    assert labelled.attributes == {"view": ["9"], "label": ["y"]}
    assert [pose[0, 0, 0] for pose in labelled.poses] == [2]
    assert labelled.left_out == [
        LeftOut("earlier", "why"),
        LeftOut("a", f"has 2 walk(s) but no label in {path}"),
        LeftOut("c", f"has a label in {path} but no walk in the data"),
    ]


def test_apply_with_nobody_in_common_is_an_error(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "subject,label\n" + "".join(f"{i},x\n" for i in range(9))))
    with pytest.raises(DataError, match=r"labels\.csv has no subject of the data.*'4', \.\.\., those of the data are 'a', 'b'; they must"):
        apply_labels(three_walks(), labels)


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
