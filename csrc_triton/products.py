"""The sparse products on a GPU: A x, Aᵀ y, q kᵀ at the edges, and a · b at the nodes. Same contract as `fastst.ops.sparse`.

A program works on one joint and a tile of frames, and runs over the joint's slots; an edge of it at frame t reads the features of frame
t + offset, so a slot's features are rows at a fixed stride and need no gathered indices. Away from a walk's ends all edges of a tile exist, and
the loop has no masks. An edge list has one frame, but all walks share its edges: there the walks take the place of the frames.

Where the features come from. Joints run fastest in the program number, so the J programs of a frame tile run at the same time and ask for the same
window of (BT + 2k) J rows: with BT = 16, k = 3, J = 18 and 64 float32 channels 101 KB, of which 494 slots ask for 16 rows each, 2 MB. With ten
programs of two warps on each of 36 multiprocessors 20 such windows are in use at a time, 2 MB, which stay in a second-level cache of 4 MB: a feature
comes from memory (16 + 6) / 16 times at most. A program goes through its slots by neighbour, then offset (the order of `dst_order`), so the four
slots in flight mostly are one neighbour at frames that follow one another: together they ask for 64 rows, 19 of them distinct, and the first-level
cache gives the others while it still has them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.launch import enough_programs, launch_options, on_device_of, parts_of_a_row, rows_of_features
from csrc_triton.parts import by_row, channels, load_tile, part_starts, store_tile, zeros
from fastst.graph import GraphIndex, SkeletonGraph

_INT32 = 1 << 31
_MAX_REGISTERS = {torch.float64: 128, torch.float32: 96, torch.bfloat16: 72, torch.float16: 72}  # for six or more 16-byte loads in flight


def gather_sum(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """y[t, dst] = Σ values[p, t] x[t + offset, src] (+ diagonal[t, dst] x[t, dst])."""
    return _product(x, values, index, hops, lengths, diagonal, transposed=False)


def scatter_sum(y: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """x[s, src] = Σ values[p, s - offset] y[s - offset, dst] (+ diagonal[s, src] y[s, src])."""
    return _product(y, values, index, hops, lengths, diagonal, transposed=True)


def edge_dot(q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """values[p, t] = q[t, dst] · k[t + offset, src]; 0 where no edge exists; in `dtype` or at least float32."""
    B, T = q.shape[:2]
    compute = torch.promote_types(q.dtype, torch.float32)
    values = q.new_empty(B, len(index.src), T, dtype=(dtype or compute) if compute == torch.float32 else compute)
    programs, arguments, options = _edge_dot_launch(rows_of_features(q), rows_of_features(k), values, index, hops, lengths)
    with on_device_of(q.device):
        _edge_dot[programs,](*arguments.values(), **launch_options(**options))
    return values.to(dtype or compute)


def edge_and_node_dot(
    q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """`edge_dot` and, at every node, q · k, both in `dtype`.  # [B, P, T], [B, T, J]"""
    edges, nodes = edge_dot(q, k, index, hops, lengths, dtype), node_dot(q, k, 1, lengths).squeeze(-1)
    return edges, nodes.to(edges.dtype)


def node_dot(a: Tensor, b: Tensor, heads: int, lengths: Tensor | None) -> Tensor:
    """a · b of every node, head by head; 0 beyond the lengths.  # [B, T, J, C] twice -> [B, T, J, heads], at least float32"""
    a, b = a.contiguous(), b.contiguous()
    dots = a.new_empty(*a.shape[:3], heads, dtype=torch.promote_types(a.dtype, torch.float32))
    programs, arguments, options = _node_dot_launch(a, b, dots, lengths)
    with on_device_of(a.device):
        _node_dot[programs,](*arguments.values(), **launch_options(**options))
    return dots


def _product(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None, transposed: bool) -> Tensor:
    y = x.new_empty(x.shape)
    programs, arguments, options = _weighted_sum_launch(rows_of_features(x), values, diagonal, y, index, hops, lengths, transposed)
    with on_device_of(x.device):
        _weighted_sum[programs,](*arguments.values(), **launch_options(**options))
    return y


def _weighted_sum_launch(
    x: Tensor, values: Tensor, diagonal: Tensor | None, y: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, transposed: bool
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Number of programs, arguments and options of the launch."""
    if hops == 0:
        x, y, values = x.transpose(0, 1), y.transpose(0, 1), values.transpose(0, 2)
        diagonal = None if diagonal is None else diagonal.transpose(0, 1)
    B, T, J, C = x.shape
    BT, BC = _tile(B, T, J, C, 1024, enough_programs(x.device))
    num_warps = 2 if BT * BC > 256 else 1
    tiles, chunks = triton.cdiv(T, BT), triton.cdiv(C, BC)
    ptr, order, neighbour = (index.src_ptr, index.src_order, index.dst) if transposed else (index.dst_ptr, index.dst_order, index.src)
    farthest = max((BT + hops) * x.stride(1) + J * C, len(index.src) * values.stride(1) + (BT + hops) * values.stride(2))
    arguments = {
        "x_ptr": x, "values_ptr": values, "diagonal_ptr": diagonal, "y_ptr": y,
        "ptr_ptr": ptr, "order_ptr": order, "neighbour_ptr": neighbour, "offset_ptr": index.offset, "lengths_ptr": lengths,
        "T": T, "J": J, "C": C, "tiles": tiles, "chunks": chunks, "hops": hops,
        "x_stride_b": x.stride(0), "x_stride_t": x.stride(1), "y_stride_b": y.stride(0), "y_stride_t": y.stride(1),
        "values_stride_b": values.stride(0), "values_stride_p": values.stride(1), "values_stride_t": values.stride(2),
        "diagonal_stride_b": 0 if diagonal is None else diagonal.stride(0),
        "diagonal_stride_t": 0 if diagonal is None else diagonal.stride(1),
        "diagonal_stride_j": 0 if diagonal is None else diagonal.stride(2),
        "TRANSPOSED": transposed, "EVEN": C % BC == 0, "BT": BT, "BC": BC,
        "PARTS": parts_of_a_row(BC * x.element_size(), BT * BC * x.element_size(), num_warps),
        "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    return B * tiles * chunks * J, arguments, {"num_warps": num_warps, "max_registers": _MAX_REGISTERS[x.dtype]}


def _edge_dot_launch(
    q: Tensor, k: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Number of programs, arguments and options of the launch."""
    if hops == 0:
        q, k, values = q.transpose(0, 1), k.transpose(0, 1), values.transpose(0, 2)
    B, T, J, C = q.shape
    BC = min(16, triton.next_power_of_2(C))  # at most four threads to a row: few steps of adding up across threads
    BT, _ = _tile(B, T, J, BC, 32 * BC, enough_programs(q.device))
    tiles = triton.cdiv(T, BT)
    farthest = max(T * q.stride(1) + J * C, T * k.stride(1) + J * C, len(index.src) * values.stride(1) + T * values.stride(2))
    arguments = {
        "q_ptr": q, "k_ptr": k, "values_ptr": values,
        "ptr_ptr": index.dst_ptr, "order_ptr": index.dst_order, "neighbour_ptr": index.src, "offset_ptr": index.offset, "lengths_ptr": lengths,
        "T": T, "J": J, "tiles": tiles,
        "q_stride_b": q.stride(0), "q_stride_t": q.stride(1), "k_stride_b": k.stride(0), "k_stride_t": k.stride(1),
        "values_stride_b": values.stride(0), "values_stride_p": values.stride(1), "values_stride_t": values.stride(2),
        "C": C, "BT": BT, "BC": BC, "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    return B * tiles * J, arguments, {"num_warps": 2 if BT > 16 else 1}


def _node_dot_launch(a: Tensor, b: Tensor, dots: Tensor, lengths: Tensor | None) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Number of programs, arguments and options of the launch."""
    C = a.shape[3] // max(1, dots.shape[3])
    BC = min(64, triton.next_power_of_2(max(1, C)))
    rows_a_program = max(1, 1024 // BC)
    arguments = {
        "a_ptr": a, "b_ptr": b, "dots_ptr": dots, "lengths_ptr": lengths,
        "rows": dots.numel(), "T": dots.shape[1], "rows_a_frame": dots.shape[2] * dots.shape[3], "C": C, "EVEN": C % BC == 0,
        "BR": rows_a_program, "BC": BC,
    }  # fmt: skip
    return triton.cdiv(dots.numel(), rows_a_program), arguments, {"num_warps": 4}


def _tile(B: int, T: int, J: int, C: int, most: int, programs: int) -> tuple[int, int]:
    """Frames and channels of a tile of at most `most` numbers: up to 64 channels, and fewer frames where there would be fewer than `programs`."""
    BC = min(64, triton.next_power_of_2(C))
    BT = min(most // BC, 64, triton.next_power_of_2(max(T, 1)))
    while BT > 4 and B * triton.cdiv(T, BT) * triton.cdiv(C, BC) * J < programs:
        BT //= 2
    return BT, BC


class _Form(NamedTuple):
    TRANSPOSED: tl.constexpr
    EVEN: tl.constexpr
    PARTS: tl.constexpr
    BC: tl.constexpr
    INDEX: tl.constexpr


class _Slots(NamedTuple):
    order_ptr: tl.tensor
    neighbour_ptr: tl.tensor
    offset_ptr: tl.tensor


class _Frames(NamedTuple):
    """What a tile of frames reads."""

    t: tl.tensor  # [BT]
    length: tl.tensor
    x_rows: tl.tensor  # a tile's first part, of the frames' first nodes
    x_stride_t: tl.tensor
    C: tl.tensor
    channels: tl.tensor  # from the tile's first on
    values_rows: tl.tensor  # [BT], of the first slot
    values_stride_p: tl.tensor
    values_stride_t: tl.tensor


@triton.jit
def _weighted_sum(
    x_ptr, values_ptr, diagonal_ptr, y_ptr, ptr_ptr, order_ptr, neighbour_ptr, offset_ptr, lengths_ptr,
    T, J, C, tiles, chunks, hops,
    x_stride_b, x_stride_t, y_stride_b, y_stride_t, values_stride_b, values_stride_p, values_stride_t,
    diagonal_stride_b, diagonal_stride_t, diagonal_stride_j,
    TRANSPOSED: tl.constexpr, EVEN: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """y[t, j] = Σ over the slots p of j of values[p, t] x[t + offset, neighbour]; transposed: values[p, t - offset] x[t - offset, neighbour]."""
    program = tl.program_id(0)
    j = program % J
    c0 = program // J % chunks * BC
    t0 = program // J // chunks % tiles * BT
    b = (program // J // chunks // tiles).to(tl.int64)
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)

    rows = tl.arange(0, BT)
    inside = t0 + rows < length
    # 64 bits from the tensor's beginning to the tile, and mostly 32 from there.
    in_part = c0 + (by_row(rows.to(INDEX)) * x_stride_t + tl.arange(0, BC // PARTS)[None, None, :])
    x_rows = x_ptr + b * x_stride_b + t0.to(tl.int64) * x_stride_t + in_part
    values_rows = values_ptr + b * values_stride_b + t0.to(tl.int64) * values_stride_t + rows.to(INDEX) * values_stride_t  # [BT]
    total = zeros(PARTS, BT, BC, tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32)
    if diagonal_ptr is not None:
        own = tl.load(diagonal_ptr + b * diagonal_stride_b + (t0 + rows).to(tl.int64) * diagonal_stride_t + j * diagonal_stride_j, inside, 0.0)
        x = load_tile(x_rows + j.to(INDEX) * C + part_starts(PARTS, BC), inside, C - c0, True, PARTS, BC, EVEN)
        total = by_row(own).to(total.dtype) * x.to(total.dtype)

    FORM: tl.constexpr = _Form(TRANSPOSED, EVEN, PARTS, BC, INDEX)
    slots = _Slots(order_ptr, neighbour_ptr, offset_ptr)
    t = tl.where(inside, t0 + rows, 1 << 30)  # a frame from which no offset leads back into the walk
    frames = _Frames(t, length, x_rows, x_stride_t, C, C - c0, values_rows, values_stride_p, values_stride_t)
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    fours, twos = last - (last - first) % 4, last - (last - first) % 2
    if (t0 >= hops) & (t0 + BT + hops <= length):
        total = _add_slots(total, first, fours, slots, frames, False, 4, FORM)
        total = _add_slots(total, fours, last, slots, frames, False, 1, FORM)
    elif t0 < length:  # masks take registers: two slots at a time
        total = _add_slots(total, first, twos, slots, frames, True, 2, FORM)
        total = _add_slots(total, twos, last, slots, frames, True, 1, FORM)

    y_rows = y_ptr + b * y_stride_b + by_row((t0 + rows).to(tl.int64)) * y_stride_t + (j.to(tl.int64) * C + c0 + channels(PARTS, BC))
    store_tile(y_rows, total, t0 + rows < T, C - c0, PARTS, BC, EVEN)


@triton.jit
def _add_slots(total, first, last, slots, frames, MASKED: tl.constexpr, UNROLL: tl.constexpr, FORM: tl.constexpr):
    """The total with the slots order[first:last] added, UNROLL at a time so that their features are loaded at the same time."""
    for s in range(first, last, UNROLL):
        for u in tl.static_range(UNROLL):
            p = tl.load(slots.order_ptr + s + u)
            offset = tl.load(slots.offset_ptr + p)
            if FORM.TRANSPOSED:
                offset = -offset
            x_at = offset.to(FORM.INDEX) * frames.x_stride_t + tl.load(slots.neighbour_ptr + p).to(FORM.INDEX) * frames.C
            values_at = p.to(FORM.INDEX) * frames.values_stride_p
            if FORM.TRANSPOSED:
                values_at += offset.to(FORM.INDEX) * frames.values_stride_t
            exists = (frames.t + offset).to(tl.uint32) < frames.length.to(tl.uint32)  # negative frames are large ones
            w = tl.load(frames.values_rows + values_at, exists, 0.0) if MASKED else tl.load(frames.values_rows + values_at)
            x_rows = frames.x_rows + x_at + part_starts(FORM.PARTS, FORM.BC)
            x = load_tile(x_rows, exists, frames.channels, MASKED, FORM.PARTS, FORM.BC, FORM.EVEN)
            total = tl.fma(by_row(w).to(total.dtype), x.to(total.dtype), total)
    return total


@triton.jit
def _edge_dot(
    q_ptr, k_ptr, values_ptr, ptr_ptr, order_ptr, neighbour_ptr, offset_ptr, lengths_ptr,
    T, J, tiles,
    q_stride_b, q_stride_t, k_stride_b, k_stride_t, values_stride_b, values_stride_p, values_stride_t,
    C: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """values[p, t] = q[t, j] · k[t + offset, neighbour] for the slots p of joint j, four slots at a time.

    Frames outside of the walk are replaced by its nearest and their products thrown away: the loops need no masks.
    """
    program = tl.program_id(0)
    j = program % J
    t0 = program // J % tiles * BT
    b = (program // J // tiles).to(tl.int64)
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)

    dtype: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    t = t0 + tl.arange(0, BT)
    c = tl.arange(0, BC)
    q_rows = q_ptr + b * q_stride_b + (tl.minimum(t, T - 1).to(INDEX) * q_stride_t + j.to(INDEX) * C)[:, None] + c[None, :]  # [BT, BC]
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    for s in range(first, last, 4):
        slots = s + tl.arange(0, 4)
        p = tl.load(order_ptr + tl.minimum(slots, last - 1))
        source = t[None, :] + tl.load(offset_ptr + p)[:, None]  # [4, BT]
        nearest = tl.minimum(tl.maximum(source, 0), T - 1).to(INDEX)
        k_at = nearest * k_stride_t + tl.load(neighbour_ptr + p).to(INDEX)[:, None] * C
        k_rows = k_ptr + b * k_stride_b + (k_at[:, :, None] + c[None, None, :])  # [4, BT, BC]
        total = tl.zeros((4, BT, BC), dtype)
        for c0 in range(0, C, BC):
            if C % BC == 0:
                q, k = tl.load(q_rows + c0), tl.load(k_rows + c0)
            else:
                q = tl.load(q_rows + c0, (c0 + c < C)[None, :], 0.0)
                k = tl.load(k_rows + c0, (c0 + c < C)[None, None, :], 0.0)
            total = tl.fma(q[None].to(dtype), k.to(dtype), total)
        exists = (t < length)[None, :] & (source >= 0) & (source < length)
        values_at = (p.to(INDEX) * values_stride_p)[:, None] + (t.to(INDEX) * values_stride_t)[None, :]
        dots = tl.where(exists, tl.sum(total, 2), 0.0).to(values_ptr.dtype.element_ty)
        tl.store(values_ptr + b * values_stride_b + values_at, dots, (slots < last)[:, None] & (t < T)[None, :])


@triton.jit
def _node_dot(
    a_ptr, b_ptr, dots_ptr, lengths_ptr, rows, T, rows_a_frame, C, EVEN: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """dots[row] = a[row] · b[row] for BR rows of C channels; a row is a head of a node."""
    dtype: tl.constexpr = tl.float64 if a_ptr.dtype.element_ty == tl.float64 else tl.float32
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    frame = row // rows_a_frame
    live = row < rows
    if lengths_ptr is not None:
        live = live & (frame % T < tl.load(lengths_ptr + frame // T, row < rows, 0))
    c = tl.arange(0, BC)
    total = tl.zeros((BR, BC), dtype)
    for c0 in range(0, C, BC):
        inside = live[:, None] if EVEN else live[:, None] & (c0 + c < C)[None, :]
        at = (row * C)[:, None] + (c0 + c)[None, :]
        total = tl.fma(tl.load(a_ptr + at, inside, 0.0).to(dtype), tl.load(b_ptr + at, inside, 0.0).to(dtype), total)
    tl.store(dots_ptr + row, tl.sum(total, 1), row < rows)


def compilations(dtype: str) -> list[Compilation]:
    """The three products on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels."""
    B, T, C, graph = 8, 60, 64, SkeletonGraph("coco18", 3)
    index, J, P, kind = graph.index("meta"), graph.num_joints, graph.num_slots, DTYPES[dtype]
    x = torch.empty(B, T, J, C, dtype=kind, device="meta")
    values = torch.empty(B, P, T, device="meta")
    diagonal, lengths = torch.empty(B, T, J, device="meta"), torch.empty(B, dtype=torch.int64, device="meta")
    work = f"B={B} T={T} k={graph.hops} C={C}"
    features, edges = x.nbytes, values.nbytes
    found = []
    for name, transposed in (("gather_sum", False), ("scatter_sum", True)):
        programs, arguments, options = _weighted_sum_launch(x, values, diagonal, x, index, graph.hops, lengths, transposed)
        BT = arguments["BT"]
        least = 2 * features + edges + diagonal.nbytes
        moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
        window = feature_bytes(graph, BT, C * kind.itemsize, transposed)
        found.append(
            Compilation(
                name, _weighted_sum, arguments, work=work, programs=programs, bytes_moved=moved, bytes_least=least, feature_bytes=window, **options
            )
        )
    programs, arguments, options = _edge_dot_launch(x, x, values, index, graph.hops, lengths)
    BT = arguments["BT"]
    least = 2 * features + edges
    moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
    window = feature_bytes(graph, BT, C * kind.itemsize)
    found.append(
        Compilation(
            "edge_dot", _edge_dot, arguments, work=work, programs=programs, bytes_moved=moved, bytes_least=least, feature_bytes=window, **options
        )
    )
    dots = torch.empty(B, T, J, 1, dtype=torch.float32, device="meta")
    programs, arguments, options = _node_dot_launch(x, x, dots, lengths)
    least = 2 * features + dots.nbytes
    found.append(Compilation("node_dot", _node_dot, arguments, work=work, programs=programs, bytes_moved=least, bytes_least=least, **options))
    return found


def frames_read(T: int, BT: int, hops: int) -> int:
    """The frames of all tiles' windows."""
    return sum(min(T, t0 + BT + hops) - max(0, t0 - hops) for t0 in range(0, T, BT))


def feature_bytes(graph: SkeletonGraph, BT: int, row: int, transposed: bool = False) -> tuple[int, int]:
    """Of the mean program away from a walk's ends: rows of neighbours asked for and distinct ones, in bytes."""
    joint, neighbour = (graph.src, graph.dst) if transposed else (graph.dst, graph.src)
    slots = list(zip(joint.tolist(), neighbour.tolist(), graph.offset.tolist(), strict=True))
    distinct = {(j, n, t + offset) for j, n, offset in slots for t in range(BT)}
    return len(slots) * BT * row // graph.num_joints, len(distinct) * row // graph.num_joints
