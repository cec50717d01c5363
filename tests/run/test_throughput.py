"""The throughput that a record has of a run in several tries."""

from __future__ import annotations

import types

import pytest
import torch

from indexnet.core.readers import read_json
from indexnet.run import callbacks


class _Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return _Clock()


class _Trainer:
    """As much of a trainer as the measurement of a run looks at."""

    is_global_zero, accumulate_grad_batches, progress_bar_callback = True, 1, None
    strategy = types.SimpleNamespace(root_device=torch.device("cpu"), reduce_boolean_decision=lambda value, all: value)

    def __init__(self, start):
        self.global_step = start


def _try(progress, clock, start, begun, ends):
    """Train from a step on: when training began, and when each step ended."""
    trainer, clock.now = _Trainer(start), begun
    progress.on_train_start(trainer, None)
    for clock.now in ends:
        trainer.global_step += 1
        progress.on_train_batch_end(trainer, None, torch.tensor(1.0), None, 0)
    return progress


def test_throughput_is_that_of_all_tries(tmp_path, clock, monkeypatch):
    def progress(since=0.0):
        return callbacks.Progress(tmp_path / "progress.json", 10, 4, since, clock)

    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 700.0)
    first = _try(progress(), clock, 0, 10, [15, 16, 17, 19])
    assert first.samples_per_s == 8 / 3  # steps 3 and 4: 8 samples in 3 s
    kept = first.state_dict()
    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 500.0)
    second = progress(since=80)
    second.load_state_dict(kept)
    _try(second, clock, 4, 100, [103, 104, 105])
    assert second.samples_per_s == 12 / 4  # and step 7: 4 samples in 1 s
    assert second.peak_memory_mb(torch.device("cpu")) == 700
    assert read_json(tmp_path / "progress.json")["elapsed_s"] == 25
    assert second.state_dict()["steps"] == 7
    clock.now = 130
    second.on_test_start(_Trainer(7), None)
    second.on_test_batch_end(_Trainer(7), None, None, {"name": ["a"]}, 0)
    assert read_json(tmp_path / "progress.json") == {
        "step": 7, "steps": 10, "loss": 1.0, "eta_s": 5.0, "elapsed_s": 50.0,
    }  # fmt: skip
    third = progress(since=150)
    third.load_state_dict(second.state_dict())
    assert third.samples_per_s == 12 / 4  # only the test was left to do
    clock.now = 155
    third.on_test_start(_Trainer(7), None)
    third.on_test_batch_end(_Trainer(7), None, None, {"name": ["a"]}, 0)
    assert read_json(tmp_path / "progress.json")["elapsed_s"] == 5.0
    assert read_json(tmp_path / "progress.json")["step"] == 7


def test_throughput_of_short_tries_is_that_of_all_steps(tmp_path, clock):
    known = {}
    for _ in range(3):  # two steps each, which usually count as warming up
        progress = callbacks.Progress(tmp_path / "progress.json", 10, 4, clock=clock)
        progress.load_state_dict(known)
        known = _try(progress, clock, 0, 0, [3, 5]).state_dict()
    assert progress.samples_per_s == 24 / 15
    assert callbacks.Progress(tmp_path / "progress.json", 10, 4).samples_per_s is None


def test_a_run_without_a_bar_says_how_far_it_is(tmp_path, clock, capsys):
    progress = callbacks.Progress(tmp_path / "progress.json", 200, 4, clock=clock)
    _try(progress, clock, 0, 100, [101, 105, 110, 150, 169, 170, 300])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["step 3 of 200", "step 6 of 200", "step 7 of 200"]
    assert lines[0] == "step 3 of 200, loss 1, about 11 min left"
