"""Finished runs of a grid that were never trained: their numbers are given, so that what a report makes of them is known."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from fastst.layouts import get_layout
from fastst.nn import GraphClassifier
from fastst.runs.folder import save_model, write_summary
from fastst.runs.outcomes import PREDICTIONS, Outcomes, write_outcomes
from fastst.study.asked import asked_grid
from fastst.study.cell import THINNED
from fastst.study.grid import Cell, Grid, open_grid

PEOPLE, WALKS = 16, 5
TINY = ["--people=12", "--walks-per-person=2", "--frames=12", "--hidden=8", "--heads=2", "--layers=2", "--batch-size=8", "--epochs=3"]


def asked(*axes: str, words: list[str] = TINY, preset: str | None = None, file: Path | None = None, recipe: str | None = None) -> Grid:
    grid = asked_grid(preset, file, axes, recipe, words, "program")
    assert grid is not None
    return grid


def paper_grid(folder: Path, *axes: str) -> tuple[Grid, list[Cell]]:
    """The paper's 81 runs, made small."""
    return open_grid(folder, asked(*axes, words=[], preset="small"))


def finish(
    cell: Cell,
    f1: float = 0.8,
    mad: float = 0.3,
    kept: float = 1.0,
    thinned: float = 0.3,
    wrong: int = 4,
    share: Callable[[str], float] = lambda _: 0.2,
) -> None:
    """Leaves what a finished run leaves, as far as a report reads it.

    Args:
        f1, mad, kept: scores, and the share of edges that was kept.
        thinned: MAD on any share of edges that were chosen at random.
        wrong: how many people, of 16, all of whose walks are told wrongly.
        share: joint -> the share of its edges that is kept.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    layout = get_layout("coco18")
    score = {"balanced_accuracy": f1, "macro_f1": f1}
    sides = {joint: {"sends": share(joint), "receives": share(joint)} for joint in layout.joints}
    curve = {"macro_f1": [f1, f1, 0.5, 0.5]}
    summary = {
        **score,
        "mad": mad,
        "kept_share": kept,
        "p_value": 0.01,
        "seconds": 3.5,
        "study": {"joints": {"a": sides, "b": sides}, "thinned": {"as_many": thinned, "shares": THINNED, "mad": [thinned] * len(THINNED)}},
        "audit": {
            "kept": score,
            "no_edges": {"macro_f1": 0.33},
            "random": {"macro_f1": 0.6},
            "deletion": {"shares": [0.1, 0.25, 0.5, 0.9], "by_probability": curve, "random": curve},
            "slots": [{"probability": p} for p in (0.1, 0.5, 0.2 + 0.01 * cell.config.seed)],
            "joints": {joint: {"sends": 0.1 * i, "receives": 0.2} for i, joint in enumerate(layout.joints)},
        },
    }
    write_summary(cell.folder, summary)
    (cell.folder / "config.json").write_text(cell.config.to_json())
    who = np.repeat(range(PEOPLE), WALKS)
    said = np.where(who < wrong, 1 - who % 2, who % 2)
    texts = ([f"w{i}-{n}" for n, i in enumerate(who)], [f"p{i:02d}" for i in who])
    write_outcomes(cell.folder / PREDICTIONS, Outcomes(["a", "b"], ["0"] * len(who), *texts, who % 2, np.eye(2)[said]))
    (cell.folder / "model.safetensors").write_bytes(_model_bytes())


@cache
def _model_bytes() -> bytes:
    arguments = {"layout": get_layout("coco18").to_dict(), "num_classes": 2, "layers": 1, "hidden": 4, "heads": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, GraphClassifier(**arguments), arguments, ["a", "b"])
        return path.read_bytes()
