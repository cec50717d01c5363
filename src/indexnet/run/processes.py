"""Processes of runs: their environment, their GPUs, and that none outlives the one that started it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError, write_json
from indexnet.core.machine import cores, die_with_parent
from indexnet.core.readers import read_json

if TYPE_CHECKING:
    import pytorch_lightning as pl


LEADER = "INDEXNET_LEADER"
"""Variable that holds the process id of a run's first process, for the ranks that it starts."""

INHERITED = (
    *("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "WANDB_RUN_ID", LEADER),
)
"""Variables of an earlier run in this environment; a job that saw them would join that run."""


def job_environment(
    devices: int, n_jobs: int, gpus: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a job's process: its share of the cores, its GPUs, and nothing of an earlier run.

    Args:
        devices: processes that the job starts.
        n_jobs: jobs at a time.
        gpus: those that it may use, see :func:`share_gpus`; empty: as in ``environ``.
        environ: default this process's.
    """
    environ = os.environ if environ is None else environ
    found = {key: value for key, value in environ.items() if key not in INHERITED}
    if "OMP_NUM_THREADS" not in found and (n_jobs > 1 or devices > 1):
        found["OMP_NUM_THREADS"] = str(max(1, cores() // (n_jobs * devices)))
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return found


def share_gpus(gpus: Sequence[str], taken: Sequence[Sequence[str]], devices: int) -> list[str]:
    """Choose the GPUs of the next job: those that the fewest running jobs use, in the order of the list.

    Jobs share no GPU as long as there are enough; beyond that they spread evenly.

    Args:
        gpus: all, as ``CUDA_VISIBLE_DEVICES`` names them.
        taken: those of each running job.
        devices: how many the job needs.

    Returns:
        ``devices`` different GPUs; all of them where there are fewer.
    """
    load = {gpu: sum(gpu in own for own in taken) for gpu in gpus}
    chosen = sorted(load, key=lambda gpu: load[gpu])[:devices]  # a stable sort: ties in the order of the list
    return [gpu for gpu in load if gpu in chosen]


def visible_gpus() -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` can name here; empty on a machine without GPUs."""
    import torch

    count = torch.cuda.device_count()
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[:count] if listed else [str(index) for index in range(count)]


def follow() -> None:
    """End this rank's process together with the one that started it, also where that one is gone already."""
    leader = os.environ.get(LEADER, "")  # absent where torchrun or a cluster started the ranks
    ask = die_with_parent(int(leader) if leader.isdigit() else os.getppid())
    if ask is not None:
        ask()


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
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


_TASK = tuple(f"SLURM_{name}" for name in ("NTASKS", "NPROCS", "NTASKS_PER_NODE", "PROCID", "LOCALID", "NODEID"))
"""Variables that tell a process which of SLURM's tasks it is."""


def leave_task() -> None:
    """Remove SLURM's task variables from the environment, unless ``srun`` has started this process as one of several.

    In an allocation they are there as well, and Lightning would wait for tasks that nobody has started.
    """
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return
    for key in _TASK:
        os.environ.pop(key, None)


Command = Callable[[Path], list[str]]
"""Gives the command that runs a prepared folder."""


def job_command(folder: Path) -> list[str]:
    """Return the command that runs a prepared folder."""
    return [sys.executable, "-m", "indexnet", "job", str(folder)]


def run_job_process(folder: Path) -> int:
    """Run a frozen configuration in a process of its own, on this terminal, that ends with this one."""
    return subprocess.run(job_command(folder), check=False, preexec_fn=die_with_parent(os.getpid())).returncode


INTERRUPTED = 4
"""Exit code: a process of the run was killed; the same command goes on."""

FULL = 6
"""Exit code of a process that the first one has started: there was no room for a file."""

_CRASHES = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)
)
_CLOSED = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket (is )?closed|remote process (has )?exited|"
    r"ncclRemoteError",
    re.IGNORECASE,
)
_WORKER = re.compile(r"DataLoader worker .*(killed by signal: (Killed|Terminated)|exited unexpectedly)", re.DOTALL)


@dataclass(frozen=True)
class Waits:
    """How long the processes of a run wait for each other, in seconds.

    Attributes:
        poll: between two looks at the others.
        notice: for this process to notice by itself that another is gone.
        arrival: between a closed connection and the end of the process that closed it.
        farewell: for the others to end by themselves when all is done.
        end: for this process to end once another was lost: a GPU may wait for that one.
    """

    poll: float = 0.2
    notice: float = 5.0
    arrival: float = 3.0
    farewell: float = 2.0
    end: float = 20.0


@dataclass(frozen=True)
class Cause:
    """Why a run ended, where the error of its first process is only a consequence.

    Attributes:
        text: one sentence part: which process, and what became of it.
        kind: a process was ``killed``, so that the run can go on; the disk is ``full``, so that it can once there is
            room, and ``text`` is a sentence; ``mistake`` of a person, ``text`` is a sentence about it; or ``failed``.
    """

    text: str
    kind: Literal["killed", "full", "mistake", "failed"]


def started_here() -> bool:
    """Return whether the processes of this run were started by :class:`Ranks`, not by a cluster or ``torchrun``."""
    return LEADER in os.environ


def killed_process(error: BaseException) -> str:
    """Say what was killed where an error means that a process was, ``""`` where it means something else."""
    if _WORKER.search(str(error)):
        return "a process that loads its data was killed, as the system does when memory runs out"
    if isinstance(error, RuntimeError) and _CLOSED.search(str(error)):  # gloo's and NCCL's are told apart by text only
        return "the connection to another process was lost"
    return ""


def write_error(folder: Path, rank: int, error: BaseException) -> None:
    """Leave the error of a process for the first one, which records it."""
    kind = "full" if isinstance(error, DiskFullError) else "mistake" if isinstance(error, UserError) else "failed"
    text = f"{type(error).__name__}: {error}" if kind == "failed" else str(error)
    with contextlib.suppress(OSError, UserError):  # a full disk has no room for this either; there is FULL
        write_json(_error_file(folder, rank), {"text": text, "kind": kind})


def _error_file(folder: Path, rank: int | str) -> Path:
    return folder / f".process{rank}.error"


class Ranks:
    """The other processes of a run on this machine.

    Args:
        folder: of the run.
        stuck: called, in another thread, with the cause where a process is lost and this one does not notice because it
            waits for that one; must end the process.
        first: whether this is the first process of the run, which other processes leave their errors for.
        waits: how long to wait.
    """

    def __init__(
        self, folder: Path, stuck: Callable[[Cause], None], first: bool = True, waits: Waits | None = None
    ) -> None:
        self.folder, self.stuck, self.first, self.waits = folder, stuck, first, waits or Waits()
        self.processes: Mapping[int, subprocess.Popen[bytes]] = {}
        self._known = threading.Event()  # that this process has noticed, or needs the others no more
        self._finished = self._lost = False
        self._world = 1
        self._environment: dict[str, str | None] = {}
        if first:
            self._forget()

    def start(self, trainer: pl.Trainer) -> None:
        """Start one process for each further device, unless something else has started them."""
        devices = trainer.num_devices
        if devices < 2 or self.processes:
            return
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        if environment.creates_processes_externally:
            return
        group = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "WORLD_SIZE": str(trainer.world_size),
            LEADER: str(os.getpid()),
        }
        processes: dict[int, subprocess.Popen[bytes]] = {}
        self.processes = processes  # at once: should one fail to start, the others are ended
        for local in range(1, devices):
            rank = environment.node_rank() * devices + local
            own = {"LOCAL_RANK": str(local), "RANK": str(rank)}
            processes[rank] = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],  # this process's own command
                env={**os.environ, **group, **own},
                stdin=subprocess.DEVNULL,
            )
        group["LOCAL_RANK"] = "0"  # from here on Lightning takes them as given
        self._environment = {key: os.environ.get(key) for key in group}
        os.environ.update(group)
        self.watch(processes, trainer.world_size)

    def watch(self, processes: Mapping[int, subprocess.Popen[bytes]], world: int) -> None:
        """Watch other processes until this one has noticed a loss or needs them no more.

        Args:
            processes: by rank.
            world: processes of the run on all machines.
        """
        self.processes, self._world = processes, world
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def cause(self, error: BaseException) -> Cause | None:
        """Return what lies behind an error of this process, or None where it is an error of its own."""
        if isinstance(error, UserError):
            return None
        killed = killed_process(error)
        if _WORKER.search(str(error)):
            return Cause(killed, "killed")
        if self._finished:
            return None
        deadline = time.monotonic() + self.waits.arrival
        cause = self._signalled()
        while killed and cause is None and time.monotonic() < deadline:
            time.sleep(0.05)
            cause = self._ended()
        if cause is None and killed:
            cause = Cause(killed, "killed")
        if cause is not None:
            self._lost = True
            self._known.set()
        return cause

    def finish(self) -> None:
        """Note that the processes have met for the last time: one that is lost from here on takes nothing with it."""
        self._finished = True
        self._known.set()

    def close(self, code: int) -> None:
        """End what is still running, once everything is written.

        Args:
            code: of this process, should it not end by itself.
        """
        self._known.set()
        for process in self.processes.values():
            try:
                process.wait(0 if self._lost or code else self.waits.farewell)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for key, value in self._environment.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        if self.first:
            self._forget()
        if self._lost:
            last_resort = threading.Timer(self.waits.end, os._exit, (code,))
            last_resort.daemon = True
            last_resort.start()

    def _forget(self) -> None:
        for file in self.folder.glob(_error_file(self.folder, "*").name):
            file.unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._known.wait(self.waits.poll):
            if any(process.poll() for process in self.processes.values()):
                if self._known.wait(self.waits.notice):
                    return
                cause = self._ended() or Cause("another process of the run was lost", "killed")
                for process in self.processes.values():
                    process.kill()
                self.stuck(cause)
                return

    def _signalled(self) -> Cause | None:
        """Return which process a signal has ended."""
        for rank, process in self.processes.items():
            if (code := process.poll()) is not None and code < 0:
                name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
                crash = -code in _CRASHES
                text = f"process {rank} of {self._world} {'crashed with' if crash else 'was killed by'} {name}"
                return Cause(text, "failed" if crash else "killed")
        return None

    def _ended(self) -> Cause | None:
        """Return how the process that was lost first ended; those that were interrupted by its end say nothing."""
        for file in sorted(self.folder.glob(_error_file(self.folder, "*").name)) if self.first else ():
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                found = read_json(file)
                return Cause(found["text"], found["kind"])
        if (cause := self._signalled()) is not None:
            return cause
        if any(process.poll() == FULL for process in self.processes.values()):
            sentence = f"no space left on the device while writing to {self.folder}"
            return Cause(f"{sentence}; free some, then the same command goes on.", "full")
        for rank, process in self.processes.items():
            if (code := process.poll()) and code != INTERRUPTED:
                return Cause(f"process {rank} of {self._world} ended with exit code {code}", "failed")
        return None
