"""Run prepared run folders, each in a fresh process of its own. Knows nothing of Hydra.

A process per job is what makes sweeps sound: DDP starts its ranks from one run's command and never from the sweep's, a
crash stops one run, and no random state, GPU memory or process group reaches the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from indexnet.errors import UserError
from indexnet.run.folder import RunFolder, exclusive, prepare, run_path
from indexnet.run.job import DIVERGED

INHERITED = (
    *("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "WANDB_RUN_ID"),
)
"""Variables of an earlier run in this environment; a job that saw them would join that run."""

PARTLY = 3
_POLL = 0.1
_GRACE = 10.0

Status = Literal["done", "before", "diverged", "failed", "stopped"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        folder: its prepared run folder, absolute.
        title: what tells it from the others: its row, or the overrides that differ.
        seed: its seed.
        devices: processes that it starts.
        cpu: whether it is told to stay on the CPU.
    """

    folder: Path
    title: str
    seed: int
    devices: int = 1
    cpu: bool = False

    @property
    def console(self) -> Path:
        """The file of everything that the job prints."""
        return self.folder / "console.log"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: the job.
        status: ``done`` now or ``before``; ``diverged``; ``failed``; ``stopped`` (never started, or stopped with the
            sweep).
        seconds: wall time of its process.
        reason: why there is no result, one line.
    """

    job: Job
    status: Status
    seconds: float = 0.0
    reason: str = ""


@dataclass
class Running:
    """A job's process.

    Attributes:
        job: the job.
        process: its first process.
        started: when, on the monotonic clock.
    """

    job: Job
    process: subprocess.Popen[bytes]
    started: float
    _progress: dict[str, Any] = field(default_factory=dict)

    def progress(self) -> dict[str, Any]:
        """Return step, steps, loss and eta_s as the job last wrote them; empty before its first step."""
        from indexnet.files import read_json

        try:
            found = read_json(self.job.folder / "progress.json")
            self._progress = found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            if self._progress:  # the file was there and is not any more: the job is about to end
                self._progress = {**self._progress, "step": self._progress.get("steps", 0)}
        return self._progress


def job_command(folder: Path) -> list[str]:
    """Return the command that runs one prepared folder."""
    return [sys.executable, "-m", "indexnet", "job", str(folder)]


def prepare_jobs(configs: Sequence[Mapping[str, Any]], titles: Sequence[str] | None = None) -> list[Job]:
    """Create the folders of frozen configurations, all or none.

    Args:
        configs: one for each job.
        titles: what tells the jobs apart; default their rows or folders.

    Raises:
        UserError: two jobs have the same folder, or a folder holds a run with another configuration.
    """
    paths = [run_path(config) for config in configs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UserError(
                f"two jobs of this sweep have the same folder {path}: the same configuration is asked for twice, or "
                "what tells the two apart is no part of the folder's name; sweep over one less."
            )
    new = [not (path / "config.yaml").is_file() for path in paths]
    for wanted in (False, True):  # those that exist are compared before any is created
        for config, is_new in zip(configs, new, strict=True):
            if is_new is wanted:
                prepare(config)
    jobs = []
    for index, (config, path) in enumerate(zip(configs, paths, strict=True)):
        jobs.append(
            Job(
                folder=path.resolve(),
                title=titles[index] if titles else str(config["experiment"]["row"] or path.name),
                seed=config["seed"],
                devices=config["trainer"]["devices"],
                cpu=config["trainer"]["accelerator"] == "cpu",
            )
        )
    return jobs


def sweep_folder(config: Mapping[str, Any]) -> Path:
    """Return the folder that holds a whole sweep: of one table on one data set and budget, or of all single runs."""
    path = run_path(config)
    return path.parent if config["experiment"]["name"] is None else path.parent.parent


def run_sweep(
    configs: Sequence[Mapping[str, Any]],
    titles: Sequence[str] | None = None,
    *,
    n_jobs: int = 1,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Prepare and run frozen configurations, show how it goes, and say at the end what came of it.

    Args:
        configs: one for each job.
        titles: what tells the jobs apart; default their rows or folders.
        n_jobs: processes at a time.
        fail_fast: stop everything at the first job that fails.

    Returns:
        One outcome for each job, in order.

    Raises:
        UserError: the folders cannot be prepared, or another sweep is at work in them.
    """
    from indexnet.run.progress import create_view, summarize

    if n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be at least 1.")
    folders = sorted({sweep_folder(config) for config in configs})
    # single runs share one folder with unrelated ones: there the lock of each run is enough
    tables = {sweep_folder(config) for config in configs if config["experiment"]["name"] is not None}
    with contextlib.ExitStack() as locks:
        for folder in sorted(tables):
            message = (
                f"another sweep is at work in {folder}; wait for it or stop it, or give paths.runs=ANOTHER_FOLDER."
            )
            locks.enter_context(exclusive(folder / ".sweep", message))
        jobs = prepare_jobs(configs, titles)
        started = time.monotonic()
        with create_view(len(jobs), n_jobs) as view:
            outcomes = launch(jobs, n_jobs=n_jobs, fail_fast=fail_fast, view=view)
    summarize(outcomes, folders, time.monotonic() - started)
    return outcomes


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return 0 where every job has a result, 3 where some have none."""
    return 0 if all(outcome.status in ("done", "before") for outcome in outcomes) else PARTLY


class View:
    """Is told what happens; shows nothing. :mod:`indexnet.run.progress` has those that show it."""

    def started(self, running: Running) -> None:
        """A job's process has started."""

    def ended(self, outcome: Outcome) -> None:
        """A job has ended, or did not need to start."""

    def tick(self, running: Sequence[Running]) -> None:
        """Some time has passed."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def launch(
    jobs: Sequence[Job],
    *,
    n_jobs: int = 1,
    fail_fast: bool = False,
    command: Callable[[Path], list[str]] | None = None,
    view: View | None = None,
    grace: float = _GRACE,
) -> list[Outcome]:
    """Run jobs, some at a time, each in a fresh process; finished ones are not run again.

    One that fails does not stop the others. Everything a job prints goes to ``console.log`` in its folder. Ctrl-C and
    SIGTERM stop the running jobs (SIGTERM, after ``grace`` seconds SIGKILL) and raise ``KeyboardInterrupt``; the same
    jobs go on from their last checkpoints when they are launched again. When this process dies, however it dies, its
    jobs die with it (Linux).

    Args:
        jobs: with prepared folders.
        n_jobs: processes at a time, at least 1; each takes its share of the cores and, of several GPUs, its own.
        fail_fast: stop all others at the first failure.
        command: folder to command line; default :func:`job_command`.
        view: is told what happens.
        grace: seconds that a job has to stop.

    Returns:
        One outcome for each job, in order.
    """
    view = view or View()
    command = command or job_command
    outcomes: dict[Path, Outcome] = {}

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.job.folder] = outcome
        view.ended(outcome)

    waiting: deque[Job] = deque()
    for job in jobs:
        before = _before(job)
        if before is None:
            waiting.append(job)
        else:
            ended(before)
    gpus = visible_gpus() if n_jobs > 1 and any(not job.cpu for job in waiting) else []
    slots: dict[int, Running | None] = dict.fromkeys(range(n_jobs))
    failed = False
    with _terminate_as_interrupt():
        try:
            while waiting or any(slots.values()):
                for slot, running in slots.items():
                    if running is not None and running.process.poll() is not None:
                        slots[slot] = None
                        outcome = _outcome(running)
                        ended(outcome)
                        failed |= outcome.status == "failed"
                    if slots[slot] is None and waiting and not (failed and fail_fast):
                        job = waiting.popleft()
                        slots[slot] = started = _start(job, command, job_environment(job, slot, n_jobs, gpus))
                        view.started(started)
                if failed and fail_fast:
                    break
                view.tick([running for running in slots.values() if running])
                if any(slots.values()):
                    time.sleep(_POLL)
        finally:
            _stop([running for running in slots.values() if running], grace)
    for running in filter(None, slots.values()):
        ended(Outcome(running.job, "stopped", time.monotonic() - running.started, "stopped by fail_fast"))
    for job in waiting:
        ended(Outcome(job, "stopped", reason="not started: fail_fast"))
    return [outcomes[job.folder] for job in jobs]


def _before(job: Job) -> Outcome | None:
    """Return the outcome of a job that needs no process, None for one that does."""
    folder = RunFolder(job.folder)
    status = folder.status()
    if status == "done":
        return Outcome(job, "before")
    if status == "diverged":  # deterministic: it would again
        return Outcome(job, "diverged", reason=str((folder.record() or {}).get("error") or ""))
    return None


def job_environment(
    job: Job, slot: int, n_jobs: int, gpus: Sequence[str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a job's process.

    Args:
        job: the job.
        slot: which of the ``n_jobs`` places it takes.
        n_jobs: processes at a time.
        gpus: the visible GPUs; with several jobs at a time each place gets its own, round robin.
        environ: default this process's.
    """
    environ = os.environ if environ is None else environ
    found = {key: value for key, value in environ.items() if key not in INHERITED}
    if "OMP_NUM_THREADS" not in found and (n_jobs > 1 or job.devices > 1):
        found["OMP_NUM_THREADS"] = str(max(1, _cores() // (n_jobs * job.devices)))
    if n_jobs > 1 and gpus and not job.cpu:
        own = [gpus[(slot * job.devices + index) % len(gpus)] for index in range(min(job.devices, len(gpus)))]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return found


def visible_gpus() -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` can name here; empty on a machine without GPUs."""
    import torch

    count = torch.cuda.device_count()
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[:count] if listed else [str(index) for index in range(count)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(job: Job, command: Callable[[Path], list[str]], environment: dict[str, str]) -> Running:
    (job.folder / "progress.json").unlink(missing_ok=True)  # of an interrupted run
    with job.console.open("ab") as console:  # what an interrupted run printed stays
        process = subprocess.Popen(
            command(job.folder),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the launcher only; a job and its ranks can be signalled as one
            preexec_fn=die_with_parent(os.getpid()),
        )
    return Running(job, process, time.monotonic())


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return a function that makes the process that calls it die with ``parent``, or None where there is no such way.

    The kernel sends the signal, so it also works where the parent is killed. It holds for direct children only: a rank
    that Lightning starts has to ask for itself.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: after a fork only the call itself is safe
    set_parent_death_signal = 1

    def ask() -> None:
        prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def _outcome(running: Running) -> Outcome:
    _signal_group(running, signal.SIGKILL)  # ranks that outlived a killed job
    job, code = running.job, running.process.returncode
    seconds = time.monotonic() - running.started
    folder = RunFolder(job.folder)
    try:
        record = folder.record() or {}
    except UserError as error:
        return Outcome(job, "failed", seconds, str(error))
    status = record.get("status")
    if code == 0 and status == "done":
        return Outcome(job, "done", seconds)
    if code == DIVERGED or status == "diverged":
        return Outcome(job, "diverged", seconds, _line(str(record.get("error") or "the loss is no longer finite")))
    if code < 0:
        name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return Outcome(job, "failed", seconds, f"its process was killed by {name}{hint}")
    reason = str(record.get("error") or "") if status == "failed" else ""
    return Outcome(job, "failed", seconds, _line(reason or _last_line(job.console) or f"exit code {code}"))


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _stop(running: Sequence[Running], grace: float) -> None:
    """Stop jobs: ask the first process of each, which passes it on to its ranks, then insist."""
    if not running:
        return
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            each.process.terminate()
    try:
        deadline = time.monotonic() + grace
        for each in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:  # asked twice: no more patience
        pass
    finally:
        for each in running:
            _signal_group(each, signal.SIGKILL)
        for each in running:
            each.process.wait()


def _signal_group(running: Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: macOS, for a group of zombies
        os.killpg(running.process.pid, number)


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, where this is the main thread."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
