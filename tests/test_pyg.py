"""The layers that take the place of PyTorch Geometric's, against these: outputs, all gradients, weights that go both ways, what is refused."""

import functools
import sys
import threading

import pytest
import torch
from torch import Tensor

from fastst import EdgeList, SkeletonGraph, SlotGraph, edge_order
from fastst.nn import GATv2Conv, GCNConv, SAGEConv, edges, pyg
from fastst.nn.edges import graph_of
from fastst.ops import use_backend

geometric = pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")
from torch_geometric import nn as theirs  # noqa: E402

# Loops, an edge twice, a loop of weight 0, nodes without edges into them, and one (6) without any.
EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 2, 1, 5], [1, 0, 1, 1, 0, 3, 1, 2, 5]])
WEIGHT = torch.tensor([0.5, 2.0, 3.0, 0.25, 0.75, 1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
# And with several loops of a node, which count once or each, as a layer has it.
LOOPS = torch.cat((EDGES, torch.tensor([[1, 2, 1, 2], [1, 2, 1, 2]])), 1)
LOOPS_WEIGHT = torch.cat((WEIGHT, torch.tensor([4.0, 0.3, 0.7, 0.2], dtype=torch.float64)))
N = 7


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def assert_same(ours: torch.nn.Module, other: torch.nn.Module, x: Tensor, *rest, leaves: tuple[Tensor, ...] = ()) -> None:
    """Outputs and the gradients of x, of `leaves` and of every parameter."""
    ours.load_state_dict(other.state_dict())
    results = []
    for layer in (ours, other):
        layer.zero_grad()
        y = layer(x, *rest)
        inputs = [x, *leaves, *layer.parameters()]
        results.append((y, *torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape)).sum(), inputs)))
    for found, wanted in zip(*results, strict=True):
        wanted = wanted.nan_to_num()  # their gradient of a node whose degree is 0
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)


GCN = [{}, {"improved": True}, {"add_self_loops": False}, {"normalize": False}, {"bias": False}, {"aggr": "sum", "flow": "source_to_target"}]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", GCN, ids=str)
def test_gcn(options: dict, weighted: bool):
    weight = WEIGHT.clone().requires_grad_() if weighted else None
    layers = [kind(3, 4, **options).double() for kind in (GCNConv, theirs.GCNConv)]
    assert_same(*layers, features(N, 3), EDGES, weight, leaves=(weight,) if weighted else ())
    assert_same(*layers, features(2, N, 3), EDGES, weight)
    assert_same(*layers, features(N, 3), LOOPS, LOOPS_WEIGHT if weighted else None)


def test_weights_of_loops_that_do_not_count_have_no_gradient():
    """By differences: theirs gives the last loop's to all of a node."""
    weight, layer, x = (LOOPS_WEIGHT + 0.1).requires_grad_(), GCNConv(3, 4).double(), features(N, 3)
    assert torch.autograd.gradcheck(lambda w: layer(x, LOOPS, w), weight)
    (gradient,) = torch.autograd.grad(layer(x, LOOPS, weight).square().sum(), weight)
    assert (gradient[[2, 9, 10]] == 0).all()
    assert (gradient[[11, 12]] != 0).all()


GAT = [
    {},
    {"heads": 2},
    {"heads": 2, "concat": False},
    {"heads": 2, "add_self_loops": False, "bias": False, "negative_slope": 0.1},
    {"share_weights": True},
    {"heads": 3, "residual": True},
]


@pytest.mark.parametrize("options", GAT, ids=str)
def test_gatv2(options: dict):
    layers = [kind(3, 4, **options).double() for kind in (GATv2Conv, theirs.GATv2Conv)]
    assert_same(*layers, features(N, 3), EDGES)
    assert_same(*layers, features(N, 3), LOOPS)


SAGE = [
    {},
    {"normalize": True},
    {"root_weight": False},
    {"project": True},
    {"bias": False, "flow": "source_to_target"},
    {"normalize": True, "root_weight": False, "project": True, "bias": False},
]


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])  # the reference has no matrix for an edge that comes twice
@pytest.mark.parametrize("options", SAGE, ids=str)
def test_sage(options: dict, backend: str):
    layers = [kind(3, 4, **options).double() for kind in (SAGEConv, theirs.SAGEConv)]
    assert list(layers[0].state_dict()) == list(layers[1].state_dict())
    with use_backend(backend):
        assert_same(*layers, features(N, 3), EDGES)
        assert_same(*layers, features(2, N, 3), EDGES)
        assert_same(*layers, features(N, 3), EDGES, (N, N))
        assert_same(*layers, features(N, 3), LOOPS)


@pytest.mark.parametrize("T", [1, 2, 4])
def test_sage_is_the_mean_on_a_graph_of_slots(T: int):
    """Of the edges that exist: frames at the ends have fewer. Against a loop over them."""
    graph, layer = SlotGraph([0, 1, 1, 2], [1, 0, 1, 1], [0, -1, 0, 2], 4), SAGEConv(3, 2).double()
    x = features(2, 4, T, 3).transpose(1, 2)  # not contiguous
    wanted = layer.lin_r(x)
    for t in range(T):
        for j in range(4):
            slots = zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)
            senders = [x[:, t + offset, src] for src, dst, offset in slots if dst == j and 0 <= t + offset < T]
            mean = torch.stack(senders).mean(0) if senders else torch.zeros(2, 3, dtype=torch.float64)
            wanted[:, t, j] += layer.lin_l(mean)
    for backend in ("reference", "torch", "cpu", "triton"):
        with use_backend(backend):
            torch.testing.assert_close(layer(x, graph), wanted)


def test_sage_takes_one_set_of_nodes_in_any_form():
    ours, other, x = SAGEConv(3, 4), theirs.SAGEConv(3, 4), torch.randn(N, 3)
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours((x, x), EDGES), other((x, x), EDGES))
    matrix = torch.sparse_coo_tensor(EDGES[:, :6].flip(0), WEIGHT[:6].float(), (N, N), check_invariants=True).coalesce().to_sparse_csr()
    torch.testing.assert_close(ours(x, matrix), other(x, matrix))
    half = x.bfloat16()
    x[1, 0], x[4, 1] = float("inf"), float("nan")
    torch.testing.assert_close(ours(x, EDGES), other(x, EDGES), equal_nan=True)
    assert ours.bfloat16()(half, EDGES).dtype == torch.bfloat16


@pytest.mark.parametrize("edges", [torch.zeros(2, 0, dtype=torch.int64), torch.tensor([[0], [0]]), torch.tensor([[0, 0], [1, 1]], dtype=torch.int32)])
def test_hardly_any_edges(edges: Tensor):
    x = features(2, 3)
    assert_same(GCNConv(3, 1).double(), theirs.GCNConv(3, 1).double(), x, edges.long())
    assert_same(GATv2Conv(3, 1).double(), theirs.GATv2Conv(3, 1).double(), x, edges.long())
    assert_same(SAGEConv(3, 1).double(), theirs.SAGEConv(3, 1).double(), x, edges.long())
    assert torch.equal(GCNConv(3, 1).double()(x, edges).isfinite(), torch.ones(2, 1, dtype=torch.bool))


@pytest.mark.parametrize("options", [{}, {"improved": True}, {"add_self_loops": False}], ids=str)
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_matrix_brings_its_weights_and_loops_come_on_top(layout: torch.layout, options: dict):
    """As theirs makes of it; that it does not look at weights beside the matrix either."""
    index, weight = EDGES[:, :6], WEIGHT[:6]
    matrix = torch.sparse_coo_tensor(index.flip(0), weight, (N, N), check_invariants=True)
    matrix = matrix.to_sparse_csr() if layout == torch.sparse_csr else matrix
    matrix = matrix if layout == torch.sparse_csr else matrix.coalesce()
    ours, other = GCNConv(3, 4, **options).double(), theirs.GCNConv(3, 4, **options).double()
    ours.load_state_dict(other.state_dict())
    x = features(N, 3)
    torch.testing.assert_close(ours(x, matrix), other(x, matrix))
    torch.testing.assert_close(ours(x, matrix, weight + 1), ours(x, matrix))


def test_a_sparse_tensor():
    sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed (extra `peers`)")
    adjacency = sparse.SparseTensor.from_edge_index(EDGES[:, :6], WEIGHT[:6], (N, N)).t()
    for options in ({}, {"improved": True}, {"add_self_loops": False}):
        assert_same(GCNConv(3, 4, **options).double(), theirs.GCNConv(3, 4, **options).double(), features(N, 3), adjacency)
    several = sparse.SparseTensor.from_edge_index(LOOPS, LOOPS_WEIGHT, (N, N)).t()
    assert_same(GCNConv(3, 4).double(), theirs.GCNConv(3, 4).double(), features(N, 3), several)
    assert_same(GATv2Conv(3, 4).double(), theirs.GATv2Conv(3, 4).double(), features(N, 3), adjacency)
    assert_same(SAGEConv(3, 4).double(), theirs.SAGEConv(3, 4).double(), features(N, 3), adjacency)


def test_an_edge_index_of_theirs():
    edges = geometric.EdgeIndex(EDGES, sparse_size=(N, N))
    assert_same(GCNConv(3, 4).double(), theirs.GCNConv(3, 4).double(), features(N, 3), edges)


@pytest.mark.parametrize("layer", [GCNConv(3, 4), GATv2Conv(3, 2, heads=2), SAGEConv(3, 4)], ids=["gcn", "gatv2", "sage"])
def test_a_graph_of_slots_is_its_edge_list(layer: torch.nn.Module):
    graph, x = SkeletonGraph("coco18", 2), torch.randn(2, 5, 18, 3)
    y = layer(x, graph)
    torch.testing.assert_close(y, layer(x.flatten(1, 2), graph.edge_index(5)).view(y.shape))
    torch.testing.assert_close(layer(x[0], graph), y[0])


def test_a_graph_of_slots_with_weights():
    graph, x, layer = SkeletonGraph("coco18", 1), torch.randn(2, 5, 18, 3), GCNConv(3, 4)
    weight = torch.rand(72)
    every = weight[None, :, None].expand(2, -1, 5).contiguous()
    torch.testing.assert_close(layer(x, graph, weight), layer(x, graph, every))
    edges = layer(x.flatten(1, 2), graph.edge_index(5), every[0][graph.edge_mask(5)])
    torch.testing.assert_close(layer(x, graph, weight), edges.view(2, 5, 18, 4))


def test_normalisation_without_weights_is_made_once_for_a_graph(monkeypatch: pytest.MonkeyPatch):
    """And again for another backend, dtype or number of frames, and after a call in inference mode it can be trained."""
    calls = []
    monkeypatch.setattr(pyg, "gcn_norm", lambda *args, right=pyg.gcn_norm, **options: calls.append(1) or right(*args, **options))
    graph, layer = SkeletonGraph("coco18", 1), GCNConv(3, 4)
    x = torch.randn(2, 5, 18, 3)
    with torch.inference_mode():
        layer(x, graph)
    for _ in range(2):
        layer(x, graph).sum().backward()
    assert len(calls) == 1
    layer(x[:, :4], graph)
    layer.double()(x.double(), graph)
    with use_backend("torch"):
        layer(x.double(), graph)
    layer(x.double(), graph, torch.ones(graph.num_slots))
    assert len(calls) == 5


def test_threads_that_share_a_graph():
    """Layers that remember different things of it."""
    graph, x = EdgeList(torch.randint(50, (2, 200)), 50, parallel=True), torch.randn(50, 3)
    layers = [GCNConv(3, 4), SAGEConv(3, 4), GCNConv(3, 4, add_self_loops=False)]
    wanted = [layer(x, graph).detach() for layer in layers]
    errors: list[object] = []

    def work(layer: torch.nn.Module, want: Tensor) -> None:
        with torch.no_grad():
            try:
                errors.extend(call for call in range(300) if not torch.allclose(layer(x, graph), want, atol=1e-5))
            except Exception as error:
                errors.append(error)

    run_together([functools.partial(work, *pair) for pair in zip(layers, wanted, strict=True)])
    assert not errors


def test_edges_that_another_thread_looks_for_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    class Raced(list):
        def remove(self, known: object) -> None:
            super().remove(known)  # the other one's
            super().remove(known)

    monkeypatch.setattr(edges, "_known", Raced())
    graph, _ = graph_of(EDGES, N)
    assert graph_of(EDGES, N)[0] is graph
    assert len(edges._known) == 1


def run_together(works: list) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # that they meet
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("kind", [GCNConv, GATv2Conv, SAGEConv])
def test_any_dimensions_in_front_and_no_nodes_at_all(kind: type):
    ours, other = kind(3, 4).double(), getattr(theirs, kind.__name__)(3, 4).double()
    ours.load_state_dict(other.state_dict())
    x = features(2, 3, N, 3)
    y = ours(x, EDGES)
    torch.testing.assert_close(y[1, 2], other(x[1, 2], EDGES))
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert ours(features(0, 3), none).shape == (0, 4)
    assert ours(features(2, 0, 3), none).shape == (2, 0, 4)


def test_weights_of_every_form():
    ours, other = GCNConv(3, 4, normalize=False), theirs.GCNConv(3, 4, normalize=False)
    ours.load_state_dict(other.state_dict())
    x = torch.randn(N, 3)
    for weight in (WEIGHT.float()[:, None], torch.arange(9), WEIGHT):
        y, wanted = ours(x, EDGES, weight), other(x, EDGES, weight)
        assert y.dtype == wanted.dtype
        torch.testing.assert_close(y, wanted)
    empty = torch.zeros(2, 0, dtype=torch.int64)
    torch.testing.assert_close(ours(x, empty, torch.zeros(0)), other(x, empty, torch.zeros(0)))
    with pytest.raises(ValueError, match=r"edge_weight must be \[E\] or \[B, E\] with E = 9"):
        ours(torch.randn(2, N, 3), EDGES, torch.rand(9, 2))
    for layer in (GCNConv(3, 4, bias=False), theirs.GCNConv(3, 4, bias=False)):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x, EDGES, WEIGHT.float()).dtype == torch.float32


def test_cached_keeps_the_first_graph():
    layer, x = GCNConv(3, 4, cached=True), torch.randn(N, 3)
    y = layer(x, EDGES)
    assert torch.equal(layer(x, EDGES[:, :2]), y)
    layer.reset_parameters()
    assert layer._cache is None
    plain = GCNConv(3, 4, cached=True, normalize=False)  # where theirs keeps nothing
    plain(x, EDGES)
    assert plain._cache is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GCNConv(-1, 4), "GCNConv: in_channels=-1 is not supported, only a whole number of at least 1"),
        (lambda: GCNConv(3, 4, aggr="mean"), "GCNConv: aggr='mean' is not supported, only 'add'"),
        (lambda: GCNConv(3, 4, flow="target_to_source"), "flow='target_to_source' is not supported"),
        (lambda: GCNConv(3, 4, explain=True), "explain=True is not supported"),
        (lambda: GCNConv(3, 4, add_self_loops=True, normalize=False), "add_self_loops needs normalize"),
        (lambda: GATv2Conv((3, -1), 4), r"in_channels=\(3, -1\) is not supported"),
        (lambda: GATv2Conv(3, 4, dropout=1.5), "GATv2Conv: dropout must be from 0 to 1, got 1.5"),
        (lambda: GATv2Conv(3, 4, edge_dim=-1), "GATv2Conv: edge_dim=-1 is not supported, only None or a whole number of at least 1"),
        (lambda: GATv2Conv(3, 4)(torch.randn(N, 3), EDGES, torch.randn(9, 2)), "edge_attr needs a layer with edge_dim"),
        (lambda: GATv2Conv(3, 4, edge_dim=2)(torch.randn(N, 3), EDGES, torch.randn(9, 3)), r"edge_attr must be \[E, edge_dim\] .*, got \[9, 3\]"),
        (
            lambda: GATv2Conv(3, 4, edge_dim=2, fill_value="most")(torch.randn(N, 3), EDGES, torch.randn(9, 2)),
            "fill_value must be a number, .* 'most'",
        ),
        (lambda: GATv2Conv(3, 4)(torch.randn(3, 3), torch.eye(3).to_sparse(), None, True), "are not supported for edges in a matrix"),
        (lambda: SAGEConv(3, 4, aggr="max"), "SAGEConv: aggr='max' is not supported, only 'mean'"),
        (lambda: SAGEConv((3, 3, 3), 4), r"SAGEConv: in_channels=\(3, 3, 3\) is not supported"),
        (lambda: SAGEConv(3, 4, decomposed_layers=2), "SAGEConv: decomposed_layers=2 is not supported, only 1"),
        (lambda: SAGEConv(3, 4)(torch.randn(N, 3), EDGES, (N, 2)), r"size=\(7, 2\) is not that of x, \(7, 7\)"),
        (lambda: GCNConv(3, 4)(torch.randn(3), EDGES), r"GCNConv: x must be \[N, F\] at least, nodes and their features, got \[3\]"),
        (lambda: GCNConv(3, 4)(torch.randn(2, 5, N, 3), EDGES, torch.rand(2, 9)), "edge_weight has a batch of 2, but x one of 10"),
        (lambda: GCNConv(3, 4)(torch.randn(3, 3), EDGES), "edge 4 goes from node 3 to node 0, but the nodes are 0 to 2"),
    ],
)
def test_what_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_graph_is_named():
    with pytest.raises(TypeError, match="edge_index must be a tensor, a SparseTensor or a graph of fastst, got list"):
        GCNConv(3, 4)(torch.randn(2, 3), [[0, 1], [1, 0]])


@pytest.mark.parametrize("many", [0, 1 << 40])
def test_parallel_edges_have_no_matrix(monkeypatch: pytest.MonkeyPatch, many: int):
    """Where an edge does come twice, however this is found."""
    monkeypatch.setattr(edge_order, "_MANY", many)
    with pytest.raises(ValueError, match="has parallel edges"):
        EdgeList(torch.tensor([[0, 1, 0], [1, 1, 1]]), 2, parallel=True).dense()
    assert EdgeList(torch.tensor([[0, 1, 0], [1, 1, 0]]), 2, parallel=True).dense().tolist() == [[1, 0], [1, 1]]


def test_what_has_no_numbers_yet_is_refused_in_words():
    layer, x = GCNConv(3, 4), torch.randn(N, 3)
    with pytest.raises(RuntimeError, match=r"edge_index has no numbers here, as an input of torch\.export"):
        torch.export.export(layer, (x, EDGES))
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace can't follow how edges are sorted"):
        torch.jit.trace(layer, (x, EDGES))


@pytest.mark.parametrize("kind", [GCNConv, GATv2Conv, SAGEConv])
def test_a_graph_of_edges_is_exported_with_the_model(kind: type):
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.graph = kind(3, 4), EdgeList(EDGES, N, parallel=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.graph)

    model, x = Holder().eval(), torch.randn(N, 3)
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(2 * x), model(2 * x))


def test_features_of_no_edges_at_all():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert_same(*[kind(3, 4, edge_dim=2).double() for kind in (GATv2Conv, theirs.GATv2Conv)], features(N, 3), none, features(0, 2))
    assert GATv2Conv(3, 4, edge_dim=2)(torch.randn(2, N, 3), none, torch.randn(2, 0, 2)).shape == (2, N, 4)


def test_second_derivatives_by_the_reference():
    layer, x = GATv2Conv(3, 4).double(), features(N, 3)
    edges = EDGES[:, [0, 1, 3, 4, 8]]
    with use_backend("reference"):
        assert torch.autograd.gradgradcheck(lambda x: layer(x, edges), x)


@pytest.mark.parametrize("layer", [GCNConv(3, 4), GATv2Conv(3, 2, heads=2), SAGEConv(3, 4)], ids=["gcn", "gatv2", "sage"])
def test_compiled(layer: torch.nn.Module):
    """In full on a graph of slots, before anything else has used it; around the sorting of edges on an edge_index."""
    torch._dynamo.reset()  # which counts what other tests compiled
    graph, x = SkeletonGraph("coco18", 1), torch.randn(2, 4, 18, 3)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, graph)
    torch.testing.assert_close(y, layer(x, graph))
    edges, x = EDGES.clone(), torch.randn(N, 3)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(x, edges), layer(x, edges))


ATTR = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
FILLS = ["mean", "add", "mul", "min", "max", 0.5, torch.tensor([1.0, -2.0])]


@pytest.mark.parametrize(
    "options",
    [
        *({"fill_value": fill_value} for fill_value in FILLS),
        {"heads": 2, "concat": False, "residual": True},
        {"heads": 3, "add_self_loops": False, "share_weights": True, "dropout": 0.0},
    ],
    ids=str,
)
def test_gatv2_with_features_of_edges(options: dict):
    layers = [kind(3, 4, edge_dim=2, **options).double() for kind in (GATv2Conv, theirs.GATv2Conv)]
    assert list(layers[0].state_dict()) == list(layers[1].state_dict())
    attr = ATTR.clone().requires_grad_()
    assert_same(*layers, features(N, 3), EDGES, attr, leaves=(attr,))
    assert_same(*layers, features(N, 3), EDGES, ATTR[:, :2])
    assert_same(
        *[kind(3, 4, edge_dim=1, **{**options, "fill_value": "mean"}).double() for kind in (GATv2Conv, theirs.GATv2Conv)],
        features(N, 3),
        EDGES,
        WEIGHT,
    )


@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_gatv2_gives_its_weights_back(edge_dim: int | None, add_self_loops: bool):
    """With the edges that they are of, in the same order; differentiable."""
    ours, other = (kind(3, 4, heads=2, edge_dim=edge_dim, add_self_loops=add_self_loops).double() for kind in (GATv2Conv, theirs.GATv2Conv))
    ours.load_state_dict(other.state_dict())
    found = []
    for layer in (ours, other):
        x = features(N, 3)
        y, (edges, alpha) = layer(x, EDGES, None if edge_dim is None else ATTR, return_attention_weights=True)
        gradient = torch.autograd.grad((alpha * torch.arange(alpha.numel()).view(alpha.shape)).sum() + y.sum(), [x, layer.att])
        found.append((edges, y, alpha, *gradient))
    assert torch.equal(found[0][0], found[1][0])
    for one, wanted in zip(*found, strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-10, rtol=1e-8)
    assert isinstance(ours(features(N, 3), EDGES, return_attention_weights=False), Tensor)
    assert ours(features(2, N, 3), EDGES, return_attention_weights=True)[1][1].shape == (2, *found[0][2].shape)


def test_gatv2_drops_what_the_others_drop_on_average():
    torch.manual_seed(0)
    edges = torch.stack((torch.arange(1, 2001), torch.zeros(2000, dtype=torch.int64)))
    ours, other = (kind(3, 2, heads=2, dropout=0.4) for kind in (GATv2Conv, theirs.GATv2Conv))
    ours.load_state_dict(other.state_dict())
    x = torch.randn(2001, 3)
    torch.testing.assert_close(ours.eval()(x, edges), other.eval()(x, edges))
    found = []
    for layer in (ours.train(), other.train()):
        _, (_, alpha) = layer(x, edges, return_attention_weights=True)
        _, (_, again) = layer(x, edges, return_attention_weights=True)
        assert not torch.equal(alpha, again)
        found.append((alpha, (alpha != 0).double().mean().item()))
    assert all(abs(share - 0.6) < 5 * (0.24 / found[0][0].numel()) ** 0.5 for _, share in found)
    both = (found[0][0] != 0) & (found[1][0] != 0)
    torch.testing.assert_close(found[0][0][both], found[1][0][both])
    torch.manual_seed(7)
    first = ours(x, edges)
    torch.manual_seed(7)
    assert torch.equal(ours(x, edges), first)


@pytest.mark.parametrize("fill_value", FILLS, ids=str)
@pytest.mark.parametrize("form", ["[P, D]", "[B, P, 1, D]", "[B, P, T, D]"])
def test_features_of_edges_on_a_graph_of_slots_are_those_of_its_edge_list(form: str, fill_value):
    """A loop's are those of the edges that exist in its frame."""
    graph, layer = SlotGraph([0, 1, 1, 2, 1], [1, 0, 1, 1, 1], [0, -1, 0, 2, -1], 4), GATv2Conv(3, 2, heads=2, edge_dim=2, fill_value=fill_value)
    x, whole = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 5, 2)
    attr = {"[P, D]": whole[0, :, 0], "[B, P, 1, D]": whole[:, :, :1], "[B, P, T, D]": whole}[form]
    every = (attr[None, :, None] if attr.ndim == 2 else attr).expand(2, 5, 5, 2)
    y, (looped, alpha) = layer(x, graph, attr, return_attention_weights=True)
    for b in range(2):
        wanted = layer(x[b].flatten(0, 1), graph.edge_index(5), every[b][graph.edge_mask(5)])
        torch.testing.assert_close(y[b].flatten(0, 1), wanted)
    assert alpha.shape == (2, looped.num_slots, 5, 2)
    assert looped.num_slots == 4 + 4
