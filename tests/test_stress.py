"""The parts of the stress test, each for a handful of cases, so that they are ready when the whole of it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stress.__main__ import call, minutes_left, share
from stress.mutate import mutate, signed
from stress.scale import CASES
from stress.seeds import seeds

from fastst.data.formats import BINARY_FORMS, JSON_FORMS, TEXT_FORMS

ROOT = Path(__file__).parents[1]
PROCESSES = """
import sys
from pathlib import Path
import fastst.explanation.report
fastst.explanation.report.explain = lambda finished: {}  # whose figures take as long as all the rest
from tests.stress.kills import kill
from tests.stress.pairs import pair
from tests.stress.processes import Reference, forked
if __name__ == "__main__":
    reference, state = Reference((forked,)), Path(sys.argv[1])
    for part in (kill(state, 1, reference=reference), pair(state, 1, reference=reference)):
        print(part.in_words())
"""


def run(*arguments: str) -> str:
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_form_has_a_good_file() -> None:
    assert set(seeds()) == {form.name for form in (*JSON_FORMS, *TEXT_FORMS, *BINARY_FORMS)}


@pytest.mark.parametrize("name", seeds())
def test_damage_follows_from_its_seed(name: str) -> None:
    for _, content in seeds()[name]:
        damaged = [mutate(content, seed) for seed in range(9)]
        assert damaged == [mutate(content, seed) for seed in range(9)]
        assert len(set(damaged) - {content}) > 4


def test_a_checksum_that_fits() -> None:
    content = b'{"sha256": "' + b"0" * 64 + b'", "a": 1}'
    assert signed(signed(content)) == signed(content) != content
    assert signed(content) != signed(content.replace(b"1", b"2"))


def test_files(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the package atheris is not installed: pip install -c constraints.txt -e '.[stress]'")
    assert "5 cases" in run("-m", "tests.stress.files", "--only", "COCO results", "--count", "5", "--state", str(tmp_path))
    assert json.loads((tmp_path / "files.json").read_text())["notes"]["files"] == {"COCO results": 5}
    assert len(list((tmp_path / "corpus").glob("*/*"))) > 1  # what the fuzzer has learned


def test_time_is_dealt_out_by_what_is_left(tmp_path: Path) -> None:
    for name, (done, seconds) in {"files": (500, 100.0), "kills": (100, 300.0), "pairs": (5, 60.0), "operators": (100, 60.0)}.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"done": done, "seconds": seconds, "failed": 0} if name == "operators" else {"done": done, "seconds": seconds})
        )
    wanted = {"files": 2000, "kills": 100, "pairs": 20, "operators": 100 + 200}
    left = {name: minutes_left(name, tmp_path, count) for name, count in wanted.items()}
    assert left == {"files": 5.0, "kills": 0.0, "pairs": 3.0, "operators": 2.0}
    assert [share(name, left) for name in wanted] == [0.5, 0.0, 0.6, 1.0]
    assert minutes_left("pairs", tmp_path / "new", 20) is None
    assert share("kills", {**left, "kills": None}) == 0.5


def test_a_part_that_breaks_is_no_success() -> None:
    assert call("no_such_part")
    assert not call("mutants", "--help")


@pytest.mark.skipif(sys.platform != "linux", reason="forks and looks into /proc")
def test_kills_and_pairs(tmp_path: Path) -> None:
    words = run("-c", PROCESSES, str(tmp_path))
    assert "kills: 1 cases" in words
    assert "pairs: 1 cases" in words


@pytest.mark.parametrize("name", [name for name in CASES if "train" not in name and "predict" not in name])
def test_scale(tmp_path: Path, name: str) -> None:
    make, use = CASES[name]
    make(tmp_path, 0.001)
    assert use(tmp_path, 0.001)
