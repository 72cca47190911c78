"""The page of `fastst.explain` in a real browser: it plays, links, filters, and neither complains nor asks for anything."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pages import Parts, entry, page_of, unpacked

from fastst import SkeletonGraph
from fastst.explanation.page.entries import upright
from fastst.explanation.views import View, seen_from

if TYPE_CHECKING:
    from reader import Reader

GRAPH = SkeletonGraph("coco18", 1)
T = 40
LEFT, RIGHT, HOME, END, UP, DOWN, PAGE_DOWN = "\ue012", "\ue014", "\ue011", "\ue010", "\ue013", "\ue015", "\ue00f"
ENTER, ESCAPE = "\ue007", "\ue00c"


@pytest.fixture(scope="module")
def file(written: Callable[[str], Path]) -> Path:
    """Eight walks of four people and two classes; two of them wrong."""
    entries = [entry(GRAPH, T, 2, seed, cycle=10, nearest=(seed + 1) % 8) for seed in range(8)]
    for wrong in (1, 3, 5, 7):
        flipped = {arm: said[::-1] for arm, said in entries[wrong].said.items()}
        entries[wrong] = replace(entries[wrong], said=flipped if wrong > 3 else entries[wrong].said)
    return written(page_of(entries, GRAPH))


@pytest.fixture(scope="module")
def parts(file: Path) -> Parts:
    return Parts(file.read_text(encoding="utf-8"))


def edges(parts: Parts, walk: int) -> tuple[np.ndarray, np.ndarray]:
    _, probability, kept = unpacked(parts.data["walks"][walk], parts.texts("script", class_="walk")[walk])
    return probability, kept


def frame(reader: Reader) -> int:
    return int(re.match(r"frame (\d+)", reader.text("at"))[1])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_loads_without_a_complaint_or_a_request(reader: Reader, file: Path, theme: str):
    reader.open(file, theme=theme)
    assert reader.text("name") == "walk 0"
    assert "The decision rests on these edges." in reader.text("quote")
    assert reader.text("not")
    assert "which is right" in reader.text("sentences")
    light = reader.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (theme == "light")
    reader.drawn()
    assert reader.complaints == []
    assert reader.requests == [file.as_uri()]


def test_it_shows_the_frame_that_the_file_holds(reader: Reader, file: Path, parts: Parts):
    """Number of kept edges and the likeliest one of a frame, in words, are those of the unpacked data."""
    probability, kept = edges(parts, 2)
    src, dst, offset = parts.data["skeleton"]["slots"]
    joints = parts.data["skeleton"]["joints"]
    reader.open(file, f"#walk=walk%202&frame={17}")
    reader.drawn()
    slot = int(np.where(kept[:, 17], probability[:, 17], -1).argmax())
    when = {0: "", -1: " 1 frame before", 1: " 1 frame later"}[offset[slot]]
    words = f"Frame 17 of {T}, says ill: {kept[:, 17].sum()} kept edges; the likeliest: {joints[src[slot]]}{when} → {joints[dst[slot]]} ("
    assert reader.text("now").startswith(words)
    least = 0.6
    reader.set("above", str(least))
    reader.drawn()
    assert f": {(kept[:, 17] & (probability[:, 17] >= least)).sum()} kept edges" in reader.text("now")
    reader.set("above", "1")
    reader.drawn()
    assert "no kept edge is shown" in reader.text("now") or kept[:, 17][probability[:, 17] == 1].any()


def test_its_numbers_are_those_of_the_file(reader: Reader, file: Path, parts: Parts):
    """The table of graphs, the joints that keep most, and the frame with which it begins."""
    reader.open(file, "#walk=walk%203")
    walk, classes, skeleton = parts.data["walks"][3], parts.data["classes"], parts.data["skeleton"]
    rows = reader.ask("return [...document.querySelectorAll('#graphs tr')].map((row) => [row.cells[0].textContent, row.cells[1].textContent])")
    assert rows == [[graph, f"{classes[says]} {probability:.2f}"] for graph, says, probability, _ in walk["rows"]]
    probability, kept = edges(parts, 3)
    assert frame(reader) == np.where(kept, probability**2, 0).sum(0).argmax()
    src, dst, _ = map(np.array, skeleton["slots"])
    shares = kept.sum(1) / np.isfinite(probability).sum(1)
    sends, receives = ([shares[(side == j) & (src != dst)].mean() for j in range(len(skeleton["joints"]))] for side in (src, dst))
    for side, told in ((sends, reader.text("where")), (receives, "")):
        most = ", ".join(f"{skeleton['joints'][j]} {np.floor(100 * side[j] + 0.5):.0f} %" for j in np.argsort(side)[::-1][:3])
        if told:
            assert told.startswith(f"Of the edges out of a joint it kept most of {most}; of all joints alike {100 * np.mean(side):.0f} %")
        else:
            reader.set("side-of", "receives")
            assert f"(this walk: {most};" in reader.text("joints")


def test_keys_step_and_play(reader: Reader, file: Path):
    reader.open(file, "#walk=walk%200&frame=5")
    for keys, expected in (((RIGHT,), 6), ((LEFT, LEFT), 4), ((END,), T - 1), ((RIGHT,), T - 1), ((HOME,), 0)):
        reader.press(*keys)
        reader.drawn()
        assert frame(reader) == expected
    reader.press(" ")
    reader.until("return document.getElementById('play').textContent === 'Pause' && Number(document.getElementById('frame').value) > 2")
    reader.press(" ")
    reader.drawn()
    stopped = frame(reader)
    reader.drawn()
    assert frame(reader) == stopped
    assert reader.ask("return location.hash") == f"#walk=walk%200&frame={stopped}"


def test_a_gait_cycle_loops(reader: Reader, file: Path):
    reader.open(file, "#walk=walk%200&frame=12")
    reader.set("loop", True)
    reader.set("speed", "20")
    reader.click("play")
    reader.ask(
        "window.seen = []; (function look() { window.seen.push(Number(document.getElementById('frame').value)); requestAnimationFrame(look) })()"
    )
    reader.until("return new Set(window.seen).size > 5 && window.seen.length > 20")
    reader.click("play")
    assert set(reader.ask("return window.seen")) <= set(range(12, 22))


def test_the_list_is_walked_by_keys_and_clicks(reader: Reader, file: Path):
    reader.open(file)
    reader.press(DOWN, on="list")
    reader.until("return document.getElementById('name').textContent === 'walk 1'")
    reader.press(UP, on="list")
    reader.until("return document.getElementById('name').textContent === 'walk 0'")
    reader.press(PAGE_DOWN)
    reader.until("return document.getElementById('name').textContent === 'walk 1'")
    reader.ask("document.querySelector('#walk-6').click()")
    reader.until("return document.getElementById('name').textContent === 'walk 6'")
    assert reader.ask("return document.querySelectorAll('#list [aria-selected=true]').length") == 1
    assert reader.ask("return document.getElementById('list').getAttribute('aria-activedescendant')") == "walk-6"


def test_filters_and_orders(reader: Reader, file: Path, parts: Parts):
    reader.open(file)
    walks = parts.data["walks"]

    def shown() -> list[int]:
        return [int(number) for number in reader.ask("return [...document.querySelectorAll('#list li')].map((row) => row.dataset.walk)")]

    reader.set("wrong", True)
    assert shown() == [i for i, walk in enumerate(walks) if walk["ofClass"] != walk["predicted"]] == [1, 3]
    assert reader.text("count") == "2 of 8"
    reader.set("wrong", False)
    reader.set("of-class", "1")
    assert shown() == [1, 3, 5, 7]
    reader.set("of-class", "")
    reader.set("of-person", "person 2")
    assert shown() == [4, 5]
    reader.set("of-person", "")
    reader.set("find", "PERSON 3")
    assert shown() == [6, 7]
    reader.set("find", "")
    reader.ask("const at = document.querySelector('#attributes select'); at.value = '000'; at.dispatchEvent(new Event('input', {bubbles: true}))")
    assert shown() == [0, 3, 6]
    reader.ask("const at = document.querySelector('#attributes select'); at.value = ''; at.dispatchEvent(new Event('input', {bubbles: true}))")
    reader.set("sort", "own")
    assert shown()[:2] == [1, 3]


def test_a_cell_and_its_edge_show_each_other(reader: Reader, file: Path, parts: Parts):
    """What the pointer is on is told; the rows of joints that keep most come first."""
    probability, kept = edges(parts, 0)
    data = parts.data["skeleton"]
    src, dst, offset = data["slots"]
    rows = rows_of(parts)
    reader.open(file, "#walk=walk%200&frame=20")
    width, height = reader.ask("const at = document.getElementById('raster'); return [at.clientWidth, at.clientHeight]")
    before = reader.picture("figure")
    row = next(i for i, slot in enumerate(rows) if kept[slot, 20] and offset[slot] == 0)
    slot = rows[row]
    x, y = 112 + (20 + 0.5) / T * (width - 112), (row + 0.5) / len(rows) * (height - 18)
    reader.point("raster", x, y)
    told = f"{data['joints'][src[slot]]} → {data['joints'][dst[slot]]}, frame 20: keep probability {probability[slot, 20]:.0%}, kept".replace(
        "%", " %"
    )
    assert reader.text("hovered") == told
    assert reader.picture("figure") != before
    reader.point("raster", x, y, click=True)
    reader.point("name", 5, 5)
    assert reader.text("hovered").startswith(told)
    assert "marked" in reader.text("hovered")
    reader.press("\ue00c")  # Escape
    reader.point("raster", 5, 5)
    assert "Point at" in reader.text("hovered")
    empty = reader.picture("raster")
    found = reader.ask(
        "const at = document.getElementById('figure'), box = at.getBoundingClientRect();"
        "for (let y = 5; y < box.height; y += 4) for (let x = 5; x < box.width; x += 4) {"
        "  at.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x, clientY: box.top + y, bubbles: true}));"
        "  const told = document.getElementById('hovered').textContent;"
        "  if (told.includes(', kept')) return told;"
        "} return ''"
    )
    assert re.fullmatch(r".+ → .+, frame 20: keep probability \d+ %, kept", found)
    assert reader.picture("raster") != empty


def rows_of(parts: Parts) -> list[int]:
    """Slots in the order of the raster's rows."""
    data = parts.data["skeleton"]
    src, dst, offset = data["slots"]
    place = {joint: i for i, joint in enumerate(data["order"])}
    of_classes = [(np.frombuffer(base64.b64decode(mean["kept"]), np.uint8) - 1.0) / 254 for mean in parts.data["means"]]
    kept = np.average(of_classes, axis=0, weights=[mean["walks"] for mean in parts.data["means"]])
    keeps = [round(np.mean([kept[p] for p in range(len(src)) if src[p] == joint != dst[p]]), 6) for joint in range(len(data["joints"]))]
    return sorted(range(len(src)), key=lambda slot: (-keeps[src[slot]], place[src[slot]], place[dst[slot]], offset[slot]))


def test_rows_are_chosen_and_marked_with_keys_alone(reader: Reader, file: Path, parts: Parts):
    """What a screen reader reads of the raster is what stands below it."""
    skeleton, rows = parts.data["skeleton"], rows_of(parts)
    src, dst, offset = skeleton["slots"]
    names = {-1: " 1 frame before", 0: "", 1: " 1 frame later"}
    reader.open(file, "#walk=walk%200&frame=20")

    def said() -> tuple[int, str]:
        now, text = reader.ask("return ['now', 'text'].map((one) => document.getElementById('raster').getAttribute('aria-value' + one))")
        return int(now), text

    def words(row: int, frame: int) -> str:
        slot = rows[row]
        return f"{skeleton['joints'][src[slot]]}{names[offset[slot]]} → {skeleton['joints'][dst[slot]]}, frame {frame}: "

    assert said() == (0, "no edge chosen")
    empty = reader.picture("raster"), reader.picture("figure")
    reader.press(DOWN, DOWN, DOWN, UP, on="raster")
    assert said()[0] == 2
    assert said()[1].startswith(words(1, 20))
    assert reader.text("hovered") == said()[1]
    assert reader.picture("raster") != empty[0]
    reader.press(RIGHT, ENTER, on="raster")
    assert said()[1].startswith(words(1, 21))
    assert "marked" in said()[1]
    reader.press(DOWN, on="raster")
    assert said()[1].startswith(words(2, 21))
    assert "marked" not in said()[1]
    reader.press(*[DOWN] * len(rows), on="raster")
    assert said()[0] == len(rows) == int(reader.ask("return document.getElementById('raster').getAttribute('aria-valuemax')"))
    reader.press(ESCAPE, LEFT, on="raster")
    assert said() == (0, "no edge chosen")
    assert (reader.picture("raster"), reader.picture("figure")) == empty


def test_whatever_is_reached_by_keys_has_a_name(reader: Reader, written: Callable[[str], Path]):
    walk = entry(GRAPH, 9, 3, cycle=4)
    reader.open(written(page_of([replace(walk, poses=upright(walk.poses, GRAPH.layout))], GRAPH)))
    reader.set("beside", "itself")
    reader.until("return !document.getElementById('second').hidden")
    reached = reader.reached_by_keys()
    assert {"find", "list", "play", "frame", "mode", "above", "azimuth", "elevation", "take-csv", "raster", "side-of"} <= reached.keys()
    assert all(re.search(r"\w", name) for name in reached.values()), reached
    pictures = {canvas: reader.driver.find_element("id", canvas).accessible_name for canvas in ("figure", "figure-beside", "raster", "body")}
    assert all(pictures.values()), pictures
    assert "edges" in pictures["figure"]
    side = reader.picture("figure")
    reader.press(RIGHT, on="azimuth")
    assert reader.picture("figure") != side


def test_a_playing_walk_is_not_read_aloud_until_it_stops(reader: Reader, file: Path):
    """Nothing of what a screen reader says on its own changes with every frame."""
    reader.open(file, "#walk=walk%200&frame=2")
    reader.drawn()
    reader.ask(
        "window.said = []; for (const at of document.querySelectorAll('output, [role=status], [role=alert], [aria-live]'))"
        " if (at.getAttribute('aria-live') !== 'off')"
        "  new MutationObserver(() => window.said.push(at.id)).observe(at, {childList: true, characterData: true, subtree: true})"
    )
    reader.press(" ")
    reader.until("return Number(document.getElementById('frame').value) > 6")
    assert reader.ask("return window.said") == []
    reader.press(" ")
    reader.until("return window.said.length > 0")
    reader.drawn()
    assert reader.text("now").startswith(f"Frame {frame(reader)} of {T}, says ill: ")


def test_another_walk_stands_beside(reader: Reader, file: Path):
    reader.open(file, "#walk=walk%200&frame=3")
    assert reader.ask("return document.getElementById('second').hidden")
    reader.set("beside", "nearest")
    reader.until("return !document.getElementById('second').hidden")
    reader.drawn()
    assert reader.text("caption-beside").startswith("walk 1: ")
    beside = reader.picture("figure-beside")
    reader.set("mirror", True)
    assert reader.picture("figure-beside") != beside
    assert "mirrored" in reader.text("caption-beside")
    reader.set("beside", "none")
    reader.until("return document.getElementById('second').hidden")


def test_every_look_draws_something_else(reader: Reader, file: Path):
    reader.open(file, "#walk=walk%200&frame=3")
    seen = [(reader.picture("figure"), reader.picture("raster"))]
    for mode in ("class", "chance"):
        reader.set("mode", mode)
        seen.append((reader.picture("figure"), reader.picture("raster")))
        assert "less" in reader.text("scale")
        assert len(colors_drawn(reader)) > 2  # they differ from what they are less than
    assert len({figure for figure, _ in seen}) == len({raster for _, raster in seen}) == 3
    bones = reader.picture("figure")
    reader.set("bones", False)
    assert reader.picture("figure") != bones
    body = reader.picture("body")
    reader.set("side-of", "receives")
    assert reader.picture("body") != body
    assert reader.complaints == []


def test_what_is_taken_away(reader: Reader, file: Path, parts: Parts):
    """The table has the kept edges of the walk; the pictures open as such, and say what they are of."""
    probability, kept = edges(parts, 2)
    skeleton = parts.data["skeleton"]
    reader.open(file, "#walk=walk%202&frame=9")
    reader.ask(
        "window.texts = {}; window.pictures = {}; URL.createObjectURL = ((make) => (blob) => {"
        " blob.text().then((text) => { window.texts[blob.type] = text });"
        " const picture = new Image(), at = make.call(URL, blob);"
        " picture.onload = () => { window.pictures[blob.type] = [picture.width, picture.height] };"
        " if (blob.type.startsWith('image/')) picture.src = at;"
        " return at })(URL.createObjectURL);"
        "HTMLAnchorElement.prototype.click = function () { (window.names = window.names || []).push(this.download) }"
    )
    for kind in ("csv", "svg", "png"):
        reader.click(f"take-{kind}")
    reader.until("return Object.keys(window.texts).length === 3 && Object.keys(window.pictures).length === 2")
    assert set(reader.ask("return window.names")) == {"walk_2.csv", "walk_2-frame-9.svg", "walk_2-frame-9.png"}
    header, *rows = reader.ask("return window.texts['text/csv']").splitlines()
    assert header == "frame,from,to,offset,probability"
    src, dst, offset = skeleton["slots"]
    names = skeleton["joints"]
    expected = [f"{t},{names[src[p]]},{names[dst[p]]},{offset[p]},{probability[p, t]:.3f}" for t in range(T) for p in range(len(src)) if kept[p, t]]
    assert rows == expected
    svg = reader.ask("return window.texts['image/svg+xml']")
    assert svg.count("<polygon") == kept[:, 9].sum()
    assert "walk 2: says ill (0.90), is ill" in svg.replace("</text>", " ")
    assert "The decision rests on these edges." in svg
    (wide, tall), (twice, as_tall) = (reader.ask("return window.pictures[arguments[0]]", f"image/{kind}") for kind in ("svg+xml", "png"))
    assert (2 * wide, 2 * tall) == (twice, as_tall)
    assert reader.complaints == []


def joints_drawn(reader: Reader) -> np.ndarray:
    """Where the dots of the frame are, as the picture to take away has them.  # [J, 2], y down"""
    reader.ask(
        "window.svg = ''; URL.createObjectURL = (blob) => { blob.text().then((text) => { window.svg = text }); return '#' };"
        "HTMLAnchorElement.prototype.click = () => {}"
    )
    reader.click("take-svg")
    reader.until("return window.svg !== ''")
    return np.array([[float(x), float(y)] for x, y in re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)" r="2.2"', reader.ask("return window.svg"))])


def colors_drawn(reader: Reader) -> set[str]:
    """Of the edges."""
    joints_drawn(reader)
    return set(re.findall(r'<polygon [^>]*fill="([^"]*)"', reader.ask("return window.svg")))


def assert_drawn_to_scale(drawn: np.ndarray, places: np.ndarray) -> None:
    """One scale for both axes, y turned over, up to the rounding of the picture's numbers."""
    assert drawn.shape == places.shape
    (x, y), (a, b) = (drawn - drawn.mean(0)).T, (places - places.mean(0)).T
    scale = (x @ a - y @ b) / (a @ a + b @ b)
    assert scale > 0
    assert np.abs(np.stack([x - scale * a, y + scale * b])).max() < 0.05


def test_2d_is_drawn_as_in_the_image(reader: Reader, file: Path, parts: Parts):
    reader.open(file, "#walk=walk%203&frame=11")
    poses, _, _ = unpacked(parts.data["walks"][3], parts.texts("script", class_="walk")[3])
    assert_drawn_to_scale(joints_drawn(reader), poses[11])


def test_edges_lead_from_joint_to_joint_and_from_frame_to_frame(reader: Reader, file: Path, parts: Parts):
    """Every kept edge is wide at the joint that it leaves, in its own frame, which stands a step aside, and pointed at the joint where it goes."""
    now = 11
    reader.open(file, f"#walk=walk%203&frame={now}")
    poses, _, kept = unpacked(parts.data["walks"][3], parts.texts("script", class_="walk")[3])
    drawn = joints_drawn(reader)
    scale = np.ptp(drawn[:, 0]) / np.ptp(poses[now, :, 0])
    places = (poses - poses[now].mean(0)) * scale * (1, -1) + drawn.mean(0)  # [T, J, 2], as if no frame stood aside
    points = re.findall(r'<polygon points="([^"]*)"', reader.ask("return window.svg"))
    corners = np.array([[[float(number) for number in point.split(",")] for point in polygon.split()] for polygon in points])
    starts, tips = corners[:, :2].mean(1), corners[:, 2]
    left = list(range(len(corners)))
    aside: dict[int, set[float]] = {}
    for src, dst, offset, stays in zip(*parts.data["skeleton"]["slots"], kept[:, now], strict=True):
        if not stays:
            continue
        start = places[now + offset, src]
        like = [i for i in left if np.abs(tips[i] - drawn[dst]).max() < 0.1 and abs(starts[i, 1] - start[1]) < 0.1]
        assert like, (src, dst, offset)
        best = min(like, key=lambda i: abs(starts[i, 0] - start[0] - offset * (max(aside.get(offset, {0.0})))))
        aside.setdefault(offset, set()).add(round(float(starts[best, 0] - start[0]) * (offset or 1), 1))
        left.remove(best)
    assert left == []
    assert all(max(steps) - min(steps) < 0.3 for steps in aside.values())
    assert abs(max(aside[0])) < 0.1
    assert min(aside[1]) > 10
    assert min(aside[-1]) > 10


def test_3d_is_seen_from_where_the_reader_stands(reader: Reader, written: Callable[[str], Path]):
    """As `seen_from` has it, which draws pictures."""
    recorded = entry(GRAPH, 9, 3).poses
    walk = entry(GRAPH, 9, 3, poses=upright(recorded, GRAPH.layout))
    reader.open(written(page_of([walk], GRAPH)), "#walk=walk%200&frame=4")
    assert_drawn_to_scale(joints_drawn(reader), seen_from(recorded, GRAPH.layout, View(90.0))[4])
    reader.click("front")
    assert_drawn_to_scale(joints_drawn(reader), seen_from(recorded, GRAPH.layout, View(0.0))[4])
    reader.point("figure", 100, 100, drag=(-60, 40))  # half a degree a pixel
    assert_drawn_to_scale(joints_drawn(reader), seen_from(recorded, GRAPH.layout, View(30.0, 20.0))[4])


def test_3d_is_turned_by_dragging(reader: Reader, written: Callable[[str], Path]):
    walk = entry(GRAPH, 9, 3)
    reader.open(written(page_of([replace(walk, poses=upright(walk.poses, GRAPH.layout))], GRAPH)))
    side = reader.picture("figure")
    reader.point("figure", 200, 150, drag=(80, 20))
    turned = reader.picture("figure")
    assert turned != side
    reader.click("side")
    reader.point("name", 5, 5)
    assert reader.picture("figure") == side
    assert reader.complaints == []


def test_the_docs_pictures_are_taken_at_three_sizes(reader: Reader, file: Path, tmp_path: Path):
    from pictures import SIZES, take

    take(reader, file, "", tmp_path)
    for name, (width, height, _) in SIZES.items():
        picture = (tmp_path / f"page_{name}.png").read_bytes()
        assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (width, height)
