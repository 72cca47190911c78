"""How far apart the node embeddings of a graph still are (over-smoothing)."""

from typing import Any

import torch
from torch import Tensor

from fastst.ops import sparse
from fastst.ops.backends import current_backend
from fastst.ops.checks import check_per_walk
from fastst.ops.registration import operation


def mean_average_distance(h: Tensor, lengths: Tensor | None = None) -> Tensor:
    """MAD = mean over all pairs of nodes of (1 − cosine) = 1 − ‖mean_i h_i / ‖h_i‖‖²: Eq. 5 and 6 of the paper (Chen et al. 2020), in O(N C).

    A node whose embedding is zero has cosine 0 with everything, itself included. A walk without frames has MAD 0.

    Args:
        h: `[B, T, J, C]`, or `[B, N, C]`.
        lengths: `[B]` frames of every walk (only for `[B, T, J, C]`).

    Returns:
        `[B]`, at least float32; 0 when all nodes are alike, near 1 when they point everywhere.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> h = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)  # two nodes at a right angle
        >>> ops.mean_average_distance(h)
        tensor([0.5000])
    """
    if not h.is_floating_point() or h.ndim not in (3, 4):
        raise ValueError(f"h must be floating-point [B, T, J, C] or [B, N, C], got {h.dtype} {list(h.shape)}")
    if lengths is not None and h.ndim == 3:
        raise ValueError("lengths counts frames, which [B, N, C] does not have; leave it out")
    if lengths is not None:
        check_per_walk("lengths", lengths, h.shape[0], ("h", h))
    nodes = h if h.ndim == 4 else h.unsqueeze(1)
    if current_backend(h.device.type) == "reference":
        return reference(nodes, lengths)
    return _forward(nodes, lengths)


def reference(h: Tensor, lengths: Tensor | None) -> Tensor:
    """All pairs of nodes, walk by walk."""
    distances = [h.to(_dtype(h)).flatten()[:0]]  # of a batch without walks, with its gradient
    for walk, nodes in enumerate(h.to(_dtype(h))):
        nodes = nodes[: h.shape[1] if lengths is None else int(lengths[walk])].flatten(0, 1)
        length = nodes.norm(dim=1)
        product = length[:, None] * length[None]
        cosine = torch.where(product > 0, nodes @ nodes.T / torch.where(product > 0, product, 1), 0)
        distances.append(((1 - cosine).mean() if len(nodes) else nodes.sum()).view(1))
    return torch.cat(distances)


def _dtype(h: Tensor) -> torch.dtype:
    return torch.promote_types(h.dtype, torch.float32)


def _directions(h: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """h_i / ‖h_i‖ (0 for 0), 1 / ‖h_i‖ (0 for 0), and the mean direction of every walk.  # [B, T, J, C], [B, T, J, 1], [B, 1, 1, C]"""
    h = sparse.mask_frames(h, lengths).to(_dtype(h))
    length = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    inverse = torch.where(length > 0, 1 / torch.where(length > 0, length, 1), 0)
    direction = h * inverse
    return direction, inverse, direction.sum((1, 2), keepdim=True) / _count(h, lengths)


def _count(h: Tensor, lengths: Tensor | None) -> Tensor:
    """Nodes of every walk, at least 1.  # [B, 1, 1, 1]"""
    B, T, J, _ = h.shape
    frames = torch.full((B,), T, device=h.device) if lengths is None else lengths.clamp(0, T)
    return (frames * J).clamp(min=1).view(B, 1, 1, 1)


@operation("mean_average_distance")
def _forward(h: Tensor, lengths: Tensor | None) -> Tensor:
    _, _, mean = _directions(h, lengths)
    if not h.shape[1] * h.shape[2]:
        return mean.new_zeros(len(h))
    distance = 1 - mean.square().sum((1, 2, 3))
    return distance if lengths is None else torch.where(lengths > 0, distance, 0)


@_forward.register_fake
def _(h: Tensor, *_: object) -> Tensor:
    return h.new_empty(h.shape[0], dtype=_dtype(h))


@operation("mean_average_distance_backward")
def _backward(ddistance: Tensor, h: Tensor, lengths: Tensor | None) -> Tensor:
    direction, inverse, mean = _directions(h, lengths)
    along = (direction * mean).sum(-1, keepdim=True)
    dh = (direction * along - mean) * inverse * (2 * ddistance.view(-1, 1, 1, 1) / _count(h, lengths))
    return sparse.mask_frames(dh, lengths).to(h.dtype)


@_backward.register_fake
def _(ddistance: Tensor, h: Tensor, *_: object) -> Tensor:
    return h.new_empty(h.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, ddistance: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(ddistance, *ctx.saved_tensors), None


_forward.register_autograd(_autograd, setup_context=_setup_context)
