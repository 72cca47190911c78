"""A training that starts from another run's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastst.config import option
from fastst.errors import UserError
from fastst.nn import GraphClassifier
from fastst.runs.arguments import ARCHITECTURE
from fastst.runs.opened import TrainedModel

_CLASSES = "downstream.classifier."
_SHARES = "downstream.class_log_share"  # what a walk without edges is given: of the data that is trained on


def check_fits(arguments: Mapping[str, Any], initial: TrainedModel) -> None:
    """That a model made with these arguments can have the weights of another run's.

    Raises:
        UserError: another skeleton, or other options than the weights are made for.
    """
    there = initial.arguments
    differing = [f"{option(name)} is {there[name]} there, {arguments[name]} here" for name in ARCHITECTURE if there[name] != arguments[name]]
    if _skeleton(there) != _skeleton(arguments):
        differing.insert(0, f"its skeleton is {_in_words(there)}, that of the data is {_in_words(arguments)}")
    if differing:
        raise UserError(f"--init {initial.folder} doesn't fit: {'; '.join(differing)}. Give the same options, or leave --init out")


def start_from(model: GraphClassifier, class_names: Sequence[str], initial: TrainedModel) -> None:
    """Gives a model the weights of another run's, which fits. Where the classes are others its classifier layer stays as it is.

    Poses are standardised as that run did: its weights are made for that.
    """
    same = list(class_names) == initial.class_names
    kept = {name: tensor for name, tensor in initial.model.state_dict().items() if name != _SHARES and (same or not name.startswith(_CLASSES))}
    model.load_state_dict(kept, strict=False)


def people_of(initial: TrainedModel) -> frozenset[str]:
    """Everybody who had a part in the model.

    Raises:
        UserError: nobody knows.
    """
    if initial.split is None:
        raise UserError(f"--init {initial.folder} has no split.json, which says whom it was trained on; bring it back")
    return initial.split.train | initial.split.validation | initial.split.initial


def _skeleton(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    layout = arguments["layout"]
    return list(layout["joints"]), {frozenset(bone) for bone in layout["bones"]}, list(layout["root"]), arguments["in_channels"]


def _in_words(arguments: Mapping[str, Any]) -> str:
    layout = arguments["layout"]
    return f"{layout['name']} ({len(layout['joints'])} joints, {len(layout['bones'])} bones, {arguments['in_channels']}D)"
