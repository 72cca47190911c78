"""A training that is small, and has walks enough for an audit."""

from pathlib import Path

from fastst.config import TrainConfig


def tiny(out: Path, **options) -> TrainConfig:
    sizes = {"people": 16, "walks_per_person": 2, "frames": 16, "hidden": 8, "heads": 2, "layers": 2, "encoder_layers": 0, "batch_size": 8}
    return TrainConfig(**{**sizes, "epochs": 2, "out": out, **options})
