"""What models said of walks: the table of predictions, in which all that predict write the same columns, and the scores where classes are known."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastst.errors import UserError, visible
from fastst.files import is_there, open_file, reading
from fastst.runs.folder import WRITE_AGAIN
from fastst.runs.metrics import classification_metrics, mean_over_groups
from fastst.runs.tables import PROBABILITY, write_rows

PREDICTIONS = "predictions.csv"  # in the folder of a run
_MOST_ROUNDING = 1e-3  # by which probabilities, float32 or written by hand, may miss the sum 1
_COLUMNS = ("fold", "walk", "subject", "class", "predicted")  # and the probabilities


def prediction(fold: str, walk: str, subject: str, true: str | None, probabilities: Mapping[str, float]) -> dict[str, Any]:
    """A row of a table of predictions: fold, walk, subject, class (None where it is not known), predicted, and the probability of every class."""
    likeliest = max(probabilities, key=probabilities.__getitem__)
    return dict(zip(_COLUMNS, (fold, walk, subject, true, likeliest), strict=True)) | {"probabilities": dict(probabilities)}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """A row for every walk.

    Attributes:
        class_names: names of the classes, in the order of their numbers.
        folds: whose model said it: number of a fold, several with + between them, 0 in a run without folds.
        walks: name of every walk.
        subjects: who walks.
        classes: number of the true class.  # [n]
        probabilities: what was said.  # [n, classes]
    """

    class_names: list[str]
    folds: list[str]
    walks: list[str]
    subjects: list[str]
    classes: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.walks)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class, the first of equal ones.  # [n]"""
        return self.probabilities.argmax(1)

    def chosen(self, rows: Sequence[int] | np.ndarray) -> Outcomes:
        """The rows of these numbers."""
        folds, walks, subjects = ([column[row] for row in rows] for column in (self.folds, self.walks, self.subjects))
        return Outcomes(self.class_names, folds, walks, subjects, self.classes[rows], self.probabilities[rows])

    def of_people(self) -> Outcomes:
        """A row for every person, with the mean of the probabilities of that one's walks; the walk has the person's name.

        Somebody whose walks are of several classes (conditions, say) has a row in each.
        """
        keys = list(zip(self.subjects, self.classes.tolist(), strict=True))
        place = {key: i for i, key in enumerate(sorted(set(keys)))}
        group = np.array([place[key] for key in keys], np.int64)
        mean = mean_over_groups(torch.from_numpy(self.probabilities), group, len(place)).numpy()
        fold_of = dict(zip(keys, self.folds, strict=True))
        subjects = [subject for subject, _ in place]
        return Outcomes(self.class_names, [fold_of[key] for key in place], subjects, subjects, np.array([c for _, c in place], np.int64), mean)

    def metrics(self) -> dict[str, Any]:
        """`classification_metrics` of the walks, and under `per_person` of the people; how many there are."""
        people = self.of_people()
        return {
            **_metrics(self),
            "per_person": _metrics(people),
            "walks": len(self),
            "people": len(set(self.subjects)),
        }

    def rows(self) -> list[dict[str, Any]]:
        """A `prediction` for every walk."""
        columns = (self.folds, self.walks, self.subjects, self.classes.tolist(), self.probabilities.tolist())
        return [
            prediction(fold, walk, subject, self.class_names[true], dict(zip(self.class_names, probabilities, strict=True)))
            for fold, walk, subject, true, probabilities in zip(*columns, strict=True)
        ]

    def person_rows(self) -> list[dict[str, Any]]:
        """subject, class, predicted, probabilities and walks (how many) of every person."""
        count = Counter(zip(self.subjects, self.classes.tolist(), strict=True))
        people = self.of_people()
        told = ("subject", "class", "predicted", "probabilities")
        return [
            {name: row[name] for name in told} | {"walks": count[row["subject"], true]}
            for row, true in zip(people.rows(), people.classes.tolist(), strict=True)
        ]


def together(parts: Sequence[Outcomes]) -> Outcomes:
    """The rows of all parts, which have the same classes."""
    folds, walks, subjects = ([text for part in parts for text in getattr(part, name)] for name in ("folds", "walks", "subjects"))
    classes, probabilities = (np.concatenate([getattr(part, name) for part in parts]) for name in ("classes", "probabilities"))
    return Outcomes(parts[0].class_names, folds, walks, subjects, classes, probabilities)


def write_outcomes(path: Path, outcomes: Outcomes) -> str:
    """A CSV file with the columns fold, walk, subject, class, predicted, and `probability_<class>` for every class. Returns its SHA-256."""
    write_rows(path, outcomes.rows())
    return _checksum(path)


def read_outcomes(path: Path, checksum: str | None = None) -> Outcomes:
    """What `write_outcomes` wrote; with the checksum that it returned, just that.

    Raises:
        UserError: with file and line: it is not there, not such a table, or makes no sense: probabilities that don't sum to 1, or a predicted class
            that isn't the likeliest. Or another checksum.
    """
    if not is_there(path):
        raise UserError(f"{path} doesn't exist; a finished run of fastst.train has one: finish it with --resume")
    if checksum is not None and _checksum(path) != checksum:
        raise UserError(f"{path} is damaged, or was changed: its checksum isn't that in the summary; {WRITE_AGAIN}")
    with reading(path), io.TextIOWrapper(open_file(path), "utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, [visible(field) for field in fields]) for fields in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} is not a table of predictions: {error}; {WRITE_AGAIN}") from None
    if not lines:
        raise UserError(f"{path} is not a table of predictions: it is empty; {WRITE_AGAIN}")
    header, *lines = lines
    columns = header[1]
    names = [column.removeprefix(PROBABILITY) for column in columns if column.startswith(PROBABILITY)]
    missing = [column for column in _COLUMNS if column not in columns]
    if missing or not names or not lines:
        what = f"no column {missing[0]!r}" if missing else "no column probability_<class>" if not names else "no walk"
        raise UserError(
            f"{path} is not a table of predictions, which has a line for every walk and the columns {','.join(_COLUMNS)},…: {what}; {WRITE_AGAIN}"
        )
    rows = [_row(path, line, columns, fields, names) for line, fields in lines]
    folds, walks, subjects, classes, probabilities = zip(*rows, strict=True)
    return Outcomes(names, list(folds), list(walks), list(subjects), np.array(classes, np.int64), np.array(probabilities, np.float64))


def _row(path: Path, line: int, columns: list[str], fields: list[str], names: list[str]) -> tuple[str, str, str, int, list[float]]:
    try:
        row = dict(zip(columns, fields, strict=True))
        probabilities = [float(row[PROBABILITY + name]) for name in names]
        _check_sense(row["predicted"], dict(zip(names, probabilities, strict=True)))
        return row["fold"], row["walk"], row["subject"], names.index(row["class"]), probabilities
    except ValueError as error:
        raise UserError(f"{path}, line {line} is not one of a table of predictions: {error}; {WRITE_AGAIN}") from None


def _check_sense(predicted: str, probabilities: Mapping[str, float]) -> None:
    """ValueError if it is nothing that a model says."""
    total = sum(probabilities.values())
    if not (min(probabilities.values()) >= 0 and abs(total - 1) <= _MOST_ROUNDING):  # nor where one is NaN
        raise ValueError(f"probabilities are 0 or more and sum to 1, these are {', '.join(map(str, probabilities.values()))} and sum to {total:g}")
    if probabilities.get(predicted) != max(probabilities.values()):
        raise ValueError(f"predicted is {predicted!r}, which is not the likeliest class")


def _checksum(path: Path) -> str:
    with reading(path), open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _metrics(outcomes: Outcomes) -> dict[str, Any]:
    return classification_metrics(torch.from_numpy(outcomes.probabilities), torch.from_numpy(outcomes.classes))
