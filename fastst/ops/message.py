"""Messages made of a node and an edge: what graph convolutions with edge features sum up."""

from typing import Any

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph
from fastst.graph_index import GraphIndex, edge_exists
from fastst.ops import sparse
from fastst.ops.backends import compiled, current_backend
from fastst.ops.checks import check_device, check_float, check_lengths, check_nodes, check_shared_weights
from fastst.ops.lifting import lift, receiver_frames, spread
from fastst.ops.registration import operation

ACTIVATIONS = ("relu", "leaky_relu", "none")
_SLOTS_AT_ONCE = 4  # per joint: how many messages the torch backend holds at a time, in units of the features' size


def message(
    x: Tensor,
    edge_attr: Tensor,
    edge_weight: Tensor | None,
    graph: Graph,
    activation: str = "relu",
    lengths: Tensor | None = None,
    *,
    negative_slope: float = 0.01,
) -> Tensor:
    """y[t, dst] = Σ over edges (p, t) into dst of edge_weight[p, t] · act(x[t + offset[p], src[p]] + edge_attr[p, t]).

    With ReLU and weights of 1 it is the sum of GINE (Hu et al. 2020), `torch_geometric.nn.GINEConv` without what it does to the sum. No message is
    stored: of edge size there are only `edge_attr` and its gradient. Sums are accumulated in float32 or better.

    Args:
        x: `[B, T, J, C]`, or `[B, N, C]` for an `EdgeList`; the features of the senders.
        edge_attr: `[B, P, T, C]`, or `[B, E, C]`. What all frames share may be given once, `[B, P, 1, C]`; what all walks share too, `[P, C]` or
            `[E, C]`. Values at edges that don't exist are ignored.
        edge_weight: `[B, P, T]`, `[B, E]`, or shared as in `propagate`; None for 1.
        activation: "relu", "leaky_relu" or "none".
        lengths: `[B]` frames of every walk. Frames beyond are neither read nor written (their result is 0).
        negative_slope: of "leaky_relu".

    Returns:
        The dtype and shape of x, but for the frames and nodes where the receivers are other nodes. Gradients flow to x, edge_attr and edge_weight
        (every existing edge, of weight 0 too).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, or an unknown activation, named.

    Examples:
        >>> import torch
        >>> from fastst import EdgeList, ops
        >>> graph = EdgeList([[0, 1], [2, 2]], num_nodes=3)
        >>> x, edge_attr = torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([[[0.5], [-9.0]]])
        >>> ops.message(x, edge_attr, None, graph)
        tensor([[[0.0000],
                 [0.0000],
                 [1.5000]]])
    """
    nodes = check_nodes("x", x, graph)
    B, T = nodes.shape[0], receiver_frames(graph, nodes.shape[1])
    edges = _check_edge_attr(edge_attr, graph, x, B, T)
    weight = nodes.new_ones(()).expand(B, graph.num_slots, T)
    if edge_weight is not None:
        weight = spread(check_shared_weights("edge_weight", edge_weight, graph, B, T), B, -1, T)
        check_device("edge_weight", edge_weight, "x", x)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    slope = {"relu": 0.0, "leaky_relu": float(negative_slope), "none": 1.0}[activation]
    lifted = lift(graph, nodes.shape[1], check_lengths(lengths, graph, B, ("x", x)), x.device)
    if lifted.exists is not None:
        edges, weight = lifted.edge_features(edges).expand(B, -1, T, -1), lifted.edges(weight)
    nodes, backend = lifted.senders(nodes), current_backend(x.device.type)
    if backend == "reference":
        return lifted.lower(reference(nodes, edges, weight, graph, slope, lifted.lengths))
    return lifted.lower(_forward(nodes, edges, weight, lifted.lengths, *graph.index(x.device), graph.hops, slope, backend))


def _check_edge_attr(edge_attr: Tensor, graph: Graph, x: Tensor, B: int, T: int) -> Tensor:
    """Lifted to `[B, P, T, C]`, with 1 for T where frames share it, for B and T where walks do."""
    check_float("edge_attr", edge_attr)
    P, C, is_list = graph.num_slots, x.shape[-1], isinstance(graph, EdgeList)
    whole = edge_attr[None] if edge_attr.ndim == 2 else edge_attr
    whole = whole.unsqueeze(2) if edge_attr.ndim == 2 or is_list else whole
    if tuple(whole.shape) not in ((B, P, T, C), (B, P, 1, C), (1, P, 1, C)) or (is_list and edge_attr.ndim > 3):
        expected = f"[B, E, C] or [E, C] with B = {B}, E = {P}" if is_list else f"[B, P, T, C], [B, P, 1, C] or [P, C] with B = {B}, P = {P}, T = {T}"
        raise ValueError(f"edge_attr must be {expected}, C = {C}, got {list(edge_attr.shape)}")
    if edge_attr.dtype != x.dtype:
        raise TypeError(f"edge_attr must have the dtype of x, {x.dtype}, got {edge_attr.dtype}")
    check_device("edge_attr", edge_attr, "x", x)
    return whole


def reference(x: Tensor, edge_attr: Tensor, weight: Tensor, graph: Graph, negative_slope: float, lengths: Tensor | None) -> Tensor:
    """All messages, then their sums."""
    (B, T, J, C), dtype = x.shape, torch.promote_types(x.dtype, torch.float32)
    index = graph.index(x.device)
    exists = edge_exists(index.offset, T, lengths).expand(B, -1, T)
    source = (torch.arange(T, device=x.device) + index.offset[:, None]).clamp(0, T - 1)  # [P, T]
    edges = torch.where(exists[..., None], edge_attr.expand(B, -1, T, C), 0)
    hidden = sparse.mask_frames(x, lengths).to(dtype)[:, source, index.src.long()[:, None]] + edges  # [B, P, T, C]
    messages = torch.where(exists, weight, 0).to(dtype)[..., None] * _act(hidden, negative_slope)
    y = messages.new_zeros(B, T, J, C).index_add(2, index.dst.long(), messages.transpose(1, 2))
    return sparse.mask_frames(y, lengths).to(x.dtype)


def _act(hidden: Tensor, negative_slope: float) -> Tensor:
    if negative_slope == 1:
        return hidden
    return torch.nn.functional.leaky_relu(hidden, negative_slope) if negative_slope else hidden.relu()


@operation("message")
def _forward(
    x: Tensor,
    edge_attr: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    negative_slope: float,
    backend: str,
) -> Tensor:
    graph, kernels = GraphIndex(slots, bounds), compiled("message", backend)
    if kernels is not None:
        return kernels.message(x, edge_attr, weight, graph, hops, lengths, negative_slope)
    (B, T, J, _), senders = x.shape, _nodes_first(x, lengths)
    total = torch.zeros_like(senders)
    for piece in _pieces(graph, J):
        source, target, exists = _ends(graph, piece, B, T, J, lengths)
        hidden = senders[source] + _edges_first(edge_attr, piece, T, senders.dtype)
        rows = _edges_first(weight[..., None], piece, T, senders.dtype) * _act(hidden, negative_slope)
        _add_rows(total, target, torch.where(exists, rows, 0))
    return total.transpose(0, 1).reshape(x.shape).to(x.dtype)


@_forward.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


@operation("message_backward")
def _backward(
    dy: Tensor,
    x: Tensor,
    edge_attr: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    negative_slope: float,
    wants_edges: bool,
    wants_weights: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, and of edge_attr and weight where they are wanted."""
    graph, kernels, wants = GraphIndex(slots, bounds), compiled("message", backend), (wants_edges, wants_weights)
    if kernels is not None:
        dx, dedges, dweight = kernels.message_backward(dy, x, edge_attr, weight, graph, hops, lengths, negative_slope, *wants)
    else:
        dx, dedges, dweight = _backward_in_pieces(dy, x, edge_attr, weight, graph, lengths, negative_slope)
    return dx, dedges if wants_edges else edge_attr.new_empty(0), dweight if wants_weights else weight.new_empty(0)


@_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    edge_attr: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    slots: Tensor,
    bounds: Tensor,
    hops: int,
    negative_slope: float,
    wants_edges: bool,
    wants_weights: bool,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), edge_attr.new_empty(edge_attr.shape if wants_edges else 0), weight.new_empty(weight.shape if wants_weights else 0)


def _backward_in_pieces(
    dy: Tensor, x: Tensor, edge_attr: Tensor, weight: Tensor, graph: GraphIndex, lengths: Tensor | None, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, J, _), senders, arriving = x.shape, _nodes_first(x, lengths), _nodes_first(dy, lengths)
    total, dedges, dweight = torch.zeros_like(senders), edge_attr.new_empty(edge_attr.shape), weight.new_empty(weight.shape)
    for piece in _pieces(graph, J):
        source, target, exists = _ends(graph, piece, B, T, J, lengths)
        hidden = senders[source] + _edges_first(edge_attr, piece, T, senders.dtype)
        through = arriving[target]
        dots = torch.where(exists, _act(hidden, negative_slope) * through, 0).sum(-1)  # [S * T, B]
        slope = (~(hidden <= 0)).to(hidden.dtype) if negative_slope == 0 else torch.where(hidden > 0, 1, hidden.new_tensor(negative_slope))
        rows = torch.where(exists, slope.mul_(through).mul_(_edges_first(weight[..., None], piece, T, senders.dtype)), 0)
        _add_rows(total, source, rows)
        dweight[:, piece] = dots.unflatten(0, (len(piece), T)).permute(2, 0, 1).to(weight.dtype)
        dedges[:, piece] = rows.unflatten(0, (len(piece), T)).permute(2, 0, 1, 3).sum_to_size(dedges[:, piece].shape).to(edge_attr.dtype)
    return total.transpose(0, 1).reshape(x.shape).to(x.dtype), dedges, dweight


def _pieces(graph: GraphIndex, num_joints: int) -> tuple[Tensor, ...]:
    """Numbers of slots, few enough to hold their messages at once."""
    return torch.arange(graph.num_slots, device=graph.slots.device).split(_SLOTS_AT_ONCE * num_joints) if graph.num_slots else ()


def _nodes_first(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Rows of the nodes of a walk, 0 beyond the lengths, in at least float32.  # [B, T, J, C] -> [T * J, B, C]"""
    return sparse.mask_frames(x, lengths).flatten(1, 2).transpose(0, 1).to(torch.promote_types(x.dtype, torch.float32))


def _edges_first(values: Tensor, piece: Tensor, T: int, dtype: torch.dtype) -> Tensor:
    """[B or 1, P, T or 1, C] -> [slots of the piece * T, B or 1, C]"""
    return values[:, piece].permute(1, 2, 0, 3).expand(-1, T, -1, -1).flatten(0, 1).to(dtype)


def _ends(graph: GraphIndex, piece: Tensor, B: int, T: int, J: int, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes from which and to which a piece's edges go, `[S * T]`; and whether they exist, `[S * T, B or 1, 1]`. Those that don't go anywhere."""
    frame = torch.arange(T, device=piece.device)
    offset, src, dst = (numbers[piece].long()[:, None] for numbers in (graph.offset, graph.src, graph.dst))
    source, target = (frame + offset).clamp(0, T - 1) * J + src, frame * J + dst
    exists = edge_exists(graph.offset[piece], T, lengths)  # [B or 1, S, T]
    return source.flatten(), target.flatten(), exists.permute(1, 2, 0).flatten(0, 1).unsqueeze(-1)


def _add_rows(total: Tensor, nodes: Tensor, rows: Tensor) -> None:
    """total[nodes[i]] += rows[i], in a fixed order.  # [N, B, C], [R], [R, B, C]"""
    N, R = len(total), len(nodes)
    first = torch.searchsorted(nodes.sort().values, torch.arange(N + 1, device=nodes.device))
    ones = torch.ones(R, dtype=rows.dtype, device=rows.device)
    incidence = torch.sparse_csr_tensor(first, nodes.argsort(stable=True), ones, (N, R), check_invariants=False)
    total += (incidence @ rows.flatten(1)).view(total.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, edge_attr, weight, lengths, slots, bounds, ctx.hops, ctx.negative_slope, ctx.backend = inputs
    ctx.save_for_backward(x, edge_attr, weight, lengths, slots, bounds)


def _autograd(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    of_x, of_edges, of_weight, *_ = ctx.needs_input_grad
    dx, dedges, dweight = _backward(dy, *ctx.saved_tensors, ctx.hops, ctx.negative_slope, of_edges, of_weight, ctx.backend)
    return dx if of_x else None, dedges if of_edges else None, dweight if of_weight else None, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
