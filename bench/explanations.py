"""`python -m bench.explanations`: whether the learned graph decides, on data whose truth is known and on others; the table in docs/explanations.md.

Every run is a `fastst.train` with all defaults, in a folder of its own under --runs; finished ones are not run again. On two cores the planted and
unplanted walkers take about an hour and a half.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import tyro

from fastst.data.splits import class_of_people, deal_anew
from fastst.data.synthetic import synthetic_walks

KNEES, ELBOWS, WRISTS, ANKLES = (("left_" + joint, "right_" + joint) for joint in ("knee", "elbow", "wrist", "ankle"))
FOREARMS = ("left_elbow", "left_wrist", "right_elbow", "right_wrist")
# Name -> options of fastst.train
WALKERS = {
    "knees": ["--planted", *KNEES],
    "elbows": ["--planted", *ELBOWS],
    "wrists": ["--planted", *WRISTS],
    "relation elbow-wrist": ["--planted", *FOREARMS, "--planted-kind", "relation"],
    "episode knees": ["--planted", *KNEES, "--planted-kind", "episode"],
    "timing ankles": ["--planted", *ANKLES, "--planted-kind", "timing"],
    "unplanted": [],
}
CLINICAL = ["--label-map", "Healthy=healthy,*=patient", "--folds", "5"]


@dataclass(frozen=True)
class Options:
    """Train on every data set with three seeds, with a learned graph and with the whole graph, and put what the audits say in one table."""

    runs: Path = Path("runs/explanations")
    """Folder for the runs."""
    only: tuple[str, ...] = ()
    """Data sets to run; left out, all."""
    seeds: tuple[int, ...] = (2, 3, 4)
    """Seeds of the runs. The recipe was looked for with seeds 0 and 1."""
    clinical: Path | None = None
    """walks.npz of the clinical walks, which are not part of the repository."""
    permuted: int = 0
    """How many runs with the classes dealt out anew among the people, of the walkers with planted knees."""
    workers: int = 2
    """Runs at a time, each on one thread."""
    report: Path = Path("docs")
    """Folder for explanations.md and explanations.json."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m bench.explanations")
    data = {name: words for name, words in WALKERS.items() if not options.only or name in options.only}
    if options.clinical is not None:
        data["clinical"] = ["--data", str(options.clinical), *CLINICAL]
    wanted = [(name, graph, seed) for seed in options.seeds for name in data for graph in ("learned", "fixed")]
    jobs = [
        (options.runs / f"{name}-{graph}-{seed}".replace(" ", "-"), [*data[name], "--graph", graph, "--seed", str(seed)])
        for name, graph, seed in wanted
    ]
    jobs += [_control(options.runs, seed) for seed in range(options.permuted)]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda job: _train(*job), jobs))
    found = {folder.name: _summary(folder) for folder, _ in jobs}
    options.report.mkdir(parents=True, exist_ok=True)
    (options.report / "explanations.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = options.report / "explanations.md"
    before = page.read_text(encoding="utf-8").partition(_HERE)[0] if page.exists() else ""
    page.write_text(f"{before}{_HERE}\n{_table(found, list(data))}", encoding="utf-8")


def _control(runs: Path, seed: int) -> tuple[Path, list[str]]:
    """Folder and options of a run whose people have each other's classes."""
    walks = synthetic_walks(seed=seed, walks_per_person=1)
    dealt = deal_anew(class_of_people(walks.subjects, [str(label) for label in walks.attributes["label"]]), seed)
    runs.mkdir(parents=True, exist_ok=True)
    labels = runs / f"dealt-anew-{seed}.csv"
    labels.write_text("subject,label\n" + "".join(f"{subject},{label}\n" for subject, label in dealt.items()), encoding="utf-8")
    return runs / f"permuted-{seed}", [*WALKERS["knees"], "--labels", str(labels), "--seed", str(seed)]


def _train(folder: Path, words: list[str]) -> None:
    if (folder / "summary.json").exists():
        return
    command = [sys.executable, "-m", "fastst.train", *words, "--out", str(folder)]
    if (folder / "config.json").exists():
        command = [sys.executable, "-m", "fastst.train", "--resume", "--out", str(folder)]
    print(f"{folder.name}: {' '.join(words)}", flush=True)
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{folder.name} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)


def _summary(folder: Path) -> dict[str, Any] | None:
    """What the table needs of a run."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    audit, truth = summary["audit"], summary.get("truth")
    if "error" in audit:
        print(f"{folder.name}: the audit failed: {audit['error']}", flush=True)
        return None
    scores = summary.get("mean_of_folds", summary)  # as everything in the audit of a run with folds
    few = audit["insertion"]["shares"].index(0.1)
    row = {
        "macro_f1": scores["macro_f1"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "kept": summary["kept_share"],
        "random": audit["random"]["macro_f1"],
        "no_edges": audit["no_edges"]["balanced_accuracy"],
        "mask_alone": audit["mask_alone"]["balanced_accuracy"],
        "likeliest_10": audit["insertion"]["by_probability"]["macro_f1"][few],
        "regression": audit["pose_probe"]["macro_f1"],
        "verdict": audit["verdict"]["code"],
        "seconds": summary["seconds"],
    }
    if truth is not None:
        kind = "within" if truth["pairs"] else "out"
        row |= {"roc_auc": truth["edges"][kind]["roc_auc"], "r_precision": truth["edges"][kind]["r_precision"]}
        row["precision_5"] = truth["edges"]["touch"]["precision_5"]
        row["frames"] = truth["frames"]["roc_auc"] if truth["frames"] else None
    return row


_HERE = "<!-- bench.explanations -->"  # what follows in the page is written anew
COLUMNS = {
    "macro_f1": "macro F1",
    "kept": "kept",
    "likeliest_10": "F1, likeliest 10 %",
    "random": "F1, as many random",
    "no_edges": "balanced accuracy, no edge",
    "mask_alone": "mask alone",
    "roc_auc": "ROC-AUC",
    "r_precision": "R-precision",
    "precision_5": "precision at 5 %",
    "frames": "ROC-AUC of frames",
}


def _table(found: dict[str, dict[str, Any] | None], data: list[str]) -> str:
    lines = [
        "Written by `python -m bench.explanations`, all defaults of `fastst.train`, people apart; mean ± standard deviation over the seeds "
        "that were run.",
        "ROC-AUC and R-precision are of the edges out of planted joints (of a relation: between its two joints), precision at 5 % is of edges "
        "that touch a planted joint. Logistic regression is on the joints' means and deviations.",
        "",
        "| data | seeds | " + " | ".join(COLUMNS.values()) + " | whole graph, macro F1 | logistic regression, macro F1 | verdicts |",
        "| --- | --- | " + " | ".join("---" for _ in COLUMNS) + " | --- | --- | --- |",
    ]
    for name in [*data, "permuted"]:
        stem = name.replace(" ", "-")
        learned = [row for folder, row in found.items() if row and folder.startswith((f"{stem}-learned-", f"{stem}-")) and "-fixed-" not in folder]
        fixed = [row for folder, row in found.items() if row and folder.startswith(f"{stem}-fixed-")]
        if not learned:
            continue
        cells = [_cell(learned, column) for column in COLUMNS]
        verdicts = ", ".join(f"{row['verdict']}" for row in learned)
        both = f"{_cell(fixed, 'macro_f1')} | {_cell(learned, 'regression')}"
        lines.append(f"| {name} | {len(learned)} | " + " | ".join(cells) + f" | {both} | {verdicts} |")
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows if row.get(column) is not None]
    if not values:
        return "–"
    return f"{mean(values):.3f} ± {pstdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


if __name__ == "__main__":
    main()
