"""`python -m bench.scaling`: one training on one process and on several by torchrun, a thread each: the losses, and the time of an epoch; writes
docs/study/scaling.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

EPOCHS = 11  # the test people are looked at after every second epoch; the others are timed
WORDS = ("--people", "32", "--walks-per-person", "8", "--batch-size", "32", "--settle", "1", "--epochs", str(EPOCHS))


def trained(processes: int, folder: Path) -> list[dict[str, float]]:
    """The rows of a training's metrics."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "fastst.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, *WORDS, "--out", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def seconds_of_epochs(rows: list[dict[str, float]]) -> list[float]:
    """Of those after which nobody is tested, but for the first, in which memory is fresh."""
    return [after["seconds"] - before["seconds"] for before, after in pairwise(rows) if "macro_f1" not in after]


def report(found: dict[int, list[dict[str, float]]], load: str) -> str:
    """The page."""
    alone = found[1]
    lines = [
        "# One training on several processes",
        "",
        "Written by `python -m bench.scaling`: `torchrun` with",
        f"`fastst.train {' '.join(WORDS)}`, one thread a process{load}.",
        "Seconds are the median of the epochs after which nobody is tested. The processes' gradients are summed in another order than those of one",
        "process, in single precision: what that changes grows from step to step.",
        "",
        "| processes | loss, first epoch | last epoch | largest difference from one process, of any epoch | seconds an epoch | times as fast |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for processes, rows in found.items():
        apart = max(abs(row["loss"] / one["loss"] - 1) for row, one in zip(rows, alone, strict=True))
        took, took_alone = median(seconds_of_epochs(rows)), median(seconds_of_epochs(alone))
        numbers = f"{rows[0]['loss']:.5f} | {rows[-1]['loss']:.5f} | {apart:.1e} of it | {took:.2f} | {took_alone / took:.2f}"
        lines.append(f"| {processes} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("docs/study/scaling.md"), help="where the page goes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {count: trained(count, Path(folder) / str(count)) for count in sorted({1, *options.processes})}
    load = f"; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end" if hasattr(os, "getloadavg") else ""
    options.report.write_text(report(found, load), encoding="utf-8")


if __name__ == "__main__":
    main()
