"""The operations on spatio-temporal graphs, for `SkeletonGraph`, `SlotGraph` and `EdgeList` alike."""

from fastst.ops.attend import attend
from fastst.ops.attend_axis import attend_axis
from fastst.ops.backends import use_backend
from fastst.ops.edge_logits import edge_logits
from fastst.ops.feed_forward import feed_forward
from fastst.ops.gcn_norm import gcn_norm
from fastst.ops.keep_probability import keep_probability
from fastst.ops.linear import linear, linears
from fastst.ops.mean_average_distance import mean_average_distance
from fastst.ops.message import message
from fastst.ops.propagate import propagate
from fastst.ops.sample_edges import sample_edges
from fastst.ops.sample_from_embeddings import sample_from_embeddings
from fastst.ops.sample_k_edges import sample_k_edges
from fastst.sampling import Sampling

__all__ = [
    "Sampling",
    "attend",
    "attend_axis",
    "edge_logits",
    "feed_forward",
    "gcn_norm",
    "keep_probability",
    "linear",
    "linears",
    "mean_average_distance",
    "message",
    "propagate",
    "sample_edges",
    "sample_from_embeddings",
    "sample_k_edges",
    "use_backend",
]
