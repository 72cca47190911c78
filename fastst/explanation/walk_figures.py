"""Pictures of bodies: a walk with its kept edges, and how many of its edges every joint keeps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from fastst.explanation.profiles import SIDES
from fastst.explanation.text import readable, save
from fastst.explanation.views import View, seen_from, sides
from fastst.graph import SkeletonGraph
from fastst.layouts import Layout
from fastst.runs.uncertainty import FEWEST_PEOPLE

_SHOWN = 12  # frames of a walk
_NAMED = 5  # joints of a body
_EASILY_SEEN = 30  # joints, beside which more are drawn smaller
_LEFT, _MIDDLE, _RIGHT = "gainsboro", "silver", "darkgrey"  # bones
LIKELY = ListedColormap(colormaps["inferno_r"](np.linspace(0.2, 0.9, 256)))


def walk_with_kept_edges(
    poses: np.ndarray,
    graph: SkeletonGraph,
    kept: np.ndarray,
    probability: np.ndarray,
    title: str,
    path: Path,
    *,
    planted: Sequence[str] = (),
    frames: tuple[int, int] | None = None,
    view: View | None = None,
) -> None:
    """Frames of a walk side by side, with their bones and the edges that were kept, wide at the joint that an edge leaves and pointed where it goes.

    Args:
        poses: the whole walk, `[T, J, D]`. 2D is drawn as in the image, 3D as it is seen from `view`.
        kept, probability: `[P, T]`; the likelier an edge was to be kept, the darker and wider it is. Of more than one a joint and frame the likeliest
            are drawn, which the title then says.
        title: what is shown.
        planted: joints that are ringed.
        frames: the first, and the one after the last. At most twelve of these are drawn, in groups of successive ones, which edges through time lead
            across; left out, they are chosen from the whole walk.
        view: left out, from the side.
    """
    first, end = frames or (0, len(poses))
    shown = _groups(first, end, int(graph.offset.abs().max()) + 1)
    view = view or View()
    flat = seen_from(poses[first:end], graph.layout, view)
    place = _places(shown, flat[[t - first for group in shown for t in group]])
    at = {t: flat[t - first] + (x, 0) for t, x in place.items()}
    height = max(np.ptp(np.concatenate(list(flat))[:, 1]), 1e-6)
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    bones(axes, graph.layout, list(at.values()), 5)
    found, chosen = _chosen(list(_edges(graph, kept, probability, at)), graph.layout.num_joints * len(at))
    tapers, likely = tapers_of(found, height)
    edges = PolyCollection(tapers, cmap=LIKELY, linewidths=0, zorder=2)
    edges.set_array(np.array(likely))
    edges.set_clim(0, 1)
    axes.add_collection(edges, autolim=False)
    points = np.concatenate(list(at.values()))
    axes.plot(points[:, 0], points[:, 1], ".", color="black", markersize=4, zorder=3)
    if planted:
        rings = np.array([body[graph.layout.index(joint)] for body in at.values() for joint in planted])
        names = ", ".join(readable(joint) for joint in planted)
        axes.plot(rings[:, 0], rings[:, 1], "o", color="tab:blue", fillstyle="none", markersize=9, label=f"planted: {names}", zorder=4)
    _fit(figure, axes, np.concatenate([points, *tapers]), height)
    axes.set_xticks(list(place.values()), [f"frame {t}" for t in place])
    axes.set_yticks([])
    existing = int(graph.edge_mask(len(poses))[:, first:end].sum())
    share = f"{kept[:, first:end].sum() / max(existing, 1):.0%} of the edges kept in frames {first} to {end - 1}"
    seen = f", seen {view.in_words()}" if poses.shape[2] == 3 else ", drawn as in the image"
    width = figure.get_figwidth()  # the title's letters may be twice as wide as Latin ones
    lines = [*textwrap.wrap(title, int(5.6 * width)), *textwrap.wrap(share + seen + chosen, int(9 * width))]
    axes.set_title("\n".join(lines))
    bar = figure.colorbar(edges, ax=axes, label="how likely the edge was to be kept", shrink=0.8, format=PercentFormatter(1))
    bar.ax.yaxis.set_label_position("left")
    _legend(figure, axes, graph.layout)
    save(figure, path)


def kept_of_joints(result: dict[str, Any], sentence: str, layout: Layout, body: np.ndarray, path: Path) -> None:
    """How many of its edges every joint keeps, of those that it sends to other joints and of those that it receives: on a body, and as bars.

    On the body a joint is the larger the more it keeps, and coloured where the interval over people does not hold what it would keep if all joints
    were alike; with fewer people than a verdict takes, none is.

    Args:
        result: of `JointShares.summary`.
        sentence: the verdict, without which nobody should look at these edges.
        body: where the joints are drawn, x to the right and y up.  # [J, 2]
    """
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    sends, receives, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    rows, expected = result["joints"], result["expected"]
    means = np.array([[row[side][0] for side in SIDES] for row in rows.values()])
    tells = result["people"] >= FEWEST_PEOPLE
    colors, coloured = _around(expected, np.abs(means - expected).max()), False
    for axes, side, title in zip((sends, receives), SIDES, ("sent from a joint to others", "received by a joint from others"), strict=True):
        shares = np.array([rows[joint][side] for joint in layout.joints])  # [J, 3]
        above = tells * ((shares[:, 1] > expected).astype(int) - (shares[:, 2] < expected))
        _on_body(axes, layout, body, shares[:, 0], above, means.max(), colors)
        axes.set_title(f"Edges {title}")
        coloured = coloured or bool(above.any())
    if coloured:
        bar = figure.colorbar(colors, ax=[sends, receives], label="share that is kept", shrink=0.7, format=PercentFormatter(1))
        bar.ax.yaxis.set_label_position("left")
    _bars(bars, result)
    figure.suptitle(
        "\n".join(["How many of its edges every joint keeps, of people whom the model was not trained on", *textwrap.wrap(sentence, 150)])
    )
    figure.legend(*bars.get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False)
    white = "not shown to differ from all joints alike; one in twenty is coloured by chance"
    note = f"size: share that is kept; white: {white if tells else f'too few people to tell joints apart ({FEWEST_PEOPLE} are needed)'}"
    figure.text(0.01, 0.012, note, ha="left", va="bottom")
    save(figure, path)


def _around(expected: float, farthest: float) -> ScalarMappable:
    """Blue below what is expected, red above; pale where that is near it beside what could be."""
    far = max(farthest, 0.5 * min(expected, 1 - expected), 0.001)
    return ScalarMappable(TwoSlopeNorm(expected, expected - min(far, max(expected, 0.001)), expected + far), colormaps["RdBu_r"])


def _groups(first: int, end: int, size: int) -> list[list[int]]:
    """The frames that are drawn: all, if they are few, or groups of `size` successive ones, evenly spread."""
    if end - first <= _SHOWN:
        return [list(range(first, end))]
    size = min(size, _SHOWN)
    count = _SHOWN // size
    starts = np.linspace(first, end - size, count).astype(int).tolist()
    return [list(range(start, start + size)) for start in starts]


def _places(groups: list[list[int]], bodies: np.ndarray) -> dict[int, float]:
    """Where every frame stands: groups further apart than the frames of a group, and nobody in anybody's way."""
    width = max(np.ptp(bodies[..., 0]), 0.3 * np.ptp(bodies[..., 1]), 1e-6)
    place, x = {}, 0.0
    for group in groups:
        for t in group:
            place[t] = x
            x += 1.12 * width
        x += 0.25 * width
    return place


def bones(axes: Axes, layout: Layout, bodies: list[np.ndarray], width: float) -> None:
    left, right = (set(numbers) for numbers in sides(layout))
    colors = [_bone_color(set(bone), left, right) for bone in layout.bones] * len(bodies)
    lines = [body[list(bone)] for body in bodies for bone in layout.bones]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=width, zorder=1, capstyle="round"), autolim=False)


def _bone_color(bone: set[int], left: set[int], right: set[int]) -> str:
    on_left, on_right = bool(bone & left), bool(bone & right)
    return _MIDDLE if on_left == on_right else _LEFT if on_left else _RIGHT


Edge = tuple[np.ndarray, np.ndarray, float]  # from, to, and how likely it was to be kept


def _chosen(edges: list[Edge], most: int) -> tuple[list[Edge], str]:
    """The likeliest edges, where there are more than `most`, among which none could be seen; and what is to be said of that."""
    if len(edges) <= most:
        return edges, ""
    least = sorted((likely for _, _, likely in edges), reverse=True)[most]
    likeliest = [edge for edge in edges if edge[2] > least]
    if not likeliest:
        return [], f"; none is drawn: {len(edges)} would be, too many to be seen, and the likeliest are equally likely ({_percent(least)})"
    return likeliest, f"; of {len(edges)}, too many to be seen, the {len(likeliest)} likeliest are drawn (above {_percent(least)})"


def tapers_of(edges: list[Edge], height: float) -> tuple[list[np.ndarray], list[float]]:
    """A triangle for every edge, and its probability; the likeliest last, on top."""
    edges = sorted(edges, key=lambda edge: edge[2])
    tapers = []
    for start, stop, likely in edges:
        along = stop - start
        aside = np.array([-along[1], along[0]]) / max(np.linalg.norm(along), 1e-9) * height * (0.005 + 0.01 * likely)
        tapers.append(np.array([start + aside, start - aside, stop]))
    return tapers, [likely for _, _, likely in edges]


def _edges(graph: SkeletonGraph, kept: np.ndarray, probability: np.ndarray, at: dict[int, np.ndarray]) -> Iterator[Edge]:
    """The kept ones between frames that are drawn."""
    for p, (src, dst, offset) in enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)):
        for t, body in at.items():
            if kept[p, t] and t + offset in at:
                yield at[t + offset][src], body[dst], float(probability[p, t])


def _fit(figure: Figure, axes: Axes, points: np.ndarray, height: float) -> None:
    """Limits with everything inside, and a figure of that shape."""
    low, high = points.min(0) - 0.07 * height, points.max(0) + 0.07 * height
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    shape = (high[1] - low[1]) / (high[0] - low[0])
    width = float(np.clip(5 / shape, 8, 14))
    figure.set_size_inches(width, float(np.clip(0.86 * width * shape, 2, 7)) + (1.4 if width > 12 else 1.7))


def _legend(figure: Figure, axes: Axes, layout: Layout) -> None:
    lines = [Line2D([], [], color=LIKELY(0.8), marker=">", markersize=5, label="kept edge: from its wide end to its point")]
    if layout.mirrored:
        lines += [Line2D([], [], color=color, linewidth=5, label=f"bones, {side}") for color, side in ((_LEFT, "left"), (_RIGHT, "right"))]
    else:
        lines.append(Line2D([], [], color=_MIDDLE, linewidth=5, label="bones"))
    figure.legend(
        handles=[*lines, *axes.get_legend_handles_labels()[0]],
        loc="outside lower center",
        ncols=4 if figure.get_figwidth() > 12 else 2,
        frameon=False,
    )


def _on_body(axes: Axes, layout: Layout, body: np.ndarray, shares: np.ndarray, above: np.ndarray, largest: float, colors: ScalarMappable) -> None:
    """Joints with their shares `[J]`; those above (1) and below (-1) the others `[J]` are coloured, the largest above named beside the body."""
    bones(axes, layout, [body], 4)
    room = min(1, _EASILY_SEEN / layout.num_joints)
    filled = np.where(above[:, None] != 0, colors.to_rgba(shares), 1.0)
    axes.scatter(body[:, 0], body[:, 1], s=room * (20 + 230 * shares / (largest or 1)), c=filled, zorder=2, edgecolors="black")
    low, high = body.min(0), body.max(0)
    width, middle = high[0] - low[0], (low[1] + high[1]) / 2
    height = max(high[1] - low[1], 0.8 * width, 1e-6)  # beside a flat body there has to be room for names too
    aside = max(0.75 * height - width, 0.5 * width) / 2
    axes.set(xlim=(low[0] - aside, high[0] + aside), ylim=(middle - 0.6 * height, middle + 0.6 * height), aspect="equal")
    _name_joints(
        axes, layout, body, shares, [j for j in np.argsort(-shares)[:_NAMED] if above[j] > 0], aside, max(0.07 * height, 0.1 * (width + 2 * aside))
    )
    if not (above > 0).any():
        axes.set_xlabel("no joint is shown to keep more than others", color="dimgrey")
    for x, side in ((0.02, "right"), (0.98, "left")) if layout.mirrored else ():
        axes.text(x, 0.02, f"{side} side", transform=axes.transAxes, ha="left" if x < 0.5 else "right", color="dimgrey")
    axes.set_xticks([])
    axes.set_yticks([])


def _name_joints(axes: Axes, layout: Layout, body: np.ndarray, shares: np.ndarray, joints: list[int], aside: float, apart: float) -> None:
    """Names at the margin that is nearer, one above the other and so far apart."""
    middle = body[:, 0].mean()
    for sign in (-1, 1):
        lowest = -np.inf
        for j in sorted((j for j in joints if (body[j, 0] >= middle) == (sign > 0)), key=lambda j: body[j, 1]):
            lowest = max(body[j, 1], lowest + apart)
            x = (body[:, 0].max() if sign > 0 else body[:, 0].min()) + sign * 0.92 * aside
            text = f"{readable(layout.joints[j])}\n{_percent(shares[j])}"
            arrow = {"arrowstyle": "-", "color": "dimgrey", "linewidth": 0.7}
            axes.annotate(text, body[j], (x, lowest), ha="right" if sign > 0 else "left", va="center", fontsize=8, arrowprops=arrow)


def _bars(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["joints"]
    names = sorted(rows, key=lambda joint: rows[joint]["sends"][0])
    places = np.arange(len(names))
    for side, label, color, shift in zip(SIDES, ("sent to others", "received from others"), ("tab:blue", "lightgrey"), (0.2, -0.2), strict=True):
        mean, low, high = np.array([rows[name][side] for name in names]).T
        whiskers = (
            None if result["people"] < FEWEST_PEOPLE else [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
        )  # rounding apart they are not negative
        axes.barh(places + shift, mean, 0.4, xerr=whiskers, label=label, color=color, error_kw={"elinewidth": 1, "ecolor": "black"})
    expected = f"if all joints were alike: {_percent(result['expected'])}"
    axes.axvline(result["expected"], color="black", linestyle="--", label=expected)
    axes.set_yticks(places, [readable(name) for name in names], fontsize=8 * min(1, 1.2 * _EASILY_SEEN / len(names)))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    people = f"{result['people']:g} people" if result["people"] != 1 else "1 person"
    said = f"mean over {people}" + (", 95 % interval" if result["people"] >= FEWEST_PEOPLE else "")
    axes.set(ylim=(-0.7, len(names) - 0.3), xlabel=f"share that is kept ({said})", title="The same as bars")
    axes.set_xlim(left=0)


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"
