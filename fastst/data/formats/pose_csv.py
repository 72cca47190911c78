"""Reader of tables of poses: columns of x, y and, if there, z and confidence for every joint, a row a person and frame; or a row a joint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastst.data.formats.clock import rate_of
from fastst.data.formats.columns import columns_of, is_long, long_columns_of, unit_of_time
from fastst.data.formats.deal import NOTHING, Dealt, deal, follows, in_order, restarts, sort
from fastst.data.formats.form import Form
from fastst.data.formats.rows import Coded, Rows, a_row_a_person, a_row_an_individual, of_individuals, read_rows
from fastst.data.formats.table import Problem, Table, table_of
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut
from fastst.layouts import Layout

_VIDEO_ENDING = re.compile(r"\.(mp4|avi|mov|mkv|webm|m4v|mpe?g|wmv)$", re.IGNORECASE)
_THOUSANDS_SEEN = 10  # different numbers
_PARTS_WANTED = (
    "so several walks or people stand one below the other; give each row a column `walk` that says of which it is "
    "(or `person`, if they are people of one video)"
)
_FRAME_WANTED = "a name with the frame's number, such as 001-nm-01-090/000012.jpg"


def _read(text: str, file: File, progress: bool) -> list[Recording]:
    table = table_of(text)
    assert table is not None
    path = file.path
    if is_long(table.columns):
        rows = a_row_a_person(path, read_rows(path, table, long_columns_of(table.columns), progress))
    else:
        try:
            columns, people = of_individuals(table.columns, table.individuals) if table.individuals else (columns_of(table.columns), [])
        except ValueError as error:
            raise DataError(f"{path}, line {table.header_lines}: {error}") from None
        rows = read_rows(path, table, columns, progress)
        rows = a_row_an_individual(rows, people) if people else rows
    if table.separator != "," and table.decimal == ".":
        _refuse_thousands(path, table, rows)
    dealt = deal(rows)
    _refuse_id(path, rows, dealt)
    names = _names(rows, dealt)
    problems = _problems(rows, dealt)
    is_broken = _are_mostly_broken(problems, dealt)
    left_out = _unused(path, table, rows) + _damaged(path, names, problems, is_broken) + _unnamed(path, table, rows, dealt)
    recordings = []
    torn: dict[str, list[str]] = defaultdict(list)
    places = file.places
    order = in_order(rows, dealt)
    is_again, second_parts = _repeated(rows, dealt, order)
    for walk, detections, again, attributes, times in _walks(rows, dealt, order, is_again):
        name = names[walk][-1] if names[walk] else path.stem
        if walk in is_broken:
            continue
        if walk in second_parts:
            line = rows.lines[second_parts[walk]]
            left_out.append(LeftOut(name, f"{path}, line {line}: the frame numbers start again, {_PARTS_WANTED}"))
            continue
        if len(again):
            reason = f"{path}: {len(again)} row(s) repeat a frame (first: frame {again[0]}); the row with the highest mean confidence is used"
            left_out.append(LeftOut(f"{len(again)} row(s) of {name}", reason))
        for what, values in attributes.items():
            if len(values) > 1:
                torn[what].append(f"{' and '.join(map(repr, sorted(values)[:3]))} in {name}")
        said = {what: next(iter(values)) for what, values in attributes.items() if len(values) == 1}
        recording = _recording(str(path), (*places, *names[walk]), rows.columns.layout, detections, said)
        recordings.append(
            _timed(recording, times, table.columns[rows.columns.time]) if times is not None and rows.columns.time is not None else recording
        )
    for what, found in torn.items():
        left_out.append(LeftOut(f"{what} of {len(found)} walk(s)", f"{path}: {what} is {found[0]}; expected one for all rows of a walk"))
    if not recordings:
        reasons = "; ".join(left.reason for left in left_out[:3]) or "it has no rows below the header"
        raise DataError(f"{path} has no usable walk: {reasons}")
    recordings[0] = replace(recordings[0], left_out=left_out)
    return recordings


def _refuse_thousands(path: Path, table: Table, rows: Rows) -> None:
    """Of pixels with points of thousands, 998 and 1.002 follow each other: whole numbers from 100 on, others below 10, and none between them.

    Where all are beyond 1,000 every number of an axis is from 1.000 to 9.999, which metres hardly are.
    """
    for joint, axis in np.ndindex(rows.joints.shape[1:]):
        values = np.abs(rows.joints[:, joint, axis])
        is_small, is_large = (values >= 1) & (values < 10), values >= 100
        if not (is_small.any() and is_large.any()) or ((values >= 10) & ~is_large).any() or (values[is_large] % 1).any():
            continue
        small, large = values[is_small][0], values[is_large][0]
        if np.count_nonzero(values[is_small] % 1) * 2 > np.count_nonzero(is_small):
            where = table.columns[rows.columns.coordinates[joint if rows.columns.landmark is None else 0][axis]]
            found = f"{where} jumps between {large:g} and {small:.3f}, as if points stood for thousands"
            raise DataError(f"{path}: {found}; write the numbers without a separator of thousands")
    places = rows.joints[np.isfinite(rows.joints)].astype(np.float64)
    in_thousands = (places >= 1) & (places < 10) & (np.abs(places * 1000 - np.round(places * 1000)) < 0.01)
    if len(np.unique(places[in_thousands])) < _THOUSANDS_SEEN or (places[~in_thousands] % 1).any():
        return
    for axis in range(rows.joints.shape[2]):
        values = rows.joints[..., axis]
        values = values[np.isfinite(values) & (values != 0)]
        if len(values) and ((values >= 1) & (values < 10)).all() and (values % 1).any():
            found = f"every {'xyz'[axis]} is from 1 to 10 with three decimals, such as {values[0]:.3f}, as if points stood for thousands"
            raise DataError(
                f"{path}: {found}; write the numbers without a separator of thousands, or, if they are metres, with commas between columns"
            )


def _refuse_id(path: Path, rows: Rows, dealt: Dealt) -> None:
    """A column `ID` may be who is seen in one video, or whose walk of several it is; walks begin in one frame, people of a video hardly ever do."""
    if rows.columns.person is None or rows.columns.is_track or rows.columns.keys or rows.image is not None or dealt.people is None:
        return
    people, first = np.unique(dealt.people, return_inverse=True)
    begin = np.full(len(people), np.iinfo(np.int64).max)
    np.minimum.at(begin, first, dealt.frames)
    if len(people) > 1 and (begin == begin[0]).all():
        raise DataError(
            f"{path}: its {len(people)} IDs all begin in frame {begin[0]}, so that they may be people of one video or walks of several; "
            "call that column `track` if they are seen together, and `subject` or `walk` if everybody was recorded alone"
        )


def _recording(source: str, places: tuple[str, ...], layout: Layout, detections: Detections, said: dict[str, str]) -> Recording:
    width, height = (said.pop(side, "") for side in ("imagewidth", "imageheight"))
    image_size = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    return Recording(source, places, layout, detections, _positive(said.pop("fps", "")), image_size, said)


def _timed(recording: Recording, times: Coded, column: str) -> Recording:
    """With the frame rate that the times of its frames tell, unless the file says one."""
    frames, first = np.unique(recording.detections.frames, return_index=True)
    has_time = times.codes[first] >= 0
    texts = [times.at(row).strip() for row in first[has_time]]
    found = rate_of(frames[has_time], texts, unit_of_time(column)) if recording.fps is None else None
    return recording if found is None else replace(recording, fps=found[0], clock=f"{column!r}, in {found[1]}")


def _repeated(rows: Rows, dealt: Dealt, order: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Which of the rows in `order` repeat a person, and, for walks of several parts, the row where the second starts.  # [m] bool

    Where the file doesn't say who it is, rows of one frame are several people, unless they are the same in all joints.
    """
    keys = [key[order] for key in (dealt.walk, dealt.frames, dealt.people) if key is not None]
    again = np.flatnonzero(~follows(*keys))
    here, before = rows.joints[order[again]], rows.joints[order[again - 1]]
    is_equal = ((here == before) | (np.isnan(here) & np.isnan(before))).all(axis=(1, 2))
    is_known = np.zeros(len(again), bool) if dealt.people is None else dealt.people[order[again]] >= 0
    is_again = np.zeros(len(order), bool)
    is_again[again] = is_equal | is_known
    return is_again, restarts(order, dealt, order[again[~is_equal]])


def _walks(
    rows: Rows, dealt: Dealt, order: np.ndarray, is_again: np.ndarray
) -> Iterator[tuple[int, Detections, np.ndarray, dict[str, set[str]], Coded | None]]:
    """Every walk's number; its rows in order, without those that repeat others; the frames of these; what they all say of it; the rows' times."""
    walk, frames = dealt.walk[order], dealt.frames[order]
    people = None if dealt.people is None else dealt.people[order]
    keys = {key: group[0] for key, group in rows.columns.keys.items() if key != "walk"}
    said = {what: rows.texts[column].take(order) for what, column in (keys | rows.columns.attributes).items()}
    times = None if rows.columns.time is None else rows.texts[rows.columns.time].take(order)
    whole = Detections(frames, sort(rows.joints, order), None if rows.confidences is None else sort(rows.confidences, order), ids=people)
    starts = np.flatnonzero(np.diff(walk, prepend=-1))
    repeated = np.add.reduceat(is_again, starts) if len(starts) else starts
    for start, end, again in zip(starts, np.append(starts, len(walk))[1:], repeated, strict=True):
        here = slice(start, end)
        rows_used = here if not again else start + np.flatnonzero(~is_again[here])
        values = {what: {coded.values[int(code)].as_py().strip() for code in np.unique(coded.codes[here])} for what, coded in said.items()}
        attributes = {what: set(_said(found)) for what, found in values.items()}
        used_times = None if times is None else times.take(np.arange(len(walk))[rows_used])
        yield int(walk[start]), whole.take(rows_used), frames[here][is_again[here]] if again else frames[:0], attributes, used_times


def _names(rows: Rows, dealt: Dealt) -> list[tuple[str, ...]]:
    """Of every walk the parts of its name: folders, what images' names share, and as much of the other columns as it takes to tell walks apart."""
    first = np.unique(dealt.walk, return_index=True)[1]

    def values(column: int) -> list[str]:
        return [rows.texts[column].at(row).strip() for row in first]

    walks = list(zip(*(values(column) for column in rows.columns.keys.get("walk", [])), strict=True)) or [()] * len(first)
    texts = [(*_said(walk), *(coded.at(row) for coded in dealt.names)) for row, walk in zip(first, walks, strict=True)]
    names = [tuple(part for text in parts for part in _parts(text)) for parts in texts]
    others = [values(group[0]) for key, group in rows.columns.keys.items() if key != "walk"]
    if others and (len(set(names)) < len(names) or () in names):
        names = [(*_said(said), *name) for *said, name in zip(*others, names, strict=True)]
    return names


def _said(values: Iterable[str]) -> list[str]:
    return [value for value in values if value.lower() not in NOTHING]


def _parts(name: str) -> list[str]:
    """`d/001-nm-01-090/` -> d, 001-nm-01-090; a frame's number, \\0 in the name, what joined it and the ending of a video are left out."""
    pieces = _VIDEO_ENDING.sub("", name.replace("\0", "").replace("\\", "/")).split("/")
    return [part for piece in pieces if (part := piece.strip("_-. "))]


def _problems(rows: Rows, dealt: Dealt) -> dict[int, list[Problem]]:
    """Walk -> what is wrong with its rows, in the order of the lines."""
    problems: dict[int, list[Problem]] = {}
    for row, problem in rows.problems.items():
        if not dealt.is_unnamed[row]:
            problems.setdefault(int(dealt.walk[row]), []).append(problem)
    return {walk: sorted(found, key=lambda problem: problem.line) for walk, found in problems.items()}


def _unused(path: Path, table: Table, rows: Rows) -> list[LeftOut]:
    """The columns of joints that are not read."""
    names = [table.columns[column] for column in rows.columns.unused]
    if not names:
        return []
    some = ", ".join(name[:40] for name in names[:12]) + (f" (and {len(names) - 12} more)" if len(names) > 12 else "")
    return [LeftOut(f"{len(names)} column(s) of {path.name}", f"{path}: {some} are not used; the joints are those of {rows.columns.layout.name}")]


def _are_mostly_broken(problems: dict[int, list[Problem]], dealt: Dealt) -> set[int]:
    """The walks of which half of the cells or more can't be read."""
    num_rows = np.bincount(dealt.walk)
    return {walk for walk, found in problems.items() if 2 * sum(problem.share for problem in found) >= num_rows[walk]}


def _damaged(path: Path, names: list[tuple[str, ...]], problems: dict[int, list[Problem]], is_broken: set[int]) -> list[LeftOut]:
    """Walks of which most can't be read; of the others the rows and the joints that can't."""
    left_out = []
    for walk, found in problems.items():
        name = names[walk][-1] if names[walk] else path.stem
        if walk in is_broken:
            left_out.append(LeftOut(name, f"{path}, {_lines(found)}; half of the walk or more can't be read: write the file again, or mend it"))
            continue
        broken, others = [problem for problem in found if problem.share == 1], [problem for problem in found if problem.share < 1]
        if broken:
            reason = f"{path}, {_lines(broken)}; the rest of the walk is used; if the file was cut off, copy or write it again"
            left_out.append(LeftOut(f"{len(broken)} row(s) of {name}", reason))
        if others:
            left_out.append(LeftOut(f"joints in {len(others)} row(s) of {name}", f"{path}, {_lines(others)}; such a joint is missing in that frame"))
    return left_out


def _lines(problems: list[Problem]) -> str:
    return f"line {problems[0].line}: {problems[0].words}{_and_more(len(problems))}"


def _unnamed(path: Path, table: Table, rows: Rows, dealt: Dealt) -> list[LeftOut]:
    """The rows that don't say which frame they are."""
    unnamed = np.flatnonzero(dealt.is_unnamed)
    if not len(unnamed):
        return []
    row = unnamed[np.argmin(rows.lines[unnamed])]
    column = rows.columns.frame if rows.columns.frame is not None else rows.columns.image
    assert column is not None
    if column in rows.texts:
        value, wanted = rows.texts[column].at(row), f"a whole number or {_FRAME_WANTED}"
    else:
        assert rows.image is not None
        value, wanted = "/".join(coded.at(row) for coded in rows.image)[1:], _FRAME_WANTED
    reason = f"{path}, line {rows.lines[row]}: {table.columns[column]} is {value[:80]!r}, expected {wanted}{_and_more(len(unnamed))}"
    return [LeftOut(f"{len(unnamed)} row(s) of {path.name}", reason)]


def _and_more(count: int) -> str:
    return f" (and {count - 1} more such line(s))" if count > 1 else ""


def _positive(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if 0 < number < np.inf else None


FORM = Form(
    name="pose CSV",
    recognises=lambda text: table_of(text) is not None,
    read=_read,
    sample="""image_name,nose_x,nose_y,nose_conf,left_eye_x,...
walks/001-nm-01-090/000001.jpg,165.8,78.0,0.93,167.1,...
walks/001-nm-01-090/000002.jpg,166.2,78.1,0.91,NA,...
or: frame;person;LEye.x;LEye.y;REye.x;...
or: frame,landmark,x,y,z,visibility""",
)
