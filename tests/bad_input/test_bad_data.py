"""Data and labels that are bad: a message that says what, where and what to do, a failing exit code, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import (
    HEADER,
    NAMES,
    TINY,
    Command,
    arrays,
    pose_rows,
    read_summary,
    refused,
    write_csv,
    write_labels,
    write_npz,
)
from safetensors.torch import load_file

from fastst import evaluate, train


def test_the_command_ends_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fastst.train", "--data", "missing.npz", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("missing.csv", None, ["missing.csv doesn't exist", "give a file or a folder of walks"]),
        ("poses.txt", "x", ["poses.txt is of no form that can be read", "pose CSV"]),
        ("empty.csv", "", ["empty.csv is empty", "was it written to the end?"]),
        ("empty.npz", "", ["empty.npz is empty", "was it written to the end?"]),
        ("header_only.csv", HEADER + "\n", ["header_only.csv has no usable walk", "no rows below the header"]),
        ("other.csv", HEADER.replace("nose_y", "nose_z") + "\n", ["other.csv, line 1: 'nose' has a column for x and none for y", "nose_x,nose_y"]),
        ("narrow.csv", HEADER.rsplit(",", 1)[0] + "\n", ["narrow.csv, line 1: 'right_ankle' has no column for its conf", "or none"]),
    ],
)
def test_a_data_file_that_cant_be_used(tmp_path: Path, command: Command, name: str, text: str | None, words: list[str]) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    refused(command(train, "--data", tmp_path / name, "--out", tmp_path / "run", *TINY), *words)


def test_a_folder_without_results(tmp_path: Path, command: Command) -> None:
    (tmp_path / "videos").mkdir()
    refused(command(train, "--data", tmp_path / "videos", "--out", tmp_path / "run", *TINY), tmp_path / "videos", "no file of walks", ".json, .jsonl")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([f"casia/007-nm-01-090/{t}.jpg" + 51 * ",wide" for t in range(6)], "line 38: nose_x is 'wide', expected a finite number"),
        ([f"casia/007-nm-01-090/{t}.jpg,1,2" for t in range(6)], "line 38: 3 columns, expected 52"),
        (pose_rows("007-nm-01-090", frames=1), "has 1 frame(s), at least 2 (hops + 1) are needed"),
        ([line.rsplit(",", 1)[0] + ",0" for line in pose_rows("007-nm-01-090")], "never shows right_ankle"),
    ],
)
def test_a_walk_that_cant_be_used_is_listed_and_the_others_train(tmp_path: Path, command: Command, lines: list[str], reason: str) -> None:
    data, run = write_csv(tmp_path / "poses.csv", *lines), tmp_path / "run"
    labels = write_labels(tmp_path / "labels.csv", [name[:3] for name in [*NAMES, "007"]])
    ended = command(train, "--data", data, "--labels", labels, "--out", run, *TINY)
    assert ended.code == 0
    assert "left out: 007-nm-01-090" in ended.err
    assert reason in ended.err
    left_out = json.loads((run / "left_out.json").read_text(encoding="utf-8"))
    assert any(item["name"] == "007-nm-01-090" and reason in item["reason"] for item in left_out)
    assert read_summary(run)["left_out"] == len(left_out)
    assert read_summary(run)["train_people"] == 4


def test_walks_shorter_than_the_hops(tmp_path: Path, command: Command) -> None:
    data = write_npz(tmp_path / "walks.npz")
    ended = command(train, "--data", data, "--out", tmp_path / "run", *TINY, "--hops", "8", "--frames", "9")
    refused(ended, "none of the 12 walks can be used", "p0-01 has 8 frame(s), at least 9 (hops + 1)")


@pytest.mark.parametrize("layout", ["coco19", "missing.json", "broken.json", "coco17"])
def test_a_layout_that_does_not_exist_or_fit(tmp_path: Path, command: Command, layout: str) -> None:
    if layout == "broken.json":
        (tmp_path / layout).write_text('{"joints": 1', encoding="utf-8")
    asked = tmp_path / layout if layout.endswith(".json") else layout
    refused(command(train, "--data", write_npz(tmp_path / "walks.npz"), "--layout", asked, "--out", tmp_path / "run", *TINY), "layout", layout)


def test_one_class_only(tmp_path: Path, command: Command) -> None:
    data = write_npz(tmp_path / "walks.npz", label=np.full(12, "well"))
    refused(command(train, "--data", data, "--out", tmp_path / "run", *TINY), "one class, 'well'", "it takes two", "--target", "--label-map")


def test_a_name_twice_in_an_npz(tmp_path: Path, command: Command) -> None:
    data = write_npz(tmp_path / "walks.npz", name=np.array(["first", "first", *"abcdefghij"]))
    refused(command(train, "--data", data, "--out", tmp_path / "run", *TINY), f"{data}: array 'name' has 'first' more than once", "name of its own")


def test_a_walk_at_one_place_is_left_out(tmp_path: Path, command: Command) -> None:
    poses = arrays()["poses"]
    poses[:8] = 5
    ended = command(train, "--data", write_npz(tmp_path / "walks.npz", poses=poses), "--out", tmp_path / "run", *TINY)
    assert ended.code == 0
    assert "left out: p0-01: has no extent" in ended.err


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_the_size_of_coordinates_does_not_matter(tmp_path: Path, command: Command, factor: float) -> None:
    poses = arrays()["poses"]
    poses[:8] *= factor
    for name, changed in (("usual", arrays()["poses"]), ("extreme", poses)):
        assert command(train, "--data", write_npz(tmp_path / f"{name}.npz", poses=changed), "--out", tmp_path / name, *TINY).code == 0
    usual, extreme = (load_file(tmp_path / name / "model.safetensors")["pose_scale"] for name in ("usual", "extreme"))
    torch.testing.assert_close(extreme, usual, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------------------------------- labels


def test_people_without_labels_and_labels_without_people_are_listed(tmp_path: Path, command: Command) -> None:
    data, run = write_csv(tmp_path / "poses.csv", *pose_rows("007-nm-01-090")), tmp_path / "run"
    labels = write_labels(tmp_path / "labels.csv", [*(name[:3] for name in NAMES), "9"])
    ended = command(train, "--data", data, "--labels", labels, "--out", run, *TINY)
    assert ended.code == 0
    left_out = {item["name"]: item["reason"] for item in json.loads((run / "left_out.json").read_text(encoding="utf-8"))}
    assert left_out == {"007": f"has 1 walk(s) but no label in {labels}", "9": f"has a label in {labels} but no walk in the data"}
    for name, reason in left_out.items():
        assert f"left out: {name}: {reason}" in ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject,label\n1,well\n2,sick\n", ["12 of 12 walks have no line", "'1', '2'", "'p0', 'p1'", "spelled the same"]),
        ("", ["labels.csv is empty", "subject,label"]),
        ("person,label\np0,well\n", ["labels.csv, line 1: no column 'subject'", "person, label"]),
        ("subject,label\np0,well,3\n", ["labels.csv, line 2: 3 fields, expected 2"]),
        ("subject,label\np0,well\np0,sick\n", ["labels.csv, line 3", "'p0'", "in line 2", "one line"]),
        (None, ["labels.csv can't be read", "No such file"]),
    ],
)
def test_a_labels_file_that_cant_be_used(tmp_path: Path, command: Command, text: str | bytes | None, words: list[str]) -> None:
    data, labels = write_npz(tmp_path / "walks.npz"), tmp_path / "labels.csv"
    if text is not None:
        labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(command(train, "--data", data, "--labels", labels, "--out", tmp_path / "run", *TINY), *words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--label-map", "well", ["label map 'well'", "VALUE=CLASS"]),
        ("--label-map", "well=a,well=b", ["'well' twice", "VALUE=CLASS"]),
        ("--label-map", "ill=a,fine=b", ["has no class for any walk", "'sick', 'well'"]),
        ("--target", "age", ["--target age", "the data says label", "--labels"]),
    ],
)
def test_a_label_map_or_target_that_does_not_fit(tmp_path: Path, command: Command, option: str, value: str, words: list[str]) -> None:
    refused(command(train, "--data", write_npz(tmp_path / "walks.npz"), option, value, "--out", tmp_path / "run", *TINY), *words)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ("train train train train train train", ["nobody into the split `test`", "needs people of both"]),
        ("train test train test train test", ["class 'sick' has nobody to train on", "both sides"]),
        ("train test train later train test", ["the split of subject 'p3' is 'later'", "must be train or test"]),
        (None, ["--split labels needs a labels file with a column `split`"]),
    ],
)
def test_a_split_that_cant_be_trained_on(tmp_path: Path, command: Command, splits: str | None, words: list[str]) -> None:
    data = write_npz(tmp_path / "walks.npz")
    labels = write_labels(tmp_path / "labels.csv", [f"p{i}" for i in range(6)], splits.split() if splits else None)
    refused(command(train, "--data", data, "--labels", labels, "--split", "labels", "--out", tmp_path / "run", *TINY), *words)


def test_a_class_with_nobody_to_test_on_is_said_and_the_rest_is_tested(tmp_path: Path, command: Command) -> None:
    data = write_npz(tmp_path / "walks.npz")
    labels = write_labels(tmp_path / "labels.csv", [f"p{i}" for i in range(6)], ["train", "train", "train", "train", "test", "train"])
    ended = command(train, "--data", data, "--labels", labels, "--split", "labels", "--out", tmp_path / "run", *TINY)
    assert ended.code == 0
    assert "nobody of class 'sick' is tested on" in ended.err
    assert read_summary(tmp_path / "run")["people"] == 1


def test_more_folds_than_people(tmp_path: Path, command: Command) -> None:
    ended = command(train, "--data", write_npz(tmp_path / "walks.npz"), "--folds", "4", "--out", tmp_path / "run", *TINY)
    refused(ended, "'sick' has 3 person(s), too few for 4 folds", "at most 3")


def test_a_fold_that_cant_be_trained_is_found_before_any_is(tmp_path: Path, command: Command) -> None:
    label = np.repeat(["well", "sick"], 6).astype("U8")
    label[1] = "worse"  # the second walk of p0, whose class is well nevertheless
    data, run = write_npz(tmp_path / "walks.npz", label=label), tmp_path / "run"
    refused(command(train, "--data", data, "--folds", "3", "--out", run, *TINY), "class 'worse' has nobody to train on")
    assert not list(run.glob("fold-*"))


@pytest.mark.parametrize("value", ["[/odd]", "$x_$", "健康 مريض स्वस्थ 😀"])
def test_any_text_can_be_a_class(tmp_path: Path, command: Command, with_figures: None, value: str) -> None:
    label = np.where(arrays()["label"] == "well", value, "sick")
    data, run = write_npz(tmp_path / "walks.npz", label=label), tmp_path / "run"
    ended = command(train, "--data", data, "--out", run, *TINY)
    assert ended.code == 0
    assert f"{value} (3 people)" in ended.err
    assert value in command(evaluate, "--run", run, "--data", data).out
