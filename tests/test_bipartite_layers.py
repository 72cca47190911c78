"""Layers between two kinds of nodes, against PyTorch Geometric's: outputs and all gradients, loops, sizes, what is refused."""

import pytest
import torch
from torch import Tensor, nn

from fastst import EdgeList, SlotGraph
from fastst.nn import GATv2Conv, GCNConv, GINConv, GINEConv, GraphSimplifier, SAGEConv, patch
from fastst.nn.edges import Sides
from fastst.nn.sources import FixedGraph
from fastst.nn.stand_in import call_weighed
from fastst.nn.upstream import Upstream
from fastst.ops import use_backend

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")
from test_pyg import features
from torch_geometric import nn as theirs

# Six nodes send, four receive; (1, 1) twice, and one that receives nothing. The other way round more receive.
EDGES = torch.tensor([[0, 1, 1, 5, 4, 2, 1], [1, 1, 1, 0, 3, 1, 0]])
WAYS = [(EDGES, 6, 4), (EDGES.flip(0).contiguous(), 4, 6)]
both_ways = pytest.mark.parametrize(("edges", "n", "m"), WAYS, ids=["6 to 4", "4 to 6"])


def assert_same(ours: nn.Module, other: nn.Module, inputs: tuple[Tensor, ...], call) -> None:
    """Outputs, and the gradients of the inputs and of every parameter."""
    ours.load_state_dict(other.state_dict())
    results = []
    for layer in (ours, other):
        y = call(layer)
        leaves = [*inputs, *layer.parameters()]
        gradients = torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape)).sum(), leaves, allow_unused=True)
        results.append([y, *(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True))])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
@pytest.mark.parametrize("options", [{}, {"project": True, "normalize": True}, {"root_weight": False}], ids=str)
@both_ways
def test_sage(edges: Tensor, n: int, m: int, options: dict, backend: str):
    layers = [kind((3, 5), 4, **options).double() for kind in (SAGEConv, theirs.SAGEConv)]
    src, dst = features(n, 3), features(m, 5)
    with use_backend(backend):
        assert_same(*layers, (src, dst), lambda layer: layer((src, dst), edges))
        assert_same(*layers, (src, dst), lambda layer: layer((src, dst), edges, (n, m)))
        assert_same(*layers, (src,), lambda layer: layer((src, None), edges, (None, m)))
        assert_same(*layers, (src,), lambda layer: layer((src, None), edges.clamp(max=n - 1)))


GAT = [
    {"heads": 2},
    {"add_self_loops": False, "residual": True, "concat": False, "heads": 2},
    {"edge_dim": 2, "fill_value": 0.5, "residual": True},
    {"edge_dim": 2, "add_self_loops": False},
]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("options", GAT, ids=str)
@both_ways
def test_gatv2(edges: Tensor, n: int, m: int, options: dict, backend: str):
    """Theirs has loops between sender i and receiver i."""
    layers = [kind((3, 5), 4, **options).double() for kind in (GATv2Conv, theirs.GATv2Conv)]
    src, dst, attr = features(n, 3), features(m, 5), features(7, 2) if "edge_dim" in options else None
    leaves = (src, dst) if attr is None else (src, dst, attr)
    with use_backend(backend):
        assert_same(*layers, leaves, lambda layer: layer((src, dst), edges, attr))
        assert_same(*layers, leaves, lambda layer: layer((src, dst), edges, attr, return_attention_weights=True)[0])
        (_, (looped, alpha)), (_, (other_looped, other_alpha)) = (layer((src, dst), edges, attr, return_attention_weights=True) for layer in layers)
    assert torch.equal(looped, other_looped)
    torch.testing.assert_close(alpha, other_alpha)


@pytest.mark.parametrize("fill_value", ["mean", "max"])
def test_features_of_loops_are_those_of_the_other_edges(fill_value: str):
    """Of fewer receivers than senders: for more theirs indexes beyond its features."""
    layers = [kind((3, 5), 4, edge_dim=2, fill_value=fill_value).double() for kind in (GATv2Conv, theirs.GATv2Conv)]
    src, dst, attr = features(6, 3), features(4, 5), features(7, 2)
    assert_same(*layers, (src, dst, attr), lambda layer: layer((src, dst), EDGES, attr))


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])
@both_ways
def test_gin_and_gine(edges: Tensor, n: int, m: int, backend: str):
    src, dst, attr = features(n, 3), features(m, 3), features(7, 2)
    with use_backend(backend):
        layers = [kind(nn.Linear(3, 4), eps=0.5, train_eps=True).double() for kind in (GINConv, theirs.GINConv)]
        assert_same(*layers, (src, dst), lambda layer: layer((src, dst), edges, (n, m)))
        assert_same(*layers, (src,), lambda layer: layer((src, None), edges, (n, m)))
        layers = [kind(nn.Linear(3, 4), train_eps=True, edge_dim=2).double() for kind in (GINEConv, theirs.GINEConv)]
        assert_same(*layers, (src, dst, attr), lambda layer: layer((src, dst), edges, attr))


def test_edges_in_a_matrix_of_both_kinds():
    src, dst = features(6, 3), features(4, 5)
    matrix = torch.sparse_coo_tensor(EDGES[:, [0, 1, 3, 4, 5]].flip(0), torch.rand(5, dtype=torch.float64), (4, 6), check_invariants=True).coalesce()
    layers = [kind((3, 5), 4).double() for kind in (SAGEConv, theirs.SAGEConv)]
    assert_same(*layers, (src, dst), lambda layer: layer((src, dst), matrix.to_sparse_csr()))
    sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed (extra `peers`)")
    adjacency = sparse.SparseTensor.from_edge_index(EDGES[:, [0, 1, 3, 4, 5]], None, (6, 4)).t()
    for kinds in ((SAGEConv, theirs.SAGEConv), (GATv2Conv, theirs.GATv2Conv)):
        assert_same(*(kind((3, 5), 4).double() for kind in kinds), (src, dst), lambda layer: layer((src, dst), adjacency))


def test_nobody_sends_or_nobody_receives():
    layers = [kind((3, 5), 4) for kind in (SAGEConv, theirs.SAGEConv)]
    layers[0].load_state_dict(layers[1].state_dict())
    none = torch.zeros(2, 0, dtype=torch.int64)
    for n, m in ((0, 4), (6, 0), (6, 4)):
        pair = torch.randn(n, 3), torch.randn(m, 5)
        torch.testing.assert_close(*(layer(pair, none) for layer in layers))
        assert GATv2Conv((3, 5), 4)(pair, none).shape == (m, 4)


def test_a_batch_and_kept_edges():
    src, dst, kept = features(2, 6, 3), features(2, 4, 5), torch.tensor([1.0, 1, 1, 0, 1, 0, 1], dtype=torch.float64)
    for layer in (SAGEConv((3, 5), 4).double(), GATv2Conv((3, 5), 4).double()):
        y = layer((src, dst), EDGES)
        for b in range(2):
            torch.testing.assert_close(y[b], layer((src[b], dst[b]), EDGES))
        weighed = call_weighed(layer, kept, EdgeList(EDGES, (6, 4), parallel=True), (src, dst), EDGES)
        torch.testing.assert_close(weighed, layer((src, dst), EDGES[:, kept > 0]))


@pytest.mark.parametrize(
    "layer", [SAGEConv((3, 5), 4), GATv2Conv((3, 5), 4, add_self_loops=False), GINConv(nn.Linear(3, 4))], ids=["sage", "gat", "gin"]
)
def test_slots_with_a_stride_are_their_edge_list(layer: nn.Module):
    graph = SlotGraph([0, 2, 1, 2, 0], [0, 1, 0, 0, 1], [0, -1, 1, 2, -3], 3, 2, stride=2)
    src, dst = torch.randn(2, 5, 3, 3), torch.randn(2, 3, 2, 3 if isinstance(layer, GINConv) else 5)
    y = layer((src, dst), graph)
    wanted = layer((src.flatten(1, 2), dst.flatten(1, 2)), graph.edge_index(5))
    torch.testing.assert_close(y, wanted.view(y.shape))
    torch.testing.assert_close(layer((src[0], dst[0]), graph), y[0])


def test_a_patched_layer_is_the_same(monkeypatch):
    monkeypatch.setattr(SAGEConv, "few", 0)
    model = nn.ModuleList([theirs.SAGEConv((3, 5), 4), theirs.SAGEConv((-1, -1), 4, root_weight=False), theirs.GATv2Conv((3, 5), 4)])
    pair = torch.randn(6, 3), torch.randn(4, 5)
    wanted = [layer(pair, EDGES) for layer in model]
    patch(model)
    assert all(isinstance(layer, (SAGEConv, GATv2Conv)) for layer in model)
    for layer, y in zip(model, wanted, strict=True):
        layer.original = ()
        torch.testing.assert_close(layer(pair, EDGES), y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("edges_of_a_node", [1, 2])
def test_few_edges_go_to_the_original(edges_of_a_node: int, monkeypatch):
    """Both sides' sums cost time, whether there are edges or not."""
    monkeypatch.setattr(SAGEConv, "few", 0)
    model, pair, made = nn.ModuleList([theirs.SAGEConv(3, 4), theirs.GATv2Conv(3, 4)]), (torch.randn(6, 3), torch.randn(4, 3)), []
    patch(model)
    graph = Sides.graph
    monkeypatch.setattr(Sides, "graph", lambda self, layer, edges: (made.append(layer), graph(self, layer, edges))[1])
    for layer in model:
        layer(pair, torch.zeros(2, 6 * edges_of_a_node, dtype=torch.int64))
    assert made == (["SAGEConv", "GATv2Conv"] if edges_of_a_node == 2 else [])


GRAPH, PAIR = EdgeList(EDGES, (6, 4), parallel=True), (torch.randn(6, 3), torch.randn(4, 3))
STRIDED = SlotGraph([0], [0], [0], 2, 2, stride=2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SAGEConv((3, 0), 4), ValueError, r"SAGEConv: in_channels=\(3, 0\) is not supported, only a whole number of at least 1, or two"),
        (lambda: SAGEConv(3, 4)(PAIR, EDGES, (6, 5)), ValueError, r"SAGEConv: size=\(6, 5\) is not that of x, \(6, 4\)"),
        (lambda: SAGEConv(3, 4)([1, 2], EDGES), TypeError, "SAGEConv: x must be a tensor or a pair of tensors, got list"),
        (lambda: GINConv(nn.Linear(3, 4))(PAIR[0], GRAPH), ValueError, "GINConv: x must be a pair of features"),
        (lambda: SAGEConv(3, 4)((PAIR[0], PAIR[0][:3]), GRAPH), ValueError, "SAGEConv: x is of 6 and 3 nodes, but EdgeList.* goes from 6 to 4"),
        (lambda: SAGEConv(3, 4)(PAIR, EDGES.flip(0)), ValueError, "goes from node 0 to node 5, but the nodes that send"),
        (lambda: GATv2Conv(3, 4)((PAIR[0], None), EDGES), ValueError, "GATv2Conv: x needs the features of both kinds of nodes, got None"),
        (lambda: GATv2Conv(3, 4)((torch.randn(4, 2, 3), torch.randn(2, 2, 3)), STRIDED), ValueError, "add_self_loops=True is not supported for Slot"),
        (
            lambda: SAGEConv(3, 4)((torch.randn(4, 2, 3), torch.randn(4, 2, 3)), STRIDED),
            ValueError,
            "SAGEConv: x has 4 and 4 frames, but of 2 frames that send one receives",
        ),
        (lambda: GCNConv(3, 4)(PAIR[0], GRAPH), ValueError, r"gcn_norm is not for EdgeList\(7 edges, 6 to 4 nodes\)"),
        (lambda: GraphSimplifier(nn.Linear(3, 4), GRAPH, in_channels=3), ValueError, "GraphSimplifier is not for EdgeList.*; "),
        (lambda: FixedGraph(STRIDED), ValueError, "FixedGraph is not for SlotGraph"),
        (lambda: Upstream(STRIDED, 3, 4, 5, 1, 1, "full"), ValueError, "Upstream is not for SlotGraph"),
    ],
)
def test_what_is_refused(make, error, message: str):
    with pytest.raises(error, match=message):
        make()
