"""The paper's two models, and their composition: learn which edges to keep, classify on what remains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastst.graph import SkeletonGraph, edge_exists
from fastst.layouts import Layout
from fastst.nn.layers import ATTENTIONS, EncoderLayer, GraphAttention, GraphConvolution
from fastst.ops import edge_logits, gcn_norm, keep_probability, sample_edges, sample_from_embeddings
from fastst.ops.sparse import mask_frames

GRAPH_MODES = ("fixed", "random", "learned")
EVALUATIONS = ("sample", "threshold")


class Classification(NamedTuple):
    logits: Tensor  # [B, classes]
    kept: Tensor  # [B, P, T], 0 or 1
    embedding: Tensor  # [B, T, J, C], after the last graph convolution


class Upstream(nn.Module):
    """g_ω of the paper: poses `[B, T, J, D]` -> edge priors γ `[B, P, T]`.

    Projection, joint embedding and a learned position for every frame (interpolated beyond the trained length `frames`), GATv2 on the initial
    graph for local structure, a transformer encoder for global information; γ is query · key of an edge's two ends / √C plus a learned bias
    for every slot.
    """

    def __init__(
        self,
        graph: SkeletonGraph,
        in_channels: int,
        hidden: int,
        frames: int,
        heads: int,
        encoder_layers: int,
        attention: str,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.checkpoint_activations = checkpoint_activations
        self.input = nn.Linear(in_channels, hidden)
        self.joint = nn.Parameter(torch.randn(graph.num_joints, hidden) * 0.02)
        self.position = nn.Parameter(torch.randn(frames, hidden) * 0.02)
        self.graph_attention = GraphAttention(hidden, heads)
        self.encoder = nn.ModuleList(EncoderLayer(hidden, heads, attention) for _ in range(encoder_layers))
        self.norm = nn.LayerNorm(hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.slot_bias = nn.Parameter(torch.zeros(graph.num_slots))

    def forward(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        return edge_logits(*self.embeddings(poses, lengths), self.graph, self.slot_bias, lengths)

    def sample(self, poses: Tensor, lengths: Tensor | None = None, **options: Any) -> Tensor:
        """Kept edges, sampled from the priors without making them; the options are those of `fastst.ops.sample_from_embeddings`."""
        return sample_from_embeddings(*self.embeddings(poses, lengths), self.graph, self.slot_bias, lengths=lengths, **options)

    def embeddings(self, poses: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of the nodes, as receivers and as senders of edges.  # [B, T, J, C] twice"""
        T = poses.shape[1]
        h = self.input(poses) + self.joint + self._positions(T, lengths).unsqueeze(-2)
        h = h + self._layer(self.graph_attention, h, self.graph, lengths)
        visible = None
        if lengths is not None:
            # The first frame is always visible: a softmax over nothing would be NaN, and a walk of length 0 has no edge that could tell.
            visible = torch.arange(T, device=poses.device) < lengths.clamp(min=1)[:, None]
        for layer in self.encoder:
            h = self._layer(layer, h, visible)
        h = self.norm(h)
        return self.query(h) / math.sqrt(h.shape[-1]), self.key(h)

    def _layer(self, layer: nn.Module, *inputs: Any) -> Tensor:
        return _checkpointed(layer, *inputs) if self.checkpoint_activations else layer(*inputs)

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


class Downstream(nn.Module):
    """f_θ of the paper: poses and kept edges -> class logits, by graph convolutions with ReLU and no residuals, a mean over all nodes, and a
    linear classifier."""

    def __init__(
        self, graph: SkeletonGraph, in_channels: int, hidden: int, layers: int, num_classes: int, checkpoint_activations: bool = False
    ) -> None:
        super().__init__()
        self.graph = graph
        self.checkpoint_activations = checkpoint_activations
        widths = [in_channels] + [hidden] * layers
        self.convolutions = nn.ModuleList(GraphConvolution(a, b) for a, b in itertools.pairwise(widths))
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, poses: Tensor, kept: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class logits `[B, classes]` and the last node embedding `[B, T, J, C]`."""
        weight, self_weight = gcn_norm(kept, self.graph, lengths)
        h = poses
        for convolution in self.convolutions:
            inputs = (h, self.graph, weight, self_weight, lengths)
            h = (_checkpointed(convolution, *inputs) if self.checkpoint_activations else convolution(*inputs)).relu_()
        return self.classifier(_mean_over_nodes(h, lengths)), h


class GraphClassifier(nn.Module):
    """y = f_θ(x, g_ω(G, x)): classifies walks on a graph that is fixed, randomly thinned, or learned for every walk.

    Args:
        layout: skeleton of the walks.
        num_classes, in_channels: classes, and coordinates of a joint (2 or 3).
        graph: `fixed` keeps the whole initial graph; `random` removes every edge with probability `drop`, anew for every sample; `learned`
            samples it from the upstream model's priors.
        hops: k of the initial graph. layers, hidden: of the downstream model (hidden of both). heads, encoder_layers, attention: of the upstream.
        frames: frames of a training window: as many positions are learned.
        noise, estimator, beta, tau: see `fastst.ops.sample_edges`.
        checkpoint_activations: keep only the inputs of every layer for the backward, and compute the rest again there: the same numbers, about a
            third more time, and several times longer walks in the same memory.

    Raises:
        ValueError: a size or a name that does not exist.
    """

    pose_mean: Tensor
    pose_scale: Tensor

    def __init__(
        self,
        layout: Layout | str | Mapping[str, Any],
        num_classes: int,
        in_channels: int = 2,
        graph: str = "learned",
        hops: int = 1,
        layers: int = 4,
        hidden: int = 64,
        frames: int = 60,
        attention: str = "factorized",
        heads: int = 4,
        encoder_layers: int = 1,
        drop: float = 0.5,
        noise: str = "gumbel",
        estimator: str = "identity",
        beta: float = 2.0,
        tau: float = 2.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        for name, value, choices in (("graph", graph, GRAPH_MODES), ("attention", attention, ATTENTIONS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if hidden % heads:
            raise ValueError(f"heads must divide hidden = {hidden}, got {heads}")
        if not 0 <= drop < 1:
            raise ValueError(f"drop is the share of edges to remove, at least 0 and below 1; got {drop}")
        self.graph_mode, self.drop = graph, drop
        self.sampling: dict[str, Any] = {"beta": beta, "tau": tau, "noise": noise, "estimator": estimator}
        self.graph = SkeletonGraph(layout, hops)
        self.register_buffer("pose_mean", torch.zeros(self.graph.num_joints, in_channels))
        self.register_buffer("pose_scale", torch.ones(self.graph.num_joints, in_channels))
        self.downstream = Downstream(self.graph, in_channels, hidden, layers, num_classes, checkpoint_activations)
        self.upstream = None
        if graph == "learned":
            self.upstream = Upstream(self.graph, in_channels, hidden, frames, heads, encoder_layers, attention, checkpoint_activations)

    def forward(
        self,
        poses: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int = 0,
        sample_ids: Tensor | None = None,
        evaluation: str = "sample",
    ) -> Classification:
        """Poses `[B, T, J, D]`, lengths `[B]` frames (None: all T), seed and sample_ids as in `sample_edges`.

        `evaluation="threshold"` keeps the edges whose keep probability is above ½ instead of sampling them (learned graphs).

        Raises:
            ValueError: an evaluation that does not exist.
        """
        if evaluation not in EVALUATIONS:
            raise ValueError(f"evaluation must be one of {', '.join(EVALUATIONS)}, got {evaluation!r}")
        # What stands beyond a walk's length counts for nothing, not even as 0 times NaN in a gradient.
        poses = mask_frames((poses - self.pose_mean) / self.pose_scale, lengths)
        kept = self._kept(poses, lengths, seed, sample_ids, evaluation)
        logits, embedding = self.downstream(poses, kept, lengths)
        return Classification(logits, kept, embedding)

    def standardize(self, walks: Iterable[Tensor]) -> None:
        """From now on every joint's coordinates are given relative to their mean over these walks `[T, J, D]`, in units of their standard deviation.

        What tells people apart is small beside the shape of a body: without this a few graph convolutions don't find it.
        """
        frames = torch.cat(list(walks)).double()
        scale = frames.std(0, unbiased=False)
        self.pose_mean.copy_(frames.mean(0))
        self.pose_scale.copy_(torch.where(scale > 1e-6, scale, 1))  # a root joint, say, does not move

    def _kept(self, poses: Tensor, lengths: Tensor | None, seed: int, sample_ids: Tensor | None, evaluation: str) -> Tensor:
        B, T = poses.shape[:2]
        if self.graph_mode == "fixed":
            return self._existing_edges(B, T, lengths, poses.device)
        if self.graph_mode == "random":
            logits = poses.new_full((B, self.graph.num_slots, T), math.log((1 - self.drop) / max(self.drop, 1e-30)))
            return sample_edges(logits, self.graph, seed=seed, noise="logistic", sample_ids=sample_ids, lengths=lengths)
        assert self.upstream is not None
        if evaluation == "threshold":
            logits = self.upstream(poses, lengths)
            likely = keep_probability(logits, beta=self.sampling["beta"], noise=self.sampling["noise"]) > 0.5
            return likely.to(logits.dtype) * self._existing_edges(B, T, lengths, poses.device)
        return self.upstream.sample(poses, lengths, seed=seed, sample_ids=sample_ids, **self.sampling)

    def _existing_edges(self, B: int, T: int, lengths: Tensor | None, device: torch.device) -> Tensor:
        mask = edge_exists(self.graph.index(device).offset, T, lengths)
        return mask.float().expand(B, self.graph.num_slots, T)


def _checkpointed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), of which only the inputs are kept for the backward."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)  # no layer draws random numbers


def _mean_over_nodes(h: Tensor, lengths: Tensor | None) -> Tensor:
    """Over the frames within the lengths; 0 for a walk without frames.  # [B, T, J, C] -> [B, C]"""
    if lengths is None:
        return h.mean((1, 2))
    inside = torch.arange(h.shape[1], device=h.device) < lengths[:, None]  # [B, T]
    count = (lengths.clamp(1, h.shape[1]) * h.shape[2])[:, None]
    return torch.where(inside[:, :, None, None], h, 0).sum((1, 2)) / count
