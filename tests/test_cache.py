"""Compiled kernels on disk: nothing that can be wrong with them ends a program or changes a result."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest
from numba.core.caching import CacheImpl

from fastst.cpu import cache

ROOT = Path(__file__).parents[1]


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cache._say_once.cache_clear()
    return tmp_path


def kept(function: Callable = double):
    return cache.keep(numba.njit(function))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_kernel_is_compiled_once(folder: Path) -> None:
    first = kept()
    assert first(2) == 4
    assert len(files(folder)) == 1
    again = kept()
    assert again(2) == 4
    assert sum(again.stats.cache_hits.values()) == 1
    assert again(2.5) == 5.0  # of another kind
    assert len(files(folder)) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_cut, _empty, _flip, _folder])
def test_what_is_damaged_is_compiled_again(folder: Path, damage: Callable[[Path], None]) -> None:
    kept()(2)
    damage(files(folder)[0])
    again = kept()
    assert again(2) == 4
    assert not again.stats.cache_hits
    if damage is not _folder:
        assert sum((mended := kept())(2) == 4 and mended.stats.cache_hits.values()) == 1


def test_a_full_disk_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._Files, "_open_for_write", full)
    with caplog.at_level(logging.WARNING, "fastst"):
        assert kept()(2) == 4
        assert kept()(2.0) == 4
    [record] = caplog.records
    assert "No space left on device" in record.message


def test_no_folder_that_can_be_written(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A read-only installation of somebody without a home."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with caplog.at_level(logging.WARNING, "fastst"):
        assert kept()(2) == 4
    assert "no locator available" in caplog.text


def test_another_kernels_code_is_not_taken(folder: Path) -> None:
    kept(double)(2)
    kept(triple)(2)
    one, other = files(folder)
    one.write_bytes(other.read_bytes())
    assert (kept(double)(2), kept(triple)(2)) == (4, 6)


def test_a_changed_source_is_compiled_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is that of a function which the kernel calls."""
    kept()(2)
    monkeypatch.setattr(cache, "_sources", lambda: "changed")
    again = kept()
    assert again(2) == 4
    assert not again.stats.cache_hits


def test_first_use_in_several_processes_at_once(folder: Path) -> None:
    program = "import numpy; from fastst.cpu.sort_edges import merge_equals; print(merge_equals(numpy.array([1, 0, 1]), numpy.array([2, 0, 2]), 3))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    at_once = [subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=300)[0] for process in at_once}
    assert [process.returncode for process in at_once] == [0, 0, 0]
    assert len(said) == 1
    assert len([path for path in files(folder) if "merge_equals" in path.name]) == 1
