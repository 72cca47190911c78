"""Which implementation of an operation runs: `use_backend`, `FASTST_BACKEND`, and why one can't run here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch.autograd import forward_ad

BACKENDS = {
    "reference": "dense matrices that read like the mathematics; any dtype, small graphs only",
    "torch": "torch operations only, no dense matrix; any device",
    "cpu": "compiled kernels for the CPU",
    "triton": "Triton kernels for GPUs",
}
_ROOMS = {"cpu": "fastst.cpu", "triton": "csrc_triton"}
_COMPILERS = {"cpu": "numba", "triton": "triton"}
_problems: dict[str, str | None] = {}  # compiler -> why it can't be used; None if it can


# Read once: a look into the environment in every call takes longer than everything else that a choice needs.
FROM_ENVIRONMENT = os.environ.get("FASTST_BACKEND") or None


class _Chosen(threading.local):  # torch.compile traces a thread-local, not a ContextVar
    name: str | None = None


_chosen = _Chosen()


def why_not(name: str) -> str | None:
    """Why the backend `name` can't run here, or None if it can. ValueError for a name that is no backend."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; the backends are {', '.join(BACKENDS)}")
    if name in _COMPILERS and (problem := _problem(_COMPILERS[name])):
        return problem
    if name == "triton" and not torch.cuda.is_available() and not _interpreted():
        return "there is no GPU that torch can use (TRITON_INTERPRET=1 runs the kernels slowly on the CPU, to check them)"
    return None


def _problem(compiler: str) -> str | None:
    """Why a compiler can't be used: it is tried once, since a package that is there may be broken."""
    if compiler not in _problems and not torch.compiler.is_compiling():
        try:
            importlib.import_module(compiler)
            _problems[compiler] = None
        except ModuleNotFoundError as error:
            _problems[compiler] = f"{error.name} is not installed"
        except Exception as error:  # of another numpy, without a library, damaged
            _problems[compiler] = f"{compiler} can't be imported: {error}"
    return _problems.get(compiler)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operations called inside the `with` block on the backend `name`, whatever `FASTST_BACKEND` said when fastst was imported.

    Raises:
        ValueError: an unknown backend.
        RuntimeError: one that can't run here, with the reason.

    Examples:
        >>> import torch
        >>> from fastst import SkeletonGraph, ops
        >>> graph = SkeletonGraph("coco17", hops=1)
        >>> x, weight = torch.ones(1, 3, 17, 4), torch.ones(1, graph.num_slots, 3)
        >>> with ops.use_backend("torch"):
        ...     ops.propagate(x, weight, graph).shape
        torch.Size([1, 3, 17, 4])
    """
    _require(name, "use_backend")
    before, _chosen.name = _chosen.name, name
    try:
        yield
    finally:
        _chosen.name = before


def current_backend(device: str = "cpu") -> str:
    """The backend of the next call on tensors of a device type: that of `use_backend`, else `FASTST_BACKEND` as it was
    when fastst was imported, else the fastest that can run.

    Raises:
        RuntimeError, ValueError: the one asked for can't run here, on that device or inside a function transform, or does not exist.
    """
    name = asked_for() or _fastest(device)
    if name == "cpu" and device != "cpu":
        raise RuntimeError(f"the backend 'cpu' was asked for, but the tensors are on {device}")
    if name == "triton" and device != "cuda" and not _interpreted():
        raise RuntimeError(f"the backend 'triton' was asked for, but the tensors are on {device}")
    if name != "reference" and not torch.compiler.is_compiling() and _inside_transform():
        raise RuntimeError(
            "fastst's operations have gradients for backward() and torch.autograd.grad, but none for torch.func (grad, vmap, jvp) and forward mode; "
            "use the former, and the batch dimension instead of vmap; fastst.ops.use_backend('reference') can be differentiated in every way"
        )
    return name


def asked_for() -> str | None:
    """The backend of `use_backend`, else of `FASTST_BACKEND`; None if the fastest is wanted."""
    if _chosen.name is None and FROM_ENVIRONMENT is not None:
        _require(FROM_ENVIRONMENT, "FASTST_BACKEND")
    return _chosen.name or FROM_ENVIRONMENT


def _inside_transform() -> bool:
    """Where torch would give zeros for gradients that the operations don't have, without a word."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def _fastest(device: str) -> str:
    if device == "cpu" and _problem("numba") is None:
        return "cpu"
    return "triton" if device == "cuda" and why_not("triton") is None else "torch"


def products(backend: str) -> ModuleType:
    """The module with the backend's `gather_sum`, `scatter_sum`, `edge_dot` and `edge_and_node_dot` (see `fastst.ops.sparse`)."""
    from fastst.ops import sparse

    return compiled("products", backend) or sparse


@functools.cache
def compiled(operation: str, backend: str) -> ModuleType | None:
    """The module with the backend's kernels of an operation; None where it has none of its own."""
    if backend not in _ROOMS or importlib.util.find_spec(f"{_ROOMS[backend]}.{operation}") is None:
        return None
    return importlib.import_module(f"{_ROOMS[backend]}.{operation}")  # only now: numba and triton take a while to import


def _require(name: str, asked_by: str) -> None:
    reason = why_not(name)
    if reason is not None:
        raise RuntimeError(f"{asked_by} asks for the backend {name!r}, which can't run: {reason}")
