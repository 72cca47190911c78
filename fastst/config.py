"""What a training run is told. Every field is an option of `python -m fastst.train`; the defaults are the paper's recipe."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from fastst.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """Train a classifier of walks that learns which edges of the skeleton's graph to keep.

    Without options it trains on made-up walkers (--data synthetic) and leaves the model, figures and a summary in --out.
    """

    data: str = "synthetic"
    """What to train on: a pose CSV, a folder of AlphaPose JSON files, an .npz file, or `synthetic` for made-up walkers."""
    labels: str | None = None
    """CSV file with the columns subject,label[,split] for data that brings no labels."""
    label_map: str = ""
    """Which labels make a class, such as "Healthy=healthy,*=patient" (* is everything else). Left out, every label is a class."""
    target: str = "label"
    """What to predict: a column of the labels file, or `label`, `condition`, `view` where the data brings it."""
    layout: str = "auto"
    """Skeleton to train on; auto: the data's own, and for COCO-17 data coco18 (with mid-shoulder). A .json file for your own bones."""
    people: int = 124
    """Made-up walkers: how many people."""
    walks_per_person: int = 10
    """Made-up walkers: how many walks of each person (1 to 110)."""
    planted: tuple[str, ...] = ()
    """Made-up walkers: put the difference between the classes into these joints only."""

    graph: Literal["fixed", "random", "learned"] = "learned"
    """fixed: the whole skeleton graph; random: remove a share of edges at random; learned: learn for every walk which edges to keep."""
    drop: float = 0.5
    """Share of edges that --graph random removes."""
    hops: int = 1
    """How far an edge may reach: bones plus frames."""
    layers: int = 4
    """Graph convolutions of the classifier (the paper: 2, 4, 8, 16)."""
    hidden: int = 64
    """Channels of all hidden layers."""
    frames: int = 60
    """Frames of a window. In a test the windows cover a longer walk, and their predictions are averaged."""
    attention: Literal["factorized", "full"] = "factorized"
    """How the edge model looks at the whole walk: full is the paper's (every node at every node), factorized is linear in joints."""
    heads: int = 4
    """Attention heads."""
    encoder_layers: int = 1
    """Transformer layers of the edge model."""
    noise: Literal["gumbel", "logistic"] = "gumbel"
    """Noise of the edge sampling: gumbel is the paper's formula, logistic keeps an edge with probability sigmoid(logit)."""
    estimator: Literal["identity", "sigmoid"] = "identity"
    """Gradient through the sampling: identity is the paper's."""
    beta: float = 2.0
    """Scale of the sampling noise."""
    tau: float = 2.0
    """Temperature of the sampling gradient."""
    evaluation: Literal["sample", "threshold"] = "sample"
    """Graphs at evaluation: sampled as in training, or all edges more likely kept than not."""
    samples: int = 1
    """Sampled graphs of every window at evaluation, whose predictions are averaged."""

    epochs: int = 50
    """Passes over the training walks; each pass shows one window of every walk, at a random place."""
    batch_size: int = 32
    """Windows in a batch, over all processes."""
    learning_rate: float = 1e-3
    """AdamW's learning rate at the start; it falls to 0 along a cosine."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    mirror: bool = True
    """Show every training window mirrored half of the time."""
    seed: int = 0
    """Every random choice follows from it."""
    split: Literal["paper", "labels"] = "paper"
    """Who is tested on: paper: about a quarter of the people, equally many of every class; labels: the column `split` of the labels file."""
    folds: int = 0
    """2 or more: cross-validation, everybody is tested on once."""
    checkpoint_activations: bool = False
    """Save memory for long windows: compute activations again in the backward, for about a third more time. The numbers stay the same."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Lower precision for speed (automatic mixed precision)."""
    device: str = "auto"
    """auto: a CUDA GPU if there is one, else the CPU."""
    out: Path = Path("runs/fastst")
    """Folder for everything that the run leaves."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the interrupted run in --out."""

    def __post_init__(self) -> None:
        for name in ("hops", "layers", "hidden", "frames", "heads", "samples", "epochs", "batch_size", "people", "walks_per_person"):
            if getattr(self, name) < 1:
                raise UserError(f"{option(name)} must be at least 1, got {getattr(self, name)}")
        if not self.data:
            raise UserError("--data is empty; name a file or a folder, or leave it out for made-up walkers")
        for name in ("beta", "tau", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{option(name)} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 32:
            raise UserError(f"--seed must be at least 0 and below 2**32, got {self.seed}")
        if self.encoder_layers < 0 or not self.weight_decay >= 0:
            raise UserError("--encoder-layers and --weight-decay must be at least 0")
        if not 0 <= self.drop < 1:
            raise UserError(f"--drop is a share, at least 0 and below 1, got {self.drop}")
        if self.hidden % self.heads:
            raise UserError(f"--heads must divide --hidden = {self.hidden}, got {self.heads}")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--folds must be 0 (none) or at least 2, got {self.folds}")
        if self.folds and self.split != "paper":
            raise UserError("--folds makes its own splits; leave --split out")
        if self.frames <= self.hops:
            raise UserError(f"--frames must be above --hops = {self.hops}, got {self.frames}")

    def to_json(self) -> str:
        """All fields but `out` and `resume`, which say where and how a run is called and not what it is."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_OF_THE_RUN}
        return json.dumps(fields, indent=2) + "\n"

    @staticmethod
    def from_json(text: str, out: Path) -> TrainConfig:
        """ValueError or TypeError if the text is not what `to_json` writes."""
        fields: dict[str, Any] = json.loads(text)
        expected = {field.name for field in dataclasses.fields(TrainConfig)} - set(_NOT_OF_THE_RUN)
        if set(fields) != expected:
            raise ValueError(f"its options {sorted(expected ^ set(fields))} are missing or unknown")
        for field, kind in get_type_hints(TrainConfig).items():
            if get_origin(kind) is Literal and fields[field] not in get_args(kind):
                raise ValueError(f"{field} is {fields[field]!r}")
        return TrainConfig(**{**fields, "planted": tuple(fields["planted"])}, out=out, resume=True)


_NOT_OF_THE_RUN = ("out", "resume")


def option(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def differences(saved: TrainConfig, asked: TrainConfig) -> list[str]:
    """What the two say differently, apart from `out` and `resume`."""
    return [
        f"{option(field.name)} is {getattr(saved, field.name)} in the run, {getattr(asked, field.name)} was asked for"
        for field in dataclasses.fields(saved)
        if field.name not in _NOT_OF_THE_RUN and getattr(saved, field.name) != getattr(asked, field.name)
    ]
