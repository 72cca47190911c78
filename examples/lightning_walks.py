"""fastst's classifier in a Lightning module, on batches of walks of unequal length: `python examples/lightning_walks.py [WALKS]`.

Lightning does the rest: more GPUs, precision, logging, checkpoints. WALKS is any file or folder that `fastst.load_walks` reads, with a column
`label`; without it walkers are made up.
"""

import argparse
import logging

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

import fastst
from fastst.data.prepare import prepare
from fastst.data.synthetic import synthetic_walks
from fastst.nn import GraphClassifier


class WalkClassifier(lightning.LightningModule):
    """Every call in training draws another graph; the information term keeps it small, more so as the prior falls."""

    def __init__(self, layout: str, num_classes: int, keep: float = 0.2) -> None:
        super().__init__()
        self.model, self.keep = GraphClassifier(layout, num_classes, hops=1, layers=2, hidden=16), keep
        self.accuracy = MulticlassAccuracy(num_classes)  # the classes' mean: guessing gets 1 / num_classes

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        poses, lengths, classes = batch
        done = self.trainer.current_epoch / self.trainer.max_epochs
        found = self.model(poses, lengths, prior=max(self.keep, 0.9 - 1.4 * done))
        loss = cross_entropy(found.logits, classes)
        self.log_dict({"loss": loss, "information": found.information.mean()}, prog_bar=True)
        return loss + found.information.mean()

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> None:
        poses, lengths, classes = batch
        logits, kept, *_ = self.model(poses, lengths)
        self.accuracy(logits, classes)
        self.log("accuracy", self.accuracy, on_epoch=True)
        self.log("kept edges of a walk", kept.sum() / len(kept), batch_size=len(kept))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3, betas=(0.9, 0.95))


def padded(walks: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """What stands beyond a walk's length counts for nothing.  # [B, T, J, D], [B], [B]"""
    poses, classes = zip(*walks, strict=True)
    return torch.nn.utils.rnn.pad_sequence(poses, batch_first=True), torch.tensor([len(walk) for walk in poses]), torch.tensor(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("walks", nargs="?", help="a file or folder of walks; made up if left out")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(0)

    given = fastst.load_walks(options.walks) if options.walks else synthetic_walks(people=32, walks_per_person=4, planted=["left_knee"])
    walks, _ = prepare(given, fastst.LAYOUTS["coco18"], min_frames=8)  # gaps filled, centred, of one size
    names = sorted(set(walks.attributes["label"]))
    data = [(torch.from_numpy(poses), names.index(label)) for poses, label in zip(walks.poses, walks.attributes["label"], strict=True)]
    unseen = set(sorted(set(walks.subjects))[::4])  # nobody is in both
    train, test = ([walk for walk, who in zip(data, walks.subjects, strict=True) if (who in unseen) == tested] for tested in (False, True))

    module = WalkClassifier("coco18", len(names))
    module.model.standardize(poses for poses, _ in train)
    trainer = lightning.Trainer(max_epochs=options.epochs, accelerator="auto", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(module, DataLoader(train, batch_size=8, shuffle=True, collate_fn=padded))
    print(trainer.validate(module, DataLoader(test, batch_size=8, collate_fn=padded), verbose=False)[0])


if __name__ == "__main__":
    main()
