"""Sums of messages act(x + e) on a GPU: they are made in registers, and nothing of edge size is stored but the gradient of e.

The forward goes over the slots into a few joints, as `products` does, and reads an edge's features beside its sender's. The backward goes over the
slots out of them: of every edge it reads the gradient at its other end and what came with it, adds up the senders' gradient and writes the edge's.
Where edges share features, a kernel of its own goes over all edges of a slot, so that their gradient too is added up in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import bound_rows, row_strides, rows_of_group, slot_rows, walk_length
from csrc_triton.launch import Settled, launch, launch_options, rows_of_features
from csrc_triton.parts import add_parts, dot_parts, load_parts, parts_for_four_threads, store_parts, zero_parts
from csrc_triton.products import feature_bytes, frames_read, joints_and_frames, strides_of, warps_of
from fastst.graph_index import GraphIndex

_INT32 = 1 << 31
_JOINTS = 4  # of a program on a skeleton
_MAX_REGISTERS = 128  # of a thread


def message(x: Tensor, edge_attr: Tensor, weight: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float) -> Tensor:
    """y[t, dst] = Σ weight[p, t] · act(x[t + offset, src] + edge_attr[p, t])."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    x, edge_attr = rows_of_features(x), _rows_of_edges(edge_attr, x)
    (x, out), (edge_attr, weight) = _turned(hops, 1, x, y), _turned(hops, 2, edge_attr, weight)
    tensors = x, edge_attr, weight, out
    key = (x.shape, edge_attr.shape, hops, negative_slope, _strides(tensors), row_strides(index))
    launch(_message, (*tensors, lengths, index.slots, index.bounds), key, lambda: _settle(tensors, index, hops, negative_slope))
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
    dx, dedges = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x, edge_attr))
    # Every chunk of channels has a part of the dot products.
    chunks, compute = triton.cdiv(x.shape[3], _chunk(x)), torch.promote_types(x.dtype, torch.float32)
    dots = x.new_empty(*weight.shape, chunks, dtype=compute) if wants_weights else None
    shared = edge_attr.shape[:3:2] != x.shape[:2]
    dy, x, edge_attr = rows_of_features(dy), rows_of_features(x), _rows_of_edges(edge_attr, x)
    (dy, x, dnodes), (edge_attr, given, each, parts) = _turned(hops, 1, dy, x, dx), _turned(hops, 2, edge_attr, weight, dedges, dots)
    tensors: tuple[Any, ...] = (dy, x, edge_attr, given, dnodes, each if wants_edges and not shared else None, parts)
    key = (x.shape, edge_attr.shape, hops, negative_slope, _strides(tensors), row_strides(index))
    launch(_message_backward, (*tensors, lengths, index.slots, index.bounds), key, lambda: _settle_backward(tensors, index, hops, negative_slope))
    if wants_edges and shared and not edge_attr.numel():  # without walks or frames the features have no place from which a kernel could read
        dedges.zero_()
    elif wants_edges and shared:
        of_shared = (dy, x, edge_attr, given, each)
        key_of_shared = (x.shape, edge_attr.shape, each.shape, hops, negative_slope, _strides(of_shared), row_strides(index))
        launch(_shared_edges, (*of_shared, lengths, index.slots), key_of_shared, lambda: _settle_shared(of_shared, index, hops, negative_slope))
    return dx, dedges, weight if dots is None else dots.sum(-1).to(weight.dtype)


def _turned(hops: int, frames: int, *tensors: Tensor | None) -> tuple[Any, ...]:
    """All walks share the edges of a list: they take the place of the frames."""
    return tensors if hops else tuple(None if tensor is None else tensor.transpose(0, frames) for tensor in tensors)


def _rows_of_edges(edge_attr: Tensor, x: Tensor) -> Tensor:
    """With the channels of an edge in one piece of memory, which those that share them share.  # [B or 1, P, T or 1, C] -> [B, P, T, C]"""
    rows = edge_attr if edge_attr.shape[3] == 1 or edge_attr.stride(3) == 1 else edge_attr.contiguous()
    return rows.expand(x.shape[0], -1, x.shape[1], -1)


def _strides(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.stride() for tensor in tensors)


def _chunk(x: Tensor) -> int:
    """The channels of a program."""
    return min(64, triton.next_power_of_2(x.shape[3]))


def _settle(tensors: tuple[Any, ...], index: GraphIndex, hops: int, negative_slope: float) -> Settled:
    x, edges, weight, y = tensors
    numbers, programs, options = _sizes(x, edges, weight, index, hops, negative_slope)
    numbers = {**_strides_of_nodes(x=x, y=y), **_strides_of_edges(edge=edges, weight=weight), **numbers}
    return Settled(programs, {"negative_slope": negative_slope, **numbers}, options)


def _settle_backward(tensors: tuple[Any, ...], index: GraphIndex, hops: int, negative_slope: float) -> Settled:
    dy, x, edges, weight, dx, dedges, dots = tensors
    numbers, programs, options = _sizes(x, edges, weight, index, hops, negative_slope, dots)
    numbers = {**_strides_of_nodes(dy=dy, x=x, dx=dx), **_strides_of_edges(edge=edges, weight=weight, dedge=dedges, dots=dots), **numbers}
    return Settled(programs, {"negative_slope": negative_slope, **numbers}, options)


def _settle_shared(tensors: tuple[Any, ...], index: GraphIndex, hops: int, negative_slope: float) -> Settled:
    dy, x, edges, weight, dedges = tensors
    (B, T, J, C), BC = x.shape, min(64, triton.next_power_of_2(x.shape[3]))
    groups, chunks = len(dedges), triton.cdiv(C, BC)
    farthest = max((T + hops) * max(x.stride(1), dy.stride(1)) + J * C, T * weight.stride(2))
    numbers = {
        "negative_slope": negative_slope, "B": B, "T": T, "C": C, "P": index.num_slots, "chunks": chunks, "groups": groups,
        "slots_row": row_strides(index)[0], **_strides_of_nodes(dy=dy, x=x), **_strides_of_edges(edge=edges, weight=weight, dedge=dedges),
        "RELU": negative_slope == 0, "BT": max(1, min(1024 // BC, triton.next_power_of_2(max(T, 1)))), "BC": BC,
        "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    return Settled(groups * index.num_slots * chunks, numbers, launch_options(num_warps=2))


def _sizes(
    x: Tensor, edges: Tensor, weight: Tensor, index: GraphIndex, hops: int, negative_slope: float, dots: Tensor | None = None
) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Of the kernels that go over nodes: numbers, how many programs, options."""
    (B, T, J, C), BC = x.shape, _chunk(x)
    GROUP, BT = joints_and_frames(x, hops, BC, _JOINTS)
    tiles, chunks = triton.cdiv(T, BT), triton.cdiv(C, BC)
    slots_row, bounds_row = row_strides(index)
    of_edges = [v for v in (edges, weight, dots) if v is not None]
    farthest = max((BT + hops) * x.stride(1) + J * C, *(v.shape[1] * v.stride(1) + (BT + hops) * v.stride(2) for v in of_edges))
    numbers = {
        "T": T, "J": J, "C": C, "tiles": tiles, "chunks": chunks, "hops": hops, "slots_row": slots_row, "bounds_row": bounds_row,
        "RELU": negative_slope == 0, "EVEN": C % BC == 0, "GROUP": GROUP, "BT": BT, "BC": BC, "PARTS": parts_for_four_threads(BC * x.element_size()),
        "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    options = launch_options(num_warps=warps_of(GROUP * BT * BC), max_registers=_MAX_REGISTERS)
    return numbers, B * tiles * chunks * triton.cdiv(J, GROUP), options


def _strides_of_nodes(**tensors: Tensor) -> dict[str, int]:
    return {key: stride for name, v in tensors.items() for key, stride in strides_of(name, v.stride()[:2], "bt").items()}


def _strides_of_edges(**tensors: Tensor | None) -> dict[str, int]:
    strides = {name: (0, 0, 0) if v is None else v.stride()[:3] for name, v in tensors.items()}
    return {key: stride for name, three in strides.items() for key, stride in strides_of(name, three, "bpt").items()}


@triton.jit
def _message(
    x_ptr, edge_ptr, weight_ptr, y_ptr, lengths_ptr, slots_ptr, bounds_ptr, negative_slope: tl.float64,
    x_stride_b, x_stride_t, y_stride_b, y_stride_t,
    edge_stride_b, edge_stride_p, edge_stride_t, weight_stride_b, weight_stride_p, weight_stride_t,
    T, J, C, tiles, chunks, hops, slots_row, bounds_row,
    RELU: tl.constexpr, EVEN: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """A program has a few joints and a tile of frames as receivers. Features are PARTS tiles [GROUP * BT, BC / PARTS]."""
    src_ptr, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, joints_ptr, _ = bound_rows(bounds_ptr, bounds_row)
    program, groups = tl.program_id(0), tl.cdiv(J, GROUP)
    c0 = program // groups % chunks * BC
    t0 = program // groups // chunks % tiles * BT
    b = (program // groups // chunks // tiles).to(tl.int64)
    length = walk_length(lengths_ptr, b, T)

    j, row, there = rows_of_group(joints_ptr, program % groups, J, GROUP, BT)  # [GROUP * BT]
    t, rows, frame = t0 + row, row.to(INDEX), t0.to(tl.int64)
    inside = there & (t < length)
    c = c0 + tl.arange(0, BC // PARTS)[None, :]
    # 64 bits from the tensor's beginning to the tile, and mostly 32 from there.
    x_rows = x_ptr + b * x_stride_b + frame * x_stride_t + ((rows * x_stride_t)[:, None] + c)
    edge_rows = edge_ptr + b * edge_stride_b + frame * edge_stride_t + ((rows * edge_stride_t)[:, None] + c)
    weight_rows = weight_ptr + b * weight_stride_b + frame * weight_stride_t + rows * weight_stride_t  # [GROUP * BT]
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    slope = tl.full([], negative_slope, compute)
    total = zero_parts(GROUP * BT, BC, PARTS, compute)

    first, slots = tl.load(ptr_ptr + j, there, 0), tl.load(ptr_ptr + j + 1, there, 0) - tl.load(ptr_ptr + j, there, 0)
    fours = 0
    if (t0 >= hops) & (t0 + BT + hops <= length):
        fours = tl.min(tl.where(there, slots, 1 << 30)) // 4 * 4  # where there is no joint, what is read is thrown away
        for s in range(0, fours, 4):
            for u in tl.static_range(4):
                p = tl.load(order_ptr + first + (s + u))
                x_at = x_rows + (tl.load(offset_ptr + p).to(INDEX) * x_stride_t + tl.load(src_ptr + p).to(INDEX) * C)[:, None]
                x = load_parts(x_at, inside, C, c, compute, False, EVEN, PARTS)
                edge = load_parts(edge_rows + (p.to(INDEX) * edge_stride_p)[:, None], inside, C, c, compute, False, EVEN, PARTS)
                weight = tl.load(weight_rows + p.to(INDEX) * weight_stride_p).to(compute)
                total = add_parts(total, weight, _active(x, edge, slope, RELU))
    for s in range(fours, tl.max(slots)):  # with masks: at a walk's ends, and what is left of fours or of the group's other joints
        has = s < slots
        p = tl.load(order_ptr + first + s, has, 0)
        offset = tl.load(offset_ptr + p)
        exists = has & inside & (t + offset >= 0) & (t + offset < length)
        x_at = x_rows + (offset.to(INDEX) * x_stride_t + tl.load(src_ptr + p).to(INDEX) * C)[:, None]
        x = load_parts(x_at, exists, C, c, compute, True, EVEN, PARTS)
        edge = load_parts(edge_rows + (p.to(INDEX) * edge_stride_p)[:, None], exists, C, c, compute, True, EVEN, PARTS)
        weight = tl.load(weight_rows + p.to(INDEX) * weight_stride_p, exists, 0.0).to(compute)
        total = add_parts(total, weight, _active(x, edge, slope, RELU))

    y_rows = y_ptr + b * y_stride_b + frame * y_stride_t + ((rows * y_stride_t + j.to(INDEX) * C)[:, None] + c)
    store_parts(y_rows, total, there & (t < T), C, c, EVEN)


@triton.jit
def _message_backward(
    dy_ptr, x_ptr, edge_ptr, weight_ptr, dx_ptr, dedge_ptr, dots_ptr, lengths_ptr, slots_ptr, bounds_ptr, negative_slope: tl.float64,
    dy_stride_b, dy_stride_t, x_stride_b, x_stride_t, dx_stride_b, dx_stride_t,
    edge_stride_b, edge_stride_p, edge_stride_t, weight_stride_b, weight_stride_p, weight_stride_t,
    dedge_stride_b, dedge_stride_p, dedge_stride_t, dots_stride_b, dots_stride_p, dots_stride_t,
    T, J, C, tiles, chunks, hops, slots_row, bounds_row,
    RELU: tl.constexpr, EVEN: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """A program has a few joints and a tile of frames as senders, whose features it reads once. Around the walk's ends: so the edges whose sender
    would be beyond them, and which no program has, are written too."""
    _, dst_ptr, offset_ptr, _, order_ptr = slot_rows(slots_ptr, slots_row)
    _, ptr_ptr, _, _, joints_ptr = bound_rows(bounds_ptr, bounds_row)
    program, groups = tl.program_id(0), tl.cdiv(J, GROUP)
    chunk = program // groups % chunks
    t0 = program // groups // chunks % tiles * BT
    b = (program // groups // chunks // tiles).to(tl.int64)
    length = walk_length(lengths_ptr, b, T)

    j, row, there = rows_of_group(joints_ptr, program % groups, J, GROUP, BT)  # [GROUP * BT]
    t, rows, frame, node = t0 + row, row.to(INDEX), t0.to(tl.int64), j.to(INDEX) * C
    live, written = there & (t < length), there & (t < T)
    c = chunk * BC + tl.arange(0, BC // PARTS)[None, :]
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    slope = tl.full([], negative_slope, compute)
    x = load_parts(x_ptr + b * x_stride_b + frame * x_stride_t + ((rows * x_stride_t + node)[:, None] + c), live, C, c, compute, True, EVEN, PARTS)
    dx = zero_parts(GROUP * BT, BC, PARTS, compute)
    dy_rows = dy_ptr + b * dy_stride_b + frame * dy_stride_t + ((rows * dy_stride_t)[:, None] + c)
    edge_rows = edge_ptr + b * edge_stride_b + frame * edge_stride_t + ((rows * edge_stride_t)[:, None] + c)
    weight_rows = weight_ptr + b * weight_stride_b + frame * weight_stride_t + rows * weight_stride_t  # [GROUP * BT]
    if dedge_ptr is not None:
        dedge_rows = dedge_ptr + b * dedge_stride_b + frame * dedge_stride_t + ((rows * dedge_stride_t)[:, None] + c)
    if dots_ptr is not None:
        dots_rows = dots_ptr + b * dots_stride_b + frame * dots_stride_t + (rows * dots_stride_t + chunk)

    first, slots = tl.load(ptr_ptr + j, there, 0), tl.load(ptr_ptr + j + 1, there, 0) - tl.load(ptr_ptr + j, there, 0)
    pairs = 0
    if (t0 >= hops) & (t0 + BT + hops <= length):
        pairs = tl.min(tl.where(there, slots, 1 << 30)) // 2 * 2
        for s in range(0, pairs, 2):
            for u in tl.static_range(2):
                p = tl.load(order_ptr + first + (s + u))
                offset, slot = tl.load(offset_ptr + p).to(INDEX), p.to(INDEX)
                dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset * dy_stride_t)[:, None]
                dy = load_parts(dy_at, live, C, c, compute, False, EVEN, PARTS)
                edge_at = edge_rows + (slot * edge_stride_p - offset * edge_stride_t)[:, None]
                edge = load_parts(edge_at, live, C, c, compute, False, EVEN, PARTS)
                weight = tl.load(weight_rows + (slot * weight_stride_p - offset * weight_stride_t)).to(compute)
                if dots_ptr is not None:
                    dot = dot_parts(_active(x, edge, slope, RELU), dy).to(dots_ptr.dtype.element_ty)
                    tl.store(dots_rows + (slot * dots_stride_p - offset * dots_stride_t), dot, there)
                back = _sent_back(x, edge, dy, weight, slope, RELU)
                dx = _sum_parts(dx, back)
                if dedge_ptr is not None:
                    store_parts(dedge_rows + (slot * dedge_stride_p - offset * dedge_stride_t)[:, None], back, there, C, c, EVEN)
    around = (hops // T + 1) * T
    for s in range(pairs, tl.max(slots)):  # with masks
        has = s < slots
        p = tl.load(order_ptr + first + s, has, 0)
        offset = tl.load(offset_ptr + p)
        target, slot = t - offset, p.to(INDEX)
        exists = has & (target >= 0) & (target < length) & (t < length)
        dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset.to(INDEX) * dy_stride_t)[:, None]
        dy = load_parts(dy_at, exists, C, c, compute, True, EVEN, PARTS)
        edge_at = edge_rows + (slot * edge_stride_p - offset.to(INDEX) * edge_stride_t)[:, None]
        edge = load_parts(edge_at, exists, C, c, compute, True, EVEN, PARTS)
        weight = tl.load(weight_rows + (slot * weight_stride_p - offset.to(INDEX) * weight_stride_t), exists, 0.0).to(compute)
        ahead = ((target + around) % T - t).to(INDEX)
        if dots_ptr is not None:
            dot = tl.where(exists, dot_parts(_active(x, edge, slope, RELU), dy), 0.0).to(dots_ptr.dtype.element_ty)
            tl.store(dots_rows + (slot * dots_stride_p + ahead * dots_stride_t), dot, has & written)
        back = _sent_back(x, edge, dy, weight, slope, RELU)
        dx = _sum_parts(dx, back)
        if dedge_ptr is not None:
            store_parts(dedge_rows + (slot * dedge_stride_p + ahead * dedge_stride_t)[:, None], back, has & written, C, c, EVEN)
    dx_rows = dx_ptr + b * dx_stride_b + frame * dx_stride_t + ((rows * dx_stride_t + node)[:, None] + c)
    store_parts(dx_rows, dx, written, C, c, EVEN)


@triton.jit
def _shared_edges(
    dy_ptr, x_ptr, edge_ptr, weight_ptr, dedge_ptr, lengths_ptr, slots_ptr, negative_slope: tl.float64,
    B, T, C, P, chunks, groups, slots_row,
    dy_stride_b, dy_stride_t, x_stride_b, x_stride_t,
    edge_stride_b, edge_stride_p, edge_stride_t, weight_stride_b, weight_stride_p, weight_stride_t, dedge_stride_b, dedge_stride_p, dedge_stride_t,
    RELU: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The gradient of what the edges of a slot share: in all frames of a walk, or, where there is one group, of all walks."""
    program = tl.program_id(0)
    c = program % chunks * BC + tl.arange(0, BC)[None, :]
    p = program // chunks % P
    group = (program // chunks // P).to(tl.int64)
    src_ptr, dst_ptr, offset_ptr, _, _ = slot_rows(slots_ptr, slots_row)
    src, dst, offset = tl.load(src_ptr + p), tl.load(dst_ptr + p), tl.load(offset_ptr + p)
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    slope, inside = tl.full([], negative_slope, compute), c < C
    edge = (tl.load(edge_ptr + group * edge_stride_b + p.to(tl.int64) * edge_stride_p + c, inside, 0.0).to(compute),)
    total = (tl.zeros((BT, BC), compute),)
    for walk in range(group, B, groups):
        b = tl.full([], walk, tl.int64)
        length = walk_length(lengths_ptr, b, T)
        for t0 in range(0, T, BT):
            t = t0 + tl.arange(0, BT)
            exists = (t < length) & (t + offset >= 0) & (t + offset < length)
            x_at = x_ptr + b * x_stride_b + (((t + offset).to(INDEX) * x_stride_t + src * C)[:, None] + c)
            dy_at = dy_ptr + b * dy_stride_b + ((t.to(INDEX) * dy_stride_t + dst * C)[:, None] + c)
            x = (tl.load(x_at, exists[:, None] & inside, 0.0).to(compute),)
            dy = (tl.load(dy_at, exists[:, None] & inside, 0.0).to(compute),)
            weight_at = weight_ptr + b * weight_stride_b + p.to(tl.int64) * weight_stride_p + t.to(INDEX) * weight_stride_t
            weight = tl.load(weight_at, exists, 0.0).to(compute)
            total = _sum_parts(total, _sent_back(x, edge, dy, weight, slope, RELU))
    dedge_at = dedge_ptr + group * dedge_stride_b + p.to(tl.int64) * dedge_stride_p + c
    tl.store(dedge_at, tl.sum(total[0], 0)[None, :].to(dedge_ptr.dtype.element_ty), inside)


@triton.jit
def _active(x, edge, slope, RELU: tl.constexpr):
    """act(x + edge) of tuples of tiles. Numbers that are not stay so."""
    parts: tl.tuple = ()
    for part in tl.static_range(len(x)):
        hidden = x[part] + edge[part]
        parts += (tl.where(hidden <= 0, 0.0, hidden) if RELU else tl.where(hidden > 0, hidden, hidden * slope),)
    return parts


@triton.jit
def _sent_back(x, edge, dy, weight, slope, RELU: tl.constexpr):
    """weight · act'(x + edge) · dy, a weight for every row."""
    parts: tl.tuple = ()
    for part in tl.static_range(len(dy)):
        hidden, through = x[part] + edge[part], dy[part] * weight[:, None]
        parts += (tl.where(hidden <= 0, 0.0, through) if RELU else tl.where(hidden > 0, through, through * slope),)
    return parts


@triton.jit
def _sum_parts(total, x):
    parts: tl.tuple = ()
    for part in tl.static_range(len(x)):
        parts += (total[part] + x[part],)
    return parts


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels."""
    B, T, C, kind = 8, 60, 64, DTYPES[dtype]
    J, P, hops, index = graph.num_joints, graph.num_slots, graph.hops, graph.index
    x, edges, weight = (torch.empty(shape, dtype=kind, device="meta") for shape in ((B, T, J, C), (B, P, T, C), (B, P, T)))
    shared, dots = torch.empty(1, P, 1, C, dtype=kind, device="meta"), torch.empty(B, P, T, 1, device="meta")
    pointers = {"slots_ptr": torch.int32, "bounds_ptr": torch.int32, "lengths_ptr": torch.int64, "dots_ptr": torch.float32}

    def one(name: str, kernel: Any, settled: Settled, moved: int, least: int, window: tuple[int, int] | None = None) -> Compilation:
        arguments = {argument: {**pointers, **settled.numbers}.get(argument, kind) for argument in kernel.arg_names}
        options, work = settled.options, f"B={B} T={T} k={hops} C={C}"
        return Compilation(
            name, kernel, arguments, options["num_warps"], work, settled.programs, moved, least, window, options.get("maxnreg")
        )  # fmt: skip

    def over_nodes(name: str, kernel: Any, settled: Settled, least: int, transposed: bool) -> Compilation:
        BT, GROUP, row = settled.numbers["BT"], settled.numbers["GROUP"], C * kind.itemsize
        of_edges = P * BT * row // triton.cdiv(J, GROUP)  # nobody else asks for these
        requested, distinct = feature_bytes(graph, BT, row, transposed, GROUP)
        moved = least + (frames_read(T, BT, hops) - T) * x.nbytes // T
        return one(name, kernel, settled, moved, least, (requested + of_edges, distinct + of_edges))

    forward = _settle((x, edges, weight, x), index, hops, 0.0)
    backward = _settle_backward((x, x, edges, weight, x, edges, dots), index, hops, 0.0)
    of_shared = _settle_shared((x, x, shared.expand(B, -1, T, -1), weight, shared), index, hops, 0.0)
    given = 2 * x.nbytes + weight.nbytes
    return [
        over_nodes("message", _message, forward, given + edges.nbytes, False),
        over_nodes("message backward", _message_backward, backward, given + x.nbytes + 2 * edges.nbytes + dots.nbytes, True),
        one("message backward (shared edges)", _shared_edges, of_shared, given + 2 * shared.nbytes, given + 2 * shared.nbytes),
    ]
