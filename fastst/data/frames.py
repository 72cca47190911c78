"""Which number in an image's or a file's name is the frame's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HAS_FRAME = r"(^|[^0-9])[0-9]{1,18}[^0-9]*$"  # a name whose last number can be a frame's
_MOST_NUMBERS = 6  # of a name's numbers, from its end, are looked at
_MANY = 20  # if so many names, on average, are the same but for a number, that one is no camera
_MANY_MORE = 4  # frames than cameras, where there are few of both


def split_frames(names: Sequence[str] | pa.Array) -> tuple[pa.DictionaryArray, np.ndarray] | None:
    """Names into what the frames of a video share, and the frame's number: the last number that counts up along them, not a camera or an image size.

    A number counts up where names that are the same but for it are several: the last one of which there are many, else the last one of which there
    are not many less than of another. Where all numbers of a name change together (a frame and its time) the last one counts.

    Returns:
        The names without their frame number  # [n], dictionary-encoded
        and the numbers.  # [n] int64
        None if some name has no number, as `HAS_FRAME` wants it.
    """
    names = pa.array(names, pa.string()) if not isinstance(names, pa.Array) else names.cast(pa.string())
    if not len(names):
        return names.dictionary_encode(), np.zeros(0, np.int64)
    encoded = names.dictionary_encode()
    split = _split_different(encoded.dictionary)
    if split is None:
        return None
    rows = encoded.indices.to_numpy()
    return pa.DictionaryArray.from_arrays(split[0].indices.take(encoded.indices), split[0].dictionary), split[1][rows]


def _split_different(names: pa.Array) -> tuple[pa.DictionaryArray, np.ndarray] | None:
    """`split_frames` of names that are all different."""
    splits = []
    for place in range(_MOST_NUMBERS):
        split = _without_number(names, place)
        if split is None:
            break
        if len(split[0].dictionary) * _MANY <= len(names):
            return split
        splits.append(split)
    if not splits:
        return None
    fewest = min(len(keys.dictionary) for keys, _ in splits)
    if fewest == len(names) > 1 and (together := _numbers_together(names)) is not None:
        return together
    return next(split for split in splits if len(split[0].dictionary) < min(_MANY_MORE * fewest, len(names)) or len(split[0].dictionary) == fewest)


def _without_number(names: pa.Array, place: int) -> tuple[pa.DictionaryArray, np.ndarray] | None:
    """Names without the number at a place counted from the end, and that number; None where a name has none there."""
    pattern = rf"^(?P<before>(?:.*[^0-9])?)(?P<number>[0-9]{{1,18}})(?P<after>(?:[^0-9]+[0-9]+){{{place}}}[^0-9]*)$"
    parts = pc.extract_regex(names, pattern)
    if parts.null_count:
        return None
    keys = pc.binary_join_element_wise(pc.struct_field(parts, "before"), pc.struct_field(parts, "after"), "\0")
    return keys.dictionary_encode(), pc.struct_field(parts, "number").cast(pa.int64()).to_numpy()


def _numbers_together(names: pa.Array) -> tuple[pa.DictionaryArray, np.ndarray] | None:
    """Names without any number, and the last number, where it tells the names with the same letters apart."""
    split = _without_number(names, 0)
    if split is None:
        return None
    keys = pc.replace_substring_regex(names, "[0-9]+", "\0").dictionary_encode()
    pairs = set(zip(keys.indices.to_pylist(), split[1].tolist(), strict=True))
    return (keys, split[1]) if len(pairs) == len(names) else None
