"""Layers on node features `[B, T, J, C]`: graph convolution, graph attention, and the two ways of attending over a whole walk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from fastst.graph import Graph
from fastst.ops import attend, propagate, use_backend
from fastst.ops.backends import asked_for

ATTENTIONS = ("factorized", "full")


class GraphConvolution(nn.Module):
    """h' = D^-½ (A + I) D^-½ h W + b (Kipf & Welling 2017); `[B, T, J, C]` -> `[B, T, J, C']`. The weights are those of `fastst.ops.gcn_norm`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # He's initialisation: sixteen layers without residuals or normalisation keep their signal.
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")

    def forward(self, h: Tensor, graph: Graph, weight: Tensor, self_weight: Tensor, lengths: Tensor | None = None) -> Tensor:
        # In place: a sum's fresh memory would cost as much as the messages do.
        return propagate(self.linear(h), weight, graph, self_weight, lengths).add_(self.bias)


class GraphAttention(nn.Module):
    """GATv2 (Brody et al. 2022) over the edges of the graph; `[B, T, J, C]` -> `[B, T, J, C]`. A node without edges gets the bias."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.source, self.target = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.attention = nn.Parameter(torch.empty(heads, channels // heads))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.xavier_uniform_(self.attention)

    def forward(self, h: Tensor, graph: Graph, lengths: Tensor | None = None) -> Tensor:
        return attend(self.source(h), self.target(h), self.attention, graph, self.heads, lengths=lengths) + self.bias


class SelfAttention(nn.Module):
    """Multi-head attention, fused; `[N, S, C]` -> `[N, S, C]`. `visible [N, S]` marks what may be looked at."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, h: Tensor, visible: Tensor | None = None) -> Tensor:
        q, k, v = self.project(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, N, heads, S, C / heads]
        mask = None if visible is None else visible[:, None, None, :]
        return self.output(scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2))


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer over the nodes of a walk; `[B, T, J, C]` -> `[B, T, J, C]`.

    `attention="full"`: every node looks at every node, O((J T)²) time. `"factorized"`: joints look at one another within a frame, then frames
    within a joint, O(T J² + J T²).
    """

    def __init__(self, channels: int, heads: int, attention: str) -> None:
        super().__init__()
        count = 2 if attention == "factorized" else 1
        self.attentions = nn.ModuleList(SelfAttention(channels, heads) for _ in range(count))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(count))
        self.feed_forward = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, h: Tensor, visible: Tensor | None) -> Tensor:
        """`visible [B, T]`: frames that may be looked at; None for all."""
        B, T, J, C = h.shape
        if len(self.attentions) == 1:
            nodes = None if visible is None else visible.repeat_interleave(J, 1)
            h = h + self.attentions[0](self.norms[0](h).view(B, T * J, C), nodes).view(B, T, J, C)
        else:
            h = h + self.attentions[0](self.norms[0](h).view(B * T, J, C)).view(B, T, J, C)
            frames = None if visible is None else visible.repeat_interleave(J, 0)
            along = self.norms[1](h).transpose(1, 2).reshape(B * J, T, C)
            h = h + self.attentions[1](along, frames).view(B, J, T, C).transpose(1, 2)
        return h + self.feed_forward(h)


def checkpointed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), of which only the inputs are kept for the backward; what is computed again there runs on the same backend.

    (A backward may come after `use_backend`'s block, and on a GPU comes from a thread of autograd's own, which doesn't see it.)
    """
    backend = asked_for()
    contexts: dict[str, Any] = {} if backend is None else {"context_fn": lambda: (nullcontext(), use_backend(backend))}
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **contexts)  # no layer draws random numbers
