"""What the layers that take somebody else's place share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

_SAME_AS_OURS = {"aggr": ("add", "sum"), "flow": ("source_to_target",), "node_dim": (-2, 0), "decomposed_layers": (1,)}
_FEW_OF_A_NODE = 2  # edges: between two kinds of nodes with fewer the original is faster on a CPU, for sums are made for both sides' nodes


class StandIn(nn.Module):
    """A layer that may stand in another one's place: it then has what that one holds, the same objects under the same names."""

    original: tuple[nn.Module, ...] = ()  # the other layer; in a tuple, for it is no part of the model any more
    weighs_edges = False  # whether the layer looks at `kept_edges`
    few = 0  # numbers of all edges and channels: with fewer the original is faster on a CPU
    kept_edges: Tensor | None = None  # weights that `GraphSimplifier` puts on the edges of a call, `[E]`, `[B, E]` or `[B, P, T]`

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What calls the layer.

        Raises:
            TypeError: PyTorch Geometric makes a model for several kinds of nodes of this one. It knows its own layers only, and would forget to add
                up what they give.
        """
        if any(isinstance(x, Proxy) and type(x.tracer).__module__.startswith("torch_geometric") for x in (*args, *kwargs.values())):
            raise TypeError(f"to_hetero doesn't know fastst's {type(self).__name__}; make the model of PyTorch Geometric's layers, then patch it")
        return super().__call__(*args, **kwargs)

    def take_place(self, layer: nn.Module) -> None:
        """From now on this layer stands in the other one's place."""
        for part in ("_parameters", "_buffers", "_modules"):
            mine, theirs = getattr(self, part), getattr(layer, part)
            mine.update((name, theirs[name]) for name in mine if name in theirs)
        self.original = (layer,)
        self.train(layer.training)

    def original_layer(self) -> Any:
        """The other layer, with the parameters, buffers and modules as they are now."""
        (layer,) = self.original
        for part in ("_parameters", "_buffers", "_modules"):
            mine, theirs = getattr(self, part), getattr(layer, part)
            theirs.update((name, value) for name, value in mine.items() if name in theirs)
        return layer.train(self.training)


def is_theirs(layer: StandIn, x: Tensor, edge_index: Any, larger_side: int = 0) -> bool:
    """Whether the original is there, and is the faster one for a graph of this size. larger_side: nodes of the larger of two kinds."""
    if not layer.original or layer.kept_edges is not None or not x.is_cpu or torch.compiler.is_compiling():
        return False
    is_list = isinstance(edge_index, Tensor) and edge_index.layout == torch.strided
    if not is_list:
        return False
    E = edge_index.shape[-1]
    return E * x.shape[-1] * math.prod(x.shape[:-2]) < layer.few or _FEW_OF_A_NODE * larger_side > E


def channels_of_sides(layer: str, in_channels: Any) -> tuple[int, int]:
    """Channels of the nodes that send and of those that receive, of which the same number or two are given."""
    both = in_channels if isinstance(in_channels, (tuple, list)) else (in_channels, in_channels)
    if len(both) != 2 or not all(isinstance(channels, int) and channels >= 1 for channels in both):
        raise ValueError(f"{layer}: in_channels={in_channels!r} is not supported, only a whole number of at least 1, or two")
    return both[0], both[1]


def check_options(layer: str, options: dict[str, Any], in_channels: Any = 1) -> None:
    if not isinstance(in_channels, int) or in_channels < 1:
        raise ValueError(f"{layer}: in_channels={in_channels!r} is not supported, only a whole number of at least 1")
    for name, value in options.items():
        if name not in _SAME_AS_OURS or value not in _SAME_AS_OURS[name]:
            only = f", only {_SAME_AS_OURS[name][0]!r}" if name in _SAME_AS_OURS else ""
            raise ValueError(f"{layer}: {name}={value!r} is not supported{only}")
