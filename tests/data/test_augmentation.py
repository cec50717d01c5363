"""Strong augmentation: what operations keep, how often they happen, and which samples they leave alone."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from data_support import write_matting_folder
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.matting.augmentation.linear import LINEAR, Linear
from indexnet.data.matting.augmentation.other import NONLINEAR, REGION, to_levels
from indexnet.data.matting.augmentation.policy import (
    AUGMENTATIONS,
    CATEGORIES,
    SHARES,
    augment,
    composed,
    draw_kind,
    draw_operation,
    needs_pseudo_labels,
)
from indexnet.data.matting.pipelines.base import Targets

STRONG = [name for name, kinds in AUGMENTATIONS.items() if kinds]


def targets(seed=0, low=0, high=255, size=24):
    rng = np.random.default_rng(seed)
    fg, bg = rng.uniform(low, high, (2, size, size, 3)).astype(np.float32)
    alpha = np.clip(rng.normal(128, 150, (size, size)), 0, 255).astype(np.float32)
    trimap = np.where((alpha > 0) & (alpha < 255), 128, alpha).astype(np.uint8)
    weight = alpha[..., None] / 255
    return Targets(weight * fg + (1 - weight) * bg, alpha, trimap, fg, bg)


def mixed(targets):
    weight = np.asarray(targets.alpha, np.float64)[..., None] / 255
    return weight * targets.fg + (1 - weight) * targets.bg


@pytest.mark.parametrize("name", LINEAR)
def test_linear_operations_keep_alpha(name):
    """One instance of F, B and I: I' = alpha F' + (1 - alpha) B', also where values are cut to 0..255."""
    for seed in range(6):
        given = targets(seed)
        change = LINEAR[name](given.fg.shape, np.random.default_rng(seed))
        assert isinstance(change, Linear)
        after = composed(given, change(given.fg), change(given.bg))
        np.testing.assert_allclose(after.image, mixed(after), atol=1e-3)
        assert after.alpha is given.alpha
        middle = targets(seed, 120, 135)  # from which few operations come to 0 or 255
        layers = change(middle.fg), change(middle.bg)
        assert all(layer.dtype == np.float32 and 0 <= layer.min() <= layer.max() <= 255 for layer in layers)
        free = ((layers[0] > 0) & (layers[0] < 255) & (layers[1] > 0) & (layers[1] < 255)) | (layers[0] == layers[1])
        assert free.mean() > 0.6
        np.testing.assert_allclose(
            change(middle.image)[free], composed(middle, *layers).image[free], atol=2e-3
        )  # of the composite itself


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_operation_changes_images_within_range_and_follows_from_its_generator(category):
    image = cv2.GaussianBlur(targets().image, (0, 0), 1)
    for name, draw in CATEGORIES[category].items():
        before, changed = image.copy(), []
        for seed in range(8):
            twice = [draw(image.shape, np.random.default_rng(seed))(image) for _ in range(2)]
            np.testing.assert_array_equal(*twice)
            assert twice[0].dtype == np.float32, name
            assert twice[0].shape == image.shape
            assert twice[0].min() >= 0
            assert twice[0].max() <= 255.01, name
            changed.append(np.abs(twice[0] - image).max() > 0.5)
        assert sum(changed) >= 5, name
        np.testing.assert_array_equal(image, before)


def test_what_the_other_operations_are():
    image = targets().image
    rng = np.random.default_rng(3)
    power = np.random.default_rng(3).uniform(0.6, 1.6)
    np.testing.assert_allclose(NONLINEAR["gamma"](image.shape, rng)(image), 255 * (image / 255) ** power, rtol=1e-4)
    value = NONLINEAR["equalisation"](image.shape, rng)(image).max(2)
    np.testing.assert_array_equal(value, cv2.equalizeHist(to_levels(image).max(2)))
    sigma = np.random.default_rng(4).uniform(0.5, 2)
    blurred = REGION["gaussian_blur"](image.shape, np.random.default_rng(4))(image)
    np.testing.assert_allclose(blurred, cv2.GaussianBlur(image, (0, 0), sigma), atol=1e-3)
    gray = np.repeat(image[..., :1], 3, 2)
    turned = NONLINEAR["hue_and_saturation"](gray.shape, rng)(gray)
    np.testing.assert_allclose(turned.max(2), gray[..., 0], atol=1e-2)  # the value stays


def test_compression_keeps_the_order_of_the_channels():
    red = np.zeros((16, 16, 3), np.float32)
    red[..., 0] = 200
    out = REGION["jpeg"](red.shape, np.random.default_rng(0))(red)
    assert np.abs(out - red).max() < 12
    assert REGION["jpeg"](red.shape, np.random.default_rng(0))(red[..., 0]).shape == (16, 16)


@pytest.mark.parametrize("name", STRONG)
def test_how_often_what_is_changed(name):
    rng, count = np.random.default_rng(0), 20000
    drawn = Counter(draw_kind(name, rng) for _ in range(count))
    shares = AUGMENTATIONS[name]
    for kind, share in shares.items():
        assert abs(drawn[kind] / count - share) < 4 * np.sqrt(share * (1 - share) / count), kind
    assert set(drawn) == {None, *shares}
    if name == "af+afb+ac":  # 0.1 of those in which neither happens
        assert drawn["ac"] / (drawn["ac"] + drawn[None]) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("kind", SHARES)
def test_how_often_which_operation(kind):
    rng, count = np.random.default_rng(1), 6000
    drawn = [draw_operation(kind, (2, 2, 3), rng)[:2] for _ in range(count)]
    categories, names = Counter(category for category, _ in drawn), Counter(drawn)
    for category, share in SHARES[kind].items():
        assert abs(categories[category] / count - share) < 4 * np.sqrt(share * (1 - share) / count)
        each = share / len(CATEGORIES[category])
        for name in CATEGORIES[category]:
            assert abs(names[category, name] / count - each) < 4.5 * np.sqrt(each / count), name


@pytest.mark.parametrize("name", STRONG)
def test_what_is_changed_of_a_sample(name):
    kinds = Counter()
    for seed in range(300):
        given = targets(seed % 5, size=8)
        kind = draw_kind(name, np.random.default_rng(seed))
        found = augment(name, given, np.random.default_rng(seed))
        after = found.targets
        assert after.alpha is given.alpha
        assert after.trimap is given.trimap
        assert found.composed
        np.testing.assert_allclose(after.image, mixed(after), atol=1e-3)
        changed = [getattr(after, key) is not getattr(given, key) for key in ("image", "fg", "bg")]
        other = found.changed is not None
        if kind in (None, "ac") and not any(changed):
            assert other == (kind == "ac")
        else:
            assert not other
            assert changed == [True] * 3
            if kind == "af":
                np.testing.assert_array_equal(after.bg, given.bg)
        kinds[kind, other] += 1
    expected = {(None, False), *((kind, False) for kind in AUGMENTATIONS[name])}
    expected |= {("ac", True)} if needs_pseudo_labels(name) else set()
    assert set(kinds) == expected


@pytest.mark.parametrize("name", ["da", "da+alpha"])
def test_blur_and_compression_each_a_quarter_of_the_time(name):
    given, count = targets(size=8), 2000
    seen = Counter()
    for seed in range(count):
        found = augment(name, given, np.random.default_rng(seed))
        hit = found.targets.image is not given.image
        assert found.composed is not hit
        assert (found.targets.alpha is not given.alpha) == (hit and name == "da+alpha")
        assert found.targets.fg is given.fg
        assert found.targets.trimap is given.trimap
        seen[hit] += 1
    assert seen[True] / count == pytest.approx(1 - 0.75**2, abs=0.045)


def folder_data(root, **options):
    return create_data("matting_folder", root=str(root), size=16, per_foreground=4, **options)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_samples_of_a_folder_and_of_scenes(name, tmp_path):
    write_matting_folder(tmp_path, 3, 12)
    for make in (
        lambda **options: folder_data(tmp_path, **options),
        lambda **options: create_data("scenes", **options),
    ):
        small = {"size": 32, "train_count": 2} if make(augment="none").name == "scenes" else {}
        plain, split = make(**small).train(), make(augment=name, **small).train()
        assert (plain.fingerprint() == split.fingerprint()) == (name == "none")
        seen = set()
        for seed in range(12):
            a, b = (each.sample(1, np.random.default_rng(seed)) for each in (plain, split))
            assert torch.equal(a["trimap"], b["trimap"])  # the same crop of the same composite
            extra = {"none": set(), "af+afb+ac": {"composed", "augmented", "pseudo"}}.get(name, {"composed"})
            assert b.keys() - a.keys() == extra
            same = all(torch.equal(a[key], b[key]) for key in a if key != "name")
            seen.add(same)
            assert b["image"].dtype == torch.float32
            if not torch.equal(a["image"], b["image"]) and bool(b["composed"]):
                again = b["alpha"] * b["fg"] + (1 - b["alpha"]) * b["bg"]
                assert (again - b["image"]).abs().max() < 1e-5
        assert seen == {True} if name == "none" else False in seen
        assert make(augment=name, **small).test().sample(0, np.random.default_rng(0)).keys() <= a.keys()


def test_names_that_there_are_not(tmp_path):
    write_matting_folder(tmp_path, 3, 12)
    for make in (lambda: folder_data(tmp_path, augment="all"), lambda: create_data("scenes", augment="all")):
        with pytest.raises(UserError, match=r"^data\.augment must be one of none, da, .*; got 'all'\."):
            make()
    with pytest.raises(UserError, match="task=matting"):
        create_data("scenes", task="depth", augment="af")
