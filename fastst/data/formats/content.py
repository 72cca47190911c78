"""What is in a file: text, JSON or bytes."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastst.data.formats.scan import MAX_DEPTH, Scanned, scan
from fastst.data.progress import open_with_progress
from fastst.data.walks import DataError
from fastst.files import open_file

_HEAD_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20
_MOST_DIGITS = 4300  # of an integer, that Python reads
_LINE_BYTES = 1 << 20  # of a document that stands in one line
_BETWEEN_LINES = re.compile(rb"\n(?=[ \t]*\S)")  # the last of the line ends between two documents
ENDINGS_OF_LINES = (".jsonl", ".ndjson")
_AS_PYTHON = re.compile(rb"[{,]\s*'\w+':")
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class EmptyFileError(DataError):
    """A file without content: nothing was written, or, among files that hold a frame each, nobody was seen."""


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file.

    Raises:
        EmptyFileError: nothing is in it.
        DataError: there is none, or it can't be read.
    """
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        raise EmptyFileError(f"{path} is empty; was it written to the end?")
    return head


def encoding_of(head: bytes) -> str:
    """`utf-8-sig`, `utf-16`, `utf-16-le`, `utf-16-be` or `utf-8`, as the first bytes say; `latin-1` where they are not UTF-8."""
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    start = head[:64]  # letters and digits of UTF-16 have a zero byte each
    for zero, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(start) > 3 and not any(start[zero::2]) and all(start[1 - zero :: 2]):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < _HEAD_BYTES)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


@dataclass(frozen=True)
class Document:
    """A JSON file as pieces that are documents of the same shape: a list or a mapping of many elements comes in parts, and so does the one value of a
    mapping that is most of a file. JSON lines are the list of the documents in them. The elements themselves are whole. Arrays of numbers, and arrays
    of equally long ones, are numpy's, of float64 with NaN for null; an empty array is a list.

    Args:
        first: the first piece; of all but large files the only one.
        rest: the others.
    """

    first: Any
    rest: Iterator[Any]

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain((self.first,), self.rest)


def parse_json(path: Path, progress: bool = False) -> Document:
    """The content of a JSON file, in memory a piece at a time.

    Raises:
        DataError: with file and line, if it is none; for a later piece when that is asked for.
    """
    pieces = _pieces(path, progress)
    return Document(next(pieces), pieces)


def parse_text(text: bytes) -> Any:
    """The content of a JSON document in memory.

    Raises:
        ValueError: it is none.
    """
    scanned = scan(text, True)
    assert scanned is not None  # all of it is
    return _loaded(scanned)


def _loaded(scanned: Scanned) -> Any:
    arrays = iter(scanned.arrays)
    try:
        text = scanned.text.decode()
    except UnicodeDecodeError:
        text = scanned.text.decode("latin-1")
    return json.loads(text, parse_constant=lambda _: next(arrays))


def _pieces(path: Path, progress: bool) -> Iterator[Any]:
    line, elements = 1, 0
    for piece, scanned, whole in _ahead(_scanned(path, progress)):
        content = _parsed(path, scanned, line, elements, whole, piece)
        yield content
        line += int(np.count_nonzero(np.frombuffer(piece, np.uint8, scanned.end) == ord("\n")))  # a tenth of the time of bytes.count
        elements += _num_elements(content)


def _ahead(pieces: Iterator[tuple[bytes, Scanned, bool]]) -> Iterator[tuple[bytes, Scanned, bool]]:
    """The pieces, of which the next one is scanned in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:  # of which a file in one piece starts no thread
        piece = next(pieces)
        while not piece[2]:
            following = pool.submit(next, pieces)
            yield piece
            piece = following.result()
    yield piece


def _scanned(path: Path, progress: bool) -> Iterator[tuple[bytes, Scanned, bool]]:
    """Pieces of a file, what they hold, and whether it is the last."""
    with open_with_progress(path, path.name, progress) as file:
        stream = _stream(path, file)
        openers, rest, size, whole = b"", b"", _PIECE_BYTES, False
        while not whole:
            block = stream.read(size)
            rest, whole = rest + block, len(block) < size
            # What came before the comma was in the piece before.
            piece = openers + (rest.replace(b",", b" ", 1) if openers and re.match(rb"\s*,", rest) else rest)
            scanned = _scan(path, piece, whole)
            if scanned is None:
                size = len(rest)  # no element ends in it: look at twice as much
                continue
            yield piece, scanned, whole
            size, rest, openers = _PIECE_BYTES, piece[scanned.end :], scanned.openers


def _stream(path: Path, file: IO[bytes]) -> _Stream:
    """The file in UTF-8, of JSON lines as the list of them."""
    head = file.read(_LINE_BYTES)
    encoding = encoding_of(head)
    if encoding.startswith("utf-16"):
        head, file = (head + file.read()).decode(encoding, errors="replace").encode(), io.BytesIO()
    head = head.removeprefix(codecs.BOM_UTF8)
    return _ListOfLines(head, file) if _are_lines(path, head) else _Stream(head, file)


def _are_lines(path: Path, head: bytes) -> bool:
    """Whether the first line is a document of its own: then no other begins below it, unless each line is one."""
    line, _, below = head.lstrip().partition(b"\n")
    follows = below.lstrip()[:1]
    if follows not in (b"{", b"[") and (follows or path.suffix.lower() not in ENDINGS_OF_LINES):
        return False
    try:
        return isinstance(json.loads(line.decode("latin-1")), dict if not follows else (dict, list))
    except (ValueError, RecursionError):
        return False


class _Stream:
    """A file of which `head` was read already; `read` gives less than asked for at its end only."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._ready, self._file = head, file

    def read(self, size: int) -> bytes:
        ready, self._ready = self._ready[:size], self._ready[size:]
        return ready + self._file.read(size - len(ready)) if len(ready) < size else ready


class _ListOfLines(_Stream):
    """The list of the documents in a file, of which each has its lines: commas are put between them, and brackets around."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        documents = head.lstrip()
        super().__init__(head[: len(head) - len(documents)], file)  # empty lines are lines, too
        self._head, self._blank, self._is_open = b"[" + documents, b"", True

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and self._is_open:
            lines = self._blank + (self._head or self._file.read(size))
            self._is_open = len(lines) > len(self._blank)
            self._head = b""
            used = lines.rstrip()
            self._blank = lines[len(used) :]
            self._ready += _BETWEEN_LINES.sub(rb",\n", used) if self._is_open else b"]"
        ready, self._ready = self._ready[:size], self._ready[size:]
        return ready


def _scan(path: Path, piece: bytes, whole: bool) -> Scanned | None:
    try:
        return scan(piece, whole)
    except ValueError:
        raise DataError(f"{path} is no file of walks: its lists are nested more than {MAX_DEPTH} deep") from None


def _parsed(path: Path, scanned: Scanned, line: int, elements: int, whole: bool, piece: bytes) -> Any:
    try:
        return _loaded(scanned)
    except json.JSONDecodeError as error:
        bad = line + error.lineno - 1
        if not (whole and scanned.depth > 0):
            is_python = _AS_PYTHON.search(scanned.text[:1000]) is not None
            remedy = "it is as Python prints it: write it with json.dump" if is_python else "write the file again, or mend that line"
            raise DataError(f"{path}, line {bad}: not JSON ({error.msg}); {remedy}") from None
        complete = _scan(path, piece, False)
        if complete is not None:
            elements += _num_elements(_parsed(path, complete, line, 0, False, piece))
        raise DataError(f"{path}, line {bad}: the file is cut off after {elements} complete element(s); copy or write it again") from None
    except ValueError:
        long = re.search(rb"[0-9]{%d}" % (_MOST_DIGITS + 1), scanned.text)
        line += scanned.text.count(b"\n", 0, long.start() if long else 0)
        raise DataError(f"{path}, line {line}: an integer of more than {_MOST_DIGITS} digits; expected numbers of a pose") from None


def _num_elements(content: Any) -> int:
    """The length of a list, or of the longest value of a mapping."""
    if isinstance(content, dict):
        return max((len(value) for value in content.values() if isinstance(value, list | dict)), default=0)
    return len(content) if isinstance(content, list) else 0
