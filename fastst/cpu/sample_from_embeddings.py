"""Sampling of edges straight from the embeddings of their ends on the CPU: the logits are made, and overwritten where they are."""

from __future__ import annotations

from torch import Tensor

from fastst.cpu.products import edge_dot
from fastst.cpu.sample_edges import keep, work_of, write_slope
from fastst.graph_index import GraphIndex
from fastst.sampling import Sampling


def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> tuple[Tensor, Tensor | None]:
    """`sample_edges` of the logits q · k + bias, which are overwritten where they are made; and, with
    a prior, the divergences of every walk's edges, summed."""
    kept = edge_dot(q, k, index, hops, lengths)
    work = work_of(kept.shape, sample_ids, lengths, index.offset, seed, hops)
    return kept, keep(kept, kept, bias, prior, work, sampling)


def logits_gradient(
    dkept: Tensor,
    weight: Tensor | None,
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: Tensor,
    prior: Tensor | None,
    hops: int,
    sampling: Sampling,
) -> Tensor:
    """`sample_edges_backward` at the logits q · k + bias, over which it is written; and, with a prior,
    `weight[b]` times the derivative of every divergence added."""
    gradient = edge_dot(q, k, index, hops, lengths)
    work = work_of(gradient.shape, sample_ids, lengths, index.offset, seed, hops)
    write_slope(dkept, gradient, gradient, bias, prior, weight, work, sampling)
    return gradient
