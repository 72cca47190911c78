"""Bad input: a message that says what, where and what to do, a failing exit code, no traceback, and nothing that was there is lost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastst import evaluate, predict, train
from fastst.errors import run_command
from fastst.explanation import report
from fastst.layouts import LAYOUTS
from fastst.ops import backends
from fastst.runs import folder as run_folder
from fastst.runs.lock import LOCK
from fastst.runs.trainer import Trainer

TINY = ["--epochs", "1", "--frames", "4", "--hidden", "4", "--heads", "2", "--layers", "1", "--encoder-layers", "0", "--device", "cpu"]
JOINTS = ["hips", "left_knee", "right_knee", "head"]


@dataclass(frozen=True)
class Ended:
    """How a command ended; line breaks, frames and runs of spaces in `err` are single spaces."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m fastst.train` and the like in this process; whatever would print a traceback is raised."""

    def run(module: ModuleType, *arguments: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            run_command(module.main)
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        return Ended(code, captured.out, re.sub(r"[\s│|]+", " ", captured.err))

    return run


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "with_figures" not in request.fixturenames:
        monkeypatch.setattr(report, "draw", lambda finished, found: None)


@pytest.fixture
def with_figures() -> None:
    """Asked for by tests in which the figures are drawn."""


def refused(ended: Ended, *words: object) -> None:
    """The command ended with an error on stderr that has all of these words."""
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    for word in words:
        assert str(word) in ended.err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arrays(people: int = 6, walks: int = 2, frames: int = 8, dimensions: int = 2, seed: int = 0) -> dict[str, Any]:
    """Random walks of four joints; people p0, p2, ... are well, the others sick."""
    who = np.repeat(np.arange(people), walks)
    return {
        "poses": np.random.default_rng(seed).normal(size=(len(who) * frames, 4, dimensions)).astype(np.float32),
        "lengths": np.full(len(who), frames),
        "subject": np.array([f"p{person}" for person in who]),
        "label": np.where(who % 2, "sick", "well"),
        "joints": np.array(JOINTS),
        "bones": np.array([[0, 1], [0, 2], [0, 3]]),
    }


def write_npz(path: Path, made: dict[str, Any] | None = None, **changes: Any) -> Path:
    np.savez(path, **{**(arrays() if made is None else made), **changes})
    return path


def pose_rows(walk: str, frames: int = 6, **cells: str) -> list[str]:
    """Lines of a pose CSV; `cells` replace columns of the walk's second frame."""
    lines = []
    for frame in range(frames):
        x, y = np.random.default_rng([int(walk[:3]), frame]).normal(100, 20, (2, 17)).round(2)
        fields = {"image_name": f"casia/{walk}/{frame:06d}.jpg"}
        for j, joint in enumerate(LAYOUTS["coco17"].joints):
            fields |= {f"{joint}_x": str(x[j]), f"{joint}_y": str(y[j]), f"{joint}_conf": "0.9"}
        lines.append(",".join(({**fields, **cells} if frame == 1 else fields).values()))
    return lines


HEADER = ",".join(["image_name", *(f"{joint}_{what}" for joint in LAYOUTS["coco17"].joints for what in ("x", "y", "conf"))])
NAMES = [f"{person:03d}-nm-01-090" for person in range(1, 7)]


def write_csv(path: Path, *more: str, header: str = HEADER, names: list[str] = NAMES) -> Path:
    """A pose CSV with a walk of six people, and the lines `more`."""
    path.write_text("\n".join([header, *(line for name in names for line in pose_rows(name)), *more]) + "\n", encoding="utf-8")
    return path


def write_labels(path: Path, subjects: list[str], splits: list[str] | None = None) -> Path:
    """Every other subject is sick."""
    lines = [f"{subject},{'sick' if i % 2 else 'well'}" + (f",{splits[i]}" if splits else "") for i, subject in enumerate(subjects)]
    path.write_text("\n".join(["subject,label" + (",split" if splits else ""), *lines]) + "\n", encoding="utf-8")
    return path


def without_time(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in ("seconds", "sha256")}


def read_summary(run: Path) -> dict[str, Any]:
    return without_time(json.loads((run / "summary.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `walks.npz`, `finished` (a run of three epochs), and `stopped` (the same one, interrupted after two)."""
    folder = tmp_path_factory.mktemp("made")
    data = write_npz(folder / "walks.npz")
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer) -> dict[str, Any]:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda finished, found: None)
        for name in ("finished", "stopped"):
            patch.setattr(sys, "argv", ["train", "--data", str(data), *TINY, "--epochs", "3", "--out", str(folder / name)])
            if name == "stopped":
                patch.setattr(Trainer, "train_epoch", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    train.main()
            else:
                train.main()
    return folder


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Path:
    """A run of three epochs that was interrupted after two."""
    return Path(shutil.copytree(made / "stopped", tmp_path / "stopped"))


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "finished", tmp_path / "finished"))


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


# ------------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--hops 0", "--hops must be at least 1, got 0"),
        ("--heads 3 --hidden 8", "--heads must divide --hidden = 8, got 3"),
        ("--frames 1", "--frames must be above --hops = 1, got 1"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--folds 1", "--folds must be 0 (none) or at least 2, got 1"),
        ("--drop 1", "--drop must be at least 0 and below 1"),
        ("--learning-rate nan", "--learning-rate must be above 0, got nan"),
        ("--weight-decay nan", "--weight-decay must be at least 0"),
        ("--seed -1", "--seed"),
        (f"--seed {10**17}", "--seed"),
        ("--graph full", "--graph"),
        ("--layers many", "--layers"),
        ("--colour red", "--colour"),
        ("--people 1 --data synthetic", "people"),
        ("--planted nose_tip --data synthetic", "nose_tip"),
        ("--device abacus", "--device abacus can't be used"),
        ("--device meta", "--device"),
    ],
)
def test_an_option_with_a_bad_value(tmp_path: Path, command: Command, options: str, words: str) -> None:
    data = write_npz(tmp_path / "walks.npz")
    refused(command(train, "--data", data, "--out", tmp_path / "run", *TINY, *options.split()), words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path, command: Command) -> None:
    ended = command(train, "--data", write_npz(tmp_path / "walks.npz"), "--out", tmp_path / "run", *TINY, "--device", "cuda")
    refused(ended, "--device cuda can't be used")


@pytest.mark.parametrize("name", ["nothing", "triton"])
def test_a_backend_that_is_not_there(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "triton" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", name)
    refused(command(train, "--data", write_npz(tmp_path / "walks.npz"), "--out", tmp_path / "run", *TINY), repr(name))


# ------------------------------------------------------------------------------------------------------------ the run's folder


def test_a_folder_that_holds_another_run_is_left_as_it_is(finished: Path, made: Path, command: Command) -> None:
    before = content(finished)
    refused(command(train, "--data", made / "walks.npz", "--out", finished, *TINY), f"--out {finished} holds another run", "--resume", "new folder")
    assert content(finished) == before


def test_a_folder_that_holds_another_file_is_left_as_it_is(tmp_path: Path, command: Command) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine", encoding="utf-8")
    refused(command(train, "--out", tmp_path / "thesis", *TINY), f"--out {tmp_path / 'thesis'} exists and is not empty", "new folder")
    assert content(tmp_path / "thesis") == {"chapter.txt": b"mine"}


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_instead_of_a_folder(tmp_path: Path, command: Command, below: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    refused(command(train, "--data", write_npz(tmp_path / "walks.npz"), "--out", tmp_path / "file" / below, *TINY), tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("option", ["--out", "--data"])
def test_a_name_that_is_too_long(tmp_path: Path, command: Command, option: str) -> None:
    options = {"--data": write_npz(tmp_path / "walks.npz"), "--out": tmp_path / "run", option: tmp_path / ("x" * 300)}
    refused(command(train, *TINY, *(part for pair in options.items() for part in pair)), "x" * 300, "too long")


@pytest.mark.parametrize("mistake", [["--data", "missing.npz"], ["--folds", "9"], ["--layout", "coco17"], ["--device", "abacus"]])
def test_after_a_mistake_the_corrected_command_works(tmp_path: Path, command: Command, mistake: list[str]) -> None:
    data = write_npz(tmp_path / "walks.npz")
    refused(command(train, "--data", data, "--out", tmp_path / "run", *TINY, *mistake))
    assert command(train, "--data", data, "--out", tmp_path / "run", *TINY).code == 0


# -------------------------------------------------------------------------------------------------------------------- resuming


def test_resuming_an_interrupted_run_ends_like_an_uninterrupted_one(stopped: Path, finished: Path, command: Command) -> None:
    assert command(train, "--out", stopped, "--resume").code == 0
    assert read_summary(stopped) == read_summary(finished)
    model, expected = load_file(stopped / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(model[name], expected[name]) for name in expected)


@pytest.mark.parametrize("rest", [b'{"epoch": 3, "lo', b"\xff\xfe\x00", b'{"epoch": 3, "loss": 1.0}\n{"epoch": 4, "loss": 1.0}\n'])
def test_rows_after_the_checkpoint_are_dropped(stopped: Path, finished: Path, command: Command, rest: bytes) -> None:
    with (stopped / "metrics.jsonl").open("ab") as file:
        file.write(rest)
    assert command(train, "--out", stopped, "--resume").code == 0
    rows, expected = (list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines())) for run in (stopped, finished))
    assert [without_time(row) for row in rows] == [without_time(row) for row in expected]


def test_resuming_a_finished_run_says_its_results_again_and_changes_nothing(finished: Path, command: Command) -> None:
    before = content(finished)
    ended = command(train, "--out", finished, "--resume")
    assert ended.code == 0
    assert "macro F1" in ended.err
    assert content(finished) == before


def test_resuming_with_data_that_have_changed(tmp_path: Path, command: Command) -> None:
    data, run = write_npz(tmp_path / "walks.npz"), tmp_path / "run"
    assert command(train, "--data", data, "--out", run, *TINY).code == 0
    (run / "summary.json").unlink()
    write_npz(data, arrays(people=8))
    refused(command(train, "--out", run, "--resume"), "data", "changed")


def test_resuming_folds_goes_on_with_the_first_unfinished_one(tmp_path: Path, made: Path, command: Command) -> None:
    options = ["--data", made / "walks.npz", *TINY, "--folds", "2", "--out"]
    assert command(train, *options, tmp_path / "whole").code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    (tmp_path / "half" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "half" / "fold-2")
    assert command(train, *options, tmp_path / "half", "--resume").code == 0
    summaries = [read_summary(tmp_path / name) for name in ("half", "whole")]
    for summary in summaries:
        summary["folds"] = [without_time(fold) for fold in summary["folds"]]
    assert summaries[0] == summaries[1]


def test_nothing_to_resume(tmp_path: Path, command: Command) -> None:
    refused(command(train, "--out", tmp_path / "run", "--resume"), f"{tmp_path / 'run'} holds no run", "config.json")
    assert not (tmp_path / "run").exists()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_nothing(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def replace_by_text(path: Path) -> None:
    path.write_text("Dear diary, today nothing was trained.", encoding="utf-8")


def replace_by_pickle(path: Path) -> None:
    torch.save({"epoch": 2}, path)


FOREIGN = [cut_in_half, replace_by_nothing, replace_by_tensors, replace_by_text, replace_by_pickle]


@pytest.mark.parametrize("damage", FOREIGN)
def test_a_checkpoint_that_is_none(stopped: Path, command: Command, damage: Callable[[Path], None]) -> None:
    damage(stopped / "checkpoint.safetensors")
    before = content(stopped)
    refused(command(train, "--out", stopped, "--resume"), stopped / "checkpoint.safetensors", "not", "a checkpoint of fastst")
    assert content(stopped) == before


def test_a_checkpoint_of_another_model(tmp_path: Path, made: Path, stopped: Path, command: Command) -> None:
    assert command(train, "--data", made / "walks.npz", *TINY, "--hidden", "6", "--out", tmp_path / "wider").code == 0
    shutil.copy(tmp_path / "wider" / "checkpoint.safetensors", stopped)
    refused(command(train, "--out", stopped, "--resume"), stopped / "checkpoint.safetensors", "checkpoint of another model")


@pytest.mark.parametrize("damage", FOREIGN)
@pytest.mark.parametrize("module", [evaluate, predict])
def test_a_model_that_is_none(finished: Path, made: Path, command: Command, module: ModuleType, damage: Callable[[Path], None]) -> None:
    damage(finished / "model.safetensors")
    ended = command(module, "--run", finished, "--data", made / "walks.npz")
    refused(ended, finished / "model.safetensors", "not", "a model of fastst")


def test_a_summary_that_is_damaged(finished: Path, command: Command) -> None:
    cut_in_half(finished / "summary.json")
    refused(command(train, "--out", finished, "--resume"), finished / "summary.json")


def test_the_remedy_for_a_damaged_summary_works(tmp_path: Path, made: Path, command: Command) -> None:
    """Also where the best model was chosen, whose own file is gone when all is done."""
    run = tmp_path / "run"
    assert command(train, "--data", made / "walks.npz", *TINY, "--validation", "0.3", "--out", run).code == 0
    before = read_summary(run)
    for name in ("summary.json", "predictions.csv", "split.json", "walks_seen.json"):
        (run / name).unlink()
    assert command(train, "--out", run, "--resume").code == 0
    assert read_summary(run) == before
    for name in ("summary.json", "model.safetensors", "checkpoint.safetensors"):
        (run / name).unlink()
    assert command(train, "--out", run, "--resume").code == 0
    assert read_summary(run) == before


def test_a_summary_of_another_version(finished: Path, command: Command) -> None:
    summary = run_folder.read_summary(finished)
    assert summary is not None
    del summary["intervals"]
    run_folder.write_summary(finished, summary)
    refused(command(train, "--out", finished, "--resume"), finished / "summary.json", "is not as fastst.train writes it (KeyError: 'intervals')")


@pytest.mark.parametrize("options", [["--hops", "2"], ["--learning-rate", "0.1"], ["--epochs", "50"], ["--data", "other.npz"], ["--no-mirror"]])
def test_other_options_than_the_run_was_begun_with(stopped: Path, command: Command, options: list[str]) -> None:
    before = content(stopped)
    ended = command(train, "--out", stopped, "--resume", *options)
    if options == ["--no-mirror"]:
        refused(ended, "--mirror is True in the run, False was asked for", "another --out")
    else:
        refused(ended, f"{options[0]} is ", "in the run", f"{options[1]} was asked for", "another --out")
    assert content(stopped) == before


def test_some_of_the_run_s_own_options_may_be_repeated(tmp_path: Path, made: Path, command: Command) -> None:
    options = ["--data", made / "walks.npz", *TINY, "--hidden", "6", "--heads", "3", "--out", tmp_path / "run"]
    assert command(train, *options).code == 0
    assert command(train, "--out", tmp_path / "run", "--resume", "--hidden", "6").code == 0


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"planted": []}',
        b'{"planted": [], "graph": "triangular"}',
    ],
)
@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_a_config_that_is_damaged(stopped: Path, finished: Path, made: Path, command: Command, module: ModuleType, text: bytes) -> None:
    run = stopped if module is train else finished
    (run / "config.json").write_bytes(text)
    rest = ["--out", run, "--resume"] if module is train else ["--run", run, "--data", made / "walks.npz"]
    refused(command(module, *rest), run / "config.json", "is not the configuration of a run")


# ------------------------------------------------------------------------------------------------------------------ a full disk


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Writing beyond this size fails with EFBIG, as it does with ENOSPC where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("step", "size", "file"),
    [
        ("train_epoch", 100, "metrics.jsonl"),
        ("train_epoch", 2000, "checkpoint.safetensors"),
        ("finish", 500, "model.safetensors"),
        ("finish", 12_000, "learning_curve.png"),
    ],
)
def test_after_a_full_disk_resuming_ends_like_an_uninterrupted_run(
    tmp_path: Path, made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, with_figures: None, step: str, size: int, file: str
) -> None:
    run, method, before = tmp_path / "run", getattr(Trainer, step), dict[str, bytes]()

    def on_a_full_disk(self: Trainer, *arguments: Any) -> dict[str, Any]:
        if self.epoch < 2:
            return method(self, *arguments)
        before.update(content(run))
        with files_end_at(size):
            return method(self, *arguments)

    monkeypatch.setattr(Trainer, step, on_a_full_disk)
    ended = command(train, "--data", made / "walks.npz", *TINY, "--epochs", "3", "--out", run)
    refused(ended, run / file, "can't be written", "File too large", "--resume")
    after = content(run)
    assert after["checkpoint.safetensors"] == before["checkpoint.safetensors"]
    assert load_file(run / "checkpoint.safetensors")
    assert not [name for name in after if ".part" in name]
    monkeypatch.setattr(Trainer, step, method)
    assert command(train, "--out", run, "--resume").code == 0
    assert read_summary(run) == read_summary(made / "finished")


def test_a_full_disk_at_the_very_beginning(tmp_path: Path, command: Command) -> None:
    data = write_npz(tmp_path / "walks.npz")
    with files_end_at(10):
        refused(command(train, "--data", data, *TINY, "--out", tmp_path / "run"), tmp_path / "run" / "config.json", "can't be written")
    assert command(train, "--data", data, *TINY, "--out", tmp_path / "run").code == 0


@pytest.mark.parametrize("module", [evaluate, predict])
def test_results_that_cant_be_written(tmp_path: Path, finished: Path, made: Path, command: Command, module: ModuleType) -> None:
    (tmp_path / "old.json").write_text('{"probabilities": "old"}', encoding="utf-8")
    with files_end_at(10):
        ended = command(module, "--run", finished, "--data", made / "walks.npz", "--out", tmp_path / "old.json")
    refused(ended, tmp_path / "old.json", "can't be written")
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == '{"probabilities": "old"}'
    ended = command(module, "--run", finished, "--data", made / "walks.npz", "--out", tmp_path / "nowhere" / "new.json")
    refused(ended, tmp_path / "nowhere" / "new.json", "there is no folder")
    assert "--resume" not in ended.err


@pytest.mark.parametrize("module", [evaluate, predict])
def test_results_into_a_folder_that_is_there(
    finished: Path, made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.chdir(finished)
    (finished / "folder.json").mkdir()
    refused(command(module, "--run", finished, "--data", made / "walks.npz", "--out", "folder.json"), "folder.json is a folder, and no regular file")


@pytest.mark.parametrize("module", [evaluate, predict])
def test_results_of_an_unknown_kind(tmp_path: Path, command: Command, module: ModuleType) -> None:
    """Before anything is computed, and so before the run is missed."""
    ended = command(module, "--run", tmp_path / "nowhere", "--data", "walks.npz", "--out", tmp_path / "results.xlsx")
    refused(ended, f"--out {tmp_path / 'results.xlsx'} is of no kind that can be written", "ends in .csv or .json")


# ------------------------------------------------------------------------------------------------------------------ divergence


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    tmp_path: Path, made: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, losses, before = tmp_path / "run", Trainer._train_step, dict[str, bytes]()

    def no_number(self: Trainer, *arguments: Any) -> torch.Tensor:
        if self.epoch == 2:
            before.update(content(run))
        return losses(self, *arguments) * (torch.nan if self.epoch == 2 else 1)

    monkeypatch.setattr(Trainer, "_train_step", no_number)
    ended = command(train, "--data", made / "walks.npz", *TINY, "--epochs", "3", "--out", run)
    refused(ended, "the loss became nan in epoch 3", f"the checkpoint of epoch 2 is kept in {run / 'checkpoint.safetensors'}", "--learning-rate")
    assert content(run) == {name: it for name, it in before.items() if name != LOCK}
    monkeypatch.setattr(Trainer, "_train_step", losses)
    assert command(train, "--out", run, "--resume").code == 0
    assert read_summary(run) == read_summary(made / "finished")


def test_a_learning_rate_without_measure(tmp_path: Path, made: Path, command: Command) -> None:
    ended = command(train, "--data", made / "walks.npz", *TINY, "--epochs", "30", "--learning-rate", "1e30", "--out", tmp_path / "run")
    refused(ended, "the loss became nan in epoch 2", "--learning-rate")
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "run" / "checkpoint.safetensors").values())


def test_a_model_that_diverges_in_the_last_epoch_is_no_result(tmp_path: Path, made: Path, command: Command) -> None:
    ended = command(train, "--data", made / "walks.npz", *TINY, "--learning-rate", "1e30", "--out", tmp_path / "run")
    refused(ended, "--learning-rate")
    assert not (tmp_path / "run" / "summary.json").exists()


# ---------------------------------------------------------------------------------------------------------- evaluate and predict


@pytest.mark.parametrize("module", [evaluate, predict])
def test_a_run_that_is_not_there_or_not_finished(tmp_path: Path, stopped: Path, made: Path, command: Command, module: ModuleType) -> None:
    data = made / "walks.npz"
    refused(command(module, "--run", tmp_path / "nowhere", "--data", data), f"{tmp_path / 'nowhere'} holds no run")
    refused(command(module, "--run", stopped, "--data", data), f"{stopped} holds no model.safetensors", "--resume")
    refused(command(module, "--run", data, "--data", data), f"{data} holds no run")


def test_edges_are_those_of_one_fold_which_has_to_be_finished(tmp_path: Path, made: Path, command: Command) -> None:
    run, data = tmp_path / "run", made / "walks.npz"
    assert command(train, "--data", data, *TINY, "--folds", "2", "--out", run).code == 0
    refused(command(predict, "--run", run, "--data", data, "--edges", tmp_path / "edges.csv"), "it has folds; name one", run / "fold-1")
    assert command(predict, "--run", run / "fold-2", "--data", data, "--edges", tmp_path / "edges.csv").code == 0
    (run / "fold-2" / "model.safetensors").unlink()
    for module in (evaluate, predict):
        refused(command(module, "--run", run, "--data", data), f"{run / 'fold-2'} holds no model.safetensors", "--resume")


@pytest.mark.parametrize("module", [evaluate, predict])
def test_data_of_another_dimension_or_skeleton(tmp_path: Path, finished: Path, command: Command, module: ModuleType) -> None:
    solid = write_npz(tmp_path / "solid.npz", arrays(dimensions=3))
    refused(command(module, "--run", finished, "--data", solid), "4 joints in 2D", "3D")
    renamed = write_npz(tmp_path / "renamed.npz", joints=np.array(["hips", "left_foot", "right_foot", "head"]))
    refused(command(module, "--run", finished, "--data", renamed), "left_foot")
    poses = write_csv(tmp_path / "poses.csv")
    more = ["--labels", write_labels(tmp_path / "labels.csv", [name[:3] for name in NAMES])] if module is evaluate else []
    refused(command(module, "--run", finished, "--data", poses, *more), "the model was trained on", "4 joints")


def test_a_class_that_the_model_does_not_know(tmp_path: Path, finished: Path, command: Command) -> None:
    label = arrays()["label"].astype("U8")
    label[0] = "odd"
    data = write_npz(tmp_path / "odd.npz", label=label)
    refused(command(evaluate, "--run", finished, "--data", data), "['odd']", "['sick', 'well']", "--label-map")
    assert command(evaluate, "--run", finished, "--data", data, "--label-map", "odd=well,sick=sick,well=well").code == 0


def test_data_of_one_of_the_model_s_classes_can_be_tested_on(tmp_path: Path, finished: Path, command: Command) -> None:
    data = write_npz(tmp_path / "well.npz", label=np.full(12, "well"))
    ended = command(evaluate, "--run", finished, "--data", data)
    assert ended.code == 0
    assert "4 walks of 2 people it was not trained on" in ended.out
    assert "apart from that, 8 walks of 4 people it was trained on" in ended.out


def test_the_model_s_skeleton_is_used_for_new_data(tmp_path: Path, command: Command) -> None:
    data, new = write_csv(tmp_path / "poses.csv"), write_csv(tmp_path / "new.csv")
    labels, run = write_labels(tmp_path / "labels.csv", [name[:3] for name in NAMES]), tmp_path / "run"
    assert command(train, "--data", data, "--labels", labels, "--layout", "coco17", "--out", run, *TINY).code == 0
    assert command(predict, "--run", run, "--data", new).code == 0
    ended = command(evaluate, "--run", run, "--data", new, "--labels", labels)
    assert (ended.code, ended.err) == (0, "")


def test_the_model_s_centre_is_used_for_new_data(tmp_path: Path, command: Command) -> None:
    data, new, layout, run = (tmp_path / name for name in ("walks.npz", "new.npz", "mine.json", "run"))
    write_npz(data)
    write_npz(new)
    layout.write_text(json.dumps({"joints": JOINTS, "bones": [[0, 1], [0, 2], [0, 3]], "root": ["head"]}), encoding="utf-8")
    assert command(train, "--data", data, "--layout", layout, "--out", run, *TINY).code == 0
    for file in (data, new):
        assert command(evaluate, "--run", run, "--data", file, "--out", file.with_suffix(".json")).code == 0
    assert json.loads(new.with_suffix(".json").read_text()) == json.loads(data.with_suffix(".json").read_text())


def test_walks_that_predict_leaves_out_are_listed_on_stderr(tmp_path: Path, finished: Path, command: Command) -> None:
    poses = arrays()["poses"]
    poses[:8, 3] = np.nan
    data = write_npz(tmp_path / "gaps.npz", poses=poses)
    for module in (evaluate, predict):
        ended = command(module, "--run", finished, "--data", data)
        assert ended.code == 0
        assert "left out: p0-01: never shows head" in ended.err
