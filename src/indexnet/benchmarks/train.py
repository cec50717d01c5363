"""What a step of a run costs beside a bare loop: callbacks, loggers, seeds, progress, checkpoints, Lightning's loop."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from indexnet.benchmarks.base import TIME, BenchOptions, Figure, Progress
from indexnet.benchmarks.ceilings import clock
from indexnet.benchmarks.short_run import Enough, silence, train_briefly
from indexnet.run.callbacks import StepSeed
from indexnet.run.config import compose, freeze
from indexnet.run.loader import StepStream, train_loader, worker_count
from indexnet.run.parts import build_parts
from indexnet.run.record import Record
from indexnet.run.schema import read_config

_TARGET = 1.05
_M2O = ("resampling=indexnet", "resampling.family=m2o", "resampling.nonlinear=true", "resampling.context=true")
CASES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "quickstart, average and nearest": (
        160, ("experiments=quickstart", "resampling=nearest", "resampling.pooling=avg"),
    ),
    "quickstart, m2o": (160, ("experiments=quickstart", *_M2O)),
    "matting, m2o, crops of 96": (32, ("task=matting", *_M2O, "training.size=96", "training.batch_size=4")),
}  # fmt: skip
"""By name: steps, all turns together, and overrides."""


def figures(options: BenchOptions, progress: Progress) -> list[Figure]:
    """Measure steps of runs against those of bare loops with the same network, loss, optimizer, schedule and loader.

    What a run does once, at its start and at its end, is not in them.

    Raises:
        RuntimeError: the losses of the two differ.
    """
    found = []
    for case, (total, overrides) in CASES.items():
        progress(f"train: {case}")
        steps = 2 if options.quick else max(1, total // (options.turns + 1))
        accelerator = "gpu" if options.device.type == "cuda" else "cpu"
        content = freeze(compose([*overrides, f"trainer.accelerator={accelerator}"]))
        turns = InTurns(content, steps, options)
        train_briefly(content, turns)
        run, bare = turns.seconds(turns.run), turns.seconds(turns.bare)
        found.append(
            Figure("train", case, "run", "bare loop", TIME, run, bare, options.threads, options.turns, target=_TARGET)
        )
    return found


def bare_loop(content: Mapping[str, Any], device: torch.device) -> Callable[[], Tensor]:
    """Return a function that takes the next step of a frozen configuration, and nothing else; it returns the loss."""
    config = read_config(content)
    torch.manual_seed(config.seed)
    with silence():
        parts = build_parts(config, Record())
    task = parts.task.to(device).train()
    if config.trainer.channels_last:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stream = StepStream(len(parts.train_set), config.training.batch_size, parts.steps, config.seed)
    batches = iter(train_loader(parts.train_set, stream, worker_count(config.trainer.num_workers)))
    made = task.configure_optimizers()
    optimizer, schedule = (made, None) if not isinstance(made, dict) else (
        made["optimizer"], made["lr_scheduler"]["scheduler"],
    )  # fmt: skip

    def step() -> Tensor:
        batch = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in next(batches).items()
        }
        optimizer.zero_grad()
        loss = task.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return loss.detach()

    return step


class InTurns(pl.Callback):
    """Lets a run and a bare loop take their steps one by one in turns, each with a network of its own, and times them.

    A step of the run goes from the end of this callback to its next call, with all that a run does in between.

    Args:
        content: the frozen configuration of the run.
        steps: that a turn adds up; one turn more than those that count comes first and warms up.
        options: of the benchmark.

    Attributes:
        run: seconds of the run's steps.
        bare: seconds of the bare loop's.
    """

    def __init__(self, content: Mapping[str, Any], steps: int, options: BenchOptions) -> None:
        self.steps, self.options = steps, options
        self.run: list[float] = []
        self.bare: list[float] = []
        self._step = bare_loop(content, options.device)
        self._seed = StepSeed(content["seed"])
        self._begun = 0.0
        self._losses: list[Tensor] = []  # of the run, and below of the bare loop
        self._expected: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        torch.set_num_threads(self.options.threads)  # a run makes its own choice

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        begun = clock(self.options.device)
        if index:
            self.run.append(begun - self._begun)
        if index == self.steps and not torch.equal(torch.stack(self._losses), torch.stack(self._expected)):
            raise RuntimeError(f"the losses of a run and of a bare loop differ within the first {index} steps")
        if index == self.steps * (self.options.turns + 1):
            raise Enough
        begun = clock(self.options.device)
        loss = self._step()
        self.bare.append(clock(self.options.device) - begun)
        if index < self.steps:  # both draw the same in the first turn, and are compared
            self._expected.append(loss)
            self._seed.on_train_batch_start(trainer, module, batch, index)
        self._begun = clock(self.options.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if index < self.steps:
            self._losses.append(outputs["loss"])

    def seconds(self, times: list[float]) -> float:
        """Return the seconds of a step: the median over the turns that count."""
        turns = [sum(times[at : at + self.steps]) for at in range(self.steps, len(times), self.steps)]
        return statistics.median(turns) / self.steps
