"""The published rule of compositing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.core.errors import UserError
from indexnet.data.matting import Foreground
from indexnet.data.matting.compositing import check_enough, composite, cover, pair_backgrounds


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
