"""A graph's own loops are the nodes' self-loops, as in PyTorch Geometric: never counted twice, never sampled away."""

import pytest
import torch
from graphs import BACKENDS
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph, SlotGraph
from fastst.ops import attend, gcn_norm, propagate, sample_edges, sample_from_embeddings, use_backend

LOOPS = torch.tensor([[0, 1, 1, 2, 0, 3], [1, 0, 1, 1, 0, 3]])  # nodes 0, 1 and 3 bring a loop, 2 has neither a loop nor an edge into it


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def edges_weighted() -> tuple[EdgeList, Tensor]:
    return EdgeList(LOOPS, 5), torch.tensor([[0.5, 2.0, 3.0, 0.25, 0.75, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("improved", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_gcn_norm_is_that_of_pytorch_geometric(backend: str, add_self_loops: bool, improved: bool):
    geometric = pytest.importorskip("torch_geometric.nn.conv.gcn_conv", reason="torch-geometric is not installed")
    graph, weight = edges_weighted()
    x = torch.randn(1, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index, values = geometric.gcn_norm(LOOPS, weight[0], 5, improved, add_self_loops, dtype=torch.float64)
    wanted = torch.zeros(5, 3, dtype=torch.float64).index_add(0, index[1], values[:, None] * x[0, index[0]])
    with use_backend(backend):
        y = propagate(x, *_with_graph(gcn_norm(weight, graph, add_self_loops=add_self_loops, improved=improved), graph))
    torch.testing.assert_close(y[0], wanted)


def _with_graph(weights: tuple[Tensor, Tensor], graph: EdgeList | SlotGraph) -> tuple[Tensor, EdgeList | SlotGraph, Tensor]:
    return weights[0], graph, weights[1]


def test_gcn_norm_by_hand():
    """A loop of weight 1 and one edge: two in all, and not three."""
    graph = EdgeList(torch.tensor([[0, 1], [0, 0]]), 2)
    weight, self_weight = gcn_norm(torch.ones(1, 2), graph)
    torch.testing.assert_close(weight, torch.tensor([[0.5, 0.5**0.5]]))
    torch.testing.assert_close(self_weight, torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_added_loops_gradients_are_those_of_the_reference(backend: str):
    for graph in (edges_weighted()[0], SlotGraph([0, 1, 1], [0, 0, 1], [0, -1, 1], 3)):
        kept = torch.rand(2, graph.num_slots, *([] if isinstance(graph, EdgeList) else [4]), dtype=torch.float64) + 0.1
        found = []
        for name in ("reference", backend):
            for flags in ({"add_self_loops": False}, {"improved": True}):
                leaf = kept.clone().requires_grad_()
                with use_backend(name):
                    outputs = gcn_norm(leaf, graph, **flags)
                sum((y * torch.arange(y.numel()).view(y.shape)).sum() for y in outputs).backward()
                found.append((*outputs, leaf.grad))
        for wanted, got in zip(found[:2], found[2:], strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_attend_is_gatv2conv(backend: str, add_self_loops: bool):
    geometric = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")
    layer = geometric.GATv2Conv(4, 2, heads=2, bias=False, add_self_loops=add_self_loops).double()
    graph, x = EdgeList(LOOPS, 5), torch.randn(1, 5, 4, dtype=torch.float64)
    with use_backend(backend):
        y = attend(layer.lin_l(x), layer.lin_r(x), layer.att[0], graph, 2, add_self_loops=add_self_loops)
    torch.testing.assert_close(y[0], layer(x[0], LOOPS))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_every_node_attends_to_itself_on_a_skeleton(backend: str):
    """A joint alone in its walk gets its own features."""
    graph = SkeletonGraph(Layout.custom(["hip"], [], "single"), 1)
    x = torch.randn(2, 3, 1, 4)
    with use_backend(backend):
        y = attend(x, x, torch.randn(1, 4), graph, 1, lengths=torch.tensor([1, 0]), add_self_loops=True)
    torch.testing.assert_close(y[0, 0], x[0, 0])
    assert not y[1].any()
    assert not y[0, 1:].any()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_loops_are_never_sampled_away(backend: str):
    graph, lengths = SlotGraph([0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, -1], 2), torch.tensor([3, 2])
    logits = torch.full((2, 4, 3), -1e3, requires_grad=True)
    with use_backend(backend):
        kept = sample_edges(logits, graph, seed=1, noise="logistic", estimator="sigmoid", tau=1.0, lengths=lengths)
    frames = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    assert torch.equal(kept, torch.stack((frames, 0 * frames, frames, 0 * frames), 1))
    kept.sum().backward()
    assert not logits.grad[:, [0, 2]].any()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_information_term_is_that_of_the_other_edges(backend: str, with_bias: bool):
    graph = SlotGraph([1, 0, 2, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, -1], 4)
    rest = graph.without_loops
    assert (rest.src.tolist(), rest.dst.tolist(), rest.offset.tolist()) == ([1, 2, 0], [0, 1, 1], [0, 1, -1])
    others = [0, 2, 4]
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 4, 4, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    bias = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_() if with_bias else None
    leaves = [leaf for leaf in (q, k, bias) if leaf is not None]
    known = {"seed": 3, "prior": 0.3, "noise": "logistic", "estimator": "sigmoid", "tau": 1.0, "lengths": torch.tensor([4, 1])}
    with use_backend(backend):
        kept, term = sample_from_embeddings(q, k, graph, bias, **known)
        _, wanted = sample_from_embeddings(q, k, rest, None if bias is None else bias[others], **known)
    assert kept[0, [1, 3]].eq(1).all()
    torch.testing.assert_close(term, wanted)
    found = torch.autograd.grad(term.sum(), leaves)
    for got, want in zip(found, torch.autograd.grad(wanted.sum(), leaves), strict=True):
        torch.testing.assert_close(got, want)


def test_with_and_without_loops():
    graph = EdgeList(LOOPS, 5)
    assert graph.with_loops.edge_index().tolist() == [[0, 1, 1, 2, 0, 3, 2, 4], [1, 0, 1, 1, 0, 3, 2, 4]]
    assert graph.without_loops.edge_index().tolist() == [[0, 1, 2], [1, 0, 1]]
    assert graph.with_loops.with_loops is graph.with_loops
    skeleton = SkeletonGraph("coco18", 1)
    assert skeleton.without_loops is skeleton
    assert skeleton.with_loops.num_slots == 72 + 18
    assert len(skeleton.with_loops.loops) == 18


def test_several_loops_of_a_node_have_no_information_term():
    graph, q = EdgeList(torch.tensor([[0, 0, 1], [0, 0, 0]]), 2, parallel=True), torch.randn(1, 2, 3)
    assert sample_from_embeddings(q, q, graph, seed=0)[0, :2].tolist() == [1, 1]
    with pytest.raises(ValueError, match="has nodes with several loops, for which there is no information term"):
        sample_from_embeddings(q, q, graph, seed=0, prior=0.5)
