"""The graphs that GPU kernels are compiled for where no GPU is."""

import torch

from csrc_triton.compilation import Example
from fastst.graph import EdgeList, SkeletonGraph


def example() -> Example:
    """The paper's skeleton with k = 3, and 4096 edges among the nodes of its 60 frames."""
    graph, num_edges = SkeletonGraph("coco18", 3), 4096
    num_nodes = 60 * graph.num_joints
    edges = EdgeList(torch.arange(2 * num_edges).view(2, num_edges) % num_nodes, num_nodes, parallel=True)
    return Example(graph.index(), graph.hops, edges.index())
