"""Attention of a walk's nodes along one axis: joints within a frame, or frames within a joint."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_device, check_float, check_lengths
from fastst.ops.registration import operation
from fastst.ops.sparse import mask_frames

AXES = ("joints", "frames")
_OWN_KERNELS = ("cpu",)  # the backends that have some; the others run torch's attention


def attend_axis(q: Tensor, k: Tensor, v: Tensor, heads: int, axis: str, window: int | None = None, lengths: Tensor | None = None) -> Tensor:
    """y_i = Σ_j softmax_j(q_i · k_j / √d) v_j, head by head with d = C / heads: j goes over the joints of i's frame (`axis="joints"`), or over the
    frames of i's joint (`"frames"`), with a window over those at most so many frames away.

    `torch.nn.functional.scaled_dot_product_attention` on features as they lie in memory: nothing is transposed or copied, and no scores are stored.
    With a window time grows with T, else along frames with T².

    Args:
        q, k, v: `[B, T, J, C]`; they may be parts of one tensor, such as `project(h).chunk(3, -1)`.
        window: frames to either side that a frame sees; None for all. Only along frames.
        lengths: `[B]` frames of every walk. What stands beyond is neither seen nor given anything: y is 0 there.

    Returns:
        The shape and the dtype of q.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value, named.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> q, k, v = torch.randn(3, 2, 12, 17, 8)
        >>> ops.attend_axis(q, k, v, heads=4, axis="frames", window=3).shape
        torch.Size([2, 12, 17, 8])
    """
    _check(q, k, v, heads, axis, window)
    lengths = check_lengths(lengths, None, q.shape[0], ("q", q))
    backend = current_backend(q.device.type)
    if backend == "reference":
        return reference(q, k, v, heads, axis, window, lengths)
    if backend not in _OWN_KERNELS:
        return _by_torch(q, k, v, heads, axis, window, lengths)
    y, _ = _forward(q, k, v, lengths, heads, axis, window, backend)
    return y


def _check(q: Tensor, k: Tensor, v: Tensor, heads: int, axis: str, window: int | None) -> None:
    check_float("q", q)
    if q.ndim != 4 or q.shape[-1] == 0:
        raise ValueError(f"q must be [B, T, J, C] with at least one channel, got {list(q.shape)}")
    for name, other in (("k", k), ("v", v)):
        check_float(name, other)
        if other.shape != q.shape:
            raise ValueError(f"{name} must have the shape of q, {list(q.shape)}, got {list(other.shape)}")
        if other.dtype != q.dtype:
            raise TypeError(f"{name} must have the dtype of q, {q.dtype}, got {other.dtype}")
        check_device(name, other, "q", q)
    if heads < 1 or q.shape[-1] % heads:
        raise ValueError(f"heads must divide the channels C = {q.shape[-1]}, got {heads}")
    if axis not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}, got {axis!r}")
    if window is not None and axis == "joints":
        raise ValueError(f"window counts frames, but axis='joints' sees those of one frame; leave window = {window} out")
    if window is not None and window < 0:
        raise ValueError(f"window must be 0 frames or more, or None for all; got {window}")


def reference(q: Tensor, k: Tensor, v: Tensor, heads: int, axis: str, window: int | None, lengths: Tensor | None) -> Tensor:
    """All pairs, those that don't see each other masked out of the softmax."""
    along = 2 if axis == "joints" else 1
    q, k, v = (mask_frames(x, lengths).unflatten(-1, (heads, -1)).movedim(along, -2) for x in (q, k, v))  # [B, outer, heads, S, d]
    S = q.shape[-2]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if axis == "frames":
        t = torch.arange(S, device=q.device)
        seen = torch.ones(S, S, dtype=torch.bool, device=q.device) if window is None else (t[:, None] - t).abs() <= window
        inside = seen if lengths is None else seen & (t < lengths[:, None])[:, None, None, None, :]
        scores = scores.masked_fill(~(inside | torch.eye(S, dtype=torch.bool, device=q.device)), float("-inf"))
    y = (scores.softmax(-1) @ v).movedim(-2, along).flatten(-2)
    return mask_frames(y, lengths)


def _by_torch(q: Tensor, k: Tensor, v: Tensor, heads: int, axis: str, window: int | None, lengths: Tensor | None) -> Tensor:
    B, T, J, C = q.shape
    q, k, v = (mask_frames(x, lengths) for x in (q, k, v))
    if axis == "joints":
        q, k, v = (x.reshape(B * T, J, heads, -1).transpose(1, 2) for x in (q, k, v))
        y = scaled_dot_product_attention(q, k, v)
        return mask_frames(y.transpose(1, 2).reshape(B, T, J, C), lengths)
    if window is not None and window < T - 1:
        return mask_frames(_windows_by_torch(q, k, v, heads, window, lengths), lengths)
    seen = None
    if lengths is not None:
        # The first frame is always seen: a softmax over nothing would be NaN.
        seen = (torch.arange(T, device=q.device) < lengths.clamp(min=1)[:, None])[:, None, None, :]
    q, k, v = (x.reshape(B, T, J * heads, -1).transpose(1, 2) for x in (q, k, v))
    y = scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return mask_frames(y.transpose(1, 2).reshape(B, T, J, C), lengths)


def _windows_by_torch(q: Tensor, k: Tensor, v: Tensor, heads: int, window: int, lengths: Tensor | None) -> Tensor:
    """Frames in blocks of the window's size, each of which sees itself and its two neighbours."""
    B, T, J, C = q.shape
    size = max(window, 1)
    blocks = -(-T // size)
    farther = blocks * size - T
    q = pad(q, (0, 0, 0, 0, 0, farther)).reshape(B * blocks, size, J * heads, -1).transpose(1, 2)
    k, v = (
        pad(x, (0, 0, 0, 0, size, size + farther)).unfold(1, 3 * size, size).reshape(B * blocks, J * heads, -1, 3 * size).transpose(2, 3)
        for x in (k, v)
    )
    query = torch.arange(blocks * size, device=q.device).view(blocks, size, 1)
    key = torch.arange(-size, 2 * size, device=q.device) + torch.arange(blocks, device=q.device).view(-1, 1, 1) * size
    last = torch.full((1,), T, device=q.device) if lengths is None else lengths
    inside = (key >= 0) & (key < last.view(-1, 1, 1, 1))
    seen = ((query - key).abs() <= window) & inside | (query == key)  # [B or 1, blocks, size, 3 size]
    y = scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(B, -1, -1, -1).flatten(0, 1).unsqueeze(1))
    return y.transpose(1, 2).reshape(B, blocks * size, J, C)[:, :T]


@operation("attend_axis")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, heads: int, axis: str, window: int | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Also returns log Σ exp of the scores of every node, from which the backward makes them again."""
    kernels = compiled("attend_axis", backend)
    assert kernels is not None, backend
    return kernels.attend_axis(q, k, v, heads, axis, window, lengths)


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, heads: int, axis: str, *others: object) -> tuple[Tensor, Tensor]:
    B, T, J, _ = q.shape
    inner = (J, T) if axis == "frames" else (T, J)
    return q.new_empty(q.shape), q.new_empty(B, heads, *inner, dtype=torch.promote_types(q.dtype, torch.float32))


@operation("attend_axis_backward")
def _backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    heads: int,
    axis: str,
    window: int | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = compiled("attend_axis", backend)
    assert kernels is not None, backend
    return kernels.attend_axis_backward(dy, y, log_sum, q, k, v, heads, axis, window, lengths)


@_backward.register_fake
def _(dy: Tensor, y: Tensor, log_sum: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: object) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    q, k, v, lengths, ctx.heads, ctx.axis, ctx.window, ctx.backend = inputs
    y, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(y, log_sum, q, k, v, lengths)


def _autograd(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv = _backward(dy, *ctx.saved_tensors, ctx.heads, ctx.axis, ctx.window, ctx.backend)
    return dq, dk, dv, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
