"""Tables and pictures of a benchmark run's JSON: `python -m bench.report docs/benchmarks.json --pages README.md docs/guide/speed.md`.

Writes `benchmarks.md` and the pictures beside the JSON, and with --pages the tables between the markers of those files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.contenders import CONTENDERS
from bench.selection import LENGTHS_COMPARED, SMALL_AND_LARGE
from bench.works import PAPER, WORKS

PICTURES = ("benchmarks_time.png", "benchmarks_memory.png", "benchmarks_limits.png")
HASH = "JSON-SHA256"  # in the pictures' metadata: which run they show
# The rows of the table of speed: work, forward and backward, B, T, hops, channels.
HEADLINES = (
    ("propagate", False, 32, 60, 3, 64),
    ("propagate", True, 32, 60, 3, 64),
    ("propagate", False, 8, 300, 3, 64),
    ("propagate", True, 8, 300, 3, 64),
    ("sample_from_embeddings", True, 32, 60, 3, 32),
    ("attend", True, 32, 60, 3, 64),
    ("gcn_layer", True, 32, 60, 1, 256),
    ("training_step", True, PAPER.batch_size, PAPER.frames, PAPER.hops, PAPER.hidden),
    ("inference", False, PAPER.batch_size, PAPER.frames, PAPER.hops, PAPER.hidden),
)
# The paper: 50 epochs of 10,120 walks in 35 minutes (smallest model) to 2.3 hours (largest), on two RTX 2070.
PAPER_WALKS_PER_SECOND = {2: 50 * 10_120 / (35 * 60), 16: 50 * 10_120 / (2.3 * 3600)}

Row = dict[str, Any]


class Run:
    """A benchmark run: its timed rows, its skipped rows, its memory figures."""

    def __init__(self, path: Path) -> None:
        text = path.read_bytes()
        self.digest = hashlib.sha256(text).hexdigest()
        self.data = json.loads(text)
        self.rows: list[Row] = [
            {**row["extra_info"], **{name: row["stats"][name] for name in ("median", "iqr", "rounds")}, "group": row["group"]}
            for row in self.data["benchmarks"]
        ]
        self.skipped: list[Row] = self.data["skipped"]
        self.memory: dict[str, list[Row]] = self.data["memory"]
        self.machine: dict[str, Any] = self.data["machine_info"]

    def find(self, rows: Iterable[Row] | None = None, **values: Any) -> list[Row]:
        """The rows with these values; of the whole session's threads, the training defaults' layers, and float32, where not said otherwise."""
        wanted = {"threads": self.machine["threads"], "dtype": "float32", "layers": PAPER.layers, **values}
        return [row for row in (self.rows if rows is None else rows) if all(row[name] == value for name, value in wanted.items())]

    def groups(self) -> dict[str, list[Row]]:
        """Timed and skipped rows by group, in the order in which they ran."""
        groups: dict[str, list[Row]] = {}
        for row in (*self.rows, *self.skipped):
            groups.setdefault(row["group"], []).append(row)
        order = list(CONTENDERS)
        return {name: sorted(rows, key=lambda row: order.index(row["contender"])) for name, rows in groups.items()}


def is_fastst(row: Row) -> bool:
    return row["contender"].startswith("fastst")


def fastest(rows: list[Row]) -> Row | None:
    return min(rows, key=lambda row: row["median"], default=None)


def label(name: str) -> str:
    return CONTENDERS[name].label


def phase(backward: bool) -> str:
    return "forward + backward" if backward else "forward"


def seconds(value: float) -> str:
    """In the unit that suits, three digits."""
    unit, factor = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("µs", 1e6)
    return f"{_digits(value * factor)} {unit}"


def _digits(value: float, count: int = 3) -> str:
    decimals = max(0, count - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{decimals}f}"


def times(ratio: float) -> str:
    return _digits(ratio, 2)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"


def sections(run: Run) -> dict[str, str]:
    """What stands between the markers of pages, by their names."""
    return {
        "first": first_table(run),
        "words": in_words(run),
        "speed": speed_table(run),
        "scaling": scaling_table(run),
        "memory": frontier_table(run),
    }


def first_table(run: Run) -> str:
    """A line of time and one of memory: what the README shows."""
    work, backward, B, T, hops, C = HEADLINES[1]
    found = run.find(work=work, phase=phase(backward), B=B, T=T, hops=hops, C=C)
    cells = [cell for cell in run.memory.get("frontier", []) if (cell["layers"], cell["hops"], cell["B"]) == (*SMALL_AND_LARGE[1], 1) and cell["T"]]
    time = f"message passing with its gradients, {B} walks of {T} frames, {hops} hops, {C} channels"
    length = f"frames of the longest walk that trains in 8 GB, {SMALL_AND_LARGE[1][0]} layers, {SMALL_AND_LARGE[1][1]} hops"
    rows = [
        [time, *_first(found, lambda row: row["median"], seconds)],
        [length, *_first(cells, lambda cell: -cell["T"], lambda value: f"{-value:,}")],
    ]
    return table(["", label("dense"), "the best of the others", "fastst"], rows)


def _first(rows: list[Row], value: Callable[[Row], float], words: Callable[[float], str]) -> list[str]:
    """Of the dense matrix, of the best of the others, and of fastst; the smaller the value, the better."""
    kinds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for row in rows:
        if row["contender"] != "gemm":
            kinds[2 if is_fastst(row) else int(row["contender"] != "dense")].append(value(row))
    return [words(min(kind)) if kind else "–" for kind in kinds]


def speed_table(run: Run) -> str:
    """Medians as multiples of fastst's fastest backend."""
    rows, shown = [], [name for name in CONTENDERS if name != "gemm" and any(row["contender"] == name for row in run.rows)]
    for work, backward, B, T, hops, C in HEADLINES:
        found = {row["contender"]: row for row in run.find(work=work, phase=phase(backward), B=B, T=T, hops=hops, C=C)}
        best = fastest([row for row in found.values() if is_fastst(row)])
        if best is None:
            continue
        cells = [f"{WORKS[work].title}, {phase(backward)}, {B} × {T}, {hops}, {C}"]
        for name in shown:
            row = found.get(name)
            cells.append("–" if row is None else f"**{seconds(row['median'])}**" if row is best else times(row["median"] / best["median"]))
        rows.append(cells)
    return f"{machine_line(run)}\n\n" + table(["walks × frames, hops, channels", *map(label, shown)], rows)


def machine_line(run: Run) -> str:
    machine = run.machine
    cpu = machine["cpu"].get("brand_raw", machine["machine"])
    device = cpu if machine["device"].startswith("CPU") else f"{machine['device']} ({cpu})"
    return f"{device}, {machine['threads']} threads, torch {machine['versions']['torch']}, float32:"


def in_words(run: Run) -> str:
    """What wins where, and where fastst does not, if anywhere: a sentence each."""
    ratios: list[tuple[float, Row, Row]] = []
    for rows in run.groups().values():
        timed = [row for row in rows if "median" in row and row["contender"] != "gemm"]
        mine, other = fastest([row for row in timed if is_fastst(row)]), fastest([row for row in timed if not is_fastst(row)])
        if mine is not None and other is not None:
            ratios.append((other["median"] / mine["median"], mine, other))
    if not ratios:
        return "Nothing was compared in this run.\n"
    won = sorted(ratio for ratio, _, _ in ratios if ratio > 1)
    first = f"Of {len(ratios)} works that fastst and others do, fastst is the fastest in {len(won)}"
    if won:
        first += f": {times(won[0])} to {times(won[-1])} times as fast as the best of the others, {times(won[len(won) // 2])} in the middle"
    by_work: dict[tuple[str, str], list[float]] = {}
    for ratio, _, other in ratios:
        if ratio <= 1:
            by_work.setdefault((WORKS[other["work"]].title, label(other["contender"])), []).append(1 / ratio)
    lost = [f" In {len(factors)}, {work}, {name} {_by(max(factors))}." for (work, name), factors in sorted(by_work.items())]
    return f"{first}.{''.join(lost)}\n"


def _by(factor: float) -> str:
    return "takes the same time" if factor < 1.05 else f"is up to {times(factor)} times as fast"


def scaling_table(run: Run) -> str:
    """Time per frame, threads, precision, walks a second."""
    rows = []
    for name in (name for name in CONTENDERS if name.startswith("fastst")):
        short, long = (run.find(work="propagate", phase="forward", B=1, T=T, contender=name) for T in LENGTHS_COMPARED)
        if short and long:
            a, b = short[0]["median"] / LENGTHS_COMPARED[0], long[0]["median"] / LENGTHS_COMPARED[1]
            what = f"message passing, forward, a frame: {LENGTHS_COMPARED[0]:,} frames, {LENGTHS_COMPARED[1]:,} frames"
            rows.append([what, label(name), seconds(a), seconds(b), times(a / b)])
        base: dict[str, Any] = {"work": "propagate", "phase": "forward + backward", "B": 32, "T": 60, "hops": 3, "C": 64, "contender": name}
        ordinary = run.find(**base)
        for what, found in (("1 thread", run.find(**base, threads=1)), ("bfloat16", run.find(**base, dtype="bfloat16"))):
            if ordinary and found:
                usual = f"{run.machine['threads']} threads" if "thread" in what else "float32"
                one, other = found[0]["median"], ordinary[0]["median"]
                rows.append([f"message passing, forward + backward: {what}, {usual}", label(name), seconds(one), seconds(other), times(one / other)])
    scaling = table(["what: first, second", "backend", "first", "second", "first / second"], rows)
    speeds = []
    for layers, hops in SMALL_AND_LARGE:
        found = run.find(work="training_step", T=PAPER.frames, hops=hops, C=PAPER.hidden, layers=layers)
        best = fastest([row for row in found if is_fastst(row)])
        if best is not None:
            size = f"{layers} layers, {hops} {'hop' if hops == 1 else 'hops'}, {best['parameters']:,} parameters"
            speeds.append([size, f"{best['B'] / best['median']:.0f} ({label(best['contender'])})", f"{PAPER_WALKS_PER_SECOND[layers]:.0f}"])
    return scaling + "\n" + table(["training, walks a second", "here", "the paper, two RTX 2070, models of 82 K and 2.9 M parameters"], speeds)


def frontier_table(run: Run) -> str:
    """The longest T whose training step fits in 8 GB."""
    cells = run.memory.get("frontier", [])
    names = [name for name in CONTENDERS if any(cell["contender"] == name for cell in cells)]
    kinds = sorted({(cell["layers"], cell["hops"], cell["B"]) for cell in cells})
    found = {(cell["contender"], cell["layers"], cell["hops"], cell["B"]): cell["T"] for cell in cells}
    rows = []
    for layers, hops, B in kinds:
        lengths = [found.get((name, layers, hops, B)) for name in names]
        rows.append([f"{layers} layers, {hops} {'hop' if hops == 1 else 'hops'}, batch {B}", *("–" if T is None else f"{T:,}" for T in lengths)])
    text = table(["longest walk in 8 GB (frames)", *map(label, names)], rows)
    return text + "\n" + long_walks(run)


def long_walks(run: Run) -> str:
    lines = []
    for walk in run.memory.get("long_walks", []):
        how = " with activation checkpointing" if walk["checkpointed"] else ""
        lines.append(f"* T = {walk['T']:,}{how}, {label(walk['contender'])}: {walk['bytes'] / 1e9:.2f} GB")
    real: Any = run.memory.get("real_process")
    if real:
        lines.append(
            f"* T = {real['T']:,}, {label(real['contender'])}, run for real: {real['rss_growth'] / 1e9:.2f} GB (growth of the process's peak RSS; "
            f"computed {real['bytes'] / 1e9:.2f} GB), {real['seconds']:.0f} s a step"
        )
    head = "One training step of 3 hops, 16 layers, 64 channels, learned graph, factorized attention, batch 1:\n\n"
    return head + "\n".join(lines) + "\n" if lines else ""


def markdown(run: Run) -> str:
    """The whole report."""
    machine, commit, warm_ups = run.machine, run.data["commit_info"], run.data["warm_ups"]
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in machine["versions"].items())
    environment = ", ".join(f"{name}={value}" for name, value in machine["environment"].items() if value)
    environment = environment or "none of " + ", ".join(machine["environment"])
    limits = "; ".join(
        f"{threads} {'thread' if threads == '1' else 'threads'}: copy {rate['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"float32 matrix product {rate['gemm_flops_per_second'] / 1e9:.0f} GFLOP/s"
        for threads, rate in machine["limits"].items()
    )
    duration = f", {run.data['minutes']:.0f} minutes" if "minutes" in run.data else ""
    selection = "The full set" if run.data["full"] else "The default selection"
    parts = [
        "# Benchmarks\n",
        f"Made by `python -m bench.report` from the JSON beside it; not to be edited. {selection}.\n",
        f"* {machine_line(run)[:-1]}; {machine['memory_bytes'] / 2**30:.0f} GiB; {machine['system']} {machine['machine']}, Python "
        f"{machine['python_version']}, {machine['capability']}\n* {versions}\n* environment: {environment}\n"
        f"* commit {str(commit['id'])[:12]}{' with changes' if commit['dirty'] else ''}, {run.data['datetime'][:10]}{duration}\n* limits: {limits}\n",
        "Rounds of a group's contenders are interleaved, and so are those of groups that are set against one another (threads, precision, length); "
        f"runs of at most {warm_ups['of_seconds']} s come after untimed ones, at least "
        f"{warm_ups['runs']} and {warm_ups['seconds'] * 1000:.0f} ms of them. The limit of a row "
        "is the time that its arithmetic (FLOPs that the mathematics needs, at the measured matrix product's rate) or its memory (every input read "
        "and every output written once, at the measured copy's rate) takes at least, whichever is longer; more than 100 % means that the data lay in "
        "a cache. Checked: with what outputs and gradients were compared, and the largest difference relative to the largest number.\n",
        in_words(run),
        "## Speed, as multiples of the fastest fastst backend\n",
        speed_table(run),
        scaling_table(run),
        f"![time over frames]({PICTURES[0]})\n\n![fraction of the limit]({PICTURES[2]})\n",
        "## Memory\n",
        frontier_table(run),
        _not_computed(run),
        f"![memory over frames]({PICTURES[1]})\n",
        "## Every row\n",
        *(_group_section(name, rows) for name, rows in run.groups().items()),
    ]
    return "\n".join(parts)


def _not_computed(run: Run) -> str:
    reasons: Any = run.memory.get("not_computed", {})
    return "".join(f"* {label(name)}: not computed: {reason}\n" for name, reason in reasons.items())


def _group_section(name: str, rows: list[Row]) -> str:
    lines = []
    timed = [row for row in rows if "median" in row]
    best = fastest([row for row in timed if row["contender"] != "gemm"])
    for row in rows:
        if "median" not in row:
            lines.append([label(row["contender"]), f"not timed: {row['reason']}", *[""] * 5])
            continue
        lines.append(
            [
                label(row["contender"]),
                f"{seconds(row['median'])} ± {seconds(row['iqr'] / 2) if row['iqr'] else '0'}",
                str(row["rounds"]),
                times(row["median"] / best["median"]) if best is not None else "",
                f"{row['limit_seconds'] / row['median']:.0%} of {row['limit']}",
                f"{row['flops'] / 1e9:.3g}, {row['bytes'] / 1e6:.3g}",
                row["checked"] + (f" ({row['largest_difference']:.0e})" if row["checked"] != "–" else ""),
            ]
        )
    header = ["contender", "median ± half the IQR", "rounds", "× fastest", "of the limit", "GFLOP, MB", "checked"]
    return f"### {name}\n\n" + table(header, lines)


def draw(run: Run, folder: Path) -> None:
    """The three pictures."""
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        for name, figure in zip(PICTURES, (_time_figure(run), _memory_figure(run), _limits_figure(run)), strict=True):
            figure.savefig(folder / name, dpi=110, metadata={HASH: run.digest})


def _time_figure(run: Run) -> Figure:
    rows = run.find(work="propagate", phase="forward + backward", hops=3, C=64)
    lines = {name: [(row["T"], row["median"] / row["B"]) for row in rows if row["contender"] == name] for name in CONTENDERS}
    return _log_log(lines, "seconds a walk", "Message passing, forward + backward, 3 hops, 64 channels")


def _memory_figure(run: Run) -> Figure:
    points = run.memory.get("peak_over_frames", [])
    lines = {name: [(point["T"], point["bytes"] / 1e9) for point in points if point["contender"] == name] for name in CONTENDERS}
    figure = _log_log(lines, "GB", f"Peak memory of a training step, one walk, 3 hops, {PAPER.layers} layers")
    figure.axes[0].axhline(8, color="black", linewidth=0.8, linestyle=":")
    figure.axes[0].annotate("8 GB", (60, 8), textcoords="offset points", xytext=(0, 3))
    return figure


def _log_log(lines: dict[str, list[tuple[float, float]]], ylabel: str, title: str) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        if points:
            x, y = np.array(sorted(points)).T
            axes.loglog(x, y, "o-", color=f"C{number}", label=label(name).replace("`", "") + slope_in_words(x, y))
    axes.set(xlabel="frames T", ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def slope_in_words(x: np.ndarray, y: np.ndarray) -> str:
    """The exponent of T between the last two points."""
    if len(x) < 2:
        return ""
    return f", slope {np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]):.2f}"


def _limits_figure(run: Run) -> Figure:
    """Of the rows in the table of speed: the fastest fastst backend and the fastest other."""
    bars: list[tuple[str, str, float]] = []
    for work, backward, B, T, hops, C in HEADLINES:
        found = [row for row in run.find(work=work, phase=phase(backward), B=B, T=T, hops=hops, C=C) if row["contender"] != "gemm"]
        for best in (fastest([row for row in found if is_fastst(row)]), fastest([row for row in found if not is_fastst(row)])):
            if best is not None:
                text = f"{WORKS[work].title.split(' (')[0]}, {phase(backward)}, {B} × {T}"
                bars.append((text, best["contender"], best["limit_seconds"] / best["median"]))
    figure = Figure(figsize=(7, 0.8 + 0.27 * len(bars)), layout="constrained")
    axes = figure.subplots()
    order = list(CONTENDERS)
    for y, (_, name, fraction) in enumerate(bars):
        axes.barh(y, fraction, color=f"C{order.index(name)}")
        axes.annotate(f"{fraction:.0%} {label(name)}".replace("`", ""), (fraction, y), textcoords="offset points", xytext=(3, -3), fontsize=8)
    texts = [bar[0] if number == 0 or bars[number - 1][0] != bar[0] else "" for number, bar in enumerate(bars)]
    axes.set_yticks(range(len(bars)), texts, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max([bar[2] for bar in bars], default=1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="fraction of the limit that binds (arithmetic or memory)", title="How near to the machine's limits")
    return figure


def fill(texts: list[str], sections: dict[str, str]) -> list[str]:
    """The texts with what stands between `<!-- benchmarks:NAME -->` and `<!-- /benchmarks:NAME -->` replaced."""
    for name, section in sections.items():
        pattern = re.compile(rf"(<!-- benchmarks:{name} -->\n).*?(<!-- /benchmarks:{name} -->)", re.DOTALL)
        done = [pattern.subn(r"\1" + section.replace("\\", r"\\") + r"\2", text) for text in texts]
        if not any(count for _, count in done):
            raise ValueError(f"the markers of benchmarks:{name} are in none of the pages")
        texts = [text for text, _ in done]
    return texts


def write_report(path: Path) -> None:
    """Writes `benchmarks.md` and the pictures beside the run's JSON."""
    run = Run(path)
    (path.parent / "benchmarks.md").write_text(markdown(run), encoding="utf-8")
    draw(run, path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="?", default=Path("docs/benchmarks.json"), help="of a benchmark run (default: %(default)s)")
    parser.add_argument("--pages", type=Path, nargs="+", default=[], help="files whose tables to renew")
    options = parser.parse_args()
    write_report(options.json)
    if options.pages:
        texts = fill([page.read_text(encoding="utf-8") for page in options.pages], sections(Run(options.json)))
        for page, text in zip(options.pages, texts, strict=True):
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
