"""The model that looks at a walk and says of every edge of its graph how much speaks for it: the paper's upstream model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastst.graph import SlotGraph
from fastst.nn.layers import EncoderLayer, GraphAttention, checkpointed, together
from fastst.ops import edge_logits, linear
from fastst.ops.checks import refuse_bipartite


class Upstream(nn.Module):
    """g_ω of the paper: poses `[B, T, J, D]` -> edge priors γ `[B, P, T]`.

    Projection, joint embedding and a learned position for every frame (interpolated beyond the trained length `frames`), GATv2 on the initial
    graph for local structure, a transformer encoder for global information; γ is query · key of an edge's two ends / √C plus a learned bias
    for every slot.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import Upstream
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> sizes = {"hidden": 8, "frames": 12, "heads": 2, "encoder_layers": 1}
        >>> upstream = Upstream(graph, 2, **sizes, attention="factorized")
        >>> upstream(torch.randn(2, 12, 17, 2)).shape  # [B, P, T]
        torch.Size([2, 72, 12])
    """

    def __init__(
        self,
        graph: SlotGraph,
        in_channels: int,
        hidden: int,
        frames: int,
        heads: int,
        encoder_layers: int,
        attention: str,
        checkpoint_activations: bool = False,
        window: int = 64,
    ) -> None:
        super().__init__()
        refuse_bipartite("Upstream", graph, "poses are of one kind")
        self.graph = graph
        self.checkpoint_activations = checkpoint_activations
        self.input = nn.Linear(in_channels, hidden)
        self.joint = nn.Parameter(torch.randn(graph.num_joints, hidden) * 0.02)
        self.position = nn.Parameter(torch.randn(frames, hidden) * 0.02)
        self.graph_attention = GraphAttention(hidden, heads)
        self.encoder = nn.ModuleList(EncoderLayer(hidden, heads, attention, window) for _ in range(encoder_layers))
        self.norm = nn.LayerNorm(hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.slot_bias = nn.Parameter(torch.zeros(graph.num_slots))

    def forward(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        return edge_logits(*self.embeddings(poses, lengths), self.graph, self.slot_bias, lengths)

    def embeddings(self, poses: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of the nodes, as receivers and as senders of edges.  # [B, T, J, C] twice"""
        T = poses.shape[1]
        h = linear(poses, self.input.weight, self.input.bias).add_(self.joint + self._positions(T, lengths).unsqueeze(-2))
        h = h + self._layer(self.graph_attention, h, self.graph, lengths)
        for layer in self.encoder:
            h = self._layer(layer, h, lengths)
        query, key = together(h, self.query, self.key, self.norm, 1 / math.sqrt(h.shape[-1]))
        return query, key

    def _layer(self, layer: nn.Module, *inputs: Any) -> Tensor:
        return checkpointed(layer, *inputs) if self.checkpoint_activations else layer(*inputs)

    def _positions(self, T: int, lengths: Tensor | None) -> Tensor:
        """One for every frame, stretched over a walk that is longer than the trained windows: by its own length, not by its batch's.

        # [T, C], or [B, T, C]
        """
        frames = len(self.position)
        if frames >= T:
            return self.position[:T]
        longest = torch.full((1,), T, device=self.position.device) if lengths is None else lengths.clamp(min=frames)
        at = torch.arange(T, device=self.position.device) * ((frames - 1) / (longest - 1).clamp(min=1))[:, None]  # [B, T]
        before = at.long().clamp(max=max(0, frames - 2))
        after = (before + 1).clamp(max=frames - 1)
        fraction = (at - before).clamp(max=1).to(self.position.dtype).unsqueeze(-1)
        return torch.lerp(self.position[before], self.position[after], fraction)
