"""Which walk and which frame a row of a table of poses is, and the rows in that order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastst.data.formats.clock import frames_at
from fastst.data.formats.rows import Coded, Rows, numbered
from fastst.data.frames import HAS_FRAME, split_frames

_ENDING = r"\.[A-Za-z][A-Za-z0-9]{1,4}$"
_WHOLE_NUMBER = r"^\s*\+?(?P<number>-?[0-9]{1,18})(?:\.0*)?\s*$"
_ROWS_OF_A_VIDEO = 20  # so many rows of one person have one name, and no column says their frame: it names a video, not an image
_ROWS_OF_A_PART = 4  # so many on average stand in the order of their frames before the numbers start again
_FOLDERS_LOOKED_AT = 100
NOTHING = frozenset(("", "na", "n/a", "nan", "none", "null", "<na>"))


@dataclass(frozen=True)
class Dealt:
    """Whose walk and which frame each of n rows is.

    Args:
        walk: 0 for the first in the file.  # [n]
        frames: # [n] int64
        people: who it is in the frame, -1 where the file does not say.  # [n] int64
        is_unnamed: the row doesn't say which frame it is.  # [n] bool
        names: folders, and names of images or videos without the frame.
    """

    walk: np.ndarray
    frames: np.ndarray
    people: np.ndarray | None
    is_unnamed: np.ndarray
    names: list[Coded]


def deal(rows: Rows) -> Dealt:
    """Frames are told by their column, else by the names of the images, else by their times, else by the order of the rows."""
    columns = rows.columns
    image, frames, is_unnamed = rows.image, None, np.zeros(len(rows), bool)
    people = None if columns.person is None else _ids(rows.texts[columns.person])
    if columns.frame is not None:
        frames, is_unnamed = _whole_numbers(rows.texts[columns.frame])
        if image is None and 2 * np.count_nonzero(is_unnamed) > len(rows):
            image, frames, is_unnamed = rows.texts[columns.frame].split_path(), None, np.zeros_like(is_unnamed)
    names: list[Coded] = []
    if image is not None:
        folders, files = image[0], Coded(pc.replace_substring_regex(image[1].values, _ENDING, ""), image[1].codes)
        if _name_images(folders, files, frames, people):
            files, numbers, is_nameless = _without_frames(files)
            if frames is None:
                frames, is_unnamed = numbers, is_nameless
        names = [folders, files]
    keys = [rows.texts[column].codes for group in columns.keys.values() for column in group]
    walk = numbered([*(coded.codes for coded in names), *keys], len(rows))
    if frames is None:
        frames = _places_in(walk if people is None else numbered([walk, people], len(rows)))
        if columns.time is not None:
            _by_time(frames, rows.texts[columns.time], walk, people)
    return Dealt(walk, frames, people, is_unnamed, names)


def in_order(rows: Rows, dealt: Dealt) -> np.ndarray:
    """The rows by walk, frame and person, the most confident first where all three are the same; unnamed and broken ones left out.  # [m]"""
    used = np.flatnonzero(~(dealt.is_unnamed | rows.is_broken))
    keys = [key[used] for key in (dealt.people, dealt.frames, dealt.walk) if key is not None]
    if follows(*keys[::-1]).all():
        return used
    if rows.confidences is not None:
        keys.insert(0, -rows.confidences[used].mean(axis=1))
    return used[np.lexsort(keys)]


def follows(*keys: np.ndarray) -> np.ndarray:
    """Whether each row stands after the one before it, by the first of `keys` in which the two differ; the first row does.  # [n] bool"""
    after = np.zeros(len(keys[0]), bool)
    after[:1] = True
    for key in reversed(keys):
        after[1:] &= key[1:] == key[:-1]
        after[1:] |= key[1:] > key[:-1]
    return after


def restarts(order: np.ndarray, dealt: Dealt, repeats: np.ndarray) -> dict[int, int]:
    """Walk -> row of the file in which its frame numbers start again: a second walk or person stands below the first.

    `repeats` are rows of a frame in which the same person, or one of whom nobody says who it is, was already. In the order of the file each part
    must have several frames: where those of one frame stand side by side, or all stand in any order, they are people of one video.
    """
    people = np.full_like(dealt.walk, -1) if dealt.people is None else dealt.people
    rows = np.sort(order[np.isin(dealt.walk[order], dealt.walk[repeats])])
    rows = rows[np.lexsort((rows, people[rows], dealt.walk[rows]))]
    is_down = np.zeros(len(rows), bool)
    is_down[1:] = (np.diff(dealt.walk[rows]) == 0) & (np.diff(people[rows]) == 0) & (np.diff(dealt.frames[rows]) < 0)
    found = {}
    for walk in np.unique(dealt.walk[repeats]):
        here = dealt.walk[rows] == walk
        downs = rows[here & is_down]
        if len(downs) and np.count_nonzero(here) >= _ROWS_OF_A_PART * (len(downs) + 1):
            found[int(walk)] = int(downs.min())
    return found


def sort(joints: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`joints[order]`, made in place a joint at a time, so that there are never two copies.  # [m, J, …]"""
    if not np.array_equal(order, np.arange(len(joints))):
        for joint in range(joints.shape[1]):
            joints[: len(order), joint] = joints[order, joint]
    return joints[: len(order)]


def _name_images(folders: Coded, files: Coded, frames: np.ndarray | None, people: np.ndarray | None) -> bool:
    """Whether each image, and not each video, has a name of its own; the first folders tell."""
    some = np.flatnonzero(folders.codes < _FOLDERS_LOOKED_AT)
    name = numbered([folders.codes[some], files.codes[some]], len(some))
    if frames is not None:
        return _different(numbered([name, np.unique(frames[some], return_inverse=True)[1]], len(some))) == _different(name)
    return _different(name if people is None else numbered([name, people[some]], len(some))) * _ROWS_OF_A_VIDEO > len(some)


def _different(numbers: np.ndarray) -> int:
    return int(numbers.max(initial=-1)) + 1


def _without_frames(files: Coded) -> tuple[Coded, np.ndarray, np.ndarray]:
    """Names without the number of the frame, that number, and whether there is none.  # [n], [n]"""
    has_number = pc.match_substring_regex(files.values, HAS_FRAME)
    split = split_frames(files.values.filter(has_number))
    assert split is not None
    kinds, numbers = split
    is_numbered = has_number.to_numpy(zero_copy_only=False)
    kind, frame = np.full(len(is_numbered), -1, np.int32), np.zeros(len(is_numbered), np.int64)
    kind[is_numbered], frame[is_numbered] = kinds.indices.to_numpy(), numbers
    return Coded(kinds.dictionary, kind[files.codes]), frame[files.codes], ~is_numbered[files.codes]


def _whole_numbers(cells: Coded) -> tuple[np.ndarray, np.ndarray]:
    """Cells as whole numbers, and which of them are none.  # [n] int64, [n] bool"""
    number = pc.struct_field(pc.extract_regex(cells.values, _WHOLE_NUMBER), "number")
    is_none = number.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(number.cast(pa.int64()), 0).to_numpy()[cells.codes], is_none[cells.codes]


def _ids(cells: Coded) -> np.ndarray:
    """The whole numbers in the cells, or a number for each of their values; -1 where there is nothing.  # [n]"""
    is_nothing = np.array([value.strip().lower() in NOTHING for value in cells.values.to_pylist()], bool)[cells.codes]
    numbers, is_none = _whole_numbers(cells)
    return np.where(is_nothing, -1, cells.codes if (is_none & ~is_nothing).any() else numbers)


def _by_time(frames: np.ndarray, times: Coded, walk: np.ndarray, people: np.ndarray | None) -> None:
    """Sets the frames of the walks whose rows have times that step evenly, but for gaps; one person can't have one time twice."""
    order = np.argsort(walk, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(walk[order])) + 1):
        found = frames_at([times.at(row).strip() for row in here])
        if found is not None and _different(numbered([found] if people is None else [found, people[here]], len(here))) == len(here):
            frames[here] = found


def _places_in(group: np.ndarray) -> np.ndarray:
    """How many rows of its group come before each row.  # [n]"""
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(np.bincount(group)) - np.bincount(group)
    places = np.empty(len(group), np.int64)
    places[order] = np.arange(len(group)) - starts[group[order]]
    return places
