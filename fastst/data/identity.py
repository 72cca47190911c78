"""Whose walk it is: subject, sequence, condition and view, from what files say or from how they are named."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastst.data.labels import Labels
from fastst.data.options import ReadOptions
from fastst.data.people import near_spellings, one_spelling, person_key, walk_path
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
        "<subject>/<nm|bg|cl>-<sequence>/<view>, as in OpenGait",
        re.compile(r"(?:^|/)(?P<subject>[^/]+)/(?P<condition>nm|bg|cl)-?(?P<sequence>\d+)/(?P<view>\d{1,3})(?:/[^/]*)?$", re.ASCII),
    ),
    _Way("<subject>/<sequence>/<view>, as in OU-MVLP", re.compile(r"(?:^|/)(?P<subject>\d{5})/(?P<sequence>\d\d)/(?P<view>\d{3})$", re.ASCII)),
)
_VIEW_TREE = _Way(
    "<subject>/<condition>-<sequence>/<view>, as in OpenGait",
    re.compile(r"(?:^|/)(?P<subject>[^/]+)/(?P<condition>[A-Za-z]+)-?(?P<sequence>\d+)/(?P<view>\d{2,3})$", re.ASCII),
)
# What else a name may say, each with a number: a person, one of a person's walks, or a share of the people; and when it was recorded.
_PERSON = r"p|s|pat|patient|sub|subj|subject|person|participant|proband|walker|id"
_TAKE = r"t|v|cam|camera|view|angle|trial|take|seq|sequence|video|vid|img|image|clip|frame|session|visit|day|run|walk|gait|speed"
_SHARE = r"class|group|grade|stage|level|fold|test|train"
_DATE = r"(?:(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d|[0-3]?\d[-_.][01]?\d[-_.](?:19|20)\d\d)(?:[-_T ]?\d{6})?(?!\d)"
_PARTS = re.compile(rf"{_DATE}|(?:{_PERSON}|{_TAKE}|{_SHARE})s?[-_ ]?(?!{_DATE})\d+(?![0-9A-Za-z])|[^-_ ()]+", re.ASCII | re.IGNORECASE)
_IS_PERSON = re.compile(rf"(?:{_PERSON})[-_ ]?\d{{1,5}}", re.ASCII | re.IGNORECASE)
_IS_TAKE = re.compile(rf"(?:{_TAKE})s?[-_ ]?\d*|(?:19|20)\d\d|{_DATE}", re.ASCII | re.IGNORECASE)
_IS_SHARE = re.compile(rf"(?:{_SHARE})s?[-_ ]?\d*", re.ASCII | re.IGNORECASE)
_MAY_BE_PERSON = re.compile(r"[A-Za-z]*\d{2,5}", re.ASCII)
_FEW_PEOPLE, _MANY_WALKS = 5, 10  # fewer folders than these, with more walks each, may be classes
_VIEWS = frozenset(f"{degrees:03d}" for degrees in range(0, 181, 18))  # CASIA-B's


@dataclass(frozen=True)
class _Found:
    """What is known of a walk, and the way in which it was found; `words` is None where it was not."""

    parts: dict[str, str]
    words: str | None


def identify(walks: Sequence[Walk], options: ReadOptions, left_out: Sequence[LeftOut] = (), labels: Labels | None = None) -> WalkSet:
    """The walks under names of their own, with who walks and what their names say.

    Who walks is said, in this order, by `--name-pattern`; a labels file by walk; the file itself; a name as large data sets have them; the part of
    the name that is a subject in the labels file (before the third, where the labels file knows nobody of the third); where there is no such file,
    or none that knows most of them, the only folder, or else the only part of the name, that can be a person's. Otherwise every walk counts as a
    person of its own, which `WalkSet.whose` tells.

    Raises:
        DataError: the pattern can't be used, or none of the names has it; a line of the labels file fits several walks; several parts of the names
            are subjects of the labels file.
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
        whose=_whose([names[i] for i in kept], [paths[i] for i in kept], [found[i] for i in kept]),
        notes=[
            *(f"{' and '.join(map(repr, spellings))} are the same person" for spellings in merged),
            *(f"{' and '.join(map(repr, near))} may be the same person; if so, spell them alike" for near in near_spellings(subjects)),
            *_of_one_name([walks[i] for i in kept], [names[i] for i in kept]),
        ],
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
    found = _said(walks, paths, labels)
    people = {person_key(subject) for subject in labels.subjects} if labels else set()
    by_name = [_by_way(path) for path in paths]
    # Names as large data sets have them count before what the table knows, if the table knows any of their people.
    if not people or any(way and person_key(way.parts["subject"]) in people for way in by_name):
        found = [each or way for each, way in zip(found, by_name, strict=True)]
    whole = _with_repeated_places(paths)
    in_table = _filled(found, whole, lambda left: _as_in_table(left, labels)) if labels and people else found
    is_of_table = in_table != found or (labels is not None and labels.walks is not None and bool(people))
    found = [each or way for each, way in zip(in_table, by_name, strict=True)]
    if not is_of_table:  # who isn't in a table that knows the others is not guessed
        found = _filled(found, whole, _guessed)
    return [each or _Found({"subject": path}, None) for each, path in zip(found, paths, strict=True)]


def _with_repeated_places(paths: Sequence[str]) -> list[str]:
    """`walk_path` makes `1` of `1/1`. Beside `1/2` and `2/1` it is the first walk of person 1, so it is `1/1` again here."""
    usual = Counter(path.count("/") for path in paths).most_common(1)[0][0] if paths else 0
    return [f"{path}/{path.rsplit('/', 1)[-1]}" if path.count("/") == usual - 1 else path for path in paths]


def _filled(found: Sequence[_Found | None], paths: Sequence[str], way: Callable[[Sequence[str]], Sequence[_Found | None]]) -> list[_Found | None]:
    """`found`, and what `way` makes of the paths for which nothing is."""
    more = iter(way([path for path, each in zip(paths, found, strict=True) if each is None]))
    return [next(more) if each is None else each for each in found]


def _said(walks: Sequence[Walk], paths: Sequence[str], labels: Labels | None) -> list[_Found | None]:
    """What the labels file says by walk, or the file of the walk."""
    found = [_Found({"subject": subject}, "the file says who walks") if (subject := walk.attributes.get("subject")) else None for walk in walks]
    if labels is None or labels.walks is None:
        return found
    for i, (path, line) in enumerate(zip(paths, labels.lines_of(paths), strict=True)):
        if line is not None and (subject := labels.walks[line]):
            way = _by_way(path)
            found[i] = _Found({**(way.parts if way else {}), "subject": subject}, f"the table {labels.source}")
    return found


def _by_way(path: str) -> _Found | None:
    return next((_Found(parts, way.words) for way in _WAYS if (parts := way.parts(path))), None)


def _as_in_table(paths: Sequence[str], labels: Labels) -> list[_Found | None]:
    """By the place, or the part of one, that is a subject of the labels file in most paths: in the others, of whom it knows nothing, it is one too.

    Of several such, the one that names most of the subjects: the numbers of trials are subjects' as well, but they are few.

    Raises:
        DataError: several name as many.
    """
    known = {person_key(subject) for subject in labels.subjects}
    texts = [_texts(path) for path in paths]
    readings: dict[str, list[str | None]] = {}
    for words in dict.fromkeys(words for each in texts for words in each):
        subjects = [text if (text := each.get(words)) is not None and person_key(text) in known else None for each in texts]
        if 2 * sum(map(bool, subjects)) > len(paths):
            readings[words] = subjects
    if not readings:
        return [None] * len(paths)
    counts = [len({person_key(subject) for subject in subjects if subject}) for subjects in readings.values()]
    best = [reading for reading, count in zip(readings.items(), counts, strict=True) if count == max(counts)]
    words, subjects = best[0]
    for other_words, others in best[1:]:
        for path, subject, other in zip(paths, subjects, others, strict=True):
            if subject and other and person_key(subject) != person_key(other):
                raise DataError(
                    f"it can't be told who walks: in {path!r} {words} ({subject!r}) and {other_words} ({other!r}) are subjects of {labels.source}; "
                    f"{NAME_REMEDY}"
                )
    is_known, is_not = f"{words} is a subject of {labels.source}", f"{words}, which is a subject of {labels.source} in the other names"
    found = [_Found({"subject": subject}, is_known) if subject else None for subject in subjects]
    found = [each or (_Found({"subject": text}, is_not) if (text := more.get(words)) else None) for each, more in zip(found, texts, strict=True)]
    return _with_sequences_of_table(found, paths)


def _with_sequences_of_table(found: list[_Found | None], paths: Sequence[str]) -> list[_Found | None]:
    """With the last part of the names as the sequence, as where there is no table, unless that part is the subject itself."""
    everybody = [each for each in found if each is not None]
    last = (_columns(paths)[1] or [[]])[-1]
    if len(everybody) < len(found) or not last or [each.parts["subject"] for each in everybody] == last:
        return found
    return [*_with_sequences(everybody, last)]


def _texts(path: str) -> dict[str, str]:
    """What of a name may be a person's: in words -> the text."""
    texts: dict[str, str] = {}
    places = path.split("/")
    for depth, place in enumerate(places):
        where = "the name" if depth == len(places) - 1 else f"folder {depth + 1}"
        texts |= {where: place, f"{where} before the last _, - or space": re.split(r"[-_ ](?=[^-_ ]*$)", place)[0]}
        texts |= {f"part {k + 1} of {where}": part for k, part in enumerate(re.split(r"[-_ ()]+", place))}
    return texts


def _guessed(paths: Sequence[str]) -> Sequence[_Found | None]:
    """By the only part of the names that can be the person's. This counts where all the walks that are left are called alike."""
    if tree := _tree_with_views(paths):
        return tree
    folders, own = _columns(paths)
    for columns, before, words in ((folders, [], "the only folder"), (own, folders, "the only part of the name")):
        sure = [k for k, column in enumerate(columns) if _varies(column) and all(map(_IS_PERSON.fullmatch, column))]
        possible = sure or [k for k, column in enumerate(columns) if _may_be_people(column)]
        if len(possible) > 1:
            break
        if possible:
            subjects, outer = columns[possible[0]], [*before, *columns[: possible[0]]]
            if sure:
                outer = [column for column in outer if not all(map(_IS_TAKE.fullmatch, column))]
            if len(set(subjects)) == len(subjects) or _under_several(subjects, outer):
                break
            found = [_Found({"subject": subject}, f"{words} that can be a person's") for subject in subjects]
            return _with_sequences(found, own[-1]) if own and own[-1] is not subjects else found
    return [None] * len(paths)


def _with_sequences(found: Sequence[_Found], last: Sequence[str]) -> Sequence[_Found]:
    """With the last part of the names as the sequence, if it is a number for all."""
    if not all(map(str.isdecimal, last)) or set(last) <= _VIEWS:
        return found
    return [_Found({**each.parts, "sequence": sequence}, each.words) for each, sequence in zip(found, last, strict=True)]


def _tree_with_views(paths: Sequence[str]) -> Sequence[_Found] | None:
    """A tree as OpenGait has it, with other conditions, if walks were seen from several sides."""
    found = [_VIEW_TREE.parts(path) for path in paths]
    trees = [parts for parts in found if parts]
    people = [parts["subject"] for parts in trees]
    walks = {(parts["subject"], parts["condition"], parts["sequence"]) for parts in trees}
    if len(trees) < len(paths) or not _may_be_people(people) or len(walks) == len(trees):
        return None
    if any(_IS_PERSON.fullmatch(f"{parts['condition']}1") for parts in trees) or _under_several(people, [[path.rsplit("/", 3)[0] for path in paths]]):
        return None
    return [_Found(parts, _VIEW_TREE.words) for parts in trees]


def _columns(paths: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """The parts of the folders that all paths have, and of the last place: for every part a column with its texts, one a path."""
    places = [path.split("/") for path in paths]
    shared = min((len(each) for each in places), default=1) - 1
    folders = [column for depth in range(shared) for column in _parts([each[depth] for each in places])]
    return folders, _parts([each[-1] for each in places])


def _parts(texts: Sequence[str]) -> list[list[str]]:
    """A column for every part; only one where the texts have more or fewer parts than each other."""
    parts = [_PARTS.findall(text) for text in texts]
    return [list(column) for column in zip(*parts, strict=True)] if len({len(each) for each in parts}) == 1 else [list(texts)]


def _varies(column: Sequence[str]) -> bool:
    return len(set(column)) > 1


def _may_be_people(column: Sequence[str]) -> bool:
    """Several, some with several walks, called by a number, and not by a word for something else, a year, CASIA-B's views or a class's number."""
    different = set(column)
    if not 2 <= len(different) < len(column) or different <= _VIEWS or _may_be_classes(different, len(column)):
        return False
    return all(_IS_PERSON.fullmatch(text) or (_MAY_BE_PERSON.fullmatch(text) and not _is_else(text)) for text in different)


def _may_be_classes(different: set[str], walks: int) -> bool:
    """Whether numbers may be those of classes: of one or two digits, and counted from 0, or few for so many walks."""
    if not all(text.isdecimal() and len(text) <= 2 for text in different):
        return False
    return any(int(text) == 0 for text in different) or (len(different) < _FEW_PEOPLE and walks > _MANY_WALKS * len(different))


def _is_else(text: str) -> bool:
    return bool(_IS_TAKE.fullmatch(text) or _IS_SHARE.fullmatch(text))


def _under_several(subjects: Sequence[str], outer: Sequence[Sequence[str]]) -> bool:
    """Whether one name is under several others, as where every hospital has its own first patient."""
    return len(set(zip(subjects, *outer, strict=True))) > len(set(subjects))


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


def _whose(names: Sequence[str], paths: Sequence[str], found: Sequence[_Found]) -> Whose:
    """Examples are given as the files are called, which is what a pattern is searched in."""
    ways: dict[str, list[int]] = defaultdict(list)
    for i, each in enumerate(found):
        ways[each.words or ""].append(i)
    lines = []
    for words, members in ways.items():
        if words:
            examples = "; ".join(
                f"{paths[i]!r} is {', '.join(f'{part} {text}' for part, text in found[i].parts.items())}" for i in members[:_EXAMPLES]
            )
            lines.append(f"{words}: {len(members)} walk(s), such as {examples}")
    return Whose(tuple(lines), tuple(names[i] for i in ways.get("", ())))


def _some(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts[:3])


def _of_one_name(walks: Sequence[Walk], names: Sequence[str]) -> list[str]:
    """What is to be said where a video's name is everybody's in it."""
    together = [name for walk, name in zip(walks, names, strict=True) if walk.track is not None]
    if not together:
        return []
    return [
        f"{len(together)} walks, such as {_some(together[:2])}, are of people in one video, and all bear the subject and the label of its name; "
        "say who is who in a table walk,subject,label for --labels"
    ]


def check_people(walks: WalkSet) -> None:
    """DataError if a split by person would rest on names that nobody understood."""
    unknown = set(walks.whose.not_understood) & set(walks.names)
    if unknown:
        names = [name for name in walks.names if name in unknown]
        raise DataError(
            f"nothing says who walks in {len(names)} of {len(walks)} walks, such as {_some(names)}, and nobody must be on both sides of a split; "
            f"{NAME_REMEDY}"
        )
