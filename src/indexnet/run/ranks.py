"""The further processes of a run on several devices: started, watched, and what it means when one is lost.

Lightning takes part in whatever group of processes its environment describes. This module makes that environment, as
``torchrun`` or SLURM would, because it needs to know how a process ended: one that was killed leaves the run to go on
from its last checkpoint, one that failed has an error to record, and either way this process only sees a closed
connection, or waits for ever. The launcher of torch.distributed.elastic is not used: it would put the processes into
sessions of their own, where killing the job's process group does not reach them, take over the handlers of Ctrl-C and
SIGTERM, and supervise its children only, while here the first process is one of those that train.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from indexnet.core.errors import UserError
from indexnet.core.files import DiskFullError, read_json, write_json
from indexnet.run.processes import LEADER

if TYPE_CHECKING:
    import pytorch_lightning as pl

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
            with contextlib.suppress(OSError, ValueError):
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
