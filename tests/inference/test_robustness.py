"""Trimaps that are made again from alpha."""

from __future__ import annotations

import numpy as np
import pytest

from indexnet.commands.robustness import parse_ranges
from indexnet.core.errors import UserError
from indexnet.data import create_data
from indexnet.data.io.trimaps import eroded_trimap
from indexnet.inference.robustness import RemadeTrimaps


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
