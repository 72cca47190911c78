"""What the tests of bad input have in common: small data, and how a command ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastst.layouts import LAYOUTS

TINY = ["--epochs", "1", "--frames", "4", "--hidden", "4", "--heads", "2", "--layers", "1", "--encoder-layers", "0", "--device", "cpu"]
JOINTS = ["hips", "left_knee", "right_knee", "head"]


@dataclass(frozen=True)
class Ended:
    """How a command ended; line breaks, frames and runs of spaces in `err` are single spaces."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def refused(ended: Ended, *words: object) -> None:
    """The command ended with an error on stderr that has all of these words."""
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    for word in words:
        assert str(word) in ended.err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arrays(people: int = 6, walks: int = 2, frames: int = 8, dimensions: int = 2, seed: int = 0) -> dict[str, Any]:
    """Random walks of four joints; people p0, p2, ... are well, the others sick."""
    who = np.repeat(np.arange(people), walks)
    return {
        "poses": np.random.default_rng(seed).normal(size=(len(who) * frames, 4, dimensions)).astype(np.float32),
        "lengths": np.full(len(who), frames),
        "subject": np.array([f"p{person}" for person in who]),
        "label": np.where(who % 2, "sick", "well"),
        "joints": np.array(JOINTS),
        "bones": np.array([[0, 1], [0, 2], [0, 3]]),
    }


def write_npz(path: Path, made: dict[str, Any] | None = None, **changes: Any) -> Path:
    np.savez(path, **{**(arrays() if made is None else made), **changes})
    return path


def pose_rows(walk: str, frames: int = 6, **cells: str) -> list[str]:
    """Lines of a pose CSV; `cells` replace columns of the walk's second frame."""
    lines = []
    for frame in range(frames):
        x, y = np.random.default_rng([int(walk[:3]), frame]).normal(100, 20, (2, 17)).round(2)
        fields = {"image_name": f"casia/{walk}/{frame:06d}.jpg"}
        for j, joint in enumerate(LAYOUTS["coco17"].joints):
            fields |= {f"{joint}_x": str(x[j]), f"{joint}_y": str(y[j]), f"{joint}_conf": "0.9"}
        lines.append(",".join(({**fields, **cells} if frame == 1 else fields).values()))
    return lines


HEADER = ",".join(["image_name", *(f"{joint}_{what}" for joint in LAYOUTS["coco17"].joints for what in ("x", "y", "conf"))])
NAMES = [f"{person:03d}-nm-01-090" for person in range(1, 7)]


def write_csv(path: Path, *more: str, header: str = HEADER, names: list[str] = NAMES) -> Path:
    """A pose CSV with a walk of six people, and the lines `more`."""
    path.write_text("\n".join([header, *(line for name in names for line in pose_rows(name)), *more]) + "\n", encoding="utf-8")
    return path


def write_labels(path: Path, subjects: list[str], splits: list[str] | None = None) -> Path:
    """Every other subject is sick."""
    lines = [f"{subject},{'sick' if i % 2 else 'well'}" + (f",{splits[i]}" if splits else "") for i, subject in enumerate(subjects)]
    path.write_text("\n".join(["subject,label" + (",split" if splits else ""), *lines]) + "\n", encoding="utf-8")
    return path


def without_time(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in ("seconds", "sha256")}


def read_summary(run: Path) -> dict[str, Any]:
    return without_time(json.loads((run / "summary.json").read_text(encoding="utf-8")))
