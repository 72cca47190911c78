import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastst import LAYOUTS, EdgeList, Layout, SkeletonGraph, SlotGraph, edge_order
from fastst.layouts import get_layout
from fastst.ops import propagate, use_backend


def brute_force(layout: Layout, T: int, hops: int) -> np.ndarray:
    """The pattern of (A + I)^hops - I, A the bones within a frame and every joint joined to itself in the next frame."""
    J = layout.num_joints
    A = np.eye(T * J, dtype=np.int64)
    for t in range(T):
        for a, b in layout.bones:
            A[t * J + a, t * J + b] = A[t * J + b, t * J + a] = 1
        if t:
            for j in range(J):
                A[t * J + j, (t - 1) * J + j] = A[(t - 1) * J + j, t * J + j] = 1
    return (np.linalg.matrix_power(A, hops) > 0) & ~np.eye(T * J, dtype=bool)


@st.composite
def layouts(draw) -> Layout:
    J = draw(st.integers(1, 7))
    pairs = [(a, b) for a in range(J) for b in range(a)]
    bones = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Layout.custom([f"joint{j}" for j in range(J)], bones)


@pytest.mark.parametrize(("hops", "slots"), [(1, 72), (2, 228), (3, 494)])
def test_slots_of_the_papers_skeleton(hops: int, slots: int):
    graph = SkeletonGraph("coco18", hops)
    assert graph.num_slots == slots
    keys = list(zip(graph.dst.tolist(), graph.offset.tolist(), graph.src.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert graph.src.dtype == graph.dst.dtype == graph.offset.dtype == torch.int32


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_built_in_layouts_are_powers_of_the_adjacency(name: str, hops: int):
    graph, T = SkeletonGraph(name, hops), 5
    assert np.array_equal(graph.dense(T).numpy() > 0, brute_force(graph.layout, T, hops))


@given(layouts(), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_any_skeleton_dense_and_edge_index(layout: Layout, hops: int, T: int):
    graph, expected = SkeletonGraph(layout, hops), brute_force(layout, T, hops)
    dense, edges = graph.dense(T).numpy(), graph.edge_index(T).numpy()
    assert np.array_equal(dense > 0, expected)
    assert dense.max(initial=0) <= 1
    from_edges = np.zeros_like(expected)
    from_edges[edges[1], edges[0]] = True
    assert edges.shape[1] == expected.sum()  # no edge twice
    assert np.array_equal(from_edges, expected)


def test_lengths_cut_every_walk_of_a_batch():
    graph, lengths, T, J = SkeletonGraph("coco17", 2), torch.tensor([4, 0, 2]), 4, 17
    dense, edges = graph.dense(T, lengths=lengths), graph.edge_index(T, lengths)
    for walk, length in enumerate(lengths.tolist()):
        expected = np.zeros((T * J, T * J), bool)
        expected[: length * J, : length * J] = brute_force(graph.layout, length, 2) if length else False
        assert np.array_equal(dense[walk].numpy() > 0, expected)
        inside = edges[:, (edges[0] // (T * J)) == walk] - walk * T * J
        assert inside.shape[1] == expected.sum()
        assert expected[inside[1], inside[0]].all()


def test_edge_values_keep_their_order_in_edge_index_and_dense():
    graph, T, lengths = SkeletonGraph("coco18", 1), 3, torch.tensor([3, 2])
    values = torch.randn(2, 72, T)
    edges, flat = graph.edge_index(T, lengths), values[graph.edge_mask(T, lengths)]
    dense = graph.dense(T, values, lengths)
    walk = edges[0] // (T * 18)
    assert torch.equal(dense[walk, edges[1] - walk * T * 18, edges[0] - walk * T * 18], flat)
    assert dense.count_nonzero() == len(flat)


def test_edge_list_keeps_order_and_direction():
    edge_index = torch.tensor([[2, 0, 1], [0, 1, 1]])
    graph = EdgeList(edge_index, 3)
    assert torch.equal(graph.edge_index(), edge_index)
    assert graph.dense(torch.tensor([[5.0, 6.0, 7.0]])).tolist() == [[[0, 0, 5], [6, 7, 0], [0, 0, 0]]]


def test_index_walks_the_edges_of_every_node():
    graph = SkeletonGraph("coco18", 2)
    index = graph.index()
    for j in range(18):
        into = index.dst_order[index.dst_ptr[j] : index.dst_ptr[j + 1]]
        out = index.src_order[index.src_ptr[j] : index.src_ptr[j + 1]]
        assert sorted(into.tolist()) == (graph.dst == j).nonzero().squeeze(1).tolist()
        assert sorted(out.tolist()) == (graph.src == j).nonzero().squeeze(1).tolist()
        begin = (int(index.dst_ptr[j]) + 3 * j) // 4 * 4
        assert index.sender_frames[begin : begin + len(into)].tolist() == graph.offset[into].tolist()
        assert index.sender_nodes[begin : begin + len(into)].tolist() == (graph.offset * 18 + graph.src)[into].tolist()
        begin = (int(index.src_ptr[j]) + 3 * j) // 4 * 4
        assert index.receiver_frames[begin : begin + len(out)].tolist() == (-graph.offset)[out].tolist()
        assert index.receiver_nodes[begin : begin + len(out)].tolist() == (-graph.offset * 18 + graph.dst)[out].tolist()


@pytest.mark.parametrize(
    ("edge_index", "num_nodes", "message"),
    [
        (torch.tensor([[0, 3], [1, 0]]), 3, "edge 1 goes from node 3 to node 0, but the nodes are 0 to 2"),
        (torch.tensor([[0, -1], [1, 0]]), 3, "edge 1 goes from node -1"),
        (torch.tensor([[0, 1, 0], [1, 0, 1]]), 3, "the edge from node 0 to node 1 appears more than once"),
        (torch.zeros(3, 2, dtype=torch.int64), 3, r"edge_index must be \[2, E\] whole numbers, got \[3, 2\]"),
        (torch.zeros(2, 2), 3, "edge_index must be"),
        (torch.zeros(2, 0, dtype=torch.int64), 0, "num_nodes must be a whole number of at least 1, got 0"),
        (torch.zeros(2, 0, dtype=torch.int64), 3.0, r"num_nodes must be a whole number of at least 1, got 3\.0"),
        (torch.zeros(2, 0, dtype=torch.int64), True, "num_nodes must be a whole number of at least 1, got True"),
        (torch.zeros(2, 0, dtype=torch.int64), "3", "num_nodes must be a whole number of at least 1, got '3'"),
    ],
)
def test_bad_edge_lists(edge_index, num_nodes, message):
    with pytest.raises(ValueError, match=message):
        EdgeList(edge_index, num_nodes)


@pytest.mark.parametrize("hops", [0, -1, 1.5])
def test_bad_hops(hops):
    with pytest.raises(ValueError, match="hops must be a whole number of at least 1"):
        SkeletonGraph("coco18", hops)


def test_unknown_layout_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown layout 'coco19'; the built-in ones are coco17, coco18"):
        get_layout("coco19")


@pytest.mark.parametrize("mode", ["inference", "meta", "fake"])
def test_a_graph_is_not_what_the_modes_around_it_make_of_tensors(mode: str):
    """Neither where it is made nor where it is first used: a validation pass comes before a training, say."""
    around = {"inference": torch.inference_mode, "meta": lambda: torch.device("meta"), "fake": FakeTensorMode}[mode]
    used = SkeletonGraph("coco18", 1)
    used._index.clear()  # as on a device where it was not used yet
    with around():
        made = SkeletonGraph("coco18", 1)
        used.index("cpu")
    x, weight = torch.randn(1, 3, 18, 4, requires_grad=True), torch.rand(1, made.num_slots, 3, requires_grad=True)
    wanted = propagate(x, weight, SkeletonGraph("coco18", 1))
    for graph in (made, used):
        y = propagate(x, weight, graph)
        y.sum().backward()
        assert torch.equal(y, wanted)


def test_a_graph_in_fake_mode_gives_shapes():
    graph = SkeletonGraph("coco18", 1)
    with FakeTensorMode():
        y = propagate(torch.randn(2, 3, 18, 4), torch.rand(2, graph.num_slots, 3), graph)
    assert isinstance(y, FakeTensor)
    assert y.shape == (2, 3, 18, 4)


def test_slots_are_kept_in_the_order_given():
    graph = SlotGraph(torch.tensor([1, 0, 0]), [0, 1, 0], np.array([2, 0, 0]), 2)
    assert (graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist()) == ([1, 0, 0], [0, 1, 0], [2, 0, 0])
    assert (graph.hops, graph.num_joints, graph.loops.tolist()) == (2, 2, [2])
    values = torch.arange(1.0, 10).view(1, 3, 3)
    dense = graph.dense(3, values)[0]
    assert dense[0, 2 * 2 + 1] == 1  # slot 0 at frame 0, from joint 1 of frame 2
    assert dense.diagonal().tolist() == [7, 0, 8, 0, 9, 0]
    assert torch.equal(graph.edge_index(1), torch.tensor([[0, 0], [1, 0]]))


def test_a_graph_of_a_skeletons_slots_is_the_skeleton():
    skeleton = SkeletonGraph("coco17", 2)
    graph = SlotGraph(skeleton.src, skeleton.dst, skeleton.offset, 17)
    assert all(torch.equal(*pair) for pair in zip(graph.index(), skeleton.index(), strict=True))


def test_a_graph_within_frames_is_no_edge_list():
    graph = SlotGraph([0, 1], [1, 0], [0, 0], 2)
    assert graph.hops == 1
    x = torch.randn(2, 3, 2, 4)
    y = propagate(x, torch.ones(2, 2, 3), graph)
    assert torch.equal(y, x.flip(2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (([0], [1, 0], [0], 2), "src, dst and offset must have one length, got 1, 2, 1"),
        (([0.5], [1], [0], 2), r"src must be \[P\] whole numbers, got \[1\] float64"),
        (([[0]], [1], [0], 2), r"src must be \[P\] whole numbers, got \[1, 1\]"),
        (([0, 2], [1, 0], [0, 1], 2), "slot 1 goes from joint 2 to joint 0, but the joints are 0 to 1"),
        (([0, 1, 0], [1, 0, 1], [3, 0, 3], 2), "the slot from joint 0 to joint 1 at offset 3 appears more than once"),
        (([], [], [], 0), "num_src must be at least 1, got 0"),
    ],
)
def test_bad_slots(words, message: str):
    with pytest.raises(ValueError, match=message):
        SlotGraph(*words)


def test_a_graph_of_a_matrix():
    partitions = torch.zeros(2, 3, 3)
    partitions[0, 0, 1], partitions[0, 2, 2], partitions[1, 1, 0], partitions[1, 2, 2] = 2.0, 3.0, 4.0, 5.0
    graph, weight = SlotGraph.from_adjacency(partitions)
    assert (graph.dst.tolist(), graph.src.tolist()) == ([0, 1, 2], [1, 0, 2])
    assert weight.tolist() == [[2, 0, 3], [0, 4, 5]]
    x = torch.randn(1, 4, 3, 2)
    for matrix, values in zip(partitions, weight, strict=True):
        y = propagate(x, values[None, :, None].expand(1, 3, 4), graph)
        torch.testing.assert_close(y, torch.einsum("vu,ntuc->ntvc", matrix, x))
    single, weight = SlotGraph.from_adjacency(partitions[0])
    assert (single.num_slots, weight.tolist()) == (2, [2, 3])
    with pytest.raises(ValueError, match=r"adjacency must be \[V, V\] or \[K, V, V\], got \[2, 3\]"):
        SlotGraph.from_adjacency(torch.zeros(2, 3))


def random_edges(E: int, N: int, hub: bool = False) -> torch.Tensor:
    """Edges of which some come several times; with `hub` half of them lead to one node, and most nodes have none."""
    ends = torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(E))
    return torch.stack((ends[0], torch.where(torch.arange(E) % 2 == 0, 0, ends[1]))) if hub else ends


EDGES = [
    (random_edges(500, 40), 40),
    (random_edges(300, 1000, hub=True), 1000),
    (torch.zeros(2, 0, dtype=torch.int64), 3),
    (torch.zeros(2, 7).int(), 1),
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("edges", "N"), EDGES, ids=["random", "hub", "none", "one node"])
def test_edges_are_sorted_by_both_ends_and_keep_their_order(edges: torch.Tensor, N: int, compiled: bool, monkeypatch):
    monkeypatch.setattr(edge_order, "_MANY", 0 if compiled else 1 << 40)
    src, dst = edges.numpy()
    for given_edges in (edges, edges.t().contiguous().t()):
        slots, bounds = EdgeList(given_edges, N, parallel=True).index()
        for row, nodes_row, ptr_row, ends, others in ((3, 6, 0, dst, src), (4, 8, 1, src, dst)):
            order, ptr = np.lexsort((others, ends)), np.searchsorted(np.sort(ends), np.arange(N + 1))
            assert np.array_equal(slots[row, : len(src)], order)
            assert np.array_equal(bounds[ptr_row], ptr)
            place = np.arange(len(src)) + ((ptr + 3 * np.arange(N + 1)) // 4 * 4 - ptr)[ends[order]]
            nodes = np.zeros(slots.shape[1], np.int32)
            nodes[place] = others[order]
            assert np.array_equal(slots[nodes_row], nodes)
        assert np.array_equal(slots[:2, : len(src)], edges)
        assert not slots[[2, 5, 7]].any()
        assert np.array_equal(bounds[3, :-1], np.argsort(-np.bincount(dst, minlength=N), kind="stable"))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("edges", "N"), EDGES, ids=["random", "hub", "none", "one node"])
def test_a_coalesced_list_has_every_edge_once(edges: torch.Tensor, N: int, compiled: bool, monkeypatch):
    monkeypatch.setattr(edge_order, "_MANY", 0 if compiled else 1 << 40)
    graph, given_pairs = EdgeList(edges, N, coalesce=True), list(zip(*edges.tolist(), strict=True))
    pairs = list(dict.fromkeys(given_pairs))  # in the order in which they first come
    assert list(zip(*graph.edge_index().tolist(), strict=True)) == pairs
    assert graph.inverse.tolist() == [pairs.index(pair) for pair in given_pairs]
    values = torch.rand(2, len(given_pairs), dtype=torch.float64)
    merged = values.new_zeros(2, graph.num_slots).index_add(1, graph.inverse, values)
    x = torch.randn(2, N, 3, dtype=torch.float64)
    torch.testing.assert_close(propagate(x, merged, graph), propagate(x, values, EdgeList(edges, N, parallel=True)))


@pytest.mark.parametrize("coalesce", [True, False])
def test_every_node_is_given_a_loop_that_has_none(coalesce: bool):
    edges = torch.tensor([[1, 2, 0, 2, 2], [1, 0, 2, 2, 0]])
    graph = EdgeList(edges, 4, parallel=not coalesce, coalesce=coalesce, add_self_loops=True)
    kept = edges[:, :4] if coalesce else edges
    assert torch.equal(graph.edge_index(), torch.cat((kept, torch.tensor([[0, 3], [0, 3]])), 1))
    assert graph.nodes_with_loops == 4
    assert EdgeList(torch.zeros(2, 0, dtype=torch.int64), 2, add_self_loops=True).edge_index().tolist() == [[0, 1], [0, 1]]


def test_a_coalesced_list_has_no_parallel_edges():
    with pytest.raises(ValueError, match="give coalesce or parallel, not both"):
        EdgeList(torch.zeros(2, 3, dtype=torch.int64), 2, parallel=True, coalesce=True)


def test_an_edge_twice_in_a_large_list_is_named(monkeypatch):
    monkeypatch.setattr(edge_order, "_MANY", 0)
    with pytest.raises(ValueError, match="the edge from node 2 to node 1 appears more than once; merge repeated ones with coalesce=True"):
        EdgeList(torch.tensor([[0, 2, 1, 2], [1, 1, 2, 1]]), 3)
    with pytest.raises(ValueError, match="edge 2 goes from node 1 to node 3"):
        EdgeList(torch.tensor([[0, 2, 1, 2], [1, 1, 3, 1]]), 3)


def test_parallel_edges_have_no_place_in_a_matrix():
    graph = EdgeList(torch.tensor([[0, 1, 0], [1, 1, 1]]), 2, parallel=True)
    with use_backend("reference"), pytest.raises(ValueError, match="one entry for two nodes, and this EdgeList has parallel edges; merge them first"):
        propagate(torch.ones(1, 2, 3), torch.ones(1, 3), graph)
