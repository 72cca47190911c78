import math

import pytest
import torch
from graphs import BACKENDS, assert_matches_reference

from fastst.ops import Sampling, keep_probability, use_backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_matches_reference(noise: str, backend: str):
    logits = torch.linspace(-6, 6, 41, dtype=torch.float64)
    assert_matches_reference(lambda logits: keep_probability(logits, noise=noise, beta=1.3), [logits], backend)


@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_opcheck_and_gradcheck(noise: str):
    logits = torch.randn(3, 4, dtype=torch.float64).T.requires_grad_()
    torch.library.opcheck(torch.ops.fastst.keep_probability.default, (logits, Sampling(noise=noise).numbers()))
    assert torch.autograd.gradcheck(lambda logits: keep_probability(logits, noise=noise), (logits,))


@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_the_reference_can_be_differentiated_twice(noise: str):
    with use_backend("reference"):
        slope = torch.func.grad(lambda logit: keep_probability(logit, noise=noise))
        curve = torch.func.grad(slope)(torch.tensor(0.3, dtype=torch.float64))
    near = [float(torch.func.grad(lambda x: 0.5 * keep_exactly(x, noise))(torch.tensor(0.3 + step, dtype=torch.float64))) for step in (-1e-5, 1e-5)]
    assert curve.item() == pytest.approx((near[1] - near[0]) / 1e-5, rel=1e-6)


def keep_exactly(logit: torch.Tensor, noise: str) -> torch.Tensor:
    return 1 - torch.exp(-torch.exp(logit) / 2) if noise == "gumbel" else torch.sigmoid(logit)


def test_extreme_logits_have_finite_gradients():
    logits = torch.tensor([-1000.0, -50.0, 50.0, 1000.0], requires_grad=True)
    probability = keep_probability(logits)
    probability.sum().backward()
    assert probability.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-20)
    assert logits.grad.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match="beta must be above 0"):
        keep_probability(torch.zeros(1), beta=0)
    with pytest.raises(ValueError, match="noise must be one of"):
        keep_probability(torch.zeros(1), noise="x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
def test_certain_edges_have_no_gradient(noise: str, backend: str, dtype: torch.dtype):
    logits = torch.tensor([-math.inf, -1e4, 0.5, 1e4, math.inf], dtype=dtype, requires_grad=True)
    with use_backend(backend):
        probability = keep_probability(logits, noise=noise)
        (gradient,) = torch.autograd.grad(probability.sum(), logits)
    torch.testing.assert_close(probability[[0, 1, 3, 4]], torch.tensor([0, 0, 1, 1], dtype=dtype), atol=1e-30, rtol=0)
    assert gradient[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]
    assert gradient[2] > 0
