"""Grids: what they ask for, the addresses of their runs, their folder, and what can't be one."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from study import TINY, asked, paper_grid

from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.study.asked import asked_grid
from fastst.study.grid import open_grid


def test_the_paper_has_81_runs():
    configs = [cell.config for cell in asked(words=[], preset="paper", recipe="paper").cells(Path("out"))]
    assert len(configs) == 81
    assert sum(config.graph == "random" for config in configs) == 9
    assert {(c.layers, c.hops) for c in configs if c.graph == "random"} == {(16, 1)}
    assert {c.drop for c in configs if c.graph == "random"} == {0.25, 0.5, 0.75}
    for graph in ("fixed", "learned"):
        of = {(c.layers, c.hops, c.seed) for c in configs if c.graph == graph}
        assert of == {(L, k, s) for L in (2, 4, 8, 16) for k in (1, 2, 3) for s in (0, 1, 2)}
    paper = TrainConfig.with_recipe("paper")
    for config in configs:
        back = dataclasses.replace(config, **{name: getattr(paper, name) for name in ("graph", "drop", "layers", "hops", "seed", "out")})
        assert back == paper  # to the letter
    assert [config.seed for config in configs] == sorted(config.seed for config in configs)


def test_axes_take_the_place_of_a_presets_and_come_beside_them():
    assert len(asked("seed=0", words=[], preset="small").cells(Path())) == 27
    both = asked("information=0,0.3", words=[], preset="small")
    assert len(both.cells(Path())) == 162
    assert asked_grid(None, None, (), None, ["--epochs", "3"], "program") == asked(words=["--epochs", "3"], preset="small")
    assert asked_grid(None, None, (), None, [], "program") is None


def test_values_are_of_the_kind_that_the_option_is():
    grid = asked("graph=fixed,learned", "mirror=true,false", "tau=1,2.5", 'planted=["left_knee"],[]', "batch-size=4", words=[])
    block = {"graph": ("fixed", "learned"), "mirror": (True, False), "tau": (1.0, 2.5), "planted": (("left_knee",), ()), "batch_size": (4,)}
    assert grid.blocks == (block,)


def test_a_file_says_the_same_as_the_command_line(tmp_path: Path):
    file = tmp_path / "grid.toml"
    file.write_text('[options]\nepochs = 3\n[[axes]]\ngraph = ["fixed"]\nhops = [1, 2]\n[[axes]]\ngraph = ["random"]\ndrop = [0.25]\n')
    grid = asked(words=["--people", "12"], file=file)
    assert grid.options == {"epochs": 3, "people": 12, "recipe": "default"}
    assert [(c.config.graph, c.config.hops) for c in grid.cells(tmp_path)] == [("fixed", 1), ("fixed", 2), ("random", 1)]
    file.write_text('preset = "small"\n[axes]\nseed = [7]\n')
    assert asked(words=[], file=file) == asked("seed=7", words=[], preset="small")


def test_an_axis_of_recipes_has_the_options_of_each():
    cells = asked("recipe=default,paper", words=["--epochs", "3"]).cells(Path())
    assert [(c.config.recipe, c.config.noise, c.config.epochs) for c in cells] == [("default", "logistic", 3), ("paper", "gumbel", 3)]


def test_a_run_has_one_address_whatever_grid_asks_for_it(tmp_path: Path):
    wide, narrow = asked("graph=fixed,learned", "seed=0,1"), asked("seed=1", "graph=learned")
    addresses = {cell.address for cell in wide.cells(tmp_path)}
    assert {cell.address for cell in narrow.cells(tmp_path / "elsewhere")} < addresses
    assert len(addresses) == 4
    # What random graphs drop is no option of the others.
    assert len(asked("graph=fixed,random", "drop=0.25,0.5").cells(tmp_path)) == 3


def test_an_address_changes_with_the_version_and_what_is_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = [tmp_path / name / "labels.csv" for name in ("one", "two")]
    for path, label in zip(labels, "ab", strict=True):
        path.parent.mkdir()
        path.write_text(f"subject,label\n000,{label}\n")
    first, second = (asked("seed=0", words=[*TINY, "--labels", str(path)]).cells(tmp_path)[0] for path in labels)
    assert first.address != second.address
    (tmp_path / "two/labels.csv").rename(tmp_path / "kept.csv")
    monkeypatch.setattr("fastst.study.grid.__version__", "0.0.1")
    assert asked("seed=0", words=[*TINY, "--labels", str(labels[0])]).cells(tmp_path)[0].address != first.address


def test_a_grid_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grid = asked("seed=0,1", "planted=" + '["left_knee"]')
    begun, cells = open_grid(tmp_path / "study", grid)
    for again in (grid, None):
        saved, same = open_grid(tmp_path / "study", again)
        assert saved == begun
        assert [cell.address for cell in same] == [cell.address for cell in cells]
    monkeypatch.chdir(tmp_path)  # and from another folder
    assert [cell.address for cell in open_grid(Path("study"), None)[1]] == [cell.address for cell in cells]


@pytest.mark.parametrize(
    ("axes", "words", "message"),
    [
        (["layer=2,4"], TINY, r"the axis 'layer' is no option of a run of fastst\.train; is it 'layers'\?"),
        (["out=a,b"], TINY, r"the axis 'out' is no option of a run"),
        (["hops="], TINY, r"the axis 'hops' has no values: the grid is empty"),
        (["layers"], TINY, r"--axes layers must be an option and its values, such as layers=2,4"),
        (["layers=2,many"], TINY, r"layers can't be '2'; it is a whole number"),
        (["layers=2.5"], TINY, r"layers can't be 2\.5; it is a whole number"),
        (["mirror=1"], TINY, r"mirror can't be 1; it is true or false"),
        (["graph=learnt"], TINY, r"graph can't be 'learnt'; it is one of fixed, random, learned"),
        (["epochs=2,3"], TINY, r"epochs is an axis and an option; leave one of them out"),
        (["hidden=9"], [], r"the run with hidden 9 can't be: --heads must divide --hidden = 9, got 4"),
    ],
)
def test_what_cant_be_asked_for(axes: list[str], words: list[str], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        asked(*axes, words=words).cells(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes = 3", r"options and axes are tables"),
        ("[axis]\nlayers = [2]", r"'axis' is not known; there are preset, options, axes"),
        ("[axes]\nlayers = 2", r"the axis 'layers' must have a list of values, got 2"),
        ("[axes]\nlayers = []", r"the grid is empty"),
        ("[options]\nlayer = 2", r"'layer' is no option"),
        ('preset = "tiny"', r"the preset must be one of paper, small, got 'tiny'"),
        ("axes = ", r"is no TOML"),
        ('[options]\nrecipe = "own"', r"recipe can't be 'own'|--recipe must be one of default, paper, got 'own'"),
    ],
)
def test_files_that_are_no_grid(text: str, message: str, tmp_path: Path):
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        asked(words=[], file=tmp_path / "grid.toml")
    with pytest.raises(UserError, match=r"nowhere\.toml can't be read: No such file"):
        asked(file=tmp_path / "nowhere.toml")


@pytest.mark.skipif(os.name != "posix", reason="pipes are files on POSIX systems alone")
def test_a_file_that_never_ends_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for file, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=rf"{file} is {kind}, and no regular file"):
            asked(file=file)
    (tmp_path / "deep.toml").write_text("axes = " + "[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.toml can't be read: its lists are nested too deep"):
        asked(file=tmp_path / "deep.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": [5]}, r"grid\.json is not the manifest of a grid as fastst\.experiments writes it \(AttributeError: "),
        ({"axes": [{"seed": 5}]}, r"grid\.json is not the manifest of a grid as"),
        ({"axes": 5}, r"grid\.json is not the manifest of a grid as"),
        ({"options": {"layers": "x"}}, r"grid\.json is not the manifest of a grid as"),
        ({"options": {"layers": None}}, r"grid\.json is not the manifest of a grid as"),
        ({"options": {"layer": 3}}, r"grid\.json is not the manifest of a grid as"),
        ({"options": [5]}, r"grid\.json is not the manifest of a grid as"),
        ({"options": {"recipe": "own"}}, r"recipe|grid\.json"),
        ({"data": [5]}, r"grid\.json is not the manifest of a grid as"),
        ({"cells": 5}, r"don't go together; it was changed by hand"),
        ({"fastst": 5}, r"is a grid of fastst 5, and this is"),
        ({"more": 5}, r"is not the manifest of a grid of fastst\.experiments; bring it back from a copy, or name another --out"),
    ],
)
def test_manifests_that_were_changed(change: dict, message: str, tmp_path: Path):
    grid = asked("seed=0")
    open_grid(tmp_path / "study", grid)
    manifest = tmp_path / "study/grid.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    for again in (None, grid):
        with pytest.raises(UserError, match=message if again is None else "grid"):
            open_grid(tmp_path / "study", again)


def test_folders_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grid = asked("seed=0")
    with pytest.raises(UserError, match=r"empty holds no grid of fastst\.experiments \(no grid\.json\)"):
        open_grid(tmp_path / "empty", None)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"taken exists and holds no grid of fastst\.experiments; name a new folder"):
        open_grid(tmp_path / "taken", grid)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["letter.txt"]
    (tmp_path / "taken/grid.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match=r"grid\.json is not the manifest of a grid"):
        open_grid(tmp_path / "taken", grid)
    study = tmp_path / "study"
    open_grid(study, grid)
    with pytest.raises(UserError, match=r"study holds another grid: its axes are seed \[0\], and seed \[0, 1\] was asked for"):
        open_grid(study, asked("seed=0,1"))
    with pytest.raises(UserError, match=r"study holds another grid: epochs is 3 there, 24 was asked for"):
        open_grid(study, asked("seed=0", words=TINY[:-1]))
    monkeypatch.setattr("fastst.study.grid.__version__", "0.0.9")
    with pytest.raises(UserError, match=r"study is a grid of fastst 0\.1\.0, and this is 0\.0\.9: their numbers must not be mixed"):
        open_grid(study, None)


def test_data_that_changed(tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("subject,label\n000,a\n")
    grid = asked("seed=0", words=[*TINY, "--labels", str(labels)])
    open_grid(tmp_path / "study", grid)
    manifest = tmp_path / "study/grid.json"
    told = json.loads(manifest.read_text())
    assert list(told["data"]) == [str(labels)]
    manifest.write_text(json.dumps(told | {"data": {str(labels): "0" * 64}}))
    with pytest.raises(UserError, match=r"labels\.csv has changed or gone since the grid in .*study was begun: bring it back"):
        open_grid(tmp_path / "study", None)
    manifest.write_text(json.dumps(told))
    labels.unlink()
    with pytest.raises(UserError, match=r"labels\.csv has changed or gone since"):
        open_grid(tmp_path / "study", None)


def test_the_small_preset_is_the_papers_grid(tmp_path: Path):
    _, cells = paper_grid(tmp_path)
    assert len(cells) == len({cell.folder for cell in cells}) == 81
    assert all(cell.folder == tmp_path / "cells" / cell.address for cell in cells)
