"""Attention with features and weights of edges, dropout, and the weights themselves given back."""

import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, names
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst import SlotGraph
from fastst.ops import attend, propagate, use_backend

ALL = ["reference", *BACKENDS]
FULL, NO_FRAMES, SHARED = "of each", "the same in all frames", "the same in all walks"
SLOTS = SlotGraph([0, 1, 2, 2, 1], [1, 0, 1, 1, 2], [0, -1, 0, 2, 1], 4)


def kept(case: Case) -> Tensor:
    """Weights of 0, 1 and between; of some node all 0, on most graphs."""
    values = case.edges()
    return torch.where(values < -0.3, 0, torch.where(values > 0.8, 1, values.abs())).clone()


def features_of_edges(case: Case, C: int, shared: str = FULL) -> Tensor:
    """Not contiguous in memory."""
    B, T, P = case.B, case.T, case.graph.num_slots
    if shared == SHARED:
        return torch.randn(C, P, dtype=torch.float64, generator=generator(5)).T
    frames = [] if case.is_edge_list else [1 if shared == NO_FRAMES else T]
    return torch.randn(C, B, P, *frames, dtype=torch.float64, generator=generator(5)).movedim(0, -1)


def inputs_of(case: Case, heads: int, shared: str = FULL) -> list[Tensor]:
    C = heads * case.C
    att = torch.randn(heads, case.C, dtype=torch.float64, generator=generator(3))
    return [case.nodes(C), case.nodes(C).flip(-1), att, features_of_edges(case, C, shared), kept(case)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "shared"), [(1, SHARED), (3, FULL), (2, NO_FRAMES)])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, heads: int, shared: str, backend: str):
    def run(x_src, x_dst, att, edge_attr, edge_weight):
        return attend(
            x_src, x_dst, att, case.graph, heads, lengths=case.length_tensor(), edge_attr=edge_attr, edge_weight=edge_weight,
            return_attention_weights=True,
        )  # fmt: skip

    assert_matches_reference(run, inputs_of(case, heads, shared), backend)


def by_hand(graph: SlotGraph, lengths: list[int], heads: int, x_src: Tensor, x_dst: Tensor, att: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
    """α edge by edge, as the formula reads.  # [B, P, T, heads]"""
    B, T = x_src.shape[:2]
    slots = list(enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)))
    alpha = [[[torch.zeros(heads, dtype=torch.float64)] * T for _ in slots] for _ in range(B)]
    for b in range(B):
        for t in range(lengths[b]):
            for node in range(graph.num_joints):
                into = [(p, src, t + offset) for p, (src, dst, offset) in slots if dst == node and 0 <= t + offset < lengths[b]]
                powers = {}
                for p, src, s in into:
                    hidden = leaky_relu(x_src[b, s, src] + x_dst[b, t, node] + edge_attr[b, p, t], 0.2)
                    powers[p] = (hidden.view(heads, -1) * att).sum(-1).exp()
                if any(weight[b, p, t] != 0 for p in powers):
                    total = sum(weight[b, p, t] * power for p, power in powers.items())
                    for p, power in powers.items():
                        alpha[b][p][t] = weight[b, p, t] * power / total
    return torch.stack([torch.stack([torch.stack(frames) for frames in walk]) for walk in alpha])


@pytest.mark.parametrize("backend", ALL)
def test_is_the_formula(backend: str):
    """α, its sum, and all gradients, by autograd through a loop over the edges. Some nodes' weights are all 0."""
    graph, lengths, heads = SLOTS, [5, 3], 2
    case = Case("", graph, 2, 5, 3, lengths)
    inputs = inputs_of(case, heads)
    inputs[-1][0, 4] = 0  # the only slot into joint 2
    inputs = [value.requires_grad_() for value in inputs]
    wanted_alpha = by_hand(graph, lengths, heads, *inputs)
    wanted = torch.stack(
        [propagate(inputs[0][..., 3 * h : 3 * h + 3], wanted_alpha[..., h], graph, lengths=case.length_tensor()) for h in range(heads)], -2
    ).flatten(-2)
    with use_backend(backend):
        y, alpha = attend(
            *inputs[:3], graph, heads, lengths=case.length_tensor(), edge_attr=inputs[3], edge_weight=inputs[4], return_attention_weights=True
        )
    torch.testing.assert_close(alpha, wanted_alpha)
    torch.testing.assert_close(y, wanted)
    for found, expected in ((y, wanted), (alpha, wanted_alpha)):
        gradients = (
            torch.autograd.grad(one, inputs, torch.arange(one.numel()).view(one.shape).double().sin(), retain_graph=True) for one in (found, expected)
        )
        for actual, gradient in zip(*gradients, strict=True):
            torch.testing.assert_close(actual, gradient)
