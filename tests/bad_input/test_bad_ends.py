"""A full disk, a loss that is no number, and runs or data that a model can't be tested on: nothing that was there is lost."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from inputs import (
    JOINTS,
    NAMES,
    TINY,
    Command,
    arrays,
    content,
    read_summary,
    refused,
    write_csv,
    write_labels,
    write_npz,
)
from safetensors.torch import load_file

from fastst import evaluate, predict, train
from fastst.runs.lock import LOCK
from fastst.runs.trainer import Trainer

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
