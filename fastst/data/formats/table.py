"""Texts of rows and columns (CSV and its relatives): how one is written, and its rows a block at a time, as fast as the disk or line by line."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from fastst.data.formats.content import encoding_of, head_of
from fastst.data.progress import open_with_progress
from fastst.data.walks import DataError

_SEPARATORS = ",;\t|"
_MISSING = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "Null", "NULL", "None", "none")
_NUMBER = r"^[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
_MISSING_CELL = rf"^[ \t]*({'|'.join(_MISSING)})?[ \t]*$"
_WITH_DECIMALS = re.compile(r"[+-]?\d*([.,])\d+")
_ROWS_LOOKED_AT = 20  # to see how a table is written
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """How a table is written.

    Args:
        separator: what stands between two columns.
        decimal: the point or comma of a number.
        quoted: whether cells stand in quotes, some at least.
        columns: their names, without spaces around them; empty where a column has none.
        header_lines: lines above the first row.
    """

    separator: str
    decimal: str
    quoted: bool
    columns: tuple[str, ...]
    header_lines: int


@dataclass
class Block:
    """n rows of a table.

    Args:
        texts: column number -> its cells.  # [n] strings
        values: the columns of numbers; NaN where missing.  # [n, m] float32
        lines: the line of each row, where rows are read one by one.  # [n] int64
        problems: row -> what is wrong with it.
    """

    texts: dict[int, pa.Array]
    values: np.ndarray
    lines: np.ndarray | None = None
    problems: dict[int, str] = field(default_factory=dict)


class MalformedRow(Exception):
    """The table has a row that must be looked at one by one."""


@lru_cache(maxsize=2)  # every form of text asks
def table_of(text: str) -> Table | None:
    """How the table is written whose first lines are `text`; None if these have no columns.

    DeepLabCut's three or four lines of names (scorer, individuals, bodyparts, coords) become one.
    """
    lines = re.split("\r\n|\r|\n", text)
    above = next((number for number, line in enumerate(lines) if line.strip() and not re.fullmatch(r"(?i)sep=.", line.strip())), 0)
    separator = max(_SEPARATORS, key=lambda separator: len(fields_of(lines[above], separator)))
    start = [[cell.strip() for cell in fields_of(line, separator)] for line in lines[above : above + _ROWS_LOOKED_AT + 1]]
    columns, header = start[0], 1
    if len(columns) < 2:
        return None
    if columns[0].lower() == "scorer":
        columns, header = _deeplabcut_names(start)
    rows = [row for row in (start if len(lines) > above + len(start) else start[:-1])[header:] if any(row)]
    columns = _with_unnamed(columns, rows)
    marks = Counter(match[1] for row in rows for cell in row if (match := _WITH_DECIMALS.fullmatch(cell)))
    quotes = [line.count('"') for line in lines[above : above + len(start)]]
    quoted = any(quotes) and not any(count % 2 for count in quotes)
    return Table(separator, "," if marks[","] > marks["."] else ".", quoted, tuple(columns), above + header)


def fields_of(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    return next(csv.reader([line], delimiter=separator), [])


def _deeplabcut_names(lines: list[list[str]]) -> tuple[list[str], int]:
    """Names of columns, and how many lines they take."""
    count = next((number for number, line in enumerate(lines, start=1) if line[:1] == ["coords"]), 1)
    several = [line for line in lines[1:count] if len(set(line[1:])) > 1]  # one individual needs no name
    return ["frame", *("_".join(parts) for parts in zip(*(line[1:] for line in several), strict=False))], count


def _with_unnamed(columns: list[str], rows: list[list[str]]) -> list[str]:
    """`columns` with a column that the rows have and the header hasn't: a running number at the left, or nothing at the right."""
    if not rows or any(len(row) != len(columns) + 1 for row in rows):
        return columns
    if not any(row[-1] for row in rows):
        return [*columns, ""]
    first = [row[0] for row in rows]
    counts_up = first[0] in ("0", "1") and first == [str(number) for number in range(int(first[0]), int(first[0]) + len(first))]
    return ["", *columns] if counts_up else columns


def read_blocks(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], progress: bool, careful: bool) -> Iterator[Block]:
    """The rows of a table, of the columns `texts` and `numbers`.

    Args:
        careful: find out which line can't be read, and why; several times slower.

    Raises:
        MalformedRow: a row can't be read, if not `careful`.
        DataError: the file can't be read at all, if `careful`.
    """
    try:
        yield from (_read_one_by_one if careful else _read_well_formed)(path, table, texts, numbers, progress)
    except pa.ArrowInvalid as error:
        if not careful:
            raise MalformedRow from None
        raise DataError(f"{path} is not a readable CSV file: {error}; expected lines of {len(table.columns)} columns") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None


def _read_well_formed(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], progress: bool) -> Iterator[Block]:
    types = dict.fromkeys(texts, pa.binary()) | dict.fromkeys(numbers, pa.float32())
    with _open(path, table, types, arrow_csv.ParseOptions(delimiter=table.separator), progress) as reader:
        for batch in reader:
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns[len(texts) :]]
            values = np.stack(columns, axis=1) if columns else np.empty((batch.num_rows, 0), np.float32)  # [n, m]
            if np.isinf(values).any():
                raise MalformedRow
            yield Block({column: _text(batch.column(i)) for i, column in enumerate(texts)}, values)


def _read_one_by_one(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], progress: bool) -> Iterator[Block]:
    skipped: list[tuple[int, list[str], str]] = []

    def skip_row(row: arrow_csv.InvalidRow) -> str:
        problem = f"{row.actual_columns} columns, expected {len(table.columns)}"
        skipped.append((row.number, fields_of(row.text, table.separator), problem))
        return "skip"

    # An empty line is kept as a row, and there is one thread: only so the number of a row tells the number of its line. A lonely quote, which would
    # take all that follows into its cell, is an ordinary character where cells aren't quoted.
    quote = '"' if table.quoted else False
    options = arrow_csv.ParseOptions(delimiter=table.separator, quote_char=quote, ignore_empty_lines=False, invalid_row_handler=skip_row)
    next_line = table.header_lines + 1
    with _open(path, table, dict.fromkeys([*texts, *numbers], pa.binary()), options, progress) as reader:
        for batch in reader:
            lines = _line_numbers(next_line, batch.num_rows, [line for line, _, _ in skipped])
            next_line = int(lines[-1]) + 1 if len(lines) else next_line
            yield _checked(batch, lines, table, texts, numbers)
            if before := [row for row in skipped if row[0] < next_line]:
                yield _of_skipped(before, texts, len(numbers))
                skipped[:] = [row for row in skipped if row[0] >= next_line]
    if skipped:
        yield _of_skipped(skipped, texts, len(numbers))


@contextmanager
def _open(path: Path, table: Table, types: dict[int, pa.DataType], parse: arrow_csv.ParseOptions, progress: bool) -> Iterator[Any]:
    """A reader of record batches with the columns and types of `types`; columns are called by their numbers."""
    is_small = path.stat().st_size <= _BLOCK_BYTES
    reads = arrow_csv.ReadOptions(
        use_threads=parse.ignore_empty_lines and not is_small,  # who wants the lines of rows can have one thread only
        block_size=_BLOCK_BYTES,
        skip_rows=table.header_lines,
        column_names=[str(number) for number in range(len(table.columns))],
    )
    converts = arrow_csv.ConvertOptions(
        check_utf8=False,
        column_types={str(number): kind for number, kind in types.items()},
        include_columns=[str(number) for number in types],
        null_values=["", *_MISSING],
        decimal_point=table.decimal,
    )
    with open_with_progress(path, path.name, progress) as file:
        try:
            reader = arrow_csv.open_csv(_in_utf8(file, encoding_of(head_of(path)), is_small), reads, parse, converts)
        except pa.ArrowInvalid as error:
            if "Empty CSV" not in str(error):
                raise
            yield ()
            return
        with reader:
            yield reader


def _in_utf8(file: BinaryIO, encoding: str, is_small: bool) -> Any:
    """The bytes of the file, of UTF-8 where they were of UTF-16."""
    if encoding.startswith("utf-16"):
        return codecs.EncodedFile(file, "utf-8", encoding, errors="replace")
    return pa.BufferReader(file.read()) if is_small else file  # thousands of small files are faster without calls back into Python


def _line_numbers(first: int, count: int, skipped: Sequence[int]) -> np.ndarray:
    """The lines of `count` rows from line `first` on, where the lines `skipped` are no rows.  # [count]"""
    lines = np.arange(first, first + count + len(skipped))
    return lines[~np.isin(lines, skipped)][:count]


def _checked(batch: pa.RecordBatch, lines: np.ndarray, table: Table, texts: Sequence[int], numbers: Sequence[int]) -> Block:
    """The rows of a batch of bytes, without those that are empty."""
    columns = [_numbers(cells, table.separator != "," or table.decimal == ",") for cells in batch.columns[len(texts) :]]
    values = np.stack([values for values, _ in columns], axis=1)  # [n, m]
    is_bad = np.stack([bad for _, bad in columns], axis=1)  # [n, m]
    names = {column: _text(batch.column(i)) for i, column in enumerate(texts)}
    is_empty = np.isnan(values).all(axis=1) & ~is_bad.any(axis=1)
    for cells in names.values():
        is_empty &= pc.equal(cells, "").to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(~is_empty)
    problems = {}
    for row in np.flatnonzero(is_bad[kept].any(axis=1)):
        column = int(is_bad[kept[row]].argmax())
        value = (batch.column(len(texts) + column)[int(kept[row])].as_py() or b"").decode(errors="replace")
        problems[int(row)] = f"{table.columns[numbers[column]]} is {value[:80]!r}, expected a finite number"
    return Block({column: cells.take(pa.array(kept)) for column, cells in names.items()}, values[kept], lines[kept], problems)


def _of_skipped(skipped: list[tuple[int, list[str], str]], texts: Sequence[int], count: int) -> Block:
    """Rows with another number of columns, of which only the texts are known."""
    names = {column: pa.array([cells[column] if column < len(cells) else "" for _, cells, _ in skipped], pa.string()) for column in texts}
    lines = np.array([line for line, _, _ in skipped])
    return Block(names, np.full((len(skipped), count), np.nan, np.float32), lines, {i: problem for i, (_, _, problem) in enumerate(skipped)})


def _numbers(cells: pa.Array, with_comma: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cells of text as float32 [n], NaN where missing, and whether they are neither missing nor a finite number [n]; a point may be a comma."""
    if with_comma:
        cells = pc.replace_substring(cells, ",", ".")
    is_number = pc.fill_null(pc.match_substring_regex(cells, _NUMBER), False)
    is_missing = pc.fill_null(pc.match_substring_regex(cells, _MISSING_CELL), True)
    text = pc.ascii_trim_whitespace(pc.if_else(is_number, cells, None).cast(pa.string()))
    numbers = pc.replace_substring_regex(text, r"^\+", "").cast(pa.float32()).to_numpy(zero_copy_only=False)
    return numbers, pc.invert(pc.or_(is_number, is_missing)).to_numpy(zero_copy_only=False) | np.isinf(numbers)


def _text(cells: pa.Array) -> pa.Array:
    """Bytes as strings: of UTF-8, or of latin-1 where they are not."""
    try:
        return cells.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(cell) for cell in cells.to_pylist()], pa.string())


def _decoded(cell: bytes) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell.decode("latin-1")
