import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, lifted, names

from fastst import EdgeList, SkeletonGraph
from fastst.ops import attend


def attention(case: Case, heads: int) -> torch.Tensor:
    return torch.randn(heads, case.C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, heads: int, backend: str):
    def run(x_src, x_dst, att):
        return attend(x_src, x_dst, att, case.graph, heads, lengths=case.length_tensor())

    C = heads * case.C
    assert_matches_reference(run, [case.nodes(C), case.nodes(C).flip(-1), attention(case, heads)], backend)


def test_large_scores_do_not_overflow():
    graph = SkeletonGraph("coco18", 1)
    x = torch.randn(1, 3, 18, 4)
    y = attend(1e4 * x, 1e4 * x, torch.ones(1, 4), graph, 1)
    assert y.isfinite().all()


def test_one_neighbour_is_copied_and_no_neighbour_gives_zero():
    graph = EdgeList(torch.tensor([[0], [1]]), 3)
    x = torch.randn(1, 3, 4)
    y = attend(x, x, torch.randn(2, 2), graph, 2)
    torch.testing.assert_close(y[0, 1], x[0, 0])
    assert (y[0, [0, 2]] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck_and_gradcheck(case: Case, backend: str):
    x_src, x_dst = lifted(case, [case.nodes(), case.nodes().flip(-1)], [])
    att = attention(case, 1).requires_grad_()
    rest = (case.length_tensor(), *case.graph.index(), case.graph.slots_of_offset, 0.2, backend)
    torch.library.opcheck(torch.ops.fastst.attend.default, (x_src, x_dst, att, *rest))
    assert torch.autograd.gradcheck(lambda *x: torch.ops.fastst.attend(*x, *rest)[0], (x_src, x_dst, att), fast_mode=True)


def test_equals_gatv2conv_of_pytorch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed (extra `peers`)")
    graph, T = SkeletonGraph("coco18", 2), 4
    conv = geometric.GATv2Conv(6, 3, heads=2, add_self_loops=False)
    x = torch.randn(2, T, 18, 6)
    lengths = torch.tensor([4, 4])
    ours = attend(conv.lin_l(x), conv.lin_r(x), conv.att[0], graph, 2) + conv.bias
    theirs = conv(x.reshape(-1, 6), graph.edge_index(T, lengths)).view(2, T, 18, 6)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heads": 3}, ValueError, "heads must divide the channels C = 4, got 3"),
        ({"att": torch.zeros(4)}, ValueError, r"att must be \[heads, C // heads\] = \[2, 2\], got \[4\]"),
        ({"x_dst": torch.zeros(2, 4, 18, 4)}, ValueError, "x_dst must have the shape of x_src"),
        ({"edge_attr": torch.zeros(71, 4)}, ValueError, r"edge_attr must be \[B, P, T, C\], .* with B = 2, P = 72 as in .*, C = 4, got \[71, 4\]"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    x = torch.zeros(2, 5, 18, 4)
    arguments = {"x_src": x, "x_dst": x, "att": torch.zeros(2, 2), "graph": SkeletonGraph("coco18", 1), "heads": 2}
    with pytest.raises(error, match=message):
        attend(**{**arguments, **change})
