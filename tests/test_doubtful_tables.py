"""Tables that mean one of two things: refused, with what tells which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastst.data.read import read_recordings
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

JOINTS = [f"{joint}_{axis}" for joint in LAYOUTS["coco17"].joints for axis in "xy"]


def body(frame: int) -> np.ndarray:
    """x and y of each joint in turn: x is 1300 + 3 frame + j, y 400 + 2 j.  # [34]"""
    j = np.arange(17)
    return np.stack([1300 + 3 * frame + j, 400 + 2 * j], axis=1).ravel()


def read(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",") -> list[Recording]:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")
    return read_recordings(path, progress=False)[0]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("is_y_whole", [True, False])
def test_every_x_beyond_a_thousand_with_points_of_thousands(tmp_path: Path, separator: str, is_y_whole: bool) -> None:
    def cell(k: int, value: int) -> str:
        return str(value) if k % 2 and is_y_whole else f"{(value + 1000 * (k % 2)) / 1000:.3f}"

    rows = [[t, *(cell(k, value) for k, value in enumerate(body(t)))] for t in range(8)]
    with pytest.raises(
        DataError, match=r"a\.csv: every x is from 1 to 10 with three decimals, such as 1\.300, .*; write the numbers without a separator"
    ):
        read(tmp_path / "a.csv", ["frame", *JOINTS], rows, separator)


@pytest.mark.parametrize("factor", [1e-3, 0.13])
def test_metres_and_pixels_with_three_decimals_are_none_of_thousands(tmp_path: Path, factor: float) -> None:
    """Where some are below 1 or beyond 10 and have decimals too."""
    rows = [[t, *(f"{value * factor:.3f}" for value in body(t))] for t in range(8)]
    [recording] = read(tmp_path / "a.csv", ["frame", *JOINTS], rows, ";")
    np.testing.assert_allclose(recording.detections.joints.reshape(8, 34), [body(t) * factor for t in range(8)], atol=6e-4)


def test_a_few_places_with_decimals_are_none_of_thousands(tmp_path: Path) -> None:
    rows = [[t, *((1.5 + (k + t) % 4) if k % 2 == 0 else value for k, value in enumerate(body(t)))] for t in range(8)]
    [recording] = read(tmp_path / "a.csv", ["frame", *JOINTS], rows, ";")
    assert sorted(set(recording.detections.joints[:, :, 0].ravel().tolist())) == [1.5, 2.5, 3.5, 4.5]


@pytest.mark.parametrize("names", [("1", "2"), ("P01", "P02")])
def test_ids_that_begin_in_one_frame(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [[name, t, *body(t)] for name in names for t in range(8 + int(name[-1]))]
    with pytest.raises(DataError, match=r"its 2 IDs all begin in frame 0, .* call that column `track` if .* and `subject` or `walk` if"):
        read(tmp_path / "a.csv", ["ID", "frame", *JOINTS], rows)
    assert len(read(tmp_path / "b.csv", ["subject", "frame", *JOINTS], rows)) == 2
    [seen_together] = read(tmp_path / "c.csv", ["track", "frame", *JOINTS], rows)
    assert seen_together.detections.ids is not None
    assert len(np.unique(seen_together.detections.ids)) == 2


def test_ids_that_tell_the_tracks_of_a_video(tmp_path: Path) -> None:
    """They begin when people come into the picture; or there is one; or another column says which video it is."""
    rows = [[person, t, *body(t)] for person in (1, 2) for t in range(4 * person, 12)]
    [recording] = read(tmp_path / "a.csv", ["ID", "frame", *JOINTS], rows)
    assert sorted(np.unique(recording.detections.ids).tolist()) == [1, 2]
    assert len(read(tmp_path / "b.csv", ["ID", "frame", *JOINTS], [[1, t, *body(t)] for t in range(8)])) == 1
    rows = [[video, person, t, *body(t)] for video in "ab" for person in (1, 2) for t in range(8)]
    assert len(read(tmp_path / "c.csv", ["video", "id", "frame", *JOINTS], rows)) == 2
