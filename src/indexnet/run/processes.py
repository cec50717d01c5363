"""Processes of runs: their environment, their GPUs, and that none outlives the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from indexnet.core.machine import cores, die_with_parent

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


def run_job_process(folder: Path) -> int:
    """Run a frozen configuration in a process of its own, on this terminal, that ends with this one."""
    from indexnet.core.machine import die_with_parent

    command = [sys.executable, "-m", "indexnet", "job", str(folder)]
    return subprocess.run(command, check=False, preexec_fn=die_with_parent(os.getpid())).returncode
