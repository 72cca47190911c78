"""Sampling of edges in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import numpy as np
import pytest
import torch
from graphs import CASES, Case, generator, names
from torch import Tensor
from triton_cases import CHAIN, DEVICE, FEW_SLOTS, LONG, SAMPLING, SHORT, TOLERANCES, assert_matches, lengths_of

from fastst import EdgeList, SkeletonGraph
from fastst.ops import Sampling, edge_logits, sample_edges, sample_from_embeddings, use_backend
from fastst.ops.random import edge_uniform

triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language
from csrc_triton import sample_edges as sample_kernels  # noqa: E402
from csrc_triton import sample_from_embeddings as fused_kernels  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero encountered", "ignore:overflow encountered")


@pytest.mark.parametrize(("noise", "estimator"), SAMPLING)
@pytest.mark.parametrize("case", [*FEW_SLOTS, LONG], ids=names)
def test_sample_edges_matches_the_reference(case: Case, noise: str, estimator: str):
    def function(logits):
        return sample_edges(logits, case.graph, seed=-5, noise=noise, estimator=estimator, tau=0.7, lengths=lengths_of(case, logits))

    assert_matches(function, [case.edges()])


@triton.jit
def _store_uniform(u_ptr, seed, sample, KIND: tl.constexpr, R: tl.constexpr, Q: tl.constexpr):
    row, column = tl.arange(0, R)[:, None], tl.arange(0, 4 * Q)[None, :]
    quad = tl.arange(0, Q)[None, :]
    u = sample_kernels.uniform(quad, row, sample.to(tl.uint32), KIND, seed)
    tl.store(u_ptr + row * 4 * Q + column, u)


@pytest.mark.parametrize("seed", [0, -5, 2**40 + 17, 2**63 - 1])
@pytest.mark.parametrize("sample", [7, 2**31 + 5, 2**40 + 3])
def test_uniforms_have_the_bits_of_the_reference(seed: int, sample: int):
    u = torch.empty(4, 16, device=DEVICE)
    _store_uniform[(1,)](u, seed, sample, 0, 4, 4)
    assert torch.equal(u.cpu(), edge_uniform(seed, torch.tensor([sample]), 4, 16, of_edge_list=False)[0])
    u = torch.empty(1, 16, device=DEVICE)
    _store_uniform[(1,)](u, seed, sample, 1, 1, 4)
    assert torch.equal(u.cpu(), edge_uniform(seed, torch.tensor([sample]), 16, 1, of_edge_list=True)[0].T)


@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("ids", [torch.tensor([12, -3]), torch.tensor([2**33 + 1, 2**31]), torch.tensor([4, 4], dtype=torch.int32)], ids=str)
def test_all_backends_keep_the_same_edges(ids: Tensor, noise: str):
    logits, kept = SHORT.edges(torch.float32), {}
    for backend in ("reference", "torch", "triton"):
        device = DEVICE if backend == "triton" else "cpu"
        with use_backend(backend):
            kept[backend] = sample_edges(logits.to(device), CHAIN, seed=2**63 + 9, noise=noise, sample_ids=ids.to(device)).cpu()
    assert torch.equal(kept["reference"], kept["torch"])
    assert torch.equal(kept["triton"], kept["torch"])


def test_a_graph_depends_on_the_seed_and_on_the_walk_alone():
    logits, ids, lengths = SHORT.edges().to(DEVICE), torch.tensor([40, 7], device=DEVICE), torch.tensor([7, 4], device=DEVICE)
    with use_backend("triton"):
        batch = sample_edges(logits, CHAIN, seed=1, sample_ids=ids, lengths=lengths)
        swapped = sample_edges(logits.flip(0), CHAIN, seed=1, sample_ids=ids.flip(0), lengths=lengths.flip(0))
        alone = sample_edges(logits[1:, :, :4], CHAIN, seed=1, sample_ids=ids[1:])
    assert torch.equal(swapped.flip(0), batch)
    assert torch.equal(batch[1:, :, :4], alone)


@pytest.mark.parametrize("D", [3, 8, 70])
@pytest.mark.parametrize("case", [*[case for case in CASES if case.graph.num_joints <= 6], LONG], ids=names)
def test_fused_sampling_equals_the_two_operations(case: Case, D: int):
    bias = torch.randn(case.graph.num_slots, dtype=torch.float64, generator=generator(2))
    options = {"seed": 11, "sample_ids": 7 * torch.arange(case.B) - 3, "noise": "logistic" if D == 8 else "gumbel"}
    q, k = case.nodes(D), case.nodes(D).flip(-1)
    with use_backend("reference"):
        logits = edge_logits(q, k, case.graph, bias, case.length_tensor())
        wanted = sample_edges(logits, case.graph, lengths=case.length_tensor(), **options)
    with use_backend("triton"):
        ids = options.pop("sample_ids").to(DEVICE)
        found = sample_from_embeddings(
            q.to(DEVICE), k.to(DEVICE), case.graph, bias.to(DEVICE), sample_ids=ids, lengths=lengths_of(case, ids), **options
        )
    assert torch.equal(found.cpu(), wanted)


def test_fused_sampling_in_programs_as_large_as_where_there_is_much_to_do(monkeypatch: pytest.MonkeyPatch):
    """Of six joints and twenty frames, whose rows are no power of two; the second walk ends within one."""
    monkeypatch.setattr(fused_kernels, "enough_programs", lambda _: 1)
    graph = SkeletonGraph("coco18", 1)
    assert fused_kernels._tile(2, 40, 18, 1) == (6, 20, 128)
    q, k = torch.randn(2, 2, 40, 18, 5, dtype=torch.float64, generator=generator())
    lengths = torch.tensor([40, 23])
    found = {}
    for backend in ("reference", "triton"):
        device = DEVICE if backend == "triton" else "cpu"
        with use_backend(backend):
            found[backend] = sample_from_embeddings(q.to(device), k.to(device), graph, seed=5, lengths=lengths.to(device), prior=0.3)
    for wanted, actual in zip(found["reference"], found["triton"], strict=True):
        torch.testing.assert_close(actual.cpu(), wanted)


@pytest.mark.parametrize("estimator", ["identity", "sigmoid"])
@pytest.mark.parametrize("case", [SHORT, CASES[-3]], ids=names)
def test_gradients_of_fused_sampling(case: Case, estimator: str):
    def function(q, k, bias):
        return sample_from_embeddings(q, k, case.graph, bias, seed=4, estimator=estimator, lengths=lengths_of(case, q))

    bias = torch.randn(case.graph.num_slots, dtype=torch.float64, generator=generator(2))
    assert_matches(function, [case.nodes(), case.nodes().flip(-1), bias])


@pytest.mark.parametrize(
    ("case", "noise", "estimator"),
    [(case, "logistic", "sigmoid") for case in (*(case for case in CASES if case.graph.num_joints <= 6), LONG)] + [(SHORT, *how) for how in SAMPLING],
    ids=str,
)
def test_information_matches_the_reference(case: Case, noise: str, estimator: str):
    sampling = Sampling(beta=1.3, tau=0.7, noise=noise, estimator=estimator)

    def function(q, k, bias):
        options = {"seed": 4, "sampling": sampling, "lengths": lengths_of(case, q), "prior": 0.3}
        return sample_from_embeddings(q, k, case.graph, bias, **options)

    bias = torch.randn(case.graph.num_slots, dtype=torch.float64, generator=generator(2)).repeat_interleave(2)[::2]
    assert_matches(function, [case.nodes(), case.nodes().flip(-1), bias])


def test_information_on_the_skeleton_without_bias():
    """Joints with more than sixteen slots."""
    graph = SkeletonGraph("coco18", 2)
    q, k = torch.randn(2, 1, 3, 18, 4, dtype=torch.float64, generator=generator())
    assert_matches(lambda q, k: sample_from_embeddings(q, k, graph, seed=2, noise="logistic", prior=0.8), [q, k])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_information_of_every_dtype(noise: str, dtype: torch.dtype):
    x = SHORT.nodes().to(dtype)
    with use_backend("reference"):
        _, wanted = sample_from_embeddings(x.double(), x.double(), CHAIN, seed=4, noise=noise, prior=0.3)
    with use_backend("triton"):
        _, found = sample_from_embeddings(x.to(DEVICE), x.to(DEVICE), CHAIN, seed=4, noise=noise, prior=0.3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("graph", [CHAIN, EdgeList(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4)], ids=["slots", "edge list"])
def test_certain_edges_have_finite_information_and_no_gradient_of_it(graph, noise: str, dtype: torch.dtype):
    r, nodes = 0.25, torch.zeros(1, *([5] if graph is CHAIN else []), 4, 2, dtype=dtype, device=DEVICE)
    for gammas, limit in (((np.inf, 1e4), -np.log(r)), ((-np.inf, -1e4), -np.log(1 - r))):
        bias = torch.tensor(gammas, dtype=dtype).repeat(graph.num_slots)[: graph.num_slots].to(DEVICE).requires_grad_()
        with use_backend("triton"):
            kept, information = sample_from_embeddings(nodes, nodes, graph, bias, seed=0, noise=noise, prior=r)
            (gradient,) = torch.autograd.grad(information.sum(), bias, retain_graph=True)
            (with_sample,) = torch.autograd.grad(kept.sum() + information.sum(), bias)
        assert information.item() == pytest.approx(limit, rel=1e-6)
        assert (gradient == 0).all()
        assert with_sample.isfinite().all()


@pytest.mark.parametrize("estimator", ["identity", "sigmoid"])
def test_certain_edges_have_no_gradient(estimator: str):
    graph, nodes = EdgeList(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4), torch.zeros(1, 4, 2, device=DEVICE)
    logits = torch.tensor([np.inf, -np.inf, 0.0], device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        for prior in (None, 0.25):
            kept = sample_from_embeddings(nodes, nodes, graph, logits, seed=0, estimator=estimator, prior=prior)
            (gradient,) = torch.autograd.grad(kept.sum() if prior is None else kept[0].sum() + kept[1].sum(), logits)
            assert (gradient != 0).tolist() == [False, False, True]
        (gradient,) = torch.autograd.grad(sample_edges(logits[None], graph, seed=0, estimator=estimator).sum(), logits)
        assert (gradient != 0).tolist() == [False, False, True]


def test_information_that_is_no_number_is_of_its_walk_alone():
    x, lengths = SHORT.nodes().to(DEVICE), torch.tensor([7, 4], device=DEVICE)
    x[1, 5] = torch.nan  # beyond the length
    poisoned = x.clone()
    poisoned[0, 1, 2] = torch.nan
    for nodes, wanted in ((x, [False, False]), (poisoned, [True, False])):
        with use_backend("triton"):
            _, information = sample_from_embeddings(nodes, nodes, CHAIN, seed=1, lengths=lengths, prior=0.5)
        assert information.isnan().tolist() == wanted


@pytest.mark.parametrize("case", [SHORT, CASES[-3]], ids=names)
def test_seed_and_prior_that_lie_on_the_gpu(case: Case, monkeypatch):
    """There kernels read them through pointers; in the interpreter they are made to."""
    seed, prior = torch.tensor(-(2**40) - 9), torch.tensor(0.3)
    logits, x = case.edges().to(DEVICE), case.nodes().to(DEVICE).requires_grad_()

    def run(seed, prior) -> list[Tensor]:
        kept, information = sample_from_embeddings(x, x, case.graph, seed=seed, estimator="sigmoid", prior=prior)
        options = {"seed": seed, "estimator": "sigmoid"}
        alone = sample_edges(logits.requires_grad_(), case.graph, **options)
        gradients = torch.autograd.grad([kept.sum() + information.sum(), alone.sum()], [x, logits])
        return [kept, information, alone, *gradients]

    with use_backend("triton"):
        wanted = run(seed, prior)
        if DEVICE == "cpu":
            for kernels in (sample_kernels, fused_kernels):
                monkeypatch.setattr(kernels, "number_or_pointer", lambda value: (0, value))
        found = run(seed.to(DEVICE), prior.to(DEVICE))
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_fused_sampling_on_the_skeleton_without_bias():
    graph = SkeletonGraph("coco18", 1)
    q = torch.randn(1, 5, 18, 4, dtype=torch.float64, generator=generator())
    with use_backend("reference"):
        wanted = sample_from_embeddings(q, q, graph, seed=2)
    with use_backend("triton"):
        assert torch.equal(sample_from_embeddings(q.to(DEVICE), q.to(DEVICE), graph, seed=2).cpu(), wanted)
