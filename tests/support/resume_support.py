"""Runs in a process of their own, and what a run that went on must equal."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import traceback

import pytest
import torch

from indexnet.core.files import PART
from indexnet.run.job import run_job
from rights_support import give_up_rights
from run_support import losses, same, weights


def ended_as(whole, folder):
    """Check that two runs have come to the same."""
    assert same(weights(whole), weights(folder))
    assert whole.record().metrics == folder.record().metrics
    assert (whole.path / "per_image.csv").read_bytes() == (folder.path / "per_image.csv").read_bytes()
    assert losses(folder) == losses(whole)
    assert all(folder.record().number(key) > 0 for key in ("train_samples_per_s", "peak_memory_mb", "wall_time_s"))
    best = ["best.ckpt"] if whole.record().best else []
    assert sorted(path.name for path in (folder.path / "checkpoints").glob("*.ckpt")) == [*best, "last.ckpt"]
    assert not list(folder.path.rglob(f".*{PART}"))


forks = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="forks, which CUDA does not bear"
)


@contextlib.contextmanager
def interrupted_at_replace(calls):
    """Interrupt what is done here when a file is to take its place for the time after so many."""
    plain, left = os.replace, calls

    def replace(*names):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        plain(*names)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        yield


def start(folder, before=lambda: None):
    """Run a folder in a process forked from this one, which spares it the imports; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        _end_where_it_hangs()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        before()
        code = run_job(folder.path)
    finally:
        os._exit(code)


def _end_where_it_hangs():
    """Let a forked process say where it hangs and end: nobody waits for it for ever."""
    faulthandler.register(signal.SIGALRM, file=os.dup(2), chain=True)  # not its timer: that hangs in a forked process
    signal.alarm(300)


def result_of(pid):
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def bound_by_permissions(check):
    """Check something in a process forked from this one that permissions bind, also where this one (root's) may all."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _end_where_it_hangs()
            give_up_rights()
            check()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    assert result_of(pid) == 0
