"""The benchmarks: contenders agree with the reference, a wrong one is found out, times are interleaved, peak memory is exact."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import contenders, host_time, memory, timing, works
from bench.memory import allocated_peak, fake_mode, longest_walk, peak_of, training_step_peak
from bench.selection import ALL, MODEL, ON_GPUS, default_groups, full_groups
from bench.timing import Group, interleaved, machine_limits, reference_size, row_info, run_groups
from bench.works import WORKS, Size, paper_model
from fastst import SkeletonGraph
from fastst.ops import propagate, use_backend

ROOT = Path(__file__).resolve().parent.parent
TINY = Size(2, 7, 2, 16)
WHOLE_MODELS = ("upstream", "training_step", "inference")


@pytest.mark.parametrize("work", WORKS)
def test_every_contender_agrees_with_the_reference_or_says_why_it_is_not_there(work: str):
    names = MODEL if work in WHOLE_MODELS else (*(name for name in ALL if name != "compiled"), *ON_GPUS)
    (outcomes,) = run_groups([Group(work, work != "inference", TINY, names)], 0.0, timed=False)
    assert {name: outcome.disagreement for name, outcome in outcomes.items() if outcome.disagreement} == {}
    for name, outcome in outcomes.items():
        assert (outcome.skipped is None) == (outcome.checked == "reference"), name
    assert outcomes["fastst_torch"].skipped is None


def test_compiled_contender_agrees():
    (outcomes,) = run_groups([Group("propagate", True, TINY, ("compiled",))], 0.0, timed=False)
    assert outcomes["compiled"].disagreement is None


class _Wrong(contenders.IndexAdd):
    def propagate(self, x, weight, *args, **kwargs):
        return super().propagate(x, weight, *args, **kwargs) * 1.01


class _WrongGradient(contenders.IndexAdd):
    def propagate(self, x, weight, *args, **kwargs):
        return super().propagate(x, weight.detach() + 0 * weight, *args, **kwargs)


@pytest.mark.parametrize(("wrong", "what"), [(_Wrong, "output"), (_WrongGradient, "gradient 2")])
def test_a_contender_that_disagrees_is_not_timed(monkeypatch, wrong, what: str):
    monkeypatch.setitem(contenders.CONTENDERS, "index_add", wrong)
    (outcomes,) = run_groups([Group("propagate", True, TINY, ("index_add", "fastst_torch"))], 0.01)
    assert f"its {what} differs" in outcomes["index_add"].disagreement
    assert outcomes["index_add"].seconds == []
    assert len(outcomes["fastst_torch"].seconds) >= timing.FEWEST_ROUNDS


def test_a_disagreement_fails_the_run(tmp_path):
    """A run of pytest over bench/ with a broken contender."""
    code = (
        "import sys, pytest\nfrom bench import contenders, selection\n"
        "class Wrong(contenders.Dense):\n    def propagate(self, x, *a, **k): return super().propagate(x, *a, **k) + 1\n"
        "contenders.CONTENDERS['dense'] = Wrong\n"
        "group = selection.Group('propagate', False, selection.Size(1, 4, 1, 8), ('dense', 'fastst_torch', 'fastst_triton'))\n"
        "selection.default_groups = lambda: [group]\n"
        f"sys.exit(pytest.main(['bench/bench_times.py', '--benchmark-only', '--report={tmp_path}']))"
    )
    # Beside other tests pytest-benchmark times nothing, but this is a run of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "dense is not timed: its output differs from that of fastst's reference" in done.stdout
    run = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [row["extra_info"]["contender"] for row in run["benchmarks"]] == ["fastst_torch"]
    assert run["benchmarks"][0]["stats"]["rounds"] >= timing.FEWEST_ROUNDS
    assert run["skipped"][0]["reason"]
    assert {"cpu", "threads", "versions", "limits", "environment"} <= set(run["machine_info"])
    report = (tmp_path / "benchmarks.md").read_text()
    assert f"not timed: {run['skipped'][0]['reason']}" in report


@pytest.mark.parametrize("name", [name for name in MODEL if not name.startswith("fastst")])
def test_inside_a_model_a_peer_takes_the_place_of_every_fastst_operation(name: str):
    if contenders.CONTENDERS[name].missing("cpu"):
        pytest.skip(contenders.CONTENDERS[name].missing("cpu"))
    step = works.TrainingStep(Size(1, 5, 1, 8), contenders.CONTENDERS[name](SkeletonGraph("coco18", 1), 1, 5))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step.forward_and_backward()
    assert not [event.key for event in profile.key_averages() if "fastst::" in event.key]


def test_rounds_are_interleaved_and_slow_steps_take_fewer(monkeypatch):
    monkeypatch.setattr(timing, "WARMED_SECONDS", 0.01)
    monkeypatch.setattr(timing, "WARMING_SECONDS", warming := 0.004)
    order: list[str] = []

    def step(name: str, seconds: float):
        return lambda: (order.append(name), time.sleep(seconds))

    seconds = interleaved({"fast": step("fast", 0.001), "slow": step("slow", 0.1)}, budget=0.5)
    assert len(seconds["fast"]) == timing.MOST_ROUNDS
    assert len(seconds["slow"]) == timing.FEWEST_ROUNDS
    assert order[:3] == ["fast", "slow", "fast"]
    before_each, left = divmod(order.count("fast") - 2, timing.MOST_ROUNDS)
    assert left == 0
    assert timing.WARM_UPS <= before_each - 1 <= warming / 0.001  # every timed run after as many untimed ones
    assert order.count("slow") == timing.FEWEST_ROUNDS
    places = [place for place, name in enumerate(order) if name == "slow"][1:]
    assert min(b - a for a, b in itertools.pairwise(places)) >= 6  # spread over the whole time
    assert all(s >= 0.06 for s in seconds["slow"])


def test_groups_that_are_set_against_one_another_take_turns_with_their_own_threads(monkeypatch):
    runs: list[tuple[int, int]] = []

    class Noted(works.Propagate):
        def forward(self):
            runs.append((self.size.T, torch.get_num_threads()))

    monkeypatch.setitem(works.WORKS, "propagate", Noted)
    monkeypatch.setattr(timing, "checked", lambda name, group, outcome: timing._work(group, contenders.CONTENDERS[name], group.size))
    monkeypatch.setattr(timing, "try_limits", lambda threads: None)
    monkeypatch.setattr(timing, "WARMING_SECONDS", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        groups = [Group("propagate", False, Size(1, T, 1, 4), ("fastst_torch",), threads, "both") for T, threads in ((3, None), (4, 1))]
        found = run_groups(groups, 0.1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(runs) == {(3, 2), (4, 1)}
    changes = sum(a != b for a, b in itertools.pairwise(runs))
    assert [len(outcomes["fastst_torch"].seconds) for outcomes in found] == [timing.MOST_ROUNDS] * 2
    assert changes >= 2 * timing.MOST_ROUNDS - 1


def test_a_step_that_takes_too_long_is_not_repeated(monkeypatch):
    monkeypatch.setattr(timing, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(timing, "WARMED_SECONDS", 0.001)
    calls: list[int] = []
    seconds = interleaved({"slow": lambda: (calls.append(1), time.sleep(0.02))}, budget=1)
    assert len(seconds["slow"]) == len(calls) == 1
    assert seconds["slow"][0] > timing.MOST_SECONDS


def test_the_reference_is_formed_only_where_it_fits():
    group = Group("propagate", True, Size(1, 10_000), ("fastst_torch",))
    small = reference_size(group)
    assert WORKS["propagate"].reference_bytes(small) <= timing.REFERENCE_BYTES < WORKS["propagate"].reference_bytes(group.size)
    assert reference_size(Group("propagate", True, Size(32, 60), ())) == Size(32, 60)
    assert "GiB" in timing.why_skipped("dense", Group("propagate", True, Size(1, 3_000), ()))


def test_flops_and_bytes_of_a_small_case_by_hand():
    """T = 2, k = 1, 4 channels."""
    size = Size(1, 2, 1, 4)
    edges, nodes = size.graph.edge_index(2).shape[1], 2 * 18
    assert size.edges == edges == 2 * 36 + 2 * 18  # 18 bones both ways in two frames, every joint with itself in the other frame
    (flops, numbers), (all_flops, all_numbers) = WORKS["propagate"].cost(size)
    assert flops == 2 * (edges + nodes) * 4
    assert numbers == nodes * 4 + nodes * 4 + edges + nodes  # x, y, edge values, self values
    assert all_flops == 3 * flops
    assert all_numbers == numbers + 3 * nodes * 4 + 2 * (edges + nodes)  # dy, x, dx; values again and their gradient


def test_rows_carry_their_limit():
    group = Group("propagate", False, TINY, ("fastst_torch",))
    row = row_info(group, "fastst_torch", timing.Outcome())
    limits = machine_limits(torch.get_num_threads())
    expected = max(row["flops"] / limits["gemm_flops_per_second"], row["bytes"] / limits["copy_bytes_per_second"])
    assert row["limit_seconds"] == pytest.approx(expected)
    assert min(limits.values()) > 1e8


def test_a_slow_minute_is_not_the_machines_limit(monkeypatch):
    monkeypatch.setattr(timing, "_limits", {})
    found = []
    for seconds in (2.0, 1.0, 4.0):
        monkeypatch.setattr(timing, "seconds_of", lambda step, seconds=seconds: seconds)
        timing.try_limits(1)
        found.append(machine_limits(1)["gemm_flops_per_second"])
    assert found == [found[0], 2 * found[0], 2 * found[0]]


def test_selection_has_what_was_promised():
    default, full = ({group.name for group in groups} for groups in (default_groups(), full_groups()))
    for name in (
        "propagate forward B=32 T=60 k=3 C=64",
        "propagate forward + backward B=32 T=60 k=3 C=64",
        "propagate forward B=8 T=300 k=3 C=64",
        "propagate forward + backward B=8 T=300 k=3 C=64",
        "sample_from_embeddings forward + backward B=32 T=60 k=3 C=32",
        "sample_with_information forward + backward B=32 T=60 k=3 C=32",
        "attend forward + backward B=32 T=60 k=3 C=64",
        "gcn_layer forward B=32 T=60 k=1 C=256",
        "training_step forward + backward B=32 T=60 k=1 C=64 L=4",
    ):
        assert name in default, name
    assert default < full
    assert len(full) == len(full_groups())  # none twice
    for values, what in ((["T=60", "T=300", "T=1000", "T=3000", "T=10000"], "T"), (["k=1", "k=2", "k=3"], "k"), (["C=64", "C=256"], "C")):
        assert all(any(value in name.split() for name in full) for value in values), what


# Memory.


def test_peak_of_a_propagate_by_hand():
    """B = 2, T = 5, k = 1 on the paper's skeleton, 4 channels, float32; forward."""
    B, T, C, graph = 2, 5, 4, SkeletonGraph("coco18", 1)
    J, P = 18, graph.num_slots
    with fake_mode():
        x, weight = torch.empty(B, T, J, C), torch.empty(B, P, T)
    inputs = 4 * (x.numel() + weight.numel())

    def run(backend: str):
        with use_backend(backend), torch.no_grad():
            return peak_of(lambda: propagate(x, weight, graph), x, weight)

    # The torch backend: masked edge values; T + 1 frames a walk, two more in all, as windows; a matrix of J by 3 J for each of these; the product.
    frames = B * (T + 1)
    most = 4 * (B * P * T + frames * J * 3 * J + (frames + 2) * J * C + frames * J * C)
    found = run("torch")
    assert found.held == inputs
    assert most <= found.peak - inputs <= most + 8 * (2 * P * T + 6 * P)  # and what is of the graph alone
    # The CPU's kernel: the result, and index tensors of the slots. The GPU's: the result.
    y = 4 * x.numel()
    assert y <= run("cpu").peak - inputs <= y + 8 * 12 * P
    assert run("triton").peak - inputs == y


def test_peak_of_a_training_step_by_hand():
    """h = relu(x W), loss = Σ h: x, W, then h, relu's result, its gradient, the gradient before relu, dW."""
    with fake_mode():
        x, weight = torch.empty(100, 8), torch.empty(8, 16, requires_grad=True)
    peak = peak_of(lambda: torch.relu(x @ weight).sum().backward(), x, weight)
    matrix = 4 * 100 * 16
    assert peak.held == 4 * (x.numel() + weight.numel())
    # Σ's gradient is an expanded 1; `x @ weight` is gone once relu has its result; relu's backward holds its result and makes one gradient.
    assert peak.peak == peak.held + 2 * matrix + 4 + 4 or peak.peak == peak.held + 2 * matrix + 4


@pytest.mark.parametrize("name", ["fastst_torch", "fastst_cpu", "index_add", "torch_scatter", "dense"])
def test_computed_peak_is_what_the_allocator_gives_out(name: str):
    """A real step on the CPU: to 3 % for the dense way, to a few kilobytes (scalars, vectors of indices) for the others."""
    if contenders.CONTENDERS[name].missing("cpu"):
        pytest.skip(contenders.CONTENDERS[name].missing("cpu"))
    size = Size(2, 20, 2, 32, 2)
    contender, model = contenders.CONTENDERS[name](size.graph, size.B, size.T), paper_model(size)
    optimizer = torch.optim.AdamW(model.parameters())
    poses, classes, ids = torch.randn(size.B, size.T, 18, 2), torch.zeros(size.B, dtype=torch.int64), torch.arange(size.B)

    def step() -> None:
        with contender.installed():
            loss = torch.nn.functional.cross_entropy(model(poses, seed=0, sample_ids=ids).logits, classes)
        loss.backward()
        optimizer.step()

    step()  # makes the optimizer's state
    optimizer.zero_grad()
    computed = training_step_peak(name, size)
    assert computed.peak - computed.held == pytest.approx(allocated_peak(step), rel=0.03 if name == "dense" else 2e-3)


def test_computed_peak_is_near_the_growth_of_a_process():
    size = Size(1, 1500, 2, 64, 8)
    growth = memory.real_step_of_its_own("fastst_cpu", size)["rss_growth"]
    computed = training_step_peak("fastst_cpu", size)
    assert growth == pytest.approx(computed.peak - computed.held, rel=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_computed_peak_is_near_what_a_gpu_allocates():
    size = Size(1, 1500, 2, 64, 8)
    for name in ("fastst_torch", "fastst_triton"):
        assert memory.cuda_step(name, size, False) == pytest.approx(training_step_peak(name, size).peak, rel=0.1)


@pytest.mark.parametrize("name", ["fastst_cpu", "fastst_triton"])
def test_peak_grows_linearly_and_a_long_walk_fits_in_8_gb(name: str):
    size = Size(1, 1_000, 3, 64, 16)
    peaks = [training_step_peak(name, size.smaller(1, T)).peak for T in (1_000, 2_000, 10_000)]
    assert peaks[2] <= memory.EIGHT_GB
    assert peaks[2] - peaks[0] == pytest.approx(9 * (peaks[1] - peaks[0]), rel=1e-3)


def test_checkpointing_lets_five_times_the_frames_in():
    size = Size(1, 1_000, 3, 64, 16)
    plain, checkpointed = (training_step_peak("fastst_triton", size, how).peak for how in (False, True))
    assert checkpointed * 50 <= memory.EIGHT_GB
    assert checkpointed < 0.6 * plain


def test_no_attention_over_frames_forms_a_matrix_of_frames():
    peak = training_step_peak("fastst_cpu", Size(1, 3_000, 1, 16, 2))
    assert any("attend_axis" in name for name in peak.operations)
    assert peak.largest < 3_000**2 * 4


def test_the_frontier_is_computed_on_both_of_its_sides():
    found = longest_walk("fastst_cpu", Size(2, 0, 1, 16, 2), budget=30 * 10**6)
    assert found["peak"] <= 30 * 10**6 < found["not_peak"]
    assert found["T"] < found["not_T"] <= found["T"] * 1.011 + 1
    assert training_step_peak("fastst_cpu", Size(2, found["T"], 1, 16, 2)).peak == found["peak"]


def test_the_profile_of_a_training_step_knows_its_groups():
    from bench.training_step import GROUPS, OTHERS, group_of

    names = ("aten::addmm", "aten::_scaled_dot_product_flash_attention_for_cpu_backward", "fastst::propagate_backward")
    assert [group_of(name) for name in names] == list(GROUPS)
    assert group_of("aten::add") == OTHERS
    committed = (Path(__file__).parent.parent / "docs/training_step.md").read_text(encoding="utf-8")
    assert all(group in committed for group in (*GROUPS, OTHERS))


# Host time.


def test_host_time_is_measured_without_a_gpu():
    """The stand-in fits this Triton's driver: every call is specialised, compiled and launched, into nothing."""
    pytest.importorskip("triton", reason="triton is not installed")
    ended = subprocess.run([sys.executable, "-m", "bench.host_time", "--measure"], cwd=host_time.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert {"propagate", "propagate with gradients", "attend with gradients"} <= found.keys()
    assert all(0 < microseconds < 1e6 for microseconds in found.values())


def test_host_times_of_two_checkouts_side_by_side():
    said = host_time.table([{"propagate": 20.0}, {"propagate": 80.0}])
    assert said.splitlines()[-1] == "| propagate | 20 | 80 | 0.25 |"
    assert host_time.table([{"propagate": 20.0}]).splitlines()[-1] == "| propagate | 20 |"
