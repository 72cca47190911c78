"""Which number in an image's or a file's name is the frame's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastst.data.digits import Numbers, numbers_of

HAS_FRAME = r"(^|[^0-9])[0-9]{1,18}[^0-9]*$"  # a name whose last number can be a frame's
_HASH_LENGTH = 32
_HASH = rf"[0-9a-f]{{{_HASH_LENGTH},}}"  # which some programs add to every name
_WORDS = re.compile("[0-9A-Za-z]+")
_FEWEST, _SHORTEST_RANDOM, _NEARLY_ALL = 5, 5, 0.9  # names, characters, and share of the names, to tell a word that is made up
_TRIED = 100  # names that tell whether a word is made up
_MANY = 12  # names that are the same but for a number: that one is no camera; nor if there are not so many times less than of another number
_MANY_MORE = 4
_REGULAR = 0.5  # share of the steps of a number that counts up that are the same
_WIDTHS_OF_PARTS = (3, 6)  # digits of milliseconds and microseconds
_RATES = (24, 25, 30, 50, 60)  # frames a second in time codes


def split_frames(names: Sequence[str] | pa.Array) -> tuple[pa.DictionaryArray, np.ndarray] | None:
    """Names into what the frames of a video share, and the frame's number: the last number that counts up along them, not a camera or an image size.

    A number counts up where it mostly steps by the same, in groups of names that are the same but for it and for what changes with it, such as a
    time. Of those that change together the frame is the one with the smallest steps; of the others the last one of which there are many, or not many
    less than of another. Seconds and their thousandths are one number, and so are minutes, seconds and frames.

    Returns:
        The names without their frame number  # [n], dictionary-encoded
        and the numbers.  # [n] int64
        None if some name has no number, as `HAS_FRAME` wants it.
    """
    names = pa.array(names, pa.string()) if not isinstance(names, pa.Array) else names.cast(pa.string())
    if not len(names):
        return names.dictionary_encode(), np.zeros(0, np.int64)
    encoded = names.dictionary_encode()
    different = encoded.dictionary
    if pc.max(pc.utf8_length(different)).as_py() >= _HASH_LENGTH:
        different = pc.replace_substring_regex(different, _HASH, "")
    different = _without_random_word(different)
    found = numbers_of(different)
    if not len(found):
        return None
    split = _split(found)
    rows = encoded.indices.to_numpy()
    return pa.DictionaryArray.from_arrays(split[0].indices.take(encoded.indices), split[0].dictionary), split[1][rows]


@dataclass(frozen=True)
class _Number:
    """The numbers at one place of n names.

    Args:
        places: counted from the end; more than one for a time.
        values: # [n] int64
        codes: a number from 0 for each spelling.  # [n]
        width: digits, where all have as many; else 0.
    """

    places: tuple[int, ...]
    values: np.ndarray
    codes: np.ndarray
    width: int = 0

    @property
    def varies(self) -> bool:
        return bool(self.codes.max(initial=0))


@dataclass(frozen=True)
class _Counted:
    """How one number counts up in the groups of names that are the same but for it and those that change `together` with it, itself among them."""

    number: _Number
    together: tuple[_Number, ...]
    names: float  # in a group, on average
    step: int
    regular: float  # share of the steps that are `step`


def _without_random_word(names: pa.Array) -> pa.Array:
    """Names without the word that is another one in each, of the same length and of letters and digits, such as c2 in `0012_9fc2a1.jpg`."""
    some = [_WORDS.findall(name) for name in names[:_TRIED].to_pylist()]
    if len(some) < _FEWEST or len({len(words) for words in some}) > 1:
        return names
    columns = list(zip(*some, strict=True))
    is_random = [_are_random(column) for column in columns]
    if sum(is_random) != 1 or not any(len(set(column)) > 1 and all(map(str.isdecimal, column)) for column in columns):
        return names
    place = is_random.index(True)
    before = rf"^([^0-9A-Za-z]*(?:[0-9A-Za-z]+[^0-9A-Za-z]+){{{place}}})"
    return pc.replace_substring_regex(names, rf"{before}[0-9A-Za-z]+", r"\1")


def _are_random(words: Sequence[str]) -> bool:
    """Whether words are made up: all of a length and nearly all different, also without their digits, which most of them have beside letters."""
    if len(set(map(len, words))) > 1 or len(words[0]) < _SHORTEST_RANDOM or len(set(words)) < _NEARLY_ALL * len(words):
        return False
    letters = [re.sub("[0-9]", "", word) for word in words]
    mixed = [word for word, left in zip(words, letters, strict=True) if left and left != word]
    return 2 * len(mixed) > len(words) and 2 * len(set(letters)) > len(words)


def _split(found: Numbers) -> tuple[pa.DictionaryArray, np.ndarray]:
    numbers = _with_times([_number(place, found) for place in range(len(found))])
    varying = [number for number in numbers if number.varies]
    if len(varying) > 1:
        text = found.without(range(len(found))).dictionary_encode().indices.to_numpy()
        chosen = _frame(text, varying)
    else:
        [*_, number] = varying or numbers[:1]
        chosen = _Counted(number, (number,), 1, 1, 1)
    gone = [place for number in chosen.together for place in number.places]
    return found.without(gone).dictionary_encode(), chosen.number.values


def _number(place: int, found: Numbers) -> _Number:
    values, widths = found.values[place], found.widths[place]
    codes = pa.array(values).dictionary_encode().indices.to_numpy().astype(np.int64)
    width = int(widths[0]) if (widths == widths[0]).all() else 0
    return _Number((place,), values, codes if width else _codes([codes, widths.astype(np.int64)]), width)


def _with_times(numbers: list[_Number]) -> list[_Number]:
    """Numbers, from the last one, of which those that are a time together are one."""
    for i, (number, before) in enumerate(itertools.pairwise(numbers)):
        if not (number.varies and before.varies):
            continue
        if number.width in _WIDTHS_OF_PARTS and _fills(number, 10**number.width):
            return [*numbers[:i], _joined(before, _seconds(before), number, 10**number.width), *numbers[i + 2 :]]
        if i + 2 < len(numbers) and {n.width for n in numbers[i : i + 3]} == {2} and _is_time_code(number, before):
            minutes, rate = numbers[i + 2], int(number.values.max()) + 1
            seconds = _joined(minutes, minutes.values, before, 60)
            return [*numbers[:i], _joined(seconds, seconds.values, number, rate), *numbers[i + 3 :]]
    return numbers


def _fills(number: _Number, end: int) -> bool:
    """Whether it goes from about 0 to about `end`, in steps of more than 1."""
    values = np.unique(number.values)
    step = np.diff(values).max()
    return bool(np.diff(values).min() > 1 and values[0] < 2 * step and values[-1] >= end - 2 * step)


def _is_time_code(frames: _Number, seconds: _Number) -> bool:
    """Whether every second but the first and the last has all its frames, as many as a video has."""
    rate = int(frames.values.max()) + 1
    if rate not in _RATES or seconds.values.max() >= 60:
        return False
    counts = np.unique_counts(seconds.values).counts
    return bool((counts[1:-1] % rate == 0).all())


def _seconds(number: _Number) -> np.ndarray:
    """The seconds of a time of day such as 111259; other numbers as they are.  # [n]"""
    hours, minutes, seconds = number.values // 10000, number.values // 100 % 100, number.values % 100
    is_time = number.width == 6 and hours.max() < 24 and max(minutes.max(), seconds.max()) < 60
    return hours * 3600 + minutes * 60 + seconds if is_time else number.values


def _joined(before: _Number, values: np.ndarray, number: _Number, base: int) -> _Number:
    return _Number((*number.places, *before.places), values * base + number.values, _codes([before.codes, number.codes]))


def _frame(text: np.ndarray, numbers: list[_Number]) -> _Counted:
    """Which of the numbers that vary, from the last one, is the frame's; `text` is what is around them.  # [n]"""
    counted = [_counted(text, number, numbers) for number in numbers]
    counting = [each for each in counted if each.regular >= _REGULAR] or counted
    enough = min(_MANY, max(each.names for each in counting) / _MANY_MORE)
    last = next(each for each in counting if each.names >= enough)
    mates = [each for each in counting if each.number in last.together and last.number in each.together]
    return min(mates, key=lambda each: each.step)


def _counted(text: np.ndarray, number: _Number, numbers: list[_Number]) -> _Counted:
    together, others = [number], [other for other in numbers if other is not number]
    keys = _codes([text, *(other.codes for other in others)])
    while others and 2 * (keys.max() + 1) > len(keys):  # it changes with others: the one without which most names are the same
        without = [_codes([text, *(other.codes for other in others if other is not left)]) for left in others]
        best = min(range(len(others)), key=lambda i: (without[i].max(), -others[i].codes.max()))
        together.append(others.pop(best))
        keys = without[best]
    order = _order(keys, number.values)
    steps = np.diff(number.values[order])[np.diff(keys[order]) == 0]
    values, counts = np.unique_counts(steps[steps > 0])
    step, share = (int(values[counts.argmax()]), counts.max() / len(steps)) if len(values) else (1, 0.0)
    return _Counted(number, tuple(together), len(keys) / (keys.max() + 1), step, float(share))


def _order(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The rows by key, and by value where that is the same.  # [n]"""
    if (keys.max() + 1.0) * (values.max() + 1.0) < 1 << 62:
        return np.argsort(keys * (values.max() + 1) + values, kind="stable")
    return np.lexsort((values, keys))


def _codes(columns: list[np.ndarray]) -> np.ndarray:
    """A number from 0 for each combination of numbers from 0.  # [n]"""
    codes = np.zeros_like(columns[0], np.int64)
    for column in columns:
        codes = codes * (column.max() + 1) + column
        if codes.max() < 4 * len(codes) + 1000:  # no need to sort
            is_there = np.zeros(codes.max() + 1, bool)
            is_there[codes] = True
            codes = (np.cumsum(is_there) - 1)[codes]
        else:
            codes = np.unique_inverse(codes).inverse_indices
    return codes
