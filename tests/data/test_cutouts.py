from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from commands_support import photograph, save_image
from indexnet.core.errors import UserError
from indexnet.data.matting.cutouts import cut_out, fill, foreground_colours, on_background, read_background
from indexnet.data.matting.estimate import check_installed

RED, GREEN = np.array([200, 30, 20], np.uint8), np.array([10, 150, 40], np.uint8)


def soft_disc(height=60, width=90):
    rows, columns = np.ogrid[:height, :width]
    distance = np.sqrt((rows - 30) ** 2 + (columns - 50) ** 2)
    return np.clip((20 - distance) / 6, 0, 1).astype(np.float32)


def scene():
    """A red disc with a soft edge before green."""
    alpha = soft_disc()
    image = np.rint(alpha[..., None] * RED + (1 - alpha[..., None]) * GREEN).astype(np.uint8)
    return image, alpha


def test_colours_lose_the_old_background():
    pytest.importorskip("pymatting")
    image, alpha = scene()
    colours = foreground_colours(image, alpha)
    mixed = (alpha > 0.1) & (alpha < 1)
    assert np.abs(colours[mixed].astype(int) - RED).max() < 12
    assert np.abs(image[mixed].astype(int) - RED).max() > 80  # where the photograph itself shows the background
    assert np.array_equal(colours[alpha == 1], image[alpha == 1])
    cut = cut_out(image, alpha)
    assert cut.shape == (60, 90, 4)
    assert np.array_equal(cut[..., :3], colours)
    assert np.array_equal(cut[..., 3], np.rint(alpha * 255))


def test_new_backgrounds():
    pytest.importorskip("pymatting")
    image, alpha = scene()
    blue = np.array([0, 0, 255], np.uint8)
    result = on_background(image, alpha, blue)
    wanted = alpha[..., None] * RED + (1 - alpha[..., None]) * blue
    assert np.abs(result - wanted).max() < 8
    assert (result[alpha == 0] == blue).all()
    colours = foreground_colours(image, alpha)
    assert np.array_equal(result, on_background(image, alpha, blue, colours))
    picture = photograph(30, 30)
    over = on_background(image, alpha, picture, colours)
    assert np.array_equal(over[alpha == 0], fill(picture, 60, 90)[alpha == 0])


def test_strips_do_not_show():
    image, alpha = photograph(600, 20), np.linspace(0, 1, 600 * 20, dtype=np.float32).reshape(600, 20)
    background = photograph(600, 20, seed=1)
    result = on_background(image, alpha, background, colours=image)
    weight = alpha[..., None].astype(np.float64)
    assert np.abs(result - (weight * image + (1 - weight) * background)).max() <= 0.51


def test_nothing_and_everything_cut_out_need_no_estimate(monkeypatch):
    import indexnet.data.matting.cutouts as cutouts

    monkeypatch.setattr(cutouts, "estimate_foreground", None)
    image = photograph(20, 30)
    nothing, everything = np.zeros((20, 30), np.float32), np.ones((20, 30), np.float32)
    assert not cut_out(image, nothing).any()
    assert np.array_equal(cut_out(image, everything)[..., :3], image)


def test_a_background_is_covered_and_its_middle_taken():
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3))
    same = fill(ramp, 50, 60)
    assert np.array_equal(same, ramp[:, 20:80])
    assert fill(ramp, 25, 25).shape == (25, 25, 3)
    assert abs(int(fill(ramp, 25, 25)[12, 12, 0]) - 50) <= 1
    assert fill(ramp, 333, 77).shape == (333, 77, 3)


def test_backgrounds_by_file_or_colour(tmp_path):
    assert read_background("#0a96ff").tolist() == [10, 150, 255]
    assert read_background("white").tolist() == [255, 255, 255]
    image = photograph(5, 6)
    assert np.array_equal(read_background(str(save_image(tmp_path / "b.png", image))), image)
    with pytest.raises(UserError, match=r"'nowhere\.jpg' is neither a file nor a colour"):
        read_background("nowhere.jpg")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'indexnet\[matting\]'"):
        check_installed()
