"""Exactly k edges in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import math
import sys

import pytest
import torch
from graphs import CASES, Case, generator, lifted
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph
from fastst.ops import sample_k_edges, use_backend
from fastst.ops.sample_k_edges import ESTIMATORS, GROUPS

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero encountered", "ignore:overflow encountered")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHAIN = SkeletonGraph(Layout.custom(["a", "b", "c"], [(0, 1), (1, 2)], "chain"), 1)
SHORT = Case("chain", CHAIN, 2, 7, 1, [7, 4])
SMALL = [SHORT, *(case for case in CASES if case.B * case.graph.num_slots <= 60)]
STAR = EdgeList(torch.stack((torch.arange(1, 25), torch.zeros(24, dtype=torch.int64))), 25)  # 24 edges into one node


def results(logits: Tensor, graph, k: int, lengths: Tensor | None = None, **options) -> list[Tensor]:
    """What a call gives, and the gradient of the logits for random gradients of what has one."""
    leaf = logits.detach().requires_grad_()
    given = [x for x in sample_k_edges(leaf, graph, k, lengths=lengths, **options) if x is not None]
    outputs = [x for x in given if x.requires_grad]
    gradients = [torch.randn(x.shape, dtype=torch.float64, generator=generator(1)).to(x) for x in outputs]
    return [*given, *torch.autograd.grad(outputs, leaf, gradients)]


def assert_matches(logits: Tensor, graph, k: int, lengths: Tensor | None = None, atol: float = 1e-9, **options) -> None:
    with use_backend("reference"):
        wanted = results(logits.double(), graph, k, lengths, **options)
    with use_backend("triton"):
        found = results(logits.to(DEVICE), graph, k, None if lengths is None else lengths.to(DEVICE), **options)
    for expected, actual in zip(wanted, found, strict=True):
        torch.testing.assert_close(actual.cpu().double(), expected, atol=atol, rtol=1e-7 + atol)


@pytest.mark.parametrize(
    ("case", "per", "estimator"),
    [(case, "frame", "simple") for case in SMALL] + [(SHORT, per, name) for per in GROUPS for name in ("simple", "imle")],
    ids=str,
)
def test_matches_the_reference(case: Case, per: str, estimator: str):
    assert_matches(case.edges(), case.graph, 3, case.length_tensor(), seed=-5, per=per, estimator=estimator, samples=2, lam=2.0)


@pytest.mark.parametrize("k", [0, 5, 19, 100])
def test_any_number_of_edges(k: int):
    for estimator in ("simple", "imle"):
        assert_matches(torch.randn(1, 24, dtype=torch.float64, generator=generator()), STAR, k, seed=2, estimator=estimator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_every_dtype(dtype: torch.dtype):
    logits = (3 * torch.randn(2, 24, generator=generator())).to(dtype)
    atol = 1e-5 if dtype == torch.float32 else 0.02
    for estimator in ("straight_through", "imle"):
        assert_matches(logits, STAR, 9, seed=4, estimator=estimator, samples=3, atol=atol)


def test_more_edges_than_a_program_has_room_for(monkeypatch: pytest.MonkeyPatch):
    """Then torch operations take over; a group with fewer candidates never needs them."""
    module, called = sys.modules["fastst.ops.sample_k_edges"], []
    monkeypatch.setattr(module, "_MOST_ON_GPU", 4)
    for name in ("sample_k_edges", "covariance_product"):
        found = getattr(module.k_subsets, name)
        monkeypatch.setattr(module.k_subsets, name, lambda *given, name=name, found=found: called.append(name) or found(*given))
    logits = torch.randn(1, 24, dtype=torch.float64, generator=generator())
    assert_matches(logits, STAR, 5, seed=2)
    assert called == ["sample_k_edges", "covariance_product"]
    assert_matches(SHORT.edges(), CHAIN, 5, SHORT.length_tensor(), seed=2, per="dst")
    assert len(called) == 2


def test_more_samples_than_a_tile_has_and_ties():
    logits = torch.zeros(1, 24, dtype=torch.float64)
    for estimator in ("simple", "imle"):
        assert_matches(logits, STAR, 9, seed=2**63 + 5, estimator=estimator, samples=11, sample_ids=torch.tensor([2**40 + 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_logits(dtype: torch.dtype):
    inf = float("inf")
    edges = EdgeList(torch.stack((torch.arange(1, 8), torch.zeros(7, dtype=torch.int64))), 8)
    for values, k in (
        ([inf, 0.5, 0.5, -inf, 0.5, inf, -inf], 3),
        ([inf, 0.0, inf, -inf, inf, 0.0, inf], 2),
        ([inf, 1.0, 0.0, -inf, -inf, -inf, -inf], 5),
        ([-inf] * 7, 2),
        ([inf] * 7, 7),
    ):
        for estimator in ("simple", "imle"):
            assert_matches(torch.tensor([values], dtype=dtype), edges, k, seed=4, samples=2, estimator=estimator, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_far_apart(dtype: torch.dtype):
    """Between the last two it is decided who stays, whatever lies above and below."""
    edges = EdgeList(torch.stack((torch.arange(1, 8), torch.zeros(7, dtype=torch.int64))), 8)
    logits = torch.tensor([[1e4, 2.0, 1.0, -1e4, 900.0, -5000.0, 3e30]], dtype=dtype, device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        _, marginals, _ = sample_k_edges(logits, edges, 4, seed=0)
        (gradient,) = torch.autograd.grad(marginals[0, 1], logits)
    p = 1 / (1 + math.exp(-1))
    slope = p * (1 - p)
    torch.testing.assert_close(marginals[0].cpu(), torch.tensor([1, p, 1 - p, 0, 1, 0, 1], dtype=dtype))
    torch.testing.assert_close(gradient[0].cpu(), torch.tensor([0, slope, -slope, 0, 0, 0, 0], dtype=dtype))


def test_a_logit_that_is_no_number_is_seen_in_its_group_alone():
    logits = torch.zeros(1, CHAIN.num_slots, 3)
    logits[0, 2, 1] = torch.nan
    logits[0][~CHAIN.edge_mask(3)] = torch.nan  # which nobody looks at
    poisoned = torch.zeros(CHAIN.num_slots, 3, dtype=torch.bool)
    poisoned[:, 1] = CHAIN.edge_mask(3)[:, 1]
    with use_backend("triton"):
        for estimator in ESTIMATORS:
            kept, marginals, log_probability = sample_k_edges(logits.to(DEVICE), CHAIN, 1, seed=1, per="frame", estimator=estimator)
            assert torch.equal(kept[0, 0].isnan().cpu(), poisoned)
            if marginals is not None:
                assert torch.equal(marginals[0].isnan().cpu(), poisoned)
                assert log_probability.isnan().all()


def test_walks_depend_on_themselves_alone():
    logits, ids, lengths = SHORT.edges().to(DEVICE), torch.tensor([40, 7], device=DEVICE), torch.tensor([7, 4], device=DEVICE)
    with use_backend("triton"):
        for per in GROUPS:
            batch, *_ = sample_k_edges(logits, CHAIN, 2, seed=1, per=per, sample_ids=ids, lengths=lengths)
            alone, *_ = sample_k_edges(logits[1:, :, :4], CHAIN, 2, seed=1, per=per, sample_ids=ids[1:])
            assert torch.equal(batch[:, 1:, :, :4], alone)


@pytest.mark.parametrize(("walks", "frames"), [(0, 3), (2, 0)])
def test_nothing_to_do(walks: int, frames: int):
    with use_backend("triton"):
        for per in GROUPS:
            for estimator in ("simple", "imle"):
                kept, _, log_probability = sample_k_edges(
                    torch.zeros(walks, CHAIN.num_slots, frames, device=DEVICE), CHAIN, 2, seed=0, per=per, estimator=estimator, samples=3
                )
                assert kept.shape == (3, walks, CHAIN.num_slots, frames)
                assert log_probability is None or torch.equal(log_probability.cpu(), torch.zeros(3, walks))


def test_opcheck():
    logits = lifted(SHORT, [], [SHORT.edges()])[0].detach().to(DEVICE).requires_grad_()
    index, lengths, ids = CHAIN.index(DEVICE), torch.tensor([7, 4], device=DEVICE), torch.arange(2, device=DEVICE)
    given = logits, ids, lengths, *index, torch.tensor(-3), CHAIN.hops, 2, "frame", CHAIN.num_slots, 2
    torch.library.opcheck(torch.ops.fastst.sample_k_edges.default, (*given, "simple", "triton"))
    torch.library.opcheck(torch.ops.fastst.perturbed_top_k.default, (*given, 2.0, "triton"))
