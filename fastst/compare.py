"""`python -m fastst.compare`: runs side by side, and whether they differ on the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Column, Table

from fastst.errors import run_command, visible
from fastst.runs.comparison import compare
from fastst.runs.lock import owned_around
from fastst.runs.scores import known_in_words
from fastst.runs.tables import check_table_file, write_table

_SCORES = ("balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class CompareConfig:
    """Put runs beside each other: their scores with 95 % intervals, and what differs in their options.

    Every one is compared with the first on the people tested on in both: how much larger a person's share of right answers
    is, classes weighed alike, and how often that would be as far from 0 by chance (signs flipped, two-sided; of each comparison alone).
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of finished runs of fastst.train, the one to compare with first; of runs with folds the whole, or one fold of each."""
    out: Path | None = None
    """Also write the table into this .csv or .json file."""


def main(arguments: Sequence[str] | None = None) -> None:
    config = tyro.cli(CompareConfig, prog="python -m fastst.compare", args=arguments)
    if config.out is not None:
        check_table_file(config.out)
    with owned_around(config.out):
        rows = compare(config.runs)
        _print(rows)
        if config.out is not None:
            write_table(config.out, rows, [_flat(row) for row in rows])
            print(f"everything is in {visible(str(config.out))}")


def _print(rows: list[dict[str, Any]]) -> None:
    console = Console(soft_wrap=True, markup=False, emoji=False)
    run = Column("run", overflow="fold")  # whole, however narrow the terminal
    table = Table(run, "people", "balanced accuracy (95 % interval)", "macro F1 (95 % interval)", "edges kept")
    for row in rows:
        scores = (_score(row, name) for name in _SCORES)
        table.add_row(row["run"], str(row["people"]), *scores, f"{row['kept_share']:.0%}")
    console.print(table)
    for row in rows:
        if row["known_to_init"]:
            print(f"{row['run']}: {known_in_words(row['known_to_init'], row['people'])}")
    for row in rows if rows[0]["options"] else ():
        print(f"{row['run']}: " + ", ".join(f"{name} {visible(str(value))}" for name, value in row["options"].items()))
    first, *others = rows
    for row in others:
        paired = row["against_first"]
        print(
            f"{row['run']} against {first['run']}: {paired['difference']:+.3f} in a person's share of right answers, p {paired['p_value']:.4f} "
            f"({paired['people']} people tested on in both), classes weighed alike; by chance alone p is below 0.05 in one comparison of twenty"
        )


def _score(row: dict[str, Any], name: str) -> str:
    inside = row[f"{name}_interval"]
    return f"{row[name]:.3f}" + (" (too few people)" if inside is None else " ({:.2f} to {:.2f})".format(*inside))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a CSV file: a column for every number."""
    flat = {name: row[name] for name in ("run", "walks", "people")}
    for name in _SCORES:
        low, high = row[f"{name}_interval"] or ("", "")
        flat |= {name: row[name], f"{name}_low": low, f"{name}_high": high}
    paired = row["against_first"] or dict.fromkeys(("people", "difference", "p_value"), "")
    return (
        flat
        | {name: row[name] for name in ("kept_share", "known_to_init")}
        | row["options"]
        | {f"{name}_against_first": value for name, value in paired.items()}
    )


if __name__ == "__main__":
    run_command(main)
