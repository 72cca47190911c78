from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from graphs import generator
from torch import Tensor

from fastst import SkeletonGraph
from fastst.ops import Sampling, keep_probability, sample_edges, sample_from_embeddings

GRAPH = SkeletonGraph("coco17", 1)
T = 6
LOGITS = torch.randn(2, GRAPH.num_slots, T, generator=generator())
NODES = torch.randn(2, T, 17, 4, generator=generator(1))
OTHER = {"beta": 1.3, "tau": 0.7, "eps": 1e-9, "noise": "logistic", "estimator": "sigmoid"}

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "sample_edges": lambda x, **options: sample_edges(LOGITS * x.mean(), GRAPH, seed=1, **options),
    "sample_from_embeddings": lambda x, **options: sample_from_embeddings(x, x, GRAPH, seed=1, **options),
    "keep_probability": lambda x, **options: keep_probability(x, **options),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def run(operation: Callable[..., Tensor], **options) -> tuple[Tensor, Tensor]:
    x = NODES.clone().requires_grad_()
    y = operation(x, **options)
    return y, torch.autograd.grad(y.sum(), x)[0]


@each_operation
def test_one_value_does_what_the_keywords_do(operation):
    value, keywords, default = (run(operation, **o) for o in ({"sampling": Sampling(**OTHER)}, OTHER, {}))
    assert all(torch.equal(*pair) for pair in zip(value, keywords, strict=True))
    assert not torch.equal(value[1], default[1])  # the options were looked at


@each_operation
def test_without_options_they_are_those_of_the_paper(operation):
    paper = Sampling(beta=2.0, tau=2.0, eps=1e-10, noise="gumbel", estimator="identity")
    assert paper == Sampling()
    assert all(torch.equal(*pair) for pair in zip(run(operation), run(operation, sampling=paper), strict=True))


@each_operation
def test_what_is_given_twice_or_does_not_exist_is_refused(operation):
    with pytest.raises(ValueError, match=r"not both; got sampling and beta$"):
        operation(NODES, sampling=Sampling(), beta=2.0)
    with pytest.raises(TypeError, match=r"no option 'gamma'; those of sampling are beta, tau, eps, noise, estimator"):
        operation(NODES, gamma=2.0)
    with pytest.raises(TypeError, match="sampling must be a Sampling, got dict"):
        operation(NODES, sampling=OTHER)


@each_operation
def test_both_forms_compile_in_full(operation):
    """With a value made inside, one from outside, and keywords."""
    value = Sampling(**OTHER)
    wanted = operation(NODES, sampling=value)
    for function in (
        lambda x: operation(x, sampling=Sampling(**OTHER)),
        lambda x: operation(x, sampling=value),
        lambda x: operation(x, **OTHER),
    ):
        assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(NODES), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0, got 0.0"),
        ({"tau": -1.0}, "tau must be above 0, got -1.0"),
        ({"tau": float("nan")}, "tau must be above 0, got nan"),
        ({"eps": 0.0}, "eps must be above 0, got 0.0"),
        ({"eps": 1e-3}, "eps must be at most 2⁻²⁴ = 5.96e-08, so that"),
        ({"noise": "normal"}, "noise must be one of gumbel, logistic, got 'normal'"),
        ({"estimator": "none"}, "estimator must be one of identity, sigmoid, got 'none'"),
    ],
)
def test_a_value_checks_itself(change, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**change)


def test_a_value_is_what_its_numbers_say():
    for value in (Sampling(), Sampling(**OTHER), Sampling(beta=3, noise="logistic", eps=0.5)):
        assert Sampling.of(value.numbers()) == value
    assert hash(Sampling(**OTHER)) == hash(Sampling(**OTHER))


@pytest.mark.parametrize("name", ["sample_edges", "sample_from_embeddings"])
def test_another_seed_in_a_tensor_compiles_nothing_anew(name: str):
    def function(x: Tensor, seed: Tensor) -> Tensor:
        if name == "sample_edges":
            return sample_edges(LOGITS * x.mean(), GRAPH, seed=seed)
        return sample_from_embeddings(x, x, GRAPH, seed=seed)

    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    samples = [compiled(NODES, torch.tensor(seed)) for seed in (1, 2, -(2**62))]
    assert counter.frame_count == 1
    assert all(torch.equal(found, function(NODES, seed)) for found, seed in zip(samples, (1, 2, -(2**62)), strict=True))
    assert not torch.equal(samples[0], samples[1])


@pytest.mark.parametrize("name", ["beta", "tau", "eps"])
def test_a_tensor_is_a_number_that_gets_no_gradient(name: str):
    value = torch.tensor(1e-9 if name == "eps" else 1.5, dtype=torch.float64)
    assert Sampling(**{name: value}) == Sampling(**{name: value.item()})
    with pytest.raises(ValueError, match=rf"{name} gets no gradient; give {name}.detach\(\)"):
        Sampling(**{name: value.requires_grad_()})
    with pytest.raises(ValueError, match=rf"{name} must be one number, got a tensor of shape \[2\]"):
        Sampling(**{name: torch.ones(2)})
