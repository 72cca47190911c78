"""Progress bars of the readers: on stderr, and only where somebody can see them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeVar

import rich.progress
from rich.console import Console
from rich.markup import escape

from fastst.errors import visible
from fastst.files import open_file

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str, progress: bool) -> Iterable[Item]:
    """`items`, with a bar that counts them if `progress` and stderr is a terminal."""
    console = Console(stderr=True)
    return rich.progress.track(items, escape(visible(description)), console=console, disable=not (progress and console.is_terminal))


def open_with_progress(path: Path, description: str, progress: bool) -> AbstractContextManager[BinaryIO]:
    """The file opened for reading bytes, with a bar that counts the bytes read if `progress` and stderr is a terminal."""
    console = Console(stderr=True) if progress else None
    if console is None or not console.is_terminal:
        return open_file(path)
    file = open_file(path)
    return rich.progress.wrap_file(file, os.fstat(file.fileno()).st_size, description=escape(visible(description)), console=console)
