"""What the finished runs of a grid say, run by run and setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import Any

import numpy as np

from fastst.config import TrainConfig
from fastst.explanation.agreement import agreement_of_folds
from fastst.explanation.report import mean_of
from fastst.runs.outcomes import PREDICTIONS, Outcomes, read_outcomes
from fastst.study.grid import Cell, Grid

_OF_THE_PAPER = ("graph", "drop", "layers", "hops", "seed")  # axes that figures and tables have a place for
# Name of a number in the tables -> its words.
COLUMNS = {
    "macro_f1": "macro F1",
    "mad": "MAD",
    "mad_random": "MAD, as many random edges",
    "kept_share": "edges kept",
    "no_edges": "F1, no edge",
    "random": "F1, as many random edges",
    "deletion": "area under F1, likeliest edges deleted first",
    "deletion_random": "area under F1, any edges deleted",
    "roc_auc": "ROC-AUC of planted edges",
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
    """The values of the grid's axes other than the paper's."""
    return ", ".join(f"{name} {getattr(cell.config, name)}" for name in grid.axes if name not in _OF_THE_PAPER)


def finished(grid: Grid, cells: Sequence[Cell]) -> list[Result]:
    found = ((cell, cell.summary()) for cell in cells)
    return [Result(cell, summary, variant_of(cell, grid)) for cell, summary in found if summary is not None]


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
