"""The processes of a sweep as Linux shows them, and how to stop one while its files are looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def standing(pid: int) -> Iterator[None]:
    """Stop a process while its files are looked at, so that it is where they say when the kill comes."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while state_of(pid) not in ("T", "Z", "") and time.monotonic() < deadline:
        time.sleep(0.001)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def job_processes(launcher: int) -> dict[Path, dict[int, int]]:
    """Return the process ids of every job below a launcher: run folder, then rank."""
    found: dict[Path, dict[int, int]] = {}
    for first in _children(launcher):
        words = _words(first, "cmdline")
        if "job" in words:
            found[Path(words[-1])] = {0: first}
            for child in _children(first):
                rank = next((word[11:] for word in _words(child, "environ") if word.startswith("LOCAL_RANK=")), None)
                if rank is not None and "job" in _words(child, "cmdline"):
                    found[Path(words[-1])][int(rank)] = child
    return found


def _proc(pid: int, file: str) -> str:
    """Return a file of a process; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    return sorted(map(int, _proc(pid, f"task/{pid}/children").split()))


def _words(pid: int, file: str) -> list[str]:
    return _proc(pid, file).rstrip("\0").split("\0")


def state_of(pid: int) -> str:
    """Return the letter of a process's state; empty where there is no such process."""
    return _proc(pid, "stat").rpartition(")")[2].strip()[:1]
