"""Errors that a user can mend, and how a command ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

from fastst import interrupts


class UserError(ValueError):
    """The message says what was wrong, what was expected and what to do; commands print it without a traceback."""


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
