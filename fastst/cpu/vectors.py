"""Vectors in LLVM code: how the elements of arrays are loaded into them, computed with and stored, and the loops that keep them in registers.

Elements are float32 or float64, or half precision as the bits of bfloat16 (int16) or float16 (uint16), which are widened to float32 in registers;
the width of a vector is counted in units of 16 bytes.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types

I1, BYTE, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))


def native_width() -> tuple[int, ...]:
    """The widest vectors that this CPU has, as a tuple whose length is their width in units of 16 bytes."""
    features = llvm.get_host_cpu_features()
    return (0,) * (4 if features.get("avx512f") else 2 if features.get("avx") else 1)


class Elements:
    """How one element type is loaded, computed with and stored, for vectors of a width."""

    def __init__(self, builder: Any, dtype: types.Type, width: int) -> None:
        self.builder, self.dtype = builder, dtype
        self.compute = ir.DoubleType() if dtype == types.float64 else ir.FloatType()
        half: dict[Any, Any] = {types.int16: I16, types.uint16: ir.HalfType()}
        self.stored = half.get(dtype, self.compute)
        self.lanes = width * (2 if dtype == types.float64 else 4)
        self.vector = ir.VectorType(self.compute, self.lanes)
        sizes: dict[Any, int] = {types.float64: 8, types.float32: 4}
        self.bytes = sizes.get(dtype, 2)

    def zero(self) -> ir.Constant:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def splat(self, scalar: Any) -> Any:
        return splat(self.builder, scalar, self.lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fma.v{self.lanes}{'f64' if self.bytes == 8 else 'f32'}"
        function = self.builder.module.declare_intrinsic(name, fnty=ir.FunctionType(self.vector, [self.vector] * 3))
        return self.builder.call(function, [a, b, c])

    def exp(self, value: Any) -> Any:
        """e^x within two units in the last place, 0 below the smallest normal number, no more than the largest."""
        b, double = self.builder, self.bytes == 8
        least, most, bias, digits, terms = (-708.0, 709.0, 1023, 52, 13) if double else (-87.0, 88.0, 127, 23, 7)
        high = 355 / 512 if not double else 0.693147180369123816490  # of so few digits that its products with whole numbers are exact
        numbers = ir.VectorType(I64 if double else I32, self.lanes)

        def of(number: float) -> Any:
            return ir.Constant(self.vector, [number] * self.lanes)

        below = b.fcmp_ordered("<", value, of(least))
        y = b.select(below, of(least), value)
        y = b.select(b.fcmp_ordered(">", y, of(most)), of(most), y)
        # x = n log 2 + r with |r| <= ½ log 2, and e^r by its series
        whole = b.module.declare_intrinsic(f"llvm.floor.v{self.lanes}{self._suffix()}", fnty=ir.FunctionType(self.vector, [self.vector]))
        n = b.call(whole, [self.fma(y, of(1 / math.log(2)), of(0.5))])
        r = (
            self.fma(n, of(high - math.log(2)), self.fma(n, of(-high), y))
            if not double
            else self.fma(n, of(-1.90821492927058770002e-10), self.fma(n, of(-high), y))
        )
        series = of(1 / math.factorial(terms))
        for term in range(terms - 1, -1, -1):
            series = self.fma(series, r, of(1 / math.factorial(term)))
        power = b.shl(b.add(b.fptosi(n, numbers), ir.Constant(numbers, [bias] * self.lanes)), ir.Constant(numbers, [digits] * self.lanes))
        return b.select(below, self.zero(), b.fmul(series, b.bitcast(power, self.vector)))

    def load(self, pointer: Any, mask: Any) -> Any:
        """A vector of computing type; lanes outside the mask are 0 and not read."""
        return self.widen(self.load_stored(pointer, mask))

    def load_stored(self, pointer: Any, mask: Any) -> Any:
        b, stored = self.builder, ir.VectorType(self.stored, self.lanes)
        address = b.bitcast(pointer, stored.as_pointer())
        if mask is None:
            value = b.load(address)
            value.align = self.bytes
        else:
            zero = ir.Constant(stored, [0.0 if isinstance(self.stored, (ir.FloatType, ir.DoubleType, ir.HalfType)) else 0] * self.lanes)
            function = b.module.declare_intrinsic(
                f"llvm.masked.load.v{self.lanes}{self._suffix()}.p0",
                fnty=ir.FunctionType(stored, [stored.as_pointer(), I32, ir.VectorType(I1, self.lanes), stored]),
            )
            value = b.call(function, [address, I32(self.bytes), mask, zero])
        return value

    def load_half(self, pointer: Any, half: int) -> Any:
        """Of two vectors of bfloat16 that lie side by side those at even places, or with `half` 1 those at odd ones. Its bits are the upper half of a
        float32's, so that it takes one instruction."""
        b, numbers = self.builder, ir.VectorType(I32, self.lanes)
        both = b.load(b.bitcast(pointer, numbers.as_pointer()))
        both.align = self.bytes
        bits = b.and_(both, self._constant(0xFFFF0000)) if half else b.shl(both, self._constant(16))
        return b.bitcast(bits, self.vector)

    def load_channels(self, pointer: Any, vectors: int) -> list[Any]:
        """So many vectors, an even number; of bfloat16 each pair as its halves."""
        b = self.builder
        if self.dtype == types.int16:
            return [self.load_half(b.gep(pointer, [I64(v // 2 * 2 * self.lanes)]), v % 2) for v in range(vectors)]
        return [self.load(b.gep(pointer, [I64(v * self.lanes)]), None) for v in range(vectors)]

    def store(self, value: Any, pointer: Any, mask: Any, stream: bool = False) -> None:
        """`stream`: past the caches, to a place that is a multiple of the vector's size."""
        self.store_stored(self.narrow(value), pointer, mask, stream)

    def store_stored(self, value: Any, pointer: Any, mask: Any, stream: bool = False) -> None:
        b, lanes = self.builder, value.type.count
        address = b.bitcast(pointer, value.type.as_pointer())
        if mask is None:
            stored_ = b.store(value, address)
            stored_.align = lanes * self.bytes if stream else self.bytes
            if stream:
                stored_.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))
            return
        function = b.module.declare_intrinsic(
            f"llvm.masked.store.v{lanes}{self._suffix()}.p0",
            fnty=ir.FunctionType(ir.VoidType(), [value.type, value.type.as_pointer(), I32, ir.VectorType(I1, lanes)]),
        )
        b.call(function, [value, address, I32(self.bytes), mask])

    def mask(self, count: Any, lanes: int = 0) -> Any:
        """The first `count` of the lanes of a vector."""
        lanes = lanes or self.lanes
        b, numbers = self.builder, ir.VectorType(I32, lanes)
        counts = splat(b, b.trunc(count, I32), lanes)
        return b.icmp_signed("<", ir.Constant(numbers, list(range(lanes))), counts)

    def within(self, ahead: Any, window: Any) -> Any:
        """The lanes c where |ahead - c| <= window."""
        behind = self.mask(self.builder.sub(ahead, window))  # c < ahead - window
        return self.builder.and_(self.mask(self.builder.add(self.builder.add(ahead, window), I64(1))), self.builder.not_(behind))

    def full(self, count: Any, vectors: int) -> Any:
        """Whether `count` channels fill so many vectors."""
        return self.builder.icmp_signed(">=", count, I64(vectors * self.lanes))

    def store_channels(self, vectors: list[Any], pointer: Any, count: Any, stream: Any, halves: bool) -> None:
        """The first `count` channels of some vectors, with `halves` pairs as of `load_channels`; past the caches where the bit `stream` is set and
        the channels fill them."""
        b, full_ = self.builder, self.full(count, len(vectors))
        stored = [self._join(*pair) for pair in zip(vectors[::2], vectors[1::2], strict=True)] if halves else [*map(self.narrow, vectors)]
        lanes = stored[0].type.count
        places = [I64(v * lanes) for v in range(len(stored))]
        with b.if_else(full_) as (full, part):
            with full, b.if_else(stream) as branches:
                for branch, past_caches in zip(branches, (True, False), strict=True):
                    with branch:
                        for vector, at in zip(stored, places, strict=True):
                            self.store_stored(vector, b.gep(pointer, [at]), None, past_caches)
            with part:
                for vector, at in zip(stored, places, strict=True):
                    self.store_stored(vector, b.gep(pointer, [at]), self.mask(b.sub(count, at), lanes))

    def _suffix(self) -> str:
        names: dict[Any, str] = {types.int16: "i16", types.uint16: "f16", types.float64: "f64"}
        return names.get(self.dtype, "f32")

    def widen(self, value: Any) -> Any:
        b = self.builder
        if self.dtype == types.uint16:
            return b.fpext(value, self.vector)
        if self.dtype == types.int16:
            numbers = ir.VectorType(I32, self.lanes)
            return b.bitcast(b.shl(b.zext(value, numbers), ir.Constant(numbers, [16] * self.lanes)), self.vector)
        return value

    def narrow(self, value: Any) -> Any:
        """Rounds to nearest, ties to even."""
        b = self.builder
        if self.dtype == types.uint16:
            return b.fptrunc(value, ir.VectorType(self.stored, self.lanes))
        if self.dtype == types.int16:
            upper = b.lshr(self._bfloat16(value), self._constant(16))
            return b.trunc(upper, ir.VectorType(I16, self.lanes))
        return value

    def _join(self, even: Any, odd: Any) -> Any:
        """The vector of bfloat16 with these numbers at even and at odd places."""
        b = self.builder
        both = b.or_(b.lshr(self._bfloat16(even), self._constant(16)), b.and_(self._bfloat16(odd), self._constant(0xFFFF0000)))
        return b.bitcast(both, ir.VectorType(I16, 2 * self.lanes))

    def _bfloat16(self, value: Any) -> Any:
        """Of every float32 bits of which the upper half are its bfloat16; the lower half is anything."""
        b = self.builder
        bits = b.bitcast(value, ir.VectorType(I32, self.lanes))
        odd = b.and_(b.lshr(bits, self._constant(16)), self._constant(1))
        rounded = b.add(b.add(bits, self._constant(0x7FFF)), odd)
        return b.select(b.fcmp_unordered("uno", value, value), b.or_(bits, self._constant(0x400000)), rounded)

    def _constant(self, number: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(I32, self.lanes), [number] * self.lanes)


def splat(builder: Any, number: Any, lanes: int) -> Any:
    """A vector of one number."""
    undefined = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, number, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def prefetch(builder: Any, pointer: Any, to_write: bool) -> None:
    """Has the line of memory at an address fetched: into the first-level cache where it is about to be written, else, for later, into the second.
    An address that isn't one does no harm."""
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), I32, I32, I32])
    function = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
    builder.call(function, [builder.bitcast(pointer, BYTE.as_pointer()), I32(int(to_write)), I32(3 if to_write else 2), I32(1)])


def opaque(builder: Any, number: Any) -> Any:
    """The same number, of which the compiler knows nothing."""
    return builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [number], False)


def settle(builder: Any, vectors: list[Any]) -> list[Any]:
    """The same vectors, to be in registers here, and before all that the code does to memory from here on; no instruction."""
    kind = vectors[0].type
    register = "w" if "aarch64" in llvm.get_process_triple() else "v"
    constraints = ",".join([f"={register}"] * len(vectors) + [str(i) for i in range(len(vectors))] + ["~{memory}"])
    settled = builder.asm(ir.FunctionType(ir.LiteralStructType([kind] * len(vectors)), [kind] * len(vectors)), "", constraints, vectors, True)
    return [builder.extract_value(settled, i) for i in range(len(vectors))]


def loop(builder: Any, lo: Any, hi: Any, step: int, initial: list[Any]) -> tuple[Any, list[Any], Any]:
    """Opens a loop over [lo, hi) that carries values: returns the counter, the values, and `close(next values)`, which leaves the builder behind
    the loop and returns the values at its end."""
    b, entry = builder, builder.block
    head, body, done = (b.append_basic_block(name) for name in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    counter = b.phi(I64)
    counter.add_incoming(lo, entry)
    carried = [b.phi(value.type) for value in initial]
    for phi, value in zip(carried, initial, strict=True):
        phi.add_incoming(value, entry)
    b.cbranch(b.icmp_signed("<", counter, hi), body, done)
    b.position_at_end(body)

    def close(following: list[Any]) -> list[Any]:
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, b.block)
        counter.add_incoming(b.add(counter, I64(step)), b.block)
        b.branch(head)
        b.position_at_end(done)
        return list(carried)

    return counter, list(carried), close


def sum_lanes(b: Any, e: Elements, vectors: list[Any]) -> Any:
    """Lane i of the result is the sum of the lanes of vector i; as many vectors as lanes."""
    pick, half = ir.VectorType(I32, e.lanes), e.lanes // 2
    vectors = [vectors[_reversed_bits(i, e.lanes)] for i in range(e.lanes)]
    while half:
        # Of a pair of vectors, one half of each is kept where it is, the other comes to its place: both become halves of one.
        keep = [lane + (e.lanes if lane & half else 0) for lane in range(e.lanes)]
        move = [(lane ^ half) + (e.lanes if lane & half else 0) for lane in range(e.lanes)]
        vectors = [
            b.fadd(b.shuffle_vector(first, second, ir.Constant(pick, keep)), b.shuffle_vector(first, second, ir.Constant(pick, move)))
            for first, second in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        half //= 2
    return vectors[0]


def _reversed_bits(number: int, count: int) -> int:
    """Of a number below `count`, a power of two."""
    return sum(((number >> i) & 1) * (count >> (i + 1)) for i in range(count.bit_length() - 1))
