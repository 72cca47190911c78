"""The page of `fastst.explain`: what is packed, what is said, and that nothing in a file becomes more than text. `browser/` opens it."""

import base64
import dataclasses
import hashlib
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audited import tiny
from pages import Parts, entry, page_of, stick, unpacked
from PIL import Image

from fastst import SkeletonGraph
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.synthetic import synthetic_walks
from fastst.errors import UserError
from fastst.explain import main as explain
from fastst.explanation.audit import ARMS, probabilities_of_arms
from fastst.explanation.exports import is_export
from fastst.explanation.page import build
from fastst.explanation.page.chosen import _spread
from fastst.explanation.page.entries import class_means, upright
from fastst.explanation.page.gait import gait_cycle
from fastst.explanation.page.packing import pack
from fastst.explanation.page.words import NOT_TO_CONCLUDE, of_run, of_walk
from fastst.explanation.report import EXPLAINED, examine
from fastst.explanation.views import View, seen_from
from fastst.layouts import LAYOUTS
from fastst.runs.edges import edge_table
from fastst.runs.opened import open_run
from fastst.runs.own import own_task
from fastst.runs.training import train

GRAPH = SkeletonGraph("coco18", 1)
NASTY = "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(2)>&lt;\u2028{{script}}"


@pytest.mark.parametrize(("T", "J", "D"), [(1, 1, 2), (1, 3, 3), (2, 60, 3), (23, 5, 2), (40, 1, 3)])
def test_what_is_packed_comes_out_again_but_for_rounding(T: int, J: int, D: int):
    graph = stick(J)
    walk = entry(graph, T, D)
    walk.poses[T // 2, J // 2] = np.nan
    walk.poses[0, 0, 0] = np.inf
    form, content = pack(walk.poses, *walk.edges)
    poses, probability, kept = unpacked(form, content)
    there = np.isfinite(walk.poses)
    assert np.array_equal(np.isfinite(poses), there)
    spread = max((np.ptp(walk.poses[..., d][there[..., d]]) for d in range(D) if there[..., d].any()), default=0)
    assert np.abs(poses - walk.poses)[there].max(initial=0) <= spread / 65534 * 0.501
    assert np.array_equal(np.isnan(probability), np.isnan(walk.edges.probability))
    assert np.nanmax(np.abs(probability - walk.edges.probability), initial=0) <= 1 / 508 + 1e-6
    assert np.array_equal(kept, walk.edges.kept)


def test_a_body_that_never_moves_and_one_that_was_never_seen_are_packed():
    for poses in (np.full((5, 2, 3), 7.25), np.full((5, 2, 2), np.nan)):
        form, content = pack(poses)
        assert np.array_equal(unpacked(form, content)[0], poses, equal_nan=True)
        assert form["slots"] == 0


def test_a_walk_takes_few_bytes():
    """80 walks of 257 frames, 20 joints in 3D and 78 slots have to be below 4 MB: 194 bytes a frame."""
    graph, T = stick(20), 257
    time = np.arange(T)[:, None, None] / 60
    rng = np.random.default_rng(0)
    poses = np.sin(2 * np.pi * time * rng.uniform(0.5, 2, (1, 20, 3))) * 0.3 + rng.normal(0, 1, (1, 20, 3)) + rng.normal(0, 0.0005, (T, 20, 3))
    phase = np.arange(T)[None] / 30 + rng.uniform(0, 6, (graph.num_slots, 1))
    probability = 0.15 + 0.1 * np.sin(phase) + rng.normal(0, 0.01, phase.shape)
    _, content = pack(poses, probability, rng.random(phase.shape) < probability)
    assert len(content) / T < 194 * graph.num_slots / 78


def test_100000_frames_are_packed_in_seconds():
    T, begin = 100_000, time.process_time()
    poses = np.sin(np.arange(T) / 9)[:, None, None] * np.ones((1, 3, 2))
    form, content = pack(poses, np.full((4, T), 0.5), np.ones((4, T), bool))
    assert gait_cycle(poses) == pytest.approx(18 * np.pi, abs=1)
    assert time.process_time() - begin < 60  # one, on a machine that is not slow; were it quadratic, hours
    assert form["frames"] == T
    assert len(content) < 1_200_000


def test_the_page_is_small_without_its_walks():
    assert len(page_of([entry(GRAPH, 1)], GRAPH).encode()) < 300_000


def test_what_a_file_says_stays_text():
    walk = entry(GRAPH, name=NASTY, subject=NASTY, attributes={NASTY: f"{NASTY}!"})
    text = page_of([walk], GRAPH, [NASTY, "well"], run=NASTY, notes=(NASTY,))
    parts, plain = Parts(text), Parts(page_of([entry(GRAPH)], GRAPH))
    tags = [[(tag, sorted(has)) for tag, has, _ in one.found] for one in (parts, plain)]
    assert tags[0] == tags[1]
    assert parts.texts("script", type="module") == plain.texts("script", type="module")
    assert parts.data["walks"][0]["name"] == NASTY
    assert parts.data["classes"][0] == NASTY
    assert parts.data["walks"][0]["attributes"] == {NASTY: f"{NASTY}!"}
    assert NASTY in parts.texts("title")[0]


def test_what_is_no_number_is_null():
    assert json.loads(build.as_data({"a": [float("nan"), (float("inf"), 1.5)]})) == {"a": [None, [None, 1.5]]}


def test_the_policy_lets_nothing_run_but_the_page_itself():
    parts = Parts(page_of([entry(GRAPH)], GRAPH))
    (policy,) = [has["content"] for tag, has, _ in parts.found if tag == "meta" and has.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        text = parts.texts(tag, type="module")[0] if tag == "script" else parts.texts(tag)[0]
        assert f"{directive} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_script_makes_no_markup_and_asks_for_nothing():
    script = build.script_of_page().replace('"http://www.w3.org/2000/svg"', "")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(", "XMLHttpRequest", "http"):
        assert word not in script


def test_the_modules_are_one_script():
    """Every name that is imported is exported by that module, which comes before; no two modules have the same name at their top."""
    exported: dict[str, set[str]] = {}
    tops: list[str] = []
    for name in build.SCRIPTS:
        source = build._source(name)
        for names, module in re.findall(r"^import \{([^}]*)\} from \"\./(.*)\";$", source, re.MULTILINE):
            assert {one.strip() for one in names.split(",")} <= exported[module], (name, module)
        exported[name] = set(re.findall(r"^export (?:async )?(?:function|const) (\w+)", source, re.MULTILINE))
        tops += re.findall(r"^(?:export )?(?:async )?(?:function|const|let) (\w+)", source, re.MULTILINE)
    assert len(tops) == len(set(tops))
    assert {path.name for path in Path(build.__file__).parent.glob("*.js")} == set(build.SCRIPTS)
    assert not re.search(r"^(import|export)\b", build.script_of_page(), re.MULTILINE)


@pytest.mark.parametrize(("joints", "T", "D"), [(1, 1, 2), (1, 5, 3), (60, 1, 3), (60, 9, 2), (18, 1, 3)])
def test_any_skeleton_and_length_makes_a_page(joints: int, T: int, D: int):
    graph = stick(joints)
    walk = entry(graph, T, D)
    walk = replace(walk, poses=upright(walk.poses, graph.layout))
    parts = Parts(page_of([walk], graph))
    assert np.isfinite(np.array(parts.data["skeleton"]["body"], float)).all()
    assert sorted(parts.data["skeleton"]["order"]) == list(range(joints))
    poses, _, kept = unpacked(parts.data["walks"][0], parts.texts("script", class_="walk")[0])
    assert np.isfinite(poses).all()
    assert np.array_equal(kept, walk.edges.kept)


def test_poses_that_are_no_numbers_make_a_page():
    walk = entry(GRAPH, 6, 2)
    walk.poses[:] = np.nan
    assert np.isfinite(np.array(Parts(page_of([walk], GRAPH)).data["skeleton"]["body"], float)).all()


def test_3d_stands_upright_as_in_pictures():
    """From the right-hand side what is forwards is right, as `seen_from` has it."""
    layout, rng = LAYOUTS["h36m17"], np.random.default_rng(0)
    poses = rng.standard_normal((4, layout.num_joints, 3))
    forwards, left, up = np.moveaxis(upright(poses, layout), 2, 0)
    assert np.allclose(seen_from(poses, layout, View(90.0)), np.stack([forwards, up], 2))
    assert np.allclose(seen_from(poses, layout, View(0.0)), np.stack([left, up], 2))


def test_the_gait_cycle_of_a_made_up_walker_is_found():
    frames = np.arange(200)
    swing = np.sin(2 * np.pi * frames / 31)
    legs = np.stack([np.stack([swing, np.abs(swing)], 1), np.stack([-swing, np.abs(swing)], 1)], 1)  # left and right, half a cycle apart
    noise = np.random.default_rng(0).normal(0, 0.05, legs.shape)
    assert gait_cycle(legs + noise + 0.01 * frames[:, None, None]) == pytest.approx(31, abs=1)
    assert gait_cycle(legs[:40]) is None  # shorter than one and a half
    assert gait_cycle(np.zeros((90, 2, 2))) is None
    assert gait_cycle(np.full((90, 2, 2), np.nan)) is None
    assert gait_cycle(legs[:1]) is None
    assert gait_cycle(np.random.default_rng(1).standard_normal((200, 3, 2))) is None


def test_means_of_a_class_count_every_walk_alike():
    few, many = entry(GRAPH, 4, seed=1), entry(GRAPH, 40, seed=3)
    (nobody, of) = class_means([few, many], 2)
    assert nobody is None
    shares = [np.nanmean(walk.edges.probability.astype(np.float64), axis=1) for walk in (few, many)]
    assert np.allclose(of.probability, np.mean(shares, axis=0))
    assert (of.walks, of.people) == (2, 2)


def test_words_say_what_holds_of_a_walk():
    walk = entry(GRAPH, seed=0)
    said = of_walk(walk, ["ill", "well"])
    assert said.sentences[0] == "The model says “ill” (probability 0.90), which is right."
    assert "With as many random ones it would say “well” (0.70): here it matters which edges are kept" in said.sentences[1]
    assert [row.graph for row in said.rows][:2] == ["with the edges that it kept", "without any edge"]
    assert [row.same for row in said.rows] == [True, True, True, False, True]
    assert "not known" in said.sentences[2]
    wrong = of_walk(replace(walk, of_class=1, trained_on=True, agreement=0.83, model="fold-2"), ["ill", "well"]).sentences
    assert "which is wrong: it is “well”" in wrong[0]
    assert "proves nothing" in wrong[1]
    assert "0.83" in wrong[3]
    assert wrong[4] == "Judged by fold-2, which was trained on this person."
    unknown = of_walk(replace(walk, of_class=None, said=walk.said | {"random": [0.8, 0.2]}), ["ill", "well"]).sentences
    assert unknown[0].endswith("The true class is not known.")
    assert "says the same (0.80), and so it does without any (0.60)" in unknown[1]


def test_every_verdict_says_what_may_not_be_concluded():
    codes = set(re.findall(r'_say\(\s*"(\w+)"', (Path(build.__file__).parents[1] / "verdict.py").read_text(encoding="utf-8")))
    assert codes == set(NOT_TO_CONCLUDE)
    assert of_run(None)["code"] == "no_audit"
    assert "it failed" in of_run({"error": "it failed"})["quote"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "run"
    train(tiny(out, planted=("left_knee", "right_knee"), seeds=2), dataclasses.replace(EXPLAINED, of_fold=examine), quiet=True)
    return out


@pytest.fixture(scope="module")
def walks(tmp_path_factory) -> Path:
    """Walks of other people, with gaps, whose classes the file says."""
    made = synthetic_walks(6, 2, seed=9)
    made.subjects = [f"new {subject}" for subject in made.subjects]
    made.poses = [poses.copy() for poses in made.poses]
    made.poses[0][3:9, 2] = np.nan
    path = tmp_path_factory.mktemp("data") / "walks.npz"
    write_walks_npz(path, made)
    return path


@pytest.fixture(scope="module")
def own(run: Path) -> Parts:
    """The page of the people whom the run was tested on."""
    file = run / "walks.html"
    explain(["--run", str(run), "--out", str(file)])
    return Parts(file.read_text(encoding="utf-8"))


def test_the_arms_of_the_page_are_those_of_the_audit(run: Path, own: Parts):
    """The shares of right answers in the run's summary, person by person, follow from what the page says."""
    audit = json.loads((run / "summary.json").read_text())["audit"]
    trained = open_run(run)
    task = own_task(trained, None)
    chosen = [i for i, who in enumerate(task.walks.subjects) if who in trained.split.test]
    said = probabilities_of_arms(trained.model, task, chosen, trained.asked)
    for arm in ("kept", "all_edges", "no_edges", "random", "mask_alone"):
        right = (said[arm].argmax(1).numpy() == task.classes[chosen]).astype(float)
        for person in audit["people"]:
            mine = [row for row, walk in enumerate(chosen) if task.walks.subjects[walk] == person["subject"]]
            assert np.mean(right[mine]) == pytest.approx(person[arm])
    assert set(said) == set(ARMS)
    for form in own.data["walks"]:
        row = chosen.index(task.walks.names.index(form["name"]))
        assert form["probability"] == pytest.approx(said["kept"][row].max().item())
        assert [round(shown[2], 6) for shown in form["rows"]] == [
            round(said[arm][row].max().item(), 6)
            for arm in ("kept", "no_edges", "all_edges", "random", "complement", "other_same_class", "other_class", "mask_alone")
        ]
        assert form["agreement"] is not None


def test_the_edges_of_the_page_are_those_of_the_model(run: Path, own: Parts):
    trained = open_run(run)
    task = own_task(trained, None)
    form, content = own.data["walks"][1], own.texts("script", class_="walk")[1]
    _, probability, kept = unpacked(form, content)
    walk = task.walks.names.index(form["name"])
    table = edge_table(trained.model, task, trained.asked).to_pydict()
    rows = [i for i, name in enumerate(table["walk"]) if name == form["name"]]
    assert len(rows) == np.isfinite(probability).sum() > 0
    src, dst, offset = own.data["skeleton"]["slots"]
    joints = own.data["skeleton"]["joints"]
    slot_of = {(joints[a], joints[b], o): p for p, (a, b, o) in enumerate(zip(src, dst, offset, strict=True))}
    for i in rows:
        at = slot_of[table["from"][i], table["to"][i], table["offset"][i]], table["frame"][i]
        assert kept[at] == table["kept"][i]
        assert probability[at] == pytest.approx(table["probability"][i], abs=1 / 500)
    assert form["frames"] == task.lengths[walk]
    assert form["keptShare"] == pytest.approx(kept.sum() / len(rows))


def test_what_the_page_is_of_stands_on_it(run: Path, own: Parts):
    data = own.data
    assert data["run"] == "run"
    assert data["seed"] == 0
    assert data["verdict"]["quote"] == json.loads((run / "summary.json").read_text())["audit"]["verdict"]["sentence"]
    assert {data["skeleton"]["joints"][joint] for joint in data["skeleton"]["planted"]} == {"left_knee", "right_knee"}
    assert re.fullmatch("[0-9a-f]{8}", data["data"])


def test_named_walks_of_a_file_with_gaps(run: Path, walks: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    names = synthetic_walks(6, 2, seed=9).names[:2]
    out = tmp_path / "some.html"
    explain(["--run", str(run), "--data", str(walks), "--walk", *names, "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    parts = Parts(out.read_text(encoding="utf-8"))
    assert [form["name"] for form in parts.data["walks"]] == names
    for form, content in zip(parts.data["walks"], parts.texts("script", class_="walk"), strict=True):
        assert np.isfinite(unpacked(form, content)[0]).all()


def test_walks_without_classes_are_of_no_class(run: Path, tmp_path: Path):
    made = synthetic_walks(3, 1, seed=9)
    made.attributes = {}
    write_walks_npz(tmp_path / "w.npz", made)
    explain(["--run", str(run), "--data", str(tmp_path / "w.npz"), "--other-people", "--out", str(tmp_path / "w.html")])
    forms = Parts((tmp_path / "w.html").read_text(encoding="utf-8")).data["walks"]
    assert all(form["ofClass"] is None and form["nearest"] is None for form in forms)
    graphs = [row[0] for row in forms[0]["rows"]]
    assert "with the edges kept of another person" in graphs
    assert not any("class" in graph for graph in graphs)


def test_a_run_without_a_learned_graph_says_why_there_are_no_edges(tmp_path: Path):
    train(tiny(tmp_path / "fixed", graph="fixed", epochs=1), dataclasses.replace(EXPLAINED, of_fold=examine), quiet=True)
    explain(["--run", str(tmp_path / "fixed"), "--out", str(tmp_path / "fixed.html")])
    data = Parts((tmp_path / "fixed.html").read_text(encoding="utf-8")).data
    assert "not learned (--graph fixed)" in data["noEdges"]
    assert all(form["slots"] == 0 and form["keptShare"] is None for form in data["walks"])
    assert data["verdict"]["code"] == "not_learned"


def test_every_walk_of_a_run_with_folds_is_judged_by_the_fold_that_tested_it(tmp_path: Path):
    train(tiny(tmp_path / "folds", folds=2, epochs=1), quiet=True)
    explain(["--run", str(tmp_path / "folds"), "--out", str(tmp_path / "folds.html")])
    data = Parts((tmp_path / "folds.html").read_text(encoding="utf-8")).data
    assert "this run was not audited" in data["verdict"]["quote"]
    forms = data["walks"]
    tests = {fold: json.loads((tmp_path / "folds" / fold / "split.json").read_text())["test"] for fold in ("fold-1", "fold-2")}
    assert len(forms) == 32
    for form in forms:
        (fold,) = [fold for fold, people in tests.items() if form["subject"] in people]
        assert form["sentences"][-1] == f"Judged by {fold}, which was not trained on this person."


def test_another_run_stands_beside(run: Path, own: Parts, tmp_path: Path):
    """The page has the same walks once more, as the page of the other run alone has them; where a slot or a walk is another one it is refused."""
    other, out = tmp_path / "other", tmp_path / "both.html"
    train(tiny(other, planted=("left_knee", "right_knee"), hidden=4, epochs=1), quiet=True)
    names = [form["name"] for form in own.data["walks"]][:2]
    explain(["--run", str(run), "--beside", str(other), "--walk", *names, "--out", str(out)])
    explain(["--run", str(other), "--walk", *names, "--out", str(tmp_path / "alone.html")])
    both, alone = (Parts(file.read_text(encoding="utf-8")) for file in (out, tmp_path / "alone.html"))
    assert both.data["beside"] == {
        **{name: alone.data[name] for name in both.data["beside"]},
        "walks": [form | {"run": "other"} for form in alone.data["walks"]],
    }
    assert both.texts("script", class_="walk") == own.texts("script", class_="walk")[:2] + alone.texts("script", class_="walk")
    assert [form["rows"] for form in both.data["walks"]] != [form["rows"] for form in alone.data["walks"]]
    for hops, why in ((2, "edges between them"), (1, "other walks")):
        train(tiny(tmp_path / why, hops=hops, people=8, walks_per_person=1, epochs=1), quiet=True)
        with pytest.raises(UserError, match=why):
            explain(["--run", str(run), "--beside", str(tmp_path / why), "--out", str(out)])


def test_what_is_taken_away_of_a_walk(run: Path, walks: Path, tmp_path: Path):
    """The table and the graph have the kept edges that the page has; the video a picture for every frame; both may be replaced."""
    networkx = pytest.importorskip("networkx", reason="networkx is not installed: pip install -e '.[export]'")
    made = synthetic_walks(6, 2, seed=9)
    name = min(zip(made.poses, made.names, strict=True), key=lambda one: len(one[0]))[1]
    files = {what: tmp_path / f"walk{ending}" for what, ending in (("video", ".gif"), ("sheet", ".png"), ("edges", ".csv"))}
    command = ["--run", str(run), "--data", str(walks), "--walk", name, "--out", str(tmp_path / "w.html")]
    explain([*command, *(word for what, file in files.items() for word in (f"--{what}", str(file)))])
    explain([*command, "--edges", str(tmp_path / "walk.graphml")])
    explain([*command, "--edges", str(files["edges"])])  # in place of the one before
    parts = Parts((tmp_path / "w.html").read_text(encoding="utf-8"))
    form = parts.data["walks"][0]
    _, probability, kept = unpacked(form, parts.texts("script", class_="walk")[0])
    src, dst, offset = parts.data["skeleton"]["slots"]
    joints = parts.data["skeleton"]["joints"]
    header, *rows = (line.split(",") for line in files["edges"].read_text().splitlines())
    assert header == ["frame", "from", "to", "offset", "probability"]
    expected = [(t, p) for t in range(form["frames"]) for p in range(len(src)) if kept[p, t]]
    assert [row[:4] for row in rows] == [[str(t), joints[src[p]], joints[dst[p]], str(offset[p])] for t, p in expected]
    assert [float(row[4]) for row in rows] == pytest.approx([probability[p, t] for t, p in expected], abs=1 / 500)
    graph = networkx.read_graphml(tmp_path / "walk.graphml")
    J = len(joints)
    assert set(graph.edges) == {(str((t + offset[p]) * J + src[p]), str(t * J + dst[p])) for t, p in expected}
    with Image.open(files["video"]) as video:
        assert video.n_frames == form["frames"]
    with Image.open(files["sheet"]) as sheet:
        assert sheet.width > 1000
    for file in (*files.values(), tmp_path / "walk.graphml"):
        assert is_export(file)
    Image.new("RGB", (9, 9)).save(tmp_path / "mine.gif")
    Image.new("RGB", (9, 9)).save(tmp_path / "mine.png")
    (tmp_path / "mine.csv").write_text("frame,what\n1,2\n")
    (tmp_path / "mine.txt").write_text("made by fastst")
    assert not any(is_export(mine) for mine in tmp_path.glob("mine.*"))


def test_bad_options_say_what_to_do(run: Path, walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*options: str, out: Path = tmp_path / "x.html") -> str:
        with pytest.raises(UserError) as caught:
            explain(["--run", str(run), *options, "--out", str(out)])
        return str(caught.value)

    some = synthetic_walks(6, 2, seed=9).names
    message = refused("--data", str(walks), "--walk", some[0][:-1] + "9")
    assert "none of the 12 walks is called so" in message
    assert some[0] in message
    assert ".html" in refused(out=tmp_path / "x.png")
    assert "--most" in refused("--most", "-1")
    assert "--labels" in refused("--labels", str(walks))
    assert "--video is of one walk" in refused("--video", str(tmp_path / "w.gif"))
    assert ".gif or .mp4" in refused("--walk", "anybody", "--video", str(tmp_path / "w.avi"))
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    assert "ffmpeg" in refused("--data", str(walks), "--walk", some[0], "--video", str(tmp_path / "w.mp4"))
    (tmp_path / "mine.html").write_text("<p>mine")
    assert "not a file that fastst wrote" in refused(out=tmp_path / "mine.html")
    monkeypatch.setattr("fastst.explanation.page.chosen.MOST_WALKS", 3)
    assert "--most 3" in refused("--data", str(walks))
    assert not (tmp_path / "x.html").exists()
    explain(["--run", str(run), "--data", str(walks), "--most", "3", "--out", str(tmp_path / "x.html")])
    assert len(Parts((tmp_path / "x.html").read_text(encoding="utf-8")).data["walks"]) == 3
    explain(["--run", str(run), "--data", str(walks), "--most", "2", "--out", str(tmp_path / "x.html")])  # a page may be replaced
    assert len(Parts((tmp_path / "x.html").read_text(encoding="utf-8")).data["walks"]) == 2


def test_some_walks_are_of_as_many_people_as_can_be():
    subjects = ["a", "a", "a", "b", "b", "c"]
    walks = list(range(6))
    assert _spread(walks, subjects, 3) == [0, 3, 5]
    assert _spread(walks, subjects, 4) == [0, 1, 3, 5]
    assert _spread(walks, subjects, 2) == [0, 5]
    assert _spread(walks, subjects, 9) == walks


def test_other_peoples_edges_come_from_anybody_in_the_task(run: Path):
    """One walk alone is asked about with the edges of others, and the same is said as on a page with more walks."""
    trained = open_run(run)
    task = own_task(trained, None)
    alone = probabilities_of_arms(trained.model, task, [4], trained.asked)
    assert set(alone) == set(ARMS)
    beside = probabilities_of_arms(trained.model, task, [4, 9], trained.asked)
    for arm in ARMS:
        assert torch.allclose(alone[arm][0], beside[arm][0], atol=1e-6)
