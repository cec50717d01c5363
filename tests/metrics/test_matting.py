"""SAD, MSE, Grad and Conn: the numbers of three published programs, and every shortcut against the slow way."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.benchmarks.literal_metrics import literal
from indexnet.core.errors import UserError
from indexnet.metrics import create_metric, matting_errors

NAMES = ("sad", "mse", "grad", "conn")
SEMANTICS = {"matlab": "matlab_transcription", "released_python": "python_released", "mmediting": "mmediting"}
REGIONS = ("unknown", "image")


def batch(*arrays):
    """Arrays (H, W) on the scale of 0..255 as a metric takes them."""
    return [torch.from_numpy(np.asarray(array, np.float32) / np.float32(255))[None, None] for array in arrays]


def measured(name, prediction, target, trimap, **options):
    metric = create_metric(name, **options)
    metric.update(*batch(prediction, target, trimap))
    return metric.compute().item()


@pytest.mark.parametrize("way", [measured, literal])
@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("case", ["boy", "bulb_transparent"])
def test_the_published_numbers(shared, case, semantics, way):
    expected = json.loads((shared / "fixtures/official/metrics.json").read_text())[case][SEMANTICS[semantics]]
    with np.load(shared / "fixtures/official/metrics.npz") as z:
        arrays = [z[f"{case}_{key}"] for key in ("pred", "gt", "trimap")]
    assert set(expected) == {"SAD", "MSE", "Grad", "Conn"}
    for name, number in expected.items():
        assert way(name.lower(), *arrays, semantics=semantics) == pytest.approx(number, rel=1e-6, abs=0)


# --- against the slow way --------------------------------------------------------------------------------------------


@st.composite
def mattes(draw):
    """Prediction, target and trimap of one size: noise, few levels, blobs, constants; opaque and transparent."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (height, width)
    depth = draw(st.sampled_from([255, 65535, 0]))  # steps of the levels; 0: any float32

    def matte(kind, low, high):
        if kind == "noise":
            values = rng.random(shape)
        elif kind == "few levels":
            values = rng.choice(rng.random(draw(st.integers(1, 3))), shape)
        elif kind == "tenths":  # exactly on the thresholds, and on what is 0.15 above one
            values = rng.integers(0, 21, shape) / 20
        elif kind == "blobs":
            values = np.clip(cv2.GaussianBlur(rng.random(shape), (0, 0), 1.5) * 3 - 1, 0, 1)
        else:
            values = np.full(shape, rng.random())
        values = (low + (high - low) * values) * 255
        return (np.rint(values / 255 * depth) / depth * 255 if depth else values).astype(np.float32)

    kinds = st.sampled_from(["noise", "few levels", "tenths", "blobs", "constant"])
    ranges = st.sampled_from([(0, 1), (0, 200 / 255), (0, 0.05), (0.3, 0.8), (1, 1), (0, 0)])
    target = matte(draw(kinds), *draw(ranges))
    prediction = matte(draw(kinds), *draw(ranges))
    if draw(st.booleans()):  # a prediction as they are: near the target, in places
        prediction = np.where(rng.random(shape) < 0.5, prediction, target)
    regions = draw(st.sampled_from(["any", "unknown", "known", "one pixel", "half"]))
    trimap = rng.choice([0, 128, 255], shape)
    if regions == "unknown":
        trimap[:] = 128
    elif regions == "known":
        trimap = rng.choice([0, 255], shape)
    elif regions == "one pixel":
        trimap = rng.choice([0, 255], shape)
        trimap[rng.integers(height), rng.integers(width)] = 128
    elif regions == "half":
        trimap[:, : width // 2] = 0
    return prediction, target, trimap.astype(np.uint8)


@settings(max_examples=120, deadline=None)
@given(mattes(), st.sampled_from(list(SEMANTICS)), st.sampled_from(REGIONS))
def test_every_metric_equals_the_slow_way(arrays, semantics, region):
    """Single precision is off by so much at every pixel that counts, however small the differences that are added."""
    prediction, target, trimap = arrays
    unknown = trimap == 128
    seen = np.where(unknown, prediction, trimap) if semantics == "mmediting" else prediction
    span = min((float(np.ptp(matte)) / 255 for matte in (seen, target) if np.ptp(matte)), default=1)
    counted = int(unknown.sum()) if region == "unknown" else trimap.size
    for name in NAMES:
        slow = literal(name, *arrays, semantics=semantics, region=region)
        found = measured(name, *arrays, semantics=semantics, region=region)
        near = 1e-6 if name == "grad" else 2e-7  # the absolute values of its filters add up to 5
        if name == "grad" or semantics == "released_python":
            near /= span  # mattes are stretched to [0, 1]
        divisor = 10 if (name, semantics) == ("grad", "released_python") else 1000
        divisor = trimap.size if region == "image" else max(counted, 1) if name == "mse" else divisor
        scale = (trimap.size if semantics == "mmediting" else counted) / divisor
        if name in ("grad", "mse"):  # sums of squares: their roots are distances
            slow, found, scale = math.sqrt(slow), math.sqrt(found), math.sqrt(scale)
        assert found == pytest.approx(slow, rel=0, abs=near * scale), name


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.booleans()
)
def test_source_levels_equal_the_slow_way(seed, height, width, highest, empty_counts, by_columns):
    """Few pixels and few levels: many components of one size, and largest ones that lie apart from one another."""
    steps = np.random.default_rng(seed).integers(0, highest + 1, (height, width)).astype(np.uint8)
    expected = np.full(steps.shape, -1)
    for threshold in range(1, 11):
        mask = steps >= threshold
        if not mask.any() and not empty_counts:
            continue
        expected[(expected == -1) & ~_largest(mask, by_columns)] = threshold - 1
    expected[expected == -1] = 10
    np.testing.assert_array_equal(matting_errors.source_levels(steps, empty_counts, by_columns), expected)


def _largest(mask, by_columns):
    """The largest 4-connected component by filling from every pixel, the first of equal ones in reading order."""
    left, best = {(int(y), int(x)) for y, x in np.argwhere(mask)}, set()
    for start in sorted(left, key=lambda place: place[::-1] if by_columns else place):
        found, todo = set(), [start] if start in left else []
        while todo:
            y, x = todo.pop()
            if (y, x) in left:
                left.remove((y, x))
                found.add((y, x))
                todo += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        best = found if len(found) > len(best) else best
    result = np.zeros(mask.shape, bool)
    for place in best:
        result[place] = True
    return result


def photograph_like(seed, height=150, width=220):
    """A soft object with a hole and islands, and a prediction that is wrong at its border."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 6) * 6
    y, x = np.mgrid[:height, :width]
    alpha = np.clip((40 - np.hypot(y - height / 2, (x - width / 2) / 1.5)) / 8 + noise * 2, 0, 1)
    alpha = np.rint(alpha * 255).astype(np.uint8)
    mixed = ((alpha > 0) & (alpha < 255)).astype(np.uint8)
    unknown = cv2.dilate(mixed, np.ones((9, 9), np.uint8)) > 0
    trimap = np.where(unknown, 128, np.where(alpha == 255, 255, 0)).astype(np.uint8)
    wrong = cv2.GaussianBlur(alpha, (0, 0), 1.5) + rng.normal(0, 12, alpha.shape)
    return np.where(unknown, np.clip(wrong, 0, 255), trimap).astype(np.uint8), alpha, trimap


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_larger_mattes_equal_the_slow_way(semantics):
    """Large enough for several strips and pieces of the filters, and for regions that one filling finds."""
    for seed in range(3):
        arrays = photograph_like(seed)
        for name in NAMES:
            expected = literal(name, *arrays, semantics=semantics)
            assert expected > 0
            assert measured(name, *arrays, semantics=semantics) == pytest.approx(expected, rel=1e-6)


def test_pieces_of_the_filter_hold_every_pixel_once():
    rng = np.random.default_rng(0)
    for density in (0, 1e-4, 0.01, 0.5, 1):
        counted = rng.random((200, 300)) < density
        times = np.zeros(counted.shape, int)
        for top, bottom, left, right in matting_errors.pieces(counted):
            times[top:bottom, left:right] += 1
        assert times.max(initial=0) <= 1
        assert (times[counted] == 1).all()


# --- meaning ---------------------------------------------------------------------------------------------------------


def test_image_region_is_a_mean_over_all_pixels():
    prediction, target, trimap = photograph_like(1)
    prediction[:40] = 77  # wrong where the trimap is known
    difference = (prediction.astype(float) - target) / 255
    assert measured("sad", prediction, target, trimap, region="image") == pytest.approx(
        np.abs(difference).mean(), rel=1e-6
    )
    assert measured("mse", prediction, target, trimap, region="image") == pytest.approx(
        (difference**2).mean(), rel=1e-6
    )
    everything = np.full_like(trimap, 128)
    for name in ("sad", "grad", "conn"):
        whole = measured(name, prediction, target, everything)
        assert measured(name, prediction, target, trimap, region="image") == pytest.approx(whole * 1000 / trimap.size)
        assert create_metric(name, region="image").info.unit == ""
        assert create_metric(name).info.unit == create_metric(name).info.unit == "thousands"


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_a_perfect_matte_has_no_error(semantics):
    _, target, trimap = photograph_like(2)
    for name in NAMES:
        assert measured(name, target, target, trimap, semantics=semantics) == 0


def test_known_pixels_count_as_each_program_has_it():
    prediction, target, trimap = photograph_like(3)
    wrong = prediction.copy()
    wrong[trimap == 0] = (
        9  # in Grad and Conn known pixels matter to unknown ones beside them; in SAD and MSE they do not
    )
    for name in ("sad", "mse"):
        assert measured(name, wrong, target, trimap) == measured(name, prediction, target, trimap)
    for name in NAMES:  # MMEditing copies known pixels from the trimap
        same = [measured(name, each, target, trimap, semantics="mmediting") for each in (wrong, prediction)]
        assert same[0] == same[1]
    beside = target.copy()
    beside[trimap == 255] = 200  # a target that disagrees with its trimap
    assert measured("sad", prediction, beside, trimap, semantics="mmediting") > measured(
        "sad", prediction, beside, trimap
    )


def test_levels_of_8_bits_survive_another_way_of_dividing():
    """On a GPU x / 255 is x * (1 / 255), one unit in the last place off; 153 must reach 0.6 all the same."""
    prediction, target, trimap = photograph_like(4)
    exact = create_metric("conn")
    exact.update(*batch(prediction, target, trimap))
    other = create_metric("conn")
    levels = [torch.from_numpy(a.astype(np.float32))[None, None] for a in (prediction, target)]
    nudged = [
        torch.nextafter(x / 255, torch.tensor(direction)) for x, direction in zip(levels, (0.0, 1.0), strict=True)
    ]
    other.update(*nudged, batch(trimap)[0])
    assert other.compute() == exact.compute()


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_what_is_not_finite_has_no_number(semantics):
    arrays = batch(*photograph_like(5))
    arrays[0][0, 0, 75, 110] = math.nan
    arrays[2][:] = 128 / 255
    for name in NAMES:
        metric = create_metric(name, semantics=semantics)
        metric.update(*arrays)
        assert math.isnan(metric.compute().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_strided_mattes_are_taken(dtype):
    arrays = [a.to(dtype).transpose(2, 3) for a in batch(*(np.ascontiguousarray(a.T) for a in photograph_like(6)))]
    for name in NAMES:
        metric = create_metric(name)
        metric.update(*arrays)
        assert metric.compute().item() == pytest.approx(measured(name, *photograph_like(6)), rel=1e-6)


def test_options_are_checked():
    with pytest.raises(UserError, match=r"semantics='mathlab' must be one of matlab, released_python, mmediting"):
        create_metric("conn", semantics="mathlab")
    with pytest.raises(UserError, match=r"region='all' must be one of unknown, image"):
        create_metric("sad", region="all")


@pytest.mark.gpu
def test_mattes_on_a_gpu_give_the_same_numbers():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    arrays = photograph_like(7)
    levels = [torch.from_numpy(a.astype(np.float32))[None, None] for a in arrays]
    for name in NAMES:
        metric = create_metric(name).cuda()
        metric.update(*(x.cuda() / 255 for x in levels))
        assert metric.compute().is_cuda
        assert metric.compute().item() == pytest.approx(measured(name, *arrays), rel=1e-6)
