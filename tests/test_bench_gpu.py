"""The report about a GPU, without one: it says that there is none, can be rehearsed, finds what is wrong, and a part that fails costs no other."""

import io
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.clocks import all_clocks, eager_seconds, seconds_of
from bench.gpu import __main__ as report
from bench.gpu import correctness, device, estimates
from bench.gpu.notes import CONTEXT_LOST, Notes
from bench.gpu.page import page
from bench.gpu.speed import over
from fastst import SkeletonGraph
from fastst.errors import UserError
from fastst.ops.backends import current_backend

without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def rows(file: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


@without_a_gpu
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"no GPU that torch can use.*--rehearse"):
        report.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("chip", "triton", "said"),
    [
        ((7, 0), "3.9.0", "the GPU is an sm_70; the kernels are for sm_75 and later"),
        ((9, 0), "3.2.1", "triton is 3.2.1; the kernels need 3.3 or later"),
        ((7, 5), "3.10.0", None),
    ],
)
def test_what_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, chip, triton: str, said: str | None):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: chip)
    monkeypatch.setattr(device, "_triton", lambda: triton)
    assert device.why_not() == said


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--only", "speed"])
    with pytest.raises(UserError, match="no part 'speed'; the parts are device, limits, build, correct"):
        report.main()


def test_a_rehearsal_leaves_json_and_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["--rehearse", "--only", "device", "deterministic", "memory", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    report.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["parts"]) == ["device", "deterministic", "memory"]
    assert all(row["right"] for row in results["parts"]["deterministic"]["rows"])
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# A rehearsal on the CPU: nothing here is about a GPU")
    assert "11 checks, 0 wrong." in text
    assert "| same bits: attend | yes |" in text
    assert "deterministic: 11 results" in capsys.readouterr().out


def test_an_error_is_a_result_and_the_next_line_is_found():
    file = io.StringIO()
    notes = Notes(file, 60)

    def broken():
        raise ValueError("no such thing\nmore of it")

    notes.attempt("a", broken, about={"work": "this"})
    notes.attempt("b", lambda x: {"us": x}, 3.0)
    assert rows(file) == [{"key": "a", "work": "this", "error": "ValueError: no such thing"}, {"key": "b", "us": 3.0}]


def test_what_there_is_no_time_for_is_left_out():
    file = io.StringIO()
    Notes(file, 0).attempt("a", lambda: {"us": 1.0})
    assert rows(file) == [{"key": "a", "left_out": "no time was left"}]


def test_a_lost_gpu_ends_the_process_after_the_line_is_written():
    file = io.StringIO()

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(SystemExit) as ended:
        Notes(file, 60).attempt("a", lost)
    assert ended.value.code == CONTEXT_LOST
    assert "illegal memory access" in rows(file)[0]["error"]


def test_a_part_that_hangs_or_fails_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(report, "_TO_BE_KILLED", 0)
    lines, errors = tmp_path / "rows.jsonl", tmp_path / "errors.txt"
    assert report._in_a_process("times", 0.2, True, lines, errors) == "stopped after 0 s"
    monkeypatch.setattr(report, "_TO_BE_KILLED", 60)
    assert report._in_a_process("no part", 1, True, lines, errors) == "its process ended with status 1"
    assert "KeyError" in errors.read_text()
    assert report._run("times", 0.5, True) == {"rows": [], "error": "left out: no time was left"}


@pytest.mark.parametrize(
    ("name", "part", "holds"),
    [
        ("correct", {"rows": [{"right": True}]}, True),
        ("correct", {"rows": [{"right": False}]}, False),
        ("correct", {"rows": [{"error": "boom"}]}, False),
        ("tests", {"rows": [], "error": "stopped after 130 s"}, False),
        ("times", {"rows": [{"error": "it does not fit the GPU's memory"}, {"us": 1.0}]}, True),
        ("compiled", {"rows": [{"left_out": "no time was left"}]}, False),
        ("times", {"rows": [{"left_out": "no time was left"}]}, True),
    ],
)
def test_when_the_command_fails(name: str, part: dict, holds: bool):
    assert report.holds(name, part) is holds


@without_a_gpu
def test_a_wrong_operation_is_found(monkeypatch: pytest.MonkeyPatch):
    def wrong(x, *rest, right=correctness.ops.propagate, **options):
        return right(x, *rest, **options) * (1.0 if current_backend() == "reference" else 1.001)

    monkeypatch.setattr(correctness.ops, "propagate", wrong)
    case = next(correctness.cases(tiny=True))
    for name, right in (("propagate", False), ("edge_logits", True)):
        function, leaves = correctness.operations(case)[name]
        assert correctness._errors(name, function, leaves, torch.float64, "cpu")["right"] is right


def test_somebody_else_on_the_gpu_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "_MEMORY_OF_THE_DRIVER", 0.0)
    for loads, said in (
        ([("0 %", "4 MiB")], None),
        ([("80 %", "4 MiB"), ("0 %", "4 MiB")], None),  # what the part before this one did
        ([("80 %", "9000 MiB")] * 2, "the GPU was 80 % at work and 9000 MiB of its memory taken before this part began"),
    ):
        answers = iter(loads)
        monkeypatch.setattr(device, "of_the_driver", lambda names: dict(zip(names.split(","), next(answers), strict=True)))  # noqa: B023
        assert device.disturbance() == said


def test_without_the_driver_s_program_nobody_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert device.disturbance() is None


def test_the_page_says_first_what_is_wrong_and_shows_every_time():
    clocks = {"us": 12.0, "eager_us": 150.0, "host_us": 140.0, "gpu_us": 12.0, "cold_us": 19.0}
    work = {"work": "propagate forward B=32 T=60", "GB_per_second": 1800.0, "TFLOP_per_second": 10.0, "checked": "reference"}
    parts = {
        "device": {"rows": [{"key": "device", "name": "NVIDIA Something", "chip": "sm_90", "versions": {"torch": "2.13", "cuda": None}}]},
        "correct": {"rows": [
            {"key": "k3 | attend", "operation": "attend", "dtype": "float32", "backend": "triton", "errors": [1e-6, 0.5], "right": False},
            {"key": "k1 | attend", "operation": "attend", "dtype": "float32", "backend": "triton", "errors": [1e-7, 1e-7], "right": True},
        ]},
        "times": {"disturbed": "the GPU was 80 % at work", "rows": [
            {"key": "a", **work, "contender": "fastst_triton", "precision": "fp32", **clocks, "over_ours": 1.0},
            {"key": "b", **work, "contender": "csr", "precision": "fp32", "us": 30.0, "eager_us": 30.0, "over_ours": 2.5},
            {"key": "c", **work, "contender": "pyg", "precision": "fp32", "error": "it does not fit the GPU's memory"},
            {"key": "gcn_norm B=32 T=60", "forward": clocks, "forward + backward": clocks},
            {"key": "d", "left_out": "no time was left"},
        ]},
        "memory": {"error": "stopped after 90 s", "rows": [{"key": "T=10000", "computed_GB": 2.5, "allocated_GB": 2.55, "right": True}]},
    }  # fmt: skip
    text = page({"began": "2026-01-01 10:00", "seconds": 100.0, "rehearsal": False, "parts": parts})
    assert text.startswith("# fastst on NVIDIA Something\n")
    assert text.index("3 checks, 1 wrong.") < text.index("* wrong: correct: k3 | attend") < text.index("## Right")
    assert "* failed: times: c: it does not fit the GPU's memory" in text
    assert "* memory: stopped after 90 s" in text
    assert "| attend | float32 | triton | 5.0e-01 | 2 | **no** |" in text
    assert "| fastst_triton | fp32 | 12.0 | graph | 19.0 | 140.0 | 1.00 | 1800 | 10.00 |" in text
    assert "| csr | fp32 | 30.0 | in a row |  |  | 2.50 | 1800 | 10.00 |" in text
    assert "**Disturbed:** the GPU was 80 % at work; the times may be too long." in text
    assert "1 left out: no time was left." in text
    assert "| T=10000 | 2.50 | 2.55 |  |  |" in text


def test_a_ratio_is_of_two_times_by_one_clock():
    graph, plain = {"gpu_us": 10.0, "eager_us": 100.0}, {"eager_us": 50.0}
    assert over({"gpu_us": 30.0, "eager_us": 90.0}, graph) == 3.0
    assert over(plain, graph) == 0.5
    assert over({"gpu_us": 30.0}, plain) is None


def test_what_was_not_judged_is_said(monkeypatch: pytest.MonkeyPatch):
    parts = {name: {"rows": [{"key": "a", "left_out": "no time was left"}]} for name in ("deterministic", "times")}
    text = page({"began": "2026-01-01 10:00", "seconds": 100.0, "rehearsal": False, "parts": parts})
    assert "0 checks, 0 wrong. **1 more were not made: no time was left.**" in text


def test_kernels_are_compiled_ahead_in_several_processes(monkeypatch: pytest.MonkeyPatch):
    """Here those of the CPU."""
    monkeypatch.setattr(correctness, "BACKEND", "triton")
    file = io.StringIO()
    monkeypatch.setattr(correctness, "_PROCESSES", 1)
    correctness.build(Notes(file, 0.5), tiny=True)
    assert rows(file)[0] == {"key": "kernels", "programs": 27, "processes": 1, "seconds": pytest.approx(1, abs=20)}


def test_clocks():
    assert 0.002 <= seconds_of(lambda: time.sleep(0.002)) < 1
    assert 0.001 <= eager_seconds(lambda: time.sleep(0.001), calls=3, repeats=3) < 1
    row = all_clocks(lambda: time.sleep(0.001), calls=2)
    assert row["us"] >= 1000


def test_the_estimates_are_of_the_kernels_in_the_docs():
    docs = Path(__file__).parents[1] / "docs"
    text = estimates.page((docs / "kernels.md").read_text())
    assert (docs / "gpu" / "estimates.md").read_text() == text, "python -m bench.gpu.estimates --write docs/gpu/estimates.md"


def test_an_estimate_is_what_the_slowest_part_takes():
    chip = estimates.Chip("one", "sm_90", memory=1e9, second=1e9, first=1e9, instructions=1e9)
    work, launch = estimates.Work(1, 16), estimates.Launch("sum", ffma=1, reads=1, values=1)
    edges, features = estimates.edges_of(work), 16 * 18 * 64 * 4
    assert edges == int(SkeletonGraph("coco18", 3).edge_mask(16).sum())
    slow = estimates.Compiled(instructions=100.0, masked=1000.0, again=4.0)
    assert estimates.seconds(launch, slow, work, chip) == (pytest.approx(edges * 2 * 1000 / 1e9 + 2e-6), "instructions")
    seconds, bound = estimates.seconds(launch, slow, work, chip._replace(instructions=1e15))
    assert (seconds, bound) == (pytest.approx((edges * 256 + features) / 1e9 + 2e-6), "first-level cache")
    operation = estimates.Operation("sum", (launch,), bar=2.0, least=2, values=1)
    assert estimates.limit(operation, work, chip) == pytest.approx((2 * features + edges * 4) / 1e9)
