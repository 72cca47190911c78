"""Arrows go down only: which room of the house may import which, wherever in a module it does so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top to the bottom: a room imports from those that stand below it, and from itself; not from those beside it.
FLOORS = (
    ("train", "evaluate", "predict", "audit", "explain", "experiments", "compare", "convert", "info"),  # the commands
    ("notebook", "export"),
    ("study",),
    ("explanation",),
    ("runs",),
    ("config",),
    ("nn", "data"),
    ("ops",),
    ("graph",),
    ("edge_order",),
    ("cpu", "csrc_triton"),
    ("graph_index", "sampling"),
    ("layouts",),
    ("files",),
    ("errors",),
    ("interrupts",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# These know tensors and numbers, and nothing else of the house.
ONLY = {"cpu": {"graph_index", "sampling"}, "csrc_triton": {"graph_index", "sampling"}, "graph_index": set(), "sampling": set()}
MODULES = sorted([*ROOT.glob("fastst/**/*.py"), *ROOT.glob("csrc_triton/*.py")])


def named(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = set(map(named, MODULES))


def imports(name: str, text: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Every line that imports something of the house, and what: a module, or a name in the package `fastst` itself."""
    for node in ast.walk(ast.parse(text)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: None if is_package and node.level == 1 else -node.level + is_package] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            full = [f"{origin}.{alias.name}" for alias in node.names]
            found = [one if one in NAMES or origin == "fastst" else origin for one in full]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and isinstance(node.args[0], ast.Constant):
            found = [node.args[0].value]
        yield from ((node.lineno, one) for one in found if one.split(".")[0] in ("fastst", "csrc_triton", "bench", "tests"))


def room(name: str) -> str:
    return name.split(".")[1] if name.startswith("fastst.") else name.split(".")[0]


def wrong(name: str, text: str, is_package: bool = False) -> list[str]:
    """Every import that goes up or aside, in words."""
    mine, found = room(name), []
    for line, other in imports(name, text, is_package):
        if other == "fastst.__version__" or room(other) == mine:
            continue
        if other == "fastst" or room(other) not in FLOOR:
            why = "from the package itself only __version__ is imported" if room(other) == "fastst" else "that is no room of the house"
        elif mine in ONLY and room(other) not in ONLY[mine]:
            why = f"of the house, {mine} knows {' and '.join(sorted(ONLY[mine])) or 'nothing'}"
        elif FLOOR[room(other)] <= FLOOR[mine]:
            why = f"{room(other)} is {'beside' if FLOOR[room(other)] == FLOOR[mine] else 'above'} {mine}"
        else:
            continue
        found.append(f"{name} imports {other}: {why} (line {line})")
    return found


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_arrows_go_down(path: Path) -> None:
    if path != ROOT / "fastst/__init__.py":  # which hands out the public names of all rooms
        assert not (found := wrong(named(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")), "\n".join(found)


def test_every_room_has_a_floor() -> None:
    assert set(map(room, NAMES)) - {"fastst"} == set(FLOOR)


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("fastst.data.read", "from fastst.config import TrainConfig", "imports fastst.config: config is above data"),
        ("fastst.data.read", "def f():\n    from fastst.nn import models", "imports fastst.nn.models: nn is beside data"),
        ("fastst.data.formats.form", "from ...runs import load", "imports fastst.runs.load: runs is above data"),
        ("fastst.runs.load", "import fastst.train", "imports fastst.train: train is above runs"),
        ("fastst.runs.load", "import fastst", "imports fastst: from the package itself only __version__ is imported"),
        ("fastst.runs.load", "from fastst import fit", "imports fastst.fit: that is no room of the house"),
        ("fastst.cpu.message", "from fastst.graph import Graph", "imports fastst.graph: of the house, cpu knows graph_index and sampling"),
        ("csrc_triton.message", "from fastst import errors", "imports fastst.errors: of the house, csrc_triton knows graph_index and sampling"),
        ("fastst.sampling", "importlib.import_module('fastst.errors')", "imports fastst.errors: of the house, sampling knows nothing"),
        ("fastst.evaluate", "from fastst.predict import main", "imports fastst.predict: predict is beside evaluate"),
        ("fastst.nn.gin", "from tests import graphs", "imports tests: that is no room of the house"),
    ],
)
def test_what_goes_up_or_aside_is_named(name: str, line: str, told: str) -> None:
    (found,) = wrong(name, line)
    assert f"{name} {told} (line " in found


def test_what_goes_down_is_not() -> None:
    assert not wrong("fastst.train", "from fastst.runs.training import train\nimport torch\nfrom fastst import __version__, nn")
    assert not wrong("fastst.data", "from .formats import form\nfrom . import read\nfrom ..layouts import Layout", is_package=True)
