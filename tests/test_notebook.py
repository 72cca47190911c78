"""A notebook's few lines: load, train, load the run again, predict, explain."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastst
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks
from fastst.errors import UserError

TINY = {"people": 12, "walks_per_person": 2, "frames": 12, "hidden": 8, "heads": 2, "layers": 2, "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rows = []
    out = tmp_path_factory.mktemp("notebook") / "run"
    made = fastst.fit("synthetic", str(out), planted=["left_knee", "right_knee"], on_epoch=rows.append, **TINY)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 for row in rows)
    return made


def test_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture):
    fastst.fit("synthetic", tmp_path / "run", **{**TINY, "epochs": 1})
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_run_has_its_scores_and_is_loaded_again(run):
    again = fastst.load_run(str(run.folder))
    assert again.summary == run.summary
    assert 0 <= run.summary["macro_f1"] <= 1
    assert run.summary["truth"]["joints"] == ["left_knee", "right_knee"]
    assert (run.folder / "audit.png").exists()
    assert not again.model.training or again.model.graph.num_joints == 18


def test_predictions_and_explanations_of_new_walks(run, tmp_path: Path):
    walks = synthetic_walks(3, 1, seed=5, frames=30)
    write_walks_npz(tmp_path / "walks.npz", walks)
    rows = run.predict(str(tmp_path / "walks.npz"))
    assert [row["walk"] for row in rows] == walks.names
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-6 for row in rows)
    assert run.predict(fastst.load_walks(tmp_path / "walks.npz")) == rows
    told = run.explain(walks)
    assert told.verdict == run.summary["audit"]["verdict"]["sentence"]
    assert set(told.edges.column_names) == {"walk", "frame", "from", "to", "offset", "probability", "kept"}
    kept = np.array(told.edges["kept"])
    assert kept.mean() == pytest.approx(np.mean([row["kept_share"] for row in rows]), abs=0.05)
    assert run.explain().edges is None


def test_walks_of_ones_own_and_a_model_to_start_from(run, tmp_path: Path):
    walks, first = synthetic_walks(12, 2, seed=5, frames=20), json.loads((run.folder / "split.json").read_text())
    run = fastst.fit(walks, tmp_path / "runs" / "mine", init=run.folder, **{**TINY, "epochs": 1})
    assert run.summary["classes"] == sorted(set(walks.attributes["label"]))
    split = json.loads((run.folder / "split.json").read_text())
    assert split["initial"] == first["train"]
    assert run.summary["known_to_init"] == len(set(split["test"]) & set(first["train"]))
    assert (tmp_path / "runs" / "mine.walks.npz").exists()
    with pytest.raises(UserError, match=r"mine\.walks\.npz exists: the walks of another run"):
        fastst.fit(walks, tmp_path / "runs" / "mine")


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(UserError, match="--target shoe"):
        fastst.fit(synthetic_walks(12, 2, seed=5, frames=20), tmp_path / "mine", target="shoe", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_only_for_comparison_has_no_audit(tmp_path: Path):
    fastst.fit("synthetic", tmp_path / "run", seeds=2, **{**TINY, "epochs": 1})
    with pytest.raises(UserError, match="has no audit: it was trained for comparison only"):
        fastst.load_run(tmp_path / "run" / "seed-2").explain()


def test_folds_are_runs_of_their_own(tmp_path: Path):
    run = fastst.fit("synthetic", tmp_path / "run", folds=2, **{**TINY, "epochs": 1})
    assert len(run.summary["folds"]) == 2
    assert run.explain().verdict
    walks = synthetic_walks(2, 1, frames=20)
    with pytest.raises(UserError, match=r"it has folds: name one of them"):
        run.graphs(walks)
    each = [fastst.load_run(tmp_path / "run" / f"fold-{i}").predict(walks) for i in (1, 2)]
    for mean, one, two in zip(run.predict(walks), *each, strict=True):
        assert mean["probabilities"]["male"] == pytest.approx((one["probabilities"]["male"] + two["probabilities"]["male"]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, r"there is no option 'epoch'; the options are .*epochs"),
        ({"resume": True}, "there is no option 'resume'"),
        ({"recipe": "mine"}, "recipe must be one of"),
        ({"learning_rate": -1.0}, "--learning-rate must be above 0"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        fastst.fit("synthetic", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run(tmp_path: Path):
    with pytest.raises(UserError, match="holds no finished run"):
        fastst.load_run(tmp_path)


def test_importing_fastst_brings_in_no_command():
    code = "import sys, fastst; fastst.SkeletonGraph; print(*[m for m in sys.modules if m.startswith('fastst.')])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(modules) == {
        "fastst.edge_order",
        "fastst.errors",
        "fastst.files",
        "fastst.graph",
        "fastst.graph_index",
        "fastst.interrupts",
        "fastst.layouts",
    }


def test_a_run_is_tested_on_walks_with_classes(run, tmp_path: Path):
    walks = synthetic_walks(14, 2, seed=5, frames=20)
    (tmp_path / "labels.csv").write_text("subject,label\n" + "".join(f"{i:03d},{('female', 'male')[i % 2]}\n" for i in range(1, 15)))
    found = run.evaluate(walks, labels=tmp_path / "labels.csv", by=["view"])
    split = json.loads((run.folder / "split.json").read_text())
    assert (found["on"], found["trained_on"]["people"]) == ("people it was not trained on", len(split["train"]))
    assert found["people"] == 14 - len(split["train"])
    assert sum(row["walks"] for row in found["by"]["view"]) == found["walks"]
    assert run.evaluate(walks, other_people=True)["people"] == 14
