"""Intervals and tests against numbers that are known: by hand, by counting every case, by many made-up data sets."""

import itertools
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_recall

from fastst.runs.outcomes import Outcomes
from fastst.runs.uncertainty import DRAWS, _counts, _f1, _numbers, _recall, draw_people, intervals, p_value, sign_flip_p_value, too_few, uncertainty


def outcomes(subjects: list[str], classes: list[int], predicted: list[int], num_classes: int = 2) -> Outcomes:
    probabilities = np.eye(num_classes)[predicted]
    names = [f"class {i}" for i in range(num_classes)]
    walks = [f"walk {i}" for i in range(len(subjects))]
    return Outcomes(names, ["0"] * len(walks), walks, subjects, np.array(classes), probabilities)


def random_outcomes(rng: np.random.Generator, people: int = 10, walks: int = 3, num_classes: int = 3, several: bool = False) -> Outcomes:
    who = np.repeat(np.arange(people), walks)
    classes = rng.integers(num_classes, size=len(who)) if several else (np.arange(people) % num_classes)[who]
    return outcomes([f"p{i}" for i in who], classes.tolist(), rng.integers(num_classes, size=len(who)).tolist(), num_classes)


def test_people_are_drawn_with_replacement_among_their_kind():
    times = draw_people(["a", "b", "a", "b", "b"])
    assert times.shape == (DRAWS, 5)
    assert (times[:, [0, 2]].sum(1) == 2).all()
    assert (times[:, [1, 3, 4]].sum(1) == 3).all()
    np.testing.assert_allclose(times.mean(0), 1, atol=0.05)
    assert (times[:, 0] == 2).mean() == pytest.approx(1 / 4, abs=0.04)
    assert (times[:, 1] == 3).mean() == pytest.approx(1 / 27, abs=0.02)


@pytest.mark.parametrize("several", [False, True])
def test_the_scores_of_counts_are_torchmetrics(several: bool):
    rng = np.random.default_rng(3)
    for _ in range(5):
        made = random_outcomes(rng, several=several)
        counts = _counts(made, _numbers(made.subjects))
        right, true, said = (count.sum(0)[None] for count in counts)
        predicted, classes = torch.from_numpy(made.predicted), torch.from_numpy(made.classes)
        recall = multiclass_recall(predicted, classes, 3, average="none")[torch.bincount(classes, minlength=3) > 0].mean().item()
        assert _recall(right, true)[0] == pytest.approx(recall)
        assert _f1(right, true, said)[0] == pytest.approx(multiclass_f1_score(predicted, classes, 3, average="macro").item())


def test_the_interval_is_that_of_a_binomial():
    """16 people of a class, half of them right, with one walk each; all of the other class are right: (1 + Binomial(16, 1/2) / 16) / 2."""
    subjects = [f"p{i}" for i in range(32)]
    classes = [i // 16 for i in range(32)]
    predicted = [i % 2 for i in range(16)] + [1] * 16
    found = intervals(outcomes(subjects, classes, predicted))
    assert found["balanced_accuracy"] == [(1 + 4 / 16) / 2, (1 + 12 / 16) / 2]  # of Binomial(16, 1/2) 1.1 % are below 4, 3.8 % below 5
    assert found["per_person"]["balanced_accuracy"] == found["balanced_accuracy"]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """40 people who are right with a probability of their own, 0.8 in the mean."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(100):
        who = np.repeat(np.arange(40), 3)
        right = rng.random(len(who)) < rng.beta(4, 1, size=40)[who]
        found = intervals(outcomes([f"p{i:02d}" for i in who], (who % 2).tolist(), np.where(right, who % 2, 1 - who % 2).tolist()))
        low, high = found["balanced_accuracy"]
        inside.append(low <= 0.8 <= high)
    assert 0.88 <= np.mean(inside) <= 1


def test_walks_of_one_person_are_no_further_evidence():
    """The same people with ten walks each, all alike: the same interval, where ten times as many people have a narrower one."""
    subjects, classes, predicted = [f"p{i}" for i in range(20)], [i % 2 for i in range(20)], [i % 2 if i > 5 else 0 for i in range(20)]
    once, often = (intervals(outcomes(subjects * n, classes * n, predicted * n)) for n in (1, 10))
    assert once == often
    many = intervals(outcomes([f"{who}-{n}" for n in range(10) for who in subjects], classes * 10, predicted * 10))
    low, high = once["balanced_accuracy"]
    assert many["balanced_accuracy"][1] - many["balanced_accuracy"][0] < 0.5 * (high - low)


def test_a_person_is_judged_by_the_mean_of_the_probabilities():
    """Two of three walks are a little wrong, the third is very right."""
    made = outcomes(["a"] * 3 + [f"p{i}" for i in range(7)], [0] * 3 + [i % 2 for i in range(7)], [0] * 3 + [i % 2 for i in range(7)])
    made.probabilities[:3] = [[0.4, 0.6], [0.4, 0.6], [0.9, 0.1]]
    found, metrics = intervals(made), made.metrics()
    assert metrics["accuracy"] == pytest.approx(8 / 10)
    assert metrics["per_person"]["accuracy"] == 1
    assert found["per_person"]["balanced_accuracy"] == [1, 1]
    assert found["balanced_accuracy"][0] < 1


def test_too_few_people_have_no_interval():
    few = outcomes(["a", "b", "c", "d"], [0, 0, 1, 1], [0, 0, 1, 1])
    assert uncertainty(few)["intervals"] is None
    assert uncertainty(few)["intervals_reason"] == "too few people for an interval (4, 2 in the smallest class)"
    lonely = outcomes([f"p{i}" for i in range(8)], [0] * 7 + [1], [0] * 8)
    assert too_few(lonely) == "too few people for an interval (8, 1 in the smallest class)"


def exact(made: Outcomes, deals: list[list[int]]) -> float:
    """The share of all these deals in which the balanced accuracy is as high as in the first."""
    scores = []
    for classes in deals:
        right = np.array(classes) == made.predicted
        scores.append(np.mean([right[np.array(classes) == c].mean() for c in set(classes)]))
    return float(np.mean(np.array(scores) >= scores[0] - 1e-9))


def test_p_of_people_is_that_of_all_deals():
    people = [0, 0, 1, 1, 2, 3, 3, 4, 5]
    classes = [0, 0, 1, 0, 1, 1]
    made = outcomes([f"p{i}" for i in people], [classes[i] for i in people], [0, 0, 1, 0, 0, 1, 1, 1, 0])
    deals = [[dealt[i] for i in people] for dealt in itertools.permutations(classes)]
    assert p_value(made) == pytest.approx(exact(made, deals), abs=0.03)


def test_p_where_people_walk_in_several_classes_is_that_of_all_orders_of_their_walks():
    made = outcomes(["a"] * 3 + ["b"] * 3, [0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 1, 1])
    orders = [list(itertools.permutations(made.classes[part].tolist())) for part in (slice(0, 3), slice(3, 6))]
    deals = [[*a, *b] for a, b in itertools.product(*orders)]
    assert p_value(made) == pytest.approx(exact(made, deals), abs=0.03)


@pytest.mark.parametrize("several", [False, True])
def test_p_is_uniform_where_nothing_is_to_be_found(several: bool):
    """Or seldomer small than that, where few scores are possible and many deals have the same."""
    rng = np.random.default_rng(0)
    found = np.array([p_value(random_outcomes(rng, people=12, walks=2, num_classes=2, several=several)) for _ in range(200)])
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() <= level + 3 * (level * (1 - level) / 200) ** 0.5
    assert found.mean() == pytest.approx(0.67 if several else 0.55, abs=0.1)


def test_p_of_a_perfect_test_and_of_a_single_class():
    subjects = [f"p{i}" for i in range(40)]
    assert p_value(outcomes(subjects, [i % 2 for i in range(40)], [i % 2 for i in range(40)])) == pytest.approx(1 / (DRAWS + 1))
    assert p_value(outcomes(subjects, [0] * 40, [i % 2 for i in range(40)])) is None
    assert p_value(outcomes(subjects, [i % 2 for i in range(40)], [1] * 40)) == 1


def test_flips_of_signs():
    assert sign_flip_p_value(np.ones(5)) == 2 / 2**5
    assert sign_flip_p_value(np.zeros(3)) == 1
    assert sign_flip_p_value(np.array([1.0, 1.0, -0.5])) == 4 / 8  # |± 1 ± 1 ± 0.5| is 2.5 twice, 1.5 twice and 0.5 four times
    many = np.array([0.2] * 16 + [-0.2] * 4)
    coin = sum(math.comb(20, k) for k in (0, 1, 2, 3, 4, 16, 17, 18, 19, 20)) / 2**20
    assert sign_flip_p_value(many) == pytest.approx(coin, abs=0.003)
    assert sign_flip_p_value(many) == sign_flip_p_value(-many)
