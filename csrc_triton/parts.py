"""Tiles of rows of features whose parts lie in one thread: [parts, rows, channels of a part], or rows first.

A thread then works out a row's address, edge and mask once for all of its parts. The compiler gives channels that follow one another in memory to
neighbouring threads, then takes the next dimension; between rows and parts, which are alike to it, the last is next since Triton 3.7, and was the
first before. Parts must be the other one: spread over threads, attention exchanges them through shared memory and spills.
"""

from __future__ import annotations

import triton
import triton.language as tl

_PARTS_FIRST = tl.constexpr(tuple(int(number) for number in triton.__version__.split(".")[:2]) >= (3, 7))


@triton.jit
def by_row(x):
    """A number for every row, to go with a tile.  # [N]"""
    return x[None, :, None] if _PARTS_FIRST else x[:, None, None]


@triton.jit
def part_starts(PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """The first channel of every part of a row of WIDTH."""
    starts = tl.arange(0, PARTS) * (WIDTH // PARTS)
    return starts[:, None, None] if _PARTS_FIRST else starts[None, :, None]


@triton.jit
def channels(PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """The channels of a tile."""
    return part_starts(PARTS, WIDTH) + tl.arange(0, WIDTH // PARTS)[None, None, :]


@triton.jit
def zeros(PARTS: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, dtype: tl.constexpr):
    return tl.zeros([PARTS, N, WIDTH // PARTS] if _PARTS_FIRST else [N, PARTS, WIDTH // PARTS], dtype)


@triton.jit
def parts_of(x):
    """The one or two parts of a tile.  # [N, channels of a part] each"""
    PARTS: tl.constexpr = x.shape[0] if _PARTS_FIRST else x.shape[1]
    if PARTS == 2:
        parts_last = x.permute(1, 2, 0) if _PARTS_FIRST else x.permute(0, 2, 1)
        parts = parts_last.split()
    else:
        parts = (x.reshape(x.shape[1] if _PARTS_FIRST else x.shape[0], x.shape[2]),)
    return parts


@triton.jit
def sum_of_rows(x):
    """Σ over the rows of a tile."""
    return tl.sum(x, 1 if _PARTS_FIRST else 0, keep_dims=True)


@triton.jit
def over_groups(x, GROUPS: tl.constexpr):
    """Σ over groups of rows that follow one another, for every one of them."""
    if GROUPS > 1:
        if _PARTS_FIRST:
            apart = x.reshape(x.shape[0], GROUPS, x.shape[1] // GROUPS, x.shape[2])
        else:
            apart = x.reshape(GROUPS, x.shape[0] // GROUPS, x.shape[1], x.shape[2])
        x = tl.sum(apart, 1 if _PARTS_FIRST else 0, keep_dims=True).broadcast_to(apart.shape).reshape(x.shape)
    return x


@triton.jit
def load_tile(ptr, exists, C, MASKED: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr):
    """Rows; 0 from channel C on, where not all are EVEN, and with masks where a row does not exist."""
    if not EVEN:
        inside = channels(PARTS, WIDTH) < C
        x = tl.load(ptr, by_row(exists) & inside if MASKED else inside, 0.0)
    elif MASKED:
        x = tl.load(ptr, by_row(exists), 0.0)
    else:
        x = tl.load(ptr)
    return x


@triton.jit
def store_tile(ptr, x, exists, C, PARTS: tl.constexpr, WIDTH: tl.constexpr, EVEN: tl.constexpr):
    """Of rows that exist, the channels before C."""
    inside = by_row(exists) if EVEN else by_row(exists) & (channels(PARTS, WIDTH) < C)
    tl.store(ptr, x.to(ptr.dtype.element_ty), inside)


# The same as tuples of tiles, where all that is done is to load, to add up and to take dot products: four threads have a row of any width then.


def parts_for_four_threads(row_bytes: int) -> int:
    """So that a thread has 16 bytes of each part of a row, and four threads together 64."""
    return max(1, min(4, row_bytes // 64))


@triton.jit
def zero_parts(N: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, compute: tl.constexpr):
    """# PARTS times [N, WIDTH / PARTS]"""
    parts: tl.tuple = ()
    for _ in tl.static_range(PARTS):
        parts += (tl.zeros((N, WIDTH // PARTS), compute),)
    return parts


@triton.jit
def load_parts(rows, exists, C, channels, compute: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr, PARTS: tl.constexpr):
    """Rows from where their first parts lie, of which the first channels are `channels`; 0 from channel C on, where not all are EVEN, and with masks
    where a row does not exist.  # [N, WIDTH / PARTS] -> PARTS times that"""
    parts: tl.tuple = ()
    W: tl.constexpr = rows.shape[1]
    for part in tl.static_range(PARTS):
        if EVEN:
            one = tl.load(rows + part * W, exists[:, None], 0.0) if MASKED else tl.load(rows + part * W)
        else:
            inside = part * W + channels < C
            one = tl.load(rows + part * W, exists[:, None] & inside if MASKED else inside, 0.0)
        parts += (one.to(compute),)
    return parts


@triton.jit
def store_parts(rows, x, exists, C, channels, EVEN: tl.constexpr):
    """Where `load_parts` would load them."""
    W: tl.constexpr = rows.shape[1]
    for part in tl.static_range(len(x)):
        inside = exists[:, None] if EVEN else exists[:, None] & (part * W + channels < C)
        tl.store(rows + part * W, x[part].to(rows.dtype.element_ty), inside)


@triton.jit
def add_parts(total, factor, x):
    """total + factor x, a factor for every row."""
    parts: tl.tuple = ()
    for part in tl.static_range(len(x)):
        parts += (tl.fma(factor[:, None].broadcast_to(x[part].shape), x[part], total[part]),)
    return parts


@triton.jit
def dot_parts(a, b):
    """a · b of every row; the channels that lie in one thread in a chain of multiply-adds, where a sum would be a tree of additions.  # [N]"""
    a_pieces = _pieces(a)
    b_pieces = _pieces(b)
    total = a_pieces[0] * b_pieces[0]
    for i in tl.static_range(1, len(a_pieces)):
        total = tl.fma(a_pieces[i], b_pieces[i], total)
    return tl.sum(total, 1)


@triton.jit
def _pieces(parts):
    """# PARTS times [N, W] -> PARTS * min(W, 4) times [N, max(W / 4, 1)]"""
    pieces: tl.tuple = ()
    for part in tl.static_range(len(parts)):
        pieces += apart(parts[part])
    return pieces


@triton.jit
def apart(x):
    """The channels of a row that a thread has, in every four that follow one another.  # [N, W] -> min(W, 4) times [N, max(W / 4, 1)]"""
    N: tl.constexpr = x.shape[0]
    W: tl.constexpr = x.shape[1]
    if W >= 4:
        even, odd = x.reshape(N, W // 4, 2, 2).split()
        pieces = even.split() + odd.split()
    elif W == 2:
        pieces = x.reshape(N, 1, 2).split()
    else:
        pieces = (x,)
    return pieces
