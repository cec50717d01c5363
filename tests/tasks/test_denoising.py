"""The noise that denoising is tested with: its level on real photographs, unclipped, and the same every time.

A mean of images' PSNRs lies within 0.02 dB of 20 log10(255 / sigma) when the noise has that deviation and is not
clipped; clipping it to [0, 1] would add several times that.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from indexnet.metrics import create_metric
from indexnet.networks import create_network
from indexnet.tasks.denoising import DenoisingTask

SIGMAS = [15, 25, 50]
SETS = {"BSD68": 68, "Set12": 12}


def task(sigma, network=None, **options):
    built = DenoisingTask(network=network or {"name": "dncnn", "in_channels": 1}, sigma=sigma, **options)
    built.eval()
    return built


@pytest.fixture(scope="module")
def photographs(shared):
    """For every set, batches of one image as a loader gives them."""
    batches = {}
    for name, count in SETS.items():
        files = sorted((shared / "data/denoise_dncnn" / name).glob("*.png"))
        assert len(files) == count
        arrays = [np.asarray(Image.open(file).convert("L")).astype(np.float32) / 255 for file in files]
        batches[name] = [
            {"image": torch.from_numpy(array)[None, None], "name": [file.stem]}
            for file, array in zip(files, arrays, strict=True)
        ]
    return batches


def mean_psnr(pairs):
    metric = create_metric("psnr")
    for prediction, clean in pairs:
        metric.update(prediction, clean)
    return metric.compute().item()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_noisy_photographs_have_the_psnr_of_their_noise(photographs, name, sigma):
    denoising = task(sigma)
    prepared = [denoising.prepare(batch) for batch in photographs[name]]
    expected = 20 * math.log10(255 / sigma)
    assert mean_psnr((batch["noisy"], batch["image"]) for batch in prepared) == pytest.approx(expected, abs=0.02)
    clipped = mean_psnr((batch["noisy"].clamp(0, 1), batch["image"]) for batch in prepared)
    assert clipped > expected + 0.05


def zeroed():
    """A small DnCNN whose last layer gives 0."""
    network = create_network("dncnn", in_channels=1, depth=3, width=4).eval()
    for parameter in network.head.parameters():
        torch.nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_network_that_finds_no_noise_scores_what_its_input_does(photographs, sigma):
    """On all of Set12, to the last bit, through everything that a test uses."""
    denoising = task(sigma, zeroed())
    metric, noisy = create_metric("psnr"), []
    with torch.inference_mode():
        for batch in photographs["Set12"]:
            batch = denoising.prepare(batch)
            prediction = denoising.infer(batch)
            assert torch.equal(prediction, batch["noisy"])
            metric.update(*denoising.metric_inputs(prediction, batch))
            noisy.append((batch["noisy"], batch["image"]))
    assert metric.compute().item() == mean_psnr(noisy)
    assert metric.compute().item() == pytest.approx(20 * math.log10(255 / sigma), abs=0.02)


def test_the_noise_is_an_images_own(photographs):
    """It depends on nothing but the name and the shape: not on batch, order, seed, or what ran before."""
    first, second = photographs["Set12"][:2]
    alone = [task(25).prepare(batch)["noisy"] for batch in (first, second)]
    torch.manual_seed(7)
    np.random.seed(7)
    both = {"image": torch.cat([second["image"], first["image"]]), "name": second["name"] + first["name"]}
    together = task(25).prepare(both)["noisy"]
    assert torch.equal(together[1:], alone[0])
    assert torch.equal(together[:1], alone[1])
    noise = [noisy - batch["image"] for noisy, batch in zip(alone, (first, second), strict=True)]
    correlation = np.corrcoef(*(n.flatten().numpy() for n in noise))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(noise[0].numel())


def test_the_noise_at_two_levels_differs_in_scale_alone(photographs):
    batch = photographs["Set12"][0]
    low, high = (task(sigma).prepare(batch)["noisy"] - batch["image"] for sigma in (15, 50))
    torch.testing.assert_close(high, low * (50 / 15), rtol=0, atol=1e-6)


def test_the_noise_is_normal_and_white(photographs):
    """Over BSD68: mean, deviation, skewness, kurtosis, and correlation with the neighbour and with the image."""
    prepared = [task(25).prepare(batch) for batch in photographs["BSD68"][:20]]
    noise = [((b["noisy"] - b["image"]).double() * 255 / 25)[0, 0].numpy() for b in prepared]
    image = np.concatenate([b["image"].double().numpy().ravel() for b in prepared])
    flat = np.concatenate([n.ravel() for n in noise])
    within = 5 / math.sqrt(flat.size)  # five standard errors of each, in units of its own
    assert abs(flat.mean()) < within
    assert abs(flat.std() - 1) < within / math.sqrt(2) + 1e-6
    assert abs((flat**3).mean()) < within * math.sqrt(15)
    assert abs((flat**4).mean() - 3) < within * math.sqrt(96)
    assert abs(np.corrcoef(flat, image)[0, 1]) < within
    for axis in (0, 1):
        products = [
            np.take(n, range(1, n.shape[axis]), axis) * np.take(n, range(n.shape[axis] - 1), axis) for n in noise
        ]
        assert abs(np.concatenate([p.ravel() for p in products]).mean()) < 1.01 * within


def test_preparing_leaves_the_batch_as_it_was(photographs):
    batch = photographs["Set12"][0]
    before = batch["image"].clone()
    prepared = task(25).prepare(batch)
    assert "noisy" not in batch
    assert torch.equal(batch["image"], before)
    assert torch.equal(prepared["image"], before)
    assert prepared["noisy"].dtype == torch.float32
    assert prepared["noisy"].min() < 0 or prepared["noisy"].max() > 1  # not clipped


def test_quantised_results_are_8_bit(photographs):
    batch = photographs["Set12"][0]
    denoising = task(25, zeroed(), quantise=True)
    batch = denoising.prepare(batch)
    with torch.inference_mode():
        prediction = denoising.infer(batch)
    levels = batch["noisy"].clamp(0, 1).mul(255).round()
    torch.testing.assert_close(prediction * 255, levels, rtol=0, atol=1e-4)
