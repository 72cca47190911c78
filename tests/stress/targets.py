"""What the fuzzer hands damaged files to: every form of walks, the other files that options name, and the files of a run's folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastst import compare, convert, evaluate, predict, train
from fastst.config import TrainConfig
from fastst.data.labels import apply_labels, read_labels
from fastst.data.options import ReadOptions
from fastst.data.prepare import choose_layout
from fastst.data.read import read_walks
from fastst.data.splits import read_split
from fastst.errors import UserError

from .common import TRAINING
from .seeds import Seeds, good_file, others, seeds

_SIZE = ("--image-size", "320", "240")
_OPTIONS = ReadOptions(image_size=(320, 240))
PEOPLE = ("001", "002", "003")


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Args:
        name: what the files are.
        seeds: good ones.
        place: puts a file into a new folder; returns where it lies.
        read: reads it as a user would have it read, in this process; raises what a command raises, `Lost` or `Accepted`.
        command: the same as a command line, which is tried now and then.
    """

    name: str
    seeds: Seeds
    place: Callable[[Path, str, bytes], Path]
    read: Callable[[Path], None]
    command: Callable[[Path], list[str]]


class Lost(Exception):
    """A good file beside a bad one was neither read nor left out by name."""


class Accepted(Exception):
    """A damaged file, which carries a checksum, was taken for a good one."""


def targets(run: Path) -> dict[str, Target]:
    """All of them; `run` is the folder of a finished run of `make_run`."""
    every = [_of_form(name, files) for name, files in seeds().items()]
    other = others()
    every.append(Target("file of --labels", other["labels"], _alone, _read_labels, lambda path: _evaluate(run, good(path), "--labels", str(path))))
    every.append(Target("file of --split-file", other["split"], _alone, lambda path: _ignore(read_split(path, PEOPLE)), _train_on_split))
    layouts = other["layout"]
    every.append(Target("file of --joints", layouts, _alone, _read_joints, lambda path: ["fastst.convert", *_converted(good(path)), "--joints", str(path)]))
    every.append(Target("file of --layout", layouts, _alone, _read_layout, lambda path: ["fastst.train", "--layout", str(path), "--out", str(path.parent / "run")]))
    every += [_of_run(run, name, is_finished) for name, is_finished in _RUN_FILES]
    return {target.name: target for target in every}


def make_run(folder: Path) -> None:
    """A finished run whose files are damaged."""
    command = [sys.executable, "-m", "fastst.train", *TRAINING, "--epochs", "2", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def good(beside: Path) -> Path:
    """A good file of walks, not in the folder of the bad one."""
    path = beside.parent.parent / "good.csv"
    path.write_bytes(b"\n".join([good_file(PEOPLE[0]), *(good_file(person).split(b"\n", 1)[1] for person in PEOPLE[1:])]))
    return path


def _ignore(_: object) -> None:
    pass


def _of_form(name: str, files: Seeds) -> Target:
    return Target(name, files, _beside_good, _read_folder, lambda path: ["fastst.convert", *_converted(path)])


def _alone(folder: Path, ending: str, content: bytes) -> Path:
    path = folder / f"bad{ending}"
    path.write_bytes(content)
    return path


def _beside_good(folder: Path, ending: str, content: bytes) -> Path:
    (folder / "walks").mkdir()
    for person in PEOPLE[1:]:
        (folder / "walks" / f"{person}-nm-01-090.csv").write_bytes(good_file(person))
    path = folder / "walks" / f"001-nm-01-090{ending}"
    path.write_bytes(content)
    return path


def _converted(data: Path) -> list[str]:
    return ["--data", str(data), "--out", str(data.parent.parent / "out.npz"), *_SIZE]


def _read_folder(path: Path) -> None:
    """The file alone, and with the good ones."""
    with contextlib.suppress(UserError):
        convert.main(_converted(path))
    walks = read_walks(path.parent, _OPTIONS, progress=False)
    said = " ".join([*walks.names, *(f"{left.name} {left.reason}" for left in walks.left_out)])
    for person in PEOPLE[1:]:
        if f"{person}-nm-01-090" not in said:
            raise Lost(f"{person} is neither among the walks {walks.names} nor left out")


def _read_labels(path: Path) -> None:
    walks = read_walks(good(path), _OPTIONS, progress=False)
    labels = read_labels(path)
    apply_labels(walks, labels)
    read_walks(good(path), _OPTIONS, progress=False, labels=labels)


def _read_joints(path: Path) -> None:
    convert.main([*_converted(good(path)), "--joints", str(path)])


def _read_layout(path: Path) -> None:
    TrainConfig(layout=str(path))
    choose_layout(str(path), read_walks(good(path), _OPTIONS, progress=False).layout)


def _train_on_split(path: Path) -> list[str]:
    return ["fastst.train", *TRAINING, "--epochs", "1", "--split-file", str(path), "--out", str(path.parent / "run")]


def _evaluate(run: Path, data: Path, *more: str) -> list[str]:
    return ["fastst.evaluate", "--run", str(run), "--data", str(data), *_SIZE, *more]


# The files of a run, and whether it is damaged after its end or before: only who goes on reads its state.
_RUN_FILES = (
    ("model.safetensors", True),
    ("config.json", True),
    ("summary.json", True),
    ("split.json", True),
    ("walks_seen.json", True),
    ("predictions.csv", True),
    ("checkpoint.safetensors", False),
    ("metrics.jsonl", False),
    ("config.json", False),
    ("split.json", False),
)


def _of_run(run: Path, name: str, is_finished: bool) -> Target:
    def place(folder: Path, _: str, content: bytes) -> Path:
        copy = folder / "run"
        copy.mkdir()
        for file in run.iterdir():
            if file.suffix != ".png" and (is_finished or file.name not in ("summary.json", "model.safetensors")):
                shutil.copyfile(file, copy / file.name)
        (copy / name).write_bytes(content)
        return copy / name

    def read(path: Path) -> None:
        if is_finished:
            _read_finished(path)
        elif name == "config.json":
            train.read_config(["--resume", "--out", str(path.parent)])
        else:
            train.train(train.read_config(["--resume", "--out", str(path.parent)]), on_finished=None, quiet=True)
        if path.suffix == ".safetensors" and content != path.read_bytes():
            raise Accepted(f"{name} was damaged, and nobody said so")

    def command(path: Path) -> list[str]:
        if is_finished:
            data = good(path.parent)
            return _evaluate(path.parent, data, *_labels(data))
        return ["fastst.train", "--resume", "--out", str(path.parent)]

    content = (run / name).read_bytes()
    when = "finished" if is_finished else "interrupted"
    return Target(f"{name} of a run, {when}", [(Path(name).suffix, content)], place, read, command)


def _read_finished(path: Path) -> None:
    """By every command that opens runs."""
    run, data = str(path.parent), good(path.parent)
    reading: list[Callable[[], object]] = [
        lambda: predict.main(["--run", run, "--data", str(data), *_SIZE]),
        lambda: evaluate.main(_evaluate(path.parent, data, *_labels(data))[1:]),
        lambda: compare.main([run, run]),
    ]
    if path.name != "config.json":  # which may ask for a long training
        reading.append(lambda: train.train(train.read_config(["--resume", "--out", run]), on_finished=None, quiet=True))
    refused: UserError | None = None
    for command in reading:
        try:
            command()
        except UserError as error:
            refused = error
    if refused is not None:
        raise refused


def _labels(data: Path) -> list[str]:
    """Options for a file with the classes of the good walks."""
    path = data.with_name("labels.csv")
    path.write_text("subject,label\n" + "".join(f"{person},{('female', 'male')[i % 2]}\n" for i, person in enumerate(PEOPLE)))
    return ["--labels", str(path), "--other-people"]
