"""PSNR, SSIM, MAE, RMSE and the errors of mattes: what they do with what they are given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import metrics as reference

from indexnet.core.errors import UserError
from indexnet.metrics import SSIM, create_metric

SEEDS = st.integers(0, 10_000)
NOISE = st.floats(0.001, 0.5)


def value(name, *batch):
    metric = create_metric(name)
    metric.update(*batch)
    return metric.compute().item()


def pair(seed, noise, size=(16, 23)):
    """An image and a noisy one, (1, 1, H, W) float64."""
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(1, 1, *size, generator=g, dtype=torch.float64)
    return target + noise * torch.randn(target.shape, generator=g, dtype=torch.float64), target


def test_quantised_photographs_score_as_their_files_do(shared):
    """8-bit images on [0, 1] are what skimage measures on [0, 255]: float32 costs less than the last printed digit."""
    image = np.asarray(Image.open(shared / "data/denoise_dncnn/BSD68/test001.png").convert("L"))
    clean = torch.from_numpy(image.astype(np.float32) / 255)[None, None]
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(image.shape).astype(np.float32))
    levels = (clean + noise * 25 / 255).clamp(0, 1).mul(255).round()
    files = image, levels[0, 0].to(torch.uint8).numpy()
    assert value("psnr", levels / 255, clean) == pytest.approx(reference.peak_signal_noise_ratio(*files), abs=1e-5)
    ssim = reference.structural_similarity(
        *(a.astype(float) for a in files), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert value("ssim", levels / 255, clean) == pytest.approx(ssim, abs=1e-6)


# --- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS, NOISE, st.sampled_from(["psnr", "ssim", "mae", "rmse"]))
def test_swapping_turning_and_mirroring_change_nothing(seed, noise, name):
    prediction, target = pair(seed, noise)
    expected = pytest.approx(value(name, prediction, target), rel=1e-9)
    assert value(name, target, prediction) == expected
    assert value(name, prediction.flip(-1), target.flip(-1)) == expected
    assert value(name, prediction.rot90(1, (-2, -1)), target.rot90(1, (-2, -1))) == expected


@settings(max_examples=25, deadline=None)
@given(SEEDS, NOISE, st.floats(1.5, 10))
def test_psnr_counts_in_decibels(seed, noise, factor):
    prediction, target = pair(seed, noise)
    more = target + factor * (prediction - target)
    lost = value("psnr", prediction, target) - value("psnr", more, target)
    assert lost == pytest.approx(20 * math.log10(factor), abs=1e-9)
    assert value("psnr", prediction, target) == pytest.approx(-20 * math.log10(value("rmse", prediction, target)))
    assert value("mae", prediction, target) <= value("rmse", prediction, target)


@settings(max_examples=25, deadline=None)
@given(SEEDS, NOISE)
def test_ssim_is_at_most_1_and_reached_by_the_same_image_only(seed, noise):
    prediction, target = pair(seed, noise)
    assert value("ssim", target, target) == pytest.approx(1, abs=1e-12)
    assert -1 <= value("ssim", prediction, target) < 1


def test_identical_images_have_a_finite_psnr_and_perfect_scores():
    x = torch.rand(2, 1, 16, 16)
    for name, best in [("psnr", 100.0), ("ssim", 1.0), ("mae", 0.0), ("rmse", 0.0)]:
        assert value(name, x, x) == pytest.approx(best, abs=1e-9)


def test_ssim_names_images_that_are_too_small():
    with pytest.raises(UserError, match="11x11"):
        SSIM().update(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


# --- mattes ----------------------------------------------------------------------------------------------------------


def test_an_image_without_unknown_pixels_counts_as_zero():
    g = torch.Generator().manual_seed(0)
    prediction, target = (torch.rand(2, 1, 8, 8, generator=g) for _ in range(2))
    trimap = torch.full_like(target, 128 / 255)
    trimap[0] = 1.0
    for name in ("sad", "mse"):
        metric = create_metric(name)
        metric.update(prediction, target, trimap)
        assert metric.latest[0].item() == 0
        assert metric.latest[1].item() > 0
        assert metric.compute().item() == metric.latest[1].item() / 2
