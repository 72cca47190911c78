"""The door for every file that a user names: regular files only, written whole or not at all, and errors that say which file it is, what is wrong
with it and what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from fastst import interrupts
from fastst.errors import DataError, UserError, visible

_PART_BYTES = 6
_PART = re.compile(rf"\..+\.[0-9a-f]{{{2 * _PART_BYTES}}}\.part(\.[^.]*)?")  # names of parts of files
_MOST_BYTES = 1 << 28  # of a file that is read at once: options, lists of people, tables of results
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
_NO_RIGHT = "get the right to read it (chmod u+rX), or let its owner do this"
_TOO_MANY = "close other programs, or allow more open files (ulimit -n)"
_DISK = "the disk or the network fails; bring the file elsewhere and try again"
_REMEDIES = {
    errno.ENOENT: "check the name, or bring it back",
    errno.ENOTDIR: "check the name: a part of it is no folder",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ELOOP: "links lead round in a circle; mend them",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
}
_NO_RIGHT_TO_WRITE = "get the right to write there (chmod u+wX), or name another place"
_TO_WRITE = {
    errno.ENOENT: "make the folder, or name another place",
    errno.ENOTDIR: "name another place: a part of the name is no folder",
    errno.EACCES: _NO_RIGHT_TO_WRITE,
    errno.EPERM: _NO_RIGHT_TO_WRITE,
    errno.EROFS: "nothing can be written on that disk; name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "links lead round in a circle; mend them",
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)), "make room for it"),
}


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading. What never ends or lets others wait, such as a device or a pipe, is refused at once.

    Raises:
        DataError: nothing is there, it is no regular file, or it can't be read.
    """
    try:
        _check_regular(path, os.stat(path))  # before it is opened, which wakes a device
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller's
    except UserError:
        raise
    except OSError as error:
        raise DataError(_cannot_read(path, error)) from None
    except ValueError as error:
        raise DataError(f"{path} can't be the name of a file ({error}); check the name") from None
    try:
        _check_regular(path, os.fstat(file.fileno()))  # it may have been exchanged since
    except BaseException:
        file.close()
        raise
    return file


def is_there(path: Path) -> bool:
    """Whether there is anything of that name, whatever it is.

    Raises:
        DataError: nobody can say, as in a folder that may not be entered.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(_cannot_read(path, error)) from None
    return True


def read_text(path: Path, expected: str) -> str:
    """All of a file of UTF-8. An error ends with `expected`: what the file should have been, or what to do.

    Raises:
        DataError: it can't be read, has more than 256 MiB, or is no text.
    """
    with reading(path), open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(_MOST_BYTES + 1) if size <= _MOST_BYTES else b""  # which may have grown since
    if max(size, len(content)) > _MOST_BYTES:
        raise DataError(f"{path} is larger than {_MOST_BYTES >> 20} MiB; {expected}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); {expected}") from None


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file with every text in it `visible`; `expected` as in `read_text`.

    Raises:
        DataError: it can't be read, or is no JSON.
    """
    text = read_text(path, expected)
    try:
        return all_visible(json.loads(text))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); {expected}") from None
    except RecursionError:
        raise DataError(f"{path} can't be read: its lists are nested too deep; {expected}") from None
    except ValueError:  # what is left of them
        raise DataError(f"{path} can't be read: it has an integer of thousands of digits; {expected}") from None


def all_visible(value: Any) -> Any:
    """A value of JSON with every text in it `visible`."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(name): all_visible(part) for name, part in value.items()}
    return [all_visible(part) for part in value] if isinstance(value, list) else value


class WriteError(UserError):
    """A file can't be written."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file beside `path` and renames it: a reader, a crash or a full disk never sees half of it.

    Raises:
        WriteError: the file can't be written. What was there before stays.
    """
    part = None
    try:
        place = _behind_links(path)
        mode = _mode(place)
        if mode is not None and not stat.S_ISREG(mode):
            raise WriteError(f"{path} can't be written: it is {_kind(mode)}; name a file")
        part = place.with_name(f".{place.stem}.{secrets.token_hex(_PART_BYTES)}.part{place.suffix}")  # nobody else's
        part.touch(exist_ok=False)
        mode = part.stat().st_mode if mode is None else mode
        write(part)
        part.chmod(stat.S_IMODE(mode))  # as any file of the user, whatever the library that writes thinks
        with part.open("r+b") as file:  # Windows brings only files to the disk that may be written
            os.fsync(file.fileno())
        interrupts.check()  # what is written may be half of it
        part.replace(place)
    except OSError as error:
        _remove(part)
        raise cannot_write(path, error) from None
    except BaseException:
        _remove(part)
        raise


def remove_parts(folder: Path) -> None:
    """What `write_atomically` left in a folder, or in those in it, when its process was killed. Only for whoever alone writes there."""
    for part in folder.rglob(".*.part*"):
        if _PART.fullmatch(part.name) and part.is_file():
            _remove(part)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """What to raise in place of that."""
    remedy = _TO_WRITE.get(error.errno or 0, "name another place, or make room for it")
    return WriteError(f"{path} can't be written: {error.strerror or error}; what was there before is unchanged; {remedy}")


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Whatever is raised while a file is read becomes an error that names it. One that nobody thought of is a mistake in fastst: its traceback is
    written into a file in the system's folder for temporary ones, which the error names.

    Raises:
        UserError: as it was raised, or a DataError in place of anything else but an interruption.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except MemoryError:
        raise DataError(f"{path} takes more memory than there is; read a part of it at a time, or close other programs") from None
    except OSError as error:
        if error.errno is None or error.filename not in (None, path, str(path)):
            raise _unforeseen(path, error) from error
        raise DataError(_cannot_read(path, error)) from None
    except Exception as error:
        raise _unforeseen(path, error) from error


def _without_waiting(path: str, flags: int) -> int:
    """As `os.open`, but not until somebody writes into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is {_kind(found.st_mode)}, and no regular file; give a file")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _behind_links(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # what pathlib makes of it
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None


def _mode(path: Path) -> int | None:
    """None of what is not there."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _remove(part: Path | None) -> None:
    if part is not None:
        with suppress(OSError):
            part.unlink()


def _cannot_read(path: Path | str, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{path} can't be read: {error.strerror or error}" + (f"; {remedy}" if remedy else "")


def _unforeseen(path: Path | str, error: Exception) -> DataError:
    interrupts.check()
    words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    try:
        report = f" with {_noted_down(path, error)}"
    except OSError:  # nothing can be written there
        report = ""
    advice = f"that nothing better is said of it is a mistake in fastst: please report it{report}, and leave the file out until then"
    return DataError(f"{path} can't be read ({words}); {advice}")


def _noted_down(path: Path | str, error: Exception) -> Path:
    """Adds the traceback to the file for this process's, once for each line that errors come from. Returns the file."""
    report, place = _report(), traceback.extract_tb(error.__traceback__)[-1]
    if (place.filename, place.lineno) not in _noted:
        _noted.add((place.filename, place.lineno))
        with report.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{visible(str(path))}\n{''.join(traceback.format_exception(error))}\n")
    return report


@cache
def _report() -> Path:
    handle, name = tempfile.mkstemp(prefix="fastst-", suffix=".txt")
    os.close(handle)
    return Path(name)


_noted: set[tuple[str, int | None]] = set()
