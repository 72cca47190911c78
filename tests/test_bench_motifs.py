"""BA-2Motifs in small: its graphs are what they are said to be, a simplifier learns them, and the page is written."""

import json
import sys

import pytest
import torch

from bench import motifs

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")


def test_the_graphs():
    graphs = motifs.motif_graphs(20, seed=3)
    assert [graph.y.item() for graph in graphs] == [0] * 10 + [1] * 10
    for graph in graphs:
        pairs = {frozenset(pair) for pair in graph.edge_index.T.tolist()}
        motif = {frozenset(pair) for pair in graph.edge_index[:, graph.truth == 1].T.tolist()}
        assert graph.num_nodes == 25
        assert len(pairs) == graph.num_edges // 2  # no loops, both directions
        assert len(motif) + 5 < len(pairs) <= len(motif) + 20  # at most a tree (the generator leaves some nodes alone), and an edge to the motif
        assert len(motif) == 5 + graph.y.item()
        assert set().union(*motif) == set(range(20, 25))
        assert torch.equal(graph.x, torch.full((25, 10), 0.1))
    assert not torch.equal(graphs[0].edge_index, motifs.motif_graphs(20, seed=4)[0].edge_index)


def test_writes_a_page_of_what_it_finds(tmp_path, monkeypatch):
    small = motifs.Recipe(graphs=20, epochs=1, settled=1, hidden=8)
    monkeypatch.setattr(motifs, "RECIPES", {motifs.FIRST: small})
    monkeypatch.setattr(motifs, "_rows", lambda jobs, workers: [motifs.run(motifs.RECIPES[name], seed) for name, seed in jobs])
    monkeypatch.setattr(sys, "argv", ["motifs", "--report", str(tmp_path), "--seeds", "0", "1"])
    motifs.main()
    found = json.loads((tmp_path / "motifs.json").read_text())["rows"][motifs.FIRST]
    assert len(found) == 2
    assert found[0] | {"seconds": 0} == motifs.run(small, 0) | {"seconds": 0}  # all of it follows from the seed
    text = (tmp_path / "motifs.md").read_text()
    for name in (motifs.FIRST, *motifs.COLUMNS.values()):
        assert name in text


@pytest.mark.slow
def test_a_small_training_finds_both_motifs():
    """Which edges decide is found long before every graph is classified rightly."""
    found = motifs.run(motifs.Recipe(graphs=400, batch_size=64, epochs=30, settled=5, learning_rate=2e-3), seed=0)
    assert min(found["roc_auc_cycle"], found["roc_auc_house"]) > 0.9
    assert found["p_motif"] > found["p_others"] + 0.2
    assert found["accuracy_no_edges"] < 0.6
    assert abs(found["roc_auc_random"] - 0.5) < 0.05
