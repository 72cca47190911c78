"""Contenders that torch alone can do: an edge list, dense matrices, a band of blocks, the compiler, and a bound."""

from __future__ import annotations

import shutil
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, logsigmoid

from bench.contender import Contender
from fastst import SkeletonGraph
from fastst.ops import Sampling

_PAPER = Sampling()


class _Peer(Contender):
    """What the others do alike: the sampling written out, edge by edge of their own form."""

    def sample_edges(self, logits: Tensor, graph: Any = None, *, seed: int = 0, sampling: Sampling = _PAPER, **_: Any) -> Tensor:
        u = torch.rand_like(logits) if self.uniform is None else self.uniform
        if sampling.noise == "logistic":
            z = (logits + torch.log(u + 1e-10) - torch.log(1 - u + 1e-10)) / sampling.tau
        else:
            z = (logits - torch.log(-sampling.beta * torch.log(u + 1e-10) + 1e-10)) / sampling.tau
        soft = torch.sigmoid(z)
        through = soft if sampling.estimator == "sigmoid" else z
        return (torch.round(soft) - through).detach() + through  # straight through

    def sample_from_embeddings(self, q: Tensor, k: Tensor, graph: Any = None, bias: Tensor | None = None, *, seed: int = 0, **options: Any) -> Tensor:
        return self.sample_edges(self.edge_logits(q, k, bias=bias), seed=seed, **options)

    def sample_with_information(self, q: Tensor, k: Tensor, sampling: Sampling, prior: float) -> tuple[Tensor, Tensor]:
        """Of logistic noise."""
        logits = self.edge_logits(q, k)
        p, r = torch.sigmoid(logits), torch.tensor(prior)
        divergence = p * (logsigmoid(logits) - r.log()) + (1 - p) * (logsigmoid(-logits) - torch.log1p(-r))
        return self.sample_edges(logits, sampling=sampling), self.mean_of_walks(divergence)

    def mean_of_walks(self, values: Tensor) -> Tensor:
        """Over the existing edges of every walk.  # [B]"""
        return values.view(self.B, -1).mean(1)


class IndexAdd(_Peer):
    """An edge list, gathered with indexing and summed with `index_add`: edge values are flat `[edges of the batch]`, sorted by where they end."""

    label = "gather + index_add"

    def __init__(self, graph: SkeletonGraph, B: int, T: int, device: str = "cpu") -> None:
        super().__init__(graph, B, T, device)
        lengths = torch.full((B,), T, device=device)
        source, target = graph.edge_index(T, lengths)
        order = (target * (B * T * graph.num_joints) + source).argsort()
        self.source, self.target, self._order = source[order], target[order], order
        self._exists = graph.edge_mask(T, lengths)
        self.nodes = B * T * graph.num_joints

    def edges_in(self, values: Tensor) -> Tensor:
        return values[self._exists][self._order]

    def edges_out(self, values: Tensor) -> Tensor:
        flat = torch.empty_like(values)
        flat[self._order] = values
        slots = values.new_zeros(self._exists.shape)
        slots[self._exists] = flat
        return slots

    def weights_in(self, weight, self_weight):
        return self.edges_in(weight), self_weight.flatten()

    def weights_out(self, *weights):
        weight, self_weight = weights
        return self.edges_out(weight), self_weight.view(self.B, self.T, -1)

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        flat = x.reshape(self.nodes, -1)
        messages = flat[self.source] * weight[:, None]
        own = torch.zeros_like(flat) if self_weight is None else flat * self_weight[:, None]
        return own.index_add(0, self.target, messages).view(x.shape)

    def edge_logits(self, q, k, graph=None, bias=None, lengths=None):
        D = q.shape[-1]
        logits = (q.reshape(-1, D)[self.target] * k.reshape(-1, D)[self.source]).sum(-1)
        return logits if bias is None else logits + bias[self._slot]

    def gcn_norm(self, kept: Tensor, graph: Any = None, lengths: None = None) -> tuple[Tensor, Tensor | None]:
        root = kept.new_ones(self.nodes).index_add(0, self.target, kept).rsqrt()
        return kept * root[self.target] * root[self.source], root.square()

    def attend(self, x_src: Tensor, x_dst: Tensor, att: Tensor, graph: Any, heads: int, negative_slope: float = 0.2, lengths: None = None) -> Tensor:
        senders = x_src.reshape(self.nodes, heads, -1)[self.source]
        hidden = senders + x_dst.reshape(self.nodes, heads, -1)[self.target]
        scores = (leaky_relu(hidden, negative_slope) * att).sum(-1)  # [E, heads]
        with torch.no_grad():
            largest = scores.new_full((self.nodes, heads), float("-inf"))
            largest.scatter_reduce_(0, self.target[:, None].expand_as(scores), scores, "amax")
        weight = (scores - largest[self.target]).exp()
        total = weight.new_zeros(self.nodes, heads).index_add(0, self.target, weight)
        alpha = weight / total[self.target]
        return senders.new_zeros(self.nodes, heads, senders.shape[-1]).index_add(0, self.target, senders * alpha[..., None]).view(x_src.shape)

    @cached_property
    def _slot(self) -> Tensor:
        return self._exists.nonzero()[:, 1][self._order]


class Dense(IndexAdd):
    """The paper's way: (J T)² matrices for logits, sampling, normalisation and message passing (batched matrix products).

    Its graph attention is that of the edge list, as in the paper: a dense one holds a vector for every pair of nodes.
    """

    label = "dense matrix"
    unable: ClassVar = {"attend": "a dense one holds a vector for every pair of nodes (B N² C numbers); nobody does that"}

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        self.nodes_of_walk = T * graph.num_joints

    @cached_property
    def mask(self) -> Tensor:
        """The initial graph."""
        return self.graph.dense(self.T).to(self.device)

    @cached_property
    def identity(self) -> Tensor:
        return torch.eye(self.nodes_of_walk, device=self.device)

    @staticmethod
    def bytes_needed(graph: SkeletonGraph, B: int, T: int, matrices: int) -> int:
        """Of so many matrices of a batch."""
        return matrices * B * (T * graph.num_joints) ** 2 * 4

    def edges_in(self, values):
        return self.graph.dense(self.T, values)

    def edges_out(self, values):
        slots = values.new_zeros(self._exists.shape)
        walk, _, _ = self._exists.nonzero(as_tuple=True)
        slots[self._exists] = values.flatten(1)[walk, self._position.repeat(self.B)]
        return slots

    def weights_in(self, weight, self_weight):
        return (self.graph.dense(self.T, weight) + torch.diag_embed(self_weight.flatten(1)),)

    def weights_out(self, *weights):
        return self.edges_out(weights[0]), weights[0].diagonal(dim1=1, dim2=2).reshape(self.B, self.T, -1)

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        return torch.bmm(weight, x.reshape(self.B, self.nodes_of_walk, -1)).view(x.shape)

    def edge_logits(self, q, k, graph=None, bias=None, lengths=None):
        logits = torch.bmm(q.flatten(1, 2), k.flatten(1, 2).transpose(1, 2))
        if bias is None:
            return logits
        slot = self._exists[0].nonzero()[:, 0]
        return logits + bias.new_zeros(self.nodes_of_walk**2).index_put((self._position,), bias[slot]).view(logits.shape[1:])

    def sample_edges(self, logits, graph=None, *, seed=0, **options):
        return super().sample_edges(logits, graph, seed=seed, **options) * self.mask  # only edges of the initial graph

    def mean_of_walks(self, values):
        return (values * self.mask).sum((1, 2)) / self.mask.sum()

    def gcn_norm(self, kept, graph=None, lengths=None):
        A = kept + self.identity
        root = A.sum(2).rsqrt()
        return root[:, :, None] * A * root[:, None, :], None

    @cached_property
    def _position(self) -> Tensor:
        """Where the existing edges of a walk stand in its flattened matrix, in the order of `edge_mask`."""
        slot, frame = self._exists[0].nonzero(as_tuple=True)
        index, J = self.graph.index(self.device), self.graph.num_joints
        return (frame * J + index.dst[slot]) * self.nodes_of_walk + (frame + index.offset[slot]) * J + index.src[slot]


class _BandMatmul(torch.autograd.Function):
    """Every frame's rows of a band matrix times the frames around it, as one batched product. The windows of frames overlap: a view, not a copy."""

    @staticmethod
    def forward(ctx, band, frames):
        ctx.save_for_backward(band, frames)
        return torch.bmm(band, _windows(frames, len(band)))

    @staticmethod
    def backward(ctx, dy):
        band, frames = ctx.saved_tensors
        parts = torch.bmm(band.transpose(1, 2), dy).view(len(band), -1, *frames.shape[1:])  # what every frame sends to each of those around it
        dframes = torch.zeros_like(frames)
        for offset in range(parts.shape[1]):
            dframes[offset : offset + len(band)] += parts[:, offset]
        return torch.bmm(dy, _windows(frames, len(band)).transpose(1, 2)), dframes


def _windows(frames: Tensor, count: int) -> Tensor:
    """So many windows of the frames `[F, J, C]`, each a frame further.  # [count, (F - count + 1) J, C]"""
    F, J, C = frames.shape
    return frames.as_strided((count, (F - count + 1) * J, C), (J * C, C, 1))


class Banded(IndexAdd):
    """The adjacency's band as ready blocks: block t of `[_, J, (2k + 1) J]` holds the weights of frame t's joints to those of the frames around.

    The walks stand in one row with 2k empty frames between them.
    """

    label = "banded matrix product, blocks ready"
    _others = ("attend", "sample_edges", "edge_logits", "sample_from_embeddings", "sample_with_information", "upstream")
    unable: ClassVar = dict.fromkeys(_others, "blocks are for message passing")

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        index, J, self.reach = graph.index(device), graph.num_joints, graph.hops
        width = (2 * self.reach + 1) * J
        self._blocks = (B * (T + 2 * self.reach) - 2 * self.reach, J, width)
        frame = torch.arange(B, device=device)[:, None] * (T + 2 * self.reach) + torch.arange(T, device=device)
        start = frame[..., None] * (J * width)
        column = (index.offset + self.reach) * J + index.src
        self._entry = (start + index.dst * width + column).transpose(1, 2)  # [B, P, T]
        self._own = start + torch.arange(J, device=device) * (width + 1) + self.reach * J  # [B, T, J]

    def weights_in(self, weight, self_weight):
        band = weight.new_zeros(self._blocks)
        band.view(-1)[self._entry] = weight  # 0 where there is no edge
        band.view(-1)[self._own] = self_weight
        return (band,)

    def weights_out(self, *weights):
        values = weights[0].reshape(-1)
        return values[self._entry] * self._exists, values[self._own]

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        _, T, J, C = x.shape
        frames = torch.nn.functional.pad(x, (0, 0, 0, 0, self.reach, self.reach)).view(-1, J, C)
        y = _BandMatmul.apply(weight, frames)
        return y.as_strided(x.shape, ((T + 2 * self.reach) * J * C, J * C, C, 1))


class Compiled(IndexAdd):
    """gather + index_add under torch.compile, for exactly these shapes."""

    label = "torch.compile, gather + index_add"
    unable: ClassVar = {"sample_edges": "is elementwise: see logits and sampling"}

    @classmethod
    def missing(cls, device):
        compiler = device != "cpu" or shutil.which("g++") or shutil.which("clang++")
        return None if compiler else "torch.compile needs a C++ compiler (g++ or clang++), and there is none"

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        for name in ("propagate", "gcn_layer", "edge_logits", "sample_from_embeddings", "sample_with_information", "attend"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=False))


class OwnGemm(Contender):
    """Not a contender but a bound: the dense product h W of a GCN layer and nothing else."""

    label = "its dense product h W alone"

    def gcn_layer(self, h, W, bias, *weights):
        return linear(h, W)
