"""Labels of people: a CSV file with one line a person, and the way from its values to classes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastst.data.formats.content import EmptyFileError, encoding_of, head_of
from fastst.data.people import person_key, walk_path
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.errors import visible
from fastst.files import open_file, reading

_FORM = "expected a CSV file with the columns subject,label or walk,subject,label and, if wanted, split and further ones"
_FILES = frozenset(("file", "filename", "file_name", "path", "name", "video", "clip"))  # columns that may name a walk
_LONGEST = 300  # of a file's words in an error
_MAP_FORM = "expected VALUE=CLASS,VALUE=CLASS,... where * stands for all other values, such as 'Healthy=healthy,*=patient'"


@dataclass(frozen=True)
class Labels:
    """What is known of people, or of walks.

    Args:
        source: the file, for messages.
        subjects: everybody in the file.
        attributes: column -> subject, or walk -> value; what has an empty cell is not in it.
        splits: subject -> name of the split; None where the file has no such column.
        walks: walk -> subject, empty where the file does not say, of a file with the column `walk`; None of a file with a line a person.
    """

    source: str
    subjects: tuple[str, ...]
    attributes: dict[str, dict[str, str]]
    splits: dict[str, str] | None
    walks: dict[str, str] | None = None

    def lines_of(self, paths: Sequence[str], names: Sequence[str] | None = None) -> list[str | None]:
        """What the file calls the walks found under `paths`: like them, by their last parts, or by their names.

        Raises:
            DataError: one line fits several paths.
        """
        lines = [self._line_of(path, name) for path, name in zip(paths, names or paths, strict=True)]
        first: dict[str, str] = {}
        for line, path in zip(lines, paths, strict=True):
            if line is not None and first.setdefault(line, path) != path:
                raise DataError(
                    f"{self.source}: the line of the walk {line!r} fits several, such as {first[line]!r} and {path!r}; name the folders too, "
                    f"with a line for each"
                )
        return lines

    def _line_of(self, path: str, name: str) -> str | None:
        places = path.split("/")
        names = ("/".join(places[i:]) for i in range(len(places)))
        return next((text for text in (*names, name) if text in (self.walks or {})), None)


def read_labels(path: str | Path) -> Labels:
    """Read a CSV file with the columns `subject` and `label`, a line a person; `split` and further columns are optional.

    With a column `walk` it has a line a walk: its name, or its file with as many folders as it takes to tell walks apart. `subject` then says who
    walks, and is optional. Every other column but `split` is an attribute. Spaces around values don't count, empty lines neither; fields are parted
    by commas, semicolons or tabs. `001` and `1` are the same person.

    Raises:
        DataError: with file and line: the file can't be read or is empty, there is no column `subject` or `walk`, nothing else is told, a line has
            too many or too few fields or no name or no split, or one appears twice with different values.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path} is empty; {_FORM}")
    header_line, header = rows[0]
    _check_header(path, header_line, header)
    by = "walk" if "walk" in header else "subject"
    lines: dict[str, tuple[int, dict[str, str]]] = {}
    splits: dict[str, tuple[int, str]] = {}
    for line, fields in rows[1:]:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, expected {len(header)} ({','.join(header)})")
        row = dict(zip(header, fields, strict=True))
        if not row[by]:
            raise DataError(f"{path}, line {line}: the {by} is empty; name the {'walk' if by == 'walk' else 'person'} whom this line is about")
        if row.get("split") == "":
            raise DataError(f"{path}, line {line}: the split of {by} {row[by]!r} is empty; name one in every line or leave the column out")
        earlier_line, earlier = lines.setdefault(walk_path(row[by]) if by == "walk" else person_key(row[by]), (line, row))
        for column, value in row.items():
            if column != by and value != earlier[column]:
                raise DataError(
                    f"{path}, line {line}: {by} {row[by]!r} has the {column} {value!r}, but {earlier[column]!r} in line {earlier_line}; "
                    f"give every {by} one line{_as_walk(header)}"
                )
        if subject := row.get("subject"):
            earlier_line, split = splits.setdefault(person_key(subject), (line, row.get("split", "")))
            if split != row.get("split", ""):
                raise DataError(
                    f"{path}, line {line}: subject {subject!r} has the split {row['split']!r}, but {split!r} in line {earlier_line}; one is possible"
                )
    if not lines:
        raise DataError(f"{path} has no line below the header; {_FORM}")

    columns = [column for column in header if column not in ("walk", "subject", "split")]
    found = [row for _, row in lines.values()]
    keys = list(lines) if by == "walk" else [row["subject"] for row in found]
    return Labels(
        source=str(path),
        subjects=tuple(dict.fromkeys(row["subject"] for row in found if row.get("subject"))),
        attributes={column: {key: row[column] for key, row in zip(keys, found, strict=True) if row[column]} for column in columns},
        splits={row["subject"]: row["split"] for row in found if row.get("subject")} if "split" in header else None,
        walks={key: row.get("subject", "") for key, row in zip(keys, found, strict=True)} if by == "walk" else None,
    )


def apply_labels(walks: WalkSet, labels: Labels) -> WalkSet:
    """The walks that `labels` has a line for, with its columns as attributes; a column that the walks already have is replaced.

    Left out, one entry a person or walk, are the walks without a line and the lines without a walk.

    Raises:
        DataError: there is no line for any walk, or for less than half of them, or one line fits several walks.
    """
    lines = _lines(walks, labels)
    kept = [i for i, line in enumerate(lines) if line is not None]
    whom = labels.walks if labels.walks is not None else dict.fromkeys(labels.subjects)
    what = "subject" if labels.walks is None else "walk"
    theirs = walks.subjects if labels.walks is None else walks.names
    used = {lines[i] for i in kept}
    if 2 * len(kept) < len(walks):
        lacking = _some(theirs[i] for i, line in enumerate(lines) if line is None)
        fault = (
            f"its {len(whom)} {what}s are all in the data, and lines are missing for others, such as {lacking}; add a line for each"
            if used.issuperset(whom)
            else f"its {what}s are {_some(whom)}, those of the data without a line are {lacking}; they must be spelled the same"
        )
        raise DataError(
            f"{len(walks) - len(kept)} of {len(walks)} walks have no line in {labels.source}: {fault}. To leave walks out on purpose, give them a "
            "line without a label"
        )
    unlabelled = Counter(theirs[i] for i, line in enumerate(lines) if line is None)
    without_walk = [key for key in whom if key not in used]
    attributes = {column: [values.get(lines[i] or "") for i in kept] for column, values in labels.attributes.items()}
    labelled = walks.take(kept)
    return replace(
        labelled,
        attributes={**labelled.attributes, **attributes},
        left_out=[
            *walks.left_out,
            *(LeftOut(name, f"has {count} walk(s) but no label in {labels.source}") for name, count in unlabelled.items()),
            *(LeftOut(key, f"has a label in {labels.source} but no walk in the data") for key in without_walk),
        ],
    )


def _lines(walks: WalkSet, labels: Labels) -> list[str | None]:
    """For every walk the subject, or the walk, that the labels know it by."""
    if labels.walks is not None:
        paths = walks.paths or walks.names
        return labels.lines_of(paths, walks.names)
    known = {person_key(subject): subject for subject in labels.subjects}
    return [known.get(person_key(subject)) for subject in walks.subjects]


def map_labels(values: Iterable[str | None], label_map: str) -> list[str | None]:
    """The class of every value, by a map such as `Healthy=healthy,*=patient`: an exact match first, `*` for the rest.

    None, a value that is not known, stays None, and so becomes a value that the map has no class for. The empty map changes nothing.

    Raises:
        DataError: the map has another form or names a value twice.
    """
    classes = _classes(label_map)
    if not classes:
        return list(values)
    return [None if value is None else classes.get(value, classes.get("*")) for value in values]


def mapped_values(label_map: str) -> list[str]:
    """The values that a map names; DataError as `map_labels`."""
    return list(_classes(label_map))


def _classes(label_map: str) -> dict[str, str]:
    """Value -> class; empty for the empty map."""
    classes: dict[str, str] = {}
    for item in label_map.split(",") if label_map.strip() else []:
        value, equals, name = (visible(part.strip()) for part in item.partition("="))
        if not value or not equals or not name or "=" in name:
            raise DataError(f"label map {label_map!r}: {item.strip()!r} can't be understood; {_MAP_FORM}")
        if value in classes:
            raise DataError(f"label map {label_map!r} names {value!r} twice; {_MAP_FORM}")
        classes[value] = name
    return classes


def read_rows(path: Path, form: str = _FORM) -> list[tuple[int, list[str]]]:
    """Line number and fields, `visible` and without spaces around them, of every line that is not empty. `form` is what errors call expected."""
    try:
        with reading(path):
            return _rows(path, head_of(path), form)
    except EmptyFileError:
        return []


def _rows(path: Path, head: bytes, form: str) -> list[tuple[int, list[str]]]:
    delimiter = _delimiter(head.decode(encoding_of(head), errors="replace"))
    with io.TextIOWrapper(open_file(path), encoding_of(head), newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            rows = [(reader.line_num, [visible(text.strip()) for text in fields]) for fields in reader]
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; {form}") from None
    return [(line, fields) for line, fields in rows if any(fields)]


def _delimiter(text: str) -> str:
    """The most frequent of the usual ones in the first line with text."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max((",", ";", "\t"), key=first.count)


def _check_header(path: Path, line: int, header: list[str]) -> None:
    where = f"{path}, line {line}"
    found = f"its columns are {', '.join(header)[:_LONGEST]}"
    if not {"subject", "walk"} & set(header):
        raise DataError(f"{where}: no column 'subject'; {found}; {_FORM}{_as_walk(header)}")
    if twice := [column for column, count in Counter(header).items() if count > 1]:
        raise DataError(f"{where}: the column {twice[0]!r} appears more than once; {found}")
    if "" in header:
        raise DataError(f"{where}: column {header.index('') + 1} has no name; {found}")
    if not set(header) - {"subject", "split"} or set(header) == {"walk"}:
        raise DataError(f"{where}: no column with labels; {found}; {_FORM}")


def _as_walk(header: Sequence[str]) -> str:
    """What to do where a column seems to name the walk under another heading."""
    column = next((column for column in header if column.casefold() in _FILES), None) if "walk" not in header else None
    return f"; if a line is a walk, call the column {column!r} `walk`" if column is not None else ""


def _some(subjects: Iterable[str]) -> str:
    """The first few different ones."""
    different = list(dict.fromkeys(subjects))
    return ", ".join(map(repr, different[:5])) + (", ..." if len(different) > 5 else "")
