"""The page on several processes, from rows that are known; that their losses are those of one is `test_train.py`'s."""

import sys
from pathlib import Path

import pytest

from bench import scaling


def test_writes_a_page_of_losses_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def trained(processes: int, folder: Path) -> list[dict[str, float]]:
        tests = {2: {"macro_f1": 0.5}, 4: {"macro_f1": 0.5}}
        takes = [(8 + 90 * (epoch in tests)) / processes for epoch in range(1, 6)]
        return [{"loss": 1 / epoch + 1e-6 * processes, "seconds": sum(takes[:epoch])} | tests.get(epoch, {}) for epoch in range(1, 6)]

    monkeypatch.setattr(scaling, "trained", trained)
    monkeypatch.setattr(sys, "argv", ["scaling", "--report", str(tmp_path / "page.md"), "--processes", "2"])
    scaling.main()
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith(("| 1 ", "| 2 "))]
    assert rows[0] == "| 1 | 1.00000 | 0.20000 | 0.0e+00 of it | 8.00 | 1.00 |"
    assert rows[1] == "| 2 | 1.00000 | 0.20000 | 5.0e-06 of it | 4.00 | 2.00 |"
