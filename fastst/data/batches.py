"""Windows of equal length, cut from walks of any length, and the batches that are made of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fastst.data.prepare import mirror
from fastst.layouts import Layout

_WINDOWS_OF_A_WALK = 1 << 12
Made = TypeVar("Made")


@dataclass(frozen=True)
class Windows:
    """Where windows are cut: walk numbers, first frames, and a number of its own for every window, which its random edges depend on."""

    walk: np.ndarray  # [W]
    start: np.ndarray  # [W]
    sample_id: np.ndarray  # [W]

    def __len__(self) -> int:
        return len(self.walk)


@dataclass(frozen=True)
class Batch:
    poses: Tensor  # [B, frames, J, D]
    lengths: Tensor | None  # [B]; None where every window is full
    classes: Tensor  # [B]
    walk: np.ndarray  # [B]
    start: np.ndarray  # [B]
    sample_ids: Tensor  # [B]


def even_windows(lengths: Sequence[int], walks: Sequence[int], frames: int) -> Windows:
    """As few windows as cover every walk, spread evenly over it. `lengths` are the frames of all walks, `walks` the numbers of those wanted."""
    walk: list[int] = []
    number: list[int] = []
    start: list[int] = []
    for i in walks:
        count = max(1, -(-lengths[i] // frames))
        walk += [i] * count
        number += range(count)
        start += np.linspace(0, max(lengths[i] - frames, 0), count).round().astype(int).tolist()
    # Numbered by walk, so that a window's sampled graph does not depend on which other walks are looked at.
    sample_id = np.array(walk, np.int64) * _WINDOWS_OF_A_WALK + number
    return Windows(np.array(walk, np.int64), np.array(start, np.int64), sample_id)


def random_windows(lengths: Sequence[int], walks: Sequence[int], frames: int, rng: np.random.Generator) -> Windows:
    """As many windows of every walk in `walks` as fit into it side by side, at least one, at random places and in random order."""
    each = np.maximum(np.asarray(lengths)[np.asarray(walks, np.int64)] // frames, 1)
    walk = np.repeat(np.asarray(walks, np.int64), each)
    number = np.arange(len(walk)) - np.repeat(each.cumsum() - each, each)
    order = rng.permutation(len(walk))
    walk, number = walk[order], number[order]
    room = np.maximum(np.asarray(lengths)[walk] - frames, 0)
    return Windows(walk, rng.integers(0, room + 1), walk * _WINDOWS_OF_A_WALK + number)


def make_batch(
    poses: Sequence[np.ndarray],
    classes: np.ndarray,
    windows: Windows,
    chosen: np.ndarray,
    frames: int,
    mirrored: np.ndarray,
    layout: Layout,
) -> Batch:
    """The windows numbered `chosen`, those with a true entry in `mirrored` with left and right exchanged."""
    walks, starts = windows.walk[chosen], windows.start[chosen]
    J, D = poses[0].shape[1:]
    batch = np.zeros((len(chosen), frames, J, D), np.float32)
    lengths = np.empty(len(chosen), np.int64)
    for row, (walk, start, swap) in enumerate(zip(walks, starts, mirrored, strict=True)):
        piece = poses[walk][start : start + frames]
        batch[row, : len(piece)] = mirror(piece, layout) if swap else piece
        lengths[row] = len(piece)
    return Batch(
        torch.from_numpy(batch),
        None if (lengths == frames).all() else torch.from_numpy(lengths),
        torch.from_numpy(classes[walks]),
        walks,
        starts,
        torch.from_numpy(windows.sample_id[chosen]),
    )


def in_order(windows: Windows, batch_size: int) -> list[np.ndarray]:
    """Numbers of the windows of every batch, first to last."""
    return [np.arange(first, min(first + batch_size, len(windows))) for first in range(0, len(windows), batch_size)]


def made_ahead(makers: Sequence[Callable[[], Made]]) -> Iterator[Made]:
    """What every maker makes, in order; a thread makes the next while the last is used."""
    with ThreadPoolExecutor(1, "fastst-batches") as thread:
        coming = deque(thread.submit(maker) for maker in makers[:1])
        for number in range(len(makers)):
            made = coming.popleft().result()
            if number + 1 < len(makers):
                coming.append(thread.submit(makers[number + 1]))
            yield made
