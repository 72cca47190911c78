"""A model for other people's runtimes: ONNX."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastst.errors import UserError
from fastst.files import write_atomically
from fastst.graph_index import GraphIndex
from fastst.nn import FixedGraph, GivenGraph, GraphClassifier
from fastst.ops import sparse, use_backend
from fastst.runs.predictions import evaluating

_NEEDED = ("onnx", "onnxscript")


def write_onnx(path: str | Path, model: GraphClassifier, frames: int) -> None:
    """A classifier on a fixed or given graph as an ONNX file, which needs no fastst.

    Its inputs are `poses [batch, frames, J, D]` (float32, as `GraphClassifier` takes them, beyond a walk's length whatever numbers) and
    `lengths [batch]` (int64); its output is `logits [batch, classes]`. The batch is open, the number of frames is not.

    Args:
        path: the file.
        model: in evaluation mode or not; it is exported in evaluation mode.
        frames: T.

    Raises:
        UserError: packages that are missing, a graph that is sampled for every walk, or the file can't be written.

    Examples:
        >>> from fastst.export import write_onnx
        >>> from fastst.nn import GraphClassifier
        >>> model = GraphClassifier("coco17", num_classes=3, graph="fixed", layers=1, hidden=8)
        >>> write_onnx("model.onnx", model, frames=60)
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'fastst[export]'")
    if not isinstance(model.source, (FixedGraph, GivenGraph)):
        raise UserError(
            f"ONNX has no place for a graph of {type(model.source).__name__}, which is drawn anew for every walk; use GivenGraph, or torch.export"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's, about its own parts
        program = torch.onnx.export(
            _in_plain_operations(model, frames), input_names=["poses", "lengths"], output_names=["logits"], dynamo=True, verbose=False
        )
    write_atomically(Path(path), lambda part: program.save(part))  # type: ignore[union-attr]


class _Logits(nn.Module):
    def __init__(self, model: GraphClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, poses: Tensor, lengths: Tensor) -> Tensor:
        return self.model(poses, lengths).logits


def _in_plain_operations(model: GraphClassifier, frames: int) -> torch.export.ExportedProgram:
    """The model with fastst's operations written out in those of torch that ONNX has: gathering, and products with a matrix of zeros and ones."""
    device, batch = model.pose_mean.device, torch.export.Dim("batch", min=1)
    inputs = torch.zeros(2, frames, *model.pose_mean.shape, device=device), torch.full((2,), frames, device=device)
    with evaluating(model), use_backend("torch"):
        program = torch.export.export(_Logits(model), inputs, dynamic_shapes=({0: batch}, {0: batch}))
    table: dict[Any, Any] = torch.export.default_decompositions()
    for name, written_out in (("propagate", _propagate), ("gcn_norm", _gcn_norm)):
        for part in (name, f"{name}_kernel"):
            table[getattr(torch.ops.fastst, part).default] = written_out
    return program.run_decompositions(table)


def _propagate(
    x: Tensor, weight: Tensor, self_weight: Tensor | None, lengths: Tensor | None, slots: Tensor, bounds: Tensor, hops: int, backend: str
) -> Tensor:
    index = GraphIndex(slots, bounds)
    x, values = sparse.mask_frames(x, lengths), sparse.mask_edges(weight, index.offset, lengths).to(x.dtype)
    y = _into(index, x) @ (_from(index, x) * values.transpose(1, 2)[..., None])
    return y if self_weight is None else y + self_weight[..., None] * x


def _gcn_norm(
    kept: Tensor, lengths: Tensor | None, slots: Tensor, bounds: Tensor, loop: float, num_joints: int, hops: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    index = GraphIndex(slots, bounds)
    values = sparse.mask_edges(kept, index.offset, lengths).transpose(1, 2)  # [B, T, P]
    into, own = _into(index, kept), loop * index.no_loop.to(kept.dtype)
    degree = own + values @ into.T
    root = sparse.mask_frames(torch.where(degree == 0, 0, degree.rsqrt()), lengths)
    weight = values * (root @ into) * _from(index, root[..., None]).squeeze(-1)
    return weight.transpose(1, 2), own * root.square(), root.transpose(1, 2)


def _from(index: GraphIndex, x: Tensor) -> Tensor:
    """What every edge's other end has; whatever, where no edge exists.  # [B, T, J, C] -> [B, T, P, C]"""
    T, J = x.shape[1:3]
    node = (torch.arange(T, device=x.device)[:, None] + index.offset) * J + index.src
    return x.flatten(1, 2).index_select(1, node.clamp(0, T * J - 1).flatten()).unflatten(1, node.shape)


def _into(index: GraphIndex, like: Tensor) -> Tensor:
    """1 where a slot ends in a joint, else 0.  # [J, P]"""
    return (torch.arange(index.bounds.shape[1] - 1, device=like.device)[:, None] == index.dst).to(like.dtype)
