"""What models say of walks whose class is not known, and which edges they kept to say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastst.graph import SkeletonGraph
from fastst.runs.load import Task
from fastst.runs.opened import TrainedModel
from fastst.runs.outcomes import prediction
from fastst.runs.predictions import predict_walks


def predicted_rows(models: Sequence[TrainedModel], task: Task) -> Iterator[dict[str, Any]]:
    """Of every walk a `prediction` without a class, and kept_share, and edges, the slots of which something was kept, most first.

    With several models, those of a run with folds, the means over them. The task is one of `unlabelled_task`.
    """
    fold = "+".join(trained.fold for trained in models)
    for walk, (name, subject) in enumerate(zip(task.walks.names, task.walks.subjects, strict=True)):
        said = [predict_walks(trained.model, task, [walk], trained.asked) for trained in models]
        mean = torch.stack([predictions.probabilities[0] for predictions in said]).mean(0)
        row = prediction(fold, name, subject, None, dict(zip(task.class_names, mean.tolist(), strict=True)))
        kept, existing = (torch.stack([getattr(predictions.kept, what).sum(0) for predictions in said]).sum(0) for what in ("kept", "existing"))
        share = (kept.sum() / existing.sum().clamp(min=1)).item()
        yield row | {"kept_share": share, "edges": _kept_edges(models[0].model.graph, kept, existing)}


def _kept_edges(graph: SkeletonGraph, kept: Tensor, existing: Tensor) -> list[dict[str, Any]]:
    """Joints, frame offset, and in which share of the frames. Counts `[P]` twice."""
    joints = graph.layout.joints
    rows = [
        {"from": joints[src], "to": joints[dst], "offset": offset, "kept_share": n / max(of, 1)}
        for src, dst, offset, n, of in zip(
            graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), kept.tolist(), existing.tolist(), strict=True
        )
        if n > 0
    ]
    return sorted(rows, key=lambda row: -row["kept_share"])
