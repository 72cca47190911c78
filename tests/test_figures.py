"""What is in the figures, and that nothing of it is cut off."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from fastst import LAYOUTS, SkeletonGraph
from fastst.errors import UserError
from fastst.explanation import figures, text, walk_figures
from fastst.explanation.views import View, standing_body
from fastst.layouts import Layout

Drawn = Callable[..., Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drawn:
    """Calls a function that draws, and returns the figure that it saved."""

    def draw(function: Callable, *arguments: Any, **options: Any) -> Figure:
        saved: list[Figure] = []

        def save(figure: Figure, path: Path) -> None:
            text.save(figure, path)
            saved.append(figure)

        for module in (figures, walk_figures):
            monkeypatch.setattr(module, "save", save)
        path = tmp_path / "figure.png"
        monkeypatch.setattr(text, "_unsaid", set())  # what other tests of this process left to be said
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a glyph that is missing, a layout that does not fit
            function(*arguments, path=path, **options)
        assert path.read_bytes().startswith(b"\x89PNG")
        return saved[0]

    return draw


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """Nothing is known of the system's fonts, and nothing was said of them."""
    monkeypatch.setattr(text, "_said", set())
    monkeypatch.setattr(text, "_unsaid", set())
    caches = (text._family, text._characters)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def words(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def assert_whole(figure: Figure) -> None:
    """Everything that is drawn is inside its axes, and all of that with its texts inside the figure."""
    for axes in figure.axes:
        (left, right), (bottom, top) = axes.get_xlim(), sorted(axes.get_ylim())
        points = [line.get_xydata() for line in axes.lines if line.get_transform() == axes.transData]
        for collection in axes.collections:
            if isinstance(collection, PathCollection):
                points.append(np.asarray(collection.get_offsets()))
            elif isinstance(collection, (LineCollection, PolyCollection)):
                points += [path.vertices for path in collection.get_paths()]
        for x, y in np.concatenate([np.zeros((0, 2)), *points]):
            assert left <= x <= right
            assert bottom <= y <= top
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.03  # inches: glyphs are placed on whole pixels


def walk(frames: int, dimensions: int, layout: Layout = LAYOUTS["coco18"]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, layout.num_joints, dimensions))


# ------------------------------------------------------------------------------------------------------ a walk with its kept edges


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("D", [2, 3])
@pytest.mark.parametrize("T", [1, 2, 30])
def test_a_walk_of_any_length_is_drawn_and_nothing_is_cut_off(drawn: Drawn, D: int, T: int, hops: int):
    graph = SkeletonGraph("coco18", hops)
    kept = graph.edge_mask(T).numpy()
    planted = ("left_knee",) if T == 2 else ()
    figure = drawn(walk_figures.walk_with_kept_edges, walk(T, D), graph, kept, kept * 0.3, "walk", planted=planted)
    assert_whole(figure)
    assert "walk\n100% of the edges kept in frames 0 to " + str(T - 1) in figure.axes[0].get_title()
    assert ("planted: left_knee" in words(figure)) == (T == 2)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("letter", ["x", "健", "長い ", "long "])
def test_long_names_are_not_cut_off(drawn: Drawn, monkeypatch: pytest.MonkeyPatch, letter: str):
    monkeypatch.setattr(text, "_warn_of_missing", lambda: None)
    graph = SkeletonGraph("coco18", 1)
    kept, name = graph.edge_mask(1).numpy(), text.readable(letter * 100)
    assert_whole(drawn(walk_figures.walk_with_kept_edges, walk(1, 3), graph, kept, kept * 0.3, f"{name} ({name})"))


@pytest.mark.parametrize("scale", [1e-30, 1e6])
def test_a_walk_of_any_size_is_drawn(drawn: Drawn, scale: float):
    graph = SkeletonGraph("coco18", 1)
    kept = graph.edge_mask(5).numpy()
    assert_whole(drawn(walk_figures.walk_with_kept_edges, walk(5, 3) * scale, graph, kept, kept * 0.3, "walk"))


def test_a_walk_without_an_edge_is_drawn(drawn: Drawn):
    graph = SkeletonGraph("coco18", 1)
    nothing = np.zeros((graph.num_slots, 30))
    figure = drawn(walk_figures.walk_with_kept_edges, walk(30, 2), graph, nothing, nothing, "walk")
    assert not edges_of(figure)
    assert "0% of the edges kept" in figure.axes[0].get_title()


def test_of_more_edges_than_can_be_seen_the_likeliest_are_drawn(drawn: Drawn):
    graph = SkeletonGraph("coco18", 3)
    kept = graph.edge_mask(6).numpy()
    probability = kept * np.random.default_rng(0).uniform(0.5, 1, kept.shape)
    figure = drawn(walk_figures.walk_with_kept_edges, walk(6, 2), graph, kept, probability, "walk")
    count = len(edges_of(figure))
    assert count == 6 * 18
    least = np.sort(probability[kept > 0])[-count]
    found = next(collection for collection in figure.axes[0].collections if isinstance(collection, PolyCollection))
    assert min(found.get_array()) == least
    title = figure.axes[0].get_title().replace("\n", " ")
    assert f"; of {int(kept.sum())}, too many to be seen, the {count} likeliest are drawn (above {100 * least:.0f} %)" in title


def test_where_every_edge_is_as_likely_none_is_drawn(drawn: Drawn):
    graph = SkeletonGraph("coco18", 1)
    kept = graph.edge_mask(6).numpy()
    figure = drawn(walk_figures.walk_with_kept_edges, walk(6, 2), graph, kept, kept, "walk")
    assert not edges_of(figure)
    assert "none is drawn: 396 would be, too many to be seen, and the likeliest are equally likely (100 %)" in figure.axes[0].get_title().replace(
        "\n", " "
    )


def edges_of(figure: Figure) -> list[np.ndarray]:
    """The triangles: two corners at the joint that an edge leaves, and its point.  # [3, 2]"""
    found = next(collection for collection in figure.axes[0].collections if isinstance(collection, PolyCollection))
    return [path.vertices[:3] for path in found.get_paths()]


def test_an_edge_leads_from_its_wide_end_to_its_point(drawn: Drawn):
    layout = Layout.custom(["top", "bottom"], [(0, 1)])
    graph = SkeletonGraph(layout, 1)
    kept = np.zeros((graph.num_slots, 3))
    slot = next(p for p in range(graph.num_slots) if (graph.src[p], graph.dst[p], graph.offset[p]) == (0, 0, -1))
    kept[slot, 2] = 1  # from the top in frame 1 to the top in frame 2
    poses = np.tile([[0.0, 5.0], [0.0, 9.0]], (3, 1, 1))
    figure = drawn(walk_figures.walk_with_kept_edges, poses, graph, kept, kept, "walk")
    (triangle,) = edges_of(figure)
    frames = figure.axes[0].get_xticks()
    assert triangle[:2].mean(0) == pytest.approx([frames[1], -5])  # an image's y axis points down
    assert triangle[2] == pytest.approx([frames[2], -5])


def test_the_chosen_frames_are_drawn(drawn: Drawn):
    graph = SkeletonGraph("coco18", 2)
    kept = graph.edge_mask(100).numpy().copy()
    kept[:, :50] = 0
    for frames, shown, share in (((10, 16), range(10, 16), "0%"), ((90, 100), range(90, 100), "100%"), ((40, 60), None, "50%")):
        figure = drawn(walk_figures.walk_with_kept_edges, walk(100, 2), graph, kept, kept * 0.3, "walk", frames=frames)
        ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        numbers = [int(tick.removeprefix("frame ")) for tick in ticks]
        assert f"{share} of the edges kept in frames {frames[0]} to {frames[1] - 1}" in figure.axes[0].get_title()
        assert numbers == sorted(numbers)
        assert numbers == list(shown) if shown else (numbers[0], numbers[-1], len(numbers)) == (40, 59, 12)


@pytest.mark.parametrize("frames", [13, 14, 100])
@pytest.mark.parametrize("size", [1, 2, 5, 12, 40])
def test_groups_of_frames_are_whole_and_not_more_than_twelve(size: int, frames: int):
    groups = walk_figures._groups(7, 7 + frames, size)
    assert sum(len(group) for group in groups) == 12 // min(size, 12) * min(size, 12)
    assert all(group == list(range(group[0], group[0] + min(size, 12))) for group in groups)
    assert groups[0][0] == 7
    assert groups[-1][-1] < 7 + frames


def test_what_is_seen_depends_on_the_side(drawn: Drawn):
    graph = SkeletonGraph("ntu25", 1)
    kept = graph.edge_mask(4).numpy()
    points = []
    for view in (None, View(90), View(0)):
        figure = drawn(walk_figures.walk_with_kept_edges, walk(4, 3, graph.layout), graph, kept, kept, "walk", view=view)
        points.append(figure.axes[0].lines[0].get_xydata())
    assert (points[0] == points[1]).all()
    assert not np.allclose(points[1], points[2])
    assert "seen from the front" in figure.axes[0].get_title()


# ------------------------------------------------------------------------------------------------------------------------ a run


def test_the_learning_curve_has_an_axis_a_quantity_and_whole_epochs(drawn: Drawn):
    rows = [{"epoch": e, "loss": 0.7 / e, "balanced_accuracy": 0.5, "mad": 0.3, "kept_share": 0.4, "prior": 0.2} for e in (1, 2, 3)]
    figure = drawn(figures.learning_curve, rows, 4, baseline=0.7)
    loss, score, distance, kept = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [1, 3, 1, 2]
    assert loss.lines[0].get_ydata() == pytest.approx([0.7, 0.35, 0.7 / 3])
    assert {"guessing: 0.25", "logistic regression on joint means and deviations: 0.70"} <= set(words(figure))
    assert score.lines[1].get_ydata() == pytest.approx([0.25, 0.25])
    assert score.lines[2].get_ydata() == pytest.approx([0.7, 0.7])
    assert kept.lines[1].get_ydata() == pytest.approx([0.2] * 3)
    assert len({axes.get_ylabel() for axes in figure.axes}) == 4
    assert all(tick == round(tick) for tick in distance.get_xticks())


def test_a_single_epoch_is_seen(drawn: Drawn):
    row = {"epoch": 1, "loss": 0.7, "validation_loss": 0.8, "balanced_accuracy": 0.5, "mad": 0.3, "kept_share": 0.4, "prior": 0.2}
    figure = drawn(figures.learning_curve, [row], 2)
    points = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(points) == 6
    assert all(line.get_marker() == "o" and line.get_markersize() >= 8 for line in points)


@pytest.mark.parametrize("count", [1, 7])
def test_the_learning_curve_with_and_without_measurements(drawn: Drawn, count: int):
    rows: list[dict[str, Any]] = [{"epoch": e, "loss": 0.7, "validation_loss": 0.8} for e in range(1, count + 1)]
    figure = drawn(figures.learning_curve, rows, 2)
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 0, 0]
    assert all(tick == round(tick) for tick in figure.axes[3].get_xticks())


AUDIT = {
    **{arm: {"balanced_accuracy": 0.1 * i, "macro_f1": 0.5} for i, arm in enumerate(figures.ARM_NAMES)},
    "insertion": {"shares": [0.05, 0.5], **{name: {"balanced_accuracy": [0.4, 0.9]} for name in ("by_probability", "random", "reversed")}},
    "people": [{"class": name} for name in "abca"],
    "verdict": {"sentence": "No edge $stands$ out. " * 12},
}


def test_the_audit_shows_every_graph_and_what_guessing_gets(drawn: Drawn):
    figure = drawn(figures.audit, AUDIT)
    assert_whole(figure)
    arms, curve = figure.axes
    assert [bar.get_width() for bar in arms.patches] == pytest.approx([0.1 * i for i in range(len(figures.ARM_NAMES))])
    assert "guessing: 0.33" in words(figure)
    assert len(curve.lines) == 5


def test_the_adjacency_says_from_and_to(drawn: Drawn):
    figure = drawn(figures.initial_adjacency, LAYOUTS["ntu25"])
    assert_whole(figure)
    for hops, axes in enumerate(figure.axes, 1):
        assert axes.get_xlabel().startswith("from")
        assert axes.get_ylabel().startswith("to")
        assert [label.get_text() for label in axes.get_xticklabels()] == ["t", "t+1", "t+2", "t+3", "t+4"]
        assert f"{int(SkeletonGraph('ntu25', hops).edge_mask(5).sum()):,} edges" in axes.get_title()


@pytest.mark.parametrize(
    ("layout", "expected", "people"),
    [(LAYOUTS["coco18"], 0.5, 6), (LAYOUTS["ntu25"], 0.0, 60), (Layout.custom(["a", "b"], [(0, 1)]), 1.0, 5)],
    ids=["coco18", "ntu25", "two"],
)
def test_every_joint_has_its_bars_and_intervals(drawn: Drawn, layout: Layout, expected: float, people: int):
    rng = np.random.default_rng(0)
    rows = {joint: {side: sorted(rng.uniform(0, 1, 3)) for side in ("sends", "receives")} for joint in layout.joints}
    rows = {joint: {side: [mean, low, high] for side, (low, mean, high) in sides.items()} for joint, sides in rows.items()}
    result = {"people": people, "expected": expected, "joints": rows}
    body = standing_body([walk(4, 2, layout)], layout)
    figure = drawn(walk_figures.kept_of_joints, result, "No edge stands out. " * 12, layout, body)
    assert_whole(figure)
    sends, receives, bars = figure.axes[:3]
    assert len(bars.patches) == 2 * layout.num_joints
    joints = [label.get_text() for label in bars.get_yticklabels()]
    assert sorted(joints) == sorted(layout.joints)
    lines = [collection for collection in bars.collections if isinstance(collection, LineCollection)]
    assert len(lines) == (2 if people >= 6 else 0)  # no interval of so few people
    drawn_bars = [container for container in bars.containers if isinstance(container, BarContainer)]
    for side, patches in zip(("sends", "receives"), drawn_bars, strict=True):
        for joint, bar in zip(joints, patches, strict=True):
            assert bar.get_width() == pytest.approx(rows[joint][side][0])
    for side, intervals in zip(("sends", "receives"), lines, strict=False):
        for joint, interval in zip(joints, intervals.get_segments(), strict=True):
            assert interval[:, 0] == pytest.approx(rows[joint][side][1:])
    marked = next(line for line in bars.lines if str(line.get_label()).startswith("if all joints were alike"))
    assert marked.get_xdata() == pytest.approx([expected, expected])
    for axes, side in ((sends, "sends"), (receives, "receives")):
        (dots,) = (collection for collection in axes.collections if isinstance(collection, PathCollection))
        white = (np.asarray(dots.get_facecolors()) == 1).all(1)
        inside = [people < 6 or rows[joint][side][1] <= expected <= rows[joint][side][2] for joint in layout.joints]
        assert white.tolist() == inside
        assert np.corrcoef(dots.get_sizes(), [rows[joint][side][0] for joint in layout.joints])[0, 1] == pytest.approx(1)
    coloured = people >= 6 and not all(low <= expected <= high for sides in rows.values() for _, low, high in sides.values())
    assert len(figure.axes) == 3 + coloured  # no scale of colours where nothing has one


def test_a_figure_that_cannot_be_written_says_where(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere/audit.png can't be written: No such file or directory"):
        figures.audit(AUDIT, tmp_path / "nowhere" / "audit.png")


# ----------------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "drawn_as"),
    [
        ("left_knee", "left_knee"),
        ("$x_1$ 100%", "$x_1$ 100%"),
        ("two\nlines\ttab\x07bell\x00", "two lines tab bell"),
        ("turned \u202eround\u2066 \ufeffhere", "turned round here"),
        ("مريض", "مريض"),
        ("é ß Ж ω א", "é ß Ж ω א"),
        ("lone \ud800 half", "lone U+D800 half"),
        ("x" * 200, "x" * 29 + "…" + "x" * 30),
        ("", ""),
    ],
)
def test_names_as_they_are_drawn(name: str, drawn_as: str):
    assert text.readable(name) == drawn_as


UNKNOWN = "\U000f0001"  # for private use: no font of a system has it


@pytest.mark.usefixtures("fresh")
def test_a_character_that_no_font_has_is_named_once(tmp_path: Path):
    figure = Figure()
    figure.suptitle(text.readable(f"walk {UNKNOWN}"))
    assert words(figure) == ["walk U+F0001"]
    with pytest.warns(UserWarning, match=r"no font of this system has .*\(U\+F0001\)"):
        text.save(figure, tmp_path / "figure.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.readable(UNKNOWN)
        text.save(figure, tmp_path / "again.png")


@pytest.mark.usefixtures("fresh")
def test_a_font_of_the_system_that_has_the_character_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fontBuilder = pytest.importorskip("fontTools.fontBuilder")
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    for move, corner in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900)), (pen.lineTo, (900, 0))):
        move(corner)
    pen.closePath()
    square = pen.glyph()
    made = fontBuilder.FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "sign"])
    made.setupCharacterMap({ord(UNKNOWN): "sign"})
    made.setupGlyf({".notdef": square, "sign": square})
    made.setupHorizontalMetrics({".notdef": (1000, 0), "sign": (1000, 0)})
    made.setupHorizontalHeader(ascent=900, descent=-100)
    made.setupNameTable({"familyName": "Only One Sign", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / "sign.ttf")
    manager = text.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(tmp_path / "sign.ttf")
    figure = Figure(figsize=(2, 2))
    figure.text(0.1, 0.3, text.readable(UNKNOWN), fontsize=60)
    assert words(figure) == [UNKNOWN]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.save(figure, tmp_path / "figure.png")
    assert figure.texts[0].get_fontfamily() == ["DejaVu Sans", "Only One Sign"]


def test_arabic_letters_are_joined_and_run_from_right_to_left():
    """Drawn alone the letters of a word take more room than joined; in the word the first is at the right."""
    figure = Figure(figsize=(4, 2))

    def extent(word: str, x: float = 0.0) -> Any:
        return figure.text(x, 0.5, word, fontsize=40, fontfamily="DejaVu Sans").get_window_extent()

    joined = extent("مريض").width
    assert joined < 0.95 * sum(extent(letter).width for letter in "مريض")
    assert figure.canvas is not None


ODD = ["健康", "مريض", "स्वस्थ", "😀", "$x_$", "a\nb\x07", "\u202eright", "long " * 40]


@pytest.mark.usefixtures("fresh")
def test_names_in_any_script_reach_every_figure(drawn: Drawn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "_warn_of_missing", lambda: None)
    layout = Layout.custom(ODD, [(i, i + 1) for i in range(7)], name="\x1b[31m骨架")
    graph = SkeletonGraph(layout, 1)
    kept = graph.edge_mask(3).numpy()
    rows = {joint: {side: [0.5, 0.4, 0.6] for side in ("sends", "receives")} for joint in ODD}
    made = [
        drawn(walk_figures.walk_with_kept_edges, walk(3, 2, layout), graph, kept, kept, text.readable("步行\r\n"), planted=ODD[:2]),
        drawn(walk_figures.kept_of_joints, {"people": 1, "expected": 0.1, "joints": rows}, "So it is.", layout, walk(1, 2, layout)[0]),
        drawn(figures.initial_adjacency, layout),
    ]
    for figure in made:
        assert_whole(figure)
        for one in words(figure):
            assert not [sign for sign in one if sign != "\n" and not sign.isprintable()], one
    assert {text.readable(joint) for joint in ODD} <= set(words(made[1]))
