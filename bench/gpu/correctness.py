"""Whether the operations are right on this GPU: against the dense reference in float64, run after run, and without a wait for the host."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.clocks import DEVICE
from bench.gpu.notes import Notes
from fastst import EdgeList, SkeletonGraph, ops
from fastst.graph import Graph
from fastst.ops import Sampling, use_backend

BACKEND = "triton" if DEVICE == "cuda" else "cpu"
# Largest ‖found - wanted‖ / ‖wanted‖; of kept edges the share that differ.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
_SIGMOID = Sampling(tau=1.0, noise="logistic", estimator="sigmoid")
_RUNS = 4
_PROCESSES = 4  # each has some 0.5 GB of the GPU's memory

Function = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    name: str
    graph: Graph
    B: int
    T: int  # 0: an edge list
    C: int
    lengths: tuple[int, ...] | None = None

    def features(self, generator: torch.Generator, C: int | None = None) -> Tensor:
        frames = (self.T,) if self.T else ()
        return torch.randn(self.B, *frames, self.graph.num_joints, C or self.C, generator=generator, dtype=torch.float64)

    def edges(self, generator: torch.Generator) -> Tensor:
        frames = (self.T,) if self.T else ()
        return torch.rand(self.B, self.graph.num_slots, *frames, generator=generator, dtype=torch.float64)


def cases(tiny: bool) -> Iterator[Case]:
    edges = torch.randperm(1600, generator=torch.Generator().manual_seed(0))[:300]
    T = 12 if tiny else 50  # the reference of attend on these two takes 3.3 GB
    yield Case("3 hops", SkeletonGraph("coco18", 3), 2, T, 64, (T, T - 7))
    yield Case("1 hop, odd sizes", SkeletonGraph("openpose25", 1), 2, 5 if tiny else 33, 6)
    yield Case("edge list", EdgeList(torch.stack((edges // 40, edges % 40)), 40), 2, 0, 16)
    if not tiny:
        yield Case("2 hops, several tiles", SkeletonGraph("ntu25", 2), 1, 64, 40, (51,))


def operations(case: Case) -> dict[str, tuple[Function, list[Tensor]]]:
    """Name -> a function of float tensors, and these in float64 on the CPU."""
    graph, C, heads = case.graph, case.C, 2
    generator = torch.Generator().manual_seed(1)
    known: dict[str, Any] = {} if case.lengths is None else {"lengths": torch.tensor(case.lengths, device=DEVICE)}
    x, y, weight = case.features(generator), case.features(generator), case.edges(generator)
    bias = torch.randn(graph.num_slots, generator=generator, dtype=torch.float64)
    att = torch.randn(heads, C // heads, generator=generator, dtype=torch.float64)
    q = x / C**0.5

    def embeddings(q: Tensor, k: Tensor, bias: Tensor, **options: Any) -> Any:
        return ops.sample_from_embeddings(q, k, graph, bias, seed=7, sampling=_SIGMOID, **options, **known)

    return {
        "propagate": (lambda x, w, s: ops.propagate(x, w, graph, s, **known), [x, weight - 0.3, case.features(generator, 1)[..., 0]]),
        "edge_logits": (lambda q, k, b: ops.edge_logits(q, k, graph, b, **known), [x, y, bias]),
        "gcn_norm": (lambda kept: ops.gcn_norm(kept, graph, **known), [(weight > 0.3).double()]),
        "attend": (lambda a, b, att: ops.attend(a, b, att, graph, heads, **known), [x, y, att]),
        "message": (
            lambda x, e, w: ops.message(x, e, w, graph, **known),
            [x, torch.randn(graph.num_slots, C, generator=generator, dtype=torch.float64), weight],
        ),
        "sample_edges, as in the paper": (lambda z: ops.sample_edges(z, graph, seed=7, **known), [4 * weight - 2]),
        "sample_edges": (lambda z: ops.sample_edges(z, graph, seed=7, sampling=_SIGMOID, **known), [4 * weight - 2]),
        "sample_from_embeddings": (embeddings, [q, y, bias]),
        "sample_from_embeddings with information": (lambda q, k, b: embeddings(q, k, b, prior=0.25), [q, y, bias]),
    }


def outputs_and_gradients(function: Function, leaves: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    leaves = [leaf.to(DEVICE, dtype).requires_grad_() for leaf in leaves]
    with use_backend(backend):
        outputs = function(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(5)
        gradients = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) for y in outputs]
        return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, leaves, gradients)]


def dtypes(tiny: bool) -> tuple[torch.dtype, ...]:
    return (torch.float32,) if tiny else (torch.float32, torch.bfloat16, torch.float64, torch.float16)


def build(notes: Notes, tiny: bool) -> None:
    """Compiles the kernels that the next parts need, in several processes at once, into Triton's cache on the disk."""
    if BACKEND == "triton":
        notes.attempt("kernels", _build, notes, min(_PROCESSES, os.cpu_count() or 1), tiny)


def _build(notes: Notes, count: int, tiny: bool) -> dict[str, Any]:
    context, start = multiprocessing.get_context("spawn"), time.monotonic()
    processes = [context.Process(target=_build_some, args=(share, count, tiny), daemon=True) for share in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(1.0, notes.left() - 5))
        process.kill()
    programs = sum(1 for _ in _programs(tiny))
    return {"programs": programs, "processes": count, "seconds": time.monotonic() - start}


def _build_some(share: int, count: int, tiny: bool) -> None:
    """What goes wrong here goes wrong once more where it is noted."""
    for function, leaves, dtype in itertools.islice(_programs(tiny), share, None, count):
        with contextlib.suppress(Exception):
            outputs_and_gradients(function, leaves, dtype, BACKEND)


def _programs(tiny: bool) -> Iterator[tuple[Function, list[Tensor], torch.dtype]]:
    for case in cases(tiny):
        for function, leaves in operations(case).values():
            for dtype in dtypes(tiny):
                yield function, leaves, dtype


def correct(notes: Notes, tiny: bool) -> None:
    """Outputs and gradients against the reference in float64 of the inputs as rounded to the dtype. Memory that nobody wrote is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    for case in cases(tiny):
        for name, (function, leaves) in operations(case).items():
            for dtype in dtypes(tiny):
                rounded = [leaf.to(dtype).double() for leaf in leaves]
                for backend in (BACKEND, "torch"):
                    about = {"case": case.name, "operation": name, "dtype": str(dtype).removeprefix("torch."), "backend": backend}
                    notes.attempt(" | ".join(about.values()), _errors, name, function, rounded, dtype, backend, about=about)


def _errors(name: str, function: Function, leaves: list[Tensor], dtype: torch.dtype, backend: str) -> dict[str, Any]:
    wanted = outputs_and_gradients(function, leaves, torch.float64, "reference")
    found = outputs_and_gradients(function, leaves, dtype, backend)
    errors = [relative_error(a, b) for a, b in zip(found, wanted, strict=True)]
    if name.startswith("sample"):
        errors[0] = (found[0].double() != wanted[0]).double().mean().item()
    one_edge = 1 / found[0].numel() if name.startswith("sample") else 0.0  # at the threshold, and so either way
    right = (
        errors[0] <= max(TOLERANCES[dtype], one_edge)
        and all(error <= TOLERANCES[dtype] for error in errors[1:])
        and all(torch.isfinite(y).all().item() for y in found)
    )
    return {"errors": [float(f"{error:.2e}") for error in errors], "right": right}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found - wanted‖ / ‖wanted‖"""
    return ((found.double() - wanted).norm() / wanted.norm().clamp(min=1e-300)).item()


def deterministic(notes: Notes, tiny: bool) -> None:
    """The same bits in every run, and the edges that the CPU keeps."""
    case = next(cases(tiny))
    for name, (function, leaves) in operations(case).items():
        notes.attempt(f"same bits: {name}", _same_bits, function, leaves)
    for noise in ("gumbel", "logistic"):
        notes.attempt(f"edges unlike the CPU's: {noise}", _unlike_the_cpu, noise, tiny)


def _same_bits(function: Function, leaves: list[Tensor]) -> dict[str, Any]:
    first, *others = (outputs_and_gradients(function, leaves, torch.float32, BACKEND) for _ in range(_RUNS))
    return {"right": all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))}


def _unlike_the_cpu(noise: str, tiny: bool) -> dict[str, Any]:
    """Uniforms are the same bit for bit; logarithms are not, so that an edge at the threshold may go either way."""
    graph = SkeletonGraph("coco18", 3)
    logits = torch.randn(2 if tiny else 64, graph.num_slots, 12 if tiny else 300, generator=torch.Generator().manual_seed(0))
    with use_backend("torch"):
        wanted = ops.sample_edges(logits, graph, seed=3, noise=noise)
    with use_backend(BACKEND):
        found = ops.sample_edges(logits.to(DEVICE), graph, seed=3, noise=noise).cpu()
    differ = int((found != wanted).sum())
    return {"differ": differ, "edges": found.numel(), "right": differ <= 1e-5 * found.numel()}


def waits(notes: Notes, tiny: bool) -> None:
    """No operation waits for the GPU, forward or backward."""
    if DEVICE != "cuda":
        return
    for backend in (BACKEND, "torch"):
        for name, (function, leaves) in operations(next(cases(tiny))).items():
            notes.attempt(f"{backend}: {name}", _does_not_wait, function, leaves, backend)


def _does_not_wait(function: Function, leaves: list[Tensor], backend: str) -> dict[str, Any]:
    leaves = [leaf.to(DEVICE, torch.float32).requires_grad_() for leaf in leaves]
    with use_backend(backend):
        outputs = function(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        gradients = [torch.ones_like(y) for y in outputs]
        torch.autograd.grad(outputs, leaves, gradients)  # the first time tables go to the GPU and kernels are compiled
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.autograd.grad(function(*leaves), leaves, gradients)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return {"right": False, "waits": str(error).splitlines()[0]}
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"right": True}
