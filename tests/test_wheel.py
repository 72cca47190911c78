"""The wheel holds all that the package needs: away from the checkout, the README's first example runs from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from csvs import write_pose_csv

from fastst.data.synthetic import synthetic_walks

SOURCES = [path for room in ("fastst", "csrc_triton") for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
SMALL = "epochs=1, frames=8, hidden=8, heads=2, layers=2, people=8, walks_per_person=2"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")  # what an earlier build left behind would get into the wheel
    for room in ("fastst", "csrc_triton"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (made,) = out.glob("fastst-*.whl")
    return made


def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    found = set(zipfile.ZipFile(wheel).namelist())
    built_by_hand = {"tsconfig.json"}
    assert [str(path) for path in SOURCES if path.relative_to(ROOT).as_posix() not in found and path.name not in built_by_hand] == []


def test_the_readmes_first_example_runs_from_it(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "example.py").write_text(code.replace("epochs=20", SMALL) + "print(fastst.__file__)\n", encoding="utf-8")
    write_pose_csv(tmp_path / "walks.csv", synthetic_walks(2, 1, seed=1))
    run = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "installed" / "fastst" / "__init__.py") in run.stdout
