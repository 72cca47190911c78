"""The text of a JSON document without its arrays of numbers, which are nearly all of it: they are read into one array of float64.

Every array of numbers, and every array of equally long ones, is replaced by `NaN` in the text, and so is every number that JSON doesn't know (NaN,
Infinity). Python's parser then gives back the document, with `NaN` for its n-th array. An array of points, which are mappings of the same keys and of
numbers, becomes one mapping of arrays: `[{"x": 1, "y": 2}, {"x": 3, "y": 4}]` is `{"x": [1, 3], "y": [2, 4]}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from fastst.cpu.cache import keep

MAX_DEPTH = 200  # Python's parser gives up at about 1,000

_inline = numba.njit(nogil=True, error_model="numpy", inline="always")


def _compile(function: Callable[..., Any]) -> Any:
    return keep(numba.njit(function, nogil=True, error_model="numpy"))


_POWERS = 10.0 ** np.arange(23)  # float64 has them exactly
_PLACEHOLDER = np.frombuffer(b"NaN", np.uint8)
_WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"null", b"NaN", b"Infinity"))
_MOST_DIGITS = 18  # that an int64 holds for sure
_MOST_EXPONENT = 9999
_NO, _CUT = -1, -2  # instead of a place: it is not what was looked for; the bytes end before that is known


@dataclass(frozen=True)
class Scanned:
    """The beginning of a JSON document, as far as it can be used for itself.

    Args:
        text: without its arrays.
        arrays: in the order of the `NaN` in the text; a number where it stands for one.
        end: how many bytes that were.
        openers: what must stand before the rest of the bytes, so that it is a document too.
        depth: how many brackets are open at the end.
    """

    text: bytes
    arrays: list[np.ndarray | float]
    end: int
    openers: bytes
    depth: int


def scan(data: np.ndarray, whole: bool) -> Scanned | None:
    """Scan bytes up to their last place where a document can be cut, or all of them if they are `whole`.  # data [n] uint8

    A document is cut between the elements of its outer list or mapping; or, if it is a mapping with no such place in the later half, between those of
    one of its values. None where there is no place.

    Raises:
        ValueError: brackets are nested too deep; the message is the offset.
    """
    text, numbers, arrays = np.empty(3 * len(data) // 2 + 8, np.uint8), np.empty(len(data) // 2 + 1), np.empty((len(data) // 4 + 1, 5), np.int64)
    cuts = np.zeros((3, 5), np.int64)
    depth, length, count = _scan(data, text, numbers, arrays, cuts)
    if depth > MAX_DEPTH:
        raise ValueError(str(length))
    end, openers, closers = len(data), b"", b""
    if not whole:
        level = 1 if 2 * cuts[1, 0] >= len(data) or not cuts[2, 0] else 2
        end, length, count, key_from, key_to = cuts[level].tolist()
        if not end:
            return None
        top = data[np.argmax((data == ord("[")) | (data == ord("{")))].tobytes()
        openers, closers = top, {b"[": b"]", b"{": b"}"}[top]
        if level == 2:
            inner = b"[" if cuts[0, 0] == ord("[") else b"{"
            openers += data[key_from:key_to].tobytes() + b":" + inner
            closers = {b"[": b"]", b"{": b"}"}[inner] + closers
    return Scanned(text[:length].tobytes() + closers, _views(numbers, arrays[:count]), end, openers, depth)


def _views(numbers: np.ndarray, arrays: np.ndarray) -> list[np.ndarray | float]:
    views: list[np.ndarray | float] = []
    for first, last, rows, columns, step in zip(*arrays.T.tolist(), strict=True):
        view = numbers[first : last : step or 1]
        views.append(view.reshape(rows, columns) if rows else view if step else float(numbers[first]))
    return views


@_compile
def _scan(data, text, numbers, arrays, cuts):
    """Fills text, numbers and arrays (first and last number; rows and columns, or 0; step, 0 for a number); and `cuts`: at row 1 and 2 the last place
    at that depth, which is end, lengths of text and of arrays, and the span of the key that it is below; at [0, 0] the bracket after that key.

    Returns: depth, length of text, count of arrays; a depth above MAX_DEPTH, with the offset, where it was given up.
    """
    i = length = used = count = depth = 0
    in_mapping = False  # the outer one is
    string_from = string_to = key_from = key_to = 0
    bracket = 0  # that opened depth 2
    n = len(data)
    while i < n:
        c = data[i]
        start, end = i, i + 1
        closed = False  # an array or a mapping
        if c == 34:  # "
            while end < n and data[end] != 34:
                end += 2 if data[end] == 92 else 1
            end = min(end + 1, n)
            string_from, string_to = start, end
        elif (c == 91 and depth) or c in (78, 73) or (c == 45 and i + 1 < n and data[i + 1] == 73):  # [, N, I, -I
            rows = columns = lines = keys = 0
            if c == 91:
                end, last, rows, columns, lines = _array(data, i, numbers, used)
                if end == _NO:
                    end, last, keys, lines = _points(data, i, numbers, used)
            else:
                end, numbers[used] = _number(data, i)
                last = used + 1
            if end == _CUT:
                break
            if end != _NO and keys:
                length, count = _write_columns(data, i, text, length, arrays, count, used, last, keys)
            elif end != _NO:
                text[length : length + 3] = _PLACEHOLDER
                length += 3
                arrays[count, 0], arrays[count, 1], arrays[count, 2], arrays[count, 3], arrays[count, 4] = used, last, rows, columns, c == 91
                count += 1
            if end != _NO:
                text[length : length + lines] = 10
                length += lines
                used, start, closed = last, end, c == 91
            else:
                end = i + 1
        text[length : length + end - start] = data[start:end]
        length += end - start
        i = end
        if start < end and c in (91, 123):  # [ {
            depth += 1
            if depth > MAX_DEPTH:
                return depth, i, count
            if depth == 1:
                in_mapping = c == 123
            elif depth == 2:
                bracket, key_from, key_to = c, string_from, string_to
        elif c in (93, 125):  # ] }
            depth -= 1
            closed = True
        if closed and depth == 1:
            cuts[1, 0], cuts[1, 1], cuts[1, 2] = i, length, count
        elif closed and depth == 2 and in_mapping:
            cuts[0, 0], cuts[2, 0], cuts[2, 1], cuts[2, 2], cuts[2, 3], cuts[2, 4] = bracket, i, length, count, key_from, key_to
    return depth, length, count


@_compile
def _array(data, i, numbers, used):
    """The array of numbers, or of equally long ones, at `data[i]`: where it ends (or _NO, _CUT), the end of its numbers, rows, columns, lines."""
    n = len(data)
    rows = columns = lines = 0
    i, more = _skip(data, i + 1)
    lines += more
    if i < n and data[i] != 91:
        i, used, more = _row(data, i, numbers, used)
        return i, used, 0, 0, lines + more
    while i < n:
        if data[i] != 91:
            return _NO, used, 0, 0, 0
        before = used
        i, more = _skip(data, i + 1)
        lines += more
        i, used, more = _row(data, i, numbers, used)
        if i < 0:
            return i, used, 0, 0, 0
        lines += more
        if rows and used - before != columns:
            return _NO, used, 0, 0, 0
        columns = used - before
        rows += 1
        i, more = _skip(data, i)
        lines += more
        if i < n and data[i] == 93:
            return i + 1, used, rows, columns, lines
        if i < n and data[i] != 44:
            return _NO, used, 0, 0, 0
        i, more = _skip(data, i + 1)
        lines += more
    return _CUT, used, 0, 0, 0


@_compile
def _row(data, i, numbers, used):
    """Numbers with commas up to `]`: where that ends (or _NO, _CUT), the end of the numbers, lines."""
    n, lines = len(data), 0
    while i < n:
        i, value = _number(data, i)
        if i < 0:
            return i, used, 0
        numbers[used] = value
        used += 1
        i, more = _skip(data, i)
        lines += more
        if i >= n:
            break
        if data[i] == 93:
            return i + 1, used, lines
        if data[i] != 44:
            return _NO, used, 0
        i, more = _skip(data, i + 1)
        lines += more
    return _CUT, used, 0


@_compile
def _points(data, i, numbers, used):
    """The array of points at `data[i]`: where it ends (or _NO, _CUT), the end of its numbers, keys, lines. Its first key is x, none is escaped."""
    n = len(data)
    i, lines = _skip(data, i + 1)
    if i < n and data[i] != 123:
        return _NO, used, 0, 0
    first, columns = i, 0
    while i < n:  # points
        key, count = first, 0
        while i < n:  # members
            i, more = _skip(data, i + 1)
            lines += more
            start = i
            while key < n and data[key] != 34:  # to the opening quote of the key of the first point
                key += 1
            if i < n and data[i] != 34:
                return _NO, used, 0, 0
            i += 1
            while i < n and data[i] != 34:
                if data[i] == 92:
                    return _NO, used, 0, 0
                i += 1
            if i >= n:
                break
            if count == 0 and (i - start != 2 or data[start + 1] != 120):
                return _NO, used, 0, 0
            for k in range(start, i + 1):
                if data[k] != data[key + k - start]:
                    return _NO, used, 0, 0
            key += i + 1 - start
            i, more = _skip(data, i + 1)
            lines += more
            if i < n and data[i] != 58:
                return _NO, used, 0, 0
            i, more = _skip(data, i + 1)
            lines += more
            i, value = _number(data, i)
            if i < 0:
                return i, used, 0, 0
            numbers[used] = value
            used, count = used + 1, count + 1
            i, more = _skip(data, i)
            lines += more
            if i < n and data[i] == 125:
                break
            if i < n and data[i] != 44:
                return _NO, used, 0, 0
        columns = columns or count
        if i < n and count != columns:
            return _NO, used, 0, 0
        i, more = _skip(data, i + 1)
        lines += more
        if i < n and data[i] == 93:
            return i + 1, used, columns, lines
        if i < n and data[i] != 44:
            return _NO, used, 0, 0
        i, more = _skip(data, i + 1)
        lines += more
        if i < n and data[i] != 123:
            return _NO, used, 0, 0
    return _CUT, used, 0, 0


@_compile
def _write_columns(data, i, text, length, arrays, count, used, last, keys):
    """The mapping of `keys` arrays in place of the array of points at `data[i]`; the lengths of text and of arrays then."""
    for key in range(keys):
        while data[i] != 34:
            i += 1
        text[length] = 44 if key else 123
        length += 1
        end = i + 1
        while data[end] != 34:
            end += 1
        text[length : length + end + 1 - i] = data[i : end + 1]
        length += end + 1 - i
        text[length] = 58
        text[length + 1 : length + 4] = _PLACEHOLDER
        length += 4
        arrays[count, 0], arrays[count, 1], arrays[count, 2], arrays[count, 3], arrays[count, 4] = used + key, last, 0, 0, keys
        count, i = count + 1, end + 1
    text[length] = 125
    return length + 1, count


@_inline
def _skip(data, i):
    """The next place that is no white space, and the lines before it."""
    lines = 0
    while i < len(data) and data[i] in (32, 9, 10, 13):
        lines += data[i] == 10
        i += 1
    return i, lines


@_compile
def _number(data, i):
    """The end of a number at `data[i]` (or _NO, _CUT), and its value; NaN for null.

    The value is within a unit in the last place of float64, and within a few where it is beyond 1e22 or has more than 22 decimal places.
    """
    n = len(data)
    negative = data[i] == 45
    i += negative
    if i < n and data[i] in (78, 73, 110):
        return _word(data, i, negative)
    mantissa, digits, exponent, start = 0, 0, 0, i
    while i < n and 48 <= data[i] <= 57:
        if digits < _MOST_DIGITS:
            mantissa = 10 * mantissa + (data[i] - 48)
            digits += mantissa > 0
        else:
            exponent += 1
        i += 1
    if i < n and i == start:
        return _NO, 0.0
    if i < n and data[i] == 46:
        i += 1
        start = i
        while i < n and 48 <= data[i] <= 57:
            if digits < _MOST_DIGITS:
                mantissa = 10 * mantissa + (data[i] - 48)
                digits += mantissa > 0
                exponent -= 1
            i += 1
        if i < n and i == start:
            return _NO, 0.0
    if i < n and data[i] in (69, 101):
        i += 1
        falling = i < n and data[i] == 45
        i += i < n and data[i] in (43, 45)
        start, written = i, 0
        while i < n and 48 <= data[i] <= 57:
            written = min(10 * written + (data[i] - 48), _MOST_EXPONENT)
            i += 1
        if i < n and i == start:
            return _NO, 0.0
        exponent += -written if falling else written
    if i >= n:
        return _CUT, 0.0
    value = float(mantissa)
    if exponent < 0:
        value = value / _POWERS[-exponent] if exponent >= -22 else value / 1e22 / 10.0 ** (-exponent - 22)
    elif exponent > 0 and mantissa:
        value *= _POWERS[exponent] if exponent <= 22 else 10.0**exponent
    return i, -value if negative else value


@_compile
def _word(data, i, negative):
    which = 0 if data[i] == 110 else 1 if data[i] == 78 else 2
    word = _WORDS[0] if which == 0 else _WORDS[1] if which == 1 else _WORDS[2]
    for letter in word:
        if i >= len(data):
            return _CUT, 0.0
        if data[i] != letter or (negative and which != 2):
            return _NO, 0.0
        i += 1
    return i, np.nan if which < 2 else -np.inf if negative else np.inf
