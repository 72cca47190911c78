"""The compiled kernels beyond what the tests of the operations see: every element type, every vector width, forks and threads."""

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from graphs import generator

from fastst import EdgeList, SkeletonGraph
from fastst.cpu import products, threads
from fastst.ops import sparse

GRAPH = SkeletonGraph("coco18", 2)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}
WIDTHS = [(0,) * width for width in (1, 2, 4) if width <= len(products.WIDTH)]


def inputs(B: int, T: int, C: int, dtype: torch.dtype, graph: SkeletonGraph | EdgeList = GRAPH):
    x, k = torch.randn(2, B, T, graph.num_joints, C, generator=generator()).to(dtype)
    values = torch.randn(B, graph.num_slots, T, generator=generator()).to(torch.promote_types(dtype, torch.float32))
    return x, k, values, torch.randn(B, T, graph.num_joints, generator=generator()).to(values.dtype)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> bool:
    return (found.double() - wanted).abs().max().item() <= TOLERANCE[dtype] * max(wanted.abs().max().item(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: f"{16 * len(width)} bytes")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_element_type_and_vector_width(dtype: torch.dtype, width: tuple[int, ...], monkeypatch):
    """Channels below, at and beyond a vector; tiles at a walk's ends and inside it."""
    monkeypatch.setattr(products, "WIDTH", width)
    index = GRAPH.index()
    for C in (1, 3, 16, 37, 64, 131):
        for T, lengths in ((13, None), (9, torch.tensor([9, 0, 4]))):
            x, k, values, own = inputs(3, T, C, dtype)
            x64, k64, values64, own64 = (v.double() for v in (x, k, values, own))
            for name in ("gather_sum", "scatter_sum"):
                for mine, mine64 in ((None, None), (own, own64)):
                    found = getattr(products, name)(x, values, index, 2, lengths, mine)
                    assert found.dtype == dtype
                    assert close(found, getattr(sparse, name)(x64, values64, index, 2, lengths, mine64), dtype), (name, C, T)
            dots = products.edge_dot(x, k, index, 2, lengths)
            assert close(dots, sparse.edge_dot(x64, k64, index, 2, lengths), torch.promote_types(dtype, torch.float32)), (C, T)


def test_results_do_not_depend_on_threads_padding_or_the_batch():
    x, _, values, own = inputs(3, 22, 37, torch.float32)
    index, lengths, before = GRAPH.index(), torch.tensor([22, 9, 15]), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(products.gather_sum(x, values, index, 2, lengths, own))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    alone = products.gather_sum(x[1:2, :9], values[1:2, :, :9], index, 2, None, own[1:2, :9])
    assert torch.equal(results[0][1:2, :9], alone)
    dots = products.edge_dot(x, x.flip(-1), index, 2, lengths)
    assert torch.equal(dots[1:2, :, :9], products.edge_dot(x[1:2, :9], x[1:2, :9].flip(-1), index, 2, None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_nan_and_infinity_reach_their_neighbours_and_nobody_else(dtype: torch.dtype):
    x, _, values, _ = inputs(1, 12, 20, dtype)
    x[0, 6, 3, 5], x[0, 6, 3, 7] = float("nan"), float("inf")
    y = products.gather_sum(x, values.abs() + 1, GRAPH.index(), 2, None)
    neighbours = GRAPH.dense(12)[:, 6 * 18 + 3].view(12, 18).bool()
    assert torch.equal(y[0, :, :, 5].isnan(), neighbours)
    assert torch.equal(y[0, :, :, 7] == float("inf"), neighbours)
    assert y[0, :, :, :5].isfinite().all()


def test_bfloat16_is_rounded_as_torch_rounds_it():
    graph = EdgeList(torch.tensor([[0], [1]]), 2)
    x = torch.zeros(1, 1, 2, 4096, dtype=torch.bfloat16)
    x[0, 0, 0] = torch.randn(4096, generator=generator()).bfloat16()
    weight = torch.tensor([[[1 / 3]]])
    y = products.gather_sum(x, weight, graph.index(), 0, None)
    assert torch.equal(y[0, 0, 1], (x[0, 0, 0].float() * weight[0, 0]).bfloat16())


def test_several_python_threads_at_once():
    x, _, values, _ = inputs(4, 30, 32, torch.float32)
    wanted, wrong = products.gather_sum(x, values, GRAPH.index(), 2, None), []

    def work() -> None:
        wrong.extend(i for i in range(20) if not torch.equal(products.gather_sum(x, values, GRAPH.index(), 2, None), wanted))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _in_a_child(queue) -> None:
    torch.set_num_threads(2)
    queue.put(float(products.gather_sum(torch.ones(2, 8, 18, 16), torch.ones(2, GRAPH.num_slots, 8), GRAPH.index(), 2, None).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_a_child_process_after_use_in_the_parent(method: str):
    torch.set_num_threads(2)
    wanted = float(products.gather_sum(torch.ones(2, 8, 18, 16), torch.ones(2, GRAPH.num_slots, 8), GRAPH.index(), 2, None).sum())
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == wanted
    child.join(timeout=30)
    assert child.exitcode == 0


def test_ranges_cover_the_work_once_and_errors_come_out():
    done = np.zeros(100, int)

    def mark(first: int, last: int) -> None:
        done[first:last] += 1

    threads.run_ranges(mark, 100)
    assert (done == 1).all()

    def fail(first: int, last: int) -> None:
        if last == 100:
            raise ValueError("last range")

    with pytest.raises(ValueError, match="last range"):
        threads.run_ranges(fail, 100)


@pytest.mark.slow
def test_later_processes_find_the_compiled_code(tmp_path):
    code = (
        "import time, torch; from fastst import SkeletonGraph; from fastst.ops import propagate; g = SkeletonGraph('coco18', 1);"
        "x = torch.randn(1, 9, 18, 64, requires_grad=True); start = time.perf_counter();"
        "propagate(x, torch.ones(1, 72, 9), g).sum().backward(); print(time.perf_counter() - start)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120).stdout)
        for _ in range(2)
    )
    assert second < first / 2
    assert list(tmp_path.rglob("*.nbi"))
