"""What only a CUDA device can show: `make test-gpu`."""

from __future__ import annotations

import pytest
import torch

from indexnet.cli import main
from indexnet.resampling import create_resampling, list_resampling
from indexnet.run.job import run_job
from run_support import job_process, prepare_run, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", [info.name for info in list_resampling()])
def test_an_operator_computes_the_same_on_the_gpu(name):
    torch.manual_seed(0)
    resampling = create_resampling(name, channels=[8]).double()
    x, d = torch.rand(2, 8, 13, 18, dtype=torch.double), torch.rand(2, 8, 7, 9, dtype=torch.double)
    results = []
    for device in ("cpu", "cuda"):
        resampling.to(device)
        stage = resampling.stages[0]
        down = stage.down(x.to(device))
        results.append([t.cpu() for t in (down.features, down.skip, stage.up(d.to(device), down.guide, down.size))])
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("task", ["matting", "reconstruction"])
def test_a_run_on_the_gpu(tmp_path, task, precision):
    overrides = [f"task={task}", f"trainer.precision={precision}", "training.steps=6", "training.batch_size=4"]
    overrides += ["training.size=64", "data.train_count=8", "data.test_count=2", "trainer.channels_last=true"]
    folder = prepare_run(tmp_path, *overrides, "trainer.accelerator=gpu")
    assert run_job(folder.path) == 0
    assert folder.record().status == "done"


def test_a_profile_on_the_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["task=reconstruction", "resampling=max_unpool", "training.steps=6", "training.batch_size=4"]
    assert main(["profile", *words, "trainer.precision=bf16-mixed", "trainer.accelerator=gpu", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "GPU idle" in said
    assert "FLOP/s" in said
    assert "aten::" not in said  # kernels


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_batch_norm_over_two_gpus_is_that_of_one(tmp_path):
    words = ["task=reconstruction", "training.steps=3", "training.batch_size=8", "data.train_count=16"]
    words += ["data.test_count=4", "resampling=bilinear", "trainer.accelerator=gpu", "optimizer.lr=0.001"]
    means = []
    for devices in (1, 2):
        folder = prepare_run(
            tmp_path / str(devices), *words, f"trainer.devices={devices}", "trainer.sync_batchnorm=true"
        )
        result = job_process(folder)
        assert result.returncode == 0, result.stderr
        means.append(next(value for key, value in weights(folder).items() if key.endswith("running_mean")))
    torch.testing.assert_close(means[0], means[1], rtol=1e-3, atol=1e-5)
