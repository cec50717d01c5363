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
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from indexnet.core.beats import Beats
from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError, write_json
from indexnet.core.machine import cores, die_with_parent
from indexnet.core.readers import read_json, read_mapping

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
        gpus: those that it may use, see :func:`indexnet.core.machine.share_gpus`; empty: as in ``environ``.
        environ: default this process's.
    """
    environ = os.environ if environ is None else environ
    found = {key: value for key, value in environ.items() if key not in INHERITED}
    if "OMP_NUM_THREADS" not in found and (n_jobs > 1 or devices > 1):
        found["OMP_NUM_THREADS"] = str(max(1, cores() // (n_jobs * devices)))
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return found


def follow() -> None:
    """End this rank's process together with the one that started it, also where that one is gone already."""
    leader = os.environ.get(LEADER, "")  # absent where torchrun or a cluster started the ranks
    ask = die_with_parent(int(leader) if leader.isdigit() else os.getppid())
    if ask is not None:
        ask()


def interrupt(number: int, frame: object) -> None:
    """Take a signal as Ctrl-C."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, where this is the main thread."""
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
    r"timed out (after|waiting)|wait timeout after|ncclRemoteError",
    re.IGNORECASE,
)
_WORKER = re.compile(r"DataLoader worker .*(killed by signal: (Killed|Terminated)|exited unexpectedly)", re.DOTALL)


@dataclass(frozen=True)
class Waits:
    """How long the processes of a run wait for each other, in seconds.

    Attributes:
        poll: between two looks at the others.
        start: for all to start, in addition to what a batch may take.
        notice: for this process to notice by itself that another is gone.
        arrival: between a closed connection and the end of the process that closed it.
        farewell: for the others to end by themselves when all is done, or to write down where they hang.
        end: for this process to end once another was lost: a GPU may wait for that one.
    """

    poll: float = 0.2
    start: float = 60.0
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
        trace: the traceback of a process that failed with an error.
    """

    text: str
    kind: Literal["killed", "full", "mistake", "failed"]
    trace: str = ""


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


def write_error(folder: Path, rank: int, error: BaseException) -> bool:
    """Leave the error of a process for the first one, which records and tells it; return whether that worked."""
    kind = "full" if isinstance(error, DiskFullError) else "mistake" if isinstance(error, UserError) else "failed"
    text = f"{type(error).__name__}: {error}" if kind == "failed" else str(error)
    trace = "".join(traceback.format_exception(error)).rstrip() if kind == "failed" else ""
    with contextlib.suppress(OSError, UserError):  # a full disk has no room for this either; there is FULL
        write_json(folder / f".process{rank}.error", {"text": text, "kind": kind, "trace": trace})
        return True
    return False


HANG_LOG = "hang.log"
"""File in a run's folder: where each of its processes stood when they hung."""


class Ranks:
    """The other processes of a run on this machine.

    Args:
        folder: of the run.
        stuck: called, in another thread, with the cause where a process is lost and this one does not notice because it
            waits for that one; must end the process.
        first: whether this is the first process of the run, which other processes leave their errors for.
        waits: how long to wait.
        hang: seconds without a beat of any process after which the run counts as hung; None: never.
        beats: of its processes; default those of the folder.
    """

    def __init__(
        self,
        folder: Path,
        stuck: Callable[[Cause], None],
        first: bool = True,
        waits: Waits | None = None,
        hang: float | None = None,
        beats: Beats | None = None,
    ) -> None:
        self.folder, self.stuck, self.first, self.waits, self.hang = folder, stuck, first, waits or Waits(), hang
        self.beats = beats or Beats(folder)
        self.processes: Mapping[int, subprocess.Popen[bytes]] = {}
        self._known = threading.Event()  # that this process has noticed, or needs the others no more
        self._finished, self._lost, self._world = False, False, 1
        self._told: set[str] = set()  # what the first process says by itself
        self._environment: dict[str, str | None] = {}
        if first:
            self._forget()

    def start(self, trainer: pl.Trainer) -> None:
        """Start one process for each further device, unless something else does; watch for one that hangs."""
        devices = trainer.num_devices
        if trainer.world_size < 2 or self.processes:
            return
        self.beats.rank = trainer.global_rank
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        if devices < 2 or environment.creates_processes_externally:
            self.watch({}, trainer.world_size)
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
        cause = self._behind(error)
        self._told = {cause.text} if cause else {str(error), f"{type(error).__name__}: {error}"}
        return cause

    def _behind(self, error: BaseException) -> Cause | None:
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
            # left after its work, which loses nothing of the run, or besides an error of the first process's own
            left = self._left() if self._told or not code else None
            if left is not None and left.text not in self._told:
                print(left.trace or f"indexnet: {self.folder}: {left.text}", file=sys.stderr, flush=True)
            self._forget()
        if self._lost:
            last_resort = threading.Timer(self.waits.end, os._exit, (code,))
            last_resort.daemon = True
            last_resort.start()

    def _forget(self) -> None:
        for file in self.folder.glob(".process*.error"):
            file.unlink(missing_ok=True)
        self.beats.forget()

    def _watch(self) -> None:
        silent = 0.0
        while not self._known.wait(self.waits.poll):
            if any(process.poll() for process in self.processes.values()):
                if self._known.wait(self.waits.notice):
                    return
                self._end(self._ended() or Cause("another process of the run was lost", "killed"))
                return
            # counted, not measured: the time in which this process itself is stopped does not count
            silent = 0.0 if self.beats.look() else silent + self.waits.poll
            if self.hang is not None and silent > self.hang + (0 if self.beats.count else self.waits.start):
                self._hung(self.hang)
                return

    def _hung(self, seconds: float) -> None:
        """Write down where this process stands, and end the run: by the first process, by another where that hangs."""
        text = f"no process has come to the end of a batch for {seconds:g} s (trainer.timeout), so one of them hangs"
        file = self.folder / HANG_LOG
        with contextlib.suppress(OSError):
            stack = "".join(traceback.format_stack(sys._current_frames()[threading.main_thread().ident or 0]))
            with file.open("a", encoding="utf-8", errors="replace") as log:
                log.write(f"process {self.beats.rank} of {self._world}:\n{stack}\n")
        if self._known.wait(self.waits.farewell if self.first else self.waits.end):
            return
        if not self.first:
            print(f"indexnet: {self.folder}: process 0 hangs, see {file}", file=sys.stderr, flush=True)
            if os.environ.get(LEADER) == str(os.getppid()):  # and not who has adopted this process
                os.kill(os.getppid(), signal.SIGKILL)
        self._end(Cause(f"{text}; where each stood is in {file}", "killed"))

    def _end(self, cause: Cause) -> None:
        for process in self.processes.values():
            process.kill()
        self.beats.forget()
        self.stuck(cause)

    def _signalled(self) -> Cause | None:
        """Return which process a signal has ended."""
        for rank, process in self.processes.items():
            if (code := process.poll()) is not None and code < 0:
                name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
                crash = -code in _CRASHES
                text = f"process {rank} of {self._world} {'crashed with' if crash else 'was killed by'} {name}"
                return Cause(text, "failed" if crash else "killed")
        return None

    def _left(self) -> Cause | None:
        """Return the error that another process has left for this first one."""
        for file in sorted(self.folder.glob(".process*.error")) if self.first else ():
            with contextlib.suppress(OSError, UserError, KeyError):
                found = read_mapping(file, read_json)
                return Cause(found["text"], found["kind"], found.get("trace", ""))
        return None

    def _ended(self) -> Cause | None:
        """Return how the process that was lost first ended; those that were interrupted by its end say nothing."""
        if (cause := self._left() or self._signalled()) is not None:
            return cause
        if any(process.poll() == FULL for process in self.processes.values()):
            sentence = f"no space left on the device while writing to {self.folder}"
            return Cause(f"{sentence}; free some, then the same command goes on.", "full")
        for rank, process in self.processes.items():
            if (code := process.poll()) and code != INTERRUPTED:
                return Cause(f"process {rank} of {self._world} ended with exit code {code}", "failed")
        return None
