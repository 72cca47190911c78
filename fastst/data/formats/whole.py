"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from fastst.data.walks import DataError, WalkSet
from fastst.files import write_atomically


def write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Lets `write` make the file's content: nobody ever sees half of it.

    Raises:
        WriteError: the file can't be written. What was there before stays.
    """

    def into(part: Path) -> None:
        with part.open("wb") as file:
            write(file)

    write_atomically(path, into)


def check_writable(path: Path, walks: WalkSet, endings: tuple[str, ...], taken: set[str]) -> None:
    """That `path` has an ending by which it is found again, that there are walks, and that no attribute has a name that the form needs itself.

    Raises:
        DataError: one of them is not so.
    """
    if path.suffix not in endings:
        raise DataError(f"{path} must end in {' or '.join(endings)} to be read again; choose another name")
    if not len(walks):
        raise DataError(f"{path} is not written: there are no walks")
    if reserved := taken & set(walks.attributes):
        raise DataError(f"{path} is not written: an attribute can't be called {min(reserved)!r} in this format; rename it")
