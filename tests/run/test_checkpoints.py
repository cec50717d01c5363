"""When checkpoints are written."""

from __future__ import annotations

import time

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from indexnet.run.checkpoints import Checkpoints, SaveFirst
from indexnet.run.folder import RunFolder
from indexnet.run.loader import checkpoint_pause


class Clock(pl.Callback):
    """The monotonic clock goes on by so many seconds a batch, and by those that a checkpoint takes."""

    def __init__(self, monkeypatch, batch, checkpoint):
        self.now, self.batch, self.saved = 1000.0, batch, []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        save = pl.Trainer.save_checkpoint

        def timed(trainer, *arguments, **options):
            self.saved.append(trainer.global_step)
            self.now += checkpoint
            save(trainer, *arguments, **options)

        monkeypatch.setattr(pl.Trainer, "save_checkpoint", timed)

    def on_train_batch_start(self, *_):
        self.now += self.batch


@pytest.mark.parametrize(
    ("every", "accumulate", "batch", "took", "saved"),
    [
        ("auto", 1, 1, 0, [16]),
        ("auto", 1, 25, 0, [3, 6, 9, 12, 15, 16]),
        ("auto", 1, 25, 4, [3, 11, 16]),  # a pause of 200 seconds after each
        ("auto", 4, 25, 0, [1, 2, 3, 4]),
        ("auto", 2, 25, 0, [2, 4, 6, 8]),
        (5, 1, 25, 0, [5, 10, 15, 16]),
    ],
)
def test_by_steps_or_by_time(every, accumulate, batch, took, saved, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    checkpoints = Checkpoints(RunFolder(tmp_path), every, 16 // accumulate)
    clock = Clock(monkeypatch, batch, took)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=16 // accumulate, accumulate_grad_batches=accumulate, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        callbacks=[SaveFirst(checkpoints), clock, checkpoints],
    )  # fmt: skip
    trainer.fit(BoringModel())
    assert clock.saved == saved
    states = torch.load(RunFolder(tmp_path).checkpoint(), weights_only=True)
    assert states["global_step"] == 16 // accumulate


def test_a_checkpoint_costs_a_fiftieth_of_the_time_at_most():
    assert checkpoint_pause(0.1) == 60
    assert checkpoint_pause(8.0) == 400
