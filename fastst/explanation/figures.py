"""Pictures of a run: how it learned, what the graph was, and what the kept edges are worth."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastst.explanation.text import readable, save
from fastst.graph import SkeletonGraph
from fastst.layouts import Layout

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
_GUESS: dict[str, Any] = {"color": "dimgrey", "linestyle": "--", "linewidth": 1.2}


def learning_curve(
    rows: Sequence[dict[str, Any]], classes: int, path: Path, baseline: float | None = None, whom: str = "people it was not trained on"
) -> None:
    """Over the epochs a panel each for the loss, the score on the people tested on, MAD, and the share of kept edges.

    Args:
        rows: of `metrics.jsonl`, one for every epoch.
        classes: how many there are; guessing has a balanced accuracy of 1 / classes.
        baseline: balanced accuracy of logistic regression on the same people, to be drawn beside.
        whom: what the people tested on are called.
    """
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    loss, score, distance, kept = figure.subplots(2, 2, sharex=True).flat
    _curve(loss, rows, "loss", "training", "black")
    _curve(loss, rows, "validation_loss", "people set aside", "tab:orange")
    loss.set(title="How wrong the model is (loss)", ylabel="loss, smaller is better")
    _curve(score, rows, "balanced_accuracy", whom, "tab:blue")
    score.axhline(1 / classes, label=f"guessing: {1 / classes:.2f}", **_GUESS)
    if baseline is not None:
        score.axhline(baseline, color="tab:green", linestyle="-.", label=f"logistic regression on joint means and deviations: {baseline:.2f}")
    score.set(title="How often it is right", ylabel="balanced accuracy (1: always right)", ylim=(0, 1.03))
    _curve(distance, rows, "mad", whom, "tab:purple")
    distance.set(title="How different the joints still are to the model", ylabel="MAD (0: all alike)")
    distance.set_ylim(0, 1.1 * max([row["mad"] for row in rows if "mad" in row], default=1) or 1)
    _curve(kept, rows, "kept_share", whom, "tab:red")
    _curve(kept, rows, "prior", "what it is pulled towards (prior)", "dimgrey", "o--")
    kept.set(title="How many edges are kept", ylabel="share of all edges", ylim=(0, 1.03))
    kept.yaxis.set_major_formatter(PercentFormatter(1))
    last = max(row["epoch"] for row in rows)
    for axes in (loss, score, distance, kept):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(1 - max(0.03 * last, 0.3), last + max(0.03 * last, 0.3 if last > 1 else 0.9))  # a point alone stands beside the legend
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    for axes in (distance, kept):
        axes.set_xlabel("epoch (once through all training walks)")
    save(figure, path)


def _curve(axes: Axes, rows: Sequence[dict[str, Any]], name: str, label: str, color: str, style: str = "o-") -> None:
    measured = [row for row in rows if name in row]
    if measured:
        size = 4 if len(measured) > 1 else 8  # a point alone is all there is to be seen
        axes.plot([row["epoch"] for row in measured], [row[name] for row in measured], style, color=color, label=label, markersize=size)


def initial_adjacency(layout: Layout, path: Path, frames: int = 5) -> None:
    """The adjacency matrix before anything is removed, for 1, 2 and 3 hops: the paper's Fig. 2. Rows are where edges go to, columns where from."""
    figure = Figure(figsize=(14, 5.4), layout="constrained")
    J = layout.num_joints
    names = ["t" if t == 0 else f"t+{t}" for t in range(frames)]
    for hops, axes in enumerate(figure.subplots(1, 3), 1):
        dense = SkeletonGraph(layout, hops).dense(frames).numpy()
        axes.imshow(dense, cmap="Greys", interpolation="nearest", vmin=0, vmax=1)
        for t in range(1, frames):
            axes.axhline(t * J - 0.5, color="tab:blue", linewidth=0.5)
            axes.axvline(t * J - 0.5, color="tab:blue", linewidth=0.5)
        middles = [t * J + (J - 1) / 2 for t in range(frames)]
        axes.set_xticks(middles, names)
        axes.set_yticks(middles, names)
        axes.set(xlabel="from: joints of frame …", ylabel="to: joints of frame …")
        steps = "1 step" if hops == 1 else f"up to {hops} steps"
        axes.set_title(f"{steps} away: {int(dense.sum()):,} edges")
    figure.suptitle(
        f"Which joints can inform which, before anything is removed: a black dot is an edge, a step a bone or a frame\n"
        f"({frames} frames, t and those after it, of {J} joints each: {readable(layout.name)})"
    )
    save(figure, path)


def audit(result: dict[str, Any], path: Path) -> None:
    """What the kept edges are worth: scores with them and with other graphs, and with more and more of the likeliest."""
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    arms, curve = figure.subplots(1, 2)
    guess = 1 / max(len({person["class"] for person in result["people"]}), 1)
    _arms(arms, result, guess)
    _insertion(curve, result, guess)
    figure.suptitle("\n".join(textwrap.wrap(result["verdict"]["sentence"], 125)))
    save(figure, path)


def _arms(axes: Axes, result: dict[str, Any], guess: float) -> None:
    colors = {"kept": "tab:blue", "random": "tab:orange"}
    arms = [arm for arm in ARM_NAMES if result[arm] is not None]
    scores = [result[arm]["balanced_accuracy"] for arm in arms]
    places = np.arange(len(arms))[::-1]
    axes.barh(places, scores, color=[colors.get(arm, "lightgrey") for arm in arms])
    for place, score in zip(places, scores, strict=True):
        axes.text(score + 0.01, place, f"{score:.2f}", va="center", fontsize=8)
    axes.axvline(guess, label=f"guessing: {guess:.2f}", **_GUESS)
    axes.set_yticks(places, [ARM_NAMES[arm] for arm in arms])
    axes.set(xlim=(0, 1.1), xlabel="balanced accuracy (1: always right)", title="How often it is right with …")
    axes.legend(fontsize=8, loc="lower right")


def _insertion(axes: Axes, result: dict[str, Any], guess: float) -> None:
    shares = result["insertion"]["shares"]
    orders = {"by_probability": ("the likeliest to be kept", "tab:blue"), "random": ("any", "tab:orange"), "reversed": ("the unlikeliest", "grey")}
    for name, (label, color) in orders.items():
        axes.plot(shares, result["insertion"][name]["balanced_accuracy"], "o-", label=label, color=color)
    axes.axhline(result["kept"]["balanced_accuracy"], color="tab:blue", linestyle=":", label="the kept edges")
    axes.axhline(guess, label="guessing", **_GUESS)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
    axes.minorticks_off()
    axes.set(ylim=(0, 1.03), xlabel="share of all edges that it sees", ylabel="balanced accuracy (1: always right)")
    axes.set_title("How often it is right with a part of the edges alone")
    axes.legend(fontsize=8, loc="lower right")
