import numpy as np
import pytest

from fastst import LAYOUTS, SkeletonGraph, figures
from fastst.errors import UserError


@pytest.mark.parametrize("D", [2, 3])
@pytest.mark.parametrize("T", [1, 2, 30])
def test_a_walk_of_any_length_is_drawn(D: int, T: int, tmp_path):
    graph = SkeletonGraph("coco18", 2)
    poses = np.random.default_rng(0).normal(size=(T, 18, D))
    figures.walk_with_kept_edges(poses, graph, graph.edge_mask(T).numpy(), "walk", tmp_path / "walk.png")
    assert (tmp_path / "walk.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curve_with_and_without_measurements(tmp_path):
    rows = [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.6, "macro_f1": 0.5, "mad": 0.3}]
    for name, some in (("none", rows[:1]), ("both", rows)):
        figures.learning_curve(some, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_the_other_two(tmp_path):
    figures.initial_adjacency(LAYOUTS["ntu25"], tmp_path / "adjacency.png")
    figures.kept_edges_per_joint({"a": {"hip": 0.5, "knee": 1.0}, "b": {"hip": 0.1, "knee": 0.0}}, tmp_path / "joints.png")
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_figure_that_cannot_be_written_says_where(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/joints.png can't be written: No such file or directory"):
        figures.kept_edges_per_joint({"a": {"hip": 0.5}}, tmp_path / "nowhere" / "joints.png")
