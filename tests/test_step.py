"""A training step as a function of tensors: that it asks nothing of a GPU on its way, and that a recorded step trains as a plain one does."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from fastst.config import TrainConfig
from fastst.data.splits import balanced_split, class_of_people
from fastst.nn import GraphClassifier
from fastst.ops import use_backend
from fastst.runs.load import load_task
from fastst.runs.step import CapturedSteps, Packed, Step
from fastst.runs.trainer import Fold, Processes, Trainer


def make_trainer(folder: Path, **options: Any) -> Trainer:
    small = {"people": 20, "walks_per_person": 2, "hidden": 8, "heads": 2, "frames": 12, "epochs": 6, "batch_size": 8, "layers": 2}
    config = TrainConfig(**{**small, "planted": ("left_knee", "right_knee"), **options}, out=folder)
    task = load_task(config)
    people = class_of_people(task.walks.subjects, [task.class_names[c] for c in task.classes])
    return Trainer(config, task, Fold(folder, "t", balanced_split(people, 0), 0), Processes(0, 1))


def recorded(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What a CUDA graph does, on the CPU: the operations that `run` calls, with the tensors that it calls them on and all else as it is now."""
    before = {id(p): p.detach().clone() for p in PARAMETERS}
    states = [{name: value.clone() for name, value in state.items()} for state in OPTIMIZER[0].state.values()]
    graph = make_fx(run)()
    with torch.no_grad():  # recording ran it once; a GPU doesn't
        for p in PARAMETERS:
            p.copy_(before[id(p)])
        for state, old in zip(OPTIMIZER[0].state.values(), states, strict=True):
            for name, value in old.items():
                state[name].copy_(value)
    return graph


PARAMETERS: list[torch.nn.Parameter] = []
OPTIMIZER: list[torch.optim.Optimizer] = []


@pytest.mark.parametrize(
    "options", [{}, {"recipe": "paper", "clip": 0.0, "information": 0.0}, {"graph": "fixed", "layers": 3}], ids=["default", "paper", "fixed"]
)
def test_a_recorded_step_trains_as_a_plain_one(options: dict[str, Any], tmp_path: Path):
    """Over all epochs: the seed, the prior and the learning rate change in every step or epoch, the graph is settled on the way, and the last batch
    is a smaller one. A tensor holds a learning rate in single precision, hence the tolerance. (On the fixed graph a model of other layers stands so
    near the bend of a ReLU that this takes it over.)"""
    plain, other = make_trainer(tmp_path / "plain", **options), make_trainer(tmp_path / "other", **options)
    fused = {"betas": plain.optimizer.defaults["betas"], "weight_decay": plain.config.weight_decay, "fused": True}
    for one in (plain, other):
        one.optimizer = one.step.optimizer = torch.optim.AdamW([{"params": g["params"], "lr": g["lr"]} for g in one.optimizer.param_groups], **fused)
        one.fold.folder.mkdir()
    PARAMETERS[:], OPTIMIZER[:] = other.model.parameters(), [other.optimizer]
    other.captured = CapturedSteps(other.step, torch.device("cpu"), recorded)
    kinds: list[int] = []
    for _ in range(plain.config.epochs):
        expected, got = plain.train_epoch(), other.train_epoch()
        kinds.append(len(other.captured._captured))
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert got.get("information", 0) == pytest.approx(expected.get("information", 0), rel=1e-4)
    assert max(kinds) >= 1
    for (name, a), b in zip(plain.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4, msg=name)
    assert not any(state["step"] == 0 for state in other.optimizer.state.values())


def test_where_a_step_cannot_be_recorded_training_goes_on(tmp_path: Path):
    plain, other = make_trainer(tmp_path / "plain"), make_trainer(tmp_path / "other")

    def refuse(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    other.captured = CapturedSteps(other.step, torch.device("cpu"), refuse)
    for one in (plain, other):
        one.fold.folder.mkdir()
    with pytest.warns(UserWarning, match=r"operation not permitted when stream is capturing\); training goes on without, as with --no-cuda-graph"):
        got = [other.train_epoch()["loss"] for _ in range(3)]
    assert got == pytest.approx([plain.train_epoch()["loss"] for _ in range(3)], rel=1e-4)


def test_of_a_step_that_broke_off_while_it_was_recorded_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After its gradients were unscaled, say; and what it had made does not take the memory of the step that follows."""
    plain, other = (make_trainer(tmp_path / name, amp="fp16") for name in ("plain", "other"))
    made: list[weakref.ref] = []

    def broken(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        hook = other.model.register_forward_hook(lambda model, inputs, output: made.append(weakref.ref(output.logits)))
        with monkeypatch.context() as patched:
            patched.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.ones(2) @ torch.ones(3))
            try:
                return run()
            finally:
                hook.remove()

    other.captured = CapturedSteps(other.step, torch.device("cpu"), broken)
    hook = other.model.register_forward_pre_hook(lambda model, inputs: alive.append([one() is not None for one in made]))
    alive: list[list[bool]] = []
    for one in (plain, other):
        one.fold.folder.mkdir()
    with pytest.warns(UserWarning, match="size"):
        got = [other.train_epoch()["loss"] for _ in range(3)]
    hook.remove()
    assert alive[-1] == [False]
    assert got == pytest.approx([plain.train_epoch()["loss"] for _ in range(3)], rel=1e-3)
    assert other.step.scaler.state_dict() == plain.step.scaler.state_dict()


@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.parametrize("lengths", [None, [12, 5]], ids=["full", "lengths"])
def test_a_step_asks_nothing_of_the_gpu(recipe: str, lengths: list[int] | None):
    """A fake tensor has no numbers: who wants one gets an error. On a GPU it would have to be waited for, and a recorded step would keep it."""
    config = TrainConfig.with_recipe(recipe, hidden=8, heads=2, layers=2, frames=12)
    names = (
        "hops",
        "layers",
        "hidden",
        "frames",
        "heads",
        "noise",
        "estimator",
        "beta",
        "tau",
        "keep_start",
        "joint_embedding",
        "residual",
        "readout",
    )
    options = {name: getattr(config, name) for name in names}
    with FakeTensorMode(), use_backend("torch"):
        model = GraphClassifier("coco18", 2, in_channels=2, **options)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        step = Step(config, model, optimizer, torch.amp.GradScaler("cpu", enabled=False), torch.ones(2))
        inputs = {"poses": torch.randn(2, 12, 18, 2), "classes": torch.zeros(2, dtype=torch.int64), "sample_ids": torch.arange(2)}
        inputs |= {"seed": torch.zeros((), dtype=torch.int64), "counts": torch.ones(()), "everyone": torch.ones(()), "windows": torch.ones(())}
        if recipe == "default":
            inputs |= {"prior": torch.tensor(0.3, dtype=torch.float64), "likeliest": torch.ones(2), "edges_of": torch.tensor([1, 0])}
        if lengths is not None:
            inputs["lengths"] = torch.tensor(lengths)
        assert [step(inputs).shape for _ in range(2)] == [(4,), (4,)]


def test_what_asks_something_of_the_gpu_is_found():
    with FakeTensorMode(), pytest.raises(Exception, match=r"aten\._local_scalar_dense"):
        torch.ones(2).sum().item()


def test_tensors_go_in_one_piece_and_come_out_as_they_were():
    tensors = {
        "a": torch.randn(3, 5, dtype=torch.float64),
        "number": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "turned": torch.arange(6).view(2, 3).T,
    }
    packed = Packed.of(tensors, pinned=False)
    assert packed.memory.dtype == torch.uint8
    for name, tensor in packed.unpacked(packed.memory.clone()).items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name])
        assert tensor.data_ptr() % 16 == 0 or tensor.numel() == 0


def test_the_kind_of_a_step_is_told_by_names_shapes_and_dtypes():
    one = Packed.of({"a": torch.zeros(2), "b": torch.zeros(3)}, pinned=False)
    for other in ({"a": torch.zeros(2)}, {"a": torch.zeros(3), "b": torch.zeros(3)}, {"a": torch.zeros(2).double(), "b": torch.zeros(3)}):
        assert Packed.of(other, pinned=False).places != one.places
    assert Packed.of({"a": torch.ones(2), "b": torch.ones(3)}, pinned=False).places == one.places
