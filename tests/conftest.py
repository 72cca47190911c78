from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Starts `python -m fastst.…` in processes that have imported everything."""
    from commands import Commands

    commands = Commands()
    yield commands
    commands.close()


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
