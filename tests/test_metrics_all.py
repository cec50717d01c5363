from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from skimage import metrics as reference

from indexnet.errors import UserError
from indexnet.metrics import PSNR, SAD, SSIM, create_metric, list_metrics

NAMES = [info.name for info in list_metrics()]


def images(n=5, channels=1, size=(24, 31), seed=0):
    """A batch with differing errors per image, as float32."""
    g = np.random.default_rng(seed)
    target = g.random((n, channels, *size))
    scale = np.linspace(0.01, 0.4, n).reshape(-1, 1, 1, 1)
    prediction = target + scale * g.standard_normal(target.shape)
    trimap = g.choice([0, 128, 255], (n, 1, *size)) / 255
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (prediction, target, trimap))


def arguments(name, batch):
    return batch if name in ("sad", "mse") else batch[:2]


def slow(name, prediction, target, trimap):
    """The metric of one image, by another way: loops, or scikit-image."""
    p, t = prediction.double().numpy(), target.double().numpy()
    if name == "psnr":
        return reference.peak_signal_noise_ratio(t, p, data_range=1.0)
    if name == "ssim":
        return reference.structural_similarity(
            t, p, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        )
    unknown = trimap.numpy() == np.float32(128 / 255)
    total = count = squared = inside = masked = 0.0
    for index in np.ndindex(p.shape):
        d = abs(p[index] - t[index])
        total, squared, count = total + d, squared + d * d, count + 1
        if unknown[index if p.shape == unknown.shape else (0, *index[1:])]:
            masked, inside = masked + (d if name == "sad" else d * d), inside + 1
    return {
        "mae": total / count,
        "rmse": math.sqrt(squared / count),
        "sad": masked / 1000,
        "mse": masked / max(inside, 1),
    }[name]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_metric_equals_its_slow_reference(name, channels):
    if name in ("sad", "mse") and channels == 3:
        channels = 1
    batch = images(channels=channels)
    metric = create_metric(name)
    metric.update(*arguments(name, batch))
    expected = [slow(name, *(t[i] for t in batch)) for i in range(5)]
    assert metric.latest.dtype == torch.float64
    np.testing.assert_allclose(metric.latest.numpy(), expected, rtol=0, atol=1e-9)
    assert metric.compute().item() == pytest.approx(np.mean(expected), abs=1e-9)
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_changes_no_number(name):
    batch = images(n=7)
    results = []
    for size in (1, 2, 3, 7):
        metric = create_metric(name)
        for start in range(0, 7, size):
            metric.update(*(t[start : start + size] for t in arguments(name, batch)))
        results.append(metric.compute().item())
    assert max(results) - min(results) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_metrics_reset_forward_and_travel(name):
    batch = arguments(name, images())
    metric = create_metric(name)
    first = metric(*(t[:2] for t in batch))
    metric(*(t[2:] for t in batch))
    whole = create_metric(name)
    whole.update(*batch)
    assert metric.compute().item() == pytest.approx(whole.compute().item(), abs=1e-12)
    assert first.item() == pytest.approx(whole.latest[:2].mean().item(), abs=1e-12)
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute().item() == metric.compute().item()
    metric.reset()
    assert metric.count.item() == 0
    assert metric.sum.dtype == torch.float64
    holder = torch.nn.ModuleList([metric]).half()  # what a 16-bit trainer does to its module
    metric.update(*batch)
    assert metric.sum.dtype == torch.float64
    assert next(iter(holder)).compute().item() == pytest.approx(whole.compute().item(), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_refuse_shapes_that_would_broadcast(name):
    batch = list(arguments(name, images()))
    batch[1] = batch[1][:1]
    with pytest.raises(ValueError, match="one shape"):
        create_metric(name).update(*batch)


@pytest.mark.parametrize("case", ["boy", "bulb_transparent"])
def test_sad_and_mse_are_the_published_ones(shared, case):
    folder = shared / "fixtures/official"
    expected = json.loads((folder / "metrics.json").read_text())[case]["matlab_transcription"]
    z = np.load(folder / "metrics.npz")
    batch = [torch.from_numpy(z[f"{case}_{k}"][None, None].astype(np.float32) / 255) for k in ("pred", "gt", "trimap")]
    for name in ("SAD", "MSE"):
        metric = create_metric(name.lower())
        metric.update(*batch)
        assert metric.compute().item() == pytest.approx(expected[name], rel=1e-6)


def test_identical_images_have_a_finite_psnr_and_perfect_scores():
    x = torch.rand(2, 1, 16, 16)
    for name, best in [("psnr", 100.0), ("ssim", 1.0), ("mae", 0.0), ("rmse", 0.0)]:
        metric = create_metric(name)
        metric.update(x, x)
        assert metric.compute().item() == pytest.approx(best, abs=1e-9)


def test_psnr_is_the_mean_of_the_decibels_not_of_the_errors():
    target = torch.zeros(2, 1, 4, 4)
    prediction = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.01)])
    metric = PSNR()
    metric.update(prediction, target)
    assert metric.compute().item() == pytest.approx((20 + 40) / 2, abs=1e-4)


def test_an_image_without_unknown_pixels_counts_as_zero():
    prediction, target, trimap = images(n=2)
    trimap[0] = 1.0
    for name in ("sad", "mse"):
        metric = create_metric(name)
        metric.update(prediction, target, trimap)
        assert metric.latest[0].item() == 0
        assert metric.latest[1].item() > 0


def test_ssim_names_images_that_are_too_small():
    with pytest.raises(UserError, match="11x11"):
        SSIM().update(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


def test_registry_names_the_nearest():
    with pytest.raises(UserError, match="'psnr'"):
        create_metric("psrn")
    better = {info.name: info.higher_is_better for info in list_metrics()}
    assert better == {"psnr": True, "ssim": True, "mae": False, "rmse": False, "sad": False, "mse": False}
    assert all(create_metric(n).higher_is_better is better[n] for n in NAMES)


def _shard(rank, file, folder):
    """One of two processes: three images and one."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    prediction, target, trimap = images(n=4)
    part = slice(0, 3) if rank == 0 else slice(3, 4)
    results = {}
    for name in NAMES:
        metric = create_metric(name)
        metric.update(*(t[part] for t in arguments(name, (prediction, target, trimap))))
        results[name] = [metric.compute().item(), metric.latest.numel()]
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.mark.long
def test_two_processes_with_uneven_shards_agree_with_one(tmp_path):
    torch.multiprocessing.spawn(_shard, args=(tmp_path / "rendezvous", tmp_path), nprocs=2)
    shards = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for name in NAMES:
        metric = create_metric(name)
        metric.update(*arguments(name, images(n=4)))
        assert shards[0][name] == [pytest.approx(metric.compute().item(), abs=1e-12), 3]
        assert shards[1][name] == [pytest.approx(metric.compute().item(), abs=1e-12), 1]


def test_uneven_shards_without_processes(monkeypatch):
    """The same sync through torchmetrics' own hook, quick: gather what two metrics hold."""
    batch = images(n=4)
    parts = [SAD(), SAD()]
    parts[0].update(*(t[:3] for t in batch))
    parts[1].update(*(t[3:] for t in batch))
    states = {id(p): [p.sum.clone(), p.count.clone()] for p in parts}
    calls = iter([[states[id(p)][0] for p in parts], [states[id(p)][1] for p in parts]])
    parts[0].sync(dist_sync_fn=lambda *_, **__: next(calls), distributed_available=lambda: True)
    whole = SAD()
    whole.update(*batch)
    assert (parts[0].sum / parts[0].count).item() == pytest.approx(whole.compute().item(), abs=1e-12)
