"""From values to classes: what is no class, and who counts how often."""

from pathlib import Path

import numpy as np
import pytest

from fastst.config import TrainConfig
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks
from fastst.data.walks import DataError, WalkSet
from fastst.layouts import LAYOUTS
from fastst.runs.load import load_task


def walks_file(path: Path, **columns: list[str]) -> str:
    """Two walks of every person of the columns."""
    rng = np.random.default_rng(0)
    count = len(next(iter(columns.values())))
    subjects = [f"p{i // 2}" for i in range(2 * count)]
    poses = [rng.normal(size=(4, 17, 2)).astype(np.float32) for _ in subjects]
    attributes: dict[str, list[str | None]] = {name: [values[i // 2] for i in range(2 * count)] for name, values in columns.items()}
    attributes["side"] = ["left", "right"] * count
    write_walks_npz(path, WalkSet(LAYOUTS["coco17"], [f"w{i}" for i in range(2 * count)], subjects, poses, attributes))
    return str(path)


def options(path: Path, **columns: list[str]) -> dict:
    return {"data": walks_file(path / "walks.npz", **columns), "target": next(iter(columns))}


@pytest.mark.parametrize(
    ("ages", "different"),
    [
        ([str(23 + i) for i in range(6)], 6),
        ([f"{20 + i % 8}.5" for i in range(12)], 8),
        ([str(20 + i % 10) for i in range(40)], 10),
    ],
)
def test_a_measure_of_people_is_no_class(ages: list[str], different: int, tmp_path: Path):
    low, high = min(ages, key=float), max(ages, key=float)
    said = f"--target age: its values are numbers, {different} different ones from {low} to {high} for {len(ages)} people, and each would be a class"
    with pytest.raises(DataError) as caught:
        load_task(TrainConfig(**options(tmp_path, age=ages)), progress=False)
    assert said in str(caught.value)
    assert f"such as '{low}=low,*=high'" in str(caught.value)
    task = load_task(TrainConfig(**options(tmp_path, age=ages), label_map=f"{low}=low,*=high"), progress=False)
    assert task.class_names == ["high", "low"]


@pytest.mark.parametrize(
    "values",
    [
        [str(i % 5) for i in range(10)],  # grades
        [str(i % 2) for i in range(4)],
        [f"A{i:03d}" for i in range(12)],  # no numbers
        [str(i % 10) for i in range(100)],
    ],
)
def test_classes_that_are_called_by_numbers_or_are_few(values: list[str], tmp_path: Path):
    assert load_task(TrainConfig(**options(tmp_path, grade=values)), progress=False).class_names == sorted(set(values))


def test_a_model_is_tested_on_few_people_of_numbered_classes(tmp_path: Path):
    grades = [str(i) for i in range(6)]
    assert len(load_task(TrainConfig(**options(tmp_path, grade=grades)), progress=False, min_classes=1).class_names) == 6


def test_it_is_said_who_walks_in_several_classes(tmp_path: Path):
    data = walks_file(tmp_path / "walks.npz", grade=["a", "b", "b"])
    several = load_task(TrainConfig(data=data, target="side"), progress=False).description()
    assert "classes: left (3 people), right (3 people); 3 of the people walk in several classes, and count once in each;" in several
    assert "classes: a (1 people), b (2 people); 0.0%" in load_task(TrainConfig(data=data, target="grade"), progress=False).description()


@pytest.mark.parametrize("label_map", ["Helthy=healthy,*=patient", "Healthy=healthy,Join=patient,*=other"])
def test_a_misspelled_value_in_the_label_map_is_named(label_map: str, tmp_path: Path):
    """`*` would take its walks, and nobody would notice."""
    walks = synthetic_walks(8, 1, seed=1, frames=10)
    walks.attributes["label"] = ["Healthy", "Weak"] * 4
    write_walks_npz(tmp_path / "walks.npz", walks)
    with pytest.raises(DataError, match=r"no walk has the label 'Helthy|no walk has the label 'Join'; there are \['Healthy', 'Weak'\]"):
        load_task(TrainConfig(data=str(tmp_path / "walks.npz"), label_map=label_map), progress=False)
