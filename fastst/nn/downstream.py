"""How a model takes the edges that a `GraphSimplifier` keeps, and which models can't."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastst.nn.stand_in import StandIn


def taken(model: nn.Module, known: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a model's forward takes by name.

    Raises:
        ValueError: it has `**kwargs`, of which one can't know whether they are for one that it doesn't name.
    """
    return {name: value for name, value in known.items() if _takes(model, name)}


def takes_edge_weight(model: nn.Module) -> bool:
    """Raises where a model has an `edge_weight` that it doesn't look at, and as `taken` does."""
    if not _takes(model, "edge_weight"):
        return False
    inside = _inside(model)
    if getattr(inside, "supports_edge_weight", True):
        return True
    if not has_stand_ins(model):
        raise ValueError(f"{type(inside).__name__} doesn't look at edge weights (supports_edge_weight is False); swap its layers with fastst.patch")
    return False


def has_stand_ins(model: nn.Module) -> bool:
    return any(isinstance(layer, StandIn) for layer in model.modules())


def check_layers(model: nn.Module, by_weight: bool, one_list: bool) -> None:
    """Refuses the layers of a model that would look at other edges than those that are kept.

    Args:
        by_weight: the model passes its `edge_weight` on to its layers itself; else they are fastst's, and are given the kept edges.
        one_list: the graph is one edge list for all, so that every x has weights of its own.

    Raises:
        ValueError: such a layer, by name.
    """
    for name, layer in model.named_modules():
        which, foreign = f"{name or 'downstream'} is a {type(layer).__name__}", _is_message_passing(layer)
        if (foreign or isinstance(layer, StandIn)) and getattr(layer, "cached", False):
            raise ValueError(f"{which} with cached=True, which would show the first kept edges to all later calls; make it with cached=False")
        if by_weight and one_list and foreign:
            raise ValueError(
                f"{which} of PyTorch Geometric, which takes the same edge weights for a whole batch; swap it with fastst.patch, or leave graph out "
                "and give edge_index and batch with x"
            )
        if not by_weight and foreign:
            raise ValueError(
                f"{which}, which doesn't see the kept edges as fastst's layers beside it do; let downstream take (x, edges, edge_weight)"
            )
        if not by_weight and isinstance(layer, StandIn) and not layer.weighs_edges:
            raise ValueError(f"{which}, which can't weigh its edges; leave it out, or let downstream take an edge_weight")


def depends_on(found: Any, kept: Tensor) -> bool:
    """Whether a gradient would reach the kept edges. Taken for granted where there is no tensor in what was found."""
    tensors = list(_tensors_of(found))
    goal = kept.grad_fn
    todo = [tensor.grad_fn for tensor in tensors]
    seen = set()
    while todo:
        node = todo.pop()
        if node is goal:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    return not tensors


def _tensors_of(found: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(found):
        if isinstance(leaf, Tensor):
            yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from _tensors_of(list(vars(leaf).values()))


def _inside(model: Any) -> Any:
    """The model that wrappers (compiled, distributed, averaged ones) pass their arguments on to."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(getattr(model, "module", None), nn.Module) and _has_any_keywords(model):
            model = model.module
        else:
            return model


def _takes(model: nn.Module, name: str) -> bool:
    inside = _inside(model)
    if name in inspect.signature(inside.forward).parameters:
        return True
    if _has_any_keywords(inside):
        raise ValueError(f"it can't be known whether {type(inside).__name__} takes {name}, for its forward has **kwargs; name its arguments")
    return False


def _has_any_keywords(model: Any) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(model.forward).parameters.values())


def _is_message_passing(layer: nn.Module) -> bool:
    """Whether it is a layer of PyTorch Geometric's, or made from one."""
    return any(base.__name__ == "MessagePassing" and base.__module__.startswith("torch_geometric.") for base in type(layer).__mro__)
