"""How far a grid is, and how long it will take still."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import mean

from fastst.config import TrainConfig, differing
from fastst.study.grid import Cell


class Clock:
    """Counts the cells of a grid that have come to an end, and judges those that haven't by those that have.

    A run takes as long as those that differ from it in the seed alone took on average; where there is none, as long as all did.
    """

    def __init__(self, cells: Sequence[Cell], waiting: Sequence[Cell]) -> None:
        self.total = len(cells)
        self.waiting = {cell.address: cell for cell in waiting}
        self.names = differing([cell.config for cell in cells])
        self.seconds: dict[TrainConfig, list[float]] = {}
        self.last: dict[str, float] = {}  # when each worker was done with its last cell
        self.began = time.monotonic()

    def line(self, cell: Cell, worker: str, error: str | None, workers: int) -> str:
        """What is said of a cell that came to an end, and how long the others take."""
        now = time.monotonic()
        del self.waiting[cell.address]
        options = ", ".join(f"{name} {getattr(cell.config, name)}" for name in self.names) or "the only run"
        begin = f"{self.total - len(self.waiting)}/{self.total} {cell.address} ({options})"
        took = now - self.last.get(worker, self.began)
        self.last[worker] = now
        if error is not None:
            return f"{begin} failed: {error}"
        self.seconds.setdefault(but_for_seed(cell.config), []).append(took)
        summary = cell.summary() or {}
        left = timedelta(seconds=round(self.left() / max(workers, 1)))
        return f"{begin}: macro F1 {summary['macro_f1']:.3f}, MAD {summary['mad']:.3f}, {took:.0f} s; about {left} left"

    def left(self) -> float:
        """Seconds that one worker would take for all that are open."""
        if not self.seconds:
            return 0.0
        any_cell = mean(mean(took) for took in self.seconds.values())
        known = (self.seconds.get(but_for_seed(cell.config)) for cell in self.waiting.values())
        return sum(mean(took) if took else any_cell for took in known)


def but_for_seed(config: TrainConfig) -> TrainConfig:
    """The same for runs that take equally long."""
    return dataclasses.replace(config, seed=0, out=TrainConfig.out)
