"""Errors and accuracies of depth maps: their definitions, which pixels count, and how they behave."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.core.errors import UserError
from indexnet.metrics import create_metric, valid_pixels

NAMES = ["depth_rmse", "rel", "log10", "delta1", "delta2", "delta3"]
PERFECT = {"depth_rmse": 0, "rel": 0, "log10": 0, "delta1": 1, "delta2": 1, "delta3": 1}
SEEDS = st.integers(0, 10_000)


def value(name, prediction, depth):
    """The metric of lists or of tensors (N, 1, H, W)."""
    if isinstance(depth, list):
        prediction, depth = (torch.tensor(a).view(1, 1, 1, -1) for a in (prediction, depth))
    metric = create_metric(name)
    metric.update(prediction, depth)
    return metric.compute().item()


def maps(seed, noise=0.4, n=3, size=(9, 7), lost=0.3):
    """Predictions and depths in metres, float64; 0 where nothing was measured."""
    g = torch.Generator().manual_seed(seed)
    depth = 0.7 + 9.3 * torch.rand(n, 1, *size, generator=g, dtype=torch.float64)
    prediction = depth * torch.exp(noise * torch.randn(depth.shape, generator=g, dtype=torch.float64))
    depth[torch.rand(depth.shape, generator=g) < lost] = 0
    return prediction, depth


def test_by_hand():
    prediction, depth = [1.0, 3.0, 4.0, 9.9], [1.0, 2.0, 8.0, 0.0]
    assert value("depth_rmse", prediction, depth) == pytest.approx(math.sqrt((0 + 1 + 16) / 3))
    assert value("rel", prediction, depth) == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert value("log10", prediction, depth) == pytest.approx((0 + math.log10(1.5) + math.log10(2)) / 3)
    assert [value(f"delta{i}", prediction, depth) for i in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_a_factor_of_the_threshold_itself_is_not_below_it():
    depth = [1.0, 1.25, 1.0, 1.0]
    prediction = [1.25, 1.0, 1.5625, 1.953125]
    assert [value(f"delta{i}", prediction, depth) for i in (1, 2, 3)] == [0, 0.5, 0.75]


@pytest.mark.parametrize("name", NAMES)
def test_only_measured_pixels_count(name):
    prediction, depth = maps(0)
    expected = value(name, prediction, depth)
    lost = ~valid_pixels(depth)
    for absent in (0.0, -1.0, math.nan, math.inf, -math.inf):
        for said in (0.0, 7.0, math.nan, math.inf):
            assert value(name, prediction.masked_fill(lost, said), depth.masked_fill(lost, absent)) == expected
    whole = depth.flatten()[~lost.flatten()].view(1, 1, 1, -1)
    assert value(name, prediction[~lost].view(1, 1, 1, -1), whole) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_nothing_are_a_millimetre(name):
    prediction, depth = maps(0)
    expected = value(name, torch.full_like(prediction, 1e-3), depth)
    assert math.isfinite(expected)
    for said in (0.0, -3.0):
        assert value(name, torch.full_like(prediction, said), depth) == expected
    assert value("log10", [0.0], [1.0]) == pytest.approx(3)


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_that_is_no_number_is_not_hidden(name):
    prediction, depth = maps(0, noise=0.0, lost=0.0)
    prediction[0, 0, 0, 0] = math.nan
    result = value(name, prediction, depth)
    assert result == 1 - 1 / depth.numel() if name.startswith("delta") else math.isnan(result)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0.01, 1), st.floats(0.1, 10))
def test_a_change_of_scale(seed, noise, factor):
    prediction, depth = maps(seed, noise)
    assert value("depth_rmse", factor * prediction, factor * depth) == pytest.approx(
        factor * value("depth_rmse", prediction, depth), rel=1e-9
    )
    for name in ("rel", "log10"):
        assert value(name, factor * prediction, factor * depth) == pytest.approx(value(name, prediction, depth))
    power = 2.0 ** round(math.log2(factor))  # exact, so that no pixel at a threshold changes sides
    for name in ("delta1", "delta2", "delta3"):
        assert value(name, power * prediction, power * depth) == value(name, prediction, depth)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_bounds_and_order(seed, noise):
    prediction, depth = maps(seed, noise)
    one, two, three = (value(f"delta{i}", prediction, depth) for i in (1, 2, 3))
    assert 0 <= one <= two <= three <= 1
    for name, best in PERFECT.items():
        assert value(name, depth, depth) == best
        if not name.startswith("delta"):
            assert value(name, prediction, depth) >= 0


@given(seed=SEEDS)
@settings(max_examples=10)
def test_averages_over_images_count_each_image_once(seed):
    """Hu et al.: means over the pixels of an image, then over images; one root of the mean squared error."""
    prediction, depth = maps(seed)
    depth[0, :, 2:] = 0  # an image with few measured pixels counts as much as the others
    expected: dict[str, list[float]] = {name: [] for name in NAMES}
    for p, d in zip(prediction, depth, strict=True):
        p, d = p[d > 0], d[d > 0]
        ratio = torch.maximum(p / d, d / p)
        expected["depth_rmse"].append((p - d).square().mean().item())
        expected["rel"].append(((p - d).abs() / d).mean().item())
        expected["log10"].append((p.log10() - d.log10()).abs().mean().item())
        for power in (1, 2, 3):
            expected[f"delta{power}"].append((ratio <= 1.25**power).double().mean().item())
    for name, numbers in expected.items():
        metric = create_metric(name, average="images")
        metric.update(prediction, depth)
        metric.update(prediction[:1], torch.zeros_like(depth[:1]))  # nothing measured: no image
        mean = sum(numbers) / len(numbers)
        assert metric.compute().item() == pytest.approx(math.sqrt(mean) if name == "depth_rmse" else mean)
    with pytest.raises(UserError, match=r"task\.average='image' must be pixels or images"):
        create_metric("rel", average="image")
