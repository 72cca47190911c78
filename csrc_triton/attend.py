"""GATv2 attention on the GPU: scores, softmax and sum of a node in one pass over its slots, with nothing of edge size stored.

A row is a head of a node: `heads` rows follow one another in memory, and the rows of one joint in neighbouring frames lie J rows of C apart. The
parts of a row (see `parts`) lie in one thread, which so needs fewer steps of adding up across threads and makes fewer scores twice. Away from a
walk's ends all rows have all edges: there a loop without masks takes four slots at a time, whose loads the compiler brings forward, and one with
masks, two at a time, what is left. What a slot adds to an address is the same for all rows. Where there are few rows, as in an edge list, groups of
threads have slots of their own and add up at the end. No row is read that a joint's slots don't ask for; the joints of a tile of frames are
neighbours in the grid and share the tile's window of frames through the caches.

The backward passes over the slots into every node (gradients of the receivers and of att) and over those out of it (gradients of the senders);
each program writes only to the nodes that it goes over. α is found again from the logarithm of the sum that the forward stores.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation, Example
from csrc_triton.launch import Settled, launch, launch_options, parts_of_a_row
from csrc_triton.parts import apart, by_row, channels, load_tile, over_groups, parts_of, store_tile, sum_of_rows, zeros
from csrc_triton.products import feature_bytes, frames_read
from fastst.graph_index import GraphIndex

_FAR = tl.constexpr(1 << 30)  # a frame out of every slot's reach
# Chips have an instruction for powers of two, so scores are multiplied by this, in every kernel in the same way: α is a difference of large numbers.
_LOG2_E = tl.constexpr(math.log2(math.e))
_HALF = tl.constexpr(1 << 29)  # an offset that leads nowhere, from there neither
_FORWARD_REGISTERS, _BACKWARD_REGISTERS = 96, 128  # of a thread in float32, for four or more 16-byte loads in flight


def attend(
    x_src: Tensor, x_dst: Tensor, att: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """y = Σ α x_src, α the softmax of att · LeakyReLU(x_src[from] + x_dst[to]), and log2 Σ exp of these scores (inf where the sum is 0).

    `[B, T, J, C]` in x_src's dtype and `[B, T, J, heads]` in float32, or float64 for float64. What is of lower precision is read as it is.
    """
    x_src, x_dst, att = x_src.contiguous(), x_dst.contiguous(), att.contiguous()
    y = torch.empty_like(x_src)
    log_sum = torch.empty(*x_src.shape[:3], len(att), dtype=torch.promote_types(x_src.dtype, torch.float32), device=x_src.device)
    pointers = (x_src, x_dst, att, y, log_sum, lengths, index.dst_ptr, index.sender_frames, index.sender_nodes)
    key = (x_src.shape, att.shape, hops, negative_slope)
    launch(_attend, pointers, key, lambda: _settle(x_src, att, log_sum.dtype, hops, negative_slope, _FORWARD_REGISTERS))
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
    dsrc, ddst, datt = torch.empty_like(x_src), torch.empty_like(x_dst), torch.empty_like(att)
    mean = torch.empty_like(log_sum)  # Σ α dα over the edges into a node, which is y · dy
    programs = _programs(x_src, att)
    partial = torch.empty(programs, *att.shape, dtype=log_sum.dtype, device=log_sum.device)  # every program's part of datt
    key = (x_src.shape, att.shape, hops, negative_slope)

    def settle() -> Settled:
        return _settle(x_src, att, log_sum.dtype, hops, negative_slope, _BACKWARD_REGISTERS)

    into, out_of = (index.dst_ptr, index.sender_frames, index.sender_nodes), (index.src_ptr, index.receiver_frames, index.receiver_nodes)
    launch(_attend_receivers, (x_src, x_dst, att, dy, y, log_sum, mean, ddst, partial, lengths, *into), key, settle)
    launch(_attend_senders, (x_src, x_dst, att, dy, log_sum, mean, dsrc, lengths, *out_of), key, settle)
    launch(_sum_rows, (partial, datt), (programs, att.shape), lambda: _settle_sum(programs, att))
    return dsrc, ddst, datt


def _settle(x_src: Tensor, att: Tensor, compute: torch.dtype, hops: int, negative_slope: float, registers: int) -> Settled:
    (_, T, J, _), (H, W) = x_src.shape, att.shape
    tile, num_warps = _tile(T, H, W, x_src.element_size())
    numbers = {"negative_slope": negative_slope, "T": T, "J": J, "hops": hops, "H": H, "W": W, "GENTLE": _is_gentle(negative_slope), **tile}
    options = launch_options(num_warps=num_warps, max_registers=registers if compute == torch.float32 else None)
    return Settled(_programs(x_src, att), numbers, options)


def _programs(x_src: Tensor, att: Tensor) -> int:
    (B, T, J, _), (H, W) = x_src.shape, att.shape
    return B * J * triton.cdiv(T * H, _tile(T, H, W, x_src.element_size())[0]["BR"])


def _settle_sum(programs: int, att: Tensor) -> Settled:
    numbers = {"N": programs, "C": att.numel(), "BN": 1024, "BC": 4}
    return Settled(triton.cdiv(att.numel(), 4), numbers, launch_options(num_warps=8))


@functools.lru_cache
def _tile(T: int, H: int, W: int, itemsize: int) -> tuple[dict[str, int], int]:
    """BR rows of BW channels by four slots, 32 channels a thread, which are eight loads of 16 bytes in float32; and the warps."""
    BW = triton.next_power_of_2(W)
    # Of att's gradient every program leaves all heads, so with fewer rows than heads that would be more than the features.
    most = min(max(min(1024 // BW, 128), triton.next_power_of_2(H)), max(2048 // BW, 1))
    BR = min(most, max(triton.next_power_of_2(T * H), 1))
    # A row a thread where rows are short, and 16 channels where warps share a long row: else registers run out.
    num_warps = max(BR // 32, 1) if BW < 8 else min(max(BR * BW // (256 if BW < 256 else 128), 1), 16)
    groups = min(max(256 // (BR * BW), 1), 4) if num_warps == 1 else 1  # few rows, as in an edge list, leave room for more slots
    parts = parts_of_a_row(BW * itemsize, groups * BR * BW * itemsize, num_warps)
    return {"BS": 4, "GROUPS": groups, "PARTS": parts, "BR": BR, "BW": BW}, num_warps


def _is_gentle(negative_slope: float) -> bool:
    """Whether LeakyReLU(x) is the larger of x and negative_slope · x, infinities included."""
    return negative_slope <= 1 and negative_slope != 0


class _Sizes(NamedTuple):
    """What kernels are compiled for. The backward does not ask whether a slope is GENTLE."""

    H: tl.constexpr
    W: tl.constexpr
    BS: tl.constexpr
    GROUPS: tl.constexpr
    PARTS: tl.constexpr
    BR: tl.constexpr
    BW: tl.constexpr
    GENTLE: tl.constexpr


class _Rows(NamedTuple):
    """Of a program. N is GROUPS * BR: every group has all the rows, for slots of its own."""

    number: tl.tensor  # [N]
    at: tl.tensor  # where their channels are: a tile
    before: tl.tensor  # how many rows of the frame are before those of the joint
    head: tl.tensor  # [N]
    group: tl.tensor  # [N], or where there is one, [1]
    in_tensor: tl.tensor  # [N]: is it one of T frames
    in_walk: tl.tensor  # [N]: is it before the walk's length
    reach: tl.tensor  # [N]: the frame, or where the walk does not have it, one that no slot reaches
    length: tl.tensor


class _Slots(NamedTuple):
    """Of a program's joint, in the tables of other ends: see `GraphIndex`. Those up to `masked_from` fill steps, and all rows have edges of them."""

    first: tl.tensor
    masked_from: tl.tensor
    last: tl.tensor
    frames_ptr: tl.tensor
    nodes_ptr: tl.tensor


@triton.jit
def _rows_and_slots(tables, lengths_ptr, T, J, hops, SIZES: tl.constexpr):
    """Of this program. `tables` are pointers: to the joints' first slots, and to the frames and nodes of other ends."""
    program = tl.program_id(0)
    j = (program % J).to(tl.int64)
    tiles = tl.cdiv(T * SIZES.H, SIZES.BR)
    b = (program // J // tiles).to(tl.int64)
    length = T
    if lengths_ptr is not None:
        length = tl.maximum(tl.minimum(tl.load(lengths_ptr + b), T), 0).to(tl.int32)

    n = tl.arange(0, SIZES.GROUPS * SIZES.BR)
    r0 = program // J % tiles * SIZES.BR
    r = r0 + n % SIZES.BR
    frame, head = r // SIZES.H, r % SIZES.H
    group = n // SIZES.BR if SIZES.GROUPS > 1 else tl.arange(0, 1)
    before = j * SIZES.H
    number = ((b * T + frame) * J + j) * SIZES.H + head
    at = by_row(number) * SIZES.W + channels(SIZES.PARTS, SIZES.BW)
    reach = tl.where(frame < length, frame, _FAR)
    rows = _Rows(number, at, before, head, group, frame < T, frame < length, reach, length)

    ptr_ptr, frames_ptr, nodes_ptr = tables
    begin = tl.load(ptr_ptr + j)
    first = tl.multiple_of((begin + 3 * j.to(tl.int32)) & -4, 4)
    last = first + (tl.load(ptr_ptr + j + 1) - begin)
    inner = (r0 // SIZES.H >= hops) & ((r0 + SIZES.BR - 1) // SIZES.H + hops < length)
    STEP: tl.constexpr = SIZES.BS * SIZES.GROUPS
    masked_from = tl.where(inner, first + (last - first) // STEP * STEP, first)
    return rows, _Slots(first, masked_from, last, frames_ptr, nodes_ptr)


@triton.jit
def _over_slots(ADD: tl.constexpr, sums, given, rows, slots, SIZES: tl.constexpr):
    """The sums with all slots of the joint added: ADD(sums, given, ends, exist, MASKED, SIZES) adds a step of them.

    Steps are of BS slots of every group where all rows have all edges, and of half as many with masks for what is left. `ends` is by how many rows
    the slots' other ends follow those of the frame's first node, `exist` which edges there are.
    """
    nodes_ptr = slots.nodes_ptr + slots.first  # the pointer moves: of s, compilers would make a counter of 64 bits
    for _ in range(0, slots.masked_from - slots.first, SIZES.BS * SIZES.GROUPS):
        ends = _ends(nodes_ptr, rows, SIZES)
        nodes_ptr += SIZES.BS * SIZES.GROUPS
        sums = ADD(sums, given, ends, (), False, SIZES)
    for s in range(slots.masked_from, slots.last, SIZES.BS // 2 * SIZES.GROUPS):
        ends, exist = _ends_and_edges(s, rows, slots, SIZES)
        sums = ADD(sums, given, ends, exist, True, SIZES)
    return sums


@triton.jit
def _ends(nodes_ptr, rows, SIZES: tl.constexpr):
    """Of the BS slots of every group that `nodes_ptr` points to.  # BS times [N] or [1]"""
    nodes = tl.load(nodes_ptr + (rows.group[:, None] * SIZES.BS + tl.arange(0, SIZES.BS)[None, :]))  # one load: joints begin at multiples of BS, 4
    return [node.reshape(rows.group.shape[0]).to(tl.int64) * SIZES.H for node in apart(nodes)]


@triton.jit
def _ends_and_edges(s, rows, slots, SIZES: tl.constexpr):
    """Of BS / 2 slots of every group, from slot s on.  # BS / 2 times [N] or [1], BS / 2 times [N]"""
    ends: tl.tuple = ()
    exist: tl.tuple = ()
    for u in tl.static_range(SIZES.BS // 2):
        slot = s + rows.group * (SIZES.BS // 2) + u
        place = tl.minimum(slot, slots.last - 1)
        frames = tl.where(slot < slots.last, tl.load(slots.frames_ptr + place), _HALF)
        exist += ((rows.reach + frames).to(tl.uint32) < rows.length.to(tl.uint32),)
        ends += (tl.load(slots.nodes_ptr + place).to(tl.int64) * SIZES.H,)
    return ends, exist


@triton.jit
def _load(ptr, exists, MASKED: tl.constexpr, SIZES: tl.constexpr):
    return load_tile(ptr, exists, SIZES.W, MASKED, SIZES.PARTS, SIZES.BW, SIZES.W == SIZES.BW)


@triton.jit
def _load_ends(ptr, end, exists, MASKED: tl.constexpr, SIZES: tl.constexpr):
    return _load(ptr + by_row(end * SIZES.W), exists, MASKED, SIZES)


@triton.jit
def _load_att(att_ptr, rows, SIZES: tl.constexpr):
    return _load(att_ptr + (by_row(rows.head) * SIZES.W + channels(SIZES.PARTS, SIZES.BW)), rows.in_tensor, True, SIZES)


@triton.jit
def _store(ptr, x, rows, SIZES: tl.constexpr):
    store_tile(ptr + rows.at, x, rows.in_tensor, SIZES.W, SIZES.PARTS, SIZES.BW, SIZES.W == SIZES.BW)


@triton.jit
def _zeros(compute: tl.constexpr, SIZES: tl.constexpr):
    return zeros(SIZES.PARTS, SIZES.GROUPS * SIZES.BR, SIZES.BW, compute)


@triton.jit
def _dot(a, b):
    """Σ a b over the channels of a row; those that lie in one thread in a chain of multiply-adds, where a sum would be a tree of additions.

    Two tiles -> [N]
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

    A tile -> PARTS * min(C, 4) times [N, max(C / 4, 1)]
    """
    pieces: tl.tuple = ()
    parts = parts_of(x)
    for part in tl.static_range(len(parts)):
        pieces += apart(parts[part])
    return pieces


@triton.jit
def _attend(
    x_src_ptr, x_dst_ptr, att_ptr, y_ptr, log_sum_ptr, lengths_ptr, ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, GENTLE: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    SIZES: tl.constexpr = _Sizes(H, W, BS, GROUPS, PARTS, BR, BW, GENTLE)
    rows, slots = _rows_and_slots((ptr_ptr, frames_ptr, nodes_ptr), lengths_ptr, T, J, hops, SIZES)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    x_dst = _load(x_dst_ptr + rows.at, rows.in_walk, True, SIZES).to(compute)
    att = _load_att(att_ptr, rows, SIZES).to(compute) * _LOG2_E
    lowest: tl.constexpr = -1.7976931348623157e308 if compute == tl.float64 else -3.4028234663852886e38
    largest = tl.full([GROUPS * BR], lowest, compute)  # and not -inf, of which differences are no numbers
    sums = (largest, tl.zeros([GROUPS * BR], compute), _zeros(compute, SIZES))
    given = (x_src_ptr + (rows.at - rows.before * W), x_dst, att, tl.full([], negative_slope, compute))
    largest, total, y = _over_slots(_add_messages, sums, given, rows, slots, SIZES)
    if GROUPS > 1:
        of_group = largest
        largest = tl.max(largest.reshape(GROUPS, BR), 0, keep_dims=True).broadcast_to(GROUPS, BR).reshape(GROUPS * BR)
        share = tl.exp2(of_group - largest)
        total = tl.sum((total * share).reshape(GROUPS, BR), 0, keep_dims=True).broadcast_to(GROUPS, BR).reshape(GROUPS * BR)
        y = over_groups(y * by_row(share), GROUPS)
    none = total == 0
    total = tl.where(none, 1.0, total)  # without edges y is 0
    log_sum = tl.where(none, float("inf"), largest + tl.log2(total))  # from which the backward makes an α of 0
    _store(y_ptr, y / by_row(total), rows, SIZES)
    tl.store(log_sum_ptr + rows.number, log_sum, rows.in_tensor)


@triton.jit
def _add_messages(sums, given, ends, exist, MASKED: tl.constexpr, SIZES: tl.constexpr):
    """To the largest score, Σ exp2 and Σ exp2 x, both over the power of the largest score."""
    before, total, y = sums
    x_rows, x_dst, att, slope = given
    largest = before
    xs: tl.tuple = ()
    scores: tl.tuple = ()
    for u in tl.static_range(len(ends)):
        x = _load_ends(x_rows, ends[u], exist[u] if MASKED else None, MASKED, SIZES).to(total.dtype)
        hidden = x + x_dst
        active = tl.maximum(hidden, hidden * slope) if SIZES.GENTLE else tl.where(hidden > 0, hidden, hidden * slope)
        score = _dot(active, att)
        if MASKED:
            score = tl.where(exist[u], score, float("-inf"))
        largest = tl.maximum(largest, score)
        xs += (x,)
        scores += (score,)
    shrink = tl.exp2(before - largest)
    total *= shrink
    y *= by_row(shrink)
    for u in tl.static_range(len(ends)):
        weight = tl.exp2(scores[u] - largest)
        total += weight
        y = tl.fma(by_row(weight).broadcast_to(y.shape), xs[u], y)
    return largest, total, y


@triton.jit
def _attend_receivers(
    x_src_ptr, x_dst_ptr, att_ptr, dy_ptr, y_ptr, log_sum_ptr, mean_ptr, ddst_ptr, partial_ptr, lengths_ptr,
    ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, GENTLE: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    """ddst = att Σ dscore LeakyReLU', datt = Σ dscore LeakyReLU, with dscore = α (dy · x_src - mean), over the edges into the rows."""
    SIZES: tl.constexpr = _Sizes(H, W, BS, GROUPS, PARTS, BR, BW, GENTLE)
    rows, slots = _rows_and_slots((ptr_ptr, frames_ptr, nodes_ptr), lengths_ptr, T, J, hops, SIZES)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    x_dst = _load(x_dst_ptr + rows.at, rows.in_walk, True, SIZES).to(compute)
    dy = _load(dy_ptr + rows.at, rows.in_walk, True, SIZES).to(compute)
    mean = _dot(dy, _load(y_ptr + rows.at, rows.in_walk, True, SIZES).to(compute))
    tl.store(mean_ptr + rows.number, mean, rows.in_tensor)
    log_sum = tl.load(log_sum_ptr + rows.number, rows.in_walk, 0.0)
    att = _load_att(att_ptr, rows, SIZES).to(compute)
    given = (x_src_ptr + (rows.at - rows.before * W), x_dst, dy, att * _LOG2_E, mean, log_sum, tl.full([], negative_slope, compute))
    sums = (_zeros(compute, SIZES), _zeros(compute, SIZES))
    sum_slope, datt = _over_slots(_add_to_receivers, sums, given, rows, slots, SIZES)
    _store(ddst_ptr, att * over_groups(sum_slope, GROUPS), rows, SIZES)
    c = channels(PARTS, BW)
    for one in range(H):  # rows of a head are not neighbours
        part = sum_of_rows(tl.where(by_row(rows.head == one), datt, 0.0))
        tl.store(partial_ptr + (tl.program_id(0).to(tl.int64) * H + one) * W + c, part, c < W)


@triton.jit
def _add_to_receivers(sums, given, ends, exist, MASKED: tl.constexpr, SIZES: tl.constexpr):
    """To Σ dscore LeakyReLU' and Σ dscore LeakyReLU. `att` is that of the forward's scores."""
    sum_slope, datt = sums
    x_rows, x_dst, dy, att, mean, log_sum, slope = given
    xs: tl.tuple = ()
    for u in tl.static_range(len(ends)):
        xs += (_load_ends(x_rows, ends[u], exist[u] if MASKED else None, MASKED, SIZES),)
    for u in tl.static_range(len(ends)):
        x = xs[u].to(mean.dtype)
        hidden = x + x_dst
        factor = tl.where(hidden > 0, 1.0, slope)
        active = hidden * factor
        alpha = tl.exp2(_dot(active, att) - log_sum)
        dscore = alpha * (_dot(x, dy) - mean)
        if MASKED:
            dscore = tl.where(exist[u], dscore, 0.0)
        sum_slope += by_row(dscore) * factor
        datt += by_row(dscore) * active
    return sum_slope, datt


@triton.jit
def _attend_senders(
    x_src_ptr, x_dst_ptr, att_ptr, dy_ptr, log_sum_ptr, mean_ptr, dsrc_ptr, lengths_ptr,
    ptr_ptr, frames_ptr, nodes_ptr, negative_slope: tl.float64, T, J, hops,
    H: tl.constexpr, W: tl.constexpr, GENTLE: tl.constexpr, BS: tl.constexpr, GROUPS: tl.constexpr, PARTS: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
):  # fmt: skip
    """dsrc = Σ α dy + att Σ dscore LeakyReLU' over the edges out of the rows, α and dscore those of their receivers."""
    SIZES: tl.constexpr = _Sizes(H, W, BS, GROUPS, PARTS, BR, BW, GENTLE)
    rows, slots = _rows_and_slots((ptr_ptr, frames_ptr, nodes_ptr), lengths_ptr, T, J, hops, SIZES)
    compute: tl.constexpr = log_sum_ptr.dtype.element_ty
    slope = tl.full([], negative_slope, compute)
    x_src = _load(x_src_ptr + rows.at, rows.in_walk, True, SIZES).to(compute)
    att = _load_att(att_ptr, rows, SIZES).to(compute)
    row0, at0 = rows.number - rows.before, rows.at - rows.before * W  # of the first node in the frame, which the slots count from
    given = (x_dst_ptr + at0, dy_ptr + at0, log_sum_ptr + row0, mean_ptr + row0, x_src, att * _LOG2_E, slope)
    sums = (_zeros(compute, SIZES), _zeros(compute, SIZES))
    sum_dy, sum_slope = _over_slots(_add_to_senders, sums, given, rows, slots, SIZES)
    _store(dsrc_ptr, over_groups(sum_dy + att * sum_slope, GROUPS), rows, SIZES)


@triton.jit
def _add_to_senders(sums, given, ends, exist, MASKED: tl.constexpr, SIZES: tl.constexpr):
    """To Σ α dy and Σ dscore LeakyReLU'. `att` is that of the forward's scores."""
    sum_dy, sum_slope = sums
    x_dst_rows, dy_rows, log_sum_rows, mean_rows, x_src, att, slope = given
    for u in tl.static_range(len(ends)):
        exists = exist[u] if MASKED else None
        x_dst = _load_ends(x_dst_rows, ends[u], exists, MASKED, SIZES).to(slope.dtype)
        dy = _load_ends(dy_rows, ends[u], exists, MASKED, SIZES).to(slope.dtype)
        log_sum = tl.load(log_sum_rows + ends[u], exists, 0.0) if MASKED else tl.load(log_sum_rows + ends[u])
        mean = tl.load(mean_rows + ends[u], exists, 0.0) if MASKED else tl.load(mean_rows + ends[u])
        hidden = x_dst + x_src
        factor = tl.where(hidden > 0, 1.0, slope)
        alpha = tl.exp2(_dot(hidden * factor, att) - log_sum)
        if MASKED:
            alpha = tl.where(exists, alpha, 0.0)
        dscore = alpha * (_dot(dy, x_src) - mean)
        sum_dy += by_row(alpha) * dy
        sum_slope += by_row(dscore) * factor
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


def compilations(dtype: str, graph: Example) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, eight walks of 60 frames and 64 channels in 4 heads."""
    B, T, H, W = 8, 60, 4, 16
    J, kind = graph.num_joints, DTYPES[dtype]
    x, att = torch.empty(B, T, J, H * W, dtype=kind, device="meta"), torch.empty(H, W, dtype=kind, device="meta")
    known: dict[str, Any] = dict.fromkeys(("ptr_ptr", "frames_ptr", "nodes_ptr"), torch.int32)
    known |= dict.fromkeys(("x_src_ptr", "x_dst_ptr", "att_ptr", "dy_ptr", "y_ptr", "ddst_ptr", "dsrc_ptr"), kind)
    known |= dict.fromkeys(("log_sum_ptr", "mean_ptr", "partial_ptr"), torch.float32)
    known["lengths_ptr"] = torch.int64
    programs = _programs(x, att)
    BT = _tile(T, H, W, kind.itemsize)[0]["BR"] // H  # frames of a program
    features, per_row = x.nbytes, B * T * J * H * 4
    window = (frames_read(T, BT, graph.hops) - T) * features // T  # what the tiles read of one another's frames
    partial = programs * H * W * 4

    def one(name: str, kernel: Any, tensors: int, rows: int, windows: int, extra: int = 0) -> Compilation:
        """The counts: tensors of features and of rows' values, of how many of them a window is read, and bytes beside."""
        settled = _settle(x, att, torch.float32, graph.hops, 0.2, _FORWARD_REGISTERS if kernel is _attend else _BACKWARD_REGISTERS)
        arguments = {argument: (known | settled.numbers)[argument] for argument in kernel.arg_names}
        least = tensors * features + rows * per_row
        requested, distinct = feature_bytes(graph, BT, windows * H * W * kind.itemsize, transposed=windows == 2)
        return Compilation(
            name, kernel, arguments, settled.options["num_warps"], f"B={B} T={T} k={graph.hops} C={H * W} heads={H}", programs,
            bytes_moved=least + windows * window + extra, bytes_least=least, feature_bytes=(requested, distinct),
            max_registers=settled.options["maxnreg"],
        )  # fmt: skip

    of_att = _settle_sum(programs, att)
    columns = {"x_ptr": torch.float32, "y_ptr": kind, **of_att.numbers}
    moved = partial + H * W * kind.itemsize
    return [
        one("attend", _attend, 3, 1, 1),
        one("attend backward (receivers)", _attend_receivers, 5, 2, 1, partial),
        one("attend backward (senders)", _attend_senders, 4, 2, 2),
        Compilation("attend backward (att)", _sum_rows, columns, 8, f"{programs} parts of {H * W}", of_att.programs, moved, moved),
    ]
