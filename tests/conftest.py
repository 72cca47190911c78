from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

gc.disable()  # until all tests are there: a third of their imports would go into looking for garbage, of which there is none yet
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is there: with more, workers' threads wait for one another, and spin while they do
    os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

if TYPE_CHECKING:
    from commands import Commands

sys.path.insert(0, str(Path(__file__).parent))
if not torch.cuda.is_available():  # before anything imports triton, which looks at it when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_finish() -> None:
    gc.freeze()  # nor is it looked for in what was imported
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seed = config.getoption("randomly_seed", None)
    if isinstance(seed, int):  # pytest-randomly is there
        terminalreporter.write_line(f"the tests in the same order: --randomly-seed={seed}")


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    """With more, all tests that come after would take ten times as long on a machine that has other work: threads spin while they wait."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Starts `python -m fastst.…` in processes that have imported everything."""
    from commands import Commands

    commands = Commands()
    yield commands
    commands.close()


_FIGURES = ("learning_curve", "initial_adjacency", "audit", "kept_of_joints", "walk_with_kept_edges")


def _draw_nothing(finished: Any, found: dict[str, Any]) -> None:
    for name in _FIGURES:
        (finished.fold.folder / f"{name}.png").write_bytes(b"\x89PNG")


@pytest.fixture(scope="session", autouse=True)
def draw() -> Iterator[Callable[..., None] | None]:
    """What draws the figures of a run. It takes longer than a small training: in this process files without a figure stand in their place, unless a
    test asks for `with_figures`."""
    report = sys.modules.get("fastst.explanation.report")  # all tests are imported; where none has needed it, none draws
    draw = report and report.draw
    with pytest.MonkeyPatch.context() as patch:
        if report:
            patch.setattr(report, "draw", _draw_nothing)
        yield draw


@pytest.fixture
def with_figures(draw: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastst.explanation.report.draw", draw)


@pytest.fixture
def much_memory() -> Iterator[Callable[[int, torch.dtype], torch.Tensor]]:
    """Makes a GPU tensor of so many numbers, for one worker at a time. A test that the GPU has no room for is skipped."""

    def make(count: int, dtype: torch.dtype) -> torch.Tensor:
        try:
            return torch.empty(count, dtype=dtype, device="cuda")
        except torch.OutOfMemoryError:
            free, total = (number / 2**30 for number in torch.cuda.mem_get_info())
            pytest.skip(f"takes {count * dtype.itemsize / 2**30:.0f} GiB of the GPU's memory at once, of {total:.0f} GiB {free:.0f} are free")

    if not torch.cuda.is_available():
        yield make
        return
    with FileLock(Path(tempfile.gettempdir()) / "fastst-tests-gpu-memory.lock"):
        yield make
        torch.cuda.empty_cache()
