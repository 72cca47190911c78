"""The feed-forward block of a transformer layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_float
from fastst.ops.linear import Norm, check_layer, check_norm, folded, result_dtype
from fastst.ops.registration import operation

_OWN_KERNELS = ("cpu",)  # the backends that have some; the others run torch's layers


def feed_forward(x: Tensor, norm: Norm, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    """y = x + W' gelu(W norm(x) + b) + b', of which the hidden features are never stored: the backward makes them again.

    Args:
        x: `[..., C]`.
        norm: weight `[C]`, bias `[C]` and ε of a `torch.nn.LayerNorm`.
        weight, bias: W `[F, C]` and b `[F]`.
        out_weight, out_bias: W' `[C, F]` and b' `[C]`.

    Returns:
        The shape of x, in the dtype that torch's layers would give, also under autocast.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> norm = torch.nn.LayerNorm(8)
        >>> inner, outer = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)
        >>> parts = (norm.weight, norm.bias, norm.eps), inner.weight, inner.bias, outer.weight, outer.bias
        >>> ops.feed_forward(torch.randn(2, 8), *parts).shape
        torch.Size([2, 8])
    """
    check_float("x", x)
    if x.ndim < 1 or x.shape[-1] == 0:
        raise ValueError(f"x must be [..., C] with at least one channel, got {list(x.shape)}")
    check_norm(norm, x.shape[-1], x)
    check_layer("", weight, bias, x.shape[-1], x)
    check_layer("out_", out_weight, out_bias, weight.shape[0], x)
    if out_weight.shape[0] != x.shape[-1]:
        raise ValueError(f"out_weight must be [{x.shape[-1]}, {weight.shape[0]}], back to the channels of x, got {list(out_weight.shape)}")
    backend = current_backend(x.device.type)
    if backend not in _OWN_KERNELS:
        return reference(x, norm, weight, bias, out_weight, out_bias)
    dtype = torch.promote_types(x.dtype, result_dtype(x))
    weight, bias = folded(weight, bias, norm)
    return _forward(x, weight, bias, out_weight.to(weight.dtype), out_bias.to(weight.dtype), norm[2], dtype, backend)


def reference(x: Tensor, norm: Norm, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    """Layer by layer."""
    hidden = functional.gelu(functional.linear(functional.layer_norm(x, x.shape[-1:], *norm), weight, bias))
    return x + functional.linear(hidden, out_weight, out_bias)


@operation("feed_forward")
def _forward(x: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor, eps: float, dtype: torch.dtype, backend: str) -> Tensor:
    """On rows of mean 0 and variance 1."""
    kernels = compiled("feed_forward", backend)
    assert kernels is not None, backend
    return kernels.feed_forward(x.reshape(-1, x.shape[-1]), weight, bias, out_weight, out_bias, eps).to(dtype).view(x.shape)


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor, eps: float, dtype: torch.dtype, *_: object) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


@operation("feed_forward_backward")
def _backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, eps: float, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kernels = compiled("feed_forward", backend)
    assert kernels is not None, backend
    rows = (v.reshape(-1, x.shape[-1]) for v in (dy, x))
    dx, *of_weights = kernels.feed_forward_backward(*rows, weight, bias, out_weight, eps)
    dweight, dbias, dout_weight, dout_bias = (v.to(weight.dtype) for v in of_weights)
    return dx.to(x.dtype).view(x.shape), dweight, dbias, dout_weight, dout_bias


@_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    out_bias = out_weight.new_empty(out_weight.shape[0], dtype=weight.dtype)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(bias.shape), out_weight.new_empty(out_weight.shape), out_bias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, out_weight, _, ctx.eps, _, ctx.backend = inputs
    ctx.save_for_backward(x, weight, bias, out_weight)


def _autograd(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _backward(dy, *ctx.saved_tensors, ctx.eps, ctx.backend)
    wanted = (gradient if wants else None for gradient, wants in zip(gradients, ctx.needs_input_grad, strict=False))
    return *wanted, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
