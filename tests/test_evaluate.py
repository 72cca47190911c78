"""A run that is tested again: whom it may be tested on, what stands beside its score, and what lands in the files."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastst.config import TrainConfig
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.read import read_walks
from fastst.data.synthetic import synthetic_walks
from fastst.data.walks import WalkSet
from fastst.errors import UserError
from fastst.evaluate import main as evaluate
from fastst.predict import main as predict
from fastst.runs.lock import LOCK
from fastst.runs.outcomes import read_outcomes
from fastst.runs.tables import check_not_needed
from fastst.runs.training import train

SIZES = {"frames": 8, "hidden": 4, "heads": 2, "layers": 1, "encoder_layers": 0, "epochs": 1}


def people(walks: WalkSet, wanted: list[str]) -> WalkSet:
    rows = [i for i, subject in enumerate(walks.subjects) if subject in wanted]
    attributes = {name: [values[i] for i in rows] for name, values in walks.attributes.items()}
    return WalkSet(walks.layout, [walks.names[i] for i in rows], [walks.subjects[i] for i in rows], [walks.poses[i] for i in rows], attributes)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`walks.npz` of 24 people, `single` and `folds`, runs on them, and `others.npz` of 4 people who are in neither."""
    folder = tmp_path_factory.mktemp("evaluate")
    everybody = synthetic_walks(28, 2, seed=1, frames=10)
    names = sorted(set(everybody.subjects))
    write_walks_npz(folder / "walks.npz", people(everybody, names[:24]))
    write_walks_npz(folder / "others.npz", people(everybody, names[24:]))
    for name, options in (("single", {"validation": 0.2}), ("folds", {"folds": 2})):
        config = TrainConfig(data=str(folder / "walks.npz"), out=folder / name, **SIZES, **options)
        train(config, quiet=True)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def results(run: Path, data: Path, out: Path, *more: str) -> dict:
    evaluate(["--run", str(run), "--data", str(data), "--out", str(out), *more])
    return read(out)


def test_the_score_of_the_unseen_is_that_of_the_run_and_the_seen_are_apart(made: Path, tmp_path: Path, capsys):
    found, summary = results(made / "single", made / "walks.npz", tmp_path / "all.json"), read(made / "single" / "summary.json")
    said = capsys.readouterr().out
    split = read(made / "single" / "split.json")
    for name in ("balanced_accuracy", "macro_f1", "per_person", "intervals", "p_value", "walks", "people", "mad", "kept_share"):
        assert found[name] == summary[name], name
    assert found["on"] == "people it was not trained on"
    assert found["people"] == len(split["test"])
    assert found["trained_on"]["people"] == len(split["train"]) + len(split["validation"])
    assert {row["subject"] for row in found["predictions"] if not row["trained_on"]} == set(split["test"])
    assert found["baselines"] == summary["baselines"]
    assert {row["subject"] for row in found["persons"] if not row["trained_on"]} == set(split["test"])
    assert len(re.findall(r"│ no +│\n", said)) == 3 * len(split["test"])  # two walks and a person each
    assert f"{2 * len(split['test'])} walks of {len(split['test'])} people it was not trained on:\nmacro F1" in said
    assert f"apart from that, {48 - 2 * len(split['test'])} walks of" in said


@pytest.mark.parametrize("run", ["single", "folds", "folds/fold-1"])
def test_a_summary_has_the_checksum_of_the_predictions(made: Path, run: str):
    read_outcomes(made / run / "predictions.csv", read(made / run / "summary.json")["predictions_sha256"])


def test_predictions_of_a_run_are_written_and_evaluated_the_same(made: Path, tmp_path: Path):
    results(made / "single", made / "walks.npz", tmp_path / "all.json")
    evaluate(["--run", str(made / "single"), "--data", str(made / "walks.npz"), "--out", str(tmp_path / "all.csv")])
    written, again = read_outcomes(made / "single" / "predictions.csv"), read_outcomes(tmp_path / "all.csv")
    lines = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "fold,walk,subject,class,predicted,probability_female,probability_male,trained_on"
    assert len(again) == 48
    unseen = again.chosen([i for i, line in enumerate(lines[1:]) if line.endswith(",no")])
    assert (unseen.walks, unseen.subjects) == (written.walks, written.subjects)
    np.testing.assert_allclose(unseen.probabilities, written.probabilities, atol=1e-6)


def test_where_nobody_is_unseen_it_says_so(made: Path, tmp_path: Path, capsys):
    trained = read(made / "single" / "split.json")["train"]
    walks = people(synthetic_walks(28, 2, seed=1, frames=10), trained)
    write_walks_npz(tmp_path / "seen.npz", walks)
    found = results(made / "single", tmp_path / "seen.npz", tmp_path / "seen.json")
    said = capsys.readouterr().out
    assert (found["on"], found["trained_on"]) == ("people it was trained on", None)
    assert f"all {len(trained)} people had a part in the training: these are numbers on people it was trained on" in said
    assert "not trained on" not in said
    write_walks_npz(tmp_path / "others.npz", people(synthetic_walks(28, 2, seed=2, frames=10), trained))
    assert results(made / "single", tmp_path / "others.npz", tmp_path / "others.json")["on"] == "people it was trained on"
    others = results(made / "single", tmp_path / "others.npz", tmp_path / "others.json", "--other-people")
    assert (others["on"], others["people"]) == ("people it was not trained on", len(trained))


def test_people_are_known_by_their_walks_under_other_names(made: Path, tmp_path: Path):
    """Another table may call them otherwise; and who is judged by no fold that knows the name may be known to all of them."""
    walks = people(synthetic_walks(28, 2, seed=1, frames=10), read(made / "single" / "split.json")["train"])
    renamed = dataclasses.replace(walks, subjects=[f"P{who}" for who in walks.subjects])
    write_walks_npz(tmp_path / "renamed.npz", renamed)
    for more in ([], ["--other-people"]):
        found = results(made / "single", tmp_path / "renamed.npz", tmp_path / "renamed.json", *more)
        assert (found["on"], found["people"]) == ("people it was trained on", len(set(renamed.subjects)))
    by_name = results(made / "folds", made / "walks.npz", tmp_path / "folds.json")
    everybody = people(synthetic_walks(28, 2, seed=1, frames=10), [row["subject"] for row in by_name["persons"]])
    write_walks_npz(tmp_path / "all.npz", dataclasses.replace(everybody, subjects=[f"P{who}" for who in everybody.subjects]))
    by_walk = results(made / "folds", tmp_path / "all.npz", tmp_path / "all.json")
    assert [row["fold"] for row in by_walk["predictions"]] == [row["fold"] for row in by_name["predictions"]]


def test_zeros_before_a_number_make_no_other_person(made: Path, tmp_path: Path):
    trained = read(made / "single" / "split.json")["train"]
    walks = people(synthetic_walks(28, 2, seed=1, frames=10), trained)
    write_walks_npz(
        tmp_path / "seen.npz", WalkSet(walks.layout, walks.names, [str(int(who)) for who in walks.subjects], walks.poses, walks.attributes)
    )
    assert results(made / "single", tmp_path / "seen.npz", tmp_path / "seen.json")["on"] == "people it was trained on"


def test_whom_a_run_was_trained_on_has_to_be_known(made: Path, tmp_path: Path):
    run = Path(shutil.copytree(made / "single", tmp_path / "run"))
    (run / "split.json").unlink()
    (run / "walks_seen.json").unlink()
    with pytest.raises(UserError, match=r"has no split\.json, which says whom it was trained on; bring it back.*--other-people"):
        results(run, made / "walks.npz", tmp_path / "all.json")
    assert results(run, made / "walks.npz", tmp_path / "all.json", "--other-people")["people"] == 24
    (run / "split.json").write_text('["a"]')
    with pytest.raises(UserError, match="is not the split of a run: expected lists of people under train"):
        results(run, made / "walks.npz", tmp_path / "all.json")


def test_folds_are_merged_and_everybody_is_out_of_fold(made: Path):
    merged, summary = read_outcomes(made / "folds" / "predictions.csv"), read(made / "folds" / "summary.json")
    assert len(merged) == 48
    for number in (1, 2):
        split = read(made / "folds" / f"fold-{number}" / "split.json")
        assert {subject for subject, fold in zip(merged.subjects, merged.folds, strict=True) if fold == str(number)} == set(split["test"])
    right = merged.predicted == merged.classes
    recall = [right[merged.classes == c].mean() for c in (0, 1)]
    assert summary["balanced_accuracy"] == pytest.approx(np.mean(recall))
    low, high = summary["intervals"]["balanced_accuracy"]
    assert low <= summary["balanced_accuracy"] <= high
    assert 0 < summary["p_value"] <= 1
    assert summary["baselines"]["constant"]["balanced_accuracy"] == 0.5
    for name in ("balanced_accuracy", "macro_f1", "mad", "kept_share"):
        of_folds = [fold[name] for fold in summary["folds"]]
        assert summary["mean_of_folds"][name] == pytest.approx(np.mean(of_folds))
        assert summary["mean_of_folds"]["std"][name] == pytest.approx(np.std(of_folds))
    assert summary["kept_share"] == summary["mean_of_folds"]["kept_share"]
    assert "out_of_fold" not in summary


def test_a_run_with_folds_goes_on_to_the_same_table(made: Path, tmp_path: Path):
    run = Path(shutil.copytree(made / "folds", tmp_path / "run"))
    for name in ("summary.json", "predictions.csv", "fold-2/summary.json", "fold-2/predictions.csv"):
        (run / name).unlink()
    train(TrainConfig.from_json((run / "config.json").read_text(), run), quiet=True)
    assert (run / "predictions.csv").read_bytes() == (made / "folds" / "predictions.csv").read_bytes()
    again, before = (read(folder / "summary.json") for folder in (run, made / "folds"))
    for name in ("balanced_accuracy", "intervals", "p_value", "baselines", "mean_of_folds"):
        assert again[name] == before[name], name


def test_a_run_with_folds_judges_by_the_folds_that_were_not_trained_on_a_person(made: Path, tmp_path: Path, capsys):
    found = results(made / "folds", made / "walks.npz", tmp_path / "all.json")
    assert (found["on"], found["people"], found["trained_on"]) == ("people it was not trained on", 24, None)
    assert "the run has 2 folds: every walk was judged by the folds that were not trained on its person" in capsys.readouterr().out
    merged = read_outcomes(made / "folds" / "predictions.csv")
    by_walk = dict(zip(merged.walks, zip(merged.folds, merged.probabilities.tolist(), strict=True), strict=True))
    for row in found["predictions"]:
        fold, probabilities = by_walk[row["walk"]]
        assert row["fold"] == fold
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-6)


def test_new_people_are_judged_by_the_mean_of_all_folds(made: Path, tmp_path: Path, capsys):
    found = results(made / "folds", made / "others.npz", tmp_path / "all.json")
    each = [results(made / "folds" / f"fold-{i}", made / "others.npz", tmp_path / f"{i}.json") for i in (1, 2)]
    capsys.readouterr()
    predict(["--run", str(made / "folds"), "--data", str(made / "others.npz"), "--out", str(tmp_path / "said.json")])
    assert "has 2 folds: what follows is the mean of their models' probabilities" in capsys.readouterr().out
    said = read(tmp_path / "said.json")
    for row, one, two, predicted in zip(found["predictions"], each[0]["predictions"], each[1]["predictions"], said, strict=True):
        assert row["fold"] == "1+2"
        mean = [(a + b) / 2 for a, b in zip(one["probabilities"].values(), two["probabilities"].values(), strict=True)]
        np.testing.assert_allclose(list(row["probabilities"].values()), mean, atol=1e-6)
        np.testing.assert_allclose(list(predicted["probabilities"].values()), mean, atol=1e-6)
    assert found["kept_share"] == pytest.approx(np.mean([one["kept_share"] for one in each]))


def test_predict_says_which_walks_had_a_part_under_other_names_too(made: Path, tmp_path: Path, capsys):
    walks, others = (read_walks(made / name, progress=False) for name in ("walks.npz", "others.npz"))
    split = read(made / "single" / "split.json")
    trained_on = [i for i, subject in enumerate(walks.subjects) if subject in split["train"]][:3]
    renamed = dataclasses.replace(walks.take(trained_on), names=["x", "y", "z"], subjects=["new 1", "new 2", "new 3"])
    poses = [*renamed.poses, *others.poses]
    mixed = WalkSet(walks.layout, [*renamed.names, *others.names], [*renamed.subjects, *others.subjects], poses)
    write_walks_npz(tmp_path / "mixed.npz", mixed)
    predict(["--run", str(made / "single"), "--data", str(tmp_path / "mixed.npz")])
    said = capsys.readouterr().err
    assert f"3 of these {3 + len(set(others.subjects))} people had a part in the model" in said
    assert f"3 of these {len(poses)} walks the model was trained on or chosen by" in said
    predict(["--run", str(made / "single"), "--data", str(made / "others.npz")])
    assert "warning" not in capsys.readouterr().err


def test_predictions_as_a_table(made: Path, tmp_path: Path):
    predict(["--run", str(made / "single"), "--data", str(made / "others.npz"), "--out", str(tmp_path / "said.csv")])
    header, *lines = (tmp_path / "said.csv").read_text(encoding="utf-8").splitlines()
    assert header == "fold,walk,subject,class,predicted,probability_female,probability_male,kept_share"
    assert len(lines) == 8
    of_run = (made / "single" / "predictions.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == f"{of_run},kept_share"
    fold, walk, subject, true, predicted, *_ = lines[0].split(",")
    assert (fold, walk.split("-")[0], true) == ("0", subject, "")
    assert predicted in ("female", "male")


def test_what_a_run_writes_is_known_as_its_own(made: Path):
    for folder in (made / "single", made / "folds", made / "folds" / "fold-1"):
        for path in folder.iterdir():
            if path.is_file() and path.name != LOCK:
                with pytest.raises(UserError, match="is a file of the run itself"):
                    check_not_needed(path, option="--out")


@pytest.mark.parametrize("command", [evaluate, predict])
def test_nothing_that_is_needed_is_replaced(made: Path, tmp_path: Path, command):
    before = (made / "single" / "predictions.csv").read_bytes()
    with pytest.raises(UserError, match=r"--out .*predictions\.csv is a file of the run itself, which would be lost; give another name"):
        command(["--run", str(made / "single"), "--data", str(made / "walks.npz"), "--out", str(made / "single" / "predictions.csv")])
    assert (made / "single" / "predictions.csv").read_bytes() == before
    (tmp_path / "poses.csv").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*poses\.csv is what is read, and would be lost"):
        command(["--run", str(made / "single"), "--data", str(tmp_path / "poses.csv"), "--out", str(tmp_path / ".." / tmp_path.name / "poses.csv")])
    assert (tmp_path / "poses.csv").read_text() == "mine"
    link = tmp_path / "link.csv"
    link.symlink_to(made / "single" / "predictions.csv")
    (tmp_path / "said.left_out.json").write_text("mine")
    for out, words in (
        (link, r"--out .*link\.csv is a file of the run itself"),
        (tmp_path / "said.csv", r"said\.left_out\.json is there already, and not a file that fastst wrote"),
        (made / "said.csv", "would lie among the data in"),
    ):
        with pytest.raises(UserError, match=words):
            command(["--run", str(made / "single"), "--data", str(made if out.parent == made else made / "others.npz"), "--out", str(out)])
    assert (made / "single" / "predictions.csv").read_bytes() == before
    assert not (made / "said.csv").exists()


def test_by_attributes(made: Path, tmp_path: Path, capsys):
    found = results(made / "folds", made / "walks.npz", tmp_path / "all.json", "--by", "view, label")
    outcomes = read_outcomes(made / "folds" / "predictions.csv")
    right = outcomes.predicted == outcomes.classes
    rows = {row["label"]: row for row in found["by"]["label"]}
    assert set(rows) == {"female", "male"}
    for number, name in enumerate(("female", "male")):
        assert rows[name]["balanced_accuracy"] == pytest.approx(right[outcomes.classes == number].mean())
        assert rows[name]["walks"] == (outcomes.classes == number).sum()
        assert rows[name]["people"] == rows[name]["walks"] / 2
    views = [row["view"] for row in found["by"]["view"]]
    assert views == sorted(views)
    assert sum(row["walks"] for row in found["by"]["view"]) == 48
    assert any(row["interval"] is None for row in found["by"]["view"])
    assert "too few people" in capsys.readouterr().out
    with pytest.raises(UserError, match="--by shoe: of a walk the data tells condition, label, view; name one of these"):
        results(made / "folds", made / "walks.npz", tmp_path / "all.json", "--by", "shoe")


def test_scores_by_the_sequences_that_names_of_images_tell(made: Path, tmp_path: Path, capsys):
    others = read_walks(made / "others.npz", progress=False)
    header = ",".join(["image_name", *(f"{joint}_{axis}" for joint in others.layout.joints for axis in "xy")])
    rows = [
        ",".join([f"{900 + walk // 2}-nm-{1 + walk % 2:02d}-090/{t:06d}.jpg", *(f"{x:.2f}" for x in frame.ravel())])
        for walk, poses in enumerate(others.poses)
        for t, frame in enumerate(300 + 100 * poses)
    ]
    (tmp_path / "walks.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "labels.csv").write_text("subject,label\n900,female\n901,male\n902,female\n903,male\n")
    found = results(made / "single", tmp_path / "walks.csv", tmp_path / "by.json", "--labels", str(tmp_path / "labels.csv"), "--by", "sequence")
    assert [(row["sequence"], row["walks"], row["people"]) for row in found["by"]["sequence"]] == [("01", 4, 4), ("02", 4, 4)]
    right = [row["class"] == row["predicted"] for row in found["predictions"] if row["walk"].endswith("-nm-01-090")]
    classes = np.array([row["class"] for row in found["predictions"] if row["walk"].endswith("-nm-01-090")])
    shares = [np.mean(np.array(right)[classes == name]) for name in ("female", "male")]
    assert found["by"]["sequence"][0]["balanced_accuracy"] == pytest.approx(np.mean(shares))
    assert "sequence" in capsys.readouterr().out
