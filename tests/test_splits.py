from pathlib import Path

import pytest

from fastst.data.splits import (
    Split,
    balanced_split,
    casia_b_split,
    class_of_people,
    deal_anew,
    folds,
    person,
    read_split,
    set_aside,
    split_from_labels,
)
from fastst.data.walks import DataError

CASIA = {f"{i:03d}": "female" if i < 32 else "male" for i in range(124)}


def test_the_papers_split():
    split = balanced_split(CASIA, seed=0)
    assert (len(split.train), len(split.test)) == (92, 32)
    assert sum(CASIA[person] == "male" for person in split.test) == 16
    assert not split.train & split.test
    assert balanced_split(CASIA, seed=1).test != split.test
    assert balanced_split(CASIA, seed=0) == split


def test_few_people():
    split = balanced_split({"a": "x", "b": "x", "c": "y", "d": "y"}, seed=0)
    assert len(split.test) == 2
    lonely = balanced_split({"a": "x", "b": "x", "c": "y"}, seed=0)
    assert "c" in lonely.train
    assert len(lonely.test) == 1
    with pytest.raises(DataError, match=r"every class has a single person \(2 people\)"):
        balanced_split({"a": "x", "b": "y"}, seed=0)


def test_folds_test_everybody_once_and_spread_every_class():
    splits = folds(CASIA, 5, seed=3)
    assert sorted(person for split in splits for person in split.test) == sorted(CASIA)
    for split in splits:
        assert split.train == set(CASIA) - split.test
        assert sum(CASIA[person] == "female" for person in split.test) in (6, 7)
    with pytest.raises(DataError, match=r"class 'female' has 32 person\(s\), too few for 33 folds; use at most 32"):
        folds(CASIA, 33, seed=0)


def test_class_of_people_is_the_most_frequent():
    assert class_of_people(["a", "a", "a", "b", "b"], ["y", "x", "x", "y", "x"]) == {"a": "x", "b": "x"}


def test_split_column():
    people = {"a": "x", "b": "y"}
    assert split_from_labels(people, {"a": "train", "b": "test", "c": "train"}).test == {"b"}
    for splits, message in (
        (None, "needs a labels file with a column `split`"),
        ({"a": "train", "b": "validation"}, "the split of subject 'b' is 'validation'; it must be train or test"),
        ({"a": "train", "b": "train"}, "puts nobody into the split `test`"),
    ):
        with pytest.raises(DataError, match=message):
            split_from_labels(people, splits)


def test_validation_people_are_neither_trained_nor_tested_on():
    split = set_aside(balanced_split(CASIA, seed=0), CASIA, 0.2, seed=0)
    sides = (split.train, split.validation, split.test)
    assert sum(map(len, sides)) == len(frozenset().union(*sides)) == 124
    assert split.test == balanced_split(CASIA, seed=0).test
    aside = [CASIA[person] for person in split.validation]
    assert (aside.count("female"), aside.count("male")) == (3, 15)  # a fifth of 16 and of 76
    small = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "x", "f": "y"}
    tiny = set_aside(balanced_split(small, seed=0), small, 0.01, seed=0)
    assert {small[person] for person in tiny.validation} == {"x", "y"}
    lonely = {"a": "x", "b": "x", "c": "y"}
    with pytest.raises(DataError, match="class 'x' has a single person to train on, which leaves nobody for --validation"):
        set_aside(balanced_split(lonely, seed=0), lonely, 0.2, seed=0)


def test_classes_dealt_anew_are_as_many_and_others():
    dealt = deal_anew(CASIA, seed=0)
    assert sorted(dealt.values()) == sorted(CASIA.values())
    assert dealt.keys() == CASIA.keys()
    same = sum(dealt[person] == CASIA[person] for person in CASIA)
    assert same < 95  # 79 of 124 by chance
    assert deal_anew(CASIA, seed=1) != dealt


def test_casia_bs_usual_protocol():
    split = casia_b_split({f"{i:03d}": "x" for i in range(1, 125)})
    assert (min(split.train), max(split.train), len(split.train)) == ("001", "074", 74)
    assert (min(split.test), max(split.test), len(split.test)) == ("075", "124", 50)
    assert casia_b_split({"1": "x", "0074": "y", "75": "x"}) == Split(frozenset({"1", "0074"}), frozenset({"75"}))


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (["001", "075", "A11"], r"1 of the 3 people are called otherwise, such as 'A11'; leave --split out"),
        (["001", "125"], "called otherwise, such as '125'"),
        (["000", "080"], "such as '000'"),
        (["1", "9" * 5000], "needs people who are called 1 to 124"),
        (["001", "074"], "has nobody to test on: none of the 2 people has a number from 75 to 124"),
        (["090"], "has nobody to train on: none of the 1 people has a number from 1 to 74"),
    ],
)
def test_people_who_are_not_of_casia_b(people: list[str], message: str):
    with pytest.raises(DataError, match=message):
        casia_b_split(dict.fromkeys(people, "x"))


def test_a_split_from_a_file(tmp_path: Path):
    (tmp_path / "split.json").write_text('{"train": ["001", "c"], "validation": ["b"], "test": ["7"], "initial": ["x"]}')
    (tmp_path / "split.csv").write_text("subject,split,note\n1,train,\nc,train,\n\nb, validation ,\n007,test,\nnobody,test,\n")
    expected = Split(frozenset({"1", "c"}), frozenset({"07"}), frozenset({"b"}))
    for name in ("split.json", "split.csv"):
        assert read_split(tmp_path / name, ["1", "b", "c", "07", "on no side"]) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("split.json", "[1]", "has no lists of people; expected the split.json of a run, or a CSV file with the columns subject,split"),
        ("split.json", '{"train": "a"}', "has no lists of people"),
        ("split.json", "{", "is not JSON"),
        ("split.json", '{"train": ["a"], "test": ["a"]}', "puts subject 'a' on two sides, train and test"),
        (
            "split.json",
            '{"train": ["a"], "test": ["z"]}',
            "has nobody to test on who is in the data: it names 'z'; they must be called as in the data",
        ),
        ("split.csv", "", "is empty; expected the split.json"),
        ("split.csv", "subject,label\na,x\n", "line 1: its columns are subject, label; expected"),
        ("split.csv", "subject,split\na,later\n", "line 2: the split of subject 'a' is 'later'; it must be train, validation, test"),
        ("split.csv", "subject,split\na,train\n,test\n", "line 3: the subject is empty"),
        ("split.csv", "subject,split\na,train,x\n", r"line 2: 3 fields, expected 2 \(subject,split\)"),
        ("split.csv", "subject,split\n01,train\n1,test\n", "puts subject '1' on two sides, train and test"),
        ("none.csv", None, "can't be read: No such file or directory; check the name"),
        ("none.json", None, "can't be read: No such file or directory; check the name"),
    ],
)
def test_a_file_that_is_no_split(name: str, text: str | None, message: str, tmp_path: Path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / name, ["a", "b", "1"])


def test_a_person_has_one_name_whatever_zeros_stand_before_it():
    assert [person(name) for name in ("001", "1", "0", "00", "a01", "", "9" * 5000)] == ["1", "1", "0", "0", "a01", "", "9" * 5000]
