from __future__ import annotations

import os
import re

import numpy as np
import torch

from commands_support import autoencoder_checkpoint, matting_checkpoint, photograph, read, save_image, trimap
from indexnet.cli import main
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
    assert "src='x%20%26%20y.png'" in page
    assert "x &amp; y" in page
    assert "bad" not in page
    for source in re.findall(r"src='([^']*)'", page):
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
