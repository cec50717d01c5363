"""indexnet.core.statistics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexnet.core.statistics import FEWEST, bootstrap, kendall_tau_b, paired_bootstrap, ranks, sample_sd
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


def test_bootstrap_of_a_constant_difference_is_that_difference():
    base = np.random.default_rng(0).normal(30, 3, 50)
    interval = paired_bootstrap({0: images(base + 0.5), 1: images(base + 0.5)}, {0: images(base), 1: images(base)})
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.5, 0.5), abs=1e-5)
    assert (interval.images, interval.seeds) == (50, 2)
    assert not interval.contains_zero


def test_bootstrap_of_two_images_by_hand():
    # differences 0 and 1: a replicate's mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4
    first, second = {0: images([1, 3])}, {0: images([1, 2])}
    wide = paired_bootstrap(first, second, level=0.95)
    narrow = paired_bootstrap(first, second, level=0.30)
    assert wide is not None
    assert narrow is not None
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_bootstrap_over_seeds_needs_every_pair_of_seeds_to_agree():
    # no spread over images; seed differences are +1 and -0.5: replicates 1, 0.25, -0.5 (1/4, 1/2, 1/4)
    first, second = {0: images([2, 2]), 1: images([1, 1])}, {0: images([1, 1]), 1: images([1.5, 1.5])}
    interval = paired_bootstrap(first, second)
    assert interval is not None
    assert (interval.low, interval.high) == (-0.5, 1.0)
    assert interval.contains_zero


def test_bootstrap_pairs_images():
    # rows differ by 0.1 on every image while images differ by 10: only a paired comparison sees it
    base = np.arange(40) * 10.0
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    interval = paired_bootstrap({3: images(base + 0.1 + noise)}, {3: images(base)})
    assert interval is not None
    assert 0 < interval.low < 0.1 < interval.high < 0.2


def test_bootstrap_is_the_same_every_time_and_depends_on_its_seed():
    rng = np.random.default_rng(2)
    first, second = {0: images(rng.normal(size=30))}, {0: images(rng.normal(size=30))}
    assert paired_bootstrap(first, second) == paired_bootstrap(first, second)
    assert paired_bootstrap(first, second) != paired_bootstrap(first, second, seed=1)


def test_bootstrap_agrees_with_the_normal_interval():
    differences = np.random.default_rng(3).normal(0.2, 1.0, 400)
    interval = paired_bootstrap({0: images(differences)}, {0: images(np.zeros(400))})
    assert interval is not None
    error = 1.96 * differences.std(ddof=1) / 20
    assert interval.low == pytest.approx(differences.mean() - error, abs=0.015)
    assert interval.high == pytest.approx(differences.mean() + error, abs=0.015)


def test_bootstrap_uses_common_images_and_independent_seeds():
    first, second = {0: images([1, 2, 3])}, {1: images([0, 1, 2, 50])}
    interval = paired_bootstrap(first, second)
    assert interval is not None
    assert interval.images == 3
    assert (interval.low, interval.high) == pytest.approx((1.0, 1.0))
    assert paired_bootstrap({0: {"a": 1.0}}, {0: {"b": 1.0}}) is None
    assert paired_bootstrap({}, {0: {"b": 1.0}}) is None


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
