"""Which options of a run make its model."""

from __future__ import annotations

from typing import Any

from fastst.config import TrainConfig
from fastst.runs.load import Task

# Those that its weights are of: a model made with others can't have them.
ARCHITECTURE = (
    *("graph", "hops", "layers", "hidden", "frames", "attention", "window", "heads", "encoder_layers"),
    *("joint_embedding", "residual", "readout"),
)
_OTHERS = ("drop", "noise", "estimator", "beta", "tau", "keep_start", "keep", "checkpoint_activations")


def model_arguments(config: TrainConfig, task: Task) -> dict[str, Any]:
    """The arguments of `GraphClassifier` that the options and the data ask for."""
    config = config.settled()
    return {
        "layout": task.walks.layout.to_dict(),
        "num_classes": len(task.class_names),
        "in_channels": task.walks.poses[0].shape[2],
        **{name: getattr(config, name) for name in (*ARCHITECTURE, *_OTHERS)},
    }
