"""Errors that a user can mend, and how a command ends."""

from __future__ import annotations

import io
import os
import signal
import sys
import unicodedata
from collections.abc import Callable

from fastst import interrupts

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, marks without a shape, halves of characters, ends of lines and paragraphs
_JOINERS = "\u200c\u200d"  # shape the letters beside them, and make one emoji of several


def visible(text: str) -> str:
    """The text with the code, such as <U+202E>, of each of its characters that can't be seen.

    In a name that comes from a file they would steer a terminal, break a line in two, turn the direction of what follows, or make two names look
    alike. Letters and signs of all scripts stay, and so do the joiners between them.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_seen(text, at) else f"<U+{ord(character):04X}>" for at, character in enumerate(text))


def _is_seen(text: str, at: int) -> bool:
    if text[at] in _JOINERS:
        beside = text[at - 1 : at] + text[at + 1 : at + 2]
        return len(beside) == 2 and not any(neighbour.isascii() or neighbour in _JOINERS for neighbour in beside)
    return unicodedata.category(text[at]) not in _UNSEEN


class UserError(ValueError):
    """The message says what was wrong, what was expected and what to do; commands print it without a traceback.

    What files and libraries have put into the message is made `visible`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class DataError(UserError):
    """Data that can't be used. The message says where (file and line), what was wrong and what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command: a mendable error is printed and ends with status 2, Ctrl-C with 130, other signals with 128 and their number.

    Of processes that torchrun started the first one that ends speaks for all.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no reason to stop
    try:
        with interrupts.work():
            main()
    except UserError as error:
        if interrupts.speaks_first():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        interrupts.end(getattr(interrupt, "number", signal.SIGINT))
    except SystemExit:  # it was said already
        interrupts.speaks_first()
        raise
    except Exception:
        if not interrupts.speaks_first():
            sys.exit(1)
        raise
