"""fastst.convert: what is written reads back the same, nothing is replaced, and what is said of the data is so."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastst import convert
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.read import read_walks
from fastst.data.synthetic import synthetic_walks
from fastst.data.walks import WalkSet, Whose
from fastst.errors import UserError
from fastst.explanation import preview
from fastst.layouts import LAYOUTS
from fastst.runs.lock import owned


def walkers(dimensions: int = 2) -> WalkSet:
    """Three walks of two people as they are recorded: in pixels or metres, with joints that were not seen."""
    made = synthetic_walks(2, 2, seed=3).take([0, 1, 2])
    rng = np.random.default_rng(0)
    poses = []
    for pose in made.poses:
        recorded = (
            pose[:, :17].astype(np.float32) if dimensions == 2 else np.concatenate([-pose[:, :17] / 100, rng.normal(size=(len(pose), 17, 1))], axis=2)
        )
        recorded[rng.random(recorded.shape[:2]) < 0.1] = np.nan
        recorded[:2] = np.nan
        recorded[5, 4] = np.nan
        poses.append(recorded.astype(np.float32))
    layout = LAYOUTS["coco17" if dimensions == 2 else "h36m17"]
    return WalkSet(layout, made.names, made.subjects, poses, {"label": ["ill", "well", "ill"]})


def pose_csv(folder: Path, walks: WalkSet) -> None:
    lines = [",".join(["image_name", *(f"{joint}_{what}" for joint in walks.layout.joints for what in ("x", "y", "conf"))])]
    for name, poses in zip(walks.names, walks.poses, strict=True):
        for t, frame in enumerate(np.nan_to_num(poses)):
            lines.append(",".join([f"frames/{name}/{t:06d}.jpg", *(f"{x:.3f},{y:.3f},{float(x != 0)}" for x, y in frame)]))
    (folder / "walks.csv").write_text("\n".join(lines) + "\n")


def alphapose(folder: Path, walks: WalkSet) -> None:
    for name, poses in zip(walks.names, walks.poses, strict=True):
        detections = [
            {"image_id": f"{t}.jpg", "keypoints": [number for x, y in frame.tolist() for number in (x, y, float(x != 0))], "score": 2.0}
            for t, frame in enumerate(np.nan_to_num(poses))
            if frame.any()
        ]
        (folder / f"{name}.json").write_text(json.dumps(detections))


def npz(folder: Path, walks: WalkSet) -> None:
    walks.fps = [25.0, None, 12.5]
    write_walks_npz(folder / "some.npz", walks)


def pyskl(folder: Path, walks: WalkSet) -> None:
    clips = [
        {"frame_dir": name, "label": number, "total_frames": len(poses), "keypoint": np.nan_to_num(poses)[None], "img_shape": (240, 320)}
        for number, (name, poses) in enumerate(zip(walks.names, walks.poses, strict=True))
    ]
    (folder / "some.pkl").write_bytes(pickle.dumps({"split": {"train": walks.names[:2]}, "annotations": clips}))


def opengait(folder: Path, walks: WalkSet) -> None:
    for name, poses in zip(walks.names, walks.poses, strict=True):
        subject, condition, sequence, view = name.split("-")
        place = folder / subject / f"{condition}-{sequence}" / view
        place.mkdir(parents=True)
        scores = ~np.isnan(poses).any(2, keepdims=True)
        (place / f"{view}.pkl").write_bytes(pickle.dumps(np.concatenate([np.nan_to_num(poses), scores], axis=2)))


def ntu(folder: Path, walks: WalkSet) -> None:
    for number in (1, 2):
        lines = ["4"]
        for t in range(4):
            lines += ["1", "72057594037931691 0 1 1 0 0 0 0.02 -0.2 2", "25"]
            lines += [f"{j * 0.1} {1 - j * 0.05} {t * 0.2 + 3} 280 190 1000 520 -0.2 0.03 0.9 -0.02 {2 * (j != 4)}" for j in range(25)]
        (folder / f"S001C001P00{number}R001A001.skeleton").write_text("\n".join(lines) + "\n")


FORMS = [pose_csv, alphapose, npz, pyskl, opengait, ntu]


@pytest.mark.parametrize("ending", [".npz", ".pkl"])
@pytest.mark.parametrize("make", FORMS)
def test_what_is_written_reads_back(tmp_path: Path, make: Callable[[Path, WalkSet], None], ending: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make(data, walkers())
    out = tmp_path / f"out{ending}"
    convert.main([str(data), "--out", str(out)])
    before, after = read_walks(data, progress=False), read_walks(out, progress=False)
    assert len(before) == (2 if make is ntu else 3)
    assert (after.names, after.subjects, after.layout, after.fps) == (before.names, before.subjects, before.layout, before.fps)
    columns = [{column: values for column, values in walks.attributes.items() if any(values)} for walks in (before, after)]
    assert columns[0] == columns[1]
    for expected, found in zip(before.poses, after.poses, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert after.left_out == []
    before_that = out.read_bytes()
    with pytest.raises(UserError, match=r"is there already, and no file is replaced; give another name"):
        convert.main([str(data), "--out", str(out)])
    assert out.read_bytes() == before_that


def test_options_of_reading_are_heard(tmp_path: Path) -> None:
    npz(tmp_path, walkers())
    convert.main(
        [str(tmp_path / "some.npz"), "--out", str(tmp_path / "out.pkl"), "--drop-joints", "left_ear", "--name-pattern", "(?P<subject>[0-9]+)$"]
    )
    walks = read_walks(tmp_path / "out.pkl", progress=False)
    assert "left_ear" not in walks.layout.joints
    assert walks.subjects == [name.rsplit("-", 1)[1] for name in walks.names]


def test_the_size_of_the_image_is_written(tmp_path: Path) -> None:
    npz(tmp_path, walkers())
    convert.main([str(tmp_path / "some.npz"), "--out", str(tmp_path / "out.pkl"), "--image-size", "320", "240"])
    assert pickle.loads((tmp_path / "out.pkl").read_bytes())["annotations"][0]["img_shape"] == (240, 320)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --out FILE.npz or --out FILE.pkl"),
        (["--out", "new.csv"], r"new\.csv must end in one of \.npz, \.pkl, \.pickle"),
        (["--out", "data/some.npz"], "is there already"),
        (["--out", "data/new.npz"], "would lie among the data in data"),
        (["--out", "nowhere/new.npz"], r"--out nowhere/new\.npz: there is no folder nowhere; make it"),
        (["--out", "nowhere/new.pkl"], r"--out nowhere/new\.pkl: there is no folder nowhere; make it"),
        (["--out", "mine.npz"], r"mine\.left_out\.json is there already, and not a file that fastst wrote; give another name"),
        (["--preview", "--picture", "mine.png"], r"mine\.left_out\.json is there already, and not a file that fastst wrote; give another name"),
        (["--preview", "--picture", "data/new.png"], "would lie among the data in data"),
        (["--preview", "--picture", "some.txt"], r"--picture some\.txt must end in one of \.png"),
        (["--preview", "--picture", "nowhere/a.png"], r"--picture nowhere/a\.png: there is no folder nowhere; make it"),
        (["--out", "new.npz", "--drop-joints", "wing"], "--drop-joints wing"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    npz(Path("data"), walkers())
    Path("mine.left_out.json").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        convert.main(["data", *arguments])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", [["--fps", "25"], ["--scale", "none"]])
def test_options_of_training_are_not_options_here(tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path), "--out", str(tmp_path / "a.npz"), *option])
    assert option[0] in capsys.readouterr().err


def test_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walks = walkers()
    for poses in walks.poses:
        poses[:, 3] = np.nan
    npz(tmp_path, walks)
    convert.main([str(tmp_path / "some.npz"), "--preview"])
    said = capsys.readouterr().out
    frames = sum(len(poses) for poses in walks.poses)
    missing = np.concatenate([np.isnan(poses).any(2) for poses in walks.poses]).mean()
    for words in (
        "walks: 3 of 2 people (1 to 2 each), such as",
        f"frames: {frames}, ",
        "25 a second (1 walks); frame rate not known (1 walks); 12.5 a second (1 walks)",
        "joints: 17 in 2D (coco17): nose, left_eye",
        f"missing: {missing:.1%} of the joint positions, most of left_ear 100.0%",
        "never seen: left_ear (--drop-joints left_ear)",
        "label: ill (2), well (1)",
        "whose walk it is: the file says who walks: 3 walk(s)",
        f"some poses are drawn in {tmp_path / 'some.npz.preview.png'}",
    ):
        assert words in said, words
    assert (tmp_path / "some.npz.preview.png").read_bytes().startswith(b"\x89PNG")


def test_description_of_what_is_not_known() -> None:
    walks = walkers()
    walks.attributes["age"] = [str(i) for i in range(3)]
    walks.whose, walks.notes = Whose(("a way",), ("b", "c")), ["e"]
    said = "\n".join(preview.description(walks))
    for words in (
        "; frame rate not known",
        "whose walk it is: a way",
        "who walks in 2 walk(s), such as b, c: say whose walks they are with --name-pattern",
        "note: e",
        "age: 0 (1), 1 (1)",
    ):
        assert words in said, words


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: (figures.append(figure), save(figure, *args, **options)))
    return figures


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_picture(tmp_path: Path, drawn: list[Figure], dimensions: int, count: int) -> None:
    """Every joint that is seen is named once and none hides another; the small poses are of walks and frames that exist."""
    walks = walkers(dimensions).take(range(count))
    walks.names[0] = "a $name"
    for poses in walks.poses:
        poses[:, 4] = np.nan
    preview.picture(walks, tmp_path / "a.png")
    large, *small = drawn[0].axes
    names = [text for text in large.texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == sorted(set(walks.layout.joints) - {walks.layout.joints[4]})
    assert f"not seen: {walks.layout.joints[4]}" in large.get_title()
    extents = [Text.get_window_extent(text) for text in names]
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
    titles = [re.fullmatch(r"(.*)\nof (.*), frame (\d+)", axes.get_title()) for axes in small]
    assert len({title[0] for title in titles if title}) == 6
    for title in titles:
        assert title is not None
        walk = walks.names.index(title[1])
        assert title[2] == walks.subjects[walk]
        assert int(title[3]) < len(walks.poses[walk])


def test_a_preview_names_glitches() -> None:
    standing = np.random.default_rng(0).uniform(0, 100, (1, 17, 2)).repeat(40, axis=0).astype(np.float32)
    wrong = standing.copy()
    wrong[7, 3] = 1e5
    said = preview.description(WalkSet(LAYOUTS["coco17"], ["a", "b"], ["a", "b"], [standing, wrong]))
    [note] = [line for line in said if line.startswith("note: positions far from the body")]
    assert "1 in 'b' (frame 7, left_ear" in note
    assert "'a'" not in note


def test_what_a_preview_leaves_is_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    npz(data, walkers())
    (data / "cut.json").write_text('[{"image_id": ')
    convert.main([str(data), "--preview", "--picture", str(tmp_path / "a.png")])
    assert "left out: cut" in capsys.readouterr().err
    assert [item["name"] for item in json.loads((tmp_path / "a.left_out.json").read_text())] == ["cut"]
    (tmp_path / "a.png").unlink()
    assert [item.name for item in read_walks(tmp_path, progress=False).left_out] == ["data/cut"]


def test_what_is_written_in_a_run_waits_for_who_writes_there(tmp_path: Path) -> None:
    npz(tmp_path, walkers())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    for option in (["--out", "run/new.npz"], ["--preview", "--picture", "run/new.png"]):
        with owned(tmp_path / "run"), pytest.raises(UserError, match="run is in use"):
            convert.main([str(tmp_path / "some.npz"), *option[:-1], str(tmp_path / option[-1])])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


def test_a_walk_in_3d_is_seen_from_one_side() -> None:
    """The body turns, and is wider along x in two of three frames."""
    turns = np.zeros((3, 2, 3), np.float32)
    turns[:, 1] = [[5, 1, 1], [1, 1, 5], [5, 1, 1]]
    np.testing.assert_array_equal(preview._flat(turns), turns[..., :2])
    np.testing.assert_array_equal(preview._flat(turns[..., ::-1]), turns[..., :2])


def test_long_names(tmp_path: Path, drawn: list[Figure]) -> None:
    walks = walkers()
    walks.names = [f"{i}{'/folder' * 30}/{i}" for i in range(3)]
    preview.picture(walks, tmp_path / "a.png")
    first = drawn[0].axes[1].get_title().split("\n")[0]
    assert (len(first), first[:4], first[-4:]) == (28, "0/fo", "er/0")


def test_picture_of_poses_with_next_to_nothing_seen(tmp_path: Path, drawn: list[Figure]) -> None:
    poses = np.full((1, 17, 2), np.nan, np.float32)
    preview.picture(WalkSet(LAYOUTS["coco17"], ["a"], ["a"], [poses]), tmp_path / "a.svg")
    poses[0, 3] = 5
    preview.picture(WalkSet(LAYOUTS["coco17"], ["a"], ["a"], [poses]), tmp_path / "a.svg")
    assert [[text.get_text() for text in figure.axes[0].texts] for figure in drawn] == [[], ["left_ear"]]
