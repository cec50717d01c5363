"""`indexnet predict` with networks of other tasks than matting."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from commands_support import (
    autoencoder_checkpoint,
    labelled_checkpoint,
    photograph,
    read,
    save_image,
)
from indexnet.cli import main
from indexnet.networks.checkpoint import load_network
from predict_support import predict


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_reconstruction_of_any_size(tmp_path, channels, mode, capsys):
    checkpoint = autoencoder_checkpoint(tmp_path / "a.ckpt", channels=channels)
    image = photograph(37, 51)
    save_image(tmp_path / "images" / "x.png", image)
    save_image(tmp_path / "images" / "tiny.png", image[:2, :2])
    assert predict(checkpoint, tmp_path, trimaps=False) == 3
    assert "tiny: the image is 2x2 pixels but this network halves 2 times" in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.mode == mode
        result = np.array(picture)
    network, _ = load_network(checkpoint)
    given = (image if channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).reshape(37, 51, channels)
    x = torch.from_numpy(given.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(x)[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy().reshape(result.shape)
    assert np.abs(result - expected).max() <= 0.501  # rounded, not cut


def test_segmentation_writes_classes_their_names_and_a_picture(tmp_path, capsys):
    checkpoint = labelled_checkpoint(tmp_path / "s.ckpt")
    for name in ("a", "a_overlay"):  # no name of one image's files meets another's
        save_image(tmp_path / "images" / f"{name}.png", photograph(35, 50))
    words = ["predict", str(checkpoint), "--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    out = tmp_path / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "a.png", "a_overlay.png", "classes.txt", "overlay/a.png", "overlay/a_overlay.png",
    ]  # fmt: skip
    assert (out / "classes.txt").read_text() == "0 sky\n1 road\n2 car\n"
    assert read(out / "a.png").shape == (35, 50)
    assert read(out / "a.png").max() < 3
    assert read(out / "overlay" / "a.png").shape == (35, 50, 3)
    (out / "a.png").unlink()  # a command that was stopped between the two
    assert main(words) == 3
    assert (out / "a.png").is_file()
    assert "a_overlay.png" in capsys.readouterr().err  # kept
    (out / "a.png").unlink()
    (out / "classes.txt").write_text("mine")
    assert main(words) == 2
    assert "classes.txt exists and says something else" in capsys.readouterr().err
    assert (out / "classes.txt").read_text() == "mine"


def test_checkpoints_of_different_classes_are_not_compared(tmp_path, capsys):
    checkpoints = [
        labelled_checkpoint(tmp_path / "s.ckpt"),
        labelled_checkpoint(tmp_path / "t.ckpt", ("sky", "road", "bus")),
    ]
    save_image(tmp_path / "images" / "a.png", photograph(35, 50))
    words = ["--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    assert main(["compare", *map(str, checkpoints), *words]) == 2
    assert "were trained for different classes" in capsys.readouterr().err
