"""What the paper claims, each as a difference that should be above 0, and whether the runs of a grid bear it out.

Source: Cosma and Radoi, "Learning to Simplify Spatial-Temporal Graphs in Gait Analysis".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from fastst.runs.comparison import class_weighed, person_differences
from fastst.runs.uncertainty import DRAWS, draw_people, interval, sign_flip_p_value
from fastst.study.grid import Cell
from fastst.study.results import Result, arm_of

# Table I: F1 and MAD with their standard deviations, over three runs with 16 layers and 1 hop.
PAPER_TABLE = {
    "random 75%": ((0.792, 0.063), (0.191, 0.154)),
    "random 50%": ((0.811, 0.073), (0.264, 0.158)),
    "random 25%": ((0.845, 0.079), (0.507, 0.111)),
    "fixed": ((0.858, 0.063), (0.336, 0.15)),
    "learned": ((0.864, 0.044), (0.803, 0.087)),
}
ON_PAR = 0.02  # of macro F1, a third of the paper's standard deviations
_TABLE_AT: dict[str, Any] = {"layers": {16}, "hops": {1}}
_LEGS_AND_ELBOWS = tuple(f"{side}_{joint}" for joint in ("ankle", "knee", "elbow") for side in ("left", "right"))
_HUBS = ("nose", "left_hip", "right_hip")

Key = tuple[str, int, int, int]  # arm, layers, hops, seed


@dataclass(frozen=True, eq=False)
class Table:
    """The runs of a grid, of one variant: those that it asks for, and those that are finished."""

    asked: dict[Key, Cell]
    there: dict[Key, Result]

    @staticmethod
    def of(cells: Sequence[Cell], results: Sequence[Result]) -> Table:
        return Table({key_of(cell): cell for cell in cells}, {key_of(result.cell): result for result in results})

    def keys(self, arm: str | None = None, layers: set[int] | None = None, hops: set[int] | None = None, seed: int | None = None) -> list[Key]:
        """Those asked for, of an arm, of these layers and hops, of a seed; None: of any."""
        wanted = ({arm} if arm else None, layers, hops, None if seed is None else {seed})
        return [key for key in self.asked if all(some is None or value in some for value, some in zip(key, wanted, strict=True))]


def key_of(cell: Cell) -> Key:
    return arm_of(cell.config), cell.config.layers, cell.config.hops, cell.config.seed


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the runs say of a claim.

    Attributes:
        of_seeds: the difference, for every seed of which all runs are finished.
        seeds: how many seeds the grid asks for.
        of_people: (person, class) -> difference of the shares of right answers, for claims about scores.
    """

    of_seeds: dict[int, float]
    seeds: int
    of_people: dict[tuple[Hashable, int], float] | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or what has to be asked beside.

    Attributes:
        where: in the paper.
        words: what is claimed.
        tested: the difference that bears it out if it is above −`margin`.
        find: its evidence; None where the grid has no runs for it.
        controls: it is no claim of the paper.
    """

    where: str
    words: str
    tested: str
    find: Callable[[Table], Evidence | None]
    margin: float = 0.0
    controls: bool = False


def judge(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """{"verdict", "sentence", and the numbers behind it}.

    A claim reproduces if the 95 % interval over seeds (Student's t) lies above −margin, and for scores the interval over people (bootstrap) too; it
    does not if both lie below. Everything else is undecided: three seeds decide only on a difference of more than 2.5 standard deviations. Claims are
    tested one by one, not corrected for how many there are.
    """
    values, n = list(evidence.of_seeds.values()), len(evidence.of_seeds)
    found: dict[str, Any] = {"seeds": n, "difference": mean(values) if values else None, "interval": t_interval(values), "people": None}
    spans = [found["interval"]]
    if evidence.of_people:
        found["people"] = _of_people(evidence.of_people)
        spans.append(found["people"]["interval"])
    if any(span is None for span in spans):
        verdict = "undecided"
    elif all(span[0] > -claim.margin for span in spans):
        verdict = "reproduces"
    else:
        verdict = "does not reproduce" if all(span[1] < -claim.margin for span in spans) else "undecided"
    found["verdict"] = f"undecided at n = {n}" if verdict == "undecided" else verdict
    found["sentence"] = _sentence(found, evidence.seeds)
    return found


def t_interval(values: Sequence[float]) -> list[float] | None:
    """[low, high]: mean ± t · s / √n, inside of which the expected value is in 95 % of all such samples of a normal distribution; None for n < 2."""
    n = len(values)
    if n < 2:
        return None
    half = _t(n - 1) * stdev(values) / math.sqrt(n)
    return [mean(values) - half, mean(values) + half]


def _t(degrees: int) -> float:
    """Student's t below which 97.5 % lie; beyond 10 degrees of freedom by the expansion of Cornish and Fisher (Abramowitz and Stegun, 26.7.5)."""
    few = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
    if degrees <= len(few):
        return few[degrees - 1]
    z, v = 1.959964, degrees
    terms = (
        (z**3 + z) / 4 / v,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3,
    )
    return z + sum(terms)


def _of_people(differences: dict[tuple[Hashable, int], float]) -> dict[str, Any]:
    """Mean, interval and p-value; people are drawn within their classes, and those who walk in several count once in each."""
    values = class_weighed(differences)
    draws = draw_people([label for _, label in differences]) @ values / len(values)
    assert len(draws) == DRAWS
    few = min(sum(label == other for _, other in differences) for _, label in differences) < 2
    return {
        "count": len(values),
        "difference": float(values.mean()),
        "interval": None if few else interval(draws),
        "p_value": sign_flip_p_value(values),
    }


def _sentence(found: dict[str, Any], seeds: int) -> str:
    if not found["seeds"]:
        return f"undecided at n = 0: no seed of {seeds} is finished"
    said = f"{found['verdict']}: {found['difference']:+.3f}"
    of = f"over {found['seeds']} of {seeds} seeds" if found["seeds"] < seeds else f"over {seeds} seeds"
    inside = found["interval"]
    said += f" (95 % interval {inside[0]:+.3f} to {inside[1]:+.3f} {of}" if inside else f" ({of}"
    if (people := found["people"]) is not None:
        span = "{:+.3f} to {:+.3f}".format(*people["interval"]) if people["interval"] else "too few for an interval"
        said += f"; {people['difference']:+.3f} of a person's answers, {span}, p {people['p_value']:.4f} over {people['count']} people"
    return said + ")"


def _over_seeds(table: Table, keys: Callable[[int], list[Key]], value: Callable[[list[Result]], float | None]) -> Evidence | None:
    """`value` of every seed of which all these runs are finished."""
    asked = {seed: found for seed in sorted({key[3] for key in table.asked}) if (found := keys(seed))}
    whole = {seed: [table.there[key] for key in of] for seed, of in asked.items() if all(key in table.there for key in of)}
    values = {seed: value(results) for seed, results in whole.items()}
    return Evidence({seed: found for seed, found in values.items() if found is not None}, len(asked)) if asked else None


def _compared(
    measure: str, others: Sequence[str], layers: set[int] | None = None, hops: set[int] | None = None
) -> Callable[[Table], Evidence | None]:
    """Learned less the mean of the other arms, at the same layers and hops; the mean over these."""

    def settings(table: Table, seed: int) -> list[tuple[int, int]]:
        at = [key[1:3] for key in table.keys("learned", layers, hops, seed)]
        return [(L, k) for L, k in at if all((other, L, k, seed) in table.asked for other in others)]

    def find(table: Table) -> Evidence | None:
        found = _over_seeds(
            table,
            lambda seed: [(arm, L, k, seed) for L, k in settings(table, seed) for arm in ("learned", *others)],
            lambda results: _mean_of(results, measure, "learned") - _mean_of(results, measure, *others),
        )
        if found is None or measure != "macro_f1":
            return found
        of_people: dict[tuple[Hashable, int], list[float]] = {}
        for seed in found.of_seeds:
            for L, k in settings(table, seed):
                ours = table.there["learned", L, k, seed]
                for other in others:
                    for (who, label), value in person_differences(table.there[other, L, k, seed].outcomes, ours.outcomes).items():
                        # Made-up walkers of another seed are other people of the same name.
                        person = (who, seed) if ours.config.data == "synthetic" else who
                        of_people.setdefault((person, label), []).append(value)
        return Evidence(found.of_seeds, found.seeds, {who: mean(values) for who, values in of_people.items()})

    return find


def _mean_of(results: Sequence[Result], measure: str, *arms: str) -> float:
    return mean(result.summary[measure] for result in results if result.arm in arms)


def _random_arms(table: Table) -> list[str]:
    """From the smallest share removed to the largest."""
    return sorted({key[0] for key in table.keys(**_TABLE_AT) if key[0].startswith("random ")}, key=lambda arm: float(arm.split()[1].rstrip("%")))


def _against_random(measure: str) -> Callable[[Table], Evidence | None]:
    return lambda table: _compared(measure, _random_arms(table), **_TABLE_AT)(table) if _random_arms(table) else None


def _against_random_everywhere(table: Table) -> Evidence | None:
    """None where random graphs are at the layers and hops of Table I alone."""
    arms = sorted({key[0] for key in table.asked if key[0].startswith("random ")})
    elsewhere = any(not (key[1] in _TABLE_AT["layers"] and key[2] in _TABLE_AT["hops"]) for key in table.asked if key[0] in arms)
    return _compared("macro_f1", arms)(table) if elsewhere else None


def _random_falls(table: Table) -> Evidence | None:
    arms = _random_arms(table)
    if len(arms) < 2:
        return None
    few, many = arms[0], arms[-1]
    return _over_seeds(
        table,
        lambda seed: [key for arm in (few, many) for key in table.keys(arm, **_TABLE_AT, seed=seed)],
        lambda results: _mean_of(results, "macro_f1", few) - _mean_of(results, "macro_f1", many),
    )


def _depth_smooths(table: Table) -> Evidence | None:
    depths = sorted({key[1] for key in table.keys("fixed")})
    if len(depths) < 2:
        return None
    shallow, deep = depths[0], depths[-1]
    return _over_seeds(
        table,
        lambda seed: table.keys("fixed", {shallow, deep}, seed=seed),
        lambda results: (
            _mean_of([r for r in results if r.config.layers == shallow], "mad", "fixed")
            - _mean_of([r for r in results if r.config.layers == deep], "mad", "fixed")
        ),
    )


def _fewer_edges(table: Table) -> Evidence | None:
    return _over_seeds(table, lambda seed: table.keys("learned", seed=seed), lambda results: 0.5 - _mean_of(results, "kept_share", "learned"))


def _gait_joints_stand_out(table: Table) -> Evidence | None:
    return _over_seeds(
        table,
        lambda seed: table.keys("learned", hops={1}, seed=seed),
        lambda results: _mean_or_none([_stands_out(result, _LEGS_AND_ELBOWS) for result in results]),
    )


def _hubs_gain_with_hops(table: Table) -> Evidence | None:
    reach = sorted({key[2] for key in table.keys("learned")})
    if len(reach) < 2:
        return None

    def gain(results: Sequence[Result]) -> float | None:
        far, near = (_mean_or_none([_stands_out(r, _HUBS) for r in results if r.config.hops == hops]) for hops in (reach[-1], reach[0]))
        return None if far is None or near is None else far - near

    return _over_seeds(table, lambda seed: table.keys("learned", hops={reach[0], reach[-1]}, seed=seed), gain)


def _stands_out(result: Result, joints: Sequence[str]) -> float | None:
    """How much larger the share of kept edges is at these joints than at the others, sent and received; None where the skeleton lacks some."""
    shares: dict[str, list[float]] = {}
    for of_class in result.study["joints"].values():
        for joint, sides in of_class.items():
            shares.setdefault(joint, []).extend(sides.values())
    if not set(joints) < set(shares):
        return None
    chosen = mean(mean(shares[joint]) for joint in joints)
    return chosen - mean(mean(values) for joint, values in shares.items() if joint not in joints)


def _mean_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _more_than_thinning(table: Table) -> Evidence | None:
    def value(results: Sequence[Result]) -> float:
        fixed = {(r.config.layers, r.config.hops): r for r in results if r.arm == "fixed"}
        learned = [r for r in results if r.arm == "learned"]
        return mean(r.summary["mad"] - fixed[r.config.layers, r.config.hops].thinned_distance(r.summary["kept_share"]) for r in learned)

    def keys(seed: int) -> list[Key]:
        both = [(L, k) for _, L, k, _ in table.keys("learned", seed=seed) if ("fixed", L, k, seed) in table.asked]
        return [(arm, L, k, seed) for L, k in both for arm in ("learned", "fixed")]

    return _over_seeds(table, keys, value)


_AT = "16 layers, 1 hop"
CLAIMS = (
    Claim(
        "Fig. 4",
        "On par with or better than the fixed graph in deep models (8 and 16 layers)",
        "F1, learned − fixed, at 8 layers and more",
        _compared("macro_f1", ["fixed"], layers={8, 16}),
        ON_PAR,
    ),
    Claim(
        "Fig. 4",
        "On par with or better than the fixed graph where it is dense (2 and 3 hops)",
        "F1, learned − fixed, at 2 and 3 hops",
        _compared("macro_f1", ["fixed"], hops={2, 3}),
        ON_PAR,
    ),
    Claim(
        "beside Fig. 4",
        "Better than the fixed graph, wherever both were tried",
        "F1, learned − fixed",
        _compared("macro_f1", ["fixed"]),
        controls=True,
    ),
    Claim(
        "beside Table I",
        "Better than random elimination, wherever both were tried",
        "F1, learned − mean of the random graphs",
        _against_random_everywhere,
        controls=True,
    ),
    Claim("Table I", "Better than the original graph", f"F1, learned − fixed, {_AT}", _compared("macro_f1", ["fixed"], **_TABLE_AT)),
    Claim("Table I", "Better than random elimination", f"F1, learned − mean of the random graphs, {_AT}", _against_random("macro_f1")),
    Claim("Table I", "F1 falls the more edges are eliminated at random", f"F1, fewest − most edges removed, {_AT}", _random_falls),
    Claim("Contributions", "Considerably fewer connections", "one half − share of edges kept", _fewer_edges),
    Claim("Fig. 5", "Fixed graphs over-smooth in deep models", "MAD, fixed graph, fewest − most layers", _depth_smooths),
    Claim(
        "Fig. 5",
        "Over-smoothing is alleviated in deep models (8 and 16 layers)",
        "MAD, learned − fixed, at 8 layers and more",
        _compared("mad", ["fixed"], layers={8, 16}),
    ),
    Claim("Table I", "MAD is higher than with the original graph", f"MAD, learned − fixed, {_AT}", _compared("mad", ["fixed"], **_TABLE_AT)),
    Claim("Table I", "MAD is higher than with random elimination", f"MAD, learned − mean of the random graphs, {_AT}", _against_random("mad")),
    Claim(
        "beside Fig. 5",
        "MAD rises by more than what thinning at random does",
        "MAD, learned − fixed graph thinned at random to as many edges",
        _more_than_thinning,
        controls=True,
    ),
    Claim(
        "Fig. 3",
        "With 1 hop ankles, knees and elbows have more connections",
        "share of edges kept, these joints − the others, 1 hop",
        _gait_joints_stand_out,
    ),
    Claim(
        "Fig. 3",
        "More hops make joints with many connections (nose, hips) more important",
        "share of edges kept, these joints − the others, most hops − fewest",
        _hubs_gain_with_hops,
    ),
)


def judged(table: Table) -> list[dict[str, Any]]:
    """A row for every claim that the grid has runs for: where, claim, tested, controls, and what `judge` finds."""
    evidence = [(claim, claim.find(table)) for claim in CLAIMS]
    return [
        {"where": claim.where, "claim": claim.words, "tested": claim.tested, "margin": claim.margin, "controls": claim.controls} | judge(claim, found)
        for claim, found in evidence
        if found is not None
    ]
