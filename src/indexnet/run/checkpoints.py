"""The checkpoints of a run: the last one, and the best in validation."""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from indexnet.core.errors import UserError
from indexnet.core.files import atomic_write
from indexnet.run.folder import RunFolder
from indexnet.run.loader import checkpoint_pause
from indexnet.run.loggers.curve import CurveLogger
from indexnet.run.resume import CURVE, write_checkpoint


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
        self._checked = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the target, then rename.

        Raises:
            DiskFullError: there is no room; the checkpoints that are there stay.
            UserError: the state of a callback is not plain data, so that the checkpoint could not be read back.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        if not self._checked:
            _check_plain(checkpoint.get("callbacks", {}))
            self._checked = True
        if Path(path) == self.folder.checkpoint():
            previous = self.folder.previous_checkpoint()
            write_checkpoint(self.folder.checkpoint(), buffer.getbuffer(), checkpoint["global_step"], previous)
        else:
            atomic_write(path, buffer.getbuffer())


def _check_plain(states: Mapping[str, Any]) -> None:
    for name, state in states.items():
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        try:
            torch.load(buffer, weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"the state of the callback {name} is not plain data, so a killed run could not go on; its state_dict "
                "must return numbers, texts, lists, dicts and tensors."
            ) from error


class SaveFirst(pl.Callback):
    """Write a checkpoint that is due before any other callback begins the next step: their states are saved, too."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self.checkpoints.save_due(trainer)


_AGREE = 10
"""Steps between two questions to the first of several processes: one takes as long as a small step."""


class Checkpoints(pl.Callback):
    """Write ``last.ckpt`` by steps or by time and at the end, and ``best.ckpt`` when validation improves.

    A checkpoint is made when the next step begins: by then the loggers have written the step, and validation has ended,
    if it was due, so that a run that goes on from here neither lacks nor repeats anything.

    Args:
        folder: of the run.
        every: optimizer steps between two checkpoints, or ``auto``, by time (:func:`checkpoint_pause`).
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
        every: int | Literal["auto"],
        total: int,
        monitor: Monitor | None = None,
        initial: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.every, self.total, self.monitor, self.initial = folder, every, total, monitor, initial
        self.best: dict[str, Any] = {}
        self.stopped = False
        self._saved = self._ended = self._asked = self._wanted = -1
        self._since = self._took = 0.0  # the end of the last save, by the monotonic clock, and how long it took
        self._loops: dict[str, Any] = {}  # Lightning's, at the end of the step ``_ended``

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note what is saved already: the step counter of a resumed run stands there until a whole step is done."""
        self._saved = self._ended = self._asked = trainer.global_step
        self._since = time.monotonic()
        if (first := trainer.strategy.broadcast(self._saved)) != self._saved:  # a file system that shows each its own
            raise RuntimeError(f"process {trainer.global_rank} goes on from step {self._saved}, the first from {first}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        step = trainer.global_step
        if step == self._asked:  # batches that only accumulate, in the middle of a step
            return
        self._asked = step
        if self._due(trainer):
            self._wanted = step
        if self._wanted == step or (self.monitor and step % self.monitor.every == 0):
            self._ended, self._loops = step, trainer.fit_loop.state_dict()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.monitor is None or trainer.state.fn != "fit":
            return
        logged = trainer.callback_metrics.get(self.monitor.key)
        if logged is None:
            raise UserError(f"trainer.monitor={self.monitor.key}: validation of task={module.name} does not log it.")
        value = float(logged)
        if math.isfinite(value) and (not self.best or self.monitor.better(value, self.best["value"])):
            self.best = {"step": trainer.global_step, "metric": self.monitor.key, "value": value}
            trainer.save_checkpoint(self.folder.best_checkpoint())

    def save_due(self, trainer: pl.Trainer) -> None:
        """Write the last checkpoint where the step before has made it due."""
        if self._saved != trainer.global_step == self._wanted:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stopped = trainer.global_step < self.total
        if trainer.global_step != self._saved:
            self._save(trainer)

    def _due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        if step == self.total:
            return True
        if self.every != "auto":
            return step % self.every == 0
        if trainer.world_size > 1 and step % _AGREE:
            return False
        due = time.monotonic() - self._since >= checkpoint_pause(self._took)
        return trainer.strategy.broadcast(due)  # all of them write: the first one's clock counts

    def _save(self, trainer: pl.Trainer) -> None:
        began = time.monotonic()
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.folder.checkpoint())
        self._since = time.monotonic()
        self._took = self._since - began

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the learning curve, and the loops as they were when the step ended.

        Lightning then goes on after that step's validation.
        """
        for logger in trainer.loggers:
            if isinstance(logger, CurveLogger):
                checkpoint[CURVE] = logger.text()
        if self._ended == trainer.global_step:  # else training has ended before its time, and does not go on
            checkpoint["loops"]["fit_loop"] = self._loops

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.stopped, "initial": self.initial}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stopped, self.initial = (state_dict[key] for key in ("best", "stopped", "initial"))
