import math

import numpy as np
import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, lifted, names

from fastst import EdgeList, SkeletonGraph
from fastst.ops import Sampling, keep_probability, sample_edges, use_backend

GRAPH = SkeletonGraph("coco18", 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("estimator", ["identity", "sigmoid"])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, estimator: str, noise: str, backend: str):
    def run(logits):
        return sample_edges(logits, case.graph, seed=5, noise=noise, estimator=estimator, tau=0.7, lengths=case.length_tensor())

    assert_matches_reference(run, [case.edges()], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck(case: Case, backend: str):
    (logits,) = lifted(case, [], [case.edges()])
    for estimator in ("identity", "sigmoid"):
        numbers = Sampling(estimator=estimator).numbers()
        rest = (case.length_tensor(), *case.graph.index(), torch.tensor(-3), case.graph.hops, numbers, backend)
        torch.library.opcheck(torch.ops.fastst.sample_edges.default, (logits, torch.arange(case.B), *rest))


def test_identity_gradient_is_one_over_tau_at_existing_edges():
    logits = torch.zeros(1, GRAPH.num_slots, 4, requires_grad=True)
    sample_edges(logits, GRAPH, seed=0, tau=4.0).sum().backward()
    assert torch.equal(logits.grad[0], 0.25 * GRAPH.edge_mask(4))


@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("gamma", [-3.0, -0.5, 0.0, 0.7, 2.0])
def test_share_of_kept_edges_matches_keep_probability(gamma: float, noise: str):
    """A two-sided binomial test at 5 standard deviations, by the normal approximation."""
    T = 2000
    kept = sample_edges(torch.full((1, GRAPH.num_slots, T), gamma), GRAPH, seed=11, noise=noise, beta=1.5)
    n = int(GRAPH.edge_mask(T).sum())
    p = keep_probability(torch.tensor(gamma), noise=noise, beta=1.5).item()
    assert abs(kept.sum().item() - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_printed_formula_does_not_keep_with_sigmoid_of_the_logit():
    assert keep_probability(torch.tensor(0.0)).item() == pytest.approx(0.393, abs=5e-4)
    assert keep_probability(torch.tensor(0.0), noise="logistic").item() == 0.5


def test_a_graph_depends_on_the_seed_and_on_the_walk_alone():
    logits = torch.randn(3, GRAPH.num_slots, 8)
    ids, lengths = torch.tensor([40, 7, 12]), torch.tensor([8, 5, 6])
    batch = sample_edges(logits, GRAPH, seed=1, sample_ids=ids, lengths=lengths)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(sample_edges(logits[order], GRAPH, seed=1, sample_ids=ids[order], lengths=lengths[order]), batch[order])
    alone = sample_edges(logits[1:2, :, :5], GRAPH, seed=1, sample_ids=ids[1:2])
    assert torch.equal(batch[1:2, :, :5], alone)
    assert (batch[1, :, 5:] == 0).all()
    assert not torch.equal(sample_edges(logits, GRAPH, seed=2, sample_ids=ids, lengths=lengths), batch)


def test_does_not_depend_on_the_thread_count():
    logits, threads = torch.randn(4, GRAPH.num_slots, 100), torch.get_num_threads()
    try:
        kept = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            kept.append(sample_edges(logits, GRAPH, seed=3))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_seeds_count_modulo_2_to_the_64():
    logits = torch.zeros(1, GRAPH.num_slots, 9)
    assert torch.equal(sample_edges(logits, GRAPH, seed=-1), sample_edges(logits, GRAPH, seed=2**64 - 1))
    for backend in ["reference", *BACKENDS]:
        with use_backend(backend):
            assert torch.equal(sample_edges(logits, GRAPH, seed=2**63), sample_edges(logits, GRAPH, seed=-(2**63)))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("seed", [3, -5, 2**40 + 17, 2**63 - 1, -(2**63)])
def test_a_seed_in_a_tensor_has_the_same_bits(seed: int, backend: str):
    logits = torch.randn(2, GRAPH.num_slots, 9, generator=generator())
    with use_backend(backend):
        wanted = sample_edges(logits, GRAPH, seed=seed)
        assert torch.equal(sample_edges(logits, GRAPH, seed=torch.tensor(seed)), wanted)
        assert not torch.equal(sample_edges(logits, GRAPH, seed=torch.tensor(seed ^ 1)), wanted)


def test_any_whole_number_is_a_seed():
    logits = torch.zeros(1, GRAPH.num_slots, 9)
    for seed in (np.int64(3), np.uint64(3)):
        assert torch.equal(sample_edges(logits, GRAPH, seed=seed), sample_edges(logits, GRAPH, seed=3))
    assert torch.equal(sample_edges(logits, GRAPH, seed=np.uint64(2**63)), sample_edges(logits, GRAPH, seed=2**63))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_eps_keeps_or_removes_every_edge(dtype: torch.dtype, backend: str):
    logits = torch.zeros(1, GRAPH.num_slots, 500, dtype=dtype)
    with use_backend(backend):
        for options in ({"eps": 2.0**-24, "beta": 1e3}, {"eps": 0.5, "noise": "logistic"}):
            kept = sample_edges(logits, GRAPH, seed=1, **options)
            assert ((kept == 0) | (kept == 1)).all()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_logits_where_no_edge_exists_are_not_looked_at(backend: str):
    logits = torch.zeros(1, GRAPH.num_slots, 5)
    logits[0][~GRAPH.edge_mask(5)] = float("nan")
    logits.requires_grad_()
    with use_backend(backend):
        for estimator in ("identity", "sigmoid"):
            kept = sample_edges(logits, GRAPH, seed=1, estimator=estimator)
            (gradient,) = torch.autograd.grad(kept.sum(), logits)
            assert kept.isfinite().all()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_float32_keeps_what_float64_keeps_away_from_the_threshold(noise: str):
    logits = torch.randn(2, GRAPH.num_slots, 50, dtype=torch.float64)
    single = sample_edges(logits.float(), GRAPH, seed=9, noise=noise)
    for shift in (-1e-5, 1e-5):
        moved = sample_edges(logits.float().double() + shift, GRAPH, seed=9, noise=noise, tau=1.0)
        assert torch.all((moved - single.double()) * math.copysign(1, shift) >= 0)


def test_compiles():
    compiled = torch.compile(lambda logits, seed: sample_edges(logits, GRAPH, seed=seed), fullgraph=True)
    logits = torch.randn(1, GRAPH.num_slots, 5)
    for seed in (1, 2, 3):
        assert torch.equal(compiled(logits, seed), sample_edges(logits, GRAPH, seed=seed))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logit_that_is_no_number_is_no_removed_edge(dtype: torch.dtype, backend: str):
    logits = torch.zeros(1, GRAPH.num_slots, 5, dtype=dtype)
    logits[0, :, 2] = float("nan")
    logits[0, :, 3], logits[0, :, 4] = float("inf"), float("-inf")
    with use_backend(backend):
        kept = sample_edges(logits, GRAPH, seed=1)[0]
    exists = GRAPH.edge_mask(5)
    assert torch.equal(kept[:, 2].isnan(), exists[:, 2])
    assert torch.equal(kept[:, 3], exists[:, 3].to(dtype))
    assert (kept[:, 4] == 0).all()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_certain_edges_have_no_gradient(dtype: torch.dtype, noise: str, backend: str):
    logits = torch.zeros(1, GRAPH.num_slots, 5, dtype=dtype)
    logits[0, :, 1], logits[0, :, 3] = float("inf"), float("-inf")
    logits.requires_grad_()
    with use_backend(backend):
        for estimator in ("identity", "sigmoid"):
            kept = sample_edges(logits, GRAPH, seed=1, noise=noise, estimator=estimator)
            (gradient,) = torch.autograd.grad(kept.sum(), logits)
            assert torch.equal(gradient[0] != 0, GRAPH.edge_mask(5) & logits[0].isfinite())


def test_half_precision_logits():
    logits = torch.randn(1, GRAPH.num_slots, 5).bfloat16().requires_grad_()
    kept = sample_edges(logits, GRAPH, seed=1)
    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept.float(), sample_edges(logits.float(), GRAPH, seed=1))
    kept.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"beta": 0.0}, ValueError, "beta must be above 0, got 0.0"),
        ({"eps": 1e-3}, ValueError, "eps must be at most 2⁻²⁴"),
        ({"seed": 3.5}, TypeError, "seed must be a whole number, got 3.5"),
        ({"seed": torch.tensor([3])}, TypeError, r"seed must be .* 0-d tensor of int64, got torch.int64 \[1\]"),
        ({"seed": torch.tensor(3, dtype=torch.int32)}, TypeError, r"seed must be .*, got torch.int32 \[\]"),
        ({"seed": torch.tensor(3, device="meta")}, ValueError, "seed is on meta, but logits is on cpu"),
        ({"tau": -1.0}, ValueError, "tau must be above 0"),
        ({"noise": "normal"}, ValueError, "noise must be one of gumbel, logistic, got 'normal'"),
        ({"estimator": "none"}, ValueError, "estimator must be one of identity, sigmoid"),
        ({"sample_ids": torch.arange(3)}, ValueError, r"sample_ids must be \[B\] with B = 1, got \[3\]"),
        ({"sample_ids": torch.zeros(1)}, TypeError, "sample_ids must be a tensor of int32 or int64"),
        ({"logits": torch.zeros(1, 5, 5)}, ValueError, r"logits must be \[B, P, T\]"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        sample_edges(**{"logits": torch.zeros(1, GRAPH.num_slots, 5), "graph": GRAPH, "seed": 0, **change})


def test_edge_list_uses_its_own_counters():
    edges = EdgeList(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]), 4)
    kept = sample_edges(torch.zeros(2, 5), edges, seed=4)
    assert kept.shape == (2, 5)
    assert torch.equal(kept[1:], sample_edges(torch.zeros(1, 5), edges, seed=4, sample_ids=torch.tensor([1])))
