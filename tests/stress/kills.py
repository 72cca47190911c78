"""`python -m tests.stress.kills`: trainings that are killed at random moments, go on, and have to end as one that nobody disturbed, bit for bit.

Kills are SIGKILL, SIGTERM and SIGINT, now and then SIGINT twice; a run is killed up to six times. A third of them come at any time; a third after
the last epoch, when a model is tested, looked into and drawn; and a third are SIGKILL just before or after a file gets its name. One command in ten
is typed anew, so that signals come in the middle of imports too.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from .common import ROOT, TRAINING, Clock, Part, failures_of_words
from .processes import Command, Reference, forked, typed

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
_STOPS_IN = 2.0  # seconds, where the machine does nothing else
_IMPORTS = 4.0  # seconds that a typed command takes before it does anything


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills, in all")
    parser.add_argument("--minutes", type=float, default=600, help="stop after so long, to go on the next time")
    parser.add_argument("--state", type=Path, default=ROOT / ".stress", help="folder of what was done before")
    options = parser.parse_args(arguments)
    print(kill(options.state, options.count, options.minutes).in_words())


def kill(state: Path, count: int, minutes: float = 600, reference: Reference | None = None) -> Part:
    """Goes on until trainings were killed `count` times, or the time is over; to one more run at least, for what is made ready takes time too."""
    part, clock = Part.at(state / "kills.json"), Clock(minutes)
    if part.done >= count or clock.is_over():
        return part
    reference = reference or Reference((typed, forked))
    clock.lap()
    while True:
        failures, kills, slowest = _case(reference, random.Random(part.done), count - part.done)
        part.notes["slowest stop, s"] = max(part.notes.get("slowest stop, s", 0.0), round(slowest, 2))
        part.notes["runs"] = part.notes.get("runs", 0) + 1
        part.add(kills, clock.lap(), failures)
        print(f"{part.done} kills of {count}{''.join(f'; {kind}: {where}' for kind, where in failures)}", flush=True)
        if part.done >= count or clock.is_over():
            return part


def _case(reference: Reference, rng: random.Random, most: int) -> tuple[list[tuple[str, str]], int, float]:
    """A run, killed up to six times and then left alone: what went wrong, how often it was killed, how long until it stopped."""
    with tempfile.TemporaryDirectory(prefix="fastst-kills-") as made:
        run, words, failures, kills, slowest = Path(made) / "run", Path(made) / "words", [], 0, 0.0
        for _ in range(min(rng.randint(1, 6), most)):
            code, found, seconds = rng.choice((_killed_at_any_time, _killed_at_the_end, _killed_at_a_file))(run, words, reference, rng)
            failures += found
            kills, slowest = kills + 1, max(slowest, seconds)
            if code == 0:
                break
        last = forked("fastst.train", _arguments(run), words)
        if not last.wait():
            failures.append(("hang", f"a training that goes on does not end: {last.words[-1500:]!a}"))
        failures += failures_of_words(last.words)
        if last.code:
            failures.append(("lost", f"a killed run can't go on: it ended with {last.code}: {last.words[-300:]!a}"))
        elif differing := reference.differences(run):
            failures.append(("wrong", f"after a kill {differing} are other than in a run that nobody disturbed{_error(run)}"))
    return failures, kills, slowest


_Killed = tuple[int | None, list[tuple[str, str]], float]  # the exit code, what went wrong, and how long until it stopped


def _killed_at_any_time(run: Path, words: Path, reference: Reference, rng: random.Random) -> _Killed:
    command = (typed if rng.random() < 0.1 else forked)("fastst.train", _arguments(run), words)
    return _signalled(command, rng, reference.seconds + (_IMPORTS if command.typed else 0))


def _killed_at_the_end(run: Path, words: Path, reference: Reference, rng: random.Random) -> _Killed:
    """After the last epoch, where half of the time goes and nearly all files are written."""
    command = forked("fastst.train", _arguments(run), words)
    while not command.is_over() and not _is_trained(run):
        time.sleep(0.005)
    return _signalled(command, rng, reference.after)


def _killed_at_a_file(run: Path, words: Path, reference: Reference, rng: random.Random) -> _Killed:
    command = forked("fastst.train", _arguments(run), words, dies_at=(rng.randint(1, len(reference.files) + 6), rng.random() < 0.5))
    if not command.wait():
        return command.code, [("hang", f"a training does not end: {command.words[-1500:]!a}")], 0.0
    failures = failures_of_words(command.words)
    if command.code not in (0, -signal.SIGKILL):
        failures.append(("wrong", f"ended with {command.code}: {command.words[-200:]!a}"))
    return command.code, failures, 0.0


def _arguments(run: Path) -> list[str]:
    """Of a new training, or of the one that was killed."""
    return [*(["--resume"] if (run / "config.json").exists() else TRAINING), "--out", str(run)]


def _is_trained(run: Path) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.exists() and len(metrics.read_bytes().splitlines()) == int(TRAINING[TRAINING.index("--epochs") + 1])


def _signalled(command: Command, rng: random.Random, seconds: float) -> _Killed:
    """Sends a signal within so many seconds."""
    if not command.wait_for_handlers() and not command.is_over():
        command.send(signal.SIGKILL)
        command.wait()
        return command.code, [("wrong", "the command does not mind signals: it has no handlers of SIGINT and SIGTERM")], 0.0
    number = rng.choice(tuple(_CODES))
    time.sleep(rng.uniform(0, seconds))
    is_training, sent = "epoch 1/" in command.words, time.monotonic()
    command.send(number)
    if number == signal.SIGINT and rng.random() < 0.3:  # somebody is impatient
        time.sleep(rng.uniform(0, 0.1))
        command.send(number)
    if not command.wait():
        return command.code, [("hang", f"{number.name} did not stop it: {command.words[-1500:]!a}")], 0.0
    took, words = time.monotonic() - sent, command.words
    failures = failures_of_words(words)
    if command.code and took > _STOPS_IN * max(1.0, os.getloadavg()[0]):
        failures.append(("hang", f"{number.name} took {took:.1f} s to stop it"))
    if command.code not in (0, _CODES[number]):
        kind = "signal death" if command.code is not None and command.code < 0 else "wrong"
        failures.append((kind, f"{number.name} ended with {command.code}: {words[-200:]!a}"))
    elif command.code and number != signal.SIGKILL and is_training and "--resume" not in words:
        failures.append(("wrong", f"{number.name}: nothing is said of --resume: {words[-200:]!a}"))
    return command.code, failures, took


def _error(run: Path) -> str:
    """What the run says of pictures that it could not draw, or an audit that failed."""
    from fastst.runs.folder import read_summary  # only now: torch is to see what `common` has put into the environment

    summary = read_summary(run) or {}
    said = [error for error in (summary.get("figures_error"), summary.get("audit", {}).get("error")) if error]
    return f", which says: {said}" if said else ""


if __name__ == "__main__":
    main()
