"""Sweeps on a cluster: prepared run folders submitted to SLURM, one task per device. Knows nothing of Hydra.

A cluster's job gets the path of a run folder and nothing else. The ranks of a run are the tasks that SLURM starts for
it; Lightning finds them in SLURM's variables. Jobs live in the queue on their own: who waits for them may be stopped,
and the same command waits for them again.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from submitit import SlurmJob
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable

from indexnet.core.annotations import fits
from indexnet.core.console import tell, warn
from indexnet.core.errors import UserError
from indexnet.core.files import write_json, writing
from indexnet.core.readers import DamagedFileError, read_json, read_mapping
from indexnet.run.folder import RunFolder
from indexnet.run.job import run_job
from indexnet.run.processes import run_job_process, terminate_as_interrupt
from indexnet.sweep.launch import run_sweep
from indexnet.sweep.pool import Job, Outcome, Running, View, last_line, left_to_run, one_line, ready_jobs
from indexnet.sweep.slurm_settings import Cluster, create_executor, job_parameters

_SUBMITTED = "submitted.json"
_POLL = 1.0
_QUEUE_EVERY = 30.0


@dataclass(frozen=True)
class ClusterJob(Checkpointable):
    """What the cluster calls in every task of a job. Submitit pickles it: this class by name, and the folder.

    A job that is queued again, because its time was up, is the same one.

    Attributes:
        folder: the prepared run folder, absolute.
    """

    folder: str

    def __call__(self) -> int:
        """Run the folder, or this task's rank of it; return the exit code of ``indexnet job``."""
        folder = RunFolder(Path(self.folder))
        under_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        os.register_at_fork(after_in_child=_ignore_requests)  # or loader processes would queue the job again as well
        if not under_slurm or os.environ.get("SLURM_PROCID", "0") == "0":
            _print_to(folder.path / "console.log")
        try:
            if folder.status() in ("done", "diverged"):  # queued again by the cluster after its end
                return 0
            if under_slurm:
                return run_job(folder.path)
            return run_job_process(folder.path)  # whose command Lightning can repeat for the other ranks
        except UserError as error:
            print(f"indexnet: {error}", file=sys.stderr, flush=True)
            return 2
        except KeyboardInterrupt as error:  # what a run makes of being told to stop
            print("indexnet: interrupted; goes on from its last checkpoint.", file=sys.stderr, flush=True)
            raise SystemExit(1) from error


def _ignore_requests() -> None:
    with contextlib.suppress(ValueError):  # forked by a thread: Python lets only the main one
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _print_to(path: Path) -> None:
    """Send all that this process prints to a file, behind what an interrupted try printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    with writing(path), path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def run_on_cluster(
    cluster: Cluster,
    settings: Mapping[str, Any],
    configs: Sequence[Mapping[str, Any]],
    titles: Sequence[str],
    **options: Any,
) -> list[Outcome]:
    """Prepare frozen configurations, submit those that have no result, wait, and say what came of them.

    Args:
        cluster: ``slurm``, or ``local`` for submitit's own processes on this machine.
        settings: of hydra-submitit-launcher.
        configs: one for each job.
        titles: what tells the jobs apart.
        **options: those of :func:`indexnet.sweep.launch.run_sweep`.

    Returns:
        One outcome for each job, in order.

    Raises:
        UserError: settings, folders, W&B or the cluster do not work out, or another sweep is at work in these folders.
    """
    parameters = job_parameters(cluster, settings, configs)

    def get_launch() -> Callable[..., list[Outcome]]:
        executor = create_executor(cluster, settings, parameters, Path(configs[0]["paths"]["runs"]))
        name = settings.get("name") or "indexnet"
        return functools.partial(submit, executor=executor, cluster=cluster, name=name)

    n_jobs = len(configs) if cluster == "slurm" else 1
    return run_sweep(configs, titles, n_jobs=n_jobs, get_launch=get_launch, **options)


def submit(
    jobs: Sequence[Job],
    executor: Any,
    cluster: Cluster,
    *,
    n_jobs: int,
    name: str = "indexnet",
    fail_fast: bool = False,
    retry_failed: bool = False,
    view: View | None = None,
    poll: float = _POLL,
    queue_every: float = _QUEUE_EVERY,
) -> list[Outcome]:
    """Submit jobs and wait until they have ended; finished ones are not submitted, queued ones not again.

    Ctrl-C and SIGTERM end the waiting: jobs of SLURM stay in its queue, those of this machine are stopped.

    Args:
        jobs: with prepared folders.
        executor: submitit's.
        cluster: ``slurm`` or ``local``.
        n_jobs: jobs submitted before one has ended.
        name: of the jobs in the queue, in front of what tells one submission from the next.
        fail_fast: cancel all others at the first job that fails.
        retry_failed: run those again that failed before.
        view: is told what happens.
        poll: seconds between two looks at the folders.
        queue_every: seconds between two questions to SLURM.

    Returns:
        One outcome for each job, in order.
    """
    view = view or View()
    outcomes: dict[Path, Outcome] = {}
    handles: dict[Path, Any] = {}
    running: dict[Path, Running] = {}

    def ended(outcome: Outcome) -> None:
        folder = outcome.job.folder
        outcomes[folder] = outcome
        if handles.pop(folder, None) is not None:
            (folder / _SUBMITTED).unlink(missing_ok=True)
        running.pop(folder, None)
        view.ended(outcome)

    waiting = left_to_run(jobs, retry_failed, ended)
    begun = time.monotonic()
    queue = _Queue(queue_every)
    failed = False
    with terminate_as_interrupt():
        try:
            if cluster == "slurm":
                handles.update(_still_queued(waiting, queue))
                if handles:
                    tell(f"{len(handles)} of these runs are in the queue already.")
            todo = [job for job in waiting if job.folder not in handles]
            while todo or handles:
                # what starts from a run in the queue is submitted once that has ended: only then is it known to be done
                ready, blocked = ready_jobs(todo, [job for job in waiting if job.folder in handles], outcomes.values())
                for blocked_outcome in blocked:
                    todo.remove(blocked_outcome.job)
                    ended(blocked_outcome)
                    failed = True
                if failed and fail_fast:
                    break
                if room := min(n_jobs - len(handles), len(ready)):
                    handles.update(_submit(ready[:room], executor, cluster, name))
                    queue.forget()
                    todo = [job for job in todo if job not in ready[:room]]
                for job in [job for job in waiting if job.folder in handles]:
                    handle = handles[job.folder]
                    if job.folder not in running and handle.task(0).paths.stdout.exists():
                        running[job.folder] = Running(job, cast(Any, None), time.monotonic())  # not of this machine
                        view.started(running[job.folder])
                    if handle.done() if cluster == "local" else _has_ended(handle, queue):
                        begin = running[job.folder].started if job.folder in running else begun
                        outcome = _outcome(job, handle, time.monotonic() - begin)
                        ended(outcome)
                        failed |= outcome.status == "failed"
                if failed and fail_fast:
                    break
                view.tick(list(running.values()))
                if handles:
                    time.sleep(poll)
        except KeyboardInterrupt:
            if cluster == "slurm" and handles:
                names = " ".join(sorted({handle.job_id.partition("_")[0] for handle in handles.values()}))
                later = f"; {len(todo)} that start from them are submitted by that command" if todo else ""
                tell(
                    f"{len(handles)} runs stay in the queue, and the same command waits for them again{later}; "
                    f"scancel {names} stops them."
                )
            raise
        finally:
            if cluster == "local" or (failed and fail_fast):
                _cancel(handles.values())
    for job in waiting:
        if job.folder not in outcomes:
            ended(Outcome(job, "stopped", reason="stopped by fail_fast"))
    return [outcomes[job.folder] for job in jobs]


def _submit(jobs: Sequence[Job], executor: Any, cluster: Cluster, name: str) -> dict[Path, Any]:
    """Submit jobs, several as one array, and note in their folders what they are called in the queue.

    The name of the submission, which nothing else has, is noted before: should this process be killed before it knows
    the numbers, the jobs are found by that name.

    Raises:
        UserError: the cluster refuses them.
    """
    if cluster == "slurm":
        name = f"{name}-{secrets.token_hex(4)}"
        executor.update_parameters(name=name)
        for index, job in enumerate(jobs):
            element = index if len(jobs) > 1 else None  # one job is no array
            write_json(job.folder / _SUBMITTED, {"name": name, "element": element, "folder": str(executor.folder)})
    try:
        with executor.batch():
            handles = [executor.submit(ClusterJob(str(job.folder))) for job in jobs]
    except (OSError, FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
        for job in jobs:
            (job.folder / _SUBMITTED).unlink(missing_ok=True)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no reason")
        raise UserError(f"the cluster takes no job ({said}); see hydra.launcher and docs/cluster.md.") from error
    found = {job.folder: handle for job, handle in zip(jobs, handles, strict=True)}
    if cluster == "slurm":
        for folder, handle in found.items():
            write_json(folder / _SUBMITTED, {"job": handle.job_id, "folder": str(executor.folder)})
    return found


def _still_queued(jobs: Sequence[Job], queue: _Queue) -> dict[Path, Any]:
    """Return the jobs that an earlier command submitted and SLURM still has."""
    found: dict[Path, Any] = {}
    for job in jobs:
        file = job.folder / _SUBMITTED
        try:
            noted = read_mapping(file, read_json)
            if not all(fits(noted.get(key), hint) for key, hint in _NOTED.items()):
                raise DamagedFileError(f"{file} is no note of a submission.")
        except FileNotFoundError:
            continue
        except DamagedFileError as error:  # its lock keeps two from being at work
            warn(f"indexnet: {error} Whether this run is in the queue already is not known; it is submitted.")
            continue
        if (number := queue.find(**{key: noted.get(key) for key in ("job", "name", "element")})) is not None:
            found[job.folder] = SlurmJob(noted["folder"], number)
    return found


_NOTED: dict[str, Any] = {"folder": str, "job": str | None, "name": str | None, "element": int | None}


class _Queue:
    """The jobs in SLURM's queue, asked for at most every so often; does without accounting, which not all have.

    Args:
        every: seconds between two questions.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.snapshots: list[dict[str, str]] = []
        self._asked = -float("inf")

    def _refresh(self) -> None:
        if time.monotonic() - self._asked < self.every:
            return
        command = ["squeue", "--noheader", "--array", "--format=%i %j", f"--user={getpass.getuser()}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            lines = (line.strip().partition(" ") for line in done.stdout.splitlines())
            self.snapshots = [*self.snapshots, {number: name.strip() for number, _, name in lines if number}][-2:]
        except (OSError, subprocess.SubprocessError):
            self.snapshots = []  # not known; ask again
        self._asked = time.monotonic()

    def find(self, job: str | None, name: str | None, element: int | None) -> str | None:
        """Return the number of a job, None where the queue did not have it when it was last asked.

        Args:
            job: its number, None where only the rest is known.
            name: of its submission.
            element: of the submission's array, None where it is no array.
        """
        self._refresh()
        queued = self.snapshots[-1] if self.snapshots else {}
        if job is not None:
            return job if job in queued else None
        numbers = [number for number, called in queued.items() if called == name]
        if element is not None:
            numbers = [number for number in numbers if number.rpartition("_")[2] == str(element)]
        return numbers[0] if len(numbers) == 1 else None

    def forget(self) -> None:
        """Forget what the queue said: it did not know yet of a job that has just been submitted."""
        self.snapshots = []

    def lost(self, job: str) -> bool:
        """Return whether a job was missing twice: files of one that has just ended may need a moment to be seen."""
        self._refresh()
        return len(self.snapshots) == 2 and not any(job in queued for queued in self.snapshots)


def _has_ended(handle: Any, queue: _Queue) -> bool:
    return bool(handle.task(0).paths.result_pickle.exists()) or queue.lost(handle.job_id)


def _outcome(job: Job, handle: Any, seconds: float) -> Outcome:
    """Read from a job's folder how it ended."""
    try:
        record = RunFolder(job.folder).record()
    except UserError as error:
        return Outcome(job, "failed", seconds, str(error))
    if record is not None and record.status != "running":
        return Outcome(job, record.status, seconds, one_line(record.error or ""))
    if record is not None:
        said = f"cluster job {handle.job_id} ended before its run{_state(handle)}; the same command goes on"
        return Outcome(job, "failed", seconds, said)
    said = last_line(job.console) or last_line(handle.task(0).paths.stderr)
    said = said or f"cluster job {handle.job_id} left no trace{_state(handle)}"
    return Outcome(job, "failed", seconds, one_line(said))


def _state(handle: Any) -> str:
    """Return what SLURM's accounting calls the end of a job, in brackets; empty where it does not say."""
    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns where there is no accounting
    try:
        state = str(handle.get_info(mode="force").get("State") or "")
    except Exception:  # not worth more: the reason is the job's end itself
        state = ""
    return f" ({state})" if state else ""


def _cancel(handles: Iterable[Any]) -> None:
    handles = list(handles)
    for handle in handles:
        handle.cancel(check=False)
    deadline = time.monotonic() + 10
    while any(getattr(handle, "_process", None) and not handle.done() for handle in handles):
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
