"""Layers, graph sources and models."""

from fastst.nn.gin import GINConv, GINEConv
from fastst.nn.layers import EncoderLayer, GraphAttention, GraphConvolution
from fastst.nn.models import Classification, Downstream, GraphClassifier
from fastst.nn.patching import Patch, patch
from fastst.nn.pyg import GATv2Conv, GCNConv, SAGEConv
from fastst.nn.simplifier import EdgeScores, GraphSimplifier, Simplified
from fastst.nn.skeleton import ConvTemporalGraphical, SpatialTemporal_MS_GCN
from fastst.nn.sources import Edges, FixedGraph, GivenGraph, GraphSource, LearnedGraph, RandomGraph
from fastst.nn.upstream import Upstream

__all__ = [
    "Classification",
    "ConvTemporalGraphical",
    "Downstream",
    "EdgeScores",
    "Edges",
    "EncoderLayer",
    "FixedGraph",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GivenGraph",
    "GraphAttention",
    "GraphClassifier",
    "GraphConvolution",
    "GraphSimplifier",
    "GraphSource",
    "LearnedGraph",
    "Patch",
    "RandomGraph",
    "SAGEConv",
    "Simplified",
    "SpatialTemporal_MS_GCN",
    "Upstream",
    "patch",
]
