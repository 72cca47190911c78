"""Every command and every piece of code in the README, the guide and the recipes runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Commands
from csvs import write_pose_csv

from fastst.data.formats import BINARY_FORMS, JSON_FORMS, TEXT_FORMS
from fastst.data.formats.form import Form
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guide").glob("*.md")), *sorted((ROOT / "docs/recipes").glob("*.md"))]
TINY = "--epochs 1 --frames 8 --hidden 8 --heads 2 --layers 2 --people 8 --walks-per-person 2"
TINY_GRID = TINY.replace("--layers 2", "--workers 1 --axes graph=fixed seed=0 layers=2 hops=1")
MINE = f"python -m fastst.train --data walks.csv --labels labels.csv --out runs/mine {TINY}"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def lines_of(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]


CODE = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]
MAKE = sorted({command for page in PAGES for command in lines_of(page) if command.startswith("make ")})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Path:
    """A newcomer's folder, with the files and the run that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages")
    walks = synthetic_walks(12, 1, seed=1)
    walks.attributes["label"] = ["Healthy", "Weak"] * 6
    write_walks_npz(folder / "walks.npz", walks)
    write_pose_csv(folder / "walks.csv", walks)
    labels = [f"{subject},{'ab'[i % 2]}" for i, subject in enumerate(walks.subjects)]
    (folder / "labels.csv").write_text("\n".join(["subject,label", *labels]) + "\n")
    do(MINE, folder, commands)
    return folder


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    return tmp_path


def do(command: str, folder: Path, commands: Commands) -> None:
    """A command of fastst in a process that has imported everything, others as they are typed."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"] and words[2].startswith("fastst.") and words[2] != "fastst.experiments":
        said = folder / "said"
        code = commands.code(commands.start(*words[3:], said=said, module=words[2], folder=folder))
        assert code == 0, f"{command}\n{said.read_text()}"
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def made_small(command: str) -> str:
    if "fastst.experiments" in command and "--report" not in command:
        return f"{command} {TINY_GRID}"
    begins = "fastst.train" in command and "--help" not in command and "--resume" not in command
    return f"{command} {TINY}" if begins else command


def test_there_are_commands_and_code() -> None:
    assert {"make train", "make test"} <= set(MAKE)
    assert sum(len(lines_of(page)) for page in PAGES) > 25
    assert len(CODE) > 8


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_its_targets(command: str) -> None:
    """The commands behind them are run by the other tests and by whoever runs these."""
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", [page for page in PAGES if lines_of(page)], ids=lambda page: page.stem)
def test_commands_run_in_their_order(page: Path, folder: Path, commands: Commands) -> None:
    todo = [made_small(command) for command in lines_of(page) if not command.startswith("make ")]
    if MINE in todo:  # it is there already, by this command
        todo.remove(MINE)
    for command in todo:
        do(command, folder, commands)


@pytest.mark.parametrize(("page", "number"), CODE, ids=[f"{page.stem}-{number}" for page, number in CODE])
def test_code_runs(page: Path, number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = blocks(page, "python")[number].replace("epochs=20", "epochs=1, frames=8, hidden=8, heads=2, layers=2, people=8, walks_per_person=2")
    exec(compile(code, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_and_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "form", [form for form in (*JSON_FORMS, *TEXT_FORMS, *BINARY_FORMS) if form.name != "labels of people"], ids=lambda form: form.name
)
def test_every_form_has_a_row_and_a_sample(form: Form) -> None:
    page = (ROOT / "docs/guide/walks.md").read_text(encoding="utf-8")
    assert f"\n| {form.name} | " in page
    assert f"```text\n{form.sample}\n```" in page
    assert len(form.sample.splitlines()) <= 8
