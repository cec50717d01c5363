"""Run prepared run folders, some at a time, each in a fresh process of its own. Knows nothing of Hydra.

A process per job is what makes sweeps sound: DDP starts its ranks from one run's command and never from the sweep's, a
crash stops one run, and no random state, GPU memory or process group reaches the next one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from indexnet.core.files import UnwritableError, check_writable, writing
from indexnet.core.machine import die_with_parent, share_gpus, visible_gpus
from indexnet.run.folder import RunFolder
from indexnet.run.job import DIVERGED
from indexnet.run.processes import (
    INTERRUPTED,
    Command,
    job_command,
    job_environment,
    terminate_as_interrupt,
)
from indexnet.run.record import DamagedRunError, Record, read_progress
from indexnet.run.schema import Rerun

_POLL = 0.05
_GRACE = 10.0
_PATIENCE = 8.0

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
        damaged: why its folder cannot be used; "" where it can.
        after: folder of the run that it starts from; None: it starts from none.
        source: name of that run's row.
    """

    folder: Path
    title: str
    seed: int
    devices: int = 1
    cpu: bool = False
    damaged: str = ""
    after: Path | None = None
    source: str = ""

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
        reason: why there is no result, one line; of a run that was done before, what of its code has changed since.
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
        gpus: those that it was given; empty where it was given none of its own.
        earlier: modification time of the ``progress.json`` that an interrupted run left, in ns; 0 where none did.
    """

    job: Job
    process: subprocess.Popen[bytes]
    started: float
    gpus: Sequence[str] = ()
    earlier: int = 0
    _progress: dict[str, float] = field(default_factory=dict)

    def progress(self) -> dict[str, float]:
        """Return step, steps, loss and eta_s as the job last wrote them; empty before its first step."""
        with contextlib.suppress(OSError):
            if (self.job.folder / "progress.json").stat().st_mtime_ns == self.earlier:
                return {}
        found = read_progress(self.job.folder)
        if not found and self._progress:  # the file was there and is not any more: the job is about to end
            found = {**self._progress, "step": self._progress.get("steps", 0)}
        self._progress = found
        return found


class View:
    """Is told what happens; shows nothing. :mod:`indexnet.sweep.progress` has those that show it."""

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
    retry_failed: bool = False,
    command: Command = job_command,
    view: View | None = None,
    grace: float = _GRACE,
    patience: float = _PATIENCE,
) -> list[Outcome]:
    """Run jobs, some at a time, each in a fresh process; finished ones are not run again.

    One that fails does not stop the others. Everything a job prints goes to ``console.log`` in its folder. Ctrl-C and
    SIGTERM stop the running jobs (SIGTERM, after ``grace`` seconds SIGKILL) and raise ``KeyboardInterrupt``; the same
    jobs go on from their last checkpoints when they are launched again. When this process dies, however it dies, its
    jobs die with it (Linux).

    Args:
        jobs: with prepared folders.
        n_jobs: processes at a time, at least 1; each takes its share of the cores and, of several GPUs, its own.
        fail_fast: stop all others at the first job that fails now.
        retry_failed: run those again that failed before; without it they are left as they are.
        command: folder to the command line of its job.
        view: is told what happens.
        grace: seconds that a job has to stop.
        patience: seconds that a job of an earlier, killed launcher has to die and let go of its folder.

    Returns:
        One outcome for each job, in order.
    """
    view = view or View()
    outcomes: dict[Path, Outcome] = {}

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.job.folder] = outcome
        view.ended(outcome)

    waiting = deque(left_to_run(jobs, retry_failed, ended))
    gpus = visible_gpus() if n_jobs > 1 and any(not job.cpu for job in waiting) else []
    places: list[Running] = []
    failed = False
    deadline = time.monotonic() + patience
    with terminate_as_interrupt():
        try:
            while waiting or places:
                for running in [each for each in places if each.process.poll() is not None]:
                    places.remove(running)
                    outcome = _outcome(running)
                    ended(outcome)
                    failed |= outcome.status == "failed"
                if failed and fail_fast:
                    break
                while waiting and len(places) < n_jobs:
                    ready, blocked = ready_jobs(waiting, [each.job for each in places], outcomes.values())
                    for outcome in blocked:
                        waiting.remove(outcome.job)
                        ended(outcome)
                        failed = True
                    if not ready or (failed and fail_fast):  # they start from runs that are at work
                        break
                    job = ready[0]
                    waiting.remove(job)
                    if not _is_free(job, deadline):  # its console is the other process's
                        said = f"{RunFolder(job.folder).in_use}; the same command goes on when that has ended"
                        ended(Outcome(job, "failed", reason=said))
                        failed = True
                        break
                    own = [] if job.cpu else share_gpus(gpus, [each.gpus for each in places], job.devices)
                    try:
                        places.append(_start(job, command, job_environment(job.devices, n_jobs, own), own))
                    except UnwritableError as error:
                        ended(Outcome(job, "failed", reason=str(error)))
                        failed = True
                        break
                    view.started(places[-1])
                view.tick(places)
                if places:
                    time.sleep(_POLL)
        finally:
            _stop(places, grace)
    for running in places:
        ended(Outcome(running.job, "stopped", time.monotonic() - running.started, "stopped by fail_fast"))
    for job in waiting:
        ended(Outcome(job, "stopped", reason="not started: fail_fast"))
    return [outcomes[job.folder] for job in jobs]


def ready_jobs(
    waiting: Collection[Job], running: Collection[Job], ended: Collection[Outcome]
) -> tuple[list[Job], list[Outcome]]:
    """Return which waiting jobs can start, and what comes of those that start from a run without a result.

    Args:
        waiting: jobs that have not started.
        running: those that are at work.
        ended: the outcomes of all others. A run that is none of these is no job of this sweep: whoever starts from it
            finds out how it stands.
    """
    outcomes = {outcome.job.folder: outcome for outcome in ended}
    ahead = {job.folder for job in (*waiting, *running)}
    ready, blocked = [], []

    def without_result(folder: Path | None) -> Outcome | None:
        outcome = outcomes.get(folder) if folder else None
        return None if outcome is None or outcome.status in ("done", "before") else outcome

    for job in waiting:
        source = outcomes.get(job.after) if job.after else None
        if source is not None and without_result(job.after):
            said = (
                f"it starts from {job.source}, which {'has ' if source.status != 'stopped' else 'was '}{source.status}"
            )
            if without_result(source.job.after) is None:  # otherwise its own line says what it waited for
                said = f"{said}: {source.reason}"
            blocked.append(Outcome(job, "failed", reason=said))
        elif source is not None or job.after is None or job.after not in ahead:
            ready.append(job)
    return ready, blocked


def left_to_run(jobs: Sequence[Job], retry_failed: bool, ended: Callable[[Outcome], None]) -> list[Job]:
    """Return the jobs that need a process, and tell ``ended`` what came of the others."""
    left = []
    for job in jobs:
        before = outcome_before(job, retry_failed)
        if before is None:
            left.append(job)
        else:
            ended(before)
    return left


def outcome_before(job: Job, retry_failed: bool) -> Outcome | None:
    """Return the outcome of a job that needs no process, None for one that does."""
    if job.damaged:
        return Outcome(job, "failed", reason=job.damaged)
    try:
        record = RunFolder(job.folder).record() or Record()
    except DamagedRunError as error:  # not ours to overwrite; the others can run
        return Outcome(job, "failed", reason=str(error))
    reason = one_line(record.error or "")
    if record.status == "done":
        return Outcome(job, "before", reason=record.code_remark())
    if record.status == "diverged":  # deterministic: it would again
        remark = record.code_remark()
        again = f"{remark}: rerun=changed" if remark else "rerun=true"
        return Outcome(job, "diverged", reason=f"{reason} (before; {again} runs it again)")
    if record.status == "failed" and not retry_failed:
        reason = f"failed before: {reason or 'without a reason'}; retry_failed=true tries again"
        return Outcome(job, "failed", reason=reason)
    try:
        check_writable(job.folder)
    except UnwritableError as error:
        return Outcome(job, "failed", reason=str(error))
    return None


def needs_process(job: Job, retry_failed: bool, rerun: Rerun) -> bool:
    """Whether a job that is about to be prepared will need a process."""
    with contextlib.suppress(DamagedRunError):
        if RunFolder(job.folder).runs_again(rerun):
            return True
    return outcome_before(job, retry_failed) is None


def _is_free(job: Job, deadline: float) -> bool:
    """Return whether nobody holds the job's folder; a job whose launcher was killed has a moment to die."""
    folder = RunFolder(job.folder)
    while folder.locked():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _start(job: Job, command: Command, environment: dict[str, str], gpus: Sequence[str]) -> Running:
    try:
        earlier = (job.folder / "progress.json").stat().st_mtime_ns
    except OSError:
        earlier = 0
    with writing(job.console):
        console = job.console.open("ab")  # what an interrupted run printed stays
    with console:
        process = subprocess.Popen(
            command(job.folder),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the launcher only; a job and its ranks can be signalled as one
            preexec_fn=die_with_parent(os.getpid()),
        )
    return Running(job, process, time.monotonic(), gpus, earlier)


def _outcome(running: Running) -> Outcome:
    _signal_group(running, signal.SIGKILL)  # ranks that outlived a killed job
    job, code = running.job, running.process.returncode
    seconds = time.monotonic() - running.started
    try:
        record = RunFolder(job.folder).record() or Record()
    except DamagedRunError as error:
        return Outcome(job, "failed", seconds, str(error))
    if code == 0 and record.status == "done":
        return Outcome(job, "done", seconds)
    if code == DIVERGED or record.status == "diverged":
        return Outcome(job, "diverged", seconds, one_line(record.error or "the loss is no longer finite"))
    if code == INTERRUPTED:
        return Outcome(job, "failed", seconds, "a process of it was killed, or hung; the same command goes on")
    if code < 0:
        name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return Outcome(job, "failed", seconds, f"its process was killed by {name}{hint}; the same command goes on")
    reason = record.error if record.status == "failed" else last_line(job.console).removeprefix("indexnet: ")
    return Outcome(job, "failed", seconds, one_line(reason or f"exit code {code}"))


def one_line(text: str) -> str:
    """Return a text as one line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def last_line(path: Path) -> str:
    """Return the last line of a file that is not empty; "" where there is none."""
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
