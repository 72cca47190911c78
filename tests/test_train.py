"""Training as a user meets it: a whole run, going on after an interruption, several processes, long walks."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Commands, has_ended

from fastst.config import TrainConfig
from fastst.data.batches import random_windows
from fastst.data.splits import balanced_split, class_of_people
from fastst.evaluate import main as evaluate
from fastst.explanation.report import EXPLAINED
from fastst.nn import GraphClassifier
from fastst.nn.sources import ExactlyKGraph, ReinforcedGraph
from fastst.predict import main as predict
from fastst.runs.folder import load_model
from fastst.runs.load import load_task
from fastst.runs.trainer import Fold, Processes, Trainer, _pairs
from fastst.runs.training import _control, train
from fastst.train import read_config

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--people", "12", "--walks-per-person", "3", "--frames", "12", "--hidden", "8", "--heads", "2", "--layers", "2", "--batch-size", "8"]
FIGURES = {"learning_curve.png", "initial_adjacency.png", "audit.png", "kept_of_joints.png", "walk_with_kept_edges.png"}
VARYING = {"sha256", "seconds", "threads"}


def tiny(out: Path, **options) -> TrainConfig:
    sizes = {"people": 12, "walks_per_person": 3, "frames": 12, "hidden": 8, "heads": 2, "layers": 2, "batch_size": 8}
    return TrainConfig(**{**sizes, "epochs": 2, "out": out, **options})


def summary(folder: Path) -> dict:
    fields = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in fields.items() if name not in VARYING}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run, as it was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny(out, epochs=6), EXPLAINED)
    return out


def test_a_run_leaves_everything(with_figures: None, tmp_path: Path):
    run = tmp_path / "run"
    train(tiny(run), EXPLAINED)
    assert {path.name for path in run.iterdir()} == FIGURES | {
        "config.json",
        "split.json",
        "walks_seen.json",
        "metrics.jsonl",
        "predictions.csv",
        "logistic_regression.json",
        "summary.json",
        "model.safetensors",
        "checkpoint.safetensors",
    }
    for figure in FIGURES:
        assert (run / figure).read_bytes().startswith(b"\x89PNG")
    fields = json.loads((run / "summary.json").read_text())
    wanted = {"macro_f1", "balanced_accuracy", "mad", "kept_share", "walks", "people", "parameters", "seconds"}
    assert wanted <= set(fields)
    assert set(fields["kept_share_per_class"]) == {"female", "male"}
    split = json.loads((run / "split.json").read_text())
    assert {side: len(people) for side, people in split.items()} == {"train": 10, "validation": 0, "test": 2}
    assert len(losses(run)) == 2


@pytest.mark.parametrize("graph", ["fixed", "random", "learned"])
def test_folds(graph: str, tmp_path: Path):
    out = tmp_path / "run"
    result = train(tiny(out, graph=graph, folds=3, epochs=1, samples=2), EXPLAINED)
    assert result["people"] == 12
    assert result["walks"] == 36
    assert len(result["folds"]) == 3
    assert result["mean_of_folds"]["macro_f1"] == pytest.approx(np.mean([fold["macro_f1"] for fold in result["folds"]]))
    assert all((out / f"fold-{i}" / "model.safetensors").exists() for i in (1, 2, 3))
    assert json.loads((out / "summary.json").read_text())["balanced_accuracy"] == result["balanced_accuracy"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_an_interrupted_run_goes_on_to_the_same_numbers(how: signal.Signals, run: Path, tmp_path: Path, commands: Commands):
    out, said = tmp_path / "run", tmp_path / "said"
    process = commands.start(*TINY, "--epochs", "6", "--out", out, said=said)
    while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_text().splitlines()) < 2:
        assert not has_ended(process), f"the run ended before it could be interrupted: {said.read_text()}"
        time.sleep(0.01)
    os.kill(process, how)
    if how == signal.SIGINT:
        assert commands.code(process) == 130
        assert "interrupted; go on with --resume" in said.read_text()
        assert "Traceback" not in said.read_text()
    else:
        assert commands.code(process) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert commands.code(commands.start("--resume", "--out", out, said=said)) == 0, said.read_text()
    assert summary(out) == summary(run)
    assert losses(out) == losses(run)


def test_resume_after_a_crash_between_metrics_and_checkpoint(run: Path, tmp_path: Path):
    """The row of an epoch is there, its checkpoint is not: the epoch runs again and its row is not there twice."""
    out = tmp_path / "run"
    train(tiny(out, epochs=6), EXPLAINED)
    (out / "summary.json").unlink()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 7, "loss": 0.1}\n{"epoch": 8, "lo')
    train(TrainConfig.from_json((out / "config.json").read_text(), out), EXPLAINED)
    assert losses(out) == losses(run)
    assert summary(out) == summary(run)


def test_resuming_a_finished_run_changes_nothing(run: Path):
    before = (run / "summary.json").read_bytes()
    train(TrainConfig.from_json((run / "config.json").read_text(), run), EXPLAINED)
    assert (run / "summary.json").read_bytes() == before


def test_two_processes_train_to_the_losses_of_one(tmp_path: Path):
    # 9 people are trained on: the last batch has fewer windows than the others, and pairs of windows exchange edges.
    one, two = tmp_path / "one", tmp_path / "two"
    train(tiny(one, epochs=3))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fastst.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *TINY, "--epochs", "3", "--out", str(two)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    for name in ("macro_f1", "balanced_accuracy", "walks", "people"):
        assert summary(two)[name] == pytest.approx(summary(one)[name], abs=0.05)


def test_more_processes_than_windows_in_the_last_batch_is_no_problem(tmp_path: Path):
    config = tiny(tmp_path / "run")
    task = load_task(config)
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    trainer = Trainer(config, task, Fold(tmp_path, "t", balanced_split(people, 0), 0), Processes(0, 1))
    windows = random_windows(task.lengths, trainer.train_walks, 12, np.random.default_rng(0))
    chosen, mirrored = np.arange(4), np.zeros(len(windows), bool)
    exchanged = np.ones(len(windows), bool)
    whole = trainer._train_step(trainer._inputs(windows, chosen, mirrored, None, exchanged, 0.5))
    parts = []
    for rank in range(4):
        share = Trainer(config, task, trainer.fold, Processes(0, 1))
        share.processes = Processes(rank, 4)
        parts.append(share._train_step(share._inputs(windows, chosen, mirrored, None, exchanged, 0.5)))
    assert [part[1].item() > 0 for part in parts] == [True, True, False, False]
    np.testing.assert_allclose(sum(parts).numpy(), whole.numpy(), rtol=1e-5)


def test_the_papers_recipe_trains_as_usual(tmp_path: Path):
    """Adam's usual numbers, batches of 32, and everybody on edges of their own."""
    paper = TrainConfig.with_recipe("paper", people=12, walks_per_person=1, hidden=8, heads=2, out=tmp_path)
    task = load_task(paper)
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    trainer = Trainer(paper, task, Fold(tmp_path, "t", balanced_split(people, 0), 0), Processes(0, 1))
    assert trainer.optimizer.defaults["betas"] == (0.9, 0.999)
    assert (paper.batch_size, paper.exchange, paper.likeliest, paper.settle) == (32, 0, 0, 1)


def test_pairs_of_windows_exchange_their_edges():
    exchanged = np.array([True, False, False, False, True])
    assert _pairs(exchanged).tolist() == [1, 1, 2, 3, 4]  # the last has no other
    assert _pairs(np.zeros(0, bool)).tolist() == []


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_lower_precision_trains_to_similar_losses(amp: str, run: Path, tmp_path: Path):
    train(tiny(tmp_path / "run", amp=amp, epochs=6, graph="fixed"), EXPLAINED)
    train(tiny(tmp_path / "exact", epochs=6, graph="fixed"), EXPLAINED)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "exact"), atol=0.05)


def test_the_best_epoch_for_the_validation_people_is_kept(tmp_path: Path):
    out = tmp_path / "run"
    result = train(tiny(out, people=20, epochs=8, validation=0.3, learning_rate=0.05), EXPLAINED)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    late = [row for row in rows if row["epoch"] >= 4]
    assert result["epoch"] == min(late, key=lambda row: row["validation_loss"])["epoch"]
    assert result["validation_people"] > 0
    assert not (out / "best.safetensors").exists()
    saved = json.loads((out / "split.json").read_text())
    assert len(saved["validation"]) == result["validation_people"]


def test_patience_ends_a_training_that_brings_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    worse = itertools.count(1)
    monkeypatch.setattr("fastst.runs.trainer.nll_loss", lambda *_: torch.tensor(float(next(worse))))
    result = train(tiny(tmp_path / "run", people=20, epochs=12, validation=0.3, patience=2), EXPLAINED)
    assert result["epoch"] == 6
    assert len(losses(tmp_path / "run")) == 8


def test_validation_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {"people": 20, "epochs": 6, "validation": 0.3}
    whole = train(tiny(tmp_path / "whole", **options), EXPLAINED)
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer):
        if self.epoch == 4:
            raise KeyboardInterrupt
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "run", **options), EXPLAINED)
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    train(TrainConfig.from_json((tmp_path / "run" / "config.json").read_text(), tmp_path / "run"), EXPLAINED)
    assert summary(tmp_path / "run") == {name: value for name, value in json.loads(json.dumps(whole)).items() if name not in VARYING}


def test_a_recipe_is_where_the_other_options_start_from():
    paper = read_config(["--recipe", "paper", "--layers", "16", "--tau", "3"])
    assert (paper.noise, paper.estimator, paper.information, paper.readout, paper.residual) == ("gumbel", "identity", 0, "nodes", 0)
    assert (paper.layers, paper.tau, paper.recipe) == (16, 3, "paper")
    default = read_config([])
    assert (default.noise, default.estimator, default.keep, default.readout) == ("logistic", "sigmoid", 0.2, "edges")
    assert default.has_information_term
    assert not paper.has_information_term


def test_the_prior_falls_in_the_first_half_and_stays():
    config = TrainConfig(keep=0.2, keep_start=0.8, settle=1.0)
    assert [round(config.prior(done), 9) for done in (0, 0.125, 0.25, 0.5, 1)] == [0.8, 0.5, 0.2, 0.2, 0.2]
    assert TrainConfig(keep=0.2, keep_start=0.8, settle=0.5).prior(0.0625) == pytest.approx(0.5)


def test_the_graph_is_settled_and_the_classifier_is_not(tmp_path: Path):
    config = tiny(tmp_path / "run", epochs=4, settle=0.5)
    task = load_task(config, progress=False)
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    trainer = Trainer(config, task, Fold(tmp_path, "t", balanced_split(people, 0), 0), Processes(0, 1))
    graphs, classifiers = [], []
    for _ in range(4):
        trainer.train_epoch()
        graphs.append(trainer.model.source.upstream.slot_bias.detach().clone())
        classifiers.append(trainer.model.downstream.classifier.weight.detach().clone())
    assert [bool((a != b).any()) for a, b in itertools.pairwise(graphs)] == [True, False, False]
    assert all((a != b).any() for a, b in itertools.pairwise(classifiers))


def test_the_paper_to_the_letter_still_trains(tmp_path: Path):
    sizes = {"people": 12, "walks_per_person": 2, "frames": 12, "hidden": 8, "heads": 2, "layers": 2, "epochs": 2}
    result = train(TrainConfig.with_recipe("paper", **sizes, out=tmp_path / "run"), EXPLAINED)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "information" not in rows[0]
    assert result["audit"]["information"]["prior"] is None


@pytest.mark.parametrize("estimator", ["reinforce", "exactly_k"])
def test_other_estimators_train_and_are_saved_with_the_run(estimator: str, tmp_path: Path):
    result = train(tiny(tmp_path / "run", estimator=estimator, keep=0.3), EXPLAINED)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ("information" in rows[0]) == (estimator == "reinforce")
    model, arguments = load_model(tmp_path / "run" / "model.safetensors")[:2]
    assert (arguments["estimator"], arguments["keep"]) == (estimator, 0.3)
    assert isinstance(model.source, {"reinforce": ReinforcedGraph, "exactly_k": ExactlyKGraph}[estimator])
    if estimator == "exactly_k":  # of 72 slots, of which the first and the last frame have 54
        assert result["kept_share"] == pytest.approx(22 * 12 / (72 * 12 - 2 * 18))
    before = model.source.upstream.slot_bias.detach()
    torch.manual_seed(result["seed"])
    assert not torch.equal(GraphClassifier(**arguments).source.upstream.slot_bias, before)  # the graph was trained


def test_a_control_of_classes_that_people_have_several_of(tmp_path: Path):
    config = tiny(tmp_path, target="condition", permuted=True)
    task = load_task(config, progress=False)
    control, folds = _control(config, task)
    for subject in set(task.walks.subjects):
        mine = [i for i, who in enumerate(task.walks.subjects) if who == subject]
        assert sorted(control.classes[mine]) == sorted(task.classes[mine])
    assert (control.classes != task.classes).any()
    assert len(folds) == 1


def test_one_sided_joints_are_not_mirrored(tmp_path: Path):
    mirrored = {}
    for planted in (("left_wrist",), ("left_wrist", "right_wrist")):
        config = tiny(tmp_path, planted=planted)
        task = load_task(config, progress=False)
        people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
        mirrored[planted] = Trainer(config, task, Fold(tmp_path, "t", balanced_split(people, 0), 0), Processes(0, 1)).mirror
    assert mirrored == {("left_wrist",): False, ("left_wrist", "right_wrist"): True}


def test_evaluate_and_predict_a_run(run: Path, tmp_path: Path, capsys):
    from fastst.data.formats.walks_npz import write_walks_npz
    from fastst.data.synthetic import synthetic_walks

    file = tmp_path / "walks.npz"
    write_walks_npz(file, synthetic_walks(6, 2, seed=5))
    evaluate(["--run", str(run), "--data", str(file), "--other-people", "--out", str(tmp_path / "metrics.json")])
    said = capsys.readouterr().out
    assert "12 walks of 6 people it was not trained on:\nmacro F1" in said
    assert "per person: macro F1" in said
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (len(metrics["predictions"]), len(metrics["persons"])) == (12, 6)
    predict(["--run", str(run), "--data", str(file), "--out", str(tmp_path / "predictions.json")])
    assert "probability" in capsys.readouterr().out
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert len(rows) == 12
    assert {row["predicted"] for row in rows} <= {"female", "male"}
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probabilities"][row["predicted"]] == max(row["probabilities"].values())
        shares = [edge["kept_share"] for edge in row["edges"]]
        assert shares == sorted(shares, reverse=True)
        assert all(0 < share <= 1 for share in shares)


def test_planted_joints_are_where_the_classes_differ(tmp_path: Path):
    task = load_task(tiny(tmp_path, people=40, planted=("left_wrist",)))
    heights = np.array([poses[:, 9, 1].mean() - poses[:, 7, 1].mean() for poses in task.walks.poses])
    others = np.array([poses[:, 10, 1].mean() - poses[:, 8, 1].mean() for poses in task.walks.poses])

    def effect(values: np.ndarray) -> float:
        first, second = (values[task.classes == c] for c in (0, 1))
        return abs(first.mean() - second.mean()) / values.std()

    assert effect(heights) > 3 * effect(others)


LONG_WALK = """
import torch
from fastst.cpu.memory import peak_memory
from fastst.data.prepare import prepare
from fastst.data.synthetic import synthetic_walks
from fastst import LAYOUTS
from fastst.nn import GraphClassifier
walks, _ = prepare(synthetic_walks(2, 1, frames=3000), LAYOUTS["coco18"], 2)
poses = torch.from_numpy(walks.poses[0])[None]
assert poses.shape == (1, 3000, 18, 2)
model = GraphClassifier("coco18", 2, attention="factorized")
optimizer = torch.optim.AdamW(model.parameters())
torch.nn.functional.cross_entropy(model(poses).logits, torch.tensor([1])).backward()
optimizer.step()
print(peak_memory() / 2**30)
"""


def test_a_walk_of_3000_frames_trains_in_under_4_gib():
    """The dense adjacency alone would be 11.7 GB."""
    done = subprocess.run([sys.executable, "-c", LONG_WALK], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 4


def test_cmu_walks_with_made_up_labels_run_through(tmp_path: Path):
    data = ROOT.parent / "shared" / "data" / "cmu_coco17.csv"
    if not data.exists():
        pytest.skip("the recorded walks are not part of the repository")
    labels = tmp_path / "labels.csv"
    labels.write_text("subject,label\n002,a\n008,b\n012,a\n")
    result = train(tiny(tmp_path / "run", data=str(data), labels=str(labels), epochs=1), EXPLAINED)
    assert result["people"] == 1
    assert result["train_people"] == 2
