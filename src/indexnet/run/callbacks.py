"""What happens around the steps of a run: seeding, checkpoints, progress, and noticing divergence."""

from __future__ import annotations

import contextlib
import io
import math
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from indexnet.errors import UserError
from indexnet.files import atomic_write, write_json


class DivergedError(Exception):
    """The training loss, or what the network gives for a test image, is no longer finite."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all.

    Args:
        previous: where the checkpoint goes that a new one replaces; None: nowhere.
    """

    def __init__(self, previous: Path | None = None) -> None:
        super().__init__()
        self.previous = previous

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the target, then rename.

        Raises:
            DiskFullError: there is no room; the checkpoints that are there stay.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(path, buffer.getbuffer(), keep=self.previous)


class Terminable(pl.Callback):
    """SIGTERM ends a process of a run that started its own processes at once.

    Lightning's handler would talk to the other processes, each of which is at another place by then. Nothing needs to
    be said: the run goes on from its last checkpoint, and the other processes end with the first one.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replace Lightning's handler, which it takes back at the end."""
        self._replace_handler(trainer)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replace Lightning's handler, which it takes back at the end."""
        self._replace_handler(trainer)

    def _replace_handler(self, trainer: pl.Trainer) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, interrupt if trainer.local_rank == 0 else signal.SIG_DFL)


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
        if (first := trainer.strategy.broadcast(self._saved)) != self._saved:  # a file system that shows each its own
            raise RuntimeError(f"process {trainer.global_rank} goes on from step {self._saved}, the first from {first}")

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
            with contextlib.suppress(OSError, UserError):  # a full disk, say: no reason to lose the run
                write_json(self.path, {**progress, "eta_s": round(eta, 1), "elapsed_s": round(elapsed, 1)})
