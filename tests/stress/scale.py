"""`python -m tests.stress.scale`: data as large as they come: time, memory, and whether somebody who waits sees that it goes on.

Every case runs in a process of its own with a terminal for its words. Its memory is the peak above that of a case a thousand times smaller, which
goes first; it may be three times the data, and 50 MB. `--share 0.01` makes all of them a hundred times smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .common import ROOT, TRAINING, Part
from .processes import peak, reset_peak

_BESIDE = 50 << 20  # bytes that libraries keep for themselves
_BAR = re.compile(r"\d%|━|epoch \d")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.scale", description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / ".stress", help="folder of what was done before")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # in the process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        _measured(options.case, options.folder, options.share)
    else:
        print(scale(options.state, options.share, options.only).in_words())


def scale(state: Path, share: float = 1.0, only: str = "") -> Part:
    """Runs the cases that were not run yet."""
    part = Part.at(state / "scale.json")
    rows = part.notes.setdefault("rows", {})
    for name in [name for name in CASES if only in name and name not in rows]:
        started = time.monotonic()
        row, failures = _case(name, share)
        rows[name] = row
        part.add(1, time.monotonic() - started, failures)
        print(f"{name}: {row}{''.join(f'; {kind}: {where}' for kind, where in failures)}", flush=True)
    return part


def _case(name: str, share: float) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Size, seconds and memory of a case, and how it failed."""
    with tempfile.TemporaryDirectory(prefix="fastst-scale-") as made:
        CASES[name][0](Path(made), share)
        command = [sys.executable, "-m", "tests.stress.scale", "--case", name, "--folder", made, "--share", str(share)]
        main_end, end = pty.openpty()
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=end, stderr=end)
        os.close(end)
        words = _read(main_end)
        if process.wait() or not (Path(made) / "row.json").exists():
            return {"words": words[-300:]}, [("wrong", f"{name} ended with {process.returncode}: {words[-300:]!a}")]
        row = json.loads((Path(made) / "row.json").read_text())
    row["progress"] = "yes" if _BAR.search(words) else "no"
    row["load"] = round(os.getloadavg()[0], 1)
    row["times the data"] = round(row["memory"] / row["data"], 2)
    failures = []
    if row["memory"] > 3 * row["data"] + _BESIDE:
        failures.append(("memory", f"{name}: {row['memory'] >> 20} MB for {row['data'] >> 20} MB of data"))
    return row, failures


def _read(end: int) -> str:
    """All that is written to the other end of the terminal."""
    pieces = []
    while True:
        try:
            piece = os.read(end, 1 << 16)
        except OSError:  # Linux' way to say that nobody writes any more
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(end)
    return b"".join(pieces).decode(errors="replace")


def _measured(name: str, folder: Path, share: float) -> None:
    """Runs a case in this process and writes down what it took; a small one goes first, with what is imported, compiled and kept from then on."""
    make, use = CASES[name]
    small = folder / "small"
    small.mkdir()
    make(small, share / 1000)
    use(small, share / 1000)
    before, started = reset_peak(), time.perf_counter()
    data = use(folder, share)
    row = {"data": data, "seconds": round(time.perf_counter() - started, 1), "memory": peak() - before}
    (folder / "row.json").write_text(json.dumps(row))


def _frames(count: int) -> np.ndarray:
    """A walker who goes on and on.  # [count, 17, 2] float32"""
    from .seeds import poses

    walker = poses()
    there = np.concatenate([walker, walker[-2:0:-1]])
    return there[np.arange(count) % len(there)].astype(np.float32) + np.random.default_rng(0).normal(0, 0.5, (count, 17, 2)).astype(np.float32)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _make_rows(folder: Path, share: float) -> None:
    """Walks of 250 frames, 5 of each person."""
    from .seeds import COCO

    rows = [",".join(f"{x:.2f},{y:.2f},0.98" for x, y in pose) + "\n" for pose in _frames(1000)]
    (folder / "data").mkdir()
    count = max(int(5_000_000 * share), 100)
    with (folder / "data" / "walks.csv").open("w", buffering=1 << 24) as file:
        file.write(",".join(["image_name", *(f"{joint}_{kind}" for joint in COCO for kind in ("x", "y", "conf"))]) + "\n")
        for number in range(count):
            walk, frame = divmod(number, 250)
            file.write(f"walks/{walk // 5:05}-nm-{walk % 5:02}-090/{frame:06}.jpg,{rows[number % 1000]}")


def _make_files(folder: Path, share: float) -> None:
    """A video of 60 frames in each."""
    poses = np.concatenate([_frames(60), np.full((60, 17, 1), 0.9)], axis=2).round(2).reshape(60, 51).tolist()
    content = json.dumps([{"image_id": f"{t}.jpg", "category_id": 1, "keypoints": row, "score": 2.9, "idx": 1} for t, row in enumerate(poses)])
    (folder / "data").mkdir()
    for number in range(max(int(5000 * share), 2)):
        (folder / "data" / f"P{number // 5:04}_{number % 5}.json").write_text(content)


def _make_people(folder: Path, share: float) -> None:
    people = max(int(10_000 * share), 8)  # of whom somebody is left to test on
    subjects = [f"{number:05}" for number in range(people)]
    _save(folder, _frames(60 * people), [60] * people, subjects, [("ill", "well")[number % 2] for number in range(people)])


def _make_long(folder: Path, share: float) -> None:
    frames = max(int(200_000 * share), 30)
    _save(folder, _frames(frames), [frames], ["001"], ["female"])
    command = [sys.executable, "-m", "fastst.train", *TRAINING, "--epochs", "1", "--layout", "coco17", "--out", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


def _save(folder: Path, poses: np.ndarray, lengths: list[int], subjects: list[str], labels: list[str]) -> None:
    from fastst.layouts import LAYOUTS

    (folder / "data").mkdir()
    coco = LAYOUTS["coco17"]
    walks = {"poses": poses, "lengths": lengths, "subject": subjects, "label": labels, "joints": coco.joints, "bones": coco.bones, "fps": 25}
    np.savez(folder / "data" / "walks.npz", **{name: np.asarray(value) for name, value in walks.items()})


def _read_walks(folder: Path, _: float) -> int:
    from fastst.data.read import read_walks

    assert len(read_walks(folder / "data"))
    return _size(folder / "data")


class _Enough(Exception):
    """The first step of a training was done."""


def _train(folder: Path, _: float) -> int:
    """From the command to the end of the first step."""
    from unittest import mock

    from fastst.explanation.report import EXPLAINED
    from fastst.runs.trainer import Trainer
    from fastst.runs.training import train
    from fastst.train import read_config

    step = Trainer._train_step

    def first_step(*arguments: Any) -> None:
        step(*arguments)
        raise _Enough

    options = ["--data", str(folder / "data" / "walks.npz"), "--out", str(folder / "run"), "--epochs", "1"]
    with mock.patch.object(Trainer, "_train_step", first_step):
        try:
            train(read_config(options), EXPLAINED)
        except _Enough:
            return _size(folder / "data")
    raise AssertionError("no step was done")


def _predict(folder: Path, _: float) -> int:
    from fastst import predict

    predict.main(["--run", str(folder / "run"), "--data", str(folder / "data" / "walks.npz"), "--out", str(folder / "out.csv")])
    return _size(folder / "data")


def _edges(_: Path, share: float) -> int:
    """Ten edges a node, 16 channels: sampled, multiplied, and every gradient."""
    import torch

    from fastst import EdgeList
    from fastst.ops import propagate, sample_edges

    edges, nodes = max(int(10_000_000 * share), 1000), max(int(1_000_000 * share), 1000)
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.integers(0, nodes, edges), rng.integers(0, nodes, edges)])
    x, logits = torch.randn(1, nodes, 16, requires_grad=True), torch.randn(1, edges, requires_grad=True)
    graph = EdgeList(pairs, nodes, parallel=True)
    propagate(x, sample_edges(logits, graph, seed=0), graph).sum().backward()
    assert x.grad is not None
    assert logits.grad is not None
    return pairs.nbytes + 4 * (2 * x.numel() + 2 * logits.numel())  # with the gradients, which are asked for


CASES: dict[str, tuple[Callable[[Path, float], None], Callable[[Path, float], int]]] = {
    "5 million rows of CSV, read": (_make_rows, _read_walks),
    "5,000 AlphaPose files, read": (_make_files, _read_walks),
    "10,000 people, trained to the first step": (_make_people, _train),
    "a walk of 200,000 frames, read and predicted": (_make_long, _predict),
    "10 million edges, sampled and multiplied, with gradients": (lambda folder, share: None, _edges),
}


if __name__ == "__main__":
    main()
