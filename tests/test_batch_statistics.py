"""benchmarks/batch_statistics.py: patches of photographs, denoised by running statistics and by those of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batch_statistics import BATCHES, by_batch, measure, patches, reestimate, training_batches
from torch import nn

from indexnet.data import create_data
from indexnet.tasks.denoising import DenoisingTask


@pytest.fixture
def cut():
    """Two photographs, 16x25 and 24x16, in patches of 8: six each."""
    rng = np.random.default_rng(0)
    photographs = [
        {"name": name, "image": torch.from_numpy(rng.random((1, *size), dtype=np.float32))}
        for name, size in (("a", (16, 25)), ("b", (24, 16)))
    ]
    network = {"name": "dncnn_segnet", "in_channels": 1, "base_channels": 2}
    return photographs, patches(DenoisingTask(network, sigma=25), photographs, 8)


def test_patches_are_those_of_the_photographs(cut):
    photographs, (noisy, clean, numbers) = cut
    assert noisy.shape == clean.shape == (12, 1, 8, 8)
    assert numbers.tolist() == [0] * 6 + [1] * 6
    assert torch.equal(clean[4], photographs[0]["image"][:, 8:16, 8:16])
    assert torch.equal(clean[11], photographs[1]["image"][:, 16:24, 8:16])
    assert (noisy - clean).std() == pytest.approx(25 / 255, rel=0.1)


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_a_network_without_norms_does_not_depend_on_batches(cut, batch):
    noisy, clean, numbers = cut[1]
    mse = [(noisy - clean)[numbers == n].double().square().mean() for n in (0, 1)]
    assert measure(nn.Identity(), noisy, clean, numbers, batch) == pytest.approx([-10 * float(e.log10()) for e in mse])


def test_statistics_of_batches_change_what_they_normalize_and_nothing_else(cut):
    noisy, clean, numbers = cut[1]
    norm, dropout = nn.BatchNorm2d(1, affine=False), nn.Dropout()
    network = nn.Sequential(norm, dropout).eval()
    running = measure(network, noisy, clean, numbers, 12)
    found = measure(by_batch(network), noisy, clean, numbers, 12)
    whole = (noisy - noisy.mean()) / (noisy.var(correction=0) + norm.eps).sqrt()
    mse = [(whole - clean)[numbers == n].double().square().mean() for n in (0, 1)]
    assert found == pytest.approx([-10 * float(e.log10()) for e in mse], rel=1e-5)
    assert not dropout.training
    assert (norm.running_mean, norm.running_var) == (0, 1)
    assert running != pytest.approx(found, abs=0.1)


def test_statistics_estimated_anew_are_means_over_batches_and_nothing_else_changes(cut):
    noisy, clean, numbers = cut[1]
    norm, dropout = nn.BatchNorm2d(1, affine=False), nn.Dropout()
    network = nn.Sequential(norm, dropout).eval()
    norm.running_mean.fill_(9.0)
    assert reestimate(network, [noisy[:4], noisy[4:]]) is network
    assert not any(module.training for module in network.modules())
    assert float(norm.running_mean) == pytest.approx((noisy[:4].mean() + noisy[4:].mean()).item() / 2)
    assert float(norm.running_var) == pytest.approx((noisy[:4].var() + noisy[4:].var()).item() / 2)
    assert norm.momentum == 0.1
    alone, together = (measure(network, noisy, clean, numbers, batch) for batch in (1, 12))
    assert alone == pytest.approx(together)


def test_training_batches_are_noisy_and_the_same_every_time():
    train = create_data("photos", task="denoising", size=8, train_count=20).train()
    first, again, clean = (list(training_batches(train, sigma, 4)) for sigma in (25, 25, 0))
    assert [tuple(each.shape) for each in first] == [(4, train[0]["image"].shape[0], 8, 8)] * BATCHES
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert (torch.stack(first) - torch.stack(clean)).std() == pytest.approx(25 / 255, rel=0.05)
