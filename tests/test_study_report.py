"""What a report makes of runs whose numbers are known: the claims of the paper, its tables and figures, and what is missing."""

import csv
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study import TINY, asked, finish, paper_grid

from fastst.errors import UserError
from fastst.files import WriteError
from fastst.runs.folder import write_summary
from fastst.study.cell import run_cell
from fastst.study.claims import CLAIMS, Claim, Evidence, Table, judge, judged, t_interval
from fastst.study.grid import open_grid
from fastst.study.report import write_report
from fastst.study.results import Setting, agreement, by_setting, deletion_area, finished, variants

LEGS = ("ankle", "knee", "elbow")
HUBS = ("nose", "left_hip", "right_hip")


def as_the_paper_says(cell) -> dict:
    """Numbers that bear out every claim."""
    config, noise = cell.config, 0.002 * cell.config.seed
    if config.graph == "fixed":
        return {"f1": 0.85 + noise, "mad": 0.5 / config.layers, "wrong": 4, "thinned": 0.55}
    if config.graph == "random":
        return {"f1": 0.9 - 0.2 * config.drop + noise, "mad": 0.2, "kept": 1 - config.drop, "wrong": 5}
    legs, hubs = (0.6 if config.hops == 1 else 0.3), 0.1 * config.hops

    def share(joint: str) -> float:
        return legs if any(name in joint for name in LEGS) else hubs if joint in HUBS else 0.2

    return {"f1": 0.92 - noise, "mad": 0.8, "kept": 0.2 + noise, "wrong": 1, "share": share}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "study"
    grid, cells = paper_grid(folder)
    for cell in cells:
        finish(cell, **as_the_paper_says(cell))
    write_report(grid, cells, folder)
    return folder, grid, cells


def test_the_page_says_nothing_of_where_it_was_made(whole):
    folder, grid, cells = whole
    page = write_report(replace(grid, options=grid.options | {"labels": str(folder.parent / "labels.csv")}), cells, folder).read_text()
    assert "labels labels.csv" in page
    assert "Folders of the runs: study/cells" in page
    assert str(folder.parent) not in page


def test_every_claim_is_borne_out_by_such_numbers(whole):
    _, grid, cells = whole
    results = finished(grid, cells)
    rows = judged(Table.of(cells, results))
    assert len(rows) == len(CLAIMS) - 1  # random graphs are at the setting of Table I alone
    for row in rows:
        assert row["verdict"] == "reproduces", row
        assert row["interval"][0] > 0
    better = next(row for row in rows if row["claim"] == "Better than the original graph")
    # 3 of 16 people are told rightly by the learned graph alone: 6 of 32 in each of three seeds, which have other people.
    assert better["people"]["count"] == 48
    assert better["people"]["difference"] == pytest.approx(3 / 16, abs=0.01)
    assert better["difference"] == pytest.approx(np.mean([0.92 - 0.85 - 0.004 * seed for seed in range(3)]))
    assert better["sentence"].startswith("reproduces: +0.066 (95 % interval +0.056 to +0.076 over 3 seeds; +0.188 of a person's answers, ")


def test_every_claim_is_refuted_by_the_opposite(tmp_path: Path):
    """With learned graphs that are as bad as fixed ones are good, and fixed ones that stay apart in deep models."""
    grid, cells = paper_grid(tmp_path / "study")
    for cell in cells:
        config, noise = cell.config, 0.002 * cell.config.seed
        if config.graph == "learned":
            hubs = 0.5 - 0.1 * config.hops
            share = dict.fromkeys(HUBS, hubs)
            finish(cell, 0.5 + noise, 0.1, 0.9, wrong=14, share=lambda joint, share=share: share.get(joint, 0.0 if "ankle" in joint else 0.3))
        else:
            f1 = 0.7 + 0.2 * config.drop if config.graph == "random" else 0.8
            finish(cell, f1, 0.2 + 0.01 * config.layers, 1 - config.drop if config.graph == "random" else 1.0, thinned=0.4, wrong=1)
    for row in judged(Table.of(cells, finished(grid, cells))):
        assert row["verdict"] == "does not reproduce", row


def test_undecided_names_its_seeds(tmp_path: Path):
    grid, cells = paper_grid(tmp_path / "study")
    for cell in cells:
        finish(cell, 0.8 + 0.1 * (cell.config.graph == "learned") * (cell.config.seed - 1), 0.3)
    rows = judged(Table.of(cells, finished(grid, cells)))
    row = next(row for row in rows if row["claim"] == "Better than the original graph")
    assert row["sentence"].startswith("undecided at n = 3: +0.000 (95 % interval -0.248 to +0.248 over 3 seeds")


def test_a_seed_counts_only_when_all_its_runs_are_finished(tmp_path: Path):
    grid, cells = paper_grid(tmp_path / "study")
    for cell in cells:
        if cell.config.seed == 0 and (cell.config.layers, cell.config.hops) != (8, 3):
            finish(cell, **as_the_paper_says(cell))
    rows = {row["tested"]: row for row in judged(Table.of(cells, finished(grid, cells)))}
    assert rows["F1, learned − fixed, at 8 layers and more"]["sentence"] == "undecided at n = 0: no seed of 3 is finished"
    table_one = rows["F1, learned − fixed, 16 layers, 1 hop"]
    assert table_one["sentence"].startswith("undecided at n = 1: +0.070 (over 1 of 3 seeds; ")


def test_claims_that_a_grid_has_no_runs_for_are_left_out(tmp_path: Path):
    grid, cells = paper_grid(tmp_path / "study", "layers=2", "hops=1", "graph=learned")
    for cell in cells:
        finish(cell, **as_the_paper_says(cell))
    assert {row["where"] for row in judged(Table.of(cells, finished(grid, cells)))} == {"Contributions", "Fig. 3"}


def test_both_intervals_decide():
    claim = Claim("", "", "", lambda table: None)
    sure = {0: 0.1, 1: 0.11, 2: 0.12}
    people = {(str(i), i % 2): 0.2 for i in range(8)}
    assert judge(claim, Evidence(sure, 3, people))["verdict"] == "reproduces"
    unsure = {(str(i), i % 2): 0.5 * (-1) ** (i // 2) for i in range(8)}
    assert judge(claim, Evidence(sure, 3, unsure))["verdict"] == "undecided at n = 3"
    assert judge(claim, Evidence(sure, 3, {("a", 0): 0.2, ("b", 1): 0.2}))["people"]["interval"] is None
    below = {seed: -value for seed, value in sure.items()}
    assert judge(claim, Evidence(below, 3))["verdict"] == "does not reproduce"
    on_par = Claim("", "", "", lambda table: None, margin=0.02)
    slightly = {0: -0.010, 1: -0.011, 2: -0.009}
    assert judge(on_par, Evidence(slightly, 3))["verdict"] == "reproduces"
    assert judge(claim, Evidence(slightly, 3))["verdict"] == "does not reproduce"


@pytest.mark.parametrize(("n", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (6, 2.571), (10, 2.262), (12, 2.201), (40, 2.023)])
def test_intervals_of_students_t(n: int, t: float):
    """Against the tables of the distribution."""
    values = np.random.default_rng(n).normal(size=n)
    half = t * values.std(ddof=1) / n**0.5
    assert t_interval(values.tolist()) == pytest.approx([values.mean() - half, values.mean() + half], abs=1e-3)
    assert t_interval([1.0]) is None


def test_the_deletion_area_is_the_mean_height_of_the_curve():
    audit = {"kept": {"macro_f1": 1.0}, "deletion": {"shares": [0.1, 0.25, 0.5, 0.9], "random": {"macro_f1": [0.9, 0.75, 0.5, 0.1]}}}
    assert deletion_area(audit, "random") == pytest.approx((1 + 0.1) / 2)


def test_numbers_of_a_setting(whole):
    _, grid, cells = whole
    settings = by_setting(finished(grid, cells))
    learned = settings[Setting("", "learned", 16, 1)]
    assert [result.numbers()["kept_share"] for result in learned] == pytest.approx([0.2, 0.202, 0.204])
    slots = [[0.1, 0.5, 0.2 + 0.01 * seed] for seed in range(3)]
    expected = np.mean([np.corrcoef(slots[a], slots[b])[0, 1] for a, b in ((0, 1), (0, 2), (1, 2))])
    assert agreement(learned) == pytest.approx(expected)
    assert agreement(settings[Setting("", "fixed", 16, 1)]) is None


def test_the_page_holds_everything_itself(whole):
    folder = whole[0] / "report"
    page = (folder / "index.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,|#)', page)
    assert page.count("data:image/png;base64,") == 5
    assert "Nothing: every run is finished." in page
    assert f"Of {len(CLAIMS) - 3} claims of the paper {len(CLAIMS) - 3} reproduce, 0 do not, 0 are undecided." in page
    assert "0.864 ± 0.044" in page  # the paper's, beside ours
    assert page.count('class="yes"') == len(CLAIMS) - 1
    with (folder / "table_1.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["random 75%", "random 50%", "random 25%", "fixed", "learned"]
    assert float(rows["learned"]["f1"]) == pytest.approx(0.918)
    assert float(rows["learned"]["f1_sd"]) == pytest.approx(0.002)
    assert (rows["random 75%"]["paper_f1"], rows["random 75%"]["paper_mad_sd"]) == ("0.792", "0.154")
    with (folder / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 81
    assert all(row["mad_random"] for row in runs)
    with (folder / "fig_3.csv").open() as file:
        knee = next(row for row in csv.DictReader(file) if row["joint"] == "left_knee" and row["hops"] == "1")
    assert (knee["sends"], knee["receives"]) == ("0.6", "0.6")
    assert {path.name for path in folder.glob("*.png")} == {"fig_2.png", "fig_3.png", "fig_4.png", "fig_5.png", "table_1.png"}


def test_a_half_finished_grid_names_what_is_missing(tmp_path: Path):
    folder = tmp_path / "study"
    grid, cells = paper_grid(folder, "layers=2", "hops=1")
    with pytest.raises(UserError, match=r"no run of the grid in .*study is finished"):
        write_report(grid, cells, folder)
    finish(cells[0])
    (folder / "failed").mkdir()
    (folder / "failed" / f"{cells[1].address}.json").write_text(json.dumps({"error": "<no room>", "traceback": ""}))
    page = write_report(grid, cells, folder).read_text()
    assert f"Missing: {len(cells) - 1} of {len(cells)} runs" in page
    assert "failed: &lt;no room&gt;" in page
    assert all(cell.address in page for cell in cells[1:])


def without(summary: dict, *names: str) -> dict:
    """The summary without the field that the names lead to."""
    first, *rest = names
    kept = {name: value for name, value in summary.items() if name != first}
    return kept | {first: without(summary[first], *rest)} if rest else kept


def test_runs_that_left_something_else_are_named(tmp_path: Path):
    folder = tmp_path / "study"
    grid, cells = paper_grid(folder, "layers=2", "hops=1", "graph=learned", "seed=0,1,2,3,4,5,6,7,8,9")
    good, *bad = cells
    finish(good)
    whole = good.summary()
    spoiled = [
        *(without(whole, *names) for names in (["study"], ["audit", "slots"], ["p_value"], ["study", "thinned", "shares"])),
        whole | {"macro_f1": "much"},
        whole | {"study": {**whole["study"], "joints": {"a": {"nose": {"sends": 0.5}}}}},
        whole | {"audit": 5},
    ]
    *lacking, damaged, lost = bad
    for cell, summary in zip(lacking, spoiled, strict=True):
        finish(cell)
        write_summary(cell.folder, summary)
    for cell in (damaged, lost):
        finish(cell)
    (damaged.folder / "summary.json").write_text("{}")
    (lost.folder / "predictions.csv").unlink()
    page = html.unescape(write_report(grid, cells, folder).read_text())
    assert f"Missing: {len(bad)} of {len(cells)} runs" in page
    for cell in lacking:
        assert f"can't be used: {cell.folder / 'summary.json'} is not as fastst.train writes it" in page
    assert f"can't be used: {damaged.folder / 'summary.json'} has no checksum" in page
    assert f"can't be used: {lost.folder / 'predictions.csv'} doesn't exist" in page
    assert page.count("In a grid not fastst.train --resume, but the same fastst.experiments command goes on") == len(bad)
    (good.folder / "summary.json").unlink()
    with pytest.raises(UserError, match=rf"no run .* is finished: there is nothing to report yet; the run {lacking[0].address} can't be used: "):
        write_report(grid, cells, folder)


def test_notes_of_failures_that_say_nothing(tmp_path: Path):
    folder = tmp_path / "study"
    grid, (done, *open_cells) = paper_grid(folder, "layers=2", "hops=1", "seed=0,1")
    finish(done)
    (folder / "failed").mkdir()
    texts = ("[]", "5", '"text"', "{}", "{")
    for cell, text in zip(open_cells, texts, strict=False):
        (folder / "failed" / f"{cell.address}.json").write_text(text)
    page = write_report(grid, [done, *open_cells], folder).read_text()
    assert page.count("does not say why, as fastst.experiments would have written it") == min(len(open_cells), len(texts)) >= 3


def test_where_no_report_can_be_written(tmp_path: Path):
    grid, cells = paper_grid(tmp_path, "layers=2", "hops=1", "seed=0", "graph=learned")
    finish(cells[0])
    (tmp_path / "report").write_text("mine")
    with pytest.raises(WriteError, match=r"report can't be made: File exists; make room for it there, or name another --out"):
        write_report(grid, cells, tmp_path)
    assert (tmp_path / "report").read_text() == "mine"


def test_folds_and_planted_joints(tmp_path: Path):
    """Of runs that were trained: their folds are one, and what was planted is scored."""
    words = [*TINY, "--frames=40", "--people=8", "--folds=2", "--epochs=1", "--planted", "left_knee", "right_knee"]
    grid, (cell,) = open_grid(tmp_path / "study", asked("seed=0", words=words))
    run_cell(cell.config.to_json(), str(cell.folder), 1)
    (result,) = finished(grid, [cell])
    folds = [fold["study"]["thinned"]["as_many"] for fold in cell.summary()["folds"]]
    assert result.numbers()["mad_random"] == pytest.approx(sum(folds) / 2)
    assert 0 <= result.numbers()["roc_auc"] <= 1
    assert len(result.outcomes) == 16
    page = write_report(grid, [cell], tmp_path / "study").read_text()
    assert "ROC-AUC of planted edges" in page


def test_variants_have_figures_of_their_own(tmp_path: Path):
    folder = tmp_path / "study"
    grid, cells = paper_grid(folder, "layers=2", "hops=1,2", "information=0,0.3", "seed=0", "graph=learned")
    for cell in cells:
        finish(cell, **as_the_paper_says(cell))
    page = write_report(grid, cells, folder).read_text()
    assert page.index("<h2>All variants</h2>") < page.index("<summary>information 0.0</summary>") < page.index("<summary>information 0.3</summary>")
    whole_table = page[page.index("<h2>All variants</h2>") : page.index("<summary>")]
    assert "<th>information</th><th>hops</th><th>runs</th>" in whole_table  # what has one value is left out
    assert whole_table.count("<tr ") == 2 * 2
    assert {path.name for path in (folder / "report").glob("*.png")} == {"fig_2.png", "fig_3_1.png", "fig_3_2.png"}  # 4 and 5 are over layers


def test_graphs_that_are_not_learned_stand_beside_every_estimator(tmp_path: Path):
    axes = ["graph=fixed,learned", "estimator=sigmoid,reinforce", "recipe=default,paper", "seed=0"]
    grid, cells = open_grid(tmp_path, asked(*axes))
    assert len(cells) == 6  # the fixed graph has no estimator
    found = variants(grid, cells)
    assert list(found) == [f"estimator {estimator}, recipe {recipe}" for estimator in ("sigmoid", "reinforce") for recipe in ("default", "paper")]
    for words, of in found.items():
        assert [cell.config.graph for cell in of] == ["fixed", "learned"]
        assert {cell.config.recipe for cell in of} == {words.split()[-1]}
    assert list(variants(grid, [cell for cell in cells if cell.config.graph == "fixed"])) == ["recipe default", "recipe paper"]
