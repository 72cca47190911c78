"""Walks that are there more than once."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastst.data.people import person_key
from fastst.data.walks import DataError, LeftOut, WalkSet


def mark(poses: np.ndarray) -> int:
    """A number for the poses of a walk, by which it is known under any name."""
    return zlib.crc32(np.ascontiguousarray(poses).data)


def copies(walks: Sequence[np.ndarray]) -> list[list[int]]:
    """The numbers of the walks whose poses are the same, for every walk that is there more than once."""
    alike: dict[int, list[int]] = defaultdict(list)
    for i, poses in enumerate(walks):
        alike[mark(poses)].append(i)
    found = []
    for members in alike.values():
        while len(members) > 1:  # different poses may have one mark
            same = [i for i in members if np.array_equal(walks[members[0]], walks[i], equal_nan=True)]
            found += [same] if len(same) > 1 else []
            members = [i for i in members if i not in same]
    return found


def without_copies(walks: WalkSet, classes: Sequence[str]) -> WalkSet:
    """Every walk once. Of copies of one person and class the first stays; of several persons or classes none does, since one of them is wrong.

    Args:
        classes: of every walk.

    Raises:
        DataError: no walk is left.
    """
    unknown = set(walks.whose.not_understood)
    whom = [None if name in unknown else person_key(subject) for name, subject in zip(walks.names, walks.subjects, strict=True)]
    dropped: set[int] = set()
    left_out: list[LeftOut] = []
    for same in copies(walks.poses):
        is_one = len({(whom[i], classes[i]) for i in same}) == 1
        for i in same[1:] if is_one else same:
            other = same[0] if i != same[0] else same[1]
            dropped.add(i)
            left_out.append(LeftOut(walks.names[i], _reason(walks, classes, i, other, is_one)))
    if not dropped:
        return walks
    if len(dropped) == len(walks):
        raise DataError(f"every walk is there more than once; the first: {left_out[0].name} {left_out[0].reason}")
    kept = walks.take([i for i in range(len(walks)) if i not in dropped])
    return replace(kept, left_out=[*walks.left_out, *left_out])


def _reason(walks: WalkSet, classes: Sequence[str], i: int, other: int, is_one: bool) -> str:
    same = f"has the same poses as {walks.names[other]}"
    if is_one:
        return f"{same}, which is used"
    named = f"subject {walks.subjects[other]}, class {classes[other]}; here subject {walks.subjects[i]}, class {classes[i]}"
    return f"{same} ({named}), and nothing says which is right; none is used: remove the wrong file, or mend the labels"
