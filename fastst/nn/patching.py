"""fastst's layers in somebody else's model: one line swaps them in, one takes them out again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastst.nn.gin import GINConv, GINEConv
from fastst.nn.pyg import GATv2Conv, GCNConv, SAGEConv
from fastst.nn.skeleton import FEW_CHANNELS, ConvTemporalGraphical, SpatialTemporal_MS_GCN
from fastst.nn.stand_in import StandIn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_THEIR_HOOKS = tuple(f"_{step}_forward{when}_hooks" for step in ("propagate", "message", "aggregate", "edge_update") for when in ("", "_pre"))


@dataclass(frozen=True)
class Swap:
    """A layer of the model: its name, its kind, whether it was swapped, and why not."""

    name: str
    kind: str
    swapped: bool
    why: str = ""


class Patch:
    """What `patch` did; `undo()`, or the end of a `with` block, takes it back.

    Attributes:
        swaps: a row for every layer that is known.

    Examples:
        >>> import torch
        >>> from fastst.nn import patch
        >>> from torch_geometric.nn.models import GCN
        >>> model = GCN(16, 64, num_layers=2, out_channels=4)
        >>> with patch(model):
        ...     type(model.convs[0]).__module__
        'fastst.nn.pyg'
        >>> type(model.convs[0]).__module__
        'torch_geometric.nn.conv.gcn_conv'
    """

    def __init__(self, swaps: list[Swap], places: list[tuple[nn.Module, str, StandIn]]) -> None:
        self.swaps, self._places = swaps, places

    def undo(self) -> None:
        """Puts the original layers back, with the weights, attributes and hooks as they are now, wherever fastst's still stand. What a layer has
        cached is forgotten."""
        for parent, name, ours in self._places:
            if parent._modules.get(name) is ours:
                parent._modules[name] = ours.give_place()
        self._places = []

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __str__(self) -> str:
        width = max((len(swap.name) for swap in self.swaps), default=0)
        lines = [f"{swap.name:{width}}  {swap.kind}: {'swapped' if swap.swapped else f'left: {swap.why}'}" for swap in self.swaps]
        return "\n".join(lines or ["there is no layer that fastst could take the place of"])


def patch(model: nn.Module, dry_run: bool = False) -> Patch:
    """Replaces layers of other people's by fastst's, in place: PyTorch Geometric's `GCNConv`, `GATv2Conv`, `SAGEConv`, `GINConv` and
    `GINEConv`, ST-GCN's `ConvTemporalGraphical` and MS-G3D's `SpatialTemporal_MS_GCN`.

    Outputs and gradients stay what they were, up to rounding; but for weights of loops, of which PyTorch Geometric's `GCNConv` takes a node's last:
    the gradient of the others is 0, and not that of the last. The parameters stay the same objects, under the same names: an optimizer made
    before goes on, DistributedDataParallel too, and `state_dict` doesn't change. (Dropout of attention weights drops with the same probability, but
    others.) What fastst can't do (other sums, layers with hooks), and where it can't win, is left alone, and a call of a swapped layer with an
    argument that only the original knows goes to the original. `to_hetero` comes before; explainers of PyTorch Geometric need
    the layers as they were: `undo()`; second derivatives need them too, or `fastst.ops.use_backend("reference")` where no edge comes twice.

    Args:
        model: any module. Only its layers are looked at.
        dry_run: only say what would be done.

    Raises:
        TypeError: something that is no module.
        ValueError: a compiled model.

    Examples:
        >>> import torch
        >>> from torch_geometric.nn.models import GCN
        >>> from fastst.nn import patch
        >>> model = GCN(16, 64, num_layers=2, out_channels=4)
        >>> print(patch(model))
        convs.0  GCNConv: swapped
        convs.1  GCNConv: swapped
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch._dynamo.OptimizedModule) or model._compiled_call_impl is not None:
        raise ValueError("the model is compiled already; patch it first, then torch.compile it")
    swaps: list[Swap] = []
    places: list[tuple[nn.Module, str, nn.Module]] = []
    made: dict[nn.Module, StandIn] = {}  # a layer that is used in two places stays one
    for prefix, parent in [("", None), *model.named_modules()]:
        for name, layer in [("", model)] if parent is None else list(parent._modules.items()):
            kind = None if layer is None else _kind(layer)
            if layer is None or kind is None:
                continue
            path = f"{prefix}.{name}".strip(".")
            why = _why_not(layer, kind) or _why_not_there(parent)
            if not why and not dry_run and parent is not None:
                if layer not in made:
                    made[layer] = _made(layer, kind)
                places.append((parent, name, layer))
            swaps.append(Swap(path or "(model)", kind, not why, why))
    for parent, name, layer in places:
        parent._modules[name] = made[layer]
    return Patch(swaps, [(parent, name, made[layer]) for parent, name, layer in places])


def _kind(layer: nn.Module) -> str | None:
    """The name of a layer of somebody else for which there is one of fastst. Those of skeleton models are copied around: theirs is all one knows."""
    name = type(layer).__name__
    if name in _PROBES and not isinstance(layer, StandIn):
        return name
    kind = next((base for base in type(layer).__mro__ if base.__module__ in _MODULES and base.__name__ in _MAKERS), None)
    return None if kind is None else kind.__name__


def _why_not(layer: Any, kind: str) -> str:
    """Why a layer is left alone; nothing if it needn't be."""
    if kind not in _PROBES and type(layer).__module__ not in _MODULES:
        return f"its class {type(layer).__name__} is made from the layer, and may do something else"
    if any(getattr(layer, name, None) for name in (*_HOOKS, *_THEIR_HOOKS)):
        return "it has hooks"
    if getattr(layer, "_compiled_call_impl", None) is not None:
        return "it is compiled already"
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in layer.parameters()):
        return "its sizes are not known before its first call"
    replaced = next((name for name in vars(layer) if callable(getattr(type(layer), name, None))), None)
    if replaced is not None:
        return f"its method {replaced} was replaced"
    return _why_not_in_skeletons(layer, kind) if kind in _PROBES else _why_not_in_geometric(layer, kind)


def _why_not_in_geometric(layer: Any, kind: str) -> str:
    if layer.aggr not in _AGGREGATIONS[kind] or layer.flow != "source_to_target" or getattr(layer, "explain", None):
        return "it is asked to aggregate in another way (aggr, flow or explain)"
    if layer.node_dim != -2 and kind != "GATv2Conv":  # which takes x of two dimensions only
        return "its nodes are not in the last dimension but one (node_dim)"
    if any(getattr(layer, name, None) is not None for name in ("_cached_edge_index", "_cached_adj_t")):
        return "it has cached a graph already"
    return ""


def _why_not_in_skeletons(layer: Any, kind: str) -> str:
    """By name and attributes; then whether it computes what ours does, for layers of this name have been changed."""
    try:
        if any(getattr(module, name) for module in layer.modules() for name in _HOOKS):
            return "a layer in it has hooks"
        if getattr(layer, "use_Ares", False):
            return "its adjacency A_res is learned and has no zeros"
        if kind == "SpatialTemporal_MS_GCN" and not isinstance(layer.mlp.layers[0], nn.Conv2d):
            return "it has dropout before its convolution"
        conv, partitions = (layer.mlp.layers[0], 1) if kind == "SpatialTemporal_MS_GCN" else (layer.conv, layer.kernel_size)
        if conv.out_channels <= FEW_CHANNELS * partitions:
            return f"slots can't win on {FEW_CHANNELS} channels or fewer"
        theirs = copy.deepcopy(layer).eval()
        ours, inputs = _made(theirs, kind), _PROBES[kind](theirs)
        if isinstance(ours, SpatialTemporal_MS_GCN) and ours.graph is None:
            return "its graph is too small or too dense for slots to win"
        with torch.no_grad():
            found, wanted = (outputs[0] if isinstance(outputs, tuple) else outputs for outputs in (ours(*inputs), theirs(*inputs)))
        if not wanted.any():
            return "it gives nothing but zeros, which don't tell what it computes"
        same = found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))
    except Exception as error:  # whatever a stranger's layer does
        return f"it can't be tried ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})"
    return "" if same else "it computes something else than the layer of this name that fastst knows"


def _probe_of_conv_temporal_graphical(layer: Any) -> tuple[Tensor, Tensor]:
    """Features and a matrix with few entries, on which ours uses slots."""
    (kernel, _), (dilation, _), V = layer.conv.kernel_size, layer.conv.dilation, 48
    A = torch.zeros(layer.kernel_size, V, V)
    for k in range(layer.kernel_size):
        A[k, torch.arange(V), (torch.arange(V) * 5 + k) % V] = 0.5 + k
    return _waves(layer.conv, layer.conv.in_channels, 2 + dilation * (kernel - 1), V), A.to(layer.conv.weight)


def _probe_of_windows(layer: Any) -> tuple[Tensor]:
    conv = layer.mlp.layers[0]
    return (_waves(conv, conv.in_channels // layer.num_scales, 2, layer.A_scales.shape[1]),)


def _waves(conv: Any, *sizes: int) -> Tensor:
    """Numbers that are no random ones, for whose these would be is not ours.  # [1, *sizes]"""
    return torch.arange(math.prod(sizes), dtype=torch.float64).mul(1.7).sin().view(1, *sizes).to(conv.weight)


def _why_not_there(parent: nn.Module | None) -> str:
    if parent is None:
        return "it is the whole model, and can't be replaced in itself"
    return "it is compiled already" if isinstance(parent, torch._dynamo.OptimizedModule) else ""


def _gcn(layer: Any) -> StandIn:
    options = (layer.improved, layer.cached, layer.add_self_loops, layer.normalize, layer.bias is not None)
    return GCNConv(*_sizes(layer.lin), *options)


def _gatv2(layer: Any) -> StandIn:
    options = (layer.heads, layer.concat, layer.negative_slope, layer.dropout, layer.add_self_loops, layer.edge_dim, layer.fill_value)
    return GATv2Conv(_channels_of_sides(layer), layer.out_channels, *options, layer.bias is not None, layer.share_weights, layer.res is not None)


def _sage(layer: Any) -> StandIn:
    words = {"normalize": layer.normalize, "root_weight": layer.root_weight, "project": layer.project, "bias": layer.lin_l.bias is not None}
    return SAGEConv(_channels_of_sides(layer), _sizes(layer.lin_l)[1], **words)


def _channels_of_sides(layer: Any) -> int | tuple[int, int]:
    """As the linear layers have them: those that were given may have been unknown."""
    senders, to = _sizes(layer.lin_l)[0], getattr(layer, "lin_r", None)
    return senders if isinstance(layer.in_channels, int) else (senders, senders if to is None else _sizes(to)[0])


def _gin(layer: Any) -> StandIn:
    return GINConv(_for_now(layer.nn), layer.initial_eps, isinstance(layer.eps, nn.Parameter))


def _gine(layer: Any) -> StandIn:
    edge_dim = None if layer.lin is None else 1
    return GINEConv(_for_now(layer.nn), layer.initial_eps, isinstance(layer.eps, nn.Parameter), edge_dim)


def _for_now(network: Any) -> Any:
    """A network that may be set anew; theirs comes later, or now where it is no module, and has nothing to set."""
    return nn.Linear(1, 1) if isinstance(network, nn.Module) else network


def _conv_temporal_graphical(layer: Any) -> StandIn:
    return ConvTemporalGraphical(1, 1, layer.kernel_size)  # the convolution will be theirs


def _windows(layer: Any) -> StandIn:
    ours = SpatialTemporal_MS_GCN(1, 1, np.zeros((1, 1)), layer.num_scales, layer.window_size, use_Ares=False)
    ours.V, ours.A_scales, ours.residual = layer.V, layer.A_scales, layer.residual
    return ours


def _sizes(linear: Any) -> tuple[int, int]:
    return linear.weight.shape[1], linear.weight.shape[0]


def _made(layer: nn.Module, kind: str) -> StandIn:
    with torch.device("meta"):  # no memory, no random numbers
        ours = _MAKERS[kind](layer)
    ours.take_place(layer)
    return ours


_MAKERS: dict[str, Callable[[Any], StandIn]] = {
    "GCNConv": _gcn,
    "GATv2Conv": _gatv2,
    "SAGEConv": _sage,
    "GINConv": _gin,
    "GINEConv": _gine,
    "ConvTemporalGraphical": _conv_temporal_graphical,
    "SpatialTemporal_MS_GCN": _windows,
}
_MODULES = tuple(f"torch_geometric.nn.conv.{name}_conv" for name in ("gcn", "gatv2", "sage", "gin"))
_AGGREGATIONS = {"GCNConv": ("add", "sum"), "GATv2Conv": ("add", "sum"), "SAGEConv": ("mean",)} | dict.fromkeys(
    ("GINConv", "GINEConv"), ("add", "sum")
)
_PROBES: dict[str, Callable[[Any], tuple[Tensor, ...]]] = {
    "ConvTemporalGraphical": _probe_of_conv_temporal_graphical,
    "SpatialTemporal_MS_GCN": _probe_of_windows,
}
