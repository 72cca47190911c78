"""Where the learned graph's gradient comes from: every estimator on a graph of few edges, where the gradient of the expected loss is known, since
all graphs that can be kept can be counted."""

import itertools
from collections.abc import Callable
from operator import itemgetter

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastst import Layout
from fastst.config import TrainConfig
from fastst.nn import GraphClassifier
from fastst.nn import sources as module
from fastst.nn.sources import ExactlyKGraph, ReinforcedGraph
from fastst.runs.step import Step

BONE = Layout.custom(["left", "right"], bones=[("left", "right")], name="bone").to_dict()
CLASSES = torch.tensor([0, 1, 1, 0])


def tiny(estimator: str, **options) -> GraphClassifier:
    """In float64, of two joints: 6 slots, of which 2 are there with a single frame."""
    torch.manual_seed(0)
    sizes = {"hidden": 4, "heads": 2, "layers": 1, "frames": 3, "keep_start": 0.6}
    return GraphClassifier(BONE, 2, estimator=estimator, **{**sizes, **options}).double()


def walks(B: int, T: int = 1) -> Tensor:
    return torch.randn(B, T, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def step_of(model: GraphClassifier) -> Step:
    config = TrainConfig(clip=0.0, information=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    weights = torch.tensor([1.5, 0.75], dtype=torch.float64)
    return Step(config, model, optimizer, torch.amp.GradScaler("cpu", enabled=False), weights)


def inputs_of(poses: Tensor, edges_of: list[int] | None) -> dict[str, Tensor]:
    one = torch.ones((), dtype=torch.float64)
    inputs = {"poses": poses, "classes": CLASSES[: len(poses)], "sample_ids": torch.arange(len(poses)), "seed": torch.tensor(0)}
    inputs |= {"counts": one, "everyone": 3 * one, "windows": len(poses) * one}
    return inputs if edges_of is None else {**inputs, "edges_of": torch.tensor(edges_of)}


def all_graphs(existing: Tensor) -> Tensor:
    """Every way to keep or remove the edges that exist.  # [B, P, T] -> [2 ** edges, B, P, T]"""
    where = existing.bool().flatten().nonzero()[:, 0]
    graphs = existing.new_zeros(2 ** len(where), existing.numel())
    graphs[:, where] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(where))), dtype=existing.dtype)
    return graphs.view(-1, *existing.shape)


@pytest.mark.parametrize("edges_of", [None, [1, 1, 2, 3], [1, 0, 3, 2]], ids=["own", "one", "both"])
@pytest.mark.parametrize("noise", ["logistic", "gumbel"])
def test_the_mean_of_reinforce_over_all_graphs_is_the_exact_gradient(noise: str, edges_of: list[int] | None, monkeypatch: pytest.MonkeyPatch):
    """Of four walks together, with the baseline, whether windows are classified on their own edges or on one another's."""
    model, poses = tiny("reinforce", noise=noise), walks(4)
    step, inputs, parameters = step_of(model), inputs_of(poses, edges_of), [p for p in model.source.parameters() if p.requires_grad]
    existing = model.source.existing(poses, None).double()
    graphs = all_graphs(existing)
    assert len(graphs) == 2**8
    probability = model.probability(poses)
    each = torch.where(graphs > 0, probability, 1 - probability).where(existing > 0, 1.0).prod(-1).prod(-1).prod(-1)  # [graphs]
    assert each.sum().item() == pytest.approx(1)
    with torch.no_grad():
        kept = graphs if edges_of is None else graphs[:, edges_of]
        losses = torch.stack([cross_entropy(model(poses, kept=one).logits, CLASSES, weight=step.class_weight, reduction="sum") for one in kept])
    exact = torch.autograd.grad((each * losses).sum() / inputs["everyone"], parameters)
    found = [torch.zeros_like(p) for p in parameters]
    for graph, share in zip(graphs, each.detach(), strict=True):
        monkeypatch.setattr(module, "sample_from_embeddings", lambda q, *_, graph=graph, **__: graph + 0 * q.sum())
        step(inputs)
        for total, parameter in zip(found, parameters, strict=True):
            total += share * parameter.grad
    for mine, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-7)  # the step takes its losses in single precision
    assert max(wanted.abs().max() for wanted in exact) > 1e-3


def test_the_mean_of_reinforces_samples_is_the_exact_gradient():
    """Of its own draws, so that they have the probabilities that it takes them to have: within five standard errors."""
    model, poses = tiny("reinforce"), walks(1, 2)
    existing = model.source.existing(poses, None).double()
    graphs = all_graphs(existing)[:, 0]
    probability = torch.where(graphs > 0, model.probability(poses), 1 - model.probability(poses)).where(existing > 0, 1.0).flatten(1).prod(1)
    with torch.no_grad():
        losses = cross_entropy(model(poses.expand(len(graphs), -1, -1, -1), kept=graphs).logits, CLASSES[:1].expand(len(graphs)), reduction="none")
    bias = model.source.upstream.slot_bias
    exact = torch.autograd.grad((probability * losses).sum(), bias)[0]
    found = []
    for seed in range(30):
        output = model(poses.expand(400, -1, -1, -1), seed=seed)
        entropy = cross_entropy(output.logits, CLASSES[:1].expand(400), reduction="none").detach()
        advantage = entropy - step_of(model)._baseline(entropy, torch.ones(()))
        found.append(torch.autograd.grad((advantage * output.log_probability).mean(), bias)[0])
        assert not output.kept.requires_grad
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 30**0.5
    assert ((mean - exact).abs() < 5 * error + 1e-12).all()
    assert (exact.abs() > 5 * error).any()  # that it is no gradient of 0 that is found


def exact_of_subsets(logits: Tensor, existing: Tensor, k: int, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The expected loss over all graphs with k edges into every frame, or all of a frame that has fewer."""
    graphs = all_graphs(existing)
    wanted = existing.sum(1).clamp(max=k)
    graphs = graphs[(graphs.sum(2) == wanted).flatten(1).all(1)]
    return torch.softmax((graphs * logits).flatten(1).sum(1), 0) @ torch.stack([loss(graph) for graph in graphs])


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_exactly_k_has_the_exact_gradient_of_a_linear_loss_and_the_marginals(share: float):
    model, poses = tiny("exactly_k", keep=share), walks(1, 3)
    source = model.source
    assert isinstance(source, ExactlyKGraph)
    assert source.k == {0.2: 1, 0.5: 3}[share]
    existing = source.existing(poses, None).double()
    costs = torch.randn(existing.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * existing
    logits = source.upstream(poses)
    bias = source.upstream.slot_bias
    wanted = torch.autograd.grad(exact_of_subsets(logits, existing, source.k, lambda kept: (kept * costs).sum()), bias)[0]
    kept = source(poses, seed=3).kept
    assert torch.equal(kept.sum(1), existing.sum(1).clamp(max=source.k))
    torch.testing.assert_close(torch.autograd.grad((kept * costs).sum(), bias)[0], wanted)
    probability = source.probability(poses)
    for edge in existing.nonzero().tolist():
        wanted = exact_of_subsets(source.upstream(poses), existing, source.k, itemgetter(tuple(edge)))
        torch.testing.assert_close(probability[tuple(edge)], wanted)


def test_exactly_k_chooses_the_likeliest_where_it_does_not_draw():
    model, poses, lengths = tiny("exactly_k", keep=0.5), walks(2, 4), torch.tensor([4, 2])
    source = model.source
    existing, probability = source.existing(poses, lengths), source.probability(poses, lengths)
    kept = source(poses, lengths, evaluation="threshold").kept
    assert torch.equal(kept.sum(1), existing.double().sum(1).clamp(max=source.k))
    for b, t in itertools.product(range(2), range(4)):
        chosen = kept[b, :, t] > 0
        assert not chosen.any() or probability[b, chosen, t].min() >= probability[b, ~chosen, t].max()
    few = source(poses, lengths, likeliest=torch.tensor([0.2, 0.0])).kept
    assert few[0].sum() == round(0.2 * existing[0].sum().item())
    assert torch.equal(few[1].sum(0), existing[1].double().sum(0).clamp(max=source.k))


def test_what_reinforce_knows_of_its_sample():
    model, poses, lengths = tiny("reinforce", noise="gumbel"), walks(2, 4), torch.tensor([4, 2])
    assert isinstance(model.source, ReinforcedGraph)
    same = tiny("identity", noise="gumbel")
    assert torch.equal(model(poses, lengths, seed=1).kept, same(poses, lengths, seed=1).kept)  # the estimator changes no sample
    output = model(poses, lengths, seed=1, likeliest=torch.tensor([0.0, 0.3]), edges_of=torch.tensor([1, 0]))
    assert output.log_probability[0] == 0  # of the likeliest edges, which are not drawn
    assert output.log_probability[1] < 0
    with torch.no_grad():
        assert model(poses, lengths, seed=1).log_probability is None  # nobody asks for it
    ends = torch.tensor([[[-500.0, 500.0, 0.0]]], requires_grad=True)
    for noise in ("logistic", "gumbel"):
        sampling = module.Sampling(noise=noise)
        found = module.log_probability(ends, torch.tensor([[[0.0, 1.0, 1.0]]]), torch.ones(1, 1, 3, dtype=torch.bool), sampling)
        assert found.item() == pytest.approx(module.keep_probability(torch.zeros(()), sampling=sampling).log().item())
        assert torch.autograd.grad(found.sum(), ends)[0].isfinite().all()


def test_the_baseline_is_of_all_processes(monkeypatch: pytest.MonkeyPatch):
    step, losses = step_of(tiny("reinforce")), torch.tensor([1.0, 3.0, 8.0])
    one = torch.ones(())
    assert step._baseline(losses, one).tolist() == [8, 8, 2]  # of the other pair; the last window has no partner
    assert step._baseline(losses[:2], one).tolist() == [0, 0]  # there is no other
    step.processes = 2
    monkeypatch.setattr("torch.distributed.all_reduce", lambda total: total.add_(torch.tensor([10.0, 1.0])))
    assert step._baseline(losses, one).tolist() == [9, 9, pytest.approx(14 / 3)]
    assert step._baseline(losses[:1], 0 * one).tolist() == [0.0]  # it stands in for an empty batch, and counts for nothing
