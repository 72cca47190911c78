"""Results as a file whose kind its name says: .csv or .json."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastst.errors import UserError
from fastst.files import is_there, open_file, write_atomically
from fastst.runs.folder import write_json

PROBABILITY = "probability_"  # before the name of a class
PICTURES = (".png", ".svg", ".pdf")
_OF_A_RUN = (
    "predictions.csv",
    "summary.json",
    "split.json",
    "config.json",
    "left_out.json",
    "metrics.jsonl",
    "model.safetensors",
    "checkpoint.safetensors",
    "walks_seen.json",
    "logistic_regression.json",
    "learning_curve.png",
    "initial_adjacency.png",
    "audit.png",
    "kept_of_joints.png",
    "walk_with_kept_edges.png",
)


def check_table_file(path: Path, *read: str | Path | None) -> None:
    """That a file can be written as a table, and takes the place of nothing that is needed.

    Raises:
        UserError: the name ends in anything but .csv or .json; or as of `check_not_needed`.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"--out {path} is of no kind that can be written; name a file that ends in .csv or .json")
    check_not_needed(path, *read, option="--out")


def check_not_needed(path: Path, *read: str | Path | None, option: str, is_ours: Callable[[Path], bool] | None = None) -> None:
    """That a file can be written, is not one of a run's own, none of those that are read nor among them, and replaces only what fastst wrote.

    Args:
        read: files and folders.
        is_ours: whether a file that is there is of the kind to be written; left out, results and pictures are.

    Raises:
        UserError: it is not so.
    """
    if not is_there(path.parent):
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it, or give another name")
    there, place = is_there(path), path.resolve()  # what a link leads to is what would be replaced
    if _is_of_a_run(place):
        what = "is a file of the run itself, which would be lost" if there else "has the name of a file that the run itself writes"
        raise UserError(f"{option} {path} {what}; give another name")
    for other in (Path(other) for other in read if other is not None and is_there(Path(other))):
        if there and (path.samefile(other) or _is_within(place, other)):
            raise UserError(f"{option} {path} is what is read, and would be lost; give another name")
        if _is_within(place, other):
            raise UserError(f"{option} {path} would lie among the data in {other}, and be read with it the next time; give a place outside of it")
    if there and not (is_ours or _is_result)(path):
        raise UserError(f"{option} {path} is there already, and not a file that fastst wrote; give another name, or delete it")


def _is_of_a_run(place: Path) -> bool:
    """Whether it has the name of a file that is in every run, be it there yet or not."""
    return place.name in _OF_A_RUN and any(is_there(place.parent / name) for name in ("config.json", "split.json"))


def _is_within(place: Path, folder: Path) -> bool:
    return folder.is_dir() and place.is_relative_to(folder.resolve())


def _is_result(path: Path) -> bool:
    """Whether a file looks like results, which may be replaced by newer ones."""
    with open_file(path) as file:
        head = file.read(1 << 16)
        file.seek(max(path.stat().st_size - (1 << 16), 0))
        tail = file.read()
    if path.suffix.lower() in PICTURES:
        return any(b"atplotlib" in part for part in (head, tail))  # which signs what it draws
    return not head.strip() or any(word in part for word in (b"probabilit", b"balanced_accuracy") for part in (head, tail))


def write_table(path: Path, value: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `value` as JSON, or the rows as CSV, by the file's name.

    Raises:
        UserError: another ending, or the file can't be written.
    """
    check_table_file(path)
    if path.suffix.lower() == ".json":
        write_json(path, value)
    else:
        write_rows(path, rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file, written whole or not at all. The `probabilities` of a row are a column `probability_<class>` for every class; None is empty."""
    flat = [_flat(row) for row in rows]
    header = list(dict.fromkeys(name for row in flat for name in row))
    write_atomically(path, partial(_write, header=header, rows=flat))


def _write(part: Path, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "probabilities":
            flat |= {f"{PROBABILITY}{of}": probability for of, probability in value.items()}
        elif isinstance(value, bool):
            flat[name] = "yes" if value else "no"
        else:
            flat[name] = value
    return flat
