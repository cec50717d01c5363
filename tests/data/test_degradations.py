"""Damage to images, against what each kind means."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from commands_support import photograph
from indexnet.core.errors import UserError
from indexnet.data.degradations import DEGRADATIONS, add_noise, blur, change_gamma, compress_jpeg, parse_degradations


def rng():
    return np.random.default_rng(7)


def test_levels_are_read():
    assert parse_degradations(["noise=0,5,10.5", "jpeg=90,50"]) == {"noise": (0, 5, 10.5), "jpeg": (90, 50)}
    usual = parse_degradations(["noise,jpeg, blur,gamma"])
    assert usual == {name: tuple(what.levels) for name, what in DEGRADATIONS.items()}
    assert parse_degradations([]) == {}
    for word, message in (
        ("noize=3", "Did you mean 'noise'"),
        ("noise=", "'' is no level; give a number from 0 to 255"),
        ("noise=300", "'300' is no level"),
        ("jpeg=50.5", "'50.5' is no level; give an integer from 1 to 100"),
        ("gamma=nan", "'nan' is no level"),
        ("blur=1,1.0", "has a level twice"),
        ("noise,noise", "names noise twice"),
    ):
        with pytest.raises(UserError, match=message):
            parse_degradations([word])


def test_noise_is_gaussian_and_one_field_at_every_level():
    image = np.full((80, 90, 3), 128, np.uint8)
    five, ten = (add_noise(image, sigma, rng()).astype(float) - 128 for sigma in (5, 10))
    assert (np.std(five), np.std(ten)) == (pytest.approx(5, rel=0.03), pytest.approx(10, rel=0.03))
    assert np.abs(ten - 2 * five).max() <= 2  # but for rounding
    assert np.array_equal(add_noise(image, 0, rng()), image)
    assert add_noise(np.zeros((9, 9), np.uint8), 50, rng()).min() == 0  # clipped, not wrapped


def test_jpeg_is_what_any_reader_gets():
    image = photograph(48, 64)
    errors = [np.abs(compress_jpeg(image, quality, rng()).astype(int) - image).mean() for quality in (95, 50, 10)]
    assert errors == sorted(errors)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=50, subsampling="4:2:0")
    other = np.array(Image.open(buffer)).astype(int)
    assert np.abs(compress_jpeg(image, 50, rng()) - other).mean() < 1  # colours are not mixed up
    assert compress_jpeg(image[..., 0], 50, rng()).shape == (48, 64)


def test_blur_and_gamma():
    image = np.zeros((21, 21), np.uint8)
    image[10, 10] = 255
    spread = blur(image, 1.0, rng()).astype(float)
    assert spread[10, 10] == pytest.approx(255 / (2 * np.pi), abs=1)
    assert spread.sum() == pytest.approx(255, rel=0.05)
    assert change_gamma(np.array([[0, 64, 255]], np.uint8), 2.0, rng()).tolist() == [[0, 16, 255]]
    ramp = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(change_gamma(ramp, 1.0, rng()), ramp)
