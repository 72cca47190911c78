"""Sampling of edges on the GPU: Philox noise, threshold and existence in one kernel, which can also make the logits from the embeddings of the ends.

Edges lie in rows: on a skeleton a row is a slot, its columns are the frames; an edge list is one row. The four words of a Philox call belong to
four neighbours in a row, so the noise of a tile is made on a tile of a quarter of the width and interleaved.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from csrc_triton.compilation import DTYPES, Compilation
from csrc_triton.launch import launch_options, on_device_of
from csrc_triton.products import feature_bytes, frames_read
from fastst.graph import GraphIndex, SkeletonGraph

_BELOW_ONE = tl.constexpr(1 - 2**-24)  # the largest uniform number


def sample_edges(
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    eps: float,
    noise: str,
) -> Tensor:
    """kept = 1 where γ - log(-β log(u + ε) + ε) > 0; with logistic noise where γ + log(u + ε) - log(1 - u + ε) > 0.  # [B, P, T], γ's dtype"""
    logits = logits.contiguous()
    kept = torch.empty_like(logits)
    shape, grid, tile, num_warps = _rows(logits, hops)
    with on_device_of(logits):
        _sample[grid](
            logits, kept, sample_ids.contiguous(), lengths, offset, seed, beta, eps, *shape,
            LOGISTIC=noise == "logistic", **tile, **launch_options(num_warps=num_warps),
        )  # fmt: skip
    return kept


def sample_edges_backward(
    dkept: Tensor,
    logits: Tensor,
    sample_ids: Tensor,
    lengths: Tensor | None,
    offset: Tensor,
    seed: int,
    hops: int,
    beta: float,
    tau: float,
    eps: float,
    noise: str,
    estimator: str,
) -> Tensor:
    """dγ = dkept / τ, for which no logits are read and no noise is made; with estimator "sigmoid" dkept σ'(z) / τ.  # [B, P, T], γ's dtype"""
    dkept = dkept.contiguous()
    dlogits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    shape, grid, tile, num_warps = _rows(dkept, hops)
    reads = (logits.contiguous(), sample_ids.contiguous()) if estimator == "sigmoid" else (None, None)
    with on_device_of(dkept):
        _sample_backward[grid](
            dkept, dlogits, *reads, lengths, offset, seed, beta, 1 / tau, eps, *shape,
            LOGISTIC=noise == "logistic", **tile, **launch_options(num_warps=num_warps),
        )  # fmt: skip
    return dlogits


def sample_from_embeddings(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    sample_ids: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    seed: int,
    hops: int,
    beta: float,
    eps: float,
    noise: str,
) -> Tensor:
    """`sample_edges` of γ[p, t] = q[t, dst] · k[t + offset, src] + bias[p], of which nothing is stored.

    q, k `[B, T, J, D]`, bias `[P]` -> `[B, P, T]` in float32, or float64 for float64.
    """
    q, k, sample_ids = q.contiguous(), k.contiguous(), sample_ids.contiguous()
    B, T, J, D = q.shape
    P = len(index.src)
    kept = torch.empty(B, P, T, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    constants = {"D": D, "LOGISTIC": noise == "logistic"}
    with on_device_of(q):
        if hops == 0:
            tile, num_warps = _list_tile(q)
            grid = (B * triton.cdiv(P, tile["BE"]),)
            _sample_list[grid](
                q, k, bias, kept, sample_ids, index.src, index.dst, seed, beta, eps, J, P, **constants, **tile, **launch_options(num_warps=num_warps)
            )
        else:
            tile, num_warps = _slot_tile(q)
            grid = (B * J * triton.cdiv(T, tile["BT"]),)
            graph = (index.dst_ptr, index.dst_order, index.src, index.offset)
            _sample_slots[grid](
                q, k, bias, kept, sample_ids, lengths, *graph, seed, beta, eps, T, J, P, **constants, **tile, **launch_options(num_warps=num_warps)
            )
    return kept


def _rows(edges: Tensor, hops: int) -> tuple[tuple[int, int], tuple[int], dict[str, Any], int]:
    """Rows and columns of a walk's edges, the grid, what is constant in the kernel, and warps. A thread makes four neighbours or a few times that."""
    B, rows, columns = edges.shape
    if hops == 0:
        rows, columns = 1, rows
    BC = min(max(triton.next_power_of_2(columns), 16), 256)
    # A tile of 512 edges is one Philox call a thread; small problems keep to it, so that every multiprocessor has some.
    BR = min((512 if edges.numel() < 1 << 19 else 1024) // BC, max(triton.next_power_of_2(rows), 1))
    num_warps = min(max(BR * BC // 128, 1), 4)
    grid = (B * triton.cdiv(rows, BR) * triton.cdiv(columns, BC),)
    return (rows, columns), grid, {"LIST": hops == 0, "QUADS": columns % 4 == 0, "BR": BR, "BC": BC}, num_warps


def _slot_tile(q: Tensor) -> tuple[dict[str, int], int]:
    """Four slots of BT frames and BD channels at a time: 16 products a thread from four loads of 16 bytes of k in float32."""
    T = q.shape[1]
    BT = min(max(triton.next_power_of_2(T), 16), 32)
    return {"BD": _channels(q), "BT": BT, "QUADS": T % 4 == 0}, BT // 16


def _list_tile(q: Tensor) -> tuple[dict[str, int], int]:
    """Few channels at a time, to have many edges: the ends' rows are anywhere, so 32 bytes of one are as good as more."""
    return {"BD": _channels(q), "BE": 256}, 4


def _channels(q: Tensor) -> int:
    """Channels at a time: 32 bytes of a row, what memory gives at once, are two lanes' loads, between which there is one step of adding up."""
    return min(max(triton.next_power_of_2(q.shape[-1]), 4), 32 // q.element_size())


@triton.jit
def _uniform(quad, row, sample, KIND: tl.constexpr, seed):
    """u of four neighbours for every call; the counter is (quad, row, sample, KIND).  # [1, Q], [R, 1] -> [R, 4 Q]"""
    first, second, third, fourth = tl.philox(seed, quad, row, sample, KIND)
    words = tl.join(tl.join(first, third), tl.join(second, fourth))  # [R, Q, 2, 2], in order
    u = tl.random.uint_to_uniform_float(words.reshape(row.shape[0], 4 * quad.shape[1]))
    # u never is above this. Without it u + ε and 1 - u would be fused with the multiplication that makes u, which is then not rounded.
    return tl.minimum(u, _BELOW_ONE)


@triton.jit
def _threshold(u, beta, eps, LOGISTIC: tl.constexpr):
    """What γ has to exceed for the edge to stay: γ - threshold = τ z."""
    eps = tl.full([], eps, u.dtype)
    if LOGISTIC:
        return tl.log(1 - u + eps) - tl.log(u + eps)
    return tl.log(eps - tl.full([], beta, u.dtype) * tl.log(u + eps))


@triton.jit
def _keep(score):
    """1 where the score is above 0, else 0, but NaN where it is NaN: that must not look like a removed edge."""
    return tl.where(score != score, score, (score > 0).to(score.dtype))


@triton.jit
def _length(lengths_ptr, b, T):
    """Frames of a walk."""
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
    return length


@triton.jit
def _tile(lengths_ptr, offset_ptr, rows, columns, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr):
    """Of this program: the walk, its first column, its rows [BR, 1], the addresses, which are inside and which edges exist.  # [BR, BC]"""
    if QUADS:
        columns = columns // 4 * 4  # the same, but now the compiler knows that rows begin at multiples of 16 bytes
    program = tl.program_id(0)
    tiles = tl.cdiv(columns, BC)
    first_column = program % tiles * BC
    row = (program // tiles % tl.cdiv(rows, BR) * BR + tl.arange(0, BR))[:, None]
    column = (first_column + tl.arange(0, BC))[None, :]
    b = program // tiles // tl.cdiv(rows, BR)
    at = (b.to(tl.int64) * rows + row) * columns + column
    inside = (row < rows) & (column < columns)
    exists = inside
    if not LIST:
        length = _length(lengths_ptr, b, columns)
        source = column + tl.load(offset_ptr + row, row < rows, 0)
        exists = inside & (source >= 0) & (source < length) & (column < length)
    return b, first_column, row, at, inside, exists


@triton.jit
def _sample(
    logits_ptr, kept_ptr, ids_ptr, lengths_ptr, offset_ptr, seed: tl.int64, beta: tl.float64, eps: tl.float64, rows, columns,
    LOGISTIC: tl.constexpr, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    b, first_column, row, at, inside, exists = _tile(lengths_ptr, offset_ptr, rows, columns, LIST, QUADS, BR, BC)
    compute: tl.constexpr = tl.float64 if logits_ptr.dtype.element_ty == tl.float64 else tl.float32
    gamma = tl.load(logits_ptr + at, inside, 0.0).to(compute)
    quad = (first_column // 4 + tl.arange(0, BC // 4))[None, :]
    u = _uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1 if LIST else 0, seed)
    kept = _keep(gamma - _threshold(u.to(compute), beta, eps, LOGISTIC))
    tl.store(kept_ptr + at, tl.where(exists, kept, 0.0), inside)


@triton.jit
def _sample_backward(
    dkept_ptr, dlogits_ptr, logits_ptr, ids_ptr, lengths_ptr, offset_ptr, seed: tl.int64, beta: tl.float64, slope: tl.float64, eps: tl.float64,
    rows, columns,
    LOGISTIC: tl.constexpr, LIST: tl.constexpr, QUADS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The identity estimator where logits_ptr is None. slope = 1 / τ."""
    b, first_column, row, at, inside, exists = _tile(lengths_ptr, offset_ptr, rows, columns, LIST, QUADS, BR, BC)
    compute: tl.constexpr = tl.float64 if dkept_ptr.dtype.element_ty == tl.float64 else tl.float32
    slope = tl.full([], slope, compute)
    gradient = tl.load(dkept_ptr + at, inside, 0.0).to(compute) * slope
    if logits_ptr is not None:
        gamma = tl.load(logits_ptr + at, inside, 0.0).to(compute)
        quad = (first_column // 4 + tl.arange(0, BC // 4))[None, :]
        u = _uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1 if LIST else 0, seed)
        soft = tl.sigmoid((gamma - _threshold(u.to(compute), beta, eps, LOGISTIC)) * slope)
        gradient *= soft * (1 - soft)
    tl.store(dlogits_ptr + at, tl.where(exists, gradient, 0.0), inside)


@triton.jit
def _dots(
    q_at, k_ptr, position, last, order_ptr, src_ptr, offset_ptr, frame, T, J, compute: tl.constexpr, D: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """q[t, dst] · k[t + offset, src] of four slots, in two parts; anything where no edge exists, for which some row is read.  # [4, BT, 2]

    Reading a row that nobody asks for is cheaper than a mask, for which every register that is loaded has to be set to 0 before.
    """
    p = tl.load(order_ptr + tl.minimum(position, last - 1))
    source = tl.minimum((frame + tl.load(offset_ptr + p)[:, None]).to(tl.uint32), tl.full([], T - 1, tl.uint32))  # negative frames are large ones
    k_at = k_ptr + ((source * J + tl.load(src_ptr + p)[:, None]).to(tl.int64) * D)[:, :, None] + tl.arange(0, BD)[None, None, :]
    total = tl.zeros((4, frame.shape[1], BD), compute)
    for first in range(0, D, BD):
        if D % BD == 0:
            total += tl.load(q_at + first).to(compute) * tl.load(k_at + first).to(compute)
        else:
            more = (first + tl.arange(0, BD) < D)[None, None, :]
            total += tl.load(q_at + first, more, 0.0).to(compute) * tl.load(k_at + first, more, 0.0).to(compute)
    return tl.sum(total.reshape(4, frame.shape[1], 2, BD // 2), 3)


@triton.jit
def _sample_slots(
    q_ptr, k_ptr, bias_ptr, kept_ptr, ids_ptr, lengths_ptr, ptr_ptr, order_ptr, src_ptr, offset_ptr,
    seed: tl.int64, beta: tl.float64, eps: tl.float64, T, J, P,
    D: tl.constexpr, LOGISTIC: tl.constexpr, QUADS: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """One joint as receiver over BT frames. The joints of a frame tile are neighbours in the grid and share k's window of BT + 2k frames.

    A tile of dots is four slots (four independent loads and more), but noise is made for sixteen: of four, most threads would repeat the others'.
    """
    if QUADS:
        T = T // 4 * 4  # the same, but now the compiler knows that four frames of a slot are 16 bytes
    program = tl.program_id(0)
    j = program % J
    first_frame = program // J % tl.cdiv(T, BT) * BT
    b = program // J // tl.cdiv(T, BT)
    compute: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    length = _length(lengths_ptr, b, T)
    sample = tl.load(ids_ptr + b).to(tl.uint32)
    t = (first_frame + tl.arange(0, BT))[None, :]
    walk = b.to(tl.int64) * T * J * D
    q_at = q_ptr + walk + ((tl.minimum(t, T - 1) * J + j).to(tl.int64) * D)[:, :, None] + tl.arange(0, BD)[None, None, :]
    quad = (first_frame // 4 + tl.arange(0, BT // 4))[None, :]
    last = tl.load(ptr_ptr + j + 1)
    for s in range(tl.load(ptr_ptr + j), last, 16):
        fours = s + 4 * tl.arange(0, 4)
        dots0 = _dots(q_at, k_ptr + walk, fours, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots1 = _dots(q_at, k_ptr + walk, fours + 1, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots2 = _dots(q_at, k_ptr + walk, fours + 2, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots3 = _dots(q_at, k_ptr + walk, fours + 3, last, order_ptr, src_ptr, offset_ptr, t, T, J, compute, D, BD)
        dots = tl.join(tl.join(dots0, dots2), tl.join(dots1, dots3)).permute(0, 3, 4, 1, 2).reshape(16, BT, 2)
        low, high = tl.split(dots)
        gamma = low + high  # a sum across the two lanes of a row would be in both, and both would make the same noise
        position = s + tl.arange(0, 16)[:, None]
        p = tl.load(order_ptr + tl.minimum(position, last - 1))
        if bias_ptr is not None:
            gamma += tl.load(bias_ptr + p).to(compute)
        source = tl.where(t < length, t, 1 << 30) + tl.load(offset_ptr + p)
        exists = source.to(tl.uint32) < length.to(tl.uint32)
        kept = _keep(gamma - _threshold(_uniform(quad, p, sample, 0, seed).to(compute), beta, eps, LOGISTIC))
        tl.store(kept_ptr + (b.to(tl.int64) * P + p) * T + t, tl.where(exists, kept, 0.0), (position < last) & (t < T))


@triton.jit
def _sample_list(
    q_ptr, k_ptr, bias_ptr, kept_ptr, ids_ptr, src_ptr, dst_ptr, seed: tl.int64, beta: tl.float64, eps: tl.float64, N, E,
    D: tl.constexpr, LOGISTIC: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """BE edges of an edge list, one row of which a walk has."""
    program = tl.program_id(0)
    first_edge = program % tl.cdiv(E, BE) * BE
    b = (program // tl.cdiv(E, BE)).to(tl.int64)
    compute: tl.constexpr = tl.float64 if q_ptr.dtype.element_ty == tl.float64 else tl.float32
    e = first_edge + tl.arange(0, BE)
    inside = e < E
    some = tl.minimum(e, E - 1)  # an edge there is: reading its rows again is cheaper than masks
    q_at = q_ptr + ((b * N + tl.load(dst_ptr + some)) * D)[:, None]
    k_at = k_ptr + ((b * N + tl.load(src_ptr + some)) * D)[:, None]
    total = tl.zeros((BE, BD), compute)
    for first in range(0, D, BD):
        d = (first + tl.arange(0, BD))[None, :]
        if D % BD == 0:
            total += tl.load(q_at + d).to(compute) * tl.load(k_at + d).to(compute)
        else:
            total += tl.load(q_at + d, d < D, 0.0).to(compute) * tl.load(k_at + d, d < D, 0.0).to(compute)
    low, high = tl.split(tl.sum(total.reshape(BE, 2, BD // 2), 2))
    gamma = low + high
    if bias_ptr is not None:
        gamma += tl.load(bias_ptr + e, inside, 0.0).to(compute)
    quad = (first_edge // 4 + tl.arange(0, BE // 4))[None, :]
    row = tl.zeros((1, 1), tl.int32)
    u = _uniform(quad, row, tl.load(ids_ptr + b).to(tl.uint32), 1, seed).reshape(BE)
    tl.store(kept_ptr + b * E + e, _keep(gamma - _threshold(u.to(compute), beta, eps, LOGISTIC)), inside)


def compilations(dtype: str) -> list[Compilation]:
    """The kernels of this file as launched on the paper's skeleton with k = 3, and on an edge list of 4096 edges."""
    B, T, D, E, graph = 8, 60, 32, 4096, SkeletonGraph("coco18", 3)
    J, P, kind = graph.num_joints, graph.num_slots, DTYPES[dtype]
    known: dict[str, Any] = dict.fromkeys(("ptr_ptr", "order_ptr", "src_ptr", "dst_ptr", "offset_ptr"), torch.int32)
    known |= {"seed": -(2**40) - 1, "beta": 2.0, "eps": 1e-10, "slope": 0.5, "T": T, "J": J, "P": P, "N": T * J, "E": E, "D": D, "LOGISTIC": False}
    known |= dict.fromkeys(("ids_ptr", "lengths_ptr"), torch.int64) | dict.fromkeys(
        ("logits_ptr", "dkept_ptr", "dlogits_ptr", "q_ptr", "k_ptr"), kind
    )

    def one(name: str, kernel: Any, work: str, programs: int, moved: int, least: int, window: tuple[int, int] | None = None) -> Compilation:
        arguments = {parameter.name: known[parameter.name] for parameter in kernel.params}
        return Compilation(name, kernel, arguments, num_warps, work, programs, moved, least, window)

    (rows, columns), (programs,), tile, num_warps = _rows(torch.empty(B, P, T, device="meta"), graph.hops)
    known |= {"rows": rows, "columns": columns, "kept_ptr": kind, **tile}
    work, edges = f"B={B} T={T} k={graph.hops}", B * P * T * kind.itemsize
    found = [
        one("sample_edges", _sample, work, programs, 2 * edges, 2 * edges),
        one("sample_edges backward (sigmoid)", _sample_backward, work, programs, 3 * edges, 3 * edges),
    ]
    known |= {"logits_ptr": None, "ids_ptr": None}
    found.append(one("sample_edges backward (identity)", _sample_backward, work, programs, 2 * edges, 2 * edges))

    q = torch.empty(B, T, J, D, dtype=kind, device="meta")
    tile, num_warps = _slot_tile(q)
    BT, features = tile["BT"], q.nbytes
    known |= {"kept_ptr": torch.float32, "bias_ptr": torch.float32, "ids_ptr": torch.int64, **tile}
    least = 4 * B * P * T + 2 * features
    moved = least + (frames_read(T, BT, graph.hops) - T) * features // T
    window = feature_bytes(graph, BT, D * kind.itemsize)
    found.append(one("sample_edges from embeddings", _sample_slots, f"{work} D={D}", B * J * triton.cdiv(T, BT), moved, least, window))

    tile, num_warps = _list_tile(q)
    known |= tile
    least = 4 * B * E + 2 * features
    moved = 4 * B * E + 2 * B * E * D * kind.itemsize  # every edge reads both its ends
    window = (2 * tile["BE"] * D * kind.itemsize,) * 2
    programs = B * triton.cdiv(E, tile["BE"])
    found.append(one("sample_edges from embeddings (edge list)", _sample_list, f"B={B} N={T * J} E={E} D={D}", programs, moved, least, window))
    return found
