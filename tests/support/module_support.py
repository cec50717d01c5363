"""A LightningModule that knows nothing of this package but the keys of a sample, and quiet plain Trainers."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn


class Brightness(pl.LightningModule):
    """Learns something of any image; notes the names that every step sees."""

    def __init__(self, channels=3, rate=0.01):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Dropout2d(0.3))
        self.rate = rate
        self.seen = {"fit": [], "validate": [], "test": {}, "predict": {}}

    def forward(self, image):
        return self.network(image).mean((1, 2, 3))

    def loss(self, batch):
        return (self(batch["image"]) - batch["image"].mean((1, 2, 3)) + 1).square().mean()

    def training_step(self, batch, batch_idx):
        self.seen["fit"].append((self.current_epoch, batch["name"], batch["image"].sum().item()))
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.seen["validate"].append((batch["name"], batch["image"].sum().item()))
        self.log("val/loss", self.loss(batch), batch_size=len(batch["name"]), sync_dist=True)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["test"].setdefault(dataloader_idx, []).extend(batch["name"])

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["predict"].setdefault(dataloader_idx, []).extend(batch["name"])
        return self(batch["image"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)


def plain_trainer(folder=None, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    if folder is None:
        quiet["enable_checkpointing"] = False
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, **{**quiet, "max_epochs": 1, **options})
