"""`propagate`, forward and forward + backward: the dense way of the paper, gather + index_add, torch.sparse CSR, and fastst.

Every contender gets its best known form (adjacency and index tensors already built) and is checked against the others before it is timed.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastst import SkeletonGraph
from fastst.ops import propagate

SIZES = {"B=32 T=60 k=3 C=64": (32, 60, 3, 64), "B=8 T=300 k=3 C=64": (8, 300, 3, 64), "B=32 T=60 k=1 C=64": (32, 60, 1, 64)}


class Work:
    def __init__(self, B: int, T: int, hops: int, C: int) -> None:
        self.graph, self.shape = SkeletonGraph("coco18", hops), (B, T, 18, C)
        self.x = torch.randn(B, T, 18, C, requires_grad=True)
        weight = torch.rand(B, self.graph.num_slots, T) * self.graph.edge_mask(T)
        self.weight = weight.requires_grad_()
        lengths = torch.full((B,), T)
        self.source, self.target = self.graph.edge_index(T, lengths)
        self.exists = self.graph.edge_mask(T, lengths)

    def dense(self) -> Callable[[], Tensor]:
        B, T, J, C = self.shape
        A = self.graph.dense(T, self.weight.detach()).requires_grad_()
        return lambda: (A @ self.x.view(B, T * J, C)).view(self.shape)

    def gather_index_add(self) -> Callable[[], Tensor]:
        C = self.shape[-1]

        def run() -> Tensor:
            flat = self.x.view(-1, C)
            return torch.zeros_like(flat).index_add(0, self.target, flat[self.source] * self.weight[self.exists][:, None]).view(self.shape)

        return run

    def csr(self) -> Callable[[], Tensor]:
        nodes, C = self.x.numel() // self.shape[-1], self.shape[-1]
        matrix = torch.sparse_coo_tensor(
            torch.stack((self.target, self.source)), self.weight.detach()[self.exists], (nodes, nodes), check_invariants=False
        ).to_sparse_csr()
        return lambda: (matrix @ self.x.view(-1, C)).view(self.shape)

    def fastst_torch(self) -> Callable[[], Tensor]:
        return lambda: propagate(self.x, self.weight, self.graph)


@pytest.fixture(params=SIZES, scope="module")
def work(request) -> Work:
    torch.manual_seed(0)
    return Work(*SIZES[request.param])


def timed(benchmark, work: Work, name: str, run: Callable[[], object]) -> None:
    benchmark.group = f"{name}, {tuple(work.shape)}, P={work.graph.num_slots}"
    benchmark.pedantic(run, rounds=11, warmup_rounds=2)


@pytest.mark.parametrize("contender", ["dense", "gather_index_add", "csr", "fastst_torch"])
def test_forward(benchmark, work: Work, contender: str):
    run = getattr(work, contender)()
    with torch.no_grad():
        torch.testing.assert_close(run(), work.fastst_torch()(), atol=1e-3, rtol=1e-4)
        timed(benchmark, work, "propagate forward", run)


# torch.sparse has no usable gradient for the values of a CSR matrix: its own forms the dense N×N product.
@pytest.mark.parametrize("contender", ["dense", "gather_index_add", "fastst_torch"])
def test_forward_and_backward(benchmark, work: Work, contender: str):
    run = getattr(work, contender)()
    gradient = torch.randn(work.shape)
    (wanted,) = torch.autograd.grad(work.fastst_torch()(), work.x, gradient)
    (found,) = torch.autograd.grad(run(), work.x, gradient, retain_graph=True)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
    timed(benchmark, work, "propagate forward + backward", lambda: run().backward(gradient))
