"""`python -m bench.readers`: how fast pose files are read, beside plain Python, and in how much memory; writes docs/readers.md.

Every form has one file of made-up walks of 100 frames, read in a process of its own after a small one of the same form, which loads what is loaded
once. Plain Python is `json` or `csv` and a float for every number, without any understanding of what it read, of the file's first tenth.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastst.layouts import LAYOUTS

JOINTS = LAYOUTS["coco17"].joints
_WALK = 100  # frames
HOW = """
Plain Python's `json` is fast, and many times its speed can't be had from a reader that makes one pass over the text. How it is read:

- **Tables** by Arrow, columns at a time, on all processors.
- **JSON** by a scanner that is compiled: it copies what is structure, and puts every list of numbers or of points straight into an array, of which
  Python's `json` then gets the place. What is left is a dict a detection; the next piece of the file is scanned in a thread meanwhile.
- **ultralytics' CSV** by both: Arrow reads the rows, and each column of cells, which are dicts, goes through the scanner as one list.

What bounds them now is spread out: over the scanner, `json` on what is left, a view an array and the columns of the table. Tried before: a scanner
of digits alone with Python's parser around it, and lists of points read as dicts a joint, a third as fast. Faster than that would need records as
columns as well, so that no dict is made a detection: a second path through every reader.
"""


def _frames(count: int) -> Iterator[tuple[int, np.ndarray]]:
    """x, y and confidence of all joints, rounded as programs write them.  # [17, 3]"""
    made = np.random.default_rng(0).uniform(1, 320, (_WALK, len(JOINTS), 3)).round(3)
    made[..., 2] = (0.5 + made[..., 2] / 640).round(3)
    for number in range(count):
        yield number, made[number % _WALK]


def _pose_csv(count: int) -> Iterator[str]:
    yield ",".join(["image_name", *(f"{joint}_{what}" for joint in JOINTS for what in ("x", "y", "conf"))]) + "\n"
    for number, points in _frames(count):
        walk, frame = divmod(number, _WALK)
        yield f"casia/{walk // 100:03d}-nm-{walk % 100:02d}-090/{frame:06d}.jpg," + ",".join(map(str, points.ravel().tolist())) + "\n"


def _ultralytics_csv(count: int) -> Iterator[str]:
    yield "frame,name,class,confidence,box,track_id,keypoints\n"
    for number, points in _frames(count):
        x, y, visible = points.T.tolist()
        box = {"x1": min(x), "y1": min(y), "x2": max(x), "y2": max(y)}
        yield f'{number},person,0,0.92,"{box}",1,"{ {"x": x, "y": y, "visible": visible} }"\n'


def _list_of(record: Callable[[int, np.ndarray], Any]) -> Callable[[int], Iterator[str]]:
    def text(count: int) -> Iterator[str]:
        for number, points in _frames(count):
            yield ("[" if number == 0 else ",\n") + json.dumps(record(number, points))
        yield "]"

    return text


def _alphapose(number: int, points: np.ndarray) -> Any:
    return {
        "image_id": f"{number}.jpg",
        "category_id": 1,
        "keypoints": points.ravel().tolist(),
        "score": 2.9,
        "box": [1.5, 2.5, 51.5, 133.5],
        "idx": 1,
    }


def _mmpose(number: int, points: np.ndarray) -> Any:
    return {"frame_id": number, "instances": [{"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist(), "bbox_score": 0.97}]}


def _coco(number: int, points: np.ndarray) -> Any:
    return {"image_id": number, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.97}


def _movenet(number: int, points: np.ndarray) -> Any:
    named = zip(JOINTS, points.tolist(), strict=True)
    return [{"score": 0.7, "keypoints": [{"x": x, "y": y, "score": score, "name": name} for name, (x, y, score) in named]}]


FORMS: dict[str, tuple[str, Callable[[int], Iterator[str]]]] = {
    "pose CSV": (".csv", _pose_csv),
    "AlphaPose's JSON": (".json", _list_of(_alphapose)),
    "MMPose's JSON": (".json", _list_of(_mmpose)),
    "COCO results": (".json", _list_of(_coco)),
    "MoveNet's and PoseNet's JSON": (".json", _list_of(_movenet)),
    "ultralytics' CSV": (".csv", _ultralytics_csv),
}


def measured(path: Path, small: Path) -> dict[str, float]:
    """Seconds of this process and of the clock, and the peak of memory beside the arrays, in bytes."""
    from fastst.cpu.memory import peak_memory
    from fastst.data.read import read_recordings

    read_recordings(small, progress=False)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    started, clock = time.process_time(), time.perf_counter()
    recordings, left_out = read_recordings(path, progress=False)
    seconds, clock = time.process_time() - started, time.perf_counter() - clock
    tables = [recording.detections for recording in recordings]
    if left_out:
        raise RuntimeError(f"{left_out[0].name}: {left_out[0].reason}")
    arrays = sum(array.nbytes for table in tables for array in vars(table).values() if array is not None)
    return {"frames": sum(map(len, tables)), "seconds": seconds, "clock": clock, "memory": peak_memory() - before, "arrays": arrays}


def plain_seconds(path: Path) -> float:
    """Seconds of this process for the whole file, by plain Python."""
    started = time.process_time()
    if path.suffix == ".json":
        _floats(json.loads(path.read_text(encoding="utf-8")))
    else:
        with path.open(newline="", encoding="utf-8") as file:
            for row in islice(csv.reader(file), 1, None):
                if len(row) > len(JOINTS):
                    list(map(float, row[1:]))
                else:
                    _floats(json.loads(row[-1].replace("'", '"')))
    return time.process_time() - started


def _floats(value: Any) -> list[float]:
    if isinstance(value, (int, float)):
        return [float(value)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for part in parts for number in _floats(part)]


def row_of(form: str, frames: int, folder: Path) -> dict[str, float]:
    suffix, text = FORMS[form]
    paths = [folder / f"{name}{suffix}" for name in ("large", "tenth", "small")]
    for path, count in zip(paths, (frames, frames // 10, _WALK), strict=True):
        with path.open("w", encoding="utf-8") as file:
            file.writelines(text(count))
    words = [sys.executable, "-m", "bench.readers", "--measure", str(paths[0]), str(paths[2])]
    row = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return row | {"bytes": paths[0].stat().st_size, "plain": 10 * plain_seconds(paths[1])}


def page(rows: dict[str, dict[str, float]], frames: int) -> str:
    lines = [
        "# How fast files are read",
        "",
        f"Written by `python -m bench.readers`: {frames:,} frames of one person a form, on {os.cpu_count()} processors. Plain Python is `json` or",
        "`csv` and a float for every number, in seconds of a processor as its neighbour; memory is the peak beside the arrays that are left.",
        "",
        "| form | file, MB | MB a second | of a processor's | times plain Python | memory, times the arrays |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for form, row in rows.items():
        size = row["bytes"] / 1e6
        speeds = f"{size / row['clock']:.0f} | {size / row['seconds']:.0f} | {row['plain'] / row['seconds']:.1f}"
        lines.append(f"| {form} | {size:.0f} | {speeds} | {row['memory'] / row['arrays']:.2f} |")
    return "\n".join(lines) + "\n" + HOW


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600_000, help="of every form (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=Path("docs/readers.md"), help="where the page goes")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)  # in the process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(*options.measure)))
        return
    rows = {}
    for form in FORMS:
        with tempfile.TemporaryDirectory(prefix="fastst-readers-") as folder:
            rows[form] = row_of(form, options.frames, Path(folder))
        print(f"{form}: {rows[form]}", flush=True)
    options.report.write_text(page(rows, options.frames), encoding="utf-8")


if __name__ == "__main__":
    main()
