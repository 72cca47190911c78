"""fastst: learned simplification of spatio-temporal skeleton graphs, on edge lists."""

from typing import Any

from fastst.graph import EdgeList, SkeletonGraph, SlotGraph
from fastst.layouts import LAYOUTS, Layout

__version__ = "0.1.0"
__all__ = ["LAYOUTS", "EdgeList", "Layout", "SkeletonGraph", "SlotGraph", "patch"]


def __getattr__(name: str) -> Any:
    if name == "patch":  # only now: layers bring more of torch with them than graphs do
        from fastst.nn import patch

        return patch
    raise AttributeError(f"module 'fastst' has no attribute {name!r}")
