"""The folder of a run: files written whole or not at all, checkpoints without pickles, models that carry what is needed to build them."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastst.config import TrainConfig
from fastst.errors import UserError
from fastst.nn import GraphClassifier

_CHECKPOINT, _MODEL = "fastst checkpoint 1", "fastst model 1"


class WriteError(UserError):
    """A file can't be written."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file beside `path` and renames it: a reader, a crash or a full disk never sees half of it.

    Raises:
        WriteError: the file can't be written. What was there before stays.
    """
    place = path.resolve()  # through links, which stay
    if place.exists() and not place.is_file():
        what = "a folder" if place.is_dir() else "no regular file"
        raise WriteError(f"{path} can't be written: it is {what}; name a file")
    part = place.with_name(f".{place.stem}.{secrets.token_hex(6)}.part{place.suffix}")  # nobody else's
    try:
        part.touch(exist_ok=False)
        mode = (place if place.exists() else part).stat().st_mode
        write(part)
        part.chmod(stat.S_IMODE(mode))  # as any file of the user, whatever the library that writes thinks
        with part.open("r+b") as file:  # Windows brings only files to the disk that may be written
            os.fsync(file.fileno())
        part.replace(place)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WriteError(f"{path} can't be written: {reason}; what was there before is unchanged; make room for it") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))  # type: ignore[arg-type]


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None if nothing is there.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and go on with --resume, which writes it again") from None


def append_line(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON at the end of a file."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise WriteError(f"{path} can't be written: {error.strerror}; make room for it") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of `append_line`. A last line that was cut off by a crash is dropped."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_run_config(folder: Path) -> TrainConfig:
    """The options that the run in `folder` was begun with.

    Raises:
        UserError: there is no run, or its config.json is not one.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no run of fastst.train (no config.json)")
    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"), folder)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not the configuration of a run: {error}") from None


def save_model(path: Path, model: GraphClassifier, arguments: dict[str, Any], classes: list[str]) -> None:
    """Weights, and in the header the arguments of `GraphClassifier` and the names of the classes."""
    metadata = {"format": _MODEL, "model": json.dumps(arguments), "classes": json.dumps(classes)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_model(path: Path) -> tuple[GraphClassifier, dict[str, Any], list[str]]:
    """What `save_model` wrote, in evaluation mode.

    Raises:
        UserError: there is no such file, it is cut off, or it is not a model of fastst.
    """
    tensors, metadata = _read(path, _MODEL, "a model")
    try:
        arguments, classes = json.loads(metadata["model"]), json.loads(metadata["classes"])
        model = GraphClassifier(**arguments)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is a model of fastst that can't be built: {error}") from None
    return model.eval(), arguments, classes


def save_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Everything that training needs to go on: weights, the optimizer's moments, and `progress` (JSON)."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": _CHECKPOINT, "progress": json.dumps(progress)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts what `save_checkpoint` wrote into model and optimizer and returns its `progress`.

    Raises:
        UserError: the file is cut off, is not a checkpoint, or is one of another model.
    """
    tensors, metadata = _read(path, _CHECKPOINT, "a checkpoint")
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = tensor
        else:
            number, _, moment = rest.partition(".")
            state.setdefault(int(number), {})[moment] = tensor
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return json.loads(metadata["progress"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is a checkpoint of another model: {error}") from None


def _read(path: Path, form: str, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} doesn't exist; expected {what} that fastst.train wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not {what} of fastst or is cut off ({error}); delete it to begin again") from None
    if metadata.get("format") != form:
        raise UserError(f"{path} is a safetensors file, but not {what} of fastst (its format is {metadata.get('format')!r})")
    return tensors, metadata
