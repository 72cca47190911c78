import itertools
import math

import pytest
import torch
import torch._dynamo.testing
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, lifted, names
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.memory import fake_mode, peak_of
from fastst import EdgeList, SkeletonGraph
from fastst.ops import Sampling, edge_logits, keep_probability, sample_edges, sample_from_embeddings, use_backend

GRAPH = SkeletonGraph("coco18", 2)
CHAIN = EdgeList(torch.tensor([[0, 1, 2, 1], [1, 2, 3, 0]]), 4)
NOISES, ESTIMATORS = ("gumbel", "logistic"), ("identity", "sigmoid")
ALL = ["reference", *BACKENDS]


def bias_of(case: Case, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(case.graph.num_slots, dtype=dtype, generator=generator(2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("estimator", ["identity", "sigmoid"])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, estimator: str, with_bias: bool, backend: str):
    def run(q, k, *bias):
        return sample_from_embeddings(q, k, case.graph, *bias, seed=3, tau=0.7, estimator=estimator, lengths=case.length_tensor())

    inputs = [case.nodes(), case.nodes().flip(1), *([bias_of(case)] if with_bias else [])]
    assert_matches_reference(run, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_sample_and_information_match_the_reference(case: Case, estimator: str, noise: str, backend: str):
    sampling = Sampling(beta=1.3, tau=0.7, noise=noise, estimator=estimator)

    def run(q, k, bias):
        options = {"seed": 3, "sampling": sampling, "lengths": case.length_tensor(), "prior": 0.3}
        return sample_from_embeddings(q, k, case.graph, bias, **options)

    bias = bias_of(case).repeat_interleave(2)[::2]
    assert_matches_reference(run, [case.nodes(), case.nodes().flip(1), bias], backend)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
def test_information_is_the_mean_divergence_of_the_keep_probabilities(noise: str, backend: str):
    """Against the definition, written with `edge_logits` and `keep_probability`."""
    q, k = 0.6 * torch.randn(2, 2, 6, 18, 3, dtype=torch.float64, generator=generator())
    lengths, sampling, r = torch.tensor([6, 4]), Sampling(beta=0.8, noise=noise), 0.7
    with use_backend(backend):
        _, found = sample_from_embeddings(q, k, GRAPH, seed=0, sampling=sampling, lengths=lengths, prior=r)
    p = keep_probability(edge_logits(q, k, GRAPH, None, lengths), sampling=sampling)
    for b, length in enumerate(lengths.tolist()):
        chances = p[b, :, :length][GRAPH.edge_mask(length)].tolist()
        divergences = [x * math.log(x / r) + (1 - x) * math.log((1 - x) / (1 - r)) for x in chances]
        assert found[b].item() == pytest.approx(sum(divergences) / len(divergences), rel=1e-9)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
def test_information_is_0_and_has_no_gradient_where_all_chances_are_the_prior(noise: str, backend: str):
    r = 0.3
    gamma = math.log(-2 * math.log(1 - r)) if noise == "gumbel" else math.log(r / (1 - r))
    bias = torch.full((GRAPH.num_slots,), gamma, dtype=torch.float64, requires_grad=True)
    nodes = torch.zeros(1, 5, 18, 2, dtype=torch.float64)
    with use_backend(backend):
        _, information = sample_from_embeddings(nodes, nodes, GRAPH, bias, seed=0, noise=noise, prior=r)
        (gradient,) = torch.autograd.grad(information.sum(), bias)
    torch.testing.assert_close(information, torch.zeros_like(information), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("graph", [SkeletonGraph("coco17", 1), CHAIN], ids=str)
def test_gradcheck_of_the_information(graph, noise: str, backend: str):
    shape = (2, graph.num_joints, 2) if graph is CHAIN else (1, 2, graph.num_joints, 2)
    q, k = torch.randn(2, *shape, dtype=torch.float64, generator=generator())
    bias = torch.randn(graph.num_slots, dtype=torch.float64, generator=generator(1))

    def information(*inputs):
        with use_backend(backend):
            return sample_from_embeddings(*inputs[:2], graph, inputs[2], seed=0, noise=noise, prior=0.2)[1]

    assert torch.autograd.gradcheck(information, [x.requires_grad_() for x in (q, k, bias)])


@given(
    T=st.integers(1, 9),
    D=st.integers(1, 5),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    prior=st.floats(1e-3, 1 - 1e-3),
    beta=st.floats(0.05, 20),
    scale=st.floats(0, 30),
    noise=st.sampled_from(NOISES),
    estimator=st.sampled_from(ESTIMATORS),
    backend=st.sampled_from(BACKENDS),
)
@settings(max_examples=60, deadline=None)
def test_any_size_prior_and_logits_match_the_reference(T, D, lengths, prior, beta, scale, noise, estimator, backend):
    B, graph = len(lengths), SkeletonGraph("coco17", 1)
    sampling = Sampling(beta=beta, tau=1.0, noise=noise, estimator=estimator)

    def run(q, k, bias):
        frames = torch.tensor(lengths).clamp(max=T)
        return sample_from_embeddings(q, k, graph, bias, seed=T, sampling=sampling, lengths=frames, prior=prior)

    q, k = torch.randn(2, B, T, 17, D, dtype=torch.float64, generator=generator(D))
    bias = torch.randn(graph.num_slots, dtype=torch.float64, generator=generator(B))
    assert_matches_reference(run, [scale * q, k, bias], backend, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_certain_edges_have_finite_information_and_no_gradient_of_it(estimator: str, noise: str, backend: str, dtype: torch.dtype):
    """p = 1 costs -log r, p = 0 costs -log(1 - r), be the logit infinite or only large."""
    r, nodes = 0.25, torch.zeros(1, 5, 18, 2, dtype=dtype)
    for gamma, limit in ((math.inf, -math.log(r)), (1e4, -math.log(r)), (-math.inf, -math.log(1 - r)), (-1e4, -math.log(1 - r))):
        bias = torch.full((GRAPH.num_slots,), gamma, dtype=dtype, requires_grad=True)
        with use_backend(backend):
            kept, information = sample_from_embeddings(nodes, nodes, GRAPH, bias, seed=0, noise=noise, estimator=estimator, prior=r)
            (gradient,) = torch.autograd.grad(information.sum(), bias, retain_graph=True)
            (with_sample,) = torch.autograd.grad(kept.sum() + information.sum(), bias)
        assert information.item() == pytest.approx(limit, rel=1e-6)
        assert (gradient == 0).all()
        assert with_sample.isfinite().all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
def test_loops_beyond_the_walk_and_certain_loops_leave_the_information_alone(noise: str, backend: str):
    """They are taken out of it again, with whatever stands there."""
    graph, lengths = SkeletonGraph("coco17", 1).with_loops, torch.tensor([2, 0])
    is_loop = (graph.src == graph.dst) & (graph.offset == 0)
    q, bias = torch.randn(2, 4, 17, 3, dtype=torch.float64, generator=generator()), torch.zeros(graph.num_slots, dtype=torch.float64)
    bias[is_loop.nonzero()[0]], bias[is_loop.nonzero()[1]] = math.inf, -math.inf
    spoiled, found = q.clone(), []
    spoiled[0, 2:], spoiled[1] = math.nan, math.inf
    for nodes, of_slots in ((q, torch.zeros_like(bias)), (spoiled, bias)):
        leaves = nodes.requires_grad_(), of_slots.requires_grad_()
        with use_backend(backend):
            _, information = sample_from_embeddings(nodes, nodes.flip(-1), graph, of_slots, seed=0, noise=noise, lengths=lengths, prior=0.3)
        found.append((information, *torch.autograd.grad(information.sum(), leaves)))
    assert found[0][0][0] > 0
    assert found[0][0][1] == 0
    for wanted, other in zip(*found, strict=True):
        torch.testing.assert_close(other, wanted, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("prior", [None, 0.25])
@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_slots_with_a_bias_of_infinity_have_no_gradient(estimator: str, noise: str, backend: str, prior: float | None):
    """Nor have q and k one by way of these; that of the other slots is what it is without them."""
    q, k = torch.randn(2, 2, 5, 18, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    bias, options = torch.zeros(GRAPH.num_slots, dtype=torch.float64), {"seed": 0, "noise": noise, "estimator": estimator}
    bias[0::3], bias[1::3] = math.inf, -math.inf
    others, bias = bias == 0, bias.requires_grad_()
    with use_backend(backend):
        found = sample_from_embeddings(q, k, GRAPH, bias, prior=prior, **options)
        dq, dbias = torch.autograd.grad(found.sum() if prior is None else found[0].sum() + found[1].sum(), (q, bias))
        kept = sample_from_embeddings(q, k, GRAPH, **options)
        (of_others,) = torch.autograd.grad(kept[:, others].sum(), q)
    assert torch.equal(dbias != 0, others)
    if prior is None:
        torch.testing.assert_close(dq, of_others)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("noise", NOISES)
def test_what_is_no_number_stays_that_for_its_walk_and_for_no_other(noise: str, backend: str):
    q, k = torch.randn(2, 3, 6, 18, 2, generator=generator())
    q[1, 2, 3, 0] = math.nan
    k[2, 5] = math.nan  # beyond the walk's length
    q.requires_grad_()
    with use_backend(backend):
        _, information = sample_from_embeddings(q, k, GRAPH, seed=0, noise=noise, lengths=torch.tensor([6, 6, 5]), prior=0.25)
        (gradient,) = torch.autograd.grad(information[[0, 2]].sum(), q)
    assert information.isnan().tolist() == [False, True, False]
    assert gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("backend", ALL)
def test_walks_without_edges_carry_no_information(backend: str):
    """Of no frames; of one frame on a graph that has edges between frames only; on an edge list without edges."""
    alone = SkeletonGraph(next(case for case in CASES if case.name == "lone joint").graph.layout, 2)
    empty = EdgeList(torch.zeros(2, 0, dtype=torch.int64), 3)
    for graph, nodes, lengths in (
        (alone, torch.randn(3, 4, 1, 2), torch.tensor([0, 1, 4])),
        (empty, torch.randn(3, 3, 2), None),
    ):
        nodes.requires_grad_()
        with use_backend(backend):
            _, information = sample_from_embeddings(nodes, nodes, graph, seed=0, lengths=lengths, prior=0.5)
            (gradient,) = torch.autograd.grad(information.sum(), nodes)
        without = slice(None) if lengths is None else slice(2)
        assert (information[without] == 0).all()
        assert (gradient[without] == 0).all()
        assert lengths is None or information[2] > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_information_of_every_dtype_is_that_of_the_rounded_embeddings(dtype: torch.dtype, backend: str):
    q, k = torch.randn(2, 3, 9, 18, 20, generator=generator()).to(dtype)
    bias = torch.randn(GRAPH.num_slots, generator=generator(1)).to(dtype)
    for noise in NOISES:
        with use_backend("reference"):
            _, wanted = sample_from_embeddings(q.double(), k.double(), GRAPH, bias.double(), seed=8, noise=noise, prior=0.3)
        with use_backend(backend):
            kept, found = sample_from_embeddings(q, k, GRAPH, bias, seed=8, noise=noise, prior=0.3)
        assert (kept.dtype, found.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_the_two_operations_one_after_the_other(dtype: torch.dtype, noise: str, backend: str):
    q, k = torch.randn(2, 3, 9, 18, 20, generator=generator()).to(dtype)
    lengths, ids = torch.tensor([9, 0, 6]), torch.tensor([5, 2**40 + 3, -1])
    bias = torch.randn(GRAPH.num_slots, generator=generator(1))
    with use_backend(backend):
        logits = edge_logits(q, k, GRAPH, bias, lengths)
        apart = sample_edges(logits, GRAPH, seed=8, noise=noise, sample_ids=ids, lengths=lengths)
        together = sample_from_embeddings(q, k, GRAPH, bias, seed=8, noise=noise, sample_ids=ids, lengths=lengths)
    assert together.dtype == torch.float32
    assert torch.equal(together, apart)


@pytest.mark.parametrize("noise", NOISES)
def test_does_not_depend_on_padding_the_batch_or_threads(noise: str):
    """To the bit, the information too: also where padding makes several pieces of a slot's frames."""
    q, k = torch.randn(2, 3, 1100, 18, 16, generator=generator())
    ids, lengths, threads = torch.tensor([4, 9, 2]), torch.tensor([1100, 7, 1030]), torch.get_num_threads()
    options = {"seed": 1, "sampling": Sampling(noise=noise), "prior": 0.25}

    def sample(walks: list[int], frames: int) -> tuple[Tensor, Tensor]:
        few = {"sample_ids": ids[walks], "lengths": lengths[walks]}
        return sample_from_embeddings(q[walks, :frames], k[walks, :frames], GRAPH, **few, **options)

    kept, information = sample([0, 1, 2], 1100)
    for walk, frames in ((1, 7), (1, 1024), (2, 1030)):
        alone = sample([walk], frames)
        assert torch.equal(kept[walk, :, :frames], alone[0][0])
        assert torch.equal(information[walk], alone[1][0])
    turned = sample([2, 0, 1], 1100)
    assert torch.equal(turned[0], kept[[2, 0, 1]])
    assert torch.equal(turned[1], information[[2, 0, 1]])
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert all(torch.equal(*pair) for pair in zip(sample([0, 1, 2], 1100), (kept, information), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [CASES[0], *CASES[2:5], *CASES[-3:]], ids=names)
def test_opcheck(case: Case, backend: str):
    inputs = lifted(case, [case.nodes(), case.nodes().flip(-1)], [])
    index = case.graph.index()
    for estimator, prior in itertools.product(ESTIMATORS, (None, torch.tensor(0.3))):
        numbers = Sampling(estimator=estimator).numbers()
        rest = (torch.arange(case.B), case.length_tensor(), *index, torch.tensor(-3), prior, case.graph.hops, numbers, backend)
        torch.library.opcheck(torch.ops.fastst.sample_from_embeddings.default, (*inputs, bias_of(case).requires_grad_(), *rest))


def test_compiles_in_full_for_changing_lengths():
    compiled = torch.compile(lambda q, k, seed: sample_from_embeddings(q, k, GRAPH, seed=seed), fullgraph=True, dynamic=True)
    for T in (5, 9):
        q, k = torch.randn(2, 1, T, 18, 8)
        assert torch.equal(compiled(q, k, T), sample_from_embeddings(q, k, GRAPH, seed=T))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_in_full_for_any_value_of_a_tensor(backend: str):
    def sample(x: Tensor, seed: Tensor | int, prior: Tensor | float) -> tuple[Tensor, Tensor]:
        return sample_from_embeddings(x, x, GRAPH, seed=seed, estimator="sigmoid", prior=prior)

    def run(function, seed, prior) -> tuple[Tensor, ...]:
        x = nodes.clone().requires_grad_()
        kept, information = function(x, seed, prior)
        return kept, information, torch.autograd.grad(kept.sum() + information.sum(), x)[0]

    def same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
        assert torch.equal(found[0], wanted[0])
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)  # torch's own products may add up in another order

    nodes = torch.randn(2, 5, 18, 4, generator=generator())
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    with use_backend(backend):
        compiled = torch.compile(sample, fullgraph=True, backend=counter)
        for seed, prior in ((1, 0.5), (2, 0.25), (-7, 0.9)):
            found = run(compiled, torch.tensor(seed), torch.tensor(prior))
            same(found, run(sample, seed, torch.tensor(prior)))
        assert counter.frame_count == 1
        for seed, prior in ((1, 0.5), (2, 0.25)):
            found = run(torch.compile(sample, fullgraph=True, backend="aot_eager"), seed, prior)
            same(found, run(sample, seed, prior))


@pytest.mark.parametrize("backend", ALL)
def test_seed_and_prior_in_tensors_are_those_in_numbers(backend: str):
    x = torch.randn(2, 5, 18, 4, dtype=torch.float64, generator=generator())
    with use_backend(backend):
        wanted = sample_from_embeddings(x, x, GRAPH, seed=-9, prior=0.3)
        found = sample_from_embeddings(x, x, GRAPH, seed=torch.tensor(-9), prior=torch.tensor(0.3, dtype=torch.float64))
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_nothing_of_the_edges_size_is_kept_for_the_backward(estimator: str, backend: str):
    sizes: list[int] = []
    x = torch.randn(2, 6, 18, 2, requires_grad=True)
    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        kept, _ = sample_from_embeddings(x, x, GRAPH, seed=0, estimator=estimator, prior=0.5)
    assert sizes
    assert kept.numel() not in sizes


def test_the_information_takes_no_memory():
    """At the peak of forward and backward, beside sampling alone on the compiled kernels: but for some numbers of a walk."""
    B, T = 8, 60
    with fake_mode():
        q, k = (torch.empty(B, T, 18, 32, requires_grad=True) for _ in range(2))
        bias, dkept, one = torch.empty(GRAPH.num_slots, requires_grad=True), torch.empty(B, GRAPH.num_slots, T), torch.ones(B)

    def run(prior: float | None) -> None:
        result = sample_from_embeddings(q, k, GRAPH, bias, seed=0, estimator="sigmoid", prior=prior)
        outputs, gradients = (result, dkept) if prior is None else (list(result), [dkept, one])
        torch.autograd.grad(outputs, [q, k, bias], gradients)

    with use_backend("cpu"):
        alone, informed = (peak_of(lambda prior=prior: run(prior), q, k, bias, dkept, one).peak for prior in (None, 0.5))
    assert alone > 4 * dkept.numel()
    assert informed <= alone + 64 * B


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": torch.zeros(1, 5, 18, 3)}, ValueError, "k must have the shape of q"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must be"),
        ({"tau": 0.0}, ValueError, "tau must be above 0"),
        ({"noise": "normal"}, ValueError, "noise must be one of"),
        ({"sample_ids": torch.arange(3)}, ValueError, "sample_ids must be"),
        ({"prior": 0.0}, ValueError, "prior must be above 0 and below 1, got 0"),
        ({"prior": 1}, ValueError, "prior must be above 0 and below 1, got 1"),
        ({"prior": math.nan}, ValueError, "prior must be above 0 and below 1, got nan"),
        ({"prior": torch.tensor(1.5)}, ValueError, "prior must be above 0 and below 1, got 1.5"),
        ({"prior": torch.tensor([0.5])}, ValueError, r"prior must be a number or a 0-d tensor, got \[1\]"),
        ({"prior": torch.tensor(1)}, TypeError, "prior must be a floating-point tensor, got torch.int64"),
        ({"prior": torch.tensor(0.5, requires_grad=True)}, ValueError, "prior gets no gradient"),
        ({"prior": torch.tensor(0.5, device="meta")}, ValueError, "prior is on meta, but q is on cpu"),
    ],
)
@pytest.mark.parametrize("backend", ALL)
def test_errors_name_the_argument(backend, change, error, message):
    with use_backend(backend), pytest.raises(error, match=message):
        sample_from_embeddings(**{"q": torch.zeros(1, 5, 18, 4), "k": torch.zeros(1, 5, 18, 4), "graph": GRAPH, "seed": 0, **change})
