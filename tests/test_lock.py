"""One writer at a time in the folder of a run, whatever the other does: it waits, is killed, forks, or starts at the same moment."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import TINY, Commands, has_ended

from fastst import audit, evaluate, predict, train
from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.explanation.report import EXPLAINED
from fastst.runs import training
from fastst.runs.lock import LOCK, check_owned, owned, owned_around

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HOLD = """
import os, sys, time
from pathlib import Path
from fastst.runs.lock import owned
with owned(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else 1
    if child:
        print(child, flush=True)
    time.sleep(100)
"""
RACE = """
import sys, time
from pathlib import Path
from fastst.errors import UserError
from fastst.runs.lock import owned
print("ready", flush=True)
sys.stdin.readline()
try:
    with owned(Path(sys.argv[1])):
        time.sleep(2)
        print("won")
except UserError as error:
    print(error)
"""


@contextmanager
def another(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process that has the folder, and the number that it says."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *words], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another(folder) as (process, _):
        words = rf"run is in use: .*python.* \(process {process.pid} on .*, since .*\) writes in it; wait until that has ended, or choose another"
        with pytest.raises(UserError, match=words) as told, owned(folder):
            pytest.fail("two have it")
        assert "\n" not in str(told.value)
        assert names(tmp_path) == {"run", LOCK}


@pytest.mark.parametrize("words", [(), ("fork",)])
def test_it_ends_with_its_process(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Killed, and with a forked child that lives on. What it left behind doesn't count as a run."""
    folder = tmp_path / "run"
    with another(folder, *words) as (process, child):
        process.kill()
        process.wait()
        training._check_folder(TrainConfig(out=folder))
        with owned(folder):
            assert names(folder) == {LOCK}
        if words:
            os.kill(child, signal.SIGKILL)  # which fails if it didn't live on
    assert names(folder) == set()


def test_a_forked_child_lets_go_of_nothing(tmp_path: Path) -> None:
    with owned(tmp_path / "run"):
        if (child := os.fork()) == 0:
            try:
                with pytest.raises(UserError), owned(tmp_path / "run"):  # it isn't the child's
                    os._exit(1)
            finally:
                os._exit(0 if (tmp_path / "run" / LOCK).exists() else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        check_owned(tmp_path / "run")


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "new" / "run")]
    racers = [subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=300)[0].strip() for racer in racers]
    assert said.count("won") == 1
    assert sum("is in use" in words for words in said) == 4
    assert names(tmp_path) == set()  # nothing was written, so nothing is left


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with owned(tmp_path / "run"):
        pass
    assert names(tmp_path) == {"run"}
    with owned(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "config.json").touch()
    assert names(tmp_path / "new") == {"run", "config.json"}


def test_a_thread_of_the_same_process_is_another_too(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on"), owned(tmp_path):
        pytest.fail("twice")
    assert names(tmp_path) == set()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with owned(tmp_path / "run"):
        assert names(tmp_path) == {"run"}
        check_owned(tmp_path / "run")
    [record] = caplog.records
    assert "is on a file system without locks (No locks available): take care" in record.getMessage()


READ_ONLY = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/run"
touch "$1/run/config.json"
mount -o remount,ro "$1"
exec "$2" -c '
from pathlib import Path
import sys
from fastst.runs.lock import owned
for place in ("run", "new"):
    try:
        with owned(Path(sys.argv[1]) / place):
            print("has it")
    except Exception as error:
        print(type(error).__name__, error)
' "$1"
"""


def test_a_read_only_file_system(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("only those who may mount file systems have one")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", READ_ONLY, "sh", str(tmp_path), sys.executable], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    told = "UserError {} can't be written: Read-only file system; choose another folder, or make this one writable"
    assert done.stdout.splitlines() == [told.format(tmp_path / "run"), told.format(tmp_path / "new")]


def test_a_file_belongs_to_the_run_around_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "fold-1" / "permuted").mkdir(parents=True)
    (run / "config.json").touch()
    inside = [run / "a.json", run / "fold-1" / "a.json", run / "fold-1" / "permuted" / "a.json"]
    for file in inside:
        with owned_around(None, tmp_path / "a.json", file):
            assert (run / LOCK).exists()
    with owned_around(None, tmp_path / "a.json"):
        assert names(tmp_path) == {"run", "config.json", "fold-1", "permuted"}
    with another(run):
        for file in inside:
            with pytest.raises(UserError, match="run is in use"), owned_around(file):
                pytest.fail("two write in it")


def test_a_folder_that_was_made_anew_is_somebody_elses(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with owned(run):
        check_owned(run / "fold-1")
        shutil.rmtree(run)
        with pytest.raises(UserError, match="was deleted or made anew"):
            check_owned(run / "fold-1")
        with another(run):
            with pytest.raises(UserError, match="was deleted or made anew"):
                check_owned(run)
            check_owned(tmp_path)
    assert names(tmp_path) == {"run", LOCK}  # the other's


@pytest.mark.parametrize("when", ["on_epoch", "of_fold"])
def test_nothing_is_written_into_a_folder_that_was_made_anew(when: str, tmp_path: Path) -> None:
    """After the last epoch, before the model and the predictions, and after these, before the summary."""
    run = tmp_path / "run"

    def anew(_: object) -> dict:
        shutil.rmtree(run)
        run.mkdir()
        return {}

    callbacks = {"on_epoch": anew} if when == "on_epoch" else {"examination": dataclasses.replace(EXPLAINED, of_fold=anew)}
    config = TrainConfig(out=run, people=12, walks_per_person=2, frames=12, hidden=8, heads=2, layers=1, epochs=1, encoder_layers=0)
    with pytest.raises(UserError, match="was deleted or made anew"):
        training.train(config, quiet=True, **callbacks)
    assert names(run) == set()


@pytest.mark.parametrize(("kind", "make"), [("a folder", Path.mkdir), ("a link", lambda path: path.symlink_to("a")), ("no regular file", os.mkfifo)])
def test_what_is_no_lock_is_named(kind: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / LOCK)
    with pytest.raises(UserError, match=rf"\.fastst\.lock is {kind}, and no lock of fastst; delete it") as told, owned(tmp_path):
        pytest.fail("it is no lock")
    assert str(tmp_path / LOCK) in str(told.value)
    assert names(tmp_path) == {LOCK}


def test_a_lock_that_says_nothing(tmp_path: Path) -> None:
    with another(tmp_path):
        for content in ("", "\n{", "\n[]", "\n" + "[" * 4000, '\n{"command": "\\u001b[2J", "pid": 1, "host": "x", "since": ""}'):
            (tmp_path / LOCK).write_text(content)
            with pytest.raises(UserError, match="is in use: ") as told, owned(tmp_path):
                pytest.fail("two have it")
            assert str(told.value).isprintable()


@pytest.mark.parametrize("command", ["train", "resume", "audit", "evaluate", "predict"])
def test_whatever_writes_into_a_run_waits_for_its_turn(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "data.csv").touch()
    if command != "train":
        (run / "config.json").write_text(TrainConfig(out=run).to_json())
    data = ["--run", str(run), "--data", str(tmp_path / "data.csv"), "--out", str(run / "out.json")]
    main, arguments = {
        "train": (train.main, ["--out", str(run)]),
        "resume": (train.main, ["--resume", "--out", str(run)]),
        "audit": (audit.main, ["--run", str(run), "--walk", "any"]),
        "evaluate": (evaluate.main, data),
        "predict": (predict.main, data),
    }[command]
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with another(run) as (process, _):
        before = names(run)
        with pytest.raises(UserError, match=f"{re.escape(str(run))} is in use: .*process {process.pid} on"):
            main()
        assert names(run) == before


def epochs(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_runs_at_once_and_two_that_go_on(commands: Commands, tmp_path: Path) -> None:
    run, said = tmp_path / "run", [tmp_path / "0", tmp_path / "1"]
    two = [commands.start(*TINY, "--epochs", "6", "--out", run, said=file) for file in said]
    refused = wait_for_one(two, commands)
    in_use, is_there = f"error: {run} is in use: ", f"error: --out {run} holds another run; "  # the latter where the other one had begun already
    assert said[refused].read_text().startswith((in_use, is_there))
    while not (run / "metrics.jsonl").exists():
        assert not has_ended(two[1 - refused]), said[1 - refused].read_text()
        time.sleep(0.01)
    os.kill(two[1 - refused], signal.SIGKILL)
    assert commands.code(two[1 - refused]) == -signal.SIGKILL
    two = [commands.start("--resume", "--out", run, said=file) for file in said]
    refused = wait_for_one(two, commands)
    assert said[refused].read_text().startswith(f"error: {run} is in use: ")
    assert commands.code(two[1 - refused]) == 0
    assert epochs(run) == [1, 2, 3, 4, 5, 6]
    assert {"summary.json", "model.safetensors"} < names(run)
    assert not {name for name in names(run) if name == LOCK or ".part" in name}


def wait_for_one(processes: list[int], commands: Commands) -> int:
    """Which of two has ended first, with an error in words."""
    while True:
        for number, process in enumerate(processes):
            if has_ended(process):
                assert commands.code(process) == 2
                return number
        time.sleep(0.01)
