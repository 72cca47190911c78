"""Errors that a user can mend, and how a command ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """The message says what was wrong, what was expected and what to do; commands print it without a traceback."""


def run_command(main: Callable[[], None], resume_hint: str = "") -> None:
    """Runs a command: a mendable error is printed and ends with status 2, Ctrl-C with 130."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no reason to stop
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\ninterrupted{resume_hint}", file=sys.stderr)
        sys.exit(130)
