"""Names out of files: what can't be seen in them never reaches a terminal, a table, a picture or a path, and all scripts do."""

from __future__ import annotations

import csv
import json
import re
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastst import audit, convert, evaluate, predict, train
from fastst.data.labels import read_labels
from fastst.data.read import read_walks
from fastst.data.splits import read_split
from fastst.errors import UserError, run_command, visible
from fastst.layouts import get_layout
from fastst.runs.opened import open_run

TINY = ["--epochs", "1", "--frames", "4", "--hidden", "4", "--heads", "2", "--layers", "1", "--encoder-layers", "0", "--device", "cpu"]
# Clears the screen and sets the title of the window; C1's beginning of a sequence; turns letters round; ends a line; is not to be seen.
HOSTILE = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202ecba\n\r\t\u200b\u2028z"
HARMLESS = ["健康", "مريض", "स्वस्थ", "😀 👩‍👩‍👧", "Zoë", "کتاب‌ها"]


@pytest.mark.parametrize("name", HARMLESS)
def test_names_of_all_scripts_stay(name: str):
    assert visible(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred", "<U+001B>[31mred"),
        ("two\r\nlines", "two<U+000D><U+000A>lines"),
        ("\x9b31m", "<U+009B>31m"),
        ("\u202egpj.exe", "<U+202E>gpj.exe"),
        ("\u2066a\u2069", "<U+2066>a<U+2069>"),
        ("a\u200bb", "a<U+200B>b"),
        ("a\u200db", "a<U+200D>b"),
        ("😀\u200d", "😀<U+200D>"),
        ("😀\u200d\u200d😀", "😀<U+200D><U+200D>😀"),
        ("\ufeffa", "<U+FEFF>a"),
        ("a\udcffb", "a<U+DCFF>b"),
        ("a\0b", "a<U+0000>b"),
    ],
)
def test_of_what_can_t_be_seen_the_code_is_shown(name: str, shown: str):
    assert visible(name) == shown
    assert visible(shown) == shown
    assert str(UserError(f"{name}: no")) == f"{shown}: no"


def is_clean(text: str) -> bool:
    """Nothing in it but lines and what can be seen."""
    return all(
        character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d"
        for character in text
    )


def save(path: Path, **changes: Any) -> Path:
    who = np.repeat(np.arange(6), 2)
    arrays = {
        "poses": np.random.default_rng(0).normal(size=(8 * len(who), 4, 2)).astype(np.float32),
        "lengths": np.full(len(who), 8),
        "subject": np.array([f"{HOSTILE}{person}" for person in who]),
        "name": np.array([f"{HOSTILE}/../walk {walk}" for walk in range(len(who))]),
        "label": np.where(who % 2, "健康 😀", f"[/ill] :x: {HOSTILE}"),
        "joints": np.array(["hips", "left_knee", "right_knee", f"head {HOSTILE}"]),
        "bones": np.array([[0, 1], [0, 2], [0, 3]]),
        f"site {HOSTILE}": np.array([HOSTILE] * len(who)),
    }
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a command prints on both of its outputs."""

    def run(module: Any, *arguments: Any) -> str:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        capsys.readouterr()
        try:
            run_command(module.main)
        except SystemExit as ended:
            assert ended.code == 2, capsys.readouterr()  # noqa: PT017 - not about the exception
        return "".join(capsys.readouterr())

    return run


def test_hostile_names_from_the_file_to_the_results(tmp_path: Path, said: Any):
    data, run = save(tmp_path / "walks.npz"), tmp_path / "run"
    output = said(train, "--data", data, "--out", run, *TINY)
    assert "everything is in" in output
    assert "note: names in 12 recording(s) have characters that can't be seen, for which their codes stand from here on" in output
    assert "健康 😀 (3 people)" in output
    walk = visible(f"{HOSTILE}/../walk 0")
    printed = [
        output,
        said(evaluate, "--run", run, "--data", data, "--out", tmp_path / "out.csv", "--by", visible(f"site {HOSTILE}")),
        said(predict, "--run", run, "--data", data, "--out", tmp_path / "out.json", "--edges", tmp_path / "edges.csv"),
        said(audit, "--run", run, "--walk", walk),
        said(audit, "--run", run, "--walk", "no such"),
        said(convert, data, "--preview", "--picture", tmp_path / "walks.svg"),
        said(evaluate, "--run", run, "--data", save(tmp_path / "other.npz", label=np.array([f"third {HOSTILE}"] * 12))),
    ]
    for text in printed:
        assert is_clean(text)
    assert all("<U+001B>[2J" in text for text in printed if "the picture is in" not in text)
    for path in (run / "predictions.csv", tmp_path / "out.csv", tmp_path / "edges.csv"):
        assert is_clean(path.read_text(encoding="utf-8"))
    assert {row["walk"] for row in csv.DictReader((run / "predictions.csv").open(encoding="utf-8", newline=""))} < {
        visible(f"{HOSTILE}/../walk {number}") for number in range(12)
    }
    assert all(is_clean(row["walk"]) for row in json.loads((tmp_path / "out.json").read_text(encoding="utf-8")))
    assert is_clean((tmp_path / "walks.svg").read_text(encoding="utf-8"))
    ElementTree.parse(tmp_path / "walks.svg")
    assert "[/ill] :x: a<U+001B>" in printed[0]
    assert "\\" not in "".join(printed)  # as they are, and no marks of a library's
    # Nothing of a name was taken for a place.
    [picture] = set(run.glob("walk_*.png")) - {run / "walk_with_kept_edges.png"}
    assert re.fullmatch(r"walk_[\w.-]+\.png", picture.name)
    assert {path.name for path in tmp_path.iterdir()} == {"walks.npz", "other.npz", "run", "out.csv", "out.json", "edges.csv", "walks.svg"}
    model = open_run(run)
    assert model.class_names == [visible(f"[/ill] :x: {HOSTILE}"), "健康 😀"]
    assert model.model.graph.layout.joints[3] == visible(f"head {HOSTILE}")


def test_of_names_that_stay_nothing_is_said(tmp_path: Path):
    names = np.array([f"😀 👩‍👩‍👧\u00a0{number}" for number in range(12)])
    fields = {"subject": names, "label": names, "name": names, "joints": np.array(["hips", "left_knee", "right_knee", "کتاب‌ها"])}
    save(tmp_path / "walks.npz", **fields)
    with np.load(tmp_path / "walks.npz") as arrays:
        np.savez(tmp_path / "walks.npz", **{name: arrays[name] for name in arrays if not name.startswith("site")})
    walks = read_walks(tmp_path / "walks.npz", progress=False)
    assert walks.names == names.tolist()
    assert not any("can't be seen" in note for note in walks.notes)


def test_names_of_files_that_are_not_utf_8(tmp_path: Path):
    content = save(tmp_path / "walks.npz", subject=np.array([f"p{number // 2}" for number in range(12)]), name=np.arange(12)).read_bytes()
    (tmp_path / "walks.npz").unlink()
    for name in (b"caf\xe9.npz", b"caf\xe8.npz", b"esc\x1b[2J.npz", b"bad\x1b\xff.npz"):
        (tmp_path / name.decode(errors="surrogateescape")).write_bytes(content if b"bad" not in name else b"PK")
    walks = read_walks(tmp_path, progress=False)
    assert len(walks) == 36
    assert {path.split("/")[0] for path in walks.paths} == {"caf<U+DCE9>", "caf<U+DCE8>", "esc<U+001B>[2J"}
    [left] = walks.left_out
    assert left.name == "bad<U+001B><U+DCFF>"
    assert left.reason.startswith(f"{tmp_path}/bad<U+001B><U+DCFF>.npz is not a complete .npz file")


def test_names_in_tables_splits_and_layouts(tmp_path: Path):
    text = f'subject,label,split\n"{HOSTILE}1","{HOSTILE}",train\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    labels = read_labels(tmp_path / "labels.csv")
    assert labels.subjects == (visible(f"{HOSTILE}1"),)
    assert labels.attributes == {"label": {visible(f"{HOSTILE}1"): visible(HOSTILE)}}
    (tmp_path / "split.json").write_text(json.dumps({"train": [HOSTILE], "test": ["b"]}))
    assert read_split(tmp_path / "split.json", [visible(HOSTILE), "b"]).train == {visible(HOSTILE)}
    (tmp_path / "layout.json").write_text(json.dumps({"name": HOSTILE, "joints": [HOSTILE, "b"], "bones": [[HOSTILE, "b"]]}))
    layout = get_layout(str(tmp_path / "layout.json"))
    assert (layout.name, layout.joints, layout.bones) == (visible(HOSTILE), (visible(HOSTILE), "b"), ((0, 1),))
