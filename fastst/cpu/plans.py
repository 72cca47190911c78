"""The order in which the sparse products go over a skeleton's slots, made once for every graph; in plain Python, as it would take longer to compile
than it ever runs.

Slots into one joint that come from one neighbour, with shifts that follow one another, are a run. Where the nodes themselves take part, that of joint
j is slot number P + j, from the joint to itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastst.cpu.sum_kernels import RUNS
from fastst.graph_index import GraphIndex

_PLANS = 128  # that are kept
# Mostly a call hands over its graph's own tensor: found by it, a plan costs a fifth of what it does by its contents.
_of_tensor = WeakTensorKeyDictionary()


def plan_of(index: GraphIndex, make: Callable[..., tuple[Any, ...]], sign: int, *how: int) -> tuple[Any, ...]:
    """The offsets of a graph's slots, and what `make` plans: for the nodes that edges lead to, or with sign -1 those that they come from."""
    plans = _of_tensor.setdefault(index.slots, {})
    key = make, sign, *how
    if key not in plans:
        src, dst, offset = (slots.numpy() for slots in (index.src, index.dst, index.offset))
        to, neighbour = (dst, src) if sign == 1 else (src, dst)
        # A copy: a view would keep the tensor alive by which it is found.
        plans[key] = torch.from_numpy(offset.copy()), *make(to.tobytes(), neighbour.tobytes(), (sign * offset).tobytes(), *how)
    return plans[key]


@functools.lru_cache(_PLANS)
def sum_plan(to: bytes, neighbour: bytes, shift: bytes, joints: int, with_nodes: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For `run_sums`: the place of every slot in the order of the sums, and of every node; of every run its first shift, its neighbour and its first
    place; and the bounds of the runs of every joint and length. The slots are three int32 arrays, as bytes."""
    slots = len(to) // 4
    places, pieces, bounds, place = np.empty(slots + joints * with_nodes, np.int64), [], [0], 0
    for runs in _runs(to, neighbour, shift, joints, with_nodes):
        left = []
        for run in runs:
            left.append([run[0][1], run[0][0], place, len(run)])
            for _, _, slot in run:
                places[slot] = place
                place += 1
        for length in RUNS:
            for piece in left:
                while piece[3] >= length:
                    pieces.append(piece[:3])
                    piece[0], piece[2], piece[3] = piece[0] + length, piece[2] + length, piece[3] - length
            bounds.append(len(pieces))
    return _tensor(places[:slots]), _tensor(places[slots:]), _tensor(np.array(pieces, np.int64).reshape(-1, 3).T), _tensor(bounds)


@functools.lru_cache(_PLANS)
def dot_plan(
    to: bytes, neighbour: bytes, shift: bytes, joints: int, with_nodes: bool, size: int, hops: int, channels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """For `dot_products`, in groups of `size` slots: of every member where its row of k begins, counted from `hops` frames before, and its slot; and
    the bounds of the groups of every joint and length of run.

    First come runs of `size` slots, then shorter ones, each filled with slots that are in no run, then those alone. A group that can't be filled
    repeats its last slot.
    """
    groups, bounds = [], [0]
    for runs in _runs(to, neighbour, shift, joints, with_nodes):
        of_length = []
        for length in range(size, 1, -1):
            taken = []
            for run in runs:
                while len(run) >= length:
                    taken.append(run[:length])
                    del run[:length]
            of_length.append(taken)
        alone = [member for run in runs for member in run]
        for group in (group for taken in of_length for group in taken):
            while len(group) < size and alone:
                group.append(alone.pop(0))
        of_length.append([alone[i : i + size] for i in range(0, len(alone), size)])
        for taken in of_length:
            groups += [group + group[-1:] * (size - len(group)) for group in taken]
            bounds.append(len(groups))
    from_, at, slot = np.moveaxis(np.array(groups, np.int64).reshape(-1, size, 3), 2, 0)
    return _tensor(((at + hops) * joints + from_) * channels), _tensor(slot), _tensor(bounds)


@functools.lru_cache(_PLANS)
def channel_blocks(heads: int, channels: int, group: int, lanes: int, together: int) -> tuple[Tensor, Tensor]:
    """The pieces in which `attend` sums up the features of a node, in groups of heads: a number of full vectors, or of one head what one vector
    holds. Of each where it begins, how many channels it has, and the heads of its vectors, counted from the first of their group; and the bounds of
    every group's pieces."""
    blocks, bounds = [], [0]
    for first in range(0, heads, group):
        c, end = first * channels, min(first + group, heads) * channels
        while c < end:
            size = min(lanes, channels - c % channels)
            if channels % lanes == 0 and c + together * lanes <= end:
                size = together * lanes
            blocks.append([c, size, *(min(c + v * lanes, end - 1) // channels - first for v in range(together))])
            c += size
        bounds.append(len(blocks))
    return _tensor(blocks), _tensor(bounds)


def _tensor(numbers: np.ndarray | list[int] | list[list[int]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, np.int64))


def _runs(to: bytes, neighbour: bytes, shift: bytes, joints: int, with_nodes: bool) -> list[list[list[tuple[int, int, int]]]]:
    """For every joint its runs of (neighbour, shift, slot)."""
    slots = [*zip(*(np.frombuffer(v, np.int32).tolist() for v in (to, neighbour, shift)), strict=True)]
    slots += [(j, j, 0) for j in range(joints if with_nodes else 0)]
    into: list[list[list[tuple[int, int, int]]]] = [[] for _ in range(joints)]
    for slot in sorted(range(len(slots)), key=slots.__getitem__):
        joint, from_, at = slots[slot]
        runs = into[joint]
        if runs and runs[-1][-1][:2] == (from_, at - 1):
            runs[-1].append((from_, at, slot))
        else:
            runs.append([(from_, at, slot)])
    return into
