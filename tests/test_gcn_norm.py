import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, lifted, names

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.ops import gcn_norm


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, backend: str):
    kept = (case.edges() > 0.3).double()  # removed edges have gradients too
    assert_matches_reference(lambda kept: gcn_norm(kept, case.graph, case.length_tensor()), [kept], backend)
    assert_matches_reference(lambda kept: gcn_norm(kept, case.graph, case.length_tensor()), [case.edges().abs()], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slot_that_reaches_beyond_the_walk_takes_nobodys_place(backend: str):
    graph = SlotGraph([0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1], [0, -7, 5, -9, 1, -1], 2)
    case = Case("beyond", graph, 2, 3, 1, [3, 1])
    assert_matches_reference(lambda kept: gcn_norm(kept, graph, case.length_tensor()), [case.edges().abs()], backend)
    assert_matches_reference(lambda kept: gcn_norm(kept, graph), [case.edges().abs()], backend)


def test_a_path_by_hand():
    graph = EdgeList(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
    weight, self_weight = gcn_norm(torch.ones(1, 4), graph)
    torch.testing.assert_close(self_weight[0], torch.tensor([1 / 2, 1 / 3, 1 / 2]))
    torch.testing.assert_close(weight[0], torch.full((4,), 6**-0.5))


def test_removed_edges_have_gradients():
    graph = SkeletonGraph("coco18", 1)
    kept = torch.zeros(1, 72, 4, requires_grad=True)
    weight, _ = gcn_norm(kept, graph)
    weight.sum().backward()
    assert torch.equal(kept.grad[0], graph.edge_mask(4).float())  # dw/dkept = 1 where all degrees are 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck_and_gradcheck(case: Case, backend: str):
    (kept,) = lifted(case, [], [case.edges().abs()])
    rest = (case.length_tensor(), *case.graph.index(), 1.0, case.graph.num_joints, case.graph.hops, backend)
    torch.library.opcheck(torch.ops.fastst.gcn_norm.default, (kept, *rest))
    assert torch.autograd.gradcheck(lambda kept: torch.ops.fastst.gcn_norm(kept, *rest), (kept,), fast_mode=True)


def test_degrees_are_exact_in_half_precision():
    graph = SkeletonGraph("coco18", 3)
    kept = graph.edge_mask(9)[None].float()
    exact, half = gcn_norm(kept, graph), gcn_norm(kept.bfloat16(), graph)
    for wanted, found in zip(exact, half, strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, wanted.bfloat16())
