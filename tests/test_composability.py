"""The operations inside other people's code: function transforms, checkpoints, export, data loaders, and numbers that are none."""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from graphs import BACKENDS, generator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from fastst import SkeletonGraph
from fastst.nn import GraphClassifier
from fastst.ops import (
    attend,
    attend_axis,
    edge_logits,
    feed_forward,
    gcn_norm,
    linear,
    mean_average_distance,
    message,
    propagate,
    sample_edges,
    sample_from_embeddings,
    sample_k_edges,
    use_backend,
)

GRAPH = SkeletonGraph("coco17", 1)
B, T, J, C = 2, 6, 17, 4
WEIGHTS = torch.rand(B, GRAPH.num_slots, T, generator=generator(1))

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "propagate": lambda x: propagate(x, WEIGHTS, GRAPH),
    "edge_logits": lambda x: edge_logits(x, x, GRAPH),
    "attend": lambda x: attend(x, x, torch.ones(2, C // 2), GRAPH, 2),
    "attend_axis": lambda x: attend_axis(x, x, x, 2, "frames"),
    "linear": lambda x: linear(x, torch.eye(3, C), torch.ones(3), norm=(torch.ones(C), torch.ones(C), 1e-5), relu=True),
    "feed_forward": lambda x: feed_forward(x, (torch.ones(C), torch.ones(C), 1e-5), torch.eye(3, C), torch.ones(3), torch.eye(C, 3), torch.ones(C)),
    "message": lambda x: message(x, x[0, 0, GRAPH.src.long()], WEIGHTS, GRAPH),
    "attention_weights": lambda x: attend(x, x, torch.ones(2, C // 2), GRAPH, 2, edge_weight=WEIGHTS * x.sum().square(), dropout=0.5, seed=1),
    "sample_edges": lambda x: sample_edges(WEIGHTS * x.sum(), GRAPH, seed=0, estimator="sigmoid"),
    "sample_from_embeddings": lambda x: sample_from_embeddings(x, x, GRAPH, seed=0),
    "sample_k_edges": lambda x: sample_k_edges(WEIGHTS * x.sum(), GRAPH, 3, seed=0, per="frame")[0],
    "perturbed_top_k": lambda x: sample_k_edges(WEIGHTS * x.sum(), GRAPH, 3, seed=0, per="frame", estimator="imle")[0],
    "gcn_norm": lambda x: gcn_norm(WEIGHTS * x.square().mean(), GRAPH)[0],
    "mean_average_distance": lambda x: mean_average_distance(x),
}
OF_TORCH = tuple(OPERATIONS[name] for name in ("attend_axis", "linear", "feed_forward"))  # on that backend
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def features() -> Tensor:
    return torch.randn(B, T, J, C, generator=generator())


@pytest.mark.parametrize("backend", BACKENDS)
@each_operation
def test_a_checkpoint_changes_nothing(operation, backend: str):
    gradients = []
    with use_backend(backend):
        for run in (operation, lambda x: checkpoint(operation, x, use_reentrant=False)):
            x = features().requires_grad_()
            run(x).square().sum().backward()
            gradients.append(x.grad)
    assert torch.equal(*gradients)


@each_operation
def test_function_transforms_are_refused_in_words(operation):
    """torch would return zeros as the tangent of an operation that has none."""
    x = features()
    with pytest.raises(RuntimeError, match=r"none for torch\.func \(grad, vmap, jvp\)"):
        torch.func.grad(lambda x: operation(x).sum())(x)
    with pytest.raises(RuntimeError, match="the batch dimension instead of vmap"):
        torch.func.vmap(operation)(x[None])
    with pytest.raises(RuntimeError, match="forward mode"):
        torch.func.jvp(operation, (x,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward mode"):
        operation(torch.autograd.forward_ad.make_dual(x, x))


class Recorded(TorchDispatchMode):
    """What the dispatcher is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function.name()))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", BACKENDS)
@each_operation
def test_who_listens_to_the_dispatcher_hears_the_operation_and_its_gradient(operation, backend: str):
    """And where nobody listens, the numbers are the same."""
    if backend == "torch" and operation in OF_TORCH:
        pytest.skip("torch's own layers, which have names of their own")
    results = []
    for mode in (contextlib.nullcontext(), Recorded()):
        x = features().requires_grad_()
        with use_backend(backend), mode:
            y = operation(x)
            y.square().sum().backward()
        results.append((y, x.grad))
    name = f"fastst::{next(key for key, value in OPERATIONS.items() if value is operation)}"
    assert {f"{name}_kernel", f"{name}_backward_kernel"} <= mode.names
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_the_profiler_and_tensor_subclasses_see_the_operation():
    class Marked(torch.Tensor):
        pass

    x = features()
    with torch.profiler.profile() as profile:
        y = propagate(x, WEIGHTS, GRAPH)
        propagate(x.clone().requires_grad_(), WEIGHTS, GRAPH)
    assert {"fastst::propagate", "fastst::propagate_kernel"} <= {event.key for event in profile.key_averages()}
    marked = propagate(x.as_subclass(Marked), WEIGHTS, GRAPH)
    assert isinstance(marked, Marked)
    assert torch.equal(marked.as_subclass(torch.Tensor), y)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize(("walks", "frames"), [(2, 0), (0, 5), (0, 0)])
def test_without_walks_or_frames_there_is_nothing_and_no_gradient(backend: str, walks: int, frames: int):
    x = torch.zeros(walks, frames, J, C, requires_grad=True)
    edges, nodes = (torch.zeros(walks, *shape, requires_grad=True) for shape in ((GRAPH.num_slots, frames), (frames, J)))
    with use_backend(backend):
        weight, self_weight = gcn_norm(edges, GRAPH)
        results = [
            *(weight, self_weight, propagate(x, edges, GRAPH, nodes), edge_logits(x, x, GRAPH), attend(x, x, torch.ones(2, C // 2), GRAPH, 2)),
            *(sample_edges(edges, GRAPH, seed=0), sample_from_embeddings(x, x, GRAPH, seed=0)),
            *(sample_k_edges(edges, GRAPH, 2, seed=0, per=per, estimator=name)[0][0] for per in ("graph", "dst") for name in ("simple", "imle")),
        ]
        gradients = torch.autograd.grad([result.sum() for result in results], [x, edges, nodes])
    assert [result.shape for result in results] == [edges.shape, nodes.shape, x.shape, edges.shape, x.shape, *[edges.shape] * 6]
    assert [gradient.shape for gradient in gradients] == [x.shape, edges.shape, nodes.shape]


def test_tensors_without_numbers_have_shapes():
    x, weights = features().to("meta"), WEIGHTS.to("meta")
    assert propagate(x, weights, GRAPH).shape == (B, T, J, C)
    assert edge_logits(x, x, GRAPH).shape == (B, GRAPH.num_slots, T)


def test_a_batch_of_gradients_and_a_negative_view_are_what_they_are_one_by_one():
    x = features().requires_grad_()
    y = propagate(x, WEIGHTS, GRAPH)
    dy = torch.randn(3, *y.shape, generator=generator(2))
    (together,) = torch.autograd.grad(y, x, dy, retain_graph=True, is_grads_batched=True)
    for one, gradient in zip(together, dy, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(y, x, gradient, retain_graph=True)[0])
    torch.testing.assert_close(propagate(torch._neg_view(x.detach()), WEIGHTS, GRAPH), -y)


def test_the_reference_can_be_transformed():
    x = features()
    with use_backend("reference"):
        gradient = torch.func.grad(lambda x: propagate(x, WEIGHTS, GRAPH).square().sum())(x)
    leaf = x.clone().requires_grad_()
    propagate(leaf, WEIGHTS, GRAPH).square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("backend", BACKENDS)
@each_operation
def test_second_derivatives_are_refused_in_words(operation, backend: str):
    if backend == "torch" and operation in OF_TORCH:
        pytest.skip("torch's own layers have some, or refuse in their own words")
    x = features().requires_grad_()
    with use_backend(backend):
        (gradient,) = torch.autograd.grad(operation(x).square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="can be differentiated once"):
            gradient.square().sum().backward()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_what_is_no_number_is_not_lost(backend: str):
    """Where an edge brings a NaN or an infinity, it arrives, at an edge of weight 0 too. A dense matrix spreads it over its walk, the torch backend
    over the frames in reach (0 times NaN is NaN); the kernels bring it to its neighbours and nowhere else. No walk sees another's."""
    x, weight = features(), WEIGHTS.clone()
    x[0, 3, 5, 1] = float("nan")
    x[0, 3, 5, 2] = float("inf")
    weight[:, ::2] = 0
    neighbours = GRAPH.dense(T)[:, 3 * J + 5].view(T, J).bool()
    with use_backend(backend):
        y = propagate(x, weight, GRAPH)
        logits = edge_logits(x, x, GRAPH)
        attended = attend(x, x, torch.ones(1, C), GRAPH, 1)
    assert y[0, ..., 1][neighbours].isnan().all()
    assert not y[0, ..., 2][neighbours].isfinite().any()
    assert attended[0][neighbours].isnan().any(-1).all()
    source = torch.arange(T) + GRAPH.offset[:, None]
    touched = (source.eq(3) & GRAPH.src.eq(5)[:, None] | torch.arange(T).eq(3) & GRAPH.dst.eq(5)[:, None]) & GRAPH.edge_mask(T)
    assert logits[0][touched].isnan().all()
    for result in (y[1], logits[1], attended[1]):
        assert result.isfinite().all()
    if backend not in ("reference", "torch"):
        assert torch.equal(y[0, ..., 1].isnan(), neighbours)
        assert torch.equal(logits[0].isnan(), touched)


def classifier() -> GraphClassifier:
    torch.manual_seed(0)
    return GraphClassifier("coco17", 3, frames=8, hidden=16, heads=2, layers=2).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_what_was_traced_is_right_for_other_walks(backend: str):
    def function(x: Tensor, logits: Tensor) -> Tensor:
        kept = sample_edges(logits, GRAPH, seed=1) + sample_from_embeddings(x, x, GRAPH, seed=2)
        weight, self_weight = gcn_norm(kept * edge_logits(x, x, GRAPH).sigmoid(), GRAPH)
        return attend(x, propagate(x, weight, GRAPH, self_weight), torch.ones(2, C // 2), GRAPH, 2)

    with use_backend(backend):
        traced = torch.jit.trace(function, (features(), WEIGHTS))
        for walks, frames in ((3, T), (1, T), (B, 9)):
            x, logits = torch.randn(walks, frames, J, C, generator=generator(2)), torch.randn(walks, GRAPH.num_slots, frames, generator=generator(3))
            torch.testing.assert_close(traced(x, logits), function(x, logits))


def test_the_evaluation_model_can_be_exported():
    model, poses = classifier(), torch.randn(2, 8, J, 2)
    frames = torch.export.Dim("T", min=2, max=8)
    program = torch.export.export(model, (poses,), {"evaluation": "threshold"}, dynamic_shapes={"poses": {1: frames}, "evaluation": None})
    for walk in (poses, poses[:, :5].contiguous()):
        torch.testing.assert_close(program.module()(walk, evaluation="threshold").logits, model(walk, evaluation="threshold").logits)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_model_compiles_in_full_for_changing_lengths_of_walks(backend: str):
    model = classifier()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=True, backend=backend)
    for frames in (8, 5, 7):
        walks = torch.randn(2, frames, J, 2)
        torch.testing.assert_close(compiled(walks, seed=1).logits, model(walks, seed=1).logits)


class Propagated(Dataset):
    """Walks that a worker propagates."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        return propagate(features(), WEIGHTS, GRAPH)[i % B]


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_runs_in_the_workers_of_a_data_loader(context: str, workers: int):
    here = propagate(features(), WEIGHTS, GRAPH)  # threads have been started before the fork
    loaded = torch.cat(list(DataLoader(Propagated(), num_workers=workers, multiprocessing_context=context)))
    assert torch.equal(loaded, torch.cat((here, here)))
