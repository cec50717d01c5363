"""Steps of a run beside those of a bare loop."""

from __future__ import annotations

import math

import pytest
import torch

from indexnet.benchmarks import train
from indexnet.benchmarks.base import BenchOptions

CASE = (
    "task=reconstruction", "resampling=max_unpool", "network.widths=[4,8]", "training.size=16", "training.batch_size=2",
    "training.steps=100", "data.train_count=8", "data.test_count=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "CASES", {"tiny": (8, CASE)})
    monkeypatch.chdir(tmp_path)


def test_a_run_and_a_bare_loop_take_the_same_steps(tmp_path):
    said = []
    (figure,) = train.figures(BenchOptions(turns=3, quick=True), said.append)
    assert said == ["train: tiny"]
    assert figure.key == "train: tiny: run / bare loop, time, 1 thread(s)"
    assert 0 < figure.reference_value < math.inf
    assert 0 < figure.value < math.inf
    assert not list(tmp_path.iterdir())


def test_losses_that_differ_are_noticed(monkeypatch):
    real = train.bare_loop

    def other(content, device):
        step = real(content, device)
        return lambda: step() + torch.tensor(1e-6)

    monkeypatch.setattr(train, "bare_loop", other)
    with pytest.raises(RuntimeError, match="differ within the first 2 steps"):
        train.figures(BenchOptions(turns=3, quick=True), lambda text: None)
