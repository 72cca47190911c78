"""The options of sampling as one value."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor

NOISES = ("gumbel", "logistic")
ESTIMATORS = ("identity", "sigmoid")
_MOST_EPS = 2.0**-24  # what the largest u lacks to 1


@dataclass(frozen=True)
class Sampling:
    """How edges are sampled: kept = round(sigmoid(z)), u ~ Uniform(0, 1) and

    z = (γ − log(−β log(u + ε) + ε)) / τ with `noise="gumbel"`, Eq. 2 of the paper as printed, or
    z = (γ + log(u + ε) − log(1 − u + ε)) / τ with `noise="logistic"`.

    kept is 1 exactly where z > 0, so τ only scales gradients. With Gumbel noise an edge stays with
    probability 1 − exp(−e^γ / β), and not sigmoid(γ) as the paper's Eq. 1 says; logistic noise
    gives sigmoid(γ). `keep_probability` knows both.

    Args:
        beta: β, of Gumbel noise; logistic noise has none.
        tau: τ.
        eps: ε; at most 2⁻²⁴ for Gumbel noise, beyond which Eq. 2 would take the logarithm of a
            negative number.
        noise: `gumbel` or `logistic`.
        estimator: the straight-through gradient: `identity` is the paper's ∂kept/∂γ = ∂z/∂γ = 1/τ,
            `sigmoid` is σ'(z)/τ, with the noise made again instead of stored.

    Raises:
        ValueError: a number that is not above 0, too large an ε, a tensor that wants a gradient or is no
            single number, a name that does not exist.

    Examples:
        >>> import torch
        >>> from fastst import ops
        >>> sampling = ops.Sampling(noise="logistic", estimator="sigmoid", tau=1.0)
        >>> ops.keep_probability(torch.tensor([0.0]), sampling=sampling)
        tensor([0.5000])
    """

    beta: float = 2.0
    tau: float = 2.0
    eps: float = 1e-10
    noise: str = "gumbel"
    estimator: str = "identity"

    def __post_init__(self) -> None:
        for name, value in (("beta", self.beta), ("tau", self.tau), ("eps", self.eps)):
            if isinstance(value, Tensor):
                object.__setattr__(self, name, _number(name, value))
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        check_choice("noise", self.noise, NOISES)
        check_choice("estimator", self.estimator, ESTIMATORS)
        if self.noise == "gumbel" and self.eps > _MOST_EPS:
            raise ValueError(f"eps must be at most 2⁻²⁴ = {_MOST_EPS:.3g}, so that Eq. 2 takes no logarithm of a negative number; got {self.eps}")

    def numbers(self) -> list[float]:
        """As the registered operations take them: a schema has lists of numbers, but no classes."""
        names = NOISES.index(self.noise), ESTIMATORS.index(self.estimator)
        return [float(value) for value in (self.beta, self.tau, self.eps, *names)]

    @staticmethod
    def of(numbers: Sequence[float]) -> Sampling:
        """What `numbers` says."""
        return _sampling_of_numbers(*numbers)


@functools.lru_cache(maxsize=64)  # every call of an operation asks twice or three times
def _sampling_of_numbers(beta: float, tau: float, eps: float, noise: float, estimator: float) -> Sampling:
    return Sampling(beta, tau, eps, NOISES[int(noise)], ESTIMATORS[int(estimator)])


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, as the keywords of an operation."""

    beta: float
    tau: float
    eps: float
    noise: str
    estimator: str


_NAMES = tuple(SamplingOptions.__annotations__)


def sampling_of(sampling: Sampling | None, options: Mapping[str, Any]) -> Sampling:
    """The options of a call, to which they are given as one value or as keywords, but not as both."""
    for name in options:
        if name not in _NAMES:
            raise TypeError(f"there is no option {name!r}; those of sampling are {', '.join(_NAMES)}")
    if sampling is None:
        return Sampling(**options)
    if not isinstance(sampling, Sampling):
        raise TypeError(f"sampling must be a Sampling, got {type(sampling).__name__}")
    if options:
        given = ", ".join(options)
        raise ValueError(f"give sampling or its options as keywords, not both; got sampling and {given}")
    return sampling


def _number(name: str, value: Tensor) -> float:
    if value.numel() != 1:
        raise ValueError(f"{name} must be one number, got a tensor of shape {list(value.shape)}")
    if value.requires_grad:
        raise ValueError(f"{name} gets no gradient; give {name}.detach()")
    return value.item()


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
