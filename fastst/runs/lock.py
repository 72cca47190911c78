"""One writer at a time in the folder of a run.

The lock is the system's, on a file in the folder: it ends with its process, however that ends, and a forked child doesn't have it. On NFS the server
keeps it. Where a file system has no locks, a warning says so and the work goes on: to refuse would leave its users without fastst.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fastst.errors import UserError

LOCK = ".fastst.lock"
_LOG = logging.getLogger("fastst")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_PATIENCE = 0.5  # seconds, for one who is just letting go
_DEPTH = 3  # how deep files lie in a run: run/fold-1/permuted/file

_held: dict[Path, tuple[int, int]] = {}  # folders of this process, and what file its lock is: device and inode


class InUseError(UserError):
    """Another process writes in the folder."""


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder is this process's alone to write in. It is made if it isn't there, and goes again if nothing was put into it.

    Raises:
        UserError: another process writes in it, and which; or it can't be made or written.
    """
    folder, owner = folder.resolve(), os.getpid()
    lock = FileLock(folder / LOCK, fallback_to_soft=False, on_acquired=lambda file: _sign(folder, file))
    made: list[Path] = []
    try:
        _acquire(lock, folder, made)
        yield
    finally:
        if os.getpid() == owner:  # and no forked child, which has nothing to let go of
            _let_go(lock, folder)
            for place in made:
                with contextlib.suppress(OSError):  # it is not empty
                    place.rmdir()


@contextlib.contextmanager
def owned_around(*files: Path | None) -> Iterator[None]:
    """The runs in which these files lie are this process's alone to write in; files outside of any are nobody's.

    Raises:
        UserError: as of `owned`.
    """
    runs = {run for file in files if file is not None for run in _runs_around(file)}
    with contextlib.ExitStack() as stack:
        for run in sorted(runs):
            stack.enter_context(owned(run))
        yield


def check_owned(folder: Path) -> None:
    """That the folder, if this process had it or one around it, was not deleted or made anew by somebody since; UserError if it was."""
    for held, lock in _held.items():
        if folder.resolve().is_relative_to(held) and _identity(held / LOCK) != lock:
            raise UserError(
                f"{held} was deleted or made anew while this run was writing in it; nothing more is written there. Train again in another --out"
            )


def _runs_around(file: Path) -> list[Path]:
    return [folder for folder in list(file.resolve().parents)[:_DEPTH] if (folder / "config.json").is_file()]


def _acquire(lock: FileLock, folder: Path, made: list[Path]) -> None:
    """Makes the folder, with those around it that are missing, and takes the lock. `made` gets the new folders, the innermost first."""
    try:
        made[:] = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _check_is_lock(folder / LOCK)
        lock.acquire(timeout=_PATIENCE)
    except (Timeout, RuntimeError):  # the latter where this very thread has it
        raise InUseError(f"{folder} is in use: {_holder(folder / LOCK)} writes in it; wait until that has ended, or choose another folder") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{folder} can't be written: {error.strerror}; choose another folder, or make this one writable") from None
        (folder / LOCK).unlink(missing_ok=True)
        _LOG.warning("%s is on a file system without locks (%s): take care that nothing else writes there meanwhile", folder, error.strerror)


def _check_is_lock(path: Path) -> None:
    """UserError where something else has its name; OSError where nobody can say."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise UserError(f"{path} is {what}, and no lock of fastst; delete it")


def _sign(folder: Path, file: int) -> None:
    """Writes into the lock's file who has it. The first byte can't be read on Windows, where it is what is locked."""
    status = os.fstat(file)
    _held[folder] = status.st_dev, status.st_ino
    told = {"host": socket.gethostname(), "pid": os.getpid(), "command": shlex.join(sys.orig_argv)[:500]}
    with contextlib.suppress(OSError):  # a full disk: who it is goes unsaid
        os.ftruncate(file, 0)
        os.write(file, f"\n{json.dumps({**told, 'since': datetime.now().isoformat(' ', 'seconds')})}\n".encode())


def _holder(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(1)
            told = json.loads(file.read(1 << 12))
        words = f"{told['command']} (process {told['pid']} on {told['host']}, since {told['since']})"
        return "".join(letter if letter.isprintable() else "?" for letter in words)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # it has not said yet, or the file is no such one
        return "another process"


def _let_go(lock: FileLock, folder: Path) -> None:
    if not lock.is_locked:
        return
    mine = _held.pop(folder)
    if os.name == "posix" and _identity(folder / LOCK) == mine:  # while it is held: afterwards it could be somebody else's
        (folder / LOCK).unlink(missing_ok=True)
    lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
