"""The folder of a run: files written whole or not at all, checkpoints without pickles, models that carry what is needed to build them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fastst import files, interrupts
from fastst.config import TrainConfig
from fastst.errors import DataError, UserError
from fastst.files import is_there, open_file, reading, write_atomically
from fastst.nn import GraphClassifier
from fastst.runs.checksum import NO_CHECKSUM, is_intact, with_checksum

_CHECKPOINT, _MODEL = "fastst checkpoint 1", "fastst model 1"
_SUMMARY = "summary.json"
_MOST_HEADER_BYTES = 1 << 26  # of a safetensors file
# What to do about a damaged file: each of these works, whatever else is there.
_COPY = "copy it again from where it was written"
WRITE_AGAIN = f"{_COPY}, or delete it and the {_SUMMARY} beside it, and fastst.train --resume writes them again"
_TRAIN_AGAIN = f"{_COPY}, or delete it, {_SUMMARY} and checkpoint.safetensors, and fastst.train --resume trains it again"
BEGIN_AGAIN = f"{_COPY}, or delete it, and fastst.train --resume begins this training again"
_BRING_BACK = "bring it back from a copy, or train again with another --out"


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors="backslashreplace"))  # names of files need not be UTF-8


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda part: part.write_bytes(content))  # type: ignore[arg-type]


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None if nothing is there.

    Raises:
        UserError: the file can't be read, or is damaged.
    """
    return files.read_json(path, WRITE_AGAIN) if is_there(path) else None


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """`summary.json`, with a checksum."""
    text = json.dumps(NO_CHECKSUM | summary, indent=2) + "\n"
    write_bytes(folder / _SUMMARY, with_checksum(text.encode()))


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What `write_summary` wrote, or None if nothing is there.

    Raises:
        UserError: the file can't be read, is damaged, or was written or changed by somebody else.
    """
    path = folder / _SUMMARY
    if not is_there(path):
        return None
    summary = read_json(path)
    intact = is_intact(files.read_text(path, WRITE_AGAIN).encode())
    if not intact or not isinstance(summary, dict):
        why = "has no checksum: fastst.train did not write it" if intact is None else "is damaged, or was changed: its checksum doesn't fit"
        raise UserError(f"{path} {why}; {WRITE_AGAIN}")
    return {name: value for name, value in summary.items() if name not in NO_CHECKSUM}


@contextmanager
def as_written(folder: Path, name: str = _SUMMARY, remedy: str = WRITE_AGAIN) -> Iterator[None]:
    """For whoever uses what such a file of a run says: an error tells that it lacks something, as that of another version does, or a changed one.

    Raises:
        UserError: in place of what goes wrong with fields that aren't there or are of another type.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"{folder / name} is not as fastst.train writes it ({_in_one_line(error)}); {remedy}") from None


def append_line(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON at the end of a file."""
    interrupts.check()
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise files.cannot_write(path, error) from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of `append_line`. A last line that was cut off by a crash is dropped."""
    rows: list[dict[str, Any]] = []
    if not is_there(path):
        return rows
    with reading(path), open_file(path) as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
    return rows


def read_run_config(folder: Path) -> TrainConfig:
    """The options that the run in `folder` was begun with.

    Raises:
        UserError: there is no run, or its config.json is not one.
    """
    path = folder / "config.json"
    if not is_there(path):
        raise UserError(f"{folder} holds no run of fastst.train (no config.json)")
    expected = "is not the configuration of a run"
    try:
        return TrainConfig.from_json(files.read_text(path, f"it {expected}: {_BRING_BACK}"), folder)
    except DataError:
        raise
    except RecursionError:
        raise UserError(f"{path} {expected}: its lists are nested too deep; {_BRING_BACK}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} {expected}: {error}; {_BRING_BACK}") from None


def save_model(path: Path, model: GraphClassifier, arguments: dict[str, Any], classes: list[str]) -> None:
    """Weights, and in the header the arguments of `GraphClassifier`, the names of the classes, and a checksum."""
    metadata = {"format": _MODEL, "model": json.dumps(arguments), "classes": json.dumps(classes)}
    _write_tensors(path, model.state_dict(), metadata)


def load_model(path: Path) -> tuple[GraphClassifier, dict[str, Any], list[str]]:
    """What `save_model` wrote, in evaluation mode.

    Raises:
        UserError: there is no such file, it is damaged, or it is not a model of fastst.
    """
    tensors, metadata = _read_tensors(path, _MODEL, "a model", _TRAIN_AGAIN)
    try:
        arguments, classes = (files.all_visible(json.loads(metadata[name])) for name in ("model", "classes"))
        model = GraphClassifier(**arguments)
        model.load_state_dict(tensors)
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("its classes are no list of names")
        if len(classes) != arguments["num_classes"]:
            raise ValueError(f"it tells {arguments['num_classes']} classes apart and names {len(classes)}")
    except Exception as error:  # it was written so: by another version, or by somebody else
        raise UserError(f"{path} is a model of fastst that can't be built: {_in_one_line(error)}; {_TRAIN_AGAIN}") from None
    return model.eval(), arguments, classes


def save_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Everything that training needs to go on: weights, the optimizer's moments, and `progress` (JSON); and a checksum."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    _write_tensors(path, tensors, {"format": _CHECKPOINT, "progress": json.dumps(progress)})


def load_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts what `save_checkpoint` wrote into model and optimizer and returns its `progress`.

    Raises:
        UserError: the file is damaged, is not a checkpoint, or is one of another model.
    """
    tensors, metadata = _read_tensors(path, _CHECKPOINT, "a checkpoint", BEGIN_AGAIN)
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    try:
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            else:
                number, _, moment = rest.partition(".")
                state.setdefault(int(number), {})[moment] = tensor
        model.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return dict(json.loads(metadata["progress"]))
    except Exception as error:  # whatever the optimizer makes of another one's moments
        raise UserError(f"{path} is a checkpoint of another model: {_in_one_line(error)}; {BEGIN_AGAIN}") from None


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, with_checksum(safetensors.torch.save(there, metadata | NO_CHECKSUM)))


def _read_tensors(path: Path, form: str, what: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file with a checksum that fits."""
    if not is_there(path):
        raise UserError(f"{path} doesn't exist; expected {what} that fastst.train wrote")
    with reading(path), open_file(path) as file:
        head = file.read(8)
        header = file.read(min(int.from_bytes(head, "little"), _MOST_HEADER_BYTES))
        metadata = _metadata(header)
        if metadata is None:
            raise UserError(f"{path} is not {what} of fastst, or is damaged or cut off; {remedy}")
        if metadata.get("format") != form and not NO_CHECKSUM.keys() & metadata.keys():
            raise UserError(f"{path} is a safetensors file, but not {what} of fastst (its format is {metadata.get('format')!r}); {remedy}")
        content = head + header + file.read()
        intact = is_intact(content, len(head + header))
        if intact is None:
            raise UserError(f"{path} has no checksum: it is damaged, or fastst.train did not write it; {remedy}")
        if not intact:
            raise UserError(f"{path} is damaged or cut off: its checksum doesn't fit, so it is not {what} of fastst as it was written; {remedy}")
        if metadata.get("format") != form:
            raise UserError(f"{path} is not {what} of fastst, but {metadata.get('format')!r}; {remedy}")
        try:
            return safetensors.torch.load(content), metadata
        except SafetensorError as error:
            raise UserError(f"{path} is not {what} of fastst: {_in_one_line(error)}; {remedy}") from None


def _metadata(header: bytes) -> dict[str, str] | None:
    """Of the header of a safetensors file; None if it is none."""
    try:
        metadata = json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()) else None


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
