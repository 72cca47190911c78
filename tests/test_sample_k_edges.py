import itertools
import math

import numpy as np
import pytest
import torch
from graphs import BACKENDS, CASES, IN_FRAME, Case, assert_matches_reference, generator, lifted, names
from torch import Tensor

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.ops import sample_k_edges, use_backend
from fastst.ops.random import edge_uniform, edge_uniforms
from fastst.ops.sample_k_edges import ESTIMATORS, GROUPS

ALL = ["reference", *BACKENDS]
GRAPH = SkeletonGraph("coco18", 1)
STAR = EdgeList(torch.stack((torch.arange(1, 8), torch.zeros(7, dtype=torch.int64))), 8)  # seven edges into one node
INF, NAN = float("inf"), float("nan")


def star(n: int) -> EdgeList:
    return EdgeList(torch.stack((torch.arange(1, n + 1), torch.zeros(n, dtype=torch.int64))), n + 1)


@pytest.mark.parametrize("backend", ALL)
def test_imle_does_not_look_at_gradients_where_no_edge_exists(backend: str):
    graph = SlotGraph([0, 1, 2, 0], [1, 2, 0, 2], [0, 0, 1, -1], 3)
    logits, exists = torch.randn(1, 4, 3, dtype=torch.float64, generator=generator(), requires_grad=True), graph.edge_mask(3)
    toward = torch.where(exists, torch.randn(4, 3, dtype=torch.float64, generator=generator(1)), NAN)[None, None]
    found = []
    for given in (toward, toward.nan_to_num(0)):
        with use_backend(backend):
            kept, _, _ = sample_k_edges(logits, graph, 3, seed=2, estimator="imle")
            found += torch.autograd.grad(kept, logits, given)
    assert found[1].any()
    assert torch.equal(*found)


def differentiable(case: Case, k: int, per: str, estimator: str, samples: int = 2):
    """The results of a call that have a gradient."""

    def run(logits: Tensor):
        options = {"seed": 5, "per": per, "estimator": estimator, "samples": samples, "lam": 2.0}
        kept, marginals, log_probability = sample_k_edges(logits, case.graph, k, lengths=case.length_tensor(), **options)
        return {"imle": (kept,), "reinforce": (marginals, log_probability)}.get(estimator, (kept, marginals, log_probability))

    return run


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("per", GROUPS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, per: str, estimator: str, backend: str):
    assert_matches_reference(differentiable(case, 3, per, estimator), [case.edges()], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [0, 1, 2, 1000])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", [CASES[8], CASES[9], CASES[10]], ids=names)
def test_any_number_of_edges(case: Case, estimator: str, k: int, backend: str):
    for per in GROUPS:
        assert_matches_reference(differentiable(case, k, per, estimator, samples=1), [case.edges()], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per", GROUPS)
@pytest.mark.parametrize("case", [CASES[4], *CASES[-3:]], ids=names)
def test_opcheck(case: Case, per: str, backend: str):
    (logits,) = lifted(case, [], [case.edges()])
    widest = case.graph.most_into if per == "dst" else case.graph.num_slots
    given = logits, torch.arange(case.B), case.length_tensor(), *case.graph.index(), torch.tensor(-3), case.graph.hops, 2, per, widest, 2
    torch.library.opcheck(torch.ops.fastst.sample_k_edges.default, (*given, "simple", backend))
    torch.library.opcheck(torch.ops.fastst.perturbed_top_k.default, (*given, 2.0, backend))


def subsets(n: int, k: int) -> Tensor:
    return torch.tensor([[float(i in chosen) for i in range(n)] for chosen in itertools.combinations(range(n), k)], dtype=torch.float64)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_all_subsets_enumerated(k: int, backend: str):
    """Marginals, log-probabilities and the gradients of both and of the samples against sums over all subsets."""
    theta = torch.randn(7, dtype=torch.float64, generator=generator(), requires_grad=True)
    all_of_them, toward = subsets(7, k), torch.randn(7, dtype=torch.float64, generator=generator(1))
    share = torch.softmax(all_of_them @ theta, 0)
    wanted = share @ all_of_them
    (slope,) = torch.autograd.grad(wanted @ toward, theta, retain_graph=True)
    logits = theta.detach()[None].requires_grad_()
    with use_backend(backend):
        kept, marginals, log_probability = sample_k_edges(logits, STAR, k, seed=1, samples=4)
        torch.testing.assert_close(marginals[0], wanted, atol=1e-10, rtol=0)
        for result in (marginals[0], kept[2, 0]):
            torch.testing.assert_close(torch.autograd.grad(result @ toward, logits, retain_graph=True)[0][0], slope, atol=1e-10, rtol=0)
        assert (kept.sum(-1) == k).all()
        which = (all_of_them[None] == kept.detach()).all(-1).nonzero()[:, 1]  # [S]
        torch.testing.assert_close(log_probability[:, 0], share.log()[which], atol=1e-10, rtol=0)
        (score,) = torch.autograd.grad(log_probability[3, 0], logits)
        torch.testing.assert_close(score[0], kept[3, 0] - wanted, atol=1e-10, rtol=0)


def prefix_suffix_marginals(theta: np.ndarray, k: int) -> np.ndarray:
    """w_i Σ_a e_a(before i) e_{k-1-a}(behind i) / e_k, in logarithms."""

    def logs(values: np.ndarray) -> np.ndarray:
        found = np.full((len(values) + 1, k + 1), -np.inf)
        found[0, 0] = 0
        for i, value in enumerate(values):
            found[i + 1] = found[i]
            found[i + 1, 1:] = np.logaddexp(found[i, 1:], value + found[i, :-1])
        return found

    before, behind = logs(theta), logs(theta[::-1])[::-1]
    terms = np.stack([before[:-1, a] + behind[1:, k - 1 - a] for a in range(k)], -1)
    return np.exp(theta + np.logaddexp.reduce(terms, -1) - before[-1, k])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k", "scale"), [(494, 50, 1.0), (494, 50, 20.0), (5000, 20, 1.0), (200, 190, 3.0)])
def test_large_groups(n: int, k: int, scale: float, backend: str):
    theta = scale * torch.randn(1, n, generator=generator())
    wanted = torch.from_numpy(prefix_suffix_marginals(theta[0].double().numpy(), k))
    with use_backend(backend):
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
            kept, marginals, log_probability = sample_k_edges(theta.to(dtype), star(n), k, seed=0)
            assert marginals.dtype == log_probability.dtype == dtype
            torch.testing.assert_close(marginals[0].double(), wanted, atol=tolerance, rtol=0)
            assert kept.sum() == k


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_far_apart(backend: str):
    """Between the last two it is decided who stays, whatever lies above and below."""
    theta = torch.tensor([[1e4, 2.0, 1.0, -1e4, 900.0, -5000.0, 3e30]], dtype=torch.float64, requires_grad=True)
    with use_backend(backend):
        _, marginals, _ = sample_k_edges(theta, STAR, 4, seed=0)
        (gradient,) = torch.autograd.grad(marginals[0, 1], theta)
    p = 1 / (1 + math.exp(-1))
    slope = p * (1 - p)
    torch.testing.assert_close(marginals[0], torch.tensor([1, p, 1 - p, 0, 1, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(gradient[0], torch.tensor([0, slope, -slope, 0, 0, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_logits_are_certain_and_have_no_gradient(dtype: torch.dtype, backend: str):
    for values, k, wanted in (
        ([INF, 0.5, 0.5, -INF, 0.5, INF, -INF], 3, [1, 1 / 3, 1 / 3, 0, 1 / 3, 1, 0]),
        ([INF, 0.0, INF, -INF, INF, 0.0, INF], 2, [0.5, 0, 0.5, 0, 0.5, 0, 0.5]),  # not all can stay
        ([INF, 1.0, 0.0, -INF, -INF, -INF, -INF], 5, [1, 1, 1, 0, 0, 0, 0]),  # so many can't
        ([-INF] * 7, 2, [0] * 7),
        ([INF] * 7, 7, [1] * 7),
    ):
        with use_backend(backend):
            for estimator in ESTIMATORS:
                logits = torch.tensor([values], dtype=dtype, requires_grad=True)
                kept, marginals, log_probability = sample_k_edges(logits, STAR, k, seed=4, samples=3, estimator=estimator)
                number = min(k, sum(value > -INF for value in values))
                assert (kept.sum(-1) == number).all()
                assert ((kept == 0) | (torch.tensor(wanted) > 0)).all()
                assert ((kept == 1) | (torch.tensor(wanted) < 1)).all()
                results = [kept] if estimator != "reinforce" else []
                if marginals is not None:
                    torch.testing.assert_close(marginals[0], torch.tensor(wanted, dtype=dtype))
                    results += [marginals, log_probability]
                weights = torch.randn(7, dtype=dtype, generator=generator())
                total = sum((result * weights).sum() if result.shape[-1] == 7 else result.sum() for result in results)
                (gradient,) = torch.autograd.grad(total, logits)
                assert (gradient[logits.isinf()] == 0).all()
                assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_logit_that_is_no_number_is_lost_in_no_group_and_seen_in_no_other(estimator: str, backend: str):
    logits = torch.zeros(2, IN_FRAME.num_slots, 3)
    logits[0, 1, 1] = NAN
    with use_backend(backend):
        kept, marginals, log_probability = sample_k_edges(logits, IN_FRAME, 1, seed=1, per="frame", estimator=estimator, samples=2)
    poisoned = torch.zeros(logits.shape, dtype=torch.bool)
    poisoned[0, [i for i in range(IN_FRAME.num_slots) if i not in IN_FRAME.loops], 1] = True
    assert torch.equal(kept.isnan(), poisoned.expand(kept.shape))
    if marginals is not None:
        assert torch.equal(marginals.isnan(), poisoned)
        assert torch.equal(log_probability.isnan(), torch.tensor([[True, False]] * 2))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_logits_where_no_edge_exists_are_not_looked_at(estimator: str, backend: str):
    logits = torch.zeros(1, GRAPH.num_slots, 3)
    logits[0][~GRAPH.edge_mask(3)] = NAN
    logits.requires_grad_()
    with use_backend(backend):
        for per in GROUPS:
            results = [result for result in sample_k_edges(logits, GRAPH, 2, seed=1, per=per, estimator=estimator) if result is not None]
            (gradient,) = torch.autograd.grad(sum(result.sum() for result in results if result.requires_grad), logits)
            assert all(result.isfinite().all() for result in (*results, gradient))
            assert (results[0][0][:, ~GRAPH.edge_mask(3)] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per", GROUPS)
def test_gradients_by_differences(per: str, backend: str):
    case = Case("", SlotGraph([0, 1, 1, 2, 0, 1], [1, 0, 1, 1, 0, 2], [0, 1, -1, 0, 0, 0], 3), 2, 3, 1, [3, 2])  # a loop at joint 0

    def run(logits):
        return sample_k_edges(logits, case.graph, 2, seed=3, per=per, samples=2, lengths=case.length_tensor())[1:]

    with use_backend(backend):
        torch.autograd.gradcheck(run, case.edges().requires_grad_())


@pytest.mark.parametrize("backend", BACKENDS)
def test_subsets_come_as_often_as_they_should(backend: str):
    """A χ² test with 9 degrees of freedom; 35 would be exceeded once in 17 000 times."""
    theta, draws = torch.tensor([[1.0, -0.5, 0.3, -1.2, 0.0]], dtype=torch.float64), 4000
    with use_backend(backend):
        kept, _, log_probability = sample_k_edges(theta, star(5), 2, seed=12, samples=draws)
    all_of_them = subsets(5, 2)
    expected = draws * torch.softmax(all_of_them @ theta[0], 0)
    counts = (all_of_them[None] == kept).all(-1).sum(0)
    assert counts.sum() == draws
    assert ((counts - expected) ** 2 / expected).sum() < 35
    assert log_probability.exp().unique().numel() <= 10 + 5  # one for every subset, but for rounding


def test_the_two_states_of_imle():
    """Against a plain sort of γ + noise, γ - λ dz + noise."""
    logits = torch.randn(2, 7, dtype=torch.float64, generator=generator())
    weights, ids = torch.randn(3, 2, 7, dtype=torch.float64, generator=generator(1)), torch.tensor([4, 9])
    u = edge_uniforms(torch.tensor(6), ids, 3, 7, 1, True)[..., 0].double()
    noise = -torch.log(-torch.log(u + 1e-10) + 1e-10)

    def largest(values):
        return torch.zeros_like(values).scatter(-1, values.topk(2).indices, 1.0)

    for backend in ALL:
        leaf = logits.clone().requires_grad_()
        with use_backend(backend):
            kept, marginals, log_probability = sample_k_edges(leaf, STAR, 2, seed=6, estimator="imle", samples=3, lam=0.8, sample_ids=ids)
        assert marginals is None
        assert log_probability is None
        assert torch.equal(kept, largest(logits + noise))
        (gradient,) = torch.autograd.grad((kept * weights).sum(), leaf)
        torch.testing.assert_close(gradient, (largest(logits + noise) - largest(logits - 0.8 * weights + noise)).sum(0) / 0.8)


@pytest.mark.parametrize("backend", ALL)
def test_straight_through_is_the_diagonal(backend: str):
    logits = torch.randn(1, 7, dtype=torch.float64, generator=generator()).requires_grad_()
    weights = torch.randn(2, 1, 7, dtype=torch.float64, generator=generator(1))
    with use_backend(backend):
        kept, marginals, _ = sample_k_edges(logits, STAR, 3, seed=0, estimator="straight_through", samples=2)
        (gradient,) = torch.autograd.grad((kept * weights).sum(), logits, retain_graph=True)
        torch.testing.assert_close(gradient, weights.sum(0) * marginals * (1 - marginals))
        slopes = [torch.autograd.grad(marginals[0, i], logits, retain_graph=True)[0][0, i] for i in range(7)]
    torch.testing.assert_close(gradient[0], weights.sum(0)[0] * torch.stack(slopes))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_group_has_k_edges_or_all(estimator: str, backend: str):
    lengths, k = torch.tensor([4, 2]), 3
    logits = torch.randn(2, GRAPH.num_slots, 5, generator=generator())
    exists = GRAPH.edge_mask(5, lengths)
    into = torch.nn.functional.one_hot(GRAPH.dst.long(), 18).float()  # [P, J]
    sums = {"graph": lambda x: x.sum((-2, -1)), "frame": lambda x: x.sum(-2), "dst": lambda x: torch.einsum("...pt,pj->...jt", x, into)}
    with use_backend(backend):
        for per in GROUPS:
            kept, marginals, _ = sample_k_edges(logits, GRAPH, k, seed=2, per=per, estimator=estimator, samples=2, lengths=lengths)
            wanted = sums[per](exists.float()).clamp(max=k)
            assert torch.equal(sums[per](kept), wanted.expand(2, *wanted.shape))
            if marginals is not None:
                torch.testing.assert_close(sums[per](marginals), wanted)
            assert (kept[:, ~exists] == 0).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("per", GROUPS)
def test_loops_stay_and_do_not_count(per: str, backend: str):
    logits = torch.full((1, IN_FRAME.num_slots, 2), -1.0)
    logits[:, IN_FRAME.loops] = NAN
    logits.requires_grad_()
    with use_backend(backend):
        kept, marginals, log_probability = sample_k_edges(logits, IN_FRAME, 1, seed=0, per=per)
        (gradient,) = torch.autograd.grad((kept.sum((0, 1)) * torch.arange(10).view(5, 2)).sum() + log_probability.sum() + marginals.sum(), logits)
    assert (kept[:, :, IN_FRAME.loops] == 1).all()
    assert (marginals[:, IN_FRAME.loops] == 1).all()
    assert (gradient[:, IN_FRAME.loops] == 0).all()
    others = [i for i in range(IN_FRAME.num_slots) if i not in IN_FRAME.loops]
    assert kept[:, :, others].sum() == {"graph": 1, "frame": 2, "dst": 2 * len(IN_FRAME.dst[others].unique())}[per]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("per", GROUPS)
def test_a_graph_depends_on_the_seed_and_on_the_walk_alone(per: str, estimator: str):
    logits, threads = torch.randn(3, GRAPH.num_slots, 8, generator=generator()), torch.get_num_threads()
    ids, lengths, order = torch.tensor([40, 7, 12]), torch.tensor([8, 5, 6]), torch.tensor([2, 0, 1])

    def draw(seed=1, logits=logits, ids=ids, lengths=lengths, samples=3):
        return sample_k_edges(logits, GRAPH, 4, seed=seed, per=per, estimator=estimator, samples=samples, sample_ids=ids, lengths=lengths)[0]

    batch = draw()
    assert torch.equal(draw(logits=logits[order], ids=ids[order], lengths=lengths[order]), batch[:, order])
    assert torch.equal(draw(logits=logits[1:2, :, :5], ids=ids[1:2], lengths=None), batch[:, 1:2, :, :5])
    assert torch.equal(draw(samples=2), batch[:2])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(draw(seed=2), batch)
    assert torch.equal(draw(seed=1 + 2**64), batch)
    assert torch.equal(draw(seed=torch.tensor(1)), batch)
    try:
        torch.set_num_threads(3)
        assert torch.equal(draw(), batch)
    finally:
        torch.set_num_threads(threads)


def test_the_first_sample_has_the_numbers_of_sample_edges():
    ids = torch.tensor([3, 2**40 + 1])
    for P, T, of_edge_list in ((3, 5, False), (7, 1, True)):
        draws = edge_uniforms(torch.tensor(-4), ids, 3, P, T, of_edge_list)
        assert torch.equal(draws[0], edge_uniform(torch.tensor(-4), ids, P, T, of_edge_list))
        assert not (draws[1:] == draws[:-1]).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_compiles(estimator: str):
    def run(logits):
        kept, marginals, log_probability = sample_k_edges(logits, GRAPH, 3, seed=1, per="frame", estimator=estimator, samples=2)
        return kept if marginals is None else (kept * 2 + marginals, log_probability)

    logits = torch.randn(1, GRAPH.num_slots, 5, generator=generator())
    results = []
    for function in (run, torch.compile(run, fullgraph=True)):
        leaf = logits.clone().requires_grad_()
        outputs = function(leaf)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        results.append([*outputs, *torch.autograd.grad(sum(output.square().sum() for output in outputs), leaf)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits(dtype: torch.dtype, backend: str):
    logits = torch.randn(1, GRAPH.num_slots, 5, generator=generator()).to(dtype).requires_grad_()
    with use_backend(backend):
        for estimator in ESTIMATORS:
            kept, marginals, log_probability = sample_k_edges(logits, GRAPH, 9, seed=1, estimator=estimator)
            assert kept.dtype == dtype
            wanted = sample_k_edges(logits.float(), GRAPH, 9, seed=1, estimator=estimator)
            assert torch.equal(kept.float(), wanted[0])
            if marginals is not None:
                assert marginals.dtype == log_probability.dtype == torch.float32
                assert torch.equal(marginals, wanted[1])
            if kept.requires_grad:
                assert torch.autograd.grad(kept.sum(), logits)[0].dtype == dtype


def test_reinforce_gives_the_samples_no_gradient():
    logits = torch.zeros(1, 7, requires_grad=True)
    kept, marginals, log_probability = sample_k_edges(logits, STAR, 2, seed=0, estimator="reinforce")
    assert not kept.requires_grad
    assert marginals.requires_grad
    assert log_probability.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": -1}, ValueError, "k must be at least 0, got -1"),
        ({"k": 2.5}, TypeError, "k must be a whole number, got 2.5"),
        ({"k": "3"}, TypeError, "k must be a whole number, got '3'"),
        ({"samples": 0}, ValueError, "samples must be at least 1, got 0"),
        ({"samples": 1.0}, TypeError, "samples must be a whole number, got 1.0"),
        ({"lam": 0}, ValueError, "lam must be above 0, got 0.0"),
        ({"lam": NAN}, ValueError, "lam must be above 0, got nan"),
        ({"per": "node"}, ValueError, "per must be one of graph, frame, dst, got 'node'"),
        ({"estimator": "sigmoid"}, ValueError, "estimator must be one of simple, straight_through, imle, reinforce, got 'sigmoid'"),
        ({"seed": 3.5}, TypeError, "seed must be a whole number, got 3.5"),
        ({"sample_ids": torch.arange(3)}, ValueError, r"sample_ids must be \[B\] with B = 1, got \[3\]"),
        ({"lengths": torch.zeros(1)}, TypeError, "lengths must be a tensor of int32 or int64"),
        ({"logits": torch.zeros(1, 5, 5)}, ValueError, r"logits must be \[B, P, T\]"),
        ({"logits": torch.zeros(1, GRAPH.num_slots, 5, dtype=torch.int64)}, TypeError, "logits must be a floating-point tensor, got torch.int64"),
        ({"graph": "coco18"}, TypeError, "graph must be a SkeletonGraph, a SlotGraph or an EdgeList, got str"),
        ({"graph": STAR, "logits": torch.zeros(1, 6)}, ValueError, r"logits must be \[B, E\] with E = 7"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        sample_k_edges(**{"logits": torch.zeros(1, GRAPH.num_slots, 5), "graph": GRAPH, "k": 2, "seed": 0, **change})
