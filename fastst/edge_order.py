"""How the tables that kernels read of a graph are made: its edges sorted by either end, and those that come again found."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import numpy as np

_MANY = 1 << 14  # edges from which on it pays to import numba


def rows_of(width: int, *rows: np.ndarray) -> np.ndarray:
    """int32, with rows that begin on 64 bytes, as GPU kernels like them: `width` rounded up, with zeros behind what is given."""
    table = np.zeros((len(rows), -(-width // 16) * 16), np.int32)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = numbers
    return table


def _slot_table(
    src: np.ndarray, dst: np.ndarray, offset: np.ndarray, into: tuple[np.ndarray, np.ndarray], out_of: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The rows of `GraphIndex.slots`. into, out_of: order and pointers of the slots into every joint, and out of it."""
    J, nothing = len(into[1]) - 1, np.zeros(0)
    table = rows_of(len(src) + 3 * J, src, dst, offset, into[0], out_of[0], *[nothing] * 4)
    for row, joint, other, step, (order, ptr) in ((5, dst, src, offset, into), (7, src, dst, -offset, out_of)):
        begin = (ptr + 3 * np.arange(J + 1)) // 4 * 4
        place = np.arange(len(order)) + (begin - ptr)[joint[order]]
        table[row, place], table[row + 1, place] = step[order], (step * J + other)[order]
    return table


def sorted_slots(src: np.ndarray, dst: np.ndarray, offset: np.ndarray, num_joints: int, hops: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of `GraphIndex.slots`, `dst_ptr` and `src_ptr`."""
    if hops == 0 and (sort_edges := _kernels(src)) is not None:
        table = rows_of(len(src) + 3 * num_joints, *[np.zeros(0)] * 9)
        return table, *sort_edges.fill_slots(table, src, dst, num_joints)
    dst_order = sorted_by(dst, sorted_by(src, sorted_by(offset + hops) if hops else None))
    src_order = sorted_by(src, sorted_by(dst, sorted_by(offset + hops)) if hops else dst_order)
    dst_ptr, src_ptr = (np.concatenate(([0], np.bincount(ends, minlength=num_joints).cumsum())) for ends in (dst, src))
    return _slot_table(src, dst, offset, (dst_order, dst_ptr), (src_order, src_ptr)), dst_ptr, src_ptr


def find_repeat(src: np.ndarray, dst: np.ndarray, offset: np.ndarray, slots: np.ndarray, dst_ptr: np.ndarray) -> int:
    """The number of a slot that comes again, or -1."""
    if not offset.any() and (sort_edges := _kernels(src)) is not None:
        return sort_edges.find_repeat(slots, dst_ptr)
    order = slots[3, : len(src)]
    same = np.ones(max(0, len(order) - 1), bool)
    for numbers in (src, dst, offset):
        same &= np.diff(numbers[order]) == 0
    return order[same.argmax()] if same.any() else -1


def _kernels(edges: np.ndarray) -> ModuleType | None:
    """The compiled functions, which sort a large edge list four times as fast, where numba can be used; it takes a while to import."""
    return _sort_edges() if len(edges) >= _MANY else None


@functools.cache
def _sort_edges() -> ModuleType | None:
    try:
        return importlib.import_module("fastst.cpu.sort_edges")
    except Exception:  # numba is not there, or broken; numpy does it too
        return None


def sorted_by(numbers: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """The order of numbers from 0 on, after that of `order` where they are equal: 16 bits at a time, which numpy sorts in linear time."""
    for shift in range(0, max(1, int(numbers.max(initial=0)).bit_length()), 16):
        digits = (numbers >> shift).astype(np.uint16)
        order = digits.argsort(kind="stable") if order is None else order[digits[order].argsort(kind="stable")]
    return order if order is not None else np.arange(len(numbers))


def merge_equals(src: np.ndarray, dst: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the edges that come for the first time; and for every edge the place among them of the one with its ends.  # [E'], [E]"""
    if (sort_edges := _kernels(src)) is not None:
        return sort_edges.merge_equals(src, dst, num_nodes)
    order = sorted_by(dst, sorted_by(src))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(src[order]) != 0) | (np.diff(dst[order]) != 0)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))]
    is_first = first == np.arange(len(first))
    return np.flatnonzero(is_first), (is_first.cumsum() - 1)[first]
