"""The report as a page: what was found wrong first, then tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
TIMED = ("limits", "times", "steps", "kernels")  # parts of which a row may be missing


def page(results: dict[str, Any]) -> str:
    parts: dict[str, Any] = results["parts"]
    about = next((row for row in _rows(parts, "device") if row["key"] == "device"), {})
    title = "# A rehearsal on the CPU: nothing here is about a GPU" if results["rehearsal"] else f"# fastst on {about.get('name', 'a GPU')}"
    text = [title, f"Written by `python -m bench.gpu`, {results['began']}, in {results['seconds']:.0f} s.", _device(parts, about), _in_short(parts)]
    for name, (heading, show) in _SECTIONS.items():
        if name in parts:
            text += [f"## {heading}", *_remarks(parts[name]), show(_good(parts, name))]
    return "\n\n".join(block for block in text if block) + "\n"


def _rows(parts: dict[str, Any], name: str) -> list[Row]:
    return parts.get(name, {}).get("rows", [])


def _good(parts: dict[str, Any], name: str) -> list[Row]:
    return [row for row in _rows(parts, name) if "error" not in row and "left_out" not in row]


def _device(parts: dict[str, Any], about: Row) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items() if number)
    names = (("chip", "{}"), ("multiprocessors", "{} multiprocessors"), ("memory_GiB", "{:.0f} GiB"), ("l2_MiB", "{:.0f} MiB of L2"))
    chip = ", ".join(form.format(about[name]) for name, form in names if name in about)
    driver = next((row for row in _rows(parts, "device") if row["key"] == "nvidia-smi" and "error" not in row), {})
    clocks = ", ".join(f"{name} {value}" for name, value in driver.items() if name != "key")
    return "\n".join(f"* {line}" for line in (chip, clocks, versions) if line)


def _in_short(parts: dict[str, Any]) -> str:
    wrong = [f"{name}: {row['key']}" for name in parts for row in _rows(parts, name) if row.get("right") is False]
    judged = sum("right" in row for name in parts for row in _rows(parts, name))
    left_out = sum("left_out" in row for name in parts if name not in TIMED for row in _rows(parts, name))
    not_judged = f" **{left_out} more were not made: no time was left.**" if left_out else ""
    lines = [f"{judged} checks, {len(wrong)} wrong.{not_judged}", *(f"* wrong: {what}" for what in wrong)]
    lines += [f"* failed: {name}: {row['key']}: {row['error']}" for name in parts for row in _rows(parts, name) if "error" in row]
    lines += [f"* {name}: {parts[name]['error']}" for name in parts if "error" in parts[name]]
    return "\n".join(lines)


def _remarks(part: dict[str, Any]) -> list[str]:
    left_out = sum("left_out" in row for row in part["rows"])
    remarks = [f"**Disturbed:** {part['disturbed']}; the times may be too long."] if "disturbed" in part else []
    return remarks + ([f"{left_out} left out: no time was left."] if left_out else [])


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def _number(row: Row, name: str, form: str = "{:.1f}") -> str:
    return "" if row.get(name) is None else form.format(row[name])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _yes(row: Row) -> str:
    return "yes" if row["right"] else "**no**"


def _limits(rows: list[Row]) -> str:
    table = [[row["key"], _rate(row), _number(row, "us"), _number(row, "host_us"), _number(row, "eager_us")] for row in rows]
    return _table(["limit", "rate", "µs", "host µs", "in a row µs"], table)


def _rate(row: Row) -> str:
    return _number(row, "GB_per_second", "{:.0f} GB/s") or _number(row, "TFLOP_per_second", "{:.1f} TFLOP/s")


def _correct(rows: list[Row]) -> str:
    """The largest error of each operation, precision and backend over the cases."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["operation"], row["dtype"], row["backend"]), []).append(row)
    table = [
        [*key, f"{max(max(row['errors']) for row in of):.1e}", str(len(of)), _yes({"right": all(row["right"] for row in of)})]
        for key, of in groups.items()
    ]
    head = "Outputs and gradients, ‖found − reference‖ / ‖reference‖ in float64, of kept edges the share that differ; the largest of all cases."
    return f"{head}\n\n{_table(['operation', 'precision', 'backend', 'largest', 'cases', 'right'], table)}"


def _build(rows: list[Row]) -> str:
    return "\n".join(f"{row['programs']} cases in {row['processes']} processes, {row['seconds']:.0f} s." for row in rows)


def _checks(rows: list[Row]) -> str:
    hidden = ("key", "right")
    return _table(
        ["check", "right", "found"],
        [[row["key"], _yes(row), ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k not in hidden)] for row in rows],
    )


def _times(rows: list[Row]) -> str:
    works = list(dict.fromkeys(row["work"] for row in rows if "work" in row))
    head = (
        "GPU time is the median of replays of a CUDA graph of many calls, where one could be captured (else of calls in a row): what fits the L2 "
        "cache is found there. The cold time is of a graph of one call after the caches were emptied; host time is what a call takes to return. "
        "Rates count what the mathematics needs, in the GPU time. A ratio is of two times by the same clock."
    )
    text = [head]
    for work in works:
        table = [
            [row["contender"], row["precision"], _number(row, "us"), "graph" if "gpu_us" in row else "in a row", _number(row, "cold_us"),
             _number(row, "host_us"), _number(row, "over_ours", "{:.2f}"),
             _number(row, "GB_per_second", "{:.0f}"), _number(row, "TFLOP_per_second", "{:.2f}")]
            for row in rows if row.get("work") == work
        ]  # fmt: skip
        header = ["contender", "precision", "GPU µs", "clock", "cold µs", "host µs", "× fastst's", "GB/s", "TFLOP/s"]
        text.append(f"### {work}\n\n{_table(header, table)}")
    clocks = [", ".join(f"{name} {value}" for name, value in row.items() if name != "key") for row in rows if row["key"] == "after this"]
    text += [f"After these: {said}." for said in clocks]
    norms = [[row["key"], *(_number(row[phase], "us") for phase in ("forward", "forward + backward"))] for row in rows if "forward" in row]
    return "\n\n".join([*text, _table(["normalisation", "forward µs", "forward + backward µs"], norms)])


def _steps(rows: list[Row]) -> str:
    names = ("peak_GB", "host_us", "eager_us", "gpu_us", "walks_per_second")
    table = [
        [row["model"], f"{row['B']} × {row['T']}, {row['layers']} layers, {row['hops']} hops", row["backend"], row["precision"]]
        + [_number(row, name, "{:.2f}" if name == "peak_GB" else "{:.0f}") for name in names]
        for row in rows
    ]
    return _table(["model", "size", "backend", "precision", "peak GB", "host µs", "eager µs", "graph µs", "walks/s"], table)


def _memory(rows: list[Row]) -> str:
    names = ("computed_GB", "allocated_GB", "reserved_GB")
    table = [[row["key"], *(_number(row, name, "{:.2f}") for name in names), _number(row, "seconds_in_all")] for row in rows]
    head = "A training step of 16 layers and 3 hops, 64 channels, batch 1, on a GPU that is allowed 8 GB."
    return f"{head}\n\n{_table(['walk', 'computed GB', 'allocated GB', 'reserved GB', 's in all'], table)}"


def _kernels(rows: list[Row]) -> str:
    table = [[row["key"], found["kernel"], f"{found['calls']:.0f}", f"{found['us']:.1f}"] for row in rows for found in row["kernels"]]
    return _table(["forward + backward of", "kernel", "calls", "µs"], table)


_SECTIONS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "limits": ("What this machine can do", _limits),
    "build": ("Kernels compiled ahead", _build),
    "correct": ("Right", _correct),
    "deterministic": ("The same every time", _checks),
    "times": ("Operations", _times),
    "steps": ("Training steps", _steps),
    "memory": ("8 GB", _memory),
    "tests": ("The project's tests of the kernels", _checks),
    "waits": ("No wait for the GPU", _checks),
    "compiled": ("torch.compile", _checks),
    "kernels": ("Kernels", _kernels),
}
