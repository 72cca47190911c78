"""Reader of ultralytics' CSV of YOLO-pose (`Results.to_csv()`, or the table of `to_df()`): a row a detection, its box and keypoints as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fastst.data.formats.columns import roles_of
from fastst.data.formats.content import parse_text
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table
from fastst.data.formats.table import read_blocks, table_of
from fastst.data.formats.ultralytics import add_detections
from fastst.data.recording import File, Recording

_USED = ("box", "keypoints", "track_id")  # beside the confidence
_PYTHON = ((b"None", b"null"), (b"nan", b"NaN"), (b"inf", b"Infinity"))  # and as JSON has it
_MOST_DIGITS = 18  # of a number
_QUOTES = bytes.maketrans(b"'", b'"')


def _recognises(text: str) -> bool:
    table = table_of(text)
    return table is not None and {"class", "confidence", "box"} <= set(table.columns)


def _read(text: str, file: File, progress: bool) -> list[Recording]:
    """Frames are told by a column, or by pandas' index, which starts again in each; without either all rows are of one."""
    how = table_of(text)
    assert how is not None
    roles = roles_of(how.columns)
    column = roles.get("frame", roles.get("image"))
    is_indexed = column is None and how.columns[0] == ""
    used = {name: how.columns.index(name) for name in _USED if name in how.columns}
    texts = sorted({*used.values(), *([0] if is_indexed else [] if column is None else [column])})
    table, frame, last = Table(file), 0, -1
    for block in read_blocks(file.path, how, texts, [how.columns.index("confidence")], progress):
        for problem in block.problems.values():
            table.leave_out(f"line {problem.line}: {problem.words}")
        rows = np.setdiff1d(np.arange(len(block.lines)), list(block.problems))
        cells = {number: block.texts[number].take(pa.array(rows)).to_pylist() for number in texts}
        frames: list[Any] = [0] * len(rows) if column is None else [_number(cell) for cell in cells[column]]
        for i, cell in enumerate(cells[0] if is_indexed else ()):
            index = _number(cell)
            index = index if isinstance(index, int) else last + 1
            frame, last = frame + (index <= last), index
            frames[i] = frame
        columns = {name: _values(cells[number]) for name, number in used.items()} | {"confidence": block.values[rows, 0].tolist()}
        detections = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        add_detections(table, list(zip(frames, detections, strict=True)), file)
    return table.frame() if column is None and not frame else table.recordings()


def _number(cell: str) -> int | str:
    return int(cell) if cell.isdecimal() and len(cell) <= _MOST_DIGITS else cell


def _values(cells: list[str]) -> list[Any]:
    """What the cells of a column say, with arrays; a cell that can't be read is its text."""
    whole = _value(f"[{','.join([cell or 'null' for cell in cells])}]")
    return list(whole) if isinstance(whole, list | np.ndarray) and len(whole) == len(cells) else [_value(cell) if cell else None for cell in cells]


def _value(text: str) -> Any:
    as_json = text.encode(errors="replace").translate(_QUOTES)
    for python, json in _PYTHON:
        as_json = as_json.replace(python, json)
    try:
        return parse_text(as_json)
    except (ValueError, RecursionError):
        return text


FORM = Form(
    name="ultralytics' CSV",
    recognises=_recognises,
    read=_read,
    sample=""",name,class,confidence,box,track_id,keypoints
0,person,0,0.92,"{'x1': 140.1, 'y1': 60.2, 'x2': 191.1, 'y2': 193.9}",1,"{'x': [165.8, ...], 'y': [78.0, ...], 'visible': [0.93, ...]}"
...""",
)
