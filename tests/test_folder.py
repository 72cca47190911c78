"""Files are written whole or not at all, and nothing else is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from matplotlib import figure
from safetensors.torch import save_file

from fastst.errors import UserError
from fastst.files import WriteError, write_atomically
from fastst.runs.folder import write_text
from fastst.runs.tables import check_not_needed


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_gets_the_mode_that_umask_gives(tmp_path: Path, mask: int) -> None:
    """Also where the library that writes it would keep it to itself."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "a")
        write_atomically(tmp_path / "a.safetensors", lambda part: save_file({"x": torch.zeros(1)}, part))
    finally:
        os.umask(before)
    assert permissions(tmp_path / "a.txt") == permissions(tmp_path / "a.safetensors") == 0o666 & ~mask


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert (path.read_text(), permissions(path)) == ("new", 0o640)


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "a.txt"
    target.write_text("old")
    (tmp_path / "link.txt").symlink_to(target)
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a pipe by a link"])
def test_what_is_no_regular_file_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it.txt"
    if kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe") if kind.endswith("link") else (tmp_path / "pipe").rename(path)
    with pytest.raises(WriteError, match=f"it is {kind.removesuffix(' by a link')}; name a file"):
        write_text(path, "x")
    assert not path.is_file()


def test_other_files_that_are_called_alike_stay(tmp_path: Path) -> None:
    for name in (".a.part.txt", "a.part.txt", ".a.txt"):
        (tmp_path / name).write_text("mine")
    write_text(tmp_path / "a.txt", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        ".a.part.txt": "mine",
        "a.part.txt": "mine",
        ".a.txt": "mine",
        "a.txt": "new",
    }


def test_after_a_failure_all_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fails(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left on device; what was there before is unchanged"):
        write_atomically(tmp_path / "a.txt", fails)
    with pytest.raises(WriteError, match="can't be written: No such file or directory"):
        write_text(tmp_path / "none" / "a.txt", "x")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    for folder in (data, run):
        folder.mkdir()
    for path in (data / "walk.json", run / "split.json", run / "model.safetensors", run / "audit.png", tmp_path / "labels.csv"):
        path.write_text("x")
    (run / "edges.csv").write_text("walk,probability")
    for path in (data / "walk.json", run / "model.safetensors", run / "audit.png"):
        with pytest.raises(UserError, match="would be lost; give another name"):
            check_not_needed(path, data, option="--out")
    check_not_needed(run / "edges.csv", data, None, option="--out")
    with pytest.raises(UserError, match=r"new\.json would lie among the data in .*data, and be read with it the next time"):
        check_not_needed(data / "new.json", data, option="--out")
    with pytest.raises(UserError, match=r"labels\.csv is there already, and not a file that fastst wrote"):
        check_not_needed(tmp_path / "labels.csv", option="--out")
    for name in ("photo.png", "thesis.pdf", "drawing.svg"):
        (tmp_path / name).write_bytes(b"\x89PNG mine")
        with pytest.raises(UserError, match=rf"{name} is there already, and not a file that fastst wrote"):
            check_not_needed(tmp_path / name, option="--picture")
        figure.Figure().savefig(tmp_path / name)
        check_not_needed(tmp_path / name, option="--picture")
    with pytest.raises(UserError, match=r"there is no folder .*none; make it"):
        check_not_needed(tmp_path / "none" / "a.csv", option="--out")


@pytest.mark.parametrize("name", ["predictions.csv", "summary.json", "walk_with_kept_edges.png", "audit.png"])
def test_a_file_of_a_run_is_not_replaced_through_a_link_either(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / name).write_text("probability, balanced_accuracy, Matplotlib")
    link = (tmp_path / "link").with_suffix(Path(name).suffix)
    link.symlink_to(run / name)
    for path in (run / name, link):
        with pytest.raises(UserError, match="is a file of the run itself, which would be lost; give another name"):
            check_not_needed(path, option="--out")
    (run / name).unlink()
    with pytest.raises(UserError, match="has the name of a file that the run itself writes; give another name"):
        check_not_needed(run / name, option="--out")
    (run / "walk_7.png").write_text("Matplotlib")
    check_not_needed(run / "walk_7.png", option="--out")


def test_results_do_not_lie_among_the_data_through_a_link_either(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(UserError, match="would lie among the data"):
        check_not_needed(tmp_path / "link" / "new.csv", tmp_path / "data", option="--out")
