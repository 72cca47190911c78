"""What is in a file: text, JSON or bytes."""

from __future__ import annotations

import codecs
import json
import stat
from pathlib import Path
from typing import Any

from fastst.data.walks import DataError

_HEAD_BYTES = 1 << 16
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class EmptyFileError(DataError):
    """A file without content: nothing was written, or, among files that hold a frame each, nobody was seen."""


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file.

    Raises:
        EmptyFileError: nothing is in it.
        DataError: there is none, or it can't be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file; give a file or a folder")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
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


def parse_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: with file and line, if it is none.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); is the file complete?") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
