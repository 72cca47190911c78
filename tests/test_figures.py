import numpy as np
import pytest

from fastst import LAYOUTS, SkeletonGraph
from fastst.errors import UserError
from fastst.explanation import figures


@pytest.mark.parametrize("D", [2, 3])
@pytest.mark.parametrize("T", [1, 2, 30])
def test_a_walk_of_any_length_is_drawn(D: int, T: int, tmp_path):
    graph = SkeletonGraph("coco18", 2)
    poses = np.random.default_rng(0).normal(size=(T, 18, D))
    kept = graph.edge_mask(T).numpy()
    figures.walk_with_kept_edges(poses, graph, kept, kept * 0.3, "walk", tmp_path / "walk.png", ("left_knee",) if T == 2 else ())
    assert (tmp_path / "walk.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curve_with_and_without_measurements(tmp_path):
    rows = [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.6, "macro_f1": 0.5, "mad": 0.3}]
    for name, some in (("none", rows[:1]), ("both", rows)):
        figures.learning_curve(some, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


AUDIT = {
    **{arm: {"balanced_accuracy": 0.1 * i, "macro_f1": 0.5} for i, arm in enumerate(figures.ARM_NAMES)},
    "insertion": {"shares": [0.05, 0.5], **{name: {"balanced_accuracy": [0.4, 0.9]} for name in ("by_probability", "random", "reversed")}},
    "joints": {"hip": {"sends": 0.5, "receives": -0.1}, "knee": {"sends": -0.2, "receives": 0.3}},
    "verdict": {"sentence": "No edge $stands$ out. " * 12},
}


def test_the_other_two(tmp_path):
    figures.initial_adjacency(LAYOUTS["ntu25"], tmp_path / "adjacency.png")
    figures.audit(AUDIT, tmp_path / "audit.png")
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_figure_that_cannot_be_written_says_where(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/audit.png can't be written: No such file or directory"):
        figures.audit(AUDIT, tmp_path / "nowhere" / "audit.png")
