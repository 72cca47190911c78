"""Every operation on every backend against plain loops, for drawn graphs, sizes, lengths, strides, dtypes and gradients.

    python -m tests.stress.operators --cases 100000 --seconds 3600

goes on where it stopped, prints every failing case, made smaller by hand, as a line of code that repeats it, and ends with how many cases of which
operation ran on which backend. Its exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from fastst.ops import use_backend

from .cases import HALF, Case, Input, Output, Values, draw_lengths, make_values
from .operations import Attend, EdgeLogits, GcnNorm, MeanAverageDistance, Message, Operation, Propagate
from .poison import poisoned_memory
from .sampling import KeepProbability, SampleEdges, SampleFromEmbeddings, SampleKEdges
from .topology import Edges, Skeleton, Slots, Topology, draw

OPERATIONS: dict[str, Operation] = {
    "attend": Attend(),
    "edge_logits": EdgeLogits(),
    "gcn_norm": GcnNorm(),
    "keep_probability": KeepProbability(),
    "mean_average_distance": MeanAverageDistance(),
    "message": Message(),
    "propagate": Propagate(),
    "sample_edges": SampleEdges(),
    "sample_from_embeddings": SampleFromEmbeddings(),
    "sample_k_edges": SampleKEdges(),
}
BACKENDS = ("reference", "torch", "cpu", "triton")
NAMES = tuple(OPERATIONS)
_TRITON_EVERY = 20
_DTYPES = ("float64",) * 5 + ("float32",) * 3 + ("bfloat16", "float16") * 2
_CHANNELS = (1, 1, 2, 3, 3, 4, 5, 7, 8, 12, 16, 17, 20, 32, 33)


def draw_case(number: int, small: bool = False) -> Case:
    """Case `number`: the operations take turns. A small one has fewer slots, frames and channels."""
    name, rng = NAMES[number % len(NAMES)], random.Random(number)
    operation, graph = OPERATIONS[name], draw(rng, small)
    while graph.bipartite and not operation.bipartite:
        graph = draw(rng, small)
    channels = _CHANNELS[: 8 if small else None]
    C = rng.choice((0, *channels) if operation.no_channels else channels)
    B, T = rng.choice([0, 1, 1, 2, 2, 3]), rng.choice([0, 1, 1, 2, 3, 4, 5, 7, 9, 18, 35])
    most = 24 if small else 160  # edges
    while B * T * max(1, len(graph.slots)) > most and T > 1:
        T = T // 2
    if operation.on_edges:
        T = graph.frames(T) * graph.stride
    lengths = None if graph.is_list else draw_lengths(rng, B, T)
    dtype, seed = rng.choice(_DTYPES), rng.randrange(1 << 30)
    case = Case(name, graph, B, 1 if graph.is_list else T, C, lengths, dtype, seed=seed, views=rng.random() < 0.5, poison=rng.random() < 0.7)
    case = replace(case, options=operation.options(rng, case))
    return replace(case, wants=tuple(sorted(name for name in operation.inputs(case) if rng.random() < 0.7)))


def backends_of(case: Case, number: int) -> list[str]:
    """Those that can run the case; Triton's interpreter only small ones, now and then."""
    names = ["torch", "cpu"]
    if case.dtype not in HALF and not (case.graph.has_repeats and OPERATIONS[case.op].is_dense):
        names.insert(0, "reference")
    return [*names, "triton"] if is_small(number) else names


def is_small(number: int) -> bool:
    return number // len(NAMES) % _TRITON_EVERY == 0


class Expected:
    """What a case must give, and how exactly.

    Attributes:
        void: rounding decides what is drawn, and nobody can say which result is right.
        values, toward: the inputs, and the gradients of the outputs.
        outputs, gradients: the loops', in the caller's shapes.
        decided: of outputs that are 0 or 1, where rounding can't change them.
        own_error: of torch's own formula in the case's dtype, by number of output and name of input; None in float64.
    """

    def __init__(self, case: Case) -> None:
        operation = OPERATIONS[case.op]
        self.case, self.operation, self.inputs = case, operation, operation.inputs(case)
        self.values = {name: make_values(case, name, given) for name, given in self.inputs.items()}
        arrays = {name: np.broadcast_to(self.values[name].numbers, given.full) for name, given in self.inputs.items()}
        outputs, backward, margin = operation.loop(case, arrays)
        self.specs = operation.outputs(case)
        self.void = margin is not None and bool(margin.min(initial=np.inf) < operation.undecided)
        self.toward = [_output_gradient(case, n, array, spec) for n, (array, spec) in enumerate(zip(outputs, self.specs, strict=True))]
        gradients = backward(*(values.numbers for values in self.toward))
        self.outputs = [_given(spec, array) for spec, array in zip(self.specs, outputs, strict=True)]
        self.gradients = {name: self.inputs[name].summed(np.asarray(gradients[name]).reshape(self.inputs[name].full)) for name in case.wants}
        self.decided = [_given(self.specs[0], margin > (1e-9 if case.dtype == "float64" else 1e-3)) if margin is not None else None]
        self.decided += [None] * (len(outputs) - 1)
        given = [values.numbers for values in (*self.values.values(), *self.toward)]
        self.largest = max((float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0)) for numbers in given), default=0.0)
        self.own_error = None if case.dtype == "float64" else self._error_of_formula()

    def _error_of_formula(self) -> dict[str | int, float]:
        """How wrong the formula is that runs in the case's dtype."""
        case, dtype = self.case, self.case.torch_dtype
        leaves = {name: torch.from_numpy(np.array(values.numbers)).to(dtype).requires_grad_() for name, values in self.values.items()}
        found = self.operation.formula(case, {name: leaf.expand(self.inputs[name].full) for name, leaf in leaves.items()})
        if found is None:
            return {}
        found = found if isinstance(found, tuple) else (found,)
        toward = [torch.from_numpy(np.array(values.numbers)).to(y) for y, values in zip(found, self.toward, strict=True)]
        wanted = [leaves[name] for name in case.wants]
        gradients = torch.autograd.grad(found, wanted, toward, allow_unused=True) if wanted else ()
        errors: dict[str | int, float] = {}
        for n, (y, spec) in enumerate(zip(found, self.specs, strict=True)):
            errors[n] = _worst(_given(spec, y.detach().double().numpy()), self.outputs[n])
        for name, gradient in zip(case.wants, gradients, strict=True):
            numbers = 0 if gradient is None else self.inputs[name].given(gradient.double().numpy())
            errors[name] = _worst(np.broadcast_to(numbers, self.gradients[name].shape), self.gradients[name])
        return errors

    def allowed(self, key: str | int, wanted: ndarray, dtype: torch.dtype) -> float:
        """Twice the error of torch's own run, as in attention-gym, and some rounding: of the largest number, and of products in float32."""
        largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        if self.own_error is None:
            return 1e-9 * max(1.0, largest)
        products = max(1.0, largest, min(self.largest, 5.0) ** 2)  # y · dy, say, whose rounding stays where the true sum is 0
        rounding = 4 * torch.finfo(dtype).eps * largest + 16 * torch.finfo(torch.float32).eps * products
        return 2 * self.own_error.get(key, 0.0) + rounding


def _worst(found: ndarray, wanted: ndarray) -> float:
    difference = np.abs(found - wanted)
    return float(difference.max(initial=0)) if np.isfinite(difference).all() else float("inf")


def _given(spec: Output, array: ndarray) -> ndarray:
    return array.reshape([size for axis, size in enumerate(array.shape) if axis not in spec.dropped])


def _output_gradient(case: Case, n: int, array: ndarray, spec: Output) -> Values:
    """What comes from behind an output, or zeros where nobody uses it."""
    name = f"gradient {n}"
    values = make_values(case, name, Input(array.shape, dropped=spec.dropped, exists=spec.exists, dtype=str(spec.dtype).removeprefix("torch.")))
    if n and case.generator(name + " is used").random() < 0.3:
        return Values(np.zeros(array.shape), torch.zeros_like(values.tensor))
    return values


def run(expected: Expected, backend: str) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """Outputs and gradients of fastst."""
    case = expected.case
    leaves = {name: values.tensor.detach().requires_grad_(name in case.wants) for name, values in expected.values.items()}
    with use_backend(backend):
        outputs = expected.operation.call(case, leaves)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        used = [(y, values.tensor) for y, values in zip(outputs, expected.toward, strict=True) if y.requires_grad]
        wanted = [leaves[name] for name in case.wants]
        gradients: tuple = (None,) * len(wanted)
        if used and wanted:
            gradients = torch.autograd.grad([y for y, _ in used], wanted, [toward for _, toward in used], allow_unused=True)
    return [y.detach() for y in outputs], dict(zip(case.wants, gradients, strict=True))


def problems(case: Case, backends: list[str]) -> list[str]:
    """What is wrong, a line each."""
    return _all_problems(Expected(case), backends)


def _all_problems(expected: Expected, backends: list[str]) -> list[str]:
    if expected.void:
        return []
    return [f"{backend}: {problem}" for backend in backends for problem in _problems_of(expected, backend)]


def _problems_of(expected: Expected, backend: str) -> Iterator[str]:
    try:
        outputs, gradients = run(expected, backend)
    except Exception as error:
        yield f"raised {type(error).__name__}: {error}"
        return
    for n, (found, spec) in enumerate(zip(outputs, expected.specs, strict=True)):
        if found.dtype != spec.dtype:
            yield f"output {n} is {found.dtype}, not {spec.dtype}"
        yield from _difference(expected, n, found, expected.outputs[n], spec.is_exact, expected.decided[n] if spec.is_exact else None)
    for name, found in gradients.items():
        wanted = expected.gradients[name]
        if found is None:
            found = torch.zeros(wanted.shape, dtype=expected.values[name].tensor.dtype)
        yield from _difference(expected, name, found, wanted, False, None)


def _difference(expected: Expected, key: str | int, found: Tensor, wanted: ndarray, is_exact: bool, decided: ndarray | None) -> Iterator[str]:
    what = f"output {key}" if isinstance(key, int) else f"the gradient of {key}"
    if tuple(found.shape) != wanted.shape:
        yield f"{what} is {list(found.shape)}, not {list(wanted.shape)}"
        return
    numbers = found.double().numpy()
    look = np.ones(wanted.shape, bool) if decided is None else decided
    with np.errstate(invalid="ignore"):
        fits = np.abs(numbers) <= torch.finfo(found.dtype).max
        overflows = np.abs(wanted) > torch.finfo(found.dtype).max / 2
    if not (fits | overflows | ~look).all():
        yield f"{what} has {int((~fits & look).sum())} numbers that are none, of {wanted.size}"
        return
    error, allowed = np.where(look & ~overflows, np.abs(numbers - wanted), 0), 0.0 if is_exact else expected.allowed(key, wanted, found.dtype)
    if error.size and error.max() > allowed:
        place = tuple(int(n) for n in np.unravel_index(error.argmax(), error.shape))
        yield f"{what} is {numbers[place]:.9g} at {list(place)}, not {wanted[place]:.9g} (allowed: {allowed:.2g})"


def shrunk(case: Case, backends: list[str], tries: int = 1000) -> Case:
    """A smaller case that fails in the same way."""
    kinds, again = _kinds(case, backends), True
    while again:
        again = False
        for smaller in _smaller(case):
            tries -= 1
            if tries < 0:
                return case
            if kinds & _kinds(smaller, backends):
                case, again = smaller, True
                break
    return case


def _kinds(case: Case, backends: list[str]) -> set[str]:
    """What is wrong, without numbers; nothing where there is no such case."""
    try:
        return {re.sub(r"[-+.e\d]*\d", "", problem)[:80] for problem in problems(case, backends)}
    except Exception:
        return set()


def _smaller(case: Case) -> Iterator[Case]:
    yield from (replace(case, **{name: False}) for name in ("views", "poison") if getattr(case, name))
    if case.lengths is not None:
        yield replace(case, lengths=None)
    yield from (_only(case, b) for b in range(case.B) if case.B > 1)
    yield from (replace(case, T=T) for T in (1, case.T // 2, case.T - 1) if 0 < T < case.T)
    yield from (replace(case, C=C) for C in (1, 2, case.C // 2) if 0 < C < case.C)
    yield from (replace(case, wants=tuple(n for n in case.wants if n != name)) for name in case.wants)
    for name, value in case.options.items():
        for simple in (0, 1):
            if isinstance(value, int | float) and simple < value:
                yield replace(case, options={**case.options, name: type(value)(simple)})
    yield from (replace(case, graph=graph) for graph in _smaller_graphs(case.graph))
    if case.dtype != "float64":
        yield replace(case, dtype="float64", options={**case.options, **({"weights": None} if "weights" in case.options else {})})


def _smaller_graphs(graph: Topology) -> Iterator[Topology]:
    """Without one half of its edges or the other, then without single ones."""
    field = {Slots: "slots", Edges: "pairs", Skeleton: "bones"}[type(graph)]
    rows = getattr(graph, field)
    halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if len(rows) > 3 else ()
    yield from (replace(graph, **{field: fewer}) for fewer in (*halves, *(rows[:n] + rows[n + 1 :] for n in range(len(rows)))))


def _only(case: Case, b: int) -> Case:
    """One walk of several."""
    lengths, ids = case.lengths and (case.lengths[b],), case.options.get("ids")
    options = {**case.options, "ids": [ids[b]]} if ids else case.options
    return replace(case, B=1, lengths=lengths, options=options)


def line_of(case: Case, backend: str) -> str:
    """Code that repeats it."""
    return f"from tests.stress.operators import *; repeat({case!r}, {backend!r})"


def repeat(case: Case, backend: str) -> None:
    """Prints what is wrong."""
    with as_tested():
        print(*problems(case, [backend]), sep="\n")


@contextlib.contextmanager
def as_tested() -> Iterator[None]:
    """Poisoned memory, and no warnings of numpy's, in which Triton's interpreter computes."""
    with poisoned_memory(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        yield


def check(numbers: range, seconds: float, ran: Counter) -> tuple[int, int]:
    """Runs cases until the time is over: how many, and how many failed. `ran` counts them by operation and backend."""
    failed, end, done = 0, time.monotonic() + seconds, 0
    with as_tested():
        for number in numbers:
            if time.monotonic() > end:
                break
            case = draw_case(number, is_small(number))
            backends = backends_of(case, number)
            try:
                expected = Expected(case)
            except Exception as error:  # of the test itself
                error.add_note(f"in case {number}: {case}")
                raise
            found = _all_problems(expected, backends)
            ran.update([f"{case.op} void"] if expected.void else [f"{case.op} {backend}" for backend in backends])
            done += 1
            if found:
                failed += 1
                _tell(number, case, found)
    return done, failed


def _tell(number: int, case: Case, found: list[str]) -> None:
    backend = found[0].partition(":")[0]
    smaller = shrunk(case, [backend])
    print(f"case {number} fails: " + "; ".join(found), *problems(smaller, [backend]), line_of(smaller, backend), sep="\n  ", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Every operation on every backend against plain loops.")
    parser.add_argument("--cases", type=int, default=100_000, help="how many in all, those of earlier calls included")
    parser.add_argument("--seconds", type=float, default=600, help="how long this call may take")
    parser.add_argument("--seed", type=int, default=0, help="other cases")
    parser.add_argument("--state", type=Path, default=Path(".stress/operators.json"), help="what was done, to go on from")
    options = parser.parse_args()
    state = json.loads(options.state.read_text()) if options.state.exists() else {}
    if state.get("seed") != options.seed:
        state = {"seed": options.seed, "done": 0, "failed": 0, "seconds": 0.0, "ran": {}}
    ran, first = Counter(state["ran"]), options.seed * 10**9
    options.state.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    while state["done"] < options.cases and (left := options.seconds - (time.monotonic() - begin)) > 0:
        last = min(options.cases, state["done"] + 100)
        started = time.monotonic()
        done, failed = check(range(first + state["done"], first + last), left, ran)
        seconds = state.get("seconds", 0.0) + time.monotonic() - started
        state = {**state, "done": state["done"] + done, "failed": state["failed"] + failed, "seconds": seconds, "ran": dict(ran)}
        options.state.write_text(json.dumps(state))
    print(f"{state['done']} cases, {state['failed']} failed")
    for name in NAMES:
        print(f"{name:24}", *(f"{backend} {ran[f'{name} {backend}']:6}" for backend in (*BACKENDS, "void")))
    return int(state["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
