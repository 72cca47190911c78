"""What is timed: one class a piece of work, for any contender, with its inputs, its results in fastst's form, and its FLOPs and bytes.

FLOPs count what the mathematics needs on the edges that exist (a multiply-add is 2), whatever a contender does beyond it. Bytes count every
input read once and every output written once: nobody can move less, unless the data already lie in a cache.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.contender import Contender, Fastst
from bench.plain import Dense
from fastst import SkeletonGraph
from fastst.config import TrainConfig
from fastst.nn import GraphClassifier
from fastst.nn.sources import LearnedGraph
from fastst.ops import Sampling
from fastst.ops.random import edge_uniform

PAPER = TrainConfig.with_recipe("paper").settled()
JOINTS = 18

Cost = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Size:
    """B walks of T frames; C channels (D of embeddings); layers of the classifier, for whole models."""

    B: int
    T: int
    hops: int = 3
    C: int = 64
    layers: int = PAPER.layers
    dtype: str = "float32"

    @property
    def graph(self) -> SkeletonGraph:
        return SkeletonGraph("coco18", self.hops)

    @cached_property
    def edges(self) -> int:
        """Existing edges of the batch: slot p has T - |offset[p]| of them."""
        return self.B * int((self.T - self.graph.offset.abs()).clamp(min=0).sum())

    @property
    def nodes(self) -> int:
        return self.B * self.T * JOINTS

    @property
    def itemsize(self) -> int:
        return getattr(torch, self.dtype).itemsize

    def smaller(self, B: int, T: int) -> Size:
        return dataclasses.replace(self, B=B, T=T)


class Work:
    """One contender's share of a comparison.

    Attributes:
        leaves: what gradients are taken of, in the contender's form.
        tolerance: the largest difference to the reference that is let through, relative to the largest number.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tolerance: ClassVar[float] = 2e-4
    outputs: ClassVar[int] = 1  # of the results, which are these and gradients
    dense_matrices: ClassVar[tuple[int, int]] = (1, 2)  # (J T)² matrices that the dense way holds: forward, forward and backward

    def __init__(self, size: Size, contender: Contender) -> None:
        self.size, self.contender = size, contender
        self._generator = torch.Generator().manual_seed(size.B * 1_000_003 + size.T)
        self.leaves: tuple[Tensor, ...] = tuple(x.detach().requires_grad_() for x in self.inputs())
        self._gradient: Tensor | None = None

    def inputs(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def run(self) -> Tensor:
        raise NotImplementedError

    def output(self, y: Tensor) -> Tensor:
        """In fastst's form."""
        return y

    def gradients(self, *gradients: Tensor) -> list[Tensor]:
        """In fastst's form."""
        return list(gradients)

    def output_gradient(self) -> Tensor:
        """In the contender's form."""
        return self._randn(*self._shape())

    def forward(self) -> Any:
        with torch.no_grad():
            return self.run()

    def forward_and_backward(self) -> Any:
        if self._gradient is None:
            self._gradient = self.output_gradient()
        return torch.autograd.grad(self.run(), self.leaves, self._gradient, allow_unused=True)  # the dense product alone has no use for some

    def results(self, backward: bool) -> list[Tensor]:
        """The output, and the gradients where asked for, to be compared with the reference's."""
        y = self.output(self.forward())
        return [y, *self.gradients(*self.forward_and_backward())] if backward else [y]

    @classmethod
    def cost(cls, size: Size) -> Cost:
        """FLOPs and numbers moved: forward; forward and backward."""
        raise NotImplementedError

    @classmethod
    def reference_bytes(cls, size: Size) -> int:
        """What the dense reference holds at a time, about."""
        return Dense.bytes_needed(size.graph, size.B, size.T, 4)

    @classmethod
    def dense_bytes(cls, size: Size, backward: bool) -> int:
        return Dense.bytes_needed(size.graph, size.B, size.T, cls.dense_matrices[backward])

    def _randn(self, *shape: int) -> Tensor:
        dtype = getattr(torch, self.size.dtype)
        values = torch.randn(*shape, generator=self._generator).to(dtype)
        # The reference computes in float32, of the same rounded inputs.
        is_reference = isinstance(self.contender, Fastst) and self.contender.backend == "reference"
        return values.to(torch.float32 if is_reference else dtype).to(self.contender.device)

    def _shape(self) -> tuple[int, ...]:
        return self.size.B, self.size.T, JOINTS, self.size.C

    def _weights(self) -> tuple[Tensor, Tensor]:
        size = self.size
        weight = self._randn(size.B, self.contender.graph.num_slots, size.T) * self.contender.graph.edge_mask(size.T).to(self.contender.device)
        return weight, self._randn(*self._shape()[:3])


class Propagate(Work):
    name, title = "propagate", "message passing"

    def inputs(self):
        return self._randn(*self._shape()), *self.contender.weights_in(*self._weights())

    def run(self):
        x, *weights = self.leaves
        return self.contender.propagate(x, weights[0], self.contender.graph, *weights[1:])

    def gradients(self, *gradients):
        return [gradients[0], *self.contender.weights_out(*gradients[1:])]

    @classmethod
    def cost(cls, size):
        values = size.edges + size.nodes
        features = size.nodes * size.C
        flops = 2 * values * size.C
        # Backward reads dy, x and the values, and writes two gradients.
        return (flops, 2 * features + values), (3 * flops, 5 * features + 3 * values)


class EdgeLogits(Work):
    name, title = "edge_logits", "edge logits"

    def inputs(self):
        return self._randn(*self._shape()), self._randn(*self._shape())

    def run(self):
        return self.contender.edge_logits(*self.leaves)

    def output(self, y):
        return self.contender.edges_out(y)

    def output_gradient(self):
        mask = self.contender.graph.edge_mask(self.size.T).to(self.contender.device)
        return self.contender.edges_in(self._randn(self.size.B, self.contender.graph.num_slots, self.size.T) * mask)

    @classmethod
    def cost(cls, size):
        features, flops = size.nodes * size.C, 2 * size.edges * size.C
        return (flops, 2 * features + size.edges), (3 * flops, 6 * features + 2 * size.edges)


class SampleEdges(EdgeLogits):
    name, title = "sample_edges", "edge sampling"
    dense_matrices = (4, 6)

    def inputs(self):
        size = self.size
        logits = self._randn(size.B, self.contender.graph.num_slots, size.T)
        return (self.contender.edges_in(logits * self.contender.graph.edge_mask(size.T).to(self.contender.device)),)

    def run(self):
        return self.contender.sample_edges(*self.leaves, seed=0)

    def results(self, backward):
        """Of the reference's random numbers."""
        with same_noise(self.contender, self.size):
            return super().results(backward)

    def gradients(self, *gradients):
        return [self.contender.edges_out(gradients[0])]

    @classmethod
    def cost(cls, size):
        # Two logarithms, a product, two sums, a comparison; the random bits, which are whole numbers, don't count.
        return (6 * size.edges, 2 * size.edges), (7 * size.edges, 4 * size.edges)


class SampleFromEmbeddings(EdgeLogits):
    name, title = "sample_from_embeddings", "edge logits + sampling"
    dense_matrices = (4, 6)

    def run(self):
        return self.contender.sample_from_embeddings(*self.leaves, seed=0)

    def results(self, backward):
        with same_noise(self.contender, self.size):
            return super().results(backward)

    @classmethod
    def cost(cls, size):
        # As one: the logits need not be written.
        (flops, moved), (all_flops, all_moved) = EdgeLogits.cost(size)
        return (flops + 6 * size.edges, moved), (all_flops + 7 * size.edges, all_moved)


class SampleWithInformation(SampleFromEmbeddings):
    """As the default recipe trains."""

    name, title = "sample_with_information", "edge logits + sampling + information"
    outputs = 2
    sampling = Sampling(tau=1.0, noise="logistic", estimator="sigmoid")
    prior = 0.25

    def run(self):
        return self.contender.sample_with_information(*self.leaves, self.sampling, self.prior)

    def output_gradient(self):
        return super().output_gradient(), torch.ones(self.size.B, device=self.contender.device)

    def results(self, backward):
        with same_noise(self.contender, self.size):
            kept, information = self.forward()
            gradients = self.gradients(*self.forward_and_backward()) if backward else []
        return [self.output(kept), information, *gradients]

    @classmethod
    def cost(cls, size):
        # Forward: an exponential, a logarithm, a quotient and about ten sums and products; backward: the first and the last again.
        (flops, moved), (all_flops, all_moved) = SampleFromEmbeddings.cost(size)
        return (flops + 13 * size.edges, moved), (all_flops + 23 * size.edges, all_moved)


class Attend(Work):
    name, title = "attend", "graph attention (GATv2)"
    heads = 4
    tolerance = 5e-4

    def inputs(self):
        return self._randn(*self._shape()), self._randn(*self._shape()), self._randn(self.heads, self.size.C // self.heads)

    def run(self):
        return self.contender.attend(*self.leaves, self.contender.graph, self.heads)

    @classmethod
    def cost(cls, size):
        # Forward: sum, LeakyReLU, score and message (6 an edge and channel), softmax (4 an edge and head). Backward: the scores again, the
        # gradients of α, att, both sides and the message (16).
        channels, features = size.edges * size.C, size.nodes * size.C
        forward = 6 * channels + 4 * size.edges * cls.heads
        return (forward, 3 * features), (forward + 16 * channels, 9 * features)

    @classmethod
    def reference_bytes(cls, size):
        return Dense.bytes_needed(size.graph, size.B, size.T, 3 * size.C)


class GcnLayer(Work):
    name, title = "gcn_layer", "GCN layer (linear map and message passing)"

    def inputs(self):
        C = self.size.C
        return self._randn(*self._shape()), self._randn(C, C) / C**0.5, self._randn(C), *self.contender.weights_in(*self._weights())

    def run(self):
        return self.contender.gcn_layer(*self.leaves)

    def gradients(self, *gradients):
        return [*gradients[:3], *self.contender.weights_out(*gradients[3:])]

    @classmethod
    def cost(cls, size):
        (flops, moved), (all_flops, all_moved) = Propagate.cost(size)
        (gemm, _), (all_gemm, _) = cls.gemm_cost(size)
        return (flops + gemm, moved + size.C**2), (all_flops + all_gemm, all_moved + 2 * size.C**2)

    @staticmethod
    def gemm_cost(size: Size) -> Cost:
        """Of the dense product h W alone."""
        gemm, features = 2 * size.nodes * size.C**2, size.nodes * size.C
        return (gemm, 2 * features + size.C**2), (3 * gemm, 5 * features + 2 * size.C**2)


class Inference(Work):
    """A whole model; the logits of a batch."""

    name, title = "inference", "inference"
    tolerance = 2e-2  # an edge whose z is 0 up to rounding may be kept by one and not by the other
    dense_matrices = (8, 12)

    def __init__(self, size, contender):
        torch.manual_seed(0)
        self.model = paper_model(size).to(contender.device)
        assert isinstance(self.model.source, LearnedGraph)
        self.upstream = self.model.source.upstream
        self.poses = torch.randn(size.B, size.T, JOINTS, 2, generator=torch.Generator().manual_seed(1)).to(contender.device)
        self.classes = torch.arange(size.B, device=contender.device) % 2
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, capturable=contender.device == "cuda")
        super().__init__(size, contender)

    def inputs(self):
        return ()

    def run(self):
        with self.contender.installed():
            return self.model(self.poses, seed=0).logits

    def results(self, backward):
        with same_noise(self.contender, self.size):
            y = self.run()
            if not backward:
                return [y.detach()]
            gradients = torch.autograd.grad(cross_entropy(y, self.classes), list(self.model.parameters()))
        # One vector: the gradient of a bias that changes nothing is rounding, and is not to be compared with itself.
        return [y.detach(), torch.cat([g.flatten() for g in gradients])]

    @classmethod
    def cost(cls, size):
        flops, moved = _model_cost(size)
        return (flops, moved), (3 * flops, 3 * moved)

    @classmethod
    def reference_bytes(cls, size):
        return Dense.bytes_needed(size.graph, size.B, size.T, 4 * size.C)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


class TrainingStep(Inference):
    name, title = "training_step", "training step"

    def forward_and_backward(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(self.run(), self.classes)
        loss.backward()
        self.optimizer.step()
        return loss


class UpstreamModel(Inference):
    """The model that gives every edge its logit."""

    name, title = "upstream", "upstream model"
    tolerance = 1e-3

    def __init__(self, size, contender):
        super().__init__(size, contender)
        self.leaves = tuple(self.upstream.parameters())

    def run(self):
        with self.contender.installed():
            return self.upstream(self.poses)

    def output_gradient(self):
        mask = self.contender.graph.edge_mask(self.size.T).to(self.contender.device)
        return self.contender.edges_in(self._randn(self.size.B, self.contender.graph.num_slots, self.size.T) * mask)

    def results(self, backward):
        y = self.contender.edges_out(self.forward())
        return [y, torch.cat([g.flatten() for g in self.forward_and_backward()])] if backward else [y]

    @classmethod
    def cost(cls, size):
        flops, moved = _upstream_cost(size)
        return (flops, moved), (3 * flops, 3 * moved)


WORKS: dict[str, type[Work]] = {
    work.name: work
    for work in (
        *(SampleEdges, EdgeLogits, SampleFromEmbeddings, SampleWithInformation, Propagate, Attend, GcnLayer),
        *(UpstreamModel, TrainingStep, Inference),
    )
}


def paper_model(size: Size, **options: Any) -> GraphClassifier:
    """The paper's recipe, in the given size."""
    of_upstream = "frames", "attention", "heads", "encoder_layers", "keep_start"
    of_sampling, of_downstream = ("noise", "estimator", "beta", "tau"), ("joint_embedding", "residual", "readout")
    recipe = {name: getattr(PAPER, name) for name in (*of_upstream, *of_sampling, *of_downstream)}
    return GraphClassifier("coco18", 2, hops=size.hops, layers=size.layers, hidden=size.C, **recipe, **options)


class same_noise:
    """Inside, a peer samples with the random numbers of fastst."""

    def __init__(self, contender: Contender, size: Size) -> None:
        self.contender, self.size = contender, size

    def __enter__(self) -> None:
        ids = torch.arange(self.size.B, device=self.contender.device)
        u = edge_uniform(0, ids, self.contender.graph.num_slots, self.size.T, False)
        self.contender.uniform = self.contender.edges_in(u * self.contender.graph.edge_mask(self.size.T).to(u.device))

    def __exit__(self, *_: object) -> None:
        self.contender.uniform = None


def _upstream_cost(size: Size) -> tuple[float, float]:
    """Forward. Numbers moved: the inputs and outputs of every layer, each once."""
    N, C, features = size.nodes, size.C, size.nodes * size.C
    linear = 2 * N * C * (2 + 2 * C + 2 * C)  # poses, both sides of the graph attention, query and key
    encoder = PAPER.encoder_layers * (N * C * 4 * (JOINTS + size.T) + 2 * 8 * N * C**2 + 16 * N * C**2)
    (attend, attend_moved), (logits, logits_moved) = Attend.cost(size)[0], EdgeLogits.cost(size)[0]
    moved = 2 * N + features + 4 * features + attend_moved + PAPER.encoder_layers * 6 * features + 4 * features + logits_moved
    return linear + encoder + attend + logits, moved


def _model_cost(size: Size) -> tuple[float, float]:
    flops, moved = _upstream_cost(size)
    layer, layer_moved = GcnLayer.cost(size)[0]
    sampling, sampling_moved = SampleEdges.cost(size)[0]
    return flops + size.layers * layer + sampling, moved + size.layers * layer_moved + sampling_moved + 2 * size.edges
