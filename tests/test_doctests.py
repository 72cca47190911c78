"""Every public name has an example in its docstring, which does what it says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks

ROOT = Path(__file__).parents[1]
NEEDED = {"torch_geometric": "torch_geometric", "write_onnx": "onnxscript"}  # what an example has in it: the package that it needs
TRAINING = ("fit", "load_run")  # the second opens what the first left


def public() -> dict[str, Any]:
    """What docs/api.md lists, by name."""
    spec = importlib.util.spec_from_file_location("api", ROOT / "docs/api.py")
    assert spec is not None
    assert spec.loader is not None
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    modules = {name: importlib.import_module(name) for name in api.MODULES}
    found = {f"{module}.{name}": getattr(home, name) for module, home in modules.items() for name in api._public(home)}
    return {name: thing for name, thing in found.items() if callable(thing)}


PUBLIC = public()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as somebody has it who tries an example: with some walks in it."""
    monkeypatch.chdir(tmp_path)
    write_walks_npz("walks.npz", synthetic_walks(people=8, walks_per_person=1, frames=16))
    torch.manual_seed(0)
    return tmp_path


def run(*names: str) -> None:
    for name in names:
        docstring = inspect.getdoc(PUBLIC[name]) or ""
        assert "\nExamples:\n" in docstring, f"{name} has no Examples"
        for word, package in NEEDED.items():
            if word in docstring.split("\nExamples:\n")[1]:
                pytest.importorskip(package, reason=f"{package} is not installed")
        example = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
        assert example.examples
        told: list[str] = []
        assert doctest.DocTestRunner().run(example, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.rpartition(".")[2] not in TRAINING])
def test_examples(name: str, folder: Path) -> None:
    run(name)


@pytest.mark.slow
def test_examples_that_train(folder: Path) -> None:
    run(*(f"fastst.{name}" for name in TRAINING))
