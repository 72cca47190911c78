"""The feed-forward block on the CPU, whose hidden features never leave the cache, see `fastst.cpu.rows`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.attend import room_for
from fastst.cpu.functions import compile_loops
from fastst.cpu.gelu import gelu_rows
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import address, lanes_of
from fastst.cpu.products import WIDTH
from fastst.cpu.rows import ROWS, add_columns, panels_of, pieces_of, pitch_of, take_rows, through_norm
from fastst.cpu.threads import run_ranges
from fastst.cpu.tiles import VECTORS, finish_rows, tile_products


def feed_forward(x: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, outer_bias: Tensor, eps: float) -> Tensor:
    """x + outer gelu(inner norm(x) + inner_bias) + outer_bias for x `[N, C]`, in at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    (N, C), F = x.shape, inner.shape[0]
    x, inner, inner_bias, outer, outer_bias = (v.to(dtype) for v in (x, inner, inner_bias, outer, outer_bias))
    y = empty(N, C, dtype=dtype)
    into = panels_of(torch.cat((inner.t(), inner_bias[None])).reshape(C + 1, 1, F))
    out_of = panels_of(torch.cat((outer.t(), outer_bias[None])).reshape(F + 1, 1, C))
    run_ranges(_feed_forward, -(-N // ROWS), x, into, out_of, y, F, eps, WIDTH)
    return y


def feed_forward_backward(
    dy: Tensor, x: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, inner, inner_bias, outer and outer_bias."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    (N, C), F = x.shape, inner.shape[0]
    dy, x, inner, inner_bias, outer = (v.to(dtype) for v in (dy, x, inner, inner_bias, outer))
    dx = empty(N, C, dtype=dtype)
    pieces, tiles = pieces_of(N)
    of_inner, of_outer = empty(pieces, C + 1, F, dtype=dtype), empty(pieces, C, F + 1, dtype=dtype)
    panels = (
        panels_of(torch.cat((inner.t(), inner_bias[None])).reshape(C + 1, 1, F)),
        panels_of(outer.reshape(C, 1, F)),
        panels_of(inner.reshape(F, 1, C)),
    )
    run_ranges(_feed_forward_backward, pieces, dy, x, *panels, dx, of_inner, of_outer, tiles, eps, WIDTH)
    dinner, douter = of_inner.sum(0), of_outer.sum(0)
    return dx, dinner[:C].t(), dinner[C], douter[:, :F], douter[:, F]


@compile_loops
def _feed_forward(first, last, x, into, out_of, y, F, eps, width):
    N, C = x.shape
    kind = x.dtype.type
    lanes: int = lanes_of(width, x)
    wide = VECTORS * lanes
    pitch, pitch_f = pitch_of(C, lanes, x), pitch_of(F, lanes, x)
    rows, factor, made = room_for(ROWS * pitch, kind), room_for(ROWS, kind), room_for(ROWS * pitch, kind)
    hidden = room_for(ROWS * pitch_f, kind)
    for tile in range(first, last):
        t0 = tile * ROWS
        n = min(ROWS, N - t0)
        take_rows(x, t0, n, rows, pitch, factor, 1, eps)
        for p in range(len(into)):
            tile_products(
                width, x, address(rows, 0), pitch, 1, address(into, p * (C + 1) * wide), wide, C + 1,
                address(hidden, p * wide), pitch_f, n, min(wide, F - p * wide), 0,
            )  # fmt: skip
        gelu_rows(width, x, address(hidden, 0), 0, n * pitch_f)
        for r in range(n):
            hidden[r * pitch_f + F] = 1
        for p in range(len(out_of)):
            tile_products(
                width, x, address(hidden, 0), pitch_f, 1, address(out_of, p * (F + 1) * wide), wide, F + 1,
                address(made, p * wide), pitch, n, min(wide, C - p * wide), 0,
            )  # fmt: skip
        finish_rows(width, x, address(made, 0), pitch, address(x, t0 * C), C, kind(1), kind(-np.inf), address(y, t0 * C), C, n, C)


@compile_loops
def _feed_forward_backward(first, last, dy, x, into, back_out, back_in, dx, of_inner, of_outer, tiles, eps, width):
    N, C = x.shape
    F, kind = of_inner.shape[2], x.dtype.type
    lanes: int = lanes_of(width, x)
    wide = VECTORS * lanes
    pitch, pitch_f = pitch_of(C, lanes, x), pitch_of(F, lanes, x)
    rows, factor, gradients, dys = (
        room_for(ROWS * pitch, kind), room_for(ROWS, kind), room_for(ROWS * pitch, kind), room_for(ROWS * pitch, kind),
    )  # fmt: skip
    hidden, slope, dhidden = room_for(ROWS * pitch_f, kind), room_for(ROWS * pitch_f, kind), room_for(ROWS * pitch_f, kind)
    for piece in range(first, last):
        inner = of_inner[piece]
        for c in range(F):
            inner[C, c] = 0
        for tile in range(piece * tiles, min((piece + 1) * tiles, (N + ROWS - 1) // ROWS)):
            t0, again = tile * ROWS, 1 if tile > piece * tiles else 0
            n = min(ROWS, N - t0)
            take_rows(x, t0, n, rows, pitch, factor, 1, eps)
            take_rows(dy, t0, n, dys, pitch, factor, 0, eps)
            for p in range(len(into)):
                count = min(wide, F - p * wide)
                tile_products(
                    width, x, address(rows, 0), pitch, 1, address(into, p * (C + 1) * wide), wide, C + 1,
                    address(hidden, p * wide), pitch_f, n, count, 0,
                )  # fmt: skip
                tile_products(
                    width, x, address(dys, 0), pitch, 1, address(back_out, p * C * wide), wide, C,
                    address(dhidden, p * wide), pitch_f, n, count, 0,
                )  # fmt: skip
            gelu_rows(width, x, address(hidden, 0), address(slope, 0), n * pitch_f)
            for r in range(n):
                hidden[r * pitch_f + F] = 1
                for c in range(r * pitch_f, r * pitch_f + F):
                    dhidden[c] *= slope[c]
            for c in range(0, F + 1, wide):
                tile_products(
                    width, x, address(dys, 0), 1, pitch, address(hidden, c), pitch_f, n,
                    address(of_outer, piece * C * (F + 1) + c), F + 1, C, min(wide, F + 1 - c), again,
                )  # fmt: skip
            for c in range(0, F, wide):
                tile_products(
                    width, x, address(rows, 0), 1, pitch, address(dhidden, c), pitch_f, n,
                    address(of_inner, piece * (C + 1) * F + c), F, C, min(wide, F - c), again,
                )  # fmt: skip
            add_columns(dhidden, pitch_f, n, F, inner[C])
            for p in range(len(back_in)):
                tile_products(
                    width, x, address(dhidden, 0), pitch_f, 1, address(back_in, p * F * wide), wide, F,
                    address(gradients, p * wide), pitch, n, min(wide, C - p * wide), 0,
                )  # fmt: skip
            through_norm(rows, gradients, pitch, factor, n, C)
            finish_rows(width, x, address(gradients, 0), pitch, address(dys, 0), pitch, kind(1), kind(-np.inf), address(dx, t0 * C), C, n, C)
