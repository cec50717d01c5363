"""The published rule of compositing, and what is cut out and set before another background."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands_support import photograph, save_image
from indexnet.core.errors import UserError
from indexnet.data.matting import Foreground, cutouts
from indexnet.data.matting.compositing import check_enough, composite, cover, pair_backgrounds
from indexnet.data.matting.cutouts import (
    Blur,
    blurred_background,
    cut_out,
    fill,
    foreground_colours,
    on_background,
    read_background,
)
from indexnet.data.matting.estimate import check_installed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def literal_composite(fg, bg, alpha):
    """Pixel by pixel, as the rule reads, in single precision."""
    out = np.zeros_like(fg)
    for y in range(fg.shape[0]):
        for x in range(fg.shape[1]):
            a = np.float32(alpha[y, x] / 255)
            for c in range(3):
                value = a * np.float32(fg[y, x, c]) + (np.float32(1) - a) * np.float32(bg[y, x, c])
                out[y, x, c] = int(value)
    return out


def literal_cubic(image, height, width):
    """Bicubic interpolation with the kernel of OpenCV (a = -0.75), pixel centres aligned, edges repeated."""

    def weights(scale, count, out):
        matrix = np.zeros((out, count))
        for i in range(out):
            at = (i + 0.5) / scale - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                d = abs(at - tap)
                near = ((-0.75 + 2) * d - (-0.75 + 3)) * d * d + 1
                far = ((-0.75 * d + 5 * 0.75) * d - 8 * 0.75) * d + 4 * 0.75
                matrix[i, min(max(tap, 0), count - 1)] += near if d <= 1 else far if d < 2 else 0
        return matrix

    rows = weights(height / image.shape[0], image.shape[0], height)
    columns = weights(width / image.shape[1], image.shape[1], width)
    return np.clip(np.einsum("ij,jkc,lk->ilc", rows, image.astype(float), columns), 0, 255)


def test_composites_are_the_rules_pixel_by_pixel():
    fg, bg, alpha = noise(23, 31, 3), noise(23, 31, 3, seed=1), noise(23, 31, seed=2)
    alpha[:5], alpha[5:9] = 0, 255
    found = composite(fg, bg, alpha)
    assert found.dtype == np.uint8
    assert np.array_equal(found, literal_composite(fg, bg, alpha))
    assert np.array_equal(found[:5], bg[:5])
    assert np.array_equal(found[5:9], fg[5:9])


def test_fractions_are_cut_off():
    one = np.full((1, 1, 3), 100, np.uint8)
    assert composite(one, one - 1, np.full((1, 1), 254, np.uint8)).max() == 99  # 99.996
    every = np.arange(256, dtype=np.uint8).repeat(256).reshape(256, 256)
    levels = np.repeat(every.T[..., None], 3, axis=2)
    found = composite(levels, levels, every).astype(int)
    assert set(np.unique(found - levels)) == {-1, 0}  # where the two weights do not sum to one, as published


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_background_covers_any_size(height, width, bg_height, bg_width, shrink):
    background = noise(bg_height, bg_width, 3)
    found = cover(background, (height, width), shrink=shrink)
    assert found.shape == (height, width, 3)
    if height <= bg_height and width <= bg_width and not shrink:
        assert np.array_equal(found, background[:height, :width])


@pytest.mark.parametrize(
    ("size", "bg_size", "scaled"),
    [
        ((40, 30), (20, 20), (40, 40)),  # by the larger ratio: too wide, cut at the right
        ((30, 41), (20, 20), (41, 41)),
        ((17, 23), (7, 11), (17, 27)),  # 26.7 columns, rounded up
    ],
)
def test_enlarging_is_bicubic_rounded_up_and_cut_at_the_top_left(size, bg_size, scaled):
    background = noise(*bg_size, 3)
    found = cover(background, size, shrink=False)
    expected = literal_cubic(background, *scaled)[: size[0], : size[1]]
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(found, cover(background, size, shrink=True))


def test_only_the_loader_scales_down():
    background = noise(60, 50, 3)
    assert np.array_equal(cover(background, (30, 40), shrink=False), background[:30, :40])
    loaded = cover(background, (30, 40), shrink=True)  # by 0.8, to 48x40
    assert not np.array_equal(loaded, background[:30, :40])
    flat = np.full((60, 50, 3), 7, np.uint8)
    assert np.array_equal(cover(flat, (30, 40), shrink=True), flat[:30, :40])


def test_pairs_follow_the_two_lists():
    foregrounds = [Foreground(name, Path(f"{name}.jpg"), Path(f"{name}.png")) for name in "ba"]
    backgrounds = [Path(f"{k}.jpg") for k in range(7)]
    pairs = pair_backgrounds(foregrounds, backgrounds, 3)
    assert [pair.name for pair in pairs] == ["b_0", "b_1", "b_2", "a_0", "a_1", "a_2"]
    assert [pair.background for pair in pairs] == backgrounds[:6]
    assert [pair.foreground.name for pair in pairs] == list("bbbaaa")


def test_too_few_backgrounds_are_refused_with_both_numbers():
    check_enough(50, 1000, 20)
    with pytest.raises(UserError, match=r"50 foregrounds with 20 composites each need 1000 .* there are 999"):
        check_enough(50, 999, 20)
    with pytest.raises(UserError, match="positive whole number"):
        check_enough(1, 10, 0)


# --- cut-outs --------------------------------------------------------------------------------------------------------

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


def literal_blur(image, alpha, colours, sigma):
    """The background's share of every pixel and its weight, both blurred by the whole Gaussian; their quotient."""
    alpha = alpha[..., None].astype(np.float64)
    share = np.concatenate([np.clip(image - alpha * colours, 0, 255 * (1 - alpha)), 1 - alpha], axis=2)
    down, across = (np.exp(-(np.subtract.outer(*[np.arange(n)] * 2) ** 2) / (2 * sigma**2)) for n in image.shape[:2])
    blurred = np.einsum("yj,xk,jkc->yxc", down, across, share, optimize=True)
    return blurred[..., :3] / np.maximum(blurred[..., 3:], 1e-300)


@pytest.mark.parametrize(("sigma", "off"), [(0.5, 0.51), (3, 0.51), (19.5, 2), (40, 2), (1000, 2)])
@pytest.mark.parametrize("size", [(301, 203), (9, 4)])
def test_a_blurred_background_is_the_literal_one(size, sigma, off):
    image = photograph(*size)
    image[:, size[1] // 2 :] //= 4
    alpha = np.linspace(1.5, -0.5, size[0] * size[1]).reshape(size).clip(0, 1).astype(np.float32)
    colours = np.where(alpha[..., None] == 1, image, photograph(*size, seed=1))
    found = blurred_background(image, alpha, colours, sigma)
    shown = (1 - alpha[..., None]) * (found - literal_blur(image, alpha, colours, sigma))
    assert np.abs(shown).max() < off


def test_an_object_does_not_bleed_into_its_blurred_background():
    pytest.importorskip("pymatting")
    image, alpha = scene()
    result = on_background(image, alpha, Blur(5))
    assert np.abs(result[alpha == 0].astype(int) - GREEN).max() <= 1
    assert np.abs(result - (alpha[..., None] * RED + (1 - alpha[..., None]) * GREEN)).max() < 8


def test_a_blur_of_no_width_is_two_per_cent_of_the_longer_side():
    image, nothing = photograph(60, 90, seed=1), np.zeros((60, 90), np.float32)
    image[::2] //= 2
    assert np.array_equal(on_background(image, nothing, Blur()), on_background(image, nothing, Blur(0.02 * 90)))


def test_nothing_and_everything_cut_out_need_no_estimate(monkeypatch):
    monkeypatch.setattr(cutouts, "estimate_foreground", None)
    image = photograph(20, 30)
    nothing, everything = np.zeros((20, 30), np.float32), np.ones((20, 30), np.float32)
    assert not cut_out(image, nothing).any()
    assert np.array_equal(on_background(image, nothing, Blur(3)), blurred_background(image, nothing, image, 3))
    assert np.array_equal(on_background(image, everything, Blur(3)), image)
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


def test_backgrounds_by_blur(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = photograph(5, 6)
    save_image(tmp_path / "some.png", image)
    (tmp_path / "some.png").rename("blur")
    assert read_background("blur") == Blur()
    assert read_background("blur:2.5") == Blur(2.5)
    assert np.array_equal(read_background("./blur"), image)
    for sigma in ("", "x", "0", "-1", "nan", "1001"):
        with pytest.raises(UserError, match=f"'blur:{sigma}' needs a number of pixels above 0, at most 1000: blur:20"):
            read_background(f"blur:{sigma}")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'indexnet\[matting\]'"):
        check_installed()
