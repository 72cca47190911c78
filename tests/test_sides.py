"""Who is trained and tested on, and from which weights, in whole runs."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastst.audit import main as audit_command
from fastst.compare import main as compare_command
from fastst.config import TrainConfig
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.splits import Split, balanced_split, casia_b_split, class_of_people
from fastst.data.synthetic import synthetic_walks
from fastst.errors import UserError
from fastst.evaluate import main as evaluate
from fastst.explanation.report import EXPLAINED
from fastst.runs.comparison import compare
from fastst.runs.load import load_task
from fastst.runs.opened import open_run
from fastst.runs.outcomes import read_outcomes
from fastst.runs.trainer import Fold, Processes, Trainer
from fastst.runs.training import _split, train

SIZES = {"people": 12, "walks_per_person": 2, "frames": 8, "hidden": 4, "heads": 2, "layers": 1, "encoder_layers": 0, "epochs": 1}


def config(out: Path, **options) -> TrainConfig:
    return TrainConfig(**{**SIZES, "out": out, **options})


def run(out: Path, **options) -> dict:
    return train(config(out, **options), quiet=True)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sides") / "first"
    run(out, seed=1)
    return out


def trainer(folder: Path, **options) -> Trainer:
    made = config(folder, **options)
    task = load_task(made, progress=False)
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    return Trainer(made, task, Fold(folder, "t", balanced_split(people, 0), 0), Processes(0, 1))


def test_the_split_of_a_run_is_another_ones(first: Path, tmp_path: Path):
    run(tmp_path / "again", seed=1, split_file=str(first / "split.json"))
    assert read(tmp_path / "again" / "split.json") == read(first / "split.json")
    assert losses(tmp_path / "again") == losses(first)
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (first / "predictions.csv").read_bytes()


def test_a_split_file_may_leave_people_out_and_validate(tmp_path: Path, capsys):
    lines = [f"{i},{('train', 'train', 'validation', 'test')[i % 4]}" for i in range(1, 12)]
    (tmp_path / "split.csv").write_text("\n".join(["subject,split", *lines]) + "\n")
    train(config(tmp_path / "run", split_file=str(tmp_path / "split.csv"), epochs=2, patience=1))
    assert "'012' is not in" in capsys.readouterr().err
    split = read(tmp_path / "run" / "split.json")
    assert split == {"train": ["001", "004", "005", "008", "009"], "validation": ["002", "006", "010"], "test": ["003", "007", "011"]}
    assert set(read_outcomes(tmp_path / "run" / "predictions.csv").subjects) == set(split["test"])
    with pytest.raises(UserError, match=r"--validation 0\.2 sets people aside, but --split-file .* names such people: leave it out"):
        run(tmp_path / "other", split_file=str(tmp_path / "split.csv"), validation=0.2)
    (tmp_path / "split.csv").write_text("subject,split\n1,train\n2,train\n3,train\n5,test\n")
    with pytest.raises(UserError, match="--patience needs people to be patient with: name some under validation in"):
        run(tmp_path / "other", split_file=str(tmp_path / "split.csv"), patience=1)
    assert not (tmp_path / "other").exists()


def test_a_split_that_changed_is_not_gone_on_with(first: Path, tmp_path: Path):
    file = Path(shutil.copy(first / "split.json", tmp_path / "split.json"))
    run(tmp_path / "run", split_file=str(file))
    (tmp_path / "run" / "summary.json").unlink()
    sides = read(file)
    file.write_text(json.dumps({**sides, "train": sides["train"][1:]}))
    with pytest.raises(UserError, match=r"whom training trains and tests on has changed since .*split\.json was written"):
        train(TrainConfig.from_json((tmp_path / "run" / "config.json").read_text(), tmp_path / "run"), EXPLAINED, quiet=True)


def test_casia_bs_protocol_is_an_option(first: Path):
    task = load_task(config(first), progress=False)
    people = {f"{i:03d}": "x" for i in range(1, 125)}
    assert _split(config(first, split="casia-b"), task, people) == casia_b_split(people)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2, "split_file": "split.json"}, "--folds makes its own splits; leave --split and --split-file out"),
        ({"folds": 2, "split": "casia-b"}, "--folds makes its own splits"),
        ({"split": "casia-b", "split_file": "split.json"}, "--split-file and --split casia-b both say who is tested on"),
        ({"split": "casia-b"}, "--split casia-b has nobody to test on: none of the 12 people has a number from 75 to 124"),
    ],
)
def test_splits_that_dont_go_together(options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_weights_of_the_classes(tmp_path: Path):
    balanced, plain = trainer(tmp_path), trainer(tmp_path, class_weights="none")
    counts = np.bincount(plain.task.classes[plain.train_walks])
    assert counts[0] != counts[1]
    np.testing.assert_allclose(balanced.class_weights, counts.sum() / (2 * counts))
    assert plain.class_weights.tolist() == [1, 1]
    np.testing.assert_allclose(balanced.model.downstream.class_log_share, np.log([0.5, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(plain.model.downstream.class_log_share, np.log(counts / counts.sum()), rtol=1e-6)


def test_a_training_starts_from_anothers_weights(first: Path, tmp_path: Path):
    """The same function where the classes are the same; else all but the classifier, which is what it would have been."""
    there = open_run(first).model.state_dict()
    same = trainer(tmp_path, init=str(first)).model.state_dict()
    assert {name for name in there if not torch.equal(same[name], there[name])} <= {"downstream.class_log_share"}
    other, fresh = (trainer(tmp_path, target="condition", **options).model.state_dict() for options in ({"init": str(first)}, {}))
    classifier = {name for name in fresh if name.startswith("downstream.classifier.")}
    assert classifier
    for name in fresh:
        if name in classifier or name == "downstream.class_log_share":
            assert torch.equal(other[name], fresh[name]), name
        else:
            assert torch.equal(other[name], there[name]), name


def test_whom_the_first_model_knew_is_remembered(first: Path, tmp_path: Path, capsys):
    out, before = tmp_path / "run", read(first / "split.json")
    train(config(out, init=str(first), seed=2))
    split, said = read(out / "split.json"), capsys.readouterr().err
    known = set(split["test"]) & set(before["train"])
    assert known
    assert split["initial"] == before["train"]
    assert said.count(f"training: {len(known)} of these {len(split['test'])} people had a part in the model of --init") == 2  # before and after
    assert read(out / "summary.json")["known_to_init"] == len(known)
    assert open_run(out).split == Split(*(frozenset(split[side]) for side in ("train", "test", "validation", "initial")))
    evaluate(["--run", str(out), "--data", "synthetic", "--out", str(tmp_path / "all.json")])
    unseen = {row["subject"] for row in read(tmp_path / "all.json")["predictions"] if not row["trained_on"]}
    assert unseen == set(split["test"]) - known
    run(tmp_path / "third", init=str(out), seed=3)
    assert set(read(tmp_path / "third" / "split.json")["initial"]) == set(split["train"]) | set(before["train"])


def test_a_training_from_other_weights_goes_on_to_the_same_numbers(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path / "whole", init=str(first), epochs=2)
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", init=str(first), epochs=2)
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    train(TrainConfig.from_json((tmp_path / "run" / "config.json").read_text(), tmp_path / "run"), quiet=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    again, whole = (open_run(tmp_path / name).model.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2, "hops": 2}, r"doesn't fit: --hops is 1 there, 2 here; --layers is 1 there, 2 here\. Give the same options"),
        ({"layout": "coco17"}, r"its skeleton is coco18 \(18 joints, 18 bones, 2D\), that of the data is coco17 \(17 joints"),
    ],
)
def test_a_model_that_doesnt_fit_is_refused_by_name(first: Path, options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", init=str(first), **options)
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_cant_be_started_from(first: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"--init .*nowhere holds no run of fastst\.train"):
        run(tmp_path / "run", init=str(tmp_path / "nowhere"))
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    (copy / "split.json").unlink()
    with pytest.raises(UserError, match=r"--init .*copy has no split\.json, which says whom it was trained on; bring it back"):
        run(tmp_path / "run", init=str(copy))
    assert not (tmp_path / "run").exists()


def test_audit_and_compare_say_whom_the_first_model_knew(first: Path, tmp_path: Path, capsys):
    """Of a run with folds, everybody that it knew is tested on."""
    knew = read(first / "split.json")["train"]
    summary = train(config(tmp_path / "folds", init=str(first), seed=2, folds=2), EXPLAINED, quiet=True)
    assert summary["known_to_init"] == len(knew)
    words = f"{len(knew)} of the people tested on had a part in the model that this one started from."
    assert summary["audit"]["verdict"]["sentence"].endswith(words)
    fold = summary["folds"][0]
    assert f"{fold['known_to_init']} of the people tested on had" in fold["audit"]["verdict"]["sentence"]
    run(tmp_path / "fresh", seed=2, folds=2)
    fresh, known = compare([tmp_path / "fresh", tmp_path / "folds"])
    assert (fresh["known_to_init"], known["known_to_init"]) == (0, len(knew))
    audit_command(["--run", str(tmp_path / "folds" / "fold-1")])
    said = capsys.readouterr().out
    assert f"{fold['known_to_init']} of these {fold['people']} people had a part in the model of --init" in said
    compare_command([str(tmp_path / "fresh"), str(tmp_path / "folds")])
    assert f"folds: {len(knew)} of these 12 people had a part in the model of --init" in capsys.readouterr().out


def test_people_whom_the_first_model_knew_under_other_names_are_known(first: Path, tmp_path: Path):
    walks = synthetic_walks(12, 2, seed=1)
    renamed = dataclasses.replace(walks, subjects=[f"P{who}" for who in walks.subjects])
    write_walks_npz(tmp_path / "renamed.npz", renamed)
    summary = run(tmp_path / "run", init=str(first), seed=2, data=str(tmp_path / "renamed.npz"))
    split = read(tmp_path / "run" / "split.json")
    assert summary["known_to_init"] == len({who for who in split["test"] if who[1:] in read(first / "split.json")["train"]}) > 0
