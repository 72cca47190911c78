"""What the fuzzer hands damaged files to: every form of walks, the other files that options name, and the files of a run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastst import compare, convert, evaluate, predict
from fastst.config import TrainConfig
from fastst.data.labels import apply_labels, read_labels
from fastst.data.options import ReadOptions
from fastst.data.prepare import choose_layout
from fastst.data.read import read_walks
from fastst.data.splits import read_split
from fastst.errors import UserError
from fastst.explanation.report import EXPLAINED
from fastst.runs.training import train
from fastst.train import read_config

from .common import ROOT, TRAINING
from .mutate import signed
from .seeds import Seeds, good_file, others, seeds

_SIZE = ("--image-size", "320", "240")
_OPTIONS = ReadOptions(image_size=(320, 240))
PEOPLE = ("001", "002", "003")
_READ_ALONE = dataclasses.replace(EXPLAINED, of_fold=lambda _: {})  # what is there is read, and nothing looked at anew


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


def targets(run: Path, only: str = "") -> dict[str, Target]:
    """Those with `only` in their names, by name; `run` is where a run is made to be damaged, if it isn't there yet."""
    made: dict[str, Callable[[], Target]] = {name: partial(_of_form, name, files) for name, files in seeds().items()}
    made |= {name: partial(_of_option, name, files, run) for name, files in others().items()}
    made |= {f"{name} of a run, {when}": partial(_of_run, run, name, when) for name, when in _RUN_FILES}
    wanted = {name: make for name, make in made.items() if only in name}
    if wanted.keys() - seeds().keys() and not (run / "summary.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "fastst.train", *TRAINING, "--epochs", "2", "--out", str(run)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return {name: make() for name, make in wanted.items()}


def good(beside: Path) -> Path:
    """A good file of walks, not in the folder of the bad one."""
    path = beside.parent.parent / "good.csv"
    path.write_bytes(b"\n".join([good_file(PEOPLE[0]), *(good_file(person).split(b"\n", 1)[1] for person in PEOPLE[1:])]))
    return path


def _ignore(_: object) -> None:
    pass


def _of_option(option: str, files: Seeds, run: Path) -> Target:
    read, command = _OPTION_READERS[option]
    return Target(option, files, _alone, read, lambda path: command(path, run))


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


def _evaluate(run: Path, data: Path, *more: str) -> list[str]:
    return ["fastst.evaluate", "--run", str(run), "--data", str(data), *_SIZE, *more]


# How a file of an option is read, and by which command.
_OPTION_READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path, Path], list[str]]]] = {
    "--labels": (_read_labels, lambda path, run: _evaluate(run, good(path), "--labels", str(path))),
    "--split-file": (lambda path: _ignore(read_split(path, PEOPLE)), lambda path, _: _trained("--split-file", path)),
    "--joints": (_read_joints, lambda path, _: ["fastst.convert", *_converted(good(path)), "--joints", str(path)]),
    "--layout": (_read_layout, lambda path, _: _trained("--layout", path)),
}


def _trained(option: str, path: Path) -> list[str]:
    return ["fastst.train", *TRAINING, "--epochs", "1", option, str(path), "--out", str(path.parent / "run")]


# The files of a run, and whether it is damaged after its end or before: only who goes on reads its state.
_FINISHED = "finished"
_RUN_FILES = (
    ("model.safetensors", _FINISHED),
    ("config.json", _FINISHED),
    ("summary.json", _FINISHED),
    ("split.json", _FINISHED),
    ("walks_seen.json", _FINISHED),
    ("predictions.csv", _FINISHED),
    ("checkpoint.safetensors", "interrupted"),
    ("metrics.jsonl", "interrupted"),
    ("config.json", "interrupted"),
    ("split.json", "interrupted"),
)


_WITH_CHECKSUM = ("model.safetensors", "checkpoint.safetensors", "summary.json")


def _of_run(run: Path, name: str, when: str) -> Target:
    is_finished, content = when == _FINISHED, (run / name).read_bytes()

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
            read_config(["--resume", "--out", str(path.parent)])
        else:
            train(read_config(["--resume", "--out", str(path.parent)]), _READ_ALONE, quiet=True)
        if name in _WITH_CHECKSUM and (given := path.read_bytes()) != content and signed(given) != given:
            raise Accepted(f"{name} was damaged, and nobody said so")

    def command(path: Path) -> list[str]:
        if is_finished:
            data = good(path.parent)
            return _evaluate(path.parent, data, *_labels(data))
        return ["fastst.train", "--resume", "--out", str(path.parent)]

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
        reading.append(lambda: train(read_config(["--resume", "--out", run]), _READ_ALONE, quiet=True))
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
