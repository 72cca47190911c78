"""The examples run, for an epoch or two, as whoever tries them would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, ROOT / "examples" / name, *words], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_lightning():
    pytest.importorskip("lightning", reason="lightning is not installed")
    assert "'accuracy': " in run("lightning_walks.py", "--epochs", "1")


@pytest.mark.parametrize("model", ["gcn", "gat"])
def test_geometric(model: str):
    """Groups of nodes are found, which their features alone don't tell: one in five would be right by chance, one in three by the hints."""
    pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")
    said = run("pyg_nodes.py", "--model", model, "--epochs", "60" if model == "gcn" else "3")
    assert said.count(": swapped") == 2
    assert model == "gat" or float(said.split()[-1]) > 0.6


def test_notebook():
    said = run("notebook.py", "--quick")
    assert "Too few people were tested on" in said  # in the quick form


def test_every_example_is_tried():
    tried = Path(__file__).read_text()
    assert all(f'"{file.name}"' in tried for file in (ROOT / "examples").glob("*.py"))
