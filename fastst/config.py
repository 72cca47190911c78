"""What a training run is told. Every field is an option of `python -m fastst.train`; `--recipe paper` gives the paper's values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from fastst.data.options import ReadOptions
from fastst.errors import UserError


@dataclass(frozen=True)
class TrainConfig(ReadOptions):
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
    planted_kind: Literal["position", "timing", "relation", "episode"] = "position"
    """What of the planted joints tells the classes apart: where they are, when they move, how two of them (first and second, third and fourth,
    ...) move together, or where they are in some frames only."""
    permuted: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Control: train once more with the classes dealt out anew among the people. What is found then is not there."""

    recipe: Literal["default", "paper"] = "default"
    """Where the other options start from; paper: the published method to the letter."""
    graph: Literal["fixed", "random", "learned"] = "learned"
    """fixed: the whole skeleton graph; random: remove a share of edges at random; learned: learn for every walk which edges to keep."""
    drop: float = 0.5
    """Share of edges that --graph random removes."""
    hops: int = 1
    """How far an edge may reach: bones plus frames."""
    layers: int = 4
    """Graph convolutions of the classifier (the paper: 2, 4, 8, 16)."""
    hidden: int = 32
    """Channels of all hidden layers."""
    joint_embedding: bool = True
    """Tell the classifier which joint is which."""
    residual: float = 0.2
    """Share of the input that every graph convolution of the classifier takes over, for deep models; 0: none."""
    readout: Literal["edges", "nodes"] = "edges"
    """What is averaged before the decision: the ends of the kept edges, so that nothing else can decide, or all nodes (the paper)."""
    frames: int = 60
    """Frames of a window. In a test the windows cover a longer walk, and their predictions are averaged."""
    attention: Literal["auto", "factorized", "local", "full"] = "auto"
    """How the edge model looks at the whole walk: full is the paper's (every node at every node), factorized looks along joints and along frames,
    local only at frames at most --window away, in time that is linear in frames; auto is factorized for windows of up to 256 frames, else local."""
    window: int = 64
    """Of --attention local: how many frames away a frame looks."""
    heads: int = 4
    """Attention heads."""
    encoder_layers: int = 1
    """Transformer layers of the edge model."""
    information: float = 0.3
    """Price of what the graph says: weight of the information term, the mean divergence of an edge's keep probability from the prior; 0: none."""
    keep: float = 0.2
    """The prior: the share of edges that is kept where nothing speaks for or against an edge. It begins at --keep-start and gets there in the
    first quarter of the time in which the graph is learned."""
    keep_start: float = 0.9
    """The prior, and every edge's keep probability, at the start; 0: as random initial weights have it."""
    settle: float = 0.5
    """Share of the training after which the graph is settled: its model is not trained further, and the classifier learns to decide on what it
    keeps. Trained together to the end they agree on edges that tell least to others. 1: never."""
    exchange: float = 0.25
    """Share of the windows that are classified on the edges chosen for another window, while the graph is learned: edges that spell this walk's
    class, in place of showing what tells it, are then of no use."""
    likeliest: float = 0.25
    """Share of the windows that are classified on their likeliest edges alone, 5 to 50 % of all, and not on a sample, once the graph is settled:
    so the classifier learns to decide on few edges."""
    noise: Literal["gumbel", "logistic"] = "logistic"
    """Noise of the edge sampling: logistic keeps an edge with probability sigmoid(logit), gumbel is the paper's formula."""
    estimator: Literal["identity", "sigmoid", "reinforce", "exactly_k"] = "sigmoid"
    """Gradient through the sampling. identity is the paper's, which drives every edge to always or never; reinforce goes through the probability of
    the sample, without bias and with much spread; exactly_k keeps of the edges into every frame exactly the share --keep, with the gradient of
    SIMPLE, and has no noise, no --keep-start and no information term."""
    beta: float = 2.0
    """Scale of the gumbel noise."""
    tau: float = 1.0
    """Temperature of the sampling gradient."""
    evaluation: Literal["sample", "threshold"] = "sample"
    """Graphs at evaluation: sampled as in training, or all edges more likely kept than not."""
    samples: int = 1
    """Sampled graphs of every window at evaluation, whose predictions are averaged."""

    epochs: int = 24
    """Passes over the training walks; each shows as many windows of a walk as fit into it side by side, at random places."""
    batch_size: int = 16
    """Windows in a batch, over all processes."""
    learning_rate: float = 0.01
    """AdamW's learning rate at the start; it falls to 0 along a cosine."""
    adam_beta2: float = 0.95
    """How long AdamW remembers how large gradients were. They are tiny until the first difference between the classes is found; with the usual 0.999
    a step then is up to thirty times as long as --learning-rate says, and often all edges are lost in it, for good."""
    clip: float = 5.0
    """Longest gradient, which longer ones are shortened to; 0: any."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    mirror: bool = True
    """Show every training window mirrored half of the time."""
    seed: int = 0
    """Every random choice follows from it."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """balanced: every class weighs the same in the loss, however many walks it has; none: every window does."""
    split: Literal["paper", "labels", "casia-b"] = "paper"
    """Who is tested on: paper: about a quarter of the people, equally many of every class; labels: the column `split` of the labels file; casia-b:
    that data set's usual protocol, people 001 to 074 to train on and 075 to 124 to test on."""
    split_file: str | None = None
    """Who is trained, validated and tested on, in place of --split: the split.json of another run, or a CSV file subject,split."""
    folds: int = 0
    """2 or more: cross-validation, everybody is tested on once."""
    seeds: int = 1
    """How many models to train on the same people, from other random numbers; with 2 the audit says how far their graphs agree."""
    validation: float = 0.0
    """Share of the people to train on who are kept aside to choose the epoch whose model is kept; 0: the last epoch's."""
    patience: int = 0
    """Stop when this many epochs in a row brought nothing for the --validation people, but not in the first half; 0: train all epochs."""
    checkpoint_activations: bool = False
    """Save memory for long windows: compute activations again in the backward, for about a third more time. The numbers stay the same."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Lower precision for speed (automatic mixed precision)."""
    device: str = "auto"
    """auto: a CUDA GPU if there is one, else the CPU."""
    cuda_graph: bool = True
    """On a GPU, record a step of the training once and repeat it as one piece: the same losses, without a launch for every kernel."""
    out: Path = Path("runs/fastst")
    """Folder for everything that the run leaves."""
    init: str | None = None
    """Folder of another run, or of one of its folds: start from its weights. Other classes get a new classifier layer."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the interrupted run in --out."""

    def __post_init__(self) -> None:
        for name in ("hops", "layers", "hidden", "frames", "heads", "samples", "epochs", "batch_size", "people", "walks_per_person", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"{option(name)} must be at least 1, got {getattr(self, name)}")
        if self.fps < 0 or not 0 <= self.min_confidence <= 1:
            raise UserError(f"--fps must be at least 0 and --min-confidence a share, got {self.fps:g} and {self.min_confidence:g}")
        if self.image_size is not None and min(self.image_size) < 1:
            raise UserError(f"--image-size is width and height in pixels, got {' '.join(map(str, self.image_size))}")
        if not self.data:
            raise UserError("--data is empty; name a file or a folder, or leave it out for made-up walkers")
        for name in ("beta", "tau", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{option(name)} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 32:
            raise UserError(f"--seed must be at least 0 and below 2**32, got {self.seed}")
        if self.encoder_layers < 0 or not self.weight_decay >= 0:
            raise UserError("--encoder-layers and --weight-decay must be at least 0")
        for name in ("drop", "residual", "validation", "keep_start", "exchange", "likeliest", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{option(name)} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("information", "clip", "patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{option(name)} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.settle <= 1:
            raise UserError(f"--settle is a share above 0 and at most 1, got {self.settle}")
        if not 0 < self.keep < 1:
            raise UserError(f"--keep is a share above 0 and below 1, got {self.keep}")
        if self.information and self.keep_start and self.keep_start < self.keep:
            raise UserError(f"--keep-start must be at least --keep = {self.keep}, since the prior falls from one to the other; got {self.keep_start}")
        if self.patience and not (self.validation or self.split_file):
            raise UserError("--patience needs people to be patient with: give a share of them with --validation, 0.2 say")
        if self.planted and self.data != "synthetic":
            raise UserError("--planted is for made-up walkers; leave it out, or leave --data out")
        if self.hidden % self.heads:
            raise UserError(f"--heads must divide --hidden = {self.hidden}, got {self.heads}")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--folds must be 0 (none) or at least 2, got {self.folds}")
        if self.folds and (self.split != "paper" or self.split_file):
            raise UserError("--folds makes its own splits; leave --split and --split-file out")
        if self.split_file and self.split != "paper":
            raise UserError(f"--split-file and --split {self.split} both say who is tested on; leave one of them out")
        if self.window < 0:
            raise UserError(f"--window must be 0 frames or more, got {self.window}")
        if self.frames <= self.hops:
            raise UserError(f"--frames must be above --hops = {self.hops}, got {self.frames}")

    def settled(self) -> TrainConfig:
        """The same with nothing left to be chosen: what `auto` of the attention is."""
        if self.attention != "auto":
            return self
        return dataclasses.replace(self, attention="local" if self.frames > _FACTORIZED_UP_TO else "factorized")

    def to_json(self) -> str:
        """All fields but those that say where and how a run is called and not what it is."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_OF_THE_RUN}
        return json.dumps(fields, indent=2) + "\n"

    @property
    def has_information_term(self) -> bool:
        return self.graph == "learned" and self.estimator != "exactly_k" and self.information > 0

    def prior(self, done: float) -> float:
        """The prior keep probability when a share `done` of the training is over: it falls in a straight line, and stays."""
        start = self.keep_start or self.keep
        return max(self.keep, start - (start - self.keep) * done / (_PRIOR_FALLS_FOR * self.settle))

    @staticmethod
    def with_recipe(recipe: str, **options: Any) -> TrainConfig:
        """The options of a recipe, but for those given here."""
        return TrainConfig(**{**RECIPES[recipe], "recipe": recipe, **options})

    @staticmethod
    def from_json(text: str, out: Path) -> TrainConfig:
        """ValueError or TypeError if the text is not what `to_json` writes."""
        fields: dict[str, Any] = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError("it is no object with the options of a run")
        expected = {field.name for field in dataclasses.fields(TrainConfig)} - set(_NOT_OF_THE_RUN)
        if set(fields) != expected:
            raise ValueError(f"its options {sorted(expected ^ set(fields))} are missing or unknown")
        for field, kind in get_type_hints(TrainConfig).items():
            if field not in _NOT_OF_THE_RUN and not _is_of(fields[field], kind):
                raise ValueError(f"{field} is {str(fields[field])[:80]!r}, which it can't be")
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return TrainConfig(**{**fields, **lists}, out=out, resume=True)


_NOT_OF_THE_RUN = ("out", "resume", "cuda_graph")
_FACTORIZED_UP_TO = 256  # frames of a window
_PRIOR_FALLS_FOR = 0.25  # of the time in which the graph is learned
# What a recipe says otherwise than the defaults.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "hidden": 64,
        "epochs": 50,
        "batch_size": 32,
        "joint_embedding": False,
        "residual": 0.0,
        "readout": "nodes",
        "information": 0.0,
        "settle": 1.0,
        "exchange": 0.0,
        "likeliest": 0.0,
        "keep_start": 0.0,
        "noise": "gumbel",
        "estimator": "identity",
        "tau": 2.0,
        "learning_rate": 1e-3,
        "adam_beta2": 0.999,
        "clip": 0.0,
    },
}


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is what a field of that type is written as."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return value in arguments
    if get_origin(kind) is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is ... and isinstance(value, list) else arguments
        return isinstance(value, list) and len(value) == len(kinds) and all(map(_is_of, value, kinds))
    if arguments:  # one of several
        return any(_is_of(value, one) for one in arguments)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def option(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def differences(saved: TrainConfig, asked: TrainConfig) -> list[str]:
    """What the two say differently of the run itself."""
    return [f"{option(name)} is {getattr(saved, name)} in the run, {getattr(asked, name)} was asked for" for name in differing([saved, asked])]


def differing(configs: Sequence[TrainConfig]) -> list[str]:
    """Names of the fields of which the runs have several values."""
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _NOT_OF_THE_RUN]
    return [name for name in names if any(getattr(config, name) != getattr(configs[0], name) for config in configs)]
