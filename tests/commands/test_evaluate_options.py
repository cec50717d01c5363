"""Evaluations that keep predictions, take other noise, or shrink images."""

from __future__ import annotations

import csv
import importlib.util
import json

import numpy as np
import pytest
import torch

from commands_support import (
    PHOTOS,
    autoencoder_checkpoint,
    config,
    labelled_checkpoint,
    matting_checkpoint,
    photograph,
    read,
    save_alphamatting,
    save_image,
    save_random,
    trimap,
)
from indexnet.cli import main
from indexnet.data import create_data
from indexnet.inference.evaluation import evaluate
from indexnet.inference.loading import load_task
from indexnet.networks.checkpoint import checkpoint_meta, save_checkpoint
from indexnet.tasks import create_task


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_kept_as_files_that_score_what_was_measured(matting, tmp_path, capsys, mistake):
    """Alphas as predict writes them; nothing that is there is replaced unasked, and no image of the data ever."""
    root, kept = save_alphamatting(tmp_path / "data"), tmp_path / "alphas"
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "--device", "cpu", "--gallery", "0"]
    words += ["--output", str(tmp_path / "out")]
    assert main([*words, "--save-alphas", str(kept)]) == 0
    assert f"3 predictions written to {kept}" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out" / "per_image.csv")
    for number, row in enumerate(rows):
        alpha, truth = read(kept / f"{row['name']}.png"), np.linspace(0, 255, 50).round()
        unknown = trimap(40 + number, 50) == 128
        assert float(row["sad"]) == pytest.approx(np.abs(alpha / 255 - truth / 255)[unknown].sum() / 1000, rel=1e-6)
    predict = [
        "predict",
        str(matting),
        "data=alphamatting",
        f"data.root={root}",
        "--output",
        str(tmp_path / "predicted"),
    ]
    assert main([*predict, "--device", "cpu"]) == 0
    for name in ("GT01", "GT02", "GT03"):
        assert np.array_equal(read(kept / f"{name}.png"), read(tmp_path / "predicted" / f"{name}.png"))
    (kept / "GT01.png").unlink()
    again = [*words[:-1], str(tmp_path / "again"), "--save-predictions", str(kept)]
    mistake(main(again), "GT02.png exists; give --overwrite")
    assert not (kept / "GT01.png").exists()
    truths = root / "gt_training_lowres"
    mistake(main([*words, "--overwrite", "--save-predictions", str(truths)]), "is an image of the data set")
    # of several methods in folders of their own, which are named as the table names them
    other = matting_checkpoint(tmp_path / "near.ckpt", {"name": "nearest", "pooling": "avg"})
    assert main([*words[:2], str(other), *words[2:], "--overwrite", "--save-predictions", str(tmp_path / "both")]) == 0
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["max_unpool", "nearest_avg_pooling"]
    assert np.array_equal(read(tmp_path / "both" / "max_unpool" / "GT02.png"), read(kept / "GT02.png"))


def test_saved_classes_come_with_their_names(tmp_path):
    root = tmp_path / "labelled"
    for split in ("train", "test"):
        save_image(root / "images" / split / "a.png", photograph(32, 32))
        save_image(root / "labels" / split / "a.png", np.zeros((32, 32), np.uint8))
    names = ["sky", "road", "car"]
    words = ["evaluate", str(labelled_checkpoint(tmp_path / "s.ckpt", names)), "data=segmentation_folder"]
    words += [f"data.root={root}", f"data.classes=[{','.join(names)}]", "--output", str(tmp_path / "out")]
    assert main([*words, "--save-predictions", str(tmp_path / "kept"), "--device", "cpu"]) == 0
    assert (tmp_path / "kept" / "classes.txt").read_text() == "0 sky\n1 road\n2 car\n"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["a.png", "classes.txt", "overlay"]
    assert read(tmp_path / "kept" / "a.png").max() <= 2


def test_a_denoiser_is_tested_at_other_noise_levels(tmp_path, capsys, mistake):
    network = {"name": "dncnn", "depth": 3, "width": 4}
    checkpoint = save_random(tmp_path / "d.ckpt", "denoising", network, PHOTOS, 32)
    found = {}
    for sigma in (15, 50):
        words = ["evaluate", str(checkpoint), "data.test_count=2", f"task.sigma={sigma}", "--device", "cpu"]
        assert main(words) == 0
        assert f"photos, test, task.sigma={sigma}" in capsys.readouterr().out
        folder = tmp_path / "evaluations" / "d" / f"photos,task.sigma={sigma},test_count=2"
        result = json.loads((folder / "evaluation.json").read_text())
        found[sigma] = result["metrics"]["psnr"]
        assert result["task"] == {"name": "denoising", "sigma": sigma}
    task, _ = load_task(checkpoint, {"sigma": 50})
    dataset = create_data("photos", task="denoising", size=32, channels=1, train_count=8, test_count=2).test()
    assert found[50] == pytest.approx(evaluate(task, {"": dataset}, {"": 2}).results["psnr"])
    assert found[15] > found[50]
    mistake(main([*words, "task.sigma=0", "--overwrite"]), "task.sigma=0 must be a number above 0")
    mistake(main([*words, "task.sigma=[5,15]", "--overwrite"]), "task.sigma=[5, 15] must be")


def test_networks_trained_at_several_noise_levels_are_measured_at_that_of_the_first(tmp_path, capsys):
    checkpoints = []
    for sigma in (25, 50):
        task = create_task("denoising", {"name": "dncnn", "depth": 3, "width": 4}, sigma=sigma)
        meta = checkpoint_meta(
            {"name": "denoising", "sigma": sigma}, task.network_spec, config("denoising", PHOTOS, 32)
        )
        save_checkpoint(tmp_path / f"s{sigma}.ckpt", meta, task.network.state_dict())
        checkpoints.append(str(tmp_path / f"s{sigma}.ckpt"))
    words = ["evaluate", *checkpoints, "data.test_count=2", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "s50.ckpt: measured at task.sigma=25, as " in " ".join(capsys.readouterr().err.split())
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [method["task"]["sigma"] for method in result["methods"]] == [25, 25]
    assert [method["own_task_options"] for method in result["methods"]] == [{}, {"sigma": 50}]


def test_images_are_halved_before_the_network_and_alpha_comes_back_at_full_size(matting, tmp_path, capsys, mistake):
    """As the demo of the released deep image matting: bicubic image, nearest trimap, bicubic alpha; then pasted."""
    import cv2

    root = save_alphamatting(tmp_path / "data")
    words = ["evaluate", str(matting), "data=alphamatting", f"data.root={root}", "--device", "cpu", "--gallery", "0"]
    kept = tmp_path / "kept"
    assert main([*words, "--scale", "0.5", "--save-alphas", str(kept)]) == 0
    folder = matting.parent / "evaluations" / "m" / "alphamatting,scale=0.5"
    assert json.loads((folder / "evaluation.json").read_text())["scale"] == 0.5
    assert "alphamatting, test, scale 0.5" in capsys.readouterr().out
    task, _ = load_task(matting)
    image, known = photograph(40, 50), trimap(40, 50)
    planes = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    half = cv2.resize(planes.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    guide = cv2.resize(known.astype(np.float32) / 255, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
    assert half.shape == (20, 25, 3)
    x = np.dstack([cv2.resize(half, (32, 32), interpolation=cv2.INTER_CUBIC),
                   cv2.resize(guide, (32, 32), interpolation=cv2.INTER_NEAREST)])  # fmt: skip
    with torch.no_grad():
        out = task.network(torch.from_numpy(x.transpose(2, 0, 1)[None]).float())[0, 0].numpy()
    alpha = np.clip(cv2.resize(out, (50, 40), interpolation=cv2.INTER_CUBIC), 0, 1) * 255
    expected = np.where(known == 128, alpha, known)
    assert np.abs(read(kept / "GT01.png") - np.floor(expected)).max() <= 1
    mistake(main([*words, "--scale", "0"]), "--scale 0 must be above 0")
    other = autoencoder_checkpoint(tmp_path / "a.ckpt")
    mistake(main(["evaluate", str(other), "--scale", "0.5"]), "--scale is for matting networks; ", "reconstruction")
    if importlib.util.find_spec("pymatting"):
        mistake(main(["evaluate", "knn", *words[2:], "--scale", "0.5"]), "--scale is for matting networks; knn")
