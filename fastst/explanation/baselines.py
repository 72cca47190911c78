"""Explanations that are made after training, of a model with the whole graph: what a learned graph has to be better than.

Edge gradient, gradient × input and integrated gradients are Captum's; GNNExplainer (Ying et al. 2019) is the edge mask of its paper, since PyG's
explains models of another form.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastst.data.batches import even_windows
from fastst.errors import UserError
from fastst.explanation.truth import TruthScores
from fastst.files import is_there
from fastst.nn import GraphClassifier
from fastst.ops.random import edge_uniform
from fastst.runs.folder import load_model
from fastst.runs.predictions import batches
from fastst.runs.trainer import Finished, Fold, Processes, train_fold

BASELINES = ("random", "edge gradient", "gradient x input", "integrated gradients", "GNNExplainer")
# GNNExplainer's. The prices of an edge and of its indecision are a tenth of PyG's, which are for graphs of tens of edges: with those nothing stays.
_STEPS, _LEARNING_RATE, _SIZE, _ENTROPY = 100, 0.1, 0.0005, 0.1


def score_baselines(finished: Finished) -> dict[str, dict[str, Any]]:
    """Baseline -> its measures against the planted edges, those of `truth.edges` in a run's summary that matter for its kind.

    Raises:
        UserError: nothing was planted, or Captum is not installed.
    """
    truth = finished.task.truth
    if truth is None:
        raise UserError("--baselines scores explanations against what was planted; this run's walks were not made with --planted")
    if importlib.util.find_spec("captum") is None:
        raise UserError("--baselines needs Captum; install it with pip install -c constraints.txt -e '.[baselines]'")
    model = _fixed_model(finished)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    named = {name: TruthScores(model.graph, truth) for name in BASELINES}
    windows = even_windows(finished.task.lengths, finished.test_walks, finished.config.frames)
    for batch in batches(finished.task, windows, finished.config.frames, finished.config.batch_size, next(model.parameters()).device):
        poses = model.prepared(batch.poses, batch.lengths)
        existing = model.source.existing(poses, batch.lengths)
        dice = edge_uniform(finished.asked.seed + 1, batch.sample_ids, existing.shape[1], existing.shape[2], False)
        for name, scores in _explanations(model, poses, existing, batch.lengths, dice):
            named[name].add(scores * existing, existing, dice)
    which = "within" if truth.pairs else "out"
    return {name: {**scores.summary()["edges"][which], "edges": which} for name, scores in named.items()}


def _fixed_model(finished: Finished) -> GraphClassifier:
    """The same classifier on the whole graph, trained on the same people; kept in the run's folder."""
    folder = finished.fold.folder / "fixed"
    if not is_there(folder / "summary.json"):
        config = dataclasses.replace(finished.config, graph="fixed", init=None)
        fold = Fold(folder, "fixed graph", finished.fold.split, finished.fold.seed)
        train_fold(config, finished.task, fold, Processes(0, 1), Console(stderr=True, soft_wrap=True, markup=False, emoji=False))
    return load_model(folder / "model.safetensors")[0].to(next(finished.model.parameters()).device)


def _explanations(model: GraphClassifier, poses: Tensor, existing: Tensor, lengths: Tensor | None, dice: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and score of every edge.  # [B, P, T]"""
    from captum.attr import InputXGradient, IntegratedGradients, Saliency

    with torch.no_grad():
        predicted = model.downstream(poses, existing, lengths)[0].argmax(1)

    def of_edges(kept: Tensor) -> Tensor:  # Captum may show several graphs of every walk at once
        times = len(kept) // len(poses)
        again = None if lengths is None else lengths.repeat(times)
        return model.downstream(poses.repeat(times, 1, 1, 1), kept.contiguous(), again)[0]

    def of_poses(x: Tensor) -> Tensor:
        return model.downstream(x, existing, lengths)[0]

    yield "random", dice
    yield "edge gradient", Saliency(of_edges).attribute(existing.clone().requires_grad_(), target=predicted)
    joints = InputXGradient(of_poses).attribute(poses.clone().requires_grad_(), target=predicted).sum(-1).abs()
    yield "gradient x input", _ends(model, joints)
    whole = IntegratedGradients(of_edges).attribute(existing.clone(), target=predicted, n_steps=16, internal_batch_size=len(poses))
    yield "integrated gradients", whole.abs()
    yield "GNNExplainer", _edge_mask(of_edges, existing, predicted)


def _ends(model: GraphClassifier, joints: Tensor) -> Tensor:
    """What both ends of every edge have together.  # [B, T, J] -> [B, P, T]"""
    graph, T = model.graph, joints.shape[1]
    frame = torch.arange(T, device=joints.device) + graph.offset.to(joints.device).long()[:, None]  # [P, T]
    src, dst = (end.to(joints.device).long() for end in (graph.src, graph.dst))
    return joints[:, frame.clamp(0, T - 1), src[:, None]] + joints[:, :, dst].transpose(1, 2)


def _edge_mask(of_edges: Callable[[Tensor], Tensor], existing: Tensor, predicted: Tensor) -> Tensor:
    """The soft mask with which the model says the same with few edges, each of them kept or not: GNNExplainer's loss, walk by walk."""
    generator = torch.Generator(existing.device).manual_seed(0)
    free = (0.1 * torch.randn(existing.shape, generator=generator, device=existing.device)).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=_LEARNING_RATE)
    count = existing.sum((1, 2)).clamp(min=1)
    for _ in range(_STEPS):
        mask = free.sigmoid()
        entropy = torch.special.entr(mask) + torch.special.entr(1 - mask)
        cost = (_SIZE * mask + _ENTROPY * entropy / count[:, None, None]) * existing
        loss = cross_entropy(of_edges(mask * existing), predicted, reduction="none") + cost.sum((1, 2))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return free.detach().sigmoid()
