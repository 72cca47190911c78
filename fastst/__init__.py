"""fastst: learned simplification of spatio-temporal skeleton graphs, on edge lists."""

from fastst.graph import EdgeList, SkeletonGraph, SlotGraph
from fastst.layouts import LAYOUTS, Layout

__version__ = "0.1.0"
__all__ = ["LAYOUTS", "EdgeList", "Layout", "SkeletonGraph", "SlotGraph"]
