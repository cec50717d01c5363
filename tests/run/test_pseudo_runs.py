"""Runs with pseudo labels go on as if nothing had been, on one process and on two."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from indexnet.run.job import run_job
from resume_support import ended_as, forks, interrupted_at_step
from run_support import MATTING, command, job_process, losses, prepare_run, wait_until

WORDS = [*MATTING, "data.augment=af+afb+ac", "data.train_count=200", "training.steps=10", "training.batch_size=8",
         "training.size=32", "trainer.checkpoint_every=3", "seed=1"]  # fmt: skip


@pytest.mark.long
def test_an_interrupted_run_comes_to_the_same(tmp_path):
    folders = [prepare_run(tmp_path / name, *WORDS, "task.pseudo_from=4") for name in ("whole", "cut")]
    never = prepare_run(tmp_path / "never", *WORDS)
    for folder in (folders[0], never):
        assert run_job(folder.path) == 0
    early, late = (dict(losses(folder)) for folder in (folders[0], never))
    assert [key for key in early if early[key] == late[key]][:4] == list(early)[:4]  # until the first label
    assert early != late  # there are some among these 80 samples
    with interrupted_at_step(7):
        run_job(folders[1].path)
    assert folders[1].status() != "done"
    assert run_job(folders[1].path) == 0
    ended_as(*folders)


@forks
@pytest.mark.long
@pytest.mark.nightly
def test_a_killed_run_of_two_processes_comes_to_the_same(tmp_path):
    words = [*WORDS, "task.pseudo_from=2", "trainer.devices=2", "network.context=none"]
    whole, cut = (prepare_run(tmp_path / name, *words) for name in ("whole", "cut"))
    done = job_process(whole)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(command("job", cut.path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: cut.checkpoint().exists() or process.poll() is not None, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = job_process(cut)
    assert again.returncode == 0, again.stderr
    ended_as(whole, cut)
