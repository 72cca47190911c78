"""Reader of tables of poses: columns of x, y and, if there, z and confidence for every joint, a row a person and frame; or a row a joint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastst.data.formats.columns import columns_of, is_long, long_columns_of
from fastst.data.formats.deal import NOTHING, Dealt, deal, follows, in_order, sort
from fastst.data.formats.form import Form
from fastst.data.formats.rows import Rows, a_row_a_person, read_rows
from fastst.data.formats.table import MalformedRow, Table, table_of
from fastst.data.recording import Detections, File, Recording
from fastst.data.walks import DataError, LeftOut

_VIDEO_ENDING = re.compile(r"\.(mp4|avi|mov|mkv|webm|m4v|mpe?g|wmv)$", re.IGNORECASE)
_FRAME_WANTED = "expected a name with the frame's number, such as 001-nm-01-090/000012.jpg"


def _read(text: str, file: File, progress: bool) -> list[Recording]:
    table = table_of(text)
    assert table is not None
    try:
        return _recordings(file, table, progress, careful=False)
    except MalformedRow:
        return _recordings(file, table, progress, careful=True)


def _recordings(file: File, table: Table, progress: bool, careful: bool) -> list[Recording]:
    path = file.path
    if is_long(table.columns):
        rows = a_row_a_person(path, read_rows(path, table, long_columns_of(table.columns), progress, careful))
    else:
        try:
            columns = columns_of(table.columns)
        except ValueError as error:
            raise DataError(f"{path}, line {table.header_lines}: {error}") from None
        rows = read_rows(path, table, columns, progress, careful)
    dealt = deal(rows)
    if dealt.is_unnamed.any() and not careful:
        raise MalformedRow  # to learn the lines
    names = _names(rows, dealt)
    problems = _problems(rows, dealt)
    left_out = _damaged(path, names, problems) + _unnamed(path, table, rows, dealt)
    recordings = []
    places = file.places
    for walk, detections, again, attributes in _walks(rows, dealt):
        name = names[walk][-1] if names[walk] else path.stem
        if walk in problems:
            continue
        if torn := [f"{what} is {' and '.join(map(repr, sorted(values)))}" for what, values in attributes.items() if len(values) > 1]:
            left_out.append(LeftOut(name, f"{path}: {torn[0]} within one walk; expected one for all its rows"))
            continue
        if len(again):
            reason = f"{path}: {len(again)} row(s) repeat a frame (first: frame {again[0]}); the row with the highest mean confidence is used"
            left_out.append(LeftOut(f"{len(again)} row(s) of {name}", reason))
        said = {what: next(iter(values)) for what, values in attributes.items() if values}
        size = said.pop("imagewidth", ""), said.pop("imageheight", "")
        image_size = (int(size[0]), int(size[1])) if size[0].isdecimal() and size[1].isdecimal() else None
        fps = _number(said.pop("fps", ""))
        recordings.append(Recording(str(path), (*places, *names[walk]), rows.columns.layout, detections, fps, image_size, said))
    if not recordings:
        reasons = "; ".join(left.reason for left in left_out[:3]) or "it has no rows below the header"
        raise DataError(f"{path} has no usable walk: {reasons}")
    recordings[0] = replace(recordings[0], left_out=left_out)
    return recordings


def _walks(rows: Rows, dealt: Dealt) -> Iterator[tuple[int, Detections, np.ndarray, dict[str, set[str]]]]:
    """Every walk's number; its rows in order, the first of each frame and person; the frames of the others; and what they all say of it."""
    order = in_order(rows, dealt)
    walk, frames = dealt.walk[order], dealt.frames[order]
    people = None if dealt.people is None else dealt.people[order]
    is_new = follows(*(key for key in (walk, frames, people) if key is not None))
    keys = {key: group[0] for key, group in rows.columns.keys.items() if key != "walk"}
    said = {what: rows.texts[column].take(order) for what, column in (keys | rows.columns.attributes).items()}
    whole = Detections(frames, sort(rows.joints, order), None if rows.confidences is None else sort(rows.confidences, order), ids=people)
    starts = np.flatnonzero(np.diff(walk, prepend=-1))
    repeated = np.add.reduceat(~is_new, starts) if len(starts) else starts
    for start, end, again in zip(starts, np.append(starts, len(walk))[1:], repeated, strict=True):
        here = slice(start, end)
        rows_used = here if not again else start + np.flatnonzero(is_new[here])
        values = {what: [coded.values[int(code)].as_py().strip() for code in np.unique(coded.codes[here])] for what, coded in said.items()}
        attributes = {what: {value for value in found if value.lower() not in NOTHING} for what, found in values.items()}
        yield int(walk[start]), whole.take(rows_used), frames[here][~is_new[here]] if again else frames[:0], attributes


def _names(rows: Rows, dealt: Dealt) -> list[tuple[str, ...]]:
    """Of every walk the parts of its name: folders, what images' names share, and as much of the other columns as it takes to tell walks apart."""
    first = np.unique(dealt.walk, return_index=True)[1]

    def values(column: int) -> list[str]:
        return [rows.texts[column].values[int(code)].as_py().strip() for code in rows.texts[column].codes[first]]

    walks = [
        tuple(part for value in values for part in _parts(_VIDEO_ENDING.sub("", value.replace("\\", "/"))))
        for values in zip(*(values(column) for column in rows.columns.keys.get("walk", [])), strict=True)
    ] or [()] * len(first)
    files = [
        tuple(part for coded in dealt.names for part in _parts("" if coded.codes[row] < 0 else coded.values[int(coded.codes[row])].as_py()))
        for row in first
    ]
    names = [tuple(part for part in (*walk, *file) if part.lower() not in NOTHING) for walk, file in zip(walks, files, strict=True)]
    others = [values(group[0]) for key, group in rows.columns.keys.items() if key != "walk"]
    if others and (len(set(names)) < len(names) or () in names):
        names = [(*(value for value in said if value.lower() not in NOTHING), *name) for *said, name in zip(*others, names, strict=True)]
    return names


def _parts(name: str) -> list[str]:
    """`d/001-nm-01-090/` -> d, 001-nm-01-090; a frame's number, \\0 in the name, and what joined it are left out."""
    return [part for piece in name.replace("\0", "").split("/") if (part := piece.strip("_-. "))]


def _problems(rows: Rows, dealt: Dealt) -> dict[int, list[tuple[int, str]]]:
    """Walk -> line and problem of its rows that can't be used, in the order of the lines."""
    problems: dict[int, list[tuple[int, str]]] = {}
    for row, problem in rows.problems.items():
        if not dealt.is_unnamed[row]:
            problems.setdefault(int(dealt.walk[row]), []).append(problem)
    return {walk: sorted(found) for walk, found in problems.items()}


def _damaged(path: Path, names: list[tuple[str, ...]], problems: dict[int, list[tuple[int, str]]]) -> list[LeftOut]:
    return [
        LeftOut(names[walk][-1] if names[walk] else path.stem, f"{path}, line {found[0][0]}: {found[0][1]}{_and_more(len(found))}")
        for walk, found in problems.items()
    ]


def _unnamed(path: Path, table: Table, rows: Rows, dealt: Dealt) -> list[LeftOut]:
    """The rows that don't say which frame they are."""
    unnamed = np.flatnonzero(dealt.is_unnamed)
    if not len(unnamed):
        return []
    assert rows.lines is not None
    row = unnamed[np.argmin(rows.lines[unnamed])]
    column = rows.columns.frame if rows.columns.frame is not None else rows.columns.image
    assert column is not None
    if column in rows.texts:
        coded, wanted = rows.texts[column], "expected a whole number or " + _FRAME_WANTED.removeprefix("expected ")
        value = coded.values[int(coded.codes[row])].as_py()
    else:
        assert rows.image is not None
        value, wanted = "/".join(coded.values[int(coded.codes[row])].as_py() for coded in rows.image)[1:], _FRAME_WANTED
    reason = f"{path}, line {rows.lines[row]}: {table.columns[column]} is {value[:80]!r}, {wanted}{_and_more(len(unnamed))}"
    return [LeftOut(f"{len(unnamed)} row(s) of {path.name}", reason)]


def _and_more(count: int) -> str:
    return f" (and {count - 1} more such line(s))" if count > 1 else ""


def _number(text: str) -> float | None:
    try:
        return float(text) if float(text) > 0 else None
    except ValueError:
        return None


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
