"""Memory: the 8 GB frontier and the peaks along T by fake tensors, and the growth of a real process. Nothing is timed; the tests ask for
`benchmark` because `--benchmark-only` leaves out those that don't."""

import pytest
import torch

from bench.memory import EIGHT_GB, cuda_step, longest_walk, real_step_of_its_own, training_step_peak
from bench.works import PAPER, Size

CONTENDERS = ("dense", "index_add", "torch_scatter", "fastst_torch", "fastst_cpu", "fastst_triton")
NOT_COMPUTED = {
    "csr": "torch.sparse's CSR matrices have no fake kernels of what is needed, and no graph attention",
    "torch_sparse": "its C++ operators can't run on fake tensors, and it has no graph attention",
    "pyg": "its C++ operators can't run on fake tensors",
    "compiled": "what the compiler fuses is known only after compiling for a size",
}
DEFAULT_CELLS = [(name, layers, hops, 1) for name in CONTENDERS for layers, hops in ((2, 1), (16, 3))]
FULL_CELLS = [(name, layers, hops, B) for name in CONTENDERS for layers in (2, 16) for hops in (1, 2, 3) for B in (1, 32)]
LONG_WALK = Size(1, 10_000, 3, 64, 16)
CURVE = (60, 300, 1_000, 3_000, 10_000)
CURVE_MOST = 64 * 10**9  # the curves end here: the dense way's index tensors are real, and take as much real memory


@pytest.fixture
def memory(benchmark, request):
    """Where the report looks."""
    benchmark.skipped = True
    return request.config.memory


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = FULL_CELLS if metafunc.config.getoption("--full") else DEFAULT_CELLS
        metafunc.parametrize("cell", cells, ids=["-".join(map(str, cell)) for cell in cells])


def test_frontier(memory, cell):
    name, layers, hops, B = cell
    found = longest_walk(name, Size(B, 0, hops, 64, layers))
    memory.setdefault("not_computed", NOT_COMPUTED)
    memory.setdefault("frontier", []).append({"contender": name, "layers": layers, "hops": hops, "B": B, "budget": EIGHT_GB, **found})


@pytest.mark.parametrize("name", CONTENDERS)
def test_peak_over_frames(memory, name: str):
    """Of the training defaults at three hops, batch 1."""
    points = memory.setdefault("peak_over_frames", [])
    for T in CURVE:
        earlier = [point for point in points if point["contender"] == name]
        if earlier and earlier[-1]["bytes"] * (T / earlier[-1]["T"]) ** 2 > CURVE_MOST and name == "dense":
            break
        points.append({"contender": name, "T": T, "bytes": training_step_peak(name, Size(1, T, 3, PAPER.hidden, PAPER.layers)).peak})


@pytest.mark.parametrize(("T", "checkpointed"), [(10_000, False), (50_000, True)])
def test_long_walks_train_within_8_gb(memory, request, T: int, checkpointed: bool):
    """3 hops, 16 layers, hidden 64, learned graph, factorized attention; batch 1."""
    size = LONG_WALK.smaller(1, T)
    for name in ("fastst_cpu", "fastst_torch", "fastst_triton") if request.config.getoption("--full") else ("fastst_cpu", "fastst_triton"):
        peak = training_step_peak(name, size, checkpointed)
        memory.setdefault("long_walks", []).append({"contender": name, "T": T, "checkpointed": checkpointed, "bytes": peak.peak})
        assert peak.peak <= EIGHT_GB, f"{name} needs {peak.peak / 1e9:.2f} GB"


def test_a_long_walk_in_a_real_process(memory, request):
    """The growth of a process's peak RSS beside the number computed for it; with `--full` at T = 10,000, else at 2,000."""
    T = LONG_WALK.T if request.config.getoption("--full") else 2_000
    size = LONG_WALK.smaller(1, T)
    real = real_step_of_its_own("fastst_cpu", size)
    computed = training_step_peak("fastst_cpu", size)
    memory["real_process"] = {"contender": "fastst_cpu", "T": T, "bytes": computed.peak, **real}
    assert real["rss_growth"] <= EIGHT_GB
    assert real["rss_growth"] == pytest.approx(computed.peak - computed.held, rel=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("T", "checkpointed"), [(10_000, False), (50_000, True)])
def test_a_long_walk_on_a_small_gpu(memory, T: int, checkpointed: bool):
    """The same step on a GPU that is allowed 8 GB."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, EIGHT_GB / torch.cuda.get_device_properties(0).total_memory))
    try:
        name = "fastst_triton"
        allocated = cuda_step(name, LONG_WALK.smaller(1, T), checkpointed)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    memory.setdefault("cuda", []).append({"contender": name, "T": T, "checkpointed": checkpointed, "bytes": allocated})
    assert allocated == pytest.approx(training_step_peak(name, LONG_WALK.smaller(1, T), checkpointed).peak, rel=0.05)
