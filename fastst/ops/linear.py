"""Linear layers of features, with the normalisation before and the sum and the ReLU after them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_device, check_float
from fastst.ops.registration import operation

_OWN_KERNELS = ("cpu",)  # the backends that have some; the others run torch's layers
MOST_PARTS = 3
Norm = tuple[Tensor, Tensor, float]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    share: float = 1.0,
    relu: bool = False,
) -> Tensor:
    """y = act(W norm(x) + b + share · residual), in one pass over memory.

    Args:
        x: `[..., K]`.
        weight, bias: `[M, K]` and `[M]`, of `torch.nn.Linear`.
        norm: weight `[K]`, bias `[K]` and ε of a `torch.nn.LayerNorm` that x goes through before; None for x itself.
        residual: `[..., M]`, what is added; of the same dtype.
        relu: whether act is a ReLU, or nothing.

    Returns:
        `[..., M]`, in the dtype that `torch.nn.functional.linear` and the sum would have, also under autocast.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> ops.linear(torch.tensor([[1.0, -2.0]]), torch.eye(2), torch.ones(2), relu=True)
        tensor([[2., 0.]])
    """
    _check(x, weight, bias, norm)
    if residual is not None:
        _check_residual(residual, x, weight)
    backend = current_backend(x.device.type)
    if backend not in _OWN_KERNELS:
        return reference(x, weight, bias, norm, residual, share, relu)
    dtype = result_dtype(x) if residual is None else torch.promote_types(result_dtype(x), residual.dtype)
    y, _, _ = _forward(x, *_folded(weight, bias, norm), residual, 1, norm is not None, _eps(norm), share, relu, dtype, backend)
    return y


def linears(x: Tensor, weight: Tensor, bias: Tensor, parts: int, norm: Norm | None = None) -> tuple[Tensor, ...]:
    """The results of so many linear layers of the same x: `linear(x, weight, bias, norm=norm).chunk(parts, -1)`, every one contiguous.

    Args:
        x, norm: as of `linear`.
        weight, bias: `[parts · M, K]` and `[parts · M]`: those of the layers, one below the other.
        parts: 1 to 3.

    Returns:
        `[..., M]` so many times.

    Raises:
        ValueError, TypeError: as of `linear`.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> q, k, v = ops.linears(torch.randn(2, 12, 17, 8), torch.randn(24, 8), torch.zeros(24), parts=3)
        >>> q.shape
        torch.Size([2, 12, 17, 8])
    """
    _check(x, weight, bias, norm)
    if not 1 <= parts <= MOST_PARTS or weight.shape[0] % parts:
        raise ValueError(f"parts must be 1 to {MOST_PARTS} and divide the rows of weight, {weight.shape[0]}; got {parts}")
    backend = current_backend(x.device.type)
    if backend not in _OWN_KERNELS:
        return reference(x, weight, bias, norm).chunk(parts, -1)
    ys = _forward(x, *_folded(weight, bias, norm), None, parts, norm is not None, _eps(norm), 1.0, False, result_dtype(x), backend)
    return tuple(ys[:parts])


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, norm: Norm | None, residual: Tensor | None = None, share: float = 1.0, relu: bool = False
) -> Tensor:
    """Layer by layer."""
    if norm is not None:
        x = functional.layer_norm(x, x.shape[-1:], *norm)
    y = functional.linear(x, weight, bias)
    if residual is not None:
        y = y + share * residual
    return y.relu_() if relu else y


def result_dtype(x: Tensor) -> torch.dtype:
    """Of a product of x, also under autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and x.dtype != torch.float64 else x.dtype


def check_layer(name: str, weight: Tensor, bias: Tensor, channels: int, x: Tensor) -> None:
    """Weight and bias of a linear layer of so many channels, in x's dtype unless under autocast."""
    check_parameters(((f"{name}weight", weight), (f"{name}bias", bias)), x)
    if weight.ndim != 2 or weight.shape[0] == 0 or weight.shape[1] != channels:
        raise ValueError(f"{name}weight must be [M, {channels}] with at least one row, got {list(weight.shape)}")
    if list(bias.shape) != [weight.shape[0]]:
        raise ValueError(f"{name}bias must be [{weight.shape[0]}], a number for every row of {name}weight, got {list(bias.shape)}")


def check_norm(norm: Norm, channels: int, x: Tensor) -> None:
    check_parameters((("norm's weight", norm[0]), ("norm's bias", norm[1])), x)
    if any(list(value.shape) != [channels] for value in norm[:2]):
        raise ValueError(f"norm must be weight [{channels}], bias [{channels}] and ε, got {list(norm[0].shape)} and {list(norm[1].shape)}")


def check_parameters(named: tuple[tuple[str, Tensor], ...], x: Tensor) -> None:
    for name, value in named:
        check_float(name, value)
        check_device(name, value, "x", x)
        if value.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {value.dtype}")


def folded(weight: Tensor, bias: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """W and b of W (γ n + β) + b = (W γ) n + (W β + b), in at least float32, so that kernels normalise rows and no more."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    weight, bias, gamma, beta = (value.to(dtype) for value in (weight, bias, *norm[:2]))
    return weight * gamma, bias + (weight * beta).sum(1)


def _folded(weight: Tensor, bias: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor]:
    return (weight, bias) if norm is None else folded(weight, bias, norm)


def _eps(norm: Norm | None) -> float:
    return 0.0 if norm is None else norm[2]


def _check(x: Tensor, weight: Tensor, bias: Tensor, norm: Norm | None) -> None:
    check_float("x", x)
    if x.ndim < 1 or x.shape[-1] == 0:
        raise ValueError(f"x must be [..., K] with at least one channel, got {list(x.shape)}")
    check_layer("", weight, bias, x.shape[-1], x)
    if norm is not None:
        check_norm(norm, x.shape[-1], x)


def _check_residual(residual: Tensor, x: Tensor, weight: Tensor) -> None:
    check_parameters((("residual", residual),), x)
    expected = [*x.shape[:-1], weight.shape[0]]
    if list(residual.shape) != expected:
        raise ValueError(f"residual must be {expected} like the result, got {list(residual.shape)}")


@operation("linear")
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    parts: int,
    normalized: bool,
    eps: float,
    share: float,
    relu: bool,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """With normalized on rows of mean 0 and variance 1. Parts that are not asked for are empty."""
    kernels, M = compiled("linear", backend), weight.shape[0] // parts
    assert kernels is not None, backend
    rows = x.reshape(-1, x.shape[-1])
    added = None if residual is None else residual.reshape(-1, M)
    ys = kernels.linear(rows, weight, bias, added, parts, normalized, eps, share, relu)
    first, second, third = [y.to(dtype).view(*x.shape[:-1], M) for y in ys] + [x.new_empty(0, dtype=dtype) for _ in range(MOST_PARTS - parts)]
    return first, second, third


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    parts: int,
    normalized: bool,
    eps: float,
    share: float,
    relu: bool,
    dtype: torch.dtype,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*x.shape[:-1], weight.shape[0] // parts)
    first, second, third = (x.new_empty(shape if part < parts else (0,), dtype=dtype) for part in range(MOST_PARTS))
    return first, second, third


@operation("linear_backward")
def _backward(
    dy: Tensor,
    dy2: Tensor,
    dy3: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    parts: int,
    normalized: bool,
    eps: float,
    wants_x: bool,
    wants_sum: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, and of what went into the ReLU whose result y is; those of x and of the latter if wanted."""
    kernels, M = compiled("linear", backend), weight.shape[0] // parts
    assert kernels is not None, backend
    dys = [d.reshape(-1, M) for d in (dy, dy2, dy3)[:parts]]
    through = None if y is None else y.reshape(-1, M)
    dx, dweight, dbias, dsum = kernels.linear_backward(dys, through, x.reshape(-1, x.shape[-1]), weight, normalized, eps, wants_x, wants_sum)
    dx = dx.to(x.dtype).view(x.shape) if wants_x else x.new_empty(0)
    dsum = dsum.to(dy.dtype).view(dy.shape) if wants_sum and y is not None else dy.new_empty(0)
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype), dsum


@_backward.register_fake
def _(
    dy: Tensor,
    dy2: Tensor,
    dy3: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    parts: int,
    normalized: bool,
    eps: float,
    wants_x: bool,
    wants_sum: bool,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dsum = dy.new_empty(dy.shape if wants_sum and y is not None else (0,))
    return x.new_empty(x.shape if wants_x else (0,)), weight.new_empty(weight.shape), weight.new_empty(weight.shape[0]), dsum


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, residual, ctx.parts, ctx.normalized, ctx.eps, ctx.share, relu, _, ctx.backend = inputs
    ctx.kinds = bias.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(x, weight, output[0] if relu else None)


def _autograd(ctx: Any, dy: Tensor, dy2: Tensor, dy3: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, y = ctx.saved_tensors
    of_x, of_weight, of_bias, of_residual, *_ = ctx.needs_input_grad
    wants = of_x, of_residual
    dx, dweight, dbias, dsum = _backward(dy, dy2, dy3, y, x, weight, ctx.parts, ctx.normalized, ctx.eps, *wants, ctx.backend)
    bias_dtype, residual_dtype = ctx.kinds
    dresidual = None
    if of_residual:
        dresidual = dy if y is None else dsum
        dresidual = (dresidual if ctx.share == 1 else dresidual * ctx.share).to(residual_dtype)
    gradients = dx if of_x else None, dweight if of_weight else None, dbias.to(bias_dtype) if of_bias else None
    return *gradients, dresidual, None, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
