"""The text of a JSON document without its arrays of numbers, which are nearly all of it: they are read into one array of float64.

Every array of numbers, and every array of equally long ones, is replaced by `NaN` in the text, and so is every number that JSON doesn't know (NaN,
Infinity). Python's parser then gives back the document, with `NaN` for its n-th array. An array of points, which are mappings of the same keys to
numbers, x and y among them, and strings becomes one mapping of arrays and lists of strings: `[{"x": 1, "y": 2, "name": "a"}, {"x": 3, "y": 4,
"name": "b"}]` is `{"x": [1, 3], "y": [2, 4], "name": ["a", "b"]}`. x and y may stand in a mapping `position` or `point`.
"""

from __future__ import annotations

import re
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
_OPENS = re.compile(rb"[\[{]")
_WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"null", b"NaN", b"Infinity"))
_POSITION, _POINT = np.frombuffer(b'"position"', np.uint8), np.frombuffer(b'"point"', np.uint8)
_MOST_DIGITS = 18  # that an int64 holds for sure
_MOST_EXPONENT = 9999
_NO, _CUT = -1, -2  # instead of a place: it is not what was looked for; the bytes end before that is known
_MOST_MEMBERS = 16  # of a point
_NUMBER, _STRING, _MAPPING = 0, 1, 2


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


def scan(document: bytes, whole: bool) -> Scanned | None:
    """Scan bytes up to their last place where a document can be cut, or all of them if they are `whole`.

    A document is cut between the elements of its outer list or mapping; or, if it is a mapping with no such place in the later half, between those of
    one of its values. None where there is no place.

    Raises:
        ValueError: brackets are nested too deep; the message is the offset.
    """
    n = len(document)
    data = np.frombuffer(document + b"\0", np.uint8)  # so that nothing has to be asked at every byte of a number
    text, numbers, arrays = np.empty(3 * n // 2 + 8, np.uint8), np.empty(n // 2 + 1), np.empty((n // 4 + 1, 5), np.int64)
    cuts = np.zeros((3, 5), np.int64)
    depth, length, count = _scan(data, text, numbers, arrays, cuts, np.empty((_MOST_MEMBERS, 4), np.int64))
    if depth > MAX_DEPTH:
        raise ValueError(str(length))
    end, openers, closers = n, b"", b""
    if not whole:
        level = 1 if 2 * cuts[1, 0] >= n or not cuts[2, 0] else 2
        end, length, count, key_from, key_to = cuts[level].tolist()
        if not end:
            return None
        top = _OPENS.search(document)[0]  # type: ignore[index]  # what has a cut has it
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
def _scan(data, text, numbers, arrays, cuts, members):
    """Fills text, numbers and arrays (first and last number; rows and columns, or 0; step, 0 for a number); and `cuts`: at row 1 and 2 the last place
    at that depth, which is end, lengths of text and of arrays, and the span of the key that it is below; at [0, 0] the bracket after that key.

    Args:
        data: the document, and a 0 behind it.
        members: room for those of a point.  # [most, 4]

    Returns: depth, length of text, count of arrays; a depth above MAX_DEPTH, with the offset, where it was given up.
    """
    i = length = used = count = depth = 0
    in_mapping = False  # the outer one is
    string_from = string_to = key_from = key_to = 0
    bracket = 0  # that opened depth 2
    n = len(data) - 1
    while i < n:
        c = data[i]
        start, end = i, i + 1
        closed = False  # an array or a mapping
        if c == 34:  # "
            end = _after_string(data, i)
            end = n if end == _CUT else end
            string_from, string_to = start, end
        elif (c == 91 and depth) or c in (78, 73) or (c == 45 and data[i + 1] == 73):  # [, N, I, -I
            rows = columns = size = 0
            if c == 91:
                end, last, rows, columns = _array(data, i, numbers, used)
                if end == _NO:
                    end, last, size = _points(data, i, numbers, used, members)
            else:
                end, numbers[used] = _number(data, i)
                last = used + 1
            if end == _CUT:
                break
            if end == _NO:
                end = i + 1
            else:
                if size:
                    length, count = _write_columns(data, text, length, numbers, arrays, count, used, last, members[:size])
                else:
                    length = _copy(_PLACEHOLDER, 0, 3, text, length)
                    arrays[count, 0], arrays[count, 1], arrays[count, 2], arrays[count, 3], arrays[count, 4] = used, last, rows, columns, c == 91
                    count += 1
                for k in range(i, end):
                    if data[k] == 10:  # so that the number of a line stays what it is
                        text[length] = 10
                        length += 1
                used, start, closed = last, end, c == 91
        length = _copy(data, start, end, text, length)
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
    """The array of numbers, or of equally long ones, at `data[i]`: where it ends (or _NO, _CUT), the end of its numbers, rows, columns."""
    rows = columns = 0
    i = _skip(data, i + 1)
    if data[i] != 91:
        i, used = _row(data, i, numbers, used)
        return i, used, 0, 0
    while data[i] == 91:
        i, last = _row(data, _skip(data, i + 1), numbers, used)
        if i < 0 or (rows and last - used != columns):
            return min(i, _NO), used, 0, 0
        rows, columns, used = rows + 1, last - used, last
        i = _skip(data, i)
        if data[i] == 93:
            return i + 1, used, rows, columns
        if data[i] != 44:
            break
        i = _skip(data, i + 1)
    return _nothing(data, i), used, 0, 0


@_compile
def _row(data, i, numbers, used):
    """Numbers with commas up to `]`: where that ends (or _NO, _CUT), the end of the numbers."""
    while True:
        i, value = _number(data, i)
        if i < 0:
            return i, used
        numbers[used] = value
        used += 1
        i = _skip(data, i)
        if data[i] == 93:
            return i + 1, used
        if data[i] != 44:
            return _nothing(data, i), used
        i = _skip(data, i + 1)


@_compile
def _points(data, i, numbers, used, members):
    """The array of points at `data[i]`: where it ends (or _NO, _CUT), the end of its numbers, how many members a point has."""
    size = 0
    i = _skip(data, i + 1)
    while data[i] == 123:
        i, used, count = _point(data, i, numbers, used, members, size)
        if i < 0:
            return i, used, 0
        if not size and not _has_place(data, members[:count]):
            return _NO, used, 0
        size = count
        i = _skip(data, i)
        if data[i] == 93:
            return i + 1, used, size
        if data[i] != 44:
            break
        i = _skip(data, i + 1)
    return _nothing(data, i), used, 0


@_compile
def _point(data, i, numbers, used, members, size):
    """The point at `data[i]`, with members as those before it have if `size` isn't 0: where it ends (or _NO, _CUT), the end of its numbers, how many
    members it has. The number of a string is its place. Keys have no escapes.

    Fills `members`: where the key begins and ends, what the value is, and how many mappings end behind it.
    """
    count, opened = 0, 1
    while opened:
        if count == (size or len(members)):
            return _NO, used, 0
        key = _skip(data, i + 1)
        after = i = _after_same(data, key, members[count]) if size else _after_key(data, key)
        if i < 0:
            return i, used, 0
        i = _skip(data, i)
        if data[i] != 58:
            return _nothing(data, i), used, 0
        i = _skip(data, i + 1)
        kind, closed = _MAPPING if data[i] == 123 else _STRING if data[i] == 34 else _NUMBER, 0
        if kind != _MAPPING:
            i, numbers[used] = _number(data, i) if kind == _NUMBER else (_after_string(data, i), float(i))
            if i < 0:
                return i, used, 0
            used += 1
            i = _skip(data, i)
            while closed < opened and data[i] == 125:
                closed += 1
                i = i + 1 if closed == opened else _skip(data, i + 1)
            if closed < opened and data[i] != 44:
                return _nothing(data, i), used, 0
        opened += (kind == _MAPPING) - closed
        if not size:
            members[count, 0], members[count, 1], members[count, 2], members[count, 3] = key, after, kind, closed
        elif members[count, 2] != kind or members[count, 3] != closed:
            return _NO, used, 0
        count += 1
    return (i if count == (size or count) else _NO), used, count


@_compile
def _has_place(data, members):
    """Whether x and y are among the members, and none is a mapping but a `position` or `point`."""
    x = y = False
    places = 0
    for key, after, kind, _ in members:
        if kind == _MAPPING:
            places += 1
            if places > 1 or not (_is_word(data, key, after, _POSITION) or _is_word(data, key, after, _POINT)):
                return False
        elif kind == _NUMBER and after - key == 3:
            x |= data[key + 1] == 120
            y |= data[key + 1] == 121
    return x and y


@_compile
def _is_word(data, start, end, word):
    return end - start == len(word) and (data[start:end] == word).all()


@_compile
def _write_columns(data, text, length, numbers, arrays, count, used, last, members):
    """The mapping of a point's members in place of the array of points whose numbers are those from `used` to `last`; the lengths of text and of
    arrays then."""
    step = 0
    for m in range(len(members)):
        step += members[m, 2] != _MAPPING
    text[length] = 123
    length, column = length + 1, used
    for m in range(len(members)):
        key, after, kind, closed = members[m]
        if m and members[m - 1, 2] != _MAPPING:
            text[length] = 44
            length += 1
        length = _copy(data, key, after, text, length)
        text[length] = 58
        length += 1
        if kind == _MAPPING:
            text[length] = 123
            length += 1
        elif kind == _NUMBER:
            length = _copy(_PLACEHOLDER, 0, 3, text, length)
            arrays[count, 0], arrays[count, 1], arrays[count, 2], arrays[count, 3], arrays[count, 4] = column, last, 0, 0, step
            count += 1
        else:
            for point in range(column, last, step):
                text[length] = 91 if point == column else 44
                start = int(numbers[point])
                length = _copy(data, start, _after_string(data, start), text, length + 1)
            text[length] = 93
            length += 1
        column += kind != _MAPPING
        for _ in range(closed):
            text[length] = 125
            length += 1
    return length, count


@_inline
def _copy(data, start, end, text, length):
    """The length of the text with those bytes behind it."""
    for k in range(start, end):
        text[length + k - start] = data[k]
    return length + end - start


@_inline
def _skip(data, i):
    """The next place that is no white space."""
    while data[i] == 32 or data[i] == 10 or data[i] == 13 or data[i] == 9:
        i += 1
    return i


@_inline
def _nothing(data, i):
    """_NO, or _CUT if `i` is the end."""
    return _CUT if i >= len(data) - 1 else _NO


@_compile
def _after_string(data, i):
    """The place after the string at `data[i]`, or _CUT."""
    i += 1
    while i < len(data) - 1:
        if data[i] == 34:
            return i + 1
        i += 2 if data[i] == 92 else 1
    return _CUT


@_compile
def _after_key(data, i):
    """The place after the string without escapes at `data[i]`, or _NO, _CUT."""
    if data[i] != 34:
        return _nothing(data, i)
    i += 1
    while data[i] != 34 and data[i] != 92 and data[i] != 0:
        i += 1
    return i + 1 if data[i] == 34 else _nothing(data, i)


@_compile
def _after_same(data, i, member):
    """The place after what is the same as the key of a member, or _NO, _CUT."""
    for k in range(member[0], member[1]):
        if data[i] != data[k]:
            return _nothing(data, i)
        i += 1
    return i


@_compile
def _number(data, i):
    """The end of a number at `data[i]` (or _NO, _CUT), and its value; NaN for null.

    The value is within a unit in the last place of float64, and within a few where it is beyond 1e22 or has more than 22 decimal places.
    """
    start = i
    i += data[i] == 45
    mantissa, first = 0, i
    while _is_digit(data[i]):
        mantissa = 10 * mantissa + (data[i] - 48)
        i += 1
    point = after = i
    if data[i] == 46:
        i += 1
        while _is_digit(data[i]):
            mantissa = 10 * mantissa + (data[i] - 48)
            i += 1
        after = point + 1
    if point == first or (after > point and i == after) or i - first > _MOST_DIGITS or data[i] == 0 or data[i] | 32 == 101:
        return _any_number(data, start)
    value = mantissa / _POWERS[i - after]
    return i, -value if first > start else value


@_compile
def _any_number(data, i):
    """As `_number`, also of one with an exponent, with many digits, or that is a word."""
    negative = data[i] == 45
    i += negative
    if data[i] in (78, 73, 110):
        return _word(data, i, negative)
    mantissa, digits, exponent, start = 0, 0, 0, i
    while _is_digit(data[i]):
        if digits < _MOST_DIGITS:
            mantissa = 10 * mantissa + (data[i] - 48)
            digits += mantissa > 0
        else:
            exponent += 1
        i += 1
    if i == start:
        return _nothing(data, i), 0.0
    if data[i] == 46:
        i += 1
        start = i
        while _is_digit(data[i]):
            if digits < _MOST_DIGITS:
                mantissa = 10 * mantissa + (data[i] - 48)
                digits += mantissa > 0
                exponent -= 1
            i += 1
        if i == start:
            return _nothing(data, i), 0.0
    if data[i] | 32 == 101:
        i += 1
        falling = data[i] == 45
        i += data[i] in (43, 45)
        start, written = i, 0
        while _is_digit(data[i]):
            written = min(10 * written + (data[i] - 48), _MOST_EXPONENT)
            i += 1
        if i == start:
            return _nothing(data, i), 0.0
        exponent += -written if falling else written
    if i >= len(data) - 1:
        return _CUT, 0.0
    value = float(mantissa)
    if exponent < 0:
        value = value / _POWERS[-exponent] if exponent >= -22 else value / 1e22 / 10.0 ** (-exponent - 22)
    elif exponent > 0 and mantissa:
        value *= _POWERS[exponent] if exponent <= 22 else 10.0**exponent
    return i, -value if negative else value


@_inline
def _is_digit(byte):
    return np.uint8(byte - 48) < 10


@_compile
def _word(data, i, negative):
    which = 0 if data[i] == 110 else 1 if data[i] == 78 else 2
    word = _WORDS[0] if which == 0 else _WORDS[1] if which == 1 else _WORDS[2]
    for letter in word:
        if data[i] != letter or (negative and which != 2):
            return _nothing(data, i), 0.0
        i += 1
    return i, np.nan if which < 2 else -np.inf if negative else np.inf
