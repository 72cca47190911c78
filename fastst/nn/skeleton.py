"""Layers that take the place of those of skeleton models: ST-GCN's and MS-G3D's, with the same constructors and the same names in `state_dict`.

Both sum over K matrices, y = Σ_k A_k (W_k x), most of whose entries are 0. Here the K images of a joint are K joints of one graph, and its slots the
entries that are not 0. Where that can't win, with few channels or a graph that is small or dense, the layers multiply by the whole matrices.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fastst.graph import SlotGraph
from fastst.nn.stand_in import StandIn
from fastst.ops import propagate
from fastst.ops.backends import current_backend

FEW_CHANNELS = 32  # on which a product with the whole matrices is as fast
_LEAST_SAVED = 32  # terms a joint: what slots have to save in the sum, to be worth another order in memory
_FRAMES_AT_ONCE = 4096  # for the gradient of the matrices


class ConvTemporalGraphical(StandIn):
    """y[w] = Σ_k Σ_v A[k, v, w] (W_k * x + b_k)[v], * along time (Yan et al. 2018, ST-GCN), in place of `net.utils.tgcn.ConvTemporalGraphical`.

    Args:
        in_channels, out_channels: sizes of the features.
        kernel_size: K, the partitions of A.
        t_kernel_size, t_stride, t_padding, t_dilation, bias: of the convolution along time.

    Examples:
        >>> import torch
        >>> from fastst.nn import ConvTemporalGraphical
        >>> conv = ConvTemporalGraphical(in_channels=3, out_channels=8, kernel_size=2)
        >>> y, A = conv(torch.randn(4, 3, 10, 5), torch.eye(5).repeat(2, 1, 1))
        >>> y.shape
        torch.Size([4, 8, 10, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        t_kernel_size: int = 1,
        t_stride: int = 1,
        t_padding: int = 0,
        t_dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        along = {"kernel_size": (t_kernel_size, 1), "stride": (t_stride, 1), "padding": (t_padding, 0), "dilation": (t_dilation, 1)}
        self.conv = nn.Conv2d(in_channels, out_channels * kernel_size, bias=bias, **along)  # type: ignore[arg-type]

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, C, T, V]` and A `[K, V, V]`, rows from, columns to -> `[N, C', T', V]` and A. A gets a gradient for all its entries, zeros too.

        Which entries of A are 0 is looked at in every call, for which a GPU is waited for; only the graph is remembered.

        Raises:
            ValueError: an argument of the wrong shape.
        """
        if x.ndim != 4 or A.ndim != 3 or A.shape[:2] != (self.kernel_size, x.shape[-1]):
            expected = f"x [N, C, T, V] and A [K, V, V] with K = {self.kernel_size}"
            raise ValueError(f"ConvTemporalGraphical takes {expected}, got {list(x.shape)} and {list(A.shape)}")
        K = self.kernel_size
        graph = _graph_of(A) if self.conv.out_channels > FEW_CHANNELS * K else None
        if graph is None or current_backend(x.device.type) == "reference":  # which has second derivatives, and these need the zeros
            return torch.einsum("nkctv,kvw->nctw", self.conv(x).unflatten(1, (K, -1)), A).contiguous(), A
        h = self.conv(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        h = h.unflatten(3, (K, -1)).flatten(2, 3)  # [N, T, V * K, C]
        y = propagate(h, A.detach()[_entries(graph, K, A.device)], graph)[:, :, ::K]
        if A.requires_grad:
            y = _GradientOfMatrices.apply(y, h, A)  # type: ignore[no-untyped-call]
        return y.permute(0, 3, 1, 2).contiguous(), A


class SpatialTemporal_MS_GCN(StandIn):
    """y = act(batch norm(Σ_k W_k Â_k x + b) + residual(x)) over the V = window_size · joints nodes of every window (Liu et al. 2020, MS-G3D), in
    place of `model.ms_gtcn.SpatialTemporal_MS_GCN`. Â_k = D^-½ A_k D^-½, A_k joins a node to itself and to those k bones away, in all frames.

    Args:
        in_channels, out_channels: sizes of the features.
        A_binary: bones, a numpy array `[joints, joints]`.
        num_scales: how many k, from 0 on.
        window_size: frames of a window.
        disentangled_agg: False for the powers of the normalised matrix of k = 1.
        use_Ares: learn a matrix that is added; it has no zeros, so slots can't help.
        residual: add x, or where the channels change what a pointwise convolution makes of it.
        dropout: of what is summed over, with which slots can't help.
        activation: relu, leakyrelu, tanh or linear.

    Raises:
        ValueError, TypeError: bones that are no square numpy array; an unknown activation.

    Examples:
        >>> import torch
        >>> import numpy as np
        >>> from fastst.nn import SpatialTemporal_MS_GCN
        >>> chain = np.eye(5, k=1) + np.eye(5, k=-1)
        >>> layer = SpatialTemporal_MS_GCN(3, 8, chain, num_scales=2, window_size=3)
        >>> layer(torch.randn(4, 3, 10, 15)).shape
        torch.Size([4, 8, 10, 15])
    """

    residual: Any  # a module with parameters, or any function of x

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A_binary: np.ndarray,
        num_scales: int,
        window_size: int,
        disentangled_agg: bool = True,
        use_Ares: bool = True,
        residual: bool = False,
        dropout: float = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.num_scales, self.window_size, self.use_Ares, self.V = num_scales, window_size, use_Ares, len(A_binary)
        self.A_scales = torch.from_numpy(_scales(A_binary, num_scales, window_size, disentangled_agg)).float()
        self.A_res = nn.Parameter(torch.empty_like(self.A_scales).uniform_(-1e-6, 1e-6)) if use_Ares else torch.tensor(0)
        self.mlp = _Pointwise(in_channels * num_scales, out_channels, dropout)
        self.residual = _nothing
        if residual:
            self.residual = nn.Identity() if in_channels == out_channels else _Pointwise(in_channels, out_channels)
        self.act = _activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, T, V]` -> `[N, C', T, V]`, T windows of V = window_size · joints nodes.

        Raises:
            ValueError: x of the wrong shape.
        """
        V, K = self.A_scales.shape[1], self.num_scales
        if x.ndim != 4 or x.shape[3] != V:
            raise ValueError(f"SpatialTemporal_MS_GCN takes x [N, C, T, V] with V = {V}, got {list(x.shape)}")
        residual = self.residual(x)
        layers: list[Any] = list(self.mlp.layers)
        first, graph = layers[0], self.graph
        if graph is None:
            A = self.A_scales.to(x) + self.A_res.to(x)
            sums = torch.einsum("vu,nctu->nctv", A, x).unflatten(3, (K, V))  # [N, C, T, K, V]
            y = first(sums.permute(0, 3, 1, 2, 4).flatten(1, 2))
        else:
            weight = first.weight.flatten(1).unflatten(1, (K, -1)).transpose(0, 1)  # [K, C', C]
            h = linear(x.permute(0, 2, 3, 1), weight.flatten(0, 1)).unflatten(3, (K, -1)).flatten(2, 3)  # [N, T, V * K, C']
            entries = self._matrices()[_entries(graph, K, self.A_scales.device)].to(x.device)
            y = propagate(h, entries, graph)[:, :, ::K]
            y = (y if first.bias is None else y + first.bias).permute(0, 3, 1, 2).contiguous()
        for layer in layers[1:]:
            y = layer(y)
        return self.act(y + residual)

    @property
    def graph(self) -> SlotGraph | None:
        """Whose slots the layer sums over; None where they don't help."""
        first = self.mlp.layers[0]
        if self.use_Ares or not isinstance(first, nn.Conv2d) or first.out_channels <= FEW_CHANNELS:
            return None
        return _graph_of(self._matrices())

    def _matrices(self) -> Tensor:
        return self.A_scales.unflatten(0, (self.num_scales, -1)).transpose(1, 2)  # [K, V, V], rows from, columns to


def _nothing(x: Tensor) -> int:
    return 0


class _Pointwise(nn.Module):
    """Dropout, where there is any, a convolution of single nodes, and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Dropout(dropout)] if dropout > 0.001 else [])  # as there: a hint of dropout is none
        self.layers.extend([nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _GradientOfMatrices(torch.autograd.Function):
    """y of y[w] = Σ_k Σ_v A[k, v, w] h[v, k] as it is, and the gradient of A, whose zeros are no slots but may be learned."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, A: Tensor) -> Tensor:
        ctx.save_for_backward(h, A)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, Tensor]:
        h, A = ctx.saved_tensors
        dy = dy.contiguous()
        senders, receivers = (frames.flatten(0, 1).split(_FRAMES_AT_ONCE) for frames in (h, dy))
        parts = [torch.bmm(a, b.transpose(1, 2)).sum(0, dtype=A.dtype) for a, b in zip(senders, receivers, strict=True)]
        return dy, None, torch.stack(parts).sum(0).unflatten(0, (-1, A.shape[0])).transpose(0, 1)


@torch.compiler.disable  # which entries are 0 is nothing to compile
def _graph_of(A: Tensor) -> SlotGraph | None:
    """The graph of the matrices' entries that are not 0, where slots are worth it. Joint v of partition k is joint v · K + k; sums end in k = 0."""
    if A.shape[1] != A.shape[2] or (A.is_cuda and torch.cuda.is_current_stream_capturing()):  # while a GPU can't be waited for
        return None
    pattern = (A.detach() != 0).cpu().numpy()
    return _graph_of_pattern(pattern.tobytes(), *pattern.shape[:2])


@functools.lru_cache(32)
def _graph_of_pattern(pattern: bytes, K: int, V: int) -> SlotGraph | None:
    k, src, dst = np.frombuffer(pattern, bool).reshape(K, V, V).nonzero()
    return SlotGraph(src * K + k, dst * K, np.zeros_like(src), V * K) if K * V - len(src) / V >= _LEAST_SAVED else None


def _entries(graph: SlotGraph, K: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the weights of the slots stand in `[K, V, V]`."""
    index = graph.index(device)
    src, dst = index.src.long(), index.dst.long()
    return src % K, src // K, dst // K


def _scales(bones: np.ndarray, num_scales: int, window_size: int, disentangled: bool) -> np.ndarray:
    """Â_k, one below the other.  # [num_scales * V, V], rows to, columns from"""
    if not isinstance(bones, np.ndarray) or bones.ndim != 2 or bones.shape[0] != bones.shape[1]:
        raise TypeError(f"A_binary must be a square numpy array, got {getattr(bones, 'shape', type(bones).__name__)}")
    itself = np.eye(len(bones) * window_size)
    within = np.tile(bones + np.eye(len(bones)), (window_size, window_size))  # one bone away, in any frame
    if not disentangled:
        step = _normalised(within)
        return np.concatenate([np.linalg.matrix_power(step, k) for k in range(num_scales)])
    reached = [(np.linalg.matrix_power(within + itself, k) > 0).astype(float) for k in range(num_scales)]
    exactly = [after - before + itself for before, after in itertools.pairwise(reached)]
    return np.concatenate([_normalised(matrix) for matrix in [itself, *exactly][:num_scales]])


def _normalised(matrix: np.ndarray) -> np.ndarray:
    root = matrix.sum(1) ** -0.5
    return root[:, None] * matrix * root


def _activation(name: str) -> nn.Module:
    known = {"relu": nn.ReLU(), "leakyrelu": nn.LeakyReLU(0.2), "tanh": nn.Tanh(), "linear": nn.Identity()}
    if name not in known:
        raise ValueError(f"activation must be one of {', '.join(known)}, got {name!r}")
    return known[name]
