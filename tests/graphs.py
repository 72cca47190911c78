"""Graphs and sizes that every operation is tested on, and the comparison that the tests of the operations share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastst import EdgeList, Layout, SkeletonGraph, SlotGraph
from fastst.ops import propagate, use_backend

BACKENDS = ["torch", "cpu"]
ALONE = Layout.custom(["left_hip", "right_hip", "alone"], [(0, 1)], "alone")  # at T = 1 the third joint has no edge
SINGLE = Layout.custom(["hip"], [], "single")


# Slots in any order, with loops, some far apart; and a graph whose slots all lie within a frame.
ANY_SLOTS = SlotGraph([2, 0, 1, 1, 2, 0, 1], [0, 0, 2, 1, 2, 1, 0], [-4, 0, 1, 0, 2, 0, -1], 4)
IN_FRAME = SlotGraph([0, 1, 2, 2, 1], [1, 0, 1, 2, 2], [0] * 5, 3)


@dataclass
class Case:
    name: str
    graph: SlotGraph | EdgeList
    B: int
    T: int
    C: int
    lengths: list[int] | None = None

    @property
    def is_edge_list(self) -> bool:
        return isinstance(self.graph, EdgeList)

    def nodes(self, C: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
        """Random features, not contiguous in memory."""
        frames = () if self.is_edge_list else (self.T,)
        C = self.C if C is None else C
        return torch.randn(self.B, *frames, C, self.graph.num_joints, dtype=dtype, generator=generator()).transpose(-1, -2)

    def per_node(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.nodes(1, dtype)[..., 0]

    def edges(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Random edge values, edges that don't exist included, not contiguous in memory."""
        frames = () if self.is_edge_list else (self.T,)
        return torch.randn(*frames, self.graph.num_slots, self.B, dtype=dtype, generator=generator()).permute(*range(len(frames) + 1, -1, -1))

    def length_tensor(self) -> Tensor | None:
        return None if self.lengths is None else torch.tensor(self.lengths)

    def edge_mask(self) -> Tensor:
        """Where an edge exists, in the shape of `edges`."""
        if self.is_edge_list:
            return torch.ones(self.B, self.graph.num_slots, dtype=torch.bool)
        return self.graph.edge_mask(self.T, self.length_tensor()).expand(self.B, self.graph.num_slots, self.T)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("coco18 k=1", SkeletonGraph("coco18", 1), 2, 4, 8),
    Case("k=3 one walk", SkeletonGraph("coco18", 3), 1, 7, 3),
    Case("T=1", SkeletonGraph("coco18", 2), 2, 1, 1),
    Case("T<k", SkeletonGraph("coco17", 3), 2, 2, 4),
    Case("lengths", SkeletonGraph("coco17", 2), 3, 5, 4, [5, 0, 3]),
    Case("all empty", SkeletonGraph("coco17", 1), 2, 3, 2, [0, 0]),
    Case("node without edges", SkeletonGraph(ALONE, 1), 2, 1, 3),
    Case("lone joint", SkeletonGraph(SINGLE, 2), 2, 6, 2, [6, 1]),
    Case("any slots", ANY_SLOTS, 2, 6, 3, [6, 4]),
    Case("in frame", IN_FRAME, 2, 3, 5, [2, 3]),
    Case("edge list", EdgeList(torch.tensor([[0, 1, 2, 3, 3, 4], [1, 0, 1, 1, 3, 0]]), 6), 2, 1, 4),
    Case("edge list C=1", EdgeList(torch.tensor([[2, 1, 0], [0, 0, 2]]), 3), 1, 1, 1),
    Case("edge list without edges", EdgeList(torch.zeros(2, 0, dtype=torch.int64), 3), 2, 1, 3),
]
names = str


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_matches_reference(function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], backend: str, atol: float = 1e-9) -> None:
    """Every output and the gradient of every floating input, for random output gradients, against the reference backend."""
    expected, actual = (_run(function, inputs, name) for name in ("reference", backend))
    assert len(expected) == len(actual)
    for wanted, found in zip(expected, actual, strict=True):
        assert wanted.dtype == found.dtype
        torch.testing.assert_close(found, wanted, atol=atol, rtol=1e-7)


def _run(function: Callable, inputs: list[Tensor], backend: str) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    with use_backend(backend):
        outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = [torch.randn(y.shape, dtype=y.dtype, generator=generator(1)) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, gradients)]


def lifted(case: Case, nodes: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
    """Inputs in the form in which the registered operations take them, ready for opcheck."""
    if case.is_edge_list:
        nodes, edges = [x.unsqueeze(1) for x in nodes], [x.unsqueeze(-1) for x in edges]
    return [x.detach().requires_grad_() for x in (*nodes, *edges)]


SOME_INPUTS = [[True, False, False], [False, True, False], [False, False, True], [True, False, True]]  # of propagate


def assert_gradients_of_some(wanted: list[bool], case: Case, backend: str, device: str = "cpu") -> None:
    """The gradients of propagate where only some of x, weight and self_weight want one."""
    inputs = [value.requires_grad_(wants) for value, wants in zip((case.nodes(), case.edges(), case.per_node()), wanted, strict=True)]
    leaves, found = [value for value in inputs if value.requires_grad], []
    for name in ("reference", backend):
        x, weight, self_weight = (value.to(device) for value in inputs)
        lengths = case.length_tensor()
        with use_backend(name):
            y = propagate(x, weight, case.graph, self_weight, None if lengths is None else lengths.to(device))
            found.append(torch.autograd.grad(y.square().sum(), leaves))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)
