import pytest

from fastst.data.splits import balanced_split, class_of_people, deal_anew, folds, set_aside, split_from_labels
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
