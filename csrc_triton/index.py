"""How kernels read a graph: the rows of `fastst.graph_index.GraphIndex`, from where its two tables begin."""

import triton
import triton.language as tl

from fastst.graph_index import GraphIndex


def row_strides(index: GraphIndex) -> tuple[int, int]:
    """How far a row is from the next, of the slots and of the bounds.

    Raises:
        ValueError: so far that the last row is beyond 32 bits, in which kernels count.
    """
    slots_row, bounds_row = index.slots.stride(0), index.bounds.stride(0)
    if 9 * max(slots_row, bounds_row) >= 1 << 31:
        raise ValueError(f"the backend 'triton' takes graphs of up to {(1 << 31) // 9:,} slots and nodes; this one has {index.num_slots:,} slots")
    return slots_row, bounds_row


@triton.jit
def slot_rows(slots_ptr, row):
    """Addresses of src, dst, offset, dst_order and src_order; `row` is how far a row is from the next."""
    return slots_ptr, slots_ptr + row, slots_ptr + 2 * row, slots_ptr + 3 * row, slots_ptr + 4 * row


@triton.jit
def sender_nodes(slots_ptr, row):
    """Address of the table of the same name; joint j's begin at (dst_ptr[j] + 3 j) // 4 * 4."""
    return slots_ptr + 6 * row


@triton.jit
def bound_rows(bounds_ptr, row):
    """Addresses of dst_ptr, src_ptr, no_loop, and of the joints, those that most slots lead into first, and out of."""
    return bounds_ptr, bounds_ptr + row, bounds_ptr + 2 * row, bounds_ptr + 3 * row, bounds_ptr + 4 * row


@triton.jit
def walk_length(lengths_ptr, b, T):
    """Frames of a walk."""
    length = T
    if lengths_ptr is not None:
        length = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
    return length


@triton.jit
def rows_of_group(joints_ptr, group, J, GROUP: tl.constexpr, BT: tl.constexpr, N: tl.constexpr = None):
    """Of a program's rows, frame by frame of one joint after the other: the joint, the frame of the tile, and whether there is such a joint.

    # [GROUP * BT] each, or where that is no power of two, [N]
    """
    row = tl.arange(0, GROUP * BT if N is None else N)
    member = group * GROUP + row // BT
    there = (row < GROUP * BT) & (member < J)
    return tl.load(joints_ptr + member, there, 0), row % BT, there
