"""Tiny runs and what they left, for the tests of runs."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch

from indexnet.run.config import compose, freeze
from indexnet.run.folder import prepare

RECONSTRUCTION = [
    "task=reconstruction",
    "network.widths=[4,8]",
    "training.steps=6",
    "training.batch_size=4",
    "data.train_count=10",
    "data.test_count=5",
    "trainer.accelerator=cpu",
    "trainer.num_workers=0",
]
MATTING = [
    "task=matting",
    "encoder.width=0.25",
    "training.steps=4",
    "training.batch_size=4",
    "training.size=64",
    "data.train_count=6",
    "data.test_count=2",
    "trainer.accelerator=cpu",
    "trainer.num_workers=0",
]


DENOISING = ["task=denoising", "network=dncnn", "network.depth=3", "network.width=4", "training.batch_size=4",
             "training.size=16", "training.steps=6", "data.train_count=16", "data.test_count=3",
             "trainer.accelerator=cpu"]  # fmt: skip


class Failing(pl.Callback):
    """Fails at the end of a validation."""

    def on_validation_end(self, trainer, module):
        raise ValueError("no room for it")


class Odd(pl.Callback):
    """Has a state that is no plain data."""

    def state_dict(self):
        return {"place": Path("x")}


class Counting(pl.Callback):
    """Counts the batches that have begun."""

    begun = 0

    def on_train_batch_start(self, trainer, module, batch, index):
        self.begun += 1

    def state_dict(self):
        return {"begun": self.begun}

    def load_state_dict(self, state_dict):
        self.begun = state_dict["begun"]


def prepare_run(root, *overrides):
    """Create the folder of a run below ``root``."""
    return prepare(freeze(compose([*overrides, f"paths.runs={root}"])))


def weights(folder):
    return torch.load(folder.checkpoint(), weights_only=True)["state_dict"]


def losses(folder):
    with (folder.path / "csv" / "metrics.csv").open() as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def job_process(folder):
    """Run a folder as its own process, to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "indexnet", "job", str(folder.path)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 20.0) -> bool:
    """Wait until a condition holds; whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
