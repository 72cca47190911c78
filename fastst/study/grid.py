"""A grid of runs: axes crossed over the options of `fastst.train`; every cell is a run in a folder that is named by what it is."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastst import __version__
from fastst.config import RECIPES, TrainConfig
from fastst.errors import UserError
from fastst.files import WriteError, is_there, open_file, read_json
from fastst.runs.folder import read_summary, write_json
from fastst.runs.lock import LOCK, InUseError

Axes = dict[str, tuple[Any, ...]]  # option -> its values

_FORM = "fastst grid 1"
_MANIFEST = "grid.json"
_NO_GRID = "bring it back from a copy, or name another --out"
FILES = ("data", "labels", "layout", "joints", "split_file", "init")  # options that may name a file or a folder
_NOT_OF_A_RUN = ("out", "resume", "cuda_graph")
_ADDRESS = 16  # hexadecimal digits


def paper_axes() -> tuple[Axes, ...]:
    """The 81 runs of the paper's study: Figs. 4 and 5, and Table I."""
    return (
        {"graph": ("fixed", "learned"), "layers": (2, 4, 8, 16), "hops": (1, 2, 3), "seed": (0, 1, 2)},
        {"graph": ("random",), "drop": (0.25, 0.5, 0.75), "layers": (16,), "hops": (1,), "seed": (0, 1, 2)},
    )


# What a preset says otherwise than the recipe. `small`: 81 runs within 75 minutes on two cores.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"epochs": 50, "batch_size": 32},
    "small": {"walks_per_person": 4, "frames": 40, "hidden": 16, "epochs": 16},
}


@dataclass(frozen=True)
class Cell:
    """One run of a grid: its address, and its options, of which `out` is its folder."""

    address: str
    config: TrainConfig

    @property
    def folder(self) -> Path:
        return self.config.out

    def summary(self) -> dict[str, Any] | None:
        """That of the finished run; None before it is finished."""
        return read_summary(self.folder)

    def is_finished(self) -> bool:
        """Whether it has a summary that can be read: of a damaged one its worker says what is wrong."""
        try:
            return self.summary() is not None
        except UserError:
            return False


@dataclass(frozen=True)
class Grid:
    """Options that all cells share, and blocks of axes, each of which is crossed by itself.

    An option that is neither shared nor an axis is as the recipe has it. Cells that occur in several blocks are run once; a share of edges to drop is
    one of random graphs alone, an estimator one of learned graphs.
    """

    options: dict[str, Any]
    blocks: tuple[Axes, ...]

    def __post_init__(self) -> None:
        for axes in self.blocks:
            for name, values in axes.items():
                check_axis(name)
                if not values:
                    raise UserError(f"the axis {name!r} has no values: the grid is empty; give it some, or leave it out")
        if not self.blocks:
            raise UserError("the grid is empty: it has no axes; name some with --axes, such as layers=2,4, or take a --preset")

    @property
    def axes(self) -> list[str]:
        """Names of all axes, in the order in which they first occur."""
        return list(dict.fromkeys(name for axes in self.blocks for name in axes))

    def cells(self, folder: Path) -> list[Cell]:
        """Every run once, those of the first seed first, with folders below `folder`.

        Raises:
            UserError: options that don't go together.
        """
        cells = {cell.address: cell for cell in (_cell(config, folder) for config in self._configs())}
        return sorted(cells.values(), key=lambda cell: cell.config.seed)

    def _configs(self) -> Iterator[TrainConfig]:
        for axes in self.blocks:
            for values in itertools.product(*axes.values()):
                chosen = dict(zip(axes, values, strict=True))
                options = {**self.options, **chosen}
                graph = options.get("graph", TrainConfig.graph)
                for name, of in _OF_ONE_GRAPH.items():
                    if graph != of:
                        options.pop(name, None)
                try:
                    yield TrainConfig.with_recipe(options.pop("recipe", TrainConfig.recipe), **options)
                except UserError as error:
                    raise UserError(f"the run with {in_words(chosen)} can't be: {error}") from None


_OF_ONE_GRAPH = {"drop": "random", "estimator": "learned"}  # options that other graphs have no use for


def in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def options_of(config: TrainConfig) -> dict[str, Any]:
    """What the options say otherwise than their recipe; files by their whole path, so that they are found from everywhere."""
    recipe = TrainConfig.with_recipe(config.recipe)
    found = {name: whole_path(name, getattr(config, name)) for name in fields() if getattr(config, name) != getattr(recipe, name)}
    return found | {"recipe": config.recipe}


def whole_path(name: str, value: Any) -> Any:
    """The value of an option; of one that names a file, its whole path."""
    return str(Path(value).resolve()) if name in FILES and value and Path(value).exists() else value


def check_axis(name: str) -> None:
    """That an option of a run is called so; UserError if not."""
    if name not in fields():
        near = difflib.get_close_matches(name, fields(), n=1)
        raise UserError(f"the axis {name!r} is no option of a run of fastst.train" + (f"; is it {near[0]!r}?" if near else "; see its --help"))


def open_grid(folder: Path, grid: Grid | None) -> tuple[Grid, list[Cell]]:
    """The grid in `folder` with its cells, which is begun there if it is a new one; None: the grid that is there.

    Raises:
        UserError: the folder holds a grid of another version of fastst, another grid, or something else; its data have changed; there is no grid.
    """
    path = folder / _MANIFEST
    if not is_there(path):
        if grid is None:
            raise UserError(
                f"--out {folder} holds no grid of fastst.experiments (no {_MANIFEST}); name its folder, or say with --preset or --axes what to run"
            )
        _check_new(folder)
        cells = grid.cells(folder)
        make_folder(folder)
        write_json(path, _manifest(grid, cells))
        return grid, cells
    before = read_json(path, _NO_GRID)
    _check_form(path, before)
    with _as_saved(path):
        return _saved_grid(folder, before, grid)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those around it, if it isn't there; WriteError if that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} can't be made: {error.strerror}; make room for it there, or name another --out") from None


@contextmanager
def of_a_cell() -> Iterator[None]:
    """Errors of a run, which advise to go on with fastst.train, say how a grid goes on.

    Raises:
        UserError: in place of one. What is wrong with the machine, and not with the run, is raised as it was.
    """
    try:
        yield
    except (InUseError, WriteError):
        raise
    except UserError as error:
        raise UserError(f"{error}. In a grid not fastst.train --resume, but the same fastst.experiments command goes on") from error


def _check_new(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir()))
    except OSError as error:
        raise UserError(f"--out {folder} can't be used: {error.strerror}; name another folder") from None
    if taken:
        raise UserError(f"--out {folder} exists and holds no grid of fastst.experiments; name a new folder")


@contextmanager
def _as_saved(path: Path) -> Iterator[None]:
    """What goes wrong with fields of a manifest that are of another kind becomes an error that names it."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is not the manifest of a grid as fastst.experiments writes it ({why}); {_NO_GRID}") from None


def _saved_grid(folder: Path, before: dict[str, Any], grid: Grid | None) -> tuple[Grid, list[Cell]]:
    """The grid of a manifest, with its cells; `grid` is what is asked for."""
    saved = Grid(_as_options(before["options"]), tuple({name: _as_values(values) for name, values in axes.items()} for axes in before["axes"]))
    if grid is not None and (changed := _changes(saved, grid)):
        raise UserError(f"--out {folder} holds another grid: {changed}. Leave that out to go on with it, or name a new folder")
    cells = saved.cells(folder)
    now = _manifest(saved, cells)
    if now["data"] != before["data"]:
        changed = next(name for name in {**before["data"], **now["data"]} if now["data"].get(name) != before["data"].get(name))
        raise UserError(f"{changed} has changed or gone since the grid in {folder} was begun: bring it back, or begin again in a new folder")
    if now["cells"] != before["cells"]:
        raise UserError(f"{folder / _MANIFEST} and the runs that it asks for don't go together; it was changed by hand. Begin again in a new folder")
    return saved, cells


def _manifest(grid: Grid, cells: list[Cell]) -> dict[str, Any]:
    value = {
        "format": _FORM,
        "fastst": __version__,
        "options": grid.options,
        "axes": grid.blocks,
        "data": {name: digest for cell in cells for name, digest in _digests(cell.config).items()},
        "cells": {cell.address: {name: getattr(cell.config, name) for name in grid.axes} for cell in cells},
    }
    return json.loads(json.dumps(value))  # as it is read again: tuples are lists


def _check_form(path: Path, manifest: Any) -> None:
    keys = {"format", "fastst", "options", "axes", "data", "cells"}
    if not isinstance(manifest, dict) or manifest.get("format") != _FORM or set(manifest) != keys:
        raise UserError(f"{path} is not the manifest of a grid of fastst.experiments; {_NO_GRID}")
    if manifest["fastst"] != __version__:
        raise UserError(
            f"{path.parent} is a grid of fastst {manifest['fastst']}, and this is {__version__}: their numbers must not be mixed. Name a new "
            "--out, or finish it with that version"
        )


def _changes(saved: Grid, asked: Grid) -> str:
    """What the two say differently; nothing where they are the same."""
    names = sorted(name for name in {*saved.options, *asked.options} if saved.options.get(name) != asked.options.get(name))
    if names:
        there, here = ({**TrainConfig().__dict__, **RECIPES[grid.options.get("recipe", "default")], **grid.options} for grid in (saved, asked))
        return "; ".join(f"{name} is {there[name]} there, {here[name]} was asked for" for name in names)
    if saved.blocks != asked.blocks:
        axes_there, axes_here = ("; ".join(in_words({k: list(v) for k, v in axes.items()}) for axes in grid.blocks) for grid in (saved, asked))
        return f"its axes are {axes_there}, and {axes_here} was asked for"
    return ""


def _as_options(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _as_values(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _cell(config: TrainConfig, folder: Path) -> Cell:
    """A run's address: a hash of its options, of what is in the files that they name, and of the version of fastst."""
    named = json.dumps([json.loads(config.to_json()), _digests(config), __version__], sort_keys=True)
    address = hashlib.sha256(named.encode()).hexdigest()[:_ADDRESS]
    return Cell(address, dataclasses.replace(config, out=folder / "cells" / address))


def _digests(config: TrainConfig) -> dict[str, str]:
    """A hash of what is in every file and folder that the options name."""
    named = [str(value) for name in FILES if (value := getattr(config, name))]
    return {name: _digest(Path(name)) for name in named if Path(name).exists() and name != "synthetic"}


@cache
def _digest(path: Path) -> str:
    found = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        found.update(os.fsencode(f"{file.relative_to(path)}\0{file.stat().st_size}\0"))
        with open_file(file) as content:
            while block := content.read(1 << 20):
                found.update(block)
    return found.hexdigest()


@cache
def fields() -> tuple[str, ...]:
    """Names of the options that say what a run is."""
    return tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in _NOT_OF_A_RUN)
