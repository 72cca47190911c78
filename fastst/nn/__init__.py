"""Layers and models."""

from fastst.nn.layers import EncoderLayer, GraphAttention, GraphConvolution
from fastst.nn.models import Classification, Downstream, GraphClassifier, Upstream

__all__ = ["Classification", "Downstream", "EncoderLayer", "GraphAttention", "GraphClassifier", "GraphConvolution", "Upstream"]
