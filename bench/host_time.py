"""What a call of an operation on a GPU costs the host, without a GPU: `python -m bench.host_time --against ../other-checkout`.

A stand-in for Triton's driver lets the `triton` backend take its tensors on the CPU: kernels are specialised and compiled for a real chip as ever,
and what is launched does nothing. Tensors are small, so that torch's own work on them is too. Times are the thread's, the least of several rounds;
with another checkout the two take turns, each in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_ROUNDS, _CALLS, _TURNS = 9, 60, 3


class _Utils:
    """A chip's resources, as of an H100, and binaries that are loaded nowhere."""

    def load_binary(self, *_: Any) -> tuple[int, int, int, int, int]:
        return 1, 1, 32, 0, 1024  # module, function, registers, spilled bytes, most threads

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65_536}

    def unload_module(self, *_: Any) -> None:
        pass


class _Launcher:
    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, *_: Any) -> None:
        pass


class _Driver:
    launcher_cls, utils = _Launcher, _Utils()

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, _: int) -> None:
        pass

    def get_current_stream(self, _: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")


def measure() -> dict[str, float]:
    """Microseconds of every call."""
    os.environ.pop("TRITON_INTERPRET", None)
    import torch
    import triton

    from fastst import SkeletonGraph, ops
    from fastst.ops import backends

    triton.runtime.driver.set_active(_Driver())
    backends._interpreted = lambda: True  # what else would refuse tensors on the CPU
    torch.set_num_threads(1)
    graph, B, T, C = SkeletonGraph("coco18", 3), 1, 32, 64
    x, edges, nodes, att = torch.randn(B, T, 18, C), torch.rand(B, graph.num_slots, T), torch.rand(B, T, 18), torch.randn(4, 16)
    a, b, w, s, v = (tensor.clone().requires_grad_() for tensor in (x, x, edges, nodes, att))
    ids, dy = torch.arange(B), torch.randn_like(x)
    both = (edges, nodes)
    calls: dict[str, Callable[[], Any]] = {
        "propagate": lambda: ops.propagate(x, edges, graph, nodes),
        "propagate with gradients": lambda: torch.autograd.grad(ops.propagate(a, w, graph, s), (a, w, s), dy),
        "gcn_norm": lambda: ops.gcn_norm(edges, graph),
        "gcn_norm with gradients": lambda: torch.autograd.grad(ops.gcn_norm(w, graph), w, both),
        "attend": lambda: ops.attend(x, x, att, graph, 4),
        "attend with gradients": lambda: torch.autograd.grad(ops.attend(a, b, v, graph, 4), (a, b, v), dy),
        "edge_logits": lambda: ops.edge_logits(x, x, graph),
        "sample_edges": lambda: ops.sample_edges(edges, graph, seed=0, sample_ids=ids),
        "sample_from_embeddings": lambda: ops.sample_from_embeddings(x, x, graph, seed=0, sample_ids=ids),
        "sample_from_embeddings with gradients": lambda: torch.autograd.grad(
            ops.sample_from_embeddings(a, b, graph, seed=0, sample_ids=ids), (a, b), edges
        ),
    }
    with ops.use_backend("triton"):
        return {name: _least_microseconds(call) for name, call in calls.items()}


def _least_microseconds(call: Callable[[], Any]) -> float:
    for _ in range(3):  # compiles
        call()
    rounds = []
    for _ in range(_ROUNDS):
        start = time.thread_time()
        for _ in range(_CALLS):
            call()
        rounds.append((time.thread_time() - start) / _CALLS)
    return min(rounds) * 1e6


def in_turns(checkouts: list[Path]) -> list[dict[str, float]]:
    """The least time of every call in each checkout, which has to have the operations of this one."""
    found: list[dict[str, float]] = [{} for _ in checkouts]
    for _ in range(_TURNS):
        for checkout, least in zip(checkouts, found, strict=True):
            environment = {**os.environ, "PYTHONPATH": str(checkout), "TRITON_DISABLE_LINE_INFO": "1"}
            command = [sys.executable, str(Path(__file__).resolve()), "--measure"]
            ended = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise SystemExit(f"{checkout}: {ended.stderr.strip().splitlines()[-1]}")
            for name, microseconds in json.loads(ended.stdout).items():
                least[name] = min(microseconds, least.get(name, microseconds))
    return found


def table(found: list[dict[str, float]]) -> str:
    lines = ["| call | µs |" + " other | share |" * (len(found) - 1), "| --- | --- |" + " --- | --- |" * (len(found) - 1)]
    for name, here in found[0].items():
        others = "".join(f" {other[name]:.0f} | {here / other[name]:.2f} |" for other in found[1:])
        lines.append(f"| {name} | {here:.0f} |{others}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of fastst, timed in turns with this one")
    parser.add_argument("--measure", action="store_true", help="only time the fastst that is imported, and write JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
    else:
        print(table(in_turns([ROOT] if options.against is None else [ROOT, options.against.resolve()])), end="")


if __name__ == "__main__":
    main()
