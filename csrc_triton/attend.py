"""GATv2 attention on the GPU: scores, softmax and sum of a node in one pass over its slots, with nothing of edge size stored.

A row is a head of a node: `heads` rows follow one another in memory, and the rows of one joint in neighbouring frames lie J rows of C apart. Tiles
are [parts of a row, rows, channels of a part]; the parts lie in one thread, which so needs fewer steps of adding up across threads and makes fewer
scores twice. Away from a walk's ends all rows have all edges: there a loop without masks takes four slots at a time, whose loads the compiler brings
forward, and one with masks, two at a time, what is left. What a slot adds to an address is the same for all rows. Where there are few rows, as in an
edge list, groups of threads have slots of their own and add up at the end. No row is read that a joint's slots don't ask for; the joints of a
tile of frames are neighbours in the grid and share the tile's window of frames through the caches.

The backward passes over the slots into every node (gradients of the receivers and of att) and over those out of it (gradients of the senders);
each program writes only to the nodes that it goes over. α is found again from the logarithm of the sum that the forward stores.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.launch import launch_options, on_device_of, parts_of_a_row
from csrc_triton.products import feature_bytes, frames_read
from fastst.graph import GraphIndex, SkeletonGraph

_FAR = tl.constexpr(1 << 30)  # a frame out of every slot's reach
# Chips have an instruction for powers of two, so scores are multiplied by this, in every kernel in the same way: α is a difference of large numbers.
_LOG2_E = tl.constexpr(math.log2(math.e))
_HALF = tl.constexpr(1 << 29)  # an offset that leads nowhere, from there neither
_FORWARD_REGISTERS, _BACKWARD_REGISTERS = 96, 128  # of a thread in float32, for four or more 16-byte loads in flight


def attend(
    x_src: Tensor, x_dst: Tensor, att: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """y = Σ α x_src, α the softmax of att · LeakyReLU(x_src[from] + x_dst[to]), and log2 Σ exp of these scores (-inf without edges).

    `[B, T, J, C]` in x_src's dtype and `[B, T, J, heads]` in float32, or float64 for float64. What is of lower precision is read as it is.
    """
    x_src, x_dst, att = x_src.contiguous(), x_dst.contiguous(), att.contiguous()
    B, T, J, _ = x_src.shape
    H, W = att.shape
    y = torch.empty_like(x_src)
    log_sum = torch.empty(B, T, J, H, dtype=torch.promote_types(x_src.dtype, torch.float32), device=x_src.device)
    tile = _tile(T, J, H, W, x_src.element_size())
    with on_device_of(x_src.device):
        _attend[_grid(B, T, J, H, tile)](
            x_src, x_dst, att, y, log_sum, lengths, index.dst_ptr, index.sender_frames, index.sender_nodes, negative_slope, T, J, hops,
            H, W, GENTLE=_is_gentle(negative_slope), **_bounded(tile, _FORWARD_REGISTERS, log_sum.dtype),
        )  # fmt: skip
    return y, log_sum


def attend_backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    index: GraphIndex,
    hops: int,
    lengths: Tensor | None,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x_src, x_dst and att, from dy and what `attend` returned."""
    dy, y, log_sum, x_src, x_dst, att = (x.contiguous() for x in (dy, y, log_sum, x_src, x_dst, att))
    B, T, J, _ = x_src.shape
    H, W = att.shape
    dsrc, ddst, datt = torch.empty_like(x_src), torch.empty_like(x_dst), torch.empty_like(att)
    tile = _tile(T, J, H, W, x_src.element_size())
    grid = _grid(B, T, J, H, tile)
    mean = torch.empty_like(log_sum)  # Σ α dα over the edges into a node, which is y · dy
    partial = torch.empty(*grid, H, W, dtype=log_sum.dtype, device=log_sum.device)  # every program's part of datt
    options = _bounded(tile, _BACKWARD_REGISTERS, log_sum.dtype)
    columns: dict[str, Any] = {"BC": 4, "BN": 1024, **launch_options(num_warps=8)}
    with on_device_of(x_src.device):
        _attend_receivers[grid](
            x_src, x_dst, att, dy, y, log_sum, mean, ddst, partial, lengths, index.dst_ptr, index.sender_frames, index.sender_nodes,
            negative_slope, T, J, hops, H, W, **options,
        )  # fmt: skip
        _attend_senders[grid](
            x_src, x_dst, att, dy, log_sum, mean, dsrc, lengths, index.src_ptr, index.receiver_frames, index.receiver_nodes,
            negative_slope, T, J, hops, H, W, **options,
        )  # fmt: skip
        _sum_rows[(triton.cdiv(H * W, columns["BC"]),)](partial, datt, *grid, H * W, **columns)
    return dsrc, ddst, datt


def _tile(T: int, J: int, H: int, W: int, itemsize: int) -> dict[str, Any]:
    """BR rows of BW channels by four slots: 32 channels a thread, which are eight loads of 16 bytes in float32."""
    BW = triton.next_power_of_2(W)
    # Of att's gradient every program leaves all heads, so with fewer rows than heads that would be more than the features.
    most = min(max(min(1024 // BW, 128), triton.next_power_of_2(H)), max(2048 // BW, 1))
    BR = min(most, max(triton.next_power_of_2(T * H), 1))
    # A row a thread where rows are short, and 16 channels where warps share a long row: else registers run out.
    num_warps = max(BR // 32, 1) if BW < 8 else min(max(BR * BW // (256 if BW < 256 else 128), 1), 16)
    groups = min(max(256 // (BR * BW), 1), 4) if num_warps == 1 else 1  # few rows, as in an edge list, leave room for more slots
    parts = parts_of_a_row(BW * itemsize, groups * BR * BW * itemsize, num_warps)
    return {"BS": 4, "GROUPS": groups, "PARTS": parts, "BR": BR, "BW": BW, **launch_options(num_warps=num_warps)}


def _is_gentle(negative_slope: float) -> bool:
    """Whether LeakyReLU(x) is the larger of x and negative_slope · x, infinities included."""
    return negative_slope <= 1 and negative_slope != 0


def _bounded(tile: dict[str, Any], registers: int, compute: torch.dtype) -> dict[str, Any]:
    return tile | launch_options(num_warps=tile["num_warps"], max_registers=registers if compute == torch.float32 else None)


def _grid(B: int, T: int, J: int, H: int, tile: dict[str, Any]) -> tuple[int]:
    return (B * J * triton.cdiv(T * H, tile["BR"]),)


@triton.jit
def _rows(lengths_ptr, T, J, hops, H: tl.constexpr, W: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr):
    """Of this program: the joint, its rows, their frames, heads, groups [N], where their channels are and which there are, the walk's length, and
    whether all rows have all edges.

    N is GROUPS * BR: every group has all the rows, for slots of its own. Channels are [PARTS, N, BW / PARTS]: the parts of a row lie in one thread.
    A frame that the walk does not have is one that no slot reaches.
    """
    program = tl.program_id(0)
    j = (program % J).to(tl.int64)
    tiles = tl.cdiv(T * H, BR)
    b = (program // J // tiles).to(tl.int64)
    n = tl.arange(0, GROUPS * BR)
    r0 = program // J % tiles * BR
    r = r0 + n % BR
    frame, head = r // H, r % H
    length = T
    if lengths_ptr is not None:
        length = tl.maximum(tl.minimum(tl.load(lengths_ptr + b), T), 0).to(tl.int32)
    row = ((b * T + frame) * J + j) * H + head
    c = _channels(PARTS, BW)
    inside = (frame < T)[None, :, None]
    if W != BW:
        inside = inside & (c < W)
    inner = (r0 // H >= hops) & ((r0 + BR - 1) // H + hops < length)
    return j, row, frame, head, n // BR, tl.where(frame < length, frame, _FAR), row[None, :, None] * W + c, inside, length, inner


@triton.jit
def _channels(PARTS: tl.constexpr, BW: tl.constexpr):
    return tl.arange(0, PARTS)[:, None, None] * (BW // PARTS) + tl.arange(0, BW // PARTS)[None, None, :]


@triton.jit
def _dot(a, b):
    """Σ a b over the channels of a row; those that lie in one thread in a chain of multiply-adds, where a sum would be a tree of additions.

    [PARTS, N, BW / PARTS] twice -> [N]
    """
    a_pieces = _pieces(a)
    b_pieces = _pieces(b)
    total = a_pieces[0] * b_pieces[0]
    for i in tl.static_range(1, len(a_pieces)):
        total = tl.fma(a_pieces[i], b_pieces[i], total)
    return tl.sum(total, 1)


@triton.jit
def _pieces(x):
    """The channels of a thread apart from one another: the parts, and in each of them every four that follow one another.

    [PARTS, N, C] -> PARTS * min(C, 4) times [N, max(C / 4, 1)]
    """
    if x.shape[0] == 2:
        first, second = x.permute(1, 2, 0).split()
        pieces = _apart(first) + _apart(second)
    else:
        pieces = _apart(x.reshape(x.shape[1], x.shape[2]))
    return pieces


@triton.jit
def _apart(x):
    N: tl.constexpr = x.shape[0]
    C: tl.constexpr = x.shape[1]
    if C >= 4:
        even, odd = x.reshape(N, C // 4, 2, 2).split()
        pieces = even.split() + odd.split()
    elif C == 2:
        pieces = x.reshape(N, 1, 2).split()
    else:
        pieces = (x,)
    return pieces


@triton.jit
def _over_groups(x, GROUPS: tl.constexpr):
    """Σ over the groups, for every one of them.  # [PARTS, N, BW / PARTS]"""
    if GROUPS > 1:
        apart = x.reshape(x.shape[0], GROUPS, x.shape[1] // GROUPS, x.shape[2])
        x = tl.sum(apart, 1, keep_dims=True).broadcast_to(apart.shape).reshape(x.shape)
    return x


@triton.jit
def _first_and_end(ptr_ptr, j):
    """Where the slots of a joint begin in the tables of other ends, and the place behind them: see `GraphIndex`."""
    first = tl.load(ptr_ptr + j)
    begin = tl.multiple_of((first + 3 * j.to(tl.int32)) & -4, 4)
    return begin, begin + (tl.load(ptr_ptr + j + 1) - first)


@triton.jit
def _slots(s, last, frames_ptr, nodes_ptr, group, t, length, MASKED: tl.constexpr, BS: tl.constexpr, H: tl.constexpr):
    """Of BS slots of every group, from slot s on: by how many rows their other ends follow those of the frame's first node, and which edges exist.

    `group` is one number [1], or one for each row [N], and so are the rows. Without masks BS is 4, and callers move `nodes_ptr` instead of s: of s,
    compilers make a counter of 64 bits.
    """
    rows: tl.tuple = ()
    there: tl.tuple = ()
    if MASKED:
        for u in tl.static_range(BS):
            slot = s + group * BS + u
            place = tl.minimum(slot, last - 1)
            frames = tl.where(slot < last, tl.load(frames_ptr + place), _HALF)
            there += ((t + frames).to(tl.uint32) < length.to(tl.uint32),)
            rows += (tl.load(nodes_ptr + place).to(tl.int64) * H,)
    else:
        nodes = _apart(tl.load(nodes_ptr + (group[:, None] * BS + tl.arange(0, BS)[None, :])))  # one load: rows begin at multiples of four
        for u in tl.static_range(BS):
            there += (group >= 0,)
            rows += (nodes[u].reshape(group.shape[0]).to(tl.int64) * H,)
    return rows, there


@triton.jit
def _places(rows, W: tl.constexpr):
    return (rows * W)[None, :, None]


@triton.jit
def _load(ptr, exists, MASKED: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr, BW: tl.constexpr):
    """The channels of rows; 0 where there is no edge.  # [PARTS, N, BW / PARTS]"""
    if W != BW:
        channels = _channels(PARTS, BW) < W
        x = tl.load(ptr, channels & exists[None, :, None] if MASKED else channels, 0.0)
    elif MASKED:
        x = tl.load(ptr, exists[None, :, None], 0.0)
    else:
        x = tl.load(ptr)
    return x


@triton.jit
def _attend(
    x_src_ptr, x_dst_ptr, att_ptr, y_ptr, log_sum_ptr, lengths_ptr, ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, GENTLE: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    j, row, frame, head, group, t, at, inside, length, inner = _rows(lengths_ptr, T, J, hops, H, W, GROUPS, PARTS, BR, BW)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    live = inside & (frame < length)[None, :, None]
    x_dst = tl.load(x_dst_ptr + at, live, 0.0).to(compute)
    att = tl.load(att_ptr + head[None, :, None] * W + _channels(PARTS, BW), inside, 0.0).to(compute) * _LOG2_E
    slope = tl.full([], negative_slope, compute)
    lowest: tl.constexpr = -1.7976931348623157e308 if compute == tl.float64 else -3.4028234663852886e38
    largest = tl.full([GROUPS * BR], lowest, compute)  # and not -inf, of which differences are no numbers
    total = tl.zeros([GROUPS * BR], compute)
    y = tl.zeros([PARTS, GROUPS * BR, BW // PARTS], compute)
    mine = group if GROUPS > 1 else tl.arange(0, 1)
    first, last = _first_and_end(ptr_ptr, j)
    masked_from = _unmasked_up_to(first, last, inner, BS * GROUPS)
    largest, total, y = _attend_slots(
        largest, total, y, 0, masked_from - first, last, x_src_ptr + (at - j * H * W), x_dst, att, slope, mine, frames_ptr, nodes_ptr + first, t,
        length, GENTLE, False, BS, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    largest, total, y = _attend_slots(
        largest, total, y, masked_from, last, last, x_src_ptr + (at - j * H * W), x_dst, att, slope, mine, frames_ptr, nodes_ptr, t, length,
        GENTLE, True, BS // 2, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    if GROUPS > 1:
        of_group = largest
        largest = tl.max(largest.reshape(GROUPS, BR), 0, keep_dims=True).broadcast_to(GROUPS, BR).reshape(GROUPS * BR)
        share = tl.exp2(of_group - largest)
        total = tl.sum((total * share).reshape(GROUPS, BR), 0, keep_dims=True).broadcast_to(GROUPS, BR).reshape(GROUPS * BR)
        y = _over_groups(y * share[None, :, None], GROUPS)
    none = total == 0
    total = tl.where(none, 1.0, total)  # without edges y is 0
    log_sum = tl.where(none, float("-inf"), largest + tl.log2(total))
    tl.store(y_ptr + at, y / total[None, :, None], inside)
    tl.store(log_sum_ptr + row, log_sum, frame < T)


@triton.jit
def _unmasked_up_to(first, last, inner, STEP: tl.constexpr):
    """The slots up to this one fill steps, and all rows have edges of them."""
    return tl.where(inner, first + (last - first) // STEP * STEP, first)


@triton.jit
def _attend_slots(
    largest, total, y, first, to, last, x_rows, x_dst, att, slope, mine, frames_ptr, nodes_ptr, t, length,
    GENTLE: tl.constexpr, MASKED: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    """The largest score, Σ exp2 and Σ exp2 x, both over the power of the largest score, with the slots from `first` to `to` added."""
    compute: tl.constexpr = y.dtype
    for s in range(first, to, BS * GROUPS):
        rows, there = _slots(s, last, frames_ptr, nodes_ptr, mine, t, length, MASKED, BS, H)
        if not MASKED:
            nodes_ptr += BS * GROUPS
        before = largest
        xs: tl.tuple = ()
        scores: tl.tuple = ()
        for u in tl.static_range(BS):
            x = _load(x_rows + _places(rows[u], W), there[u], MASKED, W, PARTS, BW).to(compute)
            hidden = x + x_dst
            active = tl.maximum(hidden, hidden * slope) if GENTLE else tl.where(hidden > 0, hidden, hidden * slope)
            score = _dot(active, att)
            if MASKED:
                score = tl.where(there[u], score, float("-inf"))
            largest = tl.maximum(largest, score)
            xs += (x,)
            scores += (score,)
        shrink = tl.exp2(before - largest)
        total *= shrink
        y *= shrink[None, :, None]
        for u in tl.static_range(BS):
            weight = tl.exp2(scores[u] - largest)
            total += weight
            y = tl.fma(weight[None, :, None].broadcast_to(y.shape), xs[u], y)
    return largest, total, y


@triton.jit
def _attend_receivers(
    x_src_ptr, x_dst_ptr, att_ptr, dy_ptr, y_ptr, log_sum_ptr, mean_ptr, ddst_ptr, partial_ptr, lengths_ptr,
    ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """ddst = att Σ dscore LeakyReLU', datt = Σ dscore LeakyReLU, with dscore = α (dy · x_src - mean), over the edges into the rows."""
    j, row, frame, head, group, t, at, inside, length, inner = _rows(lengths_ptr, T, J, hops, H, W, GROUPS, PARTS, BR, BW)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    live = inside & (frame < length)[None, :, None]
    x_dst = tl.load(x_dst_ptr + at, live, 0.0).to(compute)
    dy = tl.load(dy_ptr + at, live, 0.0).to(compute)
    att = tl.load(att_ptr + head[None, :, None] * W + _channels(PARTS, BW), inside, 0.0).to(compute)
    mean = _dot(dy, tl.load(y_ptr + at, live, 0.0).to(compute))
    tl.store(mean_ptr + row, mean, frame < T)
    log_sum = tl.load(log_sum_ptr + row, frame < length, 0.0)
    sum_slope = tl.zeros([PARTS, GROUPS * BR, BW // PARTS], compute)
    datt = tl.zeros([PARTS, GROUPS * BR, BW // PARTS], compute)
    mine = group if GROUPS > 1 else tl.arange(0, 1)
    first, last = _first_and_end(ptr_ptr, j)
    masked_from = _unmasked_up_to(first, last, inner, BS * GROUPS)
    sum_slope, datt = _receiver_slots(
        sum_slope, datt, 0, masked_from - first, last, x_src_ptr + (at - j * H * W), x_dst, dy, att * _LOG2_E, mean, log_sum, slope, mine, frames_ptr,
        nodes_ptr + first, t, length, False, BS, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    sum_slope, datt = _receiver_slots(
        sum_slope, datt, masked_from, last, last, x_src_ptr + (at - j * H * W), x_dst, dy, att * _LOG2_E, mean, log_sum, slope, mine, frames_ptr,
        nodes_ptr, t, length, True, BS // 2, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    tl.store(ddst_ptr + at, att * _over_groups(sum_slope, GROUPS), inside)
    c = _channels(PARTS, BW)
    for one in range(H):  # rows of a head are not neighbours
        part = tl.sum(tl.where((head == one)[None, :, None], datt, 0.0), 1, keep_dims=True)
        tl.store(partial_ptr + (tl.program_id(0).to(tl.int64) * H + one) * W + c, part, c < W)


@triton.jit
def _receiver_slots(
    sum_slope, datt, first, to, last, x_rows, x_dst, dy, att, mean, log_sum, slope, mine, frames_ptr, nodes_ptr, t, length,
    MASKED: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Σ dscore LeakyReLU' and Σ dscore LeakyReLU with the slots from `first` to `to` added. `att` is that of the forward's scores."""
    compute: tl.constexpr = datt.dtype
    for s in range(first, to, BS * GROUPS):
        rows, there = _slots(s, last, frames_ptr, nodes_ptr, mine, t, length, MASKED, BS, H)
        if not MASKED:
            nodes_ptr += BS * GROUPS
        xs: tl.tuple = ()
        for u in tl.static_range(BS):
            xs += (_load(x_rows + _places(rows[u], W), there[u], MASKED, W, PARTS, BW),)
        for u in tl.static_range(BS):
            x = xs[u].to(compute)
            hidden = x + x_dst
            factor = tl.where(hidden > 0, 1.0, slope)
            active = hidden * factor
            alpha = tl.exp2(_dot(active, att) - log_sum)
            dscore = alpha * (_dot(x, dy) - mean)
            if MASKED:
                dscore = tl.where(there[u], dscore, 0.0)
            sum_slope += dscore[None, :, None] * factor
            datt += dscore[None, :, None] * active
    return sum_slope, datt


@triton.jit
def _attend_senders(
    x_src_ptr, x_dst_ptr, att_ptr, dy_ptr, log_sum_ptr, mean_ptr, dsrc_ptr, lengths_ptr,
    ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """dsrc = Σ α dy + att Σ dscore LeakyReLU' over the edges out of the rows, α and dscore those of their receivers."""
    j, row, frame, head, group, t, at, inside, length, inner = _rows(lengths_ptr, T, J, hops, H, W, GROUPS, PARTS, BR, BW)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    x_src = tl.load(x_src_ptr + at, inside & (frame < length)[None, :, None], 0.0).to(compute)
    att = tl.load(att_ptr + head[None, :, None] * W + _channels(PARTS, BW), inside, 0.0).to(compute)
    row0, at0 = row - j * H, at - j * H * W  # of the first node in the frame, which the slots count from
    sum_dy = tl.zeros([PARTS, GROUPS * BR, BW // PARTS], compute)
    sum_slope = tl.zeros([PARTS, GROUPS * BR, BW // PARTS], compute)
    mine = group if GROUPS > 1 else tl.arange(0, 1)
    first, last = _first_and_end(ptr_ptr, j)
    masked_from = _unmasked_up_to(first, last, inner, BS * GROUPS)
    sum_dy, sum_slope = _sender_slots(
        sum_dy, sum_slope, 0, masked_from - first, last, x_dst_ptr + at0, dy_ptr + at0, log_sum_ptr + row0, mean_ptr + row0, x_src, att * _LOG2_E,
        slope, mine, frames_ptr, nodes_ptr + first, t, length, False, BS, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    sum_dy, sum_slope = _sender_slots(
        sum_dy, sum_slope, masked_from, last, last, x_dst_ptr + at0, dy_ptr + at0, log_sum_ptr + row0, mean_ptr + row0, x_src, att * _LOG2_E, slope,
        mine, frames_ptr, nodes_ptr, t, length, True, BS // 2, GROUPS, H, W, PARTS, BW,
    )  # fmt: skip
    tl.store(dsrc_ptr + at, _over_groups(sum_dy + att * sum_slope, GROUPS), inside)


@triton.jit
def _sender_slots(
    sum_dy, sum_slope, first, to, last, x_dst_rows, dy_rows, log_sum_rows, mean_rows, x_src, att, slope, mine,
    frames_ptr, nodes_ptr, t, length,
    MASKED: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Σ α dy and Σ dscore LeakyReLU' with the slots from `first` to `to` added. `att` is that of the forward's scores."""
    compute: tl.constexpr = sum_dy.dtype
    for s in range(first, to, BS * GROUPS):
        all_rows, there = _slots(s, last, frames_ptr, nodes_ptr, mine, t, length, MASKED, BS, H)
        if not MASKED:
            nodes_ptr += BS * GROUPS
        for u in tl.static_range(BS):
            rows, exists = all_rows[u], there[u]
            places = _places(rows, W)
            x_dst = _load(x_dst_rows + places, exists, MASKED, W, PARTS, BW).to(compute)
            dy = _load(dy_rows + places, exists, MASKED, W, PARTS, BW).to(compute)
            log_sum = tl.load(log_sum_rows + rows, exists, 0.0) if MASKED else tl.load(log_sum_rows + rows)
            mean = tl.load(mean_rows + rows, exists, 0.0) if MASKED else tl.load(mean_rows + rows)
            hidden = x_dst + x_src
            factor = tl.where(hidden > 0, 1.0, slope)
            alpha = tl.exp2(_dot(hidden * factor, att) - log_sum)
            if MASKED:
                alpha = tl.where(exists, alpha, 0.0)
            dscore = alpha * (_dot(dy, x_src) - mean)
            sum_dy += alpha[None, :, None] * dy
            sum_slope += dscore[None, :, None] * factor
    return sum_dy, sum_slope


@triton.jit
def _sum_rows(x_ptr, y_ptr, N, C, BN: tl.constexpr, BC: tl.constexpr):
    """y[c] = Σ x[n, c], in an order that only the sizes decide."""
    c = (tl.program_id(0) * BC + tl.arange(0, BC))[None, :]
    total = tl.zeros([BN, BC], x_ptr.dtype.element_ty)
    for first in range(0, N, BN):
        n = (first + tl.arange(0, BN))[:, None]
        total += tl.load(x_ptr + n.to(tl.int64) * C + c, (n < N) & (c < C), 0.0)
    tl.store(y_ptr + c, tl.sum(total, 0, keep_dims=True), c < C)


def compilations(dtype: str) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels in 4 heads."""
    B, T, H, W, graph = 8, 60, 4, 16, SkeletonGraph("coco18", 3)
    J, kind = graph.num_joints, DTYPES[dtype]
    tile = _tile(T, J, H, W, kind.itemsize)
    grid = _grid(B, T, J, H, tile)
    known: dict[str, Any] = dict.fromkeys(("ptr_ptr", "frames_ptr", "nodes_ptr"), torch.int32)
    known |= dict.fromkeys(("x_src_ptr", "x_dst_ptr", "att_ptr", "dy_ptr", "y_ptr", "ddst_ptr", "dsrc_ptr"), kind)
    known |= dict.fromkeys(("log_sum_ptr", "mean_ptr", "partial_ptr"), torch.float32)
    known |= {"lengths_ptr": torch.int64, "negative_slope": 0.2, "T": T, "J": J, "hops": graph.hops, "H": H, "W": W, "GENTLE": True, **tile}
    BT = tile["BR"] // H  # frames of a program
    features, per_row = B * T * J * H * W * kind.itemsize, B * T * J * H * 4
    window = (frames_read(T, BT, graph.hops) - T) * features // T  # what the tiles read of one another's frames
    partial = grid[0] * H * W * 4

    def one(name: str, kernel: Any, tensors: int, rows: int, windows: int, extra: int = 0) -> Compilation:
        """The counts: tensors of features and of rows' values, of how many of them a window is read, and bytes beside."""
        arguments = {parameter.name: known[parameter.name] for parameter in kernel.params}
        least = tensors * features + rows * per_row
        requested, distinct = feature_bytes(graph, BT, windows * H * W * kind.itemsize, transposed=windows == 2)
        return Compilation(
            name, kernel, arguments, tile["num_warps"], f"B={B} T={T} k={graph.hops} C={H * W} heads={H}", *grid,
            bytes_moved=least + windows * window + extra, bytes_least=least, feature_bytes=(requested, distinct),
            max_registers=_FORWARD_REGISTERS if kernel is _attend else _BACKWARD_REGISTERS,
        )  # fmt: skip

    columns = {"x_ptr": torch.float32, "y_ptr": kind, "N": grid[0], "C": H * W, "BN": 1024, "BC": 4}
    moved = partial + H * W * kind.itemsize
    return [
        one("attend", _attend, 3, 1, 1),
        one("attend backward (receivers)", _attend_receivers, 5, 2, 1, partial),
        one("attend backward (senders)", _attend_senders, 4, 2, 2),
        Compilation("attend backward (att)", _sum_rows, columns, 8, f"{grid[0]} parts of {H * W}", H * W // 4, moved, moved),
    ]
