"""The options of a benchmark run, what is written about the machine, and the report at the end."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import fastst
from bench.report import write_report
from bench.selection import default_groups, full_groups
from bench.timing import WARM_UPS, WARMED_SECONDS, WARMING_SECONDS, machine_limits, nearest_limit
from fastst.cpu.memory import keep_freed_memory

PACKAGES = ("torch", "triton", "numpy", "numba", "torch-geometric", "torch-scatter", "torch-sparse", "scipy")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "FASTST_BACKEND")


def pytest_addoption(parser):
    group = parser.getgroup("fastst benchmarks")
    group.addoption("--full", action="store_true", help="every work over frames, hops and channels, and the whole memory frontier")
    group.addoption("--threads", type=int, default=0, help="threads of torch and fastst (default: as many as torch has)")
    group.addoption("--seconds-per-group", type=float, default=6.0, help="time for the rounds of each group (default: 6)")
    group.addoption("--report", type=Path, default=Path(".benchmarks/report"), help="folder for benchmarks.json, .md and .png (default: %(default)s)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    torch.set_num_threads(config.getoption("--threads") or torch.get_num_threads())
    config.groups = full_groups() if config.getoption("--full") else default_groups()
    config.skipped_rows, config.memory, config.began = [], {}, time.monotonic()
    config.writes_report = config.getoption("benchmark_only") and config.option.benchmark_json is None
    # For every contender alike: without, much of what is timed are the page faults of fresh memory. See `bench_times` for which sizes.
    config.keeps_freed_memory = config.getoption("benchmark_only") and keep_freed_memory()
    if config.writes_report:
        folder = config.getoption("--report")
        folder.mkdir(parents=True, exist_ok=True)
        config.option.benchmark_json = folder / "benchmarks.json"
        config.option.benchmark_json.unlink(missing_ok=True)


def pytest_benchmark_update_machine_info(config, machine_info) -> None:
    machine_info.pop("node", None)  # the computer's name is nobody's business
    machine_info.update(
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        versions={"fastst": fastst.__version__, **{name: _version(name) for name in PACKAGES}},
        environment={
            "malloc": "keeps freed memory, with whole models that of tensors up to 32 MiB" if config.keeps_freed_memory else None,
            **{name: os.environ.get(name) for name in VARIABLES},
        },
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
        limits={str(threads): machine_limits(threads) for threads in sorted({1, torch.get_num_threads()})},
    )


def pytest_benchmark_update_json(config, benchmarks, output_json) -> None:
    for row in output_json["benchmarks"]:
        # extra_info has the parameters, and statistics of the rounds are enough: the file is to be committed.
        for name in ("params", "options"):
            row.pop(name, None)
        row["stats"].pop("data", None)
        info = row["extra_info"]
        info.update(nearest_limit(info["flops"], info["bytes"], info["threads"]))  # of the best tries of the whole run
    minutes = (time.monotonic() - config.began) / 60
    warm_ups = {"of_seconds": WARMED_SECONDS, "runs": WARM_UPS, "seconds": WARMING_SECONDS}
    output_json.update(warm_ups=warm_ups, skipped=config.skipped_rows, memory=config.memory, full=config.getoption("--full"), minutes=minutes)


def pytest_unconfigure(config):
    if config.writes_report and config.option.benchmark_json.exists():
        write_report(config.option.benchmark_json)
        print(f"the report is in {config.option.benchmark_json.parent}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
