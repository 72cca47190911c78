"""Kept graphs in the forms of other libraries: every edge with its joints and frames, written and read again."""

import json

import pytest
import torch

import fastst
from fastst.data.synthetic import synthetic_walks
from fastst.errors import UserError
from fastst.nn import GraphClassifier
from fastst.runs.graphs import KeptGraph, kept_graphs

networkx = pytest.importorskip("networkx", reason="networkx is not installed (extra `export`)")


@pytest.fixture(scope="module")
def model() -> GraphClassifier:
    torch.manual_seed(0)
    return GraphClassifier("coco18", 2, hops=2, layers=2, hidden=8, heads=2, frames=6)


@pytest.fixture(scope="module")
def graphs(model: GraphClassifier) -> list[KeptGraph]:
    return kept_graphs(model, torch.randn(3, 6, 18, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([6, 4, 0]), seed=3)


def test_every_kept_edge_is_there(model: GraphClassifier, graphs: list[KeptGraph]):
    """Against a loop over slots and frames."""
    poses, lengths = torch.randn(3, 6, 18, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([6, 4, 0])
    model.eval()
    kept, probability = model(poses, lengths, seed=3).kept, model.probability(poses, lengths)
    assert [graph.name for graph in graphs] == ["0", "1", "2"]
    for b, graph in enumerate(graphs):
        wanted = {}
        for p, (src, dst, offset) in enumerate(zip(model.graph.src.tolist(), model.graph.dst.tolist(), model.graph.offset.tolist(), strict=True)):
            for t in range(6):
                if kept[b, p, t]:
                    wanted[(t + offset) * 18 + src, t * 18 + dst] = (p, offset, probability[b, p, t].item())
        ends, weights = graph.edge_index()
        assert ends.dtype == torch.int64
        assert dict(zip(zip(*ends.tolist(), strict=True), weights.tolist(), strict=True)) == {edge: row[2] for edge, row in wanted.items()}
        made = graph.to_networkx()
        assert {(a, b): (row["slot"], row["offset"], row["probability"]) for a, b, row in made.edges(data=True)} == wanted
        joints = model.graph.layout.joints
        assert dict(made.nodes(data=True)) == {t * 18 + j: {"joint": joints[j], "frame": t} for t in range(int(lengths[b])) for j in range(18)}
    assert 0 < len(graphs[1].edge_index()[1]) < model.graph.edge_mask(6, torch.tensor([4])).sum()


def test_asking_leaves_the_model_in_training(model: GraphClassifier):
    model.train()
    first, again = (kept_graphs(model, torch.ones(1, 5, 18, 2))[0] for _ in range(2))
    assert model.training
    assert torch.equal(first.kept, again.kept)
    assert not first.probability.requires_grad


def test_graphml_and_json(graphs: list[KeptGraph], tmp_path):
    for graph in graphs:
        graph.save(tmp_path / "walk.graphml")
        graph.save(str(tmp_path / "walk.json"))
        read = networkx.read_graphml(tmp_path / "walk.graphml", node_type=int)
        linked = networkx.node_link_graph(json.loads((tmp_path / "walk.json").read_text()), edges="edges")
        for found in (read, linked):
            assert dict(found.nodes(data=True)) == dict(graph.to_networkx().nodes(data=True))
            assert list(found.edges(data=True)) == list(graph.to_networkx().edges(data=True))
            assert found.graph["name"] == graph.name
    with pytest.raises(UserError, match=r"walk\.gexf is of no kind .* ends in \.graphml or \.json"):
        graphs[0].save(tmp_path / "walk.gexf")
    with pytest.raises(UserError, match="can't be written"):
        graphs[0].save(tmp_path / "nowhere" / "walk.json")


def test_graphs_of_a_run_are_its_table_of_edges(tmp_path):
    options = {"people": 8, "walks_per_person": 2, "frames": 12, "hidden": 8, "heads": 2, "layers": 2, "epochs": 1, "batch_size": 8}
    run = fastst.fit("synthetic", tmp_path / "run", **options)
    walks = synthetic_walks(2, 1, seed=5, frames=30)
    graphs = run.graphs(walks)
    assert [graph.name for graph in graphs] == walks.names
    rows = run.explain(walks).edges.to_pylist()
    for graph in graphs:
        joint = graph.graph.layout.index
        made, mine = graph.to_networkx(), [row for row in rows if row["walk"] == graph.name and row["kept"]]
        assert len(made.edges) == len(mine) > 0
        for row in mine:
            edge = made.edges[(row["frame"] + row["offset"]) * 18 + joint(row["from"]), row["frame"] * 18 + joint(row["to"])]
            assert (edge["offset"], edge["probability"]) == (row["offset"], row["probability"])
    assert graphs[0].kept.shape[1] == 30
