"""Options, folders and runs that are bad: a message that says what, where and what to do, and nothing that was there is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from inputs import (
    TINY,
    Command,
    arrays,
    content,
    read_summary,
    refused,
    without_time,
    write_npz,
)
from safetensors.torch import load_file, save_file

from fastst import evaluate, predict, train
from fastst.ops import backends
from fastst.runs import folder as run_folder
from fastst.runs import trainer

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


def test_parts_of_files_of_a_killed_run_are_removed(stopped: Path, command: Command) -> None:
    parts = [stopped / ".summary.0123456789ab.part.json", stopped / "seed-2" / ".learning_curve.a1b2c3d4e5f6.part.png"]
    others = [stopped / ".notes.part.txt", stopped / ".my.0123456789ab.parts"]
    parts[1].parent.mkdir()
    for path in (*parts, *others):
        path.write_text("half", encoding="utf-8")
    assert command(train, "--out", stopped, "--resume").code == 0
    assert not any(path.exists() for path in parts)
    assert all(path.exists() for path in others)


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


@pytest.mark.parametrize("value", [[1], None, "many", float("nan")])
def test_a_checkpoint_of_another_version(stopped: Path, command: Command, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    load = trainer.load_checkpoint
    monkeypatch.setattr(trainer, "load_checkpoint", lambda *arguments: {**load(*arguments), "best_epoch": value})
    words = "checkpoint.safetensors is not as fastst.train writes it", "or delete it, and fastst.train --resume begins this training again"
    refused(command(train, "--out", stopped, "--resume"), *words)


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
