"""Reader of ultralytics' CSV of YOLO-pose (`Results.to_csv()`, or the table of `to_df()`): a row a detection, its box and keypoints as dicts."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from fastst.data.formats.columns import roles_of
from fastst.data.formats.content import encoding_of, head_of, parse_text
from fastst.data.formats.form import Form
from fastst.data.formats.records import Table
from fastst.data.formats.table import table_of
from fastst.data.formats.ultralytics import add_detections
from fastst.data.progress import open_with_progress
from fastst.data.recording import File, Recording
from fastst.data.walks import DataError

_ROWS_AT_ONCE = 2000
_USED = ("box", "keypoints", "confidence", "track_id")
_PYTHON = {"'": '"', "None": "null", "nan": "NaN", "inf": "Infinity"}  # and as JSON has it
_IN_PYTHON = re.compile("'|None|nan|inf")


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
    table, frame, last = Table(file), 0, -1
    try:
        with open_with_progress(file.path, file.path.name, progress) as opened:
            lines = io.TextIOWrapper(opened, encoding_of(head_of(file.path)), errors="replace", newline="")
            rows = (row for row in csv.reader(lines, delimiter=how.separator) if any(row))
            for some in _batches(itertools.islice(rows, how.header_lines, None)):
                frames: list[Any] = [0 if column is None else row[column] if column < len(row) else None for row in some]
                for i, row in enumerate(some if is_indexed else ()):
                    index = int(row[0]) if row[0].isdecimal() else last + 1
                    frame, last = frame + (index <= last), index
                    frames[i] = frame
                add_detections(table, list(zip(frames, _detections(how.columns, some), strict=True)), file)
    except OSError as error:
        raise DataError(f"{file.path} can't be read: {error.strerror}") from None
    except csv.Error as error:
        raise DataError(f"{file.path} can't be read as CSV: {error}; write it again") from None
    return table.frame() if column is None and not frame else table.recordings()


def _batches(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        yield some


def _detections(columns: Sequence[str], rows: list[list[str]]) -> list[Any]:
    """What the rows say, with arrays; a row that can't be read is its text."""
    used = [(columns.index(name), name) for name in _USED if name in columns]
    texts = ["{" + ",".join(f'"{name}":{row[column] or "null"}' for column, name in used if column < len(row)) + "}" for row in rows]
    with contextlib.suppress(ValueError, RecursionError):
        found = parse_text(_as_json(f"[{','.join(texts)}]"))
        if len(found) == len(texts):  # no row has a brace too many
            return found
    return [_detection(text) for text in texts]


def _detection(text: str) -> Any:
    try:
        return parse_text(_as_json(text))
    except (ValueError, RecursionError):
        return text


def _as_json(text: str) -> bytes:
    return _IN_PYTHON.sub(lambda found: _PYTHON[found[0]], text).encode(errors="replace")


FORM = Form(
    name="ultralytics' CSV",
    recognises=_recognises,
    read=_read,
    sample=""",name,class,confidence,box,track_id,keypoints
0,person,0,0.92,"{'x1': 140.1, 'y1': 60.2, 'x2': 191.1, 'y2': 193.9}",1,"{'x': [165.8, ...], 'y': [78.0, ...], 'visible': [0.93, ...]}"
...""",
)
