"""How long a step takes: on a GPU its own time and the host's told apart, on a CPU the wall's.

A call hands its kernels to the GPU and returns. Of a short one the hand-over takes longer than the kernels, so that a clock around the call and
a wait for the GPU shows the host's time. A CUDA graph hands over many calls at once: what its replay takes is the GPU's time.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[], Any]
_WARM_UPS = 3  # kernels are compiled, and chosen by libraries, in the first calls


class NotCaptured(RuntimeError):
    """The step does something that a CUDA graph can't hold, such as to wait for the GPU."""


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def captured(step: Step, calls: int = 1) -> Step:
    """`calls` runs of a step as one CUDA graph: the returned function replays it.

    Raises:
        NotCaptured: with torch's reason.
    """
    before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            step()
    before.wait_stream(stream)
    _refuse_to_wait(step)  # a capture that fails leaves its marks on the process
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(calls):
                step()
    except RuntimeError as error:
        torch.cuda.set_stream(before)  # which the failed capture did not leave
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise NotCaptured(str(error.__context__ or error).splitlines()[0]) from None
    return graph.replay


def _refuse_to_wait(step: Step) -> None:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        raise NotCaptured(f"it waits for the GPU: {str(error).splitlines()[0]}") from None
    finally:
        torch.cuda.set_sync_debug_mode("default")


def seconds_of(step: Step) -> float:
    """Of one run: on a GPU between two events on its stream, else by the wall's clock. Garbage is not collected meanwhile.

    The GPU is at work before, on something that also takes the place of all else in its caches: an idle one would note the first event at once, and
    the way of the step to the GPU would count.
    """
    enabled = gc.isenabled()
    gc.disable()
    synchronize()
    try:
        if DEVICE == "cuda":
            _of_no_use().zero_()
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            step()
            after.record()
            after.synchronize()
            return before.elapsed_time(after) / 1e3
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    finally:
        if enabled:
            gc.enable()


@functools.cache
def _of_no_use() -> torch.Tensor:
    """More than any cache holds."""
    return torch.empty(1 << 28, dtype=torch.uint8, device="cuda")


def gpu_seconds(step: Step, calls: int = 10, replays: int = 7) -> float:
    """The GPU's time of one run: the median of replays of a graph of so many.

    Raises:
        NotCaptured: a graph can't hold the step.
    """
    replay = captured(step, calls)
    replay()
    return statistics.median(seconds_of(replay) for _ in range(replays)) / calls


def eager_seconds(step: Step, calls: int = 20, repeats: int = 5) -> float:
    """Of one run among many in a row: the GPU's time or the host's, whichever is longer."""

    def many() -> None:
        for _ in range(calls):
            step()

    for _ in range(_WARM_UPS):
        step()
    return statistics.median(seconds_of(many) for _ in range(repeats)) / calls


def host_seconds(step: Step, calls: int = 50) -> float:
    """Until a call returns, the GPU left behind: one at a time, for a queue that is full would be waited for."""
    for _ in range(_WARM_UPS):
        step()
    taken = []
    for _ in range(calls):
        synchronize()
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    synchronize()
    return statistics.median(taken)


def all_clocks(step: Step, calls: int = 20) -> dict[str, Any]:
    """Microseconds of one run by every clock that there is, and why where one is missing. `us` is the best estimate of the device's own time, of
    calls that follow one another and so find in its caches what fits there; `cold_us` is that of a single call, which finds nothing."""
    row: dict[str, Any] = {"eager_us": eager_seconds(step, calls) * 1e6}
    if DEVICE == "cuda":
        row["host_us"] = host_seconds(step, 2 * calls) * 1e6
        try:
            row["gpu_us"] = gpu_seconds(step, max(1, calls // 2)) * 1e6
            row["cold_us"] = gpu_seconds(step, 1) * 1e6
        except NotCaptured as error:
            row["not_captured"] = str(error)
    return {"us": row.get("gpu_us", row["eager_us"]), **row}
