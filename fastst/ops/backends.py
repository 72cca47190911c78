"""Which implementation of an operation runs: `use_backend`, `FASTST_BACKEND`, and why one can't run here."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

BACKENDS = {
    "reference": "dense matrices that read like the mathematics; any dtype, small graphs only",
    "torch": "torch operations only, no dense matrix; any device",
    "cpu": "compiled kernels for the CPU",
    "triton": "Triton kernels for GPUs",
}
_NOT_BUILT = "its kernels are not part of this version of fastst"
_HAS_NUMBA = importlib.util.find_spec("numba") is not None


class _Chosen(threading.local):  # torch.compile traces a thread-local, not a ContextVar
    name: str | None = None


_chosen = _Chosen()


def why_not(name: str) -> str | None:
    """Why the backend `name` can't run here, or None if it can. ValueError for a name that is no backend."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; the backends are {', '.join(BACKENDS)}")
    if name == "cpu" and not _HAS_NUMBA:
        return "numba is not installed"
    return _NOT_BUILT if name == "triton" else None


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operations called inside the `with` block on the backend `name`, whatever `FASTST_BACKEND` says.

    Raises:
        ValueError: an unknown backend.
        RuntimeError: one that can't run here, with the reason.
    """
    _require(name, "use_backend")
    before, _chosen.name = _chosen.name, name
    try:
        yield
    finally:
        _chosen.name = before


def current_backend(device: str = "cpu") -> str:
    """The backend of the next call on tensors of a device type: that of `use_backend`, else `FASTST_BACKEND`, else the fastest that can run.

    Raises:
        RuntimeError, ValueError: the one asked for can't run here or on that device, or does not exist.
    """
    name = _chosen.name
    if name is None:
        name = os.environ.get("FASTST_BACKEND", "")
        if not name:
            return "cpu" if device == "cpu" and _HAS_NUMBA else "torch"
        _require(name, "FASTST_BACKEND")
    if name == "cpu" and device != "cpu":
        raise RuntimeError(f"the backend 'cpu' was asked for, but the tensors are on {device}")
    return name


def products(backend: str) -> ModuleType:
    """The module with the backend's `gather_sum`, `scatter_sum` and `edge_dot` (see `fastst.ops.sparse`)."""
    if backend == "cpu":
        from fastst.cpu import products as compiled  # only now: numba takes a while to import

        return compiled
    from fastst.ops import sparse

    return sparse


def _require(name: str, asked_by: str) -> None:
    reason = why_not(name)
    if reason is not None:
        raise RuntimeError(f"{asked_by} asks for the backend {name!r}, which can't run: {reason}")
