"""`propagate`, forward and with gradients: the dense way of the paper, gather + index_add, torch.sparse CSR, and fastst.

Every contender has what it needs (adjacency, index tensors) built beforehand, and is checked against the dense reference before it is timed.
"""

from collections.abc import Callable
from functools import cached_property

import pytest
import torch
from torch import Tensor

from fastst import SkeletonGraph
from fastst.ops import propagate, use_backend

SIZES = {"B=32 T=60 k=3 C=64": (32, 60, 3, 64), "B=8 T=300 k=3 C=64": (8, 300, 3, 64), "B=32 T=60 k=1 C=64": (32, 60, 1, 64)}
CONTENDERS = ["dense", "gather_index_add", "csr", "fastst_torch", "fastst_cpu"]
WITH_GRADIENTS = [name for name in CONTENDERS if name != "csr"]  # torch's own gradient of a CSR matrix forms the dense N×N product

Run = Callable[[], Tensor]


class Work:
    """Random features and weights of one size. A contender is a function and what it has gradients for."""

    def __init__(self, B: int, T: int, hops: int, C: int) -> None:
        self.graph, self.shape = SkeletonGraph("coco18", hops), (B, T, 18, C)
        self.x = torch.randn(self.shape, requires_grad=True)
        self.weight = (torch.rand(B, self.graph.num_slots, T) * self.graph.edge_mask(T)).requires_grad_()
        self.gradient = torch.randn(self.shape)
        lengths = torch.full((B,), T)
        self.source, self.target = self.graph.edge_index(T, lengths)
        self.exists = self.graph.edge_mask(T, lengths)

    @cached_property
    def expected(self) -> tuple[Tensor, ...]:
        """Output and gradients of x and weight, by the dense reference."""
        run, leaves = self.fastst("reference")
        with torch.enable_grad():
            y = run()
            return y.detach(), *torch.autograd.grad(y, leaves, self.gradient)

    def dense(self) -> tuple[Run, tuple[Tensor, ...]]:
        B, T, J, C = self.shape
        A = self.graph.dense(T, self.weight.detach()).requires_grad_()
        return lambda: (A @ self.x.view(B, T * J, C)).view(self.shape), (self.x, A)

    def gather_index_add(self) -> tuple[Run, tuple[Tensor, ...]]:
        def run() -> Tensor:
            flat = self.x.view(-1, self.shape[-1])
            messages = flat[self.source] * self.weight[self.exists][:, None]
            return torch.zeros_like(flat).index_add(0, self.target, messages).view(self.shape)

        return run, (self.x, self.weight)

    def csr(self) -> tuple[Run, tuple[Tensor, ...]]:
        nodes, C = self.x.numel() // self.shape[-1], self.shape[-1]
        entries = torch.sparse_coo_tensor(
            torch.stack((self.target, self.source)), self.weight.detach()[self.exists], (nodes, nodes), check_invariants=False
        )
        matrix = entries.to_sparse_csr()
        return lambda: (matrix @ self.x.view(-1, C)).view(self.shape), (self.x,)

    def fastst(self, backend: str) -> tuple[Run, tuple[Tensor, ...]]:
        def run() -> Tensor:
            with use_backend(backend):
                return propagate(self.x, self.weight, self.graph)

        return run, (self.x, self.weight)

    def contender(self, name: str) -> tuple[Run, tuple[Tensor, ...]]:
        return self.fastst(name.removeprefix("fastst_")) if name.startswith("fastst_") else getattr(self, name)()


@pytest.fixture(params=SIZES, scope="module")
def work(request) -> Work:
    torch.manual_seed(0)
    return Work(*SIZES[request.param])


def agree(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", CONTENDERS)
def test_forward(benchmark, work: Work, name: str):
    run, _ = work.contender(name)
    with torch.no_grad():
        agree(run(), work.expected[0])
        benchmark.group = f"propagate forward, [B, T, J, C] = {list(work.shape)}, hops {work.graph.hops}"
        benchmark.pedantic(run, rounds=15, warmup_rounds=2)


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_forward_and_gradients(benchmark, work: Work, name: str):
    run, leaves = work.contender(name)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(), leaves, work.gradient)

    dx, dweight = step()
    agree(dx, work.expected[1])
    if name != "dense":  # whose gradient is that of the whole matrix
        agree(dweight, work.expected[2])
    benchmark.group = f"propagate forward + gradients, [B, T, J, C] = {list(work.shape)}, hops {work.graph.hops}"
    benchmark.pedantic(step, rounds=9, warmup_rounds=2)
