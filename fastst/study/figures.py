"""The paper's figures, of the finished runs of a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fastst.explanation.profiles import SIDES
from fastst.explanation.text import readable, save
from fastst.study.claims import PAPER_TABLE, Table
from fastst.study.results import Result

_COLORS = {"fixed": "tab:orange", "learned": "tab:blue"}
_CLASSES = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_SPREAD = "points: seeds, lines: their means, bars: ± standard deviation"


def joints(results: Sequence[Result], path: Path) -> None:
    """Fig. 3: the share that every joint keeps of the edges that it sends, and of those that it receives, by hops and class, of learned graphs.

    Over layers and seeds: the mean, and the standard deviation of the seeds' means.
    """
    learned = [result for result in results if result.config.graph == "learned"]
    reach = sorted({result.config.hops for result in learned})
    names = list(next(iter(learned[0].study["joints"].values())))
    figure = Figure(figsize=(2 + 4 * len(reach), 2.2 + 0.52 * len(names)), layout="constrained")
    grid = figure.subplots(len(SIDES), len(reach), squeeze=False, sharex=True, sharey=True)
    classes = list(learned[0].study["joints"])
    for row, side in zip(grid, SIDES, strict=True):
        for axes, hops in zip(row, reach, strict=True):
            of_hops = [result for result in learned if result.config.hops == hops]
            _joints_of(axes, of_hops, classes, names, side)
            axes.set_title(f"what it {side}, {_hops(hops)}", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("share of its edges that are kept")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    grid[0, 0].set_xlim(0, 1.05 * max(grid[0, 0].get_xlim()[1], 0.01))
    grid[0, 0].legend(fontsize=8, title="class")
    figure.suptitle("How many of its edges each joint keeps (mean over layers and seeds; bars: ± standard deviation over seeds)")
    save(figure, path)


def _joints_of(axes: Axes, results: Sequence[Result], classes: Sequence[str], names: Sequence[str], side: str) -> None:
    for number, name in enumerate(classes):
        of_seed: dict[int, list[Result]] = {}
        for result in results:
            of_seed.setdefault(result.config.seed, []).append(result)
        shares = [[mean(r.study["joints"][name][joint][side] for r in group) for group in of_seed.values()] for joint in names]
        places = [i + 0.3 * (number - (len(classes) - 1) / 2) / max(len(classes) - 1, 1) for i in range(len(names))]
        spread = [stdev(values) if len(values) > 1 else 0 for values in shares]
        means = [mean(values) for values in shares]
        axes.errorbar(means, places, xerr=spread, fmt="o", color=_CLASSES[number % len(_CLASSES)], markersize=4, elinewidth=1, label=readable(name))
    axes.set_yticks(range(len(names)), [readable(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", alpha=0.3)


def over_depth(table: Table, measure: str, title: str, label: str, path: Path) -> None:
    """Figs. 4 and 5: a measure over the layers, a panel for every number of hops, the fixed graph against the learned one.

    Beside MAD stands that of the fixed graph's classifier on as many edges as the learned graph keeps, chosen at random.
    """
    keys = [key for key in table.there if key[0] in _COLORS]
    reach, depths = sorted({key[2] for key in keys}), sorted({key[1] for key in keys})
    figure = Figure(figsize=(2 + 3.6 * len(reach), 4.4), layout="constrained")
    for axes, hops in zip(figure.subplots(1, len(reach), squeeze=False, sharey=True)[0], reach, strict=True):
        for arm, color in _COLORS.items():
            _curve(axes, table, arm, hops, lambda result: result.summary[measure], color, f"{arm} graph")
        if measure == "mad":
            _curve(axes, table, "learned", hops, lambda r: _thinned_partner(table, r), "dimgrey", "fixed graph, as many edges at random", ":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.minorticks_off()
        axes.set(xlabel="layers", title=_hops(hops))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(label)
    if measure == "mad":
        figure.axes[0].set_ylim(bottom=0)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(f"{title}\n({_SPREAD})", fontsize=11)
    save(figure, path)


def _curve(axes: Axes, table: Table, arm: str, hops: int, value: Callable[[Result], float | None], color: str, label: str, style: str = "-") -> None:
    found: dict[int, list[float]] = {}
    for key, result in table.there.items():
        if (key[0], key[2]) == (arm, hops) and (number := value(result)) is not None:
            found.setdefault(key[1], []).append(number)
    depths = sorted(found)
    if not depths:
        return
    for depth in depths:
        axes.plot([depth] * len(found[depth]), found[depth], "o", color=color, alpha=0.4, markersize=4)
    spread = [stdev(found[depth]) if len(found[depth]) > 1 else 0 for depth in depths]
    axes.errorbar(depths, [mean(found[depth]) for depth in depths], yerr=spread, color=color, linestyle=style, capsize=3, label=label)


def _thinned_partner(table: Table, learned: Result) -> float | None:
    """MAD of the fixed graph's run of the same setting and seed, on as many edges as the learned graph keeps."""
    config = learned.config
    fixed = table.there.get(("fixed", config.layers, config.hops, config.seed))
    return None if fixed is None else fixed.thinned_distance(learned.summary["kept_share"])


def table_one(rows: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Table I as a picture: F1 and MAD of every arm `rows` names, ours beside the paper's."""
    figure = Figure(figsize=(10.5, 1.6 + 0.55 * len(rows)), layout="constrained")
    measures = (("macro_f1", "macro F1"), ("mad", "MAD"))
    for number, (axes, (name, words)) in enumerate(zip(figure.subplots(1, 2, sharey=True), measures, strict=True)):
        values = [[result.summary[name] for result in results] for results in rows.values()]
        ours = [(place, mean(of_arm), stdev(of_arm) if len(of_arm) > 1 else 0.0) for place, of_arm in enumerate(values)]
        theirs = [(place, *PAPER_TABLE[arm][number]) for place, arm in enumerate(rows) if arm in PAPER_TABLE]
        for points, shift, marker, color, label in ((ours, -0.12, "o", "tab:blue", "this grid"), (theirs, 0.12, "s", "dimgrey", "paper (CASIA-B)")):
            places, means, spread = zip(*points, strict=True) if points else ((), (), ())
            axes.errorbar(means, [place + shift for place in places], xerr=spread, fmt=marker, color=color, capsize=3, label=label)
        axes.set(xlabel=f"{words} (± standard deviation)", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].set_yticks(range(len(rows)), list(rows))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle("Learned simplification, the whole graph, and random elimination (16 layers, 1 hop)")
    save(figure, path)


def _hops(hops: int) -> str:
    return "1 hop" if hops == 1 else f"{hops} hops"
