"""Layers, graph sources and models."""

from fastst.nn.layers import EncoderLayer, GraphAttention, GraphConvolution
from fastst.nn.models import Classification, Downstream, GraphClassifier
from fastst.nn.sources import Edges, FixedGraph, GivenGraph, GraphSource, LearnedGraph, RandomGraph
from fastst.nn.upstream import Upstream

__all__ = [
    "Classification",
    "Downstream",
    "Edges",
    "EncoderLayer",
    "FixedGraph",
    "GivenGraph",
    "GraphAttention",
    "GraphClassifier",
    "GraphConvolution",
    "GraphSource",
    "LearnedGraph",
    "RandomGraph",
    "Upstream",
]
