"""Sampling, normalisation and attention in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import mmap
from collections.abc import Callable

import pytest
import torch
from graphs import CASES, Case, generator, lifted, names
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph
from fastst.ops import attend, edge_logits, gcn_norm, sample_edges, use_backend

kernels = pytest.importorskip("csrc_triton.sample_edges", reason="triton is not installed")
from csrc_triton import attend as attention  # noqa: E402
from csrc_triton.gcn_norm import gcn_norm as launch_gcn_norm  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero encountered", "ignore:overflow encountered")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHAIN = SkeletonGraph(Layout.custom(["a", "b", "c", "d"], [(0, 1), (1, 2), (2, 3)], "chain"), 2)
SMALL = [case for case in CASES if case.B * case.graph.num_slots <= 60]
ODD = Case("chain, odd sizes", CHAIN, 2, 19, 5, [19, 10])  # more than one tile of frames, none full
SAMPLING = [(noise, estimator) for noise in ("gumbel", "logistic") for estimator in ("identity", "sigmoid")]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def on_device(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(DEVICE)


def run(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = [torch.randn(y.shape, dtype=torch.float64, generator=generator(1)).to(y) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, gradients)]


def assert_matches(function: Callable, inputs: list[Tensor], atol: float = 1e-9) -> None:
    """Every output and gradient for random output gradients, against the reference in float64 on the CPU. function takes also the lengths' device."""
    with use_backend("reference"):
        expected = run(function, [x.double() for x in inputs])
    with use_backend("triton"):
        actual = run(function, [x.to(DEVICE) for x in inputs])
    for wanted, found in zip(expected, actual, strict=True):
        torch.testing.assert_close(found.cpu().double(), wanted, atol=atol, rtol=1e-7 + atol)


def lengths_of(case: Case, like: Tensor) -> Tensor | None:
    lengths = case.length_tensor()
    return None if lengths is None else lengths.to(like.device)


def check_attend(case: Case, heads: int, dtype: torch.dtype = torch.float64, atol: float = 1e-9) -> None:
    def function(x_src, x_dst, att):
        return attend(x_src, x_dst, att, case.graph, heads, lengths=lengths_of(case, x_src))

    C = heads * case.C
    att = torch.randn(heads, case.C, dtype=torch.float64, generator=generator(3))
    assert_matches(function, [x.to(dtype) for x in (case.nodes(C), case.nodes(C).flip(-1), att)], atol)


@pytest.mark.parametrize(("noise", "estimator"), SAMPLING)
@pytest.mark.parametrize("case", [*CASES, ODD], ids=names)
def test_sample_edges_matches_the_reference(case: Case, noise: str, estimator: str):
    def function(logits):
        return sample_edges(logits, case.graph, seed=-5, noise=noise, estimator=estimator, tau=0.7, lengths=lengths_of(case, logits))

    assert_matches(function, [case.edges()])


@pytest.mark.parametrize("case", [*CASES, ODD], ids=names)
def test_gcn_norm_matches_the_reference(case: Case):
    assert_matches(lambda kept: gcn_norm(kept, case.graph, lengths_of(case, kept)), [(case.edges() > 0.3).double()])


@pytest.mark.parametrize("case", [*SMALL, ODD], ids=names)
def test_gcn_norm_of_any_weights(case: Case):
    assert_matches(lambda kept: gcn_norm(kept, case.graph, lengths_of(case, kept)), [case.edges().abs()])


@pytest.mark.parametrize("case", CASES, ids=names)
def test_attend_matches_the_reference(case: Case):
    check_attend(case, heads=3)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_attend_on_odd_sizes(heads: int):
    check_attend(ODD, heads)
