"""`python -m fastst.train`: from a file of walks to a trained, tested and explained classifier."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import tyro

from fastst.config import RECIPES, TrainConfig, differences
from fastst.cpu.memory import keep_freed_memory
from fastst.errors import UserError, run_command
from fastst.explanation.report import EXPLAINED
from fastst.files import WriteError
from fastst.runs.folder import read_run_config
from fastst.runs.trainer import Processes
from fastst.runs.training import train

_PROGRAM = "python -m fastst.train"


@dataclass(frozen=True)
class _Place:
    """The options that have to be known before the others can be judged."""

    out: Path = TrainConfig.out
    recipe: str = TrainConfig.recipe


def main() -> None:
    keep_freed_memory()
    processes = Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    config = _read_together(sys.argv[1:], processes)
    if processes.count > 1:
        backend = "nccl" if config.device != "cpu" and torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=12))  # the first process tests and audits while the others wait
    try:
        train(config, EXPLAINED, processes)
    except WriteError as error:
        raise UserError(f"{error}, and go on with --resume") from None
    except RuntimeError as error:
        if processes.count == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        told = str(error).splitlines()[0]
        raise UserError(f"another of the processes that train together has ended ({told}); see why, and go on with --resume") from None
    finally:
        if processes.count > 1:
            dist.destroy_process_group()


def _read_together(arguments: list[str], processes: Processes) -> TrainConfig:
    """The options; what is wrong with them the first process says alone, after which torchrun ends the others."""
    if processes.leads:
        return read_config(arguments)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return read_config(arguments)
    except SystemExit:
        time.sleep(10)
        raise


def read_config(arguments: list[str]) -> TrainConfig:
    """The options of the command line; with --resume those of the run, and an error where the command line says otherwise."""
    place, _ = tyro.cli(_Place, args=[word for word in arguments if word != "--resume"], return_unknown_args=True, add_help=False)
    if "--resume" not in arguments:
        recipe = place.recipe if place.recipe in RECIPES else TrainConfig.recipe  # a misspelled one is an error below
        return tyro.cli(TrainConfig, prog=_PROGRAM, args=arguments, default=TrainConfig.with_recipe(recipe))
    saved = read_run_config(place.out)
    asked = tyro.cli(TrainConfig, prog=_PROGRAM, args=arguments, default=dataclasses.replace(saved, resume=False))
    differing = differences(saved.settled(), asked.settled())
    if differing:
        raise UserError(f"--resume goes on with the run in {place.out}, but " + "; ".join(differing) + ". Leave these out, or use another --out")
    return dataclasses.replace(saved, cuda_graph=asked.cuda_graph)


if __name__ == "__main__":
    run_command(main)
