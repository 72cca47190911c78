"""Tiles with parts first and with rows first, as releases of Triton ask for: in Triton's interpreter, for a GPU compiles kernels only once."""

import pytest
import torch
from graphs import Case, generator

from fastst import Layout, SkeletonGraph
from fastst.ops import attend, use_backend

triton = pytest.importorskip("triton", reason="triton is not installed")
from csrc_triton import attend as attend_kernels  # noqa: E402
from csrc_triton import parts  # noqa: E402

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled for the GPU, with the order of this Triton"),
    pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered"),
]
CHAIN = SkeletonGraph(Layout.custom(["a", "b", "c"], [(0, 1), (1, 2)], "chain"), 1)
# Tiles of whole walks and of frames away from their ends; channels that fill a tile and that don't.
CASES = [Case("whole", CHAIN, 2, 70, 16, [70, 33]), Case("odd", CHAIN, 2, 70, 9, [70, 33])]


@pytest.fixture(params=[True, False], ids=["parts first", "rows first"])
def order(request, monkeypatch):
    monkeypatch.setattr(parts, "_PARTS_FIRST", triton.language.constexpr(request.param))


def run(function, inputs: list[torch.Tensor], backend: str) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    with use_backend(backend):
        y = function(*leaves)
        return [y, *torch.autograd.grad(y, leaves, torch.randn(y.shape, dtype=y.dtype, generator=generator(1)))]


def assert_matches(function, inputs: list[torch.Tensor]) -> None:
    for found, wanted in zip(run(function, inputs, "triton"), run(function, inputs, "reference"), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attend(case: Case):
    assert attend_kernels._tile(case.T, 2, case.C, 8)[0]["PARTS"] == 2
    att = torch.randn(2, case.C, dtype=torch.float64, generator=generator(3))
    lengths = case.length_tensor()
    assert_matches(lambda *x: attend(*x, case.graph, 2, lengths=lengths), [case.nodes(2 * case.C), case.nodes(2 * case.C).flip(-1), att])


@pytest.mark.usefixtures("order")
def test_attend_in_groups():
    """Few rows: groups of threads with slots of their own."""
    case = Case("few", CHAIN, 2, 2, 16)
    tile, _ = attend_kernels._tile(case.T, 1, case.C, 8)
    assert (tile["PARTS"], tile["GROUPS"]) == (2, 4)
    att = torch.randn(1, case.C, dtype=torch.float64, generator=generator(3))
    assert_matches(lambda *x: attend(*x, case.graph, 1), [case.nodes(), case.nodes().flip(-1), att])
