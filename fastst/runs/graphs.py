"""What a model kept of a walk's graph, in the forms of other libraries: edge_index, NetworkX, GraphML, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastst.errors import UserError
from fastst.files import write_atomically
from fastst.graph import SkeletonGraph
from fastst.nn import GraphClassifier
from fastst.runs.edges import edges_of_windows
from fastst.runs.load import Task
from fastst.runs.predictions import Asked, evaluating

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class KeptGraph:
    """The edges that were kept of one walk. Node t · J + j is joint j in frame t.

    Attributes:
        name: of the walk.
        graph: the initial graph.
        kept: `[P, T]` bool.
        probability: `[P, T]`, how likely every edge was to be kept.
    """

    name: str
    graph: SkeletonGraph
    kept: Tensor
    probability: Tensor

    def edge_index(self) -> tuple[Tensor, Tensor]:
        """Row 0 from, row 1 to, by slot, then frame; and the edges' probabilities.  # [2, E] int64, [E]"""
        slot, frame = self.kept.nonzero(as_tuple=True)
        src, dst, offset = (numbers.long()[slot] for numbers in (self.graph.src, self.graph.dst, self.graph.offset))
        J = self.graph.num_joints
        return torch.stack(((frame + offset) * J + src, frame * J + dst)), self.probability[slot, frame]

    def to_networkx(self) -> networkx.DiGraph:
        """All nodes, with `joint` and `frame`; the kept edges, with `slot`, `offset` and `probability`."""
        import networkx  # only now: it takes a while

        made, (_, T) = networkx.DiGraph(name=self.name), self.kept.shape
        joints = self.graph.layout.joints
        made.add_nodes_from((t * len(joints) + j, {"joint": joint, "frame": t}) for t in range(T) for j, joint in enumerate(joints))
        slots, offset = self.kept.nonzero()[:, 0].tolist(), self.graph.offset.tolist()
        ends, probability = self.edge_index()
        for a, b, slot, p in zip(*ends.tolist(), slots, probability.tolist(), strict=True):
            made.add_edge(a, b, slot=slot, offset=offset[slot], probability=p)
        return made

    def save(self, path: str | Path) -> None:
        """`to_networkx` as a file: .graphml, or .json in NetworkX' node-link form.

        Raises:
            UserError: another ending, or the file can't be written.
        """
        import networkx

        path, made = Path(path), self.to_networkx()
        if path.suffix.lower() == ".graphml":
            write_atomically(path, lambda part: networkx.write_graphml(made, part))
        elif path.suffix.lower() == ".json":
            text = json.dumps(networkx.node_link_data(made, edges="edges"))
            write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))  # type: ignore[arg-type]
        else:
            raise UserError(f"{path} is of no kind that a graph can be written as; name a file that ends in .graphml or .json")


@torch.no_grad()
def kept_graphs(model: GraphClassifier, poses: Tensor, lengths: Tensor | None = None, **options: Any) -> list[KeptGraph]:
    """Of every walk of a batch, as far as it is long; their names are their places in the batch.

    Args:
        model, poses, lengths: as in `model(poses, lengths)`; the model is asked in evaluation mode.
        options: of `GraphClassifier.forward`: seed, sample_ids, evaluation.
    """
    with evaluating(model):
        kept, probability = model(poses, lengths, **options).kept.bool().cpu(), model.probability(poses, lengths).cpu()
    frames = [poses.shape[1]] * poses.shape[0] if lengths is None else lengths.clamp(max=poses.shape[1]).tolist()
    return [KeptGraph(str(b), model.graph, kept[b, :, :T], probability[b, :, :T]) for b, T in enumerate(frames)]


def kept_graphs_of_walks(model: GraphClassifier, task: Task, asked: Asked) -> Iterator[KeptGraph]:
    """Of every walk."""
    for walk in range(len(task.walks)):
        yield kept_graph_of_walk(model, task, walk, asked)


def kept_graph_of_walk(model: GraphClassifier, task: Task, walk: int, asked: Asked) -> KeptGraph:
    """Put together of the windows that the model looked at; the edges are those of `fastst.runs.edges`."""
    kept = torch.zeros(model.graph.num_slots, task.lengths[walk], dtype=torch.bool)
    probability = torch.zeros(kept.shape)
    for window in edges_of_windows(model, task, walk, asked):
        slot, frame = (torch.from_numpy(numbers) for numbers in window.new.nonzero())
        at = slot, frame + window.start
        kept[at], probability[at] = (torch.from_numpy(values)[slot, frame] for values in (window.kept, window.probability))
    return KeptGraph(task.walks.names[walk], model.graph, kept, probability)
