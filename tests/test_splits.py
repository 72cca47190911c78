import pytest

from fastst.data.splits import balanced_split, class_of_people, folds, split_from_labels
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
