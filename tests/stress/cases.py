"""Cases: an operation with everything that a call of it depends on. A case prints as the code that makes it again."""

from __future__ import annotations

import functools
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .topology import Edge, Topology

HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        T: frames that send.
        lengths: frames of every walk, or None.
        options: of the operation, by the names that `operations` gives them.
        wants: the inputs that want a gradient.
        seed: of all numbers.
        views: inputs and gradients of outputs are views of other tensors: transposed, with gaps, expanded.
        poison: what must not be looked at is no number.
    """

    op: str
    graph: Topology
    B: int = 1
    T: int = 1
    C: int = 1
    lengths: tuple[int, ...] | None = None
    dtype: str = "float64"
    options: dict[str, Any] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    seed: int = 0
    views: bool = False
    poison: bool = False

    @property
    def frames(self) -> int:
        """Frames that receive."""
        return self.graph.frames(self.T)

    @property
    def P(self) -> int:
        return len(self.graph.slots)

    @functools.cached_property
    def walks(self) -> list[int]:
        """Frames of every walk."""
        return [self.T] * self.B if self.lengths is None else [min(length, self.T) for length in self.lengths]

    @functools.cached_property
    def edges(self) -> list[Edge]:
        return self.graph.edges(self.T, self.walks)

    @property
    def nodes(self) -> list[tuple[int, int]]:
        """Walk and frame of the receivers."""
        return [(b, t) for b, length in enumerate(self.walks) for t in range(self.graph.frames(length))]

    def inside(self, receivers: bool) -> ndarray:
        """Which frames exist.  # [B, T or T']"""
        step = self.graph.stride if receivers else 1
        frame = np.arange(self.frames if receivers else self.T) * step
        return frame < np.array(self.walks, int).reshape(-1, 1)

    @functools.cached_property
    def edge_exists(self) -> ndarray:
        mask = np.zeros((self.B, self.P, self.frames), bool)
        for b, p, t, *_ in self.edges:
            mask[b, p, t] = True
        return mask

    @property
    def length_tensor(self) -> Tensor | None:
        if self.lengths is None:
            return None
        return torch.tensor(self.lengths, dtype=torch.int32 if self.seed % 2 else torch.int64)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Input:
    """
    Attributes:
        full: its shape with a dimension for frames, and as large as what it stands for.
        shared: the dimensions of `full` that are given once.
        dropped: those that the caller doesn't give.
        exists: `full`, or less at the end: what is looked at.
        values: normal, coarse (so that sums are exact in every dtype), bits, positive, logits or certain (which are ±∞ sometimes).
        dtype: None for the case's.
    """

    full: tuple[int, ...]
    shared: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    exists: ndarray | None = None
    values: str = "normal"
    dtype: str | None = None

    @property
    def lifted(self) -> tuple[int, ...]:
        return tuple(1 if axis in self.shared else size for axis, size in enumerate(self.full))

    def given(self, array: ndarray) -> ndarray:
        """From the shape of `lifted` to the caller's."""
        return array.reshape([size for axis, size in enumerate(self.lifted) if axis not in self.dropped])

    def summed(self, gradient: ndarray) -> ndarray:
        """A gradient of `full` shape in the caller's."""
        return self.given(gradient.sum(self.shared, keepdims=True))


@dataclass(frozen=True)
class Output:
    """
    Attributes:
        dropped: the frame dimension of the loop's array, where the caller gets none.
        dtype: that it has.
        exists: as in `Input`; elsewhere the output is 0, and its gradient isn't looked at.
        is_exact: 0 or 1.
    """

    dtype: torch.dtype
    dropped: tuple[int, ...] = ()
    exists: ndarray | None = None
    is_exact: bool = False


def node_input(case: Case, receivers: bool = False, values: str = "normal") -> Input:
    frames, J = (case.frames, case.graph.receivers) if receivers else (case.T, case.graph.num_src)
    return Input((case.B, frames, J, case.C), dropped=list_axis(case, 1), exists=case.inside(receivers), values=values)


def edge_input(case: Case, form: str, tail: tuple[int, ...] = (), keep: bool = False, values: str = "normal", dtype: str | None = None) -> Input:
    """form: full, or what is shared: `walks`, `frames` or `both`, which is `[P]`. keep: in the last form too all dimensions are given."""
    shared = {"full": (), "walks": (0,), "frames": (2,), "both": (0, 2)}[form]
    dropped = (0, 2) if form == "both" and not keep else list_axis(case, 2)
    exists = case.edge_exists if form == "full" else None
    return Input((case.B, case.P, case.frames, *tail), shared, dropped, exists, values, dtype)


def list_axis(case: Case, axis: int) -> tuple[int, ...]:
    return (axis,) if case.graph.is_list else ()


@dataclass(frozen=True)
class Values:
    """What an input or the gradient of an output is: float64 numbers of `lifted` shape that the dtype holds exactly, and the tensor that is given."""

    numbers: ndarray
    tensor: Tensor


def make_values(case: Case, name: str, given: Input) -> Values:
    rng, dtype = case.generator(name), getattr(torch, given.dtype or case.dtype)
    shape, kinds = given.lifted, ["whole", "whole", "transposed", "gaps", "expanded"]
    kind = kinds[rng.integers(len(kinds))] if case.views else "whole"
    axis = int(rng.integers(max(1, len(shape))))
    alike = kind == "expanded" and len(shape) > 0
    numbers = _numbers(rng, given.values, tuple(1 if alike and n == axis else size for n, size in enumerate(shape)))
    numbers = torch.from_numpy(np.array(numbers)).to(dtype).double().numpy()
    if alike:
        numbers = np.broadcast_to(numbers, shape)
    filled = numbers
    if case.poison and not alike and given.exists is not None:
        exists = given.exists.reshape(given.exists.shape + (1,) * (len(shape) - given.exists.ndim))
        filled = np.where(exists, numbers, rng.choice([np.nan, np.inf, -np.inf], shape))
    tensor = torch.from_numpy(np.array(given.given(filled))).to(dtype)
    return Values(numbers, _as_view(rng, kind, tensor))


def _numbers(rng: np.random.Generator, values: str, shape: tuple[int, ...]) -> Any:
    if values == "coarse":
        return rng.integers(-8, 9, shape) / 4
    if values == "bits":
        return rng.integers(0, 2, shape).astype(float)
    if values == "positive":
        return rng.uniform(0.05, 2, shape) * rng.integers(0, 2, shape)
    numbers = rng.standard_normal(shape)
    if values == "logits":
        return 2 * numbers
    if values == "certain":
        return np.where(rng.random(shape) < 0.15, rng.choice([np.inf, -np.inf, 30.0, -30.0], shape), 2 * numbers)
    return numbers


def _as_view(rng: np.random.Generator, kind: str, tensor: Tensor) -> Tensor:
    """The same numbers in other places."""
    if not tensor.ndim or kind == "whole":
        return tensor
    axis = int(rng.integers(tensor.ndim))
    if kind == "transposed":
        order = rng.permutation(tensor.ndim).tolist()
        return tensor.permute(order).contiguous().permute(*np.argsort(order).tolist())
    if kind == "gaps":
        room = torch.full([2 * size + 1 if n == axis else size for n, size in enumerate(tensor.shape)], torch.nan, dtype=tensor.dtype)
        view = room.narrow(axis, 1, 2 * tensor.shape[axis]).unflatten(axis, (-1, 2)).select(axis + 1, 0) if tensor.shape[axis] else tensor
        return view.copy_(tensor) if tensor.shape[axis] else tensor
    for n, size in enumerate(tensor.shape):
        if size > 1 and bool((tensor == tensor.narrow(n, 0, 1)).all()):
            return tensor.narrow(n, 0, 1).expand(tensor.shape)
    return tensor


def draw_lengths(rng: random.Random, B: int, T: int) -> tuple[int, ...] | None:
    """Sometimes more than there are frames, which is all of them."""
    if rng.random() < 0.4:
        return None
    return tuple(rng.choice([0, T, rng.randint(0, T), rng.randint(0, T), T + 2 if rng.random() < 0.1 else T]) for _ in range(B))
