import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, lifted, names
from torch import Tensor

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.ops import message, use_backend

ACTIVATIONS = ["relu", "leaky_relu", "none"]


def edge_attr(case: Case, shared: str = "", dtype: torch.dtype = torch.float64) -> Tensor:
    """Features of every edge, not contiguous in memory; or those that all frames share, or all walks too."""
    frames = () if case.is_edge_list else (1 if shared else case.T,)
    walks = () if shared == "walks" else (case.B,)
    values = torch.randn(*frames, case.C, case.graph.num_slots, *walks, dtype=dtype, generator=generator(5))
    values = values.movedim(-1, 0) if walks else values
    values = values.movedim(-1, 1 if walks else 0)  # [(B,) P, (T,) C]
    return values.squeeze(1) if shared == "walks" and not case.is_edge_list else values


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shared", ["", "frames", "walks"])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, shared: str, activation: str, backend: str):
    def run(x, edges, weight=None):
        return message(x, edges, weight, case.graph, activation, case.length_tensor(), negative_slope=0.3)

    for weight in ([case.edges()], []):
        assert_matches_reference(run, [case.nodes(), edge_attr(case, shared), *weight], backend)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_walk_without_frames(backend: str):
    x, edges = torch.randn(2, 0, 3, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    with use_backend(backend):
        message(x, edges, None, SlotGraph([0], [1], [0], 3)).sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(edges.grad, torch.zeros(1, 4))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_is_the_sum_over_the_edges(backend: str):
    """Edge by edge."""
    graph, T, lengths = SlotGraph([2, 0, 1, 1, 2], [0, 0, 2, 1, 2], [-3, 0, 1, 0, 2], 4), 5, [5, 3]
    x, edges, weight = (torch.randn(2, *sizes, dtype=torch.float64) for sizes in ((T, 4, 3), (5, T, 3), (5, T)))
    wanted = torch.zeros(2, T, 4, 3, dtype=torch.float64)
    for b, length in enumerate(lengths):
        for t in range(length):
            for p, (src, dst, offset) in enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)):
                if 0 <= t + offset < length:
                    wanted[b, t, dst] += weight[b, p, t] * (x[b, t + offset, src] + edges[b, p, t]).clamp(min=0)
    with use_backend(backend):
        torch.testing.assert_close(message(x, edges, weight, graph, lengths=torch.tensor(lengths)), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck(case: Case, backend: str):
    x, weight = lifted(case, [case.nodes()], [case.edges()])
    edges = (edge_attr(case).unsqueeze(2) if case.is_edge_list else edge_attr(case)).detach().requires_grad_()
    args = (x, edges, weight, case.length_tensor(), *case.graph.index(), case.graph.hops, 0.2, backend)
    torch.library.opcheck(torch.ops.fastst.message.default, args)


@pytest.mark.parametrize("shared", ["", "walks"])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_gradcheck(case: Case, shared: str):
    inputs = [v.detach().requires_grad_() for v in (case.nodes(), edge_attr(case, shared), case.edges())]
    assert torch.autograd.gradcheck(lambda *v: message(*v, case.graph, "leaky_relu", case.length_tensor()), inputs, fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_an_edge_of_weight_0_can_return(backend: str):
    graph = EdgeList(torch.tensor([[0], [1]]), 2)
    x, edges, weight = torch.tensor([[[1.0, -3.0], [5.0, 5.0]]]), torch.tensor([[[2.0, 1.0]]]), torch.zeros(1, 1, requires_grad=True)
    with use_backend(backend):
        y = message(x, edges, weight, graph)
    assert not y.any()
    assert torch.autograd.grad(y, weight, torch.tensor([[[7.0, 7.0], [10.0, 100.0]]]))[0].tolist() == [[30.0]]


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_infinite_and_no_number(activation: str, backend: str):
    graph = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2)
    x = torch.tensor([[[float("inf"), float("-inf"), float("nan"), 1.0], [2.0, -2.0, 0.0, -1.0]]]).requires_grad_()
    edges = torch.tensor([[0.0, 1.0, 2.0, -1.0], [float("-inf"), 2.0, float("inf"), 1.0]]).requires_grad_()
    act = {"relu": torch.relu, "leaky_relu": lambda v: torch.nn.functional.leaky_relu(v, 0.01), "none": lambda v: v}[activation]
    with use_backend(backend):
        found = message(x, edges, None, graph, activation)
    wanted = act(x + edges).flip(1)
    torch.testing.assert_close(found, wanted, equal_nan=True)
    for pair in zip(*(torch.autograd.grad(y.sum(), (x, edges)) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(*pair, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_does_not_exist_is_never_read(backend: str):
    graph, lengths = SkeletonGraph("coco17", 2), torch.tensor([3])
    x, edges, weight = torch.randn(1, 6, 17, 4), torch.randn(1, graph.num_slots, 6, 4), torch.randn(1, graph.num_slots, 6)
    nothing = ~graph.edge_mask(6, lengths)
    with use_backend(backend):
        alone = message(x[:, :3], edges[:, :, :3], weight[..., :3], graph)
        x[:, 3:], edges[nothing], weight[nothing] = (float("nan"),) * 3
        leaves = [v.requires_grad_() for v in (x, edges, weight)]
        y = message(*leaves, graph, lengths=lengths)
        gradients = torch.autograd.grad(y[:, :3].sum(), leaves)
    torch.testing.assert_close(y[:, :3], alone)
    assert not y[:, 3:].any()
    for gradient, empty in zip(gradients, (torch.arange(6)[None] >= 3, nothing, nothing), strict=True):
        assert gradient.isfinite().all()
        assert not gradient[empty].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [[True, False, False], [False, True, False], [False, False, True], [True, False, True]], ids=str)
def test_gradients_that_nobody_wants_are_not_made(wanted: list[bool], backend: str):
    for case in (CASES[4], CASES[10]):
        inputs = [v.requires_grad_(wants) for v, wants in zip((case.nodes(), edge_attr(case), case.edges()), wanted, strict=True)]
        leaves, found = [v for v in inputs if v.requires_grad], []
        for name in ("reference", backend):
            with use_backend(name):
                found.append(torch.autograd.grad(message(*inputs, case.graph, lengths=case.length_tensor()).square().sum(), leaves))
        for pair in zip(*found, strict=True):
            torch.testing.assert_close(*pair)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shared", ["", "walks"])
def test_half_precision_features_with_float32_weights(shared: str, dtype: torch.dtype, backend: str):
    case = Case("", SkeletonGraph("coco18", 1), 2, 5, 19)
    inputs = [case.nodes(dtype=torch.float32).to(dtype), edge_attr(case, shared, torch.float32).to(dtype), case.edges(dtype=torch.float32)]
    results = []
    for name, kinds in (("reference", [torch.float64] * 3), (backend, [dtype, dtype, torch.float32])):
        leaves = [v.to(kind).requires_grad_() for v, kind in zip(inputs, kinds, strict=True)]
        with use_backend(name):
            y = message(*leaves, case.graph)
        results.append([y, *torch.autograd.grad(y.sum(), leaves)])
    assert [v.dtype for v in results[1]] == [dtype, dtype, dtype, torch.float32]
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=0.1, rtol=0.02)


def test_threads_do_not_change_a_bit():
    case = Case("", SkeletonGraph("coco18", 1), 3, 9, 20)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = [v.detach().requires_grad_() for v in (case.nodes(), edge_attr(case, "walks"), case.edges())]
            with use_backend("cpu"):
                y = message(*leaves, case.graph)
            results.append([y, *torch.autograd.grad(y.sin().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for other in results[1:] for pair in zip(results[0], other, strict=True))


def test_compiles_in_one_graph():
    graph = SkeletonGraph("coco18", 1)
    compiled = torch.compile(lambda x, e, w: message(x * 2, e, w, graph).relu(), fullgraph=True, dynamic=True)
    for T in (5, 9):
        leaves = [torch.randn(2, *sizes, requires_grad=True) for sizes in ((T, 18, 4), (72, T, 4), (72, T))]
        y, wanted = compiled(*leaves), message(leaves[0] * 2, *leaves[1:], graph).relu()
        torch.testing.assert_close(y, wanted)
        for pair in zip(*(torch.autograd.grad(v.sum(), leaves) for v in (y, wanted)), strict=True):
            torch.testing.assert_close(*pair)


def test_equals_gineconv_of_pytorch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed (extra `peers`)")
    graph, T, lengths = SkeletonGraph("coco18", 2), 4, torch.tensor([4, 4])
    conv = geometric.GINEConv(torch.nn.Identity(), eps=-1.0)
    x, edges = torch.randn(2, T, 18, 6), torch.randn(2, graph.num_slots, T, 6)
    theirs = conv(x.reshape(-1, 6), graph.edge_index(T, lengths), edges[graph.edge_mask(T, lengths)])
    torch.testing.assert_close(message(x, edges, None, graph), theirs.view(x.shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"edge_attr": torch.zeros(2, 71, 5, 4)},
            ValueError,
            r"edge_attr must be \[B, P, T, C\], \[B, P, 1, C\] or \[P, C\] .* C = 4, got \[2, 71, 5, 4\]",
        ),
        ({"edge_attr": torch.zeros(1, 72, 5, 4)}, ValueError, r"edge_attr must be .* got \[1, 72, 5, 4\]"),
        ({"edge_attr": torch.zeros(72, 3)}, ValueError, r"edge_attr must be .* C = 4, got \[72, 3\]"),
        ({"edge_attr": torch.zeros(72)}, ValueError, r"edge_attr must be .* got \[72\]"),
        ({"edge_attr": torch.zeros(72, 4, dtype=torch.float64)}, TypeError, "edge_attr must have the dtype of x, torch.float32, got torch.float64"),
        ({"edge_attr": torch.zeros(72, 4, device="meta")}, ValueError, "edge_attr is on meta, but x is on cpu"),
        ({"edge_weight": torch.zeros(2, 72, 4)}, ValueError, r"edge_weight must be \[B, P, T\] with B = 2, P = 72"),
        ({"edge_weight": torch.zeros(2, 72, 5, device="meta")}, ValueError, "edge_weight is on meta, but x is on cpu"),
        ({"activation": "tanh"}, ValueError, "activation must be one of relu, leaky_relu, none, got 'tanh'"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, ValueError, r"lengths must be \[B\] with B = 2, got \[3\]"),
    ],
)
def test_errors_name_the_argument(change, error, text):
    arguments = {"x": torch.zeros(2, 5, 18, 4), "edge_attr": torch.zeros(72, 4), "edge_weight": None, "graph": SkeletonGraph("coco18", 1)}
    with pytest.raises(error, match=text):
        message(**{**arguments, **change})


def test_errors_of_an_edge_list():
    graph = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2)
    with pytest.raises(ValueError, match=r"edge_attr must be \[B, E, C\] or \[E, C\] with B = 3, E = 2, C = 4, got \[3, 2, 1, 4\]"):
        message(torch.zeros(3, 2, 4), torch.zeros(3, 2, 1, 4), None, graph)
    with pytest.raises(ValueError, match="lengths counts frames"):
        message(torch.zeros(3, 2, 4), torch.zeros(2, 4), None, graph, lengths=torch.ones(3, dtype=torch.int64))
