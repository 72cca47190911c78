"""What all ways of doing the same work have in common: the operations of `fastst.ops` on one graph and one size. fastst itself.

Every contender keeps edge values in the form that suits it (a dense matrix, a flat list of edges, a CSR matrix's values) and builds everything
that depends on the graph alone (index tensors, CSR patterns and their transposes, block-diagonal batches) beforehand, outside of what is timed.
`edges_in`, `edges_out`, `weights_in` and `weights_out` translate between that form and fastst's; they are never timed.

The functions have the arguments of `fastst.ops`, so that a contender can also stand in for fastst inside `fastst.nn`'s models (`installed`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar
from unittest import mock

from torch import Tensor
from torch.nn.functional import linear

from fastst import SkeletonGraph, ops
from fastst.nn import layers, models, sources, upstream
from fastst.ops import Sampling
from fastst.ops.backends import why_not

_OF_NO_GRAPH = ("attend_axis", "feed_forward", "linear", "linears")  # which peers have from torch
_OPERATIONS = ("attend", "edge_logits", "gcn_norm", "propagate", "sample_edges", "sample_from_embeddings", *_OF_NO_GRAPH)


class Contender:
    """What all have in common; values at edges are `[B, P, T]` here, as in fastst.

    Attributes:
        label: what tables call it.
        unable: the works that it has no answer to, and why.
        uniform: if set, the random numbers of `sample_edges` in the contender's own form: only for the comparison with the reference, which has
            to see the same ones. What is timed draws with torch.rand.
    """

    label: ClassVar[str]
    unable: ClassVar[dict[str, str]] = {}

    def __init__(self, graph: SkeletonGraph, B: int, T: int, device: str = "cpu") -> None:
        self.graph, self.B, self.T, self.device = graph, B, T, device
        self.uniform: Tensor | None = None

    @classmethod
    def missing(cls, device: str) -> str | None:
        """Why it can't run here, or None."""
        return None

    def edges_in(self, values: Tensor) -> Tensor:
        return values

    def edges_out(self, values: Tensor) -> Tensor:
        return values

    def weights_in(self, weight: Tensor, self_weight: Tensor) -> tuple[Tensor, ...]:
        """The values of a normalised adjacency, `[B, P, T]` and `[B, T, J]`, as one or two tensors."""
        return weight, self_weight

    def weights_out(self, *weights: Tensor) -> tuple[Tensor, Tensor]:
        weight, self_weight = weights
        return weight, self_weight

    # The operations, with fastst's arguments. What a contender does not have, it says in `unable`.
    attend: Any
    edge_logits: Any
    gcn_norm: Any
    propagate: Any
    sample_edges: Any
    sample_from_embeddings: Any
    sample_with_information: Any  # `sample_from_embeddings` with a prior

    def gcn_layer(self, h: Tensor, W: Tensor, bias: Tensor, *weights: Tensor) -> Tensor:
        """Â h Wᵀ + bias with Â the weights."""
        return self.propagate(linear(h, W), weights[0], self.graph, *weights[1:]).add_(bias)

    def of_torch(self, name: str, *arguments: Any, **options: Any) -> Any:
        """torch's own layers, and its attention with its transposes."""
        with ops.use_backend("torch"):
            return getattr(ops, name)(*arguments, **options)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, fastst's models call this contender's functions in place of fastst's."""
        with ExitStack() as stack:
            for module in (layers, models, sources, upstream):
                for name in _OPERATIONS:
                    if hasattr(module, name):
                        taken = partial(self.of_torch, name) if name in _OF_NO_GRAPH else getattr(self, name)
                        stack.enter_context(mock.patch.object(module, name, taken))
            yield


class Fastst(Contender):
    """One backend of fastst."""

    backend: ClassVar[str]

    @classmethod
    def missing(cls, device: str) -> str | None:
        reason = why_not(cls.backend)
        if reason is None and cls.backend == "cpu" and device != "cpu":
            return "it is for CPUs"
        return "there is no CUDA device" if cls.backend == "triton" and device != "cuda" else reason

    def propagate(self, x, weight, graph=None, self_weight=None, lengths=None):
        with ops.use_backend(self.backend):
            return ops.propagate(x, weight, self.graph, self_weight)

    def edge_logits(self, q: Tensor, k: Tensor, graph: Any = None, bias: Tensor | None = None, lengths: None = None) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.edge_logits(q, k, self.graph, bias)

    def sample_edges(self, logits: Tensor, graph: Any = None, *, seed: int = 0, **options: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.sample_edges(logits, self.graph, seed=seed)

    def sample_from_embeddings(self, q: Tensor, k: Tensor, graph: Any = None, bias: Tensor | None = None, *, seed: int = 0, **_: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.sample_from_embeddings(q, k, self.graph, bias, seed=seed)

    def sample_with_information(self, q: Tensor, k: Tensor, sampling: Sampling, prior: float) -> tuple[Tensor, Tensor]:
        with ops.use_backend(self.backend):
            return ops.sample_from_embeddings(q, k, self.graph, seed=0, sampling=sampling, prior=prior)

    def gcn_norm(self, kept: Tensor, graph: Any = None, lengths: None = None) -> tuple[Tensor, Tensor]:
        with ops.use_backend(self.backend):
            return ops.gcn_norm(kept, self.graph)

    def attend(self, x_src: Tensor, x_dst: Tensor, att: Tensor, graph: Any, heads: int, **_: Any) -> Tensor:
        with ops.use_backend(self.backend):
            return ops.attend(x_src, x_dst, att, self.graph, heads)

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ops.use_backend(self.backend):  # the models as they are, with whatever they call
            yield


class FaststReference(Fastst):
    label, backend = "reference", "reference"


class FaststTorch(Fastst):
    label, backend = "fastst `torch`", "torch"


class FaststCpu(Fastst):
    label, backend = "fastst `cpu`", "cpu"


class FaststTriton(Fastst):
    label, backend = "fastst `triton`", "triton"
