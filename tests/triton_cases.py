"""What the tests of Triton's kernels share: graphs of few slots, for the interpreter is slow, and the comparison with the reference."""

from collections.abc import Callable
from dataclasses import replace

import torch
from graphs import CASES, Case, generator
from torch import Tensor

from fastst import Layout, SkeletonGraph
from fastst.ops import use_backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHAIN = SkeletonGraph(Layout.custom(["a", "b", "c", "d"], [(0, 1), (1, 2), (2, 3)], "chain"), 2)
SMALL = [case for case in CASES if case.B * case.graph.num_slots <= 60]
SHORT = Case("chain", CHAIN, 2, 7, 5, [7, 4])
# The interpreter takes time for every slot: a skeleton once, and beside it the other cases' sizes and lengths on a short chain.
FEW_SLOTS = [
    Case("skeleton", SkeletonGraph("coco18", 1), 1, 3, 4),
    *(case if case.graph.num_slots < 60 else replace(case, graph=SkeletonGraph(CHAIN.layout, case.graph.hops)) for case in CASES),
]
LONG = Case(
    "tiles", SkeletonGraph(CHAIN.layout, 1), 2, 70, 5, [70, 33]
)  # more than one tile of frames, the last not full, one of which the second walk has none
SAMPLING = [(noise, estimator) for noise in ("gumbel", "logistic") for estimator in ("identity", "sigmoid")]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def run(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = [torch.randn(y.shape, dtype=torch.float64, generator=generator(1)).to(y) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, gradients)]


def assert_matches(function: Callable, inputs: list[Tensor], atol: float = 1e-9) -> None:
    """Every output and the gradient of every input for random output gradients, against the reference in float64 on the CPU."""
    with use_backend("reference"):
        expected = run(function, [x.double() for x in inputs])
    with use_backend("triton"):
        actual = run(function, [x.to(DEVICE) for x in inputs])
    for wanted, found in zip(expected, actual, strict=True):
        torch.testing.assert_close(found.cpu().double(), wanted, atol=atol, rtol=1e-7 + atol)


def lengths_of(case: Case, like: Tensor) -> Tensor | None:
    lengths = case.length_tensor()
    return None if lengths is None else lengths.to(like.device)
