"""Learned simplification around any model: which edges are kept against a plain reference, what the model sees of them, and what is refused."""

import copy
import doctest

import pytest
import torch
from graphs import generator
from torch import Tensor, nn

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.nn import ConvTemporalGraphical, EdgeScores, GATv2Conv, GCNConv, GINConv, GraphSimplifier, SAGEConv, patch, simplifier
from fastst.nn.decisions import decisions_of
from fastst.ops import use_backend
from fastst.ops.random import edge_uniform

theirs = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed")
from torch_geometric.data import Batch, Data, HeteroData  # noqa: E402

CPU = torch.device("cpu")
# Two graphs, of nodes 0 to 3 and 5 to 8, and one of node 4 alone: loops, an edge twice, an edge without an opposite, a node without edges.
EDGES = torch.tensor([[0, 1, 1, 2, 0, 2, 2, 1, 7, 5, 6, 5, 7], [1, 0, 2, 1, 1, 2, 0, 2, 5, 7, 5, 6, 7]])
BATCH = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
N, E = 9, 13


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator())


class Weighted(nn.Module):
    """What PyTorch Geometric's models take."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor, batch: Tensor | None = None) -> Tensor:
        self.batch = batch
        return x.new_zeros(x.shape).index_add(0, edge_index[1], edge_weight[:, None] * x[edge_index[0]])


class Own(nn.Module):
    """A model that makes of x and the kept edges what it likes."""

    def forward(self, x: Tensor, kept: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.lengths = lengths
        return kept.flatten(1).sum(1)


def made(downstream: nn.Module | None = None, graph=None, **options) -> GraphSimplifier:
    """Of double precision, with logits that are apart."""
    model = GraphSimplifier(downstream or Weighted(), graph, **{"in_channels": 3, "hidden": 4, **options}).double()
    with torch.no_grad():
        if isinstance(model.upstream, EdgeScores):
            model.upstream.last.weight.mul_(4)
            model.upstream.dropout = 0
        else:
            model.upstream.slot_bias.normal_()
    return model


def plain_decisions(edge_index: Tensor, batch: list[int], undirected: bool) -> list[list[list[int]]]:
    """For every graph its decisions, each with its edges."""
    graphs: list[dict] = [{} for _ in range(max(batch) + 1)]
    for e, (src, dst) in enumerate(edge_index.T.tolist()):
        if src != dst:
            graphs[batch[src]].setdefault((min(src, dst), max(src, dst)) if undirected else e, []).append(e)
    return [[found[key] for key in sorted(found)] for found in graphs]


@pytest.mark.parametrize("undirected", [False, True])
def test_decisions_against_a_plain_loop(undirected: bool):
    random = torch.randint(0, 12, (2, 60), generator=generator())
    batch = torch.tensor([0] * 5 + [1] * 0 + [2] * 7)
    for edges, of_node in ((EDGES, BATCH), (random[:, batch[random[0]] == batch[random[1]]], batch), (EDGES[:, :0], BATCH), (EDGES[:, 5:6], BATCH)):
        found = decisions_of(EdgeList(edges, len(of_node), parallel=True), of_node, undirected, CPU)
        wanted = plain_decisions(edges, of_node.tolist(), undirected)
        numbers = [[set(members) for members in graph] for graph in wanted]
        count = sum(len(graph) for graph in wanted)
        seen = {}
        for table in found.tables:
            for g, row in zip(table.graphs.tolist(), table.decision.tolist(), strict=True):
                seen[g] = [set((found.of_edge == d).nonzero()[:, 0].tolist()) for d in row if d < count]
                assert len(row) < 4 * max(1, len(seen[g]))
        assert [seen[g] for g in range(len(wanted))] == numbers
        values = torch.randn(2, edges.shape[1], generator=generator())
        tables = found.gather(values)
        for table, means in zip(found.tables, tables, strict=True):
            for g, row in zip(table.graphs.tolist() * 2, means, strict=True):
                assert row[len(wanted[g]) :].isneginf().all()
        spread = found.spread(tables, 2)
        for b in range(2):
            of_edges = torch.ones(edges.shape[1])
            for members in (members for graph in wanted for members in graph):
                of_edges[members] = values[b, members].mean()
            torch.testing.assert_close(spread[b], of_edges)


def plain_logits(scores: EdgeScores, x: Tensor, edges: Tensor, batch: list[int]) -> list[Tensor]:
    """The MLP of the embeddings of both ends, graph by graph."""
    h = scores.encoder(x, edges)
    logits = [torch.zeros(())] * edges.shape[1]
    for g in set(batch):
        members = [e for e in range(edges.shape[1]) if batch[edges[0, e]] == g]
        if members:
            z = torch.stack([torch.cat((h[edges[0, e]], h[edges[1, e]])) for e in members])
            for layer in (scores.first, scores.second):
                z = layer(z)
                z = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()).relu()
            for e, logit in zip(members, scores.last(z)[:, 0], strict=True):
                logits[e] = logit
    return logits


def plain_kept(model: GraphSimplifier, x: Tensor, edges: Tensor, batch: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kept edges with the gradient of sigmoid(z), keep probabilities and the information term, edge by edge."""
    logits = plain_logits(model.upstream, x, edges, batch)
    kept, probability = [torch.ones((), dtype=torch.float64)] * edges.shape[1], [torch.ones((), dtype=torch.float64)] * edges.shape[1]
    graphs = plain_decisions(edges, batch, model.undirected)
    width = max(len(graph) for graph in graphs)
    u = edge_uniform(seed, torch.arange(len(graphs)), width, 1, True)[..., 0].double()
    terms = []
    for g, graph in enumerate(graphs):
        for w, members in enumerate(graph):
            logit = sum(logits[e] for e in members) / len(members)
            z = logit + torch.log(u[g, w] + 1e-10) - torch.log(1 - u[g, w] + 1e-10)
            p, r, soft = torch.sigmoid(logit), model.prior.double(), torch.sigmoid(z)
            terms.append(p * torch.log(p / r) + (1 - p) * torch.log((1 - p) / (1 - r)))
            for e in members:
                kept[e], probability[e] = (z > 0).double() + soft - soft.detach(), p
    return torch.stack(kept), torch.stack(probability), model.information * torch.stack(terms).mean()


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton"])  # the reference has no matrix for an edge that comes twice
@pytest.mark.parametrize("undirected", [False, True])
def test_kept_edges_and_all_gradients_against_a_plain_loop(undirected: bool, backend: str):
    model = made(undirected=undirected, information=0.7, keep=0.3)
    x = features(N, 3).requires_grad_()
    results = []
    with use_backend(backend):
        out = model(x, EDGES, BATCH, seed=5)
        kept, probability, information = plain_kept(model, x, EDGES, BATCH.tolist(), 5)
        for found in (out[:1] + out[2:], (model.downstream(x, EDGES, kept), probability, information)):
            total = (found[0] * torch.arange(3)).square().sum() + (found[1] * torch.arange(E)).sum() + found[2]
            results.append([*found, *torch.autograd.grad(total, [x, *model.parameters()])])
    torch.testing.assert_close(out.kept, kept.detach().round(), atol=0, rtol=0)
    assert 0 < kept[BATCH[EDGES[0]] == 0].mean() < 1
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted)


class Convolutions(nn.Module):
    """Two layers of PyTorch Geometric's, and a forward without edge weights."""

    def __init__(self, kind: type, **options) -> None:
        super().__init__()
        self.first, self.second = kind(3, 4, **options), kind(4, 2, **options)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).tanh(), edge_index)


SWAPPED = [(theirs.GCNConv, {}), (theirs.GCNConv, {"normalize": False}), (theirs.SAGEConv, {})]


@pytest.mark.parametrize(("kind", "options"), SWAPPED, ids=str)
def test_swapped_layers_see_the_kept_graph_and_nothing_else(kind: type, options: dict):
    """What the original layers make of an edge list without the others."""
    original = Convolutions(kind, **options).double()
    swapped = Convolutions(kind, **options).double()
    swapped.load_state_dict(original.state_dict())
    patch(swapped)
    model, x = made(swapped), features(N, 3)
    for seed in (1, 2):
        out = model(x, EDGES, BATCH, seed=seed)
        assert 0 < (out.kept == 0).sum() < E - 2
        torch.testing.assert_close(out.logits, original(x, EDGES[:, out.kept == 1]))
        out.logits.square().sum().backward()
        assert model.upstream.last.weight.grad.any()
        model.zero_grad()
    torch.testing.assert_close(swapped(x, EDGES), original(x, EDGES))  # outside of the simplifier it is as it was


@pytest.mark.parametrize("kind", [GCNConv, SAGEConv])
def test_layers_on_slots_see_the_kept_graph(kind: type):
    graph, lengths = SkeletonGraph("coco17", 2), torch.tensor([5, 0, 3])
    layer = kind(3, 2).double()
    model = made(nn.Sequential(layer), graph)  # whose forward takes one argument
    model.downstream.forward = lambda x: layer(x, graph)  # type: ignore[method-assign]
    x = features(3, 5, 17, 3)
    out = model(x, lengths=lengths, seed=3)
    exists = graph.edge_mask(5, lengths).double()
    assert torch.equal(out.kept, out.kept * exists)
    assert torch.equal(out.probability > 0, exists == 1)
    assert 0 < out.kept.sum() < exists.sum()
    for b in range(3):
        edges = graph.edge_index(5)[:, out.kept[b][graph.edge_mask(5)] == 1]
        torch.testing.assert_close(out.logits[b].flatten(0, 1), layer(x[b].flatten(0, 1), edges))
    own = made(Own(), graph)
    assert own(x, lengths=lengths).logits.shape == (3,)
    assert own.downstream.lengths is lengths


def test_the_information_of_walks_is_the_mean_over_their_edges():
    """Loops, which always stay, are none of them."""
    graph = SlotGraph([0, 1, 1, 0], [1, 0, 1, 0], [0, -1, 0, 1], num_src=2)
    model, lengths = made(Own(), graph, keep=0.3, keep_start=0.9, keep_steps=4, information=2.0), torch.tensor([4, 0, 2])
    for call in range(6):
        r = max(0.3, 0.9 - 0.15 * call)
        assert model.prior.item() == pytest.approx(r)
        out = model(features(3, 4, 2, 3), lengths=lengths)
        p = out.probability[:, [0, 1, 3]][graph.edge_mask(4, lengths)[:, [0, 1, 3]]].detach()
        assert out.information.item() == pytest.approx(2 * (p * (p / r).log() + (1 - p) * ((1 - p) / (1 - r)).log()).mean().item(), rel=1e-5)
        assert torch.equal(out.kept[:, 2], graph.edge_mask(4, lengths)[:, 2].double())
    model.eval()(features(3, 4, 2, 3), lengths=lengths)
    assert model.calls == 6
    restored = made(Own(), graph, keep=0.3, keep_start=0.9, keep_steps=100)
    restored.load_state_dict(model.state_dict())
    assert restored.prior.item() == pytest.approx(0.9 - 0.6 * 6 / 100)


def test_one_graph_for_a_whole_batch():
    graph = EdgeList(EDGES[:, :4], 4)
    x = features(3, 4, 3)
    downstream = theirs.GCN(3, 4, 1)
    patch(downstream)
    model = made(downstream, graph)
    out = model(x, seed=1)
    assert out.kept.shape == out.probability.shape == (3, 4)
    assert torch.equal(out.kept[:, [0, 2]], out.kept[:, [1, 3]])
    lists = made(Own(), graph)
    lists.load_state_dict({**lists.state_dict(), **{key: value for key, value in model.state_dict().items() if not key.startswith("down")}})
    assert torch.equal(lists(x, seed=1).kept, out.kept)


def test_training_draws_anew_and_evaluation_does_not():
    model, x = made(), features(N, 3)
    torch.manual_seed(3)
    first, second = (model(x, EDGES, BATCH).kept for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(model(x, EDGES, BATCH).kept, first)
    assert torch.equal(model(x, EDGES, BATCH, seed=9).kept, model(x, EDGES, BATCH, seed=9).kept)
    shares = torch.stack([model(x, EDGES, BATCH).kept for _ in range(2000)]).mean(0)
    torch.testing.assert_close(shares, model(x, EDGES, BATCH).probability.detach(), atol=0.06, rtol=0)
    state = torch.get_rng_state()
    model.eval()
    assert torch.equal(model(x, EDGES, BATCH).kept, model(x, EDGES, BATCH).kept)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("evaluation", simplifier.EVALUATIONS)
def test_in_evaluation_a_graph_is_the_same_wherever_it_stands(evaluation: str, k: int | None):
    model = made(k=k, evaluation=evaluation).eval()
    x = features(N, 3)
    whole = model(x, EDGES, BATCH)
    for nodes, edges in ((slice(0, 4), slice(0, 8)), (slice(5, 9), slice(8, 13))):
        alone = model(x[nodes], EDGES[:, edges] - nodes.start)
        torch.testing.assert_close(alone.kept, whole.kept[edges])
        torch.testing.assert_close(alone.probability, whole.probability[edges])
    is_loop = EDGES[0] == EDGES[1]
    assert (whole.kept[is_loop] == 1).all()
    assert (whole.probability[is_loop] == 1).all()
    if evaluation == "probability":
        assert torch.equal(whole.kept, whole.probability)
    elif evaluation == "threshold" and k is None:
        assert torch.equal(whole.kept, (whole.probability > 0.5).double())
    else:
        assert set(whole.kept.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("evaluation", ["threshold", "sample"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_exactly_k(k: int, training: bool, evaluation: str):
    """Of the decisions of every graph; all where there are no more. The likeliest are those with the highest logits."""
    model, x = made(k=k, evaluation=evaluation).train(training), features(N, 3)
    out = model(x, EDGES, BATCH)
    found = [[out.kept[members].unique().tolist() for members in graph] for graph in plain_decisions(EDGES, BATCH.tolist(), True)]
    assert [sum(kept == [1.0] for kept in graph) for graph in found] == [min(k, len(graph)) for graph in found]
    assert out.information == 0
    if evaluation == "threshold" and not training:
        for graph in plain_decisions(EDGES, BATCH.tolist(), True):
            ranked = sorted(graph, key=lambda members: -out.probability[members[0]].item())
            assert all(out.kept[members[0]] == (rank < k) for rank, members in enumerate(ranked))
    if training and k == 1:
        out.logits.square().sum().backward()
        assert model.upstream.last.weight.grad.any()


@pytest.mark.parametrize("evaluation", simplifier.EVALUATIONS)
def test_exactly_k_of_every_frame(evaluation: str):
    graph, lengths = SkeletonGraph("coco17", 1), torch.tensor([4, 2])
    model = made(Own(), graph, k=3, evaluation=evaluation)
    for training in (True, False):
        out = model.train(training)(features(2, 4, 17, 3), lengths=lengths)
        torch.testing.assert_close(out.kept.sum(1), torch.tensor([[3.0] * 4, [3.0, 3.0, 0, 0]], dtype=torch.float64))
        assert not (out.kept * ~graph.edge_mask(4, lengths)).any()


@pytest.mark.parametrize("k", [None, 3])
def test_graphs_with_hardly_any_edges(k: int | None):
    for edges in (EDGES[:, :0], torch.tensor([[1], [1]]), torch.tensor([[5], [6]])):
        model = made(k=k)
        for training in (True, False):
            out = model.train(training)(features(N, 3), edges, BATCH)
            (out.logits.sum() + out.information).backward()
            assert out.kept.shape == (edges.shape[1],)
            assert out.information.isfinite()
        if not edges.numel():
            assert out.information == 0


def test_an_ordinary_training_loop():
    """x, edge_index and batch of a `Batch` as they are; what else the model needs goes along by name."""
    data = Batch.from_data_list([Data(x=features(n, 3).float(), edge_index=EDGES[:, :4]) for n in (4, 5, 3)])
    model = GraphSimplifier(Weighted(), in_channels=3, hidden=4)
    out = model(data.x, data.edge_index, data.batch)
    assert model.downstream.batch is data.batch
    (out.logits.square().mean() + out.information).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert out.kept.dtype == torch.float32
    assert torch.equal(out.kept[[0, 4, 8]], out.kept[[1, 5, 9]])  # both directions of an edge


def test_an_upstream_around_a_part_of_the_model():
    """Layers of fastst in it see the whole graph upstream, and the kept one downstream."""
    downstream = Convolutions(theirs.SAGEConv)
    patch(downstream)
    model = made(downstream, upstream=EdgeScores(downstream.first, 4).double())
    x, seen = features(N, 3), []
    downstream.first.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    out = model(x, EDGES, BATCH, seed=4)
    torch.testing.assert_close(seen[0], downstream.first(x, EDGES))
    assert not torch.allclose(seen[0], seen[1])
    assert len(list(model.parameters())) == len(list(downstream.parameters())) + 6
    assert out.logits.shape == (N, 2)
    with pytest.raises(ValueError, match=r"encoder must give \[9, 8\].*got \[9, 4\]"):
        made(downstream, upstream=EdgeScores(downstream.first, 8).double())(x, EDGES)
    with pytest.raises(ValueError, match=r"upstream must give \[13\], a logit for every edge, got \[9, 4\]"):
        GraphSimplifier(downstream, upstream=downstream.first)(x, EDGES)


def test_numbers_that_are_none_stay_in_their_graph():
    model, x = made(k=None), features(N, 3)
    clean = model(x, EDGES, BATCH, seed=2)
    x[1, 0] = torch.nan
    out = model(x, EDGES, BATCH, seed=2)
    assert out.logits[:3].isnan().all()
    assert torch.equal(out.logits[5:], clean.logits[5:])
    assert out.information.isnan()


def test_layers_that_do_not_look_at_the_kept_edges_are_named():
    x = torch.randn(N, 3)
    with pytest.raises(RuntimeError, match="does not depend on the kept edges"):
        GraphSimplifier(Ignorant(), in_channels=3)(x, EDGES)
    sage, windows = theirs.GraphSAGE(3, 4, 1), nn.Sequential(ConvTemporalGraphical(3, 64, 3))
    with pytest.raises(ValueError, match="GraphSAGE doesn't look at edge weights"):
        GraphSimplifier(sage, in_channels=3)
    patch(sage)
    assert GraphSimplifier(sage, in_channels=3)(x, EDGES).logits.shape == (N, 4)
    with pytest.raises(ValueError, match="0 is a ConvTemporalGraphical, which can't weigh its edges"):
        GraphSimplifier(windows, in_channels=3)


def test_attention_and_gine_learn_on_kept_edges():
    """In a `GraphSimplifier`, whole models of PyTorch Geometric's, patched; on slots, fastst's own layers."""
    model = theirs.GAT(3, 4, 2, v2=True, heads=2)
    patch(model)
    out = GraphSimplifier(model, in_channels=3)(torch.randn(N, 3), EDGES, BATCH)
    out.logits.sum().backward()
    on_slots = GraphSimplifier(OnSlots(), SkeletonGraph("coco18", 1), in_channels=3, hidden=8)
    out = on_slots(torch.randn(2, 5, 18, 3))
    out.logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in on_slots.upstream.parameters())


class OnSlots(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GATv2Conv(3, 4, heads=2), GINConv(nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        graph = SkeletonGraph("coco18", 1)
        return self.second(self.first(x, graph), graph)


class Ignorant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = theirs.GINConv(nn.Linear(3, 2))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        return self.conv(x, edge_index)


def test_one_large_graph_among_small_ones_takes_what_its_edges_take():
    """And not its width for all."""
    small = torch.randint(20, (500, 2, 40), generator=generator()) + 200 + 20 * torch.arange(500)[:, None, None]
    edges = torch.cat((torch.randint(200, (2, 4000), generator=generator()), small.transpose(0, 1).flatten(1)), 1)
    batch = torch.cat((torch.zeros(200, dtype=torch.int64), 1 + torch.arange(500 * 20) // 20))
    found = decisions_of(EdgeList(edges, len(batch), parallel=True), batch, False, CPU)
    assert sum(table.decision.numel() for table in found.tables) <= 4 * edges.shape[1]


def test_what_can_not_be_is_refused_by_name():
    downstream, x, graph = Weighted(), torch.randn(N, 3), SkeletonGraph("coco17", 1)
    hetero = HeteroData()
    hetero["a"].x = x
    model, on_slots = GraphSimplifier(downstream, in_channels=3), GraphSimplifier(Own(), graph, in_channels=3)
    refusals = [
        (TypeError, "downstream must be a torch.nn.Module, got function", lambda: GraphSimplifier(lambda x: x, in_channels=3)),  # type: ignore[arg-type]
        (TypeError, "graph must be .* got Tensor", lambda: GraphSimplifier(downstream, EDGES, in_channels=3)),  # type: ignore[arg-type]
        (ValueError, "give in_channels", lambda: GraphSimplifier(downstream)),
        (ValueError, "keep must be above 0 and below 1, got 1", lambda: GraphSimplifier(downstream, in_channels=3, keep=1)),
        (ValueError, "keep_start must be above 0", lambda: GraphSimplifier(downstream, in_channels=3, keep_start=0)),
        (ValueError, "keep_steps and information must be at least 0", lambda: GraphSimplifier(downstream, in_channels=3, information=-1)),
        (ValueError, "k must be a whole number of at least 1, got 0", lambda: GraphSimplifier(downstream, in_channels=3, k=0)),
        (ValueError, "on slots leave undirected out", lambda: GraphSimplifier(Own(), graph, in_channels=3, undirected=True)),
        (ValueError, "evaluation must be one of", lambda: GraphSimplifier(downstream, in_channels=3, evaluation="mean")),
        (TypeError, "got HeteroData; make it homogeneous", lambda: model(hetero)),
        (TypeError, "got dict; make it homogeneous", lambda: model(hetero.x_dict)),
        (TypeError, "got Data; give data.x", lambda: model(Data(x=x, edge_index=EDGES))),
        (ValueError, "give edge_index", lambda: model(x)),
        (ValueError, "leave edge_index out", lambda: on_slots(torch.randn(1, 2, 17, 3), EDGES)),
        (ValueError, "all of a batch have it", lambda: on_slots(torch.randn(1, 2, 17, 3), batch=BATCH)),
        (TypeError, r"edge_index must be a tensor \[2, E\], got Data", lambda: model(x, Data())),
        (ValueError, r"x must be \[N, C\]", lambda: model(x[None], EDGES)),
        (ValueError, r"batch must be \[N\] with N = 9", lambda: model(x, EDGES, BATCH[1:])),
        (TypeError, r"batch must be whole numbers, the graph of every node, got torch\.float32", lambda: model(x, EDGES, BATCH.float())),
        (TypeError, "batch must be whole numbers, the graph of every node, got list", lambda: model(x, EDGES, BATCH.tolist())),
        (ValueError, "batch must count the graphs from 0 on, got -1", lambda: model(x, EDGES, BATCH - 1)),
        (ValueError, "edge 0 goes from node 0 to node 9, but the nodes are 0 to 8", lambda: model(x, torch.tensor([[0], [9]]))),
        (ValueError, "edge 0 goes from node 3 to node 4, which is from graph 0 to graph 1", lambda: model(x, torch.tensor([[3], [4]]), BATCH)),
    ]
    for kind, message, call in refusals:
        with pytest.raises(kind, match=message):
            call()


def test_copies_and_files(tmp_path):
    model, x = made(), features(N, 3)
    out = model(x, EDGES, BATCH, seed=1)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = copy.deepcopy(model)
    again.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert torch.equal(again(x, EDGES, BATCH, seed=1).logits, out.logits)


def test_the_example_in_the_docstring():
    assert doctest.run_docstring_examples(GraphSimplifier, {}, optionflags=doctest.ELLIPSIS) is None
    assert doctest.testmod(simplifier).failed == 0
