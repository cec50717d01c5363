"""Measure the rows of a table: each runs a few steps and test images as the ordinary job, away from its run folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from indexnet.core.files import atomic_write
from indexnet.core.locks import exclusive, held
from indexnet.core.machine import available_memory, die_with_parent
from indexnet.run.callback_options import without_validation
from indexnet.run.folder import RunFolder
from indexnet.run.processes import Command, job_command, job_environment, terminate_as_interrupt
from indexnet.run.resume import resumed_step
from indexnet.run.schema import read_config
from indexnet.sweep.plan import Sweep, nearest_folder
from indexnet.sweep.plan_estimate import PlannedRow, Probe, estimate

_PREFIX = ".indexnet-plan-"
_POLL = 0.05
_SMALLER = (2, 4)  # samples of each process where the real batch is too slow: batch norm over a 1x1 map needs two
_SPARE = 0.2  # share of the memory that a measured run leaves alone
_COPIED = 2**26  # bytes of a checkpoint that are written again to time it

Say = Callable[[str], None]


class ProbeError(Exception):
    """A row cannot be measured; one sentence says why."""


class TooLargeError(ProbeError):
    """A batch takes more memory than there is, or, without a sentence, more time or memory than a measurement may."""


def measure_rows(
    sweep: Sweep,
    rows: Sequence[PlannedRow],
    limit: float,
    say: Say = lambda text: None,
    command: Command = job_command,
) -> int:
    """Measure every row that has runs left, and give it an estimate or an error.

    On the CPU as many at a time as the sweep runs, so that they disturb each other as its runs will; on a GPU one at a
    time.

    Args:
        sweep: the runs.
        rows: of it.
        limit: seconds of measured training for each row.
        say: is told what begins.
        command: folder to the command line of its job.

    Returns:
        How many GPUs the runs share; 0 where they are measured on the CPU.
    """
    import torch

    wanted = [row for row in rows if row.left]
    gpu = torch.cuda.is_available() and any(row.config.trainer.accelerator != "cpu" for row in wanted)
    n_jobs = 1 if gpu else sweep.n_jobs
    missing: dict[str, str] = {}  # encoders whose weights are not here: no need to look for them once more
    stop = threading.Event()

    def measure(row: PlannedRow) -> None:
        encoder = json.dumps(row.config.encoder)
        row.error = missing.get(encoder, "")
        if row.error or stop.is_set():
            return
        say(f"measuring {row.name}")
        probes = _measure(row, place, limit, n_jobs, command, stop)
        if "encoder.pretrained" in row.error:
            missing[encoder] = row.error
        if probes:
            on_gpu = gpu and row.config.trainer.accelerator != "cpu"
            row.device = str(probes[-1].record.device)
            row.device_mb = torch.cuda.get_device_properties(0).total_memory / 2**20 if on_gpu else None
            row.estimate = estimate(
                probes, batch=row.config.training.batch_size, steps=row.steps, images=sum(row.tests),
                validations=row.validations, validated=row.validated,
                every=row.config.trainer.checkpoint_every, copies=1 if on_gpu else row.devices,
            )  # fmt: skip

    runs = Path(sweep.configs[0].paths.runs)
    with terminate_as_interrupt(), _place(runs) as place, ThreadPoolExecutor(n_jobs) as pool:
        try:
            list(pool.map(measure, wanted))
        except BaseException:
            stop.set()
            raise
    return torch.cuda.device_count() if gpu else 0


@contextlib.contextmanager
def _place(runs: Path) -> Iterator[Path]:
    """Make a temporary folder on the disk of the runs, beside their folder, and remove those of killed plans."""
    there = nearest_folder(runs)
    beside = nearest_folder(runs.resolve().parent)
    same_disk = [each for each in (beside, there) if each.stat().st_dev == there.stat().st_dev]
    disk = next((each for each in same_disk if os.access(each, os.W_OK)), Path(tempfile.gettempdir()))
    for old in (*disk.glob(f"{_PREFIX}*"), *there.glob(f"{_PREFIX}*")):  # the latter of earlier versions
        if (old / ".lock").exists() and not held(old / ".lock"):
            shutil.rmtree(old, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=disk, ignore_cleanup_errors=True) as place,
        exclusive(Path(place) / ".lock", f"{place} is in use by another process."),
    ):
        yield Path(place)


def _measure(
    row: PlannedRow, place: Path, limit: float, n_jobs: int, command: Command, stop: threading.Event
) -> list[Probe]:
    """Run a row's real batch, or smaller ones where that takes too long; tell the row what went wrong."""
    from indexnet.tasks import get_task

    few = row.devices * max(3, 2 * get_task(row.config.task["name"]).test_batch_size)
    unit = row.devices * row.config.trainer.accumulate_grad_batches  # samples of a step that has one in each process
    batch = row.config.training.batch_size
    # what compiles the network takes its time before the first step
    may_shrink = batch > unit * max(_SMALLER) and not row.config.trainer.compile

    def probe(samples: int, images: int, patience: float | None) -> Probe:
        return _probe(_short(row, samples, images, limit, place), row.devices, n_jobs, command, stop, patience)

    try:
        try:
            return [probe(batch, few, limit if may_shrink else None)]
        except TooLargeError as error:
            row.error = str(error)
            return [probe(unit * n, images, None) for n, images in zip(_SMALLER, (row.devices, few), strict=True)]
    except ProbeError as error:
        row.error = row.error or str(error)
        return []


def _short(row: PlannedRow, samples: int, images: int, limit: float, place: Path) -> RunFolder:
    """Freeze a configuration with few steps and test images, one checkpoint and no W&B into a folder of its own.

    It starts from fresh weights: those of another row may not be there yet, and cost the same.
    """
    import yaml

    config, cap = without_validation(row.config), row.config.budget.max_test  # its images take what test images take
    steps = max(1, row.steps)  # a run of no steps starts and tests as any other
    folder = Path(tempfile.mkdtemp(dir=place))
    short = {
        **{key: value for key, value in config.items() if key != "init"},
        "training": {**config["training"], "batch_size": samples, "steps": steps},
        "budget": {
            **config["budget"],
            "max_seconds": limit / 3,
            "max_test": images if cap is None else min(images, cap),
        },
        "logger": {**config["logger"], "wandb": False},
        "trainer": {**config["trainer"], "enable_progress_bar": False, "checkpoint_every": steps},
        "paths": {**config["paths"], "runs": str(place)},
    }
    atomic_write(folder / "config.yaml", yaml.safe_dump(short, sort_keys=False))
    return RunFolder(folder)


def _probe(
    folder: RunFolder, devices: int, n_jobs: int, command: Command, stop: threading.Event, patience: float | None
) -> Probe:
    """Run a folder's job in a process of its own and read what it left; the folder is gone then.

    Args:
        folder: of the short run.
        devices: that it takes.
        n_jobs: runs at a time.
        command: folder to the command line of its job.
        stop: says that nobody waits for the result.
        patience: seconds that training may take; None: as long as it does, and as much memory.

    Raises:
        ProbeError: it failed, with the reason.
        TooLargeError: it took too much time or memory.
    """
    console = folder.path / "console.log"
    enough, since = _SPARE * available_memory(), 0.0
    with console.open("wb") as file:
        begun = time.monotonic()
        process = subprocess.Popen(
            command(folder.path), env=job_environment(devices, n_jobs), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, preexec_fn=die_with_parent(os.getpid()),
        )  # fmt: skip
    try:
        while process.poll() is None and not stop.wait(_POLL):
            if patience is None:
                continue
            said = console.read_text(errors="replace")
            if not since and "training for " in said:
                since = time.monotonic()
            if since and "testing on " not in said and time.monotonic() - since > patience:
                raise TooLargeError
            if available_memory() < enough:
                raise TooLargeError
        wall = time.monotonic() - begun
        _check(folder, process.poll())
        return _read(folder, wall)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder.path, ignore_errors=True)


def _check(folder: RunFolder, code: int | None) -> None:
    """Raise what kept a short run from its end, if something did."""
    record = folder.record()
    status, error = ("new", "") if record is None else (record.status, record.error or "")
    if status == "done":
        return
    if status == "diverged":
        raise ProbeError("the loss is not finite after a few steps")
    if code is not None and code < 0:
        raise TooLargeError(
            f"its measuring process was killed by signal {-code}, as the system does when memory runs out"
        )
    if "out of memory" in error:
        raise TooLargeError(error.strip().splitlines()[0])
    if error:
        raise ProbeError(error.removeprefix("UserError: ").strip().splitlines()[0])
    raise ProbeError(f"its measuring process ended with exit code {code}")


def _read(folder: RunFolder, wall: float) -> Probe:
    record, files = folder.record(), dict[str, int]()
    assert record is not None
    for path in folder.path.rglob("*"):
        if path.is_file():
            top = path.relative_to(folder.path).parts[0]
            files[top] = files.get(top, 0) + path.stat().st_size
    with folder.checkpoint().open("rb") as file:
        part = file.read(_COPIED)
    begun = time.monotonic()
    atomic_write(folder.path / "copy", part)
    seconds = (time.monotonic() - begun) * files["checkpoints"] / len(part)
    batch = read_config(folder.config()).training.batch_size
    return Probe(batch, resumed_step(folder), wall, seconds, record, files)
