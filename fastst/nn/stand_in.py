"""What the layers that take somebody else's place share."""

from __future__ import annotations

import math
import sys
import threading
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.fx import Proxy

from fastst.graph import Graph

_call = threading.local()  # `weighing`: the weights that a `GraphSimplifier` puts on the edges in this thread's call, and these edges' graph
_SAME_AS_OURS = {"aggr": ("add", "sum"), "flow": ("source_to_target",), "node_dim": (-2,), "decomposed_layers": (1,)}
_FEW_OF_A_NODE = 2  # edges: between two kinds of nodes with fewer the original is faster on a CPU, for sums are made for both sides' nodes


class StandIn(nn.Module):
    """A layer that may stand in another one's place: it then has what that one holds, the same objects under the same names."""

    original: tuple[nn.Module, ...] = ()  # the other layer; in a tuple, for it is no part of the model any more
    weighs_edges = False  # whether the layer looks at `kept_on`
    few = 0  # numbers of all edges and channels: with fewer the original is faster on a CPU

    @property
    def is_weighed(self) -> bool:
        """Whether a `GraphSimplifier` puts weights on the edges of this call."""
        return getattr(_call, "weighing", None) is not None

    def kept_on(self, graph: Graph) -> Tensor | None:
        """These weights, if there are any.  # [E], [B, E] or [B, P, T]

        Raises:
            ValueError: the weights are those of other edges, or of the same in another order.
            RuntimeError: the layer will be computed again in the backward pass, when the weights are gone.
        """
        if not self.is_weighed:
            return None
        kept, weighed = _call.weighing
        if graph is not weighed and not _same_edges(graph, weighed):
            raise ValueError(
                f"{type(self).__name__} in a GraphSimplifier got {graph}, which are not the edges that were given, {weighed}, in their order. "
                "Pass the edges on as they are, or let downstream take an edge_weight and rearrange it with them"
            )
        if not torch.compiler.is_compiling() and _in_checkpoint(sys._getframe()):
            raise RuntimeError(
                f"{type(self).__name__} in a GraphSimplifier can't be checkpointed (torch.utils.checkpoint): computed again in the backward pass, it "
                "would see all edges. Leave the checkpoint out, put it around the GraphSimplifier, or let downstream take an edge_weight"
            )
        return kept

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What calls the layer.

        Raises:
            ValueError: features without nodes.
            TypeError: PyTorch Geometric makes a model for several kinds of nodes of this one. It knows its own layers only, and would forget to add
                up what they give.
        """
        if any(isinstance(x, Proxy) and type(x.tracer).__module__.startswith("torch_geometric") for x in (*args, *kwargs.values())):
            raise TypeError(f"to_hetero doesn't know fastst's {type(self).__name__}; make the model of PyTorch Geometric's layers, then patch it")
        x = args[0] if args else kwargs.get("x")
        if isinstance(x, Tensor) and x.ndim < 2:
            raise ValueError(f"{type(self).__name__}: x must be [N, F] at least, nodes and their features, got {list(x.shape)}")
        return super().__call__(*args, **kwargs)

    def take_place(self, layer: nn.Module) -> None:
        """From now on this layer stands in the other one's place."""
        for part in ("_parameters", "_buffers", "_modules"):
            mine, theirs = getattr(self, part), getattr(layer, part)
            mine.update((name, theirs[name]) for name in mine if name in theirs)
        self.original = (layer,)
        self.train(layer.training)
        self._as_made = {name: value for name, value in vars(self).items() if not name.startswith("_") and name in vars(layer)}

    def original_layer(self) -> Any:
        """The other layer, with the parameters, buffers and modules as they are now, and those attributes that were changed since."""
        (layer,) = self.original
        for name, value in self._as_made.items():
            if getattr(self, name) is not value:
                setattr(layer, name, getattr(self, name))
        for part in ("_parameters", "_buffers", "_modules"):
            mine, theirs = getattr(self, part), getattr(layer, part)
            theirs.update((name, value) for name, value in mine.items() if name in theirs)
        return layer.train(self.training)

    def give_place(self) -> Any:
        """The other layer as it is to stand in its place again: with the hooks that were registered on this one."""
        layer = self.original_layer()
        for name, hooks in vars(self).items():
            if "_hook" in name and hooks:
                setattr(layer, name, hooks)  # the same object, for who registered a hook removes it there
        return layer


def call_weighed(model: nn.Module, kept: Tensor, graph: Graph, *args: Any, **options: Any) -> Any:
    """Calls the model, whose layers multiply the kept edges of the graph in. Other threads' calls don't see them."""
    before = getattr(_call, "weighing", None)
    _call.weighing = kept, graph
    try:
        return model(*args, **options)
    finally:
        _call.weighing = before


@torch.compiler.disable
def _same_edges(a: Graph, b: Graph) -> bool:
    ends = zip((a.src, a.dst, a.offset), (b.src, b.dst, b.offset), strict=True)
    return a.num_joints == b.num_joints and all(torch.equal(one, other) for one, other in ends)


def _in_checkpoint(frame: FrameType | None) -> bool:
    """Whether a checkpoint lies between the layer and `call_weighed`."""
    while frame is not None and frame.f_code is not call_weighed.__code__:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
        frame = frame.f_back
    return False


def is_theirs(layer: StandIn, x: Tensor, edge_index: Any, larger_side: int = 0) -> bool:
    """Whether the original is there, and is the faster one for a graph of this size. larger_side: nodes of the larger of two kinds."""
    if not layer.original or layer.is_weighed or not x.is_cpu or torch.compiler.is_compiling():
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
