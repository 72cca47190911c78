"""Signals that end a command: within two seconds, with one line, and with the exit code that shells expect.

Python's own handler isn't enough. It is called between two steps of the main thread alone, not while a kernel runs; and what it raises becomes a
traceback in the middle of an import, or is lost in a callback. So a command catches its signals before it imports anything else. Until its work
begins it ends at once; from then on an exception interrupts the work, and where that doesn't come through in a second, a thread ends the process.
Files are written so that this harms none.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Ctrl-Break on Windows
_PATIENCE = 1.0  # seconds that an interrupted work has to leave everything in order

_caught: list[int] = []
_working = False
_remedy = ""
_ending = threading.Lock()


class Interrupt(KeyboardInterrupt):
    """A signal ends the work."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def catch() -> None:
    """Catches the signals that end a process, but for those that whoever started it wants ignored (nohup); in a forked child they are as ever."""
    reading, writing = os.pipe()
    if hasattr(os, "set_blocking"):  # Windows, which has it from Python 3.12 on, does without
        os.set_blocking(writing, False)
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        if signal.getsignal(number) != signal.SIG_IGN:
            _caught.append(number)
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(reading,), name="fastst-signals", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def work() -> Iterator[None]:
    """What is interrupted by an exception; everything else of a command just ends."""
    global _working
    _working = True
    try:
        yield
    finally:
        _working = False


def advise(remedy: str) -> None:
    """What to do about it if the command is interrupted from now on."""
    global _remedy
    _remedy = f"; {remedy}"


def end(number: int) -> NoReturn:
    """Ends a command for a signal, without waiting for threads and whatever else wants to be done before."""
    if not _caught:  # another program called it, and may go on
        _say(number)
        sys.exit(128 + number)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it is closed, or nobody reads it
            stream.flush()
    _exit(number)


def speaks_first() -> bool:
    """Whether none of the processes that torchrun started on this machine has said yet why they end."""
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <of this start of all of them>/<rank>/error.json
    if not errors:
        return True
    try:
        os.close(os.open(os.path.join(os.path.dirname(os.path.dirname(errors)), "fastst-spoke"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:  # better twice than never
        return True
    return True


def _interrupt(number: int, frame: Any) -> None:
    for caught in _caught:
        signal.signal(caught, signal.SIG_IGN)  # one is enough
    sys.unraisablehook = lambda _: None  # and one line too
    if not _working:
        end(number)
    raise Interrupt(number)


def _end_in_time(reading: int) -> None:
    while (number := os.read(reading, 1)[0]) not in _caught:
        pass
    time.sleep(_PATIENCE)
    _exit(number)


def _exit(number: int) -> NoReturn:
    _ending.acquire()  # and never let go: it is said once
    _say(number)
    os._exit(128 + number)


def _say(number: int) -> None:
    word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError, ValueError):
        if speaks_first() and (os.name == "nt" or select.select([], [2], [], 0)[1]):  # where a terminal stands still, nothing may wait for it
            os.write(2, f"{os.linesep if os.isatty(2) else ''}{word}{_remedy}{os.linesep}".encode())


def _forget() -> None:
    """In a forked child: the thread stayed behind, and the pipe is its parent's."""
    signal.set_wakeup_fd(-1)
    for number in _caught:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _caught.clear()
