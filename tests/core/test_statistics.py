"""indexnet.core.statistics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexnet.core.statistics import kendall_tau_b, mean, paired_bootstrap, ranks, sample_sd


def test_mean_and_sample_sd_by_hand():
    # squares of deviations from 5: 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32
    values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]
    assert mean(values) == 5.0
    assert sample_sd(values) == pytest.approx(math.sqrt(32 / 7), rel=1e-12)
    assert sample_sd([30.0, 31.0]) == pytest.approx(math.sqrt(0.5), rel=1e-12)


def test_sd_of_one_value_is_not_zero_but_unknown():
    assert sample_sd([3.0]) is None
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_ranks_share_the_better_place_and_skip_gaps():
    assert ranks([3.0, None, 5.0, 3.0, 1.0], higher_is_better=True) == [2, None, 1, 2, 4]
    assert ranks([3.0, None, 5.0, 3.0, 1.0], higher_is_better=False) == [2, None, 4, 2, 1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),  # 5 concordant, 1 discordant of 6 pairs
        ([1, 2, 2, 3], [1, 2, 3, 4], 5 / math.sqrt(5 * 6)),  # one pair tied in the first
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),  # 1 concordant, 1 discordant, 4 tied
    ],
)
def test_kendall_tau_b_by_hand(first, second, expected):
    assert kendall_tau_b(first, second) == pytest.approx(expected, abs=1e-12)


def test_kendall_tau_b_equals_scipy():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
        assert kendall_tau_b(a, b) == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)


def test_kendall_tau_b_where_it_is_not_defined():
    assert kendall_tau_b([1.0], [2.0]) is None
    assert kendall_tau_b([1.0, 1.0], [1.0, 2.0]) is None
    with pytest.raises(ValueError, match="one length"):
        kendall_tau_b([1.0], [1.0, 2.0])


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
