"""Terms of losses against the sources' own numbers, and against literal loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.losses import (
    DEPTH_TERMS,
    MATTING_TERMS,
    PORTRAIT_TERMS,
    affinity_loss,
    check_terms,
    depth_loss,
    matting_loss,
    portrait_loss,
)


@pytest.fixture
def known(shared):
    return np.load(shared / "fixtures/upsamplers/losses.npz")


def tensors(known, *names):
    return [torch.from_numpy(known[name]).double() for name in names]


def per_sample(weights, prediction, alpha, mask, fg=None, bg=None, image=None):
    """The loss of every sample, and its unknown area."""
    values = []
    for n in range(len(prediction)):
        parts = [None if each is None else each[n : n + 1] for each in (prediction, alpha, mask, fg, bg, image)]
        parts[2] = parts[2] * 128 / 255
        values.append(matting_loss(*parts, weights=weights)["loss"].item())
    return np.array(values), mask.sum((1, 2, 3)).numpy()


@pytest.mark.parametrize(
    ("term", "name"), [("alpha", "a2u_weighted_loss_wl1"), ("composition", "a2u_weighted_loss_wl0")]
)
def test_alpha_and_composition_are_those_of_a2u(known, term, name):
    losses, area = per_sample({term: 1}, *tensors(known, "pred", "gt", "mask", "fg", "bg", "img"))
    assert np.mean(losses * area / (area + 1)) == pytest.approx(float(known[name]), abs=1e-6)  # which adds a pixel


@pytest.mark.parametrize(("term", "name"), [("alpha", "gca_l1"), ("composition", "gca_comp_l1")])
def test_alpha_and_composition_are_those_of_gca(known, term, name):
    losses, area = per_sample({term: 1}, *tensors(known, "pred", "gt", "mask", "fg", "bg", "img"))
    assert np.average(losses, weights=area) == pytest.approx(float(known[name]), abs=2e-6)  # not smooth, over the batch


def test_the_gradient_penalty_is_that_of_the_papers(known):
    losses, area = per_sample({"gradient_penalty": 1}, *tensors(known, "vit_pred", "vit_gt", "vit_mask"))
    assert np.average(losses, weights=area) == pytest.approx(float(known["lgp_masked_mean"]), rel=1e-6)


def test_the_laplacian_is_that_of_vitmatte(known):
    prediction, alpha = tensors(known, "vit_pred", "vit_gt")
    loss = matting_loss(prediction, alpha, torch.zeros_like(alpha), weights={"laplacian": 1})
    assert loss["loss"].item() / 5 == pytest.approx(float(known["vit_laplacian"]), rel=1e-6)  # which divides by levels


def test_the_laplacian_against_opencv():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 71, 66))
    expected, rest = 0.0, a - b
    for level in range(5):
        rest = rest[: len(rest) // 2 * 2, : rest.shape[1] // 2 * 2]
        small = cv2.pyrDown(rest)
        spread = np.zeros_like(rest)
        spread[::2, ::2] = 4 * small
        band = rest - cv2.GaussianBlur(spread, (5, 5), 0, borderType=cv2.BORDER_REFLECT_101) * 0
        taps = np.array([1, 4, 6, 4, 1]) / 16
        band -= cv2.sepFilter2D(spread, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
        expected, rest = expected + 2**level * np.abs(band).mean(), small
    given = (torch.from_numpy(each)[None, None] for each in (a, b))
    loss = matting_loss(*given, torch.zeros(1, 1, 71, 66), weights={"laplacian": 1})["laplacian"]
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_laplacian_of_small_images_has_fewer_levels():
    maps = torch.rand(1, 1, 8, 8)
    loss = matting_loss(maps, torch.zeros_like(maps), torch.zeros_like(maps), weights={"laplacian": 1})["laplacian"]
    assert torch.isfinite(loss)
    assert matting_loss(maps[..., :2], maps[..., 2:4], maps[..., :2], weights={"laplacian": 1})["laplacian"] == 0


def sobel(maps):
    """Sobel's gradients, zero outside, by OpenCV."""
    return [cv2.Sobel(maps, cv2.CV_64F, *order, ksize=3, borderType=cv2.BORDER_CONSTANT) for order in ((1, 0), (0, 1))]


@pytest.mark.parametrize(("term", "smoothness"), [("gradient", 0.0), ("gradient_penalty", 0.01)])
def test_gradients_against_opencv(term, smoothness):
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 9, 11))
    unknown = rng.random((9, 11)) < 0.4
    values = sum(np.abs(x - y) + smoothness * np.abs(x) for x, y in zip(sobel(a), sobel(b), strict=True))
    prediction, alpha = (torch.from_numpy(each)[None, None] for each in (a, b))
    trimap = torch.from_numpy(np.where(unknown, 128 / 255, 1.0))[None, None]
    loss = matting_loss(prediction, alpha, trimap, weights={term: 2})
    assert loss[term].item() == pytest.approx(values[unknown].mean(), rel=1e-9)
    assert loss["loss"].item() == 2 * loss[term].item()


def test_depth_terms_against_opencv():
    rng = np.random.default_rng(2)
    given = rng.uniform(0.5, 5, (2, 12, 10))
    truth = rng.uniform(0.5, 5, (2, 12, 10))
    measured = rng.random((2, 12, 10)) > 0.1
    truth[~measured] = 0
    sums = dict.fromkeys(DEPTH_TERMS, 0.0)
    areas = dict.fromkeys(DEPTH_TERMS, 0)
    for a, b, m in zip(given, truth, measured, strict=True):
        inner = cv2.erode(m.astype(np.uint8), np.ones((3, 3))).astype(bool)  # outside does not matter
        error = np.where(m, a - b, 0)
        ours, true = sobel(a), sobel(b)
        cosine = sum(x * y for x, y in zip(ours, true, strict=True)) + 1
        cosine /= np.sqrt(ours[0] ** 2 + ours[1] ** 2 + 1) * np.sqrt(true[0] ** 2 + true[1] ** 2 + 1)
        values = {
            "l1": (np.abs(error), m),
            "log": (np.log(np.abs(error) + 0.5), m),
            "gradient": (sum(np.log(np.abs(each) + 0.5) for each in sobel(error)), inner),
            "normal": (np.abs(1 - cosine), inner),
        }
        for name, (value, where) in values.items():
            sums[name] += value[where].sum()
            areas[name] += where.sum()
    prediction, depth = (torch.from_numpy(each)[:, None] for each in (given, truth))
    losses = depth_loss(prediction, depth, depth > 0, dict.fromkeys(DEPTH_TERMS, 1.0))
    for name, total in sums.items():
        assert losses[name].item() == pytest.approx(total / areas[name], rel=1e-6), name
    assert losses["loss"].item() == pytest.approx(sum(losses[name].item() for name in DEPTH_TERMS))


def test_depth_terms_of_nothing_measured_and_of_half_precision():
    depth = torch.zeros(1, 1, 6, 6)
    prediction = torch.full((1, 1, 6, 6), 2.0, dtype=torch.bfloat16, requires_grad=True)
    losses = depth_loss(prediction, depth, depth > 0, dict.fromkeys(DEPTH_TERMS, 1.0))
    losses["loss"].backward()
    assert losses["loss"] == 0
    assert torch.isfinite(prediction.grad).all()
    losses = depth_loss(prediction, depth + 2, depth == 0, {"log": 1, "gradient": 1, "normal": 1})
    losses["loss"].backward()
    assert losses["log"].item() == pytest.approx(np.log(0.5))
    assert torch.isfinite(prediction.grad).all()


def test_autocast_changes_no_term():
    """Filters of 8 significant bits would not see a slope of a centimetre at 5 metres."""
    torch.manual_seed(0)
    alpha, image = torch.rand(1, 1, 32, 48), torch.rand(1, 3, 32, 48)
    prediction, trimap = alpha + 0.02 * torch.randn_like(alpha), torch.full_like(alpha, 128 / 255)
    depth = 5 + 0.01 * torch.rand(1, 1, 32, 48)
    near, measured = depth + 0.01 * torch.rand_like(depth), depth > 0

    def terms():
        yield matting_loss(prediction, alpha, trimap, image, image, image, dict.fromkeys(MATTING_TERMS, 1.0))
        yield depth_loss(near, depth, measured, dict.fromkeys(DEPTH_TERMS, 1.0))
        yield portrait_loss(prediction, alpha, trimap, image, image, dict.fromkeys(PORTRAIT_TERMS, 1.0))

    plain = list(terms())
    with torch.autocast("cpu", torch.bfloat16):
        assert list(terms()) == plain


def test_affinity_against_loops():
    rng = np.random.default_rng(3)
    alpha, image = rng.random((48, 32)), rng.random((48, 32, 3))

    def similar(values):  # (3, 2, C) places
        flat = values.reshape(6, -1)
        squares = np.array([[((p - q) ** 2).sum() for q in flat] for p in flat])
        distances = np.sqrt(squares)
        return np.exp(-squares / (distances.max() - distances.min()) ** 2)

    ours, given = (similar(cv2.resize(each, (2, 3), interpolation=cv2.INTER_AREA)) for each in (alpha, image))
    prediction = torch.from_numpy(alpha)[None, None].requires_grad_()
    loss = affinity_loss(prediction, torch.from_numpy(image.transpose(2, 0, 1))[None])
    assert loss.item() == pytest.approx(np.sqrt(np.mean((ours - given) ** 2)), rel=1e-5)
    loss.backward()
    flat = affinity_loss(torch.ones(1, 1, 16, 16, requires_grad=True), torch.ones(1, 3, 16, 16))
    flat.backward()
    assert flat.item() == pytest.approx(0, abs=1e-5)
    assert affinity_loss(torch.rand(1, 1, 1024, 640), torch.rand(1, 3, 1024, 640)).item() > 0  # 32x32 places at most


def test_terms_without_a_weight_are_not_computed():
    prediction = torch.rand(1, 1, 8, 8)
    losses = matting_loss(prediction, prediction, torch.full_like(prediction, 128 / 255), weights={"alpha": 1})
    assert list(losses) == ["loss", "alpha"]
    with pytest.raises(ValueError, match="composition"):
        matting_loss(prediction, prediction, prediction)


def test_samples_that_are_no_composites_add_nothing_to_the_composition():
    draw = torch.Generator().manual_seed(0)
    maps, colours = torch.rand(2, 2, 1, 8, 8, generator=draw), torch.rand(3, 2, 3, 8, 8, generator=draw)
    trimap = torch.full((2, 1, 8, 8), 128 / 255)
    both = matting_loss(*maps, trimap, *colours, composed=torch.tensor([True, False]))
    first = matting_loss(*maps[:, :1], trimap[:1], *colours[:, :1])
    assert both["composition"].item() == pytest.approx(first["composition"].item() / 2, rel=1e-6)
    assert both["alpha"].item() == matting_loss(*maps, trimap, *colours)["alpha"].item()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"laplacain": 1}, "unknown term of task.loss 'laplacain'. Did you mean 'laplacian'?"),
        ({"alpha": -1}, "task.loss.alpha=-1 must be a number of at least 0"),
        ({"alpha": "much"}, "task.loss.alpha='much' must be a number"),
        ({"alpha": float("nan")}, "must be a number of at least 0"),
        ({"alpha": 0}, "task.loss has no term of a weight above 0"),
    ],
)
def test_impossible_terms_are_one_sentence(given, said):
    with pytest.raises(UserError) as caught:
        check_terms(MATTING_TERMS, given)
    assert said in str(caught.value)


def test_a_mapping_is_the_whole_loss():
    assert check_terms(MATTING_TERMS, None) == {"alpha": 0.5, "composition": 0.5}
    assert check_terms(MATTING_TERMS, {"gradient": 1, "alpha": 2, "laplacian": 0}) == {"alpha": 2.0, "gradient": 1.0}
