import numpy as np
import pytest
import torch

from fastst import SkeletonGraph
from fastst.runs.metrics import KeptEdges, classification_metrics, mean_over_groups


def test_classification_by_hand():
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    metrics = classification_metrics(torch.nn.functional.one_hot(predicted, 2).double(), classes)
    assert metrics["confusion"] == [[2, 1], [1, 2]]
    for name in ("macro_f1", "balanced_accuracy", "accuracy"):
        assert metrics[name] == pytest.approx(2 / 3)


def test_a_class_that_does_not_occur_does_not_count_in_balanced_accuracy():
    metrics = classification_metrics(torch.eye(3)[[0, 0, 1]].double(), torch.tensor([0, 0, 0]))
    assert metrics["balanced_accuracy"] == pytest.approx(2 / 3)


def test_mean_over_groups():
    values = torch.tensor([[1.0], [3.0], [5.0]])
    assert mean_over_groups(values, np.array([0, 2, 0]), 3).tolist() == [[3.0], [0.0], [3.0]]


def test_kept_edges_by_class():
    graph = SkeletonGraph("coco18", 1)
    counter, T = KeptEdges(graph, ["a", "b"]), 4
    kept = graph.edge_mask(T).float().expand(2, -1, -1).clone()
    at_nose = (graph.src == 0) | (graph.dst == 0)
    kept[1, at_nose] = 0
    counter.add(kept, torch.tensor([0, 1]), None)
    assert counter.share_per_class()["a"] == 1
    existing = graph.edge_mask(T).sum().item()
    removed = graph.edge_mask(T)[at_nose].sum().item()
    assert counter.share() == pytest.approx(1 - removed / (2 * existing))


def test_kept_edges_respect_lengths():
    graph, lengths = SkeletonGraph("coco18", 1), torch.tensor([2])
    counter = KeptEdges(graph, ["a", "b"])
    counter.add(graph.edge_mask(5, lengths).float(), torch.tensor([1]), lengths)
    assert counter.share() == 1
    assert counter.share_per_class() == {"a": 0.0, "b": 1.0}
