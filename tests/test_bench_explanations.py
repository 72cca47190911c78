"""The table of docs/explanations.md is made of runs, and what stands above it in the page stays."""

import json
import sys
from pathlib import Path

import pytest

from bench import explanations
from fastst.explanation.report import EXPLAINED
from fastst.runs.training import train
from fastst.train import read_config

TINY = ["--people", "12", "--walks-per-person", "2", "--frames", "12", "--hidden", "8", "--heads", "2", "--layers", "2", "--epochs", "1"]


def test_the_table_is_made_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def quick(folder: Path, words: list[str]) -> None:
        train(read_config([*words, *TINY, "--out", str(folder)]), EXPLAINED)

    monkeypatch.setattr(explanations, "_train", quick)
    page = tmp_path / "docs" / "explanations.md"
    page.parent.mkdir()
    page.write_text("# By hand\n\n<!-- bench.explanations -->\nold\n")
    words = ["--only", "knees", "relation elbow-wrist", "--seeds", "0", "--workers", "1", "--permuted", "1"]
    monkeypatch.setattr(sys, "argv", ["explanations", *words, "--runs", str(tmp_path / "runs"), "--report", str(page.parent)])
    explanations.main()
    text = page.read_text()
    assert text.startswith("# By hand\n\n<!-- bench.explanations -->\n")
    assert "old" not in text
    for name in ("knees", "relation elbow-wrist", "permuted"):
        assert f"| {name} | 1 |" in text
    found = json.loads((page.parent / "explanations.json").read_text())
    assert found["knees-learned-0"]["roc_auc"] > 0
    assert found["knees-fixed-0"]["kept"] == 1


def test_a_run_whose_audit_failed_is_left_out(tmp_path: Path, capsys):
    (tmp_path / "summary.json").write_text(json.dumps({"audit": {"error": "out of luck"}}))
    assert explanations._summary(tmp_path) is None
    assert "the audit failed: out of luck" in capsys.readouterr().out
