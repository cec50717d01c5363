"""Trimaps that are made again from alpha, and images that are damaged."""

from __future__ import annotations

import numpy as np
import pytest

from indexnet.commands.robustness import parse_ranges
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.trimaps import eroded_trimap
from indexnet.inference.robustness import Condition, DegradedImages, RemadeTrimaps, make_series


def scenes(count=3):
    return create_data("scenes", task="matting", size=64, test_count=count).test()


def test_ranges_are_read():
    assert parse_ranges("11-20, 21-30,7") == [(11, 20), (21, 30), (7, 7)]
    for text in ("", "5-3", "0-4", "a", "1-2-3", "3,,4"):
        with pytest.raises(UserError, match="not understood"):
            parse_ranges(text)
    with pytest.raises(UserError, match="twice"):
        parse_ranges("1-2,1-2")


def test_trimaps_are_eroded_from_alpha_by_sizes_that_depend_on_range_and_image_only():
    inner = scenes()
    split = RemadeTrimaps(inner, (3, 9), seed=5)
    sizes = [split.sizes(index) for index in range(200)]
    assert {size for pair in sizes for size in pair} == set(range(3, 10))
    assert any(a != b for a, b in sizes)  # drawn independently
    assert abs(np.corrcoef(np.array(sizes).T)[0, 1]) < 0.25
    assert RemadeTrimaps(inner, (3, 9), seed=5).sizes(7) == sizes[7]
    assert [RemadeTrimaps(inner, (3, 9), seed=6).sizes(i) for i in range(200)] != sizes
    sample, other = split.sample(1, np.random.default_rng(0)), split.sample(1, np.random.default_rng(9))
    alpha = np.rint(sample["alpha"][0].numpy() * 255).astype(np.uint8)
    found = np.rint(sample["trimap"][0].numpy() * 255).astype(np.uint8)
    assert np.array_equal(found, eroded_trimap(alpha, *sizes[1]))
    assert np.array_equal(found, np.rint(other["trimap"][0].numpy() * 255))
    assert (found[(alpha > 0) & (alpha < 255)] == 128).all()
    assert len({RemadeTrimaps(inner, widths).fingerprint() for widths in ((3, 9), (3, 8))} | {inner.fingerprint()}) == 3
    assert split.name(1) == inner.name(1)


def test_wider_trimaps_leave_more_unknown():
    shares = [
        np.mean([(abs(RemadeTrimaps(scenes(), widths).sample(i, None)["trimap"] * 255 - 128) < 0.5).float().mean()
                 for i in range(3)])
        for widths in ((1, 3), (7, 9), (15, 17))
    ]  # fmt: skip
    assert shares == sorted(shares)
    assert shares[0] < shares[2] / 1.5


def test_damage_depends_on_seed_kind_and_name_and_leaves_all_but_the_image():
    inner = scenes()
    split = DegradedImages(inner, "noise", 10.0, seed=1)
    before, after = inner.sample(1, np.random.default_rng(0)), split.sample(1, np.random.default_rng(5))
    assert set(before) == set(after)
    for key in set(before) - {"image", "name"}:
        assert np.array_equal(before[key], after[key]), key
    assert (after["image"] - before["image"]).std().item() * 255 == pytest.approx(10, rel=0.1)
    again = DegradedImages(scenes(), "noise", 10.0, seed=1).sample(1, np.random.default_rng(0))
    assert np.array_equal(again["image"], after["image"])
    assert not np.array_equal(DegradedImages(inner, "noise", 10.0).sample(1, None)["image"], after["image"])
    first = DegradedImages(inner, "noise", 10.0, seed=1).sample(0, None)["image"] - inner.sample(0, None)["image"]
    assert abs(np.corrcoef(first.numpy().ravel(), (after["image"] - before["image"]).numpy().ravel())[0, 1]) < 0.05
    prints = {DegradedImages(inner, *what).fingerprint() for what in (("noise", 1.0), ("noise", 2.0), ("blur", 1.0))}
    assert len(prints | {inner.fingerprint()}) == 4


def test_series_share_what_is_measured_once():
    (trimaps,) = make_series([(3, 5), (9, 9)], {})
    assert (trimaps.title, list(trimaps.places)) == ("", ["3-5", "9"])
    noise, jpeg = make_series([], {"noise": (5, 0, 10), "jpeg": (90, 30)})
    assert (list(noise.places), list(jpeg.places)) == (["5", "clean", "10"], ["clean", "90", "30"])
    assert noise.conditions[1] == jpeg.conditions[0] == Condition()
    both = make_series([(3, 5), (9, 9)], {"gamma": (0.5, 1)})
    assert [each.title for each in both] == ["gamma, trimaps 3-5", "gamma, trimaps 9"]
    assert both[1].conditions == [Condition((9, 9), "gamma", 0.5), Condition((9, 9))]
    split = both[0].conditions[0].apply(scenes(), 0)
    assert np.array_equal(split.sample(0, None)["trimap"], RemadeTrimaps(scenes(), (3, 5)).sample(0, None)["trimap"])
