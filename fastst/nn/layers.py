"""Layers on node features `[B, T, J, C]`: graph convolution, graph attention, and the two ways of attending over a whole walk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastst.graph import Graph
from fastst.ops import attend, attend_axis, feed_forward, linear, linears, propagate, use_backend
from fastst.ops.backends import asked_for

ATTENTIONS = ("factorized", "local", "full")


class GraphConvolution(nn.Module):
    """h' = D^-½ (A + I) D^-½ h W + b (Kipf & Welling 2017); `[B, T, J, C]` -> `[B, T, J, C']`. The weights are those of `fastst.ops.gcn_norm`.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> from fastst.nn import GraphConvolution
        >>> graph, layer = SkeletonGraph("coco17", hops=1), GraphConvolution(16, 32)
        >>> weights = ops.gcn_norm(torch.ones(2, graph.num_slots, 12), graph)
        >>> layer(torch.randn(2, 12, 17, 16), graph, *weights).shape
        torch.Size([2, 12, 17, 32])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # He's initialisation: sixteen layers without residuals or normalisation keep their signal.
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")

    def forward(
        self,
        h: Tensor,
        graph: Graph,
        weight: Tensor,
        self_weight: Tensor,
        lengths: Tensor | None = None,
        *,
        residual: Tensor | None = None,
        share: float = 0.0,
        relu: bool = False,
    ) -> Tensor:
        """(1 - share) h' + share · residual, if wanted through a ReLU."""
        h = propagate(h, weight, graph, self_weight, lengths)
        W, b = self.linear.weight, self.bias
        if residual is None:
            return linear(h, W, b, relu=relu)
        return linear(h, (1 - share) * W, (1 - share) * b, residual=residual, share=share, relu=relu)


class GraphAttention(nn.Module):
    """GATv2 (Brody et al. 2022) over the edges of the graph; `[B, T, J, C]` -> `[B, T, J, C]`. A node without edges gets the bias.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import GraphAttention
        >>> layer = GraphAttention(channels=16, heads=4)
        >>> layer(torch.randn(2, 12, 17, 16), SkeletonGraph("coco17", hops=1)).shape
        torch.Size([2, 12, 17, 16])
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.source, self.target = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.attention = nn.Parameter(torch.empty(heads, channels // heads))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.xavier_uniform_(self.attention)

    def forward(self, h: Tensor, graph: Graph, lengths: Tensor | None = None) -> Tensor:
        source, target = together(h, self.source, self.target)
        return attend(source, target, self.attention, graph, self.heads, lengths=lengths) + self.bias


class SelfAttention(nn.Module):
    """h + multi-head attention along an axis of norm(h), see `fastst.ops.attend_axis`; `[B, T, J, C]` -> `[B, T, J, C]`."""

    def __init__(self, channels: int, heads: int, axis: str, window: int | None = None) -> None:
        super().__init__()
        self.heads, self.axis, self.window = heads, axis, window
        self.project, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, h: Tensor, norm: nn.LayerNorm, lengths: Tensor | None = None) -> Tensor:
        q, k, v = linears(h, self.project.weight, self.project.bias, 3, of_norm(norm))
        y = attend_axis(q, k, v, self.heads, self.axis, self.window, lengths)
        return linear(y, self.output.weight, self.output.bias, residual=h)


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer over the nodes of a walk; `[B, T, J, C]` -> `[B, T, J, C]`.

    `attention="full"`: every node looks at every node, O((J T)²) time. `"factorized"`: joints look at one another within a frame, then frames
    within a joint, O(T J² + J T²). `"local"`: as factorized, but a frame looks at those at most `window` frames away, O(T J² + J T window).

    Examples:
        >>> import torch
        >>> from fastst.nn import EncoderLayer
        >>> layer = EncoderLayer(channels=16, heads=4, attention="factorized")
        >>> layer(torch.randn(2, 10, 17, 16)).shape
        torch.Size([2, 10, 17, 16])
    """

    def __init__(self, channels: int, heads: int, attention: str, window: int = 64) -> None:
        super().__init__()
        ways: dict[str, list[tuple[str, int | None]]] = {
            "full": [("frames", None)],
            "factorized": [("joints", None), ("frames", None)],
            "local": [("joints", None), ("frames", window)],
        }
        self.full = attention == "full"
        self.attentions = nn.ModuleList(SelfAttention(channels, heads, *way) for way in ways[attention])
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in ways[attention])
        self.feed_forward = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths [B]` frames of every walk; None for all."""
        B, T, J, C = h.shape
        if self.full:  # the nodes as frames of one joint
            h, lengths = h.view(B, T * J, 1, C), None if lengths is None else lengths * J
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            h = attention(h, norm, lengths)
        block: Any = self.feed_forward
        norm, into, _, out_of = block
        return feed_forward(h.view(B, T, J, C), of_norm(norm), into.weight, into.bias, out_of.weight, out_of.bias)


def together(h: Tensor, first: nn.Linear, second: nn.Linear, norm: nn.LayerNorm | None = None, times: float = 1.0) -> tuple[Tensor, ...]:
    """Two linear layers of the same h, if wanted of norm(h); the first one's result so many times."""
    weight, bias = torch.cat((first.weight * times, second.weight)), torch.cat((first.bias * times, second.bias))
    return linears(h, weight, bias, 2, None if norm is None else of_norm(norm))


def of_norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return norm.weight, norm.bias, norm.eps


def checkpointed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), of which only the inputs are kept for the backward; what is computed again there runs on the same backend.

    (A backward may come after `use_backend`'s block, and on a GPU comes from a thread of autograd's own, which doesn't see it.)
    """
    backend = asked_for()
    contexts: dict[str, Any] = {} if backend is None else {"context_fn": lambda: (nullcontext(), use_backend(backend))}
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **contexts)  # no layer draws random numbers
