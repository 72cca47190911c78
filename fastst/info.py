"""`python -m fastst.info`: which backends there are, which can run here, and why not; with `--kernels` what the GPU kernels compile to."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import tyro
from rich.console import Console
from rich.table import Table

from fastst import __version__
from fastst.errors import UserError, run_command
from fastst.files import open_file
from fastst.graph import EdgeList
from fastst.ops import backends, propagate
from fastst.ops.backends import BACKENDS, current_backend, use_backend, why_not
from fastst.runs.folder import write_text
from fastst.runs.tables import check_not_needed

_TITLE = "# The GPU kernels, compiled without a GPU"
_MACHINE_CODE = {
    "kernel": "kernel",
    "dtype": "features",
    "target": "chip",
    "registers": "registers",
    "spills": "spilled bytes",
    "local_instructions": "local-memory instructions",
    "atomics": "atomics",
    "shared": "shared memory",
    "warps": "warps",
    "wide_loads": "16-byte loads",
    "loops_without_wide_loads": "loops without",
    "loads_in_flight": "in flight",
    "instructions_per_ffma": "instructions per FFMA",
    "in_any_loop": "at most",
}
_MEMORY = {
    "kernel": "kernel",
    "dtype": "features",
    "work": "work",
    "programs": "programs",
    "num_warps": "warps of each",
    "bytes_moved": "bytes moved",
    "over_least": "over the least",
    "requested_over_distinct": "requested over distinct",
}
_MEANING = """float32 is compiled for all chips. float16 and bfloat16 leave out sm_89, for which float32 compiles to what it does for sm_86;
sm_75 has no bfloat16. Only kernels with a loop over features are disassembled, for NVIDIA's chips.
Registers and spilled bytes are of a thread, shared memory is in bytes of a program, warps are what a multiprocessor can hold at once.
The 16-byte loads are those in the inner loop over features (the one with most FFMA, or what became of it where it was unrolled); loops without are
other loops with FFMA that have no such load; in flight are the most of them under way at one time; instructions per FFMA are of the machine code of
that loop, at most of any loop with FFMA (those of the sums' tiles at a walk's ends have masks; sampling has its noise in the loop). Bytes moved count
what the programs of a frame tile share once; the least is every input and every output once. Requested over distinct are the feature bytes that one
program asks for over the distinct ones: what caches have to give."""


@dataclass(frozen=True)
class InfoConfig:
    kernels: bool = False
    """Compile every GPU kernel for every chip (needs no GPU) and print what the compiler made of it."""
    write: Path | None = None
    """With --kernels: also write the tables to this Markdown file. One that is there is replaced only by what it was: such tables."""


def main(arguments: Sequence[str] | None = None) -> None:
    config = tyro.cli(InfoConfig, args=arguments, prog="python -m fastst.info", description=__doc__)
    console = Console(soft_wrap=True)
    if config.write is not None and not config.kernels:
        raise UserError("--write needs --kernels")
    if config.write is not None:
        check_not_needed(config.write, option="--write", is_ours=_is_tables)
    if config.kernels:
        _show_kernels(console, config.write)
        return
    versions = f"fastst {__version__}, torch {torch.__version__}, numpy {numpy.__version__}, python {platform.python_version()}"
    console.print(f"{versions}, {torch.get_num_threads()} threads", highlight=False)
    table = Table("backend", "can run", "what it is")
    for name, description in BACKENDS.items():
        reason = why_not(name) or _fails(name)
        table.add_row(name, "yes" if reason is None else f"no: {reason}", description)
    console.print(table)
    try:
        chosen = current_backend()
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
    by = " (FASTST_BACKEND)" if backends.FROM_ENVIRONMENT else ""
    console.print(f"operations run on: {chosen}{by}", highlight=False)
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        console.print(_gpu_in_words(number), highlight=False)


def _fails(name: str) -> str | None:
    """Why a small sum can't be made on a backend, which nothing is known against."""
    device = "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"
    try:
        with use_backend(name):
            graph = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2)
            total = propagate(torch.ones(1, 2, 4, device=device), torch.ones(1, 2, device=device), graph).sum().item()
    except Exception as error:  # whatever it is, that is what was asked
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'without a word'}"
    return None if total == 8 else f"it computes {total} where 8 is right"


def _gpu_in_words(number: int) -> str:
    gpu = torch.cuda.get_device_properties(number)
    try:
        runs = f"operations run on: {current_backend('cuda')}"
    except (ValueError, RuntimeError) as error:
        runs = f"operations can't run: {error}"
    chip = f"sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} multiprocessors, {gpu.total_memory / 2**30:.1f} GiB"
    return f"cuda:{number}, {gpu.name} ({chip}): {runs}"


def _show_kernels(console: Console, file: Path | None) -> None:
    if importlib.util.find_spec("triton") is None:
        raise UserError("triton is not installed, so there are no kernels to compile")
    from csrc_triton.compilation import inspect_all
    from fastst.ops.example import example

    rows = inspect_all(example)
    for row in rows:
        row["over_least"] = row["bytes_moved"] / row["bytes_least"]
        if "feature_bytes_requested" in row:
            row["requested_over_distinct"] = row["feature_bytes_requested"] / row["feature_bytes_distinct"]
    on_one_chip = [row for row in rows if row["target"] == "sm_80"]  # memory is the same on all
    tables = [("Machine code", _MACHINE_CODE, rows), ("Memory", _MEMORY, on_one_chip)]
    for title, columns, listed in tables:
        table = Table(*columns.values(), title=title)
        for row in listed:
            table.add_row(*(_shown(row.get(column)) for column in columns))
        console.print(table)
    if file is not None:
        by = f"`python -m fastst.info --kernels --write {file.as_posix()}` with Triton {importlib.metadata.version('triton')}"
        write_text(file, "\n\n".join((f"{_TITLE}\n\nWritten by {by}.\n{_MEANING}", *(_markdown(*t) for t in tables))) + "\n")


def _is_tables(file: Path) -> bool:
    """Whether it is what `--write` writes."""
    with open_file(file) as content:
        return content.read(len(_TITLE)) == _TITLE.encode()


def _markdown(title: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> str:
    lines = [list(columns.values()), ["---"] * len(columns), *([_shown(row.get(column)) for column in columns] for row in rows)]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_command(main)
