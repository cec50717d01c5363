"""Runs in a process of their own, and what a run that went on must equal."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal

import pytest
import torch

from indexnet.core.files import PART
from indexnet.run import callbacks
from indexnet.run.job import run_job
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


def die():
    """End this process as the system does that has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


def progress_that(act, hook, step):
    """The progress of a run that acts at the end of one of its hooks, at a step."""
    base = callbacks.Progress

    def hooked(self, trainer, *arguments):
        getattr(base, hook)(self, trainer, *arguments)
        if trainer.global_step == step:
            act()

    return type("Progress", (base,), {hook: hooked})


@contextlib.contextmanager
def interrupted_at_step(step):
    """Interrupt the run that is done here after a step of its training."""

    def stop():
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(callbacks, "Progress", progress_that(stop, "on_train_batch_end", step))
        yield


def die_at(module, name, when, applies=lambda *arguments: True, after=False):
    """Return a function that makes the ``when``-th call of ``module.name`` the last thing that a process does."""

    def arm():
        plain, count = getattr(module, name), 0

        def deadly(*arguments, **options):
            nonlocal count
            count += bool(applies(*arguments))
            if applies(*arguments) and count == when:
                if after:
                    plain(*arguments, **options)
                die()
            return plain(*arguments, **options)

        setattr(module, name, deadly)

    return arm


def start(folder, before=lambda: None):
    """Run a folder in a process forked from this one, which spares it the imports; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        # nobody waits for it for ever; not faulthandler's timer: armed by pytest, it hangs in a forked process
        faulthandler.register(signal.SIGALRM, file=os.dup(2), chain=True)
        signal.alarm(300)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        before()
        code = run_job(folder.path)
    finally:
        os._exit(code)


def result_of(pid):
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
