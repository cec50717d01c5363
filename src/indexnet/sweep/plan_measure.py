"""``python -m indexnet.sweep.plan_measure FOLDER LIMIT``: the first steps of a real run, and what they cost.

A process for `indexnet plan`. It runs the frozen configuration of a folder as ``indexnet job`` does, with a task that
looks at the clock, cuts batches down where a whole one would take too long, and stops training early. With ``--data``
it only loads the data set. What it finds goes to ``plan.json`` in the folder, also on the way, for it may be killed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import torch

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.machine import available_memory, device_name, peak_memory, reset_peak_memory, resident_memory
from indexnet.sweep.plan_estimate import MIB, line, next_samples
from indexnet.sweep.plan_process import NOTES
from indexnet.tasks import Task, get_task, register_task

_SAMPLES = 16  # of a data set that is only loaded
_ENOUGH = 3  # steps of the real batch that are timed at least, after two that are not


class Enough(Exception):  # noqa: N818  nothing is wrong
    """The test images take longer than they may; what there is will do."""


class Probe(Task):
    """What a measured task does besides: mixed in before the class of the task.

    Attributes:
        found: what there is to know; see :func:`indexnet.sweep.plan_estimate.estimate`.
        limit: seconds that the steps may take, and again the test images.
        notes: the file.
    """

    found: ClassVar[dict[str, Any]]
    limit: ClassVar[float]
    notes: ClassVar[Path]

    # --- training --------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Start the clock."""
        super().on_train_start()
        from indexnet.run.callbacks import Checkpoints

        trainer, device = self.trainer, self.trainer.strategy.root_device
        self._cuda = device.type == "cuda"
        self.found.update(
            device=device_name(device),
            cuda=self._cuda,
            cuda_mb=torch.cuda.get_device_properties(device).total_memory / MIB if self._cuda else None,
            world=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            checkpoint_every=next(c.every for c in trainer.callbacks if isinstance(c, Checkpoints)),  # type: ignore[attr-defined]
            log_every=trainer.log_every_n_steps,  # type: ignore[attr-defined]
            workers=trainer.train_dataloader.num_workers if trainer.train_dataloader is not None else 0,
            begin=time.monotonic(),
        )
        self._tried: list[tuple[int, float]] = []  # below the real batch
        self._samples = self._batch = 0
        self._step = trainer.global_step
        self._wait = self._compute = self._checkpoint = 0.0
        self._window: list[tuple[float, float]] = []  # (wait, the rest) of each step of the real batch
        self._saving: float | None = None
        self._held = False  # a checkpoint that is made and not yet written
        self._last = self.found["begin"]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cut the batch down where that is wanted."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if not self.trainer.training:
            return batch
        self._arrived = time.monotonic()
        if not self._batch:
            self.found["batch"] = self._batch = len(batch["name"])
            # what compiles the network would do so for every size
            whole = bool(self.config["trainer"]["compile"])
            self._samples = self._batch if whole else next_samples([], self._batch, self.limit) or self._batch
            _reset_peak(self._cuda)
        return {key: value[: self._samples] for key, value in batch.items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Count what was just written of the checkpoint of the step before as the checkpoint's, not as this step's."""
        super().on_train_batch_start(batch, batch_idx)
        now = time.monotonic()
        if self._held:
            self.found["checkpoint_s"] += now - self._arrived
            self._last += now - self._arrived
            self._arrived, self._held = now, False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note that the rest of this step is a checkpoint's."""
        self._saving = time.monotonic()
        super().on_save_checkpoint(checkpoint)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After an optimizer step, note what it took and choose the next batch."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self._cuda and (self._samples < self._batch or len(self._window) < 2):
            torch.cuda.synchronize()
        now = time.monotonic()
        self._wait += self._arrived - self._last
        self._compute += (now if self._saving is None else self._saving) - self._arrived
        if self._saving is not None:
            self.found["checkpoint_s"] = now - self._saving
            self._held = True
        self._last, self._saving = now, None
        if self.trainer.global_step == self._step:  # more batches to accumulate
            return
        self._step = self.trainer.global_step
        self.found["steps_done"] = self._step
        if self._samples < self._batch:
            self._after_smaller()
        else:
            self._after_whole()
        self._wait = self._compute = 0.0
        self._last = time.monotonic()

    def _after_smaller(self) -> None:
        found, seconds = self.found, self._wait + self._compute
        if not self._tried:
            found["rest_mb"] = _resting_mb(self._cuda)
        elif len(self._tried) == 1:
            found["warmup_s"] = max(0.0, self._tried[0][1] - seconds)
        self._tried.append((self._samples, seconds))
        point = self._point(self._wait, self._compute)
        if found["points"] and found["points"][-1]["samples"] == self._samples:
            found["points"][-1] = point
        else:
            found["points"].append(point)
        samples = next_samples(self._tried, self._batch, self.limit - (time.monotonic() - found["begin"]))
        if samples is not None and not self._fits(samples):
            samples = None
        # every process must do the same, and the clock of the first one decides
        samples = self.trainer.strategy.broadcast(samples)
        if samples is None:
            self.trainer.should_stop = True
        elif samples != self._samples:
            self._samples = samples
            _reset_peak(self._cuda)
            self._write()

    def _after_whole(self) -> None:
        self._window.append((self._wait, self._compute))
        timed = self._window[2:]
        spent = sum(wait + compute for wait, compute in timed)
        left = self.limit - (time.monotonic() - self.found["begin"])
        stop = len(timed) >= _ENOUGH and (spent >= self.limit / 3 or left <= 0)
        stop |= left <= 0 and len(self._window) > 1  # one step takes as long as all may
        if self.trainer.strategy.broadcast(stop):
            self.trainer.should_stop = True

    def _point(self, wait: float, compute: float) -> dict[str, float]:
        return {
            "samples": self._samples,
            "wait_s": wait,
            "compute_s": compute,
            "memory_mb": _peak_mb(self._cuda),
        }

    def _fits(self, samples: int) -> bool:
        """Whether a larger batch leaves this machine some memory; a GPU says so itself, and harms nobody."""
        if self._cuda:
            return True
        points = [(p["samples"], p["memory_mb"]) for p in self.found["points"]]
        points = [(0, self.found["rest_mb"]), *points]
        more = line(points, samples) - _resting_mb(self._cuda)
        return bool(more * MIB * self.found["world"] < 0.8 * available_memory())

    def on_train_end(self) -> None:
        """Close the account of training, with a checkpoint if there was none."""
        super().on_train_end()
        if self._cuda:
            torch.cuda.synchronize()
        found = self.found
        if self._window:
            timed = self._window[2:] or self._window[-1:]
            tail = time.monotonic() - self._last if self._cuda else 0.0  # what the device was still busy with
            wait = sum(wait for wait, _ in timed) / len(timed)
            compute = (sum(compute for _, compute in timed) + tail) / len(timed)
            found["points"].append(self._point(wait, compute))
            if "warmup_s" not in found:
                first = [sum(step) - wait - compute for step in self._window[: -len(timed)]]
                found["warmup_s"] = max(0.0, sum(first))
        found.setdefault("warmup_s", 0.0)
        folder = Path(self.trainer.default_root_dir) / "checkpoints"
        if "checkpoint_s" not in found:
            begun = time.monotonic()
            self.trainer.save_checkpoint(folder / "last.ckpt")
            found["checkpoint_s"] = time.monotonic() - begun
        found["checkpoint_bytes"] = max((file.stat().st_size for file in folder.glob("*.ckpt")), default=0)
        found["train_end"] = time.monotonic()
        self._write()

    # --- test ------------------------------------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Start the clock again."""
        super().on_test_start()
        _reset_peak(self._cuda)
        self.found["test_begin"] = self._last = time.monotonic()

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Note what the batch took."""
        super().on_test_batch_end(outputs, batch, batch_idx, dataloader_idx)
        if self._cuda:
            torch.cuda.synchronize()
        now, found = time.monotonic(), self.found
        found["tests"].setdefault(str(dataloader_idx), []).append((len(batch["name"]), now - self._last))
        found["tested"] += len(batch["name"])
        found["test_memory_mb"] = _peak_mb(self._cuda)
        self._last = time.monotonic()
        if now - found["test_begin"] > self.limit and self.trainer.is_global_zero:
            raise Enough

    def on_test_end(self) -> None:
        """Close the account of the test images."""
        super().on_test_end()
        self.found["test_end"] = time.monotonic()
        self._write()

    def _write(self) -> None:
        if self.trainer.is_global_zero:
            write_json(self.notes, self.found)


def _peak_mb(cuda: bool) -> float:
    """Return the peak since :func:`_reset_peak`, in MiB: allocated on the device, or resident."""
    return (torch.cuda.max_memory_allocated() if cuda else peak_memory()) / MIB


def _resting_mb(cuda: bool) -> float:
    """Return what is taken between two steps, in MiB."""
    return (torch.cuda.memory_allocated() if cuda else resident_memory()) / MIB


def _reset_peak(cuda: bool) -> None:
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()  # where that is not possible, the peak is that of the whole process


def load_data(config: dict[str, Any], reads: int) -> dict[str, float]:
    """Decode a data set as a run does, and time that and some samples.

    Returns:
        The attributes of :class:`indexnet.sweep.plan_estimate.Loading`.
    """
    import numpy as np

    from indexnet.data import create_data
    from indexnet.run.schema import data_options

    options = data_options(config)
    train_set = create_data(options.pop("name"), **options).train()
    before, begun = _resting_mb(False), time.monotonic()
    train_set.prepare(reads)
    prepared = time.monotonic()
    memory = max(0.0, _resting_mb(False) - before)
    rng = np.random.default_rng(0)
    indices = rng.integers(len(train_set), size=_SAMPLES + 1)
    for number, index in enumerate(indices):
        if number == 1:  # the first one also pays for what happens once
            began = time.monotonic()
        train_set.sample(int(index), rng)
    sample = (time.monotonic() - began) / _SAMPLES
    return {"prepare_s": prepared - begun, "prepare_mb": memory, "sample_s": sample}


def watched(cls: type[Task], found: dict[str, Any], limit: float, notes: Path) -> type[Task]:
    """Return a class of a task whose runs fill ``found`` and stop early."""
    found.update(points=[], tests={}, tested=0, steps_done=0)
    return type(cls.__name__, (Probe, cls), {"found": found, "limit": limit, "notes": notes})


def main() -> int:
    """Measure.

    Returns:
        0 where the notes are complete; otherwise 1, and they have an ``error``.
    """
    from indexnet.run.folder import RunFolder
    from indexnet.run.job import DIVERGED, run_job

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("limit", type=float)
    parser.add_argument("--data", type=int, metavar="READS")
    args = parser.parse_args()
    folder = RunFolder(args.folder.resolve())
    config, found = folder.config(), dict[str, Any]()
    try:
        if args.data is not None:
            found |= load_data(config, args.data)
        else:
            cls = get_task(config["task"]["name"])
            register_task(watched(cls, found, args.limit, folder.path / NOTES))
            if run_job(folder.path) == DIVERGED:
                found["error"] = "the loss is not finite after a few steps"
    except Enough:
        pass
    except UserError as error:
        found["error"] = str(error)
    except Exception as error:  # a row that cannot run here is a line of the plan; its traceback is in the log
        import traceback

        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    from indexnet.run.loader import process_rank

    if process_rank() == 0:
        write_json(folder.path / NOTES, found)
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
