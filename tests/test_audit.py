"""The audit of whole runs: what stands in their summaries, what the command says, and what happens where something is missing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from audited import tiny

from fastst.audit import main as audit_command
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks
from fastst.errors import UserError
from fastst.explanation import report
from fastst.explanation.audit import ARMS
from fastst.explanation.report import EXPLAINED
from fastst.layouts import LAYOUTS
from fastst.predict import main as predict
from fastst.runs.training import train

OF_AN_AUDIT = {*ARMS, "fidelity_plus", "fidelity_minus", "est", "mask_probe", "deletion", "insertion", "permuted"}
OF_AN_AUDIT |= {"calibration", "agreement", "information", "verdict"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "run"
    train(tiny(out, planted=("left_knee", "right_knee"), permuted=True, seeds=2), EXPLAINED)
    return out


def read(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_a_summary_has_the_audit_and_the_truth(planted: Path):
    summary = read(planted)
    assert set(summary["audit"]) >= OF_AN_AUDIT
    for arm in ARMS:
        assert set(summary["audit"][arm]) == {"balanced_accuracy", "macro_f1"}
    assert summary["audit"]["kept"]["macro_f1"] == pytest.approx(summary["macro_f1"])
    assert summary["audit"]["kept_share"] == pytest.approx(summary["kept_share"])
    assert summary["audit"]["est"] is None
    assert "2601.20815" in summary["audit"]["est_reason"]
    for kind in ("out", "in", "touch"):
        assert set(summary["truth"]["edges"][kind]) >= {"roc_auc", "average_precision", "precision_5", "r_precision"}
    assert summary["truth"]["joints"] == ["left_knee", "right_knee"]
    assert summary["truth"]["frames"] is None


@pytest.mark.parametrize("kind", ["timing", "relation", "episode"])
def test_every_kind_of_planting_is_scored(kind: str, tmp_path: Path):
    planted = ("left_elbow", "left_wrist", "right_elbow", "right_wrist")
    truth = train(tiny(tmp_path / "run", planted=planted, planted_kind=kind, epochs=1), EXPLAINED)["truth"]
    assert truth["kind"] == kind
    assert 0 <= truth["edges"]["within"]["roc_auc"] <= 1
    assert (truth["frames"] is None) == (kind != "episode")
    pairs = [["left_elbow", "left_wrist"], ["right_elbow", "right_wrist"]]
    assert sorted(truth["pairs"]) == (sorted(pairs + [pair[::-1] for pair in pairs]) if kind == "relation" else [])


def test_without_an_edge_the_audit_finds_the_constant_guess(planted: Path):
    assert read(planted)["audit"]["no_edges"]["balanced_accuracy"] == 0.5


def test_seeds_are_compared_and_the_control_stands_beside(planted: Path):
    found = read(planted)["audit"]
    assert found["agreement"]["of"] == "seeds"
    assert found["agreement"]["models"] == 2
    assert -1 <= found["agreement"]["edges"] <= 1
    assert (planted / "seed-2" / "model.safetensors").exists()
    assert found["permuted"]["verdict"]["sentence"]
    assert "roc_auc" in found["permuted"]["truth"]["edges"]["out"]
    assert (planted / "permuted" / "summary.json").exists()


def test_folds_are_put_together(tmp_path: Path):
    result = train(tiny(tmp_path / "run", folds=2, epochs=1), EXPLAINED)
    found = result["audit"]
    parts = [fold["audit"] for fold in result["folds"]]
    assert found["kept"]["macro_f1"] == pytest.approx(sum(part["kept"]["macro_f1"] for part in parts) / 2)
    assert len(found["people"]) == sum(len(part["people"]) for part in parts) == 16
    assert found["agreement"]["of"] == "folds"
    assert found["slots"][3]["from"] == parts[0]["slots"][3]["from"]
    assert found["slots"][3]["probability"] == pytest.approx(sum(part["slots"][3]["probability"] for part in parts) / 2)


def test_a_fold_whose_audit_fails_takes_nothing_else_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = report.audit

    def fails_once(finished, *rest):
        if finished.fold.name.startswith("fold 1"):
            raise RuntimeError("out of luck")
        return whole(finished, *rest)

    monkeypatch.setattr(report, "audit", fails_once)
    result = train(tiny(tmp_path / "run", folds=2, epochs=1), EXPLAINED)
    assert "RuntimeError: out of luck" in result["folds"][0]["audit"]["error"]
    assert result["audit"]["failed_folds"] == 1
    assert result["audit"]["kept"] == result["folds"][1]["audit"]["kept"]
    assert 0 <= result["macro_f1"] <= 1


@pytest.mark.parametrize("graph", ["fixed", "random"])
def test_a_graph_that_is_not_learned_explains_nothing(graph: str, tmp_path: Path):
    found = train(tiny(tmp_path / "run", graph=graph), EXPLAINED)["audit"]
    assert found["verdict"]["code"] == "not_learned"
    assert found["mask_probe"] is None


def test_five_test_walks_are_too_few_to_say(tmp_path: Path):
    found = train(tiny(tmp_path / "run", people=5, walks_per_person=2), EXPLAINED)["audit"]
    assert found["verdict"]["code"] == "too_few_people"


def test_the_command_says_what_the_run_said(planted: Path, tmp_path: Path, capsys):
    audit_command(["--run", str(planted), "--out", str(tmp_path / "audit.json")])
    said = capsys.readouterr().out
    assert read(planted)["audit"]["verdict"]["sentence"] in said
    again = json.loads((tmp_path / "audit.json").read_text())
    assert again["audit"]["kept"] == read(planted)["audit"]["kept"]
    assert again["truth"] == read(planted)["truth"]


def test_the_command_looks_at_other_walks(planted: Path, tmp_path: Path, capsys):
    write_walks_npz(tmp_path / "walks.npz", synthetic_walks(12, 1, seed=9))
    audit_command(["--run", str(planted), "--data", str(tmp_path / "walks.npz")])
    captured = capsys.readouterr()
    assert "12 walks of 12 people" in captured.out
    assert "balanced accuracy with the kept edges" in captured.out
    assert "of these 12 people had a part in the model, by name or by one of their walks" in captured.err


def test_kept_shares_of_joints_are_those_of_the_walks_tested_on(planted: Path):
    found = read(planted)["audit"]["kept_of_joints"]
    assert found["people"] == len({person["subject"] for person in read(planted)["audit"]["people"]})
    assert set(found["joints"]) == set(LAYOUTS["coco18"].joints)
    for sides in found["joints"].values():
        for mean, low, high in sides.values():
            assert 0 <= low <= mean <= high <= 1


@pytest.fixture(scope="module")
def in_3d(tmp_path_factory) -> Path:
    """A run on walks in 3D, whose names are no names of files."""
    folder = tmp_path_factory.mktemp("3d")
    walks = synthetic_walks(12, 1, seed=3, frames=30)
    walks.poses = [np.concatenate([np.zeros((30, 17, 1), np.float32), poses], axis=2) for poses in walks.poses]
    walks.names = [f"../步行 {number}\n" for number in range(12)]
    write_walks_npz(folder / "walks.npz", walks)
    train(tiny(folder / "run", data=str(folder / "walks.npz"), epochs=1), EXPLAINED)
    return folder / "run"


def test_any_walk_is_drawn_from_any_side(in_3d: Path, tmp_path: Path, capsys):
    for view in ([], ["--azimuth", "0"], ["--azimuth", "0", "--elevation", "30"]):
        file = tmp_path / f"{len(view)}.png"
        audit_command(["--run", str(in_3d), "--walk", "../步行 5\n", "--frames", "10:20", *view, "--out", str(file)])
        assert f"the picture is in {file}" in capsys.readouterr().out
    pictures = {file.read_bytes() for file in tmp_path.glob("*.png")}
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_a_picture_of_a_walk_is_left_in_the_folder_of_the_run(planted: Path, capsys):
    name = synthetic_walks(16, 2, seed=0).names[0]
    audit_command(["--run", str(planted), "--walk", name])
    assert (planted / f"walk_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "balanced accuracy" not in capsys.readouterr().out


def test_a_picture_of_the_run_itself_is_not_drawn_over(planted: Path, tmp_path: Path):
    before = {path.name: path.read_bytes() for path in planted.glob("*.png")}
    name = synthetic_walks(16, 2, seed=0).names[0]
    for walk, out in (
        ("with_kept_edges", []),
        *((name, ["--out", str(planted / picture)]) for picture in before if not picture.startswith("walk_0")),
    ):
        with pytest.raises(UserError, match="is a file of the run itself, which would be lost; give another name"):
            audit_command(["--run", str(planted), "--walk", walk, *out])
    (planted / "walk_mine.png").write_text("mine")
    with pytest.raises(UserError, match=r"walk_mine\.png is there already, and not a file that fastst wrote"):
        audit_command(["--run", str(planted), "--walk", "mine"])
    (planted / "walk_mine.png").unlink()
    assert {path.name: path.read_bytes() for path in planted.glob("*.png")} == before
    with pytest.raises(UserError, match=r"none holds no run|none.*doesn't exist"):
        audit_command(["--run", str(tmp_path / "none"), "--walk", name])


def test_the_name_of_a_walk_becomes_that_of_a_file_in_the_folder(in_3d: Path):
    before = set(in_3d.parent.iterdir())
    audit_command(["--run", str(in_3d), "--walk", "../步行 7\n"])
    assert (in_3d / "walk_.._步行_7_U_000A_.png").exists()
    assert set(in_3d.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out numbers.csv", "--out numbers.csv is of no kind that numbers can be written as; name a file that ends in .json"),
        ("--walk 001-nm-01-00", "none of the 32 walks is called so; there are 001-nm-01-000"),
        ("--walk NAME --frames 3", "--frames 3 must be the first frame and the one after the last, such as 10:70"),
        ("--walk NAME --frames 10:10", "are not frames of this walk: it has the frames 0:"),
        ("--walk NAME --frames 0:9999", "are not frames of this walk: it has the frames 0:"),
        ("--walk NAME --azimuth 0", "in 2D, which are drawn as in the image; leave --azimuth and --elevation out"),
        ("--walk NAME --azimuth nan", "--azimuth must be a number of degrees, got nan"),
        ("--walk NAME --baselines", "leave --baselines out"),
        ("--walk NAME --out walk.json", "name a file that ends in .png"),
        ("--frames 1:2", "name the walk with --walk"),
        ("--elevation 0", "name the walk with --walk"),
    ],
)
def test_pictures_that_cant_be_drawn(planted: Path, options: str, words: str):
    name = synthetic_walks(16, 2, seed=0).names[0]
    with pytest.raises(UserError, match=re.escape(words)):
        audit_command(["--run", str(planted), *options.replace("NAME", name).split()])


def test_a_run_without_its_split_is_named(planted: Path, tmp_path: Path):
    old = tmp_path / "old"
    shutil.copytree(planted, old)
    (old / "split.json").unlink()
    with pytest.raises(UserError, match=r"has no split.json.*bring it back, or train it again"):
        audit_command(["--run", str(old)])


def test_baselines_need_something_planted(tmp_path: Path):
    train(tiny(tmp_path / "run", epochs=1), EXPLAINED)
    with pytest.raises(UserError, match="were not made with --planted"):
        audit_command(["--run", str(tmp_path / "run"), "--baselines"])


def test_baselines_are_scored_on_a_model_of_the_whole_graph(planted: Path, tmp_path: Path):
    audit_command(["--run", str(planted), "--baselines", "--out", str(tmp_path / "audit.json")])
    scores = json.loads((tmp_path / "audit.json").read_text())["baselines"]
    assert set(scores) == {"random", "edge gradient", "gradient x input", "integrated gradients", "GNNExplainer"}
    assert scores["random"]["roc_auc"] == pytest.approx(0.5, abs=0.05)
    assert (planted / "fixed" / "model.safetensors").exists()


def test_every_edge_is_written_once(planted: Path, tmp_path: Path):
    walks = synthetic_walks(2, 1, seed=3, frames=37)
    write_walks_npz(tmp_path / "walks.npz", walks)
    tables = []
    for ending, read_table in ((".csv", pyarrow.csv.read_csv), (".parquet", pyarrow.parquet.read_table)):
        file = tmp_path / f"edges{ending}"
        predict(["--run", str(planted), "--data", str(tmp_path / "walks.npz"), "--edges", str(file)])
        tables.append(read_table(file).to_pylist())
    assert [row["from"] for row in tables[0]] == [row["from"] for row in tables[1]]
    assert set(tables[0][0]) == {"walk", "frame", "from", "to", "offset", "probability", "kept"}
    keys = [(row["walk"], row["frame"], row["from"], row["to"], row["offset"]) for row in tables[1]]
    assert len(set(keys)) == len(keys)
    assert {row["frame"] for row in tables[1]} == set(range(37))
    in_frame = [row for row in tables[1] if row["offset"] == 0 and row["walk"] == walks.names[0]]
    assert len(in_frame) == 36 * 37  # both directions of 18 bones, in every frame
    assert all(0 <= row["probability"] <= 1 for row in tables[1])
    with pytest.raises(UserError, match=r"ends in \.csv or \.parquet"):
        predict(["--run", str(planted), "--data", str(tmp_path / "walks.npz"), "--edges", str(tmp_path / "edges.txt")])


def test_the_mean_of_audits_is_that_of_their_numbers():
    merged = report.mean_of([{"a": 1, "b": [1, 2], "c": None, "d": "x", "e": True}, {"a": 3, "b": [3, 4], "c": 5, "d": "y", "e": False}])
    assert merged == {"a": 2, "b": [2, 3], "c": 5, "d": "x", "e": True}


def test_walks_that_have_changed_are_not_audited(tmp_path: Path):
    write_walks_npz(tmp_path / "walks.npz", synthetic_walks(12, 2, seed=3, frames=20))
    train(tiny(tmp_path / "run", data=str(tmp_path / "walks.npz"), epochs=1), EXPLAINED)
    audit_command(["--run", str(tmp_path / "run")])
    write_walks_npz(tmp_path / "walks.npz", synthetic_walks(12, 2, seed=4, frames=20))
    with pytest.raises(UserError, match=r"the walks in .*walks\.npz have changed since the model was trained on them"):
        audit_command(["--run", str(tmp_path / "run")])


def test_a_control_is_no_model_to_test(planted: Path, tmp_path: Path):
    write_walks_npz(tmp_path / "walks.npz", synthetic_walks(2, 1, seed=3, frames=37))
    for command, words in ((audit_command, []), (predict, ["--data", str(tmp_path / "walks.npz"), "--out", str(tmp_path / "said.json")])):
        with pytest.raises(UserError, match="is a control with classes dealt out anew"):
            command(["--run", str(planted / "permuted"), *words])


def test_a_picture_of_a_new_walk_takes_no_labels(planted: Path, tmp_path: Path, capsys):
    walks = synthetic_walks(2, 1, seed=9)
    walks.attributes = {}
    write_walks_npz(tmp_path / "new.npz", walks)
    asked = ["--run", str(planted), "--data", str(tmp_path / "new.npz")]
    audit_command([*asked, "--walk", walks.names[1], "--frames", "0:6", "--out", str(tmp_path / "new.png")])
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")
    assert "the picture is in" in capsys.readouterr().out
    with pytest.raises(UserError, match="needs no classes; leave --labels out"):
        audit_command([*asked, "--walk", walks.names[1], "--labels", "labels.csv"])
    with pytest.raises(UserError, match="label"):
        audit_command(asked)


def test_new_walks_are_audited_where_the_run_s_own_are_gone(tmp_path: Path):
    write_walks_npz(tmp_path / "walks.npz", synthetic_walks(12, 2, seed=3, frames=20))
    train(tiny(tmp_path / "run", data=str(tmp_path / "walks.npz"), epochs=1), EXPLAINED)
    (tmp_path / "walks.npz").rename(tmp_path / "moved.npz")
    audit_command(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "moved.npz"), "--out", str(tmp_path / "said.json")])
    assert json.loads((tmp_path / "said.json").read_text())["audit"]["people"]
