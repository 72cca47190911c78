"""An edge list as it is sampled from: which edges are decided on, which of them together, and whose graph's they are."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from fastst.graph import EdgeList


class Table(NamedTuple):
    """Graphs with alike many decisions, a row a graph, so that random numbers and exactly k edges are a graph's own."""

    graphs: Tensor  # [G]
    decision: Tensor  # [G, W]: its number; D where there is none

    @property
    def row(self) -> EdgeList:
        """Any graph with W edges, none of them a loop: who samples asks for no more."""
        return _row(self.decision.shape[1])


class Decisions(NamedTuple):
    """D decisions, each about one edge, or about all edges between two nodes. Loops are no decisions."""

    of_edge: Tensor  # [E]: an edge's decision; D for a loop
    sizes: Tensor  # [D + 1]: how many edges a decision is about
    tables: list[Table]  # of which none is more than four times as wide as its graphs need
    place: Tensor  # [E]: of an edge's decision in all tables, one after the other; their size for a loop

    def gather(self, of_edges: Tensor) -> list[Tensor]:
        """The mean of a decision's edges, table by table; of all rows of a batch, -∞ where no decision exists.  # [B, E] -> [B * G, W] each"""
        D = len(self.sizes) - 1
        sums = of_edges.new_zeros(len(of_edges), D + 1).index_add(1, self.of_edge, of_edges)
        means = (sums / self.sizes.clamp(min=1)).to(of_edges.dtype)
        means = torch.where(torch.arange(D + 1, device=means.device) < D, means, -torch.inf)
        return [means[:, table.decision].flatten(0, 1) for table in self.tables]

    def exists(self, table: Table, B: int) -> Tensor:
        """# [B * G, W]; bool"""
        return (table.decision < len(self.sizes) - 1).repeat(B, 1)

    def spread(self, of_decisions: list[Tensor], B: int) -> Tensor:
        """Every edge's value, 1 for loops.  # [B * G, W] of every table -> [B, E]"""
        flat = torch.cat([values.reshape(B, table.decision.numel()) for values, table in zip(of_decisions, self.tables, strict=True)], 1)
        return torch.cat((flat, flat.new_ones(B, 1)), 1)[:, self.place]


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
    D = int(which.max()) + 1 if len(which) else 0
    batch = torch.zeros(graph.num_joints, dtype=torch.int64, device=device) if batch is None else batch.long()
    _refuse_bridges(edges, src, dst, batch)
    member = which.new_empty(D).scatter(0, which, batch[src])  # all of a decision's edges have the same
    tables = _tables(member, int(batch.max()) + 1)
    of_edge = which.new_full((graph.num_slots,), D).index_put((edges,), which)
    flat = torch.cat([table.decision.flatten() for table in tables])
    place = flat.new_empty(D + 1).scatter(0, flat, torch.arange(len(flat), device=device))
    place[D] = len(flat)
    return Decisions(of_edge, torch.bincount(of_edge, minlength=D + 1), tables, place[of_edge])


def _tables(member: Tensor, num_graphs: int) -> list[Table]:
    """Graphs in which a power of four of decisions fits, side by side: one large graph among small ones makes no wide table of all.

    member: the graph of every decision, `[D]`.
    """
    sizes = torch.bincount(member, minlength=num_graphs)
    last = sizes.cumsum(0)
    order = torch.cat((member.argsort(stable=True), member.new_full((1,), len(member))))
    level = sizes.clamp(min=1).double().log2().floor().long() // 2
    tables = []
    for one in level.unique().tolist():
        graphs = (level == one).nonzero().squeeze(1)
        column = torch.arange(int(sizes[graphs].max()), device=member.device)
        at = torch.where(column < sizes[graphs, None], (last - sizes)[graphs, None] + column, len(member))
        tables.append(Table(graphs, order[at]))
    return tables


def _refuse_bridges(edges: Tensor, src: Tensor, dst: Tensor, batch: Tensor) -> None:
    bridges = (batch[src] != batch[dst]).nonzero()
    if len(bridges):
        i = bridges[0, 0]
        nodes, graphs = f"node {src[i]} to node {dst[i]}", f"graph {batch[src[i]]} to graph {batch[dst[i]]}"
        raise ValueError(f"edge {edges[i]} goes from {nodes}, which is from {graphs} of the batch; edges must stay within a graph")


@functools.lru_cache(32)
def _row(width: int) -> EdgeList:
    return EdgeList(torch.stack((torch.ones(width, dtype=torch.int64), torch.zeros(width, dtype=torch.int64))), 2, parallel=True)
