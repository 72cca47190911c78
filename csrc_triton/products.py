"""The sparse products on a GPU: A x, Aᵀ y, q kᵀ at the edges, and a · b at the nodes. Same contract as `fastst.ops.sparse`.

A program works on a tile of frames of one joint, or for the sums of a few joints with about equally many slots, and runs over the joint's slots; an
edge of it at frame t reads the features of frame t + offset, so a slot's features are rows at a fixed stride. Away from a walk's ends all edges of a
tile exist, and the loop has no masks. An edge list has one frame, but all walks share its edges: there the walks take the place of the frames.

Where the features come from. Joints run fastest in the program number, so the programs of a frame tile run at the same time and ask for the same
window of (BT + 2k) J rows: with BT = 16, k = 3, J = 18 and 64 float32 channels 101 KB, of which 494 slots ask for 16 rows each, 2 MB. With twenty
warps, two for a joint, on each of 36 multiprocessors 20 such windows are in use at a time, 2 MB, which stay in a second-level cache of 4 MB: a
feature comes from memory (16 + 6) / 16 times at most. Of the second-level cache four joints in one program ask for half of what they would alone
(1,436 rows against 2,972): what one has brought, the first-level cache gives the others. A program goes through a joint's slots by neighbour, then
offset (the order of `dst_order`), so the four slots in flight mostly are one neighbour at frames that follow one another.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import bound_rows, row_strides, rows_of_group, slot_rows, walk_length
from csrc_triton.launch import Settled, enough_programs, launch, launch_options, rows_of_features
from csrc_triton.parts import add_parts, load_parts, parts_for_four_threads, store_parts, zero_parts
from fastst.graph_index import GraphIndex

_INT32 = 1 << 31
_TILE = 1024  # numbers that two warps have
_JOINTS = 4  # of a program on a skeleton
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
    values = q.new_empty(B, index.num_slots, T, dtype=(dtype or compute) if compute == torch.float32 else compute)
    q, k = rows_of_features(q), rows_of_features(k)
    pointers = (q, k, values, lengths, index.slots, index.bounds)
    key = (q.shape, values.shape, hops, q.stride(), k.stride(), row_strides(index))
    launch(_edge_dot, pointers, key, lambda: _settle_edge_dot(q, k, values, index, hops))
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
    launch(_node_dot, (a, b, dots, lengths), (a.shape, heads), lambda: _settle_node_dot(a, dots))
    return dots


def _product(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None, transposed: bool) -> Tensor:
    y = x.new_empty(x.shape)
    x = rows_of_features(x)
    pointers = (x, values, diagonal, y, lengths, index.slots, index.bounds)
    strides = x.stride(), values.stride(), None if diagonal is None else diagonal.stride()
    key = (x.shape, values.shape, hops, transposed, strides, row_strides(index))
    launch(_weighted_sum, pointers, key, lambda: _settle_weighted_sum(x, values, diagonal, y, index, hops, transposed))
    return y


def _settle_weighted_sum(x: Tensor, values: Tensor, diagonal: Tensor | None, y: Tensor, index: GraphIndex, hops: int, transposed: bool) -> Settled:
    if hops == 0:  # all walks share the edges of a list: they take the place of the frames
        x, y, values = x.transpose(0, 1), y.transpose(0, 1), values.transpose(0, 2)
        diagonal = None if diagonal is None else diagonal.transpose(0, 1)
    B, T, J, C = x.shape
    BC = min(64, triton.next_power_of_2(C))
    GROUP, BT = joints_and_frames(x, hops, BC, _JOINTS)
    tiles, chunks = triton.cdiv(T, BT), triton.cdiv(C, BC)
    slots_row, bounds_row = row_strides(index)
    farthest = max((BT + hops) * x.stride(1) + J * C, values.shape[1] * values.stride(1) + (BT + hops) * values.stride(2))
    numbers = {
        "T": T, "J": J, "C": C, "tiles": tiles, "chunks": chunks, "hops": hops, "slots_row": slots_row, "bounds_row": bounds_row,
        **strides_of("x", x.stride()[:2], "bt"), **strides_of("y", y.stride()[:2], "bt"), **strides_of("values", values.stride(), "bpt"),
        **strides_of("diagonal", (0, 0, 0) if diagonal is None else diagonal.stride(), "btj"),
        "TRANSPOSED": transposed, "EVEN": C % BC == 0, "GROUP": GROUP, "BT": BT, "BC": BC, "PARTS": parts_for_four_threads(BC * x.element_size()),
        "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    options = launch_options(num_warps=warps_of(GROUP * BT * BC), max_registers=_MAX_REGISTERS[x.dtype])
    return Settled(B * tiles * chunks * triton.cdiv(J, GROUP), numbers, options)


def _settle_edge_dot(q: Tensor, k: Tensor, values: Tensor, index: GraphIndex, hops: int) -> Settled:
    if hops == 0:
        q, k, values = q.transpose(0, 1), k.transpose(0, 1), values.transpose(0, 2)
    B, T, J, C = q.shape
    BC = min(16, triton.next_power_of_2(C))  # at most four threads to a row: few steps of adding up across threads
    BT = _frames(B, T, J, 32, enough_programs(q.device))
    tiles = triton.cdiv(T, BT)
    slots_row, bounds_row = row_strides(index)
    farthest = max(T * q.stride(1) + J * C, T * k.stride(1) + J * C, values.shape[1] * values.stride(1) + T * values.stride(2))
    numbers = {
        "T": T, "J": J, "tiles": tiles, "slots_row": slots_row, "bounds_row": bounds_row,
        **strides_of("q", q.stride()[:2], "bt"), **strides_of("k", k.stride()[:2], "bt"), **strides_of("values", values.stride(), "bpt"),
        "C": C, "BT": BT, "BC": BC, "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    return Settled(B * tiles * J, numbers, launch_options(num_warps=2 if BT > 16 else 1))


def _settle_node_dot(a: Tensor, dots: Tensor) -> Settled:
    C = a.shape[3] // max(1, dots.shape[3])
    BC = min(64, triton.next_power_of_2(max(1, C)))
    rows_a_program = max(1, 1024 // BC)
    rows_a_frame = dots.shape[2] * dots.shape[3]
    numbers = {"rows": dots.numel(), "T": dots.shape[1], "rows_a_frame": rows_a_frame, "C": C, "EVEN": C % BC == 0, "BR": rows_a_program, "BC": BC}
    return Settled(triton.cdiv(dots.numel(), rows_a_program), numbers, launch_options(num_warps=4))


def joints_and_frames(x: Tensor, hops: int, BC: int, most: int) -> tuple[int, int]:
    """Of a program that has BC channels: on a skeleton at most `most` joints, which share most of their window, and as many frames as fill two warps
    with each; of a list's nodes as many as fill two warps. Fewer where there would be too few programs."""
    B, T, J, C = x.shape
    BT = min(max(_TILE // BC, 1), 64, triton.next_power_of_2(max(T, 1)))
    joints = min(most if hops else max(_TILE // (BC * BT), 1), triton.next_power_of_2(J))
    others = B * triton.cdiv(C, BC)

    def warps() -> int:
        return others * triton.cdiv(T, BT) * triton.cdiv(J, joints) * warps_of(joints * BT * BC)

    while joints * BT > 4 and warps() < 2 * enough_programs(x.device):
        joints, BT = (joints // 2, BT) if joints > 1 else (joints, BT // 2)
    return joints, BT


def warps_of(tile: int) -> int:
    """So that a thread has 16 numbers of a tile."""
    return max(1, tile // 512)


def strides_of(tensor: str, strides: tuple[int, ...], dimensions: str) -> dict[str, int]:
    """By the names that kernels give them."""
    return {f"{tensor}_stride_{dimension}": stride for dimension, stride in zip(dimensions, strides, strict=True)}


def _frames(B: int, T: int, J: int, most: int, programs: int) -> int:
    """Of a tile; fewer than `most` where there would be fewer than `programs`."""
    BT = min(most, triton.next_power_of_2(max(T, 1)))
    while BT > 4 and B * triton.cdiv(T, BT) * J < programs:
        BT //= 2
    return BT


@triton.jit
def _weighted_sum(
    x_ptr, values_ptr, diagonal_ptr, y_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    T, J, C, tiles, chunks, hops, slots_row, bounds_row,
    x_stride_b, x_stride_t, y_stride_b, y_stride_t, values_stride_b, values_stride_p, values_stride_t,
    diagonal_stride_b, diagonal_stride_t, diagonal_stride_j,
    TRANSPOSED: tl.constexpr, EVEN: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """y[t, j] = Σ over the slots p of j of values[p, t] x[t + offset, neighbour]; transposed: values[p, t - offset] x[t - offset, neighbour]."""
    src_ptr, dst_ptr, offset_ptr, dst_order_ptr, src_order_ptr = slot_rows(slots_ptr, slots_row)
    dst_ptr_ptr, src_ptr_ptr, _, receivers_ptr, senders_ptr = bound_rows(bounds_ptr, bounds_row)
    order_ptr, neighbour_ptr = (src_order_ptr, dst_ptr) if TRANSPOSED else (dst_order_ptr, src_ptr)
    ptr_ptr, joints_ptr = (src_ptr_ptr, senders_ptr) if TRANSPOSED else (dst_ptr_ptr, receivers_ptr)
    program, groups = tl.program_id(0), tl.cdiv(J, GROUP)
    c0 = program // groups % chunks * BC
    t0 = program // groups // chunks % tiles * BT
    b = (program // groups // chunks // tiles).to(tl.int64)
    length = walk_length(lengths_ptr, b, T)

    j, frame, there = rows_of_group(joints_ptr, program % groups, J, GROUP, BT)  # [GROUP * BT]
    t = t0 + frame
    inside, node = there & (t < length), j.to(INDEX) * C
    channels = c0 + tl.arange(0, BC // PARTS)[None, :]
    # 64 bits from the tensor's beginning to the tile, and mostly 32 from there.
    x_rows = x_ptr + b * x_stride_b + t0.to(tl.int64) * x_stride_t + ((frame.to(INDEX) * x_stride_t)[:, None] + channels)
    values_rows = values_ptr + b * values_stride_b + t0.to(tl.int64) * values_stride_t + frame.to(INDEX) * values_stride_t  # [GROUP * BT]
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    total = zero_parts(GROUP * BT, BC, PARTS, compute)
    if diagonal_ptr is not None:
        own = tl.load(diagonal_ptr + b * diagonal_stride_b + t.to(tl.int64) * diagonal_stride_t + j * diagonal_stride_j, inside, 0.0).to(compute)
        total = add_parts(total, own, load_parts(x_rows + node[:, None], inside, C, channels, compute, True, EVEN, PARTS))

    first, slots = tl.load(ptr_ptr + j, there, 0), tl.load(ptr_ptr + j + 1, there, 0) - tl.load(ptr_ptr + j, there, 0)
    fours = 0
    if (t0 >= hops) & (t0 + BT + hops <= length):
        fours = tl.min(tl.where(there, slots, 1 << 30)) // 4 * 4  # where there is no joint, what is read is thrown away
        for s in range(0, fours, 4):
            for u in tl.static_range(4):
                p = tl.load(order_ptr + first + (s + u))
                offset = tl.load(offset_ptr + p).to(INDEX)
                offset, values_at = (
                    (-offset, p.to(INDEX) * values_stride_p - offset * values_stride_t) if TRANSPOSED else (offset, p.to(INDEX) * values_stride_p)
                )
                x_at = x_rows + (offset * x_stride_t + tl.load(neighbour_ptr + p).to(INDEX) * C)[:, None]
                w = tl.load(values_rows + values_at).to(compute)
                total = add_parts(total, w, load_parts(x_at, inside, C, channels, compute, False, EVEN, PARTS))
    for s in range(fours, tl.max(slots)):  # with masks: at a walk's ends, and what is left of fours or of the group's other joints
        has = s < slots
        p = tl.load(order_ptr + first + s, has, 0)
        offset = tl.load(offset_ptr + p)
        offset, values_at = (
            (-offset, p.to(INDEX) * values_stride_p - offset.to(INDEX) * values_stride_t) if TRANSPOSED else (offset, p.to(INDEX) * values_stride_p)
        )
        exists = has & inside & (t + offset >= 0) & (t + offset < length)
        x_at = x_rows + (offset.to(INDEX) * x_stride_t + tl.load(neighbour_ptr + p).to(INDEX) * C)[:, None]
        w = tl.load(values_rows + values_at, exists, 0.0).to(compute)
        total = add_parts(total, w, load_parts(x_at, exists, C, channels, compute, True, EVEN, PARTS))

    y_rows = y_ptr + b * y_stride_b + ((t.to(tl.int64) * y_stride_t + node)[:, None] + channels)
    store_parts(y_rows, total, there & (t < T), C, channels, EVEN)


@triton.jit
def _edge_dot(
    q_ptr, k_ptr, values_ptr, lengths_ptr, slots_ptr, bounds_ptr, T, J, tiles, slots_row, bounds_row,
    q_stride_b, q_stride_t, k_stride_b, k_stride_t, values_stride_b, values_stride_p, values_stride_t,
    C: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """values[p, t] = q[t, j] · k[t + offset, neighbour] for the slots p of joint j, four slots at a time.

    Frames outside of the walk are replaced by its nearest and their products thrown away: the loops need no masks.
    """
    neighbour_ptr, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, _, _ = bound_rows(bounds_ptr, bounds_row)
    program = tl.program_id(0)
    j = program % J
    t0 = program // J % tiles * BT
    b = (program // J // tiles).to(tl.int64)
    length = walk_length(lengths_ptr, b, T)

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


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The three products on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels."""
    B, T, C = 8, 60, 64
    index, J, P, kind = graph.index, graph.num_joints, graph.num_slots, DTYPES[dtype]
    x = torch.empty(B, T, J, C, dtype=kind, device="meta")
    values, diagonal = torch.empty(B, P, T, device="meta"), torch.empty(B, T, J, device="meta")
    dots = torch.empty(B, T, J, 1, device="meta")
    known = dict.fromkeys(("x_ptr", "y_ptr", "q_ptr", "k_ptr", "a_ptr", "b_ptr"), kind) | {"lengths_ptr": torch.int64}
    known |= dict.fromkeys(("values_ptr", "diagonal_ptr", "dots_ptr"), torch.float32) | dict.fromkeys(("slots_ptr", "bounds_ptr"), torch.int32)
    found = []

    def add(name: str, kernel: Any, settled: Settled, least: int, window: tuple[int, int] | None = None) -> None:
        arguments = {argument: {**known, **settled.numbers}[argument] for argument in kernel.arg_names}
        moved = least if window is None else least + (frames_read(T, settled.numbers["BT"], graph.hops) - T) * x.nbytes // T
        found.append(
            Compilation(
                name, kernel, arguments, settled.options["num_warps"], f"B={B} T={T} k={graph.hops} C={C}", settled.programs, moved, least, window,
                settled.options.get("maxnreg"),
            )
        )  # fmt: skip

    for name, transposed in (("gather_sum", False), ("scatter_sum", True)):
        settled = _settle_weighted_sum(x, values, diagonal, x, index, graph.hops, transposed)
        window = feature_bytes(graph, settled.numbers["BT"], C * kind.itemsize, transposed, settled.numbers["GROUP"])
        add(name, _weighted_sum, settled, 2 * x.nbytes + values.nbytes + diagonal.nbytes, window)
    settled = _settle_edge_dot(x, x, values, index, graph.hops)
    add("edge_dot", _edge_dot, settled, 2 * x.nbytes + values.nbytes, feature_bytes(graph, settled.numbers["BT"], C * kind.itemsize))
    add("node_dot", _node_dot, _settle_node_dot(x, dots), 2 * x.nbytes + dots.nbytes)
    return found


def frames_read(T: int, BT: int, hops: int) -> int:
    """The frames of all tiles' windows."""
    return sum(min(T, t0 + BT + hops) - max(0, t0 - hops) for t0 in range(0, T, BT))


def feature_bytes(graph: Example, BT: int, row: int, transposed: bool = False, joints: int = 1) -> tuple[int, int]:
    """Of the mean program away from a walk's ends: rows of neighbours asked for and distinct ones, in bytes. `joints`: of a program."""
    index = graph.index
    (ptr, order, neighbour), ranked = (
        ((index.src_ptr, index.src_order, index.dst), index.senders) if transposed else ((index.dst_ptr, index.dst_order, index.src), index.receivers)
    )
    slots = [order[first:last].tolist() for first, last in itertools.pairwise(ptr.tolist())]
    ends = list(zip(neighbour.tolist(), index.offset.tolist(), strict=True))
    groups = [ranked[first : first + joints].tolist() for first in range(0, graph.num_joints, joints)]
    distinct = sum(len({(ends[p][0], t + ends[p][1]) for j in group for p in slots[j] for t in range(BT)}) for group in groups)
    return len(ends) * BT * row // len(groups), distinct * row // len(groups)
