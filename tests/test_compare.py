"""Runs side by side, on made-up predictions whose scores are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastst.compare import main as compare_command
from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.runs.comparison import compare
from fastst.runs.folder import write_summary
from fastst.runs.outcomes import PREDICTIONS, Outcomes, read_outcomes, write_outcomes


def made(
    folder: Path, wrong: list[int], people: list[int] | None = None, names: tuple[str, str] = ("a", "b"), walks: int = 2, known: int = 0, **options
) -> Path:
    """A finished run, tested on people 0 to 9, those with an even number of the first class; every walk of the people in `wrong` is told wrongly."""
    folder.mkdir()
    who = np.repeat(range(10) if people is None else people, walks)
    classes = who % 2
    said = np.where(np.isin(who, wrong), 1 - classes, classes)
    texts = ([f"w{i:02d}-{n % walks}" for n, i in enumerate(who)], [f"{i:03d}" for i in who])
    checksum = write_outcomes(folder / PREDICTIONS, Outcomes(list(names), ["0"] * len(who), *texts, classes, np.eye(2)[said]))
    (folder / "config.json").write_text(TrainConfig(**options).to_json())
    write_summary(folder, {"kept_share": 0.17, "known_to_init": known, "predictions_sha256": checksum})
    return folder


def test_scores_options_and_the_paired_test(tmp_path: Path):
    runs = [made(tmp_path / "one", [0, 1, 2, 3, 4, 5]), made(tmp_path / "two", [0], seed=3, layers=2), made(tmp_path / "three", [1, 2, 3, 4, 5, 6])]
    first, second, third = compare(runs)
    assert [row["balanced_accuracy"] for row in (first, second, third)] == pytest.approx([0.4, 0.9, 0.4])
    assert second["macro_f1"] == pytest.approx(np.mean([2 * 4 / (4 + 5), 2 * 5 / (5 + 6)]))
    low, high = second["balanced_accuracy_interval"]
    assert 0.7 <= low < 0.9 < high == 1
    assert (second["walks"], second["people"], second["kept_share"]) == (20, 10, 0.17)
    assert first["options"] == {"--layers": 4, "--seed": 0}
    assert second["options"] == {"--layers": 2, "--seed": 3}
    assert first["against_first"] is None
    # Five people are told rightly by the second alone, nobody by the first alone: 2 of 2**5 flips are as far from 0.
    assert second["against_first"] == {"people": 10, "difference": pytest.approx(0.5), "p_value": 2 / 2**5}
    assert third["against_first"] == {"people": 10, "difference": 0, "p_value": 1}


def test_people_in_both_are_compared_and_counted(tmp_path: Path):
    one, two = made(tmp_path / "one", [1, 2]), made(tmp_path / "two", [], people=[1, 2, 3, 20, 21])
    assert compare([one, two])[1]["against_first"] == {"people": 3, "difference": pytest.approx(3 / 4), "p_value": 0.5}
    assert compare([one, two])[1]["balanced_accuracy_interval"] is None


def test_a_guess_of_the_larger_class_gains_nothing(tmp_path: Path):
    """All four of a class right in place of all two of the other: better in people, and the same in classes."""
    one = made(tmp_path / "one", [1, 3, 5, 7], people=[0, 1, 2, 3, 5, 7])
    two = made(tmp_path / "two", [0, 2], people=[0, 1, 2, 3, 5, 7])
    assert compare([one, two])[1]["against_first"]["difference"] == pytest.approx(0)


def test_a_person_counts_once_however_many_walks(tmp_path: Path):
    one, two = made(tmp_path / "one", [0, 1]), made(tmp_path / "two", [0], walks=9)
    assert compare([one, two])[1]["against_first"]["difference"] == pytest.approx(0.1)


def test_a_fold_is_a_run(tmp_path: Path):
    one, two = made(tmp_path / "one", []), made(tmp_path / "two", [3])
    fold = made(one / "fold-1", [2])
    (fold / "config.json").unlink()
    assert compare([two, fold])[1]["people"] == 10


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"people": [20, 21, 22]}, r"were tested on different people, 10 and 3, of whom none is in both: train one with --split-file"),
        ({"names": ("a", "c")}, r"one tells a, b apart, .*other a, c: they can't be compared"),
    ],
)
def test_what_cant_be_compared(how: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        compare([made(tmp_path / "one", []), made(tmp_path / "other", [], **how)])


def test_a_walk_of_another_class_and_what_is_no_run(tmp_path: Path):
    one, other = made(tmp_path / "one", []), made(tmp_path / "other", [])
    changed = read_outcomes(other / PREDICTIONS)
    changed.classes[changed.walks.index("w00-0")] = 1
    checksum = write_outcomes(other / PREDICTIONS, changed)
    with pytest.raises(UserError, match=r"other.predictions\.csv is damaged, or was changed"):
        compare([one, other])
    write_summary(other, {"kept_share": 0.17, "known_to_init": 0, "predictions_sha256": checksum})
    with pytest.raises(UserError, match=r"the walk w00-0 is of class a in .*one, but of b in .*other"):
        compare([one, other])
    with pytest.raises(UserError, match="a comparison takes two runs or more, got 1"):
        compare([one])
    with pytest.raises(UserError, match=r"nowhere holds no run of fastst\.train"):
        compare([one, tmp_path / "nowhere"])
    (other / PREDICTIONS).unlink()
    with pytest.raises(UserError, match=r"predictions\.csv doesn't exist"):
        compare([one, other])
    (other / "summary.json").unlink()
    with pytest.raises(UserError, match=r"other holds no finished run of fastst\.train"):
        compare([one, other])


def test_the_command_prints_and_writes(tmp_path: Path, capsys):
    runs = [str(made(tmp_path / "one", [0, 1])), str(made(tmp_path / "two", [0], seed=3))]
    compare_command([*runs, "--out", str(tmp_path / "table.csv")])
    said = capsys.readouterr().out
    assert f"{runs[1]} against {runs[0]}: +0.100 in a person's share of right answers, p 1.0000 (10 people tested on in both)" in said
    assert f"{runs[1]}: --seed 3" in said
    header, first, second = (tmp_path / "table.csv").read_text().splitlines()
    assert header == (
        "run,walks,people,balanced_accuracy,balanced_accuracy_low,balanced_accuracy_high,macro_f1,macro_f1_low,macro_f1_high,kept_share,known_to_init,--seed,"
        "people_against_first,difference_against_first,p_value_against_first"
    )
    assert first.endswith(",0.17,0,0,,,")
    assert second.startswith(f"{runs[1]},20,10,")
    compare_command([*runs, "--out", str(tmp_path / "table.json")])
    assert [row["run"] for row in json.loads((tmp_path / "table.json").read_text())] == runs
    with pytest.raises(UserError, match=r"table\.txt is of no kind that can be written; name a file that ends in \.csv or \.json"):
        compare_command(["nowhere", "neither", "--out", str(tmp_path / "table.txt")])
