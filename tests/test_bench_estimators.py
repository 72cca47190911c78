"""The measurement of estimators: what it compares with, and a table and a picture that are written."""

import sys

import pytest
import torch
from graphs import generator

from bench import estimators
from fastst.ops import sample_k_edges


def test_the_contender_is_simple():
    theta = torch.randn(3, 12, dtype=torch.float64, generator=generator()).requires_grad_()
    toward = torch.randn(3, 12, dtype=torch.float64, generator=generator(1))
    kept, marginals = estimators.simple_in_torch(theta, 5, 2)
    _, wanted, _ = sample_k_edges(theta, estimators.star(12), 5, seed=0)
    assert (kept.sum(-1).round() == 5).all()
    torch.testing.assert_close(marginals, wanted)
    for result in (marginals, kept[1]):
        found = torch.autograd.grad((result * toward).sum(), theta, retain_graph=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad((wanted * toward).sum(), theta, retain_graph=True)[0])


@pytest.mark.parametrize("loss", estimators.losses().values(), ids=estimators.losses())
def test_the_exact_gradient_is_that_of_the_log_probabilities(loss):
    """Which is unbiased: within five standard errors. SIMPLE is where the loss is linear, and elsewhere not."""
    found = estimators.quality("reinforce, less the mean loss", loss, 20_000)
    assert found.bias < 5 * found.error
    assert found.cosine > 0.99


def test_simple_is_exact_for_a_linear_loss_alone():
    linear, *others = [estimators.quality("simple", loss, 5000) for loss in estimators.losses().values()]
    assert linear.bias < 1e-10
    assert linear.spread < 1e-10
    assert all(other.bias > 5 * other.error for other in others)


def test_writes_a_table_and_a_picture(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["estimators", "--report", str(tmp_path), "--draws", "50", "--repeats", "1"])
    monkeypatch.setattr(estimators, "SIZES", (30,))
    try:
        estimators.main()
    finally:
        torch.set_num_threads(threads)
    text = (tmp_path / "estimators.md").read_text()
    for name in (*estimators.ESTIMATORS, "times as long"):
        assert name in text
    assert (tmp_path / "estimators.png").stat().st_size > 1000
