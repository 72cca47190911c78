"""How much faster other people's layers and models are with fastst's in their place: `python -m bench.swaps --write docs/swaps.md`.

The original and the swapped one take turns in one process, forward and backward, gradients of the inputs and of all parameters; medians. The
second table is of many sizes: where a swap is not worth it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fastst
from bench.clocks import seconds_of
from bench.originals import ConvTemporalGraphical, SpatialTemporal_MS_GCN, StGcn
from fastst import LAYOUTS, SkeletonGraph
from fastst.cpu.memory import keep_freed_memory

Step = Callable[[], object]
_C = 64


@dataclass(frozen=True)
class Swap:
    """What is compared, how many times as fast ours has to be, and what makes the original's step and ours."""

    name: str
    wanted: float
    steps: Callable[[], tuple[Step, Step]]


def step_of(module: nn.Module, *inputs: Any, leaves: Iterable[Tensor] = ()) -> Step:
    """Forward and backward, the gradient of the output given."""
    leaves = [*leaves, *module.parameters()]
    given: list[Tensor] = []

    def step() -> object:
        y = module(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        if not given:
            given.append(torch.randn_like(y))
        return torch.autograd.grad(y, leaves, given[0])

    return step


def swapped(model: nn.Module) -> nn.Module:
    """A copy with fastst's layers.

    Raises:
        RuntimeError: nothing was swapped.
    """
    whole = nn.ModuleList([copy.deepcopy(model)])
    if not any(row.swapped for row in fastst.patch(whole).swaps):
        raise RuntimeError(f"nothing was swapped in {type(model).__name__}: {fastst.patch(whole)}")
    return whole[0]


def of_geometric(name: str, edges: Callable[[], Tensor], num_nodes: int, anew: bool = False, channels: int = _C) -> tuple[Step, Step]:
    """A layer of PyTorch Geometric's on any edges; with `anew` an edge list that was never seen at every step."""
    from torch_geometric import nn as geometric

    x, known = torch.randn(num_nodes, channels, requires_grad=True), edges()
    features = [torch.randn(known.shape[1], channels, requires_grad=True)] if name == "GINEConv" else []
    if name in ("GINConv", "GINEConv"):
        layer = getattr(geometric, name)(nn.Linear(channels, channels))
    else:
        words = {"out_channels": channels // 4, "heads": 4} if name == "GATv2Conv" else {"out_channels": channels}
        layer = getattr(geometric, name)(channels, **words)

    def step(module: nn.Module) -> Step:
        return step_of(_Anew(module) if anew else module, x, known, *features, leaves=[x, *features])

    return step(layer), step(swapped(layer))


class _Anew(nn.Module):
    """A layer that gets edges which it has never seen, each time."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.layer(x, edge_index.clone())


def skeletons(hops: int = 1, walks: int = 64, frames: int = 60) -> tuple[Tensor, SkeletonGraph, int]:
    """A batch of walks as PyTorch Geometric has it: one edge list."""
    graph = SkeletonGraph("coco18", hops)
    one, nodes = graph.edge_index(frames), frames * graph.num_joints
    return torch.cat([one + nodes * walk for walk in range(walks)], 1), graph, nodes * walks


def on_edges(name: str, hops: int) -> tuple[Step, Step]:
    edges, _, nodes = skeletons(hops)
    return of_geometric(name, lambda: edges, nodes)


def on_slots(name: str, hops: int) -> tuple[Step, Step]:
    """PyTorch Geometric's layer on the edge list against ours on the graph of slots."""
    theirs, _ = on_edges(name, hops)
    _, graph, _ = skeletons(hops)
    ours = fastst.nn.GATv2Conv(_C, _C // 4, heads=4) if name == "GATv2Conv" else fastst.nn.GCNConv(_C, _C)
    x = torch.randn(64, 60, graph.num_joints, _C, requires_grad=True)
    return theirs, step_of(ours, x, graph, leaves=[x])


def random_edges(num_nodes: int, num_edges: int) -> Tensor:
    return torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(0))


def million_edges() -> Tensor:
    return random_edges(100_000, 1_000_000)


def st_gcn_layer() -> tuple[Step, Step]:
    A = torch.from_numpy(LAYOUTS["stgcn18"].partitions("spatial")).float()
    layer, x = ConvTemporalGraphical(_C, _C, len(A)), torch.randn(8, _C, 150, A.shape[1], requires_grad=True)
    importance = torch.ones_like(A)

    def step(module: nn.Module) -> Step:
        return step_of(_WithImportance(module, A, importance), x, leaves=[x])

    return step(layer), step(swapped(layer))


class _WithImportance(nn.Module):
    """ST-GCN's layer with a learned weight of every edge."""

    def __init__(self, layer: nn.Module, A: Tensor, importance: Tensor) -> None:
        super().__init__()
        self.layer, self.A, self.importance = layer, A, nn.Parameter(importance)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.A * self.importance)[0]


def st_gcn() -> tuple[Step, Step]:
    model, x = StGcn(3, 10), torch.randn(4, 3, 150, 18)
    return step_of(model, x), step_of(swapped(model), x)


def ms_g3d(window: int) -> tuple[Step, Step]:
    bones = np.zeros((25, 25))
    for a, b in LAYOUTS["ntu25"].bones:
        bones[a, b] = bones[b, a] = 1
    layer = SpatialTemporal_MS_GCN(96, 96, bones, num_scales=6, window_size=window)
    x = torch.randn(4, 96, 60, 25 * window, requires_grad=True)
    return step_of(layer, x, leaves=[x]), step_of(swapped(layer), x, leaves=[x])


SWAPS = (
    Swap("GCNConv, 64 walks of 60 frames, 1 hop, as an edge list", 4.0, lambda: on_edges("GCNConv", 1)),
    Swap("GCNConv, the same on slots", 9.0, lambda: on_slots("GCNConv", 1)),
    Swap("GCNConv, the same with 3 hops, as an edge list", 4.0, lambda: on_edges("GCNConv", 3)),
    Swap("GCNConv, the same with 3 hops, on slots", 9.0, lambda: on_slots("GCNConv", 3)),
    Swap("GATv2Conv, 64 walks of 60 frames, 1 hop, as an edge list", 5.0, lambda: on_edges("GATv2Conv", 1)),
    Swap("GATv2Conv, the same on slots", 5.0, lambda: on_slots("GATv2Conv", 1)),
    Swap("GCNConv, of Cora's size", 1.8, lambda: of_geometric("GCNConv", lambda: random_edges(2708, 10_556), 2708)),
    Swap("GATv2Conv, of Cora's size", 3.5, lambda: of_geometric("GATv2Conv", lambda: random_edges(2708, 10_556), 2708)),
    Swap("GINConv, of Cora's size", 0.95, lambda: of_geometric("GINConv", lambda: random_edges(2708, 10_556), 2708)),
    Swap("GINEConv, of Cora's size", 0.95, lambda: of_geometric("GINEConv", lambda: random_edges(2708, 10_556), 2708)),
    Swap("GCNConv, a million random edges, new at every step", 1.5, lambda: of_geometric("GCNConv", million_edges, 100_000, anew=True)),
    Swap("ST-GCN's layer", 1.5, st_gcn_layer),
    Swap("ST-GCN", 1.0, st_gcn),
    Swap("MS-G3D's window of 3", 2.2, lambda: ms_g3d(3)),
    Swap("MS-G3D's window of 5", 2.2, lambda: ms_g3d(5)),
)  # fmt: skip


def times(steps: tuple[Step, Step], rounds: int) -> tuple[float, float]:
    """Seconds of both, taking turns."""
    for step in steps:
        step()
        step()
    theirs, ours = zip(*([seconds_of(step) for step in steps] for _ in range(rounds)), strict=True)
    return statistics.median(theirs), statistics.median(ours)


# Sizes from which on a swap is worth it: one graph of so many nodes, four edges a node.
LAYERS = ("GCNConv", "GATv2Conv", "SAGEConv")
NODES, CHANNELS = (30, 300, 3000, 30_000), (8, 32, 64, 128)


def crossover(layer: str, nodes: int, channels: int) -> tuple[Step, Step]:
    return of_geometric(layer, lambda: random_edges(nodes, 4 * nodes), nodes, channels=channels)


def page(found: dict[str, tuple[float, float]], sizes: dict[tuple[str, int, int], tuple[float, float]], about: str) -> str:
    """Markdown."""
    lines = [
        "# How much faster other people's layers are",
        "",
        f"Written by `python -m bench.swaps --write docs/swaps.md` on {about}.",
        "Forward and backward, with the gradients of inputs and parameters, of the original and of the same with fastst's layers, which took turns",
        "in one process that keeps the memory of freed tensors; medians. Layers have 64 channels, and with them their products with weights.",
        "",
        "| layer or model | original, ms | with fastst, ms | times as fast | wanted |",
        "| --- | --- | --- | --- | --- |",
    ]
    for swap in SWAPS:
        theirs, ours = found[swap.name]
        lines.append(f"| {swap.name} | {1e3 * theirs:.1f} | {1e3 * ours:.1f} | {theirs / ours:.2f} | {swap.wanted:g} |")
    lines += [
        "",
        "## From which size on",
        "",
        "Times as fast, by channels and nodes; four random edges a node, a graph that comes again.",
        "",
        f"| layer | channels | {' | '.join(f'{nodes:,} nodes' for nodes in NODES)} |",
        f"| --- | --- |{' --- |' * len(NODES)}",
    ]
    for layer in LAYERS:
        for channels in CHANNELS:
            ratios = [theirs / ours for theirs, ours in (sizes[layer, nodes, channels] for nodes in NODES)]
            lines.append(f"| {layer} | {channels} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    lines += [
        "",
        "A swapped layer of `GCNConv` or `SAGEConv` leaves the smallest graphs to the original, so what is below 1 there is the detour.",
        "`GINConv` and `GINEConv` leave what has fewer than half a million numbers (edges times channels); those of Cora's size above have a little",
        "more.",
        "",
        "## What is not reached",
        "",
        "In ST-GCN's layer 78 % of the multiplications are in its 1 × 1 convolution, which stays; in the whole model most are in the convolutions",
        "along nine frames. In MS-G3D's layer the products with weights, of six scales with 96 channels each, stay too. Attention on a graph of",
        "Cora's size takes less than half of its layer's time, by the profiler; products with weights take a third.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    import torch_geometric

    versions = f"torch {torch.__version__}, PyTorch Geometric {torch_geometric.__version__}"
    return f"a CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument("--only", default="", help="only comparisons with this in their names, and no page")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()  # of all contenders alike: without, much of what is timed are the page faults of fresh memory
    found: dict[str, tuple[float, float]] = {}
    for swap in SWAPS:
        if options.only in swap.name:
            theirs, ours = found[swap.name] = times(swap.steps(), options.rounds)
            print(f"{swap.name:58} {1e3 * theirs:8.2f} {1e3 * ours:8.2f} ms, {theirs / ours:.2f} times as fast, wanted {swap.wanted:g}", flush=True)
    if options.write and not options.only:
        sizes = {key: times(crossover(*key), options.rounds) for key in itertools.product(LAYERS, NODES, CHANNELS)}
        options.write.write_text(page(found, sizes, machine()))


if __name__ == "__main__":
    main()
