"""What of somebody's data is not used: in a few lines, a reason each, and whole in a file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from fastst.data.walks import LeftOut
from fastst.errors import DataError
from fastst.files import read_json
from fastst.runs.folder import write_json
from fastst.runs.tables import check_not_needed

LEFT_OUT = "left_out.json"  # in the folder of a run
_MOST_LINES = 10
_ALSO_NAMED = 3  # beside the first of a reason
# What differs between two reasons of one kind: paths, what is quoted, and numbers.
_PARTICULAR = re.compile(r"[^\s:,;]*[/\\][^:,;]*|'[^']*'|\"[^\"]*\"|\d[\d.]*")


def left_out_file(out: Path | None) -> Path | None:
    """Where a command writes what it left out: beside its results, under their name."""
    return None if out is None else out.with_name(f"{out.stem}.{LEFT_OUT}")


def check_left_out_file(out: Path | None, *read: str | Path | None) -> None:
    """That the file can be written; in a folder of walks it may lie, where it is not read.

    Raises:
        UserError: as of `check_not_needed`.
    """
    file = left_out_file(out)
    if file is not None:
        files = [other for other in read if other is not None and not Path(other).is_dir()]
        check_not_needed(file, *files, option=f"a list of what is left out goes beside {out}, but", is_ours=_is_list)


def report_left_out(left_out: Sequence[LeftOut], file: Path | None) -> list[str]:
    """Lines for the user, ten at most, one for a reason, the most frequent first. The whole list goes into the file, if there is one.

    Raises:
        WriteError: the file can't be written.
    """
    if not left_out:
        return []
    groups: dict[str, list[LeftOut]] = {}
    for item in left_out:
        groups.setdefault(_kind(item), []).append(item)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = [_line(items) for items in ordered]
    if len(lines) > _MOST_LINES:
        rest = ordered[_MOST_LINES - 1 :]
        lines = [*lines[: _MOST_LINES - 1], f"left out: {sum(map(len, rest))} more, for {len(rest)} other reasons"]
    if file is not None:
        write_json(file, [dataclasses.asdict(item) for item in left_out])
    if len(lines) < len(left_out):
        where = f"all {len(left_out)} are listed in {file}" if file is not None else f"--out writes the list of all {len(left_out)} beside its file"
        lines[-1] += f"; {where}"
    return lines


def _is_list(file: Path) -> bool:
    """Whether it is what `report_left_out` writes."""
    try:
        items = read_json(file, "expected a list of what was left out")
    except DataError:
        return False
    fields = {field.name for field in dataclasses.fields(LeftOut)}
    return isinstance(items, list) and all(isinstance(item, dict) and item.keys() == fields for item in items)


def _kind(item: LeftOut) -> str:
    """The reason without what is particular to this item."""
    return _PARTICULAR.sub("…", item.reason.replace(item.name, "…"))


def _line(items: Sequence[LeftOut]) -> str:
    first, *others = items
    line = f"left out: {first.name}: {first.reason}"
    if not others:
        return line
    named, more = others[:_ALSO_NAMED], len(others) - _ALSO_NAMED
    return f"{line} ({len(items)} are left out for such a reason, also {', '.join(item.name for item in named)}{f' and {more} more' * (more > 0)})"
