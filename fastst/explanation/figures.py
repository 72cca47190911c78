"""Pictures of a run: how it learned, what the graph was, what was kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastst.graph import SkeletonGraph
from fastst.layouts import Layout
from fastst.run_folder import write_atomically

_FRAMES_SHOWN = 6


def learning_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss, and macro F1 and MAD on the test people where they were measured, over epochs."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.subplots()
    loss.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], color="black", label="training loss")
    loss.set(xlabel="epoch", ylabel="training loss", title="Learning curve")
    score = loss.twinx()
    measured = [row for row in rows if "macro_f1" in row]
    for name, label, color in (("macro_f1", "test macro F1", "tab:blue"), ("mad", "test MAD", "tab:orange")):
        score.plot([row["epoch"] for row in measured], [row[name] for row in measured], "o-", color=color, label=label)
    score.set(ylabel="test macro F1, MAD", ylim=(0, 1.02))
    lines = [*loss.get_lines(), *score.get_lines()]
    loss.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    _save(figure, path)


def initial_adjacency(layout: Layout, path: Path, frames: int = 5) -> None:
    """The adjacency matrix before anything is removed, for 1, 2 and 3 hops: the paper's Fig. 2. Blocks are frames, rows to, columns from."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    J = layout.num_joints
    for hops, axes in enumerate(figure.subplots(1, 3), 1):
        graph = SkeletonGraph(layout, hops)
        axes.imshow(graph.dense(frames).numpy(), cmap="Greys", interpolation="nearest")
        for t in range(1, frames):
            axes.axhline(t * J - 0.5, color="tab:blue", linewidth=0.5)
            axes.axvline(t * J - 0.5, color="tab:blue", linewidth=0.5)
        ticks = [t * J + J / 2 for t in range(frames)]
        axes.set_xticks(ticks, [f"t+{t}" if t else "t" for t in range(frames)])
        axes.set_yticks(ticks, [f"t+{t}" if t else "t" for t in range(frames)])
        axes.set_title(f"{hops} hop{'s' if hops > 1 else ''}: {graph.num_slots} slots")
    figure.suptitle(f"Initial spatio-temporal graph ({layout.name}, {J} joints a frame)")
    _save(figure, path)


def kept_edges_per_joint(shares: dict[str, dict[str, float]], path: Path) -> None:
    """The share of kept edges at every joint, for every class: the paper's Fig. 3. `shares`: class -> joint -> share."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    joints = list(next(iter(shares.values())))
    width = 0.8 / len(shares)
    for number, (name, share) in enumerate(shares.items()):
        axes.bar(np.arange(len(joints)) + (number - (len(shares) - 1) / 2) * width, list(share.values()), width, label=name)
    axes.set_xticks(np.arange(len(joints)), joints, rotation=60, ha="right")
    axes.set(ylabel="kept share of the edges at the joint", title="Kept edges per joint", ylim=(0, 1))
    figure.legend(title="class", loc="outside right upper")  # beside the bars, which may all be full
    _save(figure, path)


def walk_with_kept_edges(poses: np.ndarray, graph: SkeletonGraph, kept: np.ndarray, title: str, path: Path) -> None:
    """Some frames of a walk side by side: bones grey, kept edges within a frame blue, kept edges between frames orange.

    Poses `[T, J, D]`, kept `[P, T]`. In 2D the image's y axis points down; in 3D x and y are drawn, y up.
    """
    T = len(poses)
    shown = np.unique(np.linspace(0, max(T - 2, 0), min(_FRAMES_SHOWN, T)).astype(int))
    upright = poses[..., :2] * (1, 1 if poses.shape[2] == 3 else -1)
    step = 1.25 * (np.ptp(upright[..., 0]) + 0.5)
    # Every shown frame t stands beside its successor t + 1, which temporal edges lead to.
    place = {t: (2 * i + after) * step * 0.6 for i, frame in enumerate(shown) for after, t in enumerate((int(frame), int(frame) + 1)) if t < T}
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    axes = figure.subplots()

    def at(t: int, joint: int) -> np.ndarray:
        return upright[t, joint] + (place[t], 0)

    bones = [(at(t, a), at(t, b)) for t in place for a, b in graph.layout.bones]
    within: list[tuple[np.ndarray, np.ndarray]] = []
    between: list[tuple[np.ndarray, np.ndarray]] = []
    for p, (src, dst, offset) in enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)):
        for t in place:
            if kept[p, t] and t + offset in place:
                (within if offset == 0 else between).append((at(t + offset, src), at(t, dst)))
    for lines, color, width, label in (
        (bones, "lightgrey", 4, "bones"),
        (between, "tab:orange", 0.8, "kept, between frames"),
        (within, "tab:blue", 1.6, "kept, within a frame"),
    ):
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width, label=label))
    points = np.concatenate([upright[t] + (place[t], 0) for t in place])
    axes.plot(points[:, 0], points[:, 1], ".", color="black", markersize=4)
    axes.set_xticks(list(place.values()), [f"frame {t}" for t in place])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.set_title(f"{title}: {kept.sum() / max(graph.edge_mask(T).sum().item(), 1):.0%} of the edges kept")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of classes, walks and joints are no formulas
    write_atomically(path, lambda part: figure.savefig(part, dpi=130))
