"""Commands as processes of their own: typed anew, or, since imports take longer than a small training, forked from one that has imported everything.

A forked command begins with the first line of `fastst`, as a typed one does, and is as much a process for signals and locks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import importlib
import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import ROOT, TRAINING

_PATIENCE = 60.0  # seconds for which a command that hangs gets nothing done, or of a processor's time that it takes to get anywhere
_CHANGES = ("seconds", "checksum", "sha256", "crc32")  # what is another in every run, and what is made of it


@dataclass(eq=False)
class Command:
    """A running command; its words go to a file."""

    pid: int
    printed: Path
    typed: subprocess.Popen[bytes] | None
    code: int | None = None  # its exit status, once it has ended; minus a signal's number

    def is_over(self) -> bool:
        if self.code is None:
            if self.typed is not None:
                self.code = self.typed.poll()
            else:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code is not None

    def wait(self) -> bool:
        """Whether it ended by itself; one that hangs says where, and is ended."""
        used, changed = 0.0, time.monotonic()
        while not self.is_over():
            if (now := processor_time(self.pid)) != used:
                used, changed = now, time.monotonic()
            if used > _PATIENCE or time.monotonic() - changed > _PATIENCE:
                self.send(signal.SIGUSR1)
                time.sleep(1)
                self.send(signal.SIGKILL)
                while not self.is_over():
                    time.sleep(0.005)
                return False
            time.sleep(0.005)
        return True

    def wait_for_handlers(self) -> bool:
        """Until it minds signals, which it has to from its first line; False if it ended before, or never does."""
        until = time.monotonic() + _PATIENCE / 6
        wanted = (1 << (signal.SIGTERM - 1)) | (1 << (signal.SIGINT - 1))
        while not self.is_over() and time.monotonic() < until:
            with contextlib.suppress(OSError):
                caught = Path(f"/proc/{self.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
                if int(caught, 16) & wanted == wanted:
                    return True
            time.sleep(0.002)
        return False

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def words(self) -> str:
        return self.printed.read_text(encoding="utf-8", errors="surrogateescape")


def processor_time(process: int) -> float:
    """Seconds; 0 of one that has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def typed(module: str, arguments: list[str], printed: Path) -> Command:
    """`python -m module arguments`."""
    with printed.open("wb") as file:
        words = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=_mind_signals)
    return Command(process.pid, printed, process)


def forked(module: str, arguments: list[str], printed: Path, dies_at: tuple[int, bool] | None = None) -> Command:
    """The same, in a copy of this process; `dies_at` is the number of a file of those that get their names, and whether it has it then."""
    pid = os.fork()
    if pid == 0:
        if dies_at is not None:
            _die_at(*dies_at)
        os._exit(_run(module, arguments, printed))
    return Command(pid, printed, None)


def _die_at(number: int, is_there: bool) -> None:
    """From now on this process kills itself before a file gets its name, or after that."""
    replace, left = os.replace, itertools.count(1 - number)

    def replace_or_die(*names: Any, **options: Any) -> None:
        is_last = not next(left)
        if not is_last or is_there:
            replace(*names, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die


def _run(module: str, arguments: list[str], printed: Path) -> int:
    """As Python runs `-m module`; returns the exit status."""
    _mind_signals()
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115 - until the process ends
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
    sys.argv, sys.orig_argv = ["-m", *arguments], [sys.executable, "-m", module, *arguments]
    try:
        importlib.reload(importlib.import_module("fastst"))
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code: Any = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return 0 if code is None else code if isinstance(code, int) else 1


def _mind_signals() -> None:
    """What was started in the background, or by nohup, ignores some of them, and so would its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


Start = Callable[[str, list[str], Path], Command]


class Reference:
    """A training that nobody disturbed, and how long it took.

    Args:
        files: what it left, without what is another every time.
        seconds: of a forked command, from its start to its end.
        after: of these, since its last epoch: it is tested, looked into and drawn.
    """

    def __init__(self, start: tuple[Start, ...]) -> None:
        """By a training in this process, after which its copies have everything that is imported, compiled or drawn at first use; and by others
        that are started in these ways, which have to leave the same."""
        from fastst.explanation.report import EXPLAINED
        from fastst.runs.training import train
        from fastst.train import read_config

        with tempfile.TemporaryDirectory(prefix="fastst-stress-") as made:
            folder = Path(made)
            train(read_config([*TRAINING, "--out", str(folder / "own")]), EXPLAINED, quiet=True)
            self.files = files_of(folder / "own")
            for number, begin in enumerate(start):
                started, run = time.monotonic(), folder / str(number)
                command = begin("fastst.train", [*TRAINING, "--out", str(run)], folder / "words")
                command.wait()
                self.seconds = time.monotonic() - started
                self.after = (run / "summary.json").stat().st_mtime - (run / "metrics.jsonl").stat().st_mtime if not command.code else 0.0
                if command.code or self.differences(run):
                    raise RuntimeError(f"trainings that nobody disturbed differ in {self.differences(run)}: {command.code}, {command.words}")

    def differences(self, run: Path) -> list[str]:
        """Files that are not as in the undisturbed run, or are too many."""
        files = files_of(run)
        return sorted(name for name in self.files.keys() | files.keys() if self.files.get(name) != files.get(name))


def files_of(run: Path) -> dict[str, str]:
    """A fingerprint of every file in the folder of a run, without the times that are in it; who holds the folder's lock is not of the run."""
    return {str(path.relative_to(run)): _fingerprint(path) for path in sorted(run.rglob("*")) if path.is_file() and "lock" not in path.name}


def _fingerprint(path: Path) -> str:
    content = path.read_bytes()
    with contextlib.suppress(ValueError):
        if path.suffix in (".json", ".jsonl"):
            content = json.dumps([_steady(json.loads(line)) for line in ([content] if path.suffix == ".json" else content.splitlines())]).encode()
        if path.suffix == ".safetensors":
            end = 8 + int.from_bytes(content[:8], "little")
            content = json.dumps(_steady(json.loads(content[8:end]))).encode() + content[end:]
    return hashlib.sha256(content).hexdigest()


def _steady(value: Any) -> Any:
    """Without what changes from run to run; a text that is JSON is looked into."""
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in sorted(value.items()) if not key.startswith(_CHANGES)}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return _steady(json.loads(value))
    return value


def reset_peak() -> int:
    """Bytes in use; from now on the peak is of what comes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Most bytes in use since then."""
    from fastst.cpu.memory import peak_memory  # only now: torch is to see what `common` has put into the environment

    return peak_memory()
