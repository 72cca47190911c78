"""What a form of pose files is to those who read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastst.data.recording import File, Recording


@dataclass(frozen=True)
class Form:
    """One form of pose files.

    Args:
        name: what it is called in messages.
        recognises: whether this is a file of the form, even one that can't be used: called with the parsed JSON, the first lines or the first bytes.
        read: the recordings in the file, given the same and the file; `progress` is whether to show it.  Raises DataError with file, place and
            remedy where it can't be used; what can't be used of a file that can goes into `left_out` of the recordings.
        sample: some lines of it, for people who want to know what it looks like.
    """

    name: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any, File, bool], list[Recording]]
    sample: str
