"""Planted signals: each kind tells what it says alone, and the truth is where walks differ."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastst.data.planted import (
    EPISODE_FRAMES,
    Planted,
    delays,
    draw_episode,
    mean_difference,
    planted_edges,
    planted_truth,
    strengths,
)
from fastst.data.prepare import mirror, prepare
from fastst.data.synthetic import synthetic_walks
from fastst.graph import SkeletonGraph
from fastst.layouts import LAYOUTS

COCO17, COCO18 = LAYOUTS["coco17"], LAYOUTS["coco18"]
NUMBER = COCO18.index
KNEES, ANKLES = ["left_knee", "right_knee"], ["left_ankle", "right_ankle"]
ARMS = ["left_elbow", "left_wrist", "right_elbow", "right_wrist"]
CASES = [("position", KNEES), ("timing", ANKLES), ("relation", ARMS), ("episode", KNEES)]


def prepared(kind, joints, people=124, walks_per_person=4):
    """Walks, the class of each as 0 or 1, and the number of each person."""
    walks = synthetic_walks(people, walks_per_person, planted=joints, planted_kind=kind)
    walks, _ = prepare(walks, COCO18, 4)
    classes = np.array([label == "male" for label in walks.attributes["label"]], dtype=np.int64)
    return walks, classes, np.array([int(subject) for subject in walks.subjects])


def logistic_regression(x, y):
    """Weights, the last of which is the bias, with classes of equal weight."""
    x = torch.cat([torch.tensor(x), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    y = torch.tensor(y, dtype=torch.float64)
    share = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y, weight=share)
        loss = wrong + 0.01 * (w[:-1] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach().numpy()


def macro_f1(features, classes, people):
    """Of a logistic regression that is tested on people it has not seen, five times."""
    fold = np.random.default_rng(0).permutation(people.max() + 1)[people] % 5
    guess = np.zeros_like(classes)
    for k in range(5):
        train = fold != k
        mean, deviation = features[train].mean(0), features[train].std(0) + 1e-9
        x = (features - mean) / deviation
        w = logistic_regression(x[train], classes[train])
        guess[~train] = x[~train] @ w[:-1] + w[-1] > 0
    hits = [((classes == c) & (guess == c)).sum() for c in (0, 1)]
    sizes = [(classes == c).sum() + (guess == c).sum() for c in (0, 1)]
    return float(np.mean(2 * np.array(hits) / np.array(sizes)))


def means_and_deviations(walks):
    rows = [np.concatenate([p.mean(0).ravel(), p.std(0).ravel()]) for p in walks]
    return np.array(rows, dtype=np.float64)


def correlations(walks, joints):
    """Of the places of planted joints with those of others, at the same time."""
    rows = []
    for poses in walks:
        away = (poses - poses.mean(0)) / (poses.std(0) + 1e-6)
        rows.append(np.mean(away[:, joints, None] * away[:, None], axis=0).ravel())
    return np.array(rows, dtype=np.float64)


def products(walks, pairs):
    """Of how far below its usual place, its mean over a gait cycle or so, each of a pair is."""
    rows = []
    for poses in walks:
        down = np.pad(poses[..., 1], ((12, 12), (0, 0)), mode="reflect")
        usual = np.lib.stride_tricks.sliding_window_view(down, 25, axis=0).mean(-1)
        away = poses[..., 1] - usual
        rows.append([np.mean(away[:, a] * away[:, b]) for a, b in pairs])
    return np.array(rows, dtype=np.float64)


def test_position_walks_are_those_of_earlier_versions():
    """Numbers of the version before the other kinds."""
    walks = synthetic_walks(6, 4, seed=2, planted=["left_wrist", "nose"])
    pose = walks.poses[3].astype(np.float64)
    assert pose.shape == (100, 17, 2)
    np.testing.assert_allclose(pose[10, 9], [179.6233367919922, 137.9596710205078], rtol=1e-6)
    assert np.nansum(pose) == pytest.approx(458496.30154037476, rel=1e-7)
    nothing = synthetic_walks(6, 4, seed=2, planted=[]).poses[3].astype(np.float64)
    assert np.nansum(nothing) == pytest.approx(458684.4458961487, rel=1e-7)


@pytest.mark.parametrize(
    ("kind", "joints", "places"),
    [
        ("timing", ["left_wrist", "nose"], 1137819.2714805603),
        ("relation", ["left_wrist", "left_elbow"], 1137785.8732299805),
        ("episode", ["left_wrist", "nose"], 1137500.1343421936),
    ],
)
def test_other_walks_are_those_of_earlier_versions(kind, joints, places):
    walks = synthetic_walks(6, 4, seed=2, planted=joints, planted_kind=kind)
    assert sum(np.nansum(walks.poses[i].astype(np.float64)) for i in (3, 9, 23)) == pytest.approx(places, rel=1e-8)


def test_timing_shows_in_correlations_and_in_no_joint_alone():
    walks, classes, people = prepared("timing", ANKLES)
    assert macro_f1(means_and_deviations(walks.poses), classes, people) < 0.58
    telling = correlations(walks.poses, [NUMBER(joint) for joint in ANKLES])
    assert macro_f1(telling, classes, people) > 0.94


@pytest.mark.parametrize("joints", [ARMS, ["left_knee", "left_ankle"]])
def test_a_relation_shows_in_products_and_in_no_joint_alone(joints):
    walks, classes, people = prepared("relation", joints)
    assert macro_f1(means_and_deviations(walks.poses), classes, people) < 0.58
    numbers = [NUMBER(joint) for joint in joints]
    telling = products(walks.poses, list(zip(numbers[::2], numbers[1::2], strict=True)))
    assert macro_f1(telling, classes, people) > 0.95
    if len(joints) == 4:  # other pairs of the same joints say nothing
        others = products(walks.poses, [(numbers[0], numbers[2]), (numbers[1], numbers[3])])
        assert macro_f1(others, classes, people) < 0.65


def test_an_episode_shows_within_its_frames_only():
    walks, classes, people = prepared("episode", KNEES)
    named = zip(walks.names, walks.poses, strict=True)
    outside = [poses[~walks.planted.frames(name, len(poses))] for name, poses in named]
    assert macro_f1(means_and_deviations(outside), classes, people) < 0.58
    assert macro_f1(means_and_deviations(walks.poses), classes, people) > 0.85


@pytest.mark.parametrize(("kind", "joints"), CASES)
def test_nothing_but_the_planted_joints_depends_on_the_class(kind, joints):
    walks = synthetic_walks(8, 10, planted=joints, planted_kind=kind)
    other = synthetic_walks(8, 10, planted=joints, planted_kind=kind)
    other.poses._male = ~other.poses._male
    planted = [COCO17.index(joint) for joint in joints]
    outside = np.delete(np.arange(17), planted)
    differed = set()
    for i in range(0, 80, 7):
        a, b = walks.poses[i], other.poses[i]
        assert np.array_equal(a[:, outside], b[:, outside], equal_nan=True)
        assert np.array_equal(walks.poses.confidences(i), other.poses.confidences(i))
        away = np.nanmax(np.abs(a - b), axis=2, initial=0)  # [T, J]
        inside = walks.planted.frames(walks.names[i], len(a))
        assert np.all(away[~inside] == 0)
        if kind == "episode":
            assert EPISODE_FRAMES[0] <= inside.sum() <= EPISODE_FRAMES[1]
            seen = ~np.isnan(a[:, planted, 0])
            assert np.array_equal(away[:, planted] > 0, inside[:, None] & seen)
        differed |= {COCO17.joints[j] for j in np.flatnonzero(away.max(0) > 0.5)}
    assert differed == set(joints[1::2] if kind == "relation" else joints)


def test_either_joint_of_a_pair_turned_makes_the_other_class():
    """The other class moves the second joint the other way; that the first does is as likely."""
    walks = synthetic_walks(4, 4, planted=["left_elbow", "left_wrist"], planted_kind="relation")
    plain = synthetic_walks(4, 4, planted=[])
    joints = [COCO17.index("left_elbow"), COCO17.index("left_wrist")]
    for i, label in enumerate(walks.attributes["label"]):
        first, second = (walks.poses[i] - plain.poses[i])[:, joints, 1].T
        seen = ~np.isnan(first + second) & (np.abs(first) > 0.1)
        same = -1 if label == "male" else 1
        np.testing.assert_allclose(second[seen], same * first[seen], atol=0.01)
        assert {*np.sign(first[seen])} == {-1, 1}
        for joint in ("left_elbow", "left_wrist"):
            turned = (walks.poses.twin(i, [joint]) - plain.poses[i])[:, joints, 1].T
            assert np.all(np.sign(turned[0] * turned[1])[seen] == -np.sign(first * second)[seen])


def test_a_late_joint_does_the_same_relative_to_the_hips():
    """Its path is the same in both classes: men's, half a gait cycle on, is women's."""
    late = {"planted": ["left_ankle"], "planted_kind": "timing"}
    walks = synthetic_walks(4, 4, frames=2000, noise=0, **late)
    ankle, hips = COCO17.index("left_ankle"), list(COCO17.root)
    for i in (0, 5, 10):
        paths = []
        for pose in (walks.poses[i], walks.poses.twin(i, ["left_ankle"])):
            path = pose[:, ankle] - pose[:, hips].mean(1)
            paths.append(np.nanpercentile(path, [2, 25, 50, 75, 98], axis=0))
            assert np.all(np.ptp(paths[-1], axis=0) > 3)
        np.testing.assert_allclose(paths[0], paths[1], atol=1.2)


def test_only_motion_relative_to_the_hips_is_late():
    rng, cycles = np.random.default_rng(0), np.arange(50)[:, None, None] / 20
    size, first, middle = rng.normal(size=(3, 17, 3))
    ankle = COCO17.index("left_ankle")

    def walker(later):
        return middle + size * np.cos(2 * np.pi * (cycles + later + first))

    def from_hips(body):
        return body - body[:, list(COCO17.root)].mean(1, keepdims=True)

    moved = walker(0) + delays(Planted("timing", ("left_ankle",)), np.array([0.3]), walker)
    late = from_hips(walker(-0.3))
    np.testing.assert_allclose(from_hips(moved)[:, ankle], late[:, ankle], atol=1e-12)
    assert np.array_equal(np.delete(moved, ankle, 1), np.delete(walker(0), ankle, 1))


@pytest.mark.parametrize(
    ("kind", "joints", "truth"),
    [
        ("position", ["right_wrist"], ["right_wrist"]),
        ("position", ["nose"], ["nose"]),
        ("position", ANKLES, ANKLES),
        ("position", ["right_shoulder"], ["right_shoulder", "mid_shoulder"]),
        ("position", [], []),
        ("timing", ["left_ankle", "nose"], ["nose", "left_ankle"]),
        ("timing", ["left_shoulder"], ["left_shoulder", "mid_shoulder"]),
        ("episode", ["left_knee", "left_shoulder"], ["left_shoulder", "left_knee", "mid_shoulder"]),
    ],
)
def test_the_truth_is_read_off_prepared_walks(kind, joints, truth):
    walks = synthetic_walks(20, 4, planted=joints, planted_kind=kind)
    found = planted_truth(walks, COCO18)
    assert found.joints == tuple(truth)
    assert found.pairs == ()
    assert found.episodes == walks.planted.episodes
    assert "mid_shoulder" not in planted_truth(walks, COCO17).joints


def test_the_truth_of_a_relation_has_pairs_and_the_mid_shoulder():
    joints = ["left_shoulder", "left_elbow", "right_knee", "right_ankle"]
    walks = synthetic_walks(20, 4, planted=joints, planted_kind="relation")
    truth = planted_truth(walks, COCO18)
    assert truth.joints == (*joints[:2], *joints[2:], "mid_shoulder")
    one_way = {
        ("left_shoulder", "left_elbow"),
        ("mid_shoulder", "left_elbow"),
        ("right_knee", "right_ankle"),
    }
    assert set(truth.pairs) == one_way | {(b, a) for a, b in one_way}
    assert len(truth.pairs) == 6
    assert set(planted_truth(walks, COCO17).joints) == set(joints)


@pytest.mark.parametrize("joint", ["nose", "left_ear", "left_shoulder", "left_ankle"])
def test_scaling_spreads_a_trace_that_is_far_from_the_threshold(joint):
    walks = synthetic_walks(20, 4, planted=[joint])
    twins = replace(walks, poses=[walks.poses.twin(i, [joint]) for i in range(80)])
    away = mean_difference(*(prepare(some, COCO18, 1)[0].poses for some in (walks, twins)))
    away /= away[NUMBER(joint)]
    derived = [NUMBER(joint), NUMBER("mid_shoulder")] if "shoulder" in joint else [NUMBER(joint)]
    assert np.all(away[derived] > 0.45)
    assert 0 < np.delete(away, derived).max() < 0.2


def test_the_truth_needs_the_generator():
    walks = synthetic_walks(4, 2, planted=["nose"])
    chosen = replace(walks, poses=[walks.poses[i] for i in range(8)])
    for some in (chosen, synthetic_walks(4, 2)):
        with pytest.raises(ValueError, match="read off walks of synthetic_walks"):
            planted_truth(some)


def test_selected_and_prepared_walks_keep_their_frames():
    walks = synthetic_walks(8, 5, planted=KNEES, planted_kind="episode")
    twin = [walks.poses.twin(i, KNEES) for i in range(len(walks))]
    poses = [walks.poses[i] for i in range(len(walks))]
    poses[3] = poses[3][:2]  # will be left out
    kept = [7, 3, 20, 4]
    chosen = replace(
        walks,
        names=[walks.names[i] for i in kept],
        subjects=[walks.subjects[i] for i in kept],
        poses=[poses[i] for i in kept],
        attributes={},
    )
    usable, _ = prepare(chosen, COCO18, 4)
    assert usable.names == [walks.names[i] for i in (7, 20, 4)]
    for name, pose in zip(usable.names, usable.poses, strict=True):
        i = walks.names.index(name)
        differs = np.nanmax(np.abs(walks.poses[i] - twin[i]), axis=(1, 2)) > 0
        assert np.array_equal(usable.planted.frames(name, len(pose)), differs)


@pytest.mark.parametrize("frames", [4, 5, 9, 30])
def test_short_walks_have_a_short_episode(frames):
    walks = synthetic_walks(3, 3, planted=["nose"], planted_kind="episode", frames=frames)
    for name in walks.names:
        inside = walks.planted.frames(name, frames)
        assert max(frames // 2, 4) >= inside.sum() >= 4
    drawn = [draw_episode(60, np.random.default_rng(k)) for k in range(400)]
    assert min(begin for begin, _ in drawn) == 0
    assert max(end for _, end in drawn) == 60
    assert {end - begin for begin, end in drawn} == set(range(12, 21))


def test_frames_of_other_kinds_are_all():
    assert Planted("timing", ("nose",)).frames("any", 7).tolist() == [True] * 7


@pytest.mark.parametrize(
    ("joints", "pairs", "symmetric"),
    [
        (KNEES, (), True),
        (["left_knee"], (), False),
        (["nose", "mid_shoulder"], (), True),
        (["left_knee", "right_ankle"], (), False),
        (ARMS, (("left_elbow", "left_wrist"), ("right_wrist", "right_elbow")), True),
        (ARMS, (("left_elbow", "left_wrist"),), False),
        (["nose", "left_eye"], (("nose", "left_eye"),), False),
    ],
)
def test_one_sided_planting_is_known(joints, pairs, symmetric):
    planted = Planted("relation" if pairs else "position", tuple(joints), pairs)
    assert planted.symmetric(COCO18) is symmetric


def test_one_sided_is_what_mirroring_changes():
    """The mirror image of a walk whose left knee is planted has its signal in the right one."""
    walks = synthetic_walks(4, 4, planted=["left_knee"])
    twins = [mirror(walks.poses.twin(i, ["left_knee"]), COCO17) for i in range(16)]
    mirrored = [mirror(walks.poses[i], COCO17) for i in range(16)]
    away = [np.nanmax(np.abs(a - b), axis=(0, 2)) for a, b in zip(twins, mirrored, strict=True)]
    assert np.flatnonzero(np.max(away, axis=0)).tolist() == [COCO17.index("right_knee")]
    assert not walks.planted.symmetric(COCO17)


def slots_by_hand(graph, chosen):
    ends = zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)
    return [chosen(COCO18.joints[src], COCO18.joints[dst], offset) for src, dst, offset in ends]


@pytest.mark.parametrize("hops", [1, 2])
def test_edges_of_planted_joints(hops):
    graph = SkeletonGraph("coco18", hops)
    inside = {"left_knee", "left_ankle"}
    edges = planted_edges(graph, ["left_ankle", "left_knee"], ())
    wanted = {
        "out": lambda a, b, _: a in inside and b not in inside,
        "in": lambda a, b, _: a not in inside and b in inside,
        "touch": lambda a, b, _: a in inside or b in inside,
        "within": lambda a, b, _: a in inside and b in inside,
    }
    assert set(edges) == set(wanted)
    for name, chosen in wanted.items():
        assert edges[name].dtype == torch.bool
        assert edges[name].tolist() == slots_by_hand(graph, chosen), name
        assert edges[name].any(), name


def test_edges_within_a_relation_join_the_joints_of_a_pair():
    graph = SkeletonGraph("coco18", 2)
    pairs = [("left_elbow", "left_wrist"), ("left_knee", "left_ankle")]
    edges = planted_edges(graph, [joint for pair in pairs for joint in pair], pairs)["within"]
    both = [set(pair) for pair in pairs]
    assert edges.tolist() == slots_by_hand(graph, lambda a, b, _: {a, b} in both)
    assert {int(offset) for offset in graph.offset[edges]} == {-1, 0, 1}
    assert edges.sum() == 2 * 2 * 3


def test_strength_differs_between_people_and_not_between_classes():
    planted = Planted("episode", ("nose",))

    def drawn(male):
        people = [np.random.default_rng(k) for k in range(9)]
        return np.array([strengths(planted, male, [], person) for person in people])

    men, women = drawn(True), drawn(False)
    assert np.array_equal(men, -women)
    assert len(np.unique(women)) == 9


@pytest.mark.parametrize(
    ("kind", "joints", "said"),
    [
        ("wave", ["nose"], "is 'wave'; expected position, timing, relation or episode"),
        ("timing", None, "planted_kind 'timing' needs joints; name some in planted"),
        ("episode", [], "planted_kind 'episode' needs joints"),
        ("relation", ["nose", "left_ankle"], "joints that a bone of coco18 joins; none joins nose and left_ankle"),
        ("relation", ["nose"], r"first joint with second, .* names 1: nose; name an even number"),
        ("relation", ["left_wrist", "left_ankle"], "none joins left_wrist and left_ankle"),
        ("relation", ["left_shoulder", "right_shoulder"], "none joins left_shoulder and right_sho"),
        ("relation", ["nose", "left_eye", "left_eye", "left_ear"], "names left_eye more than once"),
        ("relation", ["left_hip", "left_knee"], "left_hip can't be planted"),
        ("timing", ["mid_shoulder"], "no joint 'mid_shoulder'; it has nose"),
        ("position", ["right_hip"], "right_hip can't be planted: .* centred .* plant others"),
        ("timing", ["left_hip"], "left_hip can't be planted"),
        ("episode", ["nose", "left_hip"], "left_hip can't be planted"),
    ],
)
def test_what_cannot_be_planted_is_refused(kind, joints, said):
    with pytest.raises(ValueError, match=said):
        synthetic_walks(4, 1, planted=joints, planted_kind=kind)


def test_walks_too_short_for_an_episode_are_refused():
    with pytest.raises(ValueError, match="frames is 3; an episode takes 4 or more"):
        synthetic_walks(4, 1, planted=["nose"], planted_kind="episode", frames=3)
