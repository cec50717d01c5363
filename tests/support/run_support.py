"""Tiny runs and what they left, for the tests of runs."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from indexnet.core.errors import UserError
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


class Unsynchronised(pl.Callback):
    """Lets every wait for a GPU fail from the fourth step on, but for steps that are logged and what follows them."""

    watched = 0

    def on_train_batch_start(self, trainer, module, batch, index):
        waits = index < 3 or (index + 1) % trainer.log_every_n_steps == 0
        torch.cuda.set_sync_debug_mode("default" if waits else "error")
        Unsynchronised.watched += not waits

    def on_train_end(self, trainer, module):
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer, module, exception):
        torch.cuda.set_sync_debug_mode("default")


def prepare_run(root, *overrides):
    """Create the folder of a run below ``root``."""
    return prepare(freeze(compose([*overrides, f"paths.runs={root}"])))


@contextlib.contextmanager
def refused(*texts):
    """Check that what is done is refused in one sentence that says all this."""
    with pytest.raises(UserError) as error:
        yield
    said = str(error.value)
    assert "\n" not in said
    assert [text for text in texts if text not in said] == [], said


def weights(folder):
    return torch.load(folder.checkpoint(), weights_only=True)["state_dict"]


def curve(folder):
    """The rows of everything that was logged while training."""
    with (folder.path / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(folder):
    return [(row["step"], row["train/loss"]) for row in curve(folder) if row["train/loss"]]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def command(*words):
    """What starts this program in a process of its own."""
    return [sys.executable, "-m", "indexnet", *map(str, words)]


def job_process(folder):
    """Run a folder as its own process, to its end."""
    return subprocess.run(command("job", folder.path), capture_output=True, text=True)


def children(pid: int) -> list[int]:
    """The processes that a process has started, in their order."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
