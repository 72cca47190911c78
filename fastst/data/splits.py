"""Who is trained on and who is tested on. Always by person: nobody is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fastst.data.labels import read_rows
from fastst.data.people import person_key
from fastst.data.walks import DataError
from fastst.files import is_there, read_json

PAPER_TEST_SHARE = 32 / 124  # CASIA-B: 92 people to train on, 32 to test on
_CASIA_B_PEOPLE, _CASIA_B_TRAINED = 124, 74
_SIDES = ("train", "validation", "test")
_SPLIT_FORM = "expected the split.json of a run, or a CSV file with the columns subject,split whose words are train, validation and test"


@dataclass(frozen=True)
class Split:
    """People to train on, people to test on, and people neither trained nor tested on, who choose among the epochs' models; and, where a training
    starts from another run's model, the people who had a part in that one."""

    train: frozenset[str]
    test: frozenset[str]
    validation: frozenset[str] = frozenset()
    initial: frozenset[str] = frozenset()

    @cached_property
    def seen(self) -> frozenset[str]:
        """Everybody who has a part in the model, as `person` writes them."""
        return frozenset(person(name) for side in (self.train, self.validation, self.initial) for name in side)

    @property
    def known(self) -> frozenset[str]:
        """Who of those tested on had a part in the model that the training starts from."""
        initial = {person(name) for name in self.initial}
        return frozenset(name for name in self.test if person(name) in initial)


def person(name: str) -> str:
    """A name as it is compared: 001 and 1 are the same person."""
    return (name.lstrip("0") or "0") if name.isdecimal() else name


def class_of_people(subjects: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """The most frequent class of every person's walks; the first in the alphabet of several."""
    counts: dict[str, Counter[str]] = {}
    for subject, label in zip(subjects, classes, strict=True):
        counts.setdefault(subject, Counter())[label] += 1
    return {subject: min(count, key=lambda label: (-count[label], label)) for subject, count in sorted(counts.items())}


def balanced_split(people: dict[str, str], seed: int) -> Split:
    """The paper's: about 32 of 124 people to test on, equally many of every class (16 men and 16 women), the others to train on.

    A class with a single person is trained on only.

    Raises:
        DataError: no class has two people.
    """
    counts = Counter(people.values())
    names = sorted(name for name, members in counts.items() if members > 1)
    if not names:
        raise DataError(f"every class has a single person ({len(people)} people); to train and to test on different people it takes two of a class")
    per_class = max(1, min(round(len(people) * PAPER_TEST_SHARE / len(names)), min(counts[name] for name in names) // 2))
    test = {person for name in names for person in _shuffled(people, name, seed)[:per_class]}
    return Split(frozenset(set(people) - test), frozenset(test))


def folds(people: dict[str, str], count: int, seed: int) -> list[Split]:
    """`count` splits in which everybody is tested on once; every class is spread evenly over the folds.

    Raises:
        DataError: fewer people in a class than folds.
    """
    smallest, members = _smallest_class(people)
    if members < count:
        raise DataError(f"class {smallest!r} has {members} person(s), too few for {count} folds; use at most {members}")
    fold_of: dict[str, int] = {}
    for name in sorted(set(people.values())):
        for person in _shuffled(people, name, seed):
            fold_of[person] = len(fold_of) % count
    return [Split(frozenset(p for p in people if fold_of[p] != fold), frozenset(p for p in people if fold_of[p] == fold)) for fold in range(count)]


def set_aside(split: Split, people: dict[str, str], share: float, seed: int) -> Split:
    """The split with a share of every class's people to train on, one at least, kept aside for validation.

    Raises:
        DataError: a class has a single person to train on.
    """
    aside: set[str] = set()
    for name in sorted({people[person] for person in split.train}):
        members = _shuffled({person: people[person] for person in split.train}, name, seed)
        if len(members) < 2:
            raise DataError(f"class {name!r} has a single person to train on, which leaves nobody for --validation; leave it out")
        aside |= set(members[: min(max(1, round(share * len(members))), len(members) - 1)])
    return Split(split.train - aside, split.test, frozenset(aside))


def deal_anew(people: dict[str, str], seed: int) -> dict[str, str]:
    """The people with each other's classes: a control, in which nothing is left to be found."""
    names = list(people)
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    return {name: people[names[i]] for name, i in zip(names, order, strict=True)}


def split_from_labels(people: dict[str, str], splits: dict[str, str] | None) -> Split:
    """The column `split` of a labels file: `train` or `test` for every person.

    Raises:
        DataError: there is no such column, another word in it, or a side without people.
    """
    if splits is None:
        raise DataError("--split labels needs a labels file with a column `split` that says train or test for every subject")
    side_of = {person_key(person): side for person, side in splits.items()}
    unknown = {person: word for person in people if (word := side_of.get(person_key(person))) not in ("train", "test")}
    if unknown:
        person, word = next(iter(unknown.items()))
        raise DataError(f"the split of subject {person!r} is {word!r}; it must be train or test ({len(unknown)} subject(s) like this)")
    split = Split(*(frozenset(p for p in people if side_of[person_key(p)] == side) for side in ("train", "test")))
    for side, members in (("train", split.train), ("test", split.test)):
        if not members:
            raise DataError(f"the labels file puts nobody into the split `{side}`; it needs people of both")
    return split


def casia_b_split(people: dict[str, str]) -> Split:
    """CASIA-B's usual protocol: people 1 to 74 to train on, 75 to 124 to test on, whatever zeros are before the number.

    Raises:
        DataError: somebody has no such number, or nobody is on one of the sides.
    """
    numbers = {name: int(name) if name.isdecimal() and len(name) < 10 else 0 for name in people}
    if strange := [name for name, number in numbers.items() if not 1 <= number <= _CASIA_B_PEOPLE]:
        raise DataError(
            f"--split casia-b needs people who are called 1 to {_CASIA_B_PEOPLE} (001 to {_CASIA_B_PEOPLE}), but {len(strange)} of the {len(people)} "
            f"people are called otherwise, such as {strange[0]!r}; leave --split out, or say who is tested on with --split-file"
        )
    split = Split(*(frozenset(name for name, n in numbers.items() if (n <= _CASIA_B_TRAINED) == trained) for trained in (True, False)))
    for side, members, wanted in (("train", split.train, "1 to 74"), ("test", split.test, "75 to 124")):
        if not members:
            raise DataError(f"--split casia-b has nobody to {side} on: none of the {len(people)} people has a number from {wanted}")
    return split


def read_split(path: str | Path, people: Iterable[str]) -> Split:
    """Who is trained, validated and tested on, of these people: the `split.json` of a run, or a CSV file with the columns subject,split.

    People whom the file doesn't name are on no side. 001 and 1 are the same person.

    Raises:
        DataError: with the line, where there is one: it can't be read or has another form, somebody is on two sides, or nobody to train or to test on
            is among the people.
    """
    path = Path(path)
    named = _json_sides(path) if path.suffix.lower() == ".json" else _csv_sides(path)
    side_of: dict[str, str] = {}
    for name, side in named:
        if side_of.setdefault(person(name), side) != side:
            raise DataError(f"{path} puts subject {name!r} on two sides, {side_of[person(name)]} and {side}; everybody can be on one")
    members = {side: frozenset(name for name in people if side_of.get(person(name)) == side) for side in _SIDES}
    for side in ("train", "test"):
        if not members[side]:
            there = ", ".join(repr(name) for name, of in list(named)[:5] if of == side) or "nobody"
            raise DataError(f"{path} has nobody to {side} on who is in the data: it names {there}; they must be called as in the data")
    return Split(**members)


def _json_sides(path: Path) -> list[tuple[str, str]]:
    """Name and side of everybody in a `split.json`."""
    if not is_there(path) and (path.parent / "fold-1").is_dir():
        raise DataError(
            f"{path} doesn't exist: the run has folds, each with a split of its own; give one of them, such as {path.parent / 'fold-1' / path.name}"
        )
    sides = read_json(path, _SPLIT_FORM)
    if not isinstance(sides, dict) or not all(isinstance(sides.get(side, []), list) for side in _SIDES):
        raise DataError(f"{path} has no lists of people; {_SPLIT_FORM}")
    return [(str(name), side) for side in _SIDES for name in sides.get(side, [])]


def _csv_sides(path: Path) -> list[tuple[str, str]]:
    """Name and side of everybody in a CSV file with the columns subject and split."""
    rows = read_rows(path, _SPLIT_FORM)
    if not rows:
        raise DataError(f"{path} is empty; {_SPLIT_FORM}")
    line, header = rows[0]
    if not {"subject", "split"} <= set(header):
        raise DataError(f"{path}, line {line}: its columns are {', '.join(header)[:300]}; {_SPLIT_FORM}")
    named = []
    for line, fields in rows[1:]:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, expected {len(header)} ({','.join(header)})")
        row = dict(zip(header, fields, strict=True))
        if not row["subject"]:
            raise DataError(f"{path}, line {line}: the subject is empty; name the person whom this line is about")
        if row["split"] not in _SIDES:
            raise DataError(f"{path}, line {line}: the split of subject {row['subject']!r} is {row['split']!r}; it must be {', '.join(_SIDES)}")
        named.append((row["subject"], row["split"]))
    return named


def _smallest_class(people: dict[str, str]) -> tuple[str, int]:
    return min(Counter(people.values()).items(), key=lambda item: (item[1], item[0]))


def _shuffled(people: dict[str, str], name: str, seed: int) -> list[str]:
    members = sorted(person for person, label in people.items() if label == name)
    return [members[i] for i in np.random.default_rng([seed, len(members)]).permutation(len(members))]
