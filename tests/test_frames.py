"""Which number in a name is the frame's."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastst.data import frames
from fastst.data.frames import split_frames


def split(names: list[str]) -> tuple[list[str], list[int]]:
    found = split_frames(names)
    assert found is not None
    return found[0].to_pylist(), found[1].tolist()


def test_a_camera_and_an_image_size_do_not_count_up() -> None:
    assert split([f"frame{t:05d}_cam2.jpg" for t in range(4)])[1] == [0, 1, 2, 3]
    assert split([f"{t}_640x480.png" for t in (7, 9, 8)])[1] == [7, 9, 8]
    assert split([f"frame{t:05d}.jp2" for t in range(3)])[1] == [0, 1, 2]


def test_several_videos() -> None:
    names, frames = split([f"{walk}/{t:06d}.jpg" for walk in ("001-nm-01-000", "001-nm-01-018") for t in range(30)])
    assert len(set(names)) == 2
    assert frames == [*range(30)] * 2
    names, frames = split([f"frame{t}_cam{camera}" for t in range(9) for camera in (1, 2)])
    assert len(set(names)) == 2
    assert frames == [t for t in range(9) for _ in (1, 2)]


def test_one_number_with_zeros_in_front_and_without() -> None:
    names, frames = split([f"a{number}_{t}.jpg" for number in ("1", "01") for t in range(9)])
    assert len(set(names)) == 2
    assert frames == [*range(9)] * 2


def test_several_people_in_a_frame() -> None:
    assert split(["12.jpg", "12.jpg", "13.jpg"])[1] == [12, 12, 13]


def test_a_frame_and_its_time() -> None:
    for name in (
        "frame{t}_t0.{t:03d}.jpg",
        "frame_{t:04d}_t{seconds:.3f}.jpg",
        "frame{t}_{whole:02d}-{thousandths:03d}.jpg",
        "w-{t:05d}_{random}.jpg",
    ):
        every = [{"t": t, "seconds": t / 30, "whole": t // 30, "thousandths": t % 30 * 33, "random": t * 7919 % 977} for t in range(90)]
        names, frames = split([name.format(**values) for values in every])
        assert len(set(names)) == 1
        assert frames == [*range(90)]


def test_a_frame_and_its_time_in_clips_of_different_lengths() -> None:
    clips = [(clip, t) for clip in range(5) for t in range(60 + 13 * clip)]
    names, frames = split([f"clip{clip}_{t:04d}_t{t / 30:.3f}.jpg" for clip, t in clips])
    assert len(set(names)) == 5
    assert frames == [t for _, t in clips]


@pytest.mark.parametrize(("clips", "length", "step"), [(50, 16, 1), (100, 16, 1), (30, 12, 1), (50, 16, 5)])
def test_more_clips_than_frames(clips: int, length: int, step: int) -> None:
    names, frames = split([f"clip_{clip:03d}_{step * t:012d}_keypoints" for clip in range(clips) for t in range(length)])
    assert len(set(names)) == clips
    assert frames == [step * t for _ in range(clips) for t in range(length)]


def test_a_time_alone() -> None:
    for name in ("20230105_1112{whole}_{thousandths:03d}.jpg", "{seconds:.3f}_keypoints", "00-{late:02d}-{frame:02d}_keypoints"):
        every = [
            {"seconds": t / 30, "whole": 33 + t // 30, "late": t // 30, "frame": t % 30, "thousandths": round(t % 30 * 1000 / 30)} for t in range(90)
        ]
        names, frames = split([name.format(**values) for values in every])
        assert len(set(names)) == 1
        assert set(map(int, np.diff(frames))) <= {1} | {33, 34}


@pytest.mark.parametrize(("clips", "length"), [(70, 30), (9, 17)])  # no seconds of a minute, and no frames of a second
def test_clips_that_are_no_time(clips: int, length: int) -> None:
    names, frames = split([f"00-{clip:02d}-{t:02d}_keypoints" for clip in range(clips) for t in range(length)])
    assert len(set(names)) == clips
    assert frames == [*range(length)] * clips


def test_a_hash_behind_the_frame() -> None:
    names, frames = split([f"{t:05d}_jpg.rf.{hashlib.md5(str(t).encode()).hexdigest()}.jpg" for t in range(40)])
    assert len(set(names)) == 1
    assert frames == [*range(40)]


@pytest.mark.parametrize("length", [5, 6, 8, 12])
@pytest.mark.parametrize("name", ["{t:05d}_{word}.jpg", "walk_{word}_{t}.png", "{word}-{t:03d}.jpg", "{t}.{word}.jpeg"])
def test_a_short_made_up_word_beside_the_frame(length: int, name: str) -> None:
    words = [hashlib.md5(str(t).encode()).hexdigest()[:length] for t in range(150)]
    names, frames = split([name.format(t=t, word=word) for t, word in enumerate(words)])
    assert len(set(names)) == 1
    assert frames == [*range(150)]


@pytest.mark.parametrize("name", ["frame{t:05d}_left.jpg", "a{t:04d}b.jpg", "{who}_{in_clip:03d}.jpg", "P{clip:02d}x/{in_clip:03d}.jpg"])
def test_words_that_are_not_made_up(name: str) -> None:
    every = [{"t": t, "clip": t // 40, "in_clip": t % 40, "who": ("anna12", "bobby7", "carol3")[t // 40]} for t in range(120)]
    names, frames = split([name.format(**values) for values in every])
    assert len(set(names)) == (3 if "in_clip" in name else 1)
    assert frames == ([*range(40)] * 3 if "in_clip" in name else [*range(120)])


@pytest.mark.parametrize(
    "name", ["{clip:03d}-nm-01-090/{t:06d}.jpg", "c{clip}_{t}_t{seconds:.3f}.jpg", "{clip}_20230105_1112{late:02d}_{part:03d}.jpg"]
)
def test_many_names_are_split_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    every = [{"clip": clip, "t": t, "seconds": t / 30, "late": t // 30, "part": round(t % 30 * 1000 / 30)} for clip in range(1, 9) for t in range(60)]
    names = [name.format(**values) for values in every]
    whole = split(names)
    monkeypatch.setattr(frames, "_AT_ONCE", 7)
    monkeypatch.setattr(frames, "_LOOKED_AT", 240)
    assert split(names) == whole
    parts = pa.chunked_array([names[:5], names[5:200], [], names[200:]])
    found = split_frames(parts)
    assert found is not None
    assert (found[0].to_pylist(), found[1].tolist()) == whole
    assert len(set(whole[0])) == 8


def test_one_name_none_and_no_number() -> None:
    assert split(["walk3_0012.jpg"])[1] == [12]
    assert split([]) == ([], [])
    assert split_frames(["12", "twelve"]) is None
    assert split_frames(["1" * 30]) is None


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=30, unique=True),
    st.from_regex(r"[a-z_]{1,5}(cam[0-9])?[_-]", fullmatch=True),
    st.from_regex(r"([_-][a-z]{1,3}[0-9]{1,3})?\.(jpg|png|mp4)", fullmatch=True),
)
def test_whatever_is_around_it(frames: list[int], before: str, after: str) -> None:
    names, found = split([f"{before}{frame}{after}" for frame in frames])
    assert found == frames
    assert len(set(names)) == 1
