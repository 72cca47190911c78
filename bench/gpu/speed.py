"""Times on this GPU: its limits, the operations beside their rivals, their kernels, and whole training steps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from bench.clocks import DEVICE, NotCaptured, all_clocks, eager_seconds, gpu_seconds, host_seconds
from bench.contenders import CONTENDERS
from bench.gpu.correctness import BACKEND
from bench.gpu.device import of_the_driver
from bench.gpu.notes import Notes
from bench.timing import Disagreement, Group, Outcome, checked, forget, why_skipped
from bench.works import JOINTS, WORKS, Size, paper_model
from fastst.ops import gcn_norm, use_backend

OURS = f"fastst_{BACKEND}"
RIVALS = ("fastst_torch", "csr", "index_add", "pyg", "turbo_gnn", "dense", "banded")
_IN_HALVES = (OURS, "dense", "banded")  # also timed in bfloat16
_IN_TF32 = ("dense", "banded")
# Work, and with its gradients.
_PLAN = [(work, backward) for work in ("propagate", "sample_with_information", "attend") for backward in (False, True)]
_PLAN += [("edge_logits", False), ("gcn_layer", True), ("sample_edges", False)]
_MODELS = {"smallest": (32, 60, 2, 1), "paper": (32, 60, 4, 1), "largest": (32, 60, 16, 3), "long": (1, 10_000, 16, 3)}  # B, T, layers, hops


def sizes(tiny: bool) -> list[Size]:
    return [Size(2, 12, 3, 16)] if tiny else [Size(32, 60), Size(8, 300), Size(1, 10_000)]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def limits(notes: Notes, tiny: bool) -> None:
    """Copies from memory and from the L2 cache, matrix products in three precisions, and what one launch costs."""
    for name, count in (("copy", 1 << (18 if tiny else 27)), ("copy in the L2 cache", _half_of_the_cache(tiny))):
        notes.attempt(name, _copy, count)
    products = [("bf16", torch.bfloat16, False), *[("tf32", torch.float32, True)] * has_tf32(), ("fp32", torch.float32, False)]
    for name, dtype, allowed in products:
        notes.attempt(f"matrix product, {name}", _product, 128 if tiny else 8192, dtype, allowed)
    one = torch.zeros(1, device=DEVICE)
    notes.attempt("a launch", all_clocks, lambda: one.add_(1), 200)


def has_tf32() -> bool:
    return DEVICE != "cuda" or torch.cuda.get_device_capability() >= (8, 0)


def _half_of_the_cache(tiny: bool) -> int:
    """Numbers of a source and as many of a target that fit into half of the L2 cache."""
    if tiny or DEVICE != "cuda":
        return 1 << 16
    return torch.cuda.get_device_properties(0).L2_cache_size // 4 // 4


def _copy(count: int) -> dict[str, Any]:
    """By a kernel: a copy proper is another engine's, which takes microseconds to start."""
    source = torch.randn(count, device=DEVICE)
    target = torch.empty_like(source)
    row = all_clocks(lambda: torch.neg(source, out=target))
    return {"GB_per_second": 2 * source.nbytes / row["us"] / 1e3, **row}


def _product(n: int, dtype: torch.dtype, allowed: bool) -> dict[str, Any]:
    a, b = torch.randn(n, n, device=DEVICE, dtype=dtype), torch.randn(n, n, device=DEVICE, dtype=dtype)
    with tf32(allowed):
        row = all_clocks(lambda: a @ b, 4)
    return {"TFLOP_per_second": 2 * n**3 / row["us"] / 1e6, **row}


def times(notes: Notes, tiny: bool) -> None:
    """Every operation beside its rivals, each only where its results are the reference's: first what matters most, at all sizes."""
    for work, backward in _PLAN:
        for size in sizes(tiny):
            ours: dict[str, dict[str, Any]] = {}
            for name in (OURS, *RIVALS):
                for precision in ("fp32", *["tf32"] * (name in _IN_TF32 and has_tf32()), *["bf16"] * (name in _IN_HALVES)):
                    group = Group(work, backward, replace(size, dtype="bfloat16") if precision == "bf16" else size, (name,))
                    if why_skipped(name, group) is not None:
                        continue
                    about = {"work": group.name.removesuffix(" bfloat16"), "contender": name, "precision": precision}
                    row = notes.attempt(" | ".join(about.values()), _time, name, group, precision == "tf32", ours, about=about)
                    if name == OURS and "us" in row:
                        ours[precision] = row
            forget()
            gc.collect()
            torch.cuda.empty_cache()
    if DEVICE == "cuda":
        notes.attempt("after this", of_the_driver, "clocks.sm,clocks.mem,temperature.gpu,clocks_throttle_reasons.active")
    for size in sizes(tiny):
        notes.attempt(f"gcn_norm B={size.B} T={size.T}", _norm, size)


def _time(name: str, group: Group, allowed: bool, ours: dict[str, dict[str, Any]]) -> dict[str, Any]:
    outcome = Outcome()
    try:
        work = checked(name, group, outcome)  # in the precision that was asked for; tf32 is then a speed of the same program
    except Disagreement as error:
        return {"error": f"not timed: {error}"}
    with tf32(allowed):
        row = all_clocks(work.forward_and_backward if group.backward else work.forward)
    flops, numbers = WORKS[group.work].cost(group.size)[group.backward]
    row |= {"GB_per_second": numbers * group.size.itemsize / row["us"] / 1e3, "TFLOP_per_second": flops / row["us"] / 1e6}
    base = ours.get("bf16" if group.size.dtype == "bfloat16" else "fp32", row if name == OURS else {})
    return row | {"checked": outcome.checked, "over_ours": over(row, base)}


def over(row: dict[str, Any], base: dict[str, Any]) -> float | None:
    """How many times as long, by the best clock that both have: a host's time is none of a GPU's."""
    clock = next((clock for clock in ("gpu_us", "eager_us") if clock in row and clock in base), None)
    return None if clock is None else row[clock] / base[clock]


def _norm(size: Size) -> dict[str, Any]:
    graph = size.graph
    kept = (torch.rand(size.B, graph.num_slots, size.T, device=DEVICE) > 0.5).float().requires_grad_()
    ones = torch.ones(size.B, size.T, JOINTS, device=DEVICE)

    def both() -> Any:
        return torch.autograd.grad(gcn_norm(kept, graph), kept, (kept.detach(), ones))

    with use_backend(BACKEND):
        forward, forward_and_backward = all_clocks(lambda: gcn_norm(kept.detach(), graph)), all_clocks(both)
    return {"forward": forward, "forward + backward": forward_and_backward}


def kernels(notes: Notes, tiny: bool) -> None:
    """Each kernel's own time, by the profiler."""
    for size in sizes(tiny)[::2]:
        for work in ("propagate", "sample_with_information", "attend", "gcn_layer"):
            notes.attempt(f"{work} B={size.B} T={size.T}", _kernels, work, size)


def _kernels(work: str, size: Size, runs: int = 5) -> dict[str, Any]:
    instance = WORKS[work](size, CONTENDERS[OURS](size.graph, size.B, size.T, DEVICE))
    instance.forward_and_backward()
    return {"kernels": profiled(instance.forward_and_backward, runs)}


def profiled(step: Any, runs: int, most: int = 14) -> list[dict[str, Any]]:
    """Kernels of a run of the step by their GPU time, the longest first."""
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (DEVICE == "cuda")]
    with profile(activities=activities) as found:
        for _ in range(runs):
            step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    of, kind = ("self_device_time_total", DeviceType.CUDA) if DEVICE == "cuda" else ("self_cpu_time_total", DeviceType.CPU)
    # Of the kernels alone: the time of an operation is that of the kernels that it launched, once more.
    events = [event for event in found.key_averages() if event.device_type == kind and not event.is_user_annotation]
    rows = [{"kernel": event.key[:70], "calls": event.count / runs, "us": getattr(event, of) / runs} for event in events]
    return sorted((row for row in rows if row["us"] > 0), key=lambda row: -row["us"])[:most]


def steps(notes: Notes, tiny: bool) -> None:
    """Training steps of whole models: eager, as a CUDA graph, with bfloat16 autocast, and on torch's own operations."""
    for label, (B, T, layers, hops) in ({"tiny": (2, 6, 2, 1)} if tiny else _MODELS).items():
        size = Size(B, T, hops, 8 if tiny else 64, layers)
        for backend, half in ((BACKEND, False), (BACKEND, True), *[("torch", False)] * (label in ("paper", "tiny"))):
            about = {"model": label, "B": B, "T": T, "layers": layers, "hops": hops, "backend": backend, "precision": "bf16" if half else "fp32"}
            key = f"{label} | {backend} | {about['precision']}"
            notes.attempt(key, _step, size, backend, half, about=about)
            gc.collect()
            torch.cuda.empty_cache()


def _step(size: Size, backend: str, half: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model = paper_model(size).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, capturable=DEVICE == "cuda", fused=DEVICE == "cuda")
    poses, classes = torch.randn(size.B, size.T, JOINTS, 2, device=DEVICE), torch.arange(size.B, device=DEVICE) % 2

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16) if half else nullcontext(), use_backend(backend):
            loss = cross_entropy(model(poses, seed=0).logits.float(), classes)
        loss.backward()
        optimizer.step()
        return loss

    first = step().item()
    calls = 3 if size.T > 1_000 else 10
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    row: dict[str, Any] = {"loss": first, "eager_us": eager_seconds(step, calls, 3) * 1e6}
    if DEVICE == "cuda":
        row |= {"peak_GB": torch.cuda.max_memory_allocated() / 1e9, "host_us": host_seconds(step, calls) * 1e6}
        row["kernels"] = profiled(step, 1)
        try:
            row["gpu_us"] = gpu_seconds(step, 1, 5) * 1e6
        except (NotCaptured, torch.OutOfMemoryError) as error:
            row["not_captured"] = str(error)
    return row | {"walks_per_second": size.B / min(row["eager_us"], row.get("gpu_us", row["eager_us"])) * 1e6}
