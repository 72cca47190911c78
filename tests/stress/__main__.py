"""`python -m tests.stress`: files, kills, pairs, operators and scale, one after the other; what was done and found becomes docs/stress.md.

It goes on where it stopped, until all of it is done: 1,000 files, 100 kills, 20 pairs and 10,000 cases of operators, ten times as much with --full.
At its end it says what is left and about how long that takes; the time is dealt out among the parts by what is left of each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .common import KINDS, ROOT, Clock, Part

_PAGE = ROOT / "docs" / "stress.md"
_COUNTS = {"files": (1_000, 10_000), "kills": (100, 1_000), "pairs": (20, 200), "operators": (10_000, 100_000)}
# Of the time that is left, for each, as long as nobody knows how long a case takes; what isn't used is the next one's.
_SHARES = {"files": 0.25, "kills": 0.5, "pairs": 0.5, "operators": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--full", action="store_true", help="ten times as much")
    parser.add_argument("--anew", action="store_true", help="begin again")
    parser.add_argument("--scale", action="store_true", help="also walks and graphs as large as they come, however long it takes")
    parser.add_argument("--minutes", type=float, default=30, help="stop after so long, to go on the next time; 0 renews the table")
    parser.add_argument("--state", type=Path, default=ROOT / ".stress", help="folder of what was done before")
    options = parser.parse_args()
    if options.anew:
        shutil.rmtree(options.state, ignore_errors=True)
    wanted = {name: counts[options.full] for name, counts in _COUNTS.items()}
    clock, broken = Clock(options.minutes), []
    for name, count in wanted.items() if options.minutes else ():
        left = {other: minutes_left(other, options.state, wanted[other]) for other in wanted}
        if left[name] != 0 and not clock.is_over() and _run(name, count, share(name, left) * clock.left(), options.state):
            broken.append(name)
    if options.scale and call("scale", "--state", str(options.state)):
        broken.append("scale")
    _PAGE.write_text(page(options.state, wanted), encoding="utf-8")
    found = sum(sum(part.found.values()) for part in _parts(options.state).values()) + _operators(options.state)["failed"]
    print(f"{found} failures; the table is in {_PAGE}")
    print(*(_left_in_words(name, options.state, count) for name, count in wanted.items()), sep="\n")
    for name in broken:
        print(f"{name} did not run to its end, see above: nothing is known of what it had not tried before")
    sys.exit(bool(found or broken))


def share(name: str, left: dict[str, float | None]) -> float:
    """Of the time that is left, what a part gets of it and those that come after it in `left`, which has the minutes that each needs."""
    still = list(left)[list(left).index(name) :]
    needed = [minutes for other in still if (minutes := left[other]) is not None]
    mine = left[name]
    return _SHARES[name] if mine is None or len(needed) < len(still) else mine / sum(needed)


def minutes_left(name: str, state: Path, count: int) -> float | None:
    """How long the cases take that were not tried yet, by those that were; None if none was."""
    done, seconds = _progress(name, state)
    if done >= count:
        return 0.0
    return (count - done) * seconds / done / 60 if done and seconds else None


def _left_in_words(name: str, state: Path, count: int) -> str:
    done, minutes = _progress(name, state)[0], minutes_left(name, state, count)
    if minutes == 0:
        return f"{name}: {done:,}, all of them"
    return f"{name}: {done:,} of {count:,}" + (f"; about {minutes:.0f} minutes are left, as fast as until now" if minutes is not None else "")


def _progress(name: str, state: Path) -> tuple[int, float]:
    """How many cases of a part were tried, and in how many seconds."""
    if name == "operators":
        operators = _operators(state)
        return operators["done"], operators.get("seconds", 0.0)
    part = Part.at(state / f"{name}.json")
    return part.done, part.seconds


def _run(name: str, count: int, minutes: float, state: Path) -> bool:
    """Whether the part broke."""
    if name == "operators":
        failed = _operators(state)["failed"]
        broke = call(name, "--cases", str(count), "--seconds", str(60 * minutes), "--state", str(state / "operators.json"))
        return broke and _operators(state)["failed"] == failed == 0  # it ends so where cases fail, too
    return call(name, "--count", str(count), "--minutes", str(minutes), "--state", str(state))


def call(name: str, *arguments: str) -> bool:
    print(f"-- {name}", flush=True)
    return subprocess.run([sys.executable, "-m", f"tests.stress.{name}", *arguments], cwd=ROOT).returncode != 0


def _parts(state: Path) -> dict[str, Part]:
    return {name: Part.at(state / f"{name}.json") for name in ("files", "kills", "pairs", "scale") if (state / f"{name}.json").exists()}


def _operators(state: Path) -> dict[str, Any]:
    path = state / "operators.json"
    return json.loads(path.read_text()) if path.exists() else {"done": 0, "failed": 0}


def page(state: Path, wanted: dict[str, int]) -> str:
    """What was done and found, as Markdown."""
    parts, operators = _parts(state), _operators(state)
    lines = ["# Stress", "", "Made by `python -m tests.stress --full --scale` (`--anew` to begin again): see `tests/stress/`.", ""]
    lines += [
        f"On {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}. A failure is a traceback, a hang of 20 s of a"
    ]
    lines += [
        "processor, a run or a good file beside a bad one that is lost, a result or an exit code that is wrong, code of a file that is run, memory"
    ]
    lines += [
        "above three times the data and 500 MB (50 MB of large data), a process that dies of a signal nobody sent, or control characters on the",
        "terminal.",
        "",
    ]
    lines += [f"| part | cases | of | {' | '.join(KINDS)} | minutes | load |", f"| --- | --- | --- |{' --- |' * (len(KINDS) + 2)}"]
    words = {"files": "damaged files", "kills": "kills of a training", "pairs": "two commands on one run", "scale": "large data"}
    for name, part in parts.items():
        counts = " | ".join(str(part.found[kind]) for kind in KINDS)
        whole = wanted.get(name, part.done)
        lines.append(f"| {words[name]} | {part.done:,} | {whole:,} | {counts} | {part.seconds / 60:.0f} | {part.notes.get('load', '')} |")
    lines.append(f"| operators | {operators['done']:,} | {wanted['operators']:,} | {' | '.join([''] * 3)} | {operators['failed']} |{' |' * 6}")
    lines += ["", "`load` is how many processes wanted a processor meanwhile: times with more than there are of them are upper bounds.", ""]
    if "files" in parts:
        counts = parts["files"].notes["files"]
        lines += [f"Damaged files, {min(counts.values())} to {max(counts.values())} of each kind: {'; '.join(counts)}.", ""]
    if "kills" in parts and "slowest stop, s" in parts["kills"].notes:
        lines += [f"From a signal to the end of the process it took at most {parts['kills'].notes['slowest stop, s']} s.", ""]
    if "scale" in parts:
        lines += _scale(parts["scale"].notes["rows"])
    if examples := [f"* {name}: {where}" for name, part in parts.items() for where in part.examples.values()]:
        lines += ["", "## Found", "", *examples]
    return "\n".join(lines).rstrip() + "\n"


def _scale(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| large data | data, MB | seconds | memory, MB | times the data | a bar is shown | load |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        if "data" not in row:  # it failed, see below
            continue
        sizes = (
            f"{row['data'] / 1e6:.0f} | {row['seconds']} | {row['memory'] / 1e6:.0f} | {row['times the data']} | {row['progress']} | {row['load']}"
        )
        lines.append(f"| {name} | {sizes} |")
    return lines


if __name__ == "__main__":
    main()
