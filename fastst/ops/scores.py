"""The scores of GATv2 and their softmax over a node's edges, in torch operations that hold a few slots' messages at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst.graph_index import GraphIndex, edge_exists

_SLOTS_AT_ONCE = 4  # per joint: how many messages are held at a time, in units of the features' size


def compute_dtype(x: Tensor) -> torch.dtype:
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


def edge_scores(
    senders: Tensor,
    receivers: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    edge_attr: Tensor | None = None,
) -> Tensor:
    """att · LeakyReLU(from + to + edge_attr) for every edge and head, -inf where no edge exists.  # [P, B, T, heads]"""
    (B, T, J, _), hops = senders.shape, len(slots_of_offset) // 2
    source, target = _joints_first(senders, hops), _joints_first(receivers, 0)
    scores = senders.new_empty(len(index.src), B, T, len(att))
    for offset, slots in _slot_groups(index, slots_of_offset, J):
        hidden = _hidden(source[:, :, hops + offset :][:, :, :T], target, edge_attr, slots, index, lengths)
        scores[slots] = torch.einsum("pbthc,hc->pbth", leaky_relu(hidden, negative_slope).unflatten(-1, att.shape), att)
    exists = edge_exists(index.offset, T, lengths).transpose(0, 1).unsqueeze(-1)  # [P, B or 1, T, 1]
    return scores.masked_fill_(~exists, float("-inf"))


def edge_scores_backward(
    dscores: Tensor,
    senders: Tensor,
    receivers: Tensor,
    att: Tensor,
    lengths: Tensor | None,
    index: GraphIndex,
    slots_of_offset: Sequence[int],
    negative_slope: float,
    edge_attr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The gradients of senders, receivers, att and edge_attr through the scores; dscores is 0 where no edge exists."""
    (B, T, J, C), hops = senders.shape, len(slots_of_offset) // 2
    source, target = _joints_first(senders, hops), _joints_first(receivers, 0)
    dsource, dtarget, datt = torch.zeros_like(source), torch.zeros_like(target), torch.zeros_like(att)
    dedges = None if edge_attr is None else torch.zeros_like(edge_attr, dtype=senders.dtype)
    for offset, slots in _slot_groups(index, slots_of_offset, J):
        start = hops + offset
        hidden, dscore = _hidden(source[:, :, start : start + T], target, edge_attr, slots, index, lengths), dscores[slots]
        datt += torch.einsum("pbth,pbthc->hc", dscore, leaky_relu(hidden, negative_slope).unflatten(-1, att.shape))
        slope = torch.where(hidden > 0, hidden.new_ones(()), negative_slope).unflatten(-1, att.shape)
        message = slope.mul_(att).mul_(dscore.unsqueeze(-1)).flatten(1)  # [slots, B * T * C]
        dsource[:, :, start : start + T] += (_incidence(index.src[slots].long(), J, message.dtype) @ message).view(J, B, T, C)
        dtarget += (_incidence(index.dst[slots].long(), J, message.dtype) @ message).view(J, B, T, C)
        if dedges is not None:
            dedges[:, slots] = message.view(len(slots), B, T, C).transpose(0, 1).sum_to_size(dedges[:, slots].shape)
    return dsource[:, :, hops : hops + T].permute(1, 2, 0, 3), dtarget.permute(1, 2, 0, 3), datt, dedges


def _hidden(source: Tensor, target: Tensor, edge_attr: Tensor | None, slots: Tensor, index: GraphIndex, lengths: Tensor | None) -> Tensor:
    """from + to + edge_attr of some slots; what stands at edges that don't exist is left out.  # [slots, B, T, C]"""
    hidden = source[index.src[slots].long()].add_(target[index.dst[slots].long()])
    if edge_attr is not None:  # [B or 1, P, T or 1, C]
        exists = edge_exists(index.offset[slots], source.shape[2], lengths).unsqueeze(-1)
        hidden += torch.where(exists, edge_attr[:, slots].to(hidden.dtype), 0).transpose(0, 1)
    return hidden


def _incidence(joints: Tensor, num_joints: int, dtype: torch.dtype) -> Tensor:
    """The matrix that sums the rows of equal joint, in a fixed order.  # [J, len(joints)] CSR"""
    rows = torch.searchsorted(joints.sort().values, torch.arange(num_joints + 1, device=joints.device))
    ones = torch.ones(len(joints), dtype=dtype, device=joints.device)
    order = joints.argsort(stable=True)
    return torch.sparse_csr_tensor(rows, order, ones, (num_joints, len(joints)), check_invariants=False)


def sum_into_nodes(values: Tensor, index: GraphIndex, num_joints: int) -> Tensor:
    """Σ over the edges into every node.  # [P, B, T, heads] -> [J, B, T, heads]"""
    return (_incidence(index.dst.long(), num_joints, values.dtype) @ values.flatten(1)).view(num_joints, *values.shape[1:])


def log_sum_exp(scores: Tensor, index: GraphIndex, num_joints: int) -> Tensor:
    """Over the edges into every node; -inf for a node without edges.  # [J, B, T, heads]"""
    _, B, T, heads = scores.shape
    dst = index.dst.long()
    largest = scores.new_full((num_joints, B, T, heads), float("-inf"))
    largest.scatter_reduce_(0, dst.view(-1, 1, 1, 1).expand(scores.shape), scores, "amax")
    shift = torch.where(largest.isinf(), 0, largest)
    return sum_into_nodes((scores - shift[dst]).exp_(), index, num_joints).log_().add_(shift)


def softmax(scores: Tensor, log_sum: Tensor, index: GraphIndex) -> Tensor:
    """α of every edge; 0 where no edge exists.  # [P, B, T, heads]"""
    return (scores - torch.where(log_sum.isneginf(), 0, log_sum)[index.dst.long()]).exp_()
