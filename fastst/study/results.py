"""What the finished runs of a grid say, run by run and setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import Any

import numpy as np

from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.explanation.agreement import agreement_of_folds
from fastst.explanation.profiles import SIDES
from fastst.explanation.report import mean_of
from fastst.runs.folder import as_written
from fastst.runs.outcomes import PREDICTIONS, Outcomes, read_outcomes
from fastst.study.grid import Cell, Grid, of_a_cell

_OF_THE_PAPER = ("graph", "drop", "layers", "hops", "seed")  # axes that figures and tables have a place for
# Name of a number in the tables -> its words.
COLUMNS = {
    "macro_f1": "macro F1",
    "roc_auc": "ROC-AUC of planted edges",
    "mad": "MAD",
    "mad_random": "MAD, as many random edges",
    "kept_share": "edges kept",
    "no_edges": "F1, no edge",
    "random": "F1, as many random edges",
    "deletion": "area under F1, likeliest edges deleted first",
    "deletion_random": "area under F1, any edges deleted",
}


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run."""

    cell: Cell
    summary: dict[str, Any]
    variant: str  # the values of axes that the paper does not have, in words

    @property
    def config(self) -> TrainConfig:
        return self.cell.config

    @property
    def arm(self) -> str:
        return arm_of(self.config)

    @cached_property
    def study(self) -> dict[str, Any]:
        """What `fastst.study.cell.look` found, with folds their mean."""
        return mean_of([fold["study"] for fold in self.summary["folds"]]) if self.config.folds else self.summary["study"]

    @cached_property
    def outcomes(self) -> Outcomes:
        return read_outcomes(self.cell.folder / PREDICTIONS)

    def audit(self) -> dict[str, Any] | None:
        """None where it failed."""
        audit = self.summary["audit"]
        return None if "error" in audit else audit

    def numbers(self) -> dict[str, float | None]:
        """A number for each of `COLUMNS`; None where the audit failed, or nothing was planted."""
        found: dict[str, float | None] = dict.fromkeys(COLUMNS)
        found |= {name: self.summary[name] for name in ("macro_f1", "mad", "kept_share")}
        found["mad_random"] = self.study["thinned"]["as_many"]
        if (truth := self.summary.get("truth")) is not None:
            edges = truth["edges"]["within" if truth["pairs"] else "out"]
            found["roc_auc"] = edges and edges["roc_auc"]
        audit = self.audit()
        if audit is not None:
            found |= {name: audit[name]["macro_f1"] for name in ("no_edges", "random")}
            found |= {"deletion": deletion_area(audit, "by_probability"), "deletion_random": deletion_area(audit, "random")}
        return found

    def thinned_distance(self, share: float) -> float:
        """MAD of the trained classifier on that share of all edges, chosen at random: on a straight line between the shares that were tried."""
        thinned = self.study["thinned"]
        return float(np.interp(share, thinned["shares"], thinned["mad"]))


def arm_of(config: TrainConfig) -> str:
    """What is done with the graph: fixed, learned, or random with the share that is removed."""
    return f"random {config.drop:.0%}" if config.graph == "random" else config.graph


def deletion_area(audit: dict[str, Any], order: str) -> float:
    """Mean macro F1 while 0 to 90 % of the kept edges are deleted in an order: the area under the curve, through the trapezoids, over its width."""
    shares = np.array([0.0, *audit["deletion"]["shares"]])
    scores = np.array([audit["kept"]["macro_f1"], *audit["deletion"][order]["macro_f1"]])
    return float(((scores[1:] + scores[:-1]) / 2 * np.diff(shares)).sum() / shares[-1])


def variant_of(cell: Cell, grid: Grid) -> str:
    """The values of the grid's axes other than the paper's; of a graph that isn't learned without the estimator."""
    return ", ".join(f"{name} {value_in_words(value)}" for name, value in more_axes(cell, grid).items())


def variants(grid: Grid, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Variant -> its cells. Graphs that aren't learned, which have no estimator, stand beside those of every estimator."""
    learned: dict[str, dict[str, Any]] = {variant_of(cell, grid): more_axes(cell, grid) for cell in cells if cell.config.graph == "learned"}
    found: dict[str, list[Cell]] = {words: [] for words in learned}
    for cell in cells:
        mine = more_axes(cell, grid)
        beside = [words for words, axes in learned.items() if axes | mine == axes]
        for words in [variant_of(cell, grid)] if cell.config.graph == "learned" else beside or [variant_of(cell, grid)]:
            found.setdefault(words, []).append(cell)
    return found


def more_axes(cell: Cell, grid: Grid) -> dict[str, Any]:
    """The values of the axes that the paper has not."""
    without = _OF_THE_PAPER if cell.config.graph == "learned" else (*_OF_THE_PAPER, "estimator")
    return {name: getattr(cell.config, name) for name in grid.axes if name not in without}


def value_in_words(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def finished(grid: Grid, cells: Sequence[Cell]) -> list[Result]:
    """Of those cells that are finished and left all that a report needs."""
    results = []
    for cell in cells:
        with suppress(UserError):
            results.append(read_result(cell, grid))
    return [result for result in results if result is not None]


def unusable(grid: Grid, cells: Sequence[Cell]) -> dict[str, str]:
    """Address -> why, for every cell that was finished, and left what a report can't use."""
    found = {}
    for cell in cells:
        try:
            read_result(cell, grid)
        except UserError as error:
            found[cell.address] = str(error)
    return found


def read_result(cell: Cell, grid: Grid) -> Result | None:
    """A finished run; None before it is finished.

    Raises:
        UserError: what it left is damaged, or lacks something that a report needs, as where `fastst.train` finished it.
    """
    with of_a_cell():
        summary = cell.summary()
        if summary is None:
            return None
        result = Result(cell, summary, variant_of(cell, grid))
        with as_written(cell.folder, remedy="delete it, and with folds theirs too, and it is written again"):
            _check(result)
        return result


def _check(result: Result) -> None:
    """Takes all that a report takes of a run; raises whatever that does where something is not there, or is of another kind."""
    told = [result.summary["balanced_accuracy"], result.summary["p_value"], result.summary["seconds"], *result.numbers().values()]
    shares = [sides[side] for joints in result.study["joints"].values() for sides in joints.values() for side in SIDES]
    for number in (*shares, *(value for value in told if value is not None)):
        float(number)
    result.thinned_distance(0.5)
    agreement([result, result])
    len(result.outcomes)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in the seed alone."""

    variant: str
    arm: str
    layers: int
    hops: int


def by_setting(results: Sequence[Result]) -> dict[Setting, list[Result]]:
    settings: dict[Setting, list[Result]] = {}
    for result in results:
        settings.setdefault(Setting(result.variant, result.arm, result.config.layers, result.config.hops), []).append(result)
    return settings


def summarized(results: Sequence[Result], name: str) -> tuple[float | None, float | None]:
    """Mean and standard deviation (with n − 1) over seeds of a number of `COLUMNS`; None where there are too few."""
    values = [value for result in results if (value := result.numbers()[name]) is not None]
    return (mean(values) if values else None), (stdev(values) if len(values) > 1 else None)


def agreement(results: Sequence[Result]) -> float | None:
    """Correlation of the slots' mean keep probabilities between the runs of several seeds, the mean of all pairs; None for graphs that aren't
    learned, and for fewer than two runs."""
    audits = [audit for result in results if result.config.graph == "learned" and (audit := result.audit()) is not None]
    found = agreement_of_folds(audits)
    return None if found is None else found["slots"]
