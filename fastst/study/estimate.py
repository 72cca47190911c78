"""How long a grid takes, and how much memory, from a few timed steps of every setting."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastst.config import TrainConfig
from fastst.cpu.memory import peak_memory
from fastst.data.batches import even_windows, random_windows
from fastst.data.options import ReadOptions
from fastst.data.splits import Split, balanced_split, class_of_people
from fastst.runs.folder import save_checkpoint
from fastst.runs.load import Task, load_task
from fastst.runs.predictions import outcomes_of
from fastst.runs.probes import baselines, fit_regression, pose_features
from fastst.runs.trainer import Finished, Fold, Processes, Trainer
from fastst.study.cell import look
from fastst.study.grid import Cell
from fastst.study.progress import but_for_seed
from fastst.study.schedule import Where, cores

_STEPS = 2  # that are timed
_EPOCHS, _SETTLE = 100, 0.02  # of the tries: no test within the first ten epochs, and the graph is settled after two
_TESTS = 11  # of a training: ten on the way, and the last
_OF_THE_DATA = (
    *(field.name for field in dataclasses.fields(ReadOptions)),
    *("data", "labels", "label_map", "target", "layout", "people", "walks_per_person", "planted", "planted_kind", "hops", "seed"),
)


@dataclass(frozen=True)
class Costs:
    """Seconds of a training: of a window that is trained on before and after the graph is settled, of one that is tested on, of one that is audited,
    and once."""

    learning: float
    settled: float
    testing: float
    auditing: float
    once: float

    def of(self, config: TrainConfig, train_windows: int, test_windows: int) -> float:
        """Of a whole run."""
        window = self.learning * config.settle + self.settled * (1 - config.settle)
        trainings = config.seeds * (config.folds or 1) * (2 if config.permuted else 1)
        one = config.epochs * train_windows * window + test_windows * (_TESTS * self.testing + self.auditing)
        return self.once + one * trainings


def estimate(cells: Sequence[Cell], where: Where) -> str:
    """In words: how many runs are open, how long they take, and how much memory; every setting is tried on this machine, with a few windows."""
    still = [cell for cell in cells if not cell.is_finished()]
    counts = Counter(but_for_seed(cell.config) for cell in still)
    torch.set_num_threads(max(1, cores() // where.count))
    tasks: dict[TrainConfig, tuple[Task, float]] = {}
    total, longest = 0.0, 0.0
    for config, count in counts.items():
        data = TrainConfig(**{name: getattr(config, name) for name in _OF_THE_DATA})
        if data not in tasks:
            started = time.perf_counter()
            tasks[data] = (load_task(data, progress=False), time.perf_counter() - started)
        seconds = seconds_of_run(config, *tasks[data])
        total, longest = total + count * seconds, max(longest, seconds)
    hours = total / where.count / 3600
    begin = f"{len(cells)} runs, {len(cells) - len(still)} of them finished; {len(counts)} settings were tried"
    return (
        f"{begin}: about {hours:.2f} hours with {where.count} at a time, the longest run {longest / 60:.1f} minutes; "
        f"{peak_memory() / 2**30:.1f} GiB of memory for each that runs"
    )


def seconds_of_run(config: TrainConfig, task: Task, loading: float) -> float:
    """About how long a run takes here: training, tests and audit by their windows, after a few of each."""
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    split = balanced_split(people, config.seed)
    numbers = range(len(task.walks))
    train, test = ([i for i in numbers if task.walks.subjects[i] in side] for side in (split.train, split.test))
    costs = _costs(config, task, _few(task, split, people, config), loading)
    windows = random_windows(task.lengths, train, config.frames, np.random.default_rng(0))
    return costs.of(config, len(windows), len(even_windows(task.lengths, test, config.frames)))


def _few(task: Task, split: Split, people: dict[str, str], config: TrainConfig) -> Split:
    """So many people of every class that their windows are some batches."""

    def some(of: frozenset[str], wanted: int) -> frozenset[str]:
        queues = [[who for who in sorted(of) if people[who] == name] for name in task.class_names]
        chosen: set[str] = set()
        for turn in range(max(map(len, queues))):
            chosen |= {queue[turn] for queue in queues if turn < len(queue)}
            walks = [i for i, who in enumerate(task.walks.subjects) if who in chosen]
            if len(even_windows(task.lengths, walks, config.frames)) >= wanted:
                break
        return frozenset(chosen)

    return dataclasses.replace(split, train=some(split.train, _STEPS * config.batch_size), test=some(split.test, config.batch_size))


def _costs(config: TrainConfig, task: Task, split: Split, loading: float) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        tried = dataclasses.replace(config, epochs=_EPOCHS, settle=min(config.settle, _SETTLE), validation=0.0, patience=0)
        fold = Fold(Path(folder), "estimate", split, config.seed)
        trainer = Trainer(tried, task, fold, Processes(0, 1))
        windows = len(random_windows(task.lengths, trainer.train_walks, config.frames, np.random.default_rng(0)))
        epochs = [_seconds(trainer.train_epoch) for _ in range(4)]  # the first and the third, where the graph has just been settled, are warm-up
        saving = _seconds(lambda: save_checkpoint(trainer.checkpoint, trainer.model, trainer.optimizer, {}))
        learning, settled = (max(epoch - saving, 0.0) / windows for epoch in (epochs[1], epochs[3]))
        tested = len(even_windows(task.lengths, trainer.test_walks, config.frames))
        testing = _seconds(trainer.test) / tested
        outcomes = outcomes_of(task, trainer.test())
        regression = fit_regression(pose_features(task, trainer.train_walks), task.classes[trainer.train_walks], len(task.class_names))
        probed = baselines(regression.probabilities(pose_features(task, trainer.test_walks)), torch.from_numpy(outcomes.classes))
        model = trainer.model.eval()
        done = Finished(tried, task, fold, model, trainer.train_walks, trainer.test_walks, [], {"baselines": probed})
        auditing = _seconds(lambda: look(done)) / tested
    return Costs(learning, settled, testing, auditing, loading + config.epochs * saving)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
