"""The GPU that is there: what it is, whether it will do, and whether somebody else is at work on it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from typing import Any

import torch

import fastst
from bench.clocks import DEVICE
from bench.gpu.notes import Notes

OLDEST_CHIP, OLDEST_TRITON = (7, 5), (3, 3)
_PACKAGES = ("triton", "numpy", "numba", "torch-geometric", "turbo-gnn", "pytest")
_MEMORY_OF_THE_DRIVER = 1.2  # seconds: for so long it counts what an earlier part of ours did
_BUSY = 5  # percent of the time that the GPU was at work before we were
_TAKEN_MIB = 1024  # memory that the driver, a desktop and this process's parent take at most


def why_not() -> str | None:
    """Why there can be no report here, in words; None if there can."""
    if not torch.cuda.is_available():
        return "there is no GPU that torch can use; `python -m bench.gpu --rehearse` goes through the report on the CPU, in tiny sizes"
    chip = torch.cuda.get_device_capability()
    if torch.version.hip is None and chip < OLDEST_CHIP:
        return f"the GPU is an sm_{chip[0]}{chip[1]}; the kernels are for sm_{OLDEST_CHIP[0]}{OLDEST_CHIP[1]} and later"
    triton = _triton()
    if triton is None:
        return "triton is not installed"
    if tuple(int(part) for part in triton.split(".")[:2]) < OLDEST_TRITON:
        return f"triton is {triton}; the kernels need {'.'.join(map(str, OLDEST_TRITON))} or later"
    return None


def device(notes: Notes, tiny: bool) -> None:
    """What it is, and the versions of what runs on it."""
    notes.attempt("device", _device)
    if DEVICE == "cuda":
        notes.attempt("nvidia-smi", of_the_driver, "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu")


def _device() -> dict[str, Any]:
    versions = {"fastst": fastst.__version__, "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    row: dict[str, Any] = {"versions": {**versions, **{name: _version(name) for name in _PACKAGES}}}
    if DEVICE != "cuda":
        return {"name": "CPU", **row}
    gpu = torch.cuda.get_device_properties(0)
    about = {"name": gpu.name, "chip": f"sm_{gpu.major}{gpu.minor}", "multiprocessors": gpu.multi_processor_count}
    return {**about, "memory_GiB": gpu.total_memory / 2**30, "l2_MiB": gpu.L2_cache_size / 2**20, **row}


def disturbance() -> str | None:
    """Whether somebody else is on the GPU, before anything of ours is, as far as the driver tells."""
    try:
        if _quiet(*_load()):
            return None
        time.sleep(_MEMORY_OF_THE_DRIVER)
        busy, taken = _load()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
    said = f"the GPU was {busy:.0f} % at work and {taken:.0f} MiB of its memory taken before this part began"
    return None if _quiet(busy, taken) else said


def _load() -> tuple[float, float]:
    """Percent of the time at work, and MiB of memory taken."""
    found = of_the_driver("utilization.gpu,memory.used")
    return float(found["utilization.gpu"].split()[0]), float(found["memory.used"].split()[0])


def _quiet(busy: float, taken: float) -> bool:
    return busy < _BUSY and taken < _TAKEN_MIB


def of_the_driver(names: str) -> dict[str, str]:
    """What its program says of the GPU; that there is none is no fault of the GPU's."""
    if shutil.which("nvidia-smi") is None:
        return {"missing": "nvidia-smi"}
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"  # a number or a UUID
    command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader", f"--id={first}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return dict(zip(names.split(","), (value.strip() for value in done.stdout.split(",")), strict=True))


def _triton() -> str | None:
    """Its own word: packages that bring it have other names, for AMD's GPUs say."""
    try:
        return importlib.import_module("triton").__version__
    except ImportError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
