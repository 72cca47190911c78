"""What to run, as it is asked for: a preset, a TOML file, axes and options on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from fastst import files
from fastst.config import RECIPES, TrainConfig
from fastst.errors import UserError
from fastst.study.grid import PRESETS, Axes, Grid, check_axis, options_of, paper_axes, whole_path

_TABLES = ("preset", "options", "axes")


def asked_grid(preset: str | None, file: Path | None, axes: Sequence[str], recipe: str | None, words: list[str], program: str) -> Grid | None:
    """The grid that is asked for; None where nothing is said of one.

    Args:
        preset: name of a preset.
        file: TOML with any of `preset`, `[options]` and `[axes]`, each of which takes the place of that axis of the preset; or with `[[axes]]`,
            blocks that are crossed one by one, in place of the preset's.
        axes: such as "layers=2,4"; each takes the place of that axis in all blocks.
        recipe: where the options start from.
        words: options of fastst.train, which go before those of the file.
        program: how the command is called.

    Raises:
        UserError: an axis or option that there is none of, a value of another kind, a file that can't be read.
    """
    if preset is None and file is None and recipe is None and not axes and not words:
        return None
    told = {} if file is None else _read(file)
    preset = preset or told.get("preset")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"the preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    options = {name: _checked(name, value) for name, value in told.get("options", {}).items()}
    of_file = told.get("axes", {})
    blocks = [_block(block) for block in of_file] if isinstance(of_file, list) else []
    replaced = (_block(of_file) if isinstance(of_file, dict) else {}) | dict(_axis(text) for text in axes)
    if not blocks and (preset is not None or not replaced):
        preset = preset or "small"
        blocks = list(paper_axes())
    blocks = [{**block, **replaced} for block in blocks or [{}]]
    of_preset = PRESETS.get(preset or "", {})
    recipe = recipe or options.pop("recipe", TrainConfig.recipe)
    if recipe not in RECIPES:
        raise UserError(f"--recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
    default = TrainConfig.with_recipe(recipe, **{**of_preset, **options})
    shared = options_of(tyro.cli(TrainConfig, prog=program, args=words, default=default))
    twice = sorted({name for block in blocks for name in block if name in shared and shared[name] != of_preset.get(name)} - {"recipe"})
    if twice:
        raise UserError(f"{twice[0]} is an axis and an option; leave one of them out")
    return Grid(shared, tuple(blocks))


def _read(file: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(files.read_text(file, "--file takes a TOML file"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--file {file} is no TOML: {error}") from None
    except RecursionError:
        raise UserError(f"--file {file} can't be read: its lists are nested too deep") from None
    unknown = [name for name in told if name not in _TABLES]
    if unknown:
        raise UserError(f"--file {file}: {unknown[0]!r} is not known; there are {', '.join(_TABLES)}")
    blocks = told.get("axes", {})
    whole = all(isinstance(block, dict) for block in (blocks if isinstance(blocks, list) else [blocks]))
    if not whole or not isinstance(told.get("options", {}), dict):
        raise UserError(f"--file {file}: options and axes are tables, such as [axes] and below it layers = [2, 4]")
    return told


def _axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """layers=2,4 as a name and its values."""
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals:
        raise UserError(f"--axes {text} must be an option and its values, such as layers=2,4")
    try:
        return name, _values(name, tomllib.loads(f"values = [{values}]")["values"])
    except tomllib.TOMLDecodeError:  # names without quotes
        return name, _values(name, [value.strip() for value in values.split(",")])


def _block(values: dict[str, Any]) -> Axes:
    return {name: _values(name, of_axis) for name, of_axis in values.items()}


def _values(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise UserError(f"the axis {name!r} must have a list of values, got {values!r}")
    return tuple(_checked(name, value) for value in values)


def _checked(name: str, value: Any) -> Any:
    """The value of an option, as a run takes it; UserError for an option that there isn't, and for a value of another kind."""
    check_axis(name)
    kind = get_type_hints(TrainConfig)[name]
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        value = float(value)
    if not _is_of(value, kind):
        raise UserError(f"{name} can't be {value!r}; it is {_kind_in_words(kind)}")
    return whole_path(name, value)


def _is_of(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin in (Union, UnionType):
        return any(_is_of(value, part) for part in parts)
    if origin is tuple:
        wanted = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is_of, value, wanted))
    return value is None if kind is type(None) else type(value) is kind


def _kind_in_words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return names.get(kind, "a list" if get_origin(kind) is tuple else "a text or a list")
