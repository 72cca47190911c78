"""Bias and spread of the gradients of `sample_k_edges`, and its time: `python -m bench.estimators` writes docs/estimators.md and its picture.

The gradient of an expected loss over all subsets of 4 of 10 edges is known: there are 210 of them. Every estimator makes many estimates of it from
one sample each. The time is measured beside SIMPLE in plain torch, on the work of PR-MPNN.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastst import EdgeList
from fastst.ops import sample_k_edges

N, K = 10, 4
DRAWS = 100_000
Loss = Callable[[Tensor], Tensor]
PR_MPNN = {"graphs": 16, "candidates": 120, "k": 20, "samples": 4}
SIZES = (1000, 2000, 4000, 8000)
ESTIMATORS: dict[str, dict[str, object]] = {
    "simple": {"estimator": "simple"},
    "straight_through": {"estimator": "straight_through"},
    "imle, λ = 0.1": {"estimator": "imle", "lam": 0.1},
    "imle, λ = 1": {"estimator": "imle", "lam": 1.0},
    "imle, λ = 10": {"estimator": "imle", "lam": 10.0},
    "reinforce": {"estimator": "reinforce"},
    "reinforce, less the mean loss": {"estimator": "reinforce"},
}


@dataclass(frozen=True)
class Quality:
    """Lengths are shares of the exact gradient's.

    Attributes:
        bias: how far the mean of all estimates is from the exact gradient.
        error: the standard error of that mean; a bias of this size is none.
        spread: the root of the mean squared distance of an estimate from the mean.
        cosine: between the mean and the exact gradient.
    """

    bias: float
    error: float
    spread: float
    cosine: float


def losses() -> dict[str, Loss]:
    """A loss that is linear in the edges, and two that are not: squared distances, the second of sums in which edges go together."""
    random = torch.Generator().manual_seed(0)
    costs, target = (torch.randn(N, dtype=torch.float64, generator=random) for _ in range(2))
    mixing = torch.randn(5, N, dtype=torch.float64, generator=random)
    return {
        "linear: Σ c z": lambda z: z @ costs,
        "separate: Σ (z - b)²": lambda z: (z - target).square().sum(-1),
        "joint: |A z - 1|²": lambda z: (z @ mixing.T - 1).square().sum(-1),
    }


def logits() -> Tensor:
    return torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def exact_gradient(loss: Loss) -> tuple[Tensor, Tensor]:
    """Of the expected loss over all subsets; and that loss."""
    theta = logits().requires_grad_()
    subsets = torch.tensor([[float(i in chosen) for i in range(N)] for chosen in itertools.combinations(range(N), K)], dtype=torch.float64)
    expected = torch.softmax(subsets @ theta, 0) @ loss(subsets)
    return torch.autograd.grad(expected, theta)[0], expected.detach()


def star(candidates: int) -> EdgeList:
    return EdgeList(torch.stack((torch.arange(1, candidates + 1), torch.zeros(candidates, dtype=torch.int64))), candidates + 1)


def estimates(name: str, loss: Loss, draws: int) -> Tensor:
    """Gradients from one sample each.  # [draws, N]"""
    leaf = logits().expand(draws, N).clone().requires_grad_()
    kept, _, log_probability = sample_k_edges(leaf, star(N), K, seed=0, **ESTIMATORS[name])  # type: ignore[arg-type]
    found = loss(kept[0])
    if log_probability is not None and name.startswith("reinforce"):
        baseline = exact_gradient(loss)[1] if name.endswith("loss") else 0.0
        found = (found.detach() - baseline) * log_probability[0]
    return torch.autograd.grad(found.sum(), leaf)[0]


def quality(name: str, loss: Loss, draws: int = DRAWS) -> Quality:
    wanted, _ = exact_gradient(loss)
    found = estimates(name, loss, draws)
    mean, length = found.mean(0), wanted.norm()
    spread = (found - mean).square().sum(-1).mean().sqrt() / length
    cosine = torch.nn.functional.cosine_similarity(mean, wanted, dim=0) if mean.norm() else torch.tensor(0.0)
    return Quality(((mean - wanted).norm() / length).item(), (spread / draws**0.5).item(), spread.item(), cosine.item())


def simple_in_torch(theta: Tensor, k: int, samples: int) -> tuple[Tensor, Tensor]:
    """Samples and marginals of SIMPLE, by Algorithms 1 and 2 of the paper: log Pr(Σ z = j) over the first i edges for all i and j, backwards
    through it the samples; the marginals are its gradient, by autograd, and so is theirs.  # theta [B, n] -> [S, B, n], [B, n]"""
    B, n = theta.shape
    if not theta.requires_grad:
        theta = theta.detach().requires_grad_()
    log_p, log_q = torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)
    none = theta.new_full((B, 1), -1e30)
    table = [torch.cat((torch.zeros_like(none), none.expand(B, k)), 1)]
    for i in range(n):
        with_it = torch.cat((none, table[-1][:, :-1]), 1) + log_p[:, i : i + 1]
        table.append(torch.logsumexp(torch.stack((table[-1] + log_q[:, i : i + 1], with_it)), 0))  # logaddexp has no second derivative far out
    (marginals,) = torch.autograd.grad(table[-1][:, k].sum(), theta, create_graph=True)  # of Σ z log p + (1 - z) log q: less sigmoid(theta)
    marginals = marginals + torch.sigmoid(theta)
    with torch.no_grad():
        stacked, left = torch.stack(table), torch.full((samples, B), k)
        kept, walk = torch.zeros(samples, B, n), torch.arange(B)
        for i in range(n - 1, -1, -1):
            chance = (stacked[i, walk, (left - 1).clamp(min=0)] + log_p[:, i] - stacked[i + 1, walk, left]).exp()
            chosen = (torch.rand(samples, B) < chance) & (left > 0)
            kept[..., i] = chosen
            left = left - chosen.long()
    return kept + (marginals - marginals.detach()), marginals


def milliseconds(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """The median time of every step, taken in turns."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats + 1):
        for step, found in zip(steps, times, strict=True):
            begin = time.perf_counter()
            step()
            found.append(1e3 * (time.perf_counter() - begin))
    return [statistics.median(found[1:]) for found in times]


def our_step(graphs: int, candidates: int, k: int, samples: int) -> Callable[[], None]:
    """Forward and backward."""
    theta, graph = torch.randn(graphs, candidates, requires_grad=True), star(candidates)
    weights = torch.randn(samples, graphs, candidates)

    def step() -> None:
        kept, _, _ = sample_k_edges(theta, graph, k, seed=0, samples=samples)
        torch.autograd.grad((kept * weights).sum(), theta)

    return step


def torch_step(graphs: int, candidates: int, k: int, samples: int) -> Callable[[], None]:
    theta, weights = torch.randn(graphs, candidates, requires_grad=True), torch.randn(samples, graphs, candidates)

    def step() -> None:
        kept, _ = simple_in_torch(theta, k, samples)
        torch.autograd.grad((kept * weights).sum(), theta)

    return step


def draw(rows: dict[str, dict[str, Quality]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(rows), figsize=(13, 4.6), sharey=True)
    names = list(ESTIMATORS)[::-1]
    for axis, (loss, found) in zip(axes, rows.items(), strict=True):
        for shift, color, label, values in (
            (0.2, "#c44e52", "bias", [max(found[name].bias, 1e-4) for name in names]),
            (-0.2, "#4c72b0", "spread of one estimate", [max(found[name].spread, 1e-4) for name in names]),
        ):
            axis.barh([y + shift for y in range(len(names))], values, 0.36, color=color, label=label, left=0)
        for y, name in enumerate(names):  # what a mean of so many estimates can tell from no bias
            axis.plot([2 * max(found[name].error, 5e-5)] * 2, [y + 0.02, y + 0.38], color="black", linewidth=1.2)
        axis.set_xscale("log")
        axis.set_xlim(1e-4, 100)
        axis.set_title(loss)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("share of the exact gradient's length")
    axes[0].plot([], [], color="black", linewidth=1.2, label="two standard errors of the bias")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.estimators", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("docs"), help="folder for estimators.md and estimators.png")
    parser.add_argument("--draws", type=int, default=DRAWS, help="estimates of every estimator")
    parser.add_argument("--repeats", type=int, default=20, help="of every time")
    options = parser.parse_args()
    rows = {name: {estimator: quality(estimator, loss, options.draws) for estimator in ESTIMATORS} for name, loss in losses().items()}
    draw(rows, options.report / "estimators.png")
    torch.set_num_threads(1)  # more don't help a plain torch of small tensors, and on a busy machine they wait for one another
    ours, plain = milliseconds([our_step(*PR_MPNN.values()), torch_step(*PR_MPNN.values())], options.repeats)
    growing = milliseconds([our_step(4, n, 20, 1) for n in SIZES], options.repeats)
    lines = [
        "# The gradients of `sample_k_edges`",
        "",
        f"Written by `python -m bench.estimators`: {N} edges of which {K} are kept, {options.draws} estimates from one sample each, float64. All",
        "lengths are shares of the exact gradient's. The bias is the distance of the mean of the estimates from the exact gradient; one of twice the",
        "standard error or less can't be told from none. The spread is that of a single estimate.",
        "",
        "![Bias and spread of every estimator](estimators.png)",
        "",
        "| loss | estimator | bias | standard error | spread | cosine of the mean with the exact gradient |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for loss, found in rows.items():
        lines += [
            f"| {loss.replace('|', '‖')} | {name} | {q.bias:.4f} | {q.error:.4f} | {q.spread:.3f} | {q.cosine:.4f} |" for name, q in found.items()
        ]
    size = f"{PR_MPNN['graphs']} graphs of {PR_MPNN['candidates']} candidates, k = {PR_MPNN['k']}, {PR_MPNN['samples']} samples"
    lines += [
        "",
        "## Time",
        "",
        f"Forward and backward of `simple`, medians of {options.repeats} taken in turns on one thread ({_load()}on",
        f"{os.cpu_count()} cores). SIMPLE in plain torch is `bench.estimators.simple_in_torch`: the paper's dynamic",
        "programme in logarithms, differentiated by autograd.",
        "",
        "| work | fastst | SIMPLE in plain torch |",
        "| --- | --- | --- |",
        f"| {size} | {ours:.2f} ms | {plain:.1f} ms ({plain / ours:.0f} times as long) |",
        *(f"| 4 graphs of {n} candidates, k = 20, 1 sample | {ms:.2f} ms | |" for n, ms in zip(SIZES, growing, strict=True)),
    ]
    (options.report / "estimators.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f} " if hasattr(os, "getloadavg") else ""  # Windows has none


if __name__ == "__main__":
    main()
