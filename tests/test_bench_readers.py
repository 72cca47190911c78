"""The files that readers are timed on are of their forms, and the page is made."""

import sys
from pathlib import Path

import pytest

from bench import readers
from fastst.data.formats import JSON_FORMS, TEXT_FORMS
from fastst.data.read import read_recordings


@pytest.mark.parametrize("form", readers.FORMS)
def test_every_frame_is_read(form: str, tmp_path: Path):
    assert form in {known.name for known in (*JSON_FORMS, *TEXT_FORMS)}
    suffix, text = readers.FORMS[form]
    (path := tmp_path / f"file{suffix}").write_text("".join(text(30)), encoding="utf-8")
    recordings, left_out = read_recordings(path, progress=False)
    assert left_out == []
    assert sum(len(recording.detections) for recording in recordings) == 30
    expected = next(readers._frames(1))[1]
    assert recordings[0].detections.joints[0, :, :2] == pytest.approx(expected[:, :2], rel=1e-5)
    assert readers.plain_seconds(path) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
def test_the_page_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "FORMS", {name: readers.FORMS[name] for name in ("pose CSV", "COCO results")})
    monkeypatch.setattr(sys, "argv", ["readers", "--frames", "200", "--report", str(tmp_path / "readers.md")])
    readers.main()
    page = (tmp_path / "readers.md").read_text(encoding="utf-8")
    assert page.count("\n| ") == 4
    assert "| COCO results |" in page
