"""What a run says before it trains, meanwhile and after it was tested, and the throughput that it records."""

from __future__ import annotations

import re
import types

import pytest
import torch

from indexnet.core.readers import read_json
from indexnet.run import callbacks
from indexnet.run.config import compose, freeze
from indexnet.run.folder import prepare
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.run.schema import read_config
from run_support import RECONSTRUCTION, prepare_run


def test_a_run_says_what_it_is_about_to_do_and_what_came_of_it(tmp_path, capsys):
    words = [*RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin", "training.steps=8", "training.size=96"]
    told = prepare_run(tmp_path, *words, "budget=smoke")
    assert run_job(told.path) == 0
    lines = capsys.readouterr().out.splitlines()
    record = told.record()
    what, data, budget, device, folder = lines[:5]
    assert what.startswith("reconstruction: network autoencoder, operator indexnet (family=hin, ")
    assert what.endswith(f"; {record.parameters:,} parameters, {record.resampling_parameters:,} of them the operator's")
    assert data == "data photos: 10 images to train, 2 to test"
    assert budget == "budget smoke: 3 of 8 steps, batch 2 of 4, size 64 of 96, 2 of 5 test images"
    assert re.fullmatch(r"device .+: precision 32-true, 1 process", device)
    assert folder == f"folder {told.path}"
    end = lines.index(f"done: {told.path}, measured on 2 images:")
    psnr = record.metrics["psnr"]
    assert lines[end + 1] == f"  psnr = {psnr:.4g} dB (higher is better)"
    assert len(lines[end + 1 :]) == len(record.metrics)
    assert any(re.fullmatch(r"  rmse = [\d.]+ \(lower is better\)", line) for line in lines)


def test_what_no_budget_cuts(tmp_path, capsys):
    words = ["training.steps=2", "trainer.accumulate_grad_batches=2", "training.validate_every=1",
             "training.holdout=0.2"]  # fmt: skip
    folder = prepare_run(tmp_path, *RECONSTRUCTION, *words, "resampling=nearest", "trainer.precision=bf16")
    assert run_job(folder.path) == 0
    said = capsys.readouterr().out
    assert "operator nearest (pooling=max); 1,425 parameters, 0 of them" in said
    assert "data photos: 8 images to train, 5 to test, 2 to validate every 1 steps" in said
    assert "budget paper: 2 steps, batch 4, size 32, 5 test images" in said
    assert "precision bf16-mixed, 1 process, 2 batches a step" in said


def test_what_a_budget_has_cut_is_kept_beside_what_was_run(tmp_path):
    config = freeze(compose([*RECONSTRUCTION, "budget=smoke", f"paths.runs={tmp_path}"]))
    assert config["uncut"] == {"training.batch_size": 4, "data.test_count": 5}
    assert read_config(config).uncut == config["uncut"]
    earlier = {key: value for key, value in config.items() if key != "uncut"}
    assert config_hash(earlier) == config_hash(config)
    assert prepare(earlier).path == prepare(config).path
    assert "uncut" not in freeze(compose(RECONSTRUCTION))


# --- throughput ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_validation_is_no_time_of_training(steps, tmp_path, clock, monkeypatch):
    """After the last step, too, and where a checkpoint is written before the next: no seconds are taken from those."""
    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 700.0)
    progress = _try(
        callbacks.Progress(tmp_path / "progress.json", 10, 4, clock=clock), clock, 0, 0, range(1, steps + 1)
    )
    trained = progress.state_dict(), progress.samples_per_s
    assert trained[1] == 4
    progress.on_validation_start(None, None)
    clock.now += 30
    trainer = _Trainer(steps)
    trainer.callback_metrics = {}
    progress.on_validation_end(trainer, None)
    assert (progress.state_dict(), progress.samples_per_s) == trained
    clock.now += 1
    trainer.global_step += 1
    progress.on_train_batch_end(trainer, None, torch.tensor(1.0), None, 0)
    assert progress.state_dict()["seconds"] == trained[0]["seconds"] + 1
    assert progress.samples_per_s == 4


def test_a_run_without_a_bar_says_how_far_it_is(tmp_path, clock, capsys):
    progress = callbacks.Progress(tmp_path / "progress.json", 200, 4, clock=clock)
    _try(progress, clock, 0, 100, [101, 105, 110, 150, 169, 170, 300])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["step 3 of 200", "step 6 of 200", "step 7 of 200"]
    assert lines[0] == "step 3 of 200, loss 1, about 11 min left"
