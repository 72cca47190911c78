"""Graphs whose senders and receivers are different nodes, as the square graphs that kernels know: see `fastst.graph`.

Frames of the senders stand side by side, as many as the stride, and the smaller side gets nodes without edges. Where a walk's frames don't fill the
last ones, the square graph has edges from frames that don't exist. They are taken out of what is given and of what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastst.graph import EdgeList, Graph
from fastst.graph_index import edge_exists
from fastst.ops import sparse


@dataclass(frozen=True, eq=False)
class Lifted:
    """A call's graph as a square one; for a graph that is square everything is as it was.

    Attributes:
        given: `[B]` frames of every walk that send, or None.
        lengths: `[B]` frames of every walk in the square graph, or None.
        exists: `[B or 1, P, T']` which edges exist; None where the square graph has no others.
    """

    graph: Graph
    given: Tensor | None
    lengths: Tensor | None
    exists: Tensor | None

    def senders(self, x: Tensor) -> Tensor:
        """[B, T, num_src, C] -> [B, T', num_joints, C]"""
        graph, stride = self.graph, self.graph.stride
        if not graph.bipartite:
            return x
        if stride > 1:
            x = sparse.mask_frames(x, self.given)
            B, T, J, C = x.shape
            frames = receiver_frames(graph, T)
            x = pad(x, (0, 0, 0, 0, 0, stride * frames - T)).reshape(B, frames, stride * J, C)
        return _with_nodes(x, graph.num_joints)

    def receivers(self, x: Tensor) -> Tensor:
        """[B, T', num_dst, C] -> [B, T', num_joints, C]"""
        return _with_nodes(x, self.graph.num_joints)

    def edges(self, values: Tensor, missing: float = 0.0) -> Tensor:
        """Edge values without those of edges that don't exist.  # [1 or B, P, 1 or T'] -> the same; [B or 1, P, T'] where something is taken out"""
        if self.exists is None:
            return values
        return torch.where(self.exists, spread(values, *torch.broadcast_shapes(self.exists.shape, values.shape)), missing)

    def edge_features(self, values: Tensor) -> Tensor:
        """The same of features.  # [1 or B, P, 1 or T', C]"""
        return values if self.exists is None else torch.where(self.exists[..., None], values, 0)

    def lower(self, y: Tensor) -> Tensor:
        """Results of the square graph in the caller's shape.  # [B, T', num_joints, C] -> [B, T', num_dst, C] or [B, num_dst, C]"""
        if self.graph.num_dst < self.graph.num_joints:
            y = y[:, :, : self.graph.num_dst]
        return y.squeeze(1) if isinstance(self.graph, EdgeList) else y


def lift(graph: Graph, T: int, lengths: Tensor | None, device: torch.device) -> Lifted:
    """T: frames of the senders; lengths: `[B]`, how many of these every walk has."""
    if graph.stride == 1:
        return Lifted(graph, lengths, lengths, None)
    filled = lengths is None and T % graph.stride == 0
    exists = None if filled else edge_exists(graph.offset_on(device), T, lengths, graph.stride)
    return Lifted(graph, lengths, None if lengths is None else (lengths.clamp(max=T) + graph.stride - 1) // graph.stride, exists)


def spread(values: Tensor, *sizes: int) -> Tensor:
    """Values of these sizes; where walks, frames or heads share them, in at least float32: their gradient is rounded once, when it is summed."""
    whole = values.expand(*sizes)
    return whole if whole.shape == values.shape else values.to(torch.promote_types(values.dtype, torch.float32)).expand(*sizes)


def receiver_frames(graph: Graph, T: int) -> int:
    """Frames that receive, of T that send."""
    return -(-T // graph.stride)


def _with_nodes(x: Tensor, count: int) -> Tensor:
    return x if x.shape[2] == count else pad(x, (0, 0, 0, count - x.shape[2]))
