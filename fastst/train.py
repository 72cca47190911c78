"""`python -m fastst.train`: from a file of walks to a trained, tested and explained classifier."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import time
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import fastst
from fastst import figures
from fastst.config import TrainConfig, differences
from fastst.cpu.memory import keep_freed_memory
from fastst.data.batches import Windows, in_order, make_batch, random_windows
from fastst.data.load import Task, load_task
from fastst.data.splits import Split, balanced_split, class_of_people, folds, split_from_labels
from fastst.errors import UserError, run_command
from fastst.evaluate import measure, predict_walks
from fastst.nn import GraphClassifier
from fastst.ops.backends import current_backend
from fastst.run_folder import (
    WriteError,
    append_line,
    load_checkpoint,
    read_lines,
    read_run_config,
    save_checkpoint,
    save_model,
    write_json,
    write_text,
)

_PROGRAM = "python -m fastst.train"
_MEANS = ("macro_f1", "balanced_accuracy", "accuracy", "mad", "kept_share")


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
    """One training run within a run: its folder, whom it trains and tests on, and the seed that its random choices follow from."""

    folder: Path
    name: str
    split: Split
    seed: int


@dataclass(frozen=True)
class _Place:
    """The one option that has to be known before the others can be judged."""

    out: Path = TrainConfig.out


def main() -> None:
    keep_freed_memory()
    processes = Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    config = read_config(sys.argv[1:])
    if processes.count > 1:
        dist.init_process_group("nccl" if config.device != "cpu" and torch.cuda.is_available() else "gloo")
    try:
        train(config, processes)
    except WriteError as error:
        raise UserError(f"{error}, and go on with --resume") from None
    finally:
        if processes.count > 1:
            dist.destroy_process_group()


def read_config(arguments: list[str]) -> TrainConfig:
    """The options of the command line; with --resume those of the run, and an error where the command line says otherwise."""
    if "--resume" not in arguments:
        return tyro.cli(TrainConfig, prog=_PROGRAM, args=arguments)
    place, _ = tyro.cli(_Place, args=[word for word in arguments if word != "--resume"], return_unknown_args=True, add_help=False)
    saved = read_run_config(place.out)
    differing = differences(saved, tyro.cli(TrainConfig, prog=_PROGRAM, args=arguments, default=dataclasses.replace(saved, resume=False)))
    if differing:
        raise UserError(f"--resume goes on with the run in {place.out}, but " + "; ".join(differing) + ". Leave these out, or use another --out")
    return saved


def train(config: TrainConfig, processes: Processes = Processes(0, 1)) -> dict[str, Any]:
    """Trains, tests and explains; everything lands in `config.out`. Returns the summary."""
    console = Console(stderr=True, quiet=not processes.leads, soft_wrap=True, markup=False)
    if processes.leads:
        _check_folder(config)
    _device(config)
    _check_backend()
    task = load_task(config, progress=processes.leads)
    console.print(task.description(), highlight=False)
    every_fold = _folds(config, task)
    for fold in every_fold:
        _check_sides(task, fold, *_walks_of(task, fold))
    if processes.leads and not config.resume:
        _open_folder(config)  # not before everything that can be wrong was looked at: a failed start leaves nothing behind
    _report_left_out(config, task, processes, console)
    results = []
    for fold in every_fold:
        result = _finished(fold)
        if result is None:
            result = train_fold(config, task, fold, processes, console)
        results.append(result)
        if processes.leads:
            console.print(f"{fold.name}: {_in_words(result)}", highlight=False)
    summary = results[0] if not config.folds else _mean_of_folds(results)
    if processes.leads and config.folds:
        write_json(config.out / "summary.json", summary)
        console.print(f"mean of {config.folds} folds: {_in_words(summary)}", highlight=False)
    console.print(f"everything is in {config.out}", highlight=False)
    return summary


def train_fold(config: TrainConfig, task: Task, fold: Fold, processes: Processes, console: Console) -> dict[str, Any]:
    """Trains on one split, from its checkpoint if there is one, and tests the last epoch's model. Returns the fold's summary (rank 0)."""
    trainer = Trainer(config, task, fold, processes)
    for name in trainer.untested_classes():
        console.print(f"{fold.name}: nobody of class {name!r} is tested on; the metrics say nothing about it", highlight=False)
    if processes.leads:
        fold.folder.mkdir(parents=True, exist_ok=True)
    trainer.resume()
    with _progress_bar(console) as progress:
        bar = progress.add_task(fold.name, total=config.epochs, completed=trainer.epoch)
        while trainer.epoch < config.epochs:
            row = trainer.train_epoch()
            progress.advance(bar)
            left = progress.tasks[0].time_remaining
            eta = f", {left:.0f} s left" if left is not None else ""
            progress.console.print(f"{fold.name} epoch {trainer.epoch}/{config.epochs}: {_row_in_words(row)}{eta}", highlight=False)
    return trainer.finish() if processes.leads else {}


class Trainer:
    """The state of one training run. Every random choice is a function of (seed, epoch, window), so going on from a checkpoint changes nothing."""

    def __init__(self, config: TrainConfig, task: Task, fold: Fold, processes: Processes) -> None:
        self.config, self.task, self.fold, self.processes = config, task, fold, processes
        self.device = _device(config)
        self.train_walks, self.test_walks = _walks_of(task, fold)
        counts = np.bincount(task.classes[self.train_walks], minlength=len(task.class_names))
        self.class_weight = torch.tensor(len(self.train_walks) / (len(counts) * counts), dtype=torch.float32, device=self.device)
        self.arguments = model_arguments(config, task)
        torch.manual_seed(fold.seed)
        self.model = GraphClassifier(**self.arguments)
        self.model.standardize(torch.from_numpy(task.walks.poses[i]) for i in self.train_walks)
        self.model.to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.parallel = DistributedDataParallel(self.model) if processes.count > 1 else self.model
        self.epoch, self.seconds = 0, 0.0

    @property
    def checkpoint(self) -> Path:
        return self.fold.folder / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        return self.fold.folder / "metrics.jsonl"

    def resume(self) -> None:
        """Goes back to the last checkpoint, if there is one; rows of epochs that came after it are dropped."""
        if not self.checkpoint.exists():
            if self.processes.leads:
                self.metrics.unlink(missing_ok=True)
            return
        progress = load_checkpoint(self.checkpoint, self.model, self.optimizer)
        if progress["data"] != _fingerprint(self.task):
            raise UserError(f"the data have changed since {self.checkpoint} was written; bring them back, or begin again with another --out")
        self.epoch, self.seconds = progress["epoch"], progress["seconds"]
        self.scaler.load_state_dict(progress["scaler"])
        if self.processes.leads:
            rows = read_lines(self.metrics)[: self.epoch]
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def train_epoch(self) -> dict[str, Any]:
        """Shows the model one window of every training walk; leaves a row of metrics and a checkpoint. Returns the row."""
        started, config = time.perf_counter(), self.config
        rng = np.random.default_rng([self.fold.seed, self.epoch])
        windows = random_windows(self.task.lengths, self.train_walks, config.frames, rng)
        mirrored = rng.random(len(windows)) < 0.5 * config.mirror
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for chosen in in_order(windows, config.batch_size):
            self._set_learning_rate((self.epoch + chosen[0] / len(windows)) / config.epochs)
            total += self._train_step(windows, chosen, mirrored)
        if self.processes.count > 1:
            dist.all_reduce(total)
        loss = (total[0] / total[1]).item()
        self.epoch += 1
        row: dict[str, Any] = {"epoch": self.epoch, "loss": loss}
        if not math.isfinite(loss):
            raise UserError(self._diverged(loss))
        every = math.ceil(config.epochs / 10)
        if self.processes.leads and (self.epoch % every == 0 or self.epoch == config.epochs):
            row |= {name: value for name, value in self.test().items() if name in _MEANS}
        self.seconds += time.perf_counter() - started
        row["seconds"] = self.seconds
        if self.processes.leads:
            append_line(self.metrics, row)
            progress = {"data": _fingerprint(self.task), "epoch": self.epoch, "seconds": self.seconds, "scaler": self.scaler.state_dict()}
            save_checkpoint(self.checkpoint, self.model, self.optimizer, progress)
        return row

    def untested_classes(self) -> list[str]:
        tested = set(self.task.classes[self.test_walks].tolist())
        return [name for number, name in enumerate(self.task.class_names) if number not in tested]

    def test(self) -> dict[str, Any]:
        return measure(self.task, self._predict())

    def finish(self) -> dict[str, Any]:
        """Tests the trained model and writes the model, the summary and the figures."""
        summary = {
            **self.test(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": self.seconds,
            "classes": self.task.class_names,
            "train_walks": len(self.train_walks),
            "train_people": len(self.fold.split.train),
            "left_out": len(self.task.walks.left_out),
            "filled_share": self.task.filled.share,
            "versions": {"fastst": fastst.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "threads": torch.get_num_threads(),
            "device": self.device.type,
        }
        save_model(self.fold.folder / "model.safetensors", self.model, self.arguments, self.task.class_names)
        self._draw(summary)
        write_json(self.fold.folder / "summary.json", summary)  # last: a folder with a summary is finished
        return summary

    def _train_step(self, windows: Windows, chosen: np.ndarray, mirrored: np.ndarray) -> torch.Tensor:
        """Σ weight · loss and Σ weight of this process's share of a batch."""
        count, rank = self.processes.count, self.processes.rank
        mine = chosen[rank::count]
        everyone = self.class_weight[torch.from_numpy(self.task.classes[windows.walk[chosen]]).to(self.device)].sum()
        idle = len(mine) == 0  # the last batch may have fewer windows than there are processes; DDP still needs a backward of everybody
        mine = chosen[:1] if idle else mine
        batch = make_batch(self.task.walks.poses, self.task.classes, windows, mine, self.config.frames, mirrored[mine], self.task.walks.layout)
        lengths = None if batch.lengths is None else batch.lengths.to(self.device)
        with self._autocast():
            output = self.parallel(batch.poses.to(self.device), lengths, seed=self._graph_seed(), sample_ids=batch.sample_ids.to(self.device))
        classes = batch.classes.to(self.device)
        weight = self.class_weight[classes] * (0.0 if idle else 1.0)
        loss = (weight * cross_entropy(output.logits.float(), classes, reduction="none")).sum()
        self.optimizer.zero_grad(set_to_none=True)
        # DDP takes the mean of the processes' gradients; the batch's loss is the weighted mean over all their windows.
        self.scaler.scale(loss * count / everyone).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack((loss.detach(), weight.sum())).double()

    def _graph_seed(self) -> int:
        return self.fold.seed * 1_000_003 + self.epoch

    def _autocast(self):
        if self.config.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.amp == "bf16" else torch.float16)

    def _set_learning_rate(self, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _predict(self):
        return predict_walks(
            self.model,
            self.task,
            self.test_walks,
            frames=self.config.frames,
            seed=self.fold.seed * 1_000_003 - 1,
            evaluation=self.config.evaluation,
            samples=self.config.samples,
            batch_size=self.config.batch_size,
        )

    def _diverged(self, loss: float) -> str:
        kept = f"the checkpoint of epoch {self.epoch - 1} is kept in {self.checkpoint}" if self.epoch > 1 else "there was no epoch before it"
        advice = "Train again, in another --out, with a lower --learning-rate or without --amp"
        return f"the loss became {loss} in epoch {self.epoch} of {self.fold.name}; {kept}. {advice}"

    def _draw(self, summary: dict[str, Any]) -> None:
        folder, config = self.fold.folder, self.config
        figures.learning_curve(read_lines(self.metrics), folder / "learning_curve.png")
        figures.initial_adjacency(self.task.walks.layout, folder / "initial_adjacency.png")
        figures.kept_edges_per_joint(summary["kept_share_per_joint"], folder / "kept_edges_per_joint.png")
        walk = self.test_walks[0]
        poses = self.task.walks.poses[walk][: config.frames]
        with torch.no_grad():
            output = self.model.eval()(torch.from_numpy(poses)[None].to(self.device), seed=self.fold.seed, evaluation=config.evaluation)
        title = f"{self.task.walks.names[walk]} ({self.task.class_names[self.task.classes[walk]]})"
        figures.walk_with_kept_edges(poses, self.model.graph, output.kept[0].cpu().numpy(), title, folder / "walk_with_kept_edges.png")


def model_arguments(config: TrainConfig, task: Task) -> dict[str, Any]:
    """The arguments of `GraphClassifier` that the options and the data ask for."""
    names = ["graph", "hops", "layers", "hidden", "frames", "attention", "heads", "encoder_layers", "drop", "noise", "estimator", "beta", "tau"]
    names.append("checkpoint_activations")
    return {
        "layout": task.walks.layout.to_dict(),
        "num_classes": len(task.class_names),
        "in_channels": task.walks.poses[0].shape[2],
        **{name: getattr(config, name) for name in names},
    }


def _check_folder(config: TrainConfig) -> None:
    """That nothing is in the folder of a new run."""
    if config.resume:
        return
    try:
        taken = config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir()))
    except OSError as error:
        raise UserError(f"--out {config.out} can't be used: {error.strerror}") from None
    if taken:
        what = "holds another run; --resume goes on with it" if (config.out / "config.json").exists() else "exists and is not empty"
        raise UserError(f"--out {config.out} {what}; name a new folder with --out, or delete it")


def _open_folder(config: TrainConfig) -> None:
    """Makes the run's folder and writes its configuration."""
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {config.out} can't be made: {error.strerror}") from None
    write_text(config.out / "config.json", config.to_json())


def _folds(config: TrainConfig, task: Task) -> list[Fold]:
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    if config.folds:
        return [
            Fold(config.out / f"fold-{i}", f"fold {i}/{config.folds}", split, config.seed * 1009 + i)
            for i, split in enumerate(folds(people, config.folds, config.seed), 1)
        ]
    split = balanced_split(people, config.seed) if config.split == "paper" else split_from_labels(people, task.splits)
    return [Fold(config.out, "training", split, config.seed * 1009)]


def _walks_of(task: Task, fold: Fold) -> tuple[list[int], list[int]]:
    """Numbers of the walks to train and to test on."""
    train, test = ([i for i, who in enumerate(task.walks.subjects) if who in people] for people in (fold.split.train, fold.split.test))
    return train, test


def _check_sides(task: Task, fold: Fold, train_walks: list[int], test_walks: list[int]) -> None:
    for side, walks in (("train", train_walks), ("test", test_walks)):
        if not walks:
            raise UserError(f"{fold.name}: nobody is left to {side} on")
    for number, name in enumerate(task.class_names):
        if number not in task.classes[train_walks]:
            raise UserError(f"{fold.name}: class {name!r} has nobody to train on; it needs people on both sides of the split")


def _fingerprint(task: Task) -> int:
    """Changes with the walks, their people and their classes."""
    walks = task.walks
    crc = zlib.crc32(json.dumps([walks.names, walks.subjects, task.classes.tolist(), task.class_names]).encode())
    for poses in walks.poses:
        crc = zlib.crc32(poses.tobytes(), crc)
    return crc


def _finished(fold: Fold) -> dict[str, Any] | None:
    path = fold.folder / "summary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and go on with --resume, which writes it again") from None


def _mean_of_folds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and standard deviations over the folds, sums of what is counted, and the folds themselves."""
    if not results[0]:
        return {}
    return {
        **{name: mean(result[name] for result in results) for name in _MEANS},
        "std": {name: pstdev([result[name] for result in results]) for name in _MEANS},
        **{name: sum(result[name] for result in results) for name in ("walks", "people", "seconds")},
        **{name: results[0][name] for name in ("parameters", "classes", "left_out", "filled_share", "versions", "threads", "device")},
        "folds": results,
    }


def _report_left_out(config: TrainConfig, task: Task, processes: Processes, console: Console) -> None:
    left_out = task.walks.left_out
    if not left_out:
        return
    for item in left_out[:10]:
        console.print(f"left out: {item.name}: {item.reason}", highlight=False)
    if len(left_out) > 10:
        console.print(f"left out: {len(left_out) - 10} more", highlight=False)
    if processes.leads:
        write_json(config.out / "left_out.json", [dataclasses.asdict(item) for item in left_out])


def _in_words(summary: dict[str, Any]) -> str:
    return (
        f"macro F1 {summary['macro_f1']:.3f}, balanced accuracy {summary['balanced_accuracy']:.3f}, MAD {summary['mad']:.3f}, "
        f"{summary['kept_share']:.0%} of the edges kept ({summary['walks']} walks of {summary['people']} people, {summary['seconds']:.0f} s)"
    )


def _row_in_words(row: dict[str, Any]) -> str:
    return f"loss {row['loss']:.4f}" + (f", macro F1 {row['macro_f1']:.3f}" if "macro_f1" in row else "")


def _check_backend() -> None:
    try:
        current_backend()
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None


def _device(config: TrainConfig) -> torch.device:
    name = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {config.device} can't be used: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def _progress_bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    run_command(main, "; go on with --resume")
