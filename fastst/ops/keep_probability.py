"""How likely an edge stays, exactly, for both noises of `sample_edges`."""

import torch
from torch import Tensor

from fastst.ops.backends import current_backend
from fastst.ops.registration import operation
from fastst.ops.sample_edges import NOISES, check_choice


def keep_probability(logits: Tensor, *, beta: float = 2.0, noise: str = "gumbel") -> Tensor:
    """P(kept = 1) = 1 − exp(−e^γ / β) for `noise="gumbel"`, sigmoid(γ) for `noise="logistic"`.

    Exact for `sample_edges` up to its ε, which moves the probability by at most ε (1 + 1/β).

    Args:
        logits: γ of any shape.

    Returns:
        Probabilities in the shape and dtype of the logits, differentiable.

    Raises:
        ValueError: beta not above 0, or a noise that does not exist.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    check_choice("noise", noise, NOISES)
    if current_backend(logits.device.type) == "reference":
        return reference(logits, beta, noise)
    return _forward(logits, float(beta), noise)


def reference(logits: Tensor, beta: float, noise: str) -> Tensor:
    """The formulas as printed above."""
    if noise == "gumbel":
        return 1 - torch.exp(-torch.exp(logits) / beta)
    return 1 / (1 + torch.exp(-logits))


@operation("keep_probability")
def _forward(logits: Tensor, beta: float, noise: str) -> Tensor:
    if noise == "gumbel":
        return -torch.expm1(-torch.exp(logits) / beta)
    return torch.sigmoid(logits)


@_forward.register_fake
def _(logits, beta, noise):
    return logits.new_empty(logits.shape)


@operation("keep_probability_backward")
def _backward(dprobability: Tensor, logits: Tensor, beta: float, noise: str) -> Tensor:
    if noise == "gumbel":
        rate = torch.exp(logits) / beta
        # rate e^-rate as one exponential: for large logits the product would be infinity times 0
        return dprobability * torch.exp(logits - torch.log(logits.new_tensor(beta)) - rate)
    probability = torch.sigmoid(logits)
    return dprobability * probability * (1 - probability)


@_backward.register_fake
def _(dprobability, logits, beta, noise):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, ctx.beta, ctx.noise = inputs
    ctx.save_for_backward(logits)


def _autograd(ctx, dprobability):
    return _backward(dprobability, ctx.saved_tensors[0], ctx.beta, ctx.noise), None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
