"""Where the runs of a grid go: workers that die, join late, can't write or are of another version; and the command around it."""

import contextlib
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from study import TINY, asked, finish

from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.experiments import main as experiments
from fastst.files import WriteError
from fastst.runs.comparison import compare
from fastst.runs.folder import read_lines, write_summary
from fastst.runs.lock import InUseError, owned
from fastst.study import cell as cells_module
from fastst.study import schedule
from fastst.study.cell import run_cell
from fastst.study.grid import open_grid
from fastst.study.progress import Clock
from fastst.study.schedule import Where, connected, run_cells
from fastst.train import read_config

distributed = pytest.importorskip("distributed")
EPOCHS = 10  # of a run that is killed in the midst
WORDS = ["--axes", "graph=fixed,learned", *TINY, "--epochs=1", "--frames=40"]


@contextlib.contextmanager
def in_process(workers: int):
    """Workers that are threads of this process."""
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=workers, **options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """Cells that are not trained: what is done in place of it."""

    def do(work):
        monkeypatch.setattr(schedule, "run_cell", work)

    monkeypatch.setattr(schedule, "_LOOK", 0.02)
    return do


def run(client, cells, folder: Path):
    """What is said, what ended how, and what failed."""
    said, ended = [], []
    failed = run_cells(client, cells, folder, said.append, lambda cell, worker, error: ended.append((cell.address, error)))
    return said, ended, failed


def leave_summary(config: str, folder: str, threads: int, tracker: str = "none") -> float:
    Path(folder).mkdir(parents=True)
    write_summary(Path(folder), {"threads": threads})
    return 0.1


def test_every_cell_once_and_a_failed_one_is_recorded(tmp_path: Path, quick):
    _, cells = open_grid(tmp_path, asked("seed=0,1,2,3,4,5", "graph=fixed"))
    bad = cells[2]

    def work(config: str, folder: str, threads: int, tracker: str) -> float:
        if json.loads(config)["seed"] == bad.config.seed:
            raise UserError("the loss became nan")
        return leave_summary(config, folder, threads)

    quick(work)
    with in_process(2) as client:
        _, ended, failed = run(client, cells, tmp_path)
    assert sorted(ended) == sorted((cell.address, "the loss became nan" if cell is bad else None) for cell in cells)
    assert failed == {bad.address: "the loss became nan"}
    note = tmp_path / "failed" / f"{bad.address}.json"
    assert json.loads(note.read_text())["error"] == "the loss became nan"
    assert [cell.summary() for cell in cells if cell is not bad] == [{"threads": 1}] * 5
    quick(leave_summary)  # tried again
    with in_process(1) as client:
        assert run(client, [bad], tmp_path)[2] == {}
    assert not note.exists()


def test_nobody_is_taken_for_dead_by_old_news(tmp_path: Path, quick):
    """Of the scheduler's news that the client keeps every other one names no workers."""
    _, cells = open_grid(tmp_path, asked("seed=0", "graph=fixed"))

    def work(config: str, folder: str, threads: int, tracker: str) -> float:
        time.sleep(0.3)
        return leave_summary(config, folder, threads)

    quick(work)
    with in_process(1) as client:
        client._periodic_callbacks["scheduler-info"].callback_time = 5
        client.sync(_restart, client._periodic_callbacks["scheduler-info"])
        said, ended, failed = run(client, cells, tmp_path)
    assert (said, ended, failed) == ([], [(cells[0].address, None)], {})


async def _restart(callback) -> None:
    callback.stop()
    callback.start()


def test_a_worker_that_cant_write_gets_no_more(tmp_path: Path, quick):
    _, cells = open_grid(tmp_path, asked("seed=0,1,2,3,4,5", "graph=fixed"))
    with in_process(2) as client:
        full = min(client.scheduler_info()["workers"])

        def work(config: str, folder: str, threads: int, tracker: str) -> float:
            if distributed.get_worker().address == full:
                raise WriteError("no space left on device")
            return leave_summary(config, folder, threads)

        quick(work)
        said, ended, failed = run(client, cells, tmp_path)
        assert sorted(ended) == sorted((cell.address, None) for cell in cells)
        assert failed == {}
        assert said == [f"the worker {full} gets no run: no space left on device"]

        def full_everywhere(config: str, folder: str, threads: int, tracker: str) -> float:
            raise WriteError("no space left on device")

        quick(full_everywhere)
        with pytest.raises(UserError, match=r"no worker can be used: .*no space left on device.* the same command goes on"):
            run(client, cells, tmp_path)


def test_workers_of_another_version_or_without_the_folder_are_refused(tmp_path: Path, quick, monkeypatch: pytest.MonkeyPatch):
    _, cells = open_grid(tmp_path, asked("seed=0"))
    quick(leave_summary)
    with in_process(1) as client:
        with pytest.raises(UserError, match=r"no worker can be used: .*it does not see .*elsewhere/grid\.json; --out must be a folder that all"):
            run(client, cells, tmp_path / "elsewhere")
        monkeypatch.setattr(schedule, "__version__", "9.0")
        with pytest.raises(UserError, match=r"it has a fastst 0\.1\.0, and this is 9\.0; install the same there"):
            run(client, cells, tmp_path)
    assert cells[0].summary() is None


def test_an_interruption_loses_nothing(tmp_path: Path, quick):
    _, cells = open_grid(tmp_path, asked("seed=0,1,2,3", "graph=fixed"))
    quick(leave_summary)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with in_process(1) as client, pytest.raises(KeyboardInterrupt):
        run_cells(client, cells, tmp_path, print, interrupt)
    still = [cell for cell in cells if cell.summary() is None]
    assert 0 < len(still) < 4
    with in_process(1) as client:
        assert len(run(client, still, tmp_path)[1]) == len(still)
    assert all(cell.summary() for cell in cells)


def test_only_what_the_connection_does_is_the_schedulers_fault(tmp_path: Path, quick):
    _, cells = open_grid(tmp_path, asked("seed=0", "graph=fixed"))
    quick(leave_summary)

    def disk_fails(*_: object) -> None:
        raise OSError("the disk fails")

    with in_process(1) as client, pytest.raises(OSError, match=r"^the disk fails$"):
        run_cells(client, cells, tmp_path, print, disk_fails)

    def fails(*_: object) -> float:
        raise UserError("the loss became nan")

    quick(fails)
    (tmp_path / "failed").write_text("mine")
    with in_process(1) as client:
        with pytest.raises(WriteError, match=r"failed can't be made: File exists"):
            run(client, cells, tmp_path)
        client.close()
        with pytest.raises(UserError, match=r"the scheduler went away \(no connection\); what is finished stays\. The same command goes on"):
            run(client, cells, tmp_path)


def test_a_cells_folder_is_one_that_training_can_go_on_in_and_its_errors_name_the_grids_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, (cell,) = open_grid(tmp_path, asked("seed=0"))
    assert cell.config.attention == "auto"

    def train(config: TrainConfig, *_: object, **__: object) -> None:
        raise UserError("the loss became nan; go on with fastst.train --resume")

    monkeypatch.setattr(cells_module, "train", train)
    message = r"the loss became nan.* In a grid not fastst\.train --resume, but the same fastst\.experiments command goes on"
    with pytest.raises(UserError, match=message):
        run_cell(cell.config.to_json(), str(cell.folder), 1)
    saved = read_config(["--out", str(cell.folder), "--resume"])
    assert saved == dataclasses.replace(cell.config.settled(), resume=True)
    (cell.folder / "summary.json").write_text("{}")
    assert not cell.is_finished()
    with pytest.raises(UserError, match=r"summary\.json has no checksum.* the same fastst\.experiments command goes on"):
        run_cell(cell.config.to_json(), str(cell.folder), 1)


def test_one_command_at_a_time_runs_a_grid(tmp_path: Path):
    open_grid(tmp_path / "study", asked("seed=0"))
    with owned(tmp_path / "study"):
        for words in (["--report"], WORDS):
            with pytest.raises(InUseError, match=r"study is in use: .* writes in it; wait until that has ended"):
                experiments(["--out", str(tmp_path / "study"), *words])


def test_what_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "ANSWERS_WITHIN", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(UserError, match=rf"--scheduler {address} does not answer .*; give the address that `dask scheduler` prints"):  # noqa: SIM117
            with connected(Where(scheduler=address), print):
                pass


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"workers": -1}, r"--workers must be at least 0, got -1"),
        ({"scheduler": "tcp://x:1", "workers": 2}, r"--scheduler has workers of its own"),
        ({"cluster": "slurm"}, r"--cluster slurm needs to know how many jobs to ask for: --workers 10, say"),
    ],
)
def test_places_that_there_are_none_of(where: dict, message: str):
    with pytest.raises(UserError, match=message):
        Where(**where)


def test_jobs_need_to_know_what_they_may_take():
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(UserError, match=r"--cluster pbs: .*DASK_JOBQUEUE__PBS__CORES"), connected(Where("pbs", workers=1), print):
        pass


def worker_process(scheduler: str, host: str) -> subprocess.Popen:
    """A worker with an address of its own, as `dask worker` starts it on another machine."""
    words = [sys.executable, "-m", "dask", "worker", scheduler, "--host", host, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux alone")
def test_a_killed_workers_run_goes_on_at_another_that_joins_late(tmp_path: Path):
    words = [*TINY, f"--epochs={EPOCHS}"]
    _, (first, second) = open_grid(tmp_path / "study", asked("graph=fixed", "seed=0,1", words=words))
    finish(second)  # somebody has trained it meanwhile: it is left as it is
    log, killed_at, ended, workers = [], [], [], []

    def kill_and_replace(address: str) -> None:
        while len(read_lines(first.folder / "metrics.jsonl")) < 3:
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        killed_at.append(len(read_lines(first.folder / "metrics.jsonl")))
        workers.append(worker_process(address, "127.0.0.2"))

    options = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    try:
        with distributed.LocalCluster(**options) as cluster:
            workers.append(worker_process(cluster.scheduler_address, "127.0.0.1"))
            threading.Thread(target=kill_and_replace, args=[cluster.scheduler_address], daemon=True).start()
            # Workers lock the folders of their cells while the grid's own is held here.
            with owned(tmp_path / "study"), connected(Where(scheduler=cluster.scheduler_address), log.append) as client:
                failed = run_cells(client, [first, second], tmp_path / "study", log.append, lambda *what: ended.append(what))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert failed == {}
    assert [(cell.address, error) for cell, _, error in ended] == [(first.address, None), (second.address, None)]
    assert all("127.0.0.2" in worker for _, worker, _ in ended)
    died = [line for line in log if "died" in line]
    assert len(died) == 1, died
    assert f"died with {first.address}, which goes on elsewhere" in died[0]
    assert 3 <= killed_at[0] < EPOCHS
    assert [row["epoch"] for row in read_lines(first.folder / "metrics.jsonl")] == list(range(1, EPOCHS + 1))
    assert first.summary() is not None
    assert not (second.folder / "metrics.jsonl").exists()


def test_a_finished_run_is_left_as_it_is_and_one_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, (cell,) = open_grid(tmp_path, asked("seed=0"))
    asked_for = []

    def train(config: TrainConfig, *_: object, **__: object) -> None:
        asked_for.append(config)
        if len(asked_for) == 1:
            raise InUseError(f"{config.out} is in use: another process writes in it")
        finish(cell)

    monkeypatch.setattr(cells_module, "_PAUSE", 0.01)
    monkeypatch.setattr(cells_module, "train", train)
    for _ in range(2):
        run_cell(cell.config.to_json(), str(cell.folder), 1)
    assert asked_for == [dataclasses.replace(cell.config.settled(), resume=True)] * 2
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run can't be made: Not a directory"):
        run_cell(cell.config.to_json(), str(tmp_path / "file/run"), 1)


def test_the_command_runs_goes_on_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}  # with more threads torch's wait for one another, and spin
    monkeypatch.setattr(schedule, "_local", lambda workers: distributed.LocalCluster(n_workers=workers, **options))
    out = ["--out", str(tmp_path / "study"), "--workers", "1"]
    experiments([*out, *WORDS])
    said = capsys.readouterr().err
    assert "2 runs, 0 of them finished" in said
    assert "2/2" in said
    assert "the report is in" in said
    cells = open_grid(tmp_path / "study", None)[1]
    for cell in cells:
        summary = cell.summary()
        assert set(summary["study"]) == {"joints", "thinned"}
        thinned = summary["study"]["thinned"]
        assert thinned["shares"][-1] == 1
        if cell.config.graph == "fixed":  # as many edges as it keeps are all
            assert thinned["mad"][-1] == pytest.approx(summary["mad"], abs=1e-6)
            assert thinned["as_many"] == pytest.approx(summary["mad"], abs=1e-6)
            shares = [share for joints in summary["study"]["joints"].values() for sides in joints.values() for share in sides.values()]
            assert shares == [1.0] * len(shares)
    assert [row["run"] for row in compare([cell.folder for cell in cells])] == [str(cell.folder) for cell in cells]
    before = cells[0].summary()
    (cells[0].folder / "summary.json").unlink()  # as the report advises where it is of no use
    run_cell(cells[0].config.to_json(), str(cells[0].folder), 1)
    assert cells[0].summary()["study"] == before["study"]
    assert (tmp_path / "study/report/index.html").exists()
    monkeypatch.setattr(schedule, "_local", None)  # nothing is left to run
    reported = []
    monkeypatch.setattr("fastst.experiments.write_report", lambda grid, cells, folder: reported.append(folder))
    experiments([*out, *WORDS])
    assert "2 runs, 2 of them finished" in capsys.readouterr().err
    experiments([*out, "--report"])
    assert "of them finished" not in capsys.readouterr().err
    assert reported == [tmp_path / "study"] * 2
    with pytest.raises(UserError, match="holds another grid"):
        experiments([*out, *WORDS, "--hops", "2"])


def test_a_finished_run_that_cant_be_used_is_named_and_no_success(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastst.experiments.write_report", lambda grid, cells, folder: folder / "report")
    _, cells = open_grid(tmp_path, asked("seed=0,1", "graph=fixed"))
    for cell in cells:
        finish(cell)
    experiments(["--out", str(tmp_path)])
    (cells[1].folder / "predictions.csv").unlink()
    for words in ([], ["--report"]):
        with pytest.raises(UserError, match=rf"1 of 2 runs are finished, but can't be used: {cells[1].address}; why stands above"):
            experiments(["--out", str(tmp_path), *words])
        said = capsys.readouterr().err
        assert f"the finished run {cells[1].address} can't be used, and is not in the report: {cells[1].folder / 'predictions.csv'} doesn't" in said
        assert "the report is in" in said


def test_a_dry_run_says_how_long_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    experiments(["--out", str(tmp_path / "study"), "--dry-run", *WORDS, "--axes", "graph=fixed,learned", "seed=0,1,2"])
    said = capsys.readouterr().out
    assert said.startswith("6 runs, 0 of them finished; 2 settings were tried: about 0.0")
    assert "GiB of memory" in said
    assert list(tmp_path.iterdir()) == []


def test_time_left_is_judged_by_runs_of_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, cells = open_grid(tmp_path, asked("graph=fixed,learned", "seed=0,1"))
    now = [100.0]
    monkeypatch.setattr("fastst.study.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(cells, cells)
    assert clock.left() == 0
    for cell, at in zip(cells[:2], (110.0, 140.0), strict=True):
        now[0] = at
        finish(cell)
        line = clock.line(cell, "worker", None, 2)
    assert clock.left() == 10 + 30  # fixed and learned, of the second seed
    assert line.startswith(f"2/4 {cells[1].address} (graph learned, seed 0): macro F1 0.800, MAD 0.300, 30 s; about 0:00:20 left")
    assert clock.line(cells[2], "worker", "no room", 2).endswith("failed: no room")


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_curves_go_where_they_are_asked_to(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Programs in place of theirs, which are not installed here."""
    steps: list[tuple[int, str, float]] = []

    class Writer(contextlib.AbstractContextManager):
        def __init__(self, *_: object, **__: object) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def add_scalar(self, name: str, value: float, step: int) -> None:
            steps.append((step, name, value))

        def log(self, values: dict[str, float], step: int) -> None:
            steps.extend((step, name, value) for name, value in values.items())

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=Writer))
    _, (cell,) = open_grid(tmp_path, asked("seed=0"))
    rows = [{"epoch": epoch, "loss": 1 / epoch, "kept": [1, 2]} for epoch in (1, 2, 1, 2)]  # of two folds

    def train(config: TrainConfig, _: object, on_epoch, **__: object) -> None:
        for row in rows:
            on_epoch(row)
        finish(cell)

    monkeypatch.setattr(cells_module, "train", train)
    run_cell(cell.config.to_json(), str(cell.folder), 1, tracker)
    assert steps == [(1, "loss", 1.0), (2, "loss", 0.5), (3, "loss", 1.0), (4, "loss", 0.5)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"--track {tracker}: {tracker} is not installed; pip install {tracker}"):
        experiments(["--track", tracker, "--out", str(tmp_path)])


@pytest.mark.skipif(os.name != "posix", reason="SLURM's commands are played by a shell script")
def test_jobs_of_slurm_are_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program in place of sbatch starts the job on this machine."""
    pytest.importorskip("dask_jobqueue")
    import dask

    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": 'cp "$1" job.sh; sh job.sh >job.log 2>&1 & echo "Submitted batch job 7"', "scancel": "exit 0"}.items():
        (folder / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    _, (cell,) = open_grid(tmp_path / "study", asked("seed=0"))
    finish(cell)
    with dask.config.set({"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "2GB", "jobqueue.slurm.interface": "lo"}):  # noqa: SIM117
        with connected(Where("slurm", workers=1), print) as client:
            _, ended, failed = run(client, [cell], tmp_path / "study")
    assert ended == [(cell.address, None)]
    assert failed == {}
    job = (tmp_path / "job.sh").read_text()
    assert "--nworkers 1" in job or "--nworkers" not in job
    assert "#SBATCH --cpus-per-task=1" in job
