"""What the parts of the stress test share: where each has got to, what it found, and what no command may ever say."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: many small processes, which are forked
ROOT = Path(__file__).parents[2]
KINDS = ("traceback", "hang", "lost", "wrong", "code run", "memory", "signal death", "control characters")
TRAINING = ["--people", "8", "--walks-per-person", "1", "--frames", "20", "--hidden", "8", "--heads", "2", "--layers", "2", "--epochs", "6"]
TRAINING += ["--batch-size", "4"]  # as short as a training can be that goes through everything
HANG = 20.0  # seconds, of a processor's time, that nothing small may take
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_BUG = re.compile(r"Traceback \(most recent call last\)|bug report|mistake in fastst|Exception ignored|Segmentation fault|core dumped", re.IGNORECASE)


@dataclass
class Part:
    """Where a part of the stress test has got to; kept in a file, so that it goes on where it stopped.

    Args:
        path: the file.
        done: cases so far; the next one has this number.
        seconds: how long they took.
        found: how many of each kind of failure.
        examples: the first of each kind and place, in words.
    """

    path: Path
    done: int = 0
    seconds: float = 0.0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def at(path: Path) -> Part:
        """Where the part in this file was left, or its beginning."""
        return Part(path, **json.loads(path.read_text())) if path.exists() else Part(path)

    def add(self, cases: int, seconds: float, failures: list[tuple[str, str]]) -> None:
        """So many more cases, and how they failed: kind, and where and why."""
        self.done += cases
        load = round(os.getloadavg()[0], 1)
        self.notes["load"] = max(load, self.notes.get("load", 0.0))
        self.seconds += seconds
        for kind, where in failures:
            self.found[kind] += 1
            self.examples.setdefault(f"{kind}: {where[:100]}", where)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({name: value for name, value in asdict(self).items() if name != "path"}, indent=1))
        part.replace(self.path)

    def in_words(self) -> str:
        failed = ", ".join(f"{count} {kind}" for kind, count in self.found.items() if count) or "nothing found"
        return f"{self.path.stem}: {self.done} cases in {self.seconds:.0f} s: {failed}"


class Clock:
    """Whether there is time left, and how long since the last question."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60 * minutes
        self._last = time.monotonic()

    def is_over(self) -> bool:
        return self.left() <= 0

    def left(self) -> float:
        """Minutes."""
        return (self._ends - time.monotonic()) / 60

    def lap(self) -> float:
        last, self._last = self._last, time.monotonic()
        return self._last - last


def failures_of_words(words: str) -> list[tuple[str, str]]:
    """What a command printed that no command may print: kind, and where."""
    found = []
    if match := _BUG.search(words):
        lines = words[match.start() :].strip().splitlines()
        place = next((line.strip() for line in reversed(lines) if "fastst/" in line), "")
        found.append(("traceback", f"{lines[-1][:200]} ({place})"))
    if match := _CONTROL.search(words):
        found.append(("control characters", f"{match.group()!a} in {words[max(match.start() - 60, 0) : match.end() + 20]!a}"))
    return found
