"""Where the time of a training step goes: `python -m bench.training_step --write docs/training_step.md`.

The training defaults at B=32 T=60, once with the default attention and once with the paper's (every node at every node), by torch's profiler; and
what bfloat16 autocast gains on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from bench.works import PAPER
from fastst.cpu.memory import keep_freed_memory
from fastst.nn import GraphClassifier

MODELS = {"smallest: 2 layers, 1 hop": (2, 1), "largest: 16 layers, 3 hops": (16, 3)}
ATTENTIONS = ("full", "factorized")
GROUPS: dict[str, tuple[str, ...]] = {
    "linear layers, norms, GELU": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "fastst::linear", "fastst::feed_forward"),
    "fused attention": ("aten::_scaled_dot_product", "fastst::attend_axis"),
    "fastst": ("fastst::", "fastst_"),
}
OTHERS = "elementwise, sums, optimizer"
_STEPS = 3


def group_of(name: str) -> str:
    return next((group for group, prefixes in GROUPS.items() if name.startswith(prefixes)), OTHERS)


def make_step(layers: int, hops: int, attention: str, autocast: bool = False) -> Callable[[], None]:
    torch.manual_seed(0)
    model = GraphClassifier("coco18", 2, hops=hops, layers=layers, hidden=PAPER.hidden, frames=PAPER.frames, attention=attention, heads=PAPER.heads)
    optimizer = torch.optim.Adam(model.parameters())
    poses, classes = torch.randn(PAPER.batch_size, PAPER.frames, 18, 2), torch.randint(0, 2, (PAPER.batch_size,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            loss = cross_entropy(model(poses).logits.float(), classes)
        loss.backward()
        optimizer.step()

    return step


def shares(step: Callable[[], None]) -> dict[str, float]:
    """The part of the step's time that each group takes."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(_STEPS):
            step()
    total = dict.fromkeys((*GROUPS, OTHERS), 0.0)
    for event in seen.key_averages():
        total[group_of(event.key)] += event.self_cpu_time_total
    return {group: part / sum(total.values()) for group, part in total.items()}


def interleaved_seconds(steps: list[Callable[[], None]]) -> list[float]:
    """Median seconds of each, in turns."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(_STEPS + 1):
        for step, seconds in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if turn > 0:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def report() -> str:
    groups = (*GROUPS, OTHERS)
    lines = [
        "# Where the time of a training step goes",
        "",
        f"Written by `python -m bench.training_step --write docs/training_step.md`; B={PAPER.batch_size} T={PAPER.frames}, hidden {PAPER.hidden}, "
        f"learned graph, torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}.",
        "",
        "| model | attention | " + " | ".join(groups) + " | walks a second | the same with bfloat16 autocast |",
        "| --- | --- |" + " --- |" * (len(groups) + 2),
    ]
    for name, (layers, hops) in MODELS.items():
        for attention in ATTENTIONS:
            steps = [make_step(layers, hops, attention, autocast) for autocast in (False, True)]
            parts = shares(steps[0])
            plain, half = (PAPER.batch_size / seconds for seconds in interleaved_seconds(steps))
            shown = " | ".join(f"{100 * parts[group]:.0f} %" for group in groups)
            lines.append(f"| {name} | {attention} | {shown} | {plain:.0f} | {half:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    keep_freed_memory()  # as fastst.train does
    parser = argparse.ArgumentParser(description="Profiles training steps.")
    parser.add_argument("--write", type=Path, help="a Markdown file to write")
    arguments = parser.parse_args()
    text = report()
    if arguments.write is not None:
        arguments.write.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
