"""How kernels read a graph: the rows of `fastst.graph.GraphIndex`, from where its two tables begin."""

import triton
import triton.language as tl

from fastst.graph import GraphIndex


def row_strides(index: GraphIndex) -> tuple[int, int]:
    """How far a row is from the next, of the slots and of the bounds."""
    return index.slots.stride(0), index.bounds.stride(0)


@triton.jit
def slot_rows(slots_ptr, row):
    """Addresses of src, dst, offset, dst_order and src_order; `row` is how far a row is from the next."""
    row = tl.full([], row, tl.int64)
    return slots_ptr, slots_ptr + row, slots_ptr + 2 * row, slots_ptr + 3 * row, slots_ptr + 4 * row


@triton.jit
def bound_rows(bounds_ptr, row):
    """Addresses of dst_ptr, src_ptr, no_loop, and of the joints by how many slots lead into them, and out of them."""
    row = tl.full([], row, tl.int64)
    return bounds_ptr, bounds_ptr + row, bounds_ptr + 2 * row, bounds_ptr + 3 * row, bounds_ptr + 4 * row
