"""Runs that are killed at any moment go on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from indexnet.run import checkpoints
from indexnet.run.job import run_job
from indexnet.run.processes import INTERRUPTED
from indexnet.run.resume import read_checkpoint
from indexnet.tasks.base import Task
from resume_support import die_at, ended_as, forks, result_of, start
from run_support import (
    DENOISING,
    MATTING,
    RECONSTRUCTION,
    alive,
    children,
    losses,
    prepare_run,
    same,
    wait_until,
    weights,
)


def _to_checkpoint(source, target=""):
    return Path(target).suffix == ".ckpt"


MOMENTS = {
    "the first checkpoint is written, not renamed": die_at(os, "replace", 1, _to_checkpoint),
    "the third is written, nothing renamed": die_at(os, "replace", 4, _to_checkpoint),
    "the second has become the previous one, the third is not the last one yet": die_at(
        os, "replace", 4, _to_checkpoint, after=True
    ),
    "the second is the last one": die_at(os, "replace", 3, _to_checkpoint, after=True),
    "the third step after the first checkpoint": die_at(Task, "training_step", 5),
    "a part of the second is on the disk": die_at(
        os, "fsync", 2, lambda handle: ".ckpt." in os.readlink(f"/proc/self/fd/{handle}")
    ),
    "the test images": die_at(Task, "test_step", 1, after=True),
    "per_image.csv is written, not renamed": die_at(
        os, "replace", 1, lambda source, target: Path(target).name == "per_image.csv"
    ),
    "all is done but the record": die_at(os, "replace", 2, lambda source, target: Path(target).name == "record.json"),
}

QUICK = ["the first checkpoint is written, not renamed",
         "the second has become the previous one, the third is not the last one yet",
         "the test images", "all is done but the record"]  # fmt: skip


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    "moment",
    [name if name in QUICK else pytest.param(name, marks=[pytest.mark.long, pytest.mark.nightly]) for name in MOMENTS],
)
def test_killed_when(moment, undisturbed, tmp_path):
    words, whole = undisturbed
    folder = prepare_run(tmp_path, *words)
    assert result_of(start(folder, MOMENTS[moment])) == -signal.SIGKILL
    assert folder.status() == "running"
    assert not folder.locked()
    if (folder.path / "checkpoints").is_dir():
        found = [read_checkpoint(path) for path in (folder.checkpoint(), folder.previous_checkpoint())]
        assert any(found) == (moment not in list(MOMENTS)[:1])
    assert run_job(folder.path) == 0
    ended_as(whole, folder)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_checkpoint_appears_after_the_row_of_its_step(accumulate, tmp_path, monkeypatch):
    words = [*RECONSTRUCTION, "resampling=nearest", "trainer.checkpoint_every=2",
             f"trainer.accumulate_grad_batches={accumulate}"]  # fmt: skip
    folder, plain, seen = prepare_run(tmp_path, *words), checkpoints.write_checkpoint, []

    def write(path, *more):
        plain(path, *more)
        seen.append((read_checkpoint(path)["global_step"], len(losses(folder))))

    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    assert run_job(folder.path) == 0
    assert seen == [(2, 2), (4, 4), (6, 6)]


@forks
@pytest.mark.long
@pytest.mark.parametrize(("words", "seed"), [
    # dropout and augmentation, a rate that drops twice, two batches a step
    ([*MATTING, "training.steps=12", "training.epochs=3", "schedule.milestones=[1,2]",
      "trainer.accumulate_grad_batches=2", "data.test_count=4"], 0),
    # noise that follows from the step, loader processes
    ([*DENOISING, "training.steps=40", "trainer.num_workers=2"], 1),
    # validation, an average of the weights, early stopping that never comes to it
    ([*DENOISING, "training.steps=40", "training.validate_every=4", "training.holdout=0.3",
      "trainer.accumulate_grad_batches=2", "callbacks=[ema,early_stopping,lr_monitor]",
      "callbacks.early_stopping.patience=50"], 2),
])  # fmt: skip
def test_killed_at_random_moments(words, seed, tmp_path):
    words = [*words, "trainer.checkpoint_every=3"]
    whole = prepare_run(tmp_path / "whole", *words)
    begun = time.monotonic()
    assert result_of(start(whole)) == 0
    took = time.monotonic() - begun
    moments, kills, tries = random.Random(seed), 0, 0
    while not kills:  # a machine may be faster than it was; then kills come earlier
        tries += 1
        folder = prepare_run(tmp_path / f"cut{tries}", *words)
        for _ in range(6):
            pid = start(folder)
            time.sleep(moments.uniform(0.2, 0.8) * took / tries)
            os.kill(pid, signal.SIGKILL)
            kills += result_of(pid) == -signal.SIGKILL
            if folder.status() == "done":
                break
    assert run_job(folder.path) == 0
    ended_as(whole, folder)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_loader_process_is_no_failure(tmp_path):
    words = [*RECONSTRUCTION, "resampling=nearest", "training.steps=16", "trainer.num_workers=2"]
    whole, folder = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert run_job(whole.path) == 0

    def kill_a_worker():
        plain = Task.training_step

        def step(self, batch, index):
            if index == 3:
                os.kill(children(os.getpid())[0], signal.SIGKILL)
                time.sleep(0.5)
            return plain(self, batch, index)

        Task.training_step = step

    assert result_of(start(folder, kill_a_worker)) == INTERRUPTED
    assert folder.status() == "running"
    assert run_job(folder.path) == 0
    ended_as(whole, folder)


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_run_leaves_neither_lock_nor_loader_process(tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "resampling=nearest", "training.steps=5000",
                         "trainer.num_workers=2")  # fmt: skip
    pid = start(folder)
    assert wait_until((folder.path / "progress.json").exists, 60)
    workers = children(pid)
    assert len(workers) == 2
    os.kill(pid, signal.SIGKILL)
    assert result_of(pid) == -signal.SIGKILL
    assert not folder.locked()  # at once
    assert wait_until(lambda: not any(map(alive, workers)))


@forks
@pytest.mark.parametrize("moment", ["the first checkpoint is written, not renamed", "the test images"])
def test_a_run_of_no_steps_is_killed_before_it_is_measured(moment, undisturbed, tmp_path):
    words, source = undisturbed
    words = [*words, "training.steps=0", f"ckpt_path={source.checkpoint()}", "logger=none"]
    whole, folder = prepare_run(tmp_path / "whole", *words), prepare_run(tmp_path / "cut", *words)
    assert run_job(whole.path) == 0
    assert result_of(start(folder, MOMENTS[moment])) == -signal.SIGKILL
    assert folder.status() == "running"
    assert run_job(folder.path) == 0
    assert same(weights(source), weights(folder))
    expected, found = whole.record(), folder.record()
    assert expected.metrics == found.metrics
    assert expected.initial == found.initial
    assert found.initial
    assert (whole.path / "per_image.csv").read_bytes() == (folder.path / "per_image.csv").read_bytes()
    assert {key for key, value in vars(expected).items() if value is None} == {
        key for key, value in vars(found).items() if value is None
    }
