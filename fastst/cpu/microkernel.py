"""Inner loops as LLVM code: vectors of accumulators that stay in registers, which numba's own loops don't reach.

Every builder is driven by the types of its arguments, so that one numba function serves all element types and vector widths and its machine code
can be cached on disk: elements are float32 or float64, or half precision as the bits of bfloat16 (int16) or float16 (uint16), which are
widened to float32 in registers; the vector width is the length of a tuple, in units of 16 bytes.

numba's cache looks at the file of the function that it compiled, not at this one: after a change here, remove `fastst/cpu/__pycache__`.
"""

from __future__ import annotations

import itertools
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))


def native_width() -> tuple[int, ...]:
    """The widest vectors that this CPU has, as a tuple whose length is their width in units of 16 bytes."""
    features = llvm.get_host_cpu_features()
    return (0,) * (4 if features.get("avx512f") else 2 if features.get("avx") else 1)


def accumulators(width: int) -> int:
    """Vectors per frame that fit the registers beside four frames' weights: 32 registers with AVX-512, 16 with AVX."""
    return 4 if width == 4 else 2


class _Elements:
    """How one element type is loaded, computed with and stored, for vectors of a width."""

    def __init__(self, builder: Any, dtype: types.Type, width: int) -> None:
        self.builder, self.dtype = builder, dtype
        self.compute = ir.DoubleType() if dtype == types.float64 else ir.FloatType()
        half: dict[Any, Any] = {types.int16: _I16, types.uint16: ir.HalfType()}
        self.stored = half.get(dtype, self.compute)
        self.lanes = width * (2 if dtype == types.float64 else 4)
        self.vector = ir.VectorType(self.compute, self.lanes)
        sizes: dict[Any, int] = {types.float64: 8, types.float32: 4}
        self.bytes = sizes.get(dtype, 2)

    def zero(self) -> ir.Constant:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def splat(self, scalar: Any) -> Any:
        b, undefined = self.builder, ir.Constant(self.vector, ir.Undefined)
        first = b.insert_element(undefined, scalar, _I32(0))
        return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fma.v{self.lanes}{'f64' if self.bytes == 8 else 'f32'}"
        function = self.builder.module.declare_intrinsic(name, fnty=ir.FunctionType(self.vector, [self.vector] * 3))
        return self.builder.call(function, [a, b, c])

    def load(self, pointer: Any, mask: Any) -> Any:
        """A vector of computing type; lanes outside the mask are 0 and not read."""
        b, stored = self.builder, ir.VectorType(self.stored, self.lanes)
        address = b.bitcast(pointer, stored.as_pointer())
        if mask is None:
            value = b.load(address)
            value.align = self.bytes
        else:
            zero = ir.Constant(stored, [0.0 if isinstance(self.stored, (ir.FloatType, ir.DoubleType, ir.HalfType)) else 0] * self.lanes)
            function = b.module.declare_intrinsic(
                f"llvm.masked.load.v{self.lanes}{self._suffix()}.p0",
                fnty=ir.FunctionType(stored, [stored.as_pointer(), _I32, ir.VectorType(_I1, self.lanes), stored]),
            )
            value = b.call(function, [address, _I32(self.bytes), mask, zero])
        return self._widen(value)

    def store(self, value: Any, pointer: Any, mask: Any) -> None:
        b, stored = self.builder, ir.VectorType(self.stored, self.lanes)
        value, address = self._narrow(value), b.bitcast(pointer, stored.as_pointer())
        if mask is None:
            b.store(value, address).align = self.bytes
            return
        function = b.module.declare_intrinsic(
            f"llvm.masked.store.v{self.lanes}{self._suffix()}.p0",
            fnty=ir.FunctionType(ir.VoidType(), [stored, stored.as_pointer(), _I32, ir.VectorType(_I1, self.lanes)]),
        )
        b.call(function, [value, address, _I32(self.bytes), mask])

    def mask(self, count: Any) -> Any:
        """The first `count` lanes."""
        b, numbers = self.builder, ir.VectorType(_I32, self.lanes)
        undefined = ir.Constant(numbers, ir.Undefined)
        first = b.insert_element(undefined, b.trunc(count, _I32), _I32(0))
        counts = b.shuffle_vector(first, undefined, ir.Constant(numbers, [0] * self.lanes))
        return b.icmp_signed("<", ir.Constant(numbers, list(range(self.lanes))), counts)

    def _suffix(self) -> str:
        names: dict[Any, str] = {types.int16: "i16", types.uint16: "f16", types.float64: "f64"}
        return names.get(self.dtype, "f32")

    def _widen(self, value: Any) -> Any:
        b = self.builder
        if self.dtype == types.uint16:
            return b.fpext(value, self.vector)
        if self.dtype == types.int16:
            numbers = ir.VectorType(_I32, self.lanes)
            return b.bitcast(b.shl(b.zext(value, numbers), ir.Constant(numbers, [16] * self.lanes)), self.vector)
        return value

    def _narrow(self, value: Any) -> Any:
        """Rounds to nearest, ties to even."""
        b = self.builder
        if self.dtype == types.uint16:
            return b.fptrunc(value, ir.VectorType(self.stored, self.lanes))
        if self.dtype == types.int16:
            numbers = ir.VectorType(_I32, self.lanes)

            def constant(number: int) -> ir.Constant:
                return ir.Constant(numbers, [number] * self.lanes)

            bits = b.bitcast(value, numbers)
            odd = b.and_(b.lshr(bits, constant(16)), constant(1))
            rounded = b.lshr(b.add(b.add(bits, constant(0x7FFF)), odd), constant(16))
            quiet_nan = b.or_(b.lshr(bits, constant(16)), constant(0x40))
            rounded = b.select(b.fcmp_unordered("uno", value, value), quiet_nan, rounded)
            return b.trunc(rounded, ir.VectorType(_I16, self.lanes))
        return value


def _data(context: Any, builder: Any, signature: Any, args: Any, number: int) -> Any:
    """The address of an array argument's first element."""
    return context.make_array(signature.args[number])(context, builder, args[number]).data


def _loop(builder: Any, lo: Any, hi: Any, step: int, initial: list[Any]) -> tuple[Any, list[Any], Any]:
    """Opens a loop over [lo, hi) that carries values: returns the counter, the values, and `close(next values)`, after which the builder stands
    behind the loop. The carried values are then those at its end."""
    b, entry = builder, builder.block
    head, body, done = (b.append_basic_block(name) for name in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    counter = b.phi(_I64)
    counter.add_incoming(lo, entry)
    carried = [b.phi(value.type) for value in initial]
    for phi, value in zip(carried, initial, strict=True):
        phi.add_incoming(value, entry)
    b.cbranch(b.icmp_signed("<", counter, hi), body, done)
    b.position_at_end(body)

    def close(following: list[Any]) -> None:
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, b.block)
        counter.add_incoming(b.add(counter, _I64(step)), b.block)
        b.branch(head)
        b.position_at_end(done)

    return counter, carried, close


@intrinsic
def weighted_sum(
    typingctx, width, frames, vectors, masked, with_self, x, x_at, y, y_at, values, values_at, x_offset, values_offset, lo, hi, own, frame_size, count
):
    """y[f, c] = Σ over s in [lo, hi) of values[values_offset[s] + f] · x[x_offset[s] + f · frame_size + c] (+ own[f] · x at y's place).

    For `len(frames)` frames and `len(vectors)` vectors of channels from c = 0 on, or for `count` channels of one vector if `masked` has length 1.
    `x_at`, `y_at`, `values_at` are where the tile begins in x, y and values; sums are fused multiply-adds in the order of s.
    """
    F, V, W, use_mask, use_self = frames.count, vectors.count, width.count, masked.count == 1, with_self.count == 1

    def codegen(context, b, signature, args):
        e = _Elements(b, x.dtype, W)
        data = {n: _data(context, b, signature, args, i) for i, n in ((5, "x"), (7, "y"), (9, "values"), (11, "xo"), (12, "vo"), (15, "own"))}
        x0, y0 = b.gep(data["x"], [args[6]]), b.gep(data["y"], [args[8]])
        v0, frame = b.gep(data["values"], [args[10]]), args[16]
        mask = e.mask(args[17]) if use_mask else None

        def row(base: Any, f: int, v: int) -> Any:
            return b.gep(base, [b.add(b.mul(frame, _I64(f)), _I64(v * e.lanes))])

        def element(base: Any) -> Any:
            return b.bitcast(base, e.stored.as_pointer())

        initial = []
        for f, v in itertools.product(range(F), range(V)):
            start = e.zero()
            if use_self:
                mine = e.load(row(b.gep(element(data["x"]), [args[8]]), f, v), mask)
                start = b.fmul(e.splat(b.load(b.gep(data["own"], [_I64(f)]))), mine)
            initial.append(start)
        s, acc, close = _loop(b, args[13], args[14], 1, initial)
        base = b.gep(element(x0), [b.load(b.gep(data["xo"], [s]))])
        weights = b.gep(v0, [b.load(b.gep(data["vo"], [s]))])
        following = []
        for f in range(F):
            weight = e.splat(b.load(b.gep(weights, [_I64(f)])))
            following += [e.fma(weight, e.load(row(base, f, v), mask), acc[f * V + v]) for v in range(V)]
        close(following)
        for f, v in itertools.product(range(F), range(V)):
            e.store(acc[f * V + v], row(element(y0), f, v), mask)
        return context.get_dummy_value()

    arguments = (
        width,
        frames,
        vectors,
        masked,
        with_self,
        x,
        types.int64,
        y,
        types.int64,
        values,
        types.int64,
        x_offset,
        values_offset,
        types.int64,
        types.int64,
        own,
        types.int64,
        types.int64,
    )
    return types.void(*arguments), codegen


@intrinsic
def dot_products(typingctx, width, frames, q, q_at, k, k_at, out, out_at, k_offset, out_offset, first, hi, frame_size, channels):
    """out[out_offset[s] + f] = Σ over c of q[f · frame_size + c] · k[k_offset[s] + f · frame_size + c], for as many s from `first` on as make
    one vector of results (those from `hi` on repeat the last), and `len(frames)` frames.

    Every sum is made in the same order, whatever stands beside it: lane by lane over the channels, then over the lanes in pairs.
    """
    F, W = frames.count, width.count

    def codegen(context, b, signature, args):
        e = _Elements(b, q.dtype, W)
        S = max(1, e.lanes // F)
        data = {n: _data(context, b, signature, args, i) for i, n in ((2, "q"), (4, "k"), (6, "out"), (8, "ko"), (9, "oo"))}
        element = e.stored.as_pointer()
        q0 = b.gep(b.bitcast(data["q"], element), [args[3]])
        k0 = b.gep(b.bitcast(data["k"], element), [args[5]])
        out0, last, frame, channels_ = b.gep(data["out"], [args[7]]), b.sub(args[11], _I64(1)), args[12], args[13]
        slots = []
        for i in range(S):
            s = b.add(args[10], _I64(i))
            slots.append(b.select(b.icmp_signed("<", s, last), s, last))
        rows = [b.gep(k0, [b.load(b.gep(data["ko"], [s]))]) for s in slots]

        def step(c: Any, acc: list[Any], mask: Any) -> list[Any]:
            mine = [e.load(b.gep(q0, [b.add(b.mul(frame, _I64(f)), c)]), mask) for f in range(F)]
            return [
                e.fma(mine[f], e.load(b.gep(rows[i], [b.add(b.mul(frame, _I64(f)), c)]), mask), acc[i * F + f])
                for i, f in itertools.product(range(S), range(F))
            ]

        whole = b.sub(channels_, b.srem(channels_, _I64(e.lanes)))
        c, acc, close = _loop(b, _I64(0), whole, e.lanes, [e.zero()] * (S * F))
        close(step(c, acc, None))
        c, acc, close = _loop(b, whole, channels_, e.lanes, acc)  # at most once: the channels that don't fill a vector
        close(step(c, acc, e.mask(b.sub(channels_, c))))
        for group in range(S * F // e.lanes):
            sums = _sum_lanes(b, e, acc[group * e.lanes : (group + 1) * e.lanes])
            for lane in range(e.lanes):
                i, f = divmod(group * e.lanes + lane, F)
                at = b.gep(out0, [b.add(b.load(b.gep(data["oo"], [slots[i]])), _I64(f))])
                b.store(b.extract_element(sums, _I32(lane)), at)
        return context.get_dummy_value()

    arguments = (width, frames, q, types.int64, k, types.int64, out, types.int64, k_offset, out_offset, *[types.int64] * 4)
    return types.void(*arguments), codegen


def _sum_lanes(b: Any, e: _Elements, vectors: list[Any]) -> Any:
    """Lane i of the result is the sum of the lanes of vector i; as many vectors as lanes."""
    distance = 1
    while len(vectors) > 1:
        low = [lane for lane in range(e.lanes) if not lane & distance]
        pick = ir.VectorType(_I32, e.lanes)
        # Lanes alternate, in blocks of `distance`, between the first and the second of each pair of vectors.
        first, second = [], []
        for block in range(0, len(low), distance):
            lanes = low[block : block + distance]
            first += lanes + [e.lanes + lane for lane in lanes]
            second += [lane + distance for lane in lanes] + [e.lanes + lane + distance for lane in lanes]
        vectors = [
            b.fadd(b.shuffle_vector(a, c, ir.Constant(pick, first)), b.shuffle_vector(a, c, ir.Constant(pick, second)))
            for a, c in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        distance *= 2
    return vectors[0]
