"""What kernels read of a graph: its edges sorted by either end, as a few tables of int32; and which edges exist."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
