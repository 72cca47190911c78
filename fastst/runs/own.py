"""The walks that a finished run was trained and tested on."""

from __future__ import annotations

from fastst.errors import UserError
from fastst.runs.load import Task, load_task
from fastst.runs.opened import TrainedModel, for_model
from fastst.runs.trainer import fingerprint


def own_task(trained: TrainedModel, known_as: int | None) -> Task:
    """The walks of the run, read again and known by their fingerprint.

    Args:
        known_as: what the run's summary says under `data`; None where it says nothing.

    Raises:
        UserError: they can't be read, or have changed.
    """
    loaded = load_task(trained.config, layout=trained.model.graph.layout, min_classes=1)
    if known_as is not None and fingerprint(loaded) != known_as:
        raise UserError(f"the walks in {trained.config.data} have changed since the model was trained on them: bring them back, or train again")
    return for_model(loaded, trained)
