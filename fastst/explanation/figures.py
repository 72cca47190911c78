"""Pictures of a run: how it learned, what the graph was, what was kept of it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastst.graph import SkeletonGraph
from fastst.layouts import Layout
from fastst.runs.folder import write_atomically

_FRAMES_SHOWN = 6
ARM_NAMES = {
    "kept": "the kept edges",
    "all_edges": "all edges",
    "no_edges": "no edge",
    "random": "as many random edges",
    "complement": "the edges removed",
    "other_same_class": "another's edges (same class)",
    "other_class": "another's edges (other class)",
    "mask_alone": "the kept edges on mean poses",
}


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


def audit(result: dict[str, Any], path: Path) -> None:
    """What the kept edges are worth: scores with them and with other graphs, with more and more of the likeliest, and what the joints send."""
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    arms, curve, joints = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    _arms(arms, result)
    _insertion(curve, result)
    _joints(joints, result["joints"])
    figure.suptitle("\n".join(textwrap.wrap(result["verdict"]["sentence"], 150)))
    _save(figure, path)


def _arms(axes: Axes, result: dict[str, Any]) -> None:
    colors = {"kept": "tab:blue", "random": "tab:orange"}
    arms = [arm for arm in ARM_NAMES if result[arm] is not None]
    scores = [result[arm]["balanced_accuracy"] for arm in arms]
    places = np.arange(len(arms))[::-1]
    axes.barh(places, scores, color=[colors.get(arm, "lightgrey") for arm in arms])
    for place, score in zip(places, scores, strict=True):
        axes.text(score + 0.01, place, f"{score:.2f}", va="center", fontsize=8)
    axes.set_yticks(places, [ARM_NAMES[arm] for arm in arms])
    axes.set(xlim=(0, 1.1), xlabel="balanced accuracy", title="With which edges the walk is classified")


def _insertion(axes: Axes, result: dict[str, Any]) -> None:
    shares = result["insertion"]["shares"]
    orders = {"by_probability": ("the likeliest", "tab:blue"), "random": ("any", "tab:orange"), "reversed": ("the unlikeliest", "grey")}
    for name, (label, color) in orders.items():
        axes.plot(shares, result["insertion"][name]["balanced_accuracy"], "o-", label=label, color=color)
    axes.axhline(result["kept"]["balanced_accuracy"], color="tab:blue", linestyle=":", label="kept edges")
    axes.axhline(result["no_edges"]["balanced_accuracy"], color="black", linestyle=":", label="no edge")
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
    axes.minorticks_off()
    axes.set(ylim=(0, 1.02), xlabel="share of all edges", ylabel="balanced accuracy", title="With a part of the edges alone")
    axes.legend(fontsize=8, loc="lower right")


def _joints(axes: Axes, joints: dict[str, dict[str, float]]) -> None:
    names = sorted(joints, key=lambda joint: joints[joint]["sends"])
    places = np.arange(len(names))
    axes.barh(places + 0.2, [joints[name]["sends"] for name in names], 0.4, label="sends", color="tab:blue")
    axes.barh(places - 0.2, [joints[name]["receives"] for name in names], 0.4, label="receives", color="lightgrey")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set(xlabel="mean keep probability of its edges, less the prior", title="What every joint sends and receives")
    axes.legend(fontsize=8, loc="center right")


def walk_with_kept_edges(
    poses: np.ndarray, graph: SkeletonGraph, kept: np.ndarray, probability: np.ndarray, title: str, path: Path, planted: Sequence[str] = ()
) -> None:
    """Some frames of a walk side by side, each with the frame after it: bones grey, kept edges the darker and wider the likelier they were.

    Poses `[T, J, D]`, kept and probability `[P, T]`. In 2D the image's y axis points down; in 3D x and y are drawn, y up. Planted joints are ringed.
    """
    T = len(poses)
    shown = np.unique(np.linspace(0, max(T - 2, 0), min(_FRAMES_SHOWN, T)).astype(int))
    upright = poses[..., :2] * (1, 1 if poses.shape[2] == 3 else -1)
    step = 1.25 * (np.ptp(upright[..., 0]) + 0.5)
    # Every shown frame t stands beside its successor t + 1, which temporal edges lead to.
    place = {t: (2 * i + after) * step * 0.6 for i, frame in enumerate(shown) for after, t in enumerate((int(frame), int(frame) + 1)) if t < T}
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    axes = figure.subplots()

    def at(t: int, joint: int) -> np.ndarray:
        return upright[t, joint] + (place[t], 0)

    axes.add_collection(LineCollection([(at(t, a), at(t, b)) for t in place for a, b in graph.layout.bones], colors="gainsboro", linewidths=5))
    lines, likely = [], []
    for p, (src, dst, offset) in enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)):
        for t in place:
            if kept[p, t] and t + offset in place:
                lines.append((at(t + offset, src), at(t, dst)))
                likely.append(probability[p, t])
    order = np.argsort(likely)
    edges = LineCollection([lines[i] for i in order], linewidths=[0.5 + 2.5 * likely[i] for i in order], cmap="viridis_r")
    edges.set_array(np.array(likely)[order])
    edges.set_clim(0, probability.max() or 1)
    axes.add_collection(edges)
    points = np.concatenate([upright[t] + (place[t], 0) for t in place])
    axes.plot(points[:, 0], points[:, 1], ".", color="black", markersize=4)
    if planted:
        rings = np.array([at(t, graph.layout.index(joint)) for t in place for joint in planted])
        axes.plot(rings[:, 0], rings[:, 1], "o", color="tab:red", fillstyle="none", markersize=9, label=f"planted: {', '.join(planted)}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2))
    axes.set_xticks(list(place.values()), [f"frame {t}" for t in place])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.set_title(f"{title}: {kept.sum() / max(graph.edge_mask(T).sum().item(), 1):.0%} of the edges kept")
    figure.colorbar(edges, ax=axes, label="keep probability of a kept edge", shrink=0.8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of classes, walks and joints are no formulas
    write_atomically(path, lambda part: figure.savefig(part, dpi=130))
