"""What a part of the report has found, line by line: nothing is lost when the next line fails, hangs or takes the GPU with it."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import torch

# Nothing after these can run in the same process.
_LOST = (
    "illegal memory access", "unspecified launch failure", "device-side assert", "misaligned address", "illegal instruction", "launch timed out",
    "uncorrectable ECC", "out of range shared or local address", "invalid program counter",
)  # fmt: skip
CONTEXT_LOST = 3  # exit status


class Notes:
    """Writes a JSON object a line, `{"key": …, …}`, until the time is up."""

    def __init__(self, file: TextIO, seconds: float) -> None:
        self._file, self._end = file, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def attempt(self, key: str, find: Callable[..., dict[str, Any]], *arguments: Any, about: dict[str, Any] | None = None) -> dict[str, Any]:
        """Notes what `find(*arguments)` returns beside `about`, or why there is nothing: an error is a result, and not the end. Returns the row."""
        row: dict[str, Any]
        if self.left() <= 0:
            row = {"left_out": "no time was left"}
        else:
            try:
                row = find(*arguments)
            except torch.OutOfMemoryError as error:
                row = {"error": f"it does not fit the GPU's memory: {_first_line(error)}"}
            except Exception as error:
                traceback.print_exc()
                row = {"error": f"{type(error).__name__}: {_first_line(error)}"}
        row = {**(about or {}), **row}
        self._file.write(json.dumps({"key": key, **row}) + "\n")
        self._file.flush()
        if any(lost in row.get("error", "") for lost in _LOST):
            sys.exit(CONTEXT_LOST)
        return row


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
