"""The peak memory of a training step, exact and without a GPU: the step runs on fake tensors, which have shapes and storages but no data.

Inside fastst's operations the kernels' own code runs too, with its loops left out, so that every buffer that it allocates is counted. What is
not counted: a few vectors of indices inside compiled loops (some kilobytes a thread), and what an allocator adds by rounding.

`python -m bench.memory --T 10000 --hops 3 --layers 16` says the peak of one step; with `--real` it runs it as well and says how much the
process grew.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import fastst.cpu
from bench.contender import Contender, Fastst
from bench.contenders import CONTENDERS
from bench.libraries import TorchScatter
from bench.plain import Dense
from bench.works import JOINTS, Size, paper_model
from csrc_triton.compilation import KERNEL_MODULES
from fastst.cpu.memory import peak_memory
from fastst.nn import GraphClassifier
from fastst.ops import backends
from fastst.ops.registration import KERNELS

EIGHT_GB = 8 * 10**9
_QUADRATIC = ("_scaled_dot_product_attention_math", "_scaled_dot_product_attention_math_for_mps")


@dataclass
class Peak:
    peak: int
    held: int  # bytes of that which were there before
    largest: int  # bytes of the largest single tensor
    operations: set[str]  # names of those that ran


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while they are alive, those inside fastst's operations included."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self.operations: set[str] = set()
        self._alive: set[int] = set()

    def hold(self, *tensors: Tensor) -> None:
        """Counts tensors that were there before."""
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.add(func.name())
        if func.namespace == "fastst":
            with self:  # its inside, in place of the fake kernel that only makes its outputs
                return KERNELS[func.name()](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.lift_fresh.default:  # numpy's memory: what is planned for a graph and kept with it
            return result
        for output in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(output, Tensor):
                self._count(output)
        return result

    def _count(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:  # its parts were counted when they were made
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive.add(key)
        self.now += size
        self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class _SegmentSum(torch.autograd.Function):
    """What torch_scatter's `segment_csr` and `gather_csr` allocate; their own code can't run on fake tensors."""

    @staticmethod
    def forward(ctx, values, count):
        ctx.rows = len(values)
        return values.new_empty(count, *values.shape[1:])

    @staticmethod
    def backward(ctx, gradient):
        return gradient.new_empty(ctx.rows, *gradient.shape[1:]), None


def _segment_csr(messages: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    return _SegmentSum.apply(messages, len(ptr) - 1)


def _gather_csr(rows: Tensor, ptr: Tensor) -> Tensor:
    return _SegmentSum.apply(rows, int(ptr[-1]))


class _Memory:
    """What stands for a fake tensor's numpy array: keeps the tensor alive, as an array would."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def view(self, *_: Any) -> _Memory:
        return self

    reshape = view


def _no_loops(kernel: Callable[..., None], count: int, *args: Any) -> None:
    """For `run_ranges`."""


@contextmanager
def _in_cpu_kernels(name: str, function: Callable[..., Any]):
    """Inside, `function` stands for a function of that name in every module of `fastst.cpu` that has one."""
    with ExitStack() as stack:
        for found in pkgutil.iter_modules(fastst.cpu.__path__, "fastst.cpu."):
            module = importlib.import_module(found.name)
            if hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, function))
        yield


def _launch_nothing(*_: Any) -> None:
    """And keep nothing, as a mock would."""


@contextmanager
def _no_launches():
    """The `triton` backend runs without a GPU, up to where it would launch a kernel."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(backends, "_interpreted", return_value=True))
        for name in KERNEL_MODULES:
            module = importlib.import_module(f"csrc_triton.{name}")
            if hasattr(module, "launch"):  # what a model's training uses
                stack.enter_context(mock.patch.object(module, "launch", _launch_nothing))
        yield


@contextmanager
def loops_left_out():
    """Compiled kernels (fastst's, torch_scatter's) allocate what they would, and compute nothing."""
    numpy = Tensor.numpy

    def numpy_or_stand_in(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _Memory(tensor) if isinstance(tensor, FakeTensor) else numpy(tensor, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "numpy", numpy_or_stand_in))
        scalar = _fake_empty(dtype=torch.float32)
        stack.enter_context(_in_cpu_kernels("run_ranges", _no_loops))
        stack.enter_context(_in_cpu_kernels("empty", lambda *shape, dtype: scalar.new_empty(shape, dtype=dtype)))
        if importlib.util.find_spec("triton"):
            stack.enter_context(_no_launches())
        if importlib.util.find_spec("torch_scatter"):
            stack.enter_context(mock.patch.multiple("torch_scatter", segment_csr=_segment_csr, gather_csr=_gather_csr))
        yield


def peak_of(function: Callable[[], Any], *there_before: Tensor) -> Peak:
    """Of what a function on fake tensors holds at a time, together with the tensors that were there before."""
    tracker = PeakMemory()
    tracker.hold(*there_before)
    held = tracker.now
    with loops_left_out(), tracker:
        function()
    return Peak(tracker.peak, held, tracker.largest, tracker.operations)


@cache
def fake_mode() -> FakeTensorMode:
    """The one that all fake tensors here belong to.

    They mix with real ones: index tensors stay real, so that what depends on their values can be computed.
    """
    return FakeTensorMode(allow_non_fake_inputs=True)


def training_step_peak(contender: str, size: Size, checkpointed: bool = False) -> Peak:
    """Of one step of AdamW on the training defaults in the given size: parameters, gradients, optimizer state, index tensors and activations."""
    mode, graph = fake_mode(), size.graph
    model = _fake_model(size, mode, checkpointed)
    instance = CONTENDERS[contender](graph, size.B, size.T)
    with mode:
        poses, classes = torch.empty(size.B, size.T, JOINTS, 2), torch.empty(size.B, dtype=torch.int64)
        sample_ids = torch.empty(size.B, dtype=torch.int64)
        if isinstance(instance, Dense):
            instance.mask = torch.empty(size.T * JOINTS, size.T * JOINTS)
            instance.identity = torch.empty(size.T * JOINTS, size.T * JOINTS)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state
    optimizer.zero_grad(set_to_none=True)

    def step() -> None:
        with instance.installed():
            loss = cross_entropy(model(poses, seed=0, sample_ids=sample_ids).logits, classes)
        loss.backward()
        optimizer.step()

    state = [value for values in optimizer.state.values() for value in values.values()]
    index = *model.graph.index(), *_index_tensors(instance)
    peak = peak_of(step, *parameters, *model.buffers(), *state, poses, classes, sample_ids, *index)
    quadratic = sorted(name for name in peak.operations if any(bad in name for bad in _QUADRATIC))
    if quadratic:
        raise RuntimeError(f"attention fell back on {quadratic}, which holds a matrix of frames by frames")
    return peak


def _fake_empty(*shape: int, dtype: torch.dtype) -> Tensor:
    with fake_mode():
        return torch.empty(shape, dtype=dtype)


def _fake_model(size: Size, mode: FakeTensorMode, checkpointed: bool) -> GraphClassifier:
    model = paper_model(size, checkpoint_activations=checkpointed)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)
    return model


def _index_tensors(contender: Contender) -> list[Tensor]:
    """What a contender keeps for the graph throughout training."""
    if isinstance(contender, Fastst):
        return list(contender.graph.index())
    names = ["source", "target"]
    names += ["mask", "identity", "_position"] if isinstance(contender, Dense) else ["_slot"]
    names += ["ptr"] if isinstance(contender, TorchScatter) else []
    return [getattr(contender, name) for name in names]


def longest_walk(contender: str, size: Size, checkpointed: bool = False, budget: int = EIGHT_GB) -> dict[str, int]:
    """The longest T whose training step fits in `budget` bytes, to 1 %: that it fits there, and does not at 1 % more, has both been computed.

    The peak is a polynomial of T; its value at the last two lengths says where to look next, and never stands for a computation.
    """
    computed: dict[int, int] = {}

    def peak(T: int) -> int:
        if T not in computed:
            computed[T] = training_step_peak(contender, size.smaller(size.B, T), checkpointed).peak
        return computed[T]

    low = high = 0
    T = 32
    while not high or high - low > max(1, low // 100):
        low, high = (T, high) if peak(T) <= budget else (low, T)
        T = _next_length(computed, low, high, budget)
    return {"T": low, "peak": computed.get(low, 0), "not_T": high, "not_peak": computed[high]}


def _next_length(computed: dict[int, int], low: int, high: int, budget: int) -> int:
    """Where to look next: a little before the parabola through the three computed lengths nearest to the budget reaches it, and a percent beyond the
    longest that fits once that is near."""
    if len(computed) < 3:
        return (low + high) // 2 if high else 2 * low
    near = sorted(computed, key=lambda T: abs(computed[T] - budget))[:3]
    roots = np.roots(np.polyfit([T / near[0] for T in near], [computed[T] / budget - 1 for T in near], 2)) * near[0]
    lengths = [root.real for root in roots if root.real > 0 and abs(root.imag) < 0.5]
    reached = min(lengths, key=lambda length: abs(length - near[0]), default=2.0 * near[0])
    T = max(int(0.997 * reached), low + max(1, low // 100))
    if not high:
        return min(T, 16 * low)
    return T if T in range(low + 1, high) else (low + high) // 2


def real_step(contender: str, size: Size, checkpointed: bool = False) -> dict[str, float]:
    """Runs a training step and says by how much the process grew at its most (peak RSS, Linux), and its seconds. For a process of its own."""
    torch.manual_seed(0)
    model = paper_model(size, checkpoint_activations=checkpointed)
    instance = CONTENDERS[contender](size.graph, size.B, size.T)
    small = size.smaller(1, 8)
    _step(CONTENDERS[contender](small.graph, 1, 8), paper_model(small), small)  # compiles kernels, starts threads
    before = peak_memory()
    start = time.perf_counter()
    _step(instance, model, size)
    return {"rss_growth": peak_memory() - before, "seconds": time.perf_counter() - start}


def real_step_of_its_own(contender: str, size: Size, checkpointed: bool = False) -> dict[str, float]:
    """`real_step` in a process of its own, whose allocator gives freed memory back at once: what the process holds is then what is in use."""
    code = f"import json; from bench.memory import *; print(json.dumps(real_step({contender!r}, {size!r}, {checkpointed!r})))"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _step(contender: Contender, model: nn.Module, size: Size) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    poses, classes = torch.randn(size.B, size.T, JOINTS, 2), torch.arange(size.B) % 2
    with contender.installed():
        loss = cross_entropy(model(poses.to(contender.device), seed=0).logits, classes.to(contender.device))
    loss.backward()
    optimizer.step()


def cuda_step(contender: str, size: Size, checkpointed: bool) -> int:
    """`torch.cuda.max_memory_allocated` of a training step on a GPU."""
    model = paper_model(size, checkpoint_activations=checkpointed).cuda()
    instance = CONTENDERS[contender](size.graph, size.B, size.T, "cuda")
    small = size.smaller(1, 8)
    _step(CONTENDERS[contender](small.graph, 1, 8, "cuda"), paper_model(small).cuda(), small)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _step(instance, model, size)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def allocated_peak(step: Callable[[], Any]) -> int:
    """What torch's CPU allocator really gave out at a time during a step, beyond what there was before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", default="fastst_cpu", choices=[name for name in CONTENDERS if name != "gemm"])
    for name, value in (("B", 1), ("T", 1000), ("hops", 1), ("C", 64), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--checkpointed", action="store_true", help="with activation checkpointing")
    parser.add_argument("--real", action="store_true", help="run the step too, and say how much the process grew")
    options = parser.parse_args()
    size = Size(options.B, options.T, options.hops, options.C, options.layers)
    peak = training_step_peak(options.contender, size, options.checkpointed)
    print(f"peak {peak.peak / 1e9:.3f} GB, largest tensor {peak.largest / 1e9:.3f} GB")
    if options.real:
        real = real_step_of_its_own(options.contender, size, options.checkpointed)
        print(f"measured {real['rss_growth'] / 1e9:.3f} GB (growth of the peak RSS), {real['seconds']:.1f} s")


if __name__ == "__main__":
    main()
