"""Learned simplification around any model: an upstream part says which edges of a graph to keep, the model sees what was kept."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from fastst.graph import EdgeList, Graph, SlotGraph
from fastst.graph_index import edge_exists
from fastst.nn.decisions import Decisions, decisions_of
from fastst.nn.downstream import check_layers, depends_on, has_stand_ins, taken, takes_edge_weight
from fastst.nn.edges import graph_of
from fastst.nn.models import check_choice
from fastst.nn.stand_in import call_weighed
from fastst.nn.upstream import Upstream
from fastst.ops import Sampling, keep_probability, propagate, sample_edges, sample_k_edges
from fastst.ops.checks import refuse_bipartite
from fastst.ops.information import divergence

EVALUATIONS = ("probability", "threshold", "sample")
_SAMPLING = Sampling(tau=1.0, noise="logistic", estimator="sigmoid")


class Simplified(NamedTuple):
    """What a `GraphSimplifier` says of its input.

    Examples:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from fastst.nn import GraphSimplifier
        >>> simplifier = GraphSimplifier(GCN(16, 64, num_layers=2, out_channels=4), in_channels=16)
        >>> out = simplifier(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> out.logits.shape, out.kept.shape, out.probability.shape, out.information.shape
        (torch.Size([3, 4]), torch.Size([4]), torch.Size([4]), torch.Size([]))
    """

    logits: Any  # what the downstream model returns, class logits say
    kept: Tensor  # the weights of the edges in it: [E], [B, E] or [B, P, T]; 0 or 1 while training
    probability: Tensor  # how likely every edge was to be kept, in the same shape
    information: Tensor  # []: λ · mean KL(Bernoulli(p) ‖ Bernoulli(r)), to be added to the loss; 0 with k


class GraphSimplifier(nn.Module):
    """y = f(x, kept), kept ~ p(G, x): any model f on a graph that is learned for every x (Cosma & Radoi 2023), with the information term
    λ · mean over edges of KL(Bernoulli(p) ‖ Bernoulli(r)) of GSAT (Miao et al. 2022).

    `upstream` gives every edge a logit γ, and it is kept with p = sigmoid(γ); or exactly k edges are, see `fastst.ops.sample_k_edges`. Loops always
    stay. The downstream model is called in the first of these ways that it has; `batch`, `lengths` and further arguments go along by name:

    1. `downstream(x, edges, edge_weight=kept)`: its forward has an `edge_weight` (and it doesn't say that `supports_edge_weight` is False). `edges`
       is what came with x, else the graph given here (of an `EdgeList` its `edge_index`).
    2. `downstream(x, edges)`, or `downstream(x)` where the graph is given here: its layers are fastst's, written so or
       swapped in by `fastst.patch` (not those of ST-GCN and MS-G3D), and multiply the kept edges in. All of them, on the edges as they were given:
       other layers of PyTorch Geometric's, edges that the model rearranges and checkpoints in it are refused. Other operations on edges are not
       known here, and see all.
    3. `downstream(x, kept)`.

    In training mode every call keeps other edges, drawn with torch's generator. In evaluation mode a graph's edges are the same in every call and
    wherever in a batch it stands.

    Args:
        downstream: the model.
        graph: of all inputs; None for edges that come with each input, as in PyTorch Geometric.
        upstream: gives the logits: `(x, edge_index) -> [E]` or `[B, E]`, on slots `(x) -> [B, P, T]`, with `batch` and `lengths` by name where it
            takes them; best `EdgeScores` around the downstream model's own encoder. Left out, one that is made for `in_channels`: on slots an
            `Upstream`, else `EdgeScores` of two sums over neighbours.
        in_channels, hidden: features of a node, and width, of that.
        keep: r, the share of edges that stay where nothing speaks for or against an edge.
        keep_start, keep_steps: r is `keep_start` at first, as is every p, and falls to `keep` along a line within so many calls in training mode.
        k: keep exactly so many edges in place of `keep`: of every graph, on slots of those into every frame; all where there are no more.
        information: λ.
        undirected: all edges between two nodes are one decision, with one logit (the mean of theirs) and one draw. Left out: so on an edge
            list, not on slots, where an edge out of a joint says something else than one into it. (GSAT draws for both directions, and takes
            the mean.)
        evaluation: what the downstream model sees in evaluation mode: `probability`, p as the weights of the edges (as in GSAT; with k the
            marginals), `threshold`, the edges with p > ½ (with k the k likeliest), or `sample`, always the same one.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or value, named; a downstream model with a layer that would not see the kept edges, or
            those of its first call in all others (`cached=True`), by name; one whose forward has `**kwargs`, so that it can't be known what it takes.

    Examples:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from fastst.nn import GraphSimplifier
        >>> simplifier = GraphSimplifier(GCN(16, 64, num_layers=2, out_channels=4), in_channels=16, keep=0.5)
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> out = simplifier(x, edge_index)
        >>> out.logits.shape, out.kept.shape
        (torch.Size([3, 4]), torch.Size([4]))
        >>> loss = torch.nn.functional.cross_entropy(out.logits, torch.tensor([0, 1, 2])) + out.information
    """

    calls: Tensor

    def __init__(
        self,
        downstream: nn.Module,
        graph: Graph | None = None,
        *,
        upstream: nn.Module | None = None,
        in_channels: int | None = None,
        hidden: int = 64,
        keep: float = 0.5,
        keep_start: float = 0.9,
        keep_steps: int = 0,
        k: int | None = None,
        information: float = 1.0,
        undirected: bool | None = None,
        evaluation: str = "probability",
    ) -> None:
        super().__init__()
        if not isinstance(downstream, nn.Module):
            raise TypeError(f"downstream must be a torch.nn.Module, got {type(downstream).__name__}")
        if graph is not None and not isinstance(graph, (SlotGraph, EdgeList)):
            raise TypeError(f"graph must be a SkeletonGraph, a SlotGraph, an EdgeList or None, got {type(graph).__name__}")
        if graph is not None:
            refuse_bipartite("GraphSimplifier", graph, "x are features of one kind; take edge_logits and sample_edges")
        if upstream is None:
            upstream = _default_upstream(graph, in_channels, hidden, keep_start)
        for name, value in (("keep", keep), ("keep_start", keep_start)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {value}")
        if k is not None and (not isinstance(k, int) or k < 1):
            raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
        if keep_steps < 0 or not 0 <= information < math.inf:
            raise ValueError(f"keep_steps and information must be at least 0, got {keep_steps} and {information}")
        on_slots = isinstance(graph, SlotGraph)
        if undirected and on_slots:
            raise ValueError("undirected edges are those of an edge list; on slots leave undirected out")
        self.downstream, self.upstream, self.graph, self.k = downstream, upstream, graph, k
        self.keep, self.keep_start, self.keep_steps, self.information = keep, keep_start, keep_steps, information
        self.undirected = not on_slots if undirected is None else undirected
        self.evaluation = check_choice("evaluation", evaluation, EVALUATIONS)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._by_weight = takes_edge_weight(downstream)
        self._checked = False
        self._check_layers()

    @property
    def prior(self) -> Tensor:
        """r, as it is now.  # []"""
        left = (1 - self.calls / self.keep_steps).clamp(min=0) if self.keep_steps else torch.zeros_like(self.calls)
        return self.keep + (self.keep_start - self.keep) * left.float()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        seed: int | Tensor | None = None,
        **options: Any,
    ) -> Simplified:
        """Features `[N, C]` with their edges, or on the graph given `[B, N, C]`, on slots `[B, T, J, C]`.

        Args:
            edge_index: `[2, E]`, from and to; left out where the graph is given.
            batch: `[N]`, the graph of every node, from 0 on, as PyTorch Geometric's `Batch` has it.
            lengths: `[B]` frames of every walk.
            seed: in place of torch's generator; the same seed keeps the same edges.
            options: for the downstream model.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape or value, named; edges from one graph of the batch to another; a downstream
                model that rearranges the edges.
            RuntimeError: what the downstream model returns does not depend on the kept edges; or it checkpoints a layer that weighs them.
        """
        edges = self._edges(x, edge_index, batch)
        graph = self.graph or graph_of(edges, x.shape[-2])[0]
        known = {name: value for name, value in (("batch", batch), ("lengths", lengths)) if value is not None}
        logits = self.upstream(x, *([edges] if isinstance(graph, EdgeList) else []), **taken(self.upstream, known))
        frames = [] if isinstance(graph, EdgeList) else [x.shape[1]]
        wanted = [*x.shape[: 0 if edge_index is not None else 1], graph.num_slots, *frames]
        if list(logits.shape) != wanted:
            raise ValueError(f"upstream must give {wanted}, a logit for every edge, got {list(logits.shape)}")
        logits = logits if edge_index is None else logits[None]
        if seed is None:
            seed = torch.randint(1 << 62, (), device="cpu") if self.training else 0
        if isinstance(graph, EdgeList):
            kept, probability, information = self._sampled_list(logits, decisions_of(graph, batch, self.undirected, x.device), seed)
        else:
            index = graph.index(x.device)
            is_edge = ((index.src != index.dst) | (index.offset != 0))[:, None] & edge_exists(index.offset, x.shape[1], lengths)
            is_edge = is_edge.expand(logits.shape)
            kept, probability, information = self._sampled(logits, graph, is_edge, lengths, seed, torch.arange(len(logits), device=x.device))
            information = information / is_edge.sum().clamp(min=1)
        if edge_index is not None:
            kept, probability = kept.squeeze(0), probability.squeeze(0)
        if self.training:
            self.calls += 1
        options = taken(self.downstream, known) | options
        found = self._seen(x, edges, graph, kept.to(x.dtype), options)
        return Simplified(found, kept, probability, self.information * information)

    def _edges(self, x: Tensor, edge_index: Tensor | None, batch: Tensor | None) -> Any:
        """What upstream and downstream get beside x."""
        if not isinstance(x, Tensor):
            given = type(x).__name__
            hint = (
                "make it homogeneous: data.to_homogeneous()" if given == "dict" or "Hetero" in given else "give data.x, data.edge_index, data.batch"
            )
            raise TypeError(f"x must be a tensor, the features of the nodes, got {given}; {hint}")
        if (edge_index is None) == (self.graph is None):
            raise ValueError(
                "give edge_index, as there is no graph for all" if edge_index is None else "leave edge_index out, for the graph is given"
            )
        if edge_index is None:
            if batch is not None:
                raise ValueError("batch is for edges that come with x; here the graph is given, and all of a batch have it")
            return self.graph.edge_index() if isinstance(self.graph, EdgeList) else self.graph
        if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
            raise TypeError(f"edge_index must be a tensor [2, E], got {type(edge_index).__name__}")
        if x.ndim != 2:
            raise ValueError(f"x must be [N, C] where its edges come with it, got {list(x.shape)}")
        if batch is not None and (not isinstance(batch, Tensor) or batch.is_floating_point() or batch.dtype == torch.bool):
            raise TypeError(f"batch must be whole numbers, the graph of every node, got {getattr(batch, 'dtype', type(batch).__name__)}")
        if batch is not None and list(batch.shape) != [len(x)]:
            raise ValueError(f"batch must be [N] with N = {len(x)}, the graph of every node, got {list(batch.shape)}")
        if batch is not None and len(batch) and int(batch.min()) < 0:
            raise ValueError(f"batch must count the graphs from 0 on, got {int(batch.min())}")
        return edge_index

    def _sampled_list(self, logits: Tensor, decisions: Decisions, seed: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`_sampled` of an edge list, and the mean of the divergence.  # [B, E] twice, []"""
        B, kept, probability, total = len(logits), [], [], logits.new_zeros(())
        G = sum(len(table.graphs) for table in decisions.tables)
        for table, values in zip(decisions.tables, decisions.gather(logits), strict=True):
            rows = (torch.arange(B, device=logits.device)[:, None] * G + table.graphs).flatten()
            found = self._sampled(values, table.row, decisions.exists(table, B), None, seed, rows)
            kept.append(found[0])
            probability.append(found[1])
            total = total + found[2]
        count = B * (len(decisions.sizes) - 1)
        return decisions.spread(kept, B), decisions.spread(probability, B), total / max(1, count)

    def _sampled(
        self, logits: Tensor, graph: Graph, is_edge: Tensor, lengths: Tensor | None, seed: int | Tensor, sample_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the edges, their probabilities, and the sum over edges of the divergence.  # [G, W] or [B, P, T] twice, []"""
        ids = sample_ids if self.training else torch.zeros_like(sample_ids)
        options: dict[str, Any] = {"seed": seed, "lengths": lengths, "sample_ids": ids}
        if self.k is None:
            sample = sample_edges(logits, graph, sampling=_SAMPLING, **options)
            probability = torch.where(is_edge, keep_probability(logits, sampling=_SAMPLING), sample.detach())  # where a loop's is 1
            total = torch.where(is_edge, divergence(logits, self.prior, _SAMPLING), 0).sum()
        else:
            per = "graph" if isinstance(graph, EdgeList) else "frame"
            samples, marginals, _ = sample_k_edges(logits, graph, self.k, per=per, **options)
            assert marginals is not None  # which they are of imle alone
            sample, probability, total = samples[0], marginals, logits.new_zeros(())
        if self.training or self.evaluation == "sample":
            return sample, probability, total
        if self.evaluation == "threshold":
            chosen = probability > 0.5 if self.k is None else _likeliest(probability, is_edge, self.k)
            return chosen.to(probability.dtype), probability, total
        return probability, probability, total

    def _check_layers(self) -> None:
        if self._by_weight or has_stand_ins(self.downstream):
            check_layers(self.downstream, self._by_weight, isinstance(self.graph, EdgeList))

    def _seen(self, x: Tensor, edges: Any, graph: Graph, kept: Tensor, options: dict[str, Any]) -> Any:
        """What the downstream model makes of the kept edges."""
        if not torch.compiler.is_compiling():
            self._check_layers()  # again: they may have been swapped since
        if self._by_weight:
            found = self.downstream(x, edges, edge_weight=kept, **options)
        elif has_stand_ins(self.downstream):
            found = call_weighed(self.downstream, kept, graph, x, *([edges] if self.graph is None else []), **options)
        else:
            found = self.downstream(x, kept, **options)
        if not self._checked and not torch.compiler.is_compiling() and kept.requires_grad and kept.numel():
            if not depends_on(found, kept):
                raise RuntimeError(
                    "what the downstream model returns does not depend on the kept edges. Give its forward an edge_weight that its layers look at, "
                    "swap its layers with fastst.patch, or let it take (x, kept)"
                )
            self._checked = True
        return found

    def extra_repr(self) -> str:
        return f"keep={self.keep}" if self.k is None else f"k={self.k}"


class EdgeScores(nn.Module):
    """γ = MLP(h[from] ‖ h[to]) from embeddings h of the nodes, where every layer's features are normalised over the edges of a graph before
    they go on (the extractor of GSAT, Miao et al. 2022): what stands out in a graph does so by comparison with its other edges.

    Args:
        encoder: `(x, edge_index) -> h`, with `batch` by name where it takes it. The downstream model's own, as in GSAT, is the best choice: one of
            its own may find what tells the classes apart, and spell it in edges that don't.
        hidden: width of the embeddings.
        dropout: of the MLP, while training.

    Raises:
        ValueError: embeddings of another shape.

    Examples:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from fastst.nn import EdgeScores
        >>> scores = EdgeScores(GCN(16, 32, num_layers=2), hidden=32)
        >>> scores(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
        torch.Size([4])
    """

    def __init__(self, encoder: nn.Module, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.encoder, self.hidden, self.dropout = encoder, hidden, dropout
        self.first, self.second = nn.Linear(2 * hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """`[N, C]` -> `[E]`, or `[B, N, C]` -> `[B, E]`."""
        h = self.encoder(x, edge_index, **taken(self.encoder, {} if batch is None else {"batch": batch}))
        if list(h.shape) != [*x.shape[:-1], self.hidden]:
            raise ValueError(f"encoder must give {[*x.shape[:-1], self.hidden]}, an embedding for every node, got {list(h.shape)}")
        src, dst = edge_index
        of_graph = torch.zeros_like(src) if batch is None else batch[src]
        features = torch.cat((h[..., src, :], h[..., dst, :]), -1)
        for layer in (self.first, self.second):
            features = dropout(_standardised(layer(features), of_graph).relu(), self.dropout, self.training)
        return self.last(features).squeeze(-1)


class Neighbourhoods(nn.Module):
    """h ← norm(h + MLP(h + Σ over edges into a node of h[from])), twice, from h = W x: what a node's surroundings look like (after GIN, Xu et al.
    2019). `[N, C]` or `[B, N, C]` -> the same with `hidden` channels."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(in_channels, hidden)
        self.updates = nn.ModuleList(nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph, _ = graph_of(edge_index, x.shape[-2])
        h = self.input(x)
        ones = h.new_ones(graph.num_slots)
        for update, norm in zip(self.updates, self.norms, strict=True):
            neighbours = propagate(h if h.ndim > 2 else h[None], ones, graph).view(h.shape)
            h = norm(h + update(h + neighbours))
        return h


def _default_upstream(graph: Graph | None, in_channels: int | None, hidden: int, keep_start: float) -> nn.Module:
    if in_channels is None:
        raise ValueError("give in_channels, the features of a node, or an upstream of your own")
    if not isinstance(graph, SlotGraph):
        return EdgeScores(Neighbourhoods(in_channels, hidden), hidden)
    upstream = Upstream(graph, in_channels, hidden, frames=60, heads=math.gcd(hidden, 4), encoder_layers=1, attention="factorized")
    nn.init.constant_(upstream.slot_bias, math.log(keep_start / (1 - keep_start)))
    return upstream


def _standardised(features: Tensor, of_graph: Tensor) -> Tensor:
    """Less the mean over a graph's edges, in units of their standard deviation.  # [..., E, C], [E] -> [..., E, C]"""
    if not len(of_graph):
        return features
    count = torch.bincount(of_graph).clamp(min=1).to(features.dtype)[:, None]

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(*values.shape[:-2], len(count), values.shape[-1]).index_add(-2, of_graph, values)
        return (sums / count)[..., of_graph, :]

    centred = features - mean(features)
    return centred / (mean(centred.square()) + 1e-5).sqrt()


def _likeliest(probability: Tensor, is_edge: Tensor, k: int) -> Tensor:
    """The k likeliest of every graph or frame, and the loops; all where there are no more.  # [G, W] or [B, P, T]; bool"""
    ranked = torch.where(is_edge, probability, -1)
    first = ranked.topk(min(k, ranked.shape[1]), dim=1).indices
    return torch.zeros_like(is_edge).scatter(1, first, True) & is_edge | (~is_edge & (probability > 0))
