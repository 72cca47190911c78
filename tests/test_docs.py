"""The pages beside the README: what is generated is up to date, and every piece of code runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PROGRAMS = re.findall(r"```python\n(.*?)```", (DOCS / "swap_it_in.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_reference_is_of_the_docstrings():
    spec = importlib.util.spec_from_file_location("api", DOCS / "api.py")
    assert spec is not None
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    assert (DOCS / "api.md").read_text(encoding="utf-8") == api.page(), "python docs/api.py --write docs/api.md"


@pytest.mark.parametrize("code", PROGRAMS, ids=range(1, len(PROGRAMS) + 1))
def test_programs_of_the_page_swap_it_in(code: str):
    pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")
    exec(compile(code, "swap_it_in.md", "exec"), {})


def test_the_site_is_made(tmp_path: Path):
    """Every page is in its contents, and every link leads to a page."""
    pytest.importorskip("mkdocs", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not included in the" not in done.stderr
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "make train" in first
    assert re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', first) == []  # nothing from elsewhere


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
