"""An explanation is a claim that can be wrong: what the kept edges are worth beside none, all, others', and as many random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from fastst.data.batches import Batch, Windows, even_windows
from fastst.explanation.agreement import agreement_of_seeds
from fastst.explanation.profiles import JointShares, SlotSums, joint_profile
from fastst.explanation.truth import TruthScores
from fastst.explanation.verdict import people_scores, verdict
from fastst.nn import GraphClassifier, LearnedGraph
from fastst.nn.rankings import first_of, ranking, share_of
from fastst.ops.random import edge_uniform
from fastst.runs.load import Task
from fastst.runs.metrics import classification_metrics, mean_over_groups
from fastst.runs.predictions import Asked, batches, evaluating, row_of_walk
from fastst.runs.probes import probe
from fastst.runs.trainer import Finished

ARMS = ("kept", "all_edges", "no_edges", "random", "complement", "other_same_class", "other_class", "mask_alone")
ORDERS = ("by_probability", "random", "reversed")
INSERTED = (0.05, 0.1, 0.25, 0.5)  # shares of the existing edges
DELETED = (0.1, 0.25, 0.5, 0.9)  # shares of the kept edges
_NO_EST = "left out: the exact definition in arXiv 2601.20815 could not be had"


def audit(finished: Finished, permuted: dict[str, Any] | None = None, others: list[GraphClassifier] | None = None) -> dict[str, Any]:
    """What the run's summary says under `audit`, and under `truth` where joints were planted.

    Args:
        permuted: the audit of the same training with the classes dealt out anew, if there is one.
        others: models of the same training from other seeds.

    Returns:
        {"audit": …, "truth": …}; scores are of walks of the people tested on.
    """
    model, task, walks, asked = finished.model, finished.task, finished.test_walks, finished.asked
    learned = isinstance(model.source, LearnedGraph)
    prior = finished.config.keep if finished.config.has_information_term else None
    with evaluating(model), torch.no_grad():
        seen = _look(model, task, walks, asked)
        scores = {arm: _score(probabilities, task, walks) for arm, probabilities in seen.walk_probabilities.items()}
        kept = seen.walk_probabilities["kept"]
        people = people_scores(task, walks, seen.walk_probabilities)
        profile = seen.slots.profile()
        information = seen.slots.information(prior)
        result: dict[str, Any] = {
            **{arm: scores.get(arm) for arm in ARMS},  # None where nobody else is there to take edges from
            "insertion": _curves("insertion", INSERTED, scores),
            "deletion": _curves("deletion", DELETED, scores),
            **_fidelity(seen.walk_probabilities, torch.from_numpy(task.classes[walks])),
            "est": None,
            "est_reason": _NO_EST,
            "mask_probe": _mask_probe(finished) if learned else None,
            "pose_probe": _pose_probe(finished),
            "permuted": permuted,
            "calibration": _calibration(kept, torch.from_numpy(task.classes[walks])),
            "agreement": agreement_of_seeds([model, *others], task, walks, asked) if others and learned else None,
            "information": information,
            "kept_share": seen.slots.kept_share(),
            "joints": joint_profile(model.graph, profile, prior if prior is not None else seen.slots.kept_share()),
            "kept_of_joints": seen.joints.summary(),
            "slots": _slot_rows(model, profile),
            "people": people,
        }
        if result["agreement"] is None:
            result["agreement_reason"] = "one seed and no folds: --seeds 2 trains a second model to compare with"
        result["verdict"] = verdict(people, information, learned)
    found: dict[str, Any] = {"audit": result}
    if seen.truth is not None:
        found["truth"] = seen.truth.summary()
    return found


def probabilities_of_arms(model: GraphClassifier, task: Task, walks: list[int], asked: Asked) -> dict[str, Tensor]:
    """What the model says of walks with each of the graphs in `ARMS`, as in the audit; other people's edges are of anybody in the task.

    Returns:
        arm -> class probabilities; without an arm for which somebody has no partner.  # [walks, classes], float64
    """
    with evaluating(model), torch.no_grad():
        return _look(model, task, walks, asked, curves=False, among=list(range(len(task.walks)))).walk_probabilities


@dataclass
class _Seen:
    """What all arms say of the walks, and what the keep probabilities look like."""

    slots: SlotSums
    joints: JointShares
    person: np.ndarray  # the number of every walk's person among those tested on, -1 for others  # [walks]
    truth: TruthScores | None
    curves: bool  # whether edges are also inserted and deleted, share by share
    probabilities: dict[str, list[Tensor]] = field(default_factory=dict)
    walk_probabilities: dict[str, Tensor] = field(default_factory=dict)  # [walks, classes]


def _look(model: GraphClassifier, task: Task, walks: list[int], asked: Asked, curves: bool = True, among: list[int] | None = None) -> _Seen:
    """Other people's edges are taken from the walks `among`; left out, from those that are looked at."""
    windows = even_windows(task.lengths, walks, asked.frames)
    others = windows if among is None else even_windows(task.lengths, among, asked.frames)
    truth = TruthScores(model.graph, task.truth) if curves and task.truth is not None else None
    subjects = np.array(task.walks.subjects)
    tested = np.unique(subjects[walks])
    person = np.where(np.isin(subjects, tested), np.searchsorted(tested, subjects), -1)
    seen = _Seen(SlotSums(model.graph), JointShares(model.graph, len(tested)), person, truth, curves)
    device = next(model.parameters()).device
    partners = _partners(task, windows, others, asked.seed)
    for sample in range(asked.samples):
        once = replace(asked, seed=asked.seed + sample)
        same, other = (None if w is None else batches(task, w, asked.frames, asked.batch_size, device) for w in partners)
        for mine in batches(task, windows, asked.frames, asked.batch_size, device):
            _look_at_batch(seen, model, task, mine, None if same is None else next(same), None if other is None else next(other), once)
    rows = np.tile(row_of_walk(windows, walks), asked.samples)
    seen.walk_probabilities = {arm: mean_over_groups(torch.cat(parts).cpu().double(), rows, len(walks)) for arm, parts in seen.probabilities.items()}
    return seen


def _look_at_batch(seen: _Seen, model: GraphClassifier, task: Task, mine: Batch, of_same: Batch | None, of_other: Batch | None, asked: Asked) -> None:
    poses = model.prepared(mine.poses, mine.lengths)
    existing = model.source.existing(poses, mine.lengths)
    probability = model.source.probability(poses, mine.lengths)
    kept = _sampled(model, mine, asked)
    seen.slots.add(probability, kept, existing)
    seen.joints.add(kept, existing, torch.from_numpy(seen.person[mine.walk]))
    dice = _dice(mine, existing.shape, asked.seed)
    if seen.truth is not None:
        seen.truth.add(probability, existing, dice)
        _add_frames(seen.truth, model, task, mine, poses, kept, probability)
    for arm, graph in _graphs(existing, probability, kept, dice, seen.curves):
        _say(seen, model, arm, poses, graph, mine.lengths)
    for arm, batch in (("other_same_class", of_same), ("other_class", of_other)):
        if batch is not None:
            _say(seen, model, arm, poses, _sampled(model, batch, asked) * existing, mine.lengths)
    _say(seen, model, "mask_alone", torch.zeros_like(poses), kept, mine.lengths)


def _graphs(existing: Tensor, probability: Tensor, kept: Tensor, dice: Tensor, curves: bool) -> Iterator[tuple[str, Tensor]]:
    """Name and edges of every graph that is made of one walk's own.  # [B, P, T]"""
    scores = {"random": dice} | ({"by_probability": probability, "reversed": -probability} if curves else {})
    # Other dice than those that break ties, which with equal probabilities would order the edges by themselves.
    order = {name: ranking(score, existing, 1 - dice) for name, score in scores.items()}
    total, stay = existing.sum((1, 2)), kept.sum((1, 2))
    yield "kept", kept
    yield "all_edges", existing
    yield "no_edges", torch.zeros_like(existing)
    yield "random", first_of(order["random"], stay, existing)
    yield "complement", existing - kept
    for name in ORDERS if curves else ():
        for share in INSERTED:
            yield f"insertion {name} {share}", first_of(order[name], share_of(total, share), existing)
        within = ranking(scores[name], kept, 1 - dice)
        for share in DELETED:
            yield f"deletion {name} {share}", kept - first_of(within, share_of(stay, share), existing)


def _say(seen: _Seen, model: GraphClassifier, arm: str, poses: Tensor, graph: Tensor, lengths: Tensor | None) -> None:
    logits, _ = model.downstream(poses, graph, lengths)
    seen.probabilities.setdefault(arm, []).append(logits.float().softmax(1).cpu())


def _sampled(model: GraphClassifier, batch: Batch, asked: Asked) -> Tensor:
    options: dict[str, Any] = {"seed": asked.seed, "sample_ids": batch.sample_ids, "evaluation": asked.evaluation}
    return model.source(model.prepared(batch.poses, batch.lengths), batch.lengths, **options).kept


def _dice(batch: Batch, shape: torch.Size, seed: int) -> Tensor:
    """Random numbers that depend on the window alone."""
    return edge_uniform(seed + 1, batch.sample_ids, shape[1], shape[2], False)


def _partners(task: Task, windows: Windows, others: Windows, seed: int) -> list[Windows | None]:
    """For every window one of the others, of another person: of the same class, and of another. None where somebody has no such person.

    A window's partners depend on the seed, on itself and on the others, and not on which windows are looked at beside it.
    """
    subjects, of = np.array(task.walks.subjects)[others.walk], np.array(task.walks.subjects)[windows.walk]
    classes = task.classes[others.walk]
    same, other = np.full(len(windows), -1), np.full(len(windows), -1)
    for i, walk in enumerate(windows.walk):
        rng = np.random.default_rng([abs(seed), windows.sample_id[i]])
        stranger, alike = subjects != of[i], classes == task.classes[walk]
        for chosen, candidates in ((same, stranger & alike), (other, stranger & ~alike)):
            if candidates.any():
                chosen[i] = rng.choice(np.flatnonzero(candidates))
    return [None if (i < 0).any() else Windows(others.walk[i], others.start[i], others.sample_id[i]) for i in (same, other)]


def _add_frames(truth: TruthScores, model: GraphClassifier, task: Task, batch: Batch, poses: Tensor, kept: Tensor, probability: Tensor) -> None:
    """Frames are scored by what the kept edges that end in them say for the predicted class, and by the keep probabilities of all that do."""
    if truth.truth.kind != "episode":
        return
    logits, h = model.downstream(poses, kept, batch.lengths)
    evidence = model.downstream.evidence(h, kept, batch.lengths)  # [B, T, classes]
    predicted = logits.argmax(1)[:, None, None].expand(-1, evidence.shape[1], 1)
    speaks = (evidence.gather(2, predicted).squeeze(2) - evidence.mean(2)).cpu()
    likely = probability.sum(1).cpu()
    for b, (walk, start) in enumerate(zip(batch.walk.tolist(), batch.start.tolist(), strict=True)):
        length = min(task.lengths[walk] - start, poses.shape[1])
        planted = truth.truth.frames(task.walks.names[walk], task.lengths[walk])[start : start + length]
        truth.add_frames(speaks[b, :length], likely[b, :length], planted)


def _score(probabilities: Tensor, task: Task, walks: list[int]) -> dict[str, float]:
    metrics = classification_metrics(probabilities, torch.from_numpy(task.classes[walks]))
    return {name: metrics[name] for name in ("balanced_accuracy", "macro_f1")}


def _curves(kind: str, shares: tuple[float, ...], scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {"shares": list(shares)} | {
        name: {measure: [scores[f"{kind} {name} {share}"][measure] for share in shares] for measure in ("balanced_accuracy", "macro_f1")}
        for name in ORDERS
    }


def _fidelity(probabilities: dict[str, Tensor], classes: Tensor) -> dict[str, float | None]:
    """Of GraphFramEx (Amara et al. 2022) and PyG's `fidelity` and `characterization_score`, against the true class (phenomenon).

    fidelity⁺ = mean |1(ŷ = y) − 1(ŷ without the kept edges = y)|, fidelity⁻ = mean |1(ŷ = y) − 1(ŷ with them alone = y)|, with ŷ what all edges
    give; characterization = 2 / (1 / fidelity⁺ + 1 / (1 − fidelity⁻)).
    """
    right = {arm: (probabilities[arm].argmax(1) == classes).double() for arm in ("all_edges", "complement", "kept")}
    plus, minus = ((right["all_edges"] - right[arm]).abs().mean().item() for arm in ("complement", "kept"))
    both = 2 * plus * (1 - minus) / (plus + 1 - minus) if plus + 1 - minus > 0 else 0.0
    return {"fidelity_plus": plus, "fidelity_minus": minus, "characterization": both}


def _calibration(probabilities: Tensor, classes: Tensor) -> dict[str, float]:
    """Brier score, Σ over the classes of (probability − 1(true))², and expected calibration error over 10 bins."""
    truth = torch.nn.functional.one_hot(classes, probabilities.shape[1])
    brier = (probabilities - truth).square().sum(1).mean().item()
    error = multiclass_calibration_error(probabilities, classes, probabilities.shape[1], n_bins=10).item()
    return {"brier": brier, "ece": error}


def _mask_probe(finished: Finished) -> dict[str, float] | None:
    """Logistic regression on the share of its frames in which a walk keeps every slot; None without the walks that were trained on."""
    if not finished.train_walks:
        return None
    task = finished.task
    train, test = (_slot_shares(finished.model, task, walks, finished.asked) for walks in (finished.train_walks, finished.test_walks))
    classes = (task.classes[finished.train_walks], task.classes[finished.test_walks])
    return probe(train, classes[0], test, classes[1], len(task.class_names))


def _slot_shares(model: GraphClassifier, task: Task, walks: list[int], asked: Asked) -> np.ndarray:
    windows = even_windows(task.lengths, walks, asked.frames)
    shares = []
    for batch in batches(task, windows, asked.frames, asked.batch_size, next(model.parameters()).device):
        existing = model.source.existing(batch.poses, batch.lengths).sum(2)
        shares.append((_sampled(model, batch, asked).sum(2) / existing.clamp(min=1)).cpu().double())
    return mean_over_groups(torch.cat(shares), row_of_walk(windows, walks), len(walks)).numpy()


def _pose_probe(finished: Finished) -> dict[str, float] | None:
    """Logistic regression on the joints' means and deviations; None for other walks than the run's own."""
    if not finished.train_walks or "baselines" not in finished.summary:
        return None
    found = finished.summary["baselines"]["logistic_regression"]
    return {name: found[name] for name in ("balanced_accuracy", "macro_f1")}


def _slot_rows(model: GraphClassifier, profile: Tensor) -> list[dict[str, Any]]:
    graph, joints = model.graph, model.graph.layout.joints
    return [
        {"from": joints[src], "to": joints[dst], "offset": offset, "probability": probability}
        for src, dst, offset, probability in zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), profile.tolist(), strict=True)
    ]
