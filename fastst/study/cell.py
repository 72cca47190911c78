"""One run of a grid, in the process of a worker: the training, and what the report needs beside its audit."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from fastst.config import TrainConfig
from fastst.data.batches import even_windows
from fastst.explanation.profiles import SIDES
from fastst.explanation.report import EXPLAINED, examine
from fastst.files import is_there
from fastst.nn.rankings import first_of, ranking, share_of
from fastst.ops import mean_average_distance
from fastst.ops.random import edge_uniform
from fastst.runs.folder import read_summary, write_text
from fastst.runs.lock import InUseError
from fastst.runs.metrics import KeptEdges
from fastst.runs.predictions import batches, evaluating, predict_walks
from fastst.runs.trainer import Finished
from fastst.runs.training import train
from fastst.study.grid import make_folder, of_a_cell
from fastst.study.trackers import Tracker, tracked

THINNED = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)  # shares of all edges that are left when they are removed at random
_PAUSE = 5.0  # seconds


def run_cell(config: str, folder: str, threads: int, tracker: Tracker = "none") -> float:
    """Trains the run of a cell to its end, from where it was left; a finished one is left as it is. Returns the seconds that it took here.

    While another process writes in the folder, a worker that was given up for dead, say, it is waited for.

    Args:
        config: its options, as `TrainConfig.to_json` writes them.
        folder: its folder, which every worker sees.
        threads: of torch, for this process.
        tracker: where its curves go to.

    Raises:
        WriteError: nothing can be written here.
        UserError: as of `fastst.train`, or its summary is damaged.
    """
    started = time.perf_counter()
    torch.set_num_threads(threads)
    place = Path(folder)
    with of_a_cell():
        while read_summary(place) is None:
            try:
                _train(config, place, tracker)
            except InUseError:
                time.sleep(_PAUSE)
    return time.perf_counter() - started


def _train(config: str, place: Path, tracker: Tracker) -> None:
    make_folder(place)
    options = TrainConfig.from_json(config, place).settled()
    # Whatever somebody left here who was stopped, it goes on from there: the folder's name says that the options are the same.
    if not is_there(place / "config.json"):
        write_text(place / "config.json", options.to_json())
    with tracked(tracker, options, place) as on_epoch:
        train(options, dataclasses.replace(EXPLAINED, of_fold=look), on_epoch=on_epoch, quiet=True)


def look(finished: Finished) -> dict[str, Any]:
    """The audit, and under `study` what the figures of the paper show: kept shares of every joint by class, and MAD of thinned graphs."""
    kept = predict_walks(finished.model, finished.task, finished.test_walks, finished.asked).kept
    return examine(finished) | {"study": {"joints": joints_by_class(kept), "thinned": thinned_distances(finished)}}


def joints_by_class(edges: KeptEdges) -> dict[str, dict[str, dict[str, float]]]:
    """Class -> joint -> the share that is kept of the edges that it sends to other joints, and of those that it receives from them."""
    src, dst = edges.graph.src.long(), edges.graph.dst.long()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for c, name in enumerate(edges.class_names):
        found[name] = {}
        for j, joint in enumerate(edges.graph.layout.joints):
            sides = {side: (end == j) & (src != dst) for side, end in zip(SIDES, (src, dst), strict=True)}
            found[name][joint] = {side: (edges.kept[c, of].sum() / edges.existing[c, of].sum().clamp(min=1)).item() for side, of in sides.items()}
    return found


@torch.no_grad()
def thinned_distances(finished: Finished) -> dict[str, Any]:
    """Mean MAD of the test windows when the trained classifier sees edges chosen at random, with equal chances for all: `as_many` as the run keeps,
    and `mad` for the `shares` of all edges. What thinning alone does to MAD is not what learning does to it."""
    model, task, asked = finished.model, finished.task, finished.asked
    windows = even_windows(task.lengths, finished.test_walks, asked.frames)
    found: dict[float | str, list[torch.Tensor]] = {}
    with evaluating(model) as device:
        for batch in batches(task, windows, asked.frames, asked.batch_size, device):
            poses = model.prepared(batch.poses, batch.lengths)
            existing = model.source.existing(poses, batch.lengths)
            options: dict[str, Any] = {"seed": asked.seed, "sample_ids": batch.sample_ids, "evaluation": asked.evaluation}
            kept = model.source(poses, batch.lengths, **options).kept.sum((1, 2))
            order = ranking(edge_uniform(asked.seed + 1, batch.sample_ids, existing.shape[1], existing.shape[2], False), existing)
            total = existing.sum((1, 2))
            counts: dict[float | str, torch.Tensor] = {"as_many": kept, **{share: share_of(total, share) for share in THINNED}}
            for name, count in counts.items():
                _, embedding = model.downstream(poses, first_of(order, count, existing), batch.lengths)
                found.setdefault(name, []).append(mean_average_distance(embedding, batch.lengths).cpu())
    mean = {name: torch.cat(parts).mean().item() for name, parts in found.items()}
    return {"as_many": mean["as_many"], "shares": list(THINNED), "mad": [mean[share] for share in THINNED]}
