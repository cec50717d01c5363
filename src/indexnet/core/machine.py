"""What this machine is, and what it and this process have of memory; figures in bytes where no unit is named."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import resource  # now: where files have run out, nothing can be imported any more

if TYPE_CHECKING:
    import torch


def available_memory() -> int:
    """Return the bytes that this process can still take: of the machine, or of its control group if that has less."""
    found = [_proc("meminfo", "MemAvailable") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            stat = dict(line.split() for line in (folder / limit).with_name("memory.stat").read_text().splitlines())
            taken = int((folder / used).read_text()) - int(stat.get(cached, 0))  # cached files give way
            found.append(int((folder / limit).read_text()) - taken)
        except (OSError, ValueError):  # no such version of control groups, or "max": no limit
            continue
    return max(0, min(found))


def _proc(file: str, key: str) -> int | None:
    """Return a line of a file in ``/proc``; None where there is none, as on other systems than Linux."""
    try:
        lines = Path("/proc", file).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def resident_memory() -> int:
    """Return what this process holds now; where that cannot be told, the most that it ever held."""
    return _proc("self/status", "VmRSS") or peak_memory()


def peak_memory() -> int:
    """Return the most that this process held since :func:`reset_peak_memory`, or ever."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _proc("self/status", "VmHWM") or most


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak of this process: allocated device memory on CUDA, resident memory on the CPU, in MiB."""
    import torch

    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()) / 2**20


def release_memory() -> None:
    """Return to the system what the allocator keeps of freed memory, where it can be told to."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):  # another C library
            return


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees for what it asks for next, where the C library is glibc.

    A training step frees hundreds of megabytes and the next asks for as many. By default large blocks go back to the
    system at once, and each page of a new one costs a fault: 8 to 10 % of a step's time were measured. No number that
    is computed depends on it. It is for training: predicting in tiles held 23 % more at its peak, in the same time.

    Returns:
        Whether it does now; False with another C library, and where a person has chosen: ``INDEXNET_KEEP_MEMORY=0``, or
        settings of the allocator in the environment.
    """
    chosen = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")
    if os.environ.get("INDEXNET_KEEP_MEMORY") == "0" or any(map(os.environ.get, chosen)):
        return False
    try:
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):  # another system or C library
        return False
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: either alone ends the library's own adapting of both
    # older versions take no more than 32 MiB for the second
    return bool(mallopt(trim, 2**31 - 1)) and bool(mallopt(mmap, 2**30) or mallopt(mmap, 2**25))


def reset_peak_memory() -> bool:
    """Let :func:`peak_memory` start again from what is held now.

    Returns:
        False where that is not possible (only Linux can): the peak stays that of the whole process.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def memory_of(step: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes that a step takes at its peak above what is held before; None where that cannot be told.

    On the CPU that is resident memory, of which some 20 MB are the kernels' own at any size, on CUDA what is allocated.
    A step that has run before says more: the first one loads kernels and fills caches.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    release_memory()
    known, before = device.type == "cpu" and reset_peak_memory(), resident_memory()
    step()
    return max(0, peak_memory() - before) if known else None


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


_NO_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
_NO_ROOM = re.compile(
    r"unable to (allocate|open|mmap|resize) .*shared memory|out of shared memory|killed by signal: Bus error"
)


def limit_reached(error: BaseException) -> str:
    """Return the sentence about what this machine gives too little of, ``""`` where an error means something else.

    That is open files, or the shared memory through which loader processes hand over what they have read. Errors of
    other processes are told by their text, those that come of such an error by what they come of.
    """
    text = str(error)
    if _NO_FILES.search(text):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"no more files can be open at a time (`ulimit -n` is {limit}); allow more, `ulimit -n 1024` for example."
        )
    if _NO_ROOM.search(text):
        try:
            room = shutil.disk_usage("/dev/shm").total // 2**20
        except OSError:
            room = 0
        return (
            f"/dev/shm has no room for what loader processes read (it has {room} MiB); give it more (`docker run "
            "--shm-size=2g`), or trainer.num_workers=0."
        )
    before = error.__cause__ or error.__context__
    return limit_reached(before) if before is not None else ""


def mismatched_wheels(error: BaseException) -> str:
    """Return the sentence about a torchvision that was not made for this torch, ``""`` where an error means another.

    timm, torchmetrics and Lightning import torchvision, which fails where its compiled operators cannot be loaded.
    """
    if "operator torchvision::" in str(error):
        torch, torchvision = (importlib.metadata.version(name) for name in ("torch", "torchvision"))
        return (
            f"torchvision {torchvision} does not match torch {torch}, and cannot be imported; install versions that "
            "were made for each other, both from one index."
        )
    before = error.__cause__ or error.__context__
    return mismatched_wheels(before) if before is not None else ""


def device_name(device: torch.device) -> str:
    """Return what a person calls the device, with the threads or memory that matter."""
    import torch

    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    threads = torch.get_num_threads()
    return f"{_cpu_model()} ({threads} thread{'' if threads == 1 else 's'})"


def cpu_has_bfloat16(path: str = "/proc/cpuinfo") -> bool | None:
    """Whether this processor computes in bfloat16 by itself, on x86 or ARM; None where the system does not say.

    Args:
        path: of what Linux says of its processors.
    """
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else not {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}.isdisjoint(flags)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return a function that makes the process that calls it die with ``parent``, or None where there is no such way.

    The kernel sends the signal, so it also works where the parent is killed. It holds for direct children only: a rank
    that another process of the run starts asks for itself.
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
