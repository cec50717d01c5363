"""PSNR, SSIM, MAE, RMSE and the errors of mattes: their definitions, on real photographs where there are some."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import metrics as reference

from indexnet.core.errors import UserError
from indexnet.metrics import PSNR, SSIM, create_metric

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


@pytest.fixture(scope="module")
def photographs(shared):
    """BSD68 as arrays (H, W) uint8."""
    files = sorted((shared / "data/denoise_dncnn/BSD68").glob("*.png"))
    assert len(files) == 68
    return [np.asarray(Image.open(file).convert("L")) for file in files]


def noisy(image, sigma, seed):
    """Noise that is not clipped, as float32 on [0, 1]; both (1, 1, H, W)."""
    clean = torch.from_numpy(image.astype(np.float32) / 255)[None, None]
    g = np.random.default_rng(seed).standard_normal(image.shape)
    return clean + torch.from_numpy((g * sigma / 255).astype(np.float32)), clean


# --- against skimage, on photographs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [15, 50])
def test_psnr_of_photographs_is_skimages(photographs, sigma):
    metric, expected = PSNR(), []
    for seed, image in enumerate(photographs):
        prediction, clean = noisy(image, sigma, seed)
        metric.update(prediction, clean)
        pictures = (t[0, 0].double().numpy() for t in (clean, prediction))
        expected.append(reference.peak_signal_noise_ratio(*pictures, data_range=1.0))
        assert metric.latest.item() == pytest.approx(expected[-1], abs=1e-10)
    assert metric.compute().item() == pytest.approx(np.mean(expected), abs=1e-10)


def test_ssim_of_photographs_is_skimages(photographs):
    for seed, image in enumerate(photographs[::8]):
        prediction, clean = noisy(image, 25, seed)
        expected = reference.structural_similarity(
            clean[0, 0].double().numpy(), prediction[0, 0].double().numpy(), data_range=1.0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert value("ssim", prediction, clean) == pytest.approx(expected, abs=1e-10)


def test_quantised_photographs_score_as_their_files_do(photographs):
    """8-bit images on [0, 1] are what skimage measures on [0, 255]: float32 costs less than the last printed digit."""
    image = photographs[0]
    prediction, clean = noisy(image, 25, 0)
    levels = prediction.clamp(0, 1).mul(255).round()
    files = image, levels[0, 0].to(torch.uint8).numpy()
    assert value("psnr", levels / 255, clean) == pytest.approx(reference.peak_signal_noise_ratio(*files), abs=1e-5)
    ssim = reference.structural_similarity(
        *(a.astype(float) for a in files), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert value("ssim", levels / 255, clean) == pytest.approx(ssim, abs=1e-6)


def test_ssim_is_the_published_formula():
    """Window by window, with the two-dimensional Gaussian, the constants and the valid region of the paper's code."""
    x, y = (t[0, 0].numpy() for t in pair(0, 0.2))
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    scores = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            scores.append(
                (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
            )  # fmt: skip
    assert value("ssim", *pair(0, 0.2)) == pytest.approx(np.mean(scores), abs=1e-12)


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


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1))
def test_psnr_of_a_constant_error(error):
    target = torch.full((1, 3, 12, 12), 0.25, dtype=torch.float64)
    assert value("psnr", target + error, target) == pytest.approx(-20 * math.log10(error), abs=1e-8)


def test_identical_images_have_a_finite_psnr_and_perfect_scores():
    x = torch.rand(2, 1, 16, 16)
    for name, best in [("psnr", 100.0), ("ssim", 1.0), ("mae", 0.0), ("rmse", 0.0)]:
        assert value(name, x, x) == pytest.approx(best, abs=1e-9)


def test_ssim_names_images_that_are_too_small():
    with pytest.raises(UserError, match="11x11"):
        SSIM().update(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


# --- mattes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["boy", "bulb_transparent"])
def test_sad_and_mse_are_the_published_ones(shared, case):
    folder = shared / "fixtures/official"
    expected = json.loads((folder / "metrics.json").read_text())[case]["matlab_transcription"]
    z = np.load(folder / "metrics.npz")
    batch = [torch.from_numpy(z[f"{case}_{k}"][None, None].astype(np.float32) / 255) for k in ("pred", "gt", "trimap")]
    for name in ("SAD", "MSE"):
        assert value(name.lower(), *batch) == pytest.approx(expected[name], rel=1e-6)


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
