"""What was understood of somebody's data, in words and in one picture, before anything is trained on it."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastst.data.copies import copies
from fastst.data.identity import NAME_REMEDY
from fastst.data.prepare import glitches_in_words
from fastst.data.walks import WalkSet
from fastst.explanation.text import readable, save
from fastst.layouts import Layout

_VALUES_SHOWN, _NAMES_SHOWN = 8, 3
_LETTERS_SHOWN = 28  # of a name above a small pose
_SMALL_COLUMNS = 3  # in two rows


def description(walks: WalkSet) -> list[str]:
    """People, walks, frames, joints, what is missing, and how it was found out whose walks they are: a line each."""
    lengths = [len(poses) for poses in walks.poses]
    people = Counter(walks.subjects)
    dimensions = walks.poses[0].shape[2]
    return [
        f"walks: {len(walks)} of {len(people)} people ({_from_to(list(people.values()))} each), such as {_some(walks.names)}",
        f"frames: {sum(lengths)}, {_from_to(lengths)} a walk; {_rates(walks)}",
        f"joints: {walks.layout.num_joints} in {dimensions}D ({walks.layout.name}): {', '.join(walks.layout.joints)}",
        f"missing: {_missing(walks)}",
        *(f"{column}: {_values(values)}" for column, values in walks.attributes.items() if any(values)),
        *(f"whose walk it is: {line}" for line in walks.whose.lines),
        *_not_understood(walks),
        *_copies(walks),
        *(f"note: {note}" for note in (*walks.notes, *glitches_in_words(walks))),
    ]


def _not_understood(walks: WalkSet) -> list[str]:
    unknown = walks.whose.not_understood
    return [f"nothing says who walks in {len(unknown)} walk(s), such as {_some(unknown)}: {NAME_REMEDY}"] if unknown else []


def _copies(walks: WalkSet) -> list[str]:
    found = copies(walks.poses)
    if not found:
        return []
    example = _some([walks.names[i] for i in found[0]])
    return [
        f"the same walk under several names: {len(found)} of them, such as {example}; of two persons or classes none is trained on, else the first"
    ]


def _from_to(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMES_SHOWN])


def _rates(walks: WalkSet) -> str:
    rates = Counter(walks.fps or [None] * len(walks))
    if set(rates) == {None}:
        return "frame rate not known"
    return "; ".join(
        "frame rate not known" + f" ({count} walks)" if fps is None else f"{fps:g} a second ({count} walks)" for fps, count in rates.items()
    )


def _missing(walks: WalkSet) -> str:
    """The share of positions, the joints that it is largest for, and those that no walk ever shows."""
    frames = sum(len(poses) for poses in walks.poses)
    shares = sum(np.isnan(poses).any(2).sum(0) for poses in walks.poses) / frames  # [J]
    most = [f"{walks.layout.joints[j]} {shares[j]:.1%}" for j in np.argsort(-shares, kind="stable")[:3] if shares[j]]
    never = [walks.layout.joints[j] for j in np.flatnonzero(shares == 1)]
    advice = f"; never seen: {', '.join(never)} (--drop-joints {' '.join(never)})" if never else ""
    return f"{shares.mean():.1%} of the joint positions" + (f", most of {', '.join(most)}" if most else "") + advice


def _values(values: list[str | None]) -> str:
    counts = Counter(values).most_common()
    shown = ", ".join(f"{'not known' if value is None else value} ({count})" for value, count in counts[:_VALUES_SHOWN])
    return shown + (f" and {len(counts) - _VALUES_SHOWN} more values" if len(counts) > _VALUES_SHOWN else "")


def picture(walks: WalkSet, path: Path) -> None:
    """A pose with its joints named, and poses of some walks.

    Raises:
        WriteError: the file can't be written.
    """
    figure = Figure(figsize=(14, 7), layout="constrained")
    grid = figure.add_gridspec(2, 2 + _SMALL_COLUMNS, width_ratios=(1.5, 1.5, *[1] * _SMALL_COLUMNS))
    walk, frame = _best_seen(walks)
    axes = figure.add_subplot(grid[:, :2])
    _named_pose(axes, _flat(walks.poses[walk])[frame], walks.layout)
    unseen = [readable(walks.layout.joints[j]) for j in np.flatnonzero(np.isnan(walks.poses[walk][frame]).any(1))]
    axes.set_title(
        "\n".join([f"{readable(walks.names[walk])}, frame {frame}", *textwrap.wrap(f"not seen: {', '.join(unseen)}" if unseen else "", 70)])
    )
    for number, (i, t) in enumerate(_spread(walks)):
        axes = figure.add_subplot(grid[number // _SMALL_COLUMNS, 2 + number % _SMALL_COLUMNS])
        axes.set_axis_off()
        _pose(axes, _flat(walks.poses[i])[t], walks.layout)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(f"{_short(walks.names[i])}\nof {_short(walks.subjects[i])}, frame {t}", fontsize=9)
    save(figure, path, dpi=110, bbox_inches="tight")


def _spread(walks: WalkSet) -> list[tuple[int, int]]:
    """Walks and frames from the first to the last, of few walks several frames."""
    chosen = np.linspace(0, len(walks) - 1, 2 * _SMALL_COLUMNS).round().astype(int).tolist()
    count, shown = Counter(chosen), Counter[int]()
    places = []
    for walk in chosen:
        places.append((walk, len(walks.poses[walk]) * (2 * shown[walk] + 1) // (2 * count[walk])))
        shown[walk] += 1
    return list(dict.fromkeys(places))


def _short(name: str) -> str:
    """A name as it can be drawn, a long one without its middle."""
    name, half = readable(name), _LETTERS_SHOWN // 2
    return name if len(name) <= _LETTERS_SHOWN else f"{name[: half - 1]}…{name[-half:]}"


def _best_seen(walks: WalkSet) -> tuple[int, int]:
    """The walk and the frame with most joints, the first of equals."""
    best = (-1, 0, 0)
    for walk, poses in enumerate(walks.poses):
        seen = (~np.isnan(poses).any(2)).sum(1)
        frame = int(seen.argmax())
        best = max(best, (int(seen[frame]), -walk, -frame))
        if best[0] == walks.layout.num_joints:
            break
    return -best[1], -best[2]


def _flat(poses: np.ndarray) -> np.ndarray:
    """Two coordinates, the second up: of an image, whose y points down, or in 3D, where y is up, from one side for the whole walk: that from which
    the body is widest in most frames.  # [T, J, 2]"""
    if poses.shape[2] == 2:
        return poses * (1, -1)
    extent = np.nan_to_num(np.fmax.reduce(poses, axis=1) - np.fmin.reduce(poses, axis=1))  # [T, 3]
    return poses[..., [0 if 2 * (extent[:, 0] >= extent[:, 2]).sum() >= len(poses) else 2, 1]]


def _pose(axes: Axes, flat: np.ndarray, layout: Layout) -> None:
    for a, b in layout.bones:
        axes.plot(*flat[[a, b]].T, color="silver", linewidth=3, solid_capstyle="round")
    axes.plot(*flat.T, ".", color="black", markersize=5)


def _named_pose(axes: Axes, flat: np.ndarray, layout: Layout) -> None:
    """The names stand in two columns beside the body, in the order of their joints' heights, so that none hides another."""
    _pose(axes, flat, layout)
    axes.set_axis_off()
    seen = np.flatnonzero(~np.isnan(flat).any(1))
    if not len(seen):
        return
    low, high = flat[seen].min(0), flat[seen].max(0)
    size = float((high - low).max()) or 1.0
    across = seen[np.argsort(flat[seen, 0], kind="stable")]
    columns = ((across[: len(seen) // 2], low[0] - size / 4, "right", 1), (across[len(seen) // 2 :], high[0] + size / 4, "left", 0))
    for joints, x, align, end in columns:
        order = joints[np.argsort(flat[joints, 1], kind="stable")]
        for joint, y in zip(order, np.linspace((low[1] + high[1] - size) / 2, (low[1] + high[1] + size) / 2, len(order)), strict=True):
            line = {"arrowstyle": "-", "color": "lightsteelblue", "linewidth": 0.8, "shrinkA": 1, "shrinkB": 2, "relpos": (end, 0.5)}
            axes.annotate(readable(layout.joints[joint]), flat[joint], (x, y), ha=align, va="center", fontsize=9, arrowprops=line)
    axes.set_aspect("equal")
    axes.set_xlim(low[0] - size / 4, high[0] + size / 4)
    axes.set_ylim((low[1] + high[1] - size * 1.05) / 2, (low[1] + high[1] + size * 1.05) / 2)
