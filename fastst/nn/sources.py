"""Where a classifier's graph comes from: the whole skeleton graph, a random part of it, one that is learned for every walk, or a given one.

A source of your own is a module with the two methods of `GraphSource`; hand it to `GraphClassifier(graph=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastst.graph import SlotGraph
from fastst.graph_index import edge_exists
from fastst.nn.rankings import first_of, ranking, share_of
from fastst.nn.upstream import Upstream
from fastst.ops import Sampling, edge_logits, keep_probability, sample_edges, sample_from_embeddings, sample_k_edges
from fastst.ops.checks import refuse_bipartite

EVALUATIONS = ("sample", "threshold")
_Ends = tuple[Tensor, Tensor, SlotGraph, Tensor]  # embeddings of both ends, the graph, and a bias of every slot


class Edges(NamedTuple):
    """What a source gives for a batch of walks.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import FixedGraph
        >>> edges = FixedGraph(SkeletonGraph("coco17", hops=1))(torch.zeros(2, 12, 17, 2))
        >>> edges.kept.shape, edges.information
        (torch.Size([2, 72, 12]), None)
    """

    kept: Tensor  # [B, P, T], 0 or 1
    information: Tensor | None = None  # [B], where a prior was given and edges are learned
    log_probability: Tensor | None = None  # [B], of these edges, where their gradient goes through it


class GraphSource(nn.Module):
    """Poses `[B, T, J, D]` -> the edges that stay of the initial graph.

    Args:
        graph: the initial graph, of which edges are kept. None is ever added.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import GraphClassifier, RandomGraph
        >>> source = RandomGraph(SkeletonGraph("coco17", hops=1), drop=0.5)
        >>> model = GraphClassifier("coco17", num_classes=3, graph=source)
        >>> model(torch.randn(2, 12, 17, 2)).logits.shape
        torch.Size([2, 3])
    """

    def __init__(self, graph: SlotGraph) -> None:
        super().__init__()
        refuse_bipartite(type(self).__name__, graph, "poses are of one kind")
        self.graph = graph

    def forward(
        self,
        poses: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Tensor = 0,
        sample_ids: Tensor | None = None,
        evaluation: str = "sample",
        prior: float | Tensor | None = None,
        likeliest: Tensor | None = None,
    ) -> Edges:
        """The arguments are those of `GraphClassifier`; a source looks at those that mean something to it."""
        raise NotImplementedError

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How likely every edge is to be kept, 0 where none exists.  # [B, P, T]"""
        raise NotImplementedError

    def existing(self, poses: Tensor, lengths: Tensor | None) -> Tensor:
        """1 for every edge that exists.  # [B, P, T]"""
        B, T = poses.shape[:2]
        mask = edge_exists(self.graph.index(poses.device).offset, T, lengths)
        return mask.float().expand(B, self.graph.num_slots, T)


class FixedGraph(GraphSource):
    """Keeps every edge.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import FixedGraph
        >>> source = FixedGraph(SkeletonGraph("coco17", hops=1))
        >>> source(torch.zeros(2, 12, 17, 2)).kept[0, :, 5].unique()  # of a frame that is not at the end
        tensor([1.])
    """

    def forward(self, poses: Tensor, lengths: Tensor | None = None, **_: object) -> Edges:
        return Edges(self.existing(poses, lengths))

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.existing(poses, lengths)


class GivenGraph(GraphSource):
    """Keeps the slots that are named, in every walk and frame.

    Args:
        kept: for every slot whether it stays, `[P]`.

    Raises:
        ValueError: not one value for every slot.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import GivenGraph
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> source = GivenGraph(graph, graph.offset == 0)  # bones, and nothing along time
        >>> source(torch.zeros(2, 12, 17, 2)).kept.shape
        torch.Size([2, 72, 12])
    """

    kept: Tensor

    def __init__(self, graph: SlotGraph, kept: Tensor | Sequence[bool]) -> None:
        super().__init__(graph)
        kept = torch.as_tensor(kept)
        if list(kept.shape) != [graph.num_slots]:
            raise ValueError(f"kept must be [{graph.num_slots}], one value for every slot of {graph}, got {list(kept.shape)}")
        self.register_buffer("kept", kept.bool())

    def forward(self, poses: Tensor, lengths: Tensor | None = None, **_: object) -> Edges:
        return Edges(self.probability(poses, lengths))

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.existing(poses, lengths) * self.kept[:, None]


class RandomGraph(GraphSource):
    """Removes every edge with probability `drop`, anew for every sample.

    Raises:
        ValueError: drop is no share below 1.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import RandomGraph
        >>> source = RandomGraph(SkeletonGraph("coco17", hops=1), drop=0.5)
        >>> first, again = (source(torch.zeros(2, 12, 17, 2), seed=1).kept for _ in range(2))
        >>> torch.equal(first, again), first.unique()
        (True, tensor([0., 1.]))
    """

    def __init__(self, graph: SlotGraph, drop: float) -> None:
        super().__init__(graph)
        if not 0 <= drop < 1:
            raise ValueError(f"drop is the share of edges to remove, at least 0 and below 1; got {drop}")
        self.drop = drop

    def forward(
        self,
        poses: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Tensor = 0,
        sample_ids: Tensor | None = None,
        **_: object,
    ) -> Edges:
        logit = math.log((1 - self.drop) / max(self.drop, 1e-30))
        logits = poses.new_full((poses.shape[0], self.graph.num_slots, poses.shape[1]), logit)
        return Edges(sample_edges(logits, self.graph, seed=seed, noise="logistic", sample_ids=sample_ids, lengths=lengths))

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.existing(poses, lengths) * (1 - self.drop)


class LearnedGraph(GraphSource):
    """Samples every edge from the logit that `upstream` gives it.

    Args:
        upstream: poses -> logits.
        sampling: how edges are sampled from them.
        start: every edge's keep probability before training, but for what the random weights add; None for theirs alone.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph
        >>> from fastst.nn import LearnedGraph, Upstream
        >>> from fastst.ops import Sampling
        >>> graph, sizes = SkeletonGraph("coco17", hops=1), (2, 8, 12, 2, 1)  # as in Upstream
        >>> source = LearnedGraph(Upstream(graph, *sizes, "factorized"), Sampling(noise="logistic"))
        >>> source(torch.zeros(2, 12, 17, 2), seed=1).kept.detach().unique()
        tensor([0., 1.])
    """

    def __init__(self, upstream: Upstream, sampling: Sampling, start: float | None = None) -> None:
        super().__init__(upstream.graph)
        self.upstream, self.sampling = upstream, sampling
        if start is not None:
            nn.init.constant_(upstream.slot_bias, _logit(start, sampling))

    def forward(
        self,
        poses: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int | Tensor = 0,
        sample_ids: Tensor | None = None,
        evaluation: str = "sample",
        prior: float | Tensor | None = None,
        likeliest: Tensor | None = None,
    ) -> Edges:
        """Sampled edges, or with `evaluation="threshold"` those more likely kept than not.

        With a prior also the information of every walk's edges, see `fastst.ops.sample_from_embeddings`. With `likeliest [B]` a walk whose number
        is not 0 keeps that share of its edges, those with the highest logits, instead of a sample: no gradient flows to their choice. Neither counts
        where a threshold chooses.
        """
        if evaluation == "threshold":
            return Edges(self._thresholded(self.probability(poses, lengths), poses, lengths).to(poses.dtype))
        q, k = self.upstream.embeddings(poses, lengths)
        edges = (q, k, self.graph, self.upstream.slot_bias)
        drawn = self._drawn(edges, lengths, seed, sample_ids, prior)
        if likeliest is None:
            return drawn
        with torch.no_grad():
            existing = self.existing(poses, lengths)
            order = ranking(edge_logits(*edges, lengths), existing)
            first = first_of(order, share_of(existing.sum((1, 2)), likeliest), existing)
        is_ranked, scores = likeliest > 0, drawn.log_probability
        kept = torch.where(is_ranked[:, None, None], first.to(drawn.kept.dtype), drawn.kept)
        return Edges(kept, drawn.information, None if scores is None else torch.where(is_ranked, 0, scores))

    def _drawn(self, edges: _Ends, lengths: Tensor | None, seed: int | Tensor, sample_ids: Tensor | None, prior: float | Tensor | None) -> Edges:
        options: dict[str, Any] = {"seed": seed, "sample_ids": sample_ids, "lengths": lengths, "sampling": self.sampling}
        if prior is None:
            return Edges(sample_from_embeddings(*edges, **options))
        return Edges(*sample_from_embeddings(*edges, prior=prior, **options))

    def _thresholded(self, probability: Tensor, poses: Tensor, lengths: Tensor | None) -> Tensor:
        """What stays of the edges where nothing is drawn.  # [B, P, T], bool"""
        return probability > 0.5

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits = self.upstream(poses, lengths)
        return keep_probability(logits, sampling=self.sampling) * self.existing(poses, lengths)


class ReinforcedGraph(LearnedGraph):
    """A `LearnedGraph` whose samples have no gradient. With log P(kept), which it gives beside them, (loss.detach() - baseline) * log P(kept) has
    that of the expected loss: REINFORCE (Williams 1992), without bias and with much spread."""

    def _drawn(self, edges: _Ends, lengths: Tensor | None, seed: int | Tensor, sample_ids: Tensor | None, prior: float | Tensor | None) -> Edges:
        drawn = super()._drawn(edges, lengths, seed, sample_ids, prior)
        kept = drawn.kept.detach()
        if not drawn.kept.requires_grad:
            return Edges(kept, drawn.information)
        logits, existing = edge_logits(*edges, lengths), edge_exists(self.graph.index(kept.device).offset, kept.shape[2], lengths)
        return Edges(kept, drawn.information, log_probability(logits, kept, existing, self.sampling))


class ExactlyKGraph(LearnedGraph):
    """Keeps exactly k of the edges that end in a frame, by the logits that `upstream` gives them, with SIMPLE's gradient; all where there are no
    more. See `fastst.ops.sample_k_edges`.

    Args:
        share: k, as a share of the graph's slots.
    """

    def __init__(self, upstream: Upstream, share: float) -> None:
        super().__init__(upstream, Sampling(noise="logistic"))  # only its logits are taken
        self.k = max(1, round(share * upstream.graph.num_slots))

    def _drawn(self, edges: _Ends, lengths: Tensor | None, seed: int | Tensor, sample_ids: Tensor | None, prior: float | Tensor | None) -> Edges:
        logits = edge_logits(*edges, lengths)
        return Edges(sample_k_edges(logits, self.graph, self.k, per="frame", seed=seed, sample_ids=sample_ids, lengths=lengths)[0][0])

    def probability(self, poses: Tensor, lengths: Tensor | None = None) -> Tensor:
        marginals = sample_k_edges(self.upstream(poses, lengths), self.graph, self.k, per="frame", seed=0, lengths=lengths)[1]
        assert marginals is not None  # which they are of imle alone
        return marginals

    def _thresholded(self, probability: Tensor, poses: Tensor, lengths: Tensor | None) -> Tensor:
        """The k likeliest of every frame."""
        existing = self.existing(poses, lengths)
        first = torch.where(existing.bool(), probability, -1).topk(self.k, dim=1).indices
        return torch.zeros_like(existing).scatter(1, first, 1).bool() & existing.bool()


def log_probability(logits: Tensor, kept: Tensor, existing: Tensor, sampling: Sampling) -> Tensor:
    """Σ over the existing edges of log p where kept and log(1 - p) where not, p being the `keep_probability` of an edge.  # [B, P, T] -> [B]"""
    if sampling.noise == "gumbel":
        rate = logits.clamp(-80, 80).exp() / sampling.beta  # beyond them it is certain, and the gradient 0
        terms = torch.where(kept > 0, (-torch.expm1(-rate)).log(), -rate)
    else:
        terms = torch.nn.functional.logsigmoid(torch.where(kept > 0, logits, -logits))
    return torch.where(existing, terms, 0).sum((1, 2))


def _logit(probability: float, sampling: Sampling) -> float:
    """What `keep_probability` makes the probability of."""
    if sampling.noise == "gumbel":
        return math.log(-sampling.beta * math.log1p(-probability))
    return math.log(probability / (1 - probability))
