"""`python -m tests.stress.pairs`: two commands at once on the folder of one run. One owns it, the other is told, and what is left is right.

Pairs are two new runs with one --out, two that go on with one run, and one that goes on beside an evaluation, a prediction or an audit that
writes into its folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .common import ROOT, TRAINING, Clock, Part, failures_of_words
from .processes import Command, Reference, forked, typed

_Line = tuple[str, list[str]]  # a module and its arguments


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.pairs", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="pairs, in all")
    parser.add_argument("--minutes", type=float, default=600, help="stop after so long, to go on the next time")
    parser.add_argument("--state", type=Path, default=ROOT / ".stress", help="folder of what was done before")
    options = parser.parse_args(arguments)
    print(pair(options.state, options.count, options.minutes).in_words())


def pair(state: Path, count: int, minutes: float = 600, reference: Reference | None = None) -> Part:
    """Goes on until `count` pairs were tried, or the time is over; to one more at least, for what is made ready takes time too."""
    part, clock = Part.at(state / "pairs.json"), Clock(minutes)
    if part.done >= count or clock.is_over():
        return part
    reference = reference or Reference((typed, forked))
    with tempfile.TemporaryDirectory(prefix="fastst-pairs-") as made:
        begun, unfinished = _interrupted(Path(made)), _without_summary(Path(made))
        kinds: tuple[Callable[[Path, random.Random], tuple[_Line, _Line]], ...] = (
            lambda run, _: (_new(run), _new(run)),
            lambda run, _: (_copied(begun, run), _going_on(run)),
            lambda run, rng: (_copied(unfinished, run), _beside(run, rng)),
        )
        clock.lap()
        while True:
            failures = _case(reference, kinds[part.done % len(kinds)], random.Random(part.done))
            part.add(1, clock.lap(), failures)
            print(f"{part.done} pairs of {count}{''.join(f'; {kind}: {where}' for kind, where in failures)}", flush=True)
            if part.done >= count or clock.is_over():
                return part


def _case(reference: Reference, kind: Callable[[Path, random.Random], tuple[_Line, _Line]], rng: random.Random) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="fastst-pairs-") as made:
        run = Path(made) / "run"
        lines = kind(run, rng)
        start = typed if rng.random() < 0.1 else forked
        commands = []
        for number, (module, arguments) in enumerate(lines):
            commands.append(start(module, arguments, Path(made) / f"words-{number}"))
            time.sleep(rng.choice((0, 0, 0.02, rng.uniform(0, 0.3), rng.uniform(0, reference.seconds))))
        failures = [failure for command in commands for failure in _ended(command)]
        failures += _owner(lines, commands)
        extra = Path(lines[1][1][-1]).name if lines[1][0] != "fastst.train" else ""
        if any(command.code for command in commands):  # who was told goes on, which changes nothing where the other got to the end
            failures += _ended(last := forked(*_going_on(run), Path(made) / "words-last"))
            if last.code:
                failures.append(("lost", f"afterwards the run can't go on: {last.words[-300:]!a}"))
        if differing := [name for name in reference.differences(run) if name != extra]:
            failures.append(("wrong", f"{_called(lines)}: {differing} are other than in a run that nobody disturbed"))
    return failures


def _ended(command: Command) -> list[tuple[str, str]]:
    if not command.wait():
        return [("hang", f"it waits for ever: {command.words[-1500:]!a}")]
    failures = failures_of_words(command.words)
    if command.code not in (0, 2):
        kind = "signal death" if command.code is not None and command.code < 0 else "wrong"
        failures.append((kind, f"ended with {command.code}: {command.words[-200:]!a}"))
    return failures


def _owner(lines: tuple[_Line, _Line], commands: list[Command]) -> list[tuple[str, str]]:
    """That there was one, and that the other was told."""
    ends = [command.code for command in commands]
    if lines[0] == lines[1] and "--resume" not in lines[0][1] and ends.count(0) != 1:
        return [("lost", f"{_called(lines)}: they ended with {ends}, and of two new runs one can be there")]
    if ends.count(0) == 0:
        return [("lost", f"{_called(lines)}: they ended with {ends}: {' | '.join(command.words[-200:] for command in commands)!a}")]
    return [
        ("wrong", f"{_called(lines)}: ended with 2, and no error is said: {command.words[-200:]!a}")
        for command in commands
        if command.code == 2 and "error: " not in command.words
    ]


def _called(lines: tuple[_Line, _Line]) -> str:
    return " and ".join(module.removeprefix("fastst.") + (" --resume" if "--resume" in arguments else "") for module, arguments in lines)


def _new(run: Path) -> _Line:
    return "fastst.train", [*TRAINING, "--out", str(run)]


def _going_on(run: Path) -> _Line:
    if not (run / "config.json").exists():
        return _new(run)
    return "fastst.train", ["--resume", "--out", str(run)]


def _copied(saved: Path, run: Path) -> _Line:
    """Goes on with a copy of a run."""
    shutil.copytree(saved, run)
    return _going_on(run)


def _beside(run: Path, rng: random.Random) -> _Line:
    """A command that reads the run and writes into its folder."""
    out = ["--out", str(run / "another.json")]
    return rng.choice(
        (
            ("fastst.evaluate", ["--run", str(run), "--data", "synthetic", *out]),
            ("fastst.audit", ["--run", str(run), *out]),
        )
    )


def _interrupted(folder: Path) -> Path:
    """A run that was killed after some epochs."""
    run = folder / "interrupted"
    command = forked(*_new(run), folder / "words")
    while not command.is_over() and (not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_bytes().splitlines()) < 2):
        time.sleep(0.005)
    command.send(signal.SIGKILL)
    command.wait()
    return run


def _without_summary(folder: Path) -> Path:
    """A run that was killed when everything was written but its summary."""
    run = folder / "without-summary"
    command = forked(*_new(run), folder / "words")
    command.wait()
    (run / "summary.json").unlink()
    return run


if __name__ == "__main__":
    main()
