"""The checkpoints of a run: the last one, and the best in validation."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from indexnet.core.files import atomic_write
from indexnet.run.folder import RunFolder
from indexnet.run.resume import write_checkpoint


@dataclass(frozen=True)
class Monitor:
    """What validation logs and the best checkpoint goes by.

    Attributes:
        key: as it is logged, ``val/psnr``.
        mode: ``max`` where more is better, else ``min``.
        every: optimizer steps between two validations.
    """

    key: str
    mode: Literal["min", "max"]
    every: int

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value > than if self.mode == "max" else value < than


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all; beside the last one its step is noted, and the one before it is kept.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the target, then rename.

        Raises:
            DiskFullError: there is no room; the checkpoints that are there stay.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        if Path(path) == self.folder.checkpoint():
            previous = self.folder.previous_checkpoint()
            write_checkpoint(self.folder.checkpoint(), buffer.getbuffer(), checkpoint["global_step"], previous)
        else:
            atomic_write(path, buffer.getbuffer())


class Checkpoints(pl.Callback):
    """Write ``last.ckpt`` every so many optimizer steps and at the end, and ``best.ckpt`` when validation improves.

    A checkpoint is made when the next step begins: by then the loggers have written the step, and validation has ended,
    if it was due, so that a run that goes on from here neither lacks nor repeats anything.

    Args:
        folder: of the run.
        every: optimizer steps between two checkpoints.
        total: optimizer steps of the run.
        monitor: what validation logs and the best checkpoint goes by.
        initial: the checkpoint that a run started from.

    Attributes:
        best: ``step``, ``metric`` and ``value`` of the best checkpoint; empty where there is none.
        stopped: whether training has ended before its last step.
    """

    state_key = "Checkpoints"

    def __init__(
        self,
        folder: RunFolder,
        every: int,
        total: int,
        monitor: Monitor | None = None,
        initial: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.every, self.total, self.monitor, self.initial = folder, every, total, monitor, initial
        self.best: dict[str, Any] = {}
        self.stopped = False
        self._saved = self._ended = -1
        self._loops: dict[str, Any] = {}  # Lightning's, at the end of the step ``_ended``

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note what is saved already: the step counter of a resumed run stands there until a whole step is done."""
        self._saved = self._ended = trainer.global_step
        if (first := trainer.strategy.broadcast(self._saved)) != self._saved:  # a file system that shows each its own
            raise RuntimeError(f"process {trainer.global_rank} goes on from step {self._saved}, the first from {first}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        step = trainer.global_step
        if step != self._ended and (self._due(step) or (self.monitor and step % self.monitor.every == 0)):
            self._ended, self._loops = step, trainer.fit_loop.state_dict()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.monitor is None or trainer.state.fn != "fit":
            return
        value = float(trainer.callback_metrics[self.monitor.key])
        if math.isfinite(value) and (not self.best or self.monitor.better(value, self.best["value"])):
            self.best = {"step": trainer.global_step, "metric": self.monitor.key, "value": value}
            trainer.save_checkpoint(self.folder.best_checkpoint())

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        if trainer.global_step != self._saved and self._due(trainer.global_step):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stopped = trainer.global_step < self.total
        if trainer.global_step != self._saved:
            self._save(trainer)

    def _due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.total

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.folder.checkpoint())

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the loops as they were when the step ended: Lightning then goes on after that step's validation."""
        if self._ended == trainer.global_step:  # else training has ended before its time, and does not go on
            checkpoint["loops"]["fit_loop"] = self._loops

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.stopped, "initial": self.initial}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stopped, self.initial = (state_dict[key] for key in ("best", "stopped", "initial"))
