"""Compile every kernel for GPUs that are not here, and read from the machine code what the compiler made of it."""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from csrc_triton.launch import launch_options
from fastst.graph_index import GraphIndex

KERNEL_MODULES = (
    "products", "propagate", "sample_edges", "sample_from_embeddings", "sample_k_edges", "gcn_norm", "attend", "attention_weights", "message",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Compilation:
    """One kernel, specialised as a launch would specialise it.

    Attributes:
        name: of the kernel, as the table shows it.
        kernel: the `@triton.jit` function.
        arguments: one for every parameter of the kernel, as the launch passes it: numbers, None, values of constexprs. Of tensors only the dtype
            counts (they may be on the meta device, or the torch.dtype itself); they are taken to be aligned to 16 bytes.
        num_warps: of the launch.
        work: the size that the counts below are for, "B=8 T=60 k=3 C=64" say.
        programs: how many the launch has at that size.
        bytes_moved: what they read and write, with what the programs of one frame tile share counted once.
        bytes_least: every input once and every output once.
        max_registers: of a thread, where the launch sets it.
        feature_bytes: what one program (the mean) asks for of the features, and how much of it is distinct; None where no loop runs over features.
    """

    name: str
    kernel: Any
    arguments: dict[str, Any]
    num_warps: int
    work: str
    programs: int
    bytes_moved: int
    bytes_least: int
    feature_bytes: tuple[int, int] | None = None
    max_registers: int | None = None


@dataclass(frozen=True)
class Example:
    """The graphs that kernels are compiled for.

    Attributes:
        index, hops: slots, and how many frames they reach.
        edges: an edge list, which has as many nodes as the slots have in 60 frames.
    """

    index: GraphIndex
    hops: int
    edges: GraphIndex

    @property
    def num_slots(self) -> int:
        return self.index.num_slots

    @property
    def num_joints(self) -> int:
        return self.index.bounds.shape[1] - 1


class Chip(NamedTuple):
    """What bounds the warps of a multiprocessor (CUDA C++ Programming Guide, compute capabilities)."""

    warps: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that the driver takes of each block


CHIPS = {
    75: Chip(32, 16, 64 << 10, 0),
    80: Chip(64, 32, 164 << 10, 1 << 10),
    86: Chip(48, 16, 100 << 10, 1 << 10),
    89: Chip(48, 24, 100 << 10, 1 << 10),
    90: Chip(64, 32, 228 << 10, 1 << 10),
}
# sm_75 has no bfloat16; and what float32 compiles to for sm_89 is what it does for sm_86, so half precision is not compiled for both.
LEFT_OUT: dict[str, set[int]] = {"float32": set(), "bfloat16": {75, 89}, "float16": {89}}
AMD = {"gfx90a": 64, "gfx1100": 32}  # threads in a warp


@functools.cache
def compilations(dtype: str, example: Callable[[], Example], modules: tuple[str, ...] = KERNEL_MODULES) -> list[Compilation]:
    """Of all kernel modules, for features of `dtype`, a key of DTYPES. `example` makes the graphs."""
    graph = example()
    return [compilation for name in modules for compilation in importlib.import_module(f"csrc_triton.{name}").compilations(dtype, graph)]


def specialise(compilation: Compilation) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list]]:
    """Signature, constants and attributes that the JIT would infer: numbers 1 and None are constants, multiples of 16 are known to be."""
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(compilation.kernel.params):
        value = compilation.arguments[parameter.name]
        kind = "constexpr" if parameter.is_constexpr else parameter.annotation_type or _kind(value)
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[parameter.name] = value
        elif kind.startswith("*") or (kind.startswith("i") and kind != "i1" and value % 16 == 0):
            attributes[position,] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        value = value.dtype
    if isinstance(value, torch.dtype):
        return _POINTERS[value]
    if value is None or (value == 1 and type(value) is int):
        return "constexpr"
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(1 << 31) <= value < 1 << 31 else "i64"


def compile_for(compilation: Compilation, target: int | str) -> Any:
    """The compiled kernel, for a compute capability (75 is sm_75) or the name of an AMD chip."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = specialise(compilation)
    source = ASTSource(fn=compilation.kernel, signature=signature, constexprs=constants, attrs=attributes)
    gpu = GPUTarget("cuda", target, 32) if isinstance(target, int) else GPUTarget("hip", target, AMD[target])
    return triton.compile(source, target=gpu, options=launch_options(gpu.backend, compilation.num_warps, compilation.max_registers))


def occupancy(registers: int, shared: int, num_warps: int, chip: Chip) -> int:
    """Warps of this kernel that a multiprocessor can hold at once. Registers are given out 256 at a time to a warp, to four warps at a time."""
    registers_of_warp = -(-registers * 32 // 256) * 256
    by_registers = (65536 // registers_of_warp // 4 * 4) // num_warps
    by_shared = chip.shared // (shared + chip.reserved) if shared + chip.reserved else chip.blocks
    return min(chip.warps // num_warps, chip.blocks, by_registers, by_shared) * num_warps


def inspect(compilation: Compilation, target: int | str) -> dict[str, Any]:
    """The resources of a kernel on a chip, and on NVIDIA's what the inner loops of those over features are made of.

    The others are not disassembled, which takes as long as many a compilation: where no bytes are spilled, no instruction can bring them back.
    """
    compiled = compile_for(compilation, target)
    if isinstance(target, str):
        notes = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size):\s+(\d+)", compiled.asm["amdgcn"]))
        spills = sum(int(value) for name, value in notes.items() if name != "vgpr_count")
        return {"registers": int(notes["vgpr_count"]), "spills": spills, "shared": compiled.metadata.shared}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = {name: int(n) for name, n in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", _tool("cuobjdump", "--dump-resource-usage", file.name))}
        code = [] if compilation.feature_bytes is None else list(_instructions(_tool("nvdisasm", "--print-code", "--no-dataflow", file.name)))
    figures: dict[str, Any] = {
        "registers": usage["REG"],
        "spills": usage["STACK"] + usage["LOCAL"],
        "shared": usage["SHARED"],
        "warps": occupancy(usage["REG"], usage["SHARED"], compilation.num_warps, CHIPS[target]),
        "atomics": len(re.findall(r"^\s*(?:@!?%\w+ )?(?:atom|red)\.", compiled.asm["ptx"], re.MULTILINE)),
    }
    if code:
        loops = [code[first : last + 1] for first, last in inner_loops(code)]
        busy = [loop for loop in loops if _count(loop, "FFMA")] or [unrolled(code)]
        most = max(_count(loop, "FFMA") for loop in busy)
        busiest = [loop for loop in busy if _count(loop, "FFMA") == most]
        figures |= {
            "local_instructions": sum(i.name.startswith(("LDL", "STL")) for i in code),
            "wide_loads": min(_count(loop, "LDG", ".128") for loop in busiest),
            "loops_without_wide_loads": sum(not _count(loop, "LDG", ".128") for loop in busy),
            "loads_in_flight": min(loads_in_flight(loop) for loop in busiest),
            "instructions_per_ffma": max(round(len(loop) / most, 2) for loop in busiest),
            "in_any_loop": max(round(len(loop) / _count(loop, "FFMA"), 2) for loop in busy),
        }
    return figures


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


class Instruction(NamedTuple):
    name: str  # LDG.E.128.SYS, say
    operands: str
    labels: list[str]  # in front of it


_LABEL = re.compile(r"^(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]+\*/\s+)?(?:\{\s*)?(?:@!?U?P[T\d]\s+)?([A-Z][A-Z0-9_.]*)\b(.*);")
_TARGET = re.compile(r"\((\.L_x_\d+)\)")
_REGISTER = re.compile(r"\bR(\d+)\b")


def _instructions(disassembly: str) -> Iterator[Instruction]:
    labels: list[str] = []
    for line in disassembly.splitlines():
        if label := _LABEL.match(line):
            labels.append(label[1])
        elif instruction := _INSTRUCTION.match(line):
            yield Instruction(instruction[1], instruction[2], labels)
            labels = []


def inner_loops(code: list[Instruction]) -> list[tuple[int, int]]:
    """First and last instruction of every loop that has no other loop inside: what a branch backwards goes round."""
    at = {label: i for i, instruction in enumerate(code) for label in instruction.labels}
    loops = set()
    for i, instruction in enumerate(code):
        target = _TARGET.search(instruction.operands) if instruction.name.startswith("BRA") else None
        if target and at[target[1]] < i:
            loops.add((at[target[1]], i))
    return sorted(one for one in loops if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in loops))


def _count(loop: list[Instruction], name: str, part: str = "") -> int:
    return sum(i.name.split(".")[0] == name and part in i.name for i in loop)


def _waiting(code: list[Instruction]) -> list[int]:
    """After every instruction how many 16-byte loads are under way: between a load and the first instruction that names what it loads."""
    waiting: list[set[int]] = []
    found = []
    for instruction in code:
        named = {int(register) for register in _REGISTER.findall(instruction.operands)}
        waiting = [registers for registers in waiting if not registers & named]
        if instruction.name.startswith("LDG") and ".128" in instruction.name:
            first = int(_REGISTER.findall(instruction.operands)[0])
            waiting.append(set(range(first, first + 4)))
        found.append(len(waiting))
    return found


def loads_in_flight(loop: list[Instruction]) -> int:
    """The most 16-byte loads that are under way at one time."""
    return max(_waiting(loop))


def unrolled(code: list[Instruction]) -> list[Instruction]:
    """What became of a loop over features that has so few rounds that it is none any more: from the first 16-byte load to the use of the last."""
    under_way = [i for i, loads in enumerate(_waiting(code)) if loads]
    return code[under_way[0] : under_way[-1] + 2]


def inspect_all(
    example: Callable[[], Example],
    modules: Sequence[str] = KERNEL_MODULES,
    dtypes: Sequence[str] = tuple(DTYPES),
    targets: Sequence[int | str] = (*CHIPS, *AMD),
) -> list[dict[str, Any]]:
    """Every kernel, for every chip and every feature dtype that it has, in a few processes of their own.

    Args:
        example: makes the graphs; a function of a module, which every process imports.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(4, os.cpu_count() or 1), initializer=_compile_for_real) as pool:
        jobs = [job for found in pool.starmap(_jobs, itertools.product([example], dtypes, modules, (targets,))) for job in found]
        return pool.starmap(_inspect_job, jobs, chunksize=1)


def _compile_for_real() -> None:
    os.environ.pop("TRITON_INTERPRET", None)  # read when a kernel is defined
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # the same code, in less time


def _jobs(
    example: Callable[[], Example], dtype: str, module: str, targets: Sequence[int | str]
) -> list[tuple[Callable[[], Example], str, int, str, int | str]]:
    chosen = [target for target in targets if target not in LEFT_OUT[dtype]]
    return [(example, module, number, dtype, target) for number in range(len(compilations(dtype, example, (module,)))) for target in chosen]


def _inspect_job(example: Callable[[], Example], module: str, number: int, dtype: str, target: int | str) -> dict[str, Any]:
    compilation = compilations(dtype, example, (module,))[number]
    row = {
        "kernel": compilation.name,
        "dtype": dtype,
        "target": f"sm_{target}" if isinstance(target, int) else target,
        "work": compilation.work,
        "programs": compilation.programs,
        "num_warps": compilation.num_warps,
        "bytes_moved": compilation.bytes_moved,
        "bytes_least": compilation.bytes_least,
    }
    if compilation.feature_bytes is not None:
        row |= dict(zip(("feature_bytes_requested", "feature_bytes_distinct"), compilation.feature_bytes, strict=True))
    return row | inspect(compilation, target)
