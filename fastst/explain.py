"""`python -m fastst.explain`: a page that plays walks and shows what decided."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from fastst.cpu.memory import keep_freed_memory
from fastst.data.options import OtherFiles
from fastst.data.read import read_walks
from fastst.errors import UserError, run_command, visible
from fastst.explanation.exports import SHEETS, TABLES, VIDEOS, ShownWalk, check_ending, is_export, write_kept_edges, write_sheet, write_video
from fastst.explanation.page.build import Beside, Told, page
from fastst.explanation.page.chosen import check_size, chosen
from fastst.explanation.page.entries import Entry, entries_of
from fastst.explanation.page.words import of_run, of_walk
from fastst.files import open_file
from fastst.graph import SkeletonGraph
from fastst.nn import LearnedGraph
from fastst.runs.folder import as_written, read_summary, write_text
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out
from fastst.runs.load import Task
from fastst.runs.lock import owned_around
from fastst.runs.opened import TrainedModel, labelled_task, open_models, unlabelled_task
from fastst.runs.own import own_task
from fastst.runs.tables import check_not_needed
from fastst.runs.trainer import fingerprint

_GENERATOR = b'<meta name="generator" content="fastst '


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(OtherFiles):
    """Write a page that plays walks with the edges that were kept, and says what these are worth. One file, which needs no network."""

    run: Path
    """Folder of a run of fastst.train. Of a run with folds every walk is judged by the fold that was not trained on its person."""
    data: str | None = None
    """Walks in any form that fastst.train reads; left out, those that the run was tested on."""
    labels: str | None = None
    """CSV file with the columns subject,label for data that brings no labels; without any, classes are not known."""
    label_map: str | None = None
    """Which labels make a class; left out, as in training."""
    walk: tuple[str, ...] = ()
    """Names of walks; left out, all."""
    most: int = 0
    """At most so many walks, of as many people as can be, evenly spread; 0: all, unless that is too much for a page."""
    other_people: bool = False
    """These are other people than those of the run, though some have the same names."""
    beside: Path | None = None
    """Folder of another run with the same skeleton: what it says of the same walks, and the edges that it kept, stand beside."""
    out: Path
    """The .html file that is written."""
    video: Path | None = None
    """With one --walk: also write a video of it into this .gif file, or .mp4 where ffmpeg is installed."""
    sheet: Path | None = None
    """With one --walk: also write a sheet of its frames for print into this .png, .svg or .pdf file."""
    edges: Path | None = None
    """With one --walk: also write its kept edges into this .csv, .graphml or .json file."""


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    config = tyro.cli(ExplainConfig, prog="python -m fastst.explain", args=arguments)
    _check_options(config)
    with owned_around(config.out, *(path for path, _, _, _ in _taken(config))):
        _explain(config)


def _check_options(config: ExplainConfig) -> None:
    """That they go together; nothing has been read yet."""
    if config.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {config.out} is of no kind that a page can be written as; name a file that ends in .html")
    if config.most < 0:
        raise UserError(f"--most must be a number of walks, or 0 for all, got {config.most}")
    if config.data is None and (config.labels is not None or config.label_map is not None):
        raise UserError("--labels and --label-map are for --data; the run's own walks have their classes")
    if config.data == "synthetic":
        raise UserError("--data synthetic has no file; leave --data out for the walks that the run was tested on")
    read = (config.data, config.labels)
    check_not_needed(config.out, *read, option="--out", is_ours=_is_page)
    if config.data is not None:
        check_left_out_file(config.out, *read)
    for path, what, endings, _ in _taken(config):
        if len(config.walk) != 1:
            raise UserError(f"--{what} is of one walk; name it with --walk")
        check_ending(path, endings, {"video": "a video", "sheet": "a sheet of frames", "edges": "kept edges"}[what])
        check_not_needed(path, *read, option=f"--{what}", is_ours=is_export)


def _taken(config: ExplainConfig) -> list[tuple[Path, str, tuple[str, ...], Callable[[Path, ShownWalk], None]]]:
    """What is written beside the page: where, as which option, with which endings, and by what."""
    every = (
        (config.video, "video", VIDEOS, write_video),
        (config.sheet, "sheet", SHEETS, write_sheet),
        (config.edges, "edges", TABLES, write_kept_edges),
    )
    return [(path, what, endings, write) for path, what, endings, write in every if path is not None]


def _is_page(path: Path) -> bool:
    with open_file(path) as file:
        return _GENERATOR in file.read(1 << 12)


def _explain(config: ExplainConfig) -> None:
    models = open_models(config.run)
    others = [] if config.beside is None else _same_graph(config.beside, models[0].model.graph)
    why = _no_edges(models[0])
    if why is not None and _taken(config):
        raise UserError(f"{why} There is nothing to take away but the page: leave --video, --sheet and --edges out")
    task, labelled, walks = _walks(config, models)
    if config.data is not None:
        for line in report_left_out(task.walks.left_out, left_out_file(config.out)):
            print(line, file=sys.stderr)
    walks = chosen(task, walks, config.walk, config.most)
    check_size(task, walks, models[0].model.graph.num_slots * (1 if config.beside is None else 2))
    entries = entries_of(models, task, walks, labelled, config.other_people)
    told = _told(config.run, models[0], task)
    beside = None if config.beside is None else _beside(config, config.beside, others, task, walks)
    write_text(config.out, page(entries, models[0].model.graph, task.class_names, told, task.truth, beside))
    size = config.out.stat().st_size / 1e6
    for path, what, _, write in _taken(config):
        write(path, _shown(entries[0], task, models[0].model.graph, told))
        print(f"--{what} of {visible(entries[0].name)}: {visible(str(path))}")
    told_of = f"{len(entries)} walks, with what decided, are" if len(entries) > 1 else f"{visible(entries[0].name)}, with what decided, is"
    print(f"{told_of} in {visible(str(config.out))} ({size:.1f} MB): open it in a browser")


def _no_edges(trained: TrainedModel) -> str | None:
    """Why there are none to be shown."""
    if isinstance(trained.model.source, LearnedGraph):
        return None
    return f"The graph of this run was not learned (--graph {trained.config.graph}): no edge was chosen, so none is shown."


def _told(run: Path, trained: TrainedModel, task: Task) -> Told:
    name, data = visible(run.resolve().name), f"{fingerprint(task):08x}"
    return Told(name, trained.config.seed, data, of_run(_audit(run)), _no_edges(trained), tuple(task.walks.notes))


def _same_graph(run: Path, graph: SkeletonGraph) -> list[TrainedModel]:
    """The models of another run, of which a slot means the same."""
    models = open_models(run)
    other = models[0].model.graph
    for what, mine, its in (("joints", graph.layout.joints, other.layout.joints), ("edges between them", _slots(graph), _slots(other))):
        if mine != its:
            raise UserError(
                f"--beside {run} has another skeleton than --run: {len(its)} {what}, which are not the {len(mine)} of the other; edges stand beside "
                "each other only where both runs have the same: name a run with the same layout and options of the graph"
            )
    return models


def _slots(graph: SkeletonGraph) -> list[tuple[int, ...]]:
    return list(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True))


def _beside(config: ExplainConfig, run: Path, models: list[TrainedModel], task: Task, walks: list[int]) -> Beside:
    """What another run says of the same walks."""
    same, labelled, _ = _walks(config, models)
    if fingerprint(same) != fingerprint(task):
        raise UserError(
            f"--beside {run} has other walks, or other classes, than --run: name a run of the same data, or the walks of both with --data"
        )
    return Beside(_told(run, models[0], same), entries_of(models, same, walks, labelled, config.other_people))


def _shown(entry: Entry, task: Task, graph: SkeletonGraph, told: Told) -> ShownWalk:
    assert entry.edges is not None  # of a graph that was learned
    said = of_walk(entry, task.class_names).sentences[0]
    probability, kept = np.nan_to_num(entry.edges.probability), entry.edges.kept
    return ShownWalk(entry.name, graph, task.walks.poses[entry.walk], kept, probability, said, told.verdict["quote"], entry.fps)


def _audit(run: Path) -> dict[str, Any] | None:
    with as_written(run):
        return (read_summary(run) or {}).get("audit")


def _walks(config: ExplainConfig, models: list[TrainedModel]) -> tuple[Task, bool, list[int]]:
    """The walks, whether their classes are known, and the numbers of those that are asked for where none are named."""
    if config.data is None:
        task = own_task(models[0], (read_summary(models[0].folder) or {}).get("data"))
        tested: set[str] = set().union(*(_split(trained).test for trained in models))
        return task, True, [i for i, who in enumerate(task.walks.subjects) if config.walk or who in tested]
    if config.labels is not None:
        task, labelled = labelled_task(config.data, models[0], config.labels, config.label_map, files=config), True
    else:
        walks = read_walks(config.data, config.over(models[0].config))
        labelled = models[0].config.target in walks.attributes
        task = labelled_task(walks, models[0], None, config.label_map, files=config) if labelled else unlabelled_task(walks, models[0])
    return task, labelled, list(range(len(task.walks)))


def _split(trained: TrainedModel) -> Any:
    if trained.split is None:
        raise UserError(f"{trained.folder} has no split.json, which says whom it was trained on: bring it back, or train it again")
    return trained.split


if __name__ == "__main__":
    run_command(main)
