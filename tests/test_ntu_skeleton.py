"""NTU RGB+D's .skeleton files: bodies, joints and what is wrong at which line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.formats import ntu_skeleton
from fastst.data.read import read_recordings, read_walks
from fastst.data.recording import Recording
from fastst.data.walks import DataError
from fastst.layouts import LAYOUTS

# Body ids differ in their last digits, which float64 can't tell apart.
FIRST, SECOND = 72057594037931691, 72057594037931692


def lines_of(bodies: Sequence[Sequence[tuple[int, np.ndarray]]]) -> list[str]:
    """The lines of a file: of every frame its bodies, each an id and x, y, z and state of 25 joints [25, 4]."""
    lines = [str(len(bodies))]
    for frame in bodies:
        lines.append(str(len(frame)))
        for body, joints in frame:
            lines += [f"{body} 0 1 1 0 0 0 0.02 -0.2 2", "25"]
            lines += [f"{x:.7g} {y:.7g} {z:.7g} 280.5 190.1 1000 520 -0.2 0.03 0.9 -0.02 {state:.0f}" for x, y, z, state in joints]
    return lines


def joints(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(25, 3)), np.full((25, 1), 2)], axis=1)


def save(folder: Path, lines: Sequence[str], end: str = "\n", name: str = "S001C002P003R001A044.skeleton") -> Path:
    path = folder / name
    path.write_bytes((end.join(lines) + end).encode("latin-1"))
    return path


def read(path: Path) -> Recording:
    [recording] = read_recordings(path, progress=False)[0]
    return recording


def test_bodies_frames_and_states(tmp_path: Path) -> None:
    first, second, third = joints(1), joints(2), joints(3)
    second[3, 3], second[7, 3] = 0, 1
    recording = read(save(tmp_path, lines_of([[], [(FIRST, first)], [(SECOND, third), (FIRST, second)], []])))
    assert (recording.layout, recording.fps, recording.places[-1]) == (LAYOUTS["ntu25"], 30.0, "S001C002P003R001A044")
    detections = recording.detections
    assert detections.frames.tolist() == [1, 2, 2]
    assert detections.ids is not None
    assert detections.ids.tolist() == [0, 1, 0]
    np.testing.assert_allclose(detections.joints[:2], np.stack([first, third])[..., :3], rtol=1e-6)
    assert np.argwhere(np.isnan(detections.joints)).tolist() == [[2, 3, 0], [2, 3, 1], [2, 3, 2]]
    assert detections.confidences is not None
    assert (detections.confidences == np.stack([first, third, second])[..., 3] / 2).all()


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\n "])
def test_ends_of_lines(tmp_path: Path, end: str) -> None:
    whole = read(save(tmp_path, lines_of([[(FIRST, joints())]])))
    np.testing.assert_array_equal(read(save(tmp_path, lines_of([[(FIRST, joints())]]), end)).detections.joints, whole.detections.joints)
    path = save(tmp_path, [line.replace(" ", "\t") for line in lines_of([[(FIRST, joints())]])])
    np.testing.assert_allclose(read(path).detections.joints, whole.detections.joints, rtol=1e-6)
    path.write_text("\n".join(lines_of([[(FIRST, joints())]])))
    np.testing.assert_array_equal(read(path).detections.joints, whole.detections.joints)


def test_blocks_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, lines_of([[(FIRST, joints(t))] * (t % 3) for t in range(20)]))
    whole = read(path).detections
    monkeypatch.setattr(ntu_skeleton, "_BLOCK_BYTES", 997)
    monkeypatch.setattr(ntu_skeleton, "_BLOCK_BODIES", 3)
    parts = read(path).detections
    np.testing.assert_array_equal(parts.joints, whole.joints)
    np.testing.assert_array_equal(parts.frames, [t for t in range(20) for _ in range(t % 3)])


def test_nobody(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.skeleton has no (usable walk|detection)"):
        read_walks(save(tmp_path, ["3", "0", "0", "0"]), progress=False)


WHOLE = lines_of([[(FIRST, joints())], [], [(FIRST, joints())]])


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "4", "line 59: the file ends here, expected the number of bodies in frame 3; was it copied to the end"),
        (1, "2", "line 31 is '1', expected the end of the file, whose first line says that it has 2 frames"),
        (31, "x", "line 31 is 'x', expected the number of bodies in frame 2"),
        (31, "9" * 5000, "line 31 is '9{80}', expected the number of bodies"),
        (31, "-1", "line 31 is '-1'"),
        (31, "", "line 31 is '', expected the number of bodies"),
        (32, "1 2 3", "line 32 is '1 2 3', expected the 10 numbers of a body in frame 2"),
        (33, "20", "line 33 is '20', expected the 25 joints of NTU RGB.D"),
        (36, "1 2 3", "line 36 is '1 2 3', expected the 12 numbers of the joint neck"),
        (36, " ".join(["x"] * 12), "line 36 is 'x x .*', expected the 12 numbers of the joint neck"),
        (36, "é\x07", "line 36 is .*, expected the 12 numbers of the joint neck"),
        (59, "1", "line 59 is '1', expected the end of the file"),
    ],
)
def test_the_line_that_is_wrong(tmp_path: Path, line: int, text: str, message: str) -> None:
    lines = [*WHOLE, ""]
    lines[line - 1] = text
    path = save(tmp_path, lines)
    with pytest.raises(DataError, match=message) as caught:
        read_walks(path, progress=False)
    assert str(path) in str(caught.value)


def test_numbers_that_are_none_are_handed_over(tmp_path: Path) -> None:
    odd = joints()
    odd[2, 0], odd[3, 1] = np.nan, np.inf
    detections = read(save(tmp_path, lines_of([[(FIRST, odd)]]))).detections
    np.testing.assert_array_equal(np.isfinite(detections.joints[0]), np.isfinite(odd[:, :3]))


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mapped file the system would end the process."""
    path = save(tmp_path, lines_of([[(FIRST, joints(frame))] for frame in range(20)]))

    def cut_off(path: Path, lines: ntu_skeleton._Lines):
        found = bodies(path, lines)
        os.truncate(path, path.stat().st_size // 2)
        return found

    bodies = ntu_skeleton._bodies
    monkeypatch.setattr(ntu_skeleton, "_bodies", cut_off)
    with pytest.raises(DataError, match=r"S001C002P003R001A044\.skeleton was cut off while it was read"):
        read_walks(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 10_000))
def test_files_cut_off(tmp_path: Path, cut: int) -> None:
    """Wherever it is cut, it is refused: with its line, or as of no form if next to nothing is left. (But in the last number one can't tell.)"""
    whole = ("\n".join(WHOLE)).encode()
    path = tmp_path / "a.skeleton"
    path.write_bytes(whole[: cut % (len(whole) - 1) + 1])
    if cut % (len(whole) - 1) + 1 == len(whole):
        return
    with pytest.raises(DataError, match=r"a\.skeleton(, line \d+|.*no form that can be read)"):
        read_walks(path, progress=False)


def test_one_bad_file_never_loses_the_others(tmp_path: Path) -> None:
    save(tmp_path, WHOLE, name="good.skeleton")
    save(tmp_path, WHOLE[:40], name="cut.skeleton")
    save(tmp_path, ["image_name,a", "b"], name="mixed.skeleton")
    (tmp_path / "empty.skeleton").write_bytes(b"")
    walks = read_walks(tmp_path, progress=False)
    assert walks.names == ["good"]
    assert sorted(left.name for left in walks.left_out) == ["cut", "empty", "mixed"]


def test_other_texts_are_not_taken_for_it() -> None:
    for text in ("0 0.5 0.5 0.2 0.3\n", "a\n", "12\n13\n14\n", "image_name,nose_x\n", "1 0\n25\n"):
        assert not ntu_skeleton.FORM.recognises(text), text
