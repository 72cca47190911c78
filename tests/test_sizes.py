"""What is short is read: no file over 500 lines, no function over 60 beside its docstring, no call with more than 12 arguments by position."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("fastst", "csrc_triton", "bench", "tests", "docs", "examples") for path in (ROOT / room).rglob("*.py"))
SCRIPTS = sorted((ROOT / "fastst").rglob("*.js"))
MOST_LINES, MOST_OF_A_FUNCTION, MOST_ARGUMENTS = 500, 60, 12
# Compiled loops hand kernels of machine instructions their addresses, pitches and counts one by one, since these know no names: 19 at the most.
COMPILED, MOST_OF_COMPILED = "fastst/cpu/", 19
# GPU kernels with two loops, of which each needs the dozen tiles and addresses that stand before both.
LONG_KERNELS = {"csrc_triton/propagate.py: _propagate_backward": 70, "csrc_triton/message.py: _message_backward": 74}


def too_large(name: str, text: str) -> Iterator[str]:
    """Every function and every call that is, in words."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - lines_of_docstring(node)
            if lines > LONG_KERNELS.get(f"{name}: {node.name}", MOST_OF_A_FUNCTION):
                yield f"{name}:{node.lineno}: {node.name} has {lines} lines"
        elif isinstance(node, ast.Call):
            most = MOST_OF_COMPILED if name.startswith(COMPILED) else MOST_ARGUMENTS
            if len(node.args) > most:
                yield f"{name}:{node.lineno}: {ast.unparse(node.func)} is given {len(node.args)} arguments by position"


def lines_of_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_too_large(path: Path) -> None:
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert not (found := [] if path in SCRIPTS else list(too_large(name, text))), "\n".join(found)


def test_what_is_too_large_is_named() -> None:
    long = "def f(a):\n    '''Of two\n    lines.'''\n" + "    a += 1\n" * 59
    assert not list(too_large("bench/a.py", long))
    assert list(too_large("bench/a.py", long + "    a += 1\n")) == ["bench/a.py:1: f has 61 lines"]
    arguments = ", ".join("abcdefghijkl")
    assert not list(too_large("bench/a.py", f"f({arguments}, m=1)\nf({arguments[3:]}, *m)"))
    assert list(too_large("bench/a.py", f"f.g({arguments}, *m)")) == ["bench/a.py:1: f.g is given 13 arguments by position"]
    assert not list(too_large("fastst/cpu/a.py", f"f({arguments}, {arguments[:19]})"))
