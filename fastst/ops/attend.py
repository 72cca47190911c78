"""GATv2 attention along the edges."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst.graph import Graph, GraphIndex, edge_exists
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_device, check_float, check_lengths, check_nodes, lower
from fastst.ops.propagate import dense_adjacency
from fastst.ops.registration import operation

_SLOTS_AT_ONCE = 4  # per joint: how many messages the torch backend holds at a time, in units of the features' size


def attend(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    graph: Graph,
    heads: int,
    negative_slope: float = 0.2,
    lengths: Tensor | None = None,
    *,
    add_self_loops: bool = False,
) -> Tensor:
    """y[t, dst] = Σ α[p, t] x_src[t + offset, src], α the softmax over the edges into (t, dst) of att · LeakyReLU(x_src[from] + x_dst[to]).

    GATv2 of Brody et al. (2022) without its linear layers, head by head. On the projected features it equals `torch_geometric.nn.GATv2Conv`
    with the same `add_self_loops`, which is True there by default. A node without edges gets 0.

    Args:
        x_src: `[B, T, J, C]`, or `[B, N, C]` for an `EdgeList`; the projected features of senders. Channels are `heads` groups of C / heads.
        x_dst: the same shape; the projected features of receivers.
        att: `[heads, C // heads]`.
        lengths: `[B]` frames of every walk.
        add_self_loops: every node is among its own neighbours, whether the graph brings a loop for it or not.

    Returns:
        The shape and dtype of x_src.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, named.
    """
    senders = check_nodes("x_src", x_src, graph)
    if add_self_loops:  # one each
        graph = graph.without_loops.with_loops if graph.parallel else graph.with_loops
    receivers = check_nodes("x_dst", x_dst, graph, like=("x_src", x_src))
    C = x_src.shape[-1]
    if heads < 1 or C % heads:
        raise ValueError(f"heads must divide the channels C = {C}, got {heads}")
    check_float("att", att)
    if list(att.shape) != [heads, C // heads]:
        raise ValueError(f"att must be [heads, C // heads] = {[heads, C // heads]}, got {list(att.shape)}")
    check_device("att", att, "x_src", x_src)
    lengths = check_lengths(lengths, graph, x_src.shape[0], ("x_src", x_src))
    backend = current_backend(x_src.device.type)
    if backend == "reference":
        return lower(graph, reference(senders, receivers, att, graph, negative_slope, lengths), 1)
    index = graph.index(x_src.device)
    y, _ = _forward(senders, receivers, att, lengths, *index, graph.slots_of_offset, float(negative_slope), backend)
    return lower(graph, y, 1)


def reference(x_src: Tensor, x_dst: Tensor, att: Tensor, graph: Graph, negative_slope: float, lengths: Tensor | None) -> Tensor:
    """All pairs of nodes, those without an edge masked out of the softmax."""
    B, T, J, C = x_src.shape
    heads = len(att)
    edges = x_src.new_ones(B, graph.num_slots, T)
    adjacent = dense_adjacency(edges, graph, lengths).bool().unsqueeze(-1)  # [B, to, from, 1]
    senders, receivers = (sparse.mask_frames(x, lengths).reshape(B, T * J, heads, C // heads) for x in (x_src, x_dst))
    scores = (leaky_relu(senders[:, None] + receivers[:, :, None], negative_slope) * att.to(x_src.dtype)).sum(-1)  # [B, to, from, heads]
    alpha = torch.softmax(scores.masked_fill(~adjacent, float("-inf")), 2)
    alpha = torch.where(adjacent.any(2, keepdim=True), alpha, 0)
    return torch.einsum("bijh,bjhc->bihc", alpha, senders).reshape(x_src.shape)


@operation("attend")
def _forward(
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Also returns log Σ exp of the scores into every node, from which the backward finds α again.  # [B, T, J, heads]"""
    graph, dtype, hops = GraphIndex(slots, bounds), _dtype(x_src), len(slots_of_offset) // 2
    kernels = compiled("attend", backend)
    if kernels is not None:
        return kernels.attend(x_src, x_dst, att, graph, hops, lengths, negative_slope)
    senders, receivers, att = (x.to(dtype) for x in (sparse.mask_frames(x_src, lengths), sparse.mask_frames(x_dst, lengths), att))
    scores = _edge_scores(senders, receivers, att, lengths, graph, slots_of_offset, negative_slope)
    log_sum = _log_sum_exp(scores, graph, x_src.shape[2])
    alpha = _softmax(scores, log_sum, graph)
    y = sparse.gather_sum(_fold_heads(senders, len(att)), _fold_edges(alpha), graph, hops, _fold_lengths(lengths, len(att)))
    return _unfold_heads(y, len(att)).to(x_src.dtype), log_sum.permute(1, 2, 0, 3)


@_forward.register_fake
def _(x_src, x_dst, att, lengths, slots, bounds, slots_of_offset, negative_slope, backend):
    return x_src.new_empty(x_src.shape), x_src.new_empty(*x_src.shape[:3], att.shape[0], dtype=_dtype(x_src))


@operation("attend_backward")
def _backward(
    dy: Tensor,
    y: Tensor,
    log_sum: Tensor,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    graph, dtype, heads, hops = GraphIndex(slots, bounds), _dtype(x_src), len(att), len(slots_of_offset) // 2
    kernels = compiled("attend", backend)
    if kernels is not None:
        return kernels.attend_backward(dy, y, log_sum, x_src, x_dst, att, graph, hops, lengths, negative_slope)
    senders, receivers = (sparse.mask_frames(x, lengths).to(dtype) for x in (x_src, x_dst))
    dy = sparse.mask_frames(dy, lengths).to(dtype)
    scores = _edge_scores(senders, receivers, att.to(dtype), lengths, graph, slots_of_offset, negative_slope)
    alpha = _softmax(scores, log_sum.permute(2, 0, 1, 3), graph)  # [P, B, T, heads]
    folded_dy, folded_lengths = _fold_heads(dy, heads), _fold_lengths(lengths, heads)
    dsenders = _unfold_heads(sparse.scatter_sum(folded_dy, _fold_edges(alpha), graph, hops, folded_lengths), heads)
    dalpha = _unfold_edges(sparse.edge_dot(folded_dy, _fold_heads(senders, heads), graph, hops, folded_lengths), heads)
    # dα of the softmax: α (dα - Σ α dα), and the sum over a node's edges is y · dy.
    mean = sparse.node_dot(y, dy, heads, lengths).permute(2, 0, 1, 3)  # [J, B, T, heads]
    dscores = alpha * (dalpha - mean[graph.dst.long()])
    through_src, dreceivers, datt = _edge_scores_backward(dscores, senders, receivers, att.to(dtype), graph, slots_of_offset, negative_slope)
    return (dsenders + through_src).to(x_src.dtype), dreceivers.to(x_dst.dtype), datt.to(att.dtype)


@_backward.register_fake
def _(dy, y, log_sum, x_src, x_dst, att, lengths, slots, bounds, slots_of_offset, negative_slope, backend):
    return x_src.new_empty(x_src.shape), x_dst.new_empty(x_dst.shape), att.new_empty(att.shape)


def _dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _slot_groups(index: GraphIndex, slots_of_offset: Sequence[int], num_joints: int) -> list[tuple[int, Tensor]]:
    """Frame offset and slot numbers of pieces small enough to hold their messages at once. How many slots have an offset is known on the host:
    to count them here would be to wait for a GPU."""
    groups = index.offset.argsort(stable=True).split(list(slots_of_offset))
    hops = len(slots_of_offset) // 2
    return [(place - hops, piece) for place, slots in enumerate(groups) for piece in slots.split(_SLOTS_AT_ONCE * num_joints)]


def _joints_first(x: Tensor, hops: int) -> Tensor:
    """With `hops` empty frames at both ends: taking joints is then copying long rows, and an offset is a slice.  # [J, B, T + 2 hops, C]"""
    B, T, J, C = x.shape
    padded = x.new_zeros(J, B, T + 2 * hops, C)
    padded[:, :, hops : hops + T] = x.permute(2, 0, 1, 3)
    return padded


def _edge_scores(
    senders: Tensor,
    receivers: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    slots_of_offset: Sequence[int],
    negative_slope: float,
) -> Tensor:
    """att · LeakyReLU(from + to) for every edge and head, -inf where no edge exists.  # [P, B, T, heads]"""
    (B, T, J, _), hops = senders.shape, len(slots_of_offset) // 2
    source, target = _joints_first(senders, hops), _joints_first(receivers, 0)
    scores = senders.new_empty(len(index.src), B, T, len(att))
    for offset, slots in _slot_groups(index, slots_of_offset, J):
        start = hops + offset
        hidden = source[:, :, start : start + T][index.src[slots].long()].add_(target[index.dst[slots].long()])
        scores[slots] = torch.einsum("pbthc,hc->pbth", leaky_relu(hidden, negative_slope).unflatten(-1, att.shape), att)
    exists = edge_exists(index.offset, T, lengths).transpose(0, 1).unsqueeze(-1)  # [P, B or 1, T, 1]
    return scores.masked_fill_(~exists, float("-inf"))


def _edge_scores_backward(
    dscores: Tensor, senders: Tensor, receivers: Tensor, att: Tensor, index: GraphIndex, slots_of_offset: Sequence[int], negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of senders, receivers and att through the scores."""
    (B, T, J, C), hops = senders.shape, len(slots_of_offset) // 2
    source, target = _joints_first(senders, hops), _joints_first(receivers, 0)
    dsource, dtarget, datt = torch.zeros_like(source), torch.zeros_like(target), torch.zeros_like(att)
    for offset, slots in _slot_groups(index, slots_of_offset, J):
        start, src, dst = hops + offset, index.src[slots].long(), index.dst[slots].long()
        hidden = source[:, :, start : start + T][src].add_(target[dst])
        dscore = dscores[slots]
        datt += torch.einsum("pbth,pbthc->hc", dscore, leaky_relu(hidden, negative_slope).unflatten(-1, att.shape))
        slope = torch.where(hidden > 0, hidden.new_ones(()), negative_slope).unflatten(-1, att.shape)
        message = slope.mul_(att).mul_(dscore.unsqueeze(-1)).flatten(1)  # [slots, B * T * C]
        dsource[:, :, start : start + T] += (_incidence(src, J, message.dtype) @ message).view(J, B, T, C)
        dtarget += (_incidence(dst, J, message.dtype) @ message).view(J, B, T, C)
    return dsource[:, :, hops : hops + T].permute(1, 2, 0, 3), dtarget.permute(1, 2, 0, 3), datt


def _incidence(joints: Tensor, num_joints: int, dtype: torch.dtype) -> Tensor:
    """The matrix that sums the rows of equal joint, in a fixed order.  # [J, len(joints)] CSR"""
    rows = torch.searchsorted(joints.sort().values, torch.arange(num_joints + 1, device=joints.device))
    ones = torch.ones(len(joints), dtype=dtype, device=joints.device)
    order = joints.argsort(stable=True)
    return torch.sparse_csr_tensor(rows, order, ones, (num_joints, len(joints)), check_invariants=False)


def _log_sum_exp(scores: Tensor, index: GraphIndex, num_joints: int) -> Tensor:
    """Over the edges into every node; -inf for a node without edges.  # [J, B, T, heads]"""
    _, B, T, heads = scores.shape
    dst = index.dst.long()
    largest = scores.new_full((num_joints, B, T, heads), float("-inf"))
    largest.scatter_reduce_(0, dst.view(-1, 1, 1, 1).expand(scores.shape), scores, "amax")
    shift = torch.where(largest.isinf(), 0, largest)
    terms = (scores - shift[dst]).exp_().flatten(1)
    total = (_incidence(dst, num_joints, scores.dtype) @ terms).view(largest.shape)
    return total.log_().add_(shift)


def _softmax(scores: Tensor, log_sum: Tensor, index: GraphIndex) -> Tensor:
    """α of every edge; 0 where no edge exists.  # [P, B, T, heads]"""
    return (scores - torch.where(log_sum.isneginf(), 0, log_sum)[index.dst.long()]).exp_()


def _fold_heads(x: Tensor, heads: int) -> Tensor:
    """Heads become batch.  # [B, T, J, C] -> [B * heads, T, J, C / heads]"""
    return x.unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)


def _fold_lengths(lengths: Tensor | None, heads: int) -> Tensor | None:
    return None if lengths is None else lengths.repeat_interleave(heads)


def _unfold_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(0, (-1, heads)).permute(0, 2, 3, 1, 4).flatten(-2)


def _fold_edges(values: Tensor) -> Tensor:
    """[P, B, T, heads] -> [B * heads, P, T]"""
    return values.permute(1, 3, 0, 2).flatten(0, 1)


def _unfold_edges(values: Tensor, heads: int) -> Tensor:
    return values.unflatten(0, (-1, heads)).permute(2, 0, 3, 1)


def _setup_context(ctx, inputs, output):
    x_src, x_dst, att, lengths, slots, bounds, ctx.slots_of_offset, ctx.negative_slope, ctx.backend = inputs
    y, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(y, log_sum, x_src, x_dst, att, lengths, slots, bounds)


def _autograd(ctx, dy, _):
    y, log_sum, x_src, x_dst, att, lengths, slots, bounds = ctx.saved_tensors
    rest = ctx.slots_of_offset, ctx.negative_slope, ctx.backend
    dsrc, ddst, datt = _backward(dy, y, log_sum, x_src, x_dst, att, lengths, slots, bounds, *rest)
    return dsrc, ddst, datt, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
