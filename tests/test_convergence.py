"""Whole small trainings: on every backend the same losses, epoch after epoch, and in the end the same graphs."""

import json
from pathlib import Path

import pytest
import torch

from fastst.config import TrainConfig
from fastst.ops import use_backend
from fastst.runs.graphs import kept_graph_of_walk
from fastst.runs.load import load_task
from fastst.runs.opened import open_run
from fastst.runs.predictions import Asked
from fastst.runs.training import train

SIZES = {"people": 8, "walks_per_person": 2, "frames": 8, "hidden": 8, "heads": 2, "layers": 2, "batch_size": 8, "epochs": 4}
LEARNED = [{}, {"recipe": "paper", "noise": "gumbel", "estimator": "identity", "hops": 2}]


@pytest.fixture(scope="module", params=LEARNED, ids=["default", "paper"])
def of_cpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return request.param, trained(tmp_path_factory.mktemp("run") / "cpu", "cpu", **request.param)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_backends_learn_the_same(backend: str, of_cpu, tmp_path: Path):
    options, (losses, kept, probability) = of_cpu
    found = trained(tmp_path / "run", backend, **options)
    assert len(losses) == SIZES["epochs"]
    assert found[0] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    for mine, other, p, q in zip(kept, found[1], probability, found[2], strict=True):
        torch.testing.assert_close(q, p, atol=1e-3, rtol=0)
        assert 0 < mine.float().mean() < 1
        assert torch.equal(mine, other)


def trained(out: Path, backend: str, **options) -> tuple[list[float], list[torch.Tensor], list[torch.Tensor]]:
    """The epochs' losses, the kept edges of a few walks, and how likely all of their edges are."""
    config = TrainConfig(**{**SIZES, "out": out, **options})
    with use_backend(backend):
        train(config, quiet=True)
        run = open_run(out)
        task = load_task(config)
        graphs = [kept_graph_of_walk(run.model, task, walk, Asked(config.frames, seed=1)) for walk in range(3)]
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return losses, [graph.kept for graph in graphs], [graph.probability for graph in graphs]
