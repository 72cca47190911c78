"""What other systems lack is done without. Windows and macOS are simulated: what they don't have is taken away before fastst is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import TINY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastst.config import TrainConfig
from fastst.nn import GraphClassifier
from fastst.ops import mean_average_distance, use_backend
from fastst.runs.step import Step

ROOT = Path(__file__).parents[1]
# torch, numpy and numba have to start as what they are.
_WITHOUT = """
import ctypes, os, pathlib, platform, sys
import filelock, numba, numpy, pyarrow, torch, torch._dynamo, torchmetrics, matplotlib.figure, rich.console, rich.progress, safetensors.torch, tyro
for name in {names}:
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "triton"):
    sys.modules[name] = None
library = ctypes.CDLL
def load(name, *args, **kwargs):
    if name is None and {platform!r} == "win32":
        raise TypeError("expected a name")
    return library(name, *args, **kwargs)
ctypes.CDLL = load
sys.platform = {platform!r}
platform.libc_ver = lambda *args, **kwargs: ("", "")
sys.argv[0] = "fastst.train"
from fastst.errors import run_command
from fastst.train import main
run_command(main)
"""
_LACKING = {
    "win32": ["register_at_fork", "fork", "getuid", "geteuid", "sched_getaffinity", "getloadavg", "sysconf", "mkfifo", "fchmod"],
    "darwin": ["sched_getaffinity"],
}


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_a_training_without_what_the_system_lacks(tmp_path: Path, platform: str) -> None:
    program = _WITHOUT.format(names=[name for name in _LACKING[platform] if hasattr(os, name)], platform=platform)
    options = [*TINY, "--epochs", "2", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252" if platform == "win32" else "utf-8"}
    done = subprocess.run([sys.executable, "-c", program, *options], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert (tmp_path / "run" / "summary.json").is_file()


class _NoFloat64(TorchDispatchMode):
    """As Apple's GPUs, which have no float64. Numbers without dimensions stay on the CPU there, in any precision."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        wide = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor) and value.dim() and value.dtype == torch.float64]
        assert not wide, f"{operation} makes float64"
        return result


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_step_without_float64(recipe: str) -> None:
    config = TrainConfig.with_recipe(recipe, frames=12, hidden=8, heads=2).settled()
    names = ("graph", "hops", "layers", "hidden", "frames", "attention", "heads", "noise", "estimator", "readout", "joint_embedding", "keep_start")
    model = GraphClassifier("coco18", num_classes=2, **{name: getattr(config, name) for name in names})
    step = Step(config, model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False), torch.ones(2))
    inputs = {"poses": torch.randn(3, 12, 18, 2), "classes": torch.tensor([0, 1, 1]), "seed": torch.tensor(3), "sample_ids": torch.arange(3)}
    inputs |= {"counts": torch.tensor(1.0), "everyone": torch.tensor(3.0), "windows": torch.tensor(3.0), "lengths": torch.tensor([12, 5, 12])}
    if config.has_information_term:
        inputs |= {"prior": torch.tensor(0.3)}
    with _NoFloat64(), use_backend("torch"):
        assert step(inputs).dtype == torch.float32
        model.eval()
        with torch.no_grad():
            mean_average_distance(model(inputs["poses"], inputs["lengths"], seed=1).embedding, inputs["lengths"])
