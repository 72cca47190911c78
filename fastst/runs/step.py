"""One step of training as a function of tensors alone: what changes from step to step comes in, and nothing is asked of the GPU on the way. So a
CUDA graph can hold a step, and all its launches cost the host as much as one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastst.config import TrainConfig

Inputs = Mapping[str, Tensor]
Replay = Callable[[], Tensor]
Capture = Callable[[Callable[[], Tensor]], Replay]
_OF_THE_MODEL = ("seed", "sample_ids", "likeliest", "edges_of", "prior")
_ALIGNED = 16  # bytes, which kernels read at once
_STEPS_BEFORE = 3  # that run as usual before a step is captured: libraries make their handles and workspaces in the first ones


@dataclass
class Step:
    """(Σ weight · cross entropy) / everyone + λ · Σ information / windows: its gradient, clipped, and the optimizer's step along it.

    Where the model gives the log-probability of what it kept, the edges' part of the gradient is that of
    Σ weight · (cross entropy - baseline) · log-probability / everyone with the first two held: REINFORCE. The baseline is the mean cross entropy of
    the windows of other pairs, which no edge of this pair has a part in, so that it adds no bias.

    Inputs: `poses`, `classes`, `lengths` where a window is not full, the options of `GraphClassifier`, and 0-d tensors: `counts`, 0 for a batch
    that stands in for an empty one; `everyone`, the weights of the windows of all processes; `windows`, how many these are.

    Returns:
        Σ weight · cross entropy, Σ weight, Σ information, and how many windows count.  # [4], float32
    """

    config: TrainConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    class_weight: Tensor  # [classes]
    processes: int = 1

    def __call__(self, inputs: Inputs) -> Tensor:
        poses, classes, counts = inputs["poses"], inputs["classes"], inputs["counts"]
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast(poses.device.type):
            options = {name: inputs[name] for name in _OF_THE_MODEL if name in inputs}
            output = self.model(poses, inputs.get("lengths"), **options)
        weight = self.class_weight[classes] * counts
        entropy = cross_entropy(output.logits.float(), classes, reduction="none")
        loss = (weight * entropy).sum()
        information = torch.zeros_like(loss) if output.information is None else output.information.sum() * counts
        whole = loss / inputs["everyone"] + self.config.information * information / inputs["windows"]
        if output.log_probability is not None:
            entropy = entropy.detach()
            whole = whole + (weight * (entropy - self._baseline(entropy, counts)) * output.log_probability).sum() / inputs["everyone"]
        # DDP takes the mean of the processes' gradients; the batch's loss is the weighted mean over all their windows.
        self.scaler.scale(whole * self.processes).backward()
        if self.config.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack((loss.detach(), weight.sum(), information.detach().float(), counts * len(poses)))

    def _baseline(self, losses: Tensor, counts: Tensor) -> Tensor:
        """The mean loss of all processes' windows but a window's own pair, with which it may share edges; 0 where there is no other.  # [B]"""
        pair = torch.arange(len(losses), device=losses.device) // 2
        each = torch.stack((losses, torch.ones_like(losses)))
        of_pair = each.new_zeros(2, len(losses)).index_add(1, pair, each)[:, pair]
        of_all = each.sum(1) * counts
        if self.processes > 1:
            dist.all_reduce(of_all)
        others, count = of_all[:, None] - of_pair
        return torch.where(count > 0, others / count.clamp(min=1), 0)

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        if self.config.amp == "none":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16 if self.config.amp == "bf16" else torch.float16)


@dataclass(frozen=True)
class Packed:
    """Tensors on the CPU in one piece of memory, to go to a GPU in one copy."""

    memory: Tensor  # uint8
    places: tuple[tuple[str, torch.dtype, torch.Size, int], ...]  # name, dtype, shape, first byte

    @staticmethod
    def of(tensors: Inputs, pinned: bool) -> Packed:
        """pinned: whether the copy is to go on while the host does; needs a GPU."""
        places, end = [], 0
        for name, tensor in tensors.items():
            places.append((name, tensor.dtype, tensor.shape, end))
            end += math.ceil(tensor.nbytes / _ALIGNED) * _ALIGNED
        packed = Packed(torch.zeros(end, dtype=torch.uint8, pin_memory=pinned), tuple(places))
        for name, view in packed.unpacked(packed.memory).items():
            view.copy_(tensors[name])
        return packed

    def unpacked(self, memory: Tensor) -> dict[str, Tensor]:
        """The tensors as views of `memory`, a copy of this one's."""
        return {name: memory[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape) for name, dtype, shape, first in self.places}


class CapturedSteps:
    """A step that is captured the fourth time that inputs of a kind come, and replayed from then on; the losses are those of the plain one. Where
    it can't be captured it goes on as usual, with a warning.

    Args:
        step: what to capture. Its optimizer's learning rates become tensors, which are changed in place.
        device: of the inputs that it gets.
        capture: runs a function without effect, and returns what repeats it, on the same tensors.
    """

    def __init__(self, step: Step, device: torch.device, capture: Capture) -> None:
        self.step, self.device, self.capture = step, device, capture
        for group in step.optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
            group["capturable"] = device.type == "cuda"
        self._can_capture = True
        self._seen: dict[Hashable, int] = {}
        self._captured: dict[Hashable, tuple[Tensor, Replay]] = {}

    def __call__(self, inputs: Inputs, kind: Hashable = None) -> Tensor:
        """kind: what else, beside the inputs' names and shapes, makes it another step."""
        packed = Packed.of(inputs, pinned=self.device.type == "cuda")
        key = (packed.places, kind)
        if key in self._captured:
            memory, replay = self._captured[key]
            memory.copy_(packed.memory, non_blocking=True)
            return replay()
        memory = packed.memory.to(self.device, non_blocking=True, copy=True)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= _STEPS_BEFORE or not self._can_capture:
            return self.step(packed.unpacked(memory))
        scaler = self.step.scaler.state_dict()
        try:
            self._captured[key] = memory, self.capture(lambda: self.step(packed.unpacked(memory)))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]  # and no more of it: with its frames it holds all that the step had made
        if key in self._captured:
            return self._captured[key][1]()
        self._can_capture = False
        warnings.warn(f"the step is not recorded as a CUDA graph ({reason}); training goes on without, as with --no-cuda-graph", stacklevel=2)
        self._begin_anew(scaler)
        return self.step(packed.unpacked(memory))

    def _begin_anew(self, scaler: dict[str, Any]) -> None:
        """After a step that broke off: nothing of it is left, and the scaler is as it was."""
        self.step.optimizer.zero_grad(set_to_none=True)
        self.step.scaler = torch.amp.GradScaler(self.device.type, enabled=self.step.scaler.is_enabled())
        self.step.scaler.load_state_dict(scaler)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def forget(self) -> None:
        """Lets all captured steps go."""
        self._captured.clear()
        self._seen.clear()


class Captures:
    """Makes CUDA graphs, one of them after another replayed whole: so they can share one piece of memory, as large as the largest needs."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Replay:
        """What repeats all that `run` launches.

        Raises:
            RuntimeError: it does something that a CUDA graph can't hold; with the first reason.
        """
        before, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                result = run()
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # which a capture that failed did not leave
            first = error.__context__ or error
            raise RuntimeError(str(first)) from None

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
