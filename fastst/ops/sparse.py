"""The products from which every operation is built, in torch operations: over a skeleton's block band, or over an edge list's CSR matrix.

With A[to, from] the matrix of edge values: `gather_sum` is A x, `scatter_sum` is Aᵀ y, `edge_dot` is (q kᵀ) at the edges. The gradients of each
are the other two. What stands at edges that don't exist and beyond a walk's length is not looked at, and 0 is written there.

A skeleton graph: with k empty frames between walks, the (2k+1)·J rows that frame t can see are one contiguous piece of memory. All frames
together are an overlapping view of it, and each product is one batched GEMM of [J, (2k+1)J] blocks. That is 4.4 times the arithmetic of the
edges at k = 3, and still faster than gathering them.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from fastst.graph_index import GraphIndex, edge_exists

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # torch says so once a process, to its users' surprise
HALF = (torch.bfloat16, torch.float16)


def mask_frames(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x with zeros from each walk's length on, whatever stood there.  # [B, T, ...]"""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # [B, T]
    return torch.where(inside.view(*inside.shape, *[1] * (x.ndim - 2)), x, 0)


def mask_edges(values: Tensor, offset: Tensor, lengths: Tensor | None) -> Tensor:
    """Edge values with zeros where no edge exists.  # [..., P, T]"""
    return torch.where(edge_exists(offset, values.shape[-1], lengths), values, 0)


def gather_sum(x: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """y[t, dst] = Σ values[p, t] x[t + offset, src] (+ diagonal[t, dst] x[t, dst]).

    x `[B, T, J, C]`, values `[B, P, T]`, diagonal `[B, T, J]` -> `[B, T, J, C]` in x's dtype.
    """
    x, values, diagonal = _masked(x, values, index, lengths, diagonal)
    if hops == 0:
        y = _csr_product(x, values, index.dst_ptr, index.dst_order, index.src)
        return y if diagonal is None else y + diagonal[..., None].to(x.dtype) * x
    return _banded_product(x, values, index.dst, index.src, index.offset, hops, diagonal)


def _banded_product(x: Tensor, values: Tensor, to: Tensor, from_: Tensor, offset: Tensor, hops: int, diagonal: Tensor | None) -> Tensor:
    B, T, J, C = x.shape
    column = (to * (2 * hops + 1) + offset + hops) * J + from_
    blocks = _blocks(values.to(x.dtype), column, J, hops, diagonal)
    return torch.bmm(blocks, _windows(x, hops)).view(B, T + hops, J, C)[:, :T]


def scatter_sum(y: Tensor, values: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
    """x[s, src] = Σ values[p, s - offset] y[s - offset, dst] (+ diagonal[s, src] y[s, src]): `gather_sum` with the transposed matrix."""
    y, values, diagonal = _masked(y, values, index, lengths, diagonal)
    if hops == 0:
        x = _csr_product(y, values, index.src_ptr, index.src_order, index.dst)
        return x if diagonal is None else x + diagonal[..., None].to(y.dtype) * y
    T = values.shape[2]
    target = torch.arange(T, device=y.device) - index.offset[:, None]  # the frame in which the edge out of frame s ends  [P, T]
    shifted = values.gather(2, target.clamp(0, T - 1).expand(values.shape))
    shifted = torch.where((target >= 0) & (target < T), shifted, 0)
    return _banded_product(y, shifted, index.src, index.dst, -index.offset, hops, diagonal)


def edge_dot(q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """values[p, t] = q[t, dst] · k[t + offset, src], 0 where no edge exists: q, k `[B, T, J, D]` -> `[B, P, T]`, in `dtype` or at least float32."""
    q, k = mask_frames(q, lengths), mask_frames(k, lengths)
    if q.dtype in HALF:
        q, k = q.float(), k.float()
    B, T, J, D = q.shape
    if hops == 0:
        return _csr_edge_dot(q, k, index).to(dtype or q.dtype)  # every edge of an edge list exists
    queries = q.new_zeros(B, T + hops, J, D)
    queries[:, :T] = q
    blocks = torch.bmm(queries.view(-1, J, D), _windows(k, hops).transpose(1, 2))
    column = (index.dst * (2 * hops + 1) + index.offset + hops) * J + index.src
    values = blocks.view(B, T + hops, J * (2 * hops + 1) * J)[:, :T].index_select(2, column).transpose(1, 2)
    return mask_edges(values, index.offset, lengths).to(dtype or q.dtype)


def edge_and_node_dot(
    q: Tensor, k: Tensor, index: GraphIndex, hops: int, lengths: Tensor | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """`edge_dot` and, at every node, q · k, both in `dtype`.  # [B, P, T], [B, T, J]"""
    edges, nodes = edge_dot(q, k, index, hops, lengths, dtype), node_dot(q, k, 1, lengths).squeeze(-1)
    return edges, nodes.to(edges.dtype)


def node_dot(a: Tensor, b: Tensor, heads: int, lengths: Tensor | None) -> Tensor:
    """a · b of every node, head by head; 0 beyond the lengths.  # [B, T, J, C] twice -> [B, T, J, heads], at least float32"""
    dtype = torch.promote_types(a.dtype, torch.float32)
    return mask_frames((a.to(dtype) * b.to(dtype)).unflatten(-1, (heads, -1)).sum(-1), lengths)


def _masked(x: Tensor, values: Tensor, index: GraphIndex, lengths: Tensor | None, diagonal: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    diagonal = None if diagonal is None else mask_frames(diagonal, lengths)
    return mask_frames(x, lengths), mask_edges(values, index.offset, lengths), diagonal


def _windows(x: Tensor, hops: int) -> Tensor:
    """For every frame the rows of the frames within `hops` of it, as a view of x with `hops` empty frames after each walk.

    Frame t of walk b is window b * (T + hops) + t; the last `hops` windows of each walk belong to no frame.  # [B * (T + hops), (2 hops + 1) * J, C]
    """
    B, T, J, C = x.shape
    frames = x.new_zeros(B * (T + hops) + 2 * hops, J, C)
    frames[hops:-hops].view(B, T + hops, J, C)[:, :T] = x
    return frames.as_strided((B * (T + hops), (2 * hops + 1) * J, C), (J * C, C, 1))


def _blocks(values: Tensor, column: Tensor, J: int, hops: int, diagonal: Tensor | None) -> Tensor:
    """Edge values as one matrix a window, rows to, columns the rows of `_windows`.  # [B * (T + hops), J, (2 hops + 1) * J]"""
    B, _, T = values.shape
    width = (2 * hops + 1) * J
    blocks = values.new_zeros(B, T + hops, J * width)
    blocks[:, :T].index_copy_(2, column.long(), values.transpose(1, 2))
    if diagonal is not None:  # beside a loop of the graph, if it has one
        own = blocks[:, :T, hops * J :: width + 1]
        own += diagonal.to(values.dtype)
    return blocks.view(-1, J, width)


def _csr_product(x: Tensor, values: Tensor, ptr: Tensor, order: Tensor, source: Tensor) -> Tensor:
    """Σ over the edges of every row: the batch is one block-diagonal CSR matrix.  # x [B, 1, N, C], values [B, E, 1]"""
    B, _, N, C = x.shape
    dtype = torch.float32 if x.dtype in HALF else x.dtype  # there is no CSR product of half precision on CPUs
    matrix = _csr_matrix(values.squeeze(-1)[:, order.long()].to(dtype), ptr, source[order.long()], N)
    return (matrix @ x.reshape(B * N, C).to(dtype)).view(B, 1, N, C).to(x.dtype)


def _csr_edge_dot(q: Tensor, k: Tensor, index: GraphIndex) -> Tensor:
    B, _, N, D = q.shape
    if index.num_slots > N * N:  # with parallel edges; torch takes no pattern with more entries than the matrix has
        return (q.squeeze(1) @ k.squeeze(1).transpose(1, 2))[:, index.dst.long(), index.src.long()].unsqueeze(-1)
    order = index.dst_order.long()
    pattern = _csr_matrix(q.new_zeros(B, len(order)), index.dst_ptr, index.src[order], N)
    dots = torch.sparse.sampled_addmm(pattern, q.reshape(B * N, D), k.reshape(B * N, D).T).values()
    values = torch.empty_like(dots).view(B, len(order))
    values[:, order] = dots.view(B, len(order))
    return values.unsqueeze(-1)


def _csr_matrix(values: Tensor, ptr: Tensor, column: Tensor, N: int) -> Tensor:
    """The block-diagonal matrix of a batch: values `[B, E]` in row order, row pointers `[N + 1]`, columns `[E]`.  # [B * N, B * N] CSR"""
    B, E = values.shape
    walk = torch.arange(B, device=values.device)[:, None]
    rows = torch.cat(((ptr[:-1].long() + walk * E).view(-1), walk.new_full((1,), B * E)))  # made on the device: a copy there would be waited for
    return torch.sparse_csr_tensor(rows, (column.long() + walk * N).view(-1), values.reshape(-1), (B * N, B * N), check_invariants=False)
