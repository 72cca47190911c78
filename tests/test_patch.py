"""One line swaps fastst's layers into a model of somebody else, and the model is what it was: outputs, gradients, names, optimizer, and back."""

import copy
import doctest

import pytest
import torch
from torch import nn

import fastst
from fastst.nn import GATv2Conv, GCNConv, GINConv, GINEConv, SAGEConv, patch, patching
from fastst.ops import use_backend

theirs = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")
EDGES = torch.tensor([[0, 1, 2, 3, 3, 4], [1, 0, 1, 1, 3, 2]])


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no graph is too small for fastst's layers."""
    torch.manual_seed(0)
    for kind in (GCNConv, SAGEConv, GINConv, GINEConv):
        monkeypatch.setattr(kind, "few", 0)


class Model(nn.Module):
    """Two kinds of layers, one of them twice, and some that are left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = theirs.GCNConv(3, 8)
        self.shared = self.again = theirs.GATv2Conv(8, 4, heads=2)
        self.inside = nn.ModuleList([theirs.GCNConv(8, 8, bias=False), nn.Linear(8, 8)])
        self.sage = theirs.SAGEConv(8, 8, project=True, normalize=True)
        self.most = theirs.SAGEConv(8, 8, aggr="max")
        self.mean = theirs.GCNConv(8, 8, aggr="mean")
        self.lazy = theirs.GCNConv(-1, 8)
        self.pair = theirs.GATv2Conv((8, 8), 8)
        self.hooked = theirs.GCNConv(8, 8)
        self.hooked.register_forward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        h = self.again(self.shared(self.first(x, edges).relu(), edges), edges)
        return self.hooked(self.inside[1](self.inside[0](self.sage(h, edges), edges)), edges)


def outcome(model: nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(model.first.lin.weight.dtype)
    y = model(x, EDGES)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if not isinstance(p, nn.UninitializedParameter) and p.grad is not None)]


def test_a_patched_model_is_the_same_model():
    torch.manual_seed(0)
    model = Model()
    wanted, keys, parameters = outcome(model), list(model.state_dict()), list(model.parameters())
    random = torch.get_rng_state()
    patched = patch(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(model.first, GCNConv)
    assert isinstance(model.shared, GATv2Conv)
    assert isinstance(model.sage, SAGEConv)
    assert model.shared is model.again
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for found, want in zip(outcome(model), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    said = {swap.name: (swap.swapped, swap.why) for swap in patched.swaps}
    assert {name for name, (swapped, _) in said.items() if swapped} == {"first", "shared", "again", "inside.0", "sage", "pair"}
    for name, why in {
        "mean": "it is asked to aggregate in another way (aggr, flow or explain)",
        "most": "it is asked to aggregate in another way (aggr, flow or explain)",
        "lazy": "its sizes are not known before its first call",
        "hooked": "it has hooks",
    }.items():
        assert said[name] == (False, why)
    assert "first     GCNConv: swapped\n" in str(patched)
    assert "hooked    GCNConv: left: it has hooks" in str(patched)


def test_an_optimizer_goes_on_and_undo_gives_the_layers_back():
    one = Model().double()  # Adam divides by gradients that may be small
    other = copy.deepcopy(one)
    first = one.first
    results = []
    for model, patched in ((one, True), (other, False)):
        optimizer = torch.optim.Adam([p for p in model.parameters() if not isinstance(p, nn.UninitializedParameter)], lr=0.01)
        outcome(model)
        optimizer.step()
        swapped = patch(model) if patched else None
        for _ in range(3):
            outcome(model)
            optimizer.step()
        model.eval()
        if swapped is not None:
            swapped.undo()
        results.append(outcome(model))
    assert one.first is first
    assert not first.training
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-8)


def test_a_with_block_and_a_dry_run():
    model = Model()
    first = model.first
    assert any(swap.swapped for swap in patch(model, dry_run=True).swaps)
    assert model.first is first
    with patch(model):
        assert isinstance(model.first, GCNConv)
    assert model.first is first


def test_what_only_the_original_knows_goes_to_the_original():
    model = nn.Sequential(theirs.GATv2Conv(3, 4, add_self_loops=False))
    x = torch.randn(5, 3)
    matrix = torch.sparse_coo_tensor(EDGES, torch.ones(EDGES.shape[1]), (5, 5), check_invariants=True).coalesce()
    y, (_, alpha) = model[0](x, matrix, return_attention_weights=True)
    with patch(model):
        found, (_, found_alpha) = model[0](x, matrix, return_attention_weights=True)
    assert torch.equal(found, y)
    assert torch.equal(found_alpha, alpha)


def test_gin_and_gine_are_what_they_were_with_their_buffers(monkeypatch):
    model = nn.ModuleList(
        [
            theirs.GINConv(nn.Sequential(nn.Linear(3, 8), nn.ReLU()), eps=0.3),
            theirs.GINConv(torch.tanh, train_eps=True),
            theirs.GINEConv(nn.Linear(8, 8), eps=0.2, edge_dim=2),
            theirs.GINEConv(nn.Linear(8, 4)),
            theirs.GINConv(nn.Linear(4, 4), aggr="max"),
        ]
    )
    x, first, second = torch.randn(5, 3), torch.randn(6, 2), torch.randn(6, 8)

    def outcome() -> list[torch.Tensor]:
        model.zero_grad()
        y = model[3](model[2](model[1](model[0](x, EDGES), EDGES), EDGES, first), EDGES, second)
        y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for layer in model[:4] for p in layer.parameters())]

    wanted, keys, eps, original = outcome(), list(model.state_dict()), model[0].eps, model[2]
    random = torch.get_rng_state()
    patched = patch(model)
    assert [swap.swapped for swap in patched.swaps] == [True] * 4 + [False]
    assert torch.equal(torch.get_rng_state(), random)
    assert list(model.state_dict()) == keys
    assert model[0].eps is eps
    for found, want in zip(outcome(), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    model.double()
    patched.undo()
    assert model[2] is original
    assert model[2].eps.dtype == torch.float64


def test_a_small_graph_goes_to_the_original_and_a_large_one_does_not(monkeypatch):
    model, x, edge_attr, sums = nn.Sequential(theirs.GINEConv(nn.Linear(3, 4))), torch.randn(5, 3), torch.randn(6, 3), []
    monkeypatch.setattr(GINEConv, "_sum", lambda self, nodes, *_: (sums.append(1), nodes.src)[1])
    patch(model)
    for few, ours in ((19, 0), (18, 1)):
        monkeypatch.setattr(GINEConv, "few", few)
        model[0](x, EDGES, edge_attr)
        assert len(sums) == ours


def test_what_only_gine_of_pytorch_geometric_knows(monkeypatch):
    model, x, edge_attr = nn.Sequential(theirs.GINEConv(nn.Linear(3, 4))), torch.randn(5, 3), torch.randn(6, 3)
    calls = [
        ((x, x[:3]), EDGES[:, :3], edge_attr[:3]),
        (x, EDGES[:, :3], edge_attr[:3], (5, 5)),
        (x, EDGES, edge_attr[0]),
        (x, EDGES, edge_attr[:1]),
        (x, EDGES, edge_attr.expand(2, 6, 3)),
    ]
    wanted = [model[0](*call) for call in calls]
    with patch(model):
        for call, want in zip(calls, wanted, strict=True):
            torch.testing.assert_close(model[0](*call), want)


def test_attention_with_features_of_edges_and_dropout():
    torch.manual_seed(0)
    model, x, attr = nn.Sequential(theirs.GATv2Conv(3, 4, heads=2, edge_dim=2, dropout=0.5, fill_value="max")), torch.randn(5, 3), torch.randn(6, 2)
    parameters = list(model.parameters())
    results = []
    for swapped in (False, True):
        patched = patch(model) if swapped else None
        assert isinstance(model[0], GATv2Conv) == swapped
        model.eval()
        y, (edges, alpha) = model[0](x, EDGES, attr, return_attention_weights=True)
        results.append((y, edges, alpha, *torch.autograd.grad(y.square().sum() + alpha.square().sum(), parameters)))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    model.train()
    assert not torch.equal(model[0](x, EDGES, attr), model[0](x, EDGES, attr))
    assert patched is not None
    patched.undo()
    assert type(model[0]) is theirs.GATv2Conv


@pytest.mark.parametrize(("receivers", "size"), [(3, None), (3, (5, 3)), (None, (5, 5))])
def test_two_sets_of_nodes_go_to_the_original(receivers: int | None, size: tuple[int, int] | None):
    model, x = nn.Sequential(theirs.SAGEConv(3, 4)), torch.randn(5, 3)
    inputs = ((x, None if receivers is None else x[:receivers]), EDGES[:, :3], size)
    wanted = model[0](*inputs)
    with patch(model):
        assert isinstance(model[0], SAGEConv)
        torch.testing.assert_close(model[0](*inputs), wanted)


def test_parameters_that_were_replaced_go_with_the_original():
    torch.manual_seed(0)
    model, x = nn.Sequential(theirs.GATv2Conv(3, 4)), torch.randn(5, 3)
    patched = patch(model)
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()}, assign=True)
    y = model[0](x, EDGES)
    torch.testing.assert_close(model[0](x, EDGES, return_attention_weights=True)[0], y)
    patched.undo()
    torch.testing.assert_close(model[0](x, EDGES), y)


def test_a_compiled_layer_is_left():
    (row,) = patch(nn.Sequential(torch.compile(theirs.GCNConv(3, 4)))).swaps
    assert row.why == "it is compiled already"


def test_a_layer_that_was_compiled_in_place_is_left_and_a_compiled_part_compiles_anew():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = theirs.GCNConv(3, 4)

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            return self.first(x, edges).relu()

    model, x = nn.Sequential(theirs.GCNConv(3, 4), Part()), torch.randn(5, 3)
    model[0].compile(backend="eager")
    model[1] = torch.compile(model[1], backend="eager")
    wanted = model[1](x, EDGES)
    swaps = {swap.name: swap for swap in patch(model).swaps}
    assert swaps["0"].why == "it is compiled already"
    assert swaps["1._orig_mod.first"].swapped
    torch.testing.assert_close(model[1](x, EDGES), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_layer_with_hooks_of_any_kind_is_left_and_they_still_run(kind: str):
    model, called = nn.Sequential(theirs.SAGEConv(3, 4)), []
    getattr(model[0], f"register_{kind}_hook")(lambda *_: called.append(kind))
    (row,) = patch(model).swaps
    assert row.why == "it has hooks"
    model[0](torch.randn(5, 3, requires_grad=True), EDGES).sum().backward()
    assert called == [kind]


@pytest.mark.parametrize("kind", ["propagate", "message", "aggregate"])
def test_hooks_of_pytorch_geometric_count_too(kind: str):
    model = nn.Sequential(theirs.SAGEConv(3, 4))
    getattr(model[0], f"register_{kind}_forward_hook")(lambda *_: None)
    assert patch(model).swaps[0].why == "it has hooks"


def test_hooks_inside_and_around_a_layer_stay():
    model, called = nn.Sequential(theirs.GCNConv(3, 4)), []
    model[0].lin.register_forward_hook(lambda *_: called.append("inside"))
    holder = nn.ModuleDict({"model": model})
    patch(holder)
    assert isinstance(model[0], GCNConv)
    model[0](torch.randn(5, 3), EDGES)
    assert called == ["inside"]


def test_a_module_in_two_places_is_swapped_once_and_stays_shared():
    part = nn.Sequential(theirs.GCNConv(3, 3))
    model = nn.ModuleList([part, nn.ModuleDict({"again": part, "layer": part[0]})])
    patched = patch(model)
    assert {swap.name for swap in patched.swaps} == {"0.0", "1.layer"}
    assert isinstance(part[0], GCNConv)
    assert model[1]["again"][0] is part[0] is model[1]["layer"]
    assert len(list(model.parameters())) == 2
    patched.undo()
    assert type(part[0]) is theirs.GCNConv
    assert model[1]["layer"] is part[0]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = theirs.GCNConv(3, 4), theirs.SAGEConv(4, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def test_distributed_data_parallel(tmp_path):
    plain, x = Two(), torch.randn(5, 3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
        patched = patch(model)
        assert [swap.name for swap in patched.swaps if swap.swapped] == ["module.first", "module.second"]
        for _ in range(2):
            wanted, found = outcome(plain), outcome_of_wrapped(model)
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        patched.undo()
        torch.testing.assert_close(model(x, EDGES), plain(x, EDGES))
        del model, patched  # which may wait for ever for a group that is gone
    finally:
        torch.distributed.destroy_process_group()


def outcome_of_wrapped(model: nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    y = model(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), EDGES)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.fixture
def hetero():
    data = pytest.importorskip("torch_geometric.data").HeteroData()
    data["a"].x, data["b"].x = torch.randn(5, 8), torch.randn(4, 8)
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1, 4], [3, 1, 0]])
    data["b", "to", "a"].edge_index = torch.tensor([[3, 1, 0], [0, 1, 4]])
    data["a", "near", "a"].edge_index = EDGES
    return data


class OfKinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = theirs.SAGEConv(8, 8), theirs.SAGEConv((8, 8), 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def assert_patched_model_of_kinds_is_the_same(model: nn.Module, hetero, swapped: set[str]) -> None:
    results = []
    for patched in (False, True):
        if patched:
            assert {swap.name for swap in patch(model).swaps if swap.swapped} == swapped
        outputs = model(hetero.x_dict, hetero.edge_index_dict)
        gradients = torch.autograd.grad(sum(y.square().sum() for y in outputs.values()), list(model.parameters()))
        results.append([*outputs.values(), *gradients])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_models_for_several_kinds_of_nodes(hetero):
    convolutions = {("a", "to", "b"): theirs.SAGEConv(8, 4), ("b", "to", "a"): theirs.SAGEConv((8, 8), 4), ("a", "near", "a"): theirs.GCNConv(8, 4)}
    names = {"convs.<a___to___b>", "convs.<b___to___a>", "convs.<a___near___a>"}
    assert_patched_model_of_kinds_is_the_same(theirs.HeteroConv(convolutions), hetero, names)
    model, kinds = theirs.to_hetero(OfKinds(), hetero.metadata()), ("a__to__b", "b__to__a", "a__near__a")
    assert_patched_model_of_kinds_is_the_same(model, hetero, {f"{layer}.{kind}" for layer in ("first", "second") for kind in kinds})


def test_a_patched_model_is_not_made_one_for_several_kinds_of_nodes(hetero):
    model = OfKinds()
    patched = patch(model)
    with pytest.raises(TypeError, match="to_hetero doesn't know fastst's SAGEConv; make the model of PyTorch Geometric's layers, then patch it"):
        theirs.to_hetero(model, hetero.metadata())
    patched.undo()
    theirs.to_hetero(model, hetero.metadata())


def test_an_explainer_of_pytorch_geometric_says_that_it_sees_no_edges():
    explain = pytest.importorskip("torch_geometric.explain")
    model, x = Two(), torch.randn(5, 3)
    patch(model)
    task = {"mode": "regression", "task_level": "node", "return_type": "raw"}
    explainer = explain.Explainer(model, explain.GNNExplainer(epochs=1), explanation_type="model", edge_mask_type="object", model_config=task)
    with pytest.raises(ValueError, match="Could not compute gradients for edges"):
        explainer(x, EDGES)


def test_second_derivatives_are_refused_and_are_those_of_the_layers_put_back():
    model, x = Two().double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def penalty() -> tuple[torch.Tensor, ...]:
        (slope,) = torch.autograd.grad(model(x, EDGES).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *model.parameters()], allow_unused=True)

    wanted = penalty()
    patched = patch(model)
    with pytest.raises(
        NotImplementedError, match=r"differentiated once; for second derivatives run them inside fastst\.ops\.use_backend\('reference'\)"
    ):
        penalty()
    with use_backend("reference"):
        found_by_reference = penalty()
    patched.undo()
    for found in (found_by_reference, penalty()):
        for one, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, want)


@pytest.mark.parametrize("name", ["GCN", "GAT", "GraphSAGE"])
def test_models_of_pytorch_geometric(name: str):
    models = pytest.importorskip("torch_geometric.nn.models")
    torch.manual_seed(0)
    options = {"v2": True, "heads": 2} if name == "GAT" else {}
    model = getattr(models, name)(3, 8, num_layers=3, out_channels=4, **options)
    weight = torch.rand(6) if name == "GCN" else None
    x = torch.randn(5, 3)
    wanted = model(x, EDGES, weight)
    patched = patch(model)
    assert [swap.swapped for swap in patched.swaps] == [True] * 3
    torch.testing.assert_close(model(x, EDGES, weight), wanted, atol=1e-5, rtol=1e-5)


def test_a_subclass_is_left_alone_and_a_lone_layer_too():
    class Mine(theirs.GCNConv):
        pass

    (row,) = patch(nn.Sequential(Mine(3, 4))).swaps
    assert row.why == "its class Mine is made from the layer, and may do something else"
    (row,) = patch(theirs.GCNConv(3, 4)).swaps
    assert (row.name, row.why) == ("(model)", "it is the whole model, and can't be replaced in itself")
    assert str(patch(nn.Linear(1, 1))) == "there is no layer that fastst could take the place of"


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"compiled already; patch it first"):
        patch(torch.compile(Model()))
    model = Model()
    model.compile()
    with pytest.raises(ValueError, match=r"compiled already; patch it first"):
        patch(model)
    assert type(model.first) is theirs.GCNConv
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        patch(3)


def test_a_patched_model_is_copied_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(theirs.GCNConv(3, 4))
    patch(model)
    x = torch.randn(5, 3)
    wanted = model[0](x, EDGES)
    torch.testing.assert_close(copy.deepcopy(model)[0](x, EDGES), wanted)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh = nn.Sequential(theirs.GCNConv(3, 4))
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    torch.testing.assert_close(fresh[0](x, EDGES), wanted)


def test_it_is_there_at_first_hand():
    assert fastst.patch is patch
    with pytest.raises(AttributeError, match="no attribute 'patches'"):
        fastst.patches  # noqa: B018


def test_the_example():
    assert doctest.testmod(patching).failed == 0


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv"])
def test_layers_of_few_edges_are_the_originals(name: str, monkeypatch: pytest.MonkeyPatch):
    """The same numbers either way, and what the original doesn't know stays with fastst's layer."""
    model, x = nn.Sequential(getattr(theirs, name)(3, 4)), torch.randn(5, 3)
    original, calls = model[0], []
    patch(model)
    right = type(original).forward
    monkeypatch.setattr(type(original), "forward", lambda *args, **options: calls.append(1) or right(*args, **options))
    results = []
    for few, theirs_too in ((19, 1), (18, 1)):
        monkeypatch.setattr(type(model[0]), "few", few)
        results.append(model[0](x, EDGES))
        assert len(calls) == theirs_too
    torch.testing.assert_close(*results)
    if name == "GCNConv":
        monkeypatch.setattr(GCNConv, "few", 1000)
        assert model[0](torch.stack((x, x)), EDGES, torch.rand(2, 6)).shape == (2, 5, 4)
        assert len(calls) == 1
