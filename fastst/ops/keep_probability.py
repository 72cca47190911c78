"""How likely an edge stays, exactly, for both noises of `sample_edges`."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fastst.ops.backends import current_backend
from fastst.ops.registration import operation
from fastst.sampling import Sampling, SamplingOptions, sampling_of


def keep_probability(logits: Tensor, *, sampling: Sampling | None = None, **options: Unpack[SamplingOptions]) -> Tensor:
    """P(kept = 1) = 1 − exp(−e^γ / β) for Gumbel noise, sigmoid(γ) for logistic noise.

    Exact for `sample_edges` up to its ε, which moves the probability by at most ε (1 + 1/β).

    Args:
        logits: γ of any shape.
        sampling, options: as in `sample_edges`; of them only the noise and β matter here.

    Returns:
        Probabilities in the shape and dtype of the logits, differentiable; the gradient at ±∞ is 0.

    Raises:
        ValueError, TypeError: an option that does not exist, or of a wrong value.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> ops.keep_probability(torch.zeros(1), noise="logistic")
        tensor([0.5000])
        >>> ops.keep_probability(torch.zeros(1), noise="gumbel")
        tensor([0.3935])
    """
    sampling = sampling_of(sampling, options)
    if current_backend(logits.device.type) == "reference":
        return reference(logits, sampling)
    return _forward(logits, sampling.numbers())


def reference(logits: Tensor, sampling: Sampling) -> Tensor:
    """The formulas as printed above; a logit of ±80 stands for all beyond it, where the gradient is 0."""
    gamma = logits.clamp(-80, 80)
    if sampling.noise == "gumbel":
        return 1 - torch.exp(-torch.exp(gamma) / sampling.beta)
    return 1 / (1 + torch.exp(-gamma))


@operation("keep_probability")
def _forward(logits: Tensor, options: Sequence[float]) -> Tensor:
    sampling = Sampling.of(options)
    if sampling.noise == "gumbel":
        return -torch.expm1(-torch.exp(logits) / sampling.beta)
    return torch.sigmoid(logits)


@_forward.register_fake
def _(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


@operation("keep_probability_backward")
def _backward(dprobability: Tensor, logits: Tensor, options: Sequence[float]) -> Tensor:
    sampling = Sampling.of(options)
    if sampling.noise == "gumbel":
        rate = torch.exp(logits) / sampling.beta
        # rate e^-rate as one exponential: for large logits the product would be infinity times 0
        slope = torch.exp(logits - math.log(sampling.beta) - rate)
        return torch.where(logits.isinf(), 0, dprobability * slope)
    probability = torch.sigmoid(logits)
    return dprobability * probability * (1 - probability)


@_backward.register_fake
def _(dprobability: Tensor, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logits, ctx.options = inputs
    ctx.save_for_backward(logits)


def _autograd(ctx: Any, dprobability: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(dprobability, ctx.saved_tensors[0], ctx.options), None


_forward.register_autograd(_autograd, setup_context=_setup_context)
