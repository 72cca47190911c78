"""The pages' benchmark figures are those of the committed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.report import HASH, PICTURES, Run, fill, markdown, seconds, sections, slope_in_words, times, write_report

ROOT = Path(__file__).resolve().parent.parent
JSON = ROOT / "docs/benchmarks.json"
PAGES = ["README.md", "docs/guide/speed.md"]
HOW = "renew it with: python -m bench.report docs/benchmarks.json --pages " + " ".join(PAGES)


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(JSON)


def test_pages_say_what_the_committed_run_says(run: Run):
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    assert fill(texts, sections(run)) == texts, HOW


def test_docs_say_what_the_committed_run_says(run: Run):
    assert (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8") == markdown(run), HOW


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_those_of_the_committed_run(run: Run, name: str):
    path = ROOT / "docs" / name
    with Image.open(path) as picture:
        assert picture.info[HASH] == run.digest, HOW
    assert path.stat().st_size < 150_000


def test_committed_run_says_where_it_comes_from(run: Run):
    assert {"cpu", "threads", "versions", "environment", "limits", "capability"} <= set(run.machine)
    assert run.data["commit_info"]["id"]
    assert "node" not in run.machine
    assert all(row["checked"] for row in run.rows)
    assert all(row["limit_seconds"] > 0 for row in run.rows)


def test_a_changed_run_changes_the_pages(run: Run, tmp_path: Path):
    """What the tests above compare does hang on the numbers."""
    data = json.loads(JSON.read_text())
    for row in data["benchmarks"]:
        if row["extra_info"]["contender"].startswith("fastst"):
            row["stats"]["median"] *= 3
    (tmp_path / "benchmarks.json").write_text(json.dumps(data))
    changed = Run(tmp_path / "benchmarks.json")
    assert sections(changed)["speed"] != sections(run)["speed"]
    assert markdown(changed) != markdown(run)
    assert changed.digest != run.digest


def test_report_command_writes_everything(tmp_path: Path):
    (tmp_path / "benchmarks.json").write_bytes(JSON.read_bytes())
    markers = "".join(f"<!-- benchmarks:{name} -->\nold\n<!-- /benchmarks:{name} -->\n" for name in sections(Run(JSON)))
    (tmp_path / "README.md").write_text(markers)
    command = [sys.executable, "-m", "bench.report", str(tmp_path / "benchmarks.json"), "--pages", str(tmp_path / "README.md")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert "\nold\n" not in (tmp_path / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"benchmarks.json", "benchmarks.md", "README.md", *PICTURES}


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="markers of benchmarks:speed are in none of the pages"):
        fill(["no markers"], {"speed": "table"})


def test_pytest_benchmark_compares_with_the_committed_run(tmp_path: Path):
    program = str(Path(sys.executable).parent / "pytest-benchmark")
    (tmp_path / "mine.json").write_bytes(JSON.read_bytes())
    command = [program, "compare", str(JSON), str(tmp_path / "mine.json"), "--columns", "median,iqr", "--sort", "fullname"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "propagate" in done.stdout


@pytest.mark.parametrize(("value", "words"), [(0.0123, "12.3 ms"), (1.5, "1.50 s"), (0.000002, "2.00 µs"), (1234.0, "1,234 s")])
def test_seconds_in_words(value: float, words: str):
    assert seconds(value) == words


def test_ratios_and_slopes_in_words():
    assert [times(ratio) for ratio in (0.91, 2.84, 13.7, 451.0)] == ["0.91", "2.8", "14", "451"]
    assert slope_in_words([10, 100, 1000], [1, 10, 1000]) == ", slope 2.00"
    assert slope_in_words([10], [1]) == ""


def test_write_report_needs_no_memory_figures(tmp_path: Path):
    data = json.loads(JSON.read_text())
    data["memory"] = {}
    (tmp_path / "benchmarks.json").write_text(json.dumps(data))
    write_report(tmp_path / "benchmarks.json")
    assert (tmp_path / "benchmarks.md").exists()
