"""How kernels are launched: what is settled once, and what a compiled kernel is given from then on."""

from typing import Any

import pytest
import torch

launch_module = pytest.importorskip("csrc_triton.launch", reason="triton is not installed")
from csrc_triton.launch import Settled, launch  # noqa: E402


class Kernel:
    """Stands for a `@triton.jit` function: remembers how it was launched, and what it compiled is a `Compiled`."""

    def __init__(self, compiles: bool = True) -> None:
        self.fn, self.compiles = object(), compiles
        self.launches: list[tuple[Any, ...]] = []  # by the JIT
        self.replays: list[tuple[Any, ...]] = []  # of what it compiled

    def __getitem__(self, grid: tuple[int, ...]):
        def run(*arguments: Any, **options: Any) -> Any:
            self.launches.append((grid, arguments, options))
            return _Compiled(self) if self.compiles else None

        return run


class _Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]):
        return lambda *arguments: self.kernel.replays.append((grid, arguments))


def settle() -> Settled:
    return Settled(7, {"T": 3, "BT": 4}, {"num_warps": 2})


def test_the_second_launch_of_a_kind_gets_addresses():
    kernel, x, y = Kernel(), torch.zeros(4), torch.zeros(4)
    launch(kernel, (x, None, y), "key", settle, (5,))
    assert kernel.launches == [((7,), (x, None, y, 5, 3, 4), {"num_warps": 2})]
    other = torch.zeros(4)
    launch(kernel, (other, None, x), "key", lambda: pytest.fail("is settled already"), (6,))
    assert kernel.replays == [((7, 1, 1), (other.data_ptr(), None, x.data_ptr(), 6, 3, 4))]
    assert len(kernel.launches) == 1


def test_what_makes_it_another_launch():
    kernel, x = Kernel(), torch.zeros(8)
    launch(kernel, (x, x), "key", settle)
    for pointers, key in (((x, x), "other"), ((x, None), "key"), ((x, x.double()), "key"), ((x, x[1:]), "key")):
        launch(kernel, pointers, key, settle)
    assert len(kernel.launches) == 5
    launch(kernel, (x, x[1:]), "key", settle)  # not aligned as the compiled one takes for granted: Triton looks at it every time
    assert len(kernel.launches) == 6
    another = Kernel()
    launch(another, (x, x), "key", settle)
    assert len(another.launches) == 1
    assert not kernel.replays


def test_an_interpreted_kernel_is_never_replayed():
    kernel, x = Kernel(compiles=False), torch.zeros(4)
    for _ in range(2):
        launch(kernel, (x,), "key", settle)
    assert len(kernel.launches) == 2


def test_few_kinds_are_known_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch_module, "_known", {})
    monkeypatch.setattr(launch_module, "_MOST_KNOWN", 3)
    kernel, x = Kernel(), torch.zeros(4)
    for key in range(10):
        launch(kernel, (x,), key, settle)
        assert len(launch_module._known) <= 3
    launch(kernel, (x,), 9, settle)
    assert len(kernel.replays) == 1
