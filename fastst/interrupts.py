"""Signals that end a command: within two seconds, with one line, and with the exit code that shells expect.

Python's own handler isn't enough. It is called between two steps of the main thread alone, not while a kernel runs; and what it raises becomes a
traceback in the middle of an import, or is lost in a callback. So a command catches its signals before it imports anything else. Until its work
begins it ends at once; from then on an exception interrupts the work, and where that doesn't come through in a second, a thread ends the process.
Files are written so that this harms none: what C called may have made another error of the exception, or a result of half a work, so from the signal
on none is put in its place (`check`). The thread's function is machine code: Python's own threads can't run while a large JSON file is parsed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Ctrl-Break on Windows
_PATIENCE = 1.0  # seconds that an interrupted work has to leave everything in order

_caught: list[int] = []
_working = False
_interrupted_by = 0  # the number of the signal
_arrived = -1  # where the numbers of signals can be read as they come
_remedy = ""
_LINE = 256  # bytes
_lines = ctypes.create_string_buffer(_LINE * 32)  # what is said, by the number of the signal
_ending = threading.Lock()

# Waits for one of the signals whose bits are set, then for the work to end by itself; says the signal's line if it can be written at once, and ends.
_END_IN_TIME = f"""
declare i64 @read(i32, ptr, i64)
declare i32 @poll(ptr, i64, i32)
declare i64 @strlen(ptr)
declare i64 @write(i32, ptr, i64)
declare void @_exit(i32)

define void @end_in_time(i32 %arrived, i64 %caught, i32 %milliseconds, ptr %stderr, ptr %lines) {{
begin:
    %byte = alloca i8
    store i8 0, ptr %byte
    br label %wait
wait:
    call i64 @read(i32 %arrived, ptr %byte, i64 1)
    %read = load i8, ptr %byte
    %number = zext i8 %read to i64
    %bits = lshr i64 %caught, %number
    %bit = trunc i64 %bits to i1
    br i1 %bit, label %end, label %wait
end:
    call i32 @poll(ptr null, i64 0, i32 %milliseconds)
    %ready = call i32 @poll(ptr %stderr, i64 1, i32 0)
    %can = icmp sgt i32 %ready, 0
    br i1 %can, label %say, label %exit
say:
    %place = mul i64 %number, {_LINE}
    %line = getelementptr i8, ptr %lines, i64 %place
    %length = call i64 @strlen(ptr %line)
    call i64 @write(i32 2, ptr %line, i64 %length)
    br label %exit
exit:
    %short = trunc i64 %number to i32
    %code = add i32 %short, 128
    call void @_exit(i32 %code)
    unreachable
}}
"""


class Interrupt(KeyboardInterrupt):
    """A signal ends the work."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def catch() -> None:
    """Catches the signals that end a process, but for those that whoever started it wants ignored (nohup); in a forked child they are as ever."""
    global _arrived
    _arrived, writing = os.pipe()
    if hasattr(os, "set_blocking"):  # Windows, which has it from Python 3.12 on, does without
        os.set_blocking(writing, False)
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        if signal.getsignal(number) != signal.SIG_IGN:
            _caught.append(number)
            signal.signal(number, _interrupt)
    _prepare_lines()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def work() -> Iterator[None]:
    """What is interrupted by an exception; everything else of a command just ends."""
    global _working
    _working = True
    try:
        if _caught:
            threading.Thread(target=_compiled() or _end_in_time, name="fastst-signals", daemon=True).start()
        yield
    except Exception:
        check()  # a library may have made it of the interruption
        raise
    finally:
        _working = False


def check() -> None:
    """For whoever is about to leave something behind: interrupts the work once more if it was interrupted and goes on all the same."""
    if _interrupted_by:
        raise Interrupt(_interrupted_by)


def advise(remedy: str) -> None:
    """What to do about it if the command is interrupted from now on."""
    global _remedy
    _remedy = f"; {remedy}"
    _prepare_lines()


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
    global _interrupted_by
    for caught in _caught:
        signal.signal(caught, signal.SIG_IGN)  # one is enough
    sys.unraisablehook = lambda _: None  # and one line too
    if not _working:
        end(number)
    _interrupted_by = number
    raise Interrupt(number)


def _end_in_time() -> None:
    while (number := os.read(_arrived, 1)[0]) not in _caught:
        pass
    time.sleep(_PATIENCE)
    _exit(number)


def _compiled() -> Callable[[], None] | None:
    """`_end_in_time` without Python, if it can be had: on Windows the functions of its library are others."""
    if sys.platform == "win32":
        return None
    try:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_END_IN_TIME), llvm.Target.from_default_triple().create_target_machine())
        engine.finalize_object()
    except Exception:  # of an older version, say
        return None
    stderr = struct.pack("ihh", 2, select.POLLOUT, 0)  # a pollfd
    kinds = (ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)
    function = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address("end_in_time"))

    def end_in_time(engine: Any = engine) -> None:  # the code is the engine's
        function(_arrived, sum(1 << number for number in _caught), int(_PATIENCE * 1000), stderr, _lines)

    return end_in_time


def _exit(number: int) -> NoReturn:
    _ending.acquire()  # and never let go: it is said once
    _say(number)
    os._exit(128 + number)


def _say(number: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        if speaks_first() and (os.name == "nt" or select.select([], [2], [], 0)[1]):  # where a terminal stands still, nothing may wait for it
            os.write(2, _line(number))


def _prepare_lines() -> None:
    for number in _caught:
        line = _line(number)[: _LINE - 1] + b"\0"
        ctypes.memmove(ctypes.byref(_lines, number * _LINE), line, len(line))


def _line(number: int) -> bytes:
    word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{os.linesep if os.isatty(2) else ''}{word}{_remedy}{os.linesep}".encode()


def _forget() -> None:
    """In a forked child: the thread stayed behind, and the pipe is its parent's."""
    global _interrupted_by
    _interrupted_by = 0
    signal.set_wakeup_fd(-1)
    for number in _caught:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _caught.clear()
