"""Edges as PyTorch Geometric's users have them, as graphs; the graphs of the last ones are remembered."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastst.graph import EdgeList, Graph

_KNOWN_MOST = 32  # edge lists that are remembered: a model's layers mostly share one


@dataclass(frozen=True, eq=False)
class _Known:
    """Edges that were made a graph, and what they were like then."""

    edges: weakref.ref
    version: tuple[Any, ...]
    graph: EdgeList
    copy: Tensor | None  # on the CPU: memory that numpy or another process shares changes without a new version


_known: list[_Known] = []


def graph_of(edges: Any, num_nodes: int) -> tuple[Graph, Tensor | None]:
    """The graph of whatever PyTorch Geometric calls `edge_index`, and the values of its edges if it brings some. Edges that come again, in the
    same tensor and unchanged, give the same graph.

    Args:
        edges: `[2, E]`, from and to; or a matrix, rows to, columns from: a `torch_sparse.SparseTensor` or a torch.sparse tensor; or a graph.
        num_nodes: N.

    Raises:
        TypeError: something else.
        ValueError: a node outside 0 … N - 1; see `EdgeList`.
    """
    return (edges, None) if isinstance(edges, Graph) else _graph_of_edges(edges, num_nodes)


@torch.compiler.disable  # how edges are sorted is nothing to compile
def _graph_of_edges(edges: Any, num_nodes: int) -> tuple[Graph, Tensor | None]:
    if isinstance(edges, Tensor) and edges.layout == torch.strided:
        return _remembered(edges, edges, num_nodes), None
    if isinstance(edges, Tensor):
        matrix = edges.to_sparse_coo().coalesce()
        (to, from_), values = matrix.indices(), matrix.values()
    elif hasattr(edges, "coo"):  # a SparseTensor
        to, from_, values = edges.coo()
    else:
        raise TypeError(f"edge_index must be a tensor, a SparseTensor or a graph of fastst, got {type(edges).__name__}")
    return _remembered(edges, torch.stack((from_, to)), num_nodes), values


def _remembered(edges: Any, edge_index: Tensor, num_nodes: int) -> EdgeList:
    edge_index = edge_index.as_subclass(Tensor)
    if isinstance(edges, Tensor) and edges.is_inference():  # nobody counts how often it was changed
        return EdgeList(edge_index, num_nodes, parallel=True)
    version = (num_nodes, *((edges._version, edges.data_ptr()) if isinstance(edges, Tensor) and edges.layout == torch.strided else ()))
    for known in _known:
        if known.edges() is edges and known.version == version and (known.copy is None or torch.equal(known.copy, edge_index)):
            _known.remove(known)
            _known.append(known)  # the one that was used last
            return known.graph
    graph = EdgeList(edge_index, num_nodes, parallel=True)
    # On a GPU a comparison would be waited for: there the version has to do.
    _known.append(_Known(weakref.ref(edges, _forget), version, graph, edge_index.clone() if edge_index.is_cpu else None))
    del _known[:-_KNOWN_MOST]
    return graph


def _forget(edges: weakref.ref) -> None:
    _known[:] = [known for known in _known if known.edges is not edges]
