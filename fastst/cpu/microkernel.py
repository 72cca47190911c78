"""What the kernels of several operations share: addresses, zeros, memory fetched ahead, and the
channels of a row block by block.

How kernels are written, `fastst.cpu.kernel` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastst.cpu.kernel import Int, Width, kernel
from fastst.cpu.memory import LINE
from fastst.cpu.values import Kind, Row, Value, Vectors, cases, span, where

FRAMES, TILE = 4, 32  # frames that sums are made of at once, and those that share packed memory
# Of channels, beside one another: four frames' sums of two vectors each, two vectors of x and a
# weight fit 16 registers; and the same for the 32 registers that come with vectors of 64 bytes.
VECTORS, MOST_VECTORS = 2, 4


@kernel
def address(target: Row, at: Int) -> Int:
    """The address of an element of an array."""
    return target.at(at).address()


@kernel
def lanes_of(width: Width, array: Kind) -> Int:
    """How many elements of an array a vector holds; a constant of the code, which an array's item
    size is not."""
    return array.constant(array.lanes)


@kernel
def clear(target: Row, first: Int, last: Int) -> None:
    """Zeros from one place of an array's memory up to another. (An assignment to a slice takes numba
    long to compile.)"""
    begin, count = target.at(first), last - first
    begin.clear(where(count > 0, count, 0))


@kernel
def fetch_rows(source: Row, at: Int, stride: Int, count: Int) -> None:
    """Has the first `count` elements of FRAMES rows of an array's memory fetched for later. (Places
    beyond the array do no harm.)"""
    first = source.at(at)
    for c in span(0, count, LINE // source.kind.itemsize):
        for f in range(FRAMES):
            first.prefetch(c + stride * f, to_write=False)


def vectors_at_once(width: tuple[int, ...]) -> int:
    """How many vectors of channels `blocks` goes over at once."""
    return MOST_VECTORS if len(width) == 4 else VECTORS


class Block:
    """Neighbouring channels of a row, some vectors full: where each vector begins, and its mask."""

    def __init__(self, places: Sequence[Any], masks: Sequence[Any]) -> None:
        self.places, self.masks = places, masks

    def load(self, row: Row, at: Value | int = 0) -> Vectors:
        """Those of the row that begins there."""
        return Vectors(row.load(at + place, mask) for place, mask in zip(self.places, self.masks, strict=True))

    def store(self, values: Iterable[Value], row: Row, at: Value | int = 0) -> None:
        for value, place, mask in zip(values, self.places, self.masks, strict=True):
            row.store(value, at + place, mask)

    def zero(self, kind: Kind) -> Vectors:
        return Vectors([kind.zero()] * len(self.places))


def blocks(width: int, kind: Kind, c: Value, size: Value) -> Iterator[Block]:
    """For `for`: what follows is made for the channels from c on; of `vectors_at_once` full vectors,
    or of the first `size` channels of one."""
    vectors = vectors_at_once((0,) * width)
    for full in cases(size >= vectors * kind.lanes):
        if full:
            yield Block([c + v * kind.lanes for v in range(vectors)], [None] * vectors)
        else:
            yield Block([c], [kind.mask(size)])
