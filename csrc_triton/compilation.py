"""Compile every kernel for GPUs that are not here, and read from the machine code what the compiler made of it."""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

KERNEL_MODULES = ("products", "sample_edges", "gcn_norm", "attend")
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
AMD = {"gfx90a": 64, "gfx1100": 32}  # threads in a warp


def compilations(dtype: str) -> list[Compilation]:
    """Of all kernel modules, for features of `dtype`, a key of DTYPES."""
    modules = [importlib.import_module(f"csrc_triton.{name}") for name in KERNEL_MODULES if _exists(name)]
    return [compilation for module in modules for compilation in module.compilations(dtype)]


def _exists(name: str) -> bool:
    return (Path(__file__).parent / f"{name}.py").exists()


def specialise(compilation: Compilation) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list]]:
    """Signature, constants and attributes that the JIT would infer: numbers 1 and None are constants, multiples of 16 are known to be."""
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(compilation.kernel.params):
        value = compilation.arguments[parameter.name]
        kind = "constexpr" if parameter.is_constexpr else _kind(value)
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
    return triton.compile(source, target=gpu, options={"num_warps": compilation.num_warps, "enable_fp_fusion": True})


def occupancy(registers: int, shared: int, num_warps: int, chip: Chip) -> int:
    """Warps of this kernel that a multiprocessor can hold at once. Registers are given out 256 at a time to a warp, to four warps at a time."""
    registers_of_warp = -(-registers * 32 // 256) * 256
    by_registers = (65536 // registers_of_warp // 4 * 4) // num_warps
    by_shared = chip.shared // (shared + chip.reserved) if shared + chip.reserved else chip.blocks
    return min(chip.warps // num_warps, chip.blocks, by_registers, by_shared) * num_warps


def inspect(compilation: Compilation, capability: int) -> dict[str, Any]:
    """The resources and the inner loop of a kernel on an NVIDIA chip."""
    cubin = compile_for(compilation, capability).asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", _tool("cuobjdump", "--dump-resource-usage", file.name)))
        code = _tool("nvdisasm", "-c", file.name)
    instructions = list(_instructions(code))
    names = [name for name, _, _ in instructions]
    loops = [_names_between(instructions, *loop) for loop in inner_loops(instructions)]
    most = max((loop.count("FFMA") for loop in loops), default=0)
    busiest = [loop for loop in loops if most and loop.count("FFMA") == most]
    return {
        "registers": int(usage["REG"]),
        "spills": int(usage["STACK"]) + int(usage["LOCAL"]),
        "shared": int(usage["SHARED"]),
        "warps": occupancy(int(usage["REG"]), int(usage["SHARED"]), compilation.num_warps, CHIPS[capability]),
        "local_instructions": sum(name.startswith(("LDL", "STL")) for name in names),
        "atomics": sum(name.startswith(("ATOM", "RED")) and not name.startswith("REDUX") for name in names),
        "wide_loads": min((sum(name.startswith("LDG") and ".128" in name for name in loop) for loop in busiest), default=0),
        "instructions_per_ffma": max((round(len(loop) / most, 2) for loop in busiest), default=None),
    }


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


_LABEL = re.compile(r"^(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]+\*/\s+)?(?:\{\s*)?(?:@!?U?P[T\d]\s+)?([A-Z][A-Z0-9_.]*)\b(.*);")
_TARGET = re.compile(r"\((\.L_x_\d+)\)")


def _instructions(code: str) -> Iterator[tuple[str, set[str], str | None]]:
    """Name, labels in front of it and the label that it branches to, of every instruction of a disassembly."""
    labels: set[str] = set()
    for line in code.splitlines():
        if label := _LABEL.match(line):
            labels.add(label[1])
        elif instruction := _INSTRUCTION.match(line):
            target = _TARGET.search(instruction[2]) if instruction[1].startswith("BRA") else None
            yield instruction[1], labels, target[1] if target else None
            labels = set()


def inner_loops(instructions: list[tuple[str, set[str], str | None]]) -> list[tuple[int, int]]:
    """First and last instruction of every loop that has no other loop inside: what a branch backwards goes round."""
    at = {label: i for i, (_, labels, _) in enumerate(instructions) for label in labels}
    loops = {(at[target], i) for i, (_, _, target) in enumerate(instructions) if target and at[target] < i}
    return sorted(one for one in loops if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in loops))


def _names_between(instructions: list[tuple[str, set[str], str | None]], first: int, last: int) -> list[str]:
    return [name for name, _, _ in instructions[first : last + 1]]
