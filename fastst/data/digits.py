"""The numbers in many names at once: where they stand, what they are, and the names without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from fastst.cpu.cache import keep

MOST_DIGITS = 18  # that an int64 holds for sure
_MOST_NUMBERS = 6  # of a name's numbers, from its end, are looked at


def _compile(function: Callable[..., Any]) -> Any:
    return keep(numba.njit(function, nogil=True, error_model="numpy"))


@dataclass(frozen=True)
class Numbers:
    """The last numbers of n names, as many as each name has, of `MOST_DIGITS` digits at most; counted from the end.

    Args:
        values: # [count, n] int64
        widths: digits of each.  # [count, n] int32
    """

    values: np.ndarray
    widths: np.ndarray
    _offsets: np.ndarray
    _data: np.ndarray
    _ends: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def without(self, places: Sequence[int]) -> pa.Array:
        """The names with `\\0` in place of some of the numbers."""
        is_gone = np.zeros(len(self), bool)
        is_gone[list(places)] = True
        offsets, data = np.empty_like(self._offsets), np.empty(len(self._data), np.uint8)
        length = _replace(self._offsets, self._data, self._ends, self.widths, is_gone, offsets, data)
        return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data[:length]))


def numbers_of(names: pa.Array) -> Numbers:
    """The last numbers that all names have.  # [n] strings"""
    offsets, data = _bytes(names)
    count = int(_counts(offsets, data).min(initial=_MOST_NUMBERS))
    values = np.empty((count, len(names)), np.int64)
    widths, ends = np.empty((count, len(names)), np.int32), np.empty((count, len(names)), np.int32)
    _find(offsets, data, values, widths, ends)
    return Numbers(values, widths, offsets, data, ends)


def has_number(names: pa.Array) -> np.ndarray:
    """Whether the last number of each name has `MOST_DIGITS` digits at most, and there is one.  # [n] bool"""
    return _counts(*_bytes(names)) > 0


def _bytes(names: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each name begins and ends [n + 1] int32, and all of them [bytes] uint8."""
    if not len(names):
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    _, offsets, data = names.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(names) + 1, names.offset * 4)
    return bounds, np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)


@_compile
def _counts(offsets, data):
    """How many of the last numbers of each name can be taken.  # [n]"""
    counts = np.zeros(len(offsets) - 1, np.int32)
    for i in range(len(counts)):
        at = offsets[i + 1]
        while counts[i] < _MOST_NUMBERS:
            while at > offsets[i] and not 48 <= data[at - 1] <= 57:
                at -= 1
            end = at
            while at > offsets[i] and 48 <= data[at - 1] <= 57:
                at -= 1
            if end == at or end - at > MOST_DIGITS:
                break
            counts[i] += 1
    return counts


@_compile
def _find(offsets, data, values, widths, ends):
    for i in range(len(offsets) - 1):
        at = offsets[i + 1]
        for place in range(len(values)):
            while not 48 <= data[at - 1] <= 57:
                at -= 1
            ends[place, i] = at
            value, power = 0, 1
            while at > offsets[i] and 48 <= data[at - 1] <= 57:
                at -= 1
                value += power * (data[at] - 48)
                power *= 10
            values[place, i], widths[place, i] = value, ends[place, i] - at


@_compile
def _replace(offsets, data, ends, widths, is_gone, new_offsets, new_data):
    """Fills the new offsets and bytes; the count of these."""
    length = 0
    for i in range(len(offsets) - 1):
        new_offsets[i] = length
        at = offsets[i]
        for place in range(len(ends) - 1, -1, -1):
            if is_gone[place]:
                start = ends[place, i] - widths[place, i]
                for k in range(at, start):
                    new_data[length + k - at] = data[k]
                length += start - at
                new_data[length] = 0
                length += 1
                at = ends[place, i]
        for k in range(at, offsets[i + 1]):
            new_data[length + k - at] = data[k]
        length += offsets[i + 1] - at
    new_offsets[len(offsets) - 1] = length
    return length
