"""`python -m bench.motifs`: whether `GraphSimplifier` finds the motifs of BA-2Motifs, beside GSAT's number; writes docs/motifs.md and .json.

1000 graphs (Luo et al., "Parameterized Explainer for Graph Neural Network", NeurIPS 2020), made with PyTorch Geometric's generators: a
Barabási-Albert graph of 20 nodes with a house or a cycle of five nodes hung on, which is the class; all nodes have the same features. The edges of
the motif are the truth that the keep probabilities are scored against, on graphs that were not trained on.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torchmetrics.functional.classification import binary_auroc

from fastst.nn import EdgeScores, GraphSimplifier
from fastst.nn.edges import graph_of
from fastst.ops import propagate

FEATURES, MOTIFS = 10, ("cycle", "house")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        shared: the upstream part scores edges by the embeddings of the classifier's own encoder, as in GSAT; else by those of one of its own.
        one_norm: the encoder has one batch normalisation for whole graphs and for kept ones, whose statistics are mixed in evaluation mode, as in
            GSAT; else one for each.
        permuted: control: the classes of the training graphs are dealt out anew.
        epochs: of upstream and downstream together; settled: of the classifier alone after that, on what the upstream part
            keeps, while the learning rate falls to 0.
    """

    shared: bool = True
    one_norm: bool = True
    permuted: bool = False
    graphs: int = 1000
    epochs: int = 40
    settled: int = 20
    hidden: int = 64
    keep: float = 0.5
    information: float = 1.0
    learning_rate: float = 1e-3
    batch_size: int = 128
    features: int = FEATURES
    motifs: tuple[str, ...] = MOTIFS  # the classes


class Encoder(nn.Module):
    """GIN (Xu et al. 2019): h ← relu(MLP(h + Σ over edges into a node of w h[from])), twice, from h = W x."""

    def __init__(self, features: int, hidden: int, one_norm: bool) -> None:
        super().__init__()
        self.input = nn.Linear(features, hidden)
        self.first, self.second = (nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2)) for _ in range(2))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(2)) for _ in range(1 if one_norm else 2))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        graph, _ = graph_of(edge_index, len(x))
        h = self.input(x)
        weight = h.new_ones(graph.num_slots) if edge_weight is None else edge_weight
        norms: Any = self.norms[-1 if edge_weight is not None else 0]
        for first, norm, second in zip(self.first, norms, self.second, strict=True):
            h = first(h + propagate(h[None], weight[None], graph)[0])
            h = dropout(second(norm(h).relu()).relu(), 0.3, self.training)
        return h


class Classifier(nn.Module):
    """Class logits of a graph from the sum of its nodes' embeddings."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.encoder, self.last = Encoder(recipe.features, recipe.hidden, recipe.one_norm), nn.Linear(recipe.hidden, len(recipe.motifs))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        from torch_geometric.nn import global_add_pool

        return self.last(global_add_pool(self.encoder(x, edge_index, edge_weight), batch))


def motif_graphs(count: int, seed: int) -> list[Any]:
    """As many of each class; `truth` is 1 for the motif's edges."""
    from torch_geometric.data import Data
    from torch_geometric.datasets import ExplainerDataset
    from torch_geometric.datasets.graph_generator import BAGraph
    from torch_geometric.datasets.motif_generator import CycleMotif, HouseMotif

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what the generators ask
    found = []
    for label, motif in enumerate((CycleMotif(5), HouseMotif())):
        for graph in ExplainerDataset(BAGraph(20, 1), motif, num_motifs=1, num_graphs=count // 2):
            x, y = torch.full((graph.num_nodes, FEATURES), 0.1), torch.tensor([label])
            found.append(Data(x=x, edge_index=graph.edge_index, y=y, truth=graph.edge_mask))
    return found


def simplifier_of(recipe: Recipe, steps: int) -> GraphSimplifier:
    """steps: of the training in which the graph is learned; in the first half of them the prior falls."""
    classifier = Classifier(recipe)
    options: dict[str, Any] = {"in_channels": recipe.features, "hidden": recipe.hidden}
    if recipe.shared:
        options = {"upstream": EdgeScores(classifier.encoder, recipe.hidden)}
    return GraphSimplifier(classifier, **options, keep=recipe.keep, keep_steps=steps // 2, information=recipe.information)


def trained(recipe: Recipe, graphs: list[Any], seed: int) -> GraphSimplifier:
    """An ordinary loop of PyTorch Geometric; in the end the upstream part is settled: it stays as it is, and the classifier goes on."""
    from torch_geometric.loader import DataLoader

    torch.manual_seed(seed)
    loader: Any = DataLoader(graphs, recipe.batch_size, shuffle=True)
    model = simplifier_of(recipe, recipe.epochs * len(loader))
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate)
    for epoch in range(recipe.epochs + recipe.settled):
        if epoch == recipe.epochs:
            model.upstream = copy.deepcopy(model.upstream).requires_grad_(False)
            falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, recipe.settled * len(loader))
        model.train()
        model.upstream.train(epoch < recipe.epochs)
        for data in loader:
            out = model(data.x, data.edge_index, data.batch)
            loss = cross_entropy(out.logits, data.y) + out.information
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            if epoch >= recipe.epochs:
                falling.step()
    return model.eval()


@torch.no_grad()
def scores(model: GraphSimplifier, graphs: list[Any], motifs: tuple[str, ...] = MOTIFS) -> dict[str, float]:
    """Of graphs that were not trained on."""
    from torch_geometric.data import Batch

    data: Any = Batch.from_data_list(graphs)
    truth = data.truth.int()
    label = data.y[data.batch[data.edge_index[0]]]

    def accuracy(logits: Tensor) -> float:
        return (logits.argmax(1) == data.y).double().mean().item()

    found: dict[str, float] = {}
    for evaluation in ("probability", "threshold", "sample"):
        model.evaluation = evaluation
        out = model(data.x, data.edge_index, data.batch)
        found[f"accuracy_{evaluation}"] = accuracy(out.logits)
    p = out.probability
    found["roc_auc"] = binary_auroc(p, truth).item()
    for number, motif in enumerate(motifs):
        found[f"roc_auc_{motif}"] = binary_auroc(p[label == number], truth[label == number]).item()
    found |= {"p_motif": p[truth == 1].mean().item(), "p_others": p[truth == 0].mean().item()}
    found["roc_auc_random"] = binary_auroc(torch.rand(p.shape, generator=torch.Generator().manual_seed(0)), truth).item()
    for name, kept in (("no_edges", torch.zeros_like(p)), ("all_edges", torch.ones_like(p)), ("others", (p < 0.5).float())):
        found[f"accuracy_{name}"] = accuracy(model.downstream(data.x, data.edge_index, edge_weight=kept, batch=data.batch))
    return found


def run(recipe: Recipe, seed: int) -> dict[str, float]:
    """Trains on 80 % of the graphs, scores on 20 %. Graphs, split and weights follow from the seed."""
    began = time.perf_counter()
    graphs = motif_graphs(recipe.graphs, seed)
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed)).tolist()
    cut = len(order) * 4 // 5
    training, test = ([graphs[i] for i in part] for part in (order[:cut], order[cut:]))
    if recipe.permuted:
        labels = torch.cat([graph.y for graph in training])
        for graph, label in zip(training, labels[torch.randperm(cut, generator=torch.Generator().manual_seed(seed + 1))], strict=True):
            graph.y = label[None]
    return scores(trained(recipe, training, seed), test) | {"seconds": time.perf_counter() - began}


FIRST = "the classifier's own encoder looks for edges"
RECIPES = {
    FIRST: Recipe(),
    "the same, but a batch normalisation each for whole and for kept graphs": Recipe(one_norm=False),
    "an encoder of its own looks for edges": Recipe(shared=False),
    "control: classes dealt out anew": Recipe(permuted=True),
}
COLUMNS = {
    "accuracy_probability": "accuracy",
    "accuracy_threshold": "p > ½ alone",
    "accuracy_sample": "a sample",
    "accuracy_no_edges": "no edges",
    "roc_auc": "ROC-AUC of p",
    "roc_auc_cycle": "cycles",
    "roc_auc_house": "houses",
    "p_motif": "mean p, motif",
    "p_others": "others",
    "roc_auc_random": "ROC-AUC, random scores",
}


def report(found: dict[str, list[dict[str, float]]], seeds: list[int]) -> str:
    """The page."""
    lines = [
        "# BA-2Motifs: does `GraphSimplifier` find the motif?",
        "",
        f"Written by `python -m bench.motifs`, seeds {', '.join(map(str, seeds))}: 1000 graphs, 80 % of them to train on; all numbers are of the",
        "other 20 %, after the last epoch: nothing was chosen by them. The first row is the mean ± standard deviation over the seeds, the others are",
        f"of seed {seeds[0]} alone. The recipe was looked for with seeds 0, 1 and 2. The keep probability p of every",
        "edge is scored against the edges of the motif, all graphs together. The first accuracy is that of evaluation mode, where p weighs edges.",
        "",
        "| edges | " + " | ".join(COLUMNS.values()) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for name, rows in found.items():
        spread = {key: f" ± {pstdev(row[key] for row in rows):.3f}" if len(rows) > 1 else "" for key in COLUMNS}
        cells = [f"{mean(row[key] for row in rows):.3f}{spread[key]}" for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    seconds = mean(row["seconds"] for rows in found.values() for row in rows)
    return "\n".join([*lines, "", f"A training took {seconds:.0f} s on one thread of a machine that others used too.", "", *REMARKS]) + "\n"


REMARKS = """\
Miao et al. (GSAT, ICML 2022) report a ROC-AUC of 0.987 on BA-2Motifs with GIN. The number is quoted at second hand; their recipe was read in their
code (hidden 64, two layers, λ = 1, r from 0.9 to 0.5, scores from the classifier's own encoder, features normalised within a graph). What is
different here: edges are kept or not (theirs have weights between 0 and 1), both directions of an edge are one decision (theirs are drawn apart,
and averaged), the information term is that of p (theirs is of the sample), the epoch isn't chosen, and after two thirds of the training the
upstream part is settled and the classifier goes on alone. The graphs are PyTorch Geometric's, whose Barabási-Albert generator leaves some nodes
without an edge.

## What to make of it

Two classes need only one motif: whoever sees no house may say cycle. The second and third row do that. They are about as right, but find houses
alone, and keep the edges of cycles less likely than others, which tells the classes apart as well. The first row finds both, because of a detail:
the encoder has one batch normalisation for whole graphs (upstream) and for kept ones (downstream). While training each pass has its own
statistics; in evaluation mode, in which p is scored and the upstream part settled, both have the running mean of the two. Giving each pass its own
statistics takes the cycles away. GSAT's code has the same single normalisation; whether its number hangs on it was not tried. So a high score here
says that the keep probabilities mark both motifs, not that the classifier needed both: compare recipes before you call edges an explanation.

Without edges, and with classes dealt out anew, the accuracy is chance, so what decides comes from the kept edges. The ROC-AUC of the last row is
not near 0.5 but anywhere: the edges of a motif are alike, and so are their probabilities.
""".splitlines()


def _rows(jobs: list[tuple[str, int]], workers: int) -> list[dict[str, float]]:
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(run, [RECIPES[name] for name, _ in jobs], [seed for _, seed in jobs]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.motifs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("docs"), help="folder for motifs.md and motifs.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5], help="the recipe was looked for with 0, 1 and 2")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, each on one thread")
    options = parser.parse_args()
    jobs = [(name, seed) for name in RECIPES for seed in (options.seeds if name == FIRST else options.seeds[:1])]
    rows = _rows(jobs, options.workers)
    found = {name: [row for (of, _), row in zip(jobs, rows, strict=True) if of == name] for name in RECIPES}
    (options.report / "motifs.json").write_text(json.dumps({"seeds": options.seeds, "rows": found}, indent=1) + "\n", encoding="utf-8")
    (options.report / "motifs.md").write_text(report(found, options.seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
