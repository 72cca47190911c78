"""Whose walk it is: subject, sequence, condition and view, from what files say or from how they are named."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fastst.data.labels import Labels
from fastst.data.options import ReadOptions
from fastst.data.people import one_spelling, person_key, walk_path
from fastst.data.tracks import Walk
from fastst.data.walks import DataError, LeftOut, WalkSet, Whose

NAME_REMEDY = (
    'say whose walks they are with --name-pattern, such as "(?P<subject>[^/_]+)_(?P<sequence>[0-9]+)", which is searched in the names, or with a '
    'table walk,subject,label for --labels; where every walk is somebody else\'s: --name-pattern "(?P<subject>.+)"'
)
_EXAMPLES = 2


@dataclass(frozen=True)
class _Way:
    """A way to name walks, searched in the names of folders and file joined by `/`. Its groups are what a name says."""

    words: str
    pattern: re.Pattern[str]

    def parts(self, path: str) -> dict[str, str] | None:
        found = self.pattern.search(path)
        return None if found is None else {name: text for name, text in found.groupdict().items() if text}


# Names that can hardly mean anything else.
_WAYS = (
    _Way(
        "S<setup>C<view>P<subject>R<sequence>A<action>, as in NTU RGB+D",
        re.compile(r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<sequence>\d{3})A(?P<action>\d{3})(?![0-9A-Za-z])", re.ASCII),
    ),
    _Way(
        "<subject>-<nm|bg|cl>-<sequence>-<view>, as in CASIA-B",
        re.compile(r"(?:^|/)(?P<subject>[^-_/]+)([-_])(?P<condition>nm|bg|cl)\2(?P<sequence>\d+)\2(?P<view>\d+)(?!\d)", re.ASCII),
    ),
    _Way(
        "<subject>/<condition>-<sequence>/<view>, as in OpenGait",
        re.compile(r"(?:^|/)(?P<subject>[^/]+)/(?P<condition>[A-Za-z]+)-?(?P<sequence>\d+)/(?P<view>\d{1,3})(?:/[^/]*)?$", re.ASCII),
    ),
)
# Names that may mean something else. They count where all the walks that are left are called like this, and if what is taken for people looks it.
_GUESSES = (
    _Way("<subject>_<sequence>", re.compile(r"(?:^|/)(?P<subject>[^/]*?[^/\W_])[-_ ](?:[A-Za-z]+[-_ ]?)?\(?(?P<sequence>\d+)\)?$", re.ASCII)),
    _Way("<subject>/<sequence>, a folder for everybody", re.compile(r"^(?P<subject>[^/]+)/(?P<sequence>.+)$")),
)
_NO_PERSON = re.compile(
    r"(cam(era)?|view|angle|trial|take|seq(uence)?|video|clip|frame|session|day|run|walk|class|group|fold|test|train)s?[-_ ]*\d*", re.IGNORECASE
)
_VIEWS = frozenset(f"{degrees:03d}" for degrees in range(0, 181, 18))  # CASIA-B's


@dataclass(frozen=True)
class _Found:
    """What is known of a walk, and the way in which it was found; `words` is None where it was not."""

    parts: dict[str, str]
    words: str | None


def identify(walks: Sequence[Walk], options: ReadOptions, left_out: Sequence[LeftOut] = (), labels: Labels | None = None) -> WalkSet:
    """The walks under names of their own, with who walks and what their names say.

    Who walks is said, in this order, by `--name-pattern`; a labels file by walk; the file itself; a name as large data sets have them; the part of
    the name that is a subject in the labels file; names that give a person's and a walk's number, if all do. Otherwise every walk counts as a
    person of its own, which `WalkSet.whose` tells.

    Raises:
        DataError: the pattern can't be used, or none of the names has it.
    """
    paths = [walk_path(*walk.places) for walk in walks]
    found = _by_pattern(options.name_pattern, paths) if options.name_pattern else _found(walks, paths, labels)
    names = _names(walks, paths, found)
    left_out, kept, taken = list(left_out), [], set()
    for i, walk in enumerate(walks):
        if "subject" not in found[i].parts:
            left_out.append(LeftOut(names[i], f"{walk.source}: --name-pattern {options.name_pattern!r} is not in {paths[i]!r}"))
        elif names[i] in taken:
            left_out.append(LeftOut(names[i], f"{walk.source}: another walk is called {names[i]!r} too; rename one of them"))
        else:
            kept.append(i)
            taken.add(names[i])
    subjects, merged = one_spelling([found[i].parts["subject"] for i in kept])
    attributes = [{**walks[i].attributes, **found[i].parts} for i in kept]
    columns = sorted({column for values in attributes for column in values} - {"subject", "name"})
    return WalkSet(
        walks[0].layout,
        [names[i] for i in kept],
        subjects,
        [walks[i].poses for i in kept],
        {column: [values.get(column) for values in attributes] for column in columns},
        left_out,
        paths=[paths[i] for i in kept],
        fps=[walks[i].fps for i in kept],
        whose=_whose([names[i] for i in kept], [found[i] for i in kept]),
        notes=[f"{' and '.join(map(repr, spellings))} are the same person" for spellings in merged],
    )


def _by_pattern(pattern: str, paths: Sequence[str]) -> list[_Found]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--name-pattern {pattern!r} is no regular expression: {error}") from None
    if "subject" not in compiled.groupindex:
        raise DataError(f"--name-pattern {pattern!r} has no group (?P<subject>...), which says who walks; others are sequence, condition and view")
    way = _Way("--name-pattern", compiled)
    found = [way.parts(path) or {} for path in paths]
    if not any("subject" in parts for parts in found):
        raise DataError(f"--name-pattern {pattern!r} is in none of the {len(paths)} names, such as {_some(paths)}")
    return [_Found(parts, way.words) for parts in found]


def _found(walks: Sequence[Walk], paths: Sequence[str], labels: Labels | None) -> list[_Found]:
    """What is known of every walk; where nothing is, the whole name for the person, and no words."""
    by_file = [_said(walk, path, labels) or _by_way(path) for walk, path in zip(walks, paths, strict=True)]
    unknown = [i for i, found in enumerate(by_file) if found is None]
    guessed = _guessed([paths[i] for i in unknown], labels)
    for i, guess in zip(unknown, guessed, strict=True):
        by_file[i] = guess
    return [found for found in by_file if found is not None]


def _said(walk: Walk, path: str, labels: Labels | None) -> _Found | None:
    """What the labels file says by walk, or the file of the walk."""
    parts = next((parts for way in _WAYS if (parts := way.parts(path))), {})
    if labels is not None and (subject := labels.subject_of(path)):
        return _Found({**parts, "subject": subject}, f"the table {labels.source}")
    if subject := walk.attributes.get("subject"):
        return _Found({"subject": subject}, "the file says who walks")
    return None


def _by_way(path: str) -> _Found | None:
    return next((_Found(parts, way.words) for way in _WAYS if (parts := way.parts(path))), None)


def _guessed(paths: Sequence[str], labels: Labels | None) -> list[_Found]:
    if labels is not None and (found := _as_in_table(paths, labels)):
        return found
    for way in _GUESSES:
        parts = [way.parts(path) for path in paths]
        if all(part is not None for part in parts) and _look_like_people([part["subject"] for part in parts if part]):
            return [_Found(part, way.words) for part in parts if part]
    return [_Found({"subject": path}, None) for path in paths]


def _as_in_table(paths: Sequence[str], labels: Labels) -> list[_Found] | None:
    """By the folder, or the first part of a name, that most often is a subject of the labels file."""
    known = {person_key(subject) for subject in labels.subjects}
    candidates: dict[str, list[str | None]] = defaultdict(lambda: [None] * len(paths))
    for i, path in enumerate(paths):
        places = path.split("/")
        for depth, place in enumerate(places):
            where = "the name" if depth == len(places) - 1 else f"folder {depth + 1}"
            for words, text in (
                (where, place),
                (f"{where} before the first _, - or space", re.split(r"[-_ ]", place)[0]),
                (f"{where} before the last _, - or space", re.split(r"[-_ ](?=[^-_ ]*$)", place)[0]),
            ):
                if person_key(text) in known:
                    candidates[words][i] = text
    if not candidates:
        return None
    words, subjects = max(candidates.items(), key=lambda item: sum(subject is not None for subject in item[1]))
    if 2 * sum(subject is not None for subject in subjects) <= len(paths):
        return None
    words = f"{words} is a subject of {labels.source}"
    return [
        _Found({"subject": path if subject is None else subject}, None if subject is None else words)
        for path, subject in zip(paths, subjects, strict=True)
    ]


def _look_like_people(subjects: Sequence[str]) -> bool:
    """Several, some with several walks, called by a number, and not by a word for something else or by CASIA-B's views."""
    different = set(subjects)
    if not 2 <= len(different) < len(subjects) or different <= _VIEWS:
        return False
    return all(re.search(r"\d", subject) and not _NO_PERSON.fullmatch(subject) for subject in different)


def _names(walks: Sequence[Walk], paths: Sequence[str], found: Sequence[_Found]) -> list[str]:
    """As the file calls it, by the whole of a large data set's name, the last place where that is unique, or all places; with the track's number."""
    last = [walk.attributes.get("name") or path.rsplit("/", 1)[-1] for walk, path in zip(walks, paths, strict=True)]
    numbers = ["" if walk.track is None else f"#{walk.track}" for walk in walks]
    counts = Counter(zip(last, numbers, strict=True))
    names = []
    for i, path in enumerate(paths):
        parts = found[i].parts
        if "name" not in walks[i].attributes and {"subject", "condition", "sequence", "view"} <= set(parts):
            name = "-".join(parts[part] for part in ("subject", "condition", "sequence", "view"))
        else:
            name = last[i] if counts[last[i], numbers[i]] == 1 else path
        names.append(name + numbers[i])
    return names


def _whose(names: Sequence[str], found: Sequence[_Found]) -> Whose:
    ways: dict[str, list[int]] = defaultdict(list)
    for i, each in enumerate(found):
        ways[each.words or ""].append(i)
    lines = []
    for words, members in ways.items():
        if words:
            examples = "; ".join(
                f"{names[i]!r} is {', '.join(f'{part} {text}' for part, text in found[i].parts.items())}" for i in members[:_EXAMPLES]
            )
            lines.append(f"{words}: {len(members)} walk(s), such as {examples}")
    return Whose(tuple(lines), tuple(names[i] for i in ways.get("", ())))


def _some(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts[:3])


def check_people(walks: WalkSet) -> None:
    """DataError if a split by person would rest on names that nobody understood."""
    unknown = set(walks.whose.not_understood) & set(walks.names)
    if unknown:
        names = [name for name in walks.names if name in unknown]
        raise DataError(
            f"nothing says who walks in {len(names)} of {len(walks)} walks, such as {_some(names)}, and nobody must be on both sides of a split; "
            f"{NAME_REMEDY}"
        )
