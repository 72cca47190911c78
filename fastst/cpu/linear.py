"""Linear layers on the CPU, with the normalisation before and the sum and the ReLU after them, see `fastst.cpu.rows`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend import room_for
from fastst.cpu.functions import compile_loops
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import address, lanes_of
from fastst.cpu.products import WIDTH
from fastst.cpu.rows import ROWS, add_columns, panels_of, pieces_of, pitch_of, take_rows, through_norm
from fastst.cpu.threads import run_ranges
from fastst.cpu.tiles import VECTORS, finish_rows, tile_products


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, parts: int, normalized: bool, eps: float, share: float, relu: bool
) -> list[Tensor]:
    """`parts` results `[N, M]` of x `[N, K]`, weight `[parts M, K]` and bias `[parts M]`, in at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    (N, K), M = x.shape, weight.shape[0] // parts
    x, weight, bias = (v.to(dtype) for v in (x, weight, bias))
    ys = [empty(N, M if part < parts else 0, dtype=dtype) for part in range(3)]
    added = x.new_empty(0, 0) if residual is None else residual.to(dtype)
    panels = panels_of(torch.cat((weight.t(), bias[None])).reshape(K + 1, parts, M))
    run_ranges(_forward, -(-N // ROWS), x, panels, added, *ys, parts, int(normalized), eps, share, int(relu), WIDTH)
    return ys[:parts]


def linear_backward(
    dys: list[Tensor], y: Tensor | None, x: Tensor, weight: Tensor, normalized: bool, eps: float, wants_x: bool, wants_sum: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, and where y, the result of a ReLU, is given that of the sum before it; of x and the sum if wanted."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    (N, K), parts = x.shape, len(dys)
    M = weight.shape[0] // parts
    x, weight, *dys = (v.to(dtype) for v in (x, weight, *dys))
    given = [*dys, *(x.new_empty(0, 0) for _ in range(3 - parts))]
    through = x.new_empty(0, 0) if y is None else y.to(dtype)
    dx, dz = empty(N if wants_x else 0, K, dtype=dtype), empty(N if wants_sum and y is not None else 0, M, dtype=dtype)
    pieces, tiles = pieces_of(N)
    sums = empty(pieces, K + 1, parts * M, dtype=dtype)
    panels = panels_of(weight.reshape(parts * M, 1, K))
    run_ranges(_backward, pieces, *given, through, x, panels, dx, dz, sums, M, parts, tiles, int(normalized), eps, WIDTH)
    total = sums.sum(0)
    return dx, total[:K].t(), total[K], dz


@compile_loops
def _forward(first, last, x, panels, residual, y0, y1, y2, parts, normalized, eps, share, relu, width):
    N, K = x.shape
    M, kind = y0.shape[1], x.dtype.type
    lanes: int = lanes_of(width, x)
    wide, across = VECTORS * lanes, len(panels) // parts
    pitch = pitch_of(K, lanes, x)
    rows, factor = room_for(ROWS * pitch, kind), room_for(ROWS, kind)
    made = room_for(ROWS * (across * wide), kind)
    share, least = kind(share), kind(0) if relu == 1 else kind(-np.inf)
    for tile in range(first, last):
        t0 = tile * ROWS
        n = min(ROWS, N - t0)
        take_rows(x, t0, n, rows, pitch, factor, normalized, eps)
        for part in range(parts):
            for p in range(across):
                tile_products(
                    width, x, address(rows, 0), pitch, 1, address(panels, (part * across + p) * (K + 1) * wide), wide, K + 1,
                    address(made, p * wide), across * wide, n, min(wide, M - p * wide), 0,
                )  # fmt: skip
            y = address(y0, t0 * M) if part == 0 else address(y1, t0 * M) if part == 1 else address(y2, t0 * M)
            added = address(residual, t0 * M) if residual.shape[0] else 0
            finish_rows(width, x, address(made, 0), across * wide, added, M, share, least, y, M, n, M)


@compile_loops
def _backward(first, last, dy0, dy1, dy2, through, x, panels, dx, dz, sums, M, parts, tiles, normalized, eps, width):
    N, K = x.shape
    kind, columns = x.dtype.type, parts * M
    lanes: int = lanes_of(width, x)
    wide = VECTORS * lanes
    pitch, pitch_y = pitch_of(K, lanes, x), pitch_of(columns, lanes, x)
    rows, factor, gradients = room_for(ROWS * pitch, kind), room_for(ROWS, kind), room_for(ROWS * pitch, kind)
    dys = room_for(ROWS * pitch_y, kind)
    for piece in range(first, last):
        total = sums[piece]
        for c in range(columns):
            total[K, c] = 0
        for tile in range(piece * tiles, min((piece + 1) * tiles, (N + ROWS - 1) // ROWS)):
            t0, again = tile * ROWS, 1 if tile > piece * tiles else 0
            n = min(ROWS, N - t0)
            take_rows(x, t0, n, rows, pitch, factor, normalized, eps)
            for part in range(parts):
                dy = dy0 if part == 0 else dy1 if part == 1 else dy2
                for r in range(n):
                    target = dys[r * pitch_y + part * M : r * pitch_y + part * M + M]
                    if through.shape[0]:
                        for c in range(M):
                            target[c] = dy[t0 + r, c] if through[t0 + r, c] > 0 else kind(0)
                        for c in range(M if dz.shape[0] else 0):
                            dz[t0 + r, c] = target[c]
                    else:
                        for c in range(M):
                            target[c] = dy[t0 + r, c]
            for c in range(0, columns, wide):
                tile_products(
                    width, x, address(rows, 0), 1, pitch, address(dys, c), pitch_y, n,
                    address(sums, (piece * (K + 1)) * columns + c), columns, K, min(wide, columns - c), again,
                )  # fmt: skip
            add_columns(dys, pitch_y, n, columns, total[K])
            if dx.shape[0] == 0:
                continue
            for p in range(len(panels)):
                tile_products(
                    width, x, address(dys, 0), pitch_y, 1, address(panels, p * columns * wide), wide, columns,
                    address(gradients, p * wide), pitch, n, min(wide, K - p * wide), 0,
                )  # fmt: skip
            if normalized == 1:
                through_norm(rows, gradients, pitch, factor, n, K)
            finish_rows(width, x, address(gradients, 0), pitch, 0, 0, kind(0), kind(-np.inf), address(dx, t0 * K), K, n, K)
