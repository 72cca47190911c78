"""The graphs of edges as PyTorch Geometric's users have them: the same edges give the same graph, changed ones another."""

import gc

import torch

from fastst.nn import edges as known_edges
from fastst.nn.edges import graph_of

EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 2, 1, 5], [1, 0, 1, 1, 0, 3, 1, 2, 5]])
N = 7


def test_the_same_edges_are_made_a_graph_once():
    edges = EDGES.clone()
    graph, _ = graph_of(edges, N)
    assert graph_of(edges, N)[0] is graph
    assert graph_of(edges, N + 1)[0] is not graph
    assert graph_of(edges.clone(), N)[0] is not graph
    edges[0, 0] = 4
    changed, _ = graph_of(edges, N)
    assert changed.edge_index()[0, 0] == 4
    del edges
    gc.collect()
    assert all(known.graph is not changed for known in known_edges._known)


def test_edges_that_change_behind_torchs_back_are_new_edges():
    array = EDGES.numpy().copy()
    edges = torch.from_numpy(array)
    before, _ = graph_of(edges, N)
    array[0, 0] = 4
    assert graph_of(edges, N)[0].edge_index()[0, 0] == 4
    edges.data = EDGES
    assert torch.equal(graph_of(edges, N)[0].edge_index(), before.edge_index())


def test_the_edges_used_last_are_remembered():
    many = [EDGES.clone() for _ in range(known_edges._KNOWN_MOST + 1)]
    first, _ = graph_of(many[0], N)
    for edges in many[1:]:
        graph_of(edges, N)
        assert graph_of(many[0], N)[0] is first
    assert len(known_edges._known) == known_edges._KNOWN_MOST
