"""What a run says before it trains and after it was tested."""

from __future__ import annotations

import re

import pytest

from indexnet.run.config import compose, freeze
from indexnet.run.folder import prepare
from indexnet.run.identity import config_hash
from indexnet.run.job import run_job
from indexnet.run.schema import read_config
from run_support import RECONSTRUCTION, prepare_run


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    root = tmp_path_factory.mktemp("told")
    words = [*RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin", "training.steps=8", "training.size=96"]
    return prepare_run(root, *words, "budget=smoke")


def test_a_run_says_what_it_is_about_to_do_and_what_came_of_it(told, capsys):
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
    words = [
        "training.steps=2",
        "trainer.accumulate_grad_batches=2",
        "training.validate_every=1",
        "training.holdout=0.2",
    ]
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
