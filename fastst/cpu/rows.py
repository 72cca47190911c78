"""Rows of features on the CPU, of which a tile stays in the cache from its first product to its last; what `linear` and `feed_forward` share.

A row gets a 1 behind its last number, so that a bias is one more row of the weights. The backward begins from the inputs again. Gradients of weights
are sums over pieces of rows, as many whatever the threads.
"""

from __future__ import annotations

import math

from torch import Tensor

from fastst.cpu.functions import compile_loops, compile_sums
from fastst.cpu.memory import LINE
from fastst.cpu.products import WIDTH
from fastst.cpu.tiles import VECTORS

ROWS = 48  # of a tile
_PIECES = 32  # that gradients of weights are sums of, at most


def pieces_of(N: int) -> tuple[int, int]:
    """How many pieces the rows make, and how many tiles a piece has."""
    tiles = -(-N // ROWS)
    each = max(1, -(-tiles // _PIECES))
    return -(-tiles // each), each


def panels_of(matrices: Tensor) -> Tensor:
    """Some matrices side by side as panels of as many columns as a tile of a product has, one after the other.  # [S, parts, M] -> [parts n, S, m]"""
    S, parts, M = matrices.shape
    columns = VECTORS * len(WIDTH) * 16 // matrices.itemsize
    count = -(-M // columns)
    panels = matrices.new_zeros(parts, count, S, columns)
    whole = M // columns
    panels[:, :whole] = matrices[..., : whole * columns].view(S, parts, whole, columns).permute(1, 2, 0, 3)
    if whole < count:
        panels[:, whole, :, : M - whole * columns] = matrices[..., whole * columns :].transpose(0, 1)
    return panels.view(parts * count, S, columns)


@compile_loops
def pitch_of(count, lanes, like):
    """Of rows of so many numbers and a 1: whole vectors, and an odd number of cache lines."""
    line = LINE // like.itemsize
    return ((count + 1 + lanes - 1) // lanes * lanes + line - 1) // line // 2 * 2 * line + line


@compile_sums
def take_rows(x, first, n, target, pitch, factor, normalized, eps):
    """Rows of x, with `normalized` 1 less their mean and over their standard deviation, and a 1 behind each; factor is 1 over the latter."""
    K = x.shape[1]
    one = x.dtype.type(1)
    for r in range(n):
        source, row = x[first + r], target[r * pitch : r * pitch + K]
        if normalized == 1:
            total = x.dtype.type(0)
            for c in range(K):
                total += source[c]
            mean = total / x.dtype.type(K)
            squares = x.dtype.type(0)
            for c in range(K):
                squares += (source[c] - mean) * (source[c] - mean)
            factor[r] = one / x.dtype.type(math.sqrt(squares / x.dtype.type(K) + x.dtype.type(eps)))
            for c in range(K):
                row[c] = (source[c] - mean) * factor[r]
        else:
            for c in range(K):
                row[c] = source[c]
        target[r * pitch + K] = one


@compile_sums
def through_norm(rows, gradients, pitch, factor, n, K):
    """Gradients of normalised rows become those of the rows as they were."""
    kind = rows.dtype.type
    for r in range(n):
        row, gradient = rows[r * pitch : r * pitch + K], gradients[r * pitch : r * pitch + K]
        total, along = kind(0), kind(0)
        for c in range(K):
            total += gradient[c]
            along += gradient[c] * row[c]
        total, along = total / kind(K), along / kind(K)
        for c in range(K):
            gradient[c] = factor[r] * (gradient[c] - total - row[c] * along)


@compile_loops
def add_columns(rows, pitch, n, count, sums):
    """sums[c] += Σ over the rows."""
    for r in range(n):
        row = rows[r * pitch : r * pitch + count]
        for c in range(count):
            sums[c] += row[c]
