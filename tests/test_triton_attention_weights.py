"""Attention weights in Triton: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import pytest
import torch
from graphs import CASES, Case, generator
from test_attention_weights import FULL, NO_FRAMES, SHARED, inputs_of
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph
from fastst.ops import attend, use_backend

kernels = pytest.importorskip("csrc_triton.attention_weights", reason="triton is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero encountered", "ignore:overflow encountered")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHAIN = SkeletonGraph(Layout.custom(["a", "b"], [(0, 1)], "chain"), 1)
STAR = EdgeList(torch.stack((torch.arange(1, 23), torch.zeros(22, dtype=torch.int64))), 23)
NAMES = ("x_src", "x_dst", "att", "edge_attr", "edge_weight")


def results(case: Case, heads: int, inputs: dict[str, Tensor], backend: str, device: str) -> list[Tensor]:
    leaves = {name: value.detach().to(device).requires_grad_() for name, value in inputs.items()}
    lengths = case.length_tensor()
    with use_backend(backend):
        y, alpha = attend(
            **leaves, graph=case.graph, heads=heads, lengths=None if lengths is None else lengths.to(device), return_attention_weights=True
        )  # fmt: skip
    gradients = [torch.randn(value.shape, dtype=torch.float64, generator=generator(1)).to(value) for value in (y, alpha)]
    return [value.cpu().double() for value in (y, alpha, *torch.autograd.grad([y, alpha], list(leaves.values()), gradients))]


def assert_matches(case: Case, heads: int, inputs: dict[str, Tensor], atol: float = 1e-9) -> None:
    """The sums, α and all gradients, against the reference in float64 on the CPU."""
    wanted = results(case, heads, {name: value.double() for name, value in inputs.items()}, "reference", "cpu")
    for found, expected in zip(results(case, heads, inputs, "triton", DEVICE), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=atol, rtol=1e-7 + atol)


@pytest.mark.parametrize(
    ("case", "heads", "shared"),
    [
        (CASES[6], 1, NO_FRAMES),  # a node without edges
        (CASES[8], 2, FULL),  # any slots, lengths
        (CASES[10], 3, FULL),  # an edge list
        (CASES[11], 1, SHARED),
        (CASES[12], 2, FULL),  # no edges
        (Case("tiles", CHAIN, 2, 19, 5, [19, 9]), 1, FULL),  # of frames, the last not full, one of which the second walk has none
        (Case("tiles", CHAIN, 2, 19, 5, [19, 9]), 1, SHARED),
        (Case("star", STAR, 1, 1, 100), 1, FULL),  # more edges into a node than a program takes at once
    ],
    ids=str,
)
def test_matches_the_reference(case: Case, heads: int, shared: str):
    assert_matches(case, heads, dict(zip(NAMES, inputs_of(case, heads, shared), strict=True)))


@pytest.mark.parametrize("given", [(), ("edge_attr",), ("edge_weight",)], ids=str)
def test_features_or_weights_alone(given: tuple[str, ...]):
    case = Case("", CHAIN, 1, 4, 3, [3])
    inputs = dict(zip(NAMES, inputs_of(case, 2), strict=True))
    assert_matches(case, 2, {name: value for name, value in inputs.items() if name in (*NAMES[:3], *given)})


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str)
def test_every_dtype(dtype: torch.dtype, atol: float):
    case = Case("", CHAIN, 1, 4, 4)
    assert_matches(case, 1, {name: value.to(dtype) for name, value in zip(NAMES, inputs_of(case, 1), strict=True)}, atol)


def test_huge_scores_of_removed_edges():
    graph = EdgeList(torch.tensor([[1, 2, 3, 0], [0, 0, 0, 1]]), 4)
    x = torch.tensor([[[0.0], [1.0], [2.0], [1e4]]], device=DEVICE, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0]], device=DEVICE, requires_grad=True)
    with use_backend("triton"):
        y, alpha = attend(x, x, torch.ones(1, 1, device=DEVICE), graph, 1, edge_weight=weight, return_attention_weights=True)
        gradients = torch.autograd.grad(y[0, 0, 0], [x, weight])
    torch.testing.assert_close(alpha[0, :, 0].cpu(), torch.tensor([1, torch.e, 0, 0]) / (1 + torch.e))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[1][0, 2] > 1e3
    assert gradients[1][0, 3] == 0  # of a node whose weights are all 0


def test_dropout_is_that_of_the_other_backends():
    x, att = torch.randn(1, 5, 2, 4, generator=generator()), torch.ones(2, 2)
    with use_backend("torch"):
        _, wanted = attend(x, x, att, CHAIN, 2, dropout=0.5, seed=3, return_attention_weights=True)
    with use_backend("triton"):
        _, found = attend(x.to(DEVICE), x.to(DEVICE), att.to(DEVICE), CHAIN, 2, dropout=0.5, seed=3, return_attention_weights=True)
    torch.testing.assert_close(found.cpu(), wanted)


def test_opcheck():
    case = Case("", CHAIN, 1, 3, 2, [2])
    leaves = [value.detach().to(DEVICE).requires_grad_() for value in inputs_of(case, 1)]
    rest = (torch.tensor([2], device=DEVICE), *CHAIN.index(DEVICE), CHAIN.slots_of_offset, 0.2, 40.0, "triton")
    torch.library.opcheck(torch.ops.fastst.attention_weights.default, (*leaves, *rest))


@pytest.mark.parametrize(("walks", "frames"), [(0, 3), (2, 0)])
def test_no_walks_or_frames(walks: int, frames: int):
    x = torch.zeros(walks, frames, 2, 4, device=DEVICE, requires_grad=True)
    weight = torch.zeros(walks, CHAIN.num_slots, frames, device=DEVICE, requires_grad=True)
    for backend in ("torch", "triton", *(["cpu"] if DEVICE == "cpu" else [])):
        with use_backend(backend):
            y = attend(x, x, torch.zeros(1, 4, device=DEVICE), CHAIN, 1, edge_weight=weight, edge_attr=torch.zeros(6, 4, device=DEVICE))
        assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape
