"""Processes of runs: their environment, their GPUs, and that none outlives the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

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


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return a function that makes the process that calls it die with ``parent``, or None where there is no such way.

    The kernel sends the signal, so it also works where the parent is killed. It holds for direct children only: a rank
    that Lightning starts has to ask for itself, see :func:`follow`.
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
