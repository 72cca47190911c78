"""Spurious-Motif in small: its graphs are what they are said to be, a simplifier learns them, and the page is written."""

import dataclasses
import json
import sys
from collections import Counter

import numpy as np
import pytest

from bench import spmotif

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")


@pytest.mark.parametrize("testing", [False, True])
def test_the_graphs(testing: bool):
    graphs = spmotif.spurious_graphs(5, 0.9, testing, seed=1)
    assert [graph.y.item() for graph in graphs] == [0] * 5 + [1] * 5 + [2] * 5
    for graph in graphs:
        label, motif = graph.y.item(), graph.edge_index[:, graph.truth == 1]
        first = graph.num_nodes - 5
        pairs = {frozenset((a - first, b - first)) for a, b in motif.T.tolist()}
        assert pairs == {frozenset(pair) for pair in tuple(spmotif.MOTIFS.values())[label]}
        assert motif.shape[1] == 2 * len(pairs)  # both directions
        assert graph.num_edges == 2 * len({frozenset(pair) for pair in graph.edge_index.T.tolist()})  # and no edge twice
        assert not graph.has_isolated_nodes()
        assert graph.x.shape == (graph.num_nodes, 4)


def test_a_class_has_its_own_base_as_often_as_asked(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, int]] = []
    base_graph = spmotif.base_graph

    def noted(kind: str, label: int, testing: bool, rng: np.random.Generator):
        asked.append((kind, label))
        return base_graph(kind, label, testing, rng)

    monkeypatch.setattr(spmotif, "base_graph", noted)
    for testing, wanted in ((False, 0.8), (True, 1 / 3)):
        asked.clear()
        spmotif.spurious_graphs(60, 0.8, testing, seed=0)
        count = Counter(spmotif.BASES.index(kind) == label for kind, label in asked)
        assert count[True] / 180 == pytest.approx(wanted, abs=0.1)


def test_writes_a_page_of_what_it_finds(tmp_path, monkeypatch: pytest.MonkeyPatch):
    small = dataclasses.replace(spmotif.RECIPE, epochs=1, settled=1, hidden=8, batch_size=8)
    monkeypatch.setattr(spmotif, "_rows", lambda jobs, workers: [spmotif.run(bias, seed, 4, 4, small) for bias, seed in jobs])
    monkeypatch.setattr(sys, "argv", ["spmotif", "--report", str(tmp_path), "--seeds", "0"])
    spmotif.main()
    found = json.loads((tmp_path / "spmotif.json").read_text())["rows"]["0.5"]
    assert found[0] | {"seconds": 0} == spmotif.run(0.5, 0, 4, 4, small) | {"seconds": 0}  # all of it follows from the seed
    text = (tmp_path / "spmotif.md").read_text()
    for name in spmotif.COLUMNS.values():
        assert name in text
