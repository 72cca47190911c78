"""Every edge of a walk in a table: how likely it was to be kept, and whether it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from fastst.data.batches import even_windows
from fastst.errors import UserError
from fastst.files import write_atomically
from fastst.nn import GraphClassifier
from fastst.runs.load import Task
from fastst.runs.predictions import Asked, batches, evaluating

_COLUMNS = pa.schema(
    [
        ("walk", pa.string()),
        ("frame", pa.int32()),
        ("from", pa.string()),
        ("to", pa.string()),
        ("offset", pa.int32()),
        ("probability", pa.float32()),
        ("kept", pa.bool_()),
    ]
)
_WRITERS: dict[str, Callable[..., Any]] = {".csv": pyarrow.csv.CSVWriter, ".parquet": pyarrow.parquet.ParquetWriter}


def write_edges(path: Path, model: GraphClassifier, task: Task, asked: Asked) -> None:
    """A row for every edge of every walk that the model looked at: walk, frame in which it ends, its joints, frame offset, probability, kept.

    An edge that two windows show is that of the first; one that leads from a window to the next was looked at by neither.

    Raises:
        UserError: the file is neither .csv nor .parquet, or can't be written.
    """
    check_edges_file(path)

    def write(part: Path) -> None:
        with _WRITERS[path.suffix.lower()](str(part), _COLUMNS) as writer:
            for walk in range(len(task.walks)):
                for table in _tables(model, task, walk, asked):
                    writer.write_table(table)

    write_atomically(path, write)


def edge_table(model: GraphClassifier, task: Task, asked: Asked) -> pa.Table:
    """The same rows in memory."""
    return pa.concat_tables([_COLUMNS.empty_table(), *(table for walk in range(len(task.walks)) for table in _tables(model, task, walk, asked))])


def check_edges_file(path: Path) -> None:
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"--edges {path} is of no kind that can be written; name a file that ends in .csv or .parquet")


class WindowEdges(NamedTuple):
    """What a model said of the edges of one window, all `[P, T]`."""

    start: int
    probability: np.ndarray
    kept: np.ndarray
    new: np.ndarray  # the edges that exist, and that no window before it had


@torch.no_grad()
def edges_of_windows(model: GraphClassifier, task: Task, walk: int, asked: Asked) -> Iterator[WindowEdges]:
    """Window by window of a walk."""
    windows = even_windows(task.lengths, [walk], asked.frames)
    seen = np.zeros((model.graph.num_slots, max(task.lengths[walk], asked.frames)), bool)
    with evaluating(model) as device:
        for batch in batches(task, windows, asked.frames, asked.batch_size, device):
            output = model(batch.poses, batch.lengths, seed=asked.seed, sample_ids=batch.sample_ids, evaluation=asked.evaluation)
            probability = model.probability(batch.poses, batch.lengths).cpu().numpy()
            exists = model.source.existing(batch.poses, batch.lengths).bool().cpu().numpy()
            for b, start in enumerate(batch.start.tolist()):
                here = seen[:, start : start + exists.shape[2]]
                new = exists[b] & ~here
                yield WindowEdges(start, probability[b], output.kept[b].bool().cpu().numpy(), new)
                here |= new


def _tables(model: GraphClassifier, task: Task, walk: int, asked: Asked) -> Iterator[pa.Table]:
    for window in edges_of_windows(model, task, walk, asked):
        yield _table(model, task.walks.names[walk], *window)


def _table(model: GraphClassifier, name: str, start: int, probability: np.ndarray, kept: np.ndarray, chosen: np.ndarray) -> pa.Table:
    """The chosen edges of one window, all `[P, T]`, frame by frame."""
    frame, slot = np.nonzero(chosen.T)
    joints, graph = np.array(model.graph.layout.joints), model.graph
    src, dst, offset = (tensor.numpy()[slot] for tensor in (graph.src, graph.dst, graph.offset))
    columns = [np.full(len(slot), name), frame + start, joints[src], joints[dst], offset, probability[slot, frame], kept[slot, frame]]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, _COLUMNS, strict=True)], _COLUMNS)
