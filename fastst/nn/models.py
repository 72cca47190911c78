"""The paper's two models in one: a graph source says which edges of a walk to keep, a graph convolutional network classifies what remains."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

from fastst.graph import SkeletonGraph
from fastst.layouts import Layout
from fastst.nn.layers import ATTENTIONS, GraphConvolution, checkpointed
from fastst.nn.sources import EVALUATIONS, ExactlyKGraph, FixedGraph, GraphSource, LearnedGraph, RandomGraph, ReinforcedGraph
from fastst.nn.upstream import Upstream
from fastst.ops import Sampling, gcn_norm, propagate
from fastst.ops.sparse import mask_frames

GRAPH_MODES = ("fixed", "random", "learned")
READOUTS = ("edges", "nodes")
ESTIMATORS = ("identity", "sigmoid", "reinforce", "exactly_k")


class Classification(NamedTuple):
    """What a `GraphClassifier` says of a batch of walks.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import GraphClassifier
        >>> model = GraphClassifier("coco17", num_classes=3, layers=1, hidden=8)
        >>> out = model(torch.zeros(2, 12, 17, 2))
        >>> out.logits.shape, out.kept.shape, out.embedding.shape
        (torch.Size([2, 3]), torch.Size([2, 72, 12]), torch.Size([2, 12, 17, 8]))
    """

    logits: Tensor  # [B, classes]
    kept: Tensor  # [B, P, T], 0 or 1
    embedding: Tensor  # [B, T, J, C], after the last graph convolution
    information: Tensor | None = None  # [B], where a prior was given and the graph is learned
    log_probability: Tensor | None = None  # [B], of what was kept, while training with `estimator="reinforce"`


_register_namedtuple(Classification, serialized_type_name="fastst.nn.Classification")  # for torch.export.save


class Downstream(nn.Module):
    """f_θ of the paper: poses and kept edges -> class logits, by graph convolutions with ReLU, a mean, and a linear classifier.

    h₀ = relu(W x + e_joint), h ← relu((1 − α) conv(h) + α h₀), then what is left of h is averaged: over the two ends of every kept edge with
    `readout="edges"`, over all nodes with `"nodes"`. Without a joint embedding and with α = 0 the first convolution sees the poses: the paper's
    plain layers.

    With `readout="edges"` the classifier has no bias of its own: a walk without kept edges gets `class_log_share`, which is not learned. What was
    removed was not used.

    Args:
        residual: α, the initial residual of GCNII (Chen et al. 2020); without it many layers make all nodes alike.
        joint_embedding: whether a node knows which joint it is.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import Downstream
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> model = Downstream(graph, in_channels=2, hidden=8, layers=2, num_classes=3)
        >>> logits, embedding = model(torch.randn(4, 10, 17, 2), torch.ones(4, graph.num_slots, 10))
        >>> logits.shape, embedding.shape
        (torch.Size([4, 3]), torch.Size([4, 10, 17, 8]))
    """

    class_log_share: Tensor

    def __init__(
        self,
        graph: SkeletonGraph,
        in_channels: int,
        hidden: int,
        layers: int,
        num_classes: int,
        joint_embedding: bool = True,
        residual: float = 0.2,
        readout: str = "edges",
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.graph, self.residual, self.readout = graph, residual, readout
        self.checkpoint_activations = checkpoint_activations
        self.joint = nn.Parameter(torch.randn(graph.num_joints, hidden) * 0.3) if joint_embedding else None
        self.input = nn.Linear(in_channels, hidden) if joint_embedding or residual else None
        widths = [in_channels if self.input is None else hidden] + [hidden] * layers
        self.convolutions = nn.ModuleList(GraphConvolution(a, b) for a, b in itertools.pairwise(widths))
        self.classifier = nn.Linear(hidden, num_classes, bias=readout == "nodes")
        self.register_buffer("class_log_share", torch.zeros(num_classes))

    def forward(self, poses: Tensor, kept: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class logits `[B, classes]` and the last node embedding `[B, T, J, C]`."""
        weight, self_weight = gcn_norm(kept, self.graph, lengths)
        h = first = self._input(poses)
        for convolution in self.convolutions:
            inputs = (convolution, h, first, weight, self_weight, lengths)
            h = checkpointed(self._layer, *inputs) if self.checkpoint_activations else self._layer(*inputs)
        logits = self.classifier(self._frames(h, kept, lengths).sum(1).to(h.dtype))
        return logits if self.readout == "nodes" else logits + self.class_log_share.to(logits.dtype), h

    def evidence(self, h: Tensor, kept: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What every frame adds to the class logits; with `readout="edges"` what the kept edges that end in it add.

        The sum over the frames, with the bias (`readout="nodes"`) or `class_log_share`, is the logits: an exact account, not an estimate.

        Args:
            h: the last node embedding, which `forward` gives for these edges.  # [B, T, J, C]

        Returns:
            # [B, T, classes]
        """
        return self._frames(h, kept, lengths) @ self.classifier.weight.float().T

    def _frames(self, h: Tensor, kept: Tensor, lengths: Tensor | None) -> Tensor:
        """Every frame's share of the mean that is classified, float32.  # [B, T, C]"""
        if self.readout == "nodes":
            return _shares_of_nodes(h, lengths)
        return _shares_of_kept_edges(h, kept, self.graph, lengths)

    def _input(self, poses: Tensor) -> Tensor:
        if self.input is None:
            return poses
        h = self.input(poses)
        return (h if self.joint is None else h + self.joint).relu()

    def _layer(self, convolution: nn.Module, h: Tensor, first: Tensor, weight: Tensor, self_weight: Tensor, lengths: Tensor | None) -> Tensor:
        residual = first if self.residual else None
        return convolution(h, self.graph, weight, self_weight, lengths, residual=residual, share=self.residual, relu=True)


class GraphClassifier(nn.Module):
    """y = f_θ(x, g_ω(G, x)): classifies walks on a graph that is fixed, randomly thinned, or learned for every walk.

    Args:
        layout: skeleton of the walks.
        num_classes, in_channels: classes, and coordinates of a joint (2 or 3).
        graph: `fixed` keeps the whole initial graph; `random` removes every edge with probability `drop`, anew for every sample; `learned`
            samples it from the logits of an upstream model; or a `GraphSource` of your own, on the same layout and hops.
        hops: k of the initial graph. layers, hidden: of the downstream model (hidden of both). heads, encoder_layers, attention: of the upstream.
        window: of `attention="local"`: how many frames away the frames are that a frame looks at.
        frames: frames of a training window: as many positions are learned.
        keep_start: keep probability of every edge before training; 0 for what random weights say.
        joint_embedding, residual, readout: see `Downstream`.
        noise, beta, tau: see `fastst.ops.sample_edges`.
        estimator: identity, sigmoid: see `fastst.ops.sample_edges`. reinforce: samples without a gradient, but with the log-probability that one can
            go through. exactly_k: so many of the edges that end in a frame that they are the share `keep` of the slots, see `ExactlyKGraph`; noise,
            beta, tau, keep_start and a prior have no meaning there.
        checkpoint_activations: keep only the inputs of every layer for the backward, and compute the rest again there: the same numbers, about a
            third more time, and several times longer walks in the same memory.

    Raises:
        ValueError: a size or a name that does not exist.

    Examples:
        >>> import torch
        >>> from fastst.nn import GraphClassifier
        >>> model = GraphClassifier("coco17", num_classes=3, hops=2)
        >>> out = model(torch.randn(4, 60, 17, 2), lengths=torch.tensor([60, 60, 45, 30]))
        >>> out.logits.shape, out.kept.shape
        (torch.Size([4, 3]), torch.Size([4, 234, 60]))
    """

    pose_mean: Tensor
    pose_scale: Tensor

    def __init__(
        self,
        layout: Layout | str | Mapping[str, Any],
        num_classes: int,
        in_channels: int = 2,
        graph: str | GraphSource = "learned",
        hops: int = 1,
        layers: int = 4,
        hidden: int = 32,
        frames: int = 60,
        attention: str = "factorized",
        heads: int = 4,
        encoder_layers: int = 1,
        drop: float = 0.5,
        noise: str = "logistic",
        estimator: str = "sigmoid",
        beta: float = 2.0,
        tau: float = 1.0,
        keep_start: float = 0.9,
        joint_embedding: bool = True,
        residual: float = 0.2,
        readout: str = "edges",
        checkpoint_activations: bool = False,
        window: int = 64,
        keep: float = 0.2,
    ) -> None:
        super().__init__()
        for name, value, choices in (("attention", attention, ATTENTIONS), ("readout", readout, READOUTS), ("estimator", estimator, ESTIMATORS)):
            check_choice(name, value, choices)
        if hidden % heads:
            raise ValueError(f"heads must divide hidden = {hidden}, got {heads}")
        if not 0 <= residual < 1:
            raise ValueError(f"residual is a share, at least 0 and below 1; got {residual}")
        self.graph = SkeletonGraph(layout, hops)
        self.register_buffer("pose_mean", torch.zeros(self.graph.num_joints, in_channels))
        self.register_buffer("pose_scale", torch.ones(self.graph.num_joints, in_channels))
        classifier = (num_classes, joint_embedding, residual, readout, checkpoint_activations)
        self.downstream = Downstream(self.graph, in_channels, hidden, layers, *classifier)
        self.source: GraphSource
        if isinstance(graph, GraphSource):
            self.source = graph
        elif check_choice("graph", graph, GRAPH_MODES) == "fixed":
            self.source = FixedGraph(self.graph)
        elif graph == "random":
            self.source = RandomGraph(self.graph, drop)
        else:
            upstream = Upstream(self.graph, in_channels, hidden, frames, heads, encoder_layers, attention, checkpoint_activations, window)
            self.source = _learned(upstream, estimator, {"beta": beta, "tau": tau, "noise": noise}, keep_start or None, keep)

    def forward(
        self,
        poses: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Tensor | None = None,
        sample_ids: Tensor | None = None,
        evaluation: str = "sample",
        prior: float | Tensor | None = None,
        likeliest: Tensor | None = None,
        edges_of: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Classification:
        """Poses `[B, T, J, D]`, lengths `[B]` frames (None: all T), seed and sample_ids as in `sample_edges`.

        Without a seed every call in training mode draws another graph, with torch's generator; in evaluation mode a walk's graph is always the same,
        wherever in a batch it stands. A CUDA graph that is captured by hand needs a seed, a tensor on the GPU: another value, another draw.

        Args:
            evaluation: `threshold` keeps the edges whose keep probability is above ½ instead of sampling them (learned graphs).
            prior: also give the information term against this keep probability (learned graphs), see `sample_from_embeddings`.
            likeliest: `[B]` shares; where one is not 0, the walk keeps that share of its edges, those with the highest logits, instead of a sample
                (learned graphs).
            edges_of: `[B]` numbers of walks of this batch: each is classified on what the source kept for that one, as far as it has these edges.
            kept: classify on these edges `[B, P, T]`, and don't ask the source.

        Raises:
            ValueError: an evaluation that does not exist.
        """
        check_choice("evaluation", evaluation, EVALUATIONS)
        poses = self.prepared(poses, lengths)
        information = log_probability = None
        if kept is None:
            if seed is None:
                seed = torch.randint(1 << 62, (), device="cpu") if self.training else 0
                if sample_ids is None and not self.training:
                    sample_ids = torch.zeros(poses.shape[0], dtype=torch.int64, device=poses.device)
            options = {"evaluation": evaluation, "prior": prior, "likeliest": likeliest}
            kept, information, log_probability = self.source(poses, lengths, seed=seed, sample_ids=sample_ids, **options)
            if edges_of is not None:
                kept = kept[edges_of] * self.source.existing(poses, lengths)
                log_probability = None if log_probability is None else log_probability[edges_of]
        logits, embedding = self.downstream(poses, kept, lengths)
        return Classification(logits, kept, embedding, information, log_probability)

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How likely every edge of these walks is to be kept, 0 where none exists.  # [B, P, T]"""
        return self.source.probability(self.prepared(poses, lengths), lengths)

    def prepared(self, poses: Tensor, lengths: Tensor | None) -> Tensor:
        """Standardised poses. What stands beyond a walk's length counts for nothing, not even as 0 times NaN in a gradient."""
        return mask_frames((poses - self.pose_mean) / self.pose_scale, lengths)

    def standardize(self, walks: Iterable[Tensor]) -> None:
        """From now on every joint's coordinates are given relative to their mean over these walks `[T, J, D]`, in units of their standard deviation.

        What tells people apart is small beside the shape of a body: without this a few graph convolutions don't find it.
        """
        walks = list(walks)
        count = sum(map(len, walks))
        # Walk by walk: all of them at once, in float64, would be three times the data.
        mean = torch.stack([walk.sum(0, dtype=torch.float64) for walk in walks]).sum(0) / count
        scale = (torch.stack([(walk.double() - mean).square().sum(0) for walk in walks]).sum(0) / count).sqrt()
        self.pose_mean.copy_(mean)
        self.pose_scale.copy_(torch.where(scale > 1e-6, scale, 1))  # a root joint, say, does not move

    def expect(self, class_shares: Tensor) -> None:
        """From now on this is what a walk without kept edges is given (`readout="edges"`): the shares of the classes `[classes]`."""
        self.downstream.class_log_share.copy_(class_shares.log())


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _learned(upstream: Upstream, estimator: str, sampling: dict[str, Any], start: float | None, keep: float) -> LearnedGraph:
    """The source whose samples have that gradient."""
    if estimator == "exactly_k":
        return ExactlyKGraph(upstream, keep)
    if estimator == "reinforce":
        return ReinforcedGraph(upstream, Sampling(**sampling), start)
    return LearnedGraph(upstream, Sampling(**sampling, estimator=estimator), start)


def _shares_of_nodes(h: Tensor, lengths: Tensor | None) -> Tensor:
    """Σ over a frame's joints of h / nodes within the lengths; 0 beyond.  # [B, T, J, C] -> [B, T, C]"""
    B, T, J = h.shape[:3]
    frames = h.sum(2, dtype=torch.float32)
    if lengths is None:
        return frames / (T * J)
    inside = torch.arange(T, device=h.device) < lengths[:, None]  # [B, T]
    return torch.where(inside[:, :, None], frames, 0) / (lengths.clamp(1, T) * J).view(B, 1, 1)


def _shares_of_kept_edges(h: Tensor, kept: Tensor, graph: SkeletonGraph, lengths: Tensor | None) -> Tensor:
    """Σ over the kept edges that end in a frame of (h_to + h_from) / (2 · all kept edges): every node counts as often as kept edges end or begin
    at it; 0 without any.  # [B, T, J, C] -> [B, T, C]"""
    arriving = propagate(kept.new_ones(*h.shape[:3], 1), kept, graph, lengths=lengths).squeeze(-1)  # [B, T, J]
    ends = propagate(h, kept, graph, arriving, lengths).sum(2, dtype=torch.float32)
    return ends / (2 * kept.sum((1, 2), dtype=torch.float32).clamp(min=1).view(-1, 1, 1))
