"""Sums of messages act(x + e) on the CPU: they are made in registers, and nothing of edge size is stored but the gradient of e.

The forward goes over the nodes as receivers, the backward as senders: of every edge it reads the gradient at its other end and what came with it, and
writes what belongs to the edge. Nodes follow one another frame by frame of one joint, as the edges' features lie in memory. Where edges share
features, a thread has all frames, and all walks, of a joint, and adds their gradients up one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

from fastst.cpu.functions import compile_loops
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import FRAMES, clear, fetch_rows, lanes_of, vectors_at_once
from fastst.cpu.products import WIDTH, frame_counts, most_edges
from fastst.cpu.threads import run_ranges
from fastst.cpu.vectors import I32, I64, Elements, data_of, loop
from fastst.graph import GraphIndex

_AHEAD = 8  # edges: a list's lie anywhere in memory, and would else be waited for
_STORED, _ADDED = (0,), (0, 0)  # what becomes of the gradient of an edge's features; () for nothing


def message(x: Tensor, edge_attr: Tensor, weight: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float) -> Tensor:
    """y[t, dst] = Σ weight[p, t] · act(x[t + offset, src] + edge_attr[p, t])."""
    B, T, J, C = x.shape
    y, compute = empty(B, T, J, C, dtype=x.dtype), torch.promote_types(x.dtype, torch.float32)
    graph = frame_counts(lengths, B, T), index.dst_ptr, index.dst_order, index.offset, index.src
    run_ranges(_sum_messages, B * J * T, x, edge_attr, weight.to(compute), y, *graph, *_activation(negative_slope), *_blocks())
    return y


def message_backward(
    dy: Tensor,
    x: Tensor,
    edge_attr: Tensor,
    weight: Tensor,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
    wants_edges: bool,
    wants_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, and of edge_attr and weight where they are wanted."""
    B, T, J, C = x.shape
    compute, shared = torch.promote_types(x.dtype, torch.float32), edge_attr.shape[:3:2] != (B, T)
    dx = empty(B, T, J, C, dtype=x.dtype)
    dedges = torch.zeros(edge_attr.shape, dtype=compute) if shared else empty(*edge_attr.shape, dtype=x.dtype)
    dweight = empty(*weight.shape, dtype=compute) if wants_weights else weight.new_empty(0, 0, 0, dtype=compute)
    to_edges = (_ADDED if shared else _STORED) if wants_edges else ()
    graph = frame_counts(lengths, B, T), index.src_ptr, index.src_order, index.offset, index.dst
    run_ranges(
        _send_back, len(edge_attr) * J * edge_attr.shape[2], dy, x, edge_attr, weight.to(compute), dx, dedges, dweight.view(-1), *graph,
        to_edges, (0,) * wants_weights, *_activation(negative_slope), *_blocks(),
    )  # fmt: skip
    return dx, dedges.to(edge_attr.dtype), dweight.to(weight.dtype)


def _activation(negative_slope: float) -> tuple[tuple[int, ...], float]:
    """A tuple of length 1 for ReLU, which is 0 at -inf too, and the slope."""
    return (0,) * (negative_slope == 0), negative_slope


def _blocks() -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (0,) * vectors_at_once(WIDTH), WIDTH


@compile_loops
def _sum_messages(first, last, x, edges, weight, y, lengths, ptr, order, offset, src, relu, slope, vectors, width):
    T, J, C = x.shape[1:]
    (parts, P, frames), slope = edges.shape[:3], weight.dtype.type(slope)
    lanes: int = lanes_of(width, weight)
    most, full, quarter = most_edges(ptr) + 1, len(vectors) * lanes, (C + FRAMES - 1) // FRAMES
    rows, places, factors = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, weight.dtype)
    for node in range(first, last):
        b, j, t = node // (J * T), node // T % J, node % T
        count = 0
        for i in range(ptr[j], ptr[j + 1] if t < lengths[b] else ptr[j]):
            if frames == T == 1:
                fetch_rows(edges, (b % parts * P + order[min(i + _AHEAD, P - 1)]) * C, quarter, quarter)
            p = order[i]
            source = t + offset[p]
            if 0 <= source < lengths[b]:
                rows[count] = ((b * T + source) * J + src[p]) * C
                places[count] = ((b % parts * P + p) * frames + t % frames) * C
                factors[count] = weight[b, p, t]
                count += 1
        at, c = ((b * T + t) * J + j) * C, 0
        while c < C:
            step = full if C - c >= full else lanes
            sum_messages(width, relu, x, rows, edges, places, factors, count, slope, y, at, c, C - c)
            c += step


@compile_loops
def _send_back(
    first, last, dy, x, edges, weight, dx, dedges, dweight, lengths, ptr, order, offset, dst, to_edges, to_weights, relu, slope, vectors, width
):  # fmt: skip
    B, T, J, C = x.shape
    (parts, P, frames), slope = edges.shape[:3], weight.dtype.type(slope)
    lanes: int = lanes_of(width, weight)
    most, full, quarter = most_edges(ptr) + 1, len(vectors) * lanes, (C + FRAMES - 1) // FRAMES
    rows, places, numbers = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    factors, dots = np.empty(most, weight.dtype), np.empty(most, weight.dtype)
    for piece in range(first, last):
        j = piece // frames % J
        for b in range(piece // (J * frames), B, parts):
            for t in range(piece % frames, T, frames):
                length, count = lengths[b], 0
                for i in range(ptr[j], ptr[j + 1]):
                    if frames == T == 1:
                        following = (b % parts * P + order[min(i + _AHEAD, P - 1)]) * C
                        fetch_rows(edges, following, quarter, quarter)
                        if len(to_edges) > 0:
                            fetch_rows(dedges, following, quarter, quarter)
                    p = order[i]
                    target = t - offset[p]
                    number = (b * P + p) * T + target
                    if t < length and 0 <= target < length:
                        rows[count] = ((b * T + target) * J + dst[p]) * C
                        places[count] = ((b % parts * P + p) * frames + target % frames) * C
                        numbers[count] = number
                        factors[count] = weight[b, p, target]
                        dots[count] = 0
                        count += 1
                    else:  # round the walk's ends: so edges are written too whose sender would be beyond them
                        number += target % T - target
                        if len(to_edges) == 1:
                            clear(dedges, number * C, (number + 1) * C)
                        if len(to_weights) == 1:
                            dweight[number] = 0
                at, c = ((b * T + t) * J + j) * C, 0
                while c < C:
                    step = full if C - c >= full else lanes
                    send_back(
                        width, relu, to_edges, to_weights, dy, rows, x, at, edges, places, factors, count, slope, dx, dedges, dots, c, C - c
                    )  # fmt: skip
                    c += step
                if len(to_weights) == 1:
                    for i in range(count):
                        dweight[numbers[i]] = dots[i]


@intrinsic
def sum_messages(typingctx, width, relu, x, rows, edges, places, factors, count, slope, y, y_at, c, size):
    """y[y_at + c'] = Σ over i < count of factors[i] · act(x[rows[i] + c'] + edges[places[i] + c']), for the channels c' from c on: those of
    `vectors_at_once`, or where `size` is less the first of one vector."""
    W = width.count

    def codegen(context, b, signature, args):
        e, (x0, edges0, y0) = _features(context, b, signature, args, W, x, 2, 4, 9)
        rows0, places0, factors0 = (data_of(context, b, signature, args, i) for i in (3, 5, 6))

        def compute(channels: list[Any], masks: list[Any]) -> None:
            def load(first: Any, at: Any) -> list[Any]:
                return _load(b, e, b.gep(first, [at]), channels, masks)

            i, acc, close = loop(b, I64(0), args[7], 1, [e.zero()] * len(channels))
            hidden = _add(b, load(x0, b.load(b.gep(rows0, [i]))), load(edges0, b.load(b.gep(places0, [i]))))
            factor = e.splat(b.load(b.gep(factors0, [i])))
            acc = close([e.fma(factor, _act(b, e, h, args[8], relu.count), total) for h, total in zip(hidden, acc, strict=True)])
            _store(b, e, acc, b.gep(y0, [args[10]]), channels, masks)

        _over_channels(b, e, W, args[11], args[12], compute)
        return context.get_dummy_value()

    i = types.int64
    return types.void(width, relu, x, rows, edges, places, factors, i, factors.dtype, y, i, i, i), codegen


@intrinsic
def send_back(typingctx, width, relu, to_edges, to_weights, dy, rows, x, at, edges, places, factors, count, slope, dx, dedges, dots, c, size):
    """The gradients through a sender's messages: with h = x[at + c'] + edges[places[i] + c'] and g = dy[rows[i] + c'], for channels c' as in
    `sum_messages` and i < count, dx[at + c'] = Σ over i of d, d = factors[i] · act'(h) · g.

    Where `to_edges` has length 1, dedges[places[i] + c'] = d; where 2, d is added there. Where `to_weights` has length 1, dots[i] += Σ act(h) · g.
    """
    W = width.count

    def codegen(context, b, signature, args):
        e, (dy0, x0, edges0, dx0) = _features(context, b, signature, args, W, x, 4, 6, 8, 13)
        o, (dedges0,) = _features(context, b, signature, args, W, dedges, 14)
        rows0, places0, factors0, dots0 = (data_of(context, b, signature, args, i) for i in (5, 9, 10, 15))

        def compute(channels: list[Any], masks: list[Any]) -> None:
            def load(first: Any, at: Any, elements: Elements = e) -> list[Any]:
                return _load(b, elements, b.gep(first, [at]), channels, masks)

            mine = load(x0, args[7])
            i, acc, close = loop(b, I64(0), args[11], 1, [e.zero()] * len(channels))
            place = b.load(b.gep(places0, [i]))
            hidden, through = _add(b, mine, load(edges0, place)), load(dy0, b.load(b.gep(rows0, [i])))
            factor = e.splat(b.load(b.gep(factors0, [i])))
            back = [b.fmul(factor, _through_act(b, e, h, g, args[12], relu.count)) for h, g in zip(hidden, through, strict=True)]
            if to_edges.count:
                stored = back if to_edges.count == 1 else _add(b, back, load(dedges0, place, o))
                _store(b, o, stored, b.gep(dedges0, [place]), channels, masks)
            if to_weights.count:
                dot = e.zero()
                for h, g in zip(hidden, through, strict=True):
                    dot = e.fma(_act(b, e, h, args[12], relu.count), g, dot)
                target = b.gep(dots0, [i])
                b.store(b.fadd(b.load(target), _sum(b, e, dot)), target)
            acc = close(_add(b, acc, back))
            _store(b, e, acc, b.gep(dx0, [args[7]]), channels, masks)

        _over_channels(b, e, W, args[16], args[17], compute)
        return context.get_dummy_value()

    i = types.int64
    return types.void(
        width, relu, to_edges, to_weights, dy, rows, x, i, edges, places, factors, i, factors.dtype, dx, dedges, dots, i, i
    ), codegen  # fmt: skip


def _features(context: Any, b: Any, signature: Any, args: Any, width: int, like: types.Array, *numbers: int) -> tuple[Elements, list[Any]]:
    """How features like those of an array are read, and the addresses of some arguments' first ones."""
    e = Elements(b, like.dtype, width)
    return e, [b.bitcast(data_of(context, b, signature, args, number), e.stored.as_pointer()) for number in numbers]


def _over_channels(b: Any, e: Elements, width: int, c: Any, size: Any, compute: Any) -> None:
    """Code for the channels from c on: `compute(channels, masks)`, of several full vectors, or of the first `size` channels of one."""
    vectors = vectors_at_once((0,) * width)
    with b.if_else(e.full(size, vectors)) as (full, part):
        with full:
            compute([b.add(c, I64(v * e.lanes)) for v in range(vectors)], [None] * vectors)
        with part:
            compute([c], [e.mask(size)])


def _load(b: Any, e: Elements, row: Any, channels: list[Any], masks: list[Any]) -> list[Any]:
    return [e.load(b.gep(row, [channel]), mask) for channel, mask in zip(channels, masks, strict=True)]


def _store(b: Any, e: Elements, values: list[Any], row: Any, channels: list[Any], masks: list[Any]) -> None:
    for value, channel, mask in zip(values, channels, masks, strict=True):
        e.store(value, b.gep(row, [channel]), mask)


def _add(b: Any, one: list[Any], other: list[Any]) -> list[Any]:
    return [b.fadd(*pair) for pair in zip(one, other, strict=True)]


def _act(b: Any, e: Elements, hidden: Any, slope: Any, relu: int) -> Any:
    """Numbers that are not stay so."""
    return b.select(b.fcmp_unordered(">", hidden, e.zero()), hidden, e.zero()) if relu else e.leaky(hidden, e.splat(slope))


def _through_act(b: Any, e: Elements, hidden: Any, gradient: Any, slope: Any, relu: int) -> Any:
    if relu:
        return b.select(b.fcmp_unordered(">", hidden, e.zero()), gradient, e.zero())
    return b.select(b.fcmp_ordered(">", hidden, e.zero()), gradient, b.fmul(gradient, e.splat(slope)))


def _sum(b: Any, e: Elements, vector: Any) -> Any:
    """Of its lanes, in pairs."""
    half = e.lanes // 2
    while half:
        across = ir.Constant(ir.VectorType(I32, e.lanes), [lane ^ half for lane in range(e.lanes)])
        vector, half = b.fadd(vector, b.shuffle_vector(vector, vector, across)), half // 2
    return b.extract_element(vector, I32(0))
