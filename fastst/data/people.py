"""When two names are one person's, or one walk's."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

# How CASIA-B calls a walk: who, in which condition (normal, with a bag, in a coat), the how-manieth time, seen from how many degrees.
WALK_NAME = re.compile(r"(?P<subject>[^-/]+)-(?P<condition>nm|bg|cl)-(?P<sequence>\d+)-(?P<view>\d+)", re.ASCII)

# Names that files and folders have for everybody: they tell nothing.
_EVERYWHERE = re.compile(
    r"alphapose-results.*|results?|keypoints?|poses?([-_]?[23]d)?|predictions?|output|skeletons?|data|sep-json|json", re.IGNORECASE
)
_ENDING = re.compile(r"\.(jsonl?|ndjson|csv|tsv|txt|npz|pkl|pickle|skeleton|c3d|mp4|avi|mov)$", re.IGNORECASE)


def walk_path(*places: str) -> str:
    """Folders and names joined by `/`, without an ending and without those that tell nothing or the same again."""
    parts: list[str] = []
    for part in (part for place in places for part in place.replace("\\", "/").split("/") if part not in ("", ".")):
        if not (parts and parts[-1] == part):
            parts.append(part)
    if parts:
        parts[-1] = _ENDING.sub("", parts[-1]) or parts[-1]
    if len(parts) > 1 and parts[-1] == parts[-2]:
        parts.pop()
    return "/".join([part for part in parts if not _EVERYWHERE.fullmatch(part)] or parts[-1:])


def person_key(subject: str) -> str:
    """The same for `001` and `1`, which are the same person."""
    return str(int(subject)) if subject.isascii() and subject.isdigit() and len(subject) <= 18 else subject


def one_spelling(subjects: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Everybody in the spelling that is most frequent, and the spellings of those who have several."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for subject, count in Counter(subjects).items():
        spellings[person_key(subject)][subject] = count
    chosen = {key: max(counts, key=lambda text: (counts[text], len(text), text)) for key, counts in spellings.items()}
    merged = [sorted(counts) for counts in spellings.values() if len(counts) > 1]
    return [chosen[person_key(subject)] for subject in subjects], merged


def near_spellings(subjects: Sequence[str]) -> list[list[str]]:
    """Names that differ in case, in zeros before a number or in `.0` behind it only, as `P1`, `p01` and `P1.0` do."""
    alike: dict[str, set[str]] = defaultdict(set)
    for subject in set(subjects):
        alike[re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", subject.casefold()))].add(subject)
    return sorted(sorted(names) for names in alike.values() if len(names) > 1)
