"""One run, end to end: record, per-image results, checkpoint, exact resume, divergence, several processes."""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest
import torch
import yaml

from data_support import write_camvid, write_train400
from indexnet.core.errors import UserError
from indexnet.core.paths import experiments_dir
from indexnet.run.identity import config_hash
from indexnet.run.job import DIVERGED, first_record, run_job
from indexnet.run.loader import worker_count
from indexnet.run.schema import read_config
from resume_support import interrupted_at_step
from run_support import DENOISING, MATTING, RECONSTRUCTION, job_process, losses, prepare_run, refused, same, weights


def test_a_run_leaves_a_record(tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "resampling=indexnet", "resampling.family=hin")
    assert run_job(folder.path) == 0
    record = folder.record()
    assert record.status == "done"
    assert record.error is None
    assert record.steps == 6
    assert record.test_count == 5
    assert record.batch == {"global": 4, "devices": 1, "accumulate": 1, "per_device": 4, "printed": None}
    assert record.data.train.count == 10
    assert record.parameters > record.resampling_parameters > 0
    with (folder.path / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for name, value in record.metrics.items():
        assert value == pytest.approx(sum(float(row[name]) for row in rows) / 5, rel=1e-6)
    pictures = json.loads((folder.path / "pictures" / "pictures.json").read_text())
    assert {"input", "output", "error", "feature", "index"} <= {entry["kind"] for entry in pictures}
    assert all((folder.path / "pictures" / entry["file"]).is_file() for entry in pictures)
    assert (folder.path / "csv" / "metrics.csv").is_file()
    assert not (folder.path / "progress.json").exists()
    before = (folder.path / "record.json").read_bytes()
    assert run_job(folder.path) == 0  # done: returns at once
    assert (folder.path / "record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "stops", "every"),
    [
        (RECONSTRUCTION, [2, 5], 2),
        ([*DENOISING, "trainer.accumulate_grad_batches=2"], [4, 3], 2),
        pytest.param(RECONSTRUCTION, [6], 5, marks=[pytest.mark.long, pytest.mark.nightly]),
        pytest.param(
            [*RECONSTRUCTION, "trainer.accumulate_grad_batches=2"],
            [4],
            1,
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        pytest.param(
            [*RECONSTRUCTION, "trainer.accumulate_grad_batches=2"],
            [4, 3],
            2,
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        pytest.param(MATTING, [2], 1, marks=pytest.mark.long),
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, overrides, stops, every):
    whole = prepare_run(tmp_path / "whole", *overrides)
    run_job(whole.path)
    folder = prepare_run(tmp_path / "cut", *overrides, f"trainer.checkpoint_every={every}")
    for stop in stops:
        with interrupted_at_step(stop):
            run_job(folder.path)
        assert folder.status() == "running"
    assert run_job(folder.path) == 0
    assert same(weights(whole), weights(folder))
    assert whole.record().metrics == folder.record().metrics
    assert losses(whole) == losses(folder)


def test_divergence_is_a_result_not_a_failure(tmp_path, capfd):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "optimizer.lr=1e30", "schedule=constant", "resampling=bilinear")
    assert run_job(folder.path) == DIVERGED
    record = folder.record()
    assert record.status == "diverged"
    assert "step" in record.error
    assert run_job(folder.path) == DIVERGED  # deterministic: not run again
    assert "Traceback" not in capfd.readouterr().err


def test_a_mistake_is_recorded(tmp_path):
    folder = prepare_run(tmp_path, "task=reconstruction", "data=mnist", f"paths.data={tmp_path}/nowhere")
    with pytest.raises(UserError, match="nowhere"):
        run_job(folder.path)
    assert folder.record().status == "failed"
    assert "nowhere" in folder.record().error


def test_a_network_that_does_not_fit_the_task_is_refused(tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "network.in_channels=4")
    with pytest.raises(UserError, match=r"takes 4 input channels, but task=reconstruction on data=photos gives 1"):
        run_job(folder.path)


def test_too_many_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "trainer.devices=2", "trainer.accelerator=gpu")
    with pytest.raises(UserError, match=r"this machine has 1 GPU; give trainer\.devices=1"):
        run_job(folder.path)


def test_matting_trains(tmp_path):
    folder = prepare_run(tmp_path, *MATTING, "training.steps=1", "resampling.family=o2o_shared")
    assert run_job(folder.path) == 0
    metrics = folder.record().metrics
    assert set(metrics) == {"sad", "mse", "grad", "conn"}
    assert 0 < metrics["mse"] < 1


def _four_tasks(root):
    """Tiny data sets with test splits that several processes cannot share evenly."""
    write_train400(root / "train400")
    shutil.copy(root / "train400" / "BSD68" / "test001.png", root / "train400" / "BSD68" / "test003.png")
    write_camvid(root / "camvid", counts=(("train", 3), ("val", 1), ("test", 3)))
    small = ["training.batch_size=2", "training.steps=2", "trainer.accelerator=cpu", "resampling=indexnet",
             "resampling.family=hin"]  # fmt: skip
    scenes = ["data.train_count=4", "data.test_count=5", "encoder.width=0.25", "training.size=64"]
    return {
        "denoising": [*small, "data=train400", f"data.root={root / 'train400'}", "training.size=12"],
        "segmentation": [*small, "data=camvid", f"data.root={root / 'camvid'}", "encoder.name=vgg11_bn",
                         "training.size=32"],
        "depth": [*scenes, *small],
        "matting": [*scenes, *small],
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("task", "counts", "metrics"), [
    pytest.param("denoising", [2], {"bsd68/psnr", "bsd68/ssim", "set12/psnr", "set12/ssim"}, marks=pytest.mark.nightly),
    pytest.param("segmentation", [2], {"miou", "pixel_accuracy"}, marks=pytest.mark.nightly),
    pytest.param(
        "depth", [3], {"depth_rmse", "rel", "log10", "delta1", "delta2", "delta3"}, marks=pytest.mark.nightly
    ),
    ("matting", [2, 3], {"sad", "mse", "grad", "conn"}),
])  # fmt: skip
def test_the_number_of_processes_changes_no_metric(task, counts, metrics, tmp_path):
    words = [f"task={task}", *_four_tasks(tmp_path / "data")[task], "training.batch_size=6"]
    one = prepare_run(tmp_path / "one", *words)
    result = job_process(one)
    assert result.returncode == 0, result.stderr
    measured = one.record().metrics
    assert set(measured) == metrics
    for devices in counts:
        several = prepare_run(tmp_path / f"{devices}", *words, f"trainer.devices={devices}")
        trained = torch.load(one.checkpoint(), weights_only=True)
        trained["indexnet"]["config"] = several.config()
        several.checkpoint().parent.mkdir()
        torch.save(trained, several.checkpoint())  # the trained weights: only the test is left to do
        result = job_process(several)
        assert result.returncode == 0, result.stderr
        assert "training for" not in result.stdout
        record = several.record()
        assert record.metrics == pytest.approx(measured, rel=1e-12, nan_ok=False)
        assert (several.path / "per_image.csv").read_text() == (one.path / "per_image.csv").read_text()
        assert record.test_count == 3 if task == "segmentation" else 5
        assert record.batch == {
            "global": 6, "devices": devices, "accumulate": 1, "per_device": 6 // devices, "printed": None,
        }  # fmt: skip


@pytest.mark.long
def test_two_processes_train_and_test_on_two_test_sets(tmp_path):
    words = ["task=denoising", *_four_tasks(tmp_path / "data")["denoising"], "trainer.devices=2"]
    folder = prepare_run(tmp_path / "runs", *words)
    result = job_process(folder)
    assert result.returncode == 0, result.stderr
    record = folder.record()
    assert set(record.metrics) == {"bsd68/psnr", "bsd68/ssim", "set12/psnr", "set12/ssim"}
    assert record.test_count == 5
    assert record.data.test.splits["bsd68"]["count"] == 3


def test_a_network_with_the_wrong_outputs_is_refused_before_training(tmp_path):
    words = ["task=depth", "network=autoencoder", "encoder=none", "network.in_channels=3", "resampling=nearest"]
    folder = prepare_run(tmp_path, *words, "budget=smoke", "data.test_count=2")
    with pytest.raises(UserError, match=r"network=autoencoder has 3 output channels, but task=depth .* needs 1"):
        run_job(folder.path)


def test_more_processes_than_test_images_are_refused_before_training(tmp_path):
    folder = prepare_run(tmp_path, *RECONSTRUCTION, "data.test_count=1", "trainer.devices=2")
    with refused("trainer.devices x num_nodes = 2 is more than the 1 images of a test set"):
        run_job(folder.path)
    assert not folder.checkpoint().exists()


def test_outputs_that_are_not_finite_after_the_last_step_are_divergence(tmp_path):
    words = [*RECONSTRUCTION, "training.steps=1", "optimizer.lr=1e30", "schedule=constant", "resampling=nearest"]
    folder = prepare_run(tmp_path, *words)
    assert run_job(folder.path) == DIVERGED


def test_a_metric_without_anything_to_measure_is_no_number(tmp_path, monkeypatch, capsys):
    from indexnet.data.scenes.dataset import SceneSamples

    plain = SceneSamples.sample
    monkeypatch.setattr(SceneSamples, "sample", lambda self, index, rng: {
        key: value * 0 if key == "depth" else value for key, value in plain(self, index, rng).items()
    })  # fmt: skip
    words = ["task=depth", "encoder.width=0.25", "training.size=64", "budget=smoke", "resampling=nearest"]
    folder = prepare_run(tmp_path, *words, "data.test_count=1", "trainer.accelerator=cpu")
    assert run_job(folder.path) == 0
    assert folder.record().metrics["depth_rmse"] is None
    assert "depth_rmse is not measurable" in capsys.readouterr().out


def test_a_run_is_not_taken_for_one_on_other_files(tmp_path):
    for name, train in (("one", 3), ("other", 4)):
        write_train400(tmp_path / name, train=train)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    words = ["task=denoising", "network=dncnn", "network.depth=2", "network.width=2", "training.size=12",
             "training.batch_size=2", "training.steps=1", "data=train400", "trainer.accelerator=cpu"]  # fmt: skip
    folder = prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'one'}")
    assert run_job(folder.path) == 0
    assert prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'copy'}").path == folder.path
    with pytest.raises(UserError, match=r"holds a run on the files of data\.root=.*one, and data\.root=.*other has"):
        prepare_run(tmp_path / "runs", *words, f"data.root={tmp_path / 'other'}")


def test_a_damaged_file_met_by_a_worker_is_one_sentence(tmp_path):
    root = tmp_path / "data"
    write_train400(root)
    words = [word for word in DENOISING if not word.startswith("data.")]
    for file in sorted((root / "Train400").glob("*.png")):
        file.write_bytes(file.read_bytes()[:-40])
    for cache in ("true", "false"):
        folder = prepare_run(
            tmp_path / cache, *words, "training.size=12", "data=train400", f"data.root={root}",
            f"data.cache={cache}", "trainer.num_workers=1",
        )  # fmt: skip
        with refused(".png cannot be read as an image"):
            run_job(folder.path)


def test_sync_batchnorm_needs_gpus(tmp_path, monkeypatch, capsys):
    several = [*RECONSTRUCTION, "trainer.sync_batchnorm=true", "trainer.devices=2"]
    with pytest.raises(UserError, match=r"trainer\.sync_batchnorm=true works on GPUs only"):
        prepare_run(tmp_path, *several)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    folder = prepare_run(tmp_path / "auto", *several, "trainer.accelerator=auto")
    with pytest.raises(UserError, match=r"trainer\.sync_batchnorm=true works on GPUs only"):
        run_job(folder.path)
    folder = prepare_run(tmp_path / "one", *several, "trainer.devices=1")
    assert run_job(folder.path) == 0
    assert "trainer.sync_batchnorm=true does nothing on one device" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "printed", "changes"), [
    (["experiments=quickstart", "experiment.row=hin"], 32, []),
    (["experiments=quickstart", "experiment.row=hin--optimizer.lr-0.001", "training.batch_size=8",
      "optimizer.lr=0.001"], 32,
     ["global batch 8 instead of the table's 32", "optimizer.lr 0.001 instead of the table's 0.003"]),
    (["experiments=tpami/table3_matting", "experiment.row=b11", "resampling=max_unpool", "encoder.pretrained=false",
      "budget=smoke"], 16, ["global batch 2 instead of the table's 16"]),
    (["task=reconstruction", "training.batch_size=7"], None, []),
])  # fmt: skip
def test_a_record_says_what_differs_from_the_printed_protocol(words, printed, changes, tmp_path):
    config = prepare_run(tmp_path, *words).config()
    begun = first_record(read_config(config))
    assert begun.batch["printed"] == printed
    assert begun.changes == changes


@pytest.fixture
def own_table(tmp_path, monkeypatch):
    """The quickstart's file as one of a person's own, and the words that choose a row of it."""
    file = tmp_path / "own" / "experiments" / "mine.yaml"
    file.parent.mkdir(parents=True)
    text = (experiments_dir() / "quickstart.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("name: quickstart", "name: mine"), encoding="utf-8")
    monkeypatch.setenv("INDEXNET_EXPERIMENTS", str(tmp_path / "own"))
    return file, ["experiments=mine", "experiment.row=hin"]


def test_a_row_with_a_rate_of_its_own_is_printed_with_it(tmp_path, own_table):
    file, words = own_table
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["experiment"]["rows"][-1]["overrides"].append("optimizer.lr=0.1")
    file.write_text(f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}", encoding="utf-8")
    config = prepare_run(tmp_path, *words).config()
    assert first_record(read_config(config)).changes == ["optimizer.lr 0.003 instead of the table's 0.1"]


def test_an_experiment_file_that_is_edited_changes_no_job_that_waits(tmp_path, own_table):
    file, words = own_table
    words += ["training.batch_size=8"]
    folder = prepare_run(tmp_path, *words)
    config = folder.config()
    assert config["protocol"] == {"training.batch_size": 32, "optimizer.lr": 0.003}
    before = file.read_bytes()
    file.write_text("training: {batch_size: 8}\nexperiment: [")
    assert first_record(read_config(config)).changes == ["global batch 8 instead of the table's 32"]
    without = {key: value for key, value in config.items() if key != "protocol"}  # as earlier versions froze it
    assert config_hash(without) == config_hash(config)
    assert first_record(read_config(without)).changes == []
    assert first_record(read_config(without)).batch["printed"] is None
    (folder.path / "config.yaml").write_text(yaml.safe_dump(without, sort_keys=False))
    file.write_bytes(before)
    assert prepare_run(tmp_path, *words).path == folder.path


def test_loader_processes_follow_the_cores_that_there_are(monkeypatch):
    for cores, workers in ((1, 0), (2, 0), (3, 2), (5, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        assert worker_count("auto") == workers
    assert worker_count(3) == 3
