"""Training of one model: its folder, its state, its epochs, and what is left when it is finished."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.functional import nll_loss
from torch.nn.parallel import DistributedDataParallel

from fastst import __version__
from fastst.config import TrainConfig
from fastst.data.batches import Windows, in_order, made_ahead, make_batch, random_windows
from fastst.data.copies import mark
from fastst.data.splits import Split
from fastst.errors import UserError
from fastst.files import is_there
from fastst.nn import GraphClassifier
from fastst.runs.arguments import model_arguments
from fastst.runs.folder import (
    BEGIN_AGAIN,
    append_line,
    as_written,
    load_checkpoint,
    load_model,
    read_json,
    read_lines,
    save_checkpoint,
    save_model,
    write_json,
    write_summary,
    write_text,
)
from fastst.runs.initial import start_from
from fastst.runs.load import Task
from fastst.runs.lock import check_owned
from fastst.runs.opened import open_run
from fastst.runs.outcomes import PREDICTIONS, write_outcomes
from fastst.runs.predictions import Asked, Predictions, measure, outcomes_of, predict_walks
from fastst.runs.probes import baselines, fit_regression, pose_features
from fastst.runs.step import CapturedSteps, Captures, Inputs, Packed, Step
from fastst.runs.uncertainty import uncertainty

LIKELIEST = (0.05, 0.5)  # fewest and most edges that a window is classified on alone, as shares of all
MEANS = ("macro_f1", "balanced_accuracy", "accuracy", "mad", "kept_share")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together (`torchrun`); rank 0 alone reads results out and writes files."""

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class Fold:
    """One training within a run: its folder, whom it trains and tests on, the seed that its random choices follow from, and its number, 0 in a run
    without folds."""

    folder: Path
    name: str
    split: Split
    seed: int
    number: int = 0
    walks_before: frozenset[int] = frozenset()  # a `mark` of each of those that the model which it starts from was trained on


@dataclass(frozen=True)
class Finished:
    """A trained model, for whoever looks further into it."""

    config: TrainConfig
    task: Task
    fold: Fold
    model: GraphClassifier
    train_walks: list[int]
    test_walks: list[int]
    metrics: list[dict[str, Any]]  # a row for every epoch
    summary: dict[str, Any]

    @property
    def asked(self) -> Asked:
        return Asked.by(self.config, self.fold.seed)


OnFinished = Callable[[Finished], dict[str, Any]]
OnEpoch = Callable[[dict[str, Any]], None]


def train_fold(
    config: TrainConfig,
    task: Task,
    fold: Fold,
    processes: Processes,
    console: Console,
    on_finished: OnFinished | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Trains on one split, from its checkpoint if there is one, and tests the model. Returns the fold's summary (rank 0).

    `on_finished` is called before the summary is written, which gets what it returns; `on_epoch` with the row of every epoch.
    """
    trainer = Trainer(config, task, fold, processes)
    for name in trainer.untested_classes():
        console.print(f"{fold.name}: nobody of class {name!r} is tested on; the metrics say nothing about it", highlight=False)
    if processes.leads:
        check_owned(fold.folder)
        _write_split(fold)
        write_json(
            fold.folder / "walks_seen.json",
            sorted(fold.walks_before | {mark(task.walks.poses[walk]) for walk in trainer.train_walks + trainer.validation_walks}),
        )
    trainer.resume()
    with _progress_bar(console) as progress:
        bar = progress.add_task(fold.name, total=config.epochs, completed=trainer.epoch)
        while not trainer.is_over():
            row = trainer.train_epoch()
            if on_epoch is not None and processes.leads:
                on_epoch(row)
            progress.advance(bar)
            left = progress.tasks[0].time_remaining
            eta = f", {left:.0f} s left" if left is not None else ""
            progress.console.print(f"{fold.name} epoch {trainer.epoch}/{config.epochs}: {_row_in_words(row)}{eta}", highlight=False)
    return trainer.finish(on_finished) if processes.leads else {}


def _write_split(fold: Fold) -> None:
    """Who is trained, validated and tested on; UserError if the fold was begun with others."""
    fold.folder.mkdir(parents=True, exist_ok=True)
    sides = {side: sorted(getattr(fold.split, side)) for side in ("train", "validation", "test")}
    if fold.split.initial:
        sides["initial"] = sorted(fold.split.initial)
    before = read_json(fold.folder / "split.json")
    if before is not None and before != sides:
        raise UserError(
            f"whom {fold.name} trains and tests on has changed since {fold.folder / 'split.json'} was written: bring the data, the labels or the "
            "--split-file back, or begin again with another --out"
        )
    write_json(fold.folder / "split.json", sides)


class Trainer:
    """The state of one training. Every random choice is a function of (seed, epoch, window), so going on from a checkpoint changes nothing."""

    def __init__(self, config: TrainConfig, task: Task, fold: Fold, processes: Processes) -> None:
        self.config, self.task, self.fold, self.processes = config, task, fold, processes
        self.device = device_of(config)
        self.train_walks, self.validation_walks, self.test_walks = walks_of(task, fold.split)
        counts = np.bincount(task.classes[self.train_walks], minlength=len(task.class_names))
        balanced = config.class_weights == "balanced"
        self.class_weights = torch.tensor(len(self.train_walks) / (len(counts) * counts) if balanced else np.ones(len(counts)), dtype=torch.float32)
        self.arguments = model_arguments(config, task)
        torch.manual_seed(fold.seed)
        self.model = GraphClassifier(**self.arguments)
        self.model.standardize(torch.from_numpy(task.walks.poses[i]) for i in self.train_walks)
        # What the weighted loss makes of any shares, or the shares as they are.
        self.model.expect(torch.full((len(counts),), 1 / len(counts)) if balanced else torch.from_numpy(counts / counts.sum()).float())
        if config.init is not None:
            start_from(self.model, task.class_names, open_run(Path(config.init), "--init"))
        self.model.to(self.device)
        groups = [list(part.parameters()) for part in (self.model.downstream, self.model.source)]
        parameters = [{"params": group, "lr": config.learning_rate} for group in groups if group]
        fused = self.device.type in ("cuda", "cpu")  # one kernel for all parameters, and not several for each
        self.optimizer = torch.optim.AdamW(parameters, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay, fused=fused)
        scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        parallel = DistributedDataParallel(self.model) if processes.count > 1 else self.model
        self.step = Step(config, parallel, self.optimizer, scaler, self.class_weights.to(self.device), processes.count)
        self.captured: CapturedSteps | None = None
        if self.device.type == "cuda" and processes.count == 1 and config.cuda_graph:
            self.captured = CapturedSteps(self.step, self.device, Captures())
        self.mirror = config.mirror and (task.truth is None or task.truth.symmetric(task.walks.layout))
        self.settled = False
        self.epoch, self.seconds = 0, 0.0
        self.best_epoch, self.best_loss = 0, math.inf

    @property
    def checkpoint(self) -> Path:
        return self.fold.folder / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        return self.fold.folder / "best.safetensors"

    @property
    def metrics(self) -> Path:
        return self.fold.folder / "metrics.jsonl"

    def resume(self) -> None:
        """Goes back to the last checkpoint, if there is one; rows of epochs that came after it are dropped."""
        if not is_there(self.checkpoint):
            if self.processes.leads:
                self.metrics.unlink(missing_ok=True)
            return
        progress = load_checkpoint(self.checkpoint, self.model, self.optimizer)
        with as_written(self.fold.folder, self.checkpoint.name, BEGIN_AGAIN):
            if progress["data"] != fingerprint(self.task):
                raise UserError(f"the data have changed since {self.checkpoint} was written; bring them back, or begin again with another --out")
            self.epoch, self.seconds = int(progress["epoch"]), float(progress["seconds"])
            self.best_epoch, self.best_loss = int(progress["best_epoch"]), math.inf if progress["best_loss"] is None else float(progress["best_loss"])
            self.step.scaler.load_state_dict(progress["scaler"])
        if self.processes.leads:
            rows = read_lines(self.metrics)[: self.epoch]
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def is_over(self) -> bool:
        """After the last epoch, or when the patience has run out."""
        waited = self.epoch - max(self.best_epoch, self._half())
        return self.epoch >= self.config.epochs or 0 < self.config.patience <= waited

    def train_epoch(self) -> dict[str, Any]:
        """Shows the model one window of every training walk; leaves a row of metrics and a checkpoint. Returns the row."""
        started, config = time.perf_counter(), self.config
        if self.epoch >= math.ceil(config.epochs * config.settle):
            self._settle()
        rng = np.random.default_rng([self.fold.seed, self.epoch])
        windows = random_windows(self.task.lengths, self.train_walks, config.frames, rng)
        mirrored = rng.random(len(windows)) < 0.5 * self.mirror
        likeliest = self._likeliest(rng, len(windows))
        exchanged = rng.random(len(windows)) < config.exchange if config.exchange and self._learns_graph() and not self.settled else None
        total = torch.zeros(4, dtype=widest_float(self.device), device=self.device)
        batches = in_order(windows, config.batch_size)
        dones = [(self.epoch + chosen[0] / len(windows)) / config.epochs for chosen in batches]
        makers = [
            functools.partial(self._inputs, windows, chosen, mirrored, likeliest, exchanged, config.prior(done))
            for chosen, done in zip(batches, dones, strict=True)
        ]
        for done, inputs in zip(dones, made_ahead(makers), strict=True):
            self._set_learning_rate(done)
            total += self._train_step(inputs)
        if self.processes.count > 1:
            dist.all_reduce(total)
        loss, information = (total[0] / total[1]).item(), (total[2] / total[3]).item()
        self.epoch += 1
        if not (math.isfinite(loss) and math.isfinite(information)):
            raise UserError(self._diverged(loss))
        row: dict[str, Any] = {"epoch": self.epoch, "loss": loss}
        if config.has_information_term:
            row |= {"information": information, "prior": config.prior(self.epoch / config.epochs)}
        if self.processes.leads:
            check_owned(self.fold.folder)  # before the best model is written
            row |= self._measured()
        self._agree_on_best()
        self.seconds += time.perf_counter() - started
        row["seconds"] = self.seconds
        if self.processes.leads:
            check_owned(self.fold.folder)
            append_line(self.metrics, row)
            save_checkpoint(self.checkpoint, self.model, self.optimizer, self._progress())
        return row

    def untested_classes(self) -> list[str]:
        tested = set(self.task.classes[self.test_walks].tolist())
        return [name for number, name in enumerate(self.task.class_names) if number not in tested]

    def test(self) -> Predictions:
        return predict_walks(self.model, self.task, self.test_walks, Asked.by(self.config, self.fold.seed))

    def finish(self, on_finished: OnFinished | None) -> dict[str, Any]:
        """Tests the trained model and writes the model, its predictions, and the summary with what `on_finished` says."""
        if self.validation_walks:
            # Of a finished training, whose summary is to be written again, the best model is the one that it left.
            best = self.best if is_there(self.best) else self.fold.folder / "model.safetensors"
            self.model.load_state_dict(load_model(best)[0].state_dict())
        predictions = self.test()
        outcomes = outcomes_of(self.task, predictions, [str(self.fold.number)] * len(self.test_walks))
        train_classes, K = self.task.classes[self.train_walks], len(self.task.class_names)
        regression = fit_regression(pose_features(self.task, self.train_walks), train_classes, K)
        said = regression.probabilities(pose_features(self.task, self.test_walks))
        summary = {
            **measure(self.task, predictions),
            **uncertainty(outcomes),
            "baselines": baselines(said, torch.from_numpy(outcomes.classes)),
            "epoch": self.best_epoch or self.epoch,
            "seed": self.fold.seed,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": self.seconds,
            "classes": self.task.class_names,
            "train_walks": len(self.train_walks),
            "train_people": len(self.fold.split.train),
            "validation_people": len(self.fold.split.validation),
            "known_to_init": len(self.fold.split.known),
            "left_out": len(self.task.walks.left_out),
            "filled_share": self.task.filled.share,
            "data": fingerprint(self.task),
            "versions": {"fastst": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "threads": torch.get_num_threads(),
            "device": self.device.type,
        }
        check_owned(self.fold.folder)
        save_model(self.fold.folder / "model.safetensors", self.model, self.arguments, self.task.class_names)
        regression.save(self.fold.folder)
        summary["predictions_sha256"] = write_outcomes(self.fold.folder / PREDICTIONS, outcomes)
        if on_finished is not None:
            rows = read_lines(self.metrics)
            self.model.eval()
            parts = (self.config, self.task, self.fold, self.model, self.train_walks, self.test_walks, rows, summary)
            summary |= on_finished(Finished(*parts))
        check_owned(self.fold.folder)
        write_summary(self.fold.folder, summary)  # a folder with a summary is finished
        self.best.unlink(missing_ok=True)
        return summary

    def _likeliest(self, rng: np.random.Generator, count: int) -> np.ndarray | None:
        """The share of its edges, the likeliest, that a window is classified on, 0 for a sample.  # [windows]"""
        if not (self.settled and self.config.likeliest):
            return None
        fewest, most = LIKELIEST
        shares = fewest * (most / fewest) ** rng.random(count)
        return np.where(rng.random(count) < self.config.likeliest, shares, 0).astype(np.float32)

    def _train_step(self, inputs: Inputs) -> Tensor:
        """Of this process's share of a batch: Σ weight · loss, Σ weight, Σ information, and windows."""
        if self.captured is not None:
            return self.captured(inputs, kind=self.settled)
        return self.step(self._there(inputs))

    def _inputs(
        self,
        windows: Windows,
        chosen: np.ndarray,
        mirrored: np.ndarray,
        likeliest: np.ndarray | None,
        exchanged: np.ndarray | None,
        prior: float,
    ) -> dict[str, Tensor]:
        """Of a `Step`, on the CPU."""
        count, rank = self.processes.count, self.processes.rank
        mine = chosen[np.arange(len(chosen)) // 2 % count == rank]  # in pairs, which exchange their edges
        everyone = self.class_weights[torch.from_numpy(self.task.classes[windows.walk[chosen]])].sum()
        idle = len(mine) == 0  # the last batch may have fewer windows than there are processes; DDP still needs a backward of everybody
        mine = chosen[:1] if idle else mine
        batch = make_batch(self.task.walks.poses, self.task.classes, windows, mine, self.config.frames, mirrored[mine], self.task.walks.layout)
        inputs = {"poses": batch.poses, "classes": batch.classes, "sample_ids": batch.sample_ids, "seed": torch.tensor(self._graph_seed())}
        inputs |= {"counts": torch.tensor(0.0 if idle else 1.0), "everyone": everyone, "windows": torch.tensor(float(len(chosen)))}
        if batch.lengths is not None:
            inputs["lengths"] = batch.lengths
        if likeliest is not None:
            inputs["likeliest"] = torch.from_numpy(likeliest[mine])
        if exchanged is not None:
            inputs["edges_of"] = torch.from_numpy(_pairs(exchanged[mine]))
        if self.config.has_information_term:
            inputs["prior"] = torch.tensor(prior, dtype=widest_float(self.device))
        return inputs

    def _measured(self) -> dict[str, Any]:
        """What a row of metrics says of people who are not trained on. The best model for the validation people is kept."""
        row: dict[str, Any] = {}
        if self.validation_walks:
            predictions = predict_walks(self.model, self.task, self.validation_walks, Asked.by(self.config, self.fold.seed))
            classes = torch.from_numpy(self.task.classes[self.validation_walks])
            scores = measure(self.task, predictions)
            loss = nll_loss(predictions.probabilities.clamp(min=1e-12).log(), classes, self.class_weights.double()).item()
            row |= {"validation_loss": loss, "validation_macro_f1": scores["macro_f1"]}
            if loss < self.best_loss and self.epoch >= self._half():
                self.best_epoch, self.best_loss = self.epoch, loss
                save_model(self.best, self.model, self.arguments, self.task.class_names)
        if self.epoch % math.ceil(self.config.epochs / 10) == 0 or self.epoch == self.config.epochs:
            row |= {name: value for name, value in measure(self.task, self.test()).items() if name in MEANS}
        return row

    def _agree_on_best(self) -> None:
        """All processes stop after the same epoch."""
        if self.processes.count > 1 and self.validation_walks:
            best = torch.tensor([float(self.best_epoch), self.best_loss], dtype=widest_float(self.device), device=self.device)
            dist.broadcast(best, 0)
            self.best_epoch, self.best_loss = int(best[0].item()), best[1].item()

    def _progress(self) -> dict[str, Any]:
        return {
            "data": fingerprint(self.task),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "scaler": self.step.scaler.state_dict(),
        }

    def _there(self, inputs: Inputs) -> Inputs:
        """On the model's device; to a GPU in one copy, for which nobody waits."""
        if self.device.type != "cuda":
            return {name: tensor.to(self.device) for name, tensor in inputs.items()}
        packed = Packed.of(inputs, pinned=True)
        return packed.unpacked(packed.memory.to(self.device, non_blocking=True))

    def _graph_seed(self) -> int:
        return self.fold.seed * 1_000_003 + self.epoch

    def _settle(self) -> None:
        """From now on the graph's model is not trained."""
        if self.settled or not self._learns_graph():
            return
        self.settled = True
        self.model.source.requires_grad_(False)
        if self.captured is not None:
            self.captured.forget()
        if self.processes.count > 1:
            self.step.model = DistributedDataParallel(self.model)  # which waits for the gradients of those that it was made with

    def _learns_graph(self) -> bool:
        return any(True for _ in self.model.source.parameters())

    def _half(self) -> int:
        """The first epoch whose model can be the best: before it the graph is not what it will be."""
        return math.ceil(self.config.epochs / 2)

    def _set_learning_rate(self, done: float) -> None:
        """A cosine down to 0 at the end, for the graph's model at the time when it is settled."""
        for group, end in zip(self.optimizer.param_groups, (1.0, self.config.settle), strict=False):
            rate = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done / end)))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # where a captured step reads it
            else:
                group["lr"] = rate

    def _diverged(self, loss: float) -> str:
        kept = f"the checkpoint of epoch {self.epoch - 1} is kept in {self.checkpoint}" if self.epoch > 1 else "there was no epoch before it"
        advice = "Train again, in another --out, with a lower --learning-rate or without --amp"
        return f"the loss became {loss} in epoch {self.epoch} of {self.fold.name}; {kept}. {advice}"


def _pairs(exchanged: np.ndarray) -> np.ndarray:
    """For every window the one whose edges it gets: where exchanged the other of its pair (0 and 1, 2 and 3, …), if there is one.  # [B]"""
    own = np.arange(len(exchanged))
    other = np.where(own ^ 1 < len(own), own ^ 1, own)
    return np.where(exchanged, other, own)


def walks_of(task: Task, split: Split) -> tuple[list[int], list[int], list[int]]:
    """Numbers of the walks to train, to validate and to test on."""
    train, validation, test = (
        [i for i, who in enumerate(task.walks.subjects) if who in people] for people in (split.train, split.validation, split.test)
    )
    return train, validation, test


def device_of(config: TrainConfig) -> torch.device:
    name = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {config.device} can't be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        if "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)  # streams and CUDA graphs are of the current one
    return device


def widest_float(device: torch.device) -> torch.dtype:
    """float64, and float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def fingerprint(task: Task) -> int:
    """Changes with the walks, their people and their classes."""
    walks = task.walks
    crc = zlib.crc32(json.dumps([walks.names, walks.subjects, task.classes.tolist(), task.class_names]).encode())
    for poses in walks.poses:
        crc = zlib.crc32(poses.tobytes(), crc)
    return crc


def _row_in_words(row: dict[str, Any]) -> str:
    words = {"validation_macro_f1": "validation macro F1", "macro_f1": "test macro F1", "kept_share": "kept"}
    return f"loss {row['loss']:.4f}" + "".join(f", {said} {row[name]:.3f}" for name, said in words.items() if name in row)


def _progress_bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)
