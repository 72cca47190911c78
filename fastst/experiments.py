"""`python -m fastst.experiments`: the paper's study, or any grid of trainings, and a report that says what reproduces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from fastst.errors import UserError, run_command
from fastst.files import is_there
from fastst.interrupts import advise
from fastst.runs.lock import owned
from fastst.study.asked import asked_grid
from fastst.study.estimate import estimate
from fastst.study.grid import Cell, open_grid
from fastst.study.progress import Clock
from fastst.study.report import write_report
from fastst.study.results import unusable
from fastst.study.schedule import Where, connected, run_cells, workers_of
from fastst.study.trackers import Tracker, check_tracker

_PROGRAM = "python -m fastst.experiments"


@dataclass(frozen=True)
class ExperimentsConfig:
    """Run the paper's study, fixed against learned graphs over depth and hops, and write a report of it: Table I and Figures 2 to 5.

    All options of fastst.train can be given too, and hold for every run: --data walks.npz --labels labels.csv, say. Runs that are finished are not
    run again: the same command, or --out alone, goes on with a grid.
    """

    out: Path = Path("runs/study")
    """Folder for the grid; on several machines one that all of them share."""
    preset: Literal["small", "paper"] | None = None
    """small: the paper's 81 runs, made small (the default); paper: with 50 epochs and a batch of 32."""
    file: Path | None = None
    """A TOML file with any of preset = "small", [options] and [axes]; several [[axes]] are crossed one by one."""
    axes: tuple[str, ...] = ()
    """Options of fastst.train with the values that are tried, such as layers=2,4 information=0,0.3. Every axis takes the place of the preset's."""
    recipe: str | None = None
    """Where the options start from: default or paper; it can be an axis too."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers train, such as tcp://10.0.0.1:8786; left out, this machine trains."""
    cluster: Literal["local", "slurm", "pbs"] = "local"
    """slurm, pbs: train in --workers jobs, whose cores, memory and queue are in Dask's configuration of dask-jobqueue."""
    workers: int = 0
    """Runs at a time; 0: one for every core of this machine, or one where there is a GPU."""
    track: Tracker = "none"
    """Where the curves of the runs go to as well: tensorboard (in the runs' folders) or wandb, where installed."""
    report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only write the report, of what is finished."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only say how many runs there are, how long they take and how much memory, from a few timed steps; nothing is written."""


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    config, others = tyro.cli(ExperimentsConfig, prog=_PROGRAM, args=words, return_unknown_args=True)
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    where = Where(config.cluster, config.scheduler, config.workers)
    check_tracker(config.track)
    asked = asked_grid(config.preset, config.file, config.axes, config.recipe, others, _PROGRAM)
    if asked is None and not is_there(config.out / "grid.json") and not config.report:
        asked = asked_grid("small", None, (), None, [], _PROGRAM)
    if config.dry_run:
        cells = asked.cells(config.out) if asked is not None else open_grid(config.out, None)[1]
        print(estimate(cells, where))
        return
    with owned(config.out):  # workers have locks of their own, of the folders of their cells
        grid, cells = open_grid(config.out, asked)
        failed = {} if config.report else _run(cells, config.out, where, config.track, console)
        console.print(f"the report is in {write_report(grid, cells, config.out)}")
        damaged = {address: why for address, why in unusable(grid, cells).items() if address not in failed}
    for address, why in damaged.items():
        console.print(f"the finished run {address} can't be used, and is not in the report: {why}")
    if failed:
        address, why = next(iter(failed.items()))
        which = f"{len(failed)} of {len(cells)} runs failed, {address} with: {why}"
        raise UserError(f"{which}. Each has a file in {config.out / 'failed'}; the same command tries them again")
    if damaged:
        raise UserError(f"{len(damaged)} of {len(cells)} runs are finished, but can't be used: {', '.join(damaged)}; why stands above")


def _run(cells: list[Cell], folder: Path, where: Where, tracker: Tracker, console: Console) -> dict[str, str]:
    open_cells = [cell for cell in cells if not cell.is_finished()]
    console.print(f"{len(cells)} runs, {len(cells) - len(open_cells)} of them finished")
    if not open_cells:
        return {}
    advise("the same command goes on")
    clock = Clock(cells, open_cells)
    with connected(where, console.print) as client:

        def ended(cell: Cell, worker: str, error: str | None) -> None:
            console.print(clock.line(cell, worker, error, len(workers_of(client))))

        return run_cells(client, open_cells, folder, console.print, ended, tracker)


if __name__ == "__main__":
    run_command(main)
