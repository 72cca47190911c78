"""`python -m tests.stress.files`: damaged files, made by a fuzzer that looks at which lines of fastst they reach, and how every command takes them.

Each kind of file is fuzzed in a process of its own, forked when everything is imported; a damaged file that ends or stops that process is found too.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import atheris

from .common import HANG, ROOT, Clock, Part, failures_of_words
from .mutate import mutate
from .processes import peak, processor_time, reset_peak

_LOOKED_AT = ("fastst.data", "fastst.config", "fastst.layouts", "fastst.errors", "fastst.runs.folder", "fastst.runs.opened", "fastst.runs.tables")
_COMPILED = ("fastst.data.digits", "fastst.data.formats.scan")  # by numba, which doesn't know a fuzzer's instructions
_BATCH = 100  # files that a process is given
_REAL = 100  # one in so many is given to a command of its own as well
_SILENT = 60.0  # seconds on the clock: the machine may have other things to do
_MEMORY = 500 << 20  # bytes that may be needed beside three times the data


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.files", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="damaged files, in all")
    parser.add_argument("--minutes", type=float, default=600, help="stop after so long, to go on the next time")
    parser.add_argument("--state", type=Path, default=ROOT / ".stress", help="folder of what was done before")
    parser.add_argument("--only", default="", help="targets with this in their names")
    options = parser.parse_args(arguments)
    print(fuzz(options.state, options.count, options.minutes, options.only).in_words())


def fuzz(state: Path, count: int, minutes: float = 600, only: str = "") -> Part:
    """Goes on until `count` files were tried, as many of every kind, or the time is over; to one more batch at least."""
    part, clock = Part.at(state / "files.json"), Clock(minutes)
    if clock.is_over():
        return part
    every = _targets(state / "run", only)
    tried: dict[str, int] = part.notes.setdefault("files", {})
    share = -(-count // len(every))  # of each
    clock.lap()
    while left := [name for name in every if tried.get(name, 0) < share]:
        name = min(left, key=lambda name: tried.get(name, 0))
        wanted = min(_BATCH, share - tried.get(name, 0))
        done, failures = _batch(every[name], state, wanted, tried.get(name, 0) + 1)
        tried[name] = tried.get(name, 0) + done
        part.add(done, clock.lap(), failures)
        print(f"{name}: {tried[name]} of {share}{''.join(f'; {kind}: {where}' for kind, where in failures)}", flush=True)
        if clock.is_over():
            break
    return part


def _targets(run: Path, only: str) -> dict[str, Any]:
    """With fastst imported such that the fuzzer sees which lines are reached; `run` is made where one is wanted."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in (ROOT / "fastst").rglob("*.py")}
    unseen = [name for name in modules if not name.startswith(_LOOKED_AT) or name in _COMPILED]
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), atheris.instrument_imports(include=["fastst"], exclude=unseen):
        from . import targets
    every = targets.targets(run, only)
    _warm(every)
    return every


def _warm(every: dict[str, Any]) -> None:
    """Reads the good files, after which a forked process has everything that is compiled or imported at first use.

    Raises:
        RuntimeError: one of them can't be read, so that nothing would be learned from its damage.
    """
    for target in every.values():
        ending, content = target.seeds[0]
        with tempfile.TemporaryDirectory(prefix="fastst-fuzz-") as made, (Path(made) / "printed").open("w") as printed:
            place = Path(made) / "place"
            place.mkdir()
            path = target.place(place, ending, content)
            with redirect_stdout(printed), redirect_stderr(printed):
                ended = _ended(lambda: target.read(path))  # noqa: B023 - called at once
        if ended.failure or (ended.words and target.name != "labels of people"):
            raise RuntimeError(f"a good file of {target.name} is not read: {ended.failure or ended.words}")


def _batch(target: Any, state: Path, wanted: int, seed: int) -> tuple[int, list[tuple[str, str]]]:
    """Tries so many files in a child. Returns how many it tried, and how they failed."""
    failures: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="fastst-fuzz-") as made:
        folder, shared = Path(made), mmap.mmap(-1, 16)  # how many were tried, and when the last one was begun
        shared[:] = struct.pack("<qd", 0, time.monotonic())
        child = os.fork()
        if child == 0:
            _Child(target, state, folder, shared, wanted, seed).fuzz()
        status = _watch(child, shared)
        tried, _ = struct.unpack("<qd", shared[:])
        if (folder / "failures").exists():
            for line in (folder / "failures").read_text(errors="backslashreplace").splitlines():
                kind, _, where = line.partition("\t")
                failures.append((kind, where))
        if status != 0:
            kept = _keep(state, target.name, folder / "now")
            words = (folder / "log").read_text(errors="replace")[-300:] if (folder / "log").exists() else ""
            failures.append(("hang", f"{target.name}: {kept}") if status is None else ("signal death", f"{target.name}: {status}: {kept}: {words!a}"))
    return tried, failures


def _watch(child: int, shared: mmap.mmap) -> int | None:
    """The exit status of the child; None if it had to be killed, since one file took too long."""
    last, used = -1, 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        tried, begun = struct.unpack("<qd", shared[:])
        if tried != last:
            last, used = tried, processor_time(child)
        if processor_time(child) - used > HANG or time.monotonic() - begun > _SILENT:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def _keep(state: Path, name: str, file: Path) -> str:
    """Keeps a copy of a file that something was found with; its name in the folder of what was done."""
    content = file.read_bytes()
    kept = state / "found" / f"{''.join(c if c.isalnum() else '_' for c in name)}-{hashlib.sha256(content).hexdigest()[:12]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    return f"{kept.parent.name}/{kept.name}"


class _Child:
    """What a forked process does: hands files to the target, and notes how it took them."""

    def __init__(self, target: Any, state: Path, folder: Path, shared: mmap.mmap, wanted: int, seed: int) -> None:
        self.target, self.state, self.folder, self.shared, self.wanted, self.seed = target, state, folder, shared, wanted, seed
        self.corpus = state / "corpus" / hashlib.sha256(target.name.encode()).hexdigest()[:12]
        self.endings = [ending for ending, _ in target.seeds]
        self.good = {content for _, content in target.seeds}
        self.tried = 0
        self.outside: list[str] = []
        self.is_watched = False

    def fuzz(self) -> None:
        """Ends the process."""
        try:
            self._start()
        except BaseException:
            (self.folder / "log").write_text(traceback.format_exc())
            os._exit(70)

    def _start(self) -> None:
        os.setsid()
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        self.corpus.mkdir(parents=True, exist_ok=True)
        for content in self.good:
            (self.corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
        sys.addaudithook(self._hear)
        flags = [
            "-handle_segv=0",
            "-handle_bus=0",
            "-handle_abrt=0",
            "-handle_ill=0",
            "-handle_fpe=0",
            "-handle_int=0",
            "-handle_term=0",
            f"-timeout={1 << 20}",
        ]
        flags += ["-rss_limit_mb=0", "-malloc_limit_mb=0", "-detect_leaks=0", "-len_control=0", "-max_len=200000", f"-seed={self.seed}"]
        flags.append(f"-artifact_prefix={self.folder}/")
        atheris.Setup(["fuzz", *flags, str(self.corpus)], self._try_or_end, custom_mutator=self._mutate)
        atheris.Fuzz()
        os._exit(0)

    def _mutate(self, data: bytes, size: int, seed: int) -> bytes:
        """By bytes, as the fuzzer does it, or by the form, which it doesn't know."""
        return (atheris.Mutate(data, size) if seed % 4 == 0 else mutate(data or min(self.good, key=len), seed))[:size]

    def _try_or_end(self, data: bytes) -> None:
        try:
            self._try(data)
        except BaseException:  # a mistake of the stress test itself
            (self.folder / "log").write_text(traceback.format_exc())
            os._exit(70)

    def _try(self, data: bytes) -> None:
        self.shared[:] = struct.pack("<qd", self.tried, time.monotonic())
        (self.folder / "now").write_bytes(data)
        place = self.folder / "place"
        place.mkdir()
        ending = self.endings[len(data) % len(self.endings)]
        path = self.target.place(place, ending, data)
        self._judge(lambda: self.target.read(path), len(data))
        if self.tried % _REAL == _REAL // 2 and data not in self.good:
            self._judge_command(path)
        shutil.rmtree(place)
        self.tried += data not in self.good
        self.shared[:] = struct.pack("<qd", self.tried, time.monotonic())
        if self.tried >= self.wanted:
            os._exit(0)

    def _judge(self, read: Callable[[], None], size: int) -> None:
        before = reset_peak()
        printed = (self.folder / "printed").open("w+", encoding="utf-8", errors="backslashreplace")
        self.outside.clear()
        ended = _UNENDED
        self.is_watched = True
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                ended = _ended(read)
        finally:
            self.is_watched = False
        printed.seek(0)
        failures = [ended.failure] if ended.failure else []
        failures += failures_of_words(printed.read() + ended.words)
        printed.close()
        failures += [("code run", event) for event in self.outside]
        if (grown := peak() - before) > _MEMORY + 3 * size:
            failures.append(("memory", f"{grown >> 20} MB for {size} bytes"))
        self._note(failures)

    def _judge_command(self, path: Path) -> None:
        """By a command of its own, as a user types it."""
        module, *arguments = self.target.command(path)
        (path.parent.parent / "out.npz").unlink(missing_ok=True)
        try:
            ended = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, timeout=10 * _SILENT)
        except subprocess.TimeoutExpired:
            self._note([("hang", f"{module}")])
            return
        words = (ended.stdout + ended.stderr).decode("utf-8", "surrogateescape")
        failures = failures_of_words(words)
        if ended.returncode < 0:
            failures.append(("signal death", f"{module}: {-ended.returncode}"))
        elif ended.returncode not in (0, 2):
            failures.append(("wrong", f"{module} ended with {ended.returncode}"))
        self._note(failures)

    def _note(self, failures: list[tuple[str, str]]) -> None:
        if not failures:
            return
        kept = _keep(self.state, self.target.name, self.folder / "now")
        with (self.folder / "failures").open("a", errors="backslashreplace") as file:
            for kind, where in failures:
                file.write(f"{kind}\t{self.target.name}: {' '.join(where.split())}: {kept}\n")

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Notes what no reader of data may do."""
        if not self.is_watched:
            return
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect"):
            self.outside.append(f"{event} {str(arguments[0])[:80]}")
        if (
            event == "open"
            and isinstance(arguments[0], str)
            and isinstance(arguments[2], int)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            path = os.path.realpath(arguments[0])
            if not path.startswith((str(self.folder), os.path.realpath(self.folder), "/dev/")) and "__pycache__" not in path and "numba" not in path:
                self.outside.append(f"wrote {path}")


class _Ended:
    """How the reading of a file ended."""

    def __init__(self, words: str = "", failure: tuple[str, str] | None = None) -> None:
        self.words, self.failure = words, failure


_UNENDED = _Ended()


def _ended(read: Callable[[], None]) -> _Ended:
    from fastst.errors import UserError

    from .targets import Accepted, Lost

    try:
        read()
    except UserError as error:
        return _Ended(str(error))
    except Lost as error:
        return _Ended(failure=("lost", str(error)))
    except Accepted as error:
        return _Ended(failure=("wrong", str(error)))
    except SystemExit as error:
        return _Ended() if error.code in (0, 2) else _Ended(failure=("wrong", f"ended with {error.code}"))
    except BaseException as error:  # whatever it is, a user would see it
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fastst/" in frame.filename]
        place = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno} in {frames[-1].name}" if frames else "?"
        return _Ended(failure=("traceback", f"{type(error).__name__} at {place}: {str(error)[:150]}"))
    return _Ended()


if __name__ == "__main__":
    main()
