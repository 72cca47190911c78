"""Checks of arguments, made once where a call enters the library: what came, what was expected, in the caller's own shapes.

An `EdgeList` is lifted here to a graph of one frame (`[B, N, C]` to `[B, 1, N, C]`, `[B, E]` to `[B, E, 1]`), so that nothing behind this door
tells the two kinds of graph apart. (`fastst.ops.lifting` then makes bipartite graphs square.)
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph, SlotGraph
from fastst.ops.lifting import receiver_frames


def check_graph(graph: Graph) -> None:
    if not isinstance(graph, (SlotGraph, EdgeList)):
        raise TypeError(f"graph must be a SkeletonGraph, a SlotGraph or an EdgeList, got {type(graph).__name__}")


def check_nodes(name: str, x: Tensor, graph: Graph, like: tuple[str, Tensor] | None = None, receive: bool = False) -> Tensor:
    """Node features, lifted to `[B, T, J, C]`.

    Args:
        like: name and value of an argument that has to agree in shape, dtype and device; of a bipartite graph the features of the other side.
        receive: whether these are the receivers' features.
    """
    check_graph(graph)
    check_float(name, x)
    is_list, J = isinstance(graph, EdgeList), graph.num_dst if receive else graph.num_src
    if x.ndim != (3 if is_list else 4) or x.shape[-2] != J:
        form, side = "[B, N, C] with N" if is_list else "[B, T, J, C] with J", ", the receivers," if receive else ", the senders,"
        raise ValueError(f"{name} must be {form} = {J}{side if graph.bipartite else ''} as in {graph}, got {list(x.shape)}")
    if x.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one channel, got {list(x.shape)}")
    if like is not None and graph.bipartite:
        _check_sides(name, x, *like, graph, receive)
    elif like is not None and x.shape != like[1].shape:
        raise ValueError(f"{name} must have the shape of {like[0]}, {list(like[1].shape)}, got {list(x.shape)}")
    if like is not None and x.dtype != like[1].dtype:
        raise TypeError(f"{name} must have the dtype of {like[0]}, {like[1].dtype}, got {x.dtype}")
    if like is not None:
        check_device(name, x, like[0], like[1])
    return x.unsqueeze(1) if isinstance(graph, EdgeList) else x


def _check_sides(name: str, x: Tensor, like_name: str, like: Tensor, graph: Graph, receive: bool) -> None:
    if (x.shape[0], x.shape[-1]) != (like.shape[0], like.shape[-1]):
        raise ValueError(f"{name} must have the batch and the channels of {like_name}, {list(like.shape)}, got {list(x.shape)}")
    sent, received = (like, x) if receive else (x, like)
    if x.ndim == 4 and received.shape[1] != receiver_frames(graph, sent.shape[1]):
        wanted = f"{name} must have as many frames as fit {like_name}, {list(like.shape)}: of {graph.stride} frames that send one receives"
        raise ValueError(f"{wanted}; got {list(x.shape)}")


def check_edges(name: str, values: Tensor, graph: Graph, B: int | None = None, T: int | None = None) -> Tensor:
    """Edge values, lifted to `[B, P, T]`."""
    check_graph(graph)
    check_float(name, values)
    if isinstance(graph, EdgeList):
        if values.ndim != 2 or values.shape[1] != graph.num_slots or (B is not None and values.shape[0] != B):
            raise ValueError(f"{name} must be [B, E] with {_size('B', B)}E = {graph.num_slots} as in {graph}, got {list(values.shape)}")
        return values.unsqueeze(-1)
    if values.ndim != 3 or values.shape[1] != graph.num_slots or (B is not None and (values.shape[0], values.shape[2]) != (B, T)):
        expected = f"[B, P, T] with {_size('B', B)}P = {graph.num_slots} as in {graph}{f', T = {T}' if T is not None else ''}"
        raise ValueError(f"{name} must be {expected}, got {list(values.shape)}")
    return values


def check_weights(name: str, values: Tensor, graph: Graph, B: int, T: int) -> Tensor:
    """Edge values of a batch, or those that all walks, all frames or both share, lifted to `[B, P, T]`: `[P]`, `[B, P, 1]`, `[1, P, T]`."""
    return check_shared_weights(name, values, graph, B, T).expand(B, -1, T)


def check_shared_weights(name: str, values: Tensor, graph: Graph, B: int, T: int) -> Tensor:
    """The same, lifted to `[B, P, T]` with 1 in the place of B or T where they are shared."""
    check_graph(graph)
    check_float(name, values)
    shared = values.ndim == 1 or values.shape[:1] == (1,) or (values.ndim == 3 and values.shape[2] == 1)
    if not shared or values.ndim > 3:
        return check_edges(name, values, graph, B, T)
    whole = values[None] if values.ndim == 1 else values
    whole = whole[..., None] if whole.ndim == 2 and (values.ndim == 1 or isinstance(graph, EdgeList)) else whole
    if whole.ndim != 3 or whole.shape[0] not in (1, B) or whole.shape[1] != graph.num_slots or whole.shape[2] not in (1, T):
        return check_edges(name, values, graph, B, T)
    return whole


def check_edge_features(name: str, values: Tensor, graph: Graph, B: int, T: int, C: int) -> Tensor:
    """Features of edges, `[B, P, T, C]`, or what all walks, all frames or both share: `[P, C]`, `[B, P, 1, C]`.  # [B or 1, P, T or 1, C]"""
    check_float(name, values)
    frames = not isinstance(graph, EdgeList)
    whole = values[None, :, None] if values.ndim == 2 else values if frames or values.ndim != 3 else values.unsqueeze(2)
    if whole.ndim != 4 or whole.shape[0] not in (1, B) or whole.shape[2] not in (1, T) or (whole.shape[1], whole.shape[3]) != (graph.num_slots, C):
        forms, edges = ("[B, P, T, C], [B, P, 1, C] or [P, C]", "P") if frames else ("[B, E, C] or [E, C]", "E")
        raise ValueError(f"{name} must be {forms} with B = {B}, {edges} = {graph.num_slots} as in {graph}, C = {C}, got {list(values.shape)}")
    return whole


def check_per_node(name: str, values: Tensor, graph: Graph, B: int, T: int) -> Tensor:
    """One value a node, lifted to `[B, T, J]`."""
    refuse_bipartite(name, graph, "it weighs what a node sends itself; leave it out, and add the features of the receivers yourself")
    check_float(name, values)
    expected = [B, graph.num_joints] if isinstance(graph, EdgeList) else [B, T, graph.num_joints]
    if list(values.shape) != expected:
        raise ValueError(f"{name} must be {expected}, one value for every node, got {list(values.shape)}")
    return values.unsqueeze(1) if isinstance(graph, EdgeList) else values


def refuse_bipartite(what: str, graph: Graph, why: str) -> None:
    if graph.bipartite:
        raise ValueError(f"{what} is not for {graph}, whose senders and receivers are different nodes: {why}")


def check_lengths(lengths: Tensor | None, graph: Graph | None, B: int, like: tuple[str, Tensor]) -> Tensor | None:
    """Frames of every walk, `[B]`."""
    if lengths is None:
        return None
    if isinstance(graph, EdgeList):
        raise ValueError("lengths counts frames, which an EdgeList does not have; leave it out")
    return check_per_walk("lengths", lengths, B, like)


def check_per_walk(name: str, values: Tensor, B: int, like: tuple[str, Tensor]) -> Tensor:
    """A whole number for every walk of the batch, `[B]`."""
    if not isinstance(values, Tensor) or values.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be a tensor of int32 or int64, got {getattr(values, 'dtype', type(values).__name__)}")
    if list(values.shape) != [B]:
        raise ValueError(f"{name} must be [B] with B = {B}, got {list(values.shape)}")
    check_device(name, values, *like)
    return values.contiguous()


def check_sample_ids(sample_ids: Tensor | None, B: int, like: tuple[str, Tensor]) -> Tensor:
    """The numbers that stand for the walks; their places in the batch, where none are given."""
    if sample_ids is None:
        return torch.arange(B, device=like[1].device)
    return check_per_walk("sample_ids", sample_ids, B, like)


def check_seed(seed: int | Tensor, like: tuple[str, Tensor]) -> Tensor:
    """A whole number as a 0-d int64 tensor of the same 64 bits; such a tensor as it is."""
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.ndim:
            raise TypeError(f"seed must be a whole number or a 0-d tensor of int64, got {seed.dtype} {list(seed.shape)}")
        return _scalar("seed", seed, like)
    if not isinstance(seed, int):
        try:
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(f"seed must be a whole number, got {seed!r}") from None
    if not -(1 << 63) <= seed < 1 << 63:
        seed = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
    return torch.tensor(seed, device="cpu")


def check_prior(prior: float | Tensor, like: tuple[str, Tensor]) -> Tensor:
    """A probability as a 0-d tensor; where it is one already, `check_prior_value` sees its value."""
    if not isinstance(prior, Tensor):
        prior = torch.tensor(float(prior), dtype=torch.float64, device="cpu")
    check_float("prior", prior)
    if prior.ndim:
        raise ValueError(f"prior must be a number or a 0-d tensor, got {list(prior.shape)}")
    if prior.requires_grad:
        raise ValueError("prior gets no gradient; give prior.detach()")
    return _scalar("prior", prior, like)


def check_prior_value(prior: Tensor) -> None:
    """Where it can be read without waiting for a GPU."""
    if prior.is_cpu and not 0 < prior.item() < 1:
        raise ValueError(f"prior must be above 0 and below 1, got {prior.item():g}")


def _scalar(name: str, value: Tensor, like: tuple[str, Tensor]) -> Tensor:
    """A 0-d tensor may stay on the CPU."""
    if value.device.type != "cpu":
        check_device(name, value, *like)
    return value


def check_device(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    if value.device != like.device:
        raise ValueError(f"{name} is on {value.device}, but {like_name} is on {like.device}; move one of them")


def lower(graph: Graph, values: Tensor, dim: int) -> Tensor:
    """Takes the frame dimension `dim` of a result away again where the graph has none."""
    return values.squeeze(dim) if isinstance(graph, EdgeList) else values


def check_float(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")


def _size(letter: str, size: int | None) -> str:
    return "" if size is None else f"{letter} = {size}, "
