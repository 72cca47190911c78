"""Where the cells of a grid run: workers of Dask, on this machine's cores, at a scheduler that is there, or as jobs of SLURM or PBS.

Workers read and write one shared folder; Dask carries a cell's options to a worker and the news of its end back, and nothing else. Every worker gets
one cell at a time, since a training takes all threads of its process.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from fastst import __version__
from fastst.errors import UserError
from fastst.files import WriteError, cannot_write, is_there
from fastst.runs.folder import write_json
from fastst.study.cell import run_cell
from fastst.study.grid import Cell, make_folder
from fastst.study.trackers import Tracker

if TYPE_CHECKING:
    from distributed import Client, Future

ANSWERS_WITHIN = 10.0  # seconds, of a scheduler
_DEATHS = 3  # of workers with the same cell, after which it is taken to be the cause
_COMES_BACK = 120.0  # seconds in which a worker of this machine that died is there again
_LOOK = 0.3  # seconds between two looks at the workers

News = Callable[[str], None]
Ended = Callable[[Cell, str, str | None], None]  # a cell, its worker, and why it failed


@dataclass(frozen=True)
class Where:
    """Where cells run.

    Attributes:
        cluster: this machine, or jobs of SLURM or PBS through dask-jobqueue.
        scheduler: address of a Dask scheduler that is there already, in place of `cluster`.
        workers: how many processes or jobs; 0: one for every core, and on a machine with a GPU one.
    """

    cluster: Literal["local", "slurm", "pbs"] = "local"
    scheduler: str | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UserError(f"--workers must be at least 0, got {self.workers}")
        if self.scheduler is not None and (self.cluster != "local" or self.workers):
            raise UserError("--scheduler has workers of its own; leave --cluster and --workers out")
        if self.cluster != "local" and not self.workers:
            raise UserError(f"--cluster {self.cluster} needs to know how many jobs to ask for: --workers 10, say")

    @property
    def count(self) -> int:
        """Processes on this machine."""
        return self.workers or (1 if torch.cuda.is_available() else cores())


@contextmanager
def connected(where: Where, say: News) -> Iterator[Client]:
    """A client of the workers, which end with it unless they were there before.

    Raises:
        UserError: Dask is not installed, the scheduler doesn't answer, or jobs can't be asked for.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError("grids run on Dask, which is not installed: pip install 'fastst[experiments]'") from None
    with ExitStack() as stack:
        if where.scheduler is not None:
            try:
                client = stack.enter_context(Client(where.scheduler, timeout=ANSWERS_WITHIN, set_as_default=False))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"--scheduler {where.scheduler} does not answer ({str(error).splitlines()[0]}); give the address that `dask scheduler` prints, "
                    "such as tcp://10.0.0.1:8786"
                ) from None
        else:
            cluster = stack.enter_context(_local(where.count) if where.cluster == "local" else _jobs(where))
            client = stack.enter_context(Client(cluster, set_as_default=False))
        say(f"workers at {client.scheduler_info()['address']}, dashboard at {client.dashboard_link}{_bokeh_hint()}")
        yield client


def run_cells(client: Client, cells: Sequence[Cell], folder: Path, say: News, ended: Ended, tracker: Tracker = "none") -> dict[str, str]:
    """Runs every cell to its end, on workers that come and go. Returns address -> why, for the cells that failed; others go on.

    A cell whose worker died begins again where it was left; after three deaths it counts as failed. Failures are written to `folder/failed`.

    Raises:
        UserError: no worker is left that can be used, the scheduler went away, or nothing can be written into the folder.
    """
    board = _Board(client, folder, say, tracker, deque(cells))
    while board.waiting or board.running:
        board.look_at_workers()
        board.begin()
        board.give_up_dead()
        for cell, worker, error in board.take_ended():
            ended(cell, worker, error)
        time.sleep(_LOOK)
    return board.failed


@contextmanager
def _asking() -> Iterator[None]:
    """For what is asked of the scheduler: that it does not answer becomes an error that says how to go on."""
    try:
        yield
    except OSError as error:
        raise UserError(f"the scheduler went away ({error}); what is finished stays. The same command goes on") from None


@dataclass
class _Board:
    """Which cell is where."""

    client: Client
    folder: Path
    say: News
    tracker: Tracker
    waiting: deque[Cell]
    running: dict[Future[Any], tuple[Cell, str]] = field(default_factory=dict)
    usable: dict[str, int] = field(default_factory=dict)  # address of a worker -> its threads
    refused: dict[str, str] = field(default_factory=dict)  # address of a worker -> why
    deaths: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    begun: int = 0
    alone_since: float | None = None  # without any worker to use

    def look_at_workers(self) -> None:
        """Who is there, and who of them can be used; UserError if nobody can, and nobody is to be waited for."""
        threads = {address: worker["nthreads"] for address, worker in workers_of(self.client).items()}
        self.refused = {address: why for address, why in self.refused.items() if address in threads}
        self.usable = {address: count for address, count in self.usable.items() if address in threads}
        new = [address for address in threads if address not in self.usable and address not in self.refused]
        for address, why in _judged(self.client, new, self.folder).items():
            if why is None:
                self.usable[address] = threads[address]
            else:
                self.refuse(address, why)
        self._mind_being_alone()

    def refuse(self, address: str, why: str) -> None:
        self.usable.pop(address, None)
        self.refused[address] = why
        self.say(f"the worker {address} gets no run: {why}")

    def begin(self) -> None:
        """Gives every worker that has nothing to do a cell."""
        busy = {address for _, address in self.running.values()}
        for address, threads in self.usable.items():
            if address in busy or not self.waiting:
                continue
            cell = self.waiting.popleft()
            self.begun += 1
            key = f"{cell.address}-{self.begun}"
            options: dict[str, Any] = {"workers": [address], "key": key, "pure": False}
            self.running[self.client.submit(run_cell, cell.config.to_json(), str(cell.folder.resolve()), threads, self.tracker, **options)] = (
                cell,
                address,
            )

    def give_up_dead(self) -> None:
        """Cells of workers that are gone wait again, before all others."""
        for future, (cell, address) in list(self.running.items()):
            if future.done() or address in self.usable or address in self.refused:
                continue
            del self.running[future]
            future.cancel()
            self.deaths[cell.address] += 1
            self.say(f"the worker {address} died with {cell.address}, which goes on elsewhere")
            self.waiting.appendleft(cell)

    def take_ended(self) -> Iterator[tuple[Cell, str, str | None]]:
        """Cells that have come to an end since the last time, with their worker, and why they failed."""
        for cell in [cell for cell in self.waiting if self.deaths[cell.address] >= _DEATHS]:
            self.waiting.remove(cell)
            yield cell, "", self._note(cell, f"{_DEATHS} workers died with it; has it enough memory?", "")
        for future, (cell, address) in [item for item in self.running.items() if item[0].done()]:
            del self.running[future]
            error = future.exception() if future.status == "error" else None
            if future.status == "finished":
                self._forget(cell)
                yield cell, address, None
            elif isinstance(error, WriteError):  # a full disk is no fault of the cell, and other workers may have room
                self.waiting.appendleft(cell)
                self.refuse(address, str(error))
            elif error is None or type(error).__name__ == "KilledWorker":  # lost with its worker
                self.deaths[cell.address] += 1
                self.waiting.appendleft(cell)
            else:
                told = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
                yield cell, address, self._note(cell, told, "".join(traceback.format_exception(error)))

    def _note(self, cell: Cell, error: str, trace: str) -> str:
        self.failed[cell.address] = error
        make_folder(self.folder / "failed")
        write_json(self._note_of(cell), {"error": error, "traceback": trace})
        return error

    def _forget(self, cell: Cell) -> None:
        """It failed before, and now has not."""
        note = self._note_of(cell)
        try:
            if is_there(note):
                note.unlink()
        except OSError as error:
            raise cannot_write(note, error) from None

    def _note_of(self, cell: Cell) -> Path:
        return self.folder / "failed" / f"{cell.address}.json"

    def _mind_being_alone(self) -> None:
        if self.usable or self.running:
            self.alone_since = None
        elif self.refused:
            why = "; ".join(f"{address}: {reason}" for address, reason in self.refused.items())
            raise UserError(f"no worker can be used: {why}. What is finished stays; the same command goes on")
        elif self.alone_since is None:
            self.alone_since = time.monotonic()
            self.say("waiting for workers")
        elif self._is_of_this_machine() and time.monotonic() - self.alone_since > _COMES_BACK:
            raise UserError(f"no worker came back within {_COMES_BACK:.0f} s. What is finished stays; the same command goes on")

    def _is_of_this_machine(self) -> bool:
        return type(self.client.cluster).__name__ == "LocalCluster"


def workers_of(client: Client) -> dict[str, Any]:
    """Address -> what the scheduler knows of every worker. `Client.scheduler_info` can't be asked: what it returns is now and then replaced by news
    without workers, which would be taken for their death."""
    with _asking():
        if client.status != "running" or client.scheduler is None:
            raise OSError("no connection")
        return client.sync(client.scheduler.identity, n_workers=-1)["workers"]


def _judged(client: Client, addresses: list[str], folder: Path) -> dict[str, str | None]:
    """Why each of these workers can't be used; None for those that can. A worker that is gone again is not in it."""
    if not addresses:
        return {}
    wanted, manifest = __version__, str((folder / "grid.json").resolve())

    def looked() -> tuple[str, bool]:  # within, so that Dask sends its code: a worker may have another fastst, or none
        import os

        try:
            from fastst import __version__ as there
            from fastst.study import cell  # noqa: F401 - whether it can be

            return there, os.path.exists(manifest)
        except (ImportError, AttributeError) as error:
            return f"that has no grids ({error})", True

    judged: dict[str, str | None] = {}
    with _asking():
        answers = client.run(looked, workers=addresses, on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, BaseException):
            continue
        version, sees = answer
        if version != wanted:
            judged[address] = f"it has a fastst {version}, and this is {wanted}; install the same there"
        else:
            judged[address] = None if sees else f"it does not see {manifest}; --out must be a folder that all workers share"
    return judged


def _local(workers: int) -> Any:
    """Processes of this machine that share its cores."""
    from distributed import LocalCluster

    threads = max(1, cores() // workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port 8787 is already in use")
        # Dask's own limit of memory stops workers that it takes to hold results; a training holds none that could be put elsewhere.
        options: dict[str, Any] = {"dashboard_address": "127.0.0.1:8787", "memory_limit": 0, "silence_logs": logging.CRITICAL}
        return LocalCluster(n_workers=workers, threads_per_worker=threads, **options)


def _jobs(where: Where) -> Any:
    """Jobs of one worker each; what a job may take is told by Dask's own configuration."""
    try:
        from dask_jobqueue import PBSCluster, SLURMCluster
    except ImportError:
        raise UserError("jobs are asked for by dask-jobqueue, which is not installed: pip install 'fastst[experiments]'") from None
    try:
        cluster: Any = (SLURMCluster if where.cluster == "slurm" else PBSCluster)(processes=1, silence_logs=logging.CRITICAL)
    except (ValueError, TypeError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"--cluster {where.cluster}: {told}. What a job may take stands in ~/.config/dask/jobqueue.yaml, under jobqueue: {where.cluster}: cores, "
            f"memory, walltime, queue, or in variables such as DASK_JOBQUEUE__{where.cluster.upper()}__CORES"
        ) from None
    cluster.scale(jobs=where.workers)
    return cluster


def cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bokeh_hint() -> str:
    try:
        import bokeh  # noqa: F401
    except ImportError:
        return " (its pages need bokeh: pip install bokeh)"
    return ""
