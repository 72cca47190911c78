"""How models take the kept edges of a `GraphSimplifier`: layers on them against the originals on fewer edges, and which models are refused."""

import copy
import dataclasses
import threading
import types

import pytest
import torch
from graphs import generator
from test_simplifier import BATCH, EDGES, Convolutions, E, N, Weighted, features
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastst import EdgeList, SlotGraph
from fastst.nn import EdgeScores, GATv2Conv, GCNConv, GraphSimplifier, patch
from fastst.nn.stand_in import StandIn, call_weighed

theirs = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")
from torch_geometric import utils as geometric_utils  # noqa: E402


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


LAYERS = {
    "GATv2Conv": (lambda: theirs.GATv2Conv(3, 4, heads=2), False),
    "GATv2Conv with features": (lambda: theirs.GATv2Conv(3, 4, heads=2, edge_dim=2, fill_value=0.5), True),
    "GATv2Conv with features, of loops the mean": (lambda: theirs.GATv2Conv(3, 4, heads=2, edge_dim=2), True),
    "GATv2Conv with features, of loops the sum": (lambda: theirs.GATv2Conv(3, 4, heads=2, edge_dim=2, fill_value="add"), True),
    "GATv2Conv without loops": (lambda: theirs.GATv2Conv(3, 4, add_self_loops=False, edge_dim=2), True),
    "GINConv": (lambda: theirs.GINConv(nn.Linear(3, 4), eps=0.3), False),
    "GINEConv": (lambda: theirs.GINEConv(nn.Linear(3, 4), edge_dim=2), True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_with_kept_edges_is_the_original_on_these(name: str):
    """Outputs and gradients; and a removed edge has a gradient of its own, with which it can come back."""
    make, has_features = LAYERS[name]
    layer = make().double()
    model, x, attr = nn.Sequential(layer), features(N, 3).requires_grad_(), features(EDGES.shape[1], 2)
    stays = (torch.rand(EDGES.shape[1], generator=generator(2)) > 0.4) | (EDGES[0] == EDGES[1])
    assert not stays.all()
    more, fewer = ((attr,), (attr[stays],)) if has_features else ((), ())
    wanted = layer(x, EDGES[:, stays], *fewer)
    (dwanted,) = torch.autograd.grad(wanted.square().sum(), x)
    patch(model)
    assert isinstance(model[0], StandIn)
    kept = stays.double().requires_grad_()
    found = call_weighed(model[0], kept, EdgeList(EDGES, N, parallel=True), x, EDGES, *more)
    dfound, dkept = torch.autograd.grad(found.square().sum(), (x, kept))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(dfound, dwanted)
    assert (dkept[~stays] != 0).any()


def test_features_of_loops_that_can_not_be_weighed_are_refused():
    layer = GATv2Conv(3, 4, edge_dim=2, fill_value="max")
    with pytest.raises(ValueError, match="fill_value='max' has no meaning for kept edges, which have weights"):
        call_weighed(layer, torch.ones(E), EdgeList(EDGES, N, parallel=True), torch.randn(N, 3), EDGES, torch.randn(E, 2))


def test_features_of_loops_on_slots_are_those_of_kept_edges():
    """Of those that exist in the frame; a node that keeps none has 0."""
    graph, layer = SlotGraph([0, 1, 1, 2, 1], [1, 0, 1, 1, 1], [0, -1, 0, 2, -1], 4), GATv2Conv(3, 2, heads=2, edge_dim=2).double()
    x, attr = features(2, 5, 4, 3), features(2, 5, 5, 2)
    kept = (torch.rand(2, 5, 5, generator=generator()) > 0.4).double() * graph.edge_mask(5)
    kept[:, 2] = 1  # a loop
    y = call_weighed(layer, kept, graph, x, graph, attr)
    for b in range(2):
        stays = kept[b][graph.edge_mask(5)] == 1
        edges = graph.edge_index(5)[:, stays]
        torch.testing.assert_close(y[b].flatten(0, 1), layer(x[b].flatten(0, 1), edges, attr[b][graph.edge_mask(5)][stays]))


class Rearranged(nn.Module):
    """A model that does something to its edges before a layer gets them."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change, self.conv = change, GCNConv(3, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, self.change(edge_index))


def test_edges_that_a_model_rearranges_are_refused_and_copies_are_not():
    x = torch.randn(N, 3)
    changes = [geometric_utils.sort_edge_index, geometric_utils.to_undirected, lambda edges: edges[:, :5], lambda edges: edges.flip(0)]
    for change in changes:
        with pytest.raises(ValueError, match=r"GCNConv in a GraphSimplifier got EdgeList\(.*, which are not the edges that were given"):
            GraphSimplifier(Rearranged(change), in_channels=3)(x, EDGES)
    copied = GraphSimplifier(Rearranged(torch.clone), in_channels=3)
    torch.testing.assert_close(copied(x, EDGES, seed=1).logits, copied.downstream.conv(x, EDGES[:, copied(x, EDGES, seed=1).kept == 1]))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.conv, self.reentrant = GCNConv(3, 2), reentrant

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return checkpoint(self.conv, x, edge_index, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_is_refused_inside_and_right_around(reentrant: bool):
    """For what is computed again in the backward pass would see all edges."""
    x = torch.randn(N, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"GCNConv in a GraphSimplifier can't be checkpointed \(torch\.utils\.checkpoint\)"):
        GraphSimplifier(Checkpointed(reentrant), in_channels=3)(x, EDGES)
    outside, gradients = GraphSimplifier(Rearranged(nn.Identity()), in_channels=3), []
    outside.upstream.dropout = 0
    for logits in (outside(x, EDGES, seed=1).logits, checkpoint(lambda x: outside(x, EDGES, seed=1).logits, x, use_reentrant=reentrant)):
        outside.zero_grad()
        logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in outside.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])


def test_other_threads_do_not_see_the_kept_edges():
    """Of a layer that two of them use at once."""
    x, seen = torch.randn(N, 3), []
    layer = GCNConv(3, 2)
    model = GraphSimplifier(nn.Sequential(layer), in_channels=3)

    def forward(x: Tensor, edge_index: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: seen.append(layer(x, edge_index)))
        thread.start()
        thread.join()
        return layer(x, edge_index)

    model.downstream.forward = forward  # type: ignore[method-assign]
    out = model(x, EDGES, seed=1)
    torch.testing.assert_close(seen[0], layer(x, EDGES))
    assert not torch.allclose(out.logits, seen[0])


def test_a_compiled_downstream():
    torch._dynamo.reset()
    model, x = GraphSimplifier(Convolutions(GCNConv), in_channels=3), torch.randn(N, 3)
    compiled = copy.deepcopy(model)
    compiled.downstream = torch.compile(compiled.downstream, backend="aot_eager")
    for seed in (1, 2):
        torch.testing.assert_close(compiled(x, EDGES, seed=seed).logits, model(x, EDGES, seed=seed).logits)


class Mixed(nn.Module):
    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = theirs.GATv2Conv(3, 4), second

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index), edge_index)


def test_models_of_which_a_layer_would_see_all_edges_are_refused():
    hooked = theirs.GCNConv(4, 2)
    hooked.register_forward_hook(lambda *_: None)
    for second in (theirs.GATConv(4, 2), hooked):
        model = Mixed(second)
        patched = patch(model)
        with pytest.raises(
            ValueError, match=f"second is a {type(second).__name__}, which doesn't see the kept edges as fastst's layers beside it do"
        ):
            GraphSimplifier(model, in_channels=3)
    model = Mixed(theirs.GATv2Conv(4, 2))
    patched = patch(model)
    simplifier = GraphSimplifier(model, in_channels=3)
    patched.undo()
    model.first = GATv2Conv(3, 4)
    with pytest.raises(ValueError, match="second is a GATv2Conv, which doesn't see"):
        simplifier(torch.randn(N, 3), EDGES)
    cached = theirs.GCN(3, 4, 1, cached=True)
    with pytest.raises(ValueError, match=r"convs\.0 is a GCNConv with cached=True, which would show the first kept edges to all later calls"):
        GraphSimplifier(cached, in_channels=3)
    patch(cached)
    with pytest.raises(ValueError, match=r"convs\.0 is a GCNConv with cached=True"):
        GraphSimplifier(cached, in_channels=3)
    with pytest.raises(ValueError, match=r"convs\.0 is a GCNConv of PyTorch Geometric, which takes the same edge weights for a whole batch"):
        GraphSimplifier(theirs.GCN(3, 4, 1), EdgeList(EDGES[:, :4], 4), in_channels=3)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GATv2Conv(3, 4)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        return theirs.global_mean_pool(self.conv(x, edge_index), batch)


class AnyArguments(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments, **options):
        return self.model(*arguments, **options)


def test_a_wrapped_model_is_given_what_the_model_takes():
    x = torch.randn(N, 3)
    assert GraphSimplifier(nn.DataParallel(Pooled()), in_channels=3)(x, EDGES, BATCH).logits.shape == (3, 4)
    averaged = torch.optim.swa_utils.AveragedModel(theirs.GCN(3, 4, 1))
    assert GraphSimplifier(averaged, in_channels=3)(x, EDGES).logits.shape == (N, 4)
    with pytest.raises(ValueError, match="GraphSAGE doesn't look at edge weights"):
        GraphSimplifier(nn.DataParallel(theirs.GraphSAGE(3, 4, 1)), in_channels=3)
    with pytest.raises(ValueError, match=r"it can't be known whether AnyArguments takes edge_weight, for its forward has \*\*kwargs"):
        GraphSimplifier(AnyArguments(Pooled()), in_channels=3)
    upstream = AnyArguments(EdgeScores(GCNConv(3, 4), 4))
    with pytest.raises(ValueError, match="it can't be known whether AnyArguments takes batch"):
        GraphSimplifier(Pooled(), upstream=upstream)(x, EDGES, BATCH)


@dataclasses.dataclass
class Found:
    logits: Tensor
    name: str = "found"


class OfAClass(Weighted):
    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor, found: type = Found):
        return found(super().forward(x, edge_index, edge_weight))


def test_outputs_of_any_class():
    model, x = GraphSimplifier(OfAClass(), in_channels=3), torch.randn(N, 3)
    assert model(x, EDGES).logits.name == "found"
    model(x, EDGES, found=lambda logits: types.SimpleNamespace(logits=logits)).logits.logits.sum().backward()
    assert any(parameter.grad.any() for parameter in model.upstream.parameters())
