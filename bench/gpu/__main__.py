"""`python -m bench.gpu`: whether the kernels are right on the GPU that is there, and how fast and how frugal they are; JSON and a page, as it goes.

Every part runs in a process of its own, with a limit on its time: a part that fails, hangs or loses the GPU is reported, and the others go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bench.gpu import correctness, programs, speed
from bench.gpu import device as devices
from bench.gpu.notes import CONTEXT_LOST, Notes
from bench.gpu.page import TIMED, page
from fastst.errors import UserError, run_command

# Part -> what it does, and the seconds that it gets at most, the most important first.
PARTS = {
    "device": (devices.device, 20),
    "limits": (speed.limits, 30),
    "build": (correctness.build, 90),
    "correct": (correctness.correct, 100),
    "deterministic": (correctness.deterministic, 40),
    "times": (speed.times, 120),
    "steps": (speed.steps, 80),
    "memory": (programs.memory, 80),
    "tests": (programs.tests, 120),
    "waits": (correctness.waits, 40),
    "compiled": (programs.compiled, 100),
    "kernels": (speed.kernels, 40),
}
_TO_BE_KILLED = 30  # seconds after its time, if a part does not see by itself that it is up


@dataclass(frozen=True)
class Options:
    """Ask a GPU about fastst: is it right, is it fast, does it fit. Needs a GPU of compute capability 7.5 or later."""

    out: Path = Path(".benchmarks/gpu")
    """Folder for results.json and report.md, which are written anew after every part."""
    minutes: float = 8.0
    """Time for all parts together; what it does not suffice for is left out, and said so."""
    only: tuple[str, ...] = ()
    """Parts to run; left out, all."""
    rehearse: bool = False
    """Go through the report on the CPU, in tiny sizes: it shows that the report itself runs, and nothing about a GPU."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m bench.gpu")
    unknown = [name for name in options.only if name not in PARTS]
    if unknown:
        raise UserError(f"--only: there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    reason = None if options.rehearse else devices.why_not()
    if reason is not None:
        raise UserError(reason)
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"began": time.strftime("%Y-%m-%d %H:%M"), "rehearsal": options.rehearse, "parts": {}}
    start = time.monotonic()
    for name in options.only or PARTS:
        left = options.minutes * 60 - (time.monotonic() - start)
        results["parts"][name] = part = _run(name, left, options.rehearse)
        results["seconds"] = time.monotonic() - start
        _write(options.out, results)
        print(f"[{results['seconds']:5.0f} s] {name}: {in_words(part)}", flush=True)
    print(f"the report is in {options.out / 'report.md'}")
    if not all(holds(name, part) for name, part in results["parts"].items()):
        sys.exit(1)


def holds(name: str, part: dict[str, Any]) -> bool:
    """Nothing was wrong, and what should be judged was: only a time may be missing."""
    judged = all("error" not in row and "left_out" not in row for row in part["rows"]) or name in TIMED
    return judged and "error" not in part and not any(row.get("right") is False for row in part["rows"])


def in_words(part: dict[str, Any]) -> str:
    rows = part["rows"]
    wrong, errors = sum(row.get("right") is False for row in rows), sum("error" in row for row in rows)
    said = [f"{len(rows)} results", *[f"{wrong} WRONG"] * bool(wrong), *[f"{errors} failed"] * bool(errors)]
    return ", ".join([*said, *[part[name] for name in ("error", "disturbed") if part.get(name)]])


def _run(name: str, left: float, rehearse: bool) -> dict[str, Any]:
    """A part in a process of its own: its rows, its error if it had one, and whether somebody else was on the GPU."""
    seconds = min(PARTS[name][1], left)
    if seconds < 1:
        return {"rows": [], "error": "left out: no time was left"}
    disturbed = None if rehearse else devices.disturbance()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows, errors = Path(folder) / "rows.jsonl", Path(folder) / "errors.txt"
        error = _in_a_process(name, seconds, rehearse, rows, errors)
        found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
        if error is not None:
            print(errors.read_text()[-2000:], file=sys.stderr)
    part: dict[str, Any] = {"seconds": time.monotonic() - start, "rows": found}
    return part | {key: value for key, value in (("error", error), ("disturbed", disturbed)) if value}


def _in_a_process(name: str, seconds: float, rehearse: bool, rows: Path, errors: Path) -> str | None:
    """Why it ended early, or None."""
    end = time.time() + seconds  # its imports count
    command = [sys.executable, "-m", "bench.gpu", "--part", name, str(end), str(rows), str(int(rehearse))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **({"CUDA_VISIBLE_DEVICES": ""} if rehearse else {})}
    with errors.open("w") as stderr:
        try:
            status = subprocess.run(command, env=environment, stdout=stderr, stderr=stderr, check=False, timeout=seconds + _TO_BE_KILLED).returncode
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds + _TO_BE_KILLED:.0f} s"
    if status == CONTEXT_LOST:
        return "the GPU gave up on this process; the rest of the part was left out"
    return f"its process ended with status {status}" if status else None


def _part(name: str, end: str, file: str, tiny: str) -> None:
    """What a process of its own does, until then."""
    with Path(file).open("w") as rows:
        PARTS[name][0](Notes(rows, float(end) - time.time()), tiny == "1")


def _write(folder: Path, results: dict[str, Any]) -> None:
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        _part(*sys.argv[2:])
    else:
        run_command(main)
