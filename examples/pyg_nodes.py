"""A usual training script of PyTorch Geometric's, on fastst's layers by one line: `python examples/pyg_nodes.py`.

Groups of nodes are found from their edges: a network of 3,000 people in five groups, most of whose acquaintances are of their own.
"""

import argparse

import torch
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.nn.models import GAT, GCN
from torch_geometric.utils import stochastic_blockmodel_graph

import fastst


def network(groups: int = 5, size: int = 600) -> Data:
    """Nodes know of themselves nothing but a hint, in one of eight cases, of their group."""
    inside = torch.full((groups, groups), 0.0005).fill_diagonal_(0.01)
    y = torch.arange(groups).repeat_interleave(size)
    hint = torch.rand(len(y)) < 1 / 8
    x = torch.cat((torch.nn.functional.one_hot(y, groups) * hint[:, None], torch.randn(len(y), 11)), 1)
    trained = torch.rand(len(y)) < 0.2
    return Data(x=x.float(), y=y, edge_index=stochastic_blockmodel_graph([size] * groups, inside), train_mask=trained, test_mask=~trained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("gcn", "gat"), default="gcn")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    data = network()
    model = GCN(16, 64, num_layers=2, out_channels=5) if options.model == "gcn" else GAT(16, 64, num_layers=2, out_channels=5, heads=4, v2=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)

    print(fastst.patch(model))  # the one line; the optimizer was made before and goes on

    for epoch in range(1, options.epochs + 1):
        model.train()
        loss = cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 20 == 0 or epoch == options.epochs:
            model.eval()
            with torch.no_grad():
                right = model(data.x, data.edge_index).argmax(1) == data.y
            print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {right[data.test_mask].float().mean().item():.3f}")


if __name__ == "__main__":
    main()
