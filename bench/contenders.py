"""The ways of doing the same work that are compared: one class each, with the operations of `fastst.ops` on one graph and one size.

Every contender keeps edge values in the form that suits it (a dense matrix, a flat list of edges, a CSR matrix's values) and builds everything
that depends on the graph alone (index tensors, CSR patterns and their transposes, block-diagonal batches) beforehand, outside of what is timed.
`edges_in`, `edges_out`, `weights_in` and `weights_out` translate between that form and fastst's; they are never timed.

The functions have the arguments of `fastst.ops`, so that a contender can also stand in for fastst inside `fastst.nn`'s models (`installed`).
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, logsigmoid

from fastst import SkeletonGraph, ops
from fastst.nn import layers, models, sources, upstream
from fastst.ops import Sampling
from fastst.ops.backends import why_not

_OF_NO_GRAPH = ("attend_axis", "feed_forward", "linear", "linears")  # which peers have from torch
_OPERATIONS = ("attend", "edge_logits", "gcn_norm", "propagate", "sample_edges", "sample_from_embeddings", *_OF_NO_GRAPH)
_PAPER = Sampling()


class Contender:
    """What all have in common; values at edges are `[B, P, T]` here, as in fastst.

    Attributes:
        label: what tables call it.
        unable: the works that it has no answer to, and why.
        uniform: if set, the random numbers of `sample_edges` in the contender's own form: only for the comparison with the reference, which has
            to see the same ones. What is timed draws with torch.rand.
    """

    label: ClassVar[str]
    unable: ClassVar[dict[str, str]] = {}

    def __init__(self, graph: SkeletonGraph, B: int, T: int, device: str = "cpu") -> None:
        self.graph, self.B, self.T, self.device = graph, B, T, device
        self.uniform: Tensor | None = None

    @classmethod
    def missing(cls, device: str) -> str | None:
        """Why it can't run here, or None."""
        return None

    def edges_in(self, values: Tensor) -> Tensor:
        return values

    def edges_out(self, values: Tensor) -> Tensor:
        return values

    def weights_in(self, weight: Tensor, self_weight: Tensor) -> tuple[Tensor, ...]:
        """The values of a normalised adjacency, `[B, P, T]` and `[B, T, J]`, as one or two tensors."""
        return weight, self_weight

    def weights_out(self, *weights: Tensor) -> tuple[Tensor, Tensor]:
        weight, self_weight = weights
        return weight, self_weight

    # The operations, with fastst's arguments. What a contender does not have, it says in `unable`.
    attend: Any
    edge_logits: Any
    gcn_norm: Any
    propagate: Any
    sample_edges: Any
    sample_from_embeddings: Any
    sample_with_information: Any  # `sample_from_embeddings` with a prior

    def gcn_layer(self, h: Tensor, W: Tensor, bias: Tensor, *weights: Tensor) -> Tensor:
        """Â h Wᵀ + bias with Â the weights."""
        return self.propagate(linear(h, W), weights[0], self.graph, *weights[1:]).add_(bias)

    def of_torch(self, name: str, *arguments: Any, **options: Any) -> Any:
        """torch's own layers, and its attention with its transposes."""
        with ops.use_backend("torch"):
            return getattr(ops, name)(*arguments, **options)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, fastst's models call this contender's functions in place of fastst's."""
        with ExitStack() as stack:
            for module in (layers, models, sources, upstream):
                for name in _OPERATIONS:
                    if hasattr(module, name):
                        taken = partial(self.of_torch, name) if name in _OF_NO_GRAPH else getattr(self, name)
                        stack.enter_context(mock.patch.object(module, name, taken))
            yield


class Fastst(Contender):
    """One backend of fastst."""

    backend: ClassVar[str]

    @classmethod
    def missing(cls, device: str) -> str | None:
        reason = why_not(cls.backend)
        if reason is None and cls.backend == "cpu" and device != "cpu":
            return "it is for CPUs"
        return "there is no CUDA device" if cls.backend == "triton" and device != "cuda" else reason

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        with ops.use_backend(self.backend):
            return ops.propagate(x, weight, self.graph, self_weight)

    def edge_logits(self, q: Tensor, k: Tensor, graph: Any = None, bias: Tensor | None = None, lengths: None = None) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.edge_logits(q, k, self.graph, bias)

    def sample_edges(self, logits: Tensor, graph: Any = None, *, seed: int = 0, **options: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.sample_edges(logits, self.graph, seed=seed)

    def sample_from_embeddings(self, q: Tensor, k: Tensor, graph: Any = None, bias: Tensor | None = None, *, seed: int = 0, **_: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.sample_from_embeddings(q, k, self.graph, bias, seed=seed)

    def sample_with_information(self, q: Tensor, k: Tensor, sampling: Sampling, prior: float) -> tuple[Tensor, Tensor]:
        with ops.use_backend(self.backend):
            return ops.sample_from_embeddings(q, k, self.graph, seed=0, sampling=sampling, prior=prior)

    def gcn_norm(self, kept: Tensor, graph: Any = None, lengths: None = None) -> tuple[Tensor, Tensor]:
        with ops.use_backend(self.backend):
            return ops.gcn_norm(kept, self.graph)

    def attend(self, x_src: Tensor, x_dst: Tensor, att: Tensor, graph: Any, heads: int, **_: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.attend(x_src, x_dst, att, self.graph, heads)

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ops.use_backend(self.backend):  # the models as they are, with whatever they call
            yield


class FaststReference(Fastst):
    label, backend = "reference", "reference"


class FaststTorch(Fastst):
    label, backend = "fastst `torch`", "torch"


class FaststCpu(Fastst):
    label, backend = "fastst `cpu`", "cpu"


class FaststTriton(Fastst):
    label, backend = "fastst `triton`", "triton"


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


class TorchScatter(IndexAdd):
    """torch-scatter: the sums by `segment_csr`, its fastest and deterministic one, over edges sorted by where they end."""

    label = "torch-scatter"
    unable: ClassVar = {
        "sample_edges": "has no such operation",
        "edge_logits": "has no such operation",
        "sample_from_embeddings": "has no such operation",
        "sample_with_information": "has no such operation",
    }

    @classmethod
    def missing(cls, device):
        return None if importlib.util.find_spec("torch_scatter") else "torch_scatter is not installed"

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        self.ptr = torch.searchsorted(self.target, torch.arange(self.nodes + 1, device=device))

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        from torch_scatter import segment_csr

        flat = x.reshape(self.nodes, -1)
        y = segment_csr(flat[self.source] * weight[:, None], self.ptr)
        return (y if self_weight is None else torch.addcmul(y, flat, self_weight[:, None])).view(x.shape)

    def attend(self, x_src, x_dst, att, graph, heads, negative_slope=0.2, lengths=None):
        from torch_scatter import gather_csr, segment_csr

        senders = x_src.reshape(self.nodes, heads, -1)[self.source]
        hidden = senders + gather_csr(x_dst.reshape(self.nodes, heads, -1), self.ptr)
        scores = (leaky_relu(hidden, negative_slope) * att).sum(-1)
        with torch.no_grad():
            largest = gather_csr(segment_csr(scores, self.ptr, reduce="max"), self.ptr)
        weight = (scores - largest).exp()
        alpha = weight / gather_csr(segment_csr(weight, self.ptr), self.ptr)
        return segment_csr(senders * alpha[..., None], self.ptr).view(x_src.shape)


class _WithSelfLoops(IndexAdd):
    """Self-loops are entries of the matrix like others."""

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        own = torch.arange(self.nodes, device=device)
        row, column = torch.cat((self.target, own)), torch.cat((self.source, own))
        self.entry = (row * self.nodes + column).argsort()
        self.row, self.column = row[self.entry], column[self.entry]
        self.ptr = torch.searchsorted(self.row, torch.arange(self.nodes + 1, device=device))

    def weights_in(self, weight, self_weight):
        return (torch.cat(super().weights_in(weight, self_weight))[self.entry],)

    def weights_out(self, *weights):
        values = torch.empty_like(weights[0])
        values[self.entry] = weights[0]
        edges = len(self.target)
        return super().weights_out(values[:edges], values[edges:])

    def gcn_norm(self, kept, graph=None, lengths=None):
        weight, own = super().gcn_norm(kept, graph, lengths)
        assert own is not None
        return torch.cat((weight, own))[self.entry], None


class _CsrMatmul(torch.autograd.Function):
    """A x with the best backward that is known for it: the transposed matrix, and `sampled_addmm` for the values. torch's own forms N × N."""

    @staticmethod
    def forward(ctx, values, x, contender):
        ctx.save_for_backward(values, x)
        ctx.contender = contender
        return contender.matrix(values) @ x

    @staticmethod
    def backward(ctx, dy):
        values, x = ctx.saved_tensors
        return torch.sparse.sampled_addmm(ctx.contender.pattern, dy, x.T, beta=0).values(), ctx.contender.transposed(values) @ dy, None


class _CsrDots(torch.autograd.Function):
    """The entries of q kᵀ in a CSR pattern."""

    @staticmethod
    def forward(ctx, q, k, contender):
        ctx.save_for_backward(q, k)
        ctx.contender = contender
        return torch.sparse.sampled_addmm(contender.edge_pattern, q, k.T, beta=0).values()

    @staticmethod
    def backward(ctx, dvalues):
        q, k = ctx.saved_tensors
        return ctx.contender.edge_matrix(dvalues) @ k, ctx.contender.edge_transposed(dvalues) @ q, None


class Csr(_WithSelfLoops):
    """torch.sparse's CSR matrices: one block-diagonal matrix for a batch."""

    label = "torch.sparse CSR"
    unable: ClassVar = {"attend": "has no softmax over the entries of a row", "sample_edges": "is elementwise: the edge list's"}

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        self.matrix, self.transposed = _csr_patterns(self.row, self.column, self.nodes)
        self.edge_matrix, self.edge_transposed = _csr_patterns(self.target, self.source, self.nodes)
        self.pattern = self.matrix(torch.zeros(len(self.row), device=device))
        self.edge_pattern = self.edge_matrix(torch.zeros(len(self.target), device=device))

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        return _CsrMatmul.apply(weight, x.reshape(self.nodes, -1), self).view(x.shape)

    def edge_logits(self, q, k, graph=None, bias=None, lengths=None):
        logits = _CsrDots.apply(q.reshape(self.nodes, -1), k.reshape(self.nodes, -1), self)
        return logits if bias is None else logits + bias[self._slot]


def _csr_patterns(row: Tensor, column: Tensor, nodes: int):
    """Two functions that make a CSR matrix and its transpose of values that are sorted by row."""
    every = torch.arange(nodes + 1, device=row.device)
    turned = (column * nodes + row).argsort()
    ptr, turned_ptr = torch.searchsorted(row, every), torch.searchsorted(column[turned], every)
    turned_column = row[turned]
    if row.is_cuda:  # cuSPARSE is faster on these
        ptr, column, turned_ptr, turned_column = (x.to(torch.int32) for x in (ptr, column, turned_ptr, turned_column))

    def matrix(values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(ptr, column, values, (nodes, nodes), check_invariants=False)

    def transposed(values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(turned_ptr, turned_column, values[turned], (nodes, nodes), check_invariants=False)

    return matrix, transposed


class TorchSparse(_WithSelfLoops):
    """torch-sparse's `SparseTensor`, with everything that its backward needs cached."""

    label = "torch-sparse"
    unable: ClassVar = {
        "attend": "has no softmax over the entries of a row",
        "sample_edges": "has no such operation",
        "edge_logits": "has no such operation",
        "sample_from_embeddings": "has no such operation",
        "sample_with_information": "has no such operation",
    }

    @classmethod
    def missing(cls, device):
        found = all(importlib.util.find_spec(name) for name in ("torch_sparse", "torch_scatter", "scipy"))
        return None if found else "torch_sparse, or torch_scatter or scipy that it needs, is not installed"

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        self.adjacency = sparse_tensor(self)

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        import torch_sparse

        return torch_sparse.matmul(self.adjacency.set_value(weight, layout="csr"), x.reshape(self.nodes, -1)).view(x.shape)


def sparse_tensor(contender: _WithSelfLoops) -> Any:
    from torch_sparse import SparseTensor

    sizes = (contender.nodes, contender.nodes)
    adjacency = SparseTensor(row=contender.row, rowptr=contender.ptr, col=contender.column, sparse_sizes=sizes, is_sorted=True, trust_data=True)
    return adjacency.fill_cache_()


class PyG(_WithSelfLoops):
    """PyTorch Geometric's layers: `GCNConv` with ready-made weights (a `SparseTensor` where torch-sparse is installed), `GATv2Conv` without its
    linear layers."""

    label = "PyG layer"
    unable: ClassVar = {
        "propagate": "its layer includes the linear map: see the GCN layer",
        "sample_edges": "has no such operation",
        "edge_logits": "has no such operation",
        "sample_from_embeddings": "has no such operation",
        "sample_with_information": "has no such operation",
    }

    @classmethod
    def missing(cls, device):
        return None if importlib.util.find_spec("torch_geometric") else "torch_geometric is not installed"

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        self.edge_index = torch.stack((self.source, self.target))
        self.edge_index_with_self = torch.stack((self.column, self.row))
        self.adjacency = sparse_tensor(self) if TorchSparse.missing(device) is None else None
        self._layers: dict[Any, torch.nn.Module] = {}

    def gcn_layer(self, h, W, bias, *weights):
        from torch_geometric.nn import GCNConv

        layer = self._layer(GCNConv, W.shape[1], W.shape[0], normalize=False, add_self_loops=False)
        x, parameters = h.reshape(self.nodes, -1), {"lin.weight": W, "bias": bias}
        if self.adjacency is None:
            y = torch.func.functional_call(layer, parameters, (x, self.edge_index_with_self, weights[0]))
        else:
            y = torch.func.functional_call(layer, parameters, (x, self.adjacency.set_value(weights[0], layout="csr")))
        return y.view(*h.shape[:-1], -1)

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        """Inside a model, where the linear map comes before: the layer's own message passing."""
        from torch_geometric.nn import GCNConv

        layer = self._layer(GCNConv, x.shape[-1], x.shape[-1], normalize=False, add_self_loops=False)
        flat = x.reshape(self.nodes, -1)
        if self.adjacency is None:
            return layer.propagate(self.edge_index_with_self, x=flat, edge_weight=weight).view(x.shape)
        return layer.propagate(self.adjacency.set_value(weight, layout="csr"), x=flat, edge_weight=None).view(x.shape)

    def attend(self, x_src, x_dst, att, graph, heads, negative_slope=0.2, lengths=None):
        from torch_geometric.nn import GATv2Conv

        C = x_src.shape[-1]
        layer = self._layer(GATv2Conv, C, C // heads, heads=heads, add_self_loops=False, bias=False, negative_slope=negative_slope)
        layer.lin_l = layer.lin_r = torch.nn.Identity()
        nodes = (x_src.reshape(self.nodes, C), x_dst.reshape(self.nodes, C))
        return torch.func.functional_call(layer, {"att": att[None]}, (nodes, self.edge_index)).view(x_src.shape)

    def _layer(self, kind: Any, *sizes: int, **options: Any) -> Any:
        key = (kind, sizes)
        if key not in self._layers:
            self._layers[key] = kind(*sizes, **options).to(self.device)
        return self._layers[key]


class TurboGnn(IndexAdd):
    """Turbo-GNN's fused GATv2, for CUDA alone."""

    label = "Turbo-GNN"
    _others = ("propagate", "gcn_layer", "sample_edges", "edge_logits", "sample_from_embeddings", "sample_with_information", "upstream")
    unable: ClassVar = dict.fromkeys(_others, "compared in graph attention alone")

    @classmethod
    def missing(cls, device):
        if importlib.util.find_spec("turbo_gnn") is None:
            return "turbo_gnn is not installed"
        return None if device == "cuda" else "its kernels are for CUDA"

    def __init__(self, graph, B, T, device="cpu"):
        super().__init__(graph, B, T, device)
        from turbo_gnn.graph import AdjacencyForwardBackwardWithNodeBuckets

        edges = torch.stack((self.source, self.target))
        self.adjacency = AdjacencyForwardBackwardWithNodeBuckets.from_edge_list(edges, self.nodes, index_dtype=torch.int32)

    def attend(self, x_src, x_dst, att, graph, heads, negative_slope=0.2, lengths=None):
        from turbo_gnn.ops import gatv2_aggr

        receivers, senders = (x.reshape(self.nodes, heads, -1) for x in (x_dst, x_src))
        return gatv2_aggr(self.adjacency, receivers, senders, att, negative_slope).view(x_src.shape)


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


CONTENDERS: dict[str, type[Contender]] = {
    "dense": Dense,
    "index_add": IndexAdd,
    "csr": Csr,
    "torch_scatter": TorchScatter,
    "torch_sparse": TorchSparse,
    "pyg": PyG,
    "compiled": Compiled,
    "fastst_torch": FaststTorch,
    "fastst_cpu": FaststCpu,
    "fastst_triton": FaststTriton,
    "gemm": OwnGemm,
    "banded": Banded,
    "turbo_gnn": TurboGnn,
}
