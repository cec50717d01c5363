"""What happens around the steps of a run: seeding, checkpoints, progress, and noticing divergence."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from indexnet.files import write_json


class DivergedError(Exception):
    """The training loss, or what the network gives for a test image, is no longer finite."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the target, then rename."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


class StepSeed(pl.Callback):
    """A step's randomness (dropout) follows from (seed, step, rank), so a resumed run repeats it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seed torch for this batch."""
        torch.manual_seed(hash((self.seed, index, trainer.global_rank)) & 0x7FFFFFFF)


class Checkpoints(pl.Callback):
    """Write ``last.ckpt`` every so many optimizer steps and at the end.

    Args:
        path: of the checkpoint.
        every: optimizer steps between two checkpoints.
        total: optimizer steps of the run.
    """

    def __init__(self, path: Path, every: int, total: int) -> None:
        self.path, self.every, self.total = path, every, total
        self._saved = -1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note what is saved already: the step counter of a resumed run stands there until a whole step is done."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Save when it is time."""
        step = trainer.global_step
        if step != self._saved and (step % self.every == 0 or step == self.total):
            self._saved = step
            trainer.save_checkpoint(self.path)


class Progress(pl.Callback):
    """Measure throughput, notice divergence, and say once a second how far the run is, in ``progress.json``.

    Args:
        path: of ``progress.json``.
        total: optimizer steps of the run.
        batch_size: samples of one optimizer step.
        before: seconds that earlier tries of the run took.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """

    def __init__(self, path: Path, total: int, batch_size: int, before: float = 0.0) -> None:
        self.path, self.total, self.batch_size, self.before = path, total, batch_size, before
        self.samples_per_s: float | None = None
        self._started = self._first = self._written = 0.0
        self._first_step = self._begin = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._begin, self._first = time.monotonic(), trainer.global_step, 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Check the loss, note the time."""
        now, step = time.monotonic(), trainer.global_step
        loss_tensor = outputs["loss"] if isinstance(outputs, dict) else outputs
        on_cpu = loss_tensor.device.type == "cpu"
        loss = None
        if on_cpu or step % 20 == 0 or step == self.total:  # reading a GPU's loss waits for it
            loss = float(loss_tensor) * trainer.accumulate_grad_batches
            # one rank may see it first; all must stop at the same step
            if trainer.strategy.reduce_boolean_decision(not math.isfinite(loss), all=False):
                raise DivergedError(f"the training loss became {loss} at step {step} of {self.total}")
        if not self._first and step - self._begin >= 2:  # the first steps warm up
            self._first, self._first_step = now, step
        if self._first and step > self._first_step:
            self.samples_per_s = (step - self._first_step) * self.batch_size / (now - self._first)
        if trainer.is_global_zero and (now - self._written >= 1 or step == self.total) and loss is not None:
            self._written = now
            done = max(1, step - self._begin)
            eta = (now - self._started) / done * (self.total - step)
            elapsed = self.before + now - self._started
            progress = {"step": step, "steps": self.total, "loss": loss}
            write_json(self.path, {**progress, "eta_s": round(eta, 1), "elapsed_s": round(elapsed, 1)})
