"""Sums of messages act(x + e) on the CPU: they are made in registers, and nothing of edge size is stored but the gradient of e.

The forward goes over the nodes as receivers, the backward as senders: of every edge it reads the gradient at its other end and what came with it, and
writes what belongs to the edge. Nodes follow one another frame by frame of one joint, as the edges' features lie in memory. Where edges share
features, a thread has all frames, and all walks, of a joint, and adds their gradients up one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastst.cpu.functions import compile_loops
from fastst.cpu.kernel import Int, Length, Number, Width, kernel
from fastst.cpu.memory import empty
from fastst.cpu.microkernel import FRAMES, blocks, clear, fetch_rows, lanes_of, vectors_at_once
from fastst.cpu.products import WIDTH, frame_counts, most_edges
from fastst.cpu.threads import run_ranges
from fastst.cpu.values import Row, Value, Vectors, fma, leaky, span, where
from fastst.graph_index import GraphIndex

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


@kernel
def sum_messages(
    width: Width,
    relu: Length,
    x: Row,
    rows: Row,
    edges: Row,
    places: Row,
    factors: Row,
    count: Int,
    slope: Number,
    y: Row,
    y_at: Int,
    c: Int,
    size: Int,
) -> None:
    """y[y_at + c'] = Σ over i < count of factors[i] · act(x[rows[i] + c'] + edges[places[i] + c']), for
    the channels c' from c on: those of `vectors_at_once`, or where `size` is less the first of one
    vector."""
    for channels in blocks(width, x.kind, c, size):
        total = [channels.zero(x.kind)]
        for i in span(0, count, carry=total):
            hidden = channels.load(x.at(rows[i])) + channels.load(edges.at(places[i]))
            total[0] = fma(factors[i], _act(hidden, slope, relu), total[0])
        channels.store(total[0], y.at(y_at))


@kernel
def send_back(
    width: Width,
    relu: Length,
    to_edges: Length,
    to_weights: Length,
    dy: Row,
    rows: Row,
    x: Row,
    at: Int,
    edges: Row,
    places: Row,
    factors: Row,
    count: Int,
    slope: Number,
    dx: Row,
    dedges: Row,
    dots: Row,
    c: Int,
    size: Int,
) -> None:
    """The gradients through a sender's messages: with h = x[at + c'] + edges[places[i] + c'] and
    g = dy[rows[i] + c'], for channels c' as in `sum_messages` and i < count,
    dx[at + c'] = Σ over i of d, d = factors[i] · act'(h) · g.

    Where `to_edges` has length 1, dedges[places[i] + c'] = d; where 2, d is added there. Where
    `to_weights` has length 1, dots[i] += Σ act(h) · g.
    """
    for channels in blocks(width, x.kind, c, size):
        mine, total = channels.load(x.at(at)), [channels.zero(x.kind)]
        for i in span(0, count, carry=total):
            place = places[i]
            hidden = mine + channels.load(edges.at(place))
            through = channels.load(dy.at(rows[i]))
            back = _through_act(hidden, through, slope, relu) * factors[i]
            if to_edges:
                target = dedges.at(place)
                channels.store(back if to_edges == 1 else back + channels.load(target), target)
            if to_weights:
                dot = x.kind.zero()
                for h, g in zip(hidden, through, strict=True):
                    dot = fma(_act(h, slope, relu), g, dot)
                dots[i] = dots[i] + dot.fold(Value.__add__).lane(0)
            total[0] = total[0] + back
        channels.store(total[0], dx.at(at))


def _act(hidden: Any, slope: Value, relu: int) -> Any:
    """Numbers that are not stay so."""
    return where(~(hidden <= 0), hidden, 0) if relu else leaky(hidden, slope)


def _through_act(hidden: Vectors, gradient: Vectors, slope: Value, relu: int) -> Vectors:
    if relu:
        return where(~(hidden <= 0), gradient, 0)
    return where(hidden > 0, gradient, gradient * slope)
