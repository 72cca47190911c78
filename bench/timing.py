"""Checks the contenders of a group against the reference, then times them in interleaved rounds; and the machine's own limits.

Interleaved: every round times each contender once, so that a slow minute of the machine hits all of them. Short runs come after untimed ones of the
same contender: otherwise they would pay for what their predecessor left behind, in the caches, in freed memory and in sleeping threads.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.clocks import DEVICE, NotCaptured, captured, seconds_of
from bench.contender import Contender, FaststReference, FaststTorch
from bench.contenders import CONTENDERS
from bench.works import WORKS, GcnLayer, Size, Work
from fastst.cpu.memory import give_back_freed_memory

Name = TypeVar("Name", bound=Hashable)
PHASES = ("forward", "forward + backward")
REFERENCE_BYTES = 1 << 30  # larger dense references are not formed: the comparison is then made at a smaller size, and with fastst `torch`
DENSE_BYTES = 8 << 30  # the memory for which the project is made
MOST_ROUNDS, FEWEST_ROUNDS = 40, 3
WARMED_SECONDS = 0.1  # contenders whose runs are at most so long are run untimed before a timed run:
WARM_UPS, WARMING_SECONDS = 2, 0.02  # so often, and for so long, at least
LIMIT_TRIES = 5  # of each of the machine's limits, before the groups of every family
MOST_SECONDS = 10.0  # a contender whose single run takes longer gets no more rounds, and its table entry says how long it took

_limits: dict[int, dict[str, float]] = {}  # of so many threads


@dataclass(frozen=True)
class Group:
    """What is compared: one work at one size, by contenders that all do the same."""

    work: str
    backward: bool
    size: Size
    contenders: tuple[str, ...]
    threads: int | None = None  # None: as many as the session has
    family: str | None = None  # groups of one family are set against one another, such as one thread and two, and so are timed together

    @property
    def phase(self) -> str:
        return PHASES[self.backward]

    @property
    def name(self) -> str:
        size, kind = self.size, WORKS[self.work]
        layers = f" L={size.layers}" if issubclass(kind, WORKS["inference"]) else ""
        dtype = "" if size.dtype == "float32" else f" {size.dtype}"
        threads = "" if self.threads is None else f" threads={self.threads}"
        return f"{self.work} {self.phase} B={size.B} T={size.T} k={size.hops} C={size.C}{layers}{dtype}{threads}"


class Disagreement(AssertionError):
    """A contender's results are not those of the reference."""


@dataclass
class Outcome:
    """What became of one contender: times, or the reason why there are none."""

    seconds: list[float] = field(default_factory=list)
    skipped: str | None = None
    disagreement: str | None = None
    largest_difference: float = 0.0
    checked: str = ""
    parameters: int | None = None
    clock: str = "wall"


def run_groups(groups: Sequence[Group], budget: float, timed: bool = True) -> list[dict[str, Outcome]]:
    """Checks and times all contenders of groups that are timed together, in about `budget` seconds for each group (more where single runs are slow),
    an equal share for every contender of any of them."""
    before = torch.get_num_threads()
    try:
        outcomes = [{name: Outcome() for name in group.contenders} for group in groups]
        steps: dict[tuple[int, str], Callable[[], Any]] = {}
        for number, group in enumerate(groups):
            torch.set_num_threads(group.threads or before)
            for name, outcome in outcomes[number].items():
                outcome.skipped = why_skipped(name, group)
                if outcome.skipped is None:
                    try:
                        work = checked(name, group, outcome)
                    except Disagreement as error:
                        outcome.disagreement = str(error)
                        continue
                    step = work.forward_and_backward if group.backward else work.forward
                    steps[number, name] = _with_threads(_as_the_device_runs_it(step, outcome), torch.get_num_threads())
        if timed:
            for threads in sorted({group.threads or before for group in groups}):
                try_limits(threads)
            for (number, name), seconds in interleaved(steps, budget * len(groups)).items():
                if seconds[0] <= MOST_SECONDS:
                    outcomes[number][name].seconds = seconds
                else:
                    outcomes[number][name].skipped = f"a run took {seconds[0]:.0f} s: more than {MOST_SECONDS:.0f} are not repeated"
        return outcomes
    finally:
        torch.set_num_threads(before)
        forget()
        gc.collect()
        give_back_freed_memory()  # the next tensors have other sizes, and may not fit into what these left


def _as_the_device_runs_it(step: Callable[[], Any], outcome: Outcome) -> Callable[[], Any]:
    """On a GPU the replay of the step's CUDA graph, where a graph can hold it: else a short step takes as long as its kernels' hand-over."""
    if DEVICE == "cuda":
        try:
            step, outcome.clock = captured(step), "CUDA graph"
        except (NotCaptured, torch.OutOfMemoryError) as error:
            outcome.clock = f"events, with the hand-over of kernels: {error}"
    return step


def _with_threads(step: Callable[[], Any], threads: int) -> Callable[[], Any]:
    def run() -> Any:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return step()

    return run


def why_skipped(name: str, group: Group) -> str | None:
    kind, contender = WORKS[group.work], CONTENDERS[name]
    reason = contender.missing(DEVICE) or contender.unable.get(group.work)
    if reason is None and name == "dense":
        needed = kind.dense_bytes(group.size, group.backward)
        if needed > DENSE_BYTES:
            return f"its matrices would take {needed / 2**30:.0f} GiB"
    return reason


def checked(name: str, group: Group, outcome: Outcome) -> Work:
    """The contender's work, once its results were found to be the reference's."""
    small = reference_size(group)
    if name == "gemm":
        outcome.checked = "–"  # it does something else
        return _work(group, CONTENDERS[name], group.size)
    if small == group.size:
        work = _work(group, CONTENDERS[name], group.size)
        _compare(work, group, "reference", outcome)
        outcome.checked = "reference"
    else:
        _compare(_work(group, CONTENDERS[name], small), group, "reference", outcome)
        work = _work(group, CONTENDERS[name], group.size)
        outcome.checked = f"reference at B={small.B} T={small.T}"
        if name != "fastst_torch":
            _compare(work, group, "torch", outcome)
            outcome.checked += ", fastst torch at full size"
    outcome.parameters = getattr(work, "parameters", None)
    return work


def reference_size(group: Group) -> Size:
    """The group's size if the dense reference fits there, else one at which it does."""
    kind, size = WORKS[group.work], group.size
    T, B = size.T, size.B
    while B > 1 and kind.reference_bytes(size.smaller(B, T)) > REFERENCE_BYTES:
        B = max(1, B // 2)
    while kind.reference_bytes(size.smaller(B, T)) > REFERENCE_BYTES:
        T //= 2
    return size.smaller(B, T)


def _compare(work: Work, group: Group, like: str, outcome: Outcome) -> None:
    tolerance = work.tolerance if group.size.dtype == "float32" else 3e-2
    wanted_all = _expected(group.work, group.backward, work.size, like)
    found_all = work.results(group.backward)
    assert len(found_all) == len(wanted_all)
    for number, (found, wanted) in enumerate(zip(found_all, wanted_all, strict=True)):
        what = "output" if number < work.outputs else f"gradient {number - work.outputs + 1}"
        if found.shape != wanted.shape:
            raise Disagreement(f"the shape of its {what} is {list(found.shape)}, that of fastst's {like} {list(wanted.shape)}")
        if group.work in ("sample_edges", "sample_from_embeddings", "sample_with_information") and number == 0:
            # 0 or 1: an edge whose z is 0 up to rounding may be kept by one and not by the other.
            difference = (found.round() != wanted.round()).double().mean().item()
        else:
            difference = relative_difference(found, wanted)
        outcome.largest_difference = max(outcome.largest_difference, difference)
        if not difference <= tolerance:  # NaN is a disagreement too
            raise Disagreement(
                f"its {what} differs from that of fastst's {like} by {difference:.1e} of the largest number ({tolerance:.0e} is let through)"
            )


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """max |found - wanted| / max |wanted|"""
    largest = wanted.float().abs().max().item()
    return (found.float() - wanted.float()).abs().max().item() / (largest or 1.0)


def forget() -> None:
    """What the last comparisons were with."""
    _expected.cache_clear()


@cache
def _expected(work: str, backward: bool, size: Size, like: str) -> list[Tensor]:
    """What the comparison is with; made once for all contenders."""
    contender = {"reference": FaststReference, "torch": FaststTorch}[like](size.graph, size.B, size.T, DEVICE)
    return [x.detach() for x in WORKS[work](size, contender).results(backward)]


def _work(group: Group, contender: type[Contender], size: Size) -> Work:
    torch.manual_seed(0)
    return WORKS[group.work](size, contender(size.graph, size.B, size.T, DEVICE))


def interleaved(steps: dict[Name, Callable[[], Any]], budget: float) -> dict[Name, list[float]]:
    """Seconds of every round. As many rounds as fit the budget; slow steps take part in fewer of them, spread over the whole time, and those of more
    than MOST_SECONDS only in the first."""
    first = {name: seconds_of(step) for name, step in steps.items()}
    again = {name: min(first[name], seconds_of(step)) for name, step in steps.items() if first[name] <= WARMED_SECONDS}
    warm_ups = {name: max(WARM_UPS, math.ceil(WARMING_SECONDS / again[name])) if name in again else 0 for name in steps}
    seconds = {name: [] if name in again else [first[name]] for name in steps}
    first |= again
    kept = {name: step for name, step in steps.items() if first[name] <= MOST_SECONDS}
    share = budget / max(1, len(kept))
    rounds = {name: int(min(MOST_ROUNDS, max(FEWEST_ROUNDS, share / first[name] / (1 + warm_ups[name])))) for name in kept}
    more = {name: rounds[name] - len(seconds[name]) for name in kept}
    total = max(more.values(), default=0)
    for r in range(total):
        for name, step in kept.items():
            if r * more[name] // total != (r + 1) * more[name] // total:
                for _ in range(warm_ups[name]):
                    step()
                seconds[name].append(seconds_of(step))
    return seconds


def machine_limits(threads: int) -> dict[str, float]:
    """Copy bandwidth in bytes a second (read and written), and FLOPs a second of a float32 matrix product; the best of all tries so far."""
    if threads not in _limits:
        try_limits(threads)
    return _limits[threads]


def try_limits(threads: int) -> None:
    """Tried again and again: what a machine reaches in a slow minute is not its limit."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = torch.ones(1 << 26, device=DEVICE)  # 256 MiB: beyond any cache
        target = torch.empty_like(source)
        copy = min(seconds_of(lambda: target.copy_(source)) for _ in range(LIMIT_TRIES))
        n = 1536 if DEVICE == "cpu" else 8192
        a, b = torch.randn(n, n, device=DEVICE), torch.randn(n, n, device=DEVICE)
        product = min(seconds_of(lambda: a @ b) for _ in range(LIMIT_TRIES))
    finally:
        torch.set_num_threads(before)
    found = {"copy_bytes_per_second": 2 * source.numel() * 4 / copy, "gemm_flops_per_second": 2 * n**3 / product}
    best = _limits.get(threads, found)
    _limits[threads] = {name: max(rate, best[name]) for name, rate in found.items()}


def nearest_limit(flops: float, moved: float, threads: int) -> dict[str, Any]:
    """In how many seconds the machine could do it, and which of its limits says so."""
    limits = machine_limits(threads)
    by_compute, by_memory = flops / limits["gemm_flops_per_second"], moved / limits["copy_bytes_per_second"]
    return {"limit_seconds": max(by_compute, by_memory), "limit": "arithmetic" if by_compute >= by_memory else "memory"}


def row_info(group: Group, name: str, outcome: Outcome) -> dict[str, Any]:
    """What a row carries beside its times."""
    threads = group.threads or torch.get_num_threads()
    cost = GcnLayer.gemm_cost if name == "gemm" else WORKS[group.work].cost
    flops, numbers = cost(group.size)[group.backward]
    moved = numbers * group.size.itemsize
    return {
        "work": group.work,
        "phase": group.phase,
        "contender": name,
        "B": group.size.B,
        "T": group.size.T,
        "hops": group.size.hops,
        "C": group.size.C,
        "layers": group.size.layers,
        "dtype": group.size.dtype,
        "threads": threads,
        "device": DEVICE,
        "checked": outcome.checked,
        "largest_difference": outcome.largest_difference,
        "parameters": outcome.parameters,
        "clock": outcome.clock,
        "flops": flops,
        "bytes": moved,
        **nearest_limit(flops, moved, threads),
    }
