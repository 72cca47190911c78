"""The attention weights of GATv2 on the GPU, edge by edge: see `fastst.ops.attention_weights`.

A program has one head of one joint in a tile of frames and goes over the joint's slots, several at a time: a row of its tiles is a slot in a frame,
so that an edge list, which has one frame, fills them with slots. α is written first as scores, which the same program reads again when their sum is
known. The backward goes over the slots into every node, then over those out of it, and for the gradient of features over the slots themselves; each
program writes only to what is its own, and an edge brings one number from one pass to the next.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.index import bound_rows, row_strides, slot_rows, walk_length
from csrc_triton.launch import Settled, launch, launch_options
from csrc_triton.products import strides_of
from fastst.graph_index import GraphIndex

_TILE = 1024  # numbers, of four warps: with five tiles at once more would need more registers than there are
_FRAMES = 16  # of a tile


def attention_weights(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
) -> tuple[Tensor, Tensor]:
    """α and log Σ w exp of the scores into every node (-inf where all w are 0).  # [B, heads, P, T], [B, T, J, heads] in at least float32"""
    x_src, x_dst, att, edge_attr, edge_weight = _contiguous(x_src, x_dst, att, edge_attr, edge_weight)
    (B, T, J, _), heads = x_src.shape, len(att)
    compute = torch.promote_types(x_src.dtype, torch.float32)
    alpha = torch.empty(B, heads, index.num_slots, T, dtype=compute, device=x_src.device)
    log_sum = torch.empty(B, T, J, heads, dtype=compute, device=x_src.device)
    numbers = _numbers(x_src, att, edge_attr, index, negative_slope)
    pointers = (x_src, x_dst, att, edge_attr, edge_weight, alpha, log_sum, lengths, index.slots, index.bounds)
    launch(_weights, pointers, _key(x_src, numbers), lambda: Settled(_programs(x_src, att), numbers, launch_options(num_warps=_num_warps(att))))
    return alpha, log_sum


def attention_weights_backward(
    dalpha: Tensor,
    alpha: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
    wants_attr: bool,
    most: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of x_src, x_dst, att, edge_attr and the weights, the last two where wanted. most: the largest exponent in that of the weights."""
    dalpha, alpha, log_sum, x_src, x_dst, att, edge_attr = _contiguous(dalpha, alpha, log_sum, x_src, x_dst, att, edge_attr)
    J, (H, W) = x_src.shape[2], att.shape
    dsrc, ddst, dscores = torch.empty_like(x_src), torch.empty_like(x_dst), torch.empty_like(alpha)
    dweight = None if most is None else torch.empty_like(alpha)  # head by head
    programs, numbers = _programs(x_src, att), _numbers(x_src, att, edge_attr, index, negative_slope)
    partial = torch.empty(programs, W, dtype=alpha.dtype, device=alpha.device)  # every program's part of datt
    options, graph = launch_options(num_warps=_num_warps(att)), (lengths, index.slots, index.bounds)
    given, limited = (x_src, x_dst, att, edge_attr), {"most": most or 0.0, **numbers}
    pointers = (*given, dalpha, alpha, log_sum, dscores, dweight, ddst, partial, *graph)
    launch(_receivers, pointers, _key(x_src, limited), lambda: Settled(programs, limited, options))
    launch(_senders, (*given, dscores, dsrc, *graph), _key(x_src, numbers), lambda: Settled(programs, numbers, options))
    dattr = None
    if edge_attr is not None and wants_attr:
        dattr = torch.empty_like(edge_attr)
        of_edges = _numbers_of_edges(x_src, edge_attr, numbers)
        settled = Settled(_programs_of_edges(edge_attr, H, of_edges), of_edges, options)
        launch(_features_of_edges, (*given, dscores, dattr, *graph), _key(x_src, of_edges), lambda: settled)
    datt = partial.view(-1, H, J, W).sum((0, 2)) if partial.numel() else partial.new_zeros(H, W)
    return dsrc, ddst, datt, dattr, None if dweight is None else dweight.sum(1)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _key(x_src: Tensor, numbers: dict[str, Any]) -> tuple[Any, ...]:
    return x_src.shape, *numbers.values()


def _numbers(x_src: Tensor, att: Tensor, edge_attr: Tensor | None, index: GraphIndex, negative_slope: float) -> dict[str, Any]:
    (_, T, J, _), (H, W) = x_src.shape, att.shape
    BW = triton.next_power_of_2(W)
    rows = max(1, _TILE // BW)
    BT = min(rows, _FRAMES, triton.next_power_of_2(max(T, 1)))
    slots_row, bounds_row = row_strides(index)
    strides: tuple[int, ...] = (0, 0, 0)
    if edge_attr is not None:  # 0 where walks or frames share their features
        strides = tuple(0 if size == 1 else stride for size, stride in zip(edge_attr.shape[:3], edge_attr.stride()[:3], strict=True))
    return {
        "negative_slope": negative_slope, "T": T, "J": J, "P": index.num_slots, "tiles": triton.cdiv(T, BT), "slots_row": slots_row,
        "bounds_row": bounds_row, **strides_of("attr", strides, "bpt"), "H": H, "W": W, "BS": rows // BT, "BT": BT, "BW": BW,
    }  # fmt: skip


def _numbers_of_edges(x_src: Tensor, edge_attr: Tensor, numbers: dict[str, Any]) -> dict[str, Any]:
    walks, _, frames, _ = edge_attr.shape
    return {**numbers, "B": x_src.shape[0], "ONE_WALK": walks == 1, "ONE_FRAME": frames == 1}


def _programs(x_src: Tensor, att: Tensor) -> int:
    (B, T, J, _), (H, W) = x_src.shape, att.shape
    BT = min(max(1, _TILE // triton.next_power_of_2(W)), _FRAMES, triton.next_power_of_2(max(T, 1)))
    return B * triton.cdiv(T, BT) * H * J


def _programs_of_edges(edge_attr: Tensor, H: int, numbers: dict[str, Any]) -> int:
    walks, P, frames, _ = edge_attr.shape
    return walks * triton.cdiv(frames, numbers["BT"]) * H * triton.cdiv(P, numbers["BS"])


def _num_warps(att: Tensor) -> int:
    return min(16, max(4, triton.next_power_of_2(att.shape[1]) // 256))


@triton.jit
def _place(lengths_ptr, T, J, tiles, H: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr):
    """Walk, head and joint of a program, the frame and the slot of its rows, and the walk's length.  # [BS * BT] where not one number"""
    program = tl.program_id(0)
    b = (program // J // H // tiles).to(tl.int64)
    n = tl.arange(0, BS * BT)
    t = program // J // H % tiles * BT + n % BT
    return b, program // J % H, (program % J).to(tl.int64), t, n // BT, walk_length(lengths_ptr, b, T)


@triton.jit
def _rows(ptr, at, exists, compute: tl.constexpr, W: tl.constexpr, BW: tl.constexpr):
    """Rows of W channels; 0 where they don't exist.  # [N] -> [N, BW]"""
    c = tl.arange(0, BW)[None, :]
    inside = exists[:, None] if W == BW else exists[:, None] & (c < W)
    return tl.load(ptr + at[:, None] + c, inside, 0.0).to(compute)


@triton.jit
def _row_of_att(att_ptr, h, compute: tl.constexpr, W: tl.constexpr, BW: tl.constexpr):
    c = tl.arange(0, BW)
    return tl.load(att_ptr + h * W + c, c < W, 0.0).to(compute)[None, :]


@triton.jit
def _with_features(hidden, attr_ptr, at, exists, W: tl.constexpr, BW: tl.constexpr):
    """hidden + the features of edges, if they have any."""
    if attr_ptr is not None:
        hidden += _rows(attr_ptr, at, exists, hidden.dtype, W, BW)
    return hidden


@triton.jit
def _sum_over_slots(x, BS: tl.constexpr, BT: tl.constexpr):
    """Σ over the rows of a frame, for all of them.  # [BS * BT]"""
    if BS > 1:
        x = tl.sum(x.reshape(BS, BT), 0, keep_dims=True).broadcast_to(BS, BT).reshape(BS * BT)
    return x


@triton.jit
def _store_over_slots(ptr, x, row, exists, W: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr):
    """Σ over the rows of a frame to one row for each.  # x [BS * BT, BW]; row, exists [BT]"""
    c = tl.arange(0, BW)[None, :]
    total = tl.sum(x.reshape(BS, BT, BW), 0) if BS > 1 else x
    tl.store(ptr + row[:, None] + c, total.to(ptr.dtype.element_ty), exists[:, None] & (c < W))


@triton.jit
def _weights(
    x_src_ptr, x_dst_ptr, att_ptr, attr_ptr, weight_ptr, alpha_ptr, log_sum_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    negative_slope: tl.float64, T, J, P, tiles, slots_row, bounds_row, attr_stride_b, attr_stride_p, attr_stride_t,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    b, h, j, t, member, length = _place(lengths_ptr, T, J, tiles, H, BS, BT)
    neighbour_ptr, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, _, _ = bound_rows(bounds_ptr, bounds_row)
    compute: tl.constexpr = alpha_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    inside, row = t < length, ((b * T + t) * J + j) * H + h
    y, att = _rows(x_dst_ptr, row * W, inside, compute, W, BW), _row_of_att(att_ptr, h, compute, W, BW)
    largest, total = tl.full([BS * BT], float("-inf"), compute), tl.zeros([BS * BT], compute)
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    for s in range(first, last, BS):
        has = s + member < last
        p = tl.load(order_ptr + s + member, has, 0).to(tl.int64)
        source = t + tl.load(offset_ptr + p)
        exists = has & inside & (source >= 0) & (source < length)
        x_at = (((b * T + source) * J + tl.load(neighbour_ptr + p)) * H + h) * W
        hidden = _rows(x_src_ptr, x_at, exists, compute, W, BW) + y
        hidden = _with_features(hidden, attr_ptr, b * attr_stride_b + p * attr_stride_p + t * attr_stride_t + h * W, exists, W, BW)
        score = tl.sum(tl.where(hidden > 0, hidden, hidden * slope) * att, 1)
        if weight_ptr is not None:
            weight = tl.load(weight_ptr + (b * P + p) * T + t, exists, 0.0).to(compute)
            score = tl.where(weight == 0, float("-inf"), score + tl.log(weight))
        score = tl.where(exists, score, float("-inf"))
        tl.store(alpha_ptr + ((b * H + h) * P + p) * T + t, score, has & (t < T))
        before, largest = largest, tl.maximum(largest, score)
        shift = tl.where(largest == float("-inf"), 0.0, largest)
        total = total * tl.exp(before - shift) + tl.exp(score - shift)
    if BS > 1:
        of_member, largest = largest, tl.max(largest.reshape(BS, BT), 0, keep_dims=True).broadcast_to(BS, BT).reshape(BS * BT)
        shift = tl.where(largest == float("-inf"), 0.0, largest)
        total = _sum_over_slots(total * tl.exp(of_member - shift), BS, BT)
    none = total == 0  # all weights may be 0
    log_sum = tl.where(none, float("-inf"), largest + tl.log(tl.where(none, 1.0, total)))
    tl.store(log_sum_ptr + row, log_sum, (member == 0) & (t < T))
    log_sum = tl.where(none, 0.0, log_sum)
    tl.debug_barrier()  # a score need not be read by the thread that wrote it
    for s in range(first, last, BS):
        has = s + member < last
        at = alpha_ptr + ((b * H + h) * P + tl.load(order_ptr + s + member, has, 0)) * T + t
        there = has & (t < T)
        tl.store(at, tl.exp(tl.load(at, there, 0.0) - log_sum), there)


@triton.jit
def _receivers(
    x_src_ptr, x_dst_ptr, att_ptr, attr_ptr, dalpha_ptr, alpha_ptr, log_sum_ptr, dscores_ptr, dweight_ptr, ddst_ptr, partial_ptr,
    lengths_ptr, slots_ptr, bounds_ptr,
    most: tl.float64, negative_slope: tl.float64, T, J, P, tiles, slots_row, bounds_row, attr_stride_b, attr_stride_p, attr_stride_t,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """dscore = α (dα - Σ α dα), ddst = att Σ dscore LeakyReLU', datt = Σ dscore LeakyReLU, and of the weights exp(score - log sum) (dα - Σ α dα)."""
    b, h, j, t, member, length = _place(lengths_ptr, T, J, tiles, H, BS, BT)
    neighbour_ptr, _, offset_ptr, order_ptr, _ = slot_rows(slots_ptr, slots_row)
    ptr_ptr, _, _, _, _ = bound_rows(bounds_ptr, bounds_row)
    compute: tl.constexpr = alpha_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    inside, row = t < length, ((b * T + t) * J + j) * H + h
    y, att = _rows(x_dst_ptr, row * W, inside, compute, W, BW), _row_of_att(att_ptr, h, compute, W, BW)
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    mean = tl.zeros([BS * BT], compute)
    for s in range(first, last, BS):
        has = s + member < last
        p = tl.load(order_ptr + s + member, has, 0).to(tl.int64)
        source, at = t + tl.load(offset_ptr + p), ((b * H + h) * P + p) * T + t
        exists = has & inside & (source >= 0) & (source < length)
        mean += tl.load(alpha_ptr + at, exists, 0.0) * tl.load(dalpha_ptr + at, exists, 0.0).to(compute)
    mean = _sum_over_slots(mean, BS, BT)
    sum_slope, datt = tl.zeros([BS * BT, BW], compute), tl.zeros([BS * BT, BW], compute)
    for s in range(first, last, BS):
        has = s + member < last
        p = tl.load(order_ptr + s + member, has, 0).to(tl.int64)
        source, at = t + tl.load(offset_ptr + p), ((b * H + h) * P + p) * T + t
        exists = has & inside & (source >= 0) & (source < length)
        x_at = (((b * T + source) * J + tl.load(neighbour_ptr + p)) * H + h) * W
        hidden = _rows(x_src_ptr, x_at, exists, compute, W, BW) + y
        hidden = _with_features(hidden, attr_ptr, b * attr_stride_b + p * attr_stride_p + t * attr_stride_t + h * W, exists, W, BW)
        factor = tl.where(hidden > 0, 1.0, slope)
        active = hidden * factor
        differs = tl.load(dalpha_ptr + at, exists, 0.0).to(compute) - mean
        dscore = tl.load(alpha_ptr + at, exists, 0.0) * differs
        tl.store(dscores_ptr + at, dscore, has & (t < T))
        sum_slope += dscore[:, None] * factor
        datt += dscore[:, None] * active
        if dweight_ptr is not None:
            log_sum = tl.load(log_sum_ptr + row, inside, float("-inf"))
            power = tl.minimum(tl.sum(active * att, 1) - log_sum, tl.full([], most, compute))
            dweight = tl.where(exists & (log_sum != float("-inf")), tl.exp(power) * differs, 0.0)
            tl.store(dweight_ptr + at, dweight, has & (t < T))
    frame = t if BS == 1 else tl.max(t.reshape(BS, BT), 0)
    rows = (((b * T + frame) * J + j) * H + h) * W
    _store_over_slots(ddst_ptr, sum_slope * att, rows, frame < T, W, BS, BT, BW)
    c = tl.arange(0, BW)
    tl.store(partial_ptr + tl.program_id(0).to(tl.int64) * W + c, tl.sum(datt, 0), c < W)


@triton.jit
def _senders(
    x_src_ptr, x_dst_ptr, att_ptr, attr_ptr, dscores_ptr, dsrc_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    negative_slope: tl.float64, T, J, P, tiles, slots_row, bounds_row, attr_stride_b, attr_stride_p, attr_stride_t,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """dsrc = att Σ dscore LeakyReLU' over the edges out of the nodes."""
    b, h, j, source, member, length = _place(lengths_ptr, T, J, tiles, H, BS, BT)
    _, neighbour_ptr, offset_ptr, _, order_ptr = slot_rows(slots_ptr, slots_row)
    _, ptr_ptr, _, _, _ = bound_rows(bounds_ptr, bounds_row)
    compute: tl.constexpr = dscores_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    inside, row = source < length, ((b * T + source) * J + j) * H + h
    x, att = _rows(x_src_ptr, row * W, inside, compute, W, BW), _row_of_att(att_ptr, h, compute, W, BW)
    sum_slope = tl.zeros([BS * BT, BW], compute)
    first, last = tl.load(ptr_ptr + j), tl.load(ptr_ptr + j + 1)
    for s in range(first, last, BS):
        has = s + member < last
        p = tl.load(order_ptr + s + member, has, 0).to(tl.int64)
        t = source - tl.load(offset_ptr + p)
        exists = has & inside & (t >= 0) & (t < length)
        y_at = (((b * T + t) * J + tl.load(neighbour_ptr + p)) * H + h) * W
        hidden = _rows(x_dst_ptr, y_at, exists, compute, W, BW) + x
        hidden = _with_features(hidden, attr_ptr, b * attr_stride_b + p * attr_stride_p + t * attr_stride_t + h * W, exists, W, BW)
        dscore = tl.load(dscores_ptr + ((b * H + h) * P + p) * T + t, exists, 0.0)
        sum_slope += dscore[:, None] * tl.where(hidden > 0, 1.0, slope)
    frame = source if BS == 1 else tl.max(source.reshape(BS, BT), 0)
    rows = (((b * T + frame) * J + j) * H + h) * W
    _store_over_slots(dsrc_ptr, sum_slope * att, rows, frame < T, W, BS, BT, BW)


@triton.jit
def _features_of_edges(
    x_src_ptr, x_dst_ptr, att_ptr, attr_ptr, dscores_ptr, dattr_ptr, lengths_ptr, slots_ptr, bounds_ptr,
    negative_slope: tl.float64, T, J, P, tiles, slots_row, bounds_row, attr_stride_b, attr_stride_p, attr_stride_t,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
    B, ONE_WALK: tl.constexpr, ONE_FRAME: tl.constexpr,
):  # fmt: skip
    """dattr = att Σ dscore LeakyReLU' over the walks and frames that share their features; a program has BS slots."""
    src_ptr, dst_ptr, offset_ptr, _, _ = slot_rows(slots_ptr, slots_row)
    program = tl.program_id(0)
    pieces = tl.cdiv(P, BS)
    h = program // pieces % H
    tile = program // pieces // H
    n = tl.arange(0, BS * BT)
    p = (program % pieces * BS + n // BT).to(tl.int64)
    has = p < P
    compute: tl.constexpr = dscores_ptr.dtype.element_ty
    slope, att = tl.full([], negative_slope, compute), _row_of_att(att_ptr, h, compute, W, BW)
    offset, src, dst = tl.load(offset_ptr + p, has, 0), tl.load(src_ptr + p, has, 0), tl.load(dst_ptr + p, has, 0)
    walk = 0 if ONE_WALK else (tile if ONE_FRAME else tile // tiles)
    tile = 0 if ONE_FRAME else tile % tiles
    total = tl.zeros([BS * BT, BW], compute)
    for walk_read in range(walk, B if ONE_WALK else walk + 1):
        b = tl.full([], 0, tl.int64) + walk_read
        length = walk_length(lengths_ptr, b, T)
        for tile_read in range(tile, tiles if ONE_FRAME else tile + 1):
            t = tile_read * BT + n % BT
            source = t + offset
            exists = has & (t < length) & (source >= 0) & (source < length)
            hidden = _rows(x_src_ptr, (((b * T + source) * J + src) * H + h) * W, exists, compute, W, BW)
            hidden += _rows(x_dst_ptr, (((b * T + t) * J + dst) * H + h) * W, exists, compute, W, BW)
            hidden = _with_features(hidden, attr_ptr, b * attr_stride_b + p * attr_stride_p + t * attr_stride_t + h * W, exists, W, BW)
            dscore = tl.load(dscores_ptr + ((b * H + h) * P + p) * T + t, exists, 0.0)
            total += dscore[:, None] * tl.where(hidden > 0, 1.0, slope)
    total *= att
    c = tl.arange(0, BW)[None, :]
    if ONE_FRAME:
        slot = program % pieces * BS + tl.arange(0, BS)
        row = ((tl.full([], 0, tl.int64) + walk) * P + slot) * H + h
        sums = tl.sum(total.reshape(BS, BT, BW), 1) if BT > 1 else total
        tl.store(dattr_ptr + row[:, None] * W + c, sums.to(dattr_ptr.dtype.element_ty), (slot < P)[:, None] & (c < W))
    else:
        t = tile * BT + n % BT
        row = (((tl.full([], 0, tl.int64) + walk) * P + p) * T + t) * H + h
        tl.store(dattr_ptr + row[:, None] * W + c, total.to(dattr_ptr.dtype.element_ty), (has & (t < T))[:, None] & (c < W))


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels in 4 heads, with features and
    weights of all edges."""
    B, T, H, W = 8, 60, 4, 16
    J, P, kind, index = graph.num_joints, graph.num_slots, DTYPES[dtype], graph.index
    x, att = torch.empty(B, T, J, H * W, dtype=kind, device="meta"), torch.empty(H, W, dtype=kind, device="meta")
    attr = torch.empty(B, P, T, H * W, dtype=kind, device="meta")
    numbers = _numbers(x, att, attr, index, 0.2)
    of_edges = _numbers_of_edges(x, attr, numbers)
    known: dict[str, Any] = dict.fromkeys(("x_src_ptr", "x_dst_ptr", "att_ptr", "attr_ptr", "weight_ptr", "ddst_ptr", "dsrc_ptr", "dattr_ptr"), kind)
    known |= dict.fromkeys(("alpha_ptr", "dalpha_ptr", "log_sum_ptr", "dscores_ptr", "dweight_ptr", "partial_ptr"), torch.float32)
    known |= {"lengths_ptr": torch.int64, "slots_ptr": torch.int32, "bounds_ptr": torch.int32, "most": 44.0}
    per_edge, weights, per_row, features = B * H * P * T * 4, B * P * T * kind.itemsize, B * T * J * H * 4, x.nbytes
    programs = _programs(x, att)
    bytes_of = {  # every input once and every output once
        "attention weights": (_weights, 2 * features + attr.nbytes + weights + per_edge + per_row, 2 * per_edge),
        "attention weights backward (receivers)": (_receivers, 3 * features + attr.nbytes + 4 * per_edge + per_row + programs * W * 4, 2 * per_edge),
        "attention weights backward (senders)": (_senders, 3 * features + attr.nbytes + per_edge, 0),
        "attention weights backward (features of edges)": (_features_of_edges, 2 * features + 2 * attr.nbytes + per_edge, 0),
    }
    found = []
    for name, (kernel, least, again) in bytes_of.items():
        given = known | (of_edges if kernel is _features_of_edges else numbers)
        count = _programs_of_edges(attr, H, of_edges) if kernel is _features_of_edges else programs
        work = f"B={B} T={T} k={graph.hops} C={H * W} heads={H}"
        arguments = {argument: given[argument] for argument in kernel.arg_names}
        found.append(Compilation(name, kernel, arguments, _num_warps(att), work, count, least + again, least))
    return found
