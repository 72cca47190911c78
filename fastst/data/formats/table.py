"""Texts of rows and columns (CSV and its relatives): how one is written, and its rows a block at a time, as fast as the disk or line by line."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

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
_WITH_DECIMALS = re.compile(r"[+-]?(?:\d*|[1-9]\d{0,2}\.\d{3})([.,])\d+")
_WITH_THOUSANDS = r"^([ \t]*[+-]?[1-9][0-9]{0,2})\.([0-9]{3}(?:,[0-9]+)?[ \t]*)$"  # where decimals have a comma
_ROWS_LOOKED_AT = 20  # to see how a table is written
_LINES_ABOVE = 20  # titles and comments, at most
_BLOCK_BYTES = 1 << 20
_THREADS = 2
_LATIN_1 = "fastst.latin-1"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """How a table is written.

    Args:
        separator: what stands between two columns.
        decimal: the point or comma of a number.
        quoted: whether cells stand in quotes, some at least.
        columns: their names, without spaces around them; empty where a column has none.
        header_lines: lines above the first row.
        individuals: of each column, whose it is, where the columns of several people stand side by side; else nothing.
    """

    separator: str
    decimal: str
    quoted: bool
    columns: tuple[str, ...]
    header_lines: int
    individuals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row.

    Args:
        line: its line.
        words: what was found, and what was expected.
        share: of its cells that can't be read; 1 for a row of which nothing is used.
    """

    line: int
    words: str
    share: float


@dataclass
class Block:
    """n rows of a table.

    Args:
        texts: column number -> its cells.  # [n] strings
        values: the columns of numbers; NaN where missing or no finite number.  # [n, m] float32
        lines: the line of each row.  # [n]
        problems: row -> what is wrong with it.
    """

    texts: dict[int, pa.Array]
    values: np.ndarray
    lines: np.ndarray
    problems: dict[int, Problem] = field(default_factory=dict)


@lru_cache(maxsize=2)  # every form of text asks
def table_of(text: str) -> Table | None:
    """How the table is written whose first lines are `text`; None if these have no columns.

    Of DeepLabCut's three or four lines of names (scorer, individuals, bodyparts, coords) the last two become one. Comments and titles above the
    names are skipped.
    """
    lines = re.split("\r\n|\r|\n", text)
    above, separator = _names_of_columns(lines)
    start = [[cell.strip() for cell in fields_of(line, separator)] for line in lines[above : above + _ROWS_LOOKED_AT + 1]]
    columns, header = start[0], 1
    individuals: list[str] = []
    if len(columns) < 2:
        return None
    if columns[0].lower() == "scorer":
        columns, header, individuals = _deeplabcut_names(start)
    rows = [row for row in (start if len(lines) > above + len(start) else start[:-1])[header:] if any(row)]
    columns = _with_unnamed(columns, rows)
    marks = Counter(match[1] for row in rows for cell in row if (match := _WITH_DECIMALS.fullmatch(cell)))
    quotes = [line.count('"') for line in lines[above : above + len(start)]]
    quoted = any(quotes) and not any(count % 2 for count in quotes)
    return Table(separator, "," if marks[","] > marks["."] else ".", quoted, tuple(columns), above + header, tuple(individuals))


def _names_of_columns(lines: list[str]) -> tuple[int, str]:
    """Which of the first lines names the columns, and what separates them.

    It is the first that has several cells and is no comment; a comment right above it with as many cells are the names, as numpy writes them.
    """
    first = next((number for number, line in enumerate(lines) if line.strip() and not re.fullmatch(r"(?i)sep=.", line.strip())), 0)
    for number, line in enumerate(lines[first : first + _LINES_ABOVE], start=first):
        separator = max(_SEPARATORS, key=lambda separator: len(fields_of(line, separator)))
        count = len(fields_of(line, separator))
        if count < 2 and _has_blanks_between(lines[number : number + _ROWS_LOOKED_AT]):
            separator, count = " ", len(fields_of(line, " "))
        if count > 1 and not line.startswith("#"):
            is_named = number > first and lines[number - 1].startswith("#") and len(fields_of(lines[number - 1], separator)) == count
            if is_named:
                lines[number - 1] = lines[number - 1].lstrip("# ")
            return number - is_named, separator
    return first, _SEPARATORS[0]


def _has_blanks_between(lines: list[str]) -> bool:
    """Whether these are names and rows with a blank between their cells; the names may lack that of a running number, as R writes it."""
    counts = [len(fields_of(line.rstrip(), " ")) for line in lines[:-1] if line.strip()]
    names = fields_of(lines[0], " ")
    return (
        len(counts) > 1
        and len(names) > 2
        and set(counts[1:]) <= {counts[0], counts[0] + 1}
        and not any(re.match(r"[+-]?[.\d]", name) for name in names)
    )


def fields_of(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a cell of more than a hundred thousand characters
        return line.split(separator)


def _deeplabcut_names(lines: list[list[str]]) -> tuple[list[str], int, list[str]]:
    """Names of columns, how many lines they take, and whose each column is, where there are several individuals.

    At the left stands the frame, or, of what was labelled by hand, a folder, the video and the image.
    """
    count = next((number for number, line in enumerate(lines, start=1) if line[:1] == ["coords"]), 1)
    of = {line[0].lower(): line for line in lines[:count]}
    first = next((place for place, cell in enumerate(lines[0][1:], start=1) if cell), 1)
    index = ["frame"] if first == 1 else ["", "video", "image"][-first:]
    names = [f"{part}_{coord}" for part, coord in zip(of.get("bodyparts", [])[first:], of.get("coords", [])[first:], strict=False)]
    individuals = of.get("individuals", [])
    several = len(set(individuals[first:])) > 1
    return [*index, *names], count, [""] * first + individuals[first:] if several else []


def _with_unnamed(columns: list[str], rows: list[list[str]]) -> list[str]:
    """`columns` with a column that the rows have and the header hasn't: a running number at the left, or nothing at the right."""
    if not rows or any(len(row) != len(columns) + 1 for row in rows):
        return columns
    if not any(row[-1] for row in rows):
        return [*columns, ""]
    first = [row[0] for row in rows]
    counts_up = first[0] in ("0", "1") and first == [str(number) for number in range(int(first[0]), int(first[0]) + len(first))]
    return ["", *columns] if counts_up else columns


def read_blocks(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], progress: bool) -> Iterator[Block]:
    """The rows of a table, of the columns `texts` and `numbers`; those that can't be read are among them, as problems.

    Raises:
        DataError: the file can't be read at all.
    """

    def parsed(piece: tuple[int, bytes]) -> Block:
        return _block(path, table, texts, numbers, *piece)

    with open_with_progress(path, path.name, progress) as file:
        pieces = _pieces(_in_utf8(file, encoding_of(head_of(path))), table.header_lines)
        yield from map(parsed, pieces) if path.stat().st_size <= _BLOCK_BYTES else _ahead(parsed, pieces)


def _in_utf8(file: BinaryIO, encoding: str) -> Any:
    """The bytes of the file, of UTF-8 where they were of UTF-16."""
    return codecs.EncodedFile(file, "utf-8", encoding, errors="replace") if encoding.startswith("utf-16") else file


def _pieces(file: BinaryIO, header_lines: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines of the file below its header, some megabytes at a time, and the number of the first of them."""
    rest, line, newline = b"", 1, b""
    read = file.read(_BLOCK_BYTES)
    while read:
        following = file.read(_BLOCK_BYTES)
        data = rest + read
        newline = newline or (b"\n" if b"\n" in data else b"\r")
        while line <= header_lines and newline in data:
            data, line = data.split(newline, 1)[1], line + 1
        end = 0
        if line > header_lines:
            end = data.rfind(newline) + 1 if following else len(data)
        if end:
            yield line, data[:end]
            line += data.count(newline, 0, end)
        rest, read = data[end:], following


def _ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of each item, in order, while threads are at the next ones."""
    with ThreadPoolExecutor(_THREADS) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > _THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _block(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], line: int, data: bytes) -> Block:
    """The rows in whole lines from line `line` on; they are looked at one by one only if some can't be read."""
    lines = np.arange(line, line + _count_lines(data))
    try:
        batch = _parse(
            data, table, dict.fromkeys(texts, pa.binary()) | dict.fromkeys(numbers, pa.float32()), arrow_csv.ParseOptions(delimiter=table.separator)
        )
    except pa.ArrowInvalid:
        return _looked_at(path, table, texts, numbers, line, data)
    columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns[len(texts) :]]
    values = np.stack(columns, axis=1)  # [n, m]
    if len(values) != len(lines) or np.isinf(values).any():
        return _looked_at(path, table, texts, numbers, line, data)
    return Block({column: _text(batch.column(i)) for i, column in enumerate(texts)}, values, lines)


def _looked_at(path: Path, table: Table, texts: Sequence[int], numbers: Sequence[int], line: int, data: bytes) -> Block:
    """What `_block` says, where there are lines that can't be read or are empty."""
    skipped: list[tuple[int, list[str], str]] = []

    def skip_row(row: arrow_csv.InvalidRow) -> str:
        problem = f"{row.actual_columns} columns, expected {len(table.columns)}"
        skipped.append((line + row.number - 1, fields_of(row.text, table.separator), problem))
        return "skip"

    # An empty line is kept as a row: only so the number of a row tells the number of its line. A lonely quote, which would take all that follows
    # into its cell, is an ordinary character where cells aren't quoted.
    quote = '"' if table.quoted else False
    options = arrow_csv.ParseOptions(delimiter=table.separator, quote_char=quote, ignore_empty_lines=False, invalid_row_handler=skip_row)
    try:
        batch = _parse(_decoded(data).encode(), table, dict.fromkeys([*texts, *numbers], pa.binary()), options)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}, lines {line} to {line + _count_lines(data) - 1}: not readable as CSV ({error}); expected lines of {len(table.columns)} columns"
        ) from None
    lines = np.setdiff1d(np.arange(line, line + batch.num_rows + len(skipped)), [number for number, _, _ in skipped])
    usable, others = _checked(batch, lines, table, texts, numbers), _of_skipped(skipped, texts, len(numbers))
    return Block(
        {column: pa.concat_arrays([usable.texts[column], others.texts[column]]) for column in texts},
        np.concatenate([usable.values, others.values]),
        np.concatenate([usable.lines, others.lines]),
        usable.problems | {len(usable.values) + row: problem for row, problem in others.problems.items()},
    )


def _count_lines(data: bytes) -> int:
    newline = b"\n" if b"\n" in data else b"\r"
    return data.count(newline) + (not data.endswith(newline))


def _parse(data: bytes, table: Table, types: dict[int, pa.DataType], options: arrow_csv.ParseOptions) -> pa.RecordBatch:
    """The columns of `types`, in their order."""
    whole = arrow_csv.read_csv(
        pa.BufferReader(data),
        arrow_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=[str(number) for number in range(len(table.columns))]),
        options,
        arrow_csv.ConvertOptions(
            check_utf8=False,
            column_types={str(number): kind for number, kind in types.items()},
            include_columns=[str(number) for number in types],
            null_values=["", *_MISSING],
            decimal_point=table.decimal,
        ),
    )
    batches = whole.to_batches()  # one, because the block is larger than the data
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=whole.schema)


def _checked(batch: pa.RecordBatch, lines: np.ndarray, table: Table, texts: Sequence[int], numbers: Sequence[int]) -> Block:
    """The rows of a batch of bytes, without those that are empty."""
    columns = [_numbers(cells, table) for cells in batch.columns[len(texts) :]]
    values = np.stack([values for values, _ in columns], axis=1)  # [n, m]
    is_bad = np.stack([bad for _, bad in columns], axis=1)  # [n, m]
    names = {column: _text(batch.column(i)) for i, column in enumerate(texts)}
    is_empty = np.isnan(values).all(axis=1) & ~is_bad.any(axis=1)
    for cells in names.values():
        is_empty &= pc.equal(cells, "").to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(~is_empty)
    problems = {}
    values[is_bad] = np.nan
    shares = is_bad.mean(axis=1)  # [n]
    shares[np.isnan(values).all(axis=1)] = 1
    for row in np.flatnonzero(is_bad[kept].any(axis=1)):
        column = int(is_bad[kept[row]].argmax())
        value = (batch.column(len(texts) + column)[int(kept[row])].as_py() or b"").decode(errors="replace")
        words = f"{table.columns[numbers[column]]} is {value[:80]!r}, expected a finite number"
        problems[int(row)] = Problem(int(lines[kept[row]]), words, float(shares[kept[row]]))
    return Block({column: cells.take(pa.array(kept)) for column, cells in names.items()}, values[kept], lines[kept], problems)


def _of_skipped(skipped: list[tuple[int, list[str], str]], texts: Sequence[int], count: int) -> Block:
    """Rows with another number of columns, of which only the texts are known."""
    names = {column: pa.array([cells[column] if column < len(cells) else "" for _, cells, _ in skipped], pa.string()) for column in texts}
    lines = np.array([line for line, _, _ in skipped], np.int64)
    problems = {row: Problem(line, words, 1.0) for row, (line, _, words) in enumerate(skipped)}
    return Block(names, np.full((len(skipped), count), np.nan, np.float32), lines, problems)


def _numbers(cells: pa.Array, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Cells of text as float32 [n], NaN where missing, and whether they are neither missing nor a finite number [n]; a point may be a comma."""
    if table.decimal == ",":
        cells = pc.replace_substring_regex(cells, _WITH_THOUSANDS, r"\1\2")
    if table.separator != "," or table.decimal == ",":
        cells = pc.replace_substring(cells, ",", ".")
    is_number = pc.fill_null(pc.match_substring_regex(cells, _NUMBER), False)
    is_missing = pc.fill_null(pc.match_substring_regex(cells, _MISSING_CELL), True)
    text = pc.ascii_trim_whitespace(pc.if_else(is_number, cells, None).cast(pa.string()))
    numbers = pc.replace_substring_regex(text, r"^\+", "").cast(pa.float32()).to_numpy(zero_copy_only=False)
    return numbers, pc.invert(pc.or_(is_number, is_missing)).to_numpy(zero_copy_only=False) | np.isinf(numbers)


def _text(cells: pa.Array) -> pa.Array:
    """Bytes as strings."""
    try:
        return cells.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(cell) for cell in cells.to_pylist()], pa.string())


def _decoded(data: bytes) -> str:
    """Text of UTF-8, with single bytes of latin-1 where it isn't."""
    return data.decode("utf-8", _LATIN_1)


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(_LATIN_1, _as_latin_1)
