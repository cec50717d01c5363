"""From a few measured steps to a whole table: seconds, memory and disk. Plain numbers in, plain numbers out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIB = 2**20
_SCALED = ("csv", "tensorboard", "checkpoints", "per_image.csv")  # in a run's folder: what depends on its length
_SMALLEST = 2  # samples of the first step: batch norm over a 1x1 map needs two


def line(points: Sequence[tuple[float, float]], at: float) -> float:
    """Return the value at ``at`` of the straight line through the last two points; it never falls.

    Args:
        points: (x, y), x ascending; one alone is joined with the origin.
        at: where to read the line.
    """
    (x0, y0), (x1, y1) = ((0.0, 0.0), points[-1]) if len(points) == 1 else points[-2:]
    return y1 + max(0.0, (y1 - y0) / (x1 - x0)) * (at - x1)


def next_samples(tried: Sequence[tuple[int, float]], full: int, left: float) -> int | None:
    """Choose how large a batch the next measured step takes, so that all of them fit into the time that is left.

    Every size is tried twice, for the first step of a size also pays for what happens once. The real batch comes next
    as soon as three of its steps seem to fit, otherwise twice the samples. Two sizes are tried in any case, once each
    where time is short: a line through one would be far off.

    Args:
        tried: samples and seconds of each step so far, below the real batch.
        full: samples of the real batch.
        left: seconds that are left.

    Returns:
        A number of samples up to ``full``; None where nothing more fits.
    """
    if not tried:
        return min(full, _SMALLEST)
    samples, seconds = tried[-1]
    if (len(tried) == 1 or tried[-2][0] != samples) and seconds <= left:
        return samples
    if 3 * seconds * full / samples <= left:
        return full
    if 4 * seconds <= left or samples == tried[0][0]:
        return min(full, 2 * samples)
    return None


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Return the wall time of jobs on so many places at once, the longest job first, each to the first free place."""
    ends = [0.0] * slots
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


@dataclass(frozen=True)
class Loading:
    """What decoding a data set once costs every run.

    Attributes:
        prepare_s: seconds before training.
        prepare_mb: memory that the decoded files take, MiB.
        sample_s: seconds that one sample takes from there.
    """

    prepare_s: float = 0.0
    prepare_mb: float = 0.0
    sample_s: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What one run costs.

    Attributes:
        step_s: seconds of an optimizer step.
        steps: optimizer steps.
        start_s: seconds from the command to the first step, and from the last step to the first test image, loading of
            the data included.
        checkpoints_s: seconds that all checkpoints take.
        test_s: seconds from the first test image to the end of the process.
        memory_mb: peak of all processes of the run, MiB: of device memory on CUDA, else resident.
        is_whole: False where a step of the real batch was not measured but follows from smaller ones.
        checkpoint_bytes: size of a checkpoint.
        disk_bytes: what a finished run leaves, its checkpoint included.
    """

    step_s: float
    steps: int
    start_s: float
    checkpoints_s: float
    test_s: float
    memory_mb: float
    is_whole: bool
    checkpoint_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Wall time of one run."""
        return self.start_s + self.steps * self.step_s + self.checkpoints_s + self.test_s

    def seconds_left(self, step: int) -> float:
        """Return the wall time of a run that goes on from a step."""
        done = min(step, self.steps) / self.steps
        return self.seconds - done * (self.steps * self.step_s + self.checkpoints_s)


def estimate(
    found: Mapping[str, Any],
    *,
    spawned: float,
    ended: float,
    steps: int,
    tests: Sequence[int],
    files: Mapping[str, int],
    loading: Loading | None = None,
) -> Estimate:
    """Turn what a process noted about the first steps of a run into what the whole run costs.

    Args:
        found: the notes, see :mod:`indexnet.sweep.plan_measure`; with at least one step; the end may be missing.
        spawned: when the process was started, monotonic clock.
        ended: when it had ended.
        steps: optimizer steps of a run.
        tests: images of each test split.
        files: bytes of what it left, by first folder or file of the run's folder.
        loading: of the data set, where the process did without decoding it once.
    """
    points, world, batch = found["points"], found["world"], found["batch"]
    wait, compute = _step(points, batch)
    memory = line([(p["samples"], p["memory_mb"]) for p in points], batch)
    if len(points) == 1 and points[0]["samples"] < batch:  # what does not grow with the batch is known apart
        memory = line([(0, found["rest_mb"]), (points[0]["samples"], points[0]["memory_mb"])], batch)
    is_whole = points[-1]["samples"] == batch
    start = found["begin"] - spawned + found.get("warmup_s", 0.0)
    if loading is not None:
        if not found["workers"]:
            wait = loading.sample_s * batch * found["accumulate"]
        start += loading.prepare_s
        if not found["cuda"]:
            memory += loading.prepare_mb
    elif found["workers"] and not is_whole:  # the loaders' work hides behind a longer step
        wait = max(0.0, points[-1]["wait_s"] + points[-1]["compute_s"] - compute)
    test_s = sum(_per_image(found["tests"], index) * count for index, count in enumerate(tests)) / world
    if found.get("test_begin") is not None:
        start += found["test_begin"] - found["train_end"]
    if found.get("test_end") is not None:
        test_s += ended - found["test_end"]
    every = found["checkpoint_every"]
    checkpoint = int(found.get("checkpoint_bytes", 0))
    logged = max(1, found["steps_done"] // found["log_every"])
    logs = files.get("csv", 0) + files.get("tensorboard", 0)
    rest = sum(size for name, size in files.items() if name not in _SCALED)
    per_image = files.get("per_image.csv", 0) / max(1, found["tested"]) * sum(tests)
    return Estimate(
        step_s=wait + compute,
        steps=steps,
        start_s=start,
        checkpoints_s=-(-steps // every) * found.get("checkpoint_s", 0.0),
        test_s=test_s,
        memory_mb=max(memory, found.get("test_memory_mb") or 0.0) * (1 if found["cuda"] else world),
        is_whole=is_whole,
        checkpoint_bytes=checkpoint,
        disk_bytes=round(checkpoint + rest + per_image + logs / logged * max(1, steps // found["log_every"])),
    )


def _step(points: Sequence[Mapping[str, Any]], batch: int) -> tuple[float, float]:
    """Return the seconds that a step of the real batch waits for its samples, and the others."""
    last = points[-1]
    if last["samples"] == batch:
        return last["wait_s"], last["compute_s"]
    return last["wait_s"], line([(p["samples"], p["compute_s"]) for p in points], batch)


def _per_image(timed: Mapping[str, Sequence[Sequence[float]]], split: int) -> float:
    """Return the seconds of a test image from (images, seconds) of batches; those of another split where none ran."""
    batches = timed.get(str(split)) or timed.get("0") or []
    batches = batches[1:] or batches  # the first one also pays for what happens once
    return sum(seconds for _, seconds in batches) / max(1, sum(images for images, _ in batches))


@dataclass(frozen=True)
class Cost:
    """One measured row of a table.

    Attributes:
        estimate: of each of its runs.
        runs: how many it has.
        left: the step that each run that is left goes on from.
        devices: that each run takes.
    """

    estimate: Estimate
    runs: int
    left: Sequence[int]
    devices: int = 1


@dataclass(frozen=True)
class Totals:
    """What a whole table takes.

    Attributes:
        whole_s: seconds of all measured rows, one run after the other.
        left_s: the same for the runs that are left.
        wall_s: wall time of the runs that are left by device count; None where a run takes more devices than that.
        disk_bytes: what the runs that are left will leave.
        training_bytes: what they take besides while they train.
        memory_mb: of the largest runs that may meet on one device (or machine), MiB.
    """

    whole_s: float
    left_s: float
    wall_s: Mapping[int, float | None]
    disk_bytes: int
    training_bytes: int
    memory_mb: float


def add_up(
    costs: Sequence[Cost],
    counts: Sequence[int],
    *,
    per_device: int = 0,
    n_jobs: int = 1,
    share: int = 1,
    before: float = 0,
) -> Totals:
    """Add the rows of a table up.

    Args:
        costs: of the rows.
        counts: numbers of devices to plan for.
        per_device: runs that go on at a time on one device, which is a whole machine then; 0: a run takes as many
            devices as its row says.
        n_jobs: runs at a time.
        share: how many of them meet on one device.
        before: seconds that pass before the first run starts.
    """
    seconds = [cost.estimate.seconds_left(step) for cost in costs for step in cost.left]
    needed = max((cost.devices for cost in costs if cost.left), default=1)
    wall: dict[int, float | None] = {}
    for count in counts:
        slots = count * per_device if per_device else count // needed
        wall[count] = before * bool(seconds) + makespan(seconds, slots) if slots else None
    checkpoints = sorted((cost.estimate.checkpoint_bytes for cost in costs for _ in cost.left), reverse=True)
    memory = sorted((cost.estimate.memory_mb for cost in costs for _ in cost.left), reverse=True)
    return Totals(
        whole_s=sum(cost.estimate.seconds * cost.runs for cost in costs),
        left_s=sum(seconds),
        wall_s=wall,
        disk_bytes=sum(cost.estimate.disk_bytes * len(cost.left) for cost in costs),
        training_bytes=2 * sum(checkpoints[:n_jobs]),  # the one before the last, and the one that is being written
        memory_mb=sum(memory[:share]),
    )
