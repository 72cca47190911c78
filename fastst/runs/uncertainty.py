"""How sure a score is: intervals by a bootstrap over people, and permutation tests. People are the units throughout, since the walks of one person
are alike: as many walks of fewer people say less."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from fastst.runs.outcomes import Outcomes

DRAWS = 2000
_INSIDE = 95  # percent
FEWEST_PEOPLE, FEWEST_OF_A_CLASS = 6, 2  # for an interval
_EXACT = 14  # people up to whom all flips of signs are tried
_FLIPS = 20_000
_AT_ONCE = 100
_ROUNDING = 1e-9


def uncertainty(outcomes: Outcomes) -> dict[str, Any]:
    """{"intervals": of `intervals`, "p_value": of `p_value`}; without intervals also "intervals_reason"."""
    reason = too_few(outcomes)
    found = {"intervals": intervals(outcomes)} if reason is None else {"intervals": None, "intervals_reason": reason}
    return found | {"p_value": p_value(outcomes)}


def intervals(outcomes: Outcomes) -> dict[str, Any] | None:
    """95 % intervals [low, high] of balanced_accuracy and macro_f1, and of both under per_person.

    People are drawn again and again with replacement, each with all walks, among those who walk in the same classes, so that no class is lost;
    the interval is what lies inside of 95 % of the draws (percentile bootstrap, Efron 1979). With few people it is too narrow: of 400 made-up tests
    with 8 people in two classes it held the true recall in 80 %, with 12 in 86 %, with 20 in 94 %, with 40 in 96 %. Where nobody is wrong all draws
    are alike, and it doesn't say how rare mistakes are.

    Returns:
        None with fewer than 6 people, or fewer than 2 in a class: the draws would say little.
    """
    if too_few(outcomes) is not None:
        return None
    people = _numbers(outcomes.subjects)
    times = draw_people(_kinds(outcomes, people))
    found = {}
    for what, of in (("walks", outcomes), ("people", outcomes.of_people())):
        right, true, said = (times @ counts for counts in _counts(of, people))
        found[what] = {"balanced_accuracy": interval(_recall(right, true)), "macro_f1": interval(_f1(right, true, said))}
    return {**found["walks"], "per_person": found["people"]}


def too_few(outcomes: Outcomes) -> str | None:
    """Why there are no intervals; None where there are."""
    count = len(set(outcomes.subjects))
    smallest = min(Counter(outcomes.of_people().classes.tolist()).values())
    if count < FEWEST_PEOPLE or smallest < FEWEST_OF_A_CLASS:
        return f"too few people for an interval ({count}, {smallest} in the smallest class)"
    return None


def draw_people(kinds: Sequence[Hashable]) -> np.ndarray:
    """How often every person is drawn, with replacement, among those of the same kind.  # [draws, people]"""
    rng = np.random.default_rng(0)
    members: dict[Any, list[int]] = {}
    for person, kind in enumerate(kinds):
        members.setdefault(kind, []).append(person)
    times = np.zeros((DRAWS, len(kinds)))
    for _, alike in sorted(members.items()):
        drawn = rng.integers(len(alike), size=(DRAWS, len(alike)))
        row = np.arange(DRAWS)[:, None] * len(alike)
        times[:, alike] = np.bincount((row + drawn).ravel(), minlength=DRAWS * len(alike)).reshape(DRAWS, len(alike))
    return times


def interval(values: np.ndarray) -> list[float]:
    """[low, high], inside of which 95 % of the values are; rounded, so that a difference of 0 is exactly that."""
    outside = (100 - _INSIDE) / 2
    return np.percentile(values, [outside, 100 - outside]).round(12).tolist()


def p_value(outcomes: Outcomes) -> float | None:
    """How often the balanced accuracy is as high with the classes dealt anew among the people, the predictions staying as they are.

    It tests whether what was said of these people has anything to do with their classes: below 0.05 chance alone would seldom do as well. It says
    nothing of what a training on other classes would find (`--permuted` trains one), nor of why the two go together. People have each other's
    classes; where somebody walks in several, every person's walks have them in another order. p = (1 + as high) / (1 + 2000 deals), as in Phipson
    and Smyth (2010); None where all are of one class.
    """
    outcomes = outcomes.chosen(sorted(range(len(outcomes)), key=lambda row: (outcomes.subjects[row], outcomes.walks[row])))
    people, K = _numbers(outcomes.subjects), len(outcomes.class_names)
    unit = np.array([people[subject] for subject in outcomes.subjects])
    class_of = np.full(len(people), -1)
    class_of[unit] = outcomes.classes
    one_each = (class_of[unit] == outcomes.classes).all()
    within = np.zeros(len(people), np.int64) if one_each else unit
    unit, classes = (unit, class_of) if one_each else (np.arange(len(outcomes)), outcomes.classes)
    if len(set(classes.tolist())) < 2:
        return None
    said = np.zeros((len(classes), K))
    np.add.at(said, (unit, outcomes.predicted), 1)
    order = np.argsort(within, kind="stable")
    within, classes, said = within[order], classes[order], said[order]
    observed = _recall_of_dealt(classes[None], said)[0]
    as_high = sum(int((_recall_of_dealt(dealt, said) >= observed - _ROUNDING).sum()) for dealt in _deals(classes, within))
    return (1 + as_high) / (1 + DRAWS)


def sign_flip_p_value(differences: np.ndarray) -> float:
    """How often the mean difference is as far from 0 if every person's one might as well have the other sign (two-sided).

    It tests whether two runs do equally well on the same people. Up to 14 people all flips are tried, else 20,000 random ones.
    Differences, one a person: `[n]`.
    """
    n, observed = len(differences), abs(differences.sum()) - _ROUNDING
    if n <= _EXACT:
        flips = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
        return float((abs(flips @ differences) >= observed).mean())
    rng = np.random.default_rng(0)
    flips = rng.integers(0, 2, size=(_FLIPS, n), dtype=np.int8)
    return float((1 + (abs((2.0 * flips - 1) @ differences) >= observed).sum()) / (1 + _FLIPS))


def in_words(scores: dict[str, Any], measure: str = "balanced_accuracy") -> str:
    """A score with its interval, such as "0.91 (95 % interval 0.83 to 0.97)"."""
    found = scores["intervals"]
    if found is None:
        return f"{scores[measure]:.2f}"
    low, high = found[measure]
    inside = f"{_INSIDE} % interval {low:.2f} to {high:.2f}" if low < high else "no interval: it is the same whoever is drawn"
    return f"{scores[measure]:.2f} ({inside})"


def _numbers(subjects: Sequence[str]) -> dict[str, int]:
    """In the order of their names, so that draws don't depend on the order of the walks."""
    return {subject: i for i, subject in enumerate(sorted(set(subjects)))}


def _kinds(outcomes: Outcomes, people: dict[str, int]) -> list[tuple[int, ...]]:
    """The classes in which every person walks."""
    walked: list[set[int]] = [set() for _ in people]
    for subject, true in zip(outcomes.subjects, outcomes.classes.tolist(), strict=True):
        walked[people[subject]].add(true)
    return [tuple(sorted(classes)) for classes in walked]


def _counts(outcomes: Outcomes, people: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every person and class, how many were right, are of it, and were said to be.  # [people, classes] each"""
    person = np.array([people[subject] for subject in outcomes.subjects])
    right, true, said = (np.zeros((len(people), len(outcomes.class_names))) for _ in range(3))
    np.add.at(right, (person, outcomes.classes), outcomes.classes == outcomes.predicted)
    np.add.at(true, (person, outcomes.classes), 1)
    np.add.at(said, (person, outcomes.predicted), 1)
    return right, true, said


def _recall(right: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Balanced accuracy: the mean over the classes that occur of right / true.  # [draws, classes] twice -> [draws]"""
    occurs = true > 0
    return (right / np.maximum(true, 1)).sum(1) / np.maximum(occurs.sum(1), 1)


def _f1(right: np.ndarray, true: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Macro F1: the mean over the classes that occur or are said of 2 right / (true + said).  # [draws, classes] each -> [draws]"""
    either = true + said
    return (2 * right / np.maximum(either, 1)).sum(1) / np.maximum((either > 0).sum(1), 1)


def _deals(classes: np.ndarray, within: np.ndarray) -> Iterator[np.ndarray]:
    """The classes dealt anew among the units of the same group, which are side by side.  # [at once, units]"""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS // _AT_ONCE):
        yield classes[np.argsort(within + rng.random((_AT_ONCE, len(classes))), axis=1)]


def _recall_of_dealt(dealt: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Balanced accuracy if the units had these classes `[deals, units]`; said `[units, classes]` are counts.  # [deals]"""
    walks = said.sum(1)
    right, true = (np.stack([(dealt == c) @ (said[:, c] if own else walks) for c in range(said.shape[1])], 1) for own in (True, False))
    return _recall(right, true)
