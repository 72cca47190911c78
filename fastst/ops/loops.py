"""What sampling leaves alone: a slot from a joint to itself in the same frame always stays, and is no part of the information term."""

from __future__ import annotations

import torch
from torch import Tensor

from fastst.graph import Graph
from fastst.graph_index import GraphIndex
from fastst.ops import information, sparse
from fastst.sampling import Sampling


def keep_loops(kept: Tensor, graph: Graph, lengths: Tensor | None) -> Tensor:
    """kept with 1 for every loop of a frame that exists.  # [B, P, T]"""
    if not len(graph.loops):
        return kept
    index = graph.index(kept.device)
    loops = sparse.mask_edges(torch.ones_like(kept), index.offset, lengths)
    return torch.where(_is_loop(index)[:, None], loops, kept)


def information_without_loops(
    mean: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, graph: Graph, lengths: Tensor | None, prior: Tensor, sampling: Sampling
) -> Tensor:
    """The mean divergence over the edges that are no loops, of the mean over all edges; 0 for a walk that has no others.  # [B]

    Raises:
        ValueError: a node with several loops.
    """
    if not len(graph.loops):
        return mean
    if len(graph.loops) > graph.nodes_with_loops:
        raise ValueError(f"{graph} has nodes with several loops, for which there is no information term; merge them first")
    index, T = graph.index(q.device), q.shape[1]
    q, k = (sparse.mask_frames(x, lengths).to(mean.dtype) for x in (q, k))
    logits = (q * k).sum(-1)  # [B, T, J]
    if bias is not None:
        logits = logits + mean.new_zeros(graph.num_joints).index_add(0, index.dst.long(), torch.where(_is_loop(index), bias, 0).to(mean.dtype))
    has_loop = sparse.mask_frames((1 - index.no_loop).to(mean.dtype).expand(logits.shape), lengths)
    of_loops = (information.divergence(logits, prior, sampling) * has_loop).sum((1, 2))
    edges = information.count_edges(index.offset, T, lengths)
    others = (edges - has_loop.sum((1, 2))).clamp(min=0)
    return torch.where(others > 0, (mean * edges - of_loops) / others.clamp(min=1), 0)


def _is_loop(index: GraphIndex) -> Tensor:
    return (index.src == index.dst) & (index.offset == 0)  # [P]
