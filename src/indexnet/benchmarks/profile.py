"""Where the time of a training step goes: a trace, shares of the step, operations, and what of the machine it uses."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from indexnet.benchmarks.base import Progress
from indexnet.benchmarks.ceilings import clock, peak_bandwidth, peak_flops
from indexnet.benchmarks.short_run import Enough, train_briefly
from indexnet.core.errors import UserError
from indexnet.core.files import writing
from indexnet.core.machine import device_name
from indexnet.networks.costs import count_costs
from indexnet.run.acceleration import Compiled
from indexnet.run.callback_options import without_validation
from indexnet.run.schema import read_config
from indexnet.tasks import Task

PARTS = ("data", "forward", "backward", "optimizer", "rest")
"""Of a step: waiting for the loader; network and loss; gradients; the optimizer's own; loggers, callbacks and so on."""

_WARM = 3  # steps before anything counts; the last of them is looked at for its bytes
_TOP = 15
_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "64-true": torch.float64}


@dataclass(frozen=True)
class Operation:
    """One kind of operation, on CUDA a kernel.

    Attributes:
        name: as PyTorch calls it.
        calls: a step.
        seconds: a step, without what it calls itself.
        share: of the steps in which operations were traced.
    """

    name: str
    calls: float
    seconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What was measured of a configuration's training steps.

    Attributes:
        device: its name.
        on_gpu: whether that is one of CUDA.
        steps: that were timed, and as many traced.
        step_s: seconds of a step, the median.
        shares: of a step, by :data:`PARTS`; on CUDA of steps in which each part waits for the one before.
        host: share of traced steps in which no operation was computed: on the CPU Python and dispatch, without the
            loader; on CUDA all time at which the GPU had nothing to do.
        operations: those that took longest, at most 15.
        images: of a step on this device.
        size: (channels, height, width) of the network's input.
        parameters: of the network.
        flops: of a step, estimated: the network's multiply-adds as :mod:`indexnet.networks.costs` counts them, two
            operations each, three times for forward and backward.
        traffic: bytes of a step if each operation reads its inputs from memory and writes its results there; None
            where the network is compiled, which hides them.
        dtype: of the ceiling of arithmetic, as ``float32``.
        peak_flops: operations per second of a large product of matrices.
        peak_bandwidth: bytes per second of a sum of long vectors.
    """

    device: str
    on_gpu: bool
    steps: int
    step_s: float
    shares: Mapping[str, float]
    host: float
    operations: tuple[Operation, ...]
    images: int
    size: tuple[int, int, int]
    parameters: int
    flops: float
    traffic: float | None
    dtype: str
    peak_flops: float
    peak_bandwidth: float


def profile_training(content: Mapping[str, Any], steps: int, trace: Path, say: Progress) -> Profile:
    """Take some training steps of a configuration as a run takes them, and measure.

    Args:
        content: the frozen configuration, of one device.
        steps: to time and then to trace.
        trace: the file of the trace, in Chrome's format.
        say: is told what is being done.

    Raises:
        UserError: the run has fewer steps than that takes, or more than one device; or what a run would say.
        UnwritableError: the trace cannot be written.
    """
    config = read_config(content)
    if config.trainer.processes > 1:
        raise UserError(
            f"a profile is of one device, and this configuration has {config.trainer.processes}; give "
            "trainer.devices=1 trainer.num_nodes=1."
        )
    watch = _Watch(steps, config.trainer.accumulate_grad_batches, say)
    short = without_validation(config)
    given = [each for each in (config.training.steps, config.budget.max_steps) if each is not None]
    if given:  # one of fewer steps is made longer
        short["training"]["steps"] = max(min(given), watch.needed)
        short["budget"] = {**short["budget"], "max_steps": None}
    short["trainer"] = {**short["trainer"], "profiler": None}
    record = train_briefly(short, watch)
    assert watch.traced is not None  # or the run would have ended too early
    say("measuring what the machine gives")
    dtype = _DTYPES.get(watch.precision, torch.float32)
    with writing(trace):
        part = trace.with_name(f".{trace.name}.part")
        watch.traced.export_chrome_trace(str(part))
        os.replace(part, trace)
    operations, host = _operations(watch.traced, watch.traced_s, steps, watch.device.type == "cuda")
    return Profile(
        device=device_name(watch.device),
        on_gpu=watch.device.type == "cuda",
        steps=steps,
        step_s=watch.step_s,
        shares=watch.shares,
        host=host,
        operations=operations,
        images=watch.images,
        size=watch.size,
        parameters=record.parameters or 0,
        flops=watch.flops,
        traffic=watch.traffic,
        dtype=str(dtype).removeprefix("torch."),
        peak_flops=peak_flops(watch.device, dtype),
        peak_bandwidth=peak_bandwidth(watch.device),
    )


class _Ranges(Profiler):
    """Lightning's profiler: it says when a part of a step begins and ends.

    Attributes:
        waits: for the device at the borders of parts.
        named: whether the parts become ranges of the trace.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.waits, self.named = device, False, False
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inside: list[tuple[str, Any]] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        if (part := _part_of(action_name)) is not None:
            self.switch()
            entered = record_function(part) if self.named else None
            if entered is not None:
                entered.__enter__()
            self._inside.append((part, entered))

    def stop(self, action_name: str) -> None:
        if _part_of(action_name) is not None and self._inside:
            self.switch()
            _, entered = self._inside.pop()
            if entered is not None:
                entered.__exit__(None, None, None)

    def switch(self) -> None:
        """Give the time since the last call to the part that is going on."""
        now = clock(self.device if self.waits else torch.device("cpu"))
        self.seconds[self._inside[-1][0] if self._inside else "rest"] += now - self._since
        self._since = now


def _part_of(action: str) -> str | None:
    """Return the part of a step that an action of Lightning's is; None for what is none of its own."""
    kind, _, name = action.rpartition(".")
    if name == "train_dataloader_next":
        return "data"
    if kind.startswith("[Strategy]"):
        return {"training_step": "forward", "backward": "backward"}.get(name)
    return "optimizer" if kind.startswith("[LightningModule]") and name == "optimizer_step" else None


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write, were each to begin and to end in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():  # which touch nothing
            for each in tree_leaves((args, kwargs, out)):
                if isinstance(each, Tensor):  # of one that is expanded, what there is
                    self.bytes += min(each.nbytes, each.untyped_storage().nbytes())
        return out


class _Watch(pl.Callback):
    """Goes through warming up, timing and tracing, step by step; on CUDA it times parts by themselves in between.

    What the run computes in and whether its network is compiled is read from the run, which may go on without.
    """

    def __init__(self, steps: int, accumulate: int, say: Progress) -> None:
        self.steps, self.accumulate, self.say = steps, accumulate, say
        self.device, self.precision = torch.device("cpu"), ""
        self._compiled: list[Compiled] = []
        self.images, self.size, self.flops = 0, (0, 0, 0), 0.0
        self.step_s, self.traced_s = 0.0, 0.0
        self.shares: dict[str, float] = {}
        self.traffic: float | None = None
        self.traced: profile | None = None
        self._script: Iterator[None] = iter(())

    @property
    def needed(self) -> int:
        """Steps that it all takes."""
        return _WARM + 3 * self.steps + 1

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.device, self.precision = trainer.strategy.root_device, str(trainer.precision)
        self._compiled = [each for each in trainer.callbacks if isinstance(each, Compiled)]  # type: ignore[attr-defined]
        self._ranges = _Ranges(self.device)
        trainer.profiler = self._ranges  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.max_steps < self.needed:
            raise UserError(
                f"the run ends before the {self.needed} steps that profiling takes; give a smaller --steps, or more "
                "training.epochs."
            )

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        if index == 0:
            assert isinstance(module, Task)
            count, _, height, width = batch["image"].shape
            self.images, self.size = count * self.accumulate, (module.network.in_channels, height, width)
            macs = count_costs(module.network, self.size).true_macs
            self.flops = 2.0 * 3.0 * macs * self.images
            self._script = self._measure()
        if index % self.accumulate == 0:
            next(self._script, None)

    def _measure(self) -> Iterator[None]:
        """Do what is to be done between the steps; a step is taken at each ``yield``."""
        self.say("warming up")
        for _ in range(_WARM - 1):
            yield
        with self._bytes():
            yield
        self.say(f"timing {self.steps} steps")
        times = []
        with self._timed(waits=False):
            for _ in range(self.steps):
                begun = clock(self.device)
                yield
                times.append(clock(self.device) - begun)
        self.step_s = statistics.median(times)
        if self.device.type == "cuda":
            waited = self.shares["data"]
            with self._timed(waits=True):
                for _ in range(self.steps):
                    yield
            rest = 1 - self.shares["data"]  # what the loader takes is known of steps that wait for nothing
            self.shares = {
                part: waited if part == "data" else share * (1 - waited) / rest for part, share in self.shares.items()
            }
        self.say(f"tracing {self.steps} steps")
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
        self._ranges.named = True
        with profile(activities=activities) as traced:
            begun = clock(self.device)
            for _ in range(self.steps):
                yield
            self.traced_s = clock(self.device) - begun
        self.traced = traced
        raise Enough

    @contextmanager
    def _timed(self, *, waits: bool) -> Iterator[None]:
        ranges = self._ranges
        ranges.waits = waits
        ranges.switch()
        ranges.seconds = dict.fromkeys(PARTS, 0.0)
        yield
        ranges.switch()
        ranges.waits = False
        total = sum(ranges.seconds.values())
        self.shares = {part: seconds / total for part, seconds in ranges.seconds.items()}

    @contextmanager
    def _bytes(self) -> Iterator[None]:
        if any(each.graphs for each in self._compiled):
            yield
            return
        traffic = _Traffic()
        with traffic:
            yield
        self.traffic = float(traffic.bytes)


def _operations(traced: profile, seconds: float, steps: int, on_gpu: bool) -> tuple[tuple[Operation, ...], float]:
    """Return the operations that took longest, and the share of the time at which none was computed."""
    found: dict[str, list[float]] = {}
    spans, loading = list[tuple[float, float]](), 0.0
    for event in traced.events() or ():
        if event.name == "data" and event.device_type == DeviceType.CPU:
            loading += event.cpu_time_total / 1e6
        if event.name in PARTS or event.is_user_annotation or on_gpu != (event.device_type == DeviceType.CUDA):
            continue
        if not on_gpu and ("::" not in event.name or event.name.startswith("autograd::") or _loads(event)):
            continue
        own = (event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total) / 1e6
        spans.append((event.time_range.start / 1e6, event.time_range.end / 1e6))
        sums = found.setdefault(event.name, [0.0, 0.0])
        sums[0] += own
        sums[1] += 1
    # the loader's time is told by itself
    computed = _covered(spans) if on_gpu else loading + sum(own for own, _ in found.values())
    longest = sorted(found.items(), key=lambda item: -item[1][0])[:_TOP]
    operations = tuple(
        Operation(name, calls / steps, own / steps, own / seconds) for name, (own, calls) in longest if own > 0
    )
    return operations, max(0.0, 1 - computed / seconds)


def _loads(event: Any) -> bool:
    while event is not None:
        if event.name == "data":
            return True
        event = event.cpu_parent
    return False


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
