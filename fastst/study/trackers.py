"""Curves of the runs in TensorBoard or Weights & Biases, where these are installed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.runs.trainer import OnEpoch

Tracker = Literal["none", "tensorboard", "wandb"]


def check_tracker(tracker: Tracker) -> None:
    """That it is installed; UserError if not."""
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise UserError(f"--track {tracker}: {tracker} is not installed; pip install {tracker}, here and at every worker")


@contextlib.contextmanager
def tracked(tracker: Tracker, config: TrainConfig, folder: Path) -> Iterator[OnEpoch | None]:
    """What a training calls after every epoch, so that its row of metrics gets there; folds come one after the other. A run that goes on adds to its
    curves."""
    if tracker == "none":
        yield None
    elif tracker == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder / "tensorboard")) as writer:
            yield _each(lambda step, values: [writer.add_scalar(name, value, step) for name, value in values.items()])
    else:
        import wandb

        options = {name: str(value) for name, value in dataclasses.asdict(config).items()}
        with wandb.init(project="fastst", id=folder.name, resume="allow", dir=str(folder), config=options) as run:
            yield _each(lambda step, values: run.log(values, step=step))


def _each(send: Callable[[int, dict[str, float]], Any]) -> OnEpoch:
    """Sends the numbers of every row. Steps are epochs; where these begin again, with another fold, steps go on."""
    last = [0, 0]  # the epoch before, and the steps of the folds before

    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] <= last[0]:
            last[1] += last[0]
        last[0] = row["epoch"]
        send(last[1] + row["epoch"], {name: value for name, value in row.items() if name != "epoch" and isinstance(value, float)})

    return on_epoch
