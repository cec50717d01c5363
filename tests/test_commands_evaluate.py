from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from commands_support import (
    SCENES,
    autoencoder_checkpoint,
    matting_checkpoint,
    photograph,
    save_image,
    save_random,
    trimap,
)
from indexnet.cli import main
from indexnet.data import create_data
from indexnet.metrics import create_metric
from indexnet.networks.inference import infer_alpha, to_uint8
from indexnet.run.evaluate import default_folder, evaluate, parse_overrides
from indexnet.run.infer import load_task, predict_sample


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt")


def alphamatting(root, names=("GT01", "GT02", "GT03")):
    """The layout of alphamatting.com, with two trimap sets."""
    for number, name in enumerate(names):
        height, width = 40 + number, 50
        save_image(root / "input_training_lowres" / f"{name}.png", photograph(height, width, number))
        alpha = np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))
        save_image(root / "gt_training_lowres" / f"{name}.png", alpha)
        for kind in ("Trimap1", "Trimap2"):
            save_image(root / "trimap_training_lowres" / kind / f"{name}.png", trimap(height, width))
    return root


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_reconstruction_from_the_checkpoint_alone(tmp_path, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "run" / "last.ckpt")
    assert main(["evaluate", str(checkpoint), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "run" / "evaluations" / "last" / "photos"
    result, rows = json.loads((folder / "evaluation.json").read_text()), rows_of(folder / "per_image.csv")
    assert "PSNR" in out
    assert str(folder) in out

    dataset = create_data("photos", task="reconstruction", size=32, channels=1, train_count=8, test_count=5).test()
    task, _ = load_task(checkpoint)
    psnr = []
    for index in range(5):
        sample = dataset.sample(index, np.random.default_rng(0))
        with torch.no_grad():
            output = task.network(sample["image"][None]).clamp(0, 1)
        mse = (output[0].double() - sample["image"].double()).square().mean().item()
        psnr.append(-10 * np.log10(mse))
        assert float(rows[index]["psnr"]) == pytest.approx(psnr[-1], abs=1e-4)
        assert rows[index]["name"] == dataset.name(index)
    assert result["metrics"]["psnr"] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert set(result["metrics"]) == {"psnr", "ssim", "mae", "rmse"}
    assert result["test_count"] == result["data"]["count"] == 5
    assert result["data"]["fingerprint"] == dataset.fingerprint()
    assert result["failed"] == []


def test_an_evaluation_is_not_overwritten_unasked(tmp_path, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt")
    words = ["evaluate", str(checkpoint), "--output", str(tmp_path / "out"), "--limit", "2"]
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["test_count"] == 2
    before = (tmp_path / "out" / "per_image.csv").read_bytes()
    capsys.readouterr()
    assert main([*words, "data.test_count=1"]) == 2
    assert "evaluation.json exists; give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "per_image.csv").read_bytes() == before
    assert main([*words, "--overwrite", "data.test_count=1"]) == 0  # overrides may stand after options
    assert len(rows_of(tmp_path / "out" / "per_image.csv")) == 1


def test_matting_on_its_own_scenes(matting, tmp_path, capsys):
    assert main(["evaluate", str(matting), "data.test_count=1", "--output", str(tmp_path / "out")]) == 0
    assert "SAD (thousands)" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["data"]["options"]["size"] == 64  # the run's training.size
    assert result["metrics"]["sad"] > 0


def test_matting_scores_are_those_of_the_written_png(matting, tmp_path):
    """SAD and MSE as the paper measures them: on the truncated 8-bit alpha, over the unknown region."""
    root = alphamatting(tmp_path / "data")
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "data.trimap=Trimap2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "per_image.csv")
    task, _ = load_task(matting)
    for number, row in enumerate(rows):
        known = trimap(40 + number, 50)
        prediction = to_uint8(infer_alpha(task.network, photograph(40 + number, 50, number), known)).astype(float) / 255
        alpha = np.linspace(0, 255, 50).round() / 255
        difference = (prediction - alpha)[known == 128]
        assert float(row["sad"]) == pytest.approx(np.abs(difference).sum() / 1000, rel=1e-5)
        assert float(row["mse"]) == pytest.approx((difference**2).mean(), rel=1e-5)
    assert [row["name"] for row in rows] == ["GT01", "GT02", "GT03"]


def test_a_wrong_trimap_is_an_error_and_the_others_are_evaluated(matting, tmp_path, capsys):
    root = alphamatting(tmp_path / "data")
    bad = trimap(41, 50)
    bad[bad == 128] = 127
    save_image(root / "trimap_training_lowres" / "Trimap1" / "GT02.png", bad)
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}"]
    assert main(words) == 3
    captured = capsys.readouterr()
    assert "GT02.png" in captured.err
    assert "127" in captured.err
    assert "128" in captured.err
    assert "2 of 3 images" in captured.out
    result = json.loads((matting.parent / "evaluations" / "m" / "alphamatting" / "evaluation.json").read_text())
    assert result["test_count"] == 2
    assert [entry["name"] for entry in result["failed"]] == ["GT02"]


def test_other_bad_files_of_a_data_set(matting, tmp_path, capsys):
    root = alphamatting(tmp_path / "data")
    save_image(root / "trimap_training_lowres" / "Trimap1" / "GT01.png", trimap(20, 20))
    (root / "input_training_lowres" / "GT02.png").write_bytes(b"no image")
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "--output", str(tmp_path / "out")]
    assert main(words) == 3
    err = capsys.readouterr().err
    assert "20x20" in err
    assert "GT02.png cannot be read" in err
    for path in (root / "input_training_lowres").iterdir():
        path.write_bytes(b"no image")
    assert main([*words, "--overwrite"]) == 2
    assert "none of the 3 images of alphamatting could be evaluated" in capsys.readouterr().err
    for path in (root / "input_training_lowres").iterdir():
        path.unlink()
    assert main([*words, "--overwrite"]) == 2
    assert "holds no image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["data.test_cuont=1"], "Did you mean 'test_count'?"),
        (["data=photso"], "Did you mean 'photos'?"),
        (["training.size=3"], "'training.size=3' is not understood"),
        (["data.task=matting"], "data.task follows from the checkpoint"),
        (["data=alphamatting", "data.root=x"], "no targets for the task 'reconstruction'"),
        (["data.channels=3"], "have 3 channels but the network takes 1; give data.channels=1"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["data=mnist", "data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path, capsys, words, fragment):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt")
    assert main(["evaluate", str(checkpoint), *words]) == 2
    err = capsys.readouterr().err.strip()
    assert fragment in err
    assert "\n" not in err
    assert not (tmp_path / "evaluations").exists()


def test_a_converted_checkpoint_needs_a_data_set(tmp_path, capsys):
    checkpoint = matting_checkpoint(tmp_path / "m.ckpt", data=None)
    assert main(["evaluate", str(checkpoint)]) == 2
    assert "names no data set; give data=NAME, one of alphamatting, scenes" in capsys.readouterr().err
    words = ["evaluate", str(checkpoint), "data=scenes", "data.test_count=1", "data.size=64"]
    assert main(words) == 0  # the rest comes from conf/data/scenes.yaml


def test_overrides_are_read_as_plain_values(tmp_path):
    name, options = parse_overrides(["data=scenes", "data.seed=3", "data.backgrounds=null", "data.root=a=b", "data.x="])
    assert name == "scenes"
    assert options == {"seed": 3, "backgrounds": None, "root": "a=b", "x": ""}
    folder = default_folder(tmp_path / "a.ckpt", "scenes", {"seed": 3, "root": "/x", "backgrounds": "my/folder"})
    assert folder == tmp_path / "evaluations" / "a" / "scenes,backgrounds=my_folder,seed=3"


@pytest.mark.parametrize("name", ["matting", "reconstruction"])
def test_evaluation_gives_the_metrics_of_the_task(name, matting, tmp_path):
    """One number, whichever way it is computed: over the split, and image by image."""
    if name == "matting":
        task, _ = load_task(matting)
        dataset = create_data("scenes", task=name, size=64, test_count=3).test()
    else:
        task, _ = load_task(autoencoder_checkpoint(tmp_path / "a.ckpt"))
        dataset = create_data("photos", task=name, size=32, test_count=3).test()
    rows, failed, results = evaluate(task, {"": dataset}, {"": 2})
    assert [row["name"] for row in rows] == [dataset.name(0), dataset.name(1)]
    assert not failed
    for key, value in results.items():
        metric = create_metric(key)
        for index in range(2):
            sample = dict(dataset.sample(index, np.random.default_rng(0)))
            batch = default_collate([sample])
            metric.update(*task.metric_inputs(predict_sample(task, sample)[None], batch))
            assert rows[index][key] == pytest.approx(metric.latest[0].item(), rel=1e-6)
        assert value == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("reconstruction", "photos"),
        ("matting", "scenes"),
        ("denoising", "photos"),
        ("segmentation", "scenes"),
        ("depth", "scenes"),
    ],
)
def test_a_run_and_its_checkpoint_give_the_same_numbers(task, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"task={task}", "budget=smoke", "data.test_count=2", "training.size=64", "logger=none"]
    words += ["encoder.width=0.35"] if task == "matting" else []
    assert main(["train", *words]) == 0
    (record,) = (tmp_path / "runs").rglob("record.json")
    checkpoint = record.parent / "checkpoints" / "last.ckpt"
    assert main(["evaluate", str(checkpoint), "--device", "cpu"]) == 0
    folder = checkpoint.parent / "evaluations" / "last" / data
    measured = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert measured == pytest.approx(json.loads(record.read_text())["metrics"], rel=1e-6)
    for ours, theirs in zip(rows_of(folder / "per_image.csv"), rows_of(record.parent / "per_image.csv"), strict=True):
        assert ours["name"] == theirs["name"]
        assert all(float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-6) for key in measured)


def test_images_without_anything_to_measure_are_named(tmp_path, monkeypatch, capsys):
    from indexnet.data.scenes.dataset import SceneSamples

    plain = SceneSamples.sample

    def unmeasured(self, index, rng):
        sample = plain(self, index, rng)
        return {**sample, "depth": sample["depth"] * 0} if index == 1 else sample

    monkeypatch.setattr(SceneSamples, "sample", unmeasured)
    network = {"name": "fastdepth", "encoder": {"name": "mobilenetv1_fastdepth", "width": 0.25}}
    checkpoint = save_random(tmp_path / "d.ckpt", "depth", network, SCENES, 64)
    assert main(["evaluate", str(checkpoint), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 3
    assert "scene-test-000001: nothing in it can be measured" in capsys.readouterr().err
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["test_count"] == 1
    assert result["metrics"]["depth_rmse"] > 0
