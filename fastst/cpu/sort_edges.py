"""The edges of a large edge list, sorted by counting: every pass over the edges ranks them by one of their ends and keeps equal ones in their order.

Edges move as pairs of a node and the edge's number, so that a pass reads in the order of memory and writes to one place an edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fastst.cpu.cache import keep


# They take arrays, not tensors as the kernels of `run_ranges` do: a tensor would be what the modes at hand make of it.
def _compile(function: Callable[..., Any]) -> Any:
    return keep(numba.njit(function, nogil=True, error_model="numpy"))


def fill_slots(slots: np.ndarray, src: np.ndarray, dst: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Writes the rows of `GraphIndex.slots` that are not 0 for an edge list; returns `dst_ptr` and `src_ptr`.  # src, dst [E] int64"""
    dst_ptr, src_ptr, place = (np.zeros(num_nodes + 1, np.int32) for _ in range(3))
    _fill_slots(src, dst, slots, dst_ptr, src_ptr, place, *(np.empty((len(src), 2), np.int32) for _ in range(2)))
    return dst_ptr, src_ptr


def find_repeat(slots: np.ndarray, dst_ptr: np.ndarray) -> int:
    """The number of an edge that comes again, the first one by dst, then src; -1 if there is none."""
    return _find_repeat(slots[3], slots[6], dst_ptr)


def merge_equals(src: np.ndarray, dst: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the edges that come for the first time; and for every edge the place among them of the one with its ends.  # [E'], [E] int64"""
    src_ptr, place = (np.zeros(num_nodes + 1, np.int32) for _ in range(2))
    firsts, inverse, latest = np.empty(len(src), np.int64), np.arange(len(src)), np.full((num_nodes, 2), -1, np.int32)
    count = _merge_equals(src, dst, firsts, inverse, latest, src_ptr, place, np.empty((len(src), 2), np.int32))
    return firsts[:count], inverse


@_compile
def _fill_slots(src, dst, slots, dst_ptr, src_ptr, place, by_src, by_dst):
    for e in range(len(src)):
        slots[0, e], slots[1, e] = src[e], dst[e]
    _count(dst, dst_ptr)
    _count(src, src_ptr)
    _rank(src, dst, src_ptr, place, by_src)
    _rank_pairs(by_src, src_ptr, dst_ptr, place, by_dst)
    _write(slots[3], slots[6], by_dst, dst_ptr)
    _rank_pairs(by_dst, dst_ptr, src_ptr, place, by_src)
    _write(slots[4], slots[8], by_src, src_ptr)


@_compile
def _find_repeat(order, senders, ptr):
    for n in range(len(ptr) - 1):
        padding = (ptr[n] + 3 * n) // 4 * 4 - ptr[n]
        for i in range(ptr[n] + 1, ptr[n + 1]):
            if senders[padding + i] == senders[padding + i - 1]:
                return order[i - 1]
    return -1


@_compile
def _merge_equals(src, dst, firsts, inverse, latest, src_ptr, place, by_src):
    """latest: of every node who sent the latest edge into it, and the first edge from there.  # [N, 2], -1 at first"""
    _count(src, src_ptr)
    _rank(src, dst, src_ptr, place, by_src)
    for s in range(len(src_ptr) - 1):
        for i in range(src_ptr[s], src_ptr[s + 1]):
            to, e = by_src[i]
            if latest[to, 0] == s:
                inverse[e] = latest[to, 1]
            else:
                latest[to, 0], latest[to, 1] = s, e
    count = 0
    for e in range(len(inverse)):
        if inverse[e] == e:
            firsts[count] = e
            inverse[e] = count
            count += 1
        else:
            inverse[e] = inverse[inverse[e]]  # the first one, which comes before and has its place
    return count


@_compile
def _count(ends, ptr):
    for e in range(len(ends)):
        ptr[ends[e] + 1] += 1
    for n in range(len(ptr) - 1):
        ptr[n + 1] += ptr[n]


@_compile
def _rank(ends, others, ptr, place, ranked):
    """The edges by one of their ends: pairs of the other end and the edge's number."""
    place[:] = ptr
    for e in range(len(ends)):
        i = place[ends[e]]
        ranked[i, 0], ranked[i, 1] = others[e], e
        place[ends[e]] = i + 1


@_compile
def _rank_pairs(pairs, ptr, other_ptr, place, ranked):
    """The same pairs by their other end."""
    place[:] = other_ptr
    for n in range(len(ptr) - 1):
        for p in range(ptr[n], ptr[n + 1]):
            other, e = pairs[p]
            i = place[other]
            ranked[i, 0], ranked[i, 1] = n, e
            place[other] = i + 1


@_compile
def _write(order, nodes, pairs, ptr):
    """The edges of every node, and their other ends as `GraphIndex` has them, row by row."""
    for n in range(len(ptr) - 1):
        padding = (ptr[n] + 3 * n) // 4 * 4 - ptr[n]
        for i in range(ptr[n], ptr[n + 1]):
            nodes[padding + i], order[i] = pairs[i]
