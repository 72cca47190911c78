"""An edge list as it is sampled from: which edges are decided on, which of them together, and whose graph's they are."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from fastst.graph import EdgeList


class Decisions(NamedTuple):
    """G graphs side by side, each with up to W decisions: a row a graph, so that random numbers and exactly k edges are a graph's own.

    A decision is about one edge, or about all edges between two nodes. Loops are no decisions.
    """

    exists: Tensor  # [G, W], bool
    upward: Tensor  # [G, W]: an edge of the decision, to a node with a higher number if there is one; 0 where none exists
    downward: Tensor  # [G, W]: the other way
    place: Tensor  # [E]: which of the G * W decisions an edge belongs to; G * W for a loop

    @property
    def row(self) -> EdgeList:
        """Any graph with W edges, none of them a loop: who samples asks for no more."""
        return _row(self.exists.shape[1])

    def gather(self, of_edges: Tensor) -> Tensor:
        """The mean of both directions' values; of all rows of a batch, -∞ where no decision exists.  # [B, E] -> [B * G, W]"""
        values = (of_edges[:, self.upward] + of_edges[:, self.downward]) / 2
        return values.masked_fill(~self.exists, -torch.inf).flatten(0, 1)

    def spread(self, of_decisions: Tensor) -> Tensor:
        """Every edge's value, 1 for loops.  # [B * G, W] -> [B, E]"""
        flat = of_decisions.reshape(len(of_decisions) // len(self.exists), self.exists.numel())
        return torch.cat((flat, flat.new_ones(len(flat), 1)), 1)[:, self.place]


def decisions_of(graph: EdgeList, batch: Tensor | None, undirected: bool, device: torch.device) -> Decisions:
    """What there is to decide on.

    Args:
        batch: `[N]`, the graph of every node, from 0 on; None for one graph.
        undirected: an edge, those beside it and those opposite are one decision.

    Raises:
        ValueError: an edge from one graph to another.
    """
    src, dst = graph.edge_index().to(device)
    edges = (src != dst).nonzero().squeeze(1)
    src, dst = src[edges], dst[edges]
    which = torch.arange(len(edges), device=device)
    if undirected:
        _, which = torch.unique(torch.minimum(src, dst) * graph.num_joints + torch.maximum(src, dst), return_inverse=True)
    count = int(which.max()) + 1 if len(which) else 0
    none = torch.full((count,), -1, device=device)
    up, down = (none.scatter_reduce(0, which[way], edges[way], "amax") for way in (src < dst, src > dst))
    up, down = torch.where(up < 0, down, up), torch.where(down < 0, up, down)
    batch = torch.zeros(graph.num_joints, dtype=torch.int64, device=device) if batch is None else batch
    _refuse_bridges(edges, src, dst, batch)
    member = none.scatter(0, which, batch[src])  # all of a decision's edges have the same
    G = int(batch.max()) + 1
    sizes = torch.bincount(member, minlength=G)
    W = int(sizes.max())
    order = member.argsort(stable=True)
    column = none.scatter(0, order, torch.arange(count, device=device) - (sizes.cumsum(0) - sizes)[member[order]])
    at = member * W + column  # [decisions]
    table = torch.zeros(2, G * W, dtype=torch.int64, device=device)
    table[0, at], table[1, at] = up, down
    exists = torch.zeros(G * W, dtype=torch.bool, device=device).index_fill(0, at, True)
    place = torch.full((graph.num_slots,), G * W, device=device).index_put((edges,), at[which])
    up, down = table.view(2, G, W)
    return Decisions(exists.view(G, W), up, down, place)


def _refuse_bridges(edges: Tensor, src: Tensor, dst: Tensor, batch: Tensor) -> None:
    bridges = (batch[src] != batch[dst]).nonzero()
    if len(bridges):
        i = bridges[0, 0]
        nodes, graphs = f"node {src[i]} to node {dst[i]}", f"graph {batch[src[i]]} to graph {batch[dst[i]]}"
        raise ValueError(f"edge {edges[i]} goes from {nodes}, which is from {graphs} of the batch; edges must stay within a graph")


@functools.lru_cache(32)
def _row(width: int) -> EdgeList:
    return EdgeList(torch.stack((torch.ones(width, dtype=torch.int64), torch.zeros(width, dtype=torch.int64))), 2, parallel=True)
