"""The gradients of message passing on a GPU in one pass: every row of dy that an edge brings is used for dx and for the edge's own weight.

A program has a few joints and a tile of frames as senders, all channels of them, and goes over the slots out of the joints. So x is read once and dy
once for each edge, where `scatter_sum` and `edge_dot` after one another read both windows.
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
_MOST_CHANNELS = 256  # of a program
_JOINTS = 2  # on a skeleton: warps wait for one another when they exchange dot products, so not more
_MAX_REGISTERS = {torch.float64: 128, torch.float32: 124, torch.bfloat16: 112, torch.float16: 112}


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
    dy, x, weight, self_weight, dx, dweight, dself = tensors
    B, T, J, C = x.shape
    BC = triton.next_power_of_2(C)
    GROUP, BT = joints_and_frames(x, hops, BC, _JOINTS)
    slots_row, bounds_row = row_strides(index)
    farthest = max(
        (BT + hops) * max(dy.stride(1), x.stride(1), dx.stride(1)) + J * C,
        *(w.stride(1) * w.shape[1] + (BT + hops) * w.stride(2) for w in (weight, dweight)),
    )
    numbers = {
        "T": T, "J": J, "C": C, "tiles": triton.cdiv(T, BT), "hops": hops, "slots_row": slots_row, "bounds_row": bounds_row,
        **strides_of("dy", dy.stride()[:2], "bt"), **strides_of("x", x.stride()[:2], "bt"), **strides_of("dx", dx.stride()[:2], "bt"),
        **strides_of("weight", weight.stride(), "bpt"), **strides_of("dweight", dweight.stride(), "bpt"),
        **strides_of("self", (0, 0, 0) if self_weight is None else self_weight.stride(), "btj"),
        **strides_of("dself", (0, 0, 0) if dself is None else dself.stride(), "btj"),
        "EVEN": C == BC, "GROUP": GROUP, "BT": BT, "BC": BC, "PARTS": parts_for_four_threads(BC * x.element_size()),
        "INDEX": tl.int32 if farthest < _INT32 else tl.int64,
    }  # fmt: skip
    programs = B * triton.cdiv(T, BT) * triton.cdiv(J, GROUP)
    return Settled(programs, numbers, launch_options(num_warps=warps_of(GROUP * BT * BC), max_registers=_MAX_REGISTERS[x.dtype]))


@triton.jit
def _propagate_backward(
    dy_ptr, x_ptr, weight_ptr, self_ptr, dx_ptr, dweight_ptr, dself_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    T, J, C, tiles, hops, slots_row, bounds_row,
    dy_stride_b, dy_stride_t, x_stride_b, x_stride_t, dx_stride_b, dx_stride_t,
    weight_stride_b, weight_stride_p, weight_stride_t, dweight_stride_b, dweight_stride_p, dweight_stride_t,
    self_stride_b, self_stride_t, self_stride_j, dself_stride_b, dself_stride_t, dself_stride_j,
    EVEN: tl.constexpr, GROUP: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Features are PARTS tiles [GROUP * BT, BC / PARTS]: few threads have a row, so that few steps add up what they found of a dot product."""
    program = tl.program_id(0)
    groups = tl.cdiv(J, GROUP)
    t0 = program // groups % tiles * BT
    b = (program // groups // tiles).to(tl.int64)
    length = walk_length(lengths_ptr, b, T)
    _, dst_ptr, offset_ptr, _, order_ptr = slot_rows(slots_ptr, slots_row)
    _, ptr_ptr, _, _, joints_ptr = bound_rows(bounds_ptr, bounds_row)

    j, row, there = rows_of_group(joints_ptr, program % groups, J, GROUP, BT)  # [GROUP * BT]
    c = tl.arange(0, BC // PARTS)[None, :]
    frame, t, node = t0.to(tl.int64), t0 + row, j.to(INDEX) * C
    rows = row.to(INDEX)
    compute: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    live, written = there & (t < length), there & (t < T)
    dy_rows = dy_ptr + b * dy_stride_b + frame * dy_stride_t + (rows[:, None] * dy_stride_t + c)  # [GROUP * BT, BC / PARTS]
    x = load_parts(x_ptr + b * x_stride_b + frame * x_stride_t + ((rows * x_stride_t + node)[:, None] + c), live, C, c, compute, True, EVEN, PARTS)
    dx = zero_parts(GROUP * BT, BC, PARTS, compute)
    weight_rows = weight_ptr + b * weight_stride_b + frame * weight_stride_t + rows * weight_stride_t  # [GROUP * BT]
    dweight_rows = dweight_ptr + b * dweight_stride_b + frame * dweight_stride_t + rows * dweight_stride_t
    if self_ptr is not None:
        own = load_parts(dy_rows + node[:, None], live, C, c, compute, True, EVEN, PARTS)
        frames = frame + row
        factor = tl.load(self_ptr + b * self_stride_b + frames * self_stride_t + j * self_stride_j, live, 0.0).to(compute)
        dx = add_parts(dx, factor, own)
        dself = dot_parts(own, x)
        tl.store(dself_ptr + b * dself_stride_b + frames * dself_stride_t + j * dself_stride_j, dself.to(dself_ptr.dtype.element_ty), written)

    first, slots = tl.load(ptr_ptr + j, there, 0), tl.load(ptr_ptr + j + 1, there, 0) - tl.load(ptr_ptr + j, there, 0)
    fours = 0
    if (t0 >= hops) & (t0 + BT + hops <= length):
        fours = tl.min(tl.where(there, slots, 1 << 30)) // 4 * 4
        for s in range(0, fours, 4):
            dots: tl.tuple = ()
            places: tl.tuple = ()
            for u in tl.static_range(4):
                p = tl.load(order_ptr + first + (s + u))
                offset = tl.load(offset_ptr + p).to(INDEX)
                dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset * dy_stride_t)[:, None]
                dy = load_parts(dy_at, live, C, c, compute, False, EVEN, PARTS)
                weight = tl.load(weight_rows + (p.to(INDEX) * weight_stride_p - offset * weight_stride_t)).to(compute)
                dx = add_parts(dx, weight, dy)
                dots += (dot_parts(dy, x),)
                places += (p.to(INDEX) * dweight_stride_p - offset * dweight_stride_t,)
            four, place = _four(dots), _four(places)
            tl.store(dweight_rows[:, None] + place, four.to(dweight_ptr.dtype.element_ty), there[:, None])
    around = (hops // T + 1) * T
    for s in range(fours, tl.max(slots)):  # with masks: at a walk's ends, and what is left of fours or of the group's other joints
        has = s < slots
        p = tl.load(order_ptr + first + s, has, 0)
        offset = tl.load(offset_ptr + p)
        target = t - offset
        exists = has & (target >= 0) & (target < length) & (t < length)
        dy_at = dy_rows + (tl.load(dst_ptr + p).to(INDEX) * C - offset.to(INDEX) * dy_stride_t)[:, None]
        dy = load_parts(dy_at, exists, C, c, compute, True, EVEN, PARTS)
        weight = tl.load(weight_rows + (p.to(INDEX) * weight_stride_p - offset.to(INDEX) * weight_stride_t), exists, 0.0).to(compute)
        dx = add_parts(dx, weight, dy)
        # Around the walk's ends: so the edges whose sender would be beyond them, and which no program has, are written too.
        end = (target + around) % T
        dot = tl.where(exists, dot_parts(dy, x), 0.0).to(dweight_ptr.dtype.element_ty)
        tl.store(dweight_rows + (p.to(INDEX) * dweight_stride_p + (end - t).to(INDEX) * dweight_stride_t), dot, has & (t < T))
    dx_rows = dx_ptr + b * dx_stride_b + frame * dx_stride_t + ((rows * dx_stride_t + node)[:, None] + c)
    store_parts(dx_rows, dx, written, C, c, EVEN)


@triton.jit
def _four(values):
    """[N] four times -> [N, 4]"""
    return tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3])).reshape(values[0].shape[0], 4)


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernel of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels."""
    B, T, C, kind = 8, 60, 64, DTYPES[dtype]
    J, P = graph.num_joints, graph.num_slots
    x, weight, own = (torch.empty(shape, dtype=kind, device="meta") for shape in ((B, T, J, C), (B, P, T), (B, T, J)))
    settled = _settle((x, x, weight, own, x, weight, own), graph.index, graph.hops)
    pointers = {"slots_ptr": torch.int32, "bounds_ptr": torch.int32, "lengths_ptr": torch.int64}
    arguments = {name: {**pointers, **settled.numbers}.get(name, kind) for name in _propagate_backward.arg_names}
    BT, features, edges, nodes = settled.numbers["BT"], x.nbytes, weight.nbytes, own.nbytes
    least = 3 * features + 2 * edges + 2 * nodes
    moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
    window = feature_bytes(graph, BT, C * kind.itemsize, True, settled.numbers["GROUP"])
    return [
        Compilation(
            "propagate backward", _propagate_backward, arguments, settled.options["num_warps"], f"B={B} T={T} k={graph.hops} C={C}", settled.programs,
            moved, least, window, settled.options["maxnreg"],
        )
    ]  # fmt: skip
