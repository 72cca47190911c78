"""The baseline of a run: what it is, and that what was saved says the same again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastst.errors import UserError
from fastst.runs.probes import Regression, baselines, fit_regression


def test_it_is_the_softmax_of_standardised_features():
    rng = np.random.default_rng(0)
    mean, scale, weight, x = rng.normal(size=3), rng.uniform(1, 2, 3), rng.normal(size=(4, 2)), rng.normal(size=(5, 3))
    scores = np.array([[sum((x[i, f] - mean[f]) / scale[f] * weight[f, c] for f in range(3)) + weight[3, c] for c in range(2)] for i in range(5)])
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(Regression(mean, scale, weight).probabilities(x).numpy(), expected, rtol=1e-12)


def test_there_and_back_to_the_bit(tmp_path: Path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3)) * [1, 100, 0]
    made = fit_regression(features, rng.integers(0, 3, 40), 3)
    made.save(tmp_path)
    assert torch.equal(Regression.load(tmp_path).probabilities(features), made.probabilities(features))


@pytest.mark.parametrize("text", [None, "[1]", '{"mean": [1]}', '{"mean": ["a"], "scale": [1], "weight": [1]}'])
def test_what_is_missing_or_damaged_is_named(text: str | None, tmp_path: Path):
    if text is not None:
        (tmp_path / "logistic_regression.json").write_text(text)
    with pytest.raises(UserError, match=r"logistic_regression\.json is missing or damaged: .*bring it back, or train again"):
        Regression.load(tmp_path)


def test_baselines_by_hand():
    classes = torch.tensor([0, 0, 0, 1])
    found = baselines(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]).double(), classes)
    assert found["constant"]["balanced_accuracy"] == pytest.approx(1 / 2)
    assert found["logistic_regression"]["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
