"""fastst: learned simplification of spatio-temporal skeleton graphs, on edge lists."""

import sys

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m").startswith("fastst."):
    from fastst import interrupts

    interrupts.catch()  # Python is looking for a command, python -m fastst.<name>; what that imports takes seconds

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastst.graph import EdgeList, SkeletonGraph, SlotGraph
    from fastst.layouts import LAYOUTS, Layout
    from fastst.nn import patch
    from fastst.notebook import fit, load_run, load_walks

__version__ = "0.1.0"
__all__ = ["LAYOUTS", "EdgeList", "Layout", "SkeletonGraph", "SlotGraph", "fit", "load_run", "load_walks", "patch"]
_MODULES = {
    "fastst.graph": ("EdgeList", "SkeletonGraph", "SlotGraph"),
    "fastst.layouts": ("LAYOUTS", "Layout"),
    "fastst.nn": ("patch",),
    "fastst.notebook": ("fit", "load_run", "load_walks"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:  # only now: torch takes seconds
            globals()[name] = getattr(import_module(module), name)
            return globals()[name]
    raise AttributeError(f"module 'fastst' has no attribute {name!r}")
