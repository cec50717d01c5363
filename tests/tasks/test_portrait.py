"""Portrait matting: two sets of errors in one run, losses, sizes, a given trimap, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexnet.core.errors import UserError
from indexnet.losses import PORTRAIT_TERMS, affinity_loss, portrait_loss
from indexnet.networks.imagenet import normalise
from indexnet.tasks import create_task
from indexnet.tasks.predictor import Photo

NARROW = {"name": "mobilenetv2_released", "width": 0.25}
NETWORK = {"name": "pspm", "encoder": NARROW}
GIVEN = {**NETWORK, "sharing": "cascade", "prior": "trimap"}
NO_CLASSES = {name: weight for name, weight in PORTRAIT_TERMS.items() if name != "segmentation"}


def batch(height=24, width=40, n=2):
    generator = torch.Generator().manual_seed(0)
    trimap = torch.full((n, 1, height, width), 128 / 255)
    trimap[..., :8], trimap[..., -8:] = 0.0, 1.0
    alpha = torch.rand(n, 1, height, width, generator=generator)
    alpha = torch.where((trimap - 0.5).abs() < 0.1, alpha, trimap)
    image = torch.rand(n, 3, height, width, generator=generator)
    return {"image": image, "alpha": alpha, "trimap": trimap, "name": [str(i) for i in range(n)]}


def test_both_sets_of_errors_are_sums_over_their_pixels():
    """Set 1 in thousands over the unknown region, set 2 over every pixel and divided by their number."""
    task = create_task("portrait", NETWORK)
    given = batch(n=1)
    given["alpha"] = given["alpha"].mul(255).round() / 255
    prediction = torch.cat([(given["alpha"] - 51 / 255).clamp(0, 1), given["trimap"]], 1)
    metrics = task.create_metrics()
    (row,) = task.measure(prediction, given, metrics)
    difference = (prediction[:, :1] - given["alpha"]).abs().double()
    unknown = given["trimap"] == 128 / 255
    assert unknown.sum() == 24 * 24
    assert row["sad"] == pytest.approx(difference[unknown].sum().item() / 1000, rel=1e-6)
    assert row["sad_full"] == pytest.approx(difference.sum().item() / 960, rel=1e-6)
    assert row["mse_full"] == pytest.approx(difference.square().sum().item() / 960, rel=1e-6)
    assert row["trimap_miou"] == 100
    pasted = create_task("portrait", NETWORK, pasted=True)
    (row,) = pasted.measure(prediction, given, pasted.create_metrics())
    assert row["sad_full"] == pytest.approx(difference[unknown].sum().item() / 960, rel=1e-6)
    assert row["sad_full"] * 960 == pytest.approx(row["sad"] * 1000)


def test_losses_by_hand():
    given = batch(n=1)
    prediction = given["alpha"] + 0.25
    scores = torch.zeros(1, 3, 24, 40)
    scores[:, 2, :8] = 9.0  # the upper third is unknown to the network
    values = portrait_loss(prediction, given["alpha"], given["trimap"], given["image"], scores, PORTRAIT_TERMS)
    assert values["alpha_unknown"].item() == pytest.approx(0.25, abs=1e-4)
    assert values["alpha_image"].item() == pytest.approx(0.25, abs=1e-6)
    total = sum(PORTRAIT_TERMS[name] * values[name].item() for name in PORTRAIT_TERMS)
    assert values["loss"].item() == pytest.approx(total, rel=1e-6)
    # a constant offset has edges at the border alone, 0.25 x 4 (3 and 3 at a corner), as Sobel sees zeros outside it
    upper, lower = (38 + 2 * 7 + 2 * 1.5) / (8 * 40), (38 + 2 * 15 + 2 * 1.5) / (16 * 40)
    assert values["gradient"].item() == pytest.approx(upper + 0.5 * lower, rel=1e-4)
    sure = torch.stack([(given["trimap"] == value).float() * 200 for value in (1, 0, 128 / 255)], 2)[:, 0]
    right = portrait_loss(prediction, given["alpha"], given["trimap"], given["image"], sure, {"segmentation": 1.0})
    assert right["loss"].item() == pytest.approx(0, abs=1e-6)
    assert set(right) == {"loss", "segmentation"}


def test_affinity_is_zero_where_alpha_is_the_gray_image():
    gray = torch.rand(2, 1, 64, 96)
    image = gray.expand(-1, 3, -1, -1) / 3**0.5  # of the same distances
    assert affinity_loss(gray, image).item() == pytest.approx(0, abs=1e-5)
    assert affinity_loss(1 - gray, image).item() == pytest.approx(0, abs=1e-5)
    assert affinity_loss(torch.rand(2, 1, 64, 96), image).item() > 0.05


def test_the_choice_of_the_unknown_region_has_no_gradient():
    given = batch()
    scores = torch.randn(2, 3, 24, 40, requires_grad=True)
    prediction = torch.rand(2, 1, 24, 40, requires_grad=True)
    values = portrait_loss(prediction, given["alpha"], given["trimap"], given["image"], scores, NO_CLASSES)
    values["loss"].backward()
    assert scores.grad is None
    assert prediction.grad is not None


def test_the_first_phase_leaves_what_is_frozen_as_it_is():
    """Weights and statistics to the bit, and the trimap that it gives: nothing is dropped there in training."""
    torch.manual_seed(0)
    task = create_task("portrait", NETWORK, {"name": "sgd", "lr": 0.1, "weight_decay": 0.1})
    task.freeze_parts(["encoder", "segmentation"])
    task.train()
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    optimizer, given = task.configure_optimizers(), batch(32, 32)
    scores = task.network(normalise(given["image"]))[:, 1:]
    for _ in range(2):
        optimizer.zero_grad()
        task.losses(given)["loss"].backward()
        optimizer.step()
    after = task.network.state_dict()
    frozen = {key for key in before if key.startswith(("encoder.", "segmentation."))}
    assert {key for key in before if torch.equal(before[key], after[key])} >= frozen
    assert all(not torch.equal(before[key], after[key]) for key in before if key.startswith("matting.decoder."))
    assert torch.equal(task.network(normalise(given["image"]))[:, 1:], scores)


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (65, 33)])
def test_images_of_any_size_give_mattes_of_their_size(size):
    torch.manual_seed(0)
    task = create_task("portrait", NETWORK, longest=64).eval()
    sample = task.image_sample(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), name="x")
    prediction = task.predict({"image": sample["image"][None]})
    assert prediction.shape == (1, 2, *size)
    assert set(prediction[:, 1].unique().tolist()) <= {0.0, 1.0, np.float32(128 / 255).item()}
    (files,) = task.create_predictor({"depth": 16})([Photo(np.zeros((*size, 3), np.uint8), name="x")])
    assert files[""].dtype == np.uint16
    assert files[""].shape == files["trimap"].shape == size


def test_a_network_that_is_given_the_trimap_needs_it_and_keeps_it():
    task = create_task("portrait", GIVEN, loss=NO_CLASSES).eval()
    given = batch(33, 40)
    with pytest.raises(UserError, match="lacks 'trimap', which prediction needs"):
        task.predict({"image": given["image"], "name": given["name"]})
    prediction = task.predict(given)
    assert prediction.shape == (2, 1, 33, 40)
    assert prediction[..., :8].max() == 0
    assert prediction[..., -8:].min() == 1
    assert "trimap_miou" not in task.create_metrics()
    assert "masks" in task.predict_options
    assert task.losses(given)["loss"].isfinite()
    assert create_task("portrait", NETWORK).guide is None


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (NETWORK, {"loss": {"alpha": 1}}, "task.loss"),
        (NETWORK, {"pasted": "yes"}, "task.pasted must be one of True, False"),
        (NETWORK, {"longest": 3}, "task.longest must be a whole number of pixels, at least 64"),
        (NETWORK, {"semantics": "java"}, "task.semantics='java' must be one of"),
        ({"name": "dncnn"}, {}, "give network=pspm"),
        (GIVEN, {}, "give task.loss.segmentation=0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(network, options, words):
    with pytest.raises(UserError) as caught:
        create_task("portrait", network, **options)
    assert words in str(caught.value)
