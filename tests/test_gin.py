"""The graph isomorphism layers against PyTorch Geometric's: outputs, all gradients, weights that go both ways, what is refused."""

import pytest
import torch
from torch import Tensor, nn

from fastst import SkeletonGraph
from fastst.nn import GINConv, GINEConv
from fastst.ops import use_backend

geometric = pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")
from test_pyg import EDGES, WEIGHT, N, assert_same, features  # noqa: E402
from torch_geometric import nn as theirs  # noqa: E402

OPTIONS = [{}, {"eps": 0.5}, {"eps": -0.3, "train_eps": True}, {"aggr": "sum", "flow": "source_to_target"}]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def attributes(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def both(kind: str, **options) -> list[nn.Module]:
    layers = []
    for module in ({"GINConv": GINConv, "GINEConv": GINEConv}[kind], getattr(theirs, kind)):
        torch.manual_seed(0)
        layers.append(module(network(), **options).double())
    assert list(layers[0].state_dict()) == list(layers[1].state_dict())
    for mine, other in zip(*(layer.state_dict().values() for layer in layers), strict=True):
        assert mine.shape == other.shape
    return layers


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gin(options: dict, backend: str):
    layers = both("GINConv", **options)
    with use_backend(backend):
        assert_same(*layers, features(N, 3), EDGES)
        assert_same(*layers, features(2, N, 3), EDGES, (N, N))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("edge_dim", [None, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gine(options: dict, edge_dim: int | None, backend: str):
    layers, D = both("GINEConv", edge_dim=edge_dim, **options), edge_dim or 3
    with use_backend(backend):
        for shape in ((N, 3), (2, N, 3)):
            for edges in (attributes(9, D), attributes(*shape[:-2], 9, D)):
                assert_same(*layers, features(*shape), EDGES, edges, leaves=(edges,))


def test_the_network_is_set_anew_as_theirs_is():
    """By the same random numbers."""
    layers = both("GINConv")
    assert torch.equal(layers[0].nn[0].weight, layers[1].nn[0].weight)
    layers[0].eps.fill_(3)
    layers[0].reset_parameters()
    assert layers[0].eps.item() == 0


@pytest.mark.parametrize("edges", [torch.zeros(2, 0, dtype=torch.int64), torch.tensor([[0], [0]]), torch.tensor([[0, 0], [1, 1]])], ids=str)
def test_hardly_any_edges_or_nodes(edges: Tensor):
    assert_same(*both("GINConv"), features(2, 3), edges)
    assert_same(*both("GINEConv"), features(2, 3), edges, attributes(edges.shape[1], 3))
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert both("GINConv")[0](features(0, 3), none).shape == (0, 2)
    assert both("GINEConv")[0](features(2, 0, 3), none, attributes(0, 3)).shape == (2, 0, 2)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_matrix_brings_features_of_edges_as_its_values(layout: torch.layout):
    """And those beside it come before its own; of one number a GINE doesn't look at them, and in a GIN they weigh the sum."""
    values, beside, x = attributes(6, 3).detach(), attributes(6, 3) + 1, features(N, 3)

    def matrix(values: Tensor) -> Tensor:
        made = torch.sparse_coo_tensor(EDGES[:, :6].flip(0), values, (N, N, *values.shape[1:]), check_invariants=True).coalesce()
        return made.to_sparse_csr() if layout == torch.sparse_csr else made

    ours, other = both("GINEConv")
    ours.load_state_dict(other.state_dict())
    for call in ((x, matrix(values)), (x, matrix(values), beside), (x, matrix(WEIGHT[:6]), beside)):
        torch.testing.assert_close(ours(*call), other(*call))
    assert not torch.equal(ours(x, matrix(values)), ours(x, matrix(values), beside))
    with pytest.raises(ValueError, match="GINEConv: edge_attr is missing"):
        ours(x, matrix(WEIGHT[:6]))
    ours, other = both("GINConv")
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours(x, matrix(WEIGHT[:6])), other(x, matrix(WEIGHT[:6])))


def test_a_sparse_tensor():
    sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed (extra `peers`)")
    x, beside = features(N, 3), attributes(6, 3)
    for values in (attributes(6, 3).detach(), WEIGHT[:6]):
        adjacency = sparse.SparseTensor.from_edge_index(EDGES[:, :6], values, (N, N)).t()
        assert_same(*both("GINEConv"), x, adjacency, beside, leaves=(beside,))
        if values.ndim == 2:
            assert_same(*both("GINEConv"), x, adjacency)
        else:
            assert_same(*both("GINConv"), x, adjacency)


def test_an_edge_index_of_theirs_and_a_pair():
    edges, x, attr = geometric.EdgeIndex(EDGES, sparse_size=(N, N)), features(N, 3), attributes(9, 3)
    assert_same(*both("GINEConv"), x, edges, attr, leaves=(attr,))
    ours, _ = both("GINEConv")
    torch.testing.assert_close(ours((x, x), EDGES, attr), ours(x, EDGES, attr, (N, N)))


def test_a_graph_of_slots_is_its_edge_list():
    graph, x = SkeletonGraph("coco18", 1), torch.randn(2, 5, 18, 3)
    edges = torch.randn(2, 72, 5, 3)
    gin, gine = GINConv(network()), GINEConv(network())
    torch.testing.assert_close(gin(x, graph), gin(x.flatten(1, 2), graph.edge_index(5)).view(2, 5, 18, 2))
    for given in (edges, edges[:, :, :1], edges[0, :, 0]):
        whole = (given[None, :, None] if given.ndim == 2 else given).expand(2, 72, 5, 3)
        wanted = gine(x.flatten(1, 2), graph.edge_index(5), whole[:, graph.edge_mask(5)])
        torch.testing.assert_close(gine(x, graph, given), wanted.view(2, 5, 18, 2))


def test_of_several_dtypes():
    """As tensors of theirs are promoted."""
    for x, edges in ((torch.randn(N, 3), torch.randint(5, (9, 3))), (torch.randn(N, 3), torch.randn(9, 3).bfloat16())):
        ours, other = (layer.float() for layer in both("GINEConv"))
        ours.load_state_dict(other.state_dict())
        torch.testing.assert_close(ours(x, EDGES, edges), other(x, EDGES, edges))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GINConv(network(), aggr="max"), "GINConv: aggr='max' is not supported, only 'add'"),
        (lambda: GINEConv(network(), flow="target_to_source"), "GINEConv: flow='target_to_source' is not supported"),
        (lambda: GINEConv(nn.ReLU(), edge_dim=2), "edge_dim needs an nn with in_features or in_channels"),
        (lambda: GINEConv(network())(torch.randn(N, 3), EDGES, torch.randn(9, 3), (N, 2)), r"GINEConv: size=\(7, 2\) is not that of x"),
        (lambda: GINEConv(network())(torch.randn(N, 3), EDGES), "edge_attr is missing"),
        (lambda: GINEConv(network())(torch.randn(N, 3), EDGES, torch.randn(9, 2)), r"must have the channels of x, 3, got \[9, 2\]; set edge_dim"),
        (lambda: GINEConv(network())(torch.randn(N, 3), EDGES, torch.randn(8, 3)), r"edge_attr must be \[B, E, C\] or \[E, C\] .* E = 9"),
    ],
)
def test_what_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_compiled():
    torch._dynamo.reset()  # which counts what other tests compiled
    graph, x, edges, layer = SkeletonGraph("coco18", 1), torch.randn(2, 4, 18, 3), torch.randn(72, 3), GINEConv(network())
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, graph, edges)
    torch.testing.assert_close(y, layer(x, graph, edges))


def test_features_of_no_edges_at_all():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert GINEConv(torch.nn.Linear(3, 4))(torch.randn(2, N, 3), none, torch.randn(2, 0, 3)).shape == (2, N, 4)
