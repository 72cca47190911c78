"""The measures of an explanation, each against numbers that are known."""

import itertools

import numpy as np
import pytest
import torch
from graphs import generator

from fastst import SkeletonGraph
from fastst.data.planted import Planted
from fastst.explanation.agreement import agreement_of_folds, agreement_of_seeds
from fastst.explanation.audit import _fidelity, _partners
from fastst.explanation.profiles import JointShares, SlotSums, joint_profile
from fastst.explanation.truth import TruthScores
from fastst.explanation.verdict import verdict
from fastst.nn.rankings import first_of, ranking, share_of
from fastst.runs.probes import probe

GRAPH = SkeletonGraph("coco18", 1)
B, P, T = 3, GRAPH.num_slots, 7
LENGTHS = torch.tensor([7, 4, 1])
EXISTING = GRAPH.edge_mask(T, LENGTHS).float()


def uniform(seed: int = 0) -> torch.Tensor:
    return torch.rand(B, P, T, generator=generator(seed))


def test_the_first_of_a_ranking_have_the_highest_scores_and_exist():
    scores, count = uniform(), torch.tensor([40, 13, 5])
    chosen = first_of(ranking(scores, EXISTING, uniform(1)), count, EXISTING)
    assert chosen.sum((1, 2)).tolist() == count.tolist()
    assert (chosen <= EXISTING).all()
    for b in range(B):
        kept, left = scores[b][chosen[b] > 0], scores[b][(EXISTING[b] > 0) & (chosen[b] == 0)]
        assert kept.min() >= left.max()


def test_equal_scores_are_ranked_at_random_and_not_by_slot():
    order = ranking(torch.ones(B, P, T), EXISTING, uniform(2))
    first = first_of(order, torch.tensor([100, 50, 10]), EXISTING)
    slots = first[0].sum(1).nonzero().flatten()
    assert slots.max() > 60
    assert slots.min() < 10
    assert not torch.equal(order, ranking(torch.ones(B, P, T), EXISTING, uniform(3)))


def test_a_share_is_one_edge_at_least_where_there_are_any():
    assert share_of(torch.tensor([0.0, 1.0, 10.0, 100.0]), 0.05).tolist() == [0, 1, 1, 5]


def test_a_score_that_is_the_truth_scores_1_and_its_reverse_0():
    truth = Planted("position", ("left_knee", "right_knee"))
    out = (torch.isin(GRAPH.src, torch.tensor([13, 14])) & ~torch.isin(GRAPH.dst, torch.tensor([13, 14]))).float()
    for sign, expected in ((1, 1.0), (-1, 0.0)):
        scores = TruthScores(GRAPH, truth)
        scores.add((sign * out[:, None].expand(B, P, T)).contiguous(), EXISTING, uniform())
        found = scores.summary()["edges"]["out"]
        assert found["roc_auc"] == pytest.approx(expected)
        assert found["r_precision"] == pytest.approx(expected)
    expected = np.mean([(out[:, None] * walk).sum() / walk.sum() for walk in EXISTING])
    assert found["share"] == pytest.approx(expected)


def test_random_scores_are_worth_nothing():
    scores = TruthScores(GRAPH, Planted("position", ("left_knee", "right_knee")))
    for seed in range(40):
        scores.add(uniform(seed), EXISTING, uniform(seed + 100))
    edges = scores.summary()["edges"]
    assert edges["out"]["roc_auc"] == pytest.approx(0.5, abs=0.04)
    assert edges["touch"]["precision_5"] == pytest.approx(edges["touch"]["share"], abs=0.06)


def test_frames_are_scored_where_only_some_are_planted():
    scores = TruthScores(GRAPH, Planted("episode", ("left_knee",), episodes={"w": (2, 4)}))
    scores.add_frames(torch.tensor([-0.2, 0.1, 0.9, 0.8]), torch.tensor([0.9, 0.5, 0.1, 0.2]), np.array([False, False, True, True]))
    scores.add_frames(torch.tensor([0.3, 0.1]), torch.tensor([0.3, 0.1]), np.array([False, False]))
    assert scores.summary()["frames"] == {"roc_auc": 1.0, "roc_auc_of_probability": 0.0}


def test_information_is_the_divergence_in_bits():
    sums = SlotSums(GRAPH)
    sums.add(EXISTING * 0.25, EXISTING * 0, EXISTING)
    assert sums.information(0.25)["bits_per_edge"] == pytest.approx(0, abs=1e-7)
    sums = SlotSums(GRAPH)
    sums.add(EXISTING, EXISTING, EXISTING)
    assert sums.information(0.25)["bits_per_edge"] == pytest.approx(2)  # log2(1 / 0.25)
    assert sums.kept_share() == 1
    assert sums.profile().tolist() == [1.0] * P


def test_edges_that_are_all_alike_are_flat_however_far_from_the_prior():
    alike, different = SlotSums(GRAPH), SlotSums(GRAPH)
    alike.add(EXISTING * 0.5, EXISTING, EXISTING)
    assert alike.information(0.2)["flat"]
    assert alike.information(0.2)["bits_per_edge"] > 0.3
    different.add(EXISTING * uniform(), EXISTING, EXISTING)
    assert not different.information(0.5)["flat"]


def test_information_does_not_depend_on_batches():
    together, apart = SlotSums(GRAPH), SlotSums(GRAPH)
    p = EXISTING * uniform()
    together.add(p, EXISTING, EXISTING)
    for b in range(B):
        apart.add(p[b : b + 1], EXISTING[b : b + 1], EXISTING[b : b + 1])
    for prior in (None, 0.2):
        assert apart.information(prior)["bits_per_edge"] == pytest.approx(together.information(prior)["bits_per_edge"])


def test_joints_send_and_receive_over_the_edges_to_others():
    knee, ankle = GRAPH.layout.index("left_knee"), GRAPH.layout.index("left_ankle")
    profile = torch.full((P,), 0.2, dtype=torch.float64)
    profile[(GRAPH.src == knee) & (GRAPH.dst == ankle)] = 1.0
    profile[(GRAPH.src == knee) & (GRAPH.dst == knee)] = 1.0  # to itself in the next frame: neither sent nor received
    joints = joint_profile(GRAPH, profile, 0.2)
    assert joints["left_knee"] == {"sends": pytest.approx(0.4), "receives": pytest.approx(0)}  # to the hip, too
    assert joints["left_ankle"] == {"sends": pytest.approx(0), "receives": pytest.approx(0.8)}


def test_a_persons_joints_keep_a_share_of_the_edges_to_others():
    kept = (uniform(5) < 0.3).float() * EXISTING
    person = torch.tensor([1, 0, 1])
    shares = JointShares(GRAPH, 2)
    shares.add(kept[:2], EXISTING[:2], person[:2])
    shares.add(kept[2:], EXISTING[2:], person[2:])
    found, joints = shares.summary(), GRAPH.layout.joints
    counts = {(who, j, side): [0, 0] for who in (0, 1) for j in (*range(len(joints)), "all") for side in ("sends", "receives")}
    for b, p, t in EXISTING.nonzero().tolist():
        src, dst = int(GRAPH.src[p]), int(GRAPH.dst[p])
        if src != dst:
            for key in ((src, "sends"), (dst, "receives"), ("all", "sends")):
                counts[int(person[b]), *key][0] += int(kept[b, p, t])
                counts[int(person[b]), *key][1] += 1
    assert found["people"] == 2
    for (j, joint), side in itertools.product(enumerate(joints), ("sends", "receives")):
        of_people = [counts[who, j, side][0] / counts[who, j, side][1] for who in (0, 1)]
        mean, low, high = found["joints"][joint][side]
        assert mean == pytest.approx(sum(of_people) / 2)
        assert [low, high] == pytest.approx(sorted(of_people))  # a quarter of the draws are one person twice
    assert found["expected"] == pytest.approx(sum(counts[who, "all", "sends"][0] / counts[who, "all", "sends"][1] for who in (0, 1)) / 2)


def test_intervals_of_joints_are_those_of_a_mean_over_people():
    people = 60
    kept = (torch.rand(people, P, T, generator=generator(6)) < torch.rand(people, 1, 1, generator=generator(7))).float()
    existing = GRAPH.edge_mask(T).float().expand(people, P, T)
    shares = JointShares(GRAPH, people)
    shares.add(kept * existing, existing, torch.arange(people))
    found = shares.summary()
    of_people = []
    for b in range(people):
        alone = JointShares(GRAPH, 1)
        alone.add((kept * existing)[b : b + 1], existing[b : b + 1], torch.tensor([0]))
        mean, low, high = alone.summary()["joints"]["nose"]["sends"]
        assert mean == pytest.approx(low) == pytest.approx(high)  # one person has no spread
        of_people.append(mean)
    mean, low, high = found["joints"]["nose"]["sends"]
    error = np.std(of_people, ddof=1) / np.sqrt(people)
    assert mean == pytest.approx(np.mean(of_people))
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.2 * error)


def test_fidelity_is_that_of_torch_geometric():
    from torch_geometric.explain import Explainer, Explanation
    from torch_geometric.explain.metric import characterization_score, fidelity

    classes = torch.randint(2, (40,), generator=generator())
    answers = {arm: torch.randint(2, (40,), generator=generator(seed)) for seed, arm in enumerate(("all_edges", "kept", "complement"), 1)}
    found = _fidelity({arm: torch.nn.functional.one_hot(answer, 2).double() for arm, answer in answers.items()}, classes)

    class Phenomenon(Explainer):
        """Of three answers that are known, the one that PyG asks for: with all, with the explanation's, with the other edges."""

        def __init__(self):
            from torch_geometric.explain.config import ExplanationType, ModelConfig

            self.explanation_type = ExplanationType.phenomenon
            self.model_config = ModelConfig(mode="multiclass_classification", task_level="graph", return_type="raw")

        def get_prediction(self, *_, **__):
            return torch.nn.functional.one_hot(answers["all_edges"], 2).float()

        def get_masked_prediction(self, x, edge_index, node_mask=None, edge_mask=None, **_):
            return torch.nn.functional.one_hot(answers["kept" if edge_mask[0] == 1 else "complement"], 2).float()

    explanation = Explanation(
        _model_args=[], x=torch.zeros(1, 1), edge_index=torch.zeros(2, 2, dtype=torch.long), edge_mask=torch.tensor([1.0, 0.0]), target=classes
    )
    plus, minus = fidelity(Phenomenon(), explanation)
    assert found["fidelity_plus"] == pytest.approx(plus)
    assert found["fidelity_minus"] == pytest.approx(minus)
    expected = characterization_score(torch.tensor(plus), torch.tensor(minus)).item()
    assert found["characterization"] == pytest.approx(expected)


def test_a_probe_finds_a_line_and_nothing_where_there_is_none():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 400)
    carrying = rng.normal(size=(400, 5)) + classes[:, None] * np.array([3, 0, 0, 0, 0])
    empty = rng.normal(size=(400, 5))
    constant = np.ones((400, 2))
    for features, low, high in ((carrying, 0.88, 1.0), (empty, 0.35, 0.65), (constant, 0.5, 0.5)):
        found = probe(features[:200], classes[:200], features[200:], classes[200:], 2)["balanced_accuracy"]
        assert low <= found <= high


def people(**right: float | tuple[float, ...]) -> list[dict]:
    """Sixteen people of each of two classes, with the same share of right answers, or with different ones in turn."""
    rows = []
    for i, name in itertools.product(range(16), "ab"):
        shares = {arm: share if isinstance(share, float) else share[i % len(share)] for arm, share in right.items()}
        others = {"all_edges": 0.5, "without_likeliest": 0.5, "without_any": 0.5}
        rows.append({"subject": f"{name}{i}", "class": name, "walks": 3, **others, **shares})
    return rows


FLAT, NOT_FLAT = {"flat": True}, {"flat": False}


@pytest.mark.parametrize(
    ("rows", "information", "learned", "code", "words"),
    [
        (people(kept=(1.0, 0.8), no_edges=0.5, random=(0.6, 0.7)), NOT_FLAT, True, "edges_decide", "rests on these edges: balanced accuracy is 0.90"),
        (people(kept=(0.95, 0.85), no_edges=0.5, random=0.9), NOT_FLAT, True, "any_edges_do", "The decision does not depend on which edges"),
        (people(kept=0.9, no_edges=0.5, random=0.9, without_likeliest=0.6, without_any=0.9), NOT_FLAT, True, "edges_decide", "on the likeliest of"),
        (people(kept=(1.0, 0.5), no_edges=0.5, random=(0.5, 1.0)), NOT_FLAT, True, "any_edges_do", "It is not shown that the decision depends on w"),
        (people(kept=(1.0, 0.8), no_edges=0.5, random=(0.8, 1.0)), FLAT, True, "no_edge_stands_out", "every edge is about as likely to be kept"),
        (people(kept=(0.95, 0.85), no_edges=0.9, random=0.5), NOT_FLAT, True, "graph_does_not_matter", "The decision does not depend on the graph"),
        (people(kept=(1.0, 0.0), no_edges=0.5, random=0.5), NOT_FLAT, True, "no_edge_stands_out", "not shown to do better than guessing"),
        (
            people(kept=1.0, no_edges=0.5, random=0.5, mask_alone=0.9),
            NOT_FLAT,
            True,
            "edges_spell_the_class",
            "0.90 with them and no poses at all. The",
        ),
        (
            people(kept=1.0, no_edges=0.5, random=0.5, mask_alone=0.6, other_class=(0.2, 0.3)),
            NOT_FLAT,
            True,
            "edges_spell_the_class",
            "goes with the edges .balanced accuracy 0.25",
        ),
        (people(kept=1.0, no_edges=0.5, random=0.5, mask_alone=0.6, other_class=(0.4, 0.6)), NOT_FLAT, True, "edges_decide", "rests on these edges"),
        (people(kept=1.0, no_edges=0.5, random=0.5), NOT_FLAT, False, "not_learned", "not learned"),
        (people(kept=1.0, no_edges=0.5, random=0.5)[:5], NOT_FLAT, True, "too_few_people", r"Too few people were tested on \(5"),
        (people(kept=1.0, no_edges=0.5, random=0.5)[::2], NOT_FLAT, True, "too_few_people", "Too few people"),
    ],
)
def test_verdicts(rows, information, learned, code, words):
    import re

    found = verdict(rows, information, learned)
    assert found["code"] == code
    assert re.search(words, found["sentence"])


def test_of_many_classes_a_wrong_answer_is_not_that_of_the_edges():
    arms = {"no_edges": 0.1, "random": 0.1, "all_edges": 0.1, "without_likeliest": 0.1, "without_any": 0.1, "mask_alone": 0.1, "other_class": 0.0}
    rows = [{"subject": f"{c}{i}", "class": c, "walks": 1, "kept": 0.8, **arms} for c in "abcdefghij" for i in range(4)]
    assert verdict(rows, NOT_FLAT, True)["code"] == "edges_decide"


def test_people_are_drawn_with_all_of_their_classes():
    """Two people with walks of three classes are two people, not six."""
    poor = dict.fromkeys(("no_edges", "random", "all_edges", "without_likeliest", "without_any"), 0.3)
    rows = [{"subject": s, "class": c, "walks": 1, "kept": 1.0, **poor} for s in "ab" for c in "xyz"]
    assert verdict(rows, NOT_FLAT, True)["code"] == "too_few_people"
    many = [{**row, "subject": f"{row['subject']}{i}", "kept": float(i % 3 > 0)} for row in rows for i in range(9)]
    found = verdict(many, NOT_FLAT, True)
    assert found["code"] == "edges_decide"
    assert found["evidence"]["balanced_accuracy"]["kept"] == pytest.approx(2 / 3)
    low, high = found["evidence"]["kept"]
    assert low < 0.5  # 18 people, whose classes are right or wrong together
    assert high > 0.8


def test_folds_agree_where_their_slots_do():
    def one(values: list[float]) -> dict:
        slots = [{"from": "a", "to": "b", "offset": 0, "probability": value} for value in values]
        return {"slots": slots, "joints": {"a": {"sends": values[0], "receives": 0.0}, "b": {"sends": 0.0, "receives": values[1]}}}

    assert agreement_of_folds([one([0.1, 0.2, 0.3])]) is None
    same = agreement_of_folds([one([0.1, 0.2, 0.3]), one([0.2, 0.4, 0.6])])
    assert same["slots"] == pytest.approx(1)
    assert same["joints"] == pytest.approx(1)
    assert agreement_of_folds([one([0.1, 0.2, 0.3]), one([0.3, 0.2, 0.1])])["slots"] == pytest.approx(-1)
    assert agreement_of_folds([one([0.1, 0.2, 0.3]), one([0.3, 0.3, 0.3])])["slots"] is None


def small_task(tmp_path, people: int = 8):
    from fastst.config import TrainConfig
    from fastst.runs.load import load_task

    return load_task(TrainConfig(people=people, walks_per_person=2, out=tmp_path), progress=False)


def test_agreement_of_a_model_with_itself_is_whole(tmp_path):
    from fastst.nn import GraphClassifier
    from fastst.runs.predictions import Asked

    task = small_task(tmp_path)
    torch.manual_seed(0)
    first, second = (GraphClassifier("coco18", 2, hidden=8, heads=2, layers=2) for _ in range(2))
    asked = Asked(frames=20, seed=0)
    itself = agreement_of_seeds([first, first], task, [0, 1], asked)
    assert itself["edges"] == pytest.approx(1)
    assert itself["slots"] == pytest.approx(1)
    assert agreement_of_seeds([first, second], task, [0, 1], asked)["edges"] < 0.9


def test_partners_are_other_people_of_the_class_that_is_asked_for(tmp_path):
    from fastst.data.batches import even_windows

    task = small_task(tmp_path)
    windows = even_windows(task.lengths, range(len(task.walks)), 30)
    same, other = _partners(task, windows, windows, 3)
    for mine, of_same, of_other in zip(windows.walk, same.walk, other.walk, strict=True):
        assert task.walks.subjects[mine] != task.walks.subjects[of_other]
        assert task.classes[mine] != task.classes[of_other]
        assert task.classes[mine] == task.classes[of_same]
