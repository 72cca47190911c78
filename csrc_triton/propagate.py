"""The gradients of message passing on a GPU in one pass: every row of dy that an edge brings is used for dx and for the edge's own weight.

A program has one joint and a tile of frames as senders, all channels of them, and goes over the slots out of the joint. So x is read once and dy once
for each edge, where `scatter_sum` and `edge_dot` after one another read both windows.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.index import bound_rows, row_strides, slot_rows
from csrc_triton.launch import Settled, enough_programs, launch, launch_options, rows_of_features
from csrc_triton.products import feature_bytes, frames_read
from fastst.graph import GraphIndex, SkeletonGraph

_INT32 = 1 << 31
_MOST_CHANNELS = 256  # of a program
_TILE = 1024  # numbers that two warps have
_JOINTS = 2  # of a program on a skeleton: they share most of the window
_MAX_REGISTERS = {torch.float64: 128, torch.float32: 128, torch.bfloat16: 96, torch.float16: 96}


def can_run_backward(x: Tensor) -> bool:
    """Whether a program can hold all channels."""
    return x.shape[3] <= _MOST_CHANNELS


def propagate_backward(
    dy: Tensor, x: Tensor, weight: Tensor, self_weight: Tensor | None, index: GraphIndex, hops: int, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """dx[s, src] = Σ weight[p, t] dy[t, dst] (+ self_weight dy), dweight[p, t] = dy[t, dst] · x[s, src] with s = t + offset, dself = dy · x."""
    dx, dweight = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight, memory_format=torch.contiguous_format)
    dself = None if self_weight is None else torch.empty_like(self_weight, memory_format=torch.contiguous_format)
    dy, x = rows_of_features(dy), rows_of_features(x)
    tensors: tuple[Any, ...] = (dy, x, weight, self_weight, dx, dweight, dself)
    if hops == 0:  # all walks share the edges of a list: they take the place of the frames
        tensors = tuple(
            None if tensor is None else tensor.transpose(0, frames) for tensor, frames in zip(tensors, (1, 1, 2, 1, 1, 2, 1), strict=True)
        )
    strides = tuple(None if tensor is None else tensor.stride() for tensor in tensors)
    key = (tensors[1].shape, weight.shape, hops, strides, row_strides(index))
    launch(_propagate_backward, (*tensors, lengths, index.slots, index.bounds), key, lambda: _settle(tensors, index, hops))
    return dx, dweight, dself


def _settle(tensors: tuple[Any, ...], index: GraphIndex, hops: int) -> Settled:
    """One joint and BT frames, as many as fill a tile; fewer where there would be too few programs."""
    dy, x, weight, self_weight, dx, dweight, dself = tensors
    B, T, J, C = x.shape
    BC = triton.next_power_of_2(C)
    BT = min(max(_TILE // BC, 1), 64, triton.next_power_of_2(max(T, 1)))
    GROUP = min(_JOINTS if hops else max(_TILE // (BC * BT), 1), triton.next_power_of_2(J))
    while GROUP * BT > 4 and B * triton.cdiv(T, BT) * J < enough_programs(x.device) * max(1, GROUP * BT * BC // _TILE):
        GROUP, BT = (GROUP // 2, BT) if GROUP > 1 else (GROUP, BT // 2)
    PARTS = max(1, min(4, BC * x.element_size() // 64))
    slots_row, bounds_row = row_strides(index)
    farthest = max(
        (BT + hops) * max(dy.stride(1), x.stride(1), dx.stride(1)) + J * C,
        *(w.stride(1) * w.shape[1] + (BT + hops) * w.stride(2) for w in (weight, dweight)),
    )
    none = (0, 0, 0)
    numbers = {
        "T": T, "J": J, "C": C, "tiles": triton.cdiv(T, BT), "hops": hops, "slots_row": slots_row, "bounds_row": bounds_row,
        **_named("dy", dy.stride()[:2]), **_named("x", x.stride()[:2]), **_named("dx", dx.stride()[:2]),
        **_named("weight", weight.stride(), "bpt"), **_named("dweight", dweight.stride(), "bpt"),
        **_named("self", none if self_weight is None else self_weight.stride(), "btj"),
        **_named("dself", none if dself is None else dself.stride(), "btj"),
        "EVEN": C == BC, "GROUP": GROUP, "BT": BT, "BC": BC, "PARTS": PARTS, "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    programs, num_warps = B * triton.cdiv(T, BT) * triton.cdiv(J, GROUP), max(1, GROUP * BT * BC // 512)
    return Settled(programs, numbers, launch_options(num_warps=num_warps, max_registers=_MAX_REGISTERS[x.dtype]))


def _named(tensor: str, strides: tuple[int, ...], dimensions: str = "bt") -> dict[str, int]:
    return {f"{tensor}_stride_{dimension}": stride for dimension, stride in zip(dimensions, strides, strict=True)}


@triton.jit
def _propagate_backward(
    dy_ptr, x_ptr, weight_ptr, self_ptr, dx_ptr, dweight_ptr, dself_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    T, J, C, tiles, hops, slots_row, bounds_row,
    dy_stride_b, dy_stride_t, x_stride_b, x_stride_t, dx_stride_b, dx_stride_t,
    weight_stride_b, weight_stride_p, weight_stride_t, dweight_stride_b, dweight_stride_p, dweight_stride_t,
    self_stride_b, self_stride_t, self_stride_j, dself_stride_b, dself_stride_t, dself_stride_j,
    EVEN: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Features are PARTS tiles [BT, BC / PARTS]: few threads have a row, so that few steps add up what they found of a dot product."""
    program = tl.program_id(0)
    groups = tl.cdiv(J, GROUP)
    t0 = program // groups % tiles * BT
    b = (program // groups // tiles).to(tl.int64)
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
    _, dst_ptr, offset_ptr, _, order_ptr = slot_rows(slots_ptr, slots_row)
    _, ptr_ptr, _, _, joints_ptr = bound_rows(bounds_ptr, bounds_row)

    row = tl.arange(0, GROUP * BT)
    member = program % groups * GROUP + row // BT
    there = member < J
    j = tl.load(joints_ptr + member, there, 0)  # [GROUP * BT]
    c = tl.arange(0, BC // PARTS)[None, :]
    frame, t, node = t0.to(tl.int64), t0 + row % BT, j.to(INDEX) * C
    rows = (row % BT).to(INDEX)
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    live, written = there & (t < length), there & (t < T)
    dy_rows = dy_ptr + b * dy_stride_b + frame * dy_stride_t + (rows[:, None] * dy_stride_t + c)  # [GROUP * BT, BC / PARTS]
    x = _load(x_ptr + b * x_stride_b + frame * x_stride_t + ((rows * x_stride_t + node)[:, None] + c), live, C, c, compute, True, EVEN, PARTS)
    dx = _nothing(GROUP * BT, BC, PARTS, compute)
    weight_rows = weight_ptr + b * weight_stride_b + frame * weight_stride_t + rows * weight_stride_t  # [GROUP * BT]
    dweight_rows = dweight_ptr + b * dweight_stride_b + frame * dweight_stride_t + rows * dweight_stride_t
    if self_ptr is not None:
        own = _load(dy_rows + node[:, None], live, C, c, compute, True, EVEN, PARTS)
        frames = frame + row % BT
        factor = tl.load(self_ptr + b * self_stride_b + frames * self_stride_t + j * self_stride_j, live, 0.0).to(compute)
        dx = _add(dx, factor, own)
        dself = _dot(own, x)
        tl.store(dself_ptr + b * dself_stride_b + frames * dself_stride_t + j * dself_stride_j, dself.to(dself_ptr.dtype.element_ty), written)

    first, slots = tl.load(ptr_ptr + j, there, 0), tl.load(ptr_ptr + j + 1, there, 0) - tl.load(ptr_ptr + j, there, 0)
    fours = 0
    if (t0 >= hops) & (t0 + BT + hops <= length):
        fours = tl.min(slots) // 4 * 4
        for s in range(0, fours, 4):
            dots: tl.tuple = ()
            places: tl.tuple = ()
            for u in tl.static_range(4):
                p = tl.load(order_ptr + first + (s + u))
                offset = tl.load(offset_ptr + p).to(INDEX)
                dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset * dy_stride_t)[:, None]
                dy = _load(dy_at, live, C, c, compute, False, EVEN, PARTS)
                weight = tl.load(weight_rows + (p.to(INDEX) * weight_stride_p - offset * weight_stride_t)).to(compute)
                dx = _add(dx, weight, dy)
                dots += (_dot(dy, x),)
                places += (p.to(INDEX) * dweight_stride_p - offset * dweight_stride_t,)
            four, place = _four(dots), _four(places)
            tl.store(dweight_rows[:, None] + place, four.to(dweight_ptr.dtype.element_ty))
    for s in range(fours, tl.max(slots)):  # with masks: at a walk's ends, and what is left of fours or of the group's other joints
        has = s < slots
        p = tl.load(order_ptr + first + s, has, 0)
        offset = tl.load(offset_ptr + p)
        target = t - offset
        exists = has & (target >= 0) & (target < length) & (t < length)
        dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset.to(INDEX) * dy_stride_t)[:, None]
        dy = _load(dy_at, exists, C, c, compute, True, EVEN, PARTS)
        weight = tl.load(weight_rows + (p.to(INDEX) * weight_stride_p - offset.to(INDEX) * weight_stride_t), exists, 0.0).to(compute)
        dx = _add(dx, weight, dy)
        place = p.to(INDEX) * dweight_stride_p
        dot = tl.where(exists, _dot(dy, x), 0.0).to(dweight_ptr.dtype.element_ty)
        tl.store(dweight_rows + (place - offset.to(INDEX) * dweight_stride_t), dot, has & (target >= 0) & (target < T) & (t < T))
        if (
            hops > 0
        ):  # an edge whose sender would be before the first frame or after the last has no program: the frame at the same distance writes it
            mirrored = tl.where(offset > 0, 2 * T - 1 - offset, -1 - offset) - t
            mine = has & (t < T) & (mirrored >= 0) & (mirrored < T) & tl.where(offset > 0, mirrored >= T - offset, mirrored < -offset)
            back = (mirrored - t).to(INDEX) * dweight_stride_t
            tl.store(dweight_rows + (place + back), tl.zeros_like(dot), mine)
    dx_rows = dx_ptr + b * dx_stride_b + frame * dx_stride_t + ((rows * dx_stride_t + node)[:, None] + c)
    W: tl.constexpr = BC // PARTS
    for part in tl.static_range(PARTS):
        tl.store(dx_rows + part * W, dx[part].to(dx_ptr.dtype.element_ty), written[:, None] if EVEN else written[:, None] & (part * W + c < C))


@triton.jit
def _four(values):
    """[N] four times -> [N, 4]"""
    return tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3])).reshape(values[0].shape[0], 4)


@triton.jit
def _nothing(BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, compute: tl.constexpr):
    parts: tl.tuple = ()
    for _ in tl.static_range(PARTS):
        parts += (tl.zeros((BT, BC // PARTS), compute),)
    return parts


@triton.jit
def _load(rows, exists, C, c, compute: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr, PARTS: tl.constexpr):
    """Rows of features, with zeros for those that don't exist.  # PARTS times [BT, BC / PARTS]"""
    parts: tl.tuple = ()
    W: tl.constexpr = rows.shape[1]
    for part in tl.static_range(PARTS):
        if EVEN:
            one = tl.load(rows + part * W, exists[:, None], 0.0) if MASKED else tl.load(rows + part * W)
        else:
            inside = part * W + c < C
            one = tl.load(rows + part * W, exists[:, None] & inside if MASKED else inside, 0.0)
        parts += (one.to(compute),)
    return parts


@triton.jit
def _add(total, factor, x):
    """total + factor x"""
    parts: tl.tuple = ()
    for part in tl.static_range(len(x)):
        parts += (tl.fma(factor[:, None].broadcast_to(x[part].shape), x[part], total[part]),)
    return parts


@triton.jit
def _dot(a, b):
    """# PARTS times [BT, BC / PARTS], twice -> [BT]"""
    total = a[0] * b[0]
    for part in tl.static_range(1, len(a)):
        total = tl.fma(a[part], b[part], total)
    return tl.sum(total, 1)


def compilations(dtype: str) -> list[Compilation]:
    """The kernel of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels."""
    B, T, C, graph, kind = 8, 60, 64, SkeletonGraph("coco18", 3), DTYPES[dtype]
    J, P = graph.num_joints, graph.num_slots
    x, weight, own = (torch.empty(shape, dtype=kind, device="meta") for shape in ((B, T, J, C), (B, P, T), (B, T, J)))
    settled = _settle((x, x, weight, own, x, weight, own), graph.index(), graph.hops)
    pointers = {"slots_ptr": torch.int32, "bounds_ptr": torch.int32, "lengths_ptr": torch.int64}
    arguments = {name: {**pointers, **settled.numbers}.get(name, kind) for name in _propagate_backward.arg_names}
    BT, features, edges, nodes = settled.numbers["BT"], x.nbytes, weight.nbytes, own.nbytes
    least = 3 * features + 2 * edges + 2 * nodes
    moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
    window = feature_bytes(graph, BT, C * kind.itemsize, transposed=True)
    return [
        Compilation(
            "propagate backward", _propagate_backward, arguments, settled.options["num_warps"], f"B={B} T={T} k={graph.hops} C={C}", settled.programs,
            moved, least, window, settled.options["maxnreg"],
        )
    ]  # fmt: skip
