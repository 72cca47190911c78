"""What is made of the operations: training steps in little memory, compiled functions and models, the project's own GPU tests."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.clocks import DEVICE, eager_seconds
from bench.gpu.correctness import BACKEND
from bench.gpu.notes import Notes
from bench.memory import EIGHT_GB, cuda_step, training_step_peak
from bench.works import Size
from fastst import SkeletonGraph
from fastst.nn import GraphClassifier
from fastst.ops import gcn_norm, propagate, sample_from_embeddings

_ROOT = Path(__file__).resolve().parents[2]
_LONG_WALKS = ((10_000, False), (50_000, True))  # frames, and whether activations are recomputed
_WITHIN = 0.05  # a measured peak against the computed one


def memory(notes: Notes, tiny: bool) -> None:
    """Training steps of 16 layers and 3 hops on a GPU that is allowed 8 GB, beside the computed peak."""
    for T, checkpointed in ((40, False),) if tiny else _LONG_WALKS:
        size = Size(1, T, 1, 8, 2) if tiny else Size(1, T, 3, 64, 16)
        notes.attempt(f"T={T}{' with checkpoints' * checkpointed}", _peak, size, checkpointed)


def _peak(size: Size, checkpointed: bool) -> dict[str, Any]:
    computed = training_step_peak("fastst_triton", size, checkpointed).peak
    row: dict[str, Any] = {"computed_GB": computed / 1e9}
    if DEVICE != "cuda":
        return row
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, EIGHT_GB / torch.cuda.get_device_properties(0).total_memory))
    start = time.perf_counter()
    allocated = cuda_step("fastst_triton", size, checkpointed)
    row |= {"allocated_GB": allocated / 1e9, "reserved_GB": torch.cuda.max_memory_reserved() / 1e9, "seconds_in_all": time.perf_counter() - start}
    return row | {"right": abs(allocated / computed - 1) <= _WITHIN}


def compiled(notes: Notes, tiny: bool) -> None:
    """torch.compile(fullgraph=True) of operations with their gradients, and of a model; the same numbers, and the time."""
    notes.attempt("operations", _compiled_operations)
    notes.attempt("new seeds", _compiled_seeds)
    for mode in ("default", *["reduce-overhead"] * (DEVICE == "cuda")):
        notes.attempt(f"model, mode {mode}", _compiled_model, mode, tiny)


def _compiled_operations() -> dict[str, Any]:
    graph = SkeletonGraph("coco18", 1)  # never used before: its index is first asked for while tracing
    q = torch.randn(2, 12, 18, 16, device=DEVICE, requires_grad=True)

    def function(q: Tensor) -> Tensor:
        weight, own = gcn_norm(sample_from_embeddings(q, q, graph, seed=3), graph)
        return propagate(q.relu(), weight, graph, own).square().mean()

    found, wanted = torch.compile(function, fullgraph=True)(q), function(q)
    (dfound,), (dwanted,) = torch.autograd.grad(found, q), torch.autograd.grad(wanted, q)
    output, gradient = (found - wanted).abs().item(), (dfound - dwanted).abs().max().item()
    return {"output": output, "gradient": gradient, "right": max(output, gradient) < 1e-5}


def _compiled_seeds() -> dict[str, Any]:
    graph, q = SkeletonGraph("coco18", 1), torch.randn(2, 12, 18, 16, device=DEVICE)
    function = torch.compile(lambda q, seed: sample_from_embeddings(q, q, graph, seed=seed), fullgraph=True)
    return {"right": all(torch.equal(function(q, seed), sample_from_embeddings(q, q, graph, seed=seed)) for seed in (1, 2, 2**40, -5))}


def _compiled_model(mode: str, tiny: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model = GraphClassifier("coco18", 2, frames=60, layers=2, hidden=16 if tiny else 64).to(DEVICE)
    poses = torch.randn(2 if tiny else 32, 8 if tiny else 60, 18, 2, device=DEVICE)
    fast = torch.compile(model, fullgraph=True, mode=None if mode == "default" else mode)

    def step(called: Any) -> None:
        model.zero_grad(set_to_none=True)  # a replayed graph writes over what it gave before
        torch.compiler.cudagraph_mark_step_begin()
        called(poses, seed=1).logits.sum().backward()

    for _ in range(3):
        step(fast)
    torch.compiler.cudagraph_mark_step_begin()
    difference = (fast(poses, seed=1).logits.clone() - model(poses, seed=1).logits).abs().max().item()
    times = {"compiled_us": eager_seconds(lambda: step(fast)) * 1e6, "eager_us": eager_seconds(lambda: step(model)) * 1e6}
    return {"difference": difference, "right": difference < 1e-3, **times}


def tests(notes: Notes, tiny: bool) -> None:
    """The project's tests of the kernels, which run on the GPU where there is one."""
    files = ["tests/test_backends.py"] if tiny else ["tests/test_triton_kernels.py", "tests/test_triton_ops.py"]
    at_a_time = [] if tiny or importlib.util.find_spec("xdist") is None else ["-n", "4"]
    notes.attempt("pytest", _pytest, [*files, *at_a_time], notes)


def _pytest(words: list[str], notes: Notes) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *words]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=max(1, notes.left() - 5))
    except subprocess.TimeoutExpired:
        return {"error": "the time was up before the tests had ended"}
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return {
        "backend": BACKEND,
        "last_line": lines[-1] if lines else done.stderr.strip()[-200:],
        "failed": failed[:40],
        "right": done.returncode in (0, 5),
    }
