"""What kernels read of a graph: its edges sorted by either end, as a few tables of int32; how these are made, and which edges exist."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_MANY = 1 << 14  # edges from which on it pays to import numba


class GraphIndex(NamedTuple):
    """What a kernel reads of a graph; all int32. The slots into joint j are `dst_order[dst_ptr[j]:dst_ptr[j + 1]]`, those out of it likewise.

    Their other ends stand row by row: joint j's first at `(dst_ptr[j] + 3 * j) // 4 * 4`, so that four can be read with one instruction.
    Two tensors, for every further one that an operation takes costs time in every call.
    """

    slots: Tensor  # [9, P + 3 * J]
    bounds: Tensor  # [5, J + 1]

    @property
    def num_slots(self) -> int:
        return self.slots.shape[1] - 3 * (self.bounds.shape[1] - 1)

    @property
    def src(self) -> Tensor:
        return self.slots[0, : self.num_slots]  # [P]

    @property
    def dst(self) -> Tensor:
        return self.slots[1, : self.num_slots]  # [P]

    @property
    def offset(self) -> Tensor:
        return self.slots[2, : self.num_slots]  # [P]

    @property
    def dst_order(self) -> Tensor:
        return self.slots[3, : self.num_slots]  # [P], by dst, then src

    @property
    def src_order(self) -> Tensor:
        return self.slots[4, : self.num_slots]  # [P], by src, then dst

    @property
    def sender_frames(self) -> Tensor:
        """In how many frames the slots' other ends follow, row by row."""
        return self.slots[5]  # [P + 3 * J]

    @property
    def sender_nodes(self) -> Tensor:
        """In how many nodes they follow the first node of the frame, row by row."""
        return self.slots[6]  # [P + 3 * J]

    @property
    def receiver_frames(self) -> Tensor:
        return self.slots[7]  # [P + 3 * J], like `sender_frames`, of the slots out of the joints

    @property
    def receiver_nodes(self) -> Tensor:
        return self.slots[8]  # [P + 3 * J]

    @property
    def dst_ptr(self) -> Tensor:
        return self.bounds[0]  # [J + 1]

    @property
    def src_ptr(self) -> Tensor:
        return self.bounds[1]  # [J + 1]

    @property
    def no_loop(self) -> Tensor:
        """1 for joints that no slot joins to themselves in the same frame, else 0."""
        return self.bounds[2, :-1]  # [J]

    @property
    def receivers(self) -> Tensor:
        """The joints, those that most slots lead into first."""
        return self.bounds[3, :-1]  # [J]

    @property
    def senders(self) -> Tensor:
        """The joints, those that most slots lead out of first."""
        return self.bounds[4, :-1]  # [J]


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


def edge_exists(offset: Tensor, T: int, lengths: Tensor | None, stride: int = 1) -> Tensor:
    """Where edge (p, t) exists: 0 <= t + offset[p] < length and t < length. With a stride only every so many frames t have edges into them.

    # [B, P, T / stride], or [1, P, T / stride] without lengths; bool
    """
    frame = torch.arange(0, T, stride, device=offset.device)
    source = frame + offset[:, None]  # [P, T]
    if lengths is None:
        return ((source >= 0) & (source < T))[None]
    length = lengths.clamp(max=T)[:, None, None]
    return (source >= 0) & (source < length) & (frame < length)


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
