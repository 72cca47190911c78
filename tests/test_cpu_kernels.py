"""The compiled kernels beyond what the tests of the operations see: every element type, every vector width, forks and threads."""

import copy
import gc
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from graphs import generator

from fastst import EdgeList, SkeletonGraph
from fastst.cpu import attend as compiled_attend
from fastst.cpu import attention_weights as compiled_weights
from fastst.cpu import gcn_norm as compiled_gcn_norm
from fastst.cpu import memory, plans, products, threads
from fastst.cpu.functions import exp, log, log1p
from fastst.cpu.memory import empty
from fastst.ops import attend, edge_logits, gcn_norm, propagate, sparse, use_backend

GRAPH = SkeletonGraph("coco18", 2)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}
WIDTHS = [(0,) * width for width in (1, 2, 4)]  # wider ones than the machine has, LLVM splits


def each_with_each(dtypes: Iterable[torch.dtype], slow: dict[torch.dtype, tuple[int, ...]]) -> list:
    """Every dtype at every width. Kernels are compiled anew for each: what is slow has its dtype and its width in other pairs too."""
    return [
        pytest.param(dtype, width, id=f"{dtype}-{16 * len(width)} bytes", marks=pytest.mark.slow if len(width) in slow.get(dtype, ()) else ())
        for dtype in dtypes
        for width in WIDTHS
    ]


def inputs(B: int, T: int, C: int, dtype: torch.dtype, graph: SkeletonGraph | EdgeList = GRAPH):
    x, k = torch.randn(2, B, T, graph.num_joints, C, generator=generator()).to(dtype)
    values = torch.randn(B, graph.num_slots, T, generator=generator()).to(torch.promote_types(dtype, torch.float32))
    return x, k, values, torch.randn(B, T, graph.num_joints, generator=generator()).to(values.dtype)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> bool:
    return (found.double() - wanted).abs().max().item() <= TOLERANCE[dtype] * max(wanted.abs().max().item(), 1)


@pytest.mark.parametrize(("dtype", "width"), each_with_each(TOLERANCE, slow={torch.float64: (2,), torch.bfloat16: (1, 4), torch.float16: (1, 2)}))
def test_every_element_type_and_vector_width(dtype: torch.dtype, width: tuple[int, ...], monkeypatch):
    """Channels below, at and beyond a vector, and those that are read in place; tiles at a walk's ends and inside it; values in half precision."""
    monkeypatch.setattr(products, "WIDTH", width)
    index = GRAPH.index()
    for C in (1, 3, 8, 16, 32, 37, 64, 131):
        for T, lengths in ((13, None), (9, torch.tensor([9, 0, 4]))):
            x, k, values, own = inputs(3, T, C, dtype)
            x64, k64, values64, own64 = (v.double() for v in (x, k, values, own))
            for name in ("gather_sum", "scatter_sum"):
                for mine, mine64 in ((None, None), (own, own64)):
                    found = getattr(products, name)(x, values, index, 2, lengths, mine)
                    assert found.dtype == dtype
                    assert close(found, getattr(sparse, name)(x64, values64, index, 2, lengths, mine64), dtype), (name, C, T)
            rounded = values.to(dtype)
            as_they_come, widened = (products.gather_sum(x, v, index, 2, lengths) for v in (rounded, rounded.to(values.dtype)))
            assert torch.equal(as_they_come, widened)
            edges, nodes = products.edge_and_node_dot(x, k, index, 2, lengths)
            wanted = sparse.edge_and_node_dot(x64, k64, index, 2, lengths)
            for found in ((edges, nodes), (products.edge_dot(x, k, index, 2, lengths), products.node_dot(x, k, 1, lengths).squeeze(-1))):
                assert all(close(*pair, torch.promote_types(dtype, torch.float32)) for pair in zip(found, wanted, strict=True)), (C, T)
            as_asked = products.edge_and_node_dot(x, k, index, 2, lengths, dtype)
            assert all(torch.equal(found, made.to(dtype)) for found, made in zip(as_asked, (edges, nodes), strict=True)), (C, T)


@pytest.mark.parametrize(("dtype", "width"), each_with_each((torch.float32, torch.float64), slow={torch.float32: (2,), torch.float64: (1,)}))
def test_attention_at_every_vector_width(dtype: torch.dtype, width: tuple[int, ...], monkeypatch):
    """Heads below, at and beyond a vector; more edges into a node than a vector has lanes."""
    for module in (compiled_attend, compiled_weights):
        monkeypatch.setattr(module, "WIDTH", width)
    for heads, channels in ((1, 1), (3, 5), (4, 16), (1, 37), (20, 3), (9, 16), (2, 64)):
        senders, receivers, dy = torch.randn(3, 2, 9, 18, heads * channels, generator=generator()).to(dtype)
        att, lengths = torch.randn(heads, channels, generator=generator(1)).to(dtype), torch.tensor([9, 4])
        attr, weight = torch.randn(GRAPH.num_slots, heads * channels, generator=generator(2)).to(dtype), (dy[..., :1, 0] > 0).to(dtype)
        weight = weight.transpose(1, 2).expand(-1, GRAPH.num_slots, -1) * (torch.arange(GRAPH.num_slots)[:, None] % 3 > 0)
        few = (heads, channels) in ((3, 5), (20, 3))  # every number of heads is compiled anew
        for more in ({}, {"edge_attr": attr, "edge_weight": weight})[: 1 + few]:
            results = []
            for name, kind in (("cpu", dtype), ("torch", torch.float64)):
                values = {"x_src": senders, "x_dst": receivers, "att": att, **more}
                leaves = {key: value.to(kind).detach().requires_grad_() for key, value in values.items()}
                with use_backend(name):
                    y = attend(**leaves, graph=GRAPH, heads=heads, lengths=lengths)
                results.append((y, *torch.autograd.grad(y, list(leaves.values()), dy.to(kind))))
            for found, wanted in zip(*results, strict=True):
                assert close(found, wanted, dtype), (heads, channels, list(more))


def test_logarithm_and_exponential_are_within_two_units_in_the_last_place():
    @numba.njit(error_model="numpy")
    def both(x, y, logs, exps):
        for i in range(len(x)):
            logs[i], exps[i] = log(x[i]), exp(y[i])

    x = np.concatenate((np.logspace(-37, 38, 200_000), np.linspace(0.5, 2, 200_000))).astype(np.float32)
    y = np.linspace(-87, 88, len(x)).astype(np.float32)
    logs, exps = np.empty_like(x), np.empty_like(x)
    both(x, y, logs, exps)
    for found, wanted in ((logs, np.log(x.astype(np.float64))), (exps, np.exp(y.astype(np.float64)))):
        assert (np.abs(found - wanted) <= 2 * np.spacing(np.abs(wanted).astype(np.float32))).all()
    odd = np.array([np.nan, np.inf, -np.inf, -1000, 1000], np.float32)
    both(np.ones_like(odd), odd, np.empty_like(odd), exps)
    assert np.isnan(exps[0])
    assert (exps[[1, 4]] > 1e38).all()
    assert (exps[2:4] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithm_of_one_and_a_share(dtype: type):
    @numba.njit(error_model="numpy")
    def each(x, logs):
        for i in range(len(x)):
            logs[i] = log1p(x[i])

    x = np.concatenate((np.logspace(-37, 0, 200_000), np.linspace(0, 1, 200_000))).astype(dtype)
    found = np.empty_like(x)
    each(x, found)
    wanted = np.log1p(x.astype(np.float64))
    assert (np.abs(found - wanted) <= 4 * np.spacing(wanted.astype(dtype))).all()
    each(np.array([np.nan], dtype), found)
    assert np.isnan(found[0])


def test_results_begin_on_a_cache_line():
    for shape in ((3, 5, 7), (0, 4), (1 << 20, 3)):
        for dtype in (torch.float32, torch.bfloat16):
            tensor = empty(*shape, dtype=dtype)
            assert (tensor.shape, tensor.dtype, tensor.is_contiguous(), tensor.storage_offset()) == (shape, dtype, True, 0)
            assert tensor.data_ptr() % 64 == 0


def test_freed_memory_is_used_again_without_page_faults():
    code = """
import os, resource
from fastst.cpu.memory import keep_freed_memory
def faults(megabytes, *asked):  # in a process of its own
    reading, writing = os.pipe()
    if os.fork() == 0:
        assert all(map(keep_freed_memory, asked))
        fill = lambda: [bytearray(megabytes << 20) for _ in range(60 // megabytes)]
        fill()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            fill()
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 99))
for megabytes, of_any_size in ((3, False), (3, True), (40, True)):
    print(faults(megabytes), faults(megabytes, not of_any_size, of_any_size))
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc, whose malloc is told to keep what is freed")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(found) == 3
    for gives_back, keeps in (map(int, line.split()) for line in found):
        assert keeps < gives_back / 20


def test_a_peak_of_memory_is_the_own_one(monkeypatch: pytest.MonkeyPatch):
    """And not that of the process that started this one, with which getrusage begins on Linux."""
    code = "from fastst.cpu.memory import peak_memory; print(peak_memory()); b'1' * (500 << 20); print(peak_memory())"
    starting = f"import subprocess, sys; b'1' * (1 << 30); subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    first, second = map(int, subprocess.run([sys.executable, "-c", starting], capture_output=True, text=True, check=True).stdout.split())
    assert first < 1 << 30
    assert 400 << 20 < second - first < 600 << 20
    monkeypatch.setattr(memory, "_STATUS", Path("no such file"))
    assert memory.peak_memory() > 100 << 20


def test_a_batch_of_no_walks():
    x, k, values, own = inputs(0, 5, 8, torch.float32)
    index = GRAPH.index()
    for found in (products.gather_sum(x, values, index, 2, None, own), products.scatter_sum(x, values, index, 2, None)):
        assert found.shape == x.shape
    assert products.edge_dot(x, k, index, 2, None).shape == values.shape
    assert products.node_dot(x, k, 2, None).shape == (0, 5, 18, 2)


@pytest.mark.parametrize("module", [sparse, products], ids=["torch", "cpu"])
def test_products_of_nodes(module):
    a, b, _, _ = inputs(2, 5, 12, torch.bfloat16)
    found = module.node_dot(a, b, 3, torch.tensor([5, 2]))
    wanted = torch.einsum("btjhc,btjhc->btjh", a.double().unflatten(-1, (3, 4)), b.double().unflatten(-1, (3, 4)))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0].double(), wanted[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, :2].double(), wanted[1, :2], atol=1e-5, rtol=1e-5)
    assert (found[1, 2:] == 0).all()


@pytest.mark.parametrize("C", [20, 32])  # 32 are summed in place where vectors have 64 bytes
def test_long_runs_of_offsets_and_many_tiles(C: int):
    """Hops beyond the run lengths that the micro-kernel knows, a walk of several blocks of tiles, a chunk that begins inside one."""
    graph = SkeletonGraph("coco17", 5)
    x, k, values, own = inputs(2, 171, C, torch.float64, graph)
    lengths, before = torch.tensor([171, 131]), torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for name in ("gather_sum", "scatter_sum"):
                for mine in (None, own):
                    found = getattr(products, name)(x, values, graph.index(), 5, lengths, mine)
                    assert close(found, getattr(sparse, name)(x, values, graph.index(), 5, lengths, mine), torch.float64), name
            assert close(products.edge_dot(x, k, graph.index(), 5, lengths), sparse.edge_dot(x, k, graph.index(), 5, lengths), torch.float64)
    finally:
        torch.set_num_threads(before)


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


@pytest.mark.parametrize("hops", [1, 3, 5])
def test_products_of_runs_of_every_length(hops: int, monkeypatch):
    """In vectors so wide that a group of slots can hold runs of one to four."""
    monkeypatch.setattr(products, "WIDTH", (0,) * 4)
    graph = SkeletonGraph("coco18", hops)
    q, k, _, _ = inputs(2, 19, 32, torch.float32, graph)
    for name in ("edge_dot", "edge_and_node_dot"):
        found, wanted = (getattr(m, name)(q, k, graph.index(), hops, None) for m in (products, sparse))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("C", [3, 64])
def test_products_of_nan_and_infinity_are_at_their_edges_only(C: int):
    """At a walk's ends too, where what is computed meets frames that don't exist."""
    q, k, _, _ = inputs(2, 11, C, torch.float32)
    q[0, 0, 3, 1], q[0, 5, 4, 0], k[1, 6, 2, 2], k[0, 10, 7, 0] = float("inf"), float("nan"), float("inf"), float("nan")
    lengths = torch.tensor([11, 7])
    for found, wanted in zip(*(m.edge_and_node_dot(q, k, GRAPH.index(), 2, lengths) for m in (products, sparse)), strict=True):
        torch.testing.assert_close(found, wanted, equal_nan=True)


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
    assert queue.get(timeout=300) == wanted
    child.join(timeout=300)
    assert child.exitcode == 0


@numba.njit(nogil=True)
def _mark(first, last, done, size):
    scratch = np.zeros(size, np.uint8)
    for i in range(first, last):
        done[i] += 1 + scratch[i % size]


@pytest.mark.parametrize("team", [True, False], ids=["torch's team", "Python threads"])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_ranges_cover_the_work_once_on_any_number_of_threads(count: int, team: bool, monkeypatch):
    if team and not threads._team:
        pytest.skip("this torch does not run on GNU's OpenMP")
    monkeypatch.setattr(threads, "_team", threads._team if team else None)
    for number in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=number: number)
        done = torch.zeros(count, dtype=torch.int64)
        threads.run_ranges(_mark, count, done, 1)
        assert (done == 1).all()


def test_a_kernel_without_memory_says_so():
    with pytest.raises(MemoryError, match="_mark of fastst"):
        threads.run_ranges(_mark, 100, torch.zeros(100, dtype=torch.int64), 1 << 60)


def test_kernels_run_on_the_threads_of_torch():
    """No threads beside torch's: after a kernel the process has as many as after an operation of torch."""
    code = """
import os, torch
from fastst import SkeletonGraph
from fastst.ops import propagate
graph = SkeletonGraph("coco17", 1)
run = lambda: propagate(torch.ones(5, 40, 17, 4), torch.ones(5, graph.num_slots, 40), graph)
torch.set_num_threads(1)
run()  # compiles
torch.set_num_threads(3)
torch.ones(1 << 22).exp()
before = len(os.listdir("/proc/self/task"))
run()
print(len(os.listdir("/proc/self/task")) - before)
"""
    if not threads._team or not os.path.exists("/proc/self/task"):
        pytest.skip("needs a torch on GNU's OpenMP, and Linux to count threads")
    counted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert counted.stdout.strip() == "0"


def test_later_processes_find_the_compiled_code(tmp_path):
    code = (
        "import time, torch; from fastst import SkeletonGraph; from fastst.ops import propagate; g = SkeletonGraph('coco18', 1);"
        "x = torch.randn(1, 9, 18, 64); start = time.process_time(); propagate(x, torch.ones(1, 72, 9), g); print(time.process_time() - start)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300).stdout)
        for _ in range(2)
    )
    assert second < first / 2
    assert list(tmp_path.rglob("*.nbc"))


def test_works_while_python_ends():
    code = """
import atexit, torch
from fastst import SkeletonGraph
from fastst.ops import propagate
torch.set_num_threads(3)
graph = SkeletonGraph("coco17", 1)
run = lambda: propagate(torch.ones(5, 40, 17, 4), torch.ones(5, graph.num_slots, 40), graph)
before = run()
atexit.register(lambda: print("the same:", torch.equal(run(), before)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "the same: True"


def test_plans_die_with_the_tensor_that_they_are_found_by():
    """A compiled backward, say, brings another tensor every time."""
    x, weight = torch.randn(1, 4, 18, 3), torch.rand(1, 72, 4)
    graph = copy.deepcopy(SkeletonGraph("coco18", 1))
    propagate(x, weight, graph)
    gc.collect()
    before = len(plans._of_tensor)
    for _ in range(3):
        propagate(x, weight, copy.deepcopy(graph))
    gc.collect()
    assert len(plans._of_tensor) == before


def _all_of_one_graph(graph: EdgeList, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients of every operation that goes along the edges."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    normalised, own = gcn_norm(weight, graph)
    outputs = normalised, own, propagate(x, normalised, graph, own), edge_logits(x, x, graph), attend(x, x, x[0, :2, :35].detach(), graph, 2)
    return [*outputs, *torch.autograd.grad(outputs, (x, weight), [torch.full_like(y, 0.5) for y in outputs])]


def test_one_large_graph_is_shared_among_the_threads(monkeypatch):
    """An edge list with a node into which every other node leads, with loops, and with nodes that have none."""
    N, ends = 300, torch.randint(0, 290, (2, 9000), generator=generator())
    graph = EdgeList(torch.stack((ends[0], torch.where(torch.arange(9000) % 8 == 0, 7, ends[1]))), N, coalesce=True)
    x, weight = torch.randn(1, N, 70, generator=generator()), torch.rand(1, graph.num_slots, generator=generator())
    counts, before = {}, torch.get_num_threads()

    def counted(kernel, count, *args):
        counts[kernel.__name__] = count
        threads.run_ranges(kernel, count, *args)

    for module in (products, compiled_gcn_norm, compiled_attend):
        monkeypatch.setattr(module, "run_ranges", counted)
    try:
        torch.set_num_threads(1)
        alone = _all_of_one_graph(graph, x, weight)
        for count in (2, 3):
            torch.set_num_threads(count)
            assert all(torch.equal(*pair) for pair in zip(_all_of_one_graph(graph, x, weight), alone, strict=True))
    finally:
        torch.set_num_threads(before)
    assert len(counts) == 10
    assert min(counts.values()) > 3 * 2  # pieces, for three threads
    with use_backend("reference"):
        wanted = _all_of_one_graph(graph, x.double(), weight.double())
    for found, exact in zip(alone, wanted, strict=True):
        torch.testing.assert_close(found.double(), exact, atol=2e-4, rtol=2e-4)
