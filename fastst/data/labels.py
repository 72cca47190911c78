"""Labels of people: a CSV file with one line a person, and the way from its values to classes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastst.data.walks import DataError, LeftOut, WalkSet

_FORM = "expected a CSV file with the columns subject,label and, if wanted, split and further ones"
_MAP_FORM = "expected VALUE=CLASS,VALUE=CLASS,... where * stands for all other values, such as 'Healthy=healthy,*=patient'"


@dataclass(frozen=True)
class Labels:
    """What is known of people.

    Args:
        source: the file, for messages.
        subjects: everybody in the file.
        attributes: column -> subject -> value; a subject whose cell is empty is not in it.
        splits: subject -> name of the split; None where the file has no such column.
    """

    source: str
    subjects: tuple[str, ...]
    attributes: dict[str, dict[str, str]]
    splits: dict[str, str] | None


def read_labels(path: str | Path) -> Labels:
    """Read a CSV file with the columns `subject` and `label`; `split` and further columns are optional.

    Every column other than `subject` and `split` is an attribute. Spaces around values don't count, empty lines neither.

    Raises:
        DataError: with file and line: the file can't be read or is empty, there is no column `subject` or no attribute, a line has too
            many or too few fields or no subject or no split, or a subject appears twice with different values.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path} is empty; {_FORM}")
    header_line, header = rows[0]
    _check_header(path, header_line, header)

    people: dict[str, tuple[int, dict[str, str]]] = {}
    for line, fields in rows[1:]:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, expected {len(header)} ({','.join(header)})")
        person = dict(zip(header, fields, strict=True))
        subject = person.pop("subject")
        if not subject:
            raise DataError(f"{path}, line {line}: the subject is empty; name the person whom this line is about")
        if person.get("split") == "":
            raise DataError(f"{path}, line {line}: the split of subject {subject!r} is empty; name one in every line or leave the column out")
        earlier_line, earlier = people.setdefault(subject, (line, person))
        for column, value in person.items():
            if value != earlier[column]:
                raise DataError(
                    f"{path}, line {line}: subject {subject!r} has the {column} {value!r}, but {earlier[column]!r} in line {earlier_line}; "
                    "give every subject one line"
                )
    if not people:
        raise DataError(f"{path} has no line below the header; {_FORM}")

    columns = [column for column in header if column not in ("subject", "split")]
    return Labels(
        source=str(path),
        subjects=tuple(people),
        attributes={column: {subject: person[column] for subject, (_, person) in people.items() if person[column]} for column in columns},
        splits={subject: person["split"] for subject, (_, person) in people.items()} if "split" in header else None,
    )


def apply_labels(walks: WalkSet, labels: Labels) -> WalkSet:
    """The walks of the people in `labels`, with its columns as attributes; a column that the walks already have is replaced.

    Left out, one entry a person, are the walks of people without labels and the labels of people without a walk.

    Raises:
        DataError: none of the people who walk has labels.
    """
    labelled = set(labels.subjects)
    kept = [i for i, subject in enumerate(walks.subjects) if subject in labelled]
    if not kept:
        raise DataError(
            f"{labels.source} has no subject of the data: its subjects are {_some(labels.subjects)}, those of the data are "
            f"{_some(walks.subjects)}; they must be spelled the same"
        )
    unlabelled = Counter(subject for subject in walks.subjects if subject not in labelled)
    without_walk = [subject for subject in labels.subjects if subject not in set(walks.subjects)]
    subjects = [walks.subjects[i] for i in kept]
    attributes = {column: [values[i] for i in kept] for column, values in walks.attributes.items()}
    attributes |= {column: [values.get(subject) for subject in subjects] for column, values in labels.attributes.items()}
    return WalkSet(
        walks.layout,
        [walks.names[i] for i in kept],
        subjects,
        walks.poses if len(kept) == len(walks) else [walks.poses[i] for i in kept],
        attributes,
        [
            *walks.left_out,
            *(LeftOut(subject, f"has {count} walk(s) but no label in {labels.source}") for subject, count in unlabelled.items()),
            *(LeftOut(subject, f"has a label in {labels.source} but no walk in the data") for subject in without_walk),
        ],
        walks.planted,
    )


def map_labels(values: Iterable[str | None], label_map: str) -> list[str | None]:
    """The class of every value, by a map such as `Healthy=healthy,*=patient`: an exact match first, `*` for the rest.

    None, a value that is not known, stays None, and so becomes a value that the map has no class for. The empty map changes nothing.

    Raises:
        DataError: the map has another form or names a value twice.
    """
    if not label_map.strip():
        return list(values)
    classes: dict[str, str] = {}
    for item in label_map.split(","):
        value, equals, name = (part.strip() for part in item.partition("="))
        if not value or not equals or not name or "=" in name:
            raise DataError(f"label map {label_map!r}: {item.strip()!r} can't be understood; {_MAP_FORM}")
        if value in classes:
            raise DataError(f"label map {label_map!r} names {value!r} twice; {_MAP_FORM}")
        classes[value] = name
    return [None if value is None else classes.get(value, classes.get("*")) for value in values]


def read_rows(path: Path, form: str = _FORM) -> list[tuple[int, list[str]]]:
    """Line number and fields, without spaces around them, of every line that is not empty. `form` is what an error says was expected."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [text.strip() for text in fields]) for fields in reader]
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}; {form}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; {form}") from None
    return [(line, fields) for line, fields in rows if any(fields)]


def _check_header(path: Path, line: int, header: list[str]) -> None:
    where = f"{path}, line {line}"
    found = f"its columns are {', '.join(header)}"
    if "subject" not in header:
        raise DataError(f"{where}: no column 'subject'; {found}; {_FORM}")
    if twice := [column for column, count in Counter(header).items() if count > 1]:
        raise DataError(f"{where}: the column {twice[0]!r} appears more than once; {found}")
    if "" in header:
        raise DataError(f"{where}: column {header.index('') + 1} has no name; {found}")
    if not set(header) - {"subject", "split"}:
        raise DataError(f"{where}: no column with labels; {found}; {_FORM}")


def _some(subjects: Iterable[str]) -> str:
    """The first few different ones."""
    different = list(dict.fromkeys(subjects))
    return ", ".join(map(repr, different[:5])) + (", ..." if len(different) > 5 else "")
