"""Layers and models that fastst's stand in for, as their papers' programs have them, for the benchmarks: the same modules and the same products."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from fastst.layouts import LAYOUTS
from fastst.nn import skeleton


class ConvTemporalGraphical(nn.Module):
    """ST-GCN's graph convolution (Yan et al. 2018): a 1 × 1 convolution to K partitions, and one einsum with their matrices in every frame."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels * kernel_size, (1, 1))

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("nkctv,kvw->nctw", self.conv(x).unflatten(1, (self.kernel_size, -1)), A).contiguous(), A


class StGcnBlock(nn.Module):
    """A graph convolution, a convolution along nine frames, and the input added."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.gcn = ConvTemporalGraphical(in_channels, out_channels, kernel_size)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.Conv2d(out_channels, out_channels, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out_channels), nn.Dropout(0.5, inplace=True),
        )  # fmt: skip
        same = in_channels == out_channels and stride == 1
        changed = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, (stride, 1)), nn.BatchNorm2d(out_channels))
        self.residual = (nn.Identity() if same else changed) if residual else None

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        y = self.tcn(self.gcn(x, A)[0])
        return torch.relu(y if self.residual is None else y + self.residual(x))


class StGcn(nn.Module):
    """Ten blocks of 64, 128 and 256 channels; every block weighs the edges.  # [N, C, T, V] -> [N, classes]"""

    def __init__(self, in_channels: int, num_classes: int, layout: str = "stgcn18") -> None:
        super().__init__()
        A = torch.from_numpy(LAYOUTS[layout].partitions("spatial")).float()
        self.register_buffer("A", A)
        widths, strides = [in_channels, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256], {4: 2, 7: 2}
        self.normalize = nn.BatchNorm1d(in_channels * A.shape[1])
        self.blocks = nn.ModuleList(
            StGcnBlock(a, b, len(A), strides.get(i, 1), residual=i > 0) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.importance = nn.ParameterList(torch.ones_like(A) for _ in self.blocks)
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, V = x.shape
        x = self.normalize(x.permute(0, 3, 1, 2).reshape(N, V * C, T)).view(N, V, C, T).permute(0, 2, 3, 1)
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, self.A * importance)
        return self.classifier(x.mean((2, 3), keepdim=True)).flatten(1)


class MLP(nn.Module):
    """A 1 × 1 convolution with normalised outputs."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class SpatialTemporal_MS_GCN(nn.Module):
    """MS-G3D's graph convolution of a window of frames (Liu et al. 2020), without A_res: one einsum with the matrices of all scales."""

    def __init__(self, in_channels: int, out_channels: int, A_binary: np.ndarray, num_scales: int, window_size: int) -> None:
        super().__init__()
        self.num_scales, self.window_size, self.use_Ares, self.V = num_scales, window_size, False, len(A_binary)
        self.A_scales = skeleton.SpatialTemporal_MS_GCN(1, 1, A_binary, num_scales, window_size, use_Ares=False).A_scales
        self.A_res = torch.tensor(0)
        self.mlp = MLP(in_channels * num_scales, out_channels)
        self.residual = _nothing
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, V = x.shape
        sums = torch.einsum("vu,nctu->nctv", self.A_scales, x).view(N, C, T, self.num_scales, V)
        return self.act(self.mlp(sums.permute(0, 3, 1, 2, 4).reshape(N, self.num_scales * C, T, V)) + self.residual(x))


def _nothing(x: Tensor) -> int:
    return 0
