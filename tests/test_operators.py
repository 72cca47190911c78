"""Every operation on every backend against plain loops: 500 drawn cases, and what must not matter (padding, batch, threads, processes)."""

import copy
import hashlib
import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from stress import operations
from stress.cases import Case, Values
from stress.operators import BACKENDS, NAMES, Expected, as_tested, backends_of, check, draw_case, is_small, line_of, problems, run, shrunk
from stress.poison import poison_kernels, poisoned_memory
from stress.topology import Slots

poison_kernels()  # before any test has linked one: all modules are imported first
CASES, A_TEST = 500, 50
SOME = [number for number in range(1000, 1040) if draw_case(number).B]


def bits(case: Case, backend: str) -> bytes:
    """All outputs and gradients."""
    digest = hashlib.sha256()
    outputs, gradients = run(Expected(case), backend)
    for found in (*outputs, *gradients.values()):
        digest.update(b"none" if found is None else found.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


@pytest.mark.parametrize("first", range(0, CASES, A_TEST))
def test_drawn_cases(first: int, capsys: pytest.CaptureFixture):
    ran: Counter = Counter()
    done, failed = check(range(first, first + A_TEST), float("inf"), ran)
    assert not failed, capsys.readouterr().out
    assert done == A_TEST
    assert set(ran) >= {f"{name} {backend}" for name in NAMES for backend in ("torch", "cpu")}


def test_every_backend_has_its_share():
    backends = {(draw_case(n).op, backend) for n in range(CASES) for backend in backends_of(draw_case(n, is_small(n)), n)}
    assert backends == {(name, backend) for name in NAMES for backend in BACKENDS}


def test_the_loops_derivatives_are_torchs():
    """Of the formulas in float64. (The subsets' are those of three backends, which have nothing in common.)"""
    seen: Counter = Counter()
    for number in (n for n in range(2000, 2200) if NAMES[n % len(NAMES)] != "sample_k_edges"):
        case = draw_case(number)
        unmixed = {**case.options, "weights": None} if "weights" in case.options else case.options
        expected = Expected(replace(case, dtype="float64", poison=False, options=unmixed))
        for key, error in expected._error_of_formula().items():
            wanted = expected.outputs[key] if isinstance(key, int) else expected.gradients[key]
            if not isinstance(key, int) or not expected.specs[key].is_exact:
                assert error <= 1e-8 * max(1, np.abs(wanted).max(initial=0)), (key, case)
                seen[case.op] += bool(np.abs(wanted).max(initial=0) > 0)
    assert set(seen) == set(NAMES) - {"sample_k_edges"}
    assert min(seen.values()) > 5


def test_a_wrong_gradient_is_found_made_small_and_repeated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    number = next(
        n
        for n in range(6, 1000, 10)
        if draw_case(n).dtype == "float64" and draw_case(n).B > 1 and "weight" in draw_case(n).wants and draw_case(n).edges
    )
    case, right = draw_case(number), operations.ops.propagate
    assert case.op == "propagate"
    assert not problems(case, ["torch"])
    wrong = lambda x, weight, *rest: right(x, weight + 1e-3 * (weight - weight.detach()), *rest)  # noqa: E731
    monkeypatch.setattr(operations.ops, "propagate", wrong)
    assert problems(case, ["torch"])[0].startswith("torch: the gradient of weight is ")
    smaller = shrunk(case, ["torch"])
    assert (smaller.B, smaller.views, smaller.poison, smaller.wants) == (1, False, False, ("weight",))
    assert len(smaller.edges) <= 2
    code = line_of(smaller, "torch").replace("tests.stress", "stress")
    exec(code)
    assert "the gradient of weight is " in capsys.readouterr().out


def test_memory_that_nobody_wrote_is_poisoned():
    with poisoned_memory():

        @numba.njit
        def last(n):
            return np.empty(n, np.float32)[n - 1], np.empty(n, np.int64)[n - 1]

        number, whole = last(300)
        assert np.isnan(number)
        assert whole == -1
        assert torch.empty(300).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def _reversed(expected: Expected) -> Expected:
    """With the walks in the other order. They keep the numbers that stand for them."""
    case, other = expected.case, copy.copy(expected)
    options = dict(case.options)
    if "ids" in options:
        options["ids"] = list(reversed(options["ids"] or range(case.B)))
    other.case = replace(case, lengths=case.lengths and case.lengths[::-1], options=options)
    other.values = {name: _flip(values, 0) if _of_walks(expected, name) else values for name, values in expected.values.items()}
    other.toward = [_flip(values, _walk_axis(case, n)) for n, values in enumerate(expected.toward)]
    return other


def _of_walks(expected: Expected, name: str) -> bool:
    given = expected.inputs[name]
    return len(given.full) > 2 and 0 not in given.shared


def _walk_axis(case: Case, n: int) -> int:
    return int(case.op == "sample_k_edges" and n != 1)


def _flip(values: Values, axis: int) -> Values:
    return Values(np.flip(values.numbers, axis), values.tensor.flip(axis))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_the_order_of_the_walks_does_not_matter(backend: str):
    """But to what is summed over them, in another order."""
    for case in map(draw_case, SOME):
        if case.op == "keep_probability" or case.options.get("dropout"):  # it has no walks; its noise is the place's
            continue
        expected = Expected(case)
        (outputs, gradients), (others, reversed_gradients) = (run(e, backend) for e in (expected, _reversed(expected)))
        close = {"atol": 1e-9, "rtol": 1e-9} if case.dtype == "float64" else {"atol": 2e-2, "rtol": 2e-2}
        for n, (found, other) in enumerate(zip(outputs, others, strict=True)):
            torch.testing.assert_close(other.flip(_walk_axis(case, n)), found, **close, equal_nan=False)
        for name, found in gradients.items():
            other = reversed_gradients[name]
            assert (found is None) == (other is None)
            if found is not None:
                torch.testing.assert_close(other.flip(0) if _of_walks(expected, name) else other, found, **close)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_what_stands_beyond_the_lengths_changes_no_bit(backend: str):
    for case in map(draw_case, SOME):
        assert bits(replace(case, poison=True, views=False), backend) == bits(replace(case, poison=False, views=False), backend), case


def test_the_number_of_threads_changes_no_bit():
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append([bits(draw_case(number), "cpu") for number in SOME])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_four_threads_at_once_change_no_bit(backend: str):
    """Each on graphs of its own, and all on the same ones in another order."""
    cases = [draw_case(number) for number in SOME[:16]]
    alone, found, errors = [bits(case, backend) for case in cases], {}, []

    def work(thread: int) -> None:
        try:
            for turn in range(2 * len(cases)):
                n = (turn * (2 * thread + 1) + 4 * thread) % len(cases)
                found.setdefault((thread, n), bits(cases[n], backend))
                if found[thread, n] != bits(cases[n], backend):
                    errors.append((thread, n))
        except Exception as error:  # else nobody hears of it
            errors.append((thread, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 4 * len(cases)
    assert all(found[thread, n] == alone[n] for thread, n in found)


def some_bits(backend: str) -> list[bytes]:
    with as_tested():
        return [bits(draw_case(number), backend) for number in SOME[:16]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_changes_no_bit(method: str):
    here = {backend: some_bits(backend) for backend in ("torch", "cpu")}
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = {backend: pool.apply_async(some_bits, (backend,)).get(timeout=240) for backend in here}
    assert there == here


def test_slots_that_reach_beyond_the_walk():
    """The frame offset of a slot is larger than the walk: it has no edges, and its place in memory is no other's."""
    far = Slots(slots=((0, 1, 0), (1, 0, -9), (1, 1, 9), (0, 0, -30), (1, 0, 1)), num_src=2)
    square = [case for case in map(draw_case, range(400)) if case.dtype == "float64" and not case.graph.is_list and not case.graph.bipartite]
    for op in (name for name in NAMES if name != "keep_probability"):
        case = next(case for case in square if case.op == op)
        for T, lengths in ((3, None), (3, (3, 1)), (9, (2, 9)), (12, None)):
            drawn = replace(case, graph=far, B=2, T=T, lengths=lengths, options=_without_ids(case), poison=True)
            assert not problems(drawn, ["reference", "torch", "cpu"]), drawn


def _without_ids(case: Case) -> dict:
    return {**case.options, "ids": None} if "ids" in case.options else case.options


def cases_without(**sizes: int) -> Iterator[Case]:
    for case in map(draw_case, range(200)):
        if not case.graph.is_list and not case.graph.has_repeats and case.op != "keep_probability":
            yield replace(case, lengths=None, **sizes)


def test_walks_without_frames():
    for case in cases_without(T=0):
        assert not problems(case, ["reference", "torch", "cpu"]), case


def test_batches_without_walks():
    for case in cases_without(B=0):
        assert not problems(replace(case, options=_without_ids(case)), ["reference", "torch", "cpu"]), case
