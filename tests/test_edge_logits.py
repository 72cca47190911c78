import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, lifted, names

from fastst import SkeletonGraph
from fastst.ops import edge_logits, use_backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, with_bias: bool, backend: str):
    def run(q, k, bias=None):
        return edge_logits(q, k, case.graph, bias, case.length_tensor())

    bias = torch.arange(1.0, case.graph.num_slots + 1, dtype=torch.float64)
    assert_matches_reference(run, [case.nodes(), 2 * case.nodes() + 1] + ([bias] if with_bias else []), backend)


def test_one_edge_by_hand():
    graph = SkeletonGraph("coco18", 1)
    slot = next(p for p in range(72) if (graph.dst[p], graph.src[p], graph.offset[p]) == (13, 15, 0))  # knee from ankle
    q, k, bias = torch.zeros(1, 2, 18, 2), torch.zeros(1, 2, 18, 2), torch.zeros(72)
    q[0, 1, 13], k[0, 1, 15], bias[slot] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), 0.5
    logits = edge_logits(q, k, graph, bias)
    assert logits[0, slot].tolist() == [0.5, 11.5]
    assert logits.count_nonzero() == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck_and_gradcheck(case: Case, backend: str):
    q, k = lifted(case, [case.nodes(), case.nodes() + 1], [])
    bias = torch.zeros(case.graph.num_slots, dtype=torch.float64, requires_grad=True)
    rest = (case.length_tensor(), *case.graph.index(), case.graph.hops, backend)
    torch.library.opcheck(torch.ops.fastst.edge_logits.default, (q, k, bias, *rest))
    assert torch.autograd.gradcheck(lambda *x: torch.ops.fastst.edge_logits(*x, *rest), (q, k, bias), fast_mode=True)


def test_half_precision_gives_float32_logits():
    graph = SkeletonGraph("coco18", 1)
    q, k = torch.randn(2, 1, 3, 18, 8).bfloat16().requires_grad_().unbind()
    logits = edge_logits(q, k, graph)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, edge_logits(q.float(), k.float(), graph))
    assert torch.autograd.grad(logits.sum(), q)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": torch.zeros(2, 5, 18, 3)}, ValueError, r"k must have the shape of q, \[2, 5, 18, 4\], got \[2, 5, 18, 3\]"),
        ({"k": torch.zeros(2, 5, 18, 4).double()}, TypeError, "k must have the dtype of q"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias must be \[72\], one value for every slot"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"q": torch.zeros(2, 5, 18, 4), "k": torch.zeros(2, 5, 18, 4), "graph": SkeletonGraph("coco18", 1)}
    with pytest.raises(error, match=message):
        edge_logits(**{**arguments, **change})


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_the_bias_does_not_change_the_dtype(backend: str):
    graph = SkeletonGraph("coco18", 1)
    q = torch.randn(1, 3, 18, 4)
    with use_backend(backend):
        assert edge_logits(q, q, graph, torch.zeros(graph.num_slots, dtype=torch.float64)).dtype == torch.float32
    with pytest.raises(TypeError, match="bias must be a tensor, got list"):
        edge_logits(q, q, graph, [0.0])
