"""A checksum that a file carries in itself, so that a bit that has flipped in it is found.

It is the SHA-256 of all bytes of the file, with zeros where it stands itself: a field `sha256` of JSON, as in the header of a safetensors file.
"""

from __future__ import annotations

import hashlib
import re

NO_CHECKSUM = {"sha256": "0" * 64}  # a field that `with_checksum` fills in
_FIELD = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')


def with_checksum(content: bytes) -> bytes:
    """The content of a file with its checksum in place of the first `NO_CHECKSUM`."""
    field = _FIELD.search(content)
    assert field is not None
    start, end = field.span(1)
    return content[:start] + _sum(content, start, end) + content[end:]


def is_intact(content: bytes, before: int | None = None) -> bool | None:
    """Whether the checksum fits the content; None where there is none, or none before that byte."""
    field = _FIELD.search(content, 0, len(content) if before is None else before)
    return None if field is None else _sum(content, *field.span(1)) == field[1]


def _sum(content: bytes, start: int, end: int) -> bytes:
    """Of the content with zeros from start to end."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(b"0" * (end - start))
    digest.update(view[end:])
    return digest.hexdigest().encode()
