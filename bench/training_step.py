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
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "fastst::linear", "fastst::feed_forward"),
    "fused attention": ("aten::_scaled_dot_product", "fastst::attend_axis"),
    "fastst": ("fastst::", "fastst_"),
}
OTHERS = "elementwise, norms, sums, optimizer"
_STEPS = 3
HOW = """
The products of `fastst.ops.linear` and `feed_forward` count with what is joined to them: norms, GELU, sums, ReLU.

## How a step is made

- **Linear layers** (`fastst/cpu/linear.py`): tiles of 48 rows are normalised, multiplied, added to and put through the ReLU in the cache, and memory
  is read and written once. A bias is one more row of the weights. The norm's own weights are multiplied into the layer's before, so that a kernel
  only makes rows of mean 0 and variance 1, and autograd has the gradients of both. Query, key and value are one product with three results.
- **Feed-forward block** (`fastst/cpu/feed_forward.py`): the hidden features, four times as many as the block's, never leave the cache; the backward
  makes them again from the inputs. GELU and its derivative share one exponential.
- **Attention along joints and frames**: only what is multiplied across is packed (queries, and in the backward their gradients); keys, values and the
  rest are read where they lie. About half of its time along joints is bringing rows into the cache and writing results.
- **Graph convolution**: the sum over the edges comes before the weights, which are then joined to bias, residual and ReLU; and the first layer sums
  two coordinates instead of 64 channels.
- **Gradients of weights** are sums over at most 32 pieces of rows, as many whatever the threads: the same bits.
- **Around it**: a thread makes the next batch while a step runs; AdamW is one kernel; and since no tensor is larger than the 32 MiB that a process
  can keep (the hidden features were), a step of B=32 T=60 has no page fault any more, where it had 17,000.

Writing results past the caches was tried, and took 3 % more time.

Before (commit 134b774) and after, CPU time of one thread for a step of the smallest model with factorized attention and the paper's recipe. The
machine was loaded with other work: the shares tell more than the milliseconds.

| part | before, ms | after, ms |
| --- | --- | --- |
| linear layers and their gradients | 263 | 143 |
| feed-forward block | in the lines above and below | 76 |
| GELU's gradient, norms, cat | 64 | in the lines above |
| sums and additions | 73 | 14 |
| attention along joints and frames | 109 | 96 |
| gradient of graph attention | 17 | 14 |
| all operations | 591 | 373 |

Against commit 0aae548, in turns on the same loaded machine, one thread: the smallest model 536 and 374 ms (1.4 times as fast), the largest 879 and
710 ms (1.2 times).
"""


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
    return "\n".join(lines) + "\n" + HOW


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
