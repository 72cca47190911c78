"""The sparse products in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import mmap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import CASES, SOME_INPUTS, Case, assert_gradients_of_some, generator, lifted, names
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph
from fastst.ops import edge_logits, propagate, sparse, use_backend

products = pytest.importorskip("csrc_triton.products", reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHAIN = Layout.custom(["a", "b", "c", "d"], [(0, 1), (1, 2), (2, 3)], "chain")
SMALL = [case for case in CASES if case.B * case.graph.num_slots <= 60]
# The interpreter takes time for every slot: a skeleton once, and beside it the other cases' sizes and lengths on a short chain.
FEW_SLOTS = [
    Case("skeleton", SkeletonGraph("coco18", 1), 1, 3, 8),
    *(case if case.graph.num_slots < 60 else replace(case, graph=SkeletonGraph(CHAIN, case.graph.hops)) for case in CASES),
]
# Joints with many and with few slots, tiles away from a walk's ends, a last one that is not full, and a walk that ends within one.
STAR = Layout.custom(list("abcde"), [(0, 1), (0, 2), (0, 3), (3, 4)], "star")
FRAMES_AND_LENGTHS = Case("tiles", SkeletonGraph(STAR, 2), 2, 40, 40, [40, 23])
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (0.05, 0.02), torch.float16: (0.01, 0.005)}


def assert_matches(function: Callable[..., Tensor], inputs: list[Tensor], atol: float = 1e-9, rtol: float = 1e-7) -> None:
    """The output and the gradient of every input for a random output gradient, against the reference in float64 on the CPU."""
    with use_backend("reference"):
        wanted = run(function, [x.detach().double() for x in inputs])
    with use_backend("triton"):
        found = run(function, [x.detach().to(DEVICE) for x in inputs])
    for expected, actual, like in zip(wanted, found, [inputs[0], *inputs], strict=True):
        assert actual.dtype == like.dtype or actual is found[0]
        torch.testing.assert_close(actual.cpu().double(), expected, atol=atol, rtol=rtol)


def run(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in inputs]
    y = function(*leaves)
    dy = torch.randn(y.shape, dtype=torch.float64, generator=generator(1)).to(y.device, y.dtype)
    return [y, *torch.autograd.grad(y, leaves, dy)]


def lengths_of(case: Case, like: Tensor) -> Tensor | None:
    lengths = case.length_tensor()
    return None if lengths is None else lengths.to(like.device)


@pytest.mark.parametrize("case", FEW_SLOTS, ids=names)
def test_propagate_matches_the_reference(case: Case):
    def function(x, weight, self_weight):
        return propagate(x, weight, case.graph, self_weight, lengths_of(case, x))

    assert_matches(function, [case.nodes(), case.edges(), case.per_node()])


@pytest.mark.parametrize("case", SMALL, ids=names)
def test_propagate_without_self_loops(case: Case):
    assert_matches(lambda x, weight: propagate(x, weight, case.graph, None, lengths_of(case, x)), [case.nodes(), case.edges()])


@pytest.mark.parametrize("case", [*SMALL, Case("chain", SkeletonGraph(CHAIN, 2), 2, 6, 5, [6, 2])], ids=names)
def test_edge_logits_match_the_reference(case: Case):
    def function(q, k, bias):
        return edge_logits(q, k, case.graph, bias, lengths_of(case, q))

    bias = torch.randn(case.graph.num_slots, dtype=torch.float64, generator=generator(2))
    assert_matches(function, [case.nodes(), case.nodes().flip(0), bias])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("graph", [SkeletonGraph(CHAIN, 1), EdgeList(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)], ids=str)
def test_features_of_every_dtype(graph, dtype):
    """float32 weights beside half precision features, rounded alike on both sides."""
    case = Case("", graph, 1, 6, 16)
    atol, rtol = TOLERANCES[dtype]
    x, weight, self_weight = case.nodes(dtype=dtype), case.edges(torch.float32), case.per_node(torch.float32)
    assert_matches(lambda x, w, s: propagate(x, w, graph, s), [x, weight, self_weight], atol * 5, rtol)
    assert_matches(lambda q, k: edge_logits(q, k, graph), [x, case.nodes(dtype=dtype)], atol * 5, rtol)


@pytest.mark.parametrize("C", [1, 3, 17, 64, 65, 128])
def test_channels_that_do_not_fill_a_tile(C: int):
    case = Case("", SkeletonGraph(CHAIN, 1), 1, 5, C)
    assert_matches(lambda x, w, s: propagate(x, w, case.graph, s), [case.nodes(), case.edges(), case.per_node()])


def test_frames_that_do_not_fill_a_tile_and_tiles_without_masks():
    case = Case("", SkeletonGraph(Layout.custom(["a"], [], "a"), 2), 2, 70, 40, [70, 37])
    _, tile = products.joints_and_frames(case.nodes().to(DEVICE), case.graph.hops, 64, 4)
    assert case.lengths[0] - 2 * tile > 2 * case.graph.hops  # some tile is away from both ends
    assert_matches(lambda x, w, s: propagate(x, w, case.graph, s, lengths_of(case, x)), [case.nodes(), case.edges(), case.per_node()])


@pytest.mark.parametrize("case", [FRAMES_AND_LENGTHS, CASES[6], CASES[8], CASES[10]], ids=names)
def test_tiles_as_large_as_where_there_is_much_to_do(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Of several joints and frames; a small problem has small ones, so that there are enough of them."""
    monkeypatch.setattr(products, "enough_programs", lambda _: 1)
    inputs = [case.nodes(), case.edges(), case.per_node()]
    assert_matches(lambda x, w, s: propagate(x, w, case.graph, s, lengths_of(case, x)), inputs)
    assert_matches(lambda x, w: propagate(x, w, case.graph, None, lengths_of(case, x)), inputs[:2])


def test_gradients_that_nobody_wants_are_not_made():
    case = Case("", SkeletonGraph(CHAIN, 1), 2, 5, 6)
    for wanted in SOME_INPUTS:
        assert_gradients_of_some(wanted, case, "triton", DEVICE)


@pytest.mark.parametrize("case", [CASES[6], CASES[8]], ids=names)
def test_opcheck(case: Case):
    x, self_weight, weight = (v.detach().to(DEVICE).requires_grad_() for v in lifted(case, [case.nodes(), case.per_node()], [case.edges()]))
    args = (x, weight, self_weight, lengths_of(case, x), *case.graph.index(DEVICE), case.graph.hops, "triton")
    torch.library.opcheck(torch.ops.fastst.propagate.default, args)


@pytest.mark.parametrize(("walks", "frames"), [(0, 3), (2, 0)])
def test_no_walks_or_frames(walks: int, frames: int):
    graph = SkeletonGraph(CHAIN, 1)
    x, weight = torch.zeros(walks, frames, 4, 2, device=DEVICE), torch.zeros(walks, graph.num_slots, frames, device=DEVICE)
    with use_backend("triton"):
        assert propagate(x, weight, graph).shape == x.shape
        assert edge_logits(x, x, graph).shape == weight.shape


def test_what_stands_beyond_a_walk_and_at_edges_that_do_not_exist_is_never_used():
    graph, lengths = SkeletonGraph(CHAIN, 2), torch.tensor([3, 5])
    case = Case("", graph, 2, 6, 4, [3, 5])
    x, weight, self_weight = (v.clone() for v in (case.nodes(), case.edges(), case.per_node()))
    exists = graph.edge_mask(6, lengths)
    inside = torch.arange(6) < lengths[:, None]
    clean = [torch.where(inside[..., None, None], x, 0), torch.where(exists, weight, 0), torch.where(inside[..., None], self_weight, 0)]
    x[~inside], weight[~exists], self_weight[~inside] = float("nan"), float("nan"), float("nan")
    index, on_device = graph.index(DEVICE), lengths.to(DEVICE)
    for function in (products.gather_sum, products.scatter_sum):
        found = function(x.to(DEVICE), weight.to(DEVICE), index, 2, on_device, self_weight.to(DEVICE)).cpu()
        wanted = function(*(v.to(DEVICE) for v in clean[:2]), index, 2, on_device, clean[2].to(DEVICE)).cpu()
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
        assert (found[~inside] == 0).all()
    dots = products.edge_dot(x.to(DEVICE), x.to(DEVICE), index, 2, on_device).cpu()
    assert (dots[~exists] == 0).all()
    assert dots.isfinite().all()
    half = x.to(DEVICE, torch.bfloat16)
    as_asked, as_made = (products.edge_and_node_dot(half, half, index, 2, on_device, dtype) for dtype in (torch.bfloat16, None))
    for found, made in zip(as_asked, as_made, strict=True):
        torch.testing.assert_close(found, made.bfloat16(), atol=0, rtol=2**-7)  # Triton's interpreter cuts off where a GPU rounds


def test_not_a_number_and_infinity_pass_along_edges_of_weight_zero():
    graph = SkeletonGraph(CHAIN, 1)
    x, weight = torch.zeros(1, 12, 4, 2), torch.zeros(1, graph.num_slots, 12)
    x[0, 0, 0], x[0, 6, 2] = float("nan"), float("inf")
    with use_backend("reference"):
        wanted = propagate(x, weight, SkeletonGraph(CHAIN, 1))
    with use_backend("triton"):
        found = propagate(x.to(DEVICE), weight.to(DEVICE), graph).cpu()
    neighbours = torch.zeros(1, 12, 4, dtype=torch.bool)
    for p, t in graph.edge_mask(12).nonzero().tolist():
        neighbours[0, t, graph.dst[p]] |= bool(
            x[0, t + int(graph.offset[p]), graph.src[p], 0].isnan() | x[0, t + int(graph.offset[p]), graph.src[p], 0].isinf()
        )
    assert torch.equal(found.isnan().any(-1), neighbours)
    assert wanted[neighbours].isnan().all()


def test_deterministic():
    case = Case("", SkeletonGraph(CHAIN, 1), 2, 6, 8)
    x, weight = case.nodes(dtype=torch.float32).to(DEVICE), case.edges(torch.float32).to(DEVICE)
    with use_backend("triton"):
        assert torch.equal(propagate(x, weight, case.graph), propagate(x, weight, case.graph))


@pytest.fixture
def huge(much_memory):
    """12 GB, of which on a CPU only the pages that are written to take memory."""
    if DEVICE == "cuda":
        return much_memory(3 << 30, torch.float32)
    memory = mmap.mmap(-1, 12 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000))
    return torch.from_numpy(np.frombuffer(memory, np.float32))


def spread(values: Tensor, huge: Tensor, far: tuple[int, ...]) -> Tensor:
    """The same values, their elements as far apart as the strides `far` say."""
    view = huge.as_strided(values.shape, far)
    view.copy_(values)
    return view


FAR = (1 << 31) + 16


@pytest.mark.parametrize(
    "far",
    [
        {"x": (FAR, 8, 4, 1)},
        {"x": (8, FAR, 4, 1)},
        {"values": (FAR, 3, 1)},
        {"values": (6, 1, FAR)},
        {"values": (1, FAR // 4, 2)},
        {"diagonal": (FAR, 2, 1)},
        {"diagonal": (2, FAR, 1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("function", [products.gather_sum, products.scatter_sum], ids=["gather_sum", "scatter_sum"])
def test_strides_of_more_than_32_bits(function, far, huge):
    graph = SkeletonGraph(Layout.custom(["a", "b"], [(0, 1)], "two"), 1)
    B, T = (1, 2) if "values" in far and far["values"][0] == 1 else (2, 2)
    x = torch.randn(B, T, 2, 4, device=DEVICE)
    inputs = {"x": x, "values": torch.randn(B, graph.num_slots, T, device=DEVICE), "diagonal": torch.randn(B, T, 2, device=DEVICE)}
    index = graph.index(DEVICE)
    wanted = function(inputs["x"], inputs["values"], index, 1, None, inputs["diagonal"])
    moved = {name: spread(inputs[name], huge, strides) for name, strides in far.items()}
    inputs |= moved
    found = function(inputs["x"], inputs["values"], index, 1, None, inputs["diagonal"])
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "C"), [(1, 3), (2, 12), (1, 65)])
def test_products_of_nodes(heads: int, C: int, dtype: torch.dtype):
    a, b = torch.randn(2, 2, 5, 7, C, generator=generator()).to(dtype)
    a[1, 3] = float("nan")
    lengths = torch.tensor([5, 3])
    found = products.node_dot(a.to(DEVICE), b.to(DEVICE), heads, lengths.to(DEVICE)).cpu()
    wanted = sparse.node_dot(a, b, heads, lengths)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted)
