"""Graphs as plain numbers: what fastst is given to make one, and the edges that it must then have, found without fastst.

A graph prints as the code that makes it again.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastst import LAYOUTS, EdgeList, Layout, SkeletonGraph, SlotGraph


class Edge(NamedTuple):
    """Edge (p, t) of walk b, from node (s, src) to node (t, dst)."""

    b: int
    p: int
    t: int
    s: int
    src: int
    dst: int


class Topology:
    """What all kinds have: `slots` as (src, dst, offset), how many nodes a frame has on either side, of how many frames one receives."""

    is_list = False
    stride = 1
    num_dst = None

    @property
    def bipartite(self) -> bool:
        return self.num_dst is not None or self.stride != 1

    @property
    def receivers(self) -> int:
        return self.num_src if self.num_dst is None else self.num_dst

    @property
    def loops(self) -> set[int]:
        """Numbers of the slots from a node to itself in the same frame."""
        return set() if self.bipartite else {p for p, (src, dst, offset) in enumerate(self.slots) if src == dst and offset == 0}

    @property
    def has_repeats(self) -> bool:
        return len(set(self.slots)) < len(self.slots)

    def frames(self, T: int) -> int:
        """Frames that receive, of T that send."""
        return -(-T // self.stride)

    def exists(self, p: int, t: int, length: int) -> bool:
        sent = self.stride * t + self.slots[p][2]
        return self.is_list or (0 <= sent < length and self.stride * t < length)

    def edges(self, T: int, lengths: list[int]) -> list[Edge]:
        """All edges of a batch whose walks have so many frames, of T at most."""
        return [
            Edge(b, p, t, self.stride * t + offset, src, dst)
            for b, length in enumerate(lengths)
            for p, (src, dst, offset) in enumerate(self.slots)
            for t in range(self.frames(T))
            if self.exists(p, t, min(length, T))
        ]


@dataclass(frozen=True)
class Skeleton(Topology):
    """A built-in layout by its name, or so many joints and some bones."""

    joints: str | int = 1
    bones: tuple[tuple[int, int], ...] = ()
    hops: int = 1

    @property
    def num_src(self) -> int:
        return len(LAYOUTS[self.joints].joints) if isinstance(self.joints, str) else self.joints

    @functools.cached_property
    def slots(self) -> tuple[tuple[int, int, int], ...]:
        """Pairs of which joint distance and frame distance are at most `hops` together, by dst, then offset, then src."""
        J, bones = self.num_src, LAYOUTS[self.joints].bones if isinstance(self.joints, str) else self.bones
        away = [[0 if i == j else 10**6 for i in range(J)] for j in range(J)]
        for i, j in bones:
            away[i][j] = away[j][i] = 1
        for m in range(J):  # Floyd and Warshall
            away = [[min(away[i][j], away[i][m] + away[m][j]) for j in range(J)] for i in range(J)]
        reach = range(-self.hops, self.hops + 1)
        return tuple((j, i, o) for i in range(J) for o in reach for j in range(J) if 0 < away[i][j] + abs(o) <= self.hops)

    @functools.cached_property
    def built(self) -> SkeletonGraph:
        names = isinstance(self.joints, str) or [f"joint {j}" for j in range(self.joints)]
        return SkeletonGraph(self.joints if isinstance(self.joints, str) else Layout.custom(names, list(self.bones), "drawn", root=(0,)), self.hops)


@dataclass(frozen=True)
class Slots(Topology):
    slots: tuple[tuple[int, int, int], ...] = ()
    num_src: int = 1
    num_dst: int | None = None
    stride: int = 1

    @functools.cached_property
    def built(self) -> SlotGraph:
        src, dst, offset = ([slot[i] for slot in self.slots] for i in range(3))
        return SlotGraph(src, dst, offset, self.num_src, self.num_dst, self.stride)


@dataclass(frozen=True)
class Edges(Topology):
    pairs: tuple[tuple[int, int], ...] = ()
    num_src: int = 1
    num_dst: int | None = None
    parallel: bool = False
    is_list = True

    @functools.cached_property
    def slots(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((src, dst, 0) for src, dst in self.pairs)

    @functools.cached_property
    def built(self) -> EdgeList:
        nodes = self.num_src if self.num_dst is None else (self.num_src, self.num_dst)
        ends = [[pair[i] for pair in self.pairs] for i in range(2)]
        return EdgeList(np.array(ends, np.int64), nodes, parallel=self.parallel)


def with_loops(graph: Topology) -> tuple[Topology, list[int]]:
    """The graph with one loop at every node, those that were missing behind; and which of its slots are given ones.

    A graph with parallel edges may have several at a node: these go, and every node gets one.
    """
    given = [p for p in range(len(graph.slots)) if not (graph.is_list and graph.parallel and p in graph.loops)]
    slots = [graph.slots[p] for p in given]
    slots += [(j, j, 0) for j in range(graph.num_src) if (j, j, 0) not in slots]
    if graph.is_list:
        return Edges(tuple((src, dst) for src, dst, _ in slots), graph.num_src, None, graph.parallel), given
    return Slots(tuple(slots), graph.num_src), given


def draw(rng: random.Random, small: bool) -> Topology:
    """A graph of any kind. A small one has no more than 12 slots."""
    kind = rng.choice(["skeleton", "slots", "slots", "list", "list"])
    if kind == "skeleton":
        return _draw_skeleton(rng, small)
    num_src, most = rng.randint(1, 5), 12 if small else 24
    if kind == "list":
        num_dst, parallel = rng.choice([None, None, rng.randint(1, 5)]), rng.random() < 0.3
        pairs = [(i, j) for i in range(num_src) for j in range(num_src if num_dst is None else num_dst)]
        count = rng.randint(0, most)
        chosen = rng.choices(pairs, k=count) if parallel else rng.sample(pairs, min(count, len(pairs)))
        return Edges(pairs=tuple(chosen), num_src=num_src, num_dst=num_dst, parallel=parallel)
    stride = rng.choice([1, 1, 1, 2, 3])
    num_dst, reach = rng.choice([None, None, rng.randint(1, 5)]), rng.randint(0, 4)
    receivers = range(num_src if num_dst is None else num_dst)
    slots = [(i, j, o) for i in range(num_src) for j in receivers for o in range(-reach, reach + 1)]
    return Slots(slots=tuple(rng.sample(slots, min(rng.randint(0, most), len(slots)))), num_src=num_src, num_dst=num_dst, stride=stride)


def _draw_skeleton(rng: random.Random, small: bool) -> Skeleton:
    if not small and rng.random() < 0.1:
        return Skeleton(joints=rng.choice(sorted(LAYOUTS)), hops=1)
    joints, hops = rng.randint(1, 3 if small else 5), rng.randint(1, 1 if small else 3)
    pairs = [(i, j) for j in range(joints) for i in range(j)]
    return Skeleton(joints=joints, bones=tuple(rng.sample(pairs, min(rng.randint(0, joints), len(pairs)))), hops=hops)
