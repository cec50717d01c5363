"""What happens around the steps of a run: seeding, progress, and noticing divergence."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import RichProgressBar

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.machine import peak_memory_mb
from indexnet.run.processes import interrupt
from indexnet.run.record import read_progress


class DivergedError(Exception):
    """The training loss, or what the network gives for a test image, is no longer finite.

    Attributes:
        remedy: what to try.
    """

    remedy = "a smaller optimizer.lr usually helps"


class LoggedBar(RichProgressBar):
    """A bar that moves at the steps that are logged, and at the last: what it shows is read from the device.

    Lightning's own reads its numbers at every step, and a GPU is waited for each time.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, whole = trainer.global_step, (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and (done % trainer.log_every_n_steps == 0 or done == trainer.max_steps):  # type: ignore[attr-defined]
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        loss = trainer.callback_metrics.get("train/loss")  # which Lightning gives no bar where task.loss_in_bar is off
        found: dict[str, Any] = super().get_metrics(trainer, pl_module)
        return found if loss is None else {**found, "train/loss": float(loss)}


class Terminable(pl.Callback):
    """SIGTERM ends a process of a run that started its own processes at once.

    Lightning's handler would talk to the other processes, each of which is at another place by then. Nothing needs to
    be said: the run goes on from its last checkpoint, and the other processes end with the first one.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replace Lightning's handler, which it takes back at the end."""
        signal.signal(signal.SIGTERM, interrupt if trainer.local_rank == 0 else signal.SIG_DFL)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_start(trainer, module)


class Alive(pl.Callback):
    """Tells at every batch, and at what lies between them, that this process goes on.

    Args:
        beat: is called.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self.beat = beat

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.beat()

    on_train_start = on_train_batch_end = on_save_checkpoint = on_train_end = on_train_batch_start  # type: ignore[assignment]
    on_validation_start = on_validation_batch_start = on_validation_batch_end = on_train_batch_start  # type: ignore[assignment]
    on_test_start = on_test_batch_start = on_test_batch_end = on_validation_end = on_train_batch_start  # type: ignore[assignment]


class StepSeed(pl.Callback):
    """A step's randomness (dropout) follows from (seed, step, rank), so a resumed run repeats it.

    ``torch.manual_seed`` does the same, but writes down its caller's stack for every kind of device that has not been
    started, which takes a quarter of a millisecond.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        seed = hash((self.seed, index, trainer.global_rank)) & 0x7FFFFFFF
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)


class SkippedFiles(pl.Callback):
    """Say which damaged files training goes without: samples name them, one a line, as ``skipped``.

    Each is said once: what the first process meets at once, what only others have met when training ends. How many
    samples of all processes have met it goes into the checkpoints and into the record.

    Attributes:
        found: what is wrong with each file, and how many samples have met it; of all processes once training has ended.
    """

    state_key = "SkippedFiles"

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._earlier: dict[str, int] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        lines = [line for text in batch.get("skipped", ()) for line in text.splitlines()]
        for line in lines:
            if trainer.is_global_zero and line not in self.found and line not in self._earlier:
                _say_skipped(line)
            self.found[line] = self.found.get(line, 0) + 1

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        said = self.found.keys() | self._earlier.keys()
        self.found, self._earlier = self._of_all(trainer), {}
        if self.found and trainer.is_global_zero:
            for line in self.found:
                if line not in said:
                    _say_skipped(line)
            count = sum(self.found.values())
            files = f"{len(self.found)} damaged file{'s' if len(self.found) > 1 else ''}"
            print(f"{files} skipped, met {count} time{'s' if count > 1 else ''} in training", flush=True)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save what all processes have met, in this try and in earlier ones; all come here."""
        checkpoint["callbacks"][self.state_key] = {"found": self._of_all(trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = dict(state_dict["found"])

    def _of_all(self, trainer: pl.Trainer) -> dict[str, int]:
        gathered: list[Any] = [self.found]
        if trainer.world_size > 1:
            gathered = gathered * trainer.world_size
            dist.all_gather_object(gathered, self.found)
        total = Counter(self._earlier)
        for found in gathered:
            total.update(found)
        return dict(sorted(total.items()))


def _say_skipped(problem: str) -> None:
    print(f"indexnet: skipped, the next file takes its place: {problem}", file=sys.stderr, flush=True)


class Progress(pl.Callback):
    """Measure throughput, notice divergence, and say once a second how far the run is, in ``progress.json``.

    Where there is no progress bar, a line says so after ten seconds, then every minute.

    What was measured goes into the checkpoints: a killed run ends with the throughput and the memory of all its tries.

    Args:
        path: of ``progress.json``.
        total: optimizer steps of the run.
        batch_size: samples of one optimizer step.
        since: when the run began by the clock, less the time of earlier tries; None: now.
        clock: returns the time in seconds.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """

    state_key = "Progress"

    def __init__(
        self,
        path: Path,
        total: int,
        batch_size: int,
        since: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.total, self.batch_size, self.clock = path, total, batch_size, clock
        self.since = clock() if since is None else since
        self._started = self._first = self._now = self._written = self._validating = 0.0
        self._tell_at = 0.0
        self._begin = self._first_step = self._step = 0
        self._earlier = {"steps": 0, "seconds": 0.0, "warm_steps": 0, "warm_seconds": 0.0, "peak_memory_mb": 0.0}
        self._device = torch.device("cpu")
        self._said: dict[str, float] = {}
        self._tested: list[tuple[float, int]] = []  # when each test batch ended, and the images until then

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started = self._now = self.clock()
        self._tell_at = self._started + 10
        self._begin = self._step = trainer.global_step
        self._device = trainer.strategy.root_device

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        now, step = self.clock(), trainer.global_step
        loss_tensor = outputs["loss"] if isinstance(outputs, dict) else outputs
        on_cpu = loss_tensor.device.type == "cpu"
        loss = None
        # reading a GPU's loss waits for it: only when loggers do so, too
        if on_cpu or step % trainer.log_every_n_steps == 0 or step == self.total:  # type: ignore[attr-defined]
            loss = float(loss_tensor) * trainer.accumulate_grad_batches
            # one rank may see it first; all must stop at the same step
            if trainer.strategy.reduce_boolean_decision(not math.isfinite(loss), all=False):
                raise DivergedError(f"the training loss became {loss} at step {step} of {self.total}")
        if step > self._step:
            self._now, self._step = now, step
            if step - self._begin == 2:  # the first steps warm up
                self._first, self._first_step = now, step
        if trainer.is_global_zero and (now - self._written >= 1 or step == self.total) and loss is not None:
            done = max(1, step - self._begin)
            eta = (now - self._started) / done * (self.total - step)
            self._said |= {"step": step, "steps": self.total, "loss": loss, "eta_s": round(eta, 1)}
            self._write(now)
            if trainer.progress_bar_callback is None and step < self.total and now >= self._tell_at:
                self._tell_at = now + 60
                left = f"{eta / 60:.0f} min" if eta >= 90 else f"{eta:.0f} s"
                print(f"step {step} of {self.total}, loss {loss:.4g}, about {left} left", flush=True)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._validating = self.clock()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        self._said |= {key: value for key, value in values.items() if math.isfinite(value)}
        spent = self.clock() - self._validating  # is no time of training
        self._started += spent
        self._now += spent  # of the last step: what comes after it must not be taken from its seconds
        self._first += spent if self._first else 0.0
        if trainer.is_global_zero:
            self._write(self.clock())

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._tested = [(self.clock(), 0)]

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        now = self.clock()
        self._tested.append((now, self._tested[-1][1] + len(batch["name"])))
        if trainer.is_global_zero and now - self._written >= 1:
            if not self._said:  # an earlier try has trained
                self._said = read_progress(self.path.parent)
            self._write(now)

    def _write(self, now: float) -> None:
        self._written = now
        with contextlib.suppress(OSError, UserError):  # a full disk, say: no reason to lose the run
            write_json(self.path, {**self._said, "elapsed_s": round(now - self.since, 1)}, settled=False)

    @property
    def samples_per_s(self) -> float | None:
        """Training samples per second over all tries, without the first two steps of each where others are known."""
        known = self.state_dict()
        steps, seconds = known["warm_steps"], known["warm_seconds"]
        if not steps:
            steps, seconds = known["steps"], known["seconds"]
        return steps * self.batch_size / seconds if steps and seconds else None

    @property
    def test_samples_per_s(self) -> float:
        """Test images per second of this process, without the first batch where there are others."""
        (begin, before), (end, count) = self._tested[1 if len(self._tested) > 2 else 0], self._tested[-1]
        return (count - before) / (end - begin)

    def peak_memory_mb(self, device: torch.device) -> float:
        """Return the peak over all tries, see :func:`indexnet.core.machine.peak_memory_mb`."""
        return max(self._earlier["peak_memory_mb"], peak_memory_mb(device))

    def state_dict(self) -> dict[str, Any]:
        """Return what later tries need to know: steps that were taken, and the seconds that they took."""
        own = {"steps": self._step - self._begin, "seconds": self._now - self._started}
        if self._first:
            own |= {"warm_steps": self._step - self._first_step, "warm_seconds": self._now - self._first}
        known = {key: value + own.get(key, 0) for key, value in self._earlier.items()}
        return known | {"peak_memory_mb": self.peak_memory_mb(self._device)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier |= state_dict
