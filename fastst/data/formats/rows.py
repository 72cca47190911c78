"""The rows of a table of poses, a person and frame each, in the order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastst.data.formats.columns import Columns, columns_of, layout_of
from fastst.data.formats.table import Problem, Table, read_blocks
from fastst.data.walks import DataError

_OF_INDIVIDUALS = -1  # in place of the number of a column that says who it is


@dataclass(frozen=True)
class Coded:
    """n texts: the different ones and, for each, which of them it is; -1 for none."""

    values: pa.Array
    codes: np.ndarray

    def at(self, row: int) -> str:
        """The text of a row; "" where it has none."""
        return self.values[int(self.codes[row])].as_py() if self.codes[row] >= 0 else ""

    def take(self, rows: np.ndarray) -> Coded:
        return Coded(self.values, self.codes[rows])

    def split_path(self) -> tuple[Coded, Coded]:
        """Folders and file names."""
        folder, file = (_coded([part.dictionary_encode()]) for part in _folder_and_file(self.values))
        return folder.take(self.codes), file.take(self.codes)


@dataclass(frozen=True)
class Rows:
    """n rows.

    Args:
        columns: what they mean.
        joints: NaN where the file says that a joint was not found.  # [n, J, 2 or 3] float32
        confidences: # [n, J] float32
        texts: column -> its cells, of all but the image's name.
        image: folders and files of the images' names.
        lines: the line of each.  # [n] int32
        problems: row -> what is wrong with it.
    """

    columns: Columns
    joints: np.ndarray
    confidences: np.ndarray | None
    texts: dict[int, Coded]
    image: tuple[Coded, Coded] | None
    lines: np.ndarray
    problems: dict[int, Problem]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def is_broken(self) -> np.ndarray:
        """Whether nothing of a row can be used.  # [n] bool"""
        is_broken = np.zeros(len(self), bool)
        is_broken[[row for row, problem in self.problems.items() if problem.share == 1]] = True
        return is_broken


def read_rows(path: Path, table: Table, columns: Columns, progress: bool) -> Rows:
    """All rows of the file.

    Raises:
        DataError: the file can't be read at all.
    """
    shape = len(columns.coordinates), len(columns.coordinates[0])
    joints, confidences, lines = _Growing(shape, np.float32), _Growing((shape[0],), np.float32), _Growing((), np.int32)
    texts: dict[int, list[pa.Array]] = {column: [] for column in columns.texts if column != columns.image}
    folders: list[pa.Array] = []
    files: list[pa.Array] = []
    problems: dict[int, Problem] = {}
    for block in read_blocks(path, table, columns.texts, columns.numbers, progress):
        problems |= {joints.count + row: problem for row, problem in block.problems.items()}
        lines.add(block.lines)
        positions, given = _poses(block.values, shape)
        joints.add(positions)
        if given is not None:
            confidences.add(given)
        for column, blocks in texts.items():
            blocks.append(block.texts[column].dictionary_encode())
        if columns.image is not None:
            folder, file = _folder_and_file(block.texts[columns.image])
            folders.append(folder.dictionary_encode())
            files.append(file.dictionary_encode())
    return Rows(
        columns,
        joints.whole(),
        confidences.whole() if columns.confidences else None,
        {column: _coded(blocks) for column, blocks in texts.items()},
        None if columns.image is None else (_coded(folders), _coded(files)),
        lines.whole(),
        problems,
    )


def a_row_a_person(path: Path, rows: Rows) -> Rows:
    """Rows of a joint each put together to rows of a person and frame each.

    Raises:
        DataError: a joint stands twice in a frame, or none is named.
    """
    landmark = rows.columns.landmark
    assert landmark is not None
    names = rows.texts[landmark]
    others = [coded for column, coded in rows.texts.items() if column != landmark] + list(rows.image or ())
    person = numbered([coded.codes for coded in others], len(rows))
    is_good = ~rows.is_broken
    good = [code for code in np.unique(names.codes[is_good]) if names.values[int(code)].as_py().strip()]
    if not good:
        raise DataError(f"{path} names no joint in the column that says which joint a row is")
    layout, order = layout_of([names.values[int(code)].as_py().strip() for code in good])
    place = np.full(len(names.values), -1)
    place[np.array(good)[order]] = np.arange(len(order))
    joint = place[names.codes]
    is_joint = is_good & (joint >= 0)
    joint, who = joint[is_joint], person[is_joint]
    cell = who * layout.num_joints + joint
    if len(np.unique(cell)) < len(cell):
        again = np.flatnonzero(np.bincount(cell) > 1)[0] % layout.num_joints
        reason = f"{layout.joints[again]} stands twice in one frame"
        raise DataError(f"{path}: {reason}; expected a column that says which frame it is, and which person where there are several")
    people = int(person.max(initial=-1)) + 1
    joints = np.full((people, layout.num_joints, rows.joints.shape[2]), np.nan, np.float32)
    joints[who, joint] = rows.joints[is_joint, 0]
    confidences = None
    if rows.confidences is not None:
        confidences = np.zeros((people, layout.num_joints), np.float32)
        confidences[who, joint] = rows.confidences[is_joint, 0]
    first, count = np.unique(person, return_index=True, return_counts=True)[1:]
    return Rows(
        replace(rows.columns, layout=layout),
        joints,
        confidences,
        {column: coded.take(first) for column, coded in rows.texts.items()},
        None if rows.image is None else (rows.image[0].take(first), rows.image[1].take(first)),
        rows.lines[first],
        _problems_of_people(rows.problems, person, count),
    )


def of_individuals(columns: tuple[str, ...], individuals: Sequence[str]) -> tuple[Columns, list[str]]:
    """The meaning of a table with columns for each of several people, those of one after those of another, and who these are.

    People who have other joints than the first one are not read: DeepLabCut puts what belongs to nobody into an individual of its own.

    Raises:
        ValueError: as `columns_of`, of the first.
    """
    people = [name for name in dict.fromkeys(individuals) if name]
    found = {}
    for person in people:
        theirs = tuple(name if whose in ("", person) else "" for name, whose in zip(columns, individuals, strict=True))
        try:
            found[person] = columns_of(theirs)
        except ValueError:
            if person == people[0]:
                raise
    first = found[people[0]]
    alike = [person for person, one in found.items() if one.layout == first.layout and bool(one.confidences) == bool(first.confidences)]
    used = {column for person in alike for column in found[person].numbers}
    unused = [column for column, whose in enumerate(individuals) if whose and column not in used and columns[column].endswith(("_x", "_y"))]
    joined = replace(
        first,
        coordinates=[joint for person in alike for joint in found[person].coordinates],
        confidences=[column for person in alike for column in found[person].confidences],
        unused=unused,
    )
    return joined, alike


def a_row_an_individual(rows: Rows, people: Sequence[str]) -> Rows:
    """Rows of all people of a frame, as `of_individuals` joins their columns, parted into one for each."""
    n, joints = len(people), rows.columns.layout.num_joints

    def each(coded: Coded) -> Coded:
        return Coded(coded.values, np.repeat(coded.codes, n))

    person = Coded(pa.array(people, pa.string()), np.tile(np.arange(n), len(rows)))
    return Rows(
        replace(rows.columns, person=_OF_INDIVIDUALS, coordinates=rows.columns.coordinates[:joints], confidences=rows.columns.confidences[:joints]),
        rows.joints.reshape(len(rows) * n, joints, rows.joints.shape[2]),
        None if rows.confidences is None else rows.confidences.reshape(len(rows) * n, joints),
        {**{column: each(coded) for column, coded in rows.texts.items()}, _OF_INDIVIDUALS: person},
        None if rows.image is None else (each(rows.image[0]), each(rows.image[1])),
        np.repeat(rows.lines, n),
        {row * n + i: problem for row, problem in rows.problems.items() for i in range(n if problem.share == 1 else 1)},
    )


def _problems_of_people(problems: dict[int, Problem], person: np.ndarray, count: np.ndarray) -> dict[int, Problem]:
    """The first problem among the rows of each person and frame, of whom there are `count`, and the share of all."""
    found: dict[int, Problem] = {}
    for row, problem in sorted(problems.items(), key=lambda item: item[1].line):
        who = int(person[row])
        first = found.get(who, replace(problem, share=0.0))
        found[who] = replace(first, share=first.share + problem.share)
    return {who: replace(problem, share=problem.share / int(count[who])) for who, problem in found.items()}


def numbered(codes: Sequence[np.ndarray], count: int) -> np.ndarray:
    """A number for each of `count` rows, the same where all `codes` (-1 or more) are; from 0, in the order of appearance.  # [count] int32"""
    number = np.zeros(count, np.int32)
    for column in codes:
        key = number.astype(np.int64)
        key *= int(column.max(initial=0)) + 2
        key += column
        number = pa.array(key).dictionary_encode().indices.to_numpy()
    return number


def _poses(values: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints, NaN where they were not found, and their confidences, of the numbers of some rows.  # [n, J, 2 or 3], [n, J]"""
    count = shape[0] * shape[1]
    joints, confidences = values[:, :count].reshape(-1, *shape), None
    is_missing = np.isnan(joints).any(axis=2)
    if values.shape[1] > count:
        confidences = np.nan_to_num(values[:, count:])
        is_missing |= confidences <= 0
    joints[is_missing] = np.nan
    return joints, confidences


class _Growing:
    """An array that grows at its end, never twice in memory."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        self._array: np.ndarray = np.empty((0, *shape), dtype)
        self.count = 0

    def add(self, rows: np.ndarray) -> None:
        end = self.count + len(rows)
        if end > len(self._array):
            self._resize(max(end, len(self._array) * 9 // 8))
        self._array[self.count : end] = rows
        self.count = end

    def whole(self) -> np.ndarray:
        self._resize(self.count)
        return self._array

    def _resize(self, count: int) -> None:
        self._array.resize((count, *self._array.shape[1:]), refcheck=False)


def _folder_and_file(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """`a/b/1.jpg` -> /a/b, 1.jpg."""
    names = pc.binary_join_element_wise("", pc.replace_substring(names, "\\", "/"), "/")  # now each has a folder
    parts = pc.split_pattern(names, "/", max_splits=1, reverse=True)
    return pc.list_element(parts, 0), pc.list_element(parts, 1)


def _coded(blocks: list[pa.Array]) -> Coded:
    if not blocks:
        return Coded(pa.array([], pa.string()), np.zeros(0, np.int32))
    whole = pa.chunked_array(blocks).unify_dictionaries().combine_chunks()
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    return Coded(whole.dictionary, whole.indices.to_numpy())
