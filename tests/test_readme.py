"""Every command and every piece of code in the README runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastst.data.formats import BINARY_FORMS, JSON_FORMS, TEXT_FORMS
from fastst.data.formats.form import Form
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = " --epochs 1 --frames 8 --hidden 8 --heads 2 --layers 2 --people 8 --walks-per-person 2"
TINY_GRID = TINY.replace("--layers 2", "--workers 1 --axes graph=fixed seed=0 layers=2 hops=1")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A newcomer's folder, with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    walks = synthetic_walks(12, 1, seed=1)
    walks.attributes["label"] = ["Healthy", "Weak"] * 6
    write_walks_npz(folder / "walks.npz", walks)
    header = ["image_name", *(f"{joint}_{what}" for joint in walks.layout.joints for what in ("x", "y", "conf"))]
    rows = [",".join(header)]
    for name, poses in zip(walks.names, walks.poses, strict=True):
        for t, frame in enumerate(poses):
            numbers = [f"{x:.2f},{y:.2f},{0 if x != x else 1}" for x, y in frame]
            rows.append(f"casia/{name}/{t:06d}.jpg,{','.join(numbers)}")
    (folder / "walks.csv").write_text("\n".join(rows) + "\n")
    labels = [f"{subject},{'ab'[i % 2]}" for i, subject in enumerate(walks.subjects)]
    (folder / "labels.csv").write_text("\n".join(["subject,label", *labels]) + "\n")
    return folder


def test_there_are_commands_and_code():
    assert {"make train", "make test"} <= set(COMMANDS)
    assert len(COMMANDS) > 8
    assert len(blocks("python")) >= 3


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(command: str):
    """The commands behind them are run by the other tests and by whoever runs these."""
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_commands_run_in_their_order(folder: Path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for command in COMMANDS:
        if command.startswith("make "):
            continue
        grid = "fastst.experiments" in command and "--report" not in command
        begins = "fastst.train" in command and "--help" not in command and "--resume" not in command
        done = subprocess.run(
            command + TINY * begins + TINY_GRID * grid,
            shell=True,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (folder / "runs/mine/predictions.json").exists()
    assert (folder / "runs/folds/fold-3/summary.json").exists()
    assert (folder / "runs/study/report/index.html").exists()


@pytest.mark.parametrize("code", blocks("python"))
def test_code_runs(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    exec(compile(code.replace("epochs=20", "epochs=1, frames=8, hidden=8, heads=2, layers=2"), "README.md", "exec"), {})


def test_pictures_and_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize(
    "form", [form for form in (*JSON_FORMS, *TEXT_FORMS, *BINARY_FORMS) if form.name != "labels of people"], ids=lambda form: form.name
)
def test_every_form_has_a_row_and_a_sample(form: Form):
    assert f"\n| {form.name} | " in README
    assert f"```text\n{form.sample}\n```" in README
    assert len(form.sample.splitlines()) <= 8
