"""How long the kernels should take, by a model on paper: `python -m bench.gpu.estimates --write docs/gpu/estimates.md`.

Of every launch what it has to do is set against what a chip can: instructions (counted in the machine code, docs/kernels.md) against those that
can be started, bytes asked of the first-level cache, of the second and of memory against what these give. The slowest of them is the launch's time,
and a launch costs 2 µs more. A limit is every input read once and every output written once at the memory's speed. Where a real chip says
otherwise (`make gpu`), the model is wrong and is to be mended.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastst import SkeletonGraph

ROOT = Path(__file__).resolve().parents[2]
_C, _HOPS, _TILE = 64, 3, 16  # channels, hops, frames of a program
_WARP, _LAUNCH, _FLOAT = 32, 2e-6, 4


class Chip(NamedTuple):
    """What it can do in a second: bytes from memory, by the data sheet; and what kernels of this kind get of the bytes from the second-level cache
    (80 %), from the first (70 %), and of warps' instructions (70 %). Of the memory's bytes they get 90 %."""

    name: str
    target: str
    memory: float
    second: float
    first: float
    instructions: float


CHIPS = (
    Chip("H100", "sm_90", 3.35e12, 0.8 * 5.0e12, 0.7 * 132 * 128 * 1.7e9, 0.7 * 132 * 4 * 1.7e9),
    Chip("RTX 2070", "sm_75", 0.448e12, 0.8 * 0.9e12, 0.7 * 36 * 64 * 1.6e9, 0.7 * 36 * 4 * 1.6e9),
)


class Work(NamedTuple):
    """Walks of the paper's skeleton with three hops and 64 channels, float32."""

    B: int
    T: int


WORKS = (Work(32, 60), Work(8, 300), Work(1, 10_000))


@dataclass(frozen=True)
class Launch:
    """One kernel over all edges.

    Attributes:
        kernel: its name in docs/kernels.md.
        ffma: multiply-adds of an edge and channel.
        reads: features of every node that are read apart from the window, and those written, in units of x.
        values: numbers of every edge that are read or written.
        noise: instructions of an edge besides, not counted with the loop.
    """

    kernel: str
    ffma: int
    reads: int
    values: int
    noise: int = 0


@dataclass(frozen=True)
class Operation:
    """What is asked for: `bar` times its limit at most; `least` features and `values` numbers of every edge are its inputs and outputs."""

    name: str
    launches: tuple[Launch, ...]
    bar: float
    least: int
    values: int


OPERATIONS = (
    Operation("propagate", (Launch("gather_sum", 1, 1, 1),), 2.0, 2, 1),
    Operation("propagate, gradients", (Launch("propagate backward", 2, 2, 2),), 2.5, 3, 2),
    Operation("sample_from_embeddings", (Launch("sample_edges from embeddings", 1, 1, 1, noise=70),), 2.0, 2, 1),
    Operation("attend", (Launch("attend", 2, 2, 0),), 2.5, 3, 0),
    Operation(
        "attend, gradients", (Launch("attend backward (receivers)", 4, 4, 0), Launch("attend backward (senders)", 4, 3, 0)), 3.0, 6, 0
    ),
)  # fmt: skip


class Compiled(NamedTuple):
    """Of a kernel's loop: instructions a multiply-add, without masks and with them, and how often a program asks for the same bytes."""

    instructions: float
    masked: float
    again: float


def read_kernels(text: str, target: str) -> dict[str, Compiled]:
    """The float32 kernels with a loop over features in docs/kernels.md."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    again = {row[0]: row[7] for row in rows if len(row) == 8 and row[1] == "float32"}
    found = [row for row in rows if len(row) == 14 and row[1:3] == ["float32", target] and row[12]]
    return {row[0]: Compiled(float(row[12]), float(row[13]), float(again[row[0]])) for row in found}


def seconds(launch: Launch, compiled: Compiled, work: Work, chip: Chip) -> tuple[float, str]:
    """Of a launch, and what bounds it."""
    edges, features = edges_of(work), work.B * work.T * 18 * _C * _FLOAT
    tiles = -(-work.T // _TILE)
    masked = min(2 / tiles, 1.0)  # the first and the last tile of a walk
    a_multiply_add = (1 - masked) * compiled.instructions + masked * compiled.masked
    full = tiles * _TILE / work.T  # the last tile's frames that there are not
    instructions = edges * _C * launch.ffma / _WARP * a_multiply_add * full + edges / _WARP * launch.noise
    asked = edges * _C * _FLOAT
    around, values = launch.reads * features, launch.values * edges * _FLOAT
    bounds = {
        "instructions": instructions / chip.instructions,
        "first-level cache": (asked + around) / chip.first,
        "second-level cache": (asked / compiled.again + around + values) / chip.second,
        "memory": (features + around + values) / (0.9 * chip.memory),
    }
    slowest = max(bounds, key=lambda name: bounds[name])
    return bounds[slowest] + _LAUNCH, slowest


def limit(operation: Operation, work: Work, chip: Chip) -> float:
    """Seconds for every input once and every output once."""
    return (operation.least * work.B * work.T * 18 * _C + operation.values * edges_of(work)) * _FLOAT / chip.memory


def edges_of(work: Work) -> int:
    """That exist: a slot whose sender is o frames away has o fewer."""
    offsets = SkeletonGraph("coco18", _HOPS).offset.abs()
    return work.B * int((work.T - offsets).clamp(min=0).sum())


def page(kernels: str) -> str:
    """All estimates, as Markdown."""
    lines = [
        "# What the GPU kernels should take",
        "",
        "Written by `python -m bench.gpu.estimates --write docs/gpu/estimates.md` from the machine code that docs/kernels.md describes; no GPU was",
        "asked. float32, the paper's 18 joints, three hops, 64 channels. The limit is every input once and every output once at the memory's speed;",
        "the estimate is the slowest of instructions, caches and memory for every launch, and 2 µs a launch. What is wanted is a multiple of the",
        "limit at 32 walks of 60 frames. `make gpu` measures.",
        "",
        "| operation | walks × frames | chip | limit, µs | estimate, µs | times the limit | wanted | bound by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for chip in CHIPS:
        compiled = read_kernels(kernels, chip.target)
        for operation in OPERATIONS:
            for work in WORKS:
                found = [seconds(launch, compiled[launch.kernel], work, chip) for launch in operation.launches]
                least, total = limit(operation, work, chip), sum(time for time, _ in found)
                wanted = f"{operation.bar:g}" if work == WORKS[0] else ""
                bound = ", then ".join(dict.fromkeys(name for _, name in found))
                times = f"{1e6 * least:.1f} | {1e6 * total:.0f} | {total / least:.1f}"
                lines.append(f"| {operation.name} | {work.B} × {work.T} | {chip.name} | {times} | {wanted} | {bound} |")
    lines += [
        "",
        "Not tried, for what is above what is wanted: attention for two or four joints in a program, which would share a window as they do in the",
        "sums (its kernels take 94 to 128 registers with one); more than four joints for the sums; and tensor cores on blocks that `gcn_norm` would",
        "write, for bfloat16 and tf32.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there instead of showing it")
    options = parser.parse_args()
    text = page((ROOT / "docs" / "kernels.md").read_text())
    if options.write:
        options.write.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
