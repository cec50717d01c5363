"""The contract of metrics, on every registered one."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from skimage import metrics as reference

from indexnet.benchmarks.literal_metrics import literal
from indexnet.core.errors import UserError
from indexnet.metrics import PerImageMetric, SumMetric, create_metric, get_metric, list_metrics

INFOS = {info.name: info for info in list_metrics()}
NAMES = list(INFOS)
PER_IMAGE = [name for name in NAMES if issubclass(get_metric(name), PerImageMetric)]
POOLED = [name for name in NAMES if name not in PER_IMAGE]
COUNTS = [
    "miou",
    "trimap_miou",
    "pixel_accuracy",
    "delta1",
    "delta2",
    "delta3",
]  # sums of whole numbers: no rounding anywhere
CLASSES = 5


def images(n=5, channels=1, size=(24, 31), seed=0):
    """A batch with differing errors per image, as float32."""
    g = np.random.default_rng(seed)
    target = g.random((n, channels, *size))
    scale = np.linspace(0.01, 0.4, n).reshape(-1, 1, 1, 1)
    prediction = target + scale * g.standard_normal(target.shape)
    trimap = g.choice([0, 128, 255], (n, 1, *size)) / 255
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (prediction, target, trimap))


def class_maps(n=5, size=(24, 31), seed=0):
    """Predictions and labels of 5 classes, of which the last never occurs; a third of the pixels do not count."""
    g = np.random.default_rng(seed)
    label = g.integers(0, CLASSES - 1, (n, *size))
    prediction = np.where(g.random(label.shape) < np.linspace(0.1, 0.9, n)[:, None, None], label, 2)
    label[g.random(label.shape) < 1 / 3] = 255
    return torch.from_numpy(prediction[:, None]), torch.from_numpy(label)


def depth_maps(n=5, size=(24, 31), seed=0):
    """Predictions and depths in metres; the share of measured pixels differs, and so do the errors."""
    g = np.random.default_rng(seed)
    depth = g.uniform(0.7, 10, (n, 1, *size))
    prediction = depth * np.exp(np.linspace(0.05, 0.5, n)[:, None, None, None] * g.standard_normal(depth.shape))
    lost = g.random(depth.shape) < np.linspace(0.9, 0.1, n)[:, None, None, None]
    depth[lost] = g.choice([0, -1, np.nan, np.inf], lost.sum())
    prediction[lost] = g.choice([0, 3, np.nan, -np.inf], lost.sum())
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (prediction, depth))


def create(name):
    return create_metric(name, classes=CLASSES) if INFOS[name].task == "segmentation" else create_metric(name)


def arguments(name, n=5, seed=0):
    """What the metric's ``update`` takes: N images."""
    task = INFOS[name].task
    if name == "trimap_miou":
        return images(n, seed=seed)[2], images(n, seed=seed + 1)[2]
    if task == "segmentation":
        return class_maps(n, seed=seed)
    if task == "depth":
        return depth_maps(n, seed=seed)
    return images(n, seed=seed)[: 3 if task in ("matting", "portrait") else 2]


def part(batch, start, stop):
    return tuple(t[start:stop] for t in batch)


def measured(name, *batches):
    """The metric after batches."""
    metric = create(name)
    for batch in batches:
        metric.update(*batch)
    return metric


def close(name):
    """How near two results must be: equal where the sums are of whole numbers."""
    return {"rel": 0, "abs": 0} if name in COUNTS else {"rel": 1e-13, "abs": 1e-15}


def slow(name, *arrays):
    """The metric of the pixels of one or more images taken together, by another way: loops, or scikit-image."""
    if name == "trimap_miou":
        arrays = tuple((trimap * 255).round().long() for trimap in arrays)
        return slow_segmentation(name, *(torch.where(t == 128, 2, torch.where(t == 255, 0, 1)) for t in arrays))
    if INFOS[name].task == "segmentation":
        return slow_segmentation(name, *arrays)
    if INFOS[name].task == "depth":
        return slow_depth(name, *arrays)
    p, t, *trimap = (a.double().numpy() for a in arrays)
    if name == "psnr":
        return reference.peak_signal_noise_ratio(t, p, data_range=1.0)
    if name == "ssim":
        return reference.structural_similarity(
            t, p, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        )
    if name in ("grad", "conn"):
        return literal(name, p[0] * 255, t[0] * 255, np.rint(trimap[0][0] * 255))
    if name in ("grad_full", "conn_full"):  # everything is unknown, and the sum in thousands becomes a mean
        everywhere = literal(name.removesuffix("_full"), p[0] * 255, t[0] * 255, np.full(t[0].shape, 128.0))
        return everywhere * 1000 / t[0].size
    total = count = squared = inside = masked = 0.0
    for index in np.ndindex(p.shape):
        d = abs(p[index] - t[index])
        total, squared, count = total + d, squared + d * d, count + 1
        if trimap and trimap[0][index] == np.float32(128 / 255):
            masked, inside = masked + (d if name == "sad" else d * d), inside + 1
    return {
        "mae": total / count,
        "rmse": math.sqrt(squared / count),
        "sad_full": total / count,
        "mse_full": squared / count,
        "sad": masked / 1000,
        "mse": masked / max(inside, 1),
    }[name]


def slow_segmentation(name, prediction, label):
    pixels = [(p, t) for p, t in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True) if t != 255]
    if name == "pixel_accuracy":
        return 100 * sum(p == t for p, t in pixels) / len(pixels) if pixels else math.nan
    ious = []
    for number in range(CLASSES):
        both = sum(p == t == number for p, t in pixels)
        either = sum(number in pair for pair in pixels)
        ious += [both / either] if either else []
    return 100 * sum(ious) / len(ious) if ious else math.nan


def slow_depth(name, prediction, depth):
    pairs = zip(prediction.flatten().tolist(), depth.flatten().tolist(), strict=True)
    pixels = [(max(p, 1e-3), t) for p, t in pairs if math.isfinite(t) and t > 0]
    numbers = {
        "depth_rmse": lambda p, t: (p - t) ** 2,
        "rel": lambda p, t: abs(p - t) / t,
        "log10": lambda p, t: abs(math.log10(p) - math.log10(t)),
    }
    if name.startswith("delta"):
        each = [float(max(p / t, t / p) < 1.25 ** int(name[-1])) for p, t in pixels]
    else:
        each = [numbers[name](p, t) for p, t in pixels]
    mean = math.fsum(each) / len(each) if each else math.nan
    return math.sqrt(mean) if name == "depth_rmse" else mean


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_equals_its_slow_reference(name):
    batch = arguments(name)
    metric = measured(name, batch)
    expected = [slow(name, *(t[i] for t in batch)) for i in range(5)]
    assert metric.latest.dtype == torch.float64
    near = {"grad": 1e-8, "grad_full": 1e-7}.get(name, 1e-9)  # their filters run in single precision
    np.testing.assert_allclose(metric.latest.numpy(), expected, rtol=0, atol=near)
    whole = slow(name, *batch) if name in POOLED else np.mean(expected)
    assert metric.compute().item() == pytest.approx(whole, abs=near)
    assert metric.compute().dtype == torch.float64
    assert metric.compute().shape == ()


@pytest.mark.parametrize("name", ["mae", "rmse", "psnr", "ssim"])
def test_image_metrics_take_colours_too(name):
    batch = images(channels=3)[:2]
    expected = [slow(name, *(t[i] for t in batch)) for i in range(5)]
    np.testing.assert_allclose(measured(name, batch).latest.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_changes_no_number(name):
    batch = arguments(name, n=7)
    whole = measured(name, batch)
    for size in (1, 2, 3, 5):
        metric, latest = create(name), []
        for start in range(0, 7, size):
            metric.update(*part(batch, start, start + size))
            latest.append(metric.latest)
        assert metric.compute().item() == pytest.approx(whole.compute().item(), **close(name))
        np.testing.assert_allclose(torch.cat(latest).numpy(), whole.latest.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_other_sizes_add_up(name):
    """One update a size, as test sets of whole photographs give them."""
    first = arguments(name)
    second = tuple(t[..., :20, :15] for t in arguments(name, n=3, seed=1))
    metric = measured(name, first, second)
    if name in PER_IMAGE:
        numbers = torch.cat([measured(name, first).latest, measured(name, second).latest])
        assert metric.compute().item() == pytest.approx(numbers.mean().item(), rel=1e-13)
    else:
        flat = [torch.cat([a.flatten(), b.flatten()]) for a, b in zip(first, second, strict=True)]
        assert metric.compute().item() == pytest.approx(slow(name, *flat), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_reset_forward_and_travel(name):
    batch = arguments(name)
    metric = create(name)
    first = metric(*part(batch, 0, 2))
    metric(*part(batch, 2, 5))
    whole = measured(name, batch)
    assert metric.compute().item() == pytest.approx(whole.compute().item(), **close(name))
    assert first.item() == measured(name, part(batch, 0, 2)).compute().item()
    travelled = pickle.loads(pickle.dumps(metric))
    assert travelled.compute().item() == metric.compute().item()
    metric.reset()
    assert not metric.total.any()
    assert metric.total.dtype == torch.float64
    holder = torch.nn.ModuleList([metric]).half()  # what a 16-bit trainer does to its module
    metric.update(*batch)
    assert metric.total.dtype == torch.float64
    assert next(iter(holder)).compute().item() == pytest.approx(whole.compute().item(), **close(name))


@pytest.mark.parametrize("name", NAMES)
def test_metrics_merge_and_clone(name):
    batch = arguments(name)
    metric, other = measured(name, part(batch, 0, 2)), measured(name, part(batch, 2, 5))
    again = metric.clone()
    metric.merge_state(other)
    assert metric.compute().item() == pytest.approx(measured(name, batch).compute().item(), **close(name))
    assert again.compute().item() == measured(name, part(batch, 0, 2)).compute().item()
    assert not metric.state_dict()  # a checkpoint holds no half of a measurement
    assert copy.deepcopy(metric).to("cpu").compute().item() == metric.compute().item()


@pytest.mark.parametrize("task", sorted({info.task for info in INFOS.values()}))
def test_metrics_of_a_collection_stay_apart(task):
    """torchmetrics takes metrics for one that agree after a first batch, and a perfect prediction makes many agree."""
    import torchmetrics  # not above: a spawned process imports this file before indexnet

    names = [name for name in NAMES if INFOS[name].task == task and name != "trimap_miou"]  # which takes trimaps
    first, second = arguments(names[0]), arguments(names[0], seed=1)
    perfect = (first[1].clamp(max=CLASSES - 1)[:, None] if task == "segmentation" else first[1], *first[1:])
    collection = torchmetrics.MetricCollection({name: create(name) for name in names}, prefix="val/")
    for batch in (perfect, second):
        collection.update(*batch)
    alone = {f"val/{name}": measured(name, perfect, second).compute().item() for name in names}
    assert {name: number.item() for name, number in collection.compute().items()} == alone


@pytest.mark.parametrize("name", [name for name in NAMES if INFOS[name].task in ("depth", "matting")])
def test_maps_need_no_axis_for_their_one_channel(name):
    batch = arguments(name)
    expected = measured(name, batch).compute().item()
    assert measured(name, tuple(each[:, 0] for each in batch)).compute().item() == expected
    assert measured(name, (batch[0][:, 0], *batch[1:])).compute().item() == expected
    for wrong in (batch[0][0], batch[0].expand(-1, 3, -1, -1), batch[0][:, 0, 0]):
        with pytest.raises(ValueError, match=r"of one shape, \(N, 1, H, W\) or \(N, H, W\)") as error:
            create(name).update(wrong, *batch[1:])
        assert str(tuple(wrong.shape)) in str(error.value)
        assert str(tuple(batch[1].shape)) in str(error.value)


def test_torchmetrics_gives_the_same_where_it_measures_the_same():
    """The RMSE is a mean of roots here; SSIM has no windows that leave the image, which torchmetrics mirrors."""
    import torchmetrics
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    prediction, target, _ = images(channels=3)
    _, everywhere = StructuralSimilarityIndexMeasure(data_range=1.0, return_full_image=True)(prediction, target)
    theirs = {
        "psnr": PeakSignalNoiseRatio(data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))(prediction, target),
        "ssim": everywhere[..., 5:-5, 5:-5].mean(),
        "mae": torchmetrics.MeanAbsoluteError()(prediction, target),
    }
    for name, number in theirs.items():
        assert create(name)(prediction, target).item() == pytest.approx(number.item(), rel=1e-5), name


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_nothing_has_no_number(name):
    metric = create(name)
    assert math.isnan(metric.compute().item())
    assert metric.latest.shape == (0,)


@pytest.mark.parametrize("name", [name for name in NAMES if INFOS[name].task in ("depth", "segmentation")])
def test_an_image_without_a_target_has_no_number_and_changes_none(name):
    batch = arguments(name)
    batch[1][1] = 255 if INFOS[name].task == "segmentation" else 0
    metric = measured(name, batch)
    assert torch.isnan(metric.latest).tolist() == [False, True, False, False, False]
    others = measured(name, part(batch, 0, 1), part(batch, 2, 5))
    assert metric.compute().item() == pytest.approx(others.compute().item(), **close(name))
    assert math.isnan(measured(name, part(batch, 1, 2)).compute().item())


@pytest.mark.parametrize("name", NAMES)
def test_metrics_refuse_shapes_that_would_broadcast(name):
    batch = list(arguments(name))
    batch[1] = batch[1][:1]
    with pytest.raises(ValueError, match=r"of one (shape|size)"):
        create(name).update(*batch)


def test_registry_names_the_nearest():
    with pytest.raises(UserError, match="'psnr'"):
        create_metric("psrn")
    better = {"psnr", "ssim", "miou", "trimap_miou", "pixel_accuracy", "delta1", "delta2", "delta3"}
    assert {name for name in NAMES if INFOS[name].higher_is_better} == better
    assert all(create(name).higher_is_better is INFOS[name].higher_is_better for name in NAMES)
    assert all(isinstance(create(name), SumMetric) for name in NAMES)


def test_options_are_checked():
    with pytest.raises(UserError, match=r"no option 'clases'\. Did you mean 'classes'"):
        create_metric("miou", clases=3)
    with pytest.raises(UserError, match="needs the option 'classes'"):
        create_metric("pixel_accuracy")
    with pytest.raises(UserError, match="no option 'classes'"):
        create_metric("psnr", classes=3)
    for classes in (0, 256, 2.0, True, "3"):
        with pytest.raises(UserError, match="whole number from 1 to 255"):
            create_metric("miou", classes=classes)


# --- several processes -----------------------------------------------------------------------------------------------

SHARDS = {2: [(0, 5), (5, 6)], 3: [(0, 3), (3, 6), (6, 6)]}  # uneven; the last of three has nothing to do


@pytest.mark.parametrize("world", SHARDS)
@pytest.mark.parametrize("name", NAMES)
def test_uneven_shards_without_processes(name, world):
    """torchmetrics' own synchronisation, with the exchange between processes replaced by a list."""
    batch = arguments(name, n=6)
    ranks = [measured(name, *([part(batch, *ends)] if ends[0] < ends[1] else [])) for ends in SHARDS[world]]
    totals = [metric.total.clone() for metric in ranks]
    expected = measured(name, batch).compute().item()
    for metric, total in zip(ranks, totals, strict=True):
        metric.sync(dist_sync_fn=lambda *_, **__: totals, distributed_available=lambda: True)
        assert metric.value(metric.total).item() == pytest.approx(expected, **close(name))
        metric.unsync()
        assert torch.equal(metric.total, total)


def _shard(rank, world, file, folder):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    results = {}
    for name in NAMES:
        start, stop = SHARDS[world][rank]
        metric = create(name)
        if start < stop:
            metric.update(*part(arguments(name, n=6), start, stop))
        results[name] = [metric.compute().item(), metric.latest.numel()]
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("world", SHARDS)
def test_processes_with_uneven_shards_agree_with_one(tmp_path, world):
    torch.multiprocessing.spawn(_shard, args=(world, tmp_path / "rendezvous", tmp_path), nprocs=world)
    for rank, (start, stop) in enumerate(SHARDS[world]):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        for name in NAMES:
            expected = measured(name, arguments(name, n=6)).compute().item()
            assert results[name] == [pytest.approx(expected, **close(name)), stop - start]
