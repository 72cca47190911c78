"""Contenders of other libraries, with everything beforehand that depends on the graph alone."""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from bench.plain import IndexAdd


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


class WithSelfLoops(IndexAdd):
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


class Csr(WithSelfLoops):
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


class TorchSparse(WithSelfLoops):
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


def sparse_tensor(contender: WithSelfLoops) -> Any:
    from torch_sparse import SparseTensor

    sizes = (contender.nodes, contender.nodes)
    adjacency = SparseTensor(row=contender.row, rowptr=contender.ptr, col=contender.column, sparse_sizes=sizes, is_sorted=True, trust_data=True)
    return adjacency.fill_cache_()


class PyG(WithSelfLoops):
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
