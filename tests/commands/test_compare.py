from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch

from commands_support import (
    PHOTOS,
    SCENES,
    autoencoder_checkpoint,
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
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.inference.initial import initial_task
from indexnet.inference.loading import load_task, predict_with_index_maps
from indexnet.networks.checkpoint import load_network
from indexnet.networks.tiled.matting_protocol import infer_alpha
from indexnet.tasks.contact_sheet import Panel, contact_sheet, fit_side

HIN = {"name": "indexnet", "family": "hin"}


def compare(folder, *checkpoints, trimaps=False, more=()):
    words = ["compare", *map(str, checkpoints), "--images", str(folder / "images"), "--output", str(folder / "out")]
    words += ["--trimaps", str(folder / "trimaps")] if trimaps else []
    return main([*words, "--device", "cpu", *more])


def test_reconstructions_side_by_side(tmp_path, capsys):
    save_image(tmp_path / "images" / "x & y.png", photograph(32, 32))
    save_image(tmp_path / "images" / "z.png", photograph(20, 28, 1))
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    checkpoints = [
        autoencoder_checkpoint(tmp_path / "hin.ckpt", HIN),
        autoencoder_checkpoint(tmp_path / "pool.ckpt", "max_unpool"),
        autoencoder_checkpoint(tmp_path / "colour.ckpt", "max_unpool", channels=3),
        autoencoder_checkpoint(tmp_path / "near.ckpt", {"name": "nearest", "pooling": "avg"}),
    ]
    assert compare(tmp_path, *checkpoints, more=["--panel", "64"]) == 3
    err = capsys.readouterr().err
    assert "bad.png cannot be read" in err
    assert sorted(os.listdir(tmp_path / "out")) == ["index.html", "index_maps", "x & y.png", "z.png"]
    sheet = read(tmp_path / "out" / "x & y.png")
    panels = 5  # input and four outputs, over their differences
    assert sheet.shape == (2 * (64 + 20 + 8) + 8, panels * (96 + 8) + 8, 3)
    # the input is enlarged by a whole factor, unsmoothed
    assert np.array_equal(sheet[28 : 28 + 64 : 2, 8 : 8 + 64 : 2], photograph(32, 32))
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'src="x%20%26%20y.png"' in page
    assert "x &amp; y" in page
    assert ">bad<" not in page
    for source in re.findall(r'src="([^"]*)"', page):
        assert (tmp_path / "out" / source.replace("%20", " ").replace("%26", "&")).is_file()
    assert "max_unpool (pool)" in page  # two checkpoints of one operator are told apart by their files
    assert "max_unpool (colour)" in page
    assert re.search(r"without index maps.*nearest, avg pooling", err)


def test_index_maps_are_those_of_the_forward_pass(tmp_path):
    from indexnet.tasks.visualization import index_map_picture

    task, _ = load_task(autoencoder_checkpoint(tmp_path / "a.ckpt", HIN))
    sample = {"image": torch.rand(1, 32, 32), "name": "x"}
    prediction, maps = predict_with_index_maps(task, sample)
    assert [tuple(found.shape) for found in maps] == [(1, 32, 32), (1, 16, 16)]
    assert prediction.shape == (1, 32, 32)
    assert all(found.min() >= 0 and found.max() <= 1 and found.std() > 0 for found in maps)
    assert index_map_picture(maps[0]).shape[2] == 3
    assert "down" not in vars(task.network.stage(0))  # the watch has ended


def test_mattes_with_their_difference(tmp_path):
    save_image(tmp_path / "images" / "a.jpg", photograph(40, 64))
    save_image(tmp_path / "trimaps" / "a.png", trimap(40, 64))
    checkpoints = [matting_checkpoint(tmp_path / "m.ckpt"), matting_checkpoint(tmp_path / "h.ckpt", HIN)]
    assert compare(tmp_path, *checkpoints, trimaps=True, more=["--panel", "100"]) == 0
    sheet = read(tmp_path / "out" / "a.png")
    network, _ = load_network(checkpoints[1])
    alpha = infer_alpha(network, read(tmp_path / "images" / "a.jpg"), trimap(40, 64))
    shown = sheet[28 : 28 + 40, 8 + 2 * (96 + 8) : 8 + 2 * (96 + 8) + 64]
    assert np.abs(shown[..., 0].astype(float) - np.floor(alpha)).max() == 0
    assert np.array_equal(sheet[28 + 68 : 28 + 68 + 40, 8 : 8 + 64, 0], trimap(40, 64))
    assert os.listdir(tmp_path / "out" / "index_maps") == ["a.png"]


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path, capsys, mistake):
    save_image(tmp_path / "images" / "a.png", photograph(32, 32))
    first, second = autoencoder_checkpoint(tmp_path / "a.ckpt"), autoencoder_checkpoint(tmp_path / "b.ckpt", HIN)

    mistake(compare(tmp_path, first), "needs at least two checkpoints")
    mistake(compare(tmp_path, first, matting_checkpoint(tmp_path / "m.ckpt")), "compare one task at a time")
    mistake(compare(tmp_path, first, second, more=["--panel", "5"]), "--panel 5 must be at least 32")
    mistake(compare(tmp_path, first, second, more=["--output", str(tmp_path / "images")]), "the folder of the inputs")
    assert not (tmp_path / "out").exists()
    assert compare(tmp_path, first, second) == 0
    before = (tmp_path / "out" / "a.png").read_bytes()
    capsys.readouterr()
    mistake(compare(tmp_path, second, first), "index.html exists; give --overwrite")
    assert (tmp_path / "out" / "a.png").read_bytes() == before
    assert compare(tmp_path, second, first, more=["--overwrite"]) == 0
    assert (tmp_path / "out" / "a.png").read_bytes() != before


def test_sheets_keep_proportions():
    wide = np.zeros((100, 400, 3), np.uint8)
    assert fit_side(wide, 200).shape == (50, 200, 3)
    assert fit_side(wide[:3, :5], 64).shape == (36, 60, 3)
    assert fit_side(wide[:, :150], 200).shape == (100, 150, 3)
    sheet = contact_sheet([[Panel("a" * 300, wide), Panel("", None)], [Panel("b", wide[:10, :10])]], 200)
    assert sheet.shape == (8 + 50 + 28 + 200 + 28, 8 + 200 + 8 + 96 + 8, 3)
    assert (sheet[:28, 210:] == 255).all()  # the long caption stays inside its column


LINE, GAP = 20, 8  # of a sheet: a caption, and what is around panels


def panel(sheet, row, column, height, width, column_width=96):
    """Cut a panel whose picture was not scaled; narrow columns are as wide as their captions need."""
    top = GAP + LINE + row * (height + LINE + GAP)
    left = GAP + column * (max(width, column_width) + GAP)
    return sheet[top : top + height, left : left + width]


def test_the_truth_stands_beside_the_outputs_and_errors_below(tmp_path, capsys):
    root = save_alphamatting(tmp_path / "data")
    checkpoints = [matting_checkpoint(tmp_path / "m.ckpt"), matting_checkpoint(tmp_path / "h.ckpt", HIN)]
    words = ["compare", *map(str, checkpoints), "data=alphamatting", f"data.root={root}", "--limit", "2"]
    words += ["--device", "cpu", "--panel", "80"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["GT01.png", "GT02.png", "index.html", "index_maps"]
    sheet, truth = read(tmp_path / "out" / "GT01.png"), read(root / "gt_training_lowres" / "GT01.png")
    assert np.array_equal(panel(sheet, 0, 0, 40, 50), photograph(40, 50))
    assert np.array_equal(panel(sheet, 0, 1, 40, 50)[..., 0], truth)
    assert np.array_equal(panel(sheet, 1, 0, 40, 50)[..., 0], trimap(40, 50))
    assert panel(sheet, 1, 2, 40, 50).std() > 0  # an error
    assert "Errors against the ground truth." in (tmp_path / "out" / "index.html").read_text()
    # the same from files by hand
    hand = ["compare", *map(str, checkpoints), "--images", str(root / "input_training_lowres" / "GT01.png")]
    hand += ["--trimaps", str(root / "trimap_training_lowres" / "Trimap1" / "GT01.png"), "--device", "cpu"]
    hand += ["--truth", str(root / "gt_training_lowres" / "GT01.png"), "--panel", "80"]
    assert main([*hand, "--output", str(tmp_path / "hand")]) == 0
    assert np.array_equal(read(tmp_path / "hand" / "GT01.png"), sheet)
    assert "Errors against" in (tmp_path / "hand" / "index.html").read_text()


@pytest.mark.parametrize(
    "kind",
    [
        "denoising",
        "depth",
        "reconstruction",
        pytest.param("segmentation", marks=pytest.mark.long),
        pytest.param("portrait", marks=pytest.mark.long),
    ],
)
def test_every_task_shows_its_truth(kind, tmp_path, capsys, mistake):
    if kind == "denoising":
        checkpoint = save_random(tmp_path / "a.ckpt", kind, {"name": "dncnn", "depth": 3, "width": 4}, PHOTOS, 32)
    elif kind == "segmentation":
        names = create_data("scenes", task="segmentation", size=32).classes
        checkpoint = labelled_checkpoint(tmp_path / "a.ckpt", names)
    elif kind == "depth":
        network = {"name": "fastdepth", "encoder": {"name": "mobilenetv1_fastdepth", "width": 0.25}}
        checkpoint = save_random(tmp_path / "a.ckpt", kind, network, SCENES, 32)
    elif kind == "portrait":
        network = {"name": "pspm", "encoder": {"name": "mobilenetv2_released", "width": 0.25}}
        checkpoint = save_random(tmp_path / "a.ckpt", kind, network, SCENES, 32)
    else:
        checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt")
    data = {"segmentation": ["data=scenes", "data.size=32"], "depth": ["data.test_count=1"]}
    words = ["compare", str(checkpoint), str(checkpoint), *data.get(kind, ["data.test_count=1"]), "--limit", "1"]
    assert main([*words, "--output", str(tmp_path / "out"), "--device", "cpu", "--panel", "32"]) == 0
    (sheet,) = [read(file) for file in (tmp_path / "out").glob("*.png")]
    columns = 3 if kind == "reconstruction" else 4  # the target is the input there
    assert sheet.shape == (2 * (32 + LINE + GAP) + GAP, columns * (96 + GAP) + GAP, 3)
    # what predict writes is what --truth reads
    given = ["--images", str(save_image(tmp_path / "x.png", photograph(32, 32)))]
    assert main(["predict", str(checkpoint), *given, "--output", str(tmp_path / "p"), "--device", "cpu"]) == 0
    hand = ["compare", str(checkpoint), str(checkpoint), *given, "--truth", str(tmp_path / "p" / "x.png")]
    capsys.readouterr()
    code = main([*hand, "--output", str(tmp_path / "hand"), "--panel", "32", "--device", "cpu"])
    if kind == "reconstruction":
        mistake(code, "the task reconstruction takes no --truth")
        return
    assert code == 0
    sheet = read(tmp_path / "hand" / "x.png")
    assert np.abs(panel(sheet, 1, 2, 32, 32).astype(int) - panel(sheet, 1, 3, 32, 32)).max() == 0
    # against itself: rounded to 8 bits or millimetres; a depth of 0 mm is grey, for nothing was measured there
    assert panel(sheet, 1, 2, 32, 32).max() <= (96 if kind == "depth" else 16)


def test_truths_that_do_not_fit_are_named(tmp_path, capsys, mistake):
    root = save_alphamatting(tmp_path / "data")
    checkpoints = [str(matting_checkpoint(tmp_path / "m.ckpt")), str(matting_checkpoint(tmp_path / "h.ckpt", HIN))]
    images, truths = root / "input_training_lowres", root / "gt_training_lowres"
    save_image(truths / "GT01.png", trimap(20, 50))
    (truths / "GT02.png").unlink()
    trimaps = ["--trimaps", str(root / "trimap_training_lowres" / "Trimap1"), "--device", "cpu"]
    words = ["compare", *checkpoints, "--images", str(images), *trimaps, "--output", str(tmp_path / "out")]
    assert main([*words, "--truth", str(truths)]) == 3
    err = " ".join(capsys.readouterr().err.split())
    assert "GT01.png is 50x20 pixels but its image 50x40; the truth must have its size" in err
    assert "GT02.png has no truth; put one named GT02.png into" in err
    assert sorted(os.listdir(tmp_path / "out")) == ["GT03.png", "index.html", "index_maps"]
    mistake(main([*words, "--truth", str(tmp_path / "no")]), "--truth", "does not exist")
    mistake(main([*words, "--truth", str(truths / "GT01.png")]), "is one file but --images is a folder")
    mistake(main([*words, "--limit", "1"]), "--limit is for data=NAME; leave it out")
    mistake(main([*words, "data=alphamatting"]), "give --images DIR, or data=NAME", "not both")
    mistake(main([*words[:3], "--output", str(tmp_path / "x")]), "give --images DIR, or data=NAME")
    mistake(main([*words[:3], "data=scenes", "--truth", str(truths), "--output", "x"]), "a data set has its own")


def test_index_maps_before_training_stand_beside_the_learned_ones(tmp_path, monkeypatch, capsys, mistake):
    """A run of no steps is what its seed drew; another checkpoint of that seed shows the same maps as the initial."""
    monkeypatch.chdir(tmp_path)
    words = ["task=reconstruction", "resampling=indexnet", "resampling.family=hin", "budget=smoke", "data.test_count=1"]
    words += ["network.widths=[4,6]", "training.size=32", "logger=none", "seed=3", "trainer.accelerator=cpu"]
    assert main(["train", *words, "training.steps=0"]) == 0
    (start,) = tmp_path.rglob("last.ckpt")
    task, meta = load_task(start)
    drawn = initial_task(start, meta)
    for key, value in task.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[key]), key
    before = torch.get_rng_state()
    initial_task(start, meta)
    assert torch.equal(before, torch.get_rng_state())
    save_image(tmp_path / "images" / "a.png", photograph(32, 32))
    assert compare(tmp_path, start, more=["--initial", "--panel", "64"]) == 0  # one is enough
    sheet = read(tmp_path / "out" / "index_maps" / "a.png")
    rows = np.split(sheet[GAP : GAP + 2 * (64 + LINE + GAP)], 2)
    assert np.array_equal(rows[0][LINE : LINE + 64], rows[1][LINE : LINE + 64])  # nothing was learned
    assert "before training" in (tmp_path / "out" / "index.html").read_text()
    capsys.readouterr()
    bare = autoencoder_checkpoint(tmp_path / "bare.ckpt", HIN)
    mistake(
        compare(tmp_path, bare, more=["--initial", "--overwrite"]), "does not say by what seed its network was drawn"
    )
    meta["config"]["ckpt_path"] = "a.ckpt"
    with pytest.raises(UserError, match=r"started from weights of another one \(ckpt_path\)"):
        initial_task(start, meta)


@pytest.mark.long
def test_the_maps_before_training_are_those_that_a_trained_run_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["task=matting", "resampling=indexnet", "resampling.family=hin", "encoder.width=0.35", "budget=smoke"]
    words += ["encoder.pretrained=false", "data.test_count=1", "training.size=64", "logger=none", "seed=3"]
    starts = {}
    for steps in (0, 2):
        runs = f"paths.runs={tmp_path / str(steps)}"
        assert main(["train", *words, f"training.steps={steps}", "trainer.accelerator=cpu", runs]) == 0
        (checkpoint,) = (tmp_path / str(steps)).rglob("last.ckpt")
        task, meta = load_task(checkpoint)
        starts[steps] = task.state_dict(), initial_task(checkpoint, meta).state_dict()
    began = starts[0][0]
    assert all(torch.equal(value, began[key]) for key, value in starts[2][1].items())
    assert any(not torch.equal(value, began[key]) for key, value in starts[2][0].items())
