"""The same walk under several names."""

from pathlib import Path

import numpy as np
import pytest

from fastst.config import TrainConfig
from fastst.data import copies as module
from fastst.data.copies import copies
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.walks import DataError, WalkSet
from fastst.explanation.preview import description
from fastst.layouts import LAYOUTS
from fastst.runs.load import Task, load_task


def walks(same: dict[int, int], subjects: list[str], labels: list[str]) -> WalkSet:
    """`same`: the number of a walk -> that of which it is a copy."""
    rng = np.random.default_rng(0)
    poses = [rng.normal(size=(6, 17, 2)).astype(np.float32) for _ in subjects]
    poses[0][2, 3] = np.nan
    poses = [poses[same.get(i, i)].copy() for i in range(len(poses))]
    return WalkSet(LAYOUTS["coco17"], [f"w{i}" for i in range(len(poses))], subjects, poses, {"label": [*labels]})


def task(found: WalkSet, path: Path) -> Task:
    write_walks_npz(path / "walks.npz", found)
    return load_task(TrainConfig(data=str(path / "walks.npz")), progress=False)


def test_of_copies_of_one_person_the_first_stays(tmp_path: Path) -> None:
    loaded = task(walks({2: 0, 3: 0}, ["a", "b", "a", "a"], ["x", "y", "x", "x"]), tmp_path)
    assert loaded.walks.names == ["w0", "w1"]
    assert [(left.name, left.reason) for left in loaded.walks.left_out] == [
        (name, "has the same poses as w0, which is used") for name in ("w2", "w3")
    ]
    assert loaded.classes.tolist() == [0, 1]


@pytest.mark.parametrize(("subject", "label"), [("c", "y"), ("c", "x"), ("a", "y")])
def test_of_copies_of_several_persons_or_classes_none_stays(subject: str, label: str, tmp_path: Path) -> None:
    loaded = task(walks({3: 0}, ["a", "b", "d", subject], ["x", "y", "x", label]), tmp_path)
    assert loaded.walks.names == ["w1", "w2"]
    first, second = loaded.walks.left_out
    assert (first.name, second.name) == ("w0", "w3")
    assert f"has the same poses as w3 (subject {subject}, class {label}; here subject a, class x)" in first.reason
    assert "remove the wrong file, or mend the labels" in second.reason


def test_nothing_but_copies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every walk is there more than once; the first: w0 has the same poses as w1"):
        task(walks({1: 0}, ["a", "b"], ["x", "y"]), tmp_path)


def test_other_walks_with_the_same_mark_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mark", lambda poses: 0)
    assert copies(walks({2: 0, 4: 1}, ["a"] * 5, ["x"] * 5).poses) == [[0, 2], [1, 4]]


def test_the_preview_says_so() -> None:
    [line] = [line for line in description(walks({2: 0}, ["a", "b", "c"], ["x", "y", "x"])) if "several names" in line]
    assert "1 of them, such as w0, w2" in line
