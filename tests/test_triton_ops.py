"""Sampling, normalisation and attention in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import mmap
from collections.abc import Callable

import numpy as np
import pytest
import torch
from graphs import CASES, Case, generator, lifted, names
from torch import Tensor
from triton_cases import CHAIN, DEVICE, FEW_SLOTS, LONG, SHORT, SMALL, TOLERANCES, assert_matches, lengths_of

from fastst import EdgeList, Layout, SkeletonGraph, SlotGraph
from fastst.ops import (
    Sampling,
    attend,
    edge_logits,
    gcn_norm,
    mean_average_distance,
    message,
    propagate,
    sample_edges,
    sample_from_embeddings,
    use_backend,
)

triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language
from csrc_triton import attend as attend_kernels  # noqa: E402
from csrc_triton import gcn_norm as norm_kernels  # noqa: E402
from csrc_triton import sample_edges as sample_kernels  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero encountered", "ignore:overflow encountered")


def check_attend(case: Case, heads: int, dtype: torch.dtype = torch.float64, atol: float = 1e-9, negative_slope: float = 0.2) -> None:
    def function(x_src, x_dst, att):
        return attend(x_src, x_dst, att, case.graph, heads, negative_slope, lengths=lengths_of(case, x_src))

    C = heads * case.C
    att = torch.randn(heads, case.C, dtype=torch.float64, generator=generator(3))
    assert_matches(function, [x.to(dtype) for x in (case.nodes(C), case.nodes(C).flip(-1), att)], atol)


@pytest.mark.parametrize("case", [*FEW_SLOTS, LONG], ids=names)
def test_gcn_norm_matches_the_reference(case: Case):
    assert_matches(lambda kept: gcn_norm(kept, case.graph, lengths_of(case, kept)), [(case.edges() > 0.3).double()])


@pytest.mark.parametrize("case", [*SMALL, SHORT], ids=names)
def test_gcn_norm_of_any_weights(case: Case):
    assert_matches(lambda kept: gcn_norm(kept, case.graph, lengths_of(case, kept)), [case.edges().abs()])


@pytest.mark.parametrize("case", FEW_SLOTS, ids=names)
def test_attend_matches_the_reference(case: Case):
    check_attend(case, heads=1 if case.graph.num_joints > 6 else 3)


@pytest.mark.parametrize(("case", "heads"), [(SHORT, 1), (SHORT, 5), (LONG, 3)], ids=str)
def test_attend_on_odd_sizes(case: Case, heads: int):
    check_attend(case, heads)


@pytest.mark.parametrize("negative_slope", [-0.3, 0.0, 1.0, 1.5])
def test_attend_with_any_slope(negative_slope: float):
    check_attend(SHORT, 2, negative_slope=negative_slope)


def test_attend_on_tiles_without_masks():
    """Six slots: four at a time, and two."""
    case = Case("", SkeletonGraph(Layout.custom(["a"], [], "a"), 3), 2, 40, 9, [40, 27])
    heads, tile = 4, attend_kernels._tile(40, 4, 9, 8)[0]
    assert case.lengths is not None
    assert case.lengths[0] - 2 * tile["BR"] // heads > 2 * case.graph.hops  # some tile is away from both ends
    check_attend(case, heads)


def test_attend_on_large_scores_and_without_edges():
    graph = EdgeList(torch.tensor([[0], [1]]), 3)
    x = torch.randn(1, 3, 4, device=DEVICE)
    with use_backend("triton"):
        y = attend(x, x, torch.randn(2, 2, device=DEVICE), graph, 2)
        torch.testing.assert_close(y[0, 1], x[0, 0])
        assert (y[0, [0, 2]] == 0).all()
        assert attend(1e4 * x, 1e4 * x, torch.ones(1, 4, device=DEVICE), EdgeList(torch.tensor([[0, 1], [2, 2]]), 3), 1).isfinite().all()


def test_gradients_of_attend_where_scores_are_large():
    """Forward and backward have to round a score of 10⁴ alike, for α is the power of a difference of such scores."""
    graph = SkeletonGraph(Layout.custom(["a", "b", "c"], [(0, 1), (1, 2)], "chain"), 2)
    x_src, x_dst = (1e4 * torch.randn(1, 12, 3, 16, generator=generator(seed)) for seed in (0, 1))
    att, dy = torch.randn(2, 8, generator=generator(2)), torch.randn(1, 12, 3, 16, generator=generator(3))
    found = {}
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        leaves = [x.to(DEVICE, dtype).requires_grad_() for x in (x_src, x_dst, att)]
        with use_backend(backend):
            found[backend] = torch.autograd.grad(attend(*leaves, graph, 2), leaves, dy.to(DEVICE, dtype))
    largest = found["reference"][0].abs().max()  # the others vanish, as all of a softmax is one edge's
    for wanted, gradient in zip(found["reference"], found["triton"], strict=True):
        assert (gradient - wanted).abs().max() <= 1e-6 * largest


def test_attend_after_scores_of_minus_infinity():
    """Sums that overflow: more of them than are taken at once, then one that does not."""
    x = torch.full((1, 41, 4), 1e30)
    x[:, -1] = 1
    senders = torch.tensor([*range(1, 40), 40])
    graph = EdgeList(torch.stack((senders, torch.zeros_like(senders))), 41)
    with use_backend("triton"):
        y = attend(x.to(DEVICE), torch.zeros_like(x).to(DEVICE), torch.full((1, 4), -1e10).to(DEVICE), graph, 1)
    assert torch.equal(y[0, 0].cpu(), x[0, -1])


def check_message(case: Case, shared: bool, weighted: bool, dtype: torch.dtype = torch.float64, atol: float = 1e-9, activation: str = "relu") -> None:
    def function(x, edges, weight=None):
        return message(x, edges, weight, case.graph, activation, lengths_of(case, x), negative_slope=0.3)

    walks, frames = () if shared else (case.B,), () if shared or case.is_edge_list else (case.T,)
    edges = torch.randn(*walks, case.graph.num_slots, *frames, case.C, dtype=torch.float64, generator=generator(5))
    assert_matches(function, [v.to(dtype) for v in (case.nodes(), edges, *([case.edges()] if weighted else []))], atol)


MESSAGES = [case for case in FEW_SLOTS if case.B * case.graph.num_slots * case.T <= 120]  # sizes and lengths as they come, and lists of edges


@pytest.mark.parametrize("case", MESSAGES, ids=names)
def test_message_matches_the_reference(case: Case):
    check_message(case, shared=False, weighted=True)


@pytest.mark.parametrize("case", [CASES[8], CASES[10]], ids=names)
def test_message_of_shared_edges(case: Case):
    check_message(case, shared=True, weighted=False, activation="leaky_relu")


def test_message_of_edges_that_frames_share_on_tiles_without_masks():
    """Three slots into the joint: two at a time or four, and what is left; more channels than a program has."""
    case = Case("", SlotGraph([0, 0, 0, 0, 0], [0] * 5, [-1, 0, 1, 2, -2], 1), 1, 20, 70, [19])
    check_message(case, shared=False, weighted=True, activation="none")
    x, edges = case.nodes(), torch.randn(1, 5, 1, 70, dtype=torch.float64, generator=generator(5))
    assert_matches(lambda x, e: message(x, e, None, case.graph, lengths=lengths_of(case, x)), [x, edges])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_message_of_every_dtype(dtype: torch.dtype):
    case = Case("", SlotGraph([0, 1, 1], [1, 0, 0], [0, -1, 0], 2), 1, 4, 5)
    check_message(case, False, True, dtype, TOLERANCES[dtype])
    check_message(case, True, True, dtype, TOLERANCES[dtype])


def test_message_of_what_is_no_number():
    graph, x, edges = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2), torch.ones(1, 2, 3), torch.zeros(2, 3)
    x[0, 0, 0], edges[1] = float("nan"), float("-inf")
    with use_backend("triton"):
        y = message(x.to(DEVICE), edges.to(DEVICE), None, graph).cpu()
    torch.testing.assert_close(y, torch.tensor([[[0.0, 0, 0], [float("nan"), 1, 1]]]), equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_features_of_every_dtype(dtype: torch.dtype):
    check_attend(SHORT, 3, dtype, TOLERANCES[dtype])
    kept = (SHORT.edges() > 0.3).to(dtype)
    assert_matches(lambda kept: gcn_norm(kept, CHAIN, lengths_of(SHORT, kept)), [kept], TOLERANCES[dtype])
    logits = SHORT.edges().to(dtype).to(DEVICE).requires_grad_()
    with use_backend("triton"):
        sample = sample_edges(logits, CHAIN, seed=3, estimator="sigmoid")
        (gradient,) = torch.autograd.grad(sample.sum(), logits)
        q = SHORT.nodes().to(dtype).to(DEVICE)
        assert sample_from_embeddings(q, q, CHAIN, seed=3).dtype == torch.float32
    with use_backend("torch"):
        exact = logits.detach().double().requires_grad_()
        wanted = sample_edges(exact, CHAIN, seed=3, estimator="sigmoid")
        (wanted_gradient,) = torch.autograd.grad(wanted.sum(), exact)
    assert sample.dtype == gradient.dtype == dtype
    assert torch.equal(sample.double(), wanted)
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("shape", ["P", "1PT"])
def test_propagate_with_shared_weights(shape: str):
    x, P = torch.randn(2, 3, 4, 2, dtype=torch.float64, generator=generator()), CHAIN.num_slots
    weight = torch.randn(P if shape == "P" else (1, P, 3), dtype=torch.float64, generator=generator(1))
    assert_matches(lambda x, weight: propagate(x, weight, CHAIN, lengths=torch.tensor([3, 2], device=x.device)), [x, weight])


def test_what_stands_beyond_the_lengths_does_not_matter():
    """NaN in the frames and edges that a walk does not have, in inputs and output gradients."""
    lengths, C = torch.tensor([7, 4], device=DEVICE), 6
    frames, edges = torch.arange(7, device=DEVICE) < lengths[:, None], CHAIN.edge_mask(7, lengths)
    values, nodes, att = SHORT.edges().to(DEVICE), SHORT.nodes(C).to(DEVICE), torch.randn(2, 3, dtype=torch.float64, device=DEVICE)

    def poisoned(x: Tensor, there: Tensor) -> Tensor:
        return torch.where(there, x, torch.nan).requires_grad_()

    x = poisoned(nodes, frames[:, :, None, None])
    logits, kept = poisoned(values, edges), poisoned((values > 0).double(), edges)
    with use_backend("triton"):
        outputs = {
            "attend": attend(x, x, att, CHAIN, 2, lengths=lengths),
            "sample_edges": sample_edges(logits, CHAIN, seed=1, estimator="sigmoid", lengths=lengths),
        }
        kept_of_nodes, information = sample_from_embeddings(x, x, CHAIN, seed=1, lengths=lengths, prior=0.5)
        outputs["sample_from_embeddings"] = kept_of_nodes
        assert information.isfinite().all()
        outputs["weight"], outputs["self_weight"] = gcn_norm(kept, CHAIN, lengths)
        gradients = []
        for name, y in outputs.items():
            there = edges if y.shape == edges.shape else frames.view(2, 7, *[1] * (y.ndim - 2))
            assert y.isfinite().all(), name
            assert (torch.where(there, 0, y) == 0).all(), name
            gradients.append(torch.where(there, 1, torch.nan).expand(y.shape).to(y.dtype))
        for gradient, there in zip(
            torch.autograd.grad(list(outputs.values()), [x, logits, kept], gradients), [frames[:, :, None, None], edges, edges], strict=True
        ):
            assert gradient.isfinite().all()
            assert (torch.where(there, 0, gradient) == 0).all()


def test_nan_at_an_edge_shows():
    x, logits = torch.randn(1, 4, 4, 2, device=DEVICE), torch.zeros(1, CHAIN.num_slots, 4, device=DEVICE)
    with use_backend("triton"):
        x[0, 1, 2] = torch.nan
        y = attend(x, x, torch.ones(1, 2, device=DEVICE), CHAIN, 1)
        reached = CHAIN.dense(4)[:, 1 * 4 + 2].view(4, 4).bool()
        reached[1, 2] = True  # as a receiver it scores its neighbours with NaN
        assert torch.equal(y[0].isnan().all(-1).cpu(), reached)
        logits[0, 0] = torch.nan
        kept = sample_edges(logits, CHAIN, seed=0)
        assert torch.equal(kept[0, 0].isnan().cpu(), CHAIN.edge_mask(4)[0])
        assert kept[0, 1:].isfinite().all()


@pytest.mark.parametrize("case", [CASES[-3], CASES[-4]], ids=names)
def test_opcheck(case: Case):
    logits, x = lifted(case, [], [case.edges()])[0], lifted(case, [case.nodes()], [])[0]
    att = torch.randn(1, case.C, dtype=torch.float64)
    logits, x, att = (leaf.detach().to(DEVICE).requires_grad_() for leaf in (logits, x, att))
    ops, graph, index, lengths = torch.ops.fastst, case.graph, case.graph.index(DEVICE), lengths_of(case, x)
    ids, seed, prior = torch.arange(case.B, device=DEVICE), torch.tensor(-3), torch.tensor(0.3)
    rest = (graph.hops, Sampling(estimator="sigmoid").numbers(), "triton")
    torch.library.opcheck(ops.sample_edges.default, (logits, ids, lengths, *index, seed, *rest))
    for r in (None, prior):
        torch.library.opcheck(ops.sample_from_embeddings.default, (x, x, None, ids, lengths, *index, seed, r, *rest))
    torch.library.opcheck(
        ops.gcn_norm.default, (logits.detach().abs().requires_grad_(), lengths, *index, 1.0, graph.num_joints, graph.hops, "triton")
    )
    torch.library.opcheck(ops.attend.default, (x, x, att, lengths, *index, graph.slots_of_offset, 0.2, "triton"))


def test_the_same_result_every_time():
    x = SHORT.nodes(6).float().to(DEVICE).requires_grad_()
    att = torch.randn(2, 3, device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        first, second = (torch.autograd.grad(attend(x, x, att, CHAIN, 2).square().sum(), [x, att]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sizes", [(0, 3), (2, 0)], ids=["no walk", "no frame"])
def test_nothing_to_do(sizes: tuple[int, int]):
    B, T = sizes
    values, x = torch.zeros(B, CHAIN.num_slots, T, device=DEVICE), torch.zeros(B, T, 4, 6, device=DEVICE)
    with use_backend("triton"):
        assert sample_edges(values, CHAIN, seed=0).shape == values.shape
        assert gcn_norm(values, CHAIN)[1].shape == (B, T, 4)
        assert attend(x, x, torch.zeros(2, 3, device=DEVICE), CHAIN, 2).shape == x.shape
        assert sample_from_embeddings(x, x, CHAIN, seed=0).shape == values.shape
        assert torch.equal(sample_from_embeddings(x, x, CHAIN, seed=0, prior=0.5)[1], torch.zeros(B, device=DEVICE))


@pytest.mark.parametrize(("B", "T"), [(2, 0), (0, 3)])
def test_shared_edges_of_nothing_have_the_gradient_0(B: int, T: int):
    x, edges = torch.randn(B, T, 4, 3, device=DEVICE, requires_grad=True), torch.randn(CHAIN.num_slots, 3, device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        (gradient,) = torch.autograd.grad(message(x, edges, None, CHAIN).sum(), edges)
    assert torch.equal(gradient, torch.zeros_like(edges))


@pytest.fixture
def huge(much_memory: Callable[[int, torch.dtype], Tensor]) -> Callable[[], Tensor]:
    """Makes tensors of 9 GiB, of which on a CPU only what is touched takes memory."""

    def make() -> Tensor:
        if DEVICE == "cuda":
            return much_memory(9 << 29, torch.float16)
        memory = mmap.mmap(-1, 9 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000))
        return torch.from_numpy(np.frombuffer(memory, np.float16))

    return make


def test_edges_beyond_32_bits(huge: Callable[[], Tensor]):
    """The first frames of a walk of 2²⁸: the grid holds only the program that has them, and the last of its slots lies 15 · 2²⁸ away."""
    T, near, P = 1 << 28, 16, 16
    logits, kept = huge().as_strided((P, near), (T, 1)), huge().as_strided((P, near), (T, 1))
    logits.copy_(torch.randn(P, near, generator=generator()))
    slots, ids = torch.zeros(9, P, dtype=torch.int32, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    numbers = {"rows": P, "columns": T, "slots_row": P, "LOGISTIC": False, "LIST": False, "QUADS": True, "BR": P, "BC": near}
    sample_kernels._sample[(1,)](logits, kept, ids, None, slots, None, 3, 2.0, 1e-10, **numbers)
    no_joints = torch.zeros(3, 1, dtype=torch.int32, device=DEVICE)  # so that all columns of the table are slots
    options = torch.tensor(3), 1, Sampling().numbers(), "torch"
    wanted = torch.ops.fastst.sample_edges(logits[None].contiguous(), ids, None, slots, no_joints, *options)
    assert torch.equal(kept, wanted[0])


def test_weights_beyond_32_bits(huge: Callable[[], Tensor]):
    T, near, P = 1 << 28, 16, 16
    kept, weight, root = (huge().as_strided((P, near), (T, 1)) for _ in range(3))
    kept.fill_(1)
    root.copy_(torch.rand(P, near, generator=generator()))
    joint = torch.arange(P, dtype=torch.int32, device=DEVICE)
    slots = torch.stack((joint, joint, torch.zeros_like(joint)))
    norm_kernels._weights[(1,)](kept, root, weight, None, slots, T, P, P, slots_row=P, BP=P, BT=near)
    torch.testing.assert_close(weight, root * root)


def test_features_beyond_32_bits(huge: Callable[[], Tensor]):
    """Joint 0 of a graph of 2²⁷ joints in two frames, which lie 2³¹ channels apart; it has an edge from itself in either frame."""
    J, W = 1 << 27, 16
    x, y = (huge().as_strided((2, W), (J * W, 1)) for _ in range(2))
    x.copy_(torch.randn(2, W, generator=generator()))
    log_sum = huge().view(torch.float32)
    ptr, frames = torch.tensor([0, 2], dtype=torch.int32, device=DEVICE), torch.tensor([-1, 1], dtype=torch.int32, device=DEVICE)
    att = torch.ones(1, W, dtype=torch.float16, device=DEVICE)
    attend_kernels._attend[(1,)](
        x, x, att, y, log_sum, None, ptr, frames, J * frames, 0.2, T=2, J=J, hops=1, H=1, W=W, GENTLE=True, BS=4, GROUPS=1, PARTS=2, BR=2, BW=W
    )
    assert torch.equal(y, x.flip(0))


@pytest.mark.skipif(DEVICE == "cuda", reason="only the interpreter runs one program of a grid of 2²⁷")
def test_joints_beyond_32_bits(huge: Callable[[], Tensor], monkeypatch):
    """The last of 2²⁷ + 2 nodes of 16 channels, with an edge from the one before."""
    from triton.runtime.interpreter import interpreter_builder

    J, W = (1 << 27) + 2, 16
    x, y, log_sum, ptr = huge(), huge(), huge().view(torch.float32), huge().view(torch.int32)
    x, y = (tensor[: J * W].view(J, W) for tensor in (x, y))
    x[J - 2 :] = torch.randn(2, W, generator=generator())
    ptr[J] = 1
    place, extent = interpreter_builder.set_grid_idx, interpreter_builder.set_grid_dim
    monkeypatch.setattr(interpreter_builder, "set_grid_idx", lambda *_: place(J - 1, 0, 0))
    monkeypatch.setattr(interpreter_builder, "set_grid_dim", lambda *_: extent(J, 1, 1))
    frames, nodes = huge().view(torch.int32), huge().view(torch.int32)
    nodes[3 * (J - 1) // 4 * 4] = J - 2
    att = torch.ones(1, W, dtype=torch.float16)
    attend_kernels._attend[(1,)](
        x, x, att, y, log_sum, None, ptr, frames, nodes, 0.2, T=1, J=J, hops=0, H=1, W=W, GENTLE=True, BS=4, GROUPS=1, PARTS=2, BR=1, BW=W
    )
    assert torch.equal(y[J - 1], x[J - 2])


_DEVICE_SEED, _DEVICE_PRIOR = torch.tensor(1, device=DEVICE), torch.tensor(0.9, device=DEVICE)
CAPTURED = {
    "propagate": (lambda x, w, s, lengths: propagate(x, w, CHAIN, s, lengths), [SHORT.nodes(6), SHORT.edges(), SHORT.per_node()]),
    "edge_logits": (lambda q, k, lengths: edge_logits(q, k, CHAIN, None, lengths), [SHORT.nodes(6), SHORT.nodes(6).flip(-1)]),
    "sample_edges": (lambda logits, lengths: sample_edges(logits, CHAIN, seed=1, estimator="sigmoid", lengths=lengths), [SHORT.edges()]),
    "sample_from_embeddings": (
        lambda q, k, lengths: sample_from_embeddings(q, k, CHAIN, seed=1, estimator="sigmoid", lengths=lengths),
        [SHORT.nodes(6), SHORT.nodes(6).flip(-1)],
    ),
    "information": (
        lambda q, k, lengths: sample_from_embeddings(q, k, CHAIN, seed=_DEVICE_SEED, estimator="sigmoid", lengths=lengths, prior=_DEVICE_PRIOR),
        [SHORT.nodes(6), SHORT.nodes(6).flip(-1)],
    ),
    "gcn_norm": (lambda kept, lengths: gcn_norm(kept, CHAIN, lengths), [SHORT.edges().abs()]),
    "attend": (
        lambda x_src, x_dst, att, lengths: attend(x_src, x_dst, att, CHAIN, 2, lengths=lengths),
        [SHORT.nodes(6), SHORT.nodes(6).flip(-1), torch.randn(2, 3, dtype=torch.float64, generator=generator(3))],
    ),
    "mean_average_distance": (mean_average_distance, [SHORT.nodes(6)]),
}


@pytest.mark.skipif(DEVICE != "cuda", reason="a CUDA graph is captured on a CUDA device, and there is none")
@pytest.mark.parametrize("name", CAPTURED)
def test_a_cuda_graph_of_forward_and_backward_gives_the_same_again(name: str):
    """Captured on a side stream, then replayed on inputs, lengths, a seed and a prior that came after the capture."""
    function, inputs = CAPTURED[name]
    inputs = [x.float().to(DEVICE).requires_grad_() for x in inputs]
    lengths = torch.tensor([7, 7], device=DEVICE)
    leaves = [torch.rand_like(x).requires_grad_() for x in inputs]

    def forward_and_backward(leaves: list[Tensor]) -> list[Tensor]:
        outputs = function(*leaves, lengths)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [*outputs, *torch.autograd.grad(sum(y.square().sum() for y in outputs), leaves)]

    with use_backend("triton"):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and copies the graph's index to the device
                forward_and_backward(leaves)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            captured = forward_and_backward(leaves)
        with torch.no_grad():
            for leaf, x in zip(leaves, inputs, strict=True):
                leaf.copy_(x)
            lengths.copy_(torch.tensor([7, 4]))
            _DEVICE_SEED.add_(1)
            _DEVICE_PRIOR.mul_(0.5)
        graph.replay()
        torch.cuda.synchronize()
        wanted = forward_and_backward(inputs)
    for found, expected in zip(captured, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
