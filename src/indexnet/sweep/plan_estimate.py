"""From a few measured steps to a whole table: seconds, memory and disk. Plain numbers in, plain numbers out."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from indexnet.run.loader import checkpoint_pause, log_interval, validation_interval
from indexnet.run.record import Record
from indexnet.run.schema import Config

_SCALED = ("csv", "tensorboard", "checkpoints", "per_image.csv")  # in a run's folder: what depends on its length


def line(points: Sequence[tuple[float, float]], at: float) -> float:
    """Return the value at ``at`` of the straight line through the last two points; it never falls.

    Args:
        points: (x, y), x ascending; one alone is joined with the origin.
        at: where to read the line.
    """
    (x0, y0), (x1, y1) = ((0.0, 0.0), points[-1]) if len(points) == 1 else points[-2:]
    return y1 + max(0.0, (y1 - y0) / (x1 - x0)) * (at - x1)


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Return the wall time of jobs on so many places at once, the longest job first, each to the first free place."""
    ends = [0.0] * slots
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def longest_chain(rows: Iterable[PlannedRow]) -> float:
    """Return the wall time of the longest chain of runs that start from each other, however many devices there are."""
    known = {
        (f"{row.config.experiment.name}:{row.config.experiment.row}", row.config.data["name"]): row for row in rows
    }

    def seconds(row: PlannedRow | None) -> float:
        if row is None or row.estimate is None:
            return 0.0
        source = known.get((row.config.init.row, row.config.data["name"])) if row.config.init.row else None
        return max(map(row.estimate.seconds_left, row.left), default=0.0) + seconds(source)

    return max(map(seconds, known.values()), default=0.0)


@dataclass(frozen=True)
class Estimate:
    """What one run costs.

    Attributes:
        step_s: seconds of an optimizer step.
        steps: optimizer steps.
        start_s: seconds that a run takes besides, whatever its length: imports, loading of the data, pictures.
        checkpoints_s: seconds that all checkpoints take.
        test_s: seconds that the test images take, and those of validations.
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
        done = min(step, self.steps) / max(1, self.steps)
        return self.seconds - done * (self.steps * self.step_s + self.checkpoints_s)


@dataclass(frozen=True)
class Probe:
    """What a run of a few steps and test images has shown.

    Attributes:
        batch: samples of an optimizer step.
        steps: optimizer steps that it took.
        wall_s: seconds from the command to the end of its process.
        checkpoint_s: seconds that a checkpoint takes.
        record: that it left.
        files: bytes that it left, by first folder or file of the run's folder.
    """

    batch: int
    steps: int
    wall_s: float
    checkpoint_s: float
    record: Record
    files: Mapping[str, int]

    def measured(self, field: str) -> float:
        """Return a number of the record, which every finished run has."""
        value = self.record.number(field)
        assert value is not None, field
        return value

    @property
    def step_s(self) -> float:
        """Seconds of an optimizer step."""
        return self.batch / self.measured("train_samples_per_s")

    @property
    def image_s(self) -> float:
        """Seconds of a test image."""
        return 1 / self.measured("test_samples_per_s")

    @property
    def rest_s(self) -> float:
        """Seconds that are neither steps nor test images nor the checkpoint."""
        known = self.steps * self.step_s + self.measured("test_count") * self.image_s + self.checkpoint_s
        return max(0.0, self.wall_s - known)


def estimate(
    probes: Sequence[Probe],
    *,
    batch: int,
    steps: int,
    images: int,
    every: int | str,
    copies: int,
    validations: int = 0,
    validated: int = 0,
) -> Estimate:
    """Turn what a few steps have shown into what the whole run costs.

    Args:
        probes: of the real batch, or several of smaller ones, ascending.
        batch: samples of an optimizer step of the run.
        steps: of the run.
        images: that it is tested on.
        every: steps between two checkpoints, or ``auto``.
        copies: processes that share the memory that is measured, each taking the same.
        validations: while it trains; the best checkpoint may be written after each.
        validated: images of each of them.
    """
    last = probes[-1]
    training = line([(probe.batch, probe.measured("train_peak_memory_mb")) for probe in probes], batch)
    log_every = log_interval(steps)
    checkpoint = last.files.get("checkpoints", 0)
    logs = (last.files.get("csv", 0) + last.files.get("tensorboard", 0)) / max(1, last.steps // log_every)
    logs *= max(1, steps // log_every)
    per_image = last.files.get("per_image.csv", 0) / last.measured("test_count") * images
    rest = sum(size for name, size in last.files.items() if name not in _SCALED)
    step_s = line([(probe.batch, probe.step_s) for probe in probes], batch)
    pause = every if isinstance(every, int) else checkpoint_pause(last.checkpoint_s) / step_s  # in steps
    return Estimate(
        step_s=step_s,
        steps=steps,
        start_s=last.rest_s,
        checkpoints_s=(math.ceil(steps / pause) + validations) * last.checkpoint_s,
        test_s=(images + validations * validated) * last.image_s,
        memory_mb=copies * max(training, last.measured("peak_memory_mb")),
        is_whole=last.batch == batch,
        checkpoint_bytes=checkpoint,
        disk_bytes=round(checkpoint * (2 if validations else 1) + rest + per_image + logs),
    )


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
    rows: Sequence[PlannedRow], counts: Sequence[int], *, n_jobs: int = 1, gpus: int = 0, before: float = 0
) -> Totals:
    """Add the measured rows of a table up.

    Args:
        rows: of it; those without an estimate are left out.
        counts: numbers of devices to plan for.
        n_jobs: runs at a time.
        gpus: of this machine; 0: the devices are whole machines, each with ``n_jobs`` runs at a time.
        before: seconds that pass before the first run starts.
    """
    measured = [(row, row.estimate) for row in rows if row.estimate is not None]
    left = [found for row, found in measured for _ in row.left]
    seconds = [found.seconds_left(step) for row, found in measured for step in row.left]
    needed = max((row.devices for row, _ in measured if row.left), default=1)
    wall: dict[int, float | None] = {}
    chain = longest_chain(row for row, _ in measured)
    for count in counts:
        slots = count // needed if gpus else count * n_jobs
        wall[count] = before * bool(seconds) + max(makespan(seconds, slots), chain) if slots else None
    share = -(-n_jobs * max((row.devices for row in rows), default=1) // gpus) if gpus else n_jobs
    return Totals(
        whole_s=sum(found.seconds * row.runs for row, found in measured),
        left_s=sum(seconds),
        wall_s=wall,
        disk_bytes=sum(found.disk_bytes for found in left),
        # the checkpoint before the last, and the one that is being written
        training_bytes=2 * sum(sorted((found.checkpoint_bytes for found in left), reverse=True)[:n_jobs]),
        memory_mb=sum(sorted((found.memory_mb for found in left), reverse=True)[:share]),
    )


@dataclass
class PlannedRow:
    """Runs that cost the same: the seeds of a row, and what its table repeats it for.

    Attributes:
        name: of the row.
        config: of the first of its runs.
        steps: optimizer steps of a run.
        tests: images of each test split.
        validated: images of each validation while training; 0: there is none.
        runs: how many there are.
        left: the step that each run that is left goes on from, 0 for one that has not begun.
        failed: runs that failed before and are left alone.
        damaged: why runs cannot be used, a sentence each; they are left alone as well.
        estimate: what one run costs; None where nothing was measured.
        error: why it was not, or only in part; one sentence.
        device: what it was measured on.
        device_mb: memory of the device, MiB; None on the CPU.
    """

    name: str
    config: Config
    steps: int
    tests: tuple[int, ...]
    runs: int = 0
    left: list[int] = field(default_factory=list)
    failed: int = 0
    damaged: list[str] = field(default_factory=list)
    estimate: Estimate | None = None
    error: str = ""
    device: str = ""
    device_mb: float | None = None
    validated: int = 0

    @property
    def validations(self) -> int:
        """How often a run is validated while it trains."""
        every = self.config.training.validate_every
        return self.steps // validation_interval(every, self.steps) if every else 0

    @property
    def devices(self) -> int:
        """Devices that a run takes."""
        return self.config.trainer.processes
