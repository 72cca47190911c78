"""For scripts and notebooks: load walks, train, load a run, predict and explain, without a command line. Quiet, and with paths as strings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastst.config import RECIPES, TrainConfig
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.options import ReadOptions
from fastst.data.read import read_walks
from fastst.data.walks import WalkSet
from fastst.errors import UserError
from fastst.files import is_there
from fastst.nn import GraphClassifier
from fastst.runs.edges import edge_table
from fastst.runs.evaluation import evaluate_models
from fastst.runs.folder import as_written, read_summary
from fastst.runs.graphs import KeptGraph, kept_graphs_of_walks
from fastst.runs.opened import TrainedModel, labelled_task, open_models, open_run, unlabelled_task
from fastst.runs.unlabelled import predicted_rows

if TYPE_CHECKING:
    import pyarrow as pa

_FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def load_walks(path: str | Path, **options: Any) -> WalkSet:
    """Walks of a file or folder in any form that `fastst.train` reads: poses `[T, J, D]`, names, people, and what is known of them.

    Args:
        options: of `fastst.train`, about how files are read: `name_pattern=`, `tracks="all"`, `image_size=(1920, 1080)`, `joints=`,
            `min_confidence=`, `up=`.

    Raises:
        DataError: nothing is there, or it can't be used; the message says where and why.
        TypeError: an option that does not exist.

    Examples:
        >>> import fastst
        >>> walks = fastst.load_walks("walks.npz")
        >>> len(walks), walks.layout.name, walks.poses[0].shape
        (8, 'coco17', (16, 17, 2))
    """
    return read_walks(path, ReadOptions(**options), progress=False)


def fit(data: str | Path | WalkSet, out: str | Path, *, on_epoch: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> Run:
    """Trains, tests and explains, as `python -m fastst.train` does; everything lands in the folder `out`.

    Args:
        data: a file or folder of walks, walks, or "synthetic". Walks that are given as such are written beside `out`, where the run finds them again.
        out: a new folder.
        on_epoch: called after every epoch with its row of metrics: `epoch`, `loss`, `seconds`, and now and then `macro_f1`.
        options: of `fastst.train`, with underscores: `labels="labels.csv"`, `target="sex"`, `recipe="paper"`, `epochs=10`.

    Returns:
        The run. With `folds` its scores are of everybody, each judged by the fold that was not trained on that person (the means of the folds' own
        scores are under `mean_of_folds`), and each fold is a run of its own: `load_run(out / "fold-1")`.

    Raises:
        UserError: an option that does not exist or of a wrong value, data that can't be used, a folder that is taken.

    Examples:
        >>> import fastst
        >>> small = {"graph": "fixed", "hidden": 8, "layers": 1, "frames": 12, "epochs": 1}
        >>> run = fastst.fit("walks.npz", "runs/mine", **small)
        >>> run.summary["classes"], run.summary["train_walks"]
        (['female', 'male'], 6)
    """
    from fastst.explanation.report import EXPLAINED  # only now: what draws takes a second
    from fastst.runs.training import train

    unknown = sorted(set(options) - set(_FIELDS) | set(options) & {"out", "data", "resume"})
    if unknown:
        raise UserError(f"there is no option {unknown[0]!r}; the options are {', '.join(sorted(set(_FIELDS) - {'out', 'data', 'resume'}))}")
    recipe = options.get("recipe", TrainConfig.recipe)
    if recipe not in RECIPES:
        raise UserError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
    out = Path(out)
    file = out.with_name(f"{out.name}.walks.npz")  # of walks that are given as such: beside the folder, which has to be new
    known = {name: _plain(value) for name, value in options.items()}
    known |= {"out": out, "data": str(file if isinstance(data, WalkSet) else data)}
    config = dataclasses.replace(TrainConfig.with_recipe(recipe), **known)
    if isinstance(data, WalkSet):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.touch(exist_ok=False)
        except FileExistsError:
            raise UserError(f"{file} exists: the walks of another run; choose another out, or delete it") from None
    try:
        if isinstance(data, WalkSet):
            write_walks_npz(file, data)
        train(config, EXPLAINED, on_epoch=on_epoch, quiet=True)
    except BaseException:
        if isinstance(data, WalkSet) and not is_there(out / "config.json"):  # no run was begun that would need them
            file.unlink(missing_ok=True)
        raise
    return load_run(out)


def load_run(folder: str | Path) -> Run:
    """A run of `fit` or of `python -m fastst.train`, or one of its folds.

    Raises:
        UserError: it holds no run.

    Examples:
        >>> import fastst
        >>> run = fastst.load_run("runs/mine")
        >>> rows = run.predict("walks.npz")
        >>> rows[0]["walk"], sorted(rows[0]["probabilities"])
        ('001-nm-01-000', ['female', 'male'])
    """
    folder = Path(folder)
    summary = read_summary(folder)
    if summary is None:
        raise UserError(f"{folder} holds no finished run of fastst.train (no summary.json)")
    return Run(folder, summary)


@dataclass(frozen=True)
class Explanation:
    """What decided, and whether that may be said.

    Attributes:
        verdict: the sentence that may be quoted.
        audit: everything behind it, as under `audit` in `summary.json`.
        edges: walk, frame, from, to, offset, probability, kept: a row for every edge of the walks that were given; None without walks.
    """

    verdict: str
    audit: dict[str, Any]
    edges: pa.Table | None


@dataclass(frozen=True)
class Run:
    """A trained, tested and explained model in its folder.

    Attributes:
        folder: where everything is.
        summary: scores, audit and, where joints were planted, the truth: what is in `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]

    @cached_property
    def _models(self) -> list[TrainedModel]:
        return open_models(self.folder)

    @cached_property
    def _opened(self) -> TrainedModel:
        return open_run(self.folder)

    @property
    def model(self) -> GraphClassifier:
        return self._opened.model

    def predict(self, data: str | Path | WalkSet) -> list[dict[str, Any]]:
        """Of every walk: fold, walk, subject, class (None), predicted, probabilities, kept_share, and edges: the slots of which something was kept,
        most first.

        Of a run with folds it is the mean of what the folds' models say.

        Raises:
            UserError: walks of another skeleton.
        """
        return list(predicted_rows(self._models, unlabelled_task(_walks(data, self._models[0]), self._models[0])))

    def evaluate(
        self,
        data: str | Path | WalkSet,
        labels: str | Path | None = None,
        label_map: str | None = None,
        by: Sequence[str] = (),
        other_people: bool = False,
    ) -> dict[str, Any]:
        """The score on walks whose classes are known, as `python -m fastst.evaluate` writes it: of people who had no part in the model, those who
        had one under `trained_on`, apart; where all had one, the score is theirs, and `on` says so. With folds, everybody out of fold.

        Args:
            labels, label_map, by, other_people: as in `fastst.evaluate`.

        Raises:
            UserError: walks of another skeleton, without classes or with others; an attribute in `by` that they don't have.
        """
        walks = data if isinstance(data, WalkSet) else str(data)
        task = labelled_task(walks, self._models[0], None if labels is None else str(labels), label_map, progress=False)
        return evaluate_models(self._models, task, by, other_people)

    def graphs(self, data: str | Path | WalkSet) -> list[KeptGraph]:
        """What was kept of every walk's graph, for other libraries: `edge_index()`, `to_networkx()`, `save("walk.graphml")`.

        Raises:
            UserError: a run with folds, of which one has to be loaded; walks of another skeleton.
        """
        trained = self._opened
        return list(kept_graphs_of_walks(trained.model, unlabelled_task(_walks(data, trained), trained), trained.asked))

    def explain(self, data: str | Path | WalkSet | None = None) -> Explanation:
        """The audit of the run and, of walks that are given, every edge.

        Raises:
            UserError: the run has no audit; walks of another skeleton.
        """
        audit = self.summary.get("audit", {"error": "it was trained for comparison only, and not audited"})
        with as_written(self.folder):
            if "error" in audit:
                raise UserError(f"{self.folder} has no audit: {audit['error']}")
            sentence = audit["verdict"]["sentence"]
        edges = None
        if data is not None:
            trained = self._opened
            edges = edge_table(trained.model, unlabelled_task(_walks(data, trained), trained), trained.asked)
        return Explanation(sentence, audit, edges)


def _plain(value: Any) -> Any:
    """An option as a command line gives it: lists as tuples, paths as strings."""
    return tuple(value) if isinstance(value, list) else str(value) if isinstance(value, Path) else value


def _walks(data: str | Path | WalkSet, trained: TrainedModel) -> WalkSet:
    return data if isinstance(data, WalkSet) else read_walks(data, trained.config, progress=False)
