"""Texts that people have instead of the pose CSV: other dialects, names and columns; YOLO's label files; tables that are no poses."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastst.data.read import read_recordings
from fastst.data.recording import Recording
from fastst.layouts import LAYOUTS

COCO = LAYOUTS["coco17"].joints


def read(path: Path) -> list[Recording]:
    recordings, left_out = read_recordings(path, progress=False)
    assert left_out == []
    return recordings


def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], separator: str = ",", encoding: str = "utf-8") -> Path:
    lines = [separator.join(map(str, row)) for row in (header, *rows)]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def poses(frames: int, joints: int = 17, axes: int = 2, seed: int = 0) -> np.ndarray:
    """Random places.  # [frames, joints, axes] float32"""
    return np.random.default_rng(seed).uniform(1, 300, (frames, joints, axes)).round(3).astype(np.float32)


def header(joints: Sequence[str] = COCO, kinds: Sequence[str] = ("x", "y"), style: str = "{joint}_{kind}") -> list[str]:
    return [style.format(joint=joint, kind=kind) for joint in joints for kind in kinds]


def table_of_walk(path: Path, walk: np.ndarray, names: Sequence[str], before: Sequence[str] = ("frame",), columns: Callable = lambda t: [t]) -> Path:
    return write(path, [*before, *names], [[*columns(t), *frame.ravel()] for t, frame in enumerate(walk)])


# --- any dialect --------------------------------------------------------------------------------------------------------------------------------------

STYLES = [
    "{joint}_{kind}",
    "{joint}.{kind}",
    "{kind}_{joint}",
    "{joint} {kind}",
    "{camel}{KIND}",
    "{camel}_{kind}",
    "{short}_{kind}",
    "{tight}_{kind}",
    "{UPPER}_{KIND}",
]
CONFIDENCES = ["conf", "score", "confidence", "visibility", "likelihood", "c", "p"]


def styled(style: str, joint: str, kind: str) -> str:
    side, _, part = joint.partition("_")
    has_side = side in ("left", "right")
    short = side[0] + part.title() if has_side else joint.title()
    tight = side[0] + part if has_side else joint
    return style.format(
        joint=joint,
        kind=kind,
        KIND=kind.upper(),
        UPPER=joint.upper(),
        camel=joint.title().replace("_", ""),
        short=short.replace("_", ""),
        tight=tight.replace("_", ""),
    )


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_walks_in_a_random_dialect_read_back(tmp_path: Path, data: st.DataObject) -> None:
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    layout = LAYOUTS[pick("coco17", "openpose25", "ntu25")]
    separator = pick(",", ";", "\t")
    decimal = "." if separator == "," else pick(".", ",")
    axes = pick(("x", "y"), ("x", "y", "z"))
    confidence = pick(None, *CONFIDENCES)
    style, missing = pick(*STYLES), pick("", "NA", "NaN", "nan", "null", "None")
    lengths = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    walks = {
        f"{number + 1:03d}-nm-01-090": rng.normal(0, 100, (length, layout.num_joints, len(axes))).astype(np.float32)
        for number, length in enumerate(lengths)
    }
    for walk in walks.values():
        walk[rng.random(walk.shape[:2]) < 0.2] = np.nan

    told = pick("folder", "name", "windows", "camera", "frame and walk", "subject and walk")
    columns: dict[str, Callable[[str, int, np.ndarray], str]] = {
        "folder": {"image_name": lambda name, t, _: f"a/b/{name}/{t:06d}.jpg"},
        "name": {"image_name": lambda name, t, _: f"{name}_{t:04d}.png"},
        "windows": {"img_path": lambda name, t, _: f"C:\\data\\{name}\\{t}.jpg"},
        "camera": {"file": lambda name, t, _: f"{name}/frame{t:05d}_cam2.jpg"},
        "frame and walk": {"Frame": lambda name, t, _: str(t), "video": lambda name, t, _: name},
        "subject and walk": {"walk": lambda name, t, _: "w" + name[:3], "frame_id": lambda name, t, _: f"{t}.0", "subject": lambda name, t, _: name},
    }[told]  # type: ignore[assignment]

    def number(value: float) -> str:
        return missing if np.isnan(value) else f"{value:.9g}".replace(".", decimal)

    for joint in range(layout.num_joints):
        for axis, kind in enumerate(axes):
            columns[styled(style, layout.joints[joint], kind)] = lambda _, t, walk, joint=joint, axis=axis: number(walk[t, joint, axis])
        if confidence:
            columns[styled(style, layout.joints[joint], confidence)] = lambda _, t, walk: number(0.5)
    for further in data.draw(st.sets(st.sampled_from(["", "Unnamed: 0", "note", "timestamp", "bbox_x1"]))):
        columns[further] = lambda _, t, walk: number(t + 0.25)
    order = data.draw(st.permutations(list(columns)))
    rows = [[columns[column](name, t, walk) for column in order] for name, walk in walks.items() for t in range(len(walk))]
    text = io.StringIO(newline="")
    ends = pick("\n", "\r\n")
    writer = csv.writer(text, delimiter=separator, quoting=pick(csv.QUOTE_MINIMAL, csv.QUOTE_ALL), lineterminator=ends)
    writer.writerows([order, *data.draw(st.permutations(rows))])
    path = tmp_path / "walks.csv"
    path.write_bytes(text.getvalue().encode(pick("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")))

    found = {next(part for part in (*r.places, r.attributes.get("subject", "")) if part in walks): r for r in read(path)}
    assert sorted(found) == sorted(walks)
    for name, walk in walks.items():
        detections = found[name].detections
        assert found[name].layout is layout
        assert detections.frames.tolist() == list(range(len(walk)))
        np.testing.assert_array_equal(detections.joints, walk)
        assert (detections.confidences is None) == (confidence is None)
