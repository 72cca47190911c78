"""fastst: learned simplification of spatio-temporal skeleton graphs, on edge lists."""

import importlib
from typing import Any

from fastst.graph import EdgeList, SkeletonGraph, SlotGraph
from fastst.layouts import LAYOUTS, Layout

__version__ = "0.1.0"
_LATER = {"patch": "fastst.nn", "load_walks": "fastst.notebook", "fit": "fastst.notebook", "load_run": "fastst.notebook"}
__all__ = ["LAYOUTS", "EdgeList", "Layout", "SkeletonGraph", "SlotGraph", "fit", "load_run", "load_walks", "patch"]


def __getattr__(name: str) -> Any:
    if name in _LATER:  # only now: they bring more with them than graphs do
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'fastst' has no attribute {name!r}")
