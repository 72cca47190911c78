"""`python -m tests.stress.kills`: trainings that are killed at random moments, go on, and have to end as one that nobody disturbed, bit for bit.

Kills are SIGKILL, SIGTERM and SIGINT, now and then SIGINT twice; a run is killed up to four times. One command in ten is typed anew, so that
signals come in the middle of imports too.
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
    """Goes on until trainings were killed `count` times, or the time is over."""
    part, clock = Part.at(state / "kills.json"), Clock(minutes)
    if part.done >= count or clock.is_over():
        return part
    reference = reference or Reference((typed, forked))
    while part.done < count and not clock.is_over():
        failures, kills, slowest = _case(reference, random.Random(part.done), count - part.done)
        part.notes["slowest stop, s"] = max(part.notes.get("slowest stop, s", 0.0), round(slowest, 2))
        part.notes["runs"] = part.notes.get("runs", 0) + 1
        part.add(kills, clock.lap(), failures)
        print(f"{part.done} kills of {count}{''.join(f'; {kind}: {where}' for kind, where in failures)}", flush=True)
    return part


def _case(reference: Reference, rng: random.Random, most: int) -> tuple[list[tuple[str, str]], int, float]:
    """A run, killed up to four times and then left alone: what went wrong, how often it was killed, how long until it stopped."""
    with tempfile.TemporaryDirectory(prefix="fastst-kills-") as made:
        run, failures, kills, slowest = Path(made) / "run", [], 0, 0.0
        for _ in range(min(rng.choice((1, 2, 3, 4)), most)):
            number = rng.choice(tuple(_CODES))
            command = _start(run, Path(made) / "words", rng)
            found, seconds = _kill(command, number, rng, reference.seconds + (_IMPORTS if command.typed else 0))
            failures += found
            kills, slowest = kills + 1, max(slowest, seconds)
            if command.code == 0:
                break
        last = _start(run, Path(made) / "words", rng)
        if not last.wait():
            failures.append(("hang", f"a training that goes on does not end: {last.words[-1500:]!a}"))
        failures += failures_of_words(last.words)
        if last.code:
            failures.append(("lost", f"a killed run can't go on: it ended with {last.code}: {last.words[-300:]!a}"))
        elif differing := reference.differences(run):
            failures.append(("wrong", f"after a kill {differing} are other than in a run that nobody disturbed"))
    return failures, kills, slowest


def _start(run: Path, words: Path, rng: random.Random) -> Command:
    """A new training, or the one that was killed."""
    is_begun = (run / "config.json").exists()
    arguments = [*(["--resume"] if is_begun else TRAINING), "--out", str(run)]
    return (typed if rng.random() < 0.1 else forked)("fastst.train", arguments, words)


def _kill(command: Command, number: int, rng: random.Random, seconds: float) -> tuple[list[tuple[str, str]], float]:
    """Sends the signal within so many seconds; what went wrong, and how long until the command stopped."""
    if not command.wait_for_handlers() and not command.is_over():
        command.send(signal.SIGKILL)
        command.wait()
        return [("wrong", "the command does not mind signals: it has no handlers of SIGINT and SIGTERM")], 0.0
    time.sleep(rng.uniform(0, seconds))
    is_training, sent = "epoch 1/" in command.words, time.monotonic()
    command.send(number)
    if number == signal.SIGINT and rng.random() < 0.3:  # somebody is impatient
        time.sleep(rng.uniform(0, 0.1))
        command.send(number)
    if not command.wait():
        return [("hang", f"{signal.Signals(number).name} did not stop it: {command.words[-1500:]!a}")], 0.0
    took, name, words = time.monotonic() - sent, signal.Signals(number).name, command.words
    failures = failures_of_words(words)
    if command.code and took > _STOPS_IN * max(1.0, os.getloadavg()[0]):
        failures.append(("hang", f"{name} took {took:.1f} s to stop it"))
    if command.code not in (0, _CODES[signal.Signals(number)]):
        kind = "signal death" if command.code is not None and command.code < 0 else "wrong"
        failures.append((kind, f"{name} ended with {command.code}: {words[-200:]!a}"))
    elif command.code and number != signal.SIGKILL and is_training and "--resume" not in words:
        failures.append(("wrong", f"{name}: nothing is said of --resume: {words[-200:]!a}"))
    return failures, took


if __name__ == "__main__":
    main()
