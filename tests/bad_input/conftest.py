"""Commands in this process, and runs that tests of bad input may spoil."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from inputs import (
    TINY,
    Command,
    Ended,
    write_npz,
)

from fastst import train
from fastst.errors import run_command
from fastst.runs.trainer import Trainer


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m fastst.train` and the like in this process; whatever would print a traceback is raised."""

    def run(module: ModuleType, *arguments: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            run_command(module.main)
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        return Ended(code, captured.out, re.sub(r"[\s│|]+", " ", captured.err))

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `walks.npz`, `finished` (a run of three epochs), and `stopped` (the same one, interrupted after two)."""
    folder = tmp_path_factory.mktemp("made")
    data = write_npz(folder / "walks.npz")
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer) -> dict[str, Any]:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(self)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("finished", "stopped"):
            patch.setattr(sys, "argv", ["train", "--data", str(data), *TINY, "--epochs", "3", "--out", str(folder / name)])
            if name == "stopped":
                patch.setattr(Trainer, "train_epoch", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    train.main()
            else:
                train.main()
    return folder


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Path:
    """A run of three epochs that was interrupted after two."""
    return Path(shutil.copytree(made / "stopped", tmp_path / "stopped"))


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "finished", tmp_path / "finished"))
