"""indexnet.core.statistics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexnet.core.statistics import (
    FEWEST,
    bootstrap,
    kendall_tau_b,
    paired_difference,
    paired_interval,
    ranks,
    sample_sd,
)
from indexnet.core.statistics import interval as central


def test_sample_sd_by_hand():
    # squares of deviations from 5: 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32
    values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]
    assert sample_sd(values) == pytest.approx(math.sqrt(32 / 7), rel=1e-12)
    assert sample_sd([3.0]) is None  # not zero but unknown
    assert sample_sd([]) is None


def test_ranks_share_the_better_place_and_skip_gaps():
    assert ranks([3.0, None, 5.0, 3.0, 1.0], higher_is_better=True) == [2, None, 1, 2, 4]
    assert ranks([3.0, None, 5.0, 3.0, 1.0], higher_is_better=False) == [2, None, 4, 2, 1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({0: 3.0, 1: 9.0}, {1: 7.0, 2: 100.0}, 2.0),  # seed 1 alone: what the others are like does not matter
        ({0: 3.0, 1: 9.0}, {1: 7.0, 0: 2.0}, 1.5),
        ({0: 3.0, 1: 9.0}, {2: 7.0}, -1.0),  # 6 - 7
        ({}, {2: 7.0}, None),
    ],
)
def test_a_difference_is_over_common_seeds(first, second, expected):
    assert paired_difference(first, second) == expected
    assert paired_difference(second, first) == (None if expected is None else -expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 3], [1, 2, 3, 4], 5 / math.sqrt(5 * 6)),  # one pair tied in the first
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),  # 1 concordant, 1 discordant, 4 tied
    ],
)
def test_kendall_tau_b_by_hand(first, second, expected):
    assert kendall_tau_b(first, second) == pytest.approx(expected, abs=1e-12)


def test_kendall_tau_b_where_it_is_not_defined():
    assert kendall_tau_b([1.0], [2.0]) is None
    assert kendall_tau_b([1.0, 1.0], [1.0, 2.0]) is None
    with pytest.raises(ValueError, match="shapes are incompatible"):
        kendall_tau_b([1.0, 2.0, 3.0], [1.0, 2.0])


def images(values):
    return {f"image {index}": float(value) for index, value in enumerate(values)}


def test_interval_of_a_constant_difference_is_that_difference():
    base = np.random.default_rng(0).normal(30, 3, 50)
    found = paired_interval({0: images(base + 0.5), 1: images(base + 0.5)}, {0: images(base), 1: images(base)})
    assert (found.low, found.high) == pytest.approx((0.5, 0.5), abs=1e-9)
    assert (found.images, found.seeds) == (50, 2)
    assert not found.contains_zero


def test_interval_of_images_by_hand():
    # differences 1, 2, 3: mean 2, sd 1, t of 2 degrees of freedom 4.302653
    found = paired_interval({3: images([11, 22, 33])}, {3: images([10, 20, 30])})
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert (found.images, found.seeds) == (3, 1)


def test_interval_of_seeds_by_hand():
    # no spread over images; seed differences 1 and -0.5: mean 0.25, sd 1.5 / sqrt 2, t of 1 degree of freedom 12.706205
    first, second = {0: images([2, 2]), 1: images([1, 1])}, {0: images([1, 1]), 1: images([1.5, 1.5])}
    found = paired_interval(first, second)
    half = 12.706205 * 1.5 / 2
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-5)
    alone = paired_interval({0: {"all": 2.0}, 1: {"all": 1.0}}, {0: {"all": 1.0}, 1: {"all": 1.5}})
    assert (alone.low, alone.high, alone.images) == (pytest.approx(found.low), pytest.approx(found.high), 1)


def test_interval_of_images_and_seeds_by_hand():
    # differences, a line per seed: 0 2 / 2 4; means over seeds 1, 3, over images 1, 3: sd sqrt 2 each, error 12.706205
    first, second = {0: images([0, 2]), 1: images([2, 4])}, {0: images([0, 0]), 1: images([0, 0])}
    found = paired_interval(first, second)
    assert (found.low, found.high) == pytest.approx((2 - 12.706205 * 2**0.5, 2 + 12.706205 * 2**0.5), abs=1e-5)


def test_interval_pairs_images():
    # rows differ by 0.1 on every image while images differ by 10: only a paired comparison sees it
    base = np.arange(40) * 10.0
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    found = paired_interval({3: images(base + 0.1 + noise)}, {3: images(base)})
    assert 0 < found.low < 0.1 < found.high < 0.2


@pytest.mark.parametrize(("seeds", "of_seeds"), [(1, 0.0), (2, 0.5), (2, 0.05), (3, 0.5), (3, 0.05), (5, 0.1)])
def test_interval_covers_as_often_as_it_says(seeds, of_seeds):
    generator = np.random.default_rng(seeds)
    held = 0
    for _ in range(400):
        drawn = generator.normal(0, 0.3, (1, 20)) + generator.normal(0, of_seeds, (seeds, 1))
        drawn = drawn + generator.normal(0, 0.3, (seeds, 20))
        second = {seed: images(np.zeros(20)) for seed in range(seeds)}
        held += paired_interval({seed: images(line) for seed, line in enumerate(drawn)}, second).contains_zero
    assert held / 400 > 0.925  # 0.95 less 2.3 standard errors


def test_interval_uses_common_images_and_independent_seeds():
    found = paired_interval({0: images([1, 2, 3])}, {1: images([0, 1, 2, 50])})
    assert found.images == 3
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
    # seeds of the first: 1 and 3, of the second 0 and 0: error t(1) * 1
    apart = paired_interval({0: images([1, 1]), 1: images([3, 3])}, {2: images([0, 0]), 3: images([0, 0])})
    assert (apart.low, apart.high) == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-5)
    assert paired_interval({0: {"a": 1.0}}, {0: {"b": 1.0}}) is None
    assert paired_interval({0: {"a": 1.0}}, {0: {"a": 2.0}}) is None  # one image of one seed says nothing of others
    assert paired_interval({}, {0: {"b": 1.0}}) is None


def ratio(sums):
    return sums[:, 0] / sums[:, 1]


def test_bootstrap_of_sums_keeps_groups_together():
    # the images of a group have 0 of 1 and 4 of 1: 2 in every draw of whole groups, but not in draws of images
    sums = {f"{group}{image}": np.array([4.0 * image, 1.0]) for group in range(FEWEST) for image in (0, 1)}
    together = bootstrap(sums, {name: name[0] for name in sums}, ratio)
    assert central(together) == (2.0, 2.0)
    low, high = central(bootstrap(sums, {name: name for name in sums}, ratio))
    assert 0 < low < 2 < high < 4
    assert bootstrap(sums, {name: str(int(name[0]) % 5) for name in sums}, ratio) is None  # too few groups
    assert central(None) is None
    assert central(np.array([1.0, np.nan])) is None


def test_bootstrap_of_sums_weighs_images_by_what_they_count():
    # five images of 1 pixel with value 0, one of 5 pixels with value 1: the mean over pixels is 1/2, over images 1/6
    sums = {str(image): np.array([0.0, 1.0]) for image in range(5)} | {"5": np.array([5.0, 5.0])}
    found = bootstrap(sums, {name: name for name in sums}, ratio, replicates=4000)
    # an image is drawn k of 6 times with the binomial's chance, and then has 5 k of 5 k + 6 - k pixels
    expected = sum(math.comb(6, k) * 5 ** (6 - k) / 6**6 * 5 * k / (6 + 4 * k) for k in range(7))
    assert found.mean() == pytest.approx(expected, abs=0.015)
