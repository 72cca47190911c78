"""Layers that a patch leaves alone as they are not what their class says, and what of a patched model stays at the end."""

import pytest
import torch
from test_patch import EDGES
from torch import nn

from fastst.nn import GATv2Conv, GCNConv, GINConv, SAGEConv, patch

theirs = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no graph is too small for fastst's layers."""
    torch.manual_seed(0)
    for kind in (GCNConv, SAGEConv, GINConv):
        monkeypatch.setattr(kind, "few", 0)


@pytest.mark.parametrize("name", ["forward", "message", "propagate", "reset_parameters"])
def test_a_layer_of_which_a_method_was_replaced_is_left(name: str):
    model = nn.Sequential(theirs.SAGEConv(3, 4))
    setattr(model[0], name, lambda *_, **__: torch.zeros(()))
    assert patch(model).swaps[0].why == f"its method {name} was replaced"


def test_layers_with_nodes_elsewhere_are_left():
    layers = [kind(nn.Linear(3, 3), node_dim=0) for kind in (theirs.GINConv, theirs.GINEConv)]
    layers += [kind(3, 3, node_dim=0) for kind in (theirs.GCNConv, theirs.SAGEConv)]
    for swap in patch(nn.Sequential(*layers)).swaps:
        assert swap.why == "its nodes are not in the last dimension but one (node_dim)"
    for make in (lambda: GCNConv(3, 4, node_dim=0), lambda: GINConv(nn.Linear(3, 4), node_dim=0)):
        with pytest.raises(ValueError, match="node_dim=0 is not supported, only -2"):
            make()


def test_a_layer_that_has_cached_a_graph_is_left():
    model, x = nn.Sequential(theirs.GCNConv(3, 4, cached=True)), torch.randn(5, 3)
    with patch(model) as patched:
        assert patched.swaps[0].swapped
    wanted = model[0](x, EDGES)
    assert patch(model).swaps[0].why == "it has cached a graph already"
    assert torch.equal(model[0](x, EDGES[:, :2]), wanted)


def test_hooks_and_attributes_of_the_time_between_stay_at_the_end():
    model, x, called = nn.Sequential(theirs.GATv2Conv(3, 4, dropout=0.5)), torch.randn(5, 3), []
    patched = patch(model)
    handle = model[0].register_forward_hook(lambda layer, inputs, options, output: called.append(type(layer)), with_kwargs=True)
    model[0].dropout = 0.0
    model[0](x, EDGES)
    model[0](x, EDGES, return_attention_weights=True)
    patched.undo()
    assert torch.equal(model[0](x, EDGES), model[0](x, EDGES))
    assert model[0].dropout == 0
    assert called == [GATv2Conv] * 2 + [theirs.GATv2Conv] * 2
    handle.remove()
    model[0](x, EDGES)
    assert len(called) == 4


def test_an_attribute_that_was_changed_holds_for_small_graphs_too(monkeypatch: pytest.MonkeyPatch):
    """Which the original computes."""
    model, x = nn.Sequential(theirs.GCNConv(3, 4)), torch.randn(5, 3)
    patch(model)
    model[0].add_self_loops = False
    wanted = model[0](x, EDGES)
    monkeypatch.setattr(GCNConv, "few", 1000)
    torch.testing.assert_close(model[0](x, EDGES), wanted)


def test_layers_that_were_replaced_or_deleted_in_between_stay_so():
    model = nn.ModuleDict({name: theirs.GCNConv(3, 3) for name in ("replaced", "deleted", "stays")})
    patched = patch(model)
    model["replaced"] = nn.Linear(3, 3)
    del model["deleted"]
    patched.undo()
    assert [type(layer) for layer in model.values()] == [nn.Linear, theirs.GCNConv]
