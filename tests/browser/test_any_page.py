"""Pages of any skeleton, of any names, without edges and of two runs, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pages import entry, page_of, stick

from fastst import SkeletonGraph
from fastst.explanation.page.entries import upright

if TYPE_CHECKING:
    from reader import Reader

GRAPH = SkeletonGraph("coco18", 1)
T = 40
NASTY = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
RIGHT, END, PAGE_UP, PAGE_DOWN = "\ue014", "\ue010", "\ue00e", "\ue00f"


def test_names_that_are_markup_stay_text(reader: Reader, written: Callable[[str], Path]):
    entries = [entry(GRAPH, 5, 2, seed, name=f"{NASTY}{seed}", subject=NASTY, attributes={NASTY: f"{NASTY}{seed}"}) for seed in range(3)]
    reader.open(written(page_of(entries, GRAPH, [NASTY, "健康"], run=NASTY, notes=(NASTY,))))
    assert reader.text("name") == f"{NASTY}0"
    reader.drawn()
    assert reader.ask("return document.querySelectorAll('img').length") == 0
    assert reader.ask("return document.title").startswith(NASTY)
    assert reader.complaints == []


@pytest.mark.parametrize(("joints", "frames", "D"), [(1, 1, 3), (60, 7, 2), (1, 3, 2)])
def test_any_skeleton_is_shown(reader: Reader, written: Callable[[str], Path], joints: int, frames: int, D: int):
    graph = stick(joints)
    walk = entry(graph, frames, D)
    reader.open(written(page_of([replace(walk, poses=upright(walk.poses, graph.layout))], graph)), width=390, height=844)
    reader.press(RIGHT, END)
    reader.drawn()
    assert reader.text("at").startswith(f"frame {frames - 1} /")
    assert reader.ask("return document.documentElement.scrollWidth") <= 390
    assert reader.complaints == []


def test_joints_that_were_never_seen_are_not_drawn(reader: Reader, written: Callable[[str], Path]):
    walk = entry(GRAPH, 5, 2)
    walk.poses[:] = np.nan
    reader.open(written(page_of([walk], GRAPH)))
    reader.drawn()
    assert "no kept edge is shown" in reader.text("now")
    assert reader.complaints == []


def test_without_edges_it_says_why(reader: Reader, written: Callable[[str], Path]):
    why = "The graph of this run was not learned."
    reader.open(written(page_of([entry(GRAPH, 5, edges=None)], GRAPH, no_edges=why)))
    assert reader.ask("const at = document.getElementById('no-edges'); return at.hidden ? '' : at.textContent") == why
    assert reader.ask("return document.getElementById('raster').hidden && document.getElementById('importance').hidden")
    assert reader.text("now") == "Frame 0 of 5, says ill."
    assert reader.complaints == []


def test_the_same_walk_stands_beside_as_another_run_has_it(reader: Reader, written: Callable[[str], Path]):
    entries = [entry(GRAPH, T, 2, seed) for seed in range(2)]
    beside = [
        replace(one, said={arm: said[::-1] for arm, said in one.said.items()}, edges=entry(GRAPH, T, 2, 9 + i).edges) for i, one in enumerate(entries)
    ]
    reader.open(written(page_of(entries, GRAPH, beside=beside)), "#walk=walk%200&frame=3")
    reader.drawn()
    assert reader.text("caption").startswith("walk 0, run demo: says ill")
    assert reader.text("caption-beside").startswith("walk 0, run other run: says well")
    assert reader.text("other-name") == "The same walk, run other run"
    assert "which is wrong" in reader.text("other-sentences")
    assert reader.ask("return document.querySelector('#graphs td.says').textContent") == "ill 0.90"
    assert reader.ask("return document.querySelector('#other-graphs td.says').textContent") == "well 0.90"
    same, other = reader.picture("figure"), reader.picture("figure-beside")
    assert same != other
    reader.press(PAGE_DOWN)
    reader.until("return document.getElementById('caption-beside').textContent.startsWith('walk 1, run other run')")
    reader.press(PAGE_UP)
    reader.set("beside", "itself")
    reader.until("return document.getElementById('other-run').hidden")
    reader.until("return document.getElementById('name').textContent === 'walk 0'")
    reader.ask("location.hash = '#walk=walk%200&frame=3'")
    assert reader.text("caption-beside").startswith("walk 0, run demo")
    assert reader.complaints == []


@pytest.mark.parametrize("without", [0, 1])
def test_a_run_without_edges_stands_beside_one_with_edges(reader: Reader, written: Callable[[str], Path], without: int):
    runs = [[entry(GRAPH, 5, **({"edges": None} if number == without else {}))] for number in range(2)]
    reader.open(written(page_of(runs[0], GRAPH, beside=runs[1], no_edges="Not learned.")))
    pictures = []
    for above in ("0", "1"):
        reader.set("above", above)
        pictures.append([reader.picture(figure) for figure in ("figure", "figure-beside")])
    changed = [one != other for one, other in zip(*pictures, strict=True)]
    assert changed == [without != 0, without != 1]
    assert "Not learned." in reader.text("other-quote")
    assert reader.complaints == []
